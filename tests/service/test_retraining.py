"""Retraining: one request in an episode whatever happens, more only after failures, none on data not to be trusted."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service import retraining
from service.access import check_link
from service.problems import Conflict, KeyMissing
from service.settings import Settings
from service.tables import (
    AlertRow,
    CalendarRow,
    DeliveryRow,
    ModelRow,
    RetrainingPolicyRow,
    RetrainingRow,
    VersionRow,
    WebhookRow,
)
from service.webhooks import CALLBACK, TRAINING_DATA, Sender
from service.words import DAY, HOUR, derived_id, new_id
from tests.receiver import Receiver
from tests.service.asked import SECRET, START, Asked


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Asked]]:
    made: list[Asked] = []

    def make(**policy: Any) -> Asked:
        made.append(Asked(tmp_path / str(len(made)), policy=policy))
        return made[-1]

    yield make
    for one in made:
        one.database.close()


@pytest.fixture
def asked(make: Callable[..., Asked]) -> Asked:
    return make()


# --- a thousand violated windows of one version -----------------------------------------------------------------------

so_many = pytest.mark.parametrize(("hours", "cooldown"), [(20, "6h"), pytest.param(1000, "7d", marks=pytest.mark.long)])


@so_many
def test_violated_windows_ask_once_where_the_receiver_stays_silent(
    make: Callable[..., Asked], hours: int, cooldown: str
) -> None:
    asked = make(cooldown=cooldown, deadline="12h")
    asked.judge(range(hours))
    (row,) = asked.asked()
    assert (row.state, row.attempt) == ("expired", 1)
    assert len(asked.calls()) == 1
    assert len(asked.episodes()) == 1


@so_many
@pytest.mark.parametrize("state", ["running", "succeeded"])
def test_violated_windows_ask_once_where_the_receiver_reports(
    make: Callable[..., Asked], hours: int, cooldown: str, state: str
) -> None:
    asked = make(cooldown=cooldown, deadline="12h")
    asked.judge(range(hours), reported=state)
    (row,) = asked.asked()
    assert row.state == ("succeeded" if state == "succeeded" else "expired")
    assert len(asked.calls()) == 1


@so_many
def test_each_failure_lets_one_more_be_asked_for_per_cool_down(
    make: Callable[..., Asked], hours: int, cooldown: str
) -> None:
    # the second window is the first of two in three: of 1000 hours 998 are left, 5 whole cool-downs of 168 hours
    asked = make(cooldown=cooldown, at_most={"per": "3h", "times": 1})
    asked.judge(range(hours), reported="failed")
    rows = asked.asked()
    number = len(rows)
    assert number == {20: 1 + 18 // 6, 1000: 1 + 998 // 168}[hours] == {20: 4, 1000: 6}[hours]
    (episode,) = asked.episodes()
    assert [row.attempt for row in rows] == list(range(1, number + 1))
    assert {row.alert_id for row in rows} == {episode.id}
    assert [row.uid for row in rows] == [derived_id("retraining", episode.uid, n + 1) for n in range(number)]
    bodies = [json.loads(call.body)["data"] for call in asked.calls()]
    assert [(body["attempt"], body["episode"]) for body in bodies] == [(n + 1, episode.uid) for n in range(number)]
    assert len({call.uid for call in asked.calls()}) == number


@pytest.mark.parametrize("hours", [28, pytest.param(1000, marks=pytest.mark.long)])
def test_the_cap_holds_where_the_cool_down_is_short(make: Callable[..., Asked], hours: int) -> None:
    # from hour 1 on: hours 24k and 24k + 1 after it; of 998 hours k = 0 to 41, of 26 k = 0 and 1
    asked = make(cooldown="1h", at_most={"per": "1d", "times": 2})
    asked.judge(range(hours), reported="failed")
    assert len(asked.asked()) == {28: 4, 1000: 84}[hours]
    assert asked.most_within(DAY) == 2


def test_a_new_active_version_that_drifts_too_asks_once_more(make: Callable[..., Asked]) -> None:
    asked = make(cooldown="6h", at_most={"per": "6h", "times": 1})
    asked.judge(range(8), reported="succeeded")
    asked.activate("v2")
    asked.judge(range(8, 20), reported="succeeded")
    rows = asked.asked()
    assert [row.attempt for row in rows] == [1, 1]
    assert len({row.alert_id for row in rows}) == 2
    assert len({row.version_id for row in rows}) == 2


@so_many
def test_a_broken_feed_asks_for_none(asked: Asked, hours: int, cooldown: str) -> None:
    asked.judge(range(hours // 2), quality="violated")
    asked.judge(range(hours // 2, hours), quality="violated", quality_first=False)
    assert asked.asked() == [], cooldown
    assert asked.calls() == []


def test_windows_of_a_broken_feed_do_not_count_after_it_was_mended(asked: Asked) -> None:
    asked.judge(range(10), quality="violated")
    asked.judge([10])
    assert asked.asked() == []
    asked.judge([11])
    assert len(asked.asked()) == 1


def test_windows_asked_for_ahead_of_their_look_push_no_judged_one_out(make: Callable[..., Asked]) -> None:
    asked = make(when={"monitors": ["performance"], "windows": "1 of 1"})
    with asked.database.writing() as session:
        for hour in (1, 2, 3):  # of these an operator knows already that they are quiet
            asked.judge_one(session, "performance", hour, "ok", ahead=True)
    asked.judge([0])
    assert len(asked.asked()) == 1


def test_data_that_nobody_has_looked_at_are_not_trusted(asked: Asked) -> None:
    asked.judge(range(5), quality=None)
    assert asked.asked() == []
    assert asked.held() == "data_quality has not judged this window yet"
    asked.judge(range(5, 10), quality="not_measured")
    assert asked.asked() == []
    assert asked.held() == "data_quality is insufficient data"


def test_a_guard_that_is_judged_after_the_window_lets_it_pass_then(asked: Asked) -> None:
    asked.judge([0, 1], quality_first=False)
    assert len(asked.asked()) == 1


# --- when -------------------------------------------------------------------------------------------------------------


def test_without_a_policy_nothing_is_asked_for(asked: Asked) -> None:
    with asked.database.writing() as session:
        session.delete(session.scalars(select(RetrainingPolicyRow)).one())
    asked.judge(range(10))
    assert asked.asked() == []


def test_one_violated_window_is_not_two_of_three(asked: Asked) -> None:
    asked.judge([0])
    asked.judge([1, 2], performance="ok")
    asked.judge([3])
    assert asked.asked() == []
    asked.judge([4])
    assert len(asked.asked()) == 1


def test_drift_that_the_policy_does_not_name_asks_for_none(make: Callable[..., Asked]) -> None:
    asked = make(when={"monitors": ["data_quality"], "windows": "2 of 3"}, not_while=[])
    asked.judge(range(6))
    assert asked.asked() == []


def test_too_few_labels_are_waited_for(make: Callable[..., Asked]) -> None:
    asked = make(min_labelled_rows=100)
    asked.label(0, 60)
    asked.judge(range(5))
    assert asked.asked() == []
    assert asked.held() == "60 of at least 100 labelled rows are there"
    asked.label(1, 40)
    asked.judge([5])
    assert len(asked.asked()) == 1


def test_a_version_that_is_not_the_active_one_asks_for_none(asked: Asked) -> None:
    with asked.database.writing() as session:
        model, version = session.scalars(select(ModelRow)).one(), session.scalars(select(VersionRow)).one()
        asked.clock.at = START + 10 * HOUR
        for hour in range(5):
            for name, verdict in (("data_quality", "ok"), ("performance", "violated")):
                asked.judge_one(session, name, hour, verdict, version)
            model.active_version_id = None
    assert len(asked.episodes()) == 1
    assert asked.asked() == []


def test_another_episode_waits_for_the_cool_down(make: Callable[..., Asked]) -> None:
    asked = make(cooldown="12h", at_most={"per": "1h", "times": 1})
    asked.judge(range(3), reported="succeeded")
    asked.judge(range(3, 5), performance="ok")
    asked.judge(range(5, 10), reported="succeeded")
    assert len(asked.episodes()) == 2
    assert len(asked.asked()) == 1
    assert asked.held() == "the cool-down lasts until 2026-03-02T15:00:00Z"
    asked.judge(range(10, 16), reported="succeeded")
    assert len(asked.asked()) == 2


def test_while_one_is_under_way_another_episode_asks_for_none(make: Callable[..., Asked]) -> None:
    asked = make(cooldown="1h", at_most={"per": "1d", "times": 9}, deadline="90d")
    asked.judge(range(3))
    asked.judge(range(3, 5), performance="ok")
    asked.judge(range(5, 15))
    assert len(asked.asked()) == 1
    assert asked.held() == "another retraining is requested"


def test_evidence_and_reason_say_why(asked: Asked) -> None:
    asked.judge([0, 1])
    (row,) = asked.asked()
    assert row.reason == (
        "performance of loans v1 was violated in 2 of its last 2 windows, up to 2026-03-02T02:00:00Z: "
        "accuracy (0.5, effect 0.3 of at least 0.1)"
    )
    assert [window["from"] for window in row.evidence["windows"]] == ["2026-03-02T00:00:00Z", "2026-03-02T01:00:00Z"]
    assert row.training == {"from": "2025-12-02T02:00:00Z", "to": "2026-03-02T02:00:00Z"}


@pytest.mark.parametrize("many", [20, pytest.param(100, marks=pytest.mark.long)])
def test_a_call_names_the_newest_of_many_windows_and_the_request_all_of_them(
    make: Callable[..., Asked], many: int
) -> None:
    asked = make(when={"monitors": ["performance"], "windows": f"{many} of {many}"})
    asked.judge(range(many))
    (row,) = asked.asked()
    with asked.database.reading() as session:
        body = session.scalars(select(DeliveryRow)).one().body
    told = json.loads(body)["data"]["evidence"]
    assert (len(row.evidence["windows"]), told["violated"], told["looked_at"]) == (many, many, many)
    assert told["windows"] == row.evidence["windows"][-10:]
    assert len(body.encode()) < 20_000


# --- exactly once, whatever crashes -----------------------------------------------------------------------------------


def test_a_run_that_is_lost_takes_its_request_along_and_its_repeat_has_the_same_id(asked: Asked) -> None:
    asked.judge([0])

    def crash() -> None:
        with asked.database.writing() as session:
            asked.clock.at = START + 3 * HOUR
            asked.judge_one(session, "data_quality", 1, "ok")
            row = asked.judge_one(session, "performance", 1, "violated")
            assert row is not None
            uids.append(row.uid)
            raise RuntimeError("the process ends here")

    uids: list[str] = []
    with pytest.raises(RuntimeError):
        crash()
    assert asked.asked() == []
    assert asked.calls() == []
    asked.judge([1])
    assert [row.uid for row in asked.asked()] == uids
    assert len(asked.calls()) == 1


@pytest.mark.postgres
def test_processes_that_judge_the_same_moment_ask_once(tmp_path: Path, postgres_url: str) -> None:
    asked = Asked(tmp_path, postgres_url)
    asked.judge([0])
    barrier = threading.Barrier(2)

    def judge(name: str, verdict: str) -> None:
        barrier.wait()
        with asked.database.writing() as session:
            asked.judge_one(session, name, 1, verdict)

    asked.clock.at = START + 3 * HOUR
    threads = [
        threading.Thread(target=judge, args=pair) for pair in (("data_quality", "ok"), ("performance", "violated"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked.asked()) == 1
    asked.database.close()


# --- states -----------------------------------------------------------------------------------------------------------

FINAL = ("succeeded", "failed", "expired", "rejected", "cancelled")


def the_one(asked: Asked) -> str:
    asked.judge([0, 1])
    return asked.asked()[0].uid


def put(asked: Asked, uid: str, state: str) -> bool:
    with asked.database.writing() as session:
        row = session.scalars(select(RetrainingRow).where(RetrainingRow.uid == uid)).one()
        return retraining.move(session, row, state, "test", asked.settings, asked.clock.now())


@pytest.mark.parametrize("way", [("accepted", "running", "succeeded"), ("running", "failed"), ("succeeded",)])
def test_a_receiver_moves_forward_and_repeats_change_nothing(asked: Asked, way: tuple[str, ...]) -> None:
    uid = the_one(asked)
    for state in way:
        assert put(asked, uid, state)
        assert not put(asked, uid, state)
    assert [line["state"] for line in asked.asked()[0].log] == ["requested", *way]


@pytest.mark.parametrize("final", FINAL)
def test_what_is_over_cannot_go_on(asked: Asked, final: str) -> None:
    uid = the_one(asked)
    with asked.database.writing() as session:
        session.scalars(select(RetrainingRow)).one().state = final
    for state in {*FINAL, "requested", "accepted", "running"} - {final}:
        with pytest.raises(Conflict):
            put(asked, uid, state)


def test_running_does_not_become_accepted_again(asked: Asked) -> None:
    uid = the_one(asked)
    put(asked, uid, "running")
    with pytest.raises(Conflict):
        put(asked, uid, "accepted")


def test_each_report_begins_the_deadline_anew_and_silence_ends_it(asked: Asked) -> None:
    uid = the_one(asked)
    asked.clock.move(20 * HOUR)
    put(asked, uid, "running")
    asked.clock.move(20 * HOUR)
    with asked.database.writing() as session:
        assert retraining.expire(session, asked.settings, asked.clock.now()) == 0
    asked.clock.move(4 * HOUR)
    with asked.database.writing() as session:
        assert retraining.expire(session, asked.settings, asked.clock.now()) == 1
    assert asked.asked()[0].state == "expired"
    with pytest.raises(Conflict):
        put(asked, uid, "succeeded")


def test_with_approval_nobody_is_called_until_somebody_approves(make: Callable[..., Asked]) -> None:
    asked = make(approval="manual")
    asked.judge(range(30))
    (row,) = asked.asked()
    assert (row.state, row.deadline_at) == ("awaiting_approval", None)
    assert asked.calls() == []
    with asked.database.writing() as session:
        held = session.scalars(select(RetrainingRow)).one()
        retraining.approve(session, held, "ann", asked.settings, asked.clock.now())
        retraining.approve(session, held, "ann", asked.settings, asked.clock.now())
    assert [call.event for call in asked.calls()] == ["retraining.requested"]
    assert asked.asked()[0].log[-1]["by"] == "ann"


def test_what_was_rejected_is_not_asked_for_again_in_its_episode(make: Callable[..., Asked]) -> None:
    asked = make(approval="manual", cooldown="3h", at_most={"per": "1h", "times": 1})
    asked.judge([0, 1])
    put(asked, asked.asked()[0].uid, "rejected")
    asked.judge(range(2, 20))
    assert [row.state for row in asked.asked()] == ["rejected"]
    assert asked.calls() == []


@pytest.mark.parametrize("final", ["failed", "expired", "rejected", "cancelled"])
def test_a_retry_by_hand_is_a_new_attempt_at_once_and_only_one(asked: Asked, final: str) -> None:
    the_one(asked)
    with asked.database.writing() as session:
        row = session.scalars(select(RetrainingRow)).one()
        with pytest.raises(Conflict):
            retraining.retry(session, row, "ann", asked.settings, asked.clock.now())
        row.state = final
        session.flush()
        made = retraining.retry(session, row, "ann", asked.settings, asked.clock.now())
        again = retraining.retry(session, row, "ann", asked.settings, asked.clock.now())
        assert made.uid == again.uid
    assert [(row.attempt, row.state) for row in asked.asked()] == [(1, final), (2, "requested")]
    assert asked.asked()[1].evidence == asked.asked()[0].evidence
    assert len(asked.calls()) == 2


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_links_get_their_tokens_when_they_are_sent_and_are_kept_without(asked: Asked, receiver: Receiver) -> None:
    asked.judge([0, 1])
    asked.clock.at = datetime.now(UTC)
    with asked.database.writing() as session:
        session.scalars(select(WebhookRow)).one().url = receiver.url
    settings = Settings.model_validate(
        {"data_dir": asked.folder, "outbound_allow": ("127.0.0.1",), "outbound_http": True}
    )
    sender = Sender(asked.database, asked.clock, settings, SECRET)
    with asked.database.writing() as session:
        session.scalars(select(DeliveryRow)).one().next_at = asked.clock.now()
    assert sender.send_all_due() == 1
    sender.close()
    (event,) = receiver.events("whsec_c2VjcmV0")
    data, uid = event["data"], asked.asked()[0].uid
    assert data["retraining"] == uid
    assert data["baseline"] == "reference"
    now = asked.clock.now()
    for member, purpose, days in (("training_data_url", TRAINING_DATA, 7), ("callback_url", CALLBACK, 90)):
        address, _, token = data[member].partition("?token=")
        assert address.startswith(f"https://plumbline.test/v1/retrainings/{uid}/")
        check_link(SECRET, purpose, uid, token, now + timedelta(days=days) - timedelta(seconds=1))
        over = now + timedelta(days=days)
        for about, subject, given, at in (
            (purpose, uid, token, over),
            (purpose, "0" * 32, token, now),
            ("other", uid, token, now),
            (purpose, uid, token[:-1], now),
            (purpose, uid, "9" + token, now),
        ):
            with pytest.raises(KeyMissing):
                check_link(SECRET, about, subject, given, at)
        assert token not in asked.calls()[0].body
    assert "token" not in asked.calls()[0].body


# --- the candidate ----------------------------------------------------------------------------------------------------


def test_a_candidate_is_promoted_and_rolled_back(asked: Asked) -> None:
    uid = the_one(asked)
    with asked.database.writing() as session:
        row, model = session.scalars(select(RetrainingRow)).one(), session.scalars(select(ModelRow)).one()
        with pytest.raises(Conflict):
            retraining.promote(session, row, "ann", asked.settings, asked.clock.now())
        session.add(VersionRow(model_id=model.id, name="v2", created_at=START))
        session.flush()
        retraining.report(session, row, "succeeded", asked.settings, asked.clock.now(), version="v2")
        before = model.active_version_id
        assert retraining.promote(session, row, "ann", asked.settings, asked.clock.now())
        assert not retraining.promote(session, row, "ann", asked.settings, asked.clock.now())
        assert model.active_version_id == row.candidate_id
        assert (session.scalars(select(AlertRow)).one().resolution) == "replaced"
        assert retraining.roll_back(session, row, "ann", asked.clock.now())
        assert not retraining.roll_back(session, row, "ann", asked.clock.now())
        assert model.active_version_id == before
    states = [line["state"] for line in asked.asked()[0].log]
    assert states == ["requested", "succeeded", "promoted", "rolled_back"]
    assert asked.asked()[0].uid == uid


def test_a_planned_change_that_explains_the_episode_keeps_it_from_asking(asked: Asked) -> None:
    with asked.database.writing() as session:
        session.add(
            CalendarRow(
                uid=new_id(),
                title="A migration",
                effect="suppress",
                starts_at=START,
                ends_at=START + 3 * HOUR,
                created_by="ann",
                created_at=START,
            )
        )
    asked.judge([0, 1, 2])
    assert asked.asked() == []
    assert asked.held() == "a planned change explains the episode so far"
    asked.judge([3])
    assert len(asked.asked()) == 1
