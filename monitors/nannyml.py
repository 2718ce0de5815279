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


def even_gaps(baseline: Counts, window: Counts, positions: Counts) -> tuple[NDArray[np.float64], Counts]:
    """Return the ends of even bins of the baseline's range, and the window's cumulative shares less the baseline's."""
    held = positions[baseline > 0]
    edges = np.linspace(held[0], held[-1], ESTIMATED + 1)
    old, new = (np.cumsum(_histogram(counts, positions, edges) / counts.sum()) for counts in (baseline, window))
    return edges, new - old


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
