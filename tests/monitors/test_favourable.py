"""What is good for a person where it is a class of many, one of several, or a number: the bias kind beside raw rows."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fairlearn import metrics as fairlearn

from monitors import discovery
from monitors.bias import BiasParameters
from monitors.contract import Arrivals, Attribute, Comparison, CountedBias, Subject, Task
from monitors.exact import EPOCH
from monitors.facets import facets_of_rows
from monitors.kernel import profile_batches
from monitors.layout import OutcomeLayout
from tests.monitors.labelled import CLASSES, columns_of, layout_of, multiclass_rows, multilabel_rows, regression_rows

PRICE = 22.0
ROWS = {
    "multiclass": multiclass_rows(3000, 1, flip=0.2),
    "multilabel": multilabel_rows(3000, 2),
    "regression": regression_rows(3000, 3, off=2.0),
}
METRICS = ("CI", "DPL", "KL", "JS", "LP", "TVD", "KS", "DPPL", "DI", "AD", "RD", "SD", "DCA", "DCR", "DAR", "DRR", "TE")


def favoured(values: list[Any], task: str, good: Any) -> Any:
    """Return whether each row's outcome is the good one."""
    if task == "multiclass":
        return np.array([value == good for value in values])
    if task == "multilabel":
        return np.array([good in json.loads(value) for value in values])
    ((side, bound),) = good.items()
    return np.array(values) > bound if side == "above" else np.array(values) < bound


@pytest.mark.parametrize(
    ("task", "good"),
    [
        pytest.param("multiclass", "a", id="a class of many"),
        pytest.param("multilabel", "b", id="one of several"),
        pytest.param("regression", {"above": PRICE}, id="above"),
        pytest.param("regression", {"below": PRICE}, marks=pytest.mark.long, id="below"),
    ],
)
def test_bias_of_any_task_is_that_of_its_rows_as_favoured_or_not(task: str, good: Any) -> None:
    """The metrics are those of the rows turned into yes and no, and fairlearn's are fairlearn's on these."""
    rows = ROWS[task]
    sex = np.where(np.random.default_rng(4).random(rows.num_rows) < 0.4, "F", "M")
    table = rows.append_column("group.sex", pa.array(sex))
    outcomes = OutcomeLayout(
        task,
        () if task == "regression" else CLASSES,
        groups={"sex": ("F", "M")},
        favourable=good if isinstance(good, str) else next(iter(good.items())),
    )
    layout = layout_of(table, outcomes)
    profile = profile_batches(table.to_batches(), layout)
    compared = Comparison(
        columns=columns_of(table),
        baseline=profile,
        scales={1: profile},
        blocks={},
        arrivals=Arrivals(rows=profile.rows, judged=False),
        starts_at=EPOCH,
        ends_at=EPOCH,
        generator=lambda metric, subject: np.random.default_rng([*f"{metric} {subject}".encode()]),
        task=Task(
            name=task, classes=outcomes.classes, favourable_outcome=good,
            protected=(Attribute(name="sex", values=("F", "M"), reference="M"),),
        ),
    )  # fmt: skip
    results = discovery.kinds()["bias"].measure(compared, BiasParameters(metrics=["DPPL"]))
    found = {one.metric: one for one in results if one.subject in (_women(), Subject(attribute="sex"))}
    label, prediction = (favoured(rows[name].to_pylist(), task, good) for name in ("ground_truth", "prediction"))
    assert 0.2 < prediction.mean() < 0.8
    facets = facets_of_rows(sex == "F", label.astype(int).tolist(), prediction.astype(int).tolist())
    counted = {name: metric for name, metric in discovery.bias_metrics().items() if isinstance(metric, CountedBias)}
    expected = {name: float(counted[name].value(facets)) for name in METRICS}
    assert {name: found[name].value for name in METRICS} == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found["DPPL"].value == pytest.approx(prediction[sex == "M"].mean() - prediction[sex == "F"].mean())
    assert found["DPPL"].p_value is not None
    for name in ("demographic_parity_difference", "equalized_odds_difference", "equalized_odds_ratio"):
        theirs = getattr(fairlearn, name)(label, prediction, sensitive_features=sex)
        assert found[name].value == pytest.approx(theirs, rel=1e-9), name


def _women() -> Subject:
    return Subject(attribute="sex", group="F", reference_group="M")
