"""Say who does what with a model: its compiler is told no more of people."""

from __future__ import annotations

from dataclasses import dataclass, field

from mpc.plan.link import Link
from mpc.plan.plan import Security


@dataclass(frozen=True)
class Roles:
    """Names, as of certificates, of the clients that enter the model and the data and that receive the result.

    Args:
        data_owner: of every input that `owners` does not name.
        owners: input -> who enters it.
        recipients: of every output that `readers` does not name.
        readers: output -> who receives it.
        keeps: outputs that stay at the parties; nobody receives one that `readers` does not name.
        together: input -> the owners of what it is read from, where rows of several lie one behind the other.
        public_weights: the model is no secret: all parties and the provider are told its weights.
        secret_weights: patterns (`fnmatch`) of names of constants and nodes whose weights stay secret even so.
        security: what whoever opens sessions of it fears of parties; see `Plan`.
        link: what lies between the processes, if it is declared: what a round and a byte cost.
    """

    model_owner: str = "coordinator"
    data_owner: str = "coordinator"
    recipients: tuple[str, ...] = ("coordinator",)
    owners: dict[str, str] = field(default_factory=dict, hash=False)
    readers: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    public_weights: bool = False
    keeps: frozenset[str] = frozenset()
    together: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    security: Security = "passive"
    secret_weights: tuple[str, ...] = ()
    link: Link | None = None

    def owner(self, given: str) -> str:
        """Return the owner of an input."""
        return self.owners.get(given, self.data_owner)

    def holders(self, given: str) -> tuple[str, ...]:
        """Return the owners of an input, sorted: one, but of rows of several."""
        return tuple(sorted({*self.together[given]})) if given in self.together else (self.owner(given),)

    def recipients_of(self, out: str) -> tuple[str, ...]:
        """Return the recipients of an output."""
        return self.readers.get(out, () if out in self.keeps else self.recipients)
