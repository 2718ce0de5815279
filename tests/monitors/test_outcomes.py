"""Outcome tables: what is counted in them is what the rows say, per class, group and score."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from monitors.contract import Column, Role, Type
from monitors.kernel import profile_batches, profile_buckets
from monitors.layout import MOMENTS, Layout, NumericLayout, OutcomeLayout, plan_layout
from monitors.profile import Profile, merged


def column(name: str, kind: Type = Type.CATEGORICAL) -> Column:
    role = Role.SCORE if name.startswith("score") else Role(name)
    return Column(name=name, role=role, type=kind)


def binary_rows(number: int, seed: int) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    score = rng.beta(1, 8, number)
    label = np.where(rng.random(number) < score, "bad", "good").astype(object)
    label[rng.random(number) < 0.2] = None
    label[rng.random(number) < 0.01] = "ugly"
    return pa.record_batch(
        {
            "timestamp": pa.array(rng.integers(0, 5 * 3_600_000_000, number), pa.timestamp("us", tz="UTC")),
            "score": pa.array(score, mask=rng.random(number) < 0.05),
            "prediction": np.where(score > 0.3, "bad", "good"),
            "ground_truth": pa.array(label),
            "group.sex": pa.array(rng.choice(["F", "M", "X"], number), mask=rng.random(number) < 0.1),
            "group.age": pa.array(rng.choice(["young", "old"], number)).dictionary_encode(),
        }
    )


BINARY = OutcomeLayout("binary", ("good", "bad"), "bad", {"sex": ("F", "M"), "sex*age": ("F*old", "M*young")})


def binary_layout(rows: pa.RecordBatch) -> Layout:
    columns = [column("score", Type.NUMERIC), column("prediction"), column("ground_truth")]
    return plan_layout([rows], columns, outcomes=BINARY)


def test_binary_rows_are_counted_by_group_label_prediction_and_score() -> None:
    rows = binary_rows(5000, 1)
    layout = binary_layout(rows)
    profile = profile_batches([rows], layout)
    frame = rows.to_pandas()
    frame["label"] = frame["ground_truth"].map({"good": 0, "bad": 1}).fillna(2).astype(int)
    frame["guess"] = frame["prediction"].map({"good": 0, "bad": 1}).astype(int)
    frame["sex"] = frame["group.sex"].map({"F": 0, "M": 1, "X": 2}).fillna(3).astype(int)
    expected = np.zeros((4, 3, 3))
    np.add.at(expected, (frame["sex"], frame["label"], frame["guess"]), 1)
    assert profile.outcomes["sex"].sum(axis=-1).tolist() == expected.tolist()
    assert profile.outcomes["all"].sum(axis=-1)[0].tolist() == expected.sum(axis=0).tolist()
    assert profile.outcomes["all"][..., -1].sum() == frame["score"].isna().sum()
    scores = layout.columns["score"]
    assert isinstance(scores, NumericLayout)
    cells = np.searchsorted(scores.edges, frame["score"].dropna(), side="right")
    assert (
        profile.outcomes["all"].sum(axis=(0, 1, 2))[:-1].tolist() == np.bincount(cells, minlength=scores.cells).tolist()
    )
    crossed = frame["group.sex"].str.cat(frame["group.age"].astype(str), sep="*")
    old = crossed.map({"F*old": 0, "M*young": 1}).fillna(2).where(frame["group.sex"].notna(), 3)
    assert (
        profile.outcomes["sex*age"].sum(axis=(1, 2, 3)).tolist() == np.bincount(old.astype(int), minlength=4).tolist()
    )


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_auc_of_the_table_is_that_of_the_rows_also_when_positives_are_rare_and_scores_shift(shift: float) -> None:
    rng = np.random.default_rng(2)

    def rows(number: int, off: float) -> pa.RecordBatch:
        logit = rng.normal(-6 + off, 1.0, number)
        score = 1 / (1 + np.exp(-logit))
        label = np.where(rng.random(number) < score, "bad", "good")
        return pa.record_batch({"score": score, "prediction": label, "ground_truth": label})

    layout = binary_layout(rows(50_000, 0.0))
    window = rows(200_000, shift)
    table = profile_batches([window], layout).outcomes["all"][0, :2, :, :-1].sum(axis=1)
    negative, positive = table
    below = np.cumsum(negative) - negative
    auc = float((positive * (below + negative / 2)).sum() / negative.sum() / positive.sum())
    exact = roc_auc_score(window["ground_truth"].to_pandas() == "bad", window["score"].to_numpy())
    assert auc == pytest.approx(exact, abs=5e-5)


def test_multiclass_rows_are_counted_by_label_and_prediction_and_by_the_score_of_each_class() -> None:
    rng = np.random.default_rng(3)
    classes = ("cat", "dog", "owl")
    truth = rng.choice([*classes, "yak"], 2000).astype(object)
    truth[:100] = None
    rows = pa.record_batch(
        {
            "ground_truth": pa.array(truth),
            "prediction": rng.choice(classes, 2000),
            "scores.dog": rng.random(2000),
            "group.sex": rng.choice(["F", "M"], 2000),
        }
    )
    columns = [column("ground_truth"), column("prediction"), column("scores.dog", Type.NUMERIC)]
    layout = plan_layout([rows], columns, outcomes=OutcomeLayout("multiclass", classes, groups={"sex": ("F", "M")}))
    outcomes = profile_batches([rows], layout).outcomes
    frame = rows.to_pandas()
    order = {"cat": 0, "dog": 1, "owl": 2, "yak": 3}
    expected = np.zeros((5, 5))
    np.add.at(expected, (frame["ground_truth"].map(order).fillna(4).astype(int), frame["prediction"].map(order)), 1)
    assert outcomes["all"][0].tolist() == expected.tolist()
    assert outcomes["sex"].sum(axis=0).tolist() == expected.tolist()
    assert set(outcomes) == {"all", "sex", "all/dog", "sex/dog"}
    dog = outcomes["all/dog"][0].sum(axis=-1)
    assert dog.tolist() == [
        [expected[1, 1], expected[1].sum() - expected[1, 1]],
        [expected[[0, 2, 3], 1].sum(), expected[[0, 2, 3]].sum() - expected[[0, 2, 3], 1].sum()],
        [expected[4, 1], expected[4].sum() - expected[4, 1]],
    ]


def regression_rows(number: int, seed: int) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    truth = np.round(rng.normal(100, 30, number), 2)
    truth[:3] = 0.0, -5.0, 2.5
    texts = [str(value) for value in truth.tolist()]
    return pa.record_batch(
        {
            "timestamp": pa.array(rng.integers(0, 5 * 3_600_000_000, number), pa.timestamp("us", tz="UTC")),
            "prediction": truth + rng.normal(2, 10, number),
            "ground_truth": pa.array(texts, mask=rng.random(number) < 0.1),
            "group.sex": rng.choice(["F", "M"], number),
        }
    )


def test_the_sums_of_a_regression_are_those_of_the_rows() -> None:
    rows = regression_rows(3000, 4)
    columns = [column("prediction", Type.NUMERIC), column("ground_truth", Type.NUMERIC)]
    layout = plan_layout([rows], columns, outcomes=OutcomeLayout("regression", groups={"sex": ("F", "M")}))
    outcomes = profile_batches([rows], layout).outcomes
    frame = rows.to_pandas().assign(y=lambda f: pd.to_numeric(f["ground_truth"]), p=lambda f: f["prediction"])
    known = frame.dropna(subset="y")
    y, p = known["y"].to_numpy(), known["p"].to_numpy()
    e = p - y
    fit = (y > -1) & (p > -1)
    expected = {
        "n": len(y),
        "e": e.sum(),
        "abs_e": np.abs(e).sum(),
        "e2": (e**2).sum(),
        "e4": (e**4).sum(),
        "y": y.sum(),
        "y2": (y**2).sum(),
        "y4": (y**4).sum(),
        "e_y": (e * y).sum(),
        "e2_y": (e**2 * y).sum(),
        "relative": (np.abs(e[y != 0]) / np.abs(y[y != 0])).sum(),
        "relative_n": (y != 0).sum(),
        "log2": ((np.log1p(p[fit]) - np.log1p(y[fit])) ** 2).sum(),
        "log2_n": fit.sum(),
        "unknown": len(frame) - len(known),
    }
    assert set(MOMENTS) == set(expected)
    for place, name in enumerate(MOMENTS):
        assert outcomes["all"][0, place] == pytest.approx(expected[name], rel=1e-9), name
        assert outcomes["sex"][:, place].sum() == pytest.approx(expected[name], rel=1e-9), name
    assert outcomes["all/residual"].sum() == len(y)
    assert outcomes["all/residual_sums"].sum() == pytest.approx(e.sum())
    assert layout.outcomes is not None
    cells = np.searchsorted(layout.outcomes.residual_edges, e, side="right")
    assert np.flatnonzero(outcomes["all/residual"][0]).tolist() == np.unique(cells).tolist()


def test_the_labels_of_a_multilabel_model_are_counted_one_by_one_and_by_how_many() -> None:
    truth = [json.dumps(["a", "b"]), json.dumps([]), None, json.dumps(["c"])]
    guess = [json.dumps(["a"]), json.dumps(["b"]), json.dumps(["a"]), json.dumps(["c", "a"])]
    rows = pa.record_batch({"ground_truth": pa.array(truth), "prediction": pa.array(guess)})
    layout = plan_layout([rows], [], outcomes=OutcomeLayout("multilabel", ("a", "b", "c")))
    outcomes = profile_batches([rows], layout).outcomes
    assert outcomes["all/a"][0, :, :, 0].tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    sizes = outcomes["all/sizes"]
    assert {tuple(map(int, cell)) for cell in np.argwhere(sizes)} == {(2, 1, 1), (0, 1, 0), (1, 2, 1)}


@pytest.mark.parametrize("rows", [binary_rows(3000, 5), regression_rows(3000, 5)], ids=["binary", "regression"])
def test_outcomes_add_up_over_buckets_and_come_back_from_their_bytes(rows: pa.RecordBatch) -> None:
    if "score" in rows.schema.names:
        layout = binary_layout(rows)
    else:
        columns = [column("prediction", Type.NUMERIC), column("ground_truth", Type.NUMERIC)]
        layout = plan_layout([rows], columns, outcomes=OutcomeLayout("regression", groups={"sex": ("F", "M")}))
    whole = profile_batches([rows], layout)
    buckets = profile_buckets([rows], layout)
    stored = [Profile.decode(layout, p.encode_inputs(), p.encode_outcomes()) for p in buckets.values()]
    total = merged(layout, stored)
    assert len(buckets) == 5
    for name, table in whole.outcomes.items():
        np.testing.assert_allclose(total.outcomes[name], table, rtol=1e-9)
    assert total.columns["ground_truth"].count == whole.columns["ground_truth"].count


def test_an_attribute_that_the_rows_lack_is_unknown() -> None:
    rows = binary_rows(100, 6)
    layout = binary_layout(rows)
    outcomes = profile_batches([rows.drop_columns(["group.sex"])], layout).outcomes
    assert outcomes["sex"].sum(axis=(1, 2, 3)).tolist() == [0, 0, 0, 100]
