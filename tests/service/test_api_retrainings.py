"""Retraining over HTTP: the policy, links that let in by themselves, rows without what is protected, reports."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import select
from starlette.testclient import TestClient
from werkzeug import Request, Response

from service import backup
from service.access import Scope, link_token
from service.tables import AlertRow, ModelRow, RetrainingRow, VersionRow
from service.webhooks import CALLBACK, TRAINING_DATA
from service.words import derived_id, format_time
from tests.service.asked import POLICY
from tests.service.opened import key_of, opened, parts_of, scheduler_of

PARQUET = {"Content-Type": "application/vnd.apache.parquet"}
START = datetime(2026, 9, 7, tzinfo=UTC)
DAY = timedelta(days=1)
A_DAY = 60


def rows(days: int, first: int = 0, version: str = "v1", right: float = 0.6) -> pd.DataFrame:
    """Return so many rows a day, of which the version is right about a share, with what is protected among them."""
    generator = np.random.default_rng([days, first + 100])
    count = days * A_DAY
    truth = generator.integers(0, 2, count)
    said = np.where(np.random.default_rng(len(version)).random(count) < right, truth, 1 - truth)
    return pd.DataFrame(
        {
            "prediction_id": [f"p{first}-{number}" for number in range(count)],
            "timestamp": [START + (first + number / A_DAY) * DAY for number in range(count)],
            "version": version,
            "features.age": generator.normal(40, 10, count),
            "features.sex": generator.choice(["F", "M"], count),
            "prediction": said.astype(str),
            "score": np.where(said == 1, 0.8, 0.2),
            "ground_truth": truth.astype(str),
        }
    )


def parquet(table: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    table.to_parquet(sink, index=False)
    return sink.getvalue()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with opened(tmp_path_factory.mktemp("retrainings"), public_url="http://testserver") as found:
        body = {"name": "loans", "task": "binary", "protected_attributes": ["sex"], "positive_class": "1"}
        assert found.post("/v1/models", json=body | {"classes": ["0", "1"]}).status_code == 201
        roles = {"name": "training", "version": "v1"}
        wait = {"Prefer": "wait=60"}
        content = parquet(rows(2, -20).drop(columns=["version"]))
        answer = found.post("/v1/models/loans/baselines", params=roles, content=content, headers=PARQUET | wait)
        assert answer.status_code == 201, answer.text
        sent = rows(6)
        sent.loc[sent.index[-30:], "ground_truth"] = None
        assert found.post("/v1/models/loans/predictions", content=parquet(sent), headers=PARQUET).status_code == 200
        gap = {"from": format_time(START + DAY), "to": format_time(START + 2 * DAY), "reason": "a broken sensor"}
        assert found.post("/v1/models/loans/windows/exclude", json=gap).status_code < 300
        for kind in ("data_quality", "data_drift"):
            assert found.post("/v1/models/loans/monitors", json={"name": kind, "kind": kind}).status_code == 201
        yield found


def asked(client: TestClient, mark: str, **changes: Any) -> str:
    """Store a retraining of six days as a run would, and return its id."""
    parts = parts_of(client)
    uid = derived_id("test", mark)
    with parts.database.writing() as session:
        model, version = session.scalars(select(ModelRow)).one(), session.scalars(select(VersionRow)).first()
        assert version is not None
        alert = AlertRow(
            uid=derived_id("alert", mark),
            model_id=model.id,
            version_id=version.id,
            state="open",
            severity="warning",
            sentence="it moved",
            starts_at=START + 4 * DAY,
            last_violated_at=START + 6 * DAY,
            opened_at=START,
            updated_at=START,
        )
        session.add(alert)
        session.flush()
        windows = [{"from": format_time(START + 5 * DAY), "to": format_time(START + 6 * DAY)}]
        row = RetrainingRow(
            uid=uid,
            model_id=model.id,
            version_id=version.id,
            alert_id=alert.id,
            attempt=1,
            state="requested",
            reason="performance was violated",
            evidence={"windows": windows},
            policy=POLICY,
            baseline="training",
            moment=START + 6 * DAY,
            created_at=parts.clock.now(),
            deadline_at=parts.clock.now() + DAY,
            training={"from": format_time(START), "to": format_time(START + 6 * DAY)},
            log=[],
        )
        for name, value in changes.items():
            setattr(row, name, value)
        session.add(row)
    return uid


def token(client: TestClient, purpose: str, uid: str, valid: timedelta = DAY) -> str:
    parts = parts_of(client)
    return link_token(parts.secret, purpose, uid, parts.clock.now() + valid)


# --- the policy -------------------------------------------------------------------------------------------------------


def test_a_policy_is_put_read_held_to_its_revision_and_removed(client: TestClient) -> None:
    path = "/v1/models/loans/retraining"
    assert client.get(path).status_code == 404
    made = client.put(path, json={"when": {"monitors": ["data_drift"]}})
    assert made.status_code == 200, made.text
    assert made.json()["cooldown"] == "7d"
    assert made.json()["not_while"] == ["data_quality"]
    stale = client.put(path, json={"when": {"monitors": ["data_drift"]}}, headers={"If-Match": '"7"'})
    assert stale.status_code == 412
    changed = client.put(path, json={"when": {"monitors": ["data_drift"]}}, headers={"If-Match": made.headers["ETag"]})
    assert changed.json()["revision"] == 2
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"when": {"monitors": ["absent"]}}, "/when/monitors/0"),
        ({"when": {"monitors": []}}, "/when/monitors"),
        ({"when": {"monitors": ["data_drift"], "windows": "3 of 2"}}, "/when/windows"),
        ({"when": {"monitors": ["data_drift"], "windows": "often"}}, "/when/windows"),
        ({"not_while": ["absent"]}, "/not_while/0"),
        ({"cooldown": "soon"}, "/cooldown"),
        ({"at_most": {"per": "1d", "times": 0}}, "/at_most/times"),
        ({"approval": "perhaps"}, "/approval"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_its_place(
    client: TestClient, changes: dict[str, Any], pointer: str
) -> None:
    answer = client.put("/v1/models/loans/retraining", json={"when": {"monitors": ["data_drift"]}} | changes)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_come_with_a_manifest_and_without_what_is_protected_or_left_out(
    client: TestClient, tmp_path: Path
) -> None:
    uid = asked(client, "rows")
    path, params = f"/v1/retrainings/{uid}/training-data", {"token": token(client, TRAINING_DATA, uid)}
    bare = {"Authorization": ""}
    manifest = client.get(path, params=params, headers=bare | {"Accept": "application/json"}).json()
    # five of six days, the last 30 rows without a label, and the baseline's 120
    assert (manifest["rows_of_production"], manifest["unlabelled_rows"], manifest["rows_of_baseline"]) == (270, 30, 120)
    assert manifest["coverage"] == 0.9
    assert manifest["excluded"] == [
        {"from": format_time(START + DAY), "to": format_time(START + 2 * DAY), "reason": "excluded: a broken sensor"}
    ]
    assert manifest["left_out"] == ["sex"]
    answer = client.get(path, params=params, headers=bare)
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    import hashlib

    assert manifest["digest"] == "sha256:" + hashlib.sha256(answer.content).hexdigest()
    file = pq.ParquetFile(io.BytesIO(answer.content))
    assert b"a broken sensor" in file.metadata.metadata[b"plumbline"]
    table = file.read().to_pandas()
    assert len(table) == manifest["rows"] == 390
    assert "features.sex" not in table.columns
    assert "sex" not in " ".join(table.columns)
    assert table["ground_truth"].notna().all()
    gap = (table["timestamp"] >= START + DAY) & (table["timestamp"] < START + 2 * DAY)
    assert not gap.any()
    again = client.get(path, params=params, headers=bare)
    assert again.content == answer.content
    # the link goes on after a restore: the file is in a backup as long as the link is valid
    parts = parts_of(client)
    backup.backup(parts.settings, tmp_path / "backup", parts.clock)
    kept = tmp_path / "backup" / "lake" / "training" / f"{uid}.parquet"
    assert kept.read_bytes() == answer.content


def test_a_link_lets_in_to_its_own_object_and_method_for_its_time(client: TestClient) -> None:
    uid, other = asked(client, "link"), asked(client, "other")
    path, bare = f"/v1/retrainings/{uid}/training-data", {"Authorization": ""}
    for wrong in (
        "",
        "x",
        token(client, TRAINING_DATA, other),
        token(client, CALLBACK, uid),
        token(client, TRAINING_DATA, uid, timedelta(seconds=-1)),
    ):
        assert client.get(path, params={"token": wrong}, headers=bare).status_code == 401
    report = client.post(
        f"/v1/retrainings/{uid}/status",
        params={"token": token(client, TRAINING_DATA, uid)},
        json={"state": "running"},
        headers=bare,
    )
    assert report.status_code == 401
    assert client.get(path, headers=key_of(client, Scope.READ)).status_code == 401


def test_a_link_is_renewed_by_whoever_may_read_rows(client: TestClient) -> None:
    uid = asked(client, "renewed")
    path = f"/v1/retrainings/{uid}/training-data-link"
    assert client.get(path, headers=key_of(client, Scope.READ)).status_code == 403
    answer = client.get(path, headers=key_of(client, Scope.ROWS))
    link = answer.json()["training_data_url"]
    assert client.get(link, headers={"Authorization": "", "Accept": "application/json"}).json()["rows"] > 0
    shown = client.get(f"/v1/retrainings/{uid}", headers=key_of(client, Scope.READ))
    assert "token" not in shown.text


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [50, pytest.param(1000, marks=pytest.mark.long)])
def test_a_report_replayed_any_number_of_times_has_one_effect(client: TestClient, times: int) -> None:
    uid = asked(client, f"replayed {times} times")
    params, bare = {"token": token(client, CALLBACK, uid)}, {"Authorization": ""}
    answers = [
        client.post(f"/v1/retrainings/{uid}/status", params=params, json={"state": "running"}, headers=bare).json()
        for _ in range(times)
    ]
    assert sum(answer["changed"] for answer in answers) == 1
    shown = client.get(f"/v1/retrainings/{uid}").json()
    assert [line["state"] for line in shown["log"]] == ["running"]
    back = client.post(f"/v1/retrainings/{uid}/status", params=params, json={"state": "accepted"}, headers=bare)
    assert back.status_code == 409
    assert "running" in back.json()["detail"]


def test_a_candidate_is_compared_on_rows_it_has_not_seen_and_promoted_by_the_policy(client: TestClient) -> None:
    uid = asked(client, "candidate", policy=POLICY | {"promote": "auto"})
    params, bare = {"token": token(client, CALLBACK, uid)}, {"Authorization": ""}
    path = f"/v1/retrainings/{uid}/status"
    unknown = client.post(path, params=params, json={"state": "succeeded", "version": "v9"}, headers=bare)
    assert unknown.status_code == 422
    assert client.post("/v1/models/loans/versions", json={"version": "v2"}).status_code == 201
    shadow = rows(6, version="v2", right=0.95)
    shadow = shadow[shadow["timestamp"] >= START + 4 * DAY].drop(columns=["ground_truth"])
    assert client.post("/v1/models/loans/predictions", content=parquet(shadow), headers=PARQUET).status_code == 200
    body = {"state": "succeeded", "version": "v2", "trained_until": format_time(START + 4 * DAY)}
    answer = client.post(path, params=params, json=body, headers=bare)
    assert answer.status_code == 200, answer.text
    found = answer.json()["comparison"]
    assert found["measured"]
    assert not found["seen_in_training"]
    assert found["rows"] == 2 * A_DAY - 30  # the last 30 have no label
    by_name = {one["metric"]: one for one in found["metrics"]}
    assert {name for name, one in by_name.items() if one["decides"]} == {"accuracy", "f1", "roc_auc"}
    assert by_name["accuracy"]["challenger"] > by_name["accuracy"]["champion"]
    assert by_name["accuracy"]["interval"][0] > 0
    assert by_name["log_loss"]["interval"][1] < 0
    assert found["predicted_by"] == "posted"
    assert found["better"]
    shown = client.get(f"/v1/retrainings/{uid}").json()
    assert (shown["candidate"], shown["promoted_by"]) == ("v2", "policy")
    assert client.get("/v1/models/loans/versions/v2").json()["active"]
    assert client.post(f"/v1/retrainings/{uid}/rollback").json()["rolled_back_at"]
    assert client.get("/v1/models/loans/versions/v1").json()["active"]
    # what was rolled back is not promoted by the policy again
    assert client.post(f"/v1/retrainings/{uid}/compare", headers={"Prefer": "wait=60"}).json()["comparison"]["better"]
    assert client.get("/v1/models/loans/versions/v1").json()["active"]


def test_without_rows_of_the_candidate_nothing_is_measured_and_promotion_is_by_hand(client: TestClient) -> None:
    uid = asked(client, "unmeasured", policy=POLICY | {"promote": "auto"})
    params = {"token": token(client, CALLBACK, uid)}
    client.post("/v1/models/loans/versions", json={"version": "v3"})
    body = {"state": "succeeded", "version": "v3"}
    answer = client.post(f"/v1/retrainings/{uid}/status", params=params, json=body).json()
    assert not answer["comparison"]["measured"]
    assert "version v3 with the same ids" in answer["comparison"]["reason"]
    assert not client.get("/v1/models/loans/versions/v3").json()["active"]
    assert client.post(f"/v1/retrainings/{uid}/promote").status_code == 200
    assert client.get("/v1/models/loans/versions/v3").json()["active"]
    assert client.post(f"/v1/retrainings/{uid}/rollback").status_code == 200


def served(age: pd.Series) -> np.ndarray:
    """Return the chances that a model would give that has learnt what `aged` rows follow."""
    return np.asarray(1 / (1 + np.exp(-(age - 40) / 4)))


def aged(first: int, days: int) -> pd.DataFrame:
    """Return rows whose label follows the age, which the champion does not know."""
    table = rows(days, first)
    truth = np.random.default_rng(first + 200).random(len(table)) < served(table["features.age"])
    return table.assign(ground_truth=truth.astype(int).astype(str))


@pytest.mark.parametrize("way", [pytest.param("artifact", marks=pytest.mark.long), "endpoint"])
def test_a_candidate_is_asked_for_its_predictions_by_its_artifact_or_endpoint(
    way: str, tmp_path: Path, httpserver: HTTPServer
) -> None:
    with opened(tmp_path, outbound_allow=("127.0.0.1",), outbound_http=True) as client:
        body = {"name": "risk", "task": "binary", "classes": ["0", "1"], "positive_class": "1"}
        client.post("/v1/models", json=body).raise_for_status()
        known = {"name": "training", "version": "v1"}
        content = parquet(aged(-20, 2).drop(columns=["version"]))
        client.post("/v1/models/risk/baselines", params=known, content=content, headers=PARQUET).raise_for_status()
        content = parquet(aged(0, 6))
        client.post("/v1/models/risk/predictions", content=content, headers=PARQUET).raise_for_status()
        uid = asked(client, f"by {way}", policy=POLICY | {"promote": "auto"})
        client.post("/v1/models/risk/versions", json={"version": "v2"}).raise_for_status()
        path = "/v1/models/risk/versions/v2/artifact"
        if way == "artifact":
            seen = aged(-90, 60)
            data = lightgbm.Dataset(seen[["features.age"]].set_axis(["age"], axis=1), seen["ground_truth"].astype(int))
            model = lightgbm.train({"objective": "binary", "verbose": -1, "num_leaves": 8, "num_threads": 1}, data, 20)
            client.put(path, content=model.model_to_string().encode()).raise_for_status()
        else:

            def answer(request: Request) -> Response:
                ages = pd.Series([record["age"] for record in json.loads(request.data)["records"]])
                return Response(json.dumps({"predictions": served(ages).tolist()}), content_type="application/json")

            httpserver.expect_request("/predict").respond_with_handler(answer)
            endpoint = {"url": httpserver.url_for("/predict"), "protocol": "plain"}
            client.put(path, json={"endpoint": endpoint}).raise_for_status()
        told = client.post(
            f"/v1/retrainings/{uid}/status",
            params={"token": token(client, CALLBACK, uid)},
            json={"state": "succeeded", "version": "v2", "trained_until": format_time(START)},
        )
        assert told.json()["comparison"] is None  # it is asked a moment later
        scheduler_of(client).tick()
        shown = client.get(f"/v1/retrainings/{uid}").json()
        found = shown["comparison"]
        assert found["measured"], found["reason"]
        assert (found["predicted_by"], found["rows"]) == (way, 6 * A_DAY)
        by_name = {one["metric"]: one for one in found["metrics"]}
        assert by_name["roc_auc"]["champion"] < 0.6
        assert by_name["roc_auc"]["challenger"] > 0.8
        assert (found["better"], shown["promoted_by"]) == (True, "policy")
        # a model that does not answer any more is no reason to promote, nor to fail
        if way == "endpoint":
            client.post(f"/v1/retrainings/{uid}/rollback").raise_for_status()
            httpserver.clear()
            httpserver.expect_request("/predict").respond_with_data("gone", status=500)
            found = client.post(f"/v1/retrainings/{uid}/compare", headers={"Prefer": "wait=60"}).json()["comparison"]
            assert not found["measured"]
            assert "the endpoint answered 500" in found["reason"]


def test_people_decide_and_repeats_are_the_same(client: TestClient) -> None:
    uid = asked(client, "decided", state="awaiting_approval", deadline_at=None)
    for _ in range(2):
        assert client.post(f"/v1/retrainings/{uid}/approve").json()["state"] == "requested"
    assert client.post(f"/v1/retrainings/{uid}/reject").status_code == 409
    for _ in range(2):
        assert client.post(f"/v1/retrainings/{uid}/cancel").json()["state"] == "cancelled"
    listed = client.get("/v1/retrainings?state=cancelled").json()["items"]
    assert [item["id"] for item in listed] == [uid]
    assert client.get("/v1/retrainings?state=lost").status_code == 422


def test_a_key_bound_to_another_model_knows_of_none(client: TestClient) -> None:
    uid = asked(client, "bound")
    headers = key_of(client, *Scope, models=["theirs"])
    assert client.get(f"/v1/retrainings/{uid}", headers=headers).status_code == 404
    assert client.get("/v1/retrainings", headers=headers).json()["items"] == []
    assert client.post(f"/v1/retrainings/{uid}/cancel", headers=headers).status_code == 404
