"""Terms of a session, and the one id that stands for all of them.

The id hashes the plan, the version, the field, the provider, the roster, a fresh nonce of
every party, which stored objects the plan is asked of, and what its kept outputs become: no two
sessions share one, no single party can choose it, and whoever holds the same id has agreed to the
same terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mpc.encoding import digest
from mpc.errors import SessionError
from mpc.plan.plan import FIELD
from parties.agreed.bindings import Binding
from parties.agreed.keeps import Keep

PROTOCOL = 13
"""Version of everything in protos/ and of what is signed; peers must be equal."""
NONCE_BYTES = 32


@dataclass(frozen=True)
class Terms:
    """Public terms of one session.

    Args:
        plan_digest: of the unbound plan.
        provider: its certificate name.
        parties: names in the roster's order.
        nonces: one a party, 32 bytes, in that order.
        bindings: of the plan's stored wires; `bindings.check_bindings` holds them to a plan.
        keeps: objects that the plan's kept outputs become; `keeps.check_keeps` holds them to it.

    Raises:
        SessionError: the lists do not fit, or a nonce is malformed or given twice.
    """

    plan_digest: bytes
    provider: str
    parties: tuple[str, ...]
    nonces: tuple[bytes, ...]
    bindings: tuple[Binding, ...] = ()
    keeps: tuple[Keep, ...] = ()

    def __post_init__(self) -> None:
        if len(self.parties) < 2 or len(self.parties) != len(self.nonces):
            raise SessionError("a session has one nonce for each of at least two parties")
        if any(len(nonce) != NONCE_BYTES for nonce in self.nonces) or len(set(self.nonces)) != len(self.nonces):
            raise SessionError("a session's nonces are 32 bytes each and all different")

    @cached_property
    def session_id(self) -> bytes:
        """32 bytes."""
        return digest(
            "mpc/v1/session",
            PROTOCOL,
            FIELD,
            self.plan_digest,
            self.provider,
            len(self.parties),
            *self.parties,
            *self.nonces,
            len(self.bindings),
            *(part for binding in self.bindings for part in binding.parts),
            len(self.keeps),
            *(part for keep in self.keeps for part in keep.parts),
        )


def roster_digest(provider: str, parties: Sequence[str], cluster: str | None) -> bytes:
    """Digest the provider, the parties in their order and the cluster's id, 32 bytes: equal in all its configs.

    Peers compare it in their first frame.
    """
    if cluster is None:
        return digest("mpc/v1/roster", provider, *parties)
    return digest("mpc/v1/roster with id", cluster, provider, *parties)
