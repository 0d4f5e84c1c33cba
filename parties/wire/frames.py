"""Read and write the two streams that carry nearly all bytes, without protobuf's copies.

Every message is exactly what protos/ says and any protobuf library reads; but a message that is
little else than one long field is put together in one copy, and taken apart in none.  What does
not have the plain form that this module writes is left to protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import grpc

from parties.pb.party_pb2 import Frame, Payload
from parties.pb.provider_pb2 import DealPart, DealRequest

_EXCHANGE = ("mpc.v1.Peer", "Exchange")
_DEALS = ("mpc.v1.Provider", "Deals")
_RUN, _STEP, _LAST = b"\x08", b"\x10", b"\x1a"  # Payload: fields 1 and 2 are varints, field 3 bytes
_BULK = b"\x12"  # field 2 of Frame, a message, and of DealPart, bytes
_LONGEST_VARINT = 5


class Piece(NamedTuple):
    """A piece of one step's payload: the message `Payload` in a `Frame`."""

    run: int
    step: int
    data: bytes | memoryview


class Chunk(NamedTuple):
    """A piece of corrections: `chunk` in a `DealPart`."""

    data: bytes | memoryview


def encode_frame(frame: Frame | Piece) -> bytes:
    """Encode a `Frame`."""
    if not isinstance(frame, Piece):
        return frame.SerializeToString()
    head = Payload(run=frame.run, step=frame.step).SerializeToString() + _LAST + _varint(len(frame.data))
    return b"".join((_BULK, _varint(len(head) + len(frame.data)), head, frame.data))


def decode_frame(message: bytes) -> Frame | Piece:
    """Decode a payload as a `Piece`, anything else as the `Frame` that it is."""
    piece = _read_piece(message)
    if piece is not None:
        return piece
    frame = Frame.FromString(message)
    if frame.WhichOneof("body") != "payload":
        return frame
    return Piece(frame.payload.run, frame.payload.step, frame.payload.data)


def encode_part(part: DealPart | Chunk) -> bytes:
    """Encode a `DealPart`."""
    if not isinstance(part, Chunk):
        return part.SerializeToString()
    return b"".join((_BULK, _varint(len(part.data)), part.data))


def decode_part(message: bytes) -> DealPart | Chunk:
    """Decode corrections as a `Chunk`, anything else as the `DealPart` that it is."""
    data = _last(message, 0, _BULK)
    if data is not None:
        return Chunk(data)
    part = DealPart.FromString(message)
    return Chunk(part.chunk) if part.WhichOneof("part") == "chunk" else part


# ------------------------------------------------------------------------------ varints


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, start: int) -> tuple[int, int] | None:
    """Read a number of at most 32 bits; return it, and where it ends."""
    value = 0
    for place, byte in enumerate(message[start : start + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return (value, start + place + 1) if value < 1 << 32 else None
    return None


def _last(message: bytes, start: int, tag: bytes) -> memoryview | None:
    """Return the field of that tag if it starts here and is all that is left."""
    if message[start : start + 1] != tag or (found := _read_varint(message, start + 1)) is None:
        return None
    size, start = found
    return memoryview(message)[start:] if size == len(message) - start else None


def _read_piece(message: bytes) -> Piece | None:
    inside = _last(message, 0, _BULK)
    if inside is None:
        return None
    start, numbers = len(message) - len(inside), []
    for tag in (_RUN, _STEP):
        number = 0  # what is 0 is left out
        if message[start : start + 1] == tag:
            if (found := _read_varint(message, start + 1)) is None:
                return None
            number, start = found
        numbers.append(number)
    data = _last(message, start, _LAST)
    return None if data is None else Piece(numbers[0], numbers[1], data)


# ------------------------------------------------------------------------------ streams

EXCHANGE = (decode_frame, encode_frame)
"""How a server reads and writes `Peer.Exchange`."""
DEAL = (DealRequest.FromString, encode_part)
"""How a server reads and writes `Provider.Deals`."""


def exchange(channel: grpc.Channel, frames: Iterator[Frame | Piece]) -> Iterable[Frame | Piece]:
    """Call `Peer.Exchange`: send these frames, receive the peer's."""
    call = channel.stream_stream(_path(_EXCHANGE), request_serializer=encode_frame, response_deserializer=decode_frame)
    replies: Iterable[Frame | Piece] = call(frames)
    return replies


def deals(channel: grpc.Channel, requests: Iterator[DealRequest]) -> Any:
    """Call `Provider.Deals`; whoever reads the replies, parts and chunks, sees to it that they come."""
    call = channel.stream_stream(
        _path(_DEALS), request_serializer=DealRequest.SerializeToString, response_deserializer=decode_part
    )
    return call(requests, wait_for_ready=False)


def _path(method: tuple[str, str]) -> str:
    return "/" + "/".join(method)
