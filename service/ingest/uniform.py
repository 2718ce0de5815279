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
from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba import njit, types
from numba.extending import intrinsic
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
_EACH, _HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
"""A one in each byte of a word, and the highest bit of each."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """The members of a record in their order: steps through it, each with its name, and the names of the columns."""

    names: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    steps: NDArray[np.int64]
    ends: NDArray[np.int64]
    """For each column the step after the one that leads to its value, and the number of all."""
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
        met = np.zeros((2, width), np.int64)
        state, count, at, wide = _parse(
            data,
            at,
            lines,
            found.names,
            found.offsets,
            found.steps,
            found.ends,
            kinds,
            cells,
            cells.view(np.float64),
            lengths,
            valid,
            met,
        )
        if state == _OTHER:
            return None
        if count:
            read = cells[:, :count], lengths[:, :count], valid[:, :count]
            block = _table(data, found.columns, kinds, *read, met, wide)
            if block is None:
                return None
            blocks.append(block)
    if not lines and body[at:].strip(b" \t\r\n"):
        return None
    if (kinds == _UNMET).any() or any(block.schema != blocks[0].schema for block in blocks[1:]):
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
    names.append(b"")  # the brace that closes the record
    offsets = np.concatenate([[0], np.cumsum([len(name) for name in names])]).astype(np.int64)
    joined = np.frombuffer(b"".join(names), np.uint8)
    taken = np.array([*steps, _CLOSE], np.int64)
    ends = np.append(np.flatnonzero(taken == _MEMBER) + 1, len(taken))
    return Pattern(joined, offsets, taken, ends, tuple(columns), stop - start)


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
    met: NDArray[np.int64],
    wide: bool,
) -> pa.Table | None:
    """Return the columns of a block; none where a text is no UTF-8, or a number no finite float64."""
    count = cells.shape[1]
    arrays: list[pa.Array] = []
    absent, found = met.tolist()
    for column, kind in enumerate(kinds.tolist()):
        there = valid[column]
        bits = pa.py_buffer(np.packbits(there != _ABSENT, bitorder="little")) if absent[column] else None
        if kind == _TEXT:
            array = _texts(data, cells[column], lengths[column], there, bits)
            if wide and not _readable(array):
                return None
        elif kind == _NUMBER:
            numbers = cells[column].view(np.float64)
            if found[column]:
                spelt = np.flatnonzero(there == _SPELT)
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


@intrinsic  # type: ignore[untyped-decorator]
def _word(typing: Any, data: Any, at: Any) -> Any:  # noqa: ARG001 - as numba calls it
    """Return the eight bytes from a place on as one number, the first the lowest; they need not be aligned."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        word = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(data, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _zeros(typing: Any, word: Any) -> Any:  # noqa: ARG001 - as numba calls it
    """Return how many of the lowest bits are zero."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


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
def _walk(data: Any, at: int, lines: bool, names: Any, offsets: Any, steps: Any, first: int, last: int) -> Any:
    """Return the place of the next value after the steps up to it, or behind the last brace; -1 for another record."""
    size = len(data)
    fresh = first == 0
    for step in range(first, last):
        at = _past(data, at, lines)
        if steps[step] == _CLOSE:
            if at >= size or data[at] != 125:
                return -1
            at += 1
            fresh = False
            continue
        if not fresh:
            if at >= size or data[at] != 44:
                return -1
            at = _past(data, at + 1, lines)
        length = offsets[step + 1] - offsets[step]
        if at + length + 2 >= size or data[at] != 34 or data[at + length + 1] != 34:
            return -1
        for byte in range(length):
            if data[at + 1 + byte] != names[offsets[step] + byte]:
                return -1
        at = _past(data, at + length + 2, lines)
        if at >= size or data[at] != 58:
            return -1
        at = _past(data, at + 1, lines)
        if at >= size:
            return -1
        if steps[step] == _OPEN:
            if data[at] != 123:
                return -1
            at += 1
            fresh = True
    return at


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _same(data: Any, at: int, other: int, length: int) -> Any:
    """Return whether the bytes at two places are the same; the other place is the earlier one."""
    if at + length + 8 > len(data):
        for byte in range(min(length, len(data) - at)):
            if data[at + byte] != data[other + byte]:
                return False
        return at + length < len(data)
    done = 0
    while done + 8 <= length:
        if _word(data, at + done) != _word(data, other + done):
            return False
        done += 8
    rest = np.uint64(8 * (length - done))
    differs = _word(data, at + done) ^ _word(data, other + done)
    return differs & ((np.uint64(1) << rest) - np.uint64(1)) == 0


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _text_end(data: Any, at: int) -> Any:
    """Return where a text ends (its quote; -1 if it has an escape or no end) and whether it is more than ASCII."""
    size = len(data)
    wide = False
    while at + 8 <= size:
        word = _word(data, at)
        quote, escape = word ^ _EACH * np.uint64(34), word ^ _EACH * np.uint64(92)
        found = (quote - _EACH) & ~quote
        found |= (escape - _EACH) & ~escape
        found = (found | (word - _EACH * np.uint64(32)) & ~word) & _HIGH
        if found == 0:
            wide |= word & _HIGH != 0
            at += 8
            continue
        place: Any = np.int64(_zeros(found)) >> 3
        wide |= word & _HIGH & ((np.uint64(1) << np.uint64(8 * place)) - np.uint64(1)) != 0
        at += place
        return (at if data[at] == 34 else -1), wide
    while at < size and data[at] != 34:
        if data[at] < 32 or data[at] == 92:
            return -1, wide
        wide |= data[at] >= 128
        at += 1
    return (at if at < size else -1), wide


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _digits(data: Any, at: int) -> Any:
    """Return how many of the eight bytes from a place on are digits before another sign, and their number."""
    word = _word(data, at) ^ _EACH * np.uint64(48)
    other = (((word & ~_HIGH) + _EACH * np.uint64(118)) | word) & _HIGH
    if other == 0:
        return 8, np.uint64(0)
    bits = np.uint64(_zeros(other)) & ~np.uint64(7)
    if bits == 0:
        return 0, np.uint64(0)
    word <<= np.uint64(64) - bits
    word = (word * np.uint64(10) + (word >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    word = (word * np.uint64(100) + (word >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    word = (word * np.uint64(10_000) + (word >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
    return np.int64(bits) >> 3, word


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _short_number(data: Any, at: int, tens: Any) -> Any:
    """Return what `_number` returns, sooner where there are at most seven digits before and after the point."""
    first = at
    negative = data[at] == 45
    if negative:
        at += 1
    if at + 24 > len(data):
        return _number(data, first, tens)
    whole, mantissa = _digits(data, at)
    if whole == 0 or whole == 8 or (data[at] == 48 and whole > 1):
        return _number(data, first, tens)
    at += whole
    value = np.float64(mantissa)
    if data[at] == 46:
        parts, fraction = _digits(data, at + 1)
        if parts == 0 or parts == 8:
            return _number(data, first, tens)
        at += 1 + parts
        value = (value * tens[parts] + np.float64(fraction)) / tens[parts]
    elif mantissa == 0:
        negative = False
    if data[at] | 32 == 101:
        return _number(data, first, tens)
    return _PRESENT, (-value if negative else value), at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _parse(
    data: Any,
    at: int,
    lines: bool,
    names: Any,
    offsets: Any,
    steps: Any,
    ends: Any,
    kinds: Any,
    cells: Any,
    numbers: Any,
    lengths: Any,
    valid: Any,
    met: Any,
) -> Any:
    """Write the values of records that are alike into cells, until one is not, the block is full or the body ends.

    What stands between two values is compared with what stood there in the record before, and only where it differs
    read sign by sign. ``met`` counts the values of each column that are absent, and those that are only found.
    """
    size = len(data)
    tens = _TENS
    width = len(ends) - 1
    between, spans = np.zeros(width + 1, np.int64), np.full(width + 1, -1, np.int64)
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
        for column in range(width + 1):
            before = at
            if spans[column] >= 0 and _same(data, at, between[column], spans[column]):
                at += spans[column]
            else:
                at = _walk(data, at, lines, names, offsets, steps, ends[column - 1] if column else 0, ends[column])
                if at < 0:
                    return _OTHER, count, at, wide
                between[column], spans[column] = before, at - before
            if column == width:
                break
            byte = data[at]
            kind = _UNMET
            if byte == 34:
                kind = _TEXT
                first = at + 1
                stop, beyond = _text_end(data, first)
                if stop < 0 or stop - first > TEXT:
                    return _OTHER, count, at, wide
                wide |= beyond
                cells[column, count], lengths[column, count] = first, stop - first
                valid[column, count] = _PRESENT
                at = stop + 1
            elif byte == 45 or 48 <= byte <= 57:
                kind = _NUMBER
                first = at
                how, value, at = _short_number(data, at, tens)
                if how == 0:
                    return _OTHER, count, at, wide
                if how == _PRESENT:
                    numbers[column, count] = value
                else:
                    cells[column, count], lengths[column, count] = first, at - first
                    met[1, column] += 1
                valid[column, count] = how
            elif at + 4 <= size and byte == 110 and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108:
                cells[column, count], valid[column, count] = 0, _ABSENT
                met[0, column] += 1
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
