"""Quarantine: a file of the lake that does not hold what was written is set aside, and a person is told of it."""

import structlog
from sqlalchemy import select

from service import notices
from service.clock import Clock
from service.database import Database
from service.lake.files import Lake, SegmentDamaged
from service.tables import BaselineRow, SegmentRow
from service.words import bucket_start, format_time

log = structlog.get_logger(__name__)


def set_aside(database: Database, lake: Lake, clock: Clock) -> int:
    """Look at the files that reads stumbled over, and return how many are read no more from now on.

    A segment counts as damaged where it is not, byte for byte, what was written: a passing error of the disk changes
    nothing. Its row stays, so that it is known what is missing; a profile that was made of it before stays too.
    """
    found = 0
    for path, why in lake.suspects().items():
        with database.reading() as session:
            segment = session.scalar(select(SegmentRow).where(SegmentRow.path == path))
            baseline = session.scalar(select(BaselineRow).where(BaselineRow.path == path))
        if segment is not None and segment.damaged_at is None and not lake.intact(path, segment.checksum):
            with database.writing() as session:
                row = session.get(SegmentRow, segment.id, with_for_update=True)
                if row is None or row.damaged_at is not None:
                    continue  # another process was first, or its rows are in another file by now
                row.damaged_at = clock.now()
                kind, first, last = row.kind.replace("_", " "), row.first_bucket, row.last_bucket + 1
                sentence = (
                    f"{row.rows} rows ({kind}) from {format_time(bucket_start(first))} to "
                    f"{format_time(bucket_start(last))} cannot be read: {path} does not hold what was written. "
                    "It was set aside; a backup may have it whole."
                )
                notices.tell(session, clock.now(), notices.DAMAGED, path, sentence, row.model_id)
            lake.set_aside(path)
            log.error("a damaged file was set aside", path=path, reason=why, rows=segment.rows)
            found += 1
        elif baseline is not None and not _readable(lake, path):
            with database.writing() as session:
                sentence = f"The rows of the baseline {baseline.name} cannot be read: {path} is damaged ({why})."
                notices.tell(session, clock.now(), notices.DAMAGED, path, sentence, baseline.model_id)
    return found


def _readable(lake: Lake, path: str) -> bool:
    try:
        lake.read_table(path)
    except SegmentDamaged:
        lake.suspects()  # this very look
        return False
    return True
