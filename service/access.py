"""Who may do what: keys of which only a digest is kept, browser sessions, and sign-in links that work once."""

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.clock import Clock
from service.database import Database
from service.problems import KeyMissing
from service.settings import Settings
from service.tables import ApiKeyRow, AuditRow, SessionRow
from service.words import new_id

PREFIX = "plk_"
COOKIE = "plumbline_session"
CACHE_SECONDS = 5.0
CACHED = 10_000
SESSION_AGE = timedelta(days=7)
LINK_AGE = timedelta(hours=24)
ADMIN = "admin (settings)"
"""The name of the key that comes from the setting ADMIN_KEY."""
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="plumbline"'}


class Scope(StrEnum):
    """What a key may do; none includes another."""

    INGEST = "ingest"
    READ = "read"
    ROWS = "rows"
    PROTECTED = "protected"
    OPERATE = "operate"
    CONFIGURE = "configure"
    ADMIN = "admin"


EVERY_SCOPE = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the name for the audit, what it may do, and the models it is bound to (none: every model)."""

    name: str
    scopes: frozenset[Scope]
    models: frozenset[str] | None = None
    key_id: int | None = None
    csrf: str | None = None
    """The token that forms of this browser session carry; none for a key, which no browser sends by itself."""

    def may(self, scope: Scope) -> bool:
        """Return whether the scope is among those given."""
        return scope in self.scopes

    def sees(self, model_name: str) -> bool:
        """Return whether the model exists for this principal."""
        return self.models is None or model_name in self.models


def digest(text: str) -> str:
    """Return what is kept of a key or token: its SHA-256 (256 random bits need no slow hash)."""
    return hashlib.sha256(text.encode()).hexdigest()


def link_token(secret: bytes, purpose: str, uid: str, until: datetime) -> str:
    """Return what a link carries to be let in: for one purpose and object, until a moment."""
    end = int(until.timestamp())
    return f"{end}.{_seal(secret, purpose, uid, end)}"


def check_link(secret: bytes, purpose: str, uid: str, token: str, now: datetime) -> None:
    """Raise KeyMissing where a link's token is not one of ours for this purpose and object, or its time is over."""
    end, _, seal = token.partition(".")
    if not end.isascii() or not end.isdigit() or len(end) > 12:
        raise KeyMissing("the link's token is missing or damaged")
    if not hmac.compare_digest(seal.encode(), _seal(secret, purpose, uid, int(end)).encode()):
        raise KeyMissing("the link's token is not one of ours, or of another link")
    if int(end) <= now.timestamp():
        raise KeyMissing("the link is over; ask for a new one with GET")


def _seal(secret: bytes, purpose: str, uid: str, end: int) -> str:
    text = "\x1f".join(("link", purpose, uid, str(end)))
    return base64.urlsafe_b64encode(hmac.digest(secret, text.encode(), "sha256")).decode().rstrip("=")


def _csrf(token: str) -> str:
    return hmac.digest(token.encode(), b"form", "sha256").hex()


class Keyring:
    """Knows every key and session; answers are remembered for a few seconds, so a revocation takes that long."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings
        self._known: dict[str, tuple[float, Principal]] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Bring the admin key of the settings into force, and revoke the one that it replaces."""
        given = self._settings.admin_key
        with self._database.writing() as session:
            rows = session.scalars(
                select(ApiKeyRow).where(ApiKeyRow.name == ADMIN, ApiKeyRow.revoked_at.is_(None))
            ).all()
            wanted = digest(given.get_secret_value()) if given is not None else None
            for row in rows:
                if row.digest != wanted:
                    row.revoked_at = self._clock.now()
            if given is None or wanted is None or any(row.digest == wanted for row in rows):
                return
            known = session.scalar(select(ApiKeyRow).where(ApiKeyRow.digest == wanted))
            if known is not None:
                known.revoked_at = None
                return
            self._store(session, given.get_secret_value(), ADMIN, EVERY_SCOPE, None, None)

    def create(
        self,
        session: Session,
        name: str,
        scopes: Iterable[Scope],
        models: Iterable[str] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKeyRow, str]:
        """Make a key in a writing session; return its row and its text, which is shown once and kept nowhere."""
        text = PREFIX + secrets.token_urlsafe(32)
        return self._store(session, text, name, frozenset(scopes), models, expires_at), text

    def make(self, name: str, scopes: Iterable[Scope] = EVERY_SCOPE, models: Iterable[str] | None = None) -> str:
        """Make a key on the command line's behalf and return its text."""
        with self._database.writing() as session:
            row, text = self.create(session, name, scopes, models)
            session.add(
                AuditRow(
                    at=self._clock.now(), actor="command line", action="key.create", object=f"keys/{row.uid}", detail={}
                )
            )
            return text

    def _store(
        self,
        session: Session,
        text: str,
        name: str,
        scopes: frozenset[Scope],
        models: Iterable[str] | None,
        expires_at: datetime | None,
    ) -> ApiKeyRow:
        row = ApiKeyRow(
            uid=new_id(),
            name=name,
            digest=digest(text),
            prefix=text[:8] if text.startswith(PREFIX) else "",
            scopes=sorted(scopes),
            models=None if models is None else sorted(models),
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        session.add(row)
        session.flush()
        return row

    def forget(self) -> None:
        """Drop what is remembered, after a key or session was revoked here."""
        with self._lock:
            self._known.clear()

    def authenticate(self, authorization: str | None, *, basic: bool = True) -> Principal:
        """Return who holds the key of an Authorization header: Bearer, or Basic with the key as its password."""
        text = _key_of(authorization, basic=basic)
        if text is None:
            raise KeyMissing("send a key: Authorization: Bearer plk_…", headers=CHALLENGE)
        return self._remembered(digest(text)) or self._of_key(text)

    def known(self, authorization: str | None, token: str | None, *, basic: bool = True) -> Principal | None:
        """Return the holder of a key or session seen in the last few seconds, without asking the database."""
        if authorization is not None:
            text = _key_of(authorization, basic=basic)
            return None if text is None else self._remembered(digest(text))
        return self._remembered(digest("session:" + token)) if token else None

    def session(self, token: str | None) -> Principal:
        """Return who a browser session belongs to; one made with a key ends with that key."""
        if not token or len(token) > 256:
            raise KeyMissing("sign in first", headers=CHALLENGE)
        mark = digest("session:" + token)
        if (known := self._remembered(mark)) is not None:
            return known
        now = self._clock.now()
        with self._database.reading() as session:
            row = session.scalar(select(SessionRow).where(SessionRow.digest == mark, SessionRow.link.is_(False)))
            if row is None or not hmac.compare_digest(row.digest, mark) or row.expires_at <= now:
                raise KeyMissing("the session has ended; sign in again", headers=CHALLENGE)
            if row.api_key_id is None:
                principal = Principal(row.name, _scopes(row.scopes), _models(row.models))
            else:
                key = session.get(ApiKeyRow, row.api_key_id)
                if key is None or not _in_force(key, now):
                    raise KeyMissing("the key of this session was revoked", headers=CHALLENGE)
                principal = _principal(key)
        return self._remember(mark, replace(principal, csrf=_csrf(token)))

    def sign_in(self, key: str) -> str:
        """Return the token of a new session for the holder of a key."""
        principal = self._of_key(key.strip())
        with self._database.writing() as session:
            return self._open(session, principal)

    def sign_in_link(
        self, name: str = "link", scopes: Iterable[Scope] = EVERY_SCOPE, valid: timedelta = LINK_AGE
    ) -> str:
        """Return the token of a link that signs a browser in, once."""
        token = secrets.token_urlsafe(32)
        now = self._clock.now()
        with self._database.writing() as session:
            session.add(
                SessionRow(
                    digest=digest("link:" + token),
                    link=True,
                    name=name,
                    scopes=sorted(scopes),
                    created_at=now,
                    expires_at=now + valid,
                )
            )
        return token

    def redeem(self, token: str) -> str:
        """Use up a sign-in link and return the token of the session it opens."""
        now = self._clock.now()
        mark = digest("link:" + token)
        with self._database.writing() as session:
            spent = session.execute(
                update(SessionRow)
                .where(
                    SessionRow.digest == mark,
                    SessionRow.link.is_(True),
                    SessionRow.used_at.is_(None),
                    SessionRow.expires_at > now,
                )
                .values(used_at=now)
                .returning(SessionRow.name, SessionRow.scopes, SessionRow.models)
            ).first()
            if spent is None:
                raise KeyMissing("this sign-in link is unknown, expired or was used already", headers=CHALLENGE)
            return self._open(session, Principal(spent.name, _scopes(spent.scopes), _models(spent.models)))

    def sign_out(self, token: str) -> None:
        """End a session."""
        with self._database.writing() as session:
            session.execute(
                update(SessionRow)
                .where(SessionRow.digest == digest("session:" + token))
                .values(expires_at=self._clock.now())
            )
        self.forget()

    def _open(self, session: Session, principal: Principal) -> str:
        token = secrets.token_urlsafe(32)
        now = self._clock.now()
        session.execute(delete(SessionRow).where(SessionRow.expires_at < now - SESSION_AGE))
        session.add(
            SessionRow(
                digest=digest("session:" + token),
                link=False,
                name=principal.name,
                scopes=sorted(principal.scopes),
                models=None if principal.models is None else sorted(principal.models),
                api_key_id=principal.key_id,
                created_at=now,
                expires_at=now + SESSION_AGE,
            )
        )
        return token

    def _of_key(self, text: str) -> Principal:
        mark = digest(text)
        with self._database.reading() as session:
            row = session.scalar(select(ApiKeyRow).where(ApiKeyRow.digest == mark))
        # The index finds a digest, of which no guess of a key says anything; comparing again costs nothing.
        if row is None or not hmac.compare_digest(row.digest, mark) or not _in_force(row, self._clock.now()):
            raise KeyMissing("the key is unknown, expired or revoked", headers=CHALLENGE)
        return self._remember(mark, _principal(row))

    def _remembered(self, mark: str) -> Principal | None:
        with self._lock:
            found = self._known.get(mark)
        return found[1] if found is not None and self._clock.monotonic() < found[0] else None

    def _remember(self, mark: str, principal: Principal) -> Principal:
        with self._lock:
            if len(self._known) >= CACHED:
                self._known.clear()
            self._known[mark] = (self._clock.monotonic() + CACHE_SECONDS, principal)
        return principal


def _key_of(authorization: str | None, *, basic: bool) -> str | None:
    if not authorization or len(authorization) > 1024:
        return None
    kind, _, rest = authorization.partition(" ")
    if kind.lower() == "bearer":
        return rest.strip() or None
    if kind.lower() == "basic" and basic:
        try:
            pair = base64.b64decode(rest.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        return pair.partition(":")[2] or None
    return None


def _in_force(row: ApiKeyRow, now: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > now)


def _scopes(names: Iterable[str]) -> frozenset[Scope]:
    return frozenset(Scope(name) for name in names)


def _models(names: Iterable[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _principal(row: ApiKeyRow) -> Principal:
    return Principal(row.name, _scopes(row.scopes), _models(row.models), row.id)
