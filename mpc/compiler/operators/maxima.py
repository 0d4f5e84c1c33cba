"""Masks before a maximum, as where only the tokens of a sentence are pooled: -1e9 stands in the place of the others.

No such number is the largest, unless all are, so it is of no use that a wire has room for it: what is behind the
maximum would be as wide, and have few digits, and places would be found by the digits that are left.  It becomes a
number below all that values beside it are proved to be.  This is known once a plan was made, and so the model is
imported twice: first with zeros in these places.  Masks that are added to values, as in x + (1 - m) -1e9, get it too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpc.compiler.graph.attributes import ArgMax, Attributes, Maximum, Round, Sum, Weighted
from mpc.compiler.graph.graph import MOVES, Node
from mpc.compiler.graph.hidden import APART, Cut, Floor
from mpc.compiler.operators.bits import are_bits, is_bit
from mpc.compiler.operators.context import Context, ModelNode
from mpc.compiler.operators.masks import LEAST_FACTOR, MASKED, cut_factor

FAR = 1e11
"""No wire has room for such numbers beside others that keep their digits; up to it, it has."""
_LEAST = 2.0**-10
_APART = 1 + APART
"""By how much what stands for hidden numbers is farther than all others: of equal ones the first place is found."""
_BESIDE = 2.5
"""How much farther a number is that is added to what it hides: this may be as large as others are small."""
_CARRY = ("fit", "multiply", "scale", "sum", "whole")
"""Nodes that hand on what masks have put into what they read, as those do that readers on its way become."""
_ONWARD = {"Cast", "Expand", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}


@dataclass(frozen=True)
class Hiding:
    """The readers of a value in which masks hide something.

    Args:
        side: 1.0 if the largest is looked for, -1.0 if the least.
        values: does a number come out, and not a place alone?  ranked: several of them?
        compares: does anything read it that finds a maximum?  scores: does a softmax, or an
            exponential, as where a softmax is spelt out?
        beside: is something added on a way there?  added: on every way?
        turned: is the opposite looked at?
    """

    side: float
    values: bool = False
    ranked: bool = False
    compares: bool = True
    scores: bool = False
    beside: bool = False
    added: bool = False
    turned: bool = False

    def joined(self, other: Hiding) -> Hiding | None:
        """Return what is so of two readers; None if nothing hides from both."""
        if (self.side, self.turned) != (other.side, other.turned):
            return None
        return Hiding(
            self.side,
            self.values or other.values,
            self.ranked or other.ranked,
            self.compares or other.compares,
            self.scores or other.scores,
            self.beside or other.beside,
            self.added and other.added,
            self.turned,
        )

    def hides(self, values: np.ndarray) -> bool:
        """Tell whether all these numbers are so far away that they hide something."""
        return bool((self.side * values < (-FAR if self.ranked else LEAST_FACTOR if self.beside else MASKED)).all())

    def stands(self, floor: Floor, values: np.ndarray) -> np.ndarray:
        """Return what stands for these numbers, beside values that are no less than the floor."""
        found = floor.number * _BESIDE if self.beside else floor.number
        return self.side * (min(found, MASKED) if self.scores and floor.is_known else found) * floor.part(values)


_LARGEST, _PLACE = Hiding(1.0, values=True), Hiding(1.0)
_READERS = {
    "ArgMax": _PLACE,
    "ArgMin": Hiding(-1.0),
    "Exp": Hiding(1.0, compares=False, scores=True),
    "GlobalMaxPool": _LARGEST,
    "Hardmax": _PLACE,
    "MaxPool": _LARGEST,
    "ReduceMax": _LARGEST,
    "ReduceMin": Hiding(-1.0, values=True),
    "Softmax": Hiding(1.0, compares=False, scores=True),
}


def floored(state: Context, values: np.ndarray, out: str) -> np.ndarray:
    """Return what stands for masked numbers, if maxima alone read the value that holds them; else these."""
    if state.floor is None or out in state.kept or not (np.abs(values) > -MASKED).all():
        return values
    found = hiding(state, out)
    if found is None or not _is_below(state, found, values):
        return values
    _note_floored(state, out, values)
    _note_rows(state, found, values)
    return found.stands(state.floor, values)


def hiding_factor(state: Context, x: str, factor: np.ndarray, out: str) -> np.ndarray:
    """Return a factor of x, nearer to zero if x is a mask by which it hides what it is added to, from softmaxes or
    maxima alone.
    """
    factor = cut_factor(state, x, factor, out)
    if (one := mask_factor(state, x, factor)) is None:
        _note_undeclared(state, x, factor)
        return factor
    unit, fill = one
    if (side := _side_of_scores(state, out)) * fill < 0:
        note_mask(state, x, factor)
        state.cut[out] = Cut(-2 * MASKED, float(side * fill))
        return np.full_like(factor, side * MASKED / unit)
    found = hiding(state, out)
    if state.floor is None or out in state.kept or found is None or not found.added:
        return factor
    if not _is_below(state, found, fill):
        return factor
    _note_floored(state, out, fill)
    note_mask(state, x, factor)
    _note_rows(state, found, fill)
    return np.full_like(factor, found.stands(state.floor, fill) / unit)


def _note_floored(state: Context, out: str, values: np.ndarray) -> None:
    state.floored[out] = state.floored.get(out, frozenset()) | {*np.unique(np.abs(values)).tolist()}


def _side_of_scores(state: Context, out: str) -> float:
    """Return 1.0 if softmaxes alone read a value, -1.0 if it is subtracted from scores that they read, else 0."""
    if state.only_scores(out):
        return 1.0
    readers = state.readers.get(out, [])
    turned = (
        bool(readers)
        and out not in state.revealed
        and all(
            reader.op_type == "Sub" and reader.input[0] != out and state.only_scores(reader.output[0])
            for reader in readers
        )
    )
    return -float(turned)


def mask_factor(state: Context, x: str, factor: np.ndarray) -> tuple[float, np.ndarray] | None:
    """Return what x is where it is not zero, if it is a mask, and what it then makes of a factor that hides by it.

    Whole numbers are none unless it is known that what they are made of is zero or one.
    """
    if not factor.size or not (np.abs(factor) > -LEAST_FACTOR).all() or (factor != factor.flat[0]).any():
        return None
    unit = unit_of(state, state.value(x))
    return None if unit is None else (unit, np.asarray(unit * factor.flat[0]))


def note_mask(state: Context, x: str, factor: np.ndarray) -> None:
    """Say that x counts as zeros and ones, if it may be something else."""
    if x not in state.integral:
        state.note(
            f"what it multiplies with {factor.flat[0]:.3g} counts as a mask of zeros and ones, which hides what it is "
            "one for: results are others where it is neither"
        )


def _note_undeclared(state: Context, x: str, factor: np.ndarray) -> None:
    """Say what to declare if x is a mask of whole numbers, and nothing tells that it is."""
    root = root_of(state, x)
    if root in state.undeclared and factor.size and (np.abs(factor) >= -MASKED).all():
        state.note(
            f"it multiplies input {root!r} with {factor.flat[0]:.3g}, and no range of that input is declared: if it is "
            f"a mask, declare that it is 0 and 1 (--range {root}=0:1, in Python ranges={{{root!r}: (0, 1)}}), so that "
            "it is known what it hides, which takes no digits then"
        )


def root_of(state: Context, x: str) -> str:
    """Return what a value is made of by moves, and by adding and multiplying with constants."""
    writers = {node.writes: node for node in state.nodes}
    while (node := writers.get(x)) is not None and len(node.reads) == 1 and node.op in ("fit", "scale", "sum", *MOVES):
        [x] = node.reads
    return x


def unit_of(state: Context, x: str) -> float | None:
    """Return the number beside zero that x is, if what it is made of is zero or one; None if it is never zero, and of
    whole numbers that may be others.
    """
    writers, weight, bias = {node.writes: node for node in state.nodes}, 1.0, 0.0
    whole = x in state.integral
    while not is_bit(state, x) and (node := writers.get(x)) is not None and len(node.reads) == 1:
        taken = node.attributes
        if isinstance(taken, Weighted) and node.op == "scale":
            parts = [taken.weight, np.zeros(()) if taken.bias is None else np.asarray(taken.bias)]
        elif isinstance(taken, Sum):
            parts = [np.asarray(taken.factors), np.asarray(taken.constant)]
        elif node.op in MOVES:
            parts = [np.ones(()), np.zeros(())]
        else:
            break
        if any((part != part.flat[0]).any() for part in parts):
            return None
        bias += weight * float(parts[1].flat[0])
        weight *= float(parts[0].flat[0])
        [x] = node.reads
    if whole and not are_bits(state, writers, x):
        return None
    ends = [end for end in (bias, weight + bias) if end]
    return ends[0] if len(ends) == 1 else None


def _is_below(state: Context, found: Hiding, values: np.ndarray) -> bool:
    """Do these numbers hide, and are they farther than what would stand for them, as far as that is known?"""
    if not found.hides(values):
        return False
    if state.floor is None or not state.floor.is_known:
        return True
    return bool((found.side * values <= found.side * found.stands(state.floor, values)).all())


def _note_rows(state: Context, found: Hiding, values: np.ndarray) -> None:
    """Say what becomes of rows that masks hide whole."""
    if state.floor is None or not state.floor.is_known or not (found.values or found.beside):
        return
    sign, nearest = -1.0 if found.turned else 1.0, values.flat[np.abs(values).argmin()]
    stands, what = sign * float(found.stands(state.floor, nearest)), "maximum" if sign * found.side > 0 else "minimum"
    number = sign * float(nearest)
    if found.ranked:
        rest = f"what it hides is ranked, too, as numbers about {stands:g} here, and {number:.3g} in the model"
        state.note(f"where a mask leaves fewer numbers than are ranked, {rest}: do not use these ranks")
        return
    here = f"this is about {stands:g} here, and {number:.3g} in the model"
    if not found.values:
        here = "its place is that of what is so among the hidden numbers, and in the model what float32 leaves of them"
    state.note(
        f"where a mask hides all that a {what} is taken of, as of a sequence that is padding alone, {here}: "
        "do not use such rows"
    )


def below(reach: float, fills: Iterable[Iterable[float]]) -> Floor:
    """Return what stands for what masks hide beside values of a size, and is no value itself: parties see no more of
    that size in a plan than the length of a wire.
    """
    found = tuple(sorted({fill for each in fills for fill in each}))
    apart = _APART if len(found) < 2 else _APART + APART
    return Floor(-(2.0 ** math.ceil(math.log2(max(reach * apart, _LEAST)))), found)


def hiding(state: Context, name: str) -> Hiding | None:
    """Return how maxima read a value, on its way moved, masked once more or added to others; None if others read it."""
    found = _read(state, name)
    return found if found is not None and found.compares else None


def _read(state: Context, name: str) -> Hiding | None:
    readers = [reader for reader in state.readers.get(name, []) if reader.op_type not in ("Shape", "Size")]
    if not readers or name in state.revealed:
        return None
    found: Hiding | None = None
    for reader in readers:
        behind = _behind(state, reader, name)
        if behind is None or (found := behind if found is None else found.joined(behind)) is None:
            return None
    return found


def _behind(state: Context, reader: ModelNode, name: str) -> Hiding | None:
    """Return how maxima behind one reader see the value."""
    kind = reader.op_type
    if kind in _READERS:
        return _READERS[kind]
    if [*reader.input].count(name) > 1:
        return None
    if kind == "TopK":
        side = 1.0 if reader.settings.get("largest", 1) else -1.0
        return Hiding(side, values=True, ranked=True) if reader.input[0] == name else None
    if kind not in ("Add", "Neg", "Sub", "Where", *_ONWARD):
        return None
    found = _read(state, reader.output[0])
    if found is None or kind in _ONWARD:
        return found if reader.input[0] == name else None
    if kind == "Where":
        others = [state.known(branch) for branch in reader.input[1:] if branch != name]
        masks = len(others) == 1 and others[0] is not None and bool((found.side * others[0] < MASKED).all())
        return found if masks and name != reader.input[0] else None
    turned = kind == "Neg" or (kind == "Sub" and reader.input[1] == name)
    beside = kind != "Neg"
    side = -found.side if turned else found.side
    turned = found.turned != turned
    return replace(found, side=side, beside=found.beside or beside, added=found.added or beside, turned=turned)


def noted(nodes: Sequence[Node], names: set[str], alone: set[str]) -> tuple[list[Node], frozenset[str]]:
    """Return nodes of which those that compare say that masks have put numbers among what they compare.

    Also return the names of which this does not tell how large others are, or that are among values that are compared
    with nothing, since they are alone: these hide nothing, and what is behind them may turn them over.
    """
    writers, compared = {node.writes: node for node in nodes}, set[str]()

    def behind(name: str) -> set[str]:
        left, seen = [name], {name}
        while left:
            if (node := writers.get(left.pop())) is not None and (node.op in MOVES or node.op in _CARRY):
                left += [read for read in node.reads if read not in seen]
                seen.update(node.reads)
        return seen & names

    def is_floored(name: str) -> bool:
        found = behind(name)
        compared.update(found)
        return bool(found)

    def marked(node: Node) -> Attributes:
        taken = node.attributes
        return replace(taken, floored=True) if isinstance(taken, ArgMax | Maximum | Round) else taken

    wanted = ("maximum", "argmax", "round") if names else ()
    marks = [
        replace(node, attributes=marked(node)) if node.op in wanted and is_floored(node.reads[0]) else node
        for node in nodes
    ]
    lost = set[str]().union(*(behind(name) for name in alone)) if names else set[str]()
    return marks, frozenset(names - compared | lost)
