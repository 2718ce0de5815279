"""Checks: monitors over a file, judged as a window of it would be; nothing is stored, told or spent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from monitors import budget, discovery, kernel
from monitors.contract import Arrivals, Column, Comparison, Kind, Role
from monitors.layout import Layout
from monitors.performance import label_coverage
from monitors.profile import Profile
from monitors.slices import Slice
from service import baselines, groups, runs, windows
from service.lake import samples
from service.lake.reader import PROTECTED
from service.problems import BaselineMissing, Fault, NotFound, Problem, Unprocessable
from service.runs import Due, Measured, Workshop
from service.tables import BaselineRow, ModelRow, MonitorRow, RunRow, VersionRow
from service.uploads import Sheet
from service.words import HOUR, Span, bucket_of, bucket_start, derived_id, format_time

BATCH = 65_536

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be checked: by which monitors (None: all that are switched on), against which baseline."""

    model_id: int
    version: str | None = None
    baseline: str | None = None
    monitors: Sequence[str] | None = None


@dataclass(frozen=True)
class Against:
    """What a file is compared with."""

    model: ModelRow
    version: VersionRow
    baseline: BaselineRow
    layout: Layout
    monitors: Sequence[MonitorRow]


def against(session: Session, workshop: Workshop, asked: Asked) -> Against:
    """Return what a file will be compared with; a problem where something that is named is not there."""
    model = session.get_one(ModelRow, asked.model_id)
    baseline = _baseline(session, workshop, model, asked)
    version = session.get_one(VersionRow, baseline.version_id)
    number = version.layout or baseline.layout
    if number is None:
        raise BaselineMissing(f"version {version.name!r} has no baseline in force, and so no bins to count in")
    layout = baselines.layout(session, version.id, number)
    return Against(model, version, baseline, layout, _monitors(session, workshop, model, asked.monitors))


def _baseline(session: Session, workshop: Workshop, model: ModelRow, asked: Asked) -> BaselineRow:
    if asked.baseline is not None:
        named = select(BaselineRow).where(BaselineRow.model_id == model.id, BaselineRow.name == asked.baseline)
        found = session.scalar(named.where(BaselineRow.state == "ready"))
        if found is None:
            raise NotFound(f"model {model.name!r} has no baseline {asked.baseline!r} that is ready")
        return found
    found = baselines.active(session, baselines.version_of(session, model, asked.version), workshop.clock.now())
    if found is None:
        raise BaselineMissing(f"model {model.name!r} has no baseline to compare a file with; make one first")
    return found


def _monitors(
    session: Session, workshop: Workshop, model: ModelRow, names: Sequence[str] | None
) -> Sequence[MonitorRow]:
    """Return the monitors of those names, else all that are on, else one of each kind that is a default."""
    kinds = discovery.kinds()
    rows = session.scalars(select(MonitorRow).where(MonitorRow.model_id == model.id).order_by(MonitorRow.id)).all()
    if names is not None:
        known = {row.name: row for row in rows}
        faults = [
            Fault("query:monitors", "no_such_monitor", f"there is no monitor {name!r}; there are {', '.join(known)}")
            for name in names
            if name not in known
        ]
        faults += [
            Fault("query:monitors", "no_rows", f"{name} judges posted figures, and a file holds rows")
            for name in names
            if name in known and _is_posted(kinds.get(known[name].kind))
        ]
        if faults:
            raise Unprocessable(faults[0].detail, faults=faults)
        return [known[name] for name in names]
    own = [row for row in rows if row.enabled and not _is_posted(kinds.get(row.kind))]
    return own or [
        MonitorRow(
            uid=derived_id("check", model.uid, name),
            model_id=model.id,
            name=name,
            kind=name,
            schedule="daily",
            window="1d",
            offset="0h",
            baseline="active",
            parameters={},
            policy={},
            slices=[],
            created_at=workshop.clock.now(),
        )
        for name, kind in kinds.items()
        if kind.default
    ]


def _is_posted(kind: Kind | None) -> bool:
    return kind is not None and kind.judges_posted


@dataclass
class Check:
    """A file beside a baseline: its rows, their sample, and the hours they fill."""

    workshop: Workshop
    found: Against
    sheet: Sheet
    span: Span | None = field(init=False)
    sample: pa.Table = field(init=False)
    _profiles: dict[str, Profile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Bring protected attributes beside the rows and draw the sample, the same for the same file and baseline."""
        apart = groups.protected_names(self.found.layout)
        self.rows = groups.beside(self.sheet.table, self.sheet.protected, apart)
        if "ground_truth" not in self.rows.column_names:
            self.rows = self.rows.append_column("ground_truth", pa.nulls(self.rows.num_rows, pa.string()))
        self.span = None
        if "timestamp" in self.rows.column_names:
            first, last = (bucket_of(self.rows["timestamp"][place].as_py()) for place in (0, -1))
            self.span = Span(bucket_start(first), bucket_start(last + 1))
        self.sample = self.rows
        if self.rows.num_rows > samples.ROWS:
            generator = np.random.default_rng(int(self.found.baseline.uid, 16))
            drawn = generator.choice(self.rows.num_rows, samples.ROWS, replace=False)
            self.sample = self.rows.take(pa.array(np.sort(drawn)))

    def run(self, session: Session, monitor: MonitorRow) -> RunRow:
        """Return what a monitor finds, as a run that is stored nowhere; `results` of it are in its document."""
        run = RunRow(rows=self.rows.num_rows)
        runs.tally(run, self.measured(session, monitor))
        return run

    def measured(self, session: Session, monitor: MonitorRow, alpha: float | None = None) -> Measured:
        """Return what a monitor finds; without an ``alpha`` it is judged at what the monitor may spend."""
        baseline, layout = self.found.baseline, self.found.layout
        measured = Measured(rows=self.rows.num_rows, baseline=baseline, layout=layout.number, alpha=alpha)
        due = self._due(monitor)
        try:
            self._measure(session, due, measured)
        except Problem as problem:
            measured.status, measured.reason = "failed", problem.detail or problem.title
        except Exception as error:  # whatever a plug-in raises is told of that monitor alone
            log.exception("check failed", monitor=monitor.name, model=self.found.model.name)
            measured.status, measured.reason = "failed", f"{type(error).__name__}: {error}"[:500]
        return measured

    def _due(self, monitor: MonitorRow) -> Due:
        grid = windows.grid_of(monitor.schedule, monitor.window, monitor.offset)
        window = self.span
        if window is None:
            now = self.workshop.clock.now()
            window = Span(now - windows.LENGTHS[grid.window], now)
        found = self.found
        return Due(
            model=found.model,
            version=found.version,
            monitor=monitor,
            window=window,
            data=window,
            live=False,
            judge=False,
        )

    def _measure(self, session: Session, due: Due, into: Measured) -> None:
        kind, policy = due.kind, budget.parse_policy(due.monitor.policy)
        parameters = policy.prepared(due.parameters)
        into.alpha = runs.alpha_of(session, due) if into.alpha is None else into.alpha
        found = kind.measure(self._comparison(session, due, None), parameters)
        found += runs.sliced(
            session, self.workshop, due, into, policy, lambda part: self._comparison(session, due, part)
        )
        into.results = policy.judge(runs.noted(runs.signed(found, kind), due, self.found.baseline), into.alpha)
        if kind.reads_labels or kind.needs_labels:
            into.labelled = label_coverage(self._profile(None))[0]

    def _profile(self, part: Slice | None) -> Profile:
        key = "" if part is None else part.key
        if key not in self._profiles:
            rows = self.rows if part is None else part.of(self.rows)
            batches = groups.grouped(rows.to_batches(BATCH), self.found.layout.outcomes)
            self._profiles[key] = kernel.profile_batches(batches, self.found.layout)
        return self._profiles[key]

    def _comparison(self, session: Session, due: Due, part: Slice | None) -> Comparison:
        """Return the file's rows, or those of a slice, beside the baseline's."""
        workshop, baseline, layout = self.workshop, self.found.baseline, self.found.layout
        window = self._profile(part)
        blocks, why = None, "the file has no times, so rows like it in a row are not known of the baseline"
        if self.span is not None:
            hours = round(self.span.length / HOUR)
            blocks, why = baselines.blocks(session, workshop.lake, baseline, layout, hours, part)
        sample = self.sample if part is None else part.of(self.sample)
        before = baselines.sample(workshop.lake, baseline, part)
        return Comparison(
            columns=self._columns(session),
            baseline=baselines.profile(session, workshop.lake, baseline, layout, part),
            scales={1: window},
            blocks={} if blocks is None else {1: blocks},
            blocks_reason=why,
            arrivals=Arrivals(rows=window.rows, judged=False),
            starts_at=due.window.start,
            ends_at=due.window.end,
            generator=runs.generators(due),
            task=baselines.task_of(self.found.model),
            rows=lambda: runs.attributed(workshop, due, baseline, _plain(sample), window=True),
            baseline_rows=lambda: runs.attributed(workshop, due, baseline, before, window=False),
            work=lambda task, document, tables: runs.handed_over(workshop, task, document, tables),
            answers=self._answers if part is None else lambda: None,
            row_groups=lambda attribute: groups.groups_in(sample, layout, attribute),
        )

    def _columns(self, session: Session) -> list[Column]:
        known = baselines.columns(session, self.found.version)
        named = {column.label for column in known if column.role is Role.FEATURE}
        return known + [
            Column(name=f"features.{label}", role=Role.FEATURE, type=kind, status="new")
            for label, kind in self.sheet.types.items()
            if label not in named
        ]

    def _answers(self) -> pa.Table | None:
        """Return the labelled rows in order of time, for detectors that follow it."""
        wanted = ["timestamp", "prediction", "ground_truth"]
        if any(name not in self.rows.column_names for name in wanted):
            return None
        table = self.rows.select(wanted)
        table = table.filter(table["ground_truth"].is_valid())
        return table.slice(max(0, table.num_rows - runs.ANSWERS)) if table.num_rows else None


def _plain(rows: pa.Table) -> pa.Table | None:
    """Return rows without what is protected, as kinds of monitors are given them; None of none."""
    apart = [name for name in rows.column_names if name.startswith(PROTECTED)]
    return rows.drop_columns(apart) if rows.num_rows else None


def status_of(statuses: Sequence[str]) -> str:
    """Return how a file stands: ok where every monitor is, partial where some could not say."""
    for worst in ("violations", "failed"):
        if worst in statuses:
            return worst
    if len(set(statuses)) == 1:
        return statuses[0]
    return "partial"


def check(
    session: Session, workshop: Workshop, asked: Asked, sheet: Sheet, at: Callable[[int, int], None]
) -> dict[str, Any]:
    """Run monitors over a file and return what each found; ``at`` is told how many of them are done."""
    found = against(session, workshop, asked)
    made = Check(workshop, found, sheet)
    documents: list[Mapping[str, Any]] = []
    for number, monitor in enumerate(found.monitors):
        at(number, len(found.monitors))
        documents.append(_document(monitor, made.run(session, monitor)))
    span = made.span
    return {
        "status": status_of([document["status"] for document in documents]),
        "model": found.model.name,
        "version": found.version.name,
        "baseline": found.baseline.name,
        "rows": made.rows.num_rows,
        "window": None if span is None else {"from": format_time(span.start), "to": format_time(span.end)},
        "runs": documents,
        "warnings": sheet.warnings,
    }


def _document(monitor: MonitorRow, run: RunRow) -> dict[str, Any]:
    return {
        "monitor": monitor.name,
        "kind": monitor.kind,
        "status": run.status,
        "reason": run.reason or None,
        "labelled_rows": run.labelled_rows,
        "alpha": run.alpha,
        "counts": {"ok": run.ok, "violated": run.violated, "not_measured": run.not_measured},
        "results": runs.decode_results(run.document),
    }
