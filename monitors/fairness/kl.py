"""Kullback-Leibler divergence of the labels of two groups."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import CountedBias, Counts, Direction, Stage
from monitors.facets import Facets, relative_entropy, shares_of_labels


@dataclass(frozen=True, kw_only=True)
class LabelDivergence(CountedBias):
    """The sum over labels of P_a ln(P_a / P_d); infinite, so not measured, where group d lacks a label that a has."""

    name: ClassVar[str] = "KL"
    title: ClassVar[str] = "Kullback-Leibler divergence of labels"
    meaning: ClassVar[str] = "0 where both groups get the same labels; grows as they differ."
    stage: ClassVar[Stage] = Stage.PRE_TRAINING
    unit: ClassVar[str] = "nats"
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    source: ClassVar[str] = "Amazon SageMaker Clarify; smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the divergence, shape (...,); with smclarify's support it can be negative."""
        return relative_entropy(*shares_of_labels(facets, quirky=self.quirky))
