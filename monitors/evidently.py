"""What Evidently's stat tests have in common: they are computed by Evidently itself, of the row samples.

Those that Plumbline has a statistic of the same name for begin with ``evidently_``. Their p-values take rows for
independent and some take the baseline as exact, so no alarm budget rests on them: they are shown, or judged by
thresholds (``threshold`` is Evidently's own).
"""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import Direction, RowStatistic, Type

BOTH = frozenset({Type.NUMERIC, Type.CATEGORICAL, Type.BOOLEAN})
NUMBERS = frozenset({Type.NUMERIC})
CATEGORIES = frozenset({Type.CATEGORICAL, Type.BOOLEAN})
TEXTS = frozenset({Type.TEXT})


@dataclass(frozen=True, kw_only=True)
class EvidentlyDistance(RowStatistic):
    """A distance: Evidently reports drift at or above the threshold."""

    source: ClassVar[str] = "Evidently 0.7.23, legacy.calculations.stattests"
    task: ClassVar[str] = "evidently.stat_tests"


@dataclass(frozen=True, kw_only=True)
class EvidentlyTest(EvidentlyDistance):
    """A test: Evidently reports drift where the p-value is below the threshold."""

    unit: ClassVar[str] = "p-value"
    direction: ClassVar[Direction] = Direction.LOWER_IS_WORSE
