"""Errors across a connection: what is told of one, and the error that a failed call stands for.

A failed call carries one JSON object, `{"code", "what", "cause", "remedy", "peer", "heard_from"}`, as its
status detail; the other side turns it back into the same error class.  Anything unexpected
becomes the code `internal` and nothing else.
"""

from __future__ import annotations

import json
import re
from typing import Any

import grpc

from mpc.errors import DeadlineError, MpcError, PeerError, PlanError, by_code
from mpc.text import shown
from parties.trust.identity import Identity
from parties.wire.calls import Unreachable
from parties.wire.dialling import diagnose

_LONGEST_TEXT = 2000
_TOO_LARGE = re.compile(r"larger than max \((\d{1,12}) vs\. (\d{1,12})\)")
"""Match what gRPC says of a message that it does not take in; it is no detail of ours, which is JSON."""

_WORDLESS = (
    grpc.StatusCode.OK,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
)
"""Says of a call that its server did not end it, or ended it well."""


def to_detail(error: MpcError) -> str:
    """Encode an error as the JSON object that travels."""
    fields = {
        "code": error.code,
        "what": error.what,
        "cause": error.cause,
        "remedy": error.remedy,
        "peer": error.peer,
        "heard_from": error.heard_from,
    }
    return json.dumps({key: str(value)[:_LONGEST_TEXT] for key, value in fields.items() if value})


def from_rpc(error: grpc.RpcError, name: str, address: str, identity: Identity | None = None) -> MpcError:
    """Return the error that a failed call to `name` stands for.

    identity: ours; with it, a connection that was lost is tried once more, to say why it was.
    """
    error.__traceback__ = None  # gRPC raises the call itself, which whoever made it keeps: its frames would stay
    if isinstance(error, Unreachable):
        return error.known.again()
    code, detail = _ending(error)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return late(name, address)
    if code == grpc.StatusCode.UNAVAILABLE:
        return diagnose(identity, name, address)
    if (sizes := _TOO_LARGE.search(detail)) is not None:
        return _too_large(name, *(int(size) for size in sizes.groups()))
    if code == grpc.StatusCode.CANCELLED:
        return PeerError(f"the call to {name} was cancelled", peer=name)
    return _from_detail(detail, name)


def has_ended_well(call: Any) -> bool:
    """Has a call, one of gRPC's that is over, not failed?"""
    return isinstance(call, grpc.Call) and call.code() is grpc.StatusCode.OK


def was_cancelled(error: Any) -> bool:
    """Has a call ended because this side ended it?  gRPC's types leave out that its error has a code."""
    return bool(error.code() is grpc.StatusCode.CANCELLED)


def said_by(call: Any, name: str) -> MpcError | None:
    """Return the error that `name` has ended a call with in its own words; None if there are none.  Nothing is dialled.

    call: one of gRPC's that is over.
    """
    code, detail = _ending(call)
    return None if code in _WORDLESS or not detail else _from_detail(detail, name)


def late(name: str, address: str) -> DeadlineError:
    """Make the error of a process that has not answered within the time that a caller gave it."""
    return DeadlineError(
        f"{name} at {address} did not answer in time",
        cause="it is busy, or a signal has frozen it, or the network between is",
        remedy="mpc doctor; deadlines are in the configs",
        peer=name,
    )


def _too_large(name: str, size: int, most: int) -> MpcError:
    """Return the error of a message that a process does not even read; of all messages only plans grow so."""
    return PlanError(
        f"{name} takes messages of at most {most:,} bytes, and this one, which has a plan in it, has {size:,}",
        cause=f"a plan is as long as its model has layers, and {name}'s limits.max_plan_bytes is less",
        remedy=f"raise limits.max_plan_bytes of every party and of the provider to {_rounded(size):,}",
        peer=name,
    )


def _rounded(size: int) -> int:
    """Return the next power of two."""
    return 1 << (size - 1).bit_length()


def _ending(error: Any) -> tuple[grpc.StatusCode, str]:
    """Return the status and the detail of a call that has failed: gRPC raises the call itself."""
    return (error.code(), error.details() or "") if isinstance(error, grpc.Call) else (grpc.StatusCode.UNKNOWN, "")


def _from_detail(detail: str, name: str) -> MpcError:
    try:
        fields = json.loads(detail)
        texts = {key: fields[key] for key in ("what", "cause", "remedy", "peer", "heard_from") if key in fields}
        if not all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in texts.values()):
            raise ValueError
        texts = {key: shown(text) for key, text in texts.items()}
        cls = by_code(str(fields["code"]))
        peer, what = texts.get("peer") or name, texts.get("what", "failed")
        lost = peer == name or cls.exit_code == PeerError.exit_code
        said = cls(
            f"{name}: {what}" if lost else f"{name} says of {peer}: {what}",  # a text that names it may be a lie of it
            cause=texts.get("cause"),
            remedy=texts.get("remedy"),
            peer=peer,
            heard_from=texts.get("heard_from"),
        )
        return said.as_said_by(name)
    except (ValueError, KeyError, TypeError, RecursionError):
        return PeerError(f"the call to {name} failed", cause=shown(detail[:200]) or None, peer=name)
