"""The one writer: takes what waits, puts it into the log in one transaction, and only then lets anybody be answered."""

import shutil
import threading
import time
import traceback
from asyncio import AbstractEventLoop, Future, InvalidStateError
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol
from zlib import crc32

import msgspec
import numpy as np
import pyarrow as pa
import sqlalchemy.exc
import structlog
from numpy.typing import NDArray
from sqlalchemy import delete, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from service.clock import Clock
from service.database import IDLE_MILLISECONDS, Database, failure_of, from_microseconds, microseconds
from service.ingest import schemas
from service.ingest.buffer import LARGE, BatchDamaged, Buffer, Place, encode
from service.ingest.columns import GROUND_TRUTH, PREDICTIONS, Builder, Built, Part, Refusal
from service.ingest.formats import Format, Parsed, read
from service.ingest.hashing import hash_ids, hash_key
from service.ingest.schemas import Feature, ModelSchema, VersionSchema
from service.ingest.seen import NEW, OTHER, SAME, Seen
from service.problems import Conflict, NotFound, Overloaded, Problem, StorageFull, Unavailable, Unprocessable
from service.settings import Settings
from service.tables import (
    ArrivalRow,
    FeatureRow,
    IngestBatchRow,
    IngestRequestRow,
    ModelRow,
    RejectionRow,
    VersionRow,
)
from service.words import bucket_of, new_id

GROUP_BYTES = 8 * 2**20
GROUP_REQUESTS = 512
BUSY = 8
"""Where the last transaction held so many requests, the next one waits for more of them."""
GATHER_SECONDS, GATHER_STEPS = 0.004, 5
LISTED = 100
"""Refused records that an answer lists."""
KEPT_REJECTIONS = 1_000
KEPT_REQUESTS = timedelta(hours=24)
BUSY_MILLISECONDS = 4_000
SCHEMA_SECONDS = 1.0
RETRY = {"Retry-After": "5"}
RETRY_FULL = {"Retry-After": "30"}
_log = structlog.get_logger()


class IndexReader(Protocol):
    """Finds sealed predictions by the hashes of their ids."""

    def runs(self, session: Session, model_id: int) -> Sequence[str]:
        """Return the runs that the model's ids are in now."""
        ...

    def search(self, runs: Sequence[str], hashes: NDArray[np.uint64]) -> NDArray[Any]:
        """Return entries with the fields hash and version for those of the hashes that are known."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets: a status, a body, and whether it was given before."""

    status: int
    body: bytes
    replayed: bool = False


@dataclass(slots=True)
class Arrival:
    """One request's records on their way into the log."""

    model: str
    kind: str
    size: int
    parsed: Parsed | None = None
    """Records of a body that is not large: they are put into columns together with those of other requests."""
    build: Callable[[ModelSchema], Built] | None = None
    """Makes the columns of a large body, again where the schema has changed since they were built."""
    built: Built | None = None
    payloads: "Sequence[bytes] | None" = None
    """What the database stores of each part of the columns; empty for one that goes into a file."""
    strict: bool = False
    route: str = ""
    idempotency_key: str | None = None
    fingerprint: str = ""
    batch: str = field(default_factory=new_id)
    loop: AbstractEventLoop | None = None
    future: "Future[Answer] | None" = None
    outcome: Answer | Problem | None = None


@dataclass(slots=True)
class _Share:
    """What one request of a group has in the columns built for all of it."""

    arrival: Arrival
    first: int
    count: int


@dataclass(slots=True)
class _Group:
    """Requests whose records became one set of columns."""

    built: Built
    shares: list[_Share]
    payloads: Sequence[bytes]
    places: Sequence[Place] | None = None
    """Where the parts that are in a file are; none before it is written."""


class _Buffered:
    """What waits in the buffer of one model: which ids under which version, and which labels."""

    def __init__(self) -> None:
        self.batches: dict[tuple[int, int], int] = {}
        """Row id and time of arrival of each batch taken in (a row id may come again) -> rows."""
        self.predictions = Seen()
        self.labels = Seen()


class Writer:
    """A thread with the process's only connection that writes records; its commit is the acknowledgement."""

    def __init__(
        self, database: Database, clock: Clock, settings: Settings, secret: bytes, index: IndexReader | None = None
    ) -> None:
        self.index = index
        self.key = hash_key(secret)
        self._database = database
        self._clock = clock
        self._settings = settings
        self._secret = secret
        self._queue: deque[Arrival] = deque()
        self._waiting_bytes = 0
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._connection: Connection | None = None
        self._buffer_files = Buffer(settings.lake)
        self._schemas: dict[str, tuple[float, ModelSchema]] = {}
        self._runs: dict[int, Sequence[str]] = {}
        self._buffered: dict[int, _Buffered] = {}
        self._data_version: int | None = None
        self._insert_batch = _insertion(database)
        self._purged_at: datetime | None = None

    # --- what requests use --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write; what other processes left in the buffer is taken in model by model."""
        self.warm_up()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ingest-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what was accepted, then end."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._disconnect()

    def warm_up(self) -> None:
        """Compile or load the number kernels, so that no first request waits for them."""
        schema = ModelSchema(0, "", "binary")
        builder = self.builder(schema, PREDICTIONS)
        for body, form in ((b'{"records": [{}]}', Format.JSON), (b"{}", Format.LINES), (b"a\nb", Format.CSV)):
            read(body, form, "utf-8", builder, limit=1024)
        for part in builder.finish(3).parts:
            seen = Seen()
            for _ in range(2):
                seen.add(np.resize(part.hashes, 2048), 1)
            seen.known(part.hashes)

    def schema(self, name: str) -> ModelSchema:
        """Return what is known of a model, at most a second old; raises `NotFound`.

        The writer looks again before it writes, so an older state only costs building columns twice.
        """
        known = self._schemas.get(name)
        if known is not None and time.monotonic() - known[0] < SCHEMA_SECONDS:  # the age of a cache, not a time of day
            return known[1]
        try:
            with self._database.reading() as session:
                found = schemas.load(session, name)
        except sqlalchemy.exc.DBAPIError as failed:
            raise _problem_of(failed) from failed
        return self._remember(name, found)

    def _remember(self, name: str, found: ModelSchema | None) -> ModelSchema:
        if found is None:
            self._schemas.pop(name, None)
            raise NotFound(f"there is no model {name!r}")
        known = self._schemas.get(name)
        if known is not None and known[1] == found:
            found = known[1]
        self._schemas[name] = (time.monotonic(), found)
        return found

    def builder(self, schema: ModelSchema, kind: str) -> Builder:
        """Return a builder of columns that come in now."""
        return Builder(schema, kind, microseconds(self._clock.now()), self.key, self._secret)

    def submit(self, arrival: Arrival) -> "Future[Answer]":
        """Queue records from an event loop and return what will be their answer; raises `Overloaded`."""
        if arrival.loop is None:
            raise ValueError("an arrival from an event loop names it")
        future: Future[Answer] = arrival.loop.create_future()
        arrival.future = future
        with self._wake:
            if self._stopping or self._thread is None:
                raise Unavailable("the service is stopping", headers=RETRY)
            full = self._waiting_bytes + arrival.size > self._settings.queue_bytes and self._queue
            if full or len(self._queue) >= self._settings.queue_requests:
                raise Overloaded("too many records are waiting to be stored", headers=RETRY)
            self._queue.append(arrival)
            self._waiting_bytes += arrival.size
            self._wake.notify()
        return future

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        taken: list[Arrival] = []
        while True:
            with self._wake:
                while not self._queue and not self._stopping:
                    self._wake.wait()
                if not self._queue:
                    return
            if len(taken) >= BUSY:
                self._gather()
            with self._wake:
                taken = [self._queue.popleft()]
                size = taken[0].size
                while self._queue and len(taken) < GROUP_REQUESTS and size + self._queue[0].size <= GROUP_BYTES:
                    taken.append(self._queue.popleft())
                    size += taken[-1].size
                self._waiting_bytes -= size
            self.write(taken)
            _resolve(taken)

    def _gather(self) -> None:
        """Wait a moment for as long as requests keep coming: a transaction costs the same for few and for many."""
        for _ in range(GATHER_STEPS):
            there = len(self._queue)
            time.sleep(GATHER_SECONDS)
            if len(self._queue) == there or there >= GROUP_REQUESTS:
                return

    def write(self, arrivals: Sequence[Arrival]) -> None:
        """Put records into the log in one transaction and leave each request's answer, or problem, with it."""
        try:
            self._check_room()
            try:
                self._write(arrivals)
            except sqlalchemy.exc.IntegrityError:  # another process made the same version or feature: once more
                self._forget()
                self._write(arrivals)
        except Problem as problem:
            self._forget()
            _fail(arrivals, problem)
        except (sqlalchemy.exc.DBAPIError, OSError) as failed:
            self._forget()
            _fail(arrivals, _problem_of(failed))
        except Exception as failed:  # noqa: BLE001 - whatever one request did, it must not take others with it
            self._forget()
            if len(arrivals) > 1:
                for arrival in arrivals:
                    self.write([arrival])
            else:
                story = "".join(traceback.format_exception(failed))
                _log.error("unforeseen", model=arrivals[0].model, kind=arrivals[0].kind, traceback=story)
                unforeseen = Problem("the records could not be stored")
                unforeseen.__cause__ = failed
                _fail(arrivals, unforeseen)

    def _write(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            arrival.outcome = None
        self._load_schemas({arrival.model for arrival in arrivals} - set(self._schemas))
        known = self._of_known_models(arrivals)
        # columns are built before the transaction, so that it holds the lock only for as long as the disk takes
        groups = [] if any(arrival.idempotency_key for arrival in known) else self._groups(known)
        with self._filing() as files:
            self._file(groups, files)
            with self._transaction() as session:
                self._look_again({arrival.model for arrival in known}, session)
                fresh = self._claim(session, known)
                if not groups:
                    groups = self._groups(self._of_known_models(fresh))
                    self._file(groups, files)
                outcomes: list[tuple[Arrival, Answer]] = []
                for group in groups:
                    if current := self._current(group):  # one before it may have brought a feature
                        self._file([current], files)
                        outcomes += self._store(session, current)
                self._answer_claims(session, fresh, outcomes)
                self._purge(session)
                session.flush()
                files.clear()  # from here on only the database knows whether a row names them
        for arrival, answer in outcomes:
            arrival.outcome = answer

    @contextmanager
    def _filing(self) -> Iterator[list[str]]:
        """Remove the files that are still listed when something is raised: no row can name them."""
        files: list[str] = []
        try:
            yield files
        except BaseException:
            for file in files:
                self._buffer_files.discard(file)
            raise

    def _file(self, groups: Iterable[_Group], files: list[str]) -> None:
        """Write the large parts of groups whose parts are in no file yet into one, and note it."""
        waiting = [group for group in groups if group.places is None]
        tables = [
            part.table
            for group in waiting
            for part, payload in zip(group.built.parts, group.payloads, strict=True)
            if not payload
        ]
        places = self._buffer_files.store(tables) if tables else []
        files += dict.fromkeys(place.file for place in places)
        for group in waiting:
            own = group.payloads.count(b"")
            group.places, places = places[:own], places[own:]

    def _current(self, group: _Group) -> _Group | None:
        """Return the group with columns after the newest schema; none where its model has gone."""
        arrivals = [share.arrival for share in group.shares]
        schema = self._schemas.get(arrivals[0].model, (0.0, None))[1]
        if schema is None:
            self._of_known_models(arrivals)
            return None
        if group.built.schema is schema or group.built.schema == schema:
            return group
        if arrivals[0].parsed is not None:
            return self._together(schema, arrivals)
        return self._alone(schema, arrivals[0])

    def _of_known_models(self, arrivals: Iterable[Arrival]) -> list[Arrival]:
        known = []
        for arrival in arrivals:
            if arrival.outcome is not None:
                continue
            if arrival.model in self._schemas:
                known.append(arrival)
            else:
                arrival.outcome = NotFound(f"there is no model {arrival.model!r}")
        return known

    # --- connection and caches ----------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        connection = self._connected()
        with connection.begin(), Session(connection, join_transaction_mode="rollback_only") as session:
            yield session

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = self._database.engine.connect().execution_options(plumbline_write=True)
            connection.detach()
            if self._database.is_sqlite:
                raw: Any = connection.connection.dbapi_connection
                for pragma in (f"busy_timeout={BUSY_MILLISECONDS}", "wal_autocheckpoint=8000"):
                    raw.execute(f"PRAGMA {pragma}").close()
            else:
                with connection.begin():
                    connection.exec_driver_sql(f"SET lock_timeout = {BUSY_MILLISECONDS}")
                    connection.exec_driver_sql(f"SET idle_in_transaction_session_timeout = {IDLE_MILLISECONDS}")
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _forget(self) -> None:
        """Drop what is remembered of the database: after a failure nobody knows how far it came."""
        try:
            self._disconnect()
        except sqlalchemy.exc.DBAPIError:
            self._connection = None  # it was broken already
        self._buffered.clear()
        self._schemas.clear()
        self._runs.clear()
        self._data_version = None

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._settings.data_dir).free if self._settings.data_dir.exists() else None
        if free is not None and free < self._settings.min_free_bytes:
            needed = self._settings.min_free_bytes
            raise StorageFull(f"{free} bytes are free, ingest needs {needed}", headers=RETRY_FULL)

    def _load_schemas(self, names: set[str], session: Session | None = None) -> None:
        if not names:
            return
        if session is None:
            with self._database.reading() as reading:
                found = {name: schemas.load(reading, name) for name in names}
        else:
            found = {name: schemas.load(session, name) for name in names}
        for name, schema in found.items():
            if schema is None:
                self._schemas.pop(name, None)
            else:
                self._remember(name, schema)

    def _look_again(self, names: set[str], session: Session) -> None:
        """Read again what others may have changed since the last transaction."""
        if self._database.is_sqlite:
            version = session.connection().exec_driver_sql("PRAGMA data_version").scalar()
            if version == self._data_version:
                return
            self._data_version = version
        self._runs.clear()
        for name in set(self._schemas) - names:
            del self._schemas[name]
        self._load_schemas(names, session)
        self._take_in_buffers(session)

    def _take_in_buffers(self, session: Session) -> None:
        """Take in what other processes put into the buffers, and let go of what was sealed."""
        for model_id, buffered in list(self._buffered.items()):
            there = {
                (row.id, microseconds(row.received_at)): row.rows
                for row in session.execute(
                    select(IngestBatchRow.id, IngestBatchRow.received_at, IngestBatchRow.rows).where(
                        IngestBatchRow.model_id == model_id
                    )
                )
            }
            waiting = sum(there.values())
            if buffered.predictions.count + buffered.labels.count > 2 * waiting + 200_000:
                self._buffered[model_id] = buffered = _Buffered()
            buffered.batches = {mark: rows for mark, rows in buffered.batches.items() if mark in there}
            self._load(session, model_id, buffered, [mark for mark in there if mark not in buffered.batches], there)

    def _buffer(self, session: Session, model_id: int) -> _Buffered:
        buffered = self._buffered.get(model_id)
        if buffered is None:
            buffered = self._buffered[model_id] = _Buffered()
            there = {
                (row.id, microseconds(row.received_at)): row.rows
                for row in session.execute(
                    select(IngestBatchRow.id, IngestBatchRow.received_at, IngestBatchRow.rows).where(
                        IngestBatchRow.model_id == model_id
                    )
                )
            }
            self._load(session, model_id, buffered, list(there), there)
        return buffered

    def _load(
        self,
        session: Session,
        model_id: int,
        buffered: _Buffered,
        marks: Sequence[tuple[int, int]],
        there: Mapping[tuple[int, int], int],
    ) -> None:
        if not marks:
            return
        versions = dict(
            session.execute(select(VersionRow.name, VersionRow.id).where(VersionRow.model_id == model_id)).all()
        )
        for mark in sorted(marks):
            row = session.execute(
                select(IngestBatchRow.kind, IngestBatchRow.payload, IngestBatchRow.file, IngestBatchRow.start).where(
                    IngestBatchRow.id == mark[0]
                )
            ).first()
            buffered.batches[mark] = there[mark]
            if row is None or row.kind not in (PREDICTIONS, GROUND_TRUTH):
                continue
            try:
                table = self._buffer_files.rows(row.payload, row.file, row.start)
            except BatchDamaged as damage:  # the sealer gives it up; what comes in must not wait for that
                _log.warning("a batch of the buffer cannot be read", reason=damage.detail, model=model_id)
                continue
            owner = _owner(versions, table["version"][0].as_py() if table.num_rows else None)
            hashes = _numbers(table["id_hash"])
            if row.kind == PREDICTIONS:
                buffered.predictions.add(hashes, owner)
            else:
                buffered.labels.add(hashes, owner, self._label_hashes(table))

    def _label_hashes(self, table: pa.Table) -> NDArray[np.uint64]:
        labels = table["ground_truth"].combine_chunks()
        hashes = hash_ids(labels, self.key)
        if labels.null_count:
            hashes[labels.is_null().to_numpy(zero_copy_only=False)] = 0
        return hashes

    # --- columns ------------------------------------------------------------------------------------------------------

    def _groups(self, arrivals: Iterable[Arrival]) -> list[_Group]:
        """Return the columns of all arrivals: small ones of one model and kind together, the others each alone."""
        together: dict[tuple[str, str], list[Arrival]] = defaultdict(list)
        groups: list[_Group] = []
        for arrival in arrivals:
            if arrival.parsed is not None and not arrival.strict:
                together[arrival.model, arrival.kind].append(arrival)
                continue
            schema = self._schemas[arrival.model][1]
            if arrival.parsed is not None:
                groups.append(self._together(schema, [arrival]))
                continue
            groups.append(self._alone(schema, arrival))
        for (model, _), small in together.items():
            groups.append(self._together(self._schemas[model][1], small))
        return groups

    def _alone(self, schema: ModelSchema, arrival: Arrival) -> _Group:
        if arrival.build is None:
            raise ValueError("an arrival has records or knows how to build their columns")
        if arrival.built is None or arrival.built.schema != schema:
            arrival.built, arrival.payloads = arrival.build(schema), None
        if arrival.payloads is None:
            arrival.payloads = payloads(arrival.built)
        return _Group(arrival.built, [_Share(arrival, 0, arrival.built.count)], arrival.payloads)

    def _together(self, schema: ModelSchema, arrivals: Sequence[Arrival]) -> _Group:
        builder = self.builder(schema, arrivals[0].kind)
        shares: list[_Share] = []
        records: dict[bool, list[Any]] = {True: [], False: []}
        places: dict[bool, list[NDArray[np.int64]]] = {True: [], False: []}
        tables: dict[pa.Schema, list[tuple[pa.Table, NDArray[np.int64]]]] = defaultdict(list)
        first = 0
        for arrival in arrivals:
            parsed = arrival.parsed
            if parsed is None:
                continue
            for found, rows, plain in parsed.blocks:
                records[plain] += found
                places[plain].append(rows + first)
            for table, rows in parsed.tables:
                tables[table.schema].append((table, rows + first))
            for rows, code, pointer, detail in parsed.refusals:
                builder.refuse(rows + first, code, pointer, detail)
            shares.append(_Share(arrival, first, parsed.size))
            first += parsed.size
        for alike in tables.values():
            rows = np.concatenate([rows for _, rows in alike])
            builder.add_table(pa.concat_tables([table for table, _ in alike]), rows, textual=False)
        for plain, found in records.items():
            if found:
                builder.add_records(found, np.concatenate(places[plain]), plain=plain)
        built = builder.finish(first)
        return _Group(built, shares, payloads(built))

    # --- one transaction ----------------------------------------------------------------------------------------------

    def _claim(self, session: Session, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Return the arrivals that were not answered before; leave the saved answer with the others."""
        fresh = []
        for arrival in arrivals:
            if arrival.idempotency_key is None:
                fresh.append(arrival)
                continue
            claim = {
                "route": arrival.route,
                "idempotency_key": arrival.idempotency_key,
                "fingerprint": arrival.fingerprint,
                "created_at": self._clock.now(),
            }
            dialect: Any = insert_sqlite if self._database.is_sqlite else insert_postgresql
            made: Any = session.execute(dialect(IngestRequestRow).values(**claim).on_conflict_do_nothing())
            if made.rowcount:
                fresh.append(arrival)
                continue
            known = session.execute(
                select(IngestRequestRow.fingerprint, IngestRequestRow.status, IngestRequestRow.answer).where(
                    IngestRequestRow.route == arrival.route,
                    IngestRequestRow.idempotency_key == arrival.idempotency_key,
                )
            ).one()
            if known.fingerprint != arrival.fingerprint:
                arrival.outcome = KeyReused("the Idempotency-Key was used for another body")
            elif known.status is None:
                arrival.outcome = Conflict("the request with this Idempotency-Key is still running", headers=RETRY)
            else:
                arrival.outcome = Answer(known.status, known.answer or b"", replayed=True)
        return fresh

    def _answer_claims(
        self, session: Session, claimed: Iterable[Arrival], outcomes: Sequence[tuple[Arrival, Answer]]
    ) -> None:
        """Keep the answers of requests with a key, and give back the keys of those that got none."""
        answered = {arrival.batch for arrival, _ in outcomes}
        for arrival in claimed:
            if arrival.idempotency_key is not None and arrival.batch not in answered:
                session.execute(
                    delete(IngestRequestRow).where(
                        IngestRequestRow.route == arrival.route,
                        IngestRequestRow.idempotency_key == arrival.idempotency_key,
                    )
                )
        for arrival, answer in outcomes:
            if arrival.idempotency_key is not None:
                session.execute(
                    update(IngestRequestRow)
                    .where(
                        IngestRequestRow.route == arrival.route,
                        IngestRequestRow.idempotency_key == arrival.idempotency_key,
                    )
                    .values(
                        status=answer.status,
                        answer=answer.body,
                        model_id=self._schemas[arrival.model][1].id,
                    )
                )

    def _purge(self, session: Session) -> None:
        """Forget answers older than a day, once an hour."""
        now = self._clock.now()
        if self._purged_at is None or now - self._purged_at > timedelta(hours=1):
            session.execute(delete(IngestRequestRow).where(IngestRequestRow.created_at < now - KEPT_REQUESTS))
            self._purged_at = now

    def _store(self, session: Session, group: _Group) -> list[tuple[Arrival, Answer]]:
        built = group.built
        refused = sum(len(refusal.rows) for refusal in built.refusals)
        if refused and any(share.arrival.strict for share in group.shares):
            return [(share.arrival, _answer(built, share, _Visible.none(built), strict=True)) for share in group.shares]
        versions = self._make_versions(session, built)
        buffered = self._buffer(session, built.schema.id)
        visible = self._visible(session, built, versions, buffered)
        now = from_microseconds(_received(built)) if built.parts else self._clock.now()
        connection, places = session.connection(), iter(group.places or ())
        for part, payload in zip(built.parts, group.payloads, strict=True):
            place = None if payload else next(places)
            row = (
                built.schema.id,
                part.kind,
                part.table.num_rows,
                len(payload) if place is None else place.size,
                payload,
                None if place is None else place.file,
                0 if place is None else place.start,
                part.hashes.astype("<u8", copy=False).tobytes() if place is None else b"",
                microseconds(now),
                *_event_span(part),
            )
            key = connection.exec_driver_sql(self._insert_batch, row).scalar_one()
            buffered.batches[int(key), microseconds(now)] = part.table.num_rows
        if refused:
            self._count_refused(session, group, now)
        if built.faults:
            _count_bad(session, built, versions)
        return [(share.arrival, _answer(built, share, visible)) for share in group.shares]

    def _make_versions(self, session: Session, built: Built) -> dict[str, int]:
        """Make the versions and features that records name for the first time; return the ids of all versions."""
        schema = built.schema
        versions = {name: version.id for name, version in schema.versions.items()}
        named = [part.version for part in built.parts if part.kind == PREDICTIONS and part.version is not None]
        fresh = [name for name in dict.fromkeys(named) if name not in versions]
        if not fresh and not built.new_features:
            return versions
        now = self._clock.now()
        known = dict(schema.versions)
        for name in fresh:
            version = VersionRow(
                model_id=schema.id, name=name, registered=False, created_at=now, last_arrival_at=now, details={}
            )
            session.add(version)
            session.flush()
            versions[name] = version.id
            if schema.active is not None and schema.active in schema.versions:
                _copy_features(session, schema.versions[schema.active].id, version.id)
            known[name] = VersionSchema(version.id, schema.features(name))
        for name, features in built.new_features.items():
            if name not in versions:
                continue  # all its records were refused
            _add_features(session, versions[name], features, len(known[name].features), now)
            known[name] = VersionSchema(versions[name], {**known[name].features, **features})
        active = schema.active
        if active is None and versions:
            active = next(iter(versions))
            session.execute(update(ModelRow).where(ModelRow.id == schema.id).values(active_version_id=versions[active]))
        self._schemas[schema.name] = (time.monotonic(), replace(schema, versions=known, active=active))
        return versions

    def _visible(self, session: Session, built: Built, versions: Mapping[str, int], buffered: _Buffered) -> "_Visible":
        """Return per row what can be seen now: repeats in the body, in the buffer and in the index."""
        visible = _Visible.none(built)
        for part in built.parts:
            version = _owner(versions, part.version)
            if part.kind == PREDICTIONS:
                found = buffered.predictions.add(part.hashes, version)
                sealed = self._sealed(session, built.schema.id, part, found == NEW, version)
                visible.duplicate[part.rows[(found != NEW) | sealed]] = True
            elif part.kind == GROUND_TRUTH:
                found = buffered.labels.add(part.hashes, version, self._label_hashes(part.table))
                if built.kind == GROUND_TRUTH:
                    visible.duplicate[part.rows[found == SAME]] = True
                    visible.corrected[part.rows[found == OTHER]] = True
                    known = buffered.predictions.known(part.hashes, version or None)
                    known |= self._sealed(session, built.schema.id, part, ~known, version or None)
                    visible.waiting[part.rows[~known]] = True
        return visible

    def _sealed(
        self, session: Session, model_id: int, part: Part, asked: NDArray[np.bool_], version: int | None
    ) -> NDArray[np.bool_]:
        """Return which of the rows asked for have their id in the index, under one version or under any."""
        sealed = np.zeros(len(part.hashes), np.bool_)
        at = np.flatnonzero(asked & ~part.anonymous)
        if self.index is None or not len(at):
            return sealed
        runs = self._runs.get(model_id)
        if runs is None:
            runs = self._runs[model_id] = self.index.runs(session, model_id)
        if not runs:
            return sealed
        entries = self.index.search(runs, part.hashes[at])
        if len(entries):
            hashes = entries["hash"] if version is None else entries["hash"][entries["version"] == version]
            sealed[at] = np.isin(part.hashes[at], hashes)
        return sealed

    def _count_refused(self, session: Session, group: _Group, now: datetime) -> None:
        """Count refused records by reason in the hour of their arrival and keep the newest for the page."""
        schema, kind = group.built.schema, group.built.kind
        reasons: Counter[str] = Counter()
        rows: list[dict[str, Any]] = []
        starts = np.array([share.first for share in group.shares])
        for refusal in group.built.refusals:
            reasons[refusal.code] += len(refusal.rows)
            for row in refusal.rows[: KEPT_REJECTIONS - len(rows)].tolist():
                share = group.shares[int(np.searchsorted(starts, row, side="right")) - 1]
                rows.append(
                    {
                        "model_id": schema.id,
                        "kind": kind,
                        "batch": share.arrival.batch,
                        "position": row - share.first,
                        "code": refusal.code,
                        "pointer": refusal.pointer,
                        "detail": refusal.detail,
                        "received_at": now,
                    }
                )
        session.execute(insert(RejectionRow), rows)
        newest = select(RejectionRow.id).where(RejectionRow.model_id == schema.id).order_by(RejectionRow.id.desc())
        oldest = session.scalar(newest.offset(KEPT_REJECTIONS - 1).limit(1))
        if oldest is not None:
            session.execute(delete(RejectionRow).where(RejectionRow.model_id == schema.id, RejectionRow.id < oldest))
        count_refused(session, schema.id, kind, now, reasons)


_BATCH = (
    "model_id",
    "kind",
    "rows",
    "size",
    "payload",
    "file",
    "start",
    "hashes",
    "received_at",
    "first_event_us",
    "last_event_us",
)


def _insertion(database: Database) -> str:
    """Return the statement that adds a batch to the buffer, for the driver: it is always the same."""
    mark = "?" if database.is_sqlite else "%s"
    return (
        f"INSERT INTO {IngestBatchRow.__tablename__} ({', '.join(_BATCH)}) "  # noqa: S608 - names of our own columns
        f"VALUES ({', '.join([mark] * len(_BATCH))}) RETURNING id"
    )


class KeyReused(Unprocessable):
    """An Idempotency-Key came again with another body."""

    title = "The Idempotency-Key belongs to another request"


@dataclass(slots=True)
class _Visible:
    """Per row of what was sent."""

    duplicate: NDArray[np.bool_]
    corrected: NDArray[np.bool_]
    waiting: NDArray[np.bool_]

    @classmethod
    def none(cls, built: Built) -> "_Visible":
        return cls(*(np.zeros(built.count, np.bool_) for _ in range(3)))


def count_refused(session: Session, model_id: int, kind: str, now: datetime, reasons: Mapping[str, int]) -> None:
    """Add refused records, by reason, to the arrivals of this hour."""
    place = {"model_id": model_id, "version_id": 0, "kind": kind, "bucket": bucket_of(now)}
    row = _arrivals(session, place)
    row.rejected = (row.rejected or 0) + sum(reasons.values())
    row.reasons = dict(Counter(row.reasons or {}) + Counter(reasons))
    session.flush()


def _count_bad(session: Session, built: Built, versions: Mapping[str, int]) -> None:
    """Add values that are missing although they were sent to the arrivals of their records' hours, by kind."""
    by_place: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    for part in built.parts:
        if part.kind != PREDICTIONS:
            continue
        moments = np.concatenate([chunk.cast(pa.int64()).to_numpy() for chunk in part.table["timestamp"].chunks])
        for fault in built.faults:
            hit = np.isin(part.rows, fault.rows)
            for bucket, number in zip(*np.unique(moments[hit] // 3_600_000_000, return_counts=True), strict=True):
                by_place[versions.get(part.version or "", 0), int(bucket)][fault.code] += int(number)
    for (version, bucket), codes in by_place.items():
        place = {"model_id": built.schema.id, "version_id": version, "kind": PREDICTIONS, "bucket": bucket}
        row = _arrivals(session, place)
        row.reasons = dict(Counter(row.reasons or {}) + codes)
    session.flush()


def _arrivals(session: Session, place: Mapping[str, Any]) -> ArrivalRow:
    row = session.scalar(select(ArrivalRow).filter_by(**place).with_for_update())
    if row is None:
        row = ArrivalRow(**place, rejected=0, reasons={})
        session.add(row)
    return row


def _copy_features(session: Session, source: int, target: int) -> None:
    """Let a version that records made start with the schema of the active one."""
    copied = [column for column in FeatureRow.__table__.columns if column.name not in ("id", "version_id")]
    chosen = select(literal(target), *copied).where(FeatureRow.version_id == source)
    session.execute(insert(FeatureRow).from_select(["version_id", *(column.name for column in copied)], chosen))


def _add_features(session: Session, version: int, features: Mapping[str, Feature], first: int, now: datetime) -> None:
    if features:
        session.execute(
            insert(FeatureRow),
            [
                {
                    "version_id": version,
                    "name": name,
                    "type": feature.type,
                    "status": "new",
                    "store": feature.store,
                    "required": False,
                    "position": first + number,
                    "first_seen_at": now,
                }
                for number, (name, feature) in enumerate(features.items())
            ],
        )


def _owner(versions: Mapping[str, int], name: str | None) -> int:
    """Return the id of a version; 0 for none, and a number that is no id for one that nobody knows."""
    return 0 if name is None else versions.get(name, -2 - crc32(name.encode()))


def payloads(built: Built) -> list[bytes]:
    """Return the bytes that the database stores of each part; none of one that goes into a file."""
    return [encode(part.table) if part.table.nbytes < LARGE else b"" for part in built.parts]


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    return np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False))


def _received(built: Built) -> int:
    return int(built.parts[0].table["received_at"][0].value)


def _event_span(part: Part) -> tuple[int, int]:
    moments = np.concatenate([chunk.cast(pa.int64()).to_numpy() for chunk in part.table["timestamp"].chunks])
    return int(moments.min()), int(moments.max())


def _answer(built: Built, share: _Share, visible: _Visible, *, strict: bool = False) -> Answer:
    """Return one request's answer: its share of the rows of a group."""
    first, last = share.first, share.first + share.count
    alone = share.count == built.count
    refused = 0
    listed: list[dict[str, Any]] = []
    by_code: Counter[str] = Counter()
    for refusal in built.refusals:
        rows = refusal.rows if alone else _within(refusal, first, last)
        if len(rows):
            refused += len(rows)
            by_code[refusal.code] += len(rows)
            listed += [
                {"index": row - first, "code": refusal.code, "pointer": refusal.pointer, "detail": refusal.detail}
                for row in rows[:LISTED].tolist()
            ]
    bad: Counter[str] = Counter()
    for fault in (*built.faults, *built.remarks):
        rows = fault.rows if alone else fault.rows[(fault.rows >= first) & (fault.rows < last)]
        if len(rows):
            bad[fault.code] += len(rows)
    if share.arrival.parsed is not None:
        bad.update(share.arrival.parsed.counted)
    if alone:
        bad.update(built.counted)
    duplicates = int(np.count_nonzero(visible.duplicate[first:last]))
    accepted = 0 if strict else share.count - refused - duplicates
    listed.sort(key=lambda entry: entry["index"])
    document: dict[str, Any] = {
        "accepted": accepted,
        "duplicates": duplicates,
        "rejected_count": refused,
        "rejected": listed[:LISTED],
        "rejected_by_code": by_code,
        "bad_values": bad,
        "batch_id": share.arrival.batch,
    }
    if built.kind == GROUND_TRUTH:
        document["corrected"] = int(np.count_nonzero(visible.corrected[first:last]))
        document["waiting"] = int(np.count_nonzero(visible.waiting[first:last]))
    nothing = accepted == 0 and duplicates < share.count
    return Answer(422 if nothing else 200, msgspec.json.encode(document))


def _within(refusal: Refusal, first: int, last: int) -> NDArray[np.int64]:
    return refusal.rows[(refusal.rows >= first) & (refusal.rows < last)]


def _fail(arrivals: Iterable[Arrival], problem: Problem) -> None:
    for arrival in arrivals:
        if arrival.outcome is None or isinstance(arrival.outcome, Answer):
            arrival.outcome = problem


def _problem_of(failed: sqlalchemy.exc.DBAPIError | OSError) -> Problem:
    """Return what a caller is told: the disk is full, or the database does not answer now."""
    told = "the database does not answer; nothing of this request was stored"
    return failure_of(failed) or Unavailable(told, headers=RETRY)


def _resolve(arrivals: Iterable[Arrival]) -> None:
    """Let the waiting requests have their answers, each in its own event loop."""
    loops: dict[AbstractEventLoop, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        if arrival.loop is not None and arrival.future is not None:
            loops[arrival.loop].append(arrival)
    for loop, ready in loops.items():
        try:
            loop.call_soon_threadsafe(_set_all, ready)
        except RuntimeError:
            continue  # the loop has ended, and with it whoever waited


def _set_all(arrivals: Iterable[Arrival]) -> None:
    for arrival in arrivals:
        future, outcome = arrival.future, arrival.outcome
        if future is None or future.done():
            continue
        try:
            if isinstance(outcome, Answer):
                future.set_result(outcome)
            else:
                future.set_exception(outcome or Problem("the records were not stored"))
        except InvalidStateError:
            continue  # whoever waited has gone
