"""Performance of each group: any metric of the contract, of the outcomes of one protected attribute's groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite

import numpy as np

from monitors import discovery
from monitors.contract import Comparison, Counts, Figure, Metric, Result, Subject
from monitors.resampling import figures, spread_of
from monitors.tables import Table, table_of, task_of


def performance_of_groups(
    comparison: Comparison, attribute: str, groups: Mapping[int, str], metrics: Sequence[Metric], least: int
) -> Iterator[Result]:
    """Return each figure of each group with an interval, beside the baseline's, shown and not judged.

    ``groups`` maps places among the attribute's groups to names: of others nothing is said, and of the baseline's only
    where ``least`` of its rows have a label. Figures of single classes are left out.
    """
    now = table_of(comparison.window, attribute, like=comparison.baseline)
    if now is None or now.parts()[0].ndim == _axes_of_one(comparison):
        reason = "performance is not counted by group: the model has many labels a row, or no classes"
        yield from (_silent(metric, Subject(attribute=attribute), reason) for metric in metrics)
        return
    before = table_of(comparison.baseline, attribute)
    chosen = []
    for metric in metrics:
        if task_of(now) in metric.tasks and metric.applies(now):
            chosen.append(metric)
        else:
            reason = f"{metric.title} is not for such a model" + (", or needs scores" if metric.needs_scores else "")
            yield _silent(metric, Subject(attribute=attribute), reason)
    for place, name in groups.items():
        subject = Subject(attribute=attribute, group=name)
        mine, old = _one(now, place), None if before is None else _one(before, place)
        values = figures(chosen, mine)
        old = old if old is not None and float(old.labelled) >= least else None
        earlier: Mapping[Figure, Counts] = {} if old is None else figures(chosen, old)
        spread = spread_of(mine, None, chosen, comparison.generator("performance", subject))
        for metric in chosen:
            for figure in metric.values(mine):
                value, known = float(values[figure]), float(earlier.get(figure, np.nan))
                if figure.class_ is not None:
                    continue
                common = replace(
                    _silent(metric, subject, metric.undefined),
                    metric=figure.metric,
                    n_window=int(mine.labelled),
                    n_baseline=0 if old is None else int(old.labelled),
                )
                if not isfinite(value):
                    yield common
                    continue
                yield replace(
                    common,
                    value=value,
                    reason="",
                    interval=spread.interval(figure, value, metric),
                    baseline_value=known if isfinite(known) else None,
                )


def _axes_of_one(comparison: Comparison) -> int:
    """Return how many axes the counts of all rows together have; those of groups have one more."""
    whole = table_of(comparison.window)
    return 0 if whole is None else whole.parts()[0].ndim


def _one(table: Table, place: int) -> Table:
    return table.with_parts([part[place] for part in table.parts()])


def _silent(metric: Metric, subject: Subject, reason: str) -> Result:
    return Result(
        metric=metric.name,
        subject=subject,
        reason=reason,
        direction=metric.direction,
        decides=False,
        verdict=None,
        unit=metric.unit,
        by=discovery.by(metric.name),
    )
