"""`plumbline demo`: a service in this process, filled with the demonstration through its own HTTP interface."""

import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from socket import socket

from rich.console import Console

from service import demo, replay
from service.access import Scope
from service.assembly import Assembly
from service.cli import serving
from service.cli.listening import address
from service.settings import Settings

KEY_NAME = "demonstration"
FILLING = timedelta(hours=1)
"""How long the key is good for that the filling uses."""


class DemonstrationFailed(RuntimeError):  # noqa: N818 - read as a sentence, like the problems
    """The service did not start, or could not be filled."""


def run(settings: Settings, listening: socket, *, days: int, once: bool, out: Console) -> None:
    """Serve and fill until a signal ends it; with `once` until it is filled. Filling again changes nothing."""
    failures: list[str] = []

    def announce(assembly: Assembly, stop: Callable[[], None]) -> None:
        threading.Thread(target=fill, args=(assembly, stop), name="demonstration", daemon=True).start()

    def fill(assembly: Assembly, stop: Callable[[], None]) -> None:
        try:
            first = serving.first_key(assembly)
            scopes = [Scope.INGEST, Scope.READ, Scope.CONFIGURE, Scope.OPERATE]
            with assembly.database.writing() as session:
                until = assembly.clock.now() + FILLING
                _, key = assembly.keyring.create(session, KEY_NAME, scopes, expires_at=until)
            out.print(f"Filling in {days} days of predictions and late ground truth …", markup=False)
            yesterday = (assembly.clock.now() - timedelta(days=1)).date()
            with replay.Client(address(listening), key) as client:
                fresh = demo.fill(client, yesterday, out, days)
            if not fresh:
                out.print("The demonstration was filled in before; nothing was sent.", markup=False)
            out.print(f"Plumbline answers at {address(listening)}", markup=False)
            out.print(f"Sign in, once, within a day: {serving.sign_in_url(assembly)}", markup=False)
            if first:
                out.print(f"A key for the API, shown once: {first}", markup=False)
            if not once:
                out.print("Stop it with Ctrl-C; `make demo` goes on from here.", markup=False)
            else:
                stop()
        except (replay.Refused, replay.MakesNoSense) as error:
            failures.append(str(error))
            stop()
        except Exception as error:
            # A thread has nobody above it: without this the demonstration would hang half filled, without a word.
            failures.append(f"{type(error).__name__}: {error}")
            stop()
            raise

    answered = serving.run(settings, listening, announce, log_level="warning", log_stream=sys.stderr)
    if failures:
        raise DemonstrationFailed(f"the demonstration could not be filled in: {failures[0]}")
    if not answered:
        raise DemonstrationFailed("the service did not start; the log above says why")
