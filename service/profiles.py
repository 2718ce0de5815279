"""Profiles of windows: what is stored of hours and days, merged; what is missing or dirty is rebuilt from the lake."""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from monitors import kernel
from monitors.blocks import outcomes_of
from monitors.layout import Layout
from monitors.profile import OutcomeCells, Profile, decode_outcomes, merged, summed
from monitors.slices import Slice
from service import groups
from service.clock import Clock
from service.database import Database
from service.lake import Lake, reader, samples
from service.lake.columns import numbers_of, together
from service.lake.sealer import chunks
from service.problems import NotFound
from service.settings import Settings
from service.tables import (
    ArrivalRow,
    DirtyRow,
    LayoutRow,
    ModelRow,
    ProfileRow,
    ReplayRow,
    SegmentRow,
    VersionRow,
)
from service.words import HOUR, Span, bucket_of, bucket_start

DAY_HOURS = 24
HOURS_KEPT = 35 * DAY_HOURS
"""How far back profiles of single hours are kept beside the days'."""
SORTED_ROWS = 2_000_000
"""Rows that are read and put in order together; an hour that has more is folded as it comes."""
AHEAD_ROWS = {1: 100_000, DAY_HOURS: 400_000}
"""Rows of the buckets after a window that are profiled with it: the next windows will want them."""
GAP_HOURS = 2 * DAY_HOURS
REBUILD_SECONDS = 15 * 60
OUTCOME_COLUMNS = ("prediction", "score")

Piece = tuple[int, int]
"""(hours, bucket): an hour or a day, by its first hour since 1970."""


@dataclass
class State:
    """What is stored and what is known to be outdated around a span, as one consistent state of the database."""

    counts: dict[int, int]
    """Rows by bucket; buckets without rows are absent."""
    stored: dict[Piece, Any]
    """Profile rows without their blobs: id, labelled, final, built_at."""
    inputs: set[int]
    """Buckets whose rows changed since their profile was built."""
    outcomes: set[int]
    """Buckets whose labels changed."""
    newest: int
    """The newest segment of the version: what came later was not read."""

    def buckets(self, piece: Piece) -> list[int]:
        """Return the buckets of a piece that have rows."""
        hours, first = piece
        return [bucket for bucket in range(first, first + hours) if bucket in self.counts]

    def ready(self, piece: Piece) -> bool:
        """Return whether a piece's inputs are stored and up to date."""
        row = self.stored.get(piece)
        if row is None:
            return False
        hours, first = piece
        return bool(row.final) or not any(bucket in self.inputs for bucket in range(first, first + hours))

    def told(self, piece: Piece) -> bool:
        """Return whether a piece's outcomes are stored and up to date; only meaningful where it is ready."""
        row = self.stored[piece]
        hours, first = piece
        fresh = bool(row.final) or not any(bucket in self.outcomes for bucket in range(first, first + hours))
        return bool(row.labelled) and fresh


@dataclass
class Built:
    """Profiles made from rows in this call, encoded as they are stored: rows, inputs, outcomes."""

    whole: dict[Piece, tuple[int, bytes, bytes | None]] = field(default_factory=dict)
    outcomes: dict[Piece, bytes] = field(default_factory=dict)


class Profiles:
    """Hands out the profiles of windows; a cache of the lake that knows when it is outdated."""

    def __init__(self, database: Database, lake: Lake, clock: Clock, settings: Settings) -> None:
        self.database = database
        self.lake = lake
        self.clock = clock
        self.settings = settings
        self.slice: Slice | None = None
        """Whose rows alone are counted, of a part of the population."""
        self.only: frozenset[str] | None = None
        """The columns that are counted, where not all are."""
        self._layouts: dict[tuple[int, int], Layout] = {}
        self._tidied: dict[int, datetime] = {}
        """When old hours of a version were last looked for."""
        self._lock = Lock()

    def of(self, part: Slice, only: frozenset[str] | None = None) -> "Profiles":
        """Return what hands out the profiles of one slice, of some columns alone."""
        sliced = copy(self)
        sliced.slice, sliced.only = part, only
        return sliced

    @property
    def key(self) -> str:
        """What the profiles are stored under: empty for all rows."""
        if self.slice is None:
            return ""
        columns = "" if self.only is None else blake2b("\n".join(sorted(self.only)).encode(), digest_size=8).hexdigest()
        return self.slice.key + columns

    def layout(self, session: Session, version_id: int, number: int) -> Layout:
        """Return a version's layout by number; NotFound where there is none."""
        key = (version_id, number)
        with self._lock:
            known = self._layouts.get(key)
        if known is not None:
            return known
        document = session.scalar(
            select(LayoutRow.document).where(LayoutRow.version_id == version_id, LayoutRow.number == number)
        )
        if document is None:
            raise NotFound(f"the version has no layout {number}: it gets one with its first baseline")
        layout = Layout.decode(document)
        with self._lock:
            while len(self._layouts) >= 64:
                del self._layouts[next(iter(self._layouts))]
            self._layouts[key] = layout
        return layout

    def window(
        self, session: Session, version: VersionRow, number: int, span: Span, *, labels: bool = False
    ) -> Profile:
        """Return the profile of a version's sealed rows in a span of whole hours, in one of its layouts.

        Closed days are taken whole, hours at the edges. What is missing or dirty is rebuilt in one pass over its rows
        and stored: through ``session`` where that one writes, else in a transaction of its own. ``labels`` adds the
        ground truth and the outcome tables. Seal first what is buffered.
        """
        return self.windows(session, version, number, [[span]], labels=labels)[0]

    def windows(
        self,
        session: Session,
        version: VersionRow,
        number: int,
        asked: Sequence[Sequence[Span]],
        *,
        labels: bool = False,
    ) -> list[Profile]:
        """Return a profile for each list of spans that do not meet: what `window` would of each, merged.

        All are of one state of the database, and what they have in common is read and built once.
        """
        spans = [span for several in asked for span in several if span.start < span.end]
        for span in spans:
            if span.start != bucket_start(bucket_of(span.start)) or span.end != bucket_start(bucket_of(span.end)):
                raise ValueError(f"a window begins and ends on a whole hour: {span.start} to {span.end}")
        layout = self.layout(session, version.id, number)
        if not spans:
            return [Profile.empty(layout) for _ in asked]
        closed = self._closed(session, version)
        state = self._state(session, version, number, spans)
        from_hours: set[Piece] = set()
        pieces: dict[Span, list[Piece]] = {}
        for span in spans:
            pieces[span], more = self._pieces(state, span, closed, labels)
            from_hours |= more
        needed = [*dict.fromkeys(piece for some in pieces.values() for piece in some)]
        parts = self._held(session, version, number, layout, state, needed, from_hours, closed, labels)
        found = []
        for several in asked:
            own = [parts[piece] for span in several for piece in pieces.get(span, ()) if piece in parts]
            whole = merged(layout, own)
            whole.labelled = labels
            found.append(whole)
        return found

    def bucket_outcomes(self, session: Session, version: VersionRow, number: int, span: Span) -> csr_array | None:
        """Return the outcome cells of each hour of a span that has rows, or of each day where it is longer than a week.

        Of shape (buckets, outcome cells), in order of time; of a slice those without its rows too, empty. None where
        the layout has no outcomes. What is not stored is counted from the few columns that it takes, and not stored
        either. Seal first what is buffered.
        """
        layout = self.layout(session, version.id, number)
        if span.end <= span.start or not layout.tables:
            return None
        state = self._state(session, version, number, [span])
        pieces = [(1, bucket) for bucket in span.hours if bucket in state.counts]
        if span.length > 7 * DAY_HOURS * HOUR:
            pieces, _ = self._pieces(state, span, self._closed(session, version), labels=True)
        found: dict[Piece, OutcomeCells | None] = {}
        stored = {state.stored[piece].id: piece for piece in pieces if self._usable(state, piece, labels=True)}
        for ids in chunks(list(stored)):
            for row in session.execute(select(ProfileRow.id, ProfileRow.outcomes).where(ProfileRow.id.in_(ids))):
                found[stored[row.id]] = decode_outcomes(layout, row.outcomes)
        few = _outcome_columns(layout)
        for hours in sorted({piece[0] for piece in pieces}):
            wanted = {bucket for size, bucket in pieces if size == hours and (hours, bucket) not in found}
            for part in _spans(wanted, hours, state.counts):
                rows = self._rows(session, version, part, few, layout, True, state)
                for bucket, profile in kernel.profile_buckets(rows, layout, hours).items():
                    if bucket in wanted:
                        found[hours, bucket] = profile.outcome_cells
        counted = pieces if self.slice is not None else [piece for piece in pieces if piece in found]
        return outcomes_of(layout, [found.get(piece) for piece in counted])

    def _held(
        self,
        session: Session,
        version: VersionRow,
        number: int,
        layout: Layout,
        state: State,
        pieces: Sequence[Piece],
        from_hours: set[Piece],
        closed: int,
        labels: bool,
    ) -> dict[Piece, Profile]:
        """Return the profile of each piece, after what is missing or outdated of them was built and stored."""
        needed = [piece for piece in pieces if piece not in from_hours]
        needed += [(1, hour) for day in from_hours for hour in state.buckets(day)]
        missing = [piece for piece in needed if not state.ready(piece)]
        partial = [piece for piece in needed if labels and state.ready(piece) and not state.told(piece)]
        if missing:
            missing += self._ahead(session, version, number, missing, closed)
        built = self._build(session, version, layout, state, missing, partial, labels)
        parts = self._parts(session, layout, state, built, pieces, from_hours, labels)
        if built.whole or built.outcomes:
            self._store(session, version, number, state, built)
        return parts

    def sample(
        self, session: Session, version: VersionRow, span: Span, *, rows: int = samples.ROWS, labels: bool = False
    ) -> pa.Table | None:
        """Return a simple random sample of a version's sealed rows in a span; see `service.lake.samples.window`."""
        closed = self._closed(session, version)
        found = samples.window(
            session, self.database, self.lake, self.clock, version, span, closed=closed, rows=rows, labels=labels
        )
        return found if found is None or self.slice is None else self.slice.of(found)

    # --- what is there ------------------------------------------------------------------------------------------------

    def _closed(self, session: Session, version: VersionRow) -> int:
        """Return the first bucket that is not complete yet, as it was when the session first asked in this hour."""
        hour = bucket_of(self.clock.now())
        known: tuple[int, int] | None = session.info.get(("closed", version.model_id))
        if known is not None and known[0] == hour:
            return known[1]
        model = session.get_one(ModelRow, version.model_id)
        closed = bucket_of(watermark(session, model, self.clock, self.settings))
        session.info["closed", version.model_id] = hour, closed
        return closed

    def _state(self, session: Session, version: VersionRow, number: int, spans: Sequence[Span]) -> State:
        days = _days(spans)
        # First of all: whatever is sealed from here on is newer, also where each statement sees a state of its own.
        newest = _newest_segment(session, version.id)
        rows = session.execute(
            select(
                ProfileRow.id,
                ProfileRow.hours,
                ProfileRow.bucket,
                ProfileRow.outcomes.is_not(None).label("labelled"),
                ProfileRow.final,
                ProfileRow.built_at,
            ).where(
                ProfileRow.version_id == version.id,
                ProfileRow.layout == number,
                ProfileRow.slice == self.key,
                or_(*(ProfileRow.bucket.between(first, last) for first, last in days)),
            )
        ).all()
        marks = session.execute(
            select(DirtyRow.bucket, DirtyRow.part).where(
                DirtyRow.version_id == version.id,
                or_(*(DirtyRow.bucket.between(first, last) for first, last in days)),
            )
        ).all()
        return State(
            counts=_counts(session, version.model_id, version.id, days),
            stored={(row.hours, row.bucket): row for row in rows},
            inputs={bucket for bucket, part in marks if part == "inputs"},
            outcomes={bucket for bucket, part in marks if part == "outcomes"},
            newest=newest,
        )

    @staticmethod
    def _usable(state: State, piece: Piece, labels: bool) -> bool:
        return state.ready(piece) and (not labels or state.told(piece))

    def _pieces(self, state: State, span: Span, closed: int, labels: bool) -> tuple[list[Piece], set[Piece]]:
        """Return the days and hours that make up a span, and those days that are best merged from their hours."""
        hours = span.hours
        pieces: list[Piece] = []
        from_hours: set[Piece] = set()
        for day in range(hours[0] // DAY_HOURS * DAY_HOURS, hours[-1] + 1, DAY_HOURS):
            whole: Piece = (DAY_HOURS, day)
            if not any(bucket in state.counts for bucket in range(day, day + DAY_HOURS)):
                continue
            if day < hours[0] or day + DAY_HOURS > hours[-1] + 1 or day + DAY_HOURS > closed:
                pieces += [(1, hour) for hour in state.buckets(whole) if hours[0] <= hour <= hours[-1]]
                continue
            pieces.append(whole)
            if state.ready(whole):
                continue
            known = sum(self._usable(state, (1, hour), labels) for hour in state.buckets(whole))
            if 2 * known >= len(state.buckets(whole)):
                from_hours.add(whole)
        return pieces, from_hours

    def _ahead(
        self, session: Session, version: VersionRow, number: int, missing: Sequence[Piece], closed: int
    ) -> list[Piece]:
        """Return the next closed buckets that have rows and no profile yet, as many as are cheap to take along."""
        more: list[Piece] = []
        for hours in sorted({piece[0] for piece in missing}):
            after = max(bucket for size, bucket in missing if size == hours) + hours
            counts = session.execute(
                select(ArrivalRow.bucket, ArrivalRow.accepted)
                .where(
                    ArrivalRow.model_id == version.model_id,
                    ArrivalRow.version_id == version.id,
                    ArrivalRow.kind == "predictions",
                    ArrivalRow.accepted > 0,
                    ArrivalRow.bucket >= after,
                    ArrivalRow.bucket < closed,
                )
                .order_by(ArrivalRow.bucket)
                .limit(10_000)
            ).all()
            stored = set(
                session.scalars(
                    select(ProfileRow.bucket).where(
                        ProfileRow.version_id == version.id,
                        ProfileRow.layout == number,
                        ProfileRow.slice == self.key,
                        ProfileRow.hours == hours,
                        ProfileRow.bucket >= after,
                    )
                )
            )
            left, wanted = AHEAD_ROWS[hours], set[int]()
            for bucket, rows in counts:
                place = bucket // hours * hours
                left -= rows
                if place in stored or place + hours > closed or left < 0:
                    break
                wanted.add(place)
            more += [(hours, bucket) for bucket in sorted(wanted)]
        return more

    # --- building -----------------------------------------------------------------------------------------------------

    def _build(
        self,
        session: Session,
        version: VersionRow,
        layout: Layout,
        state: State,
        missing: Sequence[Piece],
        partial: Sequence[Piece],
        labels: bool,
    ) -> Built:
        """Read the rows of pieces once and profile them: all columns, or only the outcomes where inputs are there."""
        built = Built()
        kept = [name for name in layout.columns if self.only is None or name in self.only or name.startswith("scores.")]
        inputs = [name for name in kept if name != "ground_truth"]
        for pieces, columns in ((missing, inputs), (partial, _outcome_columns(layout))):
            for hours in sorted({piece[0] for piece in pieces}):
                wanted = {bucket for size, bucket in pieces if size == hours}
                for span in _spans(wanted, hours, state.counts):
                    told = labels or pieces is partial
                    rows = self._rows(session, version, span, [*columns, "faults"], layout, told, state)
                    found = _profiled(rows, layout, hours, wanted, pieces is missing, told)
                    if self.slice is not None:  # of its rows there may be none: that is known then, too
                        covered = range(bucket_of(span.start), bucket_of(span.end))
                        found |= {b: Profile.empty(layout) for b in wanted if b in covered and b not in found}
                    for bucket, profile in found.items():
                        if pieces is partial:
                            built.outcomes[hours, bucket] = profile.encode_outcomes()
                        else:
                            built.whole[hours, bucket] = _stored(profile, told)
        return built

    def _rows(
        self,
        session: Session,
        version: VersionRow,
        span: Span,
        columns: Sequence[str],
        layout: Layout,
        labels: bool,
        state: State,
    ) -> Iterator[pa.RecordBatch]:
        """Yield a span's rows in order of time and id, whatever segments they are in, so that sums come out alike.

        With ``labels`` they have the ground truth, and the groups that the layout's outcomes are counted by.
        """
        more = groups.feature_names(layout) if labels else ()
        needed = [*dict.fromkeys([*columns, *more, *(self.slice.columns if self.slice is not None else ())])]
        found = reader.batches(
            session,
            self.lake,
            version.model_id,
            version.id,
            span,
            [*needed, "timestamp", "id_hash"],
            labels=labels,
            attributes=groups.protected_names(layout) if labels else (),
        )
        if self.slice is not None:
            found = _kept(found, self.slice)
        if labels:
            found = groups.grouped(found, layout.outcomes)
        if sum(state.counts.get(bucket, 0) for bucket in span.hours) > SORTED_ROWS:
            yield from found
            return
        tables = [pa.Table.from_batches([batch]) for batch in found]
        if not tables:
            return
        table = together(tables)
        moments = numbers_of(table["timestamp"], np.int64)
        if len(tables) > 1 and np.any(moments[1:] <= moments[:-1]):
            table = table.take(pa.array(np.lexsort((numbers_of(table["id_hash"], np.uint64), moments))))
        yield from table.unify_dictionaries().combine_chunks().to_batches()

    def _parts(
        self,
        session: Session,
        layout: Layout,
        state: State,
        built: Built,
        pieces: Sequence[Piece],
        from_hours: Iterable[Piece],
        labels: bool,
    ) -> dict[Piece, Profile]:
        """Return the profile of each piece, stored, built now, or merged now from its hours."""
        wanted = [piece for piece in pieces if piece not in from_hours]
        wanted += [(1, hour) for day in from_hours for hour in state.buckets(day)]
        stored = {
            state.stored[piece].id: piece for piece in wanted if piece in state.stored and piece not in built.whole
        }
        blobs: dict[Piece, tuple[bytes, bytes | None]] = {}
        for ids in chunks(list(stored)):
            columns = (ProfileRow.id, ProfileRow.inputs, *((ProfileRow.outcomes,) if labels else ()))
            for row in session.execute(select(*columns).where(ProfileRow.id.in_(ids))):
                blobs[stored[row.id]] = (row.inputs, row.outcomes if labels else None)

        def encoded(piece: Piece) -> tuple[bytes, bytes | None] | None:
            if piece in built.whole:
                return built.whole[piece][1:]
            if piece not in blobs:
                return None
            inputs, outcomes = blobs[piece]
            return inputs, built.outcomes.get(piece, outcomes) if labels else None

        parts: dict[Piece, Profile] = {}
        for piece in pieces:
            if piece in from_hours:
                hours = [found for hour in state.buckets(piece) if (found := encoded((1, hour))) is not None]
                built.whole[piece] = _stored(summed(layout, hours), labels)
            if (found := encoded(piece)) is not None:
                parts[piece] = Profile.decode(layout, *found)
        return parts

    # --- storing ------------------------------------------------------------------------------------------------------

    def _store(self, session: Session, version: VersionRow, number: int, state: State, built: Built) -> None:
        if session.get_bind().get_execution_options().get("plumbline_write"):
            self._keep(session, version, number, state, built)
        else:
            with self.database.writing() as own:
                self._keep(own, version, number, state, built)

    def _keep(self, session: Session, version: VersionRow, number: int, state: State, built: Built) -> None:
        """Store what was built, except where newer rows were sealed meanwhile; take away the marks it answers.

        A mark stands for every profile of its bucket, in whatever layout or slice, as hour or in a day: those that
        were not rebuilt with it go.
        """
        session.execute(select(VersionRow.id).where(VersionRow.id == version.id).with_for_update())
        newer = session.execute(
            select(SegmentRow.first_bucket, SegmentRow.last_bucket).where(
                SegmentRow.version_id == version.id, SegmentRow.id > state.newest, SegmentRow.kind != "sample"
            )
        ).all()

        def current(piece: Piece) -> bool:
            hours, first = piece
            return not any(low < first + hours and first <= high for low, high in newer)

        whole = {piece: made for piece, made in built.whole.items() if current(piece)}
        outcomes = {piece: made for piece, made in built.outcomes.items() if current(piece)}
        answered = {b for hours, first in whole for b in range(first, first + hours)}
        told = {b for hours, first in outcomes for b in range(first, first + hours)} | answered
        self._outdate(session, version, number, whole, outcomes, answered, told)
        now = self.clock.now()
        rows = [
            {
                "version_id": version.id,
                "layout": number,
                "slice": self.key,
                "hours": hours,
                "bucket": bucket,
                "rows": count,
                "inputs": inputs,
                "outcomes": labelled,
                "final": False,
                "built_at": now,
            }
            for (hours, bucket), (count, inputs, labelled) in sorted(whole.items(), key=lambda item: item[0])
        ]
        if rows:
            statement = (sqlite.insert if self.database.is_sqlite else postgresql.insert)(ProfileRow)
            names = ("rows", "inputs", "outcomes", "built_at")
            session.execute(
                statement.on_conflict_do_update(
                    index_elements=["version_id", "layout", "slice", "hours", "bucket"],
                    set_={name: getattr(statement.excluded, name) for name in names},
                ),
                rows,
            )
        for (hours, bucket), blob in outcomes.items():
            session.execute(
                update(ProfileRow)
                .where(
                    ProfileRow.version_id == version.id,
                    ProfileRow.layout == number,
                    ProfileRow.slice == self.key,
                    ProfileRow.hours == hours,
                    ProfileRow.bucket == bucket,
                )
                .values(outcomes=blob, built_at=now)
            )

    def _outdate(
        self,
        session: Session,
        version: VersionRow,
        number: int,
        whole: Iterable[Piece],
        outcomes: Iterable[Piece],
        answered: set[int],
        told: set[int],
    ) -> None:
        """Take away the marks of rebuilt buckets, and with them the other profiles that the marks stood for."""
        if not told:
            return
        low, high = min(told), max(told)
        marks = session.execute(
            select(DirtyRow.bucket, DirtyRow.part).where(
                DirtyRow.version_id == version.id, DirtyRow.bucket.between(low, high)
            )
        ).all()
        inputs = {bucket for bucket, part in marks if part == "inputs" and bucket in answered}
        labels = {bucket for bucket, part in marks if part == "outcomes" and bucket in told}
        if not inputs and not labels:
            return
        rebuilt, relabelled = set(whole), set(outcomes) | set(whole)
        rows = session.execute(
            select(ProfileRow.id, ProfileRow.layout, ProfileRow.slice, ProfileRow.hours, ProfileRow.bucket).where(
                ProfileRow.version_id == version.id,
                ProfileRow.final.is_(False),
                ProfileRow.bucket.between(low - DAY_HOURS, high),
            )
        ).all()
        gone, untold = [], []
        for row in rows:
            piece, mine = (row.hours, row.bucket), row.layout == number and row.slice == self.key
            covered = range(row.bucket, row.bucket + row.hours)
            if any(bucket in inputs for bucket in covered) and not (mine and piece in rebuilt):
                gone.append(row.id)
            elif any(bucket in labels for bucket in covered) and not (mine and piece in relabelled):
                untold.append(row.id)
        for ids in chunks(gone):
            session.execute(delete(ProfileRow).where(ProfileRow.id.in_(ids)))
        for ids in chunks(untold):
            session.execute(update(ProfileRow).where(ProfileRow.id.in_(ids)).values(outcomes=None))
        for part, buckets in (("inputs", inputs), ("outcomes", labels)):
            for some in chunks(sorted(buckets)):
                session.execute(
                    delete(DirtyRow).where(
                        DirtyRow.version_id == version.id, DirtyRow.part == part, DirtyRow.bucket.in_(some)
                    )
                )

    # --- in the background --------------------------------------------------------------------------------------------

    def refresh(self, session: Session | None = None, *, seconds: float = 2.0) -> int:
        """Rebuild what is dirty of closed hours and days, for at most so long, and return how many days were touched.

        A bucket is rebuilt at most once in 15 minutes; days whose hours are all there are merged; hours older than 35
        days go. A session handed in must be one for reading.
        """
        if session is None:
            with self.database.reading() as own:
                return self.refresh(own, seconds=seconds)
        until, touched, now = time.monotonic() + seconds, 0, self.clock.now()
        marked = set(session.scalars(select(DirtyRow.version_id).where(DirtyRow.part == "inputs").distinct()))
        for version in session.scalars(select(VersionRow).where(VersionRow.layout.is_not(None))).all():
            tidied = self._tidied.get(version.id)
            tidy = tidied is None or abs(now - tidied) >= timedelta(seconds=REBUILD_SECONDS)
            if version.id not in marked and not tidy:
                continue
            closed = self._closed(session, version)
            for day in self._stale_days(session, version, closed):
                if time.monotonic() > until:
                    return touched
                end = min(day + DAY_HOURS, closed)
                self.window(session, version, version.layout or 1, Span(bucket_start(day), bucket_start(end)))
                touched += 1
            if tidy:
                self._forget_hours(version, closed)
                self._tidied[version.id] = now
        return touched

    def _stale_days(self, session: Session, version: VersionRow, closed: int) -> list[int]:
        marks = session.scalars(
            select(DirtyRow.bucket)
            .where(DirtyRow.version_id == version.id, DirtyRow.part == "inputs", DirtyRow.bucket < closed)
            .order_by(DirtyRow.bucket)
        ).all()
        if not marks:
            return []
        recent = set(
            session.scalars(
                select(ProfileRow.bucket).where(
                    ProfileRow.version_id == version.id,
                    ProfileRow.layout == version.layout,
                    ProfileRow.built_at > self.clock.now() - timedelta(seconds=REBUILD_SECONDS),
                    ProfileRow.bucket.between(marks[0] - DAY_HOURS, marks[-1]),
                )
            )
        )
        fresh = {bucket // DAY_HOURS * DAY_HOURS for bucket in marks if bucket not in recent}
        return sorted(fresh - recent)

    def _forget_hours(self, version: VersionRow, closed: int) -> None:
        """Remove profiles of single hours that are old and inside a day's profile."""
        old = closed - HOURS_KEPT
        with self.database.reading() as session:
            hours = session.execute(
                select(ProfileRow.id, ProfileRow.layout, ProfileRow.slice, ProfileRow.bucket)
                .where(ProfileRow.version_id == version.id, ProfileRow.hours == 1, ProfileRow.bucket < old)
                .limit(20_000)
            ).all()
            if not hours:
                return
            closed_days = session.execute(
                select(ProfileRow.layout, ProfileRow.slice, ProfileRow.bucket).where(
                    ProfileRow.version_id == version.id, ProfileRow.hours == DAY_HOURS, ProfileRow.bucket < old
                )
            ).all()
        days = {(row.layout, row.slice, row.bucket) for row in closed_days}
        gone = [row.id for row in hours if (row.layout, row.slice, row.bucket // DAY_HOURS * DAY_HOURS) in days]
        if gone:
            with self.database.writing() as session:
                for ids in chunks(gone):
                    session.execute(delete(ProfileRow).where(ProfileRow.id.in_(ids)))


def _kept(batches: Iterable[pa.RecordBatch], part: Slice) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a slice."""
    for batch in batches:
        mask = part.mask(batch)
        if mask.any():
            yield batch.filter(pa.array(mask))


def _outcome_columns(layout: Layout) -> list[str]:
    """Return the columns that outcomes are counted from, beside the label and the groups."""
    return [name for name in layout.columns if name in OUTCOME_COLUMNS or name.startswith("scores.")]


def _stored(profile: Profile, labels: bool) -> tuple[int, bytes, bytes | None]:
    return profile.rows, profile.encode_inputs(), profile.encode_outcomes() if labels else None


def _profiled(
    rows: Iterable[pa.RecordBatch],
    layout: Layout,
    hours: int,
    wanted: Collection[int],
    inputs: bool,
    labels: bool,
) -> dict[int, Profile]:
    """Return the profiles of the wanted hours or days, or their outcomes alone.

    A day is merged from its hours as they would be stored: the same bytes whether they ever were or not.
    """
    found = kernel.profile_buckets(rows, layout, hours=1)
    if hours == 1:
        return {hour: profile for hour, profile in found.items() if hour in wanted}
    parts: dict[int, list[tuple[bytes | None, bytes | None]]] = {}
    for hour, profile in sorted(found.items()):
        day = hour // DAY_HOURS * DAY_HOURS
        if day in wanted:
            encoded = profile.encode_inputs() if inputs else None, profile.encode_outcomes() if labels else None
            parts.setdefault(day, []).append(encoded)
    return {day: summed(layout, encoded) for day, encoded in parts.items()}


def _spans(wanted: set[int], hours: int, counts: dict[int, int]) -> Iterator[Span]:
    """Yield spans that cover the wanted buckets: together what lies close, apart what is too much for one go."""
    first = last = None
    rows = 0
    for bucket in sorted(wanted):
        more = sum(counts.get(hour, 0) for hour in range(bucket, bucket + hours))
        if first is not None and last is not None and (bucket - last > GAP_HOURS or rows + more > SORTED_ROWS):
            yield Span(bucket_start(first), bucket_start(last))
            first, rows = None, 0
        if first is None:
            first = bucket
        last, rows = bucket + hours, rows + more
    if first is not None and last is not None:
        yield Span(bucket_start(first), bucket_start(last))


def _newest_segment(session: Session, version_id: int) -> int:
    return int(session.scalar(select(func.max(SegmentRow.id)).where(SegmentRow.version_id == version_id)) or 0)


def _days(spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Return the first and last bucket of each stretch of whole days that spans lie in."""
    found: list[tuple[int, int]] = []
    for span in sorted(spans):
        first = span.hours[0] // DAY_HOURS * DAY_HOURS
        last = span.hours[-1] // DAY_HOURS * DAY_HOURS + DAY_HOURS - 1
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def row_counts(
    session: Session, model_id: int, version_id: int, span: Span, kind: str = "predictions"
) -> dict[int, int]:
    """Return the sealed predictions of a version by bucket, in hours since 1970; buckets without any are absent.

    Of another ``kind``, what else arrives.
    """
    hours = span.hours
    return _counts(session, model_id, version_id, [(hours[0], hours[-1])], kind) if len(hours) else {}


def _counts(
    session: Session,
    model_id: int,
    version_id: int,
    stretches: Sequence[tuple[int, int]],
    kind: str = "predictions",
) -> dict[int, int]:
    found = session.execute(
        select(ArrivalRow.bucket, ArrivalRow.accepted).where(
            ArrivalRow.model_id == model_id,
            ArrivalRow.version_id == version_id,
            ArrivalRow.kind == kind,
            ArrivalRow.accepted > 0,
            or_(*(ArrivalRow.bucket.between(first, last) for first, last in stretches)),
        )
    )
    return {int(bucket): int(rows) for bucket, rows in found}


def watermark(session: Session, model: ModelRow, clock: Clock, settings: Settings) -> datetime:
    """Return the moment up to which a model's events are taken to be complete.

    The clock minus the lateness; while a replay is open, the greatest sealed event time of its span minus the
    lateness (the replay's start where nothing has come), but never later than the clock allows.
    """
    lateness = timedelta(seconds=settings.lateness_seconds)
    reached = clock.now() - lateness
    replay = session.execute(
        select(ReplayRow.starts_at, ReplayRow.ends_at)
        .where(ReplayRow.model_id == model.id, ReplayRow.closed_at.is_(None))
        .order_by(ReplayRow.id.desc())
        .limit(1)
    ).first()
    if replay is None:
        return reached
    bucket = session.scalar(
        select(func.max(ArrivalRow.bucket)).where(
            ArrivalRow.model_id == model.id,
            ArrivalRow.kind == "predictions",
            ArrivalRow.accepted > 0,
            ArrivalRow.bucket >= bucket_of(replay.starts_at),
            ArrivalRow.bucket <= bucket_of(replay.ends_at),
        )
    )
    if bucket is None:
        start: datetime = replay.starts_at
        return min(reached, start)
    newest = session.scalar(select(func.max(VersionRow.last_event_at)).where(VersionRow.model_id == model.id))
    begun = bucket_start(int(bucket))
    seen = newest if newest is not None and begun <= newest < begun + HOUR else begun
    return min(reached, seen - lateness)
