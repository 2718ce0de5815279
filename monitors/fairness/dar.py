"""Difference in acceptance rates: how many of the accepted deserve it."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import FAVOURABLE, FAVOURED, OTHER, Facets, difference, divided


@dataclass(frozen=True, kw_only=True)
class AcceptanceRates(CountedBias):
    """PPV_a - PPV_d."""

    name: ClassVar[str] = "DAR"
    title: ClassVar[str] = "Difference in acceptance rates"
    meaning: ClassVar[str] = "Above 0 fewer of those accepted in the group deserve it."
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"label", "prediction"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        both = facets.both
        rates = divided(both[..., FAVOURABLE, FAVOURABLE], both[..., FAVOURABLE].sum(axis=-1), quirky=self.quirky)
        return difference(rates[..., FAVOURED], rates[..., OTHER], quirky=self.quirky)
