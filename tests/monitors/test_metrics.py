"""The metrics: what every one owes, scikit-learn on the same rows, and how near binned scores come to it."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sklearn
from sklearn.dummy import DummyClassifier

from monitors import discovery
from monitors.blocks import outcomes_of
from monitors.contract import Direction, Figure, Metric, Task
from monitors.layout import NumericLayout, OutcomeLayout
from monitors.metrics.cost import Cost
from monitors.tables import (
    BinaryTable,
    MulticlassTable,
    RegressionTable,
    Table,
    mean_scores,
    table_of,
    table_of_cells,
    table_of_rows,
)
from monitors.testing import MetricBattery
from tests.monitors.labelled import (
    CLASSES,
    binary_rows,
    layout_of,
    multiclass_rows,
    multilabel_rows,
    profiles_of,
    regression_rows,
)

every_metric: Callable[[Any], Any] = pytest.mark.parametrize(
    "metric", discovery.metrics().values(), ids=discovery.metrics().keys()
)
BINARY = OutcomeLayout("binary", ("0", "1"), "1")
TASKS = {
    "binary": Task(name="binary", classes=("0", "1"), positive_class="1"),
    "multiclass": Task(name="multiclass", classes=CLASSES),
    "multilabel": Task(name="multilabel", classes=CLASSES),
    "regression": Task(name="regression"),
}


ROWS = {
    "binary": binary_rows(4000, 1),
    "multiclass": multiclass_rows(4000, 2),
    "multilabel": multilabel_rows(1000, 3),
    "regression": regression_rows(4000, 4),
}
EXACT = {name: table_of_rows(rows, TASKS[name]) for name, rows in ROWS.items()}


def value(name: str, table: Table) -> float:
    return float(discovery.metrics()[name].value(table))


# --- what every metric owes -------------------------------------------------------------------------------------------


class TestEveryMetric(MetricBattery):
    @pytest.fixture(params=discovery.metrics().values(), ids=list(discovery.metrics()))
    def metric(self, request: pytest.FixtureRequest) -> Metric:
        found: Metric = request.param
        return found


@every_metric
def test_is_better_for_the_better_predictions(metric: Metric) -> None:
    """Turning a third of the labels over (or adding error) makes every metric with a side worse."""
    worse = {
        "binary": table_of_rows(binary_rows(4000, 1, flip=0.35), TASKS["binary"]),
        "multiclass": table_of_rows(multiclass_rows(4000, 2, flip=0.5), TASKS["multiclass"]),
        "regression": table_of_rows(regression_rows(4000, 4, off=9.0, noise=4.0), TASKS["regression"]),
    }
    for task in metric.tasks & set(worse):
        if not metric.applies(EXACT[task]):
            continue
        before, after = float(metric.value(EXACT[task])), float(metric.value(worse[task]))
        if metric.direction is Direction.DISTANCE_FROM_ZERO:
            assert abs(after) > abs(before)
        else:
            assert (after > before) is (metric.direction is Direction.HIGHER_IS_WORSE)


# --- scikit-learn on the same rows ------------------------------------------------------------------------------------


def test_binary_metrics_are_scikit_learns_on_the_same_rows() -> None:
    rows, table = ROWS["binary"], EXACT["binary"]
    y, p, s = (rows[name].to_numpy() for name in ("ground_truth", "prediction", "score"))
    expected = {
        "accuracy": sklearn.accuracy_score(y, p),
        "balanced_accuracy": sklearn.balanced_accuracy_score(y, p),
        "precision": sklearn.precision_score(y, p, pos_label="1"),
        "recall": sklearn.recall_score(y, p, pos_label="1"),
        "specificity": sklearn.recall_score(y, p, pos_label="0"),
        "f05": sklearn.fbeta_score(y, p, beta=0.5, pos_label="1"),
        "f1": sklearn.f1_score(y, p, pos_label="1"),
        "f2": sklearn.fbeta_score(y, p, beta=2, pos_label="1"),
        "mcc": sklearn.matthews_corrcoef(y, p),
        "roc_auc": sklearn.roc_auc_score(y, s),
        "average_precision": sklearn.average_precision_score(y, s, pos_label="1"),
        "log_loss": sklearn.log_loss(y, s),
        "brier": sklearn.brier_score_loss(y, s, pos_label="1"),
    }
    assert {name: value(name, table) for name in expected} == pytest.approx(expected, rel=1e-12)
    assert value("lift", table) == pytest.approx(expected["precision"] / np.mean(y == "1"), rel=1e-12)


def test_the_confusion_matrix_is_scikit_learns() -> None:
    for task in ("binary", "multiclass"):
        rows, table = ROWS[task], EXACT[task]
        assert isinstance(table, BinaryTable | MulticlassTable)
        expected = sklearn.confusion_matrix(rows["ground_truth"].to_numpy(), rows["prediction"].to_numpy())
        found = table.confusion if isinstance(table, BinaryTable) else table.confusion[:-1, :-1]
        assert found.tolist() == expected.tolist()


def test_metrics_of_many_classes_are_scikit_learns_on_the_same_rows() -> None:
    rows, table = ROWS["multiclass"], EXACT["multiclass"]
    y, p = (rows[name].to_numpy() for name in ("ground_truth", "prediction"))
    scores = np.stack([rows[f"scores.{name}"].to_numpy() for name in CLASSES], axis=1)
    expected = {"accuracy": sklearn.accuracy_score(y, p), "mcc": sklearn.matthews_corrcoef(y, p)}
    expected |= {"balanced_accuracy": sklearn.balanced_accuracy_score(y, p), "log_loss": sklearn.log_loss(y, scores)}
    expected["brier"] = float(((scores - (y[:, None] == np.array(CLASSES))) ** 2).sum(axis=1).mean())
    found = {name: value(name, table) for name in expected}
    for average in ("macro", "micro", "weighted"):
        for name, function in (("precision", sklearn.precision_score), ("recall", sklearn.recall_score)):
            expected[f"{name}_{average}"] = function(y, p, average=average)
        for name, beta in (("f05", 0.5), ("f1", 1), ("f2", 2)):
            expected[f"{name}_{average}"] = sklearn.fbeta_score(y, p, beta=beta, average=average)
    for average in ("macro", "weighted"):
        expected[f"roc_auc_{average}"] = sklearn.roc_auc_score(y, scores, multi_class="ovr", average=average)
        expected[f"average_precision_{average}"] = sklearn.average_precision_score(
            y[:, None] == np.array(CLASSES), scores, average=average
        )
    for metric in discovery.metrics().values():
        if "multiclass" in metric.tasks and metric.applies(table):
            found |= {figure.metric: float(part) for figure, part in metric.values(table).items() if not figure.class_}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    each = sklearn.f1_score(y, p, average=None)
    f1 = discovery.metrics()["f1"].values(table)
    assert [float(f1[Figure("f1", name)]) for name in CLASSES] == pytest.approx(each.tolist(), rel=1e-12)


def test_a_class_that_does_not_occur_counts_as_scikit_learn_counts_it() -> None:
    rows = ROWS["multiclass"].filter(pa.compute.not_equal(ROWS["multiclass"]["ground_truth"], "c"))
    table = table_of_rows(rows, TASKS["multiclass"])
    y, p = (rows[name].to_numpy() for name in ("ground_truth", "prediction"))
    found = discovery.metrics()["precision"].values(table)
    assert float(found[Figure("precision_macro")]) == pytest.approx(
        sklearn.precision_score(y, p, average="macro", zero_division=0), rel=1e-12
    )


def test_metrics_of_many_labels_are_scikit_learns_on_the_same_rows() -> None:
    rows, table = ROWS["multilabel"], EXACT["multilabel"]

    def members(name: str) -> Any:
        return np.array([[class_ in json.loads(row) for class_ in CLASSES] for row in rows[name].to_pylist()])

    y, p = members("ground_truth"), members("prediction")
    expected = {"accuracy": sklearn.accuracy_score(y, p), "hamming_loss": sklearn.hamming_loss(y, p)}
    found = {name: value(name, table) for name in expected}
    for average in ("macro", "micro", "weighted"):
        expected[f"f1_{average}"] = sklearn.f1_score(y, p, average=average)
    scores = np.stack([rows[f"scores.{name}"].to_numpy() for name in CLASSES], axis=1)
    expected["roc_auc_macro"] = sklearn.roc_auc_score(y, scores, average="macro")
    for name in ("f1", "roc_auc"):
        found |= {figure.metric: float(part) for figure, part in discovery.metrics()[name].values(table).items()}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_metrics_of_numbers_are_scikit_learns_on_the_same_rows() -> None:
    rows, table = ROWS["regression"], EXACT["regression"]
    y, p = (rows[name].to_numpy() for name in ("ground_truth", "prediction"))
    expected = {
        "mae": sklearn.mean_absolute_error(y, p),
        "mse": sklearn.mean_squared_error(y, p),
        "rmse": sklearn.root_mean_squared_error(y, p),
        "mape": sklearn.mean_absolute_percentage_error(y, p),
        "rmsle": sklearn.root_mean_squared_log_error(y, p),
        "r2": sklearn.r2_score(y, p),
        "mean_error": float(np.mean(p - y)),
        "residual_q05": float(np.quantile(p - y, 0.05, method="inverted_cdf")),
        "residual_median": float(np.quantile(p - y, 0.5, method="inverted_cdf")),
        "residual_q95": float(np.quantile(p - y, 0.95, method="inverted_cdf")),
    }
    assert {name: value(name, table) for name in expected} == pytest.approx(expected, rel=1e-9)


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_the_calibration_error_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # Ten rows at 0.2 of which 4 are positive (gap 0.2), thirty at 0.9 of which 27 are (gap 0): 10/40 * 0.2 = 0.05.
    cells = np.zeros((3, 3, 3))
    cells[0, 0], cells[1, 1] = [6, 3, 0], [4, 27, 0]
    table = BinaryTable(cells, np.array([0.2, 0.9]))
    assert value("expected_calibration_error", table) == pytest.approx(0.05)


def test_a_cost_matrix_prices_each_answer() -> None:
    # Labels good/bad: 5 good answered good (gain 1 each), 3 good answered bad (cost 2), 2 bad answered good (cost 10).
    cells = np.zeros((3, 3, 1))
    cells[1, 1, 0], cells[1, 0, 0], cells[0, 1, 0] = 5, 3, 2
    table = BinaryTable(cells, np.empty(0), ("bad", "good"))
    metric = Cost(matrix={"good": {"good": -1.0, "bad": 2.0}, "bad": {"good": 10.0}})
    assert float(metric.value(table)) == pytest.approx((-5 + 6 + 20) / 10)
    assert not Cost().applies(table)


def test_rows_without_a_label_or_a_prediction_do_not_count() -> None:
    rows = binary_rows(2000, 5, unlabelled=0.4)
    table = table_of_rows(rows, TASKS["binary"])
    kept = rows.filter(rows["ground_truth"].is_valid())
    assert isinstance(table, BinaryTable)
    assert float(table.labelled) == kept.num_rows
    assert value("f1", table) == pytest.approx(value("f1", table_of_rows(kept, TASKS["binary"])), rel=1e-12)


# --- from profiles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [0.0, -4.0, -7.0], ids=["half", "rare", "very-rare"])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0, *(pytest.param(by, marks=pytest.mark.long) for by in (-1.0, 1.0))])
def test_auc_of_binned_scores_is_exact_within_1e4_at_any_balance_however_scores_shift(
    base: float, shift: float
) -> None:
    """In expectation: a grid of scores with the weights of the two labels, so that chance plays no part."""
    layout = layout_of(binary_rows(40_000, 6, base=base), BINARY)
    z = np.linspace(-6, 6, 400_001)
    scores = 1 / (1 + np.exp(-(base + 1.5 * (z + shift))))
    rows = np.exp(-(z**2) / 2)
    positives, negatives = rows * scores, rows * (1 - scores)
    below = np.cumsum(negatives) - negatives / 2
    expected = float((positives * below).sum() / (positives.sum() * negatives.sum()))
    column = layout.columns["score"]
    assert isinstance(column, NumericLayout)
    assert not column.tied
    cell = np.searchsorted(column.edges, scores, side="right")
    cells = np.zeros((3, 3, column.cells + 1))
    for label, weights in enumerate((negatives, positives)):
        cells[label, 0, :-1] = np.bincount(cell, weights, column.cells)
    assert value("roc_auc", BinaryTable(cells, np.zeros(column.cells))) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("base", [0.0, -4.0, -7.0], ids=["half", "rare", "very-rare"])
@pytest.mark.parametrize("shift", [0.0, 3.0, pytest.param(-3.0, marks=pytest.mark.long)])
def test_metrics_of_a_profile_are_those_of_the_rows(base: float, shift: float) -> None:
    """The layout's scores have a standard deviation of 1.5 logits; the window's are moved by so many of them."""
    baseline = binary_rows(40_000, 6, base=base)
    window = binary_rows(60_000, 7, base=base, shift=1.5 * shift)
    layout = layout_of(baseline, BINARY)
    table = table_of(profiles_of(layout, [window])[0])
    assert isinstance(table, BinaryTable)
    y, s = window["ground_truth"].to_numpy() == "1", window["score"].to_numpy()
    if y.any():
        # Where in its cell each of few positives lies is chance: five sd of a cell's share, at most 1.7 % of the rows.
        near = max(1e-4, 5 * 0.017 / np.sqrt(12 * y.sum()))
        assert value("roc_auc", table) == pytest.approx(sklearn.roc_auc_score(y, s), abs=near)
    exact = table_of_rows(window, TASKS["binary"])
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "mcc"):
        assert value(name, table) == pytest.approx(value(name, exact), rel=1e-12, nan_ok=True)
    # A cell is at most 1/500 of the rows or 32/511 logits wide: p(1 - p) * 0.063 < 0.016 in the score.
    assert value("brier", table) == pytest.approx(value("brier", exact), abs=1e-4)
    assert value("log_loss", table) == pytest.approx(value("log_loss", exact), abs=1e-3)


def test_counts_of_many_classes_and_moments_come_back_from_a_profile_exactly() -> None:
    for task in ("multiclass", "multilabel", "regression"):
        rows = ROWS[task]
        layout = layout_of(rows, OutcomeLayout(task, () if task == "regression" else CLASSES))
        table = table_of(profiles_of(layout, [rows])[0])
        assert table is not None
        for metric in discovery.metrics().values():
            if task not in metric.tasks or not metric.applies(table):
                continue
            found, exact = metric.values(table), metric.values(EXACT[task])
            # Scores and residuals are in cells; all others are counts and sums.
            loose = metric.needs_scores or metric.name.startswith("residual")
            for figure, expected in exact.items():
                near = (0.05 if metric.name.startswith("residual") else 2e-3) if loose else 1e-9
                assert float(found[figure]) == pytest.approx(float(expected), abs=near, rel=1e-9), figure


def test_tables_of_several_profiles_lie_side_by_side_and_add_up() -> None:
    rows = ROWS["binary"]
    layout = layout_of(rows, BINARY)
    whole = profiles_of(layout, [rows])[0]
    parts = [part.outcome_cells for part in profiles_of(layout, [rows.slice(0, 1500), rows.slice(1500)])]
    cells = outcomes_of(layout, parts)
    assert cells is not None
    side_by_side = table_of_cells(layout, cells, mean_scores(whole))
    assert isinstance(side_by_side, BinaryTable)
    assert side_by_side.labelled.tolist() == [1500, 2500]
    total = side_by_side.with_parts([part.sum(axis=0) for part in side_by_side.parts()])
    assert value("roc_auc", total) == pytest.approx(value("roc_auc", table_of(whole) or total), rel=1e-12)


def test_putting_score_cells_together_keeps_decisions_and_nearly_keeps_rankings() -> None:
    table = table_of(profiles_of(layout_of(ROWS["binary"], BINARY), [ROWS["binary"]])[0])
    assert isinstance(table, BinaryTable)
    coarse = table.coarse()
    assert coarse.scores.size <= 64
    assert value("f1", coarse) == value("f1", table)
    assert value("roc_auc", coarse) == pytest.approx(value("roc_auc", table), abs=1e-3)


def test_groups_are_the_leading_axis() -> None:
    rows = ROWS["binary"].append_column("group.sex", pa.array(["F", "M"] * 2000))
    layout = layout_of(rows, OutcomeLayout("binary", ("0", "1"), "1", {"sex": ("F", "M")}))
    table = table_of(profiles_of(layout, [rows])[0], "sex")
    assert table is not None
    recall = discovery.metrics()["recall"].value(table)
    assert recall.shape == (4,)  # F, M, other, unknown
    for place, name in enumerate(("F", "M")):
        own = rows.filter(pa.compute.equal(rows["group.sex"], name))
        assert recall[place] == pytest.approx(value("recall", table_of_rows(own, TASKS["binary"])), rel=1e-12)
    assert np.isnan(recall[2:]).all()


def test_constants_are_the_best_that_can_be_said_without_looking() -> None:
    table = EXACT["binary"]
    share = float(np.mean(ROWS["binary"]["ground_truth"].to_numpy() == "1"))
    never, always = (value("accuracy", constant) for constant in table.constants())
    assert (never, always) == pytest.approx((1 - share, share))
    assert value("roc_auc", table.constants()[0]) == 0.5
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert value("log_loss", table.constants()[0]) == pytest.approx(entropy)
    mean = EXACT["regression"].constants()[0]
    assert isinstance(mean, RegressionTable)
    assert value("rmse", mean) == pytest.approx(float(ROWS["regression"]["ground_truth"].to_numpy().std()), rel=1e-9)
    assert value("r2", mean) == pytest.approx(0.0, abs=1e-9)


def test_constants_of_many_labels_are_scikit_learns_dummies() -> None:
    rows, table = ROWS["multilabel"], EXACT["multilabel"]
    y = np.array([[class_ in json.loads(text) for class_ in CLASSES] for text in rows["ground_truth"].to_pylist()])
    usual = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(y), 1)), y).predict(np.zeros((len(y), 1)))
    assert usual[0].tolist() == [True, True, False]
    none, every, often = table.constants()
    for found, given in ((none, np.zeros_like(y)), (every, np.ones_like(y)), (often, usual)):
        expected = {
            "f1_macro": sklearn.f1_score(y, given, average="macro", zero_division=0),
            "f1_micro": sklearn.f1_score(y, given, average="micro", zero_division=0),
            "f1_weighted": sklearn.f1_score(y, given, average="weighted", zero_division=0),
        }
        averages = {figure.metric: float(part) for figure, part in discovery.metrics()["f1"].values(found).items()}
        assert {name: averages[name] for name in expected} == pytest.approx(expected)
        assert value("hamming_loss", found) == pytest.approx(sklearn.hamming_loss(y, given))
        if found is not often:
            assert value("accuracy", found) == pytest.approx(sklearn.accuracy_score(y, given))
    assert np.isnan(value("accuracy", often))
    assert value("roc_auc", none) == 0.5
