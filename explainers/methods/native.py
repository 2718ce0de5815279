"""Native contributions: the path-dependent Shapley values that XGBoost, LightGBM and CatBoost compute themselves."""

from typing import Any

import numpy as np

from explainers.contract import BOOSTERS, TRAINING, Attributions, Family, Method, Numbers, Question


class Native(Method):
    """The booster's own exact algorithm, compiled into it."""

    name = "native"
    title = "the booster's own contributions"
    source = "Lundberg et al. (2020), From local explanations to global understanding with explainable AI for trees"

    def refusal(self, question: Question) -> str:
        """Return why not: only boosters have contributions of their own, of their margin."""
        model = question.bound.model
        if model.family not in BOOSTERS:
            return "only XGBoost, LightGBM and CatBoost compute contributions themselves"
        if question.scale is not model.scales[0]:
            inside = model.scales[0].value
            return f"a booster's own contributions add up to its {inside}, not to the {question.scale.value}"
        return ""

    def attribute(self, question: Question) -> Attributions:
        """Return what the booster computes, folded to the players."""
        bound = question.bound
        model = bound.model
        assert model.matrix is not None  # noqa: S101 - every booster has one
        frame = bound.encode(question.rows)
        values, base = contributions(model.family, model.native, model.matrix(frame), len(model.outputs), len(frame))
        return Attributions(
            values=bound.folded(values),
            base=base,
            predictions=model.predict(frame, question.scale),
            evaluations=len(frame),
            against=TRAINING,
        )


def contributions(family: Family, booster: Any, matrix: Any, outputs: int, rows: int) -> tuple[Numbers, Numbers]:
    """Return the contributions of a booster's columns, shape (rows, columns, outputs), and the base of each output."""
    if family is Family.XGBOOST:
        import xgboost

        given = matrix if isinstance(matrix, xgboost.DMatrix) else xgboost.DMatrix(matrix, nthread=1)
        if not isinstance(matrix, xgboost.DMatrix) and booster.feature_names:
            given.feature_names = booster.feature_names
        raw = np.asarray(booster.predict(given, pred_contribs=True), dtype=np.float64)
        raw = raw.reshape(rows, outputs, -1)
    elif family is Family.LIGHTGBM:
        raw = np.asarray(booster.predict(matrix, pred_contrib=True, num_threads=1, validate_features=False), np.float64)
        raw = raw.reshape(rows, outputs, -1)
    else:
        import catboost

        given = matrix if isinstance(matrix, catboost.Pool) else catboost.Pool(matrix, thread_count=1)
        raw = np.asarray(booster.get_feature_importance(given, type="ShapValues", thread_count=1), np.float64)
        raw = raw.reshape(rows, outputs, -1)
    raw = np.moveaxis(raw, 1, 2)
    return raw[:, :-1], raw[0, -1]
