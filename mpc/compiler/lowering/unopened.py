"""Choose where a linear layer is opened: at what it is made of, or only its result.

Between two gates that open lie public linear maps, which are free on masked values and on
shares alike.  So what a ReLU or a maximum yields may stay unopened, and the maps' results be
opened instead, under drawn masks.  That is worth it

* for an output, whose result has to be put under a fresh mask anyway: a round less;
* where the results have fewer elements, as of a layer that narrows: less is sent.

Rounds never become more: the gates before open one less each, and all results one more at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from mpc.gates import GATES
from mpc.gates.base import Gate
from mpc.gates.maximum import Maximum
from mpc.gates.open import Open
from mpc.gates.relu import Relu
from mpc.gates.rows import Rows
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.wires import BATCH, Masking, Wire


@dataclass
class Region:
    """Public linear maps that hang together through wires of the run.

    Args:
        sources: wires that they read and do not write.
        mapped: these, and all wires that are made of them.
        sinks: those of them that others read.
    """

    gates: list[Gate] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)
    mapped: set[str] = field(default_factory=set)
    sinks: set[str] = field(default_factory=set)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of its gates."""
        return frozenset(gate.name for gate in self.gates)


class _Lines:
    """Finds who writes each wire, and who reads it, once for all regions."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self.writers = {name: gate for gate in gates for name in gate.writes}
        self._readers: dict[str, list[Gate]] = {}
        for gate in gates:
            for name in {*gate.reads}:
                self._readers.setdefault(name, []).append(gate)

    def readers(self, name: str) -> Sequence[Gate]:
        """Return the gates that read a wire."""
        return self._readers.get(name, ())

    def outside(self, region: Region, name: str) -> Iterator[Gate]:
        """Yield the gates that read a wire and are not in a region."""
        return (gate for gate in self.readers(name) if gate.name not in region.names)


def leave_unopened(
    gates: Sequence[Gate],
    wires: Mapping[str, Wire],
    weights: Mapping[str, object],
    carried: Collection[str] = (),
) -> tuple[list[Gate], dict[str, Wire]]:
    """Return gates and wires of a plan that opens everything where it is best; wires in the order of their gates.

    Args:
        carried: wires that the next run reads: masked.
    """
    lines = _Lines(gates)
    chosen = [
        region
        for region in _regions(gates, wires, weights, lines)
        if not region.mapped.intersection(carried) and _can(region, lines, wires) and _better(region, lines, wires)
    ]
    changed = dict(wires)
    found = _opened_late(chosen, gates, changed)
    return found, {name: changed[name] for gate in found for name in gate.writes}


def leave_summed_unopened(
    gates: Sequence[Gate], wires: dict[str, Wire], weights: Mapping[str, object], carried: Collection[str] = ()
) -> None:
    """Leave bits of comparisons unopened, in place, where nothing but sums over rows and their noise reads them, and
    no run hands them on.

    A bit less is opened for each row, and a round before the sum's own.
    """
    lines = _Lines(gates)
    for region in _regions(gates, wires, weights, lines):
        bits = {name for name in region.sources if isinstance(lines.writers[name], Step)}
        others = region.sources - bits
        if (
            bits
            and not region.mapped.intersection(carried)
            and any(isinstance(gate, Rows) for gate in region.gates)
            and all(wires[name].masking is Masking.UNOPENED for name in others | region.sinks)
            and not any(wires[name].held or any(lines.outside(region, name)) for name in bits)
        ):
            for name in region.mapped:
                wires[name] = wires[name].model_copy(update={"masking": Masking.UNOPENED})


def _regions(
    gates: Sequence[Gate], wires: Mapping[str, Wire], weights: Mapping[str, object], lines: _Lines
) -> list[Region]:
    leader: dict[str, str] = {}  # wire of the run -> one that hangs together with it, in the end the same for all

    def lead(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    linear = [gate for gate in gates if gate.is_linear(wires)]
    for gate in linear:
        for name in gate.reads:
            if name not in weights:
                leader[lead(name)] = lead(gate.writes[0])
    joined: dict[str, Region] = {}
    for gate in linear:
        joined.setdefault(lead(gate.writes[0]), Region()).gates.append(gate)
    for region in joined.values():
        _find_ends(region, lines, weights)
    return list(joined.values())


def _find_ends(region: Region, lines: _Lines, weights: Mapping[str, object]) -> None:
    written = {name for gate in region.gates for name in gate.writes}
    region.sources = {n for g in region.gates for n in g.reads if n not in weights} - written
    region.mapped = set(region.sources)
    for gate in region.gates:  # what is made of weights alone is no part of it
        if region.mapped.intersection(gate.reads):
            region.mapped.update(gate.writes)
    region.sinks = {name for name in region.mapped & written if any(lines.outside(region, name))}


def _can(region: Region, lines: _Lines, wires: Mapping[str, Wire]) -> bool:
    """Can all its sources stay unopened?  They are a ReLU's or a maximum's, and only read here."""
    return all(
        isinstance(lines.writers[name], Relu | Maximum)
        and name != getattr(lines.writers[name], "index", None)
        and not wires[name].held
        and not any(lines.outside(region, name))
        for name in region.sources
    )


def _better(region: Region, lines: _Lines, wires: Mapping[str, Wire]) -> bool:
    if not region.sources or not region.sinks:
        return False
    outputs = all(_is_remask(gate) for name in region.sinks for gate in lines.readers(name))
    return outputs or _size(region.sinks, wires) < _size(region.sources, wires)


def _is_remask(gate: Gate) -> bool:
    return isinstance(gate, Truncate) and gate.shift == 0


def _size(names: set[str], wires: Mapping[str, Wire]) -> int:
    return sum(prod(1 if d == BATCH else int(d) for d in wires[name].shape) for name in names)


def _opened_late(regions: Sequence[Region], gates: Sequence[Gate], wires: dict[str, Wire]) -> list[Gate]:
    """Change the wires; the gates with those that open."""
    inside = {name for region in regions for name in region.names}
    home = {name: place for place, region in enumerate(regions) for name in region.sinks}
    for name in {name for region in regions for name in region.mapped}:
        wires[name] = wires[name].model_copy(update={"masking": Masking.UNOPENED})
    opened: dict[str, str] = {}
    found: list[Gate] = []
    for gate in gates:
        if gate.name in inside:
            found.append(gate)
            continue
        if _is_remask(gate) and gate.reads[0] in home:
            (x,), (out,) = gate.reads, gate.writes
            wires[out] = wires[out].model_copy(update={"bits": wires[x].bits})
            found.append(Open(name=f"{gate.name}.open", x=x, out=out))
            continue
        read = dict.fromkeys(name for name in gate.reads if name in home and name not in opened)
        for name in sorted(read, key=home.__getitem__):
            opened[name] = f"{name}.open"
            wires[opened[name]] = wires[name].model_copy(update={"name": opened[name], "masking": Masking.DRAWN})
            found.append(Open(name=opened[name], x=name, out=opened[name]))
        found.append(_reading(gate, opened))
    return found


def _reading(gate: Gate, renamed: Mapping[str, str]) -> Gate:
    """The gate, reading some wires by their new names."""
    if not renamed.keys() & set(gate.reads):
        return gate
    settings = {name: getattr(gate, name) for name in type(gate).model_fields}
    for operand in gate.operands:
        value = settings[operand]
        if isinstance(value, str):
            settings[operand] = renamed.get(value, value)
        elif value is not None:
            settings[operand] = tuple(renamed.get(name, name) for name in value)
    return GATES[gate.kind](**settings)
