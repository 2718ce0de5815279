"""The worker: heavy or risky work in a process of its own, which is watched, and whose end harms nothing else.

    worker.call("explanations.explain", {...}, tables={"rows": rows}, files={"artifact": bytes}, limits=Limits(...))

runs `service.tasks.explanations.explain` in a fresh process with an empty environment and without network, files to
write or credentials (`service.confinement`), and returns its document and tables. Where it crashes, takes too long or
too much memory, this call fails with a `WorkFailed` that says so. One process is kept in stock, so that the next call
need not wait for its start.
"""

import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from signal import Signals
from typing import Any

import pyarrow as pa
import structlog

from service.confinement import Answer, ConnectionEndedError, Frame, packed, unpacked
from service.problems import Problem

CHUNK = 1 << 20
LOOK = 0.02
"""How often the memory is looked at, seconds."""
PAGE = os.sysconf("SC_PAGE_SIZE")
STOCK_SECONDS = 300.0
"""How long a process waits in stock before it is let go."""
START = (
    "import sys; sys.path[:] = sys.argv[4:]; "
    "from service.confinement import serve; serve(int(sys.argv[1]), sys.argv[2] == 'cut', sys.argv[3])"
)
PROBE = (
    "import sys; sys.path[:] = sys.argv[1:]; from service.confinement import cut_network; print(cut_network(), end='')"
)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
log = structlog.get_logger(__name__)


class WorkFailed(Problem):
    """Work in the worker process came to no answer; the detail says why."""

    status, title = 422, "The work could not be done"


class WorkRefused(WorkFailed):
    """The work itself says, in a sentence, why it cannot be done."""

    title = "The work is refused"


class TooLong(WorkFailed):
    """It took longer than it may."""

    title = "The work took too long"


class TooMuchMemory(WorkFailed):
    """It took more memory than it may."""

    title = "The work took too much memory"


class Crashed(WorkFailed):
    """The process ended without an answer."""

    title = "The worker process ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one piece of work may take: seconds, resident bytes, bytes of any one scratch file, open files."""

    seconds: float = 120.0
    resident_bytes: int = 2 * 2**30
    file_bytes: int = 64 * 2**20
    files: int = 256


Reply = Callable[[Mapping[str, Any], Mapping[str, pa.Table]], Answer]
"""Answers what a task asks the service; a Problem that it raises ends the task."""


def _nothing(_document: Mapping[str, Any], _tables: Mapping[str, pa.Table]) -> Answer:
    raise WorkFailed("this work may ask the service nothing")


class Worker:
    """Starts processes, hands them work, and watches them.

    ``tasks`` is the package that the tasks are found in; ``stock`` says whether a process is kept for the next call.
    """

    def __init__(self, tasks: str = "service.tasks", *, stock: bool = True) -> None:
        self._tasks = tasks
        self._stocks = stock
        self._lock = threading.Lock()
        self._stock: _Process | None = None
        self._closed = False

    def call(
        self,
        task: str,
        document: Mapping[str, Any],
        *,
        tables: Mapping[str, pa.Table] | None = None,
        files: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
        reply: Reply = _nothing,
        check: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Do a task of `service.tasks` in a fresh process and return what it answers.

        ``reply`` answers its questions, ``check`` is called while it runs and may raise to end it. Raises WorkRefused
        with the task's own sentence, TooLong, TooMuchMemory, Crashed, or WorkFailed with the error that it raised.
        """
        limits = limits or Limits()
        process = self._taken(limits)
        try:
            frame = Frame("task", {"task": task, "document": document}, tables or {}, files or {})
            return process.work(frame, limits, reply, check)
        finally:
            process.end()
            if self._stocks:
                self._restock(task, limits)

    def close(self) -> None:
        """End the process in stock."""
        with self._lock:
            self._closed = True
            stock, self._stock = self._stock, None
        if stock is not None:
            stock.end()

    def _taken(self, limits: Limits) -> "_Process":
        with self._lock:
            stock, self._stock = self._stock, None
        if stock is not None and stock.serves(limits):
            return stock
        if stock is not None:
            stock.end()
        return _Process(self._tasks, limits)

    def _restock(self, task: str, limits: Limits) -> None:
        fresh = _Process(self._tasks, limits)
        fresh.warm(task)
        with self._lock:
            if self._closed or self._stock is not None:
                spare: _Process | None = fresh
            else:
                spare, self._stock = None, fresh
        if spare is not None:
            spare.end()
            return
        timer = threading.Timer(STOCK_SECONDS, self._let_go, (fresh,))
        timer.daemon = True
        timer.start()

    def _let_go(self, process: "_Process") -> None:
        with self._lock:
            if self._stock is not process:
                return
            self._stock = None
        process.end()


@cache
def network_remains() -> str:
    """Return why a worker process keeps the network of this one, "" where it is cut off."""
    probe = [sys.executable, "-I", "-c", PROBE, *_search_path()]
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        probe, env={}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout if done.returncode == 0 else "it could not be tried"


@dataclass
class _Output:
    """The child's answers as a blocking stream that ends the work when a limit is passed."""

    process: "_Process"
    deadline: float
    limits: Limits
    check: Callable[[], None]
    held: bytearray = field(default_factory=bytearray)

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer where the process ended."""
        while len(self.held) < size:
            if not self._more():
                break
        found = bytes(self.held[:size])
        del self.held[:size]
        return found

    def _more(self) -> bool:
        out = self.process.out
        while True:
            ready = self.process.selector.select(LOOK)
            self.check()
            if self.process.resident() > self.limits.resident_bytes:
                raise TooMuchMemory(
                    f"it took more than the {self.limits.resident_bytes // 2**20} MiB of memory that it may take and "
                    "was ended"
                )
            if time.monotonic() > self.deadline:
                raise TooLong(f"it took longer than the {self.limits.seconds:g} s that it may take and was ended")
            if ready:
                chunk = os.read(out, CHUNK)
                self.held += chunk
                return bool(chunk)


class _Process:
    """One worker process, from its start to its end."""

    def __init__(self, tasks: str, limits: Limits) -> None:
        self._limits = limits
        self._scratch = tempfile.TemporaryDirectory(prefix="plumbline-worker-", ignore_cleanup_errors=True)
        home = self._scratch.name
        environment = {"DO_NOT_TRACK": "1", "HOME": home, "TMPDIR": home, "NUMBA_CACHE_DIR": home, "LC_ALL": "C.UTF-8"}
        environment |= dict.fromkeys(THREADS, "1")
        network = "keep" if network_remains() else "cut"
        self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-I", "-B", "-c", START, str(os.getpid()), network, tasks, *_search_path()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=home,
            close_fds=True,
            start_new_session=True,
        )
        assert self._popen.stdout is not None  # noqa: S101 - for mypy
        self.out = self._popen.stdout.fileno()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.out, selectors.EVENT_READ)
        self._said = bytearray()
        self._listener = threading.Thread(target=self._listen, name="worker stderr", daemon=True)
        self._listener.start()
        self._send(
            Frame("limits", {"scratch": home, "file_bytes": limits.file_bytes, "files": limits.files}),
        )

    def serves(self, limits: Limits) -> bool:
        """Return whether it waits for work, with the locks that these limits ask for."""
        same = (limits.file_bytes, limits.files) == (self._limits.file_bytes, self._limits.files)
        return same and self._popen.poll() is None

    def warm(self, task: str) -> None:
        """Let it import what a task needs while it waits."""
        self._send(Frame("warm", {"task": task}))

    def work(self, frame: Frame, limits: Limits, reply: Reply, check: Callable[[], None]) -> Answer:
        """Send a task and return its answer; the questions on the way are put to ``reply``."""
        output = _Output(self, time.monotonic() + limits.seconds, limits, check)
        try:
            ready = unpacked(output)
            if ready.kind != "ready":
                raise Crashed("the worker process did not come up")
            sender = self._sent(frame)
            while True:
                answer = unpacked(output)
                sender.join()
                if answer.kind != "ask":
                    return _answer(answer)
                sender = self._sent(_replied(reply, answer))
        except (ConnectionEndedError, ValueError) as error:
            raise Crashed(self._last_words()) from error

    def resident(self) -> int:
        """Return the bytes of memory that the process holds."""
        try:
            return int(Path(f"/proc/{self._popen.pid}/statm").read_text().split()[1]) * PAGE
        except (OSError, IndexError):
            return 0  # it has ended, which the closed pipe tells

    def end(self) -> None:
        """End the process, whatever it does, and take its scratch folder away."""
        self._popen.kill()
        self._popen.wait()
        self._listener.join(timeout=1)
        self.selector.close()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                with suppress(OSError):  # a frame that was under way stays unsent
                    pipe.close()
        self._scratch.cleanup()

    def _send(self, frame: Frame) -> None:
        pipe = self._popen.stdin
        if pipe is None:
            return
        try:
            for piece in packed(frame):
                pipe.write(piece)
            pipe.flush()
        except (OSError, ValueError):
            return  # it has ended, which reading its answer tells

    def _sent(self, frame: Frame) -> threading.Thread:
        sender = threading.Thread(target=self._send, args=(frame,), name="worker stdin", daemon=True)
        sender.start()
        return sender

    def _listen(self) -> None:
        pipe = self._popen.stderr
        while pipe is not None and (chunk := os.read(pipe.fileno(), 4096)):
            self._said += chunk
            del self._said[:-4096]

    def _last_words(self) -> str:
        try:
            code = self._popen.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "the worker process sent what is no answer and was ended"
        self._listener.join(timeout=1)
        log.warning("worker process ended", code=code, said=self._said.decode(errors="replace")[-2000:])
        if code < 0:
            names = {signal.value: signal.name for signal in Signals}
            return f"the worker process was ended by {names.get(-code, f'signal {-code}')}"
        return f"the worker process ended with status {code} before it had an answer"


def _replied(reply: Reply, question: Frame) -> Frame:
    try:
        return Frame("reply", *reply(question.document, question.tables))
    except Problem as problem:
        return Frame("refused", {"detail": problem.detail or problem.title, "members": problem.members})


def _answer(frame: Frame) -> Answer:
    if frame.kind == "answer":
        return frame.document, frame.tables
    if frame.kind == "refused":
        raise WorkRefused(frame.document["detail"], **frame.document["members"])
    if frame.document.get("trace"):
        log.warning("work failed", trace=frame.document["trace"])
    raise WorkFailed(str(frame.document.get("detail", "it said nothing")))


def _search_path() -> Sequence[str]:
    """Return where this process finds modules, our own package first, so that the worker finds the same."""
    own = str(Path(__file__).parent.parent)
    return [own, *(path for path in sys.path if path and path != own)]
