"""Two-proportion z: the change of a bin's share in its standard errors, of the bin where it is largest."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts, Type


@dataclass(frozen=True, kw_only=True)
class TwoProportions(BinnedStatistic):
    """Largest absolute z of two proportions with pooled variance, over the bins.

    With two categories both have the same and it is the z test; with more it is the largest standardised residual.
    """

    name: ClassVar[str] = "z"
    unit: ClassVar[str] = "standard errors"
    source: ClassVar[str] = "Two-proportion z test; Haberman (1973), adjusted residuals"
    types: ClassVar[frozenset[Type]] = frozenset({Type.CATEGORICAL, Type.BOOLEAN})

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the largest absolute z, shape (...,), of counts of shape (..., bins)."""
        n, m = baseline.sum(axis=-1, keepdims=True), window.sum(axis=-1, keepdims=True)
        pooled = (baseline + window) / (n + m)
        variance = pooled * (1 - pooled) * (1 / n + 1 / m)
        z = np.abs(window / m - baseline / n) / np.sqrt(np.where(variance > 0, variance, 1.0))
        return np.asarray(z.max(axis=-1))
