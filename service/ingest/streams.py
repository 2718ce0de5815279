"""Arrow and Parquet bodies as tables of bounded size, checked before anything large is decoded."""

import struct
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.problems import BadRequest, TooLarge

ROWS = 2_000_000
COLUMNS = 4_500
BATCH = 16_384
_FILE = b"ARROW1"


def arrow(body: bytes, limit: int) -> Iterator[pa.Table]:
    """Yield the record batches of an Arrow stream (or file), each validated in full."""
    if body[:4] == b"":
        raise BadRequest("the body is empty")
    buffer = pa.py_buffer(body)
    if body.startswith(_FILE):
        file = pa.ipc.open_file(buffer)
        _check_width(len(file.schema))
        batches: Iterator[pa.RecordBatch] = (file.get_batch(number) for number in range(file.num_record_batches))
    else:
        _check_inflated(memoryview(body), limit)
        stream = pa.ipc.open_stream(buffer)
        _check_width(len(stream.schema))
        batches = iter(stream)
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        if rows > ROWS:
            raise TooLarge(f"a body has at most {ROWS} records", limit=ROWS)
        batch.validate(full=True)
        yield pa.Table.from_batches([batch])


def _check_width(columns: int) -> None:
    if columns > COLUMNS:
        raise TooLarge(f"a body has at most {COLUMNS} columns", limit=COLUMNS)


def _check_inflated(body: memoryview, limit: int) -> None:
    """Refuse a stream whose compressed buffers say that they hold more than ``limit`` bytes together.

    Source: Arrow columnar format, "Encapsulated message format" and "Compression": each compressed buffer begins with
    its inflated length as int64, and what is then inflated must have that length.
    """
    total = 0
    at = 0
    while at + 8 <= len(body):
        mark, size = struct.unpack_from("<Ii", body, at)
        start = at + 8
        if mark != 0xFFFFFFFF:  # before version 0.15 there was no mark
            size, start = mark, at + 4
        if size <= 0 or start + size > len(body):
            return
        buffers, body_size = _buffers(body[start : start + size])
        data = start + size
        for offset, length in buffers:
            if length >= 8 and offset >= 0 and data + offset + 8 <= len(body):
                inflated = struct.unpack_from("<q", body, data + offset)[0]
                total += max(0, inflated)
        if total > limit:
            raise TooLarge(f"the decoded body has more than {limit} bytes", limit=limit)
        at = data + body_size


def _buffers(message: memoryview) -> tuple[list[tuple[int, int]], int]:
    """Return offset and length of the compressed buffers of a message, and the length of its body (flatbuffers)."""
    try:
        table = struct.unpack_from("<I", message, 0)[0]
        kind_at, header_at, size_at = (_field(message, table, number) for number in (1, 2, 3))
        size = struct.unpack_from("<q", message, size_at)[0] if size_at else 0
        kind = message[kind_at] if kind_at else 0
        if not header_at or kind not in (2, 3):
            return [], max(0, size)
        batch = header_at + struct.unpack_from("<I", message, header_at)[0]
        if kind == 2:  # a dictionary batch holds a record batch
            inner = _field(message, batch, 1)
            if not inner:
                return [], max(0, size)
            batch = inner + struct.unpack_from("<I", message, inner)[0]
        listed, compressed = _field(message, batch, 2), _field(message, batch, 3)
        if not listed or not compressed:
            return [], max(0, size)
        vector = listed + struct.unpack_from("<I", message, listed)[0]
        count = min(struct.unpack_from("<I", message, vector)[0], len(message) // 16)
        return [struct.unpack_from("<qq", message, vector + 4 + 16 * number) for number in range(count)], max(0, size)
    except (struct.error, IndexError):
        raise BadRequest("the body is not arrow: a message of the stream cannot be read") from None


def _field(message: memoryview, table: int, number: int) -> int:
    """Return where a field of a flatbuffers table lies; 0 where it has none."""
    virtual = table - struct.unpack_from("<i", message, table)[0]
    if virtual < 0 or 4 + 2 * number >= struct.unpack_from("<H", message, virtual)[0]:
        return 0
    offset = struct.unpack_from("<H", message, virtual + 4 + 2 * number)[0]
    return table + offset if offset else 0


def parquet(body: bytes, limit: int) -> Iterator[pa.Table]:
    """Yield a Parquet file in batches.

    The sizes of a footer say what pages hold, not what they decode to: a million times the same text is one text and a
    few codes. So texts (as dictionaries) and lists are read once only to be counted, before anything is kept.
    """
    source = pa.BufferReader(body)
    footer = pq.read_metadata(source)
    _check_width(footer.num_columns)
    if footer.num_rows > ROWS:
        raise TooLarge(f"a body has at most {ROWS} records, this one has {footer.num_rows}", limit=ROWS)
    said = sum(
        footer.row_group(group).column(column).total_uncompressed_size
        for group in range(footer.num_row_groups)
        for column in range(footer.num_columns)
    )
    if said > limit:
        raise TooLarge(f"the decoded body has more than {limit} bytes", limit=limit)
    leaves = [footer.schema.column(column) for column in range(footer.num_columns)]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    counted = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" or leaf.max_repetition_level]
    decoded = 8 * footer.num_rows * (len(leaves) - len(counted))
    file = pq.ParquetFile(source, metadata=footer, read_dictionary=texts, pre_buffer=False)
    for batch in file.iter_batches(batch_size=BATCH, columns=counted, use_threads=False) if counted else ():
        decoded += sum(_plain_bytes(column) for column in batch.columns)
        if decoded > limit:
            break
    if decoded > limit:
        raise TooLarge(f"the decoded body has more than {limit} bytes", limit=limit)
    for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
        yield pa.Table.from_batches([batch])


def _plain_bytes(column: pa.Array) -> int:
    """Return how many bytes a column has without its dictionary."""
    if pa.types.is_dictionary(column.type) and not pa.types.is_nested(column.type.value_type):
        lengths = pc.binary_length(column.dictionary)
        return int(pc.sum(pc.take(lengths, column.indices)).as_py() or 0) + 4 * len(column)
    return int(column.nbytes)
