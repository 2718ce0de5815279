"""A window's row sample is the rows of the smallest hashes, from whatever days and edges it is put together."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import select

from service.lake import samples
from service.tables import SegmentRow, VersionRow
from tests.service.records import HOUR, START, Shop, hours


def posted(shop: Shop, count: int, first: int, last: int, prefix: str) -> list[str]:
    random = np.random.default_rng(count)
    moments = START + random.integers(first * HOUR, last * HOUR, count)
    names = [f"{prefix}{i}" for i in range(count)]
    shop.put(
        "predictions",
        [
            {"prediction_id": name, "version": None, "timestamp": int(at), "received_at": int(at), "subject": "x"}
            for name, at in zip(names, moments, strict=True)
        ],
    )
    shop.seal()
    return names


def drawn(shop: Shop, first: int, last: int, rows: int, *, labels: bool = False) -> pa.Table | None:
    with shop.database.reading() as session:
        version = session.get_one(VersionRow, shop.version_ids["a"])
        return shop.profiles.sample(session, version, hours(first, last), rows=rows, labels=labels)


def expected(shop: Shop, first: int, last: int, rows: int) -> list[int]:
    """Return the smallest hashes of the rows in a span, read from the files themselves."""
    with shop.database.reading() as session:
        paths = session.scalars(select(SegmentRow.path).where(SegmentRow.kind == "predictions")).all()
    table = pa.concat_tables([shop.lake.read_table(path, ["id_hash", "timestamp"]) for path in paths])
    at = table["timestamp"].cast(pa.int64()).to_numpy()
    inside = (at >= START + first * HOUR) & (at < START + last * HOUR)
    return sorted(table["id_hash"].to_numpy()[inside].tolist())[:rows]


def test_a_sample_of_days_and_edges_is_the_sample_of_the_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "ROWS", 50)
    shop = Shop(tmp_path / "data")
    posted(shop, 2000, 0, 100, "a")
    posted(shop, 30, 24, 48, "b")
    for _ in range(2):  # made, then read
        for first, last in ((0, 96), (5, 90), (24, 48), (30, 31)):
            table = drawn(shop, first, last, 50)
            assert table is not None
            assert table["id_hash"].to_pylist() == expected(shop, first, last, 50)
            assert "subject" not in table.schema.names
    assert drawn(shop, 500, 600, 50) is None


def test_late_rows_are_drawn_too_and_labels_are_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "ROWS", 20)
    shop = Shop(tmp_path / "data")
    posted(shop, 100, 0, 24, "a")
    drawn(shop, 0, 24, 20)
    names = posted(shop, 100, 0, 24, "late")
    at = {"version": None, "timestamp": START, "received_at": START, "ground_truth": "1"}
    shop.put("ground_truth", [{"prediction_id": name, **at} for name in names])
    shop.seal()
    table = drawn(shop, 0, 24, 20, labels=True)
    assert table is not None
    assert table["id_hash"].to_pylist() == expected(shop, 0, 24, 20)
    for row in table.to_pylist():
        assert row["ground_truth"] == ("1" if row["prediction_id"].startswith("late") else None)
    with shop.database.reading() as session:
        assert len(session.scalars(select(SegmentRow).where(SegmentRow.kind == "sample")).all()) == 1


def test_a_stream_is_cut_to_the_smallest_hashes_as_it_comes() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 5000, dtype=np.uint64)
    table = pa.table({"id_hash": hashes, "x": np.arange(5000.0)})
    found = samples.smallest(table.to_batches(max_chunksize=70), 25)
    assert found is not None
    assert found["id_hash"].to_pylist() == sorted(hashes.tolist())[:25]
