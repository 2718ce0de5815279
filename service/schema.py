"""Bring a database to the newest schema, under a lock, so that several processes may start at once."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from service.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

ADVISORY_LOCK = 0x706C756D62
"""Any number, the same for every process of this product."""


def config(connection: Connection | None = None) -> "Config":
    """Return alembic's configuration: the steps are package data, the connection is handed over."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(resources.files("migrations")))
    if connection is not None:
        made.attributes["connection"] = connection
    return made


@cache
def head() -> str:
    """Return the name of the newest step: the four digits that its file begins with."""
    steps = (entry.name for entry in resources.files("migrations.versions").iterdir())
    return max(name[:4] for name in steps if name.endswith(".py") and name[:4].isdigit())


def current(connection: Connection) -> str | None:
    """Return the name of the step that the database has reached; none before the first."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    reached: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return reached


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Wait until no other process migrates: a file lock beside an SQLite file (PostgreSQL locks in the transaction)."""
    path = database.engine.url.database
    if not database.is_sqlite or not path or path == ":memory:":
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{path}.migrating").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def migrate(database: Database) -> str:
    """Run the steps that are missing, all or none, and return the name of the newest one."""
    with _alone(database):
        engine = database.engine.execution_options(plumbline_write=True)
        with engine.begin() as connection:
            if not database.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            if current(connection) != head():
                from alembic import command

                command.upgrade(config(connection), "head")
    return head()
