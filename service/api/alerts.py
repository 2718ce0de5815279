"""Alerts over HTTP: listed, read with the evidence as it was, acknowledged, muted, commented, resolved."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import alerts
from service import causes as root
from service.access import Principal
from service.api.bodies import Body, Duration, Time
from service.api.calendar import document_of as calendar_document
from service.api.depends import Operator, Page, Parts, Reader, audit, check_state, listed, model_named, moment, page_of
from service.assembly import Assembly
from service.problems import NotFound, Unprocessable
from service.tables import AlertCommentRow, AlertRow, ModelRow, VersionRow
from service.webhooks import SEVERITIES
from service.words import Span, format_time, parse_duration, parse_time

router = APIRouter(prefix="/v1/alerts", tags=["alerts"])

STATES = ("open", "acknowledged", "resolved")
LONGEST_MUTE = timedelta(days=365)


class MuteBody(Body):
    """For how long, or until when, an alert is not repeated."""

    duration: Duration = "7d"
    until: Time | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"duration": "7d"}]})


class CommentBody(Body):
    """What somebody has to say about an alert."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True)]

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "The campaign began on Monday."}]})


def alert_of(
    session: Session, principal: Principal, uid: str, *, lock: bool = False
) -> tuple[AlertRow, ModelRow, VersionRow]:
    """Return an alert with its model and version; one of a model that is not seen does not exist."""
    statement = select(AlertRow).where(AlertRow.uid == uid[:32])
    row = session.scalar(statement.with_for_update() if lock else statement)
    model = None if row is None else session.get(ModelRow, row.model_id)
    if row is None or model is None or row.uid != uid or not principal.sees(model.name):
        raise NotFound(f"there is no alert {uid[:64]!r}")
    return row, model, session.get_one(VersionRow, row.version_id)


@router.get("", operation_id="alerts_list", summary="List alerts")
def index(
    parts: Parts,
    principal: Reader,
    page: Page,
    model: Annotated[str | None, Query(description="Only alerts of this model.")] = None,
    state: Annotated[str | None, Query(description="open, acknowledged or resolved.")] = None,
    since: Annotated[str | None, Query(alias="from", description="Only episodes not over before this time.")] = None,
    until: Annotated[str | None, Query(alias="to", description="Only episodes begun before this time.")] = None,
    group: Annotated[str | None, Query(pattern="^model$", description="`model`: one item for each model.")] = None,
) -> dict[str, object]:
    """List alerts, newest first; `from` and `to` speak of the time of the windows.

    With `group=model` each item is a model with its alerts on this page, the model of the worst first.
    """
    check_state(state, STATES)
    with parts.database.reading() as session:
        statement = select(AlertRow)
        if model is not None:
            statement = statement.where(AlertRow.model_id == model_named(session, principal, model).id)
        if principal.models is not None:
            seen = select(ModelRow.id).where(ModelRow.name.in_(sorted(principal.models)))
            statement = statement.where(AlertRow.model_id.in_(seen))
        if state is not None:
            statement = statement.where(AlertRow.state == state)
        if (begin := moment(since, "from")) is not None:
            statement = statement.where(AlertRow.last_violated_at > begin)
        if (end := moment(until, "to")) is not None:
            statement = statement.where(AlertRow.starts_at < end)
        rows, cursor = page_of(session, statement, [AlertRow.opened_at, AlertRow.id], page, descending=True)
        items = [_shown(session, parts, row) for row in rows]
        return listed(_grouped(items) if group else items, cursor)


@router.get("/{alert}", operation_id="alerts_read", summary="Read an alert")
def read(alert: str, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return an alert with its evidence, which stays as it was when the alert opened."""
    with parts.database.reading() as session:
        row, model, version = alert_of(session, principal, alert)
        return alerts.document(row, model, version, parts.settings)


@router.post("/{alert}/acknowledge", operation_id="alerts_acknowledge", summary="Acknowledge an alert")
def acknowledge(alert: str, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Say that somebody has seen it; a monitor or feature that joins later takes that back."""
    with parts.database.writing() as session:
        row, model, version = alert_of(session, principal, alert, lock=True)
        alerts.acknowledge(session, row, principal.name, parts.settings, parts.clock.now())
        audit(session, parts, principal, "alert.acknowledge", f"alerts/{row.uid}", model)
        return alerts.document(row, model, version, parts.settings)


@router.post("/{alert}/resolve", operation_id="alerts_resolve", summary="Resolve an alert")
def resolve(alert: str, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Close it by hand; the next violated window opens another."""
    with parts.database.writing() as session:
        row, model, version = alert_of(session, principal, alert, lock=True)
        alerts.resolve(session, row, parts.settings, parts.clock.now())
        audit(session, parts, principal, "alert.resolve", f"alerts/{row.uid}", model)
        return alerts.document(row, model, version, parts.settings)


@router.post("/{alert}/mute", operation_id="alerts_mute", summary="Mute an alert")
def mute(alert: str, parts: Parts, principal: Operator, body: MuteBody | None = None) -> dict[str, Any]:
    """Keep it from being repeated for a while (default: seven days); its end is told all the same."""
    body, now = body or MuteBody(), parts.clock.now()
    length = parse_duration(body.duration) if body.until is None else parse_time(body.until, "/until") - now
    if length <= timedelta():
        raise Unprocessable("an alert is muted until a moment to come")
    if length > LONGEST_MUTE:
        raise Unprocessable("an alert can be muted for a year at most")
    with parts.database.writing() as session:
        row, model, version = alert_of(session, principal, alert, lock=True)
        alerts.mute(row, now + length, now)
        audit(session, parts, principal, "alert.mute", f"alerts/{row.uid}", model)
        return alerts.document(row, model, version, parts.settings)


def _shown(session: Session, parts: Assembly, row: AlertRow) -> dict[str, Any]:
    model, version = session.get_one(ModelRow, row.model_id), session.get_one(VersionRow, row.version_id)
    return alerts.document(row, model, version, parts.settings)


def _grouped(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one item for each model: how many of its alerts are open, the worst severity, its alerts."""
    models: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        models.setdefault(item["model"], []).append(item)
    groups = [
        {
            "model": model,
            "open": sum(one["state"] == "open" for one in mine),
            "severity": max((one["severity"] for one in mine), key=SEVERITIES.index),
            "since": min(one["starts_at"] for one in mine),
            "alerts": mine,
        }
        for model, mine in models.items()
    ]
    return sorted(groups, key=lambda one: (-bool(one["open"]), -SEVERITIES.index(one["severity"]), one["model"]))


@router.get("/{alert}/causes", operation_id="alerts_causes", summary="What may have caused an alert")
def causes(alert: str, parts: Parts, principal: Reader) -> dict[str, object]:
    """List what joined the episode, the likeliest cause first.

    By how many times its limit it was at its worst, times how much the model heeds it where that is known; what the
    change of the error is made of: `GET /v1/models/{model}/causes`.
    """
    with parts.database.reading() as session:
        row, model, version = alert_of(session, principal, alert)
        shares, source = root.importances(session, parts.lake, version)
        items = [
            {
                "subject": one.subject,
                "monitor": one.monitor,
                "kind": one.kind,
                "times_its_limit": one.times,
                "importance": one.importance,
                "result": one.result,
            }
            for one in alerts.causes(row, shares or None)
        ]
        span = Span(row.starts_at, row.last_violated_at)
        planned = [calendar_document(session, entry) for entry in alerts.planned_changes(session, model.id, span)]
        return listed(items, None) | {"planned": planned, "importance_source": source or None}


@router.get("/{alert}/comments", operation_id="alerts_comments", summary="Read what was said about an alert")
def comments(alert: str, parts: Parts, principal: Reader) -> dict[str, object]:
    """List the comments, oldest first."""
    with parts.database.reading() as session:
        row, _model, _version = alert_of(session, principal, alert)
        return listed([_comment(one) for one in alerts.comments(session, row)], None)


@router.post("/{alert}/comments", status_code=201, operation_id="alerts_comment", summary="Comment on an alert")
def comment(alert: str, body: CommentBody, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Add a comment; it stays under the name of the key."""
    with parts.database.writing() as session:
        row, model, _version = alert_of(session, principal, alert)
        made = alerts.comment(session, row, principal.name, body.text, parts.clock.now())
        audit(session, parts, principal, "alert.comment", f"alerts/{row.uid}", model)
        return _comment(made)


def _comment(row: AlertCommentRow) -> dict[str, Any]:
    return {"id": row.uid, "author": row.author, "text": row.text, "created_at": format_time(row.created_at)}
