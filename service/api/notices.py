"""Notices: what a person must know about this installation, until it is put right."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import select

from service.api.depends import Operator, Page, Parts, Reader, audit, listed, page_of
from service.notices import HELD
from service.problems import Conflict, NotFound
from service.tables import ModelRow, NoticeRow
from service.words import format_time

router = APIRouter(prefix="/v1/notices", tags=["service"])


def document_of(row: NoticeRow) -> dict[str, Any]:
    """Return a notice as the interface shows it."""
    return {
        "id": row.uid,
        "kind": row.kind,
        "subject": row.subject,
        "sentence": row.sentence,
        "created_at": format_time(row.created_at),
        "resolved_at": None if row.resolved_at is None else format_time(row.resolved_at),
    }


@router.get("", operation_id="notices_list", summary="List notices")
def index(
    parts: Parts,
    principal: Reader,
    page: Page,
    state: Annotated[str, Query(pattern="^(open|resolved)$")] = "open",
) -> dict[str, object]:
    """List what needs a person, newest first; a key that is bound to models sees what is about them."""
    is_open = NoticeRow.resolved_at.is_(None)
    statement = select(NoticeRow).where(is_open if state == "open" else ~is_open)
    if principal.models is not None:
        names = sorted(principal.models)
        statement = statement.where(NoticeRow.model_id.in_(select(ModelRow.id).where(ModelRow.name.in_(names))))
    with parts.database.reading() as session:
        rows, cursor = page_of(session, statement, [NoticeRow.id], page, descending=True)
        return listed([document_of(row) for row in rows], cursor)


@router.post("/{notice}/resolve", operation_id="notices_resolve", summary="Resolve a notice")
def resolve(notice: str, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Say that it was put right, or need not be."""
    with parts.database.writing() as session:
        row = session.scalar(select(NoticeRow).where(NoticeRow.uid == notice))
        model = None if row is None or row.model_id is None else session.get(ModelRow, row.model_id)
        hidden = principal.models is not None and (model is None or not principal.sees(model.name))
        if row is None or hidden:
            raise NotFound(f"there is no notice {notice!r}")
        if row.kind == HELD and row.resolved_at is None:
            raise Conflict("outbound calls are held until `plumbline resume` is run on the service's host")
        row.resolved_at = row.resolved_at or parts.clock.now()
        audit(session, parts, principal, "notice.resolve", f"notices/{notice}", model)
        session.flush()
        return document_of(row)
