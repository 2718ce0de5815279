"""TreeExplainer: shap's exact algorithms for trees and forests, path-dependent or against a background."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from explainers.contract import BOOSTERS, TRAINING, Attributions, Family, Method, Model, Numbers, Options, Question


class TreeOptions(Options):
    """What stands for inputs that are not known."""

    perturbation: Literal["path_dependent", "interventional"] = "path_dependent"
    """``path_dependent`` weighs branches as training rows took them; ``interventional`` asks the background's rows."""


class Tree(Method):
    """shap's TreeExplainer as it is: of scikit-learn's trees, and of boosters where a background is to be asked."""

    name = "tree"
    title = "TreeExplainer"
    source = "Lundberg et al. (2020); shap.TreeExplainer"
    libraries = ("shap",)
    tolerance = 1e-5
    options = TreeOptions

    def refusal(self, question: Question) -> str:
        """Return why not: only trees, on the scale of their leaves; of a booster's own way the booster is faster."""
        model = question.bound.model
        asks = asks_background(question)
        if model.family in BOOSTERS and not asks:
            return (
                "of boosters TreeExplainer computes what they compute themselves (method native); it adds to that with "
                'the option {"perturbation": "interventional"}'
            )
        if model.family not in BOOSTERS and model.family is not Family.TREES:
            return "TreeExplainer is for trees: scikit-learn's, and boosters against a background"
        if asks and model.family is Family.CATBOOST:
            return "TreeExplainer does not read CatBoost's trees against a background; permutation and kernel ask it"
        if asks and model.categorical:
            return "TreeExplainer does not follow categorical splits against a background"
        if asks and not len(question.background):
            return "a background is needed: activate a baseline with rows"
        if question.scale is not model.scales[0]:
            return f"the leaves of these trees add up to the {model.scales[0].value}, not to the {question.scale.value}"
        return ""

    def attribute(self, question: Question) -> Attributions:
        """Return shap's values, folded to the players."""
        import shap

        bound, asks = question.bound, asks_background(question)
        model = bound.model
        frame = bound.encode(question.rows)
        given = inside(model, frame).astype(np.float64)
        if asks:
            background = inside(model, bound.encode(question.background)).astype(np.float64)
            explainer = shap.TreeExplainer(model.native, background, feature_perturbation="interventional")
        else:
            explainer = shap.TreeExplainer(model.native, feature_perturbation="tree_path_dependent")
        values = np.asarray(explainer.shap_values(given, check_additivity=False), dtype=np.float64)
        values = values[:, :, None] if values.ndim == 2 else values
        base = np.atleast_1d(np.asarray(explainer.expected_value, dtype=np.float64))
        values, base = _of_outputs(values, base, len(model.outputs))
        return Attributions(
            values=bound.folded(values),
            base=base,
            predictions=model.predict(frame, question.scale),
            evaluations=len(frame),
            background=len(question.background) if asks else 0,
            against="" if asks else TRAINING,
        )


def asks_background(question: Question) -> bool:
    """Return whether a background is asked instead of the counts in the trees."""
    return TreeOptions.model_validate(dict(question.options)).perturbation == "interventional"


def inside(model: Model, frame: Any) -> NDArray[np.floating]:
    """Return the numbers that the trees themselves see of a frame, in the precision in which they compare them."""
    is_xgboost = model.family is Family.XGBOOST
    assert model.matrix is not None  # noqa: S101 - every tree model has one
    data = frame if is_xgboost and not model.owner else model.matrix(frame)
    return np.asarray(data, dtype=np.float32 if is_xgboost else np.float64)


def _of_outputs(values: Numbers, base: Numbers, outputs: int) -> tuple[Numbers, Any]:
    """Return the outputs that the model tells: of two classes the second alone."""
    if values.shape[2] == 2 and outputs == 1:
        return values[:, :, 1:], base[-1:]
    return values, base
