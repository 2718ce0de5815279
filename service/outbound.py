"""The guard of all outbound calls: a connection is made only to an address that was checked and may be reached."""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import httpcore2
import httpx2

from service.problems import Fault, Problem, Unprocessable
from service.settings import Settings

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], list[str]]

CLOSED = tuple(
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16"),
        *("3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
"""Listed by hand: what Python calls global changes between its versions, and has held NAT64, 6to4 and site-local."""

CONNECT_SECONDS = 5.0


class AddressNotAllowed(Unprocessable):
    """An outbound URL leads, or may lead, to an address inside."""

    title = "The address may not be called"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, faults=[Fault("/url", "address_not_allowed", detail)])


class Refused(httpcore2.ConnectError):
    """The guard did not let a connection be made."""


class TooSlow(httpcore2.ReadTimeout):
    """The whole exchange took longer than it may."""


_system = socket.getaddrinfo


def resolved(host: str, port: int) -> list[str]:
    """Return every address the system's resolver knows for a host."""
    found = _system(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_global(address: Address) -> bool:
    """Return whether an address is one of the open internet, in no form a way to one inside."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return is_global(address.ipv4_mapped)
    if any(address.version == closed.version and address in closed for closed in CLOSED):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class _Deadline(httpcore2.NetworkStream):
    """A stream on which reading, writing and the TLS handshake together end at one moment."""

    def __init__(self, stream: httpcore2.NetworkStream, end: float) -> None:
        self._stream = stream
        self._end = end

    def _left(self, timeout: float | None) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TooSlow("the exchange took too long")
        return left if timeout is None else min(left, timeout)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, within what is left of the time."""
        return self._stream.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write, within what is left of the time."""
        self._stream.write(buffer, self._left(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Shake hands under the name that was asked for, not under the address."""
        return _Deadline(self._stream.start_tls(ssl_context, server_hostname, self._left(timeout)), self._end)

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection knows."""
        return self._stream.get_extra_info(info)


class _Checked(httpcore2.NetworkBackend):
    """Resolves, checks and connects in one step, so that no second answer of a resolver is ever used."""

    def __init__(self, guard: "Guard", end: float) -> None:
        self._guard = guard
        self._end = end
        self._backend = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first checked address that answers."""
        try:
            addresses = self._guard.addresses(host, port)
        except Problem as problem:
            raise Refused(problem.detail) from None
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} has no address: {error}") from error
        failure: httpcore2.ConnectError | httpcore2.ConnectTimeout | None = None
        for address in addresses[:3]:
            left = min(self._end - time.monotonic(), CONNECT_SECONDS, timeout or CONNECT_SECONDS)
            if left <= 0:
                break
            try:
                stream = self._backend.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _Deadline(stream, self._end)
        raise failure or TooSlow("the exchange took too long")


class _Stream(httpx2.SyncByteStream):
    """The bytes of an answer, and the connections behind them."""

    def __init__(self, stream: Iterable[bytes], pool: httpcore2.ConnectionPool) -> None:
        self._stream = stream
        self._pool = pool

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        """Let go of the connection, read or not."""
        self._pool.close()


class _Transport(httpx2.BaseTransport):
    """Sends each request over connections of its own, made by the guard."""

    def __init__(self, guard: "Guard", seconds: float) -> None:
        self._guard = guard
        self._seconds = seconds

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; errors are httpcore2's."""
        try:
            self._guard.check_form(request.url)
        except AddressNotAllowed as problem:
            raise Refused(problem.detail) from None
        if not isinstance(request.stream, httpx2.SyncByteStream):
            raise TypeError("only requests whose body can be iterated are sent")
        pool = self._guard.pool(request.url, time.monotonic() + self._seconds)
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        try:
            answer = pool.handle_request(
                httpcore2.Request(request.method, url, headers=request.headers.raw, content=request.stream)
            )
        except BaseException:
            pool.close()
            raise
        if not isinstance(answer.stream, Iterable):
            raise TypeError("an answer that cannot be read")
        return httpx2.Response(answer.status, headers=answer.headers, stream=_Stream(answer.stream, pool))


@cache
def trusting(ca_bundle: Path | None) -> ssl.SSLContext:
    """Return how TLS is spoken where these certificates are trusted, the system's where none are given."""
    return ssl.create_default_context(cafile=str(ca_bundle) if ca_bundle else None)


class Guard:
    """What may be called from here: the open internet over https, and what the settings allow by name."""

    def __init__(self, settings: Settings, resolve: Resolve = resolved) -> None:
        self._resolve = resolve
        self._http = settings.outbound_http
        self._proxy = settings.outbound_proxy
        self._hosts: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in settings.outbound_allow:
            try:
                self._networks.append(ip_network(entry, strict=False))
            except ValueError:
                self._hosts.add(entry.lower().rstrip("."))
        self._tls = trusting(settings.ca_bundle)

    @contextmanager
    def resolving(self) -> Iterator[list[str]]:
        """Resolve for this thread, as long as the block lasts, whatever a library that connects by itself looks up.

        Such a library is given addresses that were checked, and no others: it connects to one of them, whatever a
        resolver would say a second later. Yields the list of what was refused.
        """
        if socket.getaddrinfo is not _looked_up:
            socket.getaddrinfo = _looked_up  # looks up as ever where no guard resolves
        refused: list[str] = []
        token = _resolver.set((self, refused))
        try:
            yield refused
        finally:
            _resolver.reset(token)

    @property
    def proxied(self) -> bool:
        """Whether calls go through a proxy."""
        return self._proxy is not None

    def client(self, seconds: float) -> httpx2.Client:
        """Return a client that reads no environment, follows no redirect and ends each exchange after so long.

        Its errors are httpcore2's: ``Refused`` where the guard said no, ``ConnectError``, ``TimeoutException``, ….
        """
        return httpx2.Client(
            transport=_Transport(self, seconds), follow_redirects=False, trust_env=False, timeout=seconds
        )

    def check(self, url: str) -> None:
        """Refuse a URL that can be seen to lead inside; a name that has no address yet is left to the call itself."""
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError, TypeError) as error:
            raise AddressNotAllowed(f"{url!r} is not a URL: {error}") from None
        self.check_form(parsed)
        try:
            self.addresses(parsed.raw_host.decode("ascii"), parsed.port or (80 if parsed.scheme == "http" else 443))
        except OSError:
            return

    def check_form(self, url: httpx2.URL) -> None:
        """Refuse what no address can mend: scheme, user name, missing host."""
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        if url.scheme not in ("http", "https") or not host:
            raise AddressNotAllowed("only URLs that begin with https:// and name a host can be called")
        if url.userinfo:
            raise AddressNotAllowed("a URL that carries a user name is not called; use the webhook's credentials")
        if url.scheme == "http" and not (self._http and self._is_allowed(host)):
            raise AddressNotAllowed(
                "plain http is called only with PLUMBLINE_OUTBOUND_HTTP=true, and only hosts that are named in "
                "PLUMBLINE_OUTBOUND_ALLOW"
            )

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, all of them allowed; else a problem, or OSError where there are none."""
        host = host.strip("[]")
        try:
            found = self._resolve(host, port)
        except UnicodeError as error:
            raise OSError(f"not a name: {error}") from error
        if not found:
            raise OSError("no address")
        if host.lower().rstrip(".") not in self._hosts:
            for text in found:
                address = ip_address(text)
                if not is_global(address) and not self._is_inside_allowed(address):
                    raise AddressNotAllowed(
                        f"{host} is at {text}, which is not an address of the open internet; name the host or its "
                        "network in PLUMBLINE_OUTBOUND_ALLOW to allow it"
                    )
        return found

    def pool(self, url: httpx2.URL, end: float) -> httpcore2.ConnectionPool:
        """Return connections for one request that end at a moment of the monotonic clock."""
        if self._proxy is None:
            return httpcore2.ConnectionPool(
                ssl_context=self._tls, max_connections=1, network_backend=_Checked(self, end)
            )
        try:
            self.addresses(url.raw_host.decode("ascii"), url.port or 443)
        except AddressNotAllowed as problem:
            raise Refused(problem.detail) from None
        except OSError:
            pass  # names that only the proxy can resolve are the proxy's to judge
        return httpcore2.HTTPProxy(self._proxy, ssl_context=self._tls, max_connections=1)

    def _is_inside_allowed(self, address: Address) -> bool:
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address.version == network.version and address in network for network in self._networks)

    def _is_allowed(self, host: str) -> bool:
        if host in self._hosts:
            return True
        try:
            addresses = [ip_address(host.strip("[]"))]
        except ValueError:
            try:
                addresses = [ip_address(text) for text in self._resolve(host, 80)]
            except (OSError, UnicodeError):
                return False
        return bool(addresses) and all(self._is_inside_allowed(address) for address in addresses)


_resolver: ContextVar[tuple[Guard, list[str]] | None] = ContextVar("resolver", default=None)


def _looked_up(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
    """Look a name up as `socket.getaddrinfo` does; where a guard resolves, what it lets pass alone."""
    held = _resolver.get()
    if held is None:
        return _system(host, port, *arguments, **named)
    guard, refused = held
    name = host.decode("ascii") if isinstance(host, bytes) else str(host)
    try:
        addresses = guard.addresses(name, int(port))
    except AddressNotAllowed as refusal:
        refused.append(refusal.detail)
        raise socket.gaierror(socket.EAI_NONAME, refusal.detail) from None
    return [entry for address in addresses for entry in _system(address, port, *arguments, **named)]
