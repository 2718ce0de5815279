"""The jobs page: long work that was asked for and how far it is, and history that is being replayed."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.page import Empty, Page
from dashboards.standing import Standing

_STANDINGS = {"done": Standing.OK, "failed": Standing.FAILED, "cancelled": Standing.NOT_MEASURED}


@dataclass(frozen=True, kw_only=True)
class JobLine:
    """A piece of long work: what was asked for, of which model, and how far it is."""

    uid: str
    kind: str
    model: str | None
    about: str
    state: str
    done: int
    total: int | None
    """None where nobody knows how much there is."""
    unit: str
    created_at: datetime
    finished_at: datetime | None
    eta: datetime | None
    error: str | None
    may_cancel: bool

    @property
    def standing(self) -> Standing:
        """Under way is waiting."""
        return _STANDINGS.get(self.state, Standing.WAITING)


@dataclass(frozen=True, kw_only=True)
class ReplayLine:
    """History that is streamed into a model: the span, and the newest event that came."""

    model: str
    start: datetime
    end: datetime
    reached: datetime | None
    done: int
    total: int
    """Hours."""


@dataclass(frozen=True, kw_only=True)
class JobsPage(Page):
    """The newest jobs, those under way first, and the replays that are open."""

    template: ClassVar[str] = "jobs.html"
    jobs: tuple[JobLine, ...]
    replays: tuple[ReplayLine, ...]
    empty: Empty | None = None
