"""Large collections, which are summed band by band, under attack: plans that tell more than their noise pays for,
parties whose rows change while they are read, and daemons that die between two bands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from mpc.compiler.compile import Compiled
from mpc.errors import HandshakeError, InputError, IntegrityError, MpcError, PlanError, PolicyError
from mpc.gates.base import Gate
from mpc.gates.bound import Bound
from mpc.gates.gaussian import Gaussian
from mpc.gates.linear import Combine
from mpc.gates.moves import Concat
from mpc.gates.open import Open
from mpc.gates.truncate import Truncate
from mpc.plan.bands import in_bands
from mpc.plan.ends import PlanOutput
from mpc.plan.plan import Plan
from mpc.plan.verify import verify
from mpc.privacy.facts import Guarantee, StoredFacts
from mpc.privacy.guarantee import guarantee
from mpc.wires import Masking, Wire
from parties.client.collections import collection, sums
from parties.client.collections.collection import Collection
from parties.client.collections.sums import Wishes, undivided
from parties.party.vault.vault import Vault
from parties.provider.stored import StoredMasks
from tests.support.collections import SIZE, enter_all, opened, over
from tests.support.lies import Lies, into
from tests.support.parties import COORDINATOR, InProcess
from tests.support.plans import with_parts

COUNT, MOST = 4, 5
EPSILON = Fraction(5)
WISHES = Wishes(SIZE, Fraction(-1), Fraction(1), 3, MOST, EPSILON, Fraction(1, 10**5), "gaussian", 12)
TERMS = {"epsilon": 5, "delta": "1/100000", "at_most": MOST}


@cache
def one_band() -> Compiled:
    return undivided(COORDINATOR, WISHES)


@cache
def good() -> Plan:
    return in_bands(one_band().plan, COUNT)


def proved(plan: Plan) -> Guarantee:
    return guarantee(plan, {given.wire: StoredFacts(MOST, 1, "collection") for given in plan.inputs})


def changed(plan: Plan, change: Callable[[Gate], Gate | None]) -> list[Gate]:
    """Each gate as it is changed, or as it was."""
    return [change(gate) or gate for gate in plan.gates]


def sums_of(plan: Plan) -> tuple[str, ...]:
    """The wires that are laid side by side: the sum of each band."""
    [joined] = [gate for gate in plan.gates if isinstance(gate, Concat)]
    return joined.xs


# ------------------------------------------------------------------ plans


LIES: Lies = {}
lie = into(LIES)


@lie("not those of epsilon|sigma")
def a_band_summed_twice() -> Plan:
    """The first band is added to the second one too: it moves two numbers, each as far as its noise allows for one."""
    plan = good()
    one, two, *_ = sums_of(plan)
    size = plan.wire[one].shape
    twice = Wire(**(dict(plan.wire[two]) | {"name": "twice", "shape": size}))
    gates, wires = list[Gate](), list[Wire]()
    for gate in plan.gates:
        if isinstance(gate, Concat):
            gates.append(Combine(name="twice", xs=(one, two), factors=(1, 1), out="twice"))
            wires.append(twice)
            gate = gate.model_copy(update={"xs": ("twice", "twice", *gate.xs[2:])})
        gates.append(gate)
        wires += [plan.wire[name] for name in gate.writes]
    return with_parts(plan, gates=gates, wires=wires)


@lie("not those of epsilon|sigma")
def a_band_that_weighs_twice() -> Plan:
    """What each row gives of one band is doubled before it is summed."""
    plan = good()
    last = max(gate.name for gate in plan.gates if isinstance(gate, Combine) and gate.name.startswith("3."))
    return with_parts(
        plan, gates=changed(plan, lambda gate: gate.model_copy(update={"factors": (2,)}) if gate.name == last else None)
    )


@lie("nothing is proved of what a row contributes")
def a_band_left_out_of_the_clamp() -> Plan:
    """The first one: its rows are summed as their clients entered them; of another one `verify` refuses that."""
    plan = good()
    held = next(gate for gate in plan.gates if isinstance(gate, Bound))
    [behind] = [gate for gate in plan.gates if held.out in gate.reads]

    def let(gate: Gate) -> Gate | None:
        if gate.name == behind.name:
            return gate.model_copy(update={"xs": (held.x,), "constant": 0})
        return None

    kept = [gate for gate in changed(plan, let) if gate.name != held.name]
    free = {behind.writes[0], *(name for gate in kept if behind.writes[0] in gate.reads for name in gate.writes)}
    wires = []
    for wire in plan.wires:
        if wire.name == held.out:
            continue
        inherited = wire.name in free
        wires.append(wire.model_copy(update={"masking": Masking.INHERITED}) if inherited else wire)
    return with_parts(plan, gates=kept, wires=wires)


@lie("tells a sum without noise")
def a_band_told_before_the_last() -> Plan:
    plan = good()
    first = sums_of(plan)[0]
    place = next(number for number, gate in enumerate(plan.gates) if first in gate.writes) + 1
    told = Wire(**(dict(plan.wire[first]) | {"name": "told", "masking": Masking.DRAWN, "holders": (COORDINATOR,)}))
    gates = [*plan.gates[:place], Open(name="told", x=first, out="told"), *plan.gates[place:]]
    wires = {wire.name: wire for wire in (*plan.wires, told)}
    return with_parts(
        plan,
        gates=gates,
        wires=[wires[name] for gate in gates for name in gate.writes],
        outputs=[*plan.outputs, PlanOutput(name="told", wire="told", shape=told.shape, dtype="float64")],
    )


@lie("not those of epsilon|sigma")
def less_noise_than_all_bands_need() -> Plan:
    """As much as one band alone would need."""
    alone = undivided(COORDINATOR, replace(WISHES, size=SIZE // COUNT)).plan
    [sigma] = [gate.sigma for gate in alone.gates if isinstance(gate, Gaussian)]
    plan = good()
    return with_parts(
        plan,
        gates=changed(
            plan, lambda gate: gate.model_copy(update={"sigma": sigma}) if isinstance(gate, Gaussian) else None
        ),
    )


def noise_for_each_band(sigma: Fraction | None = None) -> Plan:
    """Each band has noise of its own, of the epsilon of all: as much as it alone needs, unless it is said."""
    plan = good()
    alone = undivided(COORDINATOR, replace(WISHES, size=SIZE // COUNT)).plan
    [enough] = [gate.sigma for gate in alone.gates if isinstance(gate, Gaussian)]
    tail: list[Gate] = [gate for gate in plan.gates if not gate.name.count(".") > 1 and not isinstance(gate, Concat)]
    joined = next(gate for gate in plan.gates if isinstance(gate, Concat))
    gates: list[Gate] = [gate for gate in plan.gates if gate.name.count(".") > 1]
    wires = {wire.name: wire for wire in plan.wires}
    outputs = []
    for number, summed in enumerate(joined.xs):
        names = {joined.out: summed}
        for gate in tail:
            out = gate.writes[0]
            names[out] = f"{out}.own{number}"
            wires[names[out]] = Wire(**(dict(plan.wire[out]) | {"name": names[out], "shape": plan.wire[summed].shape}))
            update: dict[str, object] = {"name": f"{gate.name}.own{number}", "out": names[out]}
            if isinstance(gate, Gaussian):
                update["sigma"] = sigma or enough
            if isinstance(gate, Combine):
                update["xs"] = tuple(names[name] for name in gate.xs)
            if isinstance(gate, Open | Truncate):
                update["x"] = names[gate.x]
            gates.append(gate.model_copy(update=update))
        told = names[plan.outputs[0].wire]
        outputs.append(PlanOutput(name=f"sum{number}", wire=told, shape=wires[told].shape, dtype="float64"))
    every = [wires[name] for gate in gates for name in gate.writes]
    return with_parts(plan, gates=gates, wires=every, outputs=outputs)


@lie("an epsilon of")
def smaller_noise_in_each_band() -> Plan:
    return noise_for_each_band(Fraction(8))


@pytest.mark.parametrize("name", sorted(LIES))
def test_security_40_a_plan_that_lies_about_its_bands_is_refused(name: str) -> None:
    build, reason = LIES[name]
    plan = build()
    verify(plan)  # it parses, and would compute
    with pytest.raises(PlanError, match=reason):
        proved(plan)


def test_security_40_bands_that_are_noised_apart_cost_an_epsilon_each() -> None:
    """Which is more than a collection says that its sum costs."""
    plan = noise_for_each_band()
    verify(plan)
    found = proved(plan)
    assert len(found.vectors) == COUNT
    assert found.of([given.wire for given in plan.inputs]).epsilon == COUNT * EPSILON
    assert proved(good()).of([given.wire for given in good().inputs]).epsilon == EPSILON


# ------------------------------------------------------------------ the parties


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("bands"), 2) as running:
        yield running


@pytest.fixture(autouse=True)
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten numbers of five rows."""
    monkeypatch.setattr(sums, "BAND", SIZE * MOST // COUNT)
    monkeypatch.setitem(sums.BANDS, "passive", SIZE * MOST // COUNT)


def asked(cluster: InProcess, made: Collection, monkeypatch: pytest.MonkeyPatch) -> Collection:
    over(cluster, monkeypatch)
    return collection.find(cluster.client(), made.name)


class Lying(Compiled):
    """A plan as its compiler would hand it over, and nothing that would look at it."""

    @property
    def messages(self) -> list[str]:
        return []

    @property
    def deviations(self) -> dict[str, float]:
        return {sums.SUM: 1.0}


def as_compiled(plan: Plan) -> Compiled:
    return Lying(plan, {}, {}, one_band().rehearsal)


def near(found: collection.Collected, rows: list[np.ndarray]) -> bool:
    return bool(np.abs(found.value - sum(rows)).max() < 6.5 * found.std)


def test_an_honest_sum_in_bands(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control for all below; it is told once."""
    made = opened(cluster, "honest", **TERMS)
    assert len(made.signed_plan().plan.inputs) == COUNT
    rows = enter_all(cluster, made, 4)
    made = asked(cluster, made, monkeypatch)
    found = made.sum()
    assert found.rows == 4 and near(found, rows) and found.epsilon == EPSILON
    with pytest.raises(PolicyError, match="has been told"):
        made.sum()


def test_a_collection_that_an_earlier_version_opened_in_one_band_is_told(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(sums, "BAND", 1 << 30)
        made = opened(cluster, "earlier", **TERMS)
        assert len(made.signed_plan().plan.inputs) == 1
    rows = enter_all(cluster, made, 3)
    assert near(asked(cluster, made, monkeypatch).sum(), rows)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (a_band_summed_twice, "epsilon|sigma"),
        (a_band_left_out_of_the_clamp, "what a row contributes"),
        (a_band_told_before_the_last, "without noise"),
        (noise_for_each_band, "epsilon|outputs|answers"),
    ],
)
def test_parties_refuse_what_whoever_collects_has_signed(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch, plan: Callable[[], Plan], reason: str
) -> None:
    """Its clients have agreed to the plan's digest alone; every party reads the plan."""
    lying = as_compiled(plan())
    for name in ("compiled", "undivided", "banded"):
        monkeypatch.setattr(collection, name, lambda *_: lying)
    made = opened(cluster, f"lies-{plan.__name__.replace('_', '-')}", **TERMS)
    enter_all(cluster, made, 3)
    with pytest.raises(MpcError, match=reason) as refused:
        asked(cluster, made, monkeypatch).sum()
    assert isinstance(refused.value, PlanError | PolicyError)


def test_a_band_beyond_the_row_is_refused(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = good()
    beyond = [*plan.inputs[:-1], plan.inputs[-1].model_copy(update={"first": SIZE - 1})]
    lying = as_compiled(with_parts(plan, inputs=beyond))
    for name in ("compiled", "undivided", "banded"):
        monkeypatch.setattr(collection, name, lambda *_: lying)
    made = opened(cluster, "beyond", **TERMS)
    enter_all(cluster, made, 3)
    with pytest.raises(InputError, match="elements a row"):
        asked(cluster, made, monkeypatch).sum()


class Altered:
    """A party's disk gives other rows, from the n-th time on that somebody reads them."""

    def __init__(self, cluster: InProcess, monkeypatch: pytest.MonkeyPatch, index: int, number: int) -> None:
        self.left, self._rows = number, cluster.nodes[index].vault.rows
        monkeypatch.setattr(cluster.nodes[index].vault, "rows", self.rows)

    def rows(self, *which: object) -> np.ndarray:
        self.left -= 1
        found = self._rows(*which)  # type: ignore[arg-type]
        return found if self.left >= 0 else found ^ np.uint64(1)


@pytest.mark.parametrize(("number", "reason"), [(0, "do not agree on what was entered"), (5, "altered while a run")])
def test_rows_that_change_at_a_party_are_noticed_before_anything_is_told(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    """Before the run, or between two bands of it; mended, the sum is told once."""
    made = opened(cluster, f"altered-{number}", **TERMS)
    rows = enter_all(cluster, made, 3)
    made = asked(cluster, made, monkeypatch)
    with monkeypatch.context() as bad:
        Altered(cluster, bad, 1, number)
        with pytest.raises(IntegrityError, match=reason):
            made.sum()
    assert near(made.sum(), rows)
    with pytest.raises(PolicyError, match="has been told"):
        made.sum()


def test_security_17_a_party_that_dies_between_two_bands_tells_nothing_and_the_sum_is_told_once(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = opened(cluster, "dies", **TERMS)
    rows = enter_all(cluster, made, 3)
    made = asked(cluster, made, monkeypatch)
    read = Vault.rows

    def dying(vault: Vault, *which: object) -> np.ndarray:
        """Gone while the second band is read; the first was opened."""
        dying.left -= 1  # type: ignore[attr-defined]
        if vault is cluster.nodes[1].vault and dying.left < 0:  # type: ignore[attr-defined]
            cluster.servers[cluster.names[1]].stop(0)
            raise IntegrityError("gone")
        return read(vault, *which)  # type: ignore[arg-type]

    dying.left = 10  # type: ignore[attr-defined]
    with monkeypatch.context() as bad:
        bad.setattr(Vault, "rows", dying)
        with pytest.raises(MpcError):
            made.sum()
    cluster.crash(1)
    cluster.revive(1)
    over(cluster, monkeypatch)
    made = collection.find(cluster.client(), "dies")
    found = made.sum()
    assert near(found, rows)
    with pytest.raises(PolicyError, match="has been told"):
        made.sum()


def test_the_provider_is_shown_the_seeds_of_all_bands_once(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are one object's: shown twice they are refused."""
    made = opened(cluster, "shown", **TERMS)
    enter_all(cluster, made, 3)
    show, seen = StoredMasks.show, []

    def watched(self: StoredMasks, party: str, objects: object, seeds: list[list[bytes]], trust: object) -> None:
        seen.append([len(each) for each in seeds])
        with pytest.raises(HandshakeError, match="twice"):
            show(self, party, objects, [seeds[0], *seeds[:1] * (COUNT - 1)], trust)  # type: ignore[arg-type]
        show(self, party, objects, seeds, trust)  # type: ignore[arg-type]

    monkeypatch.setattr(StoredMasks, "show", watched)
    asked(cluster, made, monkeypatch).sum()
    assert seen == [[3, 0, 0, 0]] * 2
