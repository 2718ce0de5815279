"""All performance metrics of a million rows, whole and by the groups of two attributes and their crossing.

Run ``python -m benchmarks.outcomes [--rows N]``; the exit code says whether every figure is within its limit. From the
profile: the values, then the values with intervals of 1,000 draws. Beside them, in the same run, scikit-learn on the
raw rows and fairlearn's MetricFrame by group.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from monitors import discovery
from monitors.contract import Column, Role, Type
from monitors.kernel import profile_batches
from monitors.layout import OutcomeLayout, plan_layout
from monitors.resampling import drawn_cells, figures
from monitors.tables import BinaryTable, Table, table_of

GROUPS = {"sex": ("F", "M"), "age": ("young", "middle", "old"), "sex*age": ()}
VALUES_WITHIN, INTERVALS_WITHIN = 0.15, 1.5


def rows_of(number: int, seed: int = 0) -> pa.Table:
    """Return scored and labelled rows with two attributes."""
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-(1.5 * rng.normal(size=number) - 1)))
    return pa.table(
        {
            "score": score,
            "prediction": pa.array(np.where(score >= 0.5, "1", "0")).dictionary_encode(),
            "ground_truth": pa.array(np.where(rng.random(number) < score, "1", "0")).dictionary_encode(),
            "group.sex": pa.array(rng.choice(GROUPS["sex"], number)).dictionary_encode(),
            "group.age": pa.array(rng.choice(GROUPS["age"], number)).dictionary_encode(),
        }
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor seconds that a call took, the better of two, and what it returned."""
    best, found = float("inf"), None
    for _ in range(2):
        start = time.process_time()
        found = work()
        best = min(best, time.process_time() - start)
    return best, found


def intervals(tables: list[Table], generator: np.random.Generator) -> int:
    """Return how many figures got an interval of 1,000 draws, every group drawn by itself."""
    metrics = [metric for metric in discovery.metrics().values() if "binary" in metric.tasks]
    count = 0
    for table in tables:
        assert isinstance(table, BinaryTable)
        groups = table.cells.reshape(-1, *table.cells.shape[-3:])
        for cells in groups:
            one = BinaryTable(cells, table.scores).coarse()
            if not one.answered:
                continue
            drawn = drawn_cells(one, generator)
            for metric in metrics:
                if metric.applies(one):
                    np.nanquantile(metric.value(drawn), [0.025, 0.975])
                    count += 1
    return count


def raw(rows: pa.Table) -> None:
    """Compute the same figures by scikit-learn and by fairlearn's MetricFrame on the raw rows."""
    from fairlearn.metrics import MetricFrame
    from sklearn import metrics as sk

    y, p = (rows[name].combine_chunks().indices.to_numpy() for name in ("ground_truth", "prediction"))
    names = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
    wanted = {name: getattr(sk, f"{name}_score") for name in names}
    groups = {name: rows[f"group.{name}"].combine_chunks().indices.to_numpy() for name in ("sex", "age")}
    for features in ({"sex": groups["sex"]}, {"age": groups["age"]}, groups):
        assert MetricFrame(metrics=wanted, y_true=y, y_pred=p, sensitive_features=features).by_group is not None
    score = rows["score"].to_numpy()
    for name in ("roc_auc_score", "average_precision_score", "log_loss", "brier_score_loss"):
        getattr(sk, name)(y, score)


def main(arguments: list[str] | None = None) -> int:
    """Print what each way takes; return 1 where ours is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    chosen = parser.parse_args(arguments)
    rows = rows_of(chosen.rows)
    types = {"score": (Role.SCORE, Type.NUMERIC), "prediction": (Role.PREDICTION, Type.CATEGORICAL)}
    types["ground_truth"] = (Role.GROUND_TRUTH, Type.CATEGORICAL)
    columns = [Column(name=name, role=role, type=type_) for name, (role, type_) in types.items()]
    crossing = tuple(f"{sex}*{age}" for sex in GROUPS["sex"] for age in GROUPS["age"])
    outcomes = OutcomeLayout("binary", ("0", "1"), "1", {**GROUPS, "sex*age": crossing})
    layout = plan_layout(rows.slice(0, 100_000).to_batches(), columns, outcomes=outcomes)
    profile = profile_batches(rows.to_batches(), layout)
    attributes = ("all", *GROUPS)

    def values() -> list[Table]:
        tables = [table for table in (table_of(profile, name) for name in attributes) if table is not None]
        for table in tables:
            metrics = [one for one in discovery.metrics().values() if "binary" in one.tasks and one.applies(table)]
            figures(metrics, table)
        return tables

    value_seconds, tables = timed(values)
    interval_seconds, count = timed(lambda: intervals(tables, np.random.default_rng(1)))
    print(f"{chosen.rows:,} rows, {len(attributes) - 1} ways to group them, {count} figures with intervals")
    passed = True
    for what, seconds, limit in (
        ("values from the profile", value_seconds, VALUES_WITHIN),
        ("with intervals of 1,000 draws", value_seconds + interval_seconds, INTERVALS_WITHIN),
    ):
        good = seconds < limit
        passed = passed and good
        print(f"{what:32} {seconds:8.3f} s  limit {limit:g} s  {'PASS' if good else 'FAIL'}", flush=True)
    start = time.process_time()
    raw(rows)
    print(f"{'the same from the raw rows':32} {time.process_time() - start:8.3f} s  without intervals")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
