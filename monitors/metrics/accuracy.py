"""Accuracy: the share of rows that are answered right."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Metric
from monitors.ratios import ratio
from monitors.tables import BinaryTable, MulticlassTable, MultilabelTable, Table


@dataclass(frozen=True, kw_only=True)
class Accuracy(Metric):
    """The share of rows whose prediction is the label; of many labels, all of them (subset accuracy)."""

    name: ClassVar[str] = "accuracy"
    title: ClassVar[str] = "Accuracy"
    tasks: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "multilabel"})
    decides: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "multilabel"})
    source: ClassVar[str] = "scikit-learn, accuracy_score"

    def value(self, table: Table) -> Counts:
        """Return it; rows that are "another class" on both sides cannot be compared and are left out."""
        if isinstance(table, BinaryTable):
            return ratio(table.tp + table.tn, table.confusion.sum(axis=(-2, -1)))
        if isinstance(table, MulticlassTable):
            whole = table.confusion
            right = np.trace(whole[..., :-1, :-1], axis1=-2, axis2=-1)
            return ratio(right, whole.sum(axis=(-2, -1)) - whole[..., -1, -1])
        if isinstance(table, MultilabelTable):
            same = np.einsum("...iii->...", table.sizes)
            return ratio(same, table.sizes.sum(axis=(-3, -2, -1)))
        raise ValueError("accuracy is of classes, not of numbers")
