"""Lift: how much more often the label is met among those called positive than among all."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import ClassMetric, Counts
from monitors.ratios import ratio
from monitors.tables import BinaryTable


@dataclass(frozen=True, kw_only=True)
class Lift(ClassMetric):
    """Precision over the share of positives; 1 says that the predictions choose at random."""

    name: ClassVar[str] = "lift"
    title: ClassVar[str] = "Lift"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    averages: ClassVar[tuple[str, ...]] = ("macro",)
    undefined: ClassVar[str] = "no row has the label, or none is predicted to be of the class"
    source: ClassVar[str] = "Brin and others (1997); mlxtend, lift_score"

    def of(self, table: BinaryTable) -> Counts:
        """Return it, NaN where it divides by nothing."""
        everybody = table.confusion.sum(axis=(-2, -1))
        return ratio(ratio(table.tp, table.tp + table.fp), ratio(table.tp + table.fn, everybody))
