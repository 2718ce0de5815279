"""How often a quiet column alarms, how often a shifted one is found, and what a stream that is not independent does.

Run ``python -m benchmarks.false_alarms [--full] [--seed N]``; the exit code says whether every verdict is PASS.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.sparse import csr_array
from scipy.stats import binom

from benchmarks.verdicts import verdict
from monitors import discovery
from monitors.contract import BinnedStatistic, Column, Role, Type
from monitors.layout import NumericLayout, plan_layout
from monitors.null import CALIBRATING, Null

BASELINES = (1000, 5000)
WINDOWS = (50, 100, 200, 500, 1000, 5000)
COLUMNS = ("normal", "2 categories", "5 categories", "30 categories")
SHARES: dict[str, NDArray[np.float64]] = {
    "2 categories": np.array([0.3, 0.7]),
    "5 categories": np.full(5, 0.2),
    "30 categories": (1 / np.arange(1, 31)) / (1 / np.arange(1, 31)).sum(),
}
NOMINAL = 0.05
LEVELS = (0.05, 0.01, 0.0016)
TABLE = (0.069, 0.027, 0.011)
"""The worst quiet stream of the published table of this method, at the three levels."""
ENOUGH_REPEATS = 500
STREAMS = ("iid", "day effect 0.15", "AR(1) 0.9", "scale")
ROWS_PER_BLOCK = 500
FINE = 4
"""Time steps of the stream per row of a block: a window of four times the rows sees each of them."""

AGE = Column(name="features.age", role=Role.FEATURE, type=Type.NUMERIC)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Binned:
    """A numeric column binned by the layout that its baseline gives it."""

    layout: NumericLayout

    @staticmethod
    def of(baseline: Floats) -> "Binned":
        """Plan the layout of a baseline's values."""
        batch = pa.record_batch({"features.age": baseline})
        layout = plan_layout([batch], [AGE]).columns["features.age"]
        if not isinstance(layout, NumericLayout):
            raise TypeError("a numeric column has a numeric layout")
        return Binned(layout)

    def cells(self, values: Floats) -> NDArray[np.int64]:
        """Return the cell of each value."""
        after = np.searchsorted(self.layout.edges, values, side="right")
        if not self.layout.tied:
            return after
        return 2 * after - np.isin(values, self.layout.edges)

    def counts(self, values: Floats) -> Floats:
        """Return the counts of the cells."""
        return np.asarray(np.bincount(self.cells(values), minlength=self.layout.cells), dtype=np.float64)

    def sums(self, values: Floats) -> Floats:
        """Return the sums of the values in each cell."""
        return np.asarray(np.bincount(self.cells(values), values, self.layout.cells), dtype=np.float64).astype(
            np.float64
        )

    def null(self, baseline: Floats, window: Floats, generator: np.random.Generator) -> Null:
        """Return the null of a window without blocks."""
        places = (self.sums(baseline) + self.sums(window)) / baseline.std()
        return Null(self.counts(baseline), self.counts(window), generator, ordered=True, places=places)


def statistics_of(column: str) -> dict[str, BinnedStatistic]:
    """Return the statistics that are for a column and have a null."""
    type_ = Type.NUMERIC if column == "normal" else Type.CATEGORICAL
    return {name: found for name, found in discovery.statistics().items() if type_ in found.types and found.null}


def quiet_cell(
    column: str, n_baseline: int, n_window: int, repeats: int, evidently_repeats: int, generator: np.random.Generator
) -> tuple[dict[str, float], float]:
    """Return the share of false alarms of each statistic and of Evidently's default, nothing having changed."""
    statistics = statistics_of(column)
    alarms = dict.fromkeys(statistics, 0)
    evidently = 0
    for repeat in range(repeats):
        if column == "normal":
            baseline, window = generator.normal(size=n_baseline), generator.normal(size=n_window)
            null = Binned.of(baseline).null(baseline, window, generator)
        else:
            counts = generator.multinomial([n_baseline, n_window], SHARES[column]).astype(np.float64)
            known = counts[0] > 0
            pair = np.column_stack([counts[:, known], counts[:, ~known].sum(axis=1)])
            null = Null(pair[0], pair[1], generator, ordered=False)
        for name, statistic in statistics.items():
            alarms[name] += null.p_value(statistic) <= NOMINAL
        if repeat < evidently_repeats:
            if column == "normal":
                evidently += evidently_alarms(baseline, window, numeric=True)
            else:
                names = np.array([f"c{place}" for place in range(counts.shape[1])])
                old, new = (np.repeat(names, row.astype(int)) for row in counts)
                evidently += evidently_alarms(old, new, numeric=False)
    return {name: count / repeats for name, count in alarms.items()}, evidently / evidently_repeats


def evidently_alarms(baseline: NDArray[np.generic], window: NDArray[np.generic], *, numeric: bool) -> bool:
    """Whether the stat test that Evidently chooses by default reports drift at its default threshold."""
    from evidently.legacy.calculations.stattests.registry import get_stattest
    from evidently.legacy.core import ColumnType

    kind = ColumnType.Numerical if numeric else ColumnType.Categorical
    old, new = pd.Series(baseline), pd.Series(window)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        test = get_stattest(old, new, kind, None)
        return bool(test(old, new, kind, None).drifted)


def quiet_columns(repeats: int, evidently_repeats: int, seed: int) -> bool:
    """Print the false alarms of independent rows; return whether they are what a nominal 5 % allows."""
    cells = [(n, m, column) for n in BASELINES for m in WINDOWS for column in COLUMNS]
    chance = 0.01 / len(cells) / (1 if repeats >= ENOUGH_REPEATS else 10)
    limit = float(binom.ppf(1 - chance, repeats, NOMINAL)) / repeats
    names = [name for name, found in discovery.statistics().items() if found.null]
    print(f"\nFalse alarms at a nominal 5 %, nothing changed, {repeats} repeats a cell, in per cent")
    print(f"(Evidently: the default of its version, {evidently_repeats} repeats a cell)")
    print(
        f"{'baseline':>8} {'window':>6} {'column':<14}"
        + "".join(f"{name:>14}" for name in names)
        + f"{'Evidently':>12}"
    )
    found: dict[str, list[float]] = {name: [] for name in names}
    theirs = []
    for place, (n, m, column) in enumerate(cells):
        generator = np.random.default_rng([seed, 1, place])
        rates, evidently = quiet_cell(column, n, m, repeats, evidently_repeats, generator)
        for name, rate in rates.items():
            found[name].append(rate)
        theirs.append(evidently)
        shown = "".join(f"{100 * rates[name]:>14.2f}" if name in rates else f"{'':>14}" for name in names)
        print(f"{n:>8} {m:>6} {column:<14}{shown}{100 * evidently:>12.1f}", flush=True)
    good = True
    print(
        f"{'worst':<30}" + "".join(f"{100 * max(found[name]):>14.2f}" for name in names) + f"{100 * max(theirs):>12.1f}"
    )
    print(f"{'pooled':<30}" + "".join(f"{100 * np.mean(found[name]):>14.2f}" for name in names))
    for name in names:
        pooled_limit = NOMINAL + 2 * np.sqrt(NOMINAL * (1 - NOMINAL) / (repeats * len(found[name])))
        worst, pooled = max(found[name]), float(np.mean(found[name]))
        good &= verdict(f"{name}: worst cell {100 * worst:.2f} % of at most {100 * limit:.2f} %", worst <= limit)
        text = f"{name}: all cells {100 * pooled:.3f} % of at most {100 * pooled_limit:.3f} %"
        good &= verdict(text, pooled <= pooled_limit)
    return good


def power(repeats: int, seed: int) -> bool:
    """Print how often a shift of half a standard deviation is found at n = 200 against 1,000."""
    generator = np.random.default_rng([seed, 2])
    statistics = statistics_of("normal")
    own = statistics["wasserstein"]
    found = dict.fromkeys(statistics, 0)
    for _ in range(repeats):
        baseline, window = generator.normal(size=1000), generator.normal(size=200) + 0.5
        null = Binned.of(baseline).null(baseline, window, generator)
        large = null.effect(own) >= 0.1
        for name, statistic in statistics.items():
            found[name] += large and null.p_value(statistic) <= NOMINAL
    print(f"\nA shift of 0.5 sd at n = 200 against 1,000, at 5 % with the minimum effect, {repeats} repeats")
    good = True
    for name, count in found.items():
        good &= verdict(f"{name}: found in {100 * count / repeats:.2f} %, at least 95 %", count / repeats > 0.95)
    return good


def stream(kind: str, days: int, ratio: float, generator: np.random.Generator) -> Iterator[Floats]:
    """Yield the days of a quiet stream, each block of 500 rows, and then a window with ``ratio`` times the rows.

    All have the same length in time. The autoregressive stream runs in time: 0.9 from one row of a block to the next;
    denser rows are nearer each other, sparser ones farther.
    """
    n_window = int(ratio * ROWS_PER_BLOCK)
    if kind == "AR(1) 0.9":
        steps = FINE * ROWS_PER_BLOCK
        rho = 0.9 ** (1 / FINE)
        noise = generator.normal(size=(days + 1) * steps) * np.sqrt(1 - rho**2)
        noise[0] = generator.normal()
        path = lfilter([1.0], [1.0, -rho], noise).reshape(days + 1, steps)
        yield from path[:days, ::FINE]
        yield path[days, :: steps // n_window]
        return
    for day in range(days + 1):
        values = generator.normal(size=ROWS_PER_BLOCK if day < days else n_window)
        if kind == "day effect 0.15":
            values = values + 0.15 * generator.normal()
        if kind == "scale":
            values = values * np.exp(0.1 * generator.normal())
        yield values


def stream_null(
    kind: str, days: int, ratio: float, *, ordered: bool, generator: np.random.Generator, shift: float = 0.0
) -> Null:
    """Return the null of a window of a quiet stream.

    Ordered: the blocks are the baseline's. Shuffled: the baseline's order is lost, the blocks are the quiet windows of
    production before this one.
    """
    *blocks, window = stream(kind, days, ratio, generator)
    window = window + shift
    if ordered:
        baseline = np.concatenate(blocks)
    else:
        *earlier, _ = stream(kind, days, 1.0, generator)
        baseline = generator.permutation(np.concatenate(earlier))
    binned = Binned.of(baseline)
    rows = csr_array(np.array([binned.counts(block) for block in blocks]))
    places = (binned.sums(baseline) + binned.sums(window)) / baseline.std()
    return Null(
        binned.counts(baseline), binned.counts(window), generator, ordered=True, places=places, blocks=rows, least=30
    )


def quiet_streams(
    repeats: int, seed: int, statistics: tuple[str, ...] = ("wasserstein", "jensenshannon", "ks")
) -> bool:
    """Print the false alarms of quiet streams; return whether they are no worse than the published table."""
    print(f"\nQuiet streams, {repeats} repeats a cell: alarms in per cent at nominal 5 / 1 / 0.16 %")
    print(
        f"{'baseline':<9} {'stream':<16} {'blocks':>6} {'window/block':>12}" + "".join(f"{n:>24}" for n in statistics)
    )
    good = True
    place = 0
    for ordered in (True, False):
        for kind in STREAMS:
            for days, ratio in ((20, 1.0), (60, 0.2), (60, 1.0), (60, 4.0)):
                place += 1
                generator = np.random.default_rng([seed, 3, place])
                alarms = np.zeros((len(statistics), len(LEVELS)))
                for _ in range(repeats):
                    null = stream_null(kind, days, ratio, ordered=ordered, generator=generator)
                    for row, name in enumerate(statistics):
                        alarms[row] += null.p_value(discovery.statistics()[name]) <= np.array(LEVELS)
                rates = alarms / repeats
                head = f"{'ordered' if ordered else 'shuffled':<9} {kind:<16} {days:>6} {ratio:>12g}"
                cells = [" / ".join(f"{100 * rate:.1f}" for rate in row) for row in rates]
                print(head + "".join(f"{cell:>24}" for cell in cells), flush=True)
                good &= within(head, rates, repeats)
    return good


def within(head: str, rates: Floats, repeats: int) -> bool:
    """Whether rates at the three levels are no worse than the table, two standard errors of the trial allowed.

    A short trial is held to the 1 - 1e-4 quantile of the binomial instead: it makes hundreds of comparisons.
    """
    allowed = np.array([rate + 2 * np.sqrt(rate * (1 - rate) / repeats) for rate in TABLE])
    if repeats < ENOUGH_REPEATS:
        allowed = np.array([binom.ppf(1 - 1e-4, repeats, rate) / repeats for rate in TABLE])
    if (rates <= allowed).all():
        return True
    return verdict(f"{' '.join(head.split())}: no worse than the table", False)


def found_in_streams(
    repeats: int, seed: int, statistics: tuple[str, ...] = ("wasserstein", "jensenshannon", "ks")
) -> None:
    """Print how often a window that has moved by one standard deviation is found among 60 ordered blocks."""
    print(f"\nThe same streams, the window moved by one standard deviation, {repeats} repeats: found at 5 / 1 / 0.16 %")
    print(f"{'stream':<16}" + "".join(f"{name:>24}" for name in statistics))
    for place, kind in enumerate(STREAMS):
        generator = np.random.default_rng([seed, 5, place])
        alarms = np.zeros((len(statistics), len(LEVELS)))
        for _ in range(repeats):
            null = stream_null(kind, 60, 1.0, ordered=True, generator=generator, shift=1.0)
            for row, name in enumerate(statistics):
                alarms[row] += null.p_value(discovery.statistics()[name]) <= np.array(LEVELS)
        cells = [" / ".join(f"{100 * rate:.0f}" for rate in row) for row in alarms / repeats]
        print(f"{kind:<16}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def calibrating(repeats: int, seed: int) -> None:
    """Print what the permutation null alone does to quiet streams, at alpha and at the tenth used while calibrating."""
    print(
        f"\nFor comparison, fewer than 20 blocks ({CALIBRATING}): the permutation null, {repeats} repeats, wasserstein"
    )
    print(f"{'stream':<16}{'at alpha':>24}{'at a tenth of it':>24}")
    for place, kind in enumerate(STREAMS):
        generator = np.random.default_rng([seed, 4, place])
        p_values = np.empty(repeats)
        for repeat in range(repeats):
            *blocks, window = stream(kind, 60, 1.0, generator)
            baseline = np.concatenate(blocks)
            null = Binned.of(baseline).null(baseline, window, generator)
            p_values[repeat] = null.p_value(discovery.statistics()["wasserstein"])
        rows = [[f"{100 * (p_values <= part * level).mean():.1f}" for level in LEVELS] for part in (1.0, 0.1)]
        print(f"{kind:<16}" + "".join(f"{' / '.join(row):>24}" for row in rows), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run all tables and return 0 where every verdict is PASS."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="2,000 repeats a cell: the figures that bind")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    quick = not chosen.full
    started = time.monotonic()
    parts: list[Callable[[], bool]] = [
        lambda: quiet_columns(60 if quick else 2000, 5 if quick else 200, chosen.seed),
        lambda: power(200 if quick else 2000, chosen.seed),
        lambda: quiet_streams(30 if quick else 1000, chosen.seed),
    ]
    passed = [part() for part in parts]
    found_in_streams(20 if quick else 200, chosen.seed)
    calibrating(30 if quick else 1000, chosen.seed)
    print(f"\nseed {chosen.seed}, {time.monotonic() - started:.0f} s")
    verdict("all of it", all(passed))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
