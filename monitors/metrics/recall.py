"""Recall: how many of the positives are found."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import ClassMetric, Counts
from monitors.ratios import ratio
from monitors.tables import BinaryTable


@dataclass(frozen=True, kw_only=True)
class Recall(ClassMetric):
    """True positives among all rows that have the label: the true positive rate."""

    name: ClassVar[str] = "recall"
    title: ClassVar[str] = "Recall"
    undefined: ClassVar[str] = "no row has the label"
    source: ClassVar[str] = "scikit-learn, recall_score"

    def of(self, table: BinaryTable) -> Counts:
        """Return it, NaN where it divides by nothing."""
        return ratio(table.tp, table.tp + table.fn)
