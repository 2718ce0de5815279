"""What is kept of a bucket of rows: counts, moments and sums that add up over buckets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import zstandard
from numpy.typing import NDArray

from monitors.cells import COUNT, M2, MAXIMUM, MEAN, MINIMUM, MISSING, NON_FINITE, WRONG_TYPE, add_entries, add_numbers
from monitors.coding import (
    COUNT_BITS,
    COUNTED,
    DOUBLES,
    ESCAPES,
    FIRST,
    FOUND,
    HEADER,
    LABELLED,
    LAST,
    MEANS,
    NAMES,
    OUTCOMES,
    RAW,
    ROWS,
    SKETCHED,
    SKETCHES,
    WORDS,
    add_stored,
    modernise,
    open_stored,
    pack,
    pair,
    places_of,
    restore_sums,
    spell,
    store_sums,
)
from monitors.layout import Layout, NumericLayout

FORMAT = 2
"""The format version of encoded profiles; every older one stays readable: 1 had steps and counts apart."""

MOST_NEW = 32
SKETCH = 256
_SPACE = float(2**40)
_SHIFT = 24


@dataclass(slots=True)
class NumericProfile:
    """A numeric column of n rows: ``count`` finite values in ``counts`` (with ``sums`` inside each cell), and the rest.

    ``missing`` counts null, NaN and absent values and, among them, ``non_finite`` and ``wrong_type`` those that came
    as something else. ``m2`` is the sum of squared deviations from ``mean``. ``minimum`` and ``maximum`` are +inf and
    -inf where count is 0. Of text and embeddings only ``count`` and ``missing`` say something.
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    count: int = 0
    missing: int = 0
    non_finite: int = 0
    wrong_type: int = 0
    minimum: float = float("inf")
    maximum: float = float("-inf")
    mean: float = 0.0
    m2: float = 0.0

    @property
    def variance(self) -> float:
        """The sample's variance; 0 below two values."""
        return max(self.m2, 0.0) / (self.count - 1) if self.count > 1 else 0.0

    @property
    def standard_deviation(self) -> float:
        """The sample's standard deviation; 0 below two values."""
        return math.sqrt(self.variance)

    @property
    def completeness(self) -> float:
        """The share of rows with a value; 1 without rows."""
        rows = self.count + self.missing
        return self.count / rows if rows else 1.0

    def positions(self, layout: NumericLayout) -> NDArray[np.float64]:
        """Return the mean value of each cell, shape (cells,), in the column's own unit.

        An empty cell has its middle; an empty open one the edge it begins at. A column without edges has its mean.
        """
        if not layout.edges.size:
            return np.array([self.mean])
        low, high = layout.bounds(float(layout.edges[0]), float(layout.edges[-1]))
        middle = low / 2 + high / 2
        means = np.divide(self.sums, self.counts, out=middle, where=self.counts > 0)
        if layout.tied:
            means[1::2] = layout.edges
        return np.asarray(means)

    def quantile(self, share: float, layout: NumericLayout) -> float | None:
        """Return the value below which the share of values lies, evenly spread inside a cell; None without values."""
        total = int(self.counts.sum())
        if not total or not np.isfinite(self.minimum):
            return None
        low, high = layout.bounds(self.minimum, self.maximum)
        low, high = np.maximum(low, self.minimum), np.minimum(high, self.maximum)
        below = np.cumsum(self.counts)
        wanted = min(max(share, 0.0), 1.0) * total
        cell = min(int(np.searchsorted(below, wanted, side="left")), below.size - 1)
        while cell < below.size - 1 and not self.counts[cell]:
            cell += 1
        inside = float(wanted - below[cell] + self.counts[cell]) / max(int(self.counts[cell]), 1)
        value = float(low[cell]) + min(max(inside, 0.0), 1.0) * (float(high[cell]) - float(low[cell]))
        return min(max(value, self.minimum), self.maximum)


@dataclass(slots=True)
class CategoryProfile:
    """A categorical column: ``counts`` per category of the layout, last the others, the most frequent named in ``new``.

    ``new`` holds at most 32 names, so over merged buckets its counts are what is known at least.
    """

    counts: NDArray[np.int64]
    count: int = 0
    missing: int = 0
    wrong_type: int = 0
    new: dict[str, int] = field(default_factory=dict)
    distinct: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """The smallest 256 hashes, of 40 bits, of the values that are no category of the layout."""
    non_finite: int = 0

    @property
    def completeness(self) -> float:
        """The share of rows with a value; 1 without rows."""
        rows = self.count + self.missing
        return self.count / rows if rows else 1.0

    @property
    def distinct_values(self) -> int:
        """How many values occurred: exact for the layout's categories and up to 255 others, else estimated within 6 %.

        Others beyond are estimated from how closely their smallest hashes lie (Bar-Yossef and others 2002).
        """
        known = int(np.count_nonzero(self.counts[:-1]))
        if self.distinct.size < SKETCH:
            return known + int(self.distinct.size)
        return known + round((SKETCH - 1) * _SPACE / max(float(self.distinct[-1]), 1.0))


ColumnProfile = NumericProfile | CategoryProfile


_NOTHING = np.array([[np.inf, -np.inf, 0.0, 0.0]])


@dataclass(slots=True)
class Tally:
    """The numbers of all columns side by side, as the layout's grid has them.

    ``whole`` and ``broken`` have a row per column (``cells.COUNT`` …, ``cells.MINIMUM`` …), the mean as its distance
    from the column's centre in the grid, so that numbers far from 0 keep their digits. ``counts`` and ``sums`` belong
    to ``cells``, increasing places in the grid, or to all places where ``cells`` is None.
    """

    whole: NDArray[np.int64]
    broken: NDArray[np.float64]
    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    cells: NDArray[np.int32] | None = None
    new: dict[int, dict[str, int]] = field(default_factory=dict)
    distinct: dict[int, NDArray[np.uint64]] = field(default_factory=dict)

    @staticmethod
    def empty(layout: Layout, dense: bool = False) -> Tally:
        """Return the tally of no rows."""
        columns = len(layout.grid.names)
        size = layout.grid.cells if dense else 0
        return Tally(
            whole=np.zeros((columns, 4), np.int64),
            broken=np.repeat(_NOTHING, columns, axis=0),
            counts=np.zeros(size, np.int64),
            sums=np.zeros(size),
            cells=None if dense else np.empty(0, np.int32),
        )

    def dense(self, layout: Layout) -> Tally:
        """Return the same with every cell."""
        if self.cells is None:
            return self
        counts, sums = np.zeros(layout.grid.cells, np.int64), np.zeros(layout.grid.cells)
        counts[self.cells], sums[self.cells] = self.counts, self.sums
        return Tally(self.whole, self.broken, counts, sums, None, self.new, self.distinct)

    def sparse(self) -> Tally:
        """Return the same with only the cells that hold something."""
        if self.cells is not None:
            return self
        cells = np.flatnonzero(self.counts).astype(np.int32)
        return Tally(self.whole, self.broken, self.counts[cells], self.sums[cells], cells, self.new, self.distinct)

    def append(self, other: Tally, column: int) -> None:
        """Take the columns from one on from another tally; both must be sparse, and this one has nothing there."""
        self.whole[column:], self.broken[column:] = other.whole[column:], other.broken[column:]
        self.counts = np.concatenate((self.counts, other.counts))
        self.sums = np.concatenate((self.sums, other.sums))
        self.cells = np.concatenate((_places(self), _places(other)))
        self.new |= other.new
        self.distinct |= other.distinct

    def add(self, other: Tally) -> None:
        """Add the numbers of other rows; this one must be dense."""
        add_numbers(self.whole, self.broken, other.whole, other.broken)
        if other.cells is None:
            self.counts += other.counts
            self.sums += other.sums
        else:
            add_entries(self.counts, self.sums, other.cells, other.counts, other.sums)
        self.gather(other.new, other.distinct)

    def gather(self, new: Mapping[int, Mapping[str, int]], distinct: Mapping[int, NDArray[np.uint64]]) -> None:
        """Take in the new categories and the sketches of other rows."""
        for column, names in new.items():
            self.new[column] = most_frequent(self.new.get(column, {}), names)
        for column, hashes in distinct.items():
            self.distinct[column] = smallest(self.distinct.get(column), hashes)


def most_frequent(*parts: Mapping[str, int]) -> dict[str, int]:
    """Return the 32 most frequent names of several counts, most frequent first, equal ones by name."""
    counts: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            counts[name] = counts.get(name, 0) + count
    return {name: counts[name] for name in sorted(counts, key=lambda name: (-counts[name], name))[:MOST_NEW]}


def smallest(known: NDArray[np.uint64] | None, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the 256 smallest distinct hashes of both, sorted."""
    if known is None or not known.size:
        return np.asarray(np.unique(hashes)[:SKETCH], np.uint64)
    return np.asarray(np.union1d(known, hashes)[:SKETCH], np.uint64)


def sketch(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the 256 smallest of 64-bit hashes, cut to 40 bits."""
    return np.asarray(np.unique(hashes >> np.uint64(_SHIFT))[:SKETCH], np.uint64)


class Profile:
    """All columns of some rows under one layout; profiles of the same layout add up.

    Profiles are not changed once made. ``first_us`` and ``last_us`` are the least and greatest timestamp in
    microseconds since 1970. ``outcomes`` are the tables of ``Layout.tables`` by name, shape as there; they and the
    column ``ground_truth`` are absent where no labels were read (``labelled``).
    """

    __slots__ = ("_columns", "_outcomes", "_tables", "_tally", "first_us", "labelled", "last_us", "layout", "rows")

    def __init__(
        self,
        layout: Layout,
        rows: int = 0,
        first_us: int | None = None,
        last_us: int | None = None,
        columns: Mapping[str, ColumnProfile] | None = None,
        outcomes: Mapping[str, NDArray[np.float64]] | None = None,
        *,
        labelled: bool | None = None,
        tally: Tally | None = None,
        cells: OutcomeCells | None = None,
    ) -> None:
        """Make a profile of columns and outcome tables, or of a tally and outcome cells as the kernel has them."""
        self.layout = layout
        self.rows = rows
        self.first_us = first_us
        self.last_us = last_us
        self._columns = dict(columns) if columns is not None else None
        self._tables = dict(outcomes) if outcomes is not None else None
        self._tally = tally
        self._outcomes = cells
        if labelled is None:
            labelled = bool(outcomes) or cells is not None or "ground_truth" in (columns or {})
        self.labelled = labelled

    @staticmethod
    def empty(layout: Layout) -> Profile:
        """Return the profile of no rows."""
        return Profile(layout, tally=Tally.empty(layout))

    def __repr__(self) -> str:
        """Name what tells profiles apart."""
        return f"Profile(rows={self.rows}, columns={len(self.layout.columns)}, layout={self.layout.number})"

    @property
    def columns(self) -> dict[str, ColumnProfile]:
        """The columns by name."""
        if self._columns is None:
            self._columns = _columns_of(self.layout, self.tally, self.labelled)
        return self._columns

    @property
    def outcomes(self) -> dict[str, NDArray[np.float64]]:
        """The tables of the outcomes by name; empty where no labels were read."""
        if self._tables is None:
            self._tables = {}
            if self._outcomes is not None:
                values = self._outcomes.dense(self.layout).values
                values.flags.writeable = False
                for table in self.layout.tables.values():
                    self._tables[table.name] = values[table.offset : table.offset + table.size].reshape(table.shape)
        return self._tables

    @property
    def tally(self) -> Tally:
        """The numbers of all columns side by side."""
        if self._tally is None:
            self._tally = _tally_of(self.layout, self._columns or {})
        return self._tally

    @property
    def outcome_cells(self) -> OutcomeCells | None:
        """The cells of the outcomes side by side; None where no labels were read."""
        if self._outcomes is None and self._tables:
            values = np.zeros(self.layout.outcome_cells)
            for name, numbers in self._tables.items():
                table = self.layout.tables[name]
                values[table.offset : table.offset + table.size] = np.asarray(numbers).ravel()
            self._outcomes = OutcomeCells(values)
        return self._outcomes

    def encode_inputs(self) -> bytes:
        """Return rows, times and all columns but the ground truth as bytes that begin with the format's version."""
        return _encoded(self, range(self.layout.grid.inputs), _EMPTY)

    def encode_outcomes(self) -> bytes:
        """Return the ground truth's column and the outcome tables as bytes that begin with the format's version."""
        columns = range(self.layout.grid.inputs, len(self.layout.grid.names))
        return _encoded(self, columns, self.outcome_cells or _EMPTY)

    @staticmethod
    def decode(layout: Layout, inputs: bytes, outcomes: bytes | None = None) -> Profile:
        """Return the profile of encoded bytes.

        Counts and moments come back exactly; the mean inside a cell to 1/255 of the cell's width, from 16 values on to
        1/65535. ValueError for another layout, a format this version does not know, and cut bytes.
        """
        grid = layout.grid
        inflate = zstandard.ZstdDecompressor()
        read = _Stored.of(layout, range(grid.inputs), _payload(inputs, inflate))
        tally = read.tally()
        labelled, cells = False, None
        if outcomes is not None:
            more = _Stored.of(layout, range(grid.inputs, len(grid.names)), _payload(outcomes, inflate))
            labelled = more.labelled
            cells = more.outcomes() if labelled and layout.tables else None
            tally.append(more.tally(), grid.inputs)
        rows, *times = read.numbers[ROWS:LABELLED].tolist()
        first, last = _unsigned(*times[:2]), _unsigned(*times[2:])
        return Profile(layout, rows, first, last, labelled=labelled, tally=tally, cells=cells)


@dataclass(slots=True)
class OutcomeCells:
    """The cells of all outcome tables side by side: ``values`` at ``cells``, or at all places where it is None."""

    values: NDArray[np.float64]
    cells: NDArray[np.int64] | None = None

    def dense(self, layout: Layout) -> OutcomeCells:
        """Return a copy with every cell."""
        if self.cells is None:
            return OutcomeCells(self.values.copy())
        values = np.zeros(layout.outcome_cells)
        values[self.cells] = self.values
        return OutcomeCells(values)

    def sparse(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the cells that hold something, increasing, and what they hold."""
        if self.cells is not None:
            return self.cells, self.values
        cells = np.flatnonzero(self.values)
        return cells, self.values[cells]


_EMPTY = OutcomeCells(np.empty(0), np.empty(0, np.int64))


def merge(one: Profile, other: Profile) -> Profile:
    """Return the profile of the rows of both; ValueError where their layouts differ."""
    return merged(one.layout, (one, other))


def merged(layout: Layout, profiles: Iterable[Profile]) -> Profile:
    """Return the profile of the rows of all of them; ValueError where a layout differs."""
    tally = Tally.empty(layout, dense=True)
    rows, first, last = 0, None, None
    labelled = False
    outcomes: NDArray[np.float64] | None = None
    for profile in profiles:
        if profile.layout is not layout and profile.layout != layout:
            raise ValueError("profiles of different layouts do not add up")
        tally.add(profile.tally)
        rows += profile.rows
        if profile.first_us is not None:
            first = profile.first_us if first is None else min(first, profile.first_us)
        if profile.last_us is not None:
            last = profile.last_us if last is None else max(last, profile.last_us)
        labelled = labelled or profile.labelled
        found = profile.outcome_cells
        if found is not None:
            if outcomes is None:
                outcomes = np.zeros(layout.outcome_cells)
            if found.cells is None:
                outcomes += found.values
            else:
                outcomes[found.cells] += found.values
    cells = OutcomeCells(outcomes) if outcomes is not None else None
    return Profile(layout, rows, first, last, labelled=labelled, tally=tally, cells=cells)


def _columns_of(layout: Layout, tally: Tally, labelled: bool) -> dict[str, ColumnProfile]:
    grid = layout.grid
    tally = tally.dense(layout)
    columns: dict[str, ColumnProfile] = {}
    for place, name in enumerate(grid.names):
        if place >= grid.inputs and not labelled:
            continue
        part = slice(int(grid.offsets[place]), int(grid.offsets[place + 1]))
        counts, sums = tally.counts[part], tally.sums[part]
        counts.flags.writeable = sums.flags.writeable = False
        whole, broken = tally.whole[place].tolist(), tally.broken[place].tolist()
        if grid.numeric[place]:
            mean = broken[MEAN] + float(grid.centres[place]) if whole[COUNT] else 0.0
            columns[name] = NumericProfile(
                counts, sums, whole[COUNT], whole[MISSING], whole[NON_FINITE], whole[WRONG_TYPE],
                broken[MINIMUM], broken[MAXIMUM], mean, broken[M2],
            )  # fmt: skip
        else:
            columns[name] = CategoryProfile(
                counts, whole[COUNT], whole[MISSING], whole[WRONG_TYPE], dict(tally.new.get(place, {})),
                tally.distinct.get(place, np.empty(0, np.uint64)), whole[NON_FINITE],
            )  # fmt: skip
    return columns


def _tally_of(layout: Layout, columns: Mapping[str, ColumnProfile]) -> Tally:
    grid = layout.grid
    tally = Tally.empty(layout, dense=True)
    for place, name in enumerate(grid.names):
        column = columns.get(name)
        if column is None:
            continue
        part = slice(int(grid.offsets[place]), int(grid.offsets[place + 1]))
        tally.counts[part] = column.counts
        tally.whole[place] = column.count, column.missing, column.non_finite, column.wrong_type
        if isinstance(column, NumericProfile):
            tally.sums[part] = column.sums
            off = column.mean - grid.centres[place] if column.count else 0.0
            tally.broken[place] = column.minimum, column.maximum, off, column.m2
            continue
        if column.new:
            tally.new[place] = dict(column.new)
        if column.distinct.size:
            tally.distinct[place] = column.distinct
    return tally


def _places(tally: Tally) -> NDArray[np.int32]:
    if tally.cells is None:
        raise ValueError("the tally is not sparse")
    return tally.cells


def _signed(number: int | None) -> tuple[int, int]:
    return (0, 0) if number is None else ((1, 2 * number) if number >= 0 else (1, -2 * number - 1))


def _encoded(profile: Profile, columns: range, outcomes: OutcomeCells) -> bytes:
    """Return the version and, compressed, the payload that `monitors.coding` describes."""
    grid = profile.layout.grid
    tally = profile.tally.sparse()
    cells = _places(tally)
    start, stop = int(grid.offsets[columns.start]), int(grid.offsets[columns.stop])
    part = slice(*np.searchsorted(cells, (start, stop)).tolist())
    cells, counts, sums = cells[part], tally.counts[part], tally.sums[part]
    inside, raw = store_sums(cells, counts, sums, (grid.mode, grid.low, grid.high))
    new = {str(place): names for place, names in tally.new.items() if place in columns and names}
    words = json.dumps(new, ensure_ascii=False, separators=(",", ":")).encode() if new else b""
    sketches = [(place, hashes) for place, hashes in sorted(tally.distinct.items()) if place in columns and hashes.size]
    marks: list[int] = []
    for place, hashes in sketches:
        marks += [place, int(hashes.size)]
    found, values = outcomes.sparse()
    whole_values, broken_values, _ = _split(profile.layout, found, values)
    pairs, escapes, bits = pair(_steps(cells, start), counts.astype(np.uint64))
    header = np.array(
        [
            *(profile.rows, *_signed(profile.first_us), *_signed(profile.last_us), int(profile.labelled)),
            *(len(columns), stop - start, cells.size, len(inside), len(raw), len(words), len(sketches)),
            *(found.size, whole_values.size, profile.layout.outcome_cells if found.size else 0, bits, len(escapes)),
        ],
        np.uint64,
    )
    numbers = np.concatenate(
        (
            header,
            tally.whole[columns.start : columns.stop].T.ravel().astype(np.uint64),
            np.array(marks, np.uint64),
            *(_steps(hashes, 0) for _, hashes in sketches),
            _steps(found, 0),
            whole_values.astype(np.uint64),
        )
    )
    moments = tally.broken[columns.start : columns.stop][grid.numeric[columns.start : columns.stop]]
    doubles = np.ascontiguousarray(moments.T, "<f8").tobytes(), raw, broken_values.astype("<f8").tobytes()
    return bytes([FORMAT]) + _compressed(b"".join((pack(numbers), *doubles, escapes)), pairs, inside + words)


def _compressed(*parts: bytes) -> bytes:
    """Compress parts as one frame of a block or more each: what is likely in one part is not in another.

    Repetitions of fewer than seven bytes are chance in what is stored, and slow to read.
    """
    settings = zstandard.ZstdCompressionParameters.from_level(1, min_match=7, write_content_size=True)
    stream = zstandard.ZstdCompressor(compression_params=settings).compressobj(size=sum(map(len, parts)))
    blocks = []
    for part in filter(None, parts):
        blocks += [stream.compress(part), stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return b"".join((*blocks, stream.flush()))


def _steps(places: NDArray[np.int32 | np.int64 | np.uint64], start: int) -> NDArray[np.uint64]:
    """Return how far each of the increasing places lies from the one before, the first from the start."""
    steps = places.astype(np.uint64)
    steps[1:] -= steps[:-1].copy()
    steps[:1] -= np.uint64(start)
    return steps


def _split(
    layout: Layout, cells: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return the counts and the sums among the values of outcome cells, and which of them are counts."""
    is_count = ~layout.outcome_sums[cells]
    return values[is_count], values[~is_count], is_count


def _payload(data: bytes, inflate: zstandard.ZstdDecompressor) -> bytes:
    """Return what was compressed, in the present format; ValueError for an unknown format and damaged bytes."""
    if not data or data[0] not in (1, FORMAT):
        found = data[0] if data else "nothing"
        raise ValueError(f"a profile of format {found} cannot be read; this version reads formats to {FORMAT}")
    try:
        payload = inflate.decompress(memoryview(data)[1:])
    except zstandard.ZstdError as error:
        raise ValueError("the profile's bytes are damaged") from error
    return payload if data[0] == FORMAT else modernise(np.frombuffer(payload, np.uint8))


@dataclass(frozen=True, slots=True)
class _Stored:
    """The payload of some columns: its bytes, its varints, and where its parts begin."""

    layout: Layout
    columns: range
    data: NDArray[np.uint8]
    numbers: NDArray[np.uint64]
    places: NDArray[np.int64]

    @staticmethod
    def of(layout: Layout, columns: range, payload: bytes) -> _Stored:
        """Find the parts; ValueError for another layout and where it is cut short."""
        grid, data = layout.grid, np.frombuffer(payload, np.uint8)
        size = int(grid.offsets[columns.stop] - grid.offsets[columns.start])
        numeric = int(np.count_nonzero(grid.numeric[columns.start : columns.stop]))
        numbers, places = open_stored(data, len(columns), size, numeric, layout.outcome_cells)
        return _Stored(layout, columns, data, numbers, places)

    @property
    def labelled(self) -> bool:
        """Whether labels were read."""
        return bool(self.numbers[LABELLED])

    def tally(self) -> Tally:
        """Return the columns' numbers, sparse."""
        grid, columns = self.layout.grid, self.columns
        tally = Tally.empty(self.layout)
        numeric = np.flatnonzero(grid.numeric[columns.start : columns.stop]) + columns.start
        doubles = self._doubles()
        whole = self.numbers[HEADER : HEADER + 4 * len(columns)].view(np.int64)
        tally.whole[columns.start : columns.stop] = whole.reshape(4, -1).T
        tally.broken[numeric] = doubles[: 4 * numeric.size].reshape(4, -1).T
        bounds = int(grid.offsets[columns.start]), int(grid.offsets[columns.stop])
        tally.cells, tally.counts = spell(self.data, self.places, int(self.numbers[COUNT_BITS]), *bounds)
        inside = self.data[self.places[MEANS] : self.places[NAMES]]
        raw = doubles[4 * numeric.size : 4 * numeric.size + int(self.numbers[RAW]) // 8]
        tally.sums = restore_sums(tally.cells, tally.counts, (grid.mode, grid.low, grid.high), inside, raw)
        tally.new, tally.distinct = self.new(), self.distinct()
        return tally

    def new(self) -> dict[int, dict[str, int]]:
        """Return the new categories by column."""
        words = int(self.numbers[WORDS])
        if not words:
            return {}
        start = int(self.places[NAMES])
        return {int(column): names for column, names in json.loads(bytes(self.data[start : start + words])).items()}

    def distinct(self) -> dict[int, NDArray[np.uint64]]:
        """Return the sketches by column."""
        found: dict[int, NDArray[np.uint64]] = {}
        after = int(self.places[SKETCHES])
        marks = self.numbers[after - 2 * int(self.numbers[SKETCHED]) : after]
        for column, hashes in marks.reshape(-1, 2).tolist():
            found[column] = np.cumsum(self.numbers[after : after + hashes], dtype=np.uint64)
            after += hashes
        return found

    def outcomes(self) -> OutcomeCells:
        """Return the outcome cells."""
        start, found, counted = int(self.places[OUTCOMES]), int(self.numbers[FOUND]), int(self.numbers[COUNTED])
        places = places_of(self.numbers[start : start + found], 0, self.layout.outcome_cells).astype(np.int64)
        values = np.empty(places.size)
        if places.size:
            _, _, is_count = _split(self.layout, places, values)
            if int(is_count.sum()) != counted:
                raise ValueError("the profile was made with another layout")
            values[is_count] = self.numbers[start + found : start + found + counted]
            values[~is_count] = self._doubles()[counted - found :] if found > counted else ()
        return OutcomeCells(values, places)

    def _doubles(self) -> NDArray[np.float64]:
        """Return the moments of the numeric columns, open sums and sums of outcomes."""
        start = int(self.places[DOUBLES])
        return np.frombuffer(self.data, "<f8", (int(self.places[ESCAPES]) - start) // 8, start).astype(np.float64)


def decode_outcomes(layout: Layout, outcomes: bytes) -> OutcomeCells | None:
    """Return the outcome cells of a profile's encoded outcomes; None and ValueError as `Profile.decode`."""
    columns = range(layout.grid.inputs, len(layout.grid.names))
    read = _Stored.of(layout, columns, _payload(outcomes, zstandard.ZstdDecompressor()))
    return read.outcomes() if read.labelled and layout.tables else None


_TOGETHER = 64
"""So many stored profiles are read at once."""


def summed(layout: Layout, encoded: Iterable[tuple[bytes | None, bytes | None]]) -> Profile:
    """Return what `merged` returns of decoded profiles, without making each of them; ValueError as `Profile.decode`.

    A month of hours is 720 profiles: many are read at once, and what they hold is added where it belongs. Outcomes may
    be there without their inputs.
    """
    grid = layout.grid
    tally = Tally.empty(layout, dense=True)
    outcomes = np.zeros(layout.outcome_cells)
    nothing = np.empty(0)
    times: list[int] = []
    rows, labelled = 0, False
    inflate = zstandard.ZstdDecompressor()
    sides = range(grid.inputs), range(grid.inputs, len(grid.names))
    stored = list(encoded)
    for start in range(0, len(stored), _TOGETHER):
        several = stored[start : start + _TOGETHER]
        for side, columns in enumerate(sides):
            there = [(parts, data) for parts in several if (data := parts[side]) is not None]
            if not there:
                continue
            payloads = [_payload(data, inflate) for _, data in there]
            here = slice(columns.start, columns.stop)
            headers = add_stored(
                np.frombuffer(b"".join(payloads), np.uint8),
                np.cumsum([0, *map(len, payloads)]),
                grid.numeric[here],
                (int(grid.offsets[columns.start]), int(grid.offsets[columns.stop])),
                (grid.mode, grid.low, grid.high),
                layout.outcome_sums,
                (tally.whole[here], tally.broken[here]),
                (tally.counts, tally.sums),
                outcomes if side else nothing,
            )
            for place in np.flatnonzero(headers[:, (WORDS, SKETCHED)].any(axis=1)).tolist():
                part = _Stored.of(layout, columns, payloads[place])
                tally.gather(part.new(), part.distinct())
            for (parts, _), header in zip(there, headers.tolist(), strict=True):
                labelled = labelled or bool(side and header[LABELLED])
                if not side or parts[0] is None:
                    rows += header[ROWS]
                    stamps = _unsigned(*header[FIRST:LAST]), _unsigned(*header[LAST:LABELLED])
                    times += [stamp for stamp in stamps if stamp is not None]
    cells = OutcomeCells(outcomes) if labelled and layout.tables else None
    first, last = (min(times), max(times)) if times else (None, None)
    return Profile(layout, rows, first, last, labelled=labelled, tally=tally, cells=cells)


def _unsigned(there: int, number: int) -> int | None:
    if not there:
        return None
    return number // 2 if number % 2 == 0 else -(number + 1) // 2
