"""Baselines: files of training data or stretches of production that windows are compared with."""

import asyncio
import errno
import json
import os
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import zstandard
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from monitors import constraints
from service import baselines, uploads
from service.access import Principal
from service.api.bodies import Body, Name, Text, Time, validated
from service.api.depends import (
    Configurer,
    Page,
    Parts,
    Reader,
    audit,
    baseline_named,
    check_match,
    etag,
    listed,
    model_named,
    page_of,
)
from service.api.jobs import Progress, answer, jobs_of
from service.assembly import Assembly
from service.lake import reader
from service.problems import BadRequest, Conflict, Fault, MediaTypeUnknown, StorageFull, TooLarge, Unprocessable
from service.tables import BaselineRow, ModelRow, VersionRow
from service.words import HOUR, Span, checked_name, format_time, new_id, parse_time

router = APIRouter(prefix="/v1/models/{model}/baselines", tags=["baselines"])

SPOOL = "uploads"
CHUNK = 2**20
INFLATION = 4
"""How many times larger than the largest upload a file may be once it is decoded."""


class SpanBody(Body):
    """A past window of production as a baseline."""

    name: Name
    from_: Time = Field(alias="from")
    to: Time
    version: Name | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "spring", "from": "2026-03-01T00:00:00Z", "to": "2026-06-01T00:00:00Z"}]
        }
    )


class ActivateBody(Body):
    """From when on a baseline is in force, and why."""

    from_: Time | None = Field(None, alias="from")
    reason: Text = ""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"from": "2026-06-01T00:00:00Z", "reason": "retrained on spring"}]}
    )


class ConstraintsBody(Body):
    """What data quality holds the columns to."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [{"age": {"type": "numeric", "completeness": {"at_least": 0.98}, "range": {"at_least": 18}}}]
        },
    )


def document_of(session: Session, row: BaselineRow, now: datetime) -> dict[str, Any]:
    """Return a baseline as the interface shows it."""
    version = session.get_one(VersionRow, row.version_id)
    in_force = row.active_from is not None and baselines.active(session, version, now) is row
    times = {"from": row.starts_at, "to": row.ends_at, "active_from": row.active_from, "created_at": row.created_at}
    return {
        "id": row.uid,
        "name": row.name,
        "version": version.name,
        "state": row.state,
        "error": row.error,
        "origin": row.origin,
        "rows": row.rows,
        "ordered": row.ordered,
        **{name: None if moment is None else format_time(moment) for name, moment in times.items()},
        "active": in_force,
        "layout": row.layout,
        "warnings": row.warnings,
        "revision": row.revision,
    }


_FILE = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys((uploads.PARQUET, uploads.CSV, uploads.NDJSON, uploads.ARROW), _FILE),
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["name", "from", "to"],
                    "properties": {
                        "name": {"type": "string"},
                        "from": {"type": "string", "format": "date-time"},
                        "to": {"type": "string", "format": "date-time"},
                        "version": {"type": "string"},
                    },
                },
                "example": {"name": "spring", "from": "2026-03-01T00:00:00Z", "to": "2026-06-01T00:00:00Z"},
            },
        },
    }
}
Role = Annotated[str | None, Query(max_length=1024)]


def roles_of(
    prediction: Role = None,
    score: Role = None,
    scores: Annotated[str | None, Query(max_length=8192, description="A comma list, or `prefix*`.")] = None,
    ground_truth: Role = None,
    timestamp: Role = None,
    prediction_id: Role = None,
    protected: Annotated[str | None, Query(max_length=8192, description="A comma list; kept apart.")] = None,
) -> uploads.Roles:
    """Return which columns of a file play a role, as the parameters name them; all others are features."""
    return uploads.Roles(
        prediction=prediction,
        score=score,
        scores=scores,
        ground_truth=ground_truth,
        timestamp=timestamp,
        prediction_id=prediction_id,
        protected=protected,
    )


Roles = Annotated[uploads.Roles, Depends(roles_of)]


@router.post("", status_code=201, operation_id="baselines_create", summary="Make a baseline", openapi_extra=_BODY)
async def create(
    model: str,
    request: Request,
    parts: Parts,
    principal: Configurer,
    roles: Roles,
    name: Annotated[str | None, Query(description="The baseline's name, with a file.")] = None,
    version: Annotated[str | None, Query(description="Default: the active version, else `1`.")] = None,
    ordered: Annotated[
        bool | None, Query(description="Whether rows are in order; default: if they have times.")
    ] = None,
) -> Response:
    """Make a baseline from a file (the parameters name the columns that play a role, all others are features), or from
    a past window of production. The first baseline of a version is in force at once; 202 where it takes over 10 s.
    """  # noqa: D205 - one paragraph, which the interface shows whole
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        raise MediaTypeUnknown("statistics and constraints in SageMaker's format are not read yet")
    if kind == "application/json":
        body: SpanBody = validated(SpanBody, await _json(request))
        return await _from_span(model, request, parts, principal, body)
    faults = []
    if name is None:
        faults.append(Fault("query:name", "missing", "a baseline needs a name: ?name=…"))
    if faults:
        raise Unprocessable(faults[0].detail, faults=faults)
    checked_name(name or "", "query:name")
    if version is not None:
        checked_name(version, "query:version")
    wanted = await run_sync(
        lambda: wanted_of(parts, principal, model, name or "", version, ordered, {"file": roles.document()})
    )
    uploads.kind_of(content_type or "application/octet-stream", b"PAR1")  # refused before the body is read
    path = await spooled(request, parts)

    def work(progress: Progress) -> dict[str, Any]:
        try:
            progress.at(0, 3, "steps")
            with path.open("rb") as file:
                found = uploads.kind_of(content_type, file.read(8))
            table = uploads.read(path, found, parts.settings.max_upload * INFLATION)
            with parts.database.reading() as session:
                meaning = baselines.meaning_of(session, session.get_one(ModelRow, wanted.model_id), wanted.version)
            progress.at(1, 3, "steps")
            sheet = uploads.sheet_of(table, roles, meaning)
            progress.at(2, 3, "steps")
            return stored(parts, principal, wanted, sheet)
        finally:
            path.unlink(missing_ok=True)

    job = await run_sync(lambda: jobs_of(request.app).start("baseline", wanted.model_id, {"name": name}, work))
    return await answer(request, job, 201, f"/v1/models/{model}/baselines/{name}")


def wanted_of(
    parts: Assembly,
    principal: Principal,
    model: str,
    name: str,
    version: str | None,
    ordered: bool | None,
    origin: Mapping[str, Any],
) -> baselines.Wanted:
    """Return what is asked for; a Conflict where the name is taken."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        baselines.check_free(session, owner.id, name)
        return baselines.Wanted(model_id=owner.id, name=name, version=version, ordered=ordered, origin=origin)


def stored(parts: Assembly, principal: Principal, wanted: baselines.Wanted, sheet: uploads.Sheet) -> dict[str, Any]:
    """Keep rows as a baseline and return it as the interface shows it."""
    try:
        made = baselines.create(parts.database, parts.lake, parts.clock, wanted, sheet)
    except IntegrityError as error:
        raise Conflict(f"there is a baseline {wanted.name!r} already") from error
    with parts.database.writing() as session:
        row = session.get_one(BaselineRow, made)
        model = session.get_one(ModelRow, row.model_id)
        about = f"models/{model.name}/baselines/{row.name}"
        audit(session, parts, principal, "baseline.create", about, model, rows=row.rows, origin=row.origin)
        return document_of(session, row, parts.clock.now())


async def _from_span(model: str, request: Request, parts: Assembly, principal: Principal, body: SpanBody) -> Response:
    span = Span(parse_time(body.from_, "/from"), parse_time(body.to, "/to"))
    for pointer, moment in (("/from", span.start), ("/to", span.end)):
        if (moment - moment.replace(minute=0, second=0, microsecond=0)).total_seconds():
            detail = "a window begins and ends on whole hours"
            raise Unprocessable(detail, faults=[Fault(pointer, "not_whole_hours", detail)])
    if span.length < HOUR:
        detail = "the window ends before it begins"
        raise Unprocessable(detail, faults=[Fault("/to", "empty", detail)])
    origin = {"from": format_time(span.start), "to": format_time(span.end)}
    wanted = await run_sync(lambda: wanted_of(parts, principal, model, body.name, body.version, True, origin))

    def work(progress: Progress) -> dict[str, Any]:
        progress.at(0, 3, "steps")
        parts.sealer.seal(wanted.model_id)
        progress.at(1, 3, "steps")
        sheet = _production(parts, wanted, span)
        progress.at(2, 3, "steps")
        return stored(parts, principal, wanted, sheet)

    job = await run_sync(lambda: jobs_of(request.app).start("baseline", wanted.model_id, {"name": body.name}, work))
    return await answer(request, job, 201, f"/v1/models/{model}/baselines/{body.name}")


def _production(parts: Assembly, wanted: baselines.Wanted, span: Span) -> uploads.Sheet:
    """Return the rows of a past window, with the labels known now."""
    with parts.database.reading() as session:
        model = session.get_one(ModelRow, wanted.model_id)
        version = baselines.version_of(session, model, wanted.version)
        meaning = baselines.meaning_of(session, model, wanted.version)
        apart = baselines.protected_names(model)
        batches = reader.batches(session, parts.lake, model.id, version.id, span, None, labels=True, attributes=apart)
        return uploads.sheet_of_production(batches, meaning)


async def _json(request: Request) -> Any:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > CHUNK:
            raise TooLarge(f"a JSON body here may have {CHUNK} bytes", limit=CHUNK)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


async def spooled(request: Request, parts: Assembly) -> Path:
    """Stream the body into a file, decompressed where it says so, and return the file's path."""
    folder = parts.settings.data_dir / SPOOL
    limit = parts.settings.max_upload
    length = request.headers.get("content-length", "")
    too_large = TooLarge(f"a file may have {limit} bytes (PLUMBLINE_MAX_UPLOAD)", limit=limit)
    if length.isdigit() and int(length) > limit:
        raise too_large
    path = folder / new_id()
    size = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            async for chunk in _inflated(request, limit):
                size += len(chunk)
                if size > limit:
                    raise too_large
                await asyncio.to_thread(file.write, chunk)
                if size % (64 * CHUNK) < len(chunk) and _free(folder) < parts.settings.min_free_bytes:
                    raise StorageFull("the disk has no room for this file", headers={"Retry-After": "60"})
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("the disk has no room for this file", headers={"Retry-After": "60"}) from error
        raise
    except ClientDisconnect as error:
        path.unlink(missing_ok=True)
        raise BadRequest("the body ended early") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if size == 0:
        path.unlink(missing_ok=True)
        raise BadRequest("the body is empty; send the file as the body")
    return path


def _free(folder: Path) -> int:
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize


async def _inflated(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yield the body in pieces of bounded size, decompressed by its Content-Encoding."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    inflate: Callable[[bytes], bytes]
    if encoding in ("", "identity"):
        async for chunk in request.stream():
            yield chunk
        return
    if encoding == "gzip":
        gzip = zlib.decompressobj(31)
        async for chunk in request.stream():
            rest = chunk
            while rest:
                try:
                    piece = gzip.decompress(rest, CHUNK)
                except zlib.error as error:
                    raise BadRequest(f"the body is not gzip: {error}") from error
                rest = gzip.unconsumed_tail
                if piece:
                    yield piece
        return
    if encoding == "zstd":
        zstd = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj(write_size=CHUNK)
        inflate = zstd.decompress
        async for chunk in request.stream():
            for start in range(0, len(chunk), 2**14):
                try:
                    piece = inflate(chunk[start : start + 2**14])
                except zstandard.ZstdError as error:
                    raise BadRequest(f"the body is not zstd: {error}") from error
                if len(piece) > limit:
                    raise TooLarge(f"decompressed, a file may have {limit} bytes", limit=limit)
                yield piece
        return
    raise MediaTypeUnknown(f"Content-Encoding {encoding} is not read here; use gzip or zstd")


@router.get("", operation_id="baselines_list", summary="List baselines")
def index(
    model: str,
    parts: Parts,
    principal: Reader,
    page: Page,
    version: Annotated[str | None, Query(description="Only baselines of this version.")] = None,
) -> dict[str, object]:
    """List a model's baselines, oldest first."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        statement = select(BaselineRow).where(BaselineRow.model_id == owner.id)
        if version is not None:
            statement = statement.join(VersionRow, VersionRow.id == BaselineRow.version_id).where(
                VersionRow.name == version
            )
        rows, cursor = page_of(session, statement, [BaselineRow.id], page)
        return listed([document_of(session, row, parts.clock.now()) for row in rows], cursor)


@router.get("/{baseline}", operation_id="baselines_read", summary="Read a baseline")
def read(model: str, baseline: str, response: Response, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return a baseline: what it was made from, how many rows it has, since when it is in force."""
    with parts.database.reading() as session:
        row = baseline_named(session, model_named(session, principal, model), baseline)
        response.headers["ETag"] = etag(row.revision)
        return document_of(session, row, parts.clock.now())


@router.delete("/{baseline}", status_code=204, operation_id="baselines_delete", summary="Delete a baseline")
def delete(model: str, baseline: str, parts: Parts, principal: Configurer) -> None:
    """Delete a baseline that was never in force; one that was is what results rest on, and stays."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = baseline_named(session, owner, baseline)
        if row.active_from is not None:
            raise Conflict(f"baseline {baseline!r} is or was in force; results rest on it")
        path = row.path
        session.delete(row)
        audit(session, parts, principal, "baseline.delete", f"models/{model}/baselines/{baseline}", owner)
    if path is not None:
        parts.lake.remove(path)
        parts.lake.remove(baselines.protected_path(path))


@router.post("/{baseline}/activate", operation_id="baselines_activate", summary="Bring a baseline into force")
def activate(
    model: str, baseline: str, parts: Parts, principal: Configurer, body: ActivateBody | None = None
) -> dict[str, Any]:
    """Compare windows with this baseline from a whole hour on (default: the next); earlier ones keep theirs."""
    wanted = body or ActivateBody.model_validate({})
    since = None if wanted.from_ is None else parse_time(wanted.from_, "/from")
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = baseline_named(session, owner, baseline)
        moment = baselines.activate(session, parts.lake, row, since, parts.clock.now())
        about = f"models/{model}/baselines/{baseline}"
        detail = {"from": format_time(moment), "reason": wanted.reason}
        audit(session, parts, principal, "baseline.activate", about, owner, **detail)
        return document_of(session, row, parts.clock.now())


@router.get("/{baseline}/constraints", operation_id="constraints_read", summary="Read a baseline's constraints")
def read_constraints(model: str, baseline: str, response: Response, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return what data quality holds the columns to: suggested from the baseline, or as corrected."""
    with parts.database.reading() as session:
        row = baseline_named(session, model_named(session, principal, model), baseline)
        response.headers["ETag"] = etag(row.revision)
        return row.constraints


@router.put("/{baseline}/constraints", operation_id="constraints_replace", summary="Correct a baseline's constraints")
def replace_constraints(
    model: str,
    baseline: str,
    body: ConstraintsBody,
    request: Request,
    response: Response,
    parts: Parts,
    principal: Configurer,
) -> dict[str, Any]:
    """Replace the constraints; they count from the next run on."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = baseline_named(session, owner, baseline)
        check_match(request, row.revision)
        version = session.get_one(VersionRow, row.version_id)
        labels = [column.label for column in baselines.columns(session, version)]
        try:
            row.constraints = constraints.checked(body.model_dump(), labels)
        except constraints.ConstraintsInvalidError as error:
            raise Unprocessable(str(error), faults=[Fault("", "bad_constraints", str(error))]) from error
        row.revision += 1
        audit(session, parts, principal, "constraints.replace", f"models/{model}/baselines/{baseline}", owner)
        response.headers["ETag"] = etag(row.revision)
        return row.constraints
