"""The application: routes found in `service.api` and `service.pages`, parts made from the settings."""

import pkgutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec

from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig

import service.api
import service.pages
from service.api import depends, problems
from service.assembly import assemble
from service.clock import Clock
from service.pages.routes import problem_page
from service.problems import Problem
from service.scheduler import working
from service.settings import Settings, software

NOT_TRACED: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""Where OpenTelemetry's SDK is not installed nothing can take in traces, and to ask that costs each request 5 %."""


def routers() -> Iterator[APIRouter]:
    """Yield the router of every module of `service.api` and `service.pages` that has one."""
    for package in (service.api, service.pages):
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
            router = getattr(import_module(f"{package.__name__}.{module.name}"), "router", None)
            if isinstance(router, APIRouter):
                yield router


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    """Run the parts while the application runs: the log first, then what works in the background."""
    try:
        with working(app.state.assembly) as scheduler:
            app.state.scheduler = scheduler
            yield
    except Problem as refusal:
        app.state.refusal = refusal
        raise


def create_app(settings: Settings | None = None, clock: Clock | None = None) -> FastAPI:
    """Return the application with everything it needs; nothing runs before its lifespan begins."""
    app = FastAPI(
        title="Plumbline",
        summary="Self-hosted model monitoring with an alarm budget that is kept.",
        version=software(),
        lifespan=_running,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=None if find_spec("opentelemetry.sdk") else NOT_TRACED,
    )
    app.state.assembly = assemble(settings or Settings(), clock)
    app.state.error_page = problem_page
    problems.install(app)
    depends.install(app)
    for router in routers():
        app.router.routes.extend(router.routes)  # as they are: `include_router` would build each a second time
    return app
