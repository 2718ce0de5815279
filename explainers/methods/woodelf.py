"""WOODELF: the same path-dependent Shapley values as TreeExplainer's, faster where there are thousands of rows."""

import numpy as np
import pandas as pd

from explainers.contract import Attributions, Family, Method, NotAdditiveError, Question

FAMILIES = (Family.XGBOOST, Family.LIGHTGBM, Family.TREES)


class Woodelf(Method):
    """The package `woodelf-explainer`, per output; its base is what the predictions leave over, equal on every row."""

    name = "woodelf"
    title = "WOODELF"
    source = "Nadel and Wettenstein (2025), From decision trees to Boolean logic: a fast and unified SHAP algorithm"
    tolerance = 1e-4

    def refusal(self, question: Question) -> str:
        """Return why not: trees without categorical splits, on the scale of their leaves."""
        model = question.bound.model
        if model.family not in FAMILIES:
            return "WOODELF explains XGBoost, LightGBM and scikit-learn's trees"
        if question.scale is not model.scales[0]:
            return f"the leaves of these trees add up to the {model.scales[0].value}, not to the {question.scale.value}"
        if model.categorical:
            return "WOODELF does not follow categorical splits"
        return ""

    def attribute(self, question: Question) -> Attributions:
        """Return its values, folded to the players; raises NotAdditiveError where what is left over varies."""
        from woodelf import WoodelfExplainer
        from woodelf.core.trees.parse_models import load_decision_tree_ensemble_model

        bound = question.bound
        model = bound.model
        assert model.matrix is not None  # noqa: S101 - every tree model has one
        frame = bound.encode(question.rows)
        predictions = model.predict(frame, question.scale)
        names = _names(model.native, len(model.owner or model.columns))
        data = frame if model.family is Family.XGBOOST and not model.owner else model.matrix(frame)
        precision = np.float32 if model.family is Family.XGBOOST else np.float64
        table = pd.DataFrame(np.asarray(data, dtype=precision), columns=names)
        several = len(model.outputs) > 1
        values = np.empty((len(frame), len(names), len(model.outputs)))
        for place in range(len(model.outputs)):
            output = place if several else _of_two(model.family, model.other)
            trees = load_decision_tree_ensemble_model(model.native, names, class_index=output)
            explainer = WoodelfExplainer(trees)
            values[:, :, place] = explainer.shap_values(table, verbose=False)
        over = predictions - values.sum(axis=1)
        base = np.median(over, axis=0)
        allowed = self.tolerance * (1 + np.abs(predictions).max(axis=0))
        if (np.abs(over - base) > allowed).any():
            raise NotAdditiveError(
                f"what its values leave of the predictions varies by {float(np.abs(over - base).max()):.2g}"
            )
        return Attributions(values=bound.folded(values), base=base, predictions=predictions, evaluations=len(frame))


def _names(native: object, count: int) -> list[str]:
    named = getattr(native, "feature_names", None)
    return list(named) if named else [f"f{place}" for place in range(count)]


def _of_two(family: Family, other: str | None) -> int:
    """Return which output of a model of two classes is explained: a forest's leaves have one number per class."""
    return 1 if family is Family.TREES and other is not None else 0
