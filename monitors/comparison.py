"""Champion and challenger on the same labelled rows: every figure of both, and how far their difference is chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_array

from monitors.contract import Column, Counts, Direction, Figure, Metric, Role, Task, Type
from monitors.kernel import profile_batches
from monitors.layout import GROUND_TRUTH, Layout, OutcomeLayout, plan_layout
from monitors.outcomes import outcome_cells
from monitors.performance import PerformanceParameters
from monitors.resampling import DRAWS, ENOUGH_BUCKETS, LEVEL, MOST_UNDEFINED, figures
from monitors.tables import Table, mean_scores, table_of_cells, table_of_rows, task_of

BINS = 128
"""Cells of a score in the tables that are drawn; the figures themselves are exact."""
HELD = 4_000_000
"""Cells of drawn tables that are held at once."""
HOUR_MICROSECONDS = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One figure of both on the same rows; ``interval`` is that of challenger minus champion."""

    figure: Figure
    direction: Direction
    unit: str
    champion: float
    challenger: float
    interval: tuple[float, float] | None
    decides: bool
    level: float
    better: bool
    """Whether the whole interval says that the challenger is better."""
    worse: bool


def contested(
    champion: pa.Table,
    challenger: pa.Table,
    task: Task,
    parameters: PerformanceParameters,
    generator: np.random.Generator,
) -> list[Contest]:
    """Return every figure that both have, those that decide first.

    The tables hold the same rows in the same order, in the lake's columns: ``timestamp``, ``prediction``,
    ``ground_truth``, ``score`` or ``scores.<class>``. Whatever is drawn is drawn for both at once, so that what is hard
    for both does not widen the interval (Efron and Tibshirani 1993, chapter 13): whole hours where there are 20, since
    rows of one hour are not independent, else rows. Intervals of the figures that decide hold together: with k of them
    each has the level 1 - 0.05 / k. ValueError where a binary task has not two classes.
    """
    sides = (champion, challenger)
    task = replace(task, classes=task.classes or _classes(sides))
    if task.name == "binary" and len(task.classes) != 2:
        raise ValueError(f"labels and predictions name {len(task.classes)} classes, a binary task has two")
    exact = tuple(table_of_rows(side, task) for side in sides)
    metrics = [metric for metric in parameters.chosen(exact[0]) if metric.applies(exact[1])]
    values = tuple(figures(metrics, table) for table in exact)
    kind = task_of(exact[0])
    of_figure = {figure: metric for metric in metrics for figure in metric.values(exact[0])}
    known = [
        figure for figure in of_figure if figure in values[1] and np.isfinite([side[figure] for side in values]).all()
    ]
    deciding = [figure for figure in known if parameters.decides(of_figure[figure], figure, kind)]
    draws = _drawn(sides, task, metrics, generator)
    found = []
    for figure in sorted(known, key=lambda figure: figure not in deciding):
        decides = figure in deciding
        level = 1 - (1 - LEVEL) / len(deciding) if decides else LEVEL
        metric = of_figure[figure]
        now = (float(values[0][figure]), float(values[1][figure]))
        centres, drawn = (tuple(side[figure] for side in part) for part in draws)
        gap = _interval(now[1] - now[0], centres[1] - centres[0], drawn[1] - drawn[0], level)
        loss = [_loss(metric.direction, part) for part in (np.array(now), np.array(centres))]
        lost = _loss(metric.direction, drawn[1]) - _loss(metric.direction, drawn[0])
        worse = _interval(loss[0][1] - loss[0][0], loss[1][1] - loss[1][0], lost, level)
        found.append(
            Contest(
                figure=figure,
                direction=metric.direction,
                unit=metric.unit,
                champion=now[0],
                challenger=now[1],
                interval=gap,
                decides=decides,
                level=level,
                better=worse is not None and worse[1] < 0,
                worse=worse is not None and worse[0] > 0,
            )
        )
    return found


def is_better(contests: Sequence[Contest]) -> bool:
    """Return whether some figure that decides says that the challenger is better, and none that it is worse."""
    deciding = [contest for contest in contests if contest.decides]
    return any(contest.better for contest in deciding) and not any(contest.worse for contest in deciding)


def _loss(direction: Direction, value: Counts) -> Counts:
    """Return values turned so that more is worse."""
    if direction is Direction.LOWER_IS_WORSE:
        return -value
    if direction is Direction.HIGHER_IS_WORSE:
        return value
    return np.asarray(np.abs(value - (1.0 if direction is Direction.DISTANCE_FROM_ONE else 0.0)))


def _interval(value: float, centre: Counts | float, drawn: Counts, level: float) -> tuple[float, float] | None:
    """Return the percentile interval around a difference; None where too many draws have none."""
    defined = drawn[np.isfinite(drawn)]
    if not np.isfinite(centre) or defined.size < (1 - MOST_UNDEFINED) * drawn.size:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) - float(centre) + value
    return float(low), float(high)


# --- what is drawn ----------------------------------------------------------------------------------------------------

Values = Mapping[Figure, Counts]


def _drawn(
    sides: tuple[pa.Table, pa.Table], task: Task, metrics: Sequence[Metric], generator: np.random.Generator
) -> tuple[tuple[Values, Values], tuple[Values, Values]]:
    """Return the figures of both tables as they are drawn from, and of their draws, the leading axis the draws."""
    unit, units = _units(sides[0])
    columns = [
        Column(name=name, role=Role.SCORE, type=Type.NUMERIC)
        for name in sides[0].column_names
        if (name == "score" or name.startswith("scores.")) and name in sides[1].column_names
    ]
    batches = [batch for side in sides for batch in side.combine_chunks().to_batches()]
    outcomes = OutcomeLayout(task.name, task.classes, task.positive_class)
    layout = plan_layout(batches, columns, bins=BINS, outcomes=outcomes)
    scores = mean_scores(profile_batches(batches, layout))
    cells = tuple(_cells(side, layout, unit, units) for side in sides)

    def measured(weights: Counts) -> Iterator[Values]:
        for side in cells:
            yield figures(metrics, _table(layout, np.asarray((side.T @ weights.T).T), scores))

    at_once = max(1, HELD // layout.outcome_cells)
    parts = []
    for done in range(0, DRAWS, at_once):
        count = min(at_once, DRAWS - done)
        weights = generator.multinomial(units, np.full(units, 1 / units), count).astype(np.float64)
        parts.append(tuple(measured(weights)))
    first, second = (
        {figure: np.concatenate([part[side][figure] for part in parts]) for figure in parts[0][side]} for side in (0, 1)
    )
    whole = tuple({figure: value[0] for figure, value in side.items()} for side in measured(np.ones((1, units))))
    return (whole[0], whole[1]), (first, second)


def _units(rows: pa.Table) -> tuple[NDArray[np.int64], int]:
    """Return to which unit each row belongs, and how many there are: the hours where there are 20, else the rows."""
    micros = pc.cast(rows["timestamp"].combine_chunks(), pa.int64()).to_numpy(zero_copy_only=False)
    hours, place = np.unique(micros // HOUR_MICROSECONDS, return_inverse=True)
    if hours.size >= ENOUGH_BUCKETS:
        return place.astype(np.int64), int(hours.size)
    return np.arange(rows.num_rows), rows.num_rows


def _cells(rows: pa.Table, layout: Layout, unit: NDArray[np.int64], units: int) -> csr_array:
    """Return the outcome cells of each unit, shape (units, cells)."""
    (batch,) = rows.combine_chunks().to_batches()
    of, places, weights = [], [], []
    for place, weight in outcome_cells(batch, layout):
        kept = place >= 0
        of.append(unit[kept])
        places.append(place[kept])
        weights.append(weight[kept] if weight.size else np.ones(int(kept.sum())))
    shape = (units, layout.outcome_cells)
    return csr_array((np.concatenate(weights), (np.concatenate(of), np.concatenate(places))), shape=shape)


def _table(layout: Layout, cells: Counts, scores: Mapping[str, Counts]) -> Table:
    found = table_of_cells(layout, cells, scores)
    if found is None:
        raise ValueError("the layout counts no outcomes")
    return found


def _classes(sides: Sequence[pa.Table]) -> tuple[str, ...]:
    names = {
        str(name)
        for side in sides
        for column in ("prediction", GROUND_TRUTH)
        for name in pc.unique(side[column]).to_pylist()
        if name is not None
    }
    return tuple(sorted(names))
