"""Pearson's chi-square of the two-sample table: squared differences from what equal shares would give."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts


@dataclass(frozen=True, kw_only=True)
class ChiSquare(BinnedStatistic):
    """Pearson's statistic of the table of baseline and window by bin, without a correction for continuity.

    Both samples count as samples: a test that takes the baseline as exact alarms on stable columns. Unlike a distance
    it grows with the number of rows, so fixed thresholds on it mean little.
    """

    name: ClassVar[str] = "chisquare"
    source: ClassVar[str] = "Pearson (1900, 1911)"

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the statistic, shape (...,), of counts of shape (..., bins); empty bins add nothing."""
        n, m = baseline.sum(axis=-1, keepdims=True), window.sum(axis=-1, keepdims=True)
        pooled = baseline + window
        difference = window / m - baseline / n
        scale = np.where(pooled > 0, pooled, 1.0)
        return np.asarray((np.square(difference) / scale).sum(axis=-1) * (n * m)[..., 0])
