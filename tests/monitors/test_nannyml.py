"""NannyML's own tables of the car loan set, from exact profiles by the function that runs measure with.

The figures are NannyML 0.13.1's (`reference_outputs/nannyml/car_loan_univariate_chunk5000.csv`): reference and analysis
rows in chunks of 5,000, each against all reference rows.

From a profile of 1,024 bins the same figures are those of rows that were moved to the mean of their cell. Let g be the
largest share that a bin holds of both samples (the smaller of the two shares), d the mean distance of rows from the
mean of their cell, baseline and window added, and w the width of an even bin:

* KS: the largest gap over all values is at most g above the one at the ends of bins, or cells, and never below it. So
  theirs lies at most g (even bins) below the exact one, and ours at most g (cells) and g (even bins, moved rows).
* Wasserstein: putting rows into even bins moves each by at most w, moving them to their cell's mean by d on average; by
  the triangle inequality the figures differ by at most 4 w + d, and by the range over n where one of them saw rows
  beyond the baseline's range (NannyML counts one row more than there are).
* JS and Hellinger: merging bins can only bring shares nearer, so both lie between 0 and the value on the common
  refinement of their bins and our cells, and differ by at most that value less the smaller of them.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from monitors import discovery
from monitors.contract import Arrivals, Column, Comparison, Role, Subject, Type
from monitors.drift import DriftParameters
from monitors.exact import EPOCH, exact_comparison, exact_profiles
from monitors.kernel import profile_batches
from monitors.layout import plan_layout
from monitors.profile import Profile

Floats = NDArray[np.float64]

NUMBERS = ("car_value", "debt_to_income_ratio", "driver_tenure", "loan_length")
CATEGORIES = ("repaid_loan_on_prev_car", "salary_range", "size_of_downpayment")
THEIRS = {
    "kolmogorov_smirnov": "nannyml_kolmogorov_smirnov",
    "jensen_shannon": "nannyml_jensen_shannon",
    "hellinger": "nannyml_hellinger",
    "wasserstein": "nannyml_wasserstein",
}
OURS = {"chi2": "nannyml_chi2", "jensen_shannon": "jensenshannon", "l_infinity": "linf", "hellinger": "hellinger"}
COLUMNS = [
    *(Column(name=f"features.{name}", role=Role.FEATURE, type=Type.NUMERIC) for name in NUMBERS),
    *(Column(name=f"features.{name}", role=Role.FEATURE, type=Type.CATEGORICAL) for name in CATEGORIES),
    Column(name="score", role=Role.SCORE, type=Type.NUMERIC),
    Column(name="prediction", role=Role.PREDICTION, type=Type.CATEGORICAL),
]


def lake_rows(rows: pd.DataFrame) -> pa.Table:
    """Return rows in the lake's columns."""
    numbers = {f"features.{name}": pa.array(rows[name], pa.float64()) for name in NUMBERS}
    texts = {f"features.{name}": pa.array(rows[name].astype(str), pa.string()) for name in CATEGORIES}
    answers = {
        "score": pa.array(rows["y_pred_proba"], pa.float64()),
        "prediction": pa.array(rows["y_pred"].astype(str)),
    }
    return pa.table({**numbers, **texts, **answers})


@pytest.fixture(scope="module")
def car_loan(shared_data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the reference and all rows, reference first."""
    parts = [
        pd.read_parquet(shared_data / f"nannyml_car_loan/synthetic_car_loan_{name}.parquet")
        for name in ("reference", "analysis")
    ]
    return parts[0], pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def published(shared_data: Path) -> pd.DataFrame:
    return pd.read_csv(shared_data / "reference_outputs/nannyml/car_loan_univariate_chunk5000.csv")


def generator(metric: str, subject: Subject) -> np.random.Generator:
    return np.random.default_rng([*f"{metric} {subject}".encode()])


def measured(baseline: Profile, window: Profile) -> dict[tuple[str, str], float]:
    """Return what both kinds of drift show of a window, by column and metric."""
    compared = Comparison(
        columns=COLUMNS,
        baseline=baseline,
        scales={1: window},
        blocks={},
        arrivals=Arrivals(rows=window.rows, judged=False),
        starts_at=EPOCH,
        ends_at=EPOCH,
        generator=generator,
    )
    asked = DriftParameters(also=[*THEIRS.values(), *OURS.values()])
    return {
        (str(result.subject.feature), result.metric): result.value
        for kind in ("data_drift", "prediction_drift")
        for result in discovery.kinds()[kind].measure(compared, asked)
        if result.value is not None
    }


@pytest.mark.parametrize(
    "places",
    [pytest.param((3, 10, 19), id="three"), pytest.param(tuple(range(20)), marks=pytest.mark.long, id="all 20")],
)
def test_expected_5_1_nannyml_s_univariate_figures_of_chunks_of_the_car_loan_set(
    places: tuple[int, ...], car_loan: tuple[pd.DataFrame, pd.DataFrame], published: pd.DataFrame
) -> None:
    """Every figure to 1e-5; of all chunks also NannyML's limits: mean and three deviations of the reference's ten."""
    reference, rows = car_loan
    assert len(rows) == 5000 * len(published) == 100_000
    baseline, *chunks = exact_profiles(
        COLUMNS, lake_rows(reference), *(lake_rows(rows.iloc[5000 * place : 5000 * (place + 1)]) for place in places)
    )
    found = [measured(baseline, chunk) for chunk in chunks]
    compared = 0
    for columns, names in (((*NUMBERS, "y_pred_proba"), THEIRS), ((*CATEGORIES, "y_pred"), OURS)):
        for column in columns:
            for theirs, ours in names.items():
                label = {"y_pred_proba": "score", "y_pred": "prediction"}.get(column, column)
                expected = published[f"{column}|{theirs}|value"].to_numpy()[[*places]]
                values = np.array([each[label, ours] for each in found])
                assert values == pytest.approx(expected, rel=1e-5 if theirs == "wasserstein" else 0, abs=1e-5), (
                    column,
                    theirs,
                )
                compared += values.size
                if theirs == "chi2" or len(places) < 20:  # chi2 is judged by its p-value
                    continue
                limit = published[f"{column}|{theirs}|upper_threshold"].to_numpy()
                quiet = values[:10]
                assert limit == pytest.approx(np.full(20, quiet.mean() + 3 * quiet.std()), rel=1e-4, abs=1e-4), (
                    column,
                    theirs,
                )
    assert compared == len(places) * (5 * len(THEIRS) + 4 * len(OURS))


def least_of_both(reference: Floats, window: Floats, edges: Floats) -> float:
    """Return the largest share that a bin holds of both samples."""
    counts = [
        np.bincount(np.searchsorted(edges, rows, side="right"), minlength=edges.size + 1)
        for rows in (reference, window)
    ]
    return float(np.minimum(counts[0] / reference.size, counts[1] / window.size).max())


@pytest.mark.parametrize("column", ["car_value", "debt_to_income_ratio", "driver_tenure"])
@pytest.mark.parametrize("chunk", [10, 15])
def test_a_profile_of_1024_bins_gives_nannyml_s_figures_within_the_bound(
    chunk: int, column: str, car_loan: tuple[pd.DataFrame, pd.DataFrame], published: pd.DataFrame
) -> None:
    reference, rows = car_loan
    window = rows.iloc[50_000 + 5000 * (chunk - 10) : 50_000 + 5000 * (chunk - 9)]
    columns = [each for each in COLUMNS if each.label == column]
    layout = plan_layout(lake_rows(reference).to_batches(), columns)
    old, new = (profile_batches(lake_rows(part).to_batches(), layout) for part in (reference, window))
    compared = replace(
        exact_comparison(columns, lake_rows(reference), lake_rows(window), generator=generator),
        baseline=old,
        scales={1: new},
    )
    asked = DriftParameters(also=list(THEIRS.values()))
    found = {result.metric: result.value for result in discovery.kinds()["data_drift"].measure(compared, asked)}
    a, b = reference[column].to_numpy(np.float64), window[column].to_numpy(np.float64)
    edges = layout.columns[f"features.{column}"].edges  # type: ignore[union-attr]
    assert edges.size == 1023
    cells = [np.searchsorted(edges, part, side="right") for part in (a, b)]
    pooled = np.bincount(np.concatenate(cells), np.concatenate([a, b])) / np.bincount(np.concatenate(cells))
    moved_a, moved_b = pooled[cells[0]], pooled[cells[1]]
    published_row = published.iloc[chunk]

    def gap(name: str) -> float:
        value = found[f"nannyml_{name}"]
        assert value is not None
        return abs(value - float(published_row[f"{column}|{name}|value"]))

    even, moved_even = np.linspace(a.min(), a.max(), 10_001), np.linspace(moved_a.min(), moved_a.max(), 10_001)
    bound = max(least_of_both(a, b, even), least_of_both(a, b, edges) + least_of_both(moved_a, moved_b, moved_even))
    assert gap("kolmogorov_smirnov") <= bound + 1e-9
    assert bound < 0.004

    width, displaced = even[1] - even[0], np.abs(a - moved_a).mean() + np.abs(b - moved_b).mean()
    beyond = (
        (b.min() < a.min()) or (b.max() > a.max()) or moved_b.min() < moved_a.min() or moved_b.max() > moved_a.max()
    )
    bound = 4 * width + displaced + (a.max() - a.min()) / b.size * beyond
    assert gap("wasserstein") <= bound + 1e-9
    assert bound < 0.01 * a.std()

    theirs = np.histogram_bin_edges(a, "doane")
    refined = [
        np.searchsorted(theirs, part, side="right") * 1024 + cell for part, cell in zip((a, b), cells, strict=True)
    ]
    shares = [np.bincount(part, minlength=1024 * (theirs.size + 1)).astype(np.float64) for part in refined]
    for name, ours in (("jensen_shannon", "jensenshannon"), ("hellinger", "hellinger")):
        most = float(discovery.statistics()[ours].value(shares[0], shares[1]))
        smaller = min(float(found[f"nannyml_{name}"] or 0.0), published_row[f"{column}|{name}|value"])
        assert gap(name) <= most - smaller + 1e-9
