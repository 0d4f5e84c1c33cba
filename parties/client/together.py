"""Calls to all parties for one thing: once one has failed, the others are not waited for as long as they may take.

A party that is silent says nothing until a deadline, and another knows long before why a run ends: what a caller is
told is that reason, soon after it is there.
"""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from mpc.errors import MpcError, PeerError
from parties.alarms import ALARMS
from parties.wire.status import has_ended_well, said_by

_SOON = 1.0
"""Seconds in which another party may still say something that is nearer to the root of a failure."""


class GivenUpError(PeerError):
    """A party said nothing while another one has said why all of it ends; what any other says tells more."""

    telling = 6


class Waiting(Protocol):
    """A call to one party that somebody waits for."""

    def give_up(self) -> None:
        """End the call; whoever waits is told `given_up`."""


class Together:
    """Calls to several parties for one thing.  It keeps none of them alive.

    Args:
        seconds: for what others have to say, if one has ended without a reason of its own: its connection is lost, or
            it has only heard of a failure.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls = list[weakref.ref[Waiting]]()

    def add(self, call: Waiting) -> None:
        """Take part in that: this call is given up in a while if another one fails."""
        self._calls.append(weakref.ref(call))

    def ended(self, call: Any, name: str) -> None:
        """Note that a call to `name`, one of gRPC's, has ended; None if nobody waited for it any more."""
        if call is not None and not has_ended_well(call):
            ALARMS.set(_SOON if _is_reason(said_by(call, name)) else self._seconds, self._give_up)

    def _give_up(self) -> None:
        for each in self._calls:
            if (call := each()) is not None:
                call.give_up()


def given_up(name: str) -> GivenUpError:
    """Make the error of a party that was not waited for any longer."""
    return GivenUpError(
        f"{name} said nothing, and the session ends without it",
        cause="it is busy, or a signal has frozen it, or it waits for somebody else",
        remedy="mpc doctor",
        peer=name,
    )


def _is_reason(error: MpcError | None) -> bool:
    """Does an error say what its party found itself, and more than that somebody is gone?"""
    return error is not None and error.heard_from is None and error.code != PeerError.code
