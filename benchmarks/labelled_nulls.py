"""How often performance, estimates and concept drift alarm: on quiet windows, and on the two kinds of change.

Run ``python -m benchmarks.labelled_nulls [--windows N] [--seed N]``; the exit code says whether every verdict is PASS.
Windows of 400 rows are judged at 5 % per monitor by the functions that runs use. Quiet windows have a day effect: each
day's scores and the labels' rates move by 0.1 logit, as blocks of the baseline do. Pure covariate shift moves the
scores and keeps the labels' rates given them; pure concept shift turns labels over and keeps the scores.
"""

import argparse
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pyarrow as pa
from scipy.stats import binom

from monitors import discovery
from monitors.blocks import Blocks
from monitors.budget import BudgetPolicy
from monitors.contract import Arrivals, Column, Comparison, Role, Subject, Task, Type, Verdict
from monitors.kernel import profile_batches
from monitors.layout import OutcomeLayout, plan_layout
from monitors.profile import merged

ALPHA, ROWS, BLOCKS = 0.05, 400, 60
START = datetime(2026, 1, 5, tzinfo=UTC)
COLUMNS = (
    Column(name="score", role=Role.SCORE, type=Type.NUMERIC),
    Column(name="prediction", role=Role.PREDICTION, type=Type.CATEGORICAL),
    Column(name="ground_truth", role=Role.GROUND_TRUTH, type=Type.CATEGORICAL),
)
KINDS = ("performance", "estimated_performance", "concept_drift", "prediction_drift")
CHANGES = {"none": (0.0, 0.0), "covariate": (1.0, 0.0), "concept": (0.0, 0.2), "both": (1.0, 0.2)}


def day(rng: np.random.Generator, shift: float = 0.0, flip: float = 0.0) -> pa.Table:
    """Return a day's rows; ``shift`` moves the scores by so many standard deviations, ``flip`` turns labels over."""
    x = 1.5 * (rng.normal(size=ROWS) + shift) + rng.normal(0, 0.1)
    score = 1 / (1 + np.exp(-x))
    label = rng.random(ROWS) < 1 / (1 + np.exp(-(x + rng.normal(0, 0.1))))
    label ^= rng.random(ROWS) < flip
    return pa.table(
        {
            "score": score,
            "prediction": np.where(score >= 0.5, "1", "0"),
            "ground_truth": np.where(label, "1", "0"),
        }
    )


def generator(seed: int, number: int, metric: str, subject: Subject) -> np.random.Generator:
    """Return the chance of one metric and subject of a window."""
    return np.random.default_rng([seed, number, *f"{metric} {subject}".encode()])


def main(arguments: list[str] | None = None) -> int:
    """Print the share of windows in which each monitor alarmed, by what had changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    rng = np.random.default_rng(chosen.seed)
    days = [day(rng) for _ in range(BLOCKS)]
    rows = pa.concat_tables(days)
    layout = plan_layout(rows.to_batches(), COLUMNS, outcomes=OutcomeLayout("binary", ("0", "1"), "1"))
    profiles = [profile_batches(one.to_batches(), layout) for one in days]
    baseline, blocks = merged(layout, profiles), {1: Blocks.from_profiles(profiles)}
    passed = True
    print(f"{chosen.windows} windows of {ROWS} rows, judged at {ALPHA:.0%}; share that alarmed")
    print(f"{'changed':12}" + "".join(f"{kind:>24}" for kind in KINDS))
    for change, (shift, flip) in CHANGES.items():
        alarms: Counter[str] = Counter()
        for number in range(chosen.windows):
            window = day(rng, shift, flip)
            comparison = Comparison(
                columns=COLUMNS,
                baseline=baseline,
                scales={1: profile_batches(window.to_batches(), layout)},
                blocks=blocks,
                arrivals=Arrivals(rows=ROWS),
                starts_at=START,
                ends_at=START + timedelta(days=1),
                generator=partial(generator, chosen.seed, number),
                task=Task(name="binary", classes=("0", "1"), positive_class="1"),
            )
            for kind in KINDS:
                found = discovery.kinds()[kind]
                results = found.measure(comparison, found.parameters())
                judged = BudgetPolicy().judge(results, ALPHA)
                alarms[kind] += any(one.verdict is Verdict.VIOLATED for one in judged)
        print(f"{change:12}" + "".join(f"{alarms[kind] / chosen.windows:24.1%}" for kind in KINDS), flush=True)
        most = int(binom.ppf(0.99, chosen.windows, ALPHA))
        quiet = {
            "none": KINDS,
            "covariate": ("concept_drift",),
            "concept": ("estimated_performance", "prediction_drift"),
            "both": (),
        }[change]
        loud = {
            "none": (),
            "covariate": ("prediction_drift",),
            "concept": ("performance", "concept_drift"),
            "both": ("concept_drift", "prediction_drift"),
        }[change]
        good = all(alarms[kind] <= most for kind in quiet) and all(
            alarms[kind] >= 0.8 * chosen.windows for kind in loud
        )
        passed = passed and good
        told = [f"{kind} at most {most}" for kind in quiet] + [f"{kind} at least 80 %" for kind in loud]
        print(f"{'PASS' if good else 'FAIL'}: {'; '.join(told)}", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
