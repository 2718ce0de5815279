"""Several processes on one database: each window once, no late write of a frozen one, and clocks that jump."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cache
from multiprocessing.synchronize import Lock
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import func, select, update

from service.clock import SetClock
from service.lake.lease import LeaseLost, kept, owner_here
from service.runs import Claim, Measured, claimed, record, renew
from service.tables import LeaseRow, MonitorRow, ResultRow, RunRow
from tests.faults.processes import FORK, SharedClock, fork, killed, wait_until
from tests.running import PATIENCE
from tests.service.watched import Watched, day, hours

REPLICAS = 4


def work(folder: Path, url: str | None, clock: SetClock | SharedClock) -> None:
    """Be a replica: run what is due, over and over."""
    shop = Watched(folder, url, clock=clock, made=True, schedule="hourly", window="1h")  # type: ignore[arg-type]
    while True:
        if shop.scheduler.run_model(shop.model_id) == 0:
            time.sleep(0.5)  # nothing is due, or others are at all of it


def execute_slowly(shop: Watched, between: Lock) -> None:
    """Claim the first window that is due, stay at it until told, then try to record it.

    Meanwhile its lease is renewed, never while another has the lock: who is frozen in a transaction would hold up all.
    """
    shop.sealer.seal(shop.model_id)
    workshop = shop.scheduler._workshop
    with shop.database.reading() as session:
        watch = next(iter(shop.scheduler._watches(session, shop.model_id, shop.clock.now())))
        due = watch.due(hours(0, 1))
    claim = claimed(workshop, due)
    assert claim is not None
    (shop.folder / "claimed").write_text(str(claim.attempt))

    def renewed() -> None:
        with between:
            renew(workshop, claim)

    with kept(renewed, workshop.settings.lease_seconds):
        wait_until((shop.folder / "go on").exists, "the word to go on")
    with shop.database.writing() as session:
        run = record(session, workshop, due, claim, Measured(rows=999, status="ok"))
    (shop.folder / "recorded").write_text("yes" if run is not None else "no")


@cache
def warm_up() -> None:
    """Load what is compiled or imported late, once: replicas that are forked from here have it."""
    with TemporaryDirectory(prefix="plumbline-warm-") as folder:
        shop = Watched(Path(folder), schedule="hourly", window="1h", parameters={"min_rows": 1})
        shop.stream(0, 2)
        shop.at_hour(3)
        assert shop.run() == 2
        shop.database.close()


@contextmanager
def stream(folder: Path, url: str | None, length: int, *, monitors: int = 1, lease: float = 60.0) -> Iterator[Watched]:
    """Make a shop with so many hours of records and some hourly monitors."""
    warm_up()
    shop = Watched(folder, url, schedule="hourly", window="1h", parameters={"min_rows": 1})
    shop.settings = shop.settings.model_copy(update={"lease_seconds": lease})
    shop.stream(0, length)
    start = hours(0, 1).start
    with shop.database.writing() as session:
        for number in range(1, monitors):
            more = MonitorRow(
                uid=f"{number:032}", model_id=shop.model_id, name=f"inputs-{number}", kind="data_drift",
                schedule="hourly", window="1h", parameters={"min_rows": 1}, starts_at=start, created_at=start,
            )  # fmt: skip
            session.add(more)
    yield shop
    shop.database.close()


def counted(shop: Watched, length: int, monitors: int = 1) -> None:
    """Count: every hour has one run of each monitor, finished and judged once, and the results that it says it has."""
    runs = shop.runs()
    each = Counter(run.starts_at for run in runs)
    assert each == Counter({hours(hour, hour + 1).start: monitors for hour in range(length)})
    assert len({(run.monitor_id, run.starts_at) for run in runs}) == len(runs) == monitors * length
    assert {run.status for run in runs} <= {"ok", "violations", "partial", "insufficient_data"}
    with shop.database.reading() as session:
        rows = Counter(session.scalars(select(ResultRow.run_id)))
    assert rows == Counter({run.id: told for run in runs if (told := run.ok + run.violated + run.not_measured)})


def replicas_run_each_window_once(folder: Path, url: str | None, length: int, monitors: int = 1) -> None:
    """Let four replicas run so many hours of some monitors; each monitor's windows go one after the other."""
    with stream(folder, url, length, monitors=monitors) as shop:
        shop.at_hour(length + 1)
        shop.seal()
        shop.database.close()
        processes = [fork(work, folder, url, shop.clock) for _ in range(REPLICAS)]
        try:
            wait_for_all(shop, monitors * length)
            time.sleep(0.5)
        finally:
            killed(processes)
        counted(shop, length, monitors)


def wait_for_all(shop: Watched, length: int) -> None:
    """Wait for so many finished windows, as long as their number grows."""
    count, since = 0, time.monotonic()
    while count < length:
        time.sleep(0.25)
        with shop.database.reading() as session:
            now = session.scalar(select(func.count()).where(RunRow.finished_at.is_not(None))) or 0
        if now > count:
            count, since = now, time.monotonic()
        assert time.monotonic() - since < PATIENCE, f"{count} of {length} windows, and no more"


def finished(shop: Watched) -> list[RunRow]:
    return [run for run in shop.runs() if run.finished_at is not None]


def test_four_replicas_run_each_of_twenty_windows_of_one_monitor_once(tmp_path: Path) -> None:
    replicas_run_each_window_once(tmp_path, None, 20)


@pytest.mark.long
@pytest.mark.postgres
def test_four_replicas_run_each_of_a_hundred_windows_of_one_monitor_once_on_postgresql(
    tmp_path: Path, postgres_url: str
) -> None:
    replicas_run_each_window_once(tmp_path, postgres_url, 100)


@pytest.mark.long
def test_four_replicas_give_a_thousand_windows_of_four_monitors_a_thousand_results(tmp_path: Path) -> None:
    replicas_run_each_window_once(tmp_path, None, 250, monitors=4)


@pytest.mark.long
@pytest.mark.postgres
def test_four_replicas_give_a_thousand_windows_of_four_monitors_a_thousand_results_on_postgresql(
    tmp_path: Path, postgres_url: str
) -> None:
    replicas_run_each_window_once(tmp_path, postgres_url, 250, monitors=4)


# --- leases -----------------------------------------------------------------------------------------------------------


def a_frozen_replica(folder: Path, url: str | None) -> None:
    with stream(folder, url, 2) as shop:
        shop.at_hour(2)
        shop.seal()
        shop.database.close()
        between = FORK.Lock()
        process = FORK.Process(target=frozen_work, args=(folder, url, shop.clock, between), daemon=True)
        process.start()
        wait_until((folder / "claimed").exists, "the claim")
        assert process.pid is not None
        with between:
            os.kill(process.pid, signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
        shop.scheduler._workshop = replace(shop.scheduler._workshop, settings=shop.settings)
        assert shop.run() == 0 or not_yet(shop)
        wait_until(lambda: shop.run() or finished(shop), "the lease")  # a second, and nobody renews it
        taken = shop.runs()[0]
        assert (taken.attempt, taken.rows, taken.finished_at is not None) == (2, 3, True)
        (folder / "go on").touch()
        os.kill(process.pid, signal.SIGCONT)
        wait_until((folder / "recorded").exists, "the late write")
        assert (folder / "recorded").read_text() == "no"
        process.join(PATIENCE)
        after = shop.runs()[0]
        assert (after.rows, after.status, after.attempt) == (taken.rows, taken.status, 2)


def not_yet(shop: Watched) -> bool:
    """Return whether the window was taken over already: on a slow machine the lease may have run out by now."""
    return shop.runs()[0].attempt == 2


def frozen_work(folder: Path, url: str | None, clock: SetClock, between: Lock) -> None:
    shop = Watched(folder, url, clock=clock, made=True, schedule="hourly", window="1h")
    brief = shop.settings.model_copy(update={"lease_seconds": 1.0})
    shop.scheduler._workshop = replace(shop.scheduler._workshop, settings=brief)
    execute_slowly(shop, between)


def test_a_replica_frozen_past_its_lease_writes_nothing_late(tmp_path: Path) -> None:
    a_frozen_replica(tmp_path, None)


@pytest.mark.postgres
def test_a_replica_frozen_past_its_lease_writes_nothing_late_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    a_frozen_replica(tmp_path, postgres_url)


def test_a_lease_is_renewed_for_as_long_as_the_work_takes(tmp_path: Path) -> None:
    # A second is enough, but where the machine does not come to renew it so soon.
    assert any(is_renewed(tmp_path / f"{seconds:g}", seconds) for seconds in (1.0, 5.0, 30.0))


def is_renewed(folder: Path, seconds: float) -> bool:
    """Return whether nobody could take a window over while its lease of so many seconds was renewed."""
    with stream(folder, None, 2) as shop:
        shop.at_hour(2)
        shop.seal()
        brief = shop.settings.model_copy(update={"lease_seconds": seconds})
        workshop = replace(shop.scheduler._workshop, settings=brief)
        with shop.database.reading() as session:
            watch = next(iter(shop.scheduler._watches(session, shop.model_id, shop.clock.now())))
            due = watch.due(hours(0, 1))
        claim = claimed(workshop, due)
        assert claim is not None
        elsewhere = f"elsewhere {owner_here().split(' ', 1)[1]}"  # of which nothing is known but its lease
        with shop.database.writing() as session:
            session.execute(update(RunRow).values(owner=elsewhere))
        began, taken = time.monotonic(), None
        with kept(lambda: renew(workshop, claim), seconds):
            while taken is None and time.monotonic() - began < 2.5 * seconds:
                taken = claimed(workshop, due)
                time.sleep(0.1)
        if taken is None:
            wait_until(lambda: claimed(workshop, due) is not None, "the end of the lease")
        with pytest.raises(LeaseLost):
            renew(workshop, Claim(claim.run_id, claim.attempt))
        return taken is None


# --- clocks -----------------------------------------------------------------------------------------------------------


def clocks_jump(folder: Path, url: str | None) -> None:
    """Let the clock of two replicas fall back an hour and run ahead a day and a half in the middle of the work."""
    length = 72
    with stream(folder, url, length) as shop:
        shop.seal()
        shop.database.close()
        clock = SharedClock(hours(24, 25).start, 60.0)  # the windows of a day are due
        clock.stop()  # what they wait for here may take any time
        processes = [fork(work, folder, url, clock) for _ in range(2)]
        try:
            for jump in (timedelta(hours=-1), timedelta(hours=36), timedelta(hours=-1)):
                more = len(finished(shop)) + 2
                due = (clock.now() - hours(0, 1).start) // timedelta(hours=1) - 2  # late ones may come a while
                wait_until(lambda more=more, due=due: len(finished(shop)) >= min(more, due), "two windows")  # type: ignore[misc]  # mypy infers no lambda with defaults
                clock.move(jump)
            clock.go_on()
            time.sleep(0.5)
            clock.stop()
            assert length > (clock.now() - hours(0, 1).start) / timedelta(hours=1), "it ran further than the records"
            clock.move(hours(length + 1, length + 2).start - clock.now())
            wait_for_all(shop, length)
        finally:
            killed(processes)
        counted(shop, length)


def test_clocks_that_jump_miss_and_double_no_window(tmp_path: Path) -> None:
    clocks_jump(tmp_path, None)


@pytest.mark.postgres
@pytest.mark.long
def test_clocks_that_jump_miss_and_double_no_window_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    clocks_jump(tmp_path, postgres_url)


def test_windows_stored_as_empty_while_the_clock_ran_ahead_are_run_when_their_records_come(tmp_path: Path) -> None:
    with stream(tmp_path, None, 24) as shop:
        shop.at_hour(25)
        shop.run()
        shop.at_hour(25 + 8)  # eight hours too far
        shop.run()
        assert [run.status for run in shop.runs()][24:] == ["no_data"]
        shop.at_hour(26)  # and back
        assert shop.run() == 0
        for hour in range(24, 32):
            shop.stream(hour, hour + 1)
            shop.at_hour(hour + 2)
            shop.seal()
            shop.run()
        counted(shop, 32)
        assert all(run.judged for run in shop.runs())


def test_downtime_is_caught_up_in_order_so_many_windows_a_tick(tmp_path: Path) -> None:
    with stream(tmp_path, None, 25) as shop:
        shop.at_hour(26)
        assert [shop.scheduler.run_model(shop.model_id, limit=10) for _ in range(4)] == [10, 10, 5, 0]
        counted(shop, 25)
        with shop.database.reading() as session:
            order = session.scalars(select(RunRow.starts_at).order_by(RunRow.id)).all()
            assert session.scalar(select(func.count()).select_from(LeaseRow).where(LeaseRow.owner != "")) == 0
        assert list(order) == sorted(order)
        assert shop.runs()[0].starts_at == day(0).start
