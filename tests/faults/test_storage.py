"""Storage fails: a disk fills, bytes turn, files go; the rest is served, and nothing acknowledged is lost."""

import itertools
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from service.app import create_app
from service.assembly import assemble
from service.clock import SetClock
from service.lake import Lake, quarantine
from service.lake.files import SegmentDamaged
from service.settings import Settings
from service.tables import NoticeRow, SegmentRow
from tests.conftest import ADMIN_KEY
from tests.receiver import Receiver
from tests.running import UNHURRIED
from tests.service.watched import Watched, hours

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
REFUSALS = 6
"""How often a full disk is asked for more."""


# --- the disk is full -------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of so many bytes, in memory."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(options, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def many(turn: int, count: int = 400) -> list[dict[str, Any]]:
    return [
        {"prediction_id": f"{turn}-{row}", "features": {"note": secrets.token_hex(240)}, "prediction": 1}
        for row in range(count)
    ]


def test_a_full_disk_is_507_reads_go_on_and_what_was_acknowledged_is_there_when_it_has_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "10m") as disk:
        values = {"data_dir": disk / "data", "admin_key": ADMIN_KEY, "roles": "api,sealer", "min_free_bytes": 0}
        settings = Settings.model_validate(values | {"seal_rows": 1500, "tick_seconds": 0.1, "log_level": "critical"})
        app = create_app(settings)
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", **UNHURRIED}
        with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
            assert client.post("/v1/models", json={"name": "m", "task": "binary"}).status_code == 201
            accepted: set[str] = set()
            statuses = []
            for turn in itertools.count():
                body = many(turn)
                answer = client.post("/v1/models/m/predictions", json=body)
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    accepted |= {row["prediction_id"] for row in body}
                else:
                    assert int(answer.headers["retry-after"]) > 0
                    assert client.get("/v1/models/m").status_code == 200
                if statuses.count(507) == REFUSALS:
                    break
            assert {200, 507} <= set(statuses) <= {200, 503, 507}  # 503 where the sealer is slow beside them
            assert client.patch("/v1/models/m", json={"description": "x" * 2_000_000}).status_code in (413, 422, 507)
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            body = many(-1)
            assert client.post("/v1/models/m/predictions", json=body).status_code == 200
            accepted |= {row["prediction_id"] for row in body}
        parts = assemble(settings)
        parts.sealer.seal(1)
        with parts.database.reading() as session:
            paths = session.scalars(select(SegmentRow.path).where(SegmentRow.kind == "predictions")).all()
        stored = [name for path in paths for name in pq.read_table(parts.lake.path(path))["prediction_id"].to_pylist()]
        assert sorted(stored) == sorted(accepted)
        parts.database.close()


# --- bytes turn -------------------------------------------------------------------------------------------------------


def turned(path: Path, place: int) -> None:
    """Turn one bit of a file."""
    whole = bytearray(path.read_bytes())
    whole[place] ^= 0x10
    path.write_bytes(whole)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.database.close()


def segment_of(shop: Watched, hour: int) -> SegmentRow:
    with shop.database.reading() as session:
        bucket = hours(hour, hour + 1).hours[0]
        return session.scalars(
            select(SegmentRow).where(SegmentRow.first_bucket <= bucket, SegmentRow.last_bucket >= bucket)
        ).one()


def test_a_damaged_file_is_set_aside_told_and_the_rest_is_measured(shop: Watched, receiver: Receiver) -> None:
    for first in (0, 12, 24):  # two files a day, of half a day each
        shop.stream(first, first + 12)
        shop.seal()
    shop.stream(36, 48)
    shop.seal()
    damaged = segment_of(shop, 13)
    turned(shop.lake.path(damaged.path), 900)
    shop.at_hour(49)
    shop.run()
    halved, whole = shop.runs()
    assert (halved.status, halved.rows) == ("partial", 36)
    assert halved.reason.endswith("36 of 72 rows are in a damaged file")
    assert (whole.status, whole.rows) == ("ok", 72)
    with shop.database.reading() as session:
        row = session.get_one(SegmentRow, damaged.id)
        (notice,) = session.scalars(select(NoticeRow)).all()
    assert row.damaged_at is not None
    assert damaged.path in notice.sentence
    assert "36 rows (predictions) from 2026-01-05T12:00:00Z" in notice.sentence
    assert not shop.lake.path(damaged.path).exists()
    assert [path.name for path in (shop.lake.root / "quarantine").iterdir()] == [damaged.path.replace("/", "-")]
    # What its ids say is still known: none comes a second time.
    shop.stream(12, 24)
    shop.seal()
    assert shop.runs()[0].rows == 36
    with shop.database.reading() as session:
        stored = session.scalars(select(SegmentRow).where(SegmentRow.kind == "predictions")).all()
    assert sum(row.rows for row in stored) == 144


def test_what_was_profiled_before_its_file_rotted_keeps_its_numbers(shop: Watched) -> None:
    shop.stream(0, 48)
    shop.at_hour(49)
    shop.run()
    before = [(run.status, run.rows, run.document) for run in shop.runs()]
    damaged = segment_of(shop, 0)
    turned(shop.lake.path(damaged.path), 900)
    with pytest.raises(SegmentDamaged):
        shop.lake.read_table(damaged.path, checksum=damaged.checksum)
    assert quarantine.set_aside(shop.database, shop.lake, shop.clock) == 1
    shop.clock.move(timedelta(hours=1))
    shop.run()
    assert [(run.status, run.rows, run.document) for run in shop.runs()] == before


def test_a_passing_error_of_a_read_sets_nothing_aside(shop: Watched) -> None:
    shop.stream(0, 24)
    shop.seal()
    whole = segment_of(shop, 0)
    shop.lake.damaged(whole.path, "the cable was loose")
    assert quarantine.set_aside(shop.database, shop.lake, shop.clock) == 0
    assert shop.lake.path(whole.path).exists()


@pytest.mark.parametrize("compacted", [False, True])
def test_a_bit_that_turned_anywhere_in_a_file_is_never_read_as_another_number(tmp_path: Path, compacted: bool) -> None:
    lake, random = Lake(tmp_path), np.random.default_rng(2)
    moments = pa.array(np.sort(random.integers(0, 10**15, 2_000)), pa.timestamp("us", tz="UTC"))
    columns = {"prediction_id": [f"p{i}" for i in range(2_000)], "timestamp": moments, "id_hash": np.arange(2_000)}
    table = pa.table(columns | {"features.age": random.normal(size=2_000), "job": random.choice(["a", "b"], 2_000)})
    written = lake.write_segment(table, "1.parquet", compacted=compacted)
    whole, rows, noticed = lake.path("1.parquet").read_bytes(), table.to_pylist(), 0
    places = [*random.integers(0, len(whole), 150).tolist(), *range(len(whole) - 100, len(whole))]
    for place in places:
        lake.path("1.parquet").write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found = lake.read_table("1.parquet", checksum=written.checksum)
        except SegmentDamaged:
            noticed += 1
        else:  # in what readers do not need, such as the magic number at the start
            assert found.to_pylist() == rows, place
    assert noticed > 200


# --- whatever rots, it starts -----------------------------------------------------------------------------------------


def test_the_service_starts_and_answers_with_every_file_of_the_lake_damaged(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "admin_key": ADMIN_KEY, "tick_seconds": 0.1, "log_level": "critical", "seal_rows": 50}
    )
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", **UNHURRIED}
    clock = SetClock(NOW)
    with TestClient(create_app(settings, clock), headers=headers, raise_server_exceptions=False) as client:
        client.post("/v1/models", json={"name": "m", "task": "binary", "classes": ["0", "1"]})
        body = "prediction_id,timestamp,prediction,age\n" + "".join(
            f"b{i},{(NOW - timedelta(hours=30 * 24 - i)).isoformat()},{i % 2},{i % 17}\n" for i in range(600)
        )
        answer = client.post(
            "/v1/models/m/baselines?name=b&ordered=true",
            content=body,
            headers={"content-type": "text/csv"},
        )
        assert answer.status_code == 201, answer.text
        for turn in range(4):
            sent = [
                {"prediction_id": f"{turn}-{i}", "timestamp": (NOW - timedelta(hours=5)).isoformat(), "prediction": 1}
                for i in range(60)
            ]
            assert client.post("/v1/models/m/predictions", json=sent).status_code == 200
        client.app.state.assembly.sealer.seal(1)  # type: ignore[attr-defined]
        random = np.random.default_rng(3)
        for path in sorted((tmp_path / "lake").rglob("*")):
            if path.is_file() and path.name not in ("lake.id", "sweep"):
                turned(path, int(random.integers(0, path.stat().st_size)))
    with TestClient(create_app(settings, clock), headers=headers, raise_server_exceptions=False) as client:
        assert client.get("/readyz").status_code == 200
        for _ in range(12):  # one more file is set aside by each request that needs it
            answer = client.get("/v1/models/m/predictions?from=2026-03-02T00:00:00Z&to=2026-03-02T12:00:00Z")
            if answer.status_code == 200:
                break
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.status_code == 200
        notices = client.get("/v1/notices").json()["items"]
        assert notices
        assert all("does not hold what was written" in notice["sentence"] for notice in notices)
        sent = [{"prediction_id": f"late-{i}", "prediction": 1} for i in range(60)]
        assert client.post("/v1/models/m/predictions", json=sent).json()["accepted"] == 60
        client.app.state.assembly.sealer.seal(1)  # type: ignore[attr-defined]
        assert client.get("/v1/models/m/predictions/late-7").json()
        resolved = client.post(f"/v1/notices/{notices[0]['id']}/resolve")
        assert resolved.status_code == 200
        assert len(client.get("/v1/notices").json()["items"]) == len(notices) - 1
