"""Expected calibration error: how far scores are from the share of positives that they promise."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import BinaryTable, MulticlassTable, Table


@dataclass(frozen=True, kw_only=True)
class ExpectedCalibrationError(Metric):
    """The mean distance between score and label's share over bins of equal width; of many classes, of the one given.

    Of n rows without any true error it is about 0.4 sqrt(bins / n) all the same, so compare windows of like size.
    """

    name: ClassVar[str] = "expected_calibration_error"
    title: ClassVar[str] = "Expected calibration error"
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    tasks: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass"})
    needs_scores: ClassVar[bool] = True
    undefined: ClassVar[str] = "no row has both a score and a label"
    source: ClassVar[str] = "Naeini, Cooper and Hauskrecht (2015); Guo and others (2017)"
    bins: int = 10

    def value(self, table: Table) -> Counts:
        """Return it; a score cell is in the bin of its mean."""
        if isinstance(table, BinaryTable):
            return self._of([(table.scores, table.scored)])
        if not isinstance(table, MulticlassTable):
            raise ValueError("calibration is of one class at a time")
        return self._of([(asked.scores, asked.cells[..., :2, 1, :-1]) for asked in table.asked.values()])

    def _of(self, parts: list[tuple[Counts, Counts]]) -> Counts:
        """Return it of mean scores, shape (cells,), and counts by label, shape (..., 2, cells)."""
        gap, rows = np.zeros(1), np.zeros(1)
        for scores, counts in parts:
            inside = np.eye(self.bins)[np.clip((scores * self.bins).astype(np.int64), 0, self.bins - 1)]
            everybody = counts.sum(axis=-2)
            gap = gap + (counts[..., 1, :] - everybody * scores) @ inside
            rows = rows + everybody.sum(axis=-1)
        return ratio(np.abs(gap).sum(axis=-1), rows[..., 0] if rows.shape == (1,) else rows)

    def applies(self, table: Table) -> bool:
        """Return whether the scores are probabilities."""
        return table.probabilities if isinstance(table, BinaryTable | MulticlassTable) else False
