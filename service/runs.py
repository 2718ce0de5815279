"""Runs: one window of one monitor measured, judged and recorded, with the alert and the calls that follow from it.

`execute` is a run from start to end: read it first.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import structlog
import zstandard
from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from monitors import budget, discovery
from monitors.blocks import Blocks
from monitors.contract import (
    Arrivals,
    Comparison,
    Kind,
    Parameters,
    Posted,
    PostedFigures,
    Result,
    Subject,
    Verdict,
    WorkNotDoneError,
)
from monitors.layout import Layout
from monitors.null import ENOUGH_BLOCKS
from monitors.performance import label_coverage
from monitors.profile import Profile, merged
from monitors.slices import Slice
from service import alerts, baselines, posted, retraining, slices, windows
from service.alerts import Finding
from service.clock import Clock
from service.database import EPOCH, Database
from service.explanations import Explanations
from service.groups import groups_of
from service.lake import Lake, quarantine, reader
from service.lake.columns import together
from service.lake.files import SegmentDamaged
from service.lake.lease import LeaseLost, is_gone, kept, lease_now, owner_here
from service.problems import Problem
from service.profiles import Profiles, watermark
from service.settings import Settings
from service.tables import (
    AlertRow,
    ArrivalRow,
    BaselineRow,
    ExclusionRow,
    JobRow,
    ModelRow,
    ModelStatusRow,
    MonitorRow,
    ReplayRow,
    ResultRow,
    RunRow,
    VersionRow,
)
from service.windows import Grid
from service.words import DAY, HOUR, UNFINISHED, Span, bucket_of, bucket_start, derived_id, format_time
from service.worker import Limits, Worker, WorkFailed

SCALES = (1, 7, 28)
ROLLING, SEASONAL = "rolling", "seasonal"
"""Baselines that are no baseline's name: the 28 windows before, and the same hours of the week."""
WEEK = 7 * DAY
LABELS: Mapping[str, Any] = {"delay": "30d", "min_coverage": 0.8, "min_rows": 100}
"""When a window's labels are complete enough, where a monitor does not say."""
ANSWERS = 100_000
"""Labelled rows that sequential detectors are fed at most."""
OWN_WINDOWS = 60
"""How many of the model's own quiet windows are compared at most."""
ATTEMPTS = 2
"""A run that fails so often stays failed."""
CRASHES = 5
WAITING = "waiting_for_labels"
WORK_SECONDS = 240.0
"""What a run may spend in the worker process at a time."""
BLIND_AFTER = 3
FAILING_AFTER = 2
RECENT = 30
MEASURED_SHARE = 0.9
JUDGED = ("ok", "violations", "partial")
FINISHED = ("ok", "violations", "partial", "waiting_for_labels", "insufficient_data", "no_data", "failed")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Workshop:
    """What a run works with."""

    database: Database
    lake: Lake
    profiles: Profiles
    clock: Clock
    settings: Settings
    software: str
    worker: Worker
    explanations: Explanations


@dataclass(frozen=True, kw_only=True)
class Due:
    """A window of a monitor and version that is to be run.

    ``data`` is the span that the version's records fill, as far as is known; ``live`` says whether the window was
    lived through, so that silence in it means something; ``judge`` whether the run may spend the window's one look
    (a backfill does only where it is asked to alert).
    """

    model: ModelRow
    version: VersionRow
    monitor: MonitorRow
    window: Span
    data: Span
    scheduled_for: datetime | None = None
    replay: ReplayRow | None = None
    live: bool = True
    backfill: bool = False
    judge: bool = True
    run_id: int | None = None
    """The run that is queued for it, or was begun; none where the window's turn has come."""

    @property
    def grid(self) -> Grid:
        """The windows of the monitor."""
        return windows.grid_of(self.monitor.schedule, self.monitor.window, self.monitor.offset)

    @property
    def kind(self) -> Kind:
        """What the monitor measures; a problem where no such kind is installed."""
        found = discovery.kinds().get(self.monitor.kind)
        if found is None:
            raise KindMissing(f"no installed package has the kind of monitor {self.monitor.kind!r}")
        return found

    @property
    def parameters(self) -> Parameters:
        """What is set on the kind."""
        return self.kind.parameters.model_validate(self.monitor.parameters)


class KindMissing(Problem):
    """A monitor's kind is not installed."""

    status, title = 409, "The kind of monitor is not installed"


class Unmeasured(Exception):  # noqa: N818 - an outcome, not a mistake
    """A window says nothing: the status and the reason that the run gets."""

    def __init__(self, status: str, reason: str, *, edge: bool = False) -> None:
        super().__init__(reason)
        self.status, self.reason, self.edge = status, reason, edge


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a run; the attempt's number fences what is written."""

    run_id: int
    attempt: int


@dataclass(slots=True)
class Measured:
    """What a run found before it is written down."""

    rows: int = 0
    results: list[Result] = field(default_factory=list)
    baseline: BaselineRow | None = None
    layout: int | None = None
    alpha: float | None = None
    status: str = ""
    reason: str = ""
    edge: bool = False
    """Whether the window was only too early or too late to count."""
    labelled: int | None = None
    labels_seen: int | None = None
    told: str = ""
    """What every result says beside its own note."""
    spent: bool = False
    """Whether the window's look is spent although there was too little to judge."""
    lost: int = 0
    """Rows that came and are in a damaged file."""


# --- a run, start to end ----------------------------------------------------------------------------------------------


def execute(workshop: Workshop, due: Due) -> RunRow | None:
    """Measure one window of one monitor, record what was found, owe what follows; None where another does, or did."""
    claim = claimed(workshop, due)
    if claim is None:
        return None
    measured = measurement(workshop, due, claim)
    try:
        with workshop.database.writing() as session:
            run = record(session, workshop, due, claim, measured)
            if run is not None and run.status != "queued":
                follow(session, workshop, due, run, measured)
    except Exception as error:
        abandon(workshop, claim, f"what was found could not be stored: {type(error).__name__}: {error}"[:500])
        raise
    return run


def measurement(workshop: Workshop, due: Due, claim: Claim) -> Measured:
    """Return what there is to find in a window, or why nothing was; holds the claim meanwhile.

    A file that turns out to be damaged is set aside, and what is left of the window is measured.
    """
    lease = workshop.settings.lease_seconds
    while True:
        measured = Measured()
        try:
            with kept(lambda: renew(workshop, claim), lease), workshop.database.reading() as session:
                measure(session, workshop, due, measured)
        except Unmeasured as outcome:
            measured.status, measured.reason, measured.edge = outcome.status, outcome.reason, outcome.edge
        except SegmentDamaged as damage:
            if quarantine.set_aside(workshop.database, workshop.lake, workshop.clock):
                continue
            measured.status, measured.reason = "failed", damage.detail
        except Problem as problem:
            measured.status, measured.reason = "failed", problem.detail or problem.title
        except Exception as error:  # whatever a plug-in raises, the run is recorded as failed
            log.exception("run failed", monitor=due.monitor.name, model=due.model.name)
            measured.status, measured.reason = "failed", f"{type(error).__name__}: {error}"[:500]
        return measured


def measure(session: Session, workshop: Workshop, due: Due, into: Measured) -> None:
    """Compare the window with the baseline and judge what comes out."""
    kind = due.kind
    into.rows = rows_in(session, due, due.window)
    if not into.rows and not (kind.judges_empty and due.live):
        nothing = "no figure was posted for" if kind.judges_posted else "no record fell into"
        raise Unmeasured("no_data", f"{nothing} the window")
    if kind.judges_posted:
        judge_posted(session, workshop, due, into)
        return
    _check_whole(due, into.rows)
    if kind.needs_labels or kind.reads_labels:
        into.labels_seen = labels_in(session, due, due.window)
    into.baseline = _baseline(session, due)
    into.layout = due.version.layout or into.baseline.layout
    comparison = compared(session, workshop, due, into)
    policy = budget.parse_policy(due.monitor.policy)
    found = kind.measure(comparison, policy.prepared(due.parameters))
    into.alpha = alpha_of(session, due)
    only = slices.columns_named(session, due.monitor) if due.monitor.slices else None

    def compare(part: Slice) -> Comparison:
        return compared(session, replace(workshop, profiles=workshop.profiles.of(part, only)), due, into)

    found += list(sliced(session, workshop, due, into, policy, compare))
    found = noted(signed(found, kind), due, into.baseline, into.told)
    if (missing := into.rows - comparison.window.rows) > 0:
        into.lost = min(missing, reader.lost_rows(session, due.model.id, due.version.id, due.window))
    into.rows = comparison.window.rows
    if kind.waits_for_labels(due.parameters) and not _mature(session, workshop, due, into, comparison.window):
        into.results = [replace(result, verdict=None) for result in found]
    else:
        into.results = policy.judge(found, into.alpha)
    if kind.reads_labels:
        into.labelled = label_coverage(comparison.window)[0]


def judge_posted(session: Session, workshop: Workshop, due: Due, into: Measured) -> None:
    """Judge the figures posted for a window, once those that are expected are there or have had their time."""
    kind, policy = due.kind, budget.parse_policy(due.monitor.policy)
    parameters = policy.prepared(due.parameters)
    into.labels_seen = labels_in(session, due, due.window)
    into.alpha = alpha_of(session, due)
    comparison = posted_comparison(session, due, into)
    found = _with_note(signed(kind.measure(comparison, parameters), kind), into.told)
    until = due.window.end + budget.duration({**LABELS, **(due.monitor.labels or {})}["delay"])
    awaited = kind.awaited(comparison, parameters)
    if awaited and watermark(session, due.model, workshop.clock, workshop.settings) < until:
        into.status = WAITING
        into.reason = f"not posted yet: {', '.join(awaited)}; judged when it is, or on {format_time(until)}"
        into.results = [replace(result, verdict=None) for result in found]
        return
    into.results = policy.judge(found, into.alpha)
    if all(result.verdict is None for result in into.results):
        into.reason = next((result.note for result in into.results if result.note), "")


def record(session: Session, workshop: Workshop, due: Due, claim: Claim, measured: Measured) -> RunRow | None:
    """Write the run, its results and the model's status, if this attempt is still the one that counts."""
    _one_of_version(session, due.version.id)
    run = session.get(RunRow, claim.run_id, with_for_update=True)
    if run is None or run.attempt != claim.attempt or run.status != "running":
        return None
    others = session.scalars(select(RunRow).where(*same_window(run), RunRow.id != run.id)).all()
    deciding = tally(run, measured)
    run.layout, run.baseline_id = measured.layout, measured.baseline.id if measured.baseline else None
    run.finished_at, run.owner, run.lease_until = workshop.clock.now(), None, None
    if run.status == "failed" and run.attempt < ATTEMPTS:
        run.status = "queued"
        session.flush()
        return run
    run.labels_seen = measured.labels_seen
    earlier = next((other for other in others if other.judged and other.status not in UNFINISHED), None)
    run.judged = due.judge and earlier is None and (run.status in JUDGED or measured.spent)
    if earlier is not None and run.status in JUDGED and earlier.status in JUDGED and run.status != earlier.status:
        told = f"judged {earlier.status}; by what is known now it would be {run.status}"
        run.reason = f"{told}: {run.reason}" if run.reason else told
    later = [other for other in others if other.revision > run.revision and other.status not in UNFINISHED]
    run.current = not (_is_in_empty_span(session, run) or any(other.current for other in later))
    if run.current and any(other.revision < run.revision for other in others):
        session.execute(update(RunRow).where(*same_window(run), RunRow.revision < run.revision).values(current=False))
    session.flush()
    if deciding:
        session.execute(insert(ResultRow), [_result_row(run, result) for result in deciding])
    return run


def tally(run: RunRow, measured: Measured) -> list[Result]:
    """Write down on a run what was found and how it stands, and return the results that decide."""
    deciding = [result for result in measured.results if result.decides and result.verdict is not None]
    counts = {verdict: sum(result.verdict is verdict for result in deciding) for verdict in Verdict}
    run.ok, run.violated, run.not_measured = (
        counts[Verdict.OK],
        counts[Verdict.VIOLATED],
        counts[Verdict.NOT_MEASURED],
    )
    run.status = measured.status or status_of(run)
    run.reason = measured.reason or _first_reason(run, deciding)
    if measured.lost:
        run.status = "partial" if run.status == "ok" else run.status
        lost = f"{measured.lost} of {measured.lost + measured.rows} rows are in a damaged file"
        run.reason = f"{run.reason}; {lost}" if run.reason else lost
    run.rows, run.alpha, run.labelled_rows = measured.rows, measured.alpha, measured.labelled
    run.document = encode_results([result_document(result) for result in measured.results])
    return deciding


def follow(session: Session, workshop: Workshop, due: Due, run: RunRow, measured: Measured) -> None:
    """Bring the model's status up to date, and the episode where the run was judged."""
    now = workshop.clock.now()
    deciding = [result_document(result) for result in measured.results if result.decides and result.verdict is not None]
    finding = Finding(
        model=due.model,
        version=due.version,
        monitor=due.monitor,
        run=run,
        results=deciding,
        replay=due.replay,
        baseline=measured.baseline.name if measured.baseline else None,
    )
    status = _status(session, due, run, finding, counts=not measured.edge, now=now)
    if run.judged and run.status in JUDGED:
        alerts.update(session, finding, workshop.settings, now)
        retraining.consider(session, finding, workshop.settings, now)
    if run.backfill or status is None:
        return
    if not run.replayed:
        blind = f"has not measured {status.unmeasured} windows in a row: {run.reason}"
        alerts.watch(
            session, "blind", finding, blind if status.unmeasured >= BLIND_AFTER else None, workshop.settings, now
        )
    failing = f"failed {status.failures} times in a row: {run.reason}"
    alerts.watch(
        session, "failing", finding, failing if status.failures >= FAILING_AFTER else None, workshop.settings, now
    )


# --- who runs it ------------------------------------------------------------------------------------------------------


def claimed(workshop: Workshop, due: Due) -> Claim | None:
    """Take the run of a window, new or abandoned; None where it is done or somebody is at it."""
    try:
        with workshop.database.writing() as session:
            return _claimed(session, workshop, due)
    except IntegrityError:
        return None  # another scheduler was first


def _claimed(session: Session, workshop: Workshop, due: Due) -> Claim | None:
    now, leased = workshop.clock.now(), lease_now(session, workshop.database)
    lease = timedelta(seconds=workshop.settings.lease_seconds)
    revision = next_revision(session, due.monitor.id, due.version.id, due.window)  # before the look for who has it
    # what was asked for is no turn of the window, and does not keep it from its turn
    wanted = RunRow.backfill.is_(False) if due.run_id is None else RunRow.id == due.run_id
    mine = select(RunRow).where(*of_window(due.monitor.id, due.version.id, due.window), wanted)
    newest = session.scalar(mine.order_by(RunRow.revision.desc()).limit(1).with_for_update(skip_locked=True))
    if newest is None and (due.run_id is not None or session.scalar(mine.limit(1)) is not None):
        return None  # somebody is at it
    if newest is not None:
        held = newest.status == "running" and newest.lease_until is not None and newest.lease_until > leased
        if newest.status not in UNFINISHED or (held and not is_gone(newest.owner or "", workshop.database)):
            return None
        if _is_cancelled(session, newest):
            session.delete(newest)  # as those that nobody had begun
            return None
        if newest.attempt >= CRASHES:
            newest.status, newest.reason = "failed", f"the process ended {newest.attempt} times while this ran"
            newest.owner, newest.lease_until, newest.finished_at = None, None, now
            return None
        newest.status, newest.attempt = "running", newest.attempt + 1
        newest.owner, newest.lease_until, newest.started_at = owner_here(), leased + lease, now
        return Claim(newest.id, newest.attempt)
    monitor, version, window = due.monitor, due.version, due.window
    run = RunRow(
        uid=derived_id("run", monitor.uid, version.name, window.start, window.end, revision),
        model_id=due.model.id,
        monitor_id=monitor.id,
        version_id=version.id,
        starts_at=window.start,
        ends_at=window.end,
        revision=revision,
        current=revision == 1,
        status="running",
        replayed=due.replay is not None,
        backfill=due.backfill,
        scheduled_for=due.scheduled_for or window.end,
        started_at=now,
        software=workshop.software,
        attempt=1,
        owner=owner_here(),
        lease_until=leased + lease,
    )
    session.add(run)
    session.flush()
    return Claim(run.id, 1)


def _is_cancelled(session: Session, run: RunRow) -> bool:
    """Return whether the job that asked for a run was cancelled."""
    state = select(JobRow.state).where(JobRow.id == run.job_id)
    return run.job_id is not None and session.scalar(state) == "cancelled"


def renew(workshop: Workshop, claim: Claim) -> None:
    """Hold a claim for longer; `LeaseLost` where another has taken the run over."""
    with workshop.database.writing() as session:
        until = lease_now(session, workshop.database) + timedelta(seconds=workshop.settings.lease_seconds)
        mine = (RunRow.id == claim.run_id, RunRow.attempt == claim.attempt, RunRow.status == "running")
        held = session.execute(update(RunRow).where(*mine).values(lease_until=until).returning(RunRow.id)).first()
    if held is None:
        raise LeaseLost(f"run {claim.run_id} went to another process")


def abandon(workshop: Workshop, claim: Claim, reason: str) -> None:
    """Give a run back, so that it is tried again at once; one that was given back too often has failed."""
    with workshop.database.writing() as session:
        run = session.get(RunRow, claim.run_id, with_for_update=True)
        if run is None or run.attempt != claim.attempt or run.status != "running":
            return
        run.status = "queued" if run.attempt < CRASHES else "failed"
        run.reason, run.owner, run.lease_until = reason, None, None
        run.finished_at = workshop.clock.now()


def empty_stretch(workshop: Workshop, due: Due, count: int) -> RunRow | None:
    """Store that a span of so many windows holds no record, as one entry that grows while the silence lasts."""
    now, monitor, version, window = workshop.clock.now(), due.monitor, due.version, due.window
    posts = arriving(monitor) == posted.METRICS
    try:
        with workshop.database.writing() as session:
            _one_of_version(session, version.id)
            _alone(session, monitor.id)
            last = session.scalar(
                select(RunRow)
                .where(
                    RunRow.monitor_id == monitor.id,
                    RunRow.version_id == version.id,
                    RunRow.status == "no_data",
                    RunRow.backfill.is_(False),
                    RunRow.current.is_(True),
                    RunRow.ends_at == window.start,
                )
                .with_for_update()
                .limit(1)
            )
            whole = Span(last.starts_at if last is not None else window.start, window.end)
            revision = next_revision(session, monitor.id, version.id, whole)
            if last is not None:
                last.ends_at, last.revision, last.finished_at = window.end, revision, now
                run = last
            else:
                run = RunRow(
                    uid=derived_id("run", monitor.uid, version.name, window.start, "empty", revision),
                    model_id=due.model.id,
                    monitor_id=monitor.id,
                    version_id=version.id,
                    starts_at=window.start,
                    ends_at=window.end,
                    revision=revision,
                    status="no_data",
                    reason=f"no {'figure was posted for' if posts else 'record fell into'} this span",
                    replayed=due.replay is not None,
                    scheduled_for=window.end,
                    started_at=now,
                    finished_at=now,
                    software=workshop.software,
                )
                session.add(run)
            session.flush()
            session.execute(
                update(RunRow)
                .where(*_inside(run), RunRow.backfill.is_(True), RunRow.id != run.id)
                .values(current=False)
            )
            finding = Finding(model=due.model, version=version, monitor=monitor, run=run, results=(), replay=due.replay)
            status = _status(session, due, run, finding, counts=due.live, now=now, windows_=count)
            if due.live and status is not None and status.unmeasured >= BLIND_AFTER:
                came = "no figures were posted" if posts else "no records came"
                reason = f"has not measured {status.unmeasured} windows in a row: {came}"
                alerts.watch(session, "blind", finding, reason, workshop.settings, now)
            return run
    except IntegrityError:
        return None  # another scheduler was first


def _alone(session: Session, monitor_id: int) -> None:
    """Let empty spans of a monitor and backfills inside them be stored one after the other: each sees the other."""
    session.execute(select(MonitorRow.id).where(MonitorRow.id == monitor_id).with_for_update())


def _one_of_version(session: Session, version_id: int) -> None:
    """Let what was found about a version be written down one run after the other, whichever process found it.

    The monitors of a version share its episode, and revisions of a window its one look: each sees what the one before
    has stored. Records of the version come in meanwhile.
    """
    session.execute(select(VersionRow.id).where(VersionRow.id == version_id).with_for_update(key_share=True))


def next_revision(session: Session, monitor_id: int, version_id: int, window: Span) -> int:
    """Return the number after the newest revision of a window; 1 where there is none."""
    known = session.scalar(select(func.max(RunRow.revision)).where(*of_window(monitor_id, version_id, window)))
    return int(known or 0) + 1


def of_window(monitor_id: int, version_id: int, window: Span) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a run is of a window: one of its revisions."""
    return (
        RunRow.monitor_id == monitor_id,
        RunRow.version_id == version_id,
        RunRow.starts_at == window.start,
        RunRow.ends_at == window.end,
    )


def same_window(run: RunRow) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that another run is of the same window."""
    return of_window(run.monitor_id, run.version_id, Span(run.starts_at, run.ends_at))


def _inside(run: RunRow) -> tuple[Any, ...]:
    """Return the conditions that another run of the monitor and version has its window inside this one's."""
    return (
        RunRow.monitor_id == run.monitor_id,
        RunRow.version_id == run.version_id,
        RunRow.starts_at >= run.starts_at,
        RunRow.ends_at <= run.ends_at,
    )


# --- what is compared -------------------------------------------------------------------------------------------------


def compared(session: Session, workshop: Workshop, due: Due, known: Measured) -> Comparison:
    """Return all that the monitor may look at."""
    baseline, layout_number = known.baseline, known.layout
    if baseline is None or layout_number is None:
        raise Unmeasured("insufficient_data", "the version has no baseline to compare with")
    layout = workshop.profiles.layout(session, due.version.id, layout_number)
    kind = due.kind
    labels = kind.needs_labels or kind.reads_labels
    blocks: dict[int, Blocks] = {}
    why = ""
    spans = {1: [due.window]}
    season = _season(session, workshop, due, baseline, layout, known) if due.monitor.baseline == SEASONAL else None
    if season is not None:
        blocks[1] = season[1]
    for scale in SCALES if season is None else ():
        stream, reason = _blocks(session, workshop, due, baseline, layout, scale)
        if stream is not None and len(stream) >= ENOUGH_BLOCKS:
            blocks[scale] = stream
        elif scale == 1:
            why = reason
        if scale > 1 and scale in blocks and not kind.judges_empty:
            earlier = earlier_windows(session, due, baseline, scale)
            if earlier is None:
                del blocks[scale]
            else:
                spans[scale] = earlier
    scales = dict(zip(spans, profiles_of(session, workshop, due, layout, list(spans.values())), strict=True))
    sampled = cache(lambda: _sampled(session, workshop, due))

    def row_groups(attribute: str) -> pa.Array | None:
        table = sampled()
        return None if table is None else groups_of(session, workshop.lake, due.version, layout, table, attribute)

    return Comparison(
        columns=baselines.columns(session, due.version),
        baseline=season[0] if season else _baseline_profile(session, workshop, due, baseline, layout),
        scales=scales,
        blocks={scale: stream for scale, stream in blocks.items() if scale in scales},
        blocks_reason=why,
        arrivals=arrivals_of(session, due),
        starts_at=due.window.start,
        ends_at=due.window.end,
        generator=generators(due),
        task=baselines.task_of(due.model),
        rows=lambda: attributed(workshop, due, baseline, sampled(), window=True),
        baseline_rows=lambda: attributed(
            workshop, due, baseline, baselines.sample(workshop.lake, baseline, workshop.profiles.slice), window=False
        ),
        row_groups=row_groups,
        bucket_outcomes=lambda: (
            workshop.profiles.bucket_outcomes(session, due.version, layout.number, due.window) if labels else None
        ),
        work=lambda task, document, tables: handed_over(workshop, task, document, tables),
        answers=lambda: answers_before(session, workshop, due),
        detections=detections_before(session, due) if kind.needs_labels else {},
    )


def sliced(
    session: Session,
    workshop: Workshop,
    due: Due,
    known: Measured,
    policy: budget.Policy,
    compare: Callable[[Slice], Comparison],
) -> Iterator[Result]:
    """Yield what the kind measures of each slice of the monitor; how much came is told of the whole alone.

    ``compare`` returns the rows of a slice beside the baseline's.
    """
    baseline, kind = known.baseline, due.kind
    if baseline is None or not due.monitor.slices:
        return
    parameters = policy.prepared(kind.parameters.model_validate(due.monitor.parameters))
    if kind.needs_attributions:
        for name in due.monitor.slices:
            reason = "attributions are compared of all rows, not of slices"
            yield Result(metric=kind.name, subject=Subject(slice=name), reason=reason)
        return
    for part, reason in slices.of_monitor(
        session, workshop.lake, workshop.profiles, due.version, due.monitor, baseline, due.window
    ):
        if reason:
            yield Result(metric=kind.name, subject=Subject(slice=part.name), reason=reason)
            continue
        comparison = compare(part)
        if not comparison.window.rows:
            yield Result(metric=kind.name, subject=Subject(slice=part.name), reason="no row of the slice came")
            continue
        for result in kind.measure(slices.within(comparison, part.name), parameters):
            if not kind.judges_empty or result.subject.feature is not None:
                yield replace(result, subject=replace(result.subject, slice=part.name))


def handed_over(
    workshop: Workshop, task: str, document: Mapping[str, Any], tables: Mapping[str, pa.Table]
) -> Mapping[str, Any]:
    """Have a task done in the worker process; what goes wrong there is a WorkNotDoneError."""
    try:
        answer, _ = workshop.worker.call(task, document, tables=tables, limits=Limits(seconds=WORK_SECONDS))
    except WorkFailed as problem:
        raise WorkNotDoneError(problem.detail or problem.title) from problem
    return answer


def _sampled(session: Session, workshop: Workshop, due: Due) -> pa.Table | None:
    return workshop.profiles.sample(session, due.version, due.window, labels=True)


def attributed(
    workshop: Workshop, due: Due, baseline: BaselineRow, rows: pa.Table | None, *, window: bool
) -> pa.Table | None:
    """Return sampled rows, with attributions where the kind of monitor needs them."""
    if not due.kind.needs_attributions:
        return rows
    return workshop.explanations.with_attributions(due.model.id, due.version.id, baseline, rows, window=window)


def answers_before(session: Session, workshop: Workshop, due: Due) -> pa.Table | None:
    """Return the newest labelled answers before a window's end, in order of time and id; None where there are none."""
    counts = session.execute(
        select(ArrivalRow.bucket, ArrivalRow.accepted)
        .where(
            ArrivalRow.version_id == due.version.id,
            ArrivalRow.kind == "ground_truth",
            ArrivalRow.accepted > 0,
            ArrivalRow.bucket < bucket_of(due.window.end),
        )
        .order_by(ArrivalRow.bucket.desc())
        .limit(50_000)
    ).all()
    first, rows = None, 0
    for bucket, accepted in counts:
        first, rows = bucket, rows + accepted
        if rows >= ANSWERS:
            break
    if first is None:
        return None
    span = Span(bucket_start(first), due.window.end)
    wanted = ["timestamp", "id_hash", "prediction"]
    found = reader.batches(session, workshop.lake, due.model.id, due.version.id, span, wanted, labels=True)
    tables = [pa.Table.from_batches([batch]) for batch in found if batch.num_rows]
    if not tables:
        return None
    table = together(tables)
    table = table.filter(table["ground_truth"].is_valid())
    table = table.sort_by([("timestamp", "ascending"), ("id_hash", "ascending")])
    return table.slice(max(0, table.num_rows - ANSWERS)).unify_dictionaries()


def detections_before(session: Session, due: Due) -> dict[str, datetime]:
    """Return when the detectors of the monitor's earlier windows saw their newest change, by metric."""
    runs = session.scalars(
        select(RunRow)
        .where(
            RunRow.monitor_id == due.monitor.id,
            RunRow.version_id == due.version.id,
            RunRow.current.is_(True),
            RunRow.document.is_not(None),
            RunRow.ends_at <= due.window.start,
        )
        .order_by(RunRow.ends_at.desc())
        .limit(2 * OWN_WINDOWS)
    )
    found: dict[str, datetime] = {}
    for run in runs:
        for result in decode_results(run.document):
            if "detected_at" in result:
                found.setdefault(result["metric"], datetime.fromisoformat(result["detected_at"]))
    return found


def generators(due: Due) -> Callable[[str, Subject], np.random.Generator]:
    """Return what makes the generator of a metric and subject: the same for every attempt and revision."""

    def generator(metric: str, subject: Subject) -> np.random.Generator:
        parts = (due.monitor.uid, due.version.name, due.window.start, due.window.end, metric, subject)
        digest = blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).digest()
        return np.random.default_rng(int.from_bytes(digest, "little"))

    return generator


def profiles_of(
    session: Session, workshop: Workshop, due: Due, layout: Layout, asked: Sequence[Sequence[Span]]
) -> list[Profile]:
    """Return the merged profile of each list of windows; what several of them need is read once."""
    labels = due.kind.needs_labels or due.kind.reads_labels
    whole = [joined(spans) for spans in asked]
    return workshop.profiles.windows(session, due.version, layout.number, whole, labels=labels)


def profile_of(session: Session, workshop: Workshop, due: Due, layout: Layout, spans: Sequence[Span]) -> Profile:
    """Return the merged profile of some windows, neighbours read as one span."""
    return profiles_of(session, workshop, due, layout, [spans])[0]


def joined(spans: Sequence[Span]) -> list[Span]:
    """Return spans with neighbours put together, in order of time."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and found[-1].end >= span.start:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


def earlier_windows(session: Session, due: Due, baseline: BaselineRow, scale: int) -> list[Span] | None:
    """Return the last so many windows, this one included, without those left out; None where they reach back too far.

    They reach no further back than the version's data, the end of its last episode and the moment the baseline came
    into force; at least half of them must be left.
    """
    ended = alerts.episodes(session, due.version.id)
    floor = max([due.data.start, baseline.active_from or EPOCH, *(span.end for span in ended)])
    spans = [due.window]
    for _ in range(scale - 1):
        spans.append(due.grid.ending(spans[-1].start))
    if spans[-1].start < floor:
        return None
    left_out = [*ended, *exclusions(session, due.model.id)]
    kept = [span for span in spans if not any(_meets(span, gap) for gap in left_out)]
    return kept if 2 * len(kept) > scale and due.window in kept else None


def exclusions(session: Session, model_id: int) -> list[Span]:
    """Return the spans that a user leaves out."""
    rows = session.scalars(select(ExclusionRow).where(ExclusionRow.model_id == model_id))
    return [Span(row.starts_at, row.ends_at) for row in rows]


def _meets(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


def _blocks(
    session: Session, workshop: Workshop, due: Due, baseline: BaselineRow, layout: Layout, scale: int
) -> tuple[Blocks | None, str]:
    """Return the blocks of a scale's length of the quiet stream: the ordered baseline, else the model's own windows."""
    hours = scale * (windows.LENGTHS[due.monitor.window] // HOUR)
    if due.monitor.baseline == ROLLING:
        if scale > 1:
            return None, ""
        kept = rolling_windows(session, due)
        if len(kept) < ENOUGH_BLOCKS:
            return None, f"the rolling baseline has {len(kept)} of {ENOUGH_BLOCKS} windows"
        return Blocks.from_profiles(profiles_of(session, workshop, due, layout, [[span] for span in kept])), ""
    stream, why = baselines.blocks(session, workshop.lake, baseline, layout, hours, workshop.profiles.slice)
    if scale > 1 or stream is not None:
        return stream, why
    quiet = own_quiet_windows(session, due)
    if len(quiet) >= ENOUGH_BLOCKS:
        return Blocks.from_profiles(profiles_of(session, workshop, due, layout, [[span] for span in quiet])), ""
    return None, f"{why}; {len(quiet)} of {ENOUGH_BLOCKS} quiet windows of production are known"


def own_quiet_windows(session: Session, due: Due) -> list[Span]:
    """Return the monitor's newest quiet windows before this one, oldest first, outside episodes and exclusions."""
    rows = session.scalars(
        select(RunRow)
        .where(
            RunRow.monitor_id == due.monitor.id,
            RunRow.version_id == due.version.id,
            RunRow.current.is_(True),
            RunRow.status.in_(("ok", "partial")),
            RunRow.ends_at <= due.window.start,
        )
        .order_by(RunRow.ends_at.desc())
        .limit(2 * OWN_WINDOWS)
    )
    left_out = _left_out(session, due)
    spans = [Span(row.starts_at, row.ends_at) for row in rows]
    return [span for span in spans if not any(_meets(span, gap) for gap in left_out)][:OWN_WINDOWS][::-1]


def _left_out(session: Session, due: Due) -> list[Span]:
    """Return the spans before a window that are not quiet: those of episodes, open ones too, and of exclusions."""
    episodes = session.scalars(
        select(AlertRow).where(AlertRow.version_id == due.version.id, AlertRow.kind == "episode")
    )
    found = [
        Span(row.starts_at, row.last_violated_at if row.state == "resolved" else due.window.end) for row in episodes
    ]
    return found + exclusions(session, due.model.id)


def posted_comparison(session: Session, due: Due, into: Measured) -> Comparison:
    """Return the figures of a window and of the quiet windows before it, and nothing else."""
    (window,) = posted.of_spans(session, due.version.id, [due.window])
    nothing = Profile.empty(Layout({}))
    return Comparison(
        columns=(),
        baseline=nothing,
        scales={1: nothing},
        blocks={},
        arrivals=Arrivals(rows=into.rows),
        starts_at=due.window.start,
        ends_at=due.window.end,
        generator=generators(due),
        task=baselines.task_of(due.model),
        posted=PostedFigures(window=window, quiet=tuple(_posted_before(session, due, into))),
    )


def _posted_before(session: Session, due: Due, into: Measured) -> list[tuple[Posted, ...]]:
    """Return what was posted for each of the newest quiet windows before one, oldest first.

    Windows are quiet outside episodes and exclusions, where the monitor itself found nothing, and since a baseline
    last came into force. They need not have been judged, so that history can be posted before there is a monitor.
    A seasonal monitor is given the same hours of the week, once 20 weeks of them are known.
    """
    bad = session.execute(
        select(RunRow.starts_at, RunRow.ends_at).where(
            RunRow.monitor_id == due.monitor.id,
            RunRow.version_id == due.version.id,
            RunRow.current.is_(True),
            RunRow.violated > 0,
            RunRow.ends_at <= due.window.start,
        )
    )
    left_out = [*_left_out(session, due), *(Span(*row) for row in bad)]
    floor = max([EPOCH, *(cut for cut in baselines.cuts(session, due.version) if cut <= due.window.start)])

    def filled(spans: Sequence[Span]) -> list[tuple[Posted, ...]]:
        kept = [span for span in spans if span.start >= floor and not any(_meets(span, gap) for gap in left_out)]
        return [figures for figures in posted.of_spans(session, due.version.id, kept) if figures]

    if due.monitor.baseline == SEASONAL:
        weeks = range(OWN_WINDOWS, 0, -1)
        found = filled([Span(due.window.start - week * WEEK, due.window.end - week * WEEK) for week in weeks])
        if len(found) >= ENOUGH_BLOCKS:
            return found
        into.told = (
            f"compared with all windows: the same hours of the week are known of {len(found)} of {ENOUGH_BLOCKS} weeks"
        )
    spans = [due.grid.ending(due.window.start)]
    most = max(SCALES) if due.monitor.baseline == ROLLING else 2 * OWN_WINDOWS
    while len(spans) < most:
        spans.append(due.grid.ending(spans[-1].start))
    return filled(spans[::-1])[-OWN_WINDOWS:]


def _baseline(session: Session, due: Due) -> BaselineRow:
    """Return what the window is compared with."""
    if due.monitor.baseline in ("active", ROLLING, SEASONAL):
        found = baselines.active(session, due.version, due.window.start)
    else:
        found = session.scalar(
            select(BaselineRow).where(
                BaselineRow.model_id == due.model.id,
                BaselineRow.name == due.monitor.baseline,
                BaselineRow.state == "ready",
            )
        )
    if found is None:
        raise Unmeasured("insufficient_data", "the version has no baseline to compare with")
    return found


def _baseline_profile(session: Session, workshop: Workshop, due: Due, baseline: BaselineRow, layout: Layout) -> Profile:
    if due.monitor.baseline != ROLLING:
        return baselines.profile(session, workshop.lake, baseline, layout, workshop.profiles.slice)
    kept = rolling_windows(session, due)
    if not kept:
        raise Unmeasured("insufficient_data", "no earlier window is left to compare with")
    return profile_of(session, workshop, due, layout, kept)


def rolling_windows(session: Session, due: Due) -> list[Span]:
    """Return the 28 windows before this one, oldest first, without those of episodes, exclusions and before the data.

    They are the rolling baseline and its blocks too: each is compared with the others, as this window is with all.
    """
    left_out = [*alerts.episodes(session, due.version.id), *exclusions(session, due.model.id)]
    spans = [due.grid.ending(due.window.start)]
    for _ in range(max(SCALES) - 1):
        spans.append(due.grid.ending(spans[-1].start))
    return [
        span for span in spans[::-1] if span.start >= due.data.start and not any(_meets(span, gap) for gap in left_out)
    ]


def _season(
    session: Session, workshop: Workshop, due: Due, baseline: BaselineRow, layout: Layout, known: Measured
) -> tuple[Profile, Blocks] | None:
    """Return what a window's own hours of the week look like, and a block for each week that they were quiet.

    From the baseline where it is 20 weeks long, else from the weeks of production before; with fewer, None, and the
    run's results say that they compare with the whole baseline.
    """
    found = baselines.season(workshop.lake, baseline, layout, due.window, workshop.profiles.slice)
    if not isinstance(found, str):
        return found
    left_out = [*alerts.episodes(session, due.version.id), *exclusions(session, due.model.id)]
    weeks = (Span(due.window.start - week * WEEK, due.window.end - week * WEEK) for week in range(OWN_WINDOWS, 0, -1))
    kept = [span for span in weeks if span.start >= due.data.start and not any(_meets(span, gap) for gap in left_out)]
    if len(kept) >= ENOUGH_BLOCKS:
        parts = profiles_of(session, workshop, due, layout, [[span] for span in kept])
        return merged(layout, parts), Blocks.from_profiles(parts)
    known.told = (
        f"compared with the whole baseline: {found}, and production holds them of {len(kept)}; from "
        f"{ENOUGH_BLOCKS} weeks on the same hours of the week are compared"
    )
    return None


def _check_whole(due: Due, rows: int) -> None:
    """Refuse the first and last calendar window where part of it lies outside the data."""
    share = windows.coverage(due.window, due.data)
    if rows and share < 1.0:
        data = f"{format_time(due.data.start)} to {format_time(due.data.end)}"
        reason = f"only {math.floor(100 * share)} % of the window lies inside the data ({data})"
        raise Unmeasured("insufficient_data", reason, edge=True)


def _mature(session: Session, workshop: Workshop, due: Due, into: Measured, window: Profile) -> bool:
    """Return whether a window's labels are complete enough to judge it, or have had the time that they get.

    It waits for labels until then; with too few of them after that time it is never judged.
    """
    labels = {**LABELS, **(due.monitor.labels or {})}
    into.labelled, rows = label_coverage(window)
    enough = into.labelled >= int(labels["min_rows"])
    if enough and into.labelled >= float(labels["min_coverage"]) * rows:
        return True
    until = due.window.end + budget.duration(labels["delay"])
    known = f"{into.labelled} of {rows} rows have a label"
    if watermark(session, due.model, workshop.clock, workshop.settings) < until:
        into.status = WAITING
        into.reason = f"{known}; judged at {100 * labels['min_coverage']:g} %, or on {format_time(until)}"
        return False
    if not enough:
        into.status, into.spent = "insufficient_data", True
        into.reason = f"{known} after {labels['delay']}, fewer than {labels['min_rows']}"
    return enough


def labels_in(session: Session, due: Due, span: Span) -> int:
    """Return how many labels, and attributes where groups are counted, came for a span, corrections included.

    Of a kind that judges posted figures, how many of those.
    """
    kinds = ("ground_truth", "protected") if due.kind.counts_groups else ("ground_truth",)
    kinds = (posted.METRICS,) if due.kind.judges_posted else kinds
    return int(
        session.scalar(
            select(func.coalesce(func.sum(ArrivalRow.accepted + ArrivalRow.corrected), 0)).where(
                ArrivalRow.version_id == due.version.id,
                ArrivalRow.kind.in_(kinds),
                ArrivalRow.bucket.between(span.hours.start, span.hours.stop - 1),
            )
        )
        or 0
    )


def signed(results: Sequence[Result], kind: Kind) -> Sequence[Result]:
    """Say in each result which plug-in measured it."""
    by = discovery.by(kind.name)
    return [replace(result, by=by) if not result.by else result for result in results] if by else results


def noted(results: Sequence[Result], due: Due, baseline: BaselineRow, told: str = "") -> list[Result]:
    """Say in each result where the baseline is another version's, or not what the monitor asks for."""
    borrowed = f"compared with the baseline {baseline.name} of another version"
    told = "; ".join(part for part in (told, borrowed if baseline.version_id != due.version.id else "") if part)
    return _with_note(results, told)


def _with_note(results: Sequence[Result], told: str) -> list[Result]:
    """Add to the note of each result."""
    if not told:
        return list(results)
    return [replace(result, note=f"{result.note}; {told}" if result.note else told) for result in results]


# --- how much came ----------------------------------------------------------------------------------------------------


def arriving(monitor: MonitorRow) -> str:
    """Return the kind of arrivals that a monitor's windows are filled by."""
    kind = discovery.kinds().get(monitor.kind)
    return posted.METRICS if kind is not None and kind.judges_posted else "predictions"


def begun(session: Session, version: VersionRow, monitor: MonitorRow) -> datetime | None:
    """Return when what a monitor looks at began to come for a version; None where nothing has."""
    if arriving(monitor) == posted.METRICS:
        return posted.begun(session, version.id)
    return version.first_event_at


def rows_in(session: Session, due: Due, span: Span) -> int:
    """Return how many predictions of the version fell into a span, or figures of it were posted for it."""
    return int(
        session.scalar(
            select(func.coalesce(func.sum(ArrivalRow.accepted), 0)).where(
                *_arrivals(due, span), ArrivalRow.version_id == due.version.id
            )
        )
        or 0
    )


def _arrivals(due: Due, span: Span) -> tuple[Any, ...]:
    return (
        ArrivalRow.model_id == due.model.id,
        ArrivalRow.kind == arriving(due.monitor),
        ArrivalRow.bucket.between(span.hours.start, span.hours.stop - 1),
    )


def arrivals_of(session: Session, due: Due) -> Arrivals:
    """Return how much came in the window, and in the same hours of the four weeks before (or the windows before)."""
    window, inside = due.window, due.window.hours
    spans = [span for span in _same_hours_before(window, due.grid) if span.start >= due.data.start]
    begin = min([window.start - 28 * DAY, *(span.start for span in spans)])
    rows = session.execute(
        select(
            ArrivalRow.bucket,
            ArrivalRow.version_id,
            ArrivalRow.accepted,
            ArrivalRow.late,
            ArrivalRow.duplicates,
            ArrivalRow.conflicts,
            ArrivalRow.rejected,
        )
        .where(*_arrivals(due, Span(begin, window.end)), ArrivalRow.version_id.in_((0, due.version.id)))
        .order_by(ArrivalRow.bucket)
    ).all()
    own = [row for row in rows if row.version_id == due.version.id]
    now = [row for row in own if row.bucket in inside]
    counts = {row.bucket: int(row.accepted) for row in own if row.accepted}
    silence, gap = _silence(session, due, counts)
    return Arrivals(
        rows=sum(int(row.accepted) for row in now),
        history=tuple(sum(counts.get(hour, 0) for hour in span.hours) for span in spans),
        silence_hours=silence,
        usual_gap_hours=gap,
        rejected=sum(int(row.rejected) for row in rows if row.bucket in inside),
        late=sum(int(row.late) for row in now),
        duplicates=sum(int(row.duplicates) for row in now),
        conflicts=sum(int(row.conflicts) for row in now),
        judged=due.live and due.replay is None,
    )


def _same_hours_before(window: Span, grid: Grid) -> Iterator[Span]:
    """Yield the same hours one to four weeks before, or the windows before where one is longer than a week."""
    earlier = window
    for week in range(1, 5):
        if window.length <= 7 * DAY:
            yield Span(window.start - week * 7 * DAY, window.end - week * 7 * DAY)
        else:
            earlier = grid.ending(earlier.start)
            yield earlier


def _silence(session: Session, due: Due, counts: Mapping[int, int]) -> tuple[float | None, float | None]:
    """Return the hours from the last record to the window's end, and the longest such gap of four weeks before it.

    ``counts`` holds the rows by bucket of the window and of four weeks before it, in order of time.
    """
    start = bucket_of(due.window.start)
    last = next(reversed(counts), None) if counts else None
    if last is None:
        last = session.scalar(
            select(func.max(ArrivalRow.bucket)).where(
                ArrivalRow.version_id == due.version.id,
                ArrivalRow.kind == "predictions",
                ArrivalRow.accepted > 0,
                ArrivalRow.bucket < start,
            )
        )
    silence = None if last is None else max(0.0, (due.window.end - bucket_start(last + 1)) / HOUR)
    before = np.array([bucket for bucket in counts if start - 28 * 24 <= bucket < start], dtype=np.int64)
    return silence, float(np.diff(before).max()) if before.size > 1 else None


# --- the budget -------------------------------------------------------------------------------------------------------


def alpha_of(session: Session, due: Due) -> float:
    """Return the share of the model's alarm budget that this window may spend."""
    spent = min(due.grid.spent, due.window.length)
    rows = session.scalars(select(MonitorRow).where(MonitorRow.model_id == due.model.id, MonitorRow.enabled.is_(True)))
    declared = {row.name: given_share(row) for row in [due.monitor, *rows] if budget.parse_policy(row.policy).spends}
    share = budget.share_of(due.monitor.name, declared, _versions(session, due))
    return budget.window_alpha(due.model.alarm_budget, spent, share)


def given_share(monitor: MonitorRow) -> float | None:
    """Return the share of the budget that a monitor was given; none where it takes an equal part."""
    share = (monitor.policy.get("budget") or {}).get("share") if monitor.policy else None
    return None if share is None else float(share)


def _versions(session: Session, due: Due) -> int:
    """Return how many versions are judged: those that still get records, and this one."""
    others = session.scalar(
        select(func.count())
        .select_from(VersionRow)
        .where(
            VersionRow.model_id == due.model.id,
            VersionRow.id != due.version.id,
            VersionRow.retired_at.is_(None),
            VersionRow.last_event_at >= due.window.start,
            VersionRow.first_event_at < due.window.end,
        )
    )
    return 1 + int(others or 0)


# --- what is written --------------------------------------------------------------------------------------------------


def result_document(result: Result) -> dict[str, Any]:
    """Return a result as the interface shows it; what it does not have is left out, but a null verdict: shown only."""
    subject = result.subject
    shown: dict[str, Any] = {
        "metric": result.metric,
        "feature": subject.feature,
        "slice": subject.slice,
        "attribute": subject.attribute,
        "group": subject.group,
        "reference_group": subject.reference_group,
        "class": subject.class_,
        "scale": subject.scale,
        "value": result.value,
        "interval": list(result.interval) if result.interval is not None else None,
        "baseline_value": result.baseline_value,
        "effect": result.effect,
        "min_effect": result.min_effect,
        "p_value": result.p_value,
        "alpha": result.alpha,
        "threshold": result.threshold,
        "rule": result.rule.value if result.rule else None,
        "direction": result.direction.value,
        "verdict": result.verdict.value if result.verdict else None,
        "decides": result.decides,
        "reason": result.reason or None,
        "estimated": result.estimated or None,
        "detected_at": None if result.detected_at is None else result.detected_at.isoformat(),
        "n_window": result.n_window,
        "n_baseline": result.n_baseline,
        "label_coverage": result.label_coverage,
        "constant_value": result.constant_value,
        "unit": result.unit or None,
        "note": result.note or None,
        "by": result.by or None,
    }
    return {name: value for name, value in shown.items() if value is not None or name == "verdict"}


def encode_results(documents: Sequence[dict[str, Any]]) -> bytes:
    """Return results as they are stored."""
    text = json.dumps(documents, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return zstandard.compress(text.encode())


def decode_results(stored: bytes | None) -> list[dict[str, Any]]:
    """Return the results of a run."""
    return [] if stored is None else list(json.loads(zstandard.decompress(stored)))


def status_of(run: RunRow) -> str:
    """Return how a run stands by its counts: never ok where under nine tenths were measured."""
    measured = run.ok + run.violated
    if run.violated:
        return "violations"
    if not measured:
        return "insufficient_data"
    return "ok" if measured >= MEASURED_SHARE * (measured + run.not_measured) else "partial"


def _first_reason(run: RunRow, results: Sequence[Result]) -> str:
    """Return why a run is not ok, in words."""
    if run.status == "violations":
        documents = [result_document(result) for result in results if result.verdict is Verdict.VIOLATED]
        worst = max(documents, key=alerts.badness)
        return f"{alerts.label(worst)}: {worst['metric']} {worst.get('value', 0.0):.3g}"
    if run.status in ("partial", "insufficient_data"):
        reasons = [result.reason for result in results if result.verdict is Verdict.NOT_MEASURED and result.reason]
        return max(set(reasons), key=reasons.count) if reasons else "nothing was measured"
    return ""


def _is_in_empty_span(session: Session, run: RunRow) -> bool:
    """Return whether a run that was asked for found no more than the entry of an empty span says already."""
    if not run.backfill or run.status != "no_data":
        return False
    _alone(session, run.monitor_id)
    entry = select(RunRow.id).where(
        RunRow.monitor_id == run.monitor_id,
        RunRow.version_id == run.version_id,
        RunRow.status == "no_data",
        RunRow.backfill.is_(False),
        RunRow.current.is_(True),
        RunRow.starts_at <= run.starts_at,
        RunRow.ends_at >= run.ends_at,
    )
    return session.scalar(entry.limit(1)) is not None


def _result_row(run: RunRow, result: Result) -> dict[str, Any]:
    subject = result.subject
    return {
        "run_id": run.id,
        "model_id": run.model_id,
        "ends_at": run.ends_at,
        "metric": result.metric,
        "feature": subject.feature,
        "slice": subject.slice,
        "attribute": subject.attribute,
        "group": subject.group,
        "class_": subject.class_,
        "scale": subject.scale,
        "value": result.value,
        "effect": result.effect,
        "p_value": result.p_value,
        "threshold": result.threshold,
        "verdict": (result.verdict or Verdict.NOT_MEASURED).value,
    }


def _status(
    session: Session, due: Due, run: RunRow, finding: Finding, *, counts: bool, now: datetime, windows_: int = 1
) -> ModelStatusRow | None:
    """Write how the monitor stands after its newest window; an older window changes nothing."""
    row = session.scalar(
        select(ModelStatusRow).where(
            ModelStatusRow.monitor_id == due.monitor.id, ModelStatusRow.version_id == due.version.id
        )
    )
    if row is None:
        row = ModelStatusRow(
            model_id=due.model.id,
            version_id=due.version.id,
            monitor_id=due.monitor.id,
            recent=[],
            unmeasured=0,
            failures=0,
            ends_at=run.ends_at,
        )
        session.add(row)
    elif row.status == WAITING and run.status != WAITING:
        pass  # the newest window that is known, although later ones wait for their labels
    elif run.ends_at < row.ends_at:
        return None
    elif run.status == WAITING and row.status != WAITING:
        return row
    violated = finding.violated
    worst = (
        round(alerts.badness(violated[0] if violated else max(finding.results, key=alerts.badness)), 4)
        if (finding.results)
        else None
    )
    line = [format_time(run.ends_at), run.status, run.rows, worst]
    recent = [entry for entry in row.recent if entry[0] != line[0]]
    if recent and run.status == "no_data" and recent[-1][1] == "no_data":
        recent = recent[:-1]
    row.kind, row.status, row.reason, row.run_uid = due.monitor.kind, run.status, run.reason, run.uid
    row.ends_at, row.rows, row.updated_at = run.ends_at, run.rows, now
    row.ok, row.violated, row.not_measured = run.ok, run.violated, run.not_measured
    row.recent = [*recent, line][-RECENT:]
    if run.status in ("insufficient_data", "no_data"):
        row.unmeasured += windows_ if counts else 0
    elif run.status != "failed":
        row.unmeasured = 0
    row.failures = row.failures + run.attempt if run.status == "failed" else 0
    session.flush()
    return row
