"""The compiled loops: from values to cells, and sums over cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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

LINEAR, BITS, FOLDED, HALVES = 0, 1, 2, 3
MOST_EDGES = 2**30 - 1
"""So that a cell of a column with ties is a 32-bit number."""
HALF = 0x3FE0000000000000
GREATEST = 0x7FFFFFFFFFFFFFFF
"""The bits of 0.5, and all bits of a whole number but its sign."""


def compiled(function: F) -> F:
    """Compile a loop on its first call and keep it in numba's cache, where there is a folder for one."""
    return _compile(function, fastmath=False)


def compiled_reordering(function: F) -> F:
    """Compile a loop whose additions may be reordered, so that several run at once."""
    return _compile(function, fastmath={"reassoc", "contract", "nsz"})


def compiled_finite(function: F) -> F:
    """Compile a loop that sees finite numbers only."""
    return _compile(function, fastmath=True)


def _compile(function: F, fastmath: object) -> F:
    try:
        return cast(F, njit(cache=True, nogil=True, fastmath=fastmath, error_model="numpy")(function))
    except RuntimeError:  # numba found no folder it may write its cache to
        return cast(F, njit(nogil=True, fastmath=fastmath, error_model="numpy")(function))


@dataclass(frozen=True, slots=True)
class Search:
    """How the cell of a value is found.

    Values are cut into parts that hold at most one edge each; ``table`` has the number of edges in the parts before.
    Parts are equally long (``LINEAR``), or equal in the leading bits of the number (``BITS``, for heavy tails) or its
    distance from the nearer of 0 and 1 (``FOLDED``, for scores). Where no table of 64k parts isolates each edge
    (``HALVES``), ``edges``, filled up with +inf to a power of two, are searched by halves.
    """

    edges: NDArray[np.float64]
    table: NDArray[np.uint16] | NDArray[np.uint32]
    kind: int
    low: float
    scale: float
    origin: int
    last: int
    shift: int
    tied: bool
    cells: int

    @property
    def plan(
        self,
    ) -> tuple[NDArray[np.float64], NDArray[np.uint16] | NDArray[np.uint32], int, float, float, int, int, int, bool]:
        """What the compiled loops take."""
        return (
            self.edges,
            self.table,
            self.kind,
            self.low,
            self.scale,
            self.origin,
            self.last,
            self.shift,
            self.tied,
        )


def plan_search(edges: NDArray[np.float64], tied: bool, largest: int = 65536) -> Search:
    """Plan how values are put between strictly increasing edges; more than 32,767 are searched by halves."""
    if edges.size > MOST_EDGES:
        raise ValueError(f"{edges.size} edges are too many; a column has at most {MOST_EDGES:,}")
    cells = 2 * edges.size + 1 if tied else edges.size + 1
    padded = 1
    while padded < edges.size + 1:
        padded *= 2
    filled = np.full(padded, np.inf)
    filled[: edges.size] = edges
    if 1 < edges.size < 2**15:
        for kind in (LINEAR, BITS, FOLDED):
            if kind == FOLDED and not (edges[0] >= 0.0 and edges[-1] <= 1.0):
                continue
            search = _plan_linear(filled, edges, tied, largest) if kind == LINEAR else None
            search = search or (_plan_bits(filled, edges, tied, largest, kind) if kind != LINEAR else None)
            if search is not None:
                return search
    identity = np.arange(padded).astype(np.uint16) if padded <= 2**16 else np.arange(padded).astype(np.uint32)
    return Search(filled, identity, HALVES, 0.0, 0.0, 0, 0, 0, tied, cells)


def _plan_linear(filled: NDArray[np.float64], edges: NDArray[np.float64], tied: bool, largest: int) -> Search | None:
    cells = 2 * edges.size + 1 if tied else edges.size + 1
    low, high = float(edges[0]), float(edges[-1])
    size = 1024
    while size <= largest:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            scale = float(np.float64(size) / np.float64(high - low))
        if not 0.0 < scale < 1e300:
            return None
        draft = Search(filled, np.zeros(size, np.uint16), LINEAR, low, scale, 0, 0, 0, tied, cells)
        table = _table(draft, edges)
        if table is not None:
            return replace(draft, table=table)
        size *= 2
    return None


def _plan_bits(
    filled: NDArray[np.float64], edges: NDArray[np.float64], tied: bool, largest: int, kind: int
) -> Search | None:
    cells = 2 * edges.size + 1 if tied else edges.size + 1
    keys = np.empty(edges.size, np.int64)
    _keys(edges, 0, edges.size, kind, np.empty(edges.size), keys)
    origin, last = int(keys[0]), int(keys[-1])
    shift = 0
    while ((last - origin) >> shift) + 1 > largest:
        shift += 1
    found = None
    while ((last - origin) >> shift) >= edges.size // 2:
        size = ((last - origin) >> shift) + 1
        draft = Search(filled, np.zeros(size, np.uint16), kind, 0.0, 0.0, origin, last, shift, tied, cells)
        table = _table(draft, edges)
        if table is None:
            break
        found = replace(draft, table=table)
        shift += 1
    return found


def _table(search: Search, edges: NDArray[np.float64]) -> NDArray[np.uint16] | None:
    """Return how many edges lie in the parts before each one; None where a part holds two."""
    parts = np.empty(edges.size, np.int32)
    scratch, keys = np.empty(edges.size), np.empty(edges.size, np.int64)
    _part(edges, 0, edges.size, *search.plan[:8], scratch, keys, parts)
    if (np.diff(parts) < 1).any():
        return None
    return np.searchsorted(parts, np.arange(search.table.size), side="left").astype(np.uint16)


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
def _keys(values: Any, start: int, stop: int, kind: int, scratch: Any, keys: Any) -> None:
    """Write whole numbers in the order of the values: their bits, or for FOLDED those of the distance from 0 or 1."""
    n = stop - start
    if kind == FOLDED:
        for i in range(n):
            value = values[start + i]
            near = value if value < 0.5 else 1.0 - value
            scratch[i] = near if near > 0.0 else 0.0
        bits = scratch.view(np.int64)
        for i in range(n):
            keys[i] = bits[i] if values[start + i] < 0.5 else 2 * HALF - bits[i]
    else:
        for i in range(n):
            scratch[i] = values[start + i] + 0.0
        bits = scratch.view(np.int64)
        for i in range(n):
            key = bits[i]
            keys[i] = key ^ ((key >> 63) & GREATEST)


@compiled
def _part(
    values: Any,
    start: int,
    stop: int,
    edges: Any,
    table: Any,
    kind: int,
    low: float,
    scale: float,
    origin: int,
    last: int,
    shift: int,
    scratch: Any,
    keys: Any,
    parts: Any,
) -> None:
    """Write the part of each value from start to stop, all finite; searching by halves, the edges below the value."""
    n = stop - start
    if kind == LINEAR:
        top = np.float64(table.size - 1)
        for i in range(n):
            f = (values[start + i] - low) * scale
            f = f if f > 0.0 else 0.0
            f = f if f < top else top
            parts[i] = np.int32(f)
    elif kind == HALVES:
        for i in range(n):
            parts[i] = 0
        step = edges.size >> 1
        while step > 0:
            for i in range(n):
                j = parts[i]
                parts[i] = j + np.int32(step) * np.int32(edges[np.uint64(j + step - 1)] < values[start + i])
            step >>= 1
    else:
        _keys(values, start, stop, kind, scratch, keys)
        for i in range(n):
            key = keys[i]
            key = key if key > origin else origin
            key = key if key < last else last
            parts[i] = np.int32(np.uint64(key - origin) >> np.uint64(shift))


@compiled
def _settle(values: Any, start: int, stop: int, edges: Any, table: Any, tied: bool, parts: Any) -> None:
    """Turn the part of each value into its cell: apart from what is counted there, several are found at once."""
    if tied:
        for i in range(stop - start):
            value = values[start + i]
            before = np.uint64(table[np.uint64(parts[i])])
            edge = edges[before]
            parts[i] = np.int32(np.uint64(2) * before + np.uint64(edge <= value) + np.uint64(edge < value))
    else:
        for i in range(stop - start):
            before = np.uint64(table[np.uint64(parts[i])])
            parts[i] = np.int32(before + np.uint64(edges[before] <= values[start + i]))


@compiled
def locate(
    values: Any,
    edges: Any,
    table: Any,
    kind: int,
    low: float,
    scale: float,
    origin: int,
    last: int,
    shift: int,
    tied: bool,
    none: int,
    cells: Any,
) -> None:
    """Write the cell of each value into cells, ``none`` where it is not finite."""
    block = min(BLOCK, values.size)
    clean = np.empty(block)
    scratch = np.empty(block)
    keys = np.empty(block, np.int64)
    parts = np.empty(block, np.int32)
    for start in range(0, values.size, BLOCK):
        n = min(BLOCK, values.size - start)
        for i in range(n):
            value = values[start + i]
            clean[i] = value if abs(value) <= LARGEST else 0.0
        _part(clean, 0, n, edges, table, kind, low, scale, origin, last, shift, scratch, keys, parts)
        _settle(clean, 0, n, edges, table, tied, parts)
        for i in range(n):
            cells[start + i] = parts[i] if abs(values[start + i]) <= LARGEST else np.int32(none)


@compiled_reordering
def _shifted_sums(values: Any, start: int, stop: int, origin: float) -> Any:
    """Return the sums of the values' distances from a number and of their squares; not finite if a value is not."""
    total = 0.0
    squares = 0.0
    for i in range(start, stop):
        off = values[i] - origin
        total += off
        squares += off * off
    return total, squares


@compiled_finite
def _ends(values: Any, start: int, stop: int) -> Any:
    """Return the least and the greatest of values that are all finite."""
    least = values[start]
    most = values[start]
    for i in range(start, stop):
        value = values[i]
        least = value if value < least else least
        most = value if value > most else most
    return least, most


@compiled
def _keep_finite(values: Any, start: int, stop: int, clean: Any, whole: Any) -> Any:
    """Write the finite values side by side, count the others, and return how many there are."""
    count: Any = 0
    infinite: Any = 0
    for i in range(start, stop):
        value = values[i]
        clean[count] = value
        count += np.int64(abs(value) <= LARGEST)
        infinite += np.int64(abs(value) == np.inf)
    whole[MISSING] += stop - start - count
    whole[NON_FINITE] += infinite
    return count


@compiled
def _add_moments(count: Any, broken: Any, more: Any, mean: Any, squares: Any) -> None:
    """Add the mean and the squared deviations of more values to those of count values, never beyond what is finite."""
    if count == 0:
        broken[MEAN] = mean
        broken[M2] = min(max(squares, 0.0), LARGEST)
        return
    share = more / (count + more)
    gap = mean - broken[MEAN]
    between = gap * gap * (count * share)
    broken[MEAN] = broken[MEAN] + gap * share if abs(gap) <= LARGEST else broken[MEAN] * (1.0 - share) + mean * share
    broken[M2] = min(broken[M2] + max(squares, 0.0) + between, LARGEST)


@compiled
def _add_finite(
    values: Any, start: int, stop: int, centre: Any, near: Any, whole: Any, broken: Any, total: Any, squares: Any
) -> None:
    """Add finite values, at least one, to a column's numbers, moments as Chan, Golub and LeVeque.

    ``total`` and ``squares`` are the sums of the values' distances from ``near``, and of their squares.
    """
    count = stop - start
    if abs(squares) <= LARGEST:
        gap = total / count
        inside = squares - total * gap
        if total * gap > 1000.0 * inside:  # the mean so far is far away: the difference has lost digits
            mean = near + gap
            inside = 0.0
            off = 0.0
            for i in range(start, stop):
                inside += (values[i] - mean) ** 2
                off += values[i] - mean
            inside -= off * off / count
            gap = (mean - near) + off / count
        mean = (near - centre) + gap
    else:  # too large to be squared: as far as numbers go
        inside = LARGEST
        mean = 0.0
        for i in range(start, stop):
            mean += values[i] / count
        mean -= centre
    _add_moments(whole[COUNT], broken, count, mean, inside)
    whole[COUNT] += count
    least, most = _ends(values, start, stop)
    broken[MINIMUM] = min(broken[MINIMUM], least)
    broken[MAXIMUM] = max(broken[MAXIMUM], most)


@compiled
def _count(values: Any, start: int, stop: int, cells: Any, even: Any, odd: Any) -> None:
    """Add finite values to the sums and counts of their cells, in turn to one of two tables: equal ones do not wait."""
    two = np.uint64(2)
    one = np.uint64(1)
    n = stop - start
    for i in range(0, n & ~1, 2):
        cell = two * np.uint64(cells[i])
        even[cell] += values[start + i]
        even[cell + one] += 1.0
        cell = two * np.uint64(cells[i + 1])
        odd[cell] += values[start + i + 1]
        odd[cell + one] += 1.0
    if n & 1:
        cell = two * np.uint64(cells[n - 1])
        even[cell] += values[stop - 1]
        even[cell + one] += 1.0


@compiled
def tally_numbers(
    values: Any,
    edges: Any,
    table: Any,
    kind: int,
    low: float,
    scale: float,
    origin: int,
    last: int,
    shift: int,
    tied: bool,
    centre: float,
    counts: Any,
    sums: Any,
    whole: Any,
    broken: Any,
) -> None:
    """Add all values to a column's counts, sums and numbers; its mean is kept as the distance from the centre."""
    width = counts.size
    even = np.zeros(2 * width)  # sum and count of each cell side by side
    odd = np.zeros(2 * width)
    block = min(BLOCK, values.size)
    clean = np.empty(block)
    scratch = np.empty(block)
    keys = np.empty(block, np.int64)
    parts = np.empty(block, np.int32)
    for start in range(0, values.size, BLOCK):
        n = min(BLOCK, values.size - start)
        if whole[COUNT] == 0 and abs(values[start]) <= LARGEST:
            broken[MEAN] = values[start] - centre
        near = centre + broken[MEAN]
        total, squares = _shifted_sums(values, start, start + n, near)
        if abs(squares) <= LARGEST:
            stop = start + n
            _add_finite(values, start, stop, centre, near, whole, broken, total, squares)
            _part(values, start, stop, edges, table, kind, low, scale, origin, last, shift, scratch, keys, parts)
            _settle(values, start, stop, edges, table, tied, parts)
            _count(values, start, stop, parts, even, odd)
            continue
        n = _keep_finite(values, start, start + n, clean, whole)
        if n:
            total, squares = _shifted_sums(clean, 0, n, near)
            _add_finite(clean, 0, n, centre, near, whole, broken, total, squares)
            _part(clean, 0, n, edges, table, kind, low, scale, origin, last, shift, scratch, keys, parts)
            _settle(clean, 0, n, edges, table, tied, parts)
            _count(clean, 0, n, parts, even, odd)
    for place in range(width):
        count = np.int64(even[2 * place + 1] + odd[2 * place + 1])
        counts[place] += count
        if tied and place & 1:
            sums[place] += count * edges[place >> 1]
        else:
            sums[place] += even[2 * place] + odd[2 * place]


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
def place_entries(
    offsets: Any,
    starts: Any,
    shift: int,
    cells: Any,
    counts: Any,
    sums: Any,
    out_cells: Any,
    out_counts: Any,
    out_sums: Any,
) -> None:
    """Copy the entries of each segment to where its entries start, cells moved by the column's place in the grid."""
    for segment in range(starts.size):
        to = starts[segment]
        for i in range(offsets[segment], offsets[segment + 1]):
            out_cells[to] = cells[i] + shift
            out_counts[to] = counts[i]
            out_sums[to] = sums[i]
            to += 1


@compiled
def describe_segments(values: Any, bounds: Any, centre: float, whole: Any, broken: Any) -> None:
    """Add the values of each segment to its numbers, ``whole[s]`` and ``broken[s]``."""
    clean = np.empty(BLOCK)
    for segment in range(bounds.size - 1):
        for start in range(bounds[segment], bounds[segment + 1], BLOCK):
            n = min(start + BLOCK, bounds[segment + 1]) - start
            n = _keep_finite(values, start, start + n, clean, whole[segment])
            if n:
                if whole[segment, COUNT] == 0:
                    broken[segment, MEAN] = clean[0] - centre
                near = centre + broken[segment, MEAN]
                total, squares = _shifted_sums(clean, 0, n, near)
                _add_finite(clean, 0, n, centre, near, whole[segment], broken[segment], total, squares)


@compiled
def add_numbers(whole: Any, broken: Any, more_whole: Any, more_broken: Any) -> None:
    """Add the numbers of all columns of one profile to those of another, moments as Chan, Golub and LeVeque."""
    for column in range(whole.shape[0]):
        n, m = whole[column, COUNT], more_whole[column, COUNT]
        if m:
            _add_moments(n, broken[column], m, more_broken[column, MEAN], more_broken[column, M2])
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
