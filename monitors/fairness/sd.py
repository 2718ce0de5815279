"""Specificity difference: who of the undeserving is rejected."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURED, OTHER, UNFAVOURABLE, Facets, difference, divided


@dataclass(frozen=True, kw_only=True)
class SpecificityDifference(CountedBias):
    """TNR_d - TNR_a."""

    name: ClassVar[str] = "SD"
    title: ClassVar[str] = "Specificity difference"
    meaning: ClassVar[str] = "Above 0 the model rejects more of the undeserving in the group than in the others."
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"label", "prediction"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        both = facets.both
        rates = divided(
            both[..., UNFAVOURABLE, UNFAVOURABLE], both[..., UNFAVOURABLE, :].sum(axis=-1), quirky=self.quirky
        )
        return difference(rates[..., OTHER], rates[..., FAVOURED], quirky=self.quirky)
