"""The alarm budget: how it is split, what Holm's method makes of it, and fixed thresholds."""

from dataclasses import replace
from datetime import timedelta

import pytest

from monitors.budget import (
    BudgetPolicy,
    PolicyInvalidError,
    ThresholdPolicy,
    duration,
    holm,
    parse_policy,
    share_of,
    window_alpha,
)
from monitors.contract import Direction, Result, Rule, Subject, Verdict
from monitors.drift import DriftParameters

DAY = timedelta(days=1)
MONTHLY = {"per": "30d", "at_most": 1}


def found(feature: str, p_value: float, effect: float = 0.5, note: str = "", scale: int = 1) -> Result:
    return Result(
        metric="wasserstein",
        subject=Subject(feature=feature, scale=scale),
        value=0.3,
        p_value=p_value,
        effect=effect,
        min_effect=0.1,
        note=note,
    )


def verdicts(results: list[Result]) -> list[Verdict | None]:
    return [result.verdict for result in results]


def test_a_window_gets_its_part_of_the_period() -> None:
    # one in 30 days, a day, a third of it: 1/30/3
    assert window_alpha(MONTHLY, DAY, 1 / 3) == pytest.approx(1 / 90)
    assert window_alpha({"per": "4w", "at_most": 2}, timedelta(days=7), 1.0) == pytest.approx(0.05)
    assert window_alpha({"per": "1mo", "at_most": 0.03}, timedelta(days=365.25 / 12), 1.0) == pytest.approx(0.03)


def test_no_window_gets_more_than_five_per_cent() -> None:
    assert window_alpha(MONTHLY, timedelta(days=30), 1.0) == 0.05
    assert window_alpha({"per": "1d", "at_most": 100}, DAY, 0.5) == 0.025


def test_all_windows_of_a_period_together_spend_the_budget() -> None:
    assert 30 * 24 * window_alpha(MONTHLY, timedelta(hours=1), 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["", "0d", "-1d", "1.5d", "30", "d", "30 days", None, 30, "1000000000d"])
def test_a_length_of_time_that_cannot_be_read_is_refused(text: object) -> None:
    with pytest.raises(PolicyInvalidError, match="12h"):
        duration(text)


@pytest.mark.parametrize("at_most", [0, -1, float("nan"), "1", True, None])
def test_a_budget_without_a_number_of_alarms_is_refused(at_most: object) -> None:
    with pytest.raises(PolicyInvalidError, match="at_most"):
        window_alpha({"per": "30d", "at_most": at_most}, DAY, 1.0)


def test_monitors_share_the_budget_equally() -> None:
    assert share_of("a", {"a": None, "b": None, "c": None}) == pytest.approx(1 / 3)
    assert share_of("a", {"a": None, "b": None, "c": None}, versions=2) == pytest.approx(1 / 6)


def test_given_shares_are_kept_and_the_rest_is_split() -> None:
    declared = {"a": 0.5, "b": None, "c": None}
    assert share_of("a", declared) == pytest.approx(0.5)
    assert share_of("b", declared) == pytest.approx(0.25)


def test_shares_never_sum_to_more_than_the_budget() -> None:
    declared = {"a": 0.9, "b": 0.9, "c": None}
    shares = [share_of(name, declared) for name in declared]
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0


def test_holm_is_the_textbook_procedure() -> None:
    # sorted .005 .01 .03 .04 against .05/4 = .0125, .05/3 = .0167, .05/2 = .025: two are rejected
    levels = holm([0.01, 0.04, 0.03, 0.005], 0.05)
    assert [rejected for _, rejected in levels] == [True, False, False, True]
    assert [level for level, _ in levels] == pytest.approx([0.05 / 3, 0.025, 0.025, 0.0125])


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([], 0.05) == []


def test_a_result_is_violated_only_with_evidence_and_effect() -> None:
    results = [found("a", 0.001), found("b", 0.001, effect=0.05), found("c", 0.4)]
    judged = BudgetPolicy().judge(results, 0.05)
    assert verdicts(judged) == [Verdict.VIOLATED, Verdict.OK, Verdict.OK]
    assert all(result.rule is Rule.BUDGET and result.alpha is not None for result in judged)


def test_the_family_is_every_column_at_every_scale() -> None:
    # .02 alone would pass at .05; among three the smallest is compared with .05 / 3
    results = [found("a", 0.02), found("a", 0.5, scale=7), found("b", 0.5)]
    assert verdicts(BudgetPolicy().judge(results, 0.05)) == [Verdict.OK] * 3
    assert verdicts(BudgetPolicy().judge(results[:1], 0.05)) == [Verdict.VIOLATED]


def test_a_calibrating_result_is_judged_at_a_tenth() -> None:
    note = "calibrating, 3 of 20: assumes independent rows"
    (result,) = BudgetPolicy().judge([found("a", 0.006, note=note)], 0.05)
    assert result.verdict is Verdict.OK
    assert result.alpha == pytest.approx(0.005)
    assert verdicts(BudgetPolicy().judge([found("a", 0.004, note=note)], 0.05)) == [Verdict.VIOLATED]


def test_what_is_shown_only_or_judged_already_or_not_measured_stays() -> None:
    shown = replace(found("a", 0.0001), metric="psi", decides=False, verdict=None)
    ruled = Result(metric="extra_column", value=1.0, rule=Rule.SCHEMA, verdict=Verdict.VIOLATED)
    unmeasured = Result(metric="ks", reason="insufficient rows: 3 of 30")
    assert BudgetPolicy().judge([shown, ruled, unmeasured], 0.05) == [shown, ruled, unmeasured]


def test_a_fault_that_did_not_happen_is_ok_and_takes_no_part_of_alpha() -> None:
    nothing = replace(found("a", 1.0), verdict=Verdict.OK)
    judged = BudgetPolicy().judge([nothing, found("b", 0.04)], 0.05)
    assert verdicts(judged) == [Verdict.OK, Verdict.VIOLATED]
    assert judged[1].alpha == pytest.approx(0.05)


def test_a_threshold_is_still_good_and_beyond_it_is_not() -> None:
    policy = parse_policy({"threshold": {"wasserstein": 0.3, "wasserstein:b": 0.2}})
    judged = policy.judge([found("a", 0.9), found("b", 0.9)], 0.05)
    assert verdicts(judged) == [Verdict.OK, Verdict.VIOLATED]
    assert [result.threshold for result in judged] == [0.3, 0.2]
    assert all(result.rule is Rule.THRESHOLD for result in judged)
    assert not policy.spends


def test_thresholds_follow_the_direction() -> None:
    policy = ThresholdPolicy({"completeness": 0.9, "volume": 0.5})
    complete = Result(metric="completeness", value=0.85, direction=Direction.LOWER_IS_WORSE)
    volume = Result(metric="volume", value=1.4, direction=Direction.DISTANCE_FROM_ONE)
    assert verdicts(policy.judge([complete, volume], 0.05)) == [Verdict.VIOLATED, Verdict.OK]


def test_what_has_no_threshold_is_only_shown() -> None:
    (judged,) = ThresholdPolicy({"psi": 0.2}).judge([found("a", 0.0001)], 0.05)
    assert judged.verdict is None
    assert not judged.decides


def test_thresholds_ask_for_the_statistics_that_they_judge() -> None:
    prepared = ThresholdPolicy({"psi": 0.2, "psi:age": 0.3, "ks": 0.1}).prepared(DriftParameters(also=["ks"]))
    assert isinstance(prepared, DriftParameters)
    assert prepared.also == ["ks", "psi"]


def test_no_policy_is_the_budget_in_equal_shares() -> None:
    assert parse_policy({}) == BudgetPolicy()
    assert parse_policy({"budget": {"share": 0.25}}) == BudgetPolicy(0.25)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"sagemaker": {"magic": 1}}, "monitoring_config has no magic"),
        ({"magic": {}}, "there is no policy magic"),
        ({"budget": {}, "threshold": {"psi": 1}}, "one of"),
        ({"budget": {"share": 0}}, "share"),
        ({"budget": {"share": True}}, "share"),
        ({"budget": {"alpha": 0.1}}, "alpha"),
        ({"threshold": {}}, "at least one metric"),
        ({"threshold": {"psi": "high"}}, "psi"),
        ({"threshold": {"psi": float("inf")}}, "psi"),
        ({"threshold": 0.2}, "object"),
    ],
)
def test_a_policy_that_cannot_be_read_is_refused_with_what_is_wrong(document: dict[str, object], told: str) -> None:
    with pytest.raises(PolicyInvalidError, match=told):
        parse_policy(document)
