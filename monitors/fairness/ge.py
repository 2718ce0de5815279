"""Generalised entropy: how unequally the model deals out benefit, whatever the group."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import CountedBias, Counts, Direction, Stage
from monitors.facets import FAVOURABLE, UNFAVOURABLE, Facets, divided


@dataclass(frozen=True, kw_only=True)
class GeneralisedEntropy(CountedBias):
    """The mean of ((b / mean b)^2 - 1) / 2 over rows, benefit b = prediction - label + 1; the same for every group."""

    name: ClassVar[str] = "GE"
    title: ClassVar[str] = "Generalised entropy (alpha = 2)"
    meaning: ClassVar[str] = "0 where everybody gets what he earned; grows with undeserved benefit and loss."
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs: ClassVar[frozenset[str]] = frozenset({"label", "prediction"})
    per_group: ClassVar[bool] = False
    source: ClassVar[str] = "Speicher et al. (2018); smclarify 0.5"

    def value(self, facets: Facets) -> Counts:
        """Return the metric, shape (...,)."""
        whole = facets.both.sum(axis=-3)
        rows = whole.sum(axis=(-2, -1))
        lucky = whole[..., UNFAVOURABLE, FAVOURABLE]
        right = whole[..., FAVOURABLE, FAVOURABLE] + whole[..., UNFAVOURABLE, UNFAVOURABLE]
        mean = divided(right + 2 * lucky, rows, quirky=False)
        squares = divided(right + 4 * lucky, rows, quirky=False)
        return np.asarray((divided(squares, mean**2, quirky=False) - 1) / 2)
