"""A window of 30 days of 50 features from its stored profiles: reading, adding up and every statistic, no resampling.

Once from 30 profiles of days, as a window reads them, and once from 720 of hours, as days are made of. CPU seconds on
one core, best of several runs, warm; rows are not read, so their number does not matter beyond filling the cells. The
figures that equal NannyML's digit by digit, in bins of its own, have a column of their own beside the limit; a second
table has what each statistic takes of all columns that it is for. The exit code says whether both windows are within
the limit at the pace of the machine that it was set on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from benchmarks.pace import scipy_pace
from benchmarks.profile_pass import columns_of, cpu, rows, scipy_loop
from monitors import discovery
from monitors.contract import BinnedStatistic, Counts, Type
from monitors.kernel import profile_batches, profile_buckets
from monitors.layout import Layout, NumericLayout, OutcomeLayout, plan_layout
from monitors.nannyml import NannyMLStatistic
from monitors.profile import NumericProfile, Profile, merged, summed

HOURS = 720
LIMIT = 0.2

Pair = tuple[Type, Counts, Counts, Counts | None]
"""Of a feature: its type, what was counted before and now, and the positions of the cells."""


def pairs(layout: Layout, baseline: Profile, window: Profile) -> list[Pair]:
    """Return what the statistics compare of each feature."""
    found: list[Pair] = []
    for name, column in window.columns.items():
        if not name.startswith("features."):
            continue
        bins, before = layout.columns[name], baseline.columns[name]
        kind, positions = Type.CATEGORICAL, None
        if (
            isinstance(column, NumericProfile)
            and isinstance(before, NumericProfile)
            and isinstance(bins, NumericLayout)
        ):
            kind = Type.NUMERIC
            positions = before.positions(bins) / (before.standard_deviation or 1.0)
        found.append((kind, before.counts.astype(np.float64), column.counts.astype(np.float64), positions))
    return found


def compute(statistics: Iterable[BinnedStatistic], compared: Sequence[Pair]) -> int:
    """Compute statistics on every feature that they are for; return how many values that are."""
    done = 0
    for kind, before, now, positions in compared:
        for statistic in statistics:
            if kind in statistic.types:
                statistic.value(before, now, positions)
                done += 1
    return done


def main() -> int:
    """Make the profiles, measure, print the table; return 0 where the limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows-per-hour", type=int, default=1000)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    reference, window = rows(100_000, 1), rows(HOURS * arguments.rows_per_hour, 2, 0.1)
    place = window.schema.get_field_index("timestamp")
    stamps = np.arange(window.num_rows) * (3_600_000_000 // arguments.rows_per_hour)
    window = window.set_column(place, "timestamp", pa.array(stamps.astype(np.int64), pa.timestamp("us", tz="UTC")))
    outcomes = OutcomeLayout("binary", ("0", "1"), "1", {"sex": ("F", "M")})
    layout = plan_layout(reference.to_batches(), columns_of(reference), outcomes=outcomes)
    baseline = profile_batches(reference.to_batches(), layout)
    print(f"50 features, {window.num_rows:,} rows in {HOURS} hours")
    print("| window | profiles | kB each | sum s | statistics s | values | all s | limit s | NannyML's s |")
    print("|---|---|---|---|---|---|---|---|---|")
    known = discovery.statistics()
    copied = [statistic for statistic in known.values() if isinstance(statistic, NannyMLStatistic)]
    own = [statistic for statistic in known.values() if statistic not in copied]
    hours = list(profile_buckets(window.combine_chunks().to_batches(), layout).values())
    days = [merged(layout, hours[start : start + 24]) for start in range(0, len(hours), 24)]
    spent: dict[str, float] = {}
    for name, profiles in (("30 days of day profiles", days), ("30 days of hour profiles", hours)):
        stored = [(profile.encode_inputs(), profile.encode_outcomes()) for profile in profiles]
        total = summed(layout, stored)
        values = compute(own, pairs(layout, baseline, total))
        compute(copied, pairs(layout, baseline, total))

        def add_up(stored: list[tuple[bytes, bytes]] = stored) -> object:
            return summed(layout, stored).columns

        def measure(total: Profile = total) -> object:
            return compute(own, pairs(layout, baseline, total))

        def measure_copied(total: Profile = total) -> object:
            return compute(copied, pairs(layout, baseline, total))

        taken = cpu(add_up), cpu(measure)
        spent[name] = sum(taken)
        size = sum(len(inputs) + len(outcomes) for inputs, outcomes in stored) / len(stored) / 1000
        cells = [f"{seconds:.3f}" for seconds in taken]
        print(
            f"| {name} | {len(stored)} | {size:.0f} | {' | '.join(cells)} | {values} | {sum(taken):.3f} | {LIMIT} | "
            f"{cpu(measure_copied):.3f} |",
            flush=True,
        )
    compared = pairs(layout, baseline, merged(layout, days))
    print("\n| statistic | columns | ms |\n|---|---|---|")
    for label, statistic in known.items():

        def one(statistic: BinnedStatistic = statistic) -> object:
            return compute([statistic], compared)

        print(f"| {label} | {compute([statistic], compared)} | {1000 * cpu(one):.2f} |", flush=True)
    part = window.slice(0, 100_000)
    pace = scipy_pace(scipy_loop(reference, part, 5), part.num_rows)
    print(f"\n{pace}")
    kept = [pace.within(name, seconds, LIMIT) for name, seconds in spent.items()]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
