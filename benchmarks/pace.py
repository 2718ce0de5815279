"""How fast this machine is beside the one that the limits were set on, told by a peer that runs in the same run.

The limits of time are for two cores with AVX-512, a quiet machine of 2026-11-22. A figure taken elsewhere is brought
to that machine by what another program takes for its own work, there and here; both figures are printed. A ratio to a
peer says the same in other words: a limit of 0.6 s where SciPy took 2.3 s asks for 3.8 times its speed.
"""

from dataclasses import dataclass

from benchmarks.verdicts import verdict


@dataclass(frozen=True)
class Pace:
    """A peer's time for the same work on both machines, in seconds or in seconds per row."""

    peer: str
    there: float
    here: float

    @property
    def factor(self) -> float:
        """How many times as long this machine takes."""
        return self.here / self.there

    def __str__(self) -> str:
        return f"this machine takes {self.factor:.2f} x as long as the one of the limits: {self.peer}"

    def within(self, what: str, seconds: float, limit: float) -> bool:
        """Print whether a time is within its limit at the pace of the machine of the limits; return that."""
        there = seconds / self.factor
        return verdict(f"{what}: {seconds:.3f} s here, {there:.3f} s there, at most {limit:g}", there <= limit)

    def reaches(self, what: str, rate: float, target: float) -> bool:
        """Print whether a rate, in rows per second, reaches its target at that pace; return that."""
        there = rate * self.factor
        text = f"{what}: {rate:,.0f} rows/s here, {there:,.0f} there, at least {target:,.0f}"
        return verdict(text, there >= target)


def scipy_pace(seconds: float, rows: int) -> Pace:
    """Return the pace by SciPy's ks_2samp and chi2_contingency over 40 numbers and 10 texts, in CPU seconds.

    The baseline has 100,000 rows; known are windows of 1,000,000 rows (2.30 s) and of 100,000 (0.62 s).
    """
    there = {1_000_000: 2.30, 100_000: 0.62}[rows]
    return Pace(f"SciPy's tests of {rows:,} rows took {there:.2f} s there, {seconds:.2f} s here", there, seconds)


def plain_pace(rate: float) -> Pace:
    """Return the pace by a service of FastAPI, pydantic and SQLAlchemy on SQLite that gets JSON of 1,000 records."""
    there = 22_414
    return Pace(f"FastAPI and SQLAlchemy took in {there:,} rows/s there, {rate:,.0f} here", 1 / there, 1 / rate)
