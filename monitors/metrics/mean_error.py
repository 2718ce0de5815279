"""Mean error: whether predictions are too high or too low."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import RegressionTable, Table


@dataclass(frozen=True, kw_only=True)
class MeanError(Metric):
    """The mean of prediction - label, the bias of the model; 0 says that errors cancel."""

    name: ClassVar[str] = "mean_error"
    title: ClassVar[str] = "Mean error"
    unit: ClassVar[str] = "target"
    direction: ClassVar[Direction] = Direction.DISTANCE_FROM_ZERO
    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    tasks: ClassVar[frozenset[str]] = frozenset({"regression"})
    decides: ClassVar[frozenset[str]] = frozenset({"regression"})
    source: ClassVar[str] = "mean of prediction - label"

    def value(self, table: Table) -> Counts:
        """Return it from the sums."""
        if not isinstance(table, RegressionTable):
            raise ValueError("mean_error is of numbers")
        return ratio(table.sum_of("e"), table.sum_of("n"))
