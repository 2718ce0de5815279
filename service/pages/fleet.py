"""The fleet page from the database: models, versions, and how their monitors stand; no run and no result is read."""

from sqlalchemy import select

from dashboards import formats
from dashboards.fleet import Coverage, FleetPage, FleetRow, Share, Tally, worst_first
from dashboards.page import Empty, ModelLink, Spark
from dashboards.standing import Standing, standing_of
from service.api.depends import visible
from service.pages import commands
from service.pages.visit import Visit, fleet_standings, is_stale, standing_of_status
from service.runs import BLIND_AFTER
from service.tables import AlertRow, ModelRow, ModelStatusRow, VersionRow

SHOWN = 200


def build(visit: Visit) -> FleetPage:
    """Return the fleet as the reader may see it."""
    session = visit.session
    models = list(session.scalars(visible(visit.principal, select(ModelRow).where(ModelRow.archived_at.is_(None)))))
    standings = fleet_standings(session, models, visit.now)
    versions = {row.id: row for row in session.scalars(select(VersionRow))}
    newest_last = select(AlertRow.model_id, AlertRow.sentence).where(AlertRow.state == "open").order_by(AlertRow.id)
    sentences = dict(session.execute(newest_last).tuples().all())
    rows = []
    for model in models:
        standing, statuses, opened, monitors = standings[model.id]
        version = versions.get(model.active_version_id or 0)
        rows.append(_row(visit, model, version, standing, statuses, opened, monitors, sentences.get(model.id, "")))
    ordered = worst_first(rows)
    wanted = visit.view.q.casefold()
    shown = [
        row
        for row in ordered
        if not wanted or wanted in row.model.casefold() or any(wanted in tag.casefold() for tag in row.tags)
    ]
    return FleetPage(
        frame=visit.frame(models=[ModelLink(name=row.model, standing=row.standing) for row in ordered]),
        title="Fleet",
        view=visit.view,
        tallies=_tallies(ordered),
        rows=tuple(shown[:SHOWN]),
        shown_note=f"The {SHOWN} worst of {len(shown)}; filter to see others." if len(shown) > SHOWN else "",
        empty=None if models else _empty(visit),
    )


def _row(
    visit: Visit,
    model: ModelRow,
    version: VersionRow | None,
    standing: Standing,
    statuses: list[ModelStatusRow],
    opened: int,
    monitors: int,
    sentence: str,
) -> FleetRow:
    drift = [row for row in statuses if row.kind == "data_drift"]
    longest = max(statuses, key=lambda row: len(row.recent), default=None)
    recent = longest.recent if longest is not None else []
    worst = _worst_windows(statuses)
    return FleetRow(
        model=model.name,
        task=model.task,
        version=version.name if version is not None else None,
        registered=version is None or version.registered,
        standing=standing,
        reason=sentence or _reason(visit, version, statuses, monitors),
        open_alerts=opened,
        last_record=version.last_event_at if version is not None else None,
        rows=int(recent[-1][2]) if recent else None,
        volume=Spark.of([float(entry[2]) for entry in recent], None, f"records in the last {len(recent)} windows"),
        windows=Spark(
            heights=tuple(0.0 for _ in worst),
            standings=tuple(worst),
            label=f"{sum(one is Standing.VIOLATED for one in worst)} of the last {len(worst)} windows violated",
        ),
        drift=Share(
            violated=sum(row.violated for row in drift),
            measured=sum(row.violated + row.ok for row in drift),
            unmeasured=sum(row.not_measured for row in drift),
        )
        if drift
        else None,
        coverage=Coverage(
            measured=sum(row.ok + row.violated > 0 for row in statuses),
            total=max(monitors, len(statuses)),
            blind=sum(row.unmeasured >= BLIND_AFTER for row in statuses),
            failing=sum(row.failures > 0 for row in statuses),
        ),
        tags=tuple(f"{name}: {value}" for name, value in sorted(model.tags.items())),
    )


def _worst_windows(statuses: list[ModelStatusRow]) -> list[Standing]:
    """Return how the last windows stood, each as its worst monitor."""
    ends: dict[str, Standing] = {}
    for row in statuses:
        for end, status, *_ in row.recent:
            standing = standing_of(status)
            known = ends.get(end)
            # A monitor that measured nothing does not hide one that did.
            if known is None or (standing.rank < known.rank) or known is Standing.NOT_MEASURED:
                ends[end] = standing
    return [ends[end] for end in sorted(ends)][-30:]


def _reason(visit: Visit, version: VersionRow | None, statuses: list[ModelStatusRow], monitors: int) -> str:
    if version is None:
        return "No record and no baseline yet."
    if not monitors:
        return "Nothing is watched: no monitor is switched on."
    if not statuses:
        return "Waiting for the first whole window."
    first = min(statuses, key=lambda row: standing_of_status(row).rank)
    standing, kind = standing_of_status(first), first.kind.replace("_", " ")
    if standing is not Standing.OK:
        return f"{kind}: {first.reason}" if first.reason else f"{kind}: {standing.words.lower()}"
    if is_stale(statuses, version.last_event_at, visit.now) and version.last_event_at is not None:
        return f"No record since {formats.moment(version.last_event_at)} UTC."
    if len(statuses) < monitors:
        return f"{monitors - len(statuses)} of {formats.plural(monitors, 'monitor')} have not looked yet."
    checks = sum(row.ok for row in statuses)
    return f"Nothing beyond its limit: {formats.plural(checks, 'check')} by {formats.plural(len(statuses), 'monitor')}."


def _tallies(rows: tuple[FleetRow, ...]) -> tuple[Tally, ...]:
    heed = sum(row.standing.heed for row in rows)
    alerts = sum(row.open_alerts for row in rows)
    measured, total = sum(row.coverage.measured for row in rows), sum(row.coverage.total for row in rows)
    moved = sum(row.drift.violated for row in rows if row.drift)
    columns = sum(row.drift.measured for row in rows if row.drift)
    return (
        Tally(label="Models", value=formats.number(len(rows))),
        Tally(
            label="Need attention",
            value=formats.number(heed),
            of=f"of {len(rows)}",
            standing=Standing.VIOLATED if heed else None,
        ),
        Tally(label="Open alerts", value=formats.number(alerts), standing=Standing.VIOLATED if alerts else None),
        Tally(label="Drifted features", value=formats.number(moved), of=f"of {columns} measured"),
        Tally(
            label="Monitors that measured",
            value=formats.number(measured),
            of=f"of {total}",
            standing=Standing.PARTIAL if measured < total else None,
        ),
    )


def _empty(visit: Visit) -> Empty:
    base = visit.parts.settings.public_url.rstrip("/")
    return Empty(
        title="No model yet",
        text="Name a model, store a baseline and post its predictions; the schema is learnt from the rows.",
        commands=(
            commands.post("Name a model", f"{base}/v1/models", {"name": "credit-risk", "task": "binary"}),
            commands.replay("Or replay a file of history, with everything that is missing made on the way", base),
        ),
    )
