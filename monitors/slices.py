"""Slices of a population: which rows belong to one, by conditions on columns, never by a query language.

``{"where": {"tags.region": ["EU"], "features.age": {"ge": 18, "lt": 25}}}``: every condition must hold. A condition is
a list of values, or an object of ``eq``, ``ne``, ``in``, ``not_in``, ``lt``, ``le``, ``gt``, ``ge`` and ``missing``.
``{"by": "tags.region", "at_most": 20}`` is one slice for each of the most frequent values. A missing value meets only
``{"missing": true}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from operator import ge, gt, le, lt
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

MOST_SLICES = 20
"""So many slices a model has at most, those of ``by`` counted by their ``at_most``."""
MOST_VALUES = 200
ORDERS: Mapping[str, Callable[[Any, Any], Any]] = {"lt": lt, "le": le, "gt": gt, "ge": ge}
OPERATORS = ("eq", "ne", "in", "not_in", *ORDERS, "missing")
GROUPS = ("features.", "tags.", "scores.")
ALONE = ("prediction", "score")


class SliceInvalidError(ValueError):
    """A slice that cannot be read; ``pointer`` says where, the message what would work."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer


@dataclass(frozen=True)
class Slice:
    """The rows for which every condition holds; conditions by the lake's column."""

    name: str
    where: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A name that changes when the conditions do: profiles of other rows are never taken for these."""
        digest = blake2b(json.dumps(self.where, sort_keys=True).encode(), digest_size=8).hexdigest()
        return f"{self.name[:90]}#{digest}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that conditions are on."""
        return tuple(self.where)

    def mask(self, rows: pa.Table | pa.RecordBatch) -> Mask:
        """Return which rows belong to the slice; none where a column is absent and the condition is not on that."""
        kept = np.ones(rows.num_rows, np.bool_)
        names = rows.schema.names
        for name, condition in self.where.items():
            column = rows.column(names.index(name)) if name in names else pa.nulls(rows.num_rows)
            kept &= _met(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column, condition)
        return kept

    def of(self, rows: pa.Table) -> pa.Table:
        """Return the rows that belong to the slice."""
        return rows.filter(pa.array(self.mask(rows)))


@dataclass(frozen=True)
class Declared:
    """A slice as people declare it: conditions, or one slice by each of the most frequent values of a column."""

    name: str
    where: Mapping[str, Any] | None = None
    by: str = ""
    at_most: int = MOST_SLICES

    @property
    def number(self) -> int:
        """How many slices it is at most."""
        return self.at_most if self.by else 1

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it needs."""
        return (self.by,) if self.by else tuple(self.where or ())

    def slices(self, rows: pa.Table | None) -> list[Slice]:
        """Return the slices: those by value are of the most frequent values among ``rows``, in order of the value."""
        if not self.by:
            return [Slice(self.name, dict(self.where or {}))]
        if rows is None or self.by not in rows.column_names:
            return []
        counted = pc.value_counts(_text(rows[self.by].combine_chunks()).drop_null()).to_pylist()
        frequent = sorted(counted, key=lambda one: (-one["counts"], one["values"]))[: self.at_most]
        return [
            Slice(f"{self.name}={value}", {self.by: [value]}) for value in sorted(one["values"] for one in frequent)
        ]


def declared(name: str, document: Mapping[str, Any]) -> Declared:
    """Return the slice of a document; raise SliceInvalidError."""
    if set(document) <= {"by", "at_most"} and isinstance(document.get("by"), str):
        at_most = document.get("at_most", MOST_SLICES)
        if type(at_most) is not int or not 1 <= at_most <= MOST_SLICES:
            raise SliceInvalidError("/at_most", f"at_most is a whole number from 1 to {MOST_SLICES}")
        return Declared(name, by=_column(document["by"], "/by"), at_most=at_most)
    where = document.get("where")
    if set(document) != {"where"} or not isinstance(where, Mapping) or not where:
        raise SliceInvalidError("", 'a slice is {"where": {column: condition}} or {"by": column, "at_most": number}')
    checked = {_column(key, f"/where/{key}"): _condition(one, f"/where/{key}") for key, one in where.items()}
    return Declared(name, checked)


def _column(name: object, pointer: str) -> str:
    if not isinstance(name, str) or not (name in ALONE or name.startswith(GROUPS)):
        raise SliceInvalidError(pointer, "a slice is made by features.…, tags.…, scores.…, prediction or score")
    return name


def _condition(document: object, pointer: str) -> Any:
    if isinstance(document, list):
        return _values(document, pointer)
    if not isinstance(document, Mapping) or not document:
        raise SliceInvalidError(pointer, 'a condition is a list of values or an object such as {"ge": 18, "lt": 25}')
    checked: dict[str, Any] = {}
    for operator, value in document.items():
        here = f"{pointer}/{operator}"
        if operator in ("in", "not_in"):
            checked[operator] = _values(value, here)
        elif operator in ("eq", "ne"):
            checked[operator] = _values([value], here)[0]
        elif operator in ORDERS:
            if type(value) not in (int, float) or not isfinite(value):
                raise SliceInvalidError(here, f"{operator} needs a finite number")
            checked[operator] = value
        elif operator == "missing":
            if not isinstance(value, bool):
                raise SliceInvalidError(here, "missing is true or false")
            checked[operator] = value
        else:
            raise SliceInvalidError(here, f"there is no {operator}; there are {', '.join(OPERATORS)}")
    return checked


def _values(values: object, pointer: str) -> list[Any]:
    if not isinstance(values, list) or not 1 <= len(values) <= MOST_VALUES:
        raise SliceInvalidError(pointer, f"a list of 1 to {MOST_VALUES} values")
    for value in values:
        if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not isfinite(value)):
            raise SliceInvalidError(pointer, "values are text, finite numbers, true or false")
    return list(values)


def _met(column: pa.Array, condition: Any) -> Mask:
    """Return for which values a condition holds."""
    there = np.asarray(column.is_valid())
    if isinstance(condition, list):
        return there & _among(column, condition)
    kept = np.ones(len(column), np.bool_)
    for operator, value in condition.items():
        if operator == "missing":
            kept &= there != value
        elif operator in ("eq", "in", "ne", "not_in"):
            found = _among(column, value if isinstance(value, list) else [value])
            kept &= there & (found if operator in ("eq", "in") else ~found)
        else:
            numbers = _numbers(column)
            with np.errstate(invalid="ignore"):
                kept &= there & ORDERS[operator](numbers, value)
    return kept


def _among(column: pa.Array, values: Sequence[Any]) -> Mask:
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        wanted = [float(value) for value in values if _is_number(value)]
        return np.isin(_numbers(column), np.array(wanted, dtype=np.float64))
    return np.asarray(pc.is_in(_text(column), value_set=pa.array([_spelt(value) for value in values], pa.string())))


def _text(column: pa.Array) -> pa.Array:
    """Return a column as text, dictionary codes looked up."""
    if pa.types.is_floating(column.type):
        return pa.array([None if value is None else _spelt(value) for value in column.to_pylist()], pa.string())
    return column.cast(pa.string()) if not column.type.equals(pa.string()) else column


def _numbers(column: pa.Array) -> NDArray[np.float64]:
    """Return a column as float64, NaN where it is no number."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.array([_number(text) for text in _text(column).to_pylist()], dtype=np.float64)


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else float("nan")
    except ValueError:
        return float("nan")


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float) or np.isfinite(_number(str(value)))


def _spelt(value: Any) -> str:
    """Return a value in the one spelling that text has: ``true``, and whole numbers without ``.0``."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def total(slices: Iterable[Declared]) -> int:
    """Return how many slices some declarations are at most."""
    return sum(one.number for one in slices)
