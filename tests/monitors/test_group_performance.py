"""Performance by group: the metrics of the contract on each group's own rows, as scikit-learn has them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as reference

from monitors import discovery
from monitors.bias import BiasParameters
from monitors.contract import Arrivals, Attribute, Comparison, Result, Subject, Task
from monitors.exact import EPOCH
from monitors.kernel import profile_batches
from monitors.layout import OutcomeLayout, plan_layout
from tests.monitors.labelled import columns_of

GROUPS = {"F": 400, "M": 600, "X": 12}


def rows(seed: int) -> dict[str, Any]:
    """Return rows of three groups, one of them small; the scores of F say less than those of M."""
    generator = np.random.default_rng(seed)
    people = np.repeat(list(GROUPS), list(GROUPS.values()))
    sharp = np.where(people == "F", 1.0, 3.0)
    logit = generator.normal(size=people.size)
    label = generator.random(people.size) < 1 / (1 + np.exp(-sharp * logit))
    score = 1 / (1 + np.exp(-logit))
    return {
        "people": people,
        "score": score,
        "prediction": np.where(score > 0.5, "1", "0"),
        "ground_truth": np.where(label, "1", "0"),
    }


def measured(window: dict[str, Any], baseline: dict[str, Any], **parameters: Any) -> list[Result]:
    """Return what a bias monitor finds, profiled exactly."""
    tables = []
    for held in (baseline, window):
        columns = {name: pa.array(held[name]) for name in ("score", "prediction", "ground_truth")}
        tables.append(pa.table(columns | {"group.sex": pa.array(held["people"])}))
    outcomes = OutcomeLayout("binary", ("0", "1"), "1", groups={"sex": tuple(GROUPS)}, favourable="1")
    layout = plan_layout(tables[0].to_batches(), columns_of(tables[0]), outcomes=outcomes, bins=None)
    old, new = (profile_batches(table.to_batches(), layout) for table in tables)
    compared = Comparison(
        columns=columns_of(tables[0]),
        baseline=old,
        scales={1: new},
        blocks={},
        arrivals=Arrivals(rows=new.rows, judged=False),
        starts_at=EPOCH,
        ends_at=EPOCH,
        generator=lambda metric, subject: np.random.default_rng([*f"{metric} {subject}".encode()]),
        task=Task(
            name="binary",
            classes=("0", "1"),
            positive_class="1",
            favourable_outcome="1",
            protected=(Attribute(name="sex", values=tuple(GROUPS)),),
        ),
    )
    asked = BiasParameters.model_validate({"metrics": ["DPPL"], "fairlearn": []} | parameters)
    return discovery.kinds()["bias"].measure(compared, asked)


def test_each_group_s_figures_are_those_of_scikit_learn_on_its_rows_and_small_groups_are_withheld() -> None:
    held = rows(1)
    found = measured(held, held, also=["accuracy", "roc_auc", "f1"])
    shown = {(one.metric, one.subject.group): one for one in found if one.metric in ("accuracy", "roc_auc", "f1")}
    assert {group for _, group in shown} == {"M"}  # 12 rows of X are withheld, and F by which they could be found
    mine = held["people"] == "M"
    truth, said = held["ground_truth"][mine], held["prediction"][mine]
    expected = {
        "accuracy": reference.accuracy_score(truth, said),
        "f1": reference.f1_score(truth, said, pos_label="1"),
        "roc_auc": reference.roc_auc_score(truth == "1", held["score"][mine]),
    }
    for name, value in expected.items():
        one = shown[name, "M"]
        assert one.value == pytest.approx(value, abs=1e-9), name
        assert one.baseline_value == pytest.approx(value, abs=1e-9), name
        assert one.interval is not None
        assert one.interval[0] < value < one.interval[1]
        assert (one.n_window, one.n_baseline, one.decides, one.verdict) == (600, 600, False, None)


def test_performance_by_group_is_shown_where_it_is_asked_for_and_refused_where_it_has_no_meaning() -> None:
    held = rows(2)
    assert not [one for one in measured(held, held) if one.metric == "accuracy"]
    (silent,) = [one for one in measured(held, held, also=["mae"]) if one.metric == "mae"]
    assert silent.subject == Subject(attribute="sex")
    assert silent.reason.endswith("is not for such a model")
    both = measured(held, held, also=["accuracy"], min_group=2)
    assert {one.subject.group for one in both if one.metric == "accuracy"} == set(GROUPS)
