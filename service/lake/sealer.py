"""The sealer: turns acknowledged batches into segments, each prediction once, each label where it belongs."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from numpy.typing import NDArray
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service import notices
from service.clock import Clock
from service.database import Database, from_microseconds, microseconds
from service.ingest.buffer import BatchDamaged, Buffer
from service.ingest.columns import content_hashes
from service.lake import reader
from service.lake.columns import MOMENT, as_text, numbers_of, shaped, together
from service.lake.files import Lake, SegmentDamaged, named_files
from service.lake.index import ENTRY, FAN, Entries, Index, read_run
from service.lake.lease import Lease, kept, take
from service.problems import Unavailable
from service.settings import Settings
from service.tables import (
    ArrivalRow,
    DirtyRow,
    IdRunRow,
    IngestBatchRow,
    ModelRow,
    PendingTruthRow,
    ReplayRow,
    SegmentRow,
    VersionRow,
)
from service.words import format_time, new_id

log = structlog.get_logger(__name__)

HOUR_US = 3_600_000_000
SEGMENT_ROWS = 1_000_000
ROUND_ROWS = 1_000_000
ROUND_BYTES = 192 * 2**20
REPLAY_SECONDS = 3.0
"""How long a batch waits while history is replayed: the watermark follows what is sealed."""
TIDY_SECONDS = 3600.0
COMPACTED_AFTER = timedelta(hours=1)
"""How long a segment stays as it was sealed, at least: a replay is still adding to its neighbours."""
KINDS = ("predictions", "ground_truth", "protected")
VALUES = {"ground_truth": "ground_truth", "protected": "attributes"}
"""The column of what is told later about a prediction, by kind."""

_Value = TypeVar("_Value")
Ints = NDArray[np.int64]
Told = tuple[tuple[int, int], str | None]
"""When a label was given and when it came, microseconds, and what it says."""


@dataclass
class Round:
    """What one transaction will store: files are written already, nothing counts before the commit."""

    model: ModelRow
    segments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    """Ids of index runs that were merged."""
    outdated: list[str] = field(default_factory=list)
    """The files of merged runs."""
    arrivals: dict[tuple[int, str, int], dict[str, int]] = field(default_factory=dict)
    dirty: set[tuple[int, int, str]] = field(default_factory=set)
    """(version, bucket, part)."""
    events: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """Version -> first and last event, last arrival, microseconds."""
    waiting: list[dict[str, Any]] = field(default_factory=list)
    arrived: list[int] = field(default_factory=list)
    """Ids of pending rows whose prediction has come."""

    def count(self, version: int, kind: str, buckets: Ints, what: str) -> None:
        """Count rows per bucket under what became of them."""
        for bucket, rows in zip(*np.unique(buckets, return_counts=True), strict=True):
            counts = self.arrivals.setdefault((version, kind, int(bucket)), {})
            counts[what] = counts.get(what, 0) + int(rows)

    def mark(self, version: int, buckets: Ints, part: str) -> None:
        """Mark buckets whose profile this round outdates."""
        self.dirty.update((version, int(bucket), part) for bucket in np.unique(buckets))


@dataclass
class Labels:
    """Rows told about predictions after the fact, with the predictions they are for.

    ``table`` holds the rows; pair i says that row ``row[i]`` is about the prediction of ``version[i]`` in
    ``bucket[i]``. Both kinds, ground truth and protected attributes, go this way.
    """

    kind: str
    table: pa.Table
    row: Ints
    version: Ints
    bucket: Ints


def first_of(hashes: NDArray[np.uint64], texts: pa.Array) -> tuple[NDArray[np.bool_], Ints]:
    """Return which rows are the first of their id, and for each row the row that is.

    Equal ids have equal hashes; where hashes are equal the texts decide.
    """
    count = hashes.size
    first: Ints = np.arange(count)
    order = np.argsort(hashes)
    ordered = hashes[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not same.size:
        return np.ones(count, np.bool_), first
    members = np.unique(np.concatenate((order[same], order[same + 1])))
    seen: dict[str, int] = {}
    for position, text in zip(members.tolist(), texts.take(pa.array(members)).to_pylist(), strict=True):
        first[position] = seen.setdefault(text, position)
    return first == np.arange(count), first


class Sealer:
    """Moves what is buffered into the lake; one process at a time does it for a model."""

    def __init__(self, database: Database, lake: Lake, clock: Clock, settings: Settings) -> None:
        self.database = database
        self.lake = lake
        self.clock = clock
        self.settings = settings
        self.index = Index(lake, strict=True)
        self.buffer = Buffer(lake.root)
        self._locks: dict[int, Lock] = {}
        self._tidied: dict[int, float] = {}
        self._swept = -TIDY_SECONDS

    # --- when ---------------------------------------------------------------------------------------------------------

    def due(self) -> list[int]:
        """Return the models whose buffer is long, large or old enough; any at all while history is replayed."""
        now = self.clock.now()
        with self.database.reading() as session:
            found = session.execute(
                select(
                    IngestBatchRow.model_id,
                    func.sum(IngestBatchRow.rows),
                    func.sum(IngestBatchRow.size),
                    func.min(IngestBatchRow.received_at),
                ).group_by(IngestBatchRow.model_id)
            ).all()
            replayed = set(session.scalars(select(ReplayRow.model_id).where(ReplayRow.closed_at.is_(None))))
        due = []
        for model_id, rows, size, oldest in found:
            waited = (now - oldest).total_seconds()
            limit = REPLAY_SECONDS if model_id in replayed else self.settings.seal_seconds
            aged = not 0 <= waited < limit  # less than none: the clock was set back since
            if rows >= self.settings.seal_rows or size >= self.settings.seal_bytes or aged:
                due.append(int(model_id))
        return due

    def seal_due(self) -> int:
        """Seal the models that are due and that nobody else is sealing; return the rows taken."""
        total = 0
        for model_id in self.due():
            total += self.seal(model_id, wait=0.0) or 0
        return total

    def seal(self, model_id: int, *, wait: float = 30.0) -> int:
        """Seal everything that is buffered for a model, of all kinds, and return how many rows it was.

        That is what was acknowledged before the call: what comes meanwhile may wait for the next, so that no load is
        so steady that the call never ends. Where another thread or process is at it, wait so many seconds for the
        turn, or until it has sealed all that was asked for; then `Unavailable`, or 0 where no waiting was asked for.
        """
        newest = self._newest_batch(model_id)
        if newest is None:
            return 0
        lock = self._locks.setdefault(model_id, Lock())
        if not lock.acquire(timeout=wait) if wait else not lock.acquire(blocking=False):
            return self._busy(model_id, wait)
        try:
            until = time.monotonic() + wait
            while self._buffered(model_id, newest):
                if (lease := self._lease(model_id)) is not None:
                    with self._holding(lease):
                        self._repair(model_id, lease)
                        return self._seal(model_id, lease, newest)
                if time.monotonic() >= until:
                    return self._busy(model_id, wait)
                time.sleep(0.05)
            return 0
        finally:
            lock.release()

    def _lease(self, model_id: int) -> Lease | None:
        return take(self.database, f"seal:{model_id}", self.settings.lease_seconds)

    @contextmanager
    def _holding(self, lease: Lease) -> Iterator[None]:
        """Hold a lease for as long as the block works, then let the next one have it."""
        seconds = self.settings.lease_seconds
        try:
            with kept(lambda: lease.renew(self.database, seconds), seconds):
                yield
        finally:
            lease.release(self.database)

    @staticmethod
    def _busy(model_id: int, wait: float) -> int:
        if wait:
            raise Unavailable(f"the buffer of model {model_id} is being sealed", headers={"Retry-After": "5"})
        return 0

    def _newest_batch(self, model_id: int) -> int | None:
        """Return the number of the newest batch that is buffered."""
        with self.database.reading() as session:
            return session.scalar(select(func.max(IngestBatchRow.id)).where(IngestBatchRow.model_id == model_id))

    def _buffered(self, model_id: int, newest: int) -> bool:
        """Return whether a batch is buffered that is no newer."""
        asked = select(IngestBatchRow.id).where(IngestBatchRow.model_id == model_id, IngestBatchRow.id <= newest)
        with self.database.reading() as session:
            return session.scalar(asked.limit(1)) is not None

    def _seal(self, model_id: int, lease: Lease, newest: int) -> int:
        total = 0
        for kind in KINDS:
            while (rows := self._round(model_id, kind, lease, newest)) is not None:
                total += rows
        return total

    # --- one round: read, write files, commit -------------------------------------------------------------------------

    def _round(self, model_id: int, kind: str, lease: Lease, newest: int) -> int | None:
        """Seal the oldest batches of a kind, as many as fit in memory; None where all left are newer than asked."""
        with self.database.reading() as session:
            model = session.get(ModelRow, model_id)
            sizes = session.execute(
                select(IngestBatchRow.id, IngestBatchRow.rows, IngestBatchRow.size)
                .where(IngestBatchRow.model_id == model_id, IngestBatchRow.kind == kind)
                .order_by(IngestBatchRow.id)
            ).all()
            if not sizes or sizes[0].id > newest or model is None:
                return None
            ids: list[int] = []
            rows = size = 0
            for batch in sizes:
                if ids and (rows + batch.rows > ROUND_ROWS or size + batch.size > ROUND_BYTES):
                    break
                ids.append(batch.id)
                rows, size = rows + batch.rows, size + batch.size
            chosen = set(ids)
            payloads = session.execute(
                select(IngestBatchRow.id, IngestBatchRow.payload, IngestBatchRow.file, IngestBatchRow.start)
                .where(
                    IngestBatchRow.model_id == model_id,
                    IngestBatchRow.kind == kind,
                    IngestBatchRow.id.between(ids[0], ids[-1]),
                )
                .order_by(IngestBatchRow.id)
            ).all()
        # On PostgreSQL a batch with a number in between may have been committed after the numbers were read.
        batches = [batch for batch in payloads if batch.id in chosen]
        tables = []
        for one in batches:
            try:
                tables.append(self.buffer.rows(one.payload, one.file, one.start))
            except BatchDamaged as damage:
                self._give_up(model, kind, one, damage, lease)
                return 0
        made = Round(model)
        if kind == "predictions":
            versions = self._versions(model, tables)
            with self.database.reading() as session:
                self._predictions(session, made, tables, versions)
        else:
            with self.database.reading() as session:
                self._told(session, made, kind, together(tables))
        self._commit(made, lease, kind, ids)
        self._forget({batch.file for batch in batches if batch.file})
        return rows

    def _give_up(self, model: ModelRow, kind: str, batch: Any, damage: BatchDamaged, lease: Lease) -> None:
        """Take a batch that cannot be read out of the buffer, where it would hold up all others, and tell of it."""
        if batch.file:
            self.lake.set_aside(batch.file, copy=True)
        with self.database.writing() as session:
            lease.check(session)
            row = session.get(IngestBatchRow, batch.id)
            if row is None:
                return
            sentence = (
                f"{row.rows} records ({kind.replace('_', ' ')}) that came by {format_time(row.received_at)} are lost: "
                f"{damage.detail}. What is left of the file was set aside; send them again where that can be done."
            )
            subject = f"{batch.file}:{batch.start}"
            notices.tell(session, self.clock.now(), notices.DAMAGED, subject, sentence, model.id)
            session.delete(row)
        log.error("a damaged batch was given up", reason=damage.detail, model=model.id)

    def _forget(self, files: set[str]) -> None:
        """Let go of the files of the buffer that hold no other batch."""
        with self.database.reading() as session:
            for part in chunks(sorted(files)):
                named = select(IngestBatchRow.file).where(IngestBatchRow.file.in_(part))
                files -= {file for file in session.scalars(named) if file}
        for file in files:
            self.lake.forget(file)

    def _versions(self, model: ModelRow, tables: Sequence[pa.Table]) -> dict[str, int]:
        """Return the ids of the versions that records name ("" for none), making those nobody registered."""
        wanted: set[str] = set()
        for table in tables:
            named = pc.unique(as_text_column(table, "version")).to_pylist()
            wanted.update(name or "" for name in named)
        with self.database.reading() as session:
            rows = session.execute(select(VersionRow.name, VersionRow.id).where(VersionRow.model_id == model.id)).all()
        found = {str(name): int(key) for name, key in rows}
        if "" in wanted and model.active_version_id:
            found[""] = model.active_version_id
        missing = {name or "1" for name in wanted - set(found)} - set(found)
        if missing:
            now = self.clock.now()
            with self.database.writing() as session:
                for name in sorted(missing):
                    row = VersionRow(model_id=model.id, name=name, registered=False, created_at=now)
                    session.add(row)
                    session.flush()
                    found[name] = row.id
        if "" in wanted:
            found.setdefault("", found.get("1", 0))
        return found

    # --- predictions --------------------------------------------------------------------------------------------------

    def _predictions(self, session: Session, made: Round, tables: list[pa.Table], versions: dict[str, int]) -> None:
        content = np.concatenate(
            [content_hashes(batch) for table in tables for batch in table.to_batches()] or [np.empty(0, np.uint32)]
        )
        whole = together(tables)
        if not whole.num_rows:
            return
        named = as_text_column(whole, "version").combine_chunks()
        coded = named.dictionary_encode() if not pa.types.is_dictionary(named.type) else named
        keys = np.array(
            [versions[name or ""] for name in coded.dictionary.to_pylist()] + [versions.get("", 0)], np.int64
        )
        version = keys[np.asarray(coded.indices.fill_null(len(keys) - 1))]
        whole = whole.drop_columns(["version"]) if "version" in whole.schema.names else whole
        hashes = numbers_of(whole["id_hash"], np.uint64)
        known = self.index.find(session, made.model.id, hashes)
        replays = session.execute(
            select(ReplayRow.opened_at, ReplayRow.closed_at).where(ReplayRow.model_id == made.model.id)
        ).all()
        entries = []
        for key in np.unique(version).tolist():
            rows = np.flatnonzero(version == key)
            part = whole if rows.size == whole.num_rows else whole.take(pa.array(rows))
            entries.append(
                self._version(session, made, key, part, content[rows], known[known["version"] == key], replays)
            )
        fresh = np.concatenate(entries)
        if fresh.size:
            self._indexed(session, made, "predictions", fresh)
            for kind in VALUES:
                self._joined(session, made, kind, fresh, whole)

    def _version(
        self,
        session: Session,
        made: Round,
        version: int,
        table: pa.Table,
        content: NDArray[np.uint32],
        known: Entries,
        replays: Sequence[Any],
    ) -> Entries:
        """Seal one version's rows: keep the first of each id, count the others, write them in order of time."""
        hashes = numbers_of(table["id_hash"], np.uint64)
        moments = numbers_of(table["timestamp"], np.int64)
        arrived = numbers_of(table["received_at"], np.int64)
        buckets = moments // HOUR_US
        texts = table["prediction_id"].combine_chunks()
        fresh, first = first_of(hashes, texts)
        earlier = content[first]
        if known.size:
            stored = self._stored(session, made.model.id, version, known, hashes, texts)
            for row, entry in stored.items():
                fresh[row], earlier[row] = False, entry
        if not fresh.all():
            again = ~fresh
            made.count(version, "predictions", buckets[again & (earlier == content)], "duplicates")
            made.count(version, "predictions", buckets[again & (earlier != content)], "conflicts")
        keep = np.flatnonzero(fresh)
        if not keep.size:
            return np.empty(0, ENTRY)
        keep = keep[np.lexsort((hashes[keep], moments[keep]))]
        if keep.size != table.num_rows or np.any(keep != np.arange(keep.size)):
            table = table.take(pa.array(keep))
        hashes, moments, arrived, buckets = hashes[keep], moments[keep], arrived[keep], buckets[keep]
        late = (buckets + 1) * HOUR_US + self.settings.lateness_seconds * 1_000_000 < arrived
        for opened, closed in replays:
            late &= (arrived < microseconds(opened)) | (arrived > (microseconds(closed) if closed else 2**62))
        made.count(version, "predictions", buckets, "accepted")
        made.count(version, "predictions", buckets[late], "late")
        made.mark(version, buckets, "inputs")
        made.events[version] = (int(moments[0]), int(moments[-1]), int(arrived.max()))
        self._written(made, "predictions", version, table, buckets)
        entries = np.empty(keep.size, ENTRY)
        entries["hash"], entries["bucket"], entries["version"] = hashes, buckets, version
        entries["content"] = content[keep]
        return entries

    def _stored(
        self,
        session: Session,
        model_id: int,
        version: int,
        known: Entries,
        hashes: NDArray[np.uint64],
        texts: pa.Array,
    ) -> dict[int, int]:
        """Return the rows whose id the lake has already, with the content hash of what is stored."""
        rows = np.flatnonzero(np.isin(hashes, known["hash"]))
        if not rows.size:
            return {}
        content = {(int(entry["hash"]), int(entry["bucket"])): int(entry["content"]) for entry in known}
        try:
            stored = reader.ids(session, self.lake, model_id, version, known["bucket"], known["hash"])
        except SegmentDamaged as damage:  # what comes in must not wait for a repair: equal hashes are equal ids then
            log.warning("ids are compared by hash alone", reason=damage.detail, model=model_id)
            by_hash = {value: said for (value, _), said in content.items()}
            return {row: by_hash[int(hashes[row])] for row in rows.tolist()}
        by_text = {
            text: content.get((value, bucket), 0)
            for text, value, bucket in zip(
                stored["prediction_id"].to_pylist(),
                numbers_of(stored["id_hash"], np.uint64).tolist(),
                (numbers_of(stored["timestamp"], np.int64) // HOUR_US).tolist(),
                strict=True,
            )
        }
        sought = zip(rows.tolist(), texts.take(pa.array(rows)).to_pylist(), strict=True)
        found = {row: by_text[text] for row, text in sought if text in by_text}
        lost = self._unreadable(session, model_id, version, known)
        if lost:  # of an id in a file that was set aside the hash is all that is left
            found |= {row: lost[value] for row in rows.tolist() if (value := int(hashes[row])) in lost}
        return found

    @staticmethod
    def _unreadable(session: Session, model_id: int, version: int, known: Entries) -> dict[int, int]:
        """Return hash and content of the known ids whose bucket has a damaged segment."""
        damaged = session.execute(
            select(SegmentRow.first_bucket, SegmentRow.last_bucket).where(
                SegmentRow.model_id == model_id,
                SegmentRow.version_id == version,
                SegmentRow.kind == "predictions",
                SegmentRow.damaged_at.is_not(None),
            )
        ).all()
        inside = np.zeros(known.size, np.bool_)
        for first, last in damaged:
            inside |= (known["bucket"] >= first) & (known["bucket"] <= last)
        return {int(entry["hash"]): int(entry["content"]) for entry in known[inside]}

    # --- what is told later: ground truth, protected attributes -------------------------------------------------------

    def _told(self, session: Session, made: Round, kind: str, table: pa.Table) -> None:
        """Seal labels (or attributes): to their predictions' buckets, or to wait where there are none."""
        table = _labels(table, kind)
        hashes = numbers_of(table["id_hash"], np.uint64)
        entries = self.index.find(session, made.model.id, hashes)
        pairs = _paired(table, hashes, entries, self._names(session, made.model.id))
        matched = np.zeros(table.num_rows, np.bool_)
        matched[pairs[0]] = True
        self._placed(session, made, Labels(kind, table, *pairs))
        alone = np.flatnonzero(~matched)
        if alone.size:
            self._wait(session, made, kind, table.take(pa.array(alone)))

    def _names(self, session: Session, model_id: int) -> dict[str, int]:
        rows = session.execute(select(VersionRow.name, VersionRow.id).where(VersionRow.model_id == model_id)).all()
        return {str(name): int(key) for name, key in rows}

    def _placed(self, session: Session, made: Round, labels: Labels) -> None:
        """Keep the labels that say something new, count the others, write them by version.

        A label that says what the newest one says is a duplicate, another is a correction; a duplicate with a newer
        time is kept all the same, since an older correction may still come.
        """
        if not labels.row.size:
            return
        table, value = labels.table, VALUES[labels.kind]
        hashes = numbers_of(table["id_hash"], np.uint64)[labels.row]
        moments = numbers_of(table["timestamp"], np.int64)[labels.row]
        arrived = numbers_of(table["received_at"], np.int64)[labels.row]
        count = labels.row.size
        outcome = np.zeros(count, np.int8)  # 0 accepted, 1 duplicate, 2 corrected
        keep = np.ones(count, np.bool_)
        known = self.index.find(session, made.model.id, hashes, labels.kind)
        order = np.lexsort((labels.version, hashes))
        repeated = (np.diff(hashes[order]) == 0) & (np.diff(labels.version[order]) == 0)
        slow = np.isin(hashes, known["hash"])
        slow[order[1:][repeated]] = slow[order[:-1][repeated]] = True
        members = np.flatnonzero(slow)
        if members.size:
            newest = self._newest(session, made.model.id, labels.kind, known)
            rows = pa.array(labels.row[members])
            texts = table["prediction_id"].take(rows).to_pylist()
            values = as_text_column(table, value).take(rows).to_pylist()
            names = as_text_column(table, "version").take(rows).to_pylist()
            for at, text, said, name in zip(members.tolist(), texts, values, names, strict=True):
                version, place = int(labels.version[at]), (int(moments[at]), int(arrived[at]))
                own, other = newest.get((version, text, name is None)), newest.get((version, text, name is not None))
                if held := max(filter(None, (own, other)), key=lambda told: told[0], default=None):
                    outcome[at] = 1 if held[1] == said else 2
                    # One for all versions is kept beside the same one for this version: others may yet come.
                    rival = own if name is None else held
                    keep[at] = rival is None or rival[1] != said or place[0] > rival[0][0]
                if own is None or place >= own[0]:
                    newest[version, text, name is None] = (place, said)
        for what, code in (("accepted", 0), ("duplicates", 1), ("corrected", 2)):
            for version in np.unique(labels.version).tolist():
                chosen = (outcome == code) & (labels.version == version)
                made.count(version, labels.kind, labels.bucket[chosen], what)
        for version in np.unique(labels.version[keep]).tolist():
            chosen = np.flatnonzero(keep & (labels.version == version))
            chosen = chosen[np.argsort(labels.bucket[chosen], kind="stable")]
            part = table.take(pa.array(labels.row[chosen])).append_column("bucket", pa.array(labels.bucket[chosen]))
            self._written(made, labels.kind, version, part, labels.bucket[chosen])
            made.mark(version, labels.bucket[chosen], "outcomes")
        new = np.flatnonzero(keep & (outcome == 0))
        if new.size:
            entries = np.zeros(new.size, ENTRY)
            entries["hash"], entries["bucket"] = hashes[new], labels.bucket[new]
            entries["version"] = labels.version[new]
            self._indexed(session, made, labels.kind, entries)

    def _newest(self, session: Session, model_id: int, kind: str, known: Entries) -> dict[tuple[int, str, bool], Told]:
        """Return the newest stored label by version, id, and whether it was told of all versions."""
        newest: dict[tuple[int, str, bool], Told] = {}
        for version in np.unique(known["version"]).tolist():
            mine = known[known["version"] == version]
            try:
                stored = reader.told(session, self.lake, model_id, version, kind, mine["bucket"], mine["hash"])
            except SegmentDamaged as damage:  # kept as if it were the first: a label too many can be sorted out later
                log.warning("earlier labels cannot be read", reason=damage.detail, model=model_id)
                continue
            for text, name, moment, came, said in zip(
                stored["prediction_id"].to_pylist(),
                as_text_column(stored, "version").to_pylist(),
                numbers_of(stored["timestamp"], np.int64).tolist(),
                numbers_of(stored["received_at"], np.int64).tolist(),
                as_text_column(stored, VALUES[kind]).to_pylist(),
                strict=True,
            ):
                held = newest.get((version, text, name is None))
                if held is None or (moment, came) >= held[0]:
                    newest[version, text, name is None] = ((moment, came), said)
        return newest

    def _wait(self, session: Session, made: Round, kind: str, table: pa.Table) -> None:
        """Keep labels whose prediction has not come; one that says nothing new is only counted."""
        hashes = numbers_of(table["id_hash"], np.uint64)
        held: dict[tuple[str, str | None], Told] = {}
        for row in _pending(session, made.model.id, kind, hashes):
            place = (row.event_us, microseconds(row.received_at))
            key = (row.prediction_id, row.version)
            if key not in held or place >= held[key][0]:
                held[key] = (place, row.value)
        duplicates = []
        moments = numbers_of(table["timestamp"], np.int64).tolist()
        arrived = numbers_of(table["received_at"], np.int64).tolist()
        names = as_text_column(table, "version").to_pylist()
        values = as_text_column(table, VALUES[kind]).to_pylist()
        for text, value, name, moment, came, said in zip(
            table["prediction_id"].to_pylist(), hashes.tolist(), names, moments, arrived, values, strict=True
        ):
            before = held.get((text, name))
            if before is not None and before[1] == said and moment <= before[0][0]:
                duplicates.append(came // HOUR_US)
                continue
            if before is None or (moment, came) >= before[0]:
                held[text, name] = ((moment, came), said)
            made.waiting.append(
                {
                    "model_id": made.model.id,
                    "kind": kind,
                    "id_hash": _signed(value),
                    "prediction_id": text,
                    "version": name,
                    "value": said,
                    "event_us": moment,
                    "received_at": from_microseconds(came),
                }
            )
        made.count(0, kind, np.array(duplicates, np.int64), "duplicates")

    def _joined(self, session: Session, made: Round, kind: str, fresh: Entries, whole: pa.Table) -> None:
        """Bring to new predictions what was told before they came, or was told of another version's copy."""
        names = self._names(session, made.model.id)
        waited = _pending(session, made.model.id, kind, fresh["hash"])
        parts = []
        if waited:
            parts.append(_waited(waited, kind))
        known = self.index.find(session, made.model.id, fresh["hash"], kind)
        for version in np.unique(known["version"]).tolist():
            mine = known[known["version"] == version]
            try:
                told = reader.told(session, self.lake, made.model.id, version, kind, mine["bucket"], mine["hash"])
            except SegmentDamaged as damage:
                log.warning("another version's labels cannot be read", reason=damage.detail, model=made.model.id)
                continue
            told = told.filter(pc.is_null(as_text_column(told, "version")))
            parts.append(told.drop_columns(["bucket"]))
        if not parts:
            return
        table = together([_labels(part, kind) for part in parts])
        table = table.append_column("order", pa.array(np.arange(table.num_rows)))
        table = table.sort_by([("timestamp", "ascending"), ("received_at", "ascending"), ("order", "ascending")])
        order = numbers_of(table["order"], np.int64)
        table = table.drop_columns(["order"])
        hashes = numbers_of(table["id_hash"], np.uint64)
        row, version, bucket = _paired(table, hashes, fresh, names)
        if not row.size:
            return
        # The texts are at hand here: a label that only shares the hash stays where it is.
        ids = whole["prediction_id"].filter(pa.array(np.isin(numbers_of(whole["id_hash"], np.uint64), hashes)))
        here = np.asarray(
            pc.is_in(table["prediction_id"], value_set=ids.combine_chunks())
            .combine_chunks()
            .to_numpy(zero_copy_only=False)
        )
        chosen = here[row]
        # The same label kept under two versions is one label.
        said = as_text_column(table, VALUES[kind]).to_pylist()
        texts = table["prediction_id"].to_pylist()
        moments = numbers_of(table["timestamp"], np.int64)
        seen: set[tuple[int, str, int, str | None]] = set()
        for at in np.flatnonzero(chosen).tolist():
            key = (int(version[at]), texts[row[at]], int(moments[row[at]]), said[row[at]])
            chosen[at] = key not in seen
            seen.add(key)
        made.arrived += [waited[at].id for at in np.unique(order[row[here[row]]]).tolist() if at < len(waited)]
        self._placed(session, made, Labels(kind, table, row[chosen], version[chosen], bucket[chosen]))

    # --- a damaged index ----------------------------------------------------------------------------------------------

    def _repair(self, model_id: int, lease: Lease) -> None:
        """Make the id index again from the segments, kind by kind, where one of its runs cannot be read."""
        with self.database.reading() as session:
            runs = session.execute(
                select(IdRunRow.path, IdRunRow.kind, IdRunRow.level).where(IdRunRow.model_id == model_id)
            ).all()
        broken: dict[str, int] = {}
        for run in runs:
            try:
                read_run(self.lake.path(run.path))
            except SegmentDamaged as damage:
                log.warning("the id index is made again", reason=damage.detail, model=model_id, kind=run.kind)
                broken[run.kind] = max(other.level for other in runs if other.kind == run.kind)
        for kind, level in broken.items():
            self._reindex(model_id, kind, level, lease)

    def _reindex(self, model_id: int, kind: str, level: int, lease: Lease) -> None:
        with self.database.reading() as session:
            model = session.get_one(ModelRow, model_id)
            segments = session.scalars(
                select(SegmentRow)
                .where(SegmentRow.model_id == model_id, SegmentRow.kind == kind, SegmentRow.damaged_at.is_(None))
                .order_by(SegmentRow.id)
            ).all()
        parts = [np.empty(0, ENTRY)]
        for segment in segments:
            try:
                names = None if kind == "predictions" else ["id_hash", "bucket"]
                table = self.lake.read_table(segment.path, names, checksum=segment.checksum)
            except SegmentDamaged as damage:
                log.warning("its ids stay unknown", reason=damage.detail, model=model_id)
                continue
            entries = np.zeros(table.num_rows, ENTRY)
            entries["hash"], entries["version"] = numbers_of(table["id_hash"], np.uint64), segment.version_id
            if kind == "predictions":
                entries["bucket"] = numbers_of(table["timestamp"], np.int64) // HOUR_US
                entries["content"] = np.concatenate([content_hashes(batch) for batch in table.to_batches()])
            else:
                entries["bucket"] = numbers_of(table["bucket"], np.int64)
                entries = np.unique(entries)
            parts.append(entries)
        path = f"{model.uid}/ids/{new_id()}.run"
        whole = np.concatenate(parts)
        written = self.index.write(path, whole)
        with self.database.writing() as session:
            lease.check(session)
            session.execute(delete(IdRunRow).where(IdRunRow.model_id == model_id, IdRunRow.kind == kind))
            session.add(
                IdRunRow(
                    model_id=model_id,
                    kind=kind,
                    level=level,
                    path=path,
                    rows=int(whole.size),
                    checksum=written.checksum,
                    created_at=self.clock.now(),
                )
            )

    # --- files and the commit -----------------------------------------------------------------------------------------

    def _written(
        self, made: Round, kind: str, version: int, table: pa.Table, buckets: Ints, *, compacted: bool = False
    ) -> None:
        """Write rows, in the order of their buckets, as segments."""
        empty = [name for name in table.schema.names if table[name].null_count == table.num_rows and "." in name]
        table = table.drop_columns(empty) if empty else table
        for start in range(0, table.num_rows, SEGMENT_ROWS):
            part = table.slice(start, SEGMENT_ROWS)
            path = f"{made.model.uid}/{kind}/{new_id()}.parquet"
            written = self.lake.write_segment(part, path, compacted=compacted)
            made.segments.append(
                {
                    "model_id": made.model.id,
                    "version_id": version,
                    "kind": kind,
                    "path": path,
                    "rows": part.num_rows,
                    "size": written.size,
                    "checksum": written.checksum,
                    "first_bucket": int(buckets[start]),
                    "last_bucket": int(buckets[start + part.num_rows - 1]),
                    "compacted": compacted,
                    "sealed_at": self.clock.now(),
                }
            )

    def _indexed(self, session: Session, made: Round, kind: str, entries: Entries) -> None:
        """Write a run of the id index, merged with its predecessors where there are many."""
        runs = session.execute(
            select(IdRunRow.id, IdRunRow.path, IdRunRow.level)
            .where(IdRunRow.model_id == made.model.id, IdRunRow.kind == kind)
            .order_by(IdRunRow.id)
        ).all()
        path = f"{made.model.uid}/ids/{new_id()}.run"
        written, rows, level = self.index.write(path, entries), int(entries.size), 0
        while True:
            twins = [run for run in runs if run.level == level]
            if len(twins) < FAN - 1:
                break
            passing = path
            path = f"{made.model.uid}/ids/{new_id()}.run"
            written, rows = self.index.merge(path, [*(run.path for run in twins), passing])
            made.replaced += [run.id for run in twins]
            made.outdated += [*(run.path for run in twins), passing]
            level += 1
        made.runs.append(
            {
                "model_id": made.model.id,
                "kind": kind,
                "level": level,
                "path": path,
                "rows": rows,
                "checksum": written.checksum,
                "created_at": self.clock.now(),
            }
        )

    def _commit(self, made: Round, lease: Lease, kind: str, batches: Sequence[int]) -> None:
        """Make the round count: manifest, index, counts and marks in; buffer out; all or nothing."""
        upsert = sqlite.insert if self.database.is_sqlite else postgresql.insert
        now = self.clock.now()
        with self.database.writing() as session:
            lease.check(session)
            if made.segments:
                touched = sorted({segment["version_id"] for segment in made.segments})
                session.execute(select(VersionRow.id).where(VersionRow.id.in_(touched)).with_for_update())
                session.execute(insert(SegmentRow), made.segments)
            if made.replaced:
                session.execute(delete(IdRunRow).where(IdRunRow.id.in_(made.replaced)))
            if made.runs:
                session.execute(insert(IdRunRow), made.runs)
            if made.waiting:
                session.execute(insert(PendingTruthRow), made.waiting)
            for part in chunks(made.arrived):
                session.execute(delete(PendingTruthRow).where(PendingTruthRow.id.in_(part)))
            if made.arrivals:
                add_arrivals(session, self.database, made.model.id, made.arrivals)
            if made.dirty:
                marks = [{"version_id": v, "bucket": b, "part": p, "since": now} for v, b, p in sorted(made.dirty)]
                session.execute(upsert(DirtyRow).on_conflict_do_nothing(), marks)
            for version, (first, last, came) in made.events.items():
                row = session.get_one(VersionRow, version)
                ends = (from_microseconds(first), from_microseconds(last), from_microseconds(came))
                values: dict[str, datetime] = {}
                if row.first_event_at is None or ends[0] < row.first_event_at:
                    values["first_event_at"] = ends[0]
                if row.last_event_at is None or ends[1] > row.last_event_at:
                    values["last_event_at"] = ends[1]
                if row.last_arrival_at is None or ends[2] > row.last_arrival_at:
                    values["last_arrival_at"] = ends[2]
                if values:
                    session.execute(update(VersionRow).where(VersionRow.id == version).values(values))
            for part in chunks(batches):
                session.execute(delete(IngestBatchRow).where(IngestBatchRow.id.in_(part), IngestBatchRow.kind == kind))
        for path in made.outdated:
            self.lake.forget(path)

    # --- housekeeping -------------------------------------------------------------------------------------------------

    def tidy(self, *, seconds: float = 2.0) -> int:
        """Compact days that are over and sweep what is left over, each model once an hour; return the files replaced.

        Begins no further group of files after so many seconds.
        """
        until, replaced = time.monotonic() + seconds, 0
        with self.database.reading() as session:
            models = session.scalars(select(ModelRow.id).order_by(ModelRow.id)).all()
        for model_id in models:
            if time.monotonic() >= until:
                return replaced
            if self._tidied.get(model_id, -TIDY_SECONDS) + TIDY_SECONDS > self.clock.monotonic():
                continue
            replaced += self.compact(model_id, until=until)
            if time.monotonic() < until:
                self._tidied[model_id] = self.clock.monotonic()
        if self._swept + TIDY_SECONDS <= self.clock.monotonic():
            self.sweep()
            self._swept = self.clock.monotonic()
        return replaced

    def compact(self, model_id: int, *, until: float = float("inf")) -> int:
        """Merge the many small segments of days that are over into small files; return how many were replaced.

        The rows, their order among equal times and the profiles stay what they are. Nothing happens while another
        process works on the model.
        """
        lease = self._lease(model_id)
        if lease is None:
            return 0
        replaced = 0
        with self._holding(lease):
            for group in self._groups(model_id):
                if time.monotonic() >= until:
                    break
                try:
                    self._merged(group, lease)
                except SegmentDamaged as damage:
                    log.warning("a day is not compacted", reason=damage.detail, model=model_id)
                    continue
                replaced += len(group)
        return replaced

    def _groups(self, model_id: int) -> list[list[SegmentRow]]:
        """Return the hot segments to be merged: four or more of a version and kind, of a day or, if longer, a month."""
        today = int(self.clock.now().timestamp()) // 86_400 * 24
        groups: dict[tuple[int, str, int, int], list[list[SegmentRow]]] = {}
        with self.database.reading() as session:
            hot = session.scalars(
                select(SegmentRow)
                .where(
                    SegmentRow.model_id == model_id,
                    SegmentRow.compacted.is_(False),
                    SegmentRow.kind.in_(KINDS),
                    SegmentRow.damaged_at.is_(None),
                    SegmentRow.last_bucket < today,
                    SegmentRow.sealed_at < self.clock.now() - COMPACTED_AFTER,
                )
                .order_by(SegmentRow.first_bucket, SegmentRow.id)
            ).all()
        for segment in hot:
            length = 24 if segment.last_bucket - segment.first_bucket < 24 else 720
            key = (segment.version_id, segment.kind, length, segment.first_bucket // length)
            parts = groups.setdefault(key, [[]])
            if sum(part.rows for part in parts[-1]) + segment.rows > SEGMENT_ROWS:
                parts.append([])
            parts[-1].append(segment)
        return [part for parts in groups.values() for part in parts if len(part) >= FAN]

    def _merged(self, group: Sequence[SegmentRow], lease: Lease) -> None:
        """Replace segments by one that holds their rows."""
        first = group[0]
        with self.database.reading() as session:
            model = session.get_one(ModelRow, first.model_id)
        ordered = sorted(group, key=lambda segment: segment.id)
        table = together([self.lake.read_table(segment.path, checksum=segment.checksum) for segment in ordered])
        moments = numbers_of(table["timestamp"], np.int64)
        if first.kind == "predictions":
            buckets = moments // HOUR_US
            order = np.lexsort((numbers_of(table["id_hash"], np.uint64), moments))
        else:
            buckets = numbers_of(table["bucket"], np.int64)
            order = np.argsort(buckets, kind="stable")
        table = table.unify_dictionaries().combine_chunks().take(pa.array(order))
        made = Round(model)
        self._written(made, first.kind, first.version_id, table, buckets[order], compacted=True)
        with self.database.writing() as session:
            lease.check(session)
            session.execute(select(VersionRow.id).where(VersionRow.id == first.version_id).with_for_update())
            session.execute(insert(SegmentRow), made.segments)
            for part in chunks([segment.id for segment in group]):
                session.execute(delete(SegmentRow).where(SegmentRow.id.in_(part)))
        for segment in group:
            self.lake.forget(segment.path)

    def sweep(self) -> int:
        """Remove files that no row has named for a day; return how many."""
        with self.database.reading() as session:
            known = set(named_files(session, self.clock.now()))
        return self.lake.sweep(known)


@lru_cache(maxsize=4)
def _increments(is_sqlite: bool) -> Any:
    """Return the statement that adds to the counts of a bucket, or begins them."""
    statement = (sqlite.insert if is_sqlite else postgresql.insert)(ArrivalRow)
    names = ("accepted", "duplicates", "conflicts", "corrected", "late")
    return statement.on_conflict_do_update(
        index_elements=["model_id", "version_id", "kind", "bucket"],
        set_={name: getattr(ArrivalRow, name) + getattr(statement.excluded, name) for name in names},
    )


def add_arrivals(
    session: Session,
    database: Database,
    model_id: int,
    arrivals: dict[tuple[int, str, int], dict[str, int]],
) -> None:
    """Add counts to the arrivals of (version, kind, bucket); see `ArrivalRow` for what is counted."""
    zero = {"accepted": 0, "duplicates": 0, "conflicts": 0, "corrected": 0, "late": 0, "rejected": 0, "reasons": {}}
    rows = [
        {"model_id": model_id, "version_id": version, "kind": kind, "bucket": bucket} | zero | counts
        for (version, kind, bucket), counts in sorted(arrivals.items())
    ]
    if rows:
        session.execute(_increments(database.is_sqlite), rows)


def chunks(values: Sequence[_Value], size: int = 5_000) -> Iterable[Sequence[_Value]]:
    """Yield so many values at a time: databases limit the parameters of a statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def as_text_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column as plain text; all missing where the table lacks it."""
    if name not in table.schema.names:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    column = table[name]
    if column.type.equals(pa.string()):
        return column
    return pa.chunked_array([as_text(chunk).cast(pa.string()) for chunk in column.chunks], pa.string())


def _labels(table: pa.Table, kind: str) -> pa.Table:
    """Return label rows in the lake's columns; where no time was given the arrival counts."""
    schema = pa.schema(
        [
            ("prediction_id", pa.string()),
            ("id_hash", pa.uint64()),
            ("version", pa.string()),
            (VALUES[kind], pa.string()),
            ("timestamp", MOMENT),
            ("received_at", MOMENT),
        ]
    )
    table = shaped(table, schema)
    if table["timestamp"].null_count:
        filled = pc.coalesce(table["timestamp"], table["received_at"])
        table = table.set_column(schema.get_field_index("timestamp"), schema.field("timestamp"), filled)
    return table


def _paired(
    table: pa.Table, hashes: NDArray[np.uint64], entries: Entries, names: dict[str, int]
) -> tuple[Ints, Ints, Ints]:
    """Return (row, version, bucket) for each label and each prediction that it is about.

    A label without version is about all that have its id; one with a version about that one.
    """
    order = np.argsort(entries["hash"], kind="stable")
    sought = entries["hash"][order]
    first = np.searchsorted(sought, hashes, "left")
    counts = np.searchsorted(sought, hashes, "right") - first
    row = np.repeat(np.arange(hashes.size), counts)
    within = np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)
    found = entries[order[np.repeat(first, counts) + within]]
    version = found["version"].astype(np.int64)
    named = as_text_column(table, "version")
    if named.null_count < len(named):
        wanted = np.array([0 if name is None else names.get(name, -1) for name in named.to_pylist()], np.int64)
        fits = (wanted[row] == 0) | (wanted[row] == version)
        row, version, found = row[fits], version[fits], found[fits]
    return row.astype(np.int64), version, found["bucket"].astype(np.int64)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _pending(session: Session, model_id: int, kind: str, hashes: NDArray[np.uint64]) -> list[Any]:
    """Return the waiting rows of some hashes, in order of arrival."""
    where = (PendingTruthRow.model_id == model_id, PendingTruthRow.kind == kind)
    if session.scalar(select(PendingTruthRow.id).where(*where).limit(1)) is None:
        return []
    sought = np.unique(hashes).astype(np.int64).tolist()
    found: list[Any] = []
    for part in chunks(sought):
        found += session.execute(
            select(PendingTruthRow.__table__).where(*where, PendingTruthRow.id_hash.in_(part))
        ).all()
    return sorted(found, key=lambda row: row.id)


def _waited(rows: Sequence[Any], kind: str) -> pa.Table:
    """Return waiting rows as label rows."""
    return pa.table(
        {
            "prediction_id": pa.array([row.prediction_id for row in rows], pa.string()),
            "id_hash": pa.array([row.id_hash % 2**64 for row in rows], pa.uint64()),
            "version": pa.array([row.version for row in rows], pa.string()),
            VALUES[kind]: pa.array([row.value for row in rows], pa.string()),
            "timestamp": pa.array([row.event_us for row in rows], MOMENT),
            "received_at": pa.array([microseconds(row.received_at) for row in rows], MOMENT),
        }
    )
