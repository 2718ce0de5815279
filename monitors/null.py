"""What a statistic looks like when nothing has changed: by permutation of rows, and by the blocks of a quiet stream.

Two nulls share the same bins. The *permutation* null: if nothing changed, the window's counts are a draw without
replacement from the pooled counts; exact for categories, asymptotic where the edges come from the baseline. The
*predictive* null: rows resemble their neighbours and days differ, so at least 20 blocks of a quiet stream say how much
windows differ when nothing is wrong. The second never makes a p-value smaller than the first.
"""

from collections.abc import Iterator
from functools import cached_property
from math import lgamma

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import chdtrc, ndtr, rel_entr, stdtr

from monitors.contract import BinnedStatistic, Counts

EXPECTED = 5.0
"""Rows that every bin of a tested statistic expects in the smaller sample."""
MOST_BINS = 64
REPLICATES = 999
EXCEEDANCES = 20
"""As many draws as extreme as the value end the drawing (Besag and Clifford 1991)."""
BATCHES = (64, 128, 256, REPLICATES - 448)
TAIL_ONLY = 10**8
"""From so many rows on only the chi-square tail is used; drawing without replacement is refused beyond 1e9."""
ENOUGH_BLOCKS = 20
THINNINGS = 8
CALIBRATING = "calibrating"
"""How the note of a result begins that is judged at a tenth of alpha."""

Integers = NDArray[np.int64]


def merged_bins(
    pooled: Counts, n_baseline: float, n_window: float, *, ordered: bool, most: int = MOST_BINS
) -> Integers:
    """Return the bin of each cell, shape (cells,), from the pooled counts and the two sizes only.

    Each bin expects at least 5 rows in the smaller sample, and there are at most ``most``. Ordered cells are merged
    with their neighbours (``bin_ends``), of categories the rare with the rare. One bin comes back where there are too
    few rows for two.
    """
    if ordered:
        ends = bin_ends(pooled, np.zeros(pooled.size, dtype=np.bool_), n_baseline, n_window, most)
        return np.searchsorted(ends[:-1], np.cumsum(pooled) - pooled, side="right")
    total = n_baseline + n_window
    order = np.argsort(-pooled, kind="stable")
    running = np.cumsum(pooled[order])
    cuts = _cuts(running, EXPECTED * total / max(min(n_baseline, n_window), 1.0))
    if len(cuts) > most:
        cuts = _cuts(running, total / most)
    bins = np.empty(pooled.size, dtype=np.int64)
    bins[order] = np.searchsorted(np.array(cuts[:-1], dtype=np.int64), np.arange(pooled.size), side="right")
    return bins


def bin_ends(
    pooled: Counts, alone: NDArray[np.bool_], n_baseline: float, n_window: float, most: int = MOST_BINS
) -> Counts:
    """Return how many pooled rows lie before the end of each bin of ordered cells, increasing to the total.

    There are at most 1.5 n^(2/5) bins of equal pooled shares, n the smaller size, which keeps the power of tests over
    bins (Mann and Wald 1942; Williams 1950), and each expects at least 5 rows in the smaller sample. A bin ends with
    the cell whose end is nearest; cells marked ``alone`` hold rows of the window only and are cut where the share is
    exact: where every row of the baseline is an edge, giving a run of the window's rows to one bin whole would add to
    its count what the null knows nothing of (6 to 7 % false alarms at 5 %).
    """
    total, smaller = float(pooled.sum()), max(min(n_baseline, n_window), 1.0)
    running = np.cumsum(pooled)
    number = min(most, round(1.5 * smaller**0.4), int(smaller / (1.1 * EXPECTED)))
    if number < 2 or total <= 0:
        return np.array([total])
    targets = total * np.arange(1, number) / number
    cell = np.searchsorted(running, targets)
    start, end = running[cell] - pooled[cell], running[cell]
    nearest = np.where(targets - start < end - targets, start, end)
    ends = np.unique(np.where(alone[cell], np.rint(targets), nearest))
    ends = np.append(ends[(ends > 0) & (ends < total)], total)
    filled = ends[np.array(_cuts(ends, EXPECTED * (n_baseline + n_window) / smaller)) - 1]
    filled[-1] = total
    return np.asarray(filled, dtype=np.float64)


def _cuts(running: Counts, need: float) -> list[int]:
    """Return where bins end when each is closed as soon as it holds ``need``; what is left joins the last."""
    cuts: list[int] = []
    start, total = 0.0, float(running[-1]) if running.size else 0.0
    need -= 1e-9
    while total - start >= need:
        end = int(np.searchsorted(running, start + need))
        cuts.append(end + 1)
        start = float(running[end])
    return cuts or [running.size]


def gathered(counts: Counts | csr_array, bins: Integers, number: int) -> Counts:
    """Return counts of shape (..., cells) summed into bins, shape (..., bins); sparse rows become dense."""
    if isinstance(counts, csr_array):
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        places = rows * number + bins[counts.indices]
        flat = np.bincount(places, weights=counts.data, minlength=counts.shape[0] * number)
        return np.asarray(flat.reshape(counts.shape[0], number), dtype=np.float64)
    if counts.ndim == 1:
        return np.asarray(np.bincount(bins, weights=counts, minlength=number), dtype=np.float64)
    leading = counts.shape[:-1]
    rows = np.repeat(np.arange(int(np.prod(leading))), counts.shape[-1])
    places = rows * number + np.tile(bins, int(np.prod(leading)))
    flat = np.bincount(places, weights=counts.ravel(), minlength=int(np.prod(leading)) * number)
    return np.asarray(flat.reshape(*leading, number), dtype=np.float64)


def thinned(counts: Counts, size: float, generator: np.random.Generator) -> Counts:
    """Return counts of shape (rows, bins) drawn without replacement down to ``size`` each; smaller ones as they are.

    From 1e8 rows on the draw is with replacement, which then makes no difference.
    """
    totals = counts.sum(axis=-1)
    if not (totals > size).any():
        return counts
    whole = counts.astype(np.int64)
    if totals.max() >= TAIL_ONLY:
        drawn = generator.multinomial(int(size), whole / np.maximum(totals, 1.0)[:, None])
        return np.where((totals > size)[:, None], drawn, counts)
    left = np.minimum(totals, size).astype(np.int64)
    rest = totals.astype(np.int64)
    drawn = np.empty_like(whole)
    for bin_ in range(whole.shape[-1]):
        rest = rest - whole[:, bin_]
        drawn[:, bin_] = generator.hypergeometric(whole[:, bin_], rest, left)
        left = left - drawn[:, bin_]
    return drawn.astype(np.float64)


class Permutations:
    """Pairs of baseline and window counts as they would be if nothing had changed, drawn once for all statistics.

    Iterating gives growing batches ``(baseline, window)`` of shape (draws, bins), 999 draws in all.
    """

    def __init__(self, pooled: Counts, n_window: float, generator: np.random.Generator) -> None:
        self._pooled = pooled.astype(np.int64)
        self._n_window = int(n_window)
        self._generator = generator
        self._drawn: list[tuple[Counts, Counts]] = []

    def __iter__(self) -> Iterator[tuple[Counts, Counts]]:
        for number, size in enumerate(BATCHES):
            if number == len(self._drawn):
                self._drawn.append(self._draw(size))
            yield self._drawn[number]

    def _draw(self, size: int) -> tuple[Counts, Counts]:
        total = int(self._pooled.sum())
        if total >= TAIL_ONLY:
            shares = self._pooled / total
            window = self._generator.multinomial(self._n_window, shares, size=size)
            return self._generator.multinomial(total - self._n_window, shares, size=size).astype(
                np.float64
            ), window.astype(np.float64)
        draw = self._generator.multivariate_hypergeometric
        window = draw(self._pooled, self._n_window, size=size, method="marginals")
        return (self._pooled - window).astype(np.float64), window.astype(np.float64)


def g_tail(baseline: Counts, window: Counts) -> float:
    """Return the chi-square tail of G, the likelihood ratio of the table of baseline and window by bin."""
    pooled = baseline + window
    occupied = int((pooled > 0).sum())
    if occupied < 2:
        return 1.0
    n, m = baseline.sum(), window.sum()
    g = 2 * (rel_entr(baseline, pooled * n / (n + m)) + rel_entr(window, pooled * m / (n + m))).sum()
    return float(chdtrc(occupied - 1, max(g, 0.0)))


def permutation(
    statistic: BinnedStatistic, baseline: Counts, window: Counts, draws: Permutations, positions: Counts | None = None
) -> float:
    """Return the p-value of a statistic of counts of shape (bins,) under the permutation null.

    Draws until 20 values reach the observed one, or 999, and counts the observed one with them: (20 + 1) / (draws + 1),
    a little above Besag and Clifford's 20 / draws, which is exact and leaves no margin for edges that come from the
    baseline. Where none of 999 did, the smaller of 1/1000 and the chi-square tail of G (valid: below 1/1000,
    P(p <= a) <= P(p_G <= a)).
    """
    if baseline.size < 2:
        return 1.0
    if baseline.sum() + window.sum() >= TAIL_ONLY:
        return g_tail(baseline, window)
    observed = float(severity(statistic, statistic.value(baseline, window, positions)))
    reached = observed - 1e-10 * max(1.0, abs(observed))
    exceeded = drawn = 0
    for rest, draw in draws:
        hits = exceeded + np.cumsum(severity(statistic, statistic.value(rest, draw, positions)) >= reached)
        if hits[-1] >= EXCEEDANCES:
            return (EXCEEDANCES + 1) / (drawn + int(np.searchsorted(hits, EXCEEDANCES)) + 2)
        exceeded, drawn = int(hits[-1]), drawn + hits.size
    if exceeded == 0:
        return min(1 / (REPLICATES + 1), g_tail(baseline, window))
    return (exceeded + 1) / (drawn + 1)


def severity(statistic: BinnedStatistic, values: Counts) -> Counts:
    """Return how far values are from the statistic's unchanged value, so that larger is always worse."""
    return np.asarray(np.abs(np.asarray(values) - statistic.unchanged))


def student_tail(observed: float, quiet: Counts) -> float:
    """Return the chance of a further value at least as large, by the Student-t predictive distribution of ``quiet``.

    Where the quiet values themselves reach it, it is at least the rank among them, (1 + reached) / (1 + number): exact
    whatever their distribution, and silent beyond the largest of them, where only the distribution can speak.
    """
    number = quiet.size
    spread = float(quiet.std(ddof=1)) * np.sqrt(1 + 1 / number)
    distance = observed - float(quiet.mean())
    if spread <= 1e-12 * max(1.0, abs(observed)):
        return 0.0 if distance > 0 else 1.0
    reached = int((quiet >= observed).sum())
    return max(float(stdtr(number - 1, -distance / spread)), (1 + reached) / (1 + number) if reached else 0.0)


def predictive(
    statistic: BinnedStatistic,
    baseline: Counts,
    window: Counts,
    rest: Counts,
    blocks: Counts,
    chance: float,
    positions: Counts | None = None,
) -> float:
    """Return the p-value of a statistic under the predictive null.

    ``window`` has shape (thinnings, bins) and ``blocks`` (blocks, bins), thinned to the same size; ``rest`` of shape
    (blocks, bins) is what each block is compared with; ``chance`` is the statistic's mean under the permutation draw at
    that size. The window's value is the mean of the logarithm over its thinnings.

    The logarithm is taken of T + T0 / 20, T0 being ``chance``; of T + T0 for statistics that use the order of the bins.
    Those come near 0 whenever means happen to agree, and the logarithm's long lower tail would widen the null at its
    upper end too: on a stream with a day effect of 0.15 standard deviations a shift of a whole one was found in 3 % of
    windows at 1e-4, and is in 61 %.
    """
    offset = max(chance, 1e-12) * (1.0 if statistic.ordered else 1 / 20)
    values = np.log(severity(statistic, statistic.value(baseline, window, positions)) + offset)
    quiet = np.log(severity(statistic, statistic.value(rest, blocks, positions)) + offset)
    return student_tail(float(values.mean()), quiet)


def equal_size(sizes: Integers, n_window: float, least: int) -> tuple[NDArray[np.bool_], int]:
    """Return which blocks are usable and the size to compare at: the smaller of the window and all but small blocks.

    Blocks of under ``least`` rows, or a fifth of the median, say too little. Of the rest a tenth may be smaller than
    the size; they stay as they are, which widens the null.
    """
    if not sizes.size:
        return np.zeros(0, dtype=np.bool_), int(n_window)
    usable = sizes >= max(least, 0.2 * float(np.median(sizes)))
    if not usable.any():
        return usable, int(n_window)
    return usable, int(min(n_window, np.quantile(sizes[usable], 0.1, method="lower")))


class Null:
    """The null of one column in one window: bins, draws and blocks shared by all statistics asked for.

    ``baseline`` and ``window`` are counts of shape (cells,), ``places`` the summed values of the pooled rows in each
    cell (for positions; in standard deviations of the baseline), ``blocks`` counts of shape (blocks, cells).
    """

    def __init__(
        self,
        baseline: Counts,
        window: Counts,
        generator: np.random.Generator,
        *,
        ordered: bool,
        places: Counts | None = None,
        blocks: csr_array | None = None,
        least: int = 1,
    ) -> None:
        self._generator = generator
        self.n_baseline, self.n_window = float(baseline.sum()), float(window.sum())
        self._usable: Integers | None = None
        size = int(self.n_window)
        if blocks is not None:
            usable, size = equal_size(np.asarray(blocks.sum(axis=1)).astype(np.int64), self.n_window, least)
            self._usable = np.flatnonzero(usable)
        self.enough = self._usable is not None and self._usable.size >= ENOUGH_BLOCKS
        self.quiet_blocks = 0 if self._usable is None else int(self._usable.size)
        self._size = size if self.enough else int(self.n_window)
        pooled = baseline + window
        if ordered:
            ends = bin_ends(pooled, baseline == 0, self.n_baseline, self._size)
            before = np.concatenate(([0.0], np.cumsum(pooled)))
            bins, number = np.searchsorted(ends[:-1], before[:-1], side="right"), ends.size

            def binned(values: Counts) -> Counts:
                upto = np.interp(ends, before, np.concatenate(([0.0], np.cumsum(values))))
                return np.diff(upto, prepend=0.0)

            self.baseline, self.window = np.rint(binned(baseline)), np.rint(binned(window))
        else:
            bins = merged_bins(pooled, self.n_baseline, self._size, ordered=False)
            number = int(bins.max()) + 1 if bins.size else 1

            def binned(values: Counts) -> Counts:
                return gathered(values, bins, number)

            self.baseline, self.window = binned(baseline), binned(window)
        self.positions = None
        if places is not None:
            self.positions = np.maximum.accumulate(binned(places) / np.maximum(self.baseline + self.window, 1.0))
        self._blocks: Counts | None = None
        self._held = False
        if blocks is not None and self.enough:
            counts = gathered(blocks, bins, number)
            self._held = bool((counts.sum(axis=0) <= self.baseline).all())
            self._blocks = counts[self._usable]
        self.draws = Permutations(self.baseline + self.window, self.n_window, generator)

    def value(self, statistic: BinnedStatistic) -> float:
        """Return the statistic on the tested bins."""
        return float(statistic.value(self.baseline, self.window, self.positions))

    def chance(self, statistic: BinnedStatistic) -> float:
        """Return how far the statistic is from unchanged by chance alone: its mean under the permutation draw."""
        rest, draw = next(iter(self.draws))
        return float(severity(statistic, statistic.value(rest, draw, self.positions)).mean())

    def effect(self, statistic: BinnedStatistic) -> float:
        """Return the statistic's distance from unchanged less what chance alone would give, at least 0."""
        return max(float(severity(statistic, np.asarray(self.value(statistic)))) - self.chance(statistic), 0.0)

    def p_value(self, statistic: BinnedStatistic) -> float:
        """Return the larger of the permutation p-value and, with at least 20 blocks, the predictive one."""
        by_rows = permutation(statistic, self.baseline, self.window, self.draws, self.positions)
        if self._blocks is None or self.baseline.size < 2:
            return by_rows
        window, rest, blocks = self._equal
        by_blocks = predictive(
            statistic, self.baseline, window, rest, blocks, self._chance_at_size(statistic), self.positions
        )
        return max(by_rows, by_blocks)

    @cached_property
    def note(self) -> str:
        """What the p-value assumes, where it assumes more than it should."""
        if self.enough:
            return ""
        return f"{CALIBRATING}, {self.quiet_blocks} of {ENOUGH_BLOCKS}: assumes independent rows"

    @cached_property
    def _equal(self) -> tuple[Counts, Counts, Counts]:
        """The window's thinnings, what each block is compared with, and the blocks, all at equal size."""
        if self._blocks is None:
            raise ValueError("there are no blocks to compare with")
        repeated = np.repeat(self.window[None], 1 if self.n_window <= self._size else THINNINGS, axis=0)
        window = thinned(repeated, self._size, self._generator)
        rest = self.baseline - self._blocks if self._held else np.broadcast_to(self.baseline, self._blocks.shape)
        return window, rest, thinned(self._blocks, self._size, self._generator)

    def _chance_at_size(self, statistic: BinnedStatistic) -> float:
        if self._size == int(self.n_window):
            return self.chance(statistic)
        rest, draw = self._small_draws
        return float(severity(statistic, statistic.value(rest, draw, self.positions)).mean())

    @cached_property
    def _small_draws(self) -> tuple[Counts, Counts]:
        return next(iter(Permutations(self.baseline + self.window, self._size, self._generator)))


def excess(
    events: tuple[int, int],
    rows: tuple[int, int],
    generator: np.random.Generator,
    *,
    block_events: Integers | None = None,
    block_rows: Integers | None = None,
    least: int = 1,
) -> tuple[float, str]:
    """Return the one-sided p-value that the window's rate exceeds the baseline's, and what it assumes.

    ``events`` and ``rows`` are (baseline, window). The permutation null of two cells is the hypergeometric tail
    (Fisher's exact test); the predictive one is Student's t on log(rate + pooled rate) at equal size.
    """
    by_rows = hypergeometric_tail(events[1], sum(events), rows[1], sum(rows))
    count = 0
    if block_events is not None and block_rows is not None:
        usable, size = equal_size(block_rows, rows[1], least)
        count = int(usable.sum())
        if count >= ENOUGH_BLOCKS:
            offset = max(sum(events) / sum(rows), 1e-12)
            pairs = np.stack([block_events, block_rows - block_events], axis=1)[usable].astype(np.float64)
            own = np.repeat(np.array([[events[1], rows[1] - events[1]]], dtype=np.float64), THINNINGS, axis=0)
            quiet, window = thinned(pairs, size, generator), thinned(own, size, generator)
            by_blocks = student_tail(
                float(np.log(window[:, 0] / window.sum(axis=1) + offset).mean()),
                np.log(quiet[:, 0] / quiet.sum(axis=1) + offset),
            )
            return max(by_rows, by_blocks), ""
    return by_rows, f"{CALIBRATING}, {count} of {ENOUGH_BLOCKS}: assumes independent rows"


def hypergeometric_tail(observed: int, marked: int, drawn: int, total: int) -> float:
    """Return P(X >= observed) for the marked rows among ``drawn`` of ``total``; the normal tail below the mean."""
    mean = drawn * marked / total
    if observed <= max(0, drawn + marked - total):
        return 1.0
    if observed > min(marked, drawn):
        return 0.0
    if observed <= mean:
        variance = mean * (1 - marked / total) * (total - drawn) / max(total - 1, 1)
        return float(ndtr((mean - observed + 0.5) / np.sqrt(max(variance, 1e-12))))
    logs = _log_choose(marked, observed) + _log_choose(total - marked, drawn - observed) - _log_choose(total, drawn)
    sum_, term, k = 1.0, 1.0, observed
    while k < min(marked, drawn):
        steps = np.arange(k, min(k + 4096, marked, drawn), dtype=np.float64)
        ratios = (marked - steps) * (drawn - steps) / ((steps + 1) * (total - marked - drawn + steps + 1))
        terms = term * np.cumprod(ratios)
        sum_, term, k = sum_ + float(terms.sum()), float(terms[-1]), k + steps.size
        if term < 1e-17 * sum_:
            break
    return float(min(1.0, np.exp(logs) * sum_))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
