"""Whole numbers in few bytes, and sums inside cells as places between the cell's ends: how profiles are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitors.cells import M2, MAXIMUM, MEAN, MINIMUM, QUANTISED_SUM, RAW_SUM, add_numbers, compiled

FEW = 16
"""Below so many values the mean inside a cell is kept to 1/255 of the cell's width, from there on to 1/65535: far below
what the mean of so many values is uncertain by."""

HEADER = 18
ROWS, FIRST, LAST, LABELLED, WIDTH, SIZE, FILLED, INSIDE = 0, 1, 3, 5, 6, 7, 8, 9
RAW, WORDS, SKETCHED, FOUND, COUNTED, OUTCOME_CELLS, COUNT_BITS, ESCAPED = 10, 11, 12, 13, 14, 15, 16, 17
"""The places of the header's numbers. A payload is, one after the other: as varints the header, the columns' whole
numbers, place and length of each sketch, the sketches, steps and counts of the outcome cells; as doubles the moments,
the ``RAW`` bytes of open cells' sums and the outcomes' sums; ``ESCAPED`` bytes of varints, a byte per ``FILLED`` cell
with its step and count (`pair`), ``INSIDE`` bytes of means inside cells and ``WORDS`` bytes of new categories.
"""
DOUBLES, ESCAPES, PAIRS, MEANS, NAMES, END, SKETCHES, OUTCOMES = range(8)
"""Where the parts of a payload begin, the last two among its varints."""
CUT, OTHER, OUTSIDE = 1, 2, 3
"""What is wrong with stored bytes."""
_SAID = {
    CUT: "the profile is cut short",
    OTHER: "the profile was made with another layout",
    OUTSIDE: "the cells are cut short or outside of the layout",
}
_FAR = 2**40
_SHARES = np.arange(256) / 255.0


@compiled
def _pack_one(number: Any, out: Any, place: int) -> int:
    """Write a varint; return its length."""
    start = place
    while number >= np.uint64(128):
        out[place] = np.uint8(number & np.uint64(127)) | np.uint8(128)
        number >>= np.uint64(7)
        place += 1
    out[place] = np.uint8(number)
    return place + 1 - start


@compiled
def _pack(numbers: Any, out: Any) -> int:
    place = 0
    for i in range(numbers.size):
        place += _pack_one(numbers[i], out, place)
    return place


@compiled
def _varint(data: Any, place: int, stop: int) -> Any:
    """Return the number at a place, and the place after it or -1."""
    number = np.uint64(0)
    shift = np.uint64(0)
    while place < stop and shift <= np.uint64(63):
        byte = np.uint64(data[place])
        place += 1
        number |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            return np.int64(number), place
        shift += np.uint64(7)
    return np.int64(0), -1


@compiled
def _unpack(data: Any, place: int, out: Any) -> int:
    i = 0
    while i < out.size:
        if i + 8 <= out.size and place + 8 <= data.size:
            all_of_them = np.uint8(0)
            for k in range(8):
                all_of_them |= data[place + k]
            if all_of_them < np.uint8(128):  # most numbers are small
                for k in range(8):
                    out[i + k] = data[place + k]
                place += 8
                i += 8
                continue
        number, place = _varint(data, place, data.size)
        if place < 0:
            return -1
        out[i] = np.uint64(number)
        i += 1
    return place


@compiled
def _open(
    data: Any, start: int, stop: int, width: int, size: int, numeric: Any, tables: int, numbers: Any, places: Any
) -> int:
    """Unpack the varints of a payload and find its parts; return 0 or what is wrong with it."""
    part = data[start:stop]
    if part.size < HEADER:
        return CUT
    after = _unpack(part, 0, numbers[:HEADER])
    if after < 0:
        return CUT
    if numbers[WIDTH] != np.uint64(width) or numbers[SIZE] != np.uint64(size):
        return OTHER
    if numbers[OUTCOME_CELLS] != np.uint64(0) and numbers[OUTCOME_CELLS] != np.uint64(tables):
        return OTHER
    most = np.uint64(part.size)
    for place in range(FILLED, OUTCOME_CELLS):
        if numbers[place] > most:
            return CUT
    bits = numbers[COUNT_BITS]
    if numbers[ESCAPED] > most or bits < np.uint64(1) or bits > np.uint64(7):
        return CUT
    found, counted = np.int64(numbers[FOUND]), np.int64(numbers[COUNTED])
    if counted > found:
        return OTHER
    sketches = HEADER + 4 * width + 2 * np.int64(numbers[SKETCHED])
    if sketches > part.size:
        return CUT
    after = _unpack(part, after, numbers[HEADER:sketches])
    if after < 0:
        return CUT
    outcomes = sketches
    for mark in range(HEADER + 4 * width + 1, sketches, 2):
        if numbers[mark] > most:
            return CUT
        outcomes += np.int64(numbers[mark])
    whole = outcomes + found + counted
    if whole > part.size:
        return CUT
    after = _unpack(part, after, numbers[sketches:whole])
    if after < 0:
        return CUT
    places[SKETCHES], places[OUTCOMES] = sketches, outcomes
    places[DOUBLES] = start + after
    places[ESCAPES] = places[DOUBLES] + 8 * (4 * numeric + np.int64(numbers[RAW]) // 8 + found - counted)
    places[PAIRS] = places[ESCAPES] + np.int64(numbers[ESCAPED])
    places[MEANS] = places[PAIRS] + np.int64(numbers[FILLED])
    places[NAMES] = places[MEANS] + np.int64(numbers[INSIDE])
    places[END] = places[NAMES] + np.int64(numbers[WORDS])
    return CUT if places[END] > stop else 0


@compiled
def _step(data: Any, at: int, escape: int, stop: int, bits: int) -> Any:
    """Return the step and the count of the pair at a place, and the place after the escapes it takes or -1."""
    byte = np.int64(data[at])
    step, count = byte >> bits, byte & ((1 << bits) - 1)
    if step == 255 >> bits:
        more, escape = _varint(data, escape, stop)
        if escape < 0 or more < 0 or more > _FAR:
            return step, count, -1
        step += more
    if count == (1 << bits) - 1:
        more, escape = _varint(data, escape, stop)
        count += more
    return step, count, escape


@compiled
def _pair(steps: Any, counts: Any, pairs: Any, escapes: Any) -> Any:
    """Write a byte for each cell and varints of what it cannot hold; return its bits for the count, their length."""
    of_steps = np.zeros(256, np.int64)
    of_counts = np.zeros(256, np.int64)
    for i in range(steps.size):
        of_steps[min(steps[i], np.uint64(255))] += 1
        of_counts[min(counts[i], np.uint64(255))] += 1
    for i in range(254, -1, -1):  # how many are so large or larger
        of_steps[i] += of_steps[i + 1]
        of_counts[i] += of_counts[i + 1]
    bits = 4
    for tried in range(1, 8):
        large = of_steps[255 >> tried] + of_counts[(1 << tried) - 1]
        if large < of_steps[255 >> bits] + of_counts[(1 << bits) - 1]:
            bits = tried
    most_step, most_count = np.uint64(255 >> bits), np.uint64((1 << bits) - 1)
    place = 0
    for i in range(steps.size):
        step, count = min(steps[i], most_step), min(counts[i], most_count)
        pairs[i] = np.uint8(step << np.uint64(bits) | count)
        if step == most_step:
            place += _pack_one(steps[i] - step, escapes, place)
        if count == most_count:
            place += _pack_one(counts[i] - count, escapes, place)
    return bits, place


@compiled
def _spell(data: Any, places: Any, bits: int, start: int, stop: int, cells: Any, counts: Any) -> bool:
    escape = places[ESCAPES]
    cell = np.int64(start)
    for i in range(cells.size):
        step, count, escape = _step(data, places[PAIRS] + i, escape, places[PAIRS], bits)
        cell += step
        if escape < 0 or (i > 0 and step == 0) or cell >= stop:
            return False
        cells[i], counts[i] = cell, count
    return bool(escape == places[PAIRS])


@compiled
def _places(steps: Any, start: int, stop: int, out: Any) -> bool:
    last = np.int64(start)
    for i in range(steps.size):
        if steps[i] >= np.uint64(stop) or (i > 0 and steps[i] == np.uint64(0)):
            return False
        last += np.int64(steps[i])
        if last >= stop:
            return False
        out[i] = last
    return True


@compiled
def _add_outcomes(steps: Any, counts: Any, sums: Any, is_sum: Any, values: Any) -> bool:
    cells = np.empty(steps.size, np.int64)
    if not _places(steps, 0, values.size, cells):
        return False
    counted = 0
    for i in range(cells.size):
        if not is_sum[cells[i]]:
            counted += 1
    if counted != counts.size or cells.size - counted != sums.size:
        return False
    counted = 0
    for i in range(cells.size):
        if is_sum[cells[i]]:
            values[cells[i]] += sums[i - counted]
        else:
            values[cells[i]] += np.float64(counts[counted])
            counted += 1
    return True


@compiled
def _add_numbers(numbers: Any, doubles: Any, numeric: Any, kinds: Any, whole: Any, broken: Any) -> None:
    """Add the numbers of a payload's columns, of which so many are numeric."""
    width = whole.shape[0]
    more_whole, more_broken = np.empty((width, 4), np.int64), np.empty((width, 4))
    kind = 0
    for column in range(width):
        for place in range(4):
            more_whole[column, place] = np.int64(numbers[HEADER + place * width + column])
        if numeric[column]:
            for place in range(4):
                more_broken[column, place] = doubles[place * kinds + kind]
            kind += 1
        else:
            more_broken[column, MINIMUM], more_broken[column, MAXIMUM] = np.inf, -np.inf
            more_broken[column, MEAN] = more_broken[column, M2] = 0.0
    add_numbers(whole, broken, more_whole, more_broken)


@compiled
def _add_cells(
    data: Any, places: Any, bits: Any, raw: Any, start: int, stop: int, mode: Any, low: Any, high: Any,
    counts: Any, sums: Any,
) -> bool:  # fmt: skip
    """Add the cells of a payload; places are unsigned where it is quick: signed ones might count from the end."""
    mean, last, escape, kept = places[MEANS], places[NAMES], places[ESCAPES], 0
    most_step, most_count = 255 >> bits, (1 << bits) - 1
    cell = np.int64(start)
    for i in range(places[PAIRS], places[MEANS]):
        byte = np.int64(data[np.uint64(i)])
        step, count = byte >> bits, byte & most_count
        if step == most_step or count == most_count or step == 0:
            step, count, escape = _step(data, i, escape, places[PAIRS], bits)
            if escape < 0 or (step == 0 and i > places[PAIRS]):
                return False
        cell += step
        if cell >= stop:
            return False
        k = np.uint64(cell)
        counts[k] += count
        if mode[k] == QUANTISED_SUM:
            if count < FEW:
                if mean >= last:
                    return False
                share = _SHARES[data[np.uint64(mean)]]
                mean += 1
            else:
                if mean + 1 >= last:
                    return False
                share = (data[np.uint64(mean)] + 256.0 * data[np.uint64(mean + 1)]) / 65535.0
                mean += 2
            sums[k] += count * (low[k] + share * (high[k] - low[k]))
        elif mode[k] == RAW_SUM:
            if kept >= raw.size:
                return False
            sums[k] += raw[kept]
            kept += 1
        else:
            sums[k] += count * low[k]
    return bool(escape == places[PAIRS])


@compiled
def _add_stored(
    data: Any, bounds: Any, numeric: Any, start: int, stop: int, mode: Any, low: Any, high: Any, is_sum: Any,
    whole: Any, broken: Any, counts: Any, sums: Any, outcomes: Any, headers: Any,
) -> int:  # fmt: skip
    longest = np.int64(0)
    for p in range(bounds.size - 1):
        longest = max(longest, bounds[p + 1] - bounds[p])
    kinds = np.int64(0)
    for column in range(numeric.size):
        kinds += np.int64(numeric[column])
    numbers, room, places = np.empty(longest, np.uint64), np.empty(longest // 8), np.empty(8, np.int64)
    copied = room.view(np.uint8)
    for p in range(bounds.size - 1):
        wrong = _open(data, bounds[p], bounds[p + 1], whole.shape[0], stop - start, kinds, is_sum.size, numbers, places)
        if wrong:
            return wrong
        for place in range(HEADER):
            headers[p, place] = numbers[place]
        size = places[ESCAPES] - places[DOUBLES]
        for place in range(size):
            copied[place] = data[places[DOUBLES] + place]
        doubles = room[: size // 8]
        _add_numbers(numbers, doubles, numeric, kinds, whole, broken)
        raw = doubles[4 * kinds : 4 * kinds + np.int64(numbers[RAW]) // 8]
        bits = np.int64(numbers[COUNT_BITS])
        if not _add_cells(data, places, bits, raw, start, stop, mode, low, high, counts, sums):
            return OUTSIDE
        if outcomes.size and numbers[LABELLED]:
            found, counted = np.int64(numbers[FOUND]), np.int64(numbers[COUNTED])
            own = numbers[places[OUTCOMES] : places[OUTCOMES] + found + counted]
            if not _add_outcomes(own[:found], own[found:], doubles[size // 8 - found + counted :], is_sum, outcomes):
                return OTHER
    return 0


@compiled
def _store_sums(cells: Any, counts: Any, sums: Any, mode: Any, low: Any, high: Any, out: Any, raw: Any) -> Any:
    place = 0
    kept = 0
    for i in range(cells.size):
        cell = cells[i]
        if mode[cell] == RAW_SUM:
            raw[kept] = sums[i]
            kept += 1
        elif mode[cell] == QUANTISED_SUM:
            share = (sums[i] / counts[i] - low[cell]) / (high[cell] - low[cell])
            share = min(max(share, 0.0), 1.0)
            if counts[i] < FEW:
                out[place] = np.uint8(share * 255.0 + 0.5)
                place += 1
            else:
                whole = np.int64(share * 65535.0 + 0.5)
                out[place] = np.uint8(whole & 255)
                out[place + 1] = np.uint8(whole >> 8)
                place += 2
    return place, kept


@compiled
def _restore_sums(cells: Any, counts: Any, mode: Any, low: Any, high: Any, data: Any, raw: Any, sums: Any) -> bool:
    place = 0
    kept = 0
    for i in range(cells.size):
        cell = cells[i]
        if mode[cell] == RAW_SUM:
            if kept >= raw.size:
                return False
            sums[i] = raw[kept]
            kept += 1
        elif mode[cell] == QUANTISED_SUM:
            if counts[i] < FEW:
                if place >= data.size:
                    return False
                share = data[place] / 255.0
                place += 1
            else:
                if place + 1 >= data.size:
                    return False
                share = (data[place] + 256.0 * data[place + 1]) / 65535.0
                place += 2
            sums[i] = counts[i] * (low[cell] + share * (high[cell] - low[cell]))
        else:
            sums[i] = counts[i] * low[cell]
    return True


def pack(numbers: NDArray[np.uint64]) -> bytes:
    """Return the numbers as varints, seven bits a byte."""
    out = np.empty(10 * numbers.size, np.uint8)
    return out[: _pack(numbers, out)].tobytes()


def pair(steps: NDArray[np.uint64], counts: NDArray[np.uint64]) -> tuple[bytes, bytes, int]:
    """Return a byte for each cell, varints of the steps and counts it has no room for, and its bits for the count.

    The leading bits hold the step from the cell before, the others the count; where all of either are set, a varint
    says how much more it is. So what most cells need is one of few bytes.
    """
    pairs, escapes = np.empty(steps.size, np.uint8), np.empty(20 * steps.size, np.uint8)
    bits, size = _pair(steps, counts, pairs, escapes)
    return pairs.tobytes(), escapes[:size].tobytes(), int(bits)


def unpack(data: NDArray[np.uint8], place: int, number: int) -> tuple[NDArray[np.uint64], int]:
    """Return so many varints from a place on, and the place after them; ValueError where the data ends."""
    if number > data.size:
        raise ValueError(_SAID[CUT])
    numbers = np.empty(number, np.uint64)
    after = int(_unpack(data, place, numbers))
    if after < 0:
        raise ValueError(_SAID[CUT])
    return numbers, after


def open_stored(
    data: NDArray[np.uint8], width: int, size: int, numeric: int, tables: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the varints of a payload, and where its parts begin.

    ValueError where it is cut short or is not of so many columns, numeric ones among them, cells and outcome cells.
    """
    numbers, places = np.empty(data.size, np.uint64), np.empty(8, np.int64)
    if wrong := _open(data, 0, data.size, width, size, numeric, tables, numbers, places):
        raise ValueError(_SAID[wrong])
    return numbers, places


def spell(
    data: NDArray[np.uint8], places: NDArray[np.int64], bits: int, start: int, stop: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the cells of a payload, from start to before stop, and their counts; ValueError for others."""
    filled = int(places[MEANS] - places[PAIRS])
    cells, counts = np.empty(filled, np.int32), np.empty(filled, np.int64)
    if not _spell(data, places, bits, start, stop, cells, counts):
        raise ValueError(_SAID[OUTSIDE])
    return cells, counts


def places_of(steps: NDArray[np.uint64], start: int, stop: int) -> NDArray[np.int32]:
    """Return the increasing places from start to before stop that were stored as steps; ValueError for others."""
    out = np.empty(steps.size, np.int32)
    if not _places(steps, start, stop, out):
        raise ValueError(f"the places are not increasing from {start} to {stop}")
    return out


def add_stored(
    data: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    numeric: NDArray[np.bool_],
    cells: tuple[int, int],
    grid: tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]],
    is_sum: NDArray[np.bool_],
    numbers: tuple[NDArray[np.int64], NDArray[np.float64]],
    entries: tuple[NDArray[np.int64], NDArray[np.float64]],
    outcomes: NDArray[np.float64],
) -> NDArray[np.uint64]:
    """Add the payloads from bound to bound to the numbers of their columns, the entries of all cells and the outcomes.

    The columns, of which some are ``numeric``, own the cells from one to before another. ``grid`` are mode, low and
    high end of every cell; ``is_sum`` says which outcomes are sums, without ``outcomes`` none are added. Returns the
    headers, shape (payloads, HEADER). ValueError for what is cut short or of another layout: then what was added up
    is worth nothing.
    """
    headers = np.empty((bounds.size - 1, HEADER), np.uint64)
    if wrong := _add_stored(data, bounds, numeric, *cells, *grid, is_sum, *numbers, *entries, outcomes, headers):
        raise ValueError(_SAID[wrong])
    return headers


def modernise(data: NDArray[np.uint8]) -> bytes:
    """Return a payload of format 1, which kept steps and counts as varints before the sketches, as one of format 2."""
    header, after = unpack(data, 0, 16)
    width, filled, sketched = (int(header[place]) for place in (WIDTH, FILLED, SKETCHED))
    numbers, after = unpack(data, after, 4 * width + 2 * filled + 2 * sketched)
    whole, steps, counts, marks = np.split(numbers, np.cumsum((4 * width, filled, filled)))
    more, after = unpack(data, after, sum(map(int, (*marks[1::2], header[FOUND], header[COUNTED]))))
    names = data.size - int(header[WORDS])
    means = names - int(header[INSIDE])
    if means < after:
        raise ValueError(_SAID[CUT])
    pairs, escapes, bits = pair(steps, counts)
    told = np.concatenate((header, np.array((bits, len(escapes)), np.uint64), whole, marks, more))
    return b"".join((pack(told), data[after:means].tobytes(), escapes, pairs, data[means:].tobytes()))


def store_sums(
    cells: NDArray[np.int32],
    counts: NDArray[np.int64],
    sums: NDArray[np.float64],
    grid: tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]],
) -> tuple[bytes, bytes]:
    """Return the sums of the cells as places between the cells' ends, and those of open cells as they are.

    ``grid`` are mode, low and high end of every cell.
    """
    out, raw = np.empty(2 * cells.size, np.uint8), np.empty(cells.size, np.float64)
    place, kept = _store_sums(cells, counts, sums, *grid, out, raw)
    return out[:place].tobytes(), raw[:kept].astype("<f8").tobytes()


def restore_sums(
    cells: NDArray[np.int32],
    counts: NDArray[np.int64],
    grid: tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]],
    data: NDArray[np.uint8],
    raw: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the sums that ``store_sums`` stored; ValueError where the data ends before the cells."""
    sums = np.empty(cells.size, np.float64)
    if not _restore_sums(cells, counts, *grid, data, raw, sums):
        raise ValueError("the sums are cut short")
    return sums
