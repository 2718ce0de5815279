"""Figures that users work out themselves, posted by name: taken in, and listed as they were posted."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Body as Given
from fastapi.responses import JSONResponse
from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import posted
from service.access import Principal, Scope
from service.api.bodies import Body, Label, Name, Short, Time
from service.api.depends import Page, Parts, Reader, model_named, moment, page_of, requires, version_named
from service.api.formats import CONTENT, rows_in_form
from service.api.problems import faults_of, refused
from service.ingest.writer import count_refused
from service.problems import BadRequest, Fault, Unprocessable
from service.tables import ModelRow, PostedFigureRow, VersionRow
from service.words import Span, format_time, new_id, parse_time

router = APIRouter(prefix="/v1/models/{model}/metrics", tags=["metrics"])

Sender = Annotated[Principal, Depends(requires(Scope.INGEST))]
MOST_FIGURES = 10_000
SHOWN = 100
LARGEST = 1e100
"""Beyond it squares of values are no numbers any more."""
AHEAD = timedelta(minutes=5)
"""How far a sender's clock may be ahead."""


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise ValueError("a value is a number, or null to take a figure back")
    if value is not None and abs(value) > LARGEST:
        raise ValueError(f"a value is at most {LARGEST:g}")
    return value


Value = Annotated[float, BeforeValidator(_number)]


class FigureBody(Body):
    """One figure, of a moment or of a span of time."""

    metric: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.@%/+-]{0,63}$")]
    value: Value | None
    timestamp: Time | None = Field(None, description="The moment it is of; by default when it arrives.")
    since: Time | None = Field(None, alias="from", description="Where the span that it is of begins.")
    until: Time | None = Field(None, alias="to", description="Where that span ends.")
    version: Name | None = Field(None, description="By default the active one.")
    attribute: Short | None = None
    group: Label | None = Field(None, description="The part of the population that it is of.")
    n: Annotated[int, Field(ge=0, strict=True)] | None = Field(None, description="Rows behind it.")
    interval: tuple[Value, Value] | None = Field(None, description="What it was said to lie in.")
    unit: Annotated[str, StringConstraints(max_length=32)] = ""

    @model_validator(mode="after")
    def _whole(self) -> "FigureBody":
        if (self.since is None) != (self.until is None):
            raise ValueError("from and to come together")
        if self.since is not None and self.timestamp is not None:
            raise ValueError("a figure is of a moment (timestamp) or of a span (from, to), not of both")
        if self.attribute is not None and self.group is None:
            raise ValueError("an attribute comes with the group of it")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError("an interval has its lower end first")
        return self

    def figure(self, now: datetime) -> posted.Figure:
        """Return it as it is stored; a problem where its time makes no sense."""
        if self.since is not None and self.until is not None:
            span = Span(parse_time(self.since, "/from"), parse_time(self.until, "/to"))
            if span.end <= span.start:
                raise refused([Fault("/to", "not_after_from", "a span ends after it begins")])
        else:
            at = now if self.timestamp is None else parse_time(self.timestamp, "/timestamp")
            span = Span(at, at)
        if span.end > now + AHEAD:
            where = "/timestamp" if self.until is None else "/to"
            raise refused([Fault(where, "timestamp_in_future", "a figure is of the past: its time is over")])
        return posted.Figure(
            metric=self.metric,
            value=self.value,
            span=span,
            attribute=self.attribute or "",
            group=self.group or "",
            n=self.n,
            interval=self.interval,
            unit=self.unit,
        )


EXAMPLE = {
    "metrics": [
        {
            "metric": "revenue",
            "value": 12_904.5,
            "from": "2026-11-21T00:00:00Z",
            "to": "2026-11-22T00:00:00Z",
            "n": 998,
            "unit": "EUR",
        }
    ]
}
ANSWER = {
    "accepted": 29,
    "duplicates": 0,
    "corrected": 1,
    "rejected_count": 0,
    "rejected": [],
    "rejected_by_code": {},
    "batch_id": "019b76daa8007cd4be21a82769e2b2e5",
}


@router.post(
    "",
    operation_id="metrics_create",
    summary="Post figures of your own",
    openapi_extra={"requestBody": {"content": {"application/json": {"example": EXAMPLE}}}},
    responses={200: {"description": "On disk", "content": {"application/json": {"example": ANSWER}}}},
)
def create(
    model: str,
    parts: Parts,
    principal: Sender,
    body: Annotated[dict[str, Any] | list[Any], Given()],
    strict: Annotated[bool, Query(description="All or nothing: one refused figure refuses the request.")] = False,
) -> Response:
    """Take in one figure, a list, or `{"metrics": [...]}`, to be judged by monitors of the kind `posted_metrics`.

    A figure is known by version, metric, attribute, group and time. The same again is a duplicate; with other content
    it is a correction: the newest counts, windows that hold it get a new revision, and nobody is alarmed a second time.
    A value of null takes a figure back.
    """
    given = _listed(body)
    now = parts.clock.now()
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        kept: dict[int, tuple[VersionRow, list[posted.Figure]]] = {}
        faults: dict[int, Fault] = {}
        for place, document in enumerate(given):
            found = _read(session, owner, document, now)
            if isinstance(found, Fault):
                faults[place] = found
            else:
                kept.setdefault(found[0].id, (found[0], []))[1].append(found[1])
        counts: Counter[str] = Counter()
        if not (strict and faults):
            for version, figures in kept.values():
                counts += posted.store(session, version, figures, now)
        by_code = Counter(fault.code for fault in faults.values())
        if faults:
            count_refused(session, owner.id, posted.METRICS, now, by_code)
    answer = {
        **{name: counts[name] for name in ("accepted", "duplicates", "corrected")},
        "rejected_count": len(faults),
        "rejected": [
            {"index": place, "code": fault.code, "pointer": fault.pointer, "detail": fault.detail}
            for place, fault in list(faults.items())[:SHOWN]
        ],
        "rejected_by_code": dict(by_code),
        "batch_id": new_id(),
    }
    return JSONResponse(answer, 200 if counts or not faults else 422)


def _listed(body: dict[str, Any] | list[Any]) -> Sequence[Any]:
    found = body["metrics"] if isinstance(body, dict) and set(body) == {"metrics"} else body
    found = found if isinstance(found, list) else [found]
    if not found:
        raise BadRequest("the body holds no figure")
    if len(found) > MOST_FIGURES:
        raise refused([Fault("", "too_many", f"at most {MOST_FIGURES} figures are taken in at once")])
    return found


def _read(session: Session, model: ModelRow, document: Any, now: datetime) -> tuple[VersionRow, posted.Figure] | Fault:
    """Return a figure and the version it is of, or what is at fault."""
    try:
        body = FigureBody.model_validate(document)
    except ValidationError as error:
        return faults_of(error.errors())[0]
    version = _version(session, model, body.version)
    if version is None:
        named = f"no version {body.version!r}" if body.version else "no version yet"
        return Fault("/version", "unknown_version", f"model {model.name!r} has {named}: register it first")
    try:
        return version, body.figure(now)
    except Unprocessable as problem:
        return problem.faults[0]


def _version(session: Session, model: ModelRow, name: str | None) -> VersionRow | None:
    if name is None:
        return None if model.active_version_id is None else session.get(VersionRow, model.active_version_id)
    return session.scalar(select(VersionRow).where(VersionRow.model_id == model.id, VersionRow.name == name))


COLUMNS = {
    "metric": pa.string(),
    "attribute": pa.string(),
    "group": pa.string(),
    "version": pa.string(),
    "from": pa.string(),
    "to": pa.string(),
    "value": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "n": pa.int64(),
    "unit": pa.string(),
    "revision": pa.int64(),
    "current": pa.bool_(),
    "received_at": pa.string(),
}


@router.get("/posted", operation_id="metrics_posted", summary="List posted figures", responses=CONTENT)
def index(
    model: str,
    request: Request,
    parts: Parts,
    principal: Reader,
    page: Page,
    metric: Annotated[str | None, Query(max_length=64, description="Only this figure.")] = None,
    attribute: Annotated[str | None, Query(max_length=256, description="Only groups of this attribute.")] = None,
    group: Annotated[str | None, Query(max_length=256, description="Only this group.")] = None,
    version: Annotated[str | None, Query(description="Only this version.")] = None,
    from_: Annotated[str | None, Query(alias="from", description="Only figures that end after it.")] = None,
    to: Annotated[str | None, Query(description="Only figures that begin before it.")] = None,
    revision: Annotated[Literal["all"] | None, Query(description="What was corrected or taken back too.")] = None,
) -> Response:
    """List what was posted, oldest first, whether a monitor judges it or not; `GET …/metrics` has what was judged."""
    start, end = moment(from_, "from"), moment(to, "to")
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        row = PostedFigureRow
        statement = select(row).where(row.model_id == owner.id)
        for column, wanted in ((row.metric, metric), (row.attribute, attribute), (row.group, group)):
            if wanted is not None:
                statement = statement.where(column == wanted)
        if version is not None:
            statement = statement.where(row.version_id == version_named(session, owner, version).id)
        if start is not None:
            statement = statement.where(row.ends_at > start)
        if end is not None:
            statement = statement.where(row.starts_at < end)
        if revision is None:
            statement = statement.where(row.current.is_(True), row.value.is_not(None))
        rows, cursor = page_of(session, statement, [row.ends_at, row.id], page)
        versions = select(VersionRow.id, VersionRow.name).where(VersionRow.model_id == owner.id)
        names = {one.id: one.name for one in session.execute(versions)}
        items = [_document(one, names[one.version_id]) for one in rows]
    return rows_in_form(request, items, COLUMNS, cursor)


def _document(row: PostedFigureRow, version: str) -> dict[str, Any]:
    return {
        "metric": row.metric,
        "attribute": row.attribute or None,
        "group": row.group or None,
        "version": version,
        "from": format_time(row.starts_at),
        "to": format_time(row.ends_at),
        "value": row.value,
        "low": row.low,
        "high": row.high,
        "n": row.n,
        "unit": row.unit or None,
        "revision": row.revision,
        "current": row.current,
        "received_at": format_time(row.received_at),
    }
