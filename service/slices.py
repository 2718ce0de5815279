"""Slices of a model's population as they are declared, and which of them a monitor measures in a window."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from monitors.contract import Arrivals, Comparison, Subject
from monitors.slices import Declared, Slice, declared
from service import baselines
from service.lake import Lake
from service.profiles import Profiles
from service.tables import BaselineRow, ModelRow, MonitorRow, ProfileRow, SliceRow, VersionRow
from service.words import Span

OWN_COLUMNS = ("prediction", "score", "ground_truth")


def declared_of(row: SliceRow) -> Declared:
    """Return a slice as it was declared."""
    return declared(row.name, row.document)


def rows_of(session: Session, model: ModelRow) -> list[SliceRow]:
    """Return a model's slices, by name."""
    return list(session.scalars(select(SliceRow).where(SliceRow.model_id == model.id).order_by(SliceRow.name)))


def of_monitor(
    session: Session,
    lake: Lake,
    profiles: Profiles,
    version: VersionRow,
    monitor: MonitorRow,
    baseline: BaselineRow,
    window: Span,
) -> Iterator[tuple[Slice, str]]:
    """Yield the slices that a monitor measures, each with the reason why it cannot, empty where it can.

    Both sides of a comparison are sliced, so the baseline must have the column. Where it is rolling, the values of
    ``by`` are those of the window.
    """
    rolling = monitor.baseline == "rolling"
    rows = profiles.sample(session, version, window) if rolling else baselines.sample(lake, baseline)
    for name in monitor.slices:
        row = session.scalar(select(SliceRow).where(SliceRow.model_id == monitor.model_id, SliceRow.name == name))
        if row is None:
            yield Slice(name, {}), f"there is no slice {name}"
            continue
        found = declared_of(row)
        if reason := _missing(found, rows, rolling):
            yield Slice(name, {}), reason
        else:
            yield from ((part, "") for part in found.slices(rows))


def _missing(found: Declared, rows: pa.Table | None, rolling: bool) -> str:
    if rows is None:
        return "no rows are kept to slice"
    absent = [column for column in found.columns if column not in rows.column_names]
    if not absent or (rolling and not found.by):
        return ""
    return (
        f"the baseline has no {', '.join(absent)}; a baseline of a past window of production has, "
        'and so has "baseline": "rolling"'
    )


def columns_named(session: Session, monitor: MonitorRow) -> frozenset[str] | None:
    """Return the lake's columns that the monitors of the same slices name; None where one looks at all of them."""
    rows = session.scalars(
        select(MonitorRow).where(MonitorRow.model_id == monitor.model_id, MonitorRow.enabled.is_(True))
    )
    named: set[str] = set()
    for one in (monitor, *rows):
        if one is monitor or set(one.slices) & set(monitor.slices):
            features = one.parameters.get("features")
            if not isinstance(features, list):
                return None
            named |= {f"features.{feature}" for feature in features}
    return frozenset(named | set(OWN_COLUMNS))


def within(comparison: Comparison, name: str) -> Comparison:
    """Return a comparison of a slice's rows with chance of its own.

    How much came, and the order of answers that detectors follow, are known of the whole alone.
    """

    def generator(metric: str, subject: Subject) -> np.random.Generator:
        return comparison.generator(metric, replace(subject, slice=name))

    return replace(
        comparison,
        generator=generator,
        arrivals=Arrivals(rows=comparison.window.rows, judged=False),
        answers=lambda: None,
        detections={},
    )


def forget_profiles(session: Session, row: SliceRow) -> None:
    """Remove the profiles of a slice that changes or goes."""
    versions = select(VersionRow.id).where(VersionRow.model_id == row.model_id)
    session.execute(
        delete(ProfileRow).where(
            ProfileRow.version_id.in_(versions),
            or_(*(ProfileRow.slice.startswith(f"{row.name}{mark}", autoescape=True) for mark in "#=")),
        )
    )
