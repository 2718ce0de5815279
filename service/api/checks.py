"""Checks over HTTP: a file run through a model's monitors, for pipelines; nothing of it is taken in."""

from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response

from service import baselines, checks, uploads
from service.access import Principal, Scope
from service.api.baselines import INFLATION, Roles, spooled, stored, wanted_of
from service.api.depends import Operator, Parts, model_named
from service.api.jobs import Progress, answer, jobs_of
from service.assembly import Assembly
from service.problems import Fault, ScopeMissing, Unprocessable
from service.scheduler import workshop_of
from service.tables import ModelRow
from service.words import checked_name

router = APIRouter(prefix="/v1/models/{model}/checks", tags=["checks"])

_FILE = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": dict.fromkeys((uploads.PARQUET, uploads.CSV, uploads.NDJSON, uploads.ARROW), _FILE),
    }
}


@router.post("", status_code=200, operation_id="checks_create", summary="Check a file", openapi_extra=_BODY)
async def create(
    model: str,
    request: Request,
    parts: Parts,
    principal: Operator,
    roles: Roles,
    baseline: Annotated[str | None, Query(description="Default: the one in force.")] = None,
    version: Annotated[str | None, Query(description="Whose baseline; default: the active version's.")] = None,
    monitors: Annotated[
        str | None, Query(max_length=8192, description="A comma list; default: all that are switched on.")
    ] = None,
    register: Annotated[str | None, Query(description="Keep the file as a baseline of this name.")] = None,
    if_: Annotated[Literal["ok", "always"], Query(alias="if", description="When it is kept.")] = "ok",
) -> Response:
    """Run monitors over a file (the parameters name the columns that play a role, all others are features) and answer
    what each finds, judged as a window would be: nothing is taken in, no alert is opened, no budget is spent. 202 where
    it takes over 10 s. A model without monitors is checked by the default kinds.
    """  # noqa: D205 - one paragraph, which the interface shows whole
    content_type = request.headers.get("content-type", "")
    if register is not None:
        checked_name(register, "query:register")
        if not principal.may(Scope.CONFIGURE):
            raise ScopeMissing(f"keeping the file as a baseline needs a key with the scope {Scope.CONFIGURE.value}")
    names = None if monitors is None else [name.strip() for name in monitors.split(",") if name.strip()]
    if names is not None and not names:
        raise Unprocessable("no monitor is named", faults=[Fault("query:monitors", "empty", "no monitor is named")])
    asked, wanted = await run_sync(lambda: _asked(parts, principal, model, version, baseline, names, register, roles))
    uploads.kind_of(content_type or "application/octet-stream", b"PAR1")  # refused before the body is read
    path = await spooled(request, parts)

    def work(progress: Progress) -> dict[str, Any]:
        try:
            with path.open("rb") as file:
                found = uploads.kind_of(content_type, file.read(8))
            table = uploads.read(path, found, parts.settings.max_upload * INFLATION)
        finally:
            path.unlink(missing_ok=True)
        with parts.database.reading() as session:
            model_row = session.get_one(ModelRow, asked.model_id)
            sheet = uploads.sheet_of(table, roles, baselines.meaning_of(session, model_row, asked.version))
            told = checks.check(
                session, workshop_of(parts), asked, sheet, lambda done, total: progress.at(done, total, "monitors")
            )
        told["registered"] = None
        if wanted is not None and (if_ == "always" or told["status"] == "ok"):
            told["registered"] = stored(parts, principal, wanted, sheet)
        return told

    job = await run_sync(lambda: jobs_of(request.app).start("check", asked.model_id, {"monitors": names}, work))
    return await answer(request, job, 200)


def _asked(
    parts: Assembly,
    principal: Principal,
    model: str,
    version: str | None,
    baseline: str | None,
    names: list[str] | None,
    register: str | None,
    roles: uploads.Roles,
) -> tuple[checks.Asked, baselines.Wanted | None]:
    """Return what is asked for; whatever is named and not there is refused before the body is read."""
    workshop = workshop_of(parts)
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        asked = checks.Asked(model_id=owner.id, version=version, baseline=baseline, monitors=names)
        compared = checks.against(session, workshop, asked)
    if register is None:
        return asked, None
    return asked, wanted_of(parts, principal, model, register, compared.version.name, None, {"file": roles.document()})
