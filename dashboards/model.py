"""What all pages of one model share: its name, its versions, its standing, what the reader has chosen."""

from dataclasses import dataclass
from datetime import datetime

from dashboards.page import Empty, Page, View
from dashboards.standing import Standing


@dataclass(frozen=True, kw_only=True)
class ModelHead:
    """The head of a model's pages."""

    name: str
    task: str
    standing: Standing
    version: str | None
    versions: tuple[str, ...]
    open_alerts: int
    baseline: str | None = None
    last_record: datetime | None = None
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelPage(Page):
    """A page of one model, in one version, over one stretch of time."""

    head: ModelHead
    view: View
    section: str
    start: datetime | None = None
    end: datetime | None = None
    empty: Empty | None = None
