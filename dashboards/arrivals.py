"""The data page: what arrives, what was refused and why."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.charts import Chart
from dashboards.fleet import Tally
from dashboards.model import ModelPage


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why records were refused, or values taken as missing, and how often."""

    code: str
    count: int
    rejects: bool


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A record that was refused."""

    at: datetime
    kind: str
    code: str
    pointer: str
    detail: str
    position: int


@dataclass(frozen=True, kw_only=True)
class BaselineLine:
    """Something to compare with."""

    name: str
    version: str
    state: str
    rows: int
    ordered: bool
    active_from: datetime | None
    in_force: bool
    created_at: datetime
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FeatureLine:
    """A column of the version's schema."""

    name: str
    type: str
    status: str
    required: bool
    range: str
    categories: str


@dataclass(frozen=True, kw_only=True)
class DataPage(ModelPage):
    """How many records arrived, what became of them, and what they are compared with."""

    template: ClassVar[str] = "data.html"
    tallies: tuple[Tally, ...]
    charts: tuple[Chart, ...]
    reasons: tuple[Reason, ...]
    rejections: tuple[Rejection, ...]
    baselines: tuple[BaselineLine, ...]
    features: tuple[FeatureLine, ...]
