"""Alerts: the episodes of a model version, from the first violated result until all that joined are quiet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from monitors import discovery
from monitors.contract import Kind
from service import webhooks
from service.problems import Conflict
from service.settings import Settings
from service.tables import AlertCommentRow, AlertRow, CalendarRow, ModelRow, MonitorRow, ReplayRow, RunRow, VersionRow
from service.webhooks import SEVERITIES
from service.words import DAY, Span, derived_id, format_time, new_id

OPEN = ("open", "acknowledged")
QUIET_WINDOWS = 2
REPEAT = timedelta(days=7)
SUPPRESS = "suppress"
"""The effect of a planned change that keeps what it explains from being told."""
NAMED = 3
"""How many findings a sentence names."""
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a judged run says: all that an episode needs to know. ``results`` are the deciding ones, as documents."""

    model: ModelRow
    version: VersionRow
    monitor: MonitorRow
    run: RunRow
    results: Sequence[Document]
    replay: ReplayRow | None = None
    baseline: str | None = None

    @property
    def violated(self) -> list[Document]:
        """The violated results, worst first."""
        return sorted((found for found in self.results if found["verdict"] == "violated"), key=badness, reverse=True)

    @property
    def window(self) -> Span:
        """The window that was judged."""
        return Span(self.run.starts_at, self.run.ends_at)

    def moment(self, now: datetime) -> datetime:
        """When it was found: by the clock, or in replayed time."""
        return self.run.ends_at if self.run.replayed else now


def badness(result: Document) -> float:
    """Return how far a result is past what is allowed: 1 is just so far."""
    for value, allowed in (("effect", "min_effect"), ("value", "threshold")):
        if result.get(value) is not None and result.get(allowed):
            return abs(float(result[value]) / float(result[allowed]))
    return 1.0


def label(result: Document) -> str:
    """Return what a result is about, in one word or two."""
    parts = [str(result[key]) for key in ("feature", "slice", "attribute", "group", "class") if result.get(key)]
    return " ".join(parts) or str(result["metric"])


def update(session: Session, finding: Finding, settings: Settings, now: datetime) -> AlertRow | None:
    """Open, extend or close the episode of a version by one judged run, and owe the calls that follow.

    Windows reach here in order of time and each once; a run that measured nothing neither extends nor quiets.
    """
    alert = open_episode(session, finding.version.id)
    if alert is not None and _is_rebaselined(alert, finding):
        _resolve(session, alert, "rebaselined", finding.model, finding.version, settings, now, finding.replay)
        alert = None
    if alert is None:
        return _open(session, finding, settings, now) if finding.violated else None
    joined = _join(alert, finding)
    _count_quiet(alert, finding)
    alert.updated_at = now
    if _is_over(session, alert):
        _resolve(session, alert, "recovered", finding.model, finding.version, settings, now, finding.replay)
        return alert
    if joined:
        if alert.state == "acknowledged":
            alert.state, alert.acknowledged_at, alert.acknowledged_by = "open", None, None
        alert.severity = max(alert.severity, _severity(finding), key=SEVERITIES.index)
        alert.sentence = sentence(alert, finding.model, finding.version)
    if alert.held and _let_go(session, alert, finding, settings, now):
        return alert
    _announce_joined(session, alert, finding.model, finding.version, settings, now, finding.moment(now), finding.replay)
    return alert


def open_episode(session: Session, version_id: int) -> AlertRow | None:
    """Return the episode of a version that is not over, held until the session ends: nobody closes it meanwhile."""
    return session.scalar(
        select(AlertRow)
        .where(AlertRow.version_id == version_id, AlertRow.kind == "episode", AlertRow.state.in_(OPEN))
        .order_by(AlertRow.id.desc())
        .limit(1)
        .with_for_update()
    )


def episodes(session: Session, version_id: int) -> list[Span]:
    """Return the spans of a version's episodes that are over, in order of time."""
    rows = session.scalars(
        select(AlertRow).where(
            AlertRow.version_id == version_id, AlertRow.kind == "episode", AlertRow.state == "resolved"
        )
    )
    return sorted(Span(row.starts_at, row.last_violated_at) for row in rows)


def _open(session: Session, finding: Finding, settings: Settings, now: datetime) -> AlertRow:
    run, worst = finding.run, finding.violated
    planned = planned_changes(session, finding.model.id, finding.window)
    alert = AlertRow(
        uid=derived_id(
            "episode",
            finding.model.uid,
            finding.monitor.uid,
            finding.version.name,
            run.starts_at,
            run.ends_at,
            run.revision,
        ),
        model_id=finding.model.id,
        version_id=finding.version.id,
        kind="episode",
        monitor_id=finding.monitor.id,
        state="open",
        severity=_severity(finding),
        sentence="",
        starts_at=run.starts_at,
        last_violated_at=run.ends_at,
        opened_at=now,
        updated_at=now,
        members={finding.monitor.name: _member(finding)},
        evidence={
            "run": run.uid,
            "monitor": finding.monitor.name,
            "kind": finding.monitor.kind,
            "window": {"from": format_time(run.starts_at), "to": format_time(run.ends_at)},
            "rows": run.rows,
            "baseline": finding.baseline,
            "layout": run.layout,
            "alpha": run.alpha,
            "counts": {"ok": run.ok, "violated": run.violated, "not_measured": run.not_measured},
            "results": [dict(result) for result in worst[:50]],
            "planned": [entry.title for entry in planned],
        },
        sequence=1,
        replayed=run.replayed,
        held=any(entry.effect == SUPPRESS for entry in planned),
    )
    alert.sentence = sentence(alert, finding.model, finding.version)
    session.add(alert)
    session.flush()
    announce(session, "alert.opened", alert, finding.model, finding.version, settings, now, finding.replay)
    return alert


def planned_changes(session: Session, model_id: int, span: Span) -> Sequence[CalendarRow]:
    """Return the planned changes of a model, or of every model, that meet a stretch of time."""
    return session.scalars(
        select(CalendarRow)
        .where(
            or_(CalendarRow.model_id == model_id, CalendarRow.model_id.is_(None)),
            CalendarRow.starts_at < span.end,
            CalendarRow.ends_at > span.start,
        )
        .order_by(CalendarRow.starts_at, CalendarRow.id)
    ).all()


def _let_go(session: Session, alert: AlertRow, finding: Finding, settings: Settings, now: datetime) -> bool:
    """Tell of a held episode at last where a window is violated that no planned change explains."""
    if not finding.violated:
        return False
    planned = planned_changes(session, finding.model.id, finding.window)
    if any(entry.effect == SUPPRESS for entry in planned):
        return False
    alert.held = False
    alert.members = {name: member | {"announced": member["features"]} for name, member in alert.members.items()}
    alert.sentence = sentence(alert, finding.model, finding.version)
    announce(session, "alert.opened", alert, finding.model, finding.version, settings, now, finding.replay)
    return True


def _member(finding: Finding) -> dict[str, Any]:
    """Return how a monitor stands in an episode that it has just joined."""
    violated = finding.violated
    return {
        "uid": finding.monitor.uid,
        "kind": finding.monitor.kind,
        "features": list(dict.fromkeys(label(result) for result in violated)),
        "announced": list(dict.fromkeys(label(result) for result in violated)),
        "worst": _worst_of_each(violated),
        "judged": len({label(result) for result in finding.results}),
        "scale": min(int(result.get("scale", 1)) for result in violated),
        "quiet": 0,
        "since": format_time(finding.run.starts_at),
        "last_window": format_time(finding.run.ends_at),
        "last_violated": format_time(finding.run.ends_at),
        "run": finding.run.uid,
        "baseline_id": finding.run.baseline_id,
    }


def _worst_of_each(violated: Sequence[Document]) -> dict[str, Any]:
    """Return the worst result of each subject, at the shortest time scale that fired."""
    found: dict[str, Any] = {}
    for result in sorted(violated, key=lambda result: (int(result.get("scale", 1)), -badness(result))):
        found.setdefault(label(result), dict(result))
    return found


def _join(alert: AlertRow, finding: Finding) -> bool:
    """Add what a run violated to the episode; return whether a monitor or feature is new to it."""
    if not finding.violated:
        return False
    members = dict(alert.members)
    fresh = _member(finding) | {"announced": []}
    known = members.get(finding.monitor.name)
    if known is not None:
        fresh |= {
            "features": list(dict.fromkeys([*known["features"], *fresh["features"]])),
            "announced": known["announced"],
            "worst": known["worst"] | fresh["worst"],
            "scale": min(known["scale"], fresh["scale"]),
            "quiet": known["quiet"],
            "since": known["since"],
            "last_violated": known["last_violated"],
        }
    members[finding.monitor.name] = fresh
    alert.members = members
    return known is None or len(fresh["features"]) > len(known["features"])


def _count_quiet(alert: AlertRow, finding: Finding) -> None:
    """Count a window as quiet, or not, for the monitor it belongs to: by its shortest scale that ever fired."""
    member = alert.members.get(finding.monitor.name)
    if member is None:
        return
    at_scale = [result for result in finding.results if int(result.get("scale", 1)) <= member["scale"]]
    changed = dict(member) | {"last_window": format_time(finding.run.ends_at), "run": finding.run.uid}
    if any(result["verdict"] == "violated" for result in at_scale):
        changed |= {"quiet": 0, "last_violated": format_time(finding.run.ends_at)}
        alert.last_violated_at = max(alert.last_violated_at, finding.run.ends_at)
    elif any(result["verdict"] == "ok" for result in at_scale):
        changed["quiet"] = member["quiet"] + 1
    alert.members = alert.members | {finding.monitor.name: changed}


def _is_over(session: Session, alert: AlertRow) -> bool:
    """Return whether every monitor that joined, and is still watching, has been quiet for long enough."""
    watching = set(
        session.scalars(
            select(MonitorRow.name).where(MonitorRow.model_id == alert.model_id, MonitorRow.enabled.is_(True))
        )
    )
    return all(member["quiet"] >= QUIET_WINDOWS for name, member in alert.members.items() if name in watching) and any(
        member["quiet"] >= QUIET_WINDOWS for member in alert.members.values()
    )


def _is_rebaselined(alert: AlertRow, finding: Finding) -> bool:
    member = alert.members.get(finding.monitor.name)
    return member is not None and member["baseline_id"] != finding.run.baseline_id


def _severity(finding: Finding) -> str:
    """Critical where half of what was judged, or more, is violated."""
    judged = {label(result) for result in finding.results if result["verdict"] != "not_measured"}
    violated = {label(result) for result in finding.violated}
    return "critical" if len(violated) >= 2 and 2 * len(violated) >= len(judged) else "warning"


def sentence(alert: AlertRow, model: ModelRow, version: VersionRow) -> str:
    """Return what an episode is about, in one plain sentence."""
    since = alert.starts_at.strftime("%Y-%m-%d" if alert.starts_at.hour == 0 else "%Y-%m-%d %H:%M")
    clauses = []
    for position, (name, member) in enumerate(alert.members.items()):
        noun, verb = _clause(member["kind"])
        count, total = len(member["features"]), max(member["judged"], len(member["features"]))
        noun = noun[:-1] if total == 1 else noun
        whose = f" of {model.name} {version.name} {verb} since {since}" if position == 0 else f" {verb} ({name})"
        worst = sorted(member["worst"].items(), key=lambda found: badness(found[1]), reverse=True)
        named = ", ".join(phrase(text, result) for text, result in worst[:NAMED])
        more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
        clauses.append(f"{count} of {total} {noun}{whose}: {named}{more}")
    return "; ".join(clauses)


def _clause(kind: str) -> tuple[str, str]:
    found = discovery.kinds().get(kind)
    return found.told if found is not None else Kind.told


def phrase(text: str, result: Document) -> str:
    """Return one finding in a few words: ``car_value (wasserstein 0.47, minimum 0.1)``."""
    words = [] if text == result["metric"] else [str(result["metric"])]
    if result.get("value") is not None:
        words.append(f"{float(result['value']):.3g}")
    told = " ".join(words)
    if result.get("threshold") is not None:
        told += f", threshold {float(result['threshold']):.3g}"
    elif result.get("min_effect") is not None:
        told += f", effect {float(result['effect'] or 0.0):.3g} of at least {float(result['min_effect']):.3g}"
    if int(result.get("scale", 1)) > 1:
        told += f", over {result['scale']} windows"
    return f"{text} ({told})" if told else text


def announce(
    session: Session,
    event: str,
    alert: AlertRow,
    model: ModelRow,
    version: VersionRow,
    settings: Settings,
    now: datetime,
    replay: ReplayRow | None,
) -> None:
    """Owe the calls of an event about an alert: to all webhooks, or those its monitors or its replay name.

    Of an alert that a planned change holds nothing is told.
    """
    if alert.held:
        return
    only: set[str] | None = None
    monitors = session.scalars(
        select(MonitorRow).where(MonitorRow.model_id == alert.model_id, MonitorRow.name.in_(list(alert.members)))
    ).all()
    if monitors and all(monitor.actions for monitor in monitors):
        only = {name for monitor in monitors for name in monitor.actions}
    if alert.replayed:
        named = set(replay.webhooks if replay is not None else replay_webhooks(session, alert))
        only = named if only is None else only & named
    webhooks.owe(
        session,
        event,
        alert.uid,
        data(alert, model, version, settings),
        now=now,
        sequence=alert.sequence,
        severity=alert.severity,
        model=model,
        alert_id=alert.id,
        only=None if only is None else sorted(only),
    )


def replay_webhooks(session: Session, alert: AlertRow) -> list[Any]:
    """Return the webhooks that the newest replay before the alert named."""
    replay = session.scalar(
        select(ReplayRow).where(ReplayRow.model_id == alert.model_id).order_by(ReplayRow.id.desc()).limit(1)
    )
    return list(replay.webhooks) if replay is not None else []


def data(alert: AlertRow, model: ModelRow, version: VersionRow, settings: Settings) -> dict[str, Any]:
    """Return what a call says about an alert: the ten worst results, and links to the rest."""
    public = settings.public_url.rstrip("/")
    worst = [
        dict(result) | {"monitor": name}
        for name, member in alert.members.items()
        for result in member.get("worst", {}).values()
    ]
    return {
        "alert": alert.uid,
        "model": model.name,
        "version": version.name,
        "kind": alert.kind,
        "state": alert.state,
        "severity": alert.severity,
        "sentence": alert.sentence,
        "starts_at": format_time(alert.starts_at),
        "last_violated_at": format_time(alert.last_violated_at),
        "opened_at": format_time(alert.opened_at),
        "resolved_at": format_time(alert.resolved_at) if alert.resolved_at else None,
        "resolution": alert.resolution,
        "replayed": alert.replayed,
        "planned": list(alert.evidence.get("planned", [])),
        "monitors": sorted(alert.members),
        "results": sorted(worst, key=badness, reverse=True)[:10],
        "links": {
            "alert": f"{public}/alerts/{alert.uid}",
            "model": f"{public}/models/{model.name}",
            "api": f"{public}/v1/alerts/{alert.uid}",
        },
    }


def _announce_joined(
    session: Session,
    alert: AlertRow,
    model: ModelRow,
    version: VersionRow,
    settings: Settings,
    now: datetime,
    moment: datetime,
    replay: ReplayRow | None,
) -> bool:
    """Tell what joined since the last call, at most once a day; return whether it was told."""
    held = any(set(member["features"]) - set(member["announced"]) for member in alert.members.values())
    if not held or alert.held or (alert.repeated_at is not None and moment < alert.repeated_at + DAY):
        return False
    alert.members = {name: member | {"announced": member["features"]} for name, member in alert.members.items()}
    alert.repeated_at = moment
    if alert.muted_until is None or alert.muted_until <= now:
        alert.sequence += 1
        announce(session, "alert.updated", alert, model, version, settings, now, replay)
    return True


def repeat(session: Session, settings: Settings, now: datetime) -> int:
    """Tell what was held back for a day, and repeat what has been open for seven days; return how many calls' causes.

    Replayed episodes are not repeated: their time is not the clock's.
    """
    told = 0
    waiting = select(AlertRow).where(AlertRow.state.in_(OPEN), AlertRow.replayed.is_(False), AlertRow.held.is_(False))
    for alert in session.scalars(waiting.with_for_update(skip_locked=True)):
        model, version = session.get_one(ModelRow, alert.model_id), session.get_one(VersionRow, alert.version_id)
        if _announce_joined(session, alert, model, version, settings, now, now, None):
            told += 1
        elif (alert.repeated_at or alert.opened_at) + REPEAT <= now and (
            alert.muted_until is None or alert.muted_until <= now
        ):
            alert.repeated_at = now
            alert.sequence += 1
            event = "alert.updated" if alert.kind == "episode" else f"monitor.{alert.kind}"
            announce(session, event, alert, model, version, settings, now, None)
            told += 1
    return told


def watch(
    session: Session,
    kind: str,
    finding: Finding,
    reason: str | None,
    settings: Settings,
    now: datetime,
) -> AlertRow | None:
    """Raise or resolve that a monitor itself is ``blind`` or ``failing``: with a reason it is, with none it is not."""
    alert = session.scalar(
        select(AlertRow)
        .where(
            AlertRow.version_id == finding.version.id,
            AlertRow.monitor_id == finding.monitor.id,
            AlertRow.kind == kind,
            AlertRow.state.in_(OPEN),
        )
        .with_for_update()
    )
    if alert is not None and reason is None:
        _resolve(session, alert, "recovered", finding.model, finding.version, settings, now, finding.replay)
        return alert
    if alert is not None or reason is None:
        return alert
    run = finding.run
    alert = AlertRow(
        uid=derived_id(kind, finding.monitor.uid, finding.version.name, run.starts_at, run.ends_at, run.revision),
        model_id=finding.model.id,
        version_id=finding.version.id,
        kind=kind,
        monitor_id=finding.monitor.id,
        state="open",
        severity="warning",
        sentence=f"{finding.monitor.name} of {finding.model.name} {finding.version.name} {reason}",
        starts_at=run.starts_at,
        last_violated_at=run.ends_at,
        opened_at=now,
        updated_at=now,
        members={
            finding.monitor.name: {
                "uid": finding.monitor.uid,
                "kind": finding.monitor.kind,
                "features": [],
                "announced": [],
                "worst": {},
                "judged": 0,
                "scale": 1,
                "quiet": 0,
                "since": format_time(run.starts_at),
                "last_window": format_time(run.ends_at),
                "last_violated": format_time(run.ends_at),
                "run": run.uid,
                "baseline_id": run.baseline_id,
            }
        },
        evidence={"run": run.uid, "monitor": finding.monitor.name, "reason": run.reason, "results": []},
        sequence=1,
        replayed=run.replayed,
    )
    session.add(alert)
    session.flush()
    announce(session, f"monitor.{kind}", alert, finding.model, finding.version, settings, now, finding.replay)
    return alert


def settle(session: Session, settings: Settings, now: datetime) -> int:
    """Close the alerts that only monitors keep open which are not watching any more; return how many."""
    closed = 0
    for alert in session.scalars(select(AlertRow).where(AlertRow.state.in_(OPEN)).with_for_update(skip_locked=True)):
        watching = session.scalar(
            select(MonitorRow.id)
            .where(
                MonitorRow.model_id == alert.model_id,
                MonitorRow.name.in_(list(alert.members)),
                MonitorRow.enabled.is_(True),
            )
            .limit(1)
        )
        if watching is None:
            model, version = session.get_one(ModelRow, alert.model_id), session.get_one(VersionRow, alert.version_id)
            _resolve(session, alert, "unwatched", model, version, settings, now, None)
            closed += 1
    return closed


def _resolve(
    session: Session,
    alert: AlertRow,
    resolution: str,
    model: ModelRow,
    version: VersionRow,
    settings: Settings,
    now: datetime,
    replay: ReplayRow | None,
) -> None:
    alert.state, alert.resolution, alert.resolved_at, alert.updated_at = "resolved", resolution, now, now
    alert.sequence += 1
    announce(session, "alert.resolved", alert, model, version, settings, now, replay)


def resolve(session: Session, alert: AlertRow, settings: Settings, now: datetime) -> None:
    """Close an alert by hand; the next violated window opens another."""
    if alert.state == "resolved":
        raise Conflict("the alert is resolved already")
    model, version = session.get_one(ModelRow, alert.model_id), session.get_one(VersionRow, alert.version_id)
    _resolve(session, alert, "manual", model, version, settings, now, None)


def replaced(session: Session, version_id: int, settings: Settings, now: datetime) -> None:
    """Close the episode of a version that another one has taken the place of."""
    alert = open_episode(session, version_id)
    if alert is not None:
        model, version = session.get_one(ModelRow, alert.model_id), session.get_one(VersionRow, version_id)
        _resolve(session, alert, "replaced", model, version, settings, now, None)


def acknowledge(session: Session, alert: AlertRow, who: str, settings: Settings, now: datetime) -> None:
    """Say that somebody has seen it; again changes nothing, and what joins later takes it back."""
    if alert.state == "resolved":
        raise Conflict("the alert is resolved already")
    if alert.state == "acknowledged":
        return
    alert.state, alert.acknowledged_at, alert.acknowledged_by, alert.updated_at = "acknowledged", now, who, now
    alert.sequence += 1
    model, version = session.get_one(ModelRow, alert.model_id), session.get_one(VersionRow, alert.version_id)
    announce(session, "alert.acknowledged", alert, model, version, settings, now, None)


def comment(session: Session, alert: AlertRow, who: str, text: str, now: datetime) -> AlertCommentRow:
    """Keep what somebody has to say about an alert, over or not."""
    row = AlertCommentRow(uid=new_id(), alert_id=alert.id, author=who, text=text, created_at=now)
    session.add(row)
    session.flush()
    return row


def comments(session: Session, alert: AlertRow) -> Sequence[AlertCommentRow]:
    """Return what was said about an alert, oldest first."""
    mine = select(AlertCommentRow).where(AlertCommentRow.alert_id == alert.id)
    return session.scalars(mine.order_by(AlertCommentRow.id)).all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """What joined an episode and may be its cause: how far past its limit, and how much the model heeds it."""

    subject: str
    monitor: str
    kind: str
    result: Document
    times: float
    """How many times its limit it was at its worst."""
    importance: float | None = None
    """Its share of what the model's predictions rest on; none where nobody has measured it."""

    @property
    def weight(self) -> float:
        """By what suspects are ranked."""
        return self.times * (1.0 if self.importance is None else self.importance)


def causes(alert: AlertRow, importances: Mapping[str, float] | None = None) -> list[Suspect]:
    """Return what joined an episode, the likeliest cause first.

    ``importances`` are shares by feature; with them a feature that the model does not heed comes last.
    """
    found = []
    for name, member in alert.members.items():
        for subject, worst in member.get("worst", {}).items():
            share = None if importances is None else importances.get(str(worst.get("feature") or ""))
            found.append(
                Suspect(
                    subject=subject,
                    monitor=name,
                    kind=member["kind"],
                    result=worst,
                    times=badness(worst),
                    importance=share,
                )
            )
    return sorted(found, key=lambda suspect: (-suspect.weight, suspect.subject))


def mute(alert: AlertRow, until: datetime, now: datetime) -> None:
    """Keep an open alert from being repeated until a moment."""
    if alert.state == "resolved":
        raise Conflict("the alert is resolved already")
    alert.muted_until, alert.updated_at = until, now


def document(alert: AlertRow, model: ModelRow, version: VersionRow, settings: Settings) -> dict[str, Any]:
    """Return an alert as the interface shows it."""
    shown = data(alert, model, version, settings)
    del shown["alert"], shown["results"]
    return {
        "id": alert.uid,
        **shown,
        "updated_at": format_time(alert.updated_at),
        "acknowledged_at": format_time(alert.acknowledged_at) if alert.acknowledged_at else None,
        "acknowledged_by": alert.acknowledged_by,
        "muted_until": format_time(alert.muted_until) if alert.muted_until else None,
        "sequence": alert.sequence,
        "held": alert.held,
        "members": {
            name: {key: value for key, value in member.items() if key not in ("announced", "baseline_id")}
            for name, member in alert.members.items()
        },
        "evidence": alert.evidence,
    }
