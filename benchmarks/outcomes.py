"""All performance and bias metrics of a million rows, whole and by the groups of two attributes and their crossing.

Run ``python -m benchmarks.outcomes [--full] [--rows N]``; the exit code says whether every figure is within its limit.
From the profile: the values, then the values with intervals of 1,000 draws. Beside them, in the same run and on the raw
rows: scikit-learn, fairlearn's MetricFrame, and smclarify in its own environment (``make smclarify``), on a tenth of
them unless ``--full``. All in processor seconds.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from monitors import discovery
from monitors.bias import BiasParameters, Compared, Estimate, People, measured
from monitors.contract import Column, CountedBias, Role, Type
from monitors.facets import facet_cells
from monitors.kernel import profile_batches
from monitors.layout import OutcomeLayout, plan_layout
from monitors.profile import Profile
from monitors.resampling import drawn_cells, figures
from monitors.tables import BinaryTable, Table, table_of

SEXES, AGES, JOBS = ("F", "M"), ("young", "middle", "old"), ("a", "b", "c", "d")
GROUPS = {"sex": SEXES, "age": AGES, "sex*age": tuple(f"{sex}*{age}" for sex in SEXES for age in AGES)}
VALUES_WITHIN, INTERVALS_WITHIN = 0.15, 1.5
SMCLARIFY = Path(__file__).parent.parent / "build" / "smclarify" / "bin" / "python"


def rows_of(number: int, seed: int = 0) -> pa.Table:
    """Return scored and labelled rows with two attributes and a group variable."""
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-(1.5 * rng.normal(size=number) - 1)))

    def coded(places: Any, names: tuple[str, ...]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(names))

    return pa.table(
        {
            "score": score,
            "prediction": coded(score >= 0.5, ("0", "1")),
            "ground_truth": coded(rng.random(number) < score, ("0", "1")),
            "group.sex": coded(rng.integers(2, size=number), SEXES),
            "group.age": coded(rng.integers(3, size=number), AGES),
            "group.job": coded(rng.integers(4, size=number), JOBS),
        }
    )


def places_of(rows: pa.Table, name: str) -> Any:
    """Return the codes of a column."""
    return rows[name].combine_chunks().indices.to_numpy()


def profile_of(rows: pa.Table) -> Profile:
    """Return the profile that the metrics are had from."""
    types = {"score": (Role.SCORE, Type.NUMERIC), "prediction": (Role.PREDICTION, Type.CATEGORICAL)}
    types["ground_truth"] = (Role.GROUND_TRUTH, Type.CATEGORICAL)
    columns = [Column(name=name, role=role, type=type_) for name, (role, type_) in types.items()]
    outcomes = OutcomeLayout("binary", ("0", "1"), "1", GROUPS, favourable="1", stratum="job", strata=JOBS)
    layout = plan_layout(rows.slice(0, 100_000).to_batches(), columns, outcomes=outcomes)
    return profile_batches(rows.to_batches(), layout)


def best(work: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """Return the processor seconds that a call took, the best of some, and what it returned."""
    least, found = float("inf"), None
    for _ in range(times):
        start = time.process_time()
        found = work()
        least = min(least, time.process_time() - start)
    return least, found


# --- ours -------------------------------------------------------------------------------------------------------------


def performance(profile: Profile) -> int:
    """Compute every performance metric, whole and by group; return how many figures there are."""
    count = 0
    for table in tables_of(profile):
        metrics = [one for one in discovery.metrics().values() if "binary" in one.tasks and one.applies(table)]
        count += sum(values.size for values in figures(metrics, table).values())
    return count


def tables_of(profile: Profile) -> list[Table]:
    """Return the outcomes, whole and by the groups of each attribute."""
    found = (table_of(profile, name) for name in ("all", *GROUPS))
    return [table for table in found if table is not None]


def performance_intervals(profile: Profile) -> int:
    """Return how many figures got an interval of 1,000 draws, every group drawn by itself."""
    generator = np.random.default_rng(1)
    metrics = [metric for metric in discovery.metrics().values() if "binary" in metric.tasks]
    count = 0
    for table in tables_of(profile):
        assert isinstance(table, BinaryTable)
        for cells in table.cells.reshape(-1, *table.cells.shape[-3:]):
            one = BinaryTable(cells, table.scores).coarse()
            if not one.answered:
                continue
            drawn = drawn_cells(one, generator)
            for metric in metrics:
                if metric.applies(one):
                    np.nanquantile(metric.value(drawn), [0.025, 0.975])
                    count += 1
    return count


def people_of(profile: Profile) -> list[People]:
    """Return the groups of each attribute with their rows."""
    assert profile.outcome_cells is not None
    dense = profile.outcome_cells.dense(profile.layout).values
    return [People(name, groups, facet_cells(profile.layout, dense, name)) for name, groups in GROUPS.items()]


COUNTED = [metric for metric in BiasParameters().chosen() if isinstance(metric, CountedBias)]


def bias(profile: Profile) -> int:
    """Compute every bias metric of counts of each group against the rest; return how many values there are."""
    return sum(measured(metric, people, people.cells).size for people in people_of(profile) for metric in COUNTED)


def bias_intervals(profile: Profile) -> int:
    """Return how many of them got an interval of 1,000 draws."""
    count = 0
    for people in people_of(profile):
        compared = Compared(people, None, None, np.random.default_rng(1))
        for metric in COUNTED:
            estimate = Estimate.of(metric, compared, judged=False)
            count += sum(estimate.interval(place) is not None for place in range(len(people.names)))
    return count


# --- on the rows ------------------------------------------------------------------------------------------------------


def by_sklearn(rows: pa.Table) -> None:
    """Compute the metrics of all rows by scikit-learn."""
    from sklearn import metrics as sk

    y, p, score = places_of(rows, "ground_truth"), places_of(rows, "prediction"), rows["score"].to_numpy()
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "matthews_corrcoef"):
        getattr(sk, name if name == "matthews_corrcoef" else f"{name}_score")(y, p)
    for name in ("roc_auc_score", "average_precision_score", "log_loss", "brier_score_loss"):
        getattr(sk, name)(y, score)


def by_metric_frame(rows: pa.Table) -> None:
    """Compute five metrics and three rates by group of both attributes and their crossing by MetricFrame."""
    from fairlearn import metrics as fair
    from sklearn import metrics as sk

    y, p = places_of(rows, "ground_truth"), places_of(rows, "prediction")
    wanted = {
        name: getattr(sk, f"{name}_score") for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
    }
    wanted |= {name: getattr(fair, name) for name in ("selection_rate", "true_positive_rate", "false_positive_rate")}
    groups = {name: places_of(rows, f"group.{name}") for name in ("sex", "age")}
    for features in ({"sex": groups["sex"]}, {"age": groups["age"]}, groups):
        frame = fair.MetricFrame(metrics=wanted, y_true=y, y_pred=p, sensitive_features=features)
        assert frame.by_group is not None


def by_smclarify(rows: pa.Table) -> tuple[float, int] | None:
    """Return what smclarify takes and how many values it gives; None where its environment is not made."""
    if not SMCLARIFY.exists():
        return None
    held = {name: places_of(rows, f"group.{name}") for name in ("sex", "age")}
    held["sex*age"] = held["sex"] * len(AGES) + held["age"]
    held |= {
        "label": places_of(rows, "ground_truth"),
        "prediction": places_of(rows, "prediction"),
        "stratum": places_of(rows, "group.job"),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        np.savez(path, **held)
        command = [str(SMCLARIFY), str(Path(__file__).with_name("_smclarify.py")), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, count = done.stdout.split()[-2:]
    return float(seconds), int(count)


def line(what: str, seconds: float, more: str) -> None:
    """Print a row of the table."""
    print(f"{what:44}{seconds:9.3f} s  {more}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Print what each way takes; return 1 where ours is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the others on all rows too")
    parser.add_argument("--rows", type=int, default=1_000_000)
    chosen = parser.parse_args(arguments)
    rows = rows_of(chosen.rows)
    profile = profile_of(rows)
    print(f"{chosen.rows:,} rows; two attributes and their crossing; processor seconds", flush=True)
    passed = True
    spent = {"values": 0.0, "intervals": 0.0}
    for what, values, intervals in (
        ("performance", performance, performance_intervals),
        ("bias", bias, bias_intervals),
    ):
        seconds, count = best(partial(values, profile))
        line(f"{what} from the profile", seconds, f"{count} values")
        drawn, count = best(partial(intervals, profile), 2)
        line(f"{what}, intervals of 1,000 draws", drawn, f"{count} intervals")
        spent["values"] += seconds
        spent["intervals"] += seconds + drawn
    for what, limit in (("values", VALUES_WITHIN), ("intervals", INTERVALS_WITHIN)):
        good = spent[what] < limit
        passed = passed and good
        with_them = "all values" if what == "values" else "all values with intervals"
        line(with_them, spent[what], f"limit {limit:g} s  {'PASS' if good else 'FAIL'}")
    raw = rows if chosen.full else rows.slice(0, chosen.rows // 10)
    print(f"the others on {raw.num_rows:,} raw rows, values without intervals:")
    line("scikit-learn, 10 metrics of all rows", best(lambda: by_sklearn(raw), 1)[0], "")
    line("MetricFrame, 8 metrics by group", best(lambda: by_metric_frame(raw), 1)[0], "")
    theirs = by_smclarify(raw)
    if theirs is None:
        print("smclarify: its environment is not made: make smclarify")
    else:
        line("smclarify, 20 metrics of each group", theirs[0], f"{theirs[1]} values")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
