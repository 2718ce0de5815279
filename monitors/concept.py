"""Concept drift: whether what inputs and scores mean has changed, apart from which inputs come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from math import isfinite, sqrt
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import chdtrc, stdtr

from monitors import discovery
from monitors.columns import codes_of
from monitors.contract import Chance, Comparison, Counts, Direction, Figure, Result, Subject, Verdict
from monitors.estimation import (
    Aligned,
    Calibration,
    LossModel,
    asked_of,
    by_questions,
    drawn_calibrations,
    drawn_labels,
    errors_of,
    estimable,
    labelled_only,
)
from monitors.null import CALIBRATING, ENOUGH_BLOCKS, thinned
from monitors.performance import Labelled, PerformanceParameters, calibrating, least_effect
from monitors.resampling import LEVEL, OutcomeNull, deterioration, figures, spread_of
from monitors.tables import BinaryTable, MulticlassTable, RegressionTable, Table, task_of

DRAWS = 200
RATE_BINS = 20
WEIGHT_BINS = 16
LEAST_SHIFT = 0.02
"""Least mean distance of the label's rate given the score that is reported."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


Detector = Literal["adwin", "ddm", "eddm", "hddm_a", "hddm_w", "kswin", "page_hinkley"]


class ConceptParameters(PerformanceParameters):
    """What is compared with what the baseline's calibration expects, and which detectors watch the errors."""

    min_shift: float = Field(
        LEAST_SHIFT, ge=0, le=1, description="Least mean distance of the label's rate given the score that is reported."
    )
    detectors: list[Detector] = Field(
        ["adwin", "ddm", "eddm", "hddm_a", "hddm_w", "page_hinkley"],
        description="Sequential detectors over the stream of errors, shown, and judged by a threshold: `adwin`, `ddm`, "
        "`eddm`, `hddm_a`, `hddm_w`, `kswin` (slow) and `page_hinkley`.",
    )

    @classmethod
    def of(cls, parameters: Any) -> ConceptParameters:
        """Return the parameters of a concept drift monitor; bare ``Parameters`` mean the defaults."""
        return parameters if isinstance(parameters, cls) else cls.model_validate(parameters.model_dump())


def measure_concept(comparison: Comparison, parameters: ConceptParameters) -> list[Result]:
    """Return realised less expected performance, the shift of the calibration, and what the detectors saw."""
    labelled = Labelled.of(comparison)
    if labelled is None or labelled.baseline is None or not float(labelled.baseline.labelled):
        return [_none("the baseline has no labels to learn from")]
    if labelled.labelled < parameters.min_rows:
        return [_none(f"insufficient rows: {labelled.labelled} of {parameters.min_rows} with a label")]
    if isinstance(labelled.window, RegressionTable):
        results = _by_loss(comparison, parameters, labelled)
    else:
        results = _by_scores(comparison, parameters, labelled)
    return [*results, *_detected(comparison, parameters, labelled)]


# --- realised against expected ----------------------------------------------------------------------------------------


def _by_scores(comparison: Comparison, parameters: ConceptParameters, labelled: Labelled) -> list[Result]:
    if labelled.baseline is None or Calibration.of(labelled.baseline) is None:
        return [_none("without scores that the baseline's labels calibrate, no performance can be expected")]
    generator = comparison.generator("concept_drift", Subject())
    metrics = estimable(parameters.chosen(labelled.baseline), labelled.window)
    blocks = None if labelled.blocks is None else labelled_only(labelled.blocks)
    aligned = Aligned.of(labelled_only(labelled.window), labelled_only(labelled.baseline), blocks)
    calibration = Calibration.of(aligned.baseline)
    if calibration is None:
        return [_none("without scores that the baseline's labels calibrate, no performance can be expected")]
    realised, expected = figures(metrics, _told(aligned.window)), figures(metrics, calibration.expected(aligned.window))
    before = figures(metrics, _told(aligned.baseline))
    known = drawn_calibrations(aligned.baseline, generator, DRAWS)
    drawn = figures(metrics, drawn_labels(aligned.window, known, generator, rows=False))
    moved = {figure: values - expected[figure] for figure, values in drawn.items() if figure in expected}
    quiet, rows = None, None
    if aligned.blocks is not None:
        kept = np.flatnonzero(aligned.blocks.labelled >= parameters.min_rows)
        if kept.size >= ENOUGH_BLOCKS:
            some = aligned.blocks.with_parts([part[kept] for part in aligned.blocks.parts()])
            rows = some.labelled
            some = scored_alike(some, aligned.window)
            told, hoped = figures(metrics, _told(some)), figures(metrics, calibration.expected(some))
            quiet = {figure: told[figure] - hoped[figure] for figure in hoped if figure in told}
    still = {figure: np.zeros_like(values) for figure, values in moved.items()}
    zero = {figure: np.zeros(()) for figure in moved}
    null = OutcomeNull((moved, still), float(labelled.labelled), quiet, zero if quiet is not None else None, rows)
    around = spread_of(labelled.baseline, labelled.blocks, metrics, generator)
    note = "" if null.blocks >= ENOUGH_BLOCKS else calibrating(null.blocks, comparison, labelled.window)
    results: list[Result] = []
    for metric in metrics:
        for figure in realised:
            if figure.metric.removesuffix("_macro") != metric.name or figure.class_ is not None:
                continue
            if figure not in moved or not all(isfinite(float(part[figure])) for part in (realised, expected, before)):
                continue
            concept = float(realised[figure]) - float(expected[figure])
            covariate = float(expected[figure]) - float(before[figure])
            p_value, _ = null.p_value(figure, metric.direction, concept, 0.0)
            low, high = np.nanquantile(moved[figure], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            decides = parameters.decides(metric, figure, task_of(labelled.window))
            common = Result(
                metric=f"{figure.metric}_concept_part",
                value=concept,
                interval=(concept - float(high), concept - float(low)),
                direction=metric.direction,
                effect=float(deterioration(metric.direction, concept, 0.0)),
                min_effect=least_effect(parameters, metric, figure, around, float(before[figure])),
                p_value=p_value,
                chance=null.chance(figure),
                decides=decides,
                verdict=Verdict.NOT_MEASURED if decides else None,
                n_window=labelled.labelled,
                n_baseline=int(labelled.baseline.labelled),
                label_coverage=labelled.coverage,
                unit=metric.unit,
                note="; ".join(part for part in (note, "realised less expected of the same scores") if part),
                by=discovery.by(metric.name),
            )
            if decides:
                results.append(common)
                results.append(
                    replace(
                        common,
                        metric=f"{figure.metric}_covariate_part",
                        value=covariate,
                        interval=_covariate_interval(aligned, known, metric.values, figure, before, generator),
                        effect=None,
                        min_effect=None,
                        p_value=None,
                        decides=False,
                        verdict=None,
                        note="expected of the window's scores less the baseline's own",
                    )
                )
    results += _shifts(comparison, parameters, labelled, aligned, generator)
    return sorted(results, key=lambda result: not result.decides)


def scored_alike(blocks: Table, window: Table) -> Table:
    """Return blocks whose rows are weighted so that together their scores are distributed as the window's.

    Labels that swing by the day move a figure by other amounts where other scores come, and its sampling error is
    another: only blocks that are scored alike say how far the window's figure swings when its concept has not changed.
    Cells are weighted in at most ``WEIGHT_BINS`` groups of neighbours, so that the weights are not the window's noise.
    """
    if isinstance(blocks, BinaryTable):
        return blocks.with_parts([_weighted(blocks.cells, asked_of(window)[""].cells)])
    asked = asked_of(window)
    own = [_weighted(table.cells, asked[name].cells) for name, table in asked_of(blocks).items()]
    return blocks.with_parts([blocks.parts()[0], *own])


def _weighted(blocks: Counts, window: Counts) -> Counts:
    """Return counts of shape (blocks, label, prediction, score cell) in the window's shares of the score cells."""
    came, held = window[..., :-1].sum(axis=(0, 1)), blocks[..., :-1].sum(axis=(0, 1, 2))
    if not came.sum() or not held.sum():
        return blocks
    both = (came / came.sum() + held / held.sum()) / 2
    middle = np.cumsum(both) - both / 2
    group = np.minimum(middle * WEIGHT_BINS, WEIGHT_BINS - 1).astype(np.int64)
    now, before = (np.bincount(group, part / part.sum(), WEIGHT_BINS) for part in (came, held))
    ratio = np.divide(now, before, out=np.zeros(WEIGHT_BINS), where=before > 0)
    found = blocks.copy()
    found[..., :-1] *= ratio[group]
    return found


def _told(table: Table) -> Table:
    """Return a table in which a multi-class model is seen by its questions, as expected labels are."""
    return by_questions(table, table.asked) if isinstance(table, MulticlassTable) else table


def _covariate_interval(
    aligned: Aligned,
    known: Sequence[Calibration],
    values: Callable[[Table], Mapping[Figure, Counts]],
    figure: Figure,
    before: Mapping[Figure, Counts],
    generator: np.random.Generator,
) -> tuple[float, float] | None:
    drawn = values(drawn_labels(aligned.window, known[:200], generator, rows=True)).get(figure)
    if drawn is None or np.isnan(drawn).all():
        return None
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - float(before[figure])
    return float(low), float(high)


def _by_loss(comparison: Comparison, parameters: ConceptParameters, labelled: Labelled) -> list[Result]:
    learnt, rows = comparison.baseline_rows(), comparison.rows()
    model = None if learnt is None else LossModel.of(learnt, comparison.columns)
    if model is None or rows is None:
        return [_none("the baseline's rows have too few labels to learn the loss from")]
    error = errors_of(rows)
    known = np.isfinite(error)
    expected = model.expected(rows)
    results: list[Result] = []
    for name, losses in (("mae", np.abs(error)), ("mse", error**2)):
        rest = losses[known] - expected[name][known]
        before = float(model.losses[name].mean())
        spread = sqrt(float(rest.var()) / rest.size + float(model.left[name].var()) / model.left[name].size)
        value, covariate = float(rest.mean()), float(expected[name].mean()) - before
        error_of = sqrt(float(expected[name].var()) / expected[name].size + float(model.left[name].var()) / rest.size)
        decides = name == "mae"
        common = Result(
            metric=f"{name}_concept_part",
            value=value,
            interval=(value - 1.96 * spread, value + 1.96 * spread),
            direction=Direction.HIGHER_IS_WORSE,
            effect=value,
            min_effect=parameters.min_effect.get(name, _half_width(model.losses[name])),
            p_value=float(stdtr(max(rest.size - 1, 1), -value / max(spread, 1e-300))),
            chance=Chance(spread, float(max(rest.size - 1, 1))),
            decides=decides,
            verdict=Verdict.NOT_MEASURED if decides else None,
            n_window=int(rest.size),
            n_baseline=int(model.left[name].size),
            label_coverage=labelled.coverage,
            unit="target",
            note=f"{CALIBRATING}: assumes independent rows; realised less expected of the same inputs",
        )
        results.append(common)
        results.append(
            replace(
                common, metric=f"{name}_covariate_part", value=covariate, effect=None, min_effect=None, p_value=None,
                interval=(covariate - 1.96 * error_of, covariate + 1.96 * error_of), decides=False, verdict=None,
                note="expected of the window's inputs less the baseline's own",
            )
        )  # fmt: skip
    return sorted(results, key=lambda result: not result.decides)


def _half_width(losses: NDArray[np.float64]) -> float:
    return 1.96 * sqrt(float(losses.var()) / losses.size)


# --- the label's rate given the score ---------------------------------------------------------------------------------


def _shifts(
    comparison: Comparison,
    parameters: ConceptParameters,
    labelled: Labelled,
    aligned: Aligned,
    generator: np.random.Generator,
) -> list[Result]:
    """Return the calibration shift of a binary model, or of each class of many; the worst class decides for all."""
    found = []
    for name, window in asked_of(aligned.window).items():
        blocks = None if aligned.blocks is None else asked_of(aligned.blocks)[name]
        shift = calibration_shift(
            window.scored, asked_of(aligned.baseline)[name].scored, None if blocks is None else blocks.scored,
            generator, parameters.min_rows,
        )  # fmt: skip
        if shift is None:
            continue
        note = "" if shift.blocks >= ENOUGH_BLOCKS else calibrating(shift.blocks, comparison, window)
        found.append(
            Result(
                metric="calibration_shift",
                subject=Subject(class_=name or None),
                value=shift.distance,
                direction=Direction.HIGHER_IS_WORSE,
                effect=shift.effect,
                min_effect=parameters.min_shift,
                p_value=shift.p_value,
                n_window=labelled.labelled,
                n_baseline=0 if labelled.baseline is None else int(labelled.baseline.labelled),
                label_coverage=labelled.coverage,
                note=note,
            )
        )
    return found


@dataclass(frozen=True)
class Shift:
    """How far the label's rate given the score is from the baseline's: the mean distance, and its chance."""

    distance: float
    effect: float
    p_value: float
    blocks: int


def calibration_shift(
    window: Counts, baseline: Counts, blocks: Counts | None, generator: np.random.Generator, least: int
) -> Shift | None:
    """Return the shift of counts of shape (2, score cells), blocks (blocks, 2, score cells); None of too few rows.

    The statistic is the sum over bins of the squared difference of two rates over its variance: a chi-square that
    conditions on the score, so that a change of the scores alone does not move it. Blocks, compared at equal size, say
    how far it moves when nothing is wrong.
    """
    ends = _bins(window, baseline)
    if ends is None:
        return None
    now, base = _cut(window, ends), _cut(baseline, ends)
    statistic, freedom = _chi(now, base)
    if freedom < 1:
        return None
    p_value, count = float(chdtrc(freedom, statistic)), 0
    if blocks is not None:
        many = _cut(blocks, ends)
        many = many[many.sum(axis=(-2, -1)) >= least]
        count = int(many.shape[0])
        if count >= ENOUGH_BLOCKS:
            size = float(np.median(many.sum(axis=(-2, -1))))
            flat = many.reshape(count, -1)
            quiet = np.array([_chi(one.reshape(2, -1), base)[0] for one in thinned(flat, size, generator)])
            own = thinned(np.repeat(now.reshape(1, -1), 8, axis=0), size, generator)
            mine = np.array([_chi(one.reshape(2, -1), base)[0] for one in own])
            offset = freedom / 20
            logs = np.log(quiet + offset)
            score = (np.log(mine + offset).mean() - logs.mean()) / max(logs.std(ddof=1) * sqrt(1 + 1 / count), 1e-12)
            p_value = max(p_value, float(stdtr(count - 1, -score)))
    rows = now.sum(axis=0)
    pooled = (now[1] + base[1]) / np.maximum(rows + base.sum(axis=0), 1.0)
    gap = np.abs(now[1] / np.maximum(rows, 1.0) - base[1] / np.maximum(base.sum(axis=0), 1.0))
    weights = rows / rows.sum()
    variance = pooled * (1 - pooled) * (1 / np.maximum(rows, 1.0) + 1 / np.maximum(base.sum(axis=0), 1.0))
    distance, chance = float((weights * gap).sum()), float((weights * np.sqrt(2 * variance / np.pi)).sum())
    return Shift(distance, distance - chance, p_value, count)


def _bins(window: Counts, baseline: Counts) -> NDArray[np.int64] | None:
    """Return where bins of equal window shares end that have at least 10 rows on both sides."""
    rows, old = window.sum(axis=0), baseline.sum(axis=0)
    number = int(min(RATE_BINS, rows.sum() // 20))
    if number < 1:
        return None
    running, before = np.cumsum(rows), np.cumsum(old)
    ends: list[int] = []
    for target in rows.sum() * np.arange(1, number + 1) / number:
        end = int(np.searchsorted(running, target - 1e-9)) + 1
        start = ends[-1] if ends else 0
        have = running[end - 1] - (running[start - 1] if start else 0.0)
        had = before[end - 1] - (before[start - 1] if start else 0.0)
        if end > start and have >= 10 and had >= 10:
            ends.append(end)
    if not ends:
        return None
    ends[-1] = rows.size
    return np.array(ends)


def _cut(counts: Counts, ends: NDArray[np.int64]) -> Counts:
    return np.asarray(np.add.reduceat(counts, np.concatenate(([0], ends[:-1])), axis=-1))


def _chi(now: Counts, base: Counts) -> tuple[float, int]:
    """Return the statistic of two tables of shape (2, bins) and its degrees of freedom."""
    n, m = now.sum(axis=0), base.sum(axis=0)
    pooled = (now[1] + base[1]) / np.maximum(n + m, 1.0)
    variance = pooled * (1 - pooled) * (1 / np.maximum(n, 1.0) + 1 / np.maximum(m, 1.0))
    used = (n > 0) & (m > 0) & (variance > 0)
    gap = now[1] / np.maximum(n, 1.0) - base[1] / np.maximum(m, 1.0)
    return float((gap[used] ** 2 / variance[used]).sum()), int(used.sum())


# --- sequential detectors ---------------------------------------------------------------------------------------------


def detectors(seed: int) -> dict[str, Callable[[], Any]]:
    """Return what makes river's detectors with their defaults, by our names; those that draw have the seed."""
    from river import drift  # slow to import, needed here only

    return {
        "adwin": drift.ADWIN,
        "kswin": partial(drift.KSWIN, seed=seed),
        "page_hinkley": drift.PageHinkley,
        "ddm": drift.binary.DDM,
        "eddm": drift.binary.EDDM,
        "hddm_a": drift.binary.HDDMA,
        "hddm_w": drift.binary.HDDMW,
    }


ONLY_BINARY = ("ddm", "eddm", "hddm_a", "hddm_w")


def _detected(comparison: Comparison, parameters: ConceptParameters, labelled: Labelled) -> list[Result]:
    """Return how many changes each detector sees in the window, fed since its last one; shown without a verdict."""
    rows = comparison.answers() if parameters.detectors else None
    if rows is None or not rows.num_rows:
        return []
    numeric = isinstance(labelled.window, RegressionTable)
    errors = np.abs(errors_of(rows)) if numeric else _wrong(rows)
    moments = rows["timestamp"].cast(pa.int64()).to_numpy()
    kept = np.isfinite(errors)
    errors, moments = errors[kept], moments[kept]
    known = detectors(seed=0)
    begin = (comparison.starts_at - EPOCH) // timedelta(microseconds=1)
    results = []
    for name in parameters.detectors:
        if name not in known or (numeric and name in ONLY_BINARY):
            continue
        last = comparison.detections.get(name)
        since = None if last is None else (last - EPOCH) // timedelta(microseconds=1)
        first = 0 if since is None else int(np.searchsorted(moments, since, "right"))
        found, detector = [], known[name]()
        for moment, error in zip(moments[first:].tolist(), errors[first:].tolist(), strict=True):
            detector.update(bool(error) if name in ONLY_BINARY else error)
            if detector.drift_detected:
                found.append(moment)
        inside = [moment for moment in found if moment >= begin]
        newest = EPOCH + timedelta(microseconds=inside[-1]) if inside else None
        results.append(
            Result(
                metric=name,
                value=float(len(inside)),
                decides=False,
                verdict=None,
                detected_at=newest,
                n_window=labelled.labelled,
                n_baseline=int(errors.size) - first,
                label_coverage=labelled.coverage,
                unit="changes",
                note=f"fed {errors.size - first} labelled rows",
            )
        )
    return results


def _wrong(rows: pa.Table) -> NDArray[np.float64]:
    """Return whether each answer is wrong, NaN where label or prediction is missing."""
    label = codes_of(rows["ground_truth"], pa.array([], pa.string()))
    if label is None:
        return np.full(rows.num_rows, np.nan)
    given = codes_of(rows["prediction"], label.dictionary.cast(pa.string()))
    if given is None:
        return np.full(rows.num_rows, np.nan)
    places = np.append(given.cells, -1)[given.codes]
    there = (label.codes >= 0) & (given.codes >= 0)
    return np.where(there, (places != label.codes).astype(np.float64), np.nan)


def _none(reason: str) -> Result:
    return Result(metric="concept_drift", reason=reason)
