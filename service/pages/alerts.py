"""The alert pages from the database, and what can be done about an alert from a browser."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select

from dashboards import charts, formats
from dashboards.alerts import (
    AlertLine,
    AlertPage,
    AlertsPage,
    Attempt,
    Cause,
    Comment,
    DeliveryLine,
    Evidence,
    Member,
    Planned,
)
from dashboards.page import Empty, View
from dashboards.standing import Standing, standing_of
from service import alerts, webhooks
from service.access import Principal
from service.api.depends import audit
from service.assembly import Assembly
from service.causes import importances
from service.pages import commands
from service.pages.overview import page_of
from service.pages.visit import ModelVisit, Visit, may_operate
from service.problems import NotFound, Unprocessable
from service.tables import AlertRow, DeliveryRow, ModelRow, VersionRow, WebhookRow
from service.words import DAY, Span, parse_time

SHOWN = 200
LONGEST_COMMENT = 4000
STATES = ("open", "acknowledged", "resolved")


def build(visit: Visit, name: str) -> AlertsPage:
    """Return the episodes of a model, newest first."""
    at = ModelVisit.to(visit, name)
    mine = AlertRow.model_id == at.model.id
    counts = {
        str(state): int(count)
        for state, count in visit.session.execute(
            select(AlertRow.state, func.count()).where(mine).group_by(AlertRow.state)
        )
    }
    statement = select(AlertRow).where(mine).order_by(AlertRow.starts_at.desc(), AlertRow.id.desc()).limit(SHOWN)
    if visit.view.state in STATES:
        statement = statement.where(AlertRow.state == visit.view.state)
    rows = list(visit.session.scalars(statement))
    lines = _lines(visit, rows)
    webhooks = visit.session.scalar(
        select(func.count()).select_from(WebhookRow).where(WebhookRow.disabled_at.is_(None))
    )
    _preset, start, end = at.range
    return AlertsPage(
        frame=visit.frame(at.model.name),
        title=f"{at.model.name} · alerts",
        head=at.head(),
        view=at.view,
        section="alerts",
        start=start,
        end=end,
        empty=None if counts else _empty(visit, at),
        alerts=lines,
        states=tuple((state, counts.get(state, 0)) for state in STATES),
        webhooks=int(webhooks or 0),
        timeline=_timeline(lines) if len(lines) > 1 else None,
    )


def _timeline(lines: tuple[AlertLine, ...]) -> charts.Chart:
    events = [
        charts.Event(
            lane="Alerts",
            what=f"{line.state}: {line.sentence[:80]}",
            start=line.starts_at,
            end=line.last_violated_at,
            standing=Standing.VIOLATED if line.state == "open" else Standing.NOT_MEASURED,
        )
        for line in lines
    ]
    start, end = min(line.starts_at for line in lines), max(line.last_violated_at for line in lines)
    margin = (end - start) / 40
    return charts.event_lane(events, start - margin, end + margin)


def _empty(visit: Visit, at: ModelVisit) -> Empty:
    base = visit.parts.settings.public_url.rstrip("/")
    budget = at.model.alarm_budget
    accepted = f"{budget.get('at_most', 1)} false alarm in {budget.get('per', '30d')}"
    webhook = {"name": "pager", "url": "https://hooks.example.com/plumbline", "events": ["alert.opened"]}
    return Empty(
        title="No alert so far",
        text=f"This model accepts at most {accepted}. To be called when an episode opens, name a webhook.",
        commands=(commands.post("Be called when an episode opens", f"{base}/v1/webhooks", webhook),),
    )


def _lines(visit: Visit, rows: list[AlertRow]) -> tuple[AlertLine, ...]:
    ids = [row.id for row in rows]
    counts: dict[int, dict[str, int]] = {}
    for alert_id, state, count in visit.session.execute(
        select(DeliveryRow.alert_id, DeliveryRow.state, func.count())
        .where(DeliveryRow.alert_id.in_(ids))
        .group_by(DeliveryRow.alert_id, DeliveryRow.state)
    ):
        counts.setdefault(int(alert_id or 0), {})[state] = int(count)
    versions = {
        row.id: row.name
        for row in visit.session.scalars(select(VersionRow).where(VersionRow.id.in_([one.version_id for one in rows])))
    }
    return tuple(_line(row, versions.get(row.version_id, ""), counts.get(row.id, {})) for row in rows)


def _line(row: AlertRow, version: str, deliveries: Mapping[str, int]) -> AlertLine:
    return AlertLine(
        uid=row.uid,
        state=row.state,
        kind=row.kind,
        severity=row.severity,
        sentence=row.sentence,
        version=version,
        starts_at=row.starts_at,
        last_violated_at=row.last_violated_at,
        opened_at=row.opened_at,
        resolved_at=row.resolved_at,
        resolution=row.resolution,
        acknowledged_by=row.acknowledged_by,
        muted_until=row.muted_until,
        replayed=row.replayed,
        deliveries=sum(deliveries.values()),
        delivered=deliveries.get("delivered", 0),
        failed=deliveries.get("failed", 0),
    )


def alert_of(visit: Visit, uid: str) -> tuple[AlertRow, ModelRow, VersionRow]:
    """Return an alert that the reader may see, with its model and version."""
    row = visit.session.scalar(select(AlertRow).where(AlertRow.uid == uid)) if len(uid) <= 64 else None
    model = visit.session.get(ModelRow, row.model_id) if row is not None else None
    version = visit.session.get(VersionRow, row.version_id) if row is not None else None
    if row is None or model is None or version is None or not visit.principal.sees(model.name):
        raise NotFound(f"there is no alert {uid!r}")
    return row, model, version


def one(visit: Visit, uid: str) -> AlertPage:
    """Return one episode with its frozen evidence and every call made about it."""
    row, model, version = alert_of(visit, uid)
    at = ModelVisit.to(visit, model.name, version.name)
    evidence = row.evidence or {}
    window = evidence.get("window", {})
    results = tuple(_evidence(found) for found in evidence.get("results", []))
    deliveries = _deliveries(visit, row)
    states: dict[str, int] = {}
    for delivery in deliveries:
        states[delivery.state] = states.get(delivery.state, 0) + 1
    _preset, start, end = at.range
    return AlertPage(
        frame=visit.frame(model.name),
        title=f"{model.name} · alert",
        head=at.head(),
        view=at.view,
        section="alerts",
        start=start,
        end=end,
        alert=_line(row, version.name, states),
        updated_at=row.updated_at,
        acknowledged_at=row.acknowledged_at,
        members=tuple(_member(name, found) for name, found in (row.members or {}).items()),
        evidence=results,
        evidence_monitor=str(evidence.get("monitor", "")),
        evidence_run=str(evidence.get("run", "")),
        evidence_start=parse_time(window["from"]) if window.get("from") else None,
        evidence_end=parse_time(window["to"]) if window.get("to") else None,
        evidence_page=page_of(str(evidence.get("kind", ""))),
        evidence_view=_around(version.name, window),
        chart=_chart(results),
        causes=tuple(
            Cause(
                subject=one.subject,
                monitor=one.monitor,
                metric=str(one.result["metric"]),
                value=one.result.get("value"),
                times=one.times,
                importance=one.importance,
            )
            for one in alerts.causes(row, importances(visit.session, visit.parts.lake, version)[0] or None)[:15]
        ),
        planned=tuple(
            Planned(title=one.title, effect=one.effect, start=one.starts_at, end=one.ends_at)
            for one in alerts.planned_changes(visit.session, model.id, Span(row.starts_at, row.last_violated_at))
        ),
        held=row.held,
        comments=tuple(
            Comment(author=one.author, text=one.text, at=one.created_at) for one in alerts.comments(visit.session, row)
        ),
        deliveries=deliveries,
        may_operate=may_operate(visit.principal),
    )


def _around(version: str, window: Mapping[str, str]) -> View:
    """Return a view of a window with a month on either side."""
    if not window:
        return View(version=version)
    start, end = parse_time(window["from"]), parse_time(window["to"])
    return View(version=version, from_=start - 30 * DAY, to=end + 30 * DAY, window=formats.iso(start))


def _evidence(found: Mapping[str, Any]) -> Evidence:
    return Evidence(
        subject=alerts.label(found),
        metric=str(found["metric"]),
        value=found.get("value"),
        baseline_value=found.get("baseline_value"),
        effect=found.get("effect"),
        min_effect=found.get("min_effect"),
        p_value=found.get("p_value"),
        alpha=found.get("alpha"),
        threshold=found.get("threshold"),
        n_window=int(found.get("n_window", 0)),
        n_baseline=int(found.get("n_baseline", 0)),
        standing=standing_of(found.get("verdict")),
        reason=str(found.get("reason", "")),
        monitor=str(found.get("monitor", "")),
    )


def _chart(found: tuple[Evidence, ...]) -> charts.Chart | None:
    bars = []
    for one in found[:15]:
        value, limit = (one.effect, one.min_effect) if one.min_effect else (one.value, one.threshold)
        if value is not None and limit:
            bars.append(
                charts.Strength(
                    subject=one.subject, times=abs(value / limit), metric=one.metric, value=one.value, limit=limit
                )
            )
    return (
        charts.strengths("evidence-chart", "How far past the limit it was when the alert opened", bars)
        if bars
        else None
    )


def _member(name: str, found: Mapping[str, Any]) -> Member:
    ended = found.get("last_window")
    return Member(
        monitor=name,
        kind=str(found.get("kind", "")),
        columns=tuple(str(feature) for feature in found.get("features", [])),
        quiet_windows=found.get("quiet"),
        last_window=f"to {formats.moment(parse_time(ended))}" if isinstance(ended, str) else "",
    )


def _deliveries(visit: Visit, alert: AlertRow) -> tuple[DeliveryLine, ...]:
    rows = visit.session.execute(
        select(DeliveryRow, WebhookRow)
        .join(WebhookRow, WebhookRow.id == DeliveryRow.webhook_id)
        .where(DeliveryRow.alert_id == alert.id)
        .order_by(DeliveryRow.id.desc())
        .limit(50)
    )
    return tuple(delivery_line(delivery, webhook) for delivery, webhook in rows)


def delivery_line(delivery: DeliveryRow, webhook: WebhookRow) -> DeliveryLine:
    """Return a call that is owed or was made, with every attempt at it."""
    return DeliveryLine(
        uid=delivery.uid,
        webhook=webhook.name,
        url=webhooks.masked(webhook.url),
        event=delivery.event,
        state=delivery.state,
        attempts=delivery.attempts,
        next_at=delivery.next_at if delivery.state == "pending" else None,
        created_at=delivery.created_at,
        delivered_at=delivery.delivered_at,
        log=tuple(
            Attempt(
                at=parse_time(entry["at"]),
                status=entry.get("status"),
                error=str(entry.get("error", "")),
                milliseconds=entry.get("milliseconds"),
                answer=str(entry.get("answer", "")),
            )
            for entry in delivery.log
        ),
        body=delivery.body,
    )


# --- what can be done -------------------------------------------------------------------------------------------------


def act(parts: Assembly, principal: Principal, uid: str, action: str, form: Mapping[str, str]) -> None:
    """Acknowledge, resolve, mute until a date, or comment: what the page's forms ask for."""
    now = parts.clock.now()
    with parts.database.writing() as session:
        row = session.scalar(select(AlertRow).where(AlertRow.uid == uid[:64]).with_for_update())
        model = session.get(ModelRow, row.model_id) if row is not None else None
        if row is None or model is None or not principal.sees(model.name):
            raise NotFound(f"there is no alert {uid!r}")
        if action == "acknowledge":
            alerts.acknowledge(session, row, principal.name, parts.settings, now)
        elif action == "resolve":
            alerts.resolve(session, row, parts.settings, now)
        elif action == "mute":
            until = parse_time(f"{form.get('until', '')}T00:00:00Z", "/until")
            if until <= now:
                raise Unprocessable("an alert is muted until a day to come")
            alerts.mute(row, until, now)
        elif action == "comment":
            text = form.get("text", "").strip()
            if not 1 <= len(text) <= LONGEST_COMMENT or "\x00" in text:
                raise Unprocessable(f"a comment has 1 to {LONGEST_COMMENT} characters")
            alerts.comment(session, row, principal.name, text, now)
        else:
            raise NotFound(f"{action!r} is nothing that can be done about an alert")
        audit(session, parts, principal, f"alert.{action}", f"alerts/{row.uid}", model)


def resend(parts: Assembly, principal: Principal, uid: str, delivery: str, webhook: str) -> None:
    """Owe a delivery once more, under the same id, so that a receiver that has it can tell."""
    with parts.database.writing() as session:
        row = session.scalar(select(AlertRow).where(AlertRow.uid == uid))
        model = session.get(ModelRow, row.model_id) if row is not None else None
        if row is None or model is None or not principal.sees(model.name):
            raise NotFound(f"there is no alert {uid!r}")
        owed = session.scalar(
            select(DeliveryRow)
            .join(WebhookRow, WebhookRow.id == DeliveryRow.webhook_id)
            .where(DeliveryRow.uid == delivery, DeliveryRow.alert_id == row.id, WebhookRow.name == webhook)
        )
        if owed is None:
            raise NotFound(f"this alert has no delivery {delivery!r} to {webhook!r}")
        owed.state, owed.attempts, owed.next_at, owed.delivered_at = "pending", 0, parts.clock.now(), None
        audit(session, parts, principal, "delivery.resend", f"deliveries/{delivery}", model, webhook=webhook)
