"""Webhooks: calls are owed in the transaction of their cause, then attempted until they are answered or given up."""

import base64
import json
import secrets
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import structlog
from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from service import notices
from service.access import link_token
from service.clock import Clock
from service.database import Database
from service.outbound import Guard
from service.settings import Settings
from service.tables import DeliveryRow, ModelRow, WebhookRow
from service.vault import Vault
from service.webhook_kinds import discovery
from service.webhook_kinds.contract import Answer, Owed
from service.words import derived_id, format_time

log = structlog.get_logger(__name__)

EVENTS: Mapping[str, str] = {
    "alert.opened": "An episode began: something of a model version is not as it was.",
    "alert.updated": "More joined an open episode, or it is still open after seven days.",
    "alert.acknowledged": "Somebody has said that an open episode was seen.",
    "alert.resolved": "All that joined an episode have been quiet again, or it was closed.",
    "monitor.blind": "A monitor was due and could not measure for three windows.",
    "monitor.failing": "A monitor failed twice in a row.",
    "retraining.requested": "A retraining is asked for: where its rows are, and where to report.",
    "retraining.awaiting_approval": "A retraining would be asked for, and waits for somebody to approve it.",
    "retraining.finished": "A retraining succeeded, failed, expired, was rejected or cancelled.",
    "service.notice": "Something about the installation needs a person, such as a damaged file.",
    "webhook.test": "Asked for by hand, to see that calls arrive.",
}
SEVERITIES = ("info", "warning", "critical")
DELAYS = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
"""Seconds before each attempt, counted from the one before: 75.6 hours in all."""
CLAIM = timedelta(seconds=60)
ASKED = "retraining.requested"
TRAINING_DATA, CALLBACK = "training-data", "callback"
LINKS: Mapping[str, tuple[str, timedelta]] = {
    "training_data_url": (TRAINING_DATA, timedelta(days=7)),
    "callback_url": (CALLBACK, timedelta(days=90)),
}
"""Links of a request for retraining that let in: their purpose, and how long after the attempt that delivers them."""
AT_ONCE = 32
"""Calls of one process at a time, each to another webhook."""
URL = "url"
"""Where an address that lets in whoever knows it is kept: among the credentials."""
BODY_BYTES = 20_000
ROTATION = timedelta(hours=24)


def new_secret() -> str:
    """Return a fresh signing secret of 32 random bytes, in the form of Standard Webhooks."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def masked(url: str) -> str:
    """Return an address without what may be a secret: no user, no query, and only where the path begins."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, host + port, "/…" if parts.path.strip("/") else "", "", ""))


def body_of(event: str, at: datetime, sequence: int, data: Mapping[str, Any]) -> str:
    """Return the text of a call, below 20 kB: the least of its results go first where it would be longer."""
    shown = dict(data)
    while True:
        document = {"type": event, "timestamp": format_time(at), "version": 1, "sequence": sequence, "data": shown}
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        results = shown.get("results")
        if len(text.encode()) < BODY_BYTES or not results:
            return text
        shown = shown | {"results": results[:-1]}


def owe(
    session: Session,
    event: str,
    subject: str,
    data: Mapping[str, Any],
    *,
    now: datetime,
    sequence: int = 1,
    severity: str = "warning",
    model: ModelRow | None = None,
    alert_id: int | None = None,
    retraining_id: int | None = None,
    only: Sequence[str] | None = None,
) -> list[DeliveryRow]:
    """Write the calls that an event causes, in the caller's transaction; one that is written already stays.

    ``subject`` is the id of what the event is about: a delivery's id is derived from webhook, subject, event and
    sequence, so that a repeat carries the id that its receiver has seen. ``only`` names the webhooks that may be
    called at all.
    """
    owed: list[DeliveryRow] = []
    for webhook in session.scalars(select(WebhookRow).where(WebhookRow.disabled_at.is_(None)).order_by(WebhookRow.id)):
        if not _wants(webhook, event, severity, model, only):
            continue
        uid = derived_id("delivery", webhook.uid, subject, event, sequence)
        if session.scalar(select(DeliveryRow.id).where(DeliveryRow.uid == uid, DeliveryRow.webhook_id == webhook.id)):
            continue
        owed.append(
            DeliveryRow(
                uid=uid,
                webhook_id=webhook.id,
                model_id=model.id if model else None,
                alert_id=alert_id,
                retraining_id=retraining_id,
                event=event,
                body=body_of(event, now, sequence, data),
                state="pending",
                attempts=0,
                next_at=now,
                log=[],
                created_at=now,
            )
        )
    session.add_all(owed)
    session.flush()
    return owed


def _wants(webhook: WebhookRow, event: str, severity: str, model: ModelRow | None, only: Sequence[str] | None) -> bool:
    if only is not None and webhook.name not in only:
        return False
    if event not in webhook.events and "*" not in webhook.events and event != "webhook.test":
        return False
    if model is not None and webhook.models is not None and model.name not in webhook.models:
        return False
    return SEVERITIES.index(severity) >= SEVERITIES.index(webhook.min_severity)


@dataclass(frozen=True, slots=True)
class _Call:
    """A delivery that this process has claimed: the attempt's number fences what is written about it."""

    delivery_id: int
    webhook_id: int
    uid: str
    attempt: int
    event: str
    kind: str
    url: str
    body: str
    secrets: tuple[bytes, ...]
    credentials: bytes | None
    options: Mapping[str, Any]


class Sender:
    """Makes the calls that are owed: one at a time for a webhook, several webhooks at once."""

    def __init__(
        self, database: Database, clock: Clock, settings: Settings, secret: bytes, guard: Guard | None = None
    ) -> None:
        self.guard = guard or Guard(settings)
        self.vault = Vault(secret)
        self._secret = secret
        self._database = database
        self._clock = clock
        self._busy: set[int] = set()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def send_due(self, *, wait: bool = True) -> int:
        """Attempt what is due, one call per webhook, and return how many.

        Without `wait` the calls go on by themselves, each webhook's until nothing of it is due.
        """
        with self._database.reading() as session:
            if session.scalar(select(DeliveryRow.id).where(DeliveryRow.state == "pending").limit(1)) is None:
                return 0
        calls = self._claim()
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="webhooks")
            running = [self._pool.submit(self._attempt if wait else self._drain, call) for call in calls]
        if wait:
            for future in running:
                future.result()
        return len(running)

    def send_all_due(self) -> int:
        """Attempt until nothing is due, and return how many attempts that took."""
        total = 0
        while sent := self.send_due():
            total += sent
        return total

    def send(self, delivery_id: int) -> None:
        """Attempt one delivery now, whether or not it is due."""
        for call in self._claim(delivery_id):
            self._attempt(call)

    def close(self) -> None:
        """Wait for the calls that are being made."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        self._busy.clear()

    def _claim(self, delivery_id: int | None = None, webhook_id: int | None = None) -> list[_Call]:
        """Push ``next_at`` of due deliveries past the time limit: nobody else takes them, and a crash frees them.

        At most one of each webhook is taken, and no more than there is room to attempt at once, so that no call waits
        for another webhook's.
        """
        now = self._clock.now()
        with self._lock:
            busy = set(self._busy)
        if delivery_id is not None:
            wanted = select(DeliveryRow.id).where(DeliveryRow.id == delivery_id, DeliveryRow.state == "pending")
        else:
            wanted = _earliest(now, busy, webhook_id)
        due = (
            select(DeliveryRow, WebhookRow)
            .join(WebhookRow, WebhookRow.id == DeliveryRow.webhook_id)
            .where(WebhookRow.disabled_at.is_(None), DeliveryRow.state == "pending")
            .order_by(DeliveryRow.next_at, DeliveryRow.id)
            .limit(max(1, AT_ONCE - len(busy)))
        )
        with self._database.reading() as session:
            ids = session.scalars(wanted.limit(AT_ONCE)).all()
            if not ids or notices.held(session):
                return []
        due = due.where(DeliveryRow.id.in_(ids))
        if delivery_id is None:
            due = due.where(_is_due(now))
        calls: list[_Call] = []
        with self._database.writing() as session:
            for delivery, webhook in session.execute(due.with_for_update(skip_locked=True, of=DeliveryRow)):
                if webhook.id in busy:
                    continue
                busy.add(webhook.id)
                delivery.attempts += 1
                delivery.next_at = now + CLAIM
                keys = [webhook.secret]
                if webhook.previous_secret and webhook.previous_until and webhook.previous_until > now:
                    keys.append(webhook.previous_secret)
                calls.append(
                    _Call(
                        delivery_id=delivery.id,
                        webhook_id=webhook.id,
                        uid=delivery.uid,
                        attempt=delivery.attempts,
                        event=delivery.event,
                        kind=webhook.kind,
                        url=webhook.url,
                        body=delivery.body,
                        secrets=tuple(keys),
                        credentials=webhook.credentials,
                        options=webhook.options,
                    )
                )
        with self._lock:
            self._busy.update(call.webhook_id for call in calls)
        return calls

    def _drain(self, call: _Call) -> None:
        """Attempt a call, then what else is due of its webhook."""
        following = [call]
        while following:
            self._attempt(following[0])
            with self._lock:
                if self._pool is None:
                    return  # it is being closed
            following = self._claim(webhook_id=call.webhook_id)

    def _attempt(self, call: _Call) -> None:
        try:
            began = self._clock.monotonic()
            answer = self._deliver(call)
            self._record(call, answer, round((self._clock.monotonic() - began) * 1000))
        finally:
            with self._lock:
                self._busy.discard(call.webhook_id)

    def _deliver(self, call: _Call) -> Answer:
        kind = discovery.kinds().get(call.kind)
        if kind is None:
            return Answer(error=f"no installed package has the kind of webhook {call.kind!r}")
        credentials = json.loads(self.vault.unlock(call.credentials)) if call.credentials else {}
        owed = Owed(
            uid=call.uid,
            event=call.event,
            body=self._let_in(call) if call.event == ASKED else call.body,
            url=credentials.pop(URL, call.url),
            now=self._clock.now(),
            secrets=tuple(self.vault.unlock(secret) for secret in call.secrets),
            credentials=credentials,
            options=call.options,
        )
        try:
            return _masked(kind.deliver(owed, self.guard), owed.url)
        except Exception as error:  # whatever a plug-in raises, the attempt is recorded as failed
            log.exception("webhook failed", kind=call.kind)
            return _masked(Answer(error=f"{type(error).__name__}: {error}"[:300]), owed.url)

    def _let_in(self, call: _Call) -> str:
        """Give the links of a request for retraining their tokens, which are kept nowhere."""
        document, now = json.loads(call.body), self._clock.now()
        data = document["data"]
        for member, (purpose, age) in LINKS.items():
            token = link_token(self._secret, purpose, data["retraining"], now + age)
            data[member] = f"{data[member]}?token={token}"
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    def _record(self, call: _Call, answer: Answer, milliseconds: int) -> None:
        """Write what became of the attempt, unless another one has begun since."""
        now = self._clock.now()
        with self._database.writing() as session:
            delivery = session.get(DeliveryRow, call.delivery_id)
            if delivery is None or delivery.state != "pending" or delivery.attempts != call.attempt:
                return
            line: dict[str, Any] = {"at": format_time(now), "attempt": call.attempt, "milliseconds": milliseconds}
            line |= {"status": answer.status, "answer": answer.text} if answer.status else {"error": answer.error}
            delivery.log = [*delivery.log, line]
            if answer.arrived:
                delivery.state, delivery.delivered_at = "delivered", now
            elif answer.status == 410:
                delivery.state = "failed"
                session.execute(
                    update(WebhookRow)
                    .where(WebhookRow.id == call.webhook_id)
                    .values(disabled_at=now, disabled_reason="The receiver answered 410 Gone.")
                )
            elif call.attempt >= len(DELAYS):
                delivery.state = "failed"
            else:
                share = int(derived_id(call.uid, call.attempt)[:8], 16) / 2**32
                delay = max(DELAYS[call.attempt] * (0.9 + 0.1 * share), min(answer.retry_after or 0.0, 86400.0))
                delivery.next_at = now + timedelta(seconds=delay)


def _masked(answer: Answer, url: str) -> Answer:
    """Return an answer that does not tell where the call went: an address may let in whoever knows it."""
    return replace(answer, error=answer.error.replace(url, masked(url)), text=answer.text.replace(url, masked(url)))


def _is_due(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a call's time has come; a first attempt's always has, even if the clock fell back."""
    return or_(DeliveryRow.next_at <= now, DeliveryRow.attempts == 0)


def _earliest(now: datetime, busy: Collection[int], webhook_id: int | None) -> Select[int]:
    """Return the statement of what is due first of each webhook that nobody here calls at the moment.

    Where a kind wants its calls in order, one about an alert waits for the calls about it that were owed before.
    """
    in_order = [name for name, kind in discovery.kinds().items() if kind.in_order]
    before = aliased(DeliveryRow)
    waits = (
        select(before.id)
        .where(
            before.webhook_id == DeliveryRow.webhook_id,
            before.alert_id == DeliveryRow.alert_id,
            before.id < DeliveryRow.id,
            before.state == "pending",
        )
        .correlate(DeliveryRow)
        .exists()
    )
    place = func.row_number().over(partition_by=DeliveryRow.webhook_id, order_by=(DeliveryRow.next_at, DeliveryRow.id))
    due = (
        select(DeliveryRow.id, DeliveryRow.next_at, place.label("place"))
        .join(WebhookRow, WebhookRow.id == DeliveryRow.webhook_id)
        .where(
            DeliveryRow.state == "pending",
            _is_due(now),
            WebhookRow.disabled_at.is_(None),
            WebhookRow.id.not_in(busy),
            or_(WebhookRow.kind.not_in(in_order), ~waits),
        )
    )
    if webhook_id is not None:
        due = due.where(WebhookRow.id == webhook_id)
    ranked = due.subquery()
    return select(ranked.c.id).where(ranked.c.place == 1).order_by(ranked.c.next_at, ranked.c.id)
