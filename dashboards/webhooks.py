"""The webhooks page: who is told of what, and what did not arrive."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.alerts import DeliveryLine
from dashboards.page import Empty, Page
from dashboards.standing import Standing


@dataclass(frozen=True, kw_only=True)
class WebhookLine:
    """A webhook and how its calls went."""

    name: str
    kind: str
    url: str
    events: tuple[str, ...]
    models: tuple[str, ...] | None
    disabled_reason: str | None
    pending: int
    delivered: int
    failed: int
    last_delivered: datetime | None

    @property
    def standing(self) -> Standing:
        """Switched off is failed, with dead letters partial, else well."""
        if self.disabled_reason is not None:
            return Standing.FAILED
        return Standing.PARTIAL if self.failed else Standing.OK

    @property
    def words(self) -> str:
        """How it stands, in a word or two."""
        if self.disabled_reason is not None:
            return "Switched off"
        return "Calls given up" if self.failed else "On"


@dataclass(frozen=True, kw_only=True)
class WebhooksPage(Page):
    """Every webhook, and the calls that were given up, newest first."""

    template: ClassVar[str] = "webhooks.html"
    webhooks: tuple[WebhookLine, ...]
    dead: tuple[DeliveryLine, ...]
    may_operate: bool
    empty: Empty | None = None
