"""Bias as callers meet it: protected attributes early, late and corrected, counted by group and seen nowhere else."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from monitors import discovery
from monitors.bias import People
from monitors.contract import CountedBias
from monitors.facets import facet_cells, facets_of_rows
from service.access import Scope
from service.clock import SetClock
from service.tables import VersionRow
from service.words import Span
from tests.service.opened import key_of

START = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
PROTECTED = [
    {"name": "sex", "values": ["F", "M"], "reference": "M"},
    {"name": "age", "cuts": [30, 60]},
    {"crossed": ["sex", "age"]},
]


@dataclass
class Stream:
    """People that come to be judged, the same for the same seed."""

    days: int = 20
    per_hour: int = 6
    seed: int = 1
    first: int = 0
    lower: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Draw them: women are accepted (prediction 0) less often by ``lower``."""
        rng = np.random.default_rng(self.seed)
        for number in range(self.days * 24 * self.per_hour):
            sex = "F" if rng.random() < 0.4 else "M"
            bad = rng.random() < 0.3 + (self.lower if sex == "F" else 0.0)
            moment = START + self.first * 24 * HOUR + number * HOUR / self.per_hour
            self.rows.append(
                {
                    "prediction_id": f"p{self.seed}-{number}",
                    "timestamp": moment.isoformat(),
                    "income": float(np.round(rng.normal(40, 10), 3)),
                    "job": str(rng.choice(["clerk", "nurse"])),
                    "score": float(np.round(rng.uniform(0.5, 1) if bad else rng.uniform(0, 0.5), 4)),
                    "prediction": int(bad),
                    "ground_truth": int(rng.random() < (0.8 if bad else 0.1)),
                    "sex": sex,
                    "age": 18.25 + float(np.round(rng.uniform(0, 60), 3)),
                }
            )

    def file(self) -> bytes:
        names = list(self.rows[0])
        lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in self.rows)]
        return "\n".join(lines).encode()

    def records(self) -> list[dict[str, Any]]:
        return [
            {
                "prediction_id": row["prediction_id"],
                "timestamp": row["timestamp"],
                "features": {"income": row["income"], "job": row["job"]},
                "score": row["score"],
                "prediction": row["prediction"],
            }
            for row in self.rows
        ]


def posted(client: TestClient, path: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Send records in bodies of a thousand and return the last answer."""
    answer: dict[str, Any] = {}
    for start in range(0, len(records), 1000):
        sent = client.post(f"/v1/models/loans/{path}", json=records[start : start + 1000])
        assert sent.status_code == 200, sent.text
        answer = sent.json()
    return answer


def declared(client: TestClient, **more: Any) -> None:
    body = {
        "name": "loans",
        "task": "binary",
        "classes": ["0", "1"],
        "positive_class": "1",
        "favourable_outcome": "0",
        "protected_attributes": PROTECTED,
        "group_variable": "job",
        **more,
    }
    answer = client.post("/v1/models", json={name: value for name, value in body.items() if value is not None})
    assert answer.status_code == 201, answer.text


def with_baseline(client: TestClient, stream: Stream, protected: str = "sex,age") -> None:
    answer = client.post(
        f"/v1/models/loans/baselines?name=reference&protected={protected}&ground_truth=ground_truth",
        content=stream.file(),
        headers={"content-type": "text/csv"},
    )
    assert answer.status_code in (201, 202), answer.text
    job = answer.headers.get("location", "")
    while answer.status_code == 202 and client.get(job).json()["state"] in ("queued", "running"):
        time.sleep(0.1)


def attributes(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [
        {"prediction_id": row["prediction_id"], "protected": {name: row[name] for name in names or ("sex", "age")}}
        for row in rows
    ]


def labels(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"prediction_id": row["prediction_id"], "ground_truth": row["ground_truth"]} for row in rows]


def profile(client: TestClient, days: int, first: int = 0) -> Any:
    """Return the profile of some days, with its outcomes."""
    parts = client.app.state.assembly  # type: ignore[attr-defined]
    parts.sealer.seal(1)
    with parts.database.reading() as session:
        version = session.scalars(select(VersionRow)).one()
        span = Span(START + first * 24 * HOUR, START + (first + days) * 24 * HOUR)
        return parts.profiles.window(session, version, version.layout or 1, span, labels=True)


def group_of(row: dict[str, Any], attribute: str) -> str:
    age = "<30" if row["age"] < 30 else "30..60" if row["age"] < 60 else ">=60"
    return str({"sex": row["sex"], "age": age, "sex*age": f"{row['sex']}*{age}"}[attribute])


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client(SetClock(START + timedelta(days=60)), tick_seconds=3600.0)


def test_a_bias_monitor_needs_to_know_which_outcome_is_good_for_the_person(client: TestClient) -> None:
    declared(client, favourable_outcome=None)
    body = {"name": "fair", "kind": "bias"}
    refused = client.post("/v1/models/loans/monitors", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["code"] == "model_incomplete"
    assert "favourable_outcome" in refused.text  # never guessed from positive_class
    changed = {"favourable_outcome": "0", "protected_attributes": []}
    headers = {"If-Match": client.get("/v1/models/loans").headers["etag"]}
    assert client.patch("/v1/models/loans", json=changed, headers=headers).status_code == 200
    assert "protected_attributes" in client.post("/v1/models/loans/monitors", json=body).text
    headers = {"If-Match": client.get("/v1/models/loans").headers["etag"]}
    assert (
        client.patch("/v1/models/loans", json={"protected_attributes": PROTECTED}, headers=headers).status_code == 200
    )
    assert client.post("/v1/models/loans/monitors", json=body).status_code == 201
    bad = {"name": "fair2", "kind": "bias", "parameters": {"attributes": ["religion"]}}
    assert "religion" in client.post("/v1/models/loans/monitors", json=bad).text


def test_bias_from_the_profile_is_that_of_the_raw_rows(client: TestClient) -> None:
    declared(client)
    with_baseline(client, Stream(seed=2, days=10, first=-10))
    stream = Stream(days=4)
    records = stream.records()
    for record, row in zip(records[::2], stream.rows[::2], strict=True):
        record["protected"] = {"sex": row["sex"], "age": row["age"]}  # half of them with the prediction
    posted(client, "predictions", records)
    posted(client, "protected", attributes(stream.rows[1::2], "sex"))  # the rest later, each attribute by itself
    posted(client, "protected", attributes(stream.rows[1::2], "age"))
    posted(client, "ground-truth", labels(stream.rows))
    found = profile(client, 4)
    assert found.rows == len(stream.rows)
    compared = 0
    for attribute in ("sex", "age", "sex*age"):
        names = found.layout.outcomes.groups[attribute]
        cells = facet_cells(found.layout, found.outcome_cells.dense(found.layout).values, attribute)
        people = People(attribute, names, cells)
        groups = [group_of(row, attribute) for row in stream.rows]
        for metric in discovery.bias_metrics().values():
            if not isinstance(metric, CountedBias):
                continue
            ours = metric.value(people.facets(people.cells, strata="stratum" in metric.needs))
            for place, name in enumerate(names):
                raw = facets_of_rows(
                    np.array([group == name for group in groups]),
                    [row["ground_truth"] for row in stream.rows],
                    [row["prediction"] for row in stream.rows],
                    favourable=(0,),
                    strata=[row["job"] for row in stream.rows],
                )
                assert float(ours[place]) == pytest.approx(float(metric.value(raw)), abs=1e-12, nan_ok=True)
                compared += 1
    assert compared == 20 * (2 + 3 + 6)


def test_late_and_corrected_attributes_change_exactly_their_hours(client: TestClient) -> None:
    declared(client)
    with_baseline(client, Stream(seed=2, days=10, first=-10))
    stream = Stream(days=1)
    posted(client, "predictions", stream.records())
    posted(client, "protected", attributes(stream.rows[:-6]))
    parts = client.app.state.assembly  # type: ignore[attr-defined]

    def hours() -> dict[int, tuple[bytes, bytes]]:
        """Return the inputs and outcomes of each hour, as they are stored once everything is counted."""
        parts.sealer.seal(1)
        found = {}
        with parts.database.reading() as session:
            version = session.scalars(select(VersionRow)).one()
            for hour in range(24):
                span = Span(START + hour * HOUR, START + (hour + 1) * HOUR)
                one = parts.profiles.window(session, version, version.layout or 1, span, labels=True)
                found[hour] = one.encode_inputs(), one.encode_outcomes()
        return found

    before = hours()
    assert profile(client, 1).outcomes["sex"].sum(axis=(1, 2, 3)).tolist()[-1] == 6  # the last hour is unknown
    late, wrong = stream.rows[-6:], stream.rows[60]
    posted(client, "protected", attributes(late))
    corrected = {"prediction_id": wrong["prediction_id"], "protected": {"sex": "F" if wrong["sex"] == "M" else "M"}}
    posted(client, "protected", [corrected])
    after = hours()
    assert {hour for hour in after if after[hour] != before[hour]} == {10, 23}
    assert all(after[hour][0] == before[hour][0] for hour in after)  # inputs are not touched
    assert profile(client, 1).outcomes["sex"].sum(axis=(1, 2, 3)).tolist()[-1] == 0
    # An attribute told of alone leaves the others as they were, and null takes one back.
    posted(client, "protected", [{"prediction_id": wrong["prediction_id"], "protected": {"sex": None}}])
    found = profile(client, 1).outcomes
    assert found["sex"].sum(axis=(1, 2, 3)).tolist()[-1] == 1
    assert found["age"].sum(axis=(1, 2, 3)).tolist()[-1] == 0


def test_another_declaration_makes_the_next_layout(client: TestClient) -> None:
    declared(client, protected_attributes=["sex"], group_variable=None)
    with_baseline(client, Stream(seed=2, days=10, first=-10))
    stream = Stream(days=1)
    posted(client, "predictions", stream.records())
    posted(client, "protected", attributes(stream.rows))
    first = profile(client, 1)
    assert sorted(first.layout.outcomes.groups["sex"]) == ["F", "M"]  # learnt from the baseline
    assert first.layout.number == 1
    headers = {"If-Match": client.get("/v1/models/loans").headers["etag"]}
    answer = client.patch("/v1/models/loans", json={"protected_attributes": PROTECTED}, headers=headers)
    assert answer.status_code == 200, answer.text
    second = profile(client, 1)
    assert second.layout.number == 2
    assert list(second.layout.outcomes.groups) == ["sex", "age", "sex*age"]
    young = sum(row["age"] < 30 for row in stream.rows)
    assert second.outcomes["age"].sum(axis=(1, 2, 3)).tolist()[0] == young
    headers = {"If-Match": client.get("/v1/models/loans").headers["etag"]}
    client.patch("/v1/models/loans", json={"description": "the same"}, headers=headers)
    assert profile(client, 1).layout.number == 2


def test_groups_that_are_not_declared_are_learnt_from_what_came_when_they_are_watched(client: TestClient) -> None:
    declared(client, protected_attributes=["sex"], group_variable=None)
    baseline = Stream(seed=2, days=10, first=-10)
    for row in baseline.rows:
        del row["sex"], row["age"]
    with_baseline(client, baseline, protected="")
    stream = Stream(days=1)
    posted(client, "predictions", stream.records())
    posted(client, "protected", attributes(stream.rows, "sex"))
    assert profile(client, 1).layout.outcomes.groups["sex"] == ()
    assert client.post("/v1/models/loans/monitors", json={"name": "fair", "kind": "bias"}).status_code == 201
    found = profile(client, 1)
    assert sorted(found.layout.outcomes.groups["sex"]) == ["F", "M"]
    assert found.outcomes["sex"].sum(axis=(1, 2, 3)).tolist()[2:] == [0.0, 0.0]


def ran(client: TestClient, days: int, **how: Any) -> list[dict[str, Any]]:
    """Make a bias monitor, run it over some days, and return the results of the last window."""
    body = {"name": "fair", "kind": "bias", "schedule": "daily", **how}
    assert (answer := client.post("/v1/models/loans/monitors", json=body)).status_code == 201, answer.text
    span = {"from": START.isoformat(), "to": (START + timedelta(days=days)).isoformat(), "each": "1d"}
    parts = client.app.state.assembly  # type: ignore[attr-defined]
    parts.sealer.seal(1)
    answer = client.post("/v1/models/loans/monitors/fair/runs", json=span)
    assert answer.status_code == 202, answer.text
    while client.app.state.scheduler.work_model(1):  # type: ignore[attr-defined]
        pass
    job = answer.headers["location"]
    while client.get(job).json()["state"] in ("queued", "running"):
        time.sleep(0.1)
    runs = client.get("/v1/models/loans/runs?monitor=fair").json()["items"]
    newest = max(runs, key=lambda run: run["window"]["from"])
    found = client.get(f"/v1/models/loans/runs/{newest['id']}").json()
    assert found["status"] != "failed", found
    return list(found["results"])


def test_a_bias_monitor_measures_live_and_names_who_moved(client: TestClient) -> None:
    declared(client)
    with_baseline(client, Stream(seed=2, days=20, first=-20))
    stream = Stream(days=2, per_hour=25, lower=0.35)
    posted(client, "predictions", stream.records())
    posted(client, "protected", attributes(stream.rows))
    results = ran(client, 2)
    judged = {(one["attribute"], one["group"]): one for one in results if one["decides"] and one["verdict"]}
    women = judged["sex", "F"]
    today = [row for row in stream.rows if row["timestamp"] >= (START + 24 * HOUR).isoformat()]
    share = {sex: np.mean([row["prediction"] == 0 for row in today if row["sex"] == sex]) for sex in "FM"}
    assert women["metric"] == "DPPL"
    assert women["value"] == pytest.approx(share["M"] - share["F"])
    assert women["reference_group"] == "M"
    assert women["interval"][0] < women["value"] < women["interval"][1]
    assert women["verdict"] == "violated"
    assert women["p_value"] < 1e-3
    assert abs(women["baseline_value"]) < 0.1
    assert {one["attribute"] for one in results if one["metric"] == "DI" and "value" in one} == {
        "sex",
        "age",
        "sex*age",
    }
    # Nothing that needs labels is told before any label is there, and the flip test is of the sample.
    assert all("value" not in one for one in results if one["metric"] == "RD")
    assert any(one["metric"] == "FT" and "value" in one for one in results)
    parity = next(
        one for one in results if one["metric"] == "demographic_parity_difference" and one["attribute"] == "sex"
    )
    assert parity["value"] == pytest.approx(abs(share["M"] - share["F"]))
    listed = client.get("/v1/models/loans/results?metric=DPPL").json()
    assert listed["items"]


SENTINEL = "47.98765"


def test_protected_values_are_nowhere_but_in_their_own_segments(client: TestClient, settings: Any) -> None:
    declared(client)
    baseline = Stream(seed=2, days=10, first=-10)
    baseline.rows[5]["age"] = SENTINEL
    with_baseline(client, baseline)
    stream = Stream(days=1)
    records = stream.records()
    records[3]["protected"] = {"age": float(SENTINEL), "sex": "F"}
    posted(client, "predictions", records)
    posted(client, "protected", [{"prediction_id": "p1-7", "protected": {"age": float(SENTINEL), "sex": "F"}}])
    parts = client.app.state.assembly  # type: ignore[attr-defined]
    ran(client, 2)
    holding = set()
    for file in Path(settings.data_dir).rglob("*.parquet"):
        rows = parts.lake.read_table(str(file.relative_to(parts.lake.root))).to_pylist()
        if SENTINEL in json.dumps(rows, default=str):
            holding.add("protected" if "/protected/" in str(file) else file.name.partition(".")[2])
    assert holding == {"protected", "protected.parquet"}
    reader = key_of(client, Scope.READ, Scope.ROWS)
    for path in (
        "/v1/models/loans/predictions/p1-7",
        "/v1/models/loans/predictions?from=2026-01-05T00:00:00Z&to=2026-01-07T00:00:00Z",
        "/v1/models/loans/samples?from=2026-01-05T00:00:00Z&to=2026-01-07T00:00:00Z",
        "/v1/models/loans/runs",
        "/v1/models/loans/results",
        "/v1/models/loans/baselines/reference",
        "/v1/models/loans/features",
        "/models/loans/fairness",
        "/models/loans/fairness.json",
        "/models/loans/drift",
        "/v1/audit",
    ):
        answer = client.get(path, headers=reader)
        assert SENTINEL not in answer.text, path
        assert "'sex': 'F'" not in answer.text
    told = client.get("/v1/models/loans/protected/p1-7", headers=reader)
    assert told.status_code == 403
    told = client.get("/v1/models/loans/protected/p1-7", headers=key_of(client, Scope.PROTECTED))
    assert told.json()["protected"] == {"age": SENTINEL, "sex": "F"}
    assert client.get("/v1/models/loans/protected/nobody").status_code == 404
