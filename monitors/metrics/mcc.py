"""Matthews correlation coefficient: how predictions and labels go together."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Metric
from monitors.ratios import ratio
from monitors.tables import BinaryTable, MulticlassTable, Table


@dataclass(frozen=True, kw_only=True)
class Mcc(Metric):
    """The correlation of predictions and labels; 0 is at random, 1 is right always."""

    name: ClassVar[str] = "mcc"
    title: ClassVar[str] = "Matthews correlation"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    tasks: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass"})
    undefined: ClassVar[str] = "all labels or all predictions are the same"
    source: ClassVar[str] = "Matthews (1975); Gorodkin (2004); scikit-learn, matthews_corrcoef"

    def value(self, table: Table) -> Counts:
        """Return it from the confusion matrix, "another class" being a class."""
        if not isinstance(table, BinaryTable | MulticlassTable):
            raise ValueError("the correlation is of one class at a time")
        whole = table.confusion
        labels, predictions = whole.sum(axis=-1), whole.sum(axis=-2)
        rows = whole.sum(axis=(-2, -1))
        together = np.trace(whole, axis1=-2, axis2=-1) * rows - (labels * predictions).sum(axis=-1)
        spread = (rows**2 - (labels**2).sum(axis=-1)) * (rows**2 - (predictions**2).sum(axis=-1))
        return ratio(together, np.sqrt(np.maximum(spread, 0.0)))
