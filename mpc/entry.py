"""Names an entry of a session: all that owners enter at one time, under masks of one bundle.

The weights are entered once, before any run; inputs are entered for each run.  Both are entries, and whoever deals,
masks or stores for one treats all alike.  What is stored at the parties is entered by nobody in a session, and nothing
is dealt for it: it has no bundle, and so no number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpc.wires import Lifetime


@dataclass(frozen=True, order=True)
class EntryId:
    """One entry of a session, in the order in which they are dealt.

    Args:
        number: as it stands in labels of draws, manifests, messages, tables and names of files: k for run k, and 0 for
            the weights.  Nobody else knows that.
    """

    number: int

    @property
    def lifetime(self) -> Lifetime:
        """How long what is entered stays at the parties."""
        return Lifetime.RUN if self.number else Lifetime.SESSION

    @property
    def is_weights(self) -> bool:
        """Is it what lives for the session?"""
        return self.lifetime is Lifetime.SESSION

    @property
    def following(self) -> EntryId:
        """The entry that is dealt after this one."""
        return EntryId(self.number + 1)

    def __str__(self) -> str:
        return "the weights" if self.is_weights else f"run {self.number}"


WEIGHTS = EntryId(0)
"""The first entry of every session."""


def entries(runs: int) -> Iterator[EntryId]:
    """Yield all entries of a session of so many runs, in the order in which they are dealt."""
    yield WEIGHTS
    yield from map(EntryId, range(1, runs + 1))
