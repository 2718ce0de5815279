"""Plain JSON: the records in an array, the predictions in an array."""

import pandas as pd

from explainers.contract import Endpoint, Numbers
from explainers.wire import document, numbers_of, records, written


class Plain(Endpoint):
    """``{"records": [{...}]}`` in, ``{"predictions": [...]}`` or the bare array out."""

    name = "plain"
    title = "plain JSON"
    source = "Plumbline's own"

    def body(self, frame: pd.DataFrame) -> bytes:
        """Return the records."""
        return written({"records": records(frame)})

    def predictions(self, body: bytes, rows: int) -> Numbers:
        """Return the predictions."""
        return numbers_of(document(body, "predictions", list), rows)
