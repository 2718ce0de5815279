"""E-mail and chat through apprise: only schemas that are on a short list, and hosts that the guard lets pass."""

from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, ClassVar
from urllib.parse import urlsplit

from service.outbound import AddressNotAllowed, Guard
from service.problems import Fault, Unprocessable
from service.webhook_kinds.contract import Answer, Owed, WebhookKind

SCHEMAS = ("discord", "gchat", "mailto", "mailtos", "mmosts", "pover", "tgram", "workflows")
"""What may be used of apprise: mail, and chats whose host is fixed or can be read from the address."""
MAIL_PORT, WEB_PORT = 587, 443


class Notification(WebhookKind):
    """A line for people by e-mail or chat, through apprise.

    Apprise makes its connections itself, to addresses that the guard has looked up and checked for it. Its schemas are
    restricted to those listed, and redirects are off. ``mailto`` and ``mailtos`` name the mail server in the address.
    """

    name: ClassVar[str] = "notify"
    source: ClassVar[str] = f"apprise URLs: {', '.join(SCHEMAS)}"
    secret_url: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "url": "mailtos://plumbline:password@smtp.example.com?to=on-call@example.com&from=plumbline@example.com",
        "events": ["alert.opened", "alert.resolved"],
    }

    def check(self, guard: Guard, url: str, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - there are none
        """Refuse a schema that is not listed, a host inside, and all of it where apprise is not installed."""
        schema = url.partition("://")[0].lower()
        if schema not in SCHEMAS:
            raise AddressNotAllowed(f"{schema!r} is not sent; use one of {', '.join(SCHEMAS)}")
        if find_spec("apprise") is None:
            detail = "the kind notify needs apprise: install plumbline-server[notify]"
            raise Unprocessable(detail, faults=[Fault("/kind", "not_installed", detail)])
        if guard.proxied:
            raise AddressNotAllowed("apprise does not use PLUMBLINE_OUTBOUND_PROXY, so that nothing is sent by it")
        with suppress(OSError):
            guard.addresses(*_host(_plugin(url)))

    def deliver(self, owed: Owed, guard: Guard) -> Answer:
        """Check where it goes, then let apprise send it."""
        from apprise import NotifyType

        try:
            self.check(guard, owed.url, owed.options)
            plugin = _plugin(owed.url)
            guard.addresses(*_host(plugin))
        except AddressNotAllowed as refusal:
            return Answer(error=f"address_not_allowed: {refusal.detail}")
        except OSError as error:
            return Answer(error=f"the host has no address: {error}")
        severity = owed.data.get("severity")
        kinds = {"critical": NotifyType.FAILURE, "warning": NotifyType.WARNING}
        body = owed.sentence + (f"\n{owed.link}" if owed.link else "")
        with guard.resolving() as refused:
            sent = plugin.notify(
                body=body, title=f"Plumbline: {owed.event}", notify_type=kinds.get(str(severity), NotifyType.INFO)
            )
        if refused:
            return Answer(error=f"address_not_allowed: {refused[0]}")
        return Answer(status=200, text="apprise sent it") if sent else Answer(error="apprise could not send it")


def _plugin(url: str) -> Any:
    """Return apprise's plugin of an address, which follows no redirect; a problem where it cannot be read."""
    from apprise import Apprise, AppriseAsset

    plugin = Apprise.instantiate(url, asset=AppriseAsset(http_redirects=False, storage_mode="memory"))
    if plugin is None:
        raise AddressNotAllowed("apprise cannot read this address")
    plugin.redirects = False
    return plugin


def _host(plugin: Any) -> tuple[str, int]:
    """Return where a plugin will connect to: its mail server, the host that is fixed in it, or the address's."""
    if mail := getattr(plugin, "smtp_host", None):
        return str(mail), int(plugin.port or MAIL_PORT)
    fixed = getattr(plugin, "notify_url", None)
    named = urlsplit(fixed).hostname if isinstance(fixed, str) else plugin.host
    if not named:
        raise AddressNotAllowed("the address names no host")
    return str(named), int(plugin.port or WEB_PORT)
