"""Bodies put into the columns of the log, without a service around them."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from service.database import microseconds
from service.ingest.columns import Builder, Built, Part
from service.ingest.formats import Format, read
from service.ingest.schemas import Feature, ModelSchema, VersionSchema

NOW = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
KEY = (1, 2)
SECRET = b"s" * 32


def schema(task: str = "binary", **features: str) -> ModelSchema:
    """Return a model with one version, whose features have these types."""
    version = VersionSchema(1, {name: Feature(kind) for name, kind in features.items()})
    return ModelSchema(1, "loans", task, active="1", versions={"1": version})


def build(
    body: object,
    form: Format = Format.JSON,
    model: ModelSchema | None = None,
    kind: str = "predictions",
    limit: int = 2**28,
) -> Built:
    """Read a body (text, bytes, or what becomes JSON) and return its columns."""
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    builder = Builder(model or schema(), kind, microseconds(NOW), KEY, SECRET)
    return builder.finish(read(data, form, "utf-8", builder, limit=limit))


def part(built: Built, kind: str = "predictions", version: str | None = "1") -> Part:
    """Return the rows of one kind and version."""
    found = [part for part in built.parts if (part.kind, part.version) == (kind, version)]
    assert len(found) == 1, [(part.kind, part.version) for part in built.parts]
    return found[0]


def rows(built: Built, kind: str = "predictions", version: str | None = "1") -> list[dict[str, Any]]:
    """Return the same rows as dictionaries."""
    found: list[dict[str, Any]] = part(built, kind, version).table.to_pylist()
    return found


def codes(built: Built) -> dict[int, str]:
    """Return the code of each refused record by its place."""
    return {row: refusal.code for refusal in built.refusals for row in refusal.rows.tolist()}


def faults(built: Built) -> set[tuple[int, str, str]]:
    """Return place, label and code of each value that is missing although it was sent."""
    return {(row, fault.label, fault.code) for fault in built.faults for row in fault.rows.tolist()}


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    """Return a table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
