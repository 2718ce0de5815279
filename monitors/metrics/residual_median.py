"""The median residual: what half of the errors are below."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import RegressionTable, Table


@dataclass(frozen=True, kw_only=True)
class ResidualMedian(Metric):
    """The median of prediction - label: the mean of the histogram's cell that holds it."""

    name: ClassVar[str] = "residual_median"
    title: ClassVar[str] = "Median residual"
    share: ClassVar[float] = 0.5
    """The share of residuals at or below it."""
    unit: ClassVar[str] = "target"
    direction: ClassVar[Direction] = Direction.DISTANCE_FROM_ZERO
    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    tasks: ClassVar[frozenset[str]] = frozenset({"regression"})
    source: ClassVar[str] = "Hyndman and Fan (1996), definition 1"

    def value(self, table: Table) -> Counts:
        """Return it, the first cell up to whose end the share lies."""
        if not isinstance(table, RegressionTable):
            raise ValueError("residuals are of numbers")
        running = np.cumsum(table.residuals, axis=-1)
        wanted = self.share * running[..., -1:] - 1e-9
        cell = np.argmax((running >= wanted) & (running > 0), axis=-1)[..., None]
        total = np.take_along_axis(table.residual_sums, cell, axis=-1)[..., 0]
        return ratio(total, np.take_along_axis(table.residuals, cell, axis=-1)[..., 0])
