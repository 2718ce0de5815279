"""Whole numbers in few bytes, and sums inside cells as places between the cell's ends: how profiles are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitors.cells import QUANTISED_SUM, RAW_SUM, compiled

FEW = 16
"""Below so many values the mean inside a cell is kept to 1/255 of the cell's width, from there on to 1/65535: far below
what the mean of so many values is uncertain by."""


@compiled
def _pack(numbers: Any, out: Any) -> int:
    place = 0
    for i in range(numbers.size):
        rest = numbers[i]
        while rest >= np.uint64(128):
            out[place] = np.uint8(rest & np.uint64(127)) | np.uint8(128)
            rest >>= np.uint64(7)
            place += 1
        out[place] = np.uint8(rest)
        place += 1
    return place


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
        number = np.uint64(0)
        shift = np.uint64(0)
        while True:
            if place >= data.size or shift > np.uint64(63):
                return -1
            byte = np.uint64(data[place])
            place += 1
            number |= (byte & np.uint64(127)) << shift
            if byte < np.uint64(128):
                break
            shift += np.uint64(7)
        out[i] = number
        i += 1
    return place


@compiled
def _unpack_sections(data: Any, header: int, out: Any) -> Any:
    place = _unpack(data, 0, out[:header])
    if place < 0:
        return -1, 0
    most = np.uint64(data.size)
    width, filled, marks, cells, counts = out[6], out[8], out[12], out[13], out[14]
    if width > most or filled > most or marks > most or cells > most or counts > most:
        return -1, 0
    size = np.int64(header) + 4 * np.int64(width) + 2 * np.int64(filled)
    first = size
    size += 2 * np.int64(marks)
    if size > data.size:
        return -1, 0
    place = _unpack(data, place, out[header:size])
    if place < 0:
        return -1, 0
    whole = size
    for mark in range(first, size, 2):
        if out[mark + 1] > most:
            return -1, 0
        whole += np.int64(out[mark + 1])
    whole += np.int64(cells) + np.int64(counts)
    if whole > data.size:
        return -1, 0
    return _unpack(data, place, out[size:whole]), whole


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
def _add_cells(steps: Any, more: Any, start: int, stop: int, mode: Any, low: Any, high: Any, data: Any, raw: Any,
               counts: Any, sums: Any) -> bool:  # fmt: skip
    cell = np.int64(start)
    place = 0
    kept = 0
    for i in range(steps.size):
        if steps[i] >= np.uint64(stop) or (i > 0 and steps[i] == np.uint64(0)):
            return False
        cell += np.int64(steps[i])
        if cell >= stop:
            return False
        count = np.int64(more[i])
        counts[cell] += count
        if mode[cell] == RAW_SUM:
            if kept >= raw.size:
                return False
            sums[cell] += raw[kept]
            kept += 1
        elif mode[cell] == QUANTISED_SUM:
            if count < FEW:
                if place >= data.size:
                    return False
                share = data[place] / 255.0
                place += 1
            else:
                if place + 1 >= data.size:
                    return False
                share = (data[place] + 256.0 * data[place + 1]) / 65535.0
                place += 2
            sums[cell] += count * (low[cell] + share * (high[cell] - low[cell]))
        else:
            sums[cell] += count * low[cell]
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


def unpack_sections(
    data: NDArray[np.uint8], header: int, room: NDArray[np.uint64] | None = None
) -> tuple[NDArray[np.uint64], int]:
    """Return all whole numbers of a profile, and the place in the data after them; ValueError where the data ends.

    How many there are is said by the first ``header`` of them and by the marks of the sketches. They lie in ``room``
    where that is large enough for as many numbers as there are bytes.
    """
    if data.size < header:
        raise ValueError("the profile is cut short")
    out = np.empty(data.size, np.uint64) if room is None or room.size < data.size else room
    after, size = _unpack_sections(data, header, out)
    if after < 0:
        raise ValueError("the profile is cut short")
    return out[:size], int(after)


def places_of(steps: NDArray[np.uint64], start: int, stop: int) -> NDArray[np.int32]:
    """Return the increasing places from start to before stop that were stored as steps; ValueError for others."""
    out = np.empty(steps.size, np.int32)
    if not _places(steps, start, stop, out):
        raise ValueError(f"the places are not increasing from {start} to {stop}")
    return out


def add_cells(
    steps: NDArray[np.uint64],
    more: NDArray[np.uint64],
    bounds: tuple[int, int],
    grid: tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]],
    data: NDArray[np.uint8],
    raw: NDArray[np.float64],
    counts: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> None:
    """Add stored counts, and sums as `store_sums` stored them, to those of all cells; ValueError where they end."""
    if not _add_cells(steps, more, *bounds, *grid, data, raw, counts, sums):
        raise ValueError("the cells are cut short or outside of the layout")


def add_outcomes(
    steps: NDArray[np.uint64],
    counts: NDArray[np.uint64],
    sums: NDArray[np.float64],
    is_sum: NDArray[np.bool_],
    values: NDArray[np.float64],
) -> None:
    """Add stored outcomes to those of all cells, of which some hold sums; ValueError where they do not fit."""
    if not _add_outcomes(steps, counts, sums, is_sum, values):
        raise ValueError("the profile was made with another layout")


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
