"""Many columns at once: NannyML's figures, hand-worked values, false alarms, and what is found."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from scipy.stats import binom

from monitors import discovery
from monitors.contract import Column, Result, Type
from monitors.exact import exact_comparison
from monitors.kinds.domain_classifier import auc_of, cross_validated, prequential
from monitors.kinds.mmd import kernel, squared
from monitors.kinds.mmd import tested as compared_vectors
from monitors.kinds.pca_reconstruction import Reconstruction
from monitors.multivariate import exponential_tail, mean_difference, vectors
from monitors.testing import START, comparison, feature, sample, usual_comparison, usual_rows

CATEGORIES = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")
COLUMNS = [
    feature(name, Type.CATEGORICAL if name in CATEGORIES else Type.NUMERIC)
    for name in ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure", *CATEGORIES)
]


def car_loan(shared_data: Path, part: str) -> pa.Table:
    table = pq.read_table(shared_data / "nannyml_car_loan" / f"synthetic_car_loan_{part}.parquet")
    return table.select([column.label for column in COLUMNS]).rename_columns([column.name for column in COLUMNS])


def test_pca_reconstruction_is_nannymls_figure_of_every_chunk_of_car_loan(shared_data: Path) -> None:
    # reference/expected.md 5.2 and reference_outputs/nannyml/car_loan_pca_reconstruction_chunk5000.csv
    figures = pa.csv.read_csv(
        shared_data / "reference_outputs" / "nannyml" / "car_loan_pca_reconstruction_chunk5000.csv"
    )
    expected = figures["reconstruction_error|value"].to_numpy()
    fitted = Reconstruction.fit(COLUMNS, car_loan(shared_data, "reference"))
    found = [
        fitted.errors(car_loan(shared_data, part)).reshape(10, -1).mean(axis=1) for part in ("reference", "analysis")
    ]
    assert np.concatenate(found) == pytest.approx(expected, abs=1e-5)
    old, new = car_loan(shared_data, "reference"), car_loan(shared_data, "analysis").slice(25_000, 5000)
    compared = exact_comparison(
        COLUMNS, old, new, generator=lambda metric, _: np.random.default_rng([*metric.encode()])
    )
    kind = discovery.kinds()["pca_reconstruction"]
    (result,) = kind.measure(compared, kind.parameters())
    assert result.value == pytest.approx(expected[15], abs=1e-5)


@pytest.mark.parametrize(
    ("first", "drifted"),
    [pytest.param(0, False, marks=pytest.mark.long, id="quiet"), pytest.param(25_000, True, id="drifted")],
)
def test_the_domain_classifier_agrees_with_nannymls_lightgbm_on_car_loan(
    first: int, drifted: bool, shared_data: Path
) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    numbers = [column.name for column in COLUMNS if column.type is Type.NUMERIC]
    rows = {
        part: car_loan(shared_data, part).select(numbers).to_pandas().to_numpy() for part in ("reference", "analysis")
    }
    old, new = rows["reference"][:5000], rows["analysis"][first : first + 5000]
    ours, lost = cross_validated(old, new, np.random.default_rng(1))
    model = lightgbm.LGBMClassifier(verbosity=-1, n_jobs=1)
    folds = StratifiedKFold(5, shuffle=True, random_state=1)
    theirs = cross_val_score(model, np.vstack([old, new]), np.repeat([0, 1], 5000), cv=folds, scoring="roc_auc")
    assert ours == pytest.approx(float(theirs.mean()), abs=0.02)
    assert (ours > 0.65) == drifted  # NannyML's thresholds are 0.45 and 0.65
    assert (numbers[int(np.argmax(lost))] == "features.car_value") or not drifted


def test_the_area_under_the_curve_counts_ties_half() -> None:
    # new 2, 3 against old 1, 2: above, above, tie, above
    assert auc_of(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True])) == pytest.approx(3.5 / 4)


def test_the_squared_discrepancy_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # Old 0, 0 and new 1, 1 at width 1: within 1 and 1, across exp(-1/2): 1 + 1 - 2 exp(-1/2)
    gram = kernel(np.array([[0.0], [0.0], [1.0], [1.0]]), 1.0)
    assert squared(gram, np.array([0.0, 0.0, 1.0, 1.0])) == pytest.approx(2 - 2 * np.exp(-0.5))
    # Old 0, 1 and new 0, 1: within exp(-1/2) each, across (1 + exp(-1/2)) / 2: unbiased, so below 0
    gram = kernel(np.array([[0.0], [1.0], [0.0], [1.0]]), 1.0)
    assert squared(gram, np.array([0.0, 0.0, 1.0, 1.0])) == pytest.approx(np.exp(-0.5) - 1)


def test_the_kernel_is_as_wide_as_the_median_distance() -> None:
    # distances 1, 2 and 3: exp(-9 / (2 * 4)) between the outer two
    assert kernel(np.array([[0.0], [1.0], [3.0]]))[0, 2] == pytest.approx(np.exp(-9 / 8))


def few(alarms: int, trials: int, level: float) -> bool:
    """Whether so many alarms are what chance gives at a level: not beyond its 99.9 % quantile."""
    return alarms <= int(binom.ppf(0.999, trials, level))


def alarms(trials: int, level: float, seed: int) -> tuple[int, int]:
    """Return how many of so many quiet pairs of samples alarm, by vectors and by means."""
    g = np.random.default_rng(seed)
    by_vectors = by_means = 0
    for _ in range(trials):
        by_vectors += compared_vectors(g.normal(size=(40, 3)), g.normal(size=(30, 3)), g)[1] <= level
        by_means += mean_difference(g.exponential(size=150), g.exponential(size=40), g) <= level
    return by_vectors, by_means


def test_quiet_rows_alarm_no_more_often_than_the_level_says() -> None:
    assert all(few(found, 60, 0.1) for found in alarms(60, 0.1, 5))


def test_the_classifier_is_as_sure_of_quiet_rows_as_chance_is() -> None:
    # p-values of quiet rows are uniform: the mean of 8 is 1/2 with a deviation of sqrt(1 / 96) = 0.102, and below
    # 1/2 - 3.1 * 0.102 = 0.18 once in a thousand; a classifier that alarmed on one window in two would be there
    g = np.random.default_rng(6)
    found = [prequential(g.normal(size=(100, 2)), g.normal(size=(50, 2)), g) for _ in range(8)]
    assert np.mean(found) >= 0.18


@pytest.mark.long
def test_a_thousand_quiet_pairs_alarm_no_more_often_than_the_level_says() -> None:
    assert all(few(found, 1000, 0.01) for found in alarms(1000, 0.01, 7))


def test_the_tail_beyond_the_draws_is_an_exponentials() -> None:
    # The quantiles of an exponential themselves: P(X > 9) = exp(-9)
    draws = -np.log(1 - (np.arange(999) + 0.5) / 999)
    assert exponential_tail(9.0, draws) == pytest.approx(np.exp(-9), rel=0.25)
    # A normal's tail is lighter: the chance of 4 standard deviations, 3.2e-5, is overstated, never understated
    assert 3.2e-5 < exponential_tail(4.0, np.random.default_rng(1).normal(size=999)) < 2e-3


def measured(kind: str, compared: Any) -> Result:
    found = discovery.kinds()[kind]
    return next(one for one in found.measure(compared, found.parameters()) if one.decides)


def test_a_broken_correlation_is_found_although_no_column_moved() -> None:
    rows = usual_rows(600, seed=3)
    rows["pay"] = np.random.default_rng(4).permutation(rows["pay"])
    for kind in ("domain_classifier", "pca_reconstruction"):
        result = measured(kind, usual_comparison(rows))
        assert result.p_value is not None
        assert result.p_value < 1e-4
        assert result.effect is not None
        assert result.min_effect is not None
        assert result.effect > result.min_effect
    drift = discovery.kinds()["data_drift"]
    quiet = drift.measure(usual_comparison(rows), drift.parameters())
    assert all((one.p_value or 1.0) > 1e-3 for one in quiet)


def test_the_classifier_names_the_column_that_moved() -> None:
    rows = usual_rows(500, seed=3)
    rows["job"] = np.where(np.random.default_rng(4).random(500) < 0.8, "pilot", rows["job"])
    kind = discovery.kinds()["domain_classifier"]
    result, *importances = kind.measure(usual_comparison(rows), kind.parameters())
    assert "AUC lost without: job" in result.note
    assert importances[0].subject.feature == "job"
    assert not importances[0].decides


def embedding(number: int, seed: int, shift: float = 0.0) -> dict[str, Any]:
    return {"text": list(np.random.default_rng(seed).normal(shift, 1, (number, 6)))}


TEXT = [Column(name="features.text", role=feature("x").role, type=Type.EMBEDDING)]


def test_moved_embeddings_are_found_and_quiet_ones_are_not() -> None:
    moved = measured("mmd", with_rows(embedding(800, 1), embedding(200, 2, shift=0.5)))
    assert moved.p_value is not None
    assert moved.p_value < 1e-3
    assert moved.value is not None
    assert moved.value > 0.01
    quiet = measured("mmd", with_rows(embedding(800, 1), embedding(200, 3)))
    assert quiet.p_value is not None
    assert quiet.p_value > 0.01


def with_rows(baseline: Any, window: Any) -> Any:
    """Return a comparison of embeddings, which have row samples and no distribution in the profile."""
    number = feature("n")
    columns = [number, *TEXT]
    extra = [{"n": np.zeros(len(rows["text"]))} for rows in (baseline, window)]
    return comparison(columns, baseline | extra[0], window | extra[1])


def test_a_vector_of_another_length_or_with_a_hole_is_left_out() -> None:
    table = pa.table({"e": pa.array([[1.0, 2.0], [3.0], None, [4.0, None], [5.0, 6.0]], pa.list_(pa.float64()))})
    found, places = vectors(table, "e")
    assert found.tolist() == [[1.0, 2.0], [5.0, 6.0]]
    assert places.tolist() == [0, 4]


def days(number: int, per_day: int, effect: float, seed: int) -> dict[str, Any]:
    """Return rows of days that differ from each other by an effect of the whole day."""
    generator = np.random.default_rng(seed)
    day = np.repeat(generator.normal(0, effect, number), per_day)
    rows = {name: day + generator.normal(size=number * per_day) for name in ("age", "pay")}
    step = timedelta(days=1) / per_day
    return rows | {"at": [START - timedelta(days=number) + step * i for i in range(number * per_day)]}


@pytest.mark.parametrize("kind", ["pca_reconstruction", pytest.param("domain_classifier", marks=pytest.mark.long)])
def test_days_that_always_differ_do_not_alarm_where_blocks_say_so(kind: str) -> None:
    columns = [feature("age"), feature("pay")]
    stream = days(25, 60, 1.0, seed=2)
    blocks = [{name: stream[name][60 * i : 60 * (i + 1)] for name in ("age", "pay")} for i in range(25)]
    window = days(1, 60, 1.0, seed=6)
    compared = comparison(columns, stream, window, blocks={1: blocks})
    timed = sample(columns, stream)
    assert timed is not None
    timed = timed.append_column("timestamp", pa.array(stream["at"], pa.timestamp("us", "UTC")))
    with_time = type(compared)(**{**vars(compared), "baseline_rows": lambda: timed})
    alone, aware = measured(kind, compared), measured(kind, with_time)
    assert alone.note.startswith("calibrating")
    assert not aware.note.startswith("calibrating")
    assert alone.p_value is not None
    assert aware.p_value is not None
    assert aware.p_value > 0.01
    assert aware.p_value >= alone.p_value
