"""The worker's own side: a process that locks itself in, then does one task after another that comes down a pipe.

`service.worker` starts a *template* with an empty environment, which imports nothing that knows the database. It cuts
its network where the platform allows, imports what tasks need, and never sees anyone's bytes; each worker process is a
fork of it, so that it starts in milliseconds. What a fork locks: sockets, other processes and files outside its scratch
folder (an audit hook, which cannot be taken off), the size and number of files, cores, and its life, which ends with
the template's, as the template's ends with the service.
"""

import ctypes
import gc
import os
import re
import resource
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Literal, NoReturn, Protocol, cast

import msgspec
import pyarrow as pa

from service.isolation import cut_network

LENGTH = struct.Struct("<Q")
LONGEST = 2**33
ORDER_BYTES = 65536
SET_DEATH_SIGNAL = 1
"""Linux: `PR_SET_PDEATHSIG`."""
TASK = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
REFUSED = (
    "socket.",
    "subprocess.",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.kill",
    "pty.",
    "sqlite3.",
    "ftplib.",
    "http.",
    "smtplib.",
    "urllib.",
    "webbrowser.",
)
"""Beginnings of the audit events that are refused whatever their arguments."""
CHANGES = frozenset(
    ("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")
)
"""Audit events that change the file system; the arguments that are paths must lie in the scratch folder."""


class ConfinedError(PermissionError):
    """Something that the worker process may not do was tried in it; libraries take it as a file system's refusal."""


class ConnectionEndedError(Exception):
    """The other side of the pipe is gone."""


class TaskRefused(Exception):  # noqa: N818 - an answer, not a mistake
    """A task says, in a sentence for the caller, why it cannot be done; ``members`` go into the problem."""

    def __init__(self, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members


# --- frames -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """One message either way: a kind, a JSON document, tables as Arrow streams and files as bytes; never a pickle."""

    kind: str
    document: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    used: Sequence[str] = ()
    """Modules that the work needed, which the next may need as well."""


class Stream(Protocol):
    """Either end of the pipe that gives bytes."""

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer only at the end."""
        ...


def packed(frame: Frame) -> list[bytes | memoryview]:
    """Return a frame as length-prefixed pieces: the head, then each table and each file."""
    tables = [_written(table) for table in frame.tables.values()]
    head = msgspec.json.encode(
        {
            "kind": frame.kind,
            "document": frame.document,
            "tables": list(frame.tables),
            "files": list(frame.files),
            "used": frame.used,
        }
    )
    pieces: list[bytes | memoryview] = []
    bodies: list[bytes | memoryview] = [head, *(memoryview(table) for table in tables), *frame.files.values()]
    for body in bodies:
        pieces += [LENGTH.pack(len(body)), body]
    return pieces


def unpacked(stream: Stream) -> Frame:
    """Read one frame; raises ConnectionEndedError at the end of the stream and ValueError of what is no frame."""
    head = msgspec.json.decode(_piece(stream))
    if not isinstance(head, dict):
        raise ValueError("no frame")
    tables = {}
    for name in head["tables"]:
        with pa.ipc.open_stream(pa.py_buffer(_piece(stream))) as reader:
            tables[name] = reader.read_all()
    files = {name: _piece(stream) for name in head["files"]}
    return Frame(head["kind"], head["document"], tables, files, head["used"])


def _written(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _piece(stream: Stream) -> bytes:
    (length,) = LENGTH.unpack(_read(stream, LENGTH.size))
    if length > LONGEST:
        raise ValueError("a piece is longer than any frame has")
    return _read(stream, length)


def _read(stream: Stream, size: int) -> bytes:
    read = stream.read(size)
    if len(read) != size:
        raise ConnectionEndedError
    return read


# --- tasks ------------------------------------------------------------------------------------------------------------

Ask = Callable[[Mapping[str, Any], Mapping[str, pa.Table]], tuple[Mapping[str, Any], Mapping[str, pa.Table]]]
"""Puts a question to the service, which alone may call out, and returns the answer."""
Answer = tuple[Mapping[str, Any], Mapping[str, pa.Table]]


@dataclass(frozen=True)
class Request:
    """What a task is given: a document, tables, the bytes of files, and a way to ask the service."""

    document: Mapping[str, Any]
    tables: Mapping[str, pa.Table]
    files: Mapping[str, bytes]
    ask: Ask


Task = Callable[[Request], Answer]


def task_named(package: str, name: str) -> Task:
    """Return a function that a module of the package defines itself, by ``module.function``; else LookupError."""
    if not TASK.fullmatch(name):
        raise LookupError(name)
    module, _, function = name.partition(".")
    path = f"{package}.{module}"
    try:
        found = getattr(import_module(path), function, None)
    except ModuleNotFoundError as error:
        if error.name == path:
            raise LookupError(name) from None
        raise
    if not callable(found) or getattr(found, "__module__", None) != path:
        raise LookupError(name)
    task: Task = found
    return task


# --- locks ------------------------------------------------------------------------------------------------------------


def _end_with(parent: int) -> None:
    """Have the kernel end this process with its parent's first thread; its end may have come already."""
    if ctypes.CDLL(None, use_errno=True).prctl(SET_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the worker process cannot be tied to the life of its parent")
    if os.getppid() != parent:
        os._exit(1)


def confine(scratch: Path, *, file_bytes: int, files: int) -> None:
    """Refuse sockets, processes and writing outside the scratch folder from here on, for good."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    inside = str(scratch.resolve())

    def is_inside(path: object) -> bool:
        if isinstance(path, int):
            return True  # a descriptor that is open already
        text = os.fsdecode(path) if isinstance(path, bytes | str | os.PathLike) else ""
        real = os.path.realpath(text)
        return real == inside or real.startswith(inside + os.sep) or real == os.devnull

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(REFUSED):
            raise ConfinedError(f"the worker process may not do this: {event}")
        if event == "open":
            path, mode, flags = arguments
            writes = bool(set(mode or "") & set("wax+")) or bool(
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            )
            if writes and not is_inside(path):
                raise ConfinedError("the worker process may not write files")
        elif event in CHANGES and not all(is_inside(path) for path in arguments if isinstance(path, bytes | str)):
            raise ConfinedError("the worker process may not change files")

    sys.addaudithook(watch)


# --- the template -----------------------------------------------------------------------------------------------------


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the template is told.

    ``fork``: start a worker process for a task, in a scratch folder and with limits; the ends of its three pipes come
    with it, and its process id is answered. ``prepare``: import the modules that the last task needed. ``status``: tell
    how a process ended.
    """

    verb: Literal["fork", "prepare", "status"]
    task: str = ""
    scratch: str = ""
    file_bytes: int = 0
    files: int = 0
    needed: tuple[str, ...] = ()
    pid: int = 0


def template(control: int, network_cut: bool, package: str) -> None:
    """Follow orders until the service is gone; this process starts no thread and holds nothing of anyone's."""
    network = cut_network() if network_cut else "not tried"
    os.nice(10)
    sys.modules["matplotlib"] = cast(ModuleType, None)  # no pictures here, and its font cache takes seconds
    mine = os.getpid()
    with socket.socket(fileno=control) as orders:
        while True:
            told, pipes, _, _ = socket.recv_fds(orders, ORDER_BYTES, 3)
            if not told:
                return
            order = msgspec.json.decode(told, type=Order)
            if order.verb == "status":
                _tell(orders, os.waitstatus_to_exitcode(os.waitpid(order.pid, 0)[1]))
                continue
            _prepare(package, order)
            if order.verb == "prepare":
                continue
            pid = os.fork()
            if pid == 0:
                orders.close()
                _become(order, pipes, mine, network, package)
            for pipe in pipes:
                os.close(pipe)
            _tell(orders, pid)


def _tell(orders: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # the service is gone, which the next order tells
        orders.send(msgspec.json.encode(number))


def _prepare(package: str, order: Order) -> None:
    """Import a task's module, and what its last work needed, before there is work for it."""
    try:
        module = sys.modules[task_named(package, order.task).__module__]
        if order.needed:
            module.prepare(order.needed)
        gc.freeze()
    except Exception:  # noqa: BLE001 - the work itself will tell
        return


def _used(task: Task) -> tuple[str, ...]:
    """Return which of the modules that a task may need this process has imported."""
    libraries = getattr(sys.modules[task.__module__], "libraries", None)
    return () if libraries is None else tuple(sorted(name for name in libraries() if name in sys.modules))


# --- the process ------------------------------------------------------------------------------------------------------


def _become(order: Order, pipes: Sequence[int], parent: int, network: str, package: str) -> NoReturn:
    """Turn a fresh fork into a worker process, and end with it: nothing returns into the template."""
    code = 1
    try:
        os.setsid()
        for place, pipe in enumerate(pipes):
            os.dup2(pipe, place)
            os.close(pipe)
        _end_with(parent)
        os.chdir(order.scratch)
        os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "NUMBA_CACHE_DIR"), order.scratch))
        tempfile.tempdir = None
        serve(order, network, package)
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it is said and it ends here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve(order: Order, network: str, package: str) -> None:
    """Lock this process in, then answer tasks of the package until the pipe closes."""
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints is no frame
    try:
        confine(Path(order.scratch), file_bytes=order.file_bytes, files=order.files)
        _send(outgoing, Frame("ready", {"network": network}))
        while True:
            _send(outgoing, _done(package, unpacked(incoming), incoming, outgoing))
    except (ConnectionEndedError, BrokenPipeError):
        return


def _done(package: str, frame: Frame, incoming: IO[bytes], outgoing: IO[bytes]) -> Frame:
    """Do one task; whatever it raises becomes an answer."""
    asking = threading.Lock()

    def ask(document: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Answer:
        with asking:
            _send(outgoing, Frame("ask", document, tables))
            answer = unpacked(incoming)
        if answer.kind == "refused":
            raise TaskRefused(answer.document["detail"], **answer.document["members"])
        return answer.document, answer.tables

    name = frame.document["task"]
    try:
        task = task_named(package, name)
    except LookupError:
        return Frame("failed", {"detail": f"there is no task {name!r}"})
    except Exception as error:  # noqa: BLE001 - a library that cannot be imported here
        return _failed(error)
    try:
        answer = task(Request(frame.document["document"], frame.tables, frame.files, ask))
        return Frame("answer", *answer, used=_used(task))
    except TaskRefused as refusal:
        return Frame("refused", {"detail": refusal.detail, "members": refusal.members})
    except (ConnectionEndedError, BrokenPipeError):
        raise
    except MemoryError:
        return Frame("failed", {"detail": "it ran out of memory"})
    except Exception as error:  # noqa: BLE001 - a library may raise anything; the caller gets it as a reason
        return _failed(error)


def _failed(error: Exception) -> Frame:
    sentence = " ".join(str(error).split())[:500]
    trace = "".join(traceback.format_exception(error))[-4000:]
    return Frame("failed", {"detail": f"{type(error).__name__}: {sentence}", "trace": trace})


def _send(outgoing: IO[bytes], frame: Frame) -> None:
    for piece in packed(frame):
        outgoing.write(piece)
    outgoing.flush()
