"""The fleet page: which model needs somebody now."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.page import Empty, Page, Spark, View
from dashboards.standing import Standing


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many of a model's monitors said something about their last window, and how many are blind or failing."""

    measured: int
    total: int
    blind: int = 0
    failing: int = 0


@dataclass(frozen=True, kw_only=True)
class Share:
    """So many of so many measured; ``unmeasured`` ones beside."""

    violated: int
    measured: int
    unmeasured: int = 0

    @property
    def share(self) -> float | None:
        """The share, none where nothing was measured."""
        return self.violated / self.measured if self.measured else None


@dataclass(frozen=True, kw_only=True)
class FleetRow:
    """One model: how it stands, why, and how fresh that is."""

    model: str
    task: str
    version: str | None
    registered: bool
    standing: Standing
    reason: str
    open_alerts: int
    last_record: datetime | None
    rows: int | None
    volume: Spark
    windows: Spark
    drift: Share | None
    coverage: Coverage
    fairness: Share | None = None
    gap: str = ""
    """The worst gap between groups that is beyond what is accepted."""
    tags: tuple[str, ...] = ()
    performance: Share | None = None
    """Figures of the newest window whose labels are known that got worse; none where nothing needs labels."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """A number of the strip at the top, with what it is out of."""

    label: str
    value: str
    of: str = ""
    standing: Standing | None = None


@dataclass(frozen=True, kw_only=True)
class FleetPage(Page):
    """Every model that the reader may see, worst first."""

    template: ClassVar[str] = "fleet.html"
    view: View
    tallies: tuple[Tally, ...]
    rows: tuple[FleetRow, ...]
    shown_note: str = ""
    empty: Empty | None = None


def worst_first(rows: list[FleetRow]) -> tuple[FleetRow, ...]:
    """Order models by how they stand, open alerts, share of drifted columns, then name."""
    return tuple(
        sorted(
            rows,
            key=lambda row: (row.standing.rank, -row.open_alerts, -((row.drift and row.drift.share) or 0.0), row.model),
        )
    )
