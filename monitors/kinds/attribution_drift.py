"""Attribution drift: whether what the model's predictions rest on has changed, by rank (NDCG) and by size."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from monitors.contract import (
    Comparison,
    Direction,
    Kind,
    Parameters,
    Result,
    Rule,
    Subject,
    Verdict,
)

Numbers = NDArray[np.float64]
PREFIX = "attributions."
ALARM = 0.90
"""SageMaker's own threshold."""
DRAWS = 999
MOST_DRAWS = 9_999
ENOUGH = 20
AT_ONCE = 100


class AttributionParameters(Parameters):
    """What counts as a change of what predictions rest on."""

    min_effect: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the importance that has to move between inputs, what chance moves already subtracted."""
    min_rows: Annotated[int, Field(ge=2)] = 50
    ndcg: Annotated[float, Field(gt=0, le=1)] = ALARM
    """NDCG below it is a violation, as in SageMaker."""


class AttributionDrift(Kind):
    """Compares the mean absolute attributions of the window's row sample with the baseline's.

    `ndcg` is SageMaker's rank measure, judged by its threshold. `attribution_shift` is half the summed difference of
    the importances as shares (0: equal, 1: they rest on other inputs altogether), judged by permuting the rows of
    baseline and window; it sees what ranks do not. Attributions posted with predictions are used as they are, else
    the version's artifact is explained.
    """

    name: ClassVar[str] = "attribution_drift"
    title: ClassVar[str] = "Attribution drift"
    source: ClassVar[str] = "Amazon SageMaker Model Monitor, feature attribution drift; permutation test"
    told: ClassVar[tuple[str, str]] = ("measures", "changed")
    page: ClassVar[str] = "explain"
    needs_attributions: ClassVar[bool] = True
    parameters: ClassVar[type[Parameters]] = AttributionParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return both measures and, without a verdict, the importance of each input."""
        assert isinstance(parameters, AttributionParameters)  # noqa: S101 - the kind's own
        window, baseline = attributions(comparison.rows()), attributions(comparison.baseline_rows())
        reason = _reason(window, baseline, parameters.min_rows)
        if reason or window is None or baseline is None:
            return [
                Result(metric="ndcg", reason=reason, direction=Direction.LOWER_IS_WORSE),
                Result(metric="attribution_shift", reason=reason),
            ]
        names = [name for name in baseline[0] if name in window[0]]
        now = np.abs(window[1][:, [window[0].index(name) for name in names]])
        before = np.abs(baseline[1][:, [baseline[0].index(name) for name in names]])
        return [
            self._ranks(before, now, parameters),
            self._sizes(comparison, before, now, parameters),
            *(
                Result(
                    metric="attribution_importance",
                    subject=Subject(feature=name),
                    value=float(now[:, place].mean()),
                    baseline_value=float(before[:, place].mean()),
                    decides=False,
                    verdict=None,
                    n_window=len(now),
                    n_baseline=len(before),
                )
                for place, name in enumerate(names)
            ),
        ]

    def _ranks(self, before: Numbers, now: Numbers, parameters: AttributionParameters) -> Result:
        value = ndcg(before.mean(axis=0), now.mean(axis=0))
        if value is None:
            reason = "every importance of the baseline is 0, so there is no order of them"
            return Result(metric="ndcg", reason=reason, direction=Direction.LOWER_IS_WORSE)
        return Result(
            metric="ndcg",
            value=value,
            direction=Direction.LOWER_IS_WORSE,
            threshold=parameters.ndcg,
            rule=Rule.SAGEMAKER,
            verdict=Verdict.VIOLATED if value < parameters.ndcg else Verdict.OK,
            n_window=len(now),
            n_baseline=len(before),
        )

    def _sizes(self, found: Comparison, before: Numbers, now: Numbers, parameters: AttributionParameters) -> Result:
        value = float(shift(before.mean(axis=0), now.mean(axis=0)))
        generator = found.generator("attribution_shift", Subject())
        p_value, chance = permuted(before, now, value, generator)
        return Result(
            metric="attribution_shift",
            value=value,
            effect=max(value - chance, 0.0),
            min_effect=parameters.min_effect,
            p_value=p_value,
            n_window=len(now),
            n_baseline=len(before),
            note="rows are taken as independent",
        )


def ndcg(baseline: Numbers, window: Numbers) -> float | None:
    """Return SageMaker's normalised discounted cumulative gain of the window's order of importances, at most 1.

    The gain of each input is its baseline importance, discounted by log2(rank + 1); ties keep the baseline's order.
    None where every baseline importance is 0.
    """
    discount = 1 / np.log2(np.arange(2, baseline.size + 2))
    ideal = float((np.sort(baseline)[::-1] * discount).sum())
    if ideal <= 0:
        return None
    order = np.lexsort((-baseline, -window))
    return float((baseline[order] * discount).sum() / ideal)


def shift(baseline: Numbers, window: Numbers) -> Numbers:
    """Return half the summed difference of importances as shares, shape (...,), of importances (..., inputs)."""
    total_before, total_now = baseline.sum(axis=-1, keepdims=True), window.sum(axis=-1, keepdims=True)
    before = baseline / np.where(total_before > 0, total_before, 1.0)
    now = window / np.where(total_now > 0, total_now, 1.0)
    return np.asarray(np.abs(now - before).sum(axis=-1) / 2)


def permuted(before: Numbers, now: Numbers, value: float, generator: np.random.Generator) -> tuple[float, float]:
    """Return the p-value of a shift under permutation of the rows, and the shift that chance alone makes.

    Draws until 20 are as large, or 999 were drawn, 9,999 where none of those was (Besag and Clifford 1991).
    """
    pooled = np.concatenate([before, now])
    total, count = pooled.sum(axis=0), len(now)
    seen, larger, summed = 0, 0, 0.0
    while larger < ENOUGH and seen < (DRAWS if larger else MOST_DRAWS):
        draws = min(AT_ONCE, MOST_DRAWS - seen)
        chosen = np.zeros((draws, len(pooled)))
        places = np.argsort(generator.random((draws, len(pooled))), axis=1)[:, :count]
        np.put_along_axis(chosen, places, 1.0, axis=1)
        ours = chosen @ pooled
        values = shift((total - ours) / len(before), ours / count)
        seen += draws
        larger += int((values >= value - 1e-12).sum())
        summed += float(values.sum())
    return (larger + 1) / (seen + 1), summed / seen


def attributions(rows: pa.Table | None) -> tuple[list[str], Numbers] | None:
    """Return the inputs and the attributions of rows that have all of them, shape (rows, inputs)."""
    if rows is None:
        return None
    names = [name for name in rows.schema.names if name.startswith(PREFIX) and rows[name].null_count < rows.num_rows]
    if not names:
        return None
    values = np.column_stack([np.asarray(rows[name].to_numpy(), dtype=np.float64) for name in names])
    return [name.removeprefix(PREFIX) for name in names], values[np.isfinite(values).all(axis=1)]


def _reason(
    window: tuple[Sequence[str], Numbers] | None, baseline: tuple[Sequence[str], Numbers] | None, least: int
) -> str:
    if window is None:
        return "the window's predictions carry no attributions and the version has no artifact to explain them with"
    if baseline is None:
        return "the baseline's rows carry no attributions and the version has no artifact to explain them with"
    if not set(window[0]) & set(baseline[0]):
        return "the window and the baseline have attributions of different inputs"
    if min(len(window[1]), len(baseline[1])) < least:
        counts = f"{len(window[1])} rows in the window and {len(baseline[1])} in the baseline"
        return f"there are attributions of {counts}; {least} are needed"
    return ""
