"""Comparisons made of plain columns of rows, as the service makes them of profiles."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from monitors.blocks import Blocks
from monitors.contract import Arrivals, Column, Comparison, Role, Subject, Type
from monitors.kernel import profile_batches
from monitors.layout import Layout, plan_layout
from monitors.profile import Profile

START = datetime(2026, 1, 5, tzinfo=UTC)
Rows = Mapping[str, Any]


def feature(name: str, type_: Type = Type.NUMERIC, **more: Any) -> Column:
    """Return a feature column."""
    return Column(name=f"features.{name}", role=Role.FEATURE, type=type_, **more)


def batch(columns: Sequence[Column], rows: Rows) -> pa.RecordBatch:
    """Return rows given by label as the lake holds them; a column without rows is left out."""
    held = [column for column in columns if column.label in rows]
    arrays = {
        column.name: pa.array(
            rows[column.label],
            {Type.NUMERIC: pa.float64(), Type.BOOLEAN: pa.bool_(), Type.DATETIME: pa.timestamp("us", "UTC")}.get(
                column.type, pa.string()
            ),
            from_pandas=True,
        )
        for column in held
    }
    if "faults" in rows:
        arrays["faults"] = pa.array(rows["faults"], pa.string())
    return pa.record_batch(arrays)


def profile(columns: Sequence[Column], rows: Rows, layout: Layout) -> Profile:
    """Return the profile of rows."""
    return profile_batches([batch(columns, rows)], layout)


def comparison(
    columns: Sequence[Column],
    baseline: Rows,
    window: Rows,
    *,
    layout: Layout | None = None,
    longer: Mapping[int, Rows] | None = None,
    blocks: Mapping[int, Sequence[Rows]] | None = None,
    arrivals: Arrivals | None = None,
    seed: int = 0,
    blocks_reason: str = "",
) -> Comparison:
    """Return a window compared with a baseline, both given as columns of values by label."""
    held = [column for column in columns if column.label in baseline]
    layout = layout or plan_layout([batch(held, baseline)], held)
    now = profile(held, window, layout) if any(column.label in window for column in held) else Profile.empty(layout)
    scales = {1: now} | {scale: profile(held, rows, layout) for scale, rows in (longer or {}).items()}

    def generator(metric: str, subject: Subject) -> np.random.Generator:
        return np.random.default_rng([seed, *f"{metric} {subject}".encode()])

    return Comparison(
        columns=columns,
        baseline=profile(held, baseline, layout),
        scales=scales,
        blocks={
            scale: Blocks.from_profiles([profile(held, rows, layout) for rows in parts])
            for scale, parts in (blocks or {}).items()
        },
        blocks_reason=blocks_reason,
        arrivals=arrivals or Arrivals(rows=now.rows),
        starts_at=START,
        ends_at=START + timedelta(days=1),
        generator=generator,
    )
