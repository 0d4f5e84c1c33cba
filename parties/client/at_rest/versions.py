"""Versions of a name: which one a put is, where parties may know of different ones."""

from __future__ import annotations

from mpc.errors import warn
from parties.client.channels import Parties
from parties.pb import data_pb2


def next_version(parties: Parties, name: str) -> tuple[int, str | None]:
    """Return (next version of a name, the id of the one before), behind all versions that any party has.

    A put that was cut at its very end exists at some parties alone, where nobody can use it.  The next version takes
    its place, and its owner is warned.
    """
    request = data_pb2.NewestRequest(name=name)
    newest = parties.each(lambda stub: stub.data.Newest, request, parties.config.deadlines.submit)
    top = max(each.version for each in newest)
    tops = {each.object.hex() for each in newest if each.version == top}
    ahead = [party for party, each in zip(parties.names, newest, strict=True) if each.version == top]
    if len(ahead) < len(newest) or len(tops) > 1:
        warn(
            f"version {top} of {name} is whole at {', '.join(ahead)} alone, so nobody can use it: a put was cut at its "
            f"very end. Version {top + len(tops)} takes its place; mpc data remove removes all of them"
        )
    return top + len(tops), min(tops) or None  # where the newest ones differ, a number is left out: see `require_next`
