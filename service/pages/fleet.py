"""The fleet page from the database: models, versions, and how their monitors stand; no run and no result is read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dashboards import formats
from dashboards.fleet import Coverage, FleetPage, FleetRow, Share, Tally, worst_first
from dashboards.page import Empty, ModelLink, Spark
from dashboards.standing import Standing, standing_of
from service.api.depends import visible
from service.pages import commands
from service.pages.overview import page_of
from service.pages.standings import ModelStand, fleet_stands
from service.pages.visit import Visit
from service.runs import BLIND_AFTER
from service.tables import AlertRow, ModelRow, ModelStatusRow, VersionRow

SHOWN = 200


def build(visit: Visit) -> FleetPage:
    """Return the fleet as the reader may see it."""
    session = visit.session
    models = list(session.scalars(visible(visit.principal, select(ModelRow).where(ModelRow.archived_at.is_(None)))))
    stands = fleet_stands(session, models, visit.now)
    versions = {row.id: row for row in session.scalars(select(VersionRow))}
    newest_last = select(AlertRow.model_id, AlertRow.sentence).where(AlertRow.state == "open").order_by(AlertRow.id)
    sentences = dict(session.execute(newest_last).all())
    ordered = worst_first(
        [
            _row(model, versions.get(model.active_version_id or 0), stands[model.id], sentences.get(model.id, ""))
            for model in models
        ]
    )
    wanted = visit.view.q.casefold()
    found = [
        row
        for row in ordered
        if not wanted or wanted in row.model.casefold() or any(wanted in tag.casefold() for tag in row.tags)
    ]
    ids = {model.name: model.id for model in models}
    return FleetPage(
        frame=visit.frame(models=[ModelLink(name=row.model, standing=row.standing) for row in ordered]),
        title="Fleet",
        view=visit.view,
        tallies=_tallies(ordered),
        rows=_with_windows(session, found[:SHOWN], [stands[ids[row.model]] for row in found[:SHOWN]]),
        shown_note=f"The {SHOWN} worst of {len(found)}; filter to see others." if len(found) > SHOWN else "",
        empty=None if models else _empty(visit),
    )


def _row(model: ModelRow, version: VersionRow | None, stand: ModelStand, sentence: str) -> FleetRow:
    """Return a model's row without the small drawings of its last windows."""
    rows = [each.row for each in stand.stands]
    drift = [row for row in rows if row.kind == "data_drift"]
    fair = [row for row in rows if page_of(row.kind) == "fairness"]
    return FleetRow(
        model=model.name,
        task=model.task,
        version=version.name if version is not None else None,
        registered=version is None or version.registered,
        standing=stand.standing,
        reason=sentence or _reason(version, stand),
        open_alerts=stand.open_alerts,
        last_record=version.last_event_at if version is not None else None,
        rows=max((row.rows for row in rows), default=None),
        volume=Spark(),
        windows=Spark(),
        drift=_share(drift),
        fairness=_share(fair),
        gap=next((row.reason for row in fair if row.violated), ""),
        performance=_share([row for row in rows if row.kind == "performance"]),
        coverage=Coverage(
            measured=sum(row.ok + row.violated > 0 for row in rows),
            total=max(stand.monitors, len(rows)),
            blind=sum(row.unmeasured >= BLIND_AFTER for row in rows),
            failing=sum(row.failures > 0 for row in rows),
        ),
        tags=tuple(f"{name}: {value}" for name, value in sorted(model.tags.items())),
    )


def _share(rows: Sequence[ModelStatusRow]) -> Share | None:
    """Return how many of what some monitors measured last was beyond its limit."""
    if not rows:
        return None
    return Share(
        violated=sum(row.violated for row in rows),
        measured=sum(row.violated + row.ok for row in rows),
        unmeasured=sum(row.not_measured for row in rows),
    )


def _with_windows(session: Session, rows: list[FleetRow], stands: list[ModelStand]) -> tuple[FleetRow, ...]:
    """Add the last windows of the rows that are shown."""
    ids = [each.row.id for stand in stands for each in stand.stands]
    recent: dict[int, list[Any]] = dict(
        session.execute(select(ModelStatusRow.id, ModelStatusRow.recent).where(ModelStatusRow.id.in_(ids))).all()
    )
    shown = []
    for row, stand in zip(rows, stands, strict=True):
        lines = [recent.get(each.row.id, []) for each in stand.stands]
        longest: list[Any] = max(lines, key=len, default=[])
        worst = _worst_windows(lines)
        violated = sum(one is Standing.VIOLATED for one in worst)
        shown.append(
            replace(
                row,
                volume=Spark.of([float(line[2]) for line in longest], None, f"rows of {len(longest)} windows"),
                windows=Spark(
                    heights=tuple(0.0 for _ in worst),
                    standings=tuple(worst),
                    label=f"{violated} of the last {len(worst)} windows violated",
                ),
            )
        )
    return tuple(shown)


def _worst_windows(lines: list[list[Any]]) -> list[Standing]:
    """Return how the last windows stood, each as its worst monitor."""
    ends: dict[str, Standing] = {}
    for line in lines:
        for end, status, *_ in line:
            standing = standing_of(status)
            known = ends.get(end)
            # A monitor that measured nothing does not hide one that did.
            if known is None or standing.rank < known.rank or known is Standing.NOT_MEASURED:
                ends[end] = standing
    return [ends[end] for end in sorted(ends)][-30:]


def _reason(version: VersionRow | None, stand: ModelStand) -> str:
    if version is None:
        return "No record and no baseline yet."
    if not stand.monitors:
        return "Nothing is watched: no monitor is switched on."
    if not stand.stands:
        return "Waiting for the first whole window."
    first = min(stand.stands, key=lambda each: each.standing.rank)
    kind = first.row.kind.replace("_", " ")
    if first.standing is not Standing.OK:
        return f"{kind}: {first.row.reason or first.standing.words.lower()}"
    if stand.stale and version.last_event_at is not None:
        return f"No record since {formats.moment(version.last_event_at)} UTC."
    missing = stand.monitors - len(stand.stands)
    if missing > 0:
        return f"{missing} of {formats.plural(stand.monitors, 'monitor')} have not looked yet."
    checks = sum(each.row.ok for each in stand.stands)
    return (
        f"Nothing beyond its limit: {formats.plural(checks, 'check')} by {formats.plural(stand.monitors, 'monitor')}."
    )


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
