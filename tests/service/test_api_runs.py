"""Alerts, webhooks, replays and asked-for runs as callers meet them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.clock import SetClock
from service.runs import abandon, claimed, execute
from tests.receiver import Receiver
from tests.service.opened import parts_of, scheduler_of

START = datetime(2026, 1, 5, tzinfo=UTC)


def csv(first: int, last: int, *, shift: float = 0.0) -> bytes:
    """Return hourly rows of some days as a file: a number that wanders through a fixed cycle, and a category."""
    lines = ["prediction_id,timestamp,prediction,score,age,job"]
    for hour in range(24 * first, 24 * last):
        for part in range(3):
            number = 3 * hour + part
            age = 40 + shift + (number * 7919) % 31 - 15
            score = ((number * 104_729) % 97 + 1) / 99
            moment = START + timedelta(hours=hour, minutes=20 * part)
            job = ("clerk", "nurse", "smith")[(number * 31) % 3]
            lines.append(f"r{number},{moment.isoformat()},{int(score > 0.5)},{score},{age},{job}")
    return "\n".join(lines).encode()


def made(client: TestClient) -> None:
    """Make a model with a baseline of 30 days and its default monitors."""
    assert client.post("/v1/models", json={"name": "loans", "task": "binary", "classes": ["0", "1"]}).status_code == 201
    answer = client.post(
        "/v1/models/loans/baselines?name=reference", content=csv(-30, 0), headers={"content-type": "text/csv"}
    )
    assert answer.status_code in (201, 202), answer.text
    answer = client.post("/v1/models/loans/monitors/defaults", json={"window": "1d"})
    assert answer.status_code == 201, answer.text


def sent(client: TestClient, first: int, last: int, **how: Any) -> None:
    """Send the rows of some days."""
    answer = client.post(
        "/v1/models/loans/predictions", content=csv(first, last, **how), headers={"content-type": "text/csv"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == (last - first) * 72


def backfilled(client: TestClient, days: int) -> str:
    """Ask for the windows of the first days, which are sent; return where the job is watched."""
    made(client)
    sent(client, 0, days)
    parts_of(client).sealer.seal(1)
    span = {"from": START.isoformat(), "to": (START + timedelta(days=days)).isoformat(), "each": "1d"}
    return str(client.post("/v1/models/loans/monitors/data_drift/runs", json=span).headers["location"])


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client(tick_seconds=3600.0)


def replayed(client: TestClient, *webhooks: str) -> None:
    """Replay five days, of which the last two are shifted, and close the replay."""
    made(client)
    span = {"from": START.isoformat(), "to": (START + timedelta(days=5)).isoformat(), "webhooks": list(webhooks)}
    answer = client.post("/v1/models/loans/replays", json=span)
    assert answer.status_code == 201, answer.text
    assert client.post("/v1/models/loans/replays", json=span).status_code == 409
    sent(client, 0, 3)
    sent(client, 3, 5, shift=15.0)
    closed = client.delete(answer.headers["location"])
    assert closed.status_code == 200, closed.text
    assert closed.json()["runs"] >= 10
    assert closed.json()["closed_at"] is not None
    assert client.delete(answer.headers["location"]).status_code == 409
    assert client.delete("/v1/models/loans/replays").status_code == 404


def test_a_replay_finds_the_shift_and_its_alert_is_acknowledged_muted_and_resolved(
    client: TestClient, receiver: Receiver
) -> None:
    hook = {"name": "hook", "url": receiver.url, "events": ["*"]}
    secret = client.post("/v1/webhooks", json=hook).json()["secret"]
    replayed(client, "hook")
    listed = client.get("/v1/alerts", params={"model": "loans", "state": "open"}).json()["items"]
    assert len(listed) == 1
    uid = listed[0]["id"]
    assert listed[0]["starts_at"] == "2026-01-08T00:00:00Z"
    assert "inputs of loans" in listed[0]["sentence"]
    alert = client.get(f"/v1/alerts/{uid}").json()
    assert alert["replayed"] is True
    assert alert["evidence"]["results"]
    assert client.post(f"/v1/alerts/{uid}/acknowledge").json()["state"] == "acknowledged"
    assert client.post(f"/v1/alerts/{uid}/mute", json={"duration": "2d"}).json()["muted_until"] is not None
    assert client.post(f"/v1/alerts/{uid}/resolve").json()["resolution"] == "manual"
    assert client.post(f"/v1/alerts/{uid}/resolve").status_code == 409
    assert client.get("/v1/alerts/nobody").status_code == 404
    assert client.get("/v1/alerts?state=sleepy").status_code == 422
    deadline = time.monotonic() + 60
    while True:  # the service's own sender may be at some of them
        parts_of(client).sender.send_all_due()
        deliveries = client.get("/v1/deliveries", params={"alert": uid}).json()["items"]
        if all(found["state"] != "pending" for found in deliveries) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert len(receiver.events(secret, "alert.opened")) == 1
    assert {found["event"] for found in deliveries} >= {"alert.opened", "alert.resolved"}
    assert {found["state"] for found in deliveries} == {"delivered"}
    again = client.post(f"/v1/deliveries/{deliveries[0]['id']}/resend")
    assert again.json()["state"] == "pending"


def test_the_alert_of_a_version_that_is_retired_closes_as_replaced(client: TestClient) -> None:
    replayed(client)
    alert = client.get("/v1/alerts", params={"model": "loans", "state": "open"}).json()["items"][0]
    path = "/v1/models/loans/versions"
    assert client.post(path, json={"version": "next"}).status_code == 201
    assert client.post(f"{path}/next/activate").status_code == 200
    assert client.get(f"/v1/alerts/{alert['id']}").json()["state"] == "open", "both may be deployed"
    for _ in range(2):
        assert client.post(f"{path}/{alert['version']}/retire").json()["retired_at"] is not None
    closed = client.get(f"/v1/alerts/{alert['id']}").json()
    assert (closed["state"], closed["resolution"]) == ("resolved", "replaced")


def test_a_webhook_s_secret_is_shown_once_and_its_test_arrives(client: TestClient, receiver: Receiver) -> None:
    body = {"name": "hook", "url": receiver.url, "events": ["alert.opened"]}
    answer = client.post("/v1/webhooks", json=body)
    assert answer.status_code == 201
    secret = answer.json()["secret"]
    assert client.post("/v1/webhooks", json=body).status_code == 409
    assert "secret" not in client.get("/v1/webhooks/hook").json()
    assert "secret" not in client.get("/v1/webhooks").json()["items"][0]
    assert client.post("/v1/webhooks/hook/test").json()["state"] == "delivered"
    assert [event["type"] for event in receiver.events(secret)] == ["webhook.test"]
    fresh = client.post("/v1/webhooks/hook/rotate").json()["secret"]
    assert fresh != secret
    assert client.post("/v1/webhooks/hook/test").json()["state"] == "delivered"
    assert len(receiver.events(secret)) == 2  # for a day both secrets sign
    assert client.get("/v1/webhooks/hook/deliveries").json()["items"][0]["attempts"] == 1
    changed = client.patch("/v1/webhooks/hook", json={"enabled": False, "events": ["*"]})
    assert (changed.json()["enabled"], changed.json()["events"]) == (False, ["*"])
    assert client.post("/v1/webhooks/hook/test").status_code == 409
    assert client.patch("/v1/webhooks/hook", json={"enabled": True}).json()["enabled"] is True
    assert client.delete("/v1/webhooks/hook").status_code == 204
    assert client.get("/v1/webhooks/hook").status_code == 404


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://10.0.0.1/x", "address_not_allowed"),
        ("https://169.254.169.254/x", "address_not_allowed"),
        ("http://example.com/x", "address_not_allowed"),
        ("ftp://example.com/x", "address_not_allowed"),
        ("https://user@example.com/x", "address_not_allowed"),
        ("nonsense", "address_not_allowed"),
    ],
)
def test_a_webhook_to_an_address_inside_is_refused_with_the_setting_that_allows_it(
    client: TestClient, url: str, code: str
) -> None:
    answer = client.post("/v1/webhooks", json={"name": "hook", "url": url, "events": ["*"]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0] == {"pointer": "/url", "code": code, "detail": answer.json()["detail"]}
    if url.startswith("https://10"):
        assert "PLUMBLINE_OUTBOUND_ALLOW" in answer.json()["detail"]


def test_a_webhook_names_events_and_models_that_there_are(client: TestClient) -> None:
    body = {"name": "hook", "url": "https://example.com/", "events": ["alert.imagined"], "models": ["nobody"]}
    answer = client.post("/v1/webhooks", json=body)
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {"/events/0", "/models/0"}


def test_calls_are_listed_by_a_state_that_there_is(client: TestClient, receiver: Receiver) -> None:
    client.post("/v1/webhooks", json={"name": "states", "url": receiver.url, "events": ["alert.opened"]})
    call = client.post("/v1/webhooks/states/test").json()
    for path in ("/v1/deliveries", "/v1/webhooks/states/deliveries"):
        assert call["id"] in [one["id"] for one in client.get(f"{path}?state=delivered").json()["items"]]
        assert client.get(f"{path}?state=failed").json()["items"] == []
        answer = client.get(f"{path}?state=lost")
        assert (answer.status_code, answer.json()["detail"]) == (
            422,
            "'lost' is not a state; one of pending, delivered, failed",
        )
    assert client.delete("/v1/webhooks/states").status_code == 204


def test_a_backfill_is_queued_run_and_opens_no_alert(make_client: Callable[..., TestClient]) -> None:
    clock = SetClock(START + timedelta(days=10))
    client = make_client(clock, tick_seconds=3600.0)
    made(client)
    sent(client, 0, 2, shift=15.0)
    scheduler = scheduler_of(client)
    parts_of(client).sealer.seal(1)
    span = {"from": START.isoformat(), "to": (START + timedelta(days=2)).isoformat(), "each": "1d"}
    answer = client.post("/v1/models/loans/monitors/data_drift/runs", json=span)
    assert answer.status_code == 202, answer.text
    assert answer.json()["windows"] == 2
    run = f"/v1/models/loans/runs/{answer.json()['id']}"
    assert client.get(run).json()["status"] == "queued"
    job = client.get(answer.headers["location"]).json()
    assert (job["state"], job["progress"]) == ("queued", {"done": 0, "total": 2, "unit": "windows"})
    assert scheduler.work_model(1, limit=1) == 1
    assert client.get(answer.headers["location"]).json()["progress"]["done"] == 1
    assert scheduler.work_model(1) == 1
    job = client.get(answer.headers["location"]).json()
    assert (job["state"], job["progress"]["done"]) == ("done", 2)
    assert client.get(run).json()["status"] == "violations"
    assert client.get("/v1/alerts").json()["items"] == []
    for wrong in (
        {"from": START.isoformat()},
        {"from": START.isoformat(), "to": (START + timedelta(minutes=90)).isoformat()},
        {"from": START.isoformat(), "to": (START + timedelta(days=30)).isoformat()},
        {"from": START.isoformat(), "to": (START + timedelta(days=2)).isoformat(), "each": "1mo"},
    ):
        assert client.post("/v1/models/loans/monitors/data_drift/runs", json=wrong).status_code == 422, wrong


@pytest.mark.postgres
def test_windows_that_many_ask_for_at_once_are_queued_once(
    make_client: Callable[..., TestClient], postgres_url: str
) -> None:
    client = make_client(tick_seconds=3600.0, database_url=postgres_url)
    made(client)
    sent(client, 0, 5)
    parts_of(client).sealer.seal(1)
    span = {"from": START.isoformat(), "to": (START + timedelta(days=5)).isoformat(), "each": "1d"}
    start = Barrier(6)

    def ask(_number: int) -> int:
        start.wait()
        return client.post("/v1/models/loans/monitors/data_drift/runs", json=span).status_code

    with ThreadPoolExecutor(6) as people:
        answers = sorted(people.map(ask, range(6)))
    assert answers == [202, *[409] * 5]
    queued = client.get("/v1/models/loans/monitors/data_drift/runs").json()["items"]
    assert sorted(run["window"]["from"] for run in queued) == [
        (START + timedelta(days=day)).isoformat().replace("+00:00", "Z") for day in range(5)
    ]


def test_a_backfill_whose_worker_ended_before_it_said_so_is_done_at_the_next_tick(
    make_client: Callable[..., TestClient],
) -> None:
    client = make_client(SetClock(START + timedelta(days=10)), tick_seconds=3600.0)
    scheduler, parts = scheduler_of(client), parts_of(client)
    job = backfilled(client, 2)
    with parts.database.reading() as session:
        asked = scheduler._unfinished(session, 1, backfill=True)
    assert [execute(scheduler._workshop, due) is not None for due in asked] == [True, True]
    assert client.get(job).json()["state"] == "queued"
    scheduler.tick()
    told = client.get(job).json()
    assert (told["state"], told["progress"]["done"]) == ("done", 2)


def test_a_backfill_that_is_cancelled_runs_no_more_windows(make_client: Callable[..., TestClient]) -> None:
    client = make_client(SetClock(START + timedelta(days=10)), tick_seconds=3600.0)
    scheduler = scheduler_of(client)
    job = backfilled(client, 4)
    assert scheduler.work_model(1, limit=1) == 1
    assert client.delete(job).json()["state"] == "cancelled"
    assert scheduler.work_model(1) == 0
    runs = client.get("/v1/models/loans/runs").json()["items"]
    assert [run["window"]["from"] for run in runs] == ["2026-01-05T00:00:00Z"]
    assert client.delete(job).status_code == 409


def test_a_window_that_was_begun_when_its_backfill_was_cancelled_is_not_begun_again(
    make_client: Callable[..., TestClient],
) -> None:
    client = make_client(SetClock(START + timedelta(days=10)), tick_seconds=3600.0)
    scheduler, parts = scheduler_of(client), parts_of(client)
    job = backfilled(client, 2)
    with parts.database.reading() as session:
        first, _second = scheduler._unfinished(session, 1, backfill=True)
    claim = claimed(scheduler._workshop, first)
    assert claim is not None
    assert client.delete(job).json()["state"] == "cancelled"
    abandon(scheduler._workshop, claim, "its process ended")
    assert [run["status"] for run in client.get("/v1/models/loans/runs").json()["items"]] == ["queued"]
    assert scheduler.work_model(1) == 0
    assert client.get("/v1/models/loans/runs").json()["items"] == []
    assert client.get(job).json()["state"] == "cancelled"


def test_a_paused_monitor_runs_nothing_and_catches_up_or_not_when_it_is_resumed(
    make_client: Callable[..., TestClient],
) -> None:
    clock = SetClock(START)
    client = make_client(clock, roles=("api",))
    made(client)
    monitors = "/v1/models/loans/monitors"

    def days_of(name: str) -> list[int]:
        runs = client.get(f"/v1/models/loans/runs?monitor={name}&limit=100").json()["items"]
        return sorted(datetime.fromisoformat(run["window"]["from"]).day for run in runs if run["monitor"] == name)

    def pass_days(first: int, last: int) -> None:
        clock.at = START + timedelta(days=last, hours=2)
        sent(client, first, last)
        parts_of(client).sealer.seal(1)
        scheduler_of(client).tick()

    pass_days(0, 1)
    for name in ("data_drift", "prediction_drift"):
        assert client.post(f"{monitors}/{name}/pause").json()["enabled"] is False
    pass_days(1, 3)
    assert (days_of("data_drift"), days_of("data_quality")) == ([5], [5, 6, 7])
    assert client.post(f"{monitors}/data_drift/resume").json()["enabled"] is True
    assert client.post(f"{monitors}/prediction_drift/resume", json={"catch_up": False}).json()["enabled"] is True
    pass_days(3, 5)
    assert days_of("data_drift") == [5, 6, 7, 8, 9]
    assert days_of("prediction_drift") == [5, 9]  # the day that it was resumed in is not whole
    actions = [entry["action"] for entry in client.get("/v1/audit").json()["items"]]
    assert actions.count("monitor.pause") == actions.count("monitor.resume") == 2


def test_a_span_is_left_out_and_put_back(client: TestClient) -> None:
    made(client)
    span = {"from": "2026-01-06T00:00:00Z", "to": "2026-01-07T00:00:00Z", "reason": "load test"}
    answer = client.post("/v1/models/loans/windows/exclude", json=span)
    assert answer.status_code == 201
    listed = client.get("/v1/models/loans/windows/exclude").json()["items"]
    assert listed == [answer.json()]
    assert client.delete(f"/v1/models/loans/windows/exclude/{listed[0]['id']}").status_code == 204
    assert client.get("/v1/models/loans/windows/exclude").json()["items"] == []
    assert client.delete("/v1/models/loans/windows/exclude/77").status_code == 404
    backwards = span | {"to": "2026-01-05T00:00:00Z"}
    assert client.post("/v1/models/loans/windows/exclude", json=backwards).status_code == 422
