"""The worker process: what it may not do, and that its end is one failed call and nothing else."""

import ctypes
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from service.confinement import Answer
from service.worker import Crashed, Limits, TooLong, TooMuchMemory, Worker, WorkFailed, WorkRefused, network_remains
from tests.running import PATIENCE
from tests.service.opened import opened


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker(tasks="tests.service.trials")
    yield made
    made.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_documents_tables_and_files_go_there_and_back(worker: Worker) -> None:
    rows = pa.table({"x": [1.5, None], "job": pa.array(["clerk", "smith"]).dictionary_encode()})
    document, tables = worker.call("deeds.echo", {"a": [1, None]}, tables={"rows": rows}, files={"model": bytes(10**6)})
    assert document == {"document": {"a": [1, None]}, "sizes": {"model": 10**6}}
    assert tables["rows"].equals(rows)


@pytest.mark.parametrize("name", ["deeds.missing", "nothing.echo", "os.system", "deeds.os", "../deeds.echo", "deeds"])
def test_only_functions_that_a_task_module_defines_can_be_called(worker: Worker, name: str) -> None:
    with pytest.raises(WorkFailed, match="there is no task"):
        worker.call(name, {})


def test_a_crash_fails_that_call_and_nothing_else(worker: Worker) -> None:
    with pytest.raises(Crashed, match="SIGSEGV"):
        worker.call("deeds.crash", {})
    with pytest.raises(Crashed, match="status 7"):
        worker.call("deeds.leave", {})
    assert worker.call("deeds.echo", {})[0]["document"] == {}


def test_work_that_takes_too_long_is_ended(worker: Worker) -> None:
    with pytest.raises(TooLong, match="longer than the 1 s"):
        worker.call("deeds.sleep", {}, limits=Limits(seconds=1))


def test_work_that_takes_too_much_memory_is_ended(worker: Worker) -> None:
    with pytest.raises(TooMuchMemory, match="256 MiB"):
        worker.call("deeds.grow", {}, limits=Limits(resident_bytes=256 * 2**20))


def test_what_work_raises_is_the_reason(worker: Worker) -> None:
    with pytest.raises(WorkFailed, match="ArithmeticError: two and two are five"):
        worker.call("deeds.fail", {})


def test_a_refusal_comes_with_its_sentence_and_members(worker: Worker) -> None:
    with pytest.raises(WorkRefused) as caught:
        worker.call("deeds.refuse", {})
    assert caught.value.detail == "this file is a pickle"
    assert caught.value.members == {"kind": "pickle"}


def test_what_a_library_prints_is_no_answer(worker: Worker) -> None:
    assert worker.call("deeds.print_loudly", {})[0] == {"printed": True}


def test_the_environment_is_empty_but_for_what_the_worker_sets(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_DATABASE_URL", "postgresql://user:password@db/plumbline")
    names = worker.call("deeds.environment", {})[0]["names"]
    assert names["DO_NOT_TRACK"] == "1"
    assert set(names) == {
        "DO_NOT_TRACK", "HOME", "TMPDIR", "NUMBA_CACHE_DIR", "LC_ALL",
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
    }  # fmt: skip
    assert "password" not in str(names)


def test_no_socket_is_opened(worker: Worker, listening: socket.socket) -> None:
    with pytest.raises(WorkFailed, match="may not do this: socket"):
        worker.call("deeds.open_socket", {"port": listening.getsockname()[1]})


def test_no_connection_is_made_even_past_python(worker: Worker, listening: socket.socket) -> None:
    if why := network_remains():
        pytest.skip(f"this platform does not let the worker cut its network: {why}")
    port = listening.getsockname()[1]
    assert worker.call("deeds.open_socket_below_python", {"port": port})[0] == {"connected": False}
    listening.settimeout(0.2)
    with pytest.raises(TimeoutError):
        listening.accept()


def alone(folder: Path, said: Path) -> None:
    """Start the application where no process may have a network of its own, and let its worker open a socket."""
    user = os.getuid()
    if ctypes.CDLL(None).unshare(0x10000000) == 0:  # a namespace of users that may make none for a network
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/sys/user/max_net_namespaces").write_text("0")
    network_remains.cache_clear()
    with said.open("w") as output, redirect_stdout(output):
        with opened(folder, worker_stock=False):
            output.write(f"remains: {network_remains() or 'no'}\n")
        made = Worker("tests.service.trials", stock=False)
        try:
            made.call("deeds.open_socket", {"port": 9})
        except WorkFailed as failed:
            output.write(failed.detail)
        made.close()


def test_start_up_says_it_when_the_network_is_left_to_the_worker(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=alone, args=(tmp_path / "data", tmp_path / "said"))
    process.start()
    process.join()
    assert process.exitcode == 0
    said = (tmp_path / "said").read_text()
    assert "remains: " in said
    assert "remains: no" not in said
    assert "the worker process keeps the network of this one" in said
    assert "the worker process may not do this: socket" in said


def test_start_up_says_nothing_of_it_where_the_network_is_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(tmp_path):
        said = capsys.readouterr().out
    assert ("keeps the network" in said) == bool(network_remains())


def test_start_up_goes_on_where_cutting_the_network_cannot_be_tried_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(*arguments: Any, timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(arguments[0], timeout)

    monkeypatch.setattr(subprocess, "run", too_slow)
    assert network_remains.__wrapped__() == "it could not be tried within a minute"


@pytest.mark.parametrize(
    "deed", ["start_process", "call_shell", "write_file", "write_descriptor", "make_folder", "rename_out"]
)
def test_no_process_is_started_and_no_file_made_outside_the_scratch_folder(
    worker: Worker, deed: str, tmp_path: Path
) -> None:
    with pytest.raises(WorkFailed, match="the worker process may not"):
        worker.call(f"deeds.{deed}", {"path": str(tmp_path / "canary")})
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_file_has_a_greatest_size(worker: Worker) -> None:
    with pytest.raises(WorkFailed, match="File too large"):
        worker.call("deeds.write_much", {}, limits=Limits(file_bytes=2**20))


def test_work_can_ask_the_service(worker: Worker) -> None:
    def reply(document: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Answer:
        return {"times": document["of"] * 2}, {"rows": tables["rows"].slice(0, 1)}

    document, tables = worker.call("deeds.question", {}, reply=reply)
    assert document == {"answered": {"times": 4}}
    assert tables["rows"].to_pydict() == {"x": [1.0]}


def test_work_that_may_not_ask_is_told_so(worker: Worker) -> None:
    with pytest.raises(WorkRefused, match="may ask the service nothing"):
        worker.call("deeds.question", {})


def test_the_check_can_end_the_work(worker: Worker) -> None:
    def check() -> None:
        raise WorkFailed("cancelled")

    with pytest.raises(WorkFailed, match="cancelled"):
        worker.call("deeds.sleep", {}, check=check)


def test_nothing_of_a_process_remains_after_its_work(worker: Worker) -> None:
    first = Path(worker.call("deeds.environment", {})[0]["names"]["HOME"])
    second = Path(worker.call("deeds.environment", {})[0]["names"]["HOME"])
    assert first != second
    assert not first.exists()
    assert not second.exists()


def test_what_one_process_needed_the_next_has_and_what_it_did_the_next_has_not(worker: Worker) -> None:
    first = worker.call("deeds.remember", {"secret": "of the first"})[0]
    assert (first["held"], first["loaded"]) == (["of the first"], False)
    second = worker.call("deeds.remember", {"secret": "of the second"})[0]
    assert (second["held"], second["loaded"]) == (["of the second"], True)


def test_a_process_holds_nothing_but_its_own_ends_of_its_pipes(worker: Worker) -> None:
    assert worker.call("deeds.descriptors", {})[0] == {"sockets": 0, "pipes": 4}  # 1 and 2 are stderr, 2 to and fro


def test_the_end_of_the_template_is_one_failed_call(worker: Worker) -> None:
    with pytest.raises(Crashed, match="SIGKILL"):
        worker.call("deeds.end_template", {})
    pid = worker.call("deeds.parent", {})[0]["pid"]
    os.kill(pid, signal.SIGKILL)  # one that waits for work is replaced
    assert worker.call("deeds.parent", {})[0]["pid"] != pid


def test_a_template_that_is_not_kept_ends_with_its_work() -> None:
    made = Worker(tasks="tests.service.trials", stock=False)
    parent = made.call("deeds.parent", {})[0]["pid"]
    assert not Path(f"/proc/{parent}").exists()


def test_a_worker_process_does_not_outlive_the_service() -> None:
    code = (
        "import os, threading; from service.worker import Worker; w = Worker('tests.service.trials');"
        "threading.Timer(1.5, lambda: os._exit(0)).start(); w.call('deeds.sleep', {})"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=False, capture_output=True)
    deadline = time.monotonic() + PATIENCE
    while _workers_of(root) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _workers_of(root)


def _workers_of(root: Path) -> list[int]:
    """Return the orphaned worker processes that search this checkout."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            ours = b"tests.service.trials" in words and os.fsencode(root) in words
            if ours and parent != os.getpid() and (parent == 1 or not Path(f"/proc/{parent}/cmdline").exists()):
                found.append(int(entry.name))
    return found
