"""Checks of files: judged like a window, by a pipeline, with nothing taken in, told or spent."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from service.access import Scope
from service.tables import AlertRow, ArrivalRow, IngestBatchRow, ResultRow, RunRow
from tests.service.opened import key_of, opened

START = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = {"prediction": "said", "score": "chance", "ground_truth": "was", "timestamp": "at", "prediction_id": "id"}
CHECKS = "/v1/models/loans/checks"


def rows(days: int, seed: int, a_day: int = 60, older: float = 0.0) -> pa.Table:
    """Return labelled rows in order of time, of which three in four are right."""
    generator = np.random.default_rng(seed)
    n = days * a_day
    chance = generator.uniform(size=n)
    said = chance >= 0.5
    return pa.table(
        {
            "id": [f"{seed}-{place}" for place in range(n)],
            "at": [START + timedelta(days=1) / a_day * place for place in range(n)],
            "age": generator.normal(40 + older, 10, n),
            "job": generator.choice(["clerk", "nurse", "smith"], n),
            "said": said.astype(np.int64),
            "chance": chance,
            "was": (said ^ (np.arange(n) % 4 == 0)).astype(np.int64),
            "sex": generator.choice(["F", "M"], n),
        }
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with opened(tmp_path_factory.mktemp("checks")) as found:
        body = {"name": "loans", "task": "binary", "classes": ["0", "1"], "positive_class": "1"}
        body |= {"favourable_outcome": "0", "protected_attributes": ["sex"]}
        assert found.post("/v1/models", json=body).status_code == 201
        answer = sent(found, rows(30, 1), "baselines", name="training", protected="sex")
        assert answer.status_code == 201, answer.text
        for monitor in (
            {"name": "inputs", "kind": "data_drift"},
            {"name": "truth", "kind": "performance"},
            {"name": "quality", "kind": "data_quality"},
            {"name": "fair", "kind": "bias", "policy": {"threshold": {"DPPL": 0.9}}},
            {"name": "off", "kind": "prediction_drift", "enabled": False},
            {"name": "money", "kind": "posted_metrics", "parameters": {"metrics": ["mae"]}},
        ):
            assert found.post("/v1/models/loans/monitors", json=monitor).status_code == 201
        yield found


def sent(client: TestClient, table: pa.Table, what: str = "checks", **parameters: str) -> Any:
    """Send a file with its roles."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return client.post(
        f"/v1/models/loans/{what}",
        params=ROLES | parameters,
        content=sink.getvalue(),
        headers={"content-type": "application/vnd.apache.parquet"},
    )


def test_a_file_like_the_baseline_is_ok_by_every_monitor_that_is_on(client: TestClient) -> None:
    told = sent(client, rows(1, 2, a_day=200), protected="sex").json()
    assert (told["status"], told["rows"], told["baseline"], told["version"]) == ("ok", 200, "training", "1")
    assert told["window"] == {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    found = {run["monitor"]: run for run in told["runs"]}
    assert {name: run["status"] for name, run in found.items()} == {
        "inputs": "ok",
        "truth": "ok",
        "quality": "ok",
        "fair": "ok",
    }
    accuracy = next(one for one in found["truth"]["results"] if one["metric"] == "accuracy")
    # Every fourth of 200 rows is wrong, in the file as in the baseline.
    assert (accuracy["value"], accuracy["baseline_value"], accuracy["n_window"]) == (0.75, 0.75, 200)
    assert found["truth"]["labelled_rows"] == 200
    # The baseline is 30 days in order, so a day is compared with days: nothing has to assume independent rows.
    assert all(not one.get("note", "").startswith("calibrating") for one in found["inputs"]["results"])
    table = rows(1, 2, a_day=200)
    good, women = table["said"].to_numpy() == 0, np.array(table["sex"].to_pylist()) == "F"
    dppl = next(one for one in found["fair"]["results"] if one["metric"] == "DPPL" and one.get("group") == "F")
    assert dppl["value"] == pytest.approx(good[~women].mean() - good[women].mean())


def test_a_file_that_moved_is_violated_and_says_by_what(client: TestClient) -> None:
    told = sent(client, rows(1, 3, a_day=200, older=15.0), monitors="inputs").json()
    (run,) = told["runs"]
    assert (told["status"], run["status"], run["counts"]["violated"]) == ("violations", "violations", 1)
    assert run["reason"].startswith("age: wasserstein")
    # The alarm budget of one in 30 days for a day, shared by the four monitors that judge by it; none of it is spent.
    assert run["alpha"] == pytest.approx(1 / 30 / 4)


def test_nothing_of_a_file_is_kept(client: TestClient) -> None:
    sent(client, rows(1, 4, older=15.0))
    with client.app.state.assembly.database.reading() as session:  # type: ignore[attr-defined]
        for table in (ArrivalRow, IngestBatchRow, RunRow, ResultRow, AlertRow):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_a_file_without_times_or_labels_is_judged_as_far_as_it_goes(client: TestClient) -> None:
    bare = rows(1, 5, a_day=200).drop_columns(["at", "was", "id"])
    roles = {"timestamp": "", "ground_truth": "", "prediction_id": ""}
    told = sent(client, bare, monitors="inputs,truth", **roles).json()
    assert (told["status"], told["window"]) == ("partial", None)
    inputs, truth = told["runs"]
    assert inputs["status"] == "ok"
    assert all("the file has no times" in one["note"] for one in inputs["results"] if one["decides"])
    assert (truth["status"], truth["reason"]) == ("insufficient_data", "no row of the window has a label")


def test_a_good_file_becomes_a_baseline_and_a_bad_one_only_if_always(client: TestClient) -> None:
    good, bad = rows(1, 6, a_day=200), rows(1, 7, a_day=200, older=15.0)
    told = sent(client, bad, monitors="inputs", register="monday").json()
    assert (told["status"], told["registered"]) == ("violations", None)
    told = sent(client, good, monitors="inputs", register="monday").json()
    assert (told["registered"]["name"], told["registered"]["rows"]) == ("monday", 200)
    assert told["registered"]["active"] is False
    assert sent(client, good, monitors="inputs", register="monday").status_code == 409
    told = sent(client, bad, monitors="inputs", register="tuesday", **{"if": "always"}).json()
    assert (told["status"], told["registered"]["name"]) == ("violations", "tuesday")
    told = sent(client, bad, monitors="inputs", baseline="tuesday").json()
    assert (told["status"], told["baseline"]) == ("ok", "tuesday")


def test_what_is_named_and_not_there_is_refused_before_the_file_is_read(client: TestClient) -> None:
    table = rows(1, 8)
    assert "there is no monitor 'inputz'" in sent(client, table, monitors="inputs,inputz").json()["detail"]
    assert "a file holds rows" in sent(client, table, monitors="money").json()["detail"]
    assert sent(client, table, monitors=",").status_code == 422
    assert sent(client, table, baseline="nothing").status_code == 404
    assert client.post(CHECKS, content=b"{}", headers={"content-type": "application/json"}).status_code == 415
    answer = client.post(CHECKS, params={"register": "x"}, content=b"a", headers=key_of(client, Scope.OPERATE))
    assert (answer.status_code, "configure" in answer.json()["detail"]) == (403, True)


def test_a_model_without_a_baseline_says_so_and_one_without_monitors_is_checked_by_the_default_kinds(
    client: TestClient,
) -> None:
    assert client.post("/v1/models", json={"name": "new", "task": "binary", "classes": ["0", "1"]}).status_code == 201
    sink = io.BytesIO()
    pq.write_table(rows(2, 9), sink)

    def send(what: str, **more: str) -> Any:
        headers = {"content-type": "application/vnd.apache.parquet"}
        return client.post(f"/v1/models/new/{what}", params=ROLES | more, content=sink.getvalue(), headers=headers)

    assert send("checks").status_code in (404, 409)
    assert send("baselines", name="first").status_code == 201
    told = send("checks").json()
    kinds = {one["name"] for one in client.get("/v1/catalog/monitors").json()["items"] if one["default"]}
    assert {run["monitor"] for run in told["runs"]} == kinds
    assert told["status"] == "ok"
