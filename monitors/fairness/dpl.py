"""Difference in proportions of labels: whether one group gets the favourable label more often."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURABLE, FAVOURED, OTHER, Facets, divided


@dataclass(frozen=True, kw_only=True)
class LabelProportions(CountedBias):
    """q_a - q_d, q the share of the favourable label."""

    name: ClassVar[str] = "DPL"
    title: ClassVar[str] = "Difference in proportions of labels"
    meaning: ClassVar[str] = "Above 0 the group gets the favourable label less often than those it is compared with."
    stage: ClassVar[Stage] = Stage.PRE_TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        shares = divided(facets.labels[..., FAVOURABLE], facets.labels.sum(axis=-1), quirky=False)
        return np.asarray(shares[..., FAVOURED] - shares[..., OTHER])
