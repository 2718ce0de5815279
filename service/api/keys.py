"""Keys: made with scopes and, if wanted, bound to models; shown once, then known by their digest alone."""

import re
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.access import ADMIN, Principal, Scope
from service.api.bodies import Body, Duration, Name, Short, Time
from service.api.depends import Administrator, Page, Parts, audit, listed, page_of
from service.problems import Conflict, NotFound, ScopeMissing, Unprocessable
from service.tables import ApiKeyRow
from service.words import format_time, parse_duration, parse_time

router = APIRouter(prefix="/v1/keys", tags=["keys"])


class KeyBody(Body):
    """A key as it is asked for."""

    name: Short
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))]
    models: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = None
    expires_at: Time | None = None

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "scoring service", "scopes": ["ingest"], "models": ["car-loan"]}]}
    )


class RotationBody(Body):
    """How long the old key still works beside the new one."""

    overlap: Duration = "1d"

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap": "1d"}]})


def document_of(row: ApiKeyRow) -> dict[str, Any]:
    """Return a key as the interface shows it, without the key."""
    return {
        "id": row.uid,
        "name": row.name,
        "prefix": row.prefix,
        "scopes": row.scopes,
        "models": row.models,
        "created_at": format_time(row.created_at),
        "expires_at": None if row.expires_at is None else format_time(row.expires_at),
        "revoked_at": None if row.revoked_at is None else format_time(row.revoked_at),
    }


def _within(principal: Principal, models: list[str] | None) -> bool:
    return principal.models is None or (models is not None and set(models) <= principal.models)


def _key(session: Session, principal: Principal, uid: str) -> ApiKeyRow:
    row = session.scalar(select(ApiKeyRow).where(ApiKeyRow.uid == uid)) if re.fullmatch(r"[0-9a-f]{32}", uid) else None
    if row is None or not _within(principal, row.models):
        raise NotFound(f"there is no key {uid!r}")
    return row


@router.post("", status_code=201, operation_id="keys_create", summary="Make a key")
def create(body: KeyBody, response: Response, parts: Parts, principal: Administrator) -> dict[str, Any]:
    """Make a key. Its text is in this answer and nowhere else."""
    if not _within(principal, body.models):
        raise ScopeMissing("a key that is bound to models makes keys for these models only")
    expires = None if body.expires_at is None else parse_time(body.expires_at, "/expires_at")
    if expires is not None and expires <= parts.clock.now():
        raise Unprocessable("/expires_at lies in the past")
    with parts.database.writing() as session:
        row, text = parts.keyring.create(session, body.name, body.scopes, body.models, expires)
        audit(session, parts, principal, "key.create", f"keys/{row.uid}", scopes=row.scopes, models=row.models)
    response.headers["Location"] = f"/v1/keys/{row.uid}"
    return {**document_of(row), "key": text}


@router.get("", operation_id="keys_list", summary="List keys")
def index(parts: Parts, principal: Administrator, page: Page) -> dict[str, object]:
    """List keys, oldest first; only what they may do, never the keys."""
    with parts.database.reading() as session:
        rows, cursor = page_of(session, select(ApiKeyRow), [ApiKeyRow.id], page)
        return listed([document_of(row) for row in rows if _within(principal, row.models)], cursor)


@router.get("/{id}", operation_id="keys_read", summary="Read a key")
def read(id: str, parts: Parts, principal: Administrator) -> dict[str, Any]:  # noqa: A002 - its public name
    """Return what a key may do."""
    with parts.database.reading() as session:
        return document_of(_key(session, principal, id))


@router.post("/{id}/rotate", status_code=201, operation_id="keys_rotate", summary="Replace a key")
def rotate(
    id: str,  # noqa: A002 - its public name
    parts: Parts,
    principal: Administrator,
    body: RotationBody | None = None,
) -> dict[str, Any]:
    """Make a key like this one; the old one ends after the overlap."""
    overlap = parse_duration((body or RotationBody()).overlap, "/overlap")
    if overlap > timedelta(days=90):
        raise Unprocessable("/overlap is at most 90d")
    with parts.database.writing() as session:
        old = _key(session, principal, id)
        if old.name == ADMIN or old.revoked_at is not None:
            raise Conflict("this key is revoked, or made from the setting PLUMBLINE_ADMIN_KEY: change it there")
        row, text = parts.keyring.create(session, old.name, map(Scope, old.scopes), old.models, None)
        end = parts.clock.now() + overlap
        old.expires_at = end if old.expires_at is None else min(end, old.expires_at)
        audit(session, parts, principal, "key.rotate", f"keys/{old.uid}", successor=row.uid)
    parts.keyring.forget()
    return {**document_of(row), "key": text}


@router.delete("/{id}", status_code=204, operation_id="keys_revoke", summary="Revoke a key")
def revoke(id: str, parts: Parts, principal: Administrator) -> None:  # noqa: A002 - its public name
    """End a key now; other processes of the service know within seconds."""
    with parts.database.writing() as session:
        row = _key(session, principal, id)
        if row.name == ADMIN:
            raise Conflict("this key is made from the setting PLUMBLINE_ADMIN_KEY: change it there")
        if row.revoked_at is None:
            row.revoked_at = parts.clock.now()
            audit(session, parts, principal, "key.revoke", f"keys/{row.uid}")
    parts.keyring.forget()
