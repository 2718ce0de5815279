"""One host for SQLite: a lock and a heartbeat beside the database, by which a second host is refused."""

import fcntl
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from service.database import Database
from service.lake.lease import boot
from service.problems import Unavailable

BEAT_SECONDS = 3.0
PATIENCE = 12.0
"""How long the heartbeat of another host is listened for before it is taken to have stopped, seconds."""


class OtherHost(Unavailable):
    """An SQLite file serves the processes of one host: its locks and its shared memory do not reach another."""

    title = "Another host works on this database"


def _lock(database: Database) -> None:
    """Hold a lock beside the file, shared by the processes of this host; `OtherHost` where another host holds it.

    It ends with its process, and a host that is frozen or cut off keeps it. File systems that know no locks, or none
    that reach another host, leave the heartbeat to tell.
    """
    file = database.engine.url.database
    if database.host_lock is not None or not file or file == ":memory:":
        return
    try:
        handle = os.open(Path(f"{file}.host"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        name, _, run = os.pread(handle, 256, 0).decode(errors="replace").strip().rpartition(" ")
        if run and run != boot():
            os.close(handle)
            raise OtherHost(_refusal(name)) from None
    except OSError:
        os.close(handle)
        return
    else:
        os.truncate(handle, 0)
        os.pwrite(handle, f"{socket.gethostname()[:64]} {boot()}".encode(), 0)
    fcntl.flock(handle, fcntl.LOCK_SH)  # another process of this host has all of it for a moment at most
    database.host_lock = handle


def _refusal(name: str) -> str:
    return (
        f"the SQLite database belongs to host {name}, which works on it now; one host may: "
        "stop the service there, or set PLUMBLINE_DATABASE_URL to a PostgreSQL database for several hosts"
    )


@contextmanager
def heart(database: Database) -> Iterator[sqlite3.Connection]:
    """Open the heartbeats for one transaction: in a file beside the database, so that they wake nobody who watches it.

    Its only row is whose heart beats, and how often it did.
    """
    file = database.engine.url.database
    path = f"{file}.heart" if file and file != ":memory:" else ":memory:"
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE IF NOT EXISTS heart (owner TEXT NOT NULL, beats INTEGER NOT NULL)")
        yield connection
        connection.execute("COMMIT")


def beat(database: Database, over: tuple[str, int] | None = None) -> tuple[str, int] | None:
    """Say that this host works on the database; None, or whose heartbeat is there instead and its count.

    ``over`` is a heartbeat that has stood still: where it still does, this host takes its place.
    """
    owner = f"{socket.gethostname()[:64]} {boot()}"
    with heart(database) as connection:
        held: tuple[str, int] | None = connection.execute("SELECT owner, beats FROM heart").fetchone()
        if held is None:
            connection.execute("INSERT INTO heart VALUES (?, 1)", (owner,))
            return None
        if held[0] and held[0].rpartition(" ")[2] != boot() and held != over:
            return held
        connection.execute("UPDATE heart SET owner = ?, beats = beats + 1", (owner,))
    return None


def hold(database: Database, patience: float = PATIENCE) -> None:
    """Take an SQLite database for this host; `OtherHost` where another host's heartbeat goes on.

    It is listened for, not compared with a clock: two hosts need not agree about the time.
    """
    if not database.is_sqlite:
        return
    _lock(database)
    if (other := beat(database)) is None:
        return
    time.sleep(patience)
    if (still := beat(database, other)) is not None:
        raise OtherHost(_refusal(still[0].partition(" ")[0]))


def let_go(database: Database) -> None:
    """Let another host begin without listening first."""
    if not database.is_sqlite:
        return
    if database.host_lock is not None:
        os.close(database.host_lock)
        database.host_lock = None
    with heart(database) as connection:
        connection.execute("UPDATE heart SET owner = '' WHERE owner LIKE ?", (f"% {boot()}",))
