"""Bias of a window: each group against a reference or the rest, with interval, chance, and what is withheld."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite, sqrt
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from scipy.special import ndtr, stdtr

from monitors import discovery, parity
from monitors.columns import codes_of, numbers_of
from monitors.contract import (
    Attribute,
    BiasMetric,
    Chance,
    Comparison,
    CountedBias,
    Counts,
    Direction,
    Metric,
    Parameters,
    Result,
    Role,
    Rule,
    SampledBias,
    Subject,
    Type,
    Verdict,
)
from monitors.facets import FAVOURABLE, UNKNOWN, Facets, FacetSample, facet_cells
from monitors.group_performance import performance_of_groups
from monitors.null import CALIBRATING, ENOUGH_BLOCKS, TAIL_ONLY
from monitors.outcomes import fortunes
from monitors.resampling import drawn_counts

PERMUTATIONS = 999
TOGETHER = 100
"""Draws that are measured at once where strata make tables large."""
FEW = 10
"""With fewer draws as extreme as the change, a tail of Student's distribution says how rare it is."""
TAIL_FREEDOM = 10.0
LEVEL = 0.95
NORMAL = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
MIN_GROUP = 30
MOST_MISSING = 0.05
REST = "rest"
FOUR_FIFTHS = (0.8, 1.25)


class BiasParameters(Parameters):
    """Which attributes and metrics are looked at, against whom, and by which rule."""

    attributes: list[str] | Literal["all"] = Field(
        "all", description="Declared attributes and crossings (`sex*age`) to look at."
    )
    metrics: list[str] = Field(
        ["DPPL"], description="Metrics that are judged. Those that need labels make the monitor wait for them."
    )
    also: list[str] = Field(
        ["all"],
        description="Metrics that are shown without a verdict; `all` for every one of bias. Names of performance "
        "metrics (`accuracy`, `roc_auc`) are shown of each group.",
    )
    fairlearn: list[str] = Field(
        [
            "demographic_parity_difference",
            "demographic_parity_ratio",
            "equalized_odds_difference",
            "equalized_odds_ratio",
            "equal_opportunity_difference",
        ],
        description="Differences and ratios between groups by their names in fairlearn, computed by it and shown.",
    )
    against: Literal["reference", "rest"] | None = Field(
        None, description="Whom a group is compared with; by default the reference group where one is declared."
    )
    compat: Literal["", "smclarify"] = Field(
        "", description="`smclarify` for its values where they differ from the definition, see docs/fairness.md."
    )
    rule: Literal["change", "level", "interval", "file"] = Field(
        "change",
        description="`change`: the budget judges the change against the baseline. `level`: the budget judges whether "
        "the value lies outside `ranges`. `interval`: SageMaker's interval rule, violated where the normal bootstrap "
        "interval and `ranges` (by default the baseline's interval) are disjoint. `file`: SageMaker's file rule, "
        "violated where the value is farther from equal treatment than the baseline's.",
    )
    ranges: dict[str, tuple[float, float]] = Field(
        {}, description="Allowed values by metric, for `level` and `interval`; DI is 0.8 to 1.25 by default."
    )
    min_effect: dict[str, float] = Field(
        {},
        description="Least change that is reported, by metric (of DI in its logarithm); by default half the width of "
        "the baseline's interval.",
    )
    min_group: int = Field(MIN_GROUP, ge=2, description="Rows under which a group is withheld.")

    @field_validator("metrics", "also")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        known = discovery.bias_metrics()
        for name in names:
            if name not in known and name not in ("all", *discovery.metrics()):
                raise ValueError(f"there is no bias metric {name}; there are {', '.join(known)}")
        return names

    @field_validator("fairlearn")
    @classmethod
    def _offered(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in parity.names():
                raise ValueError(f"fairlearn has no {name}; it has {', '.join(parity.names())}")
        return names

    @model_validator(mode="after")
    def _judgeable(self) -> BiasParameters:
        known = discovery.bias_metrics()
        for name in self.metrics:
            if not isinstance(known.get(name), CountedBias):
                raise ValueError(
                    f"{name} is measured on a sample of rows or is no bias metric: it is shown, not judged"
                )
        for name in (*self.ranges, *self.min_effect):
            if name not in known:
                raise ValueError(f"there is no bias metric {name}; there are {', '.join(known)}")
        if self.rule == "level" and (missing := [name for name in self.metrics if self.allowed(name) is None]):
            raise ValueError(f"ranges says which values of {', '.join(missing)} are allowed, as [least, greatest]")
        for name, (low, high) in self.ranges.items():
            if not (isfinite(low) and isfinite(high) and low <= high) or (name == "DI" and low <= 0):
                raise ValueError(f"the range of {name} is two finite numbers, the least first (of DI above 0)")
        return self

    @classmethod
    def of(cls, parameters: Parameters) -> BiasParameters:
        """Return the parameters of a bias monitor; bare ``Parameters`` mean the defaults."""
        return parameters if isinstance(parameters, cls) else cls.model_validate(parameters.model_dump())

    def allowed(self, name: str) -> tuple[float, float] | None:
        """Return the allowed values of a metric, none where nobody says."""
        return self.ranges.get(name, FOUR_FIFTHS if name == "DI" else None)

    def chosen(self) -> list[BiasMetric]:
        """Return the metrics to measure, those that are judged first."""
        known = discovery.bias_metrics()
        shown = known if "all" in self.also else {name: known[name] for name in self.also if name in known}
        names = dict.fromkeys([*self.metrics, *shown])
        return [replace(known[name], compat=self.compat) for name in names]

    def performance(self) -> list[Metric]:
        """Return the metrics of performance that are shown of each group."""
        known = discovery.metrics()
        return [known[name] for name in dict.fromkeys(self.also) if name in known]

    @property
    def waits(self) -> bool:
        """Whether a metric that is judged needs labels."""
        return any(discovery.bias_metrics()[name].needs_labels for name in self.metrics)


# --- who is compared with whom, and who is withheld -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class People:
    """The groups of an attribute: ``cells`` of shape (groups, strata, 3, 3), the last two "other" and "unknown"."""

    attribute: str
    names: tuple[str, ...]
    cells: Counts
    reference: str | None = None

    @property
    def looked_at(self) -> list[int]:
        """The groups that are compared with the reference, or with the rest."""
        return [place for place, name in enumerate(self.names) if name != self.reference]

    def facets(self, cells: Counts, *, strata: bool) -> Facets:
        """Return each group that is looked at beside whom it is compared with, the groups as last leading axis.

        ``cells`` has the shape (..., groups, strata, 3, 3). The rest are all other rows whose group is known; rows
        without the attribute are in neither.
        """
        if not strata:
            cells = cells.sum(axis=-3, keepdims=True)
        else:  # rows without the group variable are in no stratum
            cells = cells[..., :-1, :, :] if cells.shape[-3] > 1 else cells
        mine = cells[..., self.looked_at, :, :, :]
        if self.reference is not None:
            place = self.names.index(self.reference)
            theirs = np.broadcast_to(cells[..., place : place + 1, :, :, :], mine.shape)
        else:
            theirs = cells[..., :-1, :, :, :].sum(axis=-4, keepdims=True) - mine
        return Facets(np.stack([theirs, mine], axis=-4))

    def with_cells(self, cells: Counts) -> People:
        """Return the same groups with other rows."""
        return replace(self, cells=cells)

    @property
    def rows(self) -> Counts:
        """Rows of each group, "other" and "unknown" last."""
        return np.asarray(self.cells.sum(axis=(-3, -2, -1)))


def people_of(comparison: Comparison, values: Counts, attribute: str, parameters: BiasParameters) -> People:
    """Return the groups of an attribute with rows from outcome cells of shape (``outcome_cells``,)."""
    layout = comparison.baseline.layout
    names = layout.outcomes.groups[attribute] if layout.outcomes is not None else ()
    reference = reference_of(attribute, comparison.task.protected)
    if parameters.against == "rest" or reference not in names:
        reference = None
    return People(attribute, names, facet_cells(layout, values, attribute), reference)


def reference_of(attribute: str, declared: Sequence[Attribute]) -> str | None:
    """Return the group that others are compared with: of a crossing the one that all its parts' references make."""
    references = {each.name: each.reference for each in declared}
    parts = [references.get(part) for part in attribute.split("*")]
    return None if None in parts else "*".join(str(part) for part in parts)


def withheld(names: Sequence[str], rows: Counts, least: int) -> NDArray[np.bool_]:
    """Return which groups are not told of: those under ``least`` rows, and those by which they could be found.

    Where the groups of a total (all of them, and of a crossing those that share a part) hide fewer than ``least`` rows
    beside the smallest hidden group, taking the others from the total would tell of it: the next smallest group is
    withheld too. ``rows`` has the shape (groups + 2,), "other" and "unknown" last; they are never told of.
    """
    known = rows[: len(names)]
    hidden = (known > 0) & (known < least)
    parts = [name.split("*") for name in names]
    totals: list[tuple[list[int], float]] = [(list(range(len(names))), float(rows[len(names) :].sum()))]
    if names and len(parts[0]) > 1:
        lines: dict[tuple[int, str], list[int]] = {}
        for place, cell in enumerate(parts):
            for axis, value in enumerate(cell):
                lines.setdefault((axis, value), []).append(place)
        totals += [(line, 0.0) for line in lines.values()]
    changed = True
    while changed:
        changed = False
        for members, beside in totals:
            mine = [place for place in members if hidden[place]]
            if not mine:
                continue
            cover = sum(float(known[place]) for place in mine) - min(float(known[place]) for place in mine) + beside
            left = [place for place in members if not hidden[place] and known[place] > 0]
            if cover < least and left:
                hidden[min(left, key=lambda place: float(known[place]))] = True
                changed = True
    return np.asarray(hidden)


# --- measuring --------------------------------------------------------------------------------------------------------


def scaled(metric: BiasMetric, values: Counts) -> Counts:
    """Return values on the scale on which they are judged: of ratios the logarithm, so that equal treatment is 0."""
    if metric.direction is not Direction.DISTANCE_FROM_ONE:
        return np.asarray(values, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(values))


def measured(metric: CountedBias, people: People, cells: Counts) -> Counts:
    """Return a metric of each group that is looked at, shape (..., groups), of cells (..., groups, strata, 3, 3)."""
    strata = "stratum" in metric.needs
    if cells.ndim == 4 or not strata:
        return np.asarray(metric.value(people.facets(cells, strata=strata)))
    parts = [cells[start : start + TOGETHER] for start in range(0, cells.shape[0], TOGETHER)]
    return np.concatenate([np.asarray(metric.value(people.facets(part, strata=True))) for part in parts])


def exchanged(window: Counts, baseline: Counts, generator: np.random.Generator) -> tuple[Counts, Counts]:
    """Return windows drawn without replacement from window and baseline together, and what each leaves."""
    pooled = (window + baseline).ravel()
    used = np.flatnonzero(pooled > 0)
    counts, size = np.rint(pooled[used]).astype(np.int64), round(float(window.sum()))
    if counts.sum() >= TAIL_ONLY:
        draws = generator.multinomial(size, counts / counts.sum(), PERMUTATIONS)
    else:
        draws = generator.multivariate_hypergeometric(counts, size, PERMUTATIONS, method="marginals")
    taken = np.zeros((PERMUTATIONS, pooled.size))
    taken[:, used] = draws
    left = pooled - taken
    return taken.reshape(-1, *window.shape), np.maximum(left, 0.0).reshape(-1, *window.shape)


@dataclass(frozen=True, eq=False)
class Compared:
    """A window's and a baseline's rows by the groups of one attribute, and how both vary by chance."""

    window: People
    baseline: People | None
    blocks: Counts | None
    generator: np.random.Generator

    @cached_property
    def window_draws(self) -> Counts:
        """Draws of the window's cells."""
        return drawn_counts(self.window.cells, self.generator)

    @cached_property
    def baseline_draws(self) -> Counts | None:
        """Draws of the baseline's cells."""
        return None if self.baseline is None else drawn_counts(self.baseline.cells, self.generator)

    @cached_property
    def swapped(self) -> tuple[Counts, Counts] | None:
        """Windows and baselines drawn from both together."""
        return None if self.baseline is None else exchanged(self.window.cells, self.baseline.cells, self.generator)


@dataclass(frozen=True, eq=False)
class Estimate:
    """One metric of each group that is looked at, on its own scale, and what is needed to judge it."""

    metric: CountedBias
    values: Counts
    draws: Counts
    baseline: Counts | None = None
    baseline_draws: Counts | None = None
    moved: Counts | None = None
    quiet: Counts | None = None

    @staticmethod
    def of(metric: CountedBias, compared: Compared, *, judged: bool) -> Estimate:
        """Return the estimate; the null is only drawn where the metric is judged."""
        window, baseline = compared.window, compared.baseline
        values = measured(metric, window, window.cells)
        draws = measured(metric, window, compared.window_draws)
        if baseline is None or compared.baseline_draws is None:
            return Estimate(metric, values, draws)
        before = measured(metric, window, baseline.cells)
        around = measured(metric, window, compared.baseline_draws)
        moved = quiet = None
        if judged and compared.swapped is not None:
            windows, baselines = (scaled(metric, measured(metric, window, part)) for part in compared.swapped)
            with np.errstate(invalid="ignore"):
                moved = windows - baselines
            if compared.blocks is not None:
                quiet = scaled(metric, measured(metric, window, compared.blocks))
        return Estimate(metric, values, draws, before, around, moved, quiet)

    def interval(self, place: int, *, baseline: bool = False) -> tuple[float, float] | None:
        """Return the 95 % interval of a group's value, by quantiles of the draws."""
        draws = self.baseline_draws if baseline else self.draws
        if draws is None:
            return None
        known = draws[:, place]
        known = known[~np.isnan(known)]
        if known.size < 0.8 * draws.shape[0]:
            return None
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return (float(low), float(high)) if isfinite(low) and isfinite(high) else None

    def error(self, place: int, *, baseline: bool = False) -> float:
        """Return the standard error of a group's value on the scale on which it is judged."""
        draws = self.baseline_draws if baseline else self.draws
        if draws is None:
            return float("nan")
        known = scaled(self.metric, draws[:, place])
        known = known[np.isfinite(known)]
        return float(known.std(ddof=1)) if known.size > 1 else float("nan")

    def change(self, place: int) -> tuple[float, float, bool] | None:
        """Return how far a group has moved from the baseline, the chance of it, and whether quiet blocks had a say.

        A move towards equal treatment counts below 0. None where either value is undefined.
        """
        if self.baseline is None or self.moved is None:
            return None
        now, before = (float(scaled(self.metric, part[place])) for part in (self.values, self.baseline))
        if not (isfinite(now) and isfinite(before)):
            return None
        moved = self.moved[:, place]
        known = moved[np.isfinite(moved)]
        spread = float(known.std()) if known.size else float("nan")
        if known.size < 0.8 * moved.size or not isfinite(spread):
            return None
        upward = self.metric.direction is Direction.HIGHER_IS_WORSE
        step = now - before
        reached = int((known >= step - 1e-12).sum() if upward else (np.abs(known) >= abs(step) - 1e-12).sum())
        p_value = (reached + 1) / (known.size + 1)
        if reached < FEW and spread > 0:
            score = (step - float(known.mean())) / spread
            tail = stdtr(TAIL_FREEDOM, -score) if upward else 2 * stdtr(TAIL_FREEDOM, -abs(score))
            p_value = min(p_value, float(tail))
        by_blocks = self._by_blocks(place, step, spread, upward=upward)
        if by_blocks is not None:
            p_value = max(p_value, by_blocks)
        better = abs(now) <= abs(before) and now * before >= 0
        return (-abs(step) if better else abs(step)), p_value, by_blocks is not None

    def _by_blocks(self, place: int, step: float, spread: float, *, upward: bool) -> float | None:
        """Return the chance of the change among the quiet blocks of the window's length; None of too few."""
        values = self._quiet_values(place)
        if values is None:
            return None
        deviation = max(float(values.std(ddof=1)), spread)
        if deviation <= 0:
            return None
        before = float(scaled(self.metric, self.baseline[place])) if self.baseline is not None else 0.0
        score = (step - (float(values.mean()) - before)) / (deviation * np.sqrt(1 + 1 / values.size))
        freedom = values.size - 1.0
        return float(stdtr(freedom, -score) if upward else 2 * stdtr(freedom, -abs(score)))

    def _quiet_values(self, place: int) -> Counts | None:
        """Return a group's values in the quiet blocks; None of too few."""
        if self.quiet is None:
            return None
        values = self.quiet[:, place][np.isfinite(self.quiet[:, place])]
        return values if values.size >= ENOUGH_BLOCKS else None

    def chance(self, place: int) -> Chance | None:
        """Return how far a group is from the baseline's value by chance, by the quiet blocks where they have a say."""
        if self.moved is None:
            return None
        moved = self.moved[:, place][np.isfinite(self.moved[:, place])]
        if not moved.size:
            return None
        values = self._quiet_values(place)
        if values is None:
            return Chance(float(moved.std()), np.inf)
        deviation = max(float(values.std(ddof=1)), float(moved.std()))
        return Chance(deviation * sqrt(1 + 1 / values.size), values.size - 1.0)

    def outside(self, place: int, allowed: tuple[float, float]) -> tuple[float, float] | None:
        """Return how far a group lies outside the allowed values, and the chance if it lay at their end."""
        now, error = float(scaled(self.metric, self.values[place])), self.error(place)
        if not (isfinite(now) and isfinite(error)):
            return None
        low, high = (float(scaled(self.metric, np.array(end))) for end in allowed)
        if self.quiet is not None:
            values = self.quiet[:, place][np.isfinite(self.quiet[:, place])]
            error = max(error, float(values.std(ddof=1))) if values.size >= ENOUGH_BLOCKS else error
        beyond = max(low - now, now - high)
        if error == 0:
            return beyond, 0.0 if beyond > 0 else 1.0
        return beyond, float(ndtr(-beyond / error))


def measure_bias(comparison: Comparison, parameters: BiasParameters) -> list[Result]:
    """Return every metric of every group, unjudged where the policy judges; what is withheld carries the reason."""
    outcomes = comparison.baseline.layout.outcomes
    if outcomes is None or outcomes.favourable is None or not outcomes.groups:
        return [Result(metric="bias", reason=_unready(comparison))]
    now, before = _dense(comparison, window=True), _dense(comparison, window=False)
    attributes = list(outcomes.groups) if parameters.attributes == "all" else parameters.attributes
    results: list[Result] = []
    for attribute in attributes:
        if attribute not in outcomes.groups:
            reason = f"{attribute} is not declared; there are {', '.join(outcomes.groups)}"
            results.append(Result(metric="bias", subject=Subject(attribute=attribute), reason=reason))
            continue
        results += list(_of_attribute(comparison, parameters, attribute, now, before))
    whole = next((result for result in results if result.metric == "GE" and result.value is not None), None)
    kept = [result for result in results if result.metric != "GE"]
    kept += [replace(whole, subject=Subject())] if whole is not None else []
    return sorted(kept, key=lambda result: not result.decides)


def _unready(comparison: Comparison) -> str:
    if comparison.task.favourable_outcome is None:
        return "the model does not say which outcome is favourable: PATCH favourable_outcome"
    if not comparison.task.protected:
        return "the model declares no protected_attributes"
    return "outcomes are not counted by group yet: the classes of the model are not known"


def _dense(comparison: Comparison, *, window: bool) -> Counts:
    profile = comparison.window if window else comparison.baseline
    cells = profile.outcome_cells
    return np.zeros(profile.layout.outcome_cells) if cells is None else cells.dense(profile.layout).values


def _of_attribute(
    comparison: Comparison, parameters: BiasParameters, attribute: str, now: Counts, before: Counts
) -> Iterator[Result]:
    window = people_of(comparison, now, attribute, parameters)
    yield from _sizes(window)
    if not window.names:
        reason = f"no group of {attribute} is known: declare its values, or send it with a baseline"
        yield Result(metric="bias", subject=Subject(attribute=attribute), reason=reason)
        return
    baseline = window.with_cells(facet_cells(comparison.baseline.layout, before, attribute))
    told = bool(baseline.rows[: len(window.names)].sum())
    if not told and parameters.metrics and parameters.rule in ("change", "file"):
        reason = f"the baseline does not say {attribute} of its rows, so there is no change to judge"
        yield Result(metric="bias", subject=Subject(attribute=attribute), reason=reason)
    compared = Compared(
        window,
        baseline if told else None,
        _blocks(comparison, attribute),
        comparison.generator("bias", Subject(attribute=attribute)),
    )
    known = comparison.task.group_variable
    for metric in parameters.chosen():
        if isinstance(metric, CountedBias) and ("stratum" not in metric.needs or known is not None):
            yield from _counted(comparison, parameters, compared, metric)
        elif isinstance(metric, SampledBias):
            yield from _sampled(comparison, parameters, window, metric)
    yield from _fairlearn(parameters, window)
    if metrics := parameters.performance():
        names, _, _ = _told(parameters, window, labels=True)
        places = {place: name for place, name in enumerate(window.names) if name in names}
        yield from performance_of_groups(comparison, attribute, places, metrics, parameters.min_group)


def _sizes(people: People) -> Iterator[Result]:
    """Say how many rows each group has; of "other" and "unknown" nothing else is said."""
    rows = people.rows
    total = float(rows.sum())
    for name, count in zip((*people.names, "other", "unknown"), rows.tolist(), strict=True):
        yield Result(
            metric="group_share",
            subject=Subject(attribute=people.attribute, group=name),
            value=count / total if total else 0.0,
            decides=False,
            verdict=None,
            n_window=int(count),
        )


def _blocks(comparison: Comparison, attribute: str) -> Counts | None:
    """Return the quiet stream's blocks by group, shape (blocks, groups, strata, 3, 3); None without outcomes."""
    blocks = comparison.blocks.get(1)
    outcomes = getattr(blocks, "outcomes", None)
    if outcomes is None:
        return None
    cells = facet_cells(comparison.baseline.layout, outcomes.toarray(), attribute)
    return cells if cells.shape[0] >= ENOUGH_BLOCKS else None


def _hidden(people: People, needs: frozenset[str], least: int) -> tuple[Counts, NDArray[np.bool_]]:
    """Return the rows of each group that have what a metric needs, and which groups are withheld by them."""
    labels = slice(2) if "label" in needs else slice(None)
    predictions = slice(2) if "prediction" in needs else slice(None)
    rows = np.asarray(people.cells[..., labels, predictions].sum(axis=(-3, -2, -1)))
    return rows, withheld(people.names, rows, least)


def _counted(
    comparison: Comparison, parameters: BiasParameters, compared: Compared, metric: CountedBias
) -> Iterator[Result]:
    window = compared.window
    judged = metric.name in parameters.metrics
    estimate = Estimate.of(metric, compared, judged=judged)
    rows, hidden = _hidden(window, metric.needs, parameters.min_group)
    facets = window.facets(window.cells, strata="stratum" in metric.needs).counted(metric.needs)
    kept = 0 if compared.baseline is None else int(_hidden(compared.baseline, metric.needs, 0)[0][:-1].sum())
    for place, group in enumerate(window.looked_at if metric.per_group else window.looked_at[:1]):
        name = window.names[group]
        theirs, mine = facets[place].tolist()
        common = Result(
            metric=metric.name,
            subject=Subject(attribute=window.attribute, group=name, reference_group=window.reference or REST),
            reason=f"{metric.title} is not defined here: a group has no such row to divide by",
            direction=metric.direction,
            decides=judged,
            verdict=Verdict.NOT_MEASURED if judged else None,
            n_window=int(rows[group] if metric.per_group else rows.sum()),
            n_baseline=kept,
            unit=metric.unit,
            by=discovery.by(metric.name),
        )
        if metric.per_group and (reason := _withheld_because(parameters, mine, theirs, bool(hidden[group]))):
            yield replace(common, reason=reason)
            continue
        value = float(estimate.values[place])
        if not isfinite(value):
            yield common
            continue
        yield _with_chance(
            comparison, parameters, estimate, place, replace(common, value=value, reason=""), judged=judged
        )


def _withheld_because(parameters: BiasParameters, mine: float, theirs: float, hidden: bool) -> str:
    least = parameters.min_group
    if mine < least:
        return f"withheld: {int(mine)} of {least} rows"
    if theirs < least:
        return f"withheld: those it is compared with have {int(theirs)} of {least} rows"
    return "withheld: by it the rows of a smaller group could be found" if hidden else ""


def _with_chance(
    comparison: Comparison, parameters: BiasParameters, estimate: Estimate, place: int, result: Result, *, judged: bool
) -> Result:
    """Return a value with its interval, the baseline's, and what its rule needs."""
    metric = estimate.metric
    old = float("nan") if estimate.baseline is None else float(estimate.baseline[place])
    result = replace(result, interval=estimate.interval(place), baseline_value=old if isfinite(old) else None)
    if not judged:
        return result
    if parameters.rule in ("interval", "file"):
        return _by_sagemaker(parameters, estimate, place, result)
    calibrating = f"{CALIBRATING}: assumes independent rows"
    if comparison.blocks_reason:
        calibrating += f"; {comparison.blocks_reason}"
    if parameters.rule == "level":
        allowed = parameters.allowed(metric.name)
        found = None if allowed is None else estimate.outside(place, allowed)
        if found is None:
            return replace(result, note="no chance can be given: too many draws are undefined")
        blocks = 0 if estimate.quiet is None else int(np.isfinite(estimate.quiet[:, place]).sum())
        note = "" if blocks >= ENOUGH_BLOCKS else calibrating
        least = parameters.min_effect.get(metric.name, 0.0)
        return replace(result, effect=found[0], min_effect=least, p_value=found[1], note=note)
    change = estimate.change(place)
    if change is None:
        return replace(result, note="no chance can be given: the baseline's value or too many draws are undefined")
    effect, p_value, by_blocks = change
    return replace(
        result,
        effect=effect,
        min_effect=_least_effect(parameters, estimate, place),
        p_value=p_value,
        chance=estimate.chance(place),
        note="" if by_blocks else calibrating,
    )


def _least_effect(parameters: BiasParameters, estimate: Estimate, place: int) -> float:
    """Return the least change that is reported: as set, or half the width of the baseline's interval."""
    given = parameters.min_effect.get(estimate.metric.name)
    interval = estimate.interval(place, baseline=True)
    if given is not None or interval is None:
        return given or 0.0
    low, high = (float(scaled(estimate.metric, np.array(end))) for end in interval)
    return (high - low) / 2 if isfinite(high - low) else 0.0


def _by_sagemaker(parameters: BiasParameters, estimate: Estimate, place: int, result: Result) -> Result:
    """Judge by one of SageMaker's two rules: farther from equal treatment, or intervals that are disjoint."""
    metric = estimate.metric
    now = float(scaled(metric, np.array(result.value)))
    before = float("nan") if result.baseline_value is None else float(scaled(metric, np.array(result.baseline_value)))
    if parameters.rule == "file":
        if not isfinite(before):
            return replace(result, note="the baseline has no value to compare with")
        worse = abs(now) > abs(before)
        return _settled(result, violated=worse, threshold=abs(before), note="SageMaker's file rule")
    own = now - NORMAL * estimate.error(place), now + NORMAL * estimate.error(place)
    allowed = parameters.ranges.get(metric.name)
    if allowed is not None:
        low, high = (float(scaled(metric, np.array(end))) for end in allowed)
    elif isfinite(before):
        error = estimate.error(place, baseline=True)
        low, high = before - NORMAL * error, before + NORMAL * error
    else:
        return replace(result, note="the baseline has no value to compare with")
    if not all(map(isfinite, (*own, low, high))):
        return replace(result, note="no interval can be had: too many draws are undefined")
    apart = own[0] > high or own[1] < low
    told = f"SageMaker's interval rule: {own[0]:.3g} to {own[1]:.3g} against {low:.3g} to {high:.3g}"
    if metric.direction is Direction.DISTANCE_FROM_ONE:
        told += " of the logarithm"
    return _settled(result, violated=apart, threshold=high if now > before or allowed else low, note=told)


def _settled(result: Result, *, violated: bool, threshold: float, note: str) -> Result:
    verdict = Verdict.VIOLATED if violated else Verdict.OK
    return replace(result, rule=Rule.SAGEMAKER, verdict=verdict, threshold=threshold, note=note)


# --- what needs rows --------------------------------------------------------------------------------------------------


def _sampled(
    comparison: Comparison, parameters: BiasParameters, window: People, metric: SampledBias
) -> Iterator[Result]:
    """Measure a metric of rows on the window's sample."""
    rows, hidden = _hidden(window, metric.needs, parameters.min_group)
    sample = sample_of(comparison, window.attribute)
    for group in window.looked_at:
        name = window.names[group]
        subject = Subject(attribute=window.attribute, group=name, reference_group=window.reference or REST)
        common = Result(
            metric=metric.name, subject=subject, reason="there is no row sample", decides=False, verdict=None,
            direction=metric.direction, n_window=int(rows[group]), by=discovery.by(metric.name),
        )  # fmt: skip
        if sample is None:
            yield common
            continue
        features, people, good = sample
        mine = people == name
        theirs = people == window.reference if window.reference is not None else (people != "") & ~mine
        chosen = mine | theirs
        if reason := _withheld_because(parameters, mine.sum(), theirs.sum(), bool(hidden[group])):
            yield replace(common, reason=reason)
            continue
        value, error = metric.value(FacetSample(features[chosen], mine[chosen], good[chosen]))
        if not isfinite(value):
            yield replace(common, reason=f"{metric.title} is not defined here: no numeric feature without gaps")
            continue
        interval = (value - NORMAL * error, value + NORMAL * error)
        note = f"on a sample of {int(chosen.sum())} rows"
        yield replace(common, value=value, reason="", interval=interval, n_window=int(mine.sum()), note=note)


def sample_of(comparison: Comparison, attribute: str) -> tuple[Counts, NDArray[np.str_], NDArray[np.bool_]] | None:
    """Return numeric features, group ("" for none) and whether favourable, of the sampled rows with a prediction.

    The attribute itself is no feature. Features with more than 5 % missing values are left out, then rows with any.
    """
    table, groups = comparison.rows(), comparison.row_groups(attribute)
    outcomes = comparison.baseline.layout.outcomes
    if table is None or groups is None or outcomes is None or not table.num_rows:
        return None
    batch = table.unify_dictionaries().combine_chunks().to_batches()[0]
    columns = []
    parts = attribute.split("*")
    for column in comparison.columns:
        usable = column.role is Role.FEATURE and column.type in (Type.NUMERIC, Type.BOOLEAN)
        if not usable or column.label in parts or column.name not in batch.schema.names:
            continue
        values = numbers_of(batch.column(column.name))
        if values is not None and np.isfinite(values).mean() >= 1 - MOST_MISSING:
            columns.append(values)
    features = np.column_stack(columns) if columns else np.empty((batch.num_rows, 0))
    fortune = fortunes(batch, "prediction", outcomes)
    kept = np.isfinite(features).all(axis=1) & (fortune != UNKNOWN)
    return features[kept], _names(groups)[kept], (fortune == FAVOURABLE)[kept]


def _names(groups: pa.Array | pa.ChunkedArray) -> NDArray[np.str_]:
    coded = codes_of(groups, pa.array([], pa.string()))
    if coded is None:
        return np.full(len(groups), "")
    return np.append(np.array([name or "" for name in coded.dictionary.to_pylist()], dtype=np.str_), "")[coded.codes]


# --- fairlearn --------------------------------------------------------------------------------------------------------


def _fairlearn(parameters: BiasParameters, window: People) -> Iterator[Result]:
    """Return fairlearn's rates of each group and its differences and ratios between the groups that are told of."""
    tables: Mapping[bool, tuple[list[str], Counts, int]] = {
        labels: _told(parameters, window, labels=labels) for labels in (False, True)
    }
    for labels, (names, cells, _) in tables.items():
        for rate, by_group in parity.rates(names, cells).items() if names else ():
            if (rate in parity.LABELLED) is not labels:
                continue
            for place, name in enumerate(names):
                if isfinite(value := by_group.get(name, float("nan"))):
                    yield Result(
                        metric=rate, subject=Subject(attribute=window.attribute, group=name), value=value,
                        decides=False, verdict=None, n_window=int(cells[place].sum()), note="computed by fairlearn",
                        direction=Direction.LOWER_IS_WORSE,
                    )  # fmt: skip
    for name in parameters.fairlearn:
        names, cells, n = tables[parity.needs_labels(name)]
        value = parity.gap(name, names, cells) if len(names) > 1 else float("nan")
        ratio = name.endswith("_ratio")
        common = Result(
            metric=name, subject=Subject(attribute=window.attribute), reason="fewer than two groups are told of, or "
            "one has no such row", decides=False, verdict=None, n_window=n, note="computed by fairlearn",
            direction=Direction.LOWER_IS_WORSE if ratio else Direction.HIGHER_IS_WORSE,
        )  # fmt: skip
        yield replace(common, value=value, reason="") if isfinite(value) else common


def _told(parameters: BiasParameters, window: People, *, labels: bool) -> tuple[list[str], Counts, int]:
    """Return the groups that are told of and their rows by label and prediction, shape (groups, 2, 2)."""
    needs = frozenset({"label", "prediction"}) if labels else frozenset({"prediction"})
    rows, hidden = _hidden(window, needs, parameters.min_group)
    places = [place for place in range(len(window.names)) if rows[place] > 0 and not hidden[place]]
    cells = window.cells.sum(axis=-3)[places]
    if labels:
        found = cells[:, :2, :2]
    else:  # labels do not matter: all rows count as one label
        found = np.zeros((len(places), 2, 2))
        found[:, 0, :] = cells[..., :2].sum(axis=1)
    return [window.names[place] for place in places], found, int(found.sum())
