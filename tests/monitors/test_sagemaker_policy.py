"""SageMaker's rules: which distance is compared with which threshold, and how a file's shares are read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitors import discovery
from monitors.budget import PolicyInvalidError, SageMakerPolicy, parse_policy
from monitors.contract import Result, Rule, Type, Verdict
from monitors.drift import DriftParameters
from monitors.testing import comparison, feature

AGE, JOB = feature("age"), feature("job", Type.CATEGORICAL)


def rows(seed: int, size: int, shift: float = 0.0, clerks: float = 0.5) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {
        "age": generator.normal(shift, 1.0, size),
        "job": np.where(generator.random(size) < clerks, "clerk", "smith"),
    }


def judged(
    config: dict[str, Any], window: dict[str, Any], kind: str = "data_drift", **columns: Any
) -> dict[str, Result]:
    policy = parse_policy({"sagemaker": config})
    measured = discovery.kinds()[kind]
    asked = policy.prepared(measured.parameters())
    compared = comparison(columns.get("columns", [AGE, JOB]), rows(1, 4000) | columns.get("more", {}), window)
    found = policy.judge(measured.measure(compared, asked), 0.05)
    return {f"{result.subject.feature}:{result.metric}": result for result in found if result.verdict is not None}


def distances(**more: Any) -> dict[str, Any]:
    return {"distribution_constraints": more}


def own_of(name: str, override: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a constraints file in which one feature has a config of its own."""
    return {"features": [{"name": name, "monitoringConfigOverrides": override, **more}]}


def test_simple_compares_the_cumulative_gap_of_numbers_and_the_change_of_a_category() -> None:
    found = judged({}, rows(2, 2000, shift=0.5, clerks=0.45))
    assert set(found) == {"age:ks", "job:linf"}
    # half a standard deviation: a gap of 2 Phi(1/4) - 1 = 0.197; shares 0.50 -> 0.45
    assert found["age:ks"].value == pytest.approx(0.197, abs=0.04)
    assert found["age:ks"].verdict is Verdict.VIOLATED
    assert found["age:ks"].rule is Rule.SAGEMAKER
    assert found["age:ks"].threshold == 0.1
    assert found["job:linf"].verdict is Verdict.OK


def test_robust_takes_off_what_chance_gives_and_each_family_has_its_threshold() -> None:
    config = distances(comparison_method="Robust", comparison_threshold=0.1, categorical_comparison_threshold=0.001)
    found = judged(config, rows(2, 2000, shift=0.35, clerks=0.4))
    # a gap of 2 Phi(0.175) - 1 = 0.139 less 1.8 sqrt(6000 / 8,000,000) = 0.049; a change of 0.10 less the same
    assert found["age:linf_robust"].value == pytest.approx(0.09, abs=0.035)
    assert found["age:linf_robust"].threshold == 0.1
    assert found["job:linf_robust"].value == pytest.approx(0.051, abs=0.03)
    assert found["job:linf_robust"].threshold == 0.001
    assert found["job:linf_robust"].verdict is Verdict.VIOLATED


def test_robust_is_exactly_nothing_on_quiet_data() -> None:
    found = judged(distances(comparison_method="Robust", comparison_threshold=0.0), rows(3, 300))
    assert [result.value for result in found.values()] == [0, 0]
    assert all(result.verdict is Verdict.OK for result in found.values())


def test_chisquared_violates_below_its_threshold() -> None:
    config = distances(categorical_drift_method="ChiSquared", categorical_comparison_threshold=0.05)
    assert judged(config, rows(2, 2000, clerks=0.4))["job:sagemaker_chisquared"].verdict is Verdict.VIOLATED
    assert judged(config, rows(1, 4000))["job:sagemaker_chisquared"].verdict is Verdict.OK


def test_a_disabled_comparison_is_only_shown() -> None:
    assert judged(distances(perform_comparison="Disabled"), rows(2, 2000, shift=3.0)) == {}
    assert judged({"evaluate_constraints": "Disabled"}, rows(2, 2000, shift=3.0)) == {}


@pytest.mark.parametrize(
    ("threshold", "verdict", "read"),
    [
        (1.0, Verdict.VIOLATED, "must match"),
        (0.9, Verdict.OK, "must match"),
        (0.1, Verdict.OK, "may differ"),
        (0.0, Verdict.VIOLATED, "may differ"),
    ],
)
def test_a_share_from_a_half_on_must_match_and_one_below_may_differ(
    threshold: float, verdict: Verdict, read: str
) -> None:
    window = rows(2, 2000)
    window["job"] = np.where(np.arange(2000) < 60, "pilot", window["job"])  # 3 % that the baseline does not have
    found = judged({"domain_content_threshold": threshold}, window, "data_quality")["job:new_categories"]
    assert found.value == pytest.approx(0.03)
    assert found.verdict is verdict
    assert read in found.note


def test_completeness_may_not_fall_below_the_baseline_s() -> None:
    window = rows(2, 2000)
    window["age"] = np.where(np.arange(2000) < 2, np.nan, window["age"])
    found = judged({}, window, "data_quality")
    assert found["age:completeness"].verdict is Verdict.VIOLATED
    assert found["age:completeness"].threshold == 1.0
    assert found["job:completeness"].verdict is Verdict.OK


def test_a_feature_s_own_config_takes_the_place_of_what_it_names_and_no_more() -> None:
    """`pay` moves as `age` does; its own threshold of 0.3 is above the gap of 0.197, that of the others is 0.1."""
    columns, more = [AGE, JOB, feature("pay")], {"pay": rows(1, 4000)["age"]}
    window = rows(2, 2000, shift=0.5)
    window["pay"] = window["age"]
    file = own_of("pay", distances(comparison_threshold=0.3)) | {"monitoring_config": distances()}
    found = judged(file, window, columns=columns, more=more)
    assert (found["age:ks"].threshold, found["age:ks"].verdict) == (0.1, Verdict.VIOLATED)
    assert (found["pay:ks"].threshold, found["pay:ks"].verdict) == (0.3, Verdict.OK)
    file = own_of("pay", distances(comparison_method="Robust"), inferred_type="Fractional")
    file["monitoring_config"] = distances(comparison_threshold=0.12)
    found = judged(file, window, columns=columns, more=more)
    assert set(found) == {"age:ks", "pay:linf_robust", "job:linf"}
    # 0.197 less 1.8 sqrt(6000 / 8,000,000) = 0.049, against the threshold of all that the override does not name
    gap, robust = found["age:ks"].value, found["pay:linf_robust"].value
    assert gap is not None
    assert robust == pytest.approx(gap - 0.0493, abs=1e-3)
    assert found["pay:linf_robust"].threshold == 0.12
    file = own_of("pay", distances(perform_comparison="Disabled"))
    assert set(judged(file, window, columns=columns, more=more)) == {"age:ks", "job:linf"}


def test_a_file_s_own_completeness_and_shares_hold_for_its_feature() -> None:
    window = rows(2, 2000)
    window["age"] = np.where(np.arange(2000) < 100, np.nan, window["age"])  # 5 % are missing
    file = {"features": [{"name": "age", "completeness": 0.9, "num_constraints": {"is_non_negative": False}}]}
    found = judged(file, window, "data_quality")["age:completeness"]
    assert found.value == pytest.approx(0.95)
    assert (found.threshold, found.verdict) == (0.9, Verdict.OK)
    window["job"] = np.where(np.arange(2000) < 60, "pilot", window["job"])  # 3 % that the baseline does not have
    file = own_of("job", {"domain_content_threshold": 0.01})
    assert judged(file, window, "data_quality")["job:new_categories"].verdict is Verdict.VIOLATED
    assert judged({}, window, "data_quality")["job:new_categories"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"comparison": 1}, "monitoring_config has no comparison"),
        (distances(comparison_method="Best"), "comparison_method must be Simple or Robust"),
        (distances(comparison_threshold=2), "comparison_threshold must be a number from 0 to 1"),
        (distances(thresholds=2), "distribution_constraints has no thresholds"),
        ({"distribution_constraints": 3}, "monitoring_config of a constraints file"),
        ({"features": 1}, "features of a sagemaker policy is a constraints file's list"),
        ({"features": [{}]}, "objects with a name"),
        ({"features": [{"name": "age", "range": 1}]}, "the feature age has no range"),
        ({"features": [{"name": "age", "monitoringConfigOverrides": 1}]}, "monitoringConfigOverrides of age must be"),
        ({"features": [{"name": "age", "completeness": 2}]}, "completeness must be a number from 0 to 1"),
        (own_of("age", {"emit": 1}), "monitoring_config has no emit"),
        (own_of("age", {"distribution_constraints": {"comparison_method": "Robust"}}), "its inferred_type must be"),
        ({"features": [{"name": "job", "string_constraints": {"domains": ["a"]}}]}, "domains of job are a constraint"),
        ({"features": [], "alarms": 1}, "a sagemaker policy has no alarms"),
        ({"datatype_check_threshold": True}, "datatype_check_threshold must be"),
    ],
)
def test_what_is_no_monitoring_config_is_refused(body: dict[str, Any], told: str) -> None:
    with pytest.raises(PolicyInvalidError, match=told):
        parse_policy({"sagemaker": body})


def test_the_config_of_a_file_that_aws_s_container_wrote_is_read_as_it_is(shared_data: Path) -> None:
    file = shared_data / "sagemaker" / "golden_data_quality" / "boston_keras_train404_constraints.json"
    document = json.loads(file.read_text())
    policy = parse_policy({"sagemaker": document})
    assert isinstance(policy, SageMakerPolicy)
    assert policy.features["CRIM"].completeness == 1.0
    assert policy.of("CRIM") == policy.of("ZN")
    given = document["monitoring_config"]
    robust = given["distribution_constraints"]["comparison_method"] == "Robust"
    assert policy.numeric == ("linf_robust" if robust else "ks")
    assert policy.datatype_threshold == given["datatype_check_threshold"]
    prepared = policy.prepared(DriftParameters(methods={"numeric": "psi", "age": "ed"}))
    assert isinstance(prepared, DriftParameters)
    assert prepared.methods == {"numeric": policy.numeric, "categorical": policy.categorical}
