"""Explanations over HTTP: artifacts of versions, attributions of predictions, importance, partial dependence."""

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import ConfigDict, Field, SecretStr, model_validator

from service.access import Principal, Scope
from service.api.bodies import Body, Label, Name, Part, Short, validated
from service.api.depends import (
    Configurer,
    Parts,
    Reader,
    RowReader,
    audit,
    model_named,
    moment,
    version_named,
    version_or_active,
)
from service.api.formats import cell
from service.api.jobs import Progress, answer, jobs_of, waiting
from service.assembly import Assembly
from service.explanations import Asked, artifact_of
from service.lake import reader
from service.problems import BadRequest, Fault, NotFound, TooLarge, Unprocessable
from service.tables import ArtifactRow, ModelRow, VersionRow
from service.words import HOUR, Span, format_time

router = APIRouter(tags=["explanations"])

AT_ONCE = 100
"""More records than this are explained as a job."""
MOST_RECORDS = 10_000
MOST_ROWS = 10_000

Columns = Annotated[list[Short], Field(max_length=100_000)]


HeaderName = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
SENT = frozenset(
    ("accept", "connection", "content-length", "content-type", "host", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Headers that the service itself sends, or that belong to the connection."""


class CredentialsPart(Part):
    """What lets in at an endpoint; encrypted at rest, sent with each call and never shown again."""

    bearer: SecretStr | None = Field(None, min_length=1, max_length=8192, description="Sent as Authorization: Bearer.")
    headers: Annotated[dict[HeaderName, SecretStr], Field(max_length=10)] = Field(
        default_factory=dict, description="Secret headers by name, such as x-api-key."
    )

    @model_validator(mode="after")
    def _sendable(self) -> "CredentialsPart":
        for name in self.headers:
            if name.lower() in SENT:
                raise ValueError(f"the header {name} is the service's own")
        names = [name.lower() for name in self.headers] + (["authorization"] if self.bearer else [])
        if len(set(names)) < len(names):
            raise ValueError("a header is given twice")
        for name, value in self.sent().items():
            if not (value and len(value) <= 8192 and value.isascii() and value.isprintable()):
                raise ValueError(f"what is sent as {name} is printable ASCII of 1 to 8192 characters")
        return self

    def sent(self) -> dict[str, str]:
        """Return the headers as they are sent."""
        told = {name: value.get_secret_value() for name, value in self.headers.items()}
        return told | ({"authorization": f"Bearer {self.bearer.get_secret_value()}"} if self.bearer else {})


class EndpointPart(Part):
    """Where a model is served, in which protocol it is asked, and what lets in there."""

    url: Annotated[str, Field(max_length=2048)]
    protocol: Annotated[str, Field(max_length=64)] = "v2"
    credentials: CredentialsPart | None = None


class ManifestPart(Part):
    """What the file of a model does not say itself."""

    columns: Columns | None = None
    groups: dict[Short, Columns | dict[Short, Label]] = Field(default_factory=dict)
    encodings: dict[Short, dict[Label, float]] = Field(default_factory=dict)
    classes: Annotated[list[Label], Field(max_length=10_000)] | None = None
    texts: Columns = Field(default_factory=list, description="Columns of running text, where the schema does not say.")


class ArtifactBody(Body):
    """An endpoint that serves the version."""

    endpoint: EndpointPart
    manifest: ManifestPart = Field(default_factory=ManifestPart)

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"endpoint": {"url": "https://models.example.com/v2/models/loans/infer", "protocol": "v2"}}]
        }
    )


class RecordPart(Part):
    """A record to explain that need not have been logged."""

    prediction_id: Short | None = None
    features: Annotated[dict[Short, Any], Field(max_length=10_000)]
    prediction: Any = None
    score: float | None = None
    attributions: dict[Short, float] | None = None


class ExplainBody(Body):
    """Which predictions to explain, and how."""

    prediction_ids: Annotated[list[Short], Field(min_length=1, max_length=MOST_RECORDS)] | None = None
    records: Annotated[list[RecordPart], Field(min_length=1, max_length=MOST_RECORDS)] | None = None
    version: Name | None = None
    method: Annotated[str, Field(max_length=64)] = "auto"
    output: Literal["margin", "probability", "value"] | None = None
    class_: Label | None = Field(None, alias="class")
    options: dict[Short, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    keep: bool = False

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prediction_ids": ["a1b2"], "method": "auto", "keep": True}]}
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "ExplainBody":
        if (self.prediction_ids is None) == (self.records is None):
            raise ValueError("give prediction_ids or records, one of the two")
        return self


class DependenceBody(Body):
    """The feature that is moved."""

    feature: Short
    version: Name | None = None
    output: Literal["margin", "probability", "value"] | None = None
    points: Annotated[int, Field(ge=2, le=200)] = 20
    rows: Annotated[int, Field(ge=1, le=2000)] = 200
    each: bool = False

    model_config = ConfigDict(json_schema_extra={"examples": [{"feature": "age", "points": 20, "each": False}]})


# --- artifacts --------------------------------------------------------------------------------------------------------


_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["endpoint"],
                    "properties": {
                        "endpoint": {
                            "type": "object",
                            "required": ["url"],
                            "properties": {
                                "url": {"type": "string"},
                                "protocol": {"type": "string"},
                                "credentials": {
                                    "type": "object",
                                    "properties": {
                                        "bearer": {"type": "string", "writeOnly": True},
                                        "headers": {"type": "object", "writeOnly": True},
                                    },
                                },
                            },
                        },
                        "manifest": {"type": "object"},
                    },
                },
                "example": {"endpoint": {"url": "https://models.example.com/v2/models/loans/infer", "protocol": "v2"}},
            },
        },
    }
}


@router.put(
    "/v1/models/{model}/versions/{version}/artifact",
    operation_id="artifacts_put",
    summary="Give a version its model",
    openapi_extra=_UPLOAD,
)
async def put_artifact(
    model: str,
    version: str,
    request: Request,
    parts: Parts,
    principal: Configurer,
    manifest: Annotated[
        str | None, Query(max_length=65536, description="With a file: JSON of columns, groups, encodings, classes.")
    ] = None,
) -> dict[str, Any]:
    """Take the file of a model (XGBoost json or ubj, LightGBM text, CatBoost cbm, skops, ONNX; told by its content), or
    the endpoint that serves it. Pickles and whatever else runs code when it is opened are refused, never opened.
    """  # noqa: D205 - one paragraph, which the interface shows whole
    limit = parts.settings.max_artifact
    pieces, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"a model's file may have {limit} bytes (PLUMBLINE_MAX_ARTIFACT)", limit=limit)
        pieces.append(chunk)
    data = b"".join(pieces)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" and b'"endpoint"' in data[:65536] and b'"learner"' not in data[:65536]:
        body: ArtifactBody = validated(ArtifactBody, _json(data, "the body"))
        given, endpoint, content = body.manifest, body.endpoint, None
    elif kind == "multipart/form-data":
        raise Unprocessable("the file itself is the body, not a part of a form: curl --data-binary @model.json")
    else:
        told = {} if manifest is None else _json(manifest.encode(), "the parameter manifest")
        given, endpoint, content = validated(_ManifestBody, told), None, data
    return await run_sync(
        lambda: _adopted(parts, principal, model, version, content, endpoint, given.model_dump(exclude_none=True))
    )


class _ManifestBody(ManifestPart, Body):
    """A manifest as a parameter."""


def _json(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{what} is not JSON: {error}") from None


def _adopted(
    parts: Assembly,
    principal: Principal,
    model: str,
    version: str,
    data: bytes | None,
    endpoint: EndpointPart | None,
    manifest: Mapping[str, Any],
) -> dict[str, Any]:
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        named = version_named(session, owner, version)
    row = parts.explanations.adopt(
        owner.id,
        named.id,
        data=data,
        endpoint=None if endpoint is None else endpoint.model_dump(exclude={"credentials"}),
        manifest=manifest,
        headers=endpoint.credentials.sent() if endpoint is not None and endpoint.credentials is not None else None,
    )
    with parts.database.writing() as session:
        again = session.get_one(ModelRow, owner.id)
        about = f"models/{model}/versions/{version}/artifact"
        audit(session, parts, principal, "artifact.put", about, again, digest=row.digest, kind=row.kind)
    return artifact_document(row)


def artifact_document(row: ArtifactRow) -> dict[str, Any]:
    """Return an artifact as the interface shows it."""
    return {
        "format": row.kind,
        "digest": row.digest,
        "size": row.size,
        "endpoint": row.endpoint,
        "credentials": row.credentials is not None,
        "manifest": row.manifest,
        **{name: value for name, value in row.about.items() if name != "format"},
        "created_at": format_time(row.created_at),
    }


@router.get(
    "/v1/models/{model}/versions/{version}/artifact", operation_id="artifacts_read", summary="Read a version's model"
)
def read_artifact(model: str, version: str, parts: Parts, principal: Reader) -> dict[str, Any]:
    """Return what is known of a version's artifact; the file itself is not given out."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        row = artifact_of(session, version_named(session, owner, version).id)
        if row is None:
            raise NotFound(f"version {version!r} has no artifact")
        return artifact_document(row)


# --- local ------------------------------------------------------------------------------------------------------------


@router.post("/v1/models/{model}/explanations", operation_id="explanations_create", summary="Explain predictions")
async def create(model: str, body: ExplainBody, request: Request, parts: Parts, principal: RowReader) -> Response:
    """Attribute predictions to their inputs, by id or as posted records. Attributions that came with a prediction are
    used as they are. What was asked before is answered from memory. More than 100 records, or over 10 s: 202.
    """  # noqa: D205 - one paragraph, which the interface shows whole
    asked = await run_sync(lambda: asked_of(parts, principal, model, body))

    def work(progress: Progress) -> dict[str, Any]:
        return _pointer(parts.explanations.explain(asked, progress.check))

    about = {"records": len(asked.records)}
    job = await run_sync(lambda: jobs_of(request.app).start("explanation", asked.model_id, about, work))
    if len(asked.records) > AT_ONCE and "prefer" not in request.headers:
        return await waiting(request, job)
    return await _whole(parts, await answer(request, job, 200))


def _pointer(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job shows: jobs are read with another scope than rows."""
    return {"explanation": told["id"], "location": f"/v1/explanations/{told['id']}", "cached": told["cached"]}


async def _whole(parts: Assembly, answered: Response) -> Response:
    """Return the explanation that a finished job points to."""
    if answered.status_code != 200:
        return answered
    pointer = json.loads(bytes(answered.body))

    def read() -> dict[str, Any]:
        with parts.database.reading() as session:
            found = parts.explanations.read(session, pointer["explanation"])
        if found is None:
            raise NotFound("the explanation was removed while it was answered")
        return found[1]

    told = await run_sync(read)
    return JSONResponse(told | {"cached": pointer["cached"]}, 200, {"Location": pointer["location"]})


def asked_of(parts: Assembly, principal: Principal, model: str, body: ExplainBody) -> Asked:
    """Return what a body asks for: the records of its ids, or those that it brings, of one version."""
    with parts.database.reading() as session:
        owner = model_named(session, principal, model)
        if body.records is not None:
            version = version_or_active(session, owner, body.version)
            records = [record.model_dump(exclude_none=True) for record in body.records]
        else:
            named = None if body.version is None else version_named(session, owner, body.version)
            active = None if owner.active_version_id is None else session.get(VersionRow, owner.active_version_id)
            records, versions = [], set()
            for prediction_id in dict.fromkeys(body.prediction_ids or ()):
                found = reader.prediction(session, parts.lake, owner, prediction_id)
                told = _chosen(found, prediction_id, named, active)
                versions.add(told["version"])
                kept = ("prediction_id", "features", "prediction", "score", "attributions")
                records.append({name: told[name] for name in kept if name in told})
            if len(versions) > 1:
                several = ", ".join(sorted(versions))
                raise Unprocessable(f"these predictions are of the versions {several}; explain one version at a time")
            version = version_named(session, owner, versions.pop())
        return Asked(
            model_id=owner.id,
            version_id=version.id,
            records=records,
            method=body.method,
            output=body.output,
            class_=body.class_,
            seed=body.seed,
            options=body.options,
            keep=body.keep,
        )


def _chosen(
    found: list[dict[str, Any]], prediction_id: str, named: VersionRow | None, active: VersionRow | None
) -> dict[str, Any]:
    """Return a prediction's record under the version that is asked for, else the active one, else its only one."""
    known = {str(told["version"]): told for told in found if "features" in told}
    for version in (named,) if named is not None else (active,):
        if version is not None and version.name in known:
            return known[version.name]
    if named is None and len(known) == 1:
        return next(iter(known.values()))
    under = f" under version {named.name!r}; it is under {', '.join(sorted(known))}" if named and known else ""
    raise NotFound(f"there is no prediction {prediction_id!r}{under}")


# --- global -----------------------------------------------------------------------------------------------------------


@router.get(
    "/v1/models/{model}/explanations/global",
    operation_id="explanations_global",
    summary="What predictions of a span rest on",
)
async def importance(
    model: str,
    request: Request,
    parts: Parts,
    principal: Reader,
    from_: Annotated[str, Query(alias="from")],
    to: str,
    version: str | None = None,
    rows: Annotated[int, Query(ge=10, le=MOST_ROWS)] = 1000,
) -> Response:
    """Return the mean absolute attribution of each input over the span's row sample, with intervals, beside the
    baseline's, and SageMaker's NDCG between the two. 202 where it takes over 10 s.
    """  # noqa: D205 - one paragraph, which the interface shows whole

    def checked() -> tuple[int, int, Span]:
        start, end = moment(from_, "from"), moment(to, "to")
        assert start is not None and end is not None  # noqa: S101, PT018 - both are given
        if end - start < HOUR:
            raise Unprocessable("the span ends before it begins", faults=[Fault("query:to", "empty", "empty span")])
        with parts.database.reading() as session:
            owner = model_named(session, principal, model)
            return owner.id, version_or_active(session, owner, version).id, Span(start, end)

    model_id, version_id, span = await run_sync(checked)

    def work(progress: Progress) -> dict[str, Any]:
        parts.sealer.seal(model_id)
        return _pointer(parts.explanations.importance(model_id, version_id, span, rows=rows, check=progress.check))

    about = {"from": from_, "to": to}
    job = await run_sync(lambda: jobs_of(request.app).start("importance", model_id, about, work))
    return await _whole(parts, await answer(request, job, 200))


@router.post(
    "/v1/models/{model}/partial-dependence",
    operation_id="explanations_dependence",
    summary="How predictions move with one feature",
)
async def dependence(model: str, body: DependenceBody, request: Request, parts: Parts, principal: Reader) -> Response:
    """Return the mean prediction over the baseline's rows as one feature moves over its values (and, with `each`, which
    needs the scope rows, every row's curve).
    """  # noqa: D205 - one paragraph, which the interface shows whole

    def checked() -> tuple[int, int]:
        if body.each and not principal.may(Scope.ROWS):
            raise Unprocessable("curves of single rows (`each`) need a key with the scope rows")
        with parts.database.reading() as session:
            owner = model_named(session, principal, model)
            return owner.id, version_or_active(session, owner, body.version).id

    model_id, version_id = await run_sync(checked)

    def work(progress: Progress) -> dict[str, Any]:
        return _pointer(
            parts.explanations.dependence(
                model_id,
                version_id,
                feature=body.feature,
                output=body.output,
                points=body.points,
                rows=body.rows,
                each=body.each,
                check=progress.check,
            )
        )

    job = await run_sync(lambda: jobs_of(request.app).start("dependence", model_id, {"feature": body.feature}, work))
    return await _whole(parts, await answer(request, job, 200))


# --- what was told ----------------------------------------------------------------------------------------------------


@router.get("/v1/explanations/{id}", operation_id="explanations_read", summary="Read an explanation")
def read(
    id: str,  # noqa: A002 - the parameter's public name
    request: Request,
    parts: Parts,
    principal: RowReader,
    format: Annotated[Literal["json", "csv", "html"] | None, Query()] = None,  # noqa: A002 - the parameter's public name
) -> Response:
    """Return an explanation as it was told: JSON, CSV, or a page to print (by `Accept` or `format`)."""
    with parts.database.reading() as session:
        found = parts.explanations.read(session, id) if re.fullmatch(r"[0-9a-f]{32}", id) else None
        owner = None if found is None else session.get(ModelRow, found[0].model_id)
        if found is None or owner is None or not principal.sees(owner.name):
            raise NotFound(f"there is no explanation {id!r}")
    told = found[1]
    wanted = format or _preferred(request.headers.get("accept", ""))
    if wanted == "csv":
        return Response(
            _csv(told),
            media_type="text/csv; header=present",
            headers={"content-disposition": f'attachment; filename="explanation-{id}.csv"'},
        )
    if wanted == "html":
        root = urlsplit(parts.settings.public_url).path.rstrip("/")
        return RedirectResponse(f"{root}/explanations/{id}", 303)
    return JSONResponse(told)


def _preferred(accept: str) -> str:
    kinds: dict[str, str] = {"text/csv": "csv", "text/html": "html", "application/json": "json"}
    for part in accept.split(","):
        name = part.partition(";")[0].strip().lower()
        if name in kinds:
            return kinds[name]
    return "json"


def _csv(told: Mapping[str, Any]) -> str:
    """Return one line per record and input, or per input."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if told["kind"] == "local":
        head = ["prediction_id", "version", "artifact_digest", "method", "exact", "output", "class", "base_value"]
        head += ["seed", "prediction"]
        writer.writerow([*head, "feature", "value", "attribution", "error", "token", "start"])
        for item in told["items"]:
            for name, value in item["attributions"].items():
                error = None if item["error"] is None else item["error"].get(name)
                cells = [*(item[column] for column in head), name]
                logged = (item.get("features") or {}).get(name)
                writer.writerow([cell(each) for each in [*cells, logged, value, error, None, None]])
                for token in (item.get("tokens") or {}).get(name, ()):
                    about = [token["attribution"], token["error"], token["text"], token["start"]]
                    writer.writerow([cell(each) for each in [*cells, None, *about]])
    elif told["kind"] == "global":
        writer.writerow(["feature", "importance", "low", "high", "baseline_importance"])
        for entry in told["features"]:
            cells = [entry["feature"], entry["importance"], *entry["interval"], entry.get("baseline_importance")]
            writer.writerow([cell(each) for each in cells])
    else:
        writer.writerow(["value", "share", *told["classes"]])
        for place, value in enumerate(told["values"]):
            cells = [value, told["shares"][place], *(curve[place] for curve in told["mean"])]
            writer.writerow([cell(each) for each in cells])
    return out.getvalue()
