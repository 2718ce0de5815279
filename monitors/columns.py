"""Arrow columns as numbers and as codes of categories, whatever type they were stored in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitors.cells import spread_codes, spread_numbers

_DOUBLE, _TEXT, _CODE = pa.float64(), pa.string(), pa.int32()


@dataclass(frozen=True, slots=True)
class Coded:
    """A column as codes: ``codes`` of shape (rows,) point into ``dictionary``, -1 where there is no value.

    ``cells`` of shape (codes,) is the place of each code among the categories asked for, their number for any other
    value, and -1 for a code that is no value.
    """

    codes: NDArray[np.int32]
    dictionary: pa.Array
    cells: NDArray[np.int32]


def frozen(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a read-only view, so that compiled loops see one type whether Arrow or NumPy owns the numbers."""
    view = values.view()
    view.flags.writeable = False
    return view


def numbers_of(array: pa.Array | pa.ChunkedArray) -> NDArray[np.float64] | None:
    """Return the values as float64, NaN where there is none; None where the type has no numbers.

    Times are seconds since 1970, booleans 0 and 1, text is read as a number where it is one.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if kind == _DOUBLE:
        return _doubles(array)
    if pa.types.is_null(kind):
        return frozen(np.full(len(array), np.nan))
    if pa.types.is_dictionary(kind):
        values = numbers_of(array.dictionary)
        if values is None:
            return None
        codes = _indices(array)
        return frozen(np.where(codes >= 0, np.append(values, np.nan)[codes], np.nan))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return frozen(_parsed(array))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        stamps = array.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        return frozen(_doubles(stamps.cast(pa.float64(), safe=False)) / 1e6)
    if pa.types.is_boolean(kind):
        return _doubles(array.cast(pa.int8()).cast(pa.float64()))
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return _doubles(array.cast(_DOUBLE, safe=False))
    return None


def codes_of(array: pa.Array | pa.ChunkedArray, categories: pa.Array) -> Coded | None:
    """Return the values as codes and the codes' places among the categories; None where the type has no text.

    Numbers and booleans are compared in the one spelling of text: ``1`` for 1.0, ``true`` for True (``1`` where the
    categories know ``1`` but not ``true``).
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if pa.types.is_null(kind):
        return Coded(np.full(len(array), -1, np.int32), pa.array([], pa.string()), np.empty(0, np.int32))
    if pa.types.is_boolean(kind):
        names = ["false", "true"]
        if len(categories) and not pc.is_in(pa.array(names), value_set=categories).to_pylist()[1]:
            names = ["0", "1"] if "1" in categories.to_pylist() else names
        return _coded(array.cast(pa.int8()).cast(pa.int32()), pa.array(names), categories)
    if not pa.types.is_dictionary(kind):
        if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            return None
        array = array.dictionary_encode()
    dictionary = array.dictionary
    if not is_text(dictionary.type):
        dictionary = pa.array([_spelled(value) for value in dictionary.to_pylist()], pa.string())
    elif dictionary.type != _TEXT:
        dictionary = dictionary.cast(pa.string())
    return _coded(array.indices, dictionary, categories)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column's own type, or that of its dictionary, is text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _coded(indices: pa.Array, dictionary: pa.Array, categories: pa.Array) -> Coded:
    codes = _spread(indices)
    places = pc.index_in(dictionary, value_set=categories)
    cells = places.fill_null(len(categories)).to_numpy(zero_copy_only=False).astype(np.int32)
    if dictionary.null_count:
        cells[dictionary.is_null().to_numpy(zero_copy_only=False)] = -1
    return Coded(codes, dictionary, cells)


def _indices(array: pa.DictionaryArray) -> NDArray[np.int32]:
    return _spread(array.indices)


def _spread(indices: pa.Array) -> NDArray[np.int32]:
    """Return codes as int32, -1 where null, read-only."""
    if indices.type != _CODE:
        indices = indices.cast(pa.int32(), safe=False)
    validity, data = indices.buffers()
    codes: NDArray[np.int32] = np.empty(0, np.int32)
    if len(indices):
        codes = np.frombuffer(data, np.int32)[indices.offset : indices.offset + len(indices)]
    if indices.null_count and validity is not None:
        codes = spread_codes(codes, np.frombuffer(validity, np.uint8), indices.offset)
    view = codes.view()
    view.flags.writeable = False
    return view


def _doubles(array: pa.Array) -> NDArray[np.float64]:
    validity, data = array.buffers()
    values: NDArray[np.float64] = np.empty(0)
    if len(array):
        values = np.frombuffer(data, np.float64)[array.offset : array.offset + len(array)]
    if array.null_count and validity is not None:
        values = spread_numbers(frozen(values), np.frombuffer(validity, np.uint8), array.offset)
    return frozen(values)


def _parsed(array: pa.Array) -> NDArray[np.float64]:
    try:
        return _doubles(array.cast(pa.float64()))
    except pa.ArrowInvalid:
        return np.array([_number(text) for text in array.to_pylist()], np.float64)


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan


def _spelled(value: object) -> str | None:
    """Return the one spelling of a value as text; None for what is no value."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**63 else repr(value)
    return str(value)
