"""Difference in conditional rejection: who earned the unfavourable outcome against who gets it."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURED, OTHER, UNFAVOURABLE, Facets, difference, divided


@dataclass(frozen=True, kw_only=True)
class ConditionalRejection(CountedBias):
    """n_d(0) / n'_d(0) - n_a(0) / n'_a(0), unfavourable labels to unfavourable predictions."""

    name: ClassVar[str] = "DCR"
    title: ClassVar[str] = "Difference in conditional rejection"
    meaning: ClassVar[str] = "Below 0 the group is rejected more often than it earns, more so than the others."
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    needs: ClassVar[frozenset[str]] = frozenset({"label", "prediction"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        both = facets.both
        rates = divided(
            both[..., UNFAVOURABLE, :].sum(axis=-1), both[..., UNFAVOURABLE].sum(axis=-1), quirky=self.quirky
        )
        return difference(rates[..., OTHER], rates[..., FAVOURED], quirky=self.quirky)
