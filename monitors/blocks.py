"""The counts of equal spans of a quiet stream, side by side: what says how much windows differ when nothing is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


@dataclass(frozen=True)
class Blocks:
    """Counts of shape (blocks, cells) per column of the layout, and the missing and row counts of each block."""

    counts: Mapping[str, csr_array]
    missing: Mapping[str, NDArray[np.int64]]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of blocks."""
        return int(self.rows.size)

    def dense(self, column: str) -> NDArray[np.float64]:
        """Return the column's counts, shape (blocks, cells)."""
        return np.asarray(self.counts[column].toarray(), dtype=np.float64)
