"""Maximum mean discrepancy of embeddings: whether vectors are distributed as in the baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from monitors.contract import Column, Comparison, Kind, Parameters, Result, Subject, Type
from monitors.multivariate import (
    Floats,
    Places,
    Quiet,
    RowParameters,
    exponential_tail,
    features,
    permuted,
    quiet_blocks,
    rest_of,
    thinned_rows,
    vectors,
)
from monitors.null import student_tail

METRIC = "mmd"
MOST_ROWS = 1_000
"""Rows of each side: the kernel holds the square of their sum."""
BLOCK_ROWS = 300


class DiscrepancyParameters(RowParameters):
    """Which embeddings are looked at, and what counts."""

    min_effect: float = Field(
        0.01, ge=0, description="Least squared discrepancy that is reported, as a share of the largest possible (1)."
    )


class MaximumMeanDiscrepancy(Kind):
    """The unbiased squared discrepancy of each embedding under a Gaussian kernel as wide as the median distance."""

    name: ClassVar[str] = "mmd"
    title: ClassVar[str] = "Embeddings"
    source: ClassVar[str] = "Gretton, Borgwardt, Rasch, Schoelkopf and Smola (2012), a kernel two-sample test"
    told: ClassVar[tuple[str, str]] = ("embeddings", "moved")
    parameters: ClassVar[type[Parameters]] = DiscrepancyParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return the squared discrepancy of each embedding."""
        chosen = DiscrepancyParameters.model_validate(parameters.model_dump(by_alias=True))
        columns = features(comparison, chosen, (Type.EMBEDDING,))
        if not columns:
            return [Result(metric=METRIC, reason="the model has no embedding")]
        return [_measured(comparison, column, chosen) for column in columns]


def _measured(comparison: Comparison, column: Column, chosen: DiscrepancyParameters) -> Result:
    baseline, window = comparison.baseline_rows(), comparison.rows()
    nothing = np.empty((0, 0)), np.empty(0, np.int64)
    before, held = nothing if baseline is None else vectors(baseline, column.name)
    now, _ = nothing if window is None else vectors(window, column.name)
    subject = Subject(feature=column.label)
    result = Result(metric=METRIC, subject=subject, reason="-", n_window=len(now), n_baseline=len(before))
    fewest = min(len(now), len(before))
    if baseline is None or fewest < chosen.min_rows:
        return replace(result, reason=f"insufficient rows: {fewest} of {chosen.min_rows} have a vector")
    if before.shape[1] != now.shape[1]:
        return replace(result, reason=f"vectors of {now.shape[1]} numbers, in the baseline of {before.shape[1]}")
    generator = comparison.generator(METRIC, subject)
    old = before[thinned_rows(np.arange(len(before)), MOST_ROWS, generator)]
    new = now[thinned_rows(np.arange(len(now)), MOST_ROWS, generator)]
    value, p_value = tested(old, new, generator)
    quiet = quiet_blocks(comparison, baseline.take(held))
    if quiet.enough:
        p_value = max(p_value, _by_blocks(before, now, quiet, generator))
    return replace(
        result,
        value=value,
        reason="",
        baseline_value=0.0,
        effect=max(value, 0.0),
        min_effect=chosen.min_effect,
        p_value=p_value,
        note=quiet.note,
    )


def kernel(rows: Floats, width: float | None = None) -> Floats:
    """Return the Gaussian kernel exp(-d^2 / (2 w^2)) of rows with each other; w is the median distance unless given."""
    norms = (rows**2).sum(axis=1)
    squares = np.maximum(norms[:, None] + norms[None] - 2 * rows @ rows.T, 0.0)
    if width is None:
        apart = squares[np.triu_indices(len(rows), 1)]
        width = float(np.sqrt(np.median(apart))) if apart.size else 1.0
        width = width or float(np.sqrt(apart.mean())) or 1.0
    return np.asarray(np.exp(-squares / (2 * width**2)))


def squared(gram: Floats, new: Floats) -> Floats:
    """Return the unbiased squared discrepancy, shape (...,), of kernel values and flags of shape (..., rows).

    Flags are 1 for rows of the window and 0 for the baseline's. Twice a row with itself is left out; so the mean of the
    value is 0 where nothing changed, and it may be below.
    """
    flags = np.atleast_2d(new)
    n_new = flags.sum(axis=1)
    n_old = flags.shape[1] - n_new
    products = flags @ gram
    both = (products * flags).sum(axis=1)
    cross = products.sum(axis=1) - both
    rest = gram.sum() - both - 2 * cross
    diagonal = np.diag(gram)
    own = flags @ diagonal
    found = (both - own) / (n_new * (n_new - 1)) + (rest - (diagonal.sum() - own)) / (n_old * (n_old - 1))
    return np.asarray((found - 2 * cross / (n_new * n_old)).reshape(np.shape(new)[:-1]))


def tested(old: Floats, new: Floats, generator: np.random.Generator) -> tuple[float, float]:
    """Return the squared discrepancy of two samples and its p-value under the permutation of rows."""
    gram = kernel(np.concatenate([old, new]))
    flags = (np.arange(len(gram)) >= len(old)).astype(np.float64)
    value = float(squared(gram, flags))

    def draw(count: int) -> Floats:
        return squared(gram, generator.permuted(np.tile(flags, (count, 1)), axis=1))

    return value, permuted(value, draw, lambda draws: exponential_tail(value, draws))


def _by_blocks(before: Floats, now: Floats, quiet: Quiet, generator: np.random.Generator) -> float:
    """Return the chance of the window's discrepancy by the Student-t distribution of the blocks' against the rest."""
    size = int(min(len(now), np.median([places.size for places in quiet.blocks]), BLOCK_ROWS))

    def compared(one: Places, rest: Places, rows: Floats) -> float:
        new = rows[thinned_rows(one, size, generator)]
        old = before[thinned_rows(rest, 2 * size, generator)]
        flags = (np.arange(len(old) + len(new)) >= len(old)).astype(np.float64)
        return float(squared(kernel(np.concatenate([old, new])), flags))

    own = compared(np.arange(len(now)), np.arange(len(before)), now)
    others = [compared(places, rest_of(len(before), places), before) for places in quiet.blocks]
    return student_tail(own, np.array(others))
