"""The data page of a model from the database: what arrived, what was refused, and what it is compared with."""

from sqlalchemy import func, select

from dashboards import charts, formats
from dashboards.arrivals import BaselineLine, DataPage, FeatureLine, Reason, Rejection
from dashboards.fleet import Tally
from dashboards.standing import Standing
from service import baselines
from service.pages.overview import volumes
from service.pages.visit import ModelVisit, Visit
from service.tables import ArrivalRow, BaselineRow, FeatureRow, IngestBatchRow, RejectionRow
from service.words import bucket_of

BAD_VALUES = frozenset({"wrong_type", "non_finite", "unknown_class", "unknown_category"})
"""Reasons that cost a value and not its record."""
SHOWN = 50


def build(visit: Visit, name: str) -> DataPage:
    """Return the counts of what arrived in the range, and why some of it was refused."""
    at = ModelVisit.to(visit, name)
    _preset, start, end = at.range
    session = visit.session
    totals = {"accepted": 0, "duplicates": 0, "conflicts": 0, "late": 0, "rejected": 0}
    truth = {"accepted": 0, "corrected": 0}
    reasons: dict[str, int] = {}
    # Rejected records are counted in the hour of their arrival, so all of them are read.
    rows = session.scalars(
        select(ArrivalRow).where(
            ArrivalRow.model_id == at.model.id,
            ((ArrivalRow.bucket >= bucket_of(start)) & (ArrivalRow.bucket <= bucket_of(end)))
            | (ArrivalRow.rejected > 0),
        )
    )
    for row in rows:
        if at.version is not None and row.version_id not in (0, at.version.id):
            continue
        if row.kind == "predictions":
            for key in totals:
                totals[key] += getattr(row, key)
        elif row.kind == "ground_truth":
            truth["accepted"] += row.accepted
            truth["corrected"] += row.corrected
        for code, count in (row.reasons or {}).items():
            if isinstance(count, int):
                reasons[code] = reasons.get(code, 0) + count
    buffered = session.scalar(select(func.sum(IngestBatchRow.rows)).where(IngestBatchRow.model_id == at.model.id))
    counts = volumes(at, start, end)
    return DataPage(
        frame=visit.frame(at.model.name),
        title=f"{at.model.name} · data",
        banners=at.banners(),
        head=at.head(),
        view=at.view,
        section="data",
        start=start,
        end=end,
        empty=at.empty() if at.version is None else None,
        tallies=(
            Tally(label="Predictions", value=formats.number(totals["accepted"])),
            Tally(label="Duplicates", value=formats.number(totals["duplicates"])),
            Tally(label="Conflicts", value=formats.number(totals["conflicts"])),
            Tally(label="Late", value=formats.number(totals["late"])),
            Tally(
                label="Refused",
                value=formats.number(totals["rejected"]),
                standing=Standing.PARTIAL if totals["rejected"] else None,
            ),
            Tally(
                label="Labels",
                value=formats.number(truth["accepted"]),
                of=f"{formats.number(truth['corrected'])} corrected" if truth["corrected"] else "",
            ),
            Tally(label="Not sealed yet", value=formats.number(int(buffered or 0))),
        ),
        charts=(charts.volumes("volume", "Predictions by event time", counts),) if counts else (),
        reasons=tuple(
            Reason(code=code, count=count, rejects=code not in BAD_VALUES)
            for code, count in sorted(reasons.items(), key=lambda item: -item[1])
        ),
        rejections=tuple(
            Rejection(
                at=row.received_at,
                kind=row.kind,
                code=row.code,
                pointer=row.pointer,
                detail=row.detail,
                position=row.position,
            )
            for row in session.scalars(
                select(RejectionRow)
                .where(RejectionRow.model_id == at.model.id)
                .order_by(RejectionRow.id.desc())
                .limit(SHOWN)
            )
        ),
        baselines=_baselines(at),
        features=_features(at),
    )


def _baselines(at: ModelVisit) -> tuple[BaselineLine, ...]:
    names = {row.id: row.name for row in at.versions}
    in_force = baselines.newest(at.session, at.version) if at.version is not None else None
    rows = at.session.scalars(
        select(BaselineRow).where(BaselineRow.model_id == at.model.id).order_by(BaselineRow.id.desc()).limit(SHOWN)
    )
    return tuple(
        BaselineLine(
            name=row.name,
            version=names.get(row.version_id, ""),
            state=row.state,
            rows=row.rows,
            ordered=row.ordered,
            active_from=row.active_from,
            in_force=in_force is not None and row.id == in_force.id,
            created_at=row.created_at,
            warnings=tuple(str(warning) for warning in row.warnings),
        )
        for row in rows
    )


def _features(at: ModelVisit) -> tuple[FeatureLine, ...]:
    if at.version is None:
        return ()
    rows = at.session.scalars(
        select(FeatureRow).where(FeatureRow.version_id == at.version.id).order_by(FeatureRow.position, FeatureRow.id)
    )
    return tuple(
        FeatureLine(
            name=row.name,
            type=row.type,
            status=row.status,
            required=row.required,
            range=" to ".join(formats.number(end) if isinstance(end, int | float) else "…" for end in row.range)
            if row.range
            else "",
            categories=formats.listed([str(category) for category in row.categories], 6) if row.categories else "",
        )
        for row in rows
    )
