"""Root mean squared logarithmic error: how far predictions are off as a ratio."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import RegressionTable, Table


@dataclass(frozen=True, kw_only=True)
class RootMeanSquaredLogError(Metric):
    """The root of the mean squared distance of log(1 + prediction) and log(1 + label), where both exist."""

    name: ClassVar[str] = "rmsle"
    title: ClassVar[str] = "Root mean squared log error"
    unit: ClassVar[str] = ""
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    tasks: ClassVar[frozenset[str]] = frozenset({"regression"})
    undefined: ClassVar[str] = "no row has label and prediction above -1"
    source: ClassVar[str] = "scikit-learn, root_mean_squared_log_error"

    def value(self, table: Table) -> Counts:
        """Return it from the sums."""
        if not isinstance(table, RegressionTable):
            raise ValueError("rmsle is of numbers")
        return np.sqrt(ratio(table.sum_of("log2"), table.sum_of("log2_n")))
