"""Keeps of a session: the objects that its kept outputs become, as its terms name them.

A plan says which outputs stay at the parties, and names no object, so one computation has one digest whatever becomes
of it.  What it becomes stands in the terms, which everyone agrees on: the name is the coordinator's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mpc.encoding import Part
from mpc.errors import HandshakeError
from mpc.plan.plan import Plan
from mpc.text import PROCESS_NAME
from mpc.wires import BATCH
from parties.addresses import ANY
from parties.agreed.fields import OBJECT_NAME
from parties.pb import party_pb2

_ID = re.compile("[0-9a-f]{64}")
_MOST_OUTPUTS, _MOST_READERS, _LATEST = 256, 1024, 1 << 40


@dataclass(frozen=True)
class Keep:
    """An object that a session makes.

    Args:
        name: "OWNER/NAME", the owner being who coordinates the session.
        outputs: of the plan; each becomes a column of that name.
        version: of the name, behind the newest one.
        previous: id of the version before, 64 hex digits; None if there is none.
        created, expires: seconds since 1970; it expires with the first of its origins, and with `expires` unless that
            is 0.
        visible: who may see it: names of clients, or ("any",).

    Raises:
        HandshakeError: that is no object.
    """

    name: str
    outputs: tuple[str, ...]
    version: int
    previous: str | None
    created: int
    expires: int = 0
    visible: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        owner, _, rest = self.name.partition("/")
        if not PROCESS_NAME.fullmatch(owner) or not OBJECT_NAME.fullmatch(rest):
            raise HandshakeError(
                "what is kept has no name OWNER/NAME", remedy="NAME is 1 to 63 letters, digits, '.', '_', '-'"
            )
        readers = self.visible == (ANY,) or all(PROCESS_NAME.fullmatch(name) for name in self.visible)
        times = 0 <= self.created < _LATEST and (self.expires == 0 or self.created < self.expires < _LATEST)
        version = 1 <= self.version < 1 << 31 and (self.previous is None or _ID.fullmatch(self.previous))
        if not (readers and times and version) or len(self.visible) > _MOST_READERS:
            raise HandshakeError(f"the version, times or readers of {self.name} are none")
        if not 1 <= len(self.outputs) <= _MOST_OUTPUTS:
            raise HandshakeError(f"{self.name} is to be made of {len(self.outputs)} outputs")

    @property
    def owner(self) -> str:
        """Name of the client whose object it will be."""
        return self.name.partition("/")[0]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return the parts that a session's id hashes of it."""
        times = (self.version, self.previous or "", self.created, self.expires)
        return (self.name, len(self.outputs), *self.outputs, *times, len(self.visible), *self.visible)


def check_keeps(plan: Plan, keeps: Sequence[Keep], coordinator: str | None = None) -> None:
    """Check that each kept output of a plan is kept once, under a name of the coordinator's.

    coordinator: None asks whose names they are of nobody.

    Raises:
        HandshakeError: naming the output, or the object.
    """
    wanted = Counter(out.name for out in plan.kept)
    named = Counter(name for keep in keeps for name in keep.outputs)
    if wanted != named:
        differ = sorted({*(wanted - named), *(named - wanted)})
        raise HandshakeError(
            "the session's terms do not name what becomes of its plan's kept outputs",
            cause=f"see {', '.join(map(repr, differ[:5]))}",
            remedy="name each of them once: keep={'y': 'owner/name'}",
        )
    if len({keep.name for keep in keeps}) != len(keeps):
        raise HandshakeError("two objects that are to be kept have one name")
    wires = {out.name: plan.wire[out.wire] for out in plan.kept}
    for keep in keeps:
        if coordinator is not None and keep.owner != coordinator:
            raise HandshakeError(
                f"{coordinator} keeps nothing under the name of {keep.owner}", remedy="choose a name of one's own"
            )
        if len({BATCH in wires[name].shape for name in keep.outputs}) > 1:
            raise HandshakeError(f"{keep.name} is to be made of outputs with rows and of others without")


def read_keep(message: party_pb2.Keep) -> Keep:
    """Read a keep that another process sent; `HandshakeError` if it is none."""
    times = (message.created, message.expires)
    outputs, visible = tuple(message.outputs), tuple(message.visible)
    return Keep(message.name, outputs, message.version, message.previous.hex() or None, *times, visible)


def write_keeps(keeps: Iterable[Keep]) -> list[party_pb2.Keep]:
    """Write keeps as a message carries them."""
    return [
        party_pb2.Keep(
            name=each.name,
            outputs=each.outputs,
            version=each.version,
            previous=bytes.fromhex(each.previous or ""),
            created=each.created,
            expires=each.expires,
            visible=each.visible,
        )
        for each in keeps
    ]
