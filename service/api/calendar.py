"""The calendar of planned changes over HTTP: what explains alerts of some time, or keeps them from being told."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from service.access import Principal
from service.api.bodies import Body, Name, Short, Time
from service.api.depends import (
    Operator,
    Page,
    Parts,
    Reader,
    audit,
    check_match,
    etag,
    listed,
    model_named,
    moment,
    page_of,
)
from service.api.problems import refused
from service.problems import Fault, NotFound, ScopeMissing
from service.tables import CalendarRow, ModelRow
from service.words import format_time, new_id, parse_time

router = APIRouter(prefix="/v1/calendar", tags=["calendar"])

Effect = Literal["annotate", "suppress"]


class ChangePatch(Body):
    """What of a planned change can be changed."""

    title: Short | None = None
    effect: Effect | None = None
    since: Time | None = Field(None, alias="from")
    until: Time | None = Field(None, alias="to")

    model_config = ConfigDict(json_schema_extra={"examples": [{"to": "2026-05-04T12:00:00Z"}]})


class ChangeBody(Body):
    """A planned change: of one model, or of every model."""

    title: Short
    since: Time = Field(alias="from")
    until: Time = Field(alias="to")
    model: Name | None = None
    effect: Effect = "annotate"

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "title": "The price list changes",
                    "from": "2026-05-04T00:00:00Z",
                    "to": "2026-05-05T00:00:00Z",
                    "model": "churn",
                    "effect": "annotate",
                }
            ]
        }
    )


def document_of(session: Session, row: CalendarRow) -> dict[str, Any]:
    """Return a planned change as the interface shows it."""
    model = None if row.model_id is None else session.get(ModelRow, row.model_id)
    return {
        "id": row.uid,
        "title": row.title,
        "model": None if model is None else model.name,
        "effect": row.effect,
        "from": format_time(row.starts_at),
        "to": format_time(row.ends_at),
        "created_by": row.created_by,
        "created_at": format_time(row.created_at),
        "revision": row.revision,
    }


def _named(session: Session, principal: Principal, uid: str, *, change: bool) -> tuple[CalendarRow, ModelRow | None]:
    row = session.scalar(select(CalendarRow).where(CalendarRow.uid == uid[:32]))
    model = None if row is None or row.model_id is None else session.get(ModelRow, row.model_id)
    if row is None or row.uid != uid or (model is not None and not principal.sees(model.name)):
        raise NotFound(f"there is no planned change {uid[:64]!r}")
    if change and model is None and principal.models is not None:
        raise ScopeMissing("a key bound to models changes what is planned for those models")
    return row, model


@router.post("", status_code=201, operation_id="calendar_create", summary="Plan a change")
def create(body: ChangeBody, response: Response, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Plan a change. `annotate` names it in alerts of its time; `suppress` also keeps them from being told.

    An episode that a suppressing change explains is recorded and shown; it is told as soon as a window is violated that
    no such change meets. No retraining is asked for meanwhile.
    """
    start, end = parse_time(body.since, "/from"), parse_time(body.until, "/to")
    if end <= start:
        raise refused([Fault("/to", "not_after_from", "a planned change ends after it begins")])
    if body.model is None and principal.models is not None:
        raise refused([Fault("/model", "model_needed", "a key bound to models plans changes of those models")])
    with parts.database.writing() as session:
        model = None if body.model is None else model_named(session, principal, body.model)
        row = CalendarRow(
            uid=new_id(),
            model_id=None if model is None else model.id,
            title=body.title,
            effect=body.effect,
            starts_at=start,
            ends_at=end,
            created_by=principal.name,
            created_at=parts.clock.now(),
        )
        session.add(row)
        session.flush()
        audit(session, parts, principal, "calendar.create", f"calendar/{row.uid}", model, title=row.title)
        response.headers["Location"] = f"/v1/calendar/{row.uid}"
        response.headers["ETag"] = etag(row.revision)
        return document_of(session, row)


@router.get("", operation_id="calendar_list", summary="List planned changes")
def index(
    parts: Parts,
    principal: Reader,
    page: Page,
    model: Annotated[str | None, Query(description="Only changes that concern this model.")] = None,
    since: Annotated[str | None, Query(alias="from", description="Only changes not over before this time.")] = None,
    until: Annotated[str | None, Query(alias="to", description="Only changes begun before this time.")] = None,
) -> dict[str, object]:
    """List planned changes, latest first; those of every model are among each model's."""
    with parts.database.reading() as session:
        statement = select(CalendarRow)
        if model is not None:
            mine = model_named(session, principal, model).id
            statement = statement.where(or_(CalendarRow.model_id == mine, CalendarRow.model_id.is_(None)))
        if principal.models is not None:
            seen = select(ModelRow.id).where(ModelRow.name.in_(sorted(principal.models)))
            statement = statement.where(or_(CalendarRow.model_id.in_(seen), CalendarRow.model_id.is_(None)))
        if (begin := moment(since, "from")) is not None:
            statement = statement.where(CalendarRow.ends_at > begin)
        if (end := moment(until, "to")) is not None:
            statement = statement.where(CalendarRow.starts_at < end)
        rows, cursor = page_of(session, statement, [CalendarRow.starts_at, CalendarRow.id], page, descending=True)
        return listed([document_of(session, row) for row in rows], cursor)


@router.get("/{change}", operation_id="calendar_read", summary="Read a planned change")
def read(change: str, response: Response, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return a planned change."""
    with parts.database.reading() as session:
        row, _ = _named(session, principal, change, change=False)
        response.headers["ETag"] = etag(row.revision)
        return document_of(session, row)


@router.patch("/{change}", operation_id="calendar_update", summary="Change a planned change")
def update(
    change: str, body: ChangePatch, request: Request, response: Response, parts: Parts, principal: Operator
) -> dict[str, Any]:
    """Change what the body names; windows that were judged already stay as they were told."""
    with parts.database.writing() as session:
        row, model = _named(session, principal, change, change=True)
        check_match(request, row.revision)
        row.title, row.effect = body.title or row.title, body.effect or row.effect
        row.starts_at = row.starts_at if body.since is None else parse_time(body.since, "/from")
        row.ends_at = row.ends_at if body.until is None else parse_time(body.until, "/to")
        if row.ends_at <= row.starts_at:
            raise refused([Fault("/to", "not_after_from", "a planned change ends after it begins")])
        row.revision += 1
        audit(session, parts, principal, "calendar.update", f"calendar/{row.uid}", model)
        session.flush()
        response.headers["ETag"] = etag(row.revision)
        return document_of(session, row)


@router.delete("/{change}", status_code=204, operation_id="calendar_delete", summary="Take a plan back")
def delete(change: str, request: Request, parts: Parts, principal: Operator) -> None:
    """Remove a planned change."""
    with parts.database.writing() as session:
        row, model = _named(session, principal, change, change=True)
        check_match(request, row.revision)
        session.delete(row)
        audit(session, parts, principal, "calendar.delete", f"calendar/{row.uid}", model)
