"""Evidently in the service: its stat tests through the worker process, and its report."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from httpx2 import Response
from playwright.sync_api import Dialog, Page
from scipy import stats
from sqlalchemy import select
from starlette.testclient import TestClient

from service import baselines
from service.runs import decode_results
from service.tables import BaselineRow
from service.tasks.evidently import inert
from service.worker import Worker
from tests.dashboards.samples import PAYLOADS
from tests.service.watched import Watched, stream


@pytest.fixture
def app_client(make_client: Callable[..., TestClient]) -> TestClient:
    """Return a client of an application that keeps no worker process ready: none is asked twice."""
    return make_client(worker_stock=False)


def a_shifted_day(folder: Path, worker: Worker, *also: str) -> tuple[dict[tuple[Any, Any], Any], pa.Table]:
    """Judge a day of older customers by these statistics too; return the results and the baseline's sample."""
    shop = Watched(folder, parameters={"also": list(also)}, worker=worker)
    shop.stream(0, 24, shift=0.5)
    shop.at_hour(25)
    shop.run()
    (run,) = shop.runs()
    found = {(result.get("feature"), result["metric"]): result for result in decode_results(run.document)}
    with shop.database.reading() as session:
        baseline = baselines.sample(shop.lake, session.scalars(select(BaselineRow)).one())
    assert baseline is not None
    return found, baseline


def test_a_run_asks_the_worker_process_for_evidently_s_tests_and_tells_what_it_answers(tmp_path: Path) -> None:
    worker = Worker("tests.service.trials", stock=False)
    found, baseline = a_shifted_day(tmp_path, worker, "evidently_ks", "evidently_chisquare", "ks")
    old, new = (np.asarray(table["features.age"]) for table in (baseline, stream(0, 24, shift=0.5)))
    told = found["age", "evidently_ks"]
    assert told["value"] == pytest.approx(new.mean() - old.mean())
    assert (told["unit"], told["direction"]) == ("p-value", "lower_is_worse")
    assert told["note"] == f"of 72 rows against {baseline.num_rows}"
    assert "p_value" not in told
    assert "these are no numbers" in found["job", "evidently_chisquare"]["reason"]
    assert "value" in found["age", "ks"]


@pytest.mark.long
def test_a_run_has_evidently_s_tests_done_in_the_worker_process(tmp_path: Path) -> None:
    found, baseline = a_shifted_day(tmp_path, Worker(stock=False), "es", "evidently_ks", "evidently_chisquare", "ks")
    ages = [np.asarray(table["features.age"]) for table in (baseline, stream(0, 24, shift=0.5))]
    assert found["age", "evidently_ks"]["value"] == pytest.approx(stats.ks_2samp(*ages).pvalue)
    assert found["age", "es"]["value"] == pytest.approx(stats.epps_singleton_2samp(*ages).pvalue)
    assert found["age", "evidently_ks"]["unit"] == "p-value"
    assert found["age", "evidently_ks"]["direction"] == "lower_is_worse"
    assert found["age", "evidently_ks"]["note"] == f"of 72 rows against {baseline.num_rows}"
    assert "p_value" not in found["age", "evidently_ks"]
    jobs = [
        pd.Series(np.asarray(table["features.job"])).value_counts() for table in (baseline, stream(0, 24, shift=0.5))
    ]
    expected = stats.chisquare(jobs[1].sort_index(), jobs[0].sort_index() * 72 / baseline.num_rows).pvalue
    assert found["job", "evidently_chisquare"]["value"] == pytest.approx(expected)


@pytest.fixture
def reported(app_client: TestClient) -> tuple[Response, dict[str, Any]]:
    """Make a report about a model whose names and categories are hostile; return it and what is known of it."""
    names = [f"{name}{place}" for place, name in enumerate(PAYLOADS[:12])]
    generator = np.random.default_rng(4)

    def rows(day: int, shift: float) -> pa.Table:
        numbers = {name: generator.normal(shift, 1.0, 96) for name in names}
        moments = pd.date_range(f"2026-11-{day:02}", periods=96, freq="15min", tz="UTC")
        return pa.table({**numbers, "kind": generator.choice(PAYLOADS[:20], 96), "timestamp": pa.array(moments)})

    app_client.post("/v1/models", json={"name": "hostile", "task": "regression"}).raise_for_status()
    sink = pa.BufferOutputStream()
    pq.write_table(rows(1, 0.0), sink)
    parquet = {"Content-Type": "application/vnd.apache.parquet"}
    baseline = "/v1/models/hostile/baselines?name=reference"
    app_client.post(baseline, content=bytes(sink.getvalue()), headers=parquet).raise_for_status()
    body = [{"timestamp": row.pop("timestamp").isoformat(), "features": row} for row in rows(2, 1.0).to_pylist()]
    assert app_client.post("/v1/models/hostile/predictions", json=body).json()["accepted"] == 96
    asked = {"kind": "evidently", "from": "2026-11-02T00:00:00Z", "to": "2026-11-03T00:00:00Z"}
    answer = app_client.post("/v1/models/hostile/reports", json=asked, headers={"Prefer": "wait=60"})
    while answer.status_code == 202 or answer.json().get("state") in ("queued", "running"):
        time.sleep(1)
        answer = app_client.get(answer.headers.get("Location") or f"/v1/jobs/{answer.json()['id']}")
    told = answer.json().get("result") or answer.json()
    return app_client.get(f"/v1/reports/{told['id']}"), told


@pytest.mark.long
@pytest.mark.browser
def test_evidently_s_report_draws_itself_and_hostile_names_in_it_do_nothing(
    reported: tuple[Response, dict[str, Any]], page: Page, app_client: TestClient
) -> None:
    report, told = reported
    assert (told["model"], told["baseline"], told["rows"], told["baseline_rows"]) == ("hostile", "reference", 96, 96)
    known = app_client.get(f"/v1/reports/{told['id']}", headers={"Accept": "application/json"})
    assert known.json() == told
    assert report.headers["content-security-policy"].startswith("sandbox")
    assert "allow-same-origin" not in report.headers["content-security-policy"]
    asked: list[str] = []
    dialogs: list[str] = []

    def refuse(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", refuse)
    page.on("request", lambda request: asked.append(request.url))
    address = "http://plumbline.test/v1/reports/1"
    page.route(address, lambda route: route.fulfill(body=report.text, headers=dict(report.headers)))
    page.goto(address)
    page.wait_for_function("document.body.innerText.includes('Drift')")
    page.wait_for_timeout(1000)
    assert dialogs == []
    assert [url for url in asked if url != address and not url.startswith(("data:", "blob:"))] == []
    assert page.evaluate("document.querySelectorAll('img[src=x], svg[onload], base').length") == 0
    assert page.evaluate("self.origin") == "null"
    assert page.evaluate("(() => { try { return document.cookie } catch (error) { return 'refused' } })()") == "refused"
    shown = page.evaluate("document.body.innerText")
    assert inert(f"{PAYLOADS[0]}0") in shown


def test_a_report_needs_rows_a_window_and_a_known_kind(app_client: TestClient) -> None:
    app_client.post("/v1/models", json={"name": "plain", "task": "regression"}).raise_for_status()
    asked = {"kind": "evidently", "from": "2026-11-02T00:00:00Z", "to": "2026-11-03T00:00:00Z"}
    assert app_client.post("/v1/models/plain/reports", json=asked).status_code == 404  # it has no version yet
    empty = asked | {"to": asked["from"]}
    assert app_client.post("/v1/models/plain/reports", json=empty).status_code == 422
    assert app_client.post("/v1/models/plain/reports", json=asked | {"kind": "magic"}).status_code == 422
    assert app_client.get("/v1/reports/0123456789abcdef0123456789abcdef").status_code == 404
