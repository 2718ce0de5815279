"""Data drift and prediction drift: what is judged, what is only shown, and what is not measured and why."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from monitors import discovery
from monitors.budget import BudgetPolicy, PolicyInvalidError, ThresholdPolicy, parse_policy
from monitors.contract import Column, Comparison, Result, Role, Type, Verdict
from monitors.drift import LEAST_EFFECT, DriftParameters
from monitors.testing import comparison, feature

AGE, JOB = feature("age"), feature("job", Type.CATEGORICAL)
JOBS = ["clerk", "driver", "nurse", "smith"]


def rows(seed: int, size: int, shift: float = 0.0, jobs: Any = (0.4, 0.3, 0.2, 0.1)) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {"age": generator.normal(40 + 10 * shift, 10, size), "job": generator.choice(JOBS, size, p=jobs)}


def drift(compared: Comparison, **parameters: Any) -> list[Result]:
    return discovery.kinds()["data_drift"].measure(compared, DriftParameters.model_validate(parameters))


def by_feature(results: list[Result]) -> dict[str | None, Result]:
    return {result.subject.feature: result for result in results if result.decides}


def test_quiet_columns_are_ok() -> None:
    judged = BudgetPolicy().judge(drift(comparison([AGE, JOB], rows(1, 5000), rows(2, 400))), 0.01)
    assert [result.verdict for result in judged] == [Verdict.OK, Verdict.OK]
    assert [result.metric for result in judged] == ["wasserstein", "jensenshannon"]


def test_what_moved_is_violated_and_what_did_not_is_ok() -> None:
    moved = rows(2, 400, shift=0.5)
    judged = by_feature(BudgetPolicy().judge(drift(comparison([AGE, JOB], rows(1, 5000), moved)), 0.01))
    assert judged["age"].verdict is Verdict.VIOLATED
    assert judged["job"].verdict is Verdict.OK


def test_a_result_says_all_that_its_verdict_rests_on() -> None:
    result = by_feature(drift(comparison([AGE], rows(1, 5000), rows(2, 400, shift=0.5))))["age"]
    assert result.value == pytest.approx(0.5, abs=0.1)
    assert result.effect == pytest.approx(0.5, abs=0.15)
    assert result.min_effect == 0.1
    assert (result.n_baseline, result.n_window) == (5000, 400)
    assert result.p_value is not None
    assert result.p_value < 1e-6
    assert result.note == "calibrating, 0 of 20: assumes independent rows"
    assert result.unit == "baseline standard deviations"


def test_a_million_rows_do_not_alarm_on_nothing() -> None:
    judged = BudgetPolicy().judge(drift(comparison([AGE], rows(1, 300_000), rows(2, 300_000, shift=0.03))), 0.05)
    (result,) = judged
    assert result.p_value is not None
    assert result.p_value < 1e-6
    assert result.verdict is Verdict.OK


def test_what_decides_can_be_chosen_by_type_and_by_name() -> None:
    compared = comparison([AGE, JOB, feature("weight")], rows(1, 900) | {"weight": rows(3, 900)["age"]}, rows(2, 200))
    found = drift(compared, methods={"numeric": "ks", "categorical": "chisquare", "weight": "psi"})
    assert [result.metric for result in found] == ["ks", "chisquare", "psi"]


def test_other_statistics_are_shown_without_a_verdict() -> None:
    found = drift(comparison([AGE, JOB], rows(1, 900), rows(2, 200)), also=["psi", "ks"])
    shown = [(result.metric, result.subject.feature) for result in found if not result.decides]
    assert shown == [("psi", "age"), ("ks", "age"), ("psi", "job")]
    assert all(result.verdict is None for result in found if not result.decides)


def test_options_of_statistics_reach_them() -> None:
    compared = comparison([JOB], rows(1, 900), rows(2, 200, jobs=(0.1, 0.2, 0.3, 0.4)))
    (ours,), (theirs,) = drift(compared), drift(compared, options={"jensenshannon": {"natural": True}})
    assert ours.value is not None
    assert theirs.value == pytest.approx(ours.value * np.sqrt(np.log(2)))


def test_a_threshold_policy_judges_what_it_names() -> None:
    policy = parse_policy({"threshold": {"psi": 0.2}})
    compared = comparison([AGE, JOB], rows(1, 2000), rows(2, 500, shift=1.0))
    found = discovery.kinds()["data_drift"].measure(compared, policy.prepared(DriftParameters()))
    judged = by_feature(policy.judge(found, 0.05))
    assert {result.metric for result in judged.values()} == {"psi"}
    assert judged["age"].verdict is Verdict.VIOLATED
    assert judged["job"].verdict is Verdict.OK


def test_psi_of_numbers_is_over_ten_bins_of_the_baseline() -> None:
    generator = np.random.default_rng(4)
    baseline, window = generator.uniform(size=10_000), generator.uniform(size=5000) ** 2
    (result,) = drift(comparison([feature("x")], {"x": baseline}, {"x": window}), methods={"numeric": "psi"})
    edges = np.quantile(baseline, np.linspace(0, 1, 11)[1:-1])
    old, new = (np.bincount(np.searchsorted(edges, v), minlength=10) / v.size for v in (baseline, window))
    assert result.value == pytest.approx(((new - old) * np.log(new / old)).sum(), rel=0.02)


def test_too_few_rows_are_not_measured() -> None:
    found = drift(comparison([AGE, JOB], rows(1, 900), rows(2, 29)))
    assert [result.reason for result in found] == ["insufficient rows: 29 of 30"] * 2
    assert all(result.verdict is Verdict.NOT_MEASURED and result.decides for result in found)


def test_values_count_not_rows() -> None:
    window = rows(2, 300)
    window["age"][25:] = np.nan
    result = by_feature(drift(comparison([AGE, JOB], rows(1, 900), window)))["age"]
    assert result.reason == "insufficient rows: 25 of 30"


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        (feature("x"), np.full(500, np.nan), "insufficient rows in the baseline: 0 of 30"),
        (feature("x", Type.TEXT), ["a text"] * 500, "a text column has no bins to compare"),
        (feature("x", Type.DATETIME), np.arange(500) * 10**9, "a date moves with time"),
    ],
)
def test_what_can_never_be_compared_is_shown_and_not_counted(column: Column, values: Any, reason: str) -> None:
    (result,) = drift(comparison([column], {"x": values}, {"x": values}))
    assert result.reason.startswith(reason)
    assert not result.decides
    assert result.verdict is None


def test_a_date_is_compared_where_it_is_asked_for() -> None:
    birth = feature("birth", Type.DATETIME)
    generator = np.random.default_rng(5)
    old, new = (generator.integers(0, 10**15, size) for size in (2000, 300))
    (result,) = drift(comparison([birth], {"birth": old}, {"birth": new}), features=["birth"])
    assert result.value is not None
    assert result.p_value is not None
    assert result.p_value > 1e-4


def test_columns_that_nobody_confirmed_are_left_out() -> None:
    columns = [AGE, feature("extra", status="new")]
    assert [result.subject.feature for result in drift(comparison(columns, rows(1, 900), rows(2, 200)))] == ["age"]


def test_columns_can_be_named_and_left_out() -> None:
    compared = comparison([AGE, JOB], rows(1, 900), rows(2, 200))
    assert [result.subject.feature for result in drift(compared, features=["job"])] == ["job"]
    assert [result.subject.feature for result in drift(compared, **{"except": ["job"]})] == ["age"]


def test_a_column_that_is_not_there_is_said_to_be_missing() -> None:
    age, height = drift(comparison([AGE, JOB], rows(1, 900), rows(2, 200)), features=["age", "height"])
    assert age.p_value is not None
    assert height.reason == "there is no column height to compare"
    assert height.verdict is Verdict.NOT_MEASURED


def test_top_needs_importances() -> None:
    columns = [AGE, feature("job", Type.CATEGORICAL, constraints={"importance": 0.7})]
    found = drift(comparison(columns, rows(1, 900), rows(2, 200)), features={"top": 1})
    assert [result.subject.feature for result in found] == ["job"]
    (unknown, *_) = drift(comparison([AGE, JOB], rows(1, 900), rows(2, 200)), features={"top": 1})
    assert "importance" in unknown.reason


def test_a_boolean_is_a_category() -> None:
    paid = feature("paid", Type.BOOLEAN)
    generator = np.random.default_rng(6)
    old, new = generator.random(900) < 0.5, generator.random(300) < 0.9
    (result,) = BudgetPolicy().judge(drift(comparison([paid], {"paid": old}, {"paid": new})), 0.01)
    assert result.metric == "jensenshannon"
    assert result.verdict is Verdict.VIOLATED


def test_a_category_that_was_constant_can_drift() -> None:
    old, new = {"job": ["clerk"] * 900}, {"job": ["clerk"] * 100 + ["smith"] * 100}
    (result,) = BudgetPolicy().judge(drift(comparison([JOB], old, new)), 0.01)
    assert result.verdict is Verdict.VIOLATED


def test_a_number_that_was_constant_can_drift() -> None:
    old, new = {"x": np.full(900, 7.0)}, {"x": np.where(np.arange(200) % 2, 7.0, 7.5)}
    (result,) = BudgetPolicy().judge(drift(comparison([feature("x")], old, new), methods={"numeric": "ed"}), 0.01)
    assert result.verdict is Verdict.VIOLATED
    assert result.metric == "jensenshannon"
    assert result.note.endswith("the baseline is constant, so values are compared as equal or not")
    (still,) = BudgetPolicy().judge(drift(comparison([feature("x")], old, {"x": np.full(200, 7.0)})), 0.01)
    assert still.verdict is Verdict.OK
    assert still.value == 0


def test_a_constant_that_stays_is_ok() -> None:
    (result,) = BudgetPolicy().judge(drift(comparison([JOB], {"job": ["a"] * 900}, {"job": ["a"] * 90})), 0.01)
    assert result.value == 0
    assert result.verdict is Verdict.OK


# --- time scales and blocks -------------------------------------------------------------------------------------------


def test_with_twenty_blocks_nothing_is_assumed() -> None:
    days = [rows(100 + day, 200) for day in range(20)]
    whole = {name: np.concatenate([day[name] for day in days]) for name in ("age", "job")}
    found = drift(comparison([AGE, JOB], whole, rows(2, 200, shift=1.0), blocks={1: days}))
    assert [result.note for result in found] == ["", ""]
    assert by_feature(BudgetPolicy().judge(found, 0.01))["age"].verdict is Verdict.VIOLATED


def test_why_there_are_no_blocks_is_said() -> None:
    compared = comparison([AGE], rows(1, 900), rows(2, 200), blocks_reason="the baseline has no order")
    (result,) = drift(compared)
    assert result.note == "calibrating, 0 of 20: assumes independent rows; the baseline has no order"


def test_a_longer_scale_needs_twenty_blocks_of_its_length() -> None:
    weeks = [rows(200 + week, 700) for week in range(20)]
    compared = comparison(
        [AGE], rows(1, 9000), rows(2, 100), longer={7: rows(3, 700), 28: rows(4, 2800)}, blocks={7: weeks}
    )
    found = {result.subject.scale: result for result in drift(compared)}
    assert found[7].p_value is not None
    assert found[28].reason == "a scale of 28 windows needs 20 quiet blocks of its length, there are 0"
    assert not found[28].decides


def test_the_minimum_effect_shrinks_with_the_root_of_the_scale() -> None:
    chosen = DriftParameters(min_effect={"age": 0.3, "categorical": 0.01})
    assert chosen.least_effect(AGE, 1) == 0.3
    assert chosen.least_effect(AGE, 9) == pytest.approx(0.1)
    assert DriftParameters().least_effect(AGE, 28) == LEAST_EFFECT
    assert chosen.least_effect(JOB, 28) == 0.01


def test_a_longer_scale_finds_a_smaller_shift() -> None:
    weeks = [rows(300 + week, 1400) for week in range(40)]
    whole = {name: np.concatenate([week[name] for week in weeks]) for name in ("age", "job")}
    days = [rows(400 + day, 200) for day in range(60)]
    slight = rows(5, 1400, shift=0.15)
    compared = comparison(
        [AGE],
        whole,
        {name: values[:200] for name, values in slight.items()},
        longer={7: slight},
        blocks={1: days, 7: weeks},
    )
    judged = {result.subject.scale: result for result in BudgetPolicy().judge(drift(compared), 0.01)}
    assert judged[1].verdict is Verdict.OK
    assert judged[7].verdict is Verdict.VIOLATED


# --- predictions ------------------------------------------------------------------------------------------------------


def test_predictions_and_scores_are_watched_apart_from_features() -> None:
    prediction = Column(name="prediction", role=Role.PREDICTION, type=Type.CATEGORICAL)
    score = Column(name="score", role=Role.SCORE, type=Type.NUMERIC)
    truth = Column(name="ground_truth", role=Role.GROUND_TRUTH, type=Type.CATEGORICAL)
    generator = np.random.default_rng(7)
    old, new = generator.random(3000), generator.random(400) ** 2
    compared = comparison(
        [AGE, prediction, score, truth],
        {"age": old, "score": old, "prediction": (old > 0.5).astype(str)},
        {"age": new, "score": new, "prediction": (new > 0.5).astype(str)},
    )
    found = discovery.kinds()["prediction_drift"].measure(compared, DriftParameters())
    judged = by_feature(BudgetPolicy().judge(found, 0.01))
    assert {name: result.verdict for name, result in judged.items()} == {
        "prediction": Verdict.VIOLATED,
        "score": Verdict.VIOLATED,
    }
    assert [result.subject.feature for result in drift(compared)] == ["age"]


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"methods": {"numeric": "magic"}}, "there is no statistic magic; there are .*chisquare"),
        ({"also": ["magic"]}, "there is no statistic magic"),
        ({"options": {"psi": {"bins": 3}}}, "psi has no options bins"),
        ({"min_effect": {"numeric": -1}}, "min_effect of numeric"),
        ({"min_rows": 0}, "min_rows"),
        ({"features": {"top": 0}}, "top"),
        ({"window": "1d"}, "window"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(document: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DriftParameters.model_validate(document)


def test_a_statistic_that_is_not_for_the_column_is_said() -> None:
    (result,) = drift(comparison([JOB], rows(1, 900), rows(2, 200)), methods={"job": "ks"})
    assert result.reason == "ks is not for categorical columns"


def test_a_statistic_without_a_null_is_shown_without_a_p_value() -> None:
    (result, robust) = drift(comparison([AGE], rows(1, 900), rows(2, 200, shift=2.0)), also=["linf_robust"])
    assert result.p_value is not None
    assert robust.p_value is None
    assert robust.note == ""
    # two standard deviations apart: a gap of 2 Phi(1) - 1 = 0.68, less 1.8 sqrt(1100 / 180,000) = 0.14
    assert robust.value == pytest.approx(0.54, abs=0.1)


def test_a_budget_cannot_be_judged_by_a_statistic_without_a_null() -> None:
    parameters = DriftParameters(methods={"numeric": "linf_robust"})
    with pytest.raises(PolicyInvalidError, match="linf_robust has no p-value"):
        BudgetPolicy().prepared(parameters)
    assert ThresholdPolicy({"linf_robust": 0.1}).prepared(parameters)


def test_the_same_comparison_gives_the_same_results() -> None:
    first, second = (drift(comparison([AGE, JOB], rows(1, 900), rows(2, 200)), also=["psi"]) for _ in range(2))
    assert first == second
