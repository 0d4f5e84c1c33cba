"""Independent gates share a round; the depth of a plan is its longest path."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mpc.gates import Gate
from mpc.gates.linear import Combine
from mpc.gates.maximum import Maximum
from mpc.gates.multiply import Multiply
from mpc.gates.relu import Relu
from mpc.gates.truncate import Truncate
from mpc.plan.schedule import schedule
from mpc.wires import Masking, Wire
from tests.support.effort import examples
from tests.support.plans import Builder, wire
from tests.support.vectors import every_gate

B = "batch"
INHERITED = {"masking": Masking.INHERITED}


def truncate(name: str, x: str, out: str) -> tuple[Gate, Wire]:
    return Truncate(name=name, x=x, out=out, shift=0), wire(out, (B, 2), 20)


def relu(name: str, x: str, out: str) -> tuple[Gate, Wire]:
    return Relu(name=name, x=x, out=out, shift=0), wire(out, (B, 2), 20)


def two_branches() -> Builder:
    """x -> relu -> y (3 rounds) and x -> t -> u (2 rounds), joined by a product."""
    b = Builder()
    b.enter("x", (B, 2), 20)
    b.gate(*relu("r", "x", "y"))
    b.gate(*truncate("t1", "x", "t"))
    b.gate(*truncate("t2", "t", "u"))
    b.gate(Combine(name="c", xs=("t", "u"), factors=(1, 1), out="v"), wire("v", (B, 2), 21, **INHERITED))
    b.gate(Multiply(name="m", x="y", y="v", out="z"), wire("z", (B, 2), 41))
    b.output("z")
    return b


def test_independent_gates_share_a_round() -> None:
    plan = two_branches().build().bind(1)
    found = schedule(plan.online, plan.wire)
    assert found.starts == {"in:x": 0, "r": 0, "t1": 0, "t2": 1, "c": 2, "m": 3}
    names = [[(turn.gate.name, [o.name for o in turn.openings]) for turn in step.turns] for step in found.steps]
    assert names == [
        [("r", ["leaf"]), ("t1", ["y"])],
        [("r", ["e"]), ("t2", ["y"])],
        [("r", ["y"])],
        [("m", ["z"])],
    ]
    assert [step.number for step in found.steps] == [0, 1, 2, 3]


def test_a_step_has_the_bytes_of_all_its_openings() -> None:
    plan = two_branches().build().bind(3)
    sizes = [step.size for step in schedule(plan.online, plan.wire).steps]
    # 6 elements: 6 leaf words of 7 bits and 6 field elements; 6 packed bits; field elements
    # in front of the first the digest of what was entered
    assert sizes == [32 + 6 * 1 + 6 * 8, 1 + 6 * 8, 6 * 8, 6 * 8]


def test_within_a_step_the_order_is_the_plans() -> None:
    """Which is the order of the bytes, so all parties have to agree on it."""
    b = Builder()
    b.enter("x", (B, 2), 20)
    names = [f"g{i}" for i in (3, 1, 2, 0)]
    for name in names:
        b.gate(*truncate(name, "x", f"y{name}"))
    b.output(*(f"y{name}" for name in names))
    plan = b.build().bind(1)
    (step,) = schedule(plan.online, plan.wire).steps
    assert [turn.gate.name for turn in step.turns] == names


def test_gates_without_rounds_take_none() -> None:
    b = Builder()
    b.enter("x", (B, 2), 20)
    last = "x"
    for number in range(5):
        b.gate(Combine(name=f"c{number}", xs=(last,), factors=(1,), out=f"v{number}"),
               wire(f"v{number}", (B, 2), 20, **INHERITED))  # fmt: skip
        last = f"v{number}"
    b.gate(*truncate("t", last, "y"))
    b.output("y")
    plan = b.build().bind(1)
    assert len(schedule(plan.online, plan.wire).steps) == 1


def test_stored_weights_are_there_from_the_start() -> None:
    plan = every_gate().bind(2)
    starts = schedule(plan.online, plan.wire).starts
    assert "in:w" not in starts and starts["2"] == 0


def test_nothing_to_do_takes_no_steps() -> None:
    found = schedule((), {})
    assert found.steps == () and found.starts == {}


KINDS = ["truncate", "relu", "combine", "multiply", "maximum"]
ROUNDS = {"truncate": 1, "relu": 3, "combine": 0, "multiply": 1, "maximum": 3}


@examples(60)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12))
def test_starts_are_longest_paths(layers: list) -> None:
    """Any graph: a gate starts when the last of what it reads is ready, at once and not later."""
    b = Builder()
    b.enter("w0", (B, 2), 20)
    reads: list[tuple[str, tuple[int, ...]]] = []
    for number, (kind, *picks) in enumerate(layers, 1):
        first, second = (pick % number for pick in picks)
        x, y, out, name = f"w{first}", f"w{second}", f"w{number}", f"g{number}"
        made: dict[str, tuple[Gate, tuple[int, ...], dict]] = {
            "truncate": (Truncate(name=name, x=x, out=out, shift=0), (first,), {}),
            "relu": (Relu(name=name, x=x, out=out, shift=0), (first,), {}),
            "combine": (Combine(name=name, xs=(x, y), factors=(1, 1), out=out), (first, second), INHERITED),
            "multiply": (Multiply(name=name, x=x, y=y, out=out), (first, second), {}),
            "maximum": (Maximum(name=name, x=x, index=out, shift=0), (first,), {}),
        }
        gate, sources, masking = made[kind]
        b.gate(gate, wire(out, (B, 2) if kind != "maximum" else (B, 1), 20, **masking))
        reads.append((kind, sources))
    wires = {w.name: w.bind(1) for w in b.wires}
    found = schedule(b.gates, {name: w.model_copy(update={"shape": (1, 2)}) for name, w in wires.items()})
    ready = [0]
    for number, (kind, sources) in enumerate(reads, 1):
        start = max(ready[source] for source in sources)
        assert found.starts[f"g{number}"] == start
        turns = [step.number for step in found.steps for turn in step.turns if turn.gate.name == f"g{number}"]
        assert turns == list(range(start, start + ROUNDS[kind]))
        ready.append(start + ROUNDS[kind])
    assert len(found.steps) == max(ready)
    assert all(step.turns for step in found.steps)
