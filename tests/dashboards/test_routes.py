"""The pages from a real database: who may see them, what they say, and what can be done from a browser."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from dashboards import charts
from service.access import COOKIE, Scope
from service.assembly import Assembly
from service.clock import SetClock
from service.pages.columns import category_shares, numeric_bins
from service.pages.drift import read
from service.pages.routes import POLICY, inside
from service.runs import encode_results
from service.tables import (
    AlertRow,
    DeliveryRow,
    JobRow,
    ModelRow,
    ModelStatusRow,
    MonitorRow,
    ReplayRow,
    RunRow,
    VersionRow,
    WebhookRow,
)
from service.words import format_time

HOSTILE = "<img src=x onerror=alert(1)>"
NOW = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)
PAGES = (
    "",
    "/drift",
    "/performance",
    "/quality",
    "/results",
    "/explain",
    "/alerts",
    "/retraining",
    "/monitors",
    "/data",
)
KEY = "plk_test_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"


def result(feature: str | None, verdict: str, effect: float, **more: Any) -> dict[str, Any]:
    return {
        "metric": "wasserstein",
        "scale": 1,
        "value": effect + 0.01,
        "effect": effect,
        "min_effect": 0.1,
        "p_value": 0.00001 if verdict == "violated" else 0.4,
        "alpha": 0.001,
        "rule": "budget",
        "direction": "higher_is_worse",
        "verdict": verdict,
        "decides": True,
        "n_window": 500,
        "n_baseline": 5_000,
        **({"feature": feature} if feature else {}),
        **more,
    }


@dataclass
class World:
    """A running application whose database holds one watched model and one that nobody watches."""

    client: TestClient
    parts: Assembly
    alert: str = "a" * 32

    def signed_in(self) -> str:
        """Sign the client in with the admin key instead of its header, and return the token of its forms."""
        del self.client.headers["Authorization"]
        answer = self.client.post("/sign-in", data={"key": KEY, "next": "/"}, follow_redirects=False)
        assert answer.status_code == 303
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.client.get("/").text)
        assert found
        return found[1]


@pytest.fixture
def world(make_client: Callable[..., TestClient]) -> World:
    client = make_client(SetClock(NOW), roles=("api",))
    parts: Assembly = client.app.state.assembly  # type: ignore[attr-defined]
    with parts.database.writing() as session:
        model = ModelRow(
            uid="m" * 32, name="loans", task="binary", alarm_budget={"per": "30d", "at_most": 1}, created_at=NOW
        )
        model.note = f"What was injected: {HOSTILE}"
        session.add_all(
            [model, ModelRow(uid="n" * 32, name="idle", task="regression", alarm_budget={"per": "30d"}, created_at=NOW)]
        )
        session.flush()
        version = VersionRow(model_id=model.id, name="v1", created_at=NOW, first_event_at=NOW - 9 * DAY)
        version.last_event_at = NOW - timedelta(hours=1)
        session.add(version)
        session.flush()
        model.active_version_id = version.id
        monitors = [
            MonitorRow(
                uid=kind.ljust(32, "0"),
                model_id=model.id,
                name=kind,
                kind=kind,
                schedule="daily",
                window="1d",
                created_at=NOW,
            )
            for kind in ("data_drift", "data_quality")
        ]
        session.add_all(monitors)
        session.flush()
        for monitor in monitors:
            recent = []
            for day in range(8):
                start = MIDNIGHT - (8 - day) * DAY
                bad = day >= 6 and monitor.kind == "data_drift"
                results = [
                    result(HOSTILE, "violated" if bad else "ok", 0.5 if bad else 0.01),
                    result("age", "ok", 0.02),
                    result("age", "ok", 0.02, metric="psi") | {"decides": False, "verdict": None, "value": 0.07},
                    result("job", "not_measured", 0.0, reason="3 of 200 rows needed")
                    | {"value": None, "effect": None, "p_value": None},
                ]
                status = "violations" if bad else "partial" if monitor.kind == "data_quality" else "ok"
                run = RunRow(
                    uid=f"{monitor.id}{day}".ljust(32, "r"),
                    model_id=model.id,
                    monitor_id=monitor.id,
                    version_id=version.id,
                    starts_at=start,
                    ends_at=start + DAY,
                    status=status,
                    rows=500,
                    ok=1 if bad else 2,
                    violated=int(bad),
                    not_measured=1,
                    alpha=0.001,
                    judged=True,
                    started_at=NOW,
                    finished_at=NOW,
                    document=encode_results(results),
                )
                session.add(run)
                recent.append([format_time(start + DAY), status, 500, 5.0 if bad else 0.1])
            session.add(
                ModelStatusRow(
                    model_id=model.id,
                    version_id=version.id,
                    monitor_id=monitor.id,
                    kind=monitor.kind,
                    status=status,
                    reason=HOSTILE,
                    run_uid=run.uid,
                    ends_at=MIDNIGHT,
                    rows=500,
                    ok=run.ok,
                    violated=run.violated,
                    not_measured=1,
                    recent=recent,
                    updated_at=NOW,
                )
            )
        alert = AlertRow(
            uid="a" * 32,
            model_id=model.id,
            version_id=version.id,
            state="open",
            severity="warning",
            sentence=f"1 of 2 inputs moved: {HOSTILE}",
            starts_at=MIDNIGHT - 2 * DAY,
            last_violated_at=MIDNIGHT,
            opened_at=NOW - DAY,
            updated_at=NOW,
            members={
                "data_drift": {
                    "kind": "data_drift",
                    "features": [HOSTILE],
                    "quiet": 0,
                    "last_window": format_time(MIDNIGHT),
                }
            },
            evidence={
                "run": "r" * 32,
                "monitor": "data_drift",
                "window": {"from": format_time(MIDNIGHT - DAY), "to": format_time(MIDNIGHT)},
                "results": [result(HOSTILE, "violated", 0.5)],
            },
        )
        webhook = WebhookRow(
            uid="w" * 32,
            name="pager",
            url="https://user:secret@hooks.example.com/T0/token?key=1",
            events=["alert.opened"],
            secret=b"",
            created_at=NOW,
        )
        session.add_all([alert, webhook])
        session.flush()
        session.add(
            DeliveryRow(
                uid="msg_1",
                webhook_id=webhook.id,
                model_id=model.id,
                alert_id=alert.id,
                event="alert.opened",
                body="{}",
                state="failed",
                attempts=10,
                next_at=NOW,
                created_at=NOW,
                log=[
                    {"at": format_time(NOW), "attempt": 1, "milliseconds": 40, "status": 500, "answer": HOSTILE},
                    {"at": format_time(NOW), "attempt": 2, "milliseconds": 3, "error": "refused"},
                ],
            )
        )
    return World(client, parts)


def test_every_page_and_its_twin_answer(world: World) -> None:
    for path in (
        "/",
        *(f"/models/{name}{page}" for name in ("loans", "idle") for page in PAGES),
        f"/alerts/{world.alert}",
        "/webhooks",
        "/jobs",
    ):
        page = world.client.get(path)
        assert page.status_code == 200, (path, page.text)
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"] == POLICY
        assert page.headers["x-content-type-options"] == "nosniff"
        assert HOSTILE not in page.text
        twin = world.client.get("/fleet.json" if path == "/" else f"{path}.json")
        assert twin.status_code == 200, (path, twin.text)
        assert twin.json()["title"]


def test_the_fleet_is_worst_first_with_reasons(world: World) -> None:
    rows = world.client.get("/fleet.json").json()["rows"]
    assert [(row["model"], row["standing"]) for row in rows] == [("loans", "violated"), ("idle", "not_measured")]
    assert rows[0]["reason"] == f"1 of 2 inputs moved: {HOSTILE}"
    assert rows[0]["drift"] == {"violated": 1, "measured": 2, "unmeasured": 1}
    assert rows[0]["open_alerts"] == 1
    assert [row["model"] for row in world.client.get("/fleet.json?q=LOAN").json()["rows"]] == ["loans"]


def test_the_overview_says_what_is_wrong_and_never_calls_a_partial_monitor_ok(world: World) -> None:
    page = world.client.get("/models/loans.json").json()
    assert page["head"]["standing"] == "violated"
    assert page["verdict"].startswith("Data drift: 1 of 2")
    assert {tile["monitor"]: tile["standing"] for tile in page["tiles"]} == {
        "data_drift": "violated",
        "data_quality": "partial",
    }
    assert page["note"] == f"What was injected: {HOSTILE}"
    assert [chart["id"] for chart in page["charts"]] == ["events", "windows"]


def test_the_drift_page_has_each_column_with_its_verdict_and_reason(world: World) -> None:
    page = world.client.get("/models/loans/drift.json").json()
    assert [(one["column"], one["standing"]) for one in page["columns"]] == [
        (HOSTILE, "violated"),
        ("age", "ok"),
        ("job", "not_measured"),
    ]
    worst = page["columns"][0]
    assert (worst["effect"], worst["min_effect"], worst["p_value"], worst["alpha"]) == (0.5, 0.1, 0.00001, 0.001)
    assert (worst["n_window"], worst["n_baseline"], worst["violated_windows"], worst["windows"]) == (500, 5_000, 2, 8)
    assert page["columns"][2]["reason"] == "3 of 200 rows needed"
    assert page["sentence"] == f"1 of 2 columns moved: {HOSTILE}."
    assert len(page["heatmap"]["rows"]) == 3 * 8
    assert page["window_start"] == format_time(MIDNIGHT - DAY)


def test_a_feature_with_the_name_of_a_score_is_kept_apart_from_the_score() -> None:
    runs = [
        RunRow(
            monitor_id=number,
            starts_at=MIDNIGHT - DAY,
            ends_at=MIDNIGHT,
            document=encode_results([result("score", verdict, effect)]),
        )
        for number, verdict, effect in ((1, "violated", 0.5), (2, "ok", 0.01))
    ]
    reading = read(runs, {1: "data_drift", 2: "prediction_drift"})
    [cells] = reading.found.values()
    assert {name: (one.role, one.standing.value) for name, one in cells.items()} == {
        "score (feature)": ("feature", "violated"),
        "score": ("score", "ok"),
    }


def test_a_window_and_a_column_are_chosen_in_the_address(world: World) -> None:
    page = world.client.get(
        "/models/loans/drift.json", params={"window": format_time(MIDNIGHT - 5 * DAY), "feature": "age", "sort": "name"}
    ).json()
    assert page["window_start"] == format_time(MIDNIGHT - 5 * DAY)
    assert page["panel"]["drift"]["column"] == "age"
    assert page["panel"]["also"] == [{"metric": "psi", "value": 0.07, "reason": ""}]
    assert [one["column"] for one in page["columns"]] == [HOSTILE, "age", "job"]
    narrow = world.client.get("/models/loans/drift.json?from=2026-11-20&to=2026-11-20").json()
    assert [one["start"] for one in narrow["windows"]] == ["2026-11-20T00:00:00Z"]


def test_a_time_that_makes_no_sense_is_refused_in_words(world: World) -> None:
    answer = world.client.get("/models/loans/drift?from=yesterday", headers={"Accept": "text/html"})
    assert answer.status_code == 422
    assert "is not a time" in answer.text
    assert answer.headers["content-security-policy"] == POLICY


def test_an_empty_model_says_what_to_do_with_the_real_address(world: World) -> None:
    page = world.client.get("/models/idle.json").json()
    assert page["head"]["standing"] == "not_measured"
    assert all("http://127.0.0.1:8000/v1/models/idle/" in one["code"] for one in page["empty"]["commands"])


def test_an_unknown_model_and_one_that_the_key_may_not_see_are_the_same_page(world: World) -> None:
    key = world.parts.keyring.make("bound", [Scope.READ], ["idle"])
    bound = {"Authorization": f"Bearer {key}", "Accept": "text/html"}
    for path in ("/models/nothing", "/models/loans", "/models/loans/drift.json", f"/alerts/{world.alert}"):
        assert world.client.get(path, headers=bound).status_code == 404
    assert [row["model"] for row in world.client.get("/fleet.json", headers=bound).json()["rows"]] == ["idle"]
    assert "loans" not in world.client.get("/", headers=bound).text


def test_without_a_key_a_browser_is_sent_to_sign_in_and_comes_back(world: World) -> None:
    del world.client.headers["Authorization"]
    html = {"Accept": "text/html"}
    sent = world.client.get("/models/loans/drift?sort=p", headers=html, follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, "/sign-in?next=/models/loans/drift%3Fsort%3Dp")
    assert world.client.get("/models/loans.json").status_code == 401
    form = world.client.get(sent.headers["location"], headers=html)
    assert 'value="/models/loans/drift?sort=p"' in form.text
    wrong = world.client.post("/sign-in", data={"key": "plk_wrong", "next": "/"})
    assert wrong.status_code == 401
    assert "unknown, expired or revoked" in wrong.text
    signed = world.client.post(
        "/sign-in", data={"key": KEY, "next": "/models/loans/drift?sort=p"}, follow_redirects=False
    )
    assert signed.headers["location"] == "/models/loans/drift?sort=p"
    cookie = signed.headers["set-cookie"]
    assert cookie.startswith(COOKIE)
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert world.client.get("/models/loans").status_code == 200


def test_a_link_signs_in_once_and_looking_at_it_does_not_spend_it(world: World) -> None:
    del world.client.headers["Authorization"]
    link = f"/sign-in/{world.parts.keyring.sign_in_link()}"
    for _ in range(2):
        assert "Continue" in world.client.get(link).text
    assert world.client.post(link, follow_redirects=False).headers["location"] == "/"
    assert world.client.get("/").status_code == 200
    world.client.cookies.clear()
    again = world.client.post(link)
    assert again.status_code == 401
    assert "was used already" in again.text


def test_signing_out_ends_the_session(world: World) -> None:
    token = world.signed_in()
    kept = world.client.cookies[COOKIE]
    ours = {"Origin": "http://testserver"}
    assert (
        world.client.post("/sign-out", data={"csrf_token": token}, headers=ours, follow_redirects=False).status_code
        == 303
    )
    world.client.cookies.set(COOKIE, kept)
    assert world.client.get("/fleet.json").status_code == 401


def test_an_alert_is_acknowledged_from_its_page_with_the_token_only(world: World) -> None:
    token = world.signed_in()
    path = f"/alerts/{world.alert}/acknowledge"
    ours = {"Origin": "http://testserver"}
    assert world.client.post(path, headers=ours).status_code == 403
    assert (
        world.client.post(path, data={"csrf_token": token}, headers={"Origin": "https://evil.test"}).status_code == 403
    )
    assert world.client.post(path, data={"csrf_token": token}, headers=ours, follow_redirects=False).status_code == 303
    page = world.client.get(f"/alerts/{world.alert}.json").json()
    assert (page["alert"]["state"], page["alert"]["acknowledged_by"]) == ("acknowledged", "admin (settings)")


def test_an_alert_is_muted_commented_and_resolved_by_forms_that_need_no_script(world: World) -> None:
    token, ours = world.signed_in(), {"Origin": "http://testserver"}

    def post(action: str, **form: str) -> int:
        form["csrf_token"] = token
        answer = world.client.post(f"/alerts/{world.alert}/{action}", data=form, headers=ours, follow_redirects=False)
        return answer.status_code

    assert post("mute", until="2020-01-01") == 422
    assert post("mute", until="soon") == 422
    assert post("mute", until="2099-01-01") == 303
    assert post("comment", text=f"  {HOSTILE}\nsecond line ") == 303
    assert post("comment", text="   ") == 422
    assert post("dance") == 404
    page = world.client.get(f"/alerts/{world.alert}.json").json()
    assert page["alert"]["muted_until"] == "2099-01-01T00:00:00Z"
    assert [one["text"] for one in page["comments"]] == [f"{HOSTILE}\nsecond line"]
    assert HOSTILE not in world.client.get(f"/alerts/{world.alert}").text
    assert post("resolve") == 303
    assert post("resolve") == 409
    assert world.client.get(f"/alerts/{world.alert}.json").json()["alert"]["state"] == "resolved"


def test_a_call_that_was_given_up_is_seen_among_the_webhooks_and_sent_again(world: World) -> None:
    token, ours = world.signed_in(), {"Origin": "http://testserver"}
    with world.parts.database.writing() as session:
        session.scalars(select(DeliveryRow)).one().state = "failed"
    page = world.client.get("/webhooks.json").json()
    assert [(one["uid"], one["url"]) for one in page["dead"]] == [("msg_1", "https://hooks.example.com/…")]
    assert page["webhooks"][0]["failed"] == 1
    form = {"csrf_token": token, "delivery": "msg_1"}
    path = "/webhooks/pager/resend"
    assert world.client.post(path, data=form, headers=ours, follow_redirects=False).status_code == 303
    assert world.client.get("/webhooks.json").json()["dead"] == []
    assert world.client.post(path, data=form | {"delivery": "other"}, headers=ours).status_code == 404


def test_long_work_is_seen_with_its_progress_and_cancelled(world: World) -> None:
    token, ours = world.signed_in(), {"Origin": "http://testserver"}
    assert world.client.get("/jobs.json").json()["empty"]["title"] == "No long work yet"
    with world.parts.database.writing() as session:
        model = session.scalars(select(ModelRow).where(ModelRow.name == "loans")).one()
        version = session.scalars(select(VersionRow).where(VersionRow.model_id == model.id)).first()
        assert version is not None
        version.last_event_at = NOW - timedelta(hours=6)
        about = {"kind": "backfill", "model_id": model.id, "unit": "windows", "request": {"monitor": HOSTILE}}
        session.add(JobRow(uid="1" * 32, state="done", created_at=NOW, finished_at=NOW, done=4, total=4, **about))
        began = world.parts.clock.now() - timedelta(minutes=10)
        session.add(
            JobRow(uid="2" * 32, state="running", created_at=began, started_at=began, done=10, total=40, **about)
        )
        session.add(
            ReplayRow(uid="3" * 32, model_id=model.id, starts_at=NOW - timedelta(days=1), ends_at=NOW, opened_at=NOW)
        )
    page = world.client.get("/jobs.json").json()
    going, over = page["jobs"]
    assert (going["uid"], going["done"], going["total"], going["may_cancel"]) == ("2" * 32, 10, 40, True)
    # ten windows in ten minutes: thirty more in half an hour
    shown = world.client.get(f"/v1/jobs/{'2' * 32}").json()
    left = datetime.fromisoformat(shown["eta"]) - world.parts.clock.now()
    assert timedelta(minutes=29) < left < timedelta(minutes=31)
    assert (over["state"], over["eta"], over["may_cancel"]) == ("done", None, False)
    assert [(one["done"], one["total"]) for one in page["replays"]] == [(18, 24)]
    replay = world.client.get(f"/v1/models/loans/replays/{'3' * 32}").json()
    assert replay["progress"] == {"done": 18, "total": 24, "unit": "hours"}
    html = world.client.get("/jobs").text
    assert '<progress max="40" value="10"' in html
    assert HOSTILE not in html
    path, form = f"/jobs/{'2' * 32}/cancel", {"csrf_token": token}
    assert world.client.post(path, data=form, headers=ours, follow_redirects=False).status_code == 303
    assert world.client.post(path, data=form, headers=ours).status_code == 409
    assert world.client.get("/jobs.json").json()["jobs"][0]["state"] == "cancelled"


def test_a_failed_delivery_is_owed_again_under_the_same_id(world: World) -> None:
    token = world.signed_in()
    path, ours = f"/alerts/{world.alert}/resend", {"Origin": "http://testserver"}
    form = {"csrf_token": token, "delivery": "msg_1", "webhook": "pager"}
    assert world.client.post(path, data=form, headers=ours, follow_redirects=False).status_code == 303
    [delivery] = world.client.get(f"/alerts/{world.alert}.json").json()["deliveries"]
    assert (delivery["uid"], delivery["state"], delivery["attempts"]) == ("msg_1", "pending", 0)
    assert world.client.post(path, data=form | {"webhook": "other"}, headers=ours).status_code == 404


def test_the_alert_page_shows_evidence_and_attempts_and_hides_secrets_of_addresses(world: World) -> None:
    page = world.client.get(f"/alerts/{world.alert}.json").json()
    assert page["evidence"][0]["subject"] == HOSTILE
    assert page["evidence"][0]["effect"] == 0.5
    [delivery] = page["deliveries"]
    assert [(one["status"], one["error"]) for one in delivery["log"]] == [(500, ""), (None, "refused")]
    assert delivery["url"] == "https://hooks.example.com/…"
    assert "secret" not in world.client.get(f"/alerts/{world.alert}").text


@pytest.mark.parametrize(
    "path", ["https://evil.test/", "//evil.test", "/\\evil.test", "javascript:alert(1)", "/a\nb", ""]
)
def test_signing_in_never_leads_to_another_site(path: str) -> None:
    assert inside(path) == "/"


def test_static_files_are_compressed_and_kept_for_good(world: World) -> None:
    del world.client.headers["Authorization"]
    page = world.client.get("/sign-in").text
    address = re.search(r'href="(/static/app-[0-9a-f]{12}\.css)"', page)
    assert address
    answer = world.client.get(address[1], headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    assert ".rail" in answer.text
    assert world.client.get("/static/app-000000000000.css").status_code == 404


def test_bins_of_a_chart_keep_every_row() -> None:
    import numpy as np
    import pyarrow as pa

    from monitors import kernel
    from monitors.contract import Column, Role, Type
    from monitors.layout import CategoryLayout, NumericLayout, plan_layout
    from monitors.profile import CategoryProfile, NumericProfile

    generator = np.random.default_rng(5)
    columns = [
        Column(name="features.x", role=Role.FEATURE, type=Type.NUMERIC),
        Column(name="features.few", role=Role.FEATURE, type=Type.NUMERIC),
        Column(name="features.word", role=Role.FEATURE, type=Type.CATEGORICAL),
    ]

    def batch(shift: float, words: list[str]) -> pa.RecordBatch:
        return pa.record_batch(
            {
                "features.x": generator.normal(shift, 1, 4_000),
                "features.few": generator.integers(0, 4, 4_000).astype(float),
                "features.word": [words[i % len(words)] for i in range(4_000)],
            }
        )

    before, after = batch(0, ["a", "b"]), batch(1, ["a", "c"])
    layout = plan_layout([before], columns)
    profiles = [kernel.profile_batches([one], layout) for one in (before, after)]

    def numbers(name: str) -> list[charts.Bin]:
        place, (one, other) = layout.columns[name], [profile.columns[name] for profile in profiles]
        assert isinstance(place, NumericLayout)
        assert isinstance(one, NumericProfile)
        assert isinstance(other, NumericProfile)
        return numeric_bins(place, one, other)

    bins = numbers("features.x")
    assert len(bins) == 40
    assert sum(one.baseline for one in bins) == pytest.approx(1)
    assert sum(one.window for one in bins) == pytest.approx(1)
    for share, values in (("baseline", before), ("window", after)):
        drawn = np.array([getattr(one, share) for one in bins])
        edges = [-np.inf, *(one.high for one in bins[:-1]), np.inf]
        exact = np.histogram(values["features.x"].to_numpy(), edges)[0] / 4_000
        assert np.abs(drawn - exact).max() < 0.01  # an open end cell is spread evenly
    few = numbers("features.few")
    assert [one.low + (one.high - one.low) / 2 for one in few] == [0, 1, 2, 3]
    place, one, other = layout.columns["features.word"], *(profile.columns["features.word"] for profile in profiles)
    assert isinstance(place, CategoryLayout)
    assert isinstance(one, CategoryProfile)
    assert isinstance(other, CategoryProfile)
    shares = {each.name: (each.baseline, each.window, each.new) for each in category_shares(place, one, other)}
    assert shares == {"a": (0.5, 0.5, False), "b": (0.5, 0.0, False), "c": (0.0, 0.5, True)}
