"""Find whose inputs or weights differ between the parties, once first payloads have shown that some do.

Who sends one party x^ and another x^ - e has every later opening tell what e does to it; as a recipient that person
could read secret weights off the output.  So parties compare a digest of everything that was entered before any of them
opens a second time or releases a seed (`PartyRun.steps`).  All of them see a difference if one does: each then
tells the others what it was sent, owner by owner, and the session ends.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from mpc.errors import IntegrityError
from parties.party.link import Link
from parties.party.run import Run


def find_owners(run: Run, links: Sequence[Link], seconds: float) -> IntegrityError:
    """Compare with all peers what each owner entered; the error that names those who did not send all the same.

    Raises:
        MpcError: a peer does not answer within `seconds`, or has ended the session.
    """
    own = run.party.entered()
    for link in links:
        link.send_entered(run.number, own)
    deadline = time.monotonic() + seconds
    held = [own, *(link.inbox.take_entered(len(own), deadline) for link in links)]
    owners = sorted(run.plan.owners)
    owners = [owner for place, owner in enumerate(owners) if len({digests[place] for digests in held}) > 1]
    if not owners:
        return IntegrityError(
            "the parties do not agree on what was entered, and none was sent anything else",
            cause="one of them deviates from the protocol, or what lies at it was altered",
            remedy="do not use this session's results; find out which party's software or disk was changed",
        )
    return differing(owners, run.plan.is_checked)


def differing(owners: Collection[str], checked: bool) -> IntegrityError:
    """Make the error that these owners did not send all parties the same.

    Args:
        checked: parties may deviate here, and lie about what they were sent.
    """
    names = sorted(owners)
    lies = ", or a party lies about what it was sent" * checked
    return IntegrityError(
        f"{' and '.join(names)} did not send all parties the same inputs or weights; nothing was unmasked",
        cause=f"its client deviates from the protocol, or its data was altered on one way{lies}",
        remedy=f"find out what happened at {names[0]}, then start a new session",
        peer=names[0],
    )
