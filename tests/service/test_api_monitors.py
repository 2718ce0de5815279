"""Monitors: made by kind with their defaults, tried before they cost anything, and read back as runs and results."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from monitors import discovery
from service.access import Scope
from tests.service.opened import key_of, opened

PARQUET = "application/vnd.apache.parquet"
START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, A_DAY = 40, 60
SHIFT = datetime(2026, 3, 3, tzinfo=UTC)


def table(start: datetime, days: int, shift: float = 0.0) -> pa.Table:
    generator = np.random.default_rng(days)
    n = days * A_DAY
    return pa.table(
        {
            "prediction_id": [f"{start:%Y%m%d}-{i}" for i in range(n)],
            "timestamp": pa.array([start + timedelta(days=1) / A_DAY * i for i in range(n)], pa.timestamp("us", "UTC")),
            "features.age": generator.normal(40, 10, n) + shift,
            "features.job": generator.choice(["clerk", "nurse"], n),
            "prediction": generator.integers(0, 2, n).astype(str),
        }
    )


def parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    return sink.getvalue()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Open a service whose model was watched for four days, the last two of them shifted by three deviations."""
    with opened(tmp_path_factory.mktemp("monitors")) as found:
        assert found.post("/v1/models", json={"name": "m", "task": "binary"}).status_code == 201
        headers = {"Content-Type": PARQUET}
        body = parquet(table(START, DAYS))
        assert found.post("/v1/models/m/baselines?name=b", content=body, headers=headers).status_code == 201
        begin = SHIFT - timedelta(days=2)
        made = found.post("/v1/models/m/monitors/defaults", json={"window": "1d", "start": begin.isoformat()})
        assert made.status_code == 201, made.text
        span = {"from": begin.isoformat(), "to": (SHIFT + timedelta(days=2)).isoformat()}
        replay = found.post("/v1/models/m/replays", json=span)
        assert replay.status_code in (200, 201), replay.text
        for rows in (table(begin, 2), table(SHIFT, 2, shift=30.0)):
            sent = found.post("/v1/models/m/predictions", content=parquet(rows), headers=headers)
            assert sent.json()["accepted"] == 2 * A_DAY, sent.text
        closed = found.delete(f"/v1/models/m/replays/{replay.json()['id']}", headers={"Prefer": "wait=60"})
        assert closed.status_code in (200, 202, 204), closed.text
        yield found


def create(client: TestClient, name: str, **members: Any) -> Any:
    return client.post("/v1/models/m/monitors", json={"name": name, "kind": "data_drift", "enabled": False, **members})


def test_the_default_monitors_are_the_kinds_that_say_so(client: TestClient) -> None:
    # The baseline has no ground truth, so nothing is made that needs labels.
    expected = [name for name, kind in discovery.kinds().items() if kind.default and not kind.needs_labels]
    items = client.get("/v1/models/m/monitors").json()["items"]
    assert [item["name"] for item in items if item["enabled"]] == expected
    again = client.post("/v1/models/m/monitors/defaults", json={"window": "7d"}).json()["items"]
    assert {item["window"] for item in again} == {"1d"}  # those that are there stay as they are


def test_a_monitor_is_shown_with_every_default(client: TestClient) -> None:
    made = create(client, "bare")
    assert made.status_code == 201, made.text
    document = made.json()
    assert (document["schedule"], document["window"], document["baseline"]) == ("daily", "1d", "active")
    assert (document["versions"], document["policy"]) == ("each", {"budget": {}})
    assert document["parameters"]["features"] == "all"
    assert document["parameters"]["except"] == []
    assert made.headers["Location"] == "/v1/models/m/monitors/bare"
    assert create(client, "bare").status_code == 409


def test_the_window_is_the_period_of_the_schedule_unless_it_is_named(client: TestClient) -> None:
    windows = {
        schedule: create(client, f"every-{schedule}", schedule=schedule).json()["window"]
        for schedule in ("hourly", "daily", "weekly", "monthly")
    }
    assert windows == {"hourly": "1h", "daily": "1d", "weekly": "7d", "monthly": "1mo"}
    assert create(client, "overlapping", schedule="daily", window="7d").json()["window"] == "7d"


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"kind": "astrology"}, "/kind"),
        ({"schedule": "now and then"}, "/schedule"),
        ({"schedule": "30 6 * * mon"}, "/schedule"),
        ({"schedule": "0 6 * * 1"}, "/schedule"),
        ({"window": "2d"}, "/window"),
        ({"offset": "90m"}, "/offset"),
        ({"parameters": {"colour": "red"}}, "/parameters/colour"),
        ({"parameters": {"min_rows": 0}}, "/parameters/min_rows"),
        ({"parameters": {"methods": {"age": "tarot"}}}, "/parameters"),
        ({"policy": {"budget": {"share": 2}}}, "/policy"),
        ({"policy": {"threshold": {}}}, "/policy"),
        ({"policy": {"sagemaker": {"magic": 1}}}, "/policy"),
        ({"parameters": {"methods": {"numeric": "es"}}}, "/policy"),
        ({"baseline": "seasonal", "schedule": "weekly", "window": "7d"}, "/baseline"),
        ({"policy": {"budget": {}, "threshold": {"psi": 1}}}, "/policy"),
        ({"versions": "some"}, "/versions"),
        ({"baseline": "absent"}, "/baseline"),
        ({"slices": ["eu"]}, "/slices/0"),
        ({"actions": ["nobody"]}, "/actions/0"),
        ({"labels": {"delay": "soon"}}, "/labels/delay"),
        ({"start": "2026-01-01"}, "/start"),
    ],
)
def test_what_makes_no_sense_is_422_at_its_place(client: TestClient, members: dict[str, Any], pointer: str) -> None:
    answer = create(client, "senseless", **members)
    assert answer.status_code == 422, answer.text
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


def test_a_cron_line_with_named_days_is_a_schedule(client: TestClient) -> None:
    assert create(client, "cron", schedule="0 6 * * mon", window="7d").json()["schedule"] == "0 6 * * mon"


def test_a_dry_run_makes_nothing_and_says_what_it_would_cost(client: TestClient) -> None:
    body = {"name": "trial", "kind": "data_drift", "policy": {"budget": {"share": 0.3}}}
    answer = client.post("/v1/models/m/monitors?dry_run=true", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    # one false alarm in 30 days, daily windows: 1/30 for the model, of which 0.3, over two features
    assert told["alpha"] == pytest.approx(0.3 / 30)
    assert {subject["feature"]: subject["alpha"] for subject in told["subjects"]} == {
        "age": pytest.approx(0.3 / 60),
        "job": pytest.approx(0.3 / 60),
    }
    # two-sided at 0.005 with 80 % power: (2.807 + 0.842) sqrt(1/2400 + 1/60) = 0.477
    (age,) = (subject for subject in told["subjects"] if subject["feature"] == "age")
    assert (told["n_baseline"], told["n_window"]) == (2400, 60)
    assert age["smallest_shift"]["value"] == pytest.approx(0.477, abs=0.001)
    assert told["monitor"]["parameters"]["min_rows"] >= 1
    assert client.get("/v1/models/m/monitors/trial").status_code == 404


def test_a_dry_run_of_thresholds_shows_the_threshold_of_each_subject(client: TestClient) -> None:
    body = {"name": "t", "kind": "data_drift", "policy": {"threshold": {"psi": 0.2, "psi:age": 0.3}}}
    told = client.post("/v1/models/m/monitors?dry_run=true", json=body).json()
    assert "alpha" not in told
    assert {subject["feature"]: subject["thresholds"] for subject in told["subjects"]} == {
        "age": {"psi": 0.3},
        "job": {"psi": 0.2},
    }


def test_a_change_is_checked_like_a_new_monitor(client: TestClient) -> None:
    create(client, "altered")
    path = "/v1/models/m/monitors/altered"
    changed = client.patch(path, json={"schedule": "weekly", "policy": {"threshold": {"psi": 0.2}}})
    assert (changed.json()["window"], changed.json()["revision"]) == ("7d", 2)
    assert client.patch(path, json={"parameters": {"colour": 1}}).status_code == 422
    assert client.patch(path, json={"kind": "data_quality"}).status_code == 422
    assert client.patch(path, json={"enabled": True}, headers={"If-Match": '"1"'}).status_code == 412
    told = client.patch(f"{path}?dry_run=true", json={"policy": {}}).json()
    assert "alpha" in told
    assert client.get(path).json()["policy"] == {"threshold": {"psi": 0.2}}


def test_a_deleted_monitor_is_gone(client: TestClient) -> None:
    create(client, "brief")
    assert client.delete("/v1/models/m/monitors/brief").status_code == 204
    assert client.get("/v1/models/m/monitors/brief").status_code == 404


# --- what they found --------------------------------------------------------------------------------------------------


def test_runs_are_listed_with_the_newest_window_first(client: TestClient) -> None:
    items = client.get("/v1/models/m/monitors/data_drift/runs").json()["items"]
    assert [item["window"]["from"][:10] for item in items] == ["2026-03-04", "2026-03-03", "2026-03-02", "2026-03-01"]
    assert [item["status"] for item in items] == ["violations", "violations", "ok", "ok"]
    assert {(item["rows"], item["baseline"], item["version"], item["layout"]) for item in items} == {(60, "b", "1", 1)}
    part = client.get("/v1/models/m/monitors/data_drift/runs", params={"from": "2026-03-02T00:00:00Z", "status": "ok"})
    assert [item["window"]["from"][:10] for item in part.json()["items"]] == ["2026-03-02"]


def test_a_run_holds_every_result_with_its_verdict(client: TestClient) -> None:
    listed = client.get("/v1/models/m/monitors/data_drift/runs?limit=1").json()["items"][0]
    run = client.get(f"/v1/models/m/monitors/data_drift/runs/{listed['id']}").json()
    verdicts = {result["feature"]: result["verdict"] for result in run["results"] if result["scale"] == 1}
    assert verdicts == {"age": "violated", "job": "ok"}
    assert run["counts"]["violated"] >= 1
    for result in run["results"]:
        assert {"metric", "value", "direction", "n_window", "n_baseline", "verdict"} <= set(result)
    assert client.get(f"/v1/models/m/runs/{listed['id']}").json() == run
    assert client.get("/v1/models/m/monitors/data_drift/runs/unknown").status_code == 404
    assert client.get(f"/v1/models/m/monitors/data_quality/runs/{listed['id']}").status_code == 404


def test_results_can_be_filtered_and_paged_by_windows(client: TestClient) -> None:
    parameters: dict[str, Any] = {"feature": "age", "verdict": "violated", "scale": 1, "monitor": "data_drift"}
    answer = client.get("/v1/models/m/results", params=parameters).json()
    assert [item["from"][:10] for item in answer["items"]] == ["2026-03-04", "2026-03-03"]
    first = client.get("/v1/models/m/results", params={**parameters, "limit": 1})
    assert [item["from"][:10] for item in first.json()["items"]] == ["2026-03-04"]
    assert 'rel="next"' in first.headers["Link"]
    following = client.get("/v1/models/m/results", params={**parameters, "cursor": first.json()["next_cursor"]})
    assert following.status_code == 200, following.text
    assert [item["from"][:10] for item in following.json()["items"]] == ["2026-03-03"]


def test_a_series_comes_in_the_form_that_is_asked_for(client: TestClient) -> None:
    path = "/v1/models/m/metrics"
    parameters: dict[str, Any] = {"metric": "wasserstein", "feature": "age", "scale": 1}
    items = client.get(path, params=parameters).json()["items"]
    values = [item["value"] for item in items]
    assert len(values) == 4
    assert max(values[:2]) < 1 < min(values[2:])  # three standard deviations from the third day on
    for kind in ("text/csv", PARQUET, "application/vnd.apache.arrow.stream"):
        answer = client.get(path, params=parameters, headers={"Accept": f"{kind}, */*;q=0.1"})
        assert answer.headers["Content-Type"].startswith(kind)
        if kind == "text/csv":
            found = pyarrow.csv.read_csv(io.BytesIO(answer.content))
        elif kind == PARQUET:
            found = pq.read_table(io.BytesIO(answer.content))
        else:
            found = pa.ipc.open_stream(answer.content).read_all()
        assert found["value"].to_pylist() == pytest.approx(values)
    refused = client.get(path, params=parameters, headers={"Accept": "image/png"})
    assert refused.status_code == 406
    assert client.get(path).status_code == 422


def test_the_profile_of_a_window_counts_every_row(client: TestClient) -> None:
    parameters = {"from": "2026-03-03T00:00:00Z", "to": "2026-03-05T00:00:00Z"}
    found = client.get("/v1/models/m/profile", params=parameters).json()
    assert found["rows"] == 2 * A_DAY
    age, job = found["columns"]["age"], found["columns"]["job"]
    assert (age["count"], sum(age["histogram"]["counts"])) == (120, 120)
    assert len(age["histogram"]["edges"]) == len(age["histogram"]["counts"]) + 1
    assert age["mean"] == pytest.approx(70, abs=4)
    assert sum(job["counts"].values()) == 120
    half = {"from": "2026-03-03T00:30:00Z", "to": "2026-03-05T00:00:00Z"}
    assert client.get("/v1/models/m/profile", params=half).status_code == 422
    one = client.get("/v1/models/m/profile", params={**parameters, "feature": "age"}).json()
    assert list(one["columns"]) == ["age"]


def test_the_figures_name_the_monitors(client: TestClient) -> None:
    text = client.get("/metrics").text
    assert 'plumbline_monitor_violations{model="m",monitor="data_drift",version="1"} 1.0' in text
    assert 'plumbline_ingest_records_total{model="m",kind="predictions",outcome="accepted"} 240.0' in text


def test_what_was_found_for_one_model_does_not_exist_for_a_key_of_another(client: TestClient) -> None:
    (alert,) = client.get("/v1/alerts", params={"model": "m"}).json()["items"]
    run = client.get("/v1/models/m/runs?limit=1").json()["items"][0]
    bound = key_of(client, *Scope, models=["other"])
    for path in (f"/v1/alerts/{alert['id']}", f"/alerts/{alert['id']}", f"/alerts/{alert['id']}.json"):
        assert client.get(path).status_code == 200, path
        assert client.get(path, headers=bound).status_code == 404, path
    for verb in ("acknowledge", "resolve", "mute"):
        assert client.post(f"/v1/alerts/{alert['id']}/{verb}", headers=bound, json={}).status_code == 404
    for path in ("/v1/alerts", "/v1/jobs", "/fleet.json", "/metrics", "/v1/webhooks"):
        text = client.get(path, headers=bound).text
        assert alert["id"] not in text, path
        assert run["id"] not in text, path
        assert 'model="m"' not in text, path
    assert client.get("/v1/alerts", params={"model": "m"}, headers=bound).status_code in (200, 404)
    assert alert["id"] not in client.get("/v1/alerts", params={"model": "m"}, headers=bound).text
