"""Posted figures: named values that users work out themselves, kept with every revision."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from monitors.contract import Posted
from service.lake.sealer import chunks
from service.tables import ArrivalRow, PostedFigureRow, VersionRow
from service.words import Span, bucket_of, bucket_start

METRICS = "metrics"
"""What arrivals of posted figures are counted under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure as it is posted; a ``value`` of None takes one back. A span of no length is a moment."""

    metric: str
    value: float | None
    span: Span
    attribute: str = ""
    group: str = ""
    n: int | None = None
    interval: tuple[float, float] | None = None
    unit: str = ""

    @property
    def bucket(self) -> int:
        """The hour it counts in: that of its moment, or the last of its span."""
        if not self.span.length:
            return bucket_of(self.span.end)
        return bucket_of(self.span.end - timedelta(microseconds=1))

    @property
    def key(self) -> tuple[str, str, str, Span]:
        """What tells one figure from another."""
        return self.metric, self.attribute, self.group, self.span


def store(session: Session, version: VersionRow, figures: Sequence[Figure], now: datetime) -> Counter[str]:
    """Store figures of a version in a writing session and return how many were accepted, duplicates and corrected.

    The one posted last counts. What is there already with the same content is a duplicate, and so is the taking back
    of what is not there; other content makes a new revision, and the windows that hold it are measured again.
    """
    session.execute(select(VersionRow.id).where(VersionRow.id == version.id).with_for_update())
    known = _known(session, version, figures)
    counts: dict[int, Counter[str]] = {}
    for figure in figures:
        low, high = figure.interval or (None, None)
        said = (figure.value, figure.n, low, high, figure.unit)
        row = known.get(figure.key)
        same = figure.value is None if row is None else (row.value, row.n, row.low, row.high, row.unit) == said
        if same:
            what = "duplicates"
        else:
            what = "accepted" if row is None else "corrected"
            if row is not None:
                row.current = False
            known[figure.key] = PostedFigureRow(
                model_id=version.model_id,
                version_id=version.id,
                metric=figure.metric,
                attribute=figure.attribute,
                group=figure.group,
                starts_at=figure.span.start,
                ends_at=figure.span.end,
                bucket=figure.bucket,
                value=figure.value,
                n=figure.n,
                low=low,
                high=high,
                unit=figure.unit,
                revision=1 if row is None else row.revision + 1,
                current=True,
                received_at=now,
            )
            session.add(known[figure.key])
        counts.setdefault(figure.bucket, Counter())[what] += 1
    for bucket, told in counts.items():
        _count(session, version, bucket, told)
    session.flush()
    return sum(counts.values(), Counter())


def _known(
    session: Session, version: VersionRow, figures: Sequence[Figure]
) -> dict[tuple[str, str, str, Span], PostedFigureRow]:
    """Return the revision in force of each figure that is there already."""
    found = {}
    for part in chunks(sorted({figure.bucket for figure in figures})):
        rows = session.scalars(
            select(PostedFigureRow).where(
                PostedFigureRow.version_id == version.id,
                PostedFigureRow.current.is_(True),
                PostedFigureRow.bucket.in_(part),
            )
        )
        for row in rows:
            found[row.metric, row.attribute, row.group, Span(row.starts_at, row.ends_at)] = row
    return found


def _count(session: Session, version: VersionRow, bucket: int, told: Counter[str]) -> None:
    """Add to what arrived for an hour; nobody else writes these rows while the version is held."""
    place = {"model_id": version.model_id, "version_id": version.id, "kind": METRICS, "bucket": bucket}
    row = session.scalar(select(ArrivalRow).filter_by(**place))
    if row is None:
        row = ArrivalRow(**place, accepted=0, duplicates=0, corrected=0, reasons={})
        session.add(row)
    row.accepted += told["accepted"]
    row.duplicates += told["duplicates"]
    row.corrected += told["corrected"]


def begun(session: Session, version_id: int) -> datetime | None:
    """Return the hour of a version's first posted figure; None where there is none."""
    first = session.scalar(
        select(func.min(ArrivalRow.bucket)).where(
            ArrivalRow.version_id == version_id, ArrivalRow.kind == METRICS, ArrivalRow.accepted > 0
        )
    )
    return None if first is None else bucket_start(int(first))


def newest(session: Session, version_id: int) -> datetime | None:
    """Return the newest hour that a figure of a version was posted for; None where there is none."""
    last = session.scalar(
        select(func.max(PostedFigureRow.bucket)).where(
            PostedFigureRow.version_id == version_id, PostedFigureRow.current.is_(True)
        )
    )
    return None if last is None else bucket_start(int(last))


def of_spans(session: Session, version_id: int, spans: Sequence[Span]) -> list[tuple[Posted, ...]]:
    """Return what is in force of each span of whole hours, in order of time; spans may follow in any order."""
    if not spans:
        return []
    rows = session.scalars(
        select(PostedFigureRow)
        .where(
            PostedFigureRow.version_id == version_id,
            PostedFigureRow.current.is_(True),
            PostedFigureRow.value.is_not(None),
            PostedFigureRow.bucket >= bucket_of(min(span.start for span in spans)),
            PostedFigureRow.bucket < bucket_of(max(span.end for span in spans)),
        )
        .order_by(PostedFigureRow.ends_at, PostedFigureRow.starts_at, PostedFigureRow.id)
    ).all()
    return [tuple(_posted(row) for row in rows if row.bucket in span.hours) for span in spans]


def _posted(row: PostedFigureRow) -> Posted:
    assert row.value is not None  # noqa: S101 - it was asked for
    return Posted(
        metric=row.metric,
        value=row.value,
        attribute=row.attribute or None,
        group=row.group or None,
        n=row.n,
        interval=None if row.low is None or row.high is None else (row.low, row.high),
        unit=row.unit,
    )
