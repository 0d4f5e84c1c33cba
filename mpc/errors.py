"""One tree of errors, each with a stable code and the exit status the CLI gives it.

Every error says what failed, the likely cause and the next thing to do; none of them
ever carries a secret value.  `LocalProtocolError` is a mistake of the code on this side,
`PeerError` something another process did: they are never mixed.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, ClassVar, Final, Self, TypedDict, TypeVar, Unpack

_OWN = frozenset({"mpc", "parties"})
_Kind = TypeVar("_Kind", bound="MpcError")


class Said(TypedDict, total=False):
    """The fields that every error has, as arguments."""

    what: str
    cause: str | None
    remedy: str | None
    peer: str | None
    local: bool
    heard_from: str | None


class MpcError(Exception):
    """Base of everything this project raises on purpose.

    An error is not changed after it was made: somebody may hold it already.  `with_` makes another one.

    Args:
        what: one sentence, what failed; safe to show anywhere.
        cause: the likely cause, if known.
        remedy: the next command or change that helps.
        peer: the name of the process this is about, if one is.
        local: it is about this process's own disk or configuration and names paths: for its operator, not for callers.
        heard_from: the peer that told it, by a code and a name; None for what this process found.
    """

    code = "internal"
    exit_code = 1
    telling = 5
    """Distance of such an error from the root of a failure, of those that parties tell of: 0 is the nearest."""
    fields: ClassVar[tuple[str, ...]] = ("what", "cause", "remedy", "peer", "local", "heard_from")
    """Names of what an error of this class says, each an argument of its constructor."""
    said_by: str | None = None
    """The process in whose words a call to it has ended; None for what this process found.  It is not sent."""

    def __init__(
        self,
        what: str,
        *,
        cause: str | None = None,
        remedy: str | None = None,
        peer: str | None = None,
        local: bool = False,
        heard_from: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what: Final = what
        self.cause: Final = cause
        self.remedy: Final = remedy
        self.peer: Final = peer
        self.local: Final = local
        self.heard_from: Final = heard_from

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ and name in self.fields:
            raise AttributeError(f"what an error says is not changed: make another one, with_({name}=...)")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.fields:
            raise AttributeError(f"what an error says is not taken away: {name}")
        super().__delattr__(name)

    def with_(self, **changes: Unpack[Said]) -> Self:
        """Return an error of this class that says what this one says, but for these fields.

        Its `__cause__` is this one's, its frames are not: in an `except`, raise it `from error.__cause__`.
        """
        said = self._said()
        said.update(changes)
        made = _made(type(self), said, self.said_by)
        made.__cause__, made.__suppress_context__ = self.__cause__, self.__suppress_context__
        return made

    def again(self) -> Self:
        """Return an equal error, to be kept, or to be raised in another place.

        What is raised is given the frames that it passes, and with them all that they hold.  So what is kept was never
        raised, and what is raised is not kept.
        """
        return self.as_said_by(self.said_by)

    def as_said_by(self, name: str | None) -> Self:
        """Return an equal error that stands for the words of this process."""
        return _made(type(self), self._said(), name)

    @property
    def is_about_another(self) -> bool:
        """Whether a process says it of another one: it is no more than that one's word."""
        return self.said_by is not None and self.peer not in (None, self.said_by)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), self._said(), self.said_by)

    def _said(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.fields}

    def lines(self) -> list[str]:
        """Return what failed, cause and remedy, a line each, as the CLI prints them."""
        rows = [self.what]
        if self.cause:
            rows.append(f"cause: {self.cause}")
        if self.remedy:
            rows.append(f"fix: {self.remedy}")
        return rows

    def __str__(self) -> str:
        return "; ".join(self.lines())


class LocalProtocolError(MpcError):
    """This side used the library against its contract: a bug here, never a peer's doing."""

    code = "local_protocol"


class ReuseError(LocalProtocolError):
    """One-time material (a correlation, a draw, a label) was asked for a second time."""

    code = "reuse"


class EntropyError(MpcError):
    """The system's random source or AES failed; nothing weaker is ever used instead."""

    code = "entropy"


class UsageError(MpcError):
    """The call's arguments make no sense together."""

    code = "usage"
    exit_code = 2
    telling = 4


class ConfigError(MpcError):
    """A configuration, certificate, port or ledger is missing or wrong."""

    code = "config"
    exit_code = 3
    telling = 3


class PolicyError(MpcError):
    """A party's own policy refused."""

    code = "policy"
    exit_code = 4
    telling = 1


class WaitingError(PolicyError):
    """Words of others are missing, and they are shown what was asked: an operator's, or an owner's.

    Args:
        request: the id under which they see it; None if it was not written down.
    """

    code = "waiting"
    fields = (*PolicyError.fields, "request")

    def __init__(
        self,
        what: str,
        *,
        request: str | None = None,
        cause: str | None = None,
        remedy: str | None = None,
        peer: str | None = None,
        local: bool = False,
        heard_from: str | None = None,
    ) -> None:
        super().__init__(what, cause=cause, remedy=remedy, peer=peer, local=local, heard_from=heard_from)
        self.request: Final = request


class PrivateDataError(PolicyError):
    """Private values were asked for; says whose they are and what would be allowed."""

    code = "private_data"


class PlanError(MpcError):
    """A plan is malformed, out of bounds, or not the one that was agreed."""

    code = "plan"
    exit_code = 5
    telling = 2


class ModelError(PlanError):
    """A model cannot be compiled; names the node, the operator and the attribute."""

    code = "model"
    fields = (*PlanError.fields, "node", "operator", "attribute")

    def __init__(
        self,
        what: str,
        *,
        node: str | None = None,
        operator: str | None = None,
        attribute: str | None = None,
        cause: str | None = None,
        remedy: str | None = None,
        peer: str | None = None,
        local: bool = False,
        heard_from: str | None = None,
    ) -> None:
        super().__init__(what, cause=cause, remedy=remedy, peer=peer, local=local, heard_from=heard_from)
        self.node: Final = node
        self.operator: Final = operator
        self.attribute: Final = attribute


class InputError(PlanError):
    """An input has the wrong name, shape, type or range."""

    code = "input"


class PeerError(MpcError):
    """Another process broke the protocol, or is gone; `peer` names it."""

    code = "peer"
    exit_code = 6
    telling = 4


class DeadlineError(PeerError):
    """A peer did not answer within its deadline."""

    code = "deadline"


class EncodingError(PeerError):
    """Bytes from outside are not the canonical encoding of anything: too long, too short, out of range."""

    code = "encoding"


class HandshakeError(PeerError):
    """Peers do not agree on plan, version, field or party set; raised before any share is sent."""

    code = "handshake"


class SessionError(PeerError):
    """A session or run is unknown, finished, aborted or was used before; sessions never run twice."""

    code = "session"


class IntegrityError(MpcError):
    """Dealt or exchanged data failed its check; nothing was revealed."""

    code = "integrity"
    exit_code = 7
    telling = 0


class MpcWarning(UserWarning):
    """Something that the user should know of an answer and that is no error: bounds, precision, what was assumed."""


def warn(text: str) -> None:
    """Say something as an `MpcWarning` that names the line of the user's code that called this library."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _OWN:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, MpcWarning, stacklevel=level)


def by_code(code: str) -> type[MpcError]:
    """Return the error class with this stable code; `MpcError` for one this version does not know."""
    known = {MpcError.code: MpcError}
    pending: list[type[MpcError]] = [MpcError]
    while pending:
        for cls in pending.pop().__subclasses__():
            known.setdefault(cls.code, cls)  # a class that keeps the code of the one it refines does not stand for it
            pending.append(cls)
    return known.get(code, MpcError)


def _made(cls: type[_Kind], said: dict[str, Any], said_by: str | None) -> _Kind:
    made = cls(**said)
    if said_by is not None:
        made.said_by = said_by
    return made
