"""Dry runs of monitors: what they would judge, at which level, and the least change that they would find."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import sqrt
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from monitors import discovery
from tests.service.opened import opened

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, A_DAY = 20, 300
ROLES = {"prediction": "said", "score": "chance", "ground_truth": "was"}


def rows(number: int, seed: int, *, right: float = 0.75, times: bool = False) -> pa.Table:
    """Return rows of which so many are answered right, whatever their score; one person in 50 is from the isle."""
    generator = np.random.default_rng(seed)
    chance = generator.uniform(size=number)
    said = chance >= 0.5
    columns: dict[str, Any] = {
        "age": generator.normal(40, 10, number),
        "said": said.astype(np.int64),
        "chance": np.where(said, 0.75, 0.25) + generator.uniform(-0.01, 0.01, number),
        "was": np.where(generator.random(number) < right, said, ~said).astype(np.int64),
        "sex": generator.choice(["F", "M"], number, p=[0.4, 0.6]),
        "region": generator.choice(["north", "south", "isle"], number, p=[0.6, 0.38, 0.02]),
    }
    if times:
        moments = [START + timedelta(days=1) / A_DAY * place for place in range(number)]
        columns["at"] = pa.array(moments, pa.timestamp("us", "UTC"))
    return pa.table(columns)


BASELINE = rows(DAYS * A_DAY, 1, times=True)


def sent(client: TestClient, table: pa.Table, what: str, **parameters: str) -> Any:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    headers = {"content-type": "application/vnd.apache.parquet"}
    parameters = ROLES | ({"timestamp": "at"} if "at" in table.column_names else {}) | parameters
    return client.post(f"/v1/models/loans/{what}", params=parameters, content=sink.getvalue(), headers=headers)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with opened(tmp_path_factory.mktemp("dry")) as found:
        body: dict[str, Any] = {"name": "loans", "task": "binary", "classes": ["0", "1"], "positive_class": "1"}
        body |= {"favourable_outcome": "0", "protected_attributes": [{"name": "sex", "reference": "M"}, "region"]}
        assert found.post("/v1/models", json=body).status_code == 201
        made = sent(found, BASELINE, "baselines", name="training", protected="sex,region")
        assert made.status_code == 201, made.text
        assert found.post("/v1/models", json=body | {"name": "empty"}).status_code == 201
        yield found


def tried(client: TestClient, model: str = "loans", **members: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/models/{model}/monitors?dry_run=true", json={"name": "trial", **members})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert client.get(f"/v1/models/{model}/monitors").json()["items"] == []
    return told


def test_each_figure_is_told_with_its_level_and_the_least_change_that_a_budget_finds(client: TestClient) -> None:
    told = tried(client, kind="performance", policy={"budget": {"share": 0.3}})
    assert told["alpha"] == pytest.approx(0.3 / 30)  # one false alarm in 30 days, daily windows, of which 0.3
    assert (told["n_baseline"], told["n_window"]) == (6000, 300)
    assert told["rehearsed"] == {"rows": 300, "baseline": "training", "reason": None}
    subjects = {one["metric"]: one for one in told["subjects"]}
    assert list(subjects) == ["accuracy", "f1", "roc_auc"]
    # 20 days are as many blocks as it takes, so nothing is calibrating; Holm's method begins at a third.
    assert all(one["alpha"] == pytest.approx(0.01 / 3) for one in subjects.values())
    accuracy = subjects["accuracy"]
    assert accuracy["baseline_value"] == pytest.approx(0.75, abs=0.02)
    # One-sided at 0.0033 Student's t with 19 degrees is 3.04; of the days' own sd s, with 80 % power, (3.04 + 0.84) s.
    right = np.array(BASELINE["said"]) == np.array(BASELINE["was"])
    spread = right.reshape(DAYS, A_DAY).mean(axis=1).std(ddof=1) * sqrt(1 + 1 / DAYS)
    assert accuracy["smallest_change"]["value"] == pytest.approx((3.0447 + 0.8416) * spread, rel=1e-3)
    assert accuracy["smallest_change"]["power"] == 0.8


@pytest.mark.long
def test_a_change_of_that_size_is_found_about_four_times_in_five(client: TestClient) -> None:
    """Of 20 files at 80 %, twelve or fewer would be found once in 31 times, and all of them once in 87."""
    policy = {"budget": {"share": 0.3}}
    parameters = {"metrics": ["accuracy"]}
    told = tried(client, kind="performance", policy=policy, parameters=parameters)
    (accuracy,) = told["subjects"]
    lowered = accuracy["baseline_value"] - accuracy["smallest_change"]["value"]
    monitor = {"name": "truth", "kind": "performance", "policy": policy, "parameters": parameters}
    assert client.post("/v1/models/loans/monitors", json=monitor).status_code == 201
    found = 0
    for seed in range(20):
        table = rows(A_DAY, 100 + seed, right=lowered, times=True)
        found += sent(client, table, "checks", protected="sex,region").json()["status"] == "violations"
    assert client.delete("/v1/models/loans/monitors/truth").status_code == 204
    assert 13 <= found <= 19


def test_thresholds_are_told_of_the_figures_that_have_one(client: TestClient) -> None:
    told = tried(client, kind="performance", policy={"threshold": {"accuracy": 0.7, "log_loss": 0.8}})
    assert "alpha" not in told
    assert {one["metric"]: one["threshold"] for one in told["subjects"]} == {"accuracy": 0.7, "log_loss": 0.8}
    assert not any("smallest_change" in one for one in told["subjects"])


def test_groups_are_told_with_what_a_usual_window_would_withhold(client: TestClient) -> None:
    told = tried(client, kind="bias", parameters={"metrics": ["DPPL", "DI"]})
    groups = [("sex", "F"), ("region", "isle"), ("region", "north"), ("region", "south")]
    subjects = {(one["metric"], one["attribute"], one["group"]): one for one in told["subjects"]}
    assert set(subjects) == {(metric, *group) for metric in ("DPPL", "DI") for group in groups}
    assert {one["reference_group"] for one in subjects.values()} == {"M", "rest"}
    # About 6 of 300 rows are from the isle, and one of the others would tell of them: that one is withheld too.
    assert "of 30 rows" in subjects["DI", "region", "isle"]["reason"]
    assert "of a smaller group" in subjects["DI", "region", "south"]["reason"]
    # Four results are left to judge: two of women, two of the north; one false alarm in 30 days among them.
    women = subjects["DPPL", "sex", "F"]
    assert [one["alpha"] for one in subjects.values() if "alpha" in one] == [pytest.approx(1 / 120)] * 4
    assert subjects["DI", "sex", "F"]["smallest_change"]["unit"] == "of the logarithm"
    # Two-sided at 0.0083 it is 2.94. The difference of two shares of a half, of 0.4 and 0.6 of 300 rows, has the sd
    # s = sqrt(1/4 (1/120 + 1/180)) = 0.059; that of 20 days is within a third of it, but for one time in 40.
    assert women["smallest_change"]["value"] == pytest.approx((2.94 + 0.842) * sqrt(1.05) * 0.0589, rel=0.33)
    levels = tried(
        client, kind="bias", parameters={"metrics": ["DI"], "rule": "interval", "ranges": {"DI": [0.8, 1.25]}}
    )
    assert {one["rule"] for one in levels["subjects"] if "reason" not in one} == {"sagemaker"}


def test_what_is_expected_without_labels_and_concept_drift_are_told_too(client: TestClient) -> None:
    expected = tried(client, kind="estimated_performance")
    assert [one["metric"] for one in expected["subjects"]] == ["accuracy", "f1", "roc_auc"]
    drift = tried(client, kind="concept_drift")
    parts = [one["metric"] for one in drift["subjects"]]
    assert parts == ["accuracy_concept_part", "f1_concept_part", "roc_auc_concept_part", "calibration_shift"]
    assert all(one["alpha"] == pytest.approx(1 / 30 / 4) for one in drift["subjects"])


def test_a_slice_has_subjects_of_its_own(client: TestClient) -> None:
    made = client.put("/v1/models/loans/slices/old", json={"where": {"features.age": {"ge": 40}}})
    assert made.status_code in (200, 201), made.text
    told = tried(client, kind="performance", slices=["old"], parameters={"metrics": ["accuracy"]})
    assert [one.get("slice") for one in told["subjects"]] == [None, "old"]
    assert 100 < told["subjects"][1]["n_window"] < 200


def test_a_change_of_a_monitor_is_tried_as_it_would_be(client: TestClient) -> None:
    monitor = {"name": "kept", "kind": "performance", "enabled": False}
    assert client.post("/v1/models/loans/monitors", json=monitor).status_code == 201
    changed = {"parameters": {"metrics": ["brier"]}, "policy": {"budget": {"share": 0.5}}, "enabled": True}
    told = client.patch("/v1/models/loans/monitors/kept?dry_run=true", json=changed).json()
    assert [(one["metric"], one["alpha"]) for one in told["subjects"]] == [("brier", pytest.approx(0.5 / 30))]
    assert client.get("/v1/models/loans/monitors/kept").json()["enabled"] is False
    assert client.delete("/v1/models/loans/monitors/kept").status_code == 204


def test_without_a_baseline_there_is_a_reason(client: TestClient) -> None:
    told = tried(client, model="empty", kind="performance")
    assert told["subjects"] == []
    assert "has no version" in told["rehearsed"]["reason"]


@pytest.mark.parametrize("kind", [name for name in discovery.kinds() if name != "bias"])
def test_a_dry_run_of_any_kind_says_what_it_would_judge_or_why_it_cannot(client: TestClient, kind: str) -> None:
    parameters = {"metrics": {"revenue": {"direction": "lower_is_worse"}}} if kind == "posted_metrics" else {}
    told = tried(client, kind=kind, parameters=parameters)
    assert told["subjects"] or told["rehearsed"]["reason"]
    for one in told["subjects"]:
        assert one["metric"]
        assert "alpha" in one or "rule" in one or "reason" in one
    judged = [one for one in told["subjects"] if "alpha" in one]
    # Holm's method begins at alpha over as many as it judges, a tenth of that where rows must count as independent.
    levels = {round(one["alpha"] * len(judged) / told["alpha"], 9) for one in judged}
    assert levels <= {1.0, 0.1}
