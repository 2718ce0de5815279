"""Total variation distance of the labels of two groups."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import CountedBias, Counts, Direction, Stage
from monitors.facets import Facets, shares_of_labels


@dataclass(frozen=True, kw_only=True)
class LabelVariation(CountedBias):
    """Half the sum of |P_a - P_d|."""

    name: ClassVar[str] = "TVD"
    title: ClassVar[str] = "Total variation distance of labels"
    meaning: ClassVar[str] = (
        "The share of rows whose label would have to change for both groups to get the same labels."
    )
    stage: ClassVar[Stage] = Stage.PRE_TRAINING
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        favoured, other = shares_of_labels(facets, quirky=self.quirky)
        return np.asarray(np.abs(favoured - other).sum(axis=-1) / 2)
