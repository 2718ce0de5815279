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
    for i in range(out.size):
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
    return place


@compiled
def _unpack_places(data: Any, place: int, start: int, stop: int, out: Any) -> int:
    last = np.int64(start)
    for i in range(out.size):
        step = np.uint64(0)
        shift = np.uint64(0)
        while True:
            if place >= data.size or shift > np.uint64(28):
                return -1
            byte = np.uint64(data[place])
            place += 1
            step |= (byte & np.uint64(127)) << shift
            if byte < np.uint64(128):
                break
            shift += np.uint64(7)
        last += np.int64(step)
        if last >= stop or (i > 0 and step == np.uint64(0)):
            return -1
        out[i] = last
    return place


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


def unpack(data: NDArray[np.uint8], place: int, size: int) -> tuple[NDArray[np.uint64], int]:
    """Return ``size`` numbers packed from ``place`` on, and the place after them; ValueError where the data ends."""
    if size > data.size - place:
        raise ValueError(f"{size} numbers cannot be in {data.size - place} bytes")
    out = np.empty(size, np.uint64)
    after = _unpack(data, place, out)
    if after < 0:
        raise ValueError("the numbers are cut short")
    return out, int(after)


def unpack_places(
    data: NDArray[np.uint8], place: int, size: int, start: int, stop: int
) -> tuple[NDArray[np.int32], int]:
    """Return ``size`` increasing places from start to before stop, packed as steps, and the place in the data after.

    ValueError where the data ends, or a place is outside.
    """
    if size > data.size - place:
        raise ValueError(f"{size} places cannot be in {data.size - place} bytes")
    out = np.empty(size, np.int32)
    after = _unpack_places(data, place, start, stop, out)
    if after < 0:
        raise ValueError(f"the places are not increasing from {start} to {stop}")
    return out, int(after)


def unpack_counts(data: NDArray[np.uint8], place: int, size: int) -> tuple[NDArray[np.int64], int]:
    """Return what ``unpack`` returns, as signed numbers."""
    if size > data.size - place:
        raise ValueError(f"{size} numbers cannot be in {data.size - place} bytes")
    out = np.empty(size, np.int64)
    after = _unpack(data, place, out)
    if after < 0:
        raise ValueError("the numbers are cut short")
    return out, int(after)


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
