"""A declared link has comparisons take a round less, where a run of one row is faster by that."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from mpc.compiler.compile import compile_model
from mpc.compiler.lowering.rounds import with_fewer_rounds
from mpc.compiler.roles import Roles
from mpc.errors import UsageError
from mpc.gates.base import Gate
from mpc.gates.relu import Relu
from mpc.plan.choices import choices
from mpc.plan.cost import plan_cost
from mpc.plan.link import Link
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan, Security
from tests.support.plans import Builder, wire

ROOT = Path(__file__).resolve().parents[2]
A, C = ROOT / "examples" / "mnist_mlp.onnx", ROOT / "benchmarks" / "networks" / "lenet_c.onnx"


def compiled(path: Path, link: str | None, security: Security = "passive") -> Plan:
    return compile_model(path, roles=Roles(security=security, link=link and Link.parse(link) or None)).plan


def at_once(plan: Plan) -> list[str]:
    return [gate.kind for gate in plan.gates if getattr(gate, "at_once", False)]


def test_without_a_link_nothing_changes() -> None:
    assert at_once(compiled(C, None)) == []
    assert b"at_once" not in compiled(A, None).canonical


@pytest.mark.parametrize(
    ("path", "link", "rounds", "kinds"),
    [
        (A, "wan", 7, ["relu", "relu"]),
        (A, "0:1", 9, []),
        (C, "wan", 12, ["maximum", "maximum", "relu"]),
        (C, "lan", 14, ["relu"]),
    ],
)
def test_as_many_gates_take_a_round_less_as_the_link_is_worth(
    path: Path, link: str, rounds: int, kinds: list[str]
) -> None:
    """Many comparisons side by side cost more bytes than a short link's round is worth."""
    plan = compiled(path, link)
    assert plan_cost(plan).rounds == rounds and at_once(plan) == kinds
    assert parse_plan(plan.canonical).digest == plan.digest


def test_in_checked_runs_a_round_less_costs_more() -> None:
    plan = compiled(A, "wan", "active")
    assert (
        at_once(plan) == ["relu", "relu"]
        and plan_cost(plan).rounds == plan_cost(compiled(A, None, "active")).rounds - 2
    )
    assert at_once(compiled(A, "lan", "active")) == []
    assert all("a round less" in each.text and each.at_once for each in choices(plan))


def lowered(*gates: Gate, bits: int = 20) -> list[bool]:
    b = Builder()
    b.enter("x", ("batch", 4), bits)
    for gate in gates:
        b.gate(gate, wire(gate.writes[0], ("batch", 4), bits, Fraction(1)))
    found = with_fewer_rounds(b.gates, {each.name: each for each in b.wires}, Link(40, 100), "passive")
    return [gate.at_once for gate in found if isinstance(gate, Relu)]


def relu(name: str, x: str) -> Relu:
    return Relu(name=name, x=x, out=name, shift=0)


def test_what_is_not_on_the_longest_way_keeps_its_bytes() -> None:
    chain = [relu("a", "x"), relu("b", "a"), relu("c", "b")]
    assert lowered(*chain) == [True, True, True]
    assert lowered(*chain, relu("d", "x"), relu("e", "x")) == [True, True, True, False, False]


def test_what_has_too_many_bits_is_compared_as_ever() -> None:
    assert lowered(relu("a", "x"), bits=42) == [True]
    assert lowered(relu("a", "x"), bits=43) == [False]


def test_a_link_is_read_from_its_text() -> None:
    assert Link.parse("wan") == Link.parse("WAN") == Link(40, 100) and Link.parse("20:50") == Link(20, 50)
    assert Link(40, 100).seconds(3, 1e6) == pytest.approx(0.14)
    for text in ("", "fast", "1", "-1:5", "1:0", "nan:1"):
        with pytest.raises(UsageError, match="is no link"):
            Link.parse(text)
