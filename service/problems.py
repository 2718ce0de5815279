"""Errors as sentences with a status: what a caller reads when something cannot be done (RFC 9457)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one place of a body."""

    pointer: str
    code: str
    detail: str


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """Something cannot be done; subclasses say what, by status and title."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"

    def __init__(
        self,
        detail: str = "",
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})
        self.members = members

    @property
    def code(self) -> str:
        """The problem's name in lower case with hyphens, the last part of its type."""
        name = type(self).__name__
        return "".join(("-" if c.isupper() and i else "") + c.lower() for i, c in enumerate(name))

    def document(self) -> dict[str, object]:
        """Return the members of the problem document that do not depend on the request."""
        body: dict[str, object] = {"type": f"/docs/problems#{self.code}", "title": self.title, "status": self.status}
        if self.detail:
            body["detail"] = self.detail
        if self.faults:
            body["errors"] = [asdict(fault) for fault in self.faults]
        return body | self.members


class BadRequest(Problem):
    """The body or a parameter cannot be read."""

    status, title = 400, "The request cannot be read"


class KeyMissing(Problem):
    """No key, or one that is not known."""

    status, title = 401, "A valid key is needed"


class ScopeMissing(Problem):
    """The key is known and may not do this."""

    status, title = 403, "The key's scopes do not allow this"


class NotFound(Problem):
    """There is no such thing, or the key may not know of it."""

    status, title = 404, "There is no such thing"


class Conflict(Problem):
    """The state of things does not allow this."""

    status, title = 409, "The state does not allow this"


class Stale(Problem):
    """If-Match names another revision than the current one."""

    status, title = 412, "It was changed in the meantime"


class TooLarge(Problem):
    """The body exceeds a limit, which the detail names."""

    status, title = 413, "The body is too large"


class MediaTypeUnknown(Problem):
    """The body's media type or encoding is not one that is read here."""

    status, title = 415, "The media type is not supported"


class Unprocessable(Problem):
    """The body was read and asks for something that makes no sense."""

    status, title = 422, "The request makes no sense"


class Overloaded(Problem):
    """Too much is waiting already."""

    status, title = 429, "Too much is waiting"


class Unavailable(Problem):
    """A part of the service is not there at the moment."""

    status, title = 503, "The service cannot answer now"


class StorageFull(Problem):
    """The disk has no room for more records."""

    status, title = 507, "The disk is full"


class BaselineMissing(Conflict):
    """A monitor was started for a version that has no baseline."""

    title = "The model version has no baseline"
