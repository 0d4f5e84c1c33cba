"""Signatures of all parties under one statement, as messages carry them."""

from __future__ import annotations

from collections.abc import Iterable

from parties.agreed.signed import Endorsement, Signed
from parties.pb import data_pb2


def read_endorsements(messages: Iterable[data_pb2.Endorsement]) -> tuple[Endorsement, ...]:
    """Read signatures that another process sent; nothing of them is believed yet."""
    return tuple(Endorsement(each.signature, each.certificate) for each in messages)


def write_endorsements(signed: Signed) -> list[data_pb2.Endorsement]:
    """Write the signatures of all parties as a message carries them; none of what one signer signed."""
    return [
        data_pb2.Endorsement(signature=each.signature, certificate=each.certificate) for each in signed.endorsements
    ]
