"""Global importance: the mean absolute attribution of each player over rows, with bootstrap intervals."""

from dataclasses import dataclass

import numpy as np

from explainers.contract import Numbers

REPLICATES = 500
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Importances:
    """Mean absolute attributions, their intervals at 95 %, and the signed means; one number per player."""

    mean: list[float]
    low: list[float]
    high: list[float]
    signed: list[float]


def importances(values: Numbers, *, seed: int, replicates: int = REPLICATES) -> Importances:
    """Return the importances of attributions of shape (rows, players); whole rows are drawn in the bootstrap."""
    size = np.abs(values)
    rows = len(values)
    generator = np.random.default_rng([seed, 0x1A9])
    drawn = generator.multinomial(rows, np.full(rows, 1 / rows), size=replicates) @ size / rows
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Importances(
        mean=size.mean(axis=0).tolist(),
        low=low.tolist(),
        high=high.tolist(),
        signed=values.mean(axis=0).tolist(),
    )
