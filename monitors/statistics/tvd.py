"""Total variation distance: the share of rows that would have to change their bin, from 0 to 1."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts


@dataclass(frozen=True, kw_only=True)
class TotalVariation(BinnedStatistic):
    """Half the sum of the absolute changes of the shares; 0 equal, 1 nothing in common.

    Evidently's score of this name is not the distance but the p-value of a permutation test of it: here that is the
    result's p-value.
    """

    name: ClassVar[str] = "TVD"
    source: ClassVar[str] = "Total variation of two distributions; Levin and Peres (2017), Markov Chains, 4.1"

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the distance, shape (...,), of counts of shape (..., bins)."""
        expected = baseline / baseline.sum(axis=-1, keepdims=True)
        actual = window / window.sum(axis=-1, keepdims=True)
        return np.asarray(np.abs(actual - expected).sum(axis=-1) / 2)
