"""Embeddings end to end: lists of numbers kept by baseline and log, and compared as vectors."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.service.opened import opened

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
PARQUET = {"Content-Type": "application/vnd.apache.parquet", "Prefer": "wait=60"}


def parquet(start: datetime, days: int, shift: float) -> bytes:
    """Return 200 rows a day with a vector of four numbers."""
    generator = np.random.default_rng(days)
    number = 200 * days
    table = pa.table(
        {
            "prediction_id": [f"{start:%d}-{i}" for i in range(number)],
            "timestamp": pa.array([start + DAY / 200 * i for i in range(number)], pa.timestamp("us", "UTC")),
            "features.n": generator.normal(size=number),
            "features.text": pa.array(list(generator.normal(shift, 1, (number, 4))), pa.list_(pa.float64())),
            "prediction": ["1"] * number,
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_moved_vectors_are_found_and_judged_by_the_budget(tmp_path: Path) -> None:
    with opened(tmp_path) as client:
        client.post("/v1/models", json={"name": "m", "task": "binary", "alarm_budget": {"per": "30d", "at_most": 30}})
        made = client.post("/v1/models/m/baselines?name=b", content=parquet(START - 4 * DAY, 4, 0.0), headers=PARQUET)
        assert made.status_code == 201, made.text
        monitor = {"name": "vectors", "kind": "mmd", "start": START.isoformat()}
        assert client.post("/v1/models/m/monitors", json=monitor).status_code == 201
        span = {"from": START.isoformat(), "to": (START + DAY).isoformat()}
        replay = client.post("/v1/models/m/replays", json=span)
        sent = client.post("/v1/models/m/predictions", content=parquet(START, 1, 0.8), headers=PARQUET)
        assert sent.json()["accepted"] == 200, sent.text
        closed = client.delete(replay.headers["location"], headers={"Prefer": "wait=60"})
        assert closed.status_code == 200, closed.text
        (run,) = client.get("/v1/models/m/monitors/vectors/runs").json()["items"]
        (result,) = client.get(f"/v1/models/m/runs/{run['id']}").json()["results"]
    assert (result["metric"], result["feature"], result["verdict"]) == ("mmd", "text", "violated")
    assert (result["n_window"], result["n_baseline"]) == (200, 800)
    assert result["rule"] == "budget"
