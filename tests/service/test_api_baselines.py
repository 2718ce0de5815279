"""Baselines: read from four formats, laid out, profiled, kept, and in force from a moment on."""

import gzip
import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import zstandard
from sqlalchemy import select
from starlette.testclient import TestClient

from service import baselines
from service.access import Scope
from service.tables import BaselineRow, LayoutRow, VersionRow
from tests.service.opened import key_of, opened, parts_of

PARQUET = "application/vnd.apache.parquet"
START = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = {"prediction": "said", "score": "chance", "ground_truth": "was", "timestamp": "at", "prediction_id": "id"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with opened(tmp_path_factory.mktemp("baselines")) as found:
        yield found


def rows(days: int = 25, a_day: int = 40) -> pa.Table:
    generator = np.random.default_rng(7)
    n = days * a_day
    chance = generator.uniform(size=n)
    return pa.table(
        {
            "id": [f"p{i}" for i in range(n)],
            "at": [START + timedelta(days=1) / a_day * i for i in range(n)],
            "age": generator.normal(40, 10, n).round(1),
            "job": generator.choice(["clerk", "nurse", "smith"], n),
            "member": generator.uniform(size=n) < 0.5,
            "note": [f"a note of some length that never repeats, number {i}" for i in range(n)],
            "said": (chance >= 0.5).astype(np.int64),
            "chance": chance,
            "was": (generator.uniform(size=n) < chance).astype(np.float64),
        }
    )


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def make(client: TestClient, model: str, task: str = "binary", **more: Any) -> None:
    assert client.post("/v1/models", json={"name": model, "task": task, **more}).status_code == 201


def send(client: TestClient, model: str, name: str, table: pa.Table | bytes, **parameters: str) -> Any:
    return client.post(
        f"/v1/models/{model}/baselines",
        params={"name": name, **(parameters or ROLES)},
        content=table if isinstance(table, bytes) else parquet(table),
        headers={"Content-Type": PARQUET},
    )


def row_of(client: TestClient, name: str) -> BaselineRow:
    with parts_of(client).database.reading() as session:
        return session.scalars(select(BaselineRow).where(BaselineRow.name == name)).one()


def test_the_first_baseline_makes_version_schema_classes_and_layout_and_is_in_force(client: TestClient) -> None:
    make(client, "first")
    answer = send(client, "first", "training", rows())
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["version"], made["rows"], made["layout"], made["ordered"]) == ("1", 1000, 1, True)
    assert (made["active"], made["active_from"]) == (True, "1970-01-01T00:00:00Z")
    assert made["from"] == "2026-01-01T00:00:00Z"
    schema = client.get("/v1/models/first/versions/1/schema").json()
    assert {feature["name"]: feature["type"] for feature in schema["features"]} == {
        "age": "numeric",
        "job": "categorical",
        "member": "boolean",
        "note": "text",
    }
    model = client.get("/v1/models/first").json()
    assert (model["classes"], model["positive_class"], model["active_version"]) == (["0", "1"], "1", "1")
    assert any("classes" in warning for warning in made["warnings"])


def test_the_same_rows_in_every_format_make_the_same_profile(client: TestClient) -> None:
    make(client, "formats")
    table = rows()
    csv, stream = io.BytesIO(), pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, csv)
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    lines = "\n".join(json.dumps({**row, "at": row["at"].isoformat()}) for row in table.to_pylist())
    bodies: dict[str, tuple[bytes, dict[str, str]]] = {
        "parquet": (parquet(table), {"Content-Type": PARQUET}),
        "sniffed": (parquet(table), {"Content-Type": "application/octet-stream"}),
        "csv": (csv.getvalue(), {"Content-Type": "text/csv; charset=utf-8"}),
        "arrow": (bytes(stream.getvalue()), {"Content-Type": "application/vnd.apache.arrow.stream"}),
        "ndjson": (lines.encode(), {"Content-Type": "application/x-ndjson"}),
        "gzip": (gzip.compress(csv.getvalue()), {"Content-Type": "text/csv", "Content-Encoding": "gzip"}),
        "zstd": (
            zstandard.compress(lines.encode()),
            {"Content-Type": "application/x-ndjson", "Content-Encoding": "zstd"},
        ),
    }
    for name, (body, headers) in bodies.items():
        path = "/v1/models/formats/baselines"
        answer = client.post(path, params={"name": name, **ROLES}, content=body, headers=headers)
        assert answer.status_code == 201, (name, answer.text)
        assert answer.json()["rows"] == 1000
    profiles = {name: row_of(client, name).profile for name in bodies}
    assert len(set(profiles.values())) == 1


def test_roles_that_name_no_column_are_422_with_the_role_named(client: TestClient) -> None:
    make(client, "roles")
    answer = send(client, "roles", "b", rows(), prediction="sad")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "query:prediction"
    assert "'said'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"PAR1 but not really", {"Content-Type": PARQUET}, 400),
        (b"", {"Content-Type": PARQUET}, 400),
        (b"a,b\n1,2,3\n", {"Content-Type": "text/csv"}, 400),
        (b'{"a": 1}\n{"a": ', {"Content-Type": "application/x-ndjson"}, 400),
        (b"\xff\xff\xff\xff\x10\0\0\0", {"Content-Type": "application/vnd.apache.arrow.stream"}, 400),
        (b"a,a\n1,2\n", {"Content-Type": "text/csv"}, 422),
        (b"a,b\n", {"Content-Type": "text/csv"}, 422),
        (b"<html>", {"Content-Type": "text/html"}, 415),
        (b"x", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        (b"a,b\n1,2\n", {"Content-Type": "text/csv", "Content-Encoding": "br"}, 415),
        (b"not gzip", {"Content-Type": "text/csv", "Content-Encoding": "gzip"}, 400),
        (b'{"name": "x"}', {"Content-Type": "application/json"}, 422),
        (b'{"name": "x"', {"Content-Type": "application/json"}, 400),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    client: TestClient, body: bytes, headers: dict[str, str], status: int
) -> None:
    if client.get("/v1/models/refused").status_code == 404:
        make(client, "refused")
    answer = client.post("/v1/models/refused/baselines?name=bad", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert client.get("/v1/models/refused/baselines").json()["items"] == []
    spool = parts_of(client).settings.data_dir / "uploads"
    assert list(spool.glob("*")) == []


def test_a_column_that_cannot_play_its_role_is_422(client: TestClient) -> None:
    make(client, "odd-types")
    odd = pa.table({"x": [1.0, 2.0], "said": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64()))})
    assert send(client, "odd-types", "b", odd, prediction="said").status_code == 422
    far = pa.table({"x": [1.0], "prediction": [1], "timestamp": pa.array([2**60], pa.timestamp("ms", "UTC"))})
    assert send(client, "odd-types", "b", far, prediction="prediction").status_code == 422


def test_what_pandas_writes_of_an_index_is_no_feature(client: TestClient) -> None:
    make(client, "indexed")
    table = pa.table({"x": np.arange(9.0), "prediction": [0, 1, 0] * 3, "__index_level_0__": np.arange(9)})
    assert send(client, "indexed", "b", table, prediction="prediction").status_code == 201
    assert [feature["name"] for feature in client.get("/v1/models/indexed/features").json()["items"]] == ["x"]


def test_a_file_beyond_the_limit_is_413_also_when_it_only_inflates_to_that(tmp_path: Path) -> None:
    with opened(tmp_path / "data", max_upload=100_000) as client:
        make(client, "large")
        path = "/v1/models/large/baselines?name=b"
        plain = b"a,b\n" + b"1,2\n" * 50_000
        for headers, body in (
            ({"Content-Type": "text/csv"}, plain),
            ({"Content-Type": "text/csv", "Content-Encoding": "gzip"}, gzip.compress(plain)),
            ({"Content-Type": "text/csv", "Content-Encoding": "zstd"}, zstandard.compress(plain)),
        ):
            answer = client.post(path, content=body, headers=headers)
            assert (answer.status_code, answer.json()["limit"]) == (413, 100_000)


def test_bad_values_are_missing_and_counted_by_their_reason(client: TestClient) -> None:
    make(client, "bad-values", schema={"features": [{"name": "age", "type": "numeric"}]})
    ages = ["41", "inf", "abc", None, "nan", "17.5"]
    table = pa.table({"age": ages, "prediction": [1, 0, 1, 0, 1, 0]})
    assert send(client, "bad-values", "b-bad", table, prediction="prediction").status_code == 201
    assembly = parts_of(client)
    with assembly.database.reading() as session:
        row = session.scalars(select(BaselineRow).where(BaselineRow.name == "b-bad")).one()
        layout = baselines.layout(session, row.version_id, 1)
        column: Any = baselines.profile(session, assembly.lake, row, layout).columns["features.age"]
    # 41 and 17.5 are numbers; inf is not finite, abc no number, null and nan are just missing
    assert (column.count, column.missing, column.non_finite, column.wrong_type) == (2, 4, 1, 1)


def test_protected_attributes_are_kept_apart_from_the_rows(client: TestClient) -> None:
    make(client, "fair", protected_attributes=["sex"])
    table = rows().append_column("sex", pa.array(["F", "M"] * 500))
    made = send(client, "fair", "with-sex", table, **ROLES, protected="sex")
    assert made.status_code == 201, made.text
    assembly = parts_of(client)
    row = row_of(client, "with-sex")
    assert row.path is not None
    assert [name for name in assembly.lake.read_table(row.path).column_names if "sex" in name] == []
    kept = assembly.lake.read_table(baselines.protected_path(row.path))
    assert kept.slice(0, 2).to_pylist()[1] == {"prediction_id": "p1", "attributes": '{"sex": "M"}'}


def test_scores_by_prefix_name_the_classes(client: TestClient) -> None:
    make(client, "classes", task="multiclass")
    shares = np.random.default_rng(1).dirichlet([1, 1, 1], 50)
    table = pa.table(
        {"x": np.arange(50.0), **{f"p_{name}": shares[:, i] for i, name in enumerate(("low", "mid", "high"))}}
    )
    made = send(client, "classes", "b", table, scores="p_*")
    assert made.status_code == 201, made.text
    assert client.get("/v1/models/classes").json()["classes"] == ["high", "low", "mid"]
    assembly = parts_of(client)
    with assembly.database.reading() as session:
        row = session.scalars(select(BaselineRow).order_by(BaselineRow.id.desc()).limit(1)).one()
    table = assembly.lake.read_table(row.path or "")
    assert {"scores.low", "scores.mid", "scores.high"} <= set(table.column_names)
    best = np.array(["low", "mid", "high"])[shares.argmax(axis=1)]
    assert table["prediction"].to_pylist() == best.tolist()  # derived: the class with the largest score


def test_a_prediction_that_disagrees_with_its_score_is_warned_of(client: TestClient) -> None:
    make(client, "contrary", classes=["0", "1"], positive_class="0")
    made = send(client, "contrary", "b", rows()).json()
    assert any("agree" in warning and "0.0%" in warning for warning in made["warnings"])


def test_a_baseline_never_changes(client: TestClient) -> None:
    make(client, "fixed")
    assert send(client, "fixed", "b", rows()).status_code == 201
    assert send(client, "fixed", "b", rows(days=3)).status_code == 409
    assert client.delete("/v1/models/fixed/baselines/b").status_code == 409


def test_a_later_baseline_waits_for_its_activation_which_makes_the_next_layout(client: TestClient) -> None:
    make(client, "second")
    send(client, "second", "one", rows())
    two = send(client, "second", "two", rows(days=22)).json()
    assert (two["active"], two["active_from"], two["layout"]) == (False, None, 1)
    path = "/v1/models/second/baselines/two/activate"
    assert client.post(path, json={"from": "2026-02-01T00:30:00Z"}).status_code == 422
    made = client.post(path, json={"from": "2026-02-01T00:00:00Z", "reason": "spring"}).json()
    assert (made["active_from"], made["layout"], made["active"]) == ("2026-02-01T00:00:00Z", 2, True)
    assert client.post(path, json={}).status_code == 409
    with parts_of(client).database.reading() as session:
        row = session.scalars(select(BaselineRow).where(BaselineRow.name == "two")).one()
        version = session.get_one(VersionRow, row.version_id)
        before, after = START + timedelta(days=30), START + timedelta(days=31)
        found = [baselines.active(session, version, moment) for moment in (before, after)]
        assert [row.name if row else None for row in found] == ["one", "two"]
        assert baselines.cuts(session, version) == [after]
        assert version.layout == 2
        numbers = session.scalars(select(LayoutRow.number).where(LayoutRow.version_id == version.id)).all()
        assert sorted(numbers) == [1, 2]


def test_an_older_baseline_is_profiled_in_a_newer_layout(client: TestClient) -> None:
    make(client, "relaid")
    send(client, "relaid", "relaid-one", rows())
    send(client, "relaid", "relaid-two", rows(days=22))
    client.post("/v1/models/relaid/baselines/relaid-two/activate")
    assembly = parts_of(client)
    with assembly.database.reading() as session:
        row = session.scalars(select(BaselineRow).where(BaselineRow.name == "relaid-one")).one()
        layout = baselines.layout(session, row.version_id, 2)
        found = baselines.profile(session, assembly.lake, row, layout)
    assert (found.rows, found.layout.number) == (1000, 2)


def test_blocks_are_whole_days_of_an_ordered_baseline(client: TestClient) -> None:
    make(client, "blocks")
    send(client, "blocks", "timed", rows(days=25))
    send(client, "blocks", "unordered", rows(days=25), **ROLES, ordered="false")
    send(client, "blocks", "short", rows(days=19))
    untimed = {name: column for name, column in ROLES.items() if name != "timestamp"}
    send(client, "blocks", "untimed", rows().drop_columns(["at"]), **untimed)
    assembly = parts_of(client)
    with assembly.database.writing() as session:
        found = {}
        for name in ("timed", "unordered", "short", "untimed"):
            row = session.scalars(select(BaselineRow).where(BaselineRow.name == name)).one()
            layout = baselines.layout(session, row.version_id, 1)
            found[name] = baselines.blocks(session, assembly.lake, row, layout, 24)
    cut, reason = found["timed"]
    assert cut is not None
    assert (reason, len(cut), cut.rows.tolist()) == ("", 25, [40] * 25)
    assert found["unordered"][0] is None
    assert "not in order" in found["unordered"][1]
    assert found["short"] == (None, "calibrating: 19 of 20 blocks of 24 h in baseline 'short'")
    assert found["untimed"][0] is None
    assert "no times" in found["untimed"][1]


def test_a_past_window_of_production_becomes_a_baseline(client: TestClient) -> None:
    make(client, "past")
    send(client, "past", "training", rows())
    stream = rows(days=2)
    records = [
        {
            "prediction_id": row["id"],
            "timestamp": row["at"].isoformat(),
            "features": {name: row[name] for name in ("age", "job", "member", "note")},
            "prediction": row["said"],
            "score": row["chance"],
            "ground_truth": row["was"],
        }
        for row in stream.to_pylist()
    ]
    assert client.post("/v1/models/past/predictions", json=records).json()["accepted"] == 80
    body = {"name": "january-2", "from": "2026-01-02T00:00:00Z", "to": "2026-01-03T00:00:00Z"}
    made = client.post("/v1/models/past/baselines", json=body)
    assert made.status_code == 201, made.text
    assert (made.json()["rows"], made.json()["ordered"], made.json()["layout"]) == (40, True, 1)
    assert made.json()["origin"] == {"from": body["from"], "to": body["to"]}
    empty = {"name": "empty", "from": "2025-01-02T00:00:00Z", "to": "2025-01-03T00:00:00Z"}
    assert client.post("/v1/models/past/baselines", json=empty).status_code == 422
    half = {"name": "half", "from": "2026-01-02T00:30:00Z", "to": "2026-01-03T00:00:00Z"}
    assert client.post("/v1/models/past/baselines", json=half).json()["errors"][0]["pointer"] == "/from"


def test_a_version_without_baseline_borrows_the_newest_and_its_layout(client: TestClient) -> None:
    make(client, "lender")
    send(client, "lender", "training-l", rows())
    assert client.post("/v1/models/lender/versions", json={"version": "2"}).json()["layout"] == 1
    assembly = parts_of(client)
    with assembly.database.reading() as session:
        lent = session.scalars(select(BaselineRow).where(BaselineRow.name == "training-l")).one()
        borrower = session.scalars(
            select(VersionRow).where(VersionRow.model_id == lent.model_id, VersionRow.name == "2")
        ).one()
        found = baselines.active(session, borrower, START)
        assert found is lent
        layout = baselines.layout(session, borrower.id, 1)
        assert baselines.profile(session, assembly.lake, lent, layout).rows == 1000


def test_constraints_are_suggested_and_can_be_corrected(client: TestClient) -> None:
    make(client, "held")
    send(client, "held", "b-held", rows())
    path = "/v1/models/held/baselines/b-held/constraints"
    suggested = client.get(path).json()
    assert set(suggested["job"]["domain"]["values"]) == {"clerk", "nurse", "smith"}
    corrected = {**suggested, "age": {"type": "numeric", "range": {"at_least": 18, "at_most": 99}}}
    assert client.put(path, json=corrected).json()["age"]["range"] == {"at_least": 18, "at_most": 99}
    assert client.put(path, json={"shoe": {"range": {"at_least": 1}}}).status_code == 422
    assembly = parts_of(client)
    with assembly.database.reading() as session:
        row = session.scalars(select(BaselineRow).where(BaselineRow.name == "b-held")).one()
        columns = baselines.columns(session, session.get_one(VersionRow, row.version_id))
    assert {column.label: column.constraints for column in columns}["age"] == corrected["age"]
    assert [column.name for column in columns][-2:] == ["prediction", "score"]


def test_a_corrected_type_lays_the_version_out_anew(client: TestClient) -> None:
    make(client, "retyped")
    table = pa.table({"zip": [10115.0, 20095.0] * 30, "x": np.arange(60.0), "prediction": [0, 1] * 30})
    send(client, "retyped", "b-zip", table, prediction="prediction")
    path = "/v1/models/retyped/versions/1/schema"
    client.patch(path, json={"features": [{"name": "zip", "type": "categorical"}]})
    assembly = parts_of(client)
    with assembly.database.reading() as session:
        row = session.scalars(select(BaselineRow).where(BaselineRow.name == "b-zip")).one()
        version = session.get_one(VersionRow, row.version_id)
        assert version.layout == 2
        layout: Any = baselines.layout(session, version.id, 2)
        assert layout.columns["features.zip"].categories == ("10115", "20095")
        column: Any = baselines.profile(session, assembly.lake, row, layout).columns["features.zip"]
        assert column.counts.tolist() == [30, 30, 0]


def test_a_long_upload_is_answered_by_a_job(client: TestClient) -> None:
    make(client, "patient")
    path = "/v1/models/patient/baselines"
    headers = {"Content-Type": PARQUET, "Prefer": "wait=0"}
    answer = client.post(path, params={"name": "b-job", **ROLES}, content=parquet(rows()), headers=headers)
    assert answer.status_code in (201, 202)
    if answer.status_code == 202:
        where = answer.headers["Location"]
        while (job := client.get(where).json())["state"] in ("queued", "running"):
            time.sleep(0.05)
        assert (job["state"], job["result"]["name"]) == ("done", "b-job")
        bound = key_of(client, Scope.READ, models=["other"])
        assert client.get(where, headers=bound).status_code == 404
    assert client.get(f"{path}/b-job").status_code == 200


def test_the_car_loan_reference_is_ready_at_once(client: TestClient, shared_data: Path) -> None:
    make(client, "car-loan")
    body = (shared_data / "nannyml_car_loan" / "synthetic_car_loan_reference.parquet").read_bytes()
    roles = {"prediction": "y_pred", "score": "y_pred_proba", "ground_truth": "repaid"}
    made = send(client, "car-loan", "reference", body, **roles, timestamp="timestamp", prediction_id="id")
    assert made.status_code == 201, made.text
    assert made.json()["rows"] == 50_000
    types = {f["name"]: f["type"] for f in client.get("/v1/models/car-loan/features").json()["items"]}
    assert types == {
        "car_value": "numeric",
        "salary_range": "categorical",
        "debt_to_income_ratio": "numeric",
        "loan_length": "numeric",
        "repaid_loan_on_prev_car": "boolean",
        "size_of_downpayment": "categorical",
        "driver_tenure": "numeric",
    }
