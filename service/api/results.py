"""What was found: runs, their results, series of one metric, and the profile of any window."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session, aliased

from monitors.layout import CategoryLayout, Layout, NumericLayout
from monitors.profile import CategoryProfile, NumericProfile
from monitors.slices import Slice
from service import runs, slices
from service.access import Principal
from service.api.depends import (
    Page,
    Paging,
    Parts,
    Reader,
    listed,
    model_named,
    moment,
    monitor_named,
    page_of,
    version_named,
    version_or_active,
)
from service.api.formats import CONTENT, rows_in_form
from service.problems import BaselineMissing, Fault, NotFound, Unprocessable
from service.tables import BaselineRow, ModelRow, MonitorRow, RunRow, SliceRow, VersionRow
from service.words import Span, bucket_of, bucket_start, format_time

router = APIRouter(prefix="/v1/models/{model}", tags=["results"])

SHOWN_BINS = 50
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
Status = Literal[
    "queued",
    "running",
    "ok",
    "violations",
    "partial",
    "waiting_for_labels",
    "insufficient_data",
    "no_data",
    "failed",
]
From = Annotated[str | None, Query(alias="from", description="RFC 3339 with an offset; windows that end after it.")]
To = Annotated[str | None, Query(description="RFC 3339 with an offset; windows that begin before it.")]
VersionName = Annotated[str | None, Query(description="Only this version.")]

RESULT_COLUMNS: Mapping[str, pa.DataType] = {
    "from": pa.string(),
    "to": pa.string(),
    "monitor": pa.string(),
    "version": pa.string(),
    "run": pa.string(),
    "status": pa.string(),
    "metric": pa.string(),
    "feature": pa.string(),
    "slice": pa.string(),
    "attribute": pa.string(),
    "group": pa.string(),
    "class": pa.string(),
    "scale": pa.int64(),
    "value": pa.float64(),
    "baseline_value": pa.float64(),
    "effect": pa.float64(),
    "min_effect": pa.float64(),
    "p_value": pa.float64(),
    "alpha": pa.float64(),
    "threshold": pa.float64(),
    "rule": pa.string(),
    "direction": pa.string(),
    "verdict": pa.string(),
    "reason": pa.string(),
    "n_window": pa.int64(),
    "n_baseline": pa.int64(),
}


def document_of(session: Session, row: RunRow, *, results: bool = False) -> dict[str, Any]:
    """Return a run as the interface shows it."""
    monitor, version = session.get_one(MonitorRow, row.monitor_id), session.get_one(VersionRow, row.version_id)
    baseline = None if row.baseline_id is None else session.get(BaselineRow, row.baseline_id)
    coverage = None if row.labelled_rows is None or not row.rows else row.labelled_rows / row.rows
    document: dict[str, Any] = {
        "id": row.uid,
        "monitor": monitor.name,
        "kind": monitor.kind,
        "version": version.name,
        "window": {"from": format_time(row.starts_at), "to": format_time(row.ends_at)},
        "status": row.status,
        "reason": row.reason or None,
        "revision": row.revision,
        "current": row.current,
        "judged": row.judged,
        "rows": row.rows,
        "labelled_rows": row.labelled_rows,
        "label_coverage": coverage,
        "baseline": None if baseline is None else baseline.name,
        "layout": row.layout,
        "alpha": row.alpha,
        "counts": {"ok": row.ok, "violated": row.violated, "not_measured": row.not_measured},
        "replayed": row.replayed,
        "backfill": row.backfill,
        "software": row.software,
    }
    for name in ("scheduled_for", "started_at", "finished_at"):
        value = getattr(row, name)
        document[name] = None if value is None else format_time(value)
    if row.status == "failed":
        document["error"] = row.reason
    if results:
        document["results"] = runs.decode_results(row.document)
    return document


def _selected(
    session: Session,
    model: ModelRow,
    start: str | None,
    end: str | None,
    version: str | None,
    status: str | None,
    revision: str | None,
    monitor: MonitorRow | None,
    as_of: datetime | None = None,
) -> Select[Any]:
    statement = select(RunRow).where(RunRow.model_id == model.id)
    if monitor is not None:
        statement = statement.where(RunRow.monitor_id == monitor.id)
    if as_of is not None:
        statement = statement.where(*_in_force(as_of))
    elif revision != "all":
        statement = statement.where(RunRow.current.is_(True))
    if version is not None:
        statement = statement.where(RunRow.version_id == version_named(session, model, version).id)
    if status is not None:
        statement = statement.where(RunRow.status == status)
    if (first := moment(start, "from")) is not None:
        statement = statement.where(RunRow.ends_at > first)
    if (last := moment(end, "to")) is not None:
        statement = statement.where(RunRow.starts_at < last)
    return statement


def _in_force(as_of: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a run was the newest revision of its window that was finished at a time."""
    later = aliased(RunRow)
    newer = select(later.id).where(
        later.monitor_id == RunRow.monitor_id,
        later.version_id == RunRow.version_id,
        later.starts_at == RunRow.starts_at,
        later.ends_at == RunRow.ends_at,
        later.revision > RunRow.revision,
        later.finished_at <= as_of,
    )
    return RunRow.finished_at <= as_of, ~newer.exists()


def _page(session: Session, statement: Select[Any], page: Paging) -> tuple[list[RunRow], str | None]:
    return page_of(session, statement, [RunRow.ends_at, RunRow.id], page, descending=True)


@router.get("/runs", operation_id="runs_list_all", summary="List runs of all monitors")
def index_all(
    model: str,
    parts: Parts,
    principal: Reader,
    page: Page,
    from_: From = None,
    to: To = None,
    version: VersionName = None,
    status: Status | None = None,
    revision: Annotated[Literal["all"] | None, Query(description="Earlier revisions too.")] = None,
) -> dict[str, Any]:
    """List runs of all monitors, the newest windows first."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        statement = _selected(session, owner, from_, to, version, status, revision, None)
        rows, cursor = _page(session, statement, page)
        return listed([document_of(session, row) for row in rows], cursor)


@router.get("/monitors/{monitor}/runs", operation_id="runs_list", summary="List runs")
def index(
    model: str,
    monitor: str,
    parts: Parts,
    principal: Reader,
    page: Page,
    from_: From = None,
    to: To = None,
    version: VersionName = None,
    status: Status | None = None,
    revision: Annotated[Literal["all"] | None, Query(description="Earlier revisions too.")] = None,
) -> dict[str, Any]:
    """List a monitor's runs, the newest windows first."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        watch = monitor_named(session, owner, monitor)
        statement = _selected(session, owner, from_, to, version, status, revision, watch)
        rows, cursor = _page(session, statement, page)
        return listed([document_of(session, row) for row in rows], cursor)


@router.get("/monitors/{monitor}/runs/{run}", operation_id="runs_read", summary="Read a run")
def read(model: str, monitor: str, run: str, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return a run with every result, deciding or only shown."""
    with parts.database.reading() as session:
        watch = monitor_named(session, model_named(session, principal, model), monitor)
        return _run(session, select(RunRow).where(RunRow.monitor_id == watch.id), run)


@router.get("/runs/{run}", operation_id="runs_read_by_id", summary="Read a run by its id")
def read_by_id(model: str, run: str, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return a run with every result, whichever monitor it belongs to."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        return _run(session, select(RunRow).where(RunRow.model_id == owner.id), run)


def _run(session: Session, statement: Select[Any], uid: str) -> dict[str, Any]:
    row = session.scalar(statement.where(RunRow.uid == uid)) if uid.isascii() and uid.isalnum() else None
    if row is None:
        raise NotFound(f"there is no run {uid!r}")
    return document_of(session, row, results=True)


def _flat(session: Session, rows: list[RunRow], wanted: Mapping[str, object], shown: bool) -> Iterator[dict[str, Any]]:
    """Yield the results of runs that have the wanted members, each with its window, monitor and version."""
    for row in rows:
        monitor, version = session.get_one(MonitorRow, row.monitor_id), session.get_one(VersionRow, row.version_id)
        about = {
            "from": format_time(row.starts_at),
            "to": format_time(row.ends_at),
            "monitor": monitor.name,
            "version": version.name,
            "run": row.uid,
            "status": row.status,
        }
        for result in runs.decode_results(row.document):
            if not shown and not (result.get("decides", True) and result.get("verdict") is not None):
                continue
            if all(value is None or result.get(name) == value for name, value in wanted.items()):
                yield about | result


def _found(
    request: Request,
    parts: Parts,
    principal: Principal,
    model: str,
    page: Paging,
    times: tuple[str | None, str | None],
    version: str | None,
    monitor: str | None,
    wanted: Mapping[str, object],
    *,
    shown: bool,
    oldest_first: bool,
    as_of: str | None = None,
) -> Response:
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        watch = None if monitor is None else monitor_named(session, owner, monitor)
        statement = _selected(session, owner, *times, version, None, None, watch, moment(as_of, "as_of"))
        statement = statement.where(RunRow.document.is_not(None))
        rows, cursor = _page(session, statement, page)
        items = list(_flat(session, rows[::-1] if oldest_first else rows, wanted, shown))
    return rows_in_form(request, items, RESULT_COLUMNS, cursor)


@router.get("/results", operation_id="results_list", summary="List results", responses=CONTENT)
def results(
    model: str,
    request: Request,
    parts: Parts,
    principal: Reader,
    page: Page,
    from_: From = None,
    to: To = None,
    version: VersionName = None,
    monitor: Annotated[str | None, Query(description="Only this monitor.")] = None,
    metric: Annotated[str | None, Query(description="Only this metric.")] = None,
    feature: Annotated[str | None, Query(description="Only this feature.")] = None,
    verdict: Annotated[Literal["ok", "violated", "not_measured"] | None, Query()] = None,
    scale: Annotated[int | None, Query(ge=1, le=366)] = None,
) -> Response:
    """List the deciding results, the newest windows first; `limit` counts runs."""
    wanted = {"metric": metric, "feature": feature, "verdict": verdict, "scale": scale}
    times = (from_, to)
    return _found(
        request, parts, principal, model, page, times, version, monitor, wanted, shown=False, oldest_first=False
    )


@router.get("/metrics", operation_id="metrics_series", summary="Follow a metric over time", responses=CONTENT)
def series(
    model: str,
    request: Request,
    parts: Parts,
    principal: Reader,
    page: Page,
    metric: Annotated[str, Query(max_length=64, description="A name of the catalogue.")],
    from_: From = None,
    to: To = None,
    version: VersionName = None,
    monitor: Annotated[str | None, Query(description="Only this monitor.")] = None,
    feature: Annotated[str | None, Query(description="Only this feature.")] = None,
    group: Annotated[str | None, Query(description="Only this group.")] = None,
    scale: Annotated[int | None, Query(ge=1, le=366)] = None,
    as_of: Annotated[str | None, Query(description="As it was known at this time, before later revisions.")] = None,
) -> Response:
    """Return the values of one metric window by window, judged or only shown; `limit` counts runs."""
    wanted = {"metric": metric, "feature": feature, "group": group, "scale": scale}
    times = (from_, to)
    return _found(
        request,
        parts,
        principal,
        model,
        page,
        times,
        version,
        monitor,
        wanted,
        shown=True,
        oldest_first=True,
        as_of=as_of,
    )


# --- profiles ---------------------------------------------------------------------------------------------------------


@router.get("/profile", operation_id="profiles_read", summary="Read the profile of a window")
def profile(
    model: str,
    parts: Parts,
    principal: Reader,
    from_: Annotated[str, Query(alias="from", description="A whole hour.")],
    to: Annotated[str, Query(description="A whole hour.")],
    version: VersionName = None,
    feature: Annotated[str | None, Query(description="Only this column.")] = None,
    slice_: Annotated[
        str | None, Query(alias="slice", description="Only the rows of this slice; of `by` one is `name=value`.")
    ] = None,
) -> dict[str, Any]:
    """Return counts, moments, quantiles and a histogram of each column of any window of whole hours."""
    span = whole_hours(from_, to)
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        row = version_or_active(session, owner, version)
        if row.layout is None:
            raise BaselineMissing(f"version {row.name!r} has no baseline, and so no bins to count in")
        profiles = parts.profiles if slice_ is None else parts.profiles.of(slice_of(session, owner, slice_))
        found = profiles.window(session, row, row.layout, span, labels=True)
        layout = parts.profiles.layout(session, row.id, row.layout)
    columns = found.columns
    labels = {name.removeprefix("features."): name for name in columns}
    if feature is not None and feature not in labels:
        raise NotFound(f"the profile has no column {feature!r}")
    return {
        "version": row.name,
        "window": {"from": format_time(span.start), "to": format_time(span.end)},
        "layout": row.layout,
        "rows": found.rows,
        "columns": {
            label: _column(layout, name, columns[name]) for label, name in labels.items() if feature in (None, label)
        },
    }


def slice_of(session: Session, model: ModelRow, name: str) -> Slice:
    """Return a model's slice by its name, of those by value as ``name=value``; NotFound where there is none."""
    declared, equals, value = name.partition("=")
    row = session.scalar(select(SliceRow).where(SliceRow.model_id == model.id, SliceRow.name == declared))
    found = None if row is None else slices.declared_of(row)
    if found is None or bool(equals) != bool(found.by):
        hint = f"; {declared} is one slice by each value of {found.by}: {declared}=…" if found and found.by else ""
        raise NotFound(f"model {model.name!r} has no slice {name!r}{hint}")
    return Slice(name, {found.by: [value]} if found.by else dict(found.where or {}))


def whole_hours(start: str, end: str) -> Span:
    """Return the span between two parameters; a 422 where it is none, or not of whole hours."""
    first, last = moment(start, "from"), moment(end, "to")
    if first is None or last is None or first >= last:
        detail = "the window ends before it begins"
        raise Unprocessable(detail, faults=[Fault("query:to", "empty", detail)])
    for name, value in (("from", first), ("to", last)):
        if bucket_start(bucket_of(value)) != value:
            detail = "a window begins and ends on whole hours"
            raise Unprocessable(detail, faults=[Fault(f"query:{name}", "not_whole_hours", detail)])
    return Span(first, last)


def _column(layout: Layout, name: str, column: NumericProfile | CategoryProfile) -> dict[str, Any]:
    """Return what a profile knows of one column."""
    told: dict[str, Any] = {"count": column.count, "missing": column.missing, "wrong_type": column.wrong_type}
    place = layout.columns[name]
    if isinstance(column, CategoryProfile):
        names = place.categories if isinstance(place, CategoryLayout) else ()
        told["counts"] = {label: int(count) for label, count in zip(names, column.counts, strict=False) if count}
        told["other"] = int(column.counts[-1]) if column.counts.size else 0
        told["new"] = column.new
        return told
    told["non_finite"] = column.non_finite
    if column.count and isinstance(place, NumericLayout) and place.edges.size:
        told |= {"mean": column.mean, "standard_deviation": column.standard_deviation}
        told |= {"minimum": column.minimum, "maximum": column.maximum}
        told["quantiles"] = {str(share): column.quantile(share, place) for share in QUANTILES}
        told["histogram"] = _histogram(place, column)
    return told


def _histogram(layout: NumericLayout, column: NumericProfile) -> dict[str, list[float]]:
    """Return at most fifty bins between the layout's edges; the outer ones reach to the extremes."""
    counts, edges = column.counts.astype(np.int64), layout.edges
    if layout.tied:  # a value equal to an edge goes with the interval above it
        inner = counts[2::2] + counts[1::2]
        counts = np.concatenate((counts[:1], inner))
    step = -(-counts.size // SHOWN_BINS)
    starts = np.arange(0, counts.size, step)
    low, high = min(column.minimum, float(edges[0])), max(column.maximum, float(edges[-1]))
    bounds = [low, *(float(edges[start - 1]) for start in starts[1:]), high]
    return {"edges": bounds, "counts": [int(count) for count in np.add.reduceat(counts, starts)]}
