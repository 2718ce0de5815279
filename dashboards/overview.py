"""The overview of a model: whether it is healthy, what changed, since when."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.charts import Chart
from dashboards.model import ModelPage
from dashboards.page import Spark
from dashboards.standing import Standing


@dataclass(frozen=True, kw_only=True)
class Tile:
    """How one monitor stands: its number, its limit, on how many rows, how old."""

    monitor: str
    kind: str
    title: str
    standing: Standing
    value: str
    of: str
    limit: str
    reason: str
    rows: int | None
    start: datetime | None
    end: datetime | None
    measured_at: datetime | None
    violated: int
    ok: int
    not_measured: int
    spark: Spark
    page: str = "monitors"
    """The page that shows the detail."""


@dataclass(frozen=True, kw_only=True)
class OpenAlert:
    """An alert that waits for somebody."""

    uid: str
    sentence: str
    severity: str
    state: str
    opened_at: datetime
    replayed: bool = False


@dataclass(frozen=True, kw_only=True)
class OverviewPage(ModelPage):
    """A sentence, a tile for each monitor, and what happened when."""

    template: ClassVar[str] = "overview.html"
    verdict: str
    since: str
    note: str
    tiles: tuple[Tile, ...]
    alerts: tuple[OpenAlert, ...]
    charts: tuple[Chart, ...]
