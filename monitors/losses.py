"""What a row's prediction cost once its label is known."""

import numpy as np
import pyarrow as pa

from monitors.contract import Task
from monitors.multivariate import Floats, numbers, texts


def row_losses(rows: pa.Table, task: Task) -> Floats | None:
    """Return the loss of each row: 1 where the class is wrong, the absolute error of a number; NaN where unknown.

    None where rows have no prediction or no label at all.
    """
    if not {"prediction", "ground_truth"} <= set(rows.column_names):
        return None
    if task.name == "regression":
        return np.abs(_as_numbers(rows, "prediction") - _as_numbers(rows, "ground_truth"))
    predicted, true = texts(rows, "prediction"), texts(rows, "ground_truth")
    return np.array(
        [np.nan if a is None or b is None else float(a != b) for a, b in zip(predicted, true, strict=True)], np.float64
    )


def _as_numbers(rows: pa.Table, name: str) -> Floats:
    kind = rows.schema.field(name).type
    if not (pa.types.is_string(kind) or pa.types.is_dictionary(kind) or pa.types.is_large_string(kind)):
        return numbers(rows, name)
    found = []
    for text in texts(rows, name):
        try:
            found.append(float(text) if text is not None else np.nan)
        except ValueError:
            found.append(np.nan)
    return np.array(found, np.float64)
