"""Row quality: each fault found in rows that have it, by the check that is about it."""

from typing import Any

import numpy as np
import pytest

from monitors import discovery
from monitors.budget import BudgetPolicy
from monitors.contract import Comparison, Result, Verdict
from monitors.kinds.row_quality import correlation
from monitors.testing import usual_comparison, usual_rows


def judged(compared: Comparison, **parameters: Any) -> list[Result]:
    kind = discovery.kinds()["row_quality"]
    return BudgetPolicy().judge(kind.measure(compared, kind.parameters.model_validate(parameters)), 0.05)


def violated(compared: Comparison, **parameters: Any) -> set[tuple[str, str | None]]:
    return {
        (one.metric, one.subject.feature or one.subject.class_)
        for one in judged(compared, **parameters)
        if one.verdict is Verdict.VIOLATED
    }


def window(**changes: Any) -> dict[str, Any]:
    return usual_rows(600, seed=5) | changes


def test_quiet_rows_pass_every_check() -> None:
    results = judged(usual_comparison(window()))
    assert not [one for one in results if one.verdict is Verdict.VIOLATED]
    assert {one.metric for one in results} == {
        "duplicate_rows",
        "class_share",
        "outliers",
        "constant_column",
        "vanished_categories",
        "target_leakage",
        "correlation",
    }


def test_repeated_rows_are_found() -> None:
    rows = window()
    again = np.r_[np.arange(300), np.arange(300)]
    assert violated(usual_comparison({name: np.asarray(rows[name])[again] for name in rows})) == {
        ("duplicate_rows", None)
    }


def test_outliers_are_found_in_their_column() -> None:
    rows = window()
    rows["pay"] = np.where(np.random.default_rng(4).random(600) < 0.04, 60.0, rows["pay"])
    assert ("outliers", "pay") in violated(usual_comparison(rows))
    assert ("outliers", "age") not in violated(usual_comparison(rows))


def test_a_column_that_stands_still_is_found() -> None:
    assert ("constant_column", "age") in violated(usual_comparison(window(age=np.full(600, 1.5))))


def test_a_category_that_nobody_has_any_more_is_found() -> None:
    assert ("vanished_categories", "job") in violated(usual_comparison(window(job=np.full(600, "nurse"))))


def test_a_broken_correlation_is_found_although_no_column_moved() -> None:
    rows = window()
    rows["pay"] = np.random.default_rng(4).permutation(rows["pay"])
    assert violated(usual_comparison(rows)) == {("correlation", "age × pay")}


def test_a_class_that_became_rare_is_found() -> None:
    rows = window(ground_truth=np.where(np.random.default_rng(5).random(600) < 0.1, "1", "0"))
    assert ("class_share", "1") in violated(usual_comparison(rows))


@pytest.mark.parametrize("column", ["pay", "job"])
def test_a_feature_that_knows_the_label_leaks(column: str) -> None:
    rows = window()
    known = rows["ground_truth"] == "1"
    rows[column] = known * 2.0 - 1 if column == "pay" else np.where(known, "clerk", "nurse")
    assert ("target_leakage", column) in violated(usual_comparison(rows))
    assert ("target_leakage", column) not in violated(usual_comparison(window()))


def test_a_rank_correlation_is_the_textbook_value_on_a_hand_worked_table() -> None:
    # ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = 0.6
    assert correlation(np.array([[1.0, 20], [2, 10], [3, 40], [4, 30]])) == pytest.approx(0.6)
    assert correlation(np.array([[1.0, 5]] * 9)) is None
