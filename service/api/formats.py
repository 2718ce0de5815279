"""Lists of numbers in the form that is asked for: JSON, CSV, Parquet or an Arrow stream, by the Accept header."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from service.problems import Problem
from service.uploads import ARROW, CSV, PARQUET
from service.words import format_time

JSON = "application/json"
OFFERED = (JSON, CSV, PARQUET, ARROW)
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The rows, in the form asked for.", "content": {kind: {} for kind in OFFERED}}
}
"""What a route that answers with `rows_in_form` says of its answer."""


class NotAcceptable(Problem):
    """None of the forms asked for is offered."""

    status, title = 406, "None of the forms asked for is offered"


def wanted(request: Request) -> str:
    """Return the form that the Accept header prefers."""
    accepted = []
    for place, part in enumerate(request.headers.get("accept", "*/*").split(",")):
        name, *options = (piece.strip() for piece in part.lower().split(";"))
        weight = next((option[2:] for option in options if option.startswith("q=")), "1")
        try:
            accepted.append((-float(weight), place, name))
        except ValueError:
            continue
    for preference, _, name in sorted(accepted):
        if preference == 0:
            continue
        if name in ("*/*", "application/*"):
            return JSON
        if name == "text/*":
            return CSV
        if name in OFFERED:
            return name
    raise NotAcceptable(f"this is offered as {', '.join(OFFERED)}")


def rows_in_form(
    request: Request, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, pa.DataType], next_cursor: str | None
) -> Response:
    """Return rows as a list in JSON, or as a table with exactly these columns; the cursor is in a Link header too."""
    form = wanted(request)
    headers = {"Vary": "Accept"}
    if next_cursor is not None:
        headers["Link"] = f'<{request.url.include_query_params(cursor=next_cursor)}>; rel="next"'
    if form == JSON:
        items = [{name: value for name, value in row.items() if value is not None} for row in rows]
        return JSONResponse({"items": items, "next_cursor": next_cursor}, headers=headers)
    if form == CSV:
        return Response(_csv(rows, columns), media_type=CSV, headers=headers)
    table = pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in columns.items()})
    return table_in_form(form, table, headers)


def table_in_form(form: str, table: pa.Table, headers: Mapping[str, str] | None = None) -> Response:
    """Return a table as CSV, Parquet or an Arrow stream."""
    headers = {"Vary": "Accept"} if headers is None else headers
    if form == CSV:
        rows = table.to_pylist()
        return Response(_csv(rows, table.column_names), media_type=CSV, headers=headers)
    sink = pa.BufferOutputStream()
    if form == PARQUET:
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return Response(bytes(sink.getvalue()), media_type=form, headers=headers)


def _csv(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def cell(value: Any) -> Any:
    """Return a value as a cell; text that a spreadsheet would run as a formula is quoted."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else value
