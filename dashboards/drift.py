"""The drift page: which inputs moved, and whether it matters."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards import charts
from dashboards.charts import Chart
from dashboards.model import ModelPage
from dashboards.page import Spark
from dashboards.standing import Standing

SORTS = {
    "strength": "furthest first",
    "impact": "most heeded and furthest first",
    "p": "smallest p-value first",
    "name": "by name",
}


@dataclass(frozen=True, kw_only=True)
class ColumnDrift:
    """One column in one window: the deciding statistic, judged, or the reason why there is none."""

    column: str
    role: str
    standing: Standing
    metric: str
    unit: str = ""
    direction: str = ""
    value: float | None = None
    baseline_value: float | None = None
    effect: float | None = None
    min_effect: float | None = None
    p_value: float | None = None
    alpha: float | None = None
    threshold: float | None = None
    rule: str = ""
    scale: int = 1
    n_window: int = 0
    n_baseline: int = 0
    reason: str = ""
    note: str = ""
    by: str = ""
    recent: Spark
    violated_windows: int = 0
    windows: int = 0
    importance: float | None = None
    """The share of the model's predictions that rests on it; none where nobody knows."""

    @property
    def impact(self) -> float | None:
        """How far it moved times how much the model heeds it."""
        return None if self.strength is None or self.importance is None else self.strength * self.importance

    @property
    def strength(self) -> float | None:
        """The effect as a multiple of the smallest that counts, or the value of its fixed threshold."""
        return strength(self.value, self.effect, self.min_effect, self.threshold)


def strength(
    value: float | None, effect: float | None, min_effect: float | None, threshold: float | None
) -> float | None:
    """Return how far a column moved as a multiple of its limit: 1 is just as far as counts; none if not measured."""
    if value is not None and threshold:
        return abs(value) / abs(threshold)
    if effect is not None and min_effect:
        return max(effect, 0.0) / min_effect
    return None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Another statistic of the same column that was computed and is only shown."""

    metric: str
    value: float | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ColumnPanel:
    """Everything about one column in one window."""

    drift: ColumnDrift
    type: str
    missing_baseline: float | None
    missing_window: float | None
    overlay: Chart | None
    overlay_reason: str
    series: tuple[Chart, ...]
    also: tuple[Shown, ...]


@dataclass(frozen=True, kw_only=True)
class WindowChoice:
    """A window that can be looked at."""

    start: datetime
    end: datetime
    label: str
    standing: Standing
    current: bool


@dataclass(frozen=True, kw_only=True)
class DriftPage(ModelPage):
    """How far each column of the window is from the baseline, worst first."""

    template: ClassVar[str] = "drift.html"
    monitors: tuple[str, ...]
    monitor: str
    windows: tuple[WindowChoice, ...]
    window_start: datetime | None
    window_end: datetime | None
    run_uid: str
    run_standing: Standing
    run_reason: str
    rows: int
    alpha: float | None
    policy: str
    sentence: str
    columns: tuple[ColumnDrift, ...]
    slices: tuple[str, ...] = ()
    """The parts of the population that were measured apart; the page shows one of them, or all rows."""
    notes: tuple[str, ...]
    """What holds for several columns and is said once."""
    heatmap: Chart | None
    heatmap_note: str
    quadrant: Chart | None = None
    """How far the window's features moved by how much the model heeds them; None where that is not known of two."""
    panel: ColumnPanel | None


def quadrant(columns: Sequence[ColumnDrift]) -> Chart | None:
    """Return drift by importance of the columns of which both are known; None of fewer than two."""
    found = [
        charts.Heeded(column=one.column, importance=one.importance, times=one.strength, standing=one.standing)
        for one in columns
        if one.importance is not None and one.strength is not None
    ]
    heeded = [one for one in columns if one.importance is not None]
    return charts.quadrant(found, 1 / len(heeded)) if len(found) > 1 else None


def common_notes(columns: Sequence[ColumnDrift]) -> tuple[str, ...]:
    """Return the notes that three columns or more share."""
    notes = [one.note for one in columns if one.note]
    return tuple(note for note in dict.fromkeys(notes) if notes.count(note) >= 3)


def ordered(columns: Sequence[ColumnDrift], sort: str) -> tuple[ColumnDrift, ...]:
    """Order columns as the reader chose: violated and furthest first where nothing was chosen."""
    if sort == "name":
        return tuple(sorted(columns, key=lambda one: one.column))
    if sort == "impact":
        return tuple(sorted(columns, key=lambda one: (-(one.impact or 0.0), one.impact is None, one.column)))
    if sort == "p":
        return tuple(sorted(columns, key=lambda one: (one.p_value is None, one.p_value or 0.0, one.column)))
    return tuple(
        sorted(
            columns,
            key=lambda one: (
                one.standing is not Standing.VIOLATED,
                -(one.strength or 0.0),
                one.strength is None,
                one.column,
            ),
        )
    )
