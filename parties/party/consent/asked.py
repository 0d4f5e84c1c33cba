"""What a session asks of data at rest: which datasets, under whose keys, and what each run of it tells of a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mpc.errors import PlanError
from mpc.plan.plan import Plan
from mpc.privacy.facts import Guarantee, Loss, StoredFacts
from parties.agreed.bindings import Binding
from parties.agreed.grants import ANY, Bound, ExactPlan
from parties.agreed.models import uses_as_put
from parties.agreed.objects import Manifest
from parties.agreed.terms import Terms
from parties.party.consent.proofs import Proofs


@dataclass(frozen=True)
class Part:
    """Part of a session that reads one dataset, of whatever versions.

    Args:
        name: OWNER/NAME.
        key: digest of the key that put it.
        objects: ids, each once.
        wires: of the plan.
    """

    name: str
    owner: str
    key: bytes
    objects: tuple[str, ...]
    wires: tuple[str, ...]


class Asked:
    """A plan, asked of datasets by somebody.

    Args:
        coordinator, key: who asks, and the digest of its public key.
        manifests, keys: of the objects that are bound, and digests of the keys that signed them, by id.
        proofs: those that were made before.
    """

    def __init__(
        self,
        plan: Plan,
        terms: Terms,
        coordinator: str,
        key: bytes,
        manifests: Mapping[bytes, Manifest],
        keys: Mapping[bytes, bytes],
        proofs: Proofs,
    ) -> None:
        self.plan, self.terms, self.coordinator, self.key = plan, terms, coordinator, key
        self._manifests, self._proofs = manifests, proofs
        self.parts = tuple(self._part(name, keys) for name in sorted({m.name for m in manifests.values()}))
        self._proved: dict[frozenset[str], Guarantee | PlanError] = {}

    def _part(self, name: str, keys: Mapping[bytes, bytes]) -> Part:
        bound = [each for each in self.terms.bindings if self._manifests[each.object].name == name]
        objects = list(dict.fromkeys(each.object for each in bound))
        key = keys[objects[0]]  # a name belongs to one key for good: all its versions have it
        owner = self._manifests[objects[0]].owner
        return Part(name, owner, key, tuple(each.hex() for each in objects), tuple(each.wire for each in bound))

    def is_own(self, part: Part) -> bool:
        """Does its owner ask this itself, and for nobody else?"""
        mine = (part.owner, part.key) == (self.coordinator, self.key)
        return mine and self.plan.recipients <= {part.owner}

    def is_seen(self, part: Part) -> bool:
        """May who asks know that the dataset is there?  Its owner may, who is a key, and not a name."""
        if (part.owner, part.key) == (self.coordinator, self.key):
            return True
        found = [self._manifests[bytes.fromhex(each)] for each in part.objects]
        return all(each.visible == (ANY,) or self.coordinator in each.visible for each in found)

    # -- exact plans

    def is_exactly(self, listed: ExactPlan) -> bool:
        """Is this the listed plan, of the listed rows and columns, with the listed weights?"""
        if listed.plan != self.terms.plan_digest.hex():
            return False
        weights = {gate.out for gate in self.plan.weights}
        bound = {each.wire: _bound(each) for each in self.terms.bindings}
        if listed.bindings != {wire: found for wire, found in bound.items() if wire not in weights}:
            return False
        if set(listed.weights) != weights:
            return False
        return all(said == ANY or said == bound.get(wire) for wire, said in listed.weights.items())

    # -- models

    def is_model(self, part: Part) -> bool:
        """Is this, all versions that are read, a model?"""
        return all(self._manifests[bytes.fromhex(each)].plan is not None for each in part.objects)

    def is_as_put(self, part: Part) -> bool:
        """Is it one model, used by the plan that it was put for, each weight in its place?"""
        found = [self._manifests[bytes.fromhex(each)] for each in part.objects]
        return len(found) == 1 and uses_as_put(self.plan, self.terms.bindings, found[0])

    def read_from(self) -> dict[str, Manifest]:
        """Return what each stored input is read from, by wire; weights are none."""
        weights = {gate.out for gate in self.plan.weights}
        return {each.wire: self._manifests[each.object] for each in self.terms.bindings if each.wire not in weights}

    # -- noised plans

    def prove(self, wires: frozenset[str]) -> None:
        """Find what the plan guarantees for the people in these stored wires, and keep it for `loss`."""
        if wires and wires not in self._proved:
            self._proved[wires] = self._proofs.find(self.plan, {wire: self._facts(wire) for wire in wires})

    def loss(self, part: Part, wires: frozenset[str]) -> Loss | None:
        """Return what a run tells of a person through one dataset; None if that was not asked for before.

        Args:
            wires: all those that are to be protected in this session, the dataset's among them.

        Raises:
            PlanError: nothing is proved, and why.
        """
        found = self._proved.get(wires)
        if isinstance(found, PlanError):
            raise found.again()
        return None if found is None else found.of(part.wires)

    def _facts(self, wire: str) -> StoredFacts:
        bound = next(each for each in self.terms.bindings if each.wire == wire)
        found = self._manifests[bound.object]
        return StoredFacts(bound.rows, found.rows_per_person, f"{bound.object.hex()}/{bound.first}")


def _bound(binding: Binding) -> Bound:
    return Bound(dataset=binding.object.hex(), columns=binding.columns, first=binding.first, rows=binding.rows)
