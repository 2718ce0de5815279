"""Kolmogorov-Smirnov distance: the largest gap between the two cumulative shares."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts, Type


@dataclass(frozen=True, kw_only=True)
class KolmogorovSmirnov(BinnedStatistic):
    """Two-sample Kolmogorov-Smirnov statistic over the ends of the bins; SageMaker's "Simple" for numbers."""

    name: ClassVar[str] = "ks"
    source: ClassVar[str] = "Smirnov (1939)"
    types: ClassVar[frozenset[Type]] = frozenset({Type.NUMERIC, Type.DATETIME})
    ordered: ClassVar[bool] = True

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the gap, shape (...,), from 0 to 1, of counts of shape (..., bins) in the order of the values."""
        expected = baseline / baseline.sum(axis=-1, keepdims=True)
        actual = window / window.sum(axis=-1, keepdims=True)
        return np.asarray(np.abs(np.cumsum(actual - expected, axis=-1)).max(axis=-1))
