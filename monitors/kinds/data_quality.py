"""Data quality: whether values are there, are what the schema says, and arrive as much and as lately as usual."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import exp, isfinite, log, sqrt
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, field_validator
from scipy.special import stdtr

from monitors import constraints
from monitors.constraints import Bounds
from monitors.contract import (
    Arrivals,
    Column,
    Comparison,
    Direction,
    Kind,
    Parameters,
    Result,
    Role,
    Rule,
    Subject,
    Type,
    Verdict,
)
from monitors.layout import CategoryLayout, NumericLayout
from monitors.null import excess
from monitors.profile import CategoryProfile, NumericProfile

MIN_EFFECT = 0.01
"""Least rise of a share of rows that is reported."""
MIN_ROWS = 30
VOLUME_EFFECT = log(2)
"""Least change of volume that is reported: halved or doubled."""
VOLUME_HISTORY = 4
FRESHNESS_EFFECT = 2.0
"""Least silence that is reported, in usual gaps."""
FRESHNESS_GAPS = 20


class QualityParameters(Parameters):
    """Which columns are looked at and how large a fault must be to count."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    features: Literal["all"] | list[str] = Field("all", description="Columns to look at.")
    except_: list[str] = Field([], alias="except", description="Columns left out.")
    min_effect: dict[str, float] = Field(
        {},
        description="Least effect that is reported, by metric: a share of rows (0.01), for `volume` the logarithm of "
        "the ratio (0.69: halved or doubled), for `freshness` usual gaps (2).",
    )
    min_rows: int = Field(MIN_ROWS, ge=1, description="Rows that a window must have for its values to be judged.")
    extra_columns: Literal["violate", "show"] = Field(
        "violate", description="Whether a column that nobody confirmed is a violation or only shown."
    )

    @field_validator("min_effect")
    @classmethod
    def _finite(cls, least: dict[str, float]) -> dict[str, float]:
        for name, value in least.items():
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"min_effect of {name} must be a finite number from 0 on, not {value}")
        return least

    @classmethod
    def of(cls, parameters: Parameters) -> QualityParameters:
        """Return the parameters of a quality monitor; bare ``Parameters`` mean the defaults."""
        return parameters if isinstance(parameters, cls) else cls.model_validate(parameters.model_dump())

    def names(self, column: Column) -> bool:
        """Whether a column is looked at."""
        return (self.features == "all" or column.label in self.features) and column.label not in self.except_


class DataQuality(Kind):
    """Completeness, types, ranges, domains, new categories, missing and extra columns, volume and freshness.

    Shares of rows are compared with the baseline's, worse only, by the nulls of drift on two cells; what people set as
    a rule is one. Volume and freshness are judged on empty windows too, but not while history is replayed.
    """

    name: ClassVar[str] = "data_quality"
    title: ClassVar[str] = "Data quality"
    source: ClassVar[str] = "Fisher (1935), exact test; Good (1953), unseen species"
    default: ClassVar[bool] = True
    told: ClassVar[tuple[str, str]] = ("checks", "failed")
    judges_empty: ClassVar[bool] = True
    page: ClassVar[str] = "quality"
    parameters: ClassVar[type[Parameters]] = QualityParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return volume and freshness, then what was found in each column."""
        chosen = QualityParameters.of(parameters)
        results = [*_arrivals(comparison.arrivals, chosen)]
        for column in comparison.columns:
            if column.role is Role.GROUND_TRUTH or not chosen.names(column):
                continue
            if column.status == "new" and column.name not in comparison.baseline.columns:
                results.append(_extra(column, comparison, chosen))
            elif comparison.window.rows < chosen.min_rows:
                results.append(_too_few(column, comparison, chosen))
            elif column.name in comparison.baseline.columns:
                results += _Quality(comparison, column, chosen).results()
        return results


class _Quality:
    """What is measured of one column in one window."""

    def __init__(self, comparison: Comparison, column: Column, parameters: QualityParameters) -> None:
        self.comparison, self.column, self.parameters = comparison, column, parameters
        self.subject = Subject(feature=column.label)
        self.bounds: Bounds = constraints.of(column)
        self.base = comparison.baseline.columns[column.name]
        self.now = comparison.window.columns.get(column.name)
        self.n_baseline, self.n_window = comparison.baseline.rows, comparison.window.rows
        self.blocks = comparison.blocks.get(1)

    def results(self) -> Iterator[Result]:
        missing = self.n_window if self.now is None else self.now.missing
        yield from self._missing_column(missing)
        yield self._completeness(missing)
        if self.now is None:
            return
        yield self._rate("wrong_type", self.base.wrong_type, self.now.wrong_type)
        if isinstance(self.base, NumericProfile) and isinstance(self.now, NumericProfile):
            yield self._rate("non_finite", self.base.non_finite, self.now.non_finite)
            if self.column.type is Type.NUMERIC:
                yield from self._range(self.base, self.now)
        elif isinstance(self.base, CategoryProfile) and isinstance(self.now, CategoryProfile):
            yield from self._categories(self.base, self.now)

    def _missing_column(self, missing: int) -> Iterator[Result]:
        """Yield a violation where no value is left and the baseline makes that a chance of under one in a million."""
        complete = 1.0 - self.base.missing / self.n_baseline if self.n_baseline else 0.0
        if missing < self.n_window or complete <= 0 or self.n_window * -log(max(1.0 - complete, 1e-300)) < log(1e6):
            return
        yield self._firm("missing_column", 1.0, 0.0, Direction.HIGHER_IS_WORSE, "no value in any row")

    def _completeness(self, missing: int) -> Result:
        value, was = 1.0 - missing / self.n_window, 1.0 - self.base.missing / max(self.n_baseline, 1)
        if self.bounds.firm_completeness and self.bounds.completeness is not None:
            return replace(
                self._firm("completeness", value, self.bounds.completeness, Direction.LOWER_IS_WORSE),
                baseline_value=was,
            )
        judged = self._rate("completeness", self.base.missing, missing, self._missing_blocks())
        return replace(judged, value=value, baseline_value=was, direction=Direction.LOWER_IS_WORSE)

    def _missing_blocks(self) -> NDArray[np.int64] | None:
        return None if self.blocks is None else self.blocks.missing.get(self.column.name)

    def _range(self, base: NumericProfile, now: NumericProfile) -> Iterator[Result]:
        """Yield the share of rows outside the range.

        A profile knows the least and greatest value and the counts of its cells. Of a firm range the cells that lie
        outside are counted, and one row more at least where a value does. A suggested range is the baseline's own: the
        rows of the cells that reach beyond it are compared with the baseline's rows in the same cells.
        """
        low = -np.inf if self.bounds.low is None else self.bounds.low
        high = np.inf if self.bounds.high is None else self.bounds.high
        if not (isfinite(low) or isfinite(high)) or not now.count:
            return
        layout = self.comparison.baseline.layout.columns[self.column.name]
        if not isinstance(layout, NumericLayout):
            return
        starts, ends = layout.bounds()
        outside = now.minimum < low or now.maximum > high
        note = f"values from {now.minimum:g} to {now.maximum:g}" if outside else ""
        if self.bounds.firm_range:
            beyond = int(now.counts[(ends < low) | (starts > high)].sum())
            beyond = max(beyond, int(now.minimum < low) + int(now.maximum > high))
            note = note and f"at least; {note}"
            yield self._firm("out_of_range", beyond / self.n_window, 0.0, Direction.HIGHER_IS_WORSE, note)
            return
        reaching = np.zeros(layout.cells, dtype=np.bool_)
        if now.minimum < low:
            reaching |= starts < low
        if now.maximum > high:
            reaching |= ends > high
        counts = None
        if self.blocks is not None and outside and self.column.name in self.blocks.counts:
            found = np.asarray(self.blocks.counts[self.column.name][:, np.flatnonzero(reaching)].sum(axis=1))
            counts = found if found.any() else None
        result = self._rate("out_of_range", int(base.counts[reaching].sum()), int(now.counts[reaching].sum()), counts)
        yield replace(result, note="; ".join(part for part in (result.note, note) if part))

    def _categories(self, base: CategoryProfile, now: CategoryProfile) -> Iterator[Result]:
        """Yield rows outside a firm domain, and rows of categories that the baseline does not have.

        A sample never holds all rare categories: a share of new ones as large as the baseline's share of categories
        seen once is to be expected (Good 1953).
        """
        layout = self.comparison.baseline.layout.columns[self.column.name]
        if not isinstance(layout, CategoryLayout):
            return
        names = ", ".join(sorted(now.new, key=lambda name: -now.new[name])[:10])
        if self.bounds.firm_domain and self.bounds.values is not None:
            allowed = set(self.bounds.values)
            held = [count for name, count in zip(layout.categories, now.counts, strict=False) if name not in allowed]
            beyond = int(sum(held)) + int(now.counts[-1]) - sum(now.new.get(name, 0) for name in allowed)
            yield self._firm("out_of_domain", max(beyond, 0) / self.n_window, 0.0, Direction.HIGHER_IS_WORSE, names)
        unseen = np.append(base.counts[:-1] == 0, True)
        once = int((base.counts[:-1] == 1).sum()) + int(base.counts[-1])
        counts = None
        if self.blocks is not None and self.column.name in self.blocks.counts:
            found = np.asarray(self.blocks.counts[self.column.name][:, np.flatnonzero(unseen)].sum(axis=1))
            counts = found if found.any() else None
        result = self._rate("new_categories", once, int(now.counts[unseen].sum()), counts)
        yield replace(result, note="; ".join(part for part in (result.note, names) if part))

    def _rate(self, metric: str, was: int, now: int, blocks: NDArray[np.int64] | None = None) -> Result:
        """Return the share of rows with a fault, with the chance that it rose so far by itself."""
        share, before = now / self.n_window, was / max(self.n_baseline, 1)
        result = Result(
            metric=metric,
            subject=self.subject,
            value=share,
            baseline_value=before,
            effect=max(share - before, 0.0),
            min_effect=self.parameters.min_effect.get(metric, MIN_EFFECT),
            n_window=self.n_window,
            n_baseline=self.n_baseline,
            unit="share",
        )
        if now == 0:
            return replace(result, p_value=1.0, verdict=Verdict.OK)
        p_value, note = excess(
            (was, now),
            (max(self.n_baseline, 1), self.n_window),
            self.comparison.generator(metric, self.subject),
            block_events=None if blocks is None else np.asarray(blocks, dtype=np.int64),
            block_rows=None if blocks is None or self.blocks is None else self.blocks.rows,
            least=self.parameters.min_rows,
        )
        return replace(result, p_value=p_value, note=note)

    def _firm(self, metric: str, value: float, threshold: float, direction: Direction, note: str = "") -> Result:
        """Return a result judged by a rule that holds for every row."""
        broken = value < threshold if direction is Direction.LOWER_IS_WORSE else value > threshold
        return Result(
            metric=metric,
            subject=self.subject,
            value=value,
            direction=direction,
            threshold=threshold,
            rule=Rule.SCHEMA,
            verdict=Verdict.VIOLATED if broken else Verdict.OK,
            n_window=self.n_window,
            n_baseline=self.n_baseline,
            unit="share",
            note=note,
        )


def _extra(column: Column, comparison: Comparison, parameters: QualityParameters) -> Result:
    violate = parameters.extra_columns == "violate"
    return Result(
        metric="extra_column",
        subject=Subject(feature=column.label),
        value=1.0,
        threshold=0.0,
        rule=Rule.SCHEMA if violate else None,
        verdict=Verdict.VIOLATED if violate else None,
        decides=violate,
        n_window=comparison.window.rows,
        n_baseline=comparison.baseline.rows,
        note="not in the schema: confirm it to have it monitored",
    )


def _too_few(column: Column, comparison: Comparison, parameters: QualityParameters) -> Result:
    return Result(
        metric="completeness",
        subject=Subject(feature=column.label),
        reason=f"insufficient rows: {comparison.window.rows} of {parameters.min_rows}",
        direction=Direction.LOWER_IS_WORSE,
        n_window=comparison.window.rows,
        n_baseline=comparison.baseline.rows,
        unit="share",
    )


def _arrivals(arrivals: Arrivals, parameters: QualityParameters) -> Iterator[Result]:
    for result in (_volume(arrivals, parameters), _freshness(arrivals, parameters)):
        if arrivals.judged or result.value is None:
            yield result
        else:
            note = "not judged while history is replayed"
            yield replace(result, decides=False, verdict=None, p_value=None, note=note)
    for metric in ("rejected", "duplicates", "conflicts", "late"):
        yield Result(
            metric=metric,
            value=float(getattr(arrivals, metric)),
            verdict=None,
            decides=False,
            n_window=arrivals.rows,
            unit="records",
        )


def _volume(arrivals: Arrivals, parameters: QualityParameters) -> Result:
    """Return the rows as a multiple of the median of the same hours before.

    Student's predictive distribution of the logarithm of the earlier counts, its variance at least that of counts of
    independent rows; too few and too many are both a change.
    """
    history = np.asarray(arrivals.history, dtype=np.float64)
    if history.size < VOLUME_HISTORY:
        reason = f"volume needs {VOLUME_HISTORY} earlier windows of the same hours, there are {history.size}"
        return _not_counted("volume", Direction.DISTANCE_FROM_ONE, reason, arrivals)
    usual = float(np.median(history))
    if usual == 0:
        return _not_counted("volume", Direction.DISTANCE_FROM_ONE, "no records in the same hours before", arrivals)
    logs = np.log(history + 0.5)
    spread = sqrt(max(float(logs.var(ddof=1)), 1.0 / (usual + 0.5)) * (1 + 1 / history.size))
    distance = abs(log(arrivals.rows + 0.5) - float(logs.mean())) / spread
    return Result(
        metric="volume",
        value=arrivals.rows / usual,
        baseline_value=1.0,
        direction=Direction.DISTANCE_FROM_ONE,
        p_value=min(1.0, 2 * float(stdtr(history.size - 1, -distance))),
        effect=abs(log((arrivals.rows + 0.5) / (usual + 0.5))),
        min_effect=parameters.min_effect.get("volume", VOLUME_EFFECT),
        n_window=arrivals.rows,
        n_baseline=int(history.sum()),
        unit="of the usual rows",
        note=f"{arrivals.rows} rows, usually {usual:g}",
    )


def _freshness(arrivals: Arrivals, parameters: QualityParameters) -> Result:
    """Return the hours since the last record, against the longest gap of the last four weeks.

    With exponential gaps, the longest of at least 20 of them having been g, a silence of s has a chance of 20^(-s/g).
    """
    silence, gap = arrivals.silence_hours, arrivals.usual_gap_hours
    if silence is None:
        return _not_counted("freshness", Direction.HIGHER_IS_WORSE, "no record has come yet", arrivals)
    if gap is None or not arrivals.history:
        return _not_counted("freshness", Direction.HIGHER_IS_WORSE, "the usual gap is not known yet", arrivals)
    gap = max(gap, 1.0)
    return Result(
        metric="freshness",
        value=silence,
        baseline_value=gap,
        p_value=exp(-log(FRESHNESS_GAPS) * silence / gap),
        effect=silence / gap,
        min_effect=parameters.min_effect.get("freshness", FRESHNESS_EFFECT),
        n_window=arrivals.rows,
        unit="hours",
    )


def _not_counted(metric: str, direction: Direction, reason: str, arrivals: Arrivals) -> Result:
    return Result(
        metric=metric, reason=reason, verdict=None, decides=False, direction=direction, n_window=arrivals.rows
    )
