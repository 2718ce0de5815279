"""Champion and challenger on the same labelled rows: the difference of their mean losses, with a paired bootstrap."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
REPLICATES = 2000
CHUNK = 4_000_000
"""How many draws are held at once."""
LEAST_PROBABILITY = 1e-15


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of both on the same rows; a negative difference says that the challenger loses less."""

    metric: str
    champion: float
    challenger: float
    lower: float
    upper: float
    """The interval of challenger minus champion."""
    rows: int

    @property
    def difference(self) -> float:
        """The challenger's mean loss minus the champion's."""
        return self.challenger - self.champion

    @property
    def is_better(self) -> bool:
        """Whether the whole interval says that the challenger loses less."""
        return self.upper < 0


def compared(
    losses: Mapping[str, tuple[Numbers, Numbers]], generator: np.random.Generator, *, level: float = 0.95
) -> list[Difference]:
    """Return each metric's difference with its percentile interval of a bootstrap over rows.

    ``losses`` holds by metric the champion's and the challenger's loss of each row, shape (rows,). A row is drawn for
    both at once (Efron and Tibshirani 1993, chapter 13), so that what is hard for both does not widen the interval.
    """
    found = []
    for metric, (champion, challenger) in losses.items():
        gaps = challenger - champion
        means = _resampled_means(gaps, generator)
        lower, upper = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        found.append(
            Difference(
                metric=metric,
                champion=float(champion.mean()),
                challenger=float(challenger.mean()),
                lower=float(lower),
                upper=float(upper),
                rows=gaps.size,
            )
        )
    return found


def _resampled_means(values: Numbers, generator: np.random.Generator) -> Numbers:
    at_once = max(1, CHUNK // values.size)
    means = [
        values[generator.integers(0, values.size, (min(at_once, REPLICATES - done), values.size))].mean(axis=1)
        for done in range(0, REPLICATES, at_once)
    ]
    return np.concatenate(means)


def error_rate(truth: NDArray[np.str_], predicted: NDArray[np.str_]) -> Numbers:
    """Return the loss of each row whose mean is one minus the accuracy: 1 where the class is wrong."""
    return np.asarray(truth != predicted, np.float64)


def log_loss(is_positive: NDArray[np.bool_], score: Numbers) -> Numbers:
    """Return the negative logarithm of the probability that was given to what came, in nats."""
    given = np.where(is_positive, score, 1.0 - score)
    return np.asarray(-np.log(np.maximum(given, LEAST_PROBABILITY)), np.float64)


def absolute_error(truth: Numbers, predicted: Numbers) -> Numbers:
    """Return how far each prediction is from what came."""
    return np.asarray(np.abs(predicted - truth), np.float64)
