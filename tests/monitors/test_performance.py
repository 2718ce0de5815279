"""Performance, estimated performance and concept drift: other systems' figures, and what changes move which part."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from monitors import discovery
from monitors.budget import BudgetPolicy
from monitors.concept import scored_alike
from monitors.contract import Figure, Kind, Result, Task, Verdict
from monitors.estimation import Aligned, Calibration
from monitors.performance import Labelled
from monitors.tables import BinaryTable, MulticlassTable, table_of, table_of_rows
from tests.monitors.labelled import CLASSES, binary_rows, multiclass_rows, profiles_of, regression_rows
from tests.monitors.measuring import Measuring

BINARY = Task(name="binary", classes=("0", "1"), positive_class="1")
MANY = Task(name="multiclass", classes=CLASSES)
NUMBERS = Task(name="regression")


def kind(name: str) -> Kind:
    return discovery.kinds()[name]


def measured(name: str, measuring: Measuring, window: pa.Table, **how: int) -> list[Result]:
    return kind(name).measure(measuring.against(window, **how), kind(name).parameters())


def alarms(results: Sequence[Result], alpha: float = 0.01) -> list[str]:
    return [one.metric for one in BudgetPolicy().judge(results, alpha) if one.verdict is Verdict.VIOLATED]


# --- other systems' figures -------------------------------------------------------------------------------------------


def car_loan(folder: Path, name: str) -> pa.Table:
    rows = pq.read_table(folder / f"synthetic_car_loan_{name}.parquet")
    if "repaid" not in rows.schema.names:
        targets = pq.read_table(folder / "synthetic_car_loan_analysis_target.parquet")
        order = np.argsort(targets["id"].to_numpy())
        place = order[np.searchsorted(targets["id"].to_numpy(), rows["id"].to_numpy(), sorter=order)]
        rows = rows.append_column("repaid", targets["repaid"].take(pa.array(place)))
    return pa.table(
        {
            "score": rows["y_pred_proba"].cast(pa.float64()),
            "prediction": rows["y_pred"].cast(pa.int64()).cast(pa.string()),
            "ground_truth": rows["repaid"].cast(pa.float64()).cast(pa.int64()).cast(pa.string()),
        }
    )


def published(data: Path, path: str, metric: str, column: str, period: str = "analysis") -> list[float]:
    table = pa.csv.read_csv(data / "reference_outputs" / "nannyml" / path).to_pylist()
    return [row[f"{metric}|{column}"] for row in table if row["chunk|period"] == period]


def chunks(rows: pa.Table, size: int) -> list[pa.Table]:
    return [rows.slice(start, size) for start in range(0, rows.num_rows, size)]


@pytest.fixture(scope="module")
def loans(shared_data: Path) -> tuple[Measuring, list[pa.Table]]:
    folder = shared_data / "nannyml_car_loan"
    return Measuring(car_loan(folder, "reference"), BINARY), chunks(car_loan(folder, "analysis"), 5000)


def auc_bound(table: BinaryTable) -> float:
    """Return how far the AUC of binned scores may be off: pairs of one cell count half, right or wrong as they are."""
    negative, positive = table.scored
    return float((negative * positive).sum() / (2 * negative.sum() * positive.sum()))


def test_realised_figures_of_car_loan_are_nannymls(loans: tuple[Measuring, list[pa.Table]], shared_data: Path) -> None:
    """expected.md 5.4: from the rows to 1e-6, from the profile as exactly, but for AUC the pairs of one cell."""
    measuring, windows = loans
    tables = [table_of(profile) for profile in profiles_of(measuring.layout, windows)]
    for name in ("roc_auc", "f1", "precision", "recall", "specificity", "accuracy"):
        expected = published(shared_data, "car_loan_realized.csv", name, "value")
        metric = discovery.metrics()[name]
        exact = [float(metric.value(table_of_rows(window, BINARY))) for window in windows]
        assert exact == pytest.approx(expected, abs=1e-6)
        for table, value in zip(tables, expected, strict=True):
            assert isinstance(table, BinaryTable)
            bound = auc_bound(table) if name == "roc_auc" else 0.0
            assert abs(float(metric.value(table)) - value) <= min(bound, 1e-4) + 1e-6, name
            assert bound < 5e-3


def test_estimated_figures_of_car_loan_are_within_5e3_of_nannymls(
    loans: tuple[Measuring, list[pa.Table]], shared_data: Path
) -> None:
    """expected.md 5.3, from the profile alone."""
    measuring, windows = loans
    calibration = Calibration.of(table_of(measuring.profile) or pytest.fail("no labels"))
    assert calibration is not None
    for name in ("roc_auc", "f1", "precision", "recall", "specificity", "accuracy", "average_precision"):
        expected = published(shared_data, "car_loan_cbpe.csv", name, "value")
        tables = [table_of(profile) for profile in profiles_of(measuring.layout, windows)]
        found = [float(discovery.metrics()[name].value(calibration.expected(table))) for table in tables if table]
        assert found == pytest.approx(expected, abs=5e-3), name
    for place in (0, 9):
        shown = measured("estimated_performance", measuring, windows[place])
        told = {(one.metric, one.estimated): one.value for one in shown}
        assert told["roc_auc", True] == pytest.approx(
            published(shared_data, "car_loan_cbpe.csv", "roc_auc", "value")[place], abs=5e-3
        )
        assert told["roc_auc", False] == pytest.approx(
            published(shared_data, "car_loan_realized.csv", "roc_auc", "value")[place], abs=1e-4
        )


def test_realised_and_estimated_figures_of_many_classes_are_nannymls_and_their_difference_is_told(
    shared_data: Path,
) -> None:
    """expected.md 5.5: the concept changes at row 30,000, where the estimate stays up and the labels say otherwise."""
    folder = shared_data / "nannyml_multiclass_credit_card"
    names = ("prepaid_card", "highstreet_card", "upmarket_card")
    truth = pq.read_table(folder / "mc_analysis_gt.parquet")["y_true"]

    def rows(name: str) -> pa.Table:
        table = pq.read_table(folder / f"mc_{name}.parquet")
        label = table["y_true"] if "y_true" in table.schema.names else truth
        scores = {f"scores.{one}": table[f"y_pred_proba_{one}"].cast(pa.float64()) for one in names}
        return pa.table(scores | {"prediction": table["y_pred"], "ground_truth": label})

    task = Task(name="multiclass", classes=names)
    measuring = Measuring(rows("reference"), task, blocks=20)
    windows = chunks(rows("analysis"), 6000)
    realised = published(shared_data, "multiclass_realized.csv", "roc_auc", "value")
    metric = discovery.metrics()["roc_auc"]
    exact = [metric.values(table_of_rows(window, task))[Figure("roc_auc_macro")] for window in windows]
    assert [float(value) for value in exact] == pytest.approx(realised, abs=1e-5)
    right = published(shared_data, "multiclass_realized.csv", "accuracy", "value")
    profiles = profiles_of(measuring.layout, windows)
    for profile, ranked, accuracy in zip(profiles, realised, right, strict=True):
        table = table_of(profile)
        assert isinstance(table, MulticlassTable)
        assert float(discovery.metrics()["accuracy"].value(table)) == pytest.approx(accuracy, abs=1e-5)
        bound = float(np.mean([auc_bound(question) for question in table.asked.values()]))
        assert abs(float(metric.values(table)[Figure("roc_auc_macro")]) - ranked) <= min(bound, 1e-4) + 1e-5
        assert bound < 1e-2
    estimated = published(shared_data, "multiclass_cbpe.csv", "roc_auc", "value")
    for place in (4, 5):
        found = measured("estimated_performance", measuring, windows[place], buckets=24)
        auc = next(one for one in found if one.metric == "roc_auc_macro" and one.estimated)
        assert auc.value == pytest.approx(estimated[place], abs=6e-3)
        assert ("so the estimate is wrong" in auc.note) is (place >= 5)
        drifted = alarms(measured("concept_drift", measuring, windows[place], buckets=24))
        assert ("roc_auc_macro_concept_part" in drifted) is (place >= 5)


def test_regression_figures_are_those_of_model_monitors_container(shared_data: Path) -> None:
    """expected.md 3.7, where the SDK's test took Label for the inference and Prediction for the truth."""
    found = sorted((shared_data / "sagemaker").rglob("*model_quality__baseline_dataset__b80cb6b0.csv"))
    if not found:
        pytest.skip("the container's regression data set is not there")
    rows = pa.csv.read_csv(found[0])
    table = table_of_rows(pa.table({"prediction": rows["Label"], "ground_truth": rows["Prediction"]}), NUMBERS)
    expected = {
        "mae": 0.5040653554420981,
        "mse": 0.33364933609800973,
        "rmse": 0.5776238707827177,
        "r2": -3.208758170289026,
    }
    for name, value in expected.items():
        assert float(discovery.metrics()[name].value(table)) == pytest.approx(value, rel=1e-12)


# --- what moves what --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quiet() -> Measuring:
    return Measuring(binary_rows(30_000, 1), BINARY, blocks=30)


def test_a_quiet_window_is_quiet_and_its_figures_lie_in_their_intervals(quiet: Measuring) -> None:
    found = measured("performance", quiet, binary_rows(1000, 2), buckets=24)
    assert not alarms(found)
    for one in found:
        if one.interval is not None and one.value is not None:
            assert one.interval[0] <= one.value <= one.interval[1]
    deciding = [one.metric for one in found if one.decides]
    assert deciding == ["accuracy", "f1", "roc_auc"]
    assert all(one.p_value is not None and one.min_effect is not None and one.constant_value for one in found[:3])


def test_wrong_labels_are_found_as_worse_performance_and_as_concept_drift_and_not_by_the_estimate(
    quiet: Measuring,
) -> None:
    window = binary_rows(1000, 3, flip=0.25)
    assert alarms(measured("performance", quiet, window, buckets=24)) == ["accuracy", "f1", "roc_auc"]
    assert "accuracy_concept_part" in alarms(measured("concept_drift", quiet, window))
    estimated = measured("estimated_performance", quiet, window)
    assert not alarms(estimated)
    assert "beyond both intervals" in estimated[0].note


def test_other_inputs_are_a_covariate_part_and_no_concept_drift(quiet: Measuring) -> None:
    """Scores near one half are harder: performance falls by what the scores themselves expect."""
    window = binary_rows(6000, 4)
    window = window.filter(pa.compute.less(pa.compute.abs(pa.compute.subtract(window["score"], 0.5)), 0.25))
    window = window.slice(0, 1000)
    assert "accuracy" in alarms(measured("performance", quiet, window))
    assert "accuracy" in alarms(measured("estimated_performance", quiet, window))
    found = measured("concept_drift", quiet, window)
    assert not alarms(found)
    parts = {one.metric: one for one in found}
    assert (parts["accuracy_covariate_part"].value or 0) < -0.05
    assert abs(parts["accuracy_concept_part"].value or 1) < 0.05


def test_without_quiet_blocks_concept_drift_is_judged_by_the_chance_of_the_labels_alone() -> None:
    alone = Measuring(binary_rows(10_000, 1), BINARY)
    found = measured("concept_drift", alone, binary_rows(1000, 3, flip=0.25))
    parts = {one.metric: one for one in found if one.decides}
    assert all(one.p_value is not None for one in parts.values())
    assert parts["accuracy_concept_part"].note.startswith("calibrating")
    assert "accuracy_concept_part" in alarms(found)
    assert not alarms(measured("concept_drift", alone, binary_rows(1000, 2)))


def test_blocks_are_weighted_to_the_scores_of_the_window() -> None:
    """Labels keep their rates given the score; 16 groups of score cells get the window's shares, and no row is lost."""
    measuring = Measuring(binary_rows(12_000, 1), BINARY, blocks=30)
    comparison = measuring.against(binary_rows(2000, 2, shift=1.0))
    labelled = Labelled.of(comparison)
    assert labelled is not None
    assert labelled.baseline is not None
    aligned = Aligned.of(labelled.window, labelled.baseline, labelled.blocks)
    assert isinstance(aligned.window, BinaryTable)
    assert isinstance(aligned.blocks, BinaryTable)
    alike = scored_alike(aligned.blocks, aligned.window)
    assert isinstance(alike, BinaryTable)
    shares = [
        np.cumsum(part / part.sum()) for part in (aligned.window.scored.sum(axis=0), alike.scored.sum(axis=(0, 1)))
    ]
    before = aligned.blocks.scored.sum(axis=(0, 1))
    assert np.abs(np.cumsum(before / before.sum()) - shares[0]).max() > 0.2
    assert np.abs(shares[1] - shares[0]).max() < 1 / 16
    assert float(alike.rows.sum()) == pytest.approx(float(aligned.blocks.rows.sum()), rel=1e-9)
    rates = [(part[1] / part.sum(axis=0)) for part in (alike.scored.sum(axis=0), aligned.blocks.scored.sum(axis=0))]
    assert rates[0] == pytest.approx(rates[1])


def test_labels_that_are_not_a_fair_sample_are_told(quiet: Measuring) -> None:
    window = binary_rows(2000, 5)
    score, known = window["score"].to_numpy(), window["ground_truth"].to_numpy()
    label = np.where(score > 0.5, known, None)
    window = window.set_column(
        window.schema.get_field_index("ground_truth"), "ground_truth", pa.array(label, pa.string())
    )
    found = measured("performance", quiet, window)
    assert any("labelled rows do not look like unlabelled ones" in one.note for one in found)
    fair = measured("performance", quiet, binary_rows(2000, 6, unlabelled=0.5))
    assert not any("labelled rows do not look like unlabelled ones" in one.note for one in fair)
    assert fair[0].label_coverage == pytest.approx(0.5, abs=0.05)


def test_a_window_without_labels_says_so(quiet: Measuring) -> None:
    (only,) = measured("performance", quiet, binary_rows(500, 7, unlabelled=1.0))
    assert only.reason == "no row of the window has a label"


def test_the_loss_of_numbers_is_expected_without_labels_and_told_to_be_wrong_with_them() -> None:
    measuring = Measuring(regression_rows(2000, 8), NUMBERS)
    quiet = measured("estimated_performance", measuring, regression_rows(800, 9))
    assert not alarms(quiet)
    assert all("estimate is wrong" not in one.note for one in quiet)
    worse = regression_rows(800, 10, noise=2.0)
    assert "estimate is wrong" in measured("estimated_performance", measuring, worse)[0].note
    assert "mae_concept_part" in alarms(measured("concept_drift", measuring, worse))
    # Dearer cars have larger errors, which inputs tell.
    dear = regression_rows(8000, 11)
    dear = dear.filter(pa.compute.greater(dear["features.x"], 25.0)).slice(0, 800)
    found = measured("estimated_performance", measuring, dear)
    assert "mae" in alarms(found)
    truth = float(np.abs(dear["prediction"].to_numpy() - dear["ground_truth"].to_numpy()).mean())
    assert found[0].value == pytest.approx(truth, rel=0.1)


def test_detectors_see_the_error_rate_change_once_and_are_fed_from_there(quiet: Measuring) -> None:
    window = pa.concat_tables([binary_rows(1500, 12), binary_rows(1500, 13, flip=0.4)])
    found = {one.metric: one for one in measured("concept_drift", quiet, window)}
    assert (found["adwin"].value or 0) >= 1
    assert found["adwin"].detected_at is not None
    assert (found["hddm_w"].value or 0) >= 1


def test_two_classes_asked_as_many_are_the_binary_model() -> None:
    """One-vs-rest of two classes: the AUC of either is that of the model."""
    rows = binary_rows(2000, 14)
    score = rows["score"].to_numpy()
    both = pa.table(
        {
            "scores.0": 1 - score,
            "scores.1": score,
            "prediction": rows["prediction"],
            "ground_truth": rows["ground_truth"],
        }
    )
    many = table_of_rows(both, Task(name="multiclass", classes=("0", "1")))
    metric = discovery.metrics()["roc_auc"]
    alone = table_of_rows(rows, BINARY)
    assert isinstance(alone, BinaryTable)
    assert float(metric.values(many)[Figure("roc_auc_macro")]) == pytest.approx(float(metric.value(alone)))


def test_many_classes_are_measured_whole() -> None:
    measuring = Measuring(multiclass_rows(6000, 15), MANY, blocks=24)
    found = measured("performance", measuring, multiclass_rows(600, 16), buckets=24)
    assert [one.metric for one in found if one.decides] == ["accuracy", "f1_macro", "roc_auc_macro"]
    assert {one.subject.class_ for one in found if one.metric == "recall"} == set(CLASSES)
