"""Row samples over HTTP: some rows of a window, drawn at random and always the same, for looking closer."""

from datetime import timedelta
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from service.api.depends import Parts, RowReader, model_named, version_or_active
from service.api.formats import CONTENT, JSON, table_in_form, wanted
from service.api.results import whole_hours
from service.lake import reader, samples
from service.problems import Fault, Unprocessable
from service.profiles import row_counts
from service.words import format_time

router = APIRouter(prefix="/v1/models/{model}/samples", tags=["samples"])

LONGEST = timedelta(days=92)
LEFT_OUT = ("id_hash", "received_at", "faults")


@router.get("", operation_id="samples_read", summary="Read a sample of rows", responses=CONTENT)
def read(
    model: str,
    request: Request,
    parts: Parts,
    principal: RowReader,
    from_: Annotated[str, Query(alias="from", description="A whole hour.")],
    to: Annotated[str, Query(description="A whole hour, at most 92 days later.")],
    version: Annotated[str | None, Query(description="Default: the active one.")] = None,
    limit: Annotated[int, Query(ge=1, le=samples.ROWS, description="Rows at most.")] = 1_000,
) -> Response:
    """Return a simple random sample of a window's predictions with their newest labels, the same at every call.

    It is what monitors of rows look at: the rows whose keyed hash of the id is smallest, so a smaller sample is a part
    of a larger one. It holds no protected attributes and no subjects. What waits in the buffer is sealed first.
    """
    form = wanted(request)
    span = whole_hours(from_, to)
    if span.length > LONGEST:
        detail = f"a sample is drawn of {LONGEST.days} days at most"
        raise Unprocessable(detail, faults=[Fault("query:to", "too_long", detail)])
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        version_or_active(session, owner, version)
    parts.sealer.seal(owner.id)
    with parts.database.reading() as session:
        row = version_or_active(session, owner, version)
        table = parts.profiles.sample(session, row, span, rows=limit, labels=True)
        rows = sum(row_counts(session, owner.id, row.id, span).values())
    if form == JSON:
        items = [] if table is None else [_document(each, row.name) for each in table.to_pylist()]
        window = {"from": format_time(span.start), "to": format_time(span.end)}
        return JSONResponse({"version": row.name, "window": window, "rows": rows, "items": items, "next_cursor": None})
    table = pa.table({"prediction_id": pa.array([], pa.string())}) if table is None else table
    return table_in_form(form, table.drop_columns([name for name in LEFT_OUT if name in table.column_names]))


def _document(row: dict[str, Any], version: str) -> dict[str, Any]:
    found = reader.document(row, version, "sealed")
    return found if row["ground_truth"] is None else found | {"ground_truth": row["ground_truth"]}
