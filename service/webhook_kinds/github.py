"""GitHub's repository_dispatch: an event starts the workflows of a repository that listen to it."""

from collections.abc import Mapping
from typing import Any, ClassVar

import httpx2
from pydantic import Field, SecretStr

from service.outbound import AddressNotAllowed, Guard
from service.webhook_kinds.contract import Credentials, Options, Owed, Post, PostingKind, encoded


class Token(Credentials):
    """A token that may write the contents of the repository."""

    token: SecretStr = Field(min_length=1, max_length=1000)


class Dispatch(Options):
    """How the workflow knows the event."""

    event_type: str = Field("", max_length=100, description="`event_type` of the dispatch; default: ours.")


class GitHubDispatch(PostingKind):
    """A ``repository_dispatch`` of a GitHub repository: ``client_payload`` holds the event, its id and its data.

    GitHub knows no idempotency: a call whose answer was lost comes twice, with the same ``client_payload.id``.
    """

    name: ClassVar[str] = "github"
    source: ClassVar[str] = "GitHub REST API 2022-11-28, POST /repos/{owner}/{repo}/dispatches"
    options: ClassVar[type[Options]] = Dispatch
    credentials: ClassVar[type[Credentials]] = Token
    example: ClassVar[Mapping[str, Any]] = {
        "url": "https://api.github.com/repos/acme/credit-risk/dispatches",
        "events": ["retraining.requested"],
        "credentials": {"token": "github_pat_…"},
    }

    def check(self, guard: Guard, url: str, options: Mapping[str, Any]) -> None:
        """Refuse what is not the address of a repository's dispatches."""
        super().check(guard, url, options)
        if not httpx2.URL(url).path.endswith("/dispatches"):
            raise AddressNotAllowed("the address of a dispatch ends with /repos/{owner}/{repo}/dispatches")

    def request(self, owed: Owed) -> Post:
        """Return the dispatch; GitHub takes at most ten members at the top of the payload, so the data is one."""
        payload = {"id": owed.uid, **owed.document}
        event_type = owed.options.get("event_type") or owed.event
        headers = {
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
            "authorization": f"Bearer {owed.credentials['token']}",
        }
        body = encoded({"event_type": event_type, "client_payload": payload})
        return Post(url=owed.url, body=body, headers=headers)
