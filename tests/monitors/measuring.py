"""Comparisons made of labelled rows, with the baseline's blocks and the window's buckets, as the service makes them."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from monitors.blocks import Blocks, outcomes_of
from monitors.contract import Arrivals, Comparison, Task
from monitors.layout import Layout, OutcomeLayout
from monitors.profile import Profile
from tests.monitors.labelled import columns_of, layout_of, profiles_of

START = datetime(2026, 1, 5, tzinfo=UTC)


def parts_of(rows: pa.Table, number: int) -> list[pa.Table]:
    """Cut rows into so many parts of equal size."""
    size = rows.num_rows // number
    return [rows.slice(place * size, size) for place in range(number)]


class Measuring:
    """A baseline that many windows are compared with."""

    def __init__(self, baseline: pa.Table, task: Task, *, blocks: int = 0) -> None:
        self.task = task
        self.rows = baseline
        outcomes = OutcomeLayout(task.name, task.classes, task.positive_class)
        self.layout: Layout = layout_of(baseline, outcomes)
        self.profile: Profile = profiles_of(self.layout, [baseline])[0]
        quiet = profiles_of(self.layout, parts_of(baseline, blocks)) if blocks else []
        self.blocks = {1: Blocks.from_profiles(quiet)} if quiet else {}

    def against(self, window: pa.Table, *, buckets: int = 0, seed: int = 0) -> Comparison:
        """Return a window compared with the baseline; all rows are the samples."""
        cut = profiles_of(self.layout, parts_of(window, buckets)) if buckets else []
        moments = pa.array(int(START.timestamp()) * 10**6 + np.arange(window.num_rows) * 10**6)
        answers = window.append_column("timestamp", moments.cast(pa.timestamp("us", "UTC")))
        return Comparison(
            columns=columns_of(self.rows),
            baseline=self.profile,
            scales={1: profiles_of(self.layout, [window])[0]},
            blocks=self.blocks,
            arrivals=Arrivals(rows=window.num_rows),
            starts_at=START,
            ends_at=START + timedelta(days=1),
            generator=lambda metric, subject: np.random.default_rng([seed, *f"{metric} {subject}".encode()]),
            task=self.task,
            rows=lambda: window,
            baseline_rows=lambda: self.rows,
            bucket_outcomes=lambda: outcomes_of(self.layout, [part.outcome_cells for part in cut]),
            answers=lambda: answers.filter(answers["ground_truth"].is_valid()),
        )
