"""The audit: who changed what, and when."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import select

from service.api.depends import Administrator, Page, Parts, listed, model_named, moment, page_of
from service.tables import AuditRow, ModelRow
from service.words import format_time

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("", operation_id="audit_list", summary="List changes")
def index(
    parts: Parts,
    principal: Administrator,
    page: Page,
    model: Annotated[str | None, Query(description="Only changes of this model.")] = None,
    actor: Annotated[str | None, Query(max_length=256)] = None,
    action: Annotated[str | None, Query(max_length=64)] = None,
    from_: Annotated[str | None, Query(alias="from")] = None,
    to: str | None = None,
) -> dict[str, Any]:
    """List changes, newest first; a key bound to models sees the changes of these models."""
    statement = select(AuditRow)
    for column, value in ((AuditRow.actor, actor), (AuditRow.action, action)):
        if value is not None:
            statement = statement.where(column == value)
    if (start := moment(from_, "from")) is not None:
        statement = statement.where(AuditRow.at >= start)
    if (end := moment(to, "to")) is not None:
        statement = statement.where(AuditRow.at < end)
    with parts.database.reading() as session:
        if model is not None:
            statement = statement.where(AuditRow.model_id == model_named(session, principal, model, archived=True).id)
        if principal.models is not None:
            seen = select(ModelRow.id).where(ModelRow.name.in_(sorted(principal.models)))
            statement = statement.where(AuditRow.model_id.in_(seen))
        rows, cursor = page_of(session, statement, [AuditRow.id], page, descending=True)
        items = [
            {
                "at": format_time(row.at),
                "actor": row.actor,
                "action": row.action,
                "object": row.object,
                "detail": row.detail,
            }
            for row in rows
        ]
        return listed(items, cursor)
