"""Notices: what a person must know about this installation, told once and open until it is put right."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.tables import NoticeRow
from service.words import derived_id

DAMAGED = "damaged_file"
HELD = "outbound_held"


def tell(
    session: Session, now: datetime, kind: str, subject: str, sentence: str, model_id: int | None = None
) -> NoticeRow:
    """Tell whoever keeps the service; what was told of the same subject before is not told again."""
    row = session.scalar(select(NoticeRow).where(NoticeRow.kind == kind, NoticeRow.subject == subject))
    if row is None:
        uid = derived_id("notice", kind, subject)
        row = NoticeRow(uid=uid, kind=kind, subject=subject, model_id=model_id, created_at=now, sentence=sentence)
        session.add(row)
    return row


def held(session: Session) -> bool:
    """Return whether outbound calls wait, as after a restore, until somebody says that they may be made."""
    statement = select(NoticeRow.id).where(NoticeRow.kind == HELD, NoticeRow.resolved_at.is_(None))
    return session.scalar(statement.limit(1)) is not None


def resume(session: Session, now: datetime) -> bool:
    """Let outbound calls be made again; return whether they were held."""
    rows = session.scalars(select(NoticeRow).where(NoticeRow.kind == HELD, NoticeRow.resolved_at.is_(None))).all()
    for row in rows:
        row.resolved_at = now
    return bool(rows)
