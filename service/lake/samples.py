"""The row sample: per day the rows whose keyed hash of the id is smallest, so that days make up a window."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.clock import Clock
from service.database import Database
from service.lake import reader
from service.lake.columns import numbers_of, together
from service.lake.files import Lake
from service.tables import ModelRow, SegmentRow, VersionRow
from service.words import Span, bucket_start, new_id

ROWS = 10_000
DAY_HOURS = 24
KIND = "sample"


def smallest(batches: Iterable[pa.RecordBatch], rows: int = ROWS) -> pa.Table | None:
    """Return the rows whose ``id_hash`` is smallest, in order of the hash; None of none.

    The hash is keyed and does not depend on what a row says, so this is a simple random sample; the largest hash kept
    is its threshold, and a union of samples cut to the smallest hashes is the sample of the union.
    """
    kept: list[pa.Table] = []
    held, threshold = 0, np.uint64(2**64 - 1)
    for batch in batches:
        below = np.flatnonzero(numbers_of(batch["id_hash"], np.uint64) <= threshold)
        if not below.size:
            continue
        kept.append(reader.plain(pa.Table.from_batches([batch]).take(pa.array(below))))
        held += below.size
        if held > 4 * rows:
            kept = [_cut(kept, rows)]
            held, threshold = rows, numbers_of(kept[0]["id_hash"], np.uint64)[-1]
    return _cut(kept, rows) if kept else None


def _cut(tables: Sequence[pa.Table], rows: int) -> pa.Table:
    table = together(tables)
    return table.take(pa.array(np.argsort(numbers_of(table["id_hash"], np.uint64), kind="stable")[:rows]))


def window(
    session: Session,
    database: Database,
    lake: Lake,
    clock: Clock,
    version: VersionRow,
    span: Span,
    *,
    closed: int,
    rows: int = ROWS,
    labels: bool = False,
) -> pa.Table | None:
    """Return the sample of a version's sealed rows in a span, in order of the hash; None where it has none.

    Days that end before the bucket ``closed`` keep their sample in the lake, made at the first call and again after
    rows came late. It holds no protected attributes and no subjects. ``labels`` joins the newest ground truth.
    ``rows`` is at most 10,000.
    """
    parts, hours = [], span.hours
    edges: list[tuple[int, int]] = []
    for day in range(hours[0] // DAY_HOURS * DAY_HOURS, hours[-1] + 1, DAY_HOURS):
        first, last = max(day, hours[0]), min(day + DAY_HOURS, hours[-1] + 1)
        if (first, last) == (day, day + DAY_HOURS) and last <= closed:
            part = _day(session, database, lake, clock, version, day)
            if part is not None:
                parts.append(part)
        else:
            edges.append((first, last))
    for first, last in edges:
        piece = Span(max(span.start, bucket_start(first)), min(span.end, bucket_start(last)))
        part = _drawn(session, lake, version, piece)
        if part is not None:
            parts.append(part)
    if not parts:
        return None
    table = _cut(parts, min(rows, ROWS))
    if labels:
        newest = reader.Newest.read(session, lake, version.model_id, version.id, hours[0], hours[-1])
        hashes = numbers_of(table["id_hash"], np.uint64)
        table = table.append_column("ground_truth", newest.of(hashes, table["prediction_id"].combine_chunks()))
    return table


def _drawn(session: Session, lake: Lake, version: VersionRow, span: Span) -> pa.Table | None:
    table = smallest(reader.batches(session, lake, version.model_id, version.id, span))
    return table.drop_columns(["subject"]) if table is not None and "subject" in table.schema.names else table


def _day(
    session: Session, database: Database, lake: Lake, clock: Clock, version: VersionRow, day: int
) -> pa.Table | None:
    """Return a closed day's sample, kept in the lake unless rows were sealed after it was made."""
    around = (SegmentRow.version_id == version.id, SegmentRow.first_bucket <= day + DAY_HOURS - 1)
    kept = session.scalars(
        select(SegmentRow).where(
            *around, SegmentRow.kind == KIND, SegmentRow.first_bucket == day, SegmentRow.damaged_at.is_(None)
        )
    ).first()
    newer = select(SegmentRow.id).where(
        *around, SegmentRow.last_bucket >= day, SegmentRow.kind == "predictions", SegmentRow.compacted.is_(False)
    )
    if kept is not None and session.scalar(newer.where(SegmentRow.id > kept.id).limit(1)) is None:
        return lake.read_table(kept.path, checksum=kept.checksum)
    span = Span(bucket_start(day), bucket_start(day + DAY_HOURS))
    table = _drawn(session, lake, version, span)
    if table is None or session.get_bind().get_execution_options().get("plumbline_write"):
        return table
    seen = session.scalars(newer.order_by(SegmentRow.id.desc()).limit(1)).first() or 0
    model = session.get_one(ModelRow, version.model_id)
    path = f"{model.uid}/{KIND}/{new_id()}.parquet"
    written = lake.write_segment(table, path, compacted=True)
    with database.writing() as own:
        own.execute(select(VersionRow.id).where(VersionRow.id == version.id).with_for_update())
        if own.scalar(newer.where(SegmentRow.id > seen).limit(1)) is not None:
            return table  # rows were sealed meanwhile: the next call draws again
        old = own.scalars(
            select(SegmentRow).where(*around, SegmentRow.kind == KIND, SegmentRow.first_bucket == day)
        ).all()
        for row in old:
            own.execute(delete(SegmentRow).where(SegmentRow.id == row.id))
        own.add(
            SegmentRow(
                model_id=model.id,
                version_id=version.id,
                kind=KIND,
                path=path,
                rows=table.num_rows,
                size=written.size,
                checksum=written.checksum,
                first_bucket=day,
                last_bucket=day + DAY_HOURS - 1,
                compacted=True,
                sealed_at=clock.now(),
            )
        )
    for row in old:
        lake.forget(row.path)
    return table
