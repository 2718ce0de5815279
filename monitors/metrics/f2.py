"""F2: precision and recall in one, recall twice as much."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.metrics.f1 import F1


@dataclass(frozen=True, kw_only=True)
class F2(F1):
    """The weighted harmonic mean of precision and recall, recall counting twice."""

    name: ClassVar[str] = "f2"
    title: ClassVar[str] = "F2"
    beta: ClassVar[float] = 2.0
    decides: ClassVar[frozenset[str]] = frozenset()
