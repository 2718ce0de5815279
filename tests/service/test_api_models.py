"""Models, versions and schemas: declared, changed under If-Match, archived, and written down in the audit."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.service.opened import opened


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with opened(tmp_path_factory.mktemp("models")) as found:
        yield found


def make(client: TestClient, name: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/models", json={"name": name, "task": "binary", **more})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_a_model_has_the_defaults_of_the_interface(client: TestClient) -> None:
    made = make(client, "plain")
    assert made["alarm_budget"] == {"per": "30d", "at_most": 1}
    assert made["decision_threshold"] == 0.5
    assert made["protected_attributes"] == []
    assert made["active_version"] is None
    assert client.get("/v1/models/plain").json() == made


def test_class_labels_have_one_spelling(client: TestClient) -> None:
    made = make(client, "spelt", classes=[0, 1.0], positive_class=1, favourable_outcome=0)
    assert made["classes"] == ["0", "1"]
    assert (made["positive_class"], made["favourable_outcome"]) == ("1", "0")


@pytest.mark.parametrize(
    "members",
    [
        {"classes": ["a"]},
        {"classes": ["a", "b", "c"]},
        {"classes": ["a", "a"]},
        {"classes": ["a", "b"], "positive_class": "c"},
        {"classes": ["a", "b"], "favourable_outcome": "c"},
        {"task": "regression", "classes": ["a", "b"]},
        {"task": "regression", "favourable_outcome": "1"},
        {"task": "regression", "favourable_outcome": {"above": 1, "below": 2}},
        {"task": "multiclass", "positive_class": "a"},
        {"task": "ranking"},
        {"favourable_outcome": {"above": 1}},
        {"alarm_budget": {"per": "0d"}},
        {"alarm_budget": {"per": "monthly"}},
        {"alarm_budget": {"at_most": -1}},
        {"retention": {"rows": "a while"}},
        {"retention": {"rows": "90d"}},
        {"protected_attributes": [{"name": "age", "cuts": [62, 25]}]},
        {"protected_attributes": [{"name": "age", "cuts": [25], "values": ["a"]}]},
        {"protected_attributes": ["sex", {"crossed": ["sex", "age"]}]},
        {"schema": {"features": [{"name": "a", "type": "numeric"}, {"name": "a", "type": "text"}]}},
        {"schema": {"features": [{"name": "a", "type": "numeric", "range": [2, 1]}]}},
        {"schema": {"features": [{"name": "a", "type": "numeric", "categories": ["x"]}]}},
    ],
)
def test_a_model_that_makes_no_sense_is_422(client: TestClient, members: dict[str, Any]) -> None:
    answer = client.post("/v1/models", json={"name": "senseless", "task": "binary", **members})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]
    assert client.get("/v1/models/senseless").status_code == 404


def test_what_cannot_be_removed_yet_is_refused_in_so_many_words(client: TestClient) -> None:
    make(client, "kept")
    for answer in (
        client.post("/v1/models", json={"name": "brief", "task": "binary", "retention": {"rows": "90d"}}),
        client.patch("/v1/models/kept", json={"retention": {"results": "10y"}}),
    ):
        assert answer.status_code == 422
        assert "everything is kept for good" in answer.text
    answer = client.post("/v1/erasures", json={"model": "kept", "subject": "ann@example.com"})
    assert (answer.status_code, answer.json()["title"]) == (409, "Single records cannot be erased")
    assert "nothing was erased" in answer.json()["detail"]
    assert "ann@" not in answer.text


def test_protected_attributes_are_kept_as_they_were_declared(client: TestClient) -> None:
    declared = ["sex", {"name": "age", "cuts": [25.0, 62.0], "reference": "25-62"}, {"crossed": ["sex", "age"]}]
    assert make(client, "fair", protected_attributes=declared)["protected_attributes"] == declared


def test_a_declared_schema_makes_the_first_version(client: TestClient) -> None:
    features = [
        {"name": "age", "type": "numeric", "required": True, "range": [18, None]},
        {"name": "job", "type": "categorical", "categories": ["clerk", 7]},
    ]
    made = make(client, "declared", schema={"features": features, "on_bad_value": "reject"})
    assert (made["active_version"], made["on_bad_value"]) == ("1", "reject")
    schema = client.get("/v1/models/declared/versions/1/schema").json()
    assert [(f["name"], f["type"], f["status"]) for f in schema["features"]] == [
        ("age", "numeric", "confirmed"),
        ("job", "categorical", "confirmed"),
    ]
    assert schema["features"][1]["categories"] == ["clerk", "7"]


def test_a_change_names_the_revision_it_was_made_from(client: TestClient) -> None:
    make(client, "changed", classes=["a", "b"])
    tag = client.get("/v1/models/changed").headers["ETag"]
    path = "/v1/models/changed"
    first = client.patch(path, json={"decision_threshold": 0.7}, headers={"If-Match": tag})
    assert (first.status_code, first.json()["decision_threshold"]) == (200, 0.7)
    assert first.json()["classes"] == ["a", "b"]
    second = client.patch(path, json={"decision_threshold": 0.1}, headers={"If-Match": tag})
    assert (second.status_code, second.headers["ETag"]) == (412, '"2"')
    assert client.patch(path, json={"positive_class": "z"}).status_code == 422
    assert client.patch(path, json={"task": "regression"}).status_code == 422


def test_a_reader_who_has_the_revision_gets_304(client: TestClient) -> None:
    make(client, "cached")
    tag = client.get("/v1/models/cached").headers["ETag"]
    known = client.get("/v1/models/cached", headers={"If-None-Match": f'"0", {tag}'})
    assert (known.status_code, known.content, known.headers["ETag"]) == (304, b"", tag)
    client.patch("/v1/models/cached", json={"note": "new"})
    assert client.get("/v1/models/cached", headers={"If-None-Match": tag}).json()["note"] == "new"


def test_deleting_archives_and_restoring_brings_back(client: TestClient) -> None:
    make(client, "gone")
    assert client.delete("/v1/models/gone").status_code == 204
    assert "gone" not in [model["name"] for model in client.get("/v1/models?limit=1000").json()["items"]]
    assert [model["name"] for model in client.get("/v1/models?archived=true").json()["items"]] == ["gone"]
    assert client.get("/v1/models/gone").json()["archived_at"] is not None
    assert client.patch("/v1/models/gone", json={"note": "x"}).status_code == 404
    assert client.post("/v1/models", json={"name": "gone", "task": "binary"}).status_code == 409
    assert client.post("/v1/models/gone/restore").json()["archived_at"] is None
    assert client.post("/v1/models/gone/restore").status_code == 404


def test_a_list_is_paged_without_gap_or_repeat_while_it_grows(client: TestClient) -> None:
    for letter in "bdfh":
        make(client, f"page-{letter}", task="multilabel")
    seen: list[str] = []
    cursor = None
    while True:
        parameters = {"limit": "2", "task": "multilabel"} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/models", params=parameters).json()
        seen += [model["name"] for model in page["items"]]
        if not seen[2:]:
            make(client, "page-a", task="multilabel")
            make(client, "page-e", task="multilabel")
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["page-b", "page-d", "page-e", "page-f", "page-h"]


def test_versions_are_registered_activated_and_retired(client: TestClient) -> None:
    make(client, "staged", schema={"features": [{"name": "age", "type": "numeric"}]})
    path = "/v1/models/staged/versions"
    body = {"version": "2", "uri": "models:/staged/2", "metadata": {"git": "ab12"}}
    assert client.post(path, json=body).json()["active"] is False
    assert client.post(path, json=body).status_code == 409
    assert client.get(f"{path}/2/schema").json()["features"][0]["name"] == "age"  # it starts as a copy
    assert client.post(f"{path}/1/retire").status_code == 409
    assert client.post(f"{path}/2/activate").json()["active"] is True
    assert client.post(f"{path}/1/retire").json()["retired_at"] is not None
    assert client.get("/v1/models/staged").json()["active_version"] == "2"
    changed = client.patch(f"{path}/2", json={"metadata": {"git": "cd34"}}).json()
    assert (changed["metadata"], changed["uri"]) == ({"git": "cd34"}, "models:/staged/2")


def test_a_version_that_records_made_becomes_registered(client: TestClient) -> None:
    make(client, "early")
    record = {"version": "7", "features": {"age": 41}, "prediction": 1}
    assert client.post("/v1/models/early/predictions", json=record).status_code == 200
    assert client.get("/v1/models/early/versions/7").json()["registered"] is False
    answer = client.post("/v1/models/early/versions", json={"version": "7"})
    assert (answer.status_code, answer.json()["registered"]) == (201, True)


def test_a_schema_is_replaced_as_a_whole_and_corrected_by_name(client: TestClient) -> None:
    features = [{"name": name, "type": "numeric"} for name in ("age", "zip")]
    make(client, "corrected", schema={"features": features})
    path = "/v1/models/corrected/versions/1/schema"
    one = client.patch(path, json={"features": [{"name": "zip", "type": "categorical"}]}).json()
    assert [(f["name"], f["type"]) for f in one["features"]] == [("age", "numeric"), ("zip", "categorical")]
    whole = client.put(path, json={"features": [{"name": "job", "type": "text"}]}).json()
    assert [(f["name"], f["type"]) for f in whole["features"]] == [("job", "text")]
    names = [f["name"] for f in client.get("/v1/models/corrected/features").json()["items"]]
    assert names == ["job"]


def test_a_new_feature_is_new_until_it_is_confirmed(client: TestClient) -> None:
    make(client, "surprised", schema={"features": [{"name": "age", "type": "numeric"}]})
    record = {"features": {"age": 41, "shoe": 44}, "prediction": 1}
    assert client.post("/v1/models/surprised/predictions", json=record).status_code == 200
    listed = client.get("/v1/models/surprised/features", params={"status": "new"}).json()["items"]
    assert [f["name"] for f in listed] == ["shoe"]
    path = "/v1/models/surprised/versions/1/schema"
    client.patch(path, json={"features": [{"name": "shoe", "type": "numeric"}]})
    assert client.get("/v1/models/surprised/features", params={"status": "new"}).json()["items"] == []


def test_every_change_is_in_the_audit(client: TestClient) -> None:
    make(client, "watched")
    client.patch("/v1/models/watched", json={"alarm_budget": {"per": "30d", "at_most": 2}})
    client.delete("/v1/models/watched")
    items = client.get("/v1/audit", params={"model": "watched"}).json()["items"]
    assert [item["action"] for item in items] == ["model.archive", "model.update", "model.create"]
    assert items[1]["detail"]["before"] == {"alarm_budget": {"per": "30d", "at_most": 1}}
    assert items[1]["detail"]["after"] == {"alarm_budget": {"per": "30d", "at_most": 2}}
    assert {item["actor"] for item in items} == {"admin (settings)"}
