"""The id index: from the keyed hash of a prediction id to its bucket and version, in sorted runs merged like a tree."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.lake.files import Lake, SegmentDamaged, Written
from service.tables import IdRunRow

log = structlog.get_logger(__name__)

ENTRY = np.dtype([("hash", "<u8"), ("bucket", "<i4"), ("version", "<i4"), ("content", "<u4")])
"""A prediction: its id's hash, its hour since 1970, its version's id, the hash of what it says."""
MAGIC = b"plumbid1"
HEADER = 16
FAN = 4
"""As many runs of a level are merged into one of the next."""
PART = 4_000_000
"""Entries merged in memory at once."""

Entries = NDArray[np.void]


@dataclass(frozen=True)
class Run:
    """A file of entries sorted by hash: a header, then each field as an array of its own, mapped into memory."""

    hash: NDArray[np.uint64]
    bucket: NDArray[np.int32]
    version: NDArray[np.int32]
    content: NDArray[np.uint32]

    def __len__(self) -> int:
        """Return the number of entries."""
        return int(self.hash.size)

    def take(self, where: NDArray[np.intp] | slice) -> Entries:
        """Return the entries at some positions."""
        found = np.empty(self.hash[where].size, ENTRY)
        for name in ENTRY.names or ():
            found[name] = getattr(self, name)[where]
        return found

    def find(self, hashes: NDArray[np.uint64]) -> Entries:
        """Return the entries whose hash is among ``hashes``, which are sorted and distinct."""
        if not len(self) or not hashes.size:
            return np.empty(0, ENTRY)
        first = np.searchsorted(self.hash, hashes, "left")
        hit = first < len(self)
        hit[hit] = self.hash[first[hit]] == hashes[hit]
        first, sought = first[hit], hashes[hit]
        if not first.size:
            return np.empty(0, ENTRY)
        counts = np.searchsorted(self.hash, sought, "right") - first
        total = int(counts.sum())
        where = np.repeat(first - np.concatenate(([0], np.cumsum(counts)[:-1])), counts) + np.arange(total)
        return self.take(where)


def _mapped(path: Path, mode: Any, count: int) -> Run:
    arrays, offset = {}, HEADER
    for name in ENTRY.names or ():
        kind = ENTRY[name]
        arrays[name] = np.memmap(path, kind, mode, offset, (count,)) if count else np.empty(0, kind)
        offset += count * kind.itemsize
    return Run(**arrays)


def read_run(path: Path) -> Run:
    """Map a run's file; a torn one is `SegmentDamaged`."""
    try:
        with path.open("rb") as file:
            header, size = file.read(HEADER), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise SegmentDamaged(f"{path.name}: {error}") from error
    count = int.from_bytes(header[8:16], "little")
    if header[:8] != MAGIC or size != HEADER + count * ENTRY.itemsize:
        raise SegmentDamaged(f"{path.name} is not a run of the id index")
    return _mapped(path, "r", count)


def _prepare(path: Path, count: int) -> None:
    """Make a file of the size a run needs; room is taken now, since a full disk under a mapping would kill us."""
    with path.open("wb") as file:
        file.write(MAGIC + count.to_bytes(8, "little"))
        os.posix_fallocate(file.fileno(), 0, HEADER + count * ENTRY.itemsize)


class Index:
    """Finds predictions by the hash of their id; its runs are listed in SQL beside the segments.

    A ``strict`` index raises `SegmentDamaged` where a run cannot be read; another finds what is in the other runs.
    """

    def __init__(self, lake: Lake, *, strict: bool = False) -> None:
        self.lake = lake
        self.strict = strict
        self._open: dict[str, Run] = {}
        self._lock = Lock()

    def _run(self, path: str) -> Run:
        with self._lock:
            run = self._open.get(path)
            if run is None:
                run = read_run(self.lake.path(path))
                while len(self._open) >= 256:
                    del self._open[next(iter(self._open))]
                self._open[path] = run
        return run

    def find(self, session: Session, model_id: int, hashes: NDArray[np.uint64], kind: str = "predictions") -> Entries:
        """Return all entries of the hashes, oldest runs first; an id has one per version that predicted it.

        ``kind`` "ground_truth" and "protected" find what is known of a prediction: the entry's bucket and version are
        the prediction's. Two ids may share a hash (once in 2^64 pairs): who must know compares the text.
        """
        return self.search(self.runs(session, model_id, kind), hashes)

    def runs(self, session: Session, model_id: int, kind: str = "predictions") -> Sequence[str]:
        """Return the runs of a model, the oldest first."""
        return session.scalars(
            select(IdRunRow.path).where(IdRunRow.model_id == model_id, IdRunRow.kind == kind).order_by(IdRunRow.id)
        ).all()

    def search(self, runs: Sequence[str], hashes: NDArray[np.uint64]) -> Entries:
        """Return all entries of the hashes in some runs."""
        found = [np.empty(0, ENTRY)]
        if not runs:
            return found[0]
        sought = np.sort(np.asarray(hashes, np.uint64))
        fresh = np.ones(sought.size, np.bool_)
        fresh[1:] = sought[1:] != sought[:-1]
        sought = sought[fresh]
        for path in runs:
            try:
                found.append(self._run(path).find(sought))
            except SegmentDamaged as damage:
                if self.strict:
                    raise
                log.warning("a run of the id index cannot be read", reason=damage.detail, run=path)
        return np.concatenate(found)

    def write(self, path: str, entries: Entries) -> Written:
        """Store entries, sorted, as a run."""
        ordered = entries[np.argsort(entries["hash"], kind="stable")]

        def fill(file: Path) -> None:
            _prepare(file, ordered.size)
            run = _mapped(file, "r+", ordered.size)
            for name in ENTRY.names or ():
                getattr(run, name)[:] = ordered[name]
                if ordered.size:
                    getattr(run, name).flush()

        return self.lake.write(path, fill)

    def merge(self, path: str, runs: Sequence[str]) -> tuple[Written, int]:
        """Store the entries of runs, oldest first, as one; return it and the number of its entries."""
        parts = [self._run(run) for run in runs]
        total = sum(len(part) for part in parts)
        pieces = max(1, -(-total // PART))
        limits = [piece * 2**64 // pieces for piece in range(1, pieces)]
        bounds = [[0, *(int(np.searchsorted(p.hash, np.uint64(x))) for x in limits), len(p)] for p in parts]

        def fill(file: Path) -> None:
            _prepare(file, total)
            whole, at = _mapped(file, "r+", total), 0
            for piece in range(pieces):
                got = np.concatenate(
                    [part.take(slice(cut[piece], cut[piece + 1])) for part, cut in zip(parts, bounds, strict=True)]
                )
                got = got[np.argsort(got["hash"], kind="stable")]
                for name in ENTRY.names or ():
                    getattr(whole, name)[at : at + got.size] = got[name]
                at += got.size
            for name in ENTRY.names or ():
                if total:
                    getattr(whole, name).flush()

        return self.lake.write(path, fill), total
