"""Anderson-Darling: the squared gap of the cumulative shares, weighted so that tails count as much as the middle."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts, Type


@dataclass(frozen=True, kw_only=True)
class AndersonDarling(BinnedStatistic):
    """Two-sample A² with middle ranks, the rows of a bin taken as tied; it grows with the number of rows.

    SciPy and Evidently show (A² - 1) / sigma, with sigma from the two sizes alone, and its p-value.
    """

    name: ClassVar[str] = "anderson"
    source: ClassVar[str] = "Scholz and Stephens (1987), K-sample Anderson-Darling tests, equation 7"
    types: ClassVar[frozenset[Type]] = frozenset({Type.NUMERIC, Type.DATETIME})
    ordered: ClassVar[bool] = True

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return A², shape (...,), of counts of shape (..., bins) in the order of the values."""
        n, m = baseline.sum(axis=-1, keepdims=True), window.sum(axis=-1, keepdims=True)
        size, pooled = n + m, baseline + window
        below = np.cumsum(pooled, axis=-1) - pooled / 2
        scale = below * (size - below) - size * pooled / 4
        weight = np.where(pooled > 0, pooled, 0.0) / np.where((pooled > 0) & (scale > 0), scale, np.inf)
        gap = size * (np.cumsum(window, axis=-1) - window / 2) - m * below
        # the baseline's gap is the negative of the window's
        total = (weight * np.square(gap)).sum(axis=-1)
        return np.asarray(total * ((size - 1) / np.square(size) * (1 / n + 1 / m))[..., 0])
