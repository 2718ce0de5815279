"""R2: how much of the labels' variance predictions explain."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import Counts, Metric
from monitors.ratios import ratio
from monitors.tables import RegressionTable, Table


@dataclass(frozen=True, kw_only=True)
class R2(Metric):
    """One minus squared error over the labels' variance; 0 is as good as their mean, negative is worse."""

    name: ClassVar[str] = "r2"
    title: ClassVar[str] = "R²"
    unit: ClassVar[str] = ""
    range: ClassVar[tuple[float, float]] = (float("-inf"), 1.0)
    tasks: ClassVar[frozenset[str]] = frozenset({"regression"})
    undefined: ClassVar[str] = "the labels are all the same"
    source: ClassVar[str] = "scikit-learn, r2_score"

    def value(self, table: Table) -> Counts:
        """Return it from the sums."""
        if not isinstance(table, RegressionTable):
            raise ValueError("r2 is of numbers")
        y, n = table.sum_of("y"), table.sum_of("n")
        return 1.0 - ratio(table.sum_of("e2"), table.sum_of("y2") - ratio(y**2, n))
