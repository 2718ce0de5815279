"""Jensen-Shannon divergence of the labels of two groups."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import CountedBias, Counts, Direction, Stage
from monitors.facets import Facets, relative_entropy, shares_of_labels


@dataclass(frozen=True, kw_only=True)
class LabelMixtureDivergence(CountedBias):
    """(KL(P_a, P) + KL(P_d, P)) / 2 with P the mean of both."""

    name: ClassVar[str] = "JS"
    title: ClassVar[str] = "Jensen-Shannon divergence of labels"
    meaning: ClassVar[str] = "0 where both groups get the same labels, at most ln 2."
    stage: ClassVar[Stage] = Stage.PRE_TRAINING
    unit: ClassVar[str] = "nats"
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, 0.6931471805599453)
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        favoured, other = shares_of_labels(facets, quirky=self.quirky)
        middle = (favoured + other) / 2
        return np.asarray((relative_entropy(favoured, middle) + relative_entropy(other, middle)) / 2)
