"""Champion and challenger: every figure of both on the same rows, drawn together; what decides, and what does not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from monitors.comparison import Contest, contested, is_better
from monitors.contract import Task
from monitors.performance import PerformanceParameters

START = datetime(2026, 3, 2, tzinfo=UTC)
BINARY = Task(name="binary", classes=("0", "1"), positive_class="1")


def rows(truth: Any, said: Any, hours: int = 4, **columns: Any) -> pa.Table:
    """Return rows in the lake's columns, spread evenly over so many hours."""
    moments = [START + timedelta(hours=place * hours // len(truth)) for place in range(len(truth))]
    base = {"timestamp": pa.array(moments, pa.timestamp("us", tz="UTC")), "prediction": said, "ground_truth": truth}
    return pa.table(base | columns)


def compared(one: pa.Table, other: pa.Table, task: Task = BINARY, **parameters: Any) -> dict[str, Contest]:
    generator = np.random.default_rng(5)
    found = contested(one, other, task, PerformanceParameters(**parameters), generator)
    return {contest.figure.metric: contest for contest in found if contest.figure.class_ is None}


def answers(count: int, right: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    truth = np.random.default_rng(1).integers(0, 2, count)
    hit = np.random.default_rng(seed).random(count) < right
    return truth.astype(str), np.where(hit, truth, 1 - truth).astype(str)


def test_figures_are_those_of_the_rows_and_the_gap_is_challenger_minus_champion() -> None:
    # 100 rows, half of them positive; the champion errs on 20, the challenger on the first 10 of these.
    truth = np.array(["0", "1"] * 50)
    turned = np.where(truth == "0", "1", "0")
    champion = np.where(np.arange(100) < 20, turned, truth)
    challenger = np.where(np.arange(100) < 10, turned, truth)
    found = compared(rows(truth, champion), rows(truth, challenger))["accuracy"]
    assert (found.champion, found.challenger) == (0.8, 0.9)
    assert found.interval is not None
    # Rows are drawn in pairs: the gap is 1 on 10 of 100 rows, else 0, its deviation sqrt(0.1 * 0.9 / 100) = 0.03. With
    # two figures that decide (accuracy and F1, no score) each interval has the level 0.975: 2.24 deviations.
    assert found.level == 0.975
    assert found.interval == pytest.approx((0.1 - 2.24 * 0.03, 0.1 + 2.24 * 0.03), abs=0.015)
    assert found.better


@pytest.mark.parametrize(("pairs", "most"), [(20, 3), pytest.param(100, 7, marks=pytest.mark.long)])
def test_equal_models_are_not_shown_to_be_better_more_often_than_said(pairs: int, most: int) -> None:
    better = 0
    for seed in range(pairs):
        truth, one = answers(300, 0.7, 100 + seed)
        _, other = answers(300, 0.7, 900 + seed)
        better += is_better(list(compared(rows(truth, one), rows(truth, other)).values()))
    # 2.5 % are better by chance; 7 of 100 or fewer then has a chance of 0.997, 3 of 20 or fewer one of 0.9986
    assert better <= most


def test_rows_of_an_hour_that_err_together_are_drawn_together() -> None:
    # In half of 40 hours all 25 rows of the champion are wrong: 1,000 rows, and yet 40 facts.
    truth = np.array(["1", "0"] * 500)
    wrong = np.repeat(np.random.default_rng(3).random(40) < 0.5, 25)
    champion = np.where(wrong, np.where(truth == "1", "0", "1"), truth)
    together = compared(rows(truth, champion, hours=40), rows(truth, truth, hours=40))["accuracy"].interval
    apart = compared(rows(truth, champion, hours=4), rows(truth, truth, hours=4))["accuracy"].interval
    assert together is not None
    assert apart is not None
    # deviations of a mean of 40 and of 1,000 facts: sqrt(25) = 5 times as wide
    assert (together[1] - together[0]) / (apart[1] - apart[0]) == pytest.approx(5, rel=0.2)


def test_one_deciding_figure_that_is_worse_speaks_against_what_is_better() -> None:
    truth, said = answers(2000, 0.7, 4)
    generator = np.random.default_rng(8)
    ranked = np.where(truth == "1", 0.6, 0.4) + generator.normal(0, 0.2, 2000)
    one = rows(truth, said, score=ranked.clip(0, 1))
    other = rows(truth, truth, score=generator.random(2000))  # all right, and scores at random
    found = compared(one, other)
    assert found["accuracy"].better
    assert found["roc_auc"].worse
    assert not is_better(list(found.values()))
    chosen = compared(one, other, metrics=["accuracy"])
    assert is_better(list(chosen.values()))


def test_numbers_are_compared_by_their_errors_and_a_bias_by_its_distance_from_zero() -> None:
    generator = np.random.default_rng(2)
    truth = generator.normal(100, 10, 900)
    noise = generator.normal(0, 1, 900)
    found = compared(rows(truth, truth + noise - 2), rows(truth, truth + noise + 0.5), Task(name="regression"))
    assert {name for name, one in found.items() if one.decides} == {"mae", "rmse", "mean_error"}
    assert found["mean_error"].challenger - found["mean_error"].champion == pytest.approx(2.5)
    assert found["mean_error"].better  # 0.5 off is nearer to none than 2 off
    assert found["mae"].better
    assert found["mae"].interval is not None
    assert found["mae"].interval[1] < 0
    assert is_better(list(found.values()))


def test_classes_of_several_are_compared_by_their_means() -> None:
    generator = np.random.default_rng(6)
    truth = generator.choice(["a", "b", "c"], 1200)
    guess = np.where(generator.random(1200) < 0.5, truth, generator.choice(["a", "b", "c"], 1200))
    found = compared(rows(truth, guess), rows(truth, truth), Task(name="multiclass"))
    assert found["accuracy"].challenger == 1.0
    assert found["f1_macro"].better
    assert found["f1_macro"].decides


def test_a_binary_task_without_two_classes_is_refused() -> None:
    one = rows(np.array(["1"] * 40), np.array(["1"] * 40))
    with pytest.raises(ValueError, match="name 1 classes"):
        contested(one, one, Task(name="binary"), PerformanceParameters(), np.random.default_rng(1))
