"""TreeExplainer: shap's exact path-dependent algorithm, for scikit-learn's trees and forests."""

from typing import Any

import numpy as np

from explainers.contract import Attributions, Family, Method, Numbers, Question


class Tree(Method):
    """shap's TreeExplainer as it is."""

    name = "tree"
    title = "TreeExplainer"
    source = "Lundberg et al. (2020); shap.TreeExplainer(feature_perturbation='tree_path_dependent')"
    tolerance = 1e-5

    def refusal(self, question: Question) -> str:
        """Return why not: only scikit-learn's trees, on the scale that their leaves are on."""
        model = question.bound.model
        if model.family is not Family.TREES:
            return "TreeExplainer is used for scikit-learn's trees and forests; boosters compute the same themselves"
        if question.scale is not model.scales[0]:
            return f"the leaves of these trees add up to the {model.scales[0].value}, not to the {question.scale.value}"
        return ""

    def attribute(self, question: Question) -> Attributions:
        """Return shap's values, folded to the players."""
        import shap

        bound = question.bound
        model = bound.model
        assert model.matrix is not None  # noqa: S101 - every tree model has one
        frame = bound.encode(question.rows)
        explainer = shap.TreeExplainer(model.native, feature_perturbation="tree_path_dependent")
        values = np.asarray(explainer.shap_values(model.matrix(frame), check_additivity=False), dtype=np.float64)
        values = values[:, :, None] if values.ndim == 2 else values
        base = np.atleast_1d(np.asarray(explainer.expected_value, dtype=np.float64))
        values, base = _of_outputs(values, base, len(model.outputs))
        return Attributions(
            values=bound.folded(values),
            base=base,
            predictions=model.predict(frame, question.scale),
            evaluations=len(frame),
        )


def _of_outputs(values: Numbers, base: Numbers, outputs: int) -> tuple[Numbers, Any]:
    """Return the outputs that the model tells: of two classes the second alone."""
    if values.shape[2] == 2 and outputs == 1:
        return values[:, :, 1:], base[-1:]
    return values, base
