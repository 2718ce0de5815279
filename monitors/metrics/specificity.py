"""Specificity: how many of the negatives are left alone."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import ClassMetric, Counts
from monitors.ratios import ratio
from monitors.tables import BinaryTable


@dataclass(frozen=True, kw_only=True)
class Specificity(ClassMetric):
    """True negatives among all rows that have not the label: one minus the false positive rate."""

    name: ClassVar[str] = "specificity"
    title: ClassVar[str] = "Specificity"
    undefined: ClassVar[str] = "every row has the label"
    source: ClassVar[str] = "Yerushalmy (1947); 1 - fpr of scikit-learn, roc_curve"

    def of(self, table: BinaryTable) -> Counts:
        """Return it, NaN where it divides by nothing."""
        return ratio(table.tn, table.tn + table.fp)
