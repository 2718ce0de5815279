"""The service itself: is it alive, is it ready, which one is it, what does it offer, and figures for Prometheus."""

import base64
import hashlib
import html
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from monitors.contract import CONTRACT_VERSION
from service import schema
from service.access import Principal, Scope
from service.api.depends import Parts, Reader, visible
from service.assembly import Assembly
from service.database import microseconds
from service.problems import Problem
from service.tables import (
    AlertRow,
    ArrivalRow,
    DeliveryRow,
    IngestBatchRow,
    ModelRow,
    ModelStatusRow,
    MonitorRow,
    NoticeRow,
    VersionRow,
)

router = APIRouter(tags=["service"])

SPOOL_FACTOR = 6
"""A record that waits so many times longer than it should means that nobody seals."""
Samples = Iterable[tuple[Mapping[str, str], float]]


@router.get("/healthz", operation_id="service_health", summary="Is the process alive")
async def health() -> dict[str, str]:
    """Answer as long as the process can; looks at nothing else."""
    return {"status": "ok"}


@router.get("/readyz", operation_id="service_ready", summary="Is the service ready")
def ready(request: Request, parts: Parts) -> JSONResponse:
    """Answer 200 when database, schema, disk and log are well, else 503; the reasons need a key."""
    reasons = ["the service is stopping"] if getattr(request.app.state, "draining", False) else list(_unready(parts))
    answer: dict[str, Any] = {"status": "unavailable" if reasons else "ready"}
    header = request.headers.get("authorization")
    if header is not None:
        try:
            if parts.keyring.authenticate(header).may(Scope.READ):
                answer["reasons"] = reasons
        except Problem:
            pass  # a wrong key reads what no key reads
        except SQLAlchemyError:
            pass  # the database that would know the key is what is wrong
    return JSONResponse(answer, 503 if reasons else 200, {"Cache-Control": "no-store"})


def _unready(parts: Assembly) -> Iterator[str]:
    """Yield why the service cannot do its work."""
    settings = parts.settings
    try:
        with parts.database.reading() as session:
            step, head = schema.current(session.connection()), schema.head()
            if step != head:
                yield f"the database is at migration {step or 'none'}, the code needs {head}"
            oldest = session.scalar(select(func.min(IngestBatchRow.received_at)))
            if oldest is not None:
                waited = (parts.clock.now() - oldest).total_seconds()
                if waited > SPOOL_FACTOR * settings.seal_seconds:
                    yield f"the oldest record has waited {waited:.0f} s to be sealed"
    except SQLAlchemyError as error:
        yield f"the database does not answer: {type(error).__name__}"
    try:
        about = os.statvfs(settings.data_dir)
        free = about.f_bavail * about.f_frsize
        if free < settings.min_free_bytes:
            yield f"the disk has {free} bytes left, less than PLUMBLINE_MIN_FREE_BYTES = {settings.min_free_bytes}"
        if not os.access(settings.lake, os.W_OK):
            yield "the lake's folder cannot be written"
    except OSError as error:
        yield f"the data folder cannot be read: {type(error).__name__}"


@router.get("/version", operation_id="service_version", summary="Which version runs")
def version(parts: Parts, principal: Reader) -> dict[str, object]:  # noqa: ARG001 - the scope is declared by it
    """Return the versions of the service, its schema and its contract with plug-ins."""
    return {
        "software": parts.software,
        "schema": schema.head(),
        "contract": CONTRACT_VERSION,
        "python": platform.python_version(),
        "database": "sqlite" if parts.database.is_sqlite else "postgresql",
    }


# --- what is offered --------------------------------------------------------------------------------------------------


@router.get(
    "/openapi.json", operation_id="service_openapi", summary="The interface, described", include_in_schema=False
)
def openapi(request: Request, principal: Reader) -> dict[str, Any]:  # noqa: ARG001 - the scope is declared by it
    """Return the OpenAPI 3.1 document of this very service."""
    document: dict[str, Any] = request.app.openapi()
    return document


STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: light-dark(#0f5a6e, #6cc7d9); }
a, summary b { color: var(--accent); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); text-transform: capitalize; }
details { border-bottom: 1px solid var(--line); padding: .4rem 0; }
summary { cursor: pointer; display: flex; gap: .8rem; align-items: baseline; }
summary b { min-width: 4.5rem; font-size: .8rem; letter-spacing: .04em; }
summary code { flex: 1; overflow-wrap: anywhere; } summary span { opacity: .75; }
pre { background: var(--soft); padding: .8rem; overflow: auto; border-radius: 6px; }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
.scope { border: 1px solid var(--line); border-radius: 99px; padding: 0 .6rem; font-size: .8rem; }
"""
_MARK = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_MARK}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def _page(title: str, body: str) -> HTMLResponse:
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{title}</h1>{body}</body></html>"
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs", operation_id="service_docs", summary="The interface, to read", include_in_schema=False)
def docs(request: Request, principal: Reader) -> HTMLResponse:  # noqa: ARG001 - the scope is declared by it
    """Return every operation on one page, without a script or anything from outside."""
    document = request.app.openapi()
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            group = (operation.get("tags") or ["other"])[0]
            groups.setdefault(group, []).append(_operation(method, path, operation, _example(document, operation)))
    body = "".join(f"<h2>{html.escape(group)}</h2>{''.join(parts)}" for group, parts in sorted(groups.items()))
    lead = '<p>The same as a document: <a href="openapi.json">openapi.json</a>. '
    lead += 'Errors: <a href="docs/problems">problems</a>. Send a key: <code>Authorization: Bearer plk_…</code></p>'
    return _page("Plumbline: the interface", lead + body)


def _example(document: Mapping[str, Any], operation: Mapping[str, Any]) -> str:
    """Return the first example of an operation's JSON body, "" where it has none."""
    media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = media.get("schema", {})
    for each in (schema, *schema.get("anyOf", ())):
        name = each.get("$ref", "").rpartition("/")[2]
        found = document["components"]["schemas"].get(name, {}).get("examples")
        if found:
            return json.dumps(found[0], indent=2, ensure_ascii=False)
    return json.dumps(media["example"], indent=2, ensure_ascii=False) if "example" in media else ""


def _operation(method: str, path: str, operation: Mapping[str, Any], example: str) -> str:
    scope = operation.get("x-scope")
    badge = f'<span class="scope">{html.escape(scope)}</span>' if scope else '<span class="scope">open</span>'
    rows = "".join(
        f"<tr><th><code>{html.escape(parameter['name'])}</code></th><td>{html.escape(parameter['in'])}</td>"
        f"<td>{html.escape(parameter.get('description', ''))}</td></tr>"
        for parameter in operation.get("parameters", [])
    )
    table = f"<table>{rows}</table>" if rows else ""
    body = f"<pre>{html.escape(example)}</pre>" if example else ""
    return (
        f'<details id="{html.escape(operation.get("operationId", ""))}"><summary><b>{method.upper()}</b>'
        f"<code>{html.escape(path)}</code><span>{html.escape(operation.get('summary', ''))}</span>{badge}</summary>"
        f"<p>{html.escape(operation.get('description', ''))}</p>{table}{body}</details>"
    )


@router.get("/docs/problems", operation_id="service_problems", summary="The errors", include_in_schema=False)
def problem_types(principal: Reader) -> HTMLResponse:  # noqa: ARG001 - the scope is declared by it
    """Return what each `type` of a problem document means."""
    rows = "".join(
        f'<tr id="{_code(kind)}"><th><code>{_code(kind)}</code></th><td>{kind.status}</td>'
        f"<td>{html.escape(kind.title)}. {html.escape((kind.__doc__ or '').strip())}</td></tr>"
        for kind in sorted(_problems(Problem), key=lambda kind: (kind.status, kind.__name__))
    )
    return _page("Plumbline: errors", f"<table>{rows}</table>")


def _code(kind: type[Problem]) -> str:
    return html.escape(kind.__new__(kind).code)


def _problems(kind: type[Problem]) -> set[type[Problem]]:
    found = {kind}
    for below in kind.__subclasses__():
        found |= _problems(below)
    return found


# --- figures ----------------------------------------------------------------------------------------------------------


@router.get("/metrics", operation_id="service_metrics", summary="Figures for Prometheus", include_in_schema=False)
def figures(parts: Parts, principal: Reader) -> PlainTextResponse:
    """Return the state of the service and of the models the key may see, in Prometheus' text format."""
    with parts.database.reading() as session:
        lines = list(_figures(session, parts, principal))
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")


def _figures(session: Session, parts: Assembly, principal: Principal) -> Iterator[str]:
    models = {row.id: row.name for row in session.scalars(visible(principal, select(ModelRow))).all()}
    build = {"version": parts.software, "python": platform.python_version()}
    yield from _family("plumbline_build_info", "gauge", "Which version runs.", [(build, 1.0)])
    yield from _family("plumbline_ingest_records_total", "counter", "Records by outcome.", _arrived(session, models))
    waiting = session.execute(
        select(IngestBatchRow.model_id, func.sum(IngestBatchRow.rows), func.min(IngestBatchRow.received_at)).group_by(
            IngestBatchRow.model_id
        )
    ).all()
    held = [(row, {"model": models[row[0]]}) for row in waiting if row[0] in models]
    now = parts.clock.now()
    rows = [(labels, float(row[1])) for row, labels in held]
    yield from _family("plumbline_ingest_buffered_rows", "gauge", "Rows not sealed yet.", rows)
    ages = [(labels, (now - row[2]).total_seconds()) for row, labels in held]
    yield from _family("plumbline_ingest_lag_seconds", "gauge", "Age of the oldest row not sealed yet.", ages)
    yield from _family(
        "plumbline_alerts_open", "gauge", "Episodes that are open or acknowledged.", _alerts(session, models)
    )
    yield from _watches(session, models)
    if principal.models is None:
        yield from _deliveries(session)
        notices = session.execute(
            select(NoticeRow.kind, func.count()).where(NoticeRow.resolved_at.is_(None)).group_by(NoticeRow.kind)
        ).all()
        told: list[tuple[Mapping[str, str], float]] = [({"kind": kind}, float(count)) for kind, count in notices]
        yield from _family("plumbline_notices_open", "gauge", "Things about the installation that need a person.", told)


def _arrived(session: Session, models: Mapping[int, str]) -> Samples:
    outcomes = ("accepted", "duplicates", "conflicts", "rejected", "late")
    sums = [func.sum(getattr(ArrivalRow, name)) for name in outcomes]
    statement = select(ArrivalRow.model_id, ArrivalRow.kind, *sums).group_by(ArrivalRow.model_id, ArrivalRow.kind)
    for model_id, kind, *counts in session.execute(statement).all():
        for outcome, count in zip(outcomes, counts, strict=True):
            if model_id in models:
                yield {"model": models[model_id], "kind": kind, "outcome": outcome}, float(count)


def _alerts(session: Session, models: Mapping[int, str]) -> Samples:
    statement = (
        select(AlertRow.model_id, AlertRow.kind, func.count())
        .where(AlertRow.state != "resolved")
        .group_by(AlertRow.model_id, AlertRow.kind)
    )
    counts = {(model_id, kind): count for model_id, kind, count in session.execute(statement).all()}
    for model_id, name in models.items():
        for kind in ("episode", "blind", "failing"):
            yield {"model": name, "kind": kind}, float(counts.get((model_id, kind), 0))


def _watches(session: Session, models: Mapping[int, str]) -> Iterator[str]:
    rows = session.execute(
        select(ModelStatusRow, MonitorRow.name, VersionRow.name)
        .join(MonitorRow, MonitorRow.id == ModelStatusRow.monitor_id)
        .join(VersionRow, VersionRow.id == ModelStatusRow.version_id)
    ).all()
    kept = [
        (row, {"model": models[row.model_id], "monitor": monitor, "version": version})
        for row, monitor, version in rows
        if row.model_id in models
    ]
    yield from _family(
        "plumbline_monitor_window_end_timestamp_seconds",
        "gauge",
        "End of the last window that was measured.",
        [(labels, microseconds(row.ends_at) / 1e6) for row, labels in kept],
    )
    yield from _family(
        "plumbline_monitor_violations",
        "gauge",
        "Violated results of the last window.",
        [(labels, float(row.violated)) for row, labels in kept],
    )
    yield from _family(
        "plumbline_monitor_not_measured",
        "gauge",
        "Results of the last window that could not be measured.",
        [(labels, float(row.not_measured)) for row, labels in kept],
    )


def _deliveries(session: Session) -> Iterator[str]:
    counts = session.execute(select(DeliveryRow.state, func.count()).group_by(DeliveryRow.state)).all()
    yield from _family(
        "plumbline_webhook_deliveries",
        "gauge",
        "Calls that are owed, delivered or given up.",
        [({"state": state}, float(count)) for state, count in counts],
    )
    due: datetime | None = session.scalar(
        select(func.min(DeliveryRow.created_at)).where(DeliveryRow.state == "pending")
    )
    oldest: list[tuple[Mapping[str, str], float]] = [] if due is None else [({}, microseconds(due) / 1e6)]
    yield from _family(
        "plumbline_webhook_oldest_pending_timestamp_seconds",
        "gauge",
        "When the oldest call that waits was owed.",
        oldest,
    )


def _family(name: str, kind: str, told: str, samples: Samples) -> Iterator[str]:
    """Yield one family in Prometheus' text format."""
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
