"""Proofs of plans that were made before: whoever opens session after session of one plan has it proved once.

A proof follows from the plan's bytes and from public facts of what it reads, and from nothing else, so these are its
key.  What is not proved is kept too: it took as long.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from mpc.errors import PlanError
from mpc.plan.plan import Plan
from mpc.privacy.facts import Guarantee, StoredFacts
from mpc.privacy.guarantee import guarantee

MOST_PROOFS = 64
_LARGEST = 4096
"""Vectors in the largest guarantee that is kept."""
_Key = tuple[bytes, tuple[tuple[str, StoredFacts], ...]]


class Proofs:
    """The last proofs that were made.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Guarantee | PlanError] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept)

    def find(self, plan: Plan, stored: Mapping[str, StoredFacts]) -> Guarantee | PlanError:
        """Return what a plan guarantees for the people in stored wires, or why nothing is proved.

        stored: facts of the wires that are to be protected.
        """
        key = (plan.digest, tuple(sorted(stored.items(), key=lambda each: each[0])))
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        try:
            found = guarantee(plan, stored)
        except PlanError as error:
            found = error.again()
        if isinstance(found, PlanError) or len(found.vectors) <= _LARGEST:
            with self._lock:
                self._kept[key] = found
                while len(self._kept) > MOST_PROOFS:
                    self._kept.popitem(last=False)
        return found
