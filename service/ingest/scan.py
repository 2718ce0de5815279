"""One cheap pass over the bytes of a JSON body: where each record begins and ends, and whether it may be parsed at all.

A parser that meets 50,000 open brackets or a million keys has already lost; here they cost a nanosecond a byte and no
memory. The pass does not validate: what it lets through is still read by a parser.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

DEPTH = 8
"""Deepest nesting of a record, its own braces included."""
KEYS = 2_000
TEXT = 4_096
"""Longest string in bytes, an escape counted as what it stands for."""
RECORD = 2**20
BLOCK = 2**19
RECORDS = 8_192

DEEP, LARGE, NUL, OTHER, LOGICAL = 1, 2, 4, 8, 16
"""Flags of a record: too deep, too large, a NUL, not an object, and (no fault) true or false among its values."""

LINES, ELEMENTS, WHOLE = 0, 1, 2
_DONE, _MORE, _BROKEN = 0, 1, 2


class Broken(ValueError):  # noqa: N818 - said of a body
    """The brackets of a body do not match, or something stands where nothing may."""


@dataclass(frozen=True, slots=True)
class Extents:
    """Where the records of a block lie in the body: half-open spans, and the flags of each."""

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    flags: NDArray[np.uint8]


def extents(data: NDArray[np.uint8], kind: int, start: int = 0) -> Iterator[Extents]:
    """Yield the records of a body in blocks of about 512 kB: lines, the elements of the array at ``start``, or one.

    Raises `Broken` where the array is not closed or its elements are not separated.
    """
    starts, stops = np.empty(RECORDS, np.int64), np.empty(RECORDS, np.int64)
    flags = np.empty(RECORDS, np.uint8)
    state = _MORE
    at = start + 1 if kind == ELEMENTS else start
    fresh = True
    while state == _MORE:
        state, count, at = _scan(data, kind, at, fresh, starts, stops, flags)
        fresh = False
        if state == _BROKEN:
            raise Broken(f"the brackets or commas do not match near byte {at}")
        if count:
            yield Extents(starts[:count].copy(), stops[:count].copy(), flags[:count].copy())


def end_of_array(data: NDArray[np.uint8], start: int) -> int:
    """Return the place after the bracket that closes the array at ``start``; -1 where none does."""
    return int(_closing(data, start))


def member(data: NDArray[np.uint8], name: bytes) -> int:
    """Return where the value of a member of the outermost object begins; -1 where there is none."""
    return int(_member(data, np.frombuffer(name, np.uint8)))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _string(data: Any, at: int, stop: int, line: bool) -> Any:
    """Return where the string that begins at ``at`` ends (its closing quote), its length and whether it holds NUL."""
    length = 0
    nul = False
    at += 1
    while at < stop:
        byte = data[at]
        if byte == 34:
            return at, length, nul
        if byte == 92:
            if at + 5 < stop and data[at + 1] == 117:
                nul |= data[at + 2] == 48 and data[at + 3] == 48 and data[at + 4] == 48 and data[at + 5] == 48
                at += 6
                length += 3
            else:
                at += 2
                length += 1
            continue
        if byte == 0:
            nul = True
        elif byte == 10 and line:
            return at - 1, length, nul
        length += 1
        at += 1
    return stop, length, nul


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _scan(data: Any, kind: int, at: int, fresh: bool, starts: Any, stops: Any, flags: Any) -> Any:
    size = len(data)
    first = at
    count = 0
    while True:
        # the beginning of a record, or the end of everything
        while at < size and (data[at] == 32 or data[at] == 9 or data[at] == 13 or data[at] == 10):
            at += 1
        if at >= size:
            return (_BROKEN if kind == ELEMENTS else _DONE), count, at
        if kind == ELEMENTS and data[at] == 93:
            return (_DONE if fresh else _BROKEN), count, at + 1
        begin = at
        flag = np.uint8(0)
        if data[at] != 123:
            flag |= np.uint8(OTHER)
        depth = 0
        keys = 0
        ended = False
        while at < size:
            byte = data[at]
            if byte == 34:
                at, length, nul = _string(data, at, size, kind == LINES)
                if length > TEXT:
                    flag |= np.uint8(LARGE)
                if nul:
                    flag |= np.uint8(NUL)
            elif byte == 123 or byte == 91:
                depth += 1
                if depth > DEPTH:
                    flag |= np.uint8(DEEP)
            elif byte == 125 or byte == 93:
                if depth == 0 and kind == ELEMENTS:
                    ended = True
                    break
                depth -= 1
            elif byte == 58:
                keys += 1
            elif byte == 44:
                if depth == 0 and kind == ELEMENTS:
                    ended = True
                    break
            elif byte == 10:
                if kind == LINES:
                    break
            elif byte == 116 or byte == 102:
                flag |= np.uint8(LOGICAL)
            elif byte == 0:
                flag |= np.uint8(NUL)
            at += 1
        stop = min(at, size)
        if keys > KEYS or stop - begin > RECORD:
            flag |= np.uint8(LARGE)
        starts[count] = begin
        stops[count] = stop
        flags[count] = flag
        count += 1
        if kind == ELEMENTS:
            if not ended or stop == begin or data[stop] == 125:
                return _BROKEN, count, stop
            at = stop + 1
            if data[stop] == 93:
                return _DONE, count, at
            fresh = False
        if count == len(starts) or at - first >= BLOCK:
            return _MORE, count, at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _closing(data: Any, start: int) -> Any:
    depth = 0
    at = start
    while at < len(data):
        byte = data[at]
        if byte == 34:
            at, _, _ = _string(data, at, len(data), False)
        elif byte == 91 or byte == 123:
            depth += 1
        elif byte == 93 or byte == 125:
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _member(data: Any, name: Any) -> Any:
    depth = 0
    at = 0
    while at < len(data):
        byte = data[at]
        if byte == 34:
            stop, _, _ = _string(data, at, len(data), False)
            if depth == 1 and stop - at - 1 == len(name):
                same = True
                for i in range(len(name)):
                    same &= data[at + 1 + i] == name[i]
                if same:
                    after = stop + 1
                    while after < len(data) and data[after] <= 32:
                        after += 1
                    if after < len(data) and data[after] == 58:
                        after += 1
                        while after < len(data) and data[after] <= 32:
                            after += 1
                        return after
            at = stop
        elif byte == 91 or byte == 123:
            depth += 1
        elif byte == 93 or byte == 125:
            depth -= 1
        at += 1
    return -1
