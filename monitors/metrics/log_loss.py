"""Log loss: how surprised the scores are by the labels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import BinaryTable, MulticlassTable, Table

LEAST = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True)
class LogLoss(Metric):
    """The mean of -ln(score of the label), of scores that are probabilities; 0 is certain and right."""

    name: ClassVar[str] = "log_loss"
    title: ClassVar[str] = "Log loss"
    unit: ClassVar[str] = "nats"
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    tasks: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass"})
    needs_scores: ClassVar[bool] = True
    undefined: ClassVar[str] = "no row has both a score and a label"
    source: ClassVar[str] = "Good (1952); scikit-learn, log_loss"

    def value(self, table: Table) -> Counts:
        """Return it with each cell's mean score, at least 2e-16 away from 0 and 1."""
        if isinstance(table, BinaryTable):
            scores = np.clip(table.scores, LEAST, 1 - LEAST)
            surprise = -np.log1p(-scores) * table.scored[..., 0, :] - np.log(scores) * table.scored[..., 1, :]
            return ratio(surprise.sum(axis=-1), table.scored.sum(axis=(-2, -1)))
        if not isinstance(table, MulticlassTable):
            raise ValueError("log loss is of one class at a time")
        total, rows = np.zeros(table.labelled.shape), np.zeros(table.labelled.shape)
        for asked in table.asked.values():
            positives = asked.scored[..., 1, :]
            total = total - (np.log(np.clip(asked.scores, LEAST, 1 - LEAST)) * positives).sum(axis=-1)
            rows = rows + positives.sum(axis=-1)
        return ratio(total, rows)

    def applies(self, table: Table) -> bool:
        """Return whether the scores are probabilities."""
        return table.probabilities if isinstance(table, BinaryTable | MulticlassTable) else False
