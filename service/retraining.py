"""Retraining: asked for once in an episode where the model's policy says so, and followed until a candidate is judged.

`consider` runs in the transaction of each judged run, so a request exists exactly when the run that causes it does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from service import alerts, webhooks, windows
from service.alerts import Finding
from service.problems import Conflict, Problem, Unprocessable
from service.settings import Settings
from service.tables import (
    AlertRow,
    ArrivalRow,
    ModelRow,
    MonitorRow,
    RetrainingPolicyRow,
    RetrainingRow,
    RunRow,
    VersionRow,
)
from service.words import UNFINISHED, Span, derived_id, format_time, parse_duration

JUDGED = ("ok", "violations", "partial")
OPEN = ("awaiting_approval", "requested", "accepted", "running")
"""States in which nothing else is asked for."""
MOVES: Mapping[str, frozenset[str]] = {
    "awaiting_approval": frozenset({"requested", "rejected", "cancelled"}),
    "requested": frozenset({"accepted", "running", "succeeded", "failed", "expired", "cancelled"}),
    "accepted": frozenset({"running", "succeeded", "failed", "expired", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "expired", "cancelled"}),
}
"""Where each state can go; the others are final."""
REPORTED = ("accepted", "running", "succeeded", "failed")
RETRIED = ("failed", "expired", "rejected", "cancelled")
NAMED = 3
WINDOWS_TOLD = 10
"""A call is below 20 kB: of many violated windows it names the newest, and the request itself all of them."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When a retraining is asked for, how often at most, on which rows, and what becomes of the candidate."""

    monitors: tuple[str, ...]
    violated: int
    of: int
    not_while: tuple[str, ...]
    min_labelled_rows: int
    cooldown: timedelta
    per: timedelta
    times: int
    needs_approval: bool
    promotes: bool
    deadline: timedelta
    span: timedelta
    include_baseline: bool

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> "Policy":
        """Read a policy as it is stored: complete, and checked when it was put."""
        when, data, most = document["when"], document["training_data"], document["at_most"]
        violated, of = windows_of(when["windows"])
        return cls(
            monitors=tuple(when["monitors"]),
            violated=violated,
            of=of,
            not_while=tuple(document["not_while"]),
            min_labelled_rows=int(document["min_labelled_rows"]),
            cooldown=parse_duration(document["cooldown"]),
            per=parse_duration(most["per"]),
            times=int(most["times"]),
            needs_approval=document["approval"] == "manual",
            promotes=document["promote"] == "auto",
            deadline=parse_duration(document["deadline"]),
            span=parse_duration(data["span"]),
            include_baseline=bool(data["include_baseline"]),
        )


def windows_of(text: str) -> tuple[int, int]:
    """Read ``2 of 3``; ValueError where it is anything else."""
    first, word, last = text.split()
    violated, of = int(first), int(last)
    if word != "of" or not 1 <= violated <= of <= 100:
        raise ValueError(text)
    return violated, of


# --- whether one is asked for -----------------------------------------------------------------------------------------


class Held(Exception):  # noqa: N818 - an outcome, not a mistake
    """The policy's monitors say yes, something else says no: the reason, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The windows of one monitor that a retraining is asked for on, oldest first."""

    monitor: MonitorRow
    violated: Sequence[RunRow]
    looked_at: int


def consider(session: Session, finding: Finding, settings: Settings, now: datetime) -> RetrainingRow | None:
    """Ask for a retraining of the active version where its policy and a judged run say so.

    The policy's row is locked first: runs of several processes are considered one after the other, each with what the
    one before has committed.
    """
    row = session.scalar(
        select(RetrainingPolicyRow).where(RetrainingPolicyRow.model_id == finding.model.id).with_for_update()
    )
    if row is None or not finding.run.judged or finding.run.backfill:
        return None
    if finding.model.active_version_id != finding.version.id:
        return None
    policy = Policy.of_document(row.policy)
    if finding.monitor.name not in (*policy.monitors, *policy.not_while):
        return None
    alert = alerts.open_episode(session, finding.version.id)
    if alert is None:
        return None
    attempts = of_episode(session, alert)
    if attempts and attempts[-1].state != "failed":
        return None
    cause = _cause(session, policy, alert)
    if cause is None:
        return None
    moment = finding.moment(now)
    try:
        _check(session, policy, finding, cause, alert, moment)
    except Held as held:
        reason = str(held)
        if row.held is None or (row.held["reason"], row.held["version"]) != (reason, finding.version.name):
            row.held = {"at": format_time(moment), "version": finding.version.name, "reason": reason}
        return None
    row.held = None
    made = RetrainingRow(
        model_id=finding.model.id,
        version_id=finding.version.id,
        alert_id=alert.id,
        reason=_reason(finding, cause),
        evidence=_evidence(alert, cause),
        baseline=finding.baseline or alert.evidence.get("baseline"),
        moment=moment,
        replayed=finding.run.replayed,
    )
    only = None if finding.replay is None else [str(name) for name in finding.replay.webhooks]
    return _ask(session, made, row.policy, alert, len(attempts) + 1, settings, now, only)


def of_episode(session: Session, alert: AlertRow) -> Sequence[RetrainingRow]:
    """Return the attempts of an episode, oldest first."""
    mine = select(RetrainingRow).where(RetrainingRow.alert_id == alert.id)
    return session.scalars(mine.order_by(RetrainingRow.attempt)).all()


def _cause(session: Session, policy: Policy, alert: AlertRow) -> Cause | None:
    """Return the first of the policy's monitors that was violated often enough within the episode.

    A window in which the data were not to be trusted does not count: drift of a broken feed is nothing to learn from.
    """
    guards = [monitor.id for monitor in _monitors(session, alert.model_id, policy.not_while)]
    for monitor in _monitors(session, alert.model_id, policy.monitors):
        last = _judged(session, monitor, alert, policy.of)
        if sum(run.violated > 0 for run in last) < policy.violated:
            continue
        broken = broken_windows(session, alert.version_id, guards, last[-1].starts_at)
        violated = [run for run in last if run.violated and not any(_meets(run, span) for span in broken)]
        if len(violated) >= policy.violated:
            return Cause(monitor=monitor, violated=violated[::-1], looked_at=len(last))
    return None


def _judged(session: Session, monitor: MonitorRow, alert: AlertRow, at_most: int) -> Sequence[RunRow]:
    """Return the newest judged windows of a monitor within an episode, as they stand now, newest first.

    What was asked for ahead of a window's own look is shown and not judged: it neither counts nor pushes others out.
    """
    look = aliased(RunRow)
    looked_at = exists().where(
        look.judged.is_(True),
        look.monitor_id == RunRow.monitor_id,
        look.version_id == RunRow.version_id,
        look.starts_at == RunRow.starts_at,
        look.ends_at == RunRow.ends_at,
    )
    return session.scalars(
        select(RunRow)
        .where(
            RunRow.monitor_id == monitor.id,
            RunRow.version_id == alert.version_id,
            RunRow.current.is_(True),
            RunRow.status.in_(JUDGED),
            RunRow.starts_at >= alert.starts_at,
            looked_at,
        )
        .order_by(RunRow.ends_at.desc())
        .limit(at_most)
    ).all()


def _monitors(session: Session, model_id: int, names: Sequence[str]) -> list[MonitorRow]:
    rows = session.scalars(select(MonitorRow).where(MonitorRow.model_id == model_id, MonitorRow.name.in_(names)))
    by_name = {row.name: row for row in rows}
    return [by_name[name] for name in names if name in by_name]


def broken_windows(session: Session, version_id: int, monitor_ids: Sequence[int], since: datetime) -> list[Span]:
    """Return the violated windows of some monitors that end after a moment."""
    rows = session.scalars(
        select(RunRow).where(
            RunRow.monitor_id.in_(monitor_ids),
            RunRow.version_id == version_id,
            RunRow.current.is_(True),
            RunRow.violated > 0,
            RunRow.ends_at > since,
        )
    )
    return [Span(row.starts_at, row.ends_at) for row in rows]


def _meets(run: RunRow, span: Span) -> bool:
    return run.starts_at < span.end and span.start < run.ends_at


def _check(session: Session, policy: Policy, finding: Finding, cause: Cause, alert: AlertRow, moment: datetime) -> None:
    """Raise Held where something speaks against asking now."""
    if alert.held:
        raise Held("a planned change explains the episode so far")
    newest = cause.violated[-1].ends_at
    for name in policy.not_while:
        _check_guard(session, name, finding, newest)
    span = Span(newest - policy.span, newest)
    labelled = labelled_rows(session, finding.version.id, span)
    if labelled < policy.min_labelled_rows:
        raise Held(f"{labelled} of at least {policy.min_labelled_rows} labelled rows are there")
    earlier = session.scalars(
        select(RetrainingRow)
        .where(RetrainingRow.model_id == finding.model.id)
        .order_by(RetrainingRow.id.desc())
        .limit(max(100, policy.times + 1))
    ).all()
    if (under_way := next((row for row in earlier if row.state in OPEN), None)) is not None:
        raise Held(f"another retraining is {under_way.state.replace('_', ' ')}")
    if recent := [row for row in earlier if abs(moment - row.moment) < policy.cooldown]:
        raise Held(f"the cool-down lasts until {format_time(max(row.moment for row in recent) + policy.cooldown)}")
    if sum(abs(moment - row.moment) < policy.per for row in earlier) >= policy.times:
        raise Held("as many were asked for already as the policy allows")


def _check_guard(session: Session, name: str, finding: Finding, newest: datetime) -> None:
    """Raise Held unless a guarding monitor has looked at the newest violated window, or the one before, and was well.

    What could not be measured is no sign that the data are to be trusted.
    """
    monitor = next(iter(_monitors(session, finding.model.id, [name])), None)
    if monitor is None or not monitor.enabled:
        raise Held(f"{name} is not watching, so that nobody knows whether the data are to be trusted")
    last = session.scalar(
        select(RunRow)
        .where(
            RunRow.monitor_id == monitor.id,
            RunRow.version_id == finding.version.id,
            RunRow.current.is_(True),
            RunRow.status.not_in(UNFINISHED),
        )
        .order_by(RunRow.ends_at.desc())
        .limit(1)
    )
    period = windows.grid_of(monitor.schedule, monitor.window, monitor.offset).spent
    if last is None or last.ends_at <= newest - period:
        raise Held(f"{name} has not judged this window yet")
    if last.status not in ("ok", "partial"):
        raise Held(f"{name} is {'violated' if last.violated else last.status.replace('_', ' ')}")


def labelled_rows(session: Session, version_id: int, span: Span) -> int:
    """Return how many predictions of a span have a label, by what was counted as labels came."""
    hours = span.hours
    counted = select(func.coalesce(func.sum(ArrivalRow.accepted), 0)).where(
        ArrivalRow.version_id == version_id,
        ArrivalRow.kind == "ground_truth",
        ArrivalRow.bucket.between(hours.start, hours.stop - 1),
    )
    return int(session.scalar(counted) or 0)


# --- what is said -----------------------------------------------------------------------------------------------------


def _reason(finding: Finding, cause: Cause) -> str:
    """Return why a retraining is asked for, in one plain sentence."""
    found = ", ".join(_worst(finding, cause)[:NAMED])
    count, of = len(cause.violated), cause.looked_at
    often = "in its last window" if of == 1 else f"in {count} of its last {of} windows"
    sentence = f"{cause.monitor.name} of {finding.model.name} {finding.version.name} was violated {often}, up to "
    return sentence + format_time(cause.violated[-1].ends_at) + (f": {found}" if found else "")


def _worst(finding: Finding, cause: Cause) -> list[str]:
    if finding.monitor.id == cause.monitor.id:
        return list(dict.fromkeys(alerts.phrase(alerts.label(found), found) for found in finding.violated))
    return []


def _evidence(alert: AlertRow, cause: Cause) -> dict[str, Any]:
    member = alert.members.get(cause.monitor.name, {})
    worst = sorted(member.get("worst", {}).values(), key=alerts.badness, reverse=True)
    return {
        "monitor": cause.monitor.name,
        "kind": cause.monitor.kind,
        "windows": [
            {
                "run": run.uid,
                "from": format_time(run.starts_at),
                "to": format_time(run.ends_at),
                "rows": run.rows,
                "labelled_rows": run.labelled_rows,
                "violated": run.violated,
                "reason": run.reason,
            }
            for run in cause.violated
        ],
        "looked_at": cause.looked_at,
        "results": [dict(result) for result in worst[:50]],
        "alert": alert.sentence,
    }


def data(
    row: RetrainingRow, model: ModelRow, version: VersionRow, alert: AlertRow, settings: Settings
) -> dict[str, Any]:
    """Return what a call says about a retraining; its links get their tokens when it is sent."""
    public = settings.public_url.rstrip("/")
    here = f"{public}/v1/retrainings/{row.uid}"
    evidence = dict(row.evidence)
    results = evidence.pop("results", [])
    evidence |= {"violated": len(evidence["windows"]), "windows": evidence["windows"][-WINDOWS_TOLD:]}
    return {
        "retraining": row.uid,
        "episode": alert.uid,
        "attempt": row.attempt,
        "state": row.state,
        "model": model.name,
        "version": version.name,
        "reason": row.reason,
        "evidence": evidence,
        "results": results[:10],
        "baseline": row.baseline,
        "training_data_url": f"{here}/training-data",
        "callback_url": f"{here}/status",
        "deadline_at": format_time(row.deadline_at) if row.deadline_at else None,
        "replayed": row.replayed,
        "links": {
            "retraining": f"{public}/models/{model.name}/retraining",
            "alert": f"{public}/alerts/{alert.uid}",
            "model": f"{public}/models/{model.name}",
            "api": here,
        },
    }


def _tell(
    session: Session,
    event: str,
    row: RetrainingRow,
    settings: Settings,
    now: datetime,
    only: Sequence[str] | None = None,
) -> None:
    model, version = session.get_one(ModelRow, row.model_id), session.get_one(VersionRow, row.version_id)
    alert = session.get_one(AlertRow, row.alert_id)
    told = data(row, model, version, alert, settings)
    if event != webhooks.ASKED:
        del told["training_data_url"], told["callback_url"]
    if row.replayed and only is None:
        only = [str(name) for name in alerts.replay_webhooks(session, alert)]
    webhooks.owe(
        session,
        event,
        row.uid,
        told,
        now=now,
        severity="critical",
        model=model,
        alert_id=alert.id,
        retraining_id=row.id,
        only=only,
    )


# --- what becomes of it -----------------------------------------------------------------------------------------------


def _ask(
    session: Session,
    row: RetrainingRow,
    policy: Mapping[str, Any],
    alert: AlertRow,
    attempt: int,
    settings: Settings,
    now: datetime,
    only: Sequence[str] | None = None,
) -> RetrainingRow:
    """Store a request and owe its call, or ask for approval first."""
    read = Policy.of_document(policy)
    end = max(parsed["to"] for parsed in row.evidence["windows"])
    newest = datetime.fromisoformat(end)
    row.uid, row.attempt, row.policy = derived_id("retraining", alert.uid, attempt), attempt, dict(policy)
    row.created_at, row.log = now, []
    row.training = {"from": format_time(newest - read.span), "to": end}
    row.state = "awaiting_approval" if read.needs_approval else "requested"
    row.deadline_at = None if read.needs_approval else now + read.deadline
    _note(row, row.state, "policy", "", now)
    session.add(row)
    session.flush()
    _tell(session, "retraining.awaiting_approval" if read.needs_approval else webhooks.ASKED, row, settings, now, only)
    return row


def _note(row: RetrainingRow, state: str, by: str, detail: str, now: datetime) -> None:
    row.log = [*row.log, {"at": format_time(now), "state": state, "by": by, "detail": detail}]


def move(
    session: Session, row: RetrainingRow, state: str, by: str, settings: Settings, now: datetime, detail: str = ""
) -> bool:
    """Bring a retraining into a state, and tell of its end; False where it is there already.

    A move that is not possible is Conflict.
    """
    if row.state == state:
        return False
    if state not in MOVES.get(row.state, frozenset()):
        raise Conflict(f"a retraining that is {row.state.replace('_', ' ')} cannot become {state.replace('_', ' ')}")
    row.state = state
    _note(row, state, by, detail, now)
    if state in MOVES:
        row.deadline_at = now + Policy.of_document(row.policy).deadline
    else:
        row.deadline_at, row.finished_at = None, now
    session.flush()
    if state == "requested":
        _tell(session, webhooks.ASKED, row, settings, now)
    elif state not in MOVES:
        _tell(session, "retraining.finished", row, settings, now)
    return True


def report(
    session: Session,
    row: RetrainingRow,
    state: str,
    settings: Settings,
    now: datetime,
    *,
    version: str | None = None,
    detail: str = "",
    trained_until: datetime | None = None,
) -> bool:
    """Take what a receiver reports; `version` names the candidate, which is registered already."""
    candidate = None
    if version is not None:
        candidate = session.scalar(
            select(VersionRow).where(VersionRow.model_id == row.model_id, VersionRow.name == version)
        )
        if candidate is None:
            raise Unprocessable(f"the model has no version {version!r}; register it before it is reported")
        if candidate.id == row.version_id:
            raise Unprocessable(f"{version!r} is the version that was to be retrained; report the new one")
    if not move(session, row, state, "receiver", settings, now, detail):
        return False
    row.candidate_id = candidate.id if candidate is not None else row.candidate_id
    row.trained_until = trained_until or row.trained_until
    return True


def approve(session: Session, row: RetrainingRow, who: str, settings: Settings, now: datetime) -> None:
    """Ask for a retraining that waits for approval; again is nothing."""
    if any(entry["state"] == "requested" for entry in row.log) and row.state in (*REPORTED, "requested"):
        return
    move(session, row, "requested", who, settings, now)


def retry(session: Session, row: RetrainingRow, who: str, settings: Settings, now: datetime) -> RetrainingRow:
    """Ask once more for what failed, expired, was rejected or cancelled: a new attempt of the same episode.

    Where that was done already, the newest attempt is returned as it is.
    """
    alert = session.get_one(AlertRow, row.alert_id)
    newest = of_episode(session, alert)[-1]
    if newest.id != row.id:
        return newest
    if row.state not in RETRIED:
        raise Conflict(f"a retraining that is {row.state.replace('_', ' ')} is not asked for again")
    others = select(RetrainingRow.id).where(RetrainingRow.model_id == row.model_id, RetrainingRow.state.in_(OPEN))
    if session.scalar(others.limit(1)) is not None:
        raise Conflict("another retraining of the model is under way")
    made = RetrainingRow(
        model_id=row.model_id,
        version_id=row.version_id,
        alert_id=row.alert_id,
        reason=row.reason,
        evidence=row.evidence,
        baseline=row.baseline,
        moment=row.moment if row.replayed else now,
        replayed=row.replayed,
    )
    policy = dict(row.policy) | {"approval": "auto"}  # somebody asks: that is the approval
    made = _ask(session, made, policy, alert, row.attempt + 1, settings, now)
    made.log = [*made.log[:-1], {**made.log[-1], "by": who}]
    return made


def expire(session: Session, settings: Settings, now: datetime) -> int:
    """End what nobody has reported about in time; return how many."""
    late = session.scalars(
        select(RetrainingRow)
        .where(RetrainingRow.state.in_(OPEN), RetrainingRow.deadline_at <= now)
        .with_for_update(skip_locked=True)
    ).all()
    for row in late:
        move(session, row, "expired", "deadline", settings, now, "nothing was reported in time")
    return len(late)


class NotAsked(Problem):
    """No policy, no retraining."""

    status, title = 404, "The model has no policy of retraining"


# --- what becomes of the candidate ------------------------------------------------------------------------------------


def promote(session: Session, row: RetrainingRow, who: str, settings: Settings, now: datetime) -> bool:
    """Make the candidate the model's active version, and close the episode of the one before; False if it is."""
    model = session.get_one(ModelRow, row.model_id)
    candidate = None if row.candidate_id is None else session.get(VersionRow, row.candidate_id)
    if row.state != "succeeded" or candidate is None:
        raise Conflict("only a retraining that succeeded and named its version can be promoted")
    if model.active_version_id == candidate.id:
        return False
    row.previous_version_id, row.promoted_at, row.promoted_by = model.active_version_id, now, who
    row.rolled_back_at = None
    candidate.registered, candidate.retired_at = True, None
    model.active_version_id = candidate.id
    model.revision += 1
    _note(row, "promoted", who, f"{candidate.name} became the active version", now)
    if row.previous_version_id is not None:
        alerts.replaced(session, row.previous_version_id, settings, now)
    session.flush()
    return True


def roll_back(session: Session, row: RetrainingRow, who: str, now: datetime) -> bool:
    """Make the version before the candidate the active one again; False if it is."""
    model = session.get_one(ModelRow, row.model_id)
    if row.promoted_at is None or row.previous_version_id is None:
        raise Conflict("nothing was promoted by this retraining")
    if model.active_version_id == row.previous_version_id:
        return False
    if model.active_version_id != row.candidate_id:
        raise Conflict("another version has become the active one since; activate the wanted one instead")
    previous = session.get_one(VersionRow, row.previous_version_id)
    previous.retired_at = None
    model.active_version_id = previous.id
    model.revision += 1
    row.rolled_back_at = now
    _note(row, "rolled_back", who, f"{previous.name} became the active version again", now)
    session.flush()
    return True
