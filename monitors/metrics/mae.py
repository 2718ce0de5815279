"""Mean absolute error: how far predictions are off."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import RegressionTable, Table


@dataclass(frozen=True, kw_only=True)
class MeanAbsoluteError(Metric):
    """The mean distance of prediction and label, in the unit of what is predicted."""

    name: ClassVar[str] = "mae"
    title: ClassVar[str] = "Mean absolute error"
    unit: ClassVar[str] = "target"
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    tasks: ClassVar[frozenset[str]] = frozenset({"regression"})
    decides: ClassVar[frozenset[str]] = frozenset({"regression"})
    source: ClassVar[str] = "scikit-learn, mean_absolute_error"

    def value(self, table: Table) -> Counts:
        """Return it from the sums."""
        if not isinstance(table, RegressionTable):
            raise ValueError("mae is of numbers")
        return ratio(table.sum_of("abs_e"), table.sum_of("n"))
