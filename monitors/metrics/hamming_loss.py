"""Hamming loss: the share of labels that are wrong, of models that give several."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import MultilabelTable, Table


@dataclass(frozen=True, kw_only=True)
class HammingLoss(Metric):
    """The share of wrong answers over all rows and classes."""

    name: ClassVar[str] = "hamming_loss"
    title: ClassVar[str] = "Hamming loss"
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    tasks: ClassVar[frozenset[str]] = frozenset({"multilabel"})
    source: ClassVar[str] = "scikit-learn, hamming_loss"

    def value(self, table: Table) -> Counts:
        """Return it from the classes' tables."""
        if not isinstance(table, MultilabelTable):
            raise ValueError("the Hamming loss is of several labels at a time")
        wrong = sum(asked.fp + asked.fn for asked in table.asked.values())
        answers = sum(asked.confusion.sum(axis=(-2, -1)) for asked in table.asked.values())
        return ratio(np.asarray(wrong), np.asarray(answers))
