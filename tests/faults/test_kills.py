"""The service's processes are killed at random moments under load; what was promised is all there, once."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from service.settings import ROLES
from tests.faults.load import DRIFT, accepted, ask, begun, check, goes_on, post, prepare, receive
from tests.faults.processes import FORK, SharedClock, fork, killed, site, wait_until
from tests.service.watched import begun_often

START = datetime(2026, 3, 2, 5, 55, tzinfo=UTC)
"""The first whole hour is the first of two that drift: see `tests.faults.load.DRIFT`."""
CLIENTS = 3
MANY_KILLS = 50
"""From so many on episodes end and begin meanwhile, and each is looked at."""
SPEED = 1800.0
"""Half an hour passes in a second: two windows of two monitors are due every two seconds."""


def kill_at_random(folder: Path, url: str | None, kills: int, seed: int, *, apart: bool = True) -> None:
    """Kill one of five processes, or the one that does it all, under three clients and an operator, then count."""
    processes = {role: (role,) for role in ROLES} if apart else {"all": ROLES}
    random = np.random.default_rng(seed)
    clock = SharedClock(START, SPEED)
    clock.stop()  # the start may take any time
    with site(folder, url, clock, seal_rows=300) as place:
        here, there = FORK.Pipe()
        around = [fork(receive, str(folder), there)]
        try:
            for name, roles in processes.items():
                place.start(name, *roles)
            secret = prepare(place, here.recv())
            clock.go_on()
            around += [fork(post, place, f"c{number}") for number in range(CLIENTS)]
            around.append(fork(ask, place))
            for _ in range(kills):
                goes_on(folder)
                wait_until(
                    lambda: not begun_often(place.settings().database), "a window that was begun again and again"
                )
                time.sleep(float(random.uniform(0.0, 0.8)))
                name = str(random.choice(list(processes)))
                place.kill(name)
                place.start(name, *processes[name])
            wait_until(lambda: accepted(folder), "a backfill")
            wait_until(lambda: begun(folder), "a retraining")
            if kills >= MANY_KILLS:
                wait_until(lambda: clock.now() > START + DRIFT, "what drifts and goes back")
            clock.stop()
            killed(around[1:])
            for name in list(place.running):
                place.kill(name)
            count = check(place, secret, each_episode=kills >= MANY_KILLS)
        finally:
            killed(around)
    sys.stdout.write(f"{kills} kills: {count}\n")
    assert count.acknowledged > 20 * kills
    assert count.windows > kills / 2
    assert count.alerts
    assert count.calls >= count.deliveries > 1
    assert count.retrainings
    assert count.jobs


def test_kills_of_any_process_lose_double_and_miss_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path, None, 3, 1)


@pytest.mark.long
def test_fifty_kills_of_the_one_process_lose_double_and_miss_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path, None, 50, 5, apart=False)


@pytest.mark.long
def test_a_hundred_kills_lose_double_and_miss_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path, None, 100, 3)
