"""Constant bits: words that are dealt have bits in which there is nothing to hide, and no tag is dealt for those."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plane:
    """Some words of a dealt value, one behind the other, whose constant bits are in one place.

    Args:
        count: words.
        width: bits of each, whole bytes.
        first, stop: bits that depend on what is dealt; all below are 1, and all from `stop` on 0.
    """

    count: int
    width: int
    first: int
    stop: int

    @property
    def bits(self) -> int:
        """Count the bits that depend on what is dealt, of all words."""
        return self.count * (self.stop - self.first)
