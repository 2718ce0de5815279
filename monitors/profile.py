"""What is kept of a bucket of rows: counts, moments and sums that add up over buckets."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitors.layout import Layout


@dataclass(slots=True)
class NumericProfile:
    """A numeric column of n rows: ``count`` finite values in ``counts`` (with ``sums`` inside each cell), and the rest.

    ``missing`` counts null, NaN and absent values and, among them, ``non_finite`` and ``wrong_type`` those that came
    as something else. ``m2`` is the sum of squared deviations from ``mean``. ``minimum`` and ``maximum`` are +inf and
    -inf where count is 0.
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    count: int = 0
    missing: int = 0
    non_finite: int = 0
    wrong_type: int = 0
    minimum: float = float("inf")
    maximum: float = float("-inf")
    mean: float = 0.0
    m2: float = 0.0


@dataclass(slots=True)
class CategoryProfile:
    """A categorical column: ``counts`` per category of the layout, last the others; ``new`` names the most frequent others."""

    counts: NDArray[np.int64]
    count: int = 0
    missing: int = 0
    wrong_type: int = 0
    new: dict[str, int] = field(default_factory=dict)
    distinct: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """The smallest 256 hashes of the values seen: an estimate of how many distinct ones there are."""


@dataclass(slots=True)
class Profile:
    """All columns of some rows under one layout; profiles of the same layout add up."""

    layout: Layout
    rows: int = 0
    first_us: int | None = None
    last_us: int | None = None
    columns: dict[str, NumericProfile | CategoryProfile] = field(default_factory=dict)
    outcomes: dict[str, NDArray[np.float64]] = field(default_factory=dict)
