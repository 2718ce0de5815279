"""Words of the interface that many places read: times, durations, spans, buckets, ids, and the one spelling of text."""

import os
import re
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.database import EPOCH
from service.problems import Fault, Unprocessable

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
UNFINISHED = ("queued", "running")
"""The states of a run or a job that is not over."""
NAMESPACE = uuid.UUID("6d1f7f0e-6f0b-5c1e-9a51-8f6d2f0c7a10")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_DURATION = re.compile(r"^(\d{1,6})(s|m|h|d|w|mo)$")
_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": HOUR, "d": DAY, "w": 7 * DAY}


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open stretch of time, UTC."""

    start: datetime
    end: datetime

    @property
    def hours(self) -> range:
        """The buckets inside, in hours since 1970."""
        return range(bucket_of(self.start), bucket_of(self.end - timedelta(microseconds=1)) + 1)

    @property
    def length(self) -> timedelta:
        """How long it is."""
        return self.end - self.start


def bucket_of(moment: datetime) -> int:
    """Return the hours since 1970 of the bucket that holds the moment."""
    return (moment - EPOCH) // HOUR


def bucket_start(bucket: int) -> datetime:
    """Return the moment a bucket begins."""
    return EPOCH + bucket * HOUR


def parse_time(text: str, pointer: str = "") -> datetime:
    """Read an RFC 3339 time with an offset as UTC; anything else is a problem that names the place."""
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        moment = None
    if moment is None or moment.tzinfo is None:
        detail = f"{text!r} is not a time with an offset, such as 2026-11-22T13:00:00Z"
        raise Unprocessable(detail, faults=[Fault(pointer, "bad_time", detail)])
    return moment.astimezone(UTC)


def format_time(moment: datetime) -> str:
    """Write a time in RFC 3339, UTC, with Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_duration(text: str, pointer: str = "") -> timedelta:
    """Read ``90s``, ``15m``, ``1h``, ``7d``, ``2w`` or ``1mo`` (30 days where only a length is asked for)."""
    match = _DURATION.match(text)
    if not match:
        detail = f"{text!r} is not a duration such as 1h, 7d or 1mo"
        raise Unprocessable(detail, faults=[Fault(pointer, "bad_duration", detail)])
    number, unit = int(match[1]), match[2]
    return number * (30 * DAY if unit == "mo" else _UNITS[unit])


def checked_name(text: str, pointer: str = "/name") -> str:
    """Return a name that is safe to show and to put into a URL, else a problem."""
    if not NAME.match(text):
        detail = "a name has 1 to 128 of A-Z a-z 0-9 . _ - and begins with a letter or digit"
        raise Unprocessable(detail, faults=[Fault(pointer, "bad_name", detail)])
    return text


def new_id() -> str:
    """Return a UUIDv7 as 32 hexadecimal digits: sorted by time of making."""
    drawn = os.urandom(10)
    digits = drawn.hex()
    return f"{time.time_ns() // 1_000_000:012x}7{digits[:3]}{'89ab'[drawn[9] & 3]}{digits[3:18]}"


def derived_id(*parts: object) -> str:
    """Return the same 32 hexadecimal digits for the same parts, always (UUIDv5)."""
    return uuid.uuid5(NAMESPACE, "\x1f".join(str(part) for part in parts)).hex


def text_of(value: object) -> str:
    """Return the one spelling of a value as text: whole floats without ``.0``, booleans ``true`` and ``false``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**63 else repr(value)
    return str(value)
