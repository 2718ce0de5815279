"""Treatment equality: which mistakes are made about whom."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURABLE, FAVOURED, OTHER, UNFAVOURABLE, Facets, difference, divided


@dataclass(frozen=True, kw_only=True)
class TreatmentEquality(CountedBias):
    """FN_d / FP_d - FN_a / FP_a."""

    name: ClassVar[str] = "TE"
    title: ClassVar[str] = "Treatment equality"
    meaning: ClassVar[str] = "Above 0 mistakes about the group are more often to its disadvantage."
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    needs: ClassVar[frozenset[str]] = frozenset({"label", "prediction"})
    source: ClassVar[str] = "Berk et al. (2021); smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        both = facets.both
        rates = divided(both[..., FAVOURABLE, UNFAVOURABLE], both[..., UNFAVOURABLE, FAVOURABLE], quirky=self.quirky)
        return difference(rates[..., OTHER], rates[..., FAVOURED], quirky=self.quirky)
