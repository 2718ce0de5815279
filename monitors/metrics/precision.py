"""Precision: how many of those called positive are."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import ClassMetric, Counts
from monitors.ratios import ratio
from monitors.tables import BinaryTable


@dataclass(frozen=True, kw_only=True)
class Precision(ClassMetric):
    """True positives among all predicted positives."""

    name: ClassVar[str] = "precision"
    title: ClassVar[str] = "Precision"
    undefined: ClassVar[str] = "no row is predicted to be of the class"
    source: ClassVar[str] = "scikit-learn, precision_score"

    def of(self, table: BinaryTable) -> Counts:
        """Return it, NaN where it divides by nothing."""
        return ratio(table.tp, table.tp + table.fp)
