"""The retraining page from the database."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import or_, select

from dashboards import formats
from dashboards.page import Empty
from dashboards.retraining import Attempt, Contest, RetrainingPage, Rule, Step
from dashboards.standing import Standing
from service import retraining
from service.access import Principal
from service.api import retrainings as decisions
from service.assembly import Assembly
from service.pages import commands
from service.pages.visit import ModelVisit, Visit, may_operate
from service.tables import AlertRow, ModelRow, RetrainingPolicyRow, RetrainingRow, WebhookRow
from service.webhooks import ASKED
from service.words import parse_time

SHOWN = 50
STANDINGS: Mapping[str, Standing] = {
    "succeeded": Standing.OK,
    "failed": Standing.FAILED,
    "expired": Standing.FAILED,
    "rejected": Standing.NOT_MEASURED,
    "cancelled": Standing.NOT_MEASURED,
}
"""Whatever is not over waits."""


def build(visit: Visit, name: str) -> RetrainingPage:
    """Return a model's policy and what was asked for."""
    at = ModelVisit.to(visit, name)
    policy = visit.session.scalar(select(RetrainingPolicyRow).where(RetrainingPolicyRow.model_id == at.model.id))
    rows = visit.session.scalars(
        select(RetrainingRow)
        .where(RetrainingRow.model_id == at.model.id)
        .order_by(RetrainingRow.id.desc())
        .limit(SHOWN)
    ).all()
    _preset, start, end = at.range
    return RetrainingPage(
        frame=visit.frame(at.model.name),
        title=f"{at.model.name} · retraining",
        head=at.head(),
        view=at.view,
        section="retraining",
        start=start,
        end=end,
        empty=_empty(visit, at) if policy is None and not rows else None,
        rules=() if policy is None else _rules(policy.policy),
        held="" if policy is None or policy.held is None else str(policy.held["reason"]),
        attempts=tuple(_attempt(visit, at, row) for row in rows),
        listeners=_listeners(visit, at.model.name),
        may_operate=may_operate(visit.principal),
    )


def _empty(visit: Visit, at: ModelVisit) -> Empty:
    base = visit.parts.settings.public_url.rstrip("/")
    monitors = [monitor.name for monitor in at.monitors]
    watched = next(
        (name for name in ("performance", "prediction_drift", "data_drift") if name in monitors), "performance"
    )
    body: dict[str, Any] = {"when": {"monitors": [watched], "windows": "2 of 3"}, "approval": "manual"}
    if "data_quality" not in monitors:
        body["not_while"] = []
    return Empty(
        title="No policy, no retraining",
        text="A policy says which monitors ask for a retraining, how often at most, and on which rows.",
        commands=(commands.put("Say when to retrain", f"{base}/v1/models/{at.model.name}/retraining", body),),
    )


def _listeners(visit: Visit, model: str) -> int:
    rows = visit.session.scalars(select(WebhookRow).where(WebhookRow.disabled_at.is_(None)))
    return sum(
        (ASKED in row.events or "*" in row.events) and (row.models is None or model in row.models) for row in rows
    )


def _rules(policy: Mapping[str, Any]) -> tuple[Rule, ...]:
    when, data, most = policy["when"], policy["training_data"], policy["at_most"]
    windows = f"{formats.listed(list(when['monitors']))} violated in {when['windows']} windows"
    guards = formats.listed(list(policy["not_while"])) if policy["not_while"] else "nothing is looked at"
    given = f"the last {data['span']}" + (", and the baseline" if data["include_baseline"] else "")
    return (
        Rule(name="When", words=windows),
        Rule(name="Not while violated", words=guards),
        Rule(name="At least", words=f"{policy['min_labelled_rows']} labelled rows"),
        Rule(name="Cool-down", words=f"{policy['cooldown']}, and {most['times']} in {most['per']} at most"),
        Rule(name="Approval", words="by hand" if policy["approval"] == "manual" else "none is needed"),
        Rule(
            name="Promotion",
            words="by hand"
            if policy["promote"] == "manual"
            else "where a figure that decides is better by its whole interval and none is worse",
        ),
        Rule(name="Deadline", words=f"{policy['deadline']} without a report"),
        Rule(name="Rows", words=given),
    )


def _attempt(visit: Visit, at: ModelVisit, row: RetrainingRow) -> Attempt:
    names = {version.id: version.name for version in at.versions}
    alert = visit.session.get_one(AlertRow, row.alert_id)
    candidate = None if row.candidate_id is None else names.get(row.candidate_id)
    comparison = row.comparison or {}
    return Attempt(
        uid=row.uid,
        alert=alert.uid,
        attempt=row.attempt,
        state=row.state,
        standing=STANDINGS.get(row.state, Standing.WAITING),
        version=names.get(row.version_id, ""),
        reason=row.reason,
        moment=row.moment,
        replayed=row.replayed,
        deadline_at=row.deadline_at,
        training=_training(row.training),
        candidate=candidate,
        verdict=_verdict(comparison),
        contests=tuple(_contest(one) for one in comparison.get("metrics", ()) if "class" not in one),
        promoted_at=row.promoted_at,
        promoted_by=row.promoted_by,
        rolled_back_at=row.rolled_back_at,
        steps=tuple(
            Step(at=parse_time(line["at"]), state=line["state"], by=line["by"], detail=line["detail"])
            for line in row.log
        ),
        actions=_actions(visit, at, row),
    )


def _contest(one: Mapping[str, Any]) -> Contest:
    lower, upper = one["interval"] or (None, None)
    direction = one["direction"]
    return Contest(
        metric=str(one["metric"]),
        champion=one["champion"],
        challenger=one["challenger"],
        difference=one["difference"],
        lower=lower,
        upper=upper,
        less_is_better=direction == "higher_is_worse" if direction.endswith("_is_worse") else None,
        decides=bool(one.get("decides", True)),
        better=bool(one["better"]),
        worse=bool(one.get("worse", False)),
    )


def _training(training: Mapping[str, Any]) -> str:
    start, end = parse_time(training["from"]), parse_time(training["to"])
    span = f"Rows of {formats.span(start, end)}"
    manifest = training.get("manifest")
    if manifest is None:
        return f"{span}, not fetched yet."
    coverage = (
        "" if manifest["coverage"] is None else f", {formats.percent(manifest['coverage'])} of those of production"
    )
    return (
        f"{span}: {formats.plural(manifest['rows'], 'labelled row')}{coverage}, "
        f"{formats.plural(len(manifest['excluded']), 'stretch', 'stretches')} left out."
    )


def _verdict(comparison: Mapping[str, Any]) -> str:
    if not comparison:
        return "It has not been compared yet."
    if not comparison["measured"]:
        return f"Not measured: {comparison['reason']}."
    by = {"artifact": "the candidate's file", "endpoint": "the candidate's endpoint"}.get(
        comparison.get("predicted_by", "posted"), "both versions' posted predictions"
    )
    on = f"on {formats.plural(comparison['rows'], 'labelled row')}, by {by}"
    if comparison["seen_in_training"]:
        return f"Compared {on}, from which it may have learnt: that decides nothing."
    return f"It is {'better' if comparison['better'] else 'not shown to be better'} {on}."


def _actions(visit: Visit, at: ModelVisit, row: RetrainingRow) -> tuple[str, ...]:
    """Return what can be done about a retraining in its state."""
    if row.state == "awaiting_approval":
        return ("approve", "reject")
    if row.state in retraining.OPEN:
        return ("cancel",)
    if row.state in retraining.RETRIED:
        newest = retraining.of_episode(visit.session, visit.session.get_one(AlertRow, row.alert_id))[-1]
        return ("retry",) if newest.id == row.id else ()
    if row.candidate_id is None:
        return ()
    if at.model.active_version_id == row.candidate_id:
        return ("rollback",) if row.promoted_at is not None and row.previous_version_id is not None else ()
    return ("promote",)


def events(at: ModelVisit) -> list[tuple[RetrainingRow, str]]:
    """Return the retrainings of the stretch of time that is looked at, each with what became of it."""
    _preset, start, end = at.range
    names = {version.id: version.name for version in at.versions}
    rows = at.session.scalars(
        select(RetrainingRow).where(
            RetrainingRow.model_id == at.model.id,
            or_(RetrainingRow.moment >= start, RetrainingRow.finished_at >= start),
            RetrainingRow.moment <= end,
        )
    )
    found = []
    for row in rows:
        told = f"retraining {row.state.replace('_', ' ')}"
        if row.candidate_id is not None:
            told += f": {names.get(row.candidate_id, '')}"
        if row.promoted_at is not None:
            told += ", rolled back" if row.rolled_back_at else ", promoted"
        found.append((row, told))
    return found


# --- what can be done -------------------------------------------------------------------------------------------------


def decide(parts: Assembly, principal: Principal, uid: str, action: str) -> str:
    """Do what somebody decided about a retraining; return the name of its model."""
    shown = decisions.decide(parts, principal, uid, action)
    with parts.database.reading() as session:
        row = decisions.retraining_of(session, principal, shown)
        return session.get_one(ModelRow, row.model_id).name
