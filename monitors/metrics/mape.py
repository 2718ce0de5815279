"""Mean absolute percentage error: how far predictions are off as a share of the label."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import RegressionTable, Table


@dataclass(frozen=True, kw_only=True)
class MeanAbsolutePercentageError(Metric):
    """The mean of |prediction - label| / |label| over the rows whose label is not 0."""

    name: ClassVar[str] = "mape"
    title: ClassVar[str] = "Mean absolute percentage error"
    unit: ClassVar[str] = ""
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    tasks: ClassVar[frozenset[str]] = frozenset({"regression"})
    undefined: ClassVar[str] = "no row has a label other than 0"
    source: ClassVar[str] = "scikit-learn, mean_absolute_percentage_error (which keeps labels of 0)"

    def value(self, table: Table) -> Counts:
        """Return it from the sums."""
        if not isinstance(table, RegressionTable):
            raise ValueError("mape is of numbers")
        return ratio(table.sum_of("relative"), table.sum_of("relative_n"))
