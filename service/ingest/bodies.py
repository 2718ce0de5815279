"""A request's body, read under its limits: on the wire, inflated, and how far it may inflate."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import IO, Protocol, cast

import zstandard

from service.problems import BadRequest, MediaTypeUnknown, TooLarge

RATIO = 200
"""How many times larger a body may be inflated than on the wire, once it is over `FREE`."""
FREE = 2**20
_CHUNK = 2**17
_WINDOW = 8 * 2**20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
DEADLINE = 60.0
"""Seconds within which a body has to have arrived."""


class Inflater(Protocol):
    """Undoes a Content-Encoding, piece by piece."""

    def feed(self, piece: bytes) -> None:
        """Take in a piece; what is inflated is kept."""
        ...

    def finish(self) -> bytes:
        """Return everything; raises `BadRequest` where the end is missing."""
        ...


async def read(
    pieces: AsyncIterator[bytes], headers: Mapping[str, str], *, wire: int, inflated: int, sniff: bool = True
) -> bytes:
    """Return the whole body, inflated.

    ``wire`` and ``inflated`` are limits in bytes; ``sniff`` recognises gzip by its first bytes without a header.
    Raises `TooLarge`, `MediaTypeUnknown` for an encoding, `BadRequest` for one that is broken or a body that stays out.
    """
    said = headers.get("content-length", "")
    if said.isdigit() and int(said) > wire:
        raise _too_large(wire, "on the wire")
    encoding = headers.get("content-encoding", "identity").strip().lower() or "identity"
    if encoding not in ("identity", "gzip", "x-gzip", "zstd"):
        raise MediaTypeUnknown(f"the encoding {encoding!r} is not read here; send gzip, zstd or none")
    try:
        async with asyncio.timeout(DEADLINE):
            return await _read(pieces, encoding, wire, inflated, sniff)
    except TimeoutError:
        raise BadRequest(f"the body did not arrive within {DEADLINE:.0f} seconds") from None


async def _read(pieces: AsyncIterator[bytes], encoding: str, wire: int, inflated: int, sniff: bool) -> bytes:
    received = 0
    inflater: Inflater | None = None
    kept: list[bytes] = []
    started = False
    async for piece in pieces:
        if not piece:
            continue
        received += len(piece)
        if received > wire:
            raise _too_large(wire, "on the wire")
        if not started:
            started = True
            if encoding in ("gzip", "x-gzip") or (sniff and piece.startswith(_GZIP)):
                inflater = Gzip(inflated)
            elif encoding == "zstd" or (sniff and piece.startswith(_ZSTD)):
                inflater = Zstandard(inflated)
        if inflater is None:
            kept.append(piece)
        else:
            inflater.feed(piece)
    if inflater is not None:
        return inflater.finish()
    return kept[0] if len(kept) == 1 else b"".join(kept)


class _Inflated:
    """What was inflated so far, under both limits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.received = 0
        self.data = bytearray()

    def write(self, piece: bytes) -> int:
        size = len(self.data) + len(piece)
        if size > self._limit:
            raise _too_large(self._limit, "decompressed")
        if size > FREE and size > RATIO * self.received:
            raise TooLarge(f"the body inflates to more than {RATIO} times its size", limit=RATIO)
        self.data += piece
        return len(piece)


class Gzip:
    """Inflates gzip, members after members."""

    def __init__(self, limit: int) -> None:
        self._out = _Inflated(limit)
        self._stream = zlib.decompressobj(31)
        self._open = False

    def feed(self, piece: bytes) -> None:
        """Take in a piece."""
        self._out.received += len(piece)
        while piece:
            if self._stream.eof:
                self._stream = zlib.decompressobj(31)
            self._open = True
            try:
                self._out.write(self._stream.decompress(piece, _CHUNK))
            except zlib.error as broken:
                raise BadRequest(f"the body is not gzip: {broken}") from None
            if self._stream.eof:
                self._open = False
                piece = self._stream.unused_data.lstrip(b"\x00")
            else:
                piece = self._stream.unconsumed_tail

    def finish(self) -> bytes:
        """Return everything."""
        if self._open or not self._out.received:
            raise BadRequest("the gzip body ends too early")
        return bytes(self._out.data)


class Zstandard:
    """Inflates Zstandard with a window of at most 8 MiB."""

    def __init__(self, limit: int) -> None:
        self._out = _Inflated(limit)
        self._stream = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_writer(
            cast(IO[bytes], self._out), write_size=_CHUNK, closefd=False
        )

    def feed(self, piece: bytes) -> None:
        """Take in a piece."""
        self._out.received += len(piece)
        try:
            self._stream.write(piece)
        except zstandard.ZstdError as broken:
            raise BadRequest(f"the body is not zstd: {broken}") from None

    def finish(self) -> bytes:
        """Return everything."""
        return bytes(self._out.data)


def _too_large(limit: int, where: str) -> TooLarge:
    return TooLarge(f"the body has more than {limit} bytes {where}", limit=limit)
