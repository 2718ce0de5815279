"""LIME for tables: a ridge regression around the row, as the package `lime` fits it without discretising."""

from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from explainers.contract import Attributions, Method, Options, Question


class LimeOptions(Options):
    """How the neighbourhood is drawn."""

    samples: Annotated[int, Field(ge=100, le=1_000_000)] = 5000
    kernel_width: Annotated[float, Field(gt=0)] | None = None
    """0.75 times the square root of the number of columns where not given."""


class Lime(Method):
    """Coefficients of a local linear model; they do not add up to the prediction and are no Shapley values."""

    name = "lime"
    title = "LIME"
    source = (
        "Ribeiro, Singh and Guestrin (2016), Why should I trust you?; lime.lime_tabular, discretize_continuous=False"
    )
    libraries = ("sklearn.linear_model", "sklearn.metrics")
    additive = False
    options = LimeOptions

    def refusal(self, question: Question) -> str:
        """Return why not: the background says how columns spread."""
        if question.bound.parts != tuple(range(len(question.bound.players))):
            return "LIME explains single columns, not groups of them"
        return "" if len(question.background) > 1 else "a background is needed: activate a baseline with rows"

    def attribute(self, question: Question) -> Attributions:
        """Return for each row the coefficients of the standardised columns, and the intercept as the base."""
        from sklearn.linear_model import Ridge
        from sklearn.metrics import pairwise_distances

        options = LimeOptions.model_validate(dict(question.options))
        bound = question.bound
        names = bound.inputs
        numeric = [pd.api.types.is_numeric_dtype(question.background[name]) for name in names]
        scale, mean, shares = _spread(question.background, names, numeric)
        width = options.kernel_width or 0.75 * np.sqrt(len(names))
        predictions = bound.predict(question.rows, question.scale)
        values = np.empty((len(question.rows), len(names), predictions.shape[1]))
        intercepts = np.empty(predictions.shape)
        for place in range(len(question.rows)):
            chance = np.random.RandomState(question.seed)  # lime's own generator, for its own digits
            drawn = chance.normal(0, 1, options.samples * len(names)).reshape(options.samples, len(names))
            columns: dict[str, Any] = {}
            design = np.empty((options.samples, len(names)))
            for column, name in enumerate(names):
                own = question.rows[name].iloc[place]
                if numeric[column]:
                    design[:, column] = drawn[:, column] * scale[column] + mean[column]
                    design[0, column] = own
                    columns[name] = design[:, column]
                else:
                    categories, frequency = shares[name]
                    picked = chance.choice(len(categories), size=options.samples, replace=True, p=frequency)
                    given = np.asarray(categories, dtype=object)[picked]
                    given[0] = own
                    columns[name] = given
                    design[:, column] = given == own
            told = bound.predict(pd.DataFrame(columns), question.scale)
            scaled = (design - mean) / scale
            far = pairwise_distances(scaled, scaled[0].reshape(1, -1), metric="euclidean").ravel()
            weights = np.sqrt(np.exp(-(far**2) / width**2))
            for output in range(told.shape[1]):
                ridge = Ridge(alpha=1, fit_intercept=True, random_state=chance)
                ridge.fit(scaled, told[:, output], sample_weight=weights)
                values[place, :, output] = ridge.coef_
                intercepts[place, output] = ridge.intercept_
        return Attributions(
            values=values,
            base=intercepts.mean(axis=0),
            predictions=predictions,
            exact=False,
            evaluations=options.samples * len(question.rows),
            note="coefficients of standardised columns near the row; they do not add up to the prediction",
            background=len(question.background),
        )


def _spread(
    background: pd.DataFrame, names: tuple[str, ...], numeric: list[bool]
) -> tuple[np.ndarray, np.ndarray, dict[str, tuple[list[Any], np.ndarray]]]:
    """Return standard deviations and means (1 and 0 of categories), and the categories with their shares."""
    scale, mean = np.ones(len(names)), np.zeros(len(names))
    shares = {}
    for place, name in enumerate(names):
        if numeric[place]:
            column = background[name].to_numpy(np.float64)
            mean[place], deviation = column.mean(), column.std()
            scale[place] = deviation or 1.0
        else:
            counts = background[name].value_counts(sort=False)
            shares[name] = (list(counts.index), counts.to_numpy(np.float64) / counts.sum())
    return scale, mean, shares
