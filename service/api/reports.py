"""Reports about a window, made when they are asked for: Evidently's, by Evidently itself in the worker process."""

import re
from typing import Annotated, Any, Literal

import pyarrow as pa
import zstandard
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import ConfigDict, Field
from sqlalchemy import select

from monitors.contract import Role, Type
from service import baselines
from service.api.bodies import Body, Name, Time
from service.api.depends import Operator, Parts, Reader, audit, model_named
from service.api.jobs import Progress, answer, jobs_of
from service.api.problems import refused
from service.assembly import Assembly
from service.problems import Conflict, Fault, NotFound
from service.tables import ModelRow, ReportRow, VersionRow
from service.words import Span, format_time, new_id, parse_time
from service.worker import Limits

router = APIRouter(prefix="/v1", tags=["reports"])

SHOWN = (Type.NUMERIC, Type.CATEGORICAL, Type.BOOLEAN)
SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
"""A report draws itself by scripts of its own, in an origin of its own: no cookie, no storage, no request leaves it."""
LIMITS = Limits(seconds=180.0, resident_bytes=3 * 2**30)


class ReportBody(Body):
    """What is reported about which window."""

    kind: Literal["evidently"] = Field("evidently", description="Evidently's data drift report, as HTML.")
    since: Time = Field(alias="from")
    until: Time = Field(alias="to")
    version: Name | None = Field(None, description="The version that is reported about; the active one by default.")
    features: Annotated[list[Name], Field(max_length=500)] = Field(
        default_factory=list, description="Only these features; all by default."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"kind": "evidently", "from": "2026-11-01T00:00:00Z", "to": "2026-11-08T00:00:00Z"}]
        }
    )


@router.post(
    "/models/{model}/reports", status_code=201, operation_id="reports_create", summary="Make a report about a window"
)
async def create(model: str, body: ReportBody, request: Request, parts: Parts, principal: Operator) -> Response:
    """Make a report of the row samples of a window and of the baseline in force; 202 where it takes long."""
    span = Span(parse_time(body.since, "/from"), parse_time(body.until, "/to"))
    if span.end <= span.start:
        raise refused([Fault("/to", "not_after_from", "the window ends before it begins")])

    def found() -> tuple[int, int, str]:
        with parts.database.reading() as session:
            owner = model_named(session, principal, model)
            return owner.id, baselines.version_of(session, owner, body.version).id, owner.name

    model_id, version_id, name = await run_sync(found)
    uid = new_id()

    def work(progress: Progress) -> dict[str, Any]:
        parts.sealer.seal(model_id)
        progress.check()
        tables, types, told = _rows(parts, version_id, span, body.features)
        made, _ = parts.worker.call(
            "evidently.report", {"types": types}, tables=tables, limits=LIMITS, check=progress.check
        )
        details = {"model": name, "window": {"from": format_time(span.start), "to": format_time(span.end)}, **told}
        with parts.database.writing() as session:
            owner = session.get_one(ModelRow, model_id)
            row = ReportRow(
                uid=uid,
                model_id=model_id,
                kind=body.kind,
                details=details,
                document=zstandard.compress(made["html"].encode(), 9),
                created_at=parts.clock.now(),
            )
            session.add(row)
            audit(session, parts, principal, "report.create", f"models/{name}/reports/{uid}", owner)
            return document_of(row)

    job = await run_sync(lambda: jobs_of(request.app).start("report", model_id, {"kind": body.kind}, work))
    return await answer(request, job, 201, f"/v1/reports/{uid}")


def _rows(
    parts: Assembly, version_id: int, span: Span, features: list[str]
) -> tuple[dict[str, pa.Table], dict[str, str], dict[str, Any]]:
    """Return both row samples in the columns that a report shows, their types, and what is told about them."""
    with parts.database.reading() as session:
        version = session.get_one(VersionRow, version_id)
        baseline = baselines.active(session, version, span.start)
        if baseline is None:
            raise Conflict("the version has no baseline to report against; post one first")
        columns = baselines.columns(session, version)
        window = parts.profiles.sample(session, version, span)
        rows = baselines.sample(parts.lake, baseline)
        told = {"version": version.name, "baseline": baseline.name}
    if window is None or rows is None:
        raise Conflict("no record fell into the window" if window is None else "the baseline keeps no rows")
    chosen = [
        column
        for column in columns
        if column.type in SHOWN
        and (not features or column.label in features or column.role is not Role.FEATURE)
        and column.name in window.column_names
        and column.name in rows.column_names
    ]
    types = {column.label: column.type.value for column in chosen}
    names, labels = [column.name for column in chosen], list(types)
    tables = {
        side: table.select(names).rename_columns(labels) for side, table in (("window", window), ("baseline", rows))
    }
    return tables, types, told | {"rows": window.num_rows, "baseline_rows": rows.num_rows}


def document_of(row: ReportRow) -> dict[str, Any]:
    """Return what is known of a report beside the report itself."""
    return {"id": row.uid, "kind": row.kind, **row.details, "created_at": format_time(row.created_at)}


@router.get("/reports/{id}", operation_id="reports_read", summary="Read a report")
def read(id: str, request: Request, parts: Parts, principal: Reader) -> Response:  # noqa: A002 - the public name
    """Return a report as it was made: HTML in a sandbox, or with `Accept: application/json` what it is about."""
    with parts.database.reading() as session:
        known = select(ReportRow).where(ReportRow.uid == id)
        row = session.scalar(known) if re.fullmatch(r"[0-9a-f]{32}", id) else None
        if row is None or not principal.sees(session.get_one(ModelRow, row.model_id).name):
            raise NotFound(f"there is no report {id!r}")
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(document_of(row))
        html = zstandard.decompress(row.document)
    headers = {
        "Content-Security-Policy": SANDBOX,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(html, headers=headers)
