"""The bias monitor's parts: who is withheld, what is judged how, and how often it is wrong when nothing has changed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from monitors import discovery
from monitors.bias import BiasParameters, Compared, Estimate, People, measured, scaled, withheld
from monitors.budget import BudgetPolicy
from monitors.contract import (
    Arrivals,
    Attribute,
    Comparison,
    CountedBias,
    Counts,
    Result,
    Rule,
    Task,
    Verdict,
)
from monitors.exact import EPOCH
from monitors.groups import cut_names, plan_groups
from monitors.kernel import profile_batches
from monitors.layout import Layout, OutcomeLayout
from monitors.resampling import drawn_counts

METRICS = discovery.bias_metrics()
QUIET = np.array(
    [
        # group F, M, other, unknown; label unfavourable, favourable, unknown; prediction the same
        [[0.10, 0.04, 0.0], [0.05, 0.15, 0.0], [0.02, 0.03, 0.0]],
        [[0.12, 0.06, 0.0], [0.06, 0.22, 0.0], [0.03, 0.05, 0.0]],
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        [[0.02, 0.01, 0.0], [0.01, 0.03, 0.0], [0.0, 0.0, 0.0]],
    ]
)[:, None]


def counted(name: str) -> CountedBias:
    metric = METRICS[name]
    assert isinstance(metric, CountedBias)
    return metric


def people(cells: Counts, reference: str | None = None) -> People:
    return People("sex", ("F", "M"), np.asarray(cells, np.float64), reference)


def table(rng: np.random.Generator, rows: int) -> Counts:
    shares = (QUIET / QUIET.sum()).ravel()
    return rng.multinomial(rows, shares).astype(np.float64).reshape(QUIET.shape)


def compared(rng: np.random.Generator, rows: int, baseline: int, blocks: Counts | None = None) -> Compared:
    return Compared(people(table(rng, rows)), people(table(rng, baseline)), blocks, rng)


# --- withheld ---------------------------------------------------------------------------------------------------------


def test_a_small_group_is_withheld_and_so_is_the_next_smallest_where_it_could_be_found_by_subtraction() -> None:
    # 5 rows of c could be found as the total less a and b; with b (40) withheld too they hide among 45.
    assert withheld(("a", "b", "c"), np.array([100, 40, 5, 0, 0.0]), 30).tolist() == [False, True, True]
    # 200 rows of "other" hide them as well: nothing is told of those.
    assert withheld(("a", "b", "c"), np.array([100, 40, 5, 200, 0.0]), 30).tolist() == [False, False, True]
    assert withheld(("a", "b", "c"), np.array([100, 40, 30, 0, 0.0]), 30).tolist() == [False, False, False]
    # 5 rows beside 8 are still found to within 8: a third one is withheld.
    assert withheld(("a", "b", "c", "d"), np.array([5, 8, 60, 50, 0, 0.0]), 30).tolist() == [True, True, False, True]
    assert withheld(("a", "b"), np.array([100, 0, 0, 0.0]), 30).tolist() == [False, False]


def test_in_a_crossing_a_small_cell_hides_another_of_its_row_and_of_its_column() -> None:
    names = ("F*old", "F*young", "M*old", "M*young")
    # F*old could be found as F less F*young, and as old less M*old; then M*young as M less M*old.
    assert withheld(names, np.array([5, 50, 60, 70, 0, 0.0]), 30).tolist() == [True, True, True, True]
    assert withheld(names, np.array([45, 50, 60, 70, 0, 0.0]), 30).tolist() == [False] * 4


# --- groups -----------------------------------------------------------------------------------------------------------


def test_a_crossing_has_at_most_64_cells_and_cuts_name_their_groups() -> None:
    assert cut_names([25, 62.5]) == ("<25", "25..62.5", ">=62.5")
    declared = [
        Attribute(name="country", values=tuple(f"c{place}" for place in range(20))),
        Attribute(name="age", cuts=(20.0, 30.0, 40.0, 50.0)),
        Attribute(name="country*age", crossed=("country", "age")),
    ]
    groups = plan_groups(declared, {})
    assert len(groups["age"]) == 5
    assert len(groups["country*age"]) == 64


def test_a_group_is_compared_with_all_others_whose_group_is_known_or_with_the_reference() -> None:
    cells = np.zeros((4, 1, 3, 3))
    cells[0, 0, 1, 1], cells[0, 0, 1, 0] = 30, 10  # F: 3/4 favoured
    cells[1, 0, 1, 1], cells[1, 0, 1, 0] = 40, 40  # M: 1/2
    cells[2, 0, 1, 1] = 40  # other: all
    cells[3, 0, 1, 0] = 1000  # unknown: none, and in no comparison
    dppl = counted("DPPL")
    # F against the rest: (40 + 40) / 120 - 30 / 40 = -1/12; M against the rest: 70 / 80 - 40 / 80 = 3/8
    assert measured(dppl, people(cells), people(cells).cells).tolist() == pytest.approx([-1 / 12, 3 / 8])
    assert measured(dppl, people(cells, "M"), people(cells).cells).tolist() == pytest.approx([1 / 2 - 3 / 4])


# --- judging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trials"),
    [
        ("DPPL", 60),
        *(pytest.param(name, 400, marks=pytest.mark.long) for name in ("DPPL", "DI", "RD", "AD", "TVD")),
    ],
)
def test_quiet_windows_are_rejected_at_the_nominal_rate(name: str, trials: int) -> None:
    """Of 400 quiet windows at 5 % at most 34 may be rejected: the binomial's 99.9 % bound is 5 % + 3.1 standard errors.

    With independent rows, window 600 and baseline 6,000.
    """
    rng = np.random.default_rng([len(name), ord(name[0])])
    rejected = 0
    for _ in range(trials):
        change = Estimate.of(counted(name), compared(rng, 600, 6000), judged=True).change(0)
        assert change is not None
        rejected += change[1] <= 0.05
    assert rejected <= trials * 0.05 + 3.1 * np.sqrt(trials * 0.05 * 0.95)
    assert rejected >= max(1, trials // 100)  # and it is no test that never rejects


@pytest.mark.parametrize("trials", [40, pytest.param(100, marks=pytest.mark.long)])
def test_days_that_differ_by_more_than_chance_are_judged_by_how_much_quiet_days_differ(trials: int) -> None:
    """Shares that wander from day to day by 0.08: with 30 quiet blocks at most 99.9 % of the binomial at 5 % alarm."""
    rng = np.random.default_rng(3)
    metric = counted("DPPL")

    def day() -> Counts:
        cells = np.zeros((4, 1, 3, 3))
        for place, (rows, share) in enumerate(((800, 0.5 + rng.normal(0, 0.08)), (1200, 0.5))):
            good = rng.binomial(rows, np.clip(share, 0, 1))
            cells[place, 0, 2, 1], cells[place, 0, 2, 0] = good, rows - good
        return cells

    by_rows = by_blocks = 0
    for _ in range(trials):
        blocks = np.stack([day() for _ in range(30)])
        base, window = people(blocks.sum(axis=0)), people(day())
        alone = Estimate.of(metric, Compared(window, base, None, rng), judged=True).change(0)
        told = Estimate.of(metric, Compared(window, base, blocks, rng), judged=True).change(0)
        assert alone is not None
        assert told is not None
        assert told[2] is True
        by_rows += alone[1] <= 0.05
        by_blocks += told[1] <= 0.05
    assert by_rows > 0.3 * trials  # independent rows are not what this is
    assert by_blocks <= trials * 0.05 + 3.1 * np.sqrt(trials * 0.05 * 0.95)


def test_a_move_towards_equal_treatment_is_no_effect_and_one_to_the_other_side_is() -> None:
    cells = np.zeros((4, 1, 3, 3))

    def accepted(women: float, men: float) -> People:
        found = cells.copy()
        for place, share in enumerate((women, men)):
            found[place, 0, 2, 1], found[place, 0, 2, 0] = 1000 * share, 1000 * (1 - share)
        return people(found, "M")

    def effect(before: tuple[float, float], now: tuple[float, float]) -> float:
        rng = np.random.default_rng(1)
        change = Estimate.of(
            counted("DPPL"), Compared(accepted(*now), accepted(*before), None, rng), judged=True
        ).change(0)
        assert change is not None
        return change[0]

    assert effect((0.4, 0.6), (0.5, 0.6)) == pytest.approx(-0.1)
    assert effect((0.4, 0.6), (0.3, 0.6)) == pytest.approx(0.1)
    assert effect((0.4, 0.6), (0.7, 0.5)) == pytest.approx(0.4)


def test_the_interval_covers_the_true_value_and_disparate_impact_is_judged_by_its_logarithm() -> None:
    rng = np.random.default_rng(5)
    truth = float(measured(counted("DI"), people(QUIET), QUIET)[0])
    covered = 0
    for _ in range(100):
        found = Estimate.of(counted("DI"), Compared(people(table(rng, 1500)), None, None, rng), judged=False)
        interval = found.interval(0)
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    assert 88 <= covered <= 99  # 95 expected, with a deviation of 2.2
    assert scaled(METRICS["DI"], np.array([0.8, 1.25])).tolist() == pytest.approx([-np.log(1.25), np.log(1.25)])


def test_level_judges_whether_the_value_is_outside_the_four_fifths() -> None:
    rng = np.random.default_rng(6)
    cells = np.zeros((4, 1, 3, 3))
    cells[0, 0, 2, 1], cells[0, 0, 2, 0] = 300, 700
    cells[1, 0, 2, 1], cells[1, 0, 2, 0] = 500, 500  # DI 0.6
    found = Estimate.of(counted("DI"), Compared(people(cells, "M"), None, None, rng), judged=True)
    outside = found.outside(0, (0.8, 1.25))
    assert outside is not None
    assert outside[0] == pytest.approx(np.log(0.8 / 0.6))
    assert outside[1] < 1e-4
    inside = found.outside(0, (0.5, 2.0))
    assert inside is not None
    assert inside[0] < 0
    assert inside[1] > 0.9


def accepting(women: float, men: float) -> pa.Table:
    """Return 1,000 women and 1,000 men, accepted in these shares."""
    parts = [np.repeat(["1", "0"], [round(1000 * share), 1000 - round(1000 * share)]) for share in (women, men)]
    return pa.table(
        {
            "prediction": np.concatenate(parts),
            "ground_truth": pa.nulls(2000, pa.string()),
            "group.sex": np.repeat(["F", "M"], 1000),
        }
    )


def by_rule(before: tuple[float, float], now: tuple[float, float], **parameters: Any) -> Result:
    """Return what a bias monitor says of the women's DPPL: the men's share of accepted less theirs."""
    outcomes = OutcomeLayout("binary", ("0", "1"), "1", {"sex": ("F", "M")}, favourable="1")
    layout = Layout({}, outcomes)
    old, new = (profile_batches(accepting(*shares).to_batches(), layout) for shares in (before, now))
    attribute = Attribute(name="sex", values=("F", "M"), reference="M")
    compared = Comparison(
        columns=[],
        baseline=old,
        scales={1: new},
        blocks={},
        arrivals=Arrivals(rows=2000, judged=False),
        starts_at=EPOCH,
        ends_at=EPOCH,
        generator=lambda metric, subject: np.random.default_rng([*f"{metric} {subject}".encode()]),
        task=Task(name="binary", classes=("0", "1"), favourable_outcome="1", protected=(attribute,)),
    )
    asked = BiasParameters.model_validate({"also": [], "fairlearn": [], **parameters})
    results = BudgetPolicy().judge(discovery.kinds()["bias"].measure(compared, asked), 1e-6)
    (found,) = [one for one in results if one.metric == "DPPL"]
    return found


def test_sagemakers_file_rule_is_violated_by_any_value_farther_from_equal_treatment() -> None:
    # DPPL 0.6 - 0.4 = 0.2 in the baseline; then 0.21 and 0.19, and on the other side -0.19 and -0.21.
    for women, verdict in ((0.39, "violated"), (0.41, "ok"), (0.79, "ok"), (0.81, "violated")):
        found = by_rule((0.4, 0.6), (women, 0.6), rule="file")
        assert found.value == pytest.approx(0.6 - women)
        assert found.verdict == verdict, women
        assert found.threshold == pytest.approx(0.2)
        assert found.rule is Rule.SAGEMAKER


def test_sagemakers_interval_rule_is_violated_where_the_intervals_are_apart() -> None:
    # Each interval is the value +- 1.96 sqrt(2 * 0.24 / 1000) = 0.043: 0.25 and 0.2 meet, 0.35 and 0.2 do not.
    near, far = by_rule((0.4, 0.6), (0.35, 0.6), rule="interval"), by_rule((0.4, 0.6), (0.25, 0.6), rule="interval")
    assert near.verdict is Verdict.OK
    assert far.verdict is Verdict.VIOLATED
    assert far.threshold == pytest.approx(0.2 + 0.043, abs=0.004)
    assert "SageMaker's interval rule" in far.note


def test_sagemakers_interval_rule_takes_a_given_range_instead_of_the_baselines_interval() -> None:
    inside = by_rule((0.4, 0.6), (0.47, 0.6), rule="interval", ranges={"DPPL": [-0.1, 0.1]})
    outside = by_rule((0.4, 0.6), (0.4, 0.6), rule="interval", ranges={"DPPL": [-0.1, 0.1]})
    assert inside.verdict is Verdict.OK  # 0.13 -+ 0.043 reaches into the range
    assert outside.verdict is Verdict.VIOLATED
    assert outside.threshold == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"metrics": ["FT"]}, "shown, not judged"),
        ({"metrics": ["fairness"]}, "no bias metric fairness"),
        ({"metrics": ["DPPL"], "rule": "level"}, "ranges says"),
        ({"ranges": {"DI": [0, 1]}}, "two finite numbers"),
        ({"fairlearn": ["equal_love"]}, "fairlearn has no equal_love"),
        ({"min_group": 1}, "greater than or equal to 2"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_with_what_would(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        BiasParameters.model_validate(parameters)


def test_a_monitor_waits_for_labels_only_where_a_judged_metric_needs_them() -> None:
    assert not BiasParameters().waits
    assert BiasParameters(metrics=["DPPL", "RD"]).waits
    assert BiasParameters(metrics=["DI"], rule="level").allowed("DI") == (0.8, 1.25)


def test_draws_keep_the_number_of_rows_and_cells_that_hold_none() -> None:
    rng = np.random.default_rng(1)
    cells = table(rng, 500)
    draws = drawn_counts(cells, rng, 50)
    assert draws.sum(axis=(1, 2, 3, 4)).tolist() == [500.0] * 50
    assert not draws[:, cells == 0].any()
    assert replace(people(cells), reference="F").looked_at == [1]
