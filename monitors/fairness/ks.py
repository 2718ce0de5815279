"""Largest difference of the share of a label between two groups."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import CountedBias, Counts, Direction, Stage
from monitors.facets import Facets, shares_of_labels


@dataclass(frozen=True, kw_only=True)
class LabelMaximum(CountedBias):
    """max |P_a - P_d| over labels, not of distribution functions; Clarify calls it Kolmogorov-Smirnov."""

    name: ClassVar[str] = "KS"
    title: ClassVar[str] = "Largest difference of a label's share"
    meaning: ClassVar[str] = "The label that differs most between the groups differs by so much."
    stage: ClassVar[Stage] = Stage.PRE_TRAINING
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        favoured, other = shares_of_labels(facets, quirky=self.quirky)
        return np.asarray(np.abs(favoured - other).max(axis=-1))
