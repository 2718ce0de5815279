"""Root causes: what a model heeds, what a moved feature did to it, and how a change of its errors splits."""

import numpy as np
import pyarrow as pa
import pytest

from monitors.causes import explained, heeded, shares_of, split, tilted
from monitors.contract import Task
from monitors.testing import feature

COLUMNS = [feature("age"), feature("pay"), feature("noise")]
TASK = Task(name="binary", classes=("0", "1"), positive_class="1")


def rows(seed: int, number: int, *, shift: float = 0.0, prior: float | None = None, turned: bool = False) -> pa.Table:
    """Return rows of a model that says 1 above an age of 0, right where ages are far from it.

    ``shift`` moves the ages; ``prior`` keeps so many positives, whatever their ages; ``turned`` turns the labels of
    one row in three.
    """
    g = np.random.default_rng(seed)
    size = number if prior is None else 20 * number
    age, pay, noise = g.normal(shift, 1, size), g.normal(size=size), g.normal(size=size)
    truth = (g.random(size) < 1 / (1 + np.exp(-3 * age))).astype(int)
    if turned:
        truth = np.where(g.random(size) < 1 / 3, 1 - truth, truth)
    if prior is not None:
        ones, zeros = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
        kept = np.r_[ones[: round(prior * number)], zeros[: number - round(prior * number)]]
        age, pay, noise, truth = age[kept], pay[kept], noise[kept], truth[kept]
    score = 1 / (1 + np.exp(-3 * age - 0.5 * pay))
    return pa.table(
        {
            "features.age": age,
            "features.pay": pay,
            "features.noise": noise,
            "score": score,
            "prediction": np.where(age > 0, "1", "0"),
            "ground_truth": truth.astype(str),
        }
    )


def parts(window: pa.Table, seed: int = 3) -> dict[str, tuple[float, tuple[float, float]]]:
    found = split(rows(1, 4000), window, COLUMNS, TASK, np.random.default_rng(seed))
    assert [part.name for part in found] == ["change", "covariate", "label", "concept"]
    return {part.name: (part.value or 0.0, part.interval or (0.0, 0.0)) for part in found}


def test_a_surrogate_says_which_features_the_model_heeds() -> None:
    found = heeded(rows(1, 2000), COLUMNS, np.random.default_rng(2))
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["age"] > 0.8
    assert found["age"] > found["pay"] > found["noise"]
    assert found["noise"] < 0.02


def test_the_feature_that_moved_explains_the_change_of_performance() -> None:
    moved = rows(2, 2000, shift=2.0)
    found = explained(rows(1, 4000), moved, COLUMNS, TASK, np.random.default_rng(3))
    # Errors are made near an age of 0: fewer of them when ages leave it
    assert found["age"] < -0.05
    assert abs(found["pay"]) < 0.02
    assert abs(found["noise"]) < 0.02


def test_moved_inputs_are_the_covariate_part() -> None:
    found = parts(rows(2, 3000, shift=1.5))
    assert found["covariate"][0] == pytest.approx(found["change"][0], abs=0.03)
    assert found["covariate"][1][1] < 0
    assert found["concept"][1][0] < 0.015
    assert found["concept"][1][1] > -0.015


def test_turned_labels_are_the_concept_part() -> None:
    found = parts(rows(2, 3000, turned=True))
    assert found["concept"][0] == pytest.approx(found["change"][0], abs=0.04)
    assert found["concept"][1][0] > 0.1
    assert abs(found["covariate"][0]) < 0.03


def test_the_parts_add_up() -> None:
    found = parts(rows(2, 1500, prior=0.2))
    assert found["change"][0] == pytest.approx(sum(found[name][0] for name in ("covariate", "label", "concept")))
    low, high = found["change"][1]
    assert low <= found["change"][0] <= high


def test_chances_are_tilted_to_the_shares_of_the_window() -> None:
    # One row of odds 1: to shares 1/4, 3/4; and two rows whose odds get one factor
    assert tilted(np.array([[0.5, 0.5]]), np.array([0.25, 0.75]))[0].tolist() == pytest.approx([0.25, 0.75])
    found = tilted(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([0.5, 0.5]))
    odds = found[:, 0] / found[:, 1] / np.array([0.25, 1.5])
    assert found.mean(axis=0).tolist() == pytest.approx([0.5, 0.5])
    assert odds[0] == pytest.approx(odds[1])


def test_without_labels_there_is_a_reason_and_no_number() -> None:
    window = rows(2, 500).drop_columns(["ground_truth"])
    (part,) = split(rows(1, 500), window, COLUMNS, TASK, np.random.default_rng(1))
    assert part.value is None
    assert "labelled rows" in part.reason
    assert explained(window, window, COLUMNS, TASK, np.random.default_rng(1)) == {}


def test_importances_become_shares() -> None:
    assert shares_of({"a": 3.0, "b": 1.0, "c": -1.0}) == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert shares_of({"a": 0.0}) == {}
