"""Processes end when they are asked to: not ready first, then what is under way, then quietly."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import httpx2
import pytest

from service.cli.main import app
from tests.conftest import ADMIN_KEY
from tests.faults.processes import FORK
from tests.running import PATIENCE, ROOT, Service


def test_after_sigterm_it_is_not_ready_first_serves_a_moment_longer_and_ends_within_thirty_seconds(
    tmp_path: Path,
) -> None:
    # Two seconds are enough to see it, but where the machine is slow.
    assert any(ends_well(tmp_path / f"{drain}", drain) for drain in (2, 10, 25))


def ends_well(folder: Path, drain: int) -> bool:
    """End a service that serves so many seconds longer; return whether it was seen serving when it was not ready."""
    began, stopping, taken = time.monotonic(), False, 0
    with Service.started(folder, admin_key=ADMIN_KEY, PLUMBLINE_DRAIN_SECONDS=f"{drain}") as running:
        assert running.process is not None
        to_start = time.monotonic() - began
        with running.client() as client:
            assert client.post("/v1/models", json={"name": "m", "task": "binary"}).status_code == 201
            assert client.get("/readyz").status_code == 200
            running.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            with suppress(httpx2.TransportError):  # the socket is closed in the end, between two requests
                while not stopping:
                    answer = client.get("/readyz")
                    stopping = answer.status_code == 503
                    assert stopping or answer.status_code == 200
                assert answer.json()["reasons"] == ["the service is stopping"]
                while True:
                    sent = [{"prediction_id": f"p{taken}", "prediction": 1}]
                    assert client.post("/v1/models/m/predictions", json=sent).status_code in (200, 503)
                    taken += 1
        assert running.process.wait(PATIENCE) == 0
        assert time.monotonic() - began < max(30, 10 * to_start)  # two seconds to start, thirty to end
        assert "Traceback" not in running.log.read_text()
    return stopping and taken > 0


def be_a_worker(folder: Path, said: Connection) -> None:
    """Be `plumbline worker`, whatever it says on its standard error put into a pipe."""
    sys.stderr = os.fdopen(os.dup(said.fileno()), "w", buffering=1)
    app(["worker", "--data", str(folder)])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_ends_when_it_is_asked_to(tmp_path: Path, number: signal.Signals) -> None:
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=be_a_worker, args=(tmp_path, there), daemon=True)
    process.start()
    there.close()
    with os.fdopen(os.dup(here.fileno())) as said:
        assert said.readline() == "Plumbline works: sealer, scheduler, worker, sender\n"
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(PATIENCE)
    assert process.exitcode == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("serve", "--roles", "sealer"), "`plumbline worker` does the other roles"),
        (("worker", "--roles", "api,sealer"), "`plumbline serve` has the role api"),
        (("worker", "--roles", "sealor"), "there is no role 'sealor'"),
    ],
)
def test_roles_that_make_no_sense_are_refused_with_a_sentence(
    tmp_path: Path, command: tuple[str, ...], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service.cli.main", *command, "--data", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
