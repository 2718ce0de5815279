"""Wasserstein distance: how far the average value would have to move, in the baseline's standard deviations."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts, Type


@dataclass(frozen=True, kw_only=True)
class Wasserstein(BinnedStatistic):
    """Area between the two cumulative shares, the bins' mass placed at their mean values.

    It differs from the distance of the rows themselves by at most the mean absolute deviation of the rows from the
    places of their bins, taken in the baseline and in the window and added.
    """

    name: ClassVar[str] = "wasserstein"
    unit: ClassVar[str] = "baseline standard deviations"
    source: ClassVar[str] = "Vaserstein (1969); Vallender (1974)"
    types: ClassVar[frozenset[Type]] = frozenset({Type.NUMERIC, Type.DATETIME})
    ordered: ClassVar[bool] = True

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the distance, shape (...,), of counts of shape (..., bins) in the order of the values.

        Raises ValueError without positions. Two bins without positions of their own would have no distance.
        """
        if positions is None:
            raise ValueError("wasserstein needs the positions of the bins")
        expected = baseline / baseline.sum(axis=-1, keepdims=True)
        actual = window / window.sum(axis=-1, keepdims=True)
        gaps = np.abs(np.cumsum(actual - expected, axis=-1))[..., :-1]
        return np.asarray(gaps @ np.diff(positions))
