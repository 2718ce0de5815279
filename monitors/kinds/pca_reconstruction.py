"""PCA reconstruction error: whether columns still move together as they did in the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from monitors.contract import Column, Comparison, Direction, Kind, Parameters, Result, Subject, Type
from monitors.multivariate import (
    NUMBERS,
    Floats,
    RowParameters,
    counts_of,
    features,
    mean_difference,
    numbers,
    quiet_blocks,
    texts,
    thinned_rows,
)
from monitors.null import student_tail

METRIC = "pca_reconstruction_error"
SEED = 16
"""NannyML's; scikit-learn uses it only where it approximates, for more than 500 columns."""


class ReconstructionParameters(RowParameters):
    """Which columns are taken together, how much of their variance is kept, and what counts."""

    components: float = Field(0.65, gt=0, lt=1, description="Share of the variance that the components explain.")
    min_effect: float = Field(
        0.1, ge=0, description="Least change of the mean error that is reported, in its standard deviations of a row."
    )


@dataclass(frozen=True)
class Reconstruction:
    """Principal components of a baseline as NannyML 0.13 makes them, and the distance of rows from them.

    Categories become their number of rows in the baseline (0 where it has none), missing numbers the baseline's mean,
    missing categories its most frequent one; columns are standardised, and the fewest components kept that explain
    ``share`` of the variance. The error of a row is its Euclidean distance from what the components give back.
    """

    columns: tuple[Column, ...]
    counts: Mapping[str, Mapping[str, int]]
    filled: Floats
    means: Floats
    scales: Floats
    components: Floats
    centre: Floats

    @classmethod
    def fit(cls, columns: Sequence[Column], rows: pa.Table, share: float = 0.65) -> Reconstruction:
        """Return the components of rows, given in the lake's columns."""
        from sklearn.decomposition import PCA

        counts: dict[str, Mapping[str, int]] = {}
        filled = np.zeros(len(columns))
        for place, column in enumerate(columns):
            if column.type in NUMBERS:
                values = numbers(rows, column.name)
                filled[place] = float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
                continue
            found = texts(rows, column.name)
            known = counts_of(found)
            usual = next(iter(known), None)
            if usual is not None:
                known[usual] += sum(value is None for value in found)
            counts[column.name] = known
            filled[place] = known[usual] if usual is not None else 0.0
        raw = cls(tuple(columns), counts, filled, filled, filled, filled, filled)
        encoded = raw.encoded(rows)
        means, scales = encoded.mean(axis=0), encoded.std(axis=0)
        scales = np.where(scales > 10 * np.finfo(np.float64).eps, scales, 1.0)
        fitted = PCA(n_components=share, random_state=SEED).fit((encoded - means) / scales)
        return cls(tuple(columns), counts, filled, means, scales, fitted.components_, fitted.mean_)

    def encoded(self, rows: pa.Table) -> Floats:
        """Return rows as numbers, shape (rows, columns), nothing missing."""
        parts = []
        for place, column in enumerate(self.columns):
            if column.type in NUMBERS:
                values = numbers(rows, column.name)
                parts.append(np.where(np.isnan(values), self.filled[place], values))
            else:
                known = self.counts[column.name]
                found = texts(rows, column.name)
                parts.append(
                    np.array([self.filled[place] if value is None else known.get(value, 0) for value in found], float)
                )
        return np.column_stack(parts)

    def errors(self, rows: pa.Table) -> Floats:
        """Return the error of each row; NannyML's figure of a chunk is their mean."""
        scaled = (self.encoded(rows) - self.means) / self.scales
        kept = (scaled - self.centre) @ self.components.T
        return np.asarray(np.linalg.norm(scaled - (kept @ self.components + self.centre), axis=1))


class PcaReconstruction(Kind):
    """The mean distance of rows from the principal components of the baseline; up and down are both a change."""

    name: ClassVar[str] = "pca_reconstruction"
    title: ClassVar[str] = "PCA reconstruction"
    source: ClassVar[str] = "NannyML 0.13, data reconstruction with PCA"
    told: ClassVar[tuple[str, str]] = ("comparisons", "moved")
    parameters: ClassVar[type[Parameters]] = ReconstructionParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return the mean error of the window's row sample, judged by rows and by blocks of the baseline."""
        chosen = ReconstructionParameters.model_validate(parameters.model_dump(by_alias=True))
        baseline, window = comparison.baseline_rows(), comparison.rows()
        columns = features(comparison, chosen, (*NUMBERS, Type.CATEGORICAL))
        if baseline is None or window is None:
            return [_unmeasured("no rows are kept of the baseline" if baseline is None else "no row came", 0, 0)]
        sizes = (window.num_rows, baseline.num_rows)
        if len(columns) < 2:
            return [_unmeasured(f"needs two columns, there are {len(columns)}", *sizes)]
        if min(window.num_rows, baseline.num_rows // 2) < chosen.min_rows:
            return [_unmeasured(f"insufficient rows: {min(sizes)} of {chosen.min_rows}", *sizes)]
        generator = comparison.generator(METRIC, Subject())
        whole = Reconstruction.fit(columns, baseline, chosen.components)
        before, now = whole.errors(baseline), whole.errors(window)
        spread = max(float(before.std(ddof=1)), 1e-12)
        p_value, note = _p_value(comparison, columns, baseline, window, chosen.components, generator)
        return [
            Result(
                metric=METRIC,
                value=float(now.mean()),
                baseline_value=float(before.mean()),
                interval=_interval(now),
                effect=abs(float(now.mean() - before.mean())) / spread,
                min_effect=chosen.min_effect,
                p_value=p_value,
                direction=Direction.HIGHER_IS_WORSE,
                n_window=window.num_rows,
                n_baseline=baseline.num_rows,
                unit="standard deviations",
                note=note,
            )
        ]


def _interval(errors: Floats) -> tuple[float, float]:
    half = 1.96 * float(errors.std(ddof=1)) / np.sqrt(errors.size)
    return float(errors.mean()) - half, float(errors.mean()) + half


def _p_value(
    comparison: Comparison,
    columns: Sequence[Column],
    baseline: pa.Table,
    window: pa.Table,
    share: float,
    generator: np.random.Generator,
) -> tuple[float, str]:
    """Return the chance of so large a change and what it assumes.

    The components of one half of the baseline's rows are compared on the other half, which they have not seen, and on
    the window: rows of both are exchangeable if nothing changed. With blocks, the window's mean is judged against the
    Student-t predictive distribution of the blocks' means too, blocks thinned to the window's size where it is smaller.
    """
    half = np.sort(generator.permutation(baseline.num_rows)[: baseline.num_rows // 2])
    fitted = Reconstruction.fit(columns, baseline.take(pa.array(half)), share)
    unseen = np.ones(baseline.num_rows, np.bool_)
    unseen[half] = False
    held, now = fitted.errors(baseline.filter(pa.array(unseen))), fitted.errors(window)
    by_rows = mean_difference(held, now, generator)
    quiet = quiet_blocks(comparison, baseline)
    if not quiet.enough:
        return by_rows, quiet.note
    errors = fitted.errors(baseline)
    means = np.array([errors[thinned_rows(places, now.size, generator)].mean() for places in quiet.blocks])
    upper, lower = student_tail(float(now.mean()), means), student_tail(-float(now.mean()), -means)
    return max(by_rows, min(1.0, 2 * min(upper, lower))), ""


def _unmeasured(reason: str, n_window: int, n_baseline: int, **more: Any) -> Result:
    return Result(metric=METRIC, reason=reason, n_window=n_window, n_baseline=n_baseline, **more)
