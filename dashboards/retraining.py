"""The retraining page: when a model is retrained, what was asked for, what became of each candidate."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.model import ModelPage
from dashboards.standing import Standing


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One part of the policy, in words."""

    name: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """A change of state."""

    at: datetime
    state: str
    by: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Champion and challenger on one metric of the same rows."""

    metric: str
    champion: float
    challenger: float
    difference: float
    lower: float | None
    upper: float | None
    less_is_better: bool | None
    """None: what is nearer to where it should be."""
    decides: bool
    better: bool
    worse: bool


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at a retraining."""

    uid: str
    alert: str
    attempt: int
    state: str
    standing: Standing
    version: str
    reason: str
    moment: datetime
    replayed: bool
    deadline_at: datetime | None
    training: str
    candidate: str | None
    verdict: str
    """How the candidate does beside the version it would replace, in one sentence."""
    contests: tuple[Contest, ...]
    promoted_at: datetime | None
    promoted_by: str | None
    rolled_back_at: datetime | None
    steps: tuple[Step, ...]
    actions: tuple[str, ...]
    """What can be done about it now, by whoever may operate."""


@dataclass(frozen=True, kw_only=True)
class RetrainingPage(ModelPage):
    """The policy, why it does not ask at the moment, and every attempt, newest first."""

    template: ClassVar[str] = "retraining.html"
    rules: tuple[Rule, ...]
    held: str
    attempts: tuple[Attempt, ...]
    listeners: int
    """Webhooks that hear of requests."""
    may_operate: bool
