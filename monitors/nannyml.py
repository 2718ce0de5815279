"""NannyML's own bins of a number's baseline, for the figures that are to equal NannyML's digit by digit.

They are shown and judged by thresholds, as NannyML judges them; the bins are made for values and not for a null. Of
categories NannyML's figures but `nannyml_chi2` are `linf`, `jensenshannon` and `hellinger` as they are here.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from monitors.contract import BinnedStatistic, Counts, Type

SOURCE = "NannyML 0.13, drift.univariate.methods"
FEW_VALUES, FEW_SHARE = 50, 0.1
ESTIMATED = 10_000
"""From so many rows of baseline on NannyML compares over as many even bins of the baseline's range."""


@dataclass(frozen=True, kw_only=True)
class NannyMLStatistic(BinnedStatistic):
    """A figure of numbers that is made of one baseline and one window at a time, cells at their mean values."""

    types: ClassVar[frozenset[Type]] = frozenset({Type.NUMERIC, Type.DATETIME})
    ordered: ClassVar[bool] = True
    null: ClassVar[bool] = False
    raw: ClassVar[bool] = True

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the figure, shape (...,), of counts of shape (..., bins); ValueError without positions."""
        if positions is None:
            raise ValueError(f"{self.name} needs the positions of the bins")
        old, new = np.broadcast_arrays(baseline, window)
        pairs = zip(old.reshape(-1, old.shape[-1]), new.reshape(-1, new.shape[-1]), strict=True)
        return np.array([self.compared(one, other, positions) for one, other in pairs]).reshape(old.shape[:-1])

    @abstractmethod
    def compared(self, baseline: Counts, window: Counts, positions: Counts) -> float:
        """Return the figure of one pair of counts of shape (bins,)."""


@dataclass(frozen=True)
class EvenBins:
    """The baseline's range in even bins: what the window's cumulative share is beyond the baseline's after each.

    It changes only in bins that hold a position: ``gaps`` are those that last for so many ``bins`` each.
    """

    low: float
    high: float
    gaps: Counts
    bins: NDArray[np.int64]

    @property
    def width(self) -> float:
        """The width of a bin."""
        return (self.high - self.low) / ESTIMATED

    @staticmethod
    def of(baseline: Counts, window: Counts, positions: Counts) -> "EvenBins":
        """Cut the range into as many bins as NannyML does."""
        held = np.flatnonzero(baseline)
        low, high = float(positions[held[0]]), float(positions[held[-1]])
        inside = (positions >= low) & (positions <= high)
        place = _places(positions[inside], low, (high - low) / ESTIMATED)
        gaps = np.cumsum(window[inside] / window.sum() - baseline[inside] / baseline.sum())
        last = np.append(place[1:] != place[:-1], True)
        bins = np.diff(np.concatenate(([0], place[last], [ESTIMATED])))
        gaps = np.append(0.0, gaps[last])
        return EvenBins(low, high, gaps[bins > 0], bins[bins > 0])


def _places(values: Counts, low: float, width: float) -> NDArray[np.int64]:
    """Return the even bin of each value, as comparing it with the ends ``low + bin * width`` tells."""
    if width <= 0:
        return np.full(values.size, ESTIMATED - 1)
    place = np.clip(((values - low) / width).astype(np.int64), 0, ESTIMATED - 1)
    place -= values < place * width + low
    return place + ((values >= (place + 1) * width + low) & (place < ESTIMATED - 1))


def doane_shares(baseline: Counts, window: Counts, positions: Counts, doane: bool = False) -> tuple[Counts, Counts]:
    """Return both sets of shares in the baseline's bins, a last one for the window's rows outside of them."""
    held = baseline > 0
    size, distinct = float(baseline.sum()), int(held.sum())
    if doane or distinct > FEW_VALUES or distinct / size > FEW_SHARE:
        edges = _doane(baseline[held], positions[held])
        expected, actual = _histogram(baseline, positions, edges), _histogram(window, positions, edges)
    else:
        expected, actual = baseline[held], window[held]
    expected, actual = expected / size, actual / window.sum()
    rest = 1 - float(actual.sum())
    return np.append(expected, 0.0), np.append(actual, max(rest, 0.0))


def _doane(counts: Counts, positions: Counts) -> NDArray[np.float64]:
    """Return the edges of ``numpy.histogram_bin_edges(…, "doane")`` of values that come so often."""
    size = float(counts.sum())
    number = 1
    if size > 2:
        mean = float(counts @ positions) / size
        spread = np.sqrt(float(counts @ np.square(positions - mean)) / size)
        if spread > 0:
            skewness = float(counts @ np.power((positions - mean) / spread, 3)) / size
            error = np.sqrt(6.0 * (size - 2) / ((size + 1.0) * (size + 3)))
            number = int(np.ceil(1.0 + np.log2(size) + np.log2(1.0 + abs(skewness) / error)))
    return np.linspace(positions[0], positions[-1], number + 1)


def _histogram(counts: Counts, positions: Counts, edges: NDArray[np.float64]) -> Counts:
    return np.asarray(np.histogram(positions, edges, weights=counts)[0], dtype=np.float64)
