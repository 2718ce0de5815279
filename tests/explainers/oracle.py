"""Shapley values from their definition, written without the package that is tested, and shap's own."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from explainers.binding import bind
from explainers.contract import Bound, Family, Manifest, Model, Scale


def shapley(predict: Callable[[np.ndarray], np.ndarray], row: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return the interventional Shapley values of one row by the sum over all subsets."""
    count = row.size
    out = np.zeros(count)
    worth = {}
    for size in range(count + 1):
        for subset in itertools.combinations(range(count), size):
            mixed = background.copy()
            mixed[:, list(subset)] = row[list(subset)]
            worth[subset] = predict(mixed).mean()
    for player in range(count):
        for subset, value in worth.items():
            if player not in subset:
                weight = math.factorial(len(subset)) * math.factorial(count - len(subset) - 1) / math.factorial(count)
                out[player] += weight * (worth[tuple(sorted((*subset, player)))] - value)
    return out


def black_box(function: Callable[[np.ndarray], np.ndarray], columns: tuple[str, ...], **changes: Any) -> Bound:
    """Return a predict function on arrays as a model of which nothing is known."""

    def predict(frame: pd.DataFrame, scale: Scale) -> np.ndarray:
        return np.asarray(function(frame.to_numpy(np.float64)), dtype=np.float64).reshape(len(frame), -1)

    given: dict[str, Any] = {"outputs": ("value",), "scales": (Scale.VALUE,), **changes}
    return bind(Model(family=Family.BLACK_BOX, columns=columns, predict=predict, **given), Manifest())


def smooth(x: np.ndarray) -> np.ndarray:
    """Return products of two and three columns, so that orders of the players matter."""
    return np.asarray(x[:, 0] * x[:, 1] + np.sin(x[:, 2]) * x[:, 3] * x[:, 0] + 2 * x[:, 4] + x[:, 5] ** 2)


def skops_bytes(estimator: Any) -> bytes:
    """Return an estimator as skops saves it; skops takes seconds to load, and most that collect the tests never do."""
    import skops.io

    return bytes(skops.io.dumps(estimator))


def tree_values(model: Any, rows: Any) -> np.ndarray:
    """Return shap's values of trees; shap takes a second to load, and most that collect the tests never do."""
    import shap

    return np.asarray(shap.TreeExplainer(model).shap_values(rows))


def linear_values(model: Any, background: Any, rows: Any) -> np.ndarray:
    """Return shap's values of a linear model against all rows of a background, features taken for independent."""
    import shap

    masker = shap.maskers.Independent(background, len(background))
    return np.asarray(shap.LinearExplainer(model, masker).shap_values(rows))
