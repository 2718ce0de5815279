"""What a kind of webhook is: how one owed call is made at a receiver, through the guard, and how its answer is read."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import httpcore2
import httpx2
from pydantic import BaseModel, ConfigDict

from service.outbound import Guard, Refused

SECONDS = 15.0
"""How long one exchange may take, from the first look-up of the name to the last byte."""
ANSWER_BYTES = 64 * 1024


class Options(BaseModel):
    """What a kind can be told beside the address; nothing, unless it says more."""

    model_config = ConfigDict(extra="forbid")


class Credentials(BaseModel):
    """What a kind needs to be let in; encrypted at rest and never shown. Nothing, unless it says more."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Owed:
    """One attempt at a call: what is to be told, where, and with which secrets."""

    uid: str
    """The same at every attempt, so that a receiver knows a repeat."""
    event: str
    body: str
    url: str
    now: datetime
    secrets: tuple[str, ...] = ()
    """Signing secrets, the newest first."""
    credentials: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """The body as it was written: type, timestamp, version, sequence, data."""
        return dict(json.loads(self.body))

    @property
    def data(self) -> dict[str, Any]:
        """What the event is about."""
        return dict(self.document["data"])

    @property
    def sentence(self) -> str:
        """What happened, in one line for people."""
        data = self.data
        return str(data.get("sentence") or data.get("reason") or data.get("message") or self.event)

    @property
    def link(self) -> str | None:
        """The page that says more."""
        links = self.data.get("links") or {}
        return links.get("retraining") or links.get("alert") or links.get("model")

    @property
    def subject(self) -> str:
        """The id of what it is about: the same for everything that is told of one alert or one retraining."""
        data = self.data
        return str(data.get("retraining") or data.get("alert") or self.uid)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt: a status, or the error in words."""

    status: int | None = None
    error: str = ""
    text: str = ""
    retry_after: float | None = None

    @property
    def arrived(self) -> bool:
        """Only a 2xx says so; a redirect does not."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, kw_only=True)
class Post:
    """A request of JSON as a receiver wants it."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class WebhookKind(ABC):
    """A way to tell a receiver of an event.

    A kind of ours is one file of this package; a plug-in names its class as an entry point of ``plumbline.webhooks``.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    """Whose interface it speaks, in which version."""
    options: ClassVar[type[Options]] = Options
    credentials: ClassVar[type[Credentials]] = Credentials
    secret_url: ClassVar[bool] = False
    """Whether whoever knows the address is let in: then it is kept and shown like a credential."""
    signed: ClassVar[bool] = False
    """Whether calls carry a signature, so that the secret is of use to whoever makes the webhook."""
    in_order: ClassVar[bool] = False
    """Whether the calls about one alert must come in the order in which they were owed."""
    example: ClassVar[Mapping[str, Any]]
    """What is posted to make one, without a name."""

    def check(self, guard: Guard, url: str, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - for kinds that look
        """Refuse an address that may not be called, or that is not one of this kind."""
        guard.check(url)

    @abstractmethod
    def deliver(self, owed: Owed, guard: Guard) -> Answer:
        """Make the call, through the guard alone, within `SECONDS`."""


class PostingKind(WebhookKind):
    """A kind whose calls are single POSTs of JSON."""

    @abstractmethod
    def request(self, owed: Owed) -> Post:
        """Return what is sent."""

    def judged(self, answer: Answer) -> Answer:
        """Return the answer as this receiver means it."""
        return answer

    def deliver(self, owed: Owed, guard: Guard) -> Answer:
        """Send the request and read at most 64 kB of what comes back."""
        return self.judged(posted(self.request(owed), guard, owed.now))


def posted(post: Post, guard: Guard, now: datetime) -> Answer:
    """Send one request through the guard; whatever goes wrong is an answer in words."""
    headers = {"content-type": "application/json", "user-agent": "plumbline", **post.headers}
    try:
        with (
            guard.client(SECONDS) as client,
            client.stream("POST", post.url, content=post.body, headers=headers) as response,
        ):
            read = b""
            for part in response.iter_raw():
                read += part
                if len(read) >= ANSWER_BYTES:
                    break
            return Answer(
                status=response.status_code,
                text=read[:800].decode("utf-8", "replace")[:200],
                retry_after=_seconds(response.headers.get("retry-after"), now),
            )
    except Refused as error:
        return Answer(error=f"address_not_allowed: {error}")
    except (httpcore2.TimeoutException, httpx2.TimeoutException):
        return Answer(error=f"no complete answer within {SECONDS:g} seconds")
    except (
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.ProxyError,
        httpcore2.UnsupportedProtocol,
        httpx2.HTTPError,
        httpx2.InvalidURL,
        OSError,
    ) as error:
        return Answer(error=f"{type(error).__name__}: {error}"[:300])


def encoded(document: object) -> bytes:
    """Return a document as compact JSON."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _seconds(header: str | None, now: datetime) -> float | None:
    """Read Retry-After: seconds or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(int(header)))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds())
