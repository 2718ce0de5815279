"""From Arrow record batches to profiles: one pass, whole or per bucket of time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from monitors.blocks import Blocks, outcomes_of
from monitors.cells import (
    COUNT,
    MISSING,
    NON_FINITE,
    WRONG_TYPE,
    add_weights,
    describe_segments,
    hash_texts,
    locate,
    place_entries,
    tally_codes,
    tally_numbers,
    tally_segments,
)
from monitors.columns import Coded, codes_of, frozen, is_text, numbers_of
from monitors.layout import GROUND_TRUTH, CategoryLayout, Grid, Layout, NumericLayout, OutcomeLayout
from monitors.outcomes import outcome_cells
from monitors.profile import MOST_NEW, OutcomeCells, Profile, Tally, merged, most_frequent, sketch, smallest, summed

HOUR_US = 3_600_000_000
MANY_ROWS = 8192
"""From so many rows on a bucket's cells are counted side by side, below only those that hold something."""
TIMESTAMP, FAULTS = "timestamp", "faults"
_COUNTED_FAULTS = {"non_finite": NON_FINITE, "wrong_type": WRONG_TYPE}


def profile_batches(batches: Iterable[pa.RecordBatch], layout: Layout) -> Profile:
    """Return the profile of all rows.

    Columns are taken by the layout's names; a column the batch lacks is missing in all its rows, the ground truth and
    the outcomes are left out where no batch carries a column ``ground_truth``. Groups are the columns
    ``group.<attribute>``; ``faults`` says why values are missing.
    """
    running = _Running(layout)
    for batch in _gathered(batches, 16384):
        running.add(batch)
    return running.profile()


def profile_buckets(batches: Iterable[pa.RecordBatch], layout: Layout, hours: int = 1) -> dict[int, Profile]:
    """Return a profile per bucket of so many hours that holds rows, by the hours since 1970 of the bucket's start.

    Rows may come in any order; the column ``timestamp`` is needed.
    """
    pieces: dict[int, list[Profile]] = {}
    running: dict[int, _Running] = {}
    for batch in _gathered(batches, 65536):
        stamps = _microseconds(batch.column(TIMESTAMP))
        keys = stamps // (hours * HOUR_US) * hours
        batch, keys, stamps = _in_order(batch, keys, stamps)
        bounds = np.append(np.flatnonzero(np.diff(keys, prepend=keys[0] - 1)), keys.size).astype(np.int64)
        buckets = keys[bounds[:-1]].tolist()
        large = np.diff(bounds) >= MANY_ROWS
        for segment in np.flatnonzero(large).tolist():
            rows = batch.slice(int(bounds[segment]), int(bounds[segment + 1] - bounds[segment]))
            running.setdefault(buckets[segment], _Running(layout)).add(rows)
        for first, last in _runs(~large, bounds):
            start, stop = int(bounds[first]), int(bounds[last])
            part = _segments(
                batch.slice(start, stop - start), layout, bounds[first : last + 1] - start, stamps[start:stop]
            )
            for bucket, profile in zip(buckets[first:last], part, strict=True):
                pieces.setdefault(bucket, []).append(profile)
    for bucket, whole in running.items():
        pieces.setdefault(bucket, []).append(whole.profile())
    return {bucket: parts[0] if len(parts) == 1 else merged(layout, parts) for bucket, parts in sorted(pieces.items())}


def compile_loops() -> None:
    """Compile every loop, or load it from numba's cache: about ten seconds that the first window need not wait for."""
    names = pa.array(["a", None, "b"]).dictionary_encode()
    stamps = pa.array([0, 1, HOUR_US], pa.timestamp("us", tz="UTC"))
    numbers = pa.array([1.5, None, 2.5]), pa.array([0.1, 0.2, 0.3])
    rows = pa.record_batch(
        [stamps, *numbers, names, names, names],
        ["timestamp", "features.x", "score", "features.c", "prediction", GROUND_TRUTH],
    )
    edges = np.array([1e-9, 0.15, 2.0, 1e9])  # so far apart that they are found by their leading bits
    layout = Layout(
        {
            "features.x": NumericLayout(edges, tied=True),
            "score": NumericLayout(edges),
            **dict.fromkeys(("features.c", "prediction", GROUND_TRUTH), CategoryLayout(("a",))),
        },
        OutcomeLayout("binary", ("a", "b")),
    )
    profiles = [profile_batches([rows], layout), *profile_buckets([rows], layout).values()]
    stored = [(part.encode_inputs(), part.encode_outcomes()) for part in profiles]
    merged(layout, [Profile.decode(layout, *parts) for parts in stored])
    summed(layout, stored)


def _runs(flags: NDArray[np.bool_], bounds: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield stretches of set flags, from a segment to before another, that hold about 128k rows or fewer."""
    first = 0
    for segment, flag in enumerate(flags.tolist()):
        if not flag or bounds[segment + 1] - bounds[first] > 131_072:
            if segment > first:
                yield first, segment
            first = segment if flag else segment + 1
    if first < flags.size:
        yield first, flags.size


class _Running:
    """The profile of rows that are still being added."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.tally = Tally.empty(layout, dense=True)
        self.rows = 0
        self.stamps: list[int] = []
        self.labelled = False
        self.outcomes: NDArray[np.float64] | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch."""
        grid = self.layout.grid
        names = set(batch.schema.names)
        self.rows += batch.num_rows
        for place, name in enumerate(grid.names):
            _add_column(batch, names, grid, place, name, self.tally)
        if FAULTS in names:
            for place, fault, count in _faults(batch.column(FAULTS), grid):
                self.tally.whole[place, fault] += count
        if TIMESTAMP in names:
            stamps = _microseconds(batch.column(TIMESTAMP))
            self.stamps += [int(stamps.min()), int(stamps.max())]
        if GROUND_TRUTH not in names:
            return
        self.labelled = True
        for cells, weights in outcome_cells(batch, self.layout):
            if self.outcomes is None:
                self.outcomes = np.zeros(self.layout.outcome_cells)
            add_weights(self.outcomes, cells, weights)

    def profile(self) -> Profile:
        """Return the profile of all rows added."""
        found = OutcomeCells(self.outcomes) if self.outcomes is not None else None
        first, last = (min(self.stamps), max(self.stamps)) if self.stamps else (None, None)
        return Profile(self.layout, self.rows, first, last, labelled=self.labelled, tally=self.tally, cells=found)


def block_counts(batches: Iterable[pa.RecordBatch], layout: Layout, hours: int, start_us: int, end_us: int) -> Blocks:
    """Return the counts of each whole block of so many hours from start to end, empty blocks among them.

    Block i holds the rows from ``start_us`` + i blocks on; what does not fill a last block is left out.
    """
    grid = layout.grid
    length = hours * HOUR_US
    blocks = max(0, (end_us - start_us) // length)
    counts = {name: csr_array((blocks, layout.columns[name].cells), dtype=np.int64) for name in grid.names}
    missing = {name: np.zeros(blocks, np.int64) for name in grid.names}
    rows = np.zeros(blocks, np.int64)
    outcomes = None
    for batch in _gathered(batches, 65536):
        stamps = _microseconds(batch.column(TIMESTAMP))
        block = (stamps - start_us) // length
        kept = (block >= 0) & (block < blocks)
        if not kept.all():
            batch, block, stamps = batch.filter(pa.array(kept)), block[kept], stamps[kept]
        if not block.size:
            continue
        batch, block, stamps = _in_order(batch, block, stamps)
        bounds = np.searchsorted(block, np.arange(blocks + 1)).astype(np.int64)
        rows += np.diff(bounds)
        names = set(batch.schema.names)
        for place, name in enumerate(grid.names):
            part = _segment_column(batch, names, grid, place, name, bounds)
            shape = (blocks, layout.columns[name].cells)
            counts[name] = counts[name] + csr_array((part.counts, part.cells, part.offsets), shape=shape)
            missing[name] += part.whole[:, MISSING]
        if GROUND_TRUTH in names and layout.tables:
            more = outcomes_of(layout, _segment_outcomes(batch, layout, bounds))
            outcomes = more if outcomes is None else csr_array(outcomes + more)
    return Blocks(counts=counts, missing=missing, rows=rows, outcomes=outcomes)


def _gathered(batches: Iterable[pa.RecordBatch], least: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches that are not needlessly small."""
    waiting: list[pa.RecordBatch] = []
    rows = 0

    def together() -> pa.RecordBatch:
        if len(waiting) == 1:
            return waiting[0]
        table = pa.Table.from_batches(waiting).unify_dictionaries().combine_chunks()
        return table.to_batches()[0]

    for batch in batches:
        if not batch.num_rows:
            continue
        if waiting and batch.schema != waiting[0].schema:
            yield together()
            waiting, rows = [], 0
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= least:
            yield together()
            waiting, rows = [], 0
    if waiting:
        yield together()


def _microseconds(column: pa.Array) -> NDArray[np.int64]:
    if not pa.types.is_timestamp(column.type):
        raise ValueError(f"timestamp is of type {column.type}, not a time")
    if column.null_count:
        raise ValueError("a row has no timestamp")
    if column.type.unit != "us":
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)


def _in_order(
    batch: pa.RecordBatch, keys: NDArray[np.int64], stamps: NDArray[np.int64]
) -> tuple[pa.RecordBatch, NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows in order of their keys."""
    if keys.size < 2 or (keys[1:] >= keys[:-1]).all():
        return batch, keys, stamps
    order = np.argsort(keys, kind="stable")
    return batch.take(pa.array(order)), keys[order], stamps[order]


def _add_column(batch: pa.RecordBatch, names: set[str], grid: Grid, place: int, name: str, tally: Tally) -> None:
    """Add one column of a batch to the tally."""
    whole = tally.whole[place]
    if name not in names:
        if name != GROUND_TRUTH:
            whole[MISSING] += batch.num_rows
        return
    column = batch.column(name)
    part = slice(int(grid.offsets[place]), int(grid.offsets[place + 1]))
    if grid.numeric[place]:
        search = grid.searches[name]
        values = _numbers(column, search.cells)
        if values is None:
            _count_only(column, whole, tally.counts[part])
            return
        if is_text(column.type):
            whole[WRONG_TYPE] += int(np.isnan(values).sum()) - column.null_count
        centre = float(grid.centres[place])
        tally_numbers(values, *search.plan, centre, tally.counts[part], tally.sums[part], whole, tally.broken[place])
        return
    coded = codes_of(column, grid.categories[name])
    if coded is None:
        _count_only(column, whole, tally.counts[part][-1:])
        return
    used = np.zeros(len(coded.dictionary) + 1, np.int64)
    tally_codes(coded.codes, used)
    counts = used[1:]
    there = coded.cells >= 0
    width = part.stop - part.start
    tally.counts[part] += np.bincount(coded.cells[there], counts[there], width).astype(np.int64)
    found = int(counts[there].sum())
    whole[COUNT] += found
    whole[MISSING] += batch.num_rows - found
    others = np.flatnonzero((coded.cells == width - 1) & (counts > 0))
    if others.size:
        new, hashes = _others(coded, others, counts[others])
        tally.new[place] = most_frequent(tally.new.get(place, {}), new)
        tally.distinct[place] = smallest(tally.distinct.get(place), hashes)


def _numbers(column: pa.Array, cells: int) -> NDArray[np.float64] | None:
    """Return a column's numbers; None for text where the layout has no bins, and for types without numbers."""
    if cells == 1 and is_text(column.type):
        return None
    return numbers_of(column)


def _count_only(column: pa.Array, whole: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    there = len(column) - column.null_count
    whole[COUNT] += there
    whole[MISSING] += column.null_count
    counts[0] += there


def _others(
    coded: Coded, others: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[dict[str, int], NDArray[np.uint64]]:
    """Return the most frequent of some codes' values by name, and the sketch of all of them."""
    names = coded.dictionary.take(pa.array(others))
    hashes = sketch(_hashes(names))
    if others.size > MOST_NEW:
        least = np.partition(counts, -MOST_NEW)[-MOST_NEW]
        kept = np.flatnonzero(counts >= least)
        if kept.size > 64 * MOST_NEW:  # that many equal ones: which of them are named says little
            kept = kept[np.argsort(-counts[kept], kind="stable")][: 64 * MOST_NEW]
        names, counts = names.take(pa.array(kept)), counts[kept]
    return most_frequent(dict(zip(names.to_pylist(), counts.tolist(), strict=True))), hashes


def _hashes(names: pa.Array) -> NDArray[np.uint64]:
    """Return the hash of each text."""
    offsets, data = names.buffers()[1:]
    places = np.frombuffer(offsets, np.int32)[names.offset : names.offset + len(names) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None and data.size else np.frombuffer(b"\0", np.uint8)
    return np.asarray(hash_texts(places, content), np.uint64)


def _faults(column: pa.Array, grid: Grid) -> Iterator[tuple[int, int, int]]:
    """Yield the place of a column, the kind of fault and how often it occurs."""
    if column.null_count == len(column):
        return
    for entry in column.drop_null().value_counts().to_pylist():
        for place, fault in _parsed_faults(entry["values"], grid.names):
            yield place, fault, entry["counts"]


@lru_cache(maxsize=4096)
def _parsed_faults(text: str | None, names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    places = {name.removeprefix("features."): place for place, name in reversed(list(enumerate(names)))}
    found = json.loads(text) if text else {}
    return tuple(
        (places[label], _COUNTED_FAULTS[reason])
        for label, reason in found.items()
        if label in places and reason in _COUNTED_FAULTS
    )


@dataclass(slots=True)
class _Part:
    """One column of all segments: sparse entries, numbers of shape (segments, 4), new values by segment."""

    cells: NDArray[np.int32]
    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    offsets: NDArray[np.int64]
    whole: NDArray[np.int64]
    broken: NDArray[np.float64]
    new: Mapping[int, tuple[dict[str, int], NDArray[np.uint64]]]


_NO_VALUES = frozen(np.empty(0))


def _segment_column(
    batch: pa.RecordBatch, names: set[str], grid: Grid, place: int, name: str, bounds: NDArray[np.int64]
) -> _Part:
    """Count one column of a batch whose rows are in segments."""
    segments = bounds.size - 1
    width = int(grid.offsets[place + 1] - grid.offsets[place])
    whole = np.zeros((segments, 4), np.int64)
    broken = np.tile(np.array([np.inf, -np.inf, 0.0, 0.0]), (segments, 1))
    sizes = np.diff(bounds)
    new: dict[int, tuple[dict[str, int], NDArray[np.uint64]]] = {}
    values, cells = _NO_VALUES, np.empty(0, np.int32)
    column = batch.column(name) if name in names else None
    if column is None:
        if name != GROUND_TRUTH:
            whole[:, MISSING] = sizes
        bounds = np.zeros_like(bounds)
    elif grid.numeric[place] and (numbers := _numbers(column, width)) is not None:
        values = numbers
        cells = np.empty(values.size, np.int32)
        locate(values, *grid.searches[name].plan, width, cells)
        describe_segments(values, bounds, float(grid.centres[place]), whole, broken)
        if is_text(column.type):
            wrong = np.isnan(values) & column.is_valid().to_numpy(zero_copy_only=False)
            whole[:, WRONG_TYPE] = _per_segment(wrong, bounds)
    elif not grid.numeric[place] and (coded := codes_of(column, grid.categories[name])) is not None:
        cells = np.append(coded.cells, np.int32(-1))[coded.codes]
        whole[:, COUNT] = _per_segment(cells >= 0, bounds)
        whole[:, MISSING] = sizes - whole[:, COUNT]
        new = _new_values(coded, cells == width - 1, bounds)
    else:
        there = column.is_valid().to_numpy(zero_copy_only=False)
        cells = np.where(there, np.int32(width - 1), np.int32(-1))
        whole[:, COUNT] = _per_segment(there, bounds)
        whole[:, MISSING] = sizes - whole[:, COUNT]
    room = int(np.minimum(np.diff(bounds), width).sum())
    out = np.empty(room, np.int32), np.empty(room, np.int64), np.empty(room, np.float64)
    offsets = np.zeros(bounds.size, np.int64)
    tally_segments(values, cells, bounds, width, values.size > 0, *out, offsets)
    filled = int(offsets[-1])
    return _Part(out[0][:filled], out[1][:filled], out[2][:filled], offsets, whole, broken, new)


def _per_segment(flags: NDArray[np.bool_], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many flags are set in each segment."""
    total = np.concatenate(([0], np.cumsum(flags)))
    return np.asarray(total[bounds[1:]] - total[bounds[:-1]], np.int64)


def _new_values(
    coded: Coded, others: NDArray[np.bool_], bounds: NDArray[np.int64]
) -> dict[int, tuple[dict[str, int], NDArray[np.uint64]]]:
    """Return the most frequent new values of each segment that has some, and their sketch."""
    rows = np.flatnonzero(others)
    if not rows.size:
        return {}
    segment = np.searchsorted(bounds, rows, side="right") - 1
    size = len(coded.dictionary)
    keys, counts = np.unique(segment * size + coded.codes[rows], return_counts=True)
    starts = np.flatnonzero(np.diff(keys // size, prepend=-1))
    found = {}
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), keys.size], strict=True):
        part = slice(start, stop)
        found[int(keys[start] // size)] = _others(coded, keys[part] % size, counts[part])
    return found


def _segments(
    batch: pa.RecordBatch, layout: Layout, bounds: NDArray[np.int64], stamps: NDArray[np.int64]
) -> Iterator[Profile]:
    """Yield the profile of each segment of a batch; sparse, so that thousands of small ones are cheap."""
    grid = layout.grid
    names = set(batch.schema.names)
    segments = bounds.size - 1
    whole = np.empty((segments, len(grid.names), 4), np.int64)
    broken = np.empty((segments, len(grid.names), 4), np.float64)
    new: dict[int, dict[int, tuple[dict[str, int], NDArray[np.uint64]]]] = {}
    parts = []
    for place, name in enumerate(grid.names):
        part = _segment_column(batch, names, grid, place, name, bounds)
        whole[:, place], broken[:, place] = part.whole, part.broken
        for segment, found in part.new.items():
            new.setdefault(segment, {})[place] = found
        parts.append(part)
    if FAULTS in names:
        _add_segment_faults(batch.column(FAULTS), grid, bounds, whole)
    sizes = np.array([np.diff(part.offsets) for part in parts]).T  # (segments, columns)
    starts = np.concatenate(([0], np.cumsum(sizes.ravel())))
    cells, counts, sums = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int64), np.empty(starts[-1])
    for place, part in enumerate(parts):
        entries = part.cells, part.counts, part.sums
        to = np.ascontiguousarray(starts[place : -1 : len(parts)])
        place_entries(part.offsets, to, int(grid.offsets[place]), *entries, cells, counts, sums)
    ends = starts[:: len(parts)].tolist()
    labelled = GROUND_TRUTH in names
    outcomes = _segment_outcomes(batch, layout, bounds) if labelled and layout.tables else [None] * segments
    first, last = np.minimum.reduceat(stamps, bounds[:-1]).tolist(), np.maximum.reduceat(stamps, bounds[:-1]).tolist()
    rows = np.diff(bounds).tolist()
    for segment in range(segments):
        piece = slice(ends[segment], ends[segment + 1])
        tally = Tally(whole[segment], broken[segment], counts[piece], sums[piece], cells[piece])
        for place, (words, hashes) in new.get(segment, {}).items():
            tally.new[place], tally.distinct[place] = words, hashes
        yield Profile(
            layout,
            rows[segment],
            first[segment],
            last[segment],
            labelled=labelled,
            tally=tally,
            cells=outcomes[segment],
        )


def _add_segment_faults(column: pa.Array, grid: Grid, bounds: NDArray[np.int64], whole: NDArray[np.int64]) -> None:
    if column.null_count == len(column):
        return
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    segments = (np.searchsorted(bounds, rows, side="right") - 1).tolist()
    for segment, text in zip(segments, column.take(pa.array(rows)).to_pylist(), strict=True):
        for place, fault in _parsed_faults(text, grid.names):
            whole[segment, place, fault] += 1


def _segment_outcomes(batch: pa.RecordBatch, layout: Layout, bounds: NDArray[np.int64]) -> list[OutcomeCells | None]:
    segments = bounds.size - 1
    ids = np.repeat(np.arange(segments), np.diff(bounds))
    size = layout.outcome_cells
    keys, sums = [], []
    for cells, weights in outcome_cells(batch, layout):
        kept = cells >= 0
        keys.append(ids[kept] * size + cells[kept])
        sums.append(weights[kept] if weights.size else np.ones(int(kept.sum())))
    key, weight = np.concatenate(keys), np.concatenate(sums)
    order = np.argsort(key, kind="stable")
    key, weight = key[order], weight[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    totals = np.add.reduceat(weight, starts) if starts.size else weight
    key = key[starts]
    ends = np.searchsorted(key, np.arange(segments + 1) * size).tolist()
    return [OutcomeCells(totals[ends[s] : ends[s + 1]], key[ends[s] : ends[s + 1]] - s * size) for s in range(segments)]
