"""Energy distance: how much nearer rows are to their own sample than to the other one."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts, Type


@dataclass(frozen=True, kw_only=True)
class EnergyDistance(BinnedStatistic):
    """Square root of twice the area of the squared gap of the cumulative shares, the bins' mass at their mean values.

    SciPy's and Evidently's value of the rows themselves, divided by the root of the baseline's standard deviation.
    """

    name: ClassVar[str] = "ed"
    unit: ClassVar[str] = "root of baseline standard deviations"
    source: ClassVar[str] = "Székely and Rizzo (2013), Energy statistics"
    types: ClassVar[frozenset[Type]] = frozenset({Type.NUMERIC, Type.DATETIME})
    ordered: ClassVar[bool] = True

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the distance, shape (...,), of counts of shape (..., bins); ValueError without positions."""
        if positions is None:
            raise ValueError("the energy distance needs the positions of the bins")
        expected = baseline / baseline.sum(axis=-1, keepdims=True)
        actual = window / window.sum(axis=-1, keepdims=True)
        gaps = np.square(np.cumsum(actual - expected, axis=-1))[..., :-1]
        return np.asarray(np.sqrt(2 * (gaps @ np.diff(positions))))
