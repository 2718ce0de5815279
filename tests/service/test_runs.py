"""Runs: each window once, judged once, whatever dies, comes late or never comes."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service import baselines, runs
from service.clock import SetClock
from service.runs import Due, claimed, decode_results, execute, record
from service.scheduler import Scheduler
from service.tables import (
    BaselineRow,
    ExclusionRow,
    ModelRow,
    ModelStatusRow,
    MonitorRow,
    ReplayRow,
    ResultRow,
    RunRow,
    VersionRow,
    WebhookRow,
)
from service.words import UNFINISHED, Span, new_id
from tests.postgres import wait_for_a_lock
from tests.running import PATIENCE
from tests.service.watched import Watched, begun_often, day, hours


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.database.close()


def hook(shop: Watched) -> None:
    """Subscribe to everything."""
    with shop.database.writing() as session:
        session.add(
            WebhookRow(
                uid=new_id(), name="hook", url="https://hook.test/", events=["*"], secret=b"", created_at=shop.clock.at
            )
        )


def test_each_day_is_run_once_and_in_order(shop: Watched) -> None:
    shop.stream(0, 24 * 5)
    shop.at_hour(24 * 4 + 1)  # the fifth day is not over
    assert shop.run() == 4
    assert shop.run() == 0
    found = shop.runs()
    assert [run.starts_at for run in found] == [day(number).start for number in range(4)]
    assert {run.status for run in found} == {"ok"}
    assert all(run.rows == 72 and run.judged and run.revision == 1 for run in found)


def test_a_window_is_due_when_its_lateness_has_passed(shop: Watched) -> None:
    shop.stream(0, 24)
    shop.at_hour(24)
    assert shop.run() == 0
    shop.clock.move(timedelta(hours=1))
    assert shop.run() == 1


@pytest.mark.parametrize(
    ("schedule", "window", "expected"),
    [
        ("weekly", "7d", [(0, 168), (168, 336)]),
        # Wednesdays and Saturdays at 06:00 of the two weeks that begin on a Monday: days 2, 5, 9 and 12
        ("0 6 * * wed,sat", "1d", [(30, 54), (102, 126), (198, 222), (270, 294)]),
    ],
)
def test_a_monitor_runs_by_the_week_or_by_a_cron_line(
    tmp_path: Path, schedule: str, window: str, expected: list[tuple[int, int]]
) -> None:
    shop = Watched(tmp_path, schedule=schedule, window=window)
    assert day(0).start.weekday() == 0
    for first in range(0, 24 * 14, 24):
        shop.stream(first, first + 24)
    shop.at_hour(24 * 14)
    shop.run()
    assert [(run.starts_at, run.ends_at) for run in shop.runs()] == [
        (hours(*pair).start, hours(*pair).end) for pair in expected if pair[1] < 24 * 14
    ]
    shop.at_hour(24 * 14 + 1)
    shop.run()
    assert [(run.starts_at, run.ends_at) for run in shop.runs()] == [
        (hours(*pair).start, hours(*pair).end) for pair in expected
    ]
    assert {run.status for run in shop.runs()} == {"ok"}
    shop.database.close()


def test_a_shift_is_found_told_once_and_ends_when_it_is_over(shop: Watched) -> None:
    hook(shop)
    shop.stream(0, 24 * 4)
    shop.stream(24 * 4, 24 * 8, shift=1.0)
    shop.stream(24 * 8, 24 * 11)
    shop.at_hour(24 * 11 + 1)
    shop.run()
    status = [run.status for run in shop.runs()]
    assert status[:4] == ["ok"] * 4
    assert status[4:8] == ["violations"] * 4
    (alert,) = shop.alerts()
    assert (alert.starts_at, alert.last_violated_at) == (day(4).start, day(8).start)
    assert (alert.state, alert.resolution) == ("resolved", "recovered")
    assert shop.events()[0] == "alert.opened"
    assert shop.events()[-1] == "alert.resolved"


def test_a_result_is_stored_with_all_that_it_says(shop: Watched) -> None:
    shop.stream(0, 24, shift=1.0)
    shop.at_hour(25)
    shop.run()
    (run,) = shop.runs()
    document = next(found for found in decode_results(run.document) if found.get("feature") == "age")
    assert document["metric"] == "wasserstein"
    assert document["verdict"] == "violated"
    assert document["rule"] == "budget"
    assert {"value", "p_value", "effect", "min_effect", "alpha", "n_window", "n_baseline", "direction"} <= set(document)
    with shop.database.reading() as session:
        rows = session.scalars(select(ResultRow).where(ResultRow.run_id == run.id)).all()
        status = session.scalars(select(ModelStatusRow)).one()
    assert sorted(str(row.feature) for row in rows) == ["age", "job"]
    assert (status.status, status.violated, status.run_uid) == ("violations", run.violated, run.uid)
    assert run.alpha == pytest.approx(1 / 30)


def test_the_same_inputs_give_the_same_numbers(tmp_path: Path) -> None:
    documents = []
    for name in ("one", "two"):
        shop = Watched(tmp_path / name)
        shop.stream(0, 48, shift=0.2)
        shop.at_hour(49)
        shop.run()
        documents.append([decode_results(run.document) for run in shop.runs()])
        shop.database.close()
    assert documents[0] == documents[1]


# --- exactly once -----------------------------------------------------------------------------------------------------


def counted(shop: Watched) -> dict[str, int]:
    """Return how many runs and results there are, and how many windows."""
    with shop.database.reading() as session:
        windows = session.scalar(
            select(func.count()).select_from(select(RunRow.monitor_id, RunRow.starts_at).distinct().subquery())
        )
        return {
            "windows": int(windows or 0),
            "runs": int(session.scalar(select(func.count()).select_from(RunRow)) or 0),
            "results": int(session.scalar(select(func.count()).select_from(ResultRow)) or 0),
        }


def test_four_schedulers_run_each_window_once(shop: Watched) -> None:
    several_schedulers(shop)


@pytest.mark.long
@pytest.mark.postgres
def test_four_schedulers_run_each_window_once_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    shop = Watched(tmp_path, url=postgres_url)
    several_schedulers(shop)
    shop.database.close()


def several_schedulers(shop: Watched) -> None:
    """Let four schedulers work side by side on eight days, and count what came of it."""
    hook(shop)
    shop.stream(0, 24 * 4)
    shop.stream(24 * 4, 24 * 8, shift=1.0)
    shop.at_hour(24 * 8 + 1)
    schedulers = [shop.scheduler, *(shop.another() for _ in range(3))]

    def work(number: int) -> None:
        for _ in range(8):
            schedulers[number].run_model(shop.model_id, limit=2)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shop.run()
    assert counted(shop) == {"windows": 8, "runs": 8, "results": shop_results(shop)}
    assert len(shop.alerts()) == 1
    assert shop.events().count("alert.opened") == 1


def side_by_side(shop: Watched, first: Due, second: Due, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two runs measured, then written down at once: the second begins to write before the first has committed."""
    measurement, follow = runs.measurement, runs.follow
    begun, written = threading.Event(), threading.Event()

    def measured(workshop: runs.Workshop, due: Due, claim: runs.Claim) -> runs.Measured:
        found = measurement(workshop, due, claim)
        if due is second:
            begun.set()
            assert written.wait(PATIENCE)
        return found

    def followed(session: Session, workshop: runs.Workshop, due: Due, *found: Any) -> None:
        follow(session, workshop, due, *found)
        if due is first:
            written.set()
            wait_for_a_lock(shop.database, later.done)

    with monkeypatch.context() as interposed, ThreadPoolExecutor(2) as pool:
        interposed.setattr(runs, "measurement", measured)
        interposed.setattr(runs, "follow", followed)
        later = pool.submit(execute, shop.scheduler._workshop, second)
        assert begun.wait(PATIENCE)
        found = execute(shop.scheduler._workshop, first)
        written.set()
        assert found is not None
        assert later.result() is not None


def due_now(shop: Watched) -> list[Due]:
    """Return the next window of each monitor, in the order in which they were made."""
    shop.seal()
    scheduler = shop.scheduler
    with shop.database.reading() as session:
        watches = scheduler._watches(session, shop.model_id, scheduler._watermark(shop.model_id))
        found = [scheduler._next_of(session, watch) for watch in watches]
    return sorted((due for due in found if isinstance(due, Due)), key=lambda due: due.monitor.id)


@pytest.mark.postgres
def test_monitors_that_find_something_at_the_same_moment_share_one_episode(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Watched(tmp_path, url=postgres_url, kinds=("data_drift", "prediction_drift"))
    hook(shop)
    shop.stream(0, 24, shift=1.0)
    shop.at_hour(25)
    first, second = due_now(shop)
    side_by_side(shop, first, second, monkeypatch)
    assert [run.status for run in shop.runs()] == ["violations"] * 2
    (episode,) = shop.alerts()
    assert set(episode.members) == {"data_drift", "prediction_drift"}
    assert shop.events().count("alert.opened") == 1
    shop.database.close()


@pytest.mark.postgres
def test_windows_of_one_monitor_that_end_at_the_same_moment_leave_the_newest_as_its_standing(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Watched(tmp_path, url=postgres_url)
    shop.stream(0, 24 * 2)
    shop.at_hour(24 * 2 + 1)
    shop.seal()
    asked_for(shop, day(0))
    asked_for(shop, day(1))
    with shop.database.reading() as session:
        older, newer = shop.scheduler._unfinished(session, shop.model_id, backfill=True)
    side_by_side(shop, newer, older, monkeypatch)
    assert [run.status for run in shop.runs()] == ["ok"] * 2
    with shop.database.reading() as session:
        status = session.scalars(select(ModelStatusRow)).one()
    assert status.ends_at == day(1).end
    shop.database.close()


@pytest.mark.postgres
def test_a_window_s_turn_and_what_was_asked_for_judge_it_once_though_they_end_at_the_same_moment(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Watched(tmp_path, url=postgres_url)
    hook(shop)
    shop.stream(0, 24, shift=1.0)
    shop.at_hour(25)
    (turn,) = due_now(shop)
    asked_for(shop, day(0), alert=True)
    with shop.database.reading() as session:
        (asked,) = shop.scheduler._unfinished(session, shop.model_id, backfill=True)
    side_by_side(shop, asked, turn, monkeypatch)
    assert [(run.revision, run.status, run.judged, run.current) for run in shop.runs()] == [
        (1, "violations", True, False),
        (2, "violations", False, True),
    ]
    assert len(shop.alerts()) == 1
    assert shop.events().count("alert.opened") == 1
    shop.database.close()


def shop_results(shop: Watched) -> int:
    """Return how many deciding results the runs' documents hold."""
    documents = [found for run in shop.runs() for found in decode_results(run.document)]
    return sum(1 for found in documents if found["decides"] and found["verdict"] is not None)


def _work(folder: str, at: datetime) -> None:
    """Run what is due, over and over, until killed."""
    shop = Watched(Path(folder), clock=SetClock(at), made=True)
    while True:
        shop.scheduler.run_model(shop.model_id, limit=2)


@pytest.mark.parametrize("kills", [4, pytest.param(8, marks=pytest.mark.long)])
def test_kills_at_any_moment_leave_each_window_run_once_and_equal_to_a_clean_run(tmp_path: Path, kills: int) -> None:
    shop = Watched(tmp_path / "killed")
    hook(shop)
    days = 3 * kills
    shop.stream(0, 12 * days)
    shop.stream(12 * days, 24 * days, shift=1.0)
    at = shop.at_hour(24 * days + 1)
    shop.database.close()
    shutil.copytree(tmp_path / "killed", tmp_path / "clean")
    clean = Watched(tmp_path / "clean", clock=SetClock(at), made=True)
    clean.run()

    again = Watched(tmp_path / "killed", clock=SetClock(at), made=True)
    again.database.close()
    context = multiprocessing.get_context("fork")
    for number in range(kills):
        process = context.Process(target=_work, args=(str(tmp_path / "killed"), at), daemon=True)
        process.start()
        time.sleep(0.2 + 0.13 * number)
        while begun_often(again.settings.database):
            time.sleep(0.1)
        if process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    again.run()

    def story(of: Watched) -> list[tuple[Any, ...]]:
        return [
            (run.starts_at, run.revision, run.status, run.judged, decode_results(run.document)) for run in of.runs()
        ]

    assert story(again) == story(clean)
    assert counted(again) == counted(clean)
    assert [alert.uid for alert in again.alerts()] == [alert.uid for alert in clean.alerts()]
    assert again.events() == clean.events()
    again.database.close()
    clean.database.close()


def due_of(shop: Watched, number: int) -> runs.Due:
    """Return a day as it is due."""
    shop.seal()
    with shop.database.reading() as session:
        (watch,) = shop.scheduler._watches(session, shop.model_id, shop.clock.now())
        return watch.due(day(number))


def test_what_a_stalled_attempt_writes_late_is_fenced_off(shop: Watched) -> None:
    shop.stream(0, 24)
    shop.at_hour(25)
    due = due_of(shop, 0)
    workshop = shop.scheduler._workshop
    stalled = claimed(workshop, due)
    assert stalled is not None
    assert claimed(workshop, due) is None  # somebody is at it
    with shop.database.writing() as session:
        session.execute(update(RunRow).values(lease_until=day(0).start - timedelta(days=30_000)))
    assert shop.run() == 1
    measured = runs.Measured(status="ok", reason="too late")
    with shop.database.writing() as session:
        assert record(session, workshop, due, stalled, measured) is None
    (run,) = shop.runs()
    assert (run.attempt, run.reason) == (2, "")
    assert execute(workshop, due) is None  # it is done


# --- windows that say nothing -----------------------------------------------------------------------------------------


def test_a_first_window_that_is_partly_filled_is_insufficient_with_its_coverage(shop: Watched) -> None:
    shop.stream(18, 24 * 3)
    shop.at_hour(24 * 3 + 1)
    shop.run()
    first, second, third = shop.runs()
    assert first.status == "insufficient_data"
    assert "only 25 % of the window" in first.reason
    assert (second.status, third.status) == ("ok", "ok")
    assert not first.judged


def test_a_span_without_records_is_one_entry_that_grows(shop: Watched) -> None:
    shop.stream(0, 24)
    shop.at_hour(24 * 3 + 1)
    shop.run()
    assert [(run.status, run.starts_at, run.ends_at) for run in shop.runs()][1:] == [
        ("no_data", day(1).start, day(3).start)
    ]
    shop.at_hour(24 * 5 + 1)
    shop.run()
    shop.stream(24 * 6, 24 * 7)
    shop.at_hour(24 * 7 + 1)
    shop.run()
    assert [(run.status, run.starts_at, run.ends_at) for run in shop.runs()] == [
        ("ok", day(0).start, day(1).start),
        ("no_data", day(1).start, day(6).start),
        ("ok", day(6).start, day(7).start),
    ]


def test_records_that_come_for_a_span_stored_as_empty_are_judged(shop: Watched) -> None:
    shop.stream(0, 24)
    shop.stream(24 * 5, 24 * 6)
    shop.at_hour(24 * 6 + 1)
    shop.run()
    shop.stream(24 * 2, 24 * 3, shift=1.0)
    shop.stream(24 * 6, 24 * 7)
    shop.at_hour(24 * 7 + 1)
    shop.run()
    shop.run()
    assert [(run.status, run.starts_at, run.ends_at, run.judged) for run in shop.runs()] == [
        ("ok", day(0).start, day(1).start, True),
        ("no_data", day(1).start, day(2).start, False),
        ("violations", day(2).start, day(3).start, True),
        ("no_data", day(3).start, day(5).start, False),
        ("ok", day(5).start, day(6).start, True),
        ("ok", day(6).start, day(7).start, True),
    ]


def test_rows_that_come_late_make_a_revision_that_judges_nothing(shop: Watched) -> None:
    hook(shop)
    shop.stream(0, 24)
    shop.at_hour(25)
    shop.run()
    shop.stream(0, 24, shift=3.0, name="late")
    shop.seal()
    shop.clock.move(timedelta(minutes=16))
    shop.run()
    shop.run()
    first, second = shop.runs()
    assert (first.current, first.judged, first.rows, first.status) == (False, True, 72, "ok")
    assert (second.current, second.judged, second.rows, second.revision) == (True, False, 144, 2)
    assert second.status == "violations"
    assert shop.alerts() == []
    assert shop.events() == []
    for _ in range(3):
        shop.clock.move(timedelta(minutes=16))
        assert shop.run() == 0
    assert len(shop.runs()) == 2


def test_too_few_rows_are_insufficient_data_with_the_reason(shop: Watched) -> None:
    shop.stream(0, 24, per_hour=1)
    shop.at_hour(25)
    shop.run()
    (run,) = shop.runs()
    assert run.status == "insufficient_data"
    assert "24 of 30" in run.reason
    assert run.not_measured == 2


# --- monitors that do not see -----------------------------------------------------------------------------------------


def test_a_monitor_that_measured_nothing_for_three_windows_is_blind_until_it_sees_again(shop: Watched) -> None:
    hook(shop)
    shop.stream(0, 24)
    for hour in (25, 49, 73):
        shop.at_hour(hour)
        shop.run()
    assert shop.alerts("blind") == []
    shop.at_hour(97)
    shop.run()
    (blind,) = shop.alerts("blind")
    assert "data_drift of shop a has not measured 3 windows in a row" in blind.sentence
    assert shop.events() == ["monitor.blind"]
    shop.stream(24 * 4, 24 * 5)
    shop.at_hour(24 * 5 + 1)
    shop.run()
    assert shop.alerts("blind")[0].state == "resolved"
    assert shop.events() == ["monitor.blind", "alert.resolved"]


def test_a_monitor_that_fails_is_tried_twice_then_told(shop: Watched) -> None:
    hook(shop)
    with shop.database.writing() as session:
        session.scalars(select(MonitorRow)).one().parameters = {"methods": {"numeric": "no_such_statistic"}}
    shop.stream(0, 48)
    shop.at_hour(25)
    shop.run()
    assert [run.status for run in shop.runs()] == ["queued"]
    shop.run()
    (run,) = shop.runs()
    assert (run.status, run.attempt) == ("failed", 2)
    assert "no_such_statistic" in run.reason
    assert shop.events() == ["monitor.failing"]
    with shop.database.writing() as session:
        session.scalars(select(MonitorRow)).one().parameters = {}
    shop.at_hour(49)
    shop.run()
    assert [run.status for run in shop.runs()] == ["failed", "ok"]
    assert shop.alerts("failing")[0].state == "resolved"


def test_silence_is_judged_by_data_quality_and_never_green(tmp_path: Path) -> None:
    shop = Watched(tmp_path, kinds=("data_quality",))
    shop.stream(0, 24 * 9)
    shop.at_hour(24 * 9 + 1)
    shop.run()
    assert {run.status for run in shop.runs()} == {"ok"}
    shop.at_hour(24 * 10 + 1)
    shop.run()
    last = shop.runs()[-1]
    assert (last.rows, last.status) == (0, "violations")
    told = {found["metric"] for found in decode_results(last.document) if found["verdict"] == "violated"}
    assert told & {"volume", "freshness"}
    shop.database.close()


# --- replays ----------------------------------------------------------------------------------------------------------


def test_a_replay_s_windows_are_judged_as_its_events_pass(tmp_path: Path) -> None:
    shop = Watched(tmp_path, kinds=("data_drift", "data_quality"))
    with shop.database.writing() as session:
        for monitor in session.scalars(select(MonitorRow)):
            monitor.starts_at, monitor.created_at = None, shop.clock.now()
    hook(shop)
    replay = shop.open_replay(0, 24 * 6, ["hook"])
    shop.stream(0, 24 * 2 + 15)
    shop.seal()
    assert shop.run() == 4
    shop.stream(24 * 4, 24 * 6, shift=1.0)
    shop.seal()
    shop.run()
    assert [run.starts_at for run in shop.runs("data_drift")] == [day(number).start for number in range(5)]
    assert shop.scheduler.close_replay(replay) == 2
    drift = shop.runs("data_drift")
    assert [run.status for run in drift] == ["ok", "ok", "ok", "no_data", "violations", "violations"]
    assert all(run.replayed for run in shop.runs())
    assert all(alert.replayed for alert in shop.alerts())
    assert shop.events().count("alert.opened") == 1
    judged = {found["metric"] for run in shop.runs("data_quality") for found in decode_results(run.document)
              if found["verdict"] in ("ok", "violated")}  # fmt: skip
    assert not judged & {"volume", "freshness"}
    with shop.database.reading() as session:
        assert session.get_one(ReplayRow, replay).closed_at is not None
    # history has ended: the years until today are no silence
    assert shop.run() == 0
    assert shop.alerts("blind") == []
    shop.database.close()


# --- what is left out -------------------------------------------------------------------------------------------------


def test_longer_scales_leave_out_exclusions_and_end_at_the_last_episode(shop: Watched) -> None:
    shop.stream(0, 24 * 12)
    shop.at_hour(24 * 12 + 1)
    due = due_of(shop, 9)
    with shop.database.reading() as session:
        baseline = baselines.active(session, due.version, due.window.start)
        assert baseline is not None
        assert runs.earlier_windows(session, due, baseline, 7) == [day(number) for number in range(9, 2, -1)]
        assert runs.earlier_windows(session, due, baseline, 28) is None
    with shop.database.writing() as session:
        span = day(5, 2)
        session.add(
            ExclusionRow(
                model_id=shop.model_id,
                starts_at=span.start,
                ends_at=span.end,
                reason="load test",
                created_at=shop.clock.now(),
            )
        )
    with shop.database.reading() as session:
        assert runs.earlier_windows(session, due, baseline, 7) == [day(number) for number in (9, 8, 7, 4, 3)]


def test_neighbouring_spans_are_read_as_one() -> None:
    assert runs.joined([day(1), day(0), day(3)]) == [day(0, 2), day(3)]
    assert runs.joined([hours(0, 5), hours(3, 9)]) == [hours(0, 9)]


def test_twenty_quiet_windows_of_production_stand_in_for_a_baseline_without_order(tmp_path: Path) -> None:
    shop = Watched(tmp_path, ordered=False)
    shop.stream(0, 24 * 22)
    shop.at_hour(24 * 22 + 1)
    shop.run()
    notes = [
        next(found.get("note", "") for found in decode_results(run.document) if found.get("feature") == "age")
        for run in shop.runs()
    ]
    assert all("calibrating" in note for note in notes[:20])
    assert not any("calibrating" in note for note in notes[20:])
    shop.database.close()


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alert", "expected"), [(False, 0), (True, 1)])
def test_a_backfill_opens_an_alert_only_where_it_is_asked_to(shop: Watched, alert: bool, expected: int) -> None:
    shop.stream(0, 24 * 3, shift=1.0)
    shop.at_hour(24 * 3 + 1)
    with shop.database.writing() as session:
        monitor = session.scalars(select(MonitorRow)).one()
        monitor.starts_at = day(10).start
        for number in range(3):
            session.add(
                RunRow(
                    uid=new_id(),
                    model_id=shop.model_id,
                    monitor_id=monitor.id,
                    version_id=shop.version_ids["a"],
                    starts_at=day(number).start,
                    ends_at=day(number).end,
                    status="queued",
                    backfill=True,
                    judged=alert,
                    attempt=0,
                )
            )
    assert shop.run() == 3
    assert [run.status for run in shop.runs()] == ["violations"] * 3
    assert [run.judged for run in shop.runs()] == [alert] * 3
    assert len(shop.alerts()) == expected


def test_what_a_monitor_may_look_at_holds_the_rows_of_window_and_baseline(shop: Watched) -> None:
    shop.stream(0, 24)
    shop.at_hour(25)
    shop.sealer.seal(shop.model_id)
    with shop.database.reading() as session:
        monitor = session.scalars(select(MonitorRow).where(MonitorRow.kind == "data_drift")).one()
        due = runs.Due(
            model=session.get_one(ModelRow, monitor.model_id),
            version=session.scalars(select(VersionRow)).one(),
            monitor=monitor,
            window=day(0),
            data=hours(0, 48),
        )
        known = runs.Measured(baseline=session.scalars(select(BaselineRow)).one(), layout=1)
        comparison = runs.compared(session, shop.scheduler._workshop, due, known)
        window, baseline = comparison.rows(), comparison.baseline_rows()
    assert window is not None
    assert baseline is not None
    assert window.num_rows == comparison.window.rows == 72
    assert baseline.num_rows == comparison.baseline.rows
    assert {"features.age", "prediction", "score"} <= set(window.column_names) & set(baseline.column_names)
    assert "ground_truth" in window.column_names
    assert comparison.task.name == "binary"


def test_nothing_is_looked_for_while_nothing_was_stored_and_little_time_has_passed(shop: Watched) -> None:
    found = [0, 0, 1, 0, 0, 0]
    looks: list[int] = []

    def work() -> int:
        looks.append(len(looks))
        return found[looks[-1]]

    look = shop.scheduler._unless_idle(work)
    look()
    look()
    assert len(looks) == 1
    shop.stream(0, 24)
    look()
    assert len(looks) == 2
    shop.clock.move(timedelta(seconds=15))
    look()
    look()  # there was something to do: there may be more
    assert len(looks) == 4
    shop.clock.move(timedelta(hours=-1))
    look()
    look()
    assert len(looks) == 5


def test_a_backfill_of_an_empty_span_doubles_nothing_and_keeps_no_window_from_its_turn(shop: Watched) -> None:
    shop.stream(0, 24)
    shop.stream(24 * 5, 24 * 6)
    shop.at_hour(24 * 6 + 1)
    asked_for(shop, day(2))  # before the scheduler was there
    shop.run()
    asked_for(shop, day(3))
    shop.run()
    current = [(run.starts_at, run.ends_at, run.status) for run in shop.runs(current=True)]
    assert current == [
        (day(0).start, day(0).end, "ok"),
        (day(1).start, day(4).end, "no_data"),
        (day(5).start, day(5).end, "ok"),
    ]
    shop.stream(24 * 2, 24 * 4)  # late, and both of its days were asked for before
    shop.stream(24 * 6, 24 * 7)
    shop.at_hour(24 * 7 + 1)
    shop.run()
    current = [(run.starts_at, run.ends_at, run.status) for run in shop.runs(current=True)]
    assert current == [
        (day(0).start, day(0).end, "ok"),
        (day(1).start, day(1).end, "no_data"),
        (day(2).start, day(2).end, "ok"),
        (day(3).start, day(3).end, "ok"),
        (day(4).start, day(4).end, "no_data"),
        (day(5).start, day(5).end, "ok"),
        (day(6).start, day(6).end, "ok"),
    ]


@pytest.mark.parametrize("alert", [False, True])
def test_what_was_asked_for_and_nobody_has_done_keeps_no_window_from_its_turn(shop: Watched, alert: bool) -> None:
    shop.stream(0, 24 * 2, shift=1.0)
    shop.at_hour(24 * 2 + 1)
    asked_for(shop, day(0), alert=alert)
    asked_for(shop, day(1), alert=alert)
    assert shop.scheduler.run_model(shop.model_id) == 2  # and no worker is there
    turns = [run for run in shop.runs() if run.status == "violations"]
    assert [(run.starts_at, run.revision, run.judged) for run in turns] == [
        (day(0).start, 2, True),
        (day(1).start, 2, True),
    ]
    assert len(shop.alerts()) == 1
    assert shop.scheduler.work_model(shop.model_id) == 2
    assert [(run.revision, run.status, run.judged) for run in shop.runs()] == [
        (1, "violations", False),
        (2, "violations", True),
    ] * 2
    assert [run.revision for run in shop.runs(current=True)] == [2, 2]
    assert shop.run() == 0


def asked_for(shop: Watched, window: Span, *, alert: bool = False) -> None:
    """Queue a window as a request does."""
    with shop.database.writing() as session:
        monitor = session.scalars(select(MonitorRow)).one()
        revision = runs.next_revision(session, monitor.id, shop.version_ids["a"], window)
        session.add(
            RunRow(
                uid=new_id(),
                model_id=shop.model_id,
                monitor_id=monitor.id,
                version_id=shop.version_ids["a"],
                starts_at=window.start,
                ends_at=window.end,
                revision=revision,
                current=revision == 1,
                status="queued",
                backfill=True,
                judged=alert,
                attempt=0,
            )
        )


class Walk:
    """What happens to a shop in any order: records late, windows asked for, two workers, in the middle of a run."""

    days = 4

    def __init__(self, shop: Watched, seed: int) -> None:
        self.shop, self.random = shop, np.random.default_rng(seed)
        self.told, self.over, self.depth = {0}, 0, 0
        shop.stream(0, 24)

    def step(self) -> None:
        {
            "post": self.post,
            "ask": self.ask,
            "work": lambda: self.shop.another()._work(),
            "run": lambda: self.shop.another()._run(),
            "seal": self.shop.seal,
        }[str(self.random.choice(["post", "ask", "work", "run", "seal"]))]()

    def post(self) -> None:
        number = int(self.random.integers(0, min(self.over + 1, self.days)))
        if number not in self.told:
            self.told.add(number)
            self.shop.stream(24 * number, 24 * number + 24)

    def ask(self) -> None:
        window = day(int(self.random.integers(0, max(1, self.over))))
        if all(run.status not in UNFINISHED for run in self.shop.runs() if run.starts_at == window.start):
            asked_for(self.shop, window)

    def meanwhile(self, *_: Any) -> None:
        """Let others work in the midst of it."""
        if self.depth < 2 and self.random.random() < 0.4:
            self.depth += 1
            self.step()
            self.depth -= 1


def any_order(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Walk, then finish what is left, and find each day in one run in force, with its records where it has any."""
    shop = Watched(folder)
    walk = Walk(shop, seed)
    with monkeypatch.context() as interposed:
        measurement, do = runs.measurement, Scheduler._do

        def measured(*given: Any) -> runs.Measured:
            found = measurement(*given)
            walk.meanwhile()
            return found

        def done(scheduler: Scheduler, work: Any) -> bool:
            walk.meanwhile()
            return do(scheduler, work)

        interposed.setattr(runs, "measurement", measured)
        interposed.setattr(Scheduler, "_do", done)
        for _ in range(8 * walk.days):
            walk.step()
            if walk.over < walk.days and walk.random.random() < 0.2:
                walk.over += 1
                shop.at_hour(24 * walk.over + 1)
    shop.at_hour(24 * walk.days + 1)
    for _ in range(40):
        shop.seal()
        if not shop.run() and all(run.status not in UNFINISHED for run in shop.runs()):
            break
        shop.clock.move(timedelta(minutes=20))
    else:
        raise AssertionError("work is left after forty rounds")
    current = sorted(shop.runs(current=True), key=lambda run: (run.starts_at, run.ends_at))
    at = day(0).start
    for run in current:
        assert run.starts_at == at, (seed, run.starts_at, at)
        at = run.ends_at
        held = [number for number in walk.told if run.starts_at <= day(number).start < run.ends_at]
        assert (run.status, len(held)) in {("ok", 1), ("no_data", 0)}, (seed, run.starts_at, run.status)
    assert at >= day(walk.days - 1).end
    judged = [run.starts_at for run in shop.runs() if run.judged]
    assert len(judged) == len(set(judged)) == len(walk.told)
    shop.database.close()


@pytest.mark.parametrize("seed", [3, pytest.param(5, marks=pytest.mark.long)])
def test_records_late_and_windows_asked_for_in_any_order_leave_each_day_in_one_run(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_order(tmp_path, seed, monkeypatch)


@pytest.mark.long
def test_twenty_more_orders_leave_each_day_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(6, 26):
        any_order(tmp_path / str(seed), seed, monkeypatch)
