"""Attribution drift: SageMaker's NDCG to the digit, and a test that sees what ranks do not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import ndcg_score

from monitors.contract import Column, Comparison, Result, Role, Type, Verdict
from monitors.kinds.attribution_drift import AttributionDrift, AttributionParameters, ndcg, permuted, shift
from monitors.testing import comparison

COLUMN = Column(name="features.age", role=Role.FEATURE, type=Type.NUMERIC)


def compared(baseline: dict[str, Any] | None, window: dict[str, Any] | None) -> Comparison:
    """Return a comparison whose row samples carry these attributions."""

    def rows(values: dict[str, Any] | None) -> pa.Table | None:
        return None if values is None else pa.table({f"attributions.{name}": each for name, each in values.items()})

    made = comparison([COLUMN], {"age": [1.0, 2.0, 3.0]}, {"age": [1.0, 2.0, 3.0]})
    return replace(made, rows=lambda: rows(window), baseline_rows=lambda: rows(baseline))


def measured(baseline: dict[str, Any] | None, window: dict[str, Any] | None, **changes: Any) -> dict[str, Result]:
    found = AttributionDrift().measure(compared(baseline, window), AttributionParameters(**changes))
    return {result.metric: result for result in found if result.subject.feature is None}


def test_ndcg_is_the_documents_example() -> None:
    # SageMaker's documentation: baseline 0.70, 0.50, 0.05, live in the reverse order:
    # (0.05 + 0.50/log2(3) + 0.70/2) / (0.70 + 0.50/log2(3) + 0.05/2) = 0.7155 / 1.0405 = 0.6876
    assert ndcg(np.array([0.70, 0.50, 0.05]), np.array([0.1, 0.2, 0.3])) == pytest.approx(0.6876, abs=5e-5)


def test_ndcg_is_scikit_learns_without_ties() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        baseline, window = generator.random((2, 7))
        assert ndcg(baseline, window) == pytest.approx(ndcg_score([baseline], [window]))


def test_the_same_attributions_are_no_drift() -> None:
    values = np.random.default_rng(0).normal(size=(400, 3)) * [3.0, 2.0, 1.0]
    first, second = values[:200], values[200:]
    found = measured(dict(zip("abc", first.T, strict=True)), dict(zip("abc", second.T, strict=True)))
    assert (found["ndcg"].value, found["ndcg"].verdict) == (1.0, Verdict.OK)
    assert found["attribution_shift"].p_value is not None
    assert found["attribution_shift"].p_value > 0.05


def test_a_drift_that_ndcg_cannot_see_is_caught_by_the_test() -> None:
    # Equal importances in the baseline: every order of them has NDCG 1, whatever the window's are.
    generator = np.random.default_rng(1)
    before = generator.choice([-1.0, 1.0], size=(300, 3))
    after = generator.choice([-1.0, 1.0], size=(300, 3)) * [2.0, 0.5, 0.5]
    found = measured(dict(zip("abc", before.T, strict=True)), dict(zip("abc", after.T, strict=True)))
    assert found["ndcg"].value == pytest.approx(1.0)
    assert found["ndcg"].verdict is Verdict.OK
    change = found["attribution_shift"]
    # shares 1/3, 1/3, 1/3 -> 2/3, 1/6, 1/6: half of (1/3 + 1/6 + 1/6) = 1/3
    assert change.value == pytest.approx(1 / 3)
    assert change.p_value == pytest.approx(1 / 10_000)
    assert change.effect is not None
    assert change.min_effect is not None
    assert change.effect > change.min_effect


def test_a_reversed_order_violates_sagemakers_threshold() -> None:
    ones = np.ones(60)
    found = measured(
        {"a": 0.7 * ones, "b": 0.5 * ones, "c": 0.05 * ones}, {"a": 0.1 * ones, "b": 0.2 * ones, "c": ones}
    )
    assert found["ndcg"].value == pytest.approx(0.6876, abs=5e-5)
    assert (found["ndcg"].verdict, found["ndcg"].threshold) == (Verdict.VIOLATED, 0.90)


def test_the_permutation_null_keeps_its_level() -> None:
    generator = np.random.default_rng(2)
    alarms = 0
    for _ in range(200):
        rows = np.abs(generator.normal(size=(150, 4)))
        before, now = rows[:100], rows[100:]
        value = float(shift(before.mean(axis=0), now.mean(axis=0)))
        alarms += permuted(before, now, value, generator)[0] <= 0.05
    assert alarms <= 20  # binomial(200, 0.05): more than 20 has a chance of 0.1 %


@pytest.mark.parametrize(
    ("baseline", "window", "reason"),
    [
        (None, {"a": np.ones(99)}, "the baseline's rows carry no attributions"),
        ({"a": np.ones(99)}, None, "the window's predictions carry no attributions"),
        ({"a": np.ones(99)}, {"b": np.ones(99)}, "different inputs"),
        ({"a": np.ones(99)}, {"a": np.ones(9)}, "attributions of 9 rows in the window"),
        ({"a": np.zeros(99)}, {"a": np.ones(99)}, "every importance of the baseline is 0"),
    ],
)
def test_what_cannot_be_compared_has_a_reason(baseline: Any, window: Any, reason: str) -> None:
    found = measured(baseline, window)
    assert reason in found["ndcg"].reason
    assert found["ndcg"].verdict is Verdict.NOT_MEASURED
