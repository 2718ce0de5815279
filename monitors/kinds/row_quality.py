"""Row quality: repeated rows, outliers, stuck and vanished values, broken correlations, classes and leaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import log
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field
from scipy.special import ndtr
from scipy.stats import rankdata

from monitors.contract import Column, Comparison, Direction, Kind, Parameters, Result, Rule, Subject, Type, Verdict
from monitors.multivariate import (
    NUMBERS,
    Floats,
    Quiet,
    RowParameters,
    counts_of,
    features,
    numbers,
    quiet_blocks,
    rest_of,
    texts,
)
from monitors.null import excess, student_tail

MOST_CORRELATED = 12
"""So many numbers are compared in pairs: the first of the schema."""
FENCE = 3.0
SURE = log(1e6)


class RowQualityParameters(RowParameters):
    """Which columns are looked at and what counts."""

    min_share: float = Field(0.01, ge=0, le=1, description="Least rise of a share of rows that is reported.")
    min_correlation: float = Field(0.15, ge=0, le=2, description="Least change of a rank correlation.")
    min_class_share: float = Field(0.05, ge=0, le=1, description="Least fall of a class's share that is reported.")
    leakage: float = Field(
        0.99, gt=0.5, le=1, description="A feature that alone orders the labels with so large an AUC leaks."
    )


@dataclass(frozen=True)
class _Rows:
    """The two samples and what all checks need."""

    comparison: Comparison
    chosen: RowQualityParameters
    baseline: pa.Table
    window: pa.Table
    quiet: Quiet

    def result(self, metric: str, **more: object) -> Result:
        sizes = {"n_window": self.window.num_rows, "n_baseline": self.baseline.num_rows}
        return Result(metric=metric, **{**sizes, **more})

    def rate(self, metric: str, subject: Subject, before: Floats, now: Floats, least: float) -> Result:
        """Return the share of flagged rows, with the chance that it rose so far by itself."""
        blocks = [before[places] for places in self.quiet.blocks]
        p_value, note = excess(
            (int(before.sum()), int(now.sum())),
            (before.size, now.size),
            self.comparison.generator(metric, subject),
            block_events=np.array([int(one.sum()) for one in blocks]) if blocks else None,
            block_rows=np.array([one.size for one in blocks]) if blocks else None,
        )
        value, was = float(now.mean()), float(before.mean())
        return self.result(
            metric,
            subject=subject,
            value=value,
            baseline_value=was,
            effect=max(value - was, 0.0),
            min_effect=least,
            p_value=p_value,
            note=note,
            unit="share",
            n_window=now.size,
            n_baseline=before.size,
        )


class RowQuality(Kind):
    """What only rows show: compared with the baseline's rows, worse only, by the alarm budget; leaking is a rule."""

    name: ClassVar[str] = "row_quality"
    title: ClassVar[str] = "Row quality"
    source: ClassVar[str] = "Fisher (1935), exact test; Fisher (1915), z of a correlation; Tukey (1977), outer fences"
    told: ClassVar[tuple[str, str]] = ("checks", "failed")
    page: ClassVar[str] = "quality"
    parameters: ClassVar[type[Parameters]] = RowQualityParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return the checks of the rows as a whole, then of each column, then of pairs."""
        chosen = RowQualityParameters.model_validate(parameters.model_dump(by_alias=True))
        baseline, window = comparison.baseline_rows(), comparison.rows()
        if baseline is None or window is None:
            reason = "no rows are kept of the baseline" if baseline is None else "no row came"
            return [Result(metric="duplicate_rows", reason=reason)]
        rows = _Rows(comparison, chosen, baseline, window, quiet_blocks(comparison, baseline))
        fewest = min(baseline.num_rows, window.num_rows)
        if fewest < chosen.min_rows:
            return [rows.result("duplicate_rows", reason=f"insufficient rows: {fewest} of {chosen.min_rows}")]
        columns = features(comparison, chosen, (*NUMBERS, Type.CATEGORICAL))
        numeric = [column for column in columns if column.type is Type.NUMERIC]
        results = [*_duplicates(rows, columns), *_classes(rows)]
        for column in columns:
            results += [*_outliers(rows, column), *_stuck(rows, column), *_vanished(rows, column)]
            results += _leaks(rows, column)
        for one, other in combinations(numeric[:MOST_CORRELATED], 2):
            results += _correlation(rows, one, other)
        return results


def _duplicates(rows: _Rows, columns: Sequence[Column]) -> Iterator[Result]:
    """Yield the share of rows that repeat an earlier one in every feature, at one number of rows on both sides."""
    if not columns:
        return
    size = min(rows.baseline.num_rows, rows.window.num_rows)
    generator = rows.comparison.generator("duplicate_rows", Subject())

    def repeats(table: pa.Table) -> Floats:
        kept = table.take(pa.array(np.sort(generator.permutation(table.num_rows)[:size])))
        held = [texts(kept, column.name) for column in columns]
        seen: set[tuple[str | None, ...]] = set()
        flags = np.zeros(size)
        for place, row in enumerate(zip(*held, strict=True)):
            flags[place] = row in seen
            seen.add(row)
        return flags

    before, now = repeats(rows.baseline), repeats(rows.window)
    alone = replace(rows, quiet=Quiet((), rows.quiet.note))  # repeats are of the whole, a block has its own
    yield alone.rate("duplicate_rows", Subject(), before, now, rows.chosen.min_share)


def _classes(rows: _Rows) -> Iterator[Result]:
    """Yield how far each class fell in the labels, or in the predictions where no labels are known."""
    task = rows.comparison.task
    if task.name not in ("binary", "multiclass"):
        return
    known = [texts(table, "ground_truth") for table in (rows.baseline, rows.window)]
    if any(sum(value is not None for value in one) < rows.chosen.min_rows for one in known):
        known = [texts(table, "prediction") for table in (rows.baseline, rows.window)]
    places = [np.array([value is not None for value in one], np.bool_) for one in known]
    if min(int(one.sum()) for one in places) < rows.chosen.min_rows:
        return
    for name in task.classes or tuple(counts_of(known[0])):
        before, now = (np.array([float(value != name) for value in one if value is not None]) for one in known)
        alone = replace(rows, quiet=Quiet((), rows.quiet.note))
        fell = alone.rate("class_share", Subject(class_=name), before, now, rows.chosen.min_class_share)
        yield replace(
            fell,
            value=1.0 - float(now.mean()),
            baseline_value=1.0 - float(before.mean()),
            direction=Direction.LOWER_IS_WORSE,
        )


def _outliers(rows: _Rows, column: Column) -> Iterator[Result]:
    """Yield the share of values beyond the baseline's outer fences: three interquartile ranges from the quartiles."""
    if column.type is not Type.NUMERIC:
        return
    before, now = numbers(rows.baseline, column.name), numbers(rows.window, column.name)
    held = before[np.isfinite(before)]
    if held.size < rows.chosen.min_rows:
        return
    low, high = np.quantile(held, [0.25, 0.75])
    if high <= low:
        return
    reach = FENCE * (high - low)

    def beyond(values: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return np.asarray((values < low - reach) | (values > high + reach), dtype=np.float64)

    result = rows.rate("outliers", Subject(feature=column.label), beyond(before), beyond(now), rows.chosen.min_share)
    yield replace(
        result, note="; ".join(x for x in (result.note, f"beyond {low - reach:.4g} to {high + reach:.4g}") if x)
    )


def _stuck(rows: _Rows, column: Column) -> Iterator[Result]:
    """Yield a violation where every value is the same, which by the baseline has a chance of under one in a million."""
    before = counts_of(texts(rows.baseline, column.name))
    now = counts_of(texts(rows.window, column.name))
    count, held = sum(now.values()), sum(before.values())
    if not count or len(before) < 2:
        return
    usual = max(before.values()) / held
    stuck = len(now) == 1 and count * -log(usual) > SURE
    yield rows.result(
        "constant_column",
        subject=Subject(feature=column.label),
        value=float(stuck),
        threshold=0.0,
        rule=Rule.SCHEMA,
        verdict=Verdict.VIOLATED if stuck else Verdict.OK,
        note=f"always {next(iter(now))[:40]}" if stuck else "",
    )


def _vanished(rows: _Rows, column: Column) -> Iterator[Result]:
    """Yield the baseline's share of categories that no row has any more, with the least likely absence's chance."""
    if column.type is not Type.CATEGORICAL:
        return
    before = counts_of(texts(rows.baseline, column.name))
    now = counts_of(texts(rows.window, column.name))
    held, count = sum(before.values()), sum(now.values())
    if not held or not count:
        return
    gone = {name: times / held for name, times in before.items() if name not in now}
    # After Fisher: none of so many marked rows is among those drawn for the window
    chances = [np.exp(np.log1p(-count / (held + count)) * before[name]) for name in gone]
    yield rows.result(
        "vanished_categories",
        subject=Subject(feature=column.label),
        value=float(sum(gone.values())),
        baseline_value=0.0,
        effect=float(sum(gone.values())),
        min_effect=rows.chosen.min_share,
        p_value=min(1.0, float(min(chances)) * len(before)) if chances else 1.0,
        note=rows.quiet.note if not rows.quiet.enough else ", ".join(sorted(gone)[:10]),
        unit="share",
    )


def _leaks(rows: _Rows, column: Column) -> Iterator[Result]:
    """Yield how well a feature alone orders the labels of two classes: from ``leakage`` on it knows them."""
    task = rows.comparison.task
    if task.name != "binary" or task.positive_class is None:
        return
    label = texts(rows.window, "ground_truth")
    values = (
        numbers(rows.window, column.name)
        if column.type in NUMBERS
        else _rates(texts(rows.window, column.name), label, task.positive_class)
    )
    kept = np.array([one is not None for one in label], np.bool_) & np.isfinite(values)
    positive = np.array([one == task.positive_class for one in label], np.bool_)[kept]
    if min(int(positive.sum()), int((~positive).sum())) < 20:
        return
    above = rankdata(values[kept])[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    auc = float(above / (positive.sum() * (~positive).sum()))
    auc = max(auc, 1 - auc)
    yield rows.result(
        "target_leakage",
        subject=Subject(feature=column.label),
        value=auc,
        threshold=rows.chosen.leakage,
        rule=Rule.THRESHOLD,
        verdict=Verdict.VIOLATED if auc >= rows.chosen.leakage else Verdict.OK,
        n_window=int(kept.sum()),
        unit="AUC",
    )


def _rates(values: Sequence[str | None], label: Sequence[str | None], positive: str) -> Floats:
    """Return for each row the share of positives among the other half's rows of its category: no row knows itself."""
    found = np.full(len(values), np.nan)
    for half in (0, 1):
        counts: dict[str, list[int]] = {}
        for place, (value, one) in enumerate(zip(values, label, strict=True)):
            if place % 2 != half and value is not None and one is not None:
                held = counts.setdefault(value, [0, 0])
                held[0] += one == positive
                held[1] += 1
        for place in range(half, len(values), 2):
            held = counts.get(values[place] or "", [0, 0])
            found[place] = held[0] / held[1] if held[1] else np.nan
    return found


def _correlation(rows: _Rows, one: Column, other: Column) -> Iterator[Result]:
    """Yield the change of a rank correlation by Fisher's z, and by what blocks of the baseline do."""

    def pair(table: pa.Table) -> Floats:
        both = np.column_stack([numbers(table, one.name), numbers(table, other.name)])
        return both[np.isfinite(both).all(axis=1)]

    before, now = pair(rows.baseline), pair(rows.window)
    if min(len(before), len(now)) < rows.chosen.min_rows:
        return
    was, is_ = correlation(before), correlation(now)
    if was is None or is_ is None:
        return
    # 1.06: the variance of z of a rank correlation (Fieller, Hartley and Pearson 1957)
    error = np.sqrt(1.06 / (len(before) - 3) + 1.06 / (len(now) - 3))
    apart = np.arctanh(np.clip(is_, -0.9999, 0.9999)) - np.arctanh(np.clip(was, -0.9999, 0.9999))
    p_value = float(2 * ndtr(-abs(apart) / error))
    if rows.quiet.enough:
        whole = np.column_stack([numbers(rows.baseline, one.name), numbers(rows.baseline, other.name)])
        quiet = []
        for places in rows.quiet.blocks:
            inside, rest = (
                part[np.isfinite(part).all(axis=1)] for part in (whole[places], whole[rest_of(len(whole), places)])
            )
            a, b = correlation(inside), correlation(rest)
            if a is not None and b is not None:
                quiet.append(abs(np.arctanh(np.clip(a, -0.9999, 0.9999)) - np.arctanh(np.clip(b, -0.9999, 0.9999))))
        if len(quiet) >= 2:
            p_value = max(p_value, student_tail(abs(float(apart)), np.array(quiet)))
    yield rows.result(
        "correlation",
        subject=Subject(feature=f"{one.label} × {other.label}"),
        value=is_,
        baseline_value=was,
        effect=abs(is_ - was),
        min_effect=rows.chosen.min_correlation,
        p_value=p_value,
        direction=Direction.DISTANCE_FROM_ZERO,
        note=rows.quiet.note,
        n_window=len(now),
        n_baseline=len(before),
    )


def correlation(pairs: Floats) -> float | None:
    """Return Spearman's rank correlation of rows of two numbers; None where one of them does not vary."""
    if len(pairs) < 4 or (pairs == pairs[0]).all(axis=0).any():
        return None
    ranks = np.column_stack([rankdata(pairs[:, 0]), rankdata(pairs[:, 1])])
    return float(np.corrcoef(ranks.T)[0, 1])
