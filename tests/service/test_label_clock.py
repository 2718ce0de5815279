"""The label clock: windows wait for their labels, are judged once, and later labels revise what they belong to."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from service.runs import decode_results
from service.tables import JobRow, ModelStatusRow, MonitorRow, RunRow
from service.words import new_id
from tests.service.watched import Watched, day

DELAY = {"delay": "5d", "min_coverage": 0.8, "min_rows": 30}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path, kinds=("performance",), labelled=True, labels=DELAY)
    yield made
    made.database.close()


def settle(shop: Watched) -> None:
    """Look until nothing is left to do, a while after what came last."""
    shop.clock.move(timedelta(minutes=20))
    shop.seal()
    while shop.run():
        pass


def days(shop: Watched, number: int) -> None:
    """Acknowledge the rows of so many days, as `label` knows them."""
    for first in range(0, 24 * number, 24):
        shop.stream(first, first + 24)


def current(shop: Watched) -> list[RunRow]:
    """Return the revision in force of each window that had rows."""
    return [run for run in shop.runs(current=True) if run.status != "no_data"]


def test_a_window_waits_for_its_labels_with_figures_that_nobody_judges(shop: Watched) -> None:
    shop.stream(0, 24)
    shop.label(0, 24, 26, share=0.5)
    shop.at_hour(26)
    settle(shop)
    (run,) = current(shop)
    assert (run.status, run.judged, run.ok + run.violated) == ("waiting_for_labels", False, 0)
    assert (run.labelled_rows, run.rows) == (36, 72)
    assert "36 of 72 rows have a label" in run.reason
    accuracy = next(found for found in decode_results(run.document) if found["metric"] == "accuracy")
    assert accuracy["verdict"] is None
    assert accuracy["interval"][0] <= accuracy["value"] <= accuracy["interval"][1]
    assert accuracy["label_coverage"] == 0.5


def test_a_window_is_judged_once_when_enough_labels_have_come(shop: Watched) -> None:
    shop.stream(0, 24)
    shop.at_hour(26)
    settle(shop)
    shop.label(0, 24, 30)
    shop.at_hour(30)
    settle(shop)
    found = shop.runs()
    assert [(run.status, run.judged) for run in found] == [("waiting_for_labels", False), ("ok", True)]
    assert found[1].labelled_rows == 72
    settle(shop)
    assert len(shop.runs()) == 2


def ask_again(shop: Watched, waiting: RunRow, *, alert: bool = False) -> None:
    """Queue a window once more, as a request does."""
    with shop.database.writing() as session:
        job = JobRow(
            uid=new_id(), kind="backfill", model_id=shop.model_id, request={"alert": alert}, state="queued", total=1,
            created_at=shop.clock.now(),
        )  # fmt: skip
        session.add(job)
        session.flush()
        session.add(
            RunRow(
                uid=new_id(),
                model_id=waiting.model_id,
                monitor_id=waiting.monitor_id,
                version_id=waiting.version_id,
                starts_at=waiting.starts_at,
                ends_at=waiting.ends_at,
                revision=waiting.revision + 1,
                current=False,
                judged=alert,
                status="queued",
                backfill=True,
                job_id=job.id,
                attempt=0,
            )
        )


def test_a_window_that_was_asked_for_while_it_waits_is_judged_all_the_same(shop: Watched) -> None:
    shop.stream(0, 24)
    shop.at_hour(26)
    settle(shop)
    ask_again(shop, current(shop)[0])
    settle(shop)
    assert [(run.revision, run.status) for run in current(shop)] == [(2, "waiting_for_labels")]
    shop.label(0, 24, 30)
    shop.at_hour(30)
    settle(shop)
    assert [(run.revision, run.status, run.judged) for run in current(shop)] == [(3, "ok", True)]


@pytest.mark.parametrize("alert", [False, True])
def test_a_past_window_that_waits_for_labels_is_judged_where_that_was_asked_for(shop: Watched, alert: bool) -> None:
    shop.stream(0, 24)
    shop.at_hour(26)
    settle(shop)
    with shop.database.writing() as session:
        run = session.scalars(select(RunRow)).one()
        run.backfill = True  # the monitor was made later: nobody but the request ran it
        session.scalars(select(MonitorRow)).one().starts_at = day(30).start
    ask_again(shop, run, alert=alert)
    settle(shop)
    shop.label(0, 24, 30)
    shop.at_hour(30)
    settle(shop)
    assert [(run.revision, run.status, run.judged) for run in current(shop)] == [(3, "ok", alert)]


def test_a_window_is_judged_when_its_delay_has_passed_or_says_that_too_few_labels_came(shop: Watched) -> None:
    days(shop, 2)
    shop.label(0, 24, 49, share=0.6)
    shop.label(24, 48, 49, share=0.2)
    shop.at_hour(50)
    settle(shop)
    assert {run.status for run in current(shop)} == {"waiting_for_labels"}
    shop.at_hour(24 * 6 + 2)
    settle(shop)
    assert [run.status for run in current(shop)] == ["ok", "waiting_for_labels"]
    shop.at_hour(24 * 7 + 2)
    settle(shop)
    first, second = current(shop)
    assert (first.status, second.status) == ("ok", "insufficient_data")
    assert "fewer than 30" in second.reason


def test_worse_answers_open_one_episode_and_labels_that_come_later_page_nobody(shop: Watched) -> None:
    days(shop, 2)
    shop.label(0, 24, 49, flip=0.45)
    shop.label(24, 48, 49)
    shop.at_hour(50)
    settle(shop)
    assert [run.status for run in current(shop)] == ["violations", "ok"]
    assert len(shop.alerts()) == 1
    shop.label(24, 48, 60, flip=0.5)  # corrections: the second day was not as good as it looked
    shop.at_hour(61)
    settle(shop)
    first, second = current(shop)
    assert (first.revision, second.revision) == (first.revision, first.revision + 1)
    assert (second.status, second.judged) == ("violations", False)
    assert "judged ok; by what is known now it would be violations" in second.reason
    assert len(shop.alerts()) == 1
    assert shop.alerts()[0].last_violated_at == day(0).end


def test_labels_revise_exactly_the_windows_they_belong_to(shop: Watched) -> None:
    days(shop, 4)
    for number in range(4):
        shop.label(24 * number, 24 * number + 24, 24 * 4 + 1, share=0.9)
    shop.at_hour(24 * 4 + 2)
    settle(shop)
    before = {run.starts_at: run.revision for run in current(shop)}
    shop.label(24, 48, 24 * 5)
    shop.label(24 * 3, 24 * 4, 24 * 5, share=0.95)
    shop.at_hour(24 * 4 + 3)
    settle(shop)
    after = {run.starts_at: run.revision - before[run.starts_at] for run in current(shop)}
    assert after == {day(0).start: 0, day(1).start: 1, day(2).start: 0, day(3).start: 1}
    assert [run.labelled_rows for run in current(shop)][1] == 72


def test_the_model_stands_as_its_newest_judged_window_while_later_ones_wait(shop: Watched) -> None:
    days(shop, 2)
    shop.label(0, 24, 49)
    shop.at_hour(50)
    settle(shop)
    with shop.database.reading() as session:
        status = session.scalars(select(ModelStatusRow)).one()
    assert (status.status, status.ends_at) == ("ok", day(0).end)


def test_results_are_the_same_whether_labels_came_at_once_or_bit_by_bit(tmp_path: Path) -> None:
    documents = []
    for name in ("once", "by and by"):
        shop = Watched(tmp_path / name, kinds=("performance",), labelled=True, labels=DELAY)
        shop.stream(0, 24)
        for share in (1.0,) if name == "once" else (0.4, 1.0):
            shop.label(0, 24, 25, share=share)
            shop.at_hour(26)
            settle(shop)
        found = decode_results(current(shop)[-1].document)
        documents.append({(one["metric"], one.get("class")): (one.get("value"), one.get("p_value")) for one in found})
        shop.database.close()
    assert documents[0] == documents[1]


def test_estimates_are_judged_at_once_and_say_later_what_labels_say_and_concept_drift_waits_for_them(
    tmp_path: Path,
) -> None:
    kinds = ("estimated_performance", "concept_drift")
    shop = Watched(tmp_path, kinds=kinds, labelled=True, labels=DELAY)
    days(shop, 2)
    shop.at_hour(50)
    settle(shop)
    assert [run.status for run in shop.runs("estimated_performance", current=True)] == ["ok", "ok"]
    assert {run.status for run in shop.runs("concept_drift", current=True)} == {"waiting_for_labels"}
    shop.label(0, 24, 51)
    shop.label(24, 48, 51, flip=0.5)
    shop.at_hour(52)
    settle(shop)
    first, second = shop.runs("estimated_performance", current=True)
    assert (first.revision, first.judged, first.labelled_rows) == (2, False, 72)
    estimates = [one for one in decode_results(second.document) if one.get("estimated")]
    assert any("beyond both intervals" in one.get("note", "") for one in estimates)
    good, bad = shop.runs("concept_drift", current=True)
    assert (good.status, bad.status) == ("ok", "violations")
    found = {one["metric"]: one for one in decode_results(bad.document)}
    assert found["accuracy_concept_part"]["value"] < -0.1
    assert found["adwin"]["n_baseline"] == 144
    shop.database.close()
