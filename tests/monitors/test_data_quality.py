"""Data quality: values that are missing, wrong or new, and records that do not come."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from monitors import discovery
from monitors.budget import BudgetPolicy, parse_policy
from monitors.constraints import ConstraintsInvalidError, checked, of, suggest
from monitors.contract import Arrivals, Column, Comparison, Direction, Result, Rule, Type, Verdict
from monitors.kinds.data_quality import QualityParameters
from monitors.testing import comparison, feature

AGE, JOB = feature("age"), feature("job", Type.CATEGORICAL)


def rows(seed: int, size: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {"age": generator.normal(40, 10, size), "job": generator.choice(["clerk", "driver", "nurse"], size)}


def measured(compared: Comparison, **parameters: Any) -> dict[tuple[str | None, str], Result]:
    """Return the judged results by feature and metric."""
    found = discovery.kinds()["data_quality"].measure(compared, QualityParameters.model_validate(parameters))
    judged = BudgetPolicy().judge(found, 0.01)
    return {(result.subject.feature, result.metric): result for result in judged}


def violated(results: dict[tuple[str | None, str], Result]) -> set[tuple[str | None, str]]:
    return {key for key, result in results.items() if result.verdict is Verdict.VIOLATED}


def test_quiet_columns_are_ok_in_every_respect() -> None:
    found = measured(comparison([AGE, JOB], rows(1, 5000), rows(2, 500)))
    assert not violated(found)
    assert {metric for feature_, metric in found if feature_ == "age"} == {
        "completeness",
        "wrong_type",
        "non_finite",
    }
    assert {metric for feature_, metric in found if feature_ == "job"} == {
        "completeness",
        "wrong_type",
        "new_categories",
    }


def test_missing_values_beyond_the_baseline_s_are_violations() -> None:
    window = rows(2, 500)
    window["age"][:50] = np.nan
    result = measured(comparison([AGE, JOB], rows(1, 5000), window))["age", "completeness"]
    assert result.verdict is Verdict.VIOLATED
    assert result.value == pytest.approx(0.9)
    assert result.baseline_value == 1.0
    assert result.effect == pytest.approx(0.1)
    assert result.direction is Direction.LOWER_IS_WORSE


def test_as_many_missing_values_as_ever_are_ok_and_fewer_are_too() -> None:
    baseline, window = rows(1, 5000), rows(2, 500)
    baseline["age"][:500] = np.nan
    window["age"][:55] = np.nan
    assert not violated(measured(comparison([AGE], baseline, window)))
    assert not violated(measured(comparison([AGE], baseline, rows(3, 500))))


def test_a_fault_in_few_rows_is_below_the_minimum_effect() -> None:
    window = rows(2, 100_000)
    window["age"][:500] = np.nan
    compared = comparison([AGE], rows(1, 100_000), window)
    result = measured(compared)["age", "completeness"]
    assert result.p_value is not None
    assert result.p_value < 1e-9
    assert result.verdict is Verdict.OK
    assert violated(measured(compared, min_effect={"completeness": 0.001})) == {("age", "completeness")}


def test_wrong_types_and_infinities_are_told_apart() -> None:
    window = rows(2, 500)
    window["age"][:60] = np.nan
    faults: list[str | None] = [None] * 500
    faults[:30] = [json.dumps({"age": "wrong_type"})] * 30
    faults[30:60] = [json.dumps({"age": "non_finite"})] * 30
    found = measured(comparison([AGE, JOB], rows(1, 5000), window | {"faults": faults}))
    assert found["age", "wrong_type"].value == pytest.approx(0.06)
    assert found["age", "non_finite"].value == pytest.approx(0.06)
    assert {("age", "wrong_type"), ("age", "non_finite")} <= violated(found)


def test_a_column_that_vanished_is_missing() -> None:
    window = rows(2, 500)
    del window["age"]
    found = measured(comparison([AGE, JOB], rows(1, 5000), window))
    assert found["age", "missing_column"].verdict is Verdict.VIOLATED
    assert found["age", "missing_column"].rule is Rule.SCHEMA
    assert found["age", "completeness"].value == 0.0


def test_a_column_that_was_rarely_there_is_not_missed() -> None:
    baseline = rows(1, 5000)
    baseline["age"][100:] = np.nan
    found = measured(comparison([AGE, JOB], baseline, {"job": rows(2, 100)["job"]}))
    assert ("age", "missing_column") not in found
    assert not violated(found)


def test_a_column_that_nobody_confirmed_is_a_change_of_the_schema() -> None:
    columns = [AGE, feature("extra", status="new")]
    found = measured(comparison(columns, rows(1, 900), rows(2, 200)))
    assert violated(found) == {("extra", "extra_column")}
    shown = measured(comparison(columns, rows(1, 900), rows(2, 200)), extra_columns="show")
    assert shown["extra", "extra_column"].verdict is None


def test_new_categories_are_named() -> None:
    window = rows(2, 500)
    window["job"] = ["astronaut"] * 40 + list(window["job"][40:])
    result = measured(comparison([JOB], rows(1, 5000), window))["job", "new_categories"]
    assert result.verdict is Verdict.VIOLATED
    assert result.value == pytest.approx(0.08)
    assert "astronaut" in result.note


def test_rare_categories_that_no_sample_holds_all_of_are_expected() -> None:
    generator = np.random.default_rng(3)
    towns = np.array([f"town {place}" for place in range(20_000)])
    old, new = generator.choice(towns, 900), generator.choice(towns, 300)
    result = measured(comparison([JOB], {"job": old}, {"job": new}))["job", "new_categories"]
    assert result.value is not None
    assert result.value > 0.9
    assert result.verdict is Verdict.OK


# --- ranges and domains -----------------------------------------------------------------------------------------------


def limited(compared: Comparison) -> Comparison:
    """Return the comparison with the constraints that its baseline suggests."""
    rules = suggest(compared.columns, compared.baseline)
    columns = [Column(name=c.name, role=c.role, type=c.type, constraints=rules[c.label]) for c in compared.columns]
    return Comparison(
        columns=columns,
        baseline=compared.baseline,
        scales=compared.scales,
        blocks=compared.blocks,
        arrivals=compared.arrivals,
        starts_at=compared.starts_at,
        ends_at=compared.ends_at,
        generator=compared.generator,
    )


@pytest.mark.parametrize("size", [800, 5000])
def test_values_a_little_beyond_the_baseline_s_range_are_expected(size: int) -> None:
    for seed in range(10):
        found = measured(limited(comparison([AGE], rows(2 * seed, size), rows(2 * seed + 1, 1000))))
        assert not violated(found)


@pytest.mark.parametrize("size", [800, 5000])
def test_many_values_beyond_the_baseline_s_range_are_violations(size: int) -> None:
    window = rows(2, 500)
    window["age"][:40] = -999.0
    result = measured(limited(comparison([AGE], rows(1, size), window)))["age", "out_of_range"]
    assert result.verdict is Verdict.VIOLATED
    assert result.value == pytest.approx(0.08, abs=0.01)
    assert "-999" in result.note


def test_one_value_outside_a_range_that_people_set_is_a_violation() -> None:
    adult = feature("age", range=(0.0, None))
    window = rows(2, 500)
    window["age"][0] = -1.0
    result = measured(comparison([adult], rows(1, 5000), window))["age", "out_of_range"]
    assert result.verdict is Verdict.VIOLATED
    assert result.rule is Rule.SCHEMA
    assert result.value == pytest.approx(1 / 500)
    inside = feature("age", range=(-100.0, 200.0))
    assert not violated(measured(comparison([inside], rows(1, 5000), rows(3, 500))))


def test_one_value_outside_a_domain_that_people_set_is_a_violation() -> None:
    strict = feature("job", Type.CATEGORICAL, categories=("clerk", "driver"))
    result = measured(comparison([strict], rows(1, 900), rows(2, 200)))["job", "out_of_domain"]
    assert result.verdict is Verdict.VIOLATED
    assert result.value == pytest.approx(1 / 3, abs=0.1)
    wide = feature("job", Type.CATEGORICAL, categories=("clerk", "driver", "nurse", "smith"))
    window = rows(2, 200)
    window["job"][0] = "smith"
    assert measured(comparison([wide], rows(1, 900), window))["job", "out_of_domain"].value == 0.0


def test_a_required_column_may_not_miss_a_value() -> None:
    needed = feature("age", required=True)
    window = rows(2, 500)
    assert not violated(measured(comparison([needed], rows(1, 900), window)))
    window["age"][7] = np.nan
    result = measured(comparison([needed], rows(1, 900), window))["age", "completeness"]
    assert (result.verdict, result.rule, result.threshold) == (Verdict.VIOLATED, Rule.SCHEMA, 1.0)


# --- constraints ------------------------------------------------------------------------------------------------------


def test_constraints_are_what_the_baseline_keeps() -> None:
    compared = comparison([AGE, JOB], {"age": [1.0, 2.0, None, 5.0], "job": ["a", "b", "a", "a"]}, rows(2, 100))
    assert suggest(compared.columns, compared.baseline) == {
        "age": {
            "type": "numeric",
            "completeness": {"at_least": 0.75, "suggested": True},
            "range": {"at_least": 1.0, "at_most": 5.0, "suggested": True},
        },
        "job": {
            "type": "categorical",
            "completeness": {"at_least": 1.0, "suggested": True},
            "domain": {"values": ["a", "b"], "suggested": True},
        },
    }


def test_constraints_survive_json_and_are_read_back() -> None:
    compared = comparison([AGE, JOB], rows(1, 900), rows(2, 100))
    document = json.loads(json.dumps(suggest(compared.columns, compared.baseline)))
    assert checked(document, ["age", "job"]) == document
    bounds = of(feature("age", constraints=document["age"]))
    assert bounds.completeness == 1.0
    assert not bounds.firm_completeness
    assert not bounds.firm_range


def test_what_people_set_is_firm() -> None:
    bounds = of(feature("age", constraints={"completeness": {"at_least": 0.9}, "range": {"at_least": 0}}))
    assert bounds.firm_completeness
    assert bounds.firm_range
    assert (bounds.low, bounds.high) == (0.0, None)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"height": {}}, "no column height"),
        ({"age": 3}, "object"),
        ({"age": {"magic": {}}}, "magic"),
        ({"age": {"range": {"from": 3}}}, "range of age"),
        ({"age": {"range": {"at_least": "three"}}}, "at_least of range of age"),
        ({"age": {"completeness": {"at_least": 1.2}}}, "completeness of age"),
        ({"age": {"domain": {"values": "abc"}}}, "domain of age"),
    ],
)
def test_constraints_that_make_no_sense_are_refused(document: dict[str, Any], told: str) -> None:
    with pytest.raises(ConstraintsInvalidError, match=told):
        checked(document, ["age"])


# --- volume and freshness ---------------------------------------------------------------------------------------------


def arrived(**more: Any) -> dict[tuple[str | None, str], Result]:
    given: dict[str, Any] = {"history": (500, 480, 530, 510), "silence_hours": 0.5, "usual_gap_hours": 1.0}
    size = more.get("rows", 500)
    window = rows(2, size) if size else {}
    return measured(comparison([AGE], rows(1, 900), window, arrivals=Arrivals(**given | {"rows": size} | more)))


def test_the_usual_volume_is_ok() -> None:
    found = arrived()
    assert found[None, "volume"].verdict is Verdict.OK
    assert found[None, "volume"].value == pytest.approx(500 / 505)
    assert found[None, "freshness"].verdict is Verdict.OK


@pytest.mark.parametrize("size", [60, 0])
def test_too_few_records_are_a_violation_and_so_are_none(size: int) -> None:
    result = arrived(rows=size, silence_hours=20.0)[None, "volume"]
    assert result.verdict is Verdict.VIOLATED
    assert result.note == f"{size} rows, usually 505"


def test_too_many_records_are_a_violation() -> None:
    assert arrived(rows=5000)[None, "volume"].verdict is Verdict.VIOLATED


def test_a_volume_that_always_varied_may_vary() -> None:
    assert arrived(rows=150, history=(900, 30, 400, 1500))[None, "volume"].verdict is Verdict.OK


def test_silence_is_a_violation() -> None:
    result = arrived(rows=0, silence_hours=24.0)[None, "freshness"]
    assert result.verdict is Verdict.VIOLATED
    assert result.value == 24.0


def test_a_nightly_pause_is_not_silence() -> None:
    assert arrived(silence_hours=9.0, usual_gap_hours=10.0)[None, "freshness"].verdict is Verdict.OK


def test_without_four_windows_before_volume_is_not_counted() -> None:
    result = arrived(history=(500, 480, 490))[None, "volume"]
    assert result.reason == "volume needs 4 earlier windows of the same hours, there are 3"
    assert not result.decides


def test_replayed_history_is_not_judged_by_its_arrival() -> None:
    found = arrived(rows=60, judged=False)
    for metric in ("volume", "freshness"):
        assert found[None, metric].verdict is None
        assert found[None, metric].note == "not judged while history is replayed"


def test_an_empty_window_measures_no_column() -> None:
    found = arrived(rows=0, silence_hours=24.0)
    assert found["age", "completeness"].reason == "insufficient rows: 0 of 30"


def test_what_came_late_or_twice_is_shown() -> None:
    found = arrived(late=3, duplicates=7)
    assert found[None, "late"].value == 3
    assert found[None, "duplicates"].value == 7
    assert found[None, "duplicates"].verdict is None


# --- policies and chance ----------------------------------------------------------------------------------------------


def test_thresholds_judge_quality_too() -> None:
    window = rows(2, 500)
    window["age"][:50] = np.nan
    found = discovery.kinds()["data_quality"].measure(comparison([AGE], rows(1, 5000), window), QualityParameters())
    judged = parse_policy({"threshold": {"completeness": 0.95}}).judge(found, 0.01)
    assert [result.metric for result in judged if result.verdict is Verdict.VIOLATED] == ["completeness"]


@pytest.mark.parametrize(("windows", "most"), [(60, 9), pytest.param(150, 17, marks=pytest.mark.long)])
def test_quiet_quality_alarms_no_more_often_than_its_share_of_the_budget(windows: int, most: int) -> None:
    alarms = 0
    for seed in range(windows):
        generator = np.random.default_rng(seed)
        old, new = rows(1000 + seed, 600), rows(5000 + seed, 150)
        for part in (old, new):
            part["age"][generator.random(part["age"].size) < 0.05] = np.nan
            part["job"] = [None if generator.random() < 0.05 else job for job in part["job"]]
        compared = limited(comparison([AGE, JOB], old, new, seed=seed))
        found = discovery.kinds()["data_quality"].measure(compared, QualityParameters(min_effect={"completeness": 0}))
        judged = BudgetPolicy().judge(found, 0.5)
        alarms += any(result.verdict is Verdict.VIOLATED for result in judged)
    # calibrating: a tenth of 0.5; the 0.999 quantile of the binomial at 0.05 is 9 of 60 and 17 of 150
    assert alarms <= most


@pytest.mark.parametrize("document", [{"min_effect": {"volume": float("nan")}}, {"min_rows": 0}, {"methods": {}}])
def test_parameters_that_make_no_sense_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        QualityParameters.model_validate(document)


def test_missing_and_unseen_values_of_car_loan_are_counted_and_alarm_where_nannyml_alarms(shared_data: Path) -> None:
    # NannyML alarms on a chunk beyond three standard deviations of the reference's chunks, 5,000 rows each.
    tables = {
        part: pq.read_table(shared_data / "nannyml_car_loan_dq" / f"synthetic_car_loan_dq_{part}.parquet")
        for part in ("reference", "analysis")
    }
    labels = ["salary_range", "repaid_loan_on_prev_car", "size_of_downpayment"]
    columns = [feature(label, Type.CATEGORICAL) for label in labels]

    def chunk(part: str, number: int) -> dict[str, list[str | None]]:
        rows = tables[part].slice(5000 * number, 5000)
        return {label: rows[label].cast(pa.string()).to_pylist() for label in labels}

    whole = {label: tables["reference"][label].cast(pa.string()).to_pylist() for label in labels}
    known = {label: set(whole[label]) - {None} for label in labels}

    def counted(rows: dict[str, list[str | None]], label: str, metric: str) -> int:
        if metric == "completeness":
            return sum(value is None for value in rows[label])
        return sum(value is not None and value not in known[label] for value in rows[label])

    quiet = [chunk("reference", number) for number in range(10)]
    kind, alarms = discovery.kinds()["data_quality"], 0
    for number in range(10):
        rows = chunk("analysis", number)
        results = BudgetPolicy().judge(kind.measure(comparison(columns, whole, rows), kind.parameters()), 0.05)
        found = {(one.metric, one.subject.feature): one for one in results}
        for label in labels:
            for metric in ("completeness", "new_categories"):
                one, count = found[metric, label], counted(rows, label, metric)
                value = 1 - count / 5000 if metric == "completeness" else count / 5000
                assert one.value == pytest.approx(value, abs=1e-12)
                before = np.array([counted(part, label, metric) for part in quiet])
                nannyml = count > before.mean() + 3 * before.std()
                alarms += nannyml
                assert (one.verdict is Verdict.VIOLATED) == (nannyml and count - before.mean() >= 50), (number, label)
    assert alarms >= 5
