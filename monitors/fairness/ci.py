"""Class imbalance: whether a group is under-represented."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURED, OTHER, Facets, divided


@dataclass(frozen=True, kw_only=True)
class ClassImbalance(CountedBias):
    """(n_a - n_d) / (n_a + n_d), of all rows."""

    name: ClassVar[str] = "CI"
    title: ClassVar[str] = "Class imbalance"
    meaning: ClassVar[str] = "Above 0 the group has fewer rows than those it is compared with; near 1 hardly any."
    stage: ClassVar[Stage] = Stage.PRE_TRAINING
    needs: ClassVar[frozenset[str]] = frozenset()
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        rows = facets.rows
        found = divided(rows[..., FAVOURED] - rows[..., OTHER], rows.sum(axis=-1), quirky=False)
        return np.where((rows > 0).all(axis=-1), found, np.nan)
