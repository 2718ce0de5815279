"""NannyML's Jensen-Shannon distance of a number, in its own bins."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.contract import Counts
from monitors.nannyml import SOURCE, NannyMLStatistic, doane_shares


@dataclass(frozen=True, kw_only=True)
class NannyMLJensenShannon(NannyMLStatistic):
    """Jensen-Shannon distance, base 2, over Doane's bins of the baseline and one for what lies outside of them.

    A number of at most 50 distinct values, being at most a tenth of the rows, has a bin per value.
    """

    name: ClassVar[str] = "nannyml_jensen_shannon"
    source: ClassVar[str] = f"{SOURCE}; Doane (1976)"

    def compared(self, baseline: Counts, window: Counts, positions: Counts) -> float:
        """Return the distance, from 0 to 1."""
        expected, actual = doane_shares(baseline, window, positions)
        middle = (expected + actual) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [np.where(part > 0, part * np.log2(part / middle), 0.0).sum() for part in (expected, actual)]
        return float(np.sqrt(max(sum(parts) / 2, 0.0)))
