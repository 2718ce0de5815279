"""How far figures of outcomes may be off by chance: draws of cells, draws of whole buckets, and quiet blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from scipy.special import stdtr

from monitors.contract import Chance, Counts, Direction, Figure, Metric
from monitors.null import ENOUGH_BLOCKS, TAIL_ONLY
from monitors.tables import Table, total

DRAWS = 1000
PERMUTATIONS = 999
ENOUGH_BUCKETS = 20
LEVEL = 0.95
MOST_UNDEFINED = 0.2
"""The share of draws that may have no value, for the others to make an interval."""
FEW = 10
"""With fewer draws as extreme as the value a heavy tail says how rare it is."""
TAIL_FREEDOM = 10.0
FEW_ROWS = 3
"""Rows of a window by cell, up to which they are drawn one by one."""
SHUFFLED = 1_000_000
"""Rows, of window and baseline, that are laid out one by one at most."""

Values = Mapping[Figure, Counts]


def drawn_counts(counts: Counts, generator: np.random.Generator, draws: int = DRAWS) -> Counts:
    """Return multinomial draws of counts of any shape, the leading axis the draws: rows are independent."""
    flat = counts.ravel()
    used = np.flatnonzero(flat > 0)
    drawn = np.zeros((draws, flat.size))
    if used.size:
        drawn[:, used] = generator.multinomial(round(float(flat[used].sum())), flat[used] / flat[used].sum(), draws)
    return drawn.reshape(draws, *counts.shape)


def drawn_cells(table: Table, generator: np.random.Generator, draws: int = DRAWS) -> Table:
    """Return draws of a coarse table's cells, the leading axis the draws."""
    return table.with_parts([drawn_counts(part, generator, draws) for part in table.parts()])


def drawn_buckets(buckets: Table, generator: np.random.Generator, draws: int = DRAWS) -> Table:
    """Return draws of whole buckets with replacement, summed: rows of one bucket are not independent."""
    number = buckets.parts()[0].shape[0]
    weights = generator.multinomial(number, np.full(number, 1 / number), draws).astype(np.float64)
    parts = [(weights @ part.reshape(number, -1)).reshape(draws, *part.shape[1:]) for part in buckets.parts()]
    return buckets.with_parts(parts)


@dataclass(frozen=True)
class Spread:
    """How figures vary from draw to draw, around ``centre``, what they are of the table that was drawn from."""

    centre: Values
    drawn: Values

    def interval(self, figure: Figure, value: float, metric: Metric) -> tuple[float, float] | None:
        """Return the 95 % interval around a value, inside the metric's range; None where it cannot be had."""
        draws, centre = self.drawn.get(figure), self.centre.get(figure)
        if draws is None or centre is None or not np.isfinite(centre):
            return None
        defined = draws[~np.isnan(draws)]
        if defined.size < (1 - MOST_UNDEFINED) * draws.size:
            return None
        low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - float(centre) + value
        low, high = np.clip([low, high], *metric.range)
        return (float(low), float(high)) if np.isfinite([low, high]).all() else None

    def variance(self, figure: Figure) -> float:
        """Return the variance over the draws."""
        draws = self.drawn.get(figure)
        return float(np.nanvar(draws)) if draws is not None and not np.isnan(draws).all() else float("nan")


def spread_of(table: Table, buckets: Table | None, metrics: Sequence[Metric], generator: np.random.Generator) -> Spread:
    """Return how the figures of a table vary: by draws of its buckets where there are 20, else of its cells."""
    if buckets is not None and buckets.parts()[0].shape[0] >= ENOUGH_BUCKETS:
        compact = buckets.compact()
        return Spread(figures(metrics, total(compact)), figures(metrics, drawn_buckets(compact, generator)))
    coarse = table.coarse()
    return Spread(figures(metrics, coarse), figures(metrics, drawn_cells(coarse, generator)))


def figures(metrics: Sequence[Metric], table: Table) -> dict[Figure, Counts]:
    """Return every figure of a table."""
    found: dict[Figure, Counts] = {}
    with np.errstate(invalid="ignore"):
        for metric in metrics:
            found |= metric.values(table)
    return found


def deterioration(direction: Direction, now: Counts | float, before: Counts | float) -> Counts:
    """Return how much worse a value is than another; of what has no worse side, how far it moved."""
    moved = np.asarray(now, np.float64) - before
    if direction is Direction.LOWER_IS_WORSE:
        return -moved
    return moved if direction is Direction.HIGHER_IS_WORSE else np.abs(moved)


@dataclass(frozen=True)
class OutcomeNull:
    """What figures differ by when nothing has changed: rows that change places, and blocks of a quiet stream.

    ``swapped`` are the figures of windows and baselines drawn from both together without replacement. ``quiet`` are
    those of each block, ``quiet_centre`` those of all of them, ``quiet_rows`` their labelled rows.
    """

    swapped: tuple[Values, Values]
    n_window: float
    quiet: Values | None = None
    quiet_centre: Values | None = None
    quiet_rows: Counts | None = None

    @property
    def blocks(self) -> int:
        """How many blocks have rows enough."""
        return 0 if self.quiet_rows is None else int(self.quiet_rows.size)

    def p_value(self, figure: Figure, direction: Direction, now: float, before: float) -> tuple[float | None, bool]:
        """Return the chance of a difference as bad, and whether blocks had a say; no chance where it cannot be had."""
        by_rows = self._by_rows(figure, direction, now, before)
        by_blocks = self._by_blocks(figure, direction, now, before)
        if by_rows is None and by_blocks is None:
            return None, False
        return max(part for part in (by_rows, by_blocks) if part is not None), by_blocks is not None

    def chance(self, figure: Figure) -> Chance | None:
        """Return how far a figure is from the baseline's by chance: by the quiet blocks where they say more."""
        windows, baselines = (part.get(figure) for part in self.swapped)
        known = np.array([]) if windows is None or baselines is None else windows - baselines
        known = known[~np.isnan(known)]
        by_rows = Chance(float(known.std()), np.inf) if known.size else None
        moved = self._moved(figure)
        if moved is None:
            return by_rows
        spread = sqrt(self._variance(figure, moved) * (1 + 1 / moved.size))
        return by_rows if by_rows is not None and by_rows.spread > spread else Chance(spread, moved.size - 1.0)

    def _by_rows(self, figure: Figure, direction: Direction, now: float, before: float) -> float | None:
        windows, baselines = (part.get(figure) for part in self.swapped)
        if windows is None or baselines is None:
            return None
        draws = deterioration(direction, windows, baselines)
        draws = draws[~np.isnan(draws)]
        if draws.size < (1 - MOST_UNDEFINED) * windows.size:
            return None
        observed = float(deterioration(direction, now, before))
        reached = int((draws >= observed - 1e-12).sum())
        counted = (reached + 1) / (draws.size + 1)
        if reached >= FEW:
            return counted
        moved = windows - baselines
        spread = float(np.nanstd(moved))
        if spread == 0:
            return counted
        return min(counted, _tail(direction, (now - before - float(np.nanmean(moved))) / spread, TAIL_FREEDOM))

    def _by_blocks(self, figure: Figure, direction: Direction, now: float, before: float) -> float | None:
        moved = self._moved(figure)
        if moved is None:
            return None
        variance = self._variance(figure, moved)
        if variance <= 0:
            return None
        score = (now - before - float(moved.mean())) / np.sqrt(variance * (1 + 1 / moved.size))
        return _tail(direction, score, moved.size - 1.0)

    def _moved(self, figure: Figure) -> Counts | None:
        """Return how far each quiet block is from all of them; None of too few."""
        if self.quiet is None or self.quiet_centre is None:
            return None
        values, centre = self.quiet.get(figure), self.quiet_centre.get(figure)
        if values is None or centre is None or np.isnan(centre):
            return None
        known = values[~np.isnan(values)]
        return known - float(centre) if known.size >= ENOUGH_BLOCKS else None

    def _variance(self, figure: Figure, moved: Counts) -> float:
        rows = (
            float(np.mean(self.quiet_rows[~np.isnan(self.quiet[figure])]))
            if self.quiet and self.quiet_rows is not None
            else 0.0
        )
        return float(moved.var(ddof=1)) + self._smaller(figure, rows)

    def _smaller(self, figure: Figure, rows: float) -> float:
        """Return the variance that a window of fewer rows than the blocks has more than they."""
        windows = self.swapped[0].get(figure)
        if windows is None or self.n_window >= rows or np.isnan(windows).all():
            return 0.0
        return float(np.nanvar(windows)) * (1 - self.n_window / rows)


def _tail(direction: Direction, score: float, freedom: float) -> float:
    """Return Student's tail on the bad side, on both where neither is worse."""
    if direction is Direction.HIGHER_IS_WORSE:
        return float(stdtr(freedom, -score))
    if direction is Direction.LOWER_IS_WORSE:
        return float(stdtr(freedom, score))
    return float(2 * stdtr(freedom, -abs(score)))


def outcome_null(
    window: Table,
    baseline: Table,
    blocks: Table | None,
    metrics: Sequence[Metric],
    generator: np.random.Generator,
    least: int,
    through: Callable[[Table], Table] = lambda table: table,
) -> OutcomeNull:
    """Return what the figures of a window and a baseline, and of blocks with at least so many labels, vary by.

    ``through`` makes the table that is measured of each one that is drawn.
    """
    pooled = window.with_parts([np.add(*pair) for pair in zip(window.parts(), baseline.parts(), strict=True)]).coarse()
    own = [round(float(part.sum())) for part in _coarse_parts(window)]
    drawn = [_without_replacement(part, size, generator) for part, size in zip(pooled.parts(), own, strict=True)]
    swapped = (
        figures(metrics, through(pooled.with_parts(drawn))),
        figures(metrics, through(pooled.with_parts(_rest(pooled, drawn)))),
    )
    null = OutcomeNull(swapped, float(window.labelled))
    if blocks is None:
        return null
    kept = np.flatnonzero(blocks.labelled >= least)
    if kept.size < ENOUGH_BLOCKS:
        return null
    quiet = blocks.with_parts([part[kept] for part in blocks.parts()]).compact()
    return OutcomeNull(
        swapped,
        float(window.labelled),
        figures(metrics, through(quiet)),
        figures(metrics, through(total(quiet))),
        quiet.labelled,
    )


def _rest(pooled: Table, drawn: Sequence[Counts]) -> list[Counts]:
    return [part - some for part, some in zip(pooled.parts(), drawn, strict=True)]


def _coarse_parts(table: Table) -> tuple[Counts, ...]:
    """Return the parts that are drawn, whose sums putting cells together does not change."""
    return table.coarse().parts()


def _without_replacement(part: Counts, size: int, generator: np.random.Generator) -> Counts:
    flat = part.ravel().astype(np.int64)
    used, total = np.flatnonzero(flat), int(flat.sum())
    drawn = np.zeros((PERMUTATIONS, flat.size))
    if total >= TAIL_ONLY:
        drawn[:, used] = generator.multinomial(size, flat[used] / total, PERMUTATIONS)
    elif total:
        # A draw per row is quicker than one per cell where few rows are drawn, and both are the same distribution.
        by_rows = size <= FEW_ROWS * used.size and total <= SHUFFLED
        method: Literal["count", "marginals"] = "count" if by_rows else "marginals"
        drawn[:, used] = generator.multivariate_hypergeometric(
            flat[used], min(size, total), PERMUTATIONS, method=method
        )
    return drawn.reshape(PERMUTATIONS, *part.shape)
