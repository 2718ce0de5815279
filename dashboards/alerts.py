"""The alert pages: why it fired, what was done, who was told."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.charts import Chart
from dashboards.model import ModelPage
from dashboards.page import View
from dashboards.standing import Standing


@dataclass(frozen=True, kw_only=True)
class AlertLine:
    """One episode in the list."""

    uid: str
    state: str
    kind: str
    severity: str
    sentence: str
    version: str
    starts_at: datetime
    last_violated_at: datetime
    opened_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    acknowledged_by: str | None
    muted_until: datetime | None
    replayed: bool
    deliveries: int
    delivered: int
    failed: int

    @property
    def standing(self) -> Standing:
        """An open one is violated, one that somebody has taken is waiting, a closed one is not judged any more."""
        if self.state == "open":
            return Standing.VIOLATED
        return Standing.WAITING if self.state == "acknowledged" else Standing.NOT_MEASURED


@dataclass(frozen=True, kw_only=True)
class AlertsPage(ModelPage):
    """The episodes of a model, newest first."""

    template: ClassVar[str] = "alerts.html"
    alerts: tuple[AlertLine, ...]
    states: tuple[tuple[str, int], ...]
    webhooks: int
    timeline: Chart | None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try of a delivery and what came back."""

    at: datetime
    status: int | None
    error: str
    milliseconds: float | None
    answer: str

    @property
    def succeeded(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, kw_only=True)
class DeliveryLine:
    """A call that is owed or was made."""

    uid: str
    webhook: str
    url: str
    event: str
    state: str
    attempts: int
    next_at: datetime | None
    created_at: datetime
    delivered_at: datetime | None
    log: tuple[Attempt, ...]
    body: str

    @property
    def standing(self) -> Standing:
        """Delivered is well, failed for good is failed, anything else waits."""
        return {"delivered": Standing.OK, "failed": Standing.FAILED}.get(self.state, Standing.WAITING)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One of the worst results as it was when the alert opened; never changed afterwards."""

    subject: str
    metric: str
    value: float | None
    baseline_value: float | None
    effect: float | None
    min_effect: float | None
    p_value: float | None
    alpha: float | None
    threshold: float | None
    n_window: int
    n_baseline: int
    standing: Standing
    reason: str
    monitor: str = ""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A monitor that is part of the episode."""

    monitor: str
    kind: str
    columns: tuple[str, ...]
    quiet_windows: int | None
    last_window: str


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What joined the episode and may be its cause, with how many times its limit it was at its worst."""

    subject: str
    monitor: str
    metric: str
    value: float | None
    times: float
    importance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A planned change that meets the episode."""

    title: str
    effect: str
    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class Comment:
    """What somebody said about the alert."""

    author: str
    text: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class AlertPage(ModelPage):
    """One episode: its state, the numbers it opened on, and every call that was made about it."""

    template: ClassVar[str] = "alert.html"
    alert: AlertLine
    updated_at: datetime
    acknowledged_at: datetime | None
    members: tuple[Member, ...]
    evidence: tuple[Evidence, ...]
    evidence_monitor: str
    evidence_run: str
    evidence_start: datetime | None
    evidence_end: datetime | None
    evidence_page: str
    evidence_view: View
    """Where the detail of the evidence is: a page of the model, and what it should show."""
    chart: Chart | None
    causes: tuple[Cause, ...] = ()
    planned: tuple[Planned, ...] = ()
    held: bool = False
    """Whether nobody was told, because a planned change explains it so far."""
    comments: tuple[Comment, ...] = ()
    deliveries: tuple[DeliveryLine, ...]
    may_operate: bool
