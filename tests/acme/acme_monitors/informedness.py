"""Informedness: how much better than a guess the decisions are, whatever the share of positives."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import ClassMetric, Counts
from monitors.ratios import ratio
from monitors.tables import BinaryTable


@dataclass(frozen=True, kw_only=True)
class Informedness(ClassMetric):
    """Youden's J: recall and specificity added, less one; 0 for a guess."""

    contract: ClassVar[int] = 1
    name: ClassVar[str] = "informedness"
    title: ClassVar[str] = "Informedness"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    undefined: ClassVar[str] = "every row has the label, or none has"
    source: ClassVar[str] = "Youden (1950)"

    def of(self, table: BinaryTable) -> Counts:
        """Return it, NaN where either rate divides by nothing."""
        return ratio(table.tp, table.tp + table.fn) + ratio(table.tn, table.tn + table.fp) - 1
