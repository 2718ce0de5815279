"""NannyML's Kolmogorov-Smirnov statistic, over bins where the baseline is large."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts
from monitors.nannyml import ESTIMATED, SOURCE, EvenBins, NannyMLStatistic


@dataclass(frozen=True, kw_only=True)
class NannyMLKolmogorovSmirnov(NannyMLStatistic):
    """Largest gap of the cumulative shares; from 10,000 rows of baseline on at the ends of 10,000 even bins."""

    name: ClassVar[str] = "nannyml_kolmogorov_smirnov"
    source: ClassVar[str] = SOURCE

    def compared(self, baseline: Counts, window: Counts, positions: Counts) -> float:
        """Return the gap, from 0 to 1."""
        if baseline.sum() < ESTIMATED:
            return float(np.abs(np.cumsum(window / window.sum() - baseline / baseline.sum())).max())
        even = EvenBins.of(baseline, window, positions)
        below = float(window[positions < even.low].sum() / window.sum())
        return float(np.abs(even.gaps + below).max())
