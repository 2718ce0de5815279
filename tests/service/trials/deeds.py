"""Each function is a task: one thing that a hostile or broken model could make a worker process do."""

import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pyarrow as pa

from service.confinement import Answer, Request, TaskRefused

_held: list[str] = []


def libraries() -> frozenset[str]:
    return frozenset(("colorsys", "antigravity"))


def prepare(needed: Collection[str]) -> None:
    for name in libraries().intersection(needed):
        import_module(name)


def remember(request: Request) -> Answer:
    """Hold a text for good, import a module that is worth keeping, and name the template's threads."""
    loaded = "colorsys" in sys.modules
    threads = sorted((task / "comm").read_text().strip() for task in Path(f"/proc/{os.getppid()}/task").iterdir())
    import_module("colorsys")
    _held.append(request.document["secret"])
    return {"held": _held, "loaded": loaded, "threads": threads}, {}


def descriptors(request: Request) -> Answer:
    """Count the sockets, and the pipes, that the process holds."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return {kind: sum(target.startswith(kind[:-1]) for target in found) for kind in ("sockets", "pipes")}, {}


def parent(request: Request) -> Answer:
    return {"pid": os.getppid()}, {}


def end_template(request: Request) -> Answer:
    """Kill the parent below Python, past the audit hook."""
    ctypes.CDLL(None).kill(os.getppid(), 9)
    time.sleep(3600)
    return {}, {}


def echo(request: Request) -> Answer:
    sizes = {name: len(content) for name, content in request.files.items()}
    return {"document": request.document, "sizes": sizes}, request.tables


def crash(request: Request) -> Answer:
    ctypes.string_at(0)
    return {}, {}


def leave(request: Request) -> Answer:
    os._exit(7)


def sleep(request: Request) -> Answer:
    time.sleep(3600)
    return {}, {}


def grow(request: Request) -> Answer:
    held = [bytearray(os.urandom(2**20) * 16) for _ in range(32)]
    time.sleep(3600)
    return {"held": len(held)}, {}


def fail(request: Request) -> Answer:
    raise ArithmeticError("two and two are five")


def refuse(request: Request) -> Answer:
    raise TaskRefused("this file is a pickle", kind="pickle")


def print_loudly(request: Request) -> Answer:
    print("no frame at all")  # noqa: T201
    os.write(1, b"nor is this")
    return {"printed": True}, {}


def environment(request: Request) -> Answer:
    return {"names": dict(os.environ)}, {}


def open_socket(request: Request) -> Answer:
    with socket.socket() as opened:
        opened.connect(("127.0.0.1", request.document["port"]))
    return {"connected": True}, {}


def open_socket_below_python(request: Request) -> Answer:
    """Ask the C library for a socket, past the audit hook."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.socket(2, 1, 0)
    port = request.document["port"]
    address = (
        (2).to_bytes(2, "little") + port.to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
    )  # sockaddr_in on a little-endian machine
    return {"connected": library.connect(descriptor, address, len(address)) == 0}, {}


def start_process(request: Request) -> Answer:
    subprocess.run(["touch", request.document["path"]], check=False)
    return {}, {}


def call_shell(request: Request) -> Answer:
    os.system(f"touch {request.document['path']}")
    return {}, {}


def write_file(request: Request) -> Answer:
    Path(request.document["path"]).write_text("here")
    return {}, {}


def write_descriptor(request: Request) -> Answer:
    os.open(request.document["path"], os.O_CREAT | os.O_WRONLY)
    return {}, {}


def make_folder(request: Request) -> Answer:
    Path(request.document["path"]).mkdir()
    return {}, {}


def rename_out(request: Request) -> Answer:
    inside = Path(os.environ["HOME"]) / "inside"
    inside.write_text("x")
    inside.rename(request.document["path"])
    return {}, {}


def write_much(request: Request) -> Answer:
    with (Path(os.environ["HOME"]) / "much").open("wb") as file:
        for _ in range(64):
            file.write(bytes(2**20))
    return {}, {}


def question(request: Request) -> Answer:
    document, tables = request.ask({"of": 2}, {"rows": pa.table({"x": [1.0, 2.0]})})
    return {"answered": document}, tables
