"""Total variation: one minus the shares that two distributions have in common."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts


@dataclass(frozen=True, kw_only=True)
class Overlap(BinnedStatistic):
    """The share of rows that would have to move for the two to be alike."""

    contract: ClassVar[int] = 1
    name: ClassVar[str] = "overlap"
    unit: ClassVar[str] = "share"
    source: ClassVar[str] = "Weitzman (1970)"

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the share, shape (...,), of counts of shape (..., bins)."""
        apart = np.abs(self.shares(baseline) - self.shares(window))
        return np.asarray(apart.sum(axis=-1) / 2)
