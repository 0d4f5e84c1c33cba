"""Choose which gates open at once what they compare: a round less for more bytes, where a declared link is worth it.

A round is saved only if no other gate takes as long beside it.  So gates are judged by the depth of the plan that they
are in, those that start in one round together first, then each by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mpc.compiler.lowering.checked import with_fewest_tags
from mpc.errors import PlanError
from mpc.gates.base import Gate
from mpc.gates.fourier import Fourier
from mpc.plan.cost import gate_cost
from mpc.plan.link import Link
from mpc.plan.plan import Security
from mpc.plan.tagging import gate_tags
from mpc.wires import Wire

_DEALT = 4
"""Weigh so many bytes that are dealt beforehand as one that is sent while somebody waits for an answer."""


@dataclass(frozen=True)
class _Form:
    """A gate in one of its forms: what it takes for one inference, bytes that are dealt counted as `_DEALT` says."""

    gate: Gate
    rounds: int
    size: float


def with_fewer_rounds(
    gates: Iterable[Gate], wires: Mapping[str, Wire], link: Link | None, security: Security
) -> list[Gate]:
    """Return the gates, of which those open at once what they compare that a run of one row is faster by.

    Args:
        link: between any two parties, and from the provider; None: none is declared, and no gate does.
    """
    usual = list(gates)
    if link is None:
        return usual
    bound, tagged = {name: wire.bind(1) for name, wire in wires.items()}, security == "active"
    plain = [_form(gate, bound, tagged) for gate in usual]
    forms = [_at_once(gate, wires, bound, tagged) or form for gate, form in zip(usual, plain, strict=True)]
    more = {at: form.size - plain[at].size for at, form in enumerate(forms) if form.gate is not usual[at]}
    starts, groups = _starts(forms)[0], defaultdict(list)
    for at in more:
        groups[starts[at]].append(at)
    taken = _seconds(forms, link)
    together = sorted(groups.values(), key=lambda places: -sum(more[at] for at in places))
    for places in map(set, (*together, *([at] for at in sorted(more, key=lambda at: -more[at])))):
        other = [plain[at] if at in places else form for at, form in enumerate(forms)]
        if (without := _seconds(other, link)) < taken:
            forms, taken = other, without
    return [form.gate for form in forms]


def _seconds(forms: list[_Form], link: Link) -> float:
    return link.seconds(_starts(forms)[1], sum(form.size for form in forms))


def _starts(forms: list[_Form]) -> tuple[list[int], int]:
    """Return the round in which each gate starts, and how many there are."""
    ready: dict[str, int] = {}
    starts, depth = [], 0
    for form in forms:
        start = max((ready.get(name, 0) for name in form.gate.reads), default=0)
        starts.append(start)
        depth = max(depth, start + form.rounds)
        ready.update(dict.fromkeys(form.gate.writes, start + form.rounds))
    return starts, depth


def _form(gate: Gate, bound: Mapping[str, Wire], tagged: bool) -> _Form:
    cost, wires = gate_cost(gate, bound), bound
    dealt = cost.dealt + (sum(spec.size for spec in gate_tags(gate, wires, frozenset())) if tagged else 0)
    return _Form(gate, len(gate.openings(wires)), cost.sent + dealt / _DEALT)


def _at_once(gate: Gate, wires: Mapping[str, Wire], bound: Mapping[str, Wire], tagged: bool) -> _Form | None:
    """Return a gate in the form with a round less; None if it has no such one."""
    if "at_once" not in type(gate).model_fields or (isinstance(gate, Fourier) and gate.clamp is None):
        return None
    made = gate.model_copy(update={"at_once": True, "chunks": None})
    try:
        [cut] = with_fewest_tags([made], wires) if tagged else [made]
        return _form(cut, bound, tagged)
    except PlanError:  # more bits than can be compared so
        return None
