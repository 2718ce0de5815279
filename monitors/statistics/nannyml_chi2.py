"""NannyML's chi-square of categories, corrected for continuity where there are two."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts, Type
from monitors.nannyml import SOURCE


@dataclass(frozen=True, kw_only=True)
class NannyMLChiSquare(BinnedStatistic):
    """Pearson's two-sample statistic, with Yates's correction for continuity where there are two categories."""

    name: ClassVar[str] = "nannyml_chi2"
    source: ClassVar[str] = f"{SOURCE}; Yates (1934)"
    types: ClassVar[frozenset[Type]] = frozenset({Type.CATEGORICAL, Type.BOOLEAN})
    null: ClassVar[bool] = False

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the statistic, shape (...,), of counts of shape (..., bins); empty bins are no categories."""
        n, m = baseline.sum(axis=-1, keepdims=True), window.sum(axis=-1, keepdims=True)
        pooled = baseline + window
        off = np.abs(window - pooled * (m / (n + m)))
        two = (pooled > 0).sum(axis=-1, keepdims=True) == 2
        off = off - np.where(two, np.minimum(0.5, off), 0.0)
        scale = np.where(pooled > 0, pooled, 1.0)
        return np.asarray((np.square(off) / scale).sum(axis=-1) * (np.square(n + m) / (n * m))[..., 0])
