"""How numbers, times and ages are written: at most four digits that mean something, UTC, with the age beside."""

import math
from datetime import UTC, datetime, timedelta

DASH = "—"


def number(value: float | int | None, digits: int = 4) -> str:
    """Return at most so many significant digits, thousands apart by a thin space, counts in full; none is a dash."""
    if value is None or not math.isfinite(value):
        return DASH
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "\u2212")
    if value and not 1e-4 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.{digits - 2}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "\u2212")
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}".replace(",", "\u202f")
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "\u2212")


def compact(value: float | None) -> str:
    """Return a count in three digits and k, M or G."""
    if value is None:
        return DASH
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{number(value / (1e3 if unit == 'k' else size), 3)}\u202f{unit}"
    return number(value, 3)


def percent(share: float | None) -> str:
    """Return a share as per cent in at most three significant digits."""
    return DASH if share is None else f"{number(share * 100, 3)}\u202f%"


def probability(p: float | None) -> str:
    """Return a p-value in two significant digits, as a bound under 0.0001."""
    if p is None:
        return DASH
    return "< 0.0001" if p < 1e-4 else number(float(f"{p:.2g}"))


def moment(at: datetime) -> str:
    """Return a time in UTC to the minute, seconds only where there are any."""
    text = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return text.removesuffix(":00")


def iso(at: datetime) -> str:
    """Return a time in RFC 3339, UTC."""
    return at.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def day(at: datetime) -> str:
    """Return the UTC date."""
    return at.astimezone(UTC).strftime("%Y-%m-%d")


def last_day(end: datetime) -> str:
    """Return the UTC date of the last moment before an end."""
    return day(end - timedelta(microseconds=1))


def length(of: timedelta) -> str:
    """Return a length of time in its largest whole unit that says enough: ``42 s``, ``3 h``, ``12 d``, ``7.2 y``."""
    seconds = abs(of.total_seconds())
    for unit, size, upto in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 172_800), ("d", 86_400, 86_400 * 730)):
        if seconds < upto:
            return f"{round(seconds / size)} {unit}"
    return f"{seconds / (86_400 * 365.25):.1f} y"


def age(at: datetime, now: datetime) -> str:
    """Return how long ago, or in how long."""
    return f"in {length(at - now)}" if at > now else f"{length(now - at)} ago"


def span(start: datetime, end: datetime) -> str:
    """Return a half-open stretch as people name it: a month, a day, days from and to, or hours of a day."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    midnight = start.hour == end.hour == start.minute == end.minute == 0
    if midnight and start.day == 1 and end == _next_month(start):
        return start.strftime("%B %Y")
    if midnight and end - start == timedelta(days=1):
        return day(start)
    if midnight:
        return f"{day(start)} to {day(end - timedelta(days=1))}"
    if start.date() == end.date() or end - start <= timedelta(days=1):
        return f"{start:%Y-%m-%d %H:%M} to {end:%H:%M}"
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"


def _next_month(start: datetime) -> datetime:
    return (start.replace(day=1) + timedelta(days=32)).replace(day=1)


def listed(names: list[str], at_most: int = 3) -> str:
    """Return names as a sentence does: ``a``, ``a and b``, ``a, b, c and 4 more``."""
    shown, rest = names[:at_most], len(names) - at_most
    if rest > 0:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{number(count)} {noun if count == 1 else many or noun + 's'}"
