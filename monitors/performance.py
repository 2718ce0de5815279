"""Performance of a window: each figure with its interval, its chance, the baseline's and the best constant's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite

import numpy as np
from pydantic import Field, model_validator
from scipy.special import chdtrc

from monitors import discovery
from monitors.contract import (
    Comparison,
    Counts,
    Direction,
    Figure,
    Metric,
    Parameters,
    Result,
    Subject,
    Verdict,
)
from monitors.metrics.cost import Cost
from monitors.null import CALIBRATING, ENOUGH_BLOCKS
from monitors.profile import Profile
from monitors.resampling import Spread, deterioration, figures, outcome_null, spread_of
from monitors.tables import (
    BinaryTable,
    MulticlassTable,
    MultilabelTable,
    RegressionTable,
    Table,
    mean_scores,
    table_of,
    table_of_cells,
    task_of,
)

UNLIKE = 0.001
"""Below this chance labelled rows are said not to look like unlabelled ones."""
FEWEST_ROWS = 30


class PerformanceParameters(Parameters):
    """What is measured against ground truth, and which figures decide."""

    metrics: list[str] | None = Field(
        None,
        description="The figures that are judged, by their names in results (`roc_auc`, `f1_macro`); by default those "
        "whose metric says so in the catalogue. All others are shown.",
    )
    cost: dict[str, dict[str, float]] = Field(
        {}, description="What an answer costs, `{label: {prediction: cost}}`; gains are negative."
    )
    min_effect: dict[str, float] = Field(
        {},
        description="Least deterioration that is reported, by figure; by default half the width of the interval of the "
        "baseline's own figure.",
    )
    min_rows: int = Field(FEWEST_ROWS, ge=1, description="Labelled rows that a window must have to be judged.")

    @model_validator(mode="after")
    def _known(self) -> PerformanceParameters:
        known = figure_names()
        for name in (*(self.metrics or ()), *self.min_effect):
            if name not in known:
                raise ValueError(f"there is no figure {name}; there are {', '.join(sorted(known))}")
        for name, least in self.min_effect.items():
            if not (isfinite(least) and least >= 0):
                raise ValueError(f"min_effect of {name} must be a finite number from 0 on, not {least}")
        for prices in self.cost.values():
            if not all(isfinite(price) for price in prices.values()):
                raise ValueError("costs are finite numbers")
        return self

    @classmethod
    def of(cls, parameters: Parameters) -> PerformanceParameters:
        """Return the parameters of a performance monitor; bare ``Parameters`` mean the defaults."""
        return parameters if isinstance(parameters, cls) else cls.model_validate(parameters.model_dump())

    def chosen(self, table: Table) -> list[Metric]:
        """Return the metrics that a table has."""
        found = []
        for metric in discovery.metrics().values():
            own = replace(metric, matrix=self.cost) if isinstance(metric, Cost) else metric
            if task_of(table) in own.tasks and own.applies(table):
                found.append(own)
        return found

    def decides(self, metric: Metric, figure: Figure, task: str) -> bool:
        """Return whether a figure is judged."""
        if figure.class_ is not None:
            return False
        if self.metrics is not None:
            return figure.metric in self.metrics
        usual = {metric.name} if task in ("binary", "regression") else {metric.name, f"{metric.name}_macro"}
        return task in metric.decides and figure.metric in usual


def figure_names() -> set[str]:
    """Return the names that figures can have."""
    found = set()
    for name, metric in discovery.metrics().items():
        found.add(name)
        found |= {f"{name}_{average}" for average in getattr(metric, "averages", ())}
    return found


@dataclass(frozen=True)
class Labelled:
    """A window's and a baseline's outcomes, as tables of one layout."""

    window: Table
    baseline: Table | None
    blocks: Table | None
    rows: int
    cut: Callable[[], Table | None]
    """Reads the buckets."""

    @staticmethod
    def of(comparison: Comparison) -> Labelled | None:
        """Return them, None where the layout has no outcomes or no labels were read."""
        profile = comparison.window
        window = table_of(profile, like=comparison.baseline)
        if window is None:
            return None

        def cut() -> Table | None:
            cells = comparison.bucket_outcomes()
            if cells is None:
                return None
            return table_of_cells(comparison.baseline.layout, cells, mean_scores(comparison.baseline))

        return Labelled(window, table_of(comparison.baseline), block_table(comparison), profile.rows, cut)

    @cached_property
    def buckets(self) -> Table | None:
        """The outcomes of the window's hours, the leading axis the hours; None where they are not known."""
        return self.cut()

    @property
    def labelled(self) -> int:
        """Rows of the window with a label."""
        return int(self.window.labelled)

    @property
    def coverage(self) -> float:
        """The share of the window's rows that has a label."""
        return self.labelled / self.rows if self.rows else 0.0


def block_table(comparison: Comparison, scale: int = 1) -> Table | None:
    """Return the outcomes of the quiet stream's blocks; None where they hold no labels."""
    blocks = comparison.blocks.get(scale)
    if blocks is None or blocks.outcomes is None:
        return None
    return table_of_cells(comparison.baseline.layout, blocks.outcomes, mean_scores(comparison.baseline))


def label_coverage(profile: Profile) -> tuple[int, int]:
    """Return how many rows of a profile have a label, and how many rows there are."""
    table = table_of(profile)
    return (0 if table is None else int(table.labelled)), profile.rows


def measure_performance(comparison: Comparison, parameters: PerformanceParameters) -> list[Result]:
    """Return every figure of the window, unjudged, those that decide first; or why there is none."""
    labelled = Labelled.of(comparison)
    if labelled is None:
        return [Result(metric="performance", reason="predictions and labels are not counted: the baseline's schema has "
                       "no ground truth and no classes")]  # fmt: skip
    if not labelled.labelled:
        return [Result(metric="performance", reason="no row of the window has a label", label_coverage=0.0)]
    metrics = parameters.chosen(labelled.window)
    generator = comparison.generator("performance", Subject())
    now = figures(metrics, labelled.window)
    spread = spread_of(labelled.window, labelled.buckets, metrics, generator)
    before: Mapping[Figure, Counts] = {}
    around, null = None, None
    if labelled.baseline is not None and float(labelled.baseline.labelled) > 0:
        before = figures(metrics, labelled.baseline)
        around = spread_of(labelled.baseline, labelled.blocks, metrics, generator)
        null = outcome_null(
            labelled.window, labelled.baseline, labelled.blocks, metrics, generator, parameters.min_rows
        )
    alike = labelled_like_unlabelled(comparison, labelled)
    results: list[Result] = []
    for metric in metrics:
        constants = [metric.values(constant) for constant in labelled.window.constants()]
        for figure in metric.values(labelled.window):
            note, p_value, least = "", None, None
            value, old = float(now[figure]), float(before.get(figure, np.nan))
            decides = parameters.decides(metric, figure, task_of(labelled.window))
            subject = Subject(class_=figure.class_)
            common = Result(
                metric=figure.metric,
                subject=subject,
                reason=metric.undefined,
                direction=metric.direction,
                decides=decides,
                verdict=Verdict.NOT_MEASURED if decides else None,
                n_window=labelled.labelled,
                n_baseline=0 if labelled.baseline is None else int(labelled.baseline.labelled),
                label_coverage=labelled.coverage,
                unit=metric.unit,
                by=discovery.by(metric.name),
            )
            if not isfinite(value):
                results.append(common)
                continue
            interval = spread.interval(figure, value, metric)
            if labelled.labelled < parameters.min_rows and decides:
                reason = f"insufficient rows: {labelled.labelled} of {parameters.min_rows} with a label"
                results.append(replace(common, reason=reason))
                continue
            if null is not None and isfinite(old):
                p_value, by_blocks = null.p_value(figure, metric.direction, value, old)
                if not by_blocks and p_value is not None:
                    note = calibrating(null.blocks, comparison, labelled.window)
            if alike is not None and alike.p_value is not None and alike.p_value < UNLIKE:
                note = "; ".join(part for part in (note, "labelled rows do not look like unlabelled ones") if part)
            effect = None
            if isfinite(old):
                effect = float(deterioration(metric.direction, value, old))
                least = least_effect(parameters, metric, figure, around, old)
            if p_value is None and decides and not note:
                note = "the baseline has no labels to compare with" if not isfinite(old) else "no chance can be given"
            results.append(
                replace(
                    common,
                    value=value,
                    reason="",
                    interval=interval,
                    baseline_value=old if isfinite(old) else None,
                    effect=effect,
                    min_effect=least,
                    p_value=p_value,
                    chance=None if null is None else null.chance(figure),
                    constant_value=_best(
                        metric.direction, [float(found[figure]) for found in constants if figure in found]
                    ),
                    note=note,
                )
            )
    results.sort(key=lambda result: not result.decides)
    return results if alike is None else [*results, alike]


def calibrating(blocks: int, comparison: Comparison, table: Table) -> str:
    """Return what is noted while quiet blocks are too few: what draws of a table's cells take for granted.

    Where a row has several classes, each is drawn by itself.
    """
    classes = " and classes" if isinstance(table, MultilabelTable) else ""
    told = f"{CALIBRATING}, {blocks} of {ENOUGH_BLOCKS}: assumes independent rows{classes}"
    return f"{told}; {comparison.blocks_reason}" if comparison.blocks_reason else told


def least_effect(
    parameters: PerformanceParameters, metric: Metric, figure: Figure, around: Spread | None, old: float
) -> float | None:
    """Return the least deterioration that is reported: as set, or half the width of the baseline's interval."""
    given = parameters.min_effect.get(figure.metric)
    if given is not None or around is None:
        return given
    interval = around.interval(figure, old, metric)
    return None if interval is None else (interval[1] - interval[0]) / 2


def _best(direction: Direction, values: Sequence[float]) -> float | None:
    """Return the best of the constants' values; none where there is no better side or no value."""
    known = [value for value in values if isfinite(value)]
    if not known or direction not in (Direction.LOWER_IS_WORSE, Direction.HIGHER_IS_WORSE):
        return None
    return max(known) if direction is Direction.LOWER_IS_WORSE else min(known)


def labelled_like_unlabelled(comparison: Comparison, labelled: Labelled) -> Result | None:
    """Return how far the predictions of labelled rows are from those of rows without a label; None of too few.

    The value is the total variation distance over predictions and score cells, the chance that of a chi-square test;
    of numbers the distance between the distributions of the prediction, in the row sample.
    """
    pair = _predictions(comparison, labelled.window)
    if pair is None:
        return None
    known, unknown = pair
    if min(known.sum(), unknown.sum()) < FEWEST_ROWS:
        return None
    distance = float(np.abs(known / known.sum() - unknown / unknown.sum()).sum() / 2)
    return Result(
        metric="labelled_like_unlabelled",
        value=distance,
        p_value=_chi_square(known, unknown),
        decides=False,
        verdict=None,
        n_window=int(known.sum()),
        n_baseline=int(unknown.sum()),
        label_coverage=labelled.coverage,
        note="labelled rows of the window against those without a label",
    )


def _predictions(comparison: Comparison, window: Table) -> tuple[Counts, Counts] | None:
    """Return the labelled and the unlabelled rows of a window by what was predicted."""
    if isinstance(window, RegressionTable):
        rows = comparison.rows()
        if rows is None or "ground_truth" not in rows.schema.names:
            return None
        values = rows["prediction"].to_numpy(zero_copy_only=False).astype(np.float64)
        there = rows["ground_truth"].is_valid().to_numpy(zero_copy_only=False) & np.isfinite(values)
        if not there.any():
            return None
        edges = np.unique(np.quantile(values[np.isfinite(values)], np.arange(1, 20) / 20))
        cell = np.searchsorted(edges, values)
        return tuple(np.bincount(cell[part & np.isfinite(values)], minlength=20) for part in (there, ~there))  # type: ignore[return-value]
    if isinstance(window, BinaryTable):
        cells = window.coarse(20).cells
        return cells[:2].sum(axis=0).ravel(), cells[2].ravel()
    if isinstance(window, MulticlassTable):
        return window.cells[:-1].sum(axis=0), window.cells[-1]
    if isinstance(window, MultilabelTable):
        asked = next(iter(window.asked.values())).coarse(20).cells
        return asked[:2].sum(axis=0).ravel(), asked[2].ravel()
    return None


def _chi_square(one: Counts, other: Counts) -> float:
    """Return the chance of two rows of counts as unlike, cells that expect under 5 put together."""
    share = one.sum() / (one.sum() + other.sum())
    pooled = one + other
    enough = pooled * min(share, 1 - share) >= 5
    table = np.stack([np.append(part[enough], part[~enough].sum()) for part in (one, other)]).astype(np.float64)
    table = table[:, table.sum(axis=0) > 0]
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    freedom = table.shape[1] - 1
    return float(chdtrc(freedom, ((table - expected) ** 2 / expected).sum())) if freedom > 0 else 1.0
