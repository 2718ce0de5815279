"""The compiled loops: from values to cells, and sums over cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])

BLOCK = 2048
LARGEST = np.finfo(np.float64).max

NO_SUM, QUANTISED_SUM, RAW_SUM = 0, 1, 2
"""How a cell's sum is stored: not at all (it follows from the count), as the mean's place in the cell, as it is."""

COUNT, MISSING, NON_FINITE, WRONG_TYPE = 0, 1, 2, 3
MINIMUM, MAXIMUM, MEAN, M2 = 0, 1, 2, 3
"""The places of a column's whole and broken numbers."""


def compiled(function: F) -> F:
    """Compile a loop on its first call and keep it in numba's cache, where there is a folder for one."""
    return _compile(function, fastmath=False)


def compiled_reordering(function: F) -> F:
    """Compile a loop whose additions may be reordered, so that several run at once."""
    return _compile(function, fastmath={"reassoc", "contract", "nsz"})


def _compile(function: F, fastmath: object) -> F:
    try:
        return cast(F, njit(cache=True, nogil=True, fastmath=fastmath, error_model="numpy")(function))
    except RuntimeError:  # numba found no folder it may write its cache to
        return cast(F, njit(nogil=True, fastmath=fastmath, error_model="numpy")(function))


@dataclass(frozen=True, slots=True)
class Search:
    """How the cell of a value is found.

    ``table`` cuts the span of the edges into equal parts with at most one edge each: its entry is the number of edges
    in the parts before. Where no table of 64k parts isolates each edge it is empty and ``edges``, filled up with +inf
    to a power of two, are searched by halves.
    """

    edges: NDArray[np.float64]
    table: NDArray[np.int32]
    low: float
    scale: float
    tied: bool
    cells: int

    @property
    def plan(self) -> tuple[NDArray[np.float64], NDArray[np.int32], float, float, bool]:
        """What the compiled loops take."""
        return self.edges, self.table, self.low, self.scale, self.tied


def plan_search(edges: NDArray[np.float64], tied: bool, largest: int = 65536) -> Search:
    """Plan how values are put between strictly increasing edges."""
    cells = 2 * edges.size + 1 if tied else edges.size + 1
    if edges.size > 1:
        low, high = float(edges[0]), float(edges[-1])
        size = 1024
        while size <= largest:
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                scale = float(np.float64(size) / np.float64(high - low))
            if not 0.0 < scale < 1e300:
                break
            part = np.minimum((edges - low) * scale, float(size - 1)).astype(np.int64)
            table = np.searchsorted(part, np.arange(size + 1), side="left").astype(np.int32)
            if np.diff(table).max() <= 1:
                return Search(np.append(edges, np.inf), table[:size].copy(), low, scale, tied, cells)
            size *= 2
    padded = 1
    while padded < edges.size + 1:
        padded *= 2
    filled = np.full(padded, np.inf)
    filled[: edges.size] = edges
    return Search(filled, np.empty(0, np.int32), 0.0, 0.0, tied, cells)


@compiled
def spread_numbers(values: Any, validity: Any, offset: int) -> Any:
    """Return the values with NaN where their bit of validity is 0."""
    out = np.empty(values.size, np.float64)
    for i in range(values.size):
        j = offset + i
        out[i] = values[i] if (validity[j >> 3] >> (j & 7)) & 1 else np.nan
    return out


@compiled
def spread_codes(codes: Any, validity: Any, offset: int) -> Any:
    """Return the codes with -1 where their bit of validity is 0."""
    out = np.empty(codes.size, np.int32)
    for i in range(codes.size):
        j = offset + i
        out[i] = codes[i] if (validity[j >> 3] >> (j & 7)) & 1 else np.int32(-1)
    return out


@compiled
def _find(
    values: Any, start: int, stop: int, edges: Any, table: Any, low: float, scale: float, tied: bool, cells: Any
) -> None:
    """Write the cell of each value from start to stop into cells, for NaN any cell."""
    n = stop - start
    if table.size:
        top = np.float64(table.size - 1)
        for i in range(n):
            value = values[start + i]
            f = (value - low) * scale
            f = f if f > 0.0 else 0.0
            f = f if f < top else top
            before = table[np.int64(f)]
            edge = edges[before]
            if tied:
                cells[i] = 2 * before + np.int32(edge <= value) + np.int32(edge < value)
            else:
                cells[i] = before + np.int32(edge <= value)
        return
    for i in range(n):
        cells[i] = 0
    step = edges.size >> 1
    while step > 0:
        for i in range(n):
            j = cells[i]
            cells[i] = j + np.int32(step) * np.int32(edges[j + step - 1] <= values[start + i])
        step >>= 1
    if tied:
        for i in range(n):
            j = cells[i]
            before = j - 1 if j > 0 else 0
            cells[i] = 2 * j - np.int32((edges[before] == values[start + i]) and j > 0)


@compiled
def locate(values: Any, edges: Any, table: Any, low: float, scale: float, tied: bool, last: int, cells: Any) -> None:
    """Write the cell of each value into cells, ``last`` where it is not finite."""
    for start in range(0, values.size, BLOCK):
        stop = min(start + BLOCK, values.size)
        _find(values, start, stop, edges, table, low, scale, tied, cells[start:stop])
        for i in range(start, stop):
            if not abs(values[i]) <= LARGEST:
                cells[i] = last


@compiled_reordering
def _block_sums(values: Any, start: int, stop: int) -> Any:
    """Return how many values are finite, their sum, least and greatest, branch-free."""
    count: Any = 0
    total = 0.0
    least = np.inf
    most = -np.inf
    for i in range(start, stop):
        value = values[i]
        finite = abs(value) <= LARGEST
        count += np.int64(finite)
        total += value if finite else 0.0
        least = value if finite and value < least else least
        most = value if finite and value > most else most
    return count, total, least, most


@compiled_reordering
def _block_squares(values: Any, start: int, stop: int, mean: float) -> float:
    total = 0.0
    for i in range(start, stop):
        value = values[i]
        off = value - mean if abs(value) <= LARGEST else 0.0
        total += off * off
    return total


@compiled
def _add_block(values: Any, start: int, stop: int, whole: Any, broken: Any) -> int:
    """Add one block of values to a column's numbers, moments as Chan, Golub and LeVeque; return the finite ones."""
    count, total, least, most = _block_sums(values, start, stop)
    if count:
        mean = total / count
        if not abs(mean) <= LARGEST:  # the sum overflowed
            mean = 0.0
            for i in range(start, stop):
                if abs(values[i]) <= LARGEST:
                    mean += values[i] / count
        squares = _block_squares(values, start, stop, mean)
        before = whole[COUNT]
        together = before + count
        gap = mean - broken[MEAN]
        broken[MEAN] += gap * (count / together)
        broken[M2] += squares + gap * gap * (before * (count / together))
        broken[MINIMUM] = min(broken[MINIMUM], least)
        broken[MAXIMUM] = max(broken[MAXIMUM], most)
        whole[COUNT] = together
    n = stop - start
    if count < n:
        whole[MISSING] += n - count
        infinite: Any = 0
        for i in range(start, stop):
            infinite += np.int64(abs(values[i]) == np.inf)
        whole[NON_FINITE] += infinite
    return int(count)


@compiled
def tally_numbers(
    values: Any,
    edges: Any,
    table: Any,
    low: float,
    scale: float,
    tied: bool,
    counts: Any,
    sums: Any,
    whole: Any,
    broken: Any,
) -> None:
    """Add all values to a column's counts, sums and numbers."""
    width = counts.size
    even_counts = np.zeros(width + 1, np.int64)
    odd_counts = np.zeros(width + 1, np.int64)
    even_sums = np.zeros(width + 1, np.float64)
    odd_sums = np.zeros(width + 1, np.float64)
    cells = np.empty(BLOCK, np.int32)
    for start in range(0, values.size, BLOCK):
        stop = min(start + BLOCK, values.size)
        n = stop - start
        finite = _add_block(values, start, stop, whole, broken)
        if finite == 0:
            continue
        _find(values, start, stop, edges, table, low, scale, tied, cells)
        if finite < n:
            for i in range(n):
                if not abs(values[start + i]) <= LARGEST:
                    cells[i] = width
        if tied:
            for i in range(n):
                cell = cells[i]
                even_counts[cell] += 1
                if not cell & 1 and cell < width:
                    even_sums[cell] += values[start + i]
        else:
            half = n & ~1
            for i in range(0, half, 2):
                one = cells[i]
                two = cells[i + 1]
                even_counts[one] += 1
                odd_counts[two] += 1
                even_sums[one] += values[start + i]
                odd_sums[two] += values[start + i + 1]
            if half < n:
                even_counts[cells[half]] += 1
                even_sums[cells[half]] += values[start + half]
    for cell in range(width):
        count = even_counts[cell] + odd_counts[cell]
        counts[cell] += count
        if tied and cell & 1:
            sums[cell] += count * edges[cell >> 1]
        else:
            sums[cell] += even_sums[cell] + odd_sums[cell]


@compiled
def tally_codes(codes: Any, used: Any) -> None:
    """Add 1 to ``used[code + 1]`` for each code; the first place counts the missing ones."""
    other = np.zeros(used.size, np.int64)
    half = codes.size & ~1
    for i in range(0, half, 2):
        used[codes[i] + 1] += 1
        other[codes[i + 1] + 1] += 1
    if half < codes.size:
        used[codes[half] + 1] += 1
    for i in range(used.size):
        used[i] += other[i]


@compiled
def tally_segments(
    values: Any,
    cells: Any,
    bounds: Any,
    width: int,
    summed: bool,
    out_cells: Any,
    out_counts: Any,
    out_sums: Any,
    offsets: Any,
) -> None:
    """Count the cells of each segment of rows, sparse: segment s has the entries ``offsets[s]`` to ``offsets[s + 1]``.

    Rows from ``bounds[s]`` to ``bounds[s + 1]`` are segment s; a cell outside [0, width) is not counted. Outputs need
    room for the sum over segments of min(rows, width).
    """
    counts = np.zeros(width, np.int64)
    sums = np.zeros(width, np.float64)
    touched = np.empty(width, np.int32)
    filled = 0
    for segment in range(bounds.size - 1):
        start, stop = bounds[segment], bounds[segment + 1]
        found = 0
        for i in range(start, stop):
            cell = cells[i]
            if cell < 0 or cell >= width:
                continue
            if counts[cell] == 0:
                touched[found] = cell
                found += 1
            counts[cell] += 1
            if summed:
                sums[cell] += values[i]
        if found * 8 > width:
            for cell in range(width):
                if counts[cell]:
                    out_cells[filled] = cell
                    out_counts[filled] = counts[cell]
                    out_sums[filled] = sums[cell]
                    filled += 1
                    counts[cell] = 0
                    sums[cell] = 0.0
        else:
            part = np.sort(touched[:found])
            for k in range(found):
                cell = part[k]
                out_cells[filled] = cell
                out_counts[filled] = counts[cell]
                out_sums[filled] = sums[cell]
                filled += 1
                counts[cell] = 0
                sums[cell] = 0.0
        offsets[segment + 1] = filled


@compiled
def describe_segments(values: Any, bounds: Any, whole: Any, broken: Any) -> None:
    """Add the values of each segment to its numbers, ``whole[s]`` and ``broken[s]``."""
    for segment in range(bounds.size - 1):
        for start in range(bounds[segment], bounds[segment + 1], BLOCK):
            stop = min(start + BLOCK, bounds[segment + 1])
            _add_block(values, start, stop, whole[segment], broken[segment])


@compiled
def add_numbers(whole: Any, broken: Any, more_whole: Any, more_broken: Any) -> None:
    """Add the numbers of all columns of one profile to those of another, moments as Chan, Golub and LeVeque."""
    for column in range(whole.shape[0]):
        n, m = whole[column, COUNT], more_whole[column, COUNT]
        if m:
            together = n + m
            gap = more_broken[column, MEAN] - broken[column, MEAN]
            broken[column, MEAN] += gap * (m / together)
            broken[column, M2] += more_broken[column, M2] + gap * gap * (n * (m / together))
            broken[column, MINIMUM] = min(broken[column, MINIMUM], more_broken[column, MINIMUM])
            broken[column, MAXIMUM] = max(broken[column, MAXIMUM], more_broken[column, MAXIMUM])
        for place in range(4):
            whole[column, place] += more_whole[column, place]


@compiled
def add_entries(counts: Any, sums: Any, cells: Any, more_counts: Any, more_sums: Any) -> None:
    """Add sparse counts and sums to dense ones."""
    for i in range(cells.size):
        counts[cells[i]] += more_counts[i]
        sums[cells[i]] += more_sums[i]


@compiled
def hash_texts(offsets: Any, data: Any) -> Any:
    """Return a 64-bit hash of each text, the same everywhere: FNV-1a with the finish of MurmurHash3."""
    out = np.empty(offsets.size - 1, np.uint64)
    for i in range(out.size):
        h = np.uint64(14695981039346656037)
        for j in range(offsets[i], offsets[i + 1]):
            h = (h ^ np.uint64(data[j])) * np.uint64(1099511628211)
        h ^= h >> np.uint64(33)
        h *= np.uint64(0xFF51AFD7ED558CCD)
        h ^= h >> np.uint64(33)
        h *= np.uint64(0xC4CEB9FE1A85EC53)
        h ^= h >> np.uint64(33)
        out[i] = h
    return out


@compiled
def add_weights(sums: Any, cells: Any, weights: Any) -> None:
    """Add each row's weight, or 1 where there are no weights, to its cell; negative cells are not counted."""
    weighted = weights.size > 0
    for i in range(cells.size):
        cell = cells[i]
        if cell >= 0:
            sums[cell] += weights[i] if weighted else 1.0
