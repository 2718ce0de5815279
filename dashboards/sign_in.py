"""The sign-in page, by key or by a link that works once, and the page that says what went wrong."""

from dataclasses import dataclass
from typing import ClassVar

from dashboards.page import Page, unseen


@dataclass(frozen=True, kw_only=True)
class SignInPage(Page):
    """Asks for a key."""

    template: ClassVar[str] = "sign_in.html"
    error: str = ""
    next_path: str = "/"


@dataclass(frozen=True, kw_only=True)
class LinkPage(Page):
    """Asks whether to use a one-time link, so that a preview of the address does not spend it."""

    template: ClassVar[str] = "link.html"
    action: str = unseen()
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class ProblemPage(Page):
    """What failed, how to name it to somebody, and where to go on."""

    template: ClassVar[str] = "problem.html"
    status: int
    detail: str
    request_id: str = ""
