"""Partial dependence and individual conditional expectation: predictions as one feature is moved over a grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from explainers.contract import Bound, Numbers, Refusal, Scale


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """What a feature's values do: ``mean`` of shape (grid, outputs), ``each`` (rows, grid, outputs), and the grid."""

    feature: str
    grid: tuple[Any, ...]
    mean: Numbers
    each: Numbers
    shares: tuple[float, ...]
    """Of the rows, how many lie nearest to each value of the grid."""


def partial_dependence(
    bound: Bound, rows: pd.DataFrame, feature: str, scale: Scale, *, points: int = 20, grid: Sequence[Any] | None = None
) -> Dependence:
    """Return what is predicted when the feature has each value of the grid and all else stays as it is in the rows.

    Without ``grid``: every distinct value up to ``points``, else ``points`` evenly spaced between the 5 % and 95 %
    quantiles, as scikit-learn has it.
    """
    if feature not in bound.inputs:
        raise Refusal(f"the model does not take {feature!r}; it takes {', '.join(map(repr, bound.inputs[:10]))}")
    column = rows[feature]
    known = column.dropna()
    numeric = pd.api.types.is_numeric_dtype(column)
    if grid is None:
        grid = _grid(known, points)
    if not len(grid):
        raise Refusal(f"{feature!r} is missing in every row, so there is no grid of its values")
    curves = []
    for value in grid:
        moved = rows.copy()
        moved[feature] = np.full(len(rows), value, dtype=np.float64 if numeric else object)
        curves.append(bound.predict(moved, scale))
    each = np.stack(curves, axis=1)
    return Dependence(
        feature=feature, grid=tuple(grid), mean=each.mean(axis=0), each=each, shares=_shares(known, list(grid))
    )


def _grid(known: pd.Series, points: int) -> list[Any]:
    distinct = known.unique()
    if not pd.api.types.is_numeric_dtype(known):
        return [str(value) for value in known.value_counts().index[:points]]
    if len(distinct) <= points:
        return [float(value) for value in np.sort(distinct)]
    from scipy.stats.mstats import mquantiles  # a second of imports that explanations do without

    low, high = mquantiles(known.to_numpy(np.float64), [0.05, 0.95])
    if low == high:
        low, high = known.min(), known.max()
    return [float(value) for value in np.linspace(low, high, points)]


def _shares(known: pd.Series, grid: list[Any]) -> tuple[float, ...]:
    if not len(known):
        return tuple(0.0 for _ in grid)
    if pd.api.types.is_numeric_dtype(known):
        places = np.asarray(grid, dtype=np.float64)
        nearest = np.abs(known.to_numpy(np.float64)[:, None] - places).argmin(axis=1)
        counts = np.bincount(nearest, minlength=len(grid))
    else:
        counts = np.array([(known == value).sum() for value in grid])
    return tuple(float(share) for share in counts / len(known))
