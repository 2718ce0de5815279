"""Nobody gets in without a key: every route of the application, with every kind of key."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from service.access import COOKIE, Keyring, Scope
from service.api.depends import OPEN, Door, doors
from service.clock import SetClock
from tests.service.opened import ADMIN_KEY, bearer, key_of, opened

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with opened(tmp_path_factory.mktemp("access")) as found:
        for name in ("ours", "theirs"):
            assert found.post("/v1/models", json={"name": name, "task": "binary"}).status_code == 201
        yield found


def every_request(client: TestClient) -> list[tuple[Door, str]]:
    app: Any = client.app
    return [(door, method) for door in doors(app) for method in sorted(door.methods)]


def path_of(door: Door, model: str) -> str:
    return re.sub(r"\{[^}]*\}", "0" * 32, door.path.replace("{model}", model))


def walk(client: TestClient, model: str, headers: dict[str, str]) -> Iterator[tuple[Door, str, int]]:
    """Ask at every door with a key or without, one after the other in the application's own loop: threads cost most."""
    asked = every_request(client)

    async def ask() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(client.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(
            transport=transport, base_url=client.base_url, headers=client.headers, follow_redirects=False
        ) as asking:
            found = []
            for door, method in asked:
                asking.cookies.clear()
                found.append(await asking.request(method, path_of(door, model), headers=headers))
            return found

    assert client.portal is not None
    for (door, method), answer in zip(asked, client.portal.call(ask), strict=True):
        assert answer.status_code < 500 or door.path == "/readyz", answer.text
        yield door, method, answer.status_code


def test_every_route_declares_a_scope_or_is_on_the_one_list_of_exceptions(client: TestClient) -> None:
    found = every_request(client)
    assert len(found) > 60
    undeclared = {f"{method} {door.path}" for door, method in found if door.scope is None and not door.open_to(method)}
    assert undeclared == set()


def test_the_list_of_exceptions_names_nothing_that_is_gone(client: TestClient) -> None:
    there = {f"{method} {re.sub(r'{[^}]*}', '{}', door.path)}" for door, method in every_request(client)}
    assert {entry for entry in OPEN if entry.split("/")[1] in ("healthz", "readyz", "sign-in")} <= there


def test_without_a_key_or_with_a_wrong_one_every_route_but_the_exceptions_is_401(client: TestClient) -> None:
    for headers in ({"Authorization": ""}, bearer("plk_wrong"), {"Authorization": "Basic eDp5"}):
        for door, method, status in walk(client, "ours", headers):
            if not door.open_to(method):
                assert status == 401, f"{method} {door.path} {headers} {status}"
            elif door.path != "/sign-in" and "{" not in door.path:
                assert status != 401, f"{method} {door.path} {headers} {status}"


def test_a_key_with_one_scope_opens_the_routes_of_that_scope_and_no_other(client: TestClient) -> None:
    for scope in Scope:
        headers = key_of(client, scope)
        for door, method, status in walk(client, "absent", headers):
            if door.open_to(method):
                continue
            assert status != 401
            assert (status == 403) is (door.scope is not scope), f"{scope} {method} {door.path} {status}"


def test_a_key_bound_to_another_model_finds_404_wherever_a_model_is_named(client: TestClient) -> None:
    headers = key_of(client, *Scope, models=["theirs"])
    walked = 0
    for door, method, status in walk(client, "ours", headers):
        if "{model}" in door.path:
            walked += 1
            assert status == 404, f"{method} {door.path}"
    assert walked > 20


def test_a_path_that_was_asked_for_before_is_checked_as_at_first(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.depends.KNOWN_PATHS", 2)  # so that the gate forgets some of them meanwhile
    bound, reader = key_of(client, Scope.INGEST, models=["theirs"]), key_of(client, Scope.READ)

    def statuses() -> list[int]:
        asked = [("POST", name, bound) for name in ("theirs", "ours", "absent")]
        asked += [("POST", "theirs", reader), ("POST", "theirs", bearer("plk_wrong")), ("DELETE", "theirs", bound)]
        client.cookies.clear()
        return [
            client.request(
                method, f"/v1/models/{name}/predictions", json={"features": {"age": 1}}, headers=headers
            ).status_code
            for method, name, headers in asked
        ]

    assert statuses() == statuses() == statuses() == [200, 404, 404, 403, 401, 405]


def test_a_key_bound_to_a_model_meets_no_other_model_in_any_list(client: TestClient) -> None:
    headers = key_of(client, *Scope, models=["theirs"])
    for door, method in every_request(client):
        if method == "GET" and "{" not in door.path and door.path not in ("/openapi.json", "/docs"):
            answer = client.get(door.path, headers=headers)
            assert '"ours"' not in answer.text, door.path
            assert "models/ours" not in answer.text, door.path


def test_a_key_bound_to_a_model_makes_keys_for_that_model_only(client: TestClient) -> None:
    headers = key_of(client, Scope.ADMIN, models=["theirs"])
    for models in (None, ["ours"], ["ours", "theirs"]):
        body = {"name": "wider", "scopes": ["read"], "models": models}
        assert client.post("/v1/keys", json=body, headers=headers).status_code == 403
    body = {"name": "same", "scopes": ["read"], "models": ["theirs"]}
    assert client.post("/v1/keys", json=body, headers=headers).status_code == 201


def test_openapi_names_the_scope_of_each_route(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    by_path = {(door.path, method.lower()): door.scope for door, method in every_request(client)}
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    for path, method, operation in operations:
        scope = by_path[path, method]
        assert operation.get("x-scope") == (None if scope is None else scope.value), path
        assert re.fullmatch(r"[a-z_]+", operation["operationId"]), operation["operationId"]
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(names) == len(set(names))


def test_a_route_that_declares_no_scope_is_refused_to_every_key(tmp_path: Any) -> None:
    with opened(tmp_path / "data") as client:
        app = client.app
        assert isinstance(app, FastAPI)
        router = APIRouter()

        @router.get("/forgotten")
        def forgotten() -> str:
            return "secret"

        app.include_router(router)
        assert client.get("/forgotten").status_code == 403
        assert client.get("/forgotten", headers={"Authorization": ""}).status_code == 401


def test_basic_authorization_is_for_ingest_routes_alone(client: TestClient) -> None:
    import base64

    header = {"Authorization": "Basic " + base64.b64encode(f"any:{ADMIN_KEY}".encode()).decode()}
    assert client.get("/v1/models", headers=header).status_code == 401
    answer = client.post("/v1/models/ours/predictions", headers=header, json={"features": {"a": 1}})
    assert answer.status_code == 200


def test_of_a_key_only_its_digest_is_stored(client: TestClient) -> None:
    answer = client.post(
        "/v1/keys", json={"name": "shown once", "scopes": ["read"]}, headers={"Idempotency-Key": "key-once"}
    )
    shown = answer.json()["key"]
    assert shown.startswith("plk_")
    assert len(shown) == 4 + 43  # 32 random bytes in base64 without padding
    database = client.app.state.assembly.database  # type: ignore[attr-defined]
    with database.reading() as session:
        tables = session.execute(text("select name from sqlite_master where type = 'table'")).scalars().all()
        for table in tables:
            for row in session.execute(text(f'select * from "{table}"')):
                assert shown not in str(tuple(row)), table
    again = client.post(
        "/v1/keys", json={"name": "shown once", "scopes": ["read"]}, headers={"Idempotency-Key": "key-once"}
    )
    assert again.json()["key"] == shown
    assert again.headers["Idempotency-Replayed"] == "true"


def test_a_revoked_and_an_expired_key_are_401(client: TestClient) -> None:
    made = client.post("/v1/keys", json={"name": "short", "scopes": ["read"]}).json()
    headers = bearer(made["key"])
    assert client.get("/v1/models", headers=headers).status_code == 200
    assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert client.get("/v1/models", headers=headers).status_code == 401


def test_a_rotated_key_works_beside_its_successor_until_the_overlap_ends(tmp_path: Any) -> None:
    clock = SetClock(NOON)
    with opened(tmp_path / "data", clock) as client:
        old = client.post("/v1/keys", json={"name": "job", "scopes": ["read"]}).json()
        new = client.post(f"/v1/keys/{old['id']}/rotate", json={"overlap": "1d"}).json()
        assert {client.get("/v1/models", headers=bearer(key["key"])).status_code for key in (old, new)} == {200}
        clock.move(timedelta(days=1, seconds=1))
        assert client.get("/v1/models", headers=bearer(old["key"])).status_code == 401
        assert client.get("/v1/models", headers=bearer(new["key"])).status_code == 200


def test_the_admin_key_of_the_settings_replaces_the_one_before(tmp_path: Any) -> None:
    with opened(tmp_path / "data") as client:
        assert client.get("/v1/keys").status_code == 200
    from pydantic import SecretStr

    from service.app import create_app
    from service.settings import Settings

    other = "plk_other_0123456789abcdefghijklmnopqrstuvwxyz"
    settings = Settings(data_dir=tmp_path / "data", admin_key=SecretStr(other), roles=("api",))
    with TestClient(create_app(settings)) as client:
        assert client.get("/v1/keys", headers=bearer(ADMIN_KEY)).status_code == 401
        assert client.get("/v1/keys", headers=bearer(other)).status_code == 200


# --- browsers ---------------------------------------------------------------------------------------------------------


def keyring_of(client: TestClient) -> Keyring:
    keyring: Keyring = client.app.state.assembly.keyring  # type: ignore[attr-defined]
    return keyring


def test_a_sign_in_link_works_once(client: TestClient) -> None:
    from service.problems import KeyMissing

    keyring = keyring_of(client)
    link = keyring.sign_in_link()
    assert keyring.session(keyring.redeem(link)).may(Scope.READ)
    with pytest.raises(KeyMissing, match="used already"):
        keyring.redeem(link)


def test_a_session_made_with_a_key_ends_with_the_key(client: TestClient) -> None:
    made = client.post("/v1/keys", json={"name": "browser", "scopes": ["read"]}).json()
    cookie = {"Cookie": f"{COOKIE}={keyring_of(client).sign_in(made['key'])}", "Authorization": ""}
    client.headers.pop("Authorization")
    try:
        del cookie["Authorization"]
        assert client.get("/v1/models", headers=cookie).status_code == 200
        client.delete(f"/v1/keys/{made['id']}", headers=bearer(ADMIN_KEY))
        assert client.get("/v1/models", headers=cookie).status_code == 401
    finally:
        client.headers.update(bearer(ADMIN_KEY))


def test_a_signed_in_browser_changes_things_from_our_own_pages_with_the_token_only(client: TestClient) -> None:
    keyring = keyring_of(client)
    token = keyring.redeem(keyring.sign_in_link())
    csrf = keyring.session(token).csrf or ""
    client.headers.pop("Authorization")
    try:
        cookie = {"Cookie": f"{COOKIE}={token}"}

        def post(**more: str) -> int:
            headers = cookie | {name.replace("_", "-"): value for name, value in more.items()}
            return client.post("/v1/models/absent/restore", headers=headers).status_code

        assert post() == 403
        assert post(X_CSRF_Token=csrf) == 403
        assert post(Origin="http://testserver") == 403
        assert post(Origin="http://testserver", X_CSRF_Token="0" * 64) == 403
        assert post(Origin="https://evil.example", X_CSRF_Token=csrf) == 403
        assert post(Sec_Fetch_Site="cross-site", X_CSRF_Token=csrf) == 403
        assert post(Sec_Fetch_Site="same-site", Origin="http://testserver", X_CSRF_Token=csrf) == 403
        assert post(Sec_Fetch_Site="same-origin", Origin="http://testserver", X_CSRF_Token=csrf) == 404
        assert post(Origin="http://testserver", X_CSRF_Token=csrf) == 404
    finally:
        client.headers.update(bearer(ADMIN_KEY))


def test_a_form_carries_the_token_as_a_field(client: TestClient) -> None:
    keyring = keyring_of(client)
    token = keyring.redeem(keyring.sign_in_link())
    csrf = keyring.session(token).csrf or ""
    client.headers.pop("Authorization")
    try:
        headers = {"Cookie": f"{COOKIE}={token}", "Origin": "http://testserver"}
        path = "/v1/models/absent/restore"
        assert client.post(path, headers=headers, data={"csrf_token": "wrong"}).status_code == 403
        assert client.post(path, headers=headers, data={"csrf_token": csrf}).status_code == 404
    finally:
        client.headers.update(bearer(ADMIN_KEY))


def test_every_answer_forbids_framing_and_sniffing(client: TestClient) -> None:
    for path in ("/healthz", "/v1/models", "/v1/nothing", "/docs", "/sign-in"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_each_json_body_has_an_example(client: TestClient) -> None:
    from service.api.service import _example

    document = client.get("/openapi.json").json()
    without = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
        and not _example(document, operation)
    ]
    assert without == []
