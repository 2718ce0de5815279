"""What kinds of webhooks there are: found in this package and in installed plug-ins, listed nowhere."""

from functools import cache

from catalogue import discovery
from catalogue.discovery import Refused, named
from monitors.contract import CONTRACT_VERSION
from service import webhook_kinds
from service.webhook_kinds.contract import WebhookKind

WEBHOOKS = "plumbline.webhooks"


@cache
def kinds() -> dict[str, WebhookKind]:
    """Return every kind of webhook, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _kinds().items()}


def by(name: str) -> str:
    """Return the distribution and version that a kind comes from, "" where it is one of ours."""
    return _kinds()[name][1] if name in _kinds() else ""


def refused() -> tuple[Refused, ...]:
    """Return the plug-ins that are not used, with the reasons; the service works without them."""
    _kinds()
    return discovery.refused(WEBHOOKS)


def forget() -> None:
    """Look again at the next call: entry points have changed."""
    for cached in (kinds, _kinds):
        cached.cache_clear()
    discovery.forget(WEBHOOKS)


@cache
def _kinds() -> dict[str, tuple[type[WebhookKind], str]]:
    return named(WebhookKind, webhook_kinds, WEBHOOKS, CONTRACT_VERSION)  # type: ignore[type-abstract]
