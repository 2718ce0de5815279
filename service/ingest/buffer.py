"""Acknowledged records that are not sealed: small batches lie in the database, large ones in files that its rows name.

A database writes what it is given twice, page by page, and a table of blobs page after page again when they go. A file
is written once and mapped when it is sealed: for ten thousand records an eighth of the processor time.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from service.problems import Problem
from service.words import new_id

FOLDER = "buffer"
"""Beside the segments: whoever may seal a batch, on whatever host, can read it."""
LARGE = 2**17
"""From so many bytes on a batch goes into a file."""
_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


class Place(NamedTuple):
    """Where the rows of a batch are: in a file of the lake, from a byte on, so many bytes long."""

    file: str
    start: int
    size: int


class BatchDamaged(Problem):
    """A file of the buffer is gone or does not hold what was written."""

    status, title = 503, "A file of the buffer cannot be read"


def encode(table: pa.Table) -> bytes:
    """Return rows as an Arrow stream with lz4, the form in which the database holds them."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_LZ4) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


class Buffer:
    """The files of the buffer in the lake's folder, each synced before any row names it."""

    def __init__(self, lake: Path) -> None:
        self.lake = lake
        self._made = False

    def store(self, tables: Sequence[pa.Table]) -> list[Place]:
        """Write batches into one new file and return where each is; on disk when this returns, or nothing is left."""
        name = f"{FOLDER}/{new_id()}.arrows"
        path = self.lake / name
        if not self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sync(path.parent.parent)
            self._made = True
        places = []
        try:
            with pa.OSFile(str(path), "wb") as file:
                for table in tables:
                    start = file.tell()
                    with pa.ipc.new_stream(file, table.schema) as stream:
                        stream.write_table(table)
                    places.append(Place(name, start, file.tell() - start))
                    file.write(bytes(-file.tell() % 64))  # numbers lie aligned when the file is mapped
            _sync(path)
            _sync(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return places

    def rows(self, payload: bytes, file: str | None, start: int) -> pa.Table:
        """Return the rows of a batch; of a file they are mapped, not read. Raises `BatchDamaged`."""
        try:
            if file is None:
                return pa.ipc.open_stream(payload).read_all()
            source = pa.memory_map(str(self.lake / file))
            source.seek(start)
            return pa.ipc.open_stream(source).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise BatchDamaged(f"{file or 'a batch'}: {error}") from error

    def discard(self, file: str) -> None:
        """Remove a file that no row was ever committed for."""
        with suppress(OSError):  # a later sweep has another try
            (self.lake / file).unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
