"""Versions of a model and their schemas."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import alerts, baselines
from service.api.bodies import Body, Name, Short, Text
from service.api.depends import (
    Configurer,
    Page,
    Parts,
    Reader,
    audit,
    check_match,
    etag,
    listed,
    model_named,
    page_of,
    version_named,
    version_or_active,
)
from service.api.models import Feature, Schema
from service.assembly import Assembly
from service.problems import Conflict
from service.tables import FeatureRow, ModelRow, VersionRow
from service.words import format_time

router = APIRouter(prefix="/v1/models/{model}", tags=["versions"])


class VersionPatch(Body):
    """What of a version can be changed."""

    uri: Text | None = None
    metadata: Annotated[dict[Short, Any], Field(max_length=128)] = Field(default_factory=dict)

    model_config = ConfigDict(json_schema_extra={"examples": [{"metadata": {"trained_by": "nightly"}}]})


class VersionBody(VersionPatch):
    """A version as it is registered."""

    version: Name

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"version": "2.0.1", "uri": "models:/car-loan/2", "metadata": {"git": "ab12"}}]}
    )


def document_of(row: VersionRow, model: ModelRow) -> dict[str, object]:
    """Return a version as the interface shows it."""
    times = ("first_event_at", "last_event_at", "last_arrival_at", "retired_at", "created_at")
    return {
        "version": row.name,
        "uri": row.uri,
        "metadata": row.details,
        "registered": row.registered,
        "active": model.active_version_id == row.id,
        "layout": row.layout,
        **{name: None if getattr(row, name) is None else format_time(getattr(row, name)) for name in times},
        "revision": row.revision,
    }


def feature_document(row: FeatureRow) -> dict[str, object]:
    """Return a feature as the interface shows it."""
    return {
        "name": row.name,
        "type": row.type,
        "status": row.status,
        "required": row.required,
        "range": row.range,
        "categories": row.categories,
        "store": row.store,
    }


def schema_document(session: Session, row: VersionRow, model: ModelRow) -> dict[str, object]:
    """Return a version's schema as the interface shows it."""
    features = session.scalars(
        select(FeatureRow).where(FeatureRow.version_id == row.id).order_by(FeatureRow.position, FeatureRow.id)
    )
    return {
        "version": row.name,
        "task": model.task,
        "classes": model.classes,
        "on_bad_value": model.on_bad_value,
        "features": [feature_document(feature) for feature in features],
    }


@router.post("/versions", status_code=201, operation_id="versions_create", summary="Register a version")
def create(model: str, body: VersionBody, response: Response, parts: Parts, principal: Configurer) -> dict[str, object]:
    """Register a version; one that records have made already is registered by this too."""
    try:
        with parts.database.writing() as session:
            owner = model_named(session, principal, model)
            known = session.scalar(
                select(VersionRow).where(VersionRow.model_id == owner.id, VersionRow.name == body.version)
            )
            if known is not None and known.registered:
                raise Conflict(f"model {model!r} has a version {body.version!r} already")
            row = baselines.ensure_version(session, owner, body.version, parts.clock.now())
            row.uri, row.details = body.uri, body.metadata
            baselines.adopt_layout(session, row, parts.clock.now())
            audit(session, parts, principal, "version.create", f"models/{model}/versions/{row.name}", owner)
            session.flush()
            answer = document_of(row, owner)
    except IntegrityError as error:
        raise Conflict(f"model {model!r} has a version {body.version!r} already") from error
    response.headers["Location"] = f"/v1/models/{model}/versions/{body.version}"
    response.headers["ETag"] = etag(row.revision)
    return answer


@router.get("/versions", operation_id="versions_list", summary="List versions")
def index(model: str, parts: Parts, principal: Reader, page: Page) -> dict[str, object]:
    """List a model's versions, oldest first."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        statement = select(VersionRow).where(VersionRow.model_id == owner.id)
        rows, cursor = page_of(session, statement, [VersionRow.id], page)
        return listed([document_of(row, owner) for row in rows], cursor)


@router.get("/versions/{version}", operation_id="versions_read", summary="Read a version")
def read(model: str, version: str, response: Response, parts: Parts, principal: Reader) -> dict[str, object]:
    """Return a version."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        row = version_named(session, owner, version)
        response.headers["ETag"] = etag(row.revision)
        return document_of(row, owner)


@router.patch("/versions/{version}", operation_id="versions_update", summary="Change a version")
def update(
    model: str,
    version: str,
    body: VersionPatch,
    request: Request,
    response: Response,
    parts: Parts,
    principal: Configurer,
) -> dict[str, object]:
    """Change a version's link and notes."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = version_named(session, owner, version)
        check_match(request, row.revision)
        if "uri" in body.model_fields_set:
            row.uri = body.uri
        if "metadata" in body.model_fields_set:
            row.details = body.metadata
        row.revision += 1
        audit(session, parts, principal, "version.update", f"models/{model}/versions/{version}", owner)
        response.headers["ETag"] = etag(row.revision)
        return document_of(row, owner)


@router.post("/versions/{version}/activate", operation_id="versions_activate", summary="Make a version the active one")
def activate(model: str, version: str, parts: Parts, principal: Configurer) -> dict[str, object]:
    """Let records that name no version belong to this one from now on."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = version_named(session, owner, version)
        row.registered, row.retired_at = True, None
        owner.active_version_id = row.id
        owner.revision += 1
        audit(session, parts, principal, "version.activate", f"models/{model}/versions/{version}", owner)
        return document_of(row, owner)


@router.post("/versions/{version}/retire", operation_id="versions_retire", summary="Retire a version")
def retire(model: str, version: str, parts: Parts, principal: Configurer) -> dict[str, object]:
    """Say that a version is no longer deployed: it is not watched any more, its alert closes, and its records stay."""
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = version_named(session, owner, version)
        if owner.active_version_id == row.id:
            raise Conflict("the active version cannot be retired; activate another first")
        if row.retired_at is None:
            row.retired_at = parts.clock.now()
            row.revision += 1
            alerts.replaced(session, row.id, parts.settings, row.retired_at)
            audit(session, parts, principal, "version.retire", f"models/{model}/versions/{version}", owner)
        return document_of(row, owner)


@router.get("/versions/{version}/schema", operation_id="schemas_read", summary="Read a version's schema")
def read_schema(model: str, version: str, response: Response, parts: Parts, principal: Reader) -> dict[str, object]:
    """Return the features of a version: declared, inferred, or seen for the first time (`new`)."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        row = version_named(session, owner, version)
        response.headers["ETag"] = etag(row.revision)
        return schema_document(session, row, owner)


@router.put("/versions/{version}/schema", operation_id="schemas_replace", summary="Replace a version's schema")
def replace_schema(
    model: str,
    version: str,
    body: Schema,
    request: Request,
    response: Response,
    parts: Parts,
    principal: Configurer,
) -> dict[str, object]:
    """Declare the version's features; all of them are confirmed, and those not named are forgotten.

    Where a type changed or features came or went, the version's profiles are laid out anew from its baseline, and
    buckets are profiled again when they are needed next.
    """
    return _set_schema(parts, principal, request, response, model, version, body, whole=True)


@router.patch("/versions/{version}/schema", operation_id="schemas_update", summary="Correct features of a schema")
def update_schema(
    model: str,
    version: str,
    body: Schema,
    request: Request,
    response: Response,
    parts: Parts,
    principal: Configurer,
) -> dict[str, object]:
    """Confirm or correct the features that are named; the others stay as they are."""
    return _set_schema(parts, principal, request, response, model, version, body, whole=False)


def _set_schema(
    parts: Assembly,
    principal: Configurer,
    request: Request,
    response: Response,
    model: str,
    version: str,
    body: Schema,
    *,
    whole: bool,
) -> dict[str, object]:
    with parts.database.writing() as session:
        owner = model_named(session, principal, model)
        row = version_named(session, owner, version)
        check_match(request, row.revision)
        known = {f.name: f for f in session.scalars(select(FeatureRow).where(FeatureRow.version_id == row.id))}
        before = {name: f.type for name, f in known.items() if f.status == "confirmed" and f.store != "drop"}
        place = 0 if whole else len(known)
        for feature in body.features:
            place = _declare(session, row, known, feature, place, parts, whole=whole)
        if whole:
            named = {feature.name for feature in body.features}
            for name, found in known.items():
                if name not in named:
                    session.delete(found)
        if body.on_bad_value is not None:
            owner.on_bad_value = body.on_bad_value
        row.revision += 1
        session.flush()
        features = session.scalars(select(FeatureRow).where(FeatureRow.version_id == row.id))
        after = {f.name: f.type for f in features if f.status == "confirmed" and f.store != "drop"}
        if row.layout is not None and before != after:
            baselines.replan(session, parts.lake, row, parts.clock.now())
        about = f"models/{model}/versions/{version}/schema"
        audit(session, parts, principal, "schema.replace" if whole else "schema.update", about, owner)
        response.headers["ETag"] = etag(row.revision)
        return schema_document(session, row, owner)


def _declare(
    session: Session,
    version: VersionRow,
    known: dict[str, FeatureRow],
    feature: Feature,
    place: int,
    parts: Assembly,
    *,
    whole: bool,
) -> int:
    row = known.get(feature.name)
    if row is None:
        row = FeatureRow(version_id=version.id, name=feature.name, position=place, first_seen_at=parts.clock.now())
        session.add(row)
        place += 1
    elif whole:
        row.position = place
        place += 1
    row.type, row.status, row.required = feature.type, "confirmed", feature.required
    row.range = None if feature.range is None else list(feature.range)
    row.categories, row.store = feature.categories, feature.store
    return place


@router.get("/features", operation_id="features_list", summary="List features")
def features(
    model: str,
    parts: Parts,
    principal: Reader,
    page: Page,
    version: Annotated[str | None, Query(description="Default: the active version.")] = None,
    status: Annotated[str | None, Query(pattern="^(confirmed|new)$")] = None,
) -> dict[str, object]:
    """List the features of a version."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        row = version_or_active(session, owner, version)
        statement = select(FeatureRow).where(FeatureRow.version_id == row.id)
        if status is not None:
            statement = statement.where(FeatureRow.status == status)
        rows, cursor = page_of(session, statement, [FeatureRow.position, FeatureRow.id], page)
        return listed([feature_document(feature) for feature in rows], cursor)
