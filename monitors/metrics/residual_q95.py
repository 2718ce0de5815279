"""The 95 % residual: how far the highest predictions are off."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.metrics.residual_median import ResidualMedian


@dataclass(frozen=True, kw_only=True)
class ResidualQ95(ResidualMedian):
    """What 95 % of prediction - label are at or below."""

    name: ClassVar[str] = "residual_q95"
    title: ClassVar[str] = "95 % residual"
    share: ClassVar[float] = 0.95
