"""Files of the lake: whole or absent, the lake of this database, swept only when nobody can want them."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.database import Database
from service.lake import Lake
from service.lake.files import SegmentDamaged
from service.problems import StorageFull, Unavailable
from service.schema import migrate

TABLE = pa.table(
    {
        "prediction_id": ["a", "b", "c"],
        "features.job": ["clerk", "smith", "clerk"],
        "features.age": [1.5, None, 3.0],
        "features.age.years": [1.0, 2.0, 3.0],
    }
)


@pytest.mark.parametrize("compacted", [False, True])
def test_a_segment_is_read_as_it_was_written_and_only_the_columns_asked_for(tmp_path: Path, compacted: bool) -> None:
    lake = Lake(tmp_path)
    written = lake.write_segment(TABLE, "m/predictions/1.parquet", compacted=compacted)
    assert written.size == lake.path("m/predictions/1.parquet").stat().st_size
    assert lake.intact("m/predictions/1.parquet", written.checksum)
    found = lake.read_table("m/predictions/1.parquet")
    assert found.to_pylist() == TABLE.to_pylist()
    assert lake.read_table("m/predictions/1.parquet", ["features.age", "gone"]).schema.names == ["features.age"]


def test_columns_without_gaps_are_stored_as_such_and_come_back_under_one_schema(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    coded = pa.array(["clerk", None, "clerk"]).dictionary_encode()
    table = TABLE.append_column("features.coded", coded).append_column("features.none", pa.nulls(3))
    lake.write_segment(table, "1.parquet", compacted=True)
    stored = pq.read_schema(tmp_path / "1.parquet")
    assert {field.name: field.nullable for field in stored} == {
        "prediction_id": False, "features.job": False, "features.age": True, "features.age.years": False,
        "features.coded": True, "features.none": True,
    }  # fmt: skip
    lake.write_segment(table.slice(0, 0), "2.parquet")
    found = [lake.read_table(name) for name in ("1.parquet", "2.parquet")]
    assert all(field.nullable for part in found for field in part.schema)
    assert pa.concat_tables(found).to_pylist() == table.to_pylist()
    assert lake.read_table("1.parquet", ["features.age.years"], [0]).num_rows == 3


def test_only_text_that_repeats_has_a_dictionary(tmp_path: Path) -> None:
    Lake(tmp_path).write_segment(TABLE, "1.parquet")
    group = pq.ParquetFile(tmp_path / "1.parquet").metadata.row_group(0)
    coded = {group.column(i).path_in_schema: group.column(i).has_dictionary_page for i in range(group.num_columns)}
    assert coded == {
        "prediction_id": False, "features.job": True, "features.age": False, "features.age.years": False,
    }  # fmt: skip
    assert group.column(0).compression == "LZ4"


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    lake = Lake(tmp_path)

    def fill(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageFull):
        lake.write("m/1.parquet", fill)
    assert list(tmp_path.rglob("*.parquet*")) == []


def test_a_torn_file_is_damaged_and_not_read(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    written = lake.write_segment(TABLE, "1.parquet")
    whole = lake.path("1.parquet").read_bytes()
    lake.path("1.parquet").write_bytes(whole[:-20])
    with pytest.raises(SegmentDamaged):
        lake.read_table("1.parquet")
    assert not lake.intact("1.parquet", written.checksum)
    with pytest.raises(SegmentDamaged):
        lake.read_table("never.parquet")


@pytest.mark.parametrize("compacted", [False, True])
def test_a_bit_that_turned_in_a_page_is_never_read_as_another_number(tmp_path: Path, compacted: bool) -> None:
    lake = Lake(tmp_path)
    random = np.random.default_rng(1)
    table = pa.table({"prediction_id": [f"p{i}" for i in range(500)], "features.age": random.normal(size=500)})
    lake.write_segment(table, "1.parquet", compacted=compacted)
    whole, rows, noticed = lake.path("1.parquet").read_bytes(), table.to_pylist(), 0
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # before the footer
    for place in random.integers(0, pages, 200).tolist():
        lake.path("1.parquet").write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found = lake.read_table("1.parquet")
        except SegmentDamaged:
            noticed += 1
        else:  # in what readers do not need, such as statistics of pages
            assert found.to_pylist() == rows, place
    assert noticed > 150


def test_the_sweep_takes_old_files_that_no_row_names(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    now = time.time()
    aged = {
        "known.parquet": 90_000,
        "known.protected.parquet": 90_000,
        "young": 80_000,
        "old": 90_000,
        "torn.tmp": 90_000,
    }
    for name, age in aged.items():
        lake.write(name, lambda path: path.write_bytes(b"x"))
        os.utime(lake.path(name), (now - age, now - age))
    assert lake.sweep({"known.parquet"}) == 2
    left = {path.name for path in tmp_path.iterdir()} - {"sweep"}
    assert left == {"known.parquet", "known.protected.parquet", "young"}


def test_a_lake_of_another_database_is_refused(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'one.db'}")
    migrate(database)
    lake = Lake(tmp_path / "lake")
    first = lake.adopt(database)
    assert lake.adopt(database) == first
    with pytest.raises(Unavailable, match="not the lake of this database"):
        Lake(tmp_path / "elsewhere").adopt(database)
    lake.path("lake.id").write_text("another")
    with pytest.raises(Unavailable, match="another"):
        lake.adopt(database)
    database.close()


def test_columns_that_changed_their_type_are_read_in_the_one_asked_for() -> None:
    from service.lake.columns import as_numbers, as_text, together

    numbers, texts = pa.table({"x": [1.0, 2.5, None]}), pa.table({"x": ["3", "n/a", None], "y": [True, False, None]})
    joined = together([numbers, texts])
    assert joined["x"].to_pylist() == ["1", "2.5", None, "3", "n/a", None]
    assert joined["y"].to_pylist() == [None, None, None, True, False, None]
    assert as_numbers(pa.array(["3", "n/a", None, "inf"])).to_pylist() == [3.0, None, None, None]
    assert as_text(pa.array([1.0, 0.1, 1e16, None])).to_pylist() == ["1", "0.1", "10000000000000000", None]
    assert as_text(pa.array([True, False])).to_pylist() == ["true", "false"]
    assert np.isclose(as_numbers(pa.array([0], pa.timestamp("us", tz="UTC"))).to_numpy(), 0.0).all()
