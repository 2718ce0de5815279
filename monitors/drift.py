"""Drift of one column: which statistic decides, how far the column moved, and how surprising that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite, sqrt
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from monitors import discovery
from monitors.contract import (
    BinnedStatistic,
    Column,
    Comparison,
    Counts,
    Parameters,
    Result,
    RowStatistic,
    Subject,
    Type,
    Verdict,
    WorkNotDoneError,
)
from monitors.layout import CategoryLayout, NumericLayout
from monitors.null import ENOUGH_BLOCKS, Null, gathered, merged_bins
from monitors.profile import CategoryProfile, NumericProfile

DECIDES: Mapping[str, str] = {"numeric": "wasserstein", "categorical": "jensenshannon"}
"""What decides on a column, and what its own effect is measured in, by the family of its type."""
MIN_EFFECT: Mapping[str, float] = {"numeric": 0.1, "categorical": 0.1}
LEAST_EFFECT = 0.02
"""The minimum effect shrinks with the root of the time scale, not below this."""
MIN_ROWS = 30
"""Under 30 rows even six bins of five expected rows cannot be had, and chance alone moves a column by the minimum
effect and more (0.2 standard deviations, a Jensen-Shannon distance of 0.3)."""
SHOWN_BINS = 10
"""Bins of equal baseline share on which the value of an unordered statistic of a number is shown. Being the baseline's
alone they make the values of different windows comparable; customary thresholds (psi 0.1 and 0.2) are made for ten."""


class Top(BaseModel):
    """So many features, the most important first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top: int = Field(ge=1)


class DriftParameters(Parameters):
    """Which columns are compared, by which statistic, and what counts as a change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    features: Literal["all"] | list[str] | Top = Field("all", description="Columns to compare; `top` by importance.")
    except_: list[str] = Field([], alias="except", description="Columns left out.")
    methods: dict[str, str] = Field(
        {}, description="The statistic that decides, for `numeric`, `categorical` or one column by name."
    )
    also: list[str] = Field([], description="Statistics computed and shown without a verdict.")
    options: dict[str, dict[str, Any]] = Field(
        {}, description="Options of statistics, e.g. `{jensenshannon: {natural: true}}`."
    )
    min_effect: dict[str, float] = Field(
        {},
        description="Least effect that is reported, for `numeric` (baseline standard deviations), `categorical` "
        "(Jensen-Shannon distance) or one column by name.",
    )
    min_rows: int = Field(MIN_ROWS, ge=1, description="Values that a window must have in a column to be judged.")

    @model_validator(mode="after")
    def _known(self) -> DriftParameters:
        known = discovery.statistics() | discovery.row_statistics()
        for name in (*self.methods.values(), *self.also, *self.options):
            if name not in known:
                raise ValueError(f"there is no statistic {name}; there are {', '.join(known)}")
        for name, options in self.options.items():
            try:
                replace(known[name], **options)
            except TypeError:
                raise ValueError(f"{name} has no options {', '.join(options)}") from None
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        for name, least in self.min_effect.items():
            if not (isfinite(least) and least >= 0):
                raise ValueError(f"min_effect of {name} must be a finite number from 0 on, not {least}")
        return self

    @classmethod
    def of(cls, parameters: Parameters) -> DriftParameters:
        """Return the parameters of a drift monitor; bare ``Parameters`` mean the defaults."""
        return parameters if isinstance(parameters, cls) else cls.model_validate(parameters.model_dump())

    def statistic(self, name: str) -> BinnedStatistic | RowStatistic:
        """Return a statistic with the options that were set."""
        found = discovery.statistics().get(name) or discovery.row_statistics()[name]
        options = self.options.get(name)
        return replace(found, **options) if options else found

    def without_null(self) -> Sequence[str]:
        """Return the statistics that are to decide and have no p-value."""
        known = discovery.statistics() | discovery.row_statistics()
        return [name for name in dict.fromkeys(self.methods.values()) if not known[name].null]

    def deciding(self, column: Column) -> BinnedStatistic | RowStatistic:
        """Return the one statistic that decides on a column."""
        family = family_of(column)
        return self.statistic(self.methods.get(column.label) or self.methods.get(family) or DECIDES[family])

    def shown(self, column: Column) -> list[BinnedStatistic | RowStatistic]:
        """Return the other statistics asked for that are for the column's type."""
        deciding = self.deciding(column).name
        names = [name for name in dict.fromkeys(self.also) if name != deciding]
        return [found for found in map(self.statistic, names) if column.type in found.types]

    def least_effect(self, column: Column, scale: int) -> float:
        """Return the minimum effect of a column at a time scale."""
        family = family_of(column)
        least = self.min_effect.get(column.label, self.min_effect.get(family, MIN_EFFECT[family]))
        return max(least / sqrt(scale), min(least, LEAST_EFFECT))

    def chosen(self, columns: Iterable[Column]) -> list[Column]:
        """Return the columns to compare; with ``top`` those whose constraints hold the greatest importance."""
        left = [column for column in columns if column.label not in self.except_]
        if self.features == "all":
            return left
        if isinstance(self.features, Top):
            return sorted(left, key=importance, reverse=True)[: self.features.top]
        return [column for column in left if column.label in self.features]

    def names(self, column: Column) -> bool:
        """Whether the column was asked for by its name."""
        return isinstance(self.features, list) and column.label in self.features


def importance(column: Column) -> float:
    """Return a column's importance as its constraints hold it, 0 where they do not."""
    value = column.constraints.get("importance", 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def family_of(column: Column) -> str:
    """Return "numeric" for numbers and dates, "categorical" for categories and booleans."""
    return "numeric" if column.type in (Type.NUMERIC, Type.DATETIME) else "categorical"


def measure_columns(comparison: Comparison, columns: Sequence[Column], parameters: DriftParameters) -> list[Result]:
    """Return the drift of the columns chosen among these at each time scale, unjudged, shortest scale first."""
    results: list[Result] = []
    chosen = parameters.chosen(columns)
    for scale in sorted(comparison.scales):
        for column in chosen:
            results += measure_column(comparison, column, scale, parameters)
    results += measure_rows(comparison, chosen, parameters)
    if isinstance(parameters.features, list):
        labels = {column.label for column in columns}
        for name in parameters.features:
            if name not in labels:
                subject = Subject(feature=name)
                results.append(Result(metric="drift", subject=subject, reason=f"there is no column {name} to compare"))
    return results


def measure_column(comparison: Comparison, column: Column, scale: int, parameters: DriftParameters) -> list[Result]:
    """Return the deciding statistic of one column at one time scale and then those that are only shown.

    A column that can never be compared (text, a constant) and a time scale with under 20 blocks give a reason that is
    shown and not counted; too few rows in this window give one that is.
    """
    deciding = parameters.deciding(column)
    shown = [found for found in parameters.shown(column) if isinstance(found, BinnedStatistic)]
    if isinstance(deciding, RowStatistic):
        if not shown or column.type in (Type.TEXT, Type.EMBEDDING):
            return []
        return [
            replace(result, decides=False, verdict=None)
            for result in _measured(comparison, column, scale, parameters, shown)
        ]
    first, *others = _measured(comparison, column, scale, parameters, [deciding, *shown])
    return [first, *(replace(result, decides=False, verdict=None) for result in others)]


def _measured(
    comparison: Comparison,
    column: Column,
    scale: int,
    parameters: DriftParameters,
    statistics: Sequence[BinnedStatistic],
) -> list[Result]:
    """Return statistics of one column that share a null, or for the first of them the reason why there is none."""
    deciding = statistics[0]
    subject = Subject(feature=column.label, scale=scale)
    pair = _Pair.of(comparison, column, scale)
    own = discovery.statistics()[DECIDES[family_of(column)]]
    told = ""
    if pair is not None and pair.constant:
        own = deciding = discovery.statistics()[DECIDES["categorical"]]
        statistics = [deciding, *(found for found in statistics[1:] if Type.CATEGORICAL in found.types)]
        told = "; the baseline is constant, so values are compared as equal or not"
    reason = _never(pair, column, deciding, parameters)
    if pair is None or reason:
        return [_without(deciding, subject, reason, pair, counted=False)]
    blocks = comparison.blocks.get(scale)
    if scale > 1 and (blocks is None or len(blocks) < ENOUGH_BLOCKS):
        held = 0 if blocks is None else len(blocks)
        reason = f"a scale of {scale} windows needs {ENOUGH_BLOCKS} quiet blocks of its length, there are {held}"
        return [_without(deciding, subject, reason, pair, counted=False)]
    if pair.n_window < parameters.min_rows:
        reason = f"insufficient rows: {pair.n_window} of {parameters.min_rows}"
        return [_without(deciding, subject, reason, pair, counted=scale == 1)]
    null = Null(
        pair.baseline,
        pair.window,
        comparison.generator(deciding.name, subject),
        ordered=pair.ordered,
        places=pair.places,
        blocks=blocks.counts.get(column.name) if blocks is not None else None,
        least=parameters.min_rows,
    )
    if scale > 1 and not null.enough:
        reason = f"a scale of {scale} windows needs {ENOUGH_BLOCKS} quiet blocks, {null.quiet_blocks} have rows enough"
        return [_without(deciding, subject, reason, pair, counted=False)]
    note = null.note if null.enough or not comparison.blocks_reason else f"{null.note}; {comparison.blocks_reason}"
    note = f"{note}{told}".removeprefix("; ")
    least = parameters.least_effect(column, scale)
    results = [_result(deciding, subject, pair, null, note, effect=null.effect(own), min_effect=least)]
    results += [_result(statistic, subject, pair, null, note) for statistic in statistics[1:]]
    return [replace(result, type=column.type) for result in results]


def measure_rows(comparison: Comparison, columns: Sequence[Column], parameters: DriftParameters) -> list[Result]:
    """Return what other libraries compute of the row samples, all columns in one piece of work for each task."""
    asked: dict[str, list[tuple[Column, RowStatistic, bool]]] = {}
    for column in columns:
        deciding = parameters.deciding(column)
        for statistic in (deciding, *parameters.shown(column)):
            if isinstance(statistic, RowStatistic):
                asked.setdefault(statistic.task, []).append((column, statistic, statistic is deciding))
    results: list[Result] = []
    for task, wanted in asked.items():
        results += _worked(comparison, task, wanted)
    return results


def _worked(comparison: Comparison, task: str, wanted: Sequence[tuple[Column, RowStatistic, bool]]) -> list[Result]:
    """Return what one task of the worker process says of the columns, or why it says nothing."""
    old, new = comparison.baseline_rows(), comparison.rows()
    if old is None or new is None:
        reason = "the baseline keeps no rows" if old is None else "the window has no rows"
        return [_of_rows(column, statistic, decides, {"error": reason}) for column, statistic, decides in wanted]
    held = [
        (column, statistic)
        for column, statistic, _ in wanted
        if column.type in statistic.types and column.name in old.column_names and column.name in new.column_names
    ]
    names = list(dict.fromkeys(column.name for column, _ in held))
    document = {
        "seed": int(comparison.generator(task, Subject()).integers(2**31)),
        "asked": [
            {
                "column": column.name,
                "type": column.type.value,
                "method": statistic.method,
                "most_rows": statistic.most_rows,
                "equal": statistic.equal,
                "options": asdict(statistic),
            }
            for column, statistic in held
        ],
    }
    scores: list[Mapping[str, Any]] = []
    try:
        if held:
            tables = {"baseline": old.select(names), "window": new.select(names)}
            scores = list(comparison.work(task, document, tables)["scores"])
    except WorkNotDoneError as error:
        scores = [{"error": str(error)}] * len(held)
    answers = dict(zip([(column.name, statistic.name) for column, statistic in held], scores, strict=True))
    return [
        _of_rows(column, statistic, decides, answers.get((column.name, statistic.name)))
        for column, statistic, decides in wanted
    ]


def _of_rows(column: Column, statistic: RowStatistic, decides: bool, told: Mapping[str, Any] | None) -> Result:
    """Return a score of the rows, or the reason that came instead; one never to be had is not counted."""
    never = column.type not in statistic.types
    reason = f"{statistic.name} is not for {column.type} columns" if never else "the rows do not hold this column"
    found = told or {"error": reason}
    score = found.get("score")
    counted = decides and told is not None and not never
    n_baseline, n_window = int(found.get("n_baseline", 0)), int(found.get("n_window", 0))
    return Result(
        metric=statistic.name,
        subject=Subject(feature=column.label),
        value=score,
        reason="" if score is not None else str(found["error"]),
        verdict=Verdict.NOT_MEASURED if counted else None,
        decides=counted,
        direction=statistic.direction,
        n_window=n_window,
        n_baseline=n_baseline,
        unit=statistic.unit,
        note=f"of {n_window} rows against {n_baseline}" if score is not None else "",
        type=column.type,
        by=discovery.by(statistic.name),
    )


def column_value(comparison: Comparison, column: Column, statistic: BinnedStatistic) -> float:
    """Return a statistic of a column's window as a result shows it; NaN where the column cannot be compared."""
    pair = _Pair.of(comparison, column, 1)
    if pair is None or not pair.n_baseline or not pair.n_window or (pair.ordered and not pair.spread > 0):
        return float("nan")
    return shown_value(
        statistic, pair.baseline, pair.window, ordered=pair.ordered, places=pair.places, values=pair.values
    )


def shown_value(
    statistic: BinnedStatistic,
    baseline: Counts,
    window: Counts,
    *,
    ordered: bool,
    places: Counts | None = None,
    values: Counts | None = None,
) -> float:
    """Return the value that is shown of counts of shape (cells,), of which a number's have the mean ``values``.

    Statistics that use the order of the cells take all of them, and so do categories. Unordered statistics of numbers
    take ten bins of equal baseline share, so that the number of bins does not depend on the window.
    """
    positions = None
    if statistic.ordered:
        occupied = (baseline + window) > 0
        baseline, window = baseline[occupied], window[occupied]
        if statistic.raw and values is not None:
            positions = values[occupied]
        elif places is not None:
            positions = np.maximum.accumulate(places[occupied] / (baseline + window))
    elif ordered:
        bins = merged_bins(baseline, float(baseline.sum()), float(baseline.sum()), ordered=True, most=SHOWN_BINS)
        number = int(bins.max()) + 1
        baseline, window = gathered(baseline, bins, number), gathered(window, bins, number)
    return float(statistic.value(baseline, window, positions))


@dataclass(frozen=True, slots=True)
class _Pair:
    """A column's counts in the baseline and in the window at one time scale."""

    baseline: Counts
    window: Counts
    ordered: bool
    places: Counts | None = None
    values: Counts | None = None
    spread: float = 1.0
    n_baseline: int = 0
    n_window: int = 0
    constant: bool = False
    """Whether the baseline holds one number only: then its cells are compared as categories, having no scale."""

    @staticmethod
    def of(comparison: Comparison, column: Column, scale: int) -> _Pair | None:
        """Return the counts, or None where the baseline or the window does not hold the column."""
        base = comparison.baseline.columns.get(column.name)
        now = comparison.scales[scale].columns.get(column.name)
        if isinstance(base, NumericProfile) and isinstance(now, NumericProfile):
            spread = sqrt(max(base.m2, 0.0) / base.count) if base.minimum < base.maximum else 0.0
            places = np.clip((base.sums + now.sums) / spread, -1e150, 1e150) if spread > 0 else None
            counts = base.counts.astype(np.float64), now.counts.astype(np.float64)
            if base.minimum == base.maximum:
                sizes = int(counts[0].sum()), int(counts[1].sum())
                return _Pair(*counts, False, None, None, 1.0, *sizes, constant=True)
            values = _mean_values(base, now, comparison.baseline.layout.columns[column.name])
            return _Pair(*counts, True, places, values, spread, int(counts[0].sum()), int(counts[1].sum()))
        if isinstance(base, CategoryProfile) and isinstance(now, CategoryProfile):
            counts = base.counts.astype(np.float64), now.counts.astype(np.float64)
            return _Pair(*counts, False, None, None, 1.0, int(counts[0].sum()), int(counts[1].sum()))
        return None


def _mean_values(base: NumericProfile, now: NumericProfile, layout: NumericLayout | CategoryLayout) -> Counts | None:
    """Return the mean of the pooled values in each cell, a tied edge's own value exactly."""
    if not isinstance(layout, NumericLayout):
        return None
    return NumericProfile(base.counts + now.counts, base.sums + now.sums).positions(layout)


def _never(pair: _Pair | None, column: Column, statistic: BinnedStatistic, parameters: DriftParameters) -> str:
    """Return why a column cannot be compared in any window, or nothing."""
    if column.type in (Type.TEXT, Type.EMBEDDING):
        return f"a {column.type} column has no bins to compare"
    if column.type is Type.DATETIME and not parameters.names(column):
        return "a date moves with time; name it in `features` to have it compared"
    if pair is None:
        return "the baseline does not hold this column"
    if column.type not in statistic.types:
        return f"{statistic.name} is not for {column.type} columns"
    if isinstance(parameters.features, Top) and not importance(column):
        return "the importance of features is not known, so `top` cannot choose"
    if pair.n_baseline < parameters.min_rows:
        return f"insufficient rows in the baseline: {pair.n_baseline} of {parameters.min_rows}"
    if pair.ordered and not (isfinite(pair.spread) and pair.spread > 0):
        return "the baseline's standard deviation is not finite"
    return ""


def _result(
    statistic: BinnedStatistic,
    subject: Subject,
    pair: _Pair,
    null: Null,
    note: str,
    effect: float | None = None,
    min_effect: float | None = None,
) -> Result:
    value = shown_value(
        statistic, pair.baseline, pair.window, ordered=pair.ordered, places=pair.places, values=pair.values
    )
    if not isfinite(value):
        return _without(statistic, subject, f"{statistic.name} is not finite here", pair, counted=True)
    return Result(
        metric=statistic.name,
        subject=subject,
        value=value,
        direction=statistic.direction,
        p_value=null.p_value(statistic) if statistic.null else None,
        effect=effect,
        min_effect=min_effect,
        n_window=pair.n_window,
        n_baseline=pair.n_baseline,
        unit=statistic.unit,
        note=note if statistic.null else "",
        by=discovery.by(statistic.name),
    )


def _without(statistic: BinnedStatistic, subject: Subject, reason: str, pair: _Pair | None, *, counted: bool) -> Result:
    return Result(
        metric=statistic.name,
        subject=subject,
        reason=reason,
        verdict=Verdict.NOT_MEASURED if counted else None,
        decides=counted,
        direction=statistic.direction,
        n_window=pair.n_window if pair else 0,
        n_baseline=pair.n_baseline if pair else 0,
        unit=statistic.unit,
        by=discovery.by(statistic.name),
    )
