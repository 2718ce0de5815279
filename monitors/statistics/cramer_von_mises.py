"""Cramér-von Mises: the squared gap of the cumulative shares, averaged over the pooled rows."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts, Type


@dataclass(frozen=True, kw_only=True)
class CramerVonMises(BinnedStatistic):
    """Two-sample criterion T, the gap of each pooled row taken at the end of its bin.

    Without ties and with a bin per row it is SciPy's, which gives ties their middle rank instead. It grows with the
    number of rows: n m / (n + m) times the mean squared gap.
    """

    name: ClassVar[str] = "cramer_von_mises"
    source: ClassVar[str] = "Anderson (1962), On the distribution of the two-sample Cramer-von Mises criterion"
    types: ClassVar[frozenset[Type]] = frozenset({Type.NUMERIC, Type.DATETIME})
    ordered: ClassVar[bool] = True

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return T, shape (...,), of counts of shape (..., bins) in the order of the values."""
        n, m = baseline.sum(axis=-1, keepdims=True), window.sum(axis=-1, keepdims=True)
        gaps = np.cumsum(window / m - baseline / n, axis=-1)
        mean = ((baseline + window) * np.square(gaps)).sum(axis=-1) / (n + m)[..., 0]
        return np.asarray(mean * (n * m / (n + m))[..., 0])
