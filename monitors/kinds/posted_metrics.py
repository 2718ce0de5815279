"""Posted metrics: whether figures that were worked out elsewhere are still what quiet windows showed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isfinite, sqrt
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from scipy.special import stdtrit

from monitors import discovery
from monitors.contract import (
    Comparison,
    Counts,
    Direction,
    Kind,
    Parameters,
    Posted,
    Result,
    Subject,
    Task,
)
from monitors.null import CALIBRATING, ENOUGH_BLOCKS, student_tail

EITHER = "either"
FEWEST = 2
"""Quiet windows that a spread can be told from."""

Side = Literal["higher_is_worse", "lower_is_worse", "distance_from_zero", "distance_from_one", "either"]
Key = tuple[str, str | None, str | None]
"""Metric, attribute and group: what a figure is of."""


class PostedMetric(BaseModel):
    """How one figure is judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    direction: Side | None = Field(
        None,
        description="Which way is worse; `either` where both are. A name of the catalogue brings its own.",
    )
    combine: Literal["mean", "sum", "last", "least", "most"] = Field(
        "mean", description="What several figures of one window make: their mean weighs each by its `n`."
    )
    min_effect: float | None = Field(
        None,
        ge=0,
        description="Least change for the worse that is reported, in the figure's own unit; by default half the width "
        "of the 95 % interval of the quiet windows' mean.",
    )
    min_rows: int = Field(1, ge=1, description="Rows behind a figure (its `n`, where it was told) to be judged.")


class PostedParameters(Parameters):
    """Which posted figures are judged."""

    metrics: dict[str, PostedMetric] = Field(
        {},
        description='The figures, `{"revenue": {"direction": "lower_is_worse"}}`; a list of names where the catalogue '
        "knows them.",
    )

    @field_validator("metrics", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return {name: {} for name in value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _directed(self) -> PostedParameters:
        for name, metric in self.metrics.items():
            if metric.direction is None and _known(name) is None:
                raise ValueError(f"no metric of the catalogue is called {name}: say its direction")
            if metric.min_effect is not None and not isfinite(metric.min_effect):
                raise ValueError(f"min_effect of {name} must be a finite number")
        return self

    def side(self, metric: str) -> str:
        """Return which way a figure gets worse."""
        return self.metrics[metric].direction or _known(metric) or EITHER

    def without_threshold(self, metric: str) -> str:
        """Return why no fixed threshold can judge a figure: it is not watched, or has no one side that is worse."""
        if metric not in self.metrics:
            return f"the monitor watches no figure {metric}; it watches {', '.join(self.metrics) or 'none'}"
        if self.side(metric) == EITHER:
            return f"{metric} is watched in either direction; a threshold needs to know which side is worse"
        return ""


def _known(name: str) -> Direction | None:
    """Return the direction of the catalogue's metric of that name, ``f1_macro`` being one of `f1`."""
    for known in (name, name.rpartition("_")[0]):
        for metrics in (discovery.metrics(), discovery.bias_metrics()):
            if known in metrics:
                return metrics[known].direction
    return None


@dataclass(frozen=True, slots=True)
class Combined:
    """The figures of one window put together."""

    value: float
    n: int | None
    interval: tuple[float, float] | None
    unit: str


_COMBINED: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum": fsum,
    "last": lambda values: values[-1],
    "least": min,
    "most": max,
}


def combined(figures: Sequence[Posted], how: str) -> Combined:
    """Return figures of one metric and group as one: ``n`` is theirs together, an interval that of one alone."""
    values = [figure.value for figure in figures]
    sizes = [figure.n for figure in figures if figure.n is not None]
    n = sum(sizes) if len(sizes) == len(figures) else None
    if how == "mean":
        weights = sizes if n else [1] * len(values)
        value = fsum(weight * one for weight, one in zip(weights, values, strict=True)) / sum(weights)
    else:
        value = _COMBINED[how](values)
    return Combined(value, n, figures[0].interval if len(figures) == 1 else None, figures[-1].unit)


class PostedMetrics(Kind):
    """Judges named figures that were posted with `POST …/metrics`, such as revenue, complaints or a metric of yours.

    By the alarm budget a figure is compared with those of the quiet windows before: the chance of a further value at
    least as bad, by the Student-t predictive distribution; with fewer than 20 of them at a tenth of alpha. By
    thresholds it needs no history. A window is judged once, when all figures are there that it names or that the
    window before had, or when `labels.delay` (1d) has passed; corrections make revisions.
    """

    name: ClassVar[str] = "posted_metrics"
    title: ClassVar[str] = "Posted metrics"
    source: ClassVar[str] = "Geisser (1993), Predictive Inference, section 2.2: Student-t prediction of one more value"
    judges_posted: ClassVar[bool] = True
    told: ClassVar[tuple[str, str]] = ("figures", "got worse")
    parameters: ClassVar[type[Parameters]] = PostedParameters

    def waits_for_labels(self, parameters: Parameters) -> bool:  # noqa: ARG002 - whatever is watched may come late
        """Return that windows wait until the figures that are expected have come."""
        return True

    def missing(self, task: Task, parameters: Parameters) -> str:  # noqa: ARG002 - any model has figures
        """Return that a monitor of posted metrics has to name some."""
        if isinstance(parameters, PostedParameters) and parameters.metrics:
            return ""
        return 'name the figures to watch: {"metrics": {"revenue": {"direction": "lower_is_worse"}}}'

    def awaited(self, comparison: Comparison, parameters: Parameters) -> Sequence[str]:
        """Return the figures that the monitor names, or the window before had, and this one has not."""
        assert isinstance(parameters, PostedParameters)  # noqa: S101 - the kind's own
        there = _by_key(comparison.posted.window)
        return [_phrase(key) for key in _expected(comparison, parameters) if key not in there]

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return each figure that is watched and expected, or that none was posted."""
        assert isinstance(parameters, PostedParameters)  # noqa: S101 - the kind's own
        window = _by_key(comparison.posted.window)
        quiet = [_by_key(figures) for figures in comparison.posted.quiet]
        return [
            _result(key, window.get(key, ()), [held[key] for held in quiet if key in held], parameters)
            for key in _expected(comparison, parameters)
        ]


def _expected(comparison: Comparison, parameters: PostedParameters) -> list[Key]:
    """Return what the window should hold of the figures that are watched, in the order of their names."""
    posted = comparison.posted
    seen = {**_by_key(posted.quiet[-1] if posted.quiet else ()), **_by_key(posted.window)}
    found: list[Key] = []
    for name in parameters.metrics:
        own = sorted((key for key in seen if key[0] == name), key=lambda key: (key[1] or "", key[2] or ""))
        found += own or [(name, None, None)]
    return found


def _by_key(figures: Sequence[Posted]) -> dict[Key, list[Posted]]:
    found: dict[Key, list[Posted]] = {}
    for figure in figures:
        found.setdefault((figure.metric, figure.attribute, figure.group), []).append(figure)
    return found


def _phrase(key: Key) -> str:
    return " ".join(part for part in key if part)


def _result(
    key: Key, figures: Sequence[Posted], before: Sequence[Sequence[Posted]], parameters: PostedParameters
) -> Result:
    """Return one figure beside those of the quiet windows before."""
    metric, attribute, group = key
    asked, side = parameters.metrics[metric], parameters.side(metric)
    subject = Subject(attribute=attribute, group=group)
    direction = Direction.DISTANCE_FROM_ZERO if side == EITHER else Direction(side)
    if not figures:
        return Result(metric=metric, subject=subject, reason="no value was posted", direction=direction)
    own = combined(figures, asked.combine)
    if own.n is not None and own.n < asked.min_rows:
        reason = f"insufficient rows: {own.n} of {asked.min_rows} behind the figure"
        return Result(metric=metric, subject=subject, reason=reason, direction=direction, n_window=own.n)
    known = [combined(each, asked.combine) for each in before]
    quiet = np.array([one.value for one in known if one.n is None or one.n >= asked.min_rows])
    notes = []
    change = compared(own.value, quiet, side) if quiet.size >= FEWEST else None
    least = None if change is None else change.half_width
    if quiet.size < ENOUGH_BLOCKS:
        notes.append(f"{CALIBRATING}, {quiet.size} of {ENOUGH_BLOCKS} quiet windows: assumes a normal distribution")
    if side == EITHER:
        notes.append("watched in either direction")
        low = bool(quiet.size) and own.value < float(quiet.mean())
        direction = Direction.LOWER_IS_WORSE if low else Direction.HIGHER_IS_WORSE
    return Result(
        metric=metric,
        subject=subject,
        value=own.value,
        direction=direction,
        interval=own.interval,
        baseline_value=float(quiet.mean()) if quiet.size else None,
        n_window=own.n if own.n is not None else len(figures),
        n_baseline=quiet.size,
        effect=None if change is None else change.effect,
        min_effect=least if asked.min_effect is None else asked.min_effect,
        p_value=None if change is None else change.p_value,
        unit=own.unit,
        note="; ".join(notes),
    )


@dataclass(frozen=True, slots=True)
class Change:
    """How much worse a value is than quiet ones, half the width of their mean's interval, the chance of one as bad."""

    effect: float
    half_width: float
    p_value: float


def compared(value: float, quiet: Counts, side: str) -> Change:
    """Return the change of a value from at least two quiet ones."""
    chances, effects = [], []
    for worse in (np.positive, np.negative) if side == EITHER else (_SEVERITY[side],):
        bad, usual = float(worse(value)), np.asarray(worse(quiet), np.float64)
        effects.append(bad - float(usual.mean()))
        chance = student_tail(bad, usual)
        if quiet.size < ENOUGH_BLOCKS and float(np.ptp(usual)) == 0:
            chance = max(chance, 1 / (1 + quiet.size))  # the rank is all that values say that have been equal so far
        chances.append(chance)
    spread = np.asarray(_SEVERITY.get(side, np.positive)(quiet), np.float64).std(ddof=1)
    half = float(stdtrit(quiet.size - 1, 0.975) * spread) / sqrt(quiet.size)
    return Change(max(effects), half, min(1.0, len(chances) * min(chances)))


_SEVERITY: Mapping[str, Any] = {
    "higher_is_worse": np.positive,
    "lower_is_worse": np.negative,
    "distance_from_zero": np.abs,
    "distance_from_one": lambda values: np.abs(np.asarray(values) - 1),
}
"""How bad values are by each direction, so that larger is always worse."""
