"""The whole loop with real processes: the world turns, a webhook asks, a model is searched for, errors fall again."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from tests.running import PATIENCE, Service, free_port

ROOT = Path(__file__).parent.parent
START = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)
A_DAY = 160
BASELINE_DAYS, QUIET_DAYS, TURNED_DAYS = 28, 2, 5
FEATURES = ["features.balance", "features.tenure"]
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}


def world(first: int, days: int, *, turned: bool) -> pd.DataFrame:
    """Return what happens on some days: since the world turned balances are high, and there a long tenure is a risk."""
    generator = np.random.default_rng([first, days, turned])
    count = days * A_DAY
    usual = generator.random(count) < 0.1
    shape = (5, 2) if turned else (2, 5)
    balance = np.where(usual, generator.random(count), generator.beta(*shape, count))
    tenure = generator.random(count)
    sign = 1 if turned else -1
    risk = 1 / (1 + np.exp(-sign * 12 * (tenure - 0.5)))
    moments = [START + first * DAY + number * DAY / A_DAY for number in range(count)]
    return pd.DataFrame(
        {
            "prediction_id": [f"p{first}-{number}" for number in range(count)],
            "timestamp": pd.to_datetime(moments, utc=True),
            "features.balance": balance,
            "features.tenure": tenure,
            "ground_truth": (generator.random(count) < risk).astype(int).astype(str),
        }
    )


def told(rows: pd.DataFrame, model: Any, version: str | None = None) -> pd.DataFrame:
    """Return rows with what a model says of them."""
    scores = model.predict_proba(rows[FEATURES])[:, 1]
    said = rows.assign(prediction=(scores > 0.5).astype(int).astype(str), score=scores)
    return said if version is None else said.assign(version=version)


def error_rate(rows: pd.DataFrame) -> float:
    return float((rows["prediction"] != rows["ground_truth"]).mean())


def parquet(rows: pd.DataFrame) -> bytes:
    sink = BytesIO()
    rows.to_parquet(sink, index=False)
    return sink.getvalue()


@contextmanager
def receiving(service: Service, folder: Path, key: str, secret: str, port: int) -> Iterator[Path]:
    """Run the example's receiver as a process of its own; yield where it keeps its models."""
    environment = {
        "PATH": os.environ["PATH"],
        "PLUMBLINE_URL": service.url,
        "PLUMBLINE_KEY": key,
        "WEBHOOK_SECRET": secret,
        "PORT": str(port),
        "TRIES": "2",
        "FOLDER": str(folder / "models"),
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "receiver.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "deploy" / "retrain-example" / "receiver.py")],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and b"waiting at" not in (folder / "receiver.log").read_bytes():
            assert process.poll() is None, (folder / "receiver.log").read_text()
            time.sleep(0.2)
        yield folder / "models"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def ok(answer: httpx2.Response) -> Any:
    assert answer.status_code < 300, answer.text
    return answer.json()


@pytest.mark.long
def test_the_world_turns_a_model_is_retrained_and_errors_fall_again(tmp_path: Path) -> None:
    service = Service(tmp_path / "service", "plk_loop_0123456789abcdefghijklmnopqrstuvwxyz", free_port())
    service.environment["PLUMBLINE_PUBLIC_URL"] = service.url
    service.start()
    try:
        with service.client() as client:
            loop(service, client, tmp_path, free_port())
    finally:
        service.stop()


def loop(service: Service, client: httpx2.Client, folder: Path, port: int) -> None:
    """Go through the loop once."""
    known = world(0, BASELINE_DAYS, turned=False)
    champion = LogisticRegression(C=100).fit(known[FEATURES], known["ground_truth"])
    ok(client.post("/v1/models", json={"name": "risk", "task": "binary", "protected_attributes": ["sex"]}))
    roles = {"name": "training", "version": "v1", "ordered": "true"}
    ok(client.post("/v1/models/risk/baselines", params=roles, content=parquet(told(known, champion)), headers=PARQUET,
                   timeout=120))  # fmt: skip
    for kind in ("data_quality", "data_drift"):
        body = {"name": kind, "kind": kind, "schedule": "daily", "start": START.isoformat()}
        ok(client.post("/v1/models/risk/monitors", json=body))
    hook = {"name": "trainer", "url": f"http://127.0.0.1:{port}/", "events": ["retraining.requested"]}
    secret = ok(client.post("/v1/webhooks", json=hook))["secret"]
    key = ok(client.post("/v1/keys", json={"name": "trainer", "scopes": ["ingest", "configure"], "models": ["risk"]}))
    policy = {
        "when": {"monitors": ["data_drift"], "windows": "3 of 3"},
        "min_labelled_rows": 200,
        "promote": "auto",
        "training_data": {"span": "3d", "include_baseline": False},
    }
    ok(client.put("/v1/models/risk/retraining", json=policy))
    first = BASELINE_DAYS
    turned = first + QUIET_DAYS
    last = turned + TURNED_DAYS
    span = {"from": (START + first * DAY).isoformat(), "to": (START + (last + 3) * DAY).isoformat()}
    ok(client.post("/v1/models/risk/replays", json={**span, "webhooks": ["trainer"]}))
    with receiving(service, folder, key["key"], secret, port) as models:
        before = told(world(first, QUIET_DAYS, turned=False), champion)
        after = told(world(turned, TURNED_DAYS, turned=True), champion)
        for rows in (before, after):
            for _, day in rows.groupby(rows["timestamp"].dt.date):
                ok(client.post("/v1/models/risk/predictions", content=parquet(day), headers=PARQUET))
        asked = waited_for(client, folder)
        # what the candidate was compared on was predicted by both, and it was fitted on none of it
        comparison = asked["comparison"]
        assert comparison["measured"]
        assert not comparison["seen_in_training"]
        deciding = {one["metric"]: one["interval"] for one in comparison["metrics"] if one["decides"]}
        assert set(deciding) == {"accuracy", "f1", "roc_auc"}
        assert min(low for low, _high in deciding.values()) > 0
        assert comparison["better"]
        version = asked["candidate"]
        model = own_model(models / f"{version}.skops")
        assert isinstance(model, Pipeline)
        later = told(world(last, 2, turned=True), model)
        ok(client.post("/v1/models/risk/predictions", content=parquet(later), headers=PARQUET))
        assert error_rate(before) < 0.2
        assert error_rate(after) > 0.6
        assert error_rate(later) < 0.2
        assert ok(client.get(f"/v1/models/risk/versions/{version}"))["active"]
        ok(client.delete("/v1/models/risk/replays"))
    (only,) = ok(client.get("/v1/retrainings"))["items"]
    assert only["id"] == asked["id"]
    assert [line["state"] for line in only["log"]] == ["requested", "running", "succeeded", "promoted"]
    assert only["replayed"]
    episodes = ok(client.get("/v1/alerts?model=risk"))["items"]
    assert "replaced" in [one["resolution"] for one in episodes if one["version"] == "v1"]
    manifest = only["training_data"]["manifest"]
    assert manifest["rows"] > 200
    assert manifest["digest"].startswith("sha256:")
    calls = ok(client.get("/v1/webhooks/trainer/deliveries"))["items"]
    assert [call["event"] for call in calls if call["state"] == "delivered"] == ["retraining.requested"]


def waited_for(client: httpx2.Client, folder: Path) -> dict[str, Any]:
    """Return the retraining once its candidate is promoted."""
    deadline = time.monotonic() + 400
    items: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        items = ok(client.get("/v1/retrainings?model=risk"))["items"]
        if items and items[0]["promoted_at"]:
            return items[0]
        if items and items[0]["state"] == "failed":
            break
        time.sleep(0.5)
    held = ok(client.get("/v1/models/risk/retraining"))["held"]
    raise AssertionError(f"{items}\nheld: {held}\n{(folder / 'receiver.log').read_text()}")


def own_model(path: Path) -> Any:
    """Load a model of our own, whose types are trusted; skops takes a second to load."""
    import skops.io

    return skops.io.load(path, trusted=list(skops.io.get_untrusted_types(file=path)))
