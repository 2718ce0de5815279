"""Layouts: where edges and categories are put, and that they come back from their bytes."""

import numpy as np
import pyarrow as pa
import pytest

from monitors.contract import Column, Role, Type
from monitors.layout import CategoryLayout, Layout, NumericLayout, OutcomeLayout, plan_layout


def column(name: str, kind: Type = Type.NUMERIC, role: Role = Role.FEATURE, **more: object) -> Column:
    return Column(name=name, role=role, type=kind, **more)  # type: ignore[arg-type]


def planned(values: object, kind: Type = Type.NUMERIC, role: Role = Role.FEATURE, **more: object) -> object:
    batch = pa.record_batch({"features.x": pa.array(values)})
    return plan_layout([batch], [column("features.x", kind, role, **more)]).columns["features.x"]


def test_few_distinct_values_get_an_edge_and_a_cell_each() -> None:
    layout = planned([3.0, 1.0, 1.0, None, 2.0, float("nan"), float("inf")])
    assert layout == NumericLayout(np.array([1.0, 2.0, 3.0]), tied=True)
    assert isinstance(layout, NumericLayout)
    assert layout.cells == 7


def test_many_distinct_values_get_edges_at_quantiles_that_occur() -> None:
    values = np.random.default_rng(1).normal(size=10_000)
    layout = planned(values)
    assert isinstance(layout, NumericLayout)
    assert layout.edges.size == 1023
    assert not layout.tied
    assert np.isin(layout.edges, values).all()
    counts = np.bincount(np.searchsorted(layout.edges, values, side="right"))
    assert counts.min() >= 9
    assert counts.max() <= 11


def test_many_values_that_repeat_get_cells_of_their_own_at_the_edges() -> None:
    layout = planned(np.round(np.random.default_rng(1).normal(0, 10, 20_000), 2))
    assert isinstance(layout, NumericLayout)
    assert layout.tied


def test_scores_have_edges_at_quantiles_and_evenly_on_the_logit_scale() -> None:
    layout = planned(np.random.default_rng(1).beta(1, 200, 20_000), role=Role.SCORE)
    assert isinstance(layout, NumericLayout)
    assert layout.edges[0] == pytest.approx(1 / (1 + np.exp(16)))
    assert layout.edges[-1] == pytest.approx(1 - 1 / (1 + np.exp(16)))
    logit = np.log(layout.edges / (1 - layout.edges))
    assert np.diff(logit).max() <= 2 * 32 / 511 + 1e-9
    assert layout.edges.size <= 1023


def test_scores_outside_zero_to_one_have_bins_beyond_both_ends() -> None:
    values = np.random.default_rng(1).normal(size=20_000)
    layout = planned(values, role=Role.SCORE)
    assert isinstance(layout, NumericLayout)
    assert (layout.edges < values.min()).sum() == 64
    assert (layout.edges > values.max()).sum() == 64


def test_categories_come_most_frequent_first_and_declared_ones_are_counted_too() -> None:
    layout = planned(["b", "a", "b", None, "c", "a", "b"], Type.CATEGORICAL, categories=("z", "a"))
    assert layout == CategoryLayout(("b", "a", "c", "z"))


def test_at_most_a_thousand_categories_are_counted_apart() -> None:
    values = [f"v{i}" for i in range(1500)] + ["v1400"] * 2
    layout = planned(values, Type.CATEGORICAL)
    assert isinstance(layout, CategoryLayout)
    assert len(layout.categories) == 1000
    assert layout.categories[0] == "v1400"


def test_numbers_declared_categorical_have_one_spelling() -> None:
    assert planned([1.0, 2.5, 1.0, None], Type.CATEGORICAL) == CategoryLayout(("1", "2.5"))


def test_booleans_texts_and_empty_columns_have_fixed_bins() -> None:
    assert planned([True, True], Type.BOOLEAN) == CategoryLayout(("false", "true"))
    for layout in (planned(["some text"], Type.TEXT), planned(pa.array([], pa.float64()))):
        assert isinstance(layout, NumericLayout)
        assert layout.cells == 1


def test_times_are_laid_out_in_seconds() -> None:
    stamps = pa.array([1_000_000, 2_500_000], pa.timestamp("us", tz="UTC"))
    layout = planned(stamps, Type.DATETIME)
    assert isinstance(layout, NumericLayout)
    assert layout.edges.tolist() == [1.0, 2.5]


def test_a_ground_truth_without_rows_has_the_bins_of_the_prediction() -> None:
    batch = pa.record_batch({"prediction": pa.array(["yes", "no", "yes"])})
    columns = [
        column("prediction", Type.CATEGORICAL, Role.PREDICTION),
        column("ground_truth", Type.CATEGORICAL, Role.GROUND_TRUTH),
    ]
    assert plan_layout([batch], columns).columns["ground_truth"] == CategoryLayout(("yes", "no"))


def test_bounds_are_the_ends_of_the_cells_in_order() -> None:
    low, high = NumericLayout(np.array([1.0, 2.0]), tied=True).bounds(0.0, 5.0)
    assert low.tolist() == [0.0, 1.0, 1.0, 2.0, 2.0]
    assert high.tolist() == [1.0, 1.0, 2.0, 2.0, 5.0]


def test_a_layout_comes_back_from_its_bytes() -> None:
    outcomes = OutcomeLayout("binary", ("no", "yes"), "yes", {"sex": ("F", "M"), "sex*age": ("F*young",)}, (0.5, 1.0))
    layout = Layout(
        {
            "features.x": NumericLayout(np.array([0.1, 1e300]), tied=True),
            "features.ü": CategoryLayout(("a", "ß")),
            "score": NumericLayout(np.linspace(0, 1, 50)),
        },
        outcomes,
        3,
    )
    again = Layout.decode(layout.encode())
    assert again == layout
    assert again.number == 3
    assert again.outcomes == outcomes
    assert list(again.columns) == list(layout.columns)
    assert again is Layout.decode(layout.encode())


def test_layouts_with_other_bins_are_not_equal() -> None:
    assert Layout({"a": NumericLayout(np.array([1.0]))}) != Layout({"a": NumericLayout(np.array([2.0]))})
    assert Layout({"a": NumericLayout(np.array([1.0]))}) != Layout({"a": NumericLayout(np.array([1.0]), True)})
    assert Layout({"a": CategoryLayout(("1",))}, number=1) == Layout({"a": CategoryLayout(("1",))}, number=2)


@pytest.mark.parametrize("data", [b"", b"\x63rest"])
def test_a_layout_of_an_unknown_format_is_refused_with_both_formats_named(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read; this version reads format 1"):
        Layout.decode(data)


def test_a_layout_stored_by_format_1_stays_readable() -> None:
    stored = bytes.fromhex(FORMAT_1)
    layout = Layout.decode(stored)
    assert layout.columns["features.x"] == NumericLayout(np.array([1.0, 2.0]), tied=True)
    assert layout.columns["features.c"] == CategoryLayout(("a", "b"))
    assert layout.outcomes == OutcomeLayout("binary", ("0", "1"), "1", {"sex": ("F",)})
    assert layout.number == 2


def test_edges_must_increase() -> None:
    with pytest.raises(ValueError, match="strictly increasing"):
        NumericLayout(np.array([1.0, 1.0]))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: OutcomeLayout("ranking"), "is not one of"),
        (lambda: OutcomeLayout("binary", ("a",)), "two classes"),
        (lambda: OutcomeLayout("binary", ("a", "b"), "c"), "positive class"),
        (lambda: OutcomeLayout("regression", groups={"x": tuple(map(str, range(65)))}), "65 groups"),
    ],
)
def test_outcomes_that_cannot_be_counted_are_refused(made: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made()  # type: ignore[operator]


def test_more_than_fifty_classes_keep_the_most_frequent() -> None:
    names = [f"k{i}" for i in range(60)]
    truth = names + ["k59"] * 3
    batch = pa.record_batch({"ground_truth": pa.array(truth), "prediction": pa.array(truth)})
    columns = [column("ground_truth", Type.CATEGORICAL, Role.GROUND_TRUTH)]
    layout = plan_layout([batch], columns, outcomes=OutcomeLayout("multiclass", tuple(names)))
    assert layout.outcomes is not None
    assert len(layout.outcomes.classes) == 49
    assert "k59" in layout.outcomes.classes


FORMAT_1 = (
    "0128b52ffd20f8950500a2cb2425a027690c63ffffffff33a1a585dddb066d13b25bc99784ec66e7e1b0e27cff7f02545526"
    "030488888838b0804d93d02151ef58abed4c295d30ca13ba23c4630d39377c3e28c2726b19e24c1bce03765592d0d4b28acf"
    "07abdc8cc20cf7d8999a7471ae46ab31449d32ce8d6cf435773e74b955e4d0f304c06a7b4ea9c16755d43283cebb282f61c6"
    "29706e5a286f994144850a00b8d0bd4c8ea58c02aad9aa30c3ca6a9d66a9b2e8534eadb56a0f"
)
