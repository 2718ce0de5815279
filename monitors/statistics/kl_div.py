"""Kullback-Leibler divergence: how surprising the baseline is to somebody who takes the window for the truth."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import rel_entr

from monitors.contract import BinnedStatistic, Counts


@dataclass(frozen=True, kw_only=True)
class KullbackLeibler(BinnedStatistic):
    """Divergence of the baseline's shares from the window's, in Evidently's order of the two; none taken below 1e-4."""

    name: ClassVar[str] = "kl_div"
    unit: ClassVar[str] = "nats"
    source: ClassVar[str] = "Kullback and Leibler (1951)"

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the divergence, shape (...,), of counts of shape (..., bins)."""
        held = baseline + window > 0
        expected, actual = self.shares(baseline) * held, self.shares(window) * held
        expected = expected / expected.sum(axis=-1, keepdims=True)
        actual = actual / actual.sum(axis=-1, keepdims=True)
        return np.asarray(rel_entr(expected, actual).sum(axis=-1))
