"""The overview of a model from the database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from dashboards import charts, formats
from dashboards.overview import OpenAlert, OverviewPage, Tile
from dashboards.page import Spark
from dashboards.standing import Standing, standing_of
from monitors import discovery
from service.alerts import badness, label, planned_changes
from service.pages import retrainings
from service.pages.standings import Stand
from service.pages.visit import ModelVisit, Visit
from service.runs import decode_results
from service.tables import AlertRow, ArrivalRow, BaselineRow, MonitorRow, RunRow
from service.windows import LENGTHS
from service.words import DAY, Span, bucket_of, bucket_start

WINDOWS = 120
WEEK_HOURS = 168
MONDAY_HOURS = 96
"""1970 began on a Thursday; its first Monday came four days later."""
BARS = 130
"""How many bars of records are drawn at most: hours, days or weeks, whichever fit."""


def build(visit: Visit, name: str) -> OverviewPage:
    """Return a verdict, a tile for each monitor, and what happened when."""
    at = ModelVisit.to(visit, name)
    _preset, start, end = at.range
    empty = at.empty()
    tiles = tuple(_tile(at, stand, monitor) for stand, monitor in at.statuses)
    waiting = [
        monitor
        for monitor in at.monitors
        if monitor.enabled and monitor.id not in {stand.row.monitor_id for stand, _ in at.statuses}
    ]
    tiles += tuple(_waiting(monitor) for monitor in waiting) if not empty else ()
    verdict, since = _verdict(at, tiles)
    return OverviewPage(
        frame=visit.frame(at.model.name),
        title=at.model.name,
        banners=at.banners(),
        head=at.head(),
        view=at.view,
        section="",
        start=start,
        end=end,
        empty=empty,
        verdict=verdict,
        since=since,
        note=at.model.note,
        tiles=tiles,
        alerts=tuple(
            OpenAlert(
                uid=alert.uid,
                sentence=alert.sentence,
                severity=alert.severity,
                state=alert.state,
                opened_at=alert.opened_at,
                replayed=alert.replayed,
            )
            for alert in at.alerts
        ),
        charts=() if empty else tuple(_charts(at, start, end)),
    )


def page_of(kind: str) -> str:
    """Return the page that shows what a kind of monitor found."""
    found = discovery.kinds().get(kind)
    return found.page if found is not None else "results"


def _words(kind: str) -> tuple[str, str, str]:
    """Return a kind's title, and how its findings are told."""
    found = discovery.kinds().get(kind)
    if found is None:
        return kind.replace("_", " ").capitalize(), "results", "violated"
    return found.title, *found.told


def _tile(at: ModelVisit, stand: Stand, monitor: MonitorRow) -> Tile:
    row, standing = stand.row, stand.standing
    run = at.session.scalar(select(RunRow).where(RunRow.uid == row.run_uid))
    title, noun, verb = _words(row.kind)
    measured = row.ok + row.violated
    violated = violated_subjects(decode_results(run.document)) if run is not None else []
    if violated:
        reason = f"{formats.listed(violated)}."
    else:
        reason = row.reason or ("Nothing beyond its limit." if standing is Standing.OK else standing.words + ".")
    alpha = run.alpha if run is not None else None
    standings = [standing_of(entry[1]) for entry in row.recent]
    return Tile(
        monitor=monitor.name,
        kind=row.kind,
        title=title if title.casefold().replace(" ", "_") == monitor.name.casefold() else f"{title} · {monitor.name}",
        standing=standing,
        value=formats.number(row.violated) if measured else formats.DASH,
        of=f"of {formats.number(measured)} {noun} {verb}" if measured else "not measured",
        limit=_limit(monitor, alpha),
        reason=reason,
        rows=row.rows,
        start=run.starts_at if run is not None else None,
        end=run.ends_at if run is not None else None,
        measured_at=row.updated_at,
        violated=row.violated,
        ok=row.ok,
        not_measured=row.not_measured,
        spark=Spark(
            heights=tuple(0.0 for _ in standings),
            standings=tuple(standings),
            label=f"{sum(one is Standing.VIOLATED for one in standings)} of the last {len(standings)} windows violated",
        ),
        page=page_of(row.kind),
    )


def _waiting(monitor: MonitorRow) -> Tile:
    title, _, _ = _words(monitor.kind)
    return Tile(
        monitor=monitor.name,
        kind=monitor.kind,
        title=title,
        standing=Standing.WAITING,
        value=formats.DASH,
        of="no window yet",
        limit=_limit(monitor, None),
        reason="Waiting for its first whole window.",
        rows=None,
        start=None,
        end=None,
        measured_at=None,
        violated=0,
        ok=0,
        not_measured=0,
        spark=Spark(),
        page="monitors",
    )


def _limit(monitor: MonitorRow, alpha: float | None) -> str:
    if "threshold" in monitor.policy:
        return "fixed thresholds"
    return f"α {formats.probability(alpha)} by the alarm budget" if alpha is not None else "alarm budget"


def violated_subjects(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return what was violated, furthest past its limit first, each once."""
    bad = sorted((one for one in results if one.get("verdict") == "violated"), key=badness, reverse=True)
    return list(dict.fromkeys(label(one) for one in bad))


def _verdict(at: ModelVisit, tiles: Sequence[Tile]) -> tuple[str, str]:
    standing = at.standing
    bad = [tile for tile in tiles if tile.standing is Standing.VIOLATED]
    episode = next((alert for alert in reversed(at.alerts) if alert.kind == "episode"), None)
    since = f"Since the window from {formats.moment(episode.starts_at)} UTC." if episode is not None else ""
    if bad:
        also = f" Also {formats.listed([tile.title.lower() for tile in bad[1:]])}." if bad[1:] else ""
        return f"{bad[0].title}: {bad[0].value} {bad[0].of}: {bad[0].reason}{also}", since
    if standing is Standing.VIOLATED:
        return "The last window is within its limits, but an episode is still open.", since
    if standing is Standing.OK:
        checks = sum(tile.ok for tile in tiles)
        by = formats.plural(len(tiles), "monitor")
        return f"Nothing is beyond its limit: {formats.plural(checks, 'check')} by {by}.", ""
    worst = min(tiles, key=lambda tile: tile.standing.rank, default=None)
    if worst is None:
        return "Nothing has been measured yet.", ""
    if standing is Standing.STALE:
        return "When the last record came, nothing was beyond its limit.", ""
    return f"{worst.title}: {worst.standing.words.lower()}. {worst.reason}", ""


def _charts(at: ModelVisit, start: datetime, end: datetime) -> list[charts.Chart]:
    made = []
    events = _events(at, start, end)
    if events:
        made.append(charts.event_lane(events, start, end))
    runs = at.runs(at.monitors, WINDOWS, documents=False)
    if runs:
        made.append(_strip(at, runs))
    if counts := volumes(at, start, end):
        made.append(charts.volumes("volume", "Records that arrived", counts))
    return made


def _strip(at: ModelVisit, runs: Sequence[RunRow]) -> charts.Chart:
    monitors = {monitor.id: monitor for monitor in at.monitors}
    shown = [monitor for monitor in at.monitors if any(run.monitor_id == monitor.id for run in runs)]
    length = min((LENGTHS.get(monitor.window, DAY) for monitor in shown), default=DAY)
    marks = [
        charts.WindowMark(
            monitor=monitors[run.monitor_id].name,
            start=run.starts_at,
            end=run.ends_at,
            standing=standing_of(run.status),
            rows=run.rows,
            violated=run.violated,
            measured=run.ok + run.violated,
            reason=run.reason,
            href=at.visit.links.model(
                at.model.name,
                page_of(monitors[run.monitor_id].kind),
                at.view.query(window=run.starts_at, monitor=monitors[run.monitor_id].name),
            ),
        )
        for run in runs
    ]
    return charts.window_strip(marks, [monitor.name for monitor in shown], length)


def _events(at: ModelVisit, start: datetime, end: datetime) -> list[charts.Event]:
    found = []
    for alert in at.session.scalars(
        select(AlertRow)
        .where(AlertRow.model_id == at.model.id, AlertRow.starts_at < end, AlertRow.last_violated_at > start)
        .order_by(AlertRow.id.desc())
        .limit(200)
    ):
        over = alert.state == "resolved"
        standing = Standing.VIOLATED if not over else Standing.NOT_MEASURED
        what = f"{alert.kind}, {alert.state}" + (f" ({alert.resolution})" if alert.resolution else "")
        found.append(
            charts.Event(lane="Alerts", what=what, start=alert.starts_at, end=alert.last_violated_at, standing=standing)
        )
    found += [
        charts.Event(
            lane="Retraining",
            what=told,
            start=row.moment,
            end=row.finished_at if row.finished_at is not None and not row.replayed else row.moment,
            standing=retrainings.STANDINGS.get(row.state, Standing.WAITING),
        )
        for row, told in retrainings.events(at)
    ]
    found += [
        charts.Event(
            lane="Planned",
            what=f"{entry.title} ({entry.effect}s alerts)",
            start=max(entry.starts_at, start),
            end=min(entry.ends_at, end),
            standing=Standing.NOT_MEASURED,
        )
        for entry in planned_changes(at.session, at.model.id, Span(start, end))
    ]
    for baseline in at.session.scalars(
        select(BaselineRow).where(BaselineRow.model_id == at.model.id, BaselineRow.active_from.is_not(None))
    ):
        active = baseline.active_from or start
        found.append(charts.Event(lane="Baselines", what=f"baseline {baseline.name}", start=max(active, start)))
    found += [
        charts.Event(lane="Versions", what=f"version {version.name}", start=max(version.first_event_at, start))
        for version in at.versions
        if version.first_event_at is not None
    ]
    return [event for event in found if event.start <= end]


def volumes(at: ModelVisit, start: datetime, end: datetime) -> list[charts.Volume]:
    """Return the sealed predictions per hour, day or week (from Monday): the shortest of which not too many fit."""
    if at.version is None:
        return []
    first, last = bucket_of(start), bucket_of(end)
    hours = next((size for size in (1, 24) if (last - first) / size <= BARS), WEEK_HOURS)
    shift = MONDAY_HOURS if hours == WEEK_HOURS else 0
    rows = at.session.execute(
        select(
            ArrivalRow.bucket,
            func.sum(ArrivalRow.accepted),
            func.sum(ArrivalRow.rejected),
            func.sum(ArrivalRow.late),
            func.sum(ArrivalRow.duplicates),
        )
        .where(
            ArrivalRow.model_id == at.model.id,
            ArrivalRow.version_id == at.version.id,
            ArrivalRow.kind == "predictions",
            ArrivalRow.bucket >= max(first, last - 10 * BARS * WEEK_HOURS),
            ArrivalRow.bucket < last,
        )
        .group_by(ArrivalRow.bucket)
    )
    counts: dict[int, list[int]] = {}
    for bucket, *numbers in rows:
        group = counts.setdefault((int(bucket) - shift) // hours * hours + shift, [0, 0, 0, 0])
        for place, number in enumerate(numbers):
            group[place] += int(number or 0)
    return [
        charts.Volume(
            start=bucket_start(bucket),
            end=bucket_start(bucket + hours),
            accepted=n[0],
            rejected=n[1],
            late=n[2],
            duplicates=n[3],
        )
        for bucket, n in sorted(counts.items())
    ]
