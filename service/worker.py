"""The worker: heavy or risky work in a process of its own, which is watched, and whose end harms nothing else.

    worker.call("explanations.explain", {...}, tables={"rows": rows}, files={"artifact": bytes}, limits=Limits(...))

runs `service.tasks.explanations.explain` in a fresh process with an empty environment and without network, files to
write or credentials (`service.confinement`), and returns its document and tables. Where it crashes, takes too long or
too much memory, this call fails with a `WorkFailed` that says so. The processes are forks of a template that has the
libraries loaded and is kept for a while, so that they start in milliseconds; it never sees what is worked on.
"""

import os
import selectors
import signal
import socket
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
from typing import Any

import msgspec
import pyarrow as pa
import structlog

from service.confinement import Answer, ConnectionEndedError, Frame, Order, packed, unpacked
from service.problems import Problem

CHUNK = 1 << 20
LOOK = 0.02
"""How often the memory is looked at, seconds."""
PAGE = os.sysconf("SC_PAGE_SIZE")
IDLE_SECONDS = 300.0
"""How long the template waits for work before it is let go."""
ANSWER_SECONDS = 120.0
"""How long the template may take to follow an order; it imports what is needed before it forks."""
START = (
    "import sys; sys.path[:] = sys.argv[4:]; "
    "from service.confinement import template; template(int(sys.argv[1]), sys.argv[2] == 'cut', sys.argv[3])"
)
PROBE = (
    "import sys; sys.path[:] = sys.argv[1:]; from service.isolation import cut_network; print(cut_network(), end='')"
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

    ``tasks`` is the package that the tasks are found in; ``stock`` says whether the template is kept for the next call.
    """

    def __init__(self, tasks: str = "service.tasks", *, stock: bool = True) -> None:
        self._tasks = tasks
        self._stocks = stock
        self._lock = threading.Lock()
        self._template: _Template | None = None
        self._closed = False
        self._timer = threading.Timer(IDLE_SECONDS, self.close)

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
        template, process = self._started(task, limits)
        try:
            try:
                frame = Frame("task", {"task": task, "document": document}, tables or {}, files or {})
                return process.work(frame, limits, reply, check)
            finally:
                process.end()
                if self._stocks and process.used:
                    with suppress(Crashed):  # there is an answer all the same
                        template.prepare(task, process.used)
        finally:
            self._given_back(template)

    def _started(self, task: str, limits: Limits, *, again: bool = True) -> tuple["_Template", "_Process"]:
        """Return a fresh process and the template that it is a fork of; one that ended meanwhile is replaced, once."""
        template = self._taken()
        try:
            return template, _Process(template, task, limits)
        except BaseException as error:
            self._given_back(template)
            if not again or not isinstance(error, Crashed):
                raise
        return self._started(task, limits, again=False)

    def close(self) -> None:
        """End the template, once nobody uses it."""
        with self._lock:
            self._closed = True
            self._timer.cancel()
            template = self._template
        if template is not None:
            self._let_go(template, template.uses)

    def _taken(self) -> "_Template":
        """Return the template, counted as in use."""
        with self._lock:
            if self._template is not None and not self._template.lives():
                if not self._template.users:
                    self._template.end()
                self._template = None
            self._template = self._template or _Template(self._tasks)
            self._template.users += 1
            self._template.uses += 1
            return self._template

    def _given_back(self, template: "_Template") -> None:
        with self._lock:
            template.users -= 1
            if template.users:
                return
            kept = self._stocks and not self._closed and template is self._template and template.lives()
            if kept:
                self._timer.cancel()
                self._timer = threading.Timer(IDLE_SECONDS, self._let_go, (template, template.uses))
                self._timer.daemon = True
                self._timer.start()
        if not kept:
            self._let_go(template, template.uses)

    def _let_go(self, template: "_Template", uses: int) -> None:
        """End a template that nobody used since."""
        with self._lock:
            if template.users or template.uses != uses:
                return
            if self._template is template:
                self._template = None
        template.end()


@cache
def network_remains() -> str:
    """Return why a worker process keeps the network of this one, "" where it is cut off."""
    probe = [sys.executable, "-I", "-c", PROBE, *_search_path()]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and code
            probe, env={}, capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return "it could not be tried within a minute"
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


class _Template:
    """The process that worker processes are forks of; ``users`` counts the calls under way, ``uses`` all of them."""

    def __init__(self, tasks: str) -> None:
        self.users = self.uses = 0
        self._gone = False
        self._lock = threading.Lock()
        self._needed: frozenset[str] = frozenset()
        self._scratch = tempfile.TemporaryDirectory(prefix="plumbline-worker-", ignore_cleanup_errors=True)
        home = self._scratch.name
        environment = {"DO_NOT_TRACK": "1", "HOME": home, "TMPDIR": home, "NUMBA_CACHE_DIR": home, "LC_ALL": "C.UTF-8"}
        environment |= dict.fromkeys(THREADS, "1")
        network = "keep" if network_remains() else "cut"
        self._said = tempfile.TemporaryFile(dir=home)  # noqa: SIM115 - closed by `end`
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.settimeout(ANSWER_SECONDS)
        with theirs:
            self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and code
                [sys.executable, "-I", "-B", "-c", START, str(theirs.fileno()), network, tasks, *_search_path()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                env=environment,
                cwd=home,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def lives(self) -> bool:
        """Return whether it can be forked."""
        return not self._gone and self._popen.poll() is None

    def fork(self, order: Order, pipes: Sequence[int]) -> int:
        """Have a process forked with the ends of its pipes and return its id."""
        return self._asked(order, pipes)

    def status(self, pid: int) -> int:
        """Return how a process that ended did, as `subprocess` tells it; it is forgotten with that."""
        return self._asked(Order(verb="status", pid=pid))

    def prepare(self, task: str, needed: Sequence[str]) -> None:
        """Let it import what a task needed, unless it has."""
        with self._lock:
            if self._needed.issuperset(needed):
                return
            self._needed |= frozenset(needed)
            self._told(Order(verb="prepare", task=task, needed=tuple(needed)))

    def end(self) -> None:
        """End it, and with it the processes that are forks of it."""
        self._popen.kill()
        self._popen.wait()
        self._orders.close()
        self._said.close()
        self._scratch.cleanup()

    def _asked(self, order: Order, pipes: Sequence[int] = ()) -> int:
        with self._lock:
            self._told(order, pipes)
            try:
                answer = self._orders.recv(64)
            except (ConnectionError, TimeoutError):
                answer = b""
        if not answer:
            self._gone = True
            self._popen.kill()
            self._said.seek(0)
            log.warning("worker template ended", said=self._said.read()[-2000:].decode(errors="replace"))
            raise Crashed("the process that worker processes are made from has ended")
        return msgspec.json.decode(answer, type=int)

    def _told(self, order: Order, pipes: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._orders, [msgspec.json.encode(order)], list(pipes))
        except OSError as error:
            self._gone = True
            raise Crashed(f"no worker process can be started: {error}") from error


class _Process:
    """One worker process, from its start to its end."""

    def __init__(self, template: _Template, task: str, limits: Limits) -> None:
        self._template = template
        self._scratch = tempfile.TemporaryDirectory(prefix="plumbline-worker-", ignore_cleanup_errors=True)
        theirs_in, mine_in = os.pipe()
        mine_out, theirs_out = os.pipe()
        mine_said, theirs_said = os.pipe()
        order = Order(
            verb="fork", task=task, scratch=self._scratch.name, file_bytes=limits.file_bytes, files=limits.files
        )
        self._pipe, self._words, self.out = os.fdopen(mine_in, "wb"), os.fdopen(mine_said, "rb", 0), mine_out
        try:
            self._pid = template.fork(order, (theirs_in, theirs_out, theirs_said))
        except Crashed:
            self._close()
            raise
        finally:
            for pipe in (theirs_in, theirs_out, theirs_said):
                os.close(pipe)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.out, selectors.EVENT_READ)
        self._said = bytearray()
        self._code: int | None = None
        self.used: Sequence[str] = ()
        self._listener = threading.Thread(target=self._listen, name="worker stderr", daemon=True)
        self._listener.start()

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
                    self.used = answer.used
                    return _answer(answer)
                sender = self._sent(_replied(reply, answer))
        except ConnectionEndedError as error:
            raise Crashed(self._last_words()) from error
        except ValueError as error:
            raise Crashed("the worker process sent what is no answer and was ended") from error

    def resident(self) -> int:
        """Return the bytes of memory that the process holds."""
        try:
            return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * PAGE
        except (OSError, IndexError):
            return 0  # it has ended, which the closed pipe tells

    def end(self) -> None:
        """End the process, whatever it does, and take its scratch folder away."""
        self._ended()
        self._listener.join(timeout=1)
        self.selector.close()
        self._close()

    def _close(self) -> None:
        os.close(self.out)
        for pipe in (self._pipe, self._words):
            with suppress(OSError):  # a frame that was under way stays unsent
                pipe.close()
        self._scratch.cleanup()

    def _ended(self) -> int:
        """End the process unless it did itself, and return how that was; its id is its own until it is asked for."""
        if self._code is None:
            if self._template.lives():
                os.kill(self._pid, signal.SIGKILL)
            try:
                self._code = self._template.status(self._pid)
            except Crashed:
                self._code = -signal.SIGKILL  # the kernel ended it with the template
        return self._code

    def _send(self, frame: Frame) -> None:
        try:
            for piece in packed(frame):
                self._pipe.write(piece)
            self._pipe.flush()
        except (OSError, ValueError):
            return  # it has ended, which reading its answer tells

    def _sent(self, frame: Frame) -> threading.Thread:
        sender = threading.Thread(target=self._send, args=(frame,), name="worker stdin", daemon=True)
        sender.start()
        return sender

    def _listen(self) -> None:
        while chunk := self._words.read(4096):
            self._said += chunk
            del self._said[:-4096]

    def _last_words(self) -> str:
        code = self._ended()
        self._listener.join(timeout=1)
        log.warning("worker process ended", code=code, said=self._said.decode(errors="replace")[-2000:])
        if code < 0:
            names = {each.value: each.name for each in signal.Signals}
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
