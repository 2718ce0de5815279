"""The lake's files: written whole or not at all, read by column, never trusted without their row in SQL."""

import errno
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import blake2b, file_digest
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import null, select
from sqlalchemy.orm import Session

from service.database import Database
from service.ingest.buffer import FOLDER
from service.problems import Problem, StorageFull, Unavailable
from service.tables import Base, PropertyRow, RetrainingRow

ROW_GROUP = 65_536
"""Rows that are decoded together: a day of a long segment is read without the rest."""
GARBAGE_SECONDS = 24 * 3600
"""How long a file without a row is kept, so that a backup of an older database finds its files."""
BUFFERED_SECONDS = 3600
"""The same of a file of the buffer: its rows are in segments now, and it would double them for a day."""
IDENTITY = "lake.id"
FILE_COLUMNS = {"path", "file"}
"""Columns of any table by these names say where something is in the lake."""
QUARANTINE = "quarantine"
DIGEST = 32
"""Hexadecimal digits of the digest of a whole file; a segment's checksum is followed by its footer's."""
NEVER_DICTIONARIES = ("prediction_id",)
"""Text that does not repeat."""


class Written(NamedTuple):
    """What the manifest keeps of a file."""

    checksum: str
    size: int


class SegmentDamaged(Problem):
    """A file of the lake is gone or does not hold what was written."""

    status, title = 503, "A file of the lake cannot be read"


def _declared(table: pa.Table, *, gaps: bool) -> pa.Table:
    """Return the rows under a schema in which all columns may have gaps, or only those that have some."""
    schema = table.schema
    for place, column in enumerate(table.columns):
        some = gaps or column.null_count > 0 or pa.types.is_null(column.type)
        schema = schema.set(place, schema.field(place).with_nullable(some))
    return pa.Table.from_arrays(table.columns, schema=schema) if table.columns else table


def footer_digest(path: Path) -> str:
    """Return the digest of a Parquet file's footer: where its columns are, which no page's checksum covers.

    OSError where there is no footer.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little")
        if length + 8 > size:
            raise OSError(f"{path.name} has no footer")
        file.seek(size - 8 - length)
        return blake2b(file.read(), digest_size=16).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _room() -> Iterator[None]:
    """Say that the disk is full where it is."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise StorageFull(
                "the lake's disk has no room; nothing was lost, free some space", headers={"Retry-After": "60"}
            ) from error
        raise


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is text, plain or as dictionary."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


def named_files(session: Session, now: datetime) -> dict[str, str | None]:
    """Return every file of the lake that a row of any table names, with its checksum where the row has one.

    The rows that a retraining was given are among them for as long as a link to them is valid, see `training_file`.
    """
    found: dict[str, str | None] = {}
    for table in Base.metadata.sorted_tables:
        for name in FILE_COLUMNS & set(table.c.keys()):
            checksum = table.c.checksum if "checksum" in table.c else null()
            rows = session.execute(select(table.c[name], checksum).where(table.c[name].is_not(None)).distinct())
            found.update((str(path), said) for path, said in rows)
    given = session.scalars(select(RetrainingRow.uid).where(RetrainingRow.training_until > now))
    return found | {training_file(uid): None for uid in given}


def training_file(uid: str) -> str:
    """Return where the rows are that a retraining is given, relative to the lake."""
    return f"training/{uid}.parquet"


class Lake:
    """A folder of immutable files; ``secret`` keys the hashes by which predictions are found."""

    def __init__(self, root: Path, secret: bytes = bytes(32)) -> None:
        self.root = root
        self.secret = secret
        self._suspects: dict[str, str] = {}
        self._lock = Lock()

    def damaged(self, relative: str, why: object) -> SegmentDamaged:
        """Return the problem that a file cannot be read, and remember it for `service.lake.quarantine`."""
        with self._lock:
            self._suspects[relative] = str(why)
        return SegmentDamaged(f"{relative}: {why}", headers={"Retry-After": "1"})

    def suspects(self) -> dict[str, str]:
        """Return the files that could not be read since this was asked last, each with the reason."""
        with self._lock:
            found, self._suspects = self._suspects, {}
        return found

    def path(self, relative: str) -> Path:
        """Return where a file of the manifest is; names are made here and never from what users send."""
        return self.root / relative

    def adopt(self, database: Database) -> str:
        """Return the lake's id after checking that database and lake belong together.

        The first start makes the id. Where the database knows another id, or the lake lacks it (a volume that is not
        mounted, another host's folder), `Unavailable` is raised: the process must not start.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        file = self.path(IDENTITY)
        found = file.read_text().strip() if file.exists() else None
        with database.writing() as session:
            known = session.get(PropertyRow, "lake")
            if known is None:
                if found is None:
                    found = uuid.uuid4().hex
                    self.write(IDENTITY, lambda path: path.write_text(found or ""))
                session.add(PropertyRow(name="lake", value=found))
                return found
            if known.value != found:
                raise Unavailable(
                    f"the folder {self.root} is not the lake of this database (it holds "
                    f"{found or 'no lake.id'}, the database names {known.value}); mount the right "
                    "one or set PLUMBLINE_LAKE_URL"
                )
            return known.value

    def write(self, relative: str, fill: Callable[[Path], object]) -> Written:
        """Let ``fill`` write a file under a passing name, then put it in place for good: synced, renamed, synced."""
        target = self.path(relative)
        with _room():
            self._folder(target.parent)
            passing = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.tmp")
            try:
                fill(passing)
                _sync(passing)
                with passing.open("rb") as file:
                    checksum = file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()
                size = passing.stat().st_size
                passing.rename(target)
            except BaseException:
                passing.unlink(missing_ok=True)
                raise
            _sync(target.parent)
        return Written(checksum, size)

    def _folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)

    def write_segment(self, table: pa.Table, relative: str, *, compacted: bool = False) -> Written:
        """Store rows as Parquet, fast to write and to read (lz4), or small (zstd, split floats) where compacted.

        Columns without gaps are stored as ones that have none: they are read a sixth faster.
        """
        table = _declared(table, gaps=False)
        texts = [field.name for field in table.schema if is_text(field.type) and field.name not in NEVER_DICTIONARIES]
        floats = [field.name for field in table.schema if pa.types.is_float64(field.type)]
        layout = (
            {"compression": "zstd", "compression_level": 1, "use_byte_stream_split": floats}
            if compacted
            else {"compression": "lz4"}
        )

        def fill(path: Path) -> None:
            pq.write_table(
                table, path, row_group_size=ROW_GROUP, use_dictionary=texts, write_page_checksum=True, **layout
            )

        written = self.write(relative, fill)
        return Written(written.checksum + footer_digest(self.path(relative)), written.size)

    def open(self, relative: str, checksum: str = "") -> pq.ParquetFile:
        """Open a segment; text comes as dictionary codes, pages are checked against their checksums when read.

        ``checksum`` is the manifest's; with it the footer is checked too. A missing or torn file is `SegmentDamaged`.
        """
        path = self.path(relative)
        try:
            if len(checksum) > DIGEST and footer_digest(path) != checksum[DIGEST:]:
                raise OSError("its footer is not what was written")
            schema = pq.read_schema(path, memory_map=True)
            texts = [field.name for field in schema if is_text(field.type) and field.name not in NEVER_DICTIONARIES]
            return pq.ParquetFile(path, memory_map=True, read_dictionary=texts, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise self.damaged(relative, error) from error

    def read_table(
        self,
        relative: str,
        columns: Sequence[str] | None = None,
        groups: Sequence[int] | None = None,
        checksum: str = "",
    ) -> pa.Table:
        """Return a segment's rows, of ``columns`` those that it has, of ``groups`` where only these are wanted."""
        file = self.open(relative, checksum)
        names = [name for name in file.schema_arrow.names if columns is None or name in columns]
        wanted = range(file.num_row_groups) if groups is None else groups
        try:
            table = file.read_row_groups(list(wanted), columns=names, use_threads=file.metadata.num_rows > ROW_GROUP)
        except (OSError, pa.ArrowException) as error:
            raise self.damaged(relative, error) from error
        return _declared(table.select(names), gaps=True)

    def intact(self, relative: str, checksum: str) -> bool:
        """Return whether a file is there and holds, byte for byte, what was written."""
        try:
            with self.path(relative).open("rb") as file:
                return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest() == checksum[:DIGEST]
        except OSError:
            return False

    def set_aside(self, relative: str, *, copy: bool = False) -> None:
        """Move a file, if it is there, to where nothing reads or sweeps it, for whoever can mend it.

        With ``copy`` it stays where it is too, since others of its rows may be whole.
        """
        target = self.path(QUARANTINE) / relative.replace("/", "-")
        self._folder(target.parent)
        with suppress(FileNotFoundError, FileExistsError):
            if copy:
                target.hardlink_to(self.path(relative))
            else:
                self.path(relative).rename(target)

    def remove(self, relative: str) -> None:
        """Remove a file, if it is there."""
        self.path(relative).unlink(missing_ok=True)

    def forget(self, relative: str) -> None:
        """Begin the day after which a file that no row names any more is swept: readers may still be at it."""
        with suppress(FileNotFoundError):
            os.utime(self.path(relative))

    def sweep(self, known: Collection[str]) -> int:
        """Remove files that no row names and that are older than a day, of the buffer an hour; return how many.

        A known ``a/b.parquet`` keeps what stands beside it as ``a/b.<anything>``. Ages are counted from the time of
        day at which a file written now would be stamped, whatever the service's clock says.
        """
        self.write("sweep", Path.touch)
        now = self.path("sweep").stat().st_mtime
        kept, removed = {name.partition(".")[0] for name in (*known, IDENTITY, "sweep")}, 0
        for path in list(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if name.partition(".")[0] in kept or name.startswith(f"{QUARANTINE}/") or not path.is_file():
                continue
            kept_for = BUFFERED_SECONDS if path.parent.name == FOLDER else GARBAGE_SECONDS
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > kept_for:
                    path.unlink()
                    removed += 1
        return removed
