"""A manifest, held to the blocks of its object that are here: their seeds, and what was sent."""

from __future__ import annotations

from collections.abc import Sequence

from mpc.errors import IntegrityError, SessionError
from mpc.prg import Seed
from parties.agreed.objects import Manifest, contents_digest
from parties.party.vault.blocks import unseal_block
from parties.party.vault.catalogue import Row


def require_contents(
    party: str, row: Row, own: Seed, whole: Manifest, salt: bytes, sealed: Sequence[tuple[int, int, bytes]]
) -> None:
    """Require that a manifest commits to the seeds that a party gave, and says of x^ what it has.

    Args:
        own: the put's key.
        salt: of the digest of its contents.
        sealed: (place of the column, block, sealed row) of what is here.

    Raises:
        SessionError: a block is not here.
        IntegrityError: the manifest says something else; `peer` is the owner.
    """
    here, digests = {(place, block): each for place, block, each in sealed}, []
    for place, column in enumerate(whole.columns):
        for block in range(whole.block_count):
            if (place, block) not in here:
                raise SessionError(f"block {block} of column {column.name!r} of {row.name} is not here")
            found = unseal_block(row.put, own, place, block, here[place, block])
            if found.seed.commitment() != whole.commitment(column.name, block, party):
                raise IntegrityError(
                    f"the manifest of {row.name} commits to another seed than {party} gave for column {column.name!r}",
                    cause=f"{row.owner}'s client deviates from the protocol, or asked for another seed since",
                    remedy="put the object again",
                    peer=row.owner,
                )
            digests.append(found.digest)
    if contents_digest(salt, digests).hex() != whole.contents:
        raise IntegrityError(
            f"{row.owner} sent {party} other contents of {row.name} than its manifest says",
            cause="its client deviates from the protocol, or its data were altered on their way",
            remedy="put the object again",
            peer=row.owner,
        )
