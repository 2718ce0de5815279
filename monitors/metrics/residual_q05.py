"""The 5 % residual: how far the lowest predictions are off."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.metrics.residual_median import ResidualMedian


@dataclass(frozen=True, kw_only=True)
class ResidualQ05(ResidualMedian):
    """What 5 % of prediction - label are at or below."""

    name: ClassVar[str] = "residual_q05"
    title: ClassVar[str] = "5 % residual"
    share: ClassVar[float] = 0.05
