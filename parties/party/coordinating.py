"""Answer a session's coordinator in one call that stays open, in which each message asks what a call of its own would.

A part is answered by the very methods that answer those calls, so they decide what it may do and what is said when it
may not.  The caller's certificate and the policy are asked anew for each part (`parties/wire/callers.py`), as they are
for each call.  Between two parts nothing of the session is held here: it may end, and what it had is free.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import grpc

from mpc.errors import PeerError
from parties.alarms import ends_within
from parties.pb import party_pb2
from parties.pb.party_pb2 import CoordinatePart, CoordinateReply
from parties.wire.transport import FRAME_BYTES, answered_within

Ended = Generator[party_pb2.ResultPart, None, Callable[[], None]]
"""Parts of a run's result.  What is returned behind them notes that the caller was told: it is called once all are
sent."""


class Calls(Protocol):
    """The calls that parts of a `Coordinate` stand for."""

    def Prepare(self, request: party_pb2.PrepareRequest, context: grpc.ServicerContext) -> party_pb2.PrepareReply:
        """Have a run prepared."""

    def Masks(self, request: party_pb2.MasksRequest, context: grpc.ServicerContext) -> party_pb2.MasksReply:
        """Hand out masks."""

    def SubmitWhole(self, request: party_pb2.WholeInput, context: grpc.ServicerContext) -> party_pb2.SubmitReply:
        """Take an input."""

    def result(self, request: party_pb2.ResultRequest, context: grpc.ServicerContext) -> Ended:
        """Wait for a run."""


def session_of(part: CoordinatePart, client: str) -> bytes:
    """Return the id of the session that a part is about; `PeerError` unless it is about exactly one."""
    asked = [each for name in ("prepare", "masks", "result") if part.HasField(name) for each in (getattr(part, name),)]
    ids = {each.session_id for each in asked} | {each.header.session_id for each in part.inputs}
    if len(ids) != 1:
        raise PeerError("a part of a call is about one session", peer=client)
    return ids.pop()


def answer(
    calls: Calls, part: CoordinatePart, context: grpc.ServicerContext, seconds: float
) -> Iterator[CoordinateReply]:
    """Do what a part asks, and yield what it is answered; raise what the first of its calls that fails would.

    Args:
        seconds: for a caller that does not read what it is sent.
    """
    reply = CoordinateReply(ended=not part.HasField("result"))
    with answered_within(part.seconds):
        if part.HasField("prepare"):
            reply.prepared.CopyFrom(calls.Prepare(part.prepare, context))
        if part.HasField("masks"):
            reply.masks.CopyFrom(calls.Masks(part.masks, context))
        for given in part.inputs:
            calls.SubmitWhole(given, context)
    if reply.ended or reply.HasField("prepared") or reply.HasField("masks"):
        yield reply
    if not reply.ended:
        yield from _follow(calls.result(part.result, context), context, seconds)


def _follow(parts: Ended, context: grpc.ServicerContext, seconds: float) -> Iterator[CoordinateReply]:
    """Pass on how a run is doing as it is said, and how it has ended in as few messages as hold it."""
    joined, size = CoordinateReply(), 0
    while True:
        try:
            part = next(parts)
        except StopIteration as end:
            tell = end.value
            break
        if part.HasField("progress"):
            yield CoordinateReply(result=[part])
            continue
        more = part.ByteSize()
        if size and size + more > FRAME_BYTES:
            with ends_within(context, seconds):
                yield joined
            joined, size = CoordinateReply(), 0
        joined.result.append(part)
        size += more
    joined.ended = True
    with ends_within(context, seconds):
        yield joined
    tell()
