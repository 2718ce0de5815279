"""Difference in conditional acceptance: who earned the favourable outcome against who gets it."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURABLE, FAVOURED, OTHER, Facets, difference, divided


@dataclass(frozen=True, kw_only=True)
class ConditionalAcceptance(CountedBias):
    """n_a(1) / n'_a(1) - n_d(1) / n'_d(1), favourable labels to favourable predictions."""

    name: ClassVar[str] = "DCA"
    title: ClassVar[str] = "Difference in conditional acceptance"
    meaning: ClassVar[str] = (
        "Below 0 the group earns the favourable outcome more often than it gets it, more so than the others."
    )
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    needs: ClassVar[frozenset[str]] = frozenset({"label", "prediction"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        both = facets.both
        rates = divided(both[..., FAVOURABLE, :].sum(axis=-1), both[..., FAVOURABLE].sum(axis=-1), quirky=self.quirky)
        return difference(rates[..., FAVOURED], rates[..., OTHER], quirky=self.quirky)
