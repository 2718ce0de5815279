"""Recall difference: who of the deserving is accepted (equal opportunity)."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURABLE, FAVOURED, OTHER, Facets, difference, divided


@dataclass(frozen=True, kw_only=True)
class RecallDifference(CountedBias):
    """TPR_a - TPR_d."""

    name: ClassVar[str] = "RD"
    title: ClassVar[str] = "Recall difference"
    meaning: ClassVar[str] = "Above 0 the model finds fewer of the deserving in the group."
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"label", "prediction"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        both = facets.both
        rates = divided(both[..., FAVOURABLE, FAVOURABLE], both[..., FAVOURABLE, :].sum(axis=-1), quirky=self.quirky)
        return difference(rates[..., FAVOURED], rates[..., OTHER], quirky=self.quirky)
