"""Retraining over HTTP: a model's policy, what was asked for, the rows to train on, what a receiver reports."""

from contextlib import suppress
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import candidates, retraining, training
from service.access import Principal, check_link, link_token
from service.api.bodies import Body, Duration, Name, Part, Text, Time
from service.api.depends import (
    Configurer,
    Operator,
    Page,
    Parts,
    Reader,
    RowReader,
    audit,
    check_match,
    check_state,
    etag,
    listed,
    model_named,
    moment,
    page_of,
)
from service.api.jobs import Progress, answer, jobs_of
from service.api.problems import refused
from service.assembly import Assembly
from service.lake.files import training_file
from service.problems import Conflict, Fault, NotFound, Problem
from service.retraining import NotAsked
from service.tables import (
    AlertRow,
    AuditRow,
    ModelRow,
    MonitorRow,
    RetrainingPolicyRow,
    RetrainingRow,
    VersionRow,
)
from service.webhooks import CALLBACK, LINKS, TRAINING_DATA
from service.words import format_time, parse_time

router = APIRouter(prefix="/v1", tags=["retraining"])

PARQUET = "application/vnd.apache.parquet"
STATES = ("awaiting_approval", "requested", "accepted", "running", "succeeded", "failed", "expired", "rejected",
          "cancelled")  # fmt: skip


def _windows(text: str) -> str:
    try:
        retraining.windows_of(text)
    except ValueError:
        raise ValueError("say it as `2 of 3`: so many violated of the last so many windows, 100 at most") from None
    return text


class When(Part):
    """Which monitors, and how often they must be violated."""

    monitors: Annotated[list[Name], Field(min_length=1, max_length=20)]
    windows: Annotated[str, StringConstraints(max_length=16), AfterValidator(_windows)] = "2 of 3"


class AtMost(Part):
    """How many may be asked for."""

    per: Duration = "1d"
    times: Annotated[int, Field(ge=1, le=1000)] = 1


class TrainingData(Part):
    """Which rows are given."""

    span: Duration = "90d"
    include_baseline: bool = True


class PolicyBody(Body):
    """When a retraining is asked for."""

    when: When
    not_while: Annotated[list[Name], Field(max_length=20)] = Field(default_factory=lambda: ["data_quality"])
    min_labelled_rows: Annotated[int, Field(ge=0)] = 500
    cooldown: Duration = "7d"
    at_most: AtMost = Field(default_factory=AtMost)
    approval: Literal["auto", "manual"] = "auto"
    promote: Literal["auto", "manual"] = "manual"
    deadline: Duration = "24h"
    training_data: TrainingData = Field(default_factory=TrainingData)

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "when": {"monitors": ["performance"], "windows": "2 of 3"},
                    "not_while": ["data_quality"],
                    "min_labelled_rows": 500,
                    "cooldown": "7d",
                    "at_most": {"per": "1d", "times": 1},
                    "approval": "auto",
                    "promote": "manual",
                    "deadline": "24h",
                    "training_data": {"span": "90d", "include_baseline": True},
                }
            ]
        }
    )


class StatusBody(Body):
    """What a receiver reports."""

    state: Literal["accepted", "running", "succeeded", "failed"]
    version: Name | None = None
    detail: Text = ""
    trained_until: Time | None = None
    """From when on the new version has seen no row; default: the end of the training data."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"state": "succeeded", "version": "v4", "detail": "12 candidates were tried"}]}
    )


class DecisionBody(Body):
    """Why somebody decided so."""

    detail: Text = ""

    model_config = ConfigDict(json_schema_extra={"examples": [{"detail": "the campaign of May explains it"}]})


# --- policies ---------------------------------------------------------------------------------------------------------


def policy_document(row: RetrainingPolicyRow) -> dict[str, Any]:
    """Return a policy as the interface shows it, with the reason why it does not ask at the moment."""
    return {**row.policy, "held": row.held, "updated_at": format_time(row.updated_at), "revision": row.revision}


def _policy_of(session: Session, model: ModelRow) -> RetrainingPolicyRow:
    row = session.scalar(select(RetrainingPolicyRow).where(RetrainingPolicyRow.model_id == model.id))
    if row is None:
        raise NotAsked(f"model {model.name!r} has no policy of retraining; PUT one here")
    return row


@router.put("/models/{model}/retraining", operation_id="retraining_policy_put", summary="Say when to retrain")
def put(
    model: str, body: PolicyBody, request: Request, response: Response, parts: Parts, principal: Configurer
) -> dict[str, Any]:
    """Put the model's policy; without one nothing is ever asked for. Drift of inputs alone counts only where named."""
    now = parts.clock.now()
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        known = set(session.scalars(select(MonitorRow.name).where(MonitorRow.model_id == owner.id)))
        faults = [
            Fault(f"{pointer}/{place}", "unknown_monitor", f"model {model!r} has no monitor {name!r}")
            for pointer, names in (("/when/monitors", body.when.monitors), ("/not_while", body.not_while))
            for place, name in enumerate(names)
            if name not in known
        ]
        if faults:
            raise refused(faults)
        row = session.scalar(select(RetrainingPolicyRow).where(RetrainingPolicyRow.model_id == owner.id))
        if row is None:
            row = RetrainingPolicyRow(model_id=owner.id, policy={}, created_at=now, updated_at=now, revision=0)
            session.add(row)
        else:
            check_match(request, row.revision)
        row.policy, row.held, row.updated_at, row.revision = body.model_dump(), None, now, row.revision + 1
        audit(session, parts, principal, "retraining.policy", f"models/{model}/retraining", owner, after=row.policy)
        session.flush()
        response.headers["ETag"] = etag(row.revision)
        return policy_document(row)


@router.get("/models/{model}/retraining", operation_id="retraining_policy_read", summary="Read when to retrain")
def policy(model: str, response: Response, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return the model's policy."""
    with parts.database.reading() as session:
        row = _policy_of(session, model_named(session, principal, model))
        response.headers["ETag"] = etag(row.revision)
        return policy_document(row)


@router.delete(
    "/models/{model}/retraining", status_code=204, operation_id="retraining_policy_delete", summary="Never retrain"
)
def delete(model: str, request: Request, parts: Parts, principal: Configurer) -> None:
    """Remove the policy; what was asked for already goes on."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = _policy_of(session, owner)
        check_match(request, row.revision)
        session.delete(row)
        audit(session, parts, principal, "retraining.policy", f"models/{model}/retraining", owner, after=None)


# --- retrainings ------------------------------------------------------------------------------------------------------


def document_of(session: Session, row: RetrainingRow) -> dict[str, Any]:
    """Return a retraining as the interface shows it; its links are shown to those who may read rows."""
    model, version = session.get_one(ModelRow, row.model_id), session.get_one(VersionRow, row.version_id)
    alert = session.get_one(AlertRow, row.alert_id)
    candidate = None if row.candidate_id is None else session.get(VersionRow, row.candidate_id)
    previous = None if row.previous_version_id is None else session.get(VersionRow, row.previous_version_id)
    times = ("moment", "created_at", "deadline_at", "finished_at", "trained_until", "promoted_at", "rolled_back_at")
    return {
        "id": row.uid,
        "model": model.name,
        "version": version.name,
        "episode": alert.uid,
        "attempt": row.attempt,
        "state": row.state,
        "reason": row.reason,
        "evidence": row.evidence,
        "policy": row.policy,
        "baseline": row.baseline,
        "replayed": row.replayed,
        "training_data": row.training,
        "candidate": candidate.name if candidate else None,
        "comparison": row.comparison,
        "promoted_by": row.promoted_by,
        "previous_version": previous.name if previous else None,
        **{name: format_time(value) if (value := getattr(row, name)) else None for name in times},
        "log": row.log,
    }


def retraining_of(session: Session, principal: Principal, uid: str, *, lock: bool = False) -> RetrainingRow:
    """Return a retraining; one of a model that is not seen does not exist."""
    statement = select(RetrainingRow).where(RetrainingRow.uid == uid[:32])
    row = session.scalar(statement.with_for_update() if lock else statement)
    model = None if row is None else session.get(ModelRow, row.model_id)
    if row is None or model is None or row.uid != uid or not principal.sees(model.name):
        raise NotFound(f"there is no retraining {uid[:64]!r}")
    return row


@router.get("/retrainings", operation_id="retrainings_list", summary="List retrainings")
def index(
    parts: Parts,
    principal: Reader,
    page: Page,
    model: Annotated[str | None, Query(description="Only those of this model.")] = None,
    state: Annotated[str | None, Query(description="Only those in this state.")] = None,
    since: Annotated[str | None, Query(alias="from", description="Only those asked for from this time on.")] = None,
    until: Annotated[str | None, Query(alias="to", description="Only those asked for before this time.")] = None,
) -> dict[str, object]:
    """List retrainings, newest first."""
    check_state(state, STATES)
    with parts.database.reading() as session:
        statement = select(RetrainingRow)
        if model is not None:
            statement = statement.where(RetrainingRow.model_id == model_named(session, principal, model).id)
        if principal.models is not None:
            seen = select(ModelRow.id).where(ModelRow.name.in_(sorted(principal.models)))
            statement = statement.where(RetrainingRow.model_id.in_(seen))
        if state is not None:
            statement = statement.where(RetrainingRow.state == state)
        if (begin := moment(since, "from")) is not None:
            statement = statement.where(RetrainingRow.moment >= begin)
        if (end := moment(until, "to")) is not None:
            statement = statement.where(RetrainingRow.moment < end)
        rows, cursor = page_of(session, statement, [RetrainingRow.id], page, descending=True)
        return listed([document_of(session, row) for row in rows], cursor)


@router.get("/retrainings/{retraining}", operation_id="retrainings_read", summary="Read a retraining")
def read(retraining: str, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return a retraining with what it was asked for on, every change of its state, and how its candidate does."""
    with parts.database.reading() as session:
        return document_of(session, retraining_of(session, principal, retraining))


def decide(parts: Assembly, principal: Principal, uid: str, action: str, detail: str = "") -> str:
    """Do what somebody decided about a retraining, and return the id of the one to look at."""
    now, settings, who = parts.clock.now(), parts.settings, principal.name
    with parts.database.writing() as session:
        row = retraining_of(session, principal, uid, lock=True)
        model = session.get_one(ModelRow, row.model_id)
        shown = row
        if action == "approve":
            retraining.approve(session, row, who, settings, now)
        elif action == "reject":
            retraining.move(session, row, "rejected", who, settings, now, detail)
        elif action == "cancel":
            retraining.move(session, row, "cancelled", who, settings, now, detail)
        elif action == "retry":
            shown = retraining.retry(session, row, who, settings, now)
        elif action == "promote":
            retraining.promote(session, row, who, settings, now)
        elif action == "rollback":
            retraining.roll_back(session, row, who, now)
        else:
            raise NotFound(f"{action!r} is nothing that can be done about a retraining")
        audit(session, parts, principal, f"retraining.{action}", f"retrainings/{row.uid}", model, detail=detail)
        return shown.uid


def _decided(parts: Assembly, principal: Principal, uid: str, action: str, body: DecisionBody | None) -> dict[str, Any]:
    shown = decide(parts, principal, uid, action, body.detail if body else "")
    with parts.database.reading() as session:
        return document_of(session, retraining_of(session, principal, shown))


@router.post("/retrainings/{retraining}/approve", operation_id="retrainings_approve", summary="Approve a retraining")
def approve(retraining: str, parts: Parts, principal: Operator, body: DecisionBody | None = None) -> dict[str, Any]:
    """Ask for a retraining that waits for approval."""
    return _decided(parts, principal, retraining, "approve", body)


@router.post("/retrainings/{retraining}/reject", operation_id="retrainings_reject", summary="Reject a retraining")
def reject(retraining: str, parts: Parts, principal: Operator, body: DecisionBody | None = None) -> dict[str, Any]:
    """Refuse a retraining that waits for approval; the episode asks for none again."""
    return _decided(parts, principal, retraining, "reject", body)


@router.post("/retrainings/{retraining}/cancel", operation_id="retrainings_cancel", summary="Cancel a retraining")
def cancel(retraining: str, parts: Parts, principal: Operator, body: DecisionBody | None = None) -> dict[str, Any]:
    """Give a retraining up that is not over; what is reported about it later is refused."""
    return _decided(parts, principal, retraining, "cancel", body)


@router.post("/retrainings/{retraining}/retry", operation_id="retrainings_retry", summary="Ask once more")
def retry(retraining: str, parts: Parts, principal: Operator, body: DecisionBody | None = None) -> dict[str, Any]:
    """Ask for a new attempt of the same episode after a failure; cool-down and cap bind the policy, not people."""
    return _decided(parts, principal, retraining, "retry", body)


@router.post("/retrainings/{retraining}/promote", operation_id="retrainings_promote", summary="Promote the candidate")
def promote(retraining: str, parts: Parts, principal: Operator, body: DecisionBody | None = None) -> dict[str, Any]:
    """Make the candidate the model's active version."""
    return _decided(parts, principal, retraining, "promote", body)


@router.post("/retrainings/{retraining}/rollback", operation_id="retrainings_rollback", summary="Take it back")
def rollback(retraining: str, parts: Parts, principal: Operator, body: DecisionBody | None = None) -> dict[str, Any]:
    """Make the version before the candidate the active one again."""
    return _decided(parts, principal, retraining, "rollback", body)


@router.post("/retrainings/{retraining}/compare", operation_id="retrainings_compare", summary="Compare again")
async def compare(retraining: str, request: Request, parts: Parts, principal: Operator) -> Response:
    """Compare the candidate with the version it would replace on what has come by now; promotes as the policy says.

    What the candidate says of the rows comes from its artifact or endpoint, else from rows posted under its version.
    """
    model_id, uid = await run_sync(lambda: _with_candidate(parts, principal, retraining))

    def work(progress: Progress) -> dict[str, Any]:
        progress.check()
        candidates.judge(parts.explanations, parts.sealer, uid)
        with parts.database.reading() as session:
            return document_of(session, retraining_of(session, principal, uid))

    job = await run_sync(lambda: jobs_of(request.app).start("comparison", model_id, {"retraining": uid}, work))
    return await answer(request, job, 200)


def _with_candidate(parts: Assembly, principal: Principal, uid: str) -> tuple[int, str]:
    with parts.database.reading() as session:
        row = retraining_of(session, principal, uid)
        if row.state != "succeeded" or row.candidate_id is None:
            raise Conflict("only a retraining that succeeded and named its version has a candidate")
        return row.model_id, row.uid


@router.get(
    "/retrainings/{retraining}/training-data-link",
    operation_id="retrainings_training_data_link",
    summary="Renew the link to the rows",
)
def link(retraining: str, parts: Parts, principal: RowReader) -> dict[str, Any]:
    """Return a fresh link to the rows, valid for seven days."""
    with parts.database.reading() as session:
        row = retraining_of(session, principal, retraining)
    until = parts.clock.now() + LINKS["training_data_url"][1]
    token = link_token(parts.secret, TRAINING_DATA, row.uid, until)
    public = parts.settings.public_url.rstrip("/")
    return {
        "training_data_url": f"{public}/v1/retrainings/{row.uid}/training-data?token={token}",
        "valid_until": format_time(until),
    }


# --- with a link's own token ------------------------------------------------------------------------------------------

Token = Annotated[str, Query(max_length=128, description="The token of the link.")]


@router.get(
    "/retrainings/{retraining}/training-data",
    operation_id="retrainings_training_data",
    summary="Fetch the rows to train on",
    response_model=None,
)
def training_data(retraining: str, request: Request, parts: Parts, token: Token = "") -> Response | dict[str, Any]:
    """Return the rows as Parquet, or with `Accept: application/json` the manifest of what is in the file.

    Needs no key: the link's token lets in. Protected attributes are never among the columns.
    """
    row = _by_link(parts, TRAINING_DATA, retraining, token)
    parts.sealer.seal(row.model_id)
    manifest = training.prepared(parts.database, parts.lake, parts.clock, row.uid)
    wants_manifest = "application/json" in request.headers.get("accept", "")
    with parts.database.writing() as session:
        session.add(
            AuditRow(
                at=parts.clock.now(),
                actor="link",
                action="retraining.manifest" if wants_manifest else "retraining.rows",
                object=f"retrainings/{row.uid}",
                model_id=row.model_id,
                detail={"digest": manifest["digest"]},
            )
        )
    if wants_manifest:
        return manifest
    return FileResponse(
        parts.lake.path(training_file(row.uid)),
        media_type=PARQUET,
        filename=f"{row.uid}.parquet",
        headers={"Digest": manifest["digest"], "Cache-Control": "private, no-store"},
    )


@router.post("/retrainings/{retraining}/status", operation_id="retrainings_status", summary="Report a state")
def status(retraining: str, body: StatusBody, parts: Parts, token: Token = "") -> dict[str, Any]:
    """Take what the receiver reports: accepted, running, succeeded or failed. The same again is 200, no way is 409.

    Needs no key: the link's token lets in. A version that is named is registered before; where it has an artifact or
    an endpoint it is compared a moment later, else at once with the rows posted under it.
    """
    uid = _by_link(parts, CALLBACK, retraining, token).uid
    until = None if body.trained_until is None else parse_time(body.trained_until, "/trained_until")
    with parts.database.writing() as session:
        row = session.scalars(select(RetrainingRow).where(RetrainingRow.uid == uid).with_for_update()).one()
        changed = _report(session, parts, row, body, until)
        at_once = changed and body.state == "succeeded" and not candidates.is_scored(session, row)
        model_id = row.model_id
        if changed:
            session.add(
                AuditRow(
                    at=parts.clock.now(),
                    actor="receiver",
                    action=f"retraining.{body.state}",
                    object=f"retrainings/{uid}",
                    model_id=model_id,
                    detail={"version": body.version, "detail": body.detail},
                )
            )
    if at_once:
        with suppress(Problem):  # the report is taken; what cannot be compared now is compared by a worker later
            candidates.judge(parts.explanations, parts.sealer, uid)
    with parts.database.reading() as session:
        row = session.scalars(select(RetrainingRow).where(RetrainingRow.uid == uid)).one()
        return {"id": uid, "state": row.state, "changed": changed, "comparison": row.comparison}


def _report(session: Session, parts: Assembly, row: RetrainingRow, body: StatusBody, until: Any) -> bool:
    return retraining.report(
        session,
        row,
        body.state,
        parts.settings,
        parts.clock.now(),
        version=body.version,
        detail=body.detail,
        trained_until=until,
    )


def _by_link(parts: Assembly, purpose: str, uid: str, token: str) -> RetrainingRow:
    """Return the retraining of a link whose token is good; whoever has none learns nothing of what there is."""
    check_link(parts.secret, purpose, uid[:64], token, parts.clock.now())
    with parts.database.reading() as session:
        row = session.scalar(select(RetrainingRow).where(RetrainingRow.uid == uid[:32]))
    if row is None:
        raise NotFound(f"there is no retraining {uid[:64]!r}")
    return row
