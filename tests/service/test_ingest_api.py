"""Ingest over HTTP: the whole way from a body to its answer, and back by id."""

import base64
import gzip
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.access import Scope
from tests.pace import slower
from tests.service.built import stream
from tests.service.opened import key_of, opened
from tests.service.test_ingest_formats import HURTFUL, peak

_numbers = count()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Open the application once for this module."""
    with opened(tmp_path_factory.mktemp("ingest"), min_free_bytes=0) as client:
        yield client


@pytest.fixture
def model(client: TestClient) -> str:
    """Make a model of this test's own."""
    name = f"loans-{next(_numbers)}"
    answer = client.post("/v1/models", json={"name": name, "task": "binary"})
    assert answer.status_code == 201, answer.text
    return name


def send(client: TestClient, model: str, body: Any, kind: str = "predictions", **headers: str) -> Any:
    """Post a body and return the answer."""
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return client.post(f"/v1/models/{model}/{kind}", content=content, headers=given)


def record(name: str, **members: Any) -> dict[str, Any]:
    """Return a prediction."""
    return {
        "prediction_id": name,
        "timestamp": "2026-11-01T00:30:00Z",
        "features": {"age": 41, "job": "clerk"},
        "prediction": 1,
        "score": 0.83,
        **members,
    }


def test_the_same_id_in_every_form_and_state_counts_once(client: TestClient, model: str) -> None:
    table = pa.table({"prediction_id": ["a"], "age": [41], "job": ["clerk"], "prediction": [1], "score": [0.83]})
    assert send(client, model, record("a")).json()["accepted"] == 1
    later = {key: value for key, value in record("a").items() if key != "timestamp"}
    assert send(client, model, later).json()["duplicates"] == 1
    arrow = {"Content_Type": "application/vnd.apache.arrow.stream"}
    assert send(client, model, stream(table), **arrow).json()["duplicates"] == 1
    assert client.get(f"/v1/models/{model}/predictions/a").json()["items"][0]["state"] == "buffered"
    span = {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}
    listed = client.get(f"/v1/models/{model}/predictions", params=span).json()["items"]  # seals what is buffered
    assert [item["prediction_id"] for item in listed] == ["a"]
    assert client.get(f"/v1/models/{model}/predictions/a").json()["items"][0]["state"] == "sealed"
    assert send(client, model, record("a")).json()["duplicates"] == 1
    assert send(client, model, record("a", version="2")).json()["accepted"] == 1
    found = client.get(f"/v1/models/{model}/predictions/a").json()["items"]
    assert sorted(item["version"] for item in found) == ["1", "2"]
    assert [item["features"] for item in found] == [{"age": 41.0, "job": "clerk"}] * 2


def test_the_same_id_in_requests_at_once_counts_once(client: TestClient, model: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: send(client, model, record("twin")).json(), range(8)))
    assert all(answer["accepted"] + answer["duplicates"] == 1 for answer in answers)
    span = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-01T01:00:00Z"}
    listed = client.get(f"/v1/models/{model}/predictions", params=span).json()["items"]
    assert [item["prediction_id"] for item in listed] == ["twin"]
    found = client.get(f"/v1/models/{model}/ingest", params={**span, "kind": "predictions"}).json()["items"]
    assert [(item["accepted"], item["duplicates"], item["conflicts"]) for item in found] == [(1, 7, 0)]


def test_a_label_before_its_prediction_and_a_corrected_one_count_once(client: TestClient, model: str) -> None:
    label = {"prediction_id": "early", "ground_truth": 0, "timestamp": "2026-11-02T00:00:00Z"}
    assert send(client, model, label, "ground-truth").json()["waiting"] == 1
    assert send(client, model, record("early")).json()["accepted"] == 1
    later = {**label, "ground_truth": 1, "timestamp": "2026-11-03T00:00:00Z"}
    assert send(client, model, later, "ground-truth").json()["corrected"] == 1
    span = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-01T01:00:00Z"}
    listed = client.get(f"/v1/models/{model}/predictions", params=span).json()["items"]
    assert [(item["prediction_id"], item["ground_truth"]) for item in listed] == [("early", "1")]
    found = client.get(f"/v1/models/{model}/ingest", params={**span, "kind": "ground_truth"}).json()["items"]
    assert [(item["accepted"], item["corrected"]) for item in found] == [(1, 1)]


def test_a_service_that_starts_again_knows_what_it_had(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("again")
    with opened(folder, min_free_bytes=0) as client:
        client.post("/v1/models", json={"name": "loans", "task": "binary"})
        assert send(client, "loans", record("a")).json()["accepted"] == 1
    with opened(folder, min_free_bytes=0) as client:
        assert send(client, "loans", record("a")).json()["duplicates"] == 1
        client.get(
            "/v1/models/loans/predictions", params={"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}
        )
    with opened(folder, min_free_bytes=0) as client:
        assert send(client, "loans", record("a")).json()["duplicates"] == 1
        assert send(client, "loans", {"prediction_id": "a", "ground_truth": 1}, "ground-truth").json()["waiting"] == 0


def test_two_requests_at_once_with_one_id_count_once(client: TestClient, model: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(client, model, record("a")).json(), range(8)))
    assert sum(answer["accepted"] for answer in answers) == 1
    assert sum(answer["duplicates"] for answer in answers) == 7


def test_a_label_may_come_first_and_be_corrected(client: TestClient, model: str) -> None:
    first = send(client, model, {"prediction_id": "a", "ground_truth": 0}, "ground-truth").json()
    assert (first["accepted"], first["waiting"]) == (1, 1)
    send(client, model, record("a"))
    second = send(client, model, {"prediction_id": "a", "ground_truth": 1}, "ground-truth").json()
    assert (second["accepted"], second["corrected"], second["waiting"]) == (1, 1, 0)
    assert client.get(f"/v1/models/{model}/predictions/a").json()["items"][0]["ground_truth"] == "1"


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("", gzip.compress), ("zstd", zstandard.compress), ("identity", bytes)],
)
def test_bodies_may_be_compressed(client: TestClient, model: str, encoding: str, pack: Any) -> None:
    headers = {"Content_Encoding": encoding} if encoding else {}
    answer = send(client, model, pack(json.dumps([record("a"), record("b")]).encode()), **headers)
    assert answer.json()["accepted"] == 2, answer.text


def test_an_idempotency_key_replays_the_answer_and_refuses_another_body(client: TestClient, model: str) -> None:
    first = send(client, model, record("a"), Idempotency_Key="k")
    again = send(client, model, record("a"), Idempotency_Key="k")
    other = send(client, model, record("b"), Idempotency_Key="k")
    assert (first.status_code, again.status_code, other.status_code) == (200, 200, 422)
    assert again.content == first.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert other.headers["content-type"] == "application/problem+json"
    elsewhere = send(client, model, {"prediction_id": "a", "ground_truth": 1}, "ground-truth", Idempotency_Key="k")
    assert elsewhere.status_code == 200
    assert send(client, model, record("a"), Idempotency_Key="k" * 256).status_code == 400


def test_what_cannot_be_taken_in_is_said_with_the_right_status(client: TestClient, model: str) -> None:
    assert send(client, "nobody", record("a")).status_code == 404
    assert send(client, model, "{").status_code == 400
    assert send(client, model, record("a"), Content_Type="text/plain").status_code == 415
    assert send(client, model, record("a"), Content_Encoding="br").status_code == 415
    assert send(client, model, record("a"), Content_Type="application/json; charset=klingon").status_code == 415
    assert (
        send(
            client, model, json.dumps(record("a")).encode("utf-16"), Content_Type="application/json; charset=utf-16"
        ).status_code
        == 200
    )
    large = send(client, model, b"[" + b" " * (17 * 2**20) + b"]")
    assert large.status_code == 413
    assert large.json()["limit"] == 16 * 2**20
    nothing = send(client, model, [3])
    assert nothing.status_code == 422
    assert nothing.json()["rejected_by_code"] == {"not_an_object": 1}
    strict = client.post(f"/v1/models/{model}/predictions?strict=true", content=json.dumps([record("z"), 3]))
    assert (strict.status_code, strict.json()["accepted"]) == (422, 0)
    assert client.get(f"/v1/models/{model}/predictions/z").status_code == 404


@pytest.mark.parametrize("name", HURTFUL)
def test_hurtful_bodies_are_refused_within_a_second_and_32_mebibytes(client: TestClient, model: str, name: str) -> None:
    make, form = HURTFUL[name]
    body = make()
    send(client, model, b"[" + b" " * len(body) + b"]")  # the test's own client has room for it
    before, began = peak(), time.process_time()
    media = "application/x-ndjson" if form.value == "ndjson" else "application/json"
    answer = send(client, model, body, Content_Type=media)
    assert 400 <= answer.status_code < 500 or name == "lines of nothing"
    assert time.process_time() - began < 1.0 * slower()
    assert peak() - before < 32 * 2**20


def test_only_a_key_with_the_right_scope_and_model_comes_in(client: TestClient, model: str) -> None:
    path = f"/v1/models/{model}/predictions"
    body = json.dumps(record("a"))
    anonymous = {"Authorization": "", "Content-Type": "application/json"}
    assert client.post(path, content=body, headers=anonymous).status_code == 401
    reader = key_of(client, Scope.READ)
    assert client.post(path, content=body, headers=reader).status_code == 403
    foreign = key_of(client, Scope.INGEST, models=["other"])
    assert client.post(path, content=body, headers=foreign).status_code == 404
    mine = key_of(client, Scope.INGEST, models=[model])
    assert client.post(path, content=body, headers=mine).status_code == 200
    assert client.get(f"{path}/a", headers=mine).status_code == 403
    assert client.get(f"{path}/a", headers=reader).status_code == 403
    assert client.get(f"{path}/a", headers=key_of(client, Scope.ROWS)).status_code == 200
    secret = mine["Authorization"].removeprefix("Bearer ")
    basic = {"Authorization": "Basic " + base64.b64encode(f"anybody:{secret}".encode()).decode()}
    assert client.post(path, content=body, headers=basic).status_code == 200


def test_what_became_of_records_can_be_read(client: TestClient, model: str) -> None:
    send(client, model, [record("a"), record("b", features={"age": "x"}), {"prediction_id": 5}])
    send(
        client,
        model,
        [{"prediction_id": "q", "ground_truth": 1}, {"prediction_id": "a", "ground_truth": 1}],
        "ground-truth",
    )
    before = client.get(f"/v1/models/{model}/ingest").json()
    assert before["buffered"] == {"predictions": 2, "ground_truth": 2}
    span = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-01T01:00:00Z"}
    client.get(f"/v1/models/{model}/predictions", params=span)
    found = client.get(f"/v1/models/{model}/ingest", params={**span, "kind": "predictions"}).json()["items"]
    assert [(item["bucket"], item["version"], item["accepted"], item["bad_values"]) for item in found] == [
        ("2026-11-01T00:00:00Z", "1", 2, {"wrong_type": 1})
    ]
    refused = client.get(f"/v1/models/{model}/rejections").json()["items"]
    assert [(item["index"], item["code"], item["pointer"]) for item in refused] == [
        (2, "bad_prediction_id", "/prediction_id")
    ]
    counted = [item for item in client.get(f"/v1/models/{model}/ingest").json()["items"] if item["rejected"]]
    assert [(item["rejected"], item["rejected_by_code"]) for item in counted] == [(1, {"bad_prediction_id": 1})]
    unmatched = client.get(f"/v1/models/{model}/ground-truth/unmatched").json()
    assert [item["prediction_id"] for item in unmatched["items"]] == ["q"]
    assert unmatched["count"] == 1
    assert unmatched["known_prediction_id"] in ("a", "b")


def test_pages_of_predictions_follow_each_other(client: TestClient, model: str) -> None:
    send(client, model, [record(f"{number:02d}", timestamp=f"2026-11-01T00:{number:02d}:00Z") for number in range(25)])
    span: dict[str, Any] = {"from": "2026-11-01T00:05:00Z", "to": "2026-11-01T00:20:00Z", "limit": 4}
    found: list[str] = []
    while True:
        page = client.get(f"/v1/models/{model}/predictions", params=span).json()
        found += [item["prediction_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        span["cursor"] = page["next_cursor"]
    assert found == [f"{number:02d}" for number in range(5, 20)]
    for wrong in ({**span, "cursor": "nonsense"}, {**span, "cursor": "1-zz"}, {**span, "from": "yesterday"}):
        assert 400 <= client.get(f"/v1/models/{model}/predictions", params=wrong).status_code < 500
    backwards = {"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}
    assert client.get(f"/v1/models/{model}/predictions", params=backwards).status_code == 422


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["2026-11-01T00:00:00Z", "1", "", "a", "\x00", "\ud800", "v" * 300])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    [
        "prediction_id",
        "timestamp",
        "version",
        "features",
        "prediction",
        "score",
        "scores",
        "ground_truth",
        "protected",
        "attributions",
        "subject",
        "tags",
        "records",
        "other",
    ]
)
RECORDS = st.dictionaries(MEMBERS, VALUES, max_size=8)
TEXTS = st.one_of(
    RECORDS.map(json.dumps),
    st.lists(RECORDS, max_size=4).map(json.dumps),
    st.lists(VALUES, max_size=4).map(json.dumps),
    st.fixed_dictionaries({"records": VALUES}).map(json.dumps),
    st.lists(RECORDS, max_size=4).map(lambda found: "\n".join(map(json.dumps, found))),
    st.lists(st.lists(st.text(max_size=6), max_size=4).map(",".join), max_size=4).map("\n".join),
    st.text(max_size=60),
)
MEDIA = st.sampled_from(
    [
        "application/json",
        "application/x-ndjson",
        "text/csv",
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.parquet",
        "application/json; charset=latin-1",
    ]
)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_no_body_is_ever_answered_with_a_fault_of_the_server(client: TestClient, task: str) -> None:
    fuzzed(client, task, 30)


@pytest.mark.long
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_no_body_of_a_thousand_is_answered_with_a_fault_of_the_server(client: TestClient, task: str) -> None:
    fuzzed(client, task, 1000)


def fuzzed(client: TestClient, task: str, bodies: int) -> None:
    """Send bodies of every kind to a model of a task, then read what was stored."""
    name = f"fuzz-{next(_numbers)}"
    assert client.post("/v1/models", json={"name": name, "task": task}).status_code == 201

    @settings(max_examples=bodies, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(text=TEXTS, media=MEDIA, kind=st.sampled_from(["predictions", "ground-truth", "protected"]))
    def check(text: str, media: str, kind: str) -> None:
        answer = send(client, name, text.encode(errors="surrogatepass"), kind, Content_Type=media)
        assert answer.status_code in (200, 400, 413, 415, 422), (answer.status_code, answer.text)
        if answer.status_code in (200, 422) and "accepted" in answer.json():
            document = answer.json()
            assert document["rejected_count"] == sum(document["rejected_by_code"].values())

    check()
    span = {"from": "1970-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
    versions = [item["version"] for item in client.get(f"/v1/models/{name}/versions").json()["items"]]
    for version in versions[:5]:  # and what was stored can be sealed and read
        assert client.get(f"/v1/models/{name}/predictions", params={**span, "version": version}).status_code == 200
