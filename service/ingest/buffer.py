"""Acknowledged records that are not sealed: small batches lie in the database, large ones in files that its rows name.

A database writes what it is given twice, page by page, and a table of blobs page after page again when they go. A file
is written once and mapped when it is sealed: for ten thousand records an eighth of the processor time. Behind each
batch stands its checksum, so that bytes that turned on the disk are never sealed as other numbers.
"""

import os
import struct
import zlib
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
_SUM = struct.Struct("<4sI")
_MARK = b"crc1"
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
                    size = file.tell() - start
                    places.append(Place(name, start, size))
                    file.write(_SUM.pack(_MARK, _checksum(path, start, size)))
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
            table = pa.ipc.open_stream(source).read_all()
            size = source.tell() - start
            source.seek(start)
            if _SUM.pack(_MARK, zlib.crc32(source.read_buffer(size))) != source.read(_SUM.size):
                raise BatchDamaged(f"{file}: it does not hold what was written")
            return table
        except (OSError, pa.ArrowException) as error:
            raise BatchDamaged(f"{file or 'a batch'}: {error}") from error

    def discard(self, file: str) -> None:
        """Remove a file that no row was ever committed for."""
        with suppress(OSError):  # a later sweep has another try
            (self.lake / file).unlink()


def _checksum(path: Path, start: int, size: int) -> int:
    """Return the CRC-32 of a part of a file that has just been written: it is read from memory."""
    with pa.memory_map(str(path)) as source:
        source.seek(start)
        return zlib.crc32(source.read_buffer(size))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
