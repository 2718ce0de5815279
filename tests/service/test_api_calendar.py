"""Planned changes and what is said about alerts, over HTTP."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from service.access import Scope
from service.tables import AlertRow, ModelRow, VersionRow
from service.words import format_time
from tests.service.opened import key_of, opened

MAY = datetime(2026, 5, 4, tzinfo=UTC)
PLAN = {"title": "The price list changes", "from": "2026-05-04T00:00:00Z", "to": "2026-05-06T00:00:00Z"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder: Path = tmp_path_factory.mktemp("calendar")
    with opened(folder) as found:
        for name in ("ours", "theirs"):
            assert found.post("/v1/models", json={"name": name, "task": "binary"}).status_code == 201
        parts = found.app.state.assembly  # type: ignore[attr-defined]
        with parts.database.writing() as session:
            model = session.scalars(select(ModelRow).where(ModelRow.name == "ours")).one()
            version = VersionRow(model_id=model.id, name="v1", created_at=MAY)
            session.add(version)
            session.flush()
            worst = {
                name: {"metric": "psi", "feature": name, "value": value, "threshold": 0.2}
                for name, value in (("age", 0.3), ("income", 0.8))
            }
            session.add(
                AlertRow(
                    uid="a" * 32,
                    model_id=model.id,
                    version_id=version.id,
                    state="open",
                    severity="warning",
                    sentence="2 of 3 inputs moved",
                    starts_at=MAY,
                    last_violated_at=MAY.replace(day=5),
                    opened_at=MAY,
                    updated_at=MAY,
                    members={"data_drift": {"kind": "data_drift", "worst": worst, "features": ["age", "income"]}},
                )
            )
        yield found


def test_a_change_is_planned_moved_and_taken_back(client: TestClient) -> None:
    made = client.post("/v1/calendar", json=PLAN | {"model": "ours", "effect": "suppress"})
    assert made.status_code == 201, made.text
    path = made.headers["Location"]
    assert client.get(path).json()["effect"] == "suppress"
    moved = client.patch(path, json={"to": "2026-05-05T00:00:00Z"}, headers={"If-Match": made.headers["ETag"]})
    assert (moved.json()["to"], moved.json()["revision"]) == ("2026-05-05T00:00:00Z", 2)
    assert client.patch(path, json={"title": "x"}, headers={"If-Match": '"1"'}).status_code == 412
    assert client.patch(path, json={"to": "2026-05-01T00:00:00Z"}).status_code == 422
    assert len(client.get("/v1/calendar?model=ours&from=2026-05-04T12:00:00Z").json()["items"]) == 1
    assert client.get("/v1/calendar?from=2026-06-01T00:00:00Z").json()["items"] == []
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404


def test_a_key_bound_to_a_model_plans_for_that_model_alone(client: TestClient) -> None:
    bound = key_of(client, *Scope, models=["theirs"])
    ours = client.post("/v1/calendar", json=PLAN | {"model": "ours"}).headers["Location"]
    everywhere = client.post("/v1/calendar", json=PLAN).headers["Location"]
    assert client.get(ours, headers=bound).status_code == 404
    assert client.get(everywhere, headers=bound).status_code == 200
    assert client.delete(everywhere, headers=bound).status_code == 403
    assert client.post("/v1/calendar", json=PLAN, headers=bound).status_code == 422
    assert client.post("/v1/calendar", json=PLAN | {"model": "ours"}, headers=bound).status_code == 404
    assert len(client.get("/v1/calendar", headers=bound).json()["items"]) == 1
    assert client.delete(ours).status_code == client.delete(everywhere).status_code == 204


def test_causes_are_ranked_and_name_what_was_planned(client: TestClient) -> None:
    plan = client.post("/v1/calendar", json=PLAN | {"model": "ours"}).headers["Location"]
    found = client.get(f"/v1/alerts/{'a' * 32}/causes").json()
    assert [(one["subject"], one["times_its_limit"]) for one in found["items"]] == [
        ("income", pytest.approx(4.0)),
        ("age", pytest.approx(1.5)),
    ]
    assert [one["title"] for one in found["planned"]] == ["The price list changes"]
    client.delete(plan)


def test_comments_are_added_by_operators_and_read_by_readers(client: TestClient) -> None:
    path = f"/v1/alerts/{'a' * 32}/comments"
    reader = key_of(client, Scope.READ)
    assert client.post(path, json={"text": "hm"}, headers=reader).status_code == 403
    assert client.post(path, json={"text": "   "}).status_code == 422
    assert client.post(path, json={"text": " the campaign "}).status_code == 201
    assert [one["text"] for one in client.get(path, headers=reader).json()["items"]] == ["the campaign"]
    assert client.get(path, headers=key_of(client, *Scope, models=["theirs"])).status_code == 404


def test_alerts_are_grouped_by_model_and_muted_until_a_moment(client: TestClient) -> None:
    (group,) = client.get("/v1/alerts?group=model").json()["items"]
    assert (group["model"], group["open"], group["severity"], len(group["alerts"])) == ("ours", 1, "warning", 1)
    path = f"/v1/alerts/{'a' * 32}/mute"
    assert client.post(path, json={"until": "2020-01-01T00:00:00Z"}).status_code == 422
    until = format_time(datetime.now(UTC).replace(microsecond=0) + timedelta(days=30))
    assert client.post(path, json={"until": until}).json()["muted_until"] == until
