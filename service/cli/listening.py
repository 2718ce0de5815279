"""The address that a server listens on: taken before anything heavy is loaded, and said as a URL."""

import socket


class PortTaken(OSError):  # noqa: N818 - read as a sentence, like the problems
    """The address cannot be listened on."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise PortTaken(f"{host}:{port} cannot be listened on: {error.strerror or error}") from None
    return listening


def address(listening: socket.socket) -> str:
    """Return the URL under which this host's browser reaches the socket."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"
