"""Bytes of a body -> records or flat columns, block by block, whatever format they came in."""

import codecs
import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from service.ingest import scan, streams, uniform
from service.ingest.columns import Record
from service.ingest.hashing import text_buffers
from service.ingest.scan import DEEP, DEPTH, KEYS, LARGE, LOGICAL, NUL, OTHER, TEXT
from service.ingest.values import Rows, Unreadable
from service.problems import BadRequest, MediaTypeUnknown, TooLarge

RECORDS = 2_000_000
"""Most records of one body."""
COLUMNS = 4_500
BATCH = 16_384


class Format(StrEnum):
    """What a body is written in."""

    JSON = "json"
    LINES = "ndjson"
    ARROW = "arrow"
    PARQUET = "parquet"
    CSV = "csv"

    @property
    def columnar(self) -> bool:
        """Whether the larger limits hold."""
        return self in (Format.ARROW, Format.PARQUET)


MEDIA_TYPES = {
    "application/json": Format.JSON,
    "text/json": Format.JSON,
    "application/x-ndjson": Format.LINES,
    "application/ndjson": Format.LINES,
    "application/jsonl": Format.LINES,
    "application/x-jsonlines": Format.LINES,
    "application/vnd.apache.arrow.stream": Format.ARROW,
    "application/vnd.apache.arrow.file": Format.ARROW,
    "application/vnd.apache.parquet": Format.PARQUET,
    "application/x-parquet": Format.PARQUET,
    "text/csv": Format.CSV,
}


def format_of(content_type: str | None) -> tuple[Format, str]:
    """Return the format and the charset that a Content-Type names; without one it is JSON in UTF-8."""
    if not content_type:
        return Format.JSON, "utf-8"
    media, _, rest = content_type.partition(";")
    found = MEDIA_TYPES.get(media.strip().lower())
    if found is None:
        readable = ", ".join(sorted(MEDIA_TYPES))
        raise MediaTypeUnknown(f"{media.strip()!r} is not read here; send one of {readable}")
    charset = "utf-8"
    for parameter in rest.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return found, charset


class Sink(Protocol):
    """Where records go: a builder of columns, or a list that waits for one."""

    @property
    def flat(self) -> bool:
        """Whether JSON records may come as flat columns too."""
        ...

    def refuse(self, rows: Rows, code: str, pointer: str, detail: str) -> None:
        """Keep out records that could not be read."""
        ...

    def count(self, code: str, number: int) -> None:
        """Remark on something that costs nobody a record."""
        ...

    def add_records(self, records: Sequence[Record], rows: Rows, *, plain: bool) -> None:
        """Take in JSON records."""
        ...

    def add_table(self, table: pa.Table, rows: Rows, *, textual: bool) -> None:
        """Take in flat columns."""
        ...


@dataclass
class Parsed:
    """Records that wait to be put into columns together with those of other requests."""

    flat: bool = False
    """Whether JSON records may come as flat columns too: reading the first costs more than a small body is worth."""
    size: int = 0
    blocks: list[tuple[Sequence[Record], Rows, bool]] = field(default_factory=list)
    tables: list[tuple[pa.Table, Rows]] = field(default_factory=list)
    refusals: list[tuple[Rows, str, str, str]] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def refuse(self, rows: Rows, code: str, pointer: str, detail: str) -> None:
        """Keep out records that could not be read."""
        self.refusals.append((rows, code, pointer, detail))

    def count(self, code: str, number: int) -> None:
        """Remark on something that costs nobody a record."""
        if number:
            self.counted[code] += number

    def add_records(self, records: Sequence[Record], rows: Rows, *, plain: bool) -> None:
        """Take in JSON records."""
        if records:
            self.blocks.append((records, rows, plain))

    def add_table(self, table: pa.Table, rows: Rows, *, textual: bool) -> None:
        """Take in flat columns, but no texts that are still to be read as values: those need a builder."""
        if textual:
            raise TypeError(f"{table.num_rows} flat rows of texts need a builder")
        self.tables.append((table, rows))


def read(body: bytes, form: Format, charset: str, sink: Sink, *, limit: int) -> int:
    """Read a body into the sink and return how many records it has; ``limit`` is of decoded bytes.

    Raises `BadRequest` where it cannot be read, `TooLarge` over a limit, `MediaTypeUnknown` for a charset.
    """
    try:
        if form is Format.ARROW:
            return _read_tables(streams.arrow(body, limit), sink, limit)
        if form is Format.PARQUET:
            return _read_tables(streams.parquet(body, limit), sink, limit)
        if charset not in ("utf-8", "utf8", "us-ascii", "ascii"):
            body = _recoded(body, charset, limit)
        if form is Format.CSV:
            return _read_csv(body, sink)
        return _read_lines(body, sink) if form is Format.LINES else _read_json(body, sink)
    except scan.Broken as broken:
        raise BadRequest(f"the body is not {form.value}: {broken}") from None
    except pa.ArrowInvalid as invalid:
        raise BadRequest(f"the body is not {form.value}: {str(invalid)[:300]}") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError, RecursionError) as failed:
        raise BadRequest(f"the body is not {form.value}: {type(failed).__name__}: {str(failed)[:300]}") from None


def _recoded(body: bytes, charset: str, limit: int) -> bytes:
    try:
        codec = codecs.lookup(charset)
        text = codec.decode(body)[0]
    except (LookupError, TypeError):
        raise MediaTypeUnknown(f"the charset {charset!r} is not known; send UTF-8") from None
    except ValueError:
        raise BadRequest(f"the body is not {charset}") from None
    if not isinstance(text, str):
        raise MediaTypeUnknown(f"the charset {charset!r} is not known; send UTF-8")
    if len(text) > limit:
        raise TooLarge(f"the body has more than {limit} characters", limit=limit)
    return text.encode(errors="replace")


# --- JSON -------------------------------------------------------------------------------------------------------------

_ONE = msgspec.json.Decoder(Record)
_MANY = msgspec.json.Decoder(list[Record])
_MEMBERS = frozenset(Record.__struct_fields__)
_BOM = b"\xef\xbb\xbf"


def _read_json(body: bytes, sink: Sink) -> int:
    if body.startswith(_BOM):
        body = body[len(_BOM) :]
    data = np.frombuffer(body, np.uint8)
    start = len(body) - len(body.lstrip(b" \t\r\n")) if body[:1] in (b" ", b"\t", b"\r", b"\n") else 0
    first = body[start : start + 1]
    if not first:
        raise BadRequest("the body is empty")
    if first == b"[":
        count = _read_alike(body, data, start + 1, sink, lines=False)
        if count is not None:
            return count
        end = scan.end_of_array(data, start)
        if end < 0 or body[end:].strip():
            raise BadRequest("the body is not JSON: the array is not closed, or something follows it")
        return _read_records(body, data, scan.ELEMENTS, start, sink)
    if first == b"{" and _take_simple(body, sink):
        return 1
    at = scan.member(data, b"records") if first == b"{" else -1
    if at < 0:
        return _read_records(body, data, scan.WHOLE, start, sink)
    end = scan.end_of_array(data, at) if body[at : at + 1] == b"[" else -1
    if end < 0:
        raise BadRequest('"records" is not an array')
    try:
        msgspec.json.decode(body[:at] + b"[]" + body[end:], type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as broken:
        raise BadRequest(f"the body is not JSON: {broken}") from None
    return _read_records(body, data, scan.ELEMENTS, at, sink)


def _take_simple(body: bytes, sink: Sink) -> bool:
    """Take in the one record of a body that is too short for any limit but that of depth; false where it needs a look.

    Most requests are one small record, and the passes that find limits and records cost more than reading it.
    """
    if len(body) > TEXT or body.count(b"{") + body.count(b"[") > DEPTH:
        return False
    if b'"records"' in body or b"\x00" in body or b"\\u0000" in body:
        return False
    try:
        record = _ONE.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    sink.add_records([record], np.zeros(1, np.int64), plain=b"true" not in body and b"false" not in body)
    return True


def _read_lines(body: bytes, sink: Sink) -> int:
    if body.startswith(_BOM):
        body = body[len(_BOM) :]
    data = np.frombuffer(body, np.uint8)
    count = _read_alike(body, data, 0, sink, lines=True)
    return _read_records(body, data, scan.LINES, 0, sink) if count is None else count


def _read_alike(body: bytes, data: NDArray[np.uint8], start: int, sink: Sink, *, lines: bool) -> int | None:
    """Read records that all have the same members, and return how many; none, and nothing read, where they have not."""
    if not sink.flat:
        return None
    blank = re.compile(rb"[ \t\r\n]*").match(body, start)
    blocks = uniform.tables(body, data, blank.end() if blank else start, lines=lines)
    if blocks is None:
        return None
    total: int = sum(block.num_rows for block in blocks)
    if total > RECORDS:
        raise TooLarge(f"a body has at most {RECORDS} records", limit=RECORDS)
    count = 0
    for block in blocks:
        sink.add_table(block, np.arange(count, count + block.num_rows, dtype=np.int64), textual=False)
        count += block.num_rows
    return total


def _read_records(body: bytes, data: NDArray[np.uint8], kind: int, start: int, sink: Sink) -> int:
    count = unreadable = 0
    for extents in scan.extents(data, kind, start):
        flags = extents.flags
        rows = np.arange(count, count + len(flags), dtype=np.int64)
        count += len(flags)
        if count > RECORDS:
            raise TooLarge(f"a body has at most {RECORDS} records", limit=RECORDS)
        faulty = flags & (DEEP | LARGE | NUL | OTHER)
        if faulty.any():
            unreadable += _refuse_unread(body, extents, rows, kind, sink)
            extents, rows = _only(extents, faulty == 0), rows[faulty == 0]
        if len(rows):
            unreadable += _read_block(body, extents, rows, kind, sink)
    if kind == scan.LINES and count and unreadable == count:
        raise BadRequest("the body is not NDJSON: no line of it is JSON")
    return count


def _only(extents: scan.Extents, kept: NDArray[np.bool_]) -> scan.Extents:
    return scan.Extents(extents.starts[kept], extents.stops[kept], extents.flags[kept])


def _refuse_unread(body: bytes, extents: scan.Extents, rows: Rows, kind: int, sink: Sink) -> int:
    """Refuse the records that are not parsed; return how many of them are no JSON at all."""
    flags = extents.flags
    other = (flags & OTHER) != 0
    if kind == scan.WHOLE and not other[0]:
        end = scan.end_of_array(np.frombuffer(body, np.uint8), int(extents.starts[0]))
        if end < 0 or body[end:].strip():
            raise BadRequest("the body is not JSON: the object is not closed, or something follows it")
    broken = np.zeros(len(rows), np.bool_)
    for at in np.flatnonzero(other)[:64]:  # enough to tell a text from a list of numbers
        if extents.stops[at] - extents.starts[at] > TEXT or flags[at] & DEEP:
            continue
        try:
            msgspec.json.decode(body[extents.starts[at] : extents.stops[at]])
        except (msgspec.DecodeError, RecursionError):
            broken[at] = _tolerant(body[extents.starts[at] : extents.stops[at]]) is _NOT_JSON
    if kind != scan.LINES and broken.any():
        at = int(np.flatnonzero(broken)[0])
        raise BadRequest(f"the body is not JSON: record {rows[at]} cannot be read")
    sink.refuse(rows[broken], "unreadable", "", "the line is not JSON")
    other &= ~broken
    sink.refuse(rows[other], "not_an_object", "", "a record is a JSON object")
    rest = ~other & ~broken
    deep = rest & ((flags & DEEP) != 0)
    sink.refuse(rows[deep], "too_deep", "", f"a record is nested at most {DEPTH} deep")
    rest &= ~deep
    large = rest & ((flags & LARGE) != 0)
    sink.refuse(rows[large], "too_large", "", f"a record has at most 1 MiB, {KEYS} members and texts of {TEXT} bytes")
    rest &= ~large
    nul = rest & ((flags & NUL) != 0)
    sink.refuse(rows[nul], "nul", "", "a text holds the character NUL")
    return int(np.count_nonzero(broken))


def _read_block(body: bytes, extents: scan.Extents, rows: Rows, kind: int, sink: Sink) -> int:
    """Parse the records of a block; return how many are no JSON at all."""
    starts, stops = extents.starts.tolist(), extents.stops.tolist()
    plain = not (extents.flags & LOGICAL).any()
    dense = len(rows) == rows[-1] - rows[0] + 1
    try:
        if kind == scan.WHOLE:
            records = [_ONE.decode(body)]
        elif kind == scan.LINES:
            lines = body[starts[0] : stops[-1]]
            if not dense:
                lines = b"\n".join([body[start:stop] for start, stop in zip(starts, stops, strict=True)])
            records = _ONE.decode_lines(lines)
        else:
            elements = body[starts[0] : stops[-1]]
            if not dense:
                elements = b",".join([body[start:stop] for start, stop in zip(starts, stops, strict=True)])
            records = _MANY.decode(b"[%b]" % elements)
        if len(records) == len(rows):
            sink.add_records(records, rows, plain=plain)
            return 0
    except (msgspec.DecodeError, RecursionError):
        pass  # something among them needs a closer look
    return _read_singly([body[start:stop] for start, stop in zip(starts, stops, strict=True)], rows, kind, sink)


def _read_singly(texts: Sequence[bytes], rows: Rows, kind: int, sink: Sink) -> int:
    records: list[Record] = []
    kept: list[int] = []
    unreadable: list[int] = []
    for row, text in zip(rows.tolist(), texts, strict=True):
        try:
            record = _ONE.decode(text)
        except (msgspec.DecodeError, RecursionError):
            value = _tolerant(text)
            if value is _NOT_JSON:
                if kind != scan.LINES:
                    raise BadRequest(f"the body is not JSON: record {row} cannot be read") from None
                unreadable.append(row)
                continue
            record = Record(**{name: part for name, part in value.items() if name in _MEMBERS})
            sink.count("members_not_stored", sum(name not in _MEMBERS for name in value))
        records.append(record)
        kept.append(row)
    sink.refuse(np.array(unreadable, np.int64), "unreadable", "", "the line is not JSON")
    sink.add_records(records, np.array(kept, np.int64), plain=False)
    return len(unreadable)


_NOT_JSON = object()


def _tolerant(text: bytes) -> Any:
    """Read what is JSON but for NaN, Infinity, numbers beyond float64 and halves of surrogate pairs."""
    try:
        return _readable(json.loads(text.decode(), parse_constant=float, parse_int=_integer))
    except (ValueError, RecursionError):
        return _NOT_JSON


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 310 else math.copysign(math.inf, -1 if digits[0] == "-" else 1)


def _readable(value: Any) -> Any:
    """Put `Unreadable` where a text cannot be stored; the depth was bounded before."""
    if isinstance(value, str):
        return value if _encodes(value) else Unreadable()
    if isinstance(value, list):
        return [_readable(part) for part in value]
    if isinstance(value, dict):
        return {name: _readable(part) for name, part in value.items() if _encodes(name)}
    return value


def _encodes(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


# --- flat formats -----------------------------------------------------------------------------------------------------


def _read_tables(tables: Iterator[pa.Table], sink: Sink, limit: int) -> int:
    count = size = 0
    for table in tables:
        count += table.num_rows
        size += table.nbytes
        if count > RECORDS:
            raise TooLarge(f"a body has at most {RECORDS} records", limit=RECORDS)
        if size > limit:
            raise TooLarge(f"the decoded body has more than {limit} bytes", limit=limit)
        rows = np.arange(count - table.num_rows, count, dtype=np.int64)
        _add_flat(_flat(table), rows, sink, textual=False)
    return count


def _flat(table: pa.Table) -> pa.Table:
    """Return the table with the members of struct columns as columns of their own: ``features.age``."""
    for _ in range(2):
        if any(pa.types.is_struct(column.type) for column in table.columns):
            table = table.flatten()
    names = table.column_names
    if len(names) > COLUMNS:
        raise TooLarge(f"a body has at most {COLUMNS} columns", limit=COLUMNS)
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise BadRequest(f"the column {twice[0]!r} comes twice")
    return table


def _add_flat(table: pa.Table, rows: Rows, sink: Sink, *, textual: bool) -> None:
    refused = np.zeros(table.num_rows, np.bool_)
    for column in table.columns:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            large, nul = _unfit_texts(column)
            for unfit, code, detail in (
                (large, "too_large", f"a text has at most {TEXT} bytes"),
                (nul, "nul", "a text holds the character NUL"),
            ):
                if unfit is not None:
                    at = np.flatnonzero(unfit & ~refused)
                    refused[at] = True
                    sink.refuse(rows[at], code, "", detail)
    if refused.any():
        table, rows = table.filter(pa.array(~refused)), rows[~refused]
    sink.add_table(table, rows, textual=textual)


def _unfit_texts(column: pa.ChunkedArray) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """Return the rows whose text is too long, and those whose text holds NUL; none where no row is."""
    longest = 0
    holds_nul = False
    for chunk in column.chunks:
        data, offsets = text_buffers(chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk)
        used = data[offsets[0] : offsets[-1]]
        if used.size:
            longest = max(longest, int(np.diff(offsets).max()))
            holds_nul = holds_nul or not used.min()
    large = nul = None
    if longest > TEXT or holds_nul:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        texts = column.cast(kind)
        if longest > TEXT:
            large = pc.fill_null(pc.greater(pc.binary_length(texts), TEXT), False).to_numpy()
        if holds_nul:
            nul = pc.fill_null(pc.match_substring(texts, "\x00"), False).to_numpy()
    return large, nul


def _check_text(body: bytes) -> None:
    """Raise `UnicodeDecodeError` where the body is not UTF-8, a piece at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), 2**20):
        decoder.decode(body[start : start + 2**20], start + 2**20 >= len(body))


def _read_csv(body: bytes, sink: Sink) -> int:
    if body.startswith(_BOM):
        body = body[len(_BOM) :]
    end = body.find(b"\n")
    head = body[: end if end >= 0 else len(body)]
    if len(head) > scan.RECORD or not head.strip():
        raise BadRequest("the first line of a CSV body has the names of its columns")
    names = [name.strip() for name in next(csv.reader(io.StringIO(head.decode())))]
    if len(names) > COLUMNS:
        raise TooLarge(f"a body has at most {COLUMNS} columns", limit=COLUMNS)
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise BadRequest(f"the column {twice[0]!r} comes twice")
    if end < 0 or not body[end + 1 :].strip():
        return 0
    _check_text(body)
    invalid: list[int] = []

    def skip(row: pacsv.InvalidRow) -> str:
        invalid.append(len(invalid) if row.number is None else int(row.number))
        return "skip"

    table = pacsv.read_csv(
        pa.BufferReader(body),
        read_options=pacsv.ReadOptions(column_names=names, skip_rows=1, use_threads=False, block_size=4 * 2**20),
        parse_options=pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, check_utf8=True
        ),
    )
    count = int(table.num_rows) + len(invalid)
    if count > RECORDS:
        raise TooLarge(f"a body has at most {RECORDS} records", limit=RECORDS)
    rows = np.arange(count, dtype=np.int64)
    if invalid:
        unreadable = np.clip(np.array(invalid, np.int64) - 2, 0, count - 1)
        unreadable = np.unique(unreadable) if len(np.unique(unreadable)) == len(invalid) else rows[-len(invalid) :]
        rows = np.setdiff1d(rows, unreadable)
        sink.refuse(unreadable, "unreadable", "", f"the line does not have {len(names)} cells")
    _add_flat(table, rows, sink, textual=True)
    return count
