"""Models that give several classes at once, end to end: expected performance first, and beside it what labels say."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sklearn

from tests.monitors.labelled import CLASSES, multilabel_rows
from tests.monitors.test_multilabel import expected_of_rows, members
from tests.service.opened import opened

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
PARQUET = {"Content-Type": "application/vnd.apache.parquet", "Prefer": "wait=60"}
BASELINE = multilabel_rows(4000, 1)
WINDOW = multilabel_rows(400, 2, flip=0.3)


def file_of(rows: pa.Table, start: datetime, days: int) -> bytes:
    """Return rows spread over some days, their classes as lists."""
    lists = {
        name: pa.array([json.loads(text) for text in rows[name].to_pylist()], pa.list_(pa.string()))
        for name in ("prediction", "ground_truth")
    }
    moments = [start + days * DAY / rows.num_rows * place for place in range(rows.num_rows)]
    columns = {name: rows[name] for name in rows.schema.names if name.startswith("scores.")} | lists
    table = pa.table(columns | {"timestamp": pa.array(moments, pa.timestamp("us", "UTC"))})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def records_of(rows: pa.Table, day: int, *, labels: bool) -> list[dict[str, Any]]:
    found = []
    for place, row in enumerate(rows.to_pylist()):
        if labels:
            found.append({"prediction_id": f"p{day}-{place}", "ground_truth": json.loads(row["ground_truth"])})
            continue
        found.append(
            {
                "prediction_id": f"p{day}-{place}",
                "timestamp": (START + day * DAY + DAY / rows.num_rows * place).isoformat(),
                "prediction": json.loads(row["prediction"]),
                "scores": {name: row[f"scores.{name}"] for name in CLASSES},
            }
        )
    return found


def test_performance_of_several_classes_is_expected_and_told_beside_what_labels_say(tmp_path: Path) -> None:
    """Two days of the same rows, of which the labels of the second are known: a third of them are turned over."""
    with opened(tmp_path) as client:
        assert client.post("/v1/models", json={"name": "tags", "task": "multilabel"}).status_code == 201
        content = file_of(BASELINE, START - 20 * DAY, 20)
        made = client.post("/v1/models/tags/baselines?name=b", content=content, headers=PARQUET)
        assert made.status_code == 201, made.text
        monitor = {"name": "expected", "kind": "estimated_performance", "start": START.isoformat()}
        assert client.post("/v1/models/tags/monitors", json=monitor).status_code == 201
        span = {"from": START.isoformat(), "to": (START + 2 * DAY).isoformat()}
        replay = client.post("/v1/models/tags/replays", json=span)
        for day in (0, 1):
            sent = client.post("/v1/models/tags/predictions", json=records_of(WINDOW, day, labels=False))
            assert sent.json()["accepted"] == 400, sent.text
        sent = client.post("/v1/models/tags/ground-truth", json=records_of(WINDOW, 1, labels=True))
        assert sent.json()["accepted"] == 400, sent.text
        closed = client.delete(replay.headers["location"], headers={"Prefer": "wait=60"})
        assert closed.status_code == 200, closed.text
        listed = client.get("/v1/models/tags/monitors/expected/runs").json()["items"]
        labelled, blind = (client.get(f"/v1/models/tags/runs/{run['id']}").json() for run in listed)
        page = client.get("/models/tags/performance")
    estimated = {one["metric"]: one for one in blind["results"] if "class" not in one and "value" in one}
    for figure, value in expected_of_rows(BASELINE, WINDOW).items():
        if figure.class_ is None:
            one = estimated[figure.metric]
            assert one["estimated"] is True
            assert one["value"] == pytest.approx(value, abs=5e-3)
            assert one["interval"][0] <= one["value"] <= one["interval"][1]
    assert "one at a time" in next(one["reason"] for one in blind["results"] if one["metric"] == "accuracy")
    assert (blind["status"], labelled["status"]) == ("ok", "ok")
    both = [one for one in labelled["results"] if one["metric"] == "f1_macro"]
    expected, realised = sorted(both, key=lambda one: not one.get("estimated"))
    assert expected["value"] == pytest.approx(estimated["f1_macro"]["value"], abs=1e-9)
    assert "so the estimate is wrong" in expected["note"]
    truth = sklearn.f1_score(members(WINDOW, "ground_truth"), members(WINDOW, "prediction"), average="macro")
    assert realised["value"] == pytest.approx(truth)
    assert page.status_code == 200
    assert "f1_macro" in page.text
