"""G, the likelihood ratio of the two-sample table: twice the information that bin and sample share."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import rel_entr

from monitors.contract import BinnedStatistic, Counts


@dataclass(frozen=True, kw_only=True)
class GTest(BinnedStatistic):
    """Likelihood ratio of the table of baseline and window by bin; it grows with the number of rows.

    Both samples count as samples. Evidently's test of this name takes the baseline as exact and needs samples of one
    size; on two such samples, A and B, its G is 2 sum B ln(B / A).
    """

    name: ClassVar[str] = "g_test"
    source: ClassVar[str] = "Wilks (1938); Sokal and Rohlf (1981), Biometry"

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return G, shape (...,), of counts of shape (..., bins); empty bins add nothing."""
        n, m = baseline.sum(axis=-1, keepdims=True), window.sum(axis=-1, keepdims=True)
        pooled = baseline + window
        parts = rel_entr(baseline, pooled * (n / (n + m))) + rel_entr(window, pooled * (m / (n + m)))
        return np.asarray(np.maximum(2 * parts.sum(axis=-1), 0.0))
