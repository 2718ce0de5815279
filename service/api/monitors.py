"""Monitors: configured watches over a model, with what each would cost of the alarm budget before it is made."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import sqrt
from statistics import NormalDist
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field, ValidationError
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from monitors import budget, discovery
from monitors.contract import Column, Kind, Parameters, Role
from monitors.drift import DriftParameters, family_of
from monitors.performance import label_coverage
from service import baselines, windows
from service.access import Principal
from service.api.bodies import Body, Duration, Name, Part, Short, Time, validated
from service.api.depends import (
    Configurer,
    Operator,
    Page,
    Parts,
    Reader,
    audit,
    check_match,
    etag,
    listed,
    model_named,
    monitor_named,
    page_of,
)
from service.api.problems import faults_of, refused
from service.assembly import Assembly
from service.problems import Conflict, Fault
from service.rehearsals import POWER, rehearse
from service.runs import LABELS, ROLLING, SEASONAL
from service.scheduler import workshop_of
from service.tables import ArrivalRow, BaselineRow, ModelRow, MonitorRow, SliceRow, VersionRow, WebhookRow
from service.words import HOUR, format_time, new_id, parse_time

router = APIRouter(prefix="/v1/models/{model}/monitors", tags=["monitors"])

SCHEDULES = {window: schedule for schedule, window in windows.PERIODS.items()}
FIGURES_DELAY = "1d"
"""How long after a window's end posted figures are waited for, where a monitor does not say."""


class Labels(Part):
    """When a window's labels are complete enough to judge it."""

    delay: Duration = LABELS["delay"]
    min_coverage: Annotated[float, Field(ge=0, le=1)] = LABELS["min_coverage"]
    min_rows: Annotated[int, Field(ge=1, le=10**9)] = LABELS["min_rows"]


class MonitorPatch(Body):
    """What of a monitor can be changed; members left out stay."""

    schedule: Short = "daily"
    window: Short | None = None
    offset: Short = "0h"
    versions: Short | Annotated[list[Name], Field(min_length=1, max_length=100)] = "each"
    baseline: Annotated[
        Name,
        Field(
            description="What windows are compared with: `active`, a baseline by name, `rolling` (the 28 windows "
            "before) or `seasonal` (the same hours of the week, once 20 weeks of them are known)."
        ),
    ] = "active"
    parameters: dict[str, Any] = Field(default_factory=dict)
    policy: dict[str, Any] = Field(default_factory=dict)
    labels: Labels | None = None
    slices: Annotated[list[Name], Field(max_length=20)] = Field(default_factory=list)
    actions: Annotated[list[Name], Field(max_length=20)] = Field(default_factory=list)
    enabled: bool = True
    start: Time | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"policy": {"threshold": {"psi": 0.2}}}]})


class MonitorBody(MonitorPatch):
    """A monitor as it is declared."""

    name: Name
    kind: Short

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "inputs",
                    "kind": "data_drift",
                    "schedule": "daily",
                    "window": "1d",
                    "parameters": {"methods": {"age": "ks"}, "also": ["psi"]},
                    "policy": {"budget": {"share": 0.5}},
                }
            ]
        }
    )


class DefaultsBody(Body):
    """Which windows the default monitors have, and from when on."""

    window: Short = "1d"
    start: Time | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"window": "1d"}]})


def _fault(pointer: str, code: str, detail: str) -> Fault:
    return Fault(pointer, code, detail)


def kind_named(name: str) -> Kind:
    """Return the kind of monitor of that name; any other is a 422 that lists what there is."""
    found = discovery.kinds().get(name)
    if found is None:
        raise refused(
            [_fault("/kind", "unknown_kind", f"there is no kind {name!r}; there are {', '.join(discovery.kinds())}")]
        )
    return found


def parameters_of(kind: Kind, document: Mapping[str, Any]) -> Parameters:
    """Return the parameters of a kind; faults are a 422 with pointers."""
    try:
        return kind.parameters.model_validate(document)
    except ValidationError as error:
        raise refused(faults_of(error.errors(), "/parameters")) from error


def columns_of(session: Session, model: ModelRow, body: MonitorBody) -> dict[str, Any]:
    """Check a monitor against its kind, its schedule and what it names; return what the row keeps."""
    kind = kind_named(body.kind)
    grid = windows.grid_of(body.schedule, body.window, body.offset)
    parameters = parameters_of(kind, body.parameters)
    faults: list[Fault] = []
    if missing := kind.missing(baselines.task_of(model), parameters):
        faults.append(_fault("/kind", "model_incomplete", missing))
    try:
        budget.parse_policy(body.policy).prepared(parameters)
    except budget.PolicyInvalidError as error:
        faults.append(_fault("/policy", "bad_policy", str(error)))
    if isinstance(body.versions, str) and body.versions not in ("each", "all"):
        faults.append(_fault("/versions", "bad_versions", 'versions are "each", "all" or a list of names'))
    if body.baseline == SEASONAL and grid.window not in ("1h", "1d"):
        detail = f"a window of {grid.window} holds every hour of the week, so it has no season; compare hours or days"
        faults.append(_fault("/baseline", "no_season", detail))
    elif kind.judges_posted and body.baseline not in ("active", ROLLING, SEASONAL):
        detail = "posted figures are compared with those of the windows before, not with a baseline's rows"
        faults.append(_fault("/baseline", "no_baseline", detail))
    elif body.baseline not in ("active", ROLLING, SEASONAL):
        named = select(BaselineRow.id).where(BaselineRow.model_id == model.id, BaselineRow.name == body.baseline)
        if session.scalar(named) is None:
            faults.append(_fault("/baseline", "no_such_baseline", f"there is no baseline {body.baseline!r}"))
    if kind.judges_posted and body.slices:
        detail = "posted figures have no rows to be cut into slices; post a figure for each group instead"
        faults.append(_fault("/slices", "no_rows", detail))
    parts = set(session.scalars(select(SliceRow.name).where(SliceRow.model_id == model.id)))
    for place, name in enumerate(body.slices):
        if name not in parts:
            faults.append(_fault(f"/slices/{place}", "no_such_slice", f"there is no slice {name!r}"))
    known = set(session.scalars(select(WebhookRow.name).where(WebhookRow.name.in_(body.actions))))
    for place, name in enumerate(body.actions):
        if name not in known:
            faults.append(_fault(f"/actions/{place}", "no_such_webhook", f"there is no webhook {name!r}"))
    if faults:
        raise refused(faults)
    usual = Labels(delay=FIGURES_DELAY) if kind.judges_posted else Labels()
    labels = body.labels or (usual if kind.waits_for_labels(parameters) else None)
    return {
        "name": body.name,
        "kind": body.kind,
        "schedule": body.schedule,
        "window": grid.window,
        "offset": body.offset,
        "versions": body.versions,
        "baseline": body.baseline,
        "parameters": body.parameters,
        "policy": body.policy,
        "labels": None if labels is None else labels.model_dump(),
        "slices": body.slices,
        "actions": body.actions,
        "enabled": body.enabled,
        "starts_at": None if body.start is None else parse_time(body.start, "/start"),
    }


def document_of(row: MonitorRow) -> dict[str, Any]:
    """Return a monitor as the interface shows it, its parameters with the defaults of its kind."""
    kind = discovery.kinds().get(row.kind)
    parameters = dict(row.parameters)
    if kind is not None:
        parameters = kind.parameters.model_validate(row.parameters).model_dump(mode="json", by_alias=True)
    return {
        "id": row.uid,
        "name": row.name,
        "kind": row.kind,
        "schedule": row.schedule,
        "window": row.window,
        "offset": row.offset,
        "versions": row.versions,
        "baseline": row.baseline,
        "parameters": parameters,
        "policy": row.policy or {"budget": {}},
        "labels": row.labels,
        "slices": row.slices,
        "actions": row.actions,
        "enabled": row.enabled,
        "start": None if row.starts_at is None else format_time(row.starts_at),
        "created_at": format_time(row.created_at),
        "revision": row.revision,
    }


def make_monitor(
    session: Session, assembly: Assembly, principal: Principal, model: ModelRow, body: MonitorBody
) -> MonitorRow:
    """Make a monitor in a writing session; a taken name is a Conflict."""
    taken = select(MonitorRow.id).where(MonitorRow.model_id == model.id, MonitorRow.name == body.name)
    if session.scalar(taken) is not None:
        raise Conflict(f"model {model.name!r} has a monitor {body.name!r} already")
    row = MonitorRow(uid=new_id(), model_id=model.id, created_at=assembly.clock.now())
    for name, value in columns_of(session, model, body).items():
        setattr(row, name, value)
    session.add(row)
    session.flush()
    if kind_named(row.kind).counts_groups:  # values may have come since the layout was planned
        baselines.replan_groups(session, assembly.lake, model, assembly.clock.now())
    audit(session, assembly, principal, "monitor.create", f"models/{model.name}/monitors/{row.name}", model)
    return row


def has_labels(session: Session, assembly: Assembly, model: ModelRow) -> bool:
    """Return whether the baseline of the model's active version has rows with a label."""
    version = None if model.active_version_id is None else session.get(VersionRow, model.active_version_id)
    baseline = None if version is None else baselines.newest(session, version)
    if version is None or baseline is None or version.layout is None:
        return False
    layout = assembly.profiles.layout(session, version.id, version.layout)
    return label_coverage(baselines.profile(session, assembly.lake, baseline, layout))[0] > 0


def make_default_monitors(
    session: Session,
    assembly: Assembly,
    principal: Principal,
    model: ModelRow,
    window: str = "1d",
    start: datetime | None = None,
) -> list[MonitorRow]:
    """Make the kinds that every model gets, each under its own name; those that are there stay as they are.

    Those that need labels are made where the baseline has some.
    """
    if window not in SCHEDULES:
        raise refused([_fault("/window", "bad_window", f"{window!r} is not one of {', '.join(SCHEDULES)}")])
    rows = []
    labelled = has_labels(session, assembly, model)
    for name, kind in discovery.kinds().items():
        if not kind.default or (kind.needs_labels and not labelled):
            continue
        row = session.scalar(select(MonitorRow).where(MonitorRow.model_id == model.id, MonitorRow.name == name))
        if row is None:
            document = {"name": name, "kind": name, "schedule": SCHEDULES[window], "window": window}
            if start is not None:
                document["start"] = format_time(start)
            row = make_monitor(session, assembly, principal, model, MonitorBody.model_validate(document))
        rows.append(row)
    return rows


@router.post("", status_code=201, operation_id="monitors_create", summary="Make a monitor")
def create(
    model: str,
    body: MonitorBody,
    response: Response,
    parts: Parts,
    principal: Configurer,
    dry_run: Annotated[bool, Query(description="Only say what it would do and cost.")] = False,
) -> dict[str, Any]:
    """Make a monitor; with `dry_run` make nothing, and answer the full monitor, and of each subject that a window would
    be judged on alpha or threshold, the least effect, and the least change that is found four times in five. Subjects
    are those of columns (drift), or of a window drawn from the baseline's rows: groups too small to tell of say so.
    """  # noqa: D205 - one paragraph, which the interface shows whole
    if dry_run:
        response.status_code = 200
        with parts.database.reading() as session:
            return _trial(session, parts, model_named(session, principal, model), body)
    try:
        with parts.database.writing() as session:
            row = make_monitor(session, parts, principal, model_named(session, principal, model), body)
            answer = document_of(row)
    except IntegrityError as error:
        raise Conflict(f"model {model!r} has a monitor {body.name!r} already") from error
    response.headers["Location"] = f"/v1/models/{model}/monitors/{body.name}"
    response.headers["ETag"] = etag(row.revision)
    return answer


@router.post("/defaults", status_code=201, operation_id="monitors_defaults", summary="Make the default monitors")
def defaults(model: str, body: DefaultsBody, parts: Parts, principal: Configurer) -> dict[str, object]:
    """Make the monitors that every model should have; those that are there already stay as they are."""
    start = None if body.start is None else parse_time(body.start, "/start")
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        rows = make_default_monitors(session, parts, principal, owner, body.window, start)
        return listed([document_of(row) for row in rows], None)


@router.get("", operation_id="monitors_list", summary="List monitors")
def index(
    model: str,
    parts: Parts,
    principal: Reader,
    page: Page,
    kind: Annotated[str | None, Query(description="Only monitors of this kind.")] = None,
    enabled: Annotated[bool | None, Query(description="Only those switched on, or off.")] = None,
) -> dict[str, object]:
    """List a model's monitors, oldest first."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        statement = select(MonitorRow).where(MonitorRow.model_id == owner.id)
        if kind is not None:
            statement = statement.where(MonitorRow.kind == kind)
        if enabled is not None:
            statement = statement.where(MonitorRow.enabled.is_(enabled))
        rows, cursor = page_of(session, statement, [MonitorRow.id], page)
        return listed([document_of(row) for row in rows], cursor)


@router.get("/{monitor}", operation_id="monitors_read", summary="Read a monitor")
def read(model: str, monitor: str, response: Response, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return a monitor."""
    with parts.database.reading() as session:
        row = monitor_named(session, model_named(session, principal, model), monitor)
        response.headers["ETag"] = etag(row.revision)
        return document_of(row)


@router.patch("/{monitor}", operation_id="monitors_update", summary="Change a monitor")
def update(
    model: str,
    monitor: str,
    body: MonitorPatch,
    request: Request,
    response: Response,
    parts: Parts,
    principal: Configurer,
    dry_run: Annotated[bool, Query(description="Only say what the change would do and cost.")] = False,
) -> dict[str, Any]:
    """Change what the body names; it counts from the next window on."""
    with parts.database.reading() if dry_run else parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = monitor_named(session, owner, monitor)
        check_match(request, row.revision)
        current = {name: getattr(row, name) for name in MonitorPatch.model_fields if name != "start"}
        current["start"] = None if row.starts_at is None else format_time(row.starts_at)
        changed = body.model_dump(exclude_unset=True)
        if "schedule" in changed and "window" not in changed:
            current["window"] = None
        whole: MonitorBody = validated(MonitorBody, {**current, **changed, "name": row.name, "kind": row.kind})
        if dry_run:
            return _trial(session, parts, owner, whole)
        for name, value in columns_of(session, owner, whole).items():
            setattr(row, name, value)
        row.revision += 1
        about = f"models/{model}/monitors/{monitor}"
        audit(session, parts, principal, "monitor.update", about, owner, after=changed)
        session.flush()
        response.headers["ETag"] = etag(row.revision)
        return document_of(row)


class ResumeBody(Body):
    """What becomes of the windows that ended while a monitor was paused."""

    catch_up: bool = True

    model_config = ConfigDict(json_schema_extra={"examples": [{"catch_up": False}]})


@router.post("/{monitor}/pause", operation_id="monitors_pause", summary="Pause a monitor")
def pause(model: str, monitor: str, response: Response, parts: Parts, principal: Operator) -> dict[str, Any]:
    """Run no further window of a monitor until it is resumed; one that is being run is finished."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = monitor_named(session, owner, monitor)
        if row.enabled:
            row.enabled, row.revision = False, row.revision + 1
            audit(session, parts, principal, "monitor.pause", f"models/{model}/monitors/{monitor}", owner)
            session.flush()
        response.headers["ETag"] = etag(row.revision)
        return document_of(row)


@router.post("/{monitor}/resume", operation_id="monitors_resume", summary="Resume a monitor")
def resume(
    model: str,
    monitor: str,
    response: Response,
    parts: Parts,
    principal: Operator,
    body: ResumeBody | None = None,
) -> dict[str, Any]:
    """Run a paused monitor's windows again: those that ended meanwhile too, in order, unless ``catch_up`` is false."""
    catch_up = body is None or body.catch_up
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = monitor_named(session, owner, monitor)
        if not row.enabled:
            row.enabled, row.revision = True, row.revision + 1
            if not catch_up:
                row.starts_at = parts.clock.now()
            about = f"models/{model}/monitors/{monitor}"
            audit(session, parts, principal, "monitor.resume", about, owner, catch_up=catch_up)
            session.flush()
        response.headers["ETag"] = etag(row.revision)
        return document_of(row)


@router.delete("/{monitor}", status_code=204, operation_id="monitors_delete", summary="Delete a monitor")
def delete(model: str, monitor: str, request: Request, parts: Parts, principal: Configurer) -> None:
    """Delete a monitor with its runs and results; to keep them, switch it off instead."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = monitor_named(session, owner, monitor)
        check_match(request, row.revision)
        session.delete(row)
        audit(session, parts, principal, "monitor.delete", f"models/{model}/monitors/{monitor}", owner)


# --- what a monitor would do ------------------------------------------------------------------------------------------


def _trial(session: Session, parts: Assembly, model: ModelRow, body: MonitorBody) -> dict[str, Any]:
    """Return a monitor as it would be, with the level at which each of its subjects would be judged."""
    kept = columns_of(session, model, body)
    row = MonitorRow(uid="", model_id=model.id, created_at=parts.clock.now(), revision=1, **kept)
    kind = kind_named(body.kind)
    policy = budget.parse_policy(body.policy)
    parameters = policy.prepared(parameters_of(kind, body.parameters))
    grid = windows.grid_of(body.schedule, body.window, body.offset)
    version = None if model.active_version_id is None else session.get(VersionRow, model.active_version_id)
    answer: dict[str, Any] = {"monitor": document_of(row), "dry_run": True}
    if policy.spends:
        declared: dict[str, float | None] = {}
        enabled = select(MonitorRow).where(MonitorRow.model_id == model.id, MonitorRow.enabled.is_(True))
        for other in [*session.scalars(enabled), row]:
            if budget.parse_policy(other.policy).spends:
                declared[other.name] = (other.policy.get("budget") or {}).get("share")
        share = budget.share_of(row.name, declared, 1)
        alpha = budget.window_alpha(model.alarm_budget, grid.spent, share)
        answer["alpha"], answer["share"] = alpha, share
        answer["alarm_budget"] = model.alarm_budget
    else:
        alpha = None
    sizes = _sizes(session, version, grid)
    answer["n_baseline"], answer["n_window"] = sizes
    if isinstance(parameters, DriftParameters):
        columns = [] if version is None else _columns(baselines.columns(session, version), kind, parameters)
        answer["subjects"] = [_subject(column, parameters, policy, alpha, len(columns), sizes) for column in columns]
        return answer
    found = rehearse(session, workshop_of(parts), model, row, alpha=alpha, rows=sizes[1])
    answer["subjects"] = found.subjects
    answer["rehearsed"] = {"rows": found.rows, "baseline": found.baseline or None, "reason": found.reason or None}
    return answer


def _columns(columns: Sequence[Column], kind: Kind, parameters: DriftParameters) -> list[Column]:
    roles = {Role.FEATURE} if kind.name != "prediction_drift" else {Role.PREDICTION, Role.SCORE}
    return parameters.chosen([column for column in columns if column.role in roles and column.status != "new"])


def _sizes(session: Session, version: VersionRow | None, grid: windows.Grid) -> tuple[int | None, int | None]:
    """Return how many rows the baseline and a usual window have; none where nothing is known."""
    if version is None:
        return None, None
    baseline = baselines.newest(session, version)
    total, first, last = session.execute(
        select(func.sum(ArrivalRow.accepted), func.min(ArrivalRow.bucket), func.max(ArrivalRow.bucket)).where(
            ArrivalRow.version_id == version.id, ArrivalRow.kind == "predictions"
        )
    ).one()
    hours = windows.LENGTHS[grid.window] / HOUR
    usual = None if not total else round(int(total) * min(1.0, hours / (last - first + 1)))
    if usual is None and baseline is not None and baseline.starts_at and baseline.ends_at:
        length = max((baseline.ends_at - baseline.starts_at) / HOUR, 1.0)
        usual = round(baseline.rows * min(1.0, hours / length))
    return None if baseline is None else baseline.rows, usual


def _subject(
    column: Column,
    parameters: DriftParameters,
    policy: budget.Policy,
    alpha: float | None,
    subjects: int,
    sizes: tuple[int | None, int | None],
) -> dict[str, Any]:
    """Return how one column would be judged; Holm's method begins at alpha over the number of subjects."""
    told: dict[str, Any] = {"feature": column.label}
    metric = parameters.deciding(column).name
    told["metric"], told["min_effect"] = metric, parameters.least_effect(column, 1)
    if alpha is None:
        told["thresholds"] = policy.thresholds_of(metric, column)
        return told
    told["alpha"] = alpha / subjects
    n_baseline, n_window = sizes
    if family_of(column) == "numeric" and n_baseline and n_window:
        normal = NormalDist()
        spread = sqrt(1 / n_baseline + 1 / n_window)
        least = max(normal.inv_cdf(1 - told["alpha"] / 2) * spread, told["min_effect"])
        told["smallest_shift"] = {
            "value": least + normal.inv_cdf(POWER) * spread,
            "unit": "standard deviations of the mean",
            "power": POWER,
            "assumes": "independent rows",
        }
    return told
