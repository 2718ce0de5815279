"""One database, two ways in: reading, and writing that takes its lock at the start."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

import sqlalchemy.exc
from sqlalchemy import BigInteger, Engine, Integer, create_engine, event
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.types import TypeDecorator

from service.problems import Problem, StorageFull, Unavailable

CONNECT_SECONDS = 5
IDLE_MILLISECONDS = 60_000
"""A PostgreSQL transaction that writes and is left alone for so long is ended: its process is frozen or cut off."""
FULL = ("is full", "disk i/o error", "no space left", "could not extend file")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Return the microseconds from the epoch to an aware time, exactly."""
    if moment.tzinfo is None:
        raise ValueError(f"a time without zone: {moment!r}")
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_microseconds(value: int) -> datetime:
    """Return the UTC time so many microseconds after the epoch."""
    return EPOCH + timedelta(microseconds=value)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment as whole microseconds since 1970 UTC; refuses a time without zone."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Return what is stored."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the moment that was stored."""
        return None if value is None else from_microseconds(int(value))


def failure_of(failed: Exception) -> Problem | None:
    """Return what a caller is told where the database or the disk is what failed; None where it is something else."""
    kinds = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.InternalError)
    if isinstance(failed, OSError):
        return _full() if failed.errno in (errno.ENOSPC, errno.EDQUOT) else None
    if isinstance(failed, sqlalchemy.exc.DBAPIError):
        if any(said in str(failed).lower() for said in FULL):
            return _full()
        gone = failed.connection_invalidated or isinstance(failed, kinds)
    else:
        gone = isinstance(failed, sqlalchemy.exc.TimeoutError)
    if not gone:
        return None
    return Unavailable("the database does not answer now; nothing was stored", headers={"Retry-After": "2"})


def _full() -> Problem:
    told = "there is no room for more; nothing of this request was stored"
    return StorageFull(told, headers={"Retry-After": "30"})


BigKey = BigInteger().with_variant(Integer, "sqlite")


class Database:
    """Sessions for reading (BEGIN) and for writing (BEGIN IMMEDIATE on SQLite); none turns into the other."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self.host_lock: int | None = None
        """The open file by which this process holds an SQLite database for its host: see `service.lake.host`."""
        self.engine = self._engine(url)
        write_engine = self.engine.execution_options(plumbline_write=True)
        self._reading = sessionmaker(self.engine, expire_on_commit=False, autoflush=False)
        self._writing = sessionmaker(write_engine, expire_on_commit=False)
        self._watching: PoolProxiedConnection | None = None
        self._asking = Lock()

    def _engine(self, url: str) -> Engine:
        if not self.is_sqlite:
            return create_engine(
                url,
                hide_parameters=True,
                pool_pre_ping=True,
                pool_size=10,
                max_overflow=20,
                connect_args={"connect_timeout": CONNECT_SECONDS},
            )
        engine = create_engine(
            url,
            hide_parameters=True,
            connect_args={"timeout": 30, "check_same_thread": False},
            pool_size=20,
            max_overflow=40,
        )

        @event.listens_for(engine, "connect")
        def _set_up(connection: Any, _record: object) -> None:
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
                connection.execute(f"PRAGMA {pragma}").close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            write = connection.get_execution_options().get("plumbline_write")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

        return engine

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session on one consistent state; what it changes is never stored."""
        with self._reading() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session that holds the write lock, and commit it where nothing was raised."""
        with self._writing.begin() as session:
            connection = session.connection()  # a session begins at its first statement; the lock is wanted now
            if not self.is_sqlite:
                connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_MILLISECONDS}")
            yield session

    def version(self) -> int | None:
        """Return a number that changes whenever something is committed, by whomever; None where there is none."""
        if not self.is_sqlite:
            return None
        with self._asking:
            if self._watching is None:
                self._watching = self.engine.raw_connection()
            cursor = self._watching.cursor()
            try:
                cursor.execute("PRAGMA data_version")
                return int(cursor.fetchall()[0][0])
            finally:
                cursor.close()

    def close(self) -> None:
        """Give back all connections."""
        with self._asking:
            if self._watching is not None:
                self._watching.close()
                self._watching = None
        self.engine.dispose()
