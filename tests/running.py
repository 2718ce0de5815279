"""A service as a real process on a free port, for tests that go through HTTP or kill it."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx2

ROOT = Path(__file__).parent.parent
PATIENCE = 300.0
"""How long a test waits for what comes within a second or two: only what hangs takes so long, on any machine."""

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of a service on this host: reading the system's certificates takes longer than a request."""

UNHURRIED = {"Prefer": "wait=60"}
"""Asks for the longest that the service lets an answer wait for its job: a slow machine takes more than ten seconds."""


def free_port() -> int:
    """Return a port of this host that nobody listens on.

    Clients are given ports above these: one that knocks while nobody listens would sooner or later reach itself.
    """
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", SystemRandom().randrange(10_000, 32_768)))
            return int(probe.getsockname()[1])


@dataclass
class Service:
    """A process of `plumbline serve`, its address and an admin key."""

    data: Path
    admin_key: str
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the service."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """The file with everything that the process printed."""
        return self.data / "service.log"

    @classmethod
    @contextmanager
    def started(cls, data: Path, *, admin_key: str, **environment: str) -> Iterator["Service"]:
        """Start a service in an empty folder and stop it at the end."""
        running = cls(data, admin_key, free_port(), environment)
        running.start()
        try:
            yield running
        finally:
            running.stop()

    def start(self, command: tuple[str, ...] = (sys.executable, "-m", "service.cli.main")) -> None:
        """Start the process and wait until it answers."""
        self.data.mkdir(parents=True, exist_ok=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PLUMBLINE_")},
            "PLUMBLINE_ADMIN_KEY": self.admin_key,
            "PLUMBLINE_OUTBOUND_ALLOW": "127.0.0.1",
            "PLUMBLINE_OUTBOUND_HTTP": "true",
            "PLUMBLINE_TICK_SECONDS": "0.5",
            "PLUMBLINE_DRAIN_SECONDS": "0",
            **self.environment,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "serve", "--port", str(self.port), "--data", str(self.data)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + PATIENCE
        with self.client(timeout=30) as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise AssertionError(
                        f"the service ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}"
                    )
                with suppress(httpx2.TransportError):
                    if client.get("/healthz").status_code == 200:
                        return
                time.sleep(0.1)
        self.kill()
        raise AssertionError(f"the service did not answer within {PATIENCE:g} s:\n{self.log.read_text()[-4000:]}")

    def stop(self) -> None:
        """Ask the process to end and wait for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End the process at once, without a chance to finish anything."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def client(self, **options: Any) -> httpx2.Client:
        """Return a client with the admin key."""
        headers = {"Authorization": f"Bearer {self.admin_key}", **UNHURRIED}
        options.setdefault("timeout", PATIENCE)
        options.setdefault("verify", PLAIN)
        return httpx2.Client(base_url=self.url, headers=headers, **options)
