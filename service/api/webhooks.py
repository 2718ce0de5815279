"""Webhooks and their deliveries over HTTP: where events go, and what became of each call."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import webhooks
from service.access import Principal
from service.api.bodies import Body, Name, Short
from service.api.depends import (
    Configurer,
    Operator,
    Page,
    Parts,
    Reader,
    audit,
    check_match,
    check_state,
    etag,
    listed,
    model_named,
    page_of,
)
from service.api.problems import faults_of, refused
from service.outbound import Guard
from service.problems import Conflict, Fault, NotFound
from service.tables import AlertRow, DeliveryRow, ModelRow, WebhookRow
from service.vault import Vault
from service.webhook_kinds import discovery
from service.webhook_kinds.contract import Credentials, WebhookKind
from service.webhooks import EVENTS, URL, masked
from service.words import NAME, format_time, new_id

router = APIRouter(prefix="/v1", tags=["webhooks"])

STATES = ("pending", "delivered", "failed")
Given_ = TypeVar("Given_", bound=BaseModel)
Severity = Literal["info", "warning", "critical"]
Url = Annotated[str, Field(min_length=1, max_length=2048)]
Given = Annotated[dict[Short, Any], Field(max_length=50)]
"""Options or credentials; their kind says which."""


class WebhookPatch(Body):
    """What of a webhook can be changed."""

    url: Url | None = None
    options: Given | None = None
    credentials: Given | None = None
    events: Annotated[list[Short], Field(min_length=1, max_length=50)] | None = None
    models: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = None
    min_severity: Severity | None = None
    enabled: bool | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"events": ["alert.opened", "alert.resolved"]}]})


class WebhookBody(Body):
    """A webhook as it is declared."""

    name: Name
    url: Url
    events: Annotated[list[Short], Field(min_length=1, max_length=50)]
    kind: Short = "generic"
    options: Given = Field(default_factory=dict)
    credentials: Given = Field(default_factory=dict)
    models: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = None
    min_severity: Severity = "info"

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "on-call", "url": "https://hooks.example.com/plumbline", "events": ["alert.opened"]},
            ]
        }
    )


def document_of(row: WebhookRow) -> dict[str, Any]:
    """Return a webhook as the interface shows it: never its secret, and of its credentials that they are there."""
    return {
        "id": row.uid,
        "name": row.name,
        "kind": row.kind,
        "url": row.url,
        "options": row.options,
        "credentials": row.credentials is not None,
        "events": row.events,
        "models": row.models,
        "min_severity": row.min_severity,
        "enabled": row.disabled_at is None,
        "disabled_at": None if row.disabled_at is None else format_time(row.disabled_at),
        "disabled_reason": row.disabled_reason,
        "created_at": format_time(row.created_at),
        "revision": row.revision,
    }


def delivery_document(session: Session, row: DeliveryRow) -> dict[str, Any]:
    """Return a call that is owed, and every attempt at it."""
    webhook = session.get(WebhookRow, row.webhook_id)
    model = None if row.model_id is None else session.get(ModelRow, row.model_id)
    alert = None if row.alert_id is None else session.get(AlertRow, row.alert_id)
    return {
        "id": row.uid,
        "webhook": None if webhook is None else webhook.name,
        "model": None if model is None else model.name,
        "alert": None if alert is None else alert.uid,
        "event": row.event,
        "state": row.state,
        "attempts": row.attempts,
        "next_at": format_time(row.next_at) if row.state == "pending" else None,
        "created_at": format_time(row.created_at),
        "delivered_at": None if row.delivered_at is None else format_time(row.delivered_at),
        "log": row.log,
    }


def webhook_named(session: Session, principal: Principal, name: str) -> WebhookRow:
    """Return a webhook; a key that is bound to models sees those that are bound to no others."""
    row = session.scalar(select(WebhookRow).where(WebhookRow.name == name)) if NAME.match(name) else None
    if row is None or not sees(principal, row):
        raise NotFound(f"there is no webhook {name[:128]!r}")
    return row


def sees(principal: Principal, row: WebhookRow) -> bool:
    """Return whether a webhook exists for a principal: with a key bound to models, one of those models alone."""
    return principal.models is None or (row.models is not None and all(map(principal.sees, row.models)))


def _check(session: Session, principal: Principal, events: Sequence[str], models: list[str] | None) -> None:
    faults = [
        Fault(f"/events/{place}", "unknown_event", f"{name!r} is not an event; one of *, {', '.join(EVENTS)}")
        for place, name in enumerate(events)
        if name != "*" and name not in EVENTS
    ]
    known = set(session.scalars(select(ModelRow.name).where(ModelRow.name.in_(models or []))))
    faults += [
        Fault(f"/models/{place}", "unknown_model", f"there is no model {name!r}")
        for place, name in enumerate(models or [])
        if name not in known or not principal.sees(name)
    ]
    if models is None and principal.models is not None:
        faults.append(Fault("/models", "models_needed", "a key bound to models makes webhooks of those models"))
    if faults:
        raise refused(faults)


def _kind(name: str) -> WebhookKind:
    found = discovery.kinds().get(name)
    if found is None:
        detail = f"{name!r} is not a kind of webhook; one of {', '.join(discovery.kinds())}"
        raise refused([Fault("/kind", "unknown_kind", detail)])
    return found


def _tell(
    row: WebhookRow,
    vault: Vault,
    guard: Guard,
    *,
    url: str | None,
    options: dict[str, Any] | None,
    credentials: dict[str, Any] | None,
) -> None:
    """Put address, options and credentials into a webhook after its kind has looked at them; none: as they were."""
    kind = _kind(row.kind)
    if options is not None:
        row.options = _as(kind.options, options, "/options").model_dump(exclude_unset=True)
    held: dict[str, Any] = json.loads(vault.unlock(row.credentials)) if row.credentials else {}
    secret_url = held.pop(URL, None)
    if credentials is not None:
        held = _revealed(_as(kind.credentials, credentials, "/credentials"))
    if url is not None:
        kind.check(guard, url, row.options)
        row.url = masked(url) if kind.secret_url else url
        secret_url = url if kind.secret_url else None
    if secret_url is not None:
        held[URL] = secret_url
    row.credentials = vault.lock(json.dumps(held)) if held else None


def _as(what: type[Given_], given: dict[str, Any], pointer: str) -> Given_:
    try:
        return what.model_validate(given)
    except ValidationError as error:
        raise refused(faults_of(error.errors(include_input=False), pointer)) from None


def _revealed(credentials: Credentials) -> dict[str, Any]:
    """Return credentials as they are sent, without what was not given."""
    values = {name: getattr(credentials, name) for name in type(credentials).model_fields}
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in values.items()
        if value is not None
    }


@router.post("/webhooks", status_code=201, operation_id="webhooks_create", summary="Make a webhook")
def create(body: WebhookBody, response: Response, parts: Parts, principal: Configurer) -> dict[str, Any]:
    """Make a webhook; the answer holds the signing secret, where its kind signs, which is not shown again."""
    secret = webhooks.new_secret()
    kind = _kind(body.kind)
    try:
        with parts.database.writing() as session:
            _check(session, principal, body.events, body.models)
            if session.scalar(select(WebhookRow.id).where(WebhookRow.name == body.name)) is not None:
                raise Conflict(f"there is a webhook {body.name!r} already")
            row = WebhookRow(
                uid=new_id(),
                name=body.name,
                kind=body.kind,
                url="",
                events=body.events,
                models=body.models,
                min_severity=body.min_severity,
                secret=parts.sender.vault.lock(secret),
                created_at=parts.clock.now(),
            )
            _tell(
                row,
                parts.sender.vault,
                parts.sender.guard,
                url=body.url,
                options=body.options,
                credentials=body.credentials,
            )
            session.add(row)
            session.flush()
            audit(session, parts, principal, "webhook.create", f"webhooks/{row.name}")
            answer = document_of(row) | ({"secret": secret} if kind.signed else {})
    except IntegrityError as error:
        raise Conflict(f"there is a webhook {body.name!r} already") from error
    response.headers["Location"] = f"/v1/webhooks/{body.name}"
    response.headers["ETag"] = etag(1)
    return answer


@router.get("/webhooks", operation_id="webhooks_list", summary="List webhooks")
def index(parts: Parts, principal: Reader, page: Page) -> dict[str, object]:
    """List webhooks, oldest first."""
    with parts.database.reading() as session:
        rows, cursor = page_of(session, select(WebhookRow), [WebhookRow.id], page)
        return listed([document_of(row) for row in rows if sees(principal, row)], cursor)


@router.get("/webhooks/{webhook}", operation_id="webhooks_read", summary="Read a webhook")
def read(webhook: str, response: Response, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return a webhook, without its secret."""
    with parts.database.reading() as session:
        row = webhook_named(session, principal, webhook)
        response.headers["ETag"] = etag(row.revision)
        return document_of(row)


@router.patch("/webhooks/{webhook}", operation_id="webhooks_update", summary="Change a webhook")
def update(
    webhook: str, body: WebhookPatch, request: Request, response: Response, parts: Parts, principal: Configurer
) -> dict[str, Any]:
    """Change what the body names; ``enabled`` switches one on again that its receiver had switched off."""
    changed = body.model_dump(exclude_unset=True)
    with parts.database.writing() as session:
        row = webhook_named(session, principal, webhook)
        check_match(request, row.revision)
        models = changed.get("models", row.models)
        _check(session, principal, changed.get("events") or [], models)
        given = {name: changed.get(name) for name in ("url", "options", "credentials")}
        if any(value is not None for value in given.values()):
            _tell(row, parts.sender.vault, parts.sender.guard, **given)
        for name in ("events", "min_severity"):
            if changed.get(name) is not None:
                setattr(row, name, changed[name])
        if "models" in changed:
            row.models = changed["models"]
        if changed.get("enabled") is True:
            row.disabled_at, row.disabled_reason = None, None
        elif changed.get("enabled") is False and row.disabled_at is None:
            row.disabled_at, row.disabled_reason = parts.clock.now(), "It was switched off."
        row.revision += 1
        audit(session, parts, principal, "webhook.update", f"webhooks/{row.name}", after=sorted(changed))
        session.flush()
        response.headers["ETag"] = etag(row.revision)
        return document_of(row)


@router.delete("/webhooks/{webhook}", status_code=204, operation_id="webhooks_delete", summary="Delete a webhook")
def delete(webhook: str, request: Request, parts: Parts, principal: Configurer) -> None:
    """Delete a webhook with its deliveries; what it is still owed is not delivered."""
    with parts.database.writing() as session:
        row = webhook_named(session, principal, webhook)
        check_match(request, row.revision)
        session.delete(row)
        audit(session, parts, principal, "webhook.delete", f"webhooks/{row.name}")


@router.post("/webhooks/{webhook}/test", operation_id="webhooks_test", summary="Send a test event")
def test(webhook: str, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Send one event now and answer what became of it; a failed test is attempted again like any other call."""
    with parts.database.writing() as session:
        row = webhook_named(session, principal, webhook)
        if row.disabled_at is not None:
            raise Conflict(f"webhook {row.name!r} is switched off: {row.disabled_reason}")
        data = {"message": f"A test of the webhook {row.name}.", "asked_by": principal.name}
        owed = webhooks.owe(
            session, "webhook.test", new_id(), data, now=parts.clock.now(), severity="critical", only=[row.name]
        )
        delivery_id = owed[0].id
        audit(session, parts, principal, "webhook.test", f"webhooks/{row.name}")
    parts.sender.send(delivery_id)
    with parts.database.reading() as session:
        return delivery_document(session, session.get_one(DeliveryRow, delivery_id))


@router.post("/webhooks/{webhook}/rotate", operation_id="webhooks_rotate", summary="Change the signing secret")
def rotate(webhook: str, parts: Parts, principal: Configurer) -> dict[str, Any]:
    """Make a new signing secret, shown once; calls are signed with the old one too for another day."""
    secret = webhooks.new_secret()
    with parts.database.writing() as session:
        row = webhook_named(session, principal, webhook)
        if not _kind(row.kind).signed:
            raise Conflict(f"calls of the kind {row.kind} are not signed; change its credentials with PATCH instead")
        row.previous_secret, row.previous_until = row.secret, parts.clock.now() + webhooks.ROTATION
        row.secret = parts.sender.vault.lock(secret)
        row.revision += 1
        audit(session, parts, principal, "webhook.rotate", f"webhooks/{row.name}")
        session.flush()
        return document_of(row) | {"secret": secret, "previous_valid_until": format_time(row.previous_until)}


@router.get("/webhooks/{webhook}/deliveries", operation_id="webhook_deliveries", summary="List a webhook's calls")
def of_webhook(
    webhook: str,
    parts: Parts,
    principal: Reader,
    page: Page,
    state: Annotated[str | None, Query(description="pending, delivered or failed.")] = None,
) -> dict[str, object]:
    """List the calls of a webhook, newest first."""
    with parts.database.reading() as session:
        row = webhook_named(session, principal, webhook)
        check_state(state, STATES)
        statement = select(DeliveryRow).where(DeliveryRow.webhook_id == row.id)
        if state is not None:
            statement = statement.where(DeliveryRow.state == state)
        rows, cursor = page_of(session, statement, [DeliveryRow.id], page, descending=True)
        return listed([delivery_document(session, row) for row in rows], cursor)


@router.get("/deliveries", operation_id="deliveries_list", summary="List calls")
def deliveries(
    parts: Parts,
    principal: Reader,
    page: Page,
    model: Annotated[str | None, Query(description="Only calls about this model.")] = None,
    alert: Annotated[str | None, Query(description="Only calls about this alert.")] = None,
    state: Annotated[str | None, Query(description="pending, delivered or failed.")] = None,
) -> dict[str, object]:
    """List calls to all webhooks, newest first."""
    check_state(state, STATES)
    with parts.database.reading() as session:
        statement = select(DeliveryRow)
        if model is not None:
            statement = statement.where(DeliveryRow.model_id == model_named(session, principal, model).id)
        if principal.models is not None:
            seen = select(ModelRow.id).where(ModelRow.name.in_(sorted(principal.models)))
            statement = statement.where(DeliveryRow.model_id.in_(seen))
        if alert is not None:
            statement = statement.where(DeliveryRow.alert_id.in_(select(AlertRow.id).where(AlertRow.uid == alert[:64])))
        if state is not None:
            statement = statement.where(DeliveryRow.state == state)
        rows, cursor = page_of(session, statement, [DeliveryRow.id], page, descending=True)
        return listed([delivery_document(session, row) for row in rows], cursor)


@router.post("/deliveries/{delivery}/resend", operation_id="deliveries_resend", summary="Send a call again")
def resend(delivery: str, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Put a call back to where its attempts begin; it keeps its id, by which receivers know repeats."""
    with parts.database.writing() as session:
        row = session.scalar(select(DeliveryRow).where(DeliveryRow.uid == delivery[:64]))
        model = None if row is None or row.model_id is None else session.get(ModelRow, row.model_id)
        hidden = principal.models is not None and (model is None or not principal.sees(model.name))
        if row is None or hidden:
            raise NotFound(f"there is no delivery {delivery[:64]!r}")
        row.state, row.attempts, row.next_at, row.delivered_at = "pending", 0, parts.clock.now(), None
        audit(session, parts, principal, "delivery.resend", f"deliveries/{row.uid}", model)
        session.flush()
        return delivery_document(session, row)
