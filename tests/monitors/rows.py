"""Rows of a model, of many shapes, for the tests of profiles."""

import numpy as np
import pyarrow as pa

from monitors.contract import Column, Role, Type
from monitors.layout import Layout, OutcomeLayout, plan_layout

HOUR_US = 3_600_000_000
CATEGORICAL = ("features.letter", "prediction", "ground_truth")


def mixed_rows(number: int, seed: int, hours: int = 72) -> pa.RecordBatch:
    """Return rows of a binary model: heavy tails, ties, constants, missing and infinite values, new categories."""
    rng = np.random.default_rng(seed)
    gaps = rng.normal(size=number)
    gaps[rng.random(number) < 0.05] = np.nan
    gaps[rng.random(number) < 0.01] = -np.inf
    letters = [*"abcdef", *(f"z{i}" for i in range(seed * 10, seed * 10 + 20))]
    return pa.record_batch(
        {
            "timestamp": pa.array(rng.integers(0, hours * HOUR_US, number), pa.timestamp("us", tz="UTC")),
            "features.gaps": pa.array(gaps, from_pandas=False),
            "features.tail": pa.array(rng.pareto(0.5, number), mask=rng.random(number) < 0.1),
            "features.tied": np.round(rng.normal(size=number), 2),
            "features.still": np.full(number, 3.25),
            "features.far": 1e9 + rng.normal(size=number),
            "features.letter": pa.array(rng.choice(letters, number)).dictionary_encode(),
            "features.flag": pa.array(rng.random(number) < 0.3, mask=rng.random(number) < 0.02),
            "features.text": pa.array([f"text {i}" if i % 7 else None for i in range(number)]),
            "features.seen": pa.array(rng.integers(0, 10**15, number), pa.timestamp("us", tz="UTC")),
            "score": rng.beta(2, 5, number),
            "prediction": pa.array(rng.choice(["0", "1"], number)),
            "ground_truth": pa.array(rng.choice(["0", "1", "9"], number), mask=rng.random(number) < 0.2),
            "group.sex": pa.array(rng.choice(["F", "M", "X"], number), mask=rng.random(number) < 0.1),
            "faults": pa.array(
                ['{"gaps":"non_finite","flag":"wrong_type"}' if odd < 0.02 else None for odd in rng.random(number)]
            ),
        }
    )


def mixed_columns(batch: pa.RecordBatch) -> list[Column]:
    """Return the schema of those rows."""
    types = {
        "features.flag": Type.BOOLEAN,
        "features.text": Type.TEXT,
        "features.seen": Type.DATETIME,
        **dict.fromkeys(CATEGORICAL, Type.CATEGORICAL),
    }
    roles = {"score": Role.SCORE, "prediction": Role.PREDICTION, "ground_truth": Role.GROUND_TRUTH}
    return [
        Column(name=name, role=roles.get(name, Role.FEATURE), type=types.get(name, Type.NUMERIC))
        for name in batch.schema.names
        if name.startswith("features.") or name in roles
    ]


def mixed_layout(baseline: pa.RecordBatch | None = None) -> Layout:
    """Return the layout learnt from a baseline of such rows."""
    batch = mixed_rows(5000, 1) if baseline is None else baseline
    outcomes = OutcomeLayout("binary", ("0", "1"), "1", {"sex": ("F", "M")})
    return plan_layout([batch], mixed_columns(batch), outcomes=outcomes)
