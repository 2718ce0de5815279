"""Division of counts where nothing may be divided by: NaN there, and no warning."""

import numpy as np

from monitors.contract import Counts


def ratio(part: Counts | float, whole: Counts) -> Counts:
    """Return part / whole, NaN where the whole is 0."""
    whole = np.asarray(whole, np.float64)
    shape = np.broadcast_shapes(np.shape(part), whole.shape)
    found = np.full(shape, np.nan)
    return np.asarray(np.divide(part, whole, out=found, where=np.broadcast_to(whole != 0, shape)))
