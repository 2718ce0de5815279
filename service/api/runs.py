"""Runs that are asked for, and spans that are left out."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import windows
from service.access import Principal
from service.api.bodies import Body, Text, Time
from service.api.depends import Operator, Page, Parts, Reader, audit, listed, model_named, monitor_named, page_of
from service.api.problems import refused
from service.assembly import Assembly
from service.problems import Conflict, Fault, NotFound
from service.profiles import watermark
from service.runs import begun, next_revision, of_window
from service.scheduler import BACKFILL
from service.tables import ExclusionRow, JobRow, ModelRow, MonitorRow, RunRow, VersionRow
from service.words import HOUR, UNFINISHED, Span, bucket_of, bucket_start, derived_id, format_time, new_id, parse_time

router = APIRouter(prefix="/v1/models/{model}", tags=["runs"])

MOST_WINDOWS = 2_000


class RunBody(Body):
    """What is to be run: the last window, one span, or every window of a span."""

    since: Time | None = Field(None, alias="from")
    until: Time | None = Field(None, alias="to")
    each: Literal["1h", "1d", "7d", "1mo"] | None = None
    alert: bool = False

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"from": "2026-10-01T00:00:00Z", "to": "2026-11-01T00:00:00Z", "each": "1d"}]}
    )


class ExclusionBody(Body):
    """A span that says nothing about quiet times."""

    since: Time = Field(alias="from")
    until: Time = Field(alias="to")
    reason: Annotated[Text, Field(min_length=1)]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z", "reason": "load test"}]
        }
    )


def _span(since: str, until: str) -> Span:
    """Read a span of whole hours."""
    span = Span(parse_time(since, "/from"), parse_time(until, "/to"))
    faults = [
        Fault(f"/{name}", "not_whole_hours", "windows begin and end on whole hours")
        for name, moment in (("from", span.start), ("to", span.end))
        if not _is_whole(moment)
    ]
    if span.end <= span.start:
        faults.append(Fault("/to", "not_after_from", "a span ends after it begins"))
    if faults:
        raise refused(faults)
    return span


def _is_whole(moment: datetime) -> bool:
    return bucket_start(bucket_of(moment)) == moment


@router.post("/monitors/{monitor}/runs", status_code=202, operation_id="runs_create", summary="Run a monitor")
def create(
    model: str, monitor: str, response: Response, parts: Parts, principal: Operator, body: RunBody | None = None
) -> dict[str, Any]:
    """Queue a run of the last whole window, of a past span, or of each window of it; a worker takes it up.

    A backfill spends no budget and opens no alert unless ``alert`` is true.
    """
    asked = body or RunBody.model_validate({})
    if (asked.since is None) != (asked.until is None):
        raise refused([Fault("/from", "both_or_none", "from and to come together")])
    for last in (False, False, True):
        try:
            answer = _create(parts, principal, model, monitor, asked)
            break
        except IntegrityError:  # a scheduler, or somebody else who asks, had one of the windows at the same moment
            if last:
                raise Conflict("those windows are being run already") from None
    location = answer["job"] if answer["windows"] > 1 else f"/v1/models/{model}/runs/{answer['id']}"
    response.headers["Location"] = location
    return answer


def _create(parts: Assembly, principal: Principal, model: str, monitor: str, asked: RunBody) -> dict[str, Any]:
    """Queue what is asked for and return the answer; IntegrityError where another process had a window first."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = monitor_named(session, owner, monitor)
        spans = _asked_spans(session, parts, owner, row, asked)
        versions = [
            version
            for version in session.scalars(select(VersionRow).where(VersionRow.model_id == owner.id))
            if begun(session, version, row) is not None
            and (not isinstance(row.versions, list) or version.name in row.versions)
        ]
        made = [
            run
            for version in versions
            for span in spans
            if (run := _queued(session, parts, row, version, span, alert=asked.alert)) is not None
        ]
        if not made:
            raise Conflict("no version has records in that time, or those windows are being run already")
        job = JobRow(
            uid=new_id(),
            kind=BACKFILL,
            model_id=owner.id,
            request=asked.model_dump(mode="json", by_alias=True) | {"monitor": row.name},
            state="queued",
            total=len(made),
            unit="windows",
            created_at=parts.clock.now(),
        )
        session.add(job)
        session.flush()
        for run in made:
            run.job_id = job.id
        session.add_all(made)
        session.flush()
        audit(session, parts, principal, "run.create", f"models/{model}/monitors/{monitor}", owner, runs=len(made))
        return {
            "id": made[0].uid,
            "monitor": row.name,
            "status": "queued",
            "windows": len(made),
            "job": f"/v1/jobs/{job.uid}",
            "runs": [
                {"id": run.uid, "window": {"from": format_time(run.starts_at), "to": format_time(run.ends_at)}}
                for run in made[:100]
            ],
        }


def _asked_spans(session: Session, parts: Parts, model: ModelRow, monitor: MonitorRow, asked: RunBody) -> list[Span]:
    grid = windows.grid_of(monitor.schedule, monitor.window, monitor.offset)
    if asked.since is None or asked.until is None:
        mark = watermark(session, model, parts.clock, parts.settings)
        end = grid.last_end(mark - 400 * 24 * HOUR, mark)
        if end is None:
            raise Conflict("no window of the monitor has ended yet")
        return [grid.ending(end)]
    span = _span(asked.since, asked.until)
    if span.end > parts.clock.now():
        raise refused([Fault("/to", "in_the_future", "a window is run when it is over")])
    if asked.each is None:
        return [span]
    found: list[Span] = []
    for window in windows.each(span, asked.each):
        found.append(window)
        if len(found) > MOST_WINDOWS:
            raise refused([Fault("/to", "too_many_windows", f"at most {MOST_WINDOWS} windows are run at once")])
    if not found:
        raise refused([Fault("/each", "no_window", f"no whole window of {asked.each} lies in that span")])
    return found


def _queued(
    session: Session, parts: Parts, monitor: MonitorRow, version: VersionRow, span: Span, *, alert: bool
) -> RunRow | None:
    """Return a run that a worker will take up; none where the version had no records yet, or one is under way."""
    first = begun(session, version, monitor)
    if first is None or first >= span.end:
        return None
    under_way = select(RunRow.id).where(*of_window(monitor.id, version.id, span), RunRow.status.in_(UNFINISHED))
    if session.scalar(under_way.limit(1)):
        return None
    revision = next_revision(session, monitor.id, version.id, span)
    return RunRow(
        uid=derived_id("run", monitor.uid, version.name, span.start, span.end, revision),
        model_id=monitor.model_id,
        monitor_id=monitor.id,
        version_id=version.id,
        starts_at=span.start,
        ends_at=span.end,
        revision=revision,
        current=revision == 1,
        judged=alert,
        status="queued",
        backfill=True,
        scheduled_for=parts.clock.now(),
        software=parts.software,
        attempt=0,
    )


@router.post("/windows/exclude", status_code=201, operation_id="windows_exclude", summary="Leave out a span")
def exclude(model: str, body: ExclusionBody, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Leave a span out of longer time scales, rolling baselines, blocks and training data; its results stay."""
    span = _span(body.since, body.until)
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = ExclusionRow(
            model_id=owner.id,
            starts_at=span.start,
            ends_at=span.end,
            reason=body.reason,
            created_at=parts.clock.now(),
        )
        session.add(row)
        session.flush()
        audit(session, parts, principal, "windows.exclude", f"models/{model}/windows", owner, reason=body.reason)
        return _exclusion(row)


@router.get("/windows/exclude", operation_id="windows_excluded", summary="List spans left out")
def excluded(model: str, parts: Parts, principal: Reader, page: Page) -> dict[str, object]:
    """List the spans that are left out, newest first."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        statement = select(ExclusionRow).where(ExclusionRow.model_id == owner.id)
        rows, cursor = page_of(session, statement, [ExclusionRow.id], page, descending=True)
        return listed([_exclusion(row) for row in rows], cursor)


@router.delete("/windows/exclude/{exclusion}", status_code=204, operation_id="windows_include", summary="Put it back")
def include(model: str, exclusion: int, parts: Parts, principal: Operator) -> None:
    """Count a span again that was left out."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = session.get(ExclusionRow, exclusion) if 0 < exclusion < 2**62 else None
        if row is None or row.model_id != owner.id:
            raise NotFound(f"model {model!r} has no exclusion {exclusion}")
        session.delete(row)
        audit(session, parts, principal, "windows.include", f"models/{model}/windows", owner, reason=row.reason)


def _exclusion(row: ExclusionRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "from": format_time(row.starts_at),
        "to": format_time(row.ends_at),
        "reason": row.reason,
        "created_at": format_time(row.created_at),
    }
