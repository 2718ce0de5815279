"""Candidates: a retrained version against the one it would replace, on the same labelled rows of production."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from monitors.comparison import Contest, contested, is_better
from monitors.performance import PerformanceParameters
from service import baselines, retraining
from service.explanations import Explanations, artifact_of
from service.lake import Sealer, reader
from service.lake.columns import MOMENT, shaped, together
from service.lake.lease import kept, take
from service.problems import Problem, Unavailable
from service.retraining import Policy
from service.tables import ArtifactRow, ModelRow, MonitorRow, RetrainingRow, VersionRow
from service.words import HOUR, Span, format_time, parse_time

LEAST_ROWS = 30
MOST_ROWS = 50_000
"""The newest so many are compared where both sides were posted."""
MOST_SCORED = 20_000
"""The same where the candidate's artifact or endpoint is asked."""
AGAIN_AFTER = timedelta(minutes=10)
WATCHED_FOR = timedelta(days=14)
"""How long after its end a candidate that is not promoted is compared anew as rows and labels come."""
LEASE_SECONDS = 60.0
OTHER = "_of_challenger"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The same labelled rows as both predicted them, in one order; ``by`` says where the candidate's come from."""

    champion: pa.Table
    challenger: pa.Table
    by: str


@dataclass(frozen=True, kw_only=True)
class Match:
    """A candidate and the version it would replace over a span, and where their rows are."""

    session: Session
    explanations: Explanations
    model: ModelRow
    champion: VersionRow
    candidate: VersionRow
    span: Span


# --- when -------------------------------------------------------------------------------------------------------------


def judge(explanations: Explanations, sealer: Sealer, uid: str) -> dict[str, Any] | None:
    """Compare a retraining's candidate with its champion, keep what came out, and promote where the policy says so.

    Raises Unavailable while another process compares them.
    """
    database, clock, settings = explanations.database, explanations.clock, explanations.settings
    with database.reading() as session:
        row = session.scalars(select(RetrainingRow).where(RetrainingRow.uid == uid)).one()
        if row.state != "succeeded" or row.candidate_id is None:
            return None
    lease = take(database, f"comparison:{uid}", LEASE_SECONDS)
    if lease is None:
        raise Unavailable("the candidate is being compared; ask again in a moment", headers={"Retry-After": "2"})
    try:
        with kept(lambda: lease.renew(database, LEASE_SECONDS), LEASE_SECONDS):
            sealer.seal(row.model_id)
            with database.reading() as session:
                found = compared(session, explanations, row, clock.now())
        with database.writing() as session:
            lease.check(session)
            held = session.get_one(RetrainingRow, row.id, with_for_update=True)
            held.comparison = found
            promotes = Policy.of_document(held.policy).promotes
            if promotes and found["better"] and held.promoted_at is None and held.rolled_back_at is None:
                retraining.promote(session, held, "policy", settings, clock.now())
    finally:
        lease.release(database)
    return found


def judge_due(explanations: Explanations, sealer: Sealer) -> int:
    """Compare again the candidates that still wait for a verdict; return how many."""
    now = explanations.clock.now()
    waiting = select(RetrainingRow).where(
        RetrainingRow.state == "succeeded",
        RetrainingRow.candidate_id.is_not(None),
        RetrainingRow.promoted_at.is_(None),
        RetrainingRow.finished_at > now - WATCHED_FOR,
    )
    with explanations.database.reading() as session:
        due = [
            row.uid
            for row in session.scalars(waiting)
            if row.comparison is None or parse_time(row.comparison["at"]) <= now - AGAIN_AFTER
        ]
    done = 0
    for uid in due:
        try:
            done += judge(explanations, sealer, uid) is not None
        except Problem as problem:  # a damaged file, a seal under way, another worker: the next tick tries again
            log.warning("a candidate could not be compared", retraining=uid, reason=problem.detail)
    return done


def is_scored(session: Session, row: RetrainingRow) -> bool:
    """Return whether the candidate's artifact or endpoint is to be asked, which takes a while."""
    return row.candidate_id is not None and artifact_of(session, row.candidate_id) is not None


# --- what comes out ---------------------------------------------------------------------------------------------------


def compared(session: Session, explanations: Explanations, row: RetrainingRow, now: datetime) -> dict[str, Any]:
    """Return how candidate and champion do on the same labelled rows.

    What the candidate says of them comes from its artifact or endpoint, else from rows posted under its version with
    the same ids. Rows that it has not seen count: those from ``trained_until`` on, or from the end of the training
    data. Where too few of them are there, the windows of the request are compared and the answer says that the
    candidate may have learnt from them; nothing is promoted on that.
    """
    model = session.get_one(ModelRow, row.model_id)
    champion, candidate = session.get_one(VersionRow, row.version_id), session.get_one(VersionRow, row.candidate_id)
    told = {"at": format_time(now), "champion": champion.name, "challenger": candidate.name, "better": False}
    unseen_from = row.trained_until or parse_time(row.training["to"])
    newest = max((one.last_event_at for one in (champion, candidate) if one.last_event_at), default=unseen_from)
    windows = row.evidence["windows"]
    asked = Span(parse_time(windows[0]["from"]), parse_time(row.training["to"]))
    reasons: list[str] = []
    for span, seen in ((Span(unseen_from, newest + HOUR), False), (asked, True)):
        if span.end <= span.start:
            continue
        match = Match(
            session=session,
            explanations=explanations,
            model=model,
            champion=champion,
            candidate=candidate,
            span=span,
        )
        if (pair := _pair(match, reasons)) is not None:
            digest = blake2b(f"{row.uid}\x1f{span}".encode(), digest_size=16).digest()
            generator = np.random.default_rng(int.from_bytes(digest, "little"))
            try:
                contests = contested(
                    pair.champion, pair.challenger, baselines.task_of(model), judged_by(session, model), generator
                )
            except ValueError as error:
                reasons.append(str(error))
                continue
            return told | {
                "measured": True,
                "window": {"from": format_time(span.start), "to": format_time(span.end)},
                "seen_in_training": seen,
                "predicted_by": pair.by,
                "rows": pair.champion.num_rows,
                "metrics": [_document(contest) for contest in contests],
                "better": is_better(contests) and not seen,
            }
    reasons.append(
        f"fewer than {LEAST_ROWS} labelled rows were predicted by both; give version {candidate.name} its artifact or "
        f"endpoint, or post its predictions under version {candidate.name} with the same ids"
    )
    return told | {"measured": False, "reason": "; ".join(dict.fromkeys(reasons))}


def judged_by(session: Session, model: ModelRow) -> PerformanceParameters:
    """Return what decides between versions: what the model's performance monitor judges, else what is usual."""
    parameters = session.scalar(
        select(MonitorRow.parameters)
        .where(MonitorRow.model_id == model.id, MonitorRow.kind == "performance")
        .order_by(MonitorRow.enabled.desc(), MonitorRow.id)
        .limit(1)
    )
    return PerformanceParameters.model_validate(parameters or {})


def _document(contest: Contest) -> dict[str, Any]:
    return {
        "metric": contest.figure.metric,
        **({} if contest.figure.class_ is None else {"class": contest.figure.class_}),
        "unit": contest.unit,
        "champion": contest.champion,
        "challenger": contest.challenger,
        "difference": contest.challenger - contest.champion,
        "interval": None if contest.interval is None else list(contest.interval),
        "level": contest.level,
        "direction": contest.direction.value,
        "decides": contest.decides,
        "better": contest.better,
        "worse": contest.worse,
    }


# --- which rows -------------------------------------------------------------------------------------------------------


def _pair(match: Match, reasons: list[str]) -> Pair | None:
    """Return the rows of both; None where they are too few; ``reasons`` gets why the model said nothing.

    An artifact or endpoint comes first; where it does not answer, rows that were posted are as good.
    """
    artifact = artifact_of(match.session, match.candidate.id)
    pair = None
    if artifact is not None:
        try:
            pair = _scored(match, artifact)
        except Problem as problem:
            reasons.append(problem.detail or problem.title)
    pair = pair or _posted(match)
    return pair if pair.champion.num_rows >= LEAST_ROWS else None


def _scored(match: Match, artifact: ArtifactRow) -> Pair:
    """Have the candidate predict the champion's labelled rows in the worker process."""
    inputs = [f"features.{name}" for name in artifact.about["inputs"]]
    own = _labelled(match, inputs)
    by = "endpoint" if artifact.endpoint is not None else "artifact"
    if own.num_rows < LEAST_ROWS:
        return Pair(champion=own, challenger=own, by=by)
    explanations = match.explanations
    said = explanations.predicted(explanations.material(match.session, match.model.id, match.candidate.id), own)
    kept_columns = {name: own[name] for name in ("prediction_id", "timestamp", "ground_truth")}
    schema = _shape(match.model)
    challenger = shaped(pa.table(kept_columns | dict(said)), schema)
    there = pc.is_valid(challenger["prediction"])
    return Pair(champion=shaped(own, schema).filter(there), challenger=challenger.filter(there), by=by)


def _posted(match: Match) -> Pair:
    """Return the labelled rows that both predicted by id; a label that one of them has counts for both."""
    schema = _shape(match.model)
    tables = [shaped(_rows(match, version, []), schema) for version in (match.champion, match.candidate)]
    both = tables[0].join(tables[1], "prediction_id", join_type="inner", right_suffix=OTHER)
    truth = pc.coalesce(both["ground_truth"], both[f"ground_truth{OTHER}"])
    both = both.set_column(both.schema.get_field_index("ground_truth"), "ground_truth", truth)
    for name in ("ground_truth", "prediction", f"prediction{OTHER}"):
        both = both.filter(pc.is_valid(both[name]))
    both = _newest(both, MOST_ROWS)
    shared = ("prediction_id", "timestamp", "ground_truth")
    challenger = {name: both[name if name in shared else f"{name}{OTHER}"] for name in schema.names}
    return Pair(champion=both.select(schema.names), challenger=pa.table(challenger), by="posted")


def _labelled(match: Match, inputs: Sequence[str]) -> pa.Table:
    table = _rows(match, match.champion, inputs)
    for name in ("ground_truth", "prediction"):
        if name not in table.column_names:
            return table.slice(0, 0)
        table = table.filter(pc.is_valid(table[name]))
    return _newest(table, MOST_SCORED)


def _newest(table: pa.Table, most: int) -> pa.Table:
    order = [("timestamp", "descending"), ("prediction_id", "ascending")]
    return table.sort_by(order).slice(0, most)


def _rows(match: Match, version: VersionRow, more: Sequence[str]) -> pa.Table:
    """Return a version's rows of the span with their labels, those with a label alone where there are features."""
    schema, lake = _shape(match.model), match.explanations.lake
    names = [*(name for name in schema.names if name != "ground_truth"), *more]
    parts = [schema.empty_table()]
    for batch in reader.batches(match.session, lake, match.model.id, version.id, match.span, names, labels=True):
        wanted = batch.filter(pc.is_valid(batch["ground_truth"])) if more else batch
        parts.append(reader.plain(pa.Table.from_batches([wanted])))
    return together(parts)


def _shape(model: ModelRow) -> pa.Schema:
    """Return the columns that are compared, typed as the task's tables want them."""
    answer = pa.float64() if model.task == "regression" else pa.string()
    scores = [f"scores.{name}" for name in model.classes or ()] if model.task in ("multiclass", "multilabel") else []
    return pa.schema(
        [
            ("prediction_id", pa.string()),
            ("timestamp", MOMENT),
            ("prediction", answer),
            ("ground_truth", answer),
            *((name, pa.float64()) for name in (["score"] if model.task == "binary" else scores)),
        ]
    )
