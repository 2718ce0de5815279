"""The guard: hostile URLs reach nothing, and what is reached is what was checked."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.outbound import AddressNotAllowed, Guard, Refused, TooSlow, is_global
from service.settings import Settings
from tests.running import PATIENCE
from tests.service.connections import HOSTILE, watched_connections


def settings(**changes: Any) -> Settings:
    return Settings.model_validate({"data_dir": Path("unused"), **changes})


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_26_hostile_urls_make_no_connection(scheme: str) -> None:
    assert len(HOSTILE) == 26
    # plain http is switched on for one allowed host, so that the addresses are what is refused
    guard = Guard(settings(outbound_http=True, outbound_allow=("hooks.test",)))
    with watched_connections() as connections:
        for url in HOSTILE:
            hostile = url.replace("http:", f"{scheme}:")
            with pytest.raises(AddressNotAllowed):
                guard.check(hostile)
            with pytest.raises((Refused, httpx2.InvalidURL)), guard.client(PATIENCE) as client:
                client.post(hostile, content=b"{}")
    assert connections == []


def test_a_refusal_names_the_setting_that_would_allow_it() -> None:
    with pytest.raises(AddressNotAllowed) as refusal:
        Guard(settings()).check("https://10.0.0.1/hook")
    assert refusal.value.status == 422
    assert refusal.value.faults[0].code == "address_not_allowed"
    assert "PLUMBLINE_OUTBOUND_ALLOW" in refusal.value.detail


@pytest.mark.parametrize(
    "address",
    ["64:ff9b::7f00:1", "2002:7f00:1::", "fec0::1", "192.88.99.1", "100.64.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
     "224.0.0.1", "255.255.255.255", "2001:db8::1", "fe80::1%eth0", "2001::1"],
)  # fmt: skip
def test_addresses_inside_are_not_global_whatever_python_says(address: str) -> None:
    assert not is_global(ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"])
def test_addresses_of_the_open_internet_are_global(address: str) -> None:
    assert is_global(ip_address(address))


def test_one_address_inside_among_many_refuses_the_host() -> None:
    guard = Guard(settings(), resolve=lambda _host, _port: ["93.184.216.34", "127.0.0.1"])
    with pytest.raises(AddressNotAllowed):
        guard.check("https://mixed.test/")


@pytest.mark.parametrize("times", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_a_resolver_that_changes_its_mind_never_leads_inside(times: int) -> None:
    answers = [0]

    def rebinding(_host: str, _port: int) -> list[str]:
        answers[0] += 1
        return ["93.184.216.34"] if answers[0] % 2 else ["127.0.0.1"]

    guard = Guard(settings(), resolve=rebinding)
    with watched_connections() as connections:
        for _ in range(times):
            with pytest.raises((httpcore2.ConnectError, httpcore2.TimeoutException)), guard.client(0.002) as client:
                client.post("https://rebinding.test/", content=b"{}")
    assert {address[0] for address in connections} <= {"93.184.216.34"}
    assert answers[0] == times


def test_a_name_without_address_is_left_to_the_call() -> None:
    def unknown(_host: str, _port: int) -> list[str]:
        raise socket.gaierror("no such name")

    guard = Guard(settings(), resolve=unknown)
    guard.check("https://not-there-yet.test/")
    with pytest.raises(httpcore2.ConnectError), guard.client(PATIENCE) as client:
        client.post("https://not-there-yet.test/", content=b"{}")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate for a host, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "host.pem", folder / "host.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return public, private


@contextmanager
def answering(
    answer: bytes, tls: ssl.SSLContext | None = None, pause: float = 0.0
) -> Iterator[tuple[int, list[bytes]]]:
    """Listen on a free port of this host, read one request a connection and answer it, a byte at a time if asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    requests: list[bytes] = []
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                connection.settimeout(PATIENCE)
                request = b""
                while not request.endswith(b"{}"):
                    request += connection.recv(65536)
                requests.append(request)
                for start in range(0, len(answer), 1 if pause else max(len(answer), 1)):
                    connection.sendall(answer[start : start + 1] if pause else answer)
                    if pause and ended.wait(pause):
                        break
            except OSError:
                pass
            finally:
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], requests
    finally:
        ended.set()
        listener.close()
        thread.join()


def test_the_checked_address_is_called_under_the_name_that_was_asked_for(tmp_path: Path) -> None:
    public, private = certificate(tmp_path, "hook.test")
    names: list[str | None] = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(public, private)
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    allowed = settings(outbound_allow=("127.0.0.0/8",), ca_bundle=public)
    guard = Guard(allowed, resolve=lambda _host, _port: ["127.0.0.1"])
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n", tls) as (port, requests), guard.client(PATIENCE) as client:
        assert client.post(f"https://hook.test:{port}/x", content=b"{}").status_code == 204
    assert names == ["hook.test"]
    assert f"host: hook.test:{port}".encode() in requests[0].lower()


def test_a_redirect_is_not_followed() -> None:
    guard = Guard(settings(outbound_http=True, outbound_allow=("127.0.0.1",)))
    answer = b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"
    with answering(answer) as (port, _), guard.client(PATIENCE) as client, watched_connections() as connections:
        assert client.post(f"http://127.0.0.1:{port}/", content=b"{}").status_code == 302
    assert [address[0] for address in connections] == ["127.0.0.1"]


def test_an_answer_that_drips_ends_with_the_whole_exchange_s_time() -> None:
    guard = Guard(settings(outbound_http=True, outbound_allow=("127.0.0.1",)))
    with (
        answering(b"HTTP/1.1 200 OK\r\nx-y: " + b"z" * 10_000, pause=0.05) as (port, _),
        guard.client(0.5) as client,
        pytest.raises((TooSlow, httpcore2.ReadTimeout)),
    ):
        client.post(f"http://127.0.0.1:{port}/", content=b"{}")


def test_plain_http_needs_both_the_setting_and_an_allowed_host() -> None:
    for changes in (
        {"outbound_http": True},
        {"outbound_allow": ("127.0.0.1",)},
        {"outbound_http": True, "outbound_allow": ("10.0.0.0/8",)},
    ):
        with pytest.raises(AddressNotAllowed):
            Guard(settings(**changes)).check("http://127.0.0.1:8080/")
    Guard(settings(outbound_http=True, outbound_allow=("127.0.0.1",))).check("http://127.0.0.1:8080/")


def test_the_environment_s_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1/")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1/")
    guard = Guard(settings(outbound_http=True, outbound_allow=("127.0.0.1",)))
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, _), guard.client(PATIENCE) as client:
        assert client.post(f"http://127.0.0.1:{port}/", content=b"{}").status_code == 204
