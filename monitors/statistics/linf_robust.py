"""SageMaker's Robust distance: the largest change of a share less what chance gives samples of these sizes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic, Counts


@dataclass(frozen=True, kw_only=True)
class RobustLInfinity(BinnedStatistic):
    """``max(0, d - c sqrt((n + m) / (n m)))``, d being ``ks`` of numbers and ``linf`` of categories.

    Exactly 0 on quiet data by construction (c = 1.8 leaves a chance of 0.003), so it is judged by thresholds only.
    """

    name: ClassVar[str] = "linf_robust"
    source: ClassVar[str] = "Amazon SageMaker Model Monitor, comparison_method Robust; Deequ, Distance.scala"
    ordered: ClassVar[bool] = True
    null: ClassVar[bool] = False

    c: float = 1.8

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the distance, shape (...,), from 0 to 1; bins with positions are those of a number."""
        n, m = baseline.sum(axis=-1), window.sum(axis=-1)
        change = window / m[..., None] - baseline / n[..., None]
        if positions is not None:
            change = np.cumsum(change, axis=-1)
        return np.asarray(np.maximum(np.abs(change).max(axis=-1) - self.c * np.sqrt((n + m) / (n * m)), 0.0))
