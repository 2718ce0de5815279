"""Figures of a company's own, posted by name: counted once, judged like any other, corrected without a second alarm."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.clock import SetClock

NIGHT = timedelta(days=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
USUAL = (100.0, 102.0, 98.0, 101.0, 99.0)
WATCH: dict[str, Any] = {
    "name": "business",
    "kind": "posted_metrics",
    "start": START.isoformat(),
    "parameters": {"metrics": {"revenue": {"direction": "lower_is_worse"}}},
}


def night(number: int, value: float | None, **more: Any) -> dict[str, Any]:
    """Return the revenue of one night, counted from the start."""
    span = {"from": (START + number * NIGHT).isoformat(), "to": (START + (number + 1) * NIGHT).isoformat()}
    return {"metric": "revenue", "value": value, **span, **more}


def nights(count: int, off: dict[int, float] | None = None) -> list[dict[str, Any]]:
    """Return the revenue of so many nights, some of them off."""
    return [night(number, (off or {}).get(number, USUAL[number % 5])) for number in range(count)]


class Company:
    """A model whose figures are posted, in an application whose clock and scheduler are moved by hand."""

    def __init__(self, make_client: Callable[..., TestClient], **settings: Any) -> None:
        self.clock = SetClock(START)
        self.client = make_client(clock=self.clock, tick_seconds=3600.0, **settings)
        assert self.client.post("/v1/models", json={"name": "shop", "task": "regression"}).status_code == 201
        assert self.client.post("/v1/models/shop/versions", json={"version": "1"}).status_code == 201

    def watch(self, **how: Any) -> None:
        answer = self.client.post("/v1/models/shop/monitors", json=WATCH | how)
        assert answer.status_code == 201, answer.text

    def post(self, body: Any, **how: Any) -> dict[str, Any]:
        """Post figures and return what became of them."""
        answer = self.client.post("/v1/models/shop/metrics", json=body, **how)
        found: dict[str, Any] = answer.json() | {"status": answer.status_code}
        return found

    def after(self, nights: float) -> None:
        """Move the clock to two hours after so many nights."""
        self.clock.at = START + nights * NIGHT + timedelta(hours=2)

    def work(self) -> None:
        """Do what is due."""
        scheduler = self.client.app.state.scheduler  # type: ignore[attr-defined]
        while scheduler.tick():
            pass

    def get(self, path: str, **query: Any) -> Any:
        answer = self.client.get(f"/v1/models/shop/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def runs(self, **query: Any) -> list[dict[str, Any]]:
        """Return the runs, oldest windows first."""
        found: list[dict[str, Any]] = self.get("monitors/business/runs", limit=200, **query)["items"]
        return found[::-1]

    def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get("/v1/alerts").json()["items"]
        return found


@pytest.fixture
def company(make_client: Callable[..., TestClient]) -> Company:
    return Company(make_client)


def the_story(company: Company) -> None:
    """Thirty nights, one off: it alarms once; corrections revise figures, and nobody is alarmed by them."""
    company.watch(start=(START + 19 * NIGHT).isoformat())
    company.after(30)
    assert company.post(nights(30, off={24: 80.0}))["accepted"] == 30
    company.work()
    runs = company.runs()
    assert [run["status"] for run in runs] == ["ok"] * 5 + ["violations"] + ["ok"] * 5
    (first,) = company.get(f"runs/{runs[0]['id']}")["results"]
    assert first["note"].startswith("calibrating, 19 of 20 quiet windows")
    (alert,) = company.alerts()
    assert (alert["starts_at"], alert["state"]) == ("2026-03-25T00:00:00Z", "resolved")
    assert "revenue" in alert["sentence"]
    (bad,) = company.get(f"runs/{runs[5]['id']}")["results"]
    # The 24 nights before hold each usual value 5 times, but 99 only 4 times: (25 * 100 - 99) / 24.
    assert bad["baseline_value"] == pytest.approx(2401 / 24)
    assert (bad["value"], bad["n_baseline"], bad["rule"]) == (80.0, 24, "budget")
    assert bad["alpha"] == pytest.approx(1 / 30)  # one false alarm in 30 days, and nothing else is watched
    (after,) = company.get(f"runs/{runs[6]['id']}")["results"]
    assert after["n_baseline"] == 24  # the night that was off is none of the quiet ones

    told = company.post([night(24, 100.5), night(27, 70.0), night(28, USUAL[3])])
    assert [told[name] for name in ("status", "accepted", "duplicates", "corrected")] == [200, 0, 1, 2]
    company.after(30.5)
    company.work()
    again = company.runs()
    assert [run["revision"] for run in again] == [1, 1, 1, 1, 1, 2, 1, 1, 2, 1, 1]
    assert [(again[place]["status"], again[place]["judged"]) for place in (5, 8)] == [
        ("ok", False),
        ("violations", False),
    ]
    assert "judged ok; by what is known now it would be violations" in again[8]["reason"]
    assert len(company.alerts()) == 1
    series = company.get("metrics", metric="revenue")["items"]
    assert [one["value"] for one in series if one["from"] >= "2026-03-25"] == [100.5, 100.0, 102.0, 70.0, 101.0, 99.0]
    then = company.get("metrics", metric="revenue", as_of="2026-03-31T03:00:00Z")["items"]
    assert [one["value"] for one in then if one["from"] >= "2026-03-25"] == [80.0, 100.0, 102.0, 98.0, 101.0, 99.0]
    assert company.get("metrics", metric="revenue", as_of="2026-03-31T01:00:00Z")["items"] == []


def test_thirty_nightly_figures_of_which_one_is_off_alarm_once_and_corrections_revise_them(company: Company) -> None:
    the_story(company)


@pytest.mark.long
@pytest.mark.postgres
def test_postgresql_tells_the_same_story(make_client: Callable[..., TestClient], postgres_url: str) -> None:
    the_story(Company(make_client, database_url=postgres_url))


def test_what_is_posted_counts_once_and_what_is_wrong_with_one_figure_costs_no_other(company: Company) -> None:
    company.after(3)
    bodies = [
        night(0, 100.0, n=998, interval=[95, 105], unit="EUR"),
        night(5, 1.0),
        {"metric": "revenue", "value": True},
        {"metric": "rev:enue", "value": 1},
        night(1, 1.0, version="2"),
        night(1, 1.0, timestamp="2026-03-01T00:00:00Z"),
        {"metric": "complaints", "value": 3, "attribute": "region", "group": "north"},
    ]
    told = company.post({"metrics": bodies})
    assert (told["status"], told["accepted"], told["rejected_count"]) == (200, 2, 5)
    assert [(one["index"], one["code"], one["pointer"]) for one in told["rejected"]] == [
        (1, "timestamp_in_future", "/to"),
        (2, "value_error", "/value"),
        (3, "string_pattern_mismatch", "/metric"),
        (4, "unknown_version", "/version"),
        (5, "value_error", ""),
    ]
    again = company.post({"metrics": bodies[:2]})
    assert (again["status"], again["duplicates"], again["rejected_count"]) == (200, 1, 1)
    assert company.post(bodies[1])["status"] == 422
    assert company.post([])["status"] == 400
    assert company.post(bodies[0] | {"value": 1.0}, params={"strict": True})["corrected"] == 1
    assert company.post([night(0, 2.0), {}], params={"strict": True})["status"] == 422
    counted = company.get("ingest", kind="metrics")["items"]
    assert sum(row["accepted"] for row in counted) == 2
    assert sum(row["duplicates"] for row in counted) == 1
    assert sum(row["corrected"] for row in counted) == 1
    listed = company.get("metrics/posted")["items"]
    assert [(one["metric"], one["value"], one["revision"]) for one in listed] == [
        ("revenue", 1.0, 2),
        ("complaints", 3.0, 1),
    ]
    assert (listed[0]["low"], listed[0]["high"], listed[0]["n"], listed[0]["unit"]) == (95.0, 105.0, 998, "EUR")
    assert listed[1]["from"] == listed[1]["to"] == "2026-03-04T02:00:00Z"  # a moment: when it arrived
    assert len(company.get("metrics/posted", revision="all")["items"]) == 3
    assert [one["group"] for one in company.get("metrics/posted", attribute="region")["items"]] == ["north"]


def test_a_repeated_request_is_answered_as_the_first_time_and_a_key_for_ingest_may_post(company: Company) -> None:
    company.after(1)
    headers = {"Idempotency-Key": "night-0"}
    first, again = (company.post(night(0, 100.0), headers=headers) for _ in range(2))
    assert first == again
    assert company.post(night(0, 101.0), headers=headers)["status"] == 422
    made = company.client.post("/v1/keys", json={"name": "etl", "scopes": ["ingest"]}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert company.post(night(0, 100.0), headers=headers)["duplicates"] == 1
    assert company.client.get("/v1/models/shop/metrics/posted", headers=headers).status_code == 403


def test_history_posted_before_there_was_a_monitor_judges_the_first_night_at_once(company: Company) -> None:
    company.after(24)
    company.post(nights(23))
    company.watch(start=(START + 23 * NIGHT).isoformat())
    company.post(night(23, 80.0))
    company.work()
    assert [(run["status"], run["window"]["from"]) for run in company.runs()] == [
        ("violations", "2026-03-24T00:00:00Z")
    ]
    page = company.client.get("/models/shop/results.json").json()
    (check,) = page["checks"]
    assert (check["subject"], check["value"], check["standing"]) == ("revenue", 80.0, "violated")
    for path in ("", "/results", "/monitors", "/alerts"):
        assert company.client.get(f"/models/shop{path}").status_code == 200
    kinds = {one["name"]: one for one in company.client.get("/v1/catalog/monitors").json()["items"]}
    assert "revenue" in kinds["posted_metrics"]["parameters"]["properties"]["metrics"]["description"]


def test_a_night_without_figures_is_told_and_judged_when_they_come_late(company: Company) -> None:
    company.after(19.5)
    company.post(nights(19))
    company.watch(start=(START + 20 * NIGHT).isoformat())
    company.after(24)
    company.work()
    (run,) = company.runs()
    assert (run["status"], run["reason"]) == ("no_data", "no figure was posted for this span")
    assert [alert["kind"] for alert in company.alerts()] == ["blind"]
    company.post(night(21, 80.0))
    company.work()
    assert [(run["status"], run["judged"]) for run in company.runs()] == [
        ("no_data", False),
        ("violations", True),
        ("no_data", False),
    ]
    company.post(night(21, None))  # taken back: it was of another shop
    company.after(24.5)
    company.work()
    run = company.runs()[1]
    assert (run["status"], run["revision"], run["judged"]) == ("insufficient_data", 2, False)


def test_a_window_waits_for_figures_that_the_one_before_had_and_is_judged_without_them_in_the_end(
    company: Company,
) -> None:
    company.after(20)
    company.post(nights(20))
    both = {"revenue": {"direction": "lower_is_worse"}, "complaints": {"direction": "higher_is_worse"}}
    company.watch(
        start=(START + 20 * NIGHT).isoformat(),
        parameters={"metrics": both},
        policy={"threshold": {"revenue": 90.0, "complaints": 5}},
    )
    company.after(21)
    company.post(night(20, 80.0))
    company.work()
    (run,) = company.runs()
    assert (run["status"], run["judged"]) == ("waiting_for_labels", False)
    assert run["reason"] == "not posted yet: complaints; judged when it is, or on 2026-03-23T00:00:00Z"
    company.post(night(20, 3) | {"metric": "complaints"})
    company.work()
    run = company.runs()[-1]
    assert (run["status"], run["judged"], run["counts"]) == (
        "violations",
        True,
        {"ok": 1, "violated": 1, "not_measured": 0},
    )
    company.after(22)
    company.post(night(21, 100.0))
    company.work()
    assert company.runs()[-1]["status"] == "waiting_for_labels"
    company.after(23)
    company.work()
    run = company.runs()[-2]
    assert (run["status"], run["judged"], run["reason"]) == ("partial", True, "no value was posted")


def test_a_monitor_that_could_not_judge_is_refused_with_what_would_work(company: Company) -> None:
    def refused(**how: Any) -> str:
        answer = company.client.post("/v1/models/shop/monitors", json=WATCH | how)
        assert answer.status_code == 422
        return str(answer.json()["detail"])

    assert "name the figures to watch" in refused(parameters={})
    assert "say its direction" in refused(parameters={"metrics": ["revenue"]})
    assert "either direction" in refused(
        parameters={"metrics": {"revenue": {"direction": "either"}}}, policy={"threshold": {"revenue": 1}}
    )
    assert "windows before" in refused(baseline="training")
    assert "no rows to be cut into slices" in refused(slices=["eu"])
    trial = company.client.post("/v1/models/shop/monitors?dry_run=true", json=WATCH).json()
    assert (trial["alpha"], trial["monitor"]["labels"]["delay"]) == (pytest.approx(1 / 30), "1d")


def test_a_dry_run_judges_the_newest_night_as_it_would_be(company: Company) -> None:
    def tried() -> dict[str, Any]:
        found: dict[str, Any] = company.client.post("/v1/models/shop/monitors?dry_run=true", json=WATCH).json()
        return found

    assert (tried()["subjects"], tried()["rehearsed"]["reason"]) == ([], "no figure was posted yet")
    company.after(30)
    company.post(nights(30))
    (revenue,) = tried()["subjects"]
    assert (revenue["metric"], revenue["n_baseline"], revenue["direction"]) == ("revenue", 29, "lower_is_worse")
    assert revenue["alpha"] == pytest.approx(1 / 30)
    # 29 nights of each usual value 6 times, but 99 only 5 times: (30 * 100 - 99) / 29.
    assert revenue["baseline_value"] == pytest.approx(2901 / 29)
    assert "note" not in revenue


def test_a_seasonal_monitor_compares_with_the_same_day_of_the_week_once_twenty_are_known(company: Company) -> None:
    company.after(21 * 7 + 1)
    # Sundays sell half: against all days a Sunday is nothing special, against Sundays 60 is far too much.
    history = [night(number, (50.0 if number % 7 == 0 else 100.0) + number % 3) for number in range(20 * 7)]
    assert company.post(history)["accepted"] == 140
    metrics = {"metrics": {"revenue": {"direction": "higher_is_worse"}}}
    company.watch(start=(START + 20 * 7 * NIGHT).isoformat(), baseline="seasonal", parameters=metrics)
    company.post(night(20 * 7, 60.0))
    company.work()
    (run,) = [run for run in company.runs() if run["status"] != "no_data"]
    (result,) = company.get(f"runs/{run['id']}")["results"]
    # Twenty Sundays from 50, 51 and 52, each every third: 50 comes 7 times, 51 and 52 come 7 and 6 times.
    assert (result["n_baseline"], result["verdict"]) == (20, "violated")
    assert result["baseline_value"] == pytest.approx((7 * 50 + 7 * 51 + 6 * 52) / 20)
