"""A model behind an endpoint: all that is known of it is what it answers."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from explainers import links
from explainers.contract import Endpoint, Family, Manifest, Model, Numbers, Refusal, Scale

ROWS = 5_000
"""Rows of one call."""

Send = Callable[[bytes, str], bytes]
"""Sends a body of a content type to the endpoint and returns the answer's body."""


def served(endpoint: Endpoint, send: Send, manifest: Manifest) -> Model:
    """Return the endpoint as a model; its columns and its task come from the manifest."""
    if manifest.columns is None:
        raise Refusal("what the endpoint takes is not known: declare the version's schema or the manifest's columns")
    classes = manifest.classes or ()
    regression = manifest.task == "regression"

    def predict(frame: pd.DataFrame, _scale: Scale) -> Numbers:
        out = [
            endpoint.predictions(send(endpoint.body(part), endpoint.content_type), len(part))
            for part in (frame.iloc[start : start + ROWS] for start in range(0, len(frame), ROWS))
        ]
        told = np.concatenate(out)
        if regression:
            return told[:, :1]
        if len(outputs) == 1:
            return told[:, 1:] if told.shape[1] == 2 else told[:, :1]
        if told.shape[1] != len(outputs):
            raise Refusal(f"the endpoint answers {told.shape[1]} numbers a row, the model has {len(outputs)} classes")
        return told

    outputs, other, _ = links.outcome(
        classes=len(classes) if len(classes) > 2 else 0, binary=not regression and len(classes) <= 2, manifest=manifest
    )
    return Model(
        family=Family.BLACK_BOX,
        columns=manifest.columns,
        outputs=outputs,
        other=other,
        scales=(Scale.VALUE,) if regression else (Scale.PROBABILITY,),
        predict=predict,
        single=True,
        texts=frozenset(manifest.texts) & frozenset(manifest.columns),
    )
