"""Root causes over HTTP: which moved features matter to the model, and what the change of its errors is made of."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from service import causes
from service.api.depends import Parts, Reader, model_named, version_or_active
from service.problems import Unprocessable
from service.runs import decode_results
from service.words import Span, format_time, parse_time

router = APIRouter(prefix="/v1/models/{model}/causes", tags=["results"])


@router.get("", operation_id="causes_read", summary="What moved, and whether it matters")
def read(
    model: str,
    parts: Parts,
    principal: Reader,
    from_: Annotated[str, Query(alias="from", description="RFC 3339, inclusive.")],
    to: Annotated[str, Query(description="RFC 3339, exclusive.")],
    version: str | None = None,
) -> dict[str, Any]:
    """Rank features by drift times importance, with the change of the error that each explains by itself.

    `parts` splits the change of the error since the baseline, where labels are known: into what new inputs, new class
    shares and a new concept did.
    """
    span = Span(parse_time(from_, "query:from"), parse_time(to, "query:to"))
    if span.start >= span.end:
        raise Unprocessable("from is before to")
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
    parts.sealer.seal(owner.id)
    with parts.database.reading() as session:
        row = version_or_active(session, owner, version)
        found = causes.document_of(session, parts.lake, parts.profiles, owner, row, span, decode_results)
    return {"window": {"from": format_time(span.start), "to": format_time(span.end)}, **found}
