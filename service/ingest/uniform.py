"""Records that all have the members of the first one, in its order -> columns, in one pass over a JSON body.

A program that sends a thousand records writes them alike. The first record is read as a pattern; the pass then expects
the same names at the same places and writes numbers and the extents of texts straight into columns. Whatever it did not
expect (another member, an escape, a list, a value of another type) ends it, and the body is read by the parser that
tolerates everything; so the pass decides only how fast a body is read, never what is stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from service.ingest.scan import TEXT, end_of_array

RECORDS = 8_192
"""Most records of a block."""
CELLS = 2**20
"""Most cells of a block."""
PATTERN = 2**16
"""Longest first record, bytes."""
LABELS = 100
_OBJECTS = ("features", "scores", "tags", "attributions")
_SCALARS = ("prediction_id", "timestamp", "version", "prediction", "score", "ground_truth", "subject")
_MEMBER, _OPEN, _CLOSE = 0, 1, 2
_UNMET, _NUMBER, _TEXT, _LOGICAL = -1, 0, 1, 2
_ABSENT, _PRESENT, _SPELT = 0, 1, 2
_DONE, _MORE, _OTHER = 0, 1, 2
_TENS = 10.0 ** np.arange(23)


@dataclass(frozen=True, slots=True)
class Pattern:
    """The members of a record in their order: steps through it, each with its name, and the names of the columns."""

    names: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    steps: NDArray[np.int64]
    columns: tuple[str, ...]
    size: int


def tables(body: bytes, data: NDArray[np.uint8], start: int, *, lines: bool) -> list[pa.Table] | None:
    """Return the flat columns of all records from ``start`` on, block by block; none where they are not alike.

    ``start`` is the place of the first record, whether of lines or of the elements of an array; an array has to be
    closed, with nothing but white space behind it.
    """
    found = pattern(body, data, start)
    if found is None:
        return None
    width = len(found.columns)
    rows = max(16, min(RECORDS, CELLS // width, 2 * (len(body) - start) // found.size + 16))
    kinds = np.full(width, _UNMET, np.int64)
    blocks: list[pa.Table] = []
    state, at = _MORE, start
    while state == _MORE:
        cells = np.empty((width, rows), np.int64)
        lengths, valid = np.empty((width, rows), np.int32), np.empty((width, rows), np.uint8)
        state, count, at, wide = _parse(
            data,
            at,
            lines,
            found.names,
            found.offsets,
            found.steps,
            kinds,
            cells,
            cells.view(np.float64),
            lengths,
            valid,
        )
        if state == _OTHER:
            return None
        if count:
            block = _table(data, found.columns, kinds, cells[:, :count], lengths[:, :count], valid[:, :count], wide)
            if block is None:
                return None
            blocks.append(block)
    if not lines and body[at:].strip(b" \t\r\n"):
        return None
    kept = {column.type for block in blocks for column in block.columns}
    if pa.null() in kept or any(block.schema != blocks[0].schema for block in blocks):
        return None
    return blocks


def pattern(body: bytes, data: NDArray[np.uint8], start: int) -> Pattern | None:
    """Return the members of the record at ``start``; none where it has one that only the tolerant parser reads."""
    if body[start : start + 1] != b"{":
        return None
    stop = end_of_array(data[: start + PATTERN], start)
    if stop < 0:
        return None
    try:
        record = msgspec.json.decode(body[start:stop], type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return None
    names: list[bytes] = []
    steps: list[int] = []
    columns: list[str] = []
    if any(sign in label for label in _labels(record) for sign in ('"', "\\")):
        return None
    for name, value in record.items():
        names.append(name.encode())
        if name in _SCALARS and not isinstance(value, dict | list):
            steps.append(_MEMBER)
            columns.append(name)
        elif name in _OBJECTS and isinstance(value, dict) and 0 < len(value) <= LABELS:
            steps.append(_OPEN)
            for label, cell in value.items():
                if isinstance(cell, dict | list) or not 0 < len(label) <= 256 or not label.isprintable():
                    return None
                names.append(label.encode())
                steps.append(_MEMBER)
                columns.append(f"{name}.{label}")
            names.append(b"")
            steps.append(_CLOSE)
        else:
            return None
    if not columns:
        return None
    offsets = np.concatenate([[0], np.cumsum([len(name) for name in names])]).astype(np.int64)
    joined = np.frombuffer(b"".join(names), np.uint8)
    return Pattern(joined, offsets, np.array(steps, np.int64), tuple(columns), stop - start)


def _labels(record: Mapping[str, Any]) -> Iterator[str]:
    for name, value in record.items():
        yield name
        if isinstance(value, dict):
            yield from value


def _table(
    data: NDArray[np.uint8],
    names: Sequence[str],
    kinds: NDArray[np.int64],
    cells: NDArray[np.int64],
    lengths: NDArray[np.int32],
    valid: NDArray[np.uint8],
    wide: bool,
) -> pa.Table | None:
    """Return the columns of a block; none where a text is no UTF-8, or a number no finite float64."""
    count = cells.shape[1]
    arrays: list[pa.Array] = []
    for column, kind in enumerate(kinds.tolist()):
        there = valid[column]
        bits = None if there.all() else pa.py_buffer(np.packbits(there != _ABSENT, bitorder="little"))
        if kind == _TEXT:
            array = _texts(data, cells[column], lengths[column], there, bits)
            if wide and not _readable(array):
                return None
        elif kind == _NUMBER:
            numbers = cells[column].view(np.float64)
            spelt = np.flatnonzero(there == _SPELT)
            if len(spelt):
                texts = _texts(data, cells[column, spelt], lengths[column, spelt], there[spelt], None)
                try:
                    numbers[spelt] = texts.cast(pa.float64()).to_numpy()
                except pa.ArrowInvalid:
                    return None
                if not np.isfinite(numbers[spelt]).all():
                    return None
            array = pa.Array.from_buffers(pa.float64(), count, [bits, pa.py_buffer(numbers)])
        elif kind == _LOGICAL:
            array = pa.array(cells[column] == 1, pa.bool_(), mask=there == _ABSENT)
        else:
            array = pa.nulls(count)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, names=list(names))


def _texts(data: NDArray[np.uint8], starts: Any, lengths: Any, there: Any, bits: pa.Buffer | None) -> pa.Array:
    offsets, joined = _joined(data, starts, lengths, there)
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(joined), bits)


def _readable(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _joined(data: Any, starts: Any, lengths: Any, there: Any) -> Any:
    offsets = np.empty(len(starts) + 1, np.int32)
    size = 0
    offsets[0] = 0
    for row in range(len(starts)):
        if there[row] != 0:
            size += lengths[row]
        offsets[row + 1] = size
    joined = np.empty(size, np.uint8)
    for row in range(len(starts)):
        to, first = offsets[row], starts[row]
        for byte in range(offsets[row + 1] - to):
            joined[to + byte] = data[first + byte]
    return offsets, joined


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _past(data: Any, at: int, lines: bool) -> Any:
    """Return the place after white space."""
    while at < len(data) and (data[at] == 32 or data[at] == 9 or data[at] == 13 or (data[at] == 10 and not lines)):
        at += 1
    return at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _number(data: Any, at: int, tens: Any) -> Any:
    """Return how a number was read (0 not at all, 1 exactly, 2 only found), its value, and where it ends."""
    size = len(data)
    negative = data[at] == 45
    if negative:
        at += 1
    if at >= size or data[at] < 48 or data[at] > 57:
        return 0, 0.0, at
    if data[at] == 48 and at + 1 < size and 48 <= data[at + 1] <= 57:
        return 0, 0.0, at
    mantissa = 0
    digits = 0
    exponent = 0
    whole = True
    while at < size and 48 <= data[at] <= 57:
        mantissa = mantissa * 10 + (data[at] - 48) if digits < 18 else mantissa
        digits += mantissa > 0
        at += 1
    if at < size and data[at] == 46:
        whole = False
        at += 1
        first = at
        while at < size and 48 <= data[at] <= 57:
            mantissa = mantissa * 10 + (data[at] - 48) if digits < 18 else mantissa
            digits += mantissa > 0
            at += 1
        if at == first:
            return 0, 0.0, at
        exponent = first - at
    if at < size and (data[at] == 101 or data[at] == 69):
        whole = False
        at += 1
        smaller = at < size and data[at] == 45
        if at < size and (data[at] == 45 or data[at] == 43):
            at += 1
        first = at
        power = 0
        while at < size and 48 <= data[at] <= 57 and at - first < 5:
            power = power * 10 + (data[at] - 48)
            at += 1
        if at == first or at - first == 5:
            return 0, 0.0, at
        exponent += -power if smaller else power
    if whole and digits > 15:
        return 0, 0.0, at
    if digits >= 18 or mantissa > 2**53 or exponent < -22 or exponent > 22:
        return 2, 0.0, at
    # both are exact, so that one operation gives the nearest float64
    value = mantissa / tens[-exponent] if exponent < 0 else mantissa * tens[exponent]
    return 1, (-value if negative and not (whole and mantissa == 0) else value), at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _parse(
    data: Any,
    at: int,
    lines: bool,
    names: Any,
    offsets: Any,
    steps: Any,
    kinds: Any,
    cells: Any,
    numbers: Any,
    lengths: Any,
    valid: Any,
) -> Any:
    size = len(data)
    tens = _TENS
    count = 0
    wide = False
    while True:
        if lines:
            at = _past(data, at, False)
            if at >= size:
                return _DONE, count, at, wide
        if count == cells.shape[1]:
            return _MORE, count, at, wide
        if at >= size or data[at] != 123:
            return _OTHER, count, at, wide
        at += 1
        fresh = True
        column = 0
        for step in range(len(steps)):
            at = _past(data, at, lines)
            if steps[step] == _CLOSE:
                if at >= size or data[at] != 125:
                    return _OTHER, count, at, wide
                at += 1
                fresh = False
                continue
            if not fresh:
                if at >= size or data[at] != 44:
                    return _OTHER, count, at, wide
                at = _past(data, at + 1, lines)
            length = offsets[step + 1] - offsets[step]
            if at + length + 2 >= size or data[at] != 34 or data[at + length + 1] != 34:
                return _OTHER, count, at, wide
            same = True
            for byte in range(length):
                same &= data[at + 1 + byte] == names[offsets[step] + byte]
            if not same:
                return _OTHER, count, at, wide
            at = _past(data, at + length + 2, lines)
            if at >= size or data[at] != 58:
                return _OTHER, count, at, wide
            at = _past(data, at + 1, lines)
            if at >= size:
                return _OTHER, count, at, wide
            byte = data[at]
            if steps[step] == _OPEN:
                if byte != 123:
                    return _OTHER, count, at, wide
                at += 1
                fresh = True
                continue
            fresh = False
            kind = _UNMET
            if byte == 34:
                kind = _TEXT
                at += 1
                first = at
                while at < size and data[at] != 34:
                    if data[at] < 32 or data[at] == 92:
                        return _OTHER, count, at, wide
                    wide |= data[at] >= 128
                    at += 1
                if at >= size or at - first > TEXT:
                    return _OTHER, count, at, wide
                cells[column, count], lengths[column, count] = first, at - first
                valid[column, count] = _PRESENT
                at += 1
            elif byte == 45 or 48 <= byte <= 57:
                kind = _NUMBER
                first = at
                how, value, at = _number(data, at, tens)
                if how == 0:
                    return _OTHER, count, at, wide
                if how == _PRESENT:
                    numbers[column, count] = value
                else:
                    cells[column, count], lengths[column, count] = first, at - first
                valid[column, count] = how
            elif at + 4 <= size and byte == 110 and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108:
                cells[column, count], valid[column, count] = 0, _ABSENT
                at += 4
            elif at + 4 <= size and byte == 116 and data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101:
                kind = _LOGICAL
                cells[column, count], valid[column, count] = 1, _PRESENT
                at += 4
            elif (
                at + 5 <= size
                and byte == 102
                and data[at + 1] == 97
                and data[at + 2] == 108
                and data[at + 3] == 115
                and data[at + 4] == 101
            ):
                kind = _LOGICAL
                cells[column, count], valid[column, count] = 0, _PRESENT
                at += 5
            else:
                return _OTHER, count, at, wide
            if kind != kinds[column] and kind != _UNMET:
                if kinds[column] != _UNMET:
                    return _OTHER, count, at, wide
                kinds[column] = kind
            column += 1
        at = _past(data, at, lines)
        if at >= size or data[at] != 125:
            return _OTHER, count, at, wide
        at += 1
        count += 1
        at = _past(data, at, lines)
        if lines:
            if at < size and data[at] != 10:
                return _OTHER, count, at, wide
        else:
            if at >= size:
                return _OTHER, count, at, wide
            if data[at] == 93:
                return _DONE, count, at + 1, wide
            if data[at] != 44:
                return _OTHER, count, at, wide
            at = _past(data, at + 1, lines)
