"""The link between two processes, as somebody declares it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from mpc.errors import UsageError


@dataclass(frozen=True)
class Link:
    """A link between two processes: a round trip and a rate.

    Args:
        round_trip: milliseconds, there and back.
        rate: megabits a second.
    """

    round_trip: float
    rate: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a link from `lan`, `wan`, or MS:MBIT; UsageError if the text is none."""
        try:
            round_trip, rate = (float(word) for word in _NAMED.get(text.lower(), text).split(":"))
            if not (0 <= round_trip <= 10_000 and 0.01 <= rate <= 100_000):
                raise ValueError
        except ValueError:
            raise UsageError(
                f"--link {text!r} is no link", remedy="--link lan, --link wan, or MS:MBIT, as in --link 20:50"
            ) from None
        return cls(round_trip, rate)

    def for_rows(self, rows: int) -> Self:
        """Return the link as it is to one of so many rows that are computed at once: each has its part of the rate."""
        return type(self)(self.round_trip, self.rate / max(rows, 1))

    def seconds(self, rounds: int, size: float) -> float:
        """Return how long so many rounds, in each of which both send at once, and so many bytes take."""
        return rounds * self.round_trip / 2e3 + 8 * size / (self.rate * 1e6)


_NAMED = {"lan": "0.3:1000", "wan": "40:100"}
