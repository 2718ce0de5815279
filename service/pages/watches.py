"""The monitors page of a model from the database: what is watched, and the newest runs."""

import json

from sqlalchemy import select
from sqlalchemy.orm import defer

from dashboards import formats
from dashboards.page import Spark
from dashboards.standing import Standing, standing_of
from dashboards.watches import MonitorLine, MonitorsPage, RunLine
from service.pages.drift import policy_words
from service.pages.standings import Stand
from service.pages.visit import ModelVisit, Visit
from service.tables import MonitorRow, RunRow
from service.windows import grid_of

RUNS = 60


def build(visit: Visit, name: str) -> MonitorsPage:
    """Return what is watched and what the newest runs found."""
    at = ModelVisit.to(visit, name)
    _preset, start, end = at.range
    stands = {stand.row.monitor_id: stand for stand, _ in at.statuses}
    budget = at.model.alarm_budget
    judged = sum(monitor.enabled and "threshold" not in monitor.policy for monitor in at.monitors)
    empty = at.empty()
    return MonitorsPage(
        frame=visit.frame(at.model.name),
        title=f"{at.model.name} · monitors",
        banners=at.banners(),
        head=at.head(),
        view=at.view,
        section="monitors",
        start=start,
        end=end,
        empty=empty if not at.monitors else None,
        monitors=tuple(_line(at, monitor, stands.get(monitor.id)) for monitor in at.monitors),
        runs=_runs(at),
        budget=f"This model accepts at most {formats.number(float(budget.get('at_most', 1)))} false alarm"
        f" in {budget.get('per', '30d')}, shared by {formats.plural(judged, 'monitor')} that judge by it.",
    )


def _line(at: ModelVisit, monitor: MonitorRow, stand: Stand | None) -> MonitorLine:
    row = stand.row if stand is not None else None
    standings = [standing_of(entry[1]) for entry in row.recent] if row is not None else []
    standing = stand.standing if stand is not None else Standing.WAITING
    configuration = {
        "name": monitor.name,
        "kind": monitor.kind,
        "schedule": monitor.schedule,
        "window": monitor.window,
        "versions": monitor.versions,
        "baseline": monitor.baseline,
        "parameters": monitor.parameters,
        "policy": monitor.policy,
        "labels": monitor.labels,
        "slices": monitor.slices,
        "actions": monitor.actions,
        "enabled": monitor.enabled,
    }
    grid = grid_of(monitor.schedule, monitor.window, monitor.offset)
    due = next(grid.ends_after(row.ends_at), None) if row is not None and monitor.enabled else None
    stale = due is not None and due < at.visit.now and any(alert.replayed for alert in at.alerts)
    return MonitorLine(
        name=monitor.name,
        kind=monitor.kind,
        schedule=monitor.schedule,
        window=monitor.window,
        baseline=monitor.baseline,
        policy=policy_words(monitor).removeprefix("judged by "),
        enabled=monitor.enabled,
        standing=standing,
        reason=row.reason if row is not None else "Waiting for its first whole window.",
        last_end=row.ends_at if row is not None else None,
        next_due=None if stale else due,
        rows=row.rows if row is not None else None,
        ok=row.ok if row is not None else 0,
        violated=row.violated if row is not None else 0,
        not_measured=row.not_measured if row is not None else 0,
        recent=Spark(
            heights=tuple(0.0 for _ in standings),
            standings=tuple(standings),
            label=f"{sum(one is Standing.VIOLATED for one in standings)} of the last {len(standings)} windows violated",
        ),
        configuration=json.dumps(configuration, indent=2, ensure_ascii=False),
    )


def _runs(at: ModelVisit) -> tuple[RunLine, ...]:
    if at.version is None:
        return ()
    names = {monitor.id: monitor.name for monitor in at.monitors}
    rows = at.session.scalars(
        select(RunRow)
        .where(RunRow.version_id == at.version.id, RunRow.current.is_(True))
        .order_by(RunRow.ends_at.desc(), RunRow.id.desc())
        .limit(RUNS)
        .options(defer(RunRow.document))
    )
    return tuple(
        RunLine(
            uid=run.uid,
            monitor=names.get(run.monitor_id, ""),
            start=run.starts_at,
            end=run.ends_at,
            standing=standing_of(run.status),
            status=run.status,
            reason=run.reason if run.status != "violations" else "",
            revision=run.revision,
            rows=run.rows,
            ok=run.ok,
            violated=run.violated,
            not_measured=run.not_measured,
            finished_at=run.finished_at,
            seconds=(run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else None,
        )
        for run in rows
    )
