"""F1: precision and recall in one, both alike."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import ClassMetric, Counts
from monitors.ratios import ratio
from monitors.tables import BinaryTable


@dataclass(frozen=True, kw_only=True)
class F1(ClassMetric):
    """The harmonic mean of precision and recall."""

    name: ClassVar[str] = "f1"
    title: ClassVar[str] = "F1"
    beta: ClassVar[float] = 1.0
    """How many times as much recall counts."""
    decides: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "multilabel"})
    undefined: ClassVar[str] = "no row has the label or is predicted to be of the class"
    source: ClassVar[str] = "van Rijsbergen (1979); scikit-learn, fbeta_score"

    def of(self, table: BinaryTable) -> Counts:
        """Return it, NaN where nothing is positive on either side."""
        weight = self.beta**2
        return ratio((1 + weight) * table.tp, (1 + weight) * table.tp + weight * table.fn + table.fp)
