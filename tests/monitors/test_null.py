"""The nulls: exact where they can be, valid where rows are independent, wide where days differ."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import csr_array

from monitors.contract import BinnedStatistic
from monitors.null import (
    MOST_BINS,
    Null,
    Permutations,
    equal_size,
    excess,
    g_tail,
    gathered,
    hypergeometric_tail,
    merged_bins,
    permutation,
    student_tail,
    thinned,
)
from monitors.statistics.chisquare import ChiSquare
from monitors.statistics.jensenshannon import JensenShannon
from monitors.statistics.ks import KolmogorovSmirnov
from monitors.statistics.linf import LInfinity
from monitors.statistics.wasserstein import Wasserstein

Floats = NDArray[np.float64]


def p_value(statistic: BinnedStatistic, baseline: Floats, window: Floats, seed: int = 0) -> float:
    draws = Permutations(baseline + window, float(window.sum()), np.random.default_rng(seed))
    return permutation(statistic, baseline, window, draws)


# --- bins -------------------------------------------------------------------------------------------------------------


def test_each_merged_bin_expects_five_rows_in_the_smaller_sample() -> None:
    generator = np.random.default_rng(1)
    for n, m in ((1000, 50), (200, 5000), (40, 40)):
        pooled = np.bincount(generator.integers(0, 1000, n + m), minlength=1000).astype(np.float64)
        for ordered in (True, False):
            bins = merged_bins(pooled, n, m, ordered=ordered)
            expected = gathered(pooled, bins, int(bins.max()) + 1) * min(n, m) / (n + m)
            assert expected.min() >= 5
            assert expected.size <= MOST_BINS


def test_ordered_bins_are_neighbours_and_rare_categories_go_together() -> None:
    pooled = np.array([1.0, 60.0, 2.0, 30.0, 7.0])
    assert list(merged_bins(pooled, 50, 50, ordered=True)) == [0, 0, 1, 1, 1]
    # most frequent first: 60 | 30 | 7 + 2 + 1
    assert list(merged_bins(pooled, 50, 50, ordered=False)) == [2, 0, 2, 1, 2]


def test_bins_depend_on_the_pooled_counts_only() -> None:
    generator = np.random.default_rng(2)
    baseline, window = (
        generator.integers(0, 9, 300).astype(np.float64),
        generator.integers(0, 4, 300).astype(np.float64),
    )
    draw = next(iter(Permutations(baseline + window, float(window.sum()), generator)))
    n, m = float(baseline.sum()), float(window.sum())
    expected = merged_bins(baseline + window, n, m, ordered=True)
    for rest, drawn in zip(*draw, strict=True):
        assert (merged_bins(rest + drawn, n, m, ordered=True) == expected).all()


def test_too_few_rows_for_two_bins_are_one_bin_and_say_nothing() -> None:
    baseline, window = np.array([5.0, 5.0]), np.array([0.0, 4.0])
    null = Null(baseline, window, np.random.default_rng(0), ordered=True)
    assert null.baseline.size == 1
    assert null.p_value(KolmogorovSmirnov()) == 1.0


def test_sparse_blocks_are_gathered_like_dense_ones() -> None:
    generator = np.random.default_rng(3)
    dense = generator.poisson(0.3, (7, 40)).astype(np.float64)
    bins = np.sort(generator.integers(0, 5, 40))
    assert (gathered(csr_array(dense), bins, 5) == gathered(dense, bins, 5)).all()
    assert (gathered(dense, bins, 5)[3] == gathered(dense[3], bins, 5)).all()


# --- the permutation null ---------------------------------------------------------------------------------------------


def test_two_categories_have_fisher_s_exact_p_value() -> None:
    # linf of two cells orders tables as their probabilities do where the samples are equal
    baseline, window = np.array([30.0, 20.0]), np.array([22.0, 28.0])
    exact = stats.fisher_exact(np.array([baseline, window])).pvalue
    found = np.mean([p_value(LInfinity(), baseline, window, seed) for seed in range(400)])
    # counting the observed value with the draws puts 21 / (draws + 1) up to a tenth above it
    assert exact <= found <= 1.1 * exact


def test_drawing_ends_at_the_twentieth_value_as_extreme() -> None:
    draws = Permutations(np.array([50.0, 50.0]), 50.0, np.random.default_rng(0))
    # the window is as the pool: every draw is at least as extreme, and the first twenty are enough
    assert permutation(LInfinity(), np.array([25.0, 25.0]), np.array([25.0, 25.0]), draws) == 1.0


def test_a_value_that_no_draw_reaches_has_the_tail_of_g() -> None:
    baseline, window = np.array([500.0, 500.0]), np.array([150.0, 50.0])
    g = stats.chi2_contingency(np.array([baseline, window]), correction=False, lambda_="log-likelihood").pvalue
    assert g_tail(baseline, window) == pytest.approx(g)
    assert g < 1e-3
    assert p_value(JensenShannon(), baseline, window) == pytest.approx(g)


def test_the_same_generator_gives_the_same_p_value_whatever_else_is_asked() -> None:
    baseline, window = np.array([40.0, 35.0, 25.0]), np.array([15.0, 12.0, 13.0])
    alone = p_value(JensenShannon(), baseline, window, 5)
    draws = Permutations(baseline + window, 40.0, np.random.default_rng(5))
    for statistic in (ChiSquare(), LInfinity()):
        permutation(statistic, baseline, window, draws)
    assert permutation(JensenShannon(), baseline, window, draws) == alone


def test_quiet_categories_alarm_no_more_often_than_they_may() -> None:
    generator = np.random.default_rng(11)
    alarms = 0
    for _ in range(1000):
        counts = generator.multinomial([400, 150], [0.5, 0.3, 0.15, 0.05]).astype(np.float64)
        null = Null(counts[0], counts[1], generator, ordered=False)
        alarms += null.p_value(JensenShannon()) <= 0.05
    assert alarms <= stats.binom.ppf(0.999, 1000, 0.05)


def test_a_hundred_million_rows_have_the_chi_square_tail_and_no_draw() -> None:
    baseline, window = np.array([6e8, 4e8]), np.array([6.0005e8, 3.9995e8])
    null = Null(baseline, window, np.random.default_rng(0), ordered=False)
    assert null.p_value(JensenShannon()) == pytest.approx(g_tail(baseline, window))
    assert 0 <= null.effect(JensenShannon()) < 0.001


# --- the predictive null ----------------------------------------------------------------------------------------------


def test_thinning_keeps_the_size_and_takes_from_what_is_there() -> None:
    generator = np.random.default_rng(4)
    counts = generator.poisson(20, (50, 6)).astype(np.float64)
    small = thinned(counts, 60, generator)
    assert (small.sum(axis=1) == 60).all()
    assert ((small >= 0) & (small <= counts)).all()
    assert (thinned(counts, 1000, generator) == counts).all()


def test_thinning_is_hypergeometric() -> None:
    counts = np.tile([30.0, 10.0], (20000, 1))
    first = thinned(counts, 8, np.random.default_rng(5))[:, 0]
    # mean 8 * 30/40, variance 8 * 3/4 * 1/4 * 32/39
    assert first.mean() == pytest.approx(6, abs=0.03)
    assert first.var() == pytest.approx(1.5 * 32 / 39, rel=0.05)


def test_small_blocks_are_left_out_and_the_size_is_what_nearly_all_have() -> None:
    sizes = np.array([500] * 18 + [400, 300, 20, 0])
    usable, size = equal_size(sizes, 2000, least=30)
    assert usable.sum() == 20
    assert size == 400
    assert equal_size(sizes, 120, least=30)[1] == 120


@pytest.mark.parametrize("level", [0.002, 0.01, 0.05, 0.2])
def test_student_s_tail_keeps_its_level_for_one_more_draw(level: float) -> None:
    generator = np.random.default_rng(6)
    p_values = np.array([student_tail(row[0], row[1:]) for row in generator.normal(size=(4000, 21))])
    assert (p_values <= level).sum() <= stats.binom.ppf(0.999, 4000, level)


def test_the_rank_keeps_five_per_cent_where_quiet_values_are_skewed() -> None:
    # Student's t alone alarms on 8.8 % of exponential draws; at most 1 in 21 is above 20 others.
    generator = np.random.default_rng(6)
    p_values = np.array([student_tail(row[0], row[1:]) for row in generator.exponential(size=(4000, 21))])
    assert (p_values <= 0.05).sum() <= stats.binom.ppf(0.999, 4000, 1 / 21)


def test_beyond_the_largest_quiet_value_student_s_t_speaks_alone() -> None:
    quiet = np.arange(20.0)
    spread = quiet.std(ddof=1) * np.sqrt(21 / 20)
    assert student_tail(40.0, quiet) == pytest.approx(stats.t.sf((40.0 - 9.5) / spread, 19))
    assert student_tail(18.5, quiet) == pytest.approx(2 / 21)  # one of 20 reaches it


def test_equal_blocks_leave_only_the_permutation_null() -> None:
    quiet = np.full(20, -3.0)
    assert student_tail(-2.0, quiet) == 0.0
    assert student_tail(-3.0, quiet) == 1.0


def _day(generator: np.random.Generator, size: int, effect: float) -> Floats:
    return np.bincount(
        np.digitize(generator.normal(size=size) + effect * generator.normal(), np.linspace(-2, 2, 21)), minlength=22
    ).astype(np.float64)


@pytest.mark.parametrize("trials", [60, pytest.param(200, marks=pytest.mark.long)])
def test_days_that_differ_alarm_under_independence_and_not_against_their_like(trials: int) -> None:
    generator = np.random.default_rng(7)
    positions = np.linspace(-2.1, 2.1, 22)
    by_rows = by_blocks = 0
    for _ in range(trials):
        days = np.array([_day(generator, 500, 0.15) for _ in range(31)])
        baseline, window = days[:30].sum(axis=0), days[30]
        places = positions * (baseline + window)
        alone = Null(baseline, window, generator, ordered=True, places=places)
        among = Null(baseline, window, generator, ordered=True, places=places, blocks=csr_array(days[:30]))
        by_rows += alone.p_value(Wasserstein()) <= 0.05
        by_blocks += among.p_value(Wasserstein()) <= 0.05
    assert by_rows > 0.3 * trials
    assert by_blocks <= stats.binom.ppf(0.999, trials, 0.069)


def test_a_shift_beyond_what_days_do_is_found() -> None:
    generator = np.random.default_rng(8)
    days = np.array([_day(generator, 500, 0.15) for _ in range(60)])
    shifted = np.roll(_day(generator, 500, 0.0), 8)
    positions = np.linspace(-2.1, 2.1, 22)
    baseline = days.sum(axis=0)
    null = Null(
        baseline, shifted, generator, ordered=True, places=positions * (baseline + shifted), blocks=csr_array(days)
    )
    assert null.p_value(Wasserstein()) < 0.01
    assert null.p_value(JensenShannon()) < 1e-3
    assert null.effect(Wasserstein()) > 0.5
    assert null.note == ""


def test_nineteen_blocks_are_calibrating() -> None:
    generator = np.random.default_rng(10)
    days = np.array([_day(generator, 500, 0.15) for _ in range(19)])
    null = Null(days.sum(axis=0), _day(generator, 500, 0), generator, ordered=True, blocks=csr_array(days))
    assert null.note == "calibrating, 19 of 20: assumes independent rows"


def test_a_block_is_compared_with_the_rest_of_the_baseline_that_holds_it() -> None:
    generator = np.random.default_rng(15)
    days = generator.multinomial(100, np.full(30, 1 / 30), size=25) * 1.0
    window = _day(generator, 80, 0.0)
    for ordered in (True, False):
        baseline = days.sum(axis=0)
        now = np.append(window, np.zeros(8))
        null = Null(baseline, now, generator, ordered=ordered, blocks=csr_array(days))
        _, rest, _ = null._equal
        assert (rest.sum(axis=1) == 2400).all()
        elsewhere = Null(baseline // 5, now, generator, ordered=ordered, blocks=csr_array(days))
        assert (elsewhere._equal[1].sum(axis=1) == (baseline // 5).sum()).all()


def test_the_predictive_null_never_makes_a_p_value_smaller() -> None:
    generator = np.random.default_rng(12)
    for _ in range(30):
        days = np.array([_day(generator, 300, 0.0) for _ in range(25)])
        window = _day(generator, 300, 0.0)
        seed = int(generator.integers(1 << 30))
        bare, with_blocks = (
            Null(days.sum(axis=0), window, np.random.default_rng(seed), ordered=True, blocks=blocks)
            for blocks in (None, csr_array(days))
        )
        assert with_blocks.p_value(KolmogorovSmirnov()) >= bare.p_value(KolmogorovSmirnov())


# --- effects ----------------------------------------------------------------------------------------------------------


def test_chance_alone_has_distance_and_no_effect() -> None:
    generator = np.random.default_rng(13)
    effects, values = [], []
    for _ in range(100):
        counts = generator.multinomial([1000, 200], np.full(20, 0.05)).astype(np.float64)
        null = Null(counts[0], counts[1], generator, ordered=False)
        effects.append(null.effect(JensenShannon()))
        values.append(null.value(JensenShannon()))
    assert 0.1 < np.mean(values) < 0.2
    assert np.quantile(effects, 0.95) < 0.05


# --- shares of rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed", "marked", "drawn", "total"),
    [(3, 10, 50, 500), (0, 10, 50, 500), (10, 10, 50, 500), (60, 100, 500, 1000), (520, 1000, 500, 1001), (1, 1, 1, 2)],
)
def test_the_hypergeometric_tail_is_scipy_s(observed: int, marked: int, drawn: int, total: int) -> None:
    exact = float(stats.hypergeom.sf(observed - 1, total, marked, drawn))
    found = hypergeometric_tail(observed, marked, drawn, total)
    above = observed > drawn * marked / total
    assert found == pytest.approx(exact, rel=1e-9) if above else found == pytest.approx(exact, abs=0.05)


def test_the_tail_of_many_rows_is_quick_and_right() -> None:
    # 1,000 among 10,000,000 drawn of 20,000,000: mean 500, sd 15.8
    found = hypergeometric_tail(550, 1000, 10_000_000, 20_000_000)
    assert found == pytest.approx(float(stats.hypergeom.sf(549, 20_000_000, 1000, 10_000_000)), rel=1e-6)


def test_a_share_is_compared_with_the_blocks_shares() -> None:
    generator = np.random.default_rng(14)
    rows = np.full(40, 1000)
    events = generator.binomial(rows, np.exp(generator.normal(np.log(0.05), 0.5, 40)))
    total = int(events.sum())
    alone, note = excess((total, 95), (40_000, 1000), generator)
    among, none = excess((total, 95), (40_000, 1000), generator, block_events=events, block_rows=rows)
    assert alone < 0.01 < 0.05 < among
    assert note.startswith("calibrating, 0 of 20")
    assert none == ""
