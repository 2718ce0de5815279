"""Disparate impact: the ratio of the shares of two groups that are accepted."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Direction, Stage
from monitors.facets import FAVOURABLE, FAVOURED, OTHER, Facets, divided


@dataclass(frozen=True, kw_only=True)
class DisparateImpact(CountedBias):
    """q'_d / q'_a, q' the share of the favourable prediction; judged on the absolute value of its logarithm."""

    name: ClassVar[str] = "DI"
    title: ClassVar[str] = "Disparate impact"
    meaning: ClassVar[str] = (
        "Below 1 the group gets the favourable outcome less often; under 0.8 the four-fifths rule is broken."
    )
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    unit: ClassVar[str] = "ratio"
    neutral: ClassVar[float] = 1.0
    direction: ClassVar[Direction] = Direction.DISTANCE_FROM_ONE
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs: ClassVar[frozenset[str]] = frozenset({"prediction"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5; 29 CFR 1607.4 (four-fifths rule)"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        shares = divided(facets.predictions[..., FAVOURABLE], facets.predictions.sum(axis=-1), quirky=False)
        return divided(shares[..., OTHER], shares[..., FAVOURED], quirky=self.quirky)
