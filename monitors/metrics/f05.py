"""F0.5: precision and recall in one, precision twice as much."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.metrics.f1 import F1


@dataclass(frozen=True, kw_only=True)
class F05(F1):
    """The weighted harmonic mean of precision and recall, precision counting twice."""

    name: ClassVar[str] = "f05"
    title: ClassVar[str] = "F0.5"
    beta: ClassVar[float] = 0.5
    decides: ClassVar[frozenset[str]] = frozenset()
