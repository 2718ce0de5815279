"""Embeddings end to end: lists of numbers kept by baseline and log, and compared as vectors."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

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


EVIDENTLY = {
    "kind": "data_drift",
    "parameters": {
        "features": ["text"],
        "methods": {"text": "embedding_model"},
        "also": ["embedding_distance", "embedding_ratio", "embedding_mmd"],
        "options": {"embedding_distance": {"dist": "cityblock"}},
    },
    "policy": {"threshold": {"embedding_model": 0.55}},
}


def compared(folder: Path, monitor: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return the results of a monitor over a day of moved vectors, by metric, and the metrics of the catalogue."""
    # Evidently's classifier heeds the order of rows, which is that of their keyed hashes: a key of our own fixes it.
    with opened(folder, worker_stock=False, secret_key=SecretStr("vectors")) as client:
        client.post("/v1/models", json={"name": "m", "task": "binary", "alarm_budget": {"per": "30d", "at_most": 30}})
        made = client.post("/v1/models/m/baselines?name=b", content=parquet(START - 4 * DAY, 4, 0.0), headers=PARQUET)
        assert made.status_code == 201, made.text
        made = client.post("/v1/models/m/monitors", json={**monitor, "name": "vectors", "start": START.isoformat()})
        assert made.status_code == 201, made.text
        span = {"from": START.isoformat(), "to": (START + DAY).isoformat()}
        replay = client.post("/v1/models/m/replays", json=span)
        sent = client.post("/v1/models/m/predictions", content=parquet(START, 1, 0.8), headers=PARQUET)
        assert sent.json()["accepted"] == 200, sent.text
        closed = client.delete(replay.headers["location"], headers={"Prefer": "wait=60"})
        assert closed.status_code == 200, closed.text
        (run,) = client.get("/v1/models/m/monitors/vectors/runs").json()["items"]
        found = client.get(f"/v1/models/m/runs/{run['id']}").json()["results"]
        known = client.get("/v1/catalog/metrics").json()["items"]
    return {one["metric"]: one for one in found}, known


def test_moved_vectors_are_found_by_the_budget(tmp_path: Path) -> None:
    found, known = compared(tmp_path, {"kind": "mmd"})
    (result,) = found.values()
    assert (result["metric"], result["feature"], result["verdict"]) == ("mmd", "text", "violated")
    assert (result["n_window"], result["n_baseline"]) == (200, 800)
    assert result["rule"] == "budget"
    (entry,) = [one for one in known if one["name"] == "embedding_distance"]
    assert entry["parameters"]["properties"]["dist"]["default"] == "euclidean"
    assert entry["types"] == ["embedding"]


@pytest.mark.long
def test_moved_vectors_are_found_by_evidently_s_methods_in_the_worker_process(tmp_path: Path) -> None:
    theirs, _ = compared(tmp_path, EVIDENTLY)
    assert set(theirs) == {"embedding_model", "embedding_distance", "embedding_ratio", "embedding_mmd"}
    # Four numbers moved by 0.8 sd: one of them has the AUC Phi(0.8 / sqrt(2)) = 0.714, the best classifier of all four
    # Phi(0.8 sqrt(4) / sqrt(2)) = 0.871; and every one of the four is farther than 0.1 sd from the baseline's.
    assert 0.714 < theirs["embedding_model"]["value"] < 0.871
    assert (theirs["embedding_model"]["verdict"], theirs["embedding_model"]["rule"]) == ("violated", "threshold")
    assert theirs["embedding_ratio"]["value"] == 1.0
    before, now = (
        np.array(pq.read_table(io.BytesIO(part))["features.text"].to_pylist())
        for part in (parquet(START - 4 * DAY, 4, 0.0), parquet(START, 1, 0.8))
    )
    moved = np.abs(now.mean(axis=0) - before.mean(axis=0)).sum()
    assert theirs["embedding_distance"]["value"] == pytest.approx(moved, rel=1e-5)  # vectors are kept in 32 bits
    assert theirs["embedding_mmd"]["value"] > 0.015
