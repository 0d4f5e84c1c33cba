"""Which end of a linear layer is opened: never more rounds, never what somebody else needs."""

from __future__ import annotations

import numpy as np
import pytest

from mpc.compiler.lowering.unopened import leave_unopened
from mpc.gates.linear import Combine, Total
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.multiply import Multiply
from mpc.gates.relu import Relu
from mpc.gates.truncate import Truncate
from mpc.plan.cost import plan_cost
from mpc.plan.verify import verify
from mpc.wires import Masking
from tests.support.plans import Builder, Plan, wire, with_parts
from tests.support.worlds import Trial

B, INHERITED = "batch", {"masking": Masking.INHERITED}


def layer(columns: int, reader: str, source: str = "relu") -> Builder:
    """x (batch, 6) -> relu or so -> (6 or 1, columns) public -> reader."""
    b = Builder()
    width = 1 if source in ("value", "index") else 6
    b.enter("w", (width, columns), 8, session=True, public=True)
    b.enter("x", (B, 6), 12)
    if source == "relu":
        b.gate(Relu(name="s", x="x", out="h", shift=0), wire("h", (B, 6), 13))
    elif source == "truncate":
        b.gate(Truncate(name="s", x="x", out="h", shift=0), wire("h", (B, 6), 13))
    else:
        b.gate(Maximum(name="s", x="x", shift=0, **{source: "h"}), wire("h", (B, 1), 13))
    b.gate(Matmul(name="m", x="h", weight="w", out="z"), wire("z", (B, columns), 25, **INHERITED))
    if reader == "output":
        b.gate(Truncate(name="end", x="z", out="y", shift=0), wire("y", (B, columns), 26))
    elif reader == "relu":
        b.gate(Relu(name="end", x="z", out="y", shift=0), wire("y", (B, columns), 26))
    else:
        b.gate(Multiply(name="end", x="z", y="z", out="y"), wire("y", (B, columns), 50))
    b.output("y")
    return b


def late(b: Builder) -> tuple[Plan, Plan]:
    """The plan before and after; both verified, the second never dearer."""
    before = b.build()
    weights = {gate.out: None for gate in before.weights}
    gates, wires = leave_unopened(before.gates, before.wire, weights)
    after = with_parts(before, gates=gates, wires=wires.values())
    verify(after)
    old, new = plan_cost(before), plan_cost(after)
    assert new.rounds <= old.rounds and new.sent <= old.sent and new.dealt <= old.dealt
    return before, after


@pytest.mark.parametrize("reader", ["output", "relu", "multiply"])
@pytest.mark.parametrize("columns", [2, 6, 9])
@pytest.mark.parametrize("source", ["relu", "value", "index", "truncate"])
def test_the_smaller_end_or_an_output(source: str, columns: int, reader: str) -> None:
    before, after = late(layer(columns, reader, source))
    size = 1 if source in ("value", "index") else 6
    wanted = source in ("relu", "value") and (reader == "output" or columns < size)
    assert (after.wire["h"].masking is Masking.UNOPENED) == (after.wire["z"].masking is Masking.UNOPENED) == wanted
    assert (after != before) == wanted
    if wanted and reader == "output":
        assert plan_cost(after).rounds == plan_cost(before).rounds - 1


def test_what_somebody_else_reads_is_opened() -> None:
    b = layer(2, "output")
    b.gate(Relu(name="other", x="h", out="o", shift=0), wire("o", (B, 6), 14))
    b.output("o")
    before, after = late(b)
    assert after == before


def test_what_somebody_receives_is_opened() -> None:
    b = layer(2, "output")
    b.output("h")
    before, after = late(b)
    assert after == before


def test_a_sum_waits_for_all_its_sources() -> None:
    """Two ReLUs, one of them later: one opening at the end serves both."""
    b = layer(6, "relu")
    b.gate(Combine(name="c", xs=("y", "h"), factors=(1, 2), out="sum"), wire("sum", (B, 6), 28, **INHERITED))
    b.gate(Total(name="t", x="sum", axes=(1,), out="t"), wire("t", (B, 1), 31, **INHERITED))
    b.gate(Truncate(name="last", x="t", out="last", shift=0), wire("last", (B, 1), 32))
    b.outputs.clear()
    b.wires[-4] = b.wires[-4].model_copy(update={"holders": ()})
    b.output("last")
    before, after = late(b)
    assert {after.wire[name].masking for name in ("h", "y", "z", "sum", "t")} == {Masking.UNOPENED}
    assert plan_cost(after).rounds == plan_cost(before).rounds - 1
    rng = np.random.default_rng(3)
    w, x = rng.integers(-255, 256, (6, 6)), rng.integers(-4095, 4096, (4, 6))
    values = Trial(after, {"w": w}, 3).run({"x": x}, 4).values
    assert (values["last"][:, 0] == (np.maximum(np.maximum(x, 0) @ w, 0) + 2 * np.maximum(x, 0)).sum(axis=1)).all()


@pytest.mark.parametrize("public", [True, False])
def test_what_is_made_of_weights_alone_is_no_part_of_it(public: bool) -> None:
    """A constant that is added keeps its mask, and may be read elsewhere."""
    b = layer(2, "output")
    b.enter("k", (1, 2), 8, session=True, public=public)
    b.gate(Combine(name="k2", xs=(), factors=(), stored="k", out="k2"), wire("k2", (1, 2), 8, **INHERITED))
    b.gate(Combine(name="c", xs=("z", "k2"), factors=(1, 3), out="c"), wire("c", (B, 2), 26, **INHERITED))
    b.gate(Truncate(name="last", x="c", out="last", shift=0), wire("last", (B, 2), 27))
    b.gate(Truncate(name="alone", x="k2", out="alone", shift=0), wire("alone", (1, 2), 9))
    b.output("last", "alone")
    _, after = late(b)
    assert (after.wire["c"].masking, after.wire["k2"].masking) == (Masking.UNOPENED, Masking.INHERITED)
    assert sum(gate.kind == "open" for gate in after.gates) == 2
    rng = np.random.default_rng(4)
    w, k, x = rng.integers(-255, 256, (6, 2)), rng.integers(-255, 256, (1, 2)), rng.integers(-4095, 4096, (3, 6))
    values = Trial(after, {"w": w, "k": k}, 3).run({"x": x}, 3).values
    assert (values["last"] == np.maximum(x, 0) @ w + 3 * k).all() and (values["alone"] == k).all()


def test_a_plan_has_one_order_whatever_a_gate_reads() -> None:
    """Two results that one gate reads: opened in the order of its equation, in every process."""
    b = layer(2, "output")
    b.enter("v", (6, 2), 8, session=True, public=True)
    b.gate(Matmul(name="n", x="h", weight="v", out="u"), wire("u", (B, 2), 25, **INHERITED))
    for name, x, y in (("p", "z", "u"), ("q", "u", "z")):
        b.gate(Multiply(name=name, x=x, y=y, out=name), wire(name, (B, 2), 50))
        b.output(name)
    _, after = late(b)
    assert [gate.name for gate in after.gates if gate.kind == "open"] == ["end.open", "z.open", "u.open"]
