"""The performance page: how well predictions meet the labels, what was expected of them, and what is still unknown."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.charts import Chart
from dashboards.drift import WindowChoice
from dashboards.model import ModelPage
from dashboards.standing import Standing


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One figure in the window: realised, expected without labels, in the baseline and of the best constant."""

    metric: str
    class_: str
    standing: Standing
    judged: bool
    value: float | None = None
    low: float | None = None
    high: float | None = None
    estimated: float | None = None
    estimated_low: float | None = None
    estimated_high: float | None = None
    baseline_value: float | None = None
    constant_value: float | None = None
    effect: float | None = None
    min_effect: float | None = None
    p_value: float | None = None
    alpha: float | None = None
    threshold: float | None = None
    unit: str = ""
    direction: str = ""
    n_window: int = 0
    reason: str = ""
    note: str = ""
    by: str = ""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How rows with a label were answered: the share of each label's rows that got each answer."""

    names: tuple[str, ...]
    baseline: tuple[tuple[float | None, ...], ...]
    window: tuple[tuple[float | None, ...], ...]
    rows: tuple[int, ...]
    """The window's rows by label."""


@dataclass(frozen=True, kw_only=True)
class PerformancePage(ModelPage):
    """How well the window's predictions met the ground truth, against the baseline, with what was expected."""

    template: ClassVar[str] = "performance.html"
    monitors: tuple[str, ...]
    monitor: str
    windows: tuple[WindowChoice, ...]
    window_start: datetime | None
    window_end: datetime | None
    run_standing: Standing
    run_reason: str
    rows: int
    labelled_rows: int | None
    label_coverage: float | None
    sentence: str
    disagreement: str
    """Where labels contradict the estimate, in a sentence."""
    figures: tuple[FigureRow, ...]
    concept: tuple[FigureRow, ...]
    notes: tuple[str, ...]
    series: tuple[Chart, ...]
    volume: Chart | None
    curves: tuple[Chart, ...]
    confusion: Confusion | None
    curves_reason: str
