"""Public weights at the provider: who hands them over, and that all parties hold the same.

The provider deals for the masks of what public linear layers compute, so it has to know their
weights.  Clients do not talk to it: the party that stands first in the roster hands over what
the model's owner sent to all parties, and each party says with every bundle it asks for which
weights it holds.  Parties that were sent different ones are told so before anything is dealt.
"""

from __future__ import annotations

import numpy as np

from mpc.encoding import decode_field, field_size
from mpc.errors import DeadlineError, EncodingError, HandshakeError, PolicyError, SessionError
from mpc.interpret.session_wires import public_digest
from mpc.plan.cost import public_bytes
from mpc.plan.plan import Plan


class PublicWeights:
    """Those of one session; call its methods with the session's lock held.

    Args:
        sender: the party that hands them over.
        held: wire -> field elements, filled when they are here: what `deal` reads.
        size: bytes of all of them.
        receiving: they are on their way.
    """

    def __init__(self, plan: Plan, sender: str, held: dict[str, np.ndarray]) -> None:
        self.sender, self._held = sender, held
        self._shapes = {gate.out: plan.wire[gate.out].sizes for gate in plan.public_weights}
        self.size = public_bytes(plan)
        self.receiving = False
        self._digest = b""

    @property
    def here(self) -> bool:
        """Has the provider all that there are?"""
        return self._held.keys() == self._shapes.keys()

    def begin(self, party: str) -> None:
        """Require that this party may hand them over.  Once: nobody makes the provider hold them twice."""
        if party != self.sender:
            raise PolicyError(f"public weights are handed over by {self.sender}, not by {party!r}")
        if self.receiving or self.here:
            raise SessionError(
                "there are no public weights to hand over", cause="all of them are here, or on their way"
            )
        self.receiving = True

    def take(self, data: memoryview) -> None:
        """All of them in plan order, `size` bytes."""
        found, position = {}, 0
        try:
            for name, shape in self._shapes.items():
                end = position + field_size(shape)
                found[name] = decode_field(data[position:end], shape)
                position = end
        except EncodingError as error:
            raise error.with_(peer=self.sender) from error.__cause__
        self._held.update(found)
        self._digest = public_digest(found)

    def check(self, party: str, digest: bytes) -> None:
        """Require that this party holds the weights that were handed over.

        Raises:
            DeadlineError: they did not come in time.
            HandshakeError: it holds others.
        """
        if not self.here:
            raise DeadlineError(
                f"{self.sender} did not hand over the public weights in time",
                remedy="start a new session; deadlines.setup in the provider's config is how long it waits",
                peer=self.sender,
            )
        if digest != self._digest:
            raise HandshakeError(
                f"{party} holds other public weights than {self.sender}",
                cause="the model's owner did not send both the same, or one of them altered them",
                remedy="start a new session with an owner and parties that you trust",
                peer=party,
            )
