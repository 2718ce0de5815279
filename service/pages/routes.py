"""The routes of the pages: each at its path as HTML, and beside it at path + ``.json`` as the same data."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from dashboards.page import Frame, Links, Page
from dashboards.sign_in import LinkPage, ProblemPage, SignInPage
from service.access import COOKIE, SESSION_AGE
from service.api import jobs as long_work
from service.api import webhooks as called
from service.api.depends import Operator, Parts, Reader, RowReader
from service.assembly import Assembly
from service.pages import (
    alerts,
    arrivals,
    drift,
    explain,
    fairness,
    fleet,
    jobs,
    overview,
    performance,
    quality,
    retrainings,
    watches,
    webhooks,
)
from service.pages.assets import by_address
from service.pages.visit import Visit, addresses, theme_of
from service.problems import KeyMissing, NotFound

router = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def shown(page: Page, status: int = 200) -> Response:
    """Return a page as HTML with the headers that every page has."""
    return HTMLResponse(page.html(), status_code=status, headers=dict(HEADERS))


def page_at(path: str, twin: str, reader: Any = Reader) -> Callable[[Callable[..., Page]], Callable[..., Page]]:
    """Serve what a function builds at a path as HTML, and at its twin's path as JSON, to those who may see it."""

    def register(build: Callable[..., Page]) -> Callable[..., Page]:
        def made(request: Request, parts: Assembly, principal: Any) -> Page:
            with parts.database.reading() as session:
                return build(Visit(request, parts, principal, session), **request.path_params)

        def html(request: Request, parts: Parts, principal: reader) -> Response:
            return shown(made(request, parts, principal))

        def json(request: Request, parts: Parts, principal: reader) -> Response:
            page = made(request, parts, principal)
            return JSONResponse(page.document(), headers={"Cache-Control": "no-store"})

        router.add_api_route(twin, json, methods=["GET"], name=f"{build.__name__}_json")
        router.add_api_route(path, html, methods=["GET"], name=build.__name__)
        return build

    return register


@page_at("/", "/fleet.json")
def fleet_page(visit: Visit) -> Page:
    """Serve the fleet page."""
    return fleet.build(visit)


@page_at("/webhooks", "/webhooks.json")
def webhooks_page(visit: Visit) -> Page:
    """Serve who is told and what did not arrive."""
    return webhooks.build(visit)


@page_at("/jobs", "/jobs.json")
def jobs_page(visit: Visit) -> Page:
    """Serve how far long work is."""
    return jobs.build(visit)


@page_at("/models/{model}", "/models/{model}.json")
def overview_page(visit: Visit, model: str) -> Page:
    """Serve the overview of a model."""
    return overview.build(visit, model)


@page_at("/models/{model}/drift", "/models/{model}/drift.json")
def drift_page(visit: Visit, model: str) -> Page:
    """Serve the drift of a model's columns."""
    return drift.build(visit, model)


@page_at("/models/{model}/performance", "/models/{model}/performance.json")
def performance_page(visit: Visit, model: str) -> Page:
    """Serve how well a model's predictions met the ground truth."""
    return performance.build(visit, model)


@page_at("/models/{model}/quality", "/models/{model}/quality.json")
def quality_page(visit: Visit, model: str) -> Page:
    """Serve the quality of a model's data."""
    return quality.build(visit, model)


@page_at("/models/{model}/results", "/models/{model}/results.json")
def results_page(visit: Visit, model: str) -> Page:
    """Serve what the monitors found that have no page of their own."""
    return quality.build(visit, model, quality.RESULTS)


@page_at("/models/{model}/fairness", "/models/{model}/fairness.json")
def fairness_page(visit: Visit, model: str) -> Page:
    """Serve how groups of people fare."""
    return fairness.build(visit, model)


@page_at("/models/{model}/alerts", "/models/{model}/alerts.json")
def alerts_page(visit: Visit, model: str) -> Page:
    """Serve the episodes of a model."""
    return alerts.build(visit, model)


@page_at("/models/{model}/monitors", "/models/{model}/monitors.json")
def monitors_page(visit: Visit, model: str) -> Page:
    """Serve what is watched of a model."""
    return watches.build(visit, model)


@page_at("/models/{model}/retraining", "/models/{model}/retraining.json")
def retraining_page(visit: Visit, model: str) -> Page:
    """Serve when a model is retrained and what was asked for."""
    return retrainings.build(visit, model)


@page_at("/models/{model}/data", "/models/{model}/data.json")
def data_page(visit: Visit, model: str) -> Page:
    """Serve what arrived for a model."""
    return arrivals.build(visit, model)


@page_at("/models/{model}/explain", "/models/{model}/explain.json")
def explain_page(visit: Visit, model: str) -> Page:
    """Serve what a model's predictions rest on, and why one came out as it did."""
    return explain.build(visit, model)


@page_at("/explanations/{explanation}", "/explanations/{explanation}.json", RowReader)
def explanation_page(visit: Visit, explanation: str) -> Page:
    """Serve an explanation to print."""
    return explain.sheet(visit, explanation)


@page_at("/alerts/{alert}", "/alerts/{alert}.json")
def alert_page(visit: Visit, alert: str) -> Page:
    """Serve one episode."""
    return alerts.one(visit, alert)


@router.post("/alerts/{alert}/resend")
def resend(alert: str, request: Request, parts: Parts, principal: Operator) -> Response:
    """Owe a delivery once more and show the alert again."""
    form = _form(request)
    alerts.resend(parts, principal, alert, form.get("delivery", ""), form.get("webhook", ""))
    return RedirectResponse(_links(parts).alert(alert), status_code=303)


@router.post("/alerts/{alert}/{action}")
def act(alert: str, action: str, request: Request, parts: Parts, principal: Operator) -> Response:
    """Acknowledge, resolve, mute or comment on an alert and show it again."""
    alerts.act(parts, principal, alert, action, _form(request))
    return RedirectResponse(_links(parts).alert(alert), status_code=303)


@router.post("/webhooks/{webhook}/resend")
def resend_call(webhook: str, request: Request, parts: Parts, principal: Operator) -> Response:
    """Owe a call once more and show the webhooks again."""
    webhooks.resend(parts, principal, webhook, _form(request).get("delivery", ""))
    return RedirectResponse(_links(parts).to("/webhooks"), status_code=303)


@router.post("/webhooks/{webhook}/test")
def test_webhook(webhook: str, parts: Parts, principal: Operator) -> Response:
    """Send a test and show the webhooks again."""
    called.test(webhook, parts, principal)
    return RedirectResponse(_links(parts).to("/webhooks"), status_code=303)


@router.post("/jobs/{job}/cancel")
def cancel_job(job: str, request: Request, parts: Parts, principal: Operator) -> Response:
    """Ask a job to stop and show the jobs again."""
    long_work.cancel(job, request, parts, principal)
    return RedirectResponse(_links(parts).to("/jobs"), status_code=303)


@router.post("/retrainings/{retraining}/{action}")
def decide(retraining: str, action: str, parts: Parts, principal: Operator) -> Response:
    """Do what somebody decided about a retraining and show the model's again."""
    model = retrainings.decide(parts, principal, retraining, action)
    return RedirectResponse(_links(parts).model(model, "retraining"), status_code=303)


# --- signing in -------------------------------------------------------------------------------------------------------


@router.get("/sign-in")
def sign_in_page(request: Request, parts: Parts, next: str = "/") -> Response:  # noqa: A002 - the name in the address
    """Ask for a key."""
    return shown(SignInPage(frame=_door_frame(request, parts), title="Sign in", next_path=inside(next)))


@router.post("/sign-in")
def sign_in(request: Request, parts: Parts) -> Response:
    """Open a session for the holder of a key."""
    form = _form(request)
    target = inside(form.get("next", "/"))
    try:
        token = parts.keyring.sign_in(form.get("key", ""))
    except KeyMissing:
        error = "This key is unknown, expired or revoked."
        page = SignInPage(frame=_door_frame(request, parts), title="Sign in", error=error, next_path=target)
        return shown(page, 401)
    return _opened(parts, token, target)


@router.get("/sign-in/{token}")
def link_page(token: str, request: Request, parts: Parts) -> Response:
    """Ask whether to use a link; asking does not spend it, so a preview of the address does no harm."""
    page = LinkPage(
        frame=_door_frame(request, parts), title="Sign in to Plumbline", action=_links(parts).to(f"/sign-in/{token}")
    )
    return shown(page)


@router.post("/sign-in/{token}")
def redeem(token: str, request: Request, parts: Parts) -> Response:
    """Use up a link and open its session."""
    try:
        session = parts.keyring.redeem(token)
    except KeyMissing as problem:
        error = f"{problem.detail[:1].upper()}{problem.detail[1:]}."
        return shown(LinkPage(frame=_door_frame(request, parts), title="This link does not work", error=error), 401)
    return _opened(parts, session, "/")


@router.post("/sign-out")
def sign_out(request: Request, parts: Parts, principal: Reader) -> Response:  # noqa: ARG001 - the gate asks for it
    """End the session."""
    if token := request.cookies.get(COOKIE):
        parts.keyring.sign_out(token)
    answer = RedirectResponse(_links(parts).to("/sign-in"), status_code=303)
    answer.delete_cookie(COOKIE, path=_links(parts).root or "/")
    return answer


def inside(path: str) -> str:
    """Return a path of our own to go to; anything that could leave the site becomes the fleet page."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and all(c.isprintable() for c in path)
    return path if ours else "/"


def _opened(parts: Assembly, token: str, target: str) -> Response:
    links = _links(parts)
    root = links.root
    answer = RedirectResponse(target if root and target.startswith(f"{root}/") else links.to(target), status_code=303)
    answer.set_cookie(
        COOKIE,
        token,
        max_age=int(SESSION_AGE.total_seconds()),
        path=root or "/",
        secure=parts.settings.public_url.startswith("https:"),
        httponly=True,
        samesite="lax",
    )
    return answer


def _links(parts: Assembly) -> Links:
    return Links(urlsplit(parts.settings.public_url).path.rstrip("/"))


def _form(request: Request) -> dict[str, str]:
    form = getattr(request.state, "form", {})
    return form if isinstance(form, dict) else {}


def _door_frame(request: Request, parts: Assembly) -> Frame:
    """Return the frame of pages that nobody has signed in for: it names no model and nobody."""
    links = _links(parts)
    return Frame(
        now=parts.clock.now(),
        public_url=parts.settings.public_url,
        path=request.url.path,
        software=parts.software,
        theme=theme_of(request),
        links=links,
        assets=addresses(links),
    )


def problem_page(request: Request, document: Mapping[str, Any]) -> Response:
    """Return a problem as a page for browsers."""
    parts: Assembly = request.app.state.assembly
    page = ProblemPage(
        frame=_door_frame(request, parts),
        title=str(document["title"]),
        status=int(document["status"]),
        detail=str(document.get("detail", "")),
        request_id=str(document.get("request_id", "")),
    )
    return shown(page, page.status)


# --- static files -----------------------------------------------------------------------------------------------------


@router.get("/static/{name}")
def static(name: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
    """Serve a static file under the name that carries its hash: compressed, and never asked for again."""
    asset = by_address().get(name)
    if asset is None:
        raise NotFound(f"there is no static file {name!r}")
    encoding, content = asset.chosen(accept_encoding)
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if encoding != "identity":
        headers["Content-Encoding"] = encoding
    return Response(content, media_type=asset.kind, headers=headers)


@router.get("/favicon.ico")
def favicon(parts: Parts) -> Response:
    """Point browsers that ask by habit to the mark."""
    return RedirectResponse(addresses(_links(parts))["favicon.svg"], status_code=301)
