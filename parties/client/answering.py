"""Ask all parties at once for what each knows by itself: one that is down hides nothing that others say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mpc.errors import PeerError
from parties.client.channels import PartyClient, most_telling

Found = TypeVar("Found")
Silent = list[PeerError]
"""Why parties did not answer, an error each."""


class _Asked(Generic[Found]):
    """One party's answer, for which a thread of its own waits; nobody has to take it."""

    def __init__(self, ask: Callable[[PartyClient], Found], client: PartyClient) -> None:
        self._found: list[Found] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(ask, client), name=f"ask-{client.name}", daemon=True)
        self._thread.start()

    def _run(self, ask: Callable[[PartyClient], Found], client: PartyClient) -> None:
        try:
            self._found.append(ask(client))
        except BaseException as error:
            self._error = error

    def result(self) -> Found:
        """Wait for the answer, or raise what was raised instead."""
        self._thread.join()
        if (error := self._error) is not None:
            self._error = None
            try:
                raise error
            finally:
                del error  # its frames would hold it
        return self._found[0]


def ask_each(
    clients: Sequence[PartyClient], ask: Callable[[PartyClient], Found], silent: Silent | None = None
) -> dict[str, Found]:
    """Ask every party at once, and return what those say that answer, by their names, in the order of `clients`.

    Args:
        ask: called in several threads.
        silent: takes the errors of those that do not.

    Raises:
        PeerError: no party answers; or, without `silent`, one does not.
    """
    found, errors = dict[str, Found](), Silent()
    for client, asked in [(client, _Asked(ask, client)) for client in clients]:
        try:
            found[client.name] = asked.result()
        except PeerError as error:
            if silent is None:
                raise
            errors.append(error.again())
    if errors and not found:
        raise most_telling(errors).again()
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
