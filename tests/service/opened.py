"""The application in this process, shared by the tests of a module."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.access import Scope
from service.app import create_app
from service.assembly import Assembly
from service.clock import Clock
from service.scheduler import Scheduler
from service.settings import Settings
from tests.running import UNHURRIED
from tests.service.empty import copy_empty

ADMIN_KEY = "plk_test_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"


@contextmanager
def opened(folder: Path, clock: Clock | None = None, **changes: Any) -> Iterator[TestClient]:
    """Open the application on an empty data folder; the client carries the admin key."""
    settings = Settings(data_dir=folder, admin_key=SecretStr(ADMIN_KEY), roles=("api",), **changes)
    if settings.database_url is None:
        copy_empty(folder / "plumbline.db")
    headers = bearer(ADMIN_KEY) | UNHURRIED
    with TestClient(create_app(settings, clock), raise_server_exceptions=False, headers=headers) as client:
        yield client


def parts_of(client: TestClient) -> Assembly:
    """Return what the application behind a client is made of."""
    assert isinstance(client.app, FastAPI)
    parts: Assembly = client.app.state.assembly
    return parts


def scheduler_of(client: TestClient) -> Scheduler:
    """Return the scheduler of the application behind a client."""
    assert isinstance(client.app, FastAPI)
    scheduler: Scheduler = client.app.state.scheduler
    return scheduler


def bearer(key: str) -> dict[str, str]:
    """Return the header that sends a key."""
    return {"Authorization": f"Bearer {key}"}


def key_of(client: TestClient, *scopes: Scope, models: list[str] | None = None) -> dict[str, str]:
    """Make a key and return the header that sends it."""
    body = {"name": "test", "scopes": [scope.value for scope in scopes], "models": models}
    answer = client.post("/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["key"])
