"""Years of daily windows of 50 features: how often nothing raises an alarm, and how soon a shift does.

Run ``python -m benchmarks.simulated_streams [--full] [--seed N] [--processes N]``; the exit code says whether every
verdict is PASS. The short form simulates 2 years and 8 shifts of each size, the full one 40 and 40 (two minutes of one
core a year).

Profiles are drawn, not rows: the counts of a day's cells are multinomial, their shares moved by the day (rows of one
day resemble each other, which is what makes fixed tests alarm). What is compared and how it is judged goes through the
functions that runs use. A further part (labels, say) derives ``Stream`` and adds itself to ``parts``.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import ndtr, ndtri
from scipy.stats import binom, chi2

from monitors import discovery
from monitors.blocks import Blocks
from monitors.budget import BudgetPolicy, SageMakerPolicy, ThresholdPolicy, window_alpha
from monitors.contract import Arrivals, Column, Comparison, Result, Role, Subject, Type, Verdict
from monitors.drift import DriftParameters, column_value, measure_columns
from monitors.layout import CategoryLayout, Layout, NumericLayout
from monitors.null import Null
from monitors.profile import CategoryProfile, NumericProfile, Profile

DAYS, NUMBERS, CATEGORIES = 365, 40, 10
BASELINE_DAYS, ROWS, CELLS = 180, 300, 256
DAY_EFFECT = 0.1
"""Standard deviation of a day's mean, in those of the rows, for every second feature."""
SCALES = (1, 7)
QUIET_WINDOWS = 2
"""So many windows without a violation end an episode."""
BUDGET = {"per": "30d", "at_most": 1}
MOST_DAYS = 60
"""After so many days a shift counts as not found."""
START = datetime(2026, 1, 5, tzinfo=UTC)
Found = TypeVar("Found")
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

EDGES = ndtri(np.arange(1, CELLS) / CELLS)
MEANS = np.concatenate(([-np.inf], EDGES, [np.inf]))
MEANS = (np.exp(-np.square(MEANS[:-1]) / 2) - np.exp(-np.square(MEANS[1:]) / 2)) / np.sqrt(2 * np.pi) * CELLS
"""The mean of a standard normal variable in each cell."""
SHARES = np.array([0.35, 0.25, 0.2, 0.15, 0.05])


@dataclass(frozen=True)
class Stream:
    """A year of one model: its seed, and by how many standard deviations its first feature moves from a day on."""

    seed: int
    shift: float = 0.0
    shifted_from: int = DAYS

    def generator(self, *what: int) -> np.random.Generator:
        """Return the chance of one part of the year."""
        return np.random.default_rng([self.seed, *what])


def columns() -> list[Column]:
    """Return the features: numbers first."""
    numbers = [Column(name=f"features.n{place}", role=Role.FEATURE, type=Type.NUMERIC) for place in range(NUMBERS)]
    names = [f"features.c{place}" for place in range(CATEGORIES)]
    return numbers + [Column(name=name, role=Role.FEATURE, type=Type.CATEGORICAL) for name in names]


def layout() -> Layout:
    """Return the bins: quantiles of a normal distribution, and five categories."""
    numeric, categories = NumericLayout(EDGES), CategoryLayout(tuple("abcde"))
    return Layout(columns={c.name: numeric if c.type is Type.NUMERIC else categories for c in columns()})


def day_counts(column: int, generator: np.random.Generator, shift: float = 0.0) -> Integers:
    """Return the counts of a day's cells of a feature."""
    moved = shift + (DAY_EFFECT * generator.normal() if column % 2 else 0.0)
    if column < NUMBERS:
        return generator.multinomial(ROWS, np.diff(ndtr(EDGES - moved), prepend=0.0, append=1.0))
    shares = SHARES * np.exp(moved * np.linspace(-1, 1, SHARES.size))
    return np.append(generator.multinomial(ROWS, shares / shares.sum()), 0)


def profile(counts: Sequence[Integers], rows: int, bins: Layout) -> Profile:
    """Return the profile of the counts of all features."""
    held: dict[str, NumericProfile | CategoryProfile] = {}
    for column, own in zip(columns(), counts, strict=True):
        if column.type is Type.CATEGORICAL:
            held[column.name] = CategoryProfile(own, rows)
            continue
        sums = np.asarray(own * MEANS, dtype=np.float64)
        mean = float(sums.sum()) / rows
        m2 = float(own @ np.square(MEANS)) - rows * mean**2
        filled = MEANS[own > 0]
        held[column.name] = NumericProfile(own, sums, rows, 0, 0, 0, float(filled[0]), float(filled[-1]), mean, m2)
    return Profile(bins, rows, columns=held)


@dataclass
class World:
    """A stream's baseline in order of time, its blocks, and the days as they come."""

    stream: Stream
    bins: Layout = field(default_factory=layout)

    def __post_init__(self) -> None:
        generator = self.stream.generator(0)
        features = len(columns())
        days = [
            np.array([day_counts(place, generator) for _ in range(BASELINE_DAYS)], dtype=np.int64)
            for place in range(features)
        ]
        self.baseline = profile([counts.sum(axis=0) for counts in days], BASELINE_DAYS * ROWS, self.bins)
        names = [column.name for column in columns()]
        self.daily = dict(zip(names, days, strict=True))
        nothing = np.zeros(BASELINE_DAYS, np.int64)
        blocks = Blocks(
            counts={name: csr_array(counts) for name, counts in self.daily.items()},
            missing=dict.fromkeys(names, nothing),
            rows=np.full(BASELINE_DAYS, ROWS, np.int64),
        )
        self.blocks = {scale: blocks if scale == 1 else blocks.regrouped(scale) for scale in SCALES}
        self.later = self.stream.generator(1)

    def day(self, number: int) -> list[Integers]:
        """Return the next day's counts; the first feature moves from the day of the shift on."""
        moved = self.stream.shift if number >= self.stream.shifted_from else 0.0
        return [day_counts(place, self.later, moved if place == 0 else 0.0) for place in range(len(columns()))]

    def compared(self, number: int, recent: Sequence[list[Integers]]) -> Comparison:
        """Return a day compared with the baseline; longer scales where days enough lie behind the last episode."""
        scales = {}
        for scale in SCALES:
            if len(recent) >= scale:
                parts = [np.sum(part, axis=0) for part in zip(*recent[-scale:], strict=True)]
                scales[scale] = profile(parts, scale * ROWS, self.bins)

        def generator(metric: str, subject: Subject) -> np.random.Generator:
            return self.stream.generator(2, number, *f"{metric} {subject.feature} {subject.scale}".encode())

        return Comparison(
            columns=columns(),
            baseline=self.baseline,
            scales=scales,
            blocks={scale: self.blocks[scale] for scale in scales},
            arrivals=Arrivals(rows=ROWS),
            starts_at=START + timedelta(days=number),
            ends_at=START + timedelta(days=number + 1),
            generator=generator,
        )


# --- rules ------------------------------------------------------------------------------------------------------------

Rule = Callable[[World, Comparison], bool]


def by_budget(_: World, comparison: Comparison, alpha: float | None = None) -> bool:
    """Whether the alarm budget's judgement finds a violation, at the whole budget where no part of it is named."""
    alpha = alpha or window_alpha(BUDGET, timedelta(days=1), 1.0)
    found = BudgetPolicy().judge(measure_columns(comparison, comparison.columns, DriftParameters()), alpha)
    return violated(found)


def violated(results: Sequence[Result]) -> bool:
    """Whether any result is violated."""
    return any(result.verdict is Verdict.VIOLATED for result in results)


def value_of(metric: str, comparison: Comparison, column: Column) -> float:
    """Return a statistic as it is shown, without its p-value."""
    return column_value(comparison, column, discovery.statistics()[metric])


def by_thresholds(policy: ThresholdPolicy | SageMakerPolicy, world: World, comparison: Comparison) -> bool:
    """Whether a policy of fixed thresholds finds a violation in the day itself."""
    results = []
    for column in comparison.columns:
        for metric in policy.thresholds_of("ks" if column.type is Type.NUMERIC else "linf", column):
            statistic = discovery.statistics()[metric]
            if column.type in statistic.types:
                value = value_of(metric, comparison, column)
                subject = Subject(feature=column.label)
                results.append(Result(metric=metric, subject=subject, value=value, type=column.type))
    del world
    return violated(policy.judge(results, 0.05))


def by_robust(world: World, comparison: Comparison) -> bool:
    """Whether SageMaker's Robust distance exceeds 0.1."""
    policy = SageMakerPolicy(numeric="linf_robust", categorical="linf_robust")
    results = [
        Result(
            metric="linf_robust",
            subject=Subject(feature=column.label),
            value=value_of("linf_robust", comparison, column),
            type=column.type,
        )
        for column in comparison.columns
    ]
    del world
    return violated(policy.judge(results, 0.05))


def by_evidently(_: World, comparison: Comparison) -> bool:
    """Whether Evidently's default for large baselines (Wasserstein, Jensen-Shannon: 0.1) reports any column."""
    natural = np.sqrt(np.log(2))
    for column in comparison.columns:
        if column.type is Type.NUMERIC:
            if value_of("wasserstein", comparison, column) >= 0.1:
                return True
        elif natural * value_of("jensenshannon", comparison, column) >= 0.1:
            return True
    return False


def by_nannyml(world: World, comparison: Comparison) -> bool:
    """Whether Jensen-Shannon in NannyML's bins lies over the mean and three deviations of the baseline's days."""
    limits = nannyml_limits(world)
    for column in comparison.columns:
        metric = "nannyml_jensen_shannon" if column.type is Type.NUMERIC else "jensenshannon"
        if value_of(metric, comparison, column) > limits[column.name]:
            return True
    return False


_limits: dict[int, Mapping[str, float]] = {}


def nannyml_limits(world: World) -> Mapping[str, float]:
    """Return the limit of each column, from the days of the baseline."""
    known = _limits.get(id(world))
    if known is None:
        values: dict[str, list[float]] = {column.name: [] for column in columns()}
        for day in range(0, BASELINE_DAYS, 6):
            counts = [world.daily[column.name][day] for column in columns()]
            comparison = world.compared(-day, [counts])
            for column in columns():
                metric = "nannyml_jensen_shannon" if column.type is Type.NUMERIC else "jensenshannon"
                values[column.name].append(value_of(metric, comparison, column))
        known = {name: float(np.mean(found) + 3 * np.std(found)) for name, found in values.items()}
        _limits.clear()
        _limits[id(world)] = known
    return known


RULES: Mapping[str, Rule] = {
    "alarm budget": by_budget,
    "psi > 0.2": partial(by_thresholds, ThresholdPolicy({"psi": 0.2})),
    "Evidently's default": by_evidently,
    "NannyML's default": by_nannyml,
    "SageMaker Simple 0.1": partial(by_thresholds, SageMakerPolicy()),
    "SageMaker Robust 0.1": by_robust,
}


# --- what is simulated ------------------------------------------------------------------------------------------------


def episodes(rule: Rule, stream: Stream, days: int = DAYS) -> int:
    """Return how many episodes a rule opens in a stream."""
    world = World(stream)
    recent: list[list[Integers]] = []
    opened, quiet, is_open = 0, 0, False
    for number in range(days):
        recent = [*recent[1 - max(SCALES) :], world.day(number)]
        if rule(world, world.compared(number, recent)):
            opened += not is_open
            is_open, quiet = True, 0
        elif is_open:
            quiet += 1
            if quiet == QUIET_WINDOWS:
                is_open, recent = False, []
        if is_open:
            recent = recent[-1:]  # the windows of an episode are left out of longer scales
    return opened


def found_after(stream: Stream) -> dict[str, float]:
    """Return the days until each rule finds the shift, the first one counting; infinite where it does not."""
    world = World(stream)
    recent: list[list[Integers]] = []
    found = dict.fromkeys(RULES, float("inf"))
    for number in range(stream.shifted_from + MOST_DAYS):
        recent = [*recent[1 - max(SCALES) :], world.day(number)]
        if number < stream.shifted_from:
            continue
        comparison = world.compared(number, recent)
        alpha = window_alpha(BUDGET, timedelta(days=1), 1.0) / len(comparison.columns)
        first = only(comparison, comparison.columns[:1])
        for name in [name for name, days in found.items() if days == float("inf")]:
            judged = by_budget(world, first, alpha) if name == "alarm budget" else RULES[name](world, first)
            if judged:
                found[name] = number - stream.shifted_from + 1
        if max(found.values()) < float("inf"):
            break
    return found


def only(comparison: Comparison, chosen: Sequence[Column]) -> Comparison:
    """Return the comparison of some columns alone."""
    return replace(comparison, columns=chosen)


def mapped(work: Callable[[Stream], Found], streams: Sequence[Stream], processes: int) -> list[Found]:
    """Return what is found in each stream, in their order."""
    if processes == 1:
        return [work(stream) for stream in streams]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(work, streams))


def quiet_years(years: int, peer_years: int, seed: int, processes: int) -> bool:
    """Print the false episodes a year of each rule; return whether the budget is kept."""
    print(
        f"\nNeither inputs nor anything else changes: {NUMBERS + CATEGORIES} features, {ROWS} rows a day, {DAYS} days"
    )
    print(f"(baseline {BASELINE_DAYS} days; a day effect of {DAY_EFFECT} sd in every second feature)")
    print(f"{'rule':<24}{'years':>6}{'false episodes a year':>24}{'99 % Poisson bound':>22}")
    good = True
    for name, rule in RULES.items():
        number = years if name == "alarm budget" else peer_years
        counts = mapped(partial(episodes, rule), [Stream(seed + place) for place in range(number)], processes)
        total = int(sum(counts))
        bound = float(chi2.ppf(0.99, 2 * (total + 1))) / 2 / number
        print(f"{name:<24}{number:>6}{total / number:>24.2f}{bound:>22.2f}", flush=True)
        if name == "alarm budget":
            most = DAYS / 30
            text = f"false episodes a year: {total / number:.2f}, at most {most:.2f} (99 % bound {bound:.2f})"
            good = verdict(text, total / number <= most)
    return good


def shifts(repeats: int, seed: int, processes: int) -> bool:
    """Print the median days that each rule takes to find a shift in one feature."""
    print(f"\nOne feature moves for good, {repeats} streams: median days until that feature is reported")
    print(f"{'rule':<24}" + "".join(f"{f'{shift:g} sd':>14}" for shift in (0.25, 0.5)))
    found = {}
    for shift in (0.25, 0.5):
        streams = [Stream(seed + 1000 + place, shift, max(SCALES)) for place in range(repeats)]
        found[shift] = mapped(found_after, streams, processes)
    medians = {name: [float(np.median([days[name] for days in each])) for each in found.values()] for name in RULES}
    for name, both in medians.items():
        told = [f"{days:g}" if np.isfinite(days) else f"over {MOST_DAYS}" for days in both]
        print(f"{name:<24}" + "".join(f"{days:>14}" for days in told), flush=True)
    slowest = medians["alarm budget"][1]
    return verdict(f"0.5 sd is found in a median of {slowest:g} days, at most 7", slowest <= 7)


def weekly_null(
    choice: str, generator: np.random.Generator, shift: float, weeks: int = 26, weekend: float = 0.5
) -> Null:
    """Return the null of a day whose weekends lie half a standard deviation higher, compared as a monitor may choose.

    Days have a day effect too. ``seasonal`` compares with the same day of the week in every week of the baseline,
    ``rolling`` with the 28 days before, ``active`` with all of them; each has these days as its blocks.
    """
    days = 7 * weeks + int(generator.integers(7)) + 1
    means = DAY_EFFECT * generator.normal(size=days) + weekend * (np.arange(days) % 7 >= 5)
    means[-1] += shift
    counts = np.array(
        [generator.multinomial(ROWS, np.diff(ndtr(EDGES - mean), prepend=0.0, append=1.0)) for mean in means]
    )
    chosen = {"active": counts[:-1], "rolling": counts[-29:-1], "seasonal": counts[:-1][(days - 1) % 7 :: 7]}[choice]
    old, new = chosen.sum(axis=0).astype(np.float64), counts[-1].astype(np.float64)
    spread = np.sqrt(old @ np.square(MEANS) / old.sum() - (old @ MEANS / old.sum()) ** 2)
    places = (old + new) * MEANS / spread
    return Null(old, new, generator, ordered=True, places=places, blocks=csr_array(chosen), least=30)


def weekly_season(repeats: int, seed: int) -> bool:
    """Print how often a quiet day alarms where weekends differ, and how often half a deviation is found."""
    print(f"\nWeekends lie 0.5 sd higher, {repeats} days: alarms in per cent at 5 / 1 %, quiet and shifted by 0.5 sd")
    print(f"{'baseline':<12}{'quiet':>14}{'shifted':>14}")
    statistic, levels = discovery.statistics()["wasserstein"], np.array([0.05, 0.01])
    good = True
    for choice in ("active", "rolling", "seasonal"):
        rates = []
        for shift in (0.0, 0.5):
            generator = np.random.default_rng([seed, 3, int(10 * shift)])
            nulls = (weekly_null(choice, generator, shift) for _ in range(repeats))
            rates.append(np.mean([null.p_value(statistic) <= levels for null in nulls], axis=0))
        print(f"{choice:<12}" + "".join(f"{' / '.join(f'{100 * rate:.1f}' for rate in row):>14}" for row in rates))
        limit = float(binom.ppf(0.999, repeats, 0.069)) / repeats
        text = f"{choice}: quiet days alarm in {100 * rates[0][0]:.1f} % at 5 %, at most {100 * limit:.1f} %"
        good &= verdict(text, bool(rates[0][0] <= limit))
    return good


def verdict(text: str, passed: bool) -> bool:
    """Print a line of the verdict."""
    print(f"{'PASS' if passed else 'FAIL'}  {text}", flush=True)
    return passed


def parts(full: bool, seed: int, processes: int) -> Iterator[Callable[[], bool]]:
    """Yield what is simulated, in the order that it is told."""
    yield partial(quiet_years, 40 if full else 2, 8 if full else 1, seed, processes)
    yield partial(shifts, 40 if full else 8, seed, processes)
    yield partial(weekly_season, 1000 if full else 150, seed)


def main(arguments: list[str] | None = None) -> int:
    """Simulate everything and return 0 where every verdict is PASS."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="40 years and 40 shifts of each size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    passed = [part() for part in parts(chosen.full, chosen.seed, chosen.processes)]
    print(f"\nseed {chosen.seed}, {time.monotonic() - started:.0f} s")
    verdict("all of it", all(passed))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
