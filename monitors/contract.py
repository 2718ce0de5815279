"""What a statistic, a kind of monitor and a result are: the public, versioned contract of plug-ins."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from monitors.blocks import Blocks
    from monitors.facets import Facets, FacetSample
    from monitors.profile import Profile
    from monitors.tables import BinaryTable, Table

CONTRACT_VERSION = 1
"""Changes when a plug-in made for the one before would no longer work."""

Counts = NDArray[np.float64]


class Direction(StrEnum):
    """Which way a value moves when things get worse."""

    HIGHER_IS_WORSE = "higher_is_worse"
    LOWER_IS_WORSE = "lower_is_worse"
    DISTANCE_FROM_ZERO = "distance_from_zero"
    DISTANCE_FROM_ONE = "distance_from_one"


class Verdict(StrEnum):
    """What a policy made of a result; a result that is only shown carries none."""

    OK = "ok"
    VIOLATED = "violated"
    NOT_MEASURED = "not_measured"


class Rule(StrEnum):
    """What a verdict rests on."""

    BUDGET = "budget"
    THRESHOLD = "threshold"
    SAGEMAKER = "sagemaker"
    SCHEMA = "schema"


class Role(StrEnum):
    """What a column is to the model."""

    FEATURE = "feature"
    PREDICTION = "prediction"
    SCORE = "score"
    GROUND_TRUTH = "ground_truth"


class Type(StrEnum):
    """The type of a column, fixed by the version's schema."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    BOOLEAN = "boolean"
    DATETIME = "datetime"
    TEXT = "text"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a model version, as its schema declares or infers it.

    ``name`` is the column's name in the lake: ``features.age``, ``prediction``, ``score``, ``scores.<class>``
    or ``ground_truth``; ``label`` is what people call it (``age``).
    """

    name: str
    role: Role
    type: Type
    status: str = "confirmed"
    required: bool = False
    range: tuple[float | None, float | None] | None = None
    categories: tuple[str, ...] | None = None
    constraints: Mapping[str, object] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name without the lake's prefix of features."""
        return self.name.removeprefix("features.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a result is about: a column, a slice, a group, at a time scale of so many windows."""

    feature: str | None = None
    slice: str | None = None
    attribute: str | None = None
    group: str | None = None
    reference_group: str | None = None
    class_: str | None = None
    scale: int = 1


@dataclass(frozen=True, slots=True)
class Chance:
    """How a value differs from the baseline's by chance: by Student's t of that spread, in the unit of the effect."""

    spread: float
    freedom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One number about one subject, judged, or the reason why there is none.

    ``p_value`` is the chance of a value at least as extreme if nothing had changed; ``effect`` is how far the
    subject moved in the unit of ``min_effect``, chance already subtracted. ``decides`` marks the one statistic of a
    subject whose verdict counts; the others are shown. ``note`` says what a reader must know to trust the number.
    """

    metric: str
    subject: Subject = Subject()
    value: float | None = None
    reason: str = ""
    verdict: Verdict | None = Verdict.NOT_MEASURED
    direction: Direction = Direction.HIGHER_IS_WORSE
    decides: bool = True
    interval: tuple[float, float] | None = None
    baseline_value: float | None = None
    effect: float | None = None
    min_effect: float | None = None
    p_value: float | None = None
    alpha: float | None = None
    threshold: float | None = None
    rule: Rule | None = None
    estimated: bool = False
    chance: Chance | None = None
    """How far it would be from the baseline's where nothing has changed, for who asks what could be found."""
    detected_at: datetime | None = None
    """When a sequential detector saw the newest change."""
    n_window: int = 0
    n_baseline: int = 0
    label_coverage: float | None = None
    """The share of the window's rows that had a label."""
    constant_value: float | None = None
    """The same figure of the best predictor that always says the same."""
    unit: str = ""
    note: str = ""
    by: str = ""
    type: Type | None = None
    """The type of the column that it is about, where a policy's rules depend on it."""

    def __post_init__(self) -> None:
        """Refuse a result that has both or neither of a finite value and a reason."""
        if (self.value is None) == (not self.reason):
            raise ValueError(f"{self.metric} of {self.subject}: a value or a reason, not both")
        for name in (
            "value",
            "effect",
            "min_effect",
            "p_value",
            "alpha",
            "threshold",
            "baseline_value",
            "constant_value",
        ):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{self.metric} of {self.subject}: {name} is {number}")


@dataclass(frozen=True, kw_only=True)
class BinnedStatistic(ABC):
    """A distance between the binned counts of a baseline and of a window; one file, found by discovery.

    ``types`` says which columns it is for, ``ordered`` whether the order of the bins matters to it, ``null`` whether
    its value where nothing changed can be drawn: without that it has no p-value and is judged by thresholds only.
    ``contract`` is the `CONTRACT_VERSION` that a plug-in was made for; statistics of ours leave it out.
    """

    contract: ClassVar[int]

    name: ClassVar[str]
    unit: ClassVar[str] = ""
    unchanged: ClassVar[float] = 0.0
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    source: ClassVar[str]
    types: ClassVar[frozenset[Type]] = frozenset({Type.NUMERIC, Type.CATEGORICAL, Type.BOOLEAN, Type.DATETIME})
    ordered: ClassVar[bool] = False
    null: ClassVar[bool] = True
    raw: ClassVar[bool] = False
    """Whether positions are wanted in the column's own unit, for a statistic that makes its bins of them."""

    @staticmethod
    def shares(counts: Counts) -> Counts:
        """Return counts of shape (..., bins) as shares that are nowhere 0 (at least 1e-4, as Evidently fills)."""
        total = counts.sum(axis=-1, keepdims=True)
        return np.asarray(np.maximum(counts / np.where(total > 0, total, 1.0), 1e-4))

    @abstractmethod
    def value(self, baseline: Counts, window: Counts, positions: Counts | None = None) -> Counts:
        """Return the statistic, shape (...,), of counts of shape (..., bins).

        ``positions`` of shape (bins,) are the mean values of a number's bins, in units of the baseline's standard
        deviation (``raw``: in the column's own); categories have none.
        """


class Figure(NamedTuple):
    """What a metric's value is called: ``f1``, ``f1_macro``, or ``f1`` of one class."""

    metric: str
    class_: str | None = None


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """A figure of how well predictions meet the ground truth, of outcome counts; one file, found by discovery.

    ``tasks`` are those it is for, ``decides`` those in which it is judged unless the monitor says otherwise. ``range``
    holds its least and greatest value, infinite ones included. ``undefined`` says when it has no value. Fields of the
    dataclass are options. ``contract`` is the `CONTRACT_VERSION` that a plug-in was made for; ours leave it out.
    """

    contract: ClassVar[int]
    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str] = ""
    direction: ClassVar[Direction] = Direction.LOWER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    tasks: ClassVar[frozenset[str]]
    decides: ClassVar[frozenset[str]] = frozenset()
    needs_scores: ClassVar[bool] = False
    """Whether it looks at scores; a model without any has no such figure."""
    undefined: ClassVar[str] = "no row has both a prediction and a label"
    source: ClassVar[str]

    @abstractmethod
    def value(self, table: Table) -> Counts:
        """Return the metric of counts with leading axes (...,), shape (...,); NaN where it is undefined."""

    def values(self, table: Table) -> dict[Figure, Counts]:
        """Return every figure that the metric has of a table, each of shape (...,)."""
        return {Figure(self.name): self.value(table)}

    def applies(self, table: Table) -> bool:  # noqa: ARG002 - a metric with more to ask overrides it
        """Return whether a table of one of its tasks has what the metric needs."""
        return True


@dataclass(frozen=True, kw_only=True)
class ClassMetric(Metric):
    """A metric of yes-or-no questions: of a binary model, or of "is it this class" for each class of many.

    Over many classes it is averaged: ``macro`` (each class alike), ``weighted`` (by the rows that have the label),
    ``micro`` (all questions put together). As scikit-learn does, an undefined class counts as 0 in a mean of decisions
    and is left out of one of rankings; where one class is given, classes that neither labels nor predictions name are
    left out too.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "multilabel"})
    averages: ClassVar[tuple[str, ...]] = ("macro", "micro", "weighted")

    @abstractmethod
    def of(self, table: BinaryTable) -> Counts:
        """Return the metric of one question, shape (...,); NaN where it is undefined."""

    def value(self, table: Table) -> Counts:
        """Return the metric of a binary model, or the mean over classes that are alike."""
        found = self.values(table)
        return found[Figure(self.name)] if Figure(self.name) in found else found[Figure(f"{self.name}_macro")]

    def values(self, table: Table) -> dict[Figure, Counts]:
        """Return the metric, or its averages over the classes and then that of each class."""
        from monitors.tables import BinaryTable, MulticlassTable, RegressionTable, questions  # they need this module

        if isinstance(table, RegressionTable):
            raise ValueError(f"{self.name} is of classes, not of numbers")
        if isinstance(table, BinaryTable):
            return {Figure(self.name): self.of(table)}
        asked = questions(table, scores=self.needs_scores)
        if not asked:
            return {}
        each = np.stack([self.of(question) for question in asked.values()], axis=-1)
        support = np.stack([question.positives for question in asked.values()], axis=-1)
        single = isinstance(table, MulticlassTable)
        named = np.stack([question.named if single else question.answered for question in asked.values()], axis=-1)
        counted = ~np.isnan(each) if self.needs_scores else named > 0
        filled = np.where(np.isnan(each), 0.0, each)
        found: dict[Figure, Counts] = {}
        for average in self.averages:
            if average == "micro":
                found[Figure(f"{self.name}_micro")] = self.of(BinaryTable.together(list(asked.values())))
                continue
            weights = np.where(counted, 1.0 if average == "macro" else support, 0.0)
            total = weights.sum(axis=-1)
            mean = (filled * weights).sum(axis=-1)
            found[Figure(f"{self.name}_{average}")] = np.divide(
                mean, total, out=np.full(total.shape, np.nan), where=total > 0
            )
        return found | {Figure(self.name, class_): each[..., place] for place, class_ in enumerate(asked)}

    def applies(self, table: Table) -> bool:
        """Return whether the table has scores where the metric needs them."""
        return not self.needs_scores or table.has_scores


class Stage(StrEnum):
    """When a bias can be seen: in the labels a model learns from, or in what it predicts."""

    PRE_TRAINING = "pre_training"
    POST_TRAINING = "post_training"


@dataclass(frozen=True, kw_only=True)
class BiasMetric(ABC):
    """How differently two groups fare, the favoured one (a) and the other (d); one file, found by discovery.

    ``meaning`` says in one line what a value says of the group. ``neutral`` is the value of equal treatment, ``needs``
    names what a row must have to be counted. With ``compat`` "smclarify" the value is what that package gives where
    it differs from the definition: support, sign, and division by nothing. ``contract`` is the `CONTRACT_VERSION`
    that a plug-in was made for; metrics of ours leave it out.
    """

    contract: ClassVar[int]
    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    stage: ClassVar[Stage]
    unit: ClassVar[str] = ""
    neutral: ClassVar[float] = 0.0
    direction: ClassVar[Direction] = Direction.DISTANCE_FROM_ZERO
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    needs: ClassVar[frozenset[str]]
    """Of "label", "prediction", "stratum" (the model's group variable)."""
    per_group: ClassVar[bool] = True
    """Whether the value depends on which group is looked at."""
    source: ClassVar[str]
    compat: str = ""

    @property
    def quirky(self) -> bool:
        """Whether smclarify's value is wanted where it differs."""
        return self.compat == "smclarify"

    @property
    def needs_labels(self) -> bool:
        """Whether it has to wait for the ground truth."""
        return "label" in self.needs


class CountedBias(BiasMetric):
    """A bias metric that is a formula over counts."""

    @abstractmethod
    def value(self, facets: Facets) -> Counts:
        """Return the metric of counts with leading axes (...,), shape (...,); not finite where it is undefined."""


class SampledBias(BiasMetric):
    """A bias metric that needs rows; it is measured on the row sample."""

    @abstractmethod
    def value(self, sample: FacetSample) -> tuple[float, float]:
        """Return the metric and its standard error; not finite where it is undefined."""


@dataclass(frozen=True, kw_only=True)
class RowStatistic(ABC):
    """A distance or test of one column's rows, computed by another library in the worker process; found by discovery.

    ``task`` is the worker's task, ``method`` what the library calls it. It is given the row samples, at most
    ``most_rows`` of each and where ``equal`` as many of one as of the other. It has no null: it is shown, or judged by
    thresholds, ``threshold`` being the customary one.
    """

    contract: ClassVar[int]
    name: ClassVar[str]
    method: ClassVar[str]
    task: ClassVar[str]
    source: ClassVar[str]
    unit: ClassVar[str] = ""
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    types: ClassVar[frozenset[Type]]
    threshold: ClassVar[float]
    null: ClassVar[bool] = False
    equal: ClassVar[bool] = False
    most_rows: ClassVar[int] = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """How much came, and when: what volume and freshness are judged on, empty windows included.

    ``history`` are the row counts of the same hours in the last weeks, newest first; ``silence_hours`` is the time
    from the last record to the window's end, None where there never was a record; ``judged`` is False while replayed
    history runs, when neither says anything.
    """

    rows: int
    history: tuple[int, ...] = ()
    silence_hours: float | None = None
    usual_gap_hours: float | None = None
    rejected: int = 0
    late: int = 0
    duplicates: int = 0
    conflicts: int = 0
    judged: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """A protected attribute as it is declared: its groups by value, or by cuts of a number; two or three crossed.

    Group i of ``cuts`` holds the values from cut i - 1 on to below cut i. ``values`` are the groups asked for, none
    where every value is one. ``reference`` is the group that others are compared with.
    """

    name: str
    cuts: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    reference: str | None = None
    crossed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the model answers: the task, its classes, and what is declared for fairness.

    ``favourable_outcome`` is the class that is good for the person, or ``{"above": x}`` / ``{"below": x}``.
    """

    name: str = ""
    classes: tuple[str, ...] = ()
    positive_class: str | None = None
    decision_threshold: float = 0.5
    favourable_outcome: str | Mapping[str, float] | None = None
    protected: tuple[Attribute, ...] = ()
    group_variable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A named figure that was worked out elsewhere and posted: of a model, or of one group of an attribute.

    ``n`` is the number of rows behind it, where it was told; ``interval`` what it was said to lie in.
    """

    metric: str
    value: float
    attribute: str | None = None
    group: str | None = None
    n: int | None = None
    interval: tuple[float, float] | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedFigures:
    """What was posted for a window in order of time, and for each of the quiet windows before it, oldest first."""

    window: tuple[Posted, ...] = ()
    quiet: tuple[tuple[Posted, ...], ...] = ()


def _no_rows() -> pa.Table | None:
    return None


def _no_outcomes() -> csr_array | None:
    return None


class WorkNotDoneError(Exception):
    """Work that was handed to the worker process came to no answer; the message is a sentence for the result."""


def _no_work(_task: str, _document: Mapping[str, Any], _tables: Mapping[str, pa.Table]) -> Mapping[str, Any]:
    raise WorkNotDoneError("there is no worker process here")


def _no_groups(attribute: str) -> pa.Array | None:  # noqa: ARG001 - nothing is known of any
    return None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that a monitor may look at: one window of one version and what it is compared with.

    ``scales`` maps 1, 7, 28, … (numbers of windows) to the merged profile of the last so many windows; 1 is always
    there. ``blocks`` maps a scale to the blocks of the quiet stream of that length, absent where there are none.
    ``generator(metric, subject)`` is seeded with monitor, version and window too, never with the attempt.
    ``rows()`` is the window's row sample and ``baseline_rows()`` the baseline's, at most 10,000 rows drawn at random:
    tables in the lake's columns (``features.age``, ``prediction``, ``score``, ``ground_truth``, …) without protected
    attributes, read when they are asked for; None where there are none. ``row_groups(attribute)`` is the group of each
    of ``rows()`` by a declared attribute or crossing, null where it is not known. ``bucket_outcomes()`` are the
    cells of the outcome tables of each of the window's hours (days where it is longer than a week), shape (buckets,
    outcome cells), those without rows left out; None where no labels are read. ``answers()`` are the last
    100,000 labelled rows before its end in order of time and id: ``timestamp``, ``prediction``, ``ground_truth``;
    ``detections`` holds the moment of the newest change that the detectors of earlier windows found, by metric.
    ``work(task, document, tables)`` has a task of the worker process done and returns its document; what other
    libraries compute comes from there. It raises WorkNotDoneError.
    ``posted`` are figures that were posted; a kind that judges them is given nothing else, and empty profiles.
    """

    columns: Sequence[Column]
    baseline: Profile
    scales: Mapping[int, Profile]
    blocks: Mapping[int, Blocks]
    blocks_reason: str = ""
    arrivals: Arrivals
    starts_at: datetime
    ends_at: datetime
    generator: Callable[[str, Subject], np.random.Generator]
    task: Task = Task()
    rows: Callable[[], pa.Table | None] = _no_rows
    baseline_rows: Callable[[], pa.Table | None] = _no_rows
    bucket_outcomes: Callable[[], csr_array | None] = _no_outcomes
    work: Callable[[str, Mapping[str, Any], Mapping[str, pa.Table]], Mapping[str, Any]] = _no_work
    answers: Callable[[], pa.Table | None] = _no_rows
    detections: Mapping[str, datetime] = field(default_factory=dict)
    row_groups: Callable[[str], pa.Array | None] = _no_groups
    posted: PostedFigures = PostedFigures()

    @property
    def window(self) -> Profile:
        """The profile of the window itself."""
        return self.scales[1]


class Parameters(BaseModel):
    """What a user may set on a kind of monitor; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def without_null(self) -> Sequence[str]:
        """Return what is to decide here although it has no p-value, so that only thresholds can judge it."""
        return ()

    def without_threshold(self, metric: str) -> str:  # noqa: ARG002 - most figures have one side that is worse
        """Return why no fixed threshold can judge a figure of that name, "" where one can."""
        return ""


class Kind(ABC):
    """A kind of monitor: measures one window and leaves the verdict to the policy; one file, found by discovery.

    ``contract`` is the `CONTRACT_VERSION` that a plug-in was made for; kinds of ours leave it out.
    """

    contract: ClassVar[int]
    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str] = ""
    needs_labels: ClassVar[bool] = False
    """Whether its windows wait for labels."""
    reads_labels: ClassVar[bool] = False
    """Whether it looks at labels where there are some, without waiting for them."""
    needs_attributions: ClassVar[bool] = False
    """Whether the rows that it is handed are to carry ``attributions.<input>`` columns, posted or computed."""
    counts_groups: ClassVar[bool] = False
    """Whether protected attributes that come late change what it finds."""
    judges_empty: ClassVar[bool] = False
    """Whether it judges windows without any record too, as volume and freshness do."""
    judges_posted: ClassVar[bool] = False
    """Whether it judges figures that were posted: it needs neither records nor a baseline, and sees none."""
    default: ClassVar[bool] = False
    """Whether a model gets this monitor when default monitors are made."""
    told: ClassVar[tuple[str, str]] = ("results", "violated")
    """How a sentence counts what it found: ``4 of 8 inputs moved``."""
    page: ClassVar[str] = "results"
    """Which of a model's pages shows what it found; ``results`` shows whatever a kind measures."""
    parameters: ClassVar[type[Parameters]] = Parameters

    def waits_for_labels(self, parameters: Parameters) -> bool:  # noqa: ARG002 - most kinds always do, or never
        """Return whether a window is judged only once its labels are in."""
        return self.needs_labels

    def missing(self, task: Task, parameters: Parameters) -> str:  # noqa: ARG002 - most kinds ask nothing of a model
        """Return what the model must declare before such a monitor can be made, "" where nothing is missing."""
        return ""

    def awaited(self, comparison: Comparison, parameters: Parameters) -> Sequence[str]:  # noqa: ARG002 - most wait not
        """Return which posted figures of the window are still to come, by what they are called."""
        return ()

    @abstractmethod
    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return what was measured, unjudged: p-values and effects, or the reasons why not.

        A result that is violated or ok by a rule of the kind's own (schema, constraint) carries its rule, threshold
        and verdict already; the policy leaves it as it is.
        """
