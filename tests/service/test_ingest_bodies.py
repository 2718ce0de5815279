"""Reading bodies under their limits: compressed, too large, too late, broken."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator

import pytest
import zstandard

from service.ingest import bodies
from service.problems import BadRequest, MediaTypeUnknown, TooLarge
from tests import loops
from tests.pace import slower
from tests.service.test_ingest_formats import peak

TEXT = b'{"features": {"age": 41}}' * 1000


async def pieces(body: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    """Give a body as a network does."""
    for start in range(0, len(body), size):
        yield body[start : start + size]
    yield b""


def read(body: bytes, wire: int = 2**24, inflated: int = 2**26, size: int = 65_536, **headers: str) -> bytes:
    """Read a body with these headers."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return loops.run(bodies.read(pieces(body, size), given, wire=wire, inflated=inflated))


@pytest.mark.parametrize("size", [1, 7, 65_536])
def test_bodies_arrive_as_they_were_sent(size: int) -> None:
    assert read(TEXT, size=size) == TEXT
    assert read(b"") == b""
    assert read(gzip.compress(TEXT), size=size, content_encoding="gzip") == TEXT
    assert read(gzip.compress(TEXT), size=max(2, size)) == TEXT  # recognised by its first bytes
    assert read(zstandard.compress(TEXT), size=size, content_encoding="zstd") == TEXT


def test_members_of_gzip_are_joined() -> None:
    assert read(gzip.compress(b"one ") + gzip.compress(b"two"), size=5, content_encoding="gzip") == b"one two"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_broken_compression_is_a_bad_request(encoding: str) -> None:
    with pytest.raises(BadRequest):
        read(b"nonsense", content_encoding=encoding)
    with pytest.raises(BadRequest):
        read(gzip.compress(TEXT)[:-10], content_encoding="gzip")


def test_an_unknown_encoding_names_those_that_are_known() -> None:
    with pytest.raises(MediaTypeUnknown, match="zstd"):
        read(TEXT, content_encoding="br")


def test_a_body_over_a_limit_is_refused_whether_it_says_so_or_not() -> None:
    with pytest.raises(TooLarge, match="1000 bytes on the wire"):
        read(TEXT, wire=1000, content_length=str(len(TEXT)))
    with pytest.raises(TooLarge, match="1000 bytes on the wire"):
        read(TEXT, wire=1000)
    with pytest.raises(TooLarge, match="2000 bytes decompressed"):
        read(gzip.compress(TEXT), inflated=2000)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_bombs_are_refused_within_a_second_and_32_mebibytes(encoding: str) -> None:
    zeros = bytes(50 * 2**20)
    body = gzip.compress(zeros) if encoding == "gzip" else zstandard.compress(zeros)
    del zeros
    before, began = peak(), time.process_time()
    with pytest.raises(TooLarge, match="200 times"):
        read(body, inflated=2**28, content_encoding=encoding)
    assert time.process_time() - began < 1.0 * slower()
    assert peak() - before < 32 * 2**20


def test_a_window_of_gigabytes_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = compressor.compress(TEXT * 40) + compressor.flush()
    with pytest.raises(BadRequest):
        read(body, content_encoding="zstd")


def test_a_body_that_stays_out_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "DEADLINE", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(10)

    with pytest.raises(BadRequest, match="did not arrive"):
        loops.run(bodies.read(slow(), {}, wire=100, inflated=100))
