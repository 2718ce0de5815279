"""SageMaker's ChiSquared of categories: the p-value of the window's counts where the baseline's shares are exact."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import chdtrc

from monitors.contract import BinnedStatistic, Counts, Direction, Type

FEW, FEW_OF_TWO = 5.0, 10.0
"""Expected rows under which a category is rare; of two categories both must expect ten."""
MOST_RARE = 0.2


@dataclass(frozen=True, kw_only=True)
class SageMakerChiSquared(BinnedStatistic):
    """One-sample chi-square over the baseline's categories, rare ones merged until at most a fifth expects under 5.

    The baseline counts as exact, so it alarms on stable columns far more often than its threshold says; it is here to
    reproduce what Model Monitor shows. Categories that only the window has are not looked at. With fewer than two left
    nothing can be shown: 1, where Deequ has NaN, which violates nothing either.
    """

    name: ClassVar[str] = "sagemaker_chisquared"
    unit: ClassVar[str] = "p-value"
    unchanged: ClassVar[float] = 1.0
    direction: ClassVar[Direction] = Direction.LOWER_IS_WORSE
    source: ClassVar[str] = "Amazon SageMaker Model Monitor, categorical_drift_method ChiSquared; Deequ, Distance.scala"
    types: ClassVar[frozenset[Type]] = frozenset({Type.CATEGORICAL, Type.BOOLEAN})
    null: ClassVar[bool] = False

    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the p-value, shape (...,), of counts of shape (..., bins)."""
        old, new = np.broadcast_arrays(baseline, window)
        pairs = zip(old.reshape(-1, old.shape[-1]), new.reshape(-1, new.shape[-1]), strict=True)
        return np.array([_tail(one, other) for one, other in pairs]).reshape(old.shape[:-1])


def _tail(baseline: Counts, window: Counts) -> float:
    known = baseline > 0
    observed = window[known]
    expected = baseline[known] * (observed.sum() / baseline[known].sum())
    order = np.argsort(expected, kind="stable")
    expected, observed = expected[order], observed[order]
    while expected.size > 1 and _rare(expected):
        rest, merged = expected[2:], expected[0] + expected[1]
        place = int(np.searchsorted(rest, merged))
        observed = np.insert(observed[2:], place, observed[0] + observed[1])
        expected = np.insert(rest, place, merged)
    if expected.size < 2:
        return 1.0
    return float(chdtrc(expected.size - 1, (np.square(observed - expected) / expected).sum()))


def _rare(expected: Counts) -> bool:
    if expected.size == 2:
        return bool((expected < FEW_OF_TWO).any())
    return bool((expected < FEW).mean() > MOST_RARE)
