"""Choices that the compiler made for runs that are checked, read off a plan: what they save, gate by gate."""

from __future__ import annotations

from dataclasses import dataclass

from mpc.comparison import Comparison
from mpc.errors import PlanError
from mpc.gates.base import Gate
from mpc.plan.cost import gate_cost
from mpc.plan.plan import Plan
from mpc.plan.tagging import gate_tags, tagged_masks
from mpc.wires import Wires

_USUAL = {"chunks": None, "coarse": 0, "direct": False, "at_once": False}
"""Say of comparisons what gates of plans that are not checked do."""


@dataclass(frozen=True)
class Choice:
    """How one gate compares, and what is dealt for it in a run of the batch, with tags.

    Args:
        comparisons: how many.
        bits: of each.
        chunks: into which it is cut.
        passed_over: lowest bits of the values that are not compared.
        direct: the AND of two comparisons is left to the selection, which saves a round.
        at_once: what it finds is opened in one round in place of two.
        dealt: bytes.
        otherwise: bytes that would be dealt if it compared all bits, cut as an unchecked run's; None if that many bits
            cannot be compared.
    """

    gate: str
    kind: str
    comparisons: int
    bits: int
    chunks: int
    passed_over: int
    direct: bool
    at_once: bool
    dealt: int
    otherwise: int | None

    @property
    def text(self) -> str:
        """Say it in a sentence."""
        cut = f"{self.gate}: {self.comparisons:,} comparisons on {self.bits} bits in {self.chunks} chunks"
        less = f", without the lowest {self.passed_over}" if self.passed_over else ""
        round_less = ", and a round less by a choice of two bits at once" if self.direct else ""
        instead = "" if self.otherwise is None else f", {self.otherwise:,} if it compared as in an unchecked run"
        another = ", and a round less by opening what it finds at once" if self.at_once else ""
        return f"{cut}{less}{round_less}{another}: {self.dealt:,} bytes{instead}"


def choices(plan: Plan, batch: int = 1) -> list[Choice]:
    """Return what was chosen for each gate that compares, in plan order."""
    bound, needed = plan.bind(batch), tagged_masks(plan)
    found = []
    for gate in bound.online:
        comparison = _comparison(gate, bound.wire)
        if comparison is None or "chunks" not in type(gate).model_fields:
            continue
        looks = [spec for spec in gate.correlations(bound.wire) if spec.name.endswith("leaf_mask")]
        found.append(
            Choice(
                gate.name,
                gate.kind,
                sum(spec.shape[0] for spec in looks),
                comparison.bits,
                comparison.chunks,
                getattr(gate, "coarse", 0),
                getattr(gate, "direct", False),
                comparison.at_once,
                _dealt(gate, bound.wire, needed),
                _otherwise(gate, bound.wire, needed),
            )
        )
    return found


def _comparison(gate: Gate, wires: Wires) -> Comparison | None:
    made = getattr(gate, "comparison", None)
    if made is None or getattr(gate, "clamp", True) is None:
        return None
    found = made if isinstance(made, Comparison) else made(wires)
    return found if isinstance(found, Comparison) else None


def _dealt(gate: Gate, wires: Wires, needed: frozenset[str]) -> int:
    return gate_cost(gate, wires).dealt + sum(spec.size for spec in gate_tags(gate, wires, needed))


def _otherwise(gate: Gate, wires: Wires, needed: frozenset[str]) -> int | None:
    update = {name: value for name, value in _USUAL.items() if name in type(gate).model_fields}
    try:
        return _dealt(gate.model_copy(update=update), wires, needed)
    except PlanError:
        return None
