"""Evidently's drift methods of embeddings by their names, called directly on the vectors of the row samples."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.evidently import EvidentlyEmbedding

DISTANCES = ("euclidean", "cosine", "cityblock", "chebyshev")


@dataclass(frozen=True, kw_only=True)
class EmbeddingModel(EvidentlyEmbedding):
    """ROC AUC of a linear classifier that tells the window's vectors from the baseline's, on half of the rows."""

    name: ClassVar[str] = "embedding_model"
    method: ClassVar[str] = "model"
    threshold: ClassVar[float] = 0.55


@dataclass(frozen=True, kw_only=True)
class EmbeddingDistance(EvidentlyEmbedding):
    """Distance of the window's mean vector from the baseline's: euclidean, cosine, cityblock or chebyshev."""

    name: ClassVar[str] = "embedding_distance"
    method: ClassVar[str] = "distance"
    threshold: ClassVar[float] = 0.2
    dist: str = "euclidean"

    def __post_init__(self) -> None:
        """Refuse a distance that Evidently does not have."""
        EvidentlyEmbedding.__post_init__(self)
        if self.dist not in DISTANCES:
            raise ValueError(f"dist must be one of {', '.join(DISTANCES)}, not {self.dist!r}")


@dataclass(frozen=True, kw_only=True)
class EmbeddingRatio(EvidentlyEmbedding):
    """Share of the components that drift, each by a stat test of Evidently's for numbers and its threshold."""

    name: ClassVar[str] = "embedding_ratio"
    method: ClassVar[str] = "ratio"
    threshold: ClassVar[float] = 0.2
    component_stattest: str = "wasserstein"
    component_stattest_threshold: float = 0.1


@dataclass(frozen=True, kw_only=True)
class EmbeddingMMD(EvidentlyEmbedding):
    """Squared maximum mean discrepancy under a Gaussian kernel, not below 0, on 1,000 vectors of each sample."""

    name: ClassVar[str] = "embedding_mmd"
    method: ClassVar[str] = "mmd"
    threshold: ClassVar[float] = 0.015
    most_rows: ClassVar[int] = 1000
