"""Mean squared error: how far predictions are off, large errors most."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import RegressionTable, Table


@dataclass(frozen=True, kw_only=True)
class MeanSquaredError(Metric):
    """The mean squared distance of prediction and label."""

    name: ClassVar[str] = "mse"
    title: ClassVar[str] = "Mean squared error"
    unit: ClassVar[str] = "target²"
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    tasks: ClassVar[frozenset[str]] = frozenset({"regression"})
    source: ClassVar[str] = "scikit-learn, mean_squared_error"

    def value(self, table: Table) -> Counts:
        """Return it from the sums."""
        if not isinstance(table, RegressionTable):
            raise ValueError("mse is of numbers")
        return ratio(table.sum_of("e2"), table.sum_of("n"))
