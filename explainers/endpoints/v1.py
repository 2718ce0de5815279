"""TensorFlow Serving's predict interface, version 1, which KServe's v1 protocol shares."""

from typing import Any

import pandas as pd

from explainers.contract import Endpoint, Numbers
from explainers.wire import document, numbers_of, records, written


class TensorFlowServing(Endpoint):
    """One object per row under ``instances``."""

    name = "v1"
    title = "TensorFlow Serving v1"
    source = "TensorFlow Serving, RESTful API"

    def body(self, frame: pd.DataFrame) -> bytes:
        """Return a predict request in the row format."""
        return written({"instances": records(frame)})

    def predictions(self, body: bytes, rows: int) -> Numbers:
        """Return ``predictions``."""
        told: list[Any] = document(body, "predictions", list)
        return numbers_of(told, rows)
