"""The Open Inference Protocol, version 2: KServe, MLServer, Triton, Seldon."""

from typing import Any

import pandas as pd

from explainers.contract import Endpoint, Numbers
from explainers.wire import document, numbers_of, plain, written


class OpenInference(Endpoint):
    """One tensor per column (``content_type: pd``); of several outputs the one that holds probabilities."""

    name = "v2"
    title = "Open Inference Protocol v2"
    source = "KServe, Open Inference Protocol; MLServer, Pandas DataFrame content type"

    def body(self, frame: pd.DataFrame) -> bytes:
        """Return an inference request."""
        inputs = []
        for name in frame.columns:
            numeric = pd.api.types.is_numeric_dtype(frame[name])
            inputs.append(
                {
                    "name": str(name),
                    "shape": [len(frame), 1],
                    "datatype": "FP64" if numeric else "BYTES",
                    "data": plain(frame[name]),
                    **({} if numeric else {"parameters": {"content_type": "str"}}),
                }
            )
        return written({"parameters": {"content_type": "pd"}, "inputs": inputs})

    def predictions(self, body: bytes, rows: int) -> Numbers:
        """Return the tensor of probabilities, else the first one."""
        outputs: list[Any] = document(body, "outputs", list)
        likely = [out for out in outputs if "prob" in str(out.get("name", "")).lower()]
        chosen = (likely or outputs)[0] if outputs else {}
        return numbers_of(chosen.get("data"), rows)
