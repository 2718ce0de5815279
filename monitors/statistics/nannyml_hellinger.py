"""NannyML's Hellinger distance of a number, in its own bins."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts
from monitors.nannyml import SOURCE, NannyMLStatistic, doane_shares


@dataclass(frozen=True, kw_only=True)
class NannyMLHellinger(NannyMLStatistic):
    """Hellinger distance over Doane's bins of the baseline and one for what lies outside of them."""

    name: ClassVar[str] = "nannyml_hellinger"
    source: ClassVar[str] = f"{SOURCE}; Doane (1976)"

    def compared(self, baseline: Counts, window: Counts, positions: Counts) -> float:
        """Return the distance, from 0 to 1."""
        expected, actual = doane_shares(baseline, window, positions, doane=True)
        return float(np.sqrt(np.square(np.sqrt(expected) - np.sqrt(actual)).sum() / 2))
