"""Slices that people did not think of: found by a shallow tree on one half of the rows, tested on the other half."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import stdtr

from monitors.budget import holm
from monitors.contract import Column, Role, Type
from monitors.multivariate import Floats, counts_of, numbers, texts
from monitors.slices import Slice

DEPTH = 3
LEAST_ROWS = 30
LEAST_SHARE = 0.02
"""A leaf holds so many of the rows at least: smaller ones are noise."""
CATEGORIES = 20
NUMBERS = (Type.NUMERIC, Type.BOOLEAN)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A slice and how much worse it is than the other rows, on rows that had no part in finding it."""

    where: Mapping[str, Any]
    value: float
    rest: float
    rows: int
    tested_rows: int
    p_value: float
    alpha: float
    worse: bool
    """Whether that is not chance: by Holm's method over all slices that the tree gave."""


@dataclass(frozen=True)
class _Feature:
    """One column of the tree's input: a number, or whether a category is there."""

    column: str
    values: Floats
    category: str | None = None


def worst_slices(
    rows: pa.Table,
    loss: Floats,
    columns: Sequence[Column],
    generator: np.random.Generator,
    *,
    at_most: int = 5,
    alpha: float = 0.05,
) -> list[Found]:
    """Return the slices with the greatest mean loss, worst first by the half that tested them.

    ``loss`` of shape (rows,) is what a row costs: 1 where a class was wrong, the absolute error of a number; NaN where
    it is not known. A tree of three levels is grown on a random half; its leaves whose loss is above the mean there are
    tested on the other half against the rest of it (Welch's t, one-sided), Holm's method over the leaves.
    """
    from sklearn.tree import DecisionTreeRegressor

    known = np.isfinite(loss)
    rows, loss = rows.filter(pa.array(known)), loss[known]
    features = list(_features(rows, columns))
    least = max(LEAST_ROWS, int(LEAST_SHARE * loss.size))
    if loss.size < 4 * least or not features:
        return []
    inputs = np.column_stack([one.values for one in features])
    half = np.zeros(loss.size, np.bool_)
    half[generator.permutation(loss.size)[: loss.size // 2]] = True
    tree = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=least, random_state=0).fit(inputs[half], loss[half])
    candidates = []
    for where in _leaves(tree.tree_, features):
        inside = Slice("found", where).mask(rows)
        if where and (half & inside).any() and loss[half & inside].mean() > loss[half].mean():
            candidates.append((where, inside))
    tests = [(where, inside, _worse(loss[~half & inside], loss[~half & ~inside])) for where, inside in candidates]
    levels = holm([p_value for _, _, p_value in tests], alpha) if tests else []
    found = [
        Found(
            where=where,
            value=float(loss[~half & inside].mean()) if (~half & inside).any() else float(loss[inside].mean()),
            rest=float(loss[~half & ~inside].mean()),
            rows=int(inside.sum()),
            tested_rows=int((~half & inside).sum()),
            p_value=p_value,
            alpha=level,
            worse=rejected,
        )
        for (where, inside, p_value), (level, rejected) in zip(tests, levels, strict=True)
    ]
    return sorted(found, key=lambda one: (not one.worse, -(one.value - one.rest)))[:at_most]


def _worse(inside: Floats, outside: Floats) -> float:
    """Return Welch's one-sided p-value that rows inside cost more; 1 where there are too few to say."""
    if min(inside.size, outside.size) < LEAST_ROWS // 2:
        return 1.0
    one, other = inside.var(ddof=1) / inside.size, outside.var(ddof=1) / outside.size
    error = one + other
    if error <= 0:
        return 0.0 if inside.mean() > outside.mean() else 1.0
    freedom = error**2 / (one**2 / (inside.size - 1) + other**2 / (outside.size - 1))
    return float(stdtr(freedom, -(inside.mean() - outside.mean()) / np.sqrt(error)))


def _features(rows: pa.Table, columns: Sequence[Column]) -> Iterator[_Feature]:
    for column in columns:
        if column.role is not Role.FEATURE or column.name not in rows.column_names:
            continue
        if column.type in NUMBERS:
            values = numbers(rows, column.name)
            if np.isfinite(values).any():
                yield _Feature(column.name, values)
        elif column.type is Type.CATEGORICAL:
            held = texts(rows, column.name)
            for category in list(counts_of(held))[:CATEGORIES]:
                yield _Feature(column.name, np.array([value == category for value in held], np.float64), category)


def _leaves(tree: Any, features: Sequence[_Feature]) -> Iterator[dict[str, Any]]:
    """Yield each leaf with its conditions in the grammar of slices; none where it asks for what that cannot say."""

    def down(node: int, path: list[tuple[_Feature, bool, float, bool]]) -> Iterator[dict[str, Any]]:
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        if left == right:
            where = _where(path)
            if where is not None:
                yield where
            return
        feature, threshold = features[int(tree.feature[node])], float(tree.threshold[node])
        missing_left = bool(tree.missing_go_to_left[node])
        yield from down(left, [*path, (feature, True, threshold, missing_left)])
        yield from down(right, [*path, (feature, False, threshold, not missing_left)])

    return down(0, [])


def _where(path: Sequence[tuple[_Feature, bool, float, bool]]) -> dict[str, Any] | None:
    where: dict[str, Any] = {}
    for feature, below, threshold, with_missing in path:
        held = where.setdefault(feature.column, {})
        if feature.category is not None:
            if below:
                held.setdefault("not_in", []).append(feature.category)
            else:
                held["in"] = [feature.category]
            continue
        if with_missing and np.isnan(feature.values).any():
            return None
        name = "le" if below else "gt"
        known = held.get(name)
        held[name] = threshold if known is None else (min if below else max)(known, threshold)
    return where
