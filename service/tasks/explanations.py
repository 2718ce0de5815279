"""What the worker does for explanations: loads an uploaded model, explains rows, moves a feature over its grid."""

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from explainers import discovery, loading
from explainers.binding import arranged, bind
from explainers.contract import Bound, Manifest, NotAdditiveError, Refusal, Scale
from explainers.dependence import partial_dependence
from explainers.explanation import background_of, explain, of_class, pieces_of, scale_of
from explainers.served import served
from service.confinement import Answer, Request, TaskRefused


def libraries() -> frozenset[str]:
    """Return the modules that formats and methods are made with."""
    formats = (name for artifact in discovery.artifacts().values() for name in artifact.libraries)
    return frozenset((*formats, *(name for method in discovery.methods().values() for name in method.libraries)))


def prepare(needed: Collection[str]) -> None:
    """Import what explanations needed, for the next."""
    for name in sorted(libraries().intersection(needed)):
        import_module(name)


def look(request: Request) -> Answer:
    """Load an artifact and tell what it is: its format, columns, classes and scales."""
    try:
        bound = _bound(request)
        kind = "endpoint" if "artifact" not in request.files else loading.format_of(request.files["artifact"]).name
    except Refusal as refusal:
        raise TaskRefused(str(refusal)) from None
    model = bound.model
    return {
        "format": kind,
        "family": model.family.value,
        "columns": model.columns,
        "inputs": bound.inputs,
        "players": bound.players,
        "outputs": model.outputs,
        "other": model.other,
        "scales": [scale.value for scale in model.scales],
        "trees": model.trees,
    }, {}


def attribute(request: Request) -> Answer:
    """Explain the rows; see `explainers.explanation.explain`."""
    asked = request.document
    try:
        found = explain(
            _bound(request),
            _frame(request.tables["rows"]),
            _frame(request.tables["background"]),
            method=asked.get("method", "auto"),
            scale=asked.get("output"),
            seed=int(asked.get("seed", 0)),
            options=asked.get("options") or {},
            background_rows=int(asked.get("background_rows", 100)),
            whole=bool(asked.get("whole")),
        )
        values, base, predictions, error, classes = of_class(found, asked.get("class"))
    except (Refusal, NotAdditiveError) as refusal:
        raise TaskRefused(str(refusal)) from None
    told = found.attributions
    tables = {
        "attributions": _table(found.players, values),
        "told": pa.table({"base_value": base, "prediction": predictions, "class": classes}),
    }
    if error is not None:
        tables["errors"] = _table(found.players, error)
    several = len(found.outputs) > 1 or found.other is not None
    return {
        "method": found.method,
        "why": found.why,
        "exact": told.exact,
        "note": told.note,
        "output": found.scale.value,
        "classes": several,
        "evaluations": told.evaluations,
        "background_rows": told.background,
        "against": told.against,
        "tokens": pieces_of(found, asked.get("class")),
        "players": found.players,
    }, tables


def depend(request: Request) -> Answer:
    """Move a feature over its grid; see `explainers.dependence.partial_dependence`."""
    asked = request.document
    try:
        bound = _bound(request)
        rows = background_of(arranged(bound, _frame(request.tables["rows"])), int(asked["seed"]), int(asked["rows"]))
        scale = scale_of(bound, asked.get("output"))
        found = partial_dependence(bound, rows, asked["feature"], scale, points=int(asked["points"]))
    except Refusal as refusal:
        raise TaskRefused(str(refusal)) from None
    document: dict[str, Any] = {
        "feature": found.feature,
        "values": found.grid,
        "shares": found.shares,
        "output": scale.value,
        "classes": bound.model.outputs,
        "mean": found.mean.T.tolist(),
        "rows": len(rows),
    }
    if asked.get("each"):
        document["each"] = np.moveaxis(found.each, 2, 0).tolist()
    return document, {}


def predict(request: Request) -> Answer:
    """Predict the rows, as chances where the model tells any: a column for each output."""
    try:
        bound = _bound(request)
        scales = [scale for scale in (Scale.PROBABILITY, Scale.VALUE) if scale in bound.model.scales]
        if not scales:
            raise Refusal("the model tells neither chances nor values, so its predictions cannot be made of it")
        values = bound.predict(arranged(bound, _frame(request.tables["rows"])), scales[0])
    except Refusal as refusal:
        raise TaskRefused(str(refusal)) from None
    return {"other": bound.model.other}, {"predictions": _table(bound.model.outputs, np.asarray(values, np.float64))}


def _bound(request: Request) -> Bound:
    manifest = manifest_of(request.document.get("manifest") or {})
    artifact = request.files.get("artifact")
    if artifact is not None:
        return bind(loading.load(artifact, manifest), manifest)
    endpoint = discovery.endpoints().get(request.document["protocol"])
    if endpoint is None:
        known = ", ".join(discovery.endpoints())
        raise Refusal(f"there is no protocol {request.document['protocol']!r}; there are {known}")

    def send(body: bytes, content_type: str) -> bytes:
        _, tables = request.ask({"content_type": content_type}, {"body": pa.table({"body": [body]})})
        answer: bytes = tables["body"]["body"][0].as_py()
        return answer

    return bind(served(endpoint, send, manifest), manifest)


def manifest_of(told: Mapping[str, Any]) -> Manifest:
    """Return a stored manifest as the explainers take it."""
    return Manifest(
        columns=tuple(told["columns"]) if told.get("columns") else None,
        groups=told.get("groups") or {},
        encodings=told.get("encodings") or {},
        classes=tuple(told["classes"]) if told.get("classes") else None,
        positive_class=told.get("positive_class"),
        task=told.get("task"),
        texts=tuple(told.get("texts") or ()),
    )


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as a frame: numbers as float64, everything else as text with None for missing."""
    columns = {}
    for name in table.schema.names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            columns[name] = pd.Series(np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64))
        else:
            columns[name] = pd.Series(column.cast(pa.string()).to_pylist(), dtype=object)
    return pd.DataFrame(columns)


def _table(names: tuple[str, ...], values: np.ndarray) -> pa.Table:
    return pa.Table.from_arrays([pa.array(values[:, place]) for place in range(len(names))], names=list(names))
