"""Every error leaves as a problem document (RFC 9457) with the request's id; `install(app)` sees to it.

Handlers raise the classes of `service.problems`; what FastAPI and Starlette raise themselves is turned into the same
shape here, and whatever nobody foresaw is logged and answered by a 500 that says no more than its request id.
"""

import html
import json
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import sqlalchemy.exc
import structlog
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.database import failure_of
from service.lake import quarantine
from service.lake.files import SegmentDamaged
from service.problems import (
    BadRequest,
    Conflict,
    Fault,
    KeyMissing,
    MediaTypeUnknown,
    NotFound,
    Problem,
    ScopeMissing,
    TooLarge,
    Unprocessable,
)
from service.words import new_id

MEDIA_TYPE = "application/problem+json"
FAULTS_SHOWN = 100
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,128}$")
_log = structlog.get_logger("plumbline.api")

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Headers of every answer that does not bring its own."""


class MethodNotAllowed(Problem):
    """The path is there, the method is not."""

    status, title = 405, "The method is not allowed here"


_BY_STATUS: Mapping[int, type[Problem]] = {
    known.status: known
    for known in (
        BadRequest,
        KeyMissing,
        ScopeMissing,
        NotFound,
        MethodNotAllowed,
        Conflict,
        TooLarge,
        MediaTypeUnknown,
        Unprocessable,
    )
}


def problem_of(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """Return the problem that belongs to a status, with a detail where it says more than the status does."""
    phrase = HTTPStatus(status).phrase
    kind: type[Problem] = _BY_STATUS.get(status) or type(
        phrase.title().replace(" ", "").replace("-", ""), (Problem,), {"status": status, "title": phrase}
    )
    return kind("" if detail in (phrase, "") else detail, headers=headers)


def faults_of(errors: Iterable[Any], prefix: str = "") -> list[Fault]:
    """Return pydantic's errors as faults; a body's place is a JSON pointer, a parameter's is ``query:name``."""
    return [
        Fault(prefix + _pointer(error["loc"]), str(error["type"]), str(error["msg"]).removeprefix("Value error, "))
        for error in errors
    ]


def _pointer(place: Sequence[int | str]) -> str:
    if place and place[0] in ("query", "path", "header", "cookie"):
        return ":".join(str(part) for part in place)
    parts = place[1:] if place and place[0] == "body" else place
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def refused(faults: Sequence[Fault]) -> Unprocessable:
    """Return a 422 that lists the faults and names the first in its detail."""
    first = faults[0]
    where = f"{first.pointer}: " if first.pointer else ""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Unprocessable(f"{where}{first.detail}{more}", faults=faults[:FAULTS_SHOWN])


def render(request: Request, problem: Problem) -> Response:
    """Return the answer for a problem: a document, or a page where a browser asked for a page."""
    document = problem.document() | {"instance": request.url.path, "request_id": request_id(request)}
    path = request.url.path
    wants_page = "text/html" in request.headers.get("accept", "") and "/v1/" not in path
    if wants_page and problem.status == 401 and request.method == "GET":
        prefix = urlsplit(request.app.state.assembly.settings.public_url).path.rstrip("/")
        wanted = path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{prefix}/sign-in?next={quote(wanted, safe='/')}", status_code=303)
    if wants_page:
        page = getattr(request.app.state, "error_page", None)
        answer = page(request, document) if page is not None else _plain_page(problem.status, document)
        assert isinstance(answer, Response)  # noqa: S101 - for mypy; state is untyped
        answer.headers.update(problem.headers)
        return answer
    return Response(
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def _plain_page(status: int, document: Mapping[str, object]) -> Response:
    title, detail = html.escape(str(document["title"])), html.escape(str(document.get("detail", "")))
    mark = html.escape(str(document["request_id"]))
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1><p>{detail}</p><p>Request {mark}</p></html>",
        status_code=status,
    )


def request_id(request: Request) -> str:
    """Return the id of the request, as it came in ``X-Request-Id`` or was made here."""
    return str(request.scope.get("state", {}).get("request_id", ""))


def _of_validation(request: Request, error: RequestValidationError) -> Problem:
    errors = error.errors()
    broken = next((each for each in errors if each["type"] == "json_invalid"), None)
    if broken is not None:
        return BadRequest(f"the body is not JSON: {broken['ctx']['error']} at position {broken['loc'][-1]}")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    read_as_json = kind == "application/json" or kind.endswith("+json")
    if not read_as_json and any(tuple(each["loc"]) == ("body",) and each["type"] != "missing" for each in errors):
        return MediaTypeUnknown(f"send application/json, not {kind or 'a body without Content-Type'}")
    return refused(faults_of(errors))


class Envelope:
    """Outermost: gives each request its id, each answer its headers, and the unforeseen a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its id in ``request.state.request_id``."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        mark = given if _REQUEST_ID.match(given) else new_id()
        scope.setdefault("state", {})["request_id"] = mark
        started = False

        async def marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = list(message.get("headers", []))
                present = {name.lower() for name, _ in headers}
                headers += [pair for pair in HEADERS if pair[0] not in present]
                if "/v1/" in scope["path"] and b"cache-control" not in present:
                    headers.append((b"cache-control", b"private, no-cache"))
                message = {**message, "headers": [*headers, (b"x-request-id", mark.encode())]}
            await send(message)

        try:
            await self.app(scope, receive, marked)
        except Exception as error:  # the last resort: whatever it is, it is logged and answered
            problem = failure_of(error)
            if problem is not None and not started:  # in front of the routes: the key could not be looked up
                _log.warning("storage failed", request_id=mark, path=scope["path"], reason=str(error)[:300])
                await render(Request(scope), problem)(scope, receive, marked)
                return
            story = "".join(traceback.format_exception(error))  # without the frames' variables, which may hold secrets
            _log.error("unforeseen", request_id=mark, method=scope["method"], path=scope["path"], traceback=story)
            if started:
                raise
            answer = render(Request(scope), Problem("the service's log says more, under this request id"))
            await answer(scope, receive, marked)


def install(app: FastAPI) -> None:
    """Turn every error of the application into a problem document."""

    async def _problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 - what it is registered for
        if isinstance(error, SegmentDamaged):
            parts = request.app.state.assembly
            await run_sync(quarantine.set_aside, parts.database, parts.lake, parts.clock)
        return render(request, error)

    async def _storage(request: Request, error: Exception) -> Response:
        problem = failure_of(error)
        if problem is None:
            raise error
        _log.warning("storage failed", request_id=request_id(request), path=request.url.path, reason=str(error)[:300])
        return render(request, problem)

    async def _status(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
        return render(request, problem_of(error.status_code, str(error.detail), error.headers))

    async def _invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
        return render(request, _of_validation(request, error))

    app.add_exception_handler(Problem, _problem)
    for failure in (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError, OSError):
        app.add_exception_handler(failure, _storage)
    app.add_exception_handler(HTTPException, _status)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Envelope)
