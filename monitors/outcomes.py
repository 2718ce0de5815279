"""Predictions against ground truth: which cells of the outcome tables each row belongs to."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from monitors.cells import locate, plan_search
from monitors.columns import codes_of, numbers_of
from monitors.layout import GROUND_TRUTH, MOMENTS, MOST_LABELS_COUNTED, Layout, NumericLayout, OutcomeLayout

Places = NDArray[np.int64]
Weights = NDArray[np.float64]

_NO_WEIGHTS: Weights = np.empty(0)


def outcome_cells(batch: pa.RecordBatch, layout: Layout) -> Iterator[tuple[Places, Weights]]:
    """Yield, table by table, the cell of each row among all outcome cells, and what it adds there.

    A cell of -1 is not counted; empty weights add 1. Nothing where the layout has no outcomes or the batch no column
    ``ground_truth``.
    """
    outcomes = layout.outcomes
    if outcomes is None or not batch.num_rows or GROUND_TRUTH not in batch.schema.names:
        return
    if outcomes.task == "binary":
        yield from _binary(batch, layout, outcomes)
    elif outcomes.task == "multiclass":
        yield from _multiclass(batch, layout, outcomes)
    elif outcomes.task == "regression":
        yield from _regression(batch, layout, outcomes)
    else:
        yield from _multilabel(batch, layout, outcomes)
    if outcomes.counts_favourable:
        yield from _favourable(batch, layout, outcomes)


def _favourable(batch: pa.RecordBatch, layout: Layout, outcomes: OutcomeLayout) -> Iterator[tuple[Places, Weights]]:
    label, prediction = fortunes(batch, GROUND_TRUTH, outcomes), fortunes(batch, "prediction", outcomes)
    stratum, strata = np.zeros(batch.num_rows, np.int64), 1
    if outcomes.stratum is not None:
        stratum, strata = _classes(batch, f"group.{outcomes.stratum}", outcomes.strata), len(outcomes.strata) + 2
    row = stratum * 9 + label * 3 + prediction
    for attribute in outcomes.groups:
        table = layout.tables[f"{attribute}/favourable"]
        yield table.offset + _groups(batch, outcomes, attribute) * (9 * strata) + row, _NO_WEIGHTS


def fortunes(batch: pa.RecordBatch, name: str, outcomes: OutcomeLayout) -> Places:
    """Return whether each row's label or prediction is unfavourable (0), favourable (1) or unknown (2)."""
    good = outcomes.favourable
    if isinstance(good, str):
        if outcomes.task == "multilabel":
            members, given = _memberships(batch, name, (good,))
            return np.where(given, members[:, 0], 2)
        return np.array([1, 0, 2])[_classes(batch, name, (good,))]
    side, bound = good or ("above", 0.0)
    values = _numbers(batch, name)
    return np.where(np.isfinite(values), values > bound if side == "above" else values < bound, 2)


def _binary(batch: pa.RecordBatch, layout: Layout, outcomes: OutcomeLayout) -> Iterator[tuple[Places, Weights]]:
    negative = next(name for name in outcomes.classes if name != outcomes.positive)
    names = (negative, outcomes.positive)
    label, prediction = _classes(batch, GROUND_TRUTH, names), _classes(batch, "prediction", names)
    score, width = _score(batch, layout, "score")
    row = (np.minimum(label, 2) * 3 + np.minimum(prediction, 2)) * width + score
    for attribute in ("all", *outcomes.groups):
        table = layout.tables[attribute]
        yield table.offset + _groups(batch, outcomes, attribute) * (9 * width) + row, _NO_WEIGHTS


def _multiclass(batch: pa.RecordBatch, layout: Layout, outcomes: OutcomeLayout) -> Iterator[tuple[Places, Weights]]:
    classes = len(outcomes.classes)
    side = classes + 2
    label = _classes(batch, GROUND_TRUTH, outcomes.classes)
    prediction = _classes(batch, "prediction", outcomes.classes)
    groups = {attribute: _groups(batch, outcomes, attribute) for attribute in ("all", *outcomes.groups)}
    for attribute, group in groups.items():
        yield layout.tables[attribute].offset + (group * side + label) * side + prediction, _NO_WEIGHTS
    for place, name in enumerate(outcomes.classes):
        attributes = [attribute for attribute in groups if f"{attribute}/{name}" in layout.tables]
        if not attributes:
            continue
        score, width = _score(batch, layout, f"scores.{name}")
        is_label = np.where(label == classes + 1, 2, np.where(label == place, 0, 1))
        row = (is_label * 2 + (prediction != place)) * width + score
        for attribute in attributes:
            yield layout.tables[f"{attribute}/{name}"].offset + groups[attribute] * (6 * width) + row, _NO_WEIGHTS


def _regression(batch: pa.RecordBatch, layout: Layout, outcomes: OutcomeLayout) -> Iterator[tuple[Places, Weights]]:
    truth, prediction = _numbers(batch, GROUND_TRUTH), _numbers(batch, "prediction")
    with np.errstate(over="ignore", invalid="ignore"):
        error = prediction - truth
        known = np.isfinite(error)
    y, p, e = truth[known], prediction[known], error[known]
    logarithm = (y > -1.0) & (p > -1.0)
    away = y != 0.0
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        moments = {
            "n": _NO_WEIGHTS,
            "e": e,
            "abs_e": np.abs(e),
            "e2": e * e,
            "e4": (e * e) ** 2,
            "y": y,
            "y2": y * y,
            "y4": (y * y) ** 2,
            "e_y": e * y,
            "e2_y": e * e * y,
            "relative": np.where(away, np.abs(e) / np.abs(np.where(away, y, 1.0)), 0.0),
            "relative_n": away.astype(np.float64),
            "log2": np.where(logarithm, np.log1p(p) - np.log1p(y), 0.0) ** 2,
            "log2_n": logarithm.astype(np.float64),
        }
    search = plan_search(np.array(outcomes.residual_edges), False)
    residual = np.empty(e.size, np.int32)
    locate(np.ascontiguousarray(e), *search.plan, -1, residual)
    for attribute in ("all", *outcomes.groups):
        group = _groups(batch, outcomes, attribute)
        table = layout.tables[attribute]
        yield np.where(known, -1, table.offset + group * len(MOMENTS) + MOMENTS.index("unknown")), _NO_WEIGHTS
        rows = np.full(known.size, -1, np.int64)
        base = table.offset + group[known] * len(MOMENTS)
        for place, name in enumerate(MOMENTS):
            if name in moments:
                rows[known] = base + place
                yield rows.copy(), _spread(moments[name], known)
        for name, weights in ((f"{attribute}/residual", _NO_WEIGHTS), (f"{attribute}/residual_sums", e)):
            table = layout.tables[name]
            rows[known] = table.offset + group[known] * table.shape[-1] + residual
            yield rows.copy(), _spread(weights, known)


def _multilabel(batch: pa.RecordBatch, layout: Layout, outcomes: OutcomeLayout) -> Iterator[tuple[Places, Weights]]:
    true, labelled = _memberships(batch, GROUND_TRUTH, outcomes.classes)
    predicted, given = _memberships(batch, "prediction", outcomes.classes)
    both = labelled & given
    sizes = [np.minimum(part.sum(axis=1), MOST_LABELS_COUNTED) for part in (true, predicted, true & predicted)]
    side = MOST_LABELS_COUNTED + 1
    row = (sizes[0] * side + sizes[1]) * side + sizes[2]
    yield np.where(both, layout.tables["all/sizes"].offset + row, -1), _NO_WEIGHTS
    for place, name in enumerate(outcomes.classes):
        score, width = _score(batch, layout, f"scores.{name}")
        label = np.where(labelled, true[:, place], 2)
        prediction = np.where(given, predicted[:, place], 2)
        yield layout.tables[f"all/{name}"].offset + (label * 3 + prediction) * width + score, _NO_WEIGHTS


def _spread(weights: Weights, known: NDArray[np.bool_]) -> Weights:
    if not weights.size:
        return _NO_WEIGHTS
    spread = np.zeros(known.size)
    spread[known] = weights
    return spread


def _numbers(batch: pa.RecordBatch, name: str) -> NDArray[np.float64]:
    values = numbers_of(batch.column(name)) if name in batch.schema.names else None
    return np.full(batch.num_rows, np.nan) if values is None else values


def _classes(batch: pa.RecordBatch, name: str, classes: tuple[str, ...]) -> Places:
    """Return the place of each row's class, ``len(classes)`` for another one and one more for none."""
    coded = codes_of(batch.column(name), pa.array(classes, pa.string())) if name in batch.schema.names else None
    if coded is None:
        return np.full(batch.num_rows, len(classes) + 1, np.int64)
    places = np.append(np.where(coded.cells < 0, len(classes) + 1, coded.cells), len(classes) + 1)
    return np.asarray(places[coded.codes], np.int64)


def _groups(batch: pa.RecordBatch, outcomes: OutcomeLayout, attribute: str) -> Places:
    """Return the place of each row's group: those named, then "other", then "unknown"."""
    if attribute == "all":
        return np.zeros(batch.num_rows, np.int64)
    names = outcomes.groups[attribute]
    column = f"group.{attribute}"
    if column not in batch.schema.names and "*" in attribute:
        return _crossing(batch, attribute, names)
    return _classes(batch, column, names)


def _crossing(batch: pa.RecordBatch, attribute: str, names: tuple[str, ...]) -> Places:
    """Return the groups of a crossing, ``F*young``, of the columns of its parts."""
    parts = [f"group.{part}" for part in attribute.split("*")]
    if any(part not in batch.schema.names for part in parts):
        return np.full(batch.num_rows, len(names) + 1, np.int64)
    columns = [codes_of(batch.column(part), pa.array([], pa.string())) for part in parts]
    whole, known, spelled = np.zeros(batch.num_rows, np.int64), np.ones(batch.num_rows, np.bool_), [""]
    for place, column in enumerate(columns):
        if column is None:
            return np.full(batch.num_rows, len(names) + 1, np.int64)
        values = column.dictionary.to_pylist()
        known &= (column.codes >= 0) & np.append(column.cells >= 0, False)[column.codes]
        whole = whole * max(len(values), 1) + np.maximum(column.codes, 0)
        spelled = [f"{left}*{value}" if place else str(value) for left in spelled for value in values or [""]]
    order = {name: at for at, name in enumerate(names)}
    used, back = np.unique(whole, return_inverse=True)
    places = np.array([order.get(spelled[at], len(names)) for at in used.tolist()], np.int64)
    return np.where(known, places[back] if used.size else whole, len(names) + 1)


def _score(batch: pa.RecordBatch, layout: Layout, name: str) -> tuple[Places, int]:
    """Return the cell of each row's score, the last one where there is none, and the number of cells."""
    column = layout.columns.get(name)
    if not isinstance(column, NumericLayout):
        return np.zeros(batch.num_rows, np.int64), 1
    search = layout.grid.searches[name]
    cells = np.full(batch.num_rows, search.cells, np.int32)
    values = numbers_of(batch.column(name)) if name in batch.schema.names else None
    if values is not None:
        locate(values, *search.plan, search.cells, cells)
    return cells.astype(np.int64), search.cells + 1


def _memberships(
    batch: pa.RecordBatch, name: str, classes: tuple[str, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which classes each row's JSON array or list names, shape (rows, classes), and which rows have one."""
    members = np.zeros((batch.num_rows, len(classes)), np.bool_)
    given = np.zeros(batch.num_rows, np.bool_)
    if name not in batch.schema.names:
        return members, given
    order = {class_: place for place, class_ in enumerate(classes)}
    for row, value in enumerate(batch.column(name).to_pylist()):
        labels = json.loads(value) if isinstance(value, str) else value
        if not isinstance(labels, list):
            continue
        given[row] = True
        for label in labels:
            if str(label) in order:
                members[row, order[str(label)]] = True
    return members, given
