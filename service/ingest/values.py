"""Values as they were sent -> one typed Arrow column: what cannot be of the type is missing, and it is said why."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.database import microseconds
from service.ingest.schemas import BOOLEAN, CATEGORICAL, DATETIME, EMBEDDING, NUMERIC, TEXT
from service.words import text_of

WRONG_TYPE, NON_FINITE = "wrong_type", "non_finite"
MOMENT = pa.timestamp("us", "UTC")
VECTOR = pa.list_(pa.float32())
TYPES = {
    NUMERIC: pa.float64(),
    CATEGORICAL: pa.string(),
    TEXT: pa.string(),
    BOOLEAN: pa.bool_(),
    DATETIME: MOMENT,
    EMBEDDING: VECTOR,
}
_WHOLE = re.compile(r"^[+-]?\d+\.0*$")
_NUMBER = r"^[ \t]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*$"
_INFINITE = r"(?i)^[ \t]*[+-]?inf(inity)?[ \t]*$"
_ABSENT = ("", "na", "n/a", "nan", "null", "none")

_FIRST, _LAST = (microseconds(datetime(year, 1, 1, tzinfo=UTC)) for year in (1, 9999))
_NUMBERS = {float, int, type(None)}

Rows = NDArray[np.int64]
NOTHING: Rows = np.empty(0, np.int64)


class Unreadable:
    """A value that JSON can spell and nothing can store, such as half of a surrogate pair."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A column of one type, and the rows whose value is missing because it was of another or not finite."""

    array: pa.Array
    wrong: Rows = field(default_factory=lambda: NOTHING)
    non_finite: Rows = field(default_factory=lambda: NOTHING)


# --- of Python's values, as JSON gives them ---------------------------------------------------------------------------


def type_of(values: Iterable[Any]) -> str | None:
    """Return the feature type that the first value that is one speaks for; none where none does."""
    for value in values:
        if isinstance(value, bool):
            return BOOLEAN
        if isinstance(value, int | float):
            return NUMERIC
        if isinstance(value, str):
            return CATEGORICAL
        if isinstance(value, list) and value and all(_is_number(part) for part in value):
            return EMBEDDING
    return None


def typed(values: Sequence[Any], wanted: str, *, plain: bool) -> Typed:
    """Return a column of a feature type; ``plain`` promises that no value is a boolean, infinite or unreadable."""
    return _OF_VALUES[wanted](values, plain)


def numbers(values: Sequence[Any], plain: bool) -> Typed:
    """Return float64; NaN and null are missing, an integer of any size is its nearest float."""
    if plain or set(map(type, values)) <= _NUMBERS:
        try:
            array = pa.array(values, pa.float64(), from_pandas=not plain)
            if plain or pc.all(pc.is_finite(array)).as_py() is not False:
                return Typed(array)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass  # something else is among them: one by one
    column = _Column()
    for row, value in enumerate(values):
        if value is None:
            column.kept.append(None)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            column.refuse(row)
        else:
            column.number(row, value)
    return column.typed(pa.float64())


def texts(values: Sequence[Any], plain: bool) -> Typed:  # noqa: ARG001 - one signature for every type
    """Return strings; numbers and booleans in their one spelling."""
    try:
        return Typed(pa.array(values, pa.string()))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass  # something else is among them: one by one
    column = _Column()
    for row, value in enumerate(values):
        if value is None or isinstance(value, str):
            column.kept.append(value)
        elif isinstance(value, float) and not math.isfinite(value):
            column.number(row, value)
        elif isinstance(value, bool | int | float):
            column.kept.append(text_of(value))
        else:
            column.refuse(row)
    return column.typed(pa.string())


def booleans(values: Sequence[Any], plain: bool) -> Typed:  # noqa: ARG001 - one signature for every type
    """Return booleans; the numbers 0 and 1 are accepted."""
    try:
        return Typed(pa.array(values, pa.bool_()))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass  # something else is among them: one by one
    column = _Column()
    for row, value in enumerate(values):
        if value is None or isinstance(value, bool):
            column.kept.append(value)
        elif isinstance(value, int | float) and value in (0, 1):
            column.kept.append(bool(value))
        elif isinstance(value, float) and not math.isfinite(value):
            column.number(row, value)
        else:
            column.refuse(row)
    return column.typed(pa.bool_())


def moments(values: Sequence[Any], plain: bool) -> Typed:  # noqa: ARG001 - one signature for every type
    """Return times in UTC of RFC 3339 texts with an offset."""
    try:
        return _tellable(pa.array(values, pa.string()).cast(MOMENT))
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        pass  # one of them is spelt otherwise: one by one
    column = _Column()
    for row, value in enumerate(values):
        moment = moment_of(value)
        if value is None or moment is not None:
            column.kept.append(moment)
        else:
            column.refuse(row)
    return column.typed(MOMENT)


def vectors(values: Sequence[Any], plain: bool) -> Typed:  # noqa: ARG001 - one signature for every type
    """Return lists of float32; one that holds anything but finite numbers is missing."""
    column = _Column()
    for row, value in enumerate(values):
        if value is None:
            column.kept.append(None)
        elif not isinstance(value, list) or not all(_is_number(part) for part in value):
            column.refuse(row)
        elif not all(abs(part) < 3.4e38 for part in value):
            column.number(row, math.inf)
        else:
            column.kept.append(value)
    return column.typed(VECTOR)


_OF_VALUES: dict[str, Callable[[Sequence[Any], bool], Typed]] = {
    NUMERIC: numbers,
    CATEGORICAL: texts,
    TEXT: texts,
    BOOLEAN: booleans,
    DATETIME: moments,
    EMBEDDING: vectors,
}


def ticks(array: pa.Array) -> Rows:
    """Return the microseconds of a column of times, as they lie in memory (anything where a value is missing)."""
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.zeros(len(array), np.int64)
    return np.frombuffer(data, np.int64, len(array), 8 * array.offset)


def _tellable(array: pa.Array) -> Typed:
    """Return times of the years 1 to 9999 only: no calendar tells others."""
    if not array.null_count:
        seen = ticks(array)
        if not len(seen) or (seen.min() >= _FIRST and seen.max() <= _LAST):
            return Typed(array)
    told = array.cast(pa.int64())
    if len(array) == array.null_count or (pc.min(told).as_py() >= _FIRST and pc.max(told).as_py() <= _LAST):
        return Typed(array)
    good = pc.and_(pc.greater_equal(told, _FIRST), pc.less_equal(told, _LAST))
    return Typed(pc.if_else(pc.fill_null(good, False), array, pa.scalar(None, MOMENT)), _rows(pc.invert(good)))


def moment_of(value: Any) -> int | None:
    """Return the microseconds since 1970 of an RFC 3339 text with an offset; none for anything else."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip().replace("z", "Z"))
        return None if moment.tzinfo is None else microseconds(moment.astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def labels(values: Sequence[Any], task: str, *, logical: bool, plain: bool = False) -> Typed:
    """Return class labels, label sets (JSON array text) or numbers (their text) in the one spelling; see `label_of`."""
    if plain and task != "multilabel":
        try:
            spelt = {value: None if value is None else label_of(value, task, logical=logical) for value in set(values)}
            return Typed(pa.array([spelt[value] for value in values], pa.string()))
        except (TypeError, pa.ArrowInvalid):
            pass  # one of them is no label: one by one
    column = _Column()
    known: dict[tuple[type, Any], Any] = {}
    for row, value in enumerate(values):
        if value is None:
            column.kept.append(None)
            continue
        try:
            text = known.get((value.__class__, value), known)
        except TypeError:  # a list is not hashable
            text = label_of(value, task, logical=logical)
        if text is known:
            text = known[value.__class__, value] = label_of(value, task, logical=logical)
        if isinstance(text, str):
            column.kept.append(text)
        elif text is None:
            column.kept.append(None)
        else:
            column.refuse(row, finite=text)
    return column.typed(pa.string())


def label_of(value: Any, task: str, *, logical: bool) -> str | bool | None:
    """Return the one spelling of a label; none for NaN, and whether the fault is its type (True) or no finite value.

    Integral numbers lose ``.0``, also in texts; booleans are 0 and 1 where the classes are.
    """
    if task == "multilabel":
        if not isinstance(value, list):
            return True
        parts = [label_of(part, "multiclass", logical=logical) for part in value]
        if not all(isinstance(part, str) for part in parts):
            return True
        return msgspec.json.encode(sorted({part for part in parts if isinstance(part, str)})).decode()
    if isinstance(value, bool):
        if task == "regression":
            return True
        return ("1" if value else "0") if logical else text_of(value)
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return False
        if math.isnan(number):
            return None
        if not math.isfinite(number):
            return False
        return text_of(number if task == "regression" else value)
    if not isinstance(value, str) or task == "regression":
        return True
    if logical and value.lower() in ("true", "false"):
        return "1" if value.lower() == "true" else "0"
    return value[: value.index(".")] if _WHOLE.match(value) else value


class _Column:
    """A column in the making, value by value."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self._wrong: list[int] = []
        self._non_finite: list[int] = []

    def refuse(self, row: int, *, finite: bool = True) -> None:
        (self._wrong if finite else self._non_finite).append(row)
        self.kept.append(None)

    def number(self, row: int, value: float) -> None:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if math.isinf(value):
            self._non_finite.append(row)
        self.kept.append(value if math.isfinite(value) else None)

    def typed(self, kind: pa.DataType) -> Typed:
        return Typed(pa.array(self.kept, kind), np.array(self._wrong, np.int64), np.array(self._non_finite, np.int64))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- of Arrow's columns, as the flat formats give them ----------------------------------------------------------------


def type_of_column(array: pa.Array, *, textual: bool) -> str | None:
    """Return the feature type of a column; ``textual`` columns (CSV) are what all their texts can be read as."""
    kind = array.type
    if textual:
        present = array.filter(pc.invert(_absent(array)))
        if not len(present):
            return None
        if pc.all(pc.or_(_matches(present, _NUMBER), _matches(present, _INFINITE))).as_py():
            return NUMERIC
        if pc.all(_matches(present, "(?i)^(true|false)$")).as_py():
            return BOOLEAN
        return CATEGORICAL
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return BOOLEAN
    if _is_numeric(kind):
        return NUMERIC
    if _is_text(kind):
        return CATEGORICAL
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return DATETIME
    if _is_vector(kind):
        return EMBEDDING
    return None


def typed_column(array: pa.Array, wanted: str, *, textual: bool) -> Typed:
    """Return a column of a feature type of an Arrow column; texts are read as values only where ``textual``."""
    if textual:
        absent = _absent(array) if wanted not in (CATEGORICAL, TEXT) else pc.fill_null(pc.equal(array, ""), True)
        array = pc.if_else(absent, pa.scalar(None, pa.string()), array)
    if wanted == NUMERIC:
        return number_column(array, textual=textual)
    if wanted in (CATEGORICAL, TEXT):
        return text_column(array)
    if wanted == BOOLEAN:
        return _boolean_column(array, textual=textual)
    if wanted == DATETIME:
        return moment_column(array)
    return _vector_column(array)


def number_column(array: pa.Array, *, textual: bool = False) -> Typed:
    """Return float64 of integers, floats and decimals; NaN is missing."""
    array = _plain(array)
    wrong = NOTHING
    if textual and _is_text(array.type):
        readable = pc.or_(_matches(array, _NUMBER), _matches(array, _INFINITE))
        wrong = _rows(pc.invert(readable))
        array = pc.if_else(readable, pc.utf8_trim_whitespace(array), pa.scalar(None, pa.string())).cast(pa.float64())
    elif not _is_numeric(array.type):
        return _refused(array, pa.float64())
    elif not pa.types.is_float64(array.type):
        array = array.cast(pa.float64(), safe=False)
    if array.null_count == 0 and np.isfinite(array.to_numpy()).all():
        return Typed(array, wrong)
    finite = pc.is_finite(array)
    infinite = _rows(pc.is_inf(array))
    return Typed(pc.if_else(pc.fill_null(finite, False), array, pa.scalar(None, pa.float64())), wrong, infinite)


def text_column(array: pa.Array) -> Typed:
    """Return strings of texts, and the one spelling of numbers and booleans."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        of_dictionary = text_column(array.dictionary)
        if len(of_dictionary.wrong) or len(of_dictionary.non_finite) or of_dictionary.array.null_count:
            return text_column(_plain(array))
        return Typed(pc.take(of_dictionary.array, array.indices))
    if pa.types.is_string(kind):
        return Typed(array)
    if _is_text(kind):
        return Typed(array.cast(pa.string()))
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return Typed(array.cast(pa.string()))
    if _is_numeric(kind):
        of_numbers = number_column(array)
        coded = of_numbers.array.dictionary_encode()
        spelt = pa.array([text_of(value) for value in coded.dictionary.to_pylist()], pa.string())
        return Typed(pc.take(spelt, coded.indices), of_numbers.wrong, of_numbers.non_finite)
    return _refused(array, pa.string())


def moment_column(array: pa.Array) -> Typed:
    """Return times in UTC of timestamps with a zone, or of RFC 3339 texts with an offset."""
    array = _plain(array)
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        if array.type.unit == "ns":
            return _tellable(array.cast(MOMENT, safe=False))
        per_unit = {"s": 1_000_000, "ms": 1_000, "us": 1}[array.type.unit]
        told = array.cast(pa.int64())
        good = pc.and_(pc.greater_equal(told, _FIRST // per_unit), pc.less_equal(told, _LAST // per_unit))
        if pc.all(good).as_py() is not False:
            return Typed(array.cast(MOMENT))
        kept = pc.if_else(pc.fill_null(good, False), array, pa.scalar(None, array.type))
        return Typed(kept.cast(MOMENT), _rows(pc.invert(good)))
    if _is_text(array.type):
        try:
            return _tellable(array.cast(pa.string()).cast(MOMENT))
        except pa.ArrowInvalid:
            return moments(array.to_pylist(), plain=False)
    return _refused(array, MOMENT)


def label_column(array: pa.Array, task: str, *, logical: bool, textual: bool) -> Typed:
    """Return labels of a column in the one spelling (see `label_of`); texts are numbers or lists where ``textual``."""
    if textual:
        array = pc.if_else(pc.fill_null(pc.equal(array, ""), True), pa.scalar(None, pa.string()), array)
    array = _plain(array)
    if task == "regression":
        of_numbers = number_column(array, textual=textual)
        coded = of_numbers.array.dictionary_encode()
        spelt = pa.array([text_of(value) for value in coded.dictionary.to_pylist()], pa.string())
        return Typed(pc.take(spelt, coded.indices), of_numbers.wrong, of_numbers.non_finite)
    if pa.types.is_integer(array.type) and task != "multilabel":
        return Typed(array.cast(pa.string()))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or task == "multilabel":
        listed = array.to_pylist()
        if textual or _is_text(array.type):
            listed = [None if text is None else _list_of(text) for text in listed]
        return labels(listed, task, logical=logical)
    coded = array.dictionary_encode()
    of_dictionary = labels(coded.dictionary.to_pylist(), task, logical=logical)
    if len(of_dictionary.wrong) or len(of_dictionary.non_finite):
        return labels(array.to_pylist(), task, logical=logical)
    return Typed(pc.take(of_dictionary.array, coded.indices))


def _list_of(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _boolean_column(array: pa.Array, *, textual: bool) -> Typed:
    array = _plain(array)
    if pa.types.is_boolean(array.type):
        return Typed(array)
    if textual and _is_text(array.type):
        truth = _matches(array, "(?i)^(true|1|1\\.0)$")
        readable = pc.or_(truth, _matches(array, "(?i)^(false|0|0\\.0)$"))
    elif _is_numeric(array.type):
        array = array.cast(pa.float64(), safe=False)
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array)
        truth = pc.equal(array, 1.0)
        readable = pc.or_(truth, pc.equal(array, 0.0))
    else:
        return _refused(array, pa.bool_())
    wrong = _rows(pc.invert(readable))
    return Typed(pc.if_else(pc.fill_null(readable, False), truth, pa.scalar(None, pa.bool_())), wrong)


def _vector_column(array: pa.Array) -> Typed:
    if not _is_vector(array.type):
        return _refused(array, VECTOR)
    return vectors(array.to_pylist(), plain=False)


def _refused(array: pa.Array, kind: pa.DataType) -> Typed:
    return Typed(pa.nulls(len(array), kind), _rows(array.is_valid()))


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _absent(array: pa.Array) -> pa.Array:
    spelt = pc.utf8_lower(pc.utf8_trim_whitespace(array))
    return pc.or_(pc.is_null(array), pc.fill_null(pc.is_in(spelt, pa.array(_ABSENT)), False))


def _matches(array: pa.Array, pattern: str) -> pa.Array:
    return pc.match_substring_regex(array, pattern)


def _rows(mask: pa.Array) -> Rows:
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)).astype(np.int64)


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_vector(kind: pa.DataType) -> bool:
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(listed and _is_numeric(kind.value_type))
