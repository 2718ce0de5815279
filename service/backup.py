"""Backup and restore: the database as one SQLite file, whichever it is in, and the files of the lake that it names.

A backup is taken beside a running service: first the database as it is at one moment, then the files that it names,
none of which changes and each of which is kept for a while after it is replaced. Its manifest, with the digest of
everything, is written last: a folder without one is no backup. It may be restored into SQLite or PostgreSQL.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service import notices, schema
from service.assembly import fingerprint, secret_of
from service.clock import Clock
from service.database import Database
from service.lake import Lake
from service.lake.files import DIGEST, IDENTITY, named_files
from service.problems import Conflict, Problem
from service.settings import Settings, software
from service.tables import Base, JobRow, LeaseRow, PropertyRow, RunRow, SessionRow
from service.words import UNFINISHED, format_time

FORMAT = 1
MANIFEST, DATABASE, SECRET, FILES = "manifest.json", "database.sqlite", "secret.key", "lake"
ROWS = 500
"""Rows copied at once; some hold megabytes."""
SHOWN = 5


class BackupDamaged(Problem):
    """A backup does not hold what its manifest says."""

    status, title = 409, "The backup is damaged"


@dataclass(frozen=True)
class Outcome:
    """What a backup or a restore has done, for whoever asked for it."""

    files: int
    bytes: int
    rows: int
    missing: tuple[str, ...] = ()
    """Files that were gone or damaged before the backup."""

    def document(self) -> dict[str, object]:
        """Return it for machines."""
        return {"files": self.files, "bytes": self.bytes, "rows": self.rows, "missing": list(self.missing)}


# --- backup -----------------------------------------------------------------------------------------------------------


def backup(settings: Settings, target: Path, clock: Clock, *, verify: bool = False) -> Outcome:
    """Write a backup into a new or empty folder; ``verify`` reads it back. `Conflict` where the folder holds anything.

    The secret's file goes with it, readable by its owner alone: without it no webhook's secret could be read and no id
    recognised. Where the secret is a setting, the restored service needs the same.
    """
    if target.exists() and any(target.iterdir()):
        raise Conflict(f"{target} is not empty; a backup goes into a folder of its own")
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    source = Database(settings.database)
    try:
        _snapshot(source, target / DATABASE)
    finally:
        source.close()
    with _opened(target / DATABASE) as database:
        _leave_out_who_is_there(database)
        with database.reading() as session:
            named = named_files(session, clock.now())
            rows = sum(_count(session.connection(), table) for table in Base.metadata.sorted_tables)
            step = schema.current(session.connection())
    lake, files, missing = settings.lake, {}, []
    for path in list(named):  # protected attributes, row samples: what stands beside a file that a row names
        beside = (lake / path).parent.glob(f"{Path(path).name.partition('.')[0]}.*")
        for name in (other.relative_to(lake).as_posix() for other in beside):
            if not name.endswith(".tmp"):
                named.setdefault(name, None)
    for path, checksum in sorted(named.items()):
        try:
            digest, size = _copied(lake / path, target / FILES / path)
        except OSError:
            missing.append(path)
            continue
        if checksum and checksum[:DIGEST] != digest:
            missing.append(path)
        files[path] = {"digest": digest, "size": size}
    secret = settings.data_dir / SECRET
    if settings.secret_key is None and secret.exists():
        (target / SECRET).touch(mode=0o600)
        (target / SECRET).write_bytes(secret.read_bytes())
    manifest = {
        "format": FORMAT,
        "software": software(),
        "schema": step,
        "made_at": format_time(clock.now()),
        "secret": fingerprint(secret_of(settings)),
        "database": {"digest": _digest(target / DATABASE), "size": (target / DATABASE).stat().st_size, "rows": rows},
        "files": files,
        "missing": missing,
    }
    _write(target / MANIFEST, json.dumps(manifest, indent=1).encode())
    if verify:
        check(target)
    return Outcome(len(files), sum(int(str(file["size"])) for file in files.values()), rows, tuple(missing))


def _snapshot(source: Database, path: Path) -> None:
    """Write the database as it is at this moment into a new SQLite file."""
    if source.is_sqlite:
        with source.engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.execute("VACUUM INTO ?", (str(path),)).close()
        return
    with _opened(path) as made:
        schema.migrate(made)
        isolated = source.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with isolated.connect() as there:
            if schema.current(there) != schema.head():
                raise Conflict("the database is not at this software's schema; run `plumbline migrate` first")
            with made.engine.execution_options(plumbline_write=True).begin() as here:
                _copy_tables(there, here)


def _copy_tables(there: Connection, here: Connection) -> None:
    """Copy every row of every table, parents first, into tables that are empty."""
    for table in Base.metadata.sorted_tables:
        keys = list(table.primary_key.columns)
        result = there.execution_options(yield_per=ROWS).execute(sa.select(table).order_by(*keys))
        for part in result.mappings().partitions(ROWS):
            here.execute(sa.insert(table), [dict(row) for row in part])


def _leave_out_who_is_there(database: Database) -> None:
    """Take out what belongs to the processes and browsers of the moment, so that nobody waits for them elsewhere."""
    with database.writing() as session:
        session.execute(sa.delete(LeaseRow))
        session.execute(sa.delete(SessionRow))
        idle: dict[str, Any] = {"owner": None, "lease_until": None}
        session.execute(sa.update(RunRow).where(RunRow.status == "running").values(status="queued", **idle))
        going = sa.update(JobRow).where(JobRow.state.in_(UNFINISHED), JobRow.owner.is_not(None))
        session.execute(going.values(state="failed", error="the service was restored from a backup", **idle))


# --- the check --------------------------------------------------------------------------------------------------------


def check(source: Path) -> dict[str, Any]:
    """Return a backup's manifest after reading every byte that it speaks of; `BackupDamaged` names what differs."""
    try:
        manifest: dict[str, Any] = json.loads((source / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise BackupDamaged(f"{source} is no whole backup: its {MANIFEST} cannot be read ({error})") from error
    if manifest.get("format") != FORMAT:
        raise BackupDamaged(f"{source} has the format {manifest.get('format')}; this software reads {FORMAT}")
    wrong = [] if _is(source / DATABASE, manifest["database"]["digest"]) else [DATABASE]
    wrong += [path for path, file in manifest["files"].items() if not _is(source / FILES / path, file["digest"])]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise BackupDamaged(f"{', '.join(wrong[:SHOWN])}{more} in {source} are not what was backed up")
    return manifest


def _is(path: Path, digest: str) -> bool:
    try:
        return _digest(path) == digest
    except OSError:
        return False


# --- restore ----------------------------------------------------------------------------------------------------------


def restore(settings: Settings, source: Path, clock: Clock) -> Outcome:
    """Put a backup into an empty installation and hold its outbound calls until `plumbline resume`.

    `Conflict` where there is a database or a lake already. Nothing counts before the last step: one that was cut off
    is begun again.
    """
    manifest = check(source)
    _place_secret(settings, source, manifest)
    database = Database(settings.database)
    try:
        _check_empty(database)
        lake = Lake(settings.lake)
        settings.lake.mkdir(parents=True, exist_ok=True)
        _check_lake(lake, source)
        size = 0
        for path, file in manifest["files"].items():
            written = lake.write(path, partial(shutil.copyfile, source / FILES / path))
            if written.checksum != file["digest"]:
                raise BackupDamaged(f"{path} changed while it was copied")
            size += written.size
        rows = _restore_database(database, source / DATABASE, lake, clock.now())
    finally:
        database.close()
    return Outcome(len(manifest["files"]), size, rows, tuple(manifest["missing"]))


def _place_secret(settings: Settings, source: Path, manifest: dict[str, Any]) -> None:
    path = settings.data_dir / SECRET
    if settings.secret_key is None and not path.exists() and (source / SECRET).exists():
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes((source / SECRET).read_bytes())
    if fingerprint(secret_of(settings)) != manifest["secret"]:
        raise Conflict("the backup was made with another secret; set PLUMBLINE_SECRET_KEY to the one that it had")


def _check_empty(database: Database) -> None:
    if database.is_sqlite and not Path(str(database.engine.url.database)).exists():
        return
    with database.engine.connect() as connection:
        found = set(sa.inspect(connection).get_table_names())
        for table in Base.metadata.sorted_tables:
            if table.name in found and _count(connection, table):
                raise Conflict("the database is not empty; a backup is restored into an empty installation")


def _check_lake(lake: Lake, source: Path) -> None:
    identity = lake.path(IDENTITY)
    if identity.exists() and identity.read_text().strip() != _lake_of(source):
        raise Conflict(f"{lake.root} is the lake of another database; a backup is restored into an empty one")


def _lake_of(source: Path) -> str:
    with _opened(source / DATABASE) as database, database.reading() as session:
        return session.get_one(PropertyRow, "lake").value


def _restore_database(database: Database, source: Path, lake: Lake, now: datetime) -> int:
    """Bring the backup's database to this software's schema beside its place, then into it as a whole."""
    passing = lake.root / "restoring.sqlite"
    try:
        for left in lake.root.glob("restoring.sqlite*"):
            left.unlink()
        shutil.copyfile(source, passing)
        with _opened(passing) as made:
            schema.migrate(made)
            with made.writing() as session:
                sentence = "Outbound calls wait since this installation was restored; `plumbline resume` lets them go."
                notice = notices.tell(session, now, notices.HELD, f"restored {format_time(now)}", sentence)
                notice.told_at = now  # no call says that no call is made
                identity = session.get_one(PropertyRow, "lake").value
            with made.reading() as session:
                rows = sum(_count(session.connection(), table) for table in Base.metadata.sorted_tables)
            if not database.is_sqlite:
                schema.migrate(database)
                with made.engine.connect() as there, database.engine.begin() as here:
                    _copy_tables(there, here)
                    _number_on(here)
        lake.write(IDENTITY, lambda path: path.write_text(identity))
        if database.is_sqlite:
            _put_in_place(passing, Path(str(database.engine.url.database)))
    finally:
        for left in lake.root.glob("restoring.sqlite*"):
            left.unlink()
    return rows


def _put_in_place(passing: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{target.name}.restoring")
    shutil.copyfile(passing, fresh)
    _sync(fresh)
    for left in (f"{target.name}-wal", f"{target.name}-shm"):
        target.with_name(left).unlink(missing_ok=True)
    fresh.rename(target)
    _sync(target.parent)


def _number_on(here: Connection) -> None:
    """Let PostgreSQL give the numbers after those that were copied."""
    for table in Base.metadata.sorted_tables:
        if "id" not in table.c:
            continue
        newest = here.scalar(sa.select(sa.func.max(table.c.id)))
        sequence = here.scalar(sa.select(sa.func.pg_get_serial_sequence(f'"{table.name}"', "id")))
        if newest is not None and sequence is not None:
            here.execute(sa.select(sa.func.setval(sequence, newest)))


# --- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[Database]:
    """Open an SQLite file that nobody else has, and leave nothing beside it."""
    database = Database(f"sqlite:///{path.resolve()}")
    try:
        yield database
        with database.engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    finally:
        database.close()
        path.with_name(f"{path.name}.migrating").unlink(missing_ok=True)


def _count(connection: Connection, table: sa.Table) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()


def _copied(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file so that it is on disk, and return its digest and size."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    _sync(target)
    return _digest(target), target.stat().st_size


def _write(path: Path, text: bytes) -> None:
    passing = path.with_name(f"{path.name}.tmp")
    passing.write_bytes(text)
    _sync(passing)
    passing.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
