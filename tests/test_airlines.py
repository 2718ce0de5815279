"""A week of flights whose delays become known hours later: each day is judged once, when its labels have come."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from service.clock import SetClock
from service.scheduler import Scheduler

BEGIN = datetime(2008, 1, 1, tzinfo=UTC)
CLASSES = ("before_time", "delayed", "on_time")
DAYS = range(2, 5)
LABELS = {"delay": "1d", "min_coverage": 0.9, "min_rows": 100}


def flights(path: Path) -> list[dict[str, Any]]:
    """Return each flight once: when it was asked about, when its outcome came, and what a simple rule said."""
    asked: dict[int, dict[str, Any]] = {}
    for row in pq.read_table(path).to_pylist():
        at = BEGIN + timedelta(minutes=int(row["timeStamp"]))
        if row["ValueToPredict"] is None:
            late = row["CRSDepTime"] >= 1500 or row["UniqueCarrier"] in ("AA", "UA")
            asked[row["instanceId"]] = {
                "prediction_id": str(row["instanceId"]),
                "asked": at,
                "features": {"departure": row["CRSDepTime"], "distance": row["Distance"]},
                "prediction": "delayed" if late else "before_time",
            }
        elif row["instanceId"] in asked:
            asked[row["instanceId"]] |= {"ground_truth": row["ValueToPredict"], "told": at}
    return [one for one in asked.values() if "told" in one]


def record(flight: dict[str, Any], *names: str, at: datetime) -> dict[str, Any]:
    return {name: flight[name] for name in names} | {"timestamp": at.isoformat()}


@pytest.mark.long
def test_each_day_is_judged_once_at_maturity_and_later_labels_revise_exactly_their_days(
    make_client: Callable[..., TestClient], shared_data: Path
) -> None:
    known = flights(shared_data / "airlines_2008" / "airlines.parquet")
    clock = SetClock(BEGIN + timedelta(days=DAYS.start))
    client = make_client(clock)
    model = {"name": "flights", "task": "multiclass", "classes": list(CLASSES)}
    assert client.post("/v1/models", json=model).status_code == 201
    first = [one for one in known if one["asked"] < BEGIN + timedelta(days=DAYS.start)]
    lines = ["timestamp,prediction,ground_truth,departure,distance"] + [
        f"{one['asked'].isoformat()},{one['prediction']},{one['ground_truth']},"
        f"{one['features']['departure']},{one['features']['distance']}"
        for one in sorted(first, key=lambda one: one["asked"])
    ]
    roles = "name=first&prediction=prediction&ground_truth=ground_truth&timestamp=timestamp&ordered=true"
    sent = client.post(
        f"/v1/models/flights/baselines?{roles}", content="\n".join(lines), headers={"Content-Type": "text/csv"}
    )
    assert sent.status_code == 201, sent.text
    body = {"name": "performance", "kind": "performance", "schedule": "daily", "window": "1d", "labels": LABELS}
    assert client.post("/v1/models/flights/monitors", json=body).status_code == 201
    scheduler = Scheduler(client.app.state.assembly)  # type: ignore[attr-defined]
    judged: dict[str, list[dict[str, Any]]] = {}

    def look() -> None:
        for _ in range(4):
            scheduler.tick()
        for run in client.get("/v1/models/flights/runs?monitor=performance&limit=200").json()["items"]:
            day = run["window"]["from"]
            if run["status"] in ("ok", "violations", "partial"):
                told = judged.setdefault(day, [])
                if not told or told[-1]["revision"] != run["revision"]:
                    told.append({"revision": run["revision"], "at": clock.now(), "coverage": run["label_coverage"]})

    at = clock.now()
    end = BEGIN + timedelta(days=DAYS.stop + 1)
    while at < end:
        to = at + timedelta(hours=8)
        clock.at = to
        predictions = [
            record(one, "prediction_id", "features", "prediction", at=one["asked"])
            for one in known
            if at <= one["asked"] < to
        ]
        labels = [
            record(one, "prediction_id", "ground_truth", at=one["told"]) for one in known if at <= one["told"] < to
        ]
        for path, records in (("predictions", predictions), ("ground-truth", labels)):
            if records:
                assert client.post(f"/v1/models/flights/{path}", json=records).status_code == 200
        clock.move(timedelta(minutes=15))
        look()
        clock.move(-timedelta(minutes=15))
        at = to
    clock.at = end + timedelta(hours=2)
    look()
    wanted = [(BEGIN + timedelta(days=day)).strftime("%Y-%m-%dT00:00:00Z") for day in DAYS]
    assert [day for day in sorted(judged) if day in wanted] == wanted
    for day in wanted:
        over = datetime.fromisoformat(day) + timedelta(days=1)
        one = judged[day][0]
        assert one["at"] >= over + timedelta(hours=1)
        assert one["coverage"] >= 0.9 or one["at"] >= over + timedelta(days=1)
    before = {day: judged[day][-1]["revision"] for day in wanted}
    # Corrections of the second day alone.
    start = datetime.fromisoformat(wanted[1])
    some = [one for one in known if start <= one["asked"] < start + timedelta(days=1)][:50]
    other = {"before_time": "delayed", "delayed": "before_time", "on_time": "delayed"}
    corrected = [
        {
            "prediction_id": one["prediction_id"],
            "ground_truth": other[one["ground_truth"]],
            "timestamp": clock.now().isoformat(),
        }
        for one in some
    ]
    assert client.post("/v1/models/flights/ground-truth", json=corrected).json()["corrected"] == len(some)
    clock.move(timedelta(minutes=30))
    look()
    after = {day: judged[day][-1]["revision"] for day in wanted}
    assert {day: after[day] - before[day] for day in wanted} == {wanted[0]: 0, wanted[1]: 1, wanted[2]: 0}
    page = client.get("/models/flights/performance.json")
    assert page.status_code == 200, page.text
    document = page.json()
    assert {one["metric"] for one in document["figures"] if one["judged"]} == {"accuracy", "f1_macro"}
    assert 0.99 < document["label_coverage"] < 1.0  # the last flights are told of after the end
    assert document["confusion"]["names"] == list(CLASSES)
    assert client.get("/models/flights/performance", headers={"Accept": "text/html"}).status_code == 200
