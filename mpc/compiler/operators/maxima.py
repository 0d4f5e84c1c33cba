"""Masks before a maximum, as where only the tokens of a sentence are pooled: -1e9 stands in the place of the others.

No such number is the largest, unless all are, so it is of no use that a wire has room for it: what is behind the
maximum would be as wide, and have few digits.  It becomes the least number that values beside it are proved to be.
This is known once a plan was made, and so the model is imported twice: first with zeros in these places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Maximum
from mpc.compiler.graph.graph import MOVES, Node
from mpc.compiler.operators.context import Context, ModelNode
from mpc.compiler.operators.masks import MASKED

UNKNOWN = 0.0
"""Stands for masked numbers until it is known how small others can be."""
_LEAST = 2.0**-10
_LARGEST = {"GlobalMaxPool", "MaxPool", "ReduceMax"}
_ONWARD = {"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


def floored(state: Context, values: np.ndarray, out: str) -> np.ndarray:
    """Return what stands for masked numbers, if a maximum alone reads the value that holds them; else these."""
    if state.floor is None or not (values < MASKED).all() or not only_compared(state, out):
        return values
    state.floored.add(out)
    if state.floor != UNKNOWN:
        state.note(
            f"where a mask hides all that a maximum is taken of, as of a sequence that is padding alone, this is about "
            f"{state.floor:g} here, and {values.max():.3g} in the model: do not use such rows"
        )
    return np.full_like(values, state.floor)


def below(reach: float) -> float:
    """Return the number that stands for what masks hide beside values of a size: parties see no more of that size in a
    plan than the length of a wire.
    """
    return -(2.0 ** math.ceil(math.log2(max(reach, _LEAST))))


def only_compared(state: Context, name: str) -> bool:
    """Is a value read by maxima only, on its way moved, or masked once more?"""
    readers = state.readers.get(name, [])
    if not readers or name in state.revealed:
        return False
    return all(_leads_to_maximum(state, reader, name) for reader in readers)


def _leads_to_maximum(state: Context, reader: ModelNode, name: str) -> bool:
    if reader.op_type in _LARGEST:
        return True
    if reader.op_type == "Where":
        others = [state.known(branch) for branch in reader.input[1:] if branch != name]
        masks = len(others) == 1 and others[0] is not None and bool((others[0] < MASKED).all())
        return masks and name != reader.input[0] and only_compared(state, reader.output[0])
    return reader.op_type in _ONWARD and reader.input[0] == name and only_compared(state, reader.output[0])


def noted(nodes: Sequence[Node], names: set[str]) -> list[Node]:
    """Return nodes of which the maxima say that masks have put numbers among what they compare."""
    writers = {node.writes: node for node in nodes}

    def is_floored(name: str) -> bool:
        while name not in names:
            if (node := writers.get(name)) is None or node.op not in MOVES or len(node.reads) != 1:
                return False
            [name] = node.reads
        return True

    return [
        replace(node, attributes=replace(node.of(Maximum), floored=True))
        if node.op == "maximum" and is_floored(node.reads[0])
        else node
        for node in nodes
    ]
