"""Root causes end to end: what moved ranked by what the model heeds, and what the change of the error is made of."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.service.opened import opened

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
CSV = {"Content-Type": "text/csv", "Prefer": "wait=60"}
SPAN = {"from": START.isoformat(), "to": (START + DAY).isoformat()}
A_DAY = 1600
"""Half as many leave one in twenty baselines, whose ids seed what is learnt, with a surrogate that heeds the noise."""


def rows(start: datetime, days: int, shift: float) -> str:
    """Return rows of a model that heeds age alone; ``shift`` moves the age and what nobody heeds alike."""
    g = np.random.default_rng(days)
    number = A_DAY * days
    age, noise = g.normal(shift, 1, number), g.normal(shift, 1, number)
    truth = (g.random(number) < 1 / (1 + np.exp(-3 * age))).astype(int)
    score = 1 / (1 + np.exp(-3 * age))
    lines = ["prediction_id,timestamp,age,noise,prediction,score,ground_truth"]
    lines += [
        f"{start:%d}-{i},{moment.isoformat()},{age[i]},{noise[i]},{int(age[i] > 0)},{score[i]},{truth[i]}"
        for i, moment in enumerate(start + DAY / A_DAY * i for i in range(number))
    ]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Open a service whose model was watched for a day on which both inputs moved."""
    with opened(tmp_path_factory.mktemp("causes")) as found:
        found.post("/v1/models", json={"name": "m", "task": "binary", "positive_class": "1"})
        made = found.post("/v1/models/m/baselines?name=b", content=rows(START - 4 * DAY, 4, 0.0), headers=CSV)
        assert made.status_code == 201, made.text
        monitor = {"name": "inputs", "kind": "data_drift", "start": START.isoformat()}
        assert found.post("/v1/models/m/monitors", json=monitor).status_code == 201
        replay = found.post("/v1/models/m/replays", json=SPAN)
        sent = found.post("/v1/models/m/predictions", content=rows(START, 1, 1.0), headers=CSV)
        assert sent.json()["accepted"] == A_DAY, sent.text
        closed = found.delete(replay.headers["location"], headers={"Prefer": "wait=60"})
        assert closed.status_code == 200, closed.text
        yield found


def test_of_two_features_that_moved_alike_the_one_that_the_model_heeds_comes_first(client: TestClient) -> None:
    found = client.get("/v1/models/m/causes", params=SPAN).json()
    first, second = found["features"]
    assert found["importance_source"] == "a surrogate of the prediction"
    assert (first["feature"], second["feature"]) == ("age", "noise")
    assert first["drift"] == pytest.approx(second["drift"], rel=0.3)
    assert first["importance"] > 0.95
    assert first["verdict"] == second["verdict"] == "violated"
    assert abs(first["explained_change"]) > 2 * abs(second["explained_change"])


def test_the_change_of_the_error_is_split_with_intervals(client: TestClient) -> None:
    parts = {part["name"]: part for part in client.get("/v1/models/m/causes", params=SPAN).json()["parts"]}
    assert parts["change"]["value"] == pytest.approx(
        sum(parts[name]["value"] for name in ("covariate", "label", "concept"))
    )
    assert parts["covariate"]["interval"][1] < 0  # ages far from 0 are easy, and nothing else changed
    low, high = parts["concept"]["interval"]
    assert low < 0.03
    assert high > -0.03


def test_the_causes_of_an_alert_and_the_drift_page_know_what_the_model_heeds(client: TestClient) -> None:
    (alert,) = client.get("/v1/alerts").json()["items"]
    causes = client.get(f"/v1/alerts/{alert['id']}/causes").json()
    assert causes["importance_source"] == "a surrogate of the prediction"
    assert [one["subject"] for one in causes["items"]] == ["age", "noise"]
    assert causes["items"][0]["importance"] > 0.95
    page = client.get("/models/m/drift.json", params={"range": "all", "sort": "impact"}).json()
    assert [one["column"] for one in page["columns"]] == ["age", "noise"]
    assert page["columns"][0]["importance"] > 0.95
    assert client.get(f"/alerts/{alert['id']}").status_code == 200
    assert client.get("/models/m/drift", params={"range": "all", "sort": "impact"}).status_code == 200


def test_without_rows_in_the_span_the_parts_say_why_there_are_none(client: TestClient) -> None:
    span = {"from": (START + 9 * DAY).isoformat(), "to": (START + 10 * DAY).isoformat()}
    (part,) = client.get("/v1/models/m/causes", params=span).json()["parts"]
    assert part["value"] is None
    assert "no rows" in part["reason"]
