"""The jobs page from the database, and what can be done from it."""

from collections.abc import Mapping

from sqlalchemy import select

from dashboards.jobs import JobLine, JobsPage, ReplayLine
from dashboards.page import Empty
from service.api.jobs import document_of, eta_of
from service.api.replays import reached
from service.pages import commands
from service.pages.visit import Visit, may_operate
from service.tables import JobRow, ModelRow, ReplayRow
from service.words import DAY, UNFINISHED

SHOWN = 50
ABOUT = ("name", "monitor", "kind", "feature")
"""What of a request says, in a word, what it asked for."""


def build(visit: Visit) -> JobsPage:
    """Return the newest jobs and open replays of the models that the reader may know of."""
    names = {row.id: row.name for row in visit.session.scalars(select(ModelRow)) if visit.principal.sees(row.name)}
    seen = JobRow.model_id.in_(names) if visit.principal.models is not None else None
    newest = select(JobRow).order_by(JobRow.state.in_(UNFINISHED).desc(), JobRow.id.desc()).limit(SHOWN)
    rows = visit.session.scalars(newest if seen is None else newest.where(seen)).all()
    replays = visit.session.scalars(
        select(ReplayRow)
        .where(ReplayRow.closed_at.is_(None), ReplayRow.model_id.in_(names))
        .order_by(ReplayRow.id.desc())
    ).all()
    return JobsPage(
        frame=visit.frame(),
        title="Jobs",
        jobs=tuple(_line(visit, row, names) for row in rows),
        replays=tuple(_replay(visit, row, names) for row in replays),
        empty=None if rows or replays else _empty(visit),
    )


def _line(visit: Visit, row: JobRow, names: Mapping[int, str]) -> JobLine:
    told = document_of(row, visit.parts)
    return JobLine(
        uid=row.uid,
        kind=row.kind,
        model=None if row.model_id is None else names.get(row.model_id),
        about=next((str(row.request[name]) for name in ABOUT if row.request.get(name)), ""),
        state=told["state"],
        done=row.done,
        total=row.total,
        unit=row.unit,
        created_at=row.created_at,
        finished_at=row.finished_at,
        eta=eta_of(row, visit.parts.clock.now()) if told["state"] == "running" else None,
        error=told.get("error"),
        may_cancel=told["state"] in UNFINISHED and may_operate(visit.principal),
    )


def _replay(visit: Visit, row: ReplayRow, names: Mapping[int, str]) -> ReplayLine:
    newest, done, total = reached(visit.session, row)
    return ReplayLine(
        model=names[row.model_id], start=row.starts_at, end=row.ends_at, reached=newest, done=done, total=total
    )


def _empty(visit: Visit) -> Empty:
    base = visit.parts.settings.public_url.rstrip("/")
    now = visit.parts.clock.now().replace(minute=0, second=0, microsecond=0)
    body = {"from": (now - 7 * DAY).isoformat(), "to": now.isoformat(), "each": "1d"}
    path = f"{base}/v1/models/MODEL/monitors/MONITOR/runs"
    return Empty(
        title="No long work yet",
        text="Backfills, baselines, explanations, comparisons and replays are listed here while they run and after.",
        commands=(commands.post("Run a monitor over a past week", path, body),),
    )
