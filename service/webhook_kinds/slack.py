"""Slack's incoming webhooks: a line for people in a channel."""

from collections.abc import Mapping
from typing import Any, ClassVar

from service.webhook_kinds.contract import Owed, Post, PostingKind, encoded


class Slack(PostingKind):
    """A message in a Slack channel: what happened in one sentence, and a link to the page that says more."""

    name: ClassVar[str] = "slack"
    source: ClassVar[str] = "Slack incoming webhooks"
    secret_url: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "url": "https://hooks.slack.com/services/T00/B00/XXXX",
        "events": ["alert.opened", "alert.resolved"],
    }

    def request(self, owed: Owed) -> Post:
        """Return the message; text of ours is escaped, so that a name can neither link nor call anybody."""
        severity = owed.data.get("severity")
        head = f"*{_escaped(owed.event)}*" + (f" ({_escaped(str(severity))})" if severity else "")
        text = f"{head}\n{_escaped(owed.sentence)}"
        if owed.link:
            text += f"\n<{_escaped(owed.link)}|Open in Plumbline>"
        return Post(url=owed.url, body=encoded({"text": text, "unfurl_links": False}))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
