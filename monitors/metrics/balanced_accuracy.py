"""Balanced accuracy: recall, each class alike however rare it is."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Metric
from monitors.ratios import ratio
from monitors.tables import BinaryTable, MulticlassTable, Table


@dataclass(frozen=True, kw_only=True)
class BalancedAccuracy(Metric):
    """The mean of the recalls of the classes that occur among the labels."""

    name: ClassVar[str] = "balanced_accuracy"
    title: ClassVar[str] = "Balanced accuracy"
    tasks: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass"})
    source: ClassVar[str] = "Brodersen and others (2010); scikit-learn, balanced_accuracy_score"

    def value(self, table: Table) -> Counts:
        """Return it; labels of "another class" are left out."""
        if not isinstance(table, BinaryTable | MulticlassTable):
            raise ValueError("balanced accuracy is of classes")
        whole = table.confusion if isinstance(table, BinaryTable) else table.confusion[..., :-1, :]
        recalls = ratio(np.diagonal(whole, axis1=-2, axis2=-1), whole.sum(axis=-1))
        there = ~np.isnan(recalls)
        return ratio(np.where(there, recalls, 0.0).sum(axis=-1), there.sum(axis=-1))
