"""The statistics of one column: what every one owes, hand-worked values, and SciPy on the same rows."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from monitors import discovery
from monitors.contract import BinnedStatistic
from monitors.statistics.anderson import AndersonDarling
from monitors.statistics.chisquare import ChiSquare
from monitors.statistics.cramer_von_mises import CramerVonMises
from monitors.statistics.ed import EnergyDistance
from monitors.statistics.g_test import GTest
from monitors.statistics.hellinger import Hellinger
from monitors.statistics.jensenshannon import JensenShannon
from monitors.statistics.kl_div import KullbackLeibler
from monitors.statistics.ks import KolmogorovSmirnov
from monitors.statistics.linf import LInfinity
from monitors.statistics.linf_robust import RobustLInfinity
from monitors.statistics.psi import PopulationStability
from monitors.statistics.sagemaker_chisquared import SageMakerChiSquared
from monitors.statistics.tvd import TotalVariation
from monitors.statistics.wasserstein import Wasserstein
from monitors.statistics.z import TwoProportions
from monitors.testing import NEW, OLD, POSITIONS, StatisticBattery

Floats = NDArray[np.float64]


class TestEveryStatistic(StatisticBattery):
    @pytest.fixture(params=discovery.statistics().values(), ids=list(discovery.statistics()))
    def statistic(self, request: pytest.FixtureRequest) -> BinnedStatistic:
        found: BinnedStatistic = request.param
        return found


# Hand-worked: shares 1/2, 1/2 -> 1/4, 3/4.
HALVES, QUARTERS = np.array([2.0, 2.0]), np.array([1.0, 3.0])


def test_psi_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # (-1/4) ln(1/2) + (1/4) ln(3/2) = ln(3) / 4
    assert PopulationStability().value(HALVES, QUARTERS) == pytest.approx(np.log(3) / 4)


def test_psi_takes_no_share_below_one_in_ten_thousand() -> None:
    # 0 -> 1e-4 against 1/2: (1/2 - 1e-4) ln(5000); 1 against 1/2: (1/2) ln 2
    expected = (0.5 - 1e-4) * np.log(5000) + 0.5 * np.log(2)
    assert PopulationStability().value(HALVES, np.array([0.0, 4.0])) == pytest.approx(expected)


def test_jensenshannon_is_one_where_nothing_is_in_common() -> None:
    assert JensenShannon().value(np.array([4.0, 0.0]), np.array([0.0, 9.0])) == pytest.approx(1.0)
    assert JensenShannon(natural=True).value(np.array([4.0, 0.0]), np.array([0.0, 9.0])) == pytest.approx(
        np.sqrt(np.log(2))
    )


def test_jensenshannon_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # middle 3/8, 5/8: (1/2 log2(4/3) + 1/2 log2(4/5) + 1/4 log2(2/3) + 3/4 log2(6/5)) / 2
    divergence = (0.5 * np.log2(4 / 3) + 0.5 * np.log2(4 / 5) + 0.25 * np.log2(2 / 3) + 0.75 * np.log2(6 / 5)) / 2
    assert JensenShannon().value(HALVES, QUARTERS) == pytest.approx(np.sqrt(divergence))


def test_hellinger_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # 1 - (sqrt(1/8) + sqrt(3/8)) under the root
    assert Hellinger().value(HALVES, QUARTERS) == pytest.approx(np.sqrt(1 - (np.sqrt(1 / 8) + np.sqrt(3 / 8))))


def test_linf_is_the_largest_change_of_a_share() -> None:
    # 0.05 -> 0.30, 0.20 -> 0.30, 0.75 -> 0.40
    assert LInfinity().value(OLD, NEW) == pytest.approx(0.35)


def test_ks_is_the_largest_gap_of_the_cumulative_shares() -> None:
    # 0.05, 0.25 against 0.30, 0.60
    assert KolmogorovSmirnov().value(OLD, NEW) == pytest.approx(0.35)


def test_wasserstein_is_the_area_between_the_cumulative_shares() -> None:
    # gaps 0.25 over [-1, 0] and 0.35 over [0, 2]
    assert Wasserstein().value(OLD, NEW, POSITIONS) == pytest.approx(0.25 + 0.70)


def test_wasserstein_asks_for_positions() -> None:
    with pytest.raises(ValueError, match="positions"):
        Wasserstein().value(OLD, NEW)


def test_chisquare_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # 2 2 / 1 3, margins 4 4 and 3 5: expected 1.5 2.5; 4 cells of 1/4, over 1.5, 2.5, 1.5, 2.5 = 1/3 + 1/5
    assert ChiSquare().value(HALVES, QUARTERS) == pytest.approx(1 / 3 + 1 / 5)


def _pairs() -> list[tuple[Floats, Floats]]:
    generator = np.random.default_rng(5)
    return [
        (generator.integers(1, 200, 12).astype(np.float64), generator.integers(1, 60, 12).astype(np.float64))
        for _ in range(20)
    ]


def test_chisquare_equals_scipy() -> None:
    for old, new in _pairs():
        table = np.array([old, new])
        assert ChiSquare().value(old, new) == pytest.approx(stats.chi2_contingency(table, correction=False).statistic)


def test_jensenshannon_equals_scipy() -> None:
    for old, new in _pairs():
        assert JensenShannon().value(old, new) == pytest.approx(jensenshannon(old, new, 2))
        assert JensenShannon(natural=True).value(old, new) == pytest.approx(jensenshannon(old, new))


def test_ks_equals_scipy_where_every_value_has_a_bin_of_its_own() -> None:
    generator = np.random.default_rng(6)
    for _ in range(20):
        old, new = generator.integers(0, 15, 200), generator.integers(0, 15, 70) + generator.integers(0, 2)
        counts = [np.bincount(values, minlength=17).astype(np.float64) for values in (old, new)]
        assert KolmogorovSmirnov().value(counts[0], counts[1]) == pytest.approx(stats.ks_2samp(old, new).statistic)


def test_wasserstein_equals_scipy_where_positions_are_the_values() -> None:
    for old, new in _pairs():
        positions = np.sort(np.random.default_rng(7).normal(size=12))
        expected = stats.wasserstein_distance(positions, positions, old, new)
        assert Wasserstein().value(old, new, positions) == pytest.approx(expected)


def test_kl_div_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # 1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4) = ln(4/3) / 2
    assert KullbackLeibler().value(HALVES, QUARTERS) == pytest.approx(np.log(4 / 3) / 2)


def test_tvd_is_the_share_of_rows_that_would_have_to_move() -> None:
    # 0.05 -> 0.30 and 0.20 -> 0.30 come from 0.75 -> 0.40
    assert TotalVariation().value(OLD, NEW) == pytest.approx(0.35)


def test_g_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # 2 2 / 1 3, expected 1.5 2.5 twice: 2 (2 ln(4/3) + 2 ln(4/5) + ln(2/3) + 3 ln(6/5))
    expected = 2 * (2 * np.log(4 / 3) + 2 * np.log(4 / 5) + np.log(2 / 3) + 3 * np.log(6 / 5))
    assert GTest().value(HALVES, QUARTERS) == pytest.approx(expected)


def test_z_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # 1/2 of 4 against 1/4 of 4, pooled 3/8: (1/4) / sqrt(3/8 5/8 (1/4 + 1/4))
    assert TwoProportions().value(HALVES, QUARTERS) == pytest.approx(0.25 / np.sqrt(15 / 128))


def test_z_squared_is_the_chisquare_of_two_categories() -> None:
    assert TwoProportions().value(HALVES, QUARTERS) ** 2 == pytest.approx(float(ChiSquare().value(HALVES, QUARTERS)))


def test_energy_distance_is_the_root_of_twice_the_area_of_the_squared_gap() -> None:
    # gaps 0.25 over [-1, 0] and 0.35 over [0, 2]
    assert EnergyDistance().value(OLD, NEW, POSITIONS) == pytest.approx(np.sqrt(2 * (0.25**2 + 2 * 0.35**2)))


def test_energy_distance_asks_for_positions() -> None:
    with pytest.raises(ValueError, match="positions"):
        EnergyDistance().value(OLD, NEW)


def test_cramer_von_mises_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # rows 1 2 against 3 4: gaps 1/2 1 1/2 0, T = 2 2 / 16 (1/4 + 1 + 1/4)
    separate = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, 1.0])
    assert CramerVonMises().value(*separate) == pytest.approx(4 / 16 * 1.5)


def test_linf_robust_takes_off_what_chance_gives() -> None:
    # 10,000 against 10,000: 1.8 sqrt(2 / 10,000); shares 0.25, then cumulative 0.35
    old, new = 100 * OLD, 100 * NEW
    allowed = 1.8 * np.sqrt(2 / 10_000)
    assert RobustLInfinity().value(old, new) == pytest.approx(0.35 - allowed)
    moved = np.array([3000.0, 1000.0, 6000.0])  # 0.30 0.10 0.60: shares change by 0.25, cumulative ones by 0.25
    assert RobustLInfinity().value(old, moved, POSITIONS) == pytest.approx(0.25 - allowed)
    mixed = np.array([2000.0, 3500.0, 4500.0])  # 0.20 0.35 0.45: shares by 0.30, cumulative ones by 0.30 too
    assert RobustLInfinity().value(old, mixed, POSITIONS) == pytest.approx(0.30 - allowed)
    middle = np.array([1500.0, 3000.0, 5500.0])  # 0.15 0.30 0.55: shares by at most 0.20, cumulative by 0.10 and 0.20
    assert RobustLInfinity().value(old, middle, POSITIONS) == pytest.approx(0.20 - allowed)


def test_linf_robust_is_nothing_where_few_rows_moved_a_little() -> None:
    assert RobustLInfinity().value(OLD, np.array([10.0, 20.0, 70.0]), POSITIONS) == 0


def test_sagemaker_s_chisquared_takes_the_baseline_as_exact() -> None:
    # 40 60 against 50 50: 100/50 + 100/50 = 4 with one degree of freedom
    found = SageMakerChiSquared().value(np.array([500.0, 500.0]), np.array([40.0, 60.0]))
    assert found == pytest.approx(stats.chi2.sf(4, 1))


def test_sagemaker_s_chisquared_merges_the_rarest_and_leaves_new_categories_out() -> None:
    # expected of 100 rows: 1 2 17 80, so two of four expect under 5; 1 and 2 merge to 3, one of three; then 20 80
    old, new = np.array([80.0, 17.0, 2.0, 1.0, 0.0]), np.array([70.0, 20.0, 6.0, 4.0, 50.0])
    # 70 30 against 80 20: 100/80 + 100/20
    assert SageMakerChiSquared().value(old, new) == pytest.approx(stats.chi2.sf(1.25 + 5.0, 1))


def test_sagemaker_s_chisquared_says_nothing_of_one_category() -> None:
    assert SageMakerChiSquared().value(np.array([9.0, 1.0]), np.array([5.0, 5.0])) == 1


def test_kl_div_equals_scipy() -> None:
    for old, new in _pairs():
        assert KullbackLeibler().value(old, new) == pytest.approx(stats.entropy(old, new))


def test_g_test_equals_scipy() -> None:
    for old, new in _pairs():
        found = stats.chi2_contingency(np.array([old, new]), correction=False, lambda_="log-likelihood")
        assert GTest().value(old, new) == pytest.approx(found.statistic)


def test_energy_distance_equals_scipy_where_positions_are_the_values() -> None:
    for old, new in _pairs():
        positions = np.sort(np.random.default_rng(8).normal(size=12))
        expected = stats.energy_distance(positions, positions, old, new)
        assert EnergyDistance().value(old, new, positions) == pytest.approx(expected)


def _separate_rows() -> tuple[Floats, Floats, Floats, Floats]:
    """Return rows of two samples without ties, and their counts with a bin for each row."""
    generator = np.random.default_rng(9)
    old, new = generator.normal(size=60), generator.normal(0.5, 1.3, size=35)
    order = np.argsort(np.concatenate([old, new]))
    is_new = (np.arange(95) >= 60)[order].astype(np.float64)
    return old, new, 1 - is_new, is_new


def test_cramer_von_mises_equals_scipy_where_every_row_has_a_bin_of_its_own() -> None:
    old, new, counts, more = _separate_rows()
    assert CramerVonMises().value(counts, more) == pytest.approx(stats.cramervonmises_2samp(old, new).statistic)


def anderson_sigma(n: int, m: int) -> float:
    """Return the standard deviation of A² of two samples; Scholz and Stephens (1987), equation 4."""
    size, k = n + m, 2
    inverse = 1 / np.arange(1, size)
    H, h = 1 / n + 1 / m, inverse.sum()  # noqa: N806 - as the paper writes it
    g = sum(1 / ((size - i) * j) for i in range(1, size - 1) for j in range(i + 1, size))
    a = (4 * g - 6) * (k - 1) + (10 - 6 * g) * H
    b = (2 * g - 4) * k**2 + 8 * h * k + (2 * g - 14 * h - 4) * H - 8 * h + 4 * g - 6
    c = (6 * h + 2 * g - 2) * k**2 + (4 * h - 4 * g + 6) * k + (2 * h - 6) * H + 4 * h
    d = (2 * h + 6) * k**2 - 4 * h * k
    return float(np.sqrt((a * size**3 + b * size**2 + c * size + d) / ((size - 1.0) * (size - 2.0) * (size - 3.0))))


def test_anderson_standardised_equals_scipy_with_and_without_ties() -> None:
    old, new, counts, more = _separate_rows()
    tied_old, tied_new = np.round(old, 1), np.round(new, 1)
    values = np.unique(np.concatenate([tied_old, tied_new]))
    tied = [np.array([(rows == value).sum() for value in values], np.float64) for rows in (tied_old, tied_new)]
    for rows, bins in (((old, new), (counts, more)), ((tied_old, tied_new), tied)):
        expected = stats.anderson_ksamp(rows, variant="midrank")
        ours = (float(AndersonDarling().value(*bins)) - 1) / anderson_sigma(60, 35)
        assert ours == pytest.approx(expected.statistic)
