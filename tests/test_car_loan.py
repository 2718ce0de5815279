"""The main job on real data, end to end: `plumbline replay` into a running service, judged, told, shown."""

import json
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.receiver import Receiver
from tests.running import Service

MOVED = {"car_value", "salary_range", "loan_length", "repaid_loan_on_prev_car"}
UNMOVED = {"debt_to_income_ratio", "size_of_downpayment", "driver_tenure"}


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def everything(client: httpx2.Client, path: str, **parameters: str | int) -> list[dict[str, Any]]:
    """Return the items of all pages of a list."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = {**parameters, "limit": 500} | ({"cursor": cursor} if cursor else {})
        body = client.get(path, params=page).raise_for_status().json()
        items += body["items"]
        cursor = body["next_cursor"]
        if cursor is None:
            return items


def runs_of(client: httpx2.Client, model: str, kind: str) -> list[dict[str, Any]]:
    """Return the full runs of the model's monitor of that kind, in order of their windows."""
    monitors = everything(client, f"/v1/models/{model}/monitors")
    name = next(monitor["name"] for monitor in monitors if monitor["kind"] == kind)
    runs = everything(client, f"/v1/models/{model}/monitors/{name}/runs")
    full = [client.get(f"/v1/models/{model}/monitors/{name}/runs/{run['id']}").json() for run in runs]
    return sorted(full, key=lambda run: str(run["window"]["from"]))


def violated(run: dict[str, Any]) -> set[str]:
    """Return the features (or the columns of the prediction) that a run found violated."""
    return {
        str(result.get("feature") or result.get("class") or result["metric"])
        for result in run["results"]
        if result["verdict"] == "violated"
    }


def by_month(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the judged runs by the month of their window."""
    return {run["window"]["from"][:7]: run for run in runs if run["status"] not in ("no_data", "insufficient_data")}


def replayed(plumbline: Run, service: Service, *arguments: str) -> dict[str, Any]:
    """Replay a file into the service and return what the command says became of it."""
    where = {"PLUMBLINE_URL": service.url, "PLUMBLINE_KEY": service.admin_key}
    done = plumbline("replay", *arguments, "--output", "json", **where)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def car_loan(
    plumbline: Run, service: Service, data: Path, model: str, window: str, *more: str,
    file: Path | None = None, reference: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Replay the car loans: baseline = reference, stream = analysis, labels joined by id."""
    folder = data / "nannyml_car_loan"
    return replayed(
        plumbline, service, str(file or folder / "synthetic_car_loan_analysis.parquet"), "--model", model,
        "--baseline", str(reference or folder / "synthetic_car_loan_reference.parquet"),
        "--ground-truth", str(folder / "synthetic_car_loan_analysis_target.parquet"),
        "--time", "timestamp", "--id", "id", "--prediction", "y_pred", "--score", "y_pred_proba",
        "--window", window, *more,
    )  # fmt: skip


def webhook(client: httpx2.Client, receiver: Receiver, name: str) -> str:
    """Register the receiver and return the signing secret, which is shown once."""
    events = ["alert.opened", "alert.updated", "alert.resolved"]
    answer = client.post("/v1/webhooks", json={"name": name, "url": receiver.url, "events": events})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


@dataclass(frozen=True)
class Monthly:
    """The car loans after their replay in monthly windows: who was told, by whom, and what the command said."""

    receiver: Receiver
    secret: str
    client: httpx2.Client
    done: dict[str, Any]


@pytest.fixture(scope="session")
def monthly(shared_service: Service, shared_data: Path, plumbline: Run) -> Iterator[Monthly]:
    """Replay the car loans once, in monthly windows, with a receiver that is told."""
    with Receiver.listening() as receiver, shared_service.client() as client:
        secret = webhook(client, receiver, "car-loan-monthly")
        done = car_loan(plumbline, shared_service, shared_data, "car-loan", "1mo", "--webhook", "car-loan-monthly")
        receiver.wait(1)
        yield Monthly(receiver, secret, client, done)


def test_monthly_windows_of_the_car_loans_find_the_shift_and_nothing_else(monthly: Monthly) -> None:
    # The inputs shift at 2019-03-31 03:00. The records go from 2018-10-30 18:00 to 2019-08-29 11:51, so the whole
    # months are November to July.
    assert (monthly.done["accepted"], monthly.done["labels"]) == (50_000, 50_000)
    assert (monthly.done["duplicates"], monthly.done["rejected"], monthly.done["alerts"]) == (0, 0, 1)

    drift = by_month(runs_of(monthly.client, "car-loan", "data_drift"))
    before = ["2018-11", "2018-12", "2019-01", "2019-02", "2019-03"]
    after = ["2019-04", "2019-05", "2019-06", "2019-07"]
    assert sorted(drift) == before + after
    assert {month: violated(drift[month]) for month in before} == {month: set() for month in before}
    assert {month: violated(drift[month]) for month in after} == dict.fromkeys(after, MOVED)
    assert not MOVED & UNMOVED

    prediction = by_month(runs_of(monthly.client, "car-loan", "prediction_drift"))
    assert not any(violated(prediction[month]) for month in before)
    assert "score" in violated(prediction["2019-04"])

    quality = by_month(runs_of(monthly.client, "car-loan", "data_quality"))
    assert not any(violated(run) for run in quality.values())


def test_the_car_loans_are_one_episode_told_once_with_a_signature_that_fits(monthly: Monthly) -> None:
    alerts = everything(monthly.client, "/v1/alerts", model="car-loan")
    assert len(alerts) == 1
    assert alerts[0]["starts_at"] == "2019-04-01T00:00:00Z"
    detail = monthly.client.get(f"/v1/alerts/{alerts[0]['id']}").json()
    assert set(detail["members"]) == {"data_drift", "performance", "prediction_drift"}
    assert set(detail["members"]["data_drift"]["features"]) == MOVED
    assert detail["replayed"] is True

    opened = monthly.receiver.events(monthly.secret, "alert.opened")
    assert len(opened) == 1
    assert opened[0]["data"]["model"] == "car-loan"
    assert opened[0]["data"]["replayed"] is True
    told = {result.get("feature") for result in opened[0]["data"]["results"]}
    assert told & MOVED
    assert not told & UNMOVED


def test_the_car_loans_sent_again_are_known_and_nobody_is_told_twice(
    monthly: Monthly, shared_service: Service, shared_data: Path, plumbline: Run, tmp_path: Path
) -> None:
    table = pq.read_table(shared_data / "nannyml_car_loan" / "synthetic_car_loan_analysis.parquet")
    file = tmp_path / "around-the-shift.parquet"
    pq.write_table(table.slice(20_000, 10_000), file)  # March to May: the shift is at row 25,000
    told = ("--webhook", "car-loan-monthly")
    again = car_loan(plumbline, shared_service, shared_data, "car-loan", "1mo", *told, file=file)
    assert (again["accepted"], again["duplicates"], again["made"]) == (0, 10_000, [])
    assert (again["labels"], again["labels_repeated"], again["alerts"]) == (0, 10_000, 1)
    assert len(monthly.receiver.events(monthly.secret, "alert.opened")) == 1
    arrived = monthly.client.get(
        "/v1/models/car-loan/ingest",
        params={"from": "2018-10-30T00:00:00Z", "to": "2019-09-01T00:00:00Z", "limit": 1000},
    )
    assert arrived.status_code == 200


PARTS = ("file", "reference")


def daily(service: Service, data: Path, plumbline: Run, model: str, *, quiet: int, budget: int, **files: Path) -> None:
    """Replay car loans in daily windows: so many days before the shift are judged, with so many alarms at most."""
    car_loan(plumbline, service, data, model, "1d", **files)
    with service.client() as client:
        alerts = everything(client, "/v1/alerts", model=model)
        early = [alert for alert in alerts if alert["starts_at"] < "2019-03-31"]
        assert len(early) <= budget
        days: dict[str, set[str]] = defaultdict(set)
        for run in runs_of(client, model, "data_drift"):
            days[run["window"]["from"][:10]] |= violated(run)
        assert len([day for day in days if day < "2019-03-31"]) >= quiet
        found = min(day for day, features in days.items() if day >= "2019-03-31" and features & MOVED)
        assert found in ("2019-03-31", "2019-04-01")
        told = [alert["starts_at"][:10] for alert in alerts]
        assert {"2019-03-31", "2019-04-01"} & set(told) or any(alert["state"] != "resolved" for alert in early)


def test_daily_windows_of_the_car_loans_keep_the_budget_and_find_the_shift_at_once(
    shared_service: Service, shared_data: Path, plumbline: Run, tmp_path: Path
) -> None:
    # 7 days before the shift and three from it on. One false alarm in 30 days is expected at most; that 7 days have
    # more than one has a chance of 0.02 (Poisson, 7/30).
    # The baseline is the last third of the reference's ten months.
    folder, files = shared_data / "nannyml_car_loan", {name: tmp_path / f"{name}.parquet" for name in PARTS}
    table = pq.read_table(folder / "synthetic_car_loan_analysis.parquet")
    inside = pc.and_(pc.greater_equal(table["timestamp"], "2019-03-24"), pc.less(table["timestamp"], "2019-04-03"))
    pq.write_table(table.filter(inside), files["file"])
    table = pq.read_table(folder / "synthetic_car_loan_reference.parquet").sort_by("timestamp")
    pq.write_table(table.slice(2 * table.num_rows // 3), files["reference"])
    daily(shared_service, shared_data, plumbline, "car-loan-daily", quiet=6, budget=1, **files)


@pytest.mark.long
def test_daily_windows_of_all_car_loans_keep_the_budget_and_find_the_shift_at_once(
    shared_service: Service, shared_data: Path, plumbline: Run
) -> None:
    # 2018-10-31 to 2019-03-31 are 152 days; one false alarm in 30 days are 5 in 152.
    file = shared_data / "nannyml_car_loan" / "synthetic_car_loan_analysis.parquet"
    daily(shared_service, shared_data, plumbline, "car-loan-all-days", quiet=151, budget=5, file=file)


@pytest.mark.parametrize(
    ("first", "end"), [("2020-10", "2020-12"), pytest.param("2020-09", "2021-02", marks=pytest.mark.long)]
)
def test_monthly_windows_of_the_credit_cards_find_the_shift_in_score_and_bureau_score(
    shared_service: Service, receiver: Receiver, shared_data: Path, plumbline: Run, tmp_path: Path, first: str, end: str
) -> None:
    # Scores one column per class; the shift is at 2020-11-01 22:05; the records go from September to December.
    # The short form is the month before the shift and the one after it.
    folder, name, file = (
        shared_data / "nannyml_multiclass_credit_card",
        f"cards-from-{first}",
        tmp_path / "cards.parquet",
    )
    table = pq.read_table(folder / "mc_analysis.parquet")
    inside = pc.and_(pc.greater_equal(table["timestamp"], first), pc.less(table["timestamp"], end))
    pq.write_table(table.filter(inside), file)
    with shared_service.client() as client:
        secret = webhook(client, receiver, name)
        done = replayed(
            plumbline, shared_service, str(file), "--model", name,
            "--baseline", str(folder / "mc_reference.parquet"),
            "--ground-truth", str(folder / "mc_analysis_gt.parquet"),
            "--time", "timestamp", "--id", "id", "--prediction", "y_pred", "--scores", "y_pred_proba_*",
            "--window", "1mo", "--webhook", name,
        )  # fmt: skip
        assert done["accepted"] == pc.sum(inside).as_py()
        assert client.get(f"/v1/models/{name}").json()["classes"] == [
            "highstreet_card", "prepaid_card", "upmarket_card"
        ]  # fmt: skip

        drift = by_month(runs_of(client, name, "data_drift"))
        prediction = by_month(runs_of(client, name, "prediction_drift"))
        assert {month for month in ("2020-10", "2020-11", "2020-12") if month < end} <= set(drift)
        for month in ("2020-09", "2020-10"):
            assert violated(drift.get(month, {"results": []})) == set()
            assert violated(prediction.get(month, {"results": []})) == set()
        for month in ("2020-11", "2020-12"):
            if month >= end:
                continue
            assert "credit_bureau_score" in violated(drift[month])
            found = json.dumps(sorted(violated(prediction[month])))
            for each in ("highstreet_card", "prepaid_card", "upmarket_card"):
                assert each in found, month

        assert len(everything(client, "/v1/alerts", model=name)) == 1
        receiver.wait(1)
        assert len(receiver.events(secret, "alert.opened")) == 1


@pytest.mark.browser
def test_the_drift_page_shows_the_shift_of_the_car_loans_in_a_browser(
    monthly: Monthly, shared_service: Service, page: Any
) -> None:
    service = shared_service
    assert monthly.done["alerts"] == 1
    requests: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(f"{service.url}/sign-in")
    page.fill("input[type=password]", service.admin_key)
    page.press("input[type=password]", "Enter")
    page.wait_for_url(f"{service.url}/")
    page.goto(f"{service.url}/models/car-loan/drift?from=2018-11-01&to=2019-08-01")
    page.wait_for_selector(".chart svg, .chart canvas")
    text = page.inner_text("main")
    for feature in MOVED | UNMOVED:
        assert feature in text
    assert faults == []
    assert all(url.startswith((service.url, "data:", "blob:")) for url in requests)
    page.goto(f"{service.url}/models/car-loan/alerts")
    assert "car-loan" in page.inner_text("body")
