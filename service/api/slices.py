"""Slices of a model's population: declared by conditions or by the values of a column, or discovered."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from monitors import discovered
from monitors import slices as grammar
from monitors.contract import Role
from monitors.losses import row_losses
from service import baselines, slices
from service.api.bodies import Body, Name, Short
from service.api.depends import Configurer, Parts, Reader, RowReader, audit, listed, model_named, version_or_active
from service.api.problems import refused
from service.problems import Conflict, Fault, NotFound, Unprocessable
from service.tables import ModelRow, MonitorRow, SliceRow
from service.words import Span, format_time, parse_time

router = APIRouter(prefix="/v1/models/{model}/slices", tags=["slices"])


class SliceBody(Body):
    """Which rows a slice holds."""

    where: dict[Short, Any] | None = None
    by: Short | None = None
    at_most: int | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"where": {"tags.region": ["EU"], "features.age": {"ge": 18, "lt": 25}}},
                {"by": "tags.region", "at_most": 20},
            ]
        }
    )


def document_of(row: SliceRow) -> dict[str, Any]:
    """Return a slice as the interface shows it."""
    return {"name": row.name, **row.document, "created_at": format_time(row.created_at)}


def slice_named(session: Session, model: ModelRow, name: str) -> SliceRow:
    """Return a model's slice; NotFound where there is none."""
    row = session.scalar(select(SliceRow).where(SliceRow.model_id == model.id, SliceRow.name == name))
    if row is None:
        raise NotFound(f"model {model.name!r} has no slice {name!r}")
    return row


@router.get("", operation_id="slices_list", summary="List slices")
def index(model: str, parts: Parts, principal: Reader) -> dict[str, object]:
    """List a model's slices, by name; there are at most 20."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        return listed([document_of(row) for row in slices.rows_of(session, owner)], None)


@router.get("/discovered", operation_id="slices_discovered", summary="Discover where a model is worst")
def found(
    model: str,
    parts: Parts,
    principal: RowReader,
    from_: Annotated[str, Query(alias="from", description="RFC 3339, inclusive.")],
    to: Annotated[str, Query(description="RFC 3339, exclusive.")],
    version: str | None = None,
    at_most: Annotated[int, Query(ge=1, le=20)] = 5,
) -> dict[str, object]:
    """Find the slices of a span in which predictions were worst, by a tree on one half of the sampled rows.

    Each is tested on the other half, Holm's method over all that the tree gave; `where` can be declared as it is.
    """
    span = Span(parse_time(from_, "query:from"), parse_time(to, "query:to"))
    if span.start >= span.end:
        raise Unprocessable("from is before to")
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
    parts.sealer.seal(owner.id)
    with parts.database.reading() as session:
        row = version_or_active(session, owner, version)
        columns = [one for one in baselines.columns(session, row) if one.role is Role.FEATURE]
        rows = parts.profiles.sample(session, row, span, labels=True)
        losses = None if rows is None else row_losses(rows, baselines.task_of(owner))
    if rows is None or losses is None or not np.isfinite(losses).any():
        raise Unprocessable("no row of that time has a prediction and a label, so none can be worse than others")
    seed = np.frombuffer(f"{owner.uid} {span.start} {span.end}".encode(), np.uint8)
    worst = discovered.worst_slices(rows, losses, columns, np.random.default_rng(seed), at_most=at_most)
    items = [
        {
            "where": one.where,
            "metric": "error",
            "value": one.value,
            "baseline_value": one.rest,
            "p_value": one.p_value,
            "alpha": one.alpha,
            "verdict": "violated" if one.worse else "ok",
            "rows": one.rows,
            "n_window": one.tested_rows,
        }
        for one in worst
    ]
    return listed(items, None) | {"rows": rows.num_rows, "labelled_rows": int(np.isfinite(losses).sum())}


@router.get("/{name}", operation_id="slices_read", summary="Read a slice")
def read(model: str, name: str, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return a slice."""
    with parts.database.reading() as session:
        return document_of(slice_named(session, model_named(session, principal, model), name))


@router.put("/{name}", operation_id="slices_put", summary="Declare a slice")
def put(
    model: str, name: Name, body: SliceBody, response: Response, parts: Parts, principal: Configurer
) -> dict[str, Any]:
    """Declare a slice, or change it: what was counted of the old one is counted again."""
    document = body.model_dump(exclude_none=True)
    if name == "discovered":
        raise refused([Fault("/name", "reserved", "a slice cannot be called discovered")])
    try:
        wanted = grammar.declared(name, document)
    except grammar.SliceInvalidError as error:
        raise refused([Fault(error.pointer, "bad_slice", str(error))]) from error
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        rows = slices.rows_of(session, owner)
        others = [slices.declared_of(row) for row in rows if row.name != name]
        if grammar.total([*others, wanted]) > grammar.MOST_SLICES:
            raise Conflict(
                f"model {model!r} may have {grammar.MOST_SLICES} slices, those of `by` counted by at_most; "
                f"{grammar.total(others)} are declared"
            )
        row = next((one for one in rows if one.name == name), None)
        if row is None:
            row = SliceRow(model_id=owner.id, name=name, document=document, created_at=parts.clock.now())
            session.add(row)
            response.status_code = 201
        elif row.document != document:
            row.document = document
            slices.forget_profiles(session, row)
        audit(session, parts, principal, "slice.put", f"models/{model}/slices/{name}", owner, after=document)
        session.flush()
        return document_of(row)


@router.delete("/{name}", status_code=204, operation_id="slices_delete", summary="Delete a slice")
def delete(model: str, name: str, parts: Parts, principal: Configurer) -> None:
    """Delete a slice that no monitor measures any more; results of it stay."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = slice_named(session, owner, name)
        monitors = session.scalars(select(MonitorRow).where(MonitorRow.model_id == owner.id))
        users = [monitor.name for monitor in monitors if name in monitor.slices]
        if users:
            raise Conflict(f"slice {name!r} is measured by {', '.join(users)}; take it from there first")
        slices.forget_profiles(session, row)
        session.delete(row)
        audit(session, parts, principal, "slice.delete", f"models/{model}/slices/{name}", owner)
