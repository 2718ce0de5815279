"""The scheduler: looks every few seconds for what is due and runs it, in order of time, whoever else looks too."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ScalarSelect,
    Select,
    and_,
    case,
    delete,
    func,
    not_,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.orm import Session, aliased

from monitors import budget, discovery
from monitors.contract import Kind
from service import alerts, baselines, candidates, posted, profiles, retraining, runs, webhooks, windows
from service.assembly import Assembly
from service.lake import host, quarantine
from service.lake.lease import is_gone, lease_now
from service.problems import Conflict, NotFound, Problem, Unavailable
from service.runs import Due, Workshop
from service.tables import (
    AlertRow,
    ArrivalRow,
    IngestBatchRow,
    JobRow,
    ModelRow,
    MonitorRow,
    NoticeRow,
    ReplayRow,
    RetrainingRow,
    RunRow,
    VersionRow,
)
from service.words import HOUR, UNFINISHED, Span, bucket_of, bucket_start, derived_id

BACKFILL = "backfill"
"""The kind of job whose work is runs in the queue: any worker does it, whichever process was asked."""
RUNS_PER_TICK = 100
"""Of one model, so that catching up on one leaves room for the others."""
REVISE_AFTER = timedelta(minutes=15)
REVISIONS = 30
IDLE = timedelta(seconds=15)
"""How long nothing is looked for where nothing was due and nothing has been stored since."""
SEAL_AFTER = timedelta(seconds=60)
"""How long records wait in the buffer while a window may need them."""
CLOSING_SECONDS = 240.0
"""How long closing a replay runs windows before it asks to be called again."""
HOUR_MICROSECONDS = 3_600_000_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Stretch:
    """So many windows without any record, to be stored as one entry."""

    due: Due
    count: int


Work = Due | Stretch


@dataclass(frozen=True)
class Watch:
    """One monitor over one version, and what is known about the version's records."""

    model: ModelRow
    version: VersionRow
    monitor: MonitorRow
    replay: ReplayRow | None
    data: Span
    live_from: datetime | None
    """From when on silence says something; none while only history is known."""
    until: datetime
    """No window ends later."""

    @property
    def start(self) -> datetime:
        """Where its windows begin; replayed history is watched from the replay's start."""
        start = self.monitor.starts_at or self.monitor.created_at
        return start if self.replay is None else min(start, self.replay.starts_at)

    def due(self, window: Span) -> Due:
        """Return a window of it that is to be run."""
        live = self.live_from is not None and window.start >= self.live_from
        is_active = self.model.active_version_id in (None, self.version.id)
        return Due(
            model=self.model,
            version=self.version,
            monitor=self.monitor,
            window=window,
            data=self.data,
            replay=self.replay,
            live=live and is_active and self.replay is None,
        )


def workshop_of(assembly: Assembly) -> Workshop:
    """Return what runs work with."""
    return Workshop(
        database=assembly.database,
        lake=assembly.lake,
        profiles=assembly.profiles,
        clock=assembly.clock,
        settings=assembly.settings,
        software=assembly.software,
        worker=assembly.worker,
        explanations=assembly.explanations,
    )


class Scheduler:
    """Wakes up, seals, runs and sends; what is due is read from the database, so nothing is lost while it sleeps."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._workshop = workshop_of(assembly)
        self._jobs: BackgroundScheduler | None = None
        self._stopping = threading.Event()
        self._locks: dict[int, threading.Lock] = {}
        self._guard = threading.Lock()

    # --- waking up ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to wake up, for the roles that this process has."""
        self._stopping.clear()
        settings = self._assembly.settings
        self._jobs = BackgroundScheduler(timezone="UTC", daemon=True)
        every: list[tuple[str, Callable[[], object], float]] = [
            ("sealer", self._sealing(), min(settings.tick_seconds, 1.0)),
            ("scheduler", self._unless_idle(self._run), settings.tick_seconds),
            ("worker", self._unless_idle(self._work), settings.tick_seconds),
            ("sender", self._send, min(settings.tick_seconds, 1.0)),
        ]
        every.append(("upkeep", self._upkeep, host.BEAT_SECONDS))
        for role, work, seconds in every:
            if role in settings.roles or role == "upkeep":
                self._jobs.add_job(
                    self._guarded,
                    "interval",
                    args=(role, work),
                    seconds=seconds,
                    id=role,
                    coalesce=True,
                    max_instances=1,
                    misfire_grace_time=None,
                )
        self._jobs.start()

    def stop(self) -> None:
        """Let what is being done finish, and wake up no more."""
        self._stopping.set()
        if self._jobs is not None:
            self._jobs.shutdown(wait=True)
            self._jobs = None
        self._assembly.sender.close()

    def tick(self) -> int:
        """Do all that is due now, once, and return how many windows were run or stored as empty."""
        self._seal()
        done = self._run() + self._work()
        self._assembly.sender.send_all_due()
        return done

    def _unless_idle(self, work: Callable[[], int]) -> Callable[[], None]:
        """Return work that is left out while it would read what it read the last time, and found nothing to do."""
        found: tuple[int, datetime] | None = None

        def look() -> None:
            nonlocal found
            version, now = self._assembly.database.version(), self._assembly.clock.now()
            if found is not None and found[0] == version and timedelta() <= now - found[1] < IDLE:
                return
            found = None
            if not work() and version is not None:
                found = (version, now)

        return look

    def _guarded(self, role: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:  # the next tick tries again; a thread that dies would do nothing at all
            log.exception("tick failed", role=role)

    def _seal(self) -> None:
        self._assembly.sealer.seal_due()
        self._bring_up_to_date()

    def _sealing(self) -> Callable[[], None]:
        """Return the work of a sealer that wakes up again and again: what is buffered grows old, the rest waits."""
        rest = self._unless_idle(self._bring_up_to_date)

        def seal() -> None:
            self._assembly.sealer.seal_due()
            rest()

        return seal

    def _bring_up_to_date(self) -> int:
        return self._assembly.profiles.refresh(seconds=1.0) + self._assembly.sealer.tidy()

    def _upkeep(self) -> None:
        """Do what every process does: set damaged files aside, and say that this host works on the database."""
        quarantine.set_aside(self._assembly.database, self._assembly.lake, self._assembly.clock)
        if not self._assembly.database.is_sqlite:
            return
        if (other := host.beat(self._assembly.database)) is not None:
            log.critical("another host has taken this SQLite database; this process ends", owner=other[0])
            os.kill(os.getpid(), signal.SIGTERM)

    def _send(self) -> None:
        self._assembly.sender.send_due(wait=False)

    def _run(self) -> int:
        with self._assembly.database.reading() as session:
            models = session.scalars(
                select(ModelRow.id)
                .where(ModelRow.archived_at.is_(None))
                .where(select(MonitorRow.id).where(MonitorRow.model_id == ModelRow.id).exists())
                .order_by(ModelRow.id)
            ).all()
        done = 0
        for model_id in models:
            if self._stopping.is_set():
                break
            try:
                done += self.run_model(model_id)
            except Exception:  # one model's trouble is not the others'
                log.exception("model's windows could not be run", model=model_id)
        self._remind()
        self._expire()
        return done

    def _work(self) -> int:
        """Run what was asked for, every model a share of it, beside what is due by time."""
        with self._assembly.database.reading() as session:
            queued = select(RunRow.model_id).where(RunRow.status.in_(UNFINISHED), RunRow.backfill.is_(True))
            going = select(JobRow.model_id).where(JobRow.state.in_(UNFINISHED), JobRow.kind == BACKFILL)
            models = sorted(set(session.scalars(queued.union(going))) - {None})
        done = 0
        for model_id in models:
            if self._stopping.is_set():
                break
            try:
                done += self.work_model(model_id)
            except Exception:  # one model's trouble is not the others'
                log.exception("what was asked for could not be run", model=model_id)
        if not self._stopping.is_set():
            candidates.judge_due(self._assembly.explanations, self._assembly.sealer)
        return done

    def work_model(self, model_id: int, limit: int = RUNS_PER_TICK) -> int:
        """Run what was asked for of a model, earliest window first, and return how much."""
        done = 0
        with self._alone(-model_id):
            self._assembly.sealer.seal(model_id)
            with self._assembly.database.reading() as session:
                asked = self._unfinished(session, model_id, backfill=True)
            self._progress(model_id)  # of windows whose process ended before it could say so
            for due in asked[:limit]:
                if self._stopping.is_set():
                    break
                done += runs.execute(self._workshop, due) is not None
                self._progress(model_id)
        return done

    def _progress(self, model_id: int) -> None:
        """Write down how far the jobs are whose work is queued runs, and that they are done when none is left."""
        going = (JobRow.model_id == model_id, JobRow.kind == BACKFILL, JobRow.state.in_(UNFINISHED))
        with self._assembly.database.writing() as session:
            for job in session.scalars(select(JobRow).where(*going).with_for_update()):
                left = session.scalar(
                    select(func.count())
                    .select_from(RunRow)
                    .where(RunRow.job_id == job.id, RunRow.status.in_(UNFINISHED))
                )
                now = self._assembly.clock.now()
                job.state, job.done, job.started_at = "running", (job.total or 0) - (left or 0), job.started_at or now
                if not left:
                    job.state, job.finished_at = "done", now

    def _expire(self) -> None:
        with self._assembly.database.reading() as session:
            late = select(RetrainingRow.id).where(
                RetrainingRow.state.in_(retraining.OPEN), RetrainingRow.deadline_at <= self._assembly.clock.now()
            )
            if session.scalar(late.limit(1)) is None:
                return
        with self._assembly.database.writing() as session:
            retraining.expire(session, self._assembly.settings, self._assembly.clock.now())

    def _tell(self) -> None:
        """Owe the calls that notices cause, once each."""
        untold = select(NoticeRow).where(NoticeRow.told_at.is_(None))
        with self._assembly.database.reading() as session:
            if session.scalar(untold.limit(1)) is None:
                return
        with self._assembly.database.writing() as session:
            now = self._assembly.clock.now()
            for row in session.scalars(untold.with_for_update()):
                model = None if row.model_id is None else session.get(ModelRow, row.model_id)
                data = {"notice": row.uid, "kind": row.kind, "sentence": row.sentence, "subject": row.subject}
                about = {"model": model.name} if model is not None else {}
                webhooks.owe(
                    session, "service.notice", row.uid, data | about, now=now, severity="critical", model=model
                )
                row.told_at = now

    def _remind(self) -> None:
        self._tell()
        with self._assembly.database.reading() as session:
            if session.scalar(select(AlertRow.id).where(AlertRow.state.in_(alerts.OPEN)).limit(1)) is None:
                return
        with self._assembly.database.writing() as session:
            now, settings = self._assembly.clock.now(), self._assembly.settings
            alerts.settle(session, settings, now)
            alerts.repeat(session, settings, now)

    # --- one model ----------------------------------------------------------------------------------------------------

    def run_model(self, model_id: int, until: datetime | None = None, limit: int = RUNS_PER_TICK) -> int:
        """Run what is due of a model, earliest first, and return how much; `until` takes the watermark's place."""
        with self._alone(model_id):
            return self._run_model(model_id, until, limit)

    def _run_model(self, model_id: int, until: datetime | None, limit: int) -> int:
        mark = until if until is not None else self._watermark(model_id)
        with self._assembly.database.reading() as session:
            waiting = (
                bool(self._unfinished(session, model_id, backfill=False))
                or any(self._next_of(session, watch) is not None for watch in self._watches(session, model_id, mark))
                or self._is_new(session, model_id)
                or session.scalar(_filled_since(model_id).limit(1)) is not None
            )
        if not waiting:
            with self._assembly.database.reading() as session:
                told = self._labels_wait(session, model_id)
            if told:
                self._assembly.sealer.seal(model_id)
            return self._mature(model_id, mark) + self._revise(model_id)
        self._assembly.sealer.seal(model_id)
        self._adopt_layouts(model_id)
        self._reopen(model_id)
        done = 0
        with self._assembly.database.reading() as session:
            unfinished = self._unfinished(session, model_id, backfill=False)
        for due in unfinished[:limit]:
            if self._stopping.is_set():
                return done
            done += runs.execute(self._workshop, due) is not None
        with self._assembly.database.reading() as session:
            watches = {(watch.monitor.id, watch.version.id): watch for watch in self._watches(session, model_id, mark)}
            following = {key: self._next_of(session, watch) for key, watch in watches.items()}
        while done < limit and not self._stopping.is_set():
            ready = {key: work for key, work in following.items() if work is not None}
            if not ready:
                break
            key = min(ready, key=lambda key: (_due(ready[key]).window.end, key))
            if not self._do(ready[key]):
                following[key] = None  # somebody else is at it, or it will be tried again at the next tick
                continue
            done += 1
            with self._assembly.database.reading() as session:
                following[key] = self._next_of(session, watches[key])
        return done

    def _do(self, work: Work) -> bool:
        """Run a window or store a stretch; return whether it is done for good."""
        if isinstance(work, Stretch):
            return runs.empty_stretch(self._workshop, work.due, work.count) is not None
        run = runs.execute(self._workshop, work)
        return run is not None and run.status != "queued"

    def _watermark(self, model_id: int) -> datetime:
        with self._assembly.database.reading() as session:
            model = session.get_one(ModelRow, model_id)
            return profiles.watermark(session, model, self._assembly.clock, self._assembly.settings)

    def _is_new(self, session: Session, model_id: int) -> bool:
        """Return whether records wait in the buffer for a while already that may be a version's first."""
        oldest = session.scalar(select(func.min(IngestBatchRow.received_at)).where(IngestBatchRow.model_id == model_id))
        now = self._assembly.clock.now()
        if oldest is None or now - SEAL_AFTER < oldest <= now:
            return False
        unseen = select(VersionRow.id).where(VersionRow.model_id == model_id, VersionRow.first_event_at.is_(None))
        return session.scalar(unseen.limit(1)) is not None

    def _adopt_layouts(self, model_id: int) -> None:
        """Give versions that nobody gave a baseline the layout of the one they borrow."""
        bare = select(VersionRow.id).where(VersionRow.model_id == model_id, VersionRow.layout.is_(None))
        with self._assembly.database.reading() as session:
            if session.scalar(bare.limit(1)) is None:
                return
        with self._assembly.database.writing() as session:
            for version_id in session.scalars(bare).all():
                version = session.get_one(VersionRow, version_id)
                baselines.adopt_layout(session, version, self._assembly.clock.now())

    # --- what is due --------------------------------------------------------------------------------------------------

    def _watches(self, session: Session, model_id: int, mark: datetime) -> Iterator[Watch]:
        """Yield each monitor of a model over each version that has records."""
        model = session.get_one(ModelRow, model_id)
        replay = session.scalar(
            select(ReplayRow).where(ReplayRow.model_id == model_id).order_by(ReplayRow.id.desc()).limit(1)
        )
        watching = session.scalars(
            select(MonitorRow).where(MonitorRow.model_id == model_id, MonitorRow.enabled.is_(True))
        ).all()
        versions = select(VersionRow).where(VersionRow.model_id == model_id)
        for version in session.scalars(versions).all() if watching else ():
            known: dict[str, Known] = {}
            for monitor in watching:
                if isinstance(monitor.versions, list) and version.name not in monitor.versions:
                    continue
                if runs.begun(session, version, monitor) is None:
                    continue
                kind = runs.arriving(monitor)
                if kind not in known:
                    known[kind] = _known(session, version, replay, monitor)
                yield self._watch(model, version, monitor, replay, known[kind], mark)

    def _watch(
        self,
        model: ModelRow,
        version: VersionRow,
        monitor: MonitorRow,
        replay: ReplayRow | None,
        known: "Known",
        mark: datetime,
    ) -> Watch:
        is_open = replay is not None and replay.closed_at is None
        data, until = known.data, mark
        live_from: datetime | None = monitor.created_at
        if replay is not None:
            live_from = known.after_replay
            if live_from is None and not is_open:
                until = min(until, replay.ends_at)  # history has ended, and nothing has come since
        if not is_open and live_from is not None:
            data = Span(data.start, max(data.end, mark))
        if version.retired_at is not None:
            until = min(until, version.retired_at)
        return Watch(model, version, monitor, replay if is_open else None, data, live_from, until)

    def _next_of(self, session: Session, watch: Watch) -> Work | None:
        """Return the next window of a monitor and version; none where one is being run, or nothing is due."""
        version, monitor = watch.version, watch.monitor
        own = (RunRow.monitor_id == monitor.id, RunRow.version_id == version.id)
        at_work = select(RunRow.id).where(*own, RunRow.status.in_(UNFINISHED), RunRow.backfill.is_(False))
        if session.scalar(at_work.limit(1)):
            return None
        last = session.scalar(
            select(RunRow.ends_at).where(*own, RunRow.backfill.is_(False)).order_by(RunRow.ends_at.desc()).limit(1)
        )
        try:
            grid = windows.grid_of(monitor.schedule, monitor.window, monitor.offset)
        except Problem as problem:
            log.warning("monitor cannot be scheduled", monitor=monitor.name, reason=problem.detail)
            return None
        cuts = _cuts(session, version, monitor)
        window = next(windows.due(grid, watch.start, last, watch.until, cuts), None)
        if window is None:
            return None
        due = watch.due(window)
        kind = discovery.kinds().get(monitor.kind)
        judges_empty = kind is not None and kind.judges_empty
        if (judges_empty and due.live) or runs.rows_in(session, due, window):
            return due
        filled = _first_filled(session, version, bucket_of(window.start), runs.arriving(monitor))
        bounds = [watch.until]
        if filled is not None:
            bounds.append(bucket_start(filled))
        if judges_empty and watch.live_from is not None and watch.replay is None:
            bounds.append(max(watch.live_from, window.end))
        end = max(grid.last_end(window.start, min(bounds)) or window.end, window.end)
        count = max(1, round((end - window.start) / grid.spent))
        return Stretch(watch.due(Span(window.start, end)), count)

    def _unfinished(self, session: Session, model_id: int, *, backfill: bool) -> list[Due]:
        """Return what is queued or was begun and is nobody's: by time, or asked for."""
        now = lease_now(session, self._assembly.database)
        rows = session.scalars(
            select(RunRow)
            .where(RunRow.model_id == model_id, RunRow.status.in_(UNFINISHED), RunRow.backfill.is_(backfill))
            .order_by(RunRow.ends_at, RunRow.id)
        ).all()
        found = []
        mark = self._assembly.clock.now()
        for run in rows:
            held = run.status == "running" and run.lease_until is not None and run.lease_until > now
            if held and not is_gone(run.owner or "", self._assembly.database):
                continue
            model = session.get_one(ModelRow, run.model_id)
            version = session.get_one(VersionRow, run.version_id)
            monitor = session.get_one(MonitorRow, run.monitor_id)
            replay = session.scalar(
                select(ReplayRow).where(ReplayRow.model_id == model_id).order_by(ReplayRow.id.desc()).limit(1)
            )
            known = _known(session, version, replay, monitor)
            watch = self._watch(model, version, monitor, replay, known, mark)
            due = watch.due(Span(run.starts_at, run.ends_at))
            found.append(
                Due(
                    model=model,
                    version=version,
                    monitor=monitor,
                    window=due.window,
                    data=known.data if run.backfill else due.data,
                    replay=replay if run.replayed else None,
                    live=due.live and not run.backfill,
                    backfill=run.backfill,
                    judge=run.judged or not run.backfill,
                    run_id=run.id,
                )
            )
        return found

    # --- what came later ----------------------------------------------------------------------------------------------

    def _reopen(self, model_id: int) -> None:
        """Queue the windows of spans that were stored as empty and have records now: their look is not spent."""
        late = _filled_since(model_id)
        with self._assembly.database.reading() as session:
            if session.scalar(late.limit(1)) is None:
                return
        with self._assembly.database.writing() as session:
            for run in session.scalars(late).all():
                monitor = session.get_one(MonitorRow, run.monitor_id)
                version = session.get_one(VersionRow, run.version_id)
                grid = windows.grid_of(monitor.schedule, monitor.window, monitor.offset)
                span = Span(run.starts_at, run.ends_at)
                session.execute(delete(RunRow).where(RunRow.id == run.id))

                def revision(window: Span, run: RunRow = run) -> int:
                    return runs.next_revision(session, run.monitor_id, run.version_id, window)

                counts = profiles.row_counts(session, model_id, version.id, span, runs.arriving(monitor))
                empty: list[Span] = []
                for window in windows.due(grid, span.start, None, span.end, _cuts(session, version, monitor)):
                    if any(bucket in counts for bucket in window.hours):
                        session.add(_queued(session, run, monitor, version, window, revision(window)))
                    else:
                        empty.append(window)
                for gap in runs.joined(empty):
                    session.add(_copied(run, monitor, version, gap, revision(gap)))

    def _mature(self, model_id: int, mark: datetime) -> int:
        """Queue anew the windows that wait for labels and have enough of them, or have waited long enough.

        Those whose labels became more but not enough are measured again now and then.
        """
        run, now = RunRow, self._assembly.clock.now()
        waiting = (
            select(run, MonitorRow, _labels_inside().label("told"))
            .join(MonitorRow, MonitorRow.id == run.monitor_id)
            .where(run.model_id == model_id, run.current.is_(True), run.status == runs.WAITING)
            .order_by(run.ends_at)
        )
        with self._assembly.database.reading() as session:
            if session.scalar(waiting.limit(1)) is None:
                return 0
        done = 0
        with self._assembly.database.writing() as session:
            for row, monitor, told in session.execute(waiting).all():
                labels = {**runs.LABELS, **(monitor.labels or {})}
                changed = told != (row.labels_seen or 0)
                enough = told >= max(labels["min_coverage"] * row.rows, labels["min_rows"])
                enough = enough or runs.arriving(monitor) == posted.METRICS
                rested = row.finished_at is None or abs(now - row.finished_at) > REVISE_AFTER
                over = mark >= row.ends_at + budget.duration(labels["delay"])
                if done < RUNS_PER_TICK and (over or (changed and (enough or rested))):
                    version = session.get_one(VersionRow, row.version_id)
                    window = Span(row.starts_at, row.ends_at)
                    if _is_newest(session, row):
                        session.add(_queued(session, row, monitor, version, window, row.revision + 1))
                        done += 1
        return done

    def _labels_wait(self, session: Session, model_id: int) -> bool:
        """Return whether labels wait in the buffer for a while that a window waits for."""
        waiting = select(RunRow.id).where(
            RunRow.model_id == model_id, RunRow.current.is_(True), RunRow.status == runs.WAITING
        )
        if session.scalar(waiting.limit(1)) is None:
            return False
        oldest = session.scalar(
            select(func.min(IngestBatchRow.received_at)).where(
                IngestBatchRow.model_id == model_id, IngestBatchRow.kind == "ground_truth"
            )
        )
        return oldest is not None and oldest <= self._assembly.clock.now() - SEAL_AFTER

    def _revise(self, model_id: int) -> int:
        """Queue anew the windows whose rows or labels have changed since they were measured; return how many."""
        run, later, now = RunRow, aliased(RunRow), self._assembly.clock.now()
        counted = (
            select(func.coalesce(func.sum(ArrivalRow.accepted), 0))
            .where(ArrivalRow.version_id == run.version_id, ArrivalRow.kind == _arriving(), _inside())
            .correlate(RunRow)
            .scalar_subquery()
        )
        changed = (
            select(run)
            .where(
                run.model_id == model_id,
                run.current.is_(True),
                run.status.in_(("ok", "violations", "partial", "insufficient_data")),
                or_(run.finished_at < now - REVISE_AFTER, run.finished_at > now + REVISE_AFTER),  # the clock went back
                run.revision < REVISIONS,
                or_(run.rows != counted, run.labels_seen != _labels_inside()),
            )
            .where(
                ~select(later.id)
                .where(
                    later.monitor_id == run.monitor_id,
                    later.version_id == run.version_id,
                    later.starts_at == run.starts_at,
                    later.ends_at == run.ends_at,
                    or_(
                        later.revision > run.revision,
                        and_(
                            later.revision == run.revision - 1,
                            later.rows == run.rows,
                            func.coalesce(later.labels_seen, 0) == func.coalesce(run.labels_seen, 0),
                        ),
                    ),
                )
                .exists()
            )
            .order_by(run.ends_at)
            .limit(RUNS_PER_TICK)
        )
        with self._assembly.database.reading() as session:
            if session.scalar(changed.limit(1)) is None:
                return 0
        with self._assembly.database.writing() as session:
            found = session.scalars(changed).all()
            for row in found:
                monitor, version = (
                    session.get_one(MonitorRow, row.monitor_id),
                    session.get_one(VersionRow, row.version_id),
                )
                window = Span(row.starts_at, row.ends_at)
                session.add(_queued(session, row, monitor, version, window, row.revision + 1))
            return len(found)

    # --- what is asked for --------------------------------------------------------------------------------------------

    def close_replay(self, replay_id: int) -> int:
        """Run what is still due up to a replay's end, then close it; return how many windows that took."""
        with self._assembly.database.reading() as session:
            replay = session.get(ReplayRow, replay_id)
            if replay is None:
                raise NotFound("there is no such replay")
            if replay.closed_at is not None:
                raise Conflict("the replay is closed already")
        self._assembly.sealer.seal(replay.model_id)
        until = min(replay.ends_at, self._assembly.clock.now())
        deadline = time.monotonic() + CLOSING_SECONDS
        done = 0
        while True:
            if self._stopping.is_set() or time.monotonic() > deadline:
                told = f"{done} windows were run and more are due; close the replay again to go on"
                raise Unavailable(told, headers={"Retry-After": "2"})
            ran = self.run_model(replay.model_id, until, limit=200)
            done += ran
            if not ran and not self._being_run(replay.model_id, until):
                break
            if not ran:
                time.sleep(0.1)  # another process has one of them
        with self._assembly.database.writing() as session:
            row = session.get_one(ReplayRow, replay_id)
            row.closed_at = row.closed_at or self._assembly.clock.now()
        return done

    def _being_run(self, model_id: int, until: datetime) -> bool:
        with self._assembly.database.reading() as session:
            return (
                session.scalar(
                    select(RunRow.id)
                    .where(
                        RunRow.model_id == model_id,
                        RunRow.status.in_(UNFINISHED),
                        RunRow.backfill.is_(False),
                        RunRow.ends_at <= until,
                    )
                    .limit(1)
                )
                is not None
            )

    @contextmanager
    def _alone(self, model_id: int) -> Iterator[None]:
        """Let one thread of this process run a model's windows at a time; other processes meet at the claims."""
        with self._guard:
            lock = self._locks.setdefault(model_id, threading.Lock())
        with lock:
            yield


@contextmanager
def working(assembly: Assembly) -> Iterator[Scheduler]:
    """Run the parts and what works in the background, the log first, for as long as the block lasts."""
    assembly.start()
    scheduler = Scheduler(assembly)
    scheduler.start()
    try:
        yield scheduler
    finally:
        scheduler.stop()
        assembly.stop()


@dataclass(frozen=True)
class Known:
    """What is known of a version's records: the span they fill, and the first that came after the newest replay."""

    data: Span
    after_replay: datetime | None


def _known(session: Session, version: VersionRow, replay: ReplayRow | None, monitor: MonitorRow) -> Known:
    kind = runs.arriving(monitor)
    later = None if replay is None else _first_filled(session, version, bucket_of(replay.ends_at) + 1, kind)
    data = _data(session, version, runs.begun(session, version, monitor), kind)
    return Known(data, None if later is None else bucket_start(later))


def _cuts(session: Session, version: VersionRow, monitor: MonitorRow) -> list[datetime]:
    """Return where windows are cut because a baseline comes into force; figures are of whole windows."""
    return [] if runs.arriving(monitor) == posted.METRICS else baselines.cuts(session, version)


def _due(work: Work) -> Due:
    return work.due if isinstance(work, Stretch) else work


def _data(session: Session, version: VersionRow, start: datetime | None, kind: str) -> Span:
    """Return the span that a version's records fill: to their last hour, and the usual distance between two."""
    newest = session.scalars(
        select(ArrivalRow.bucket)
        .where(ArrivalRow.version_id == version.id, ArrivalRow.kind == kind, ArrivalRow.accepted > 0)
        .order_by(ArrivalRow.bucket.desc())
        .limit(200)
    ).all()
    if start is None or not newest:
        return Span(version.created_at, version.created_at)
    gap = float(np.median(-np.diff(np.array(newest)))) if len(newest) > 1 else 1.0
    return Span(bucket_start(bucket_of(start)), bucket_start(newest[0]) + max(1.0, gap) * HOUR)


def _first_filled(session: Session, version: VersionRow, bucket: int, kind: str) -> int | None:
    """Return the first bucket with arrivals of a kind, from one on."""
    return session.scalar(
        select(ArrivalRow.bucket)
        .where(
            ArrivalRow.version_id == version.id,
            ArrivalRow.kind == kind,
            ArrivalRow.accepted > 0,
            ArrivalRow.bucket >= bucket,
        )
        .order_by(ArrivalRow.bucket)
        .limit(1)
    )


def _inside() -> ColumnElement[bool]:
    """Return the condition that a bucket lies in a run's window; both are compared as stored microseconds."""
    began = ArrivalRow.bucket * HOUR_MICROSECONDS
    return and_(began >= type_coerce(RunRow.starts_at, BigInteger), began < type_coerce(RunRow.ends_at, BigInteger))


def _of_kinds(has: Callable[[Kind], bool]) -> ColumnElement[bool]:
    """Return the condition that a run is of a monitor of certain kinds."""
    names = [name for name, kind in discovery.kinds().items() if has(kind)]
    return RunRow.monitor_id.in_(select(MonitorRow.id).where(MonitorRow.kind.in_(names)))


def _arriving() -> ColumnElement[str]:
    """Return the kind of arrivals that a run's window is filled by."""
    return case((_of_kinds(lambda kind: kind.judges_posted), posted.METRICS), else_="predictions")


def _labels_inside() -> ScalarSelect[int]:
    """Return how many labels, and attributes where groups are counted, of a run's version came for its window.

    Of monitors of posted figures, how many of those.
    """
    groups = _of_kinds(lambda kind: kind.counts_groups)
    labels = or_(ArrivalRow.kind == "ground_truth", and_(ArrivalRow.kind == "protected", groups))
    judging = _of_kinds(lambda kind: kind.judges_posted)
    told = or_(and_(labels, not_(judging)), and_(ArrivalRow.kind == posted.METRICS, judging))
    return (
        select(func.coalesce(func.sum(ArrivalRow.accepted + ArrivalRow.corrected), 0))
        .where(ArrivalRow.version_id == RunRow.version_id, told, _inside())
        .correlate(RunRow)
        .scalar_subquery()
    )


def _is_newest(session: Session, run: RunRow) -> bool:
    """Return whether no later revision of a run is made or under way."""
    later = select(RunRow.id).where(*runs.same_window(run), RunRow.revision > run.revision)
    return session.scalar(later.limit(1)) is None


def _filled_since(model_id: int) -> Select[RunRow]:
    """Return the statement of the spans that are stored as empty and have records now."""
    return (
        select(RunRow)
        .where(RunRow.model_id == model_id, RunRow.status == "no_data", RunRow.current.is_(True))
        .where(RunRow.backfill.is_(False))
        .where(_has_rows())
    )


def _has_rows() -> ColumnElement[bool]:
    """Return the condition that records of a run's version fell into its window."""
    arrived = select(ArrivalRow.id).where(
        ArrivalRow.version_id == RunRow.version_id,
        ArrivalRow.kind == _arriving(),
        ArrivalRow.accepted > 0,
        _inside(),
    )
    return arrived.correlate(RunRow).exists()


def _queued(
    session: Session, like: RunRow, monitor: MonitorRow, version: VersionRow, window: Span, revision: int
) -> RunRow:
    """Return a run that is to be made, in the place of one that was.

    A window that has had its turn keeps its look, although somebody asked for it since; one that was only asked for is
    judged where that was asked for too.
    """
    turn = select(RunRow.id).where(*runs.same_window(like), RunRow.backfill.is_(False))
    asked = like.backfill and session.scalar(turn.limit(1)) is None
    requests = select(JobRow.request).join(RunRow, RunRow.job_id == JobRow.id).where(*runs.same_window(like))
    return RunRow(
        uid=derived_id("run", monitor.uid, version.name, window.start, window.end, revision),
        model_id=like.model_id,
        monitor_id=monitor.id,
        version_id=version.id,
        starts_at=window.start,
        ends_at=window.end,
        revision=revision,
        current=revision == 1,
        judged=asked and any(request.get("alert") for request in session.scalars(requests)),
        status="queued",
        replayed=like.replayed,
        backfill=asked,
        scheduled_for=like.scheduled_for,
        software=like.software,
        attempt=0,
    )


def _copied(like: RunRow, monitor: MonitorRow, version: VersionRow, gap: Span, revision: int) -> RunRow:
    """Return the entry of what is still empty of a span that was."""
    return RunRow(
        uid=derived_id("run", monitor.uid, version.name, gap.start, gap.end, "empty", revision),
        model_id=like.model_id,
        monitor_id=monitor.id,
        version_id=version.id,
        starts_at=gap.start,
        ends_at=gap.end,
        revision=revision,
        status="no_data",
        reason=like.reason,
        replayed=like.replayed,
        scheduled_for=like.scheduled_for,
        started_at=like.started_at,
        finished_at=like.finished_at,
        software=like.software,
    )
