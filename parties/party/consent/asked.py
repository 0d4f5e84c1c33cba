"""Read what a session asks of data at rest: which datasets, under whose keys, and what each run tells of a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mpc.errors import PlanError
from mpc.plan.plan import Plan
from mpc.privacy.dependence import rows_meet
from mpc.privacy.facts import Guarantee, Loss, Mechanism, StoredFacts
from parties.agreed.bindings import Binding, parts_of, rows_of
from parties.agreed.kept import Read, origins_of
from parties.agreed.models import uses_as_put
from parties.agreed.objects import Manifest
from parties.agreed.questions import ANY, Bound, ExactPlan
from parties.agreed.terms import Terms
from parties.party.consent.proofs import Proofs


@dataclass(frozen=True)
class Part:
    """Part of a session that reads one dataset, of whatever versions, or what was kept of it.

    Args:
        name: OWNER/NAME.
        key: digest of the key that put it.
        objects: ids of what is bound, each once.
        wires: of the plan.
        kept: the name is of what parties kept of sessions: the people in it have their budgets elsewhere.
    """

    name: str
    owner: str
    key: bytes
    objects: tuple[str, ...]
    wires: tuple[str, ...]
    kept: bool = False


@dataclass(frozen=True)
class Protected:
    """People whom noise has to protect in a session.

    Args:
        wires: of all datasets of which noised answers alone may be told.
        apart: pairs of datasets of which both owners state that nobody is in both.
    """

    wires: frozenset[str] = frozenset()
    apart: frozenset[frozenset[str]] = frozenset()


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
        self.manifests, self._proofs = manifests, proofs
        self.read = {each: Read(found, keys[each]) for each, found in manifests.items()}
        self.parts = tuple(self._part(name) for name in sorted(self._whose()))
        self._proved: dict[Protected, Guarantee | PlanError] = {}

    def _whose(self) -> dict[str, tuple[str, bytes]]:
        """(owner, key) of every dataset that is read, or that something read was kept of."""
        found = {each.manifest.name: (each.manifest.owner, each.key) for each in self.read.values()}
        for each in self.read.values():  # a name belongs to one key for good: all its versions have it
            found |= {origin.name: (origin.owner, bytes.fromhex(origin.key)) for origin in origins_of(each)}
        return found

    def _part(self, name: str) -> Part:
        through = [each for each, found in self.read.items() if name in _names(found)]
        origins = {origin.name for each in through for origin in origins_of(self.read[each])}
        bound = [each for each in self.terms.bindings if each.object in through]
        objects = tuple(each.hex() for each in dict.fromkeys(each.object for each in bound))
        return Part(name, *self._whose()[name], objects, tuple(each.wire for each in bound), name not in origins)

    @property
    def is_one_question(self) -> bool:
        """Does its program say all that its runs read and tell?  Then a session is one use of what it reads."""
        program = self.plan.program
        return program is not None and program.rows is not None and not self.plan.entered

    @property
    def reads_unchecked(self) -> bool:
        """Was something that it reads kept in a session whose runs were not checked?"""
        return not all(each.is_checked for each in self.manifests.values())

    @property
    def receivers(self) -> frozenset[str]:
        """Names of those that come to something: who receives an output, and who has one kept."""
        return self.plan.recipients | ({self.coordinator} if self.plan.kept else frozenset())

    def ids(self, part: Part) -> tuple[str, ...]:
        """Ids (hex) by which a grant may name what is read: what is bound, and versions that it is a refresh of."""
        earlier = {alias for each in part.objects for alias in self.manifests[bytes.fromhex(each)].aliases}
        return (*part.objects, *sorted(earlier))

    def gathered(self, part: Part) -> str | None:
        """Return the id of the collection that this was gathered of; None if it is a dataset or a model."""
        found = (self.manifests[bytes.fromhex(each)].gathered for each in part.objects)
        return next((each for each in found if each is not None), None)

    def is_own(self, part: Part) -> bool:
        """Does its owner ask this itself, and for nobody else?  What was gathered is its clients', whoever collects."""
        if self.gathered(part) is not None:
            return False
        mine = (part.owner, part.key) == (self.coordinator, self.key)
        return mine and self.receivers <= {part.owner}

    def is_seen(self, part: Part) -> bool:
        """May who asks know that the dataset is there?  Its owner may, who is a key, and not a name."""
        if (part.owner, part.key) == (self.coordinator, self.key):
            return True
        found = [self.manifests[bytes.fromhex(each)] for each in part.objects]
        return all(each.visible == (ANY,) or self.coordinator in each.visible for each in found)

    # -- exact plans

    def origins(self, part: Part) -> tuple[str, ...]:
        """Ids of what was put under a dataset's name and something that is read here was kept of."""
        every = [each for found in self.read.values() for each in origins_of(found) if each.name == part.name]
        return tuple(sorted({each.object for each in every} - {*self.ids(part)}))

    def follows(self, part: Part, dataset: str, plans: frozenset[str]) -> bool:
        """Is all that is read of a dataset the version of that id, or what parties kept of it by some of these plans?

        Args:
            plans: that are granted together: what one of them leaves another one goes on with.
        """
        for each in part.objects:
            found = self.read[bytes.fromhex(each)]
            whole = found.manifest
            if dataset in {each, *whole.aliases}:
                continue
            origins = {origin.object for origin in origins_of(found) if origin.name == part.name}
            if whole.kept is None or whole.kept.plan not in plans or origins != {dataset}:
                return False
        return True

    def is_exactly(self, listed: ExactPlan) -> bool:
        """Is this the listed plan, of the listed rows and columns, with the listed weights?"""
        if listed.plan != self.terms.plan_digest.hex():
            return False
        weights = {gate.out for gate in self.plan.weights}
        bound = {each.wire: parts_of(self.terms.bindings, each.wire) for each in self.terms.bindings}
        if set(listed.bindings) != {wire for wire in bound if wire not in weights} or set(listed.weights) != weights:
            return False
        if not all(self._are_bound(said, bound.get(wire, [])) for wire, said in listed.bindings.items()):
            return False
        return all(said == ANY or self._are_bound(said, bound.get(wire, [])) for wire, said in listed.weights.items())

    def _are_bound(self, said: Bound | tuple[Bound, ...] | str, parts: list[Binding]) -> bool:
        """Is that what is bound, part by part, or a version that it is a refresh of?"""
        if isinstance(said, str):
            return False
        every = said if isinstance(said, tuple) else (said,)
        return len(every) == len(parts) and all(map(self._is_bound, every, parts))

    def _is_bound(self, said: Bound, binding: Binding) -> bool:
        ids = {binding.object.hex(), *self.manifests[binding.object].aliases}
        place = (binding.columns, binding.first, binding.rows)
        return said.dataset in ids and (said.columns, said.first, said.rows) == place

    @cached_property
    def rows_of_a_run(self) -> int | None:
        """Rows that every run has to have; None if it is no matter, or the plan's program says which rows they are.

        Where rows meet an answer about fewer is another answer: the terms name the rows that it is about.
        """
        program, rows = self.plan.program, rows_of(self.plan, self.terms.bindings)
        said = program is not None and program.rows is not None
        return rows if rows is not None and not said and rows_meet(self.plan) else None

    def look_at_rows(self) -> None:
        """Find `rows_of_a_run` while nothing is held: a large plan takes a while."""
        _ = self.rows_of_a_run

    # -- models

    def is_model(self, part: Part) -> bool:
        """Is this, all versions that are read, a model?"""
        return all(self.manifests[bytes.fromhex(each)].plan is not None for each in part.objects)

    def is_as_put(self, part: Part) -> bool:
        """Is it one model, used by the plan that it was put for, each weight in its place?"""
        found = [self.manifests[bytes.fromhex(each)] for each in part.objects]
        return len(found) == 1 and uses_as_put(self.plan, self.terms.bindings, found[0])

    def read_from(self) -> dict[str, list[Manifest]]:
        """Return what each stored input is read from, by wire; weights are none."""
        weights = {gate.out for gate in self.plan.weights}
        return {
            wire: [self.manifests[each.object] for each in parts_of(self.terms.bindings, wire)]
            for wire in dict.fromkeys(each.wire for each in self.terms.bindings)
            if wire not in weights
        }

    # -- noised plans

    def prove(self, people: Protected) -> None:
        """Find what the plan guarantees for these people, and keep it for `loss`."""
        if people.wires and people not in self._proved:
            try:
                facts = {wire: self._facts(wire, people) for wire in people.wires}
            except PlanError as error:
                self._proved[people] = error.again()
            else:
                self._proved[people] = self._proofs.find(self.plan, facts)

    def loss(self, part: Part, people: Protected) -> Loss | None:
        """Return what a run tells of a person through one dataset; None if that was not asked for before.

        Args:
            people: all who are to be protected in this session, the dataset's among them.

        Raises:
            PlanError: nothing is proved, and why.
        """
        for each in part.objects:  # of other origins, say of a model, nothing is noised that would need rows
            read = self.read[bytes.fromhex(each)]
            if any(origin.name == part.name and not origin.by_row for origin in origins_of(read)):
                raise _mixed(read.manifest.name, part.name)
        found = self._proved.get(people)
        if isinstance(found, PlanError):
            raise found.again()
        return None if found is None else found.of(part.wires)

    def mechanisms(self, part: Part, people: Protected) -> tuple[Mechanism, ...]:
        """List the kinds of noise that hide one dataset, of what `loss` was asked for."""
        found = self._proved[people]
        return () if isinstance(found, PlanError) else found.mechanisms(part.wires)

    def _facts(self, wire: str, people: Protected) -> StoredFacts:
        parts = parts_of(self.terms.bindings, wire)
        own, count = self._people(wire), sum(each.rows for each in parts)
        if not own:
            raise _mixed(self.read[parts[0].object].manifest.name, "a dataset")
        (origin, rows), *others = own
        apart = {each for each in people.wires if self._are_apart(wire, each, people)}
        origins = frozenset(each_origin for each in apart for each_origin, _ in self._people(each))
        return StoredFacts(count, rows, origin, tuple(others), origins)

    def _people(self, wire: str) -> list[tuple[str, int]]:
        """(origin, the most rows of one person there) of what a wire is bound to."""
        parts = parts_of(self.terms.bindings, wire)
        origins = [each for part in parts for each in origins_of(self.read[part.object], part.first)]
        return [(f"{origin.object}/{origin.first}", origin.rows_per_person) for origin in origins if origin.by_row]

    def _are_apart(self, one: str, other: str, people: Protected) -> bool:
        """Is nobody in both, as all owners state of whatever datasets these wires are read from, or were kept of?"""
        sides = [[part.name for part in self.parts if wire in part.wires and not part.kept] for wire in (one, other)]
        return all(sides) and all(frozenset((a, b)) in people.apart for a in sides[0] for b in sides[1])


def _mixed(name: str, dataset: str) -> PlanError:
    return PlanError(
        f"a row of {name} is not about a row of {dataset} alone",
        cause="it was kept of a computation in which rows met, or that read no dataset",
        remedy="ask its owners for a grant of this exact question, or ask about the datasets themselves",
    )


def _names(read: Read) -> frozenset[str]:
    return frozenset({read.manifest.name, *(origin.name for origin in origins_of(read))})
