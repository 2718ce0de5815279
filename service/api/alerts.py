"""Alerts over HTTP: listed, read with the evidence as it was, acknowledged, resolved, muted."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import alerts
from service.access import Principal
from service.api.bodies import Body, Duration
from service.api.depends import Operator, Page, Parts, Reader, audit, listed, model_named, moment, page_of
from service.assembly import Assembly
from service.problems import NotFound, Unprocessable
from service.tables import AlertRow, ModelRow, VersionRow
from service.words import parse_duration

router = APIRouter(prefix="/v1/alerts", tags=["alerts"])

STATES = ("open", "acknowledged", "resolved")
LONGEST_MUTE = timedelta(days=365)


class MuteBody(Body):
    """For how long an alert is not repeated."""

    duration: Duration = "7d"

    model_config = ConfigDict(json_schema_extra={"examples": [{"duration": "7d"}]})


def alert_of(session: Session, principal: Principal, uid: str) -> tuple[AlertRow, ModelRow, VersionRow]:
    """Return an alert with its model and version; one of a model that is not seen does not exist."""
    row = session.scalar(select(AlertRow).where(AlertRow.uid == uid[:32]))
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
) -> dict[str, object]:
    """List alerts, newest first; `from` and `to` speak of the time of the windows."""
    if state is not None and state not in STATES:
        raise Unprocessable(f"{state!r} is not a state; one of {', '.join(STATES)}")
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
        return listed([_shown(session, parts, row) for row in rows], cursor)


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
        row, model, version = alert_of(session, principal, alert)
        alerts.acknowledge(row, principal.name, parts.clock.now())
        audit(session, parts, principal, "alert.acknowledge", f"alerts/{row.uid}", model)
        return alerts.document(row, model, version, parts.settings)


@router.post("/{alert}/resolve", operation_id="alerts_resolve", summary="Resolve an alert")
def resolve(alert: str, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Close it by hand; the next violated window opens another."""
    with parts.database.writing() as session:
        row, model, version = alert_of(session, principal, alert)
        alerts.resolve(session, row, parts.settings, parts.clock.now())
        audit(session, parts, principal, "alert.resolve", f"alerts/{row.uid}", model)
        return alerts.document(row, model, version, parts.settings)


@router.post("/{alert}/mute", operation_id="alerts_mute", summary="Mute an alert")
def mute(alert: str, parts: Parts, principal: Operator, body: MuteBody | None = None) -> dict[str, Any]:
    """Keep it from being repeated for a while (default: seven days); its end is told all the same."""
    now, length = parts.clock.now(), parse_duration((body or MuteBody()).duration)
    if length > LONGEST_MUTE:
        raise Unprocessable("an alert can be muted for a year at most")
    with parts.database.writing() as session:
        row, model, version = alert_of(session, principal, alert)
        alerts.mute(row, now + length, now)
        audit(session, parts, principal, "alert.mute", f"alerts/{row.uid}", model)
        return alerts.document(row, model, version, parts.settings)


def _shown(session: Session, parts: Assembly, row: AlertRow) -> dict[str, Any]:
    model, version = session.get_one(ModelRow, row.model_id), session.get_one(VersionRow, row.version_id)
    return alerts.document(row, model, version, parts.settings)
