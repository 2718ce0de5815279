"""Rehearsals: a monitor over rows drawn from its own baseline, which say what it would judge and could find."""

from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import ndtri, stdtrit
from sqlalchemy.orm import Session

from monitors import budget, discovery
from monitors.contract import Direction, Result
from monitors.resampling import PERMUTATIONS, TAIL_FREEDOM
from service import baselines, checks, groups, posted, runs, windows
from service.problems import Problem
from service.runs import ROLLING, SEASONAL, Due, Measured, Workshop
from service.tables import BaselineRow, ModelRow, MonitorRow, VersionRow
from service.uploads import Sheet
from service.words import Span

POWER = 0.8
SEEN = 2
"""Draws as extreme as that, from which on their share says how rare a change is."""
MOST_ROWS = 100_000
"""Rows that are drawn at most."""
SUBJECT = ("metric", "feature", "slice", "attribute", "group", "reference_group", "class", "scale")
SHOWN = (
    "baseline_value",
    "min_effect",
    "alpha",
    "threshold",
    "rule",
    "direction",
    "unit",
    "n_window",
    "n_baseline",
    "reason",
    "note",
)


@dataclass(frozen=True)
class Rehearsal:
    """What a window like the baseline would be judged on, or the reason why that cannot be said."""

    subjects: list[dict[str, Any]]
    rows: int = 0
    baseline: str = ""
    reason: str = ""


def rehearse(
    session: Session, workshop: Workshop, model: ModelRow, monitor: MonitorRow, *, alpha: float | None, rows: int | None
) -> Rehearsal:
    """Return each subject that a monitor would judge of a window of so many rows.

    The window is a draw without replacement from the baseline, with its labels and protected attributes, so figures,
    groups too small to be told of and the least effects are those that a quiet window would have. ``rows`` not being
    known, all of the baseline are taken. ``monitor`` need not be stored.
    """
    kind = discovery.kinds()[monitor.kind]
    if kind.judges_posted:
        return _of_posted(session, model, monitor, alpha)
    if kind.needs_attributions:
        return Rehearsal([], reason="what predictions rest on is explained when a window is run, and not before")
    named = None if monitor.baseline in ("active", ROLLING, SEASONAL) else monitor.baseline
    try:
        asked = checks.Asked(model_id=model.id, baseline=named, monitors=())
        found = checks.against(session, workshop, asked)
    except Problem as problem:
        return Rehearsal([], reason=problem.detail or problem.title)
    if found.baseline.path is None:
        return Rehearsal([], reason=f"the baseline {found.baseline.name} keeps no rows to draw a window from")
    made = checks.Check(workshop, found, _drawn(workshop, found.baseline, groups.protected_names(found.layout), rows))
    now = workshop.clock.now()
    made.span = Span(now - windows.LENGTHS[monitor.window], now)
    measured = made.measured(session, monitor, alpha)
    judged = [result for result in measured.results if result.decides and result.verdict is not None]
    return Rehearsal(
        [_subject(result) for result in judged],
        made.rows.num_rows,
        found.baseline.name,
        measured.reason or ("" if judged else "nothing that it measures would be judged"),
    )


def _of_posted(session: Session, model: ModelRow, monitor: MonitorRow, alpha: float | None) -> Rehearsal:
    """Return how the figures of the newest window would be judged that any were posted for."""
    version = None if model.active_version_id is None else session.get(VersionRow, model.active_version_id)
    newest = None if version is None else posted.newest(session, version.id)
    if version is None or newest is None:
        return Rehearsal([], reason="no figure was posted yet")
    grid = windows.grid_of(monitor.schedule, monitor.window, monitor.offset)
    window = grid.ending(next(iter(grid.ends_after(newest))))
    due = Due(model=model, version=version, monitor=monitor, window=window, data=window, judge=False)
    policy, into = budget.parse_policy(monitor.policy), Measured()
    found = due.kind.measure(runs.posted_comparison(session, due, into), policy.prepared(due.parameters))
    judged = policy.judge(found, runs.alpha_of(session, due) if alpha is None else alpha)
    return Rehearsal([_subject(one) for one in judged if one.decides and one.verdict is not None], into.rows)


def _drawn(workshop: Workshop, baseline: BaselineRow, apart: tuple[str, ...], rows: int | None) -> Sheet:
    """Return rows of a baseline that are drawn at random, always the same, without their times."""
    table = baselines.rows_of(workshop.lake, baseline)
    table = groups.beside(table, baselines.protected_of(workshop.lake, baseline), apart)
    number = min(rows or table.num_rows, table.num_rows, MOST_ROWS)
    chosen = np.random.default_rng(int(baseline.uid, 16)).choice(table.num_rows, number, replace=False)
    table = table.take(pa.array(np.sort(chosen)))
    return Sheet(table.drop_columns([name for name in ("timestamp",) if name in table.column_names]), {})


def _subject(result: Result) -> dict[str, Any]:
    """Return how a subject would be judged, of what was found of it in the rehearsal."""
    found = runs.result_document(result)
    told = {name: found[name] for name in SUBJECT if name in found and (name != "scale" or found[name] > 1)}
    told |= {name: found[name] for name in SHOWN if name in found}
    smallest = smallest_change(result)
    if smallest is not None:
        unit = "of the logarithm" if result.direction is Direction.DISTANCE_FROM_ONE else result.unit
        told["smallest_change"] = {"value": smallest, "unit": unit or "of the figure", "power": POWER}
    return told


def smallest_change(result: Result) -> float | None:
    """Return the least change for the worse that a budget finds four times in five; None where none can be told.

    It must be too large for chance and larger than the least that is reported, both in four cases of five. Where fewer
    draws than `SEEN` would be as rare as alpha, a heavy tail says what chance is (`monitors.resampling`).
    """
    chance, alpha = result.chance, result.alpha
    if chance is None or alpha is None or not isfinite(chance.spread):
        return None
    one_sided = result.direction in (Direction.LOWER_IS_WORSE, Direction.HIGHER_IS_WORSE)
    counted = alpha * (PERMUTATIONS + 1) >= SEEN
    freedom = min(chance.freedom, inf if counted else TAIL_FREEDOM)
    limit = -float(stdtrit(freedom, alpha if one_sided else alpha / 2)) * chance.spread
    return max(limit, result.min_effect or 0.0) + float(ndtri(POWER)) * chance.spread
