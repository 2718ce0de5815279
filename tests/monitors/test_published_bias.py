"""Bias figures that others published, by the kind of monitor that runs measure with, from profiles of the rows.

Groups, strata, labels and predictions are counted whole, whatever the number of bins: a profile of 1,024 bins has the
same outcome tables as an exact one, so the bound between the two is 0 and both are held to the published figure.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.tree import DecisionTreeClassifier

from monitors import discovery
from monitors.bias import BiasParameters
from monitors.budget import worse
from monitors.contract import Arrivals, Attribute, Comparison, Direction, Subject, Task
from monitors.exact import EPOCH
from monitors.groups import cut_names, group_names
from monitors.kernel import profile_batches
from monitors.layout import OutcomeLayout, plan_layout
from tests.monitors.labelled import columns_of

UP = Direction.HIGHER_IS_WORSE
every_profile = pytest.mark.parametrize("bins", [None, 1024], ids=["exact", "1024 bins"])
exact_first = pytest.mark.parametrize(
    "bins", [pytest.param(None, id="exact"), pytest.param(1024, marks=pytest.mark.long, id="1024 bins")]
)


def generator(metric: str, subject: Subject) -> np.random.Generator:
    return np.random.default_rng([*f"{metric} {subject}".encode()])


def found(
    rows: Mapping[str, Any],
    people: Any,
    bins: int | None,
    *,
    cuts: Sequence[float] = (),
    strata: Any = None,
    reference: str | None = None,
    **parameters: Any,
) -> dict[tuple[str, str | None], float]:
    """Return what the kind shows of a window of rows, by metric and group; labels and predictions are 0 and 1."""
    columns = {name: pa.array(values) for name, values in rows.items()}
    columns["group.facet"] = group_names(pa.array(people), tuple(cuts))
    if strata is not None:
        columns["group.stratum"] = group_names(pa.array(strata))
    table = pa.table(columns)
    names = cut_names(cuts) if cuts else tuple(sorted(set(map(str, people))))
    outcomes = OutcomeLayout(
        "binary",
        ("0", "1"),
        "1",
        groups={"facet": names},
        favourable="1",
        stratum=None if strata is None else "stratum",
        strata=() if strata is None else tuple(sorted(set(columns["group.stratum"].to_pylist()))),
    )
    layout = plan_layout(table.to_batches(), columns_of(table), outcomes=outcomes, bins=bins)
    profile = profile_batches(table.to_batches(), layout)
    compared = Comparison(
        columns=columns_of(table),
        baseline=profile,
        scales={1: profile},
        blocks={},
        arrivals=Arrivals(rows=profile.rows, judged=False),
        starts_at=EPOCH,
        ends_at=EPOCH,
        generator=generator,
        task=Task(
            name="binary",
            classes=("0", "1"),
            positive_class="1",
            favourable_outcome="1",
            protected=(Attribute(name="facet", values=names, reference=reference),),
            group_variable=None if strata is None else "stratum",
        ),
    )
    results = discovery.kinds()["bias"].measure(compared, BiasParameters(metrics=[], **parameters))
    return {(one.metric, one.subject.group): one.value for one in results if one.value is not None}


def labels(truth: Any) -> dict[str, list[str]]:
    """Return labels as the lake has them, with predictions that nobody looks at."""
    text = [str(int(value)) for value in truth]
    return {"ground_truth": text, "prediction": text}


def published(folder: Path, name: str) -> dict[str, float]:
    """Return the figures of a facet in a report of Clarify's container."""
    (path,) = folder.glob(f"*data_bias__{name}__analysis__*.json")
    ((facet,),) = json.loads(path.read_text())["pre_training_bias_metrics"]["facets"].values()
    return {metric["name"]: metric["value"] for metric in facet["metrics"]}


def shown(
    everything: Mapping[tuple[str, str | None], float], group: str, names: Mapping[str, float]
) -> dict[str, float]:
    return {name: everything[name, group] for name in names}


@exact_first
def test_expected_1_1_adult_by_sex(bins: int | None, shared_data: Path) -> None:
    data = pd.read_parquet(shared_data / "adult" / "adult_train.parquet")
    data = data[~data.apply(lambda column: column.astype(str).str.strip() == "?").any(axis=1)]
    expected = {
        "CI": 0.3513692725946555, "DPL": 0.20015891077100018, "KL": 0.14306865156306434, "JS": 0.03075614465977302,
        "LP": 0.2830674462421746, "TVD": 0.20015891077100015, "KS": 0.20015891077100015, "CDDL": 0.214915908649356,
    }  # fmt: skip
    rows = {"features.hours": data["hours_per_week"].to_numpy(np.float64)} | labels(
        data["income"].str.strip() == ">50K"
    )
    people = data["sex"].str.strip().tolist()
    values = found(rows, people, bins, strata=data["age"].tolist(), also=list(expected), fairlearn=[])
    assert shown(values, "Female", expected) == pytest.approx(expected, abs=1e-12)


@exact_first
def test_expected_1_6_the_sdks_clarify_check_by_a_cut(bins: int | None, shared_data: Path) -> None:
    (path,) = (shared_data / "sagemaker").glob("*dataset__2dd21605.csv")
    data = pd.read_csv(path, header=None, names=["Label", "F1", "F2", "F3", "F4"])
    expected = {
        "CDDL": 0.04, "CI": -0.08, "DPL": 0.01529790660225444, "JS": 0.0001174232718745582,
        "KL": 0.0004699943242629928, "KS": 0.015297906602254496, "LP": 0.021634506992825184,
        "TVD": 0.015297906602254469,
    }  # fmt: skip
    cut = float(np.nextafter(0.5, 1))  # a group begins at its cut, theirs lies above 0.5
    rows = {"features.F3": data["F3"].to_numpy(np.float64)} | labels(data["Label"] == 1)
    values = found(
        rows, data["F1"].to_numpy(np.float64), bins, cuts=[cut], strata=data["F2"].tolist(), also=list(expected),
        fairlearn=[],
    )  # fmt: skip
    assert shown(values, cut_names([cut])[1], expected) == pytest.approx(expected, abs=1e-12)
    # The SDK's own check: the good file's figures are met, the bad one's KS of 7.9e-6 is exceeded, and nothing else.
    limits = {name: published(shared_data / "sagemaker", name) for name in ("good_cases", "bad_cases")}
    assert limits["good_cases"] == pytest.approx(expected, abs=1e-12)
    beyond = {
        which: [name for name, limit in sorted(each.items()) if worse(abs(expected[name]), abs(limit) + 1e-12, UP)]
        for which, each in limits.items()
    }
    assert beyond == {"good_cases": [], "bad_cases": ["KS"]}


GERMAN_FOREIGN = {
    "CI": -0.926, "DPL": 0.1992646852459936, "LP": 0.2818028203768902, "TVD": 0.19926468524599364,
    "CDDL": 0.03290400123352098, "KL": 0.11255219213664663, "JS": 0.031185541036177884, "KS": 0.19926468524599367,
}  # fmt: skip
GERMAN_AGE = {
    "CI": 0.452, "DPL": -0.05127586414912222, "LP": 0.07251502250208905, "CDDL": -0.06017778064937399,
    "KL": 0.006531884012901029, "JS": 0.0016029853423198837, "KS": 0.051275864149122274,
}  # fmt: skip


@every_profile
def test_expected_1_7_and_1_8_german_credit_by_foreign_worker_and_by_age(bins: int | None, shared_data: Path) -> None:
    data = pd.read_csv(shared_data / "german_credit" / "german_raw_codes.csv")
    rows = {"features.amount": data["age"].to_numpy(np.float64)} | labels(data["credit"] == 1)
    housing = data["housing"].tolist()
    foreign = found(
        rows, data["foreign_worker"].tolist(), bins, strata=housing, also=list(GERMAN_FOREIGN), fairlearn=[]
    )
    assert shown(foreign, "A201", GERMAN_FOREIGN) == pytest.approx(GERMAN_FOREIGN, abs=1e-12)
    ages = data["age"].to_numpy(np.float64)  # whole years: above 40 is 41 and more
    older = found(rows, ages, bins, cuts=[41], strata=housing, also=list(GERMAN_AGE), fairlearn=[])
    assert shown(older, ">=41", GERMAN_AGE) == pytest.approx(GERMAN_AGE, abs=1e-12)


@every_profile
def test_expected_1_9_smclarifys_own_post_training_figures(bins: int | None) -> None:
    truth = ["0", "1", "1", "1", "1", "0", "0", "0", "1", "0", "0", "0"]
    prediction = ["1", "1", "1", "0", "0", "0", "1", "1", "0", "1", "0", "0"]
    expected = {
        "CI": -1 / 6, "DI": 10 / 7, "DCA": 1 / 4, "DCR": 1 / 3, "RD": -2 / 3, "SD": 1 / 6, "DRR": 1 / 3, "AD": -13 / 35,
        "DAR": -1 / 2, "TE": -1 / 2,
    }  # fmt: skip
    rows = {"ground_truth": truth, "prediction": prediction}
    values = found(rows, list("MFFMFMFFMMFF"), bins, also=[*expected, "GE"], fairlearn=[], min_group=2)
    assert shown(values, "F", expected) == pytest.approx(expected, rel=1e-6)
    assert values["GE", None] == pytest.approx(0.24556213017751485, rel=1e-6)


@every_profile
def test_expected_4_8_fairlearns_assessment_guide(bins: int | None) -> None:
    rows = {"ground_truth": list("011110101000111111"), "prediction": list("001011100111100110")}
    values = found(rows, list("bbabbcccaacabccbcc"), bins, also=[], min_group=2)
    expected = {
        ("true_positive_rate", "a"): 0.5, ("true_positive_rate", "b"): 0.6, ("true_positive_rate", "c"): 0.4,
        ("false_positive_rate", "a"): 1.0, ("false_positive_rate", "b"): 0.0, ("false_positive_rate", "c"): 0.666667,
        ("selection_rate", "a"): 0.75, ("selection_rate", "b"): 0.5, ("selection_rate", "c"): 0.5,
    }  # fmt: skip
    assert {key: values[key] for key in expected} == pytest.approx(expected, abs=1e-6)


@exact_first
def test_expected_4_6_fairlearns_quickstart_on_adult(bins: int | None, shared_data: Path) -> None:
    parts = [pd.read_parquet(shared_data / "adult" / f"adult_{part}.parquet") for part in ("train", "test")]
    data = pd.concat(parts, ignore_index=True)
    text = data.select_dtypes(exclude="number").columns
    data[text] = data[text].apply(lambda column: column.str.strip().str.rstrip(".")).replace("?", None)
    truth = (data["income"] == ">50K").astype(int)
    features = pd.get_dummies(data.drop(columns=["income"]))
    tree = DecisionTreeClassifier(min_samples_leaf=10, max_depth=4).fit(features, truth)
    rows = {
        "features.hours": data["hours_per_week"].to_numpy(np.float64),
        "ground_truth": truth.astype(str).tolist(),
        "prediction": tree.predict(features).astype(str).tolist(),
    }
    gaps = {
        "demographic_parity_difference": 0.15004887,
        "demographic_parity_ratio": 0.29751997,
        "equalized_odds_difference": 0.08116556,
        "equalized_odds_ratio": 0.21587819,
    }
    values = found(rows, data["sex"].tolist(), bins, also=["AD"], fairlearn=list(gaps))
    assert values["selection_rate", "Female"] == pytest.approx(0.0635499, abs=1e-4)
    assert values["selection_rate", "Male"] == pytest.approx(0.2135988, abs=1e-4)
    # AD is the accuracy of the others less that of the group
    assert values["AD", "Female"] == pytest.approx(0.8042879 - 0.9251482, abs=1e-4)
    assert {name: values[name, None] for name in gaps} == pytest.approx(gaps, abs=1e-4)
