"""Years of daily windows of 50 features and labels: how often nothing raises an alarm, and what each change raises.

Run ``python -m benchmarks.simulated_streams [--full] [--seed N] [--workers N]``; the exit code says whether every
verdict is PASS. The short form simulates 30 days twice and 4 changes of each kind, the full one 40 years and 40 (some
three hours of one core); the short one asks only that 99 of 100 streams within the budget would have no more episodes.

Profiles are drawn, not rows: the counts of a day's cells are multinomial, their shares moved by the day (rows of one
day resemble each other, which is what makes fixed tests alarm); so are scores, and the labels of each score's cell are
binomial. What is compared and how it is judged goes through the kinds of monitors that runs measure with, each at an
equal share of the model's budget. Streams change in four ways: neither; the inputs and scores move while labels keep
their rates given the scores (covariate); labels are turned over while inputs and scores stay (concept); both.
"""

import argparse
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import binom, chi2, poisson

from benchmarks.verdicts import verdict
from monitors import discovery
from monitors.blocks import Blocks
from monitors.budget import BudgetPolicy, SageMakerPolicy, ThresholdPolicy, window_alpha
from monitors.contract import Arrivals, Column, Comparison, Result, Role, Subject, Task, Type, Verdict
from monitors.drift import DriftParameters, column_value, measure_columns
from monitors.layout import GROUND_TRUTH, CategoryLayout, Layout, NumericLayout, OutcomeLayout
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
Given = TypeVar("Given")
Found = TypeVar("Found")
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

EDGES = ndtri(np.arange(1, CELLS) / CELLS)
MEANS = np.concatenate(([-np.inf], EDGES, [np.inf]))
MEANS = (np.exp(-np.square(MEANS[:-1]) / 2) - np.exp(-np.square(MEANS[1:]) / 2)) / np.sqrt(2 * np.pi) * CELLS
"""The mean of a standard normal variable in each cell."""
SHARES = np.array([0.35, 0.25, 0.2, 0.15, 0.05])
SPREAD = 1.5
"""Standard deviation of the scores, in logits."""
SCORES = expit(SPREAD * MEANS)
"""The score that stands for each cell, and its label's rate."""
CLASSES = ("0", "1")
KINDS = ("data_drift", "prediction_drift", "concept_drift")
"""The monitors of a model, each with an equal share of its budget."""


@dataclass(frozen=True)
class Stream:
    """A year of one model: its seed, and what changes from a day on.

    ``shift`` moves the first feature, ``score_shift`` the scores, in their standard deviations; ``turned`` is the share
    of labels that are turned over.
    """

    seed: int
    shift: float = 0.0
    shifted_from: int = DAYS
    score_shift: float = 0.0
    turned: float = 0.0

    def generator(self, *what: int) -> np.random.Generator:
        """Return the chance of one part of the year."""
        return np.random.default_rng([self.seed, *what])


def columns() -> list[Column]:
    """Return the features: numbers first."""
    numbers = [Column(name=f"features.n{place}", role=Role.FEATURE, type=Type.NUMERIC) for place in range(NUMBERS)]
    names = [f"features.c{place}" for place in range(CATEGORIES)]
    return numbers + [Column(name=name, role=Role.FEATURE, type=Type.CATEGORICAL) for name in names]


ANSWERS = (
    Column(name="score", role=Role.SCORE, type=Type.NUMERIC),
    Column(name="prediction", role=Role.PREDICTION, type=Type.CATEGORICAL),
    Column(name=GROUND_TRUTH, role=Role.GROUND_TRUTH, type=Type.CATEGORICAL),
)


def layout() -> Layout:
    """Return the bins: quantiles of a normal distribution, five categories, and the scores' own quantiles."""
    numeric, categories = NumericLayout(EDGES), CategoryLayout(tuple("abcde"))
    features = {c.name: numeric if c.type is Type.NUMERIC else categories for c in columns()}
    classes = {name: CategoryLayout(CLASSES) for name in ("prediction", GROUND_TRUTH)}
    scores = {"score": NumericLayout(expit(SPREAD * EDGES))}
    return Layout(columns={**features, **scores, **classes}, outcomes=OutcomeLayout("binary", CLASSES, "1"))


@dataclass(frozen=True)
class Day:
    """The counts of some rows: the cells of each feature, and labels (0 and 1) by cell of the score."""

    features: list[Integers]
    labels: Integers

    @staticmethod
    def together(days: Sequence["Day"]) -> "Day":
        """Return the counts of several days."""
        features = [np.sum(part, axis=0) for part in zip(*(day.features for day in days), strict=True)]
        return Day(features, np.sum([day.labels for day in days], axis=0))


def drawn_day(
    stream: Stream,
    inputs: np.random.Generator,
    scores: np.random.Generator,
    labels: np.random.Generator,
    *,
    moved: bool,
) -> Day:
    """Return the counts of a day; inputs, scores and labels have their own chance, so that one changes alone."""
    shift = stream.shift if moved else 0.0
    features = [day_counts(place, inputs, 0.0 if place else shift) for place in range(len(columns()))]
    place = (stream.score_shift if moved else 0.0) + DAY_EFFECT * scores.normal() / SPREAD
    rows = scores.multinomial(ROWS, np.diff(ndtr(EDGES - place), prepend=0.0, append=1.0))
    rates = expit(logit(SCORES) + DAY_EFFECT * labels.normal())
    turned = stream.turned if moved else 0.0
    positive = labels.binomial(rows, rates * (1 - turned) + (1 - rates) * turned)
    return Day(features, np.stack([rows - positive, positive]))


def day_counts(column: int, generator: np.random.Generator, shift: float = 0.0) -> Integers:
    """Return the counts of a day's cells of a feature."""
    moved = shift + (DAY_EFFECT * generator.normal() if column % 2 else 0.0)
    if column < NUMBERS:
        return generator.multinomial(ROWS, np.diff(ndtr(EDGES - moved), prepend=0.0, append=1.0))
    shares = SHARES * np.exp(moved * np.linspace(-1, 1, SHARES.size))
    return np.append(generator.multinomial(ROWS, shares / shares.sum()), 0)


def answered(labels: Integers) -> dict[str, Integers]:
    """Return the cells of score, prediction and ground truth, of counts of shape (..., label, score cell)."""
    rows = labels.sum(axis=-2)
    yes = rows[..., SCORES >= 0.5].sum(axis=-1)
    nothing = np.zeros_like(yes)
    return {
        "score": rows,
        "prediction": np.stack([rows.sum(axis=-1) - yes, yes, nothing], axis=-1),
        GROUND_TRUTH: np.stack([*np.moveaxis(labels.sum(axis=-1), -1, 0), nothing], axis=-1),
    }


def outcome_cells(labels: Integers) -> Floats:
    """Return the outcome cells (label, prediction, score cell) of counts of shape (..., label, score cell)."""
    cells = np.zeros((*labels.shape[:-2], 3, 3, CELLS + 1))
    yes = SCORES >= 0.5
    cells[..., :2, 1, :-1][..., yes] = labels[..., yes]
    cells[..., :2, 0, :-1][..., ~yes] = labels[..., ~yes]
    return cells.reshape(*labels.shape[:-2], -1)


def profile(day: Day, rows: int, bins: Layout) -> Profile:
    """Return the profile of the counts of all columns."""
    answers = answered(day.labels)
    named = zip([*columns(), *ANSWERS], [*day.features, *answers.values()], strict=True)
    held: dict[str, NumericProfile | CategoryProfile] = {}
    for column, own in named:
        if column.type is Type.CATEGORICAL:
            held[column.name] = CategoryProfile(own, rows)
            continue
        places = SCORES if column.role is Role.SCORE else MEANS
        sums = np.asarray(own * places, dtype=np.float64)
        mean = float(sums.sum()) / rows
        m2 = float(own @ np.square(places)) - rows * mean**2
        filled = places[own > 0]
        held[column.name] = NumericProfile(own, sums, rows, 0, 0, 0, float(filled[0]), float(filled[-1]), mean, m2)
    tables = {"all": outcome_cells(day.labels).reshape(1, 3, 3, CELLS + 1)}
    return Profile(bins, rows, columns=held, outcomes=tables)


@dataclass
class World:
    """A stream's baseline in order of time, its blocks, and the days as they come."""

    stream: Stream
    bins: Layout = field(default_factory=layout)

    def __post_init__(self) -> None:
        chances = [self.stream.generator(0, part) for part in range(3)]
        self.quiet = [drawn_day(self.stream, *chances, moved=False) for _ in range(BASELINE_DAYS)]
        self.baseline = profile(Day.together(self.quiet), BASELINE_DAYS * ROWS, self.bins)
        labels = np.array([day.labels for day in self.quiet])
        features = [np.array(part) for part in zip(*(day.features for day in self.quiet), strict=True)]
        daily = dict(zip([column.name for column in columns()], features, strict=True)) | answered(labels)
        blocks = Blocks(
            counts={name: csr_array(counts) for name, counts in daily.items()},
            missing=dict.fromkeys(daily, np.zeros(BASELINE_DAYS, np.int64)),
            rows=np.full(BASELINE_DAYS, ROWS, np.int64),
            outcomes=csr_array(outcome_cells(labels)),
        )
        self.blocks = {scale: blocks if scale == 1 else blocks.regrouped(scale) for scale in SCALES}
        self.later = [self.stream.generator(1, part) for part in range(3)]

    def day(self, number: int) -> Day:
        """Return the next day's counts."""
        return drawn_day(self.stream, *self.later, moved=number >= self.stream.shifted_from)

    def compared(self, number: int, recent: Sequence[Day]) -> Comparison:
        """Return a day compared with the baseline; longer scales where days enough lie behind the last episode."""
        scales = {
            scale: profile(Day.together(recent[-scale:]), scale * ROWS, self.bins)
            for scale in SCALES
            if len(recent) >= scale
        }

        def generator(metric: str, subject: Subject) -> np.random.Generator:
            return self.stream.generator(2, number, *f"{metric} {subject.feature} {subject.scale}".encode())

        return Comparison(
            columns=[*columns(), *ANSWERS],
            baseline=self.baseline,
            scales=scales,
            blocks={scale: self.blocks[scale] for scale in scales},
            arrivals=Arrivals(rows=ROWS),
            starts_at=START + timedelta(days=number),
            ends_at=START + timedelta(days=number + 1),
            generator=generator,
            task=Task(name="binary", classes=CLASSES, positive_class="1"),
        )


# --- rules ------------------------------------------------------------------------------------------------------------

Rule = Callable[[World, Comparison], bool]


def alarmed(comparison: Comparison, kinds: Sequence[str] = KINDS) -> set[str]:
    """Return the kinds of monitors that find a violation, each judged at its equal share of the model's budget."""
    alpha = window_alpha(BUDGET, timedelta(days=1), 1 / len(KINDS))
    found = set()
    for name in kinds:
        kind = discovery.kinds()[name]
        if violated(BudgetPolicy().judge(kind.measure(comparison, kind.parameters()), alpha)):
            found.add(name)
    return found


def by_column(comparison: Comparison, column: Column) -> bool:
    """Whether one feature's drift is a violation at its share of the whole budget."""
    alpha = window_alpha(BUDGET, timedelta(days=1), 1.0) / len(columns())
    return violated(BudgetPolicy().judge(measure_columns(comparison, [column], DriftParameters()), alpha))


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
            comparison = world.compared(-day, [world.quiet[day]])
            for column in columns():
                metric = "nannyml_jensen_shannon" if column.type is Type.NUMERIC else "jensenshannon"
                values[column.name].append(value_of(metric, comparison, column))
        known = {name: float(np.mean(found) + 3 * np.std(found)) for name, found in values.items()}
        _limits.clear()
        _limits[id(world)] = known
    return known


BUDGETED = "alarm budget"
RULES: Mapping[str, Rule] = {
    "psi > 0.2": partial(by_thresholds, ThresholdPolicy({"psi": 0.2})),
    "Evidently's default": by_evidently,
    "NannyML's default": by_nannyml,
    "SageMaker Simple 0.1": partial(by_thresholds, SageMakerPolicy()),
    "SageMaker Robust 0.1": by_robust,
}


# --- what is simulated ------------------------------------------------------------------------------------------------


@dataclass
class Episodes:
    """Episodes as they open and close, by whatever alarms."""

    opened: Counter[str] = field(default_factory=Counter)
    quiet: dict[str, int] = field(default_factory=dict)

    def see(self, names: Set[str]) -> None:
        """Take in who alarmed in a window."""
        for name in list(self.quiet):
            self.quiet[name] += 1
            if name not in names and self.quiet[name] == QUIET_WINDOWS:
                del self.quiet[name]
        for name in names:
            self.opened[name] += name not in self.quiet
            self.quiet[name] = 0

    def is_open(self) -> bool:
        """Whether an episode is open."""
        return bool(self.quiet)


def followed(
    world: World, days: int, is_open: Callable[[], bool] = lambda: False, first: int = 0
) -> Iterator[tuple[int, Comparison]]:
    """Yield one day after the other from the first on; longer scales leave out the days of an open episode."""
    recent: list[Day] = []
    for number in range(days):
        recent = [*recent[1 - max(SCALES) :], world.day(number)]
        if number < first:
            continue
        was_open = is_open()
        yield number, world.compared(number, recent)
        if is_open():
            recent = recent[-1:]
        elif was_open:
            recent = []


def episodes_of_rule(rule: Rule, days: int, stream: Stream) -> int:
    """Return how many episodes a rule of others opens in a stream."""
    world, found = World(stream), Episodes()
    for _, comparison in followed(world, days, found.is_open):
        found.see({"any"} if rule(world, only(comparison, columns())) else set())
    return found.opened["any"]


def episodes(kinds: Sequence[str], days: int, stream: Stream) -> Counter[str]:
    """Return how many episodes the model opens ("any"), and how many each of its kinds alone."""
    found = Episodes()
    for _, comparison in followed(World(stream), days, found.is_open):
        names = alarmed(comparison, kinds)
        found.see(names | {"any"} if names else names)
    return found.opened


def found_after(stream: Stream) -> dict[str, float]:
    """Return the days until each rule finds the shift, the first one counting; infinite where it does not."""
    world = World(stream)
    found = dict.fromkeys((BUDGETED, *RULES), float("inf"))
    for number, comparison in followed(world, stream.shifted_from + MOST_DAYS, first=stream.shifted_from):
        first = only(comparison, comparison.columns[:1])
        for name in [name for name, days in found.items() if days == float("inf")]:
            if by_column(comparison, comparison.columns[0]) if name == BUDGETED else RULES[name](world, first):
                found[name] = number - stream.shifted_from + 1
        if max(found.values()) < float("inf"):
            break
    return found


def kinds_after(kinds: Sequence[str], stream: Stream) -> dict[str, float]:
    """Return the days until each kind of monitor alarms; infinite where it does not."""
    found = dict.fromkeys(kinds, float("inf"))
    for number, comparison in followed(World(stream), stream.shifted_from + MOST_DAYS, first=stream.shifted_from):
        for name in alarmed(comparison, [name for name, days in found.items() if days == float("inf")]):
            found[name] = number - stream.shifted_from + 1
        if max(found.values()) < float("inf"):
            break
    return found


def same_inputs(days: int, streams: tuple[Stream, Stream]) -> bool:
    """Whether inputs and scores of two streams are the same, cell by cell, baseline and every day."""
    one, other = (World(stream) for stream in streams)
    pairs = [*zip(one.quiet, other.quiet, strict=True), *((one.day(day), other.day(day)) for day in range(days))]
    return all(
        all(map(np.array_equal, mine.features, theirs.features))
        and np.array_equal(mine.labels.sum(axis=0), theirs.labels.sum(axis=0))
        for mine, theirs in pairs
    )


def only(comparison: Comparison, chosen: Sequence[Column]) -> Comparison:
    """Return the comparison of some columns alone."""
    return replace(comparison, columns=chosen)


def mapped(work: Callable[[Given], Found], given: Sequence[Given], workers: int) -> list[Found]:
    """Return what is found in each stream, in their order."""
    if workers == 1:
        return [work(each) for each in given]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(work, given))


def bounded(episodes: int, years: float) -> float:
    """Return the 99 % upper bound of the episodes a year, of a Poisson count."""
    return float(chi2.ppf(0.99, 2 * (episodes + 1))) / 2 / years


def row(name: str, years: float, episodes: int) -> None:
    """Print how many false episodes a year there were."""
    told = f"{years:>7.1f}{episodes / years:>24.2f}{bounded(episodes, years):>22.2f}"
    print(f"{name:<24}{told}", flush=True)


@dataclass(frozen=True)
class Extent:
    """How much is simulated: streams of so many days, those for the rules of others, and changes to be found."""

    streams: int
    days: int
    peers: int
    repeats: int
    seed: int
    workers: int
    strict: bool = True
    """Whether the mean is to be within the budget, not only what chance makes of it."""

    def quiet(self, **changes: Any) -> list[Stream]:
        """Return the streams; with changes, the same ones changed from the first day on."""
        return [Stream(self.seed + place, shifted_from=0, **changes) for place in range(self.streams)]

    def changed(self, offset: int, shifted_from: int = 0, **changes: Any) -> list[Stream]:
        """Return streams of their own that change once the longest scale is filled."""
        first = self.seed + 1000 * offset
        return [Stream(first + place, shifted_from=shifted_from, **changes) for place in range(self.repeats)]

    @property
    def years(self) -> float:
        """Years of all streams."""
        return self.streams * self.days / DAYS

    def kept(self, what: str, episodes: int, share: float) -> bool:
        """Print whether the episodes of all streams keep within a share of the budget of one in 30 days."""
        mean = share * self.years * DAYS / 30
        most = mean if self.strict else float(poisson.ppf(0.99, mean))
        bound = bounded(episodes, self.years)
        text = f"{what}: {episodes / self.years:.2f} a year (99 % bound {bound:.2f}), at most {most / self.years:.2f}"
        return verdict(text, episodes <= most)


COVARIATE = {"shift": 0.5, "score_shift": 0.5}
CONCEPT = {"turned": 0.2}


def four_kinds(extent: Extent) -> bool:
    """Print what alarms where neither, inputs, the concept or both change; return whether the budget is kept."""
    features = NUMBERS + CATEGORIES
    print(f"\nNothing changes: {features} features, score and label, {ROWS} rows a day, {extent.days} days a stream")
    print(f"(baseline {BASELINE_DAYS} days; a day effect of {DAY_EFFECT} sd in every second feature, scores, labels)")
    print(f"{'rule':<24}{'years':>7}{'false episodes a year':>24}{'99 % Poisson bound':>22}")
    quiet = sum(mapped(partial(episodes, KINDS, extent.days), extent.quiet(), extent.workers), Counter[str]())
    row(BUDGETED, extent.years, quiet["any"])
    for name in KINDS:
        row(f"  {name}", extent.years, quiet[name])
    for name, rule in RULES.items():
        streams = extent.quiet()[: extent.peers]
        counts = mapped(partial(episodes_of_rule, rule, extent.days), streams, extent.workers)
        row(name, extent.years * extent.peers / extent.streams, sum(counts))
    good = extent.kept("neither: the model's false episodes", quiet["any"], 1.0)

    print("\nInputs and scores move by 0.5 sd, labels keep their rates given the score (covariate)")
    moved = mapped(partial(episodes, ["concept_drift"], extent.days), extent.quiet(**COVARIATE), extent.workers)
    good &= extent.kept("covariate: concept drift's episodes", sum(moved, Counter[str]())["any"], 1 / len(KINDS))

    print("\nA fifth of the labels is turned over, inputs and scores stay (concept)")
    pairs = list(zip(extent.quiet(), extent.quiet(**CONCEPT), strict=True))
    same = all(mapped(partial(same_inputs, extent.days), pairs, extent.workers))
    good &= verdict("concept: inputs and scores are those of the quiet streams, cell by cell", same)
    inputs = max(quiet[name] for name in KINDS[:2])
    good &= extent.kept("concept: so the inputs' episodes are theirs, the more of both", inputs, 1 / len(KINDS))

    print(f"\nDays until a change is found, {extent.repeats} streams each")
    print(f"{'change':<12}" + "".join(f"{name:>20}" for name in KINDS))
    for offset, (change, changes, loud) in enumerate(
        (
            ("covariate", COVARIATE, KINDS[:2]),
            ("concept", CONCEPT, KINDS[2:]),
            ("both", COVARIATE | CONCEPT, KINDS),
        )
    ):
        streams = extent.changed(offset + 2, max(SCALES), **changes)
        found = mapped(partial(kinds_after, loud), streams, extent.workers)
        medians = {name: float(np.median([days[name] for days in found])) for name in loud}
        print(f"{change:<12}" + "".join(f"{told(medians[name]) if name in medians else '':>20}" for name in KINDS))
        missed = sum(max(days.values()) == float("inf") for days in found)
        good &= verdict(f"{change}: found by {', '.join(loud)} in all streams, missed in {missed}", missed == 0)
    return good


def told(days: float) -> str:
    """Return a number of days, or that it takes longer than was looked."""
    return f"{days:g}" if np.isfinite(days) else f"over {MOST_DAYS}"


def shifts(extent: Extent) -> bool:
    """Print the median days that each rule takes to find a shift in one feature."""
    print(f"\nOne feature moves for good, {extent.repeats} streams: median days until that feature is reported")
    print(f"{'rule':<24}" + "".join(f"{f'{shift:g} sd':>14}" for shift in (0.25, 0.5)))
    found = [mapped(found_after, extent.changed(1, max(SCALES), shift=shift), extent.workers) for shift in (0.25, 0.5)]
    for name in (BUDGETED, *RULES):
        both = [float(np.median([days[name] for days in each])) for each in found]
        print(f"{name:<24}" + "".join(f"{told(days):>14}" for days in both), flush=True)
    slowest = float(np.median([days[BUDGETED] for days in found[1]]))
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


def main(arguments: list[str] | None = None) -> int:
    """Simulate everything and return 0 where every verdict is PASS."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="40 years and 40 changes of each size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args(arguments)
    streams, days, peers, repeats = (40, DAYS, 8, 40) if chosen.full else (2, 30, 1, 4)
    extent = Extent(streams, days, peers, repeats, chosen.seed, chosen.workers, chosen.full)
    started = time.monotonic()
    passed = [four_kinds(extent), shifts(extent), weekly_season(1000 if chosen.full else 60, chosen.seed)]
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    spent = sum(one.ru_utime + one.ru_stime for one in used)
    print(f"\nseed {chosen.seed}, {time.monotonic() - started:.0f} s, {spent:.0f} processor seconds")
    verdict("all of it", all(passed))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
