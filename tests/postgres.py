"""A PostgreSQL server of the tests' own: initdb in a folder in memory or on disk, a socket, no network."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from sqlalchemy import text

from service.database import Database
from tests.running import PATIENCE


class NoServer(RuntimeError):  # noqa: N818 - read as a sentence
    """What a machine lacks that cannot run a server."""


def binaries() -> Path | None:
    """Return the folder of the newest server binaries of this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _owner() -> int | None:
    """Return the user that may run the server where we are root, which it refuses."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_uid
    except KeyError:
        raise NoServer("PostgreSQL refuses to run as root and there is no user postgres") from None


@dataclass
class Cluster:
    """A running server, reached through a socket in its folder."""

    folder: Path
    owner: int | None
    server: "subprocess.Popen[bytes] | None" = None

    @classmethod
    @contextmanager
    def started(cls) -> Iterator["Cluster"]:
        """Do what `running` does for a test, and skip it where there can be no server."""
        import pytest  # benchmarks run where it is not installed

        with ExitStack() as stack:
            try:
                cluster = stack.enter_context(cls.running())
            except NoServer as lacking:
                pytest.skip(str(lacking))
            yield cluster

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["Cluster"]:
        """Make a server in a fresh folder and remove it at the end; durable settings stay as they are by default."""
        tools = binaries()
        if tools is None:
            raise NoServer("no PostgreSQL server binaries (on Debian: apt-get install postgresql)")
        owner = _owner()
        folder = Path(tempfile.mkdtemp(prefix="plumbline-pg-"))
        if owner is not None:
            os.chown(folder, owner, -1)
        try:
            subprocess.run(
                [tools / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
                user=owner, cwd=folder, check=True, capture_output=True,
            )  # fmt: skip
            cluster = cls(folder, owner)
            try:
                cluster.start()
                yield cluster
            finally:
                cluster.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        tools = binaries()
        assert tools is not None
        with (self.folder / "log").open("ab") as log:
            self.server = subprocess.Popen(
                [tools / "postgres", "-D", self.folder / "data", "-k", self.folder, "-c", "listen_addresses="],
                user=self.owner, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip
        self._wait(self.server)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server without waiting for clients: fast (SIGINT), or at once (SIGQUIT) as if it had crashed."""
        if self.server is not None:
            self.server.send_signal(how)
            self.server.wait(PATIENCE)
            self.server = None

    def _wait(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres").close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise AssertionError((self.folder / "log").read_text()[-2000:]) from None
                time.sleep(0.05)
            else:
                return

    def new_database(self, name: str) -> str:
        """Make an empty database and return its SQLAlchemy URL."""
        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        return f"postgresql+psycopg://postgres@/{name}?host={quote(str(self.folder), safe='')}"


def wait_for_a_lock(database: Database, over: Callable[[], bool]) -> None:
    """Wait until a session of a database waits for what another one has locked, or until what may do so is over."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + PATIENCE
    while not over() and time.monotonic() < deadline:
        with database.reading() as session:
            if session.scalar(text(waiting)):
                return
        time.sleep(0.02)
