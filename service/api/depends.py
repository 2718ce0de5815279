"""What routes share: who asks and what it may do, models by name, pages of lists, revisions, and repeated POSTs.

`install(app)` puts the gate in front of the application, and the gate denies by default: a request reaches a route only
when the route is in `OPEN` or declares a scope with ``Depends(requires(Scope.READ))`` and the caller has that scope. In
order: an unknown path is 404 and a wrong method 405, a missing or wrong key 401, a missing scope 403, a path
``/…/models/{model}/…`` of a model outside the key's models 404. The gate also holds browsers' sessions to same-origin
requests that carry the session's token (header ``X-CSRF-Token`` or form field ``csrf_token``; the fields of a form
are then in ``request.state.form``), limits the bodies of configuration, and answers a repeated ``Idempotency-Key``.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from anyio.to_thread import run_sync
from cryptography.fernet import Fernet, InvalidToken
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import Integer, Select, String, delete, literal, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, compile_path
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from service.access import COOKIE, Principal, Scope
from service.api.problems import MEDIA_TYPE as PROBLEM
from service.api.problems import MethodNotAllowed, render
from service.assembly import Assembly
from service.database import UtcDateTime, from_microseconds, microseconds
from service.problems import BadRequest, Conflict, NotFound, Problem, ScopeMissing, Stale, TooLarge, Unprocessable
from service.tables import AuditRow, BaselineRow, IngestRequestRow, ModelRow, MonitorRow, VersionRow
from service.words import NAME, parse_time

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Response]])
Named = TypeVar("Named", VersionRow, BaselineRow, MonitorRow)

OPEN: Final = frozenset(
    {
        "GET /healthz",
        "GET /readyz",
        "GET /sign-in",
        "POST /sign-in",
        "GET /sign-in/{}",
        "POST /sign-in/{}",
        "GET /static/{}",
        "GET /favicon.ico",
        "GET /v1/retrainings/{}/training-data",
        "POST /v1/retrainings/{}/status",
    }
)
"""The one list of what needs no key; ``{}`` stands for any parameter."""

EXAMPLE: Final = {
    "type": "/docs/problems#unprocessable",
    "title": "The request makes no sense",
    "status": 422,
    "detail": "/alarm_budget/at_most: Input should be greater than 0",
    "errors": [
        {"pointer": "/alarm_budget/at_most", "code": "greater_than", "detail": "Input should be greater than 0"}
    ],
    "instance": "/v1/models",
    "request_id": "01a203a8d8de778a8932c50df6a44880",
}
CONFIGURATION_BYTES = 2 * 2**20
FORM_BYTES = 64 * 2**10
ANSWER_BYTES = 2**20
SHORT_PATH, KNOWN_PATHS = 200, 1_000
STALE_AFTER = timedelta(minutes=15)
"""A POST that has run for longer is taken to have died with its process."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PARAMETER = re.compile(r"\{[^}]*\}")


class Requires:
    """A dependency that declares a route's scope and gives its handler the principal."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        """Return who asks; the gate has checked the scope before."""
        principal = getattr(request.state, "principal", None)
        if not isinstance(principal, Principal) or not principal.may(self.scope):
            raise ScopeMissing(f"this needs a key with the scope {self.scope.value}")
        return principal


def requires(scope: Scope) -> Requires:
    """Return the dependency that declares the scope of a route."""
    return Requires(scope)


def straight(endpoint: Handler) -> Handler:
    """Let the gate call a route's handler itself: for routes where what the framework adds would cost the most.

    The handler takes the request and the path's parameters and reads everything else itself.
    """
    endpoint.straight = True  # type: ignore[attr-defined]
    return endpoint


async def assembly_of(request: Request) -> Assembly:
    """Return the parts of the running service."""
    assembly: Assembly = request.app.state.assembly
    return assembly


Parts = Annotated[Assembly, Depends(assembly_of)]
Reader = Annotated[Principal, Depends(Requires(Scope.READ))]
RowReader = Annotated[Principal, Depends(Requires(Scope.ROWS))]
Operator = Annotated[Principal, Depends(Requires(Scope.OPERATE))]
Configurer = Annotated[Principal, Depends(Requires(Scope.CONFIGURE))]
Administrator = Annotated[Principal, Depends(Requires(Scope.ADMIN))]


# --- objects by name --------------------------------------------------------------------------------------------------


def model_named(session: Session, principal: Principal, name: str, *, archived: bool = False) -> ModelRow:
    """Return the model of that name; one that the principal may not know of does not exist."""
    row = None
    if NAME.match(name) and principal.sees(name):
        row = session.scalar(select(ModelRow).where(ModelRow.name == name))
    if row is None or (row.archived_at is not None and not archived):
        raise NotFound(f"there is no model {name!r}")
    return row


def _of_model(session: Session, model: ModelRow, table: type[Named], noun: str, name: str) -> Named:
    """Return the model's row of that name; a name that none can have is not looked up."""
    row = None
    if NAME.match(name):
        row = session.scalar(select(table).where(table.model_id == model.id, table.name == name))
    if row is None:
        raise NotFound(f"model {model.name!r} has no {noun} {name!r}")
    return row


def version_named(session: Session, model: ModelRow, name: str) -> VersionRow:
    """Return a version of the model."""
    return _of_model(session, model, VersionRow, "version", name)


def version_or_active(session: Session, model: ModelRow, name: str | None) -> VersionRow:
    """Return the version of that name, or the active one where none is named."""
    if name is not None:
        return version_named(session, model, name)
    row = None if model.active_version_id is None else session.get(VersionRow, model.active_version_id)
    if row is None:
        raise NotFound(f"model {model.name!r} has no version yet")
    return row


def baseline_named(session: Session, model: ModelRow, name: str) -> BaselineRow:
    """Return a baseline of the model."""
    return _of_model(session, model, BaselineRow, "baseline", name)


def monitor_named(session: Session, model: ModelRow, name: str) -> MonitorRow:
    """Return a monitor of the model."""
    return _of_model(session, model, MonitorRow, "monitor", name)


def visible(principal: Principal, statement: Select[Any]) -> Select[Any]:
    """Restrict a statement that selects from models to those the principal may know of."""
    return statement if principal.models is None else statement.where(ModelRow.name.in_(sorted(principal.models)))


def moment(text: str | None, name: str) -> datetime | None:
    """Read a time from a parameter; none stays none."""
    return None if text is None else parse_time(text, f"query:{name}")


# --- lists ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paging:
    """How many items are wanted, and after which."""

    limit: int
    cursor: str | None


async def _paging(
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on this page.")] = 100,
    cursor: Annotated[str | None, Query(max_length=1024, description="`next_cursor` of the page before.")] = None,
) -> Paging:
    return Paging(limit, cursor)


Page = Annotated[Paging, Depends(_paging)]


def page_of(
    session: Session, statement: Select[Any], keys: Sequence[Any], paging: Paging, *, descending: bool = False
) -> tuple[list[Any], str | None]:
    """Return the rows of one page, and the cursor of the next where there is one.

    ``keys`` are columns that order the rows, the last of them unique; they are also the attributes that the rows
    carry. The cursor holds the last row's values, so rows that come or go in between move nothing.
    """
    if paging.cursor is not None:
        last = _decoded(paging.cursor, keys)
        values = [literal(value, key.type) for value, key in zip(last, keys, strict=True)]
        after = tuple_(*keys) < tuple_(*values) if descending else tuple_(*keys) > tuple_(*values)
        statement = statement.where(after)
    ordered = statement.order_by(*(key.desc() if descending else key.asc() for key in keys))
    rows = list(session.scalars(ordered.limit(paging.limit + 1)))
    if len(rows) <= paging.limit:
        return rows, None
    rows = rows[: paging.limit]
    return rows, _encoded([getattr(rows[-1], key.key) for key in keys])


def _encoded(values: Sequence[Any]) -> str:
    plain = [microseconds(value) if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def _decoded(cursor: str, keys: Sequence[Any]) -> list[Any]:
    """Return the values of a cursor, of the types of the keys."""
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(values, list) and len(values) == len(keys):
            return [_decoded_value(value, key.type) for value, key in zip(values, keys, strict=True)]
    except (ValueError, OverflowError, RecursionError):
        pass  # something that no list has given
    raise BadRequest("the cursor is not one that this list has given")


def _decoded_value(value: object, kind: Any) -> object:
    if isinstance(kind, String) and isinstance(value, str) and value.isprintable():
        return value
    if isinstance(kind, UtcDateTime | Integer) and type(value) is int and abs(value) < 2**62:
        return from_microseconds(value) if isinstance(kind, UtcDateTime) else value
    raise ValueError(f"not of the type {kind}")


def check_state(state: str | None, states: Sequence[str]) -> None:
    """Refuse to list what is in a state that there is not; None asks for all."""
    if state is not None and state not in states:
        raise Unprocessable(f"{state!r} is not a state; one of {', '.join(states)}")


def listed(items: Sequence[object], next_cursor: str | None) -> dict[str, object]:
    """Return a list in the shape that every list has."""
    return {"items": list(items), "next_cursor": next_cursor}


# --- revisions and the audit ------------------------------------------------------------------------------------------


def etag(revision: int) -> str:
    """Return the entity tag of a revision."""
    return f'"{revision}"'


def check_match(request: Request, revision: int) -> None:
    """Refuse a change where ``If-Match`` names another revision than the current one."""
    wanted = request.headers.get("if-match")
    if wanted is None or wanted.strip() == "*":
        return
    if etag(revision) not in [tag.strip().removeprefix("W/") for tag in wanted.split(",")]:
        raise Stale(f"the current revision is {etag(revision)}", headers={"ETag": etag(revision)})


def audit(
    session: Session,
    assembly: Assembly,
    principal: Principal,
    action: str,
    about: str,
    model: ModelRow | None = None,
    **detail: object,
) -> None:
    """Write down, in the transaction of a change, who made it."""
    session.add(
        AuditRow(
            at=assembly.clock.now(),
            actor=principal.name,
            action=action,
            object=about,
            model_id=None if model is None else model.id,
            detail=detail,
        )
    )


# --- the gate ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Door:
    """A route as the gate knows it: its path, its methods, the scope it declares."""

    path: str
    pattern: re.Pattern[str]
    methods: frozenset[str]
    scope: Scope | None
    route: Any
    straight: Callable[..., Awaitable[Response]] | None
    """Its handler, where the gate calls it itself with the request and the path's parameters; see `straight`."""

    def open_to(self, method: str) -> bool:
        """Return whether it needs no key."""
        return f"{method} {_PARAMETER.sub('{}', self.path)}" in OPEN

    @property
    def streams(self) -> bool:
        """Whether its handler reads the body itself, under limits of its own."""
        return isinstance(self.route, APIRoute) and self.route.body_field is None


def declared(route: Any) -> Scope | None:
    """Return the scope that a route declares with `requires`, none where it declares none."""
    if not isinstance(route, APIRoute):
        return None
    waiting = list(route.dependant.dependencies)
    while waiting:
        dependant = waiting.pop()
        if isinstance(dependant.call, Requires):
            return dependant.call.scope
        waiting.extend(dependant.dependencies)
    return None


def doors(app: FastAPI) -> list[Door]:
    """Return every route of the application, in the order in which they are tried."""
    found = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        path = context.path or ""
        if isinstance(route, Mount):
            path = path.rstrip("/") + "/{path:path}"
        methods = context.methods or {"GET", "HEAD"}
        pattern, _, _ = compile_path(path)
        plain = re.sub(r"\{(\w+):\w+\}", r"{\1}", path)
        endpoint = getattr(route, "endpoint", None)
        called = endpoint if getattr(endpoint, "straight", False) else None
        found.append(Door(plain, pattern, frozenset(methods), declared(route), route, called))
    return found


class Gate:
    """Lets a request through to its route, or answers why not."""

    def __init__(self, app: ASGIApp, owner: FastAPI) -> None:
        self.app = app
        self.owner = owner
        self._doors: dict[int, list[Door]] = {}
        self._straight: dict[str, tuple[Door, dict[str, str]]] = {}
        """Where requests for a path went that are handled straight: each model's few paths are asked for all day."""

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Check the request, then pass it on."""
        if scope["type"] == "websocket":
            return  # there are none; returning closes the connection
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # every route that answers GET answers this too, without a body
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        request = Request(scope, receive)
        try:
            _check_text(scope)
            door, parameters = self._straight.get(f"{scope['method']} {scope['path']}") or self._door(scope)
            if door.straight is not None or not door.open_to(scope["method"]):
                principal = await self._principal(request, door)
                scope.setdefault("state", {})["principal"] = principal
                model = parameters.get("model")
                if model is not None and not principal.sees(model):
                    raise NotFound(f"there is no model {model!r}")
                receive = await _same_origin(request, principal, receive)
            elif scope["method"] == "POST":
                receive = await _form(request, receive)
            if not door.streams:
                receive = _limited(request, receive)
            if door.straight is not None and door.scope is Scope.INGEST:
                answer: Response = await door.straight(request=Request(scope, receive), **parameters)
                await answer(scope, receive, send)
                return
            await self._pass(request, door, receive, _unless_known(request, send))
        except Problem as problem:
            await render(request, problem)(scope, receive, send)

    def _door(self, scope: Connection) -> tuple[Door, dict[str, str]]:
        if not self._doors:
            for door in doors(self.owner):
                anywhere = "(?P<path>.*)" in door.pattern.pattern
                self._doors.setdefault(-1 if anywhere else door.path.count("/"), []).append(door)
        root = scope.get("root_path", "")
        path = scope["path"]
        path = path[len(root) :] if root and path.startswith(root) else path
        allowed: set[str] = set()
        for door in (*self._doors.get(path.count("/"), ()), *self._doors.get(-1, ())):
            if match := door.pattern.match(path):
                if scope["method"] in door.methods:
                    found = door, match.groupdict()
                    if door.straight is not None and len(path) <= SHORT_PATH:
                        if len(self._straight) >= KNOWN_PATHS:  # whoever has no key can name any model
                            self._straight.clear()
                        self._straight[f"{scope['method']} {scope['path']}"] = found
                    return found
                allowed |= door.methods
        if allowed:
            methods = ", ".join(sorted(allowed))
            raise MethodNotAllowed(f"allowed here: {methods}", headers={"Allow": methods})
        raise NotFound(f"there is nothing at {path}")

    async def _principal(self, request: Request, door: Door) -> Principal:
        keyring = self.owner.state.assembly.keyring
        header = request.headers.get("authorization")
        cookie = request.cookies.get(COOKIE) if header is None else None
        basic = door.scope is Scope.INGEST
        principal = keyring.known(header, cookie, basic=basic)
        if principal is None and (header is not None or not cookie):
            principal = await run_sync(lambda: keyring.authenticate(header, basic=basic))
        elif principal is None:
            principal = await run_sync(lambda: keyring.session(cookie))
        if door.scope is None:
            raise ScopeMissing("the route declares no scope, so no key opens it")
        if not principal.may(door.scope):
            raise ScopeMissing(f"this needs a key with the scope {door.scope.value}")
        assert isinstance(principal, Principal)  # noqa: S101 - for mypy; state is untyped
        return principal

    async def _pass(self, request: Request, door: Door, receive: Receive, send: Send) -> None:
        key = request.headers.get("idempotency-key")
        if key is None or request.method != "POST" or door.scope is None:
            await self.app(request.scope, receive, send)
            return
        if not 1 <= len(key) <= 255:
            raise BadRequest("Idempotency-Key has 1 to 255 characters")
        await _Once(self.owner.state.assembly, request, key).run(self.app, receive, send)


def _without_body(send: Send) -> Send:
    async def emptied(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return emptied


def _unless_known(request: Request, send: Send) -> Send:
    """Return a send that answers 304 where the caller has the revision already (``If-None-Match``)."""
    known = request.headers.get("if-none-match")
    if known is None or request.method != "GET":
        return send
    tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
    hidden = False

    async def shortened(message: Message) -> None:
        nonlocal hidden
        if message["type"] == "http.response.start" and message["status"] == 200:
            headers = message.get("headers", [])
            tag = next((value.decode("latin-1") for name, value in headers if name.lower() == b"etag"), None)
            hidden = tag is not None and tag.removeprefix("W/") in tags
            if hidden:
                kept = [pair for pair in headers if not pair[0].lower().startswith(b"content-")]
                message = {**message, "status": 304, "headers": kept}
        elif hidden:
            message = {**message, "body": b""}
        await send(message)

    return shortened


def _check_text(scope: Connection) -> None:
    """Refuse NUL, which no database keeps as text, wherever it stands in the address."""
    if "\0" in scope["path"]:
        raise NotFound("there is nothing at a path with NUL")
    if b"%00" in scope["query_string"]:
        raise BadRequest("a parameter may not hold NUL")


async def _same_origin(request: Request, principal: Principal, receive: Receive) -> Receive:
    """Refuse what another site may have made a signed-in browser send."""
    if principal.csrf is None or request.method in _SAFE:
        return receive
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    hosts = {request.headers.get("host"), urlsplit(request.app.state.assembly.settings.public_url).netloc}
    ours = site == "same-origin" if site is not None else origin is not None and urlsplit(origin).netloc in hosts
    if not ours or (origin is not None and urlsplit(origin).netloc not in hosts):
        raise ScopeMissing("a signed-in browser may change things from our own pages only")
    receive = await _form(request, receive)
    form: dict[str, str] = getattr(request.state, "form", {})
    token = request.headers.get("x-csrf-token") or form.get("csrf_token", "")
    if not hmac.compare_digest(token.encode(), principal.csrf.encode()):
        raise ScopeMissing("the form's token is missing or of another session; load the page again")
    return receive


async def _form(request: Request, receive: Receive) -> Receive:
    """Read a small urlencoded form into ``request.state.form`` and return a receive that gives it again."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return receive
    body = b""
    async for chunk in Request(request.scope, receive).stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise TooLarge(f"a form may have {FORM_BYTES} bytes")
    try:
        request.state.form = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=200))
    except ValueError as error:
        raise BadRequest("the form cannot be read") from error
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _limited(request: Request, receive: Receive) -> Receive:
    """Return a receive that refuses a body larger than any configuration is."""
    detail = f"this body may have {CONFIGURATION_BYTES} bytes"
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > CONFIGURATION_BYTES:
        raise TooLarge(detail, limit=CONFIGURATION_BYTES)
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > CONFIGURATION_BYTES:
            raise HTTPException(413, detail)  # FastAPI, which is reading, would call any other error a 400
        return message

    return counted


class _Once:
    """One POST under an Idempotency-Key: run it and keep its answer, or give the answer that was kept."""

    def __init__(self, assembly: Assembly, request: Request, key: str) -> None:
        self.assembly = assembly
        self.request = request
        self.key = key
        principal: Principal = request.state.principal
        who = f"session {principal.name}" if principal.key_id is None else str(principal.key_id)
        route = f"POST {request.url.path} {who}"
        self.route = route if len(route) <= 400 else f"POST {hashlib.sha256(route.encode()).hexdigest()}"
        kind = request.headers.get("content-type", "")
        self.fingerprint = hashlib.sha256(f"{request.url.query}\0{kind}\0".encode())
        # Answers can hold a key or a webhook's secret, which are shown once: what is kept is encrypted.
        self.box = Fernet(base64.urlsafe_b64encode(hmac.digest(assembly.secret, b"kept answers", "sha256")))

    async def run(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        """Answer the request."""
        kept = await run_sync(self._begin)
        if kept is not None:
            async for chunk in Request(self.request.scope, receive).stream():
                self.fingerprint.update(chunk)
            if self.fingerprint.hexdigest() != kept[0]:
                raise Unprocessable("this Idempotency-Key was used with another body", code="idempotency_key_reused")
            await self._replayed(kept)(self.request.scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def hashed() -> Message:
            message = await receive()
            self.fingerprint.update(message.get("body", b""))
            return message

        async def watched(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
            elif len(body) <= ANSWER_BYTES:
                body += message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await run_sync(lambda: self._end(start, body))
                start = {}
            await send(message)

        try:
            await app(self.request.scope, hashed, watched)
        except BaseException:
            await run_sync(lambda: self._end({}, b""))
            raise

    def _begin(self) -> tuple[str, int, bytes] | None:
        """Claim the key; return the kept fingerprint, status and answer where there are such."""
        now = self.assembly.clock.now()
        mine = (IngestRequestRow.route == self.route) & (IngestRequestRow.idempotency_key == self.key)
        try:
            with self.assembly.database.writing() as session:
                session.execute(
                    delete(IngestRequestRow).where(
                        mine, IngestRequestRow.status.is_(None), IngestRequestRow.created_at < now - STALE_AFTER
                    )
                )
                row = session.scalar(select(IngestRequestRow).where(mine))
                if row is None:
                    session.add(
                        IngestRequestRow(
                            route=self.route, idempotency_key=self.key, fingerprint="", status=None, created_at=now
                        )
                    )
                    return None
                if row.status is not None and row.answer is not None:
                    return row.fingerprint, row.status, row.answer
        except IntegrityError:
            pass  # on PostgreSQL the twin may have claimed it between the two statements
        raise Conflict("the same request is still running; ask again later", headers={"Retry-After": "1"})

    def _end(self, start: Message, body: bytes) -> None:
        """Keep a successful answer; forget the claim of any other."""
        mine = (IngestRequestRow.route == self.route) & (IngestRequestRow.idempotency_key == self.key)
        status = start.get("status", 500)
        with self.assembly.database.writing() as session:
            if not 200 <= status < 300 or len(body) > ANSWER_BYTES:
                session.execute(delete(IngestRequestRow).where(mine, IngestRequestRow.status.is_(None)))
                return
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start.get("headers", [])}
            kept = {name: value for name, value in headers.items() if name in ("content-type", "location", "etag")}
            answer = self.box.encrypt(json.dumps({"headers": kept, "body": body.decode("latin-1")}).encode())
            session.execute(
                update(IngestRequestRow)
                .where(mine)
                .values(status=status, answer=answer, fingerprint=self.fingerprint.hexdigest())
            )

    def _replayed(self, kept: tuple[str, int, bytes]) -> Response:
        try:
            answer = json.loads(self.box.decrypt(kept[2]))
        except InvalidToken:
            raise Conflict("the first answer was kept under another secret key and cannot be read") from None
        headers = {**answer["headers"], "Idempotency-Replayed": "true"}
        return Response(answer["body"].encode("latin-1"), status_code=kept[1], headers=headers)


def describe(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return what makes the OpenAPI document: FastAPI's, with each route's scope and how keys are sent."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        if "x-described" in document:
            return document
        document["x-described"] = True
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["key"] = {"type": "http", "scheme": "bearer", "description": "A key: `plk_…`."}
        schemes["keyAsPassword"] = {"type": "http", "scheme": "basic", "description": "On ingest routes."}
        problem = {"description": "A problem document (RFC 9457).", "content": {PROBLEM: {"example": EXAMPLE}}}
        for door in doors(app):
            for method in door.methods:
                operation = document.get("paths", {}).get(door.path, {}).get(method.lower())
                if operation is None:
                    continue
                if door.scope is not None:
                    operation["x-scope"] = door.scope.value
                    ways: list[dict[str, list[str]]] = [{"key": []}]
                    operation["security"] = ways + ([{"keyAsPassword": []}] if door.scope is Scope.INGEST else [])
                operation.get("responses", {}).pop("422", None)
                operation.setdefault("responses", {}).setdefault("default", problem)
        document["servers"] = [{"url": app.state.assembly.settings.public_url}]
        return document

    return openapi


def install(app: FastAPI) -> None:
    """Put the gate before the application, inside of what `service.api.problems.install` has put there."""
    app.user_middleware.append(Middleware(Gate, owner=app))
    app.openapi = describe(app)  # type: ignore[method-assign]
