"""Calls to all parties for one thing: once one has failed, the others are not waited for as long as they may take.

A party that is silent says nothing until a deadline, and another knows long before why a run ends: what a caller is
told is that reason, soon after it is there.  Words about somebody else are no more than one party's: they are waited
for longer, so that whoever is blamed can say what it knows, and so can those who have waited for the speaker.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any, Protocol, Self

from mpc.errors import MpcError, PeerError
from parties.alarms import ALARMS, Alarm
from parties.config.models import Deadlines
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
        blamed: for the same, if it blames somebody else who has said nothing, and no second party knows a reason.
    """

    def __init__(self, seconds: float, blamed: float) -> None:
        self._seconds, self._blamed = seconds, blamed
        self._calls = list[weakref.ref[Waiting]]()
        self._lock = threading.Lock()
        self._failed: dict[str, MpcError | None] = {}
        self._alarm: Alarm | None = None
        self._over = False

    @classmethod
    def of_session(cls, deadlines: Deadlines, parties: int) -> Self:
        """Return what calls of a session of so many parties are part of.

        A party has a step to compute what it sends, and one to wait for a liar; of two parties that blame each other
        nobody can tell which one lies, so what one of two says is told soon.
        """
        return cls(deadlines.connect, 2 * deadlines.step if parties > 2 else _SOON)

    @property
    def is_over(self) -> bool:
        """Whether the calls were given up; those that are added now are not."""
        return self._over

    def add(self, call: Waiting) -> None:
        """Take part in that: this call is given up in a while if another one fails."""
        self._calls.append(weakref.ref(call))

    def ended(self, call: Any, name: str) -> None:
        """Note that a call to `name`, one of gRPC's, has ended; None if nobody waited for it any more."""
        if call is None or has_ended_well(call):
            return
        said = said_by(call, name)
        with self._lock:
            if self._over:
                return
            self._failed[name] = said
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = ALARMS.set(self._patience(), self._give_up)

    def _patience(self) -> float:
        """Return the seconds that are left to all that have not ended."""
        said = [error for error in self._failed.values() if error is not None]
        found = [error for error in said if error.heard_from is None]
        blamed = {error.peer for error in said if error.peer is not None} - self._failed.keys()
        reason = any(error.code != PeerError.code for error in found)
        if blamed and len(found) < 2:
            return self._blamed if reason else max(self._seconds, self._blamed)
        return _SOON if reason else self._seconds

    def _give_up(self) -> None:
        self._over = True
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
