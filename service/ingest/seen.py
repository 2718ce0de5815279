"""The ids that wait in the buffer, as a hash table of numbers: what an answer can call a duplicate at once."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

NEW, SAME, OTHER = 0, 1, 2
"""What `Seen.add` says of an id: not met before under this version, met with the same value, or with another."""


class Seen:
    """Pairs of id hash and version, each with a value (the hash of a label); 24 bytes a place, half of them free."""

    def __init__(self, capacity: int = 1024) -> None:
        self._hashes = np.zeros(capacity, np.uint64)
        self._versions = np.full(capacity, -1, np.int64)
        self._values = np.zeros(capacity, np.uint64)
        self.count = 0

    def add(
        self, hashes: NDArray[np.uint64], version: int, values: NDArray[np.uint64] | None = None
    ) -> NDArray[np.uint8]:
        """Take in ids in their order and return `NEW`, `SAME` or `OTHER` for each; the newest value is kept."""
        if 2 * (self.count + len(hashes)) > len(self._hashes):
            self._grow(self.count + len(hashes))
        given = np.zeros(len(hashes), np.uint64) if values is None else values
        found = np.zeros(len(hashes), np.uint8)
        self.count += int(_add(self._hashes, self._versions, self._values, hashes, np.int64(version), given, found))
        return found

    def known(self, hashes: NDArray[np.uint64], version: int | None = None) -> NDArray[np.bool_]:
        """Return whether each id is here, under one version or under any."""
        wanted = np.int64(-1 if version is None else version)
        return np.asarray(_known(self._hashes, self._versions, hashes, wanted), dtype=np.bool_)

    def _grow(self, count: int) -> None:
        """Make room for so many ids, and for as many again before the next time."""
        hashes, versions, values = self._hashes, self._versions, self._values
        size = 1 << (4 * count - 1).bit_length()
        self._hashes, self._values = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
        self._versions = np.full(size, -1, np.int64)
        _copy(self._hashes, self._versions, self._values, hashes, versions, values)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(table: Any, owners: Any, kept: Any, hashes: Any, version: Any, values: Any, found: Any) -> Any:
    mask = np.uint64(len(table) - 1)
    added = 0
    for row in range(len(hashes)):
        place = hashes[row] & mask
        while True:
            if owners[place] == -1:
                table[place], owners[place], kept[place] = hashes[row], version, values[row]
                added += 1
                break
            if table[place] == hashes[row] and owners[place] == version:
                found[row] = 1 if kept[place] == values[row] else 2
                kept[place] = values[row]
                break
            place = (place + np.uint64(1)) & mask
    return added


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _known(table: Any, owners: Any, hashes: Any, version: Any) -> Any:
    mask = np.uint64(len(table) - 1)
    found = np.zeros(len(hashes), np.bool_)
    for row in range(len(hashes)):
        place = hashes[row] & mask
        while owners[place] != -1:
            if table[place] == hashes[row] and (version == -1 or owners[place] == version):
                found[row] = True
                break
            place = (place + np.uint64(1)) & mask
    return found


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _copy(table: Any, owners: Any, kept: Any, hashes: Any, versions: Any, values: Any) -> None:
    mask = np.uint64(len(table) - 1)
    for row in range(len(hashes)):
        if versions[row] != -1:
            place = hashes[row] & mask
            while owners[place] != -1:
                place = (place + np.uint64(1)) & mask
            table[place], owners[place], kept[place] = hashes[row], versions[row], values[row]
