"""Erasure of single records, which this version refuses in so many words rather than in silence."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import ConfigDict, Field, StringConstraints

from service.api.bodies import Body, Name
from service.api.depends import Administrator, Parts, model_named
from service.problems import Problem

router = APIRouter(prefix="/v1/erasures", tags=["models"])


class NotErased(Problem):
    """Records of single people or predictions were to be erased, which cannot be done yet."""

    status, title = 409, "Single records cannot be erased"


class ErasureBody(Body):
    """Whose records, or which."""

    model: Name
    subject: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    prediction_ids: Annotated[list[str], Field(max_length=10_000)] | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "car-loan", "prediction_ids": ["a-17"]}]})


@router.post("", operation_id="erasures_create", summary="Erase records (refused)")
def create(body: ErasureBody, parts: Parts, principal: Administrator) -> None:
    """Say that nothing was erased: records are kept for good by this version, as immutable files."""
    with parts.database.reading() as session:
        model_named(session, principal, body.model)
    raise NotErased(
        "nothing was erased: this version keeps every record in immutable files and takes none out of them. Features "
        "that must not be kept are declared with store hash, profile_only or drop before they are sent; subjects are "
        "kept as keyed hashes alone"
    )
