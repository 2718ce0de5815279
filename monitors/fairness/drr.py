"""Difference in rejection rates: how many of the rejected deserve it."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURED, OTHER, UNFAVOURABLE, Facets, difference, divided


@dataclass(frozen=True, kw_only=True)
class RejectionRates(CountedBias):
    """NPV_d - NPV_a."""

    name: ClassVar[str] = "DRR"
    title: ClassVar[str] = "Difference in rejection rates"
    meaning: ClassVar[str] = "Above 0 more of those rejected in the group deserve it than among the others."
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"label", "prediction"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        both = facets.both
        rates = divided(both[..., UNFAVOURABLE, UNFAVOURABLE], both[..., UNFAVOURABLE].sum(axis=-1), quirky=self.quirky)
        return difference(rates[..., OTHER], rates[..., FAVOURED], quirky=self.quirky)
