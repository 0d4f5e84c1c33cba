"""Ask parties one after another for what each knows by itself: one that is down hides nothing that others say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from mpc.errors import PeerError
from parties.client.channels import PartyClient

Found = TypeVar("Found")
Silent = list[PeerError]
"""Why parties did not answer, an error each."""


def ask_each(
    clients: Sequence[PartyClient], ask: Callable[[PartyClient], Found], silent: Silent | None = None
) -> dict[str, Found]:
    """Ask every party, and return what those say that answer, by their names.

    Args:
        silent: takes the errors of those that do not.

    Raises:
        PeerError: no party answers; or, without `silent`, one does not.
    """
    found, errors = dict[str, Found](), Silent()
    for client in clients:
        try:
            found[client.name] = ask(client)
        except PeerError as error:
            if silent is None:
                raise
            errors.append(error.again())
    if errors and not found:
        raise errors[0].again()
    if silent is not None:
        silent += errors
    return found


def missing(silent: Silent) -> PeerError | None:
    """Return the error for a list that lacks what some parties would say; None if it lacks nothing."""
    if not silent:
        return None
    first, *others = silent
    lacks = "what is shown is what the other parties say"
    return first.with_(
        what="; ".join(dict.fromkeys(each.what for each in (first, *others))),
        cause=f"{first.cause}; {lacks}" if first.cause else lacks,
    )
