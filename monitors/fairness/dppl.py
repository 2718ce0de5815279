"""Difference in proportions of predicted labels: whether one group is accepted more often."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURABLE, FAVOURED, OTHER, Facets, divided


@dataclass(frozen=True, kw_only=True)
class PredictedProportions(CountedBias):
    """q'_a - q'_d, q' the share of the favourable prediction."""

    name: ClassVar[str] = "DPPL"
    title: ClassVar[str] = "Difference in proportions of predictions"
    meaning: ClassVar[str] = "Above 0 the model gives the group the favourable outcome less often."
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"prediction"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        shares = divided(facets.predictions[..., FAVOURABLE], facets.predictions.sum(axis=-1), quirky=False)
        return np.asarray(shares[..., FAVOURED] - shares[..., OTHER])
