"""Columns of the same name brought to one type: what a table of many batches or segments needs before it is one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.lake.files import is_text
from service.words import text_of

CODES = pa.dictionary(pa.int32(), pa.string())
MOMENT = pa.timestamp("us", tz="UTC")


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _by_value(array: pa.Array, kind: pa.DataType, spell: object) -> pa.Array:
    """Cast through the distinct values, each spelt once in Python."""
    coded = array.dictionary_encode()
    values = pa.array([spell(value) for value in coded.dictionary.to_pylist()], kind)  # type: ignore[operator]
    return values.take(coded.indices)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else None
    except ValueError:
        return None
    return number if number is not None and np.isfinite(number) else None


def as_text(array: pa.Array) -> pa.Array:
    """Return a column as text in the one spelling: whole numbers without ``.0``, ``true``, ``false``."""
    if is_text(array.type):
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.string())
    if pa.types.is_floating(array.type) or pa.types.is_boolean(array.type):
        return _by_value(array, pa.string(), lambda value: None if value is None else text_of(value))
    if pa.types.is_integer(array.type):
        return array.cast(pa.string())
    return _by_value(array, pa.string(), lambda value: None if value is None else str(value))


def as_numbers(array: pa.Array) -> pa.Array:
    """Return a column as float64: text that is no number becomes missing, booleans 0 and 1, times seconds."""
    kind = array.type
    if pa.types.is_float64(kind):
        return array
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.float64())
    if pa.types.is_dictionary(kind):
        values = pa.array([_number(text) for text in array.dictionary.to_pylist()], pa.float64())
        return values.take(array.indices)
    if is_text(kind):
        return _by_value(array, pa.float64(), _number)
    if pa.types.is_timestamp(kind):
        return pc.divide(array.cast(MOMENT).cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.nulls(len(array), pa.float64())
    return array.cast(pa.float64(), safe=False)


def as_type(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column in another type; what has no meaning there becomes missing."""
    if array.type.equals(kind):
        return array
    if is_text(kind):
        text = as_text(array)
        if pa.types.is_dictionary(kind):
            return text if pa.types.is_dictionary(text.type) else text.dictionary_encode()
        return text.cast(pa.string()) if not text.type.equals(pa.string()) else text
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    if pa.types.is_floating(kind):
        return as_numbers(array).cast(kind, safe=False)
    if pa.types.is_timestamp(kind) and pa.types.is_timestamp(array.type):
        return array.cast(kind, safe=False)
    return pa.nulls(len(array), kind)


def _common(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """Return the type that holds the values of all: text holds everything, numbers hold booleans."""
    real = [kind for kind in kinds if not pa.types.is_null(kind)]
    if not real:
        return pa.string()
    if all(kind.equals(real[0]) for kind in real):
        return real[0]
    plain = [_plain(kind) for kind in real]
    if all(pa.types.is_floating(kind) or pa.types.is_integer(kind) for kind in plain):
        return pa.float64()
    if all(pa.types.is_timestamp(kind) for kind in plain):
        return MOMENT
    return CODES if any(pa.types.is_dictionary(kind) for kind in real) else pa.string()


def together(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of all tables as one: columns by name, absent ones missing, types widened where they differ."""
    parts = list(tables)
    if len(parts) == 1:
        return parts[0]
    kinds: dict[str, list[pa.DataType]] = {}
    for part in parts:
        for field in part.schema:
            kinds.setdefault(field.name, []).append(field.type)
    schema = pa.schema([(name, _common(found)) for name, found in kinds.items()])
    return pa.concat_tables([shaped(part, schema) for part in parts])


def shaped(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with exactly the columns of a schema."""
    if table.schema.equals(schema):
        return table
    names, columns = set(table.schema.names), []
    for field in schema:
        if field.name not in names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        if column.type.equals(field.type):
            columns.append(column)
        else:
            columns.append(pa.chunked_array([as_type(chunk, field.type) for chunk in column.chunks], field.type))
    return pa.table(columns, schema=schema)


def cast_columns(batch: pa.RecordBatch, kinds: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Return a batch whose columns named in ``kinds`` have those types, as dictionary codes where they are text."""
    if all(_plain(field.type).equals(_plain(kinds[field.name])) for field in batch.schema if field.name in kinds):
        return batch
    arrays, fields = [], []
    for field, array in zip(batch.schema, batch.columns, strict=True):
        kind = kinds.get(field.name)
        made = array if kind is None or _plain(kind).equals(_plain(field.type)) else as_type(array, kind)
        arrays.append(made)
        fields.append(pa.field(field.name, made.type))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def numbers_of(column: pa.ChunkedArray | pa.Array, kind: type) -> NDArray[Any]:
    """Return a column without missing values as a numpy array of some integer type; times as microseconds."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(MOMENT).cast(pa.int64())
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(flat, pa.ChunkedArray):
        flat = flat.chunk(0) if flat.num_chunks else pa.array([], flat.type)
    return np.asarray(flat.to_numpy(zero_copy_only=False)).astype(kind, copy=False)
