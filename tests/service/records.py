"""Records as the log holds them: batches put straight into the buffer, and a model to put them into."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import select

from monitors.contract import Column, Role, Type
from monitors.layout import Layout, OutcomeLayout, plan_layout
from service.clock import SetClock
from service.database import Database, from_microseconds, microseconds
from service.ingest.buffer import Buffer, Place, encode
from service.ingest.hashing import hash_ids, hash_key
from service.lake import Lake, Sealer
from service.profiles import Profiles
from service.schema import migrate
from service.settings import Settings
from service.tables import IngestBatchRow, LayoutRow, ModelRow, VersionRow
from service.words import Span, bucket_start
from tests.service.empty import copy_empty

SECRET = b"0123456789abcdef0123456789abcdef"
MOMENT = pa.timestamp("us", tz="UTC")
HOUR = 3_600_000_000
START = microseconds(datetime(2026, 1, 5, tzinfo=UTC))


@dataclass
class Shop:
    """A model with its versions, its log and its lake, in a folder of its own; the clock stands far after it all."""

    folder: Path
    url: str | None = None
    versions: Sequence[str] = ("a", "b")
    clock: SetClock = field(default_factory=lambda: SetClock(datetime(2026, 6, 1, tzinfo=UTC)))
    made: bool = False
    """Whether another process has made it all."""

    def __post_init__(self) -> None:
        """Make the database and the model where this is the first to come."""
        self.settings = Settings.model_validate(
            {"data_dir": self.folder, "database_url": self.url, "lake_url": str(self.folder / "lake")}
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.url is None and not self.made:
            copy_empty(self.folder / "plumbline.db")
        self.database = Database(self.settings.database)
        self.lake = Lake(self.settings.lake, SECRET)
        self.sealer = Sealer(self.database, self.lake, self.clock, self.settings)
        self.profiles = Profiles(self.database, self.lake, self.clock, self.settings)
        self.version_ids: dict[str, int] = {}
        if self.made:
            with self.database.reading() as session:
                self.model_id = session.scalars(select(ModelRow.id)).one()
                self.version_ids = {row.name: row.id for row in session.scalars(select(VersionRow))}
            return
        if self.url is not None:
            migrate(self.database)
        self.lake.adopt(self.database)
        with self.database.writing() as session:
            model = ModelRow(
                uid="0" * 32,
                name="shop",
                task="binary",
                alarm_budget={},
                created_at=self.clock.now(),
                classes=["0", "1"],
                positive_class="1",
            )
            session.add(model)
            session.flush()
            self.model_id = model.id
            for name in self.versions:
                version = VersionRow(model_id=model.id, name=name, created_at=self.clock.now())
                session.add(version)
                session.flush()
                self.version_ids[name] = version.id
            model.active_version_id = self.version_ids[self.versions[0]]

    def put(
        self, kind: str, records: Sequence[Mapping[str, Any]], kinds: Mapping[str, pa.DataType] | None = None
    ) -> None:
        """Acknowledge records: flat columns, ``timestamp`` and ``received_at`` in microseconds."""
        names = list(dict.fromkeys(name for record in records for name in record))
        columns: dict[str, pa.Array] = {}
        for name in names:
            values = [record.get(name) for record in records]
            known = {"timestamp": MOMENT, "received_at": MOMENT, "version": pa.string(), "ground_truth": pa.string()}
            columns[name] = pa.array(values, (kinds or {}).get(name) or known.get(name))
        ids = pa.array([record["prediction_id"] for record in records], pa.string())
        hashes = hash_ids(ids, hash_key(SECRET))
        columns["prediction_id"], columns["id_hash"] = ids, pa.array(hashes)
        self.put_table(kind, pa.table(columns), max(int(record["received_at"]) for record in records))

    def put_table(self, kind: str, table: pa.Table, received_us: int) -> None:
        """Acknowledge rows that are columns already."""
        self._acknowledge(kind, table, received_us, encode(table), None)

    def put_file(self, kind: str, tables: Sequence[pa.Table], received_us: int) -> str:
        """Acknowledge batches of rows that are columns already, in one file of the buffer, and return its name."""
        places = Buffer(self.lake.root).store(tables)
        for table, place in zip(tables, places, strict=True):
            self._acknowledge(kind, table, received_us, b"", place)
        return places[0].file

    def _acknowledge(self, kind: str, table: pa.Table, received_us: int, payload: bytes, place: Place | None) -> None:
        hashes = table["id_hash"].combine_chunks().to_numpy(zero_copy_only=False)
        with self.database.writing() as session:
            session.add(
                IngestBatchRow(
                    model_id=self.model_id,
                    kind=kind,
                    rows=table.num_rows,
                    size=place.size if place else len(payload),
                    payload=payload,
                    file=place and place.file,
                    start=place.start if place else 0,
                    hashes=b"" if place else hashes.astype("<u8").tobytes(),
                    received_at=from_microseconds(received_us),
                    first_event_us=None,
                    last_event_us=None,
                )
            )

    def seal(self) -> int:
        """Seal what is buffered."""
        return self.sealer.seal(self.model_id)

    def layout(self, columns: Sequence[Column], table: pa.Table, version: str = "a", number: int = 1) -> Layout:
        """Give a version a layout learnt from a table."""
        outcomes = OutcomeLayout(task="binary", classes=("0", "1"), positive_class="1")
        layout = plan_layout(table.to_batches(), columns, bins=16, outcomes=outcomes, number=number)
        with self.database.writing() as session:
            row = session.get_one(VersionRow, self.version_ids[version])
            session.add(
                LayoutRow(version_id=row.id, number=number, document=layout.encode(), created_at=self.clock.now())
            )
            row.layout = number
        return layout


COLUMNS = (
    Column(name="features.age", role=Role.FEATURE, type=Type.NUMERIC),
    Column(name="features.job", role=Role.FEATURE, type=Type.CATEGORICAL),
    Column(name="prediction", role=Role.PREDICTION, type=Type.CATEGORICAL),
    Column(name="score", role=Role.SCORE, type=Type.NUMERIC),
    Column(name="ground_truth", role=Role.GROUND_TRUTH, type=Type.CATEGORICAL),
)


def hours(first: int, last: int) -> Span:
    """Return the span from one hour to another, counted from the start of the stream."""
    begin = START // HOUR
    return Span(bucket_start(begin + first), bucket_start(begin + last))


def join(folder: Path, url: str | None = None) -> Shop:
    """Return the shop that another process made in a folder."""
    return Shop(folder, url, made=True)
