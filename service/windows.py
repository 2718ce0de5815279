"""Which windows are due: derived from the schedule, the last window and the watermark, never remembered."""

import calendar
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from apscheduler.triggers.cron import CronTrigger

from service.database import EPOCH
from service.problems import Fault, Unprocessable
from service.words import DAY, HOUR, Span, parse_duration

PERIODS = {"hourly": "1h", "daily": "1d", "weekly": "7d", "monthly": "1mo"}
LENGTHS = {"1h": HOUR, "1d": DAY, "7d": 7 * DAY, "1mo": 30 * DAY}
"""The lengths a window may have; a month counts as 30 days where only a length is asked for."""
MONDAY = EPOCH + 4 * DAY
_NUMBERED_DAY = re.compile(r"\d")


@dataclass(frozen=True)
class Grid:
    """The windows of a schedule: one ends at each of its moments and is so long.

    ``schedule`` is hourly, daily, weekly, monthly or a cron line in UTC with names of days; ``window`` is 1h, 1d, 7d
    or 1mo; ``offset`` moves the ends of hours, days, weeks and months by whole hours.
    """

    schedule: str
    window: str
    offset: timedelta = timedelta()

    @property
    def is_cron(self) -> bool:
        """Whether the moments are those of a cron line."""
        return self.schedule not in PERIODS

    @property
    def tiles(self) -> bool:
        """Whether windows follow each other without gap or overlap."""
        return PERIODS.get(self.schedule) == self.window

    @property
    def spent(self) -> timedelta:
        """The length that a window spends of the alarm budget: not more than lies between two windows."""
        length = LENGTHS[self.window]
        if not self.is_cron:
            return min(length, LENGTHS[PERIODS[self.schedule]])
        ends = self.ends_after(MONDAY)
        first, second = next(ends), next(ends)
        return min(length, second - first)

    def ends_after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moments strictly after one, without end."""
        if self.is_cron:
            trigger = CronTrigger.from_crontab(self.schedule, timezone="UTC")
            while True:
                found = trigger.get_next_fire_time(None, moment + timedelta(microseconds=1))
                if found is None:
                    return
                moment = found
                yield moment
        end = self._floor(moment)
        while True:
            end = self._next(end)
            yield end

    def last_end(self, after: datetime, until: datetime) -> datetime | None:
        """Return the last of its moments in (after, until]; none where there is none."""
        if not self.is_cron:
            found = self._floor(until)
            return found if found > after else None
        last = None
        for end in self.ends_after(after):
            if end > until:
                break
            last = end
        return last

    def ending(self, end: datetime) -> Span:
        """Return the window that ends at a moment."""
        if self.window == "1mo":
            return Span(_months(end, -1), end)
        return Span(end - LENGTHS[self.window], end)

    def _floor(self, moment: datetime) -> datetime:
        moment -= self.offset
        if self.schedule == "monthly":
            found = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        else:
            length = LENGTHS[PERIODS[self.schedule]]
            start = MONDAY if self.schedule == "weekly" else EPOCH
            found = start + (moment - start) // length * length
        return found + self.offset

    def _next(self, end: datetime) -> datetime:
        if self.schedule == "monthly":
            return _months(end - self.offset, 1) + self.offset
        return end + LENGTHS[PERIODS[self.schedule]]


def grid_of(schedule: str, window: str | None = None, offset: str = "0h") -> Grid:
    """Return the windows of a monitor's settings; a problem names the one that makes no sense."""
    if schedule not in PERIODS:
        _check_cron(schedule)
    window = window or PERIODS.get(schedule, "1d")
    if window not in LENGTHS:
        detail = f"{window!r} is not a window; one of {', '.join(LENGTHS)}"
        raise Unprocessable(detail, faults=[Fault("/window", "bad_window", detail)])
    moved = parse_duration(offset, "/offset")
    if moved % HOUR:
        detail = "windows begin and end on whole hours"
        raise Unprocessable(detail, faults=[Fault("/offset", "not_whole_hours", detail)])
    return Grid(schedule, window, moved)


def _check_cron(line: str) -> None:
    parts = line.split()
    detail = ""
    if len(parts) != 5:
        detail = f"{line!r} is neither hourly, daily, weekly, monthly nor a cron line of five fields"
    elif parts[0] != "0":
        detail = "windows end on whole hours: the first field of a cron line, the minute, is 0"
    elif _NUMBERED_DAY.search(parts[4]):
        detail = "days of the week are named (mon, tue, …): their numbers mean different days to different tools"
    else:
        try:
            CronTrigger.from_crontab(line, timezone="UTC")
        except ValueError as error:
            detail = f"{line!r} is not a cron line: {error}"
    if detail:
        raise Unprocessable(detail, faults=[Fault("/schedule", "bad_schedule", detail)])


def _months(moment: datetime, by: int) -> datetime:
    """Move a moment by calendar months; a day that the month does not have becomes its last."""
    year, month = divmod(moment.year * 12 + moment.month - 1 + by, 12)
    return moment.replace(year=year, month=month + 1, day=min(moment.day, calendar.monthrange(year, month + 1)[1]))


def due(
    grid: Grid, start: datetime, last: datetime | None, watermark: datetime, cuts: Sequence[datetime] = ()
) -> Iterator[Span]:
    """Yield the windows that are due, in order of time.

    The first is the first whole one at or after `start`; later ones end after `last`, the end of the last window
    recorded; none ends after the watermark. A window that spans one of `cuts` (a baseline comes into force) is cut
    there: where windows follow each other both parts are due, where they overlap the part after the cut.
    """
    cuts = sorted(cut for cut in cuts if cut > start)
    previous = max(last, start) if last is not None else start
    for end in grid.ends_after(previous):
        window = grid.ending(end)
        if end > watermark and not any(previous < cut <= watermark for cut in cuts):
            return
        if window.start < start:
            previous = end
            continue
        inside = [cut for cut in cuts if window.start < cut < end]
        edges = [window.start, *inside, end] if grid.tiles else [max([window.start, *inside]), end]
        for left, right in itertools.pairwise(edges):
            if right <= watermark and (last is None or right > last):
                yield Span(left, right)
        previous = end


def coverage(window: Span, data: Span) -> float:
    """Return the share of the window that lies inside the data."""
    inside = min(window.end, data.end) - max(window.start, data.start)
    return max(0.0, inside / window.length)


def each(span: Span, step: str) -> Iterator[Span]:
    """Yield the whole windows of a length inside a span, aligned as calendars are: of hours, days, weeks, months."""
    grid = Grid({length: name for name, length in PERIODS.items()}[step], step)
    for end in grid.ends_after(span.start):
        if end > span.end:
            return
        window = grid.ending(end)
        if window.start >= span.start:
            yield window
