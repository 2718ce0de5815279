"""Root mean squared error: how far predictions are off, large errors most, in the label's own unit."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import RegressionTable, Table


@dataclass(frozen=True, kw_only=True)
class RootMeanSquaredError(Metric):
    """The root of the mean squared distance of prediction and label."""

    name: ClassVar[str] = "rmse"
    title: ClassVar[str] = "Root mean squared error"
    unit: ClassVar[str] = "target"
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    tasks: ClassVar[frozenset[str]] = frozenset({"regression"})
    decides: ClassVar[frozenset[str]] = frozenset({"regression"})
    source: ClassVar[str] = "scikit-learn, root_mean_squared_error"

    def value(self, table: Table) -> Counts:
        """Return it from the sums."""
        if not isinstance(table, RegressionTable):
            raise ValueError("rmse is of numbers")
        return np.sqrt(ratio(table.sum_of("e2"), table.sum_of("n")))
