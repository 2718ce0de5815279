"""The kernel: counts as NumPy counts them, whatever the numbers look like and however the rows are cut."""

import itertools
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from monitors.cells import BITS, FOLDED, HALVES, LINEAR, locate, plan_search
from monitors.columns import frozen
from monitors.kernel import block_counts, profile_batches, profile_buckets
from monitors.layout import CategoryLayout, Layout, NumericLayout, plan_layout
from monitors.profile import CategoryProfile, NumericProfile, Profile, merge, merged
from tests.examples import SAME
from tests.monitors.rows import HOUR_US, mixed_columns, mixed_layout, mixed_rows

RNG = np.random.default_rng(5)
SHAPES = {
    "normal": RNG.normal(size=30_000),
    "heavy tail": RNG.pareto(0.5, 30_000),
    "heavy tails on both sides": RNG.standard_cauchy(30_000) ** 3,
    "rounded": np.round(RNG.normal(50, 15, 30_000), 1),
    "rounded, many values": np.round(RNG.lognormal(8, 1, 30_000), 2),
    "few values": RNG.poisson(3, 30_000).astype(float),
    "constant": np.full(5_000, 7.5),
    "two values": RNG.integers(0, 2, 5_000).astype(float),
    "scores near 0 and 1": 1 / (1 + np.exp(-RNG.normal(0, 8, 30_000))),
    "huge": RNG.normal(size=30_000) * 1e300,
    "tiny": RNG.normal(size=30_000) * 1e-310,
    "near each other": 1.0 + RNG.integers(0, 3000, 30_000) * 2.0**-52,
    "zeros of both signs": np.where(RNG.random(5_000) < 0.5, -0.0, 0.0),
}


def counted(values: NDArray[np.float64], layout: NumericLayout) -> NumericProfile:
    batch = pa.record_batch({"x": pa.array(values, from_pandas=False)})
    column = profile_batches([batch], Layout({"x": layout})).columns["x"]
    assert isinstance(column, NumericProfile)
    return column


def oracle(values: NDArray[np.float64], layout: NumericLayout) -> NDArray[np.int64]:
    finite = values[np.isfinite(values)]
    after = np.searchsorted(layout.edges, finite, side="right")
    if layout.tied:
        after = after + np.searchsorted(layout.edges, finite, side="left")
    return np.bincount(after, minlength=layout.cells)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_counts_are_those_of_searchsorted(shape: str, tied: bool) -> None:
    rng = np.random.default_rng(2)
    values = np.where(rng.random(SHAPES[shape].size) < 0.1, np.nan, SHAPES[shape])
    values[:3] = np.inf, -np.inf, np.nan
    layout = NumericLayout(np.unique(np.quantile(SHAPES[shape], np.linspace(0, 1, 900))), tied)
    column = counted(values, layout)
    finite = values[np.isfinite(values)]
    assert column.counts.tolist() == oracle(values, layout).tolist()
    assert column.count == finite.size
    assert column.missing == values.size - finite.size
    assert column.non_finite == 2
    assert (column.minimum, column.maximum) == (finite.min(), finite.max())
    assert column.mean == pytest.approx(finite.mean(), rel=1e-9)
    exact = finite.astype(np.longdouble)
    expected = float(min(((exact - exact.mean()) ** 2).sum(), np.finfo(float).max))
    assert column.m2 == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert column.sums.sum() == pytest.approx(finite.sum(), rel=1e-9)


def test_every_way_of_finding_a_cell_is_used() -> None:
    kinds = {
        shape: plan_search(np.unique(values), True).kind for shape, values in SHAPES.items() if values.size < 10_000
    }
    edges = {shape: np.unique(np.quantile(values, np.linspace(0, 1, 900))) for shape, values in SHAPES.items()}
    kinds |= {shape: plan_search(values, False).kind for shape, values in edges.items()}
    kinds["clustered"] = plan_search(np.sort(np.concatenate((0.3 + np.arange(9) * 2.0**-52, [-1e9, 1e9]))), False).kind
    assert set(kinds.values()) == {LINEAR, BITS, FOLDED, HALVES}, kinds


@settings(SAME, max_examples=60)
@given(
    arrays.arrays(np.float64, st.integers(0, 40), elements=st.floats(allow_nan=False, allow_infinity=False)),
    arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats()),
    st.booleans(),
    st.sampled_from([1.0, 1e-300]),
)
def test_any_value_among_any_edges_is_where_searchsorted_puts_it(
    edges: NDArray[np.float64], values: NDArray[np.float64], tied: bool, scale: float
) -> None:
    edges = np.unique(edges * scale) + 0.0
    layout = NumericLayout(np.unique(edges), tied)
    with np.errstate(over="ignore"):
        values = np.concatenate((values, edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)))
    search = plan_search(layout.edges, tied)
    cells = np.empty(values.size, np.int32)
    locate(frozen(values), *search.plan, -1, cells)
    finite = np.isfinite(values)
    assert (cells[~finite] == -1).all()
    assert np.bincount(cells[finite], minlength=layout.cells).tolist() == oracle(values, layout).tolist()


@settings(SAME, max_examples=50)
@given(
    arrays.arrays(np.float64, st.integers(2, 60), elements=st.floats(0, 1), unique=True),
    arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(-0.5, 1.5)),
)
def test_any_score_among_any_edges_from_0_to_1_is_where_searchsorted_puts_it(
    edges: NDArray[np.float64], values: NDArray[np.float64]
) -> None:
    layout = NumericLayout(np.unique(edges + 0.0), True)
    values = np.concatenate((values, edges))
    assert counted(values, layout).counts.tolist() == oracle(values, layout).tolist()


@pytest.mark.parametrize("offset", [1e6, 1e9, -1e12])
def test_the_variance_of_numbers_far_from_zero_keeps_its_digits(offset: float) -> None:
    values = offset + np.random.default_rng(1).integers(0, 100, 50_000).astype(float)
    layout = NumericLayout(np.unique(values))
    assert counted(values, layout).variance == pytest.approx(np.var(values - offset, ddof=1), rel=1e-9)
    values[0] = 0.0
    assert counted(values, layout).m2 == pytest.approx(((values - values.mean()) ** 2).sum(), rel=1e-9)


def test_ks_from_the_cells_of_tied_columns_is_that_of_the_rows() -> None:
    rng = np.random.default_rng(3)
    baseline, window = np.round(rng.normal(size=4000), 2), np.round(rng.normal(0.1, 1.2, size=1500), 2)
    layout = NumericLayout(np.unique(np.concatenate((baseline, window))), tied=True)
    one, other = counted(baseline, layout), counted(window, layout)
    gaps = np.cumsum(one.counts) / one.count - np.cumsum(other.counts) / other.count
    assert np.abs(gaps).max() == ks_2samp(baseline, window, method="asymp").statistic


def assert_same(one: Profile, other: Profile) -> None:
    assert (one.rows, one.first_us, one.last_us, one.labelled) == (
        other.rows,
        other.first_us,
        other.last_us,
        other.labelled,
    )
    assert one.columns.keys() == other.columns.keys()
    for name, column in one.columns.items():
        match = other.columns[name]
        assert column.counts.tolist() == match.counts.tolist(), name
        for number in ("count", "missing", "non_finite", "wrong_type"):
            assert getattr(column, number) == getattr(match, number), (name, number)
        if isinstance(column, NumericProfile):
            assert isinstance(match, NumericProfile)
            np.testing.assert_allclose(column.sums, match.sums, rtol=1e-9, atol=1e-9)
            assert (column.minimum, column.maximum) == (match.minimum, match.maximum)
            assert column.mean == pytest.approx(match.mean, rel=1e-9, abs=1e-12)
            assert column.m2 == pytest.approx(match.m2, rel=1e-9, abs=1e-12)
        else:
            assert isinstance(match, CategoryProfile)
            assert column.new == match.new
            assert column.distinct.tolist() == match.distinct.tolist()
    assert one.outcomes.keys() == other.outcomes.keys()
    for name, table in one.outcomes.items():
        np.testing.assert_allclose(table, other.outcomes[name], rtol=1e-9)


LAYOUT = mixed_layout()
ROWS = mixed_rows(3000, 2)
WHOLE = profile_batches([ROWS], LAYOUT)


@settings(SAME, max_examples=10)
@given(st.lists(st.integers(0, 3000), max_size=6))
def test_the_profile_of_all_rows_is_the_merge_of_any_partition(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), 3000]
    parts = [ROWS.slice(start, stop - start) for start, stop in itertools.pairwise(ends)]
    assert_same(profile_batches(parts, LAYOUT), WHOLE)
    assert_same(merged(LAYOUT, [profile_batches([part], LAYOUT) for part in parts]), WHOLE)
    assert_same(merge(profile_batches(parts[:1], LAYOUT), profile_batches(parts[1:], LAYOUT)), WHOLE)


@settings(SAME, max_examples=6)
@given(st.integers(1, 48), st.integers(1, 2999))
def test_buckets_add_up_to_the_whole_and_hold_their_own_rows(hours: int, cut: int) -> None:
    buckets = profile_buckets([ROWS.slice(0, cut), ROWS.slice(cut)], LAYOUT, hours)
    assert_same(merged(LAYOUT, buckets.values()), WHOLE)
    stamps = ROWS.column("timestamp").cast(pa.int64()).to_numpy()
    for bucket, profile in buckets.items():
        assert bucket % hours == 0
        mask = (stamps >= bucket * HOUR_US) & (stamps < (bucket + hours) * HOUR_US)
        assert_same(profile, profile_batches([ROWS.filter(pa.array(mask))], LAYOUT))


def test_buckets_of_a_batch_too_small_to_stand_alone_are_put_together() -> None:
    pieces = [ROWS.slice(start, 10) for start in range(0, 3000, 10)]
    assert_same(merged(LAYOUT, profile_buckets(pieces, LAYOUT).values()), WHOLE)


def test_buckets_before_1970_have_negative_hours() -> None:
    stamps = pa.array([-1, -HOUR_US, -HOUR_US - 1, 0], pa.timestamp("us", tz="UTC"))
    batch = pa.record_batch({"timestamp": stamps, "features.x": pa.array([1.0, 2.0, 3.0, 4.0])})
    layout = Layout({"features.x": NumericLayout(np.array([2.0]))})
    assert {bucket: p.rows for bucket, p in profile_buckets([batch], layout).items()} == {-2: 1, -1: 2, 0: 1}


def test_rows_without_a_timestamp_cannot_be_put_into_buckets() -> None:
    batch = pa.record_batch({"timestamp": pa.array([None], pa.timestamp("us", tz="UTC"))})
    with pytest.raises(ValueError, match="no timestamp"):
        profile_buckets([batch], Layout({}))


def categories(values: pa.Array, known: tuple[str, ...]) -> CategoryProfile:
    column = profile_batches([pa.record_batch({"features.c": values})], Layout({"features.c": CategoryLayout(known)}))
    found = column.columns["features.c"]
    assert isinstance(found, CategoryProfile)
    return found


def test_categories_are_counted_with_the_others_apart_and_named() -> None:
    values = pa.array(["b", "a", None, "b", "new", "newer", "new"])
    for array in (values, values.dictionary_encode(), values.cast(pa.large_string())):
        column = categories(array, ("a", "b", "never"))
        assert column.counts.tolist() == [1, 2, 0, 3]
        assert (column.count, column.missing) == (6, 1)
        assert column.new == {"new": 2, "newer": 1}
        assert column.distinct_values == 4


def test_a_slice_of_a_dictionary_counts_only_its_rows() -> None:
    values = pa.array(["a", "b", "c", None, "b"]).dictionary_encode().slice(1, 3)
    column = categories(values, ("a", "b"))
    assert column.counts.tolist() == [0, 1, 1]
    assert column.missing == 1
    assert column.new == {"c": 1}


def test_the_spelling_of_numbers_and_booleans_is_that_of_their_categories() -> None:
    assert categories(pa.array([1.0, 2.5, float("nan")]), ("1", "2.5")).counts.tolist() == [1, 1, 0]
    assert categories(pa.array([True, False, None]), ("false", "true")).counts.tolist() == [1, 1, 0]
    assert categories(pa.array([True, True]), ("0", "1")).counts.tolist() == [0, 2, 0]


def test_only_the_most_frequent_new_values_are_named() -> None:
    values = [f"v{i:04d}" for i in range(3000)] + ["v2999", "v2998"]
    column = categories(pa.array(values), ())
    assert len(column.new) == 32
    assert list(column.new)[:2] == ["v2998", "v2999"]
    assert column.counts.tolist() == [3002]


@pytest.mark.parametrize("distinct", [10, 255, 300, 5_000, 100_000])
def test_the_number_of_distinct_values_is_estimated(distinct: int) -> None:
    values = pa.array([f"user {i}" for i in range(distinct)] * 2)
    found = categories(values, ()).distinct_values
    assert found == distinct if distinct < 256 else found == pytest.approx(distinct, rel=0.2)


def test_text_in_a_numeric_column_is_read_where_it_is_a_number_else_counted_as_wrong() -> None:
    layout = Layout({"features.x": NumericLayout(np.array([1.5]))})
    batch = pa.record_batch({"features.x": pa.array(["1", "2.0", "two", None])})
    for profile in (profile_batches([batch], layout),):
        column = profile.columns["features.x"]
        assert column.counts.tolist() == [1, 1]
        assert (column.count, column.missing, column.wrong_type) == (2, 2, 1)


def test_times_are_profiled_in_seconds() -> None:
    layout = Layout({"features.t": NumericLayout(np.array([1.5]))})
    batch = pa.record_batch({"features.t": pa.array([1_000_000, 2_000_000, None], pa.timestamp("us", tz="UTC"))})
    column = profile_batches([batch], layout).columns["features.t"]
    assert isinstance(column, NumericProfile)
    assert column.counts.tolist() == [1, 1]
    assert column.mean == 1.5


def test_text_and_embeddings_are_only_counted() -> None:
    layout = Layout({"features.t": NumericLayout(np.empty(0)), "features.e": NumericLayout(np.empty(0))})
    vectors = pa.array([[1.0, 2.0], None, [3.0]], pa.list_(pa.float32()))
    batch = pa.record_batch({"features.t": pa.array(["12", None, "b"]), "features.e": vectors})
    for column in profile_batches([batch], layout).columns.values():
        assert (column.count, column.missing) == (2, 1)
        assert column.counts.tolist() == [2]


def test_a_feature_that_the_rows_lack_is_missing_and_a_label_that_was_not_read_is_absent() -> None:
    profile = profile_batches([ROWS.drop_columns(["features.gaps", "ground_truth"])], LAYOUT)
    assert profile.columns["features.gaps"].missing == 3000
    assert "ground_truth" not in profile.columns
    assert profile.outcomes == {}
    assert not profile.labelled


def test_faults_say_how_many_values_came_as_something_else() -> None:
    faulty = pc.sum(pc.is_valid(ROWS.column("faults"))).as_py()
    infinite = int(np.isinf(ROWS.column("features.gaps").to_numpy()).sum())
    assert WHOLE.columns["features.gaps"].non_finite == faulty + infinite
    assert WHOLE.columns["features.flag"].wrong_type == faulty
    assert WHOLE.columns["features.tied"].wrong_type == 0


def test_no_rows_have_the_empty_profile() -> None:
    assert_same(profile_batches([], LAYOUT), Profile.empty(LAYOUT))
    assert_same(profile_batches([ROWS.slice(0, 0)], LAYOUT), Profile.empty(LAYOUT))
    assert profile_buckets([], LAYOUT) == {}


def test_blocks_are_whole_spans_from_the_start_and_empty_ones_are_among_them() -> None:
    hours = np.array([0, 1, 5, 6, 13, 30])
    stamps = pa.array(hours * HOUR_US, pa.timestamp("us", tz="UTC"))
    batch = pa.record_batch({"timestamp": stamps, "features.x": pa.array([1.0, 2.0, None, 1.0, 2.0, 2.0])})
    layout = plan_layout([batch], mixed_columns(batch))
    blocks = block_counts([batch.slice(3), batch.slice(0, 3)], layout, 6, 0, 29 * HOUR_US)
    assert blocks.rows.tolist() == [3, 1, 1, 0]
    assert blocks.missing["features.x"].tolist() == [1, 0, 0, 0]
    assert blocks.dense("features.x").tolist() == [[0, 1, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]


def test_large_and_small_buckets_in_one_batch_are_profiled_alike() -> None:
    rows = mixed_rows(30_000, 6, hours=2)
    stamps = rows.column("timestamp").cast(pa.int64()).to_numpy().copy()
    stamps[:300] = RNG.integers(2 * HOUR_US, 40 * HOUR_US, 300)
    stamps[300:400] = RNG.integers(-20 * HOUR_US, 0, 100)
    place = rows.schema.get_field_index("timestamp")
    rows = rows.set_column(place, "timestamp", pa.array(stamps, pa.timestamp("us", tz="UTC")))
    buckets = profile_buckets([rows], LAYOUT)
    assert sorted(profile.rows for profile in buckets.values())[-1] > 8192
    assert_same(merged(LAYOUT, buckets.values()), profile_batches([rows], LAYOUT))
    for bucket, profile in buckets.items():
        mask = (stamps >= bucket * HOUR_US) & (stamps < (bucket + 1) * HOUR_US)
        assert_same(profile, profile_batches([rows.filter(pa.array(mask))], LAYOUT))


def test_no_loop_is_left_to_compile_at_the_first_window() -> None:
    script = """
import monitors.cells, monitors.coding
from monitors.kernel import compile_loops
compile_loops()
for module in (monitors.cells, monitors.coding):
    for name, loop in vars(module).items():
        if hasattr(loop, "signatures") and not name.startswith("_"):
            assert loop.signatures, name
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_loops_compile_where_no_folder_can_hold_their_cache() -> None:
    script = """
import numba.core.caching
numba.core.caching.CacheImpl._locator_classes = []
import numpy as np
from monitors.cells import add_weights
sums = np.zeros(2)
add_weights(sums, np.array([1, -1, 1]), np.empty(0))
assert sums.tolist() == [0.0, 2.0]
"""
    subprocess.run([sys.executable, "-c", script], check=True)
