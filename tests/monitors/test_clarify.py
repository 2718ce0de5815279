"""Bias metrics beside smclarify's, run in its own environment, and beside the figures that AWS published."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitors import discovery
from monitors.contract import BiasMetric, CountedBias, SampledBias
from monitors.facets import FacetSample, facets_of_rows
from tests.conftest import ROOT

ORACLE = Path(__file__).parent / "clarify_oracle.py"
ENVIRONMENT = ROOT / "build" / "smclarify" / "bin" / "python"
TABLES = 300


def measured(metric: BiasMetric, table: dict[str, Any]) -> float:
    """Return a metric of the rows of a table as the oracle reads it."""
    other = np.asarray(table["facet"], np.bool_)
    if isinstance(metric, SampledBias):
        favourable = np.asarray(table["prediction"]) == 1
        return metric.value(FacetSample(np.asarray(table["features"], np.float64), other, favourable))[0]
    assert isinstance(metric, CountedBias)
    return float(metric.value(facets_of_rows(other, table["label"], table["prediction"], strata=table.get("stratum"))))


def all_measured(table: dict[str, Any], compat: str = "") -> dict[str, float]:
    found = {name: replace(metric, compat=compat) for name, metric in discovery.bias_metrics().items()}
    return {name: measured(metric, table) for name, metric in found.items()}


def random_table(rng: np.random.Generator) -> dict[str, Any]:
    """Return rows of any size and imbalance, down to groups without any favourable outcome."""
    rows = int(rng.choice([8, 20, 60, 200]))
    facet = rng.random(rows) < rng.choice([0.1, 0.3, 0.5, 0.9])
    facet[:2] = [True, False]
    base = rng.choice([0.05, 0.2, 0.5, 0.9])
    label = rng.random(rows) < np.clip(base + rng.choice([-0.2, 0.0, 0.3]) * facet, 0, 1)
    prediction = np.where(rng.random(rows) < rng.choice([0.5, 0.8, 0.95]), label, rng.random(rows) < base)
    return {
        "facet": facet.astype(int).tolist(),
        "label": label.astype(int).tolist(),
        "prediction": prediction.astype(int).tolist(),
        "stratum": rng.integers(0, int(rng.integers(1, 5)), rows).tolist(),
        "features": rng.normal(size=(rows, 3)).tolist(),
    }


@pytest.fixture(scope="module")
def tables() -> list[dict[str, Any]]:
    rng = np.random.default_rng(20_261_126)
    return [random_table(rng) for _ in range(TABLES)]


@pytest.fixture(scope="module")
def theirs(tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what smclarify says of each table."""
    if not ENVIRONMENT.exists():
        pytest.skip("smclarify has an environment of its own, which is not made: make smclarify")
    command = [str(ENVIRONMENT), str(ORACLE)]
    done = subprocess.run(command, input=json.dumps(tables), capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


@pytest.mark.long
def test_all_21_metrics_are_smclarifys_on_300_random_tables_in_compat_mode(
    tables: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> None:
    assert len(discovery.bias_metrics()) >= 21
    compared = dict.fromkeys(theirs[0], 0)
    raised = infinite = 0
    for table, said in zip(tables, theirs, strict=True):
        ours = all_measured(table, compat="smclarify")
        for name, value in said.items():
            if isinstance(value, str) and value.startswith("error"):
                assert np.isnan(ours[name]), (name, value, ours[name])
                raised += 1
            elif isinstance(value, str):
                assert ours[name] == float(value), (name, value, ours[name])
                infinite += 1
            else:
                assert ours[name] == pytest.approx(value, abs=1e-9), name
                compared[name] += 1
    assert len(compared) == 21
    assert min(compared.values()) >= 200  # each metric was a finite number on at least so many tables
    assert raised > 0  # tables without any favourable label, and without a label that both groups have
    assert infinite > 0


@pytest.mark.long
def test_where_smclarify_leaves_the_definition_the_default_does_not(
    tables: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> None:
    """Every difference is one of three: labels that one group lacks, division by nothing, the flip test's sign."""
    differing: dict[str, int] = {}
    for table, said in zip(tables, theirs, strict=True):
        ours = all_measured(table)
        other = np.asarray(table["facet"], np.bool_)
        label, prediction = np.asarray(table["label"]), np.asarray(table["prediction"])
        one_sided = any(len(set(label[which])) < 2 for which in (other, ~other))
        empty = any(
            min((values[which] == code).sum() for code in (0, 1)) == 0
            for values in (label, prediction)
            for which in (other, ~other)
        ) or any(((label == 0) & (prediction == 1) & which).sum() == 0 for which in (other, ~other))
        for name, value in said.items():
            if isinstance(value, str):
                continue
            if ours[name] == pytest.approx(value, abs=1e-9):
                continue
            differing[name] = differing.get(name, 0) + 1
            if name == "FT":
                assert ours[name] == pytest.approx(-value, abs=1e-9)
            elif name in ("KL", "JS", "LP", "TVD", "KS"):
                assert one_sided, name
            else:
                assert np.isnan(ours[name]), name
                assert empty, name
    assert {"FT", "KL", "TVD", "RD"} <= set(differing)
    assert not {"CI", "DPL", "DPPL", "CDDL", "CDDPL", "AD", "GE"} & set(differing)


def test_labels_that_one_group_lacks_count_by_default_and_not_in_smclarify() -> None:
    # a: 1, 1, 1 and d: 1, 0, 0. P_a = (0, 1), P_d = (2/3, 1/3): TVD 2/3, KL 1 ln 3; smclarify looks at label 1 alone:
    # TVD (1 - 1/3) / 2 = 1/3, KL the same 1 ln(1 / (1/3)), and with the groups swapped 1/3 ln(1/3) = -0.366.
    facets = facets_of_rows([False] * 3 + [True] * 3, [1, 1, 1, 1, 0, 0])
    metrics = discovery.bias_metrics()
    tvd, kl = metrics["TVD"], metrics["KL"]
    assert isinstance(tvd, CountedBias)
    assert isinstance(kl, CountedBias)
    assert float(tvd.value(facets)) == pytest.approx(2 / 3)
    assert float(replace(tvd, compat="smclarify").value(facets)) == pytest.approx(1 / 3)
    assert float(kl.value(facets)) == pytest.approx(np.log(3))
    swapped = facets_of_rows([True] * 3 + [False] * 3, [1, 1, 1, 1, 0, 0])
    assert float(replace(kl, compat="smclarify").value(swapped)) == pytest.approx(np.log(1 / 3) / 3)
    assert np.isinf(float(kl.value(swapped)))  # d lacks a label that a has: there is no finite divergence


def test_frozen_vector_of_sagemaker_9() -> None:
    rng = np.random.default_rng(7)
    n = 400
    f, g = rng.integers(0, 2, n), rng.integers(0, 3, n)
    y, p = rng.random(n) < 0.3 + 0.2 * f, rng.random(n) < 0.3 + 0.25 * f
    features = np.column_stack((rng.normal(size=n), rng.normal(size=n)))
    table = {
        "facet": f.tolist(),
        "label": y.astype(int).tolist(),
        "prediction": p.astype(int).tolist(),
        "stratum": g.tolist(),
        "features": features.tolist(),
    }
    expected = {
        "CI": -0.065, "DPL": -0.275263, "KL": 0.155002, "JS": 0.03943, "LP": 0.389281, "TVD": 0.275263, "KS": 0.275263,
        "CDDL": -0.281151, "DPPL": -0.261957, "DI": 1.83027, "DCA": -0.069175, "DCR": -0.002431, "RD": -0.349136,
        "SD": -0.261988, "DAR": -0.350834, "DRR": -0.275174, "AD": 0.043233, "TE": 0.054652, "CDDPL": -0.260603,
        "FT": 0.460094, "GE": 0.244795,
    }  # fmt: skip
    found = all_measured(table, compat="smclarify")
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=6e-7), name
    # Nothing is empty here, so only the flip test's sign is another by default.
    assert {**all_measured(table), "FT": -all_measured(table)["FT"]} == pytest.approx(found)


GENDER = ["M", "F", "F", "M", "F", "M", "F", "F", "M", "M", "F", "F"]
LABEL = [0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0]
PREDICTION = [1, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0]


def test_expected_1_9_smclarifys_own_post_training_figures() -> None:
    table = {"facet": [int(one == "F") for one in GENDER], "label": LABEL, "prediction": PREDICTION}
    metrics = discovery.bias_metrics()
    expected = {
        "CI": -1 / 6, "DI": 10 / 7, "DCA": 1 / 4, "DCR": 1 / 3, "RD": -2 / 3, "SD": 1 / 6, "DRR": 1 / 3, "AD": -13 / 35,
        "DAR": -1 / 2, "TE": -1 / 2, "GE": 0.24556213017751485,
    }  # fmt: skip
    assert {name: measured(metrics[name], table) for name in expected} == pytest.approx(expected, rel=1e-6)
    both = facets_of_rows([one == "F" for one in GENDER], LABEL, PREDICTION).both
    # smclarify's confusion matrix is (TP, FP, FN, TN) / n: F (2, 2, 1, 2) / 7, M (0, 2, 2, 1) / 5.
    assert both.tolist() == [[[1, 2], [2, 0]], [[2, 2], [1, 2]]]


def test_expected_1_10_smclarifys_own_pre_training_figures() -> None:
    metrics = discovery.bias_metrics()

    def value(name: str, facet: list[bool], label: list[int], **how: Any) -> float:
        metric = replace(metrics[name], compat="smclarify")
        assert isinstance(metric, CountedBias)
        return float(metric.value(facets_of_rows(facet, label, **how)))

    first = [True, False, False, False, False, False]
    assert value("KL", first, [1, 1, 1, 0, 0, 0]) == pytest.approx(-0.366516, rel=1e-6)
    assert value("JS", first, [1, 1, 1, 0, 0, 0]) == pytest.approx(0.06641431438228168, rel=1e-6)
    assert value("LP", first, [1, 1, 1, 0, 0, 0]) == pytest.approx(0.6, rel=1e-6)
    facet = [one in "ac" for one in "abbcaabcbcbb"]
    label = [0, 0, 1, 1, 2, 1, 0, 1, 2, 2, 0, 2]
    assert value("KL", facet, label, favourable=(1, 2)) == pytest.approx(0.2938933, rel=1e-6)
    assert value("JS", facet, label, favourable=(1, 2)) == pytest.approx(0.06465997, rel=1e-6)
    assert value("LP", facet, label, favourable=(1, 2)) == pytest.approx(0.47140452, rel=1e-6)
    not_b = [one != "b" for one in "abbcaabcbcbb"]
    assert value("KS", not_b, label, favourable=(1, 2)) == pytest.approx(1 / 3, rel=1e-6)


def test_expected_1_10_smclarifys_own_conditional_disparity() -> None:
    people = list("MMMFFFFMMMMFMMFMFFMMFMMF")
    label = [0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0]
    stratum = [1, 0, 2, 2, 1, 1, 2, 1, 1, 2, 0, 1, 2, 0, 1, 1, 1, 2, 0, 1, 0, 0, 1, 1]
    cddl = discovery.bias_metrics()["CDDL"]
    for sex, expected in (("F", 0.3982142857), ("M", -0.3982142857)):
        table = {"facet": [int(one == sex) for one in people], "label": label, "prediction": label, "stratum": stratum}
        assert measured(cddl, table) == pytest.approx(expected, rel=1e-6)


FLIPPED = """
    0000111 1000101 1010101 0000011 1001101 0010111 1000111 1100111 0010111 1011110 1000110 1010111
    1000011 0000111 0010101 0010111 0101001 1000011 0010011 1000110 1010011 0100011 1010101 0001110
"""
FLIPPED_SMALL = """
    0000111 1000101 1010101 1001101 1000111 1100111 1011110 1000110 1010111 1000011 1000011 0010011 1000110 1010011
    1010101 0001110
"""


@pytest.mark.parametrize(
    ("rows", "predictions", "expected"),
    [
        (FLIPPED, "111011111111011100110011", -0.23076923076923078),
        (FLIPPED_SMALL, "1110111111110111", -0.15384615384615385),
    ],
    ids=["24 rows", "small sample"],
)
def test_expected_1_10_smclarifys_own_flip_test(rows: str, predictions: str, expected: float) -> None:
    """The first of seven columns is the facet, and all seven say which rows are near."""
    features = [[float(one) for one in row] for row in rows.split()]
    table = {
        "facet": [int(row[0]) for row in features],
        "features": features,
        "prediction": [int(one) for one in predictions],
    }
    flip_test = discovery.bias_metrics()["FT"]
    assert measured(replace(flip_test, compat="smclarify"), table) == pytest.approx(expected, rel=1e-6)
    assert measured(flip_test, table) == pytest.approx(-expected, rel=1e-6)


def test_labels_of_several_classes_can_be_kept_apart() -> None:
    # a: x, y and d: x, z. P_a = (1/2, 1/2, 0), P_d = (1/2, 0, 1/2): half of either has to change.
    facets = facets_of_rows([False, False, True, True], ["x", "y", "x", "z"], favourable="x", collapsed=False)
    tvd = discovery.bias_metrics()["TVD"]
    assert isinstance(tvd, CountedBias)
    assert float(tvd.value(facets)) == pytest.approx(1 / 2)
