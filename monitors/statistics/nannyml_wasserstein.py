"""NannyML's Wasserstein distance, over bins where the baseline is large."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts
from monitors.nannyml import ESTIMATED, SOURCE, EvenBins, NannyMLStatistic


@dataclass(frozen=True, kw_only=True)
class NannyMLWasserstein(NannyMLStatistic):
    """Area between the cumulative shares, in the column's unit; from 10,000 rows of baseline on over as many bins."""

    name: ClassVar[str] = "nannyml_wasserstein"
    unit: ClassVar[str] = "the column's own"
    source: ClassVar[str] = SOURCE

    def compared(self, baseline: Counts, window: Counts, positions: Counts) -> float:
        """Return the distance; of rows beyond the range NannyML counts one more than there are."""
        if baseline.sum() < ESTIMATED:
            gaps = np.abs(np.cumsum(window / window.sum() - baseline / baseline.sum()))[:-1]
            return float(gaps @ np.diff(positions))
        even = EvenBins.of(baseline, window, positions)
        size = float(window.sum())
        smaller, bigger = positions < even.low, positions > even.high
        below = (float(window[smaller].sum()) + 1) / size if window[smaller].any() else 0.0
        distance = float(np.abs(even.gaps + below) @ even.bins) * even.width
        for outside, end in ((smaller, even.low), (bigger, even.high)):
            distance += float(window[outside] @ np.abs(positions[outside] - end)) / size
        return distance
