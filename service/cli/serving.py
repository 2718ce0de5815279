"""The serving process: one socket, one uvicorn server, and word of it once it answers."""

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy import func, select

from service.app import create_app
from service.assembly import Assembly, assemble, check_secret
from service.cli import logs
from service.lake import host
from service.problems import Problem
from service.scheduler import working
from service.schema import migrate
from service.settings import Settings
from service.tables import ApiKeyRow

BACKLOG = 2048
CONCURRENCY = 1000
"""Connections served at once; more are answered 503 at the door."""
GRACE_SECONDS = 20
LIMIT_SECONDS = 29.0
"""What is still at work then is given up: it was never acknowledged, or will be taken up again by its lease."""


def end_at_the_latest(seconds: float) -> None:
    """End this process so many seconds from now, whatever it does: a run of a monitor may take longer."""

    def end() -> None:
        structlog.get_logger(__name__).warning("work was given up at the end", seconds=seconds)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def sign_in_url(assembly: Assembly) -> str:
    """Return the address of a link that signs a browser in, once, within a day."""
    return f"{assembly.settings.public_url.rstrip('/')}/sign-in/{assembly.keyring.sign_in_link()}"


def first_key(assembly: Assembly) -> str | None:
    """Make the first key of an installation that has none, and return its text; None where one exists."""
    with assembly.database.reading() as session:
        if session.scalar(select(func.count()).select_from(ApiKeyRow)):
            return None
    return assembly.keyring.make("first start")


def offline(settings: Settings) -> Assembly:
    """Return the parts with the schema and keys up to date and nothing running, for commands beside a server."""
    assembly = assemble(settings)
    migrate(assembly.database)
    host.hold(assembly.database)
    check_secret(assembly.database, assembly.secret)
    assembly.keyring.start()
    return assembly


def work(settings: Settings, announce: Callable[[Assembly], None]) -> None:
    """Do what the roles say without a socket, until SIGTERM or Ctrl-C ends it."""
    logs.configure(settings.log_level)
    over = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        end_at_the_latest(LIMIT_SECONDS)
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    assembly = assemble(settings)
    with working(assembly):
        announce(assembly)
        over.wait()


def settle() -> None:
    """Spare the collector what start-up made for good, and let threads take turns soon.

    Reading a thousand records makes thousands of short-lived objects; each would let the collector walk through all
    modules again. A thread that stores records waits a millisecond for its turn, not five.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(0.001)


class Server(uvicorn.Server):
    """A uvicorn server that tells when it answers, and when it is asked to end goes on answering for a moment.

    After SIGTERM `/readyz` says 503 at once, so that a load balancer sends no more; the socket is closed a little
    later. A second signal, or Ctrl-C, closes it now.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None], app: FastAPI, drain: float) -> None:
        super().__init__(config)
        self._announce = announce
        self._app = app
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Say no longer ready, end after the time to drain, and at the latest half a minute after the signal."""
        already = getattr(self._app.state, "draining", False)
        self._app.state.draining = True
        if not already:
            end_at_the_latest(LIMIT_SECONDS)
        if sig == signal.SIGTERM and not already and self._drain:
            timer = threading.Timer(self._drain, super().handle_exit, (sig, frame))
            timer.daemon = True
            timer.start()
            return
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take a signal as the wish to end, and end well: what asked for the end need not be told of it again."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the socket, then tell."""
        await super().startup(sockets)
        settle()
        if self.started and not self.should_exit:
            self._announce()


def run(
    settings: Settings,
    listening: socket.socket,
    announce: Callable[[Assembly, Callable[[], None]], None],
    *,
    log_level: str | None = None,
    log_stream: TextIO | None = None,
) -> bool:
    """Serve until a signal ends it; return whether it ever answered. A `Problem` says why it must not start.

    `announce` is called once when it does, with the parts and a function that ends the serving.
    """
    logs.configure(log_level or settings.log_level, log_stream)
    app: FastAPI = create_app(settings)
    server = Server(configured(app, settings), lambda: announce(app.state.assembly, stop), app, settings.drain_seconds)

    def stop() -> None:
        server.should_exit = True

    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    refusal = getattr(app.state, "refusal", None)
    if isinstance(refusal, Problem):
        raise refusal
    return server.started


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return how the application is served."""
    return uvicorn.Config(
        app,
        http="httptools",
        loop="auto",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        backlog=BACKLOG,
        limit_concurrency=CONCURRENCY,
        timeout_graceful_shutdown=GRACE_SECONDS,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
    )
