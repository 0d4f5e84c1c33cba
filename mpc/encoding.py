"""Canonical bytes: the only module where bytes from outside become arrays.

Field elements and words are 8 little-endian bytes each; bits of one array are packed eight
to a byte; leaf words take whole bytes.  Every decoder checks the exact length before it
allocates and the range of every element; what it returns cannot be written to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from mpc import kernels
from mpc.errors import EncodingError

Part = bytes | memoryview | str | int

FIELD_BYTES = 8


def pieces(*parts: Part) -> Iterator[bytes | memoryview]:
    """Yield one unambiguous encoding of a sequence, piece by piece: each part with its type and length.

    Integers are non-negative and take 8 bytes; there are no two sequences with equal bytes.
    """
    body: bytes | memoryview
    for part in parts:
        if isinstance(part, int):
            tag, body = b"i", part.to_bytes(8, "big")
        elif isinstance(part, str):
            tag, body = b"s", part.encode()
        else:
            tag, body = b"b", part
        yield tag + len(body).to_bytes(8, "big")
        yield body


def canonical(*parts: Part) -> bytes:
    """Return the encoding in one."""
    return b"".join(pieces(*parts))  # parts that follow are appended: see `mpc.prg.Seed.derive_encoded`


def digest(tag: str, *parts: Part) -> bytes:
    """Return SHA-256 of `canonical(tag, *parts)`, 32 bytes; the tag separates the uses."""
    state = hashlib.sha256()
    for piece in pieces(tag, *parts):
        state.update(piece)
    return state.digest()


def word_type(width: int) -> np.dtype:
    """Return the smallest unsigned type that holds `width` bits, 1 to 64."""
    for size in (8, 16, 32, 64):
        if width <= size:
            return np.dtype(f"<u{size // 8}")
    raise ValueError(f"no word of {width} bits")


def field_size(shape: Sequence[int]) -> int:
    """Count the bytes that field elements of this shape take."""
    return FIELD_BYTES * prod(shape)


def bits_size(shape: Sequence[int], width: int) -> int:
    """Count the bytes that words of `width` bits take: packed when they are single bits."""
    count = prod(shape)
    return -(-count // 8) if width == 1 else count * word_type(width).itemsize


def encode_field(values: np.ndarray) -> bytes:
    """Encode canonical elements, 8 little-endian bytes each."""
    return bytes(view_field(values))


def view_field(values: np.ndarray) -> memoryview:
    """Return these bytes without a copy, where the array is contiguous: it must not change while they are used."""
    return np.ascontiguousarray(values, dtype="<u8").reshape(-1).data.cast("B")


def decode_field(data: bytes | memoryview, shape: Sequence[int]) -> np.ndarray:
    """Return the inverse of `encode_field`; `EncodingError` on a wrong length or an element >= p."""
    _require_length(data, field_size(shape))
    values = _aligned(np.frombuffer(data, dtype="<u8"))
    if kernels.count_not_canonical(values):
        raise EncodingError("a field element is not below p", cause="bytes that no honest encoder makes")
    return _frozen(values.reshape(tuple(shape)))


def add_field(own: memoryview, received: memoryview) -> memoryview:
    """Return the encoding of the sum of what two encodings of one length stand for; refuses as `decode_field` the
    second.
    """
    _require_length(received, len(own))
    left, right = (_aligned(np.frombuffer(data.toreadonly(), dtype="<u8")) for data in (own, received))
    out = np.empty(left.size, dtype=np.uint64)
    if kernels.add_received(left, right, out):
        raise EncodingError("a field element is not below p", cause="bytes that no honest encoder makes")
    return out.data.cast("B")


def view_words(values: np.ndarray) -> np.ndarray:
    """Return words as loops take them that read them wherever they lie: one is compiled for arrays of all kinds."""
    view = values.view()
    view.setflags(write=False, align=False)
    return view


def encode_bits(values: np.ndarray, width: int) -> bytes:
    """Encode words of `width` bits, packed eight to a byte when width is 1."""
    return bytes(view_bits(values, width))


def view_bits(values: np.ndarray, width: int) -> memoryview:
    """Return these bytes without a copy, where the array is contiguous; see `view_field`."""
    if width == 1:
        return np.packbits(values.reshape(-1), bitorder="little").data
    return np.ascontiguousarray(values, dtype=word_type(width)).reshape(-1).data.cast("B")


def add_bits(own: memoryview, received: memoryview) -> memoryview:
    """Return the encoding of the xor of what two encodings of one length stand for."""
    _require_length(received, len(own))
    left, right = (np.frombuffer(data, dtype=np.uint8) for data in (own, received))
    return np.bitwise_xor(left, right).data


def decode_bits(data: bytes | memoryview, shape: Sequence[int], width: int) -> np.ndarray:
    """Return the inverse of `encode_bits`; `EncodingError` on a wrong length or a bit outside the width."""
    return _frozen(read_bits(data, shape, width))


def read_bits(data: bytes | memoryview, shape: Sequence[int], width: int) -> np.ndarray:
    """Read packed bits into an array that may be written to if the data may."""
    _require_length(data, bits_size(shape, width))
    count = prod(shape)
    if width == 1:
        packed = np.frombuffer(data, dtype=np.uint8)
        values = np.unpackbits(packed, bitorder="little")
        if values[count:].any():
            raise EncodingError("padding bits are not zero", cause="bytes that no honest encoder makes")
        return values[:count].reshape(tuple(shape))
    words = _aligned(np.frombuffer(data, dtype=word_type(width)))
    if width < 8 * words.itemsize and (words >> words.dtype.type(width)).any():
        raise EncodingError(f"a word has more than {width} bits", cause="bytes that no honest encoder makes")
    return words.reshape(tuple(shape))


def _require_length(data: bytes | memoryview, expected: int) -> None:
    if len(data) != expected:
        raise EncodingError(f"{len(data)} bytes where {expected} belong", cause="a wrong length or shape")


def _aligned(values: np.ndarray) -> np.ndarray:
    return values if values.flags.aligned else values.copy()


def _frozen(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values
