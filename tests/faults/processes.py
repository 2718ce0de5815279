"""The service as processes forked from a test: each with its roles, all under one clock that the test can set."""

import multiprocessing
import multiprocessing.process
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import numpy as np
import uvicorn
from starlette.testclient import TestClient

from service.app import create_app
from service.assembly import Assembly, assemble
from service.cli import logs
from service.clock import Clock, SetClock
from service.scheduler import working
from service.settings import ROLES, Settings
from tests.conftest import ADMIN_KEY
from tests.running import PATIENCE, PLAIN, UNHURRIED, free_port

HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}", **UNHURRIED}
MODEL = "/v1/models/m"
FORK = multiprocessing.get_context("fork")
"""Forked, so that nothing is imported or compiled again after each of a hundred kills."""


class SharedClock:
    """A clock in memory shared by forked processes: so many times faster than the machine's, moved at will.

    Its numbers have no lock: who is killed while holding one would stop the clock of all others.
    """

    def __init__(self, start: datetime, speed: float = 1.0) -> None:
        self._start = start
        self._speed = speed
        self._began = FORK.RawValue("d", time.monotonic())
        self._moved = FORK.RawValue("d", 0.0)
        self._stopped = FORK.RawValue("d", float("inf"))

    def now(self) -> datetime:
        """Return the time that all processes have."""
        elapsed = min(time.monotonic(), self._stopped.value) - self._began.value
        return self._start + timedelta(seconds=elapsed * self._speed + self._moved.value)

    def monotonic(self) -> float:
        """Return the machine's seconds."""
        return time.monotonic()

    def move(self, by: timedelta) -> None:
        """Let the time of day jump, on or back."""
        self._moved.value += by.total_seconds()

    def stop(self) -> None:
        """Let it stand still but for what it is moved."""
        self._stopped.value = time.monotonic()

    def go_on(self) -> None:
        """Let it run on from where it stands."""
        self._began.value += time.monotonic() - self._stopped.value
        self._stopped.value = float("inf")


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what} took longer than {PATIENCE:g} seconds"
        time.sleep(0.02)


def _run(settings: Settings, clock: Clock | None, port: int, log: Path) -> None:
    """Be one process of the service until it is ended."""
    logs.configure("warning", log.open("a"))
    if "api" in settings.roles:
        uvicorn.run(create_app(settings, clock), host="127.0.0.1", port=port, log_config=None, access_log=False)
        return
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    with working(assemble(settings, clock)):
        over.wait()


@dataclass
class Site:
    """An installation: a folder or a database of its own, and its processes by name."""

    folder: Path
    url: str | None = None
    clock: Clock | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    running: dict[str, multiprocessing.process.BaseProcess] = field(default_factory=dict)

    def settings(self, *roles: str, **changes: Any) -> Settings:
        """Return the settings of a process with some roles, of one with all where none is named."""
        values: dict[str, Any] = {
            "data_dir": self.folder / "data",
            "database_url": self.url,
            "admin_key": ADMIN_KEY,
            "tick_seconds": 0.2,
            "outbound_allow": "127.0.0.1",
            "outbound_http": True,
            "public_url": f"http://127.0.0.1:{self.port}",
            "roles": roles or ROLES,
        }
        return Settings.model_validate(values | dict(self.changes) | changes)

    def assembly(self, *roles: str, clock: Clock | None = None, **changes: Any) -> Assembly:
        """Return the parts in this process."""
        return assemble(self.settings(*roles, **changes), clock or self.clock)

    def start(self, name: str, *roles: str, **changes: Any) -> None:
        """Start a process, named by its only role where no roles are given; wait until it answers where it can."""
        settings = self.settings(*(roles or (name,)), **changes)
        log = self.folder / f"{name}.log"
        process = FORK.Process(target=_run, args=(settings, self.clock, self.port, log), name=name, daemon=True)
        process.start()
        self.running[name] = process
        if "api" in settings.roles:
            wait_until(lambda: self.answers() or not process.is_alive(), f"the start of {name}")
            assert process.is_alive(), log.read_text()[-4000:]

    def answers(self) -> bool:
        """Return whether somebody listens on the port."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process: SIGSTOP freezes it, SIGCONT lets it go on."""
        pid = self.running[name].pid
        assert pid is not None
        os.kill(pid, number)

    def kill(self, name: str) -> None:
        """End a process at once."""
        process = self.running.pop(name)
        assert process.is_alive(), (self.folder / f"{name}.log").read_text()[-4000:]
        process.kill()
        process.join()

    def end(self) -> None:
        """Kill whatever runs."""
        for process in self.running.values():
            process.kill()
            process.join()
        self.running.clear()

    def client(self) -> httpx2.Client:
        """Return a client with the admin key."""
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", headers=HEADERS, timeout=120, verify=PLAIN)


@contextmanager
def site(folder: Path, url: str | None = None, clock: Clock | None = None, **changes: Any) -> Iterator[Site]:
    """Make an installation whose processes end with the block; what is compiled is loaded before any is forked."""
    folder.mkdir(parents=True, exist_ok=True)
    warm_up()
    made = Site(folder, url, clock, changes)
    try:
        yield made
    finally:
        made.end()


def declare(client: httpx2.Client, now: datetime) -> None:
    """Make the model, its baseline of 25 days up to now, and two hourly monitors."""
    random = np.random.default_rng(7)
    lines = ["prediction_id,timestamp,prediction,score,age,job"]
    for number in range(24 * 25 * 12):
        at, age = now - timedelta(minutes=5 * (number + 1)), random.normal(40, 10)
        lines.append(f"b{number},{at.isoformat()},{int(age > 40)},0.5,{age:.2f},{random.choice(['clerk', 'nurse'])}")

    def made(path: str, **how: Any) -> None:
        answer = client.post(path, **how)
        assert answer.status_code == 201, answer.text

    made("/v1/models", json={"name": "m", "task": "binary", "classes": ["0", "1"]})
    made(
        f"{MODEL}/baselines?name=reference&ordered=true",
        content="\n".join(lines).encode(),
        headers={"content-type": "text/csv"},
    )
    for name, kind in (("inputs", "data_drift"), ("quality", "data_quality")):
        made(f"{MODEL}/monitors", json={"name": name, "kind": kind, "schedule": "hourly", "window": "1h"})


@cache
def warm_up() -> None:
    """Load what is compiled or imported late, from ingest to a judged window: whatever is forked from here has it."""
    start = datetime(2026, 1, 5, tzinfo=UTC)
    clock = SetClock(start)
    with TemporaryDirectory(prefix="plumbline-warm-") as folder:
        settings = Settings.model_validate({"data_dir": folder, "admin_key": ADMIN_KEY, "tick_seconds": 3600})
        with TestClient(create_app(settings, clock), headers=HEADERS) as client:
            declare(client, start)
            clock.move(timedelta(hours=1))
            for count in (40, 2_500):
                sent = [
                    {"prediction_id": f"{count}-{i}", "features": {"age": 40 + i % 9, "job": "clerk"}, "prediction": 1}
                    for i in range(count)
                ]
                client.post(f"{MODEL}/predictions", json=sent).raise_for_status()
                told = [{"prediction_id": row["prediction_id"], "ground_truth": 1} for row in sent]
                client.post(f"{MODEL}/ground-truth", json=told).raise_for_status()
            clock.move(timedelta(hours=3))
            assert client.app.state.scheduler.tick() > 0  # type: ignore[attr-defined]


def fork(target: Callable[..., object], *arguments: object) -> multiprocessing.process.BaseProcess:
    """Run a function in a process of its own that ends with the test."""
    process = FORK.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def killed(processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """End processes at once."""
    for process in processes:
        process.kill()
        process.join()
