"""How monitors and models stand, from what the database says of their last windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from dashboards.standing import Standing, standing_of
from service.tables import AlertRow, ModelRow, ModelStatusRow, MonitorRow, VersionRow
from service.windows import LENGTHS
from service.words import DAY

OPEN_STATES = ("open", "acknowledged")


@dataclass(frozen=True, slots=True)
class Stand:
    """What is stored of a monitor's last window, and how long its windows are."""

    row: ModelStatusRow
    length: timedelta

    @property
    def standing(self) -> Standing:
        """How the monitor stands: failing counts before what its last window said."""
        return Standing.FAILED if self.row.failures else standing_of(self.row.status)


@dataclass(frozen=True, slots=True)
class ModelStand:
    """How a model stands in its active version, and why: its monitors, its open alerts, how many watch."""

    standing: Standing
    stands: tuple[Stand, ...]
    open_alerts: int
    monitors: int
    stale: bool


def stand_of(row: ModelStatusRow, window: str) -> Stand:
    """Return how a monitor with windows of that length stands."""
    return Stand(row, LENGTHS.get(window, DAY))


def is_stale(stands: Sequence[Stand], last: datetime | None, now: datetime) -> bool:
    """Return whether the newest record is older than three of the shortest windows (of a day, where none ran)."""
    if last is None:
        return False
    shortest = min((stand.length for stand in stands), default=DAY)
    return now - last > max(3 * shortest, timedelta(hours=3))


def model_standing(stands: Sequence[Stand], open_alerts: int, monitors: int, stale: bool) -> Standing:
    """Return how a model stands: as its worst monitor, never green where one is silent, partial or missing."""
    if not stands:
        return Standing.VIOLATED if open_alerts else Standing.WAITING if monitors else Standing.NOT_MEASURED
    standings = [stand.standing for stand in stands]
    if open_alerts:
        standings.append(Standing.VIOLATED)
    if len(stands) < monitors:
        standings.append(Standing.WAITING)
    if stale:
        standings.append(Standing.STALE)
    return min(standings, key=lambda standing: standing.rank)


def fleet_stands(session: Session, models: Sequence[ModelRow], now: datetime) -> dict[int, ModelStand]:
    """Return for each model, by its id, how it stands; the rows come without their recent windows."""
    stands: dict[int, list[Stand]] = {}
    for row, window in session.execute(
        select(ModelStatusRow, MonitorRow.window)
        .join(MonitorRow, MonitorRow.id == ModelStatusRow.monitor_id)
        .options(defer(ModelStatusRow.recent))
    ):
        stands.setdefault(row.version_id, []).append(stand_of(row, window))
    alerts = _counted(
        session.execute(
            select(AlertRow.model_id, func.count()).where(AlertRow.state.in_(OPEN_STATES)).group_by(AlertRow.model_id)
        )
    )
    monitors = _counted(
        session.execute(
            select(MonitorRow.model_id, func.count()).where(MonitorRow.enabled.is_(True)).group_by(MonitorRow.model_id)
        )
    )
    last = dict(session.execute(select(VersionRow.id, VersionRow.last_event_at)).all())
    found = {}
    for model in models:
        version_id = model.active_version_id or 0
        mine = tuple(stands.get(version_id, ()))
        opened, total = alerts.get(model.id, 0), monitors.get(model.id, 0)
        stale = bool(mine) and is_stale(mine, last.get(version_id), now)
        found[model.id] = ModelStand(model_standing(mine, opened, total, stale), mine, opened, total, stale)
    return found


def _counted(rows: Any) -> dict[int, int]:
    return {int(key): int(count) for key, count in rows}
