"""The worker's own side: a process that locks itself in, then does one task after another that comes down a pipe.

It is started by `service.worker` with an empty environment and imports nothing that knows the database. What it locks:
sockets, other processes and files outside its scratch folder (an audit hook, which cannot be taken off), the network
namespace where the platform allows, the size and number of files, cores, and its life, which ends with its parent's.
"""

import ctypes
import os
import re
import resource
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Protocol, cast

import msgspec
import pyarrow as pa

LENGTH = struct.Struct("<Q")
LONGEST = 2**33
TASK = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
NEW_USERS, NEW_NETWORK = 0x10000000, 0x40000000
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
    return Frame(head["kind"], head["document"], tables, files)


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


def cut_network() -> str:
    """Move this process into a network namespace with nothing in it; return "" or why that is not possible."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        for flags in (NEW_NETWORK, NEW_USERS | NEW_NETWORK):
            if library.unshare(flags) == 0:
                return ""
        return os.strerror(ctypes.get_errno())
    except (OSError, AttributeError) as error:
        return str(error) or type(error).__name__


def _end_with(parent: int) -> None:
    """Watch for the parent's end and follow it; the kernel's own signal would come at the end of a thread already."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


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


# --- the process ------------------------------------------------------------------------------------------------------


def serve(parent: int, network_cut: bool, package: str) -> None:
    """Read what locks are wanted, lock, then answer tasks of the package until the pipe closes."""
    network = cut_network() if network_cut else "not tried"
    _end_with(parent)
    os.nice(10)
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints is no frame
    sys.modules["matplotlib"] = cast(ModuleType, None)  # no pictures here, and its font cache takes seconds
    try:
        limits = unpacked(incoming).document
        confine(Path(limits["scratch"]), file_bytes=limits["file_bytes"], files=limits["files"])
        _send(outgoing, Frame("ready", {"network": network}))
        while True:
            frame = unpacked(incoming)
            if frame.kind == "warm":
                _warm(package, frame.document["task"])
            else:
                _send(outgoing, _done(package, frame, incoming, outgoing))
    except (ConnectionEndedError, BrokenPipeError):
        return


def _warm(package: str, task: str) -> None:
    """Import a task's module, and what it says it will need, before there is work for it."""
    try:
        module = sys.modules[task_named(package, task).__module__]
        prepare = getattr(module, "prepare", None)
        if prepare is not None:
            prepare()
    except Exception:  # noqa: BLE001 - the work itself will tell
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
        return Frame("answer", *task(Request(frame.document["document"], frame.tables, frame.files, ask)))
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
