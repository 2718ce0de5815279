"""Many columns at once: rows as a matrix of numbers, blocks of a quiet stream's rows, and nulls of means of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from scipy.special import stdtr

from monitors.contract import Column, Comparison, Parameters, Role, Type
from monitors.null import CALIBRATING, ENOUGH_BLOCKS, EXCEEDANCES, REPLICATES

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

MOST_BLOCKS = 30
MOST_CATEGORIES = 200
LEAST_BLOCK_ROWS = 20
BATCH = 50
TAIL_DRAWS = 50
NUMBERS = (Type.NUMERIC, Type.BOOLEAN, Type.DATETIME)


class RowParameters(Parameters):
    """Which columns are taken together, and how many rows a window must have."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    features: Literal["all"] | list[str] = Field("all", description="Columns to take together.")
    except_: list[str] = Field([], alias="except", description="Columns left out.")
    min_rows: int = Field(50, ge=20, description="Rows that a window must have to be judged.")

    def names(self, column: Column) -> bool:
        """Whether a column is looked at."""
        return (self.features == "all" or column.label in self.features) and column.label not in self.except_


def features(comparison: Comparison, parameters: RowParameters, types: Sequence[Type]) -> list[Column]:
    """Return the features of some types that are looked at; columns that nobody confirmed are left out."""
    return [
        column
        for column in comparison.columns
        if column.role is Role.FEATURE
        and column.type in types
        and (column.status != "new" or column.name in comparison.baseline.columns)
        and parameters.names(column)
    ]


def numbers(table: pa.Table, name: str) -> Floats:
    """Return a column as float64, missing as NaN, booleans as 0 and 1, times as seconds; all NaN where it is absent."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table[name].combine_chunks()
    if pa.types.is_timestamp(column.type):
        column = pc.divide(column.cast(pa.int64()).cast(pa.float64()), 1e6)
    found = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def texts(table: pa.Table, name: str) -> list[str | None]:
    """Return a column as text, missing as None."""
    if name not in table.column_names:
        return [None] * table.num_rows
    found: list[str | None] = table[name].cast(pa.string()).to_pylist()
    return found


def counts_of(values: Iterable[str | None]) -> dict[str, int]:
    """Return how often each text occurs, the most frequent first, then by name."""
    counted: dict[str, int] = {}
    for value in values:
        if value is not None:
            counted[value] = counted.get(value, 0) + 1
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def matrix(columns: Sequence[Column], baseline: pa.Table, tables: Sequence[pa.Table]) -> list[Floats]:
    """Return tables as matrices of shape (rows, columns) for trees: missing NaN, categories their rank by frequency.

    Categories that the baseline does not have are -1, those after the 200 most frequent share a rank.
    """
    parts: list[list[Floats]] = [[] for _ in tables]
    for column in columns:
        if column.type in NUMBERS:
            for part, table in zip(parts, tables, strict=True):
                part.append(numbers(table, column.name))
            continue
        ranks = {name: min(rank, MOST_CATEGORIES) for rank, name in enumerate(counts_of(texts(baseline, column.name)))}
        for part, table in zip(parts, tables, strict=True):
            values = texts(table, column.name)
            part.append(np.array([np.nan if value is None else ranks.get(value, -1) for value in values], np.float64))
    return [
        np.column_stack(part) if part else np.empty((table.num_rows, 0))
        for part, table in zip(parts, tables, strict=True)
    ]


def vectors(table: pa.Table, name: str) -> tuple[Floats, Places]:
    """Return the embeddings of a column of lists, shape (rows, dimensions), and the rows that have one.

    Rows whose list has another length than most, or holds a missing number, have none.
    """
    if name not in table.column_names or not table.num_rows:
        return np.empty((0, 0)), np.empty(0, np.int64)
    column = table[name].combine_chunks()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False), dtype=np.int64)
    usual = lengths[lengths > 0]
    if not usual.size:
        return np.empty((0, 0)), np.empty(0, np.int64)
    dimensions = int(np.bincount(usual).argmax())
    places = np.flatnonzero(lengths == dimensions)
    flat = column.take(pa.array(places)).flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    found = np.asarray(flat, dtype=np.float64).reshape(places.size, dimensions)
    whole = np.isfinite(found).all(axis=1)
    return found[whole], places[whole]


# --- the quiet stream -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quiet:
    """The blocks of the baseline's rows, each as long as the window, and what a p-value must assume without them."""

    blocks: tuple[Places, ...]
    note: str

    @property
    def enough(self) -> bool:
        """Whether there are blocks enough to say how much quiet windows differ."""
        return len(self.blocks) >= ENOUGH_BLOCKS


def quiet_blocks(comparison: Comparison, baseline: pa.Table) -> Quiet:
    """Cut the baseline's sampled rows into blocks of the window's length, where the baseline has an order of time.

    Of more than 30 blocks as many are taken, evenly apart; those of under 20 sampled rows are left out.
    """
    blocks: list[Places] = []
    if 1 in comparison.blocks and "timestamp" in baseline.column_names:
        moments = np.asarray(
            baseline["timestamp"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(), dtype=np.int64
        )
        length = int((comparison.ends_at - comparison.starts_at).total_seconds() * 1e6)
        block = (moments - moments.min()) // length
        blocks = [np.flatnonzero(block == number) for number in np.unique(block)]
        blocks = [places for places in blocks if places.size >= LEAST_BLOCK_ROWS]
    if len(blocks) > MOST_BLOCKS:
        blocks = [blocks[place] for place in np.linspace(0, len(blocks) - 1, MOST_BLOCKS).round().astype(int)]
    if len(blocks) < ENOUGH_BLOCKS:
        return Quiet((), f"{CALIBRATING}, {len(blocks)} of {ENOUGH_BLOCKS}: assumes independent rows")
    return Quiet(tuple(blocks), "")


def rest_of(number: int, block: Places) -> Places:
    """Return the places of ``number`` rows that are not in a block."""
    kept = np.ones(number, np.bool_)
    kept[block] = False
    return np.flatnonzero(kept)


def thinned_rows(places: Places, size: int, generator: np.random.Generator) -> Places:
    """Return so many of the places at random, in their order; all where there are not more."""
    return places if places.size <= size else np.sort(generator.choice(places, size, replace=False))


# --- nulls ------------------------------------------------------------------------------------------------------------


def permuted(
    observed: float, draw: Callable[[int], Floats], tail: Callable[[Floats], float], *, replicates: int = REPLICATES
) -> float:
    """Return the p-value of a value under the draws of its permutation null, larger being worse.

    Draws until 20 values reach the observed one, or 999, and counts the observed one with them (Besag and Clifford
    1991). Where none did, the smaller of 1/1000 and ``tail`` of the draws: what lies beyond them is extrapolated.
    """
    drawn, reached, kept = 0, 0, []
    while drawn < replicates:
        values = draw(min(BATCH, replicates - drawn))
        kept.append(values)
        hits = reached + np.cumsum(values >= observed - 1e-12 * max(1.0, abs(observed)))
        if hits[-1] >= EXCEEDANCES:
            return (EXCEEDANCES + 1) / (drawn + int(np.searchsorted(hits, EXCEEDANCES)) + 2)
        drawn, reached = drawn + values.size, int(hits[-1])
    if reached:
        return (reached + 1) / (drawn + 1)
    return min(1 / (drawn + 1), tail(np.concatenate(kept)))


def exponential_tail(observed: float, draws: Floats) -> float:
    """Return the chance of a value at least so large, beyond the draws, by an exponential fitted to their 50 largest.

    Knijnenburg, Wessels, Reinders and Shmulevich (2009) with a shape of 0: exact for tails like a gamma's, too large a
    chance for lighter ones.
    """
    largest = np.sort(draws)[-(TAIL_DRAWS + 1) :]
    excess = float((largest[1:] - largest[0]).mean())
    if excess <= 0:
        return 0.0 if observed > largest[0] else 1.0
    return float(TAIL_DRAWS / draws.size * np.exp(-max(observed - largest[0], 0.0) / excess))


def mean_difference(baseline: Floats, window: Floats, generator: np.random.Generator) -> float:
    """Return the two-sided p-value of a difference of means under the permutation of rows; Welch's beyond the draws."""
    pooled = np.concatenate([baseline, window])
    total, size = float(pooled.sum()), window.size

    def apart(sums: Floats) -> Floats:
        return np.asarray(np.abs(sums / size - (total - sums) / baseline.size))

    def draw(count: int) -> Floats:
        chosen = np.argpartition(generator.random((count, pooled.size)), size - 1, axis=1)[:, :size]
        return apart(pooled[chosen].sum(axis=1))

    observed = float(apart(np.asarray(window.sum())))
    one, other = baseline.var(ddof=1) / baseline.size, window.var(ddof=1) / window.size
    error = max(float(np.sqrt(one + other)), 1e-300)
    freedom = (one + other) ** 2 / max(one**2 / (baseline.size - 1) + other**2 / (window.size - 1), 1e-300)
    return permuted(observed, draw, lambda _: 2 * float(stdtr(freedom, -observed / error)))
