"""Long work that a request asked for: run in a few threads, watched by id, and cancelled where it can stop."""

import asyncio
import re
import threading
import traceback
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any

import structlog
from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from service.access import Principal
from service.api.depends import Operator, Page, Parts, Reader, listed, page_of
from service.assembly import Assembly
from service.lake.lease import is_gone, owner_here
from service.problems import Conflict, NotFound, Problem
from service.scheduler import BACKFILL
from service.tables import JobRow, ModelRow, RunRow
from service.words import UNFINISHED, format_time, new_id

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

WAIT = 10.0
LONGEST_WAIT = 60.0
THREADS = 2
_log = structlog.get_logger("plumbline.jobs")
_making = threading.Lock()


class JobCancelled(Problem):
    """Somebody cancelled the job."""

    status, title = 409, "The job was cancelled"


@dataclass
class Progress:
    """What running work tells and asks: how far it is, and whether it should stop."""

    assembly: Assembly
    uid: str
    stop: threading.Event = field(default_factory=threading.Event)

    def at(self, done: int, total: int | None = None, unit: str = "") -> None:
        """Say how far the work is; raises JobCancelled where it was cancelled."""
        self.check()
        with self.assembly.database.writing() as session:
            session.execute(update(JobRow).where(JobRow.uid == self.uid).values(done=done, total=total, unit=unit))

    def check(self) -> None:
        """Raise JobCancelled where the work was cancelled."""
        if self.stop.is_set():
            raise JobCancelled("the job was cancelled")


@dataclass(frozen=True)
class Job:
    """Work under way."""

    uid: str
    future: Future[dict[str, Any]]


class Jobs:
    """Runs work in threads and keeps its state in SQL; jobs of a process that ended are failed."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="job")
        self._running: dict[str, tuple[Progress, Future[dict[str, Any]]]] = {}

    def start(
        self, kind: str, model_id: int | None, request: Mapping[str, Any], work: Callable[[Progress], dict[str, Any]]
    ) -> Job:
        """Queue work; its result becomes the job's."""
        uid = new_id()
        now = self._assembly.clock.now()
        with self._assembly.database.writing() as session:
            session.add(
                JobRow(
                    uid=uid,
                    kind=kind,
                    model_id=model_id,
                    request=dict(request),
                    state="queued",
                    created_at=now,
                    owner=owner_here(),
                )
            )
        progress = Progress(self._assembly, uid)
        future = self._pool.submit(self._run, progress, work)
        self._running[uid] = (progress, future)
        return Job(uid, future)

    def cancel(self, uid: str) -> bool:
        """Ask work of this process to stop; return whether it was running here."""
        found = self._running.get(uid)
        if found is None:
            return False
        found[0].stop.set()
        return True

    def _run(self, progress: Progress, work: Callable[[Progress], dict[str, Any]]) -> dict[str, Any]:
        self._set(progress.uid, state="running", started_at=self._assembly.clock.now())
        try:
            progress.check()
            result = work(progress)
        except Problem as problem:
            state = "cancelled" if isinstance(problem, JobCancelled) else "failed"
            self._end(progress.uid, state=state, error=problem.detail or problem.title)
            raise
        except BaseException as error:
            _log.error("job failed", job=progress.uid, traceback="".join(traceback.format_exception(error)))
            self._end(progress.uid, state="failed", error="it failed for a reason that the service's log names")
            raise
        self._end(progress.uid, state="done", result=result, done=func.coalesce(JobRow.total, JobRow.done))
        return result

    def _end(self, uid: str, **values: Any) -> None:
        self._set(uid, finished_at=self._assembly.clock.now(), **values)
        self._running.pop(uid, None)

    def _set(self, uid: str, **values: Any) -> None:
        with self._assembly.database.writing() as session:
            session.execute(update(JobRow).where(JobRow.uid == uid).values(**values))


def jobs_of(app: FastAPI) -> Jobs:
    """Return the application's jobs, made at the first use."""
    with _making:
        if not hasattr(app.state, "jobs"):
            app.state.jobs = Jobs(app.state.assembly)
    jobs: Jobs = app.state.jobs
    return jobs


def patience(request: Request) -> float:
    """Return for how many seconds an answer may be waited for: ``Prefer: wait=…``, else ten."""
    match = re.search(r"\bwait=(\d{1,4})\b", request.headers.get("prefer", ""))
    return min(float(match[1]), LONGEST_WAIT) if match else WAIT


async def waiting(request: Request, job: Job) -> Response:
    """Return 202 and where to look."""
    document = await run_sync(lambda: _document(request.app.state.assembly, job.uid))
    return JSONResponse(document, 202, {"Location": f"/v1/jobs/{job.uid}", "Retry-After": "2"})


async def answer(request: Request, job: Job, status: int = 201, location: str | None = None) -> Response:
    """Return what the job made if it is done in time, else 202 and where to look; its problems are raised."""
    result: dict[str, Any] | None = None
    try:  # without a thread: many may wait, and other requests need the threads
        result = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(job.future)), patience(request))
    except TimeoutError:
        if job.future.done():
            raise
    except CancelledError:
        if not job.future.cancelled():
            raise
        raise JobCancelled("the job was cancelled") from None
    if result is not None:
        return JSONResponse(result, status, {"Location": location} if location else None)
    return await waiting(request, job)


def _document(parts: Assembly, uid: str) -> dict[str, Any]:
    with parts.database.reading() as session:
        row = session.scalar(select(JobRow).where(JobRow.uid == uid))
        return {"id": uid} if row is None else document_of(row, parts)


def eta_of(row: JobRow, now: datetime) -> datetime | None:
    """Return when a job will be done if it goes on as so far; None while that cannot be told."""
    if row.started_at is None or not row.total or not 0 < row.done <= row.total:
        return None
    return now + max(now - row.started_at, timedelta(0)) / row.done * (row.total - row.done)


def document_of(row: JobRow, parts: Assembly) -> dict[str, Any]:
    """Return a job as the interface shows it; one whose process ended before it did has failed."""
    state, error = row.state, row.error
    if state in UNFINISHED and row.owner is not None and is_gone(row.owner, parts.database):
        state, error = "failed", "the service stopped while this ran; ask for it again"
    document: dict[str, Any] = {
        "id": row.uid,
        "kind": row.kind,
        "state": state,
        "progress": {"done": row.done, "total": row.total, "unit": row.unit},
        "created_at": format_time(row.created_at),
        "started_at": None if row.started_at is None else format_time(row.started_at),
        "finished_at": None if row.finished_at is None else format_time(row.finished_at),
    }
    if state == "running" and (eta := eta_of(row, parts.clock.now())) is not None:
        document["eta"] = format_time(eta)
    if row.result is not None:
        document["result"] = row.result
    if error:
        document["error"] = error
    return document


def _job(session: Session, principal: Principal, uid: str) -> JobRow:
    row = session.scalar(select(JobRow).where(JobRow.uid == uid)) if re.fullmatch(r"[0-9a-f]{32}", uid) else None
    if row is not None and principal.models is not None:
        model = None if row.model_id is None else session.get(ModelRow, row.model_id)
        row = row if model is not None and principal.sees(model.name) else None
    if row is None:
        raise NotFound(f"there is no job {uid!r}")
    return row


@router.get("", operation_id="jobs_list", summary="List jobs")
def index(
    parts: Parts,
    principal: Reader,
    page: Page,
    state: Annotated[str | None, Query(pattern="^(queued|running|done|failed|cancelled)$")] = None,
) -> dict[str, object]:
    """List jobs, newest first."""
    statement = select(JobRow)
    if state is not None:
        statement = statement.where(JobRow.state == state)
    if principal.models is not None:
        names = sorted(principal.models)
        statement = statement.where(JobRow.model_id.in_(select(ModelRow.id).where(ModelRow.name.in_(names))))
    with parts.database.reading() as session:
        rows, cursor = page_of(session, statement, [JobRow.id], page, descending=True)
        return listed([document_of(row, parts) for row in rows], cursor)


@router.get("/{id}", operation_id="jobs_read", summary="Read a job")
def read(id: str, parts: Parts, principal: Reader) -> dict[str, Any]:  # noqa: A002 - the parameter's public name
    """Return how far a job is, and what came of it."""
    with parts.database.reading() as session:
        return document_of(_job(session, principal, id), parts)


@router.delete("/{id}", operation_id="jobs_cancel", summary="Cancel a job")
def cancel(id: str, request: Request, parts: Parts, principal: Operator) -> dict[str, Any]:  # noqa: A002
    """Ask a job to stop; what it has done by then stays undone where it was one step.

    A backfill keeps the windows that were run, and runs no more of them.
    """
    with parts.database.writing() as session:
        row = _job(session, principal, id)
        if row.state not in UNFINISHED:
            raise Conflict(f"the job is {row.state} already")
        if row.kind == BACKFILL:
            session.execute(delete(RunRow).where(RunRow.job_id == row.id, RunRow.status == "queued"))
            row.state, row.finished_at = "cancelled", parts.clock.now()
            return document_of(row, parts)
        if not jobs_of(request.app).cancel(row.uid) and not (row.owner and is_gone(row.owner, parts.database)):
            raise Conflict("the job runs in another process, which alone can stop it")
        row.state = "cancelled"
        return document_of(row, parts)
