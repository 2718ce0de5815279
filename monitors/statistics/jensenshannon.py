"""Jensen-Shannon distance: how well a row's bin tells whether it is from the window or the baseline, from 0 to 1."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import rel_entr

from monitors.contract import BinnedStatistic, Counts


@dataclass(frozen=True, kw_only=True)
class JensenShannon(BinnedStatistic):
    """Square root of the mean divergence of both shares from their mean; 0 equal, 1 nothing in common.

    With ``natural`` logarithms, as SciPy and Evidently compute it, nothing in common is sqrt(ln 2) = 0.8326.
    """

    name: ClassVar[str] = "jensenshannon"
    source: ClassVar[str] = "Lin (1991); Endres and Schindelin (2003)"

    natural: bool = False

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the distance, shape (...,), of counts of shape (..., bins)."""
        expected = baseline / baseline.sum(axis=-1, keepdims=True)
        actual = window / window.sum(axis=-1, keepdims=True)
        middle = (expected + actual) / 2
        divergence = (rel_entr(expected, middle) + rel_entr(actual, middle)).sum(axis=-1) / 2
        return np.asarray(np.sqrt(np.maximum(divergence, 0.0) / (1.0 if self.natural else np.log(2))))
