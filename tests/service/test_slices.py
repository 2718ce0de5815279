"""Slices end to end: declared, measured by monitors, profiled apart, discovered, and counted again when they change."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from service.assembly import Assembly
from service.tables import ProfileRow
from tests.service.opened import opened

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
PARQUET = {"Content-Type": "application/vnd.apache.parquet", "Prefer": "wait=60"}
A_DAY = 600
SPAN = {"from": START.isoformat(), "to": (START + DAY).isoformat()}


def rows(start: datetime, days: int, shift: float) -> pa.Table:
    """Return rows of nurses, a quarter, and clerks; ``shift`` moves the ages of nurses alone."""
    generator = np.random.default_rng(days)
    number = A_DAY * days
    nurse = generator.random(number) < 0.25
    age = generator.normal(40, 10, number) + shift * nurse
    wrong = generator.random(number) < np.where(nurse & (shift > 0), 0.6, 0.1)
    return pa.table(
        {
            "prediction_id": [f"{start:%d}-{i}" for i in range(number)],
            "timestamp": pa.array([start + DAY / number * days * i for i in range(number)], pa.timestamp("us", "UTC")),
            "features.age": age,
            "features.job": np.where(nurse, "nurse", "clerk"),
            "features.other": generator.normal(size=number),
            "prediction": np.where(wrong, "0", "1"),
            "ground_truth": ["1"] * number,
        }
    )


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Open a service whose model was watched for a day on which the ages of nurses moved by two deviations."""
    with opened(tmp_path_factory.mktemp("slices")) as found:
        found.post("/v1/models", json={"name": "m", "task": "binary", "alarm_budget": {"per": "30d", "at_most": 5}})
        made = found.post(
            "/v1/models/m/baselines?name=b", content=parquet(rows(START - 4 * DAY, 4, 0)), headers=PARQUET
        )
        assert made.status_code == 201, made.text
        assert put(found, "nurses", {"where": {"features.job": ["nurse"]}}).status_code == 201
        assert put(found, "job", {"by": "features.job", "at_most": 3}).status_code == 201
        assert put(found, "eu", {"where": {"tags.region": ["EU"]}}).status_code == 201
        for name, body in (
            ("inputs", {"kind": "data_drift", "slices": ["nurses", "job", "eu"]}),
            ("ages", {"kind": "data_drift", "slices": ["nurses"], "parameters": {"features": ["age"]}}),
            ("quality", {"kind": "data_quality", "slices": ["nurses"]}),
        ):
            monitor = {"name": name, "start": START.isoformat(), **body}
            answer = found.post("/v1/models/m/monitors", json=monitor)
            assert answer.status_code == 201, answer.text
        replay = found.post("/v1/models/m/replays", json=SPAN)
        sent = found.post("/v1/models/m/predictions", content=parquet(rows(START, 1, 20.0)), headers=PARQUET)
        assert sent.json()["accepted"] == A_DAY, sent.text
        closed = found.delete(replay.headers["location"], headers={"Prefer": "wait=60"})
        assert closed.status_code == 200, closed.text
        yield found


def put(client: TestClient, name: str, document: dict[str, Any]) -> Any:
    return client.put(f"/v1/models/m/slices/{name}", json=document)


def results(client: TestClient, monitor: str) -> dict[tuple[str | None, str | None], dict[str, Any]]:
    (run,) = client.get(f"/v1/models/m/monitors/{monitor}/runs").json()["items"]
    found = client.get(f"/v1/models/m/runs/{run['id']}").json()["results"]
    return {(one.get("slice"), one.get("feature")): one for one in found if one["decides"]}


def test_a_monitor_measures_the_whole_and_each_slice_and_says_which(client: TestClient) -> None:
    found = results(client, "inputs")
    assert {part for part, _ in found} == {None, "nurses", "job=clerk", "job=nurse", "eu"}
    nurses = found["nurses", "age"]
    assert nurses["verdict"] == "violated"
    assert nurses["value"] == pytest.approx(2.0, abs=0.3)
    assert found["job=nurse", "age"]["value"] == pytest.approx(nurses["value"])
    assert found["job=clerk", "age"]["verdict"] == "ok"
    assert nurses["n_window"] + found["job=clerk", "age"]["n_window"] == A_DAY
    assert nurses["n_window"] < A_DAY / 2


def test_a_slice_of_what_the_baseline_does_not_have_is_not_measured_and_says_why(client: TestClient) -> None:
    one = results(client, "inputs")["eu", None]
    assert one["verdict"] == "not_measured"
    assert "the baseline has no tags.region" in one["reason"]


def test_holms_method_runs_over_all_features_and_slices(client: TestClient) -> None:
    found = [one for one in results(client, "inputs").values() if one["verdict"] in ("ok", "violated")]
    assert sum("p_value" in one for one in found) == 12  # three features, of all rows and of three slices
    # Three monitors share the most that a window may spend, 0.05; without blocks results are judged at a tenth
    assert min(one["alpha"] for one in found) == pytest.approx(0.05 / 3 / 12 / 10, rel=1e-6)


def test_data_quality_of_a_slice_is_about_its_columns_alone(client: TestClient) -> None:
    found = results(client, "quality")
    assert ("nurses", "age") in found
    assert ("nurses", None) not in found


def test_a_slices_profile_is_the_profile_of_its_rows(client: TestClient) -> None:
    document = client.get("/v1/models/m/profile", params={**SPAN, "slice": "nurses"}).json()
    whole = client.get("/v1/models/m/profile", params=SPAN).json()
    expected = rows(START, 1, 20.0)
    nurse = np.array(expected["features.job"].to_pylist()) == "nurse"
    assert document["rows"] == int(nurse.sum())
    assert whole["rows"] == A_DAY
    assert document["columns"]["age"]["mean"] == pytest.approx(expected["features.age"].to_numpy()[nurse].mean())
    by_value = client.get("/v1/models/m/profile", params={**SPAN, "slice": "job=nurse"}).json()
    assert by_value["columns"]["age"] == document["columns"]["age"]
    assert client.get("/v1/models/m/profile", params={**SPAN, "slice": "job"}).status_code == 404


def test_the_drift_page_shows_all_rows_or_one_slice(client: TestClient) -> None:
    whole = client.get("/models/m/drift.json", params={"range": "all", "monitor": "inputs"}).json()
    assert whole["slices"] == ["eu", "job=clerk", "job=nurse", "nurses"]
    found = {"range": "all", "monitor": "inputs", "slice": "nurses"}
    nurses = client.get("/models/m/drift.json", params=found).json()
    ages = [next(one for one in page["columns"] if one["column"] == "age") for page in (whole, nurses)]
    assert ages[0]["n_window"] == A_DAY
    assert ages[1]["n_window"] < A_DAY / 2
    assert ages[1]["value"] > 2 * ages[0]["value"]
    page = client.get("/models/m/drift", params=found)
    assert page.status_code == 200
    assert "slice=job%3Dclerk" in page.text


def test_profiles_of_a_slice_go_when_it_changes(client: TestClient) -> None:
    parts: Assembly = client.app.state.assembly  # type: ignore[attr-defined]

    def stored(name: str) -> int:
        with parts.database.reading() as session:
            keys = session.scalars(select(ProfileRow.slice)).all()
        return sum(key.startswith(f"{name}#") for key in keys)

    assert put(client, "old", {"where": {"features.age": {"ge": 60}}}).status_code == 201
    before = client.get("/v1/models/m/profile", params={**SPAN, "slice": "old"}).json()["rows"]
    assert stored("old")
    assert put(client, "old", {"where": {"features.age": {"ge": 20}}}).status_code == 200
    assert not stored("old")
    assert client.get("/v1/models/m/profile", params={**SPAN, "slice": "old"}).json()["rows"] > before
    assert client.delete("/v1/models/m/slices/old").status_code == 204
    assert not stored("old")


def test_the_slices_of_a_model_are_listed_limited_and_kept_while_they_are_used(client: TestClient) -> None:
    items = client.get("/v1/models/m/slices").json()["items"]
    assert [item["name"] for item in items] == ["eu", "job", "nurses"]
    assert items[1]["by"] == "features.job"
    assert client.get("/v1/models/m/slices/nurses").json()["where"] == {"features.job": ["nurse"]}
    too_many = put(client, "more", {"by": "features.other", "at_most": 16})
    assert too_many.status_code == 409
    assert "20 slices" in too_many.json()["detail"]
    used = client.delete("/v1/models/m/slices/nurses")
    assert used.status_code == 409
    assert "inputs" in used.json()["detail"]
    bad = put(client, "bad", {"where": {"features.age": {"like": "4%"}}})
    assert bad.status_code == 422
    assert bad.json()["errors"][0]["pointer"] == "/where/features.age/like"
    body = {"name": "x", "kind": "data_drift", "slices": ["nobody"]}
    unknown = client.post("/v1/models/m/monitors", json=body)
    assert unknown.json()["errors"][0]["code"] == "no_such_slice"


def test_the_worst_slice_is_discovered_and_can_be_declared_as_it_is(client: TestClient) -> None:
    found = client.get("/v1/models/m/slices/discovered", params=SPAN).json()
    assert found["labelled_rows"] == A_DAY
    worst = found["items"][0]
    assert worst["verdict"] == "violated"
    assert worst["value"] > 2 * worst["baseline_value"]
    assert put(client, "worst", {"where": worst["where"]}).status_code == 201
    assert client.delete("/v1/models/m/slices/worst").status_code == 204
    empty = {"from": (START + 9 * DAY).isoformat(), "to": (START + 10 * DAY).isoformat()}
    assert client.get("/v1/models/m/slices/discovered", params=empty).status_code == 422
