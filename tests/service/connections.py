"""Every connection that this process makes, watched; and addresses to which it must make none."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

HOSTILE = [
    "http://127.0.0.1:9/",
    "http://localhost:9/",
    "http://[::1]:9/",
    "http://0/",
    "http://0.0.0.0/",
    "http://127.1/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://017700000001/",
    "http://169.254.169.254/latest/meta-data",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://100.64.0.1/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://172.16.0.1/",
    "http://[fe80::1]/",
    "http://[fd00::1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://224.0.0.1/",
    "http://198.18.0.1/",
    "http://127.0.0.1%23@example.com/",
    "http://user@127.0.0.1/",
    "http://ｌｏｃａｌｈｏｓｔ/",
    "http://①②⑦.0.0.1/",
]

_connected: list[Any] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _connected is not None:
        _connected.append(arguments[1])


@cache
def _watching() -> None:
    sys.addaudithook(_watch)


@contextmanager
def watched_connections() -> Iterator[list[Any]]:
    """Collect the address of every connection that this process makes."""
    global _connected
    _watching()
    _connected = []
    try:
        yield _connected
    finally:
        _connected = None
