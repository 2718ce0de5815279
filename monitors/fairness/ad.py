"""Accuracy difference: for whom the model is more often right."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURABLE, FAVOURED, OTHER, UNFAVOURABLE, Facets, difference, divided


@dataclass(frozen=True, kw_only=True)
class AccuracyDifference(CountedBias):
    """ACC_a - ACC_d."""

    name: ClassVar[str] = "AD"
    title: ClassVar[str] = "Accuracy difference"
    meaning: ClassVar[str] = "Above 0 the model is wrong more often about the group."
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"label", "prediction"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        both = facets.both
        rates = divided(
            both[..., FAVOURABLE, FAVOURABLE] + both[..., UNFAVOURABLE, UNFAVOURABLE],
            both.sum(axis=(-2, -1)),
            quirky=self.quirky,
        )
        return difference(rates[..., FAVOURED], rates[..., OTHER], quirky=self.quirky)
