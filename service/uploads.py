"""Tables that users send as files: read by media type, and their columns brought to the names and types of the lake."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from monitors.contract import Type
from service.ingest.values import number_column
from service.lake.columns import MOMENT, as_numbers, as_text, together
from service.lake.files import is_text
from service.problems import BadRequest, Fault, MediaTypeUnknown, TooLarge, Unprocessable
from service.words import text_of

PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
KINDS: Mapping[str, str] = {
    PARQUET: PARQUET,
    "application/parquet": PARQUET,
    "application/x-parquet": PARQUET,
    ARROW: ARROW,
    "application/vnd.apache.arrow.file": ARROW,
    NDJSON: NDJSON,
    "application/jsonl": NDJSON,
    "application/ndjson": NDJSON,
    CSV: CSV,
}
MOST_CELLS = 10**9
MOST_COLUMNS = 2_000
MISSING = ["", "null", "NULL", "NaN", "nan", "N/A", "n/a", "None"]
TEXT_LENGTH = 25
"""Mean length in characters from which strings that nearly never repeat are text and not categories."""
OWN = frozenset({"prediction", "score", "ground_truth", "timestamp", "prediction_id"})
IGNORED = frozenset({"version", "subject", "received_at", "id_hash", "faults"})
_TRUE, _FALSE = frozenset({"true", "1", "t", "yes"}), frozenset({"false", "0", "f", "no"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which columns of a file play a role; None: the column of the role's own name where there is one, "": none."""

    prediction: str | None = None
    score: str | None = None
    scores: str | None = None
    ground_truth: str | None = None
    timestamp: str | None = None
    prediction_id: str | None = None
    protected: str | None = None

    def document(self) -> dict[str, str]:
        """Return those that were named."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What is known of a model before a file is read: its task, classes and threshold, and the schema's types."""

    task: str
    classes: tuple[str, ...] = ()
    positive_class: str | None = None
    decision_threshold: float = 0.5
    types: Mapping[str, Type] = field(default_factory=dict)


@dataclass(slots=True)
class Sheet:
    """A file's rows in the lake's columns; protected attributes apart, never among the features."""

    table: pa.Table
    types: dict[str, Type]
    classes: tuple[str, ...] = ()
    positive_class: str | None = None
    protected: pa.Table | None = None
    warnings: list[str] = field(default_factory=list)


def kind_of(content_type: str, head: bytes = b"") -> str:
    """Return which of the four formats a body has, by its media type, or by its first bytes where that says nothing."""
    named = content_type.partition(";")[0].strip().lower()
    if named in ("", "application/octet-stream"):
        if head[:4] == b"PAR1":
            return PARQUET
        if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
            return ARROW
    if named not in KINDS:
        raise MediaTypeUnknown(
            f"{named or 'no media type'} is not read here; send one of {PARQUET}, {CSV}, {NDJSON}, {ARROW}, "
            'or application/json with {"name", "from", "to"}'
        )
    return KINDS[named]


def read(path: Path, kind: str, limit: int) -> pa.Table:
    """Return the rows of a file; ``limit`` bounds its decoded size in bytes. What cannot be read is a 400."""
    try:
        table = _READERS[kind](path, limit)
    except pa.ArrowInvalid as error:
        raise BadRequest(f"the file cannot be read as {kind}: {_first_line(error)}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadRequest(f"the file cannot be read as {kind}: {_first_line(error)}") from error
    if table.num_columns > MOST_COLUMNS:
        raise TooLarge(f"a file may have {MOST_COLUMNS} columns, this one has {table.num_columns}")
    if len(set(table.column_names)) < table.num_columns:
        twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        raise Unprocessable(f"columns appear twice: {', '.join(twice[:10])}")
    if table.num_rows == 0:
        raise Unprocessable("the file has no rows")
    return table


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _bounded(rows: int, columns: int, size: int, limit: int) -> None:
    if rows * max(columns, 1) > MOST_CELLS or size > limit:
        raise TooLarge(f"decoded, the file is larger than {limit} bytes or {MOST_CELLS} cells", limit=limit)


def _read_parquet(path: Path, limit: int) -> pa.Table:
    file = pq.ParquetFile(path, memory_map=True)
    about = file.metadata
    size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    _bounded(about.num_rows, about.num_columns, size, limit)
    return _flat(file.read())


def _read_arrow(path: Path, limit: int) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        head = source.read(6)
        source.seek(0)
        reader = pa.ipc.open_file(source) if head == b"ARROW1" else pa.ipc.open_stream(source)
        batches: Iterable[pa.RecordBatch] = (
            (reader.get_batch(i) for i in range(reader.num_record_batches)) if head == b"ARROW1" else reader
        )
        kept, size, rows = [], 0, 0
        for batch in batches:
            batch.validate(full=True)
            size, rows = size + batch.nbytes, rows + batch.num_rows
            _bounded(rows, batch.num_columns, size, limit)
            kept.append(batch)
        return _flat(pa.Table.from_batches(kept, reader.schema))


def _read_ndjson(path: Path, limit: int) -> pa.Table:
    options = pyarrow.json.ReadOptions(block_size=max(2**20, min(path.stat().st_size, 2**28)))
    table = pyarrow.json.read_json(path, read_options=options)
    _bounded(table.num_rows, table.num_columns, table.nbytes, limit)
    flat = _flat(table)
    for place, kind in enumerate(flat.schema.types):
        if pa.types.is_timestamp(kind) and kind.tz is None:  # Arrow reads the offset and drops the word UTC
            flat = flat.set_column(place, flat.schema.names[place], flat.column(place).cast(MOMENT, safe=False))
    return flat


def _read_csv(path: Path, limit: int) -> pa.Table:
    # Arrow infers a column's type from the first block alone; reading text and deciding on the whole column does not.
    names = _csv_names(path)
    table = pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=MISSING
        ),
    )
    _bounded(table.num_rows, table.num_columns, table.nbytes, limit)
    return pa.table([_typed(column) for column in table.columns], names=table.column_names)


def _csv_names(path: Path) -> list[str]:
    with pyarrow.csv.open_csv(path) as reader:
        return list(reader.schema.names)


def _typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of text as numbers, booleans or times where all of it is."""
    if column.null_count == len(column):
        return column
    for kind in (pa.int64(), pa.float64(), pa.bool_(), MOMENT, pa.timestamp("us")):
        try:
            return column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    return column


def _flat(table: pa.Table) -> pa.Table:
    """Return a table whose nested objects have become columns with dots in their names."""
    while any(pa.types.is_struct(kind) for kind in table.schema.types):
        table = table.flatten()
    return table


_READERS: Mapping[str, Callable[[Path, int], pa.Table]] = {
    PARQUET: _read_parquet,
    ARROW: _read_arrow,
    NDJSON: _read_ndjson,
    CSV: _read_csv,
}


def sheet_of(table: pa.Table, roles: Roles, meaning: Meaning) -> Sheet:
    """Bring a file's columns to the lake's names and types; what does not fit is a 422."""
    try:
        return _sheet_of(table, roles, meaning)
    except (pa.ArrowException, OverflowError) as error:
        raise Unprocessable(f"a column has values that cannot be read in its role: {_first_line(error)}") from error


def _sheet_of(table: pa.Table, roles: Roles, meaning: Meaning) -> Sheet:
    names = _Names(table, roles, meaning.classes)
    warnings: list[str] = []
    columns: dict[str, pa.ChunkedArray] = {}
    faults = _Faults(table.num_rows)
    if names.timestamp is not None:
        columns["timestamp"] = moments(table[names.timestamp], names.timestamp, warnings)
    if names.prediction_id is not None:
        columns["prediction_id"] = _each(table[names.prediction_id], _spelt)
    classes, positive = _classes(table, names, meaning)
    spell = partial(_label, classes=classes)
    for role in ("prediction", "ground_truth"):
        name = getattr(names, role)
        if name is not None:
            numeric = meaning.task == "regression" and role == "prediction"
            columns[role] = _each(table[name], as_numbers if numeric else spell)
    if names.score is not None:
        columns["score"] = faults.numbers("score", table[names.score])
    for class_, name in names.scores.items():
        columns[f"scores.{class_}"] = faults.numbers(f"scores.{class_}", table[name])
    if names.prediction is None:
        _derive(columns, classes, positive, meaning, warnings)
    types: dict[str, Type] = {}
    for label, name in names.features.items():
        column = table[name]
        kind = meaning.types.get(label) or inferred(column)
        if kind is None:
            warnings.append(f"column {name!r} of type {column.type} is not kept")
            continue
        types[label] = kind
        columns[f"features.{label}"] = faults.column(label, column, kind)
    for name in table.column_names:
        if name.startswith(("tags.", "attributions.")):
            columns[name] = _each(table[name], _spelt if name.startswith("tags.") else as_numbers)
    if (found := faults.column_of()) is not None:
        columns["faults"] = found
    warnings += names.warnings
    warnings += _agreement(columns, positive, meaning)
    sheet = Sheet(pa.table(columns), types, classes, positive, warnings=warnings)
    if names.protected:
        sheet.protected = _protected(table, names)
    return _in_order(sheet)


def sheet_of_production(batches: Iterable[pa.RecordBatch], meaning: Meaning) -> Sheet:
    """Return rows of the lake as a sheet; they have its columns and types already."""
    parts = [pa.Table.from_batches([batch]) for batch in batches if batch.num_rows]
    table = together(parts) if parts else pa.table({})
    if table.num_rows == 0:
        raise Unprocessable("no prediction lies in this window")
    types = {
        label: kind
        for name in table.column_names
        if name.startswith("features.")
        and (kind := meaning.types.get(label := name.removeprefix("features.")) or inferred(table[name]))
    }
    left_out = ("id_hash", "received_at", "version", "subject")
    apart = [name for name in table.column_names if name.startswith("protected.")]
    protected = _documents(table, {name.removeprefix("protected."): name for name in apart}, table["prediction_id"])
    table = table.drop_columns([name for name in (*left_out, *apart) if name in table.column_names])
    sheet = Sheet(table, types, meaning.classes, meaning.positive_class)
    sheet.protected = protected if apart else None
    return _in_order(sheet)


def _in_order(sheet: Sheet) -> Sheet:
    """Sort rows by time where they have one; those without are left out, and said."""
    if "timestamp" not in sheet.table.column_names:
        return sheet
    timed = pc.is_valid(sheet.table["timestamp"])
    lost = sheet.table.num_rows - (pc.sum(timed).as_py() or 0)
    if lost:
        sheet.warnings.append(f"{lost} rows without a time are left out")
        sheet.table = sheet.table.filter(timed)
        sheet.protected = None if sheet.protected is None else sheet.protected.filter(timed)
    if sheet.table.num_rows == 0:
        raise Unprocessable("no row has a time")
    moments_us = sheet.table["timestamp"].cast(pa.int64()).to_numpy()
    if (moments_us[1:] >= moments_us[:-1]).all():
        return sheet
    order = np.argsort(moments_us, kind="stable")
    sheet.table = sheet.table.take(order)
    sheet.protected = None if sheet.protected is None else sheet.protected.take(order)
    return sheet


class _Names:
    """Which column of a file is what."""

    def __init__(self, table: pa.Table, roles: Roles, classes: Sequence[str]) -> None:
        self.there = table.column_names
        self.warnings: list[str] = []
        self.prediction = self._one("prediction", roles.prediction)
        self.score = self._one("score", roles.score)
        self.ground_truth = self._one("ground_truth", roles.ground_truth)
        self.timestamp = self._one("timestamp", roles.timestamp)
        self.prediction_id = self._one("prediction_id", roles.prediction_id)
        self.scores = self._scores(roles.scores, classes)
        self.protected = {
            name.removeprefix("protected."): name
            for name in self._several("protected", roles.protected, default="protected.*")
        }
        taken = {self.prediction, self.score, self.ground_truth, self.timestamp, self.prediction_id}
        taken |= set(self.scores.values()) | set(self.protected.values())
        self.features: dict[str, str] = {}
        for name in self.there:
            if name in taken or name.startswith(("tags.", "attributions.", "__index_level_")):
                continue  # the last is what pandas writes of a frame's index
            if name in IGNORED or name in OWN:
                self.warnings.append(f"column {name!r} has a name of the service's own and is not taken as a feature")
                continue
            label = name.removeprefix("features.")
            if not label or len(label) > 200 or label in self.features:
                raise Unprocessable(f"column {name!r} cannot be a feature: its name is empty, too long or used twice")
            self.features[label] = name

    def _one(self, role: str, wanted: str | None) -> str | None:
        if wanted == "":
            return None
        if wanted is None:
            return role if role in self.there else None
        if wanted not in self.there:
            detail = f"the file has no column {wanted!r}; it has {', '.join(map(repr, self.there[:30]))}"
            raise Unprocessable(detail, faults=[Fault(f"query:{role}", "no_such_column", detail)])
        return wanted

    def _several(self, role: str, wanted: str | None, default: str) -> list[str]:
        if wanted == "":
            return []
        found: list[str] = []
        for part in (wanted if wanted is not None else default).split(","):
            part = part.strip()
            matching = [n for n in self.there if n.startswith(part[:-1])] if part.endswith("*") else None
            if matching is None:
                name = self._one(role, part)
                matching = [] if name is None else [name]
            if not matching and wanted is not None:
                detail = f"no column of the file begins with {part[:-1]!r}"
                raise Unprocessable(detail, faults=[Fault(f"query:{role}", "no_such_column", detail)])
            found += [name for name in matching if name not in found]
        return found

    def _scores(self, wanted: str | None, classes: Sequence[str]) -> dict[str, str]:
        found = self._several("scores", wanted, default="scores.*")
        if not found:
            return {}
        prefix = "scores." if wanted is None else wanted[:-1] if wanted.endswith("*") and "," not in wanted else ""
        if not prefix and len(found) > 1:
            shared = _shared_prefix(found)
            prefix = shared[: max((shared.rfind(mark) for mark in "_.-:/ "), default=-1) + 1]
        by_class = {name.removeprefix(prefix) or name: name for name in found}
        if classes and not set(by_class) <= set(classes):
            unknown = sorted(set(by_class) - set(classes))
            raise Unprocessable(f"scores of {', '.join(unknown)}, which are not among the classes {', '.join(classes)}")
        return by_class


def _shared_prefix(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    size = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:size]


class _Faults:
    """Why values are missing, per row, as the kernel counts them."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.found: dict[int, dict[str, str]] = {}

    def note(self, label: str, mask: pa.ChunkedArray, why: str) -> None:
        """Remember the rows where the mask is true."""
        for row in np.flatnonzero(np.asarray(pc.fill_null(mask, False))):
            self.found.setdefault(int(row), {})[label] = why

    def numbers(self, label: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return a column as finite numbers."""
        if is_text(column.type):
            return self._numbers_of_text(label, column)
        made = _each(column, as_numbers)
        if not made.null_count and pc.all(pc.is_finite(made)).as_py() is not False:
            return made
        self.note(label, pc.and_(pc.is_valid(column), pc.is_null(made, nan_is_null=True)), "wrong_type")
        endless = pc.is_inf(made)
        self.note(label, endless, "non_finite")
        if pa.types.is_floating(column.type):
            self._forgive_nan(label, column)
        bad = pc.fill_null(pc.invert(pc.is_finite(made)), True)
        return pc.if_else(bad, pa.scalar(None, pa.float64()), made)

    def _numbers_of_text(self, label: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        texts = _each(column, _spelt).combine_chunks()
        absent = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), pa.array([*map(str.lower, MISSING)]))
        read = number_column(pc.if_else(absent, pa.scalar(None, pa.string()), texts), textual=True)
        for rows, why in ((read.wrong, "wrong_type"), (read.non_finite, "non_finite")):
            for row in rows:
                self.found.setdefault(int(row), {})[label] = why
        return pa.chunked_array([read.array])

    def _forgive_nan(self, label: str, column: pa.ChunkedArray) -> None:
        for row in np.flatnonzero(np.asarray(pc.fill_null(pc.is_nan(column), False))):
            about = self.found.get(int(row), {})
            if about.get(label) == "wrong_type":
                del about[label]

    def column(self, label: str, column: pa.ChunkedArray, kind: Type) -> pa.ChunkedArray:
        """Return a feature in the lake's type for ``kind``."""
        if kind is Type.NUMERIC:
            return self.numbers(label, column)
        if kind in (Type.CATEGORICAL, Type.TEXT):
            return _each(column, _spelt)
        if kind is Type.BOOLEAN:
            made = column if pa.types.is_boolean(column.type) else _each(column, _booleans)
        elif kind is Type.DATETIME:
            made = _each(column, _moments_or_missing)
        else:
            made = _each(column, _vectors)
        self.note(label, pc.and_(pc.is_valid(column), pc.is_null(made)), "wrong_type")
        return made

    def column_of(self) -> pa.ChunkedArray | None:
        """Return the column ``faults``, none where there is nothing to say."""
        texts: list[str | None] = [None] * self.rows
        for row, about in self.found.items():
            if about:
                texts[row] = json.dumps(about)
        return pa.chunked_array([pa.array(texts, pa.string())]) if any(texts) else None


def _each(column: pa.ChunkedArray, convert: Callable[[pa.Array], pa.Array]) -> pa.ChunkedArray:
    """Convert a column chunk by chunk; every conversion gives one type, whatever the values."""
    made = []
    for chunk in column.chunks or [pa.array([], column.type)]:
        if pa.types.is_decimal(chunk.type):
            chunk = chunk.cast(pa.float64())
        elif pa.types.is_date(chunk.type) and convert is as_numbers:
            chunk = chunk.cast(pa.timestamp("us"))
        made.append(convert(chunk))
    return pa.chunked_array(made)


def _spelt(array: pa.Array) -> pa.Array:
    """Return text in the one spelling; a float that is NaN is missing."""
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
    text = as_text(array)
    if pa.types.is_dictionary(text.type):
        text = text.dictionary_decode()
    return text.cast(pa.string())


def _label(array: pa.Array, classes: Sequence[str]) -> pa.Array:
    """Return class labels in the spelling of the classes: true and false are 1 and 0 where the classes are."""
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        rows = [None if row is None else json.dumps(sorted(map(text_of, row))) for row in array.to_pylist()]
        return pa.array(rows, pa.string())
    text = _spelt(array)
    if set(classes) == {"0", "1"}:
        text = pc.if_else(pc.equal(text, "true"), "1", pc.if_else(pc.equal(text, "false"), "0", text))
    return text


def _booleans(array: pa.Array) -> pa.Array:
    coded = _spelt(array).dictionary_encode()
    values = [
        True if low in _TRUE else False if low in _FALSE else None
        for low in (str(value).lower() for value in coded.dictionary.to_pylist())
    ]
    return pa.array(values, pa.bool_()).take(coded.indices)


def _moments_or_missing(array: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        naive = getattr(array.type, "tz", None) is None
        return array.cast(pa.timestamp("us")).cast(MOMENT) if naive else array.cast(MOMENT)
    coded = _spelt(array).dictionary_encode()
    values = [_moment(text) for text in coded.dictionary.to_pylist()]
    return pa.array(values, MOMENT).take(coded.indices)


def _moment(text: str) -> Any:
    for kind in (MOMENT, pa.timestamp("us")):
        try:
            return pa.scalar(text).cast(kind).cast(pa.timestamp("us")).cast(MOMENT).as_py()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    return None


def _vectors(array: pa.Array) -> pa.Array:
    try:
        return array.cast(pa.list_(pa.float32()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.nulls(len(array), pa.list_(pa.float32()))


def moments(column: pa.ChunkedArray, name: str, warnings: list[str]) -> pa.ChunkedArray:
    """Return a column of times in UTC; times without offset are taken as UTC, and said."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if is_text(kind):
        try:
            return column.cast(MOMENT)
        except pa.ArrowInvalid:
            pass
        try:
            column = column.cast(pa.timestamp("us"))
        except pa.ArrowInvalid as error:
            detail = f"column {name!r} has values that are not times: {_first_line(error)}"
            raise Unprocessable(detail, faults=[Fault("query:timestamp", "bad_time", detail)]) from error
    elif not pa.types.is_timestamp(kind) and not pa.types.is_date(kind):
        detail = f"column {name!r} has the type {kind}; times are RFC 3339 text or timestamps"
        raise Unprocessable(detail, faults=[Fault("query:timestamp", "bad_time", detail)])
    exact = getattr(column.type, "unit", "") != "ns"  # nanoseconds are cut off, seconds may lie too far away
    if getattr(column.type, "tz", None) is not None:
        return column.cast(MOMENT, safe=exact)
    warnings.append(f"the times in {name!r} have no offset and are taken as UTC")
    return column.cast(pa.timestamp("us"), safe=exact).cast(MOMENT)


def inferred(column: pa.ChunkedArray) -> Type | None:
    """Return the type that a column's values suggest; none for what cannot be monitored."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_boolean(kind):
        return Type.BOOLEAN
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return Type.NUMERIC
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Type.DATETIME
    if is_text(kind):
        present = len(column) - column.null_count
        plain = column.cast(kind) if pa.types.is_dictionary(column.type) else column
        distinct = pc.count_distinct(plain).as_py()
        length = pc.mean(pc.utf8_length(plain)).as_py() or 0.0
        return Type.TEXT if present >= 20 and distinct >= 0.9 * present and length >= TEXT_LENGTH else Type.CATEGORICAL
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        return Type.EMBEDDING if pa.types.is_floating(inner) or pa.types.is_integer(inner) else None
    return None


def _classes(table: pa.Table, names: _Names, meaning: Meaning) -> tuple[tuple[str, ...], str | None]:
    """Return the classes, declared or seen, and the positive one of a binary model."""
    if meaning.task == "regression":
        return (), None
    if meaning.classes:
        return meaning.classes, meaning.positive_class
    seen: set[str] = set(names.scores)
    for name in (names.ground_truth, names.prediction):
        if name is None:
            continue
        for label in pc.unique(_each(table[name], partial(_label, classes=()))).to_pylist():
            if label is not None:
                seen |= set(json.loads(label)) if meaning.task == "multilabel" and label[:1] == "[" else {label}
    if seen <= {"true", "false"} and seen and meaning.task == "binary":
        seen = {"true", "false"}
    if seen and seen <= {"0", "1"}:
        seen = {"0", "1"}
    if len(seen) > 1000:
        raise Unprocessable(
            f"the labels have {len(seen)} different values; is the task {meaning.task} right? Declare `classes` else"
        )
    if meaning.task == "binary" and len(seen) > 2:
        raise Unprocessable(
            f"a binary model has two classes, the labels here are {', '.join(sorted(seen)[:10])}; "
            "declare `classes` or use the task multiclass"
        )
    classes = tuple(sorted(seen, key=_natural))
    if meaning.task != "binary":
        return classes, None
    likely = next((name for name in ("1", "true", "yes", "Yes", "True", "Y") if name in seen), None)
    return classes, meaning.positive_class or likely or (classes[-1] if classes else None)


def _natural(text: str) -> tuple[float, str]:
    return (float(text), text) if re.fullmatch(r"-?\d{1,15}", text) else (float("inf"), text)


def _derive(
    columns: dict[str, pa.ChunkedArray],
    classes: Sequence[str],
    positive: str | None,
    meaning: Meaning,
    warnings: list[str],
) -> None:
    """Make the missing prediction from the score and the threshold, or from the largest of the scores."""
    if meaning.task == "binary" and "score" in columns and positive is not None and len(classes) == 2:
        other = classes[0] if classes[1] == positive else classes[1]
        above = pc.greater_equal(columns["score"], meaning.decision_threshold)
        columns["prediction"] = pc.if_else(above, positive, other)
        warnings.append(f"the prediction is {positive} where the score is at least {meaning.decision_threshold:g}")
    elif meaning.task == "multiclass":
        names = [name for name in columns if name.startswith("scores.")]
        if names:
            values = np.column_stack([np.asarray(columns[name].to_numpy(), dtype=np.float64) for name in names])
            known = np.asarray(~np.isnan(values).all(axis=1), dtype=np.bool_)
            best = np.where(known, np.nanargmax(np.where(known[:, None], values, 0.0), axis=1), 0)
            labels = [name.removeprefix("scores.") for name in names]
            made = [labels[i] if there else None for i, there in zip(best, known, strict=True)]
            columns["prediction"] = pa.chunked_array([pa.array(made, pa.string())])
            warnings.append("the prediction is the class with the largest score")


def _agreement(columns: Mapping[str, pa.ChunkedArray], positive: str | None, meaning: Meaning) -> list[str]:
    """Warn where prediction and score follow the threshold in under 95 % of the rows."""
    if meaning.task != "binary" or positive is None or not {"score", "prediction"} <= set(columns):
        return []
    said = pc.equal(columns["prediction"], positive)
    above = pc.greater_equal(columns["score"], meaning.decision_threshold)
    share = pc.mean(pc.equal(said, above).cast(pa.float64())).as_py()
    if share is None or share >= 0.95:
        return []
    return [
        f"prediction and score agree at the threshold {meaning.decision_threshold:g} in {share:.1%} of the rows; "
        f"is {positive!r} the positive class, and the threshold right?"
    ]


def _protected(table: pa.Table, names: _Names) -> pa.Table:
    ids = (
        _each(table[names.prediction_id], _spelt)
        if names.prediction_id is not None
        else pa.array([str(row) for row in range(table.num_rows)])
    )
    return _documents(table, names.protected, ids)


def _documents(table: pa.Table, columns: Mapping[str, str], ids: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Return protected columns as they are kept: an object of the values that are known per row, beside its id."""
    values = {label: _each(table[name], _spelt).to_pylist() for label, name in columns.items()}
    rows = [
        json.dumps({label: value for label, value in zip(values, row, strict=True) if value is not None})
        for row in zip(*values.values(), strict=True)
    ]
    return pa.table({"prediction_id": ids, "attributes": pa.array(rows or ["{}"] * table.num_rows, pa.string())})
