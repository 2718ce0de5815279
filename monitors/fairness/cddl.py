"""Conditional demographic disparity of labels: whether a group is rejected more than accepted."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Stage
from monitors.facets import Facets, conditional_disparity


@dataclass(frozen=True, kw_only=True)
class ConditionalLabelDisparity(CountedBias):
    """The mean over values of the group variable of the group's share among the rejected minus among the accepted."""

    name: ClassVar[str] = "CDDL"
    title: ClassVar[str] = "Conditional demographic disparity of labels"
    meaning: ClassVar[str] = (
        "Above 0 the group makes up more of the rejected than of the accepted, at equal group variable."
    )
    stage: ClassVar[Stage] = Stage.PRE_TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"label", "stratum"})
    source: ClassVar[str] = "Wachter, Mittelstadt and Russell (2021); smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        return conditional_disparity(facets.by_stratum("label"))
