"""Root causes of a window: moved features by what the model heeds, and how the change of its errors splits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select
from sqlalchemy.orm import Session

from monitors import causes
from monitors.contract import Column, Role, Type
from monitors.drift import importance
from service import baselines, explanations
from service.lake import Lake
from service.profiles import Profiles
from service.tables import BaselineRow, ModelRow, MonitorRow, RunRow, VersionRow
from service.words import Span

ATTRIBUTION = "attributions."
LEARNT = (Type.NUMERIC, Type.BOOLEAN, Type.DATETIME, Type.CATEGORICAL)

Shares = tuple[Mapping[str, float], str]
"""Shares by feature that sum to 1, and where they come from; empty where nobody knows."""


def importances(session: Session, lake: Lake, version: VersionRow) -> Shares:
    """Return how much the model heeds each feature.

    What people said in the baseline's constraints, else the mean absolute attribution that came with the baseline's
    predictions, else the importances that were last explained with the version's artifact, else a surrogate of the
    prediction fitted on the baseline's sampled rows.
    """
    columns = features_of(session, version)
    said = causes.shares_of({column.label: importance(column) for column in columns})
    if said:
        return said, "constraints"
    baseline = baselines.newest(session, version)
    if baseline is None:
        return {}, ""
    told = causes.shares_of(explanations.last_importances(session, version.id))

    def made() -> Shares:
        rows = baselines.sample(lake, baseline)
        posted = {} if rows is None else causes.shares_of(_attributed(rows))
        if posted:
            return posted, "attributions of the baseline"
        if told:
            return told, "explanations of the version's artifact"
        if rows is None:
            return {}, ""
        learnt = causes.heeded(rows, columns, np.random.default_rng(int(baseline.uid, 16)))
        return learnt, "a surrogate of the prediction" if learnt else ""

    key = ("importances", baseline.uid, *(column.name for column in columns), *sorted(told.items()))
    found: Shares = baselines.remembered(key, made)
    return found


def features_of(session: Session, version: VersionRow) -> list[Column]:
    """Return the features that can be learnt from."""
    columns = baselines.columns(session, version)
    return [one for one in columns if one.role is Role.FEATURE and one.type in LEARNT and one.status != "new"]


def _attributed(rows: pa.Table) -> dict[str, float]:
    found = {}
    for name in rows.column_names:
        if name.startswith(ATTRIBUTION):
            mean = pc.mean(pc.abs(rows[name].cast(pa.float64()))).as_py()
            found[name.removeprefix(ATTRIBUTION)] = float(mean or 0.0)
    return found


def moved(session: Session, version: VersionRow, span: Span, decode: Any) -> dict[str, dict[str, Any]]:
    """Return the deciding drift result of each feature in the span's runs, the one furthest past its limit."""
    runs = session.scalars(
        select(RunRow)
        .join(MonitorRow, MonitorRow.id == RunRow.monitor_id)
        .where(
            RunRow.version_id == version.id,
            RunRow.current.is_(True),
            RunRow.document.is_not(None),
            RunRow.starts_at >= span.start,
            RunRow.ends_at <= span.end,
            MonitorRow.kind == "data_drift",
        )
    )
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for result in decode(run.document):
            feature, effect = result.get("feature"), result.get("effect")
            if feature is None or effect is None or not result.get("decides", True) or result.get("slice"):
                continue
            if feature not in found or times(result) > times(found[feature]):
                found[feature] = result
    return found


def times(result: Mapping[str, Any]) -> float:
    """Return how far a feature moved as a multiple of the least effect that counts."""
    least = result.get("min_effect") or 0.1
    return max(float(result.get("effect") or 0.0), 0.0) / float(least)


def ranked(
    drifted: Mapping[str, Mapping[str, Any]], shares: Mapping[str, float], changes: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return the features, the likeliest cause first: by drift times importance, then by what they explain."""
    names = list(dict.fromkeys([*drifted, *shares, *changes]))
    items = []
    for name in names:
        result = drifted.get(name)
        drift = None if result is None else times(result)
        share = shares.get(name) if shares else None
        items.append(
            {
                "feature": name,
                "drift": drift,
                "importance": share,
                "weight": None if drift is None else drift * (1.0 if share is None else share),
                "explained_change": changes.get(name),
                "metric": None if result is None else result.get("metric"),
                "effect": None if result is None else result.get("effect"),
                "p_value": None if result is None else result.get("p_value"),
                "verdict": None if result is None else result.get("verdict"),
            }
        )
    return sorted(
        items,
        key=lambda one: (-(one["weight"] or 0.0), -abs(one["explained_change"] or 0.0), one["feature"]),
    )


def document_of(
    session: Session, lake: Lake, profiles: Profiles, model: ModelRow, version: VersionRow, span: Span, decode: Any
) -> dict[str, Any]:
    """Return the causes of a span: features ranked, and the parts of the change of the mean error."""
    shares, source = importances(session, lake, version)
    columns = features_of(session, version)
    baseline: BaselineRow | None = baselines.active(session, version, span.start)
    before = None if baseline is None else baselines.sample(lake, baseline)
    now = profiles.sample(session, version, span, labels=True)
    changes: Mapping[str, float] = {}
    parts: Sequence[causes.Part] = [
        causes.Part("change", None, reason="no rows of the baseline or of the span are kept")
    ]
    if baseline is not None and before is not None and now is not None:
        task = baselines.task_of(model)
        seed = [int(baseline.uid, 16), int(span.start.timestamp()), int(span.end.timestamp())]
        changes = causes.explained(before, now, columns, task, np.random.default_rng(seed))
        parts = causes.split(before, now, columns, task, np.random.default_rng(seed))
    return {
        "version": version.name,
        "baseline": None if baseline is None else baseline.name,
        "metric": "absolute error" if model.task == "regression" else "error rate",
        "importance_source": source or None,
        "features": ranked(moved(session, version, span, decode), shares, changes),
        "parts": [
            {
                "name": part.name,
                "value": part.value,
                "interval": None if part.interval is None else list(part.interval),
                "reason": part.reason or None,
            }
            for part in parts
        ],
        "rows": 0 if now is None else now.num_rows,
    }
