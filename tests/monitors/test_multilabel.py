"""Models that give several classes at once: what their scores make one expect, beside scikit-learn on weighted rows."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sklearn
from sklearn.isotonic import IsotonicRegression

from monitors import discovery
from monitors.budget import BudgetPolicy
from monitors.contract import Figure, Result, Task, Verdict
from monitors.estimation import Calibration, estimable, measure_estimated
from monitors.exact import exact_profiles
from monitors.layout import OutcomeLayout
from monitors.performance import PerformanceParameters
from monitors.resampling import figures
from monitors.tables import Table, table_of
from tests.monitors.labelled import CLASSES, columns_of, multiclass_rows, multilabel_rows, profiles_of
from tests.monitors.measuring import Measuring

TASK = Task(name="multilabel", classes=CLASSES)
BASELINE, WINDOW = multilabel_rows(12_000, 1), multilabel_rows(2000, 2, shift=0.3)


def members(rows: pa.Table, name: str) -> Any:
    return np.array([[class_ in json.loads(row) for class_ in CLASSES] for row in rows[name].to_pylist()])


def expected_of_rows(baseline: pa.Table, window: pa.Table) -> dict[Figure, float]:
    """Return scikit-learn's figures of a window in which each row counts with the label and without it, by its chance.

    The chance of a class is that of scikit-learn's isotonic regression of the baseline's labels on the scores.
    """
    known = members(baseline, "ground_truth")
    given, scores, chances = members(window, "prediction"), [], []
    for place, name in enumerate(CLASSES):
        fitted = IsotonicRegression(out_of_bounds="clip").fit(baseline[f"scores.{name}"].to_numpy(), known[:, place])
        scores.append(window[f"scores.{name}"].to_numpy())
        chances.append(fitted.predict(scores[-1]))
    found: dict[Figure, float] = {}
    each: dict[str, list[float]] = {}
    label = np.repeat([True, False], window.num_rows)
    weights = [np.concatenate([chance, 1 - chance]) for chance in chances]
    for place, name in enumerate(CLASSES):
        answer, score = np.tile(given[:, place], 2), np.tile(scores[place], 2)
        own: dict[str, Any] = {"sample_weight": weights[place]}
        figures_ = {
            "f1": sklearn.f1_score(label, answer, **own),
            "precision": sklearn.precision_score(label, answer, **own),
            "recall": sklearn.recall_score(label, answer, **own),
            "roc_auc": sklearn.roc_auc_score(label, score, **own),
            "average_precision": sklearn.average_precision_score(label, score, **own),
        }
        for metric, value in figures_.items():
            found[Figure(metric, name)] = float(value)
            each.setdefault(metric, []).append(float(value))
    support = [float(chance.sum()) for chance in chances]
    for metric, values in each.items():
        found[Figure(f"{metric}_macro")] = float(np.mean(values))
        found[Figure(f"{metric}_weighted")] = float(np.average(values, weights=support))
    together: dict[str, Any] = {"sample_weight": np.concatenate(weights)}
    asked = np.tile(label, 3), np.concatenate([np.tile(given[:, place], 2) for place in range(3)])
    found[Figure("f1_micro")] = float(sklearn.f1_score(*asked, **together))
    found[Figure("precision_micro")] = float(sklearn.precision_score(*asked, **together))
    found[Figure("hamming_loss")] = float(sklearn.zero_one_loss(*asked, **together))
    return found


def expected_of(baseline: Table | None, window: Table | None) -> dict[Figure, float]:
    assert baseline is not None
    assert window is not None
    calibration = Calibration.of(baseline)
    assert calibration is not None
    metrics = estimable(PerformanceParameters.model_validate({}).chosen(window), window)
    return {figure: float(value) for figure, value in figures(metrics, calibration.expected(window)).items()}


def measured(name: str, measuring: Measuring, window: pa.Table, **how: int) -> list[Result]:
    kind = discovery.kinds()[name]
    return kind.measure(measuring.against(window, **how), kind.parameters())


def alarms(results: list[Result], alpha: float = 0.01) -> list[str]:
    return [one.metric for one in BudgetPolicy().judge(results, alpha) if one.verdict is Verdict.VIOLATED]


@pytest.fixture(scope="module")
def quiet() -> Measuring:
    return Measuring(BASELINE, TASK, blocks=20)


# --- what is expected -------------------------------------------------------------------------------------------------


def test_expected_figures_of_rows_are_scikit_learns_on_rows_weighted_by_the_chance_of_each_class() -> None:
    rows = BASELINE.slice(0, 5000), WINDOW.slice(0, 1000)
    profiles = exact_profiles(columns_of(BASELINE), *rows, outcomes=OutcomeLayout("multilabel", CLASSES))
    baseline, window = (table_of(profile, like=profiles[0]) for profile in profiles)
    wanted, found = expected_of_rows(*rows), expected_of(baseline, window)
    assert {figure: found[figure] for figure in wanted} == pytest.approx(wanted, rel=1e-9)


def test_expected_figures_of_a_profile_of_1024_bins_are_within_5e3_of_those_of_the_rows(quiet: Measuring) -> None:
    """The bound that CBPE has to keep on NannyML's sets (expected.md 5.3)."""
    (profile,) = profiles_of(quiet.layout, [WINDOW])
    wanted = expected_of_rows(BASELINE, WINDOW)
    found = expected_of(table_of(quiet.profile), table_of(profile, like=quiet.profile))
    assert {figure: found[figure] for figure in wanted} == pytest.approx(wanted, abs=5e-3)


@pytest.mark.long
def test_the_expected_lies_in_its_interval_and_so_does_the_realised_of_nearly_every_quiet_window() -> None:
    """One realised figure in 20 may lie outside; of 20 windows four or more would by chance once in 60 times."""
    measuring = Measuring(BASELINE, TASK)
    outside: dict[str, int] = {}
    for seed in range(20):
        found = measured("estimated_performance", measuring, multilabel_rows(500, 100 + seed))
        realised = {one.metric: one for one in found if not one.estimated and one.subject.class_ is None}
        for one in found:
            if not one.estimated or one.subject.class_ is not None or one.value is None:
                continue
            assert one.interval is not None
            assert one.interval[0] <= one.value <= one.interval[1]
            value = realised[one.metric].value
            assert value is not None
            outside[one.metric] = outside.get(one.metric, 0) + (not one.interval[0] <= value <= one.interval[1])
    assert max(outside.values()) <= 3, outside


# --- what moves what --------------------------------------------------------------------------------------------------


def test_a_quiet_window_alarms_neither_with_labels_nor_without(quiet: Measuring) -> None:
    window = multilabel_rows(1000, 3)
    estimated = measured("estimated_performance", quiet, window, buckets=24)
    assert [one.metric for one in estimated if one.decides] == ["f1_macro", "roc_auc_macro"]
    assert all(one.p_value is not None and one.min_effect is not None for one in estimated if one.decides)
    assert not any("estimate is wrong" in one.note for one in estimated)
    assert not alarms(estimated)
    for name in ("performance", "concept_drift"):
        assert not alarms(measured(name, quiet, window, buckets=24)), name


def test_each_figure_stands_beside_the_best_constant_answer(quiet: Measuring) -> None:
    found = {one.metric: one for one in measured("performance", quiet, multilabel_rows(1000, 3)) if one.decides}
    assert list(found) == ["accuracy", "f1_macro", "roc_auc_macro"]
    for one in found.values():
        assert one.constant_value is not None
        assert one.value is not None
        assert one.value > one.constant_value


@pytest.mark.parametrize(
    "name",
    ["concept_drift", *(pytest.param(f"{which}performance", marks=pytest.mark.long) for which in ("", "estimated_"))],
)
def test_without_quiet_blocks_it_is_said_that_classes_are_taken_for_independent(name: str) -> None:
    first = measured(name, Measuring(BASELINE, TASK), multilabel_rows(500, 8))[0]
    assert first.note.startswith("calibrating, 0 of 20: assumes independent rows and classes")


def test_wrong_labels_are_told_beside_the_estimate_that_does_not_see_them(quiet: Measuring) -> None:
    window = multilabel_rows(1000, 4, flip=0.25)
    estimated = measured("estimated_performance", quiet, window, buckets=24)
    assert not alarms(estimated)
    f1 = next(one for one in estimated if one.metric == "f1_macro" and one.estimated)
    assert "beyond both intervals" in f1.note
    realised = next(one for one in estimated if one.metric == "f1_macro" and not one.estimated)
    truth = sklearn.f1_score(members(window, "ground_truth"), members(window, "prediction"), average="macro")
    assert realised.value == pytest.approx(truth)
    assert {"f1_macro_concept_part", "calibration_shift"} <= set(alarms(measured("concept_drift", quiet, window)))


def test_rarer_classes_lower_what_is_expected_before_any_label_is_known(quiet: Measuring) -> None:
    window = multilabel_rows(1000, 5, shift=-1.0)
    labelled = measured("estimated_performance", quiet, window)
    assert "f1_macro" in alarms(labelled)
    blind = window.set_column(
        window.schema.get_field_index("ground_truth"), "ground_truth", pa.nulls(window.num_rows, pa.string())
    )
    without = measured("estimated_performance", quiet, blind)
    assert all(one.estimated for one in without)
    told = {(one.metric, one.subject.class_): one.value for one in labelled if one.estimated}
    assert {(one.metric, one.subject.class_): one.value for one in without} == told
    assert not alarms(measured("concept_drift", quiet, window))


# --- what cannot be told ----------------------------------------------------------------------------------------------


def test_how_often_all_classes_of_a_row_are_right_is_not_estimated_and_counts_where_it_was_asked_for(
    quiet: Measuring,
) -> None:
    comparison = quiet.against(multilabel_rows(500, 6))
    (shown,) = (one for one in measure_estimated(comparison, PerformanceParameters()) if one.metric == "accuracy")
    assert "one at a time" in shown.reason
    assert (shown.decides, shown.verdict) == (False, None)
    asked = measure_estimated(comparison, PerformanceParameters(metrics=["accuracy"]))
    assert [(one.metric, one.verdict) for one in asked if one.decides] == [("accuracy", Verdict.NOT_MEASURED)]


def test_a_class_without_scores_is_named(quiet: Measuring) -> None:
    (only,) = measured("estimated_performance", Measuring(BASELINE.drop_columns(["scores.b"]), TASK), WINDOW)
    assert only.reason == "multilabel models are estimated by the scores of each class, and b has none"
    names = [f"scores.{name}" for name in CLASSES]
    (only,) = measured("estimated_performance", Measuring(BASELINE.drop_columns(names), TASK), WINDOW)
    assert only.reason == "multilabel models are estimated by the scores of each class, and there are none"
    rows, many = multiclass_rows(2000, 7), Task(name="multiclass", classes=CLASSES)
    (only,) = measured("estimated_performance", Measuring(rows.drop_columns(["scores.c"]), many), rows)
    assert only.reason == "multiclass models are estimated by the scores of each class, and c has none"
