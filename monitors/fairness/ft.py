"""Flip test: who would be treated differently in the other group."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import SampledBias, Stage
from monitors.facets import FacetSample


@dataclass(frozen=True, kw_only=True)
class FlipTest(SampledBias):
    """(F+ - F-) / n_d, of the rows of group d whose nearest neighbours in group a mostly fare otherwise.

    F+ got the unfavourable outcome and their neighbours the favourable one, F- the reverse. Neighbours are the five
    nearest (one where a has at most nine rows) by Euclidean distance of the numeric features as they are; features with
    missing values are left out.
    """

    name: ClassVar[str] = "FT"
    title: ClassVar[str] = "Flip test"
    meaning: ClassVar[str] = "Above 0 more of the group would gain than lose if they belonged to the others."
    stage: ClassVar[Stage] = Stage.POST_TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"prediction"})
    source: ClassVar[str] = "Black, Yeom and Fredrikson (2020); smclarify 0.5"

    def value(self, sample: FacetSample) -> tuple[float, float]:
        """Return the metric and the standard error of the mean flip; smclarify has the opposite sign."""
        from sklearn.neighbors import KNeighborsClassifier

        favoured, other = ~sample.other, sample.other
        if not sample.features.shape[1] or not favoured.any() or not other.any():
            return float("nan"), float("nan")
        neighbours = KNeighborsClassifier(n_neighbors=5 if favoured.sum() > 9 else 1)
        neighbours.fit(sample.features[favoured], sample.favourable[favoured])
        elsewhere = neighbours.predict(sample.features[other])
        flips = elsewhere.astype(np.float64) - sample.favourable[other]
        flips = -flips if self.quirky else flips
        return float(flips.mean()), float(flips.std() / np.sqrt(flips.size))
