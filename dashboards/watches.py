"""The monitors page: what is watched, and whether it ran."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.model import ModelPage
from dashboards.page import Spark
from dashboards.standing import Standing


@dataclass(frozen=True, kw_only=True)
class MonitorLine:
    """A configured watch and its last window."""

    name: str
    kind: str
    schedule: str
    window: str
    baseline: str
    policy: str
    enabled: bool
    standing: Standing
    reason: str
    last_end: datetime | None
    next_due: datetime | None
    rows: int | None
    ok: int
    violated: int
    not_measured: int
    recent: Spark
    configuration: str


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """A run of a monitor over a window."""

    uid: str
    monitor: str
    start: datetime
    end: datetime
    standing: Standing
    status: str
    reason: str
    revision: int
    rows: int
    ok: int
    violated: int
    not_measured: int
    finished_at: datetime | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class MonitorsPage(ModelPage):
    """What is watched, and the newest runs."""

    template: ClassVar[str] = "monitors.html"
    monitors: tuple[MonitorLine, ...]
    runs: tuple[RunLine, ...]
    budget: str
