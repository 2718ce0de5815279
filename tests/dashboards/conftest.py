"""The pages of the samples behind a small server with the real headers, for a browser to open."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Page

from service.pages.assets import assets
from service.pages.routes import HEADERS
from tests.dashboards import samples


@cache
def _content(theme: str, name: str) -> bytes | None:
    hostile = {"hostile": samples.hostile_drift, "hostile-overlay": samples.hostile_overlay}
    page = hostile[name](theme) if name in hostile else samples.every_page(theme).get(name)
    return None if page is None else page.html().encode()


class Handler(BaseHTTPRequestHandler):
    """Answers ``/{theme}/{name}`` with a sample page and ``/static/0/{name}`` with a static file."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/static/0/"):
            asset = assets()[path.removeprefix("/static/0/")]
            self._answer(asset.encodings["identity"], asset.kind, {"Cache-Control": "max-age=3600"})
            return
        theme, _, name = path.removeprefix("/").partition("/")
        content = _content(theme, name)
        if content is None:
            self.send_error(404)
            return
        self._answer(content, "text/html; charset=utf-8", dict(HEADERS))

    def _answer(self, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that is overridden
        """Say nothing."""


@pytest.fixture(scope="session")
def gallery() -> Iterator[str]:
    """Serve the sample pages and return the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass
class Watch:
    """What a browser page complained about, and where it asked."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def on(self, page: Page) -> "Watch":
        """Listen to a page."""
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

        def refuse(dialog: Any) -> None:
            self.dialogs.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", refuse)
        page.add_init_script(
            "window.violations = [];"
            "document.addEventListener('securitypolicyviolation', e => window.violations.push(e.violatedDirective));"
        )
        return self

    def forget(self) -> None:
        """Begin anew."""
        for kept in (self.errors, self.requests, self.dialogs):
            kept.clear()


def drawn(page: Page, address: str) -> None:
    """Open an address and wait until its charts are drawn."""
    page.goto(address)
    page.wait_for_function("document.documentElement.dataset.ready === '1'")
