"""How something stands, in the one order, words and shapes that every page uses."""

from enum import StrEnum


class Standing(StrEnum):
    """How a model, a monitor or a number stands, worst first; only `OK` is ever drawn in green."""

    VIOLATED = "violated"
    FAILED = "failed"
    PARTIAL = "partial"
    STALE = "stale"
    WAITING = "waiting"
    NOT_MEASURED = "not_measured"
    OK = "ok"

    @property
    def rank(self) -> int:
        """Its place from the worst, 0, on."""
        return _RANKS[self]

    @property
    def words(self) -> str:
        """What people read."""
        return _WORDS[self]

    @property
    def heed(self) -> bool:
        """Whether somebody should look."""
        return self in (Standing.VIOLATED, Standing.FAILED, Standing.PARTIAL, Standing.STALE)


_RANKS = {standing: rank for rank, standing in enumerate(Standing)}

_WORDS = {
    Standing.VIOLATED: "Violated",
    Standing.FAILED: "Failing",
    Standing.PARTIAL: "Partly measured",
    Standing.STALE: "Stale",
    Standing.WAITING: "Waiting",
    Standing.NOT_MEASURED: "Not measured",
    Standing.OK: "OK",
}

_OF_STATUS = {
    "ok": Standing.OK,
    "violations": Standing.VIOLATED,
    "violated": Standing.VIOLATED,
    "partial": Standing.PARTIAL,
    "failed": Standing.FAILED,
    "queued": Standing.WAITING,
    "running": Standing.WAITING,
    "waiting_for_labels": Standing.WAITING,
    "insufficient_data": Standing.NOT_MEASURED,
    "no_data": Standing.NOT_MEASURED,
    "not_measured": Standing.NOT_MEASURED,
}


def standing_of(status: str | None) -> Standing:
    """Return how a run's status or a result's verdict stands; anything unknown is not measured."""
    return _OF_STATUS.get(status or "", Standing.NOT_MEASURED)


def worst(standings: list[Standing]) -> Standing:
    """Return the worst of some standings; of none, that nothing has been measured yet."""
    return min(standings, key=lambda standing: standing.rank, default=Standing.WAITING)
