"""What the sealer makes of the log: each prediction once, labels at their predictions, nothing lost at any kill."""

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from service.database import Database, from_microseconds
from service.ingest.buffer import BatchDamaged, Buffer
from service.ingest.hashing import hash_ids, hash_key
from service.lake import Lake, Sealer, lease, reader
from service.lake.files import Written
from service.problems import Unavailable
from service.tables import (
    ArrivalRow,
    IngestBatchRow,
    LeaseRow,
    ModelRow,
    NoticeRow,
    PendingTruthRow,
    ReplayRow,
    SegmentRow,
    VersionRow,
)
from tests.postgres import Cluster
from tests.running import PATIENCE
from tests.service.records import HOUR, MOMENT, SECRET, START, Shop, hours, join


def record(name: str, hour: float = 0.0, **more: Any) -> dict[str, Any]:
    at = START + int(hour * HOUR)
    made: dict[str, Any] = {"prediction_id": name, "version": None, "timestamp": at, "received_at": at}
    return made | {"features.age": 41.0, "prediction": "1", "score": 0.5} | more


def truth(name: str, value: str | None, at: float = 0.0, version: str | None = None) -> dict[str, Any]:
    moment = START + int(at * HOUR)
    return {
        "prediction_id": name, "version": version, "ground_truth": value, "timestamp": moment, "received_at": moment,
    }  # fmt: skip


def arrivals(shop: Shop, kind: str = "predictions", version: str = "a") -> dict[str, int]:
    names = ("accepted", "duplicates", "conflicts", "corrected", "late")
    with shop.database.reading() as session:
        row = session.execute(
            select(*(func.sum(getattr(ArrivalRow, name)) for name in names)).where(
                ArrivalRow.kind == kind, ArrivalRow.version_id == shop.version_ids.get(version, 0)
            )
        ).one()
    return {name: int(value) for name, value in zip(names, row, strict=True) if value}


def found(shop: Shop, name: str) -> list[dict[str, Any]]:
    with shop.database.reading() as session:
        return reader.prediction(session, shop.lake, session.get_one(ModelRow, shop.model_id), name)


def sealed(shop: Shop, version: str = "a", *, labels: bool = False) -> list[dict[str, Any]]:
    with shop.database.reading() as session:
        batches = reader.batches(
            session, shop.lake, shop.model_id, shop.version_ids[version], hours(-10_000, 10_000), labels=labels
        )
        return [row for batch in batches for row in batch.to_pylist()]


def test_sealed_records_leave_the_log_and_are_read_in_order_of_time(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("late", 2), record("early", 0)])
    shop.put("predictions", [record("middle", 1)])
    assert shop.seal() == 3
    assert shop.seal() == 0
    assert [row["prediction_id"] for row in sealed(shop)] == ["early", "middle", "late"]
    with shop.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(IngestBatchRow)) == 0
        version = session.get_one(VersionRow, shop.version_ids["a"])
        assert version.first_event_at == from_microseconds(START)
        assert version.last_event_at == from_microseconds(START + 2 * HOUR)
        segment = session.scalars(select(SegmentRow)).one()
        assert (segment.last_bucket - segment.first_bucket, segment.rows) == (2, 3)
        assert shop.lake.intact(segment.path, segment.checksum)


def test_files_that_the_manifest_does_not_name_are_never_read(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p")])
    shop.seal()
    with shop.database.reading() as session:
        path = shop.lake.path(session.scalars(select(SegmentRow.path)).one())
    path.with_name("torn.parquet.tmp").write_bytes(path.read_bytes()[:100])
    path.with_name("whole.parquet").write_bytes(path.read_bytes())
    shop.put("predictions", [record("q", 1)])
    shop.seal()
    assert [row["prediction_id"] for row in sealed(shop)] == ["p", "q"]


def test_batches_in_a_file_are_found_sealed_and_their_file_kept_for_an_hour(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    columns = {"timestamp": pa.array([START] * 3, MOMENT), "received_at": pa.array([START] * 3, MOMENT)}
    tables = []
    for names in (["a", "b", "c"], ["d", "e", "a"]):
        ids = pa.array(names)
        hashes = pa.array(hash_ids(ids, hash_key(SECRET)))
        tables.append(pa.table(columns | {"prediction_id": ids, "id_hash": hashes, "version": ["a"] * 3}))
    file = shop.lake.path(shop.put_file("predictions", tables, START))
    with shop.database.reading() as session:
        model = session.scalars(select(ModelRow)).one()
        assert [row["state"] for row in reader.prediction(session, shop.lake, model, "e")] == ["buffered"]
    assert shop.sealer.sweep() == 0
    assert shop.seal() == 6
    with shop.database.reading() as session:
        assert [row["state"] for row in reader.prediction(session, shop.lake, model, "e")] == ["sealed"]
        assert session.scalar(select(func.sum(ArrivalRow.duplicates))) == 1
    assert shop.sealer.sweep() == 0
    os.utime(file, (file.stat().st_mtime - 3_700,) * 2)
    assert shop.sealer.sweep() == 1
    assert not file.exists()


def test_a_missing_file_of_the_buffer_holds_up_no_other_and_is_told(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    ids = pa.array(["a"])
    hashes = pa.array(hash_ids(ids, hash_key(SECRET)))
    moments = pa.array([START], MOMENT)
    table = pa.table({"prediction_id": ids, "id_hash": hashes, "timestamp": moments, "received_at": moments})
    shop.lake.path(shop.put_file("predictions", [table], START)).unlink()
    shop.put_file("predictions", [table.set_column(0, "prediction_id", pa.array(["b"]))], START)
    shop.seal()
    shop.seal()
    with shop.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(IngestBatchRow)) == 0
        (notice,) = session.scalars(select(NoticeRow))
    assert notice.sentence.startswith("1 records (predictions) that came by")
    assert "buffer/" in notice.sentence


def test_a_flipped_byte_in_a_file_of_the_buffer_sets_that_batch_aside_and_the_others_are_sealed(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    tables = []
    for name in "ab":
        ids = pa.array([f"{name}{number}" for number in range(200)])
        hashes = pa.array(hash_ids(ids, hash_key(SECRET)))
        moments = pa.array([START] * 200, MOMENT)
        columns = {"prediction_id": ids, "id_hash": hashes, "timestamp": moments, "received_at": moments}
        tables.append(pa.table(columns | {"version": ["a"] * 200, "features.age": np.arange(200.0)}))
    file = shop.lake.path(shop.put_file("predictions", tables, START))
    with shop.database.reading() as session:
        _first, second = session.scalars(select(IngestBatchRow.start).order_by(IngestBatchRow.start))
    whole, buffer, random = file.read_bytes(), Buffer(shop.lake.root), np.random.default_rng(4)
    with shop.database.reading() as session:
        size = session.scalars(select(IngestBatchRow.size).where(IngestBatchRow.start == second)).one()
    for place in [*random.integers(second, second + size, 100).tolist(), second + size - 1]:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(BatchDamaged):
            buffer.rows(b"", f"buffer/{file.name}", second)
    while shop.seal():
        pass
    shop.seal()
    assert {row["prediction_id"] for row in sealed(shop)} == {f"a{number}" for number in range(200)}
    with shop.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(IngestBatchRow)) == 0
        (notice,) = session.scalars(select(NoticeRow))
    assert "200 records (predictions)" in notice.sentence
    assert f"are lost: buffer/{file.name}" in notice.sentence
    assert [path.name for path in (shop.lake.root / "quarantine").iterdir()] == [f"buffer-{file.name}"]


def test_an_id_counts_once_per_version_the_first_committed(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p", 0), record("p", 5), record("p", 1, prediction="0")])
    shop.put("predictions", [record("p", 2), record("p", 0, version="b")])
    shop.seal()
    assert arrivals(shop) == {"accepted": 1, "duplicates": 2, "conflicts": 1}
    assert arrivals(shop, version="b") == {"accepted": 1}
    shop.put("predictions", [record("p", 9), record("p", 9, score=0.75), record("q", 9)])
    shop.seal()
    assert arrivals(shop) == {"accepted": 2, "duplicates": 3, "conflicts": 2}
    assert [(row["prediction_id"], row["timestamp"]) for row in sealed(shop)] == [
        ("p", from_microseconds(START)),
        ("q", from_microseconds(START + 9 * HOUR)),
    ]


def test_the_same_record_in_other_columns_is_a_duplicate(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    first = record("p") | {"features.job": "clerk", "features.new": None}
    shop.put("predictions", [first])
    shop.seal()
    del first["features.new"]
    shop.put("predictions", [dict(reversed(first.items()))])
    shop.seal()
    assert arrivals(shop) == {"accepted": 1, "duplicates": 1}


def test_ids_that_share_a_hash_are_told_apart_by_their_text(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")

    def collide(name: str, kind: str, value: dict[str, Any]) -> None:
        table = pa.Table.from_pylist([value])
        for column in ("timestamp", "received_at"):
            at = table.schema.get_field_index(column)
            table = table.set_column(at, column, table[column].cast(pa.timestamp("us", tz="UTC")))
        table = table.append_column("id_hash", pa.array([7], pa.uint64()))
        shop.put_table(kind, table, START)

    for name in ("p", "q"):
        collide(name, "predictions", record(name, version="a"))
    shop.seal()
    collide("r", "predictions", record("r", 1, version="a"))
    collide("p", "predictions", record("p", 1, version="a"))
    collide("q", "ground_truth", truth("q", "0", version="a"))
    collide("r", "ground_truth", truth("r", "1", version="a"))
    shop.seal()
    assert arrivals(shop) == {"accepted": 3, "duplicates": 1}
    labels = {row["prediction_id"]: row["ground_truth"] for row in sealed(shop, labels=True)}
    assert labels == {"p": None, "q": "0", "r": "1"}


def test_a_label_before_its_prediction_waits_and_is_joined(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("ground_truth", [truth("p", "1"), truth("p", "1"), truth("never", "0")])
    shop.seal()
    assert found(shop, "p") == [
        {
            "prediction_id": "p", "version": None, "state": "waiting", "ground_truth": "1",
            "ground_truth_timestamp": "2026-01-05T00:00:00Z",
        }
    ]  # fmt: skip
    shop.put("predictions", [record("p", 7)])
    assert [(row["state"], row["ground_truth"]) for row in found(shop, "p")] == [("buffered", "1")]
    shop.seal()
    assert [(row["state"], row["ground_truth"]) for row in found(shop, "p")] == [("sealed", "1")]
    assert [row["ground_truth"] for row in sealed(shop, labels=True)] == ["1"]
    with shop.database.reading() as session:
        assert session.scalars(select(PendingTruthRow.prediction_id)).all() == ["never"]
    assert arrivals(shop, "ground_truth") == {"accepted": 1}
    assert arrivals(shop, "ground_truth", "") == {"duplicates": 1}


def test_the_newest_label_counts_and_a_withdrawn_one_is_none(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p"), record("q")])
    shop.put("ground_truth", [truth("p", "0", 1), truth("q", "0", 1)])
    shop.seal()
    shop.put("ground_truth", [truth("p", "1", 3), truth("p", "0", 2), truth("q", "0", 1), truth("q", None, 2)])
    shop.seal()
    assert {row["prediction_id"]: row["ground_truth"] for row in sealed(shop, labels=True)} == {"p": "1", "q": None}
    # p: 1 corrects 0, the older 0 says something else than 1 does; q: the same again, then withdrawn
    assert arrivals(shop, "ground_truth") == {"accepted": 2, "duplicates": 1, "corrected": 3}
    shop.put("ground_truth", [truth("p", "0", 3)])  # of the same time, but later
    shop.seal()
    assert found(shop, "p")[0]["ground_truth"] == "0"


def test_a_repeated_label_of_a_newer_time_stands_against_an_older_correction(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p")])
    for label in (truth("p", "1", 1), truth("p", "1", 5), truth("p", "0", 3)):
        shop.put("ground_truth", [label])
        shop.seal()
    assert [row["ground_truth"] for row in sealed(shop, labels=True)] == ["1"]


def test_one_label_reaches_all_versions_also_those_that_predict_later(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p")])
    shop.put("ground_truth", [truth("p", "1", 1), truth("p", "0", 2, "a"), truth("p", "0", 9, "c")])
    shop.seal()
    shop.put("predictions", [record("p", 30, version="b")])
    shop.seal()
    assert [row["ground_truth"] for row in sealed(shop, "a", labels=True)] == ["0"]
    assert [row["ground_truth"] for row in sealed(shop, "b", labels=True)] == ["1"]
    assert {row["version"]: row.get("ground_truth") for row in found(shop, "p")} == {"a": "0", "b": "1", "c": "0"}


def test_a_label_for_all_versions_is_kept_beside_the_same_one_for_this_version(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p")])
    shop.put("ground_truth", [truth("p", "1", 1, "a")])
    shop.seal()
    shop.put("ground_truth", [truth("p", "1", 1)])
    shop.seal()
    shop.put("predictions", [record("p", 30, version="b")])
    shop.seal()
    assert {row["version"]: row["ground_truth"] for row in found(shop, "p")} == {"a": "1", "b": "1"}
    assert arrivals(shop, "ground_truth") == {"accepted": 1, "duplicates": 1}


def test_protected_attributes_go_the_same_way_into_segments_of_their_own(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    told = {
        "prediction_id": "p",
        "version": None,
        "attributes": '{"sex":"F"}',
        "timestamp": START,
        "received_at": START,
    }
    shop.put("protected", [told])
    shop.seal()
    shop.put("predictions", [record("p", 3)])
    shop.seal()
    with shop.database.reading() as session:
        segments = {row.kind: row for row in session.scalars(select(SegmentRow))}
        assert set(segments) == {"predictions", "protected"}
        table = shop.lake.read_table(segments["protected"].path)
    assert table["attributes"].to_pylist() == ['{"sex":"F"}']
    assert "attributes" not in sealed(shop)[0]


def test_a_version_that_nobody_registered_is_made(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p", version="unheard-of")])
    shop.seal()
    with shop.database.reading() as session:
        row = session.scalars(select(VersionRow).where(VersionRow.name == "unheard-of")).one()
        assert (row.registered, row.last_event_at) == (False, from_microseconds(START))


def test_columns_may_differ_from_batch_to_batch_and_change_their_type(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p", 0) | {"features.code": 7.0}])
    shop.put("predictions", [record("q", 1) | {"features.code": "7b", "features.extra": True}])
    shop.seal()
    assert [row["features.code"] for row in sealed(shop)] == ["7", "7b"]
    assert found(shop, "q")[0]["features"] == {"age": 41.0, "code": "7b", "extra": True}
    assert found(shop, "p")[0]["features"]["extra"] is None


def test_rows_after_the_lateness_are_late_unless_history_is_replayed(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    now = START + 100 * HOUR
    shop.put("predictions", [record("p", 97, received_at=now), record("q", 98.5, received_at=now)])
    shop.seal()
    assert arrivals(shop) == {"accepted": 2, "late": 1}  # the hour of p ended at 98 and was waited for until 99
    with shop.database.writing() as session:
        session.add(
            ReplayRow(
                uid="1" * 32, model_id=shop.model_id, starts_at=from_microseconds(START),
                ends_at=from_microseconds(now), opened_at=from_microseconds(now),
            )
        )  # fmt: skip
    shop.put("predictions", [record("r", 5, received_at=now + 5)])
    shop.seal()
    assert arrivals(shop) == {"accepted": 3, "late": 1}


def test_a_model_is_due_by_rows_by_age_and_soon_while_replayed(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.clock.at = from_microseconds(START)
    shop.put("predictions", [record("p")])
    assert shop.sealer.due() == []
    shop.clock.move(timedelta(seconds=599))
    assert shop.sealer.due() == []
    shop.clock.move(timedelta(seconds=1))
    assert shop.sealer.due() == [shop.model_id]
    assert shop.sealer.seal_due() == 1
    few = Sealer(shop.database, shop.lake, shop.clock, shop.settings.model_copy(update={"seal_rows": 2}))
    shop.put("predictions", [record(f"r{i}", received_at=START + 600_000_000) for i in range(2)])
    assert (shop.sealer.due(), few.due()) == ([], [shop.model_id])


class FilledWhileItWrites(Lake):
    """A lake into which records come at least as fast as they are written to it."""

    shop: Shop | None = None
    written = 0

    def write_segment(self, *arguments: Any, **how: Any) -> Written:
        """Write a segment, and acknowledge a record and a label meanwhile."""
        self.written += 1
        assert self.shop is not None
        assert self.written < 20, "sealing goes on for as long as records come"
        self.shop.put("predictions", [record(f"later-{self.written}")])
        self.shop.put("ground_truth", [truth(f"later-{self.written}", "1")])
        return super().write_segment(*arguments, **how)


def test_who_asks_for_what_is_buffered_does_not_wait_for_what_comes_meanwhile(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    lake = FilledWhileItWrites(shop.settings.lake, SECRET)
    lake.shop = shop
    shop.put("predictions", [record(f"p{i}") for i in range(5)])
    shop.put("ground_truth", [truth("p0", "1")])
    Sealer(shop.database, lake, shop.clock, shop.settings).seal(shop.model_id)
    assert {row["prediction_id"] for row in sealed(shop)} >= {f"p{i}" for i in range(5)}
    assert {row["prediction_id"] for row in sealed(shop, labels=True) if row["ground_truth"] is not None} >= {"p0"}
    shop.seal()  # whoever asks now has the rest too
    assert {f"later-{number}" for number in range(1, lake.written + 1)} <= {
        row["prediction_id"] for row in sealed(shop, labels=True) if row["ground_truth"] is not None
    }


def test_who_waits_for_the_turn_waits_no_longer_than_until_what_was_asked_for_is_sealed(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.put("predictions", [record("p0")])
    held = lease.take(shop.database, f"seal:{shop.model_id}", 10 * PATIENCE)
    assert held is not None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(Sealer(shop.database, shop.lake, shop.clock, shop.settings).seal, shop.model_id)
        assert not wait([waiting], 0.2).done
        assert shop.sealer._seal(shop.model_id, held, newest=1) == 1
        assert waiting.result(PATIENCE) == 0  # although the lease is held


def test_who_lost_the_lease_stores_nothing(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p")])
    mine = lease.take(shop.database, f"seal:{shop.model_id}")
    assert mine is not None
    assert lease.take(shop.database, f"seal:{shop.model_id}") is None
    with shop.database.writing() as session:
        session.get_one(LeaseRow, mine.name).token += 1
    with pytest.raises(lease.LeaseLost):
        shop.sealer._round(shop.model_id, "predictions", mine, newest=1)
    with shop.database.reading() as session:
        assert session.scalars(select(SegmentRow)).all() == []
        assert session.scalar(select(func.count()).select_from(IngestBatchRow)) == 1


def take_and_end(url: str) -> None:
    """Take the lease and end with it."""
    assert lease.take(Database(url), "work") is not None


def test_the_lease_of_a_dead_process_is_free_at_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.database.close()
    process = multiprocessing.get_context("fork").Process(target=take_and_end, args=(shop.settings.database,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert lease.take(shop.database, "work") is not None


def test_a_lease_that_could_not_be_given_back_is_free_to_its_own_process_at_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    mine = lease.take(shop.database, "work")
    assert mine is not None
    with shop.database.writing() as session:
        full = "CREATE TRIGGER full BEFORE UPDATE ON lease BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        session.execute(text(full))
    with pytest.raises(IntegrityError, match="full"):
        mine.release(shop.database)
    with shop.database.writing() as session:
        session.execute(text("DROP TRIGGER full"))
    again = lease.take(shop.database, "work")
    assert again is not None
    assert again.token == mine.token + 1


def test_a_page_begins_where_the_one_before_ended(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record(f"p{i}", i // 3) for i in range(10)])
    shop.seal()
    shop.put("predictions", [record(f"q{i}", i // 2) for i in range(10)])
    shop.put("ground_truth", [truth("q1", "0")])
    shop.seal()
    seen: list[str] = []
    cursor: str | None = None
    with shop.database.reading() as session:
        model, version = session.get_one(ModelRow, shop.model_id), session.get_one(VersionRow, shop.version_ids["a"])
        while True:
            page, cursor = reader.rows(session, shop.lake, model, version, hours(0, 5), limit=3, cursor=cursor)
            seen += [row["prediction_id"] for row in page]
            assert all(row.get("ground_truth") == ("0" if row["prediction_id"] == "q1" else None) for row in page)
            if cursor is None:
                break
    assert len(seen) == 20
    assert set(seen) == {f"{letter}{i}" for letter in "pq" for i in range(10)}


def in_order(shop: Shop) -> list[dict[str, Any]]:
    return sorted(sealed(shop, labels=True), key=lambda row: str(row["prediction_id"]))


def test_compaction_leaves_rows_labels_and_profiles_as_they_were(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    for turn in range(6):
        shop.put("predictions", [record(f"p{turn}-{i}", 4 * i + turn / 10, score=i / 10) for i in range(12)])
        shop.put("ground_truth", [truth(f"p{turn}-{i}", str(turn % 2), turn) for i in range(3)])
        shop.put("ground_truth", [truth("p0-0", str((turn + 1) % 2), 9)])
        shop.seal()
    before = in_order(shop)
    assert shop.sealer.compact(shop.model_id) == 0  # just sealed
    shop.clock.move(timedelta(hours=2))
    assert shop.sealer.compact(shop.model_id) == 12
    assert shop.sealer.compact(shop.model_id) == 0
    assert in_order(shop) == before
    assert [row["ground_truth"] for row in found(shop, "p0-0")] == ["0"]
    with shop.database.reading() as session:
        segments = session.scalars(select(SegmentRow)).all()
    assert sorted((row.kind, row.rows, row.compacted) for row in segments) == [
        ("ground_truth", 24, True),
        ("predictions", 72, True),
    ]
    shop.put("predictions", [record("p3-3", 12), record("new", 13)])
    shop.seal()
    assert arrivals(shop) == {"accepted": 73, "conflicts": 1}
    assert shop.sealer.tidy() == 0
    assert len(list(shop.lake.root.rglob("*.parquet"))) == 15  # the replaced ones are kept for a day


def test_a_damaged_segment_does_not_keep_new_records_out(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p"), record("q")])
    shop.seal()
    with shop.database.reading() as session:
        path = shop.lake.path(session.scalars(select(SegmentRow.path)).one())
    path.write_bytes(path.read_bytes()[:-30])
    shop.put("predictions", [record("p"), record("q", prediction="0"), record("new", 1)])
    shop.seal()
    assert arrivals(shop) == {"accepted": 3, "duplicates": 1, "conflicts": 1}


def test_a_damaged_index_is_made_again_from_the_segments(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    shop.put("predictions", [record("p"), record("q", 1, version="b")])
    shop.put("ground_truth", [truth("p", "1")])
    shop.seal()
    for path in shop.lake.root.rglob("*.run"):
        path.write_bytes(path.read_bytes()[:-1])
    assert found(shop, "p") == []  # nobody is refused meanwhile
    again = Sealer(shop.database, shop.lake, shop.clock, shop.settings)
    shop.put("predictions", [record("p"), record("p", prediction="0"), record("q", 1, version="b"), record("new", 1)])
    shop.put("ground_truth", [truth("p", "1"), truth("p", "0", 1)])
    again.seal(shop.model_id)
    assert arrivals(shop) == {"accepted": 2, "duplicates": 1, "conflicts": 1}
    assert arrivals(shop, version="b") == {"accepted": 1, "duplicates": 1}
    assert arrivals(shop, "ground_truth") == {"accepted": 1, "duplicates": 1, "corrected": 1}
    assert found(shop, "p")[0]["ground_truth"] == "0"


# --- kills ------------------------------------------------------------------------------------------------------------


def write(folder: Path, url: str | None, name: str) -> None:
    """Post records and labels until killed; what was acknowledged goes into a file of its own."""
    shop = join(folder / "data", url)
    random = np.random.default_rng(abs(hash(name)) % 2**32)
    last: list[str] = []
    with (folder / f"acked-{name}").open("a", buffering=1) as acked:
        for turn in range(1_000_000):
            ids = [f"{name}-{turn}-{i}" for i in range(40)]
            if last and random.random() < 0.2:  # sent again, with a few new ones
                ids = last + ids[:5]
            at = START + int(random.integers(0, 50 * HOUR))
            shop.put(
                "predictions",
                [record(i, received_at=at) | {"timestamp": at, "features.age": float(len(i))} for i in ids],
            )
            acked.write("".join(f"{i}\n" for i in ids))
            last = ids[:20]
            time.sleep(0.003)  # SQLite's lock is not fair
            if random.random() < 0.3:
                shop.put("ground_truth", [truth(i, "1") for i in ids[:10]])


def keep_sealing(folder: Path, url: str | None, name: str) -> None:
    """Seal what comes until killed."""
    shop = join(folder / "data", url)
    while True:
        with suppress(Unavailable):
            shop.seal()
        time.sleep(0.01)


Work = Callable[[Path, str | None, str], None]


def kill_at_random(folder: Path, kills: int, seed: int, url: str | None = None) -> None:
    """Run two writers and two sealers, kill one of them at random moments, and compare what was promised and kept."""
    shop = Shop(folder / "data", url)
    random = np.random.default_rng(seed)
    shop.put("predictions", [record("first")])
    shop.seal()  # loads what is compiled, so that the processes begin at once
    shop.database.close()
    processes = multiprocessing.get_context("fork")
    running: list[tuple[Work, multiprocessing.process.BaseProcess]] = []

    def start(work: Work) -> None:
        process = processes.Process(target=work, args=(folder, url, f"{len(running)}-{time.time_ns()}"), daemon=True)
        process.start()
        running.append((work, process))

    def acknowledged() -> set[str]:
        return {name for file in folder.glob("acked-*") for name in file.read_text().split("\n")[:-1]}

    def sealed_files() -> int:
        return sum(1 for _ in (folder / "data").rglob("predictions/*.parquet"))

    for task in (write, write, keep_sealing, keep_sealing):
        start(task)
    try:
        time.sleep(0.5)
        done = 0
        # However slow the machine, the kills go on until they fell among many writes and seals.
        while done < kills or sealed_files() < kills // 4 or len(acknowledged()) <= 500:
            time.sleep(float(random.uniform(0.05, 0.3)))
            work, process = running.pop(int(random.integers(0, len(running))))
            assert process.is_alive()
            process.kill()
            process.join()
            start(work)
            done += 1
    finally:
        for _, process in running:
            process.kill()
            process.join()
    shop.seal()
    acked = acknowledged()
    with shop.database.reading() as session:
        paths = session.scalars(select(SegmentRow.path).where(SegmentRow.kind == "predictions")).all()
        assert session.scalar(select(func.count()).select_from(IngestBatchRow)) == 0
    stored = [name for path in paths for name in pq.read_table(shop.lake.path(path))["prediction_id"].to_pylist()]
    assert acked - set(stored) == set()
    assert len(stored) == len(set(stored))
    assert len(sealed(shop, labels=True)) == len(stored)


def test_nothing_acknowledged_is_lost_or_doubled_by_kills_of_writers_and_sealers(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 10, 1)


@pytest.mark.long
def test_nothing_acknowledged_is_lost_or_doubled_by_two_hundred_kills(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 200, 2)


@pytest.mark.long
@pytest.mark.postgres
def test_nothing_acknowledged_is_lost_or_doubled_by_kills_on_postgresql(tmp_path: Path) -> None:
    with Cluster.started() as cluster:
        kill_at_random(tmp_path, 10, 3, cluster.new_database("kills"))
