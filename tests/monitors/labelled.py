"""Labelled rows of models of each task, and their profiles, for the tests of what is measured with labels."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from monitors.contract import Column, Role, Type
from monitors.kernel import profile_batches
from monitors.layout import Layout, OutcomeLayout, plan_layout
from monitors.profile import Profile

CLASSES = ("a", "b", "c")


def binary_rows(
    number: int, seed: int, *, shift: float = 0.0, base: float = 0.0, flip: float = 0.0, unlabelled: float = 0.0
) -> pa.Table:
    """Return calibrated rows: score = expit(x), label by the score; ``shift`` moves x, ``flip`` turns labels over."""
    rng = np.random.default_rng(seed)
    x = base + 1.5 * rng.normal(size=number) + shift
    score = 1.0 / (1.0 + np.exp(-x))
    label = rng.random(number) < score
    label ^= rng.random(number) < flip
    return pa.table(
        {
            "features.x": x,
            "score": score,
            "prediction": np.where(score >= 0.5, "1", "0"),
            "ground_truth": pa.array(np.where(label, "1", "0"), mask=rng.random(number) < unlabelled),
        }
    )


def multiclass_rows(number: int, seed: int, *, flip: float = 0.0) -> pa.Table:
    """Return calibrated rows of three classes, one of them rare."""
    rng = np.random.default_rng(seed)
    raw = np.exp(rng.normal(size=(number, 3)) * 1.5 + np.array([1.0, 0.0, -2.0]))
    shares = raw / raw.sum(axis=1, keepdims=True)
    label = (rng.random(number)[:, None] > np.cumsum(shares, axis=1)).sum(axis=1).clip(0, 2)
    label = np.where(rng.random(number) < flip, rng.integers(0, 3, number), label)
    names = np.array(CLASSES)
    return pa.table(
        {f"scores.{name}": shares[:, place] for place, name in enumerate(CLASSES)}
        | {"prediction": names[shares.argmax(axis=1)], "ground_truth": names[label]}
    )


def multilabel_rows(number: int, seed: int, *, shift: float = 0.0, flip: float = 0.0) -> pa.Table:
    """Return calibrated rows that have any of three classes; what makes a class likely makes the others so too."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, 1)) + rng.normal(size=(number, 3)) + np.array([0.5, 0.0, -2.0]) + shift
    scores = 1.0 / (1.0 + np.exp(-x))
    true = (rng.random((number, 3)) < scores) ^ (rng.random((number, 3)) < flip)

    each = [json.dumps([name for place, name in enumerate(CLASSES) if code >> place & 1]) for code in range(8)]

    def texts(members: NDArray[np.bool_]) -> list[str]:
        return [each[code] for code in (members @ np.array([1, 2, 4])).tolist()]

    return pa.table(
        {f"scores.{name}": scores[:, place] for place, name in enumerate(CLASSES)}
        | {"prediction": texts(scores > 0.5), "ground_truth": texts(true)}
    )


def regression_rows(number: int, seed: int, *, off: float = 0.0, noise: float = 1.0) -> pa.Table:
    """Return rows of a price: positive, with an error that grows with it."""
    rng = np.random.default_rng(seed)
    price = np.exp(rng.normal(3.0, 0.5, number))
    return pa.table(
        {
            "features.x": price,
            "prediction": price + off,
            "ground_truth": price * (1 + 0.1 * noise * rng.normal(size=number)),
        }
    )


def columns_of(rows: pa.Table) -> list[Column]:
    """Return the schema of such rows."""
    found = []
    for name, kind in zip(rows.schema.names, rows.schema.types, strict=True):
        role = Role.SCORE if name.startswith("score") else Role.FEATURE
        role = {"prediction": Role.PREDICTION, "ground_truth": Role.GROUND_TRUTH}.get(name, role)
        if name.startswith("group."):
            continue
        found.append(
            Column(name=name, role=role, type=Type.NUMERIC if pa.types.is_floating(kind) else Type.CATEGORICAL)
        )
    return found


def layout_of(rows: pa.Table, outcomes: OutcomeLayout, bins: int = 1024) -> Layout:
    """Return the layout learnt from rows."""
    return plan_layout(rows.to_batches(), columns_of(rows), outcomes=outcomes, bins=bins)


def profiles_of(layout: Layout, parts: Sequence[pa.Table]) -> list[Profile]:
    """Return the profile of each part."""
    return [profile_batches(part.to_batches(), layout) for part in parts]
