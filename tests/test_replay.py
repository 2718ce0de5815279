"""The client behind `plumbline replay`: what it reads, in which order it sends, what it refuses."""

import gzip
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from service import replay
from service.replay import Client, Labels, MakesNoSense, Plan, Records, Refused, Roles, Source
from tests.running import Service

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ROLES = Roles(time="at", identity="id", prediction="said", score="p")


def frame(rows: int = 8, seed: int = 0, minutes: int = 60) -> pa.Table:
    """Return predictions in order of time, so many minutes apart from 2026-01-01 on, without zone."""
    random = np.random.default_rng(seed)
    scores = random.random(rows).round(3)
    times = [datetime(2026, 1, 1) + timedelta(minutes=minutes * row) for row in range(rows)]  # noqa: DTZ001
    return pa.table({
        "id": pa.array([f"r{row}" for row in range(rows)]),
        "at": pa.array(times, pa.timestamp("us")),
        "age": random.integers(18, 90, rows).astype(float),
        "plan": pa.array(random.choice(["basic", "plus"], rows)),
        "said": pa.array((scores > 0.5).astype(int)),
        "p": scores,
    })  # fmt: skip


def plan_of(path: Path, roles: Roles = ROLES) -> Plan:
    return Plan(file=path, model="m", version="1", roles=roles)


def ordered(path: Path, roles: Roles = ROLES) -> pa.Table:
    """Return everything that would be sent from a file, in the order of sending."""
    source = Source(path, (roles.identity, roles.time))
    known = replay.extent(source, roles.time)
    features = [name for name in source.names if name not in roles.taken(source.names)]
    return pa.concat_tables(
        replay.in_time_order(Records(source, plan_of(path, roles), None, features).batches(), known)
    )


def test_times_without_a_zone_are_taken_as_utc(tmp_path: Path) -> None:
    pa.parquet.write_table(frame(), tmp_path / "a.parquet")
    assert ordered(tmp_path / "a.parquet")["timestamp"][0].as_py() == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-01-01 05:00:00.250", 5),
        ("2026-01-01T05:00:00", 5),
        ("2026-01-01T05:00:00+02:00", 3),
        ("2026-01-01T05:00Z", 5),
    ],
)
def test_times_may_be_text(text: str, hour: int) -> None:
    assert replay.moments(pa.array([text]), "at")[0].as_py().hour == hour


def test_a_csv_and_a_parquet_file_of_the_same_rows_send_the_same(tmp_path: Path) -> None:
    pa.parquet.write_table(frame(), tmp_path / "a.parquet")
    pa.csv.write_csv(frame(), tmp_path / "a.csv")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    expected = ordered(tmp_path / "a.parquet")
    for name in ("a.csv", "b.csv.gz"):
        sent = ordered(tmp_path / name)
        assert sent.drop_columns(["prediction"]) == expected.drop_columns(["prediction"])
        assert replay.texts(sent["prediction"]) == replay.texts(expected["prediction"])


@pytest.mark.parametrize("limit", [1_000_000, 100])
def test_rows_out_of_order_are_sent_in_order_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(replay, "SORTED_ROWS", limit)
    table = frame(600)
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(600)))
    pa.parquet.write_table(shuffled, tmp_path / "a.parquet", row_group_size=64)
    assert ordered(tmp_path / "a.parquet")["prediction_id"].to_pylist() == table["id"].to_pylist()


def test_rows_of_equal_time_keep_the_order_of_the_file(tmp_path: Path) -> None:
    table = frame(50)
    same = table.set_column(1, "at", pa.array([datetime(2026, 1, 1)] * 49 + [datetime(2025, 1, 1)], pa.timestamp("us")))  # noqa: DTZ001
    pa.parquet.write_table(same, tmp_path / "a.parquet")
    assert ordered(tmp_path / "a.parquet")["prediction_id"].to_pylist() == ["r49", *table["id"].to_pylist()[:49]]


def test_rows_without_an_id_get_the_same_ids_each_time(tmp_path: Path) -> None:
    pa.parquet.write_table(frame(3).drop_columns(["id"]), tmp_path / "a.parquet")
    roles = Roles(time="at", prediction="said", score="p")
    assert ordered(tmp_path / "a.parquet", roles)["prediction_id"].to_pylist() == ["a-0", "a-1", "a-2"]


def test_rows_without_a_time_are_left_out_and_counted(tmp_path: Path) -> None:
    table = frame(4)
    times = table["at"].to_pylist()
    gappy = table.set_column(1, "at", pa.array([times[0], None, *times[2:]], pa.timestamp("us")))
    pa.parquet.write_table(gappy, tmp_path / "a.parquet")
    assert ordered(tmp_path / "a.parquet")["prediction_id"].to_pylist() == ["r0", "r2", "r3"]
    known = replay.extent(Source(tmp_path / "a.parquet"), "at")
    assert (known.rows, known.without_time) == (3, 1)


def test_labels_of_a_file_are_found_by_id(tmp_path: Path) -> None:
    pa.csv.write_csv(pa.table({"id": ["r2", "r0"], "truth": [1, 0]}), tmp_path / "t.csv")
    labels = Labels(tmp_path / "t.csv", "id", ["id", "at"])
    found = labels.of(pa.array(["r0", "r1", "r2"]))
    assert found["prediction_id"].to_pylist() == ["r0", "r2"]
    assert found["ground_truth"].to_pylist() == [0, 1]


def inferred(table: pa.Table, folder: Path, roles: Roles, label: str | None = None) -> dict[str, object]:
    pa.parquet.write_table(table, folder / "a.parquet")
    path = folder / "a.parquet"
    return replay.inferred(plan_of(path, roles), Source(path), label)


def test_the_task_is_inferred_from_the_columns(tmp_path: Path) -> None:
    assert inferred(frame(40), tmp_path, ROLES) == {"task": "binary", "classes": ["0", "1"], "positive_class": "1"}
    price = pa.table({"said": [1.5, 2.25, 7.0]})
    assert inferred(price, tmp_path, Roles(time="at", prediction="said")) == {"task": "regression"}
    several = pa.table({"said": ["a", "b", "c"], "p_a": [0.1] * 3, "p_b": [0.2] * 3, "p_c": [0.7] * 3})
    assert inferred(several, tmp_path, Roles(time="at", prediction="said", scores="p_*")) == {
        "task": "multiclass",
        "classes": ["a", "b", "c"],
    }


def test_the_positive_class_is_the_one_that_goes_with_high_scores(tmp_path: Path) -> None:
    table = pa.table({"said": ["bad", "good", "bad"], "p": [0.9, 0.1, 0.8]})
    assert inferred(table, tmp_path, ROLES)["positive_class"] == "bad"


@pytest.mark.parametrize("text", ["0", "-1", "fast", "nan", "inf"])
def test_a_speed_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(MakesNoSense):
        replay.speed_of(text)


def test_a_missing_column_is_named_with_those_that_exist(tmp_path: Path, plumbline: Run) -> None:
    pa.csv.write_csv(frame(), tmp_path / "a.csv")
    done = plumbline("replay", str(tmp_path / "a.csv"), "--model", "m", "--time", "when", COLUMNS="400")
    assert done.returncode == 2
    assert "no column 'when'" in done.stderr
    assert "id, at, age, plan, said, p" in done.stderr


def test_a_service_that_is_not_there_is_said_so(tmp_path: Path, plumbline: Run) -> None:
    pa.csv.write_csv(frame(), tmp_path / "a.csv")
    done = plumbline(
        "replay", str(tmp_path / "a.csv"), "--model", "m", "--time", "at", "--url", "http://127.0.0.1:1", "--key", "k"
    )
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_request_is_repeated_while_the_service_has_too_much_to_do() -> None:
    answers = [httpx2.Response(429, headers={"Retry-After": "3"}), httpx2.Response(503), httpx2.Response(200, json={})]
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["idempotency-key"])
        return answers[len(seen) - 1]

    pauses: list[float] = []
    client = Client("http://service.test", "key", pause=pauses.append)
    client.use(httpx2.MockTransport(answer))
    assert client.send("POST", "/v1/x", content=lambda: iter([b"again"])).status_code == 200
    assert len(set(seen)) == 1, "the same Idempotency-Key each time"
    assert pauses[0] == 3.0


def test_a_refusal_is_told_with_its_reason() -> None:
    client = Client("http://service.test", "key")
    client.use(
        httpx2.MockTransport(lambda _: httpx2.Response(422, json={"title": "no", "detail": "the classes differ"}))
    )
    with pytest.raises(Refused, match="422: the classes differ"):
        client.send("GET", "/v1/x")


def test_a_replay_makes_what_is_missing_and_sending_it_again_changes_nothing(
    tmp_path: Path, shared_service: Service, plumbline: Run
) -> None:
    pa.parquet.write_table(frame(24 * 40, seed=1), tmp_path / "reference.parquet")
    stream = frame(24 * 4, seed=2).append_column("truth", pa.array([1, 0] * 48))
    pa.csv.write_csv(stream, tmp_path / "stream.csv")
    command = (
        "replay", str(tmp_path / "stream.csv"), "--model", "replayed", "--time", "at", "--id", "id",
        "--prediction", "said", "--score", "p", "--ground-truth", "truth",
        "--baseline", str(tmp_path / "reference.parquet"),
        "--url", shared_service.url, "--key", shared_service.admin_key,
    )  # fmt: skip
    first = plumbline(*command)
    assert first.returncode == 0, first.stderr
    assert "96 predictions accepted" in first.stdout
    assert "model replayed, version 1, baseline reference, monitors" in first.stdout
    assert "\x1b[" not in first.stdout + first.stderr, "no colour where it is piped"
    second = plumbline(*command)
    assert second.returncode == 0, second.stderr
    assert "0 predictions accepted; 96 known already" in second.stdout
    assert "Made:" not in second.stdout
    with shared_service.client() as client:
        replays = client.get("/v1/models/replayed/replays").json()["items"]
        assert all(item["closed_at"] for item in replays)
        row = client.get("/v1/models/replayed/predictions/r7").json()
        assert "2026-01-01T07:00:00" in str(row)
