"""A million rows: bias metrics of two attributes and their crossing from the profile, beside MetricFrame on rows."""

import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from monitors.bias import DRAWS, BiasParameters, Compared, Estimate, People, measured
from monitors.contract import CountedBias
from monitors.facets import facet_cells
from monitors.kernel import profile_batches
from monitors.layout import Layout, OutcomeLayout

ROWS = 1_000_000
AGES = ("<30", "30..60", ">=60")


def rows(rng: np.random.Generator) -> pa.RecordBatch:
    """Return labelled rows of people."""
    sex, age = rng.choice(["F", "M"], ROWS), rng.choice(AGES, ROWS)
    label = rng.random(ROWS) < 0.3 + 0.05 * (sex == "M")
    prediction = np.where(rng.random(ROWS) < 0.85, label, rng.random(ROWS) < 0.3)
    return pa.record_batch(
        {
            "ground_truth": pa.array(np.where(label, "1", "0")).dictionary_encode(),
            "prediction": pa.array(np.where(prediction, "1", "0")).dictionary_encode(),
            "group.sex": pa.array(sex).dictionary_encode(),
            "group.age": pa.array(age).dictionary_encode(),
            "group.job": pa.array(rng.choice(["a", "b", "c", "d"], ROWS)).dictionary_encode(),
        }
    )


def best(work: Callable[[], object], times: int = 3) -> float:
    """Return the shortest processor time of some runs."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(1)
    batch = rows(rng)
    groups = {"sex": ("F", "M"), "age": AGES, "sex*age": tuple(f"{one}*{other}" for one in "FM" for other in AGES)}
    outcomes = OutcomeLayout(
        "binary", ("0", "1"), "1", groups, favourable="1", stratum="job", strata=("a", "b", "c", "d")
    )
    layout = Layout({}, outcomes)
    profile = profile_batches([batch], layout)
    cells = profile.outcome_cells
    assert cells is not None
    dense = cells.dense(layout).values
    metrics = [metric for metric in BiasParameters().chosen() if isinstance(metric, CountedBias)]

    def values() -> None:
        for attribute, names in groups.items():
            people = People(attribute, names, facet_cells(layout, dense, attribute))
            for metric in metrics:
                measured(metric, people, people.cells)

    def intervals() -> None:
        for attribute, names in groups.items():
            people = People(attribute, names, facet_cells(layout, dense, attribute))
            compared = Compared(people, None, None, rng)
            for metric in metrics:
                estimate = Estimate.of(metric, compared, judged=False)
                for place in range(len(names)):
                    estimate.interval(place)

    print(f"{len(metrics)} metrics of 2 attributes and their crossing, {ROWS:,} rows, processor seconds")
    print(f"values from the profile       {best(values):.3f}   (at most 0.15)")
    print(f"with intervals of {DRAWS} draws  {best(intervals):.3f}   (at most 1.5)")
    peer(batch)


def peer(batch: pa.RecordBatch) -> None:
    """Measure fairlearn's MetricFrame on the raw rows, where it is installed."""
    try:
        from fairlearn import metrics as fair
    except ImportError:
        print("fairlearn on the rows         not installed here")
        return
    truth, prediction = (batch.column(name).to_pandas() == "1" for name in ("ground_truth", "prediction"))
    people = pa.table({name: batch.column(f"group.{name}") for name in ("sex", "age")}).to_pandas()
    rates = {name: getattr(fair, name) for name in ("selection_rate", "true_positive_rate", "false_positive_rate")}

    def frame() -> None:
        fair.MetricFrame(metrics=rates, y_true=truth, y_pred=prediction, sensitive_features=people).by_group.shape  # noqa: B018

    print(f"3 rates by MetricFrame on rows {best(frame, 1):.2f}")


if __name__ == "__main__":
    main()
