"""Candidates: a retrained version against the one it would replace, on the same labelled rows of production."""

from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select
from sqlalchemy.orm import Session

from monitors import comparison
from service import retraining
from service.clock import Clock
from service.database import Database
from service.lake import Lake, Sealer, reader
from service.lake.columns import MOMENT, as_numbers, shaped, together
from service.retraining import Policy
from service.settings import Settings
from service.tables import ModelRow, RetrainingRow, VersionRow
from service.words import HOUR, Span, format_time, parse_time

LEAST_ROWS = 30
MOST_ROWS = 100_000
"""The newest so many are compared."""
AGAIN_AFTER = timedelta(minutes=10)
WATCHED_FOR = timedelta(days=14)
"""How long after its end a candidate that is not promoted is compared anew as rows and labels come."""
COLUMNS = ("prediction_id", "timestamp", "prediction", "score")
SHAPE = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("timestamp", MOMENT),
        ("prediction", pa.string()),
        ("score", pa.float64()),
        ("ground_truth", pa.string()),
    ]
)
EMPTY = SHAPE.empty_table()
OTHER = "_of_challenger"


def judge(
    database: Database, lake: Lake, sealer: Sealer, clock: Clock, settings: Settings, uid: str
) -> dict[str, Any] | None:
    """Compare a retraining's candidate with its champion, keep what came out, and promote where the policy says so."""
    with database.reading() as session:
        row = session.scalars(select(RetrainingRow).where(RetrainingRow.uid == uid)).one()
        if row.state != "succeeded" or row.candidate_id is None:
            return None
    sealer.seal(row.model_id)
    with database.reading() as session:
        found = compared(session, lake, row, clock.now())
    with database.writing() as session:
        held = session.get_one(RetrainingRow, row.id, with_for_update=True)
        held.comparison = found
        promotes = Policy.of_document(held.policy).promotes
        if promotes and found["better"] and held.promoted_at is None and held.rolled_back_at is None:
            retraining.promote(session, held, "policy", settings, clock.now())
    return found


def judge_due(database: Database, lake: Lake, sealer: Sealer, clock: Clock, settings: Settings) -> int:
    """Compare again the candidates that still wait for a verdict; return how many."""
    now = clock.now()
    waiting = select(RetrainingRow).where(
        RetrainingRow.state == "succeeded",
        RetrainingRow.candidate_id.is_not(None),
        RetrainingRow.promoted_at.is_(None),
        RetrainingRow.finished_at > now - WATCHED_FOR,
    )
    with database.reading() as session:
        due = [
            row.uid
            for row in session.scalars(waiting)
            if row.comparison is None or parse_time(row.comparison["at"]) <= now - AGAIN_AFTER
        ]
    for uid in due:
        judge(database, lake, sealer, clock, settings, uid)
    return len(due)


def compared(session: Session, lake: Lake, row: RetrainingRow, now: datetime) -> dict[str, Any]:
    """Return how candidate and champion do on the rows that both predicted and that have a label.

    Rows that the candidate has not seen count: those from ``trained_until`` on, or from the end of the training data.
    Where too few of them are there, the windows of the request are compared and the answer says that the candidate may
    have learnt from them; nothing is promoted on that.
    """
    model = session.get_one(ModelRow, row.model_id)
    champion, candidate = session.get_one(VersionRow, row.version_id), session.get_one(VersionRow, row.candidate_id)
    told = {"at": format_time(now), "champion": champion.name, "challenger": candidate.name, "better": False}
    unseen_from = row.trained_until or parse_time(row.training["to"])
    newest = max((one.last_event_at for one in (champion, candidate) if one.last_event_at), default=unseen_from)
    windows = row.evidence["windows"]
    asked = Span(parse_time(windows[0]["from"]), parse_time(row.training["to"]))
    for span, seen in ((Span(unseen_from, newest + HOUR), False), (asked, True)):
        if span.end <= span.start:
            continue
        both = _both(session, lake, model, champion, candidate, span)
        if both.num_rows < LEAST_ROWS:
            continue
        losses = _losses(model, both)
        digest = blake2b(f"{row.uid}\x1f{span}".encode(), digest_size=16).digest()
        generator = np.random.default_rng(int.from_bytes(digest, "little"))
        differences = comparison.compared(losses, generator)
        return told | {
            "measured": True,
            "window": {"from": format_time(span.start), "to": format_time(span.end)},
            "seen_in_training": seen,
            "rows": differences[0].rows,
            "metrics": [
                {
                    "metric": one.metric,
                    "champion": one.champion,
                    "challenger": one.challenger,
                    "difference": one.difference,
                    "interval": [one.lower, one.upper],
                    "direction": "higher_is_worse",
                    "better": one.is_better,
                }
                for one in differences
            ],
            "better": differences[0].is_better and not seen,
        }
    reason = (
        f"fewer than {LEAST_ROWS} labelled rows were predicted by both; post the candidate's predictions under "
        f"version {candidate.name} with the same ids"
    )
    return told | {"measured": False, "reason": reason}


def _both(
    session: Session, lake: Lake, model: ModelRow, champion: VersionRow, candidate: VersionRow, span: Span
) -> pa.Table:
    """Return the labelled rows that both predicted: one line for each id, the newest `MOST_ROWS`."""
    tables = []
    for version in (champion, candidate):
        parts = reader.batches(session, lake, model.id, version.id, span, COLUMNS, labels=True)
        tables.append(
            shaped(together([EMPTY, *(reader.plain(pa.Table.from_batches([part])) for part in parts)]), SHAPE)
        )
    both = tables[0].join(tables[1], "prediction_id", join_type="inner", right_suffix=OTHER)
    both = both.append_column("truth", pc.coalesce(both["ground_truth"], both[f"ground_truth{OTHER}"]))
    for name in ("truth", "prediction", f"prediction{OTHER}"):
        both = both.filter(pc.is_valid(both[name]))
    return both.sort_by([("timestamp", "descending"), ("prediction_id", "ascending")]).slice(0, MOST_ROWS)


def _losses(model: ModelRow, both: pa.Table) -> dict[str, tuple[comparison.Numbers, comparison.Numbers]]:
    """Return the losses of each row by metric, the one that decides first."""

    def numbers(name: str) -> comparison.Numbers:
        return np.asarray(as_numbers(both[name].combine_chunks()).to_numpy(zero_copy_only=False), np.float64)

    sides = ("", OTHER)
    if model.task == "regression":
        truth = numbers("truth")
        predicted = [numbers(f"prediction{side}") for side in sides]
        known = np.isfinite(truth) & np.isfinite(predicted[0]) & np.isfinite(predicted[1])
        one, other = (comparison.absolute_error(truth[known], each[known]) for each in predicted)
        return {"mean_absolute_error": (one, other)}
    truths = np.array(both["truth"].to_pylist(), dtype=str)
    one, other = (
        comparison.error_rate(truths, np.array(both[f"prediction{side}"].to_pylist(), dtype=str)) for side in sides
    )
    found = {"error_rate": (one, other)}
    scores = [numbers(f"score{side}") for side in sides]
    usable = all(bool(np.all((score >= 0) & (score <= 1))) for score in scores)  # a missing one is neither
    if model.positive_class is None or not usable:
        return found
    one, other = (comparison.log_loss(truths == model.positive_class, score) for score in scores)
    return {"log_loss": (one, other), **found}
