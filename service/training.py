"""Training data: the labelled rows that a retraining is given, one Parquet file, and a manifest of what is in it.

What is left out: spans that a user excluded, episodes that are over, windows in which a guarding monitor was violated,
and every column that bears the name of a protected attribute. The open episode stays in: it is what is to be learnt.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import select
from sqlalchemy.orm import Session

from monitors.contract import Role, Type
from service import baselines, retraining
from service.clock import Clock
from service.database import Database
from service.lake import Lake, reader
from service.lake.columns import MOMENT, shaped
from service.lake.files import training_file
from service.lake.lease import take
from service.problems import Unavailable
from service.retraining import Policy
from service.tables import AlertRow, BaselineRow, ExclusionRow, ModelRow, MonitorRow, RetrainingRow, VersionRow
from service.webhooks import LINKS
from service.words import Span, format_time, parse_time

MANIFEST = b"plumbline"
"""Where the manifest stands in the metadata of the file, without the file's own digest."""
BUILD_SECONDS = 900.0
ARROW: Mapping[Type, pa.DataType] = {
    Type.NUMERIC: pa.float64(),
    Type.BOOLEAN: pa.bool_(),
    Type.DATETIME: MOMENT,
    Type.EMBEDDING: pa.list_(pa.float64()),
}
"""How columns are written; the others are text."""


@dataclass(frozen=True)
class Gap:
    """A stretch of time whose rows are not given, and why."""

    span: Span
    reason: str

    def document(self) -> dict[str, str]:
        """Return it as the manifest shows it."""
        return {"from": format_time(self.span.start), "to": format_time(self.span.end), "reason": self.reason}


@dataclass
class Count:
    """How many rows there are, by where they come from."""

    production: int = 0
    unlabelled: int = 0
    baseline: int = 0
    log: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The rows of the file."""
        return self.production + self.baseline


def prepared(database: Database, lake: Lake, clock: Clock, uid: str) -> dict[str, Any]:
    """Return the manifest of a retraining's rows, after writing them where they are not there; and keep them a while.

    Seal first what is buffered. Raises Unavailable while another request writes them.
    """
    with database.reading() as session:
        row = session.scalars(select(RetrainingRow).where(RetrainingRow.uid == uid)).one()
        there = "manifest" in row.training and lake.path(training_file(row.uid)).exists()
        manifest = row.training.get("manifest")
    if not there:
        lease = take(database, f"training:{uid}", BUILD_SECONDS)
        if lease is None:
            raise Unavailable("the rows are being written; ask again in a moment", headers={"Retry-After": "2"})
        try:
            with database.reading() as session:
                manifest = _write(session, lake, row, clock.now())
        finally:
            lease.release(database)
    until = clock.now() + LINKS["training_data_url"][1]
    with database.writing() as session:
        held = session.get_one(RetrainingRow, row.id, with_for_update=True)
        held.training = held.training | {"manifest": manifest}
        held.training_until = max(held.training_until or until, until)
    return dict(manifest or {})


def _write(session: Session, lake: Lake, row: RetrainingRow, now: datetime) -> dict[str, Any]:
    model, version = session.get_one(ModelRow, row.model_id), session.get_one(VersionRow, row.version_id)
    policy = Policy.of_document(row.policy)
    span = Span(parse_time(row.training["from"]), parse_time(row.training["to"]))
    left_out = gaps(session, row, span, policy)
    schema, hidden = _schema(session, model, version)
    count = Count()
    baseline = _baseline(session, row, version, span) if policy.include_baseline else None
    told = {
        "retraining": row.uid,
        "model": model.name,
        "version": version.name,
        "task": model.task,
        "classes": model.classes,
        "positive_class": model.positive_class,
        "span": {"from": format_time(span.start), "to": format_time(span.end)},
        "excluded": [gap.document() for gap in left_out],
        "left_out": hidden,
        "baseline": baseline.name if baseline else None,
        "made_at": format_time(now),
    }

    def fill(path: Path) -> None:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in _rows(session, lake, model, version, span, left_out, schema, count):
                writer.write_table(batch)
            if baseline is not None:
                for batch in _baseline_rows(lake, baseline, schema, count):
                    writer.write_table(batch)
            told["counts"] = _counts(count)
            writer.add_key_value_metadata({MANIFEST.decode(): json.dumps(told)})

    lake.write(training_file(row.uid), fill)
    with lake.path(training_file(row.uid)).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        **told,
        **_counts(count),
        "columns": [{"name": one.name, "type": str(one.type)} for one in schema],
        "digest": f"sha256:{digest}",
        "bytes": lake.path(training_file(row.uid)).stat().st_size,
    }


def _counts(count: Count) -> dict[str, Any]:
    there = count.production + count.unlabelled
    return {
        "rows": count.rows,
        "rows_of_production": count.production,
        "rows_of_baseline": count.baseline,
        "unlabelled_rows": count.unlabelled,
        "coverage": round(count.production / there, 6) if there else None,
    }


def gaps(session: Session, row: RetrainingRow, span: Span, policy: Policy) -> list[Gap]:
    """Return what of a span is not given, in order of time."""
    found = [
        Gap(Span(one.starts_at, one.ends_at), f"excluded: {one.reason}")
        for one in session.scalars(select(ExclusionRow).where(ExclusionRow.model_id == row.model_id))
    ]
    over = select(AlertRow).where(
        AlertRow.version_id == row.version_id,
        AlertRow.kind == "episode",
        AlertRow.state == "resolved",
        AlertRow.id != row.alert_id,
        AlertRow.resolution != "rebaselined",
    )
    found += [
        Gap(Span(one.starts_at, one.last_violated_at), f"an episode that is over ({one.resolution})")
        for one in session.scalars(over)
    ]
    guards = select(MonitorRow.id).where(MonitorRow.model_id == row.model_id, MonitorRow.name.in_(policy.not_while))
    broken = retraining.broken_windows(session, row.version_id, session.scalars(guards).all(), span.start)
    found += [Gap(window, "the data were not to be trusted") for window in broken]
    cut = [
        Gap(Span(max(gap.span.start, span.start), min(gap.span.end, span.end)), gap.reason)
        for gap in found
        if gap.span.start < span.end and span.start < gap.span.end
    ]
    return sorted(cut, key=lambda gap: gap.span)


def kept(span: Span, left_out: Sequence[Gap]) -> Iterator[Span]:
    """Yield what is left of a span between gaps that are in order of time."""
    start = span.start
    for gap in left_out:
        if gap.span.start > start:
            yield Span(start, gap.span.start)
        start = max(start, gap.span.end)
    if start < span.end:
        yield Span(start, span.end)


def _schema(session: Session, model: ModelRow, version: VersionRow) -> tuple[pa.Schema, list[str]]:
    """Return the columns of the file, and the features that are not among them: those named like what is protected."""
    protected = {str(one["name"] if isinstance(one, dict) else one) for one in model.protected_attributes
                 if not isinstance(one, dict) or "name" in one}  # fmt: skip
    fields = [
        pa.field("prediction_id", pa.string()),
        pa.field("timestamp", MOMENT),
        pa.field("source", pa.string()),
    ]
    hidden = []
    for column in baselines.columns(session, version):
        if column.role is Role.FEATURE and column.label in protected:
            hidden.append(column.label)
        elif column.role is not Role.GROUND_TRUTH:
            fields.append(pa.field(column.name, ARROW.get(column.type, pa.string())))
    truth = pa.float64() if model.task == "regression" else pa.string()
    return pa.schema([*fields, pa.field("ground_truth", truth)]), hidden


def _rows(
    session: Session,
    lake: Lake,
    model: ModelRow,
    version: VersionRow,
    span: Span,
    left_out: Sequence[Gap],
    schema: pa.Schema,
    count: Count,
) -> Iterator[pa.Table]:
    """Yield the labelled rows of production, counting the others."""
    names = [name for name in schema.names if name not in ("source", "ground_truth")]
    for part in kept(span, left_out):
        for batch in reader.batches(session, lake, model.id, version.id, part, names, labels=True):
            labelled = batch.filter(pc.is_valid(batch["ground_truth"]))
            count.unlabelled += batch.num_rows - labelled.num_rows
            count.production += labelled.num_rows
            if labelled.num_rows:
                yield _shaped(reader.plain(pa.Table.from_batches([labelled])), schema, "production")


def _baseline(session: Session, row: RetrainingRow, version: VersionRow, span: Span) -> BaselineRow | None:
    named = select(BaselineRow).where(BaselineRow.model_id == row.model_id, BaselineRow.name == row.baseline)
    return session.scalar(named) if row.baseline else baselines.active(session, version, span.end)


def _baseline_rows(lake: Lake, baseline: BaselineRow, schema: pa.Schema, count: Count) -> Iterator[pa.Table]:
    """Yield the labelled rows of the baseline."""
    table = reader.plain(baselines.rows_of(lake, baseline))
    if "ground_truth" not in table.column_names:
        return
    labelled = table.filter(pc.is_valid(table["ground_truth"]))
    count.baseline += labelled.num_rows
    if labelled.num_rows:
        yield _shaped(labelled, schema, "baseline")


def _shaped(table: pa.Table, schema: pa.Schema, source: str) -> pa.Table:
    if "source" in table.column_names:
        table = table.drop_columns(["source"])
    return shaped(table.append_column("source", pa.array([source] * table.num_rows, pa.string())), schema)
