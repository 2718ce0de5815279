"""Every error is a problem document, and a repeated POST is answered as the first was."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from starlette.testclient import TestClient

from service.api.depends import CONFIGURATION_BYTES
from service.clock import SetClock
from tests.service.opened import bearer, opened

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with opened(tmp_path_factory.mktemp("errors")) as found:
        yield found


def check_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "instance", "request_id"} <= set(document)
    assert document["status"] == status
    assert document["request_id"] == answer.headers["X-Request-Id"]
    return document


JSON = {"Content-Type": "application/json"}
MODEL = {"name": "m", "task": "binary"}


@pytest.mark.parametrize(
    ("method", "path", "request_", "status"),
    [
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/v1/models/absent", {}, 404),
        ("GET", "/v1/models/%00", {}, 404),
        ("GET", "/v1/models/" + "a" * 5000, {}, 404),
        ("GET", "/v1/audit?actor=%00", {}, 400),
        ("PUT", "/v1/models", {}, 405),
        ("GET", "/v1/models?limit=0", {}, 422),
        ("GET", "/v1/models?limit=1001", {}, 422),
        ("GET", "/v1/models?cursor=nonsense", {}, 400),
        ("GET", "/v1/models?cursor=WzFd", {}, 400),
        ("GET", "/v1/jobs?cursor=WyJhIl0", {}, 400),
        ("GET", "/v1/jobs?cursor=WzQ2MTE2ODYwMTg0MjczODc5MDRd", {}, 400),
        ("POST", "/v1/models", {"content": "{", "headers": JSON}, 400),
        ("POST", "/v1/models", {"content": b"\xff", "headers": JSON}, 400),
        ("POST", "/v1/models", {"content": "[" * 50_000, "headers": JSON}, 400),
        ("POST", "/v1/models", {"content": "{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ("POST", "/v1/models", {"content": "[1]", "headers": JSON}, 422),
        ("POST", "/v1/models", {}, 422),
        ("POST", "/v1/models", {"json": {**MODEL, "name": "a b"}}, 422),
        ("POST", "/v1/models", {"json": {**MODEL, "name": "a\n"}}, 422),
        ("POST", "/v1/models", {"json": {**MODEL, "description": "a\0b"}}, 422),
        ("POST", "/v1/models", {"content": '{"name": "s", "task": "binary", "note": "\\ud800"}', "headers": JSON}, 422),
        (
            "POST",
            "/v1/models",
            {"content": '{"name": "s", "task": "binary", "decision_threshold": NaN}', "headers": JSON},
            422,
        ),
        ("POST", "/v1/models", {"json": {**MODEL, "unknown": 1}}, 422),
        ("POST", "/v1/models", {"content": b" " * (CONFIGURATION_BYTES + 1), "headers": JSON}, 413),
    ],
)
def test_what_cannot_be_answered_is_a_problem(
    client: TestClient, method: str, path: str, request_: dict[str, Any], status: int
) -> None:
    check_problem(client.request(method, path, **request_), status)


def test_a_body_without_declared_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(CONFIGURATION_BYTES // 2**16 + 2):
            yield b" " * 2**16

    check_problem(client.post("/v1/models", content=endless(), headers=JSON), 413)


def test_a_million_members_are_refused(client: TestClient) -> None:
    body = b"{%s}" % b",".join(b'"k%d":1' % number for number in range(10**6))
    check_problem(client.post("/v1/models", content=body, headers=JSON), 413)


def test_faults_of_a_body_have_pointers_and_those_of_parameters_their_names(client: TestClient) -> None:
    body = {"name": "f", "task": "binary", "alarm_budget": {"at_most": 0}, "schema": {"features": [{"name": "a"}]}}
    document = check_problem(client.post("/v1/models", json=body), 422)
    assert {fault["pointer"] for fault in document["errors"]} == {"/alarm_budget/at_most", "/schema/features/0/type"}
    document = check_problem(client.get("/v1/models?limit=zero"), 422)
    assert [fault["pointer"] for fault in document["errors"]] == ["query:limit"]


def test_the_request_id_is_taken_over_where_it_is_harmless(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "trace-17"}).headers["X-Request-Id"] == "trace-17"
    made = client.get("/healthz", headers={"X-Request-Id": "x" * 200}).headers["X-Request-Id"]
    assert made != "x" * 200
    assert len(made) == 32


def test_what_nobody_foresaw_is_a_500_that_tells_nothing_but_its_id(tmp_path: Path) -> None:
    from service.access import Scope
    from service.api.depends import Reader

    with opened(tmp_path / "data") as client:
        router = APIRouter()

        @router.get("/broken")
        def broken(principal: Reader) -> None:
            raise RuntimeError("whsec_a_secret_in_the_message")

        client.app.include_router(router)  # type: ignore[attr-defined]
        assert Scope.READ
        document = check_problem(client.get("/broken"), 500)
        assert "secret" not in json.dumps(document)


def test_a_browser_without_a_session_is_led_to_the_sign_in_page(client: TestClient) -> None:
    headers = {"Accept": "text/html", "Authorization": ""}
    answer = client.get("/", headers=headers, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/sign-in?next=/"


def test_each_type_of_problem_is_explained(client: TestClient) -> None:
    document = check_problem(client.get("/v1/nothing"), 404)
    page, _, mark = document["type"].partition("#")
    assert f'id="{mark}"' in client.get(page).text


# --- Idempotency-Key --------------------------------------------------------------------------------------------------


def test_a_repeated_post_gets_the_first_answer_and_does_nothing_again(client: TestClient) -> None:
    body = {"name": "once", "task": "regression"}
    first = client.post("/v1/models", json=body, headers={"Idempotency-Key": "a"})
    again = client.post("/v1/models", json=body, headers={"Idempotency-Key": "a"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    check_problem(client.post("/v1/models", json=body), 409)


def test_another_body_under_the_same_key_is_422(client: TestClient) -> None:
    client.post("/v1/models", json={"name": "one", "task": "binary"}, headers={"Idempotency-Key": "b"})
    answer = client.post("/v1/models", json={"name": "two", "task": "binary"}, headers={"Idempotency-Key": "b"})
    assert check_problem(answer, 422)["code"] == "idempotency_key_reused"
    check_problem(client.get("/v1/models/two"), 404)


def test_a_refused_post_keeps_nothing_so_that_it_can_be_corrected(client: TestClient) -> None:
    check_problem(client.post("/v1/models", json={"name": "fix"}, headers={"Idempotency-Key": "c"}), 422)
    answer = client.post("/v1/models", json={"name": "fix", "task": "binary"}, headers={"Idempotency-Key": "c"})
    assert answer.status_code == 201


def test_two_callers_do_not_meet_each_others_idempotency_keys(client: TestClient) -> None:
    other = client.post("/v1/keys", json={"name": "other", "scopes": ["configure"]}).json()["key"]
    client.post("/v1/models", json={"name": "mine", "task": "binary"}, headers={"Idempotency-Key": "d"})
    answer = client.post(
        "/v1/models", json={"name": "yours", "task": "binary"}, headers={"Idempotency-Key": "d", **bearer(other)}
    )
    assert answer.status_code == 201


def test_while_the_twin_runs_the_answer_is_409_until_it_is_taken_for_dead(tmp_path: Path) -> None:
    from service.tables import IngestRequestRow

    clock = SetClock(NOON)
    with opened(tmp_path / "data", clock) as client:
        database = client.app.state.assembly.database  # type: ignore[attr-defined]
        with database.writing() as session:
            session.add(
                IngestRequestRow(
                    route="POST /v1/models 1", idempotency_key="e", fingerprint="", status=None, created_at=NOON
                )
            )
        headers = {"Idempotency-Key": "e"}
        assert "Retry-After" in client.post("/v1/models", json=MODEL, headers=headers).headers
        check_problem(client.post("/v1/models", json=MODEL, headers=headers), 409)
        clock.move(timedelta(minutes=16))
        assert client.post("/v1/models", json=MODEL, headers=headers).status_code == 201


# --- the service itself -----------------------------------------------------------------------------------------------


def test_health_and_readiness_need_no_key_and_tell_reasons_only_with_one(tmp_path: Path) -> None:
    with opened(tmp_path / "data", min_free_bytes=2**62) as client:
        nobody = {"Authorization": ""}
        assert client.get("/healthz", headers=nobody).json() == {"status": "ok"}
        answer = client.get("/readyz", headers=nobody)
        assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
        assert "PLUMBLINE_MIN_FREE_BYTES" in client.get("/readyz").json()["reasons"][0]


def test_head_is_answered_as_get_without_a_body(client: TestClient) -> None:
    answer = client.head("/healthz", headers={"Authorization": ""})
    assert (answer.status_code, answer.content) == (200, b"")
    assert client.head("/v1/models", headers={"Authorization": ""}).status_code == 401


def test_a_ready_service_says_so(client: TestClient) -> None:
    assert client.get("/readyz", headers={"Authorization": ""}).json() == {"status": "ready"}
    assert client.get("/readyz").json() == {"status": "ready", "reasons": []}


def test_the_documentation_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert "<script" not in page.text
    assert not re.search(r"(src|href)=.?(https?:)?//", page.text)
    assert "models_create" in page.text


def test_figures_are_in_the_text_format_of_prometheus(client: TestClient) -> None:
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert any(line.startswith("plumbline_build_info{version=") for line in lines)
    for line in lines:
        name, _, value = line.rpartition(" ")
        assert name.startswith("plumbline_")
        float(value)


def test_the_catalogue_is_what_the_packages_contain(client: TestClient) -> None:
    from monitors import discovery

    columns = discovery.statistics().keys() | discovery.row_statistics().keys()
    metrics = discovery.metrics().keys() | discovery.bias_metrics().keys()
    for part, expected in (("monitors", discovery.kinds()), ("metrics", sorted(columns | metrics))):
        items = client.get(f"/v1/catalog/{part}").json()["items"]
        assert [item["name"] for item in items] == list(expected)
        for item in items:
            assert item["description"]
            assert item["parameters"]["type"] == "object"
            assert item["example"]
    assert {item["name"] for item in client.get("/v1/catalog/events").json()["items"]} >= {"alert.opened"}
