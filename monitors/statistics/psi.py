"""Population stability index: how far binned shares have moved, as information in nats."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts


@dataclass(frozen=True, kw_only=True)
class PopulationStability(BinnedStatistic):
    """Symmetric Kullback-Leibler divergence of the window's and the baseline's shares, none taken below 1e-4."""

    name: ClassVar[str] = "psi"
    unit: ClassVar[str] = "nats"
    source: ClassVar[str] = "Kullback and Leibler (1951); Siddiqi (2006), Credit Risk Scorecards"

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the index, shape (...,), of counts of shape (..., bins)."""
        expected, actual = self.shares(baseline), self.shares(window)
        return np.asarray(((actual - expected) * np.log(actual / expected)).sum(axis=-1))
