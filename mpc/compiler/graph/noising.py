"""Noise where a caller asks for it: behind each sum over rows that one of its outputs is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from mpc.compiler.graph.attributes import Held, Noise, RowsSum
from mpc.compiler.graph.graph import Graph, Node
from mpc.errors import ModelError, UsageError
from mpc.privacy.facts import GAUSSIAN, LAPLACE, Mechanism, StoredFacts
from mpc.privacy.gaussian import MOST_DELTA
from mpc.privacy.law import MOST_EPSILON
from mpc.wires import BATCH, MAX_BATCH

DELTA = Fraction(1, 10**8)
"""Delta of an answer with Gaussian noise, unless something else is said."""
_WIDEST = 20
_MOVED = frozenset({"reshape", "transpose", "fit"})
"""Operators that leave a sum what it is: noise comes behind them, so that it is opened as it is told."""


@dataclass(frozen=True)
class Noising:
    """A caller's wishes for noise.

    Args:
        epsilon: output -> what its answer may tell of one person; sums that it is made of share it evenly.
        width: bits that each summed element is held to, where it is more than bits of comparisons.
        most: the most rows of a run.
        stored: input -> what is public of the data that it will be bound to; these are protected.  None: those are
            that lie at the parties, or all with rows if none do, as one dataset with a row a person.
        mechanisms: kinds of noise that may be; of several, each sum gets the one of less variance.
        delta: the most that an output's Gaussian noise may cost beside its epsilon; its sums share that evenly.
        together: sums that an output is made of are steps, each of which follows from those before: Gaussian noise is
            enough for all of them together, which is less than if each were told for itself.
        parts: node that sums over rows -> how many steps its sum counts as, where that is more than one.
        norms: value with rows -> the largest Euclidean norm of a row; longer rows become zeros, elements have `width`
            bits.

    Raises:
        UsageError: there is no such epsilon, delta, width, mechanism or number of rows.
    """

    epsilon: Mapping[str, Fraction]
    width: int = 12
    most: int = MAX_BATCH
    stored: Mapping[str, StoredFacts] | None = None
    mechanisms: tuple[Mechanism, ...] = (LAPLACE,)
    delta: Fraction = DELTA
    together: bool = False
    parts: Mapping[str, int] = field(default_factory=dict)
    norms: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for output, epsilon in self.epsilon.items():
            if not 0 < epsilon <= MOST_EPSILON:
                raise UsageError(
                    f"an epsilon of {float(epsilon):g} for output {output!r}",
                    remedy=f"give one above 0 and up to {MOST_EPSILON}",
                )
        if not self.mechanisms or not {*self.mechanisms} <= {LAPLACE, GAUSSIAN}:
            raise UsageError(
                f"noise of the kind {', '.join(map(str, self.mechanisms)) or 'none'}",
                remedy=f"mechanism='{LAPLACE}' or '{GAUSSIAN}'",
            )
        if self.together and self.mechanisms != (GAUSSIAN,):
            raise UsageError("steps have Gaussian noise together", remedy=f"mechanism='{GAUSSIAN}'")
        if not 0 < self.delta <= MOST_DELTA:
            raise UsageError(
                f"a delta of {float(self.delta):g} for an answer", remedy=f"above 0 and up to {float(MOST_DELTA):g}"
            )
        if not 2 <= self.width <= _WIDEST or not 1 <= self.most <= MAX_BATCH:
            raise UsageError(
                f"a width of {self.width} bits, or {self.most} rows at most",
                remedy=f"a width has 2 to {_WIDEST} bits, a run 1 to {MAX_BATCH:,} rows",
            )

    def protected(self, graph: Graph) -> dict[str, StoredFacts]:
        """Return the facts of each input that is protected; marks of missing numbers go with their input.

        Raises:
            ModelError: there is no such input with rows.
        """
        with_rows = [given for given in graph.inputs if given.shape[:1] == (BATCH,)]
        named = {given.name for given in with_rows if given.of == given.name}
        for name in self.stored or {}:
            if name not in named:
                raise ModelError(
                    f"the model has no input {name!r} with rows",
                    remedy=f"its inputs with rows: {', '.join(sorted(named))}",
                )
        lying = {given.name for given in with_rows if given.stored is not None} or named
        facts = {name: StoredFacts(1, 1, "data") for name in lying} if self.stored is None else self.stored
        found = {given.name: facts.get(given.of) for given in with_rows}
        return {name: each for name, each in found.items() if each is not None}


def with_noise(graph: Graph, noising: Noising) -> Graph:
    """Return a graph with noise behind each sum over rows; one that asks for none stays as it is.

    Raises:
        ModelError: an output is not named so, or has no sum over rows; a sum has no epsilon, or those of two outputs.
    """
    noise = noising.epsilon
    if not noise:
        return graph
    unknown = sorted(set(noise) - {out.name for out in graph.outputs})
    if unknown:
        names = ", ".join(out.name for out in graph.outputs)
        raise ModelError(f"the model has no output {unknown[0]!r} to noise", remedy=f"its outputs are {names}")
    graph = _with_norms(graph, noising)
    shares = _shares(graph, noising)
    for node in [node for node in graph.nodes if node.op == "rows_sum"]:
        if node.writes not in shares:
            raise node.origin.refuse(
                "a sum over rows that would be told without noise",
                remedy="give an epsilon for the output that reads it",
            )
    held = RowsSum(width=noising.width, most=noising.most)
    nodes = [replace(node, attributes=held) if node.op == "rows_sum" else node for node in graph.nodes]
    taken = {name for node in nodes for name in (node.writes, *node.reads)}
    for name, wanted in shares.items():
        _insert(graph, nodes, name, wanted, taken)
    return Graph(graph.inputs, nodes, graph.outputs)


def _with_norms(graph: Graph, noising: Noising) -> Graph:
    """Hold values to the norms that their rows may have; who reads them reads what is held."""
    nodes = list[Node]()
    taken = {name for node in graph.nodes for name in (node.writes, *node.reads)}
    for node in graph.nodes:
        norm = noising.norms.get(node.writes)
        if norm is None:
            nodes.append(node)
            continue
        free = next(each for n in range(len(taken) + 1) if (each := f"{node.writes}/free{n or ''}") not in taken)
        taken.add(free)
        held = Held(norm=norm, width=noising.width)
        nodes += [replace(node, writes=free), Node("held", (free,), node.writes, node.shape, node.origin, held)]
    missing = set(noising.norms) - {node.writes for node in graph.nodes}
    if missing:
        raise ModelError(
            f"the model has no value {min(missing)!r} whose rows could be held to a norm",
            remedy="name a value that a node of the model writes",
        )
    return Graph(graph.inputs, nodes, graph.outputs)


def _shares(graph: Graph, noising: Noising) -> dict[str, Noise]:
    """Each sum over rows with its part of an output's epsilon and delta."""
    noise, laplace, gaussian = noising.epsilon, LAPLACE in noising.mechanisms, GAUSSIAN in noising.mechanisms
    writers, shares = {node.writes: node for node in graph.nodes}, dict[str, Noise]()
    for out in graph.outputs:
        sums, todo, seen = list[str](), [out.value], {out.value}
        while todo:
            node = writers.get(todo.pop())
            if node is None:
                continue
            if node.op == "rows_sum":
                sums.append(node.writes)
            todo += [name for name in node.reads if name not in seen]
            seen.update(node.reads)
        if out.name in noise and not sums:
            raise ModelError(
                f"output {out.name!r} is no sum over rows: noise on it would protect nobody",
                remedy="sum over the first axis (ReduceSum), or leave its epsilon out",
            )
        parts = {name: noising.parts.get(writers[name].origin.node, 1) for name in sums}
        many = sum(parts.values())
        for name in sums if out.name in noise else []:
            if name in shares:
                raise writers[name].origin.refuse(
                    "two noised outputs read one sum over rows", remedy="compute the second from the first's answer"
                )
            part = noising.delta / many if gaussian else None
            steps = many if noising.together else 1
            own = Fraction(parts[name], many)
            shares[name] = Noise(
                epsilon=noise[out.name] * own, delta=part, laplace=laplace, steps=steps, part=parts[name]
            )
    return shares


def _insert(graph: Graph, nodes: list[Node], name: str, wanted: Noise, taken: set[str]) -> None:
    """Noise behind a sum and the moves that follow it; who reads them reads the noised one."""
    while not graph.is_output(name):
        readers = [node for node in nodes if name in node.reads]
        if len(readers) != 1 or readers[0].op not in _MOVED:
            break
        name = readers[0].writes
    place = next(number for number, node in enumerate(nodes) if node.writes == name)
    bare = next(each for n in range(len(taken) + 1) if (each := f"{name}/sum{n or ''}") not in taken)
    taken.add(bare)
    last = nodes[place]
    nodes[place : place + 1] = [
        replace(last, writes=bare),
        Node("noise", (bare,), name, last.shape, last.origin, wanted),
    ]
