"""Hellinger distance: how little the two sets of shares overlap, from 0 to 1."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts


@dataclass(frozen=True, kw_only=True)
class Hellinger(BinnedStatistic):
    """Square root of one minus the Bhattacharyya coefficient; 0 equal, 1 nothing in common."""

    name: ClassVar[str] = "hellinger"
    source: ClassVar[str] = "Hellinger (1909); Bhattacharyya (1943)"

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the distance, shape (...,), of counts of shape (..., bins)."""
        expected = np.sqrt(baseline / baseline.sum(axis=-1, keepdims=True))
        actual = np.sqrt(window / window.sum(axis=-1, keepdims=True))
        return np.asarray(np.sqrt(np.square(actual - expected).sum(axis=-1) / 2))
