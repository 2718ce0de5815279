"""Keyed 64-bit hashes of text: SipHash-1-3 over Arrow's string buffers, so that ids can be compared as numbers."""

from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

Key = tuple[int, int]


def hash_key(secret: bytes) -> Key:
    """Return the two 64-bit halves of the key of id hashes, derived from the service's secret."""
    drawn = blake2b(b"prediction ids", key=secret[:64], digest_size=16).digest()
    return int.from_bytes(drawn[:8], "little"), int.from_bytes(drawn[8:], "little")


def hash_ids(array: pa.Array, key: Key) -> NDArray[np.uint64]:
    """Return the hash of each text of a string, large string or dictionary array; null hashes like the empty text.

    Source: Aumasson and Bernstein (2012), SipHash, with one compression and three finalisation rounds.
    """
    if isinstance(array, pa.ChunkedArray):
        parts = [hash_ids(chunk, key) for chunk in array.chunks]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)
    if pa.types.is_dictionary(array.type):
        known = hash_ids(array.dictionary, key)
        codes = array.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        empty = hash_ids(pa.array([""]), key)
        return np.asarray(np.concatenate([known, empty])[codes], dtype=np.uint64)
    data, offsets = text_buffers(array)
    return np.asarray(_hash_all(data, offsets, np.uint64(key[0]), np.uint64(key[1])), dtype=np.uint64)


def text_buffers(array: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the bytes and the len + 1 offsets of a string array; a null has equal offsets."""
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise TypeError(f"texts are needed, not {array.type}")
    if array.null_count:
        array = array.fill_null("")
    _, raw_offsets, raw = array.buffers()
    if raw_offsets is None or not len(array):
        return np.empty(0, np.uint8), np.zeros(len(array) + 1, np.int64)
    width: Any = np.int64 if pa.types.is_large_string(array.type) else np.int32
    offsets = np.frombuffer(raw_offsets, width)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(raw, np.uint8) if raw is not None and raw.size else np.empty(0, np.uint8)
    return data, offsets.astype(np.int64, copy=False)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hash_all(data: Any, offsets: Any, k0: Any, k1: Any) -> Any:
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for row in range(len(hashes)):
        hashes[row] = siphash(data, offsets[row], offsets[row + 1], k0, k1)
    return hashes


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _rotated(value: Any, bits: int) -> Any:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def siphash(data: Any, start: int, stop: int, k0: Any, k1: Any) -> Any:
    """Return SipHash-1-3 of ``data[start:stop]``."""
    v0 = k0 ^ np.uint64(0x736F6D6570736575)
    v1 = k1 ^ np.uint64(0x646F72616E646F6D)
    v2 = k0 ^ np.uint64(0x6C7967656E657261)
    v3 = k1 ^ np.uint64(0x7465646279746573)
    length = stop - start
    whole = start + (length // 8) * 8
    at = start
    for step in range(length // 8 + 4):
        if at < whole:
            word = np.uint64(0)
            for byte in range(8):
                word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
            at += 8
        elif step == length // 8:
            word = np.uint64(length & 0xFF) << np.uint64(56)
            for byte in range(stop - whole):
                word |= np.uint64(data[whole + byte]) << np.uint64(8 * byte)
        else:
            word = np.uint64(0)
            if step == length // 8 + 1:
                v2 ^= np.uint64(0xFF)
        v3 ^= word
        v0 += v1
        v1 = _rotated(v1, 13)
        v1 ^= v0
        v0 = _rotated(v0, 32)
        v2 += v3
        v3 = _rotated(v3, 16)
        v3 ^= v2
        v0 += v3
        v3 = _rotated(v3, 21)
        v3 ^= v0
        v2 += v1
        v1 = _rotated(v1, 17)
        v1 ^= v2
        v2 = _rotated(v2, 32)
        v0 ^= word
    return v0 ^ v1 ^ v2 ^ v3
