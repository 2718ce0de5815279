"""What a container behind SageMaker's InvokeEndpoint takes and answers: CSV in, CSV or JSON out."""

import pandas as pd

from explainers.contract import Endpoint, Numbers, Refusal
from explainers.wire import document, numbers_of


class SageMaker(Endpoint):
    """Rows as CSV without a header, in the order of the columns, as the built-in algorithms take them."""

    name = "sagemaker"
    title = "SageMaker InvokeEndpoint"
    source = "Amazon SageMaker, Common data formats for inference"
    content_type = "text/csv"

    def body(self, frame: pd.DataFrame) -> bytes:
        """Return the rows as CSV."""
        return bytes(frame.to_csv(header=False, index=False).encode())

    def predictions(self, body: bytes, rows: int) -> Numbers:
        """Return the numbers of each line, or of ``predictions`` (``score``, ``probabilities``, …)."""
        if body.lstrip()[:1] in (b"{", b"["):
            return numbers_of(document(body, "predictions", list), rows)
        lines = body.decode(errors="replace").strip().replace(";", ",").splitlines()
        if len(lines) == 1 and rows > 1:
            lines = lines[0].split(",")
        try:
            return numbers_of([[float(cell) for cell in line.split(",")] for line in lines], rows)
        except ValueError as error:
            raise Refusal(f"the endpoint's answer is no CSV of numbers: {error}") from None
