"""Replays over HTTP: history streamed into a model, with its event time for a clock while the replay is open."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.access import Principal
from service.api.bodies import Body, Name, Time
from service.api.depends import Operator, Page, Parts, Reader, audit, listed, model_named, page_of
from service.api.problems import refused
from service.problems import Conflict, Fault, NotFound
from service.scheduler import Scheduler
from service.tables import ModelRow, ReplayRow, VersionRow, WebhookRow
from service.words import HOUR, format_time, new_id, parse_time

router = APIRouter(prefix="/v1/models/{model}/replays", tags=["replays"])


class ReplayBody(Body):
    """The span that will be replayed, and who is called meanwhile."""

    since: Time = Field(alias="from")
    until: Time = Field(alias="to")
    webhooks: Annotated[list[Name], Field(max_length=50)] = Field(default_factory=list)

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"from": "2018-10-30T18:00:00Z", "to": "2019-08-29T12:00:00Z", "webhooks": ["on-call"]}]
        }
    )


def reached(session: Session, row: ReplayRow) -> tuple[datetime | None, int, int]:
    """Return the newest event of a replay's span that came, and how many of its hours that is, of how many."""
    newest = session.scalar(select(func.max(VersionRow.last_event_at)).where(VersionRow.model_id == row.model_id))
    total = max(1, -((row.starts_at - row.ends_at) // HOUR))
    if newest is None or newest < row.starts_at:
        return None, 0, total
    newest = min(newest, row.ends_at)
    return newest, min(total, -((row.starts_at - newest) // HOUR)), total


def document_of(session: Session, row: ReplayRow) -> dict[str, Any]:
    """Return a replay as the interface shows it; its progress is that of the events' own time."""
    newest, done, total = reached(session, row)
    return {
        "id": row.uid,
        "from": format_time(row.starts_at),
        "to": format_time(row.ends_at),
        "webhooks": row.webhooks,
        "progress": {"done": done, "total": total, "unit": "hours"},
        "reached": None if newest is None else format_time(newest),
        "opened_at": format_time(row.opened_at),
        "closed_at": None if row.closed_at is None else format_time(row.closed_at),
    }


@router.post("", status_code=201, operation_id="replays_open", summary="Open a replay")
def create(model: str, body: ReplayBody, response: Response, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Take the events' own time for the model's clock, from now until the replay is closed.

    Windows are judged as the events pass; volume and freshness are not judged, and only the webhooks named here are
    called. Monitors without a run begin at the replay's start.
    """
    start, end = parse_time(body.since, "/from"), parse_time(body.until, "/to")
    now = parts.clock.now()
    faults = []
    if end <= start:
        faults.append(Fault("/to", "not_after_from", "a replay ends after it begins"))
    if start > now + timedelta(minutes=5):
        faults.append(Fault("/from", "in_the_future", "history begins in the past"))
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        known = set(session.scalars(select(WebhookRow.name).where(WebhookRow.name.in_(body.webhooks))))
        faults += [
            Fault(f"/webhooks/{place}", "unknown_webhook", f"there is no webhook {name!r}")
            for place, name in enumerate(body.webhooks)
            if name not in known
        ]
        if faults:
            raise refused(faults)
        if _open(session, owner) is not None:
            raise Conflict(f"a replay of {model!r} is open already; close it first")
        row = ReplayRow(
            uid=new_id(),
            model_id=owner.id,
            starts_at=start,
            ends_at=end,
            webhooks=body.webhooks,
            opened_at=now,
        )
        session.add(row)
        session.flush()
        audit(session, parts, principal, "replay.open", f"models/{model}/replays/{row.uid}", owner)
        response.headers["Location"] = f"/v1/models/{model}/replays/{row.uid}"
        return document_of(session, row)


@router.get("", operation_id="replays_list", summary="List replays")
def index(model: str, parts: Parts, principal: Reader, page: Page) -> dict[str, object]:
    """List a model's replays, newest first."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        statement = select(ReplayRow).where(ReplayRow.model_id == owner.id)
        rows, cursor = page_of(session, statement, [ReplayRow.id], page, descending=True)
        return listed([document_of(session, row) for row in rows], cursor)


@router.delete("", operation_id="replays_close_open", summary="Close the open replay")
def close_open(model: str, request: Request, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Close the model's open replay, whichever it is."""
    with parts.database.reading() as session:
        row = _open(session, model_named(session, principal, model))
    if row is None:
        raise NotFound(f"no replay of {model!r} is open")
    return _close(model, row, request, parts, principal)


@router.get("/{replay}", operation_id="replays_read", summary="Read a replay")
def read(model: str, replay: str, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return a replay."""
    with parts.database.reading() as session:
        return document_of(session, _named(session, model_named(session, principal, model), replay))


@router.delete("/{replay}", operation_id="replays_close", summary="Close a replay")
def close(model: str, replay: str, request: Request, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Run what is still due up to the replay's end, then give the model back to the clock."""
    with parts.database.reading() as session:
        row = _named(session, model_named(session, principal, model), replay)
    return _close(model, row, request, parts, principal)


def _close(model: str, row: ReplayRow, request: Request, parts: Parts, principal: Principal) -> dict[str, Any]:
    scheduler: Scheduler = getattr(request.app.state, "scheduler", None) or Scheduler(parts)
    done = scheduler.close_replay(row.id)
    with parts.database.writing() as session:
        closed = session.get_one(ReplayRow, row.id)
        owner = session.get_one(ModelRow, closed.model_id)
        audit(session, parts, principal, "replay.close", f"models/{model}/replays/{closed.uid}", owner)
        return document_of(session, closed) | {"runs": done}


def _open(session: Session, model: ModelRow) -> ReplayRow | None:
    return session.scalar(
        select(ReplayRow).where(ReplayRow.model_id == model.id, ReplayRow.closed_at.is_(None)).limit(1)
    )


def _named(session: Session, model: ModelRow, uid: str) -> ReplayRow:
    row = session.scalar(select(ReplayRow).where(ReplayRow.model_id == model.id, ReplayRow.uid == uid[:32]))
    if row is None or row.uid != uid:
        raise NotFound(f"model {model.name!r} has no replay {uid[:64]!r}")
    return row
