"""What is written and read by hand is what protobuf writes and reads."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from parties.pb.party_pb2 import Abort, Frame, Hello, Payload
from parties.pb.provider_pb2 import DealEnd, DealHeader, DealPart
from parties.wire.frames import Chunk, Piece, decode_frame, decode_part, encode_frame, encode_part
from tests.support.effort import examples

numbers = st.one_of(st.sampled_from([0, 1, 127, 128, 16383, 16384, (1 << 32) - 1]), st.integers(0, (1 << 32) - 1))
data = st.one_of(st.binary(max_size=300), st.sampled_from([b"", b"x" * 127, b"y" * 128, bytes(1 << 20)]))


@examples(200)
@given(numbers, numbers, data)
def test_pieces_are_payload_frames(run: int, step: int, content: bytes) -> None:
    message = Frame(payload=Payload(run=run, step=step, data=content))
    encoded = encode_frame(Piece(run, step, memoryview(content)))
    assert Frame.FromString(encoded) == message
    assert decode_frame(encoded) == decode_frame(message.SerializeToString()) == Piece(run, step, content)


@examples(50)
@given(data)
def test_chunks_are_parts(content: bytes) -> None:
    message = DealPart(chunk=content)
    assert encode_part(Chunk(memoryview(content))) == message.SerializeToString()
    assert decode_part(message.SerializeToString()) == Chunk(content)


@pytest.mark.parametrize(
    "frame",
    [Frame(), Frame(hello=Hello(protocol=1, salt=b"s" * 32)), Frame(abort=Abort(code="peer", about="party-1"))],
)
def test_other_frames_pass_as_they_are(frame: Frame) -> None:
    assert encode_frame(frame) == frame.SerializeToString()
    assert decode_frame(frame.SerializeToString()) == frame


@pytest.mark.parametrize(
    "part", [DealPart(), DealPart(header=DealHeader(seed=b"s", corrections=9)), DealPart(end=DealEnd(deal_seconds=1))]
)
def test_other_parts_pass_as_they_are(part: DealPart) -> None:
    assert encode_part(part) == part.SerializeToString()
    assert decode_part(part.SerializeToString()) == part


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (b"\x10\x02\x08\x01\x1a\x03abc", Piece(1, 2, b"abc")),  # fields in another order
        (b"\x08\x05\x08\x01\x10\x02\x1a\x03abc", Piece(1, 2, b"abc")),  # the last of two counts
        (b"\x08\x81\x00\x10\x02\x1a\x03abc", Piece(1, 2, b"abc")),  # a number longer than it has to be
        (b"\x08\x01\x10\x02\x1a\x03abc\x20\x07", Piece(1, 2, b"abc")),  # a field of a later version
        (b"\x1a\x03abc\x1a\x01z", Piece(0, 0, b"z")),
        (b"\x08\x01", Piece(1, 0, b"")),
        (b"", Piece(0, 0, b"")),
    ],
)
def test_any_encoding_that_protobuf_reads_is_read(inner: bytes, expected: Piece) -> None:
    message = b"\x12" + bytes([len(inner)]) + inner
    assert Frame.FromString(message).WhichOneof("body") == "payload"
    assert decode_frame(message) == expected


scraps = st.lists(
    st.one_of(
        st.sampled_from([b"\x08", b"\x10", b"\x1a", b"\x01", b"\x03abc", b"\x80", b"\x00"]), st.binary(max_size=3)
    )
)
wrapped = scraps.map(b"".join).filter(lambda inner: len(inner) < 128).map(lambda i: b"\x12" + bytes([len(i)]) + i)


@examples(300)
@given(st.one_of(st.binary(max_size=60), wrapped))
def test_bytes_from_anywhere_are_read_as_protobuf_does_or_refused(message: bytes) -> None:
    try:
        frame = Frame.FromString(message)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_frame(message)
        return
    found = decode_frame(message)
    if frame.WhichOneof("body") == "payload":
        assert found == Piece(frame.payload.run, frame.payload.step, frame.payload.data)
    else:
        assert found == frame
