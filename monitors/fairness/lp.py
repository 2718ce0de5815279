"""Euclidean distance of the shares of labels of two groups."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import CountedBias, Counts, Direction, Stage
from monitors.facets import Facets, shares_of_labels


@dataclass(frozen=True, kw_only=True)
class LabelDistance(CountedBias):
    """The root of the sum of (P_a - P_d)^2."""

    name: ClassVar[str] = "LP"
    title: ClassVar[str] = "Lp-norm of labels (p = 2)"
    meaning: ClassVar[str] = "0 where both groups get the same labels, at most the root of 2."
    stage: ClassVar[Stage] = Stage.PRE_TRAINING
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, 1.4142135623730951)
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        favoured, other = shares_of_labels(facets, quirky=self.quirky)
        return np.asarray(np.sqrt(((favoured - other) ** 2).sum(axis=-1)))
