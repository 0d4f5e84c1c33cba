"""Everything that `verify` and the gates' own checks refuse, each from a plan that is otherwise good."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from types import FrameType
from typing import Any

import pytest

from mpc import tables
from mpc.errors import PlanError
from mpc.gates import GATES, Gate
from mpc.gates.base import to_dict
from mpc.gates.between import Between
from mpc.gates.bound import Bound
from mpc.gates.convolution import Convolution
from mpc.gates.draw import Draw
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.gaussian import Gaussian
from mpc.gates.input import Input
from mpc.gates.linear import Combine, Total, Weigh
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import MOST, Maximum
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.multiply import Multiply
from mpc.gates.onehot import OneHot
from mpc.gates.open import Open
from mpc.gates.pieces import Pieces
from mpc.gates.relu import Relu
from mpc.gates.rows import Rows
from mpc.gates.scatter import Scatter
from mpc.gates.select import Select
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.plan import parse
from mpc.plan.ends import Missing, PlanInput, PlanOutput
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.plan.verify import MAX_READS, verify
from mpc.windows import Windows
from mpc.wires import Lifetime, Masking, Wire
from tests.support.plans import OWNER, RECIPIENT, Builder, replace_wires, wire, with_parts
from tests.support.vectors import every_gate

B = "batch"
DRAWN, DERIVED, INHERITED = Masking.DRAWN, Masking.DERIVED, Masking.INHERITED
PUBLIC, UNOPENED, FLIPPED = Masking.PUBLIC, Masking.UNOPENED, Masking.FLIPPED


def network() -> Plan:
    """x -> matmul -> relu -> matmul -> out."""
    b = Builder()
    b.enter("w", (4, 4), 10, 16, session=True)
    b.enter("x", (B, 4), 10, 16)
    b.gate(Matmul(name="a", x="x", weight="w", out="z"), wire("z", (B, 4), 24, 256, masking=DERIVED))
    b.gate(Relu(name="r", x="z", out="y", shift=4), wire("y", (B, 4), 20, 16))
    b.gate(Matmul(name="last", x="y", weight="w", out="out"), wire("out", (B, 4), 34, 256))
    b.output("out")
    return b.build()


NETWORK = network()


def gates(plan: Plan, **changes: Gate | None) -> Plan:
    """With gates replaced by name, or dropped."""
    return with_parts(plan, gates=[g for gate in plan.gates if (g := changes.get(gate.name, gate)) is not None])


def refuses(plan: Plan, problem: str) -> None:
    with pytest.raises(PlanError, match=problem):
        verify(plan)
    with pytest.raises(PlanError):  # and so does the way in from outside
        parse_plan(plan.canonical)


def test_good_plans_pass() -> None:
    verify(NETWORK)
    verify(every_gate())


# ------------------------------------------------------------------ flow


def test_two_wires_of_one_name() -> None:
    refuses(with_parts(NETWORK, wires=(*NETWORK.wires, NETWORK.wires[-1])), "two wires")


def test_two_gates_of_one_name() -> None:
    twice = NETWORK.gates[-1].model_copy(update={"name": "a"})
    refuses(gates(NETWORK, last=twice), "two gates")


@pytest.mark.parametrize(
    ("gate", "which"),
    [
        (Relu(name="r", x="nowhere", out="y", shift=4), "nowhere"),
        (Relu(name="r", x="z", out="nowhere", shift=4), "nowhere"),
    ],
)
def test_a_wire_that_is_not_defined(gate: Gate, which: str) -> None:
    refuses(gates(NETWORK, r=gate), f"{which}.*does not define")


@pytest.mark.parametrize("read", ["out", "y"])
def test_a_wire_read_before_it_is_written(read: str) -> None:
    refuses(gates(NETWORK, r=Relu(name="r", x=read, out="y", shift=4)), "before it is written")


def test_gates_in_another_order() -> None:
    a, b, *rest = NETWORK.gates[2:]
    refuses(with_parts(NETWORK, gates=(*NETWORK.gates[:2], b, a, *rest)), "before it is written")


def test_a_wire_written_twice() -> None:
    again = Relu(name="again", x="z", out="y", shift=4)
    refuses(with_parts(NETWORK, gates=(*NETWORK.gates[:4], again, NETWORK.gates[4])), "written twice")


def test_a_wire_that_no_gate_writes() -> None:
    refuses(with_parts(NETWORK, wires=(*NETWORK.wires, wire("extra", (B,), 3))), "not in the order")


def test_wires_in_another_order_than_their_gates() -> None:
    first, second, *rest = NETWORK.wires
    refuses(with_parts(NETWORK, wires=(second, first, *rest)), "not in the order")


def test_a_product_of_a_derived_mask() -> None:
    direct = Matmul(name="last", x="z", weight="w", out="out")
    plan = replace_wires(gates(NETWORK, last=direct), {"out": {"scale": Fraction(256 * 16)}})
    refuses(plan, "multiplies a wire whose mask is derived")


@pytest.mark.parametrize(
    "kinds",
    [("reshape",), ("reshape", "combine"), ("concat",), ("total", "reshape"), ("take",), ("weigh", "combine")],
)
def test_a_derived_mask_is_not_known_after_linear_maps(kinds: tuple[str, ...]) -> None:
    b = Builder()
    b.enter("x", (B, 1), 10)
    b.gate(Multiply(name="p", x="x", y="x", out="p"), wire("p", (B, 1), 20, masking=DERIVED))
    last = "p"
    for number, kind in enumerate(kinds):
        name = f"m{number}"
        made: dict[str, Gate] = {
            "reshape": Reshape(name=name, x=last, out=name),
            "combine": Combine(name=name, xs=(last, "x"), factors=(1, 1), out=name),
            "concat": Concat(name=name, xs=(last,), axis=1, out=name),
            "total": Total(name=name, x=last, axes=(1,), out=name),
            "take": Take(name=name, x=last, axis=1, indices=(-1,), out=name),
            "weigh": Weigh(name=name, x=last, axis=1, factors=(0,), out=name),
        }
        b.gate(made[kind], wire(name, (B, 1), 20, masking=INHERITED))
        last = name
    b.gate(Multiply(name="q", x="x", y=last, out="q"), wire("q", (B, 1), 40))
    b.output("q")
    refuses(b.unchecked(), "gate q multiplies a wire whose mask is derived")


def unopened_plan(**wires: dict[str, Any]) -> Plan:
    """x -> r, unopened -> m, mapped -> o, opened; not verified."""
    b = Builder()
    b.enter("p", (3, 2), 5, session=True, public=True)
    b.enter("x", (B, 3), 10)
    b.gate(Multiply(name="d", x="x", y="x", out="d"), wire("d", (B, 3), 20, masking=DERIVED))
    b.gate(Relu(name="r", x="x", out="r", shift=0), wire("r", (B, 3), 10, masking=UNOPENED))
    b.gate(Matmul(name="m", x="r", weight="p", out="m"), wire("m", (B, 2), 17))
    b.gate(Open(name="o", x="m", out="o"), wire("o", (B, 2), 17))
    b.output("o")
    return replace_wires(b.unchecked(), wires)


def test_a_wire_that_is_not_opened_is_for_linear_maps_alone() -> None:
    plan = unopened_plan()
    verify(plan)
    for gate, out in (
        (Relu(name="bad", x="r", out="bad", shift=0), wire("bad", (B, 3), 10)),
        (Truncate(name="bad", x="m", out="bad", shift=0), wire("bad", (B, 2), 17)),
        (Multiply(name="bad", x="r", y="r", out="bad"), wire("bad", (B, 3), 20)),
        (Maximum(name="bad", x="r", value="bad", shift=0), wire("bad", (B, 1), 11)),
    ):
        refuses(with_parts(plan, gates=(*plan.gates, gate), wires=(*plan.wires, out)), "not opened")


def refused(plan: Plan, text: str | None = None) -> None:
    with pytest.raises(PlanError, match=text):
        verify(plan)


def chosen() -> Plan:
    """x -> relu, whose bits choose among the elements of x."""
    b = Builder()
    b.enter("x", (B, 4), 10, 16)
    flipped = wire("d", (B, 4), 1, masking=FLIPPED)
    b.gate(Relu(name="r", x="x", out="y", bit="d", shift=0), wire("y", (B, 4), 10, 16), flipped)
    b.gate(Select(name="s", x="x", bit="d", shift=4, out="out"), wire("out", (B, 4), 7, 1))
    b.output("y", "out")
    return b.build()


def test_a_flipped_bit_is_for_choosing_alone_and_nothing_else_is_chosen_by() -> None:
    """Its x^ is no number: a gate that reads it as one would open or compute garbage; a number is no opened bit."""
    plan = chosen()
    verify(plan)
    relu, select = plan.gates[1:]
    as_number = [
        Truncate(name="s", x="d", shift=0, out="out"),
        Multiply(name="s", x="d", y="d", out="out"),
        Combine(name="s", xs=("d",), factors=(1,), out="out"),
        Relu(name="s", x="d", shift=0, out="out"),
    ]
    for gate in as_number:
        refused(gates(plan, s=gate), "'d' is an opened bit where a number belongs")
    refused(gates(plan, s=Select(name="s", x="d", bit="d", shift=0, out="out")), "the bit itself is no number")
    refused(gates(plan, s=select.model_copy(update={"bit": "y"})), "'y' is an opened bit where a number belongs")
    for masking in (DRAWN, DERIVED, INHERITED, PUBLIC, UNOPENED):
        refused(replace_wires(plan, {"d": {"masking": masking}}))
    refused(replace_wires(plan, {"y": {"masking": FLIPPED}}))
    refused(replace_wires(plan, {"x": {"masking": FLIPPED}}))
    refused(gates(plan, r=relu.model_copy(update={"bit": None})))


def test_what_came_later_is_left_out_of_plans_that_have_none() -> None:
    """Plans have the bytes that they had before, and there is one way to write each."""
    for gate, names in ((NETWORK.gates[3], ("bit", "ceiling")), (chosen().gates[1], ("ceiling",))):
        content = to_dict(gate)
        assert gate.kind == "relu" and not content.keys() & {*names}
    assert to_dict(chosen().gates[1])["bit"] == "d"
    spelt_out = json.loads(NETWORK.canonical)
    next(gate for gate in spelt_out["gates"] if gate["kind"] == "relu")["bit"] = None
    with pytest.raises(PlanError, match="not in its canonical encoding"):
        parse_plan(json.dumps(spelt_out, sort_keys=True, separators=(",", ":")).encode())


def test_a_wire_that_is_not_opened_is_not_joined_with_a_derived_mask() -> None:
    plan = unopened_plan()
    for other, problem in (("x", None), ("d", "joins a wire that is not opened with one whose mask is derived")):
        gate = Combine(name="c", xs=("r", other), factors=(1, 1), out="c")
        joined = wire("c", (B, 3), 21, masking=UNOPENED)
        changed = with_parts(plan, gates=(*plan.gates, gate), wires=(*plan.wires, joined))
        if problem:
            refuses(changed, problem)
        else:
            verify(changed)


@pytest.mark.parametrize(
    ("name", "masking"), [("o", UNOPENED), ("m", INHERITED), ("m", DRAWN), ("p", INHERITED), ("x", PUBLIC)]
)
def test_a_wire_is_not_called_something_else(name: str, masking: Masking) -> None:
    with pytest.raises(PlanError):
        verify(unopened_plan(**{name: {"masking": masking}}))


def test_an_unopened_wire_is_nobodys_output() -> None:
    with pytest.raises(PlanError):
        verify(unopened_plan(r={"holders": (RECIPIENT,)}))


def test_an_inherited_mask_of_known_masks_is_known() -> None:
    b = Builder()
    b.enter("x", (B, 1), 10)
    b.gate(Reshape(name="m", x="x", out="m"), wire("m", (B, 1), 10, masking=INHERITED))
    b.gate(Multiply(name="q", x="m", y="m", out="q"), wire("q", (B, 1), 40))
    b.output("q")
    b.build()


# ------------------------------------------------------------------ ends


def with_input(**changes: Any) -> Plan:
    return with_parts(NETWORK, inputs=(NETWORK.inputs[0].model_copy(update=changes),))


def with_output(**changes: Any) -> Plan:
    return with_parts(NETWORK, outputs=(NETWORK.outputs[0].model_copy(update=changes),))


def test_an_input_that_is_not_declared() -> None:
    refuses(with_parts(NETWORK, inputs=()), "input gates")


@pytest.mark.parametrize("name", ["w", "y", "nowhere"])
def test_a_declared_input_that_no_input_gate_writes(name: str) -> None:
    refuses(with_input(wire=name), "input gates")
    more = PlanInput(name="more", wire=name, dtype="float32", low=(Fraction(0),), high=(Fraction(1),))
    refuses(with_parts(NETWORK, inputs=(*NETWORK.inputs, more)), "input gates")


def test_one_wire_declared_twice() -> None:
    again = NETWORK.inputs[0].model_copy(update={"name": "again"})
    refuses(with_parts(NETWORK, inputs=(*NETWORK.inputs, again)), "input gates")


@pytest.mark.parametrize("ends", [(2, 1), (0, -1), (Fraction(1, 3), Fraction(1, 4))])
def test_an_empty_range(ends: tuple[int, int]) -> None:
    low, high = ((Fraction(end),) for end in ends)
    refuses(with_input(low=low, high=high), "range is empty")


@pytest.mark.parametrize("position", range(4))
def test_an_empty_range_in_one_column(position: int) -> None:
    low, high = [Fraction(0)] * 4, [Fraction(1)] * 4
    verify(with_input(low=tuple(low), high=tuple(high)))
    low[position] = Fraction(1)
    verify(with_input(low=tuple(low), high=tuple(high)))  # one value: a constant column
    low[position] = Fraction(2)
    refuses(with_input(low=tuple(low), high=tuple(high)), "range is empty")


@pytest.mark.parametrize("columns", [(2, 2), (1, 4), (4, 1), (5, 5), (3, 4)])
def test_ranges_of_other_columns(columns: tuple[int, int]) -> None:
    low, high = (Fraction(0),) * columns[0], (Fraction(1),) * columns[1]
    refuses(with_input(low=low, high=high), "does not fit its columns")


@pytest.mark.parametrize(
    "units", [{"offset": 2}, {"factor": 2}, {"offset": 5, "factor": 4}, {"offset": 4, "factor": 3}]
)
def test_units_of_other_columns(units: dict[str, int]) -> None:
    verify(with_input(offset=(Fraction(3),) * 4, factor=(Fraction(2),) * 4))
    refuses(with_input(**{name: (Fraction(1),) * count for name, count in units.items()}), "units do not fit")


@pytest.mark.parametrize("factor", [0, -1])
def test_a_unit_that_is_not_positive(factor: int) -> None:
    refuses(with_input(factor=(Fraction(1), Fraction(1), Fraction(factor), Fraction(1))), "unit is not positive")


def missing(**settings: Any) -> Plan:
    return with_input(missing=Missing(**({"beyond": "high", "columns": (0, 2)} | settings)))


def marked(shape: tuple = (B, 4), scale: int = 1, holder: str = OWNER) -> Plan:
    """A plan with an input whose missing numbers are marked on a wire of this shape, scale and owner."""
    b = Builder()
    b.enter("x", (B, 4), 10, 16)
    b.enter("m", shape, 8, scale)
    b.gate(Relu(name="r", x="x", out="y", shift=4), wire("y", (B, 4), 10, 1))
    b.output("y")
    given = b.inputs[0].model_copy(update={"missing": Missing(wire="m", columns=(1, 3))})
    plan = with_parts(b.unchecked(), inputs=(given,))
    return replace_wires(plan, {"m": {"holders": (holder,)}})


def test_numbers_may_be_missing_in_one_way() -> None:
    for end in ("low", "high"):
        verify(missing(beyond=end))
    verify(marked())
    refuses(missing(beyond=None), "enter in one way")
    refuses(missing(wire="m", beyond="low"), "input gates")  # no gate enters that wire
    both = marked()
    given = both.inputs[0].model_copy(update={"missing": Missing(wire="m", beyond="low", columns=(1,))})
    refuses(with_parts(both, inputs=(given,)), "enter in one way")


@pytest.mark.parametrize("plan", [marked((B, 3)), marked((4,)), marked(scale=2), marked(holder="somebody")])
def test_marks_that_do_not_fit_what_they_mark(plan: Plan) -> None:
    refuses(plan, "do not fit it")


@pytest.mark.parametrize("columns", [(4,), (0, 4), (-1,), (1, 1), (2, 1)])
def test_columns_that_cannot_miss_numbers(columns: tuple[int, ...]) -> None:
    refuses(missing(columns=columns), "no such columns")


def test_a_whole_number_cannot_be_missing() -> None:
    plan = missing()
    refuses(with_parts(plan, inputs=(plan.inputs[0].model_copy(update={"dtype": "int64"}),)), "cannot be missing")


def placed(scale: int = 1, lifetime: Lifetime = Lifetime.RUN, **settings: Any) -> Plan:
    """A plan whose owner says one of seven places by zeros and a one."""
    b = Builder()
    b.enter("x", (B, 7), 8, scale)
    b.enter("w", (7, 2), 10, 16, session=True)
    b.gate(Matmul(name="g", x="x", weight="w", out="o"), wire("o", (B, 2), 20, 16 * scale))
    b.output("o")
    b.gates[0] = b.gates[0].model_copy(update={"lifetime": lifetime})
    said = {"dtype": "int64", "low": (Fraction(-7),), "high": (Fraction(6),), "places": 7} | settings
    return with_parts(b.unchecked(), inputs=(b.inputs[0].model_copy(update=said),))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"places": 6}, "do not enter in its form"),
        ({"scale": 2}, "do not enter in its form"),
        ({"factor": (Fraction(2),)}, "do not enter in its form"),
        ({"offset": (Fraction(1),)}, "do not enter in its form"),
        ({"dtype": "float32"}, "do not enter in its form"),
        ({"dtype": "string"}, "do not enter in its form"),
        ({"missing": Missing(beyond="high", columns=(0,)), "dtype": "float32"}, "do not enter in its form"),
        ({"low": (Fraction(-8),)}, "places that are not there"),
        ({"high": (Fraction(7),)}, "places that are not there"),
        ({"low": (Fraction(0),) * 7, "high": (Fraction(6),) * 7}, "does not fit its columns"),
        ({"lifetime": Lifetime.STORED}, "never lie at the parties"),
    ],
)
def test_places_that_do_not_fit_their_wire(settings: dict[str, Any], why: str) -> None:
    verify(placed())
    refuses(placed(**settings), why)


def banded(
    after: str | None = "s",
    lifetime: Lifetime = Lifetime.STORED,
    shape: tuple = (B, 2),
    squared: bool = False,
    **said: Any,
) -> Plan:
    """Two bands of stored rows, the second of which is read when the first has been."""
    b = Builder()
    b.enter("x", (B, 2), 4)
    b.gate(Truncate(name="t", x="x", out="s", shift=0), wire("s", (B, 2), 6))
    b.enter("y", shape, 4)
    last = Multiply(name="u", x="y", y="y", out="z") if squared else Truncate(name="u", x="y", out="z", shift=0)
    b.gate(last, wire("z", shape, 10))
    b.output("s", "z")
    later = {"lifetime": lifetime, "after": after}
    b.gates[0] = b.gates[0].model_copy(update={"lifetime": Lifetime.STORED})
    b.gates[2] = b.gates[2].model_copy(update=later)
    one, other = b.inputs
    return with_parts(
        b.unchecked(),
        inputs=(one.model_copy(update={"first": 0}), other.model_copy(update={"first": 2} | said)),
    )


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"after": "y"}, "before it is written"),
        ({"after": "z"}, "before it is written"),
        ({"after": "nothing"}, "does not define"),
        ({"lifetime": Lifetime.RUN}, "read after something else"),
        ({"lifetime": Lifetime.RUN, "after": None}, "no band of rows"),
        ({"shape": (B,)}, "no band of rows"),
        ({"shape": (B, 2, 2)}, "no band of rows"),
        ({"missing": Missing(beyond="high", columns=(0,))}, "no band of rows"),
        ({"squared": True}, "read late, and its mask is used"),
    ],
)
def test_bands_that_are_none(settings: dict[str, Any], why: str) -> None:
    verify(banded())
    assert parse_plan(banded().canonical).bands == {"x": 0, "y": 2}
    refuses(banded(**settings), why)


@pytest.mark.parametrize("name", ["nowhere", "y", "z"])
def test_an_output_that_nobody_could_unmask(name: str) -> None:
    extra = PlanOutput(name="o", wire=name, shape=(B, 4), dtype="float32")
    refuses(with_parts(NETWORK, outputs=(*NETWORK.outputs, extra)), "no recipient")


def test_an_output_without_recipients() -> None:
    refuses(replace_wires(NETWORK, {"out": {"holders": ()}}), "no recipient")


def test_an_output_whose_mask_is_derived() -> None:
    refuses(replace_wires(NETWORK, {"out": {"masking": DERIVED}}), "no recipient")


@pytest.mark.parametrize(("name", "shape"), [("x", (B, 4)), ("w", (4, 4))])
def test_an_output_that_is_an_input(name: str, shape: tuple) -> None:
    extra = PlanOutput(name="o", wire=name, shape=shape, dtype="float32")
    refuses(with_parts(NETWORK, outputs=(*NETWORK.outputs, extra)), "nothing is computed")


@pytest.mark.parametrize("shape", [(B, 5), (B, 2), (4,), (B, B, 4), (B, 4, 2), (), (B,)])
def test_an_output_of_another_size(shape: tuple) -> None:
    refuses(with_output(shape=shape), "another size")


@pytest.mark.parametrize("shape", [(B, 4), (B, 2, 2), (4, B), (1, B, 4, 1)])
def test_an_output_of_another_shape(shape: tuple) -> None:
    verify(with_output(shape=shape))


@pytest.mark.parametrize("name", ["z", "y"])
def test_holders_of_a_wire_in_the_middle(name: str) -> None:
    """Who holds the sub-seeds of a wire can read it."""
    refuses(replace_wires(NETWORK, {name: {"holders": (RECIPIENT,)}}), "neither input nor output")


def test_a_plan_without_outputs() -> None:
    data = NETWORK.canonical.replace(b'"outputs":[' + NETWORK.canonical.split(b'"outputs":[')[1].split(b"]")[0], b"", 1)
    with pytest.raises(PlanError):
        parse_plan(data)


# ------------------------------------------------------------------ each gate's own check

WAVE: dict[str, Any] = {"name": "g", "x": "x", "out": "o", "window": 24, "constant": 0, "cosines": (1,), "sines": (1,),
                        "dealt_bits": 10, "table": tables.sincos_digest()}  # fmt: skip
WINDOWS: dict[str, Any] = {
    "kernel": (3, 2),
    "strides": (2, 1),
    "dilations": (1, 2),
    "pads": ((1, 0), (0, 1)),
    "groups": 2,
}
CLAMP: dict[str, Any] = {"low": -9, "high": 9, "below": 0, "above": 1, "shift": 0}

# kind -> (gate, its wires): good
GOOD: dict[str, tuple[Gate, list[Wire]]] = {
    "input": (Input(name="g", out="o"), [wire("o", (B, 3), 5, holders=(OWNER,))]),
    "matmul": (
        Matmul(name="g", x="x", weight="w", bias="b", out="o"),
        [wire("x", (B, 2), 5, 2), wire("w", (2, 3), 5, 3), wire("b", (3,), 9, 6), wire("o", (B, 3), 12, 6)],
    ),
    "multiply": (
        Multiply(name="g", x="x", y="y", out="o"),
        [wire("x", (B, 3), 5, 2), wire("y", (B, 1), 5, 3), wire("o", (B, 3), 10, 6)],
    ),
    "truncate": (Truncate(name="g", x="x", out="o", shift=3), [wire("x", (B, 3), 9, 8), wire("o", (B, 3), 7, 1)]),
    "relu": (Relu(name="g", x="x", out="o", shift=3), [wire("x", (B, 3), 9, 8), wire("o", (B, 3), 7, 1)]),
    "reshape": (
        Reshape(name="g", x="x", out="o", axes=(0, 2, 1)),
        [wire("x", (B, 2, 3), 9, 8), wire("o", (B, 6), 9, 8, masking=INHERITED)],
    ),
    "combine": (
        Combine(name="g", xs=("x", "y"), factors=(2, -3), stored="s", constant=8, out="o"),
        [wire("x", (B, 3), 5), wire("y", (B, 1), 5), wire("s", (3,), 5), wire("o", (B, 3), 10, masking=INHERITED)],
    ),
    "weigh": (
        Weigh(name="g", x="x", axis=1, factors=(2, 0, -3), out="o"),
        [wire("x", (B, 3), 5), wire("o", (B, 3), 7, masking=INHERITED)],
    ),
    "total": (
        Total(name="g", x="x", axes=(1, 3), out="o"),
        [wire("x", (B, 3, 2, 4), 5, 2), wire("o", (B, 1, 2, 1), 9, 2, masking=INHERITED)],
    ),
    "concat": (
        Concat(name="g", xs=("x", "y"), axis=1, out="o"),
        [wire("x", (B, 3, 2), 5, 2), wire("y", (B, 1, 2), 6, 2), wire("o", (B, 4, 2), 6, 2, masking=INHERITED)],
    ),
    "take": (
        Take(name="g", x="x", axis=1, indices=(2, -1, 0, 0), out="o"),
        [wire("x", (B, 3), 5, 2), wire("o", (B, 4), 5, 2, masking=INHERITED)],
    ),
    # 6 and 4 padded to 7 and 5: windows of reach 3 at 0, 2, 4, and of reach 3 at 0, 1, 2
    "convolution": (
        Convolution(name="g", x="x", weight="w", bias="b", windows=Windows(**WINDOWS), out="o"),
        [
            wire("x", (B, 4, 6, 4), 5, 2),
            wire("w", (6, 2, 3, 2), 5, 3),
            wire("b", (6, 1, 1), 9, 6),
            wire("o", (B, 6, 3, 3), 14, 6),
        ],
    ),
    "step": (
        Step(name="g", x="x", levels=(-511, 0, 511), shift=3, out="o"),
        [wire("x", (B, 2), 9, 8), wire("o", (B, 2, 3), 1)],
    ),
    "open": (Open(name="g", x="x", out="o"), [wire("x", (B, 3), 9, 8, masking=UNOPENED), wire("o", (B, 3), 9, 8)]),
    "rows": (
        Rows(name="g", x="x", most=1000, out="o"),
        [wire("x", (B, 3, 2), 5, 2), wire("o", (3, 2), 15, 7, masking=INHERITED)],
    ),
    "bound": (
        Bound(name="g", x="x", width=6, shift=3, out="o"),
        [wire("x", (B, 3), 9, 8), wire("o", (B, 3), 6, masking=UNOPENED)],
    ),
    "onehot": (
        OneHot(name="g", x="x", number=5, out="o"),
        [wire("x", (B, 3), 9), wire("o", (B, 3, 5), 1, masking=UNOPENED)],
    ),
    "draw": (
        Draw(name="g", thresholds=(200, 7, 0), width=8, epsilon=Fraction(1, 2), out="o"),
        [wire("o", (3,), 3, masking=UNOPENED)],
    ),
    "gaussian": (
        Gaussian(name="g", sigma=Fraction(3), epsilon=Fraction(1, 2), out="o"),
        [wire("o", (3,), 6, masking=UNOPENED)],
    ),
    "fourier": (Fourier(**WAVE, clamp=Clamp(**CLAMP)), [wire("x", (B, 3), 20), wire("o", (B, 3), 20)]),
    "maximum": (
        Maximum(name="g", x="x", value="v", index="i", shift=3),
        [wire("x", (B, 3), 9, 8), wire("v", (B, 1), 7), wire("i", (B, 1), 3)],
    ),
    "select": (
        Select(name="g", x="x", bit="d", shift=3, out="o"),
        [wire("x", (B, 1), 9, 8), wire("d", (B, 3), 1, masking=FLIPPED), wire("o", (B, 3), 7)],
    ),
    "between": (
        Between(name="g", x="x", bits=("d", "e"), levels=(-5, 9), shift=3),
        [wire("x", (B, 3), 9, 8), wire("d", (B, 3), 1, masking=FLIPPED), wire("e", (B, 3), 1, masking=FLIPPED)],
    ),
    "pieces": (
        Pieces(name="g", xs=("x", "y"), bits=("d", "e"), shifts=(3, 1), out="o"),
        [
            wire("x", (B, 3), 9, 8),
            wire("y", (B, 3), 7, 2),
            wire("d", (B, 3), 1, masking=FLIPPED),
            wire("e", (B, 3), 1, masking=FLIPPED),
            wire("o", (B, 3), 8),
        ],
    ),
    "scatter": (
        Scatter(name="g", x="x", axis=1, indices=(1, -1, 0, 1), out="o"),
        [wire("x", (B, 4), 5, 2), wire("o", (B, 3), 7, 2, masking=INHERITED)],
    ),
}

SECRET = {"weight": None, "bias": None, "y": "w"}
# (kind, changes of the gate, changes of its wires): each alone is refused
BAD: list[tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = [
    ("input", {}, {"o": {"holders": ()}}),
    ("input", {}, {"o": {"holders": (OWNER, RECIPIENT)}}),
    ("input", {}, {"o": {"masking": DERIVED}}),
    ("input", {}, {"o": {"masking": INHERITED}}),
    ("input", {"lifetime": "session"}, {}),  # with a batch dimension
    ("input", {}, {"o": {"masking": PUBLIC}}),  # what is entered for a run is nobody's to know
    ("input", {}, {"o": {"masking": UNOPENED}}),
    ("input", {"lifetime": "session"}, {"o": {"shape": (3,), "masking": UNOPENED}}),
    ("input", {"lifetime": "session"}, {"o": {"shape": (3,), "masking": PUBLIC, "holders": ()}}),
    ("matmul", {}, {"o": {"masking": PUBLIC}}),
    ("matmul", {}, {"o": {"masking": UNOPENED}}),
    ("matmul", {}, {"w": {"masking": PUBLIC}}),  # then the output's mask is inherited
    ("matmul", {}, {"w": {"masking": PUBLIC}, "o": {"masking": DERIVED}}),
    ("matmul", {}, {"w": {"masking": PUBLIC}, "o": {"masking": UNOPENED}}),
    ("matmul", {}, {"w": {"masking": PUBLIC}, "o": {"masking": INHERITED, "holders": (RECIPIENT,)}}),
    ("matmul", {}, {"w": {"masking": PUBLIC}, "x": {"masking": UNOPENED}, "o": {"masking": INHERITED}}),
    ("matmul", {}, {"b": {"masking": PUBLIC}, "o": {"masking": INHERITED}}),  # a public bias alone opens nothing less
    ("combine", {}, {"o": {"masking": UNOPENED}}),
    ("combine", {}, {"o": {"masking": PUBLIC}}),
    ("relu", {}, {"o": {"masking": PUBLIC}}),
    ("relu", {"ceiling": (1 << 6) - 1}, {}),  # of six bits
    ("relu", {"bit": "x"}, {}),
    ("relu", {"bit": "o"}, {}),
    ("maximum", {"bit": "x"}, {}),
    ("between", {"levels": (9, -5)}, {}),
    ("between", {"levels": (5, 5)}, {}),
    ("between", {"levels": (5,)}, {}),
    ("between", {"levels": (-5, 1 << 9)}, {}),
    ("between", {"shift": 11}, {}),
    ("between", {}, {"x": {"bits": 50}}),  # 49 bits to compare
    ("between", {"shift": 20}, {"x": {"bits": 58}}),
    ("between", {}, {"x": {"shape": (B, 1)}}),
    ("between", {}, {"e": {"shape": (B, 1)}}),
    ("between", {}, {"e": {"masking": DRAWN}}),
    ("between", {}, {"d": {"scale": Fraction(2)}}),
    ("between", {}, {"d": {"holders": (OWNER,)}}),
    ("pieces", {"bits": ("d",)}, {}),
    ("pieces", {"shifts": (3, 1, 1)}, {}),
    ("pieces", {"shifts": (3, 2)}, {}),
    ("pieces", {"shifts": (3, 0)}, {"y": {"scale": Fraction(1)}}),
    ("pieces", {"xs": ("x", "d")}, {}),
    ("pieces", {}, {"x": {"bits": 3}}),
    ("pieces", {}, {"y": {"shape": (B, 1)}}),
    ("pieces", {}, {"d": {"shape": (B, 1)}}),
    ("pieces", {}, {"o": {"shape": (B, 1)}}),
    ("pieces", {}, {"o": {"masking": DERIVED}}),
    ("pieces", {}, {"o": {"masking": UNOPENED}}),
    ("select", {}, {"x": {"shape": (B, 2)}}),
    ("select", {}, {"x": {"shape": (B,)}}),
    ("select", {}, {"o": {"shape": (B, 1)}}),
    ("select", {}, {"d": {"shape": (B, 1)}}),
    ("select", {}, {"o": {"scale": Fraction(2)}}),
    ("select", {}, {"o": {"masking": DERIVED}}),
    ("select", {}, {"o": {"masking": UNOPENED}}),
    ("select", {}, {"x": {"bits": 3}}),
    ("scatter", {"axis": 2}, {}),
    ("scatter", {"indices": (1, -1, 0)}, {}),
    ("scatter", {"indices": (1, -1, 0, 3)}, {}),
    ("scatter", {"axis": 0}, {}),
    ("scatter", {}, {"o": {"shape": (B, 3, 1)}}),
    ("scatter", {}, {"o": {"shape": (4, 3)}}),
    ("scatter", {}, {"o": {"scale": Fraction(1)}}),
    ("scatter", {}, {"o": {"masking": DRAWN}}),
    ("maximum", {}, {"i": {"masking": UNOPENED}}),
    ("maximum", {}, {"v": {"masking": PUBLIC}}),
    ("rows", {}, {"o": {"shape": (3,)}}),
    ("rows", {}, {"o": {"shape": (1, 3, 2)}}),
    ("rows", {}, {"x": {"shape": (4, 3, 2)}}),
    ("rows", {}, {"x": {"shape": (3, B, 2)}, "o": {"shape": (3, 2)}}),
    ("rows", {}, {"x": {"shape": (B, B, 2)}, "o": {"shape": (B, 2)}}),
    ("rows", {}, {"x": {"shape": ()}, "o": {"shape": ()}}),
    ("rows", {}, {"o": {"bits": 14}}),  # of 1000 rows of 5 bits
    ("rows", {"most": 1 << 20}, {}),
    ("rows", {}, {"x": {"bits": 59}, "o": {"bits": 59}}),
    ("rows", {}, {"o": {"masking": DRAWN}}),
    ("rows", {}, {"o": {"masking": UNOPENED}}),
    ("rows", {}, {"x": {"masking": UNOPENED}}),
    ("rows", {}, {"o": {"holders": (RECIPIENT,)}}),
    ("bound", {}, {"o": {"shape": (B, 4)}}),
    ("bound", {}, {"o": {"scale": Fraction(2)}}),
    ("bound", {}, {"o": {"masking": INHERITED}}),
    ("bound", {}, {"o": {"masking": DERIVED}}),
    ("bound", {}, {"o": {"bits": 5}}),
    ("bound", {"width": 48, "shift": 14}, {"x": {"scale": Fraction(1 << 14)}, "o": {"bits": 59}}),  # above the field
    ("onehot", {}, {"o": {"shape": (B, 3)}}),
    ("onehot", {"number": 4}, {}),
    ("onehot", {}, {"x": {"scale": Fraction(2)}}),
    ("onehot", {}, {"o": {"masking": INHERITED}}),
    ("onehot", {}, {"o": {"masking": DERIVED}}),
    ("fourier", {}, {"o": {"masking": UNOPENED}}),  # clamped
    ("draw", {}, {"o": {"masking": DRAWN}}),
    ("draw", {}, {"o": {"masking": INHERITED}}),
    ("draw", {}, {"o": {"bits": 2}}),
    ("draw", {"width": 7}, {}),
    ("draw", {"epsilon": Fraction(0)}, {}),
    ("draw", {"epsilon": Fraction(-1)}, {}),
    ("gaussian", {}, {"o": {"masking": DRAWN}}),
    ("gaussian", {}, {"o": {"masking": INHERITED}}),
    ("gaussian", {}, {"o": {"bits": 5}}),  # of two halves up to 29 each
    ("gaussian", {"sigma": Fraction(0)}, {}),
    ("gaussian", {"sigma": Fraction(1, 3)}, {}),
    ("gaussian", {"sigma": Fraction(1025)}, {}),
    ("gaussian", {"epsilon": Fraction(0)}, {}),
    ("open", {}, {"x": {"masking": DRAWN}}),
    ("open", {}, {"x": {"masking": INHERITED}}),
    ("open", {}, {"o": {"masking": UNOPENED}}),
    ("open", {}, {"o": {"masking": DERIVED}}),
    ("open", {}, {"o": {"shape": (B, 4)}}),
    ("open", {}, {"o": {"scale": Fraction(4)}}),
    ("open", {}, {"o": {"bits": 8}}),
    ("matmul", {}, {"w": {"shape": (3, 3)}}),
    ("matmul", {}, {"w": {"shape": (2,)}}),
    ("matmul", {}, {"w": {"shape": (2, 3, 1)}}),
    ("matmul", {}, {"x": {"shape": ()}}),
    ("matmul", {}, {"x": {"shape": (B, 3)}}),
    ("matmul", {}, {"o": {"shape": (B, 2)}}),
    ("matmul", {}, {"o": {"shape": (3,)}}),
    ("matmul", {}, {"o": {"scale": Fraction(5)}}),
    ("matmul", {}, {"x": {"scale": Fraction(3)}}),
    ("matmul", {}, {"o": {"masking": INHERITED}}),
    ("matmul", {}, {"b": {"shape": (2,)}}),
    ("matmul", {}, {"b": {"shape": (1, 1, 3)}}),
    ("matmul", {}, {"b": {"scale": Fraction(3)}}),
    ("matmul", {"weight": None, "bias": None}, {}),  # a second operand
    ("matmul", {"y": "w"}, {}),  # and only one
    ("matmul", {"weight": None, "y": "w"}, {}),  # a bias without a weight
    ("matmul", {}, {"x": {"shape": (5, B, 2)}}),
    ("matmul", {}, {"w": {"shape": (2, 2, 3)}, "x": {"shape": (3, B, 2)}, "o": {"shape": (3, B, 3)}}),
    ("matmul", {}, {"w": {"shape": (2, 2, 3)}, "x": {"shape": (2,)}, "o": {"shape": (2, 3)}}),
    ("matmul", SECRET, {"x": {"shape": (3, B)}, "w": {"shape": (B, 3)}, "o": {"shape": (3, 3)}}),  # sums the batch
    ("matmul", SECRET, {"x": {"shape": (B, 3, 2)}, "w": {"shape": (4, 2, 3)}, "o": {"shape": (B, 3, 3)}}),
    ("convolution", {"weight": None, "bias": None}, {}),
    ("convolution", {}, {"o": {"scale": Fraction(5)}}),
    ("convolution", {}, {"o": {"masking": INHERITED}}),
    ("convolution", {}, {"b": {"shape": (6,)}}),
    ("convolution", {}, {"b": {"shape": (6, 1, 2)}}),
    ("convolution", {}, {"b": {"shape": (1, 1, 6, 1, 1)}}),
    ("convolution", {}, {"b": {"scale": Fraction(2)}}),
    ("convolution", {"windows": Windows(**WINDOWS | {"strides": (2,)})}, {}),
    ("convolution", {"windows": Windows(**WINDOWS | {"dilations": (1, 2, 1)})}, {}),
    ("convolution", {"windows": Windows(**WINDOWS | {"pads": ((0, 0),)})}, {}),
    ("convolution", {"windows": Windows(**WINDOWS | {"kernel": (3,)})}, {}),
    ("convolution", {"windows": Windows(**WINDOWS | {"kernel": (3, 3)})}, {}),
    ("convolution", {"windows": Windows(**WINDOWS | {"groups": 1})}, {}),
    ("convolution", {"windows": Windows(**WINDOWS | {"groups": 4})}, {"x": {"shape": (B, 8, 6, 4)}}),  # of 6 filters
    ("convolution", {"windows": Windows(**WINDOWS | {"strides": (1, 1)})}, {}),  # 5 windows, not 3
    ("convolution", {"windows": Windows(**WINDOWS | {"dilations": (4, 2)})}, {"o": {"shape": (B, 6, 1, 3)}}),  # none
    (
        "convolution",
        {"windows": Windows(**WINDOWS | {"pads": ((1, 0), (1 << 16, 1 << 16))})},
        {"x": {"shape": (1, 512, 6, 4)}, "w": {"shape": (6, 256, 3, 2)}, "o": {"shape": (1, 6, 3, (1 << 17) + 2)}},
    ),
    ("convolution", {}, {"x": {"shape": (B, 4, 24)}}),
    ("convolution", {}, {"x": {"shape": (B, 4, B, 4)}}),
    ("convolution", {}, {"x": {"shape": (B, B, 6, 4)}}),
    ("convolution", {}, {"x": {"shape": (B, 3, 6, 4)}}),
    ("convolution", {}, {"x": {"shape": (3, 4, 6, 4)}}),
    ("convolution", {}, {"w": {"shape": (6, 2, 6)}}),
    ("convolution", {}, {"w": {"shape": (6, 1, 3, 2)}}),
    ("convolution", {}, {"w": {"shape": (B, 2, 3, 2)}}),
    ("convolution", {}, {"o": {"shape": (B, 4, 3, 3)}}),
    ("convolution", {}, {"o": {"shape": (B, 6, 9)}}),
    ("convolution", {}, {"o": {"shape": (B, 6, 3, 4)}}),
    ("multiply", {}, {"y": {"shape": (B, 2)}}),
    ("multiply", {}, {"y": {"shape": (2, 3)}}),
    ("multiply", {}, {"y": {"shape": (1, B, 3)}}),
    ("multiply", {"y": None}, {}),
    ("multiply", {"weight": "y"}, {}),
    ("multiply", {"bias": "y"}, {}),
    ("multiply", {"y": None, "weight": "y", "bias": "y"}, {}),  # of another scale than the output
    ("multiply", {}, {"o": {"shape": (B, 1)}}),
    ("multiply", {}, {"o": {"scale": Fraction(2)}}),
    ("multiply", {}, {"o": {"masking": INHERITED}}),
    ("truncate", {}, {"o": {"shape": (B, 1)}}),
    ("truncate", {}, {"o": {"scale": Fraction(8)}}),
    ("truncate", {"shift": 4}, {}),
    ("truncate", {}, {"x": {"bits": 3}}),
    ("truncate", {}, {"o": {"masking": DERIVED}}),
    ("truncate", {}, {"o": {"masking": INHERITED}}),
    ("relu", {}, {"o": {"shape": (B, 1)}}),
    ("relu", {}, {"o": {"scale": Fraction(8)}}),
    ("relu", {"shift": 4}, {}),
    ("relu", {}, {"x": {"bits": 3}}),
    ("relu", {}, {"x": {"bits": 2}}),
    ("relu", {}, {"x": {"bits": 52}}),  # 49 bits to compare
    ("relu", {}, {"o": {"masking": DERIVED}}),
    ("reshape", {}, {"o": {"shape": (B, 5)}}),
    ("reshape", {}, {"o": {"shape": (6,)}}),
    ("reshape", {}, {"o": {"shape": (B, B, 6)}}),
    ("reshape", {}, {"o": {"bits": 10}}),
    ("reshape", {}, {"o": {"bits": 8}}),
    ("reshape", {}, {"o": {"scale": Fraction(4)}}),
    ("reshape", {}, {"o": {"masking": DRAWN}}),
    ("reshape", {}, {"o": {"holders": (RECIPIENT,)}}),
    ("reshape", {"axes": (0, 1)}, {}),
    ("reshape", {"axes": (0, 1, 1)}, {}),
    ("reshape", {"axes": (1, 2, 3)}, {}),
    ("reshape", {"axes": (0, 1, 2, 3)}, {}),
    ("combine", {"factors": (2,)}, {}),
    ("combine", {"factors": (2, 3, 4)}, {}),
    ("combine", {"factors": (2, 0)}, {}),
    ("combine", {}, {"y": {"shape": (B, 2)}}),
    ("combine", {}, {"y": {"shape": (2, 3)}}),
    ("combine", {}, {"y": {"shape": (1, B, 3)}}),
    ("combine", {}, {"x": {"shape": (3,)}, "y": {"shape": (1,)}}),  # nothing has the output's batch
    ("combine", {}, {"s": {"shape": (2,)}}),
    ("combine", {}, {"s": {"shape": (1, 1, 3)}}),
    ("combine", {}, {"s": {"scale": Fraction(2)}}),
    ("combine", {"xs": (), "factors": (), "stored": None}, {}),
    ("combine", {"xs": (), "factors": ()}, {"s": {"shape": (2,)}}),
    ("combine", {"xs": (), "factors": ()}, {"s": {"shape": (2, B, 3)}}),
    ("combine", {"xs": (), "factors": (1,)}, {}),
    ("combine", {}, {"o": {"masking": DRAWN}}),
    ("combine", {}, {"o": {"holders": (RECIPIENT,)}}),
    ("weigh", {}, {"o": {"shape": (B, 1)}}),
    ("weigh", {}, {"x": {"shape": (B, 4)}, "o": {"shape": (B, 4)}}),
    ("weigh", {"axis": 0}, {}),
    ("weigh", {"axis": 2}, {}),
    ("weigh", {"factors": (2,)}, {}),
    ("weigh", {}, {"x": {"shape": ()}, "o": {"shape": ()}}),
    ("weigh", {}, {"o": {"masking": DRAWN}}),
    ("weigh", {}, {"o": {"holders": (RECIPIENT,)}}),
    ("total", {}, {"o": {"shape": (B, 2)}}),
    ("total", {}, {"o": {"shape": (B, 1, 2, 4)}}),
    ("total", {}, {"x": {"shape": ()}}),
    ("total", {"axes": (3, 1)}, {}),
    ("total", {"axes": (1, 1)}, {}),
    ("total", {"axes": (1, 4)}, {}),
    ("total", {"axes": (0, 1)}, {"o": {"shape": (1, 1, 2, 4)}}),
    ("total", {}, {"o": {"masking": DERIVED}}),
    ("take", {"axis": 0}, {}),
    ("take", {"axis": 2}, {}),
    ("take", {"indices": (2, 3, 0, 0)}, {}),
    ("take", {"indices": (2, -1, 0)}, {}),
    ("take", {}, {"x": {"shape": (3, B)}}),
    ("take", {}, {"o": {"shape": (B, 4, 1)}}),
    ("take", {}, {"o": {"bits": 6}}),
    ("take", {}, {"o": {"bits": 4}}),
    ("take", {}, {"o": {"scale": Fraction(1)}}),
    ("take", {}, {"o": {"masking": DERIVED}}),
    ("concat", {}, {"o": {"shape": (B, 3, 2)}}),
    ("concat", {}, {"o": {"shape": (B, 8)}}),
    ("concat", {}, {"y": {"shape": (4, 1, 2)}}),
    ("concat", {}, {"y": {"shape": (B, 1, 3)}}),
    ("concat", {}, {"y": {"shape": ()}}),
    ("concat", {}, {"y": {"shape": (1, B, 2)}}),
    ("concat", {}, {"y": {"shape": (B, B, 2)}}),
    ("concat", {"axis": 0}, {}),
    ("concat", {"axis": 2}, {}),
    ("concat", {"axis": 3}, {}),
    ("concat", {"axis": 3, "xs": ("x",)}, {"o": {"shape": (B, 3, 2)}}),
    ("concat", {"axis": 0, "xs": ("x",)}, {"o": {"shape": (B, 3, 2)}}),
    ("concat", {}, {"y": {"scale": Fraction(1)}}),
    ("concat", {}, {"y": {"bits": 7}}),
    ("concat", {}, {"o": {"masking": DRAWN}}),
    ("fourier", {}, {"o": {"shape": (B, 1)}}),
    ("fourier", {"sines": ()}, {}),
    ("fourier", {"sines": (1, 2)}, {}),
    ("fourier", {"table": "0" * 64}, {}),
    ("fourier", {"table": ""}, {}),
    ("fourier", {"table": tables.sincos_digest().upper()}, {}),
    ("fourier", {}, {"o": {"masking": DERIVED}}),
    ("fourier", {"cosines": ((1 << 31) - 1,) * 4, "sines": (0,) * 4, "dealt_bits": 27}, {}),
    ("fourier", {"clamp": Clamp(**CLAMP | {"low": 9})}, {}),
    ("fourier", {"clamp": Clamp(**CLAMP | {"low": 10})}, {}),
    ("fourier", {"clamp": Clamp(**CLAMP | {"low": -(1 << 20)})}, {}),
    ("fourier", {"clamp": Clamp(**CLAMP | {"high": 1 << 20})}, {}),
    ("fourier", {"clamp": Clamp(**CLAMP | {"low": None, "high": 1 << 20})}, {}),
    ("fourier", {"clamp": Clamp(**CLAMP | {"low": None, "high": None})}, {}),
    ("fourier", {}, {"x": {"bits": 58}}),
    ("fourier", {}, {"x": {"bits": 47}}),  # 49 bits to compare
    ("maximum", {"value": None, "index": None}, {}),
    ("maximum", {}, {"x": {"shape": (B, 1)}}),
    ("maximum", {}, {"x": {"shape": (B, MOST + 1)}}),
    ("maximum", {}, {"x": {"shape": (3, B)}}),
    ("maximum", {}, {"x": {"shape": ()}}),
    ("maximum", {}, {"x": {"bits": 3}}),
    ("maximum", {}, {"x": {"bits": 4}}),  # two rounded values, three candidates
    ("maximum", {}, {"x": {"bits": 51}}),  # 49 bits to compare
    ("maximum", {}, {"v": {"shape": (B, 3)}}),
    ("maximum", {}, {"i": {"shape": (B,)}}),
    ("maximum", {}, {"v": {"masking": DERIVED}}),
    ("maximum", {}, {"i": {"masking": INHERITED}}),
    ("maximum", {}, {"v": {"scale": Fraction(8)}}),
    ("maximum", {}, {"i": {"scale": Fraction(2)}}),
    ("maximum", {"rectify": True}, {}),  # beside an index
    ("maximum", {"rectify": True, "value": None}, {}),
    ("step", {}, {"o": {"shape": (B, 2)}}),
    ("step", {}, {"o": {"shape": (B, 2, 2)}}),
    ("step", {}, {"o": {"shape": (B, 3, 2)}}),
    ("step", {}, {"o": {"masking": DERIVED}}),
    ("step", {}, {"o": {"masking": INHERITED}}),
    ("step", {"levels": (0, 512, 1)}, {}),
    ("step", {"levels": (-512, 0, 1)}, {}),
    ("step", {"shift": 11}, {}),  # of 9 + 2 bits
    ("step", {"levels": (0, 0, 0), "shift": 10}, {}),  # of 9 + 1 bits
    ("step", {"shift": 20}, {"x": {"bits": 58}}),
    ("step", {"levels": (0, 0, 0), "shift": 20}, {"x": {"bits": 59}}),
    ("step", {}, {"x": {"bits": 50}}),  # 49 bits to compare
]


def checked(gate: Gate, wires: list[Wire]) -> None:
    gate.check({w.name: w for w in wires})


def test_every_kind_has_good_wires_and_bad_ones() -> None:
    assert set(GOOD) == {kind for kind, *_ in BAD} == set(GATES)


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_good_wires_pass(kind: str) -> None:
    checked(*GOOD[kind])


@pytest.mark.parametrize(("kind", "settings", "changes"), BAD, ids=lambda v: str(v)[:50])
def test_bad_wires_are_refused(kind: str, settings: dict, changes: dict) -> None:
    gate, wires = GOOD[kind]
    assert set(changes) <= {w.name for w in wires}
    gate = type(gate)(**dict(gate) | settings)
    with pytest.raises(PlanError) as caught:
        checked(gate, [Wire(**dict(w) | changes.get(w.name, {})) for w in wires])
    # a wire too wide to compare is refused by the comparison, which knows no names
    assert f"gate {gate.name} ({kind})" in str(caught.value) or "a comparison on 49 bits" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "settings", "changes"),
    [
        ("matmul", {"bias": None}, {}),
        ("matmul", {}, {"o": {"masking": DERIVED}}),
        ("matmul", {}, {"w": {"masking": PUBLIC}, "o": {"masking": INHERITED}}),
        ("matmul", {}, {"w": {"masking": PUBLIC}, "x": {"masking": UNOPENED}, "o": {"masking": UNOPENED}}),
        ("matmul", {}, {"b": {"masking": PUBLIC}}),
        ("relu", {}, {"o": {"masking": UNOPENED}}),
        ("maximum", {}, {"v": {"masking": UNOPENED}}),
        ("matmul", {}, {"x": {"shape": (2,)}, "o": {"shape": (3,)}}),
        ("multiply", {}, {"o": {"masking": DERIVED}}),
        ("matmul", {}, {"b": {"shape": (1, 3)}}),
        ("matmul", {}, {"b": {"shape": ()}}),
        ("matmul", {}, {"w": {"shape": (4, 2, 3)}, "o": {"shape": (4, B, 3)}}),
        ("matmul", {}, {"x": {"shape": (B, 4, 5, 2)}, "w": {"shape": (1, 2, 3)}, "o": {"shape": (B, 4, 5, 3)}}),
        ("matmul", SECRET, {"x": {"shape": (B, 1, 5, 2)}, "w": {"shape": (4, 2, 3)}, "o": {"shape": (B, 4, 5, 3)}}),
        ("matmul", SECRET, {"x": {"shape": (4, 5, 2)}, "w": {"shape": (B, 1, 2, 3)}, "o": {"shape": (B, 4, 5, 3)}}),
        ("convolution", {"bias": None}, {"o": {"masking": DERIVED}}),
        ("convolution", SECRET, {}),
        ("convolution", {}, {"b": {"shape": (6, 3, 3)}}),
        ("convolution", {}, {"b": {"shape": (1, 6, 3, 1)}}),
        ("convolution", {}, {"x": {"shape": (2, 4, 6, 4)}, "o": {"shape": (2, 6, 3, 3)}}),
        ("convolution", {"windows": Windows(**WINDOWS | {"dilations": (3, 2)})}, {"o": {"shape": (B, 6, 1, 3)}}),
        ("multiply", {}, {"y": {"shape": (B, 3)}}),
        ("multiply", {}, {"y": {"shape": (1, 3)}}),
        ("multiply", {}, {"y": {"shape": (3,)}}),
        ("multiply", {}, {"y": {"shape": (2, B, 3)}, "o": {"shape": (2, B, 3)}}),
        ("multiply", {"y": None, "weight": "y"}, {"y": {"shape": (1,)}}),
        (
            "multiply",
            {"y": None, "weight": "y", "bias": "y"},
            {"x": {"scale": Fraction(1)}, "o": {"scale": Fraction(3)}},
        ),
        ("combine", {}, {"y": {"shape": (1, 3)}}),
        ("combine", {}, {"x": {"shape": (3,)}, "y": {"shape": (B, 1)}, "s": {"shape": ()}}),
        ("combine", {"xs": (), "factors": ()}, {}),
        ("combine", {"stored": None, "constant": 0}, {}),
        ("weigh", {"factors": (0, 0, 0)}, {}),
        ("total", {}, {"o": {"scale": Fraction(1)}}),
        ("total", {"axes": (2,)}, {"o": {"shape": (B, 3, 1, 4)}}),
        ("take", {"indices": (-1, -1, -1, -1)}, {}),
        ("concat", {"xs": ("x",)}, {"o": {"shape": (B, 3, 2)}}),
        ("concat", {"xs": ("x", "x")}, {"o": {"shape": (B, 6, 2)}}),
        ("step", {"levels": (0, 0, 0), "shift": 9}, {}),
        ("step", {"shift": 10}, {}),
        ("step", {"shift": 20}, {"x": {"bits": 57}}),
        ("step", {"levels": (0, 0, 0), "shift": 20}, {"x": {"bits": 58}}),
        ("step", {}, {"x": {"bits": 49}, "o": {"scale": Fraction(7, 3)}}),
        ("step", {}, {"o": {"masking": UNOPENED}}),
        ("onehot", {}, {"o": {"masking": DRAWN, "scale": Fraction(7, 3)}}),
        ("fourier", {"clamp": None}, {"o": {"masking": UNOPENED}}),
        ("relu", {}, {"x": {"bits": 51}}),
        ("truncate", {"shift": 0}, {"o": {"scale": Fraction(8)}}),
        ("reshape", {"axes": None}, {}),
        ("maximum", {"index": None}, {}),
        ("maximum", {"value": None, "last": True}, {}),
        ("maximum", {}, {"x": {"shape": (B, MOST), "bits": 11}}),
        ("maximum", {}, {"x": {"bits": 5}}),
        ("maximum", {}, {"x": {"bits": 50}}),
        ("maximum", {"rectify": True, "index": None}, {"x": {"shape": (B, MOST)}}),
        ("fourier", {"clamp": None}, {"x": {"bits": 25}}),
        ("fourier", {"clamp": None}, {"x": {"bits": 59}}),  # any number of periods
        ("fourier", {}, {"x": {"bits": 46}}),
        # the constant is not multiplied by 2^dealt_bits, and so need not be small
        ("fourier", {"constant": (1 << 58) - 1, "dealt_bits": 30}, {}),
    ],
)
def test_what_is_only_just_good_passes(kind: str, settings: dict, changes: dict) -> None:
    gate, wires = GOOD[kind]
    checked(type(gate)(**dict(gate) | settings), [Wire(**dict(w) | changes.get(w.name, {})) for w in wires])


# ------------------------------------------------------------------ plans that only fail when they run


def clamp_shifts_everything_away() -> Plan:
    b = Builder()
    b.enter("x", (B,), 4)
    gate = Fourier(**WAVE | {"out": "o"}, clamp=Clamp(**CLAMP | {"shift": 6}))
    b.gate(gate, wire("o", (B,), 20))
    b.output("o")
    return b.unchecked()


def scalar_times_a_row() -> Plan:
    b = Builder()
    b.enter("x", (), 10)
    b.enter("y", (1,), 10)
    b.gate(Multiply(name="m", x="x", y="y", out="z"), wire("z", (), 20))
    b.output("z")
    return b.unchecked()


def scalar_plus_a_row() -> Plan:
    b = Builder()
    b.enter("x", (), 10)
    b.enter("y", (1,), 10)
    b.gate(Combine(name="m", xs=("x", "y"), factors=(1, 1), out="z"), wire("z", (), 20, masking=INHERITED))
    b.gate(Truncate(name="t", x="z", out="o", shift=0), wire("o", (), 21))
    b.output("o")
    return b.unchecked()


def two_outputs_of_one_name() -> Plan:
    b = Builder()
    b.enter("x", (B,), 10)
    for name in ("y", "z"):
        b.gate(Truncate(name=name, x="x", out=name, shift=0), wire(name, (B,), 11))
        b.output(name)
    return with_parts(b.unchecked(), outputs=[out.model_copy(update={"name": "same"}) for out in b.outputs])


def two_inputs_of_one_name() -> Plan:
    b = Builder()
    b.enter("x", (B,), 10)
    b.enter("y", (B,), 10)
    b.gate(Multiply(name="m", x="x", y="y", out="z"), wire("z", (B,), 20))
    b.output("z")
    return with_parts(b.unchecked(), inputs=[given.model_copy(update={"name": "same"}) for given in b.inputs])


def scale_of(value: int) -> Plan:
    b = Builder()
    b.enter("x", (B,), 10, value)
    b.gate(Truncate(name="t", x="x", out="y", shift=0), wire("y", (B,), 11, value))
    b.output("y")
    return b.unchecked()


TRAPS: dict[str, Callable[[], Plan]] = {
    "a clamp that shifts everything away": clamp_shifts_everything_away,
    "a scalar times a row": scalar_times_a_row,
    "a scalar plus a row": scalar_plus_a_row,
    "two outputs of one name": two_outputs_of_one_name,
    "two inputs of one name": two_inputs_of_one_name,
    "a scale of zero": lambda: scale_of(0),
    "a negative scale": lambda: scale_of(-4),
    "a scale that no floating-point number holds": lambda: scale_of(1 << 256),
}


@pytest.mark.parametrize("field", ["labels", "keys"])
def test_a_label_that_is_no_text_to_show(field: str) -> None:
    verify(with_output(**{field: ("cat", "dog")}))
    refuses(with_output(**{field: ("cat", "dog\u202e")}), "label .* is refused")


def test_a_wire_of_too_many_elements() -> None:
    """2^28 a row is the most; how many rows there are is judged when the batch is known."""
    b = Builder()
    b.enter("x", (B, 1 << 14, 1 << 14), 10, 16)
    b.gate(Relu(name="r", x="x", out="y", shift=4), wire("y", (B, 1 << 14, 1 << 14), 10, 1))
    b.output("y")
    verify(b.unchecked())
    shape = (B, 1 << 14, (1 << 14) + 1)
    larger = replace_wires(b.unchecked(), {"x": {"shape": shape}, "y": {"shape": shape}})
    refuses(larger, r"more than 2\^28 elements")


@pytest.mark.parametrize("name", TRAPS)
def test_what_would_fail_in_a_run_or_at_a_client_is_refused(name: str) -> None:
    refuses(TRAPS[name](), ".")


def matmul_of(weight_stored: bool, bias_stored: bool, x_stored: bool = False) -> Plan:
    """A party keeps a weight's limbs for its session, and wants them before inputs exist."""
    b = Builder()
    b.enter("w", (4, 4), 10, session=weight_stored)
    b.enter("b", (4,), 10, session=bias_stored)
    b.enter("x", (2, 4), 10, session=x_stored)
    b.gate(Matmul(name="a", x="x", weight="w", bias="b", out="z"), wire("z", (2, 4), 24))
    b.output("z")
    return b.unchecked()


def test_weights_live_for_a_session_and_data_for_a_run() -> None:
    verify(matmul_of(weight_stored=True, bias_stored=True))
    for kinds in ((False, True), (True, False), (False, False), (True, True, True)):
        refuses(matmul_of(*kinds), "weight where data belongs, or the reverse")


@pytest.mark.parametrize("kind", sorted(set(GOOD) - {"input", "draw", "gaussian", "combine", "convolution", "matmul"}))
def test_gates_of_data_read_no_weights(kind: str) -> None:
    gate, wires = GOOD[kind]
    b = Builder()
    for each in wires:
        if each.name in gate.reads:
            shape = tuple(3 if d == B else d for d in each.shape)
            b.enter(each.name, shape, each.bits, each.scale, session=True)
    b.gate(gate, *(w for w in wires if w.name in gate.writes))
    plan = Plan(inputs=(), outputs=NETWORK.outputs, wires=tuple(b.wires), gates=tuple(b.gates))
    refuses(plan, "weight where data belongs")


# ------------------------------------------------------------------ what a plan may cost


def joins(many: int, wide: int = 1024) -> Plan:
    """The network, with so many Concats for nobody that each name one wire `wide` times."""
    plan, gates, wires = network(), list[Gate](), list[Wire]()
    for number in range(many):
        name = f"j{number}"
        gates.append(Concat(name=name, out=name, xs=("x",) * wide, axis=1))
        wires.append(wire(name, (B, 4 * wide), 10, 16, masking=INHERITED))
    return with_parts(plan, gates=[*plan.gates, *gates], wires=[*plan.wires, *wires])


def test_reads_of_all_gates_together_have_a_bound() -> None:
    most = joins(63)
    assert MAX_READS - 1024 < sum(len(gate.reads) for gate in most.gates) <= MAX_READS
    assert parse_plan(most.canonical) == most
    for check in (verify, lambda plan: parse_plan(plan.canonical)):
        with pytest.raises(
            PlanError, match=r"65,54\d reads of wires by its gates, where 65,536 are possible"
        ) as caught:
            check(joins(64))
        assert caught.value.remedy


def test_gates_have_a_bound_that_is_asked_before_one_of_them_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    content, made = json.loads(network().canonical), list[object]()
    content["gates"] *= 4001
    monkeypatch.setattr(parse, "gate_of", made.append)
    monkeypatch.setattr(parse, "reads_of", made.append)
    with pytest.raises(PlanError, match="20,005 gates, where 20,000 are possible"):
        parse_plan(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    assert made == []


def test_twice_as_many_reads_take_twice_as_many_calls() -> None:
    """Counted, not timed: functions of this project that are called while a plan is parsed."""
    few, many = (calls_of(joins(count, 256).canonical) for count in (20, 40))
    assert few / 2 < many - few < 1.2 * few
    assert many < 40 * 256 / 2, "a wire is looked at once a gate, however often that names it"


def calls_of(data: bytes) -> int:
    """How many functions are called in Python to parse a plan."""
    count = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        parse_plan(data)
    finally:
        sys.setprofile(None)
    return count
