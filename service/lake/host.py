"""One host for SQLite: a heartbeat in the database by which a second host is noticed and refused."""

import socket
import time

from service.database import EPOCH, Database
from service.lake.lease import boot
from service.problems import Unavailable
from service.tables import LeaseRow

BEAT_SECONDS = 3.0
PATIENCE = 12.0
"""How long the heartbeat of another host is listened for before it is taken to have stopped, seconds."""
NAME = "host"


class OtherHost(Unavailable):
    """An SQLite file serves the processes of one host: its locks and its shared memory do not reach another."""

    title = "Another host works on this database"


def beat(database: Database, over: tuple[str, int] | None = None) -> tuple[str, int] | None:
    """Say that this host works on the database; None, or whose heartbeat is there instead and its count.

    ``over`` is a heartbeat that has stood still: where it still does, this host takes its place.
    """
    owner = f"{socket.gethostname()[:64]} {boot()}"
    with database.writing() as session:
        row = session.get(LeaseRow, NAME, with_for_update=True)
        if row is None:
            session.add(LeaseRow(name=NAME, owner=owner, token=1, until=EPOCH))
            return None
        held = (row.owner, row.token)
        if row.owner and row.owner.rpartition(" ")[2] != boot() and held != over:
            return held
        row.owner, row.token = owner, row.token + 1
    return None


def hold(database: Database, patience: float = PATIENCE) -> None:
    """Take an SQLite database for this host; `OtherHost` where another host's heartbeat goes on.

    It is listened for, not compared with a clock: two hosts need not agree about the time.
    """
    if not database.is_sqlite or (other := beat(database)) is None:
        return
    time.sleep(patience)
    if (still := beat(database, other)) is not None:
        raise OtherHost(
            f"the SQLite database belongs to host {still[0].partition(' ')[0]}, which works on it now; one host may: "
            "stop the service there, or set PLUMBLINE_DATABASE_URL to a PostgreSQL database for several hosts"
        )


def let_go(database: Database) -> None:
    """Let another host begin without listening first."""
    if not database.is_sqlite:
        return
    with database.writing() as session:
        row = session.get(LeaseRow, NAME)
        if row is not None and row.owner.rpartition(" ")[2] == boot():
            row.owner = ""
