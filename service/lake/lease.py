"""Leases: a piece of work that one process does at a time, until it ends, is killed, or runs out of time."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from service.database import EPOCH, Database
from service.problems import Unavailable
from service.tables import LeaseRow

SECONDS = 60.0
RENEWALS = 3
"""How often a lease is renewed within its own length: one or two that come late lose nothing."""

log = structlog.get_logger(__name__)

_held: set[tuple[str, str, int]] = set()
"""What threads of this process work under: the database, the lease's name and token."""


@cache
def boot() -> str:
    """Return what tells this run of this machine's kernel from every other: the same in all of its containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def _born(process: int) -> str | None:
    """Return when a process of this host started, in the kernel's ticks; None where none runs under this number."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def owner_here() -> str:
    """Return the name of this process, by which others can tell whether it still lives."""
    return f"{socket.gethostname()[:64]} {boot()} {os.getpid()} {_born(os.getpid()) or '?'}"


def is_gone(owner: str, database: Database) -> bool:
    """Return whether the owner is known to have ended: a process of this host, or of an earlier run of it.

    Of a process in another container or on another host nothing is known: its lease has to run out. SQLite has one
    host, so that whoever worked before it was started anew is gone.
    """
    parts = owner.split(" ")
    if len(parts) != 4 or parts[3] == "?":
        return False
    if parts[1] != boot():
        return database.is_sqlite
    return parts[0] == socket.gethostname()[:64] and _born(int(parts[2])) != parts[3]


@contextmanager
def kept(renew: Callable[[], object], seconds: float) -> Iterator[None]:
    """Renew a lease of so many seconds, in a thread of its own, for as long as the block works.

    A renewal that fails because the lease is lost is the last: what the block stores is fenced off by its token.
    """
    over = threading.Event()

    def work() -> None:
        while not over.wait(seconds / RENEWALS):
            try:
                renew()
            except LeaseLost as lost:
                log.warning("a lease was lost at work", reason=lost.detail)
                return
            except SQLAlchemyError as error:  # the database may come back before the lease has run out
                log.warning("a lease could not be renewed", reason=type(error).__name__)

    thread = threading.Thread(target=work, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class LeaseLost(Unavailable):
    """Another process took over while this one worked; what this one did is not stored."""

    title = "Another process has taken over"


@dataclass(frozen=True)
class Lease:
    """The right to do something alone; ``token`` grows with each holder and fences late writes."""

    name: str
    owner: str
    token: int

    def check(self, session: Session) -> None:
        """Make sure, in the transaction that stores the work, that the lease is still ours; else `LeaseLost`."""
        row = session.get(LeaseRow, self.name, with_for_update=True)
        if row is None or (row.token, row.owner) != (self.token, self.owner):
            raise LeaseLost(f"the lease {self.name} went to another process")

    def renew(self, database: Database, seconds: float = SECONDS) -> None:
        """Hold it for longer; `LeaseLost` where it is not ours any more."""
        with database.writing() as session:
            self.check(session)
            row = session.get_one(LeaseRow, self.name)
            row.until = lease_now(session, database) + timedelta(seconds=seconds)

    def release(self, database: Database) -> None:
        """Let the next one have it; where that cannot be written, this process still knows that it is free."""
        _held.discard((database.url, self.name, self.token))
        with database.writing() as session:
            row = session.get(LeaseRow, self.name, with_for_update=True)
            if row is not None and (row.token, row.owner) == (self.token, self.owner):
                row.owner, row.until = "", EPOCH


def lease_now(session: Session, database: Database) -> datetime:
    """Return the time leases expire by: the database's on PostgreSQL; on SQLite, one host, the time since boot."""
    if database.is_sqlite:
        return EPOCH + timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))
    seconds = session.scalar(select(func.extract("epoch", func.clock_timestamp())))
    return EPOCH + timedelta(seconds=float(seconds or 0.0))


def take(database: Database, name: str, seconds: float = SECONDS) -> Lease | None:
    """Take a lease that is free, has run out, or whose holder is dead; None where somebody works."""
    try:
        return _take(database, name, seconds)
    except IntegrityError:  # another process made the row at the same moment
        return None


def _take(database: Database, name: str, seconds: float) -> Lease | None:
    owner = owner_here()
    with database.writing() as session:
        row = session.get(LeaseRow, name, with_for_update=True)
        now = lease_now(session, database)
        if row is None:
            row = LeaseRow(name=name, owner="", token=0, until=EPOCH)
            session.add(row)
        elif row.owner and row.until > now and not is_gone(row.owner, database):
            forgotten = row.owner == owner and (database.url, name, row.token) not in _held
            if not forgotten:
                return None
        row.owner, row.token, row.until = owner, row.token + 1, now + timedelta(seconds=seconds)
        _held.add((database.url, name, row.token))  # before others can see whose it is
        return Lease(name, owner, row.token)
