"""The one source of time: handed in, so that tests and replays can hold another."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time of day in UTC, and a monotonic time for durations."""

    def now(self) -> datetime:
        """Return the time of day, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...


@dataclass(frozen=True)
class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the machine's time of day."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


@dataclass
class SetClock:
    """A clock that stands until it is moved."""

    at: datetime
    elapsed: float = field(default=0.0)

    def now(self) -> datetime:
        """Return the time that was set."""
        return self.at

    def monotonic(self) -> float:
        """Return the seconds moved so far."""
        return self.elapsed

    def move(self, by: timedelta) -> None:
        """Move both times on."""
        self.at += by
        self.elapsed += by.total_seconds()
