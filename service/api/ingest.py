"""What comes in: predictions, ground truth and protected attributes; what became of them; single records by id."""

import asyncio
import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from service.access import Principal, Scope
from service.api.depends import (
    Page,
    Parts,
    Reader,
    RowReader,
    audit,
    listed,
    model_named,
    moment,
    page_of,
    requires,
    straight,
    version_or_active,
)
from service.assembly import Assembly
from service.ingest import bodies, formats
from service.ingest.columns import GROUND_TRUTH, PREDICTIONS, PROTECTED, Built
from service.ingest.formats import Format, Parsed
from service.ingest.schemas import ModelSchema
from service.ingest.writer import Arrival, payloads
from service.lake import reader
from service.problems import BadRequest, Fault, NotFound, Unprocessable
from service.tables import ArrivalRow, IdRunRow, IngestBatchRow, ModelRow, PendingTruthRow, RejectionRow, VersionRow
from service.words import HOUR, Span, bucket_of, bucket_start, format_time, parse_time

router = APIRouter(prefix="/v1/models/{model}", tags=["ingest"])

SMALL = 32 * 2**10
"""A body up to this size is read at once, record by record."""
LARGE = 2**20
"""A body of JSON from this size on is put into columns by itself, those below together with others."""
_READERS = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "ingest-reader")
"""Threads that read bodies which are not small: more than there are processors would only take turns."""
_RECORD = {
    "prediction_id": "loan-000017",
    "timestamp": "2026-11-22T13:00:00Z",
    "features": {"age": 41, "job": "clerk"},
    "prediction": 1,
    "score": 0.83,
    "tags": {"region": "EU"},
}
_LABEL = {"prediction_id": "loan-000017", "ground_truth": 1}
_ATTRIBUTES = {"prediction_id": "loan-000017", "protected": {"sex": "F"}}
_ANSWER = {
    "accepted": 998,
    "duplicates": 1,
    "rejected_count": 1,
    "rejected": [{"index": 17, "code": "timestamp_in_future", "pointer": "/timestamp", "detail": "…"}],
    "rejected_by_code": {"timestamp_in_future": 1},
    "bad_values": {"wrong_type": 3, "non_finite": 1},
    "batch_id": "019b76daa8007cd4be21a82769e2b2e5",
}


def _documented(example: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what OpenAPI says of a route that reads its body itself."""
    media: dict[str, Any] = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in formats.MEDIA_TYPES}
    media["application/json"] = {"schema": {"type": ["object", "array"]}, "example": dict(example)}
    answer = {"application/json": {"schema": {"type": "object"}, "example": _ANSWER | dict(more or {})}}
    problem = {"application/problem+json": {"schema": {"type": "object"}}}
    refusals = {
        "400": "The body cannot be read",
        "404": "There is no such model",
        "409": "The request with this Idempotency-Key is still running",
        "413": "The body exceeds a limit, which the detail names",
        "415": "The media type or encoding is not read here",
        "429": "Too much is waiting; try again after Retry-After",
        "503": "The database does not answer; try again after Retry-After",
        "507": "The disk is full; nothing of the request was stored",
    }
    return {
        "requestBody": {"required": True, "content": media},
        "responses": {
            "200": {"description": "On disk", "content": answer},
            "422": {"description": "Nothing was accepted", "content": answer},
            **{status: {"description": text, "content": problem} for status, text in refusals.items()},
        },
        "parameters": [
            {
                "name": "strict",
                "in": "query",
                "description": "All or nothing: one refused record refuses the request.",
                "schema": {"type": "boolean", "default": False},
            }
        ],
    }


@router.post(
    "/predictions",
    operation_id="predictions_create",
    summary="Send predictions",
    openapi_extra=_documented(_RECORD),
    dependencies=[Depends(requires(Scope.INGEST))],
)
@straight
async def send_predictions(model: str, request: Request) -> Response:
    """Store predictions; the answer comes once they are on disk."""
    return await _take_in(request, model, PREDICTIONS)


@router.post(
    "/ground-truth",
    operation_id="ground_truth_create",
    summary="Send ground truth",
    openapi_extra=_documented(_LABEL, {"corrected": 0, "waiting": 0}),
    dependencies=[Depends(requires(Scope.INGEST))],
)
@straight
async def send_ground_truth(model: str, request: Request) -> Response:
    """Store labels by prediction id, before, after or again; null withdraws one."""
    return await _take_in(request, model, GROUND_TRUTH)


@router.post(
    "/protected",
    operation_id="protected_create",
    summary="Send protected attributes",
    openapi_extra=_documented(_ATTRIBUTES),
    dependencies=[Depends(requires(Scope.INGEST))],
)
@straight
async def send_protected(model: str, request: Request) -> Response:
    """Store protected attributes by prediction id, apart from all features."""
    return await _take_in(request, model, PROTECTED)


async def _take_in(request: Request, model: str, kind: str) -> Response:
    assembly: Assembly = request.app.state.assembly
    writer, settings = assembly.writer, assembly.settings
    schema = writer.schema(model)
    said = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(request.scope["headers"])}
    form, charset = formats.format_of(said.get("content-type"))
    wire = settings.max_columnar if form.columnar else settings.max_json
    limit = settings.max_columnar_inflated if form.columnar else settings.max_json_inflated
    body = await bodies.read(request.stream(), said, wire=wire, inflated=limit)
    loop = asyncio.get_running_loop()
    arrival = Arrival(model=model, kind=kind, size=max(len(body), 256), strict=_strict(request), loop=loop)
    if "idempotency-key" in said:
        _identify(arrival, request, said, body)
    if form in (Format.JSON, Format.LINES) and len(body) < LARGE:
        small = len(body) <= SMALL
        parsed = arrival.parsed = Parsed(flat=not small and schema.flat)

        def take() -> None:
            parsed.size = formats.read(body, form, charset, parsed, limit=limit)

        if small:
            take()
        else:
            await loop.run_in_executor(_READERS, take)
    else:

        def build(current: ModelSchema) -> Built:
            builder = writer.builder(current, kind)
            return builder.finish(formats.read(body, form, charset, builder, limit=limit))

        def prepare() -> None:
            arrival.built = build(schema)
            arrival.payloads = payloads(arrival.built)

        arrival.build = build
        await loop.run_in_executor(_READERS, prepare)
    answer = await writer.submit(arrival)
    headers = {"Idempotency-Replayed": "true"} if answer.replayed else None
    return Response(answer.body, answer.status, headers, "application/json")


def _strict(request: Request) -> bool:
    if not request.scope["query_string"]:
        return False
    said = request.query_params.get("strict", "false").lower()
    if said not in ("true", "false", "1", "0"):
        detail = "strict is true or false"
        raise Unprocessable(detail, faults=[Fault("query:strict", "bool_parsing", detail)])
    return said in ("true", "1")


def _identify(arrival: Arrival, request: Request, said: Mapping[str, str], body: bytes) -> None:
    """Note key and fingerprint of a request that may come again."""
    key = said["idempotency-key"]
    if not 1 <= len(key) <= 255:
        raise BadRequest("Idempotency-Key has 1 to 255 characters")
    principal = request.state.principal
    route = f"POST {request.url.path}?{request.url.query} {principal.key_id or principal.name}"
    arrival.route = route if len(route) <= 400 else f"POST {hashlib.sha256(route.encode()).hexdigest()}"
    arrival.idempotency_key = key
    kind = said.get("content-type", "").encode()
    arrival.fingerprint = hashlib.sha256(kind + b"\0" + body).hexdigest()


# --- what became of it ------------------------------------------------------------------------------------------------

_COUNTS = ("accepted", "duplicates", "conflicts", "corrected", "late", "rejected")
_From = Annotated[str | None, Query(alias="from", description="RFC 3339; events at or after it.")]
_To = Annotated[str | None, Query(description="RFC 3339; events before it.")]


def _owner(session: Session, principal: Any, name: str) -> ModelRow:
    return model_named(session, principal, name)


@router.get("/ingest", operation_id="ingest_read", summary="What became of the records of each bucket")
def ingest(
    model: str,
    parts: Parts,
    principal: Reader,
    page: Page,
    from_: _From = None,
    to: _To = None,
    kind: str | None = None,
    version: str | None = None,
) -> dict[str, object]:
    """Return per bucket, kind and version what was accepted, repeated, refused, late, and of bad values.

    Records are counted when they are sealed; those that wait are in ``buffered``.
    """
    start, end = moment(from_, "from"), moment(to, "to")
    with parts.database.reading() as session:
        owner = _owner(session, principal, model)
        versions = select(VersionRow.id, VersionRow.name).where(VersionRow.model_id == owner.id)
        names = {row.id: row.name for row in session.execute(versions)}
        statement = select(ArrivalRow).where(ArrivalRow.model_id == owner.id)
        if start is not None:
            statement = statement.where(ArrivalRow.bucket >= bucket_of(start))
        if end is not None:
            statement = statement.where(ArrivalRow.bucket < -(-(end - bucket_start(0)) // HOUR))
        if kind is not None:
            statement = statement.where(ArrivalRow.kind == kind)
        if version is not None:
            keys = [key for key, name in names.items() if name == version]
            statement = statement.where(ArrivalRow.version_id.in_(keys))
        rows, cursor = page_of(session, statement, [ArrivalRow.bucket, ArrivalRow.id], page)
        waiting = session.execute(
            select(IngestBatchRow.kind, func.sum(IngestBatchRow.rows))
            .where(IngestBatchRow.model_id == owner.id)
            .group_by(IngestBatchRow.kind)
        ).all()
        return listed([_arrivals(row, names) for row in rows], cursor) | {
            "buffered": {row[0]: int(row[1]) for row in waiting}
        }


def _arrivals(row: ArrivalRow, names: Mapping[int, str]) -> dict[str, object]:
    reasons = row.reasons or {}
    bad = row.version_id != 0 and row.kind == PREDICTIONS
    return {
        "bucket": format_time(bucket_start(row.bucket)),
        "kind": row.kind,
        "version": names.get(row.version_id),
        **{name: getattr(row, name) for name in _COUNTS},
        "rejected_by_code": {} if bad else reasons,
        "bad_values": reasons if bad else {},
    }


@router.get("/rejections", operation_id="rejections_list", summary="List refused records")
def rejections(
    model: str, parts: Parts, principal: Reader, page: Page, code: str | None = None, kind: str | None = None
) -> dict[str, object]:
    """List the newest refused records (a thousand are kept) with the reasons, newest first."""
    with parts.database.reading() as session:
        owner = _owner(session, principal, model)
        statement = select(RejectionRow).where(RejectionRow.model_id == owner.id)
        if code is not None:
            statement = statement.where(RejectionRow.code == code)
        if kind is not None:
            statement = statement.where(RejectionRow.kind == kind)
        rows, cursor = page_of(session, statement, [RejectionRow.id], page, descending=True)
        return listed(
            [
                {
                    "kind": row.kind,
                    "batch_id": row.batch,
                    "index": row.position,
                    "code": row.code,
                    "pointer": row.pointer,
                    "detail": row.detail,
                    "received_at": format_time(row.received_at),
                }
                for row in rows
            ],
            cursor,
        )


@router.get("/ground-truth/unmatched", operation_id="ground_truth_unmatched", summary="List labels without prediction")
def unmatched(model: str, parts: Parts, principal: RowReader, page: Page) -> dict[str, object]:
    """List labels whose prediction has not come, oldest first, beside one id that is known."""
    with parts.database.reading() as session:
        owner = _owner(session, principal, model)
        waiting = (PendingTruthRow.model_id == owner.id, PendingTruthRow.kind == GROUND_TRUTH)
        statement = select(PendingTruthRow).where(*waiting)
        rows, cursor = page_of(session, statement, [PendingTruthRow.id], page)
        return listed(
            [
                {
                    "prediction_id": row.prediction_id,
                    "version": row.version,
                    "ground_truth": row.value,
                    "received_at": format_time(row.received_at),
                }
                for row in rows
            ],
            cursor,
        ) | {
            "count": session.scalar(select(func.count()).select_from(PendingTruthRow).where(*waiting)),
            "known_prediction_id": _known_id(session, parts, owner),
        }


def _known_id(session: Session, parts: Assembly, owner: ModelRow) -> str | None:
    """Return any id of a sealed prediction, so that a difference in spelling can be seen."""
    if session.scalar(select(IdRunRow.id).where(IdRunRow.model_id == owner.id).limit(1)) is None:
        return None
    newest = session.scalar(
        select(VersionRow)
        .where(VersionRow.model_id == owner.id, VersionRow.last_event_at.is_not(None))
        .order_by(VersionRow.last_event_at.desc())
        .limit(1)
    )
    if newest is None or newest.last_event_at is None:
        return None
    span = Span(newest.last_event_at - HOUR, newest.last_event_at + HOUR)
    for batch in reader.batches(session, parts.lake, owner.id, newest.id, span, ["prediction_id"]):
        if batch.num_rows:
            return str(batch.column("prediction_id")[0].as_py())
    return None


# --- single records ---------------------------------------------------------------------------------------------------


@router.get("/predictions/{prediction_id:path}", operation_id="predictions_read", summary="Read a prediction")
def prediction(model: str, prediction_id: str, parts: Parts, principal: RowReader) -> dict[str, object]:
    """Return what is known of an id: one item per version that predicted it, with its newest label."""
    with parts.database.reading() as session:
        owner = _owner(session, principal, model)
        found = reader.prediction(session, parts.lake, owner, prediction_id)
    if not found:
        raise NotFound(f"model {model!r} has no prediction {prediction_id!r}")
    return {"prediction_id": prediction_id, "items": found}


@router.get("/predictions", operation_id="predictions_list", summary="List predictions of a span")
def predictions(
    model: str,
    parts: Parts,
    principal: RowReader,
    page: Page,
    from_: Annotated[str, Query(alias="from", description="RFC 3339, inclusive.")],
    to: Annotated[str, Query(description="RFC 3339, exclusive.")],
    version: str | None = None,
) -> dict[str, object]:
    """List a version's predictions in order of time; what waits in the buffer is sealed first."""
    span = Span(parse_time(from_, "query:from"), parse_time(to, "query:to"))
    if span.start >= span.end:
        raise Unprocessable("from is before to")
    with parts.database.reading() as session:
        owner = _owner(session, principal, model)
        row = version_or_active(session, owner, version)
    parts.sealer.seal(owner.id)
    with parts.database.reading() as session:
        try:
            found, cursor = reader.rows(session, parts.lake, owner, row, span, limit=page.limit, cursor=page.cursor)
        except (ValueError, OverflowError):
            raise BadRequest("the cursor is not one that this list has given") from None
    return listed(found, cursor)


@router.get("/protected/{prediction_id:path}", operation_id="protected_read", summary="Read protected attributes")
def protected(
    model: str, prediction_id: str, parts: Parts, principal: Annotated[Principal, Depends(requires(Scope.PROTECTED))]
) -> dict[str, object]:
    """Return the newest value of each protected attribute of an id; nothing else of it. Each look is audited."""
    with parts.database.reading() as session:
        owner = _owner(session, principal, model)
    parts.sealer.seal(owner.id)
    with parts.database.writing() as session:
        owner = _owner(session, principal, model)
        found = reader.attributes(session, parts.lake, owner, prediction_id)
        if not found:
            raise NotFound(f"model {model!r} knows no protected attributes of {prediction_id!r}")
        audit(session, parts, principal, "protected.read", f"models/{model}/protected/{prediction_id}", owner)
    return {"prediction_id": prediction_id, "protected": found}
