"""ROC AUC: how often a positive is scored above a negative."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import ClassMetric, Counts
from monitors.ratios import ratio
from monitors.tables import BinaryTable


@dataclass(frozen=True, kw_only=True)
class RocAuc(ClassMetric):
    """The area under the ROC curve; 0.5 says that scores are at random. Equal scores count half."""

    name: ClassVar[str] = "roc_auc"
    title: ClassVar[str] = "ROC AUC"
    decides: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "multilabel"})
    needs_scores: ClassVar[bool] = True
    averages: ClassVar[tuple[str, ...]] = ("macro", "weighted")
    undefined: ClassVar[str] = "scored rows have only one label"
    source: ClassVar[str] = "Hanley and McNeil (1982); scikit-learn, roc_auc_score"

    def of(self, table: BinaryTable) -> Counts:
        """Return the share of pairs in order, those inside one score cell counted half."""
        negatives, positives = table.scored[..., 0, :], table.scored[..., 1, :]
        below = np.cumsum(negatives, axis=-1) - negatives / 2
        pairs = positives.sum(axis=-1) * negatives.sum(axis=-1)
        return ratio((positives * below).sum(axis=-1), pairs)
