"""Explanations as callers meet them: an artifact put, predictions attributed, kept, and read years later."""

import csv
import io
import json
import pickle
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sqlalchemy import select
from starlette.testclient import TestClient
from werkzeug import Request, Response

from service.app import create_app
from service.clock import SetClock
from service.runs import ATTEMPTS
from service.settings import Settings
from service.tables import ModelRow
from tests.conftest import ADMIN_KEY
from tests.explainers.oracle import skops_bytes, tree_values
from tests.running import UNHURRIED

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = ["age", "income", "debt"]


def people(rows: int, seed: int) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(rows, 3)), columns=NAMES)


def chance(frame: pd.DataFrame) -> Any:
    return lightgbm_model().predict(frame)


_held: list[Any] = []


def lightgbm_model() -> Any:
    """Train once: the chance of default grows with debt and falls with income; age plays no part."""
    if not _held:
        frame = people(2000, 0)
        risk = 1 / (1 + np.exp(-(2 * frame["debt"] - frame["income"])))
        answer = np.random.default_rng(1).random(2000) < risk
        data = lightgbm.Dataset(frame, answer)
        _held.append(lightgbm.train({"objective": "binary", "verbose": -1, "num_leaves": 8}, data, 30))
    return _held[0]


def artifact() -> bytes:
    return bytes(lightgbm_model().model_to_string().encode())


def file(frame: pd.DataFrame, start: datetime, prefix: str, **columns: Any) -> bytes:
    """Return records as CSV, two hundred a day."""
    told = frame.assign(
        prediction_id=[f"{prefix}{place}" for place in range(len(frame))],
        timestamp=[(start + timedelta(hours=place * 24 // 200)).isoformat() for place in range(len(frame))],
        score=chance(frame),
        prediction=(chance(frame) > 0.5).astype(int),
        **columns,
    )
    return told.to_csv(index=False).encode()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Return a service with two models of defaults, their baselines and a day of predictions; and a model with nothing.

    The first is what LightGBM learnt, uploaded; nothing is uploaded for the others.
    """
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("explanations"),
        admin_key=SecretStr(ADMIN_KEY),
        outbound_allow=("127.0.0.1",),
        outbound_http=True,
        tick_seconds=3600.0,
    )
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", **UNHURRIED}
    with TestClient(create_app(settings, SetClock(NOW)), raise_server_exceptions=False, headers=headers) as made:
        about = {"task": "binary", "classes": ["0", "1"], "positive_class": "1", "favourable_outcome": "0"}
        for name in ("loans", "served", "bare"):
            assert made.post("/v1/models", json={"name": name, **about}).status_code == 201
        csv_type = {"content-type": "text/csv"}
        roles = {name: name for name in ("score", "prediction", "timestamp", "prediction_id")}
        baseline = file(people(400, 3), NOW - timedelta(days=30), "b")
        for name in ("loans", "served"):
            answer = made.post(
                f"/v1/models/{name}/baselines",
                params={"name": "reference", **roles},
                content=baseline,
                headers=csv_type,
            )
            assert answer.status_code == 201, answer.text
        sent = file(people(200, 4), NOW - timedelta(days=1), "p")
        for name in ("loans", "served", "bare"):
            answer = made.post(f"/v1/models/{name}/predictions", content=sent, headers=csv_type)
            assert answer.status_code == 200, answer.text
        answer = put(made, artifact())
        assert answer.status_code == 200, answer.text
        assert answer.json()["inputs"] == NAMES
        yield made


def put(client: TestClient, data: bytes, model: str = "loans") -> Any:
    return client.put(f"/v1/models/{model}/versions/1/artifact", content=data)


def test_a_prediction_is_explained_by_its_id(client: TestClient) -> None:
    digest = client.get("/v1/models/loans/versions/1/artifact").json()["digest"]
    answer = client.post("/v1/models/loans/explanations", json={"prediction_ids": ["p0", "p1"], "keep": True})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    item = told["items"][0]
    expected = tree_values(lightgbm_model(), people(200, 4).head(2))
    assert [item["attributions"][name] for name in NAMES] == pytest.approx(list(expected[0]), abs=1e-6)
    assert item["base_value"] + sum(item["attributions"].values()) == pytest.approx(item["prediction"])
    about = {name: item[name] for name in ("version", "artifact_digest", "method", "exact", "output", "class", "seed")}
    assert about == {
        "version": "1", "artifact_digest": digest, "method": "native", "exact": True, "output": "margin", "class": "1",
        "seed": 0,
    }  # fmt: skip
    assert item["background"] == {"note": "the rows that the model's trees counted in training"}
    assert item["features"] == pytest.approx(people(200, 4).iloc[0].to_dict())
    # the favourable outcome is 0 and class 1 is explained: what pushes up speaks against the person
    assert [reason["feature"] for reason in item["reasons"]] == [
        name for name, value in sorted(item["attributions"].items(), key=lambda pair: -pair[1]) if value > 0
    ]
    assert item["logged"]["score"] == pytest.approx(float(chance(people(200, 4).head(1))[0]))

    again = client.post("/v1/models/loans/explanations", json={"prediction_ids": ["p0", "p1"], "keep": True}).json()
    assert again["cached"]
    assert again["items"] == told["items"]

    kept = client.get(f"/v1/explanations/{told['id']}")
    assert kept.json()["items"] == told["items"]
    assert kept.json()["software"]["lightgbm"] == lightgbm.__version__
    rows = list(csv.DictReader(io.StringIO(client.get(f"/v1/explanations/{told['id']}?format=csv").text)))
    assert [(row["prediction_id"], row["feature"]) for row in rows][:4] == [
        ("p0", "age"), ("p0", "income"), ("p0", "debt"), ("p1", "age"),
    ]  # fmt: skip
    assert float(rows[0]["attribution"]) == item["attributions"]["age"]
    assert float(rows[0]["value"]) == pytest.approx(item["features"]["age"])
    assert (rows[0]["exact"], rows[0]["seed"]) == ("true", "0")
    printed = client.get(f"/v1/explanations/{told['id']}", headers={"accept": "text/html"}, follow_redirects=False)
    assert printed.headers["location"] == f"/explanations/{told['id']}"
    sheet = client.get(printed.headers["location"]).text
    assert digest in sheet
    assert told["id"] in sheet
    page = client.get("/models/loans/explain.json?q=p0").json()
    assert page["explained"]["contributions"][0]["attribution"] == max(item["attributions"].values(), key=abs)


def test_posted_records_are_explained_on_the_scale_that_is_asked_for(client: TestClient) -> None:
    record = {"features": {"debt": 1.5, "age": 0.0, "income": -1.0}}
    body = {"records": [record], "output": "probability", "class": "0"}
    item = client.post("/v1/models/loans/explanations", json=body).json()["items"][0]
    expected = 1 - float(chance(pd.DataFrame([[0.0, -1.0, 1.5]], columns=NAMES))[0])
    assert item["prediction"] == pytest.approx(expected)
    assert (item["class"], item["output"], item["method"]) == ("0", "probability", "enumeration")
    assert (item["background"]["baseline"], item["background"]["rows"]) == ("reference", 100)
    assert item["note"] == "all 8 coalitions over 100 background rows"
    assert item["base_value"] + sum(item["attributions"].values()) == pytest.approx(expected)
    missing = client.post("/v1/models/loans/explanations", json={"records": [{"features": {"age": 1.0}}]})
    assert missing.status_code == 200  # missing values are missing, as they are for the model itself
    misspelt = {"features": {"debts": 1.5, "age": 0.0, "income": -1.0}}
    refused = client.post("/v1/models/loans/explanations", json={"records": [misspelt]})
    assert refused.status_code == 422
    assert "has 'debts', which the version's schema does not have, and lacks 'debt'" in refused.json()["detail"]


def test_importance_and_partial_dependence_of_a_span(client: TestClient) -> None:
    span = {"from": (NOW - timedelta(days=1)).isoformat(), "to": NOW.isoformat(), "rows": "150"}
    told = client.get("/v1/models/loans/explanations/global", params=span)
    assert told.status_code == 200, told.text
    features = {entry["feature"]: entry for entry in told.json()["features"]}
    assert [entry["feature"] for entry in told.json()["features"]][:2] == ["debt", "income"]
    for entry in features.values():
        assert entry["interval"][0] <= entry["importance"] <= entry["interval"][1]
        assert entry["importance"] == pytest.approx(entry["baseline_importance"], rel=0.5, abs=0.2)
    assert told.json()["ndcg"] > 0.9
    heeded = client.get("/v1/models/loans/causes", params={"from": span["from"], "to": span["to"]}).json()
    assert heeded["importance_source"] == "explanations of the version's artifact"
    total = sum(entry["baseline_importance"] for entry in features.values())
    shares = {one["feature"]: one["importance"] for one in heeded["features"]}
    assert shares == {name: pytest.approx(entry["baseline_importance"] / total) for name, entry in features.items()}
    page = client.get("/models/loans/explain.json").json()
    assert {one["feature"]: (one["window"], one["baseline"]) for one in page["importances"]} == {
        name: (entry["importance"], entry["baseline_importance"]) for name, entry in features.items()
    }
    answer = client.post("/v1/models/loans/partial-dependence", json={"feature": "debt", "output": "probability"})
    assert answer.status_code == 200, answer.text
    curve = answer.json()["mean"][0]
    assert curve[-1] - curve[0] > 0.5
    refused = client.post("/v1/models/loans/partial-dependence", json={"feature": "height"})
    assert refused.status_code == 422
    assert "does not take 'height'" in refused.json()["detail"]


def test_posted_attributions_are_told_as_they_came(client: TestClient) -> None:
    record = {"prediction_id": "own", "features": {"age": 41}, "score": 0.7, "attributions": {"age": 0.25}}
    assert client.post("/v1/models/bare/predictions", json=record).status_code == 200
    item = client.post("/v1/models/bare/explanations", json={"prediction_ids": ["own"]}).json()["items"][0]
    assert (item["method"], item["attributions"]) == ("posted", {"age": 0.25})
    assert item["reasons"][0]["feature"] == "age"
    without = client.post("/v1/models/bare/explanations", json={"prediction_ids": ["p0"]})
    assert without.status_code == 409
    assert "has no artifact" in without.json()["detail"]


def test_posted_attributions_are_weighed_and_watched_without_any_model(client: TestClient) -> None:
    """In the day age and debt have changed places, which the model's scores do not tell."""
    declared = {"name": "told", "task": "binary", "classes": ["0", "1"], "positive_class": "1"}
    assert client.post("/v1/models", json=declared).status_code == 201
    roles = {name: name for name in ("score", "prediction", "timestamp", "prediction_id")}
    sizes = {"age": 0.2, "income": 1.0, "debt": 3.0}

    def told(rows: int, seed: int, start: datetime, prefix: str, **sizes: float) -> bytes:
        drawn = np.random.default_rng(seed).normal(size=(rows, 3))
        posted = {f"attributions.{name}": drawn[:, place] * size for place, (name, size) in enumerate(sizes.items())}
        return file(people(rows, seed), start, prefix, **posted)

    csv_type = {"content-type": "text/csv"}
    baseline = told(400, 11, NOW - timedelta(days=30), "tb", **sizes)
    answer = client.post(
        "/v1/models/told/baselines", params={"name": "reference", **roles}, content=baseline, headers=csv_type
    )
    assert answer.status_code == 201, answer.text
    day = told(200, 12, NOW - timedelta(days=1), "t", **sizes | {"age": 3.0, "debt": 0.2})
    sent = client.post("/v1/models/told/predictions", content=day, headers=csv_type)
    assert sent.json()["accepted"] == 200, sent.text
    span = {"from": (NOW - timedelta(days=1)).isoformat(), "to": NOW.isoformat()}
    importance = client.get("/v1/models/told/explanations/global", params=span)
    assert importance.status_code == 200, importance.text
    features = {entry["feature"]: entry for entry in importance.json()["features"]}
    posted = pd.read_csv(io.BytesIO(day))
    for name in NAMES:
        assert features[name]["importance"] == pytest.approx(posted[f"attributions.{name}"].abs().mean())
    assert (importance.json()["method"], importance.json()["artifact_digest"]) == ("posted", None)
    monitor = {"name": "watched", "kind": "attribution_drift", "schedule": "daily", "parameters": {"min_rows": 20}}
    assert client.post("/v1/models/told/monitors", json=monitor).status_code == 201
    parts = client.app.state  # type: ignore[attr-defined]
    (model_id,) = [row["id"] for row in client.get("/v1/models").json()["items"] if row["name"] == "told"]
    with parts.assembly.database.reading() as session:
        key = session.scalars(select(ModelRow.id).where(ModelRow.uid == model_id)).one()
    parts.assembly.sealer.seal(key)
    asked = client.post("/v1/models/told/monitors/watched/runs", json=span)
    assert parts.scheduler.work_model(key) == 1
    run = client.get(f"/v1/models/told/runs/{asked.json()['id']}").json()
    results = {result["metric"]: result for result in run["results"] if not result.get("feature")}
    assert results["ndcg"]["value"] < 0.9
    assert results["ndcg"]["verdict"] == "violated"
    assert results["attribution_shift"]["p_value"] < 0.01


def test_more_than_a_hundred_records_are_a_job(client: TestClient) -> None:
    ids = [f"p{place}" for place in range(101)]
    waits = client.headers.pop("prefer")
    answer = client.post("/v1/models/loans/explanations", json={"prediction_ids": ids})
    client.headers["prefer"] = waits
    assert answer.status_code == 202, answer.text
    while (job := client.get(answer.headers["location"]).json())["state"] in ("queued", "running"):
        time.sleep(0.1)
    assert job["state"] == "done", job
    told = client.get(job["result"]["location"]).json()
    assert [item["prediction_id"] for item in told["items"]] == ids


@pytest.mark.parametrize(
    ("data", "sentence"),
    [(pickle.dumps({"a": 1}), "this is a pickle"), (b"tree\nnothing", "damaged"), (b"hello", "none of the formats")],
)
def test_what_cannot_be_loaded_safely_is_refused_with_a_sentence(
    client: TestClient, data: bytes, sentence: str
) -> None:
    answer = put(client, data, "bare")
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]
    assert client.get("/v1/models/bare/versions/1/artifact").status_code == 404


def test_a_form_is_refused_with_how_to_send_the_file(client: TestClient) -> None:
    answer = client.put("/v1/models/bare/versions/1/artifact", files={"file": artifact()})
    assert answer.status_code == 422
    assert "the file itself is the body" in answer.json()["detail"]


TAKES_NO_TEXT = "the model takes no text: tokens explain features of the type text, of a model behind an endpoint"


def test_tokens_are_refused_where_no_text_is_asked_of_an_endpoint(client: TestClient) -> None:
    body: dict[str, Any] = {"prediction_ids": ["p0"], "method": "tokens"}
    answer = client.post("/v1/models/loans/explanations", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"] == TAKES_NO_TEXT


@pytest.mark.long
def test_a_text_that_a_file_takes_as_one_category_of_many_is_no_running_text_to_it(client: TestClient) -> None:
    schema = {"features": [{"name": "note", "type": "text"}, {"name": "age", "type": "numeric"}]}
    declared = {"name": "notes", "task": "regression", "schema": schema}
    assert client.post("/v1/models", json=declared).status_code == 201
    frame = pd.DataFrame({"note": ["good", "bad"] * 50, "age": np.arange(100.0)})
    before = ColumnTransformer([("note", OneHotEncoder(), ["note"]), ("age", "passthrough", ["age"])])
    fitted = make_pipeline(before, LinearRegression()).fit(frame, frame["age"])
    assert put(client, skops_bytes(fitted), "notes").status_code == 200
    asked: dict[str, Any] = {"records": [{"features": {"note": "good", "age": 3}}], "method": "tokens"}
    refused = client.post("/v1/models/notes/explanations", json=asked)
    assert (refused.status_code, refused.json()["detail"]) == (422, TAKES_NO_TEXT)


def test_columns_that_the_schema_does_not_have_are_refused(client: TestClient) -> None:
    frame = people(100, 5).rename(columns={"debt": "debts"})
    data = lightgbm.train({"verbose": -1}, lightgbm.Dataset(frame, frame["age"]), 2).model_to_string().encode()
    answer = put(client, data)
    assert answer.status_code == 422
    assert "takes 'debts', which the version's schema does not have" in answer.json()["detail"]


def test_faults_of_the_body_are_named(client: TestClient) -> None:
    wrong: list[dict[str, Any]] = [{}, {"prediction_ids": ["a"], "records": [{"features": {}}]}, {"records": []}]
    for body in wrong:
        assert client.post("/v1/models/loans/explanations", json=body).status_code == 422
    assert client.post("/v1/models/loans/explanations", json={"prediction_ids": ["zz"]}).status_code == 404
    assert client.get("/v1/explanations/nope").status_code == 404
    body = {"prediction_ids": ["p0"], "method": "magic"}
    answer = client.post("/v1/models/loans/explanations", json=body)
    assert answer.status_code == 422
    assert "there are auto" in answer.json()["detail"]


def answering(protocol: str) -> Callable[[Request], Response]:
    """Return a model server of a protocol that serves the LightGBM model."""

    def handle(request: Request) -> Response:
        if protocol == "sagemaker":
            frame = pd.read_csv(io.BytesIO(request.get_data()), header=None, names=NAMES)
            return Response("\n".join(map(str, chance(frame))), content_type="text/csv")
        told = request.get_json()
        if protocol == "v2":
            frame = pd.DataFrame({given["name"]: given["data"] for given in told["inputs"]})
            scores = list(chance(frame[NAMES]))
            output = {"name": "predict_proba", "shape": [len(scores), 2], "datatype": "FP64"}
            return Response(json.dumps({"outputs": [output | {"data": [v for s in scores for v in (1 - s, s)]}]}))
        rows = told["instances" if protocol == "v1" else "records"]
        return Response(json.dumps({"predictions": list(chance(pd.DataFrame(rows)[NAMES]))}))

    return handle


@pytest.mark.parametrize(
    "protocol", ["v2", *(pytest.param(name, marks=pytest.mark.long) for name in ("v1", "sagemaker", "plain"))]
)
def test_a_model_behind_an_endpoint_is_explained_from_outside(
    client: TestClient, httpserver: HTTPServer, protocol: str
) -> None:
    httpserver.expect_request("/infer").respond_with_handler(answering(protocol))
    url = httpserver.url_for("/infer").replace("localhost", "127.0.0.1")
    endpoint = {"endpoint": {"url": url, "protocol": protocol}}
    answer = client.put("/v1/models/served/versions/1/artifact", json=endpoint)
    assert answer.status_code == 200, answer.text
    answer = client.post("/v1/models/served/explanations", json={"prediction_ids": ["p0"]})
    assert answer.status_code == 200, answer.text
    item = answer.json()["items"][0]
    assert (item["method"], item["exact"], item["output"]) == ("enumeration", True, "probability")
    assert item["prediction"] == pytest.approx(item["logged"]["score"])
    assert item["base_value"] + sum(item["attributions"].values()) == pytest.approx(item["prediction"])
    httpserver.clear()
    httpserver.expect_request("/infer").respond_with_data("out of order", status=503)
    failed = client.post("/v1/models/served/explanations", json={"prediction_ids": ["p1"]})
    assert failed.status_code == 422
    assert "the endpoint answered 503" in failed.json()["detail"]


TOKEN, API_KEY = "only-the-endpoint-may-read-this", "nor-this"


def reviewing(request: Request) -> Response:
    """Return a model server that likes "great", for whoever brings the secrets."""
    given = request.headers.get("authorization", ""), request.headers.get("x-api-key", "")
    if given != (f"Bearer {TOKEN}", API_KEY):
        return Response(f"who is {given[0]}?", status=401)
    texts = [record["review"] or "" for record in request.get_json()["records"]]
    return Response(json.dumps({"predictions": [0.9 if "great" in text else 0.2 for text in texts]}))


def test_a_text_model_behind_a_guarded_endpoint_is_explained_by_tokens(
    client: TestClient, httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    httpserver.expect_request("/reviews").respond_with_handler(reviewing)
    schema = {"features": [{"name": "review", "type": "text"}]}
    about = {"name": "reviews", "task": "binary", "classes": ["0", "1"], "positive_class": "1", "schema": schema}
    assert client.post("/v1/models", json=about | {"favourable_outcome": "1"}).status_code == 201
    versions = "/v1/models/reviews/versions"
    name = (client.get(versions).json()["items"] or [client.post(versions, json={"version": "1"}).json()])[0]["version"]
    address = f"{versions}/{name}/artifact"
    endpoint = {"url": httpserver.url_for("/reviews").replace("localhost", "127.0.0.1"), "protocol": "plain"}
    wrong: list[dict[str, Any]] = [{"headers": {"Host": API_KEY}}, {"bearer": f"{TOKEN}\n"}, {"password": TOKEN}]
    for credentials in wrong:
        refused = client.put(address, json={"endpoint": {**endpoint, "credentials": credentials}})
        assert refused.status_code == 422
        assert TOKEN not in refused.text
        assert API_KEY not in refused.text
    credentials = {"bearer": TOKEN, "headers": {"X-Api-Key": API_KEY}}
    answer = client.put(address, json={"endpoint": {**endpoint, "credentials": credentials}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["credentials"] is True
    record = {"features": {"review": "A great film, I think"}}
    body: dict[str, Any] = {"records": [record], "version": name, "keep": True}
    made = client.post("/v1/models/reviews/explanations", json=body)
    assert made.status_code == 200, made.text
    item = made.json()["items"][0]
    assert (item["method"], item["exact"], item["base_value"]) == ("tokens", True, pytest.approx(0.2))
    assert item["attributions"] == {"review": pytest.approx(0.7)}
    parts = {part["text"]: part["attribution"] for part in item["tokens"]["review"]}
    assert parts == {"A": 0, "great": pytest.approx(0.7), "film": 0, ",": 0, "I": 0, "think": 0}
    assert item["background"] == {"note": "the text with every part masked"}
    uid = made.json()["id"]
    rows = list(csv.DictReader(io.StringIO(client.get(f"/v1/explanations/{uid}?format=csv").text)))
    assert [(row["token"], row["start"]) for row in rows[:3]] == [("", ""), ("A", "0"), ("great", "2")]
    page = client.get(f"/explanations/{uid}").text
    assert '>great</span> <span class="step-0" title="0">film</span>' in page
    # a secret that the endpoint does not take, and says back
    old = client.put(address, json={"endpoint": {**endpoint, "credentials": {"bearer": "an-old-one"}}})
    assert old.status_code == 200
    other = body | {"records": [{"features": {"review": "Not so good"}}]}
    failed = client.post("/v1/models/reviews/explanations", json=other)
    assert failed.status_code == 422
    assert "the endpoint answered 401: who is Bearer …?" in failed.json()["detail"]
    told = [
        answer.text,
        old.text,
        failed.text,
        client.get(address).text,
        client.get("/v1/audit").text,
        page,
        caplog.text,
    ]
    assert not [text for text in told for secret in (TOKEN, API_KEY, "an-old-one") if secret in text]
    folder = client.app.state.assembly.settings.data_dir  # type: ignore[attr-defined]
    stored = b"".join(path.read_bytes() for path in folder.glob("plumbline.db*"))
    assert TOKEN.encode() not in stored
    assert API_KEY.encode() not in stored


def test_an_endpoint_inside_is_not_called(client: TestClient) -> None:
    endpoint = {"endpoint": {"url": "http://169.254.169.254/latest", "protocol": "plain"}}
    answer = client.put("/v1/models/served/versions/1/artifact", json=endpoint)
    assert answer.status_code == 422
    assert "PLUMBLINE_OUTBOUND_ALLOW" in answer.json()["detail"]


def test_attribution_drift_of_a_model_is_monitored_and_its_failure_is_that_runs_alone(
    client: TestClient, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/gone").respond_with_data("out of order", status=503)
    url = httpserver.url_for("/gone").replace("localhost", "127.0.0.1")
    gone = {"endpoint": {"url": url, "protocol": "plain"}}
    assert client.put("/v1/models/loans/versions/1/artifact", json=gone).status_code == 200
    monitor = {
        "name": "explained", "kind": "attribution_drift", "schedule": "daily", "parameters": {"min_rows": 20},
    }  # fmt: skip
    assert client.post("/v1/models/loans/monitors", json=monitor).status_code == 201
    span = {"from": (NOW - timedelta(days=1)).isoformat(), "to": NOW.isoformat()}
    client.app.state.assembly.sealer.seal(1)  # type: ignore[attr-defined]
    answer = client.post("/v1/models/loans/monitors/explained/runs", json=span)
    for _ in range(ATTEMPTS):
        client.app.state.scheduler.work_model(1)  # type: ignore[attr-defined]
    failed = client.get(f"/v1/models/loans/runs/{answer.json()['id']}").json()
    assert failed["status"] == "failed"
    assert "the endpoint answered 503: out of order" in failed["error"]
    put(client, artifact())
    answer = client.post("/v1/models/loans/monitors/explained/runs", json=span)
    assert answer.status_code in (200, 201, 202), answer.text
    assert client.app.state.scheduler.work_model(1) == 1  # type: ignore[attr-defined]
    run = client.get(f"/v1/models/loans/runs/{answer.json()['id']}").json()
    assert run["status"] in ("ok", "partial"), run
    results = {result["metric"]: result for result in run["results"] if not result.get("feature")}
    assert results["ndcg"]["value"] > 0.9, run
    assert results["ndcg"]["verdict"] == "ok"
    assert results["attribution_shift"]["p_value"] > 0.001


def test_the_process_that_others_are_forked_from_has_no_thread_but_the_allocators(client: TestClient) -> None:
    client.post("/v1/models/loans/explanations", json={"prediction_ids": ["p7"], "method": "tree"})
    template = client.app.state.assembly.worker._template  # type: ignore[attr-defined]
    threads = sorted((task / "comm").read_text() for task in Path(f"/proc/{template._popen.pid}/task").iterdir())
    assert len([name for name in threads if name != "jemalloc_bg_thd\n"]) == 1


def test_the_catalogue_lists_what_the_package_contains(client: TestClient) -> None:
    told = {(each["what"], each["name"]) for each in client.get("/v1/catalog/explainers").json()["items"]}
    assert {("method", "native"), ("artifact", "onnx"), ("endpoint", "v2")} <= told
