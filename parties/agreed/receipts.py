"""Receipts and tombstones: that a party has an object, and that its owner wants it removed.

Each is signed as a kind of its own, and names the cluster: another one's is refused.
"""

from __future__ import annotations

from typing import Literal

from mpc.errors import IntegrityError
from mpc.wires import Frozen
from parties.agreed.fields import Cluster, Digest, Moment, Process
from parties.agreed.signed import Signed, dump, read
from parties.trust.chains import Clock, Trust
from parties.trust.identity import Identity

_LARGEST_STATEMENT = 1 << 12
_TOMBSTONE, _RECEIPT = "mpc/v1/tombstone", "mpc/v1/receipt"


class Receipt(Frozen):
    """A party's word that it has all of an object, on its disk.

    Args:
        object: the id.
        at: seconds since 1970, by the party's own clock.
    """

    format: Literal["mpc-receipt-1"] = "mpc-receipt-1"
    cluster: Cluster
    party: Process
    object: Digest
    at: Moment

    def sign(self, identity: Identity) -> Signed:
        """Sign the receipt, as that party."""
        return Signed.make(identity, _RECEIPT, dump(self.model_dump(mode="json")))

    @classmethod
    def verify(cls, trust: Trust, signed: Signed, party: str, clock: Clock) -> Receipt:
        """Return the receipt, if that party signed it; `IntegrityError`, or `InputError` if it is malformed."""
        found = read(cls, signed.content, _LARGEST_STATEMENT, "a receipt")
        if found.party != party:
            raise IntegrityError(f"this is not {party}'s receipt", peer=party)
        signed.check(trust, _RECEIPT, party, clock)
        return found


class Tombstone(Frozen):
    """An owner's word that an object is to be removed for good.

    Args:
        object: the id.
        at: seconds since 1970, as the owner says; nothing follows from it.
    """

    format: Literal["mpc-tombstone-1"] = "mpc-tombstone-1"
    cluster: Cluster
    owner: Process
    object: Digest
    at: Moment

    def sign(self, identity: Identity) -> Signed:
        """Sign the tombstone, as the owner."""
        return Signed.make(identity, _TOMBSTONE, dump(self.model_dump(mode="json")))

    @classmethod
    def verify(cls, trust: Trust, signed: Signed, clock: Clock) -> Tombstone:
        """Return the tombstone, if the owner that it names signed it; `IntegrityError`, `InputError` if malformed."""
        found = read(cls, signed.content, _LARGEST_STATEMENT, "a tombstone")
        signed.check(trust, _TOMBSTONE, found.owner, clock)
        return found
