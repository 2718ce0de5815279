"""The distribution of one column in a window beside its baseline: profiles' cells made into a few bins."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dashboards import charts
from monitors.layout import CategoryLayout, Layout, NumericLayout
from monitors.profile import CategoryProfile, NumericProfile, Profile

BINS = 40
CATEGORIES = 20
TAIL = 0.004
"""The share at each end that goes into the outermost bins."""


def overlay(
    label: str, name: str, layout: Layout, baseline: Profile, window: Profile, titles: tuple[str, str]
) -> tuple[charts.Chart | None, str]:
    """Return the chart of a column's two distributions, or the reason why there is none.

    ``name`` is the column's name in the lake, ``titles`` say what baseline and window are.
    """
    place = layout.columns.get(name)
    before, after = baseline.columns.get(name), window.columns.get(name)
    if place is None or before is None or after is None:
        return None, "the layout in use does not hold this column."
    if not after.count:
        return None, "the window has no value of this column."
    if isinstance(place, CategoryLayout) and isinstance(before, CategoryProfile) and isinstance(after, CategoryProfile):
        return charts.categories(label, category_shares(place, before, after), *titles), ""
    if isinstance(place, NumericLayout) and isinstance(before, NumericProfile) and isinstance(after, NumericProfile):
        bins = numeric_bins(place, before, after)
        return (charts.overlay(label, bins, *titles), "") if bins else (None, "values are not kept for this type.")
    return None, "its type changed since the baseline."


def numeric_bins(layout: NumericLayout, before: NumericProfile, after: NumericProfile) -> list[charts.Bin]:
    """Return at most 40 bins of equal width (one per value where there are so few) with both shares."""
    if before.counts.size != layout.cells or after.counts.size != layout.cells or not layout.edges.size:
        return []
    lowest = float(min(before.minimum, after.minimum))
    highest = float(max(before.maximum, after.maximum))
    low, high = layout.bounds(lowest, highest)
    low, high = np.maximum(low, lowest), np.maximum(np.minimum(high, highest), np.maximum(low, lowest))
    edges = _edges(layout, before, after, low, high)
    shares = [_spread(profile.counts, low, high, edges) for profile in (before, after)]
    return [
        charts.Bin(
            low=float(edges[i]), high=float(edges[i + 1]), baseline=float(shares[0][i]), window=float(shares[1][i])
        )
        for i in range(len(edges) - 1)
    ]


def _edges(
    layout: NumericLayout,
    before: NumericProfile,
    after: NumericProfile,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NDArray[np.float64]:
    used = np.flatnonzero((before.counts > 0) | (after.counts > 0))
    if layout.tied and used.size <= BINS and np.all(used % 2 == 1):
        values = low[used]
        if values.size == 1:
            return np.array([values[0] - 0.5, values[0] + 0.5])
        gaps = np.diff(values)
        if gaps.max() > 1.5 * gaps.min():
            return np.linspace(float(values[0]), float(values[-1]), BINS + 1)
        middles = (values[1:] + values[:-1]) / 2
        return np.concatenate(
            ([values[0] - (middles[0] - values[0])], middles, [values[-1] + (values[-1] - middles[-1])])
        )
    both = before.counts / max(before.counts.sum(), 1) + after.counts / max(after.counts.sum(), 1)
    below = np.cumsum(both) / 2
    first = float(low[int(np.searchsorted(below, TAIL))])
    last = float(high[min(int(np.searchsorted(below, 1 - TAIL)), high.size - 1)])
    if not last > first:
        first, last = first - 0.5, first + 0.5
    return np.linspace(first, last, BINS + 1)


def _spread(
    counts: NDArray[np.int64], low: NDArray[np.float64], high: NDArray[np.float64], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the shares of bins, each cell's count spread evenly over its width; what lies outside goes to the ends."""
    total = counts.sum()
    if not total:
        return np.zeros(edges.size - 1)
    filled = np.flatnonzero(counts)
    starts, ends, weights = low[filled], high[filled], counts[filled] / total
    widths = np.where(ends > starts, ends - starts, 1.0)
    inner = edges[1:-1]
    share = np.clip((inner[:, None] - starts) / widths, 0.0, 1.0)
    share = np.where(ends > starts, share, (inner[:, None] > starts).astype(float))
    below = np.concatenate(([0.0], share @ weights, [1.0]))
    return np.diff(below)


def category_shares(
    layout: CategoryLayout, before: CategoryProfile, after: CategoryProfile
) -> Sequence[charts.CategoryShare]:
    """Return the largest categories of either side, new values by name, and the rest together."""
    totals = max(int(before.counts.sum()), 1), max(int(after.counts.sum()), 1)
    pairs = [
        charts.CategoryShare(
            name=name, baseline=int(before.counts[i]) / totals[0], window=int(after.counts[i]) / totals[1]
        )
        for i, name in enumerate(layout.categories)
    ]
    fresh = sorted(after.new.items(), key=lambda item: -item[1])[:8]
    pairs += [
        charts.CategoryShare(name=name, baseline=0.0, window=count / totals[1], new=True) for name, count in fresh
    ]
    pairs.sort(key=lambda one: -max(one.baseline, one.window))
    shown, rest = pairs[:CATEGORIES], pairs[CATEGORIES:]
    other = (
        int(before.counts[-1]) / totals[0],
        int(after.counts[-1]) / totals[1] - sum(count for _, count in fresh) / totals[1],
    )
    left = sum(one.baseline for one in rest) + other[0], sum(one.window for one in rest) + max(other[1], 0.0)
    if rest or left[0] > 0 or left[1] > 1e-9:
        shown.append(charts.CategoryShare(name="all others", baseline=left[0], window=left[1]))
    return shown
