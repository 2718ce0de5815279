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
EMBEDDINGS = frozenset({Type.EMBEDDING})


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


@dataclass(frozen=True, kw_only=True)
class EvidentlyEmbedding(EvidentlyDistance):
    """A method over whole vectors, or over the first so many of the baseline's principal components (0: all)."""

    source: ClassVar[str] = "Evidently 0.7.23, legacy.metrics.data_drift.embedding_drift_methods"
    task: ClassVar[str] = "evidently.embedding_drift"
    types: ClassVar[frozenset[Type]] = EMBEDDINGS
    pca_components: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no number of components."""
        if type(self.pca_components) is not int or self.pca_components < 0:
            raise ValueError(f"pca_components must be a whole number from 0 on, not {self.pca_components!r}")
