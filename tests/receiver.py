"""A receiver of webhooks that believes nothing: every body is verified against the signing secret."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from tests.running import PATIENCE


@dataclass
class Receiver:
    """An HTTP server on this host that keeps what was posted to it."""

    url: str
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    status: int = 204
    """What it answers."""

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator["Receiver"]:
        """Listen on a free port until the end of the block."""
        receiver = cls("")

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                receiver.calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def events(self, secret: str, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the bodies received, however long ago; raises where one is not signed with the secret."""
        webhook = Webhook(secret)
        bodies: list[dict[str, Any]] = []
        for headers, body in list(self.calls):
            at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
            signed = webhook.sign(headers["webhook-id"], at, body.decode())
            if signed not in headers["webhook-signature"].split(" "):
                raise WebhookVerificationError("the signature is wrong")
            bodies.append(json.loads(body))
        return [body for body in bodies if kind is None or body["type"] == kind]

    def wait(self, number: int = 1) -> None:
        """Wait until so many calls have come."""
        deadline = time.monotonic() + PATIENCE
        while len(self.calls) < number:
            assert time.monotonic() < deadline, f"{len(self.calls)} of {number} calls came"
            time.sleep(0.05)
