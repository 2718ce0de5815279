"""PagerDuty's Events API: an alert opens one incident, and closes the same one."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from service.webhook_kinds.contract import Credentials, Owed, Post, PostingKind, encoded

ACTIONS: Mapping[str, str] = {
    "alert.acknowledged": "acknowledge",
    "alert.resolved": "resolve",
    "retraining.finished": "resolve",
}
"""Whatever is not named here triggers."""


class RoutingKey(Credentials):
    """The integration key of a service in PagerDuty."""

    routing_key: SecretStr = Field(min_length=1, max_length=100)


class PagerDuty(PostingKind):
    """An event for PagerDuty whose ``dedup_key`` is the alert's id, so that one episode is one incident."""

    name: ClassVar[str] = "pagerduty"
    source: ClassVar[str] = "PagerDuty Events API v2"
    credentials: ClassVar[type[Credentials]] = RoutingKey
    in_order: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "url": "https://events.pagerduty.com/v2/enqueue",
        "events": ["alert.opened", "alert.updated", "alert.acknowledged", "alert.resolved"],
        "credentials": {"routing_key": "0123456789abcdef0123456789abcdef"},
    }

    def request(self, owed: Owed) -> Post:
        """Return the event: trigger, acknowledge or resolve."""
        data = owed.data
        action = ACTIONS.get(owed.event, "trigger")
        if data.get("state") == "resolved":
            action = "resolve"
        body: dict[str, Any] = {
            "routing_key": owed.credentials["routing_key"],
            "event_action": action,
            "dedup_key": owed.subject[:255],
            "payload": {
                "summary": owed.sentence[:1024],
                "source": str(data.get("model") or "plumbline"),
                "severity": str(data.get("severity") or "info"),
                "class": owed.event,
                "custom_details": {name: value for name, value in data.items() if name not in ("results", "links")},
            },
        }
        if owed.link:
            body["links"] = [{"href": owed.link, "text": "Open in Plumbline"}]
        return Post(url=owed.url, body=encoded(body))
