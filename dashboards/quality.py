"""The quality page, and the page of results of any other kind: what was checked, worst first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.charts import Chart
from dashboards.drift import WindowChoice
from dashboards.model import ModelPage
from dashboards.standing import Standing


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of the window: a column against its constraint, or the stream as a whole."""

    subject: str
    metric: str
    standing: Standing
    judged: bool = True
    value: float | None = None
    unit: str = ""
    threshold: float | None = None
    p_value: float | None = None
    baseline_value: float | None = None
    rule: str = ""
    n_window: int = 0
    n_baseline: int = 0
    reason: str = ""
    note: str = ""
    by: str = ""


@dataclass(frozen=True, kw_only=True)
class QualityPage(ModelPage):
    """What is missing, mistyped, out of range or new in the window, worst first."""

    template: ClassVar[str] = "quality.html"
    monitors: tuple[str, ...]
    monitor: str
    windows: tuple[WindowChoice, ...]
    window_start: datetime | None
    window_end: datetime | None
    run_standing: Standing
    run_reason: str
    rows: int
    sentence: str
    checks: tuple[Check, ...]
    grid: Chart | None
    grid_note: str


@dataclass(frozen=True, kw_only=True)
class ResultsPage(QualityPage):
    """What the monitors found that have no page of their own, plug-ins included."""


def worst_first(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Order checks by how they stand, then subject and metric."""
    return tuple(sorted(checks, key=lambda check: (check.standing.rank, check.subject, check.metric)))
