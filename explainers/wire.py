"""What the protocols of endpoints share: rows as JSON, and answers as numbers."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd

from explainers.contract import Numbers, Refusal

NAMES = ("probabilities", "scores", "score", "probability", "prediction", "predictions", "value", "predicted_value")
"""Where an answer's object for one row keeps its numbers, best first."""


def written(told: Any) -> bytes:
    """Return a document as JSON."""
    return json.dumps(told, allow_nan=False).encode()


def plain(column: pd.Series) -> list[Any]:
    """Return a column as JSON has it: missing values are null."""
    if pd.api.types.is_numeric_dtype(column):
        return [None if math.isnan(value) else value for value in column.to_numpy(np.float64).tolist()]
    return [None if pd.isna(value) else str(value) for value in column]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as objects."""
    columns = [plain(frame[name]) for name in frame.columns]
    return [dict(zip(map(str, frame.columns), row, strict=True)) for row in zip(*columns, strict=True)]


def document(body: bytes, name: str, kind: type) -> Any:
    """Return a member of a JSON answer, or the answer itself where that is what was wanted; else Refusal."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal("the endpoint's answer is no JSON") from None
    found = told.get(name) if isinstance(told, dict) else told
    if not isinstance(found, kind):
        raise Refusal(f"the endpoint's answer has no {name!r}")
    return found


def numbers_of(told: Any, rows: int) -> Numbers:
    """Return what was told of each row, shape (rows, outputs); raises Refusal where it is not that."""
    try:
        if isinstance(told, list) and told and isinstance(told[0], dict):
            told = [_of_one(each) for each in told]
        found = np.asarray(told, dtype=np.float64)
    except (ValueError, TypeError, KeyError):
        raise Refusal("the endpoint's answer does not hold the same count of numbers for each row") from None
    if not found.size or found.size % rows:
        raise Refusal(f"the endpoint answered {found.size} numbers for {rows} rows")
    if not np.isfinite(found).all():
        raise Refusal("the endpoint answered a number that is not finite")
    return found.reshape(rows, -1)


def _of_one(told: dict[str, Any]) -> Any:
    for name in NAMES:
        if name in told:
            value = told[name]
            return list(value.values()) if isinstance(value, dict) else value
    raise KeyError
