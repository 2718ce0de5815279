"""Reads the lake: rows of a span in order of segments, joined with their newest labels; single predictions by id."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database import from_microseconds, microseconds
from service.ingest.buffer import Buffer
from service.ingest.hashing import hash_ids, hash_key
from service.lake.columns import as_type, cast_columns, numbers_of, together
from service.lake.files import Lake
from service.lake.index import Index
from service.tables import ArrivalRow, IngestBatchRow, ModelRow, PendingTruthRow, SegmentRow, VersionRow
from service.words import Span, bucket_of, bucket_start, format_time, text_of

HOUR_US = 3_600_000_000
DAY_HOURS = 24
PROTECTED = "protected."
LABEL_COLUMNS = ("prediction_id", "id_hash", "timestamp", "received_at", "bucket")

Hashes = NDArray[np.uint64]
Buckets = NDArray[np.int64]


def segments(
    session: Session, model_id: int, version_id: int, kind: str, first_bucket: int, last_bucket: int
) -> Sequence[SegmentRow]:
    """Return the segments that may hold rows of some buckets (both ends inclusive), in order of time."""
    return session.scalars(
        select(SegmentRow)
        .where(
            SegmentRow.model_id == model_id,
            SegmentRow.version_id == version_id,
            SegmentRow.kind == kind,
            SegmentRow.first_bucket <= last_bucket,
            SegmentRow.last_bucket >= first_bucket,
            SegmentRow.damaged_at.is_(None),
        )
        .order_by(SegmentRow.first_bucket, SegmentRow.id)
    ).all()


def lost_rows(session: Session, model_id: int, version_id: int, span: Span) -> int:
    """Return how many predictions at most are missing from a span because their file is damaged."""
    hours = span.hours
    found = session.scalar(
        select(func.sum(SegmentRow.rows)).where(
            SegmentRow.model_id == model_id,
            SegmentRow.version_id == version_id,
            SegmentRow.kind == "predictions",
            SegmentRow.damaged_at.is_not(None),
            SegmentRow.first_bucket <= hours[-1],
            SegmentRow.last_bucket >= hours[0],
        )
    )
    return int(found or 0)


# --- rows of a span ---------------------------------------------------------------------------------------------------


def batches(
    session: Session,
    lake: Lake,
    model_id: int,
    version_id: int,
    span: Span,
    columns: Sequence[str] | None = None,
    *,
    labels: bool = False,
    attributes: Sequence[str] = (),
    kinds: Mapping[str, pa.DataType] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the sealed rows of a span, segment by segment, text as dictionary codes.

    ``columns`` prunes (a column that a segment lacks is absent from its batches); ``kinds`` are the types that
    columns shall have whatever they were stored as. With ``labels`` each batch has ``ground_truth``: the newest label
    of each row, text, null where there is none or where it was withdrawn. ``attributes`` are protected ones to be
    joined in the same way, as columns ``protected.<name>``: only what counts groups may ask for them. Seal first what
    is buffered.
    """
    for _, batch in segment_batches(
        session, lake, model_id, version_id, span, columns, labels=labels, attributes=attributes, kinds=kinds
    ):
        yield batch


def segment_batches(
    session: Session,
    lake: Lake,
    model_id: int,
    version_id: int,
    span: Span,
    columns: Sequence[str] | None = None,
    *,
    labels: bool = False,
    attributes: Sequence[str] = (),
    kinds: Mapping[str, pa.DataType] | None = None,
) -> Iterator[tuple[SegmentRow, pa.RecordBatch]]:
    """Yield what `batches` yields, each batch with its segment."""
    hours = span.hours
    if not len(hours):
        return
    start, end = microseconds(span.start), microseconds(span.end)
    joined = ("id_hash", "prediction_id") if labels or attributes else ()
    needed = None if columns is None else [*columns, "timestamp", *joined]
    newest: Newest | None = None
    people: Attributes | None = None
    for segment in segments(session, model_id, version_id, "predictions", hours[0], hours[-1]):
        file = lake.open(segment.path, segment.checksum)
        groups = overlapping(file, start, end)
        if not groups:
            continue
        table = lake.read_table(segment.path, needed, groups, segment.checksum)
        moments = numbers_of(table["timestamp"], np.int64)
        first, last = np.searchsorted(moments, [start, end])
        if first >= last:
            continue
        table = table.slice(first, last - first)
        if labels:
            span_buckets = int(moments[first] // HOUR_US), int(moments[last - 1] // HOUR_US)
            if newest is None or not newest.covers(*span_buckets):
                newest = Newest.read(session, lake, model_id, version_id, *_widened(span_buckets, hours))
            table = _with_labels(table, newest)
        if attributes:
            span_buckets = int(moments[first] // HOUR_US), int(moments[last - 1] // HOUR_US)
            if people is None or not people.covers(*span_buckets):
                around = _widened(span_buckets, hours)
                people = Attributes.read(session, lake, model_id, version_id, *around, attributes)
            hashes = numbers_of(table["id_hash"], np.uint64)
            for name, values in people.of(hashes, table["prediction_id"].combine_chunks()).items():
                table = table.append_column(f"{PROTECTED}{name}", values)
        wanted = [
            name
            for name in table.schema.names
            if columns is None or name in columns or name == "ground_truth" or name.startswith(PROTECTED)
        ]
        for batch in table.select(wanted).combine_chunks().to_batches() if wanted else []:
            yield segment, cast_columns(batch, kinds) if kinds else batch


def _widened(buckets: tuple[int, int], hours: range) -> tuple[int, int]:
    """Return whole days around some buckets, inside the span: the next segments mostly need the same labels."""
    first, last = buckets[0] // DAY_HOURS * DAY_HOURS, buckets[1] // DAY_HOURS * DAY_HOURS + DAY_HOURS - 1
    return max(first, hours[0]), min(last, hours[-1])


def overlapping(file: pq.ParquetFile, start: int, end: int) -> list[int]:
    """Return the row groups that hold rows from ``start`` to before ``end`` (microseconds), by their statistics."""
    column = file.schema_arrow.get_field_index("timestamp")
    chosen = []
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group).column(column).statistics
        unknown = statistics is None or not statistics.has_min_max
        if unknown or (microseconds(statistics.max) >= start and microseconds(statistics.min) < end):
            chosen.append(group)
    return chosen


# --- labels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Newest:
    """The newest label of each prediction of some buckets, sorted by the hash of the id."""

    first_bucket: int
    last_bucket: int
    hashes: Hashes
    texts: pa.Array
    values: pa.Array
    ambiguous: bool
    """Whether two ids share a hash."""

    @classmethod
    def read(
        cls,
        session: Session,
        lake: Lake,
        model_id: int,
        version_id: int,
        first_bucket: int,
        last_bucket: int,
        kind: str = "ground_truth",
        value: str = "ground_truth",
    ) -> "Newest":
        """Read the labels of some buckets, both ends inclusive; the newest time counts, if equal the later arrival."""
        table = told(
            session, lake, model_id, version_id, kind, np.arange(first_bucket, last_bucket + 1), None, value=value
        )
        return cls.among(table, first_bucket, last_bucket, value)

    @classmethod
    def among(cls, table: pa.Table, first_bucket: int, last_bucket: int, value: str) -> "Newest":
        """Return the newest of what `told` returned of some buckets."""
        hashes = numbers_of(table["id_hash"], np.uint64)
        texts = table["prediction_id"].combine_chunks()
        moments, arrived = numbers_of(table["timestamp"], np.int64), numbers_of(table["received_at"], np.int64)
        order = np.lexsort((arrived, moments, hashes))
        ordered = hashes[order]
        last = np.ones(order.size, np.bool_)
        last[:-1] = ordered[1:] != ordered[:-1]
        ambiguous = False
        if not last.all():
            shared = np.flatnonzero(~last)
            here, after = texts.take(pa.array(order[shared])), texts.take(pa.array(order[shared + 1]))
            if pc.any(pc.not_equal(here, after)).as_py():
                ambiguous = True
                seen: set[str] = set()
                names = texts.take(pa.array(order)).to_pylist()
                for at in range(order.size - 1, -1, -1):
                    last[at] = names[at] not in seen
                    seen.add(names[at])
        kept = pa.array(order[last])
        values = table[value].combine_chunks().take(kept)
        return cls(first_bucket, last_bucket, ordered[last], texts.take(kept), values, ambiguous)

    def covers(self, first_bucket: int, last_bucket: int) -> bool:
        """Return whether labels of these buckets were read."""
        return self.first_bucket <= first_bucket and last_bucket <= self.last_bucket

    def of(self, hashes: Hashes, texts: pa.Array) -> pa.Array:
        """Return the label of each prediction, null where there is none."""
        if not self.hashes.size:
            return pa.nulls(hashes.size, pa.string())
        if self.ambiguous:
            named = dict(zip(self.texts.to_pylist(), self.values.to_pylist(), strict=True))
            return pa.array([named.get(text) for text in texts.to_pylist()], pa.string())
        at = np.minimum(np.searchsorted(self.hashes, hashes), self.hashes.size - 1)
        found = self.hashes[at] == hashes
        index = pa.array(at, mask=~found)
        values = self.values.take(index)
        same = pc.equal(self.texts.take(index), texts)
        if pc.all(same, skip_nulls=True).as_py() is False:
            values = pc.if_else(same, values, pa.scalar(None, values.type))
        return values


@dataclass(frozen=True)
class Attributes:
    """The newest value of each protected attribute of the predictions of some buckets; null withdraws."""

    first_bucket: int
    last_bucket: int
    newest: Mapping[str, Newest]

    @classmethod
    def read(
        cls,
        session: Session,
        lake: Lake,
        model_id: int,
        version_id: int,
        first_bucket: int,
        last_bucket: int,
        names: Sequence[str],
    ) -> "Attributes":
        """Read attributes of some buckets, both ends inclusive; each may come in a record of its own."""
        buckets = np.arange(first_bucket, last_bucket + 1)
        table = told(session, lake, model_id, version_id, "protected", buckets, None)
        documents = table["attributes"].combine_chunks()
        found = {}
        for name in names:
            values, named = attribute_of(documents, name)
            part = table.set_column(table.schema.get_field_index("attributes"), "attributes", values)
            found[name] = Newest.among(part.filter(named), first_bucket, last_bucket, "attributes")
        return cls(first_bucket, last_bucket, found)

    def covers(self, first_bucket: int, last_bucket: int) -> bool:
        """Return whether attributes of these buckets were read."""
        return self.first_bucket <= first_bucket and last_bucket <= self.last_bucket

    def of(self, hashes: Hashes, texts: pa.Array) -> dict[str, pa.Array]:
        """Return the value of each attribute of each prediction, null where none was given."""
        return {name: newest.of(hashes, texts) for name, newest in self.newest.items()}


def attributes(session: Session, lake: Lake, model: ModelRow, prediction_id: str) -> dict[str, str]:
    """Return the newest value of each protected attribute of an id, of those that are sealed; empty where none is."""
    hashes = hash_ids(pa.array([prediction_id]), hash_key(lake.secret))
    entries = Index(lake).find(session, model.id, hashes, "protected")
    found: dict[str, str] = {}
    for version in np.unique(entries["version"]).tolist():
        buckets = entries[entries["version"] == version]["bucket"]
        table = told(session, lake, model.id, version, "protected", buckets, hashes)
        table = table.filter(pc.equal(table["prediction_id"], prediction_id))
        table = table.sort_by([("timestamp", "ascending"), ("received_at", "ascending")])
        for document in table["attributes"].to_pylist():
            for name, value in json.loads(document or "{}").items():
                found.pop(name, None) if value is None else found.update({name: text_of(value)})
    return found


def attribute_of(documents: pa.Array, name: str) -> tuple[pa.Array, pa.Array]:
    """Return an attribute's value in each of some JSON objects, as text, and which of them name it at all."""
    coded = documents.dictionary_encode()
    parsed = [json.loads(text) if text else {} for text in coded.dictionary.to_pylist()]
    values = pa.array([None if each.get(name) is None else text_of(each[name]) for each in parsed], pa.string())
    named = pa.array([name in each for each in parsed], pa.bool_())
    return values.take(coded.indices), pc.fill_null(named.take(coded.indices), False)


def _with_labels(table: pa.Table, newest: Newest) -> pa.Table:
    hashes = numbers_of(table["id_hash"], np.uint64)
    values = newest.of(hashes, table["prediction_id"].combine_chunks())
    if "ground_truth" in table.schema.names:
        table = table.drop_columns(["ground_truth"])
    return table.append_column("ground_truth", values)


def _among(column: pa.ChunkedArray, hashes: Hashes) -> NDArray[np.bool_]:
    return np.isin(numbers_of(column, np.uint64), hashes)


def told(
    session: Session,
    lake: Lake,
    model_id: int,
    version_id: int,
    kind: str,
    buckets: Buckets,
    hashes: Hashes | None,
    *,
    value: str | None = None,
) -> pa.Table:
    """Return the stored labels (or protected attributes) of some buckets, of some ids only where hashes are given.

    Rows are in the order in which they were sealed; ``bucket`` is the prediction's.
    """
    value = value or {"protected": "attributes"}.get(kind, kind)
    names = [*LABEL_COLUMNS, "version", value]
    empty = pa.table(
        {
            "prediction_id": pa.array([], pa.string()),
            "id_hash": pa.array([], pa.uint64()),
            "version": pa.array([], pa.string()),
            value: pa.array([], pa.string()),
            "timestamp": pa.array([], pa.timestamp("us", tz="UTC")),
            "received_at": pa.array([], pa.timestamp("us", tz="UTC")),
            "bucket": pa.array([], pa.int64()),
        }
    )
    if not buckets.size:
        return empty
    low, high = int(buckets.min()), int(buckets.max())
    found = [empty]
    wanted = np.unique(buckets)
    for segment in sorted(segments(session, model_id, version_id, kind, low, high), key=lambda row: row.id):
        if not _touches(segment, wanted):
            continue
        table = lake.read_table(segment.path, names, checksum=segment.checksum)
        chosen = np.ones(table.num_rows, np.bool_)
        if segment.first_bucket < low or segment.last_bucket > high:
            bucket = numbers_of(table["bucket"], np.int64)
            chosen &= (bucket >= low) & (bucket <= high)
        if hashes is not None:
            chosen &= _among(table["id_hash"], hashes)
        if not chosen.all():
            table = table.filter(pa.array(chosen))
        if table.num_rows:
            found.append(plain(table))
    return together(found) if len(found) > 1 else empty


def _touches(segment: SegmentRow, wanted: Buckets) -> bool:
    at = int(np.searchsorted(wanted, segment.first_bucket))
    return at < wanted.size and int(wanted[at]) <= segment.last_bucket


def plain(table: pa.Table) -> pa.Table:
    """Return a table whose text is text, not dictionary codes."""
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = pa.chunked_array([as_type(chunk, pa.string()) for chunk in table[at].chunks], pa.string())
            table = table.set_column(at, pa.field(field.name, pa.string()), column)
    return table


# --- single predictions -----------------------------------------------------------------------------------------------


def ids(session: Session, lake: Lake, model_id: int, version_id: int, buckets: Buckets, hashes: Hashes) -> pa.Table:
    """Return id, hash and time of the sealed predictions of some buckets whose hash is among ``hashes``."""
    return found(session, lake, model_id, version_id, buckets, hashes, ["prediction_id", "id_hash", "timestamp"])


def found(
    session: Session,
    lake: Lake,
    model_id: int,
    version_id: int,
    buckets: Buckets,
    hashes: Hashes,
    columns: Sequence[str] | None,
) -> pa.Table:
    """Return the sealed predictions of some buckets whose hash is among ``hashes``."""
    wanted = np.unique(buckets).astype(np.int64)
    tables = []
    for segment in segments(session, model_id, version_id, "predictions", int(wanted[0]), int(wanted[-1])):
        if not _touches(segment, wanted):
            continue
        file = lake.open(segment.path, segment.checksum)
        groups = [
            group
            for group in overlapping(file, int(wanted[0]) * HOUR_US, (int(wanted[-1]) + 1) * HOUR_US)
            if np.any(_among(lake.read_table(segment.path, ["id_hash"], [group])["id_hash"], hashes))
        ]
        if not groups:
            continue
        table = lake.read_table(segment.path, columns, groups, segment.checksum)
        tables.append(plain(table.filter(pa.array(_among(table["id_hash"], hashes)))))
    if tables:
        return together(tables)
    return pa.table(
        {
            "prediction_id": pa.array([], pa.string()),
            "id_hash": pa.array([], pa.uint64()),
            "timestamp": pa.array([], pa.timestamp("us", tz="UTC")),
        }
    )


def prediction(session: Session, lake: Lake, model: ModelRow, prediction_id: str) -> list[dict[str, Any]]:
    """Return what is known of an id: one document per version that predicted it, sealed or still buffered.

    A label without prediction is a document of its own with state ``waiting``. Empty where nothing is known.
    """
    hashes = hash_ids(pa.array([prediction_id]), hash_key(lake.secret))
    versions = session.execute(select(VersionRow.id, VersionRow.name).where(VersionRow.model_id == model.id)).all()
    names = {int(row.id): str(row.name) for row in versions}
    documents: dict[str, dict[str, Any]] = {}
    entries = Index(lake).find(session, model.id, hashes)
    for version in np.unique(entries["version"]).tolist():
        mine = entries[entries["version"] == version]
        table = found(session, lake, model.id, version, mine["bucket"], hashes, None)
        for row in table.to_pylist():
            if row["prediction_id"] == prediction_id:
                name = names.get(version, "")
                documents[name] = document(row, name, "sealed")
                labels = told(session, lake, model.id, version, "ground_truth", mine["bucket"], hashes)
                _tell(documents[name], _label_rows(labels, prediction_id))
    buffered = _buffered(session, lake, model.id, hashes[0])
    active = names.get(model.active_version_id or 0, "")
    for kind, row in buffered:
        if kind == "predictions" and row["prediction_id"] == prediction_id:
            name = row.get("version") or active
            documents.setdefault(name, document(row, name, "buffered"))
    loose = _label_rows_of([row for kind, row in buffered if kind == "ground_truth"], prediction_id)
    loose += _waiting(session, model.id, int(hashes[0]), prediction_id)
    for name, made in documents.items():
        _tell(made, [label for label in loose if label["version"] in (None, name)])
    left = [label for label in loose if not any(label["version"] in (None, name) for name in documents)]
    if left:
        alone: dict[str, Any] = {"prediction_id": prediction_id, "version": left[-1]["version"], "state": "waiting"}
        _tell(alone, left)
        documents[""] = alone
    for made in documents.values():
        made.pop("_label", None)
    return list(documents.values())


def document(row: Mapping[str, Any], version: str, state: str) -> dict[str, Any]:
    """Return a stored row in the shape in which records come in, with what became of its bad values."""
    made: dict[str, Any] = {
        "prediction_id": row["prediction_id"],
        "version": version,
        "state": state,
        "timestamp": format_time(row["timestamp"]),
        "received_at": format_time(row["received_at"]),
        "features": {},
    }
    for name, value in row.items():
        group, dot, key = name.partition(".")
        if dot and group in ("features", "scores", "tags", "attributions"):
            if value is not None or group == "features":
                made.setdefault(group, {})[key] = format_time(value) if hasattr(value, "isoformat") else value
        elif name in ("prediction", "score") and value is not None:
            made[name] = value
        elif name == "faults" and value:
            made["bad_values"] = json.loads(value)
    return made


def _label_rows(table: pa.Table, prediction_id: str) -> list[dict[str, Any]]:
    return _label_rows_of(table.to_pylist(), prediction_id)


def _label_rows_of(rows: Sequence[Mapping[str, Any]], prediction_id: str) -> list[dict[str, Any]]:
    return [
        {
            "version": row.get("version"),
            "value": row.get("ground_truth"),
            "at": row.get("timestamp") or row["received_at"],
            "received_at": row["received_at"],
        }
        for row in rows
        if row["prediction_id"] == prediction_id
    ]


def _tell(made: dict[str, Any], labels: Sequence[Mapping[str, Any]]) -> None:
    """Add the newest label to a document, unless it has a newer one."""
    for label in labels:
        place = (format_time(label["at"]), format_time(label["received_at"]))
        if "_label" not in made or place >= made["_label"]:
            made["_label"] = place
            made["ground_truth"], made["ground_truth_timestamp"] = label["value"], place[0]


def _buffered(session: Session, lake: Lake, model_id: int, value: np.uint64) -> list[tuple[str, dict[str, Any]]]:
    """Return (kind, row) of the buffered rows with a hash, in order of their commits."""
    rows: list[tuple[str, dict[str, Any]]] = []
    buffer = Buffer(lake.root)
    listed = session.execute(
        select(IngestBatchRow.id, IngestBatchRow.kind, IngestBatchRow.hashes, IngestBatchRow.file, IngestBatchRow.start)
        .where(IngestBatchRow.model_id == model_id)
        .order_by(IngestBatchRow.id)
    ).all()
    for batch in listed:
        table = None if batch.file is None else buffer.rows(b"", batch.file, batch.start)
        hashes = np.frombuffer(batch.hashes, "<u8") if table is None else numbers_of(table["id_hash"], np.uint64)
        at = np.flatnonzero(hashes == value)
        if at.size:
            if table is None:
                table = buffer.rows(session.get_one(IngestBatchRow, batch.id).payload, None, 0)
            rows += [(batch.kind, row) for row in plain(table.take(pa.array(at))).to_pylist()]
    return rows


def _waiting(session: Session, model_id: int, value: int, prediction_id: str) -> list[dict[str, Any]]:
    signed = value - 2**64 if value >= 2**63 else value
    rows = session.scalars(
        select(PendingTruthRow)
        .where(
            PendingTruthRow.model_id == model_id,
            PendingTruthRow.id_hash == signed,
            PendingTruthRow.kind == "ground_truth",
            PendingTruthRow.prediction_id == prediction_id,
        )
        .order_by(PendingTruthRow.id)
    )
    return [
        {
            "version": row.version,
            "value": row.value,
            "at": from_microseconds(row.event_us),
            "received_at": row.received_at,
        }
        for row in rows
    ]


def rows(
    session: Session,
    lake: Lake,
    model: ModelRow,
    version: VersionRow,
    span: Span,
    *,
    limit: int = 100,
    cursor: str | None = None,
    labels: bool = True,
) -> tuple[list[dict[str, Any]], str | None]:
    """Return a page of a version's sealed predictions in order of time, and where the next one begins.

    Seal first what is buffered. ``cursor`` is what the page before returned; ValueError where it is anything else.
    """
    start, after = microseconds(span.start), np.uint64(0)
    if cursor:
        moment, _, text = cursor.partition("-")
        start, after = max(start, int(moment)), np.uint64(int(text, 16))
    pieces = []
    if start < microseconds(span.end):
        rest = _enough(session, model.id, version.id, Span(from_microseconds(start), span.end), limit + 1)
        for batch in batches(session, lake, model.id, version.id, rest, labels=labels):
            moments, hashes = numbers_of(batch["timestamp"], np.int64), numbers_of(batch["id_hash"], np.uint64)
            chosen = np.flatnonzero((moments > start) | (hashes > after) | (cursor is None))[: limit + 1]
            if chosen.size:
                pieces.append(plain(pa.Table.from_batches([batch]).take(pa.array(chosen))))
            if sum(piece.num_rows for piece in pieces) > 50 * limit:
                pieces = [_earliest(pieces, limit + 1)]
    if not pieces:
        return [], None
    page = _earliest(pieces, limit + 1)
    documents = []
    for row in page.slice(0, limit).to_pylist():
        made = document(row, version.name, "sealed")
        if labels and row.get("ground_truth") is not None:
            made["ground_truth"] = row["ground_truth"]
        documents.append(made)
    if page.num_rows <= limit:
        return documents, None
    last = page.slice(limit - 1, 1).select(["timestamp", "id_hash"])
    return documents, f"{numbers_of(last['timestamp'], np.int64)[0]}-{int(last['id_hash'][0].as_py()):x}"


def _enough(session: Session, model_id: int, version_id: int, span: Span, rows: int) -> Span:
    """Return the beginning of a span that holds so many rows and the first hour's, by what was counted as it came."""
    first, counted = bucket_of(span.start), 0
    for bucket, accepted in session.execute(
        select(ArrivalRow.bucket, ArrivalRow.accepted)
        .where(
            ArrivalRow.model_id == model_id,
            ArrivalRow.version_id == version_id,
            ArrivalRow.kind == "predictions",
            ArrivalRow.bucket.between(first + 1, bucket_of(span.end)),
        )
        .order_by(ArrivalRow.bucket)
        .limit(10 * rows)
    ):
        counted += accepted
        if counted >= rows:
            return Span(span.start, min(span.end, bucket_start(bucket + 1)))
    return span


def _earliest(pieces: Sequence[pa.Table], limit: int) -> pa.Table:
    table = together(pieces)
    order = np.lexsort((numbers_of(table["id_hash"], np.uint64), numbers_of(table["timestamp"], np.int64)))
    return table.take(pa.array(order[:limit]))
