"""The statistics of one column: what every one owes, hand-worked values, and SciPy on the same rows."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from monitors import discovery
from monitors.contract import BinnedStatistic
from monitors.statistics.chisquare import ChiSquare
from monitors.statistics.hellinger import Hellinger
from monitors.statistics.jensenshannon import JensenShannon
from monitors.statistics.ks import KolmogorovSmirnov
from monitors.statistics.linf import LInfinity
from monitors.statistics.psi import PopulationStability
from monitors.statistics.wasserstein import Wasserstein
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
