"""A signed POST as Standard Webhooks has it: for receivers of one's own."""

from collections.abc import Mapping
from typing import Any, ClassVar

from standardwebhooks.webhooks import Webhook

from service.webhook_kinds.contract import Owed, Post, PostingKind


class Generic(PostingKind):
    """A signed POST as Standard Webhooks 1.0 has it: ``webhook-id``, ``webhook-timestamp``, ``webhook-signature``."""

    name: ClassVar[str] = "generic"
    source: ClassVar[str] = "Standard Webhooks 1.0.0"
    signed: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "url": "https://hooks.example.com/plumbline",
        "events": ["alert.opened"],
    }

    def request(self, owed: Owed) -> Post:
        """Return the body as it was written, signed with each secret that counts."""
        signatures = [Webhook(secret).sign(owed.uid, owed.now, owed.body) for secret in owed.secrets]
        headers = {
            "webhook-id": owed.uid,
            "webhook-timestamp": str(int(owed.now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
        return Post(url=owed.url, body=owed.body.encode(), headers=headers)
