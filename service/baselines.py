"""What windows are compared with: rows that never change, their profile, and from when they are in force.

A baseline's rows are kept as Parquet in the lake, so its profile can be made again in any layout. The first baseline
of a version is in force from the beginning of time and makes layout 1 of the version; activating a later one makes the
next layout. A version without a baseline borrows the newest of its model, and `adopt_layout` gives it that layout.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from monitors import constraints as suggested
from monitors import kernel
from monitors.blocks import Blocks
from monitors.contract import Attribute, Column, Role, Task, Type
from monitors.groups import group_names, most_frequent, plan_groups
from monitors.layout import Layout, OutcomeLayout, plan_layout
from monitors.profile import Profile
from monitors.slices import Slice
from service import groups
from service.clock import Clock
from service.database import EPOCH, Database, microseconds
from service.lake import Lake, reader, samples
from service.problems import Conflict, NotFound, Unprocessable
from service.tables import BaselineRow, BlocksRow, FeatureRow, LayoutRow, ModelRow, SegmentRow, VersionRow
from service.uploads import Meaning, Sheet
from service.words import DAY, HOUR, Span, bucket_of, bucket_start, format_time, new_id

FIRST_VERSION = "1"
LEAST_BLOCKS = 20
"""Fewer blocks say too little about how much quiet windows differ."""
BATCH = 65_536
SEGMENTS_SEEN = 8
"""How many of the newest segments of protected attributes are read to learn which groups there are."""
FIRST_MONDAY = EPOCH + 4 * DAY
WEEK = 7 * DAY
MICROSECOND = timedelta(microseconds=1)
_KEPT_PROFILES = 32


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for: the baseline's name, its version (None: the active one), and whether its rows have order."""

    model_id: int
    name: str
    version: str | None = None
    ordered: bool | None = None
    """None: where rows have times."""
    origin: Mapping[str, Any] = field(default_factory=dict)


# --- making one -------------------------------------------------------------------------------------------------------


def check_free(session: Session, model_id: int, name: str) -> None:
    """Raise Conflict where the model has a baseline of that name already; baselines never change."""
    taken = select(BaselineRow.id).where(BaselineRow.model_id == model_id, BaselineRow.name == name)
    if session.scalar(taken) is not None:
        raise Conflict(f"there is a baseline {name!r} already, and baselines never change; use another name")


def meaning_of(session: Session, model: ModelRow, version_name: str | None) -> Meaning:
    """Return what is known of a model before a file is read: confirmed types of the version's schema included."""
    version = _version(session, model, version_name) or _active_version(session, model)
    confirmed = select(FeatureRow).where(FeatureRow.status == "confirmed")
    types: dict[str, Type] = {}
    if version is not None:
        for feature in session.scalars(confirmed.where(FeatureRow.version_id == version.id)):
            types[feature.name] = Type(feature.type)
    return Meaning(
        task=model.task,
        classes=tuple(model.classes or ()),
        positive_class=model.positive_class,
        decision_threshold=model.decision_threshold,
        types=types,
    )


def create(database: Database, lake: Lake, clock: Clock, wanted: Wanted, sheet: Sheet) -> int:
    """Keep a sheet's rows as a baseline and return its row's id; the first of a version is in force at once."""
    uid = new_id()
    for _ in range(3):
        with database.reading() as session:
            check_free(session, wanted.model_id, wanted.name)
            made = _Making(session, lake, wanted, sheet, uid)
        made.measure()
        made.keep_rows(lake)
        with database.writing() as session:
            if (row := made.store(session, clock.now())) is not None:
                return row.id
    raise Conflict("the version's layout kept changing meanwhile; send it again")


class _Making:
    """One baseline being made: columns and layout from what is stored, then its profile, then its rows in SQL."""

    def __init__(self, session: Session, lake: Lake, wanted: Wanted, sheet: Sheet, uid: str) -> None:
        model = session.get_one(ModelRow, wanted.model_id)
        self.wanted, self.sheet, self.uid = wanted, sheet, uid
        self.version_name, version = _target(session, model, wanted.version)
        self.first = version is None or not _has_baseline(session, version)
        self.seen_layout = None if version is None else version.layout
        known = {} if version is None else {column.label: column for column in _features(session, version)}
        self.columns = _sheet_columns(sheet, model.task, known)
        self.path = f"baselines/{model.uid}/{uid}.parquet"
        self.task = replace(task_of(model), classes=tuple(sheet.classes), positive_class=sheet.positive_class)
        self.seen = _attributes_seen(session, lake, model)
        self.layout: Layout | None = None
        if not self.first and version is not None and version.layout is not None:
            self.layout = layout(session, version.id, version.layout)
        self.number = self.seen_layout or 0 if self.layout is not None else (self.seen_layout or 0) + 1

    def measure(self) -> None:
        """Plan the layout where this baseline makes one, and profile the rows in it."""
        batches = self.sheet.table.to_batches(BATCH)
        if self.layout is None:
            outcomes = outcome_layout(self.task, self.columns, self.sheet.table, self.sheet.protected, self.seen)
            self.layout = plan_layout(batches, self.columns, outcomes=outcomes, number=self.number)
            self.plans = True
        else:
            self.plans = False
        self.profile = _profiled(self.sheet.table, self.sheet.protected, self.layout)
        self.constraints = suggested.suggest(self.columns, self.profile)

    def keep_rows(self, lake: Lake) -> None:
        """Write the rows; protected attributes into a file of their own."""
        lake.write_segment(self.sheet.table, self.path, compacted=True)
        if self.sheet.protected is not None:
            lake.write_segment(self.sheet.protected, protected_path(self.path), compacted=True)

    def store(self, session: Session, now: datetime) -> BaselineRow | None:
        """Write everything in one transaction; None where another baseline came first and the layout is another."""
        model = session.get_one(ModelRow, self.wanted.model_id)
        check_free(session, model.id, self.wanted.name)
        version = ensure_version(session, model, self.version_name, now)
        first = not _has_baseline(session, version)
        if first != self.first or version.layout != self.seen_layout:
            return None
        warnings = list(self.sheet.warnings)
        if self.sheet.classes and not model.classes:
            model.classes = list(self.sheet.classes)
            model.positive_class = model.positive_class or self.sheet.positive_class
            positive = f", {model.positive_class!r} is the positive one" if model.positive_class else ""
            warnings.append(f"the classes are taken to be {', '.join(self.sheet.classes)}{positive}; correct the model")
            model.revision += 1
        _confirm_features(session, version, self.sheet, now)
        assert self.layout is not None  # noqa: S101 - measured before
        if self.plans:
            session.add(
                LayoutRow(version_id=version.id, number=self.number, document=self.layout.encode(), created_at=now)
            )
            version.layout = self.number
        timed = "timestamp" in self.sheet.table.column_names
        ordered = timed if self.wanted.ordered is None else self.wanted.ordered
        span = _span_of(self.sheet.table) if timed else None
        row = BaselineRow(
            uid=self.uid,
            model_id=model.id,
            version_id=version.id,
            name=self.wanted.name,
            state="ready",
            origin=dict(self.wanted.origin),
            rows=self.sheet.table.num_rows,
            ordered=ordered,
            starts_at=None if span is None else span.start,
            ends_at=None if span is None else span.end,
            path=self.path,
            layout=self.number,
            profile=_framed(self.profile),
            constraints=self.constraints,
            warnings=warnings,
            active_from=EPOCH if first else None,
            created_at=now,
        )
        session.add(row)
        session.flush()
        return row


def _target(session: Session, model: ModelRow, name: str | None) -> tuple[str, VersionRow | None]:
    if name is not None:
        return name, _version(session, model, name)
    active = _active_version(session, model)
    return (FIRST_VERSION, None) if active is None else (active.name, active)


def _version(session: Session, model: ModelRow, name: str | None) -> VersionRow | None:
    if name is None:
        return None
    return session.scalar(select(VersionRow).where(VersionRow.model_id == model.id, VersionRow.name == name))


def version_of(session: Session, model: ModelRow, name: str | None) -> VersionRow:
    """Return the version of that name, or the active one; raises NotFound."""
    found = _active_version(session, model) if name is None else _version(session, model, name)
    if found is None:
        raise NotFound(f"model {model.name!r} has no version {name!r}" if name else f"{model.name!r} has no version")
    return found


def _active_version(session: Session, model: ModelRow) -> VersionRow | None:
    return None if model.active_version_id is None else session.get(VersionRow, model.active_version_id)


def _has_baseline(session: Session, version: VersionRow) -> bool:
    there = select(BaselineRow.id).where(BaselineRow.version_id == version.id, BaselineRow.active_from.is_not(None))
    return session.scalar(there.limit(1)) is not None


def ensure_version(session: Session, model: ModelRow, name: str, now: datetime) -> VersionRow:
    """Return the version of that name, registered; a new one begins with a copy of the active version's schema."""
    version = _version(session, model, name)
    active = _active_version(session, model)
    if version is None:
        version = VersionRow(model_id=model.id, name=name, registered=True, details={}, created_at=now)
        session.add(version)
        session.flush()
        if active is not None:
            _copy_schema(session, active, version)
    version.registered = True
    if active is None:
        model.active_version_id = version.id
    session.flush()
    return version


def _copy_schema(session: Session, source: VersionRow, target: VersionRow) -> None:
    for feature in session.scalars(select(FeatureRow).where(FeatureRow.version_id == source.id)):
        session.add(
            FeatureRow(
                version_id=target.id,
                name=feature.name,
                type=feature.type,
                status=feature.status,
                required=feature.required,
                range=feature.range,
                categories=feature.categories,
                store=feature.store,
                position=feature.position,
            )
        )


def _confirm_features(session: Session, version: VersionRow, sheet: Sheet, now: datetime) -> None:
    known = {row.name: row for row in session.scalars(select(FeatureRow).where(FeatureRow.version_id == version.id))}
    place = max((row.position for row in known.values()), default=-1) + 1
    for label, kind in sheet.types.items():
        row = known.get(label)
        if row is None:
            session.add(
                FeatureRow(
                    version_id=version.id,
                    name=label,
                    type=kind.value,
                    status="confirmed",
                    position=place,
                    first_seen_at=now,
                )
            )
            place += 1
        elif row.status != "confirmed":
            row.status, row.type = "confirmed", kind.value


def _span_of(table: pa.Table) -> Span:
    times = table["timestamp"]
    return Span(times[0].as_py(), times[-1].as_py())


def protected_path(path: str) -> str:
    """Return where the protected attributes of a baseline's rows are kept."""
    return path.replace(".parquet", ".protected.parquet")


def task_of(model: ModelRow) -> Task:
    """Return what a model answers, as monitors see it."""
    return Task(
        name=model.task,
        classes=tuple(map(str, model.classes or ())),
        positive_class=model.positive_class,
        decision_threshold=model.decision_threshold,
        favourable_outcome=model.favourable_outcome,
        protected=tuple(_attribute(each) for each in model.protected_attributes),
        group_variable=model.group_variable,
    )


def protected_names(model: ModelRow) -> tuple[str, ...]:
    """Return the attributes that a model declares, and its group variable: what may be kept apart from features."""
    task = task_of(model)
    named = [attribute.name for attribute in task.protected if not attribute.crossed]
    return tuple(dict.fromkeys([*named, *([task.group_variable] if task.group_variable else [])]))


def _attribute(declared: str | Mapping[str, Any]) -> Attribute:
    if isinstance(declared, str):
        return Attribute(name=declared)
    crossed = tuple(declared.get("crossed", ()))
    return Attribute(
        name=declared.get("name") or "*".join(crossed),
        cuts=tuple(declared.get("cuts") or ()),
        values=tuple(map(str, declared.get("values") or ())),
        reference=declared.get("reference"),
        crossed=crossed,
    )


def outcome_layout(
    task: Task, columns: Sequence[Column], table: pa.Table, protected: pa.Table | None, seen: pa.Array
) -> OutcomeLayout | None:
    """Return what the outcome tables are made of; none where the classes are not known well enough.

    Groups that are not declared are learnt from a baseline's rows and its protected attributes, else from the documents
    ``seen`` in production. An attribute that is among the columns is read from that feature.
    """
    if task.name != "regression" and (not task.classes or (task.name == "binary" and len(task.classes) != 2)):
        return None
    named = [attribute.name for attribute in task.protected if not attribute.crossed]
    wanted = list(dict.fromkeys([*named, *([task.group_variable] if task.group_variable else [])]))
    cuts = {attribute.name: attribute.cuts for attribute in task.protected if attribute.cuts}
    labels = {column.label for column in columns if column.role is Role.FEATURE}
    features = tuple(name for name in wanted if name in labels)
    apart = [name for name in wanted if name not in labels]
    rows = groups.beside(table, protected, apart)
    names: dict[str, list[pa.Array]] = {}
    for name in wanted:
        column = f"features.{name}" if name in labels else f"{reader.PROTECTED}{name}"
        values = rows[column].chunks if column in rows.column_names else []
        if name in apart and all(chunk.null_count == len(chunk) for chunk in values):
            values = [reader.attribute_of(seen, name)[0]]
        names[name] = [group_names(chunk, cuts.get(name, ())) for chunk in values]
    good = task.favourable_outcome
    strata: tuple[str, ...] = ()
    if task.group_variable is not None:
        declared = plan_groups([a for a in task.protected if a.name == task.group_variable], names)
        strata = declared.get(task.group_variable) or most_frequent(names[task.group_variable])
    return OutcomeLayout(
        task.name,
        task.classes if task.name != "regression" else (),
        task.positive_class if task.name == "binary" else None,
        groups=plan_groups(task.protected, names),
        cuts=cuts,
        features=features,
        favourable=next(iter(good.items())) if isinstance(good, Mapping) else good,
        stratum=task.group_variable,
        strata=strata,
    )


def _attributes_seen(session: Session, lake: Lake, model: ModelRow) -> pa.Array:
    """Return the documents of protected attributes of the newest segments, to learn from which groups there are."""
    paths = session.scalars(
        select(SegmentRow.path)
        .where(SegmentRow.model_id == model.id, SegmentRow.kind == "protected")
        .order_by(SegmentRow.id.desc())
        .limit(SEGMENTS_SEEN)
    ).all()
    parts = [lake.read_table(path, ["attributes"])["attributes"].cast(pa.string()) for path in paths]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.string()).combine_chunks()


def _profiled(table: pa.Table, protected: pa.Table | None, layout_now: Layout, part: Slice | None = None) -> Profile:
    """Return the profile of a baseline's rows, or of those of a slice, their outcomes by group."""
    return kernel.profile_batches(_grouped(table, protected, layout_now, part), layout_now)


def _grouped(
    table: pa.Table, protected: pa.Table | None, layout_now: Layout, part: Slice | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a baseline's rows with the groups that a layout's outcomes are counted by."""
    rows = groups.beside(table, protected, groups.protected_names(layout_now))
    return groups.grouped((rows if part is None else part.of(rows)).to_batches(BATCH), layout_now.outcomes)


# --- columns ----------------------------------------------------------------------------------------------------------


def _features(session: Session, version: VersionRow) -> list[Column]:
    rows = session.scalars(
        select(FeatureRow).where(FeatureRow.version_id == version.id).order_by(FeatureRow.position, FeatureRow.id)
    )
    return [
        Column(
            name=f"features.{row.name}",
            role=Role.FEATURE,
            type=Type(row.type),
            status=row.status,
            required=row.required,
            range=None if row.range is None else (row.range[0], row.range[1]),
            categories=None if row.categories is None else tuple(map(str, row.categories)),
        )
        for row in rows
        if row.store != "drop"
    ]


def _own_columns(names: Sequence[str], task: str) -> list[Column]:
    """Return prediction, scores and ground truth as columns, of those that are there."""
    label_type = Type.NUMERIC if task == "regression" else Type.CATEGORICAL
    found = []
    if "prediction" in names:
        found.append(Column(name="prediction", role=Role.PREDICTION, type=label_type))
    found += [
        Column(name=name, role=Role.SCORE, type=Type.NUMERIC)
        for name in names
        if name == "score" or name.startswith("scores.")
    ]
    found.append(Column(name="ground_truth", role=Role.GROUND_TRUTH, type=label_type))
    return found


def _sheet_columns(sheet: Sheet, task: str, known: Mapping[str, Column]) -> list[Column]:
    features = []
    for label, kind in sheet.types.items():
        column = known.get(label)
        if column is None or column.status != "confirmed":
            column = Column(name=f"features.{label}", role=Role.FEATURE, type=kind)
        features.append(column)
    return features + _own_columns(sheet.table.column_names, task)


def columns(session: Session, version: VersionRow) -> list[Column]:
    """Return the version's columns: its schema, then prediction and scores, each with the constraints in force."""
    model = session.get_one(ModelRow, version.model_id)
    names: list[str] = []
    if version.layout is not None:
        names = list(layout(session, version.id, version.layout).columns)
    own = [column for column in _own_columns(names, model.task) if column.role is not Role.GROUND_TRUTH]
    baseline = newest(session, version)
    rules: Mapping[str, Any] = {} if baseline is None else baseline.constraints
    return [
        replace(column, constraints=rules[column.label]) if isinstance(rules.get(column.label), dict) else column
        for column in [*_features(session, version), *own]
    ]


# --- layouts ----------------------------------------------------------------------------------------------------------


def layout(session: Session, version_id: int, number: int) -> Layout:
    """Return a layout of a version."""
    document = session.scalar(
        select(LayoutRow.document).where(LayoutRow.version_id == version_id, LayoutRow.number == number)
    )
    if document is None:
        raise NotFound(f"the version has no layout {number}")
    return Layout.decode(document)


def adopt_layout(session: Session, version: VersionRow, now: datetime) -> int | None:
    """Give a version without baseline the layout of the newest baseline of its model; return its number, if any.

    Needs a writing session; the schema is copied with it where the version has none.
    """
    if version.layout is not None:
        return version.layout
    baseline = newest(session, version)
    if baseline is None or baseline.layout is None:
        return None
    source = session.get_one(VersionRow, baseline.version_id)
    found = layout(session, source.id, source.layout or baseline.layout)
    session.add(LayoutRow(version_id=version.id, number=1, document=replace(found, number=1).encode(), created_at=now))
    confirmed = select(FeatureRow.name).where(FeatureRow.version_id == source.id, FeatureRow.status == "confirmed")
    held = set(session.scalars(confirmed))
    mine = list(session.scalars(select(FeatureRow).where(FeatureRow.version_id == version.id)))
    for feature in mine:
        if feature.name in held:
            feature.status = "confirmed"
    if not mine:
        _copy_schema(session, source, version)
    version.layout = 1
    session.flush()
    return 1


def replan(session: Session, lake: Lake, version: VersionRow, now: datetime) -> int | None:
    """Make the version's next layout from the newest baseline in force, under the schema as it stands now.

    Buckets are profiled in it again when a run or page needs them, as far back as rows reach. Returns its number, or
    none where the version has no baseline.
    """
    baseline = newest(session, version)
    if baseline is None or baseline.version_id != version.id:
        return None
    return _next_layout(session, lake, version, baseline, now)


def replan_groups(session: Session, lake: Lake, model: ModelRow, now: datetime) -> list[int]:
    """Make the next layout of each version whose outcomes are not counted by what the model declares now.

    Returns the ids of the versions that got one. A layout that knows no group of an attribute is made again once
    values have come.
    """
    found = []
    for version in session.scalars(select(VersionRow).where(VersionRow.model_id == model.id)):
        baseline = newest(session, version)
        if version.layout is None or baseline is None or baseline.version_id != version.id:
            continue
        current = layout(session, version.id, version.layout)
        columns_now = [column for column in _features(session, version) if column.name in current.columns]
        table, protected = rows_of(lake, baseline), protected_of(lake, baseline)
        wanted = outcome_layout(task_of(model), columns_now, table, protected, _attributes_seen(session, lake, model))
        if wanted is not None and current.outcomes is not None and _counts_as(wanted, current.outcomes):
            continue
        if wanted is None and current.outcomes is None:
            continue
        _next_layout(session, lake, version, baseline, now)
        found.append(version.id)
    for version in session.scalars(select(VersionRow).where(VersionRow.model_id == model.id)):
        baseline = newest(session, version)
        if version.layout is None or baseline is None or baseline.version_id not in found or version.id in found:
            continue  # those that borrow a baseline are laid out as its own version is
        source = session.get_one(VersionRow, baseline.version_id)
        planned = layout(session, source.id, source.layout or 1)
        last = session.scalar(select(func.max(LayoutRow.number)).where(LayoutRow.version_id == version.id)) or 0
        document = replace(planned, number=last + 1).encode()
        session.add(LayoutRow(version_id=version.id, number=last + 1, document=document, created_at=now))
        version.layout = last + 1
        found.append(version.id)
    session.flush()
    return found


def _counts_as(one: OutcomeLayout, other: OutcomeLayout) -> bool:
    """Whether two layouts count by the same groups and the same favourable outcome."""
    mine = (one.groups, one.cuts, one.features, one.favourable, one.stratum, one.strata)
    return mine == (other.groups, other.cuts, other.features, other.favourable, other.stratum, other.strata)


def _next_layout(session: Session, lake: Lake, version: VersionRow, baseline: BaselineRow, now: datetime) -> int:
    model = session.get_one(ModelRow, version.model_id)
    table = rows_of(lake, baseline)
    features = {column.name: column for column in _features(session, version)}
    held = [features[name] for name in table.column_names if name in features]
    wanted = [column for column in held if column.status == "confirmed"]
    wanted += _own_columns(table.column_names, model.task)
    number = (session.scalar(select(func.max(LayoutRow.number)).where(LayoutRow.version_id == version.id)) or 0) + 1
    protected, seen = protected_of(lake, baseline), _attributes_seen(session, lake, model)
    outcomes = outcome_layout(task_of(model), wanted, table, protected, seen)
    planned = plan_layout(table.to_batches(BATCH), wanted, outcomes=outcomes, number=number)
    profile_now = _profiled(table, protected, planned)
    session.add(LayoutRow(version_id=version.id, number=number, document=planned.encode(), created_at=now))
    baseline.layout, baseline.profile = number, _framed(profile_now)
    version.layout = number
    session.flush()
    return number


# --- which one is in force ------------------------------------------------------------------------------------------


def active(session: Session, version: VersionRow, at: datetime) -> BaselineRow | None:
    """Return the baseline in force at a moment: the version's own, else the newest of its model, else none."""
    own = select(BaselineRow).where(BaselineRow.version_id == version.id, BaselineRow.state == "ready")
    found = session.scalar(
        own.where(BaselineRow.active_from <= at)
        .order_by(BaselineRow.active_from.desc(), BaselineRow.id.desc())
        .limit(1)
    )
    return found if found is not None else _borrowed(session, version)


def newest(session: Session, version: VersionRow) -> BaselineRow | None:
    """Return the baseline activated last: the version's own, else the newest of its model, else none."""
    found = session.scalar(
        select(BaselineRow)
        .where(BaselineRow.version_id == version.id, BaselineRow.active_from.is_not(None))
        .order_by(BaselineRow.active_from.desc(), BaselineRow.id.desc())
        .limit(1)
    )
    return found if found is not None else _borrowed(session, version)


def _borrowed(session: Session, version: VersionRow) -> BaselineRow | None:
    own = select(BaselineRow.id).where(BaselineRow.version_id == version.id, BaselineRow.active_from.is_not(None))
    if session.scalar(own.limit(1)) is not None:
        return None
    return session.scalar(
        select(BaselineRow)
        .where(BaselineRow.model_id == version.model_id, BaselineRow.active_from.is_not(None))
        .order_by(BaselineRow.id.desc())
        .limit(1)
    )


def cuts(session: Session, version: VersionRow) -> list[datetime]:
    """Return the moments at which a baseline of the version came into force, without the beginning of time."""
    moments = session.scalars(
        select(BaselineRow.active_from)
        .where(BaselineRow.version_id == version.id, BaselineRow.active_from > EPOCH)
        .order_by(BaselineRow.active_from)
    )
    return [moment for moment in moments if moment is not None]


def activate(session: Session, lake: Lake, row: BaselineRow, since: datetime | None, now: datetime) -> datetime:
    """Bring a baseline into force from a whole hour on (default: the next), and lay the version out by it.

    Windows before it keep their baseline. Raises Conflict where it is in force already.
    """
    if row.active_from is not None:
        raise Conflict(f"baseline {row.name!r} is in force since {format_time(row.active_from)}")
    moment = since if since is not None else bucket_start(bucket_of(now) + 1)
    if bucket_start(bucket_of(moment)) != moment:
        raise Unprocessable("a baseline comes into force on a whole hour")
    version = session.get_one(VersionRow, row.version_id)
    if not _has_baseline(session, version):
        moment = EPOCH
    row.active_from = moment
    row.revision += 1
    if row.origin.get("file") is not None or version.layout is None:
        _next_layout(session, lake, version, row, now)
    session.flush()
    return moment


# --- what one holds -------------------------------------------------------------------------------------------------


def rows_of(lake: Lake, row: BaselineRow) -> pa.Table:
    """Return a baseline's rows in the lake's columns, in order of time where they have times."""
    if row.path is None:
        raise NotFound(f"baseline {row.name!r} keeps no rows")
    return lake.read_table(row.path)


def protected_of(lake: Lake, row: BaselineRow) -> pa.Table | None:
    """Return the protected attributes of a baseline's rows, in their order; None where it came without."""
    if row.path is None or not lake.path(protected_path(row.path)).exists():
        return None
    return lake.read_table(protected_path(row.path))


def sample(lake: Lake, row: BaselineRow, part: Slice | None = None) -> pa.Table | None:
    """Return a simple random sample of 10,000 of a baseline's rows, always the same; None where it keeps no rows.

    Of a slice all of its rows that are in the sample.
    """
    if part is not None:
        whole = sample(lake, row)
        return None if whole is None else part.of(whole)
    if row.path is None:
        return None

    def drawn() -> pa.Table:
        table = rows_of(lake, row)
        if table.num_rows <= samples.ROWS:
            return table
        chosen = np.random.default_rng(int(row.uid, 16)).choice(table.num_rows, samples.ROWS, replace=False)
        return table.take(pa.array(np.sort(chosen)))

    found: pa.Table = _remembered.get(("sample", row.uid), drawn)
    return found


def _framed(profile_now: Profile) -> bytes:
    inputs = profile_now.encode_inputs()
    return len(inputs).to_bytes(8, "little") + inputs + profile_now.encode_outcomes()


def _unframed(layout_now: Layout, data: bytes) -> Profile:
    size = int.from_bytes(data[:8], "little")
    inputs, outcomes = data[8 : 8 + size], data[8 + size :]
    return Profile.decode(layout_now, inputs, outcomes or None)


class _Remembered:
    """Profiles and blocks made in layouts that are not their baseline's own; the last few are kept."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """Return what is remembered, or made now."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        made = make()
        with self._lock:
            self._found[key] = made
            while len(self._found) > _KEPT_PROFILES:
                self._found.popitem(last=False)
        return made


_remembered = _Remembered()


def remembered(key: tuple[object, ...], make: Callable[[], Any]) -> Any:
    """Return what was made of a baseline under a key, or make it now; the last few are kept."""
    return _remembered.get(key, make)


def profile(session: Session, lake: Lake, row: BaselineRow, layout_now: Layout, part: Slice | None = None) -> Profile:
    """Return a baseline's profile in a layout: the stored one where it is in that layout, else made from its rows.

    Of a slice it is made from its rows.
    """
    if part is not None:

        def sliced() -> Profile:
            return _profiled(rows_of(lake, row), protected_of(lake, row), layout_now, part)

        kept: Profile = _remembered.get(("profile", row.uid, layout_now.fingerprint, part.key), sliced)
        return kept

    def made() -> Profile:
        own = None
        if row.layout is not None and row.profile is not None:
            with suppress(NotFound):
                own = layout(session, row.version_id, row.layout)
        if own is not None and own == layout_now:
            return _unframed(layout_now, row.profile or b"")
        return _profiled(rows_of(lake, row), protected_of(lake, row), layout_now)

    found: Profile = _remembered.get(("profile", row.uid, layout_now.fingerprint), made)
    return found


def blocks(
    session: Session, lake: Lake, row: BaselineRow, layout_now: Layout, hours: int, part: Slice | None = None
) -> tuple[Blocks | None, str]:
    """Return a baseline's blocks of so many hours in a layout, or none and the reason.

    Blocks begin at midnight, those of weeks on Mondays. They are cut once and kept in SQL where the session writes.
    """
    if row.starts_at is None or row.ends_at is None:
        return None, (
            f"baseline {row.name!r} has no times, so what quiet windows look like cannot be learnt from it; "
            "a time column makes that possible"
        )
    if not row.ordered:
        return None, f"baseline {row.name!r} is not in order of time, so it cannot be cut into blocks"
    span = _whole_blocks(Span(row.starts_at, row.ends_at), row.rows, hours)
    number = max(0, int(span.length / HOUR) // hours)
    if number < LEAST_BLOCKS:
        return None, f"calibrating: {number} of {LEAST_BLOCKS} blocks of {hours} h in baseline {row.name!r}"

    def made() -> Blocks:
        own = part is None and row.layout == layout_now.number
        own = own and layout(session, row.version_id, layout_now.number) == layout_now
        if own:
            document = session.scalar(
                select(BlocksRow.document).where(
                    BlocksRow.baseline_id == row.id, BlocksRow.layout == layout_now.number, BlocksRow.hours == hours
                )
            )
            if document is not None:
                kept = Blocks.decode(document)
                if kept.outcomes is not None or not layout_now.tables:
                    return kept
        batches = _grouped(rows_of(lake, row), protected_of(lake, row), layout_now, part)
        cut = kernel.block_counts(batches, layout_now, hours, microseconds(span.start), microseconds(span.end))
        if own and session.get_bind().get_execution_options().get("plumbline_write"):
            _keep_blocks(session, row, layout_now.number, hours, cut.encode())
        return cut

    key = ("blocks", row.uid, layout_now.fingerprint, hours, part.key if part is not None else "")
    found: Blocks = _remembered.get(key, made)
    if len(found) < LEAST_BLOCKS:
        return None, f"calibrating: {len(found)} of {LEAST_BLOCKS} blocks of {hours} h in baseline {row.name!r}"
    return found, ""


def season(
    lake: Lake, row: BaselineRow, layout_now: Layout, window: Span, part: Slice | None = None
) -> tuple[Profile, Blocks] | str:
    """Return a baseline's rows of the same hours of the week as a window: their profile, and a block for each week.

    Returns the reason instead where the baseline has no order in time, or fewer than 20 such weeks.
    """
    if row.starts_at is None or row.ends_at is None or not row.ordered:
        return f"baseline {row.name!r} is not in order of time"
    slack = max(0.02 * window.length, 1.01 * (row.ends_at - row.starts_at) / max(row.rows - 1, 1))
    first = window.start - (window.start - row.starts_at + slack) // WEEK * WEEK
    weeks = max(0, (row.ends_at + slack - window.length - first) // WEEK + 1)
    if weeks < LEAST_BLOCKS:
        return f"baseline {row.name!r} holds these hours of {weeks} weeks, of {LEAST_BLOCKS}"
    start, end, week = microseconds(first), microseconds(first + weeks * WEEK), microseconds(EPOCH + WEEK)

    def made() -> tuple[Profile, Blocks]:
        table = rows_of(lake, row) if part is None else part.of(rows_of(lake, row))
        stamps = np.asarray(table["timestamp"].cast(pa.int64()))
        inside = (stamps >= start) & (stamps < end) & ((stamps - start) % week < window.length // MICROSECOND)
        batches = table.filter(pa.array(inside)).combine_chunks().to_batches(BATCH)
        cut = kernel.block_counts(batches, layout_now, WEEK // HOUR, start, end)
        return kernel.profile_batches(batches, layout_now), cut

    key = ("season", row.uid, layout_now.fingerprint, start, window.length, part.key if part is not None else "")
    found: tuple[Profile, Blocks] = _remembered.get(key, made)
    return found


def _keep_blocks(session: Session, row: BaselineRow, number: int, hours: int, document: bytes) -> None:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    values = {"baseline_id": row.id, "layout": number, "hours": hours, "document": document}
    session.execute(insert(BlocksRow).values(**values).on_conflict_do_nothing())


def _whole_blocks(span: Span, rows: int, hours: int) -> Span:
    """Return the longest span inside that begins and ends where blocks of so many hours do.

    The first and last rows stand a little inside of what they were taken from: up to the mean distance of two rows, or
    2 % of a block, is added at either end.
    """
    origin = FIRST_MONDAY if hours % 168 == 0 else EPOCH
    length = hours * HOUR
    slack = max(0.02 * length, 1.01 * span.length / max(rows - 1, 1))
    start = origin - (origin - span.start + slack) // length * length
    end = origin + (span.end + slack - origin) // length * length
    return Span(start, max(start, end))
