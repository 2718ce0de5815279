"""Posted metrics: figures beside those of quiet windows, with numbers worked by hand and SciPy's t distribution."""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from monitors.budget import BudgetPolicy, PolicyInvalidError, parse_policy
from monitors.contract import Direction, Posted, PostedFigures, Result, Task, Verdict
from monitors.kinds.posted_metrics import PostedMetrics, PostedParameters, combined, compared
from monitors.testing import usual_comparison

NINE_AND_ELEVEN = [9.0, 11.0] * 10
"""Twenty values with the mean 10 and the variance 20 / 19."""


def judged(
    window: Sequence[Posted | float], quiet: Sequence[Posted | float], policy: dict[str, Any] | None = None, **how: Any
) -> list[Result]:
    """Return figures called spend, judged at 0.01: those of one window, and one of each quiet window before."""

    def figure(value: Posted | float) -> Posted:
        return value if isinstance(value, Posted) else Posted(metric="spend", value=value)

    posted = PostedFigures(window=tuple(map(figure, window)), quiet=tuple((figure(value),) for value in quiet))
    parameters = PostedParameters.model_validate({"metrics": {"spend": {"direction": "higher_is_worse"} | how}})
    judge = parse_policy(policy or {})
    found = PostedMetrics().measure(replace(usual_comparison({}), posted=posted), judge.prepared(parameters))
    return judge.judge(found, 0.01)


def test_a_figure_is_compared_with_quiet_ones_by_the_t_distribution_of_one_more_value() -> None:
    (one,) = judged([14.0], NINE_AND_ELEVEN)
    # 4 above the mean, of which one more value has the standard deviation sqrt(20/19 * 21/20) = sqrt(21/19).
    assert one.p_value == pytest.approx(stats.t.sf(4 * sqrt(19 / 21), 19), rel=1e-9)
    assert one.p_value == pytest.approx(6.0e-4, rel=0.01)
    assert (one.value, one.baseline_value, one.effect) == (14.0, 10.0, 4.0)
    # Half of the interval of the mean: t * sqrt(20/19) / sqrt(20) = 2.093 / sqrt(19).
    assert one.min_effect == pytest.approx(2.0930 / sqrt(19), rel=1e-4)
    assert (one.n_window, one.n_baseline, one.verdict) == (1, 20, Verdict.VIOLATED)


def test_a_figure_that_is_better_or_as_usual_is_ok() -> None:
    assert [judged([value], NINE_AND_ELEVEN)[0].verdict for value in (5.0, 10.0, 11.0)] == [Verdict.OK] * 3


@pytest.mark.parametrize(
    ("direction", "quiet", "bad", "good"),
    [
        ("lower_is_worse", NINE_AND_ELEVEN, 6.0, 14.0),
        ("distance_from_zero", [-0.1, 0.1, 0.2, -0.2] * 5, -0.9, 0.0),
        ("distance_from_one", [0.9, 1.1, 1.2, 0.8] * 5, 1.9, 1.0),
    ],
)
def test_each_direction_has_its_bad_side(direction: str, quiet: list[float], bad: float, good: float) -> None:
    assert judged([bad], quiet, direction=direction)[0].verdict is Verdict.VIOLATED
    assert judged([good], quiet, direction=direction)[0].verdict is Verdict.OK


def test_either_direction_doubles_the_chance_and_says_on_which_side_it_is() -> None:
    (above,), (below,) = (judged([value], NINE_AND_ELEVEN, direction="either") for value in (14.0, 6.0))
    assert above.p_value == below.p_value == pytest.approx(2 * stats.t.sf(4 * sqrt(19 / 21), 19), rel=1e-9)
    assert (above.direction, below.direction) == (Direction.HIGHER_IS_WORSE, Direction.LOWER_IS_WORSE)
    assert above.effect == below.effect == 4.0
    assert "either direction" in above.note


def test_with_fewer_than_twenty_quiet_windows_a_tenth_of_alpha_is_spent_and_said() -> None:
    (one,) = judged([14.0], NINE_AND_ELEVEN[:10])
    # Ten values, variance 10/9: t = 4 / sqrt(10/9 * 11/10) = 4 / sqrt(11/9) with 9 degrees of freedom, p = 0.0028.
    assert one.p_value == pytest.approx(stats.t.sf(4 / sqrt(11 / 9), 9), rel=1e-9)
    assert one.alpha == pytest.approx(0.001)
    assert one.verdict is Verdict.OK
    assert one.note.startswith("calibrating, 10 of 20 quiet windows")


def test_without_two_quiet_windows_a_figure_is_shown_and_not_judged() -> None:
    (one,) = judged([14.0], [9.0])
    assert (one.value, one.p_value, one.verdict, one.decides) == (14.0, None, None, False)


def test_a_few_equal_values_say_no_more_than_their_number() -> None:
    assert compared(6.0, np.array([5.0, 5.0]), "higher_is_worse").p_value == pytest.approx(1 / 3)
    (one,) = judged([5.0], [0.0] * 20)  # twenty are enough to say that it never moved
    assert (one.p_value, one.verdict) == (0.0, Verdict.VIOLATED)
    assert judged([0.0], [0.0] * 20)[0].verdict is Verdict.OK


def test_a_change_below_the_least_effect_is_ok_however_sure() -> None:
    assert judged([14.0], NINE_AND_ELEVEN, min_effect=5.0)[0].verdict is Verdict.OK


def test_a_threshold_judges_without_any_history() -> None:
    policy = {"threshold": {"spend": 12.0}}
    assert [judged([value], [], policy)[0].verdict for value in (12.0, 12.5)] == [Verdict.OK, Verdict.VIOLATED]


def test_a_threshold_cannot_judge_what_has_two_bad_sides_or_is_not_watched() -> None:
    with pytest.raises(PolicyInvalidError, match="either direction"):
        judged([1.0], [], {"threshold": {"spend": 12.0}}, direction="either")
    with pytest.raises(PolicyInvalidError, match="watches no figure spent; it watches spend"):
        judged([1.0], [], {"threshold": {"spent": 12.0}})


def test_several_figures_of_a_window_are_put_together() -> None:
    parts = [Posted(metric="spend", value=value, n=n) for value, n in ((10.0, 300), (20.0, 100), (12.0, 100))]
    # The mean weighs by n: (3000 + 2000 + 1200) / 500 = 12.4.
    found = {how: combined(parts, how) for how in ("mean", "sum", "last", "least", "most")}
    assert {how: one.value for how, one in found.items()} == {
        "mean": pytest.approx(12.4),
        "sum": 42.0,
        "last": 12.0,
        "least": 10.0,
        "most": 20.0,
    }
    assert found["mean"].n == 500
    assert combined([replace(parts[0], n=None), parts[1]], "mean").value == 15.0


def test_an_interval_is_told_of_one_figure_alone() -> None:
    own = Posted(metric="spend", value=14.0, interval=(12.0, 16.0), n=40, unit="EUR")
    (one,) = judged([own], NINE_AND_ELEVEN)
    assert (one.interval, one.n_window, one.unit) == ((12.0, 16.0), 40, "EUR")
    (both,) = judged([own, own], NINE_AND_ELEVEN)
    assert (both.interval, both.n_window) == (None, 80)


def test_figures_of_few_rows_are_not_judged_and_no_measure_of_others() -> None:
    few = Posted(metric="spend", value=40.0, n=5)
    (one,) = judged([few], NINE_AND_ELEVEN, min_rows=30)
    assert (one.verdict, one.reason) == (Verdict.NOT_MEASURED, "insufficient rows: 5 of 30 behind the figure")
    assert judged([14.0], [few, *NINE_AND_ELEVEN], min_rows=30)[0].n_baseline == 20


def test_groups_are_figures_of_their_own_and_one_that_was_there_before_is_missed() -> None:
    def of(group: str, value: float) -> Posted:
        return Posted(metric="spend", value=value, attribute="region", group=group)

    parameters = PostedParameters.model_validate({"metrics": {"spend": {"direction": "lower_is_worse"}}})
    posted = PostedFigures(
        window=(of("north", 1.0),), quiet=tuple((of("north", v), of("south", v)) for v in NINE_AND_ELEVEN)
    )
    comparison = replace(usual_comparison({}), posted=posted)
    north, south = BudgetPolicy().judge(PostedMetrics().measure(comparison, parameters), 0.01)
    assert (north.subject.group, north.verdict) == ("north", Verdict.VIOLATED)
    assert (south.subject.group, south.verdict, south.reason) == (
        "south",
        Verdict.NOT_MEASURED,
        "no value was posted",
    )
    assert PostedMetrics().awaited(comparison, parameters) == ["spend region south"]


def test_a_name_of_the_catalogue_brings_its_direction_and_any_other_must_say_it() -> None:
    known = PostedParameters.model_validate({"metrics": ["roc_auc", "f1_macro", "mae"]})
    sides = [known.side(name) for name in ("roc_auc", "f1_macro", "mae")]
    assert sides == ["lower_is_worse", "lower_is_worse", "higher_is_worse"]
    with pytest.raises(ValidationError, match="no metric of the catalogue is called spend: say its direction"):
        PostedParameters.model_validate({"metrics": ["spend"]})


def test_a_monitor_without_figures_is_asked_for_some() -> None:
    assert "name the figures" in PostedMetrics().missing(Task(), PostedParameters())
    assert PostedMetrics().missing(Task(), PostedParameters.model_validate({"metrics": ["mae"]})) == ""
