"""Say why a party makes another session of the same terms: mostly since it speaks another protocol."""

from __future__ import annotations

from contextlib import suppress

import mpc
from mpc.errors import HandshakeError, MpcError
from parties.agreed.terms import PROTOCOL
from parties.client.channels import PartyClient
from parties.pb import party_pb2


def another_session(party: PartyClient, seconds: float) -> HandshakeError:
    """Return the error for a party that makes another session of the same terms; it is asked which protocol it speaks.

    Args:
        seconds: for its answer.
    """
    with suppress(MpcError):
        found = party.begin(lambda stub: stub.Describe, party_pb2.DescribeRequest(), seconds).result()
        if found.protocol != PROTOCOL:
            return HandshakeError(
                f"{party.name} speaks protocol {found.protocol}, and this client protocol {PROTOCOL}",
                cause=f"it runs mpc {found.version}, and here is mpc {mpc.__version__}: in two protocols the same "
                "terms make two sessions",
                remedy="install one version at clients, parties and provider; mpc doctor says which have which",
                peer=party.name,
            )
    return HandshakeError(
        f"{party.name} made another session of the same terms",
        cause="it speaks this client's protocol, or does not say which",
        remedy="mpc doctor; then look into the party's log",
        peer=party.name,
    )
