"""Rows compared without loss: profiles in which every distinct value has a cell of its own.

A kind of monitor measures such a comparison as it measures the service's own, so figures that others computed from the
rows can be had from the same functions. The size of these profiles grows with the rows: they are not for storing.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from monitors.contract import Arrivals, Column, Comparison, Subject, Task
from monitors.kernel import profile_batches
from monitors.layout import Layout, OutcomeLayout, plan_layout
from monitors.profile import Profile

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def exact_layout(columns: Sequence[Column], *tables: pa.Table, outcomes: OutcomeLayout | None = None) -> Layout:
    """Return the layout in which every distinct value that any of the tables holds has a cell of its own."""
    batches = [batch for table in tables for batch in table.to_batches()]
    return plan_layout(batches, columns, bins=None, outcomes=outcomes)


def exact_profiles(
    columns: Sequence[Column], *tables: pa.Table, outcomes: OutcomeLayout | None = None
) -> tuple[Profile, ...]:
    """Return the profile of each table in the exact layout of all of them.

    Tables have the lake's columns: ``features.age``, ``prediction``, ``score``, ``ground_truth``, ….
    """
    layout = exact_layout(columns, *tables, outcomes=outcomes)
    return tuple(profile_batches(table.to_batches(), layout) for table in tables)


def exact_comparison(
    columns: Sequence[Column],
    baseline: pa.Table,
    window: pa.Table,
    *,
    generator: Callable[[str, Subject], np.random.Generator],
    task: Task | None = None,
    outcomes: OutcomeLayout | None = None,
    starts_at: datetime = EPOCH,
    ends_at: datetime = EPOCH + timedelta(days=1),
) -> Comparison:
    """Return a window of rows and the baseline that it is compared with, both exactly; the rows are their own samples.

    ``generator(metric, subject)`` gives the chance that p-values and intervals need.
    """
    old, new = exact_profiles(columns, baseline, window, outcomes=outcomes)
    return Comparison(
        columns=columns,
        baseline=old,
        scales={1: new},
        blocks={},
        blocks_reason="rows alone have no blocks",
        arrivals=Arrivals(rows=new.rows, judged=False),
        starts_at=starts_at,
        ends_at=ends_at,
        generator=generator,
        task=task or Task(),
        rows=lambda: window,
        baseline_rows=lambda: baseline,
    )
