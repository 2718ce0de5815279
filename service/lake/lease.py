"""Leases: a piece of work that one process does at a time, until it ends, is killed, or runs out of time."""

import os
import socket
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.database import EPOCH, Database
from service.problems import Unavailable
from service.tables import LeaseRow

SECONDS = 60.0


@cache
def _boot() -> str:
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
    return f"{socket.gethostname()[:64]} {_boot()} {os.getpid()} {_born(os.getpid()) or '?'}"


def is_gone(owner: str) -> bool:
    """Return whether the owner was a process of this host that has ended."""
    parts = owner.split(" ")
    if len(parts) != 4 or parts[0] != socket.gethostname()[:64] or parts[3] == "?":
        return False
    return parts[1] != _boot() or _born(int(parts[2])) != parts[3]


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
        """Let the next one have it."""
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
        elif row.owner and row.until > now and not is_gone(row.owner):
            return None
        row.owner, row.token, row.until = owner, row.token + 1, now + timedelta(seconds=seconds)
        return Lease(name, owner, row.token)
