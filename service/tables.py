"""Every table, in the order of the data flow: what users deploy, what came in, what was found, what is owed."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.database import BigKey, UtcDateTime

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """What all tables share: names of constraints, and how Python's types are stored."""

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: UtcDateTime,
        int: BigKey,
        float: Float(53),
        bytes: LargeBinary,
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        str: String(256),
    }


def _key() -> Mapped[int]:
    return mapped_column(primary_key=True, autoincrement=True)


def _to(table: str, *, index: bool = True) -> Any:
    return mapped_column(ForeignKey(f"{table}.id", ondelete="CASCADE"), index=index)


# --- what users deploy ------------------------------------------------------------------------------------------------


class ModelRow(Base):
    """A deployed model: its task, its classes, its alarm budget."""

    __tablename__ = "model"

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    task: Mapped[str] = mapped_column(String(16))
    description: Mapped[str] = mapped_column(Text, default="")
    tags: Mapped[dict[str, Any]] = mapped_column(default=dict)
    aliases: Mapped[list[Any]] = mapped_column(default=list)
    classes: Mapped[list[Any] | None]
    positive_class: Mapped[str | None]
    favourable_outcome: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    decision_threshold: Mapped[float] = mapped_column(default=0.5)
    protected_attributes: Mapped[list[Any]] = mapped_column(default=list)
    group_variable: Mapped[str | None]
    alarm_budget: Mapped[dict[str, Any]]
    """``{"per": "30d", "at_most": 1}``"""
    retention: Mapped[dict[str, Any]] = mapped_column(default=dict)
    on_bad_value: Mapped[str] = mapped_column(String(8), default="missing")
    note: Mapped[str] = mapped_column(Text, default="")
    """Markdown-free text shown on the overview, e.g. what a demonstration injected."""
    active_version_id: Mapped[int | None]
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=1)


class VersionRow(Base):
    """A version of a model; made at its first record where nobody registered it."""

    __tablename__ = "version"
    __table_args__ = (UniqueConstraint("model_id", "name"),)

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model", index=False)
    name: Mapped[str] = mapped_column(String(128))
    uri: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    registered: Mapped[bool] = mapped_column(default=True)
    retired_at: Mapped[datetime | None]
    layout: Mapped[int | None]
    """The number of the layout in use; none before the first baseline."""
    first_event_at: Mapped[datetime | None]
    last_event_at: Mapped[datetime | None]
    last_arrival_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=1)


class FeatureRow(Base):
    """A feature of a version's schema: declared, inferred or seen for the first time."""

    __tablename__ = "feature"
    __table_args__ = (UniqueConstraint("version_id", "name"),)

    id: Mapped[int] = _key()
    version_id: Mapped[int] = _to("version", index=False)
    name: Mapped[str]
    type: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    """``confirmed`` (declared or in a baseline) or ``new`` (first seen in records, not yet monitored)."""
    required: Mapped[bool] = mapped_column(default=False)
    range: Mapped[list[Any] | None]
    categories: Mapped[list[Any] | None]
    store: Mapped[str] = mapped_column(String(16), default="keep")
    position: Mapped[int] = mapped_column(default=0)
    first_seen_at: Mapped[datetime | None]


class LayoutRow(Base):
    """The bins of a version's profiles, by number."""

    __tablename__ = "layout"
    __table_args__ = (UniqueConstraint("version_id", "number"),)

    id: Mapped[int] = _key()
    version_id: Mapped[int] = _to("version", index=False)
    number: Mapped[int]
    document: Mapped[bytes]
    created_at: Mapped[datetime]


class BaselineRow(Base):
    """What to compare with: immutable rows, their profile, and since when it is in force."""

    __tablename__ = "baseline"
    __table_args__ = (UniqueConstraint("model_id", "name"),)

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    model_id: Mapped[int] = _to("model", index=False)
    version_id: Mapped[int] = _to("version")
    name: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    """``preparing``, ``ready`` or ``failed``."""
    error: Mapped[str | None] = mapped_column(Text)
    origin: Mapped[dict[str, Any]]
    """``{"file": {...roles...}}`` or ``{"from": ..., "to": ...}``."""
    rows: Mapped[int] = mapped_column(default=0)
    ordered: Mapped[bool] = mapped_column(default=False)
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    path: Mapped[str | None] = mapped_column(Text)
    """The kept rows, relative to the lake."""
    layout: Mapped[int | None]
    profile: Mapped[bytes | None]
    constraints: Mapped[dict[str, Any]] = mapped_column(default=dict)
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    active_from: Mapped[datetime | None]
    """In force from here on; the epoch for the first baseline of a version; none where not activated."""
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=1)


class BlocksRow(Base):
    """The block counts of an ordered baseline for one length, in one layout: computed once."""

    __tablename__ = "blocks"
    __table_args__ = (UniqueConstraint("baseline_id", "layout", "hours"),)

    id: Mapped[int] = _key()
    baseline_id: Mapped[int] = _to("baseline", index=False)
    layout: Mapped[int]
    hours: Mapped[int]
    document: Mapped[bytes]


# --- what came in -----------------------------------------------------------------------------------------------------


class IngestRequestRow(Base):
    """One POST that was answered or is running: its key, the fingerprint of its body, its answer."""

    __tablename__ = "ingest_request"
    __table_args__ = (UniqueConstraint("route", "idempotency_key"),)

    id: Mapped[int] = _key()
    model_id: Mapped[int | None]
    route: Mapped[str] = mapped_column(String(400))
    """Method, path and the key's id, so that callers do not meet each other's keys."""
    idempotency_key: Mapped[str | None]
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None] = mapped_column(Integer)
    """None while it runs."""
    answer: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(index=True)


class IngestBatchRow(Base):
    """Acknowledged records that are not sealed yet: one Arrow stream of rows of one model and kind."""

    __tablename__ = "ingest_batch"
    __table_args__ = (Index("ix_ingest_batch_model_kind", "model_id", "kind", "id"),)

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model", index=False)
    kind: Mapped[str] = mapped_column(String(16))
    """``predictions``, ``ground_truth`` or ``protected``."""
    rows: Mapped[int]
    size: Mapped[int]
    payload: Mapped[bytes]
    """Arrow IPC stream, lz4, in the columns of `service.ingest.columns`; empty where they are in a file."""
    file: Mapped[str | None] = mapped_column(String(64))
    """The file of a large batch, in the lake: see `service.ingest.buffer`."""
    start: Mapped[int] = mapped_column(default=0)
    """Where in the file the batch begins, bytes."""
    hashes: Mapped[bytes]
    """Little-endian uint64 id hash per row; empty where the rows are in a file, which is mapped."""
    received_at: Mapped[datetime]
    first_event_us: Mapped[int | None]
    last_event_us: Mapped[int | None]


class ArrivalRow(Base):
    """How many records reached a bucket and what became of them; kept for good."""

    __tablename__ = "arrival"
    __table_args__ = (UniqueConstraint("model_id", "version_id", "kind", "bucket"),)

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model", index=False)
    version_id: Mapped[int] = mapped_column(default=0)
    """0 where a record names no version (rejected ones, labels)."""
    kind: Mapped[str] = mapped_column(String(16))
    bucket: Mapped[int]
    """Hours since 1970; for rejected records the hour of arrival."""
    accepted: Mapped[int] = mapped_column(default=0)
    duplicates: Mapped[int] = mapped_column(default=0)
    conflicts: Mapped[int] = mapped_column(default=0)
    corrected: Mapped[int] = mapped_column(default=0)
    late: Mapped[int] = mapped_column(default=0)
    rejected: Mapped[int] = mapped_column(default=0)
    reasons: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Rejected records by code, bad values by kind."""


class RejectionRow(Base):
    """A refused record, for the page that says why; the newest thousand of a model are kept."""

    __tablename__ = "rejection"

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model")
    kind: Mapped[str] = mapped_column(String(16))
    batch: Mapped[str] = mapped_column(String(64))
    position: Mapped[int]
    code: Mapped[str] = mapped_column(String(64))
    pointer: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime]


class PostedFigureRow(Base):
    """A named figure that was posted for a model; of the same figure and span the newest revision counts."""

    __tablename__ = "posted_figure"
    __table_args__ = (
        UniqueConstraint(
            *("version_id", "metric", "attribute", "group", "starts_at", "ends_at", "revision"),
            name="uq_posted_figure_revision",
        ),
        Index("ix_posted_figure_time", "version_id", "current", "bucket"),
    )

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model")
    version_id: Mapped[int] = _to("version", index=False)
    metric: Mapped[str] = mapped_column(String(64))
    attribute: Mapped[str] = mapped_column(default="")
    group: Mapped[str] = mapped_column(default="")
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    """The same as ``starts_at`` where it is of a moment."""
    bucket: Mapped[int]
    """The hour that it counts in, hours since 1970: that of its moment, or the last of its span."""
    value: Mapped[float | None]
    """None where it was taken back."""
    n: Mapped[int | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    unit: Mapped[str] = mapped_column(String(32), default="")
    revision: Mapped[int] = mapped_column(default=1)
    current: Mapped[bool] = mapped_column(default=True)
    received_at: Mapped[datetime]


class SegmentRow(Base):
    """A Parquet file of the lake: the manifest, without which no file is read."""

    __tablename__ = "segment"
    __table_args__ = (Index("ix_segment_span", "model_id", "kind", "version_id", "first_bucket", "last_bucket"),)

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model", index=False)
    version_id: Mapped[int] = mapped_column(default=0)
    kind: Mapped[str] = mapped_column(String(16))
    """``predictions``, ``ground_truth``, ``protected`` or ``sample``."""
    path: Mapped[str] = mapped_column(Text)
    rows: Mapped[int]
    size: Mapped[int]
    checksum: Mapped[str] = mapped_column(String(64))
    first_bucket: Mapped[int]
    last_bucket: Mapped[int]
    """Hours since 1970 of the predictions' event times, both inclusive; labels count where their prediction does."""
    compacted: Mapped[bool] = mapped_column(default=False)
    sealed_at: Mapped[datetime]
    damaged_at: Mapped[datetime | None]
    """When the file was found not to hold what was written; it is set aside and read no more."""


class IdRunRow(Base):
    """A sorted run of the id index, newest runs small, merged like a log-structured tree."""

    __tablename__ = "id_run"

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model")
    kind: Mapped[str] = mapped_column(String(16))
    """What is found by its id: ``predictions``, ``ground_truth`` or ``protected``."""
    level: Mapped[int] = mapped_column(Integer)
    path: Mapped[str] = mapped_column(Text)
    rows: Mapped[int]
    checksum: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


class PendingTruthRow(Base):
    """A label (or protected attributes) whose prediction has not come yet."""

    __tablename__ = "pending_truth"
    __table_args__ = (Index("ix_pending_truth_hash", "model_id", "id_hash"),)

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model", index=False)
    kind: Mapped[str] = mapped_column(String(16))
    id_hash: Mapped[int]
    """The uint64 hash as a signed integer."""
    prediction_id: Mapped[str]
    version: Mapped[str | None]
    value: Mapped[str | None] = mapped_column(Text)
    event_us: Mapped[int]
    received_at: Mapped[datetime]


class ProfileRow(Base):
    """The profile of a bucket (hour) or of a closed day, in one layout."""

    __tablename__ = "profile"
    __table_args__ = (UniqueConstraint("version_id", "layout", "slice", "hours", "bucket"),)

    id: Mapped[int] = _key()
    version_id: Mapped[int] = _to("version", index=False)
    layout: Mapped[int]
    slice: Mapped[str] = mapped_column(String(128), default="")
    hours: Mapped[int] = mapped_column(Integer)
    """1 or 24."""
    bucket: Mapped[int]
    """Hours since 1970 of its start."""
    rows: Mapped[int]
    inputs: Mapped[bytes]
    outcomes: Mapped[bytes | None]
    final: Mapped[bool] = mapped_column(default=False)
    built_at: Mapped[datetime]


class DirtyRow(Base):
    """A bucket whose rows or labels changed after (or before) its profile was built."""

    __tablename__ = "dirty"

    version_id: Mapped[int] = mapped_column(ForeignKey("version.id", ondelete="CASCADE"), primary_key=True)
    bucket: Mapped[int] = mapped_column(primary_key=True)
    part: Mapped[str] = mapped_column(String(8), primary_key=True)
    """``inputs`` or ``outcomes``."""
    since: Mapped[datetime]


# --- what was found ---------------------------------------------------------------------------------------------------


class MonitorRow(Base):
    """A configured watch."""

    __tablename__ = "monitor"
    __table_args__ = (UniqueConstraint("model_id", "name"),)

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    model_id: Mapped[int] = _to("model", index=False)
    name: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(64))
    schedule: Mapped[str] = mapped_column(String(128))
    window: Mapped[str] = mapped_column(String(8))
    offset: Mapped[str] = mapped_column(String(8), default="0h")
    versions: Mapped[Any] = mapped_column(JSON, default="each")
    baseline: Mapped[str] = mapped_column(String(128), default="active")
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    policy: Mapped[dict[str, Any]] = mapped_column(default=dict)
    labels: Mapped[dict[str, Any] | None]
    slices: Mapped[list[Any]] = mapped_column(default=list)
    actions: Mapped[list[Any]] = mapped_column(default=list)
    enabled: Mapped[bool] = mapped_column(default=True)
    starts_at: Mapped[datetime | None]
    """Windows begin at or after it."""
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=1)


class RunRow(Base):
    """A monitor over a window of a version; ``current`` marks the revision in force."""

    __tablename__ = "run"
    __table_args__ = (
        UniqueConstraint("monitor_id", "version_id", "starts_at", "ends_at", "revision"),
        Index("ix_run_current", "monitor_id", "version_id", "current", "ends_at"),
        Index("ix_run_model_time", "model_id", "ends_at"),
    )

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    model_id: Mapped[int] = _to("model", index=False)
    monitor_id: Mapped[int] = _to("monitor", index=False)
    version_id: Mapped[int] = _to("version", index=False)
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=1)
    current: Mapped[bool] = mapped_column(default=True)
    judged: Mapped[bool] = mapped_column(default=False)
    """Whether this revision spent the window's one look."""
    status: Mapped[str] = mapped_column(String(24))
    """queued, running, ok, violations, partial, waiting_for_labels, insufficient_data, no_data, failed."""
    reason: Mapped[str] = mapped_column(Text, default="")
    rows: Mapped[int] = mapped_column(default=0)
    labelled_rows: Mapped[int | None]
    labels_seen: Mapped[int | None]
    """Labels and corrections of the window's buckets that had come when it was measured; later ones revise it.

    Of posted figures, those and their corrections."""
    baseline_id: Mapped[int | None]
    layout: Mapped[int | None]
    alpha: Mapped[float | None]
    ok: Mapped[int] = mapped_column(default=0)
    violated: Mapped[int] = mapped_column(default=0)
    not_measured: Mapped[int] = mapped_column(default=0)
    replayed: Mapped[bool] = mapped_column(default=False)
    backfill: Mapped[bool] = mapped_column(default=False)
    job_id: Mapped[int | None] = mapped_column(index=True)
    """The job that asked for it, where one did."""
    scheduled_for: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    software: Mapped[str] = mapped_column(String(64), default="")
    attempt: Mapped[int] = mapped_column(default=1)
    owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    document: Mapped[bytes | None]
    """Every result of the run, decisive or not: zstd of JSON."""


class ResultRow(Base):
    """The deciding number about one subject of a run."""

    __tablename__ = "result"
    __table_args__ = (Index("ix_result_series", "model_id", "metric", "feature", "ends_at"),)

    id: Mapped[int] = _key()
    run_id: Mapped[int] = _to("run")
    model_id: Mapped[int]
    ends_at: Mapped[datetime]
    metric: Mapped[str] = mapped_column(String(64))
    feature: Mapped[str | None]
    slice: Mapped[str | None]
    attribute: Mapped[str | None]
    group: Mapped[str | None]
    class_: Mapped[str | None] = mapped_column("class")
    scale: Mapped[int] = mapped_column(Integer, default=1)
    value: Mapped[float | None]
    effect: Mapped[float | None]
    p_value: Mapped[float | None]
    threshold: Mapped[float | None]
    verdict: Mapped[str] = mapped_column(String(16))


class ModelStatusRow(Base):
    """How one monitor of a version stands; written in the run's transaction, all that the fleet page reads."""

    __tablename__ = "model_status"
    __table_args__ = (UniqueConstraint("monitor_id", "version_id"),)

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model")
    version_id: Mapped[int] = _to("version")
    monitor_id: Mapped[int] = _to("monitor", index=False)
    kind: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(24))
    reason: Mapped[str] = mapped_column(Text, default="")
    """The worst finding in plain words."""
    run_uid: Mapped[str] = mapped_column(String(32))
    ends_at: Mapped[datetime]
    rows: Mapped[int]
    ok: Mapped[int]
    violated: Mapped[int]
    not_measured: Mapped[int]
    recent: Mapped[list[Any]] = mapped_column(default=list)
    """The last 30 windows: ``[end, status, rows, worst value]``."""
    unmeasured: Mapped[int] = mapped_column(default=0)
    """Windows in a row that were due and not measured."""
    failures: Mapped[int] = mapped_column(default=0)
    """Runs in a row that failed."""
    updated_at: Mapped[datetime]


class AlertRow(Base):
    """An episode of a model version: opens with the first violated result, closes when all that joined are quiet."""

    __tablename__ = "alert"
    __table_args__ = (Index("ix_alert_model_state", "model_id", "state", "opened_at"),)

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    model_id: Mapped[int] = _to("model", index=False)
    version_id: Mapped[int] = _to("version")
    kind: Mapped[str] = mapped_column(String(16), default="episode")
    """``episode``, or ``blind`` and ``failing`` about a monitor itself."""
    monitor_id: Mapped[int | None]
    state: Mapped[str] = mapped_column(String(16))
    """open, acknowledged or resolved."""
    severity: Mapped[str] = mapped_column(String(16))
    sentence: Mapped[str] = mapped_column(Text)
    starts_at: Mapped[datetime]
    """Start of the first violated window."""
    last_violated_at: Mapped[datetime]
    """End of the last violated window."""
    opened_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    repeated_at: Mapped[datetime | None]
    resolved_at: Mapped[datetime | None]
    resolution: Mapped[str | None] = mapped_column(String(32))
    """recovered, rebaselined, replaced, unwatched or manual."""
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]
    muted_until: Mapped[datetime | None]
    members: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Per monitor name: kind, features violated, quiet windows at the shortest firing scale, last window."""
    evidence: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The run and its worst results as they were when it opened; never changed afterwards."""
    sequence: Mapped[int] = mapped_column(default=1)
    replayed: Mapped[bool] = mapped_column(default=False)
    held: Mapped[bool] = mapped_column(default=False)
    """Whether nobody has been told of it, because a planned change explains all of it so far."""


class AlertCommentRow(Base):
    """What somebody wrote about an alert."""

    __tablename__ = "alert_comment"

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    alert_id: Mapped[int] = _to("alert")
    author: Mapped[str]
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]


class CalendarRow(Base):
    """A planned change: what explains alerts of a stretch of time, or keeps them from being told."""

    __tablename__ = "calendar"
    __table_args__ = (Index("ix_calendar_span", "model_id", "starts_at", "ends_at"),)

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    model_id: Mapped[int | None] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"))
    """None: every model."""
    title: Mapped[str]
    effect: Mapped[str] = mapped_column(String(16))
    """``annotate`` or ``suppress``."""
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=1)


class RetrainingPolicyRow(Base):
    """When a model's owner wants a retraining to be asked for; no row, no retraining."""

    __tablename__ = "retraining_policy"

    id: Mapped[int] = _key()
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"), unique=True)
    policy: Mapped[dict[str, Any]]
    held: Mapped[dict[str, Any] | None]
    """Why nothing was asked for when it was last considered: ``{"at", "version", "reason"}``."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=1)


class RetrainingRow(Base):
    """One attempt at a retraining that an episode asks for, from the request to what became of its candidate."""

    __tablename__ = "retraining"
    __table_args__ = (
        UniqueConstraint("alert_id", "attempt"),
        Index("ix_retraining_model_moment", "model_id", "moment"),
        Index("ix_retraining_deadline", "state", "deadline_at"),
    )

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    """Derived from episode and attempt, so that a repeat, after a restore too, is known by its receiver."""
    model_id: Mapped[int] = _to("model", index=False)
    version_id: Mapped[int] = _to("version")
    alert_id: Mapped[int] = _to("alert", index=False)
    attempt: Mapped[int]
    state: Mapped[str] = mapped_column(String(24))
    """awaiting_approval, requested, accepted, running, succeeded, failed, expired, rejected or cancelled."""
    reason: Mapped[str] = mapped_column(Text)
    evidence: Mapped[dict[str, Any]]
    """The windows and worst results that it was asked for on; never changed afterwards."""
    policy: Mapped[dict[str, Any]]
    """The policy as it was."""
    baseline: Mapped[str | None] = mapped_column(String(128))
    moment: Mapped[datetime]
    """When it was asked for: by the clock, or in replayed time."""
    created_at: Mapped[datetime]
    deadline_at: Mapped[datetime | None]
    """When it expires unless something is reported before; none while nobody was asked."""
    finished_at: Mapped[datetime | None]
    replayed: Mapped[bool] = mapped_column(default=False)
    training: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """``{"from", "to"}``, and the manifest once rows were asked for."""
    training_until: Mapped[datetime | None]
    """Until when the rows are kept: the newest link to them is valid so long."""
    candidate_id: Mapped[int | None]
    """The version that was reported."""
    trained_until: Mapped[datetime | None]
    """From when on the candidate has seen no row, where the receiver says so; else the end of the training data."""
    comparison: Mapped[dict[str, Any] | None]
    promoted_at: Mapped[datetime | None]
    promoted_by: Mapped[str | None]
    previous_version_id: Mapped[int | None]
    rolled_back_at: Mapped[datetime | None]
    log: Mapped[list[Any]] = mapped_column(default=list)
    """Each change of state: ``{"at", "state", "by", "detail"}``."""


class ReplayRow(Base):
    """A stretch of history being replayed into a model: its watermark is the greatest event time seen."""

    __tablename__ = "replay"

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    model_id: Mapped[int] = _to("model")
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    webhooks: Mapped[list[Any]] = mapped_column(default=list)
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class SliceRow(Base):
    """A part of the population that monitors measure apart: conditions on columns, or the values of one."""

    __tablename__ = "slice"
    __table_args__ = (UniqueConstraint("model_id", "name"),)

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model", index=False)
    name: Mapped[str] = mapped_column(String(128))
    document: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class ExclusionRow(Base):
    """A span that a user leaves out of scales, blocks, rolling baselines and training data."""

    __tablename__ = "exclusion"

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model")
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]


class ArtifactRow(Base):
    """The model of a version: an uploaded file, or the endpoint that serves it; the newest of a version counts."""

    __tablename__ = "artifact"

    id: Mapped[int] = _key()
    model_id: Mapped[int] = _to("model")
    version_id: Mapped[int] = _to("version")
    kind: Mapped[str] = mapped_column(String(32))
    """The format of the file, told by its content, or ``endpoint``."""
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the file, or of the endpoint's description, with the manifest's."""
    path: Mapped[str | None] = mapped_column(Text)
    """The file, relative to the lake."""
    size: Mapped[int] = mapped_column(default=0)
    endpoint: Mapped[dict[str, Any] | None]
    """``{"url", "protocol"}``"""
    credentials: Mapped[bytes | None]
    """The headers that let in at the endpoint, encrypted: JSON."""
    manifest: Mapped[dict[str, Any]] = mapped_column(default=dict)
    about: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What loading it told: columns, inputs, classes, scales."""
    created_at: Mapped[datetime]


class ExplanationRow(Base):
    """An explanation that was given: the cache of those asked for again, and for good those that are kept."""

    __tablename__ = "explanation"
    __table_args__ = (UniqueConstraint("model_id", "fingerprint"),)

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    model_id: Mapped[int] = _to("model", index=False)
    version_id: Mapped[int] = _to("version")
    kind: Mapped[str] = mapped_column(String(16))
    """``local``, ``global`` or ``dependence``."""
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of all that the numbers depend on: rows, artifact, baseline, method, options, output, class, seed."""
    kept: Mapped[bool] = mapped_column(default=False)
    document: Mapped[bytes]
    """zstd of JSON."""
    created_at: Mapped[datetime] = mapped_column(index=True)


# --- what is owed -----------------------------------------------------------------------------------------------------


class WebhookRow(Base):
    """Where events are delivered."""

    __tablename__ = "webhook"

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    kind: Mapped[str] = mapped_column(String(64), default="generic")
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[Any]]
    models: Mapped[list[Any] | None]
    """Model names; none: all."""
    min_severity: Mapped[str] = mapped_column(String(16), default="info")
    secret: Mapped[bytes]
    """Encrypted with the service's secret key."""
    credentials: Mapped[bytes | None]
    """What its kind needs to be let in, encrypted like the secret: JSON."""
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What its kind was told beside the address."""
    previous_secret: Mapped[bytes | None]
    previous_until: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=1)


class DeliveryRow(Base):
    """A call that is owed: written with its cause, attempted until it is answered by a 2xx or given up."""

    __tablename__ = "delivery"
    __table_args__ = (UniqueConstraint("webhook_id", "uid"), Index("ix_delivery_due", "state", "next_at"))

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(64))
    """The webhook-id: derived from alert, event and sequence, so a repeat carries the same."""
    webhook_id: Mapped[int] = _to("webhook", index=False)
    model_id: Mapped[int | None] = mapped_column(index=True)
    alert_id: Mapped[int | None] = mapped_column(index=True)
    retraining_id: Mapped[int | None] = mapped_column(index=True)
    event: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    """pending, delivered or failed."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_at: Mapped[datetime]
    log: Mapped[list[Any]] = mapped_column(default=list)
    """Per attempt: time, status or error, milliseconds, the first 200 characters of the answer."""
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]


class JobRow(Base):
    """Long work that a request asked for."""

    __tablename__ = "job"

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    model_id: Mapped[int | None] = mapped_column(index=True)
    request: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(16))
    """queued, running, done, failed or cancelled."""
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int | None]
    unit: Mapped[str] = mapped_column(String(32), default="")
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]


class ReportRow(Base):
    """A report about a window as it was made, never computed again: a whole HTML page, compressed."""

    __tablename__ = "report"

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    model_id: Mapped[int] = _to("model")
    kind: Mapped[str] = mapped_column(String(32))
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    document: Mapped[bytes]
    created_at: Mapped[datetime]


class NoticeRow(Base):
    """Something about this installation that a person must know: open until it is put right."""

    __tablename__ = "notice"
    __table_args__ = (UniqueConstraint("kind", "subject"),)

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    """``damaged_file``."""
    subject: Mapped[str] = mapped_column(Text)
    """What it is about, e.g. the file."""
    sentence: Mapped[str] = mapped_column(Text)
    model_id: Mapped[int | None] = mapped_column(index=True)
    created_at: Mapped[datetime]
    told_at: Mapped[datetime | None]
    """When the calls that it causes were owed."""
    resolved_at: Mapped[datetime | None]


# --- who may ----------------------------------------------------------------------------------------------------------


class ApiKeyRow(Base):
    """A key: only its digest is kept."""

    __tablename__ = "api_key"

    id: Mapped[int] = _key()
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(String(128))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(16))
    scopes: Mapped[list[Any]]
    models: Mapped[list[Any] | None]
    """Model names it is bound to; none: all."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class SessionRow(Base):
    """A browser's session, or a sign-in link that makes one, once."""

    __tablename__ = "session"

    id: Mapped[int] = _key()
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    link: Mapped[bool] = mapped_column(default=False)
    name: Mapped[str] = mapped_column(String(128))
    scopes: Mapped[list[Any]]
    models: Mapped[list[Any] | None]
    api_key_id: Mapped[int | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class AuditRow(Base):
    """Who changed what, and when."""

    __tablename__ = "audit"

    id: Mapped[int] = _key()
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str]
    action: Mapped[str] = mapped_column(String(64))
    object: Mapped[str] = mapped_column(Text)
    model_id: Mapped[int | None] = mapped_column(index=True)
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


class LeaseRow(Base):
    """Who does a piece of work alone, until when; the token fences late writes."""

    __tablename__ = "lease"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    owner: Mapped[str]
    token: Mapped[int]
    until: Mapped[datetime]


class PropertyRow(Base):
    """Facts about this installation: the lake's id."""

    __tablename__ = "property"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
