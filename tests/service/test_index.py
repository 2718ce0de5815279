"""The id index finds what was put into it, in however many runs it lies."""

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from service.lake import Index, Lake
from service.lake.files import SegmentDamaged
from service.lake.index import ENTRY, Entries, read_run
from service.tables import IdRunRow
from tests.service.records import HOUR, START, Shop


def entries(hashes: list[int], bucket: int = 1, version: int = 1) -> Entries:
    made = np.zeros(len(hashes), ENTRY)
    made["hash"], made["bucket"], made["version"] = hashes, bucket, version
    made["content"] = [value % 97 for value in hashes]
    return made


def test_a_run_finds_every_entry_of_a_hash_and_nothing_else(tmp_path: Path) -> None:
    index = Index(Lake(tmp_path))
    index.write("a.run", entries([2**64 - 1, 5, 7, 5, 0]))
    run = read_run(tmp_path / "a.run")
    found = run.find(np.array([0, 5, 6, 2**64 - 1], np.uint64))
    assert found["hash"].tolist() == [0, 5, 5, 2**64 - 1]
    assert found["content"].tolist() == [0, 5, 5, (2**64 - 1) % 97]
    assert run.find(np.array([], np.uint64)).size == 0


def test_an_empty_run_finds_nothing(tmp_path: Path) -> None:
    Index(Lake(tmp_path)).write("a.run", entries([]))
    assert read_run(tmp_path / "a.run").find(np.array([1], np.uint64)).size == 0


def test_merged_runs_hold_all_entries_in_order_of_hash_then_of_age(tmp_path: Path) -> None:
    index = Index(Lake(tmp_path))
    random = np.random.default_rng(1)
    parts = [entries([*random.integers(0, 2**63, 1000).tolist(), 42], bucket=number) for number in range(3)]
    for number, part in enumerate(parts):
        index.write(f"{number}.run", part)
    _, rows = index.merge("all.run", [f"{number}.run" for number in range(3)])
    run = read_run(tmp_path / "all.run")
    assert rows == len(run) == 3003
    assert np.all(run.hash[1:] >= run.hash[:-1])
    assert run.find(np.array([42], np.uint64))["bucket"].tolist() == [0, 1, 2]
    whole = np.sort(np.concatenate([part["hash"] for part in parts]))
    assert np.array_equal(run.hash, whole)


def test_merging_in_pieces_gives_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(Lake(tmp_path))
    random = np.random.default_rng(2)
    for number in range(3):
        index.write(f"{number}.run", entries(random.integers(0, 2**64, 1000, dtype=np.uint64).tolist(), number))
    index.merge("once.run", ["0.run", "1.run", "2.run"])
    monkeypatch.setattr("service.lake.index.PART", 100)
    index.merge("pieces.run", ["0.run", "1.run", "2.run"])
    assert (tmp_path / "once.run").read_bytes() == (tmp_path / "pieces.run").read_bytes()


def test_a_torn_run_is_damaged(tmp_path: Path) -> None:
    Index(Lake(tmp_path)).write("a.run", entries([1, 2, 3]))
    whole = (tmp_path / "a.run").read_bytes()
    (tmp_path / "a.run").write_bytes(whole[:-1])
    with pytest.raises(SegmentDamaged):
        read_run(tmp_path / "a.run")


def test_many_seals_leave_few_runs(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    for number in range(21):
        at = START + number * HOUR
        shop.put(
            "predictions",
            [{"prediction_id": f"p{number}", "version": None, "timestamp": at, "received_at": at, "prediction": "1"}],
        )
        shop.seal()
    with shop.database.reading() as session:
        runs = session.execute(select(IdRunRow.level, IdRunRow.rows)).all()
    # 21 in base 4 is 111: one run of 16, one of 4, one of 1
    assert sorted((level, rows) for level, rows in runs) == [(0, 1), (1, 4), (2, 16)]
