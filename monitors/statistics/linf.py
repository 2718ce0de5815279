"""Largest change of a single bin's share: SageMaker's "Simple" and Vertex AI's L-infinity distance of categories."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts


@dataclass(frozen=True, kw_only=True)
class LInfinity(BinnedStatistic):
    """Largest absolute difference between the window's and the baseline's shares, over the bins.

    For numbers SageMaker takes the largest difference of the *cumulative* shares: that is ``ks`` here.
    """

    name: ClassVar[str] = "linf"
    source: ClassVar[str] = "Chebyshev distance; Amazon SageMaker Model Monitor, categorical_drift_method LInfinity"

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the largest difference, shape (...,), from 0 to 1, of counts of shape (..., bins)."""
        expected = baseline / baseline.sum(axis=-1, keepdims=True)
        actual = window / window.sum(axis=-1, keepdims=True)
        return np.asarray(np.abs(actual - expected).max(axis=-1))
