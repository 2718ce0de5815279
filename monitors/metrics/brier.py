"""Brier score: the squared distance of the scores from what happened."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import BinaryTable, MulticlassTable, Table


@dataclass(frozen=True, kw_only=True)
class Brier(Metric):
    """The mean squared distance of probabilities from the label (0 or 1); of many classes summed over them."""

    name: ClassVar[str] = "brier"
    title: ClassVar[str] = "Brier score"
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, 2.0)
    tasks: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass"})
    needs_scores: ClassVar[bool] = True
    undefined: ClassVar[str] = "no row has both a score and a label"
    source: ClassVar[str] = "Brier (1950); scikit-learn, brier_score_loss"

    def value(self, table: Table) -> Counts:
        """Return it with each cell's mean score; a row of many classes counts where its score of one is known."""
        if isinstance(table, BinaryTable):
            return ratio(_squares(table), table.scored.sum(axis=(-2, -1)))
        if not isinstance(table, MulticlassTable):
            raise ValueError("the Brier score is of one class at a time")
        parts = [ratio(_squares(asked), asked.scored.sum(axis=(-2, -1))) for asked in table.asked.values()]
        return np.asarray(sum(parts)) if parts else np.full(table.labelled.shape, np.nan)

    def applies(self, table: Table) -> bool:
        """Return whether the scores are probabilities."""
        return table.probabilities if isinstance(table, BinaryTable | MulticlassTable) else False


def _squares(table: BinaryTable) -> Counts:
    """Return the summed squares of the distances, shape (...,)."""
    missed = table.scores**2 * table.scored[..., 0, :] + (1 - table.scores) ** 2 * table.scored[..., 1, :]
    return np.asarray(missed.sum(axis=-1))
