"""Slices: what a condition holds, what is refused, and worst slices found without being told where to look."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from monitors.contract import Task, Type
from monitors.discovered import worst_slices
from monitors.losses import row_losses
from monitors.slices import Slice, SliceInvalidError, declared
from monitors.testing import feature

ROWS = pa.table(
    {
        "features.age": pa.array([17.0, 18.0, 24.5, 25.0, None]),
        "features.job": pa.array(["clerk", "nurse", None, "clerk", "smith"]).dictionary_encode(),
        "features.big": pa.array([True, False, True, None, True]),
        "tags.region": pa.array(["EU", "EU", "US", "1", "true"]),
    }
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"features.age": {"ge": 18, "lt": 25}}, [1, 2]),
        ({"features.age": {"gt": 18, "le": 25}}, [2, 3]),
        ({"features.age": [25, 17.0]}, [0, 3]),
        ({"features.age": {"missing": True}}, [4]),
        ({"features.job": ["clerk"]}, [0, 3]),
        ({"features.job": {"ne": "clerk"}}, [1, 4]),  # what is missing is not another value
        ({"features.job": {"not_in": ["clerk", "nurse"]}}, [4]),
        ({"features.big": [True]}, [0, 2, 4]),
        ({"tags.region": ["EU"], "features.age": {"ge": 18}}, [1]),
        ({"tags.region": [1]}, [3]),  # labels have one spelling
        ({"tags.region": {"gt": 0}}, [3]),  # text that is no number is on no side of one
        ({"tags.absent": ["x"]}, []),
        ({"tags.absent": {"missing": True}}, [0, 1, 2, 3, 4]),
    ],
)
def test_a_slice_holds_the_rows_for_which_every_condition_holds(where: dict[str, Any], expected: list[int]) -> None:
    (part,) = declared("s", {"where": where}).slices(None)
    assert np.flatnonzero(part.mask(ROWS)).tolist() == expected
    assert part.of(ROWS).num_rows == len(expected)


@pytest.mark.parametrize(
    ("document", "pointer", "says"),
    [
        ({}, "", "a slice is"),
        ({"where": {}}, "", "a slice is"),
        ({"where": {"features.age": 3}}, "/where/features.age", "a condition is a list"),
        ({"where": {"features.age": {"like": "4%"}}}, "/where/features.age/like", "there is no like"),
        ({"where": {"features.age": {"lt": "x"}}}, "/where/features.age/lt", "finite number"),
        ({"where": {"1=1; drop table model": ["x"]}}, "/where/1=1; drop table model", "made by features"),
        ({"where": {"protected.sex": ["F"]}}, "/where/protected.sex", "made by features"),
        ({"by": "tags.region", "at_most": 21}, "/at_most", "from 1 to 20"),
        ({"by": "tags.region", "where": {}}, "", "a slice is"),
    ],
)
def test_what_is_no_slice_is_refused_with_a_pointer(document: dict[str, Any], pointer: str, says: str) -> None:
    with pytest.raises(SliceInvalidError, match=says) as caught:
        declared("s", document)
    assert caught.value.pointer == pointer


def test_by_makes_a_slice_of_each_of_the_most_frequent_values() -> None:
    found = declared("job", {"by": "features.job", "at_most": 2}).slices(ROWS)
    assert [part.name for part in found] == ["job=clerk", "job=nurse"]  # nurse and smith are alike: by name
    assert found[0].mask(ROWS).tolist() == [True, False, False, True, False]


def test_a_slice_has_another_key_when_its_conditions_change() -> None:
    assert Slice("s", {"features.age": [1]}).key != Slice("s", {"features.age": [2]}).key
    assert len(Slice("s" * 128, {"features.age": [1]}).key) <= 128 - 16  # room for the digest of the columns


COLUMNS = [feature("age"), feature("pay"), feature("job", Type.CATEGORICAL)]


def population(seed: int, number: int = 3000) -> pa.Table:
    generator = np.random.default_rng(seed)
    return pa.table(
        {
            "features.age": generator.uniform(18, 80, number),
            "features.pay": generator.normal(size=number),
            "features.job": generator.choice(["clerk", "nurse", "smith"], number),
        }
    )


def test_the_worst_slice_is_found_and_named_in_the_grammar_of_slices() -> None:
    rows, generator = population(1), np.random.default_rng(2)
    bad = (rows["features.age"].to_numpy() < 30) & (np.array(rows["features.job"].to_pylist()) == "nurse")
    loss = (generator.random(3000) < np.where(bad, 0.6, 0.1)).astype(float)
    first = worst_slices(rows, loss, COLUMNS, np.random.default_rng(3))[0]
    assert first.worse
    assert first.value == pytest.approx(0.6, abs=0.12)
    assert first.rest == pytest.approx(0.1, abs=0.03)
    assert first.where["features.job"] == {"in": ["nurse"]}
    assert first.where["features.age"]["le"] == pytest.approx(30, abs=3)
    (part,) = declared("worst", {"where": first.where}).slices(None)
    held = part.mask(rows)
    assert (held & bad).sum() > 0.85 * max(held.sum(), bad.sum())


def test_no_slice_is_called_worse_where_all_are_alike() -> None:
    # At most 5 % of data sets may have a false one: 60 sets, 99.9 % quantile of Binomial(60, 0.05) is 9
    false = 0
    for seed in range(60):
        rows, generator = population(seed, 600), np.random.default_rng(seed + 1000)
        loss = (generator.random(600) < 0.2).astype(float)
        false += any(one.worse for one in worst_slices(rows, loss, COLUMNS, generator))
    assert false <= 9


def test_a_row_costs_one_where_its_class_is_wrong_and_its_error_where_it_is_a_number() -> None:
    rows = pa.table({"prediction": ["1", "0", "1", None], "ground_truth": ["1", "1", None, "0"]})
    found = row_losses(rows, Task(name="binary"))
    assert found is not None
    assert found[:2].tolist() == [0.0, 1.0]
    assert np.isnan(found[2:]).all()
    numbers = pa.table({"prediction": [1.0, 4.0], "ground_truth": ["3.5", "4"]})
    found = row_losses(numbers, Task(name="regression"))
    assert found is not None
    assert found.tolist() == [2.5, 0.0]
    assert row_losses(pa.table({"prediction": ["1"]}), Task(name="binary")) is None
