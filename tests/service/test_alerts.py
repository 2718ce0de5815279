"""Episodes: open with the first violated result, gather what joins, end when all of it has been quiet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service import alerts
from service.access import Principal, Scope
from service.alerts import Finding
from service.api import alerts as api
from service.clock import SetClock
from service.database import Database
from service.pages import alerts as pages
from service.problems import Conflict
from service.settings import Settings
from service.tables import (
    AlertRow,
    CalendarRow,
    DeliveryRow,
    ModelRow,
    MonitorRow,
    ReplayRow,
    RunRow,
    VersionRow,
    WebhookRow,
)
from service.words import DAY, new_id
from tests.postgres import wait_for_a_lock
from tests.service.asked import Asked
from tests.service.empty import copy_empty

ANN = Principal("ann", frozenset(Scope))
START = datetime(2026, 3, 2, tzinfo=UTC)


def result(feature: str, verdict: str, scale: int = 1, value: float = 0.5) -> dict[str, Any]:
    """Return a deciding result as a document."""
    numbers = {"value": value, "effect": value, "min_effect": 0.1} if verdict != "not_measured" else {}
    return {"metric": "wasserstein", "feature": feature, "scale": scale, "verdict": verdict, **numbers}


@dataclass
class Ward:
    """A model with two monitors, whose daily windows are judged one by one."""

    folder: Path

    def __post_init__(self) -> None:
        self.settings = Settings(data_dir=self.folder, public_url="https://plumbline.test/base")
        copy_empty(self.folder / "plumbline.db")
        self.database = Database(self.settings.database)
        self.clock = SetClock(START + timedelta(hours=1))
        with self.database.writing() as session:
            model = ModelRow(uid=new_id(), name="loans", task="binary", alarm_budget={}, created_at=START)
            session.add(model)
            session.flush()
            version = VersionRow(model_id=model.id, name="v1", created_at=START)
            session.add(version)
            for name in ("data_drift", "prediction_drift"):
                session.add(
                    MonitorRow(
                        uid=new_id(),
                        model_id=model.id,
                        name=name,
                        kind=name,
                        schedule="daily",
                        window="1d",
                        created_at=START,
                    )
                )
            session.add(
                WebhookRow(
                    uid=new_id(), name="hook", url="https://hook.test/", events=["*"], secret=b"", created_at=START
                )
            )

    def judge(
        self, day: int, results: Sequence[Mapping[str, Any]], monitor: str = "data_drift", **more: Any
    ) -> AlertRow | None:
        """Judge a monitor's window of a day; the clock goes to an hour after its end."""
        self.clock.at = START + (day + 1) * DAY + timedelta(hours=1)
        verdicts = [str(found["verdict"]) for found in results]
        with self.database.writing() as session:
            model, version = session.scalars(select(ModelRow)).one(), session.scalars(select(VersionRow)).one()
            watch = session.scalars(select(MonitorRow).where(MonitorRow.name == monitor)).one()
            run = RunRow(
                **{
                    "uid": new_id(),
                    "model_id": model.id,
                    "monitor_id": watch.id,
                    "version_id": version.id,
                    "starts_at": START + day * DAY,
                    "ends_at": START + (day + 1) * DAY,
                    "status": "violations" if "violated" in verdicts else "ok",
                    "judged": True,
                    "rows": 100,
                    "baseline_id": 1,
                    "replayed": False,
                }
                | {key: value for key, value in more.items() if key != "replay"}
            )
            session.add(run)
            session.flush()
            finding = Finding(
                model=model,
                version=version,
                monitor=watch,
                run=run,
                results=results,
                replay=more.get("replay"),
                baseline="reference",
            )
            return alerts.update(session, finding, self.settings, self.clock.now())

    def alert(self) -> AlertRow:
        with self.database.reading() as session:
            return session.scalars(select(AlertRow).order_by(AlertRow.id.desc()).limit(1)).one()

    def alerts(self) -> list[AlertRow]:
        with self.database.reading() as session:
            return list(session.scalars(select(AlertRow).order_by(AlertRow.id)))

    def events(self) -> list[str]:
        with self.database.reading() as session:
            return list(session.scalars(select(DeliveryRow.event).order_by(DeliveryRow.id)))

    def remind(self) -> int:
        with self.database.writing() as session:
            return alerts.repeat(session, self.settings, self.clock.now())


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.database.close()


MOVED = [result("age", "violated"), result("income", "ok")]
QUIET = [result("age", "ok"), result("income", "ok")]


def test_a_quiet_window_opens_nothing(ward: Ward) -> None:
    assert ward.judge(0, QUIET) is None
    assert ward.alerts() == []


def test_the_first_violated_result_opens_an_episode_and_owes_one_call(ward: Ward) -> None:
    ward.judge(0, MOVED)
    alert = ward.alert()
    assert (alert.state, alert.kind, alert.starts_at) == ("open", "episode", START)
    assert ward.events() == ["alert.opened"]
    assert alert.sentence == (
        "1 of 2 inputs of loans v1 moved since 2026-03-02: age (wasserstein 0.5, effect 0.5 of at least 0.1)"
    )


def test_what_stays_violated_is_not_told_again(ward: Ward) -> None:
    for day in range(5):
        ward.judge(day, MOVED)
    assert ward.events() == ["alert.opened"]
    assert len(ward.alerts()) == 1
    assert ward.alert().last_violated_at == START + 5 * DAY


def test_features_and_monitors_join_at_most_once_a_day(ward: Ward) -> None:
    ward.judge(0, MOVED)
    ward.judge(0, [result("score", "violated")], "prediction_drift")
    ward.judge(1, [result("age", "violated"), result("income", "violated")])
    ward.judge(1, [result("score", "violated"), result("prediction", "violated")], "prediction_drift")
    assert ward.events() == ["alert.opened", "alert.updated", "alert.updated"]
    members = ward.alert().members
    assert members["data_drift"]["features"] == ["age", "income"]
    assert members["prediction_drift"]["features"] == ["score", "prediction"]
    # what joined second on that day is held back until a day has passed
    assert ward.remind() == 0
    ward.clock.move(DAY)
    assert ward.remind() == 1
    assert ward.events().count("alert.updated") == 3


def test_what_joins_takes_an_acknowledgement_back(ward: Ward) -> None:
    ward.judge(0, MOVED)
    with ward.database.writing() as session:
        alerts.acknowledge(session, session.scalars(select(AlertRow)).one(), "ann", ward.settings, ward.clock.now())
    assert ward.alert().state == "acknowledged"
    ward.judge(1, MOVED)
    assert ward.alert().state == "acknowledged"
    ward.judge(2, [result("age", "violated"), result("income", "violated")])
    assert ward.alert().state == "open"
    assert ward.alert().acknowledged_by is None


def test_an_episode_ends_after_two_quiet_windows_of_every_monitor_that_joined(ward: Ward) -> None:
    ward.judge(0, MOVED)
    ward.judge(0, [result("score", "violated")], "prediction_drift")
    ward.judge(1, QUIET)
    ward.judge(2, QUIET)
    assert ward.alert().state == "open"
    ward.judge(1, [result("score", "ok")], "prediction_drift")
    ward.judge(2, [result("score", "ok")], "prediction_drift")
    assert (ward.alert().state, ward.alert().resolution) == ("resolved", "recovered")
    assert ward.alert().last_violated_at == START + DAY
    assert ward.events()[-1] == "alert.resolved"


def test_one_quiet_window_between_violated_ones_ends_nothing(ward: Ward) -> None:
    for day, results in enumerate([MOVED, QUIET, MOVED, QUIET]):
        ward.judge(day, results)
    assert ward.alert().state == "open"
    ward.judge(4, QUIET)
    assert ward.alert().state == "resolved"


def test_a_window_that_was_not_measured_is_neither_quiet_nor_violated(ward: Ward) -> None:
    ward.judge(0, MOVED)
    ward.judge(1, QUIET)
    ward.judge(2, [result("age", "not_measured")])
    assert ward.alert().members["data_drift"]["quiet"] == 1
    assert ward.alert().state == "open"


def test_a_longer_scale_that_still_fires_does_not_keep_an_episode_open(ward: Ward) -> None:
    # one broken day: the scale of 7 windows holds it for a week
    late = [result("age", "ok"), result("age", "violated", scale=7)]
    ward.judge(0, MOVED)
    ward.judge(1, late)
    ward.judge(2, late)
    assert ward.alert().state == "resolved"
    assert ward.alert().last_violated_at == START + DAY


def test_a_slow_drift_that_only_a_longer_scale_sees_stays_open_by_that_scale(ward: Ward) -> None:
    slow = [result("age", "ok"), result("age", "violated", scale=28)]
    for day in range(4):
        ward.judge(day, slow)
    assert ward.alert().state == "open"
    assert ward.alert().members["data_drift"]["scale"] == 28
    ward.judge(4, [result("age", "ok"), result("age", "ok", scale=28)])
    ward.judge(5, [result("age", "ok"), result("age", "ok", scale=28)])
    assert ward.alert().state == "resolved"


def test_another_baseline_closes_the_episode_as_rebaselined_never_as_recovery(ward: Ward) -> None:
    ward.judge(0, MOVED)
    ward.judge(1, QUIET, baseline_id=2)
    assert (ward.alert().state, ward.alert().resolution) == ("resolved", "rebaselined")


def test_a_violation_after_the_end_is_another_episode(ward: Ward) -> None:
    for day, results in enumerate([MOVED, QUIET, QUIET, MOVED]):
        ward.judge(day, results)
    assert [alert.state for alert in ward.alerts()] == ["resolved", "open"]
    assert ward.events() == ["alert.opened", "alert.resolved", "alert.opened"]


def test_the_evidence_stays_as_it_was_when_the_episode_opened(ward: Ward) -> None:
    ward.judge(0, MOVED)
    before = ward.alert().evidence
    ward.judge(1, [result("age", "violated", value=9.0), result("income", "violated")])
    assert ward.alert().evidence == before
    assert before["results"] == [MOVED[0]]
    assert before["window"] == {"from": "2026-03-02T00:00:00Z", "to": "2026-03-03T00:00:00Z"}


def test_an_open_alert_is_repeated_every_seven_days_unless_muted(ward: Ward) -> None:
    ward.judge(0, MOVED)
    opened = ward.clock.at
    for day in range(1, 7):
        ward.clock.at = opened + day * DAY
        assert ward.remind() == 0
    ward.clock.at = opened + 7 * DAY
    assert ward.remind() == 1
    assert ward.events() == ["alert.opened", "alert.updated"]
    with ward.database.writing() as session:
        alerts.mute(session.scalars(select(AlertRow)).one(), ward.clock.now() + 10 * DAY, ward.clock.now())
    ward.clock.move(7 * DAY)
    assert ward.remind() == 0
    ward.clock.move(7 * DAY)
    assert ward.remind() == 1


def test_half_of_what_was_judged_makes_it_critical(ward: Ward) -> None:
    ward.judge(0, [result(name, "violated") for name in "ab"] + [result(name, "ok") for name in "cd"])
    assert ward.alert().severity == "critical"


def test_a_replayed_episode_calls_only_the_webhooks_its_replay_names(ward: Ward) -> None:
    with ward.database.writing() as session:
        model = session.scalars(select(ModelRow)).one()
        common = {"model_id": model.id, "starts_at": START, "ends_at": START + 90 * DAY, "opened_at": START}
        session.add(ReplayRow(uid=new_id(), webhooks=[], **common))
        session.flush()
        replay = session.scalars(select(ReplayRow)).one()
    ward.judge(0, MOVED, replayed=True, replay=replay)
    assert ward.alert().replayed
    assert ward.events() == []
    replay.webhooks = ["hook"]
    ward.judge(1, QUIET, replayed=True, replay=replay)
    ward.judge(2, QUIET, replayed=True, replay=replay)
    assert ward.events() == ["alert.resolved"]


def test_a_monitor_s_own_webhooks_are_the_only_ones_called(ward: Ward) -> None:
    with ward.database.writing() as session:
        for monitor in session.scalars(select(MonitorRow)):
            monitor.actions = ["another"]
    ward.judge(0, MOVED)
    assert ward.events() == []


def test_an_episode_that_nobody_watches_any_more_is_closed(ward: Ward) -> None:
    ward.judge(0, MOVED)
    with ward.database.writing() as session:
        session.scalars(select(MonitorRow).where(MonitorRow.name == "data_drift")).one().enabled = False
        assert alerts.settle(session, ward.settings, ward.clock.now()) == 1
    assert (ward.alert().state, ward.alert().resolution) == ("resolved", "unwatched")


def test_what_is_resolved_by_hand_is_resolved_once(ward: Ward) -> None:
    ward.judge(0, MOVED)
    with ward.database.writing() as session:
        alerts.resolve(session, session.scalars(select(AlertRow)).one(), ward.settings, ward.clock.now())
    assert ward.alert().resolution == "manual"
    with ward.database.writing() as session, pytest.raises(Conflict):
        alerts.resolve(session, session.scalars(select(AlertRow)).one(), ward.settings, ward.clock.now())


def test_a_call_links_to_the_public_address(ward: Ward) -> None:
    ward.judge(0, MOVED)
    with ward.database.reading() as session:
        body = session.scalars(select(DeliveryRow.body)).one()
    assert f'"alert":"https://plumbline.test/base/alerts/{ward.alert().uid}"' in body


def plan(ward: Ward, effect: str, first: int, days: int, title: str = "The price list changes") -> None:
    """Plan a change of some days."""
    with ward.database.writing() as session:
        session.add(
            CalendarRow(
                uid=new_id(),
                title=title,
                effect=effect,
                starts_at=START + first * DAY,
                ends_at=START + (first + days) * DAY,
                created_by="ann",
                created_at=START,
            )
        )


def test_a_planned_change_is_named_in_what_it_explains(ward: Ward) -> None:
    plan(ward, "annotate", 0, 1)
    ward.judge(0, MOVED)
    assert ward.alert().evidence["planned"] == ["The price list changes"]
    assert ward.events() == ["alert.opened"]
    with ward.database.reading() as session:
        assert '"planned":["The price list changes"]' in session.scalars(select(DeliveryRow.body)).one()


def test_what_a_suppressing_change_explains_is_kept_and_not_told(ward: Ward) -> None:
    plan(ward, "suppress", 0, 2)
    ward.judge(0, MOVED)
    ward.judge(1, [result("age", "violated"), result("income", "violated")])
    assert ward.alert().held
    ward.judge(2, QUIET)
    ward.judge(3, QUIET)
    assert ward.alert().state == "resolved"
    assert ward.events() == []


def test_what_outlasts_a_suppressing_change_is_told_then(ward: Ward) -> None:
    plan(ward, "suppress", 0, 2)
    ward.judge(0, MOVED)
    ward.judge(1, MOVED)
    ward.clock.move(30 * DAY)
    assert ward.remind() == 0
    ward.judge(2, MOVED)
    assert not ward.alert().held
    assert ward.events() == ["alert.opened"]
    ward.judge(3, QUIET)
    ward.judge(4, QUIET)
    assert ward.events() == ["alert.opened", "alert.resolved"]


def test_an_acknowledgement_is_told_once(ward: Ward) -> None:
    ward.judge(0, MOVED)
    with ward.database.writing() as session:
        for _ in range(2):
            row = session.scalars(select(AlertRow)).one()
            alerts.acknowledge(session, row, "ann", ward.settings, ward.clock.now())
    assert ward.events() == ["alert.opened", "alert.acknowledged"]


WAYS: Mapping[str, Callable[[Asked, str], object]] = {
    "api": lambda asked, uid: api.acknowledge(uid, asked, ANN),  # type: ignore[arg-type]  # the parts that it uses
    "page": lambda asked, uid: pages.act(asked, ANN, uid, "acknowledge", {}),  # type: ignore[arg-type]  # as above
}


@pytest.mark.postgres
@pytest.mark.parametrize("way", ["api", pytest.param("page", marks=pytest.mark.long)])
def test_an_acknowledgement_that_meets_the_end_of_an_episode_does_not_open_it_again(
    tmp_path: Path, postgres_url: str, way: str
) -> None:
    asked = Asked(tmp_path, postgres_url)
    asked.judge([0])
    asked.judge([1], performance="ok")
    (episode,) = asked.episodes()
    with ThreadPoolExecutor(1) as pool:
        with asked.database.writing() as session:
            asked.judge_one(session, "performance", 2, "ok")  # the second quiet window, not committed yet
            session.flush()
            acknowledged = pool.submit(WAYS[way], asked, episode.uid)
            wait_for_a_lock(asked.database, acknowledged.done)
        with pytest.raises(Conflict):
            acknowledged.result()
    (episode,) = asked.episodes()
    assert (episode.state, episode.resolution, episode.acknowledged_by) == ("resolved", "recovered", None)
    asked.database.close()


@pytest.mark.postgres
def test_of_two_processes_that_repeat_an_open_alert_one_does(tmp_path: Path, postgres_url: str) -> None:
    asked = Asked(tmp_path, postgres_url)
    with asked.database.writing() as session:
        session.scalars(select(WebhookRow)).one().events = ["*"]
    asked.judge([0])
    asked.clock.move(7 * DAY)
    with asked.database.writing() as session:
        assert alerts.repeat(session, asked.settings, asked.clock.now()) == 1
        with asked.database.writing() as other:
            assert alerts.repeat(other, asked.settings, asked.clock.now()) == 0
    with asked.database.reading() as session:
        told = session.scalars(select(DeliveryRow.event).order_by(DeliveryRow.id)).all()
    assert told == ["alert.opened", "alert.updated"]
    asked.database.close()


def test_causes_are_ranked_by_how_far_they_are_past_their_limits_and_by_what_the_model_heeds(ward: Ward) -> None:
    ward.judge(0, [result("age", "violated", value=0.2), result("income", "violated", value=0.9)])
    assert [(one.subject, round(one.times, 6)) for one in alerts.causes(ward.alert())] == [("income", 9), ("age", 2)]
    # 2 times the limit of what makes 0.9 of the prediction is more than 9 times of what makes 0.1
    assert [one.subject for one in alerts.causes(ward.alert(), {"age": 0.9, "income": 0.1})] == ["age", "income"]


def test_comments_stay_in_order_under_their_authors(ward: Ward) -> None:
    ward.judge(0, MOVED)
    with ward.database.writing() as session:
        row = session.scalars(select(AlertRow)).one()
        for who, text in (("ann", "the campaign"), ("bob", "it ends on Friday")):
            alerts.comment(session, row, who, text, ward.clock.now())
    with ward.database.reading() as session:
        found = alerts.comments(session, ward.alert())
    assert [(one.author, one.text) for one in found] == [("ann", "the campaign"), ("bob", "it ends on Friday")]
