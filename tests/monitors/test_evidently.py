"""Our statistics beside Evidently's and SciPy's on the same rows, and Evidently's own methods on the row samples.

One file, because importing Evidently takes longer than all of these tests.

Where the bins are the same the numbers are the same. Where they are not, the bounds are these:

* psi, jensenshannon, hellinger: merging bins can only bring two sets of shares nearer (the log-sum inequality; for psi
  as far as no share is lifted to 1e-4), so both values lie between 0 and the value on the common refinement of both
  sets of bins, and differ by at most that value less the smaller one;
* ks: in a cell that holds a share a of the baseline and b of the window the gap can exceed the gaps at the cell's ends
  by at most min(a, b), so ours is at most the largest of these below SciPy's, and never above it;
* wasserstein: by the triangle inequality ours differs by at most the distances of the baseline's and the window's rows
  from the places of their cells;
* chisquare: Evidently takes the baseline as exact. A cell with b rows of the baseline and w of the window adds to its
  statistic (b + w) / b times what it adds to ours, so theirs is never smaller and at most max((b + w) / b) times ours.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy import stats

from monitors import discovery
from monitors.budget import BudgetPolicy, PolicyInvalidError, parse_policy
from monitors.contract import Column, Comparison, Result, Role, Subject, Type, Verdict, WorkNotDoneError
from monitors.drift import DriftParameters, shown_value
from monitors.exact import exact_comparison
from monitors.kinds.mmd import kernel, squared
from monitors.layout import CategoryLayout, NumericLayout, plan_layout
from monitors.null import merged_bins
from monitors.profile import NumericProfile
from monitors.testing import batch, feature, profile
from service.confinement import Request
from service.tasks import evidently as work
from tests.monitors.test_statistics import anderson_sigma

Floats = NDArray[np.float64]
OURS = discovery.statistics()
THEIRS = {
    "psi": ("psi", "psi_stat_test"),
    "jensenshannon": ("jensenshannon", "jensenshannon_stat_test"),
    "hellinger": ("hellinger_distance", "hellinger_stat_test"),
    "wasserstein": ("wasserstein_distance_norm", "wasserstein_stat_test"),
    "chisquare": ("chisquare_stattest", "chi_stat_test"),
}
NATURAL = type(OURS["jensenshannon"])(natural=True)  # type: ignore[call-arg]
SHAPES = {"psi": OURS["psi"], "jensenshannon": NATURAL, "hellinger": OURS["hellinger"]}


def evidently(name: str, baseline: Any, window: Any, kind: str) -> float:
    """Return the score of one of Evidently's stat tests, called directly; imported where it is needed."""
    from evidently.legacy.core import ColumnType

    module, test = THEIRS[name]
    found = getattr(import_module(f"evidently.legacy.calculations.stattests.{module}"), test)
    return float(found(pd.Series(baseline), pd.Series(window), ColumnType(kind), None).drift_score)


def categories(baseline: Any, window: Any) -> tuple[Floats, Floats]:
    """Return counts of both under the layout that the baseline's profile has."""
    columns = [feature("c", Type.CATEGORICAL)]
    layout = plan_layout([batch(columns, {"c": list(baseline)})], columns)
    old, new = (profile(columns, {"c": list(values)}, layout).columns["features.c"] for values in (baseline, window))
    assert isinstance(layout.columns["features.c"], CategoryLayout)
    return old.counts.astype(np.float64), new.counts.astype(np.float64)


def numbers(baseline: Floats, window: Floats) -> tuple[NumericLayout, NumericProfile, NumericProfile]:
    """Return the layout that the baseline has, and both profiles."""
    columns: list[Column] = [feature("x")]
    layout = plan_layout([batch(columns, {"x": baseline})], columns)
    old, new = (profile(columns, {"x": values}, layout).columns["features.x"] for values in (baseline, window))
    bins = layout.columns["features.x"]
    assert isinstance(bins, NumericLayout)
    assert isinstance(old, NumericProfile)
    assert isinstance(new, NumericProfile)
    return bins, old, new


def sturges(baseline: Floats, window: Floats) -> tuple[Floats, Floats, Floats]:
    """Return Evidently's bins of a number (Sturges over both samples together) and the counts in them."""
    edges = np.histogram_bin_edges(np.concatenate([baseline, window]), bins="sturges")
    return edges, np.histogram(baseline, edges)[0].astype(np.float64), np.histogram(window, edges)[0].astype(np.float64)


def shown(name: str, old: NumericProfile, new: NumericProfile) -> float:
    """Return the value that a result shows of a number."""
    statistic = NATURAL if name == "jensenshannon" else OURS[name]
    places = (old.sums + new.sums) / np.sqrt(old.m2 / old.count)
    return shown_value(
        statistic, old.counts.astype(np.float64), new.counts.astype(np.float64), ordered=True, places=places
    )


# --- upstream's own unit tests and the figures worked out from them ---------------------------------------------------

SIX_OLD = np.repeat(np.arange(1.0, 7.0), [16, 18, 16, 14, 12, 12])
SIX_NEW = np.repeat(np.arange(1.0, 7.0), [16, 16, 16, 16, 16, 8])
EIGHT_OLD = np.array([38.7, 41.5, 43.8, 44.5, 45.5, 46.0, 47.7, 58.0])
EIGHT_NEW = np.array([39.2, 39.3, 39.7, 41.4, 41.8, 42.9, 43.3, 45.8])


@pytest.mark.parametrize(
    ("name", "expected"), [("psi", 0.0372183816), ("jensenshannon", 0.0680481962), ("hellinger", 0.06812)]
)
def test_the_six_sided_example_has_the_published_distances(name: str, expected: float) -> None:
    old, new = categories([str(value) for value in SIX_OLD], [str(value) for value in SIX_NEW])
    assert float(SHAPES[name].value(old, new)) == pytest.approx(expected, abs=1e-5 if name == "hellinger" else 1e-9)


def test_the_six_sided_example_has_the_published_wasserstein_distance() -> None:
    _, old, new = numbers(SIX_OLD, SIX_NEW)
    assert shown("wasserstein", old, new) == pytest.approx(0.0544331054, abs=1e-9)


def test_the_eight_values_example_has_the_published_ks_and_wasserstein() -> None:
    baseline, window = EIGHT_OLD, EIGHT_NEW
    layout, old, new = numbers(baseline, window)
    ks = shown("ks", old, new)
    assert ks == pytest.approx(stats.ks_2samp(baseline, window).statistic)
    # 8 against 8: p = 0.0870240870 is the exact tail of D = 5/8
    assert ks == pytest.approx(0.625)
    ours = shown("wasserstein", old, new)
    assert abs(ours - 0.7812361058) <= displaced(layout, old, new, baseline, window) + 1e-9


def test_the_published_energy_distance_of_values_moved_by_five_is_near_from_the_baseline_s_own_cells() -> None:
    # 2 E|X - Y| - E|X - X'| - E|Y - Y'| changes by at most 4 (dx + dy) where rows move by dx and dy on average.
    baseline = EIGHT_OLD
    layout, old, new = numbers(baseline, baseline + 5)
    ours, exact = shown("ed", old, new) ** 2, 1.93326**2 / float(baseline.std())
    assert abs(ours - exact) <= 4 * displaced(layout, old, new, baseline, baseline + 5) + 1e-4


def test_the_published_cramer_von_mises_statistic_is_near_from_the_baseline_s_own_cells() -> None:
    # T = nm / N^2 times the sum of (F - G)^2 over all N rows. In a cell with shares a and b the difference of F and G
    # lies within e = max(a, b) of what it is at the cell's end, so its square within e (2 |F - G| + e).
    baseline, window = (stats.norm.rvs(size=100, random_state=seed) for seed in (0, 1))
    theirs = stats.cramervonmises_2samp(baseline, window)
    assert theirs.pvalue == pytest.approx(0.8076839, abs=1e-3)
    _, old, new = numbers(baseline, window)
    a, b = old.counts / 100, new.counts / 100
    apart, hidden = np.abs(np.cumsum(a - b)), np.maximum(a, b)
    bound = 100 * 100 / 200**2 * float(((old.counts + new.counts) * hidden * (2 * apart + hidden)).sum())
    assert abs(shown("cramer_von_mises", old, new) - theirs.statistic) <= bound + 1e-12
    assert bound < 0.1


# --- the same bins, the same numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_categories_give_evidently_s_digits(name: str) -> None:
    generator = np.random.default_rng(3)
    for _ in range(10):
        baseline = generator.choice(list("abcdef"), 700)
        window = generator.choice(list("abcdef"), 300, p=[0.3, *[0.14] * 5])
        old, new = categories(baseline, window)
        assert float(SHAPES[name].value(old, new)) == pytest.approx(evidently(name, baseline, window, "cat"), rel=1e-9)


@pytest.mark.parametrize("name", ["psi", "jensenshannon"])
def test_numbers_of_few_values_give_evidently_s_digits(name: str) -> None:
    generator = np.random.default_rng(4)
    baseline, window = (
        generator.integers(0, 12, 900).astype(np.float64),
        generator.integers(0, 12, 400).astype(np.float64),
    )
    _, old, new = numbers(baseline, window)
    assert float(
        SHAPES[name].value(old.counts[1::2].astype(np.float64), new.counts[1::2].astype(np.float64))
    ) == pytest.approx(evidently(name, baseline, window, "num"), rel=1e-9)


@pytest.mark.parametrize("name", ["psi", "jensenshannon"])
def test_numbers_in_evidently_s_bins_give_evidently_s_digits(name: str) -> None:
    generator = np.random.default_rng(5)
    baseline, window = generator.uniform(size=3000), generator.uniform(size=1000) ** 1.2
    _, old, new = sturges(baseline, window)
    assert float(SHAPES[name].value(old, new)) == pytest.approx(evidently(name, baseline, window, "num"), rel=1e-9)


def test_ks_of_a_layout_with_every_value_is_scipy_s() -> None:
    generator = np.random.default_rng(6)
    for _ in range(10):
        baseline, window = generator.normal(size=600), generator.normal(0.2, 1.3, size=250)
        _, old, new = numbers(baseline, window)
        assert shown("ks", old, new) == pytest.approx(stats.ks_2samp(baseline, window).statistic, abs=1e-12)


def test_wasserstein_of_a_layout_with_every_value_is_evidently_s() -> None:
    generator = np.random.default_rng(7)
    baseline, window = (
        generator.integers(0, 300, 5000).astype(np.float64),
        generator.integers(5, 290, 2000).astype(np.float64),
    )
    _, old, new = numbers(baseline, window)
    assert shown("wasserstein", old, new) == pytest.approx(evidently("wasserstein", baseline, window, "num"), rel=1e-9)


# --- other bins, within the bounds ------------------------------------------------------------------------------------


def refined(layout: NumericLayout, old: NumericProfile, baseline: Floats, window: Floats) -> tuple[Floats, Floats]:
    """Return the counts in the common refinement of the ten shown bins and Evidently's bins."""
    bins = merged_bins(old.counts.astype(np.float64), float(old.count), float(old.count), ordered=True, most=10)
    places = [cells_of(layout, values) for values in (baseline, window)]
    edges, *_ = sturges(baseline, window)
    theirs = [np.clip(np.searchsorted(edges, values, side="right"), 1, edges.size - 1) for values in (baseline, window)]
    pairs = [bins[place] * edges.size + their for place, their in zip(places, theirs, strict=True)]
    number = (int(bins.max()) + 1) * edges.size
    return np.bincount(pairs[0], minlength=number).astype(np.float64), np.bincount(pairs[1], minlength=number).astype(
        np.float64
    )


def cells_of(layout: NumericLayout, values: Floats) -> NDArray[np.int64]:
    """Return the cell of each value."""
    after = np.searchsorted(layout.edges, values, side="right")
    return 2 * after - np.isin(values, layout.edges) if layout.tied else after


CASES = {
    "shift": (lambda g: g.normal(size=4000), lambda g: g.normal(0.3, 1.0, size=1500)),
    "scale": (lambda g: g.normal(size=4000), lambda g: g.normal(0.0, 1.5, size=1500)),
    "heavy tails": (lambda g: g.standard_t(2, size=4000), lambda g: g.standard_t(2, size=1500) * 1.2),
    "skewed": (lambda g: g.lognormal(size=4000), lambda g: g.lognormal(0.2, 1.0, size=1500)),
    "few values": (lambda g: g.poisson(30, 4000).astype(np.float64), lambda g: g.poisson(33, 1500).astype(np.float64)),
    "unchanged": (lambda g: g.normal(size=4000), lambda g: g.normal(size=1500)),
}
each_case = pytest.mark.parametrize("case", CASES)


def rows_of(case: str) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(8)
    return CASES[case][0](generator), CASES[case][1](generator)


@each_case
@pytest.mark.parametrize("name", ["jensenshannon", "hellinger"])
def test_shapes_differ_by_no_more_than_the_common_refinement_allows(name: str, case: str) -> None:
    baseline, window = rows_of(case)
    layout, old, new = numbers(baseline, window)
    ours = shown(name, old, new)
    theirs = float(SHAPES[name].value(*sturges(baseline, window)[1:]))
    most = float(SHAPES[name].value(*refined(layout, old, baseline, window)))
    assert abs(ours - theirs) <= most - min(ours, theirs) + 1e-12
    if name == "jensenshannon":
        assert theirs == pytest.approx(evidently(name, baseline, window, "num"), rel=1e-9)


@each_case
def test_psi_differs_by_no_more_than_the_common_refinement_allows(case: str) -> None:
    baseline, window = rows_of(case)
    layout, old, new = numbers(baseline, window)
    ours, theirs = shown("psi", old, new), evidently("psi", baseline, window, "num")
    counts = refined(layout, old, baseline, window)
    held = (counts[0] > 0) | (counts[1] > 0)
    # a share whose counterpart is 0, lifted to 1e-10 at least, adds at most share * ln(share / 1e-10)
    lifted = sum(
        float(share * np.log(share / 1e-10))
        for one, other in (counts, counts[::-1])
        for share in (one / one.sum())[(one > 0) & (other == 0)]
    )
    assert max(ours, theirs) <= float(OURS["psi"].value(counts[0][held], counts[1][held])) + lifted + 1e-9


@each_case
def test_ks_is_below_scipy_s_by_no_more_than_a_cell_holds_of_both(case: str) -> None:
    baseline, window = rows_of(case)
    _, old, new = numbers(baseline, window)
    ours, exact = shown("ks", old, new), float(stats.ks_2samp(baseline, window).statistic)
    bound = float(np.minimum(old.counts / old.count, new.counts / new.count).max())
    assert exact - bound - 1e-12 <= ours <= exact + 1e-12
    if case != "few values":
        assert bound <= 2 / 1024


def displaced(
    layout: NumericLayout, old: NumericProfile, new: NumericProfile, baseline: Floats, window: Floats
) -> float:
    """Return how far rows lie from the places of their cells, on average, both samples added, in baseline sd."""
    places = (old.sums + new.sums) / np.maximum(old.counts + new.counts, 1)
    parts = [float(np.abs(values - places[cells_of(layout, values)]).mean()) for values in (baseline, window)]
    return sum(parts) / float(baseline.std())


@each_case
def test_wasserstein_differs_by_no_more_than_rows_lie_from_the_places_of_their_cells(case: str) -> None:
    baseline, window = rows_of(case)
    layout, old, new = numbers(baseline, window)
    ours = shown("wasserstein", old, new)
    theirs = evidently("wasserstein", baseline, window, "num")
    bound = displaced(layout, old, new, baseline, window)
    assert abs(ours - theirs) <= bound + 1e-12
    assert bound < (0.15 if case == "heavy tails" else 0.03)


def test_chisquare_is_below_evidently_s_by_no_more_than_the_share_of_the_window() -> None:
    generator = np.random.default_rng(9)
    for _ in range(10):
        baseline, window = generator.choice(list("abcde"), 900), generator.choice(list("abcde"), 400)
        old, new = (counts[:-1] for counts in categories(baseline, window))
        ours = float(OURS["chisquare"].value(old, new))
        theirs = float(stats.chi2.isf(evidently("chisquare", baseline, window, "cat"), old.size - 1))
        assert ours <= theirs * (1 + 1e-9)
        assert theirs <= ours * float(((old + new) / old).max()) * (1 + 1e-9)
        assert ours == pytest.approx(stats.chi2_contingency(np.array([old, new]), correction=False).statistic)


# --- real rows against the outputs kept of Evidently 0.7.23 -----------------------------------------------------------


def kept_outputs(shared_data: Path, file: str) -> dict[tuple[str, str], float]:
    """Return Evidently's scores by column and stat test."""
    table = pd.read_csv(shared_data / "reference_outputs" / "evidently" / file)
    table = table[pd.to_numeric(table["score"], errors="coerce").notna()]
    names = zip(table["column"].astype(str), table["stattest"].astype(str), strict=True)
    return dict(zip(names, table["score"].astype(float), strict=True))


@pytest.fixture(scope="module")
def adult(shared_data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training and the test rows of Adult."""
    return tuple(pd.read_parquet(shared_data / "adult" / f"adult_{part}.parquet") for part in ("train", "test"))  # type: ignore[return-value]


CATEGORIES = ("workclass", "education", "marital_status", "occupation", "relationship", "race", "sex")


@pytest.mark.parametrize("column", CATEGORIES)
def test_adult_s_categories_have_evidently_s_scores(
    column: str, adult: tuple[pd.DataFrame, pd.DataFrame], shared_data: Path
) -> None:
    expected = kept_outputs(shared_data, "adult_train_vs_test.csv")
    old, new = categories(adult[0][column], adult[1][column])
    for name, statistic in SHAPES.items():
        assert float(statistic.value(old, new)) == pytest.approx(expected[column, name], abs=1e-6), name


@pytest.mark.parametrize("column", ["age", "fnlwgt", "education_num", "hours_per_week"])
def test_adult_s_numbers_have_evidently_s_scores_within_the_bounds(
    column: str, adult: tuple[pd.DataFrame, pd.DataFrame], shared_data: Path
) -> None:
    expected = kept_outputs(shared_data, "adult_train_vs_test.csv")
    baseline, window = (part[column].to_numpy(np.float64) for part in adult)
    layout, old, new = numbers(baseline, window)
    bound = displaced(layout, old, new, baseline, window)
    assert abs(shown("wasserstein", old, new) - expected[column, "wasserstein"]) <= bound + 1e-6
    most = float(NATURAL.value(*refined(layout, old, baseline, window)))
    assert shown("jensenshannon", old, new) <= most + 1e-12
    shares = np.minimum(old.counts / old.count, new.counts / new.count)
    gap = float((shares[0::2] if layout.tied else shares).max())  # a cell of one value hides no gap
    assert shown("ks", old, new) == pytest.approx(stats.ks_2samp(baseline, window).statistic, abs=gap + 1e-12)
    if gap == 0:
        # Evidently keeps the p-value of SciPy's test, which is the tail of D at this effective size
        size = round(old.count * new.count / (old.count + new.count))
        tail = stats.distributions.kstwo.sf(shown("ks", old, new), size)
        assert tail == pytest.approx(expected[column, "ks"], abs=1e-6)


def test_the_car_values_of_the_car_loan_set_have_evidently_s_distance_within_the_bound(shared_data: Path) -> None:
    folder = shared_data / "nannyml_car_loan"
    baseline, window = (
        pd.read_parquet(folder / f"synthetic_car_loan_{part}.parquet")["car_value"].to_numpy(np.float64)
        for part in ("reference", "analysis")
    )
    layout, old, new = numbers(baseline, window)
    bound = displaced(layout, old, new, baseline, window)
    assert bound < 0.005
    assert abs(shown("wasserstein", old, new) - 0.473049) <= bound + 1e-6


@pytest.mark.parametrize("column", ["temp", "atemp", "hum", "windspeed", "cnt"])
def test_bike_sharing_in_evidently_s_bins_has_evidently_s_scores(column: str, shared_data: Path) -> None:
    expected = kept_outputs(shared_data, "bike_2011-01_vs_2011-02wk1.csv")
    hours = pd.read_parquet(shared_data / "bike_sharing" / "hour.parquet")
    days = pd.to_datetime(hours["dteday"])
    baseline = hours.loc[days.between("2011-01-01", "2011-01-28"), column].to_numpy(np.float64)
    window = hours.loc[days.between("2011-01-29", "2011-02-07"), column].to_numpy(np.float64)
    layout, old, new = numbers(baseline, window)
    bound = displaced(layout, old, new, baseline, window)
    assert bound < 0.01
    assert abs(shown("wasserstein", old, new) - expected[column, "wasserstein"]) <= bound + 1e-9
    few = np.unique(baseline).size <= 20
    counts = sturges(baseline, window)[1:]
    if not few:
        assert float(NATURAL.value(*counts)) == pytest.approx(expected[column, "jensenshannon"], abs=1e-6)
    assert shown("jensenshannon", old, new) <= float(NATURAL.value(*refined(layout, old, baseline, window))) + 1e-12


# --- Evidently's own methods on the row samples: the figures that others published, by the task that runs ask for -----


def done_here(task: str, document: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Mapping[str, Any]:
    """Do the worker's task in this process."""
    tasks = {"evidently.stat_tests": work.stat_tests, "evidently.embedding_drift": work.embedding_drift}
    return tasks[task](Request(document, tables, {}, lambda *_: ({}, {})))[0]


def compared(
    columns: list[Column], baseline: Mapping[str, Any], window: Mapping[str, Any], done: Any = done_here
) -> Comparison:
    """Return rows compared exactly, with Evidently at hand."""
    types = {Type.NUMERIC: pa.float64(), Type.BOOLEAN: pa.bool_(), Type.EMBEDDING: pa.list_(pa.float64())}
    old, new = (
        pa.table(
            {
                column.name: pa.array(rows[column.label], types.get(column.type, pa.string()), from_pandas=True)
                for column in columns
            }
        )
        for rows in (baseline, window)
    )

    def generator(metric: str, subject: Subject) -> np.random.Generator:
        return np.random.default_rng([*f"{metric} {subject}".encode()])

    return replace(exact_comparison(columns, old, new, generator=generator), work=done)


def column(name: str, type_: Type) -> Column:
    return Column(name=f"features.{name}", role=Role.FEATURE, type=type_)


def shown_of_rows(type_: Type, baseline: Any, window: Any, *names: str) -> dict[str, Result]:
    """Return what is shown of one column, by metric."""
    asked = DriftParameters(also=list(names), min_rows=1)
    comparison = compared([column("x", type_)], {"x": baseline}, {"x": window})
    return {result.metric: result for result in discovery.kinds()["data_drift"].measure(comparison, asked)}


def values(type_: Type, baseline: Any, window: Any, *names: str) -> dict[str, float]:
    """Return the values that are shown of one column."""
    found = shown_of_rows(type_, baseline, window, *names)
    return {name: result.value for name, result in found.items() if result.value is not None}


def test_expected_6_1_the_six_sided_example() -> None:
    numbers = values(
        Type.NUMERIC,
        SIX_OLD,
        SIX_NEW,
        "mannw",
        "es",
        "evidently_psi",
        "evidently_jensenshannon",
        "evidently_kl_div",
        "evidently_wasserstein",
        "evidently_ks",
        "ed",
    )
    assert numbers["mannw"] == pytest.approx(0.481, abs=1e-2)
    assert numbers["es"] == pytest.approx(0.81, abs=1e-2)
    assert numbers["evidently_psi"] == pytest.approx(0.0372183816, abs=1e-9)
    assert numbers["evidently_jensenshannon"] == pytest.approx(0.0680481962, abs=1e-9)
    assert numbers["evidently_kl_div"] == pytest.approx(0.0189096770, abs=1e-9)
    assert numbers["evidently_wasserstein"] == pytest.approx(0.0544331054, abs=1e-9)
    assert numbers["wasserstein"] == pytest.approx(0.0544331054, abs=1e-9)
    assert numbers["evidently_ks"] == pytest.approx(0.9999926, abs=1e-6)
    old, new = ([f"{value:g}" for value in part] for part in (SIX_OLD, SIX_NEW))
    texts = values(
        Type.CATEGORICAL,
        old,
        new,
        "evidently_chisquare",
        "evidently_hellinger",
        "hellinger",
        "evidently_TVD",
        "psi",
        "kl_div",
        "TVD",
    )
    assert texts["evidently_chisquare"] == pytest.approx(0.67309, abs=1e-5)
    assert texts["evidently_hellinger"] == pytest.approx(0.06812, abs=1e-5)
    assert texts["hellinger"] == pytest.approx(0.06812, abs=1e-5)
    assert texts["evidently_TVD"] == pytest.approx(0.928, abs=0.02)  # a permutation test of 1,000 draws
    assert texts["psi"] == pytest.approx(0.0372183816, abs=1e-9)
    assert texts["kl_div"] == pytest.approx(0.0189096770, abs=1e-9)


def test_expected_6_2_the_eight_values_example() -> None:
    found = values(
        Type.NUMERIC, EIGHT_OLD, EIGHT_NEW, "evidently_anderson", "t_test", "evidently_ks", "evidently_wasserstein",
        "evidently_psi", "evidently_jensenshannon", "anderson", "ks",
    )  # fmt: skip
    assert found["evidently_anderson"] == pytest.approx(0.0635, abs=1e-3)
    assert found["t_test"] == pytest.approx(0.084, abs=1e-3)
    assert found["evidently_ks"] == pytest.approx(0.0870240870, abs=1e-9)
    assert found["evidently_wasserstein"] == pytest.approx(0.7812361058, abs=1e-9)
    assert found["wasserstein"] == pytest.approx(0.7812361058, abs=1e-9)
    assert found["evidently_psi"] == pytest.approx(14.2503882, abs=1e-6)
    assert found["evidently_jensenshannon"] == pytest.approx(0.8325546, abs=1e-6)
    assert found["ks"] == pytest.approx(0.625)
    theirs = stats.anderson_ksamp([EIGHT_OLD, EIGHT_NEW], variant="midrank").statistic
    assert (found["anderson"] - 1) / anderson_sigma(8, 8) == pytest.approx(theirs)


def test_expected_6_2_the_energy_distance_of_values_moved_by_five() -> None:
    found = values(Type.NUMERIC, EIGHT_OLD, EIGHT_OLD + 5, "ed", "evidently_ed")
    assert found["evidently_ed"] == pytest.approx(1.93326, abs=1e-5)
    assert found["ed"] * np.sqrt(EIGHT_OLD.std()) == pytest.approx(1.93326, abs=1e-5)


def test_expected_6_3_g_cramer_von_mises_and_fisher() -> None:
    old, new = np.repeat(list("abc"), [5, 5, 8]), np.repeat(list("abc"), [4, 6, 8])
    assert values(Type.CATEGORICAL, old, new, "evidently_g_test")["evidently_g_test"] == pytest.approx(0.8176, abs=1e-3)
    normal = [stats.norm.rvs(size=100, random_state=seed) for seed in (0, 1)]
    found = values(Type.NUMERIC, *normal, "evidently_cramer_von_mises", "cramer_von_mises")
    assert found["evidently_cramer_von_mises"] == pytest.approx(0.8076839, abs=1e-3)
    assert found["cramer_von_mises"] == pytest.approx(stats.cramervonmises_2samp(*normal).statistic)
    for one, other, expected in (("abbaab" * 15, "bbabba" * 15, 0.033), ("aaabb" * 30, "bbbaa" * 30, 0.00078)):
        fisher = values(Type.CATEGORICAL, list(one), list(other), "fisher_exact")["fisher_exact"]
        assert fisher == pytest.approx(expected, abs=1e-3)


def kept(shared_data: Path, file: str) -> pd.DataFrame:
    """Return Evidently's scores that were kept; "" where it raised."""
    return pd.read_csv(shared_data / "reference_outputs" / "evidently" / file)


def of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the tests all rows: the published scores are not of a sample."""
    for statistic in discovery.row_statistics().values():
        if statistic.most_rows == 10_000:
            monkeypatch.setattr(type(statistic), "most_rows", 10**6)


def test_expected_6_4_the_car_values_of_the_car_loan_set(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_all_rows(monkeypatch)
    folder = shared_data / "nannyml_car_loan"
    old, new = (
        pd.read_parquet(folder / f"synthetic_car_loan_{part}.parquet")["car_value"].to_numpy(np.float64)
        for part in ("reference", "analysis")
    )
    names = ("evidently_psi", "evidently_jensenshannon", "evidently_wasserstein", "evidently_kl_div")
    found = values(Type.NUMERIC, old, new, *names)
    assert found["evidently_psi"] == pytest.approx(0.2372477, abs=1e-6)
    assert found["evidently_jensenshannon"] == pytest.approx(0.1709405, abs=1e-6)
    assert found["evidently_wasserstein"] == pytest.approx(0.473049, abs=1e-6)
    assert found["wasserstein"] == pytest.approx(0.473049, abs=1e-6)
    assert found["evidently_kl_div"] == pytest.approx(0.1196186, abs=1e-6)


def against_kept(table: pd.DataFrame, baseline: pd.DataFrame, window: pd.DataFrame) -> int:
    """Compare every kept score with ours; return how many there were."""
    ours = discovery.row_statistics()
    names = {statistic.method: name for name, statistic in ours.items()}
    types = {
        name: Type.NUMERIC if kind == "num" else Type.CATEGORICAL
        for name, kind in zip(table["column"], table["type"], strict=True)
    }
    columns = [column(name, type_) for name, type_ in types.items()]
    sides = [
        {
            name: part[name].to_numpy(np.float64) if type_ is Type.NUMERIC else part[name].astype(str).tolist()
            for name, type_ in types.items()
        }
        for part in (baseline, window)
    ]
    asked = DriftParameters(also=[names[method] for method in table["stattest"].unique() if method != "g_test"])
    found = {
        (result.subject.feature, result.metric): result
        for result in discovery.kinds()["data_drift"].measure(compared(columns, *sides), asked)
    }
    compared_scores = 0
    for _, row in table.iterrows():
        if pd.isna(row["score"]):
            continue
        result = found[row["column"], names[row["stattest"]]]
        assert result.value == pytest.approx(row["score"], rel=1e-6, abs=1e-9), (row["column"], row["stattest"])
        compared_scores += 1
    return compared_scores


def test_expected_6_4_every_kept_score_of_bike_sharing(shared_data: Path) -> None:
    table = kept(shared_data, "bike_2011-01_vs_2011-02wk1.csv")
    hours = pd.read_parquet(shared_data / "bike_sharing" / "hour.parquet")
    days = pd.to_datetime(hours["dteday"])
    baseline = hours[days.between("2011-01-01", "2011-01-28")]
    window = hours[days.between("2011-01-29", "2011-02-07")]
    assert against_kept(table, baseline, window) == table["score"].notna().sum() > 75


def test_expected_6_4_every_kept_score_of_adult(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = kept(shared_data, "adult_train_vs_test.csv")
    parts = [pd.read_parquet(shared_data / "adult" / f"adult_{part}.parquet") for part in ("train", "test")]
    of_all_rows(monkeypatch)
    assert against_kept(table, *parts) == table["score"].notna().sum() > 100


def test_each_row_statistic_tells_what_it_is_under_a_name_of_its_own() -> None:
    found = discovery.row_statistics()
    assert not set(found) & set(discovery.statistics())
    assert {"es", "t_test", "mannw", "empirical_mmd", "fisher_exact", "abs_text_content_drift"} <= set(found)
    for name, statistic in found.items():
        assert name.isidentifier()
        assert type(statistic).__doc__
        assert statistic.source
        assert statistic.types
        assert 0 < statistic.threshold < 1
        assert not statistic.null


def test_texts_are_told_apart_by_what_they_say() -> None:
    generator = np.random.default_rng(3)
    words = np.array(["late", "parcel", "refund", "angry", "thanks", "great", "quick", "friendly"])
    old = [" ".join(generator.choice(words[:4], 12)) for _ in range(120)]
    new = [" ".join(generator.choice(words[4:], 12)) for _ in range(120)]
    found = shown_of_rows(Type.TEXT, old, new, "abs_text_content_drift")["abs_text_content_drift"]
    assert found.value == pytest.approx(1.0, abs=0.05)
    assert found.note == "of 120 rows against 120"


def embedded(old: Any, new: Any, *names: str, **options: dict[str, Any]) -> dict[str, Result]:
    """Return what Evidently's methods say of vectors, by our names."""
    asked = DriftParameters(also=list(names), options=options, min_rows=1)
    comparison = compared([column("x", Type.EMBEDDING)], {"x": list(old)}, {"x": list(new)})
    found = discovery.kinds()["data_drift"].measure(comparison, asked)
    return {result.metric: result for result in found if result.metric in names}


@pytest.mark.long
def test_embeddings_are_compared_as_evidently_s_own_report_compares_them() -> None:
    work.prepare()
    from evidently.legacy.metrics import EmbeddingsDriftMetric
    from evidently.legacy.metrics.data_drift import embedding_drift_methods as theirs
    from evidently.legacy.pipeline.column_mapping import ColumnMapping
    from evidently.legacy.report import Report

    generator = np.random.default_rng(5)
    old, new = generator.normal(0, 1, (400, 6)), generator.normal([0.5, 0.2, 0, 0, 0, 0], 1, (300, 6))
    methods: dict[str, tuple[Any, dict[str, Any]]] = {
        "embedding_model": (theirs.model(), {}),
        "embedding_distance": (
            theirs.distance(dist="cosine", pca_components=3),
            {"dist": "cosine", "pca_components": 3},
        ),
        "embedding_ratio": (theirs.ratio(component_stattest="ks"), {"component_stattest": "ks"}),
        "embedding_mmd": (theirs.mmd(), {}),
    }
    found = embedded(old, new, *methods, **{name: options for name, (_, options) in methods.items() if options})
    assert set(found) == set(methods)
    names = [f"c{place}" for place in range(6)]
    for name, (method, _) in methods.items():
        report = Report([EmbeddingsDriftMetric("x", drift_method=method)])
        report.run(
            reference_data=pd.DataFrame(old, columns=names),
            current_data=pd.DataFrame(new, columns=names),
            column_mapping=ColumnMapping(embeddings={"x": names}),
        )
        (told,) = report.as_dict()["metrics"]
        assert found[name].value == pytest.approx(told["result"]["drift_score"], rel=1e-12), name
        if name != "embedding_distance":  # whose threshold is for euclidean distances
            beyond = (found[name].value or 0.0) > discovery.row_statistics()[name].threshold
            assert told["result"]["drift_detected"] is beyond
        assert found[name].note == "of 300 rows against 400"


def test_the_figures_of_embeddings_are_those_of_the_textbook() -> None:
    generator = np.random.default_rng(6)
    old, new = generator.normal(0, 1, (200, 4)), generator.normal(0.4, 1, (150, 4))
    found = embedded(old, new, "embedding_distance", "embedding_ratio", "embedding_mmd")
    moved = new.mean(axis=0) - old.mean(axis=0)
    assert found["embedding_distance"].value == pytest.approx(np.sqrt((moved**2).sum()), rel=1e-12)
    each = [stats.wasserstein_distance(old[:, at], new[:, at]) / old[:, at].std(ddof=1) for at in range(4)]
    assert found["embedding_ratio"].value == np.mean([one >= 0.1 for one in each])
    # Gretton and others (2012), equation 3, the kernel as wide as the median distance between the two samples.
    width = np.median(np.sqrt(((old[:, None] - new[None]) ** 2).sum(axis=-1))) / np.sqrt(2)
    rows = np.concatenate([old, new])
    expected = squared(kernel(rows, float(width)), (np.arange(350) >= 200).astype(np.float64))
    assert found["embedding_mmd"].value == pytest.approx(float(expected), rel=1e-9)


def test_embeddings_that_cannot_be_compared_say_why() -> None:
    vectors = np.random.default_rng(7).normal(size=(50, 4))
    other = embedded(vectors, vectors[:, :3], "embedding_model")["embedding_model"]
    assert other.reason == "vectors of 3 numbers, in the baseline of 4"
    nothing = embedded(vectors, [None] * 50, "embedding_model")["embedding_model"]
    assert nothing.reason == "no row has a vector"
    wrong = embedded(vectors, vectors, "embedding_ratio", embedding_ratio={"component_stattest": "tarot"})
    assert "tarot" in wrong["embedding_ratio"].reason
    for options, told in (({"dist": "as the crow flies"}, "euclidean"), ({"pca_components": -1}, "whole number")):
        with pytest.raises(ValueError, match=told):
            DriftParameters(options={"embedding_distance": options})
    numbers = values(Type.NUMERIC, np.arange(50.0), np.arange(50.0), "embedding_distance")
    assert "embedding_distance" not in numbers


def test_a_row_statistic_can_decide_by_a_threshold_and_never_by_a_budget() -> None:
    asked = DriftParameters(methods={"numeric": "mannw"})
    with pytest.raises(PolicyInvalidError, match="mannw has no p-value"):
        BudgetPolicy().prepared(asked)
    policy = parse_policy({"threshold": {"mannw": 0.05}})
    comparison = compared([column("x", Type.NUMERIC)], {"x": np.arange(100.0)}, {"x": np.arange(100.0) + 30})
    found = policy.judge(discovery.kinds()["data_drift"].measure(comparison, policy.prepared(asked)), 0.05)
    (result,) = [result for result in found if result.decides]
    assert result.metric == "mannw"
    assert result.verdict is Verdict.VIOLATED


def test_what_a_test_says_of_its_rows_becomes_the_reason() -> None:
    found = shown_of_rows(Type.CATEGORICAL, list("abc") * 20, list("abc") * 20, "fisher_exact")["fisher_exact"]
    assert found.value is None
    assert "binary data" in found.reason


def test_work_that_was_not_done_becomes_the_reason() -> None:
    def broken(_task: str, _document: Mapping[str, Any], _tables: Mapping[str, pa.Table]) -> Mapping[str, Any]:
        raise WorkNotDoneError("it took longer than it may")

    comparison = compared([column("x", Type.NUMERIC)], {"x": np.arange(100.0)}, {"x": np.arange(100.0)}, broken)
    found = discovery.kinds()["data_drift"].measure(comparison, DriftParameters(also=["es"]))
    assert [result.reason for result in found if result.metric == "es"] == ["it took longer than it may"]
