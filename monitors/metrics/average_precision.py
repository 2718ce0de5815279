"""Average precision: the area under the precision-recall curve, in steps."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import ClassMetric, Counts
from monitors.ratios import ratio
from monitors.tables import BinaryTable


@dataclass(frozen=True, kw_only=True)
class AveragePrecision(ClassMetric):
    """The mean precision over the positives, from the highest score down; at random it is their share."""

    name: ClassVar[str] = "average_precision"
    title: ClassVar[str] = "Average precision"
    needs_scores: ClassVar[bool] = True
    averages: ClassVar[tuple[str, ...]] = ("macro", "weighted")
    undefined: ClassVar[str] = "no scored row has the label"
    source: ClassVar[str] = "scikit-learn, average_precision_score"

    def of(self, table: BinaryTable) -> Counts:
        """Return it, a score cell being one step of the curve."""
        positives = table.scored[..., 1, ::-1]
        called = np.cumsum(table.scored.sum(axis=-2)[..., ::-1], axis=-1)
        precision = np.divide(np.cumsum(positives, axis=-1), called, out=np.zeros_like(called), where=called > 0)
        return ratio((precision * positives).sum(axis=-1), positives.sum(axis=-1))
