"""Rows at the places that a secret mask marks, of which each row of the batch has as many: the first or last of them.

So BART and its kin classify a text by its last end token: x[mask].view(batch, -1, size)[:, -1], which is exported as
NonZero, Transpose, GatherND, Reshape and Gather.  How many are marked, and where, is secret; so nothing is computed
until the one is known that is chosen.  That place is a row of zeros with at most a one.
"""

from __future__ import annotations

from math import prod

from mpc.compiler.graph.graph import static
from mpc.compiler.operators.context import Context, ModelNode
from mpc.compiler.operators.rowwise_values import Marked, Values
from mpc.compiler.operators.sizes import sizes_of


def begin(state: Context, found: Values, node: ModelNode) -> bool:
    """Note the places of a secret mask (batch, n), which a NonZero looks for; False if it is something else."""
    mask, readers = node.input[0], state.readers.get(node.output[0], [])
    shape = state.shapes.get(mask, ())
    if len(shape) != 2 or not isinstance(shape[1], int) or [each.op_type for each in readers] != ["Transpose"]:
        return False
    if state.inferred(mask) != "bool" or mask in state.joined:
        return False
    found[node.output[0]] = Marked(shape, None, None, mask, "places")
    return True


def follow(state: Context, found: Values, node: ModelNode) -> None:
    """Note what a node makes of such places, or choose the first or last of them in each row.

    Raises:
        ModelError: it does anything else with them.
    """
    value = next(each for name in node.input if isinstance(each := found.get(name), Marked))
    shape = state.shapes[value.mask]
    match node.op_type, value.stage:
        case "Transpose", "places" if node.settings.get("perm", [1, 0]) == [1, 0]:
            found[node.output[0]] = value.next("pairs")
            return
        case "GatherND", "pairs" if not node.settings.get("batch_dims", 0):
            data = node.input[0]
            if state.shapes.get(data, ())[:2] == shape and data not in state.joined:
                found[node.output[0]] = value.next("elements", data)
                return
        case "Reshape", "elements" if state.is_constant(node.input[1]):
            target = state.constants[node.input[1]].reshape(-1).tolist()
            if target == [*sizes_of(shape[:1]), -1, *sizes_of(state.shapes[value.data][2:])]:
                found[node.output[0]] = value.next("elements of each row")
                return
        case "Gather", "elements of each row" if node.settings.get("axis", 0) == 1 and state.is_constant(node.input[1]):
            index = state.constants[node.input[1]]
            if index.size == 1 and int(index.reshape(-1)[0]) in (0, -1):
                final = (*shape[:1], *index.shape, *state.shapes[value.data][2:])
                state.reshape(_chosen(state, value, last=bool(index.reshape(-1)[0])), final, node.output[0])
                return
    raise state.origin.refuse(
        "how many places a mask marks is secret: of each row the first or last of them can be chosen, and nothing else",
        remedy="choose it as x[mask].view(batch, -1, size)[:, -1], or by ArgMax of the mask; or compute it outside",
    )


def _chosen(state: Context, value: Marked, *, last: bool) -> str:
    """Return the element (batch, 1, ..) at the first or last marked place of each row, zeros where there is none."""
    shape, rest = state.shapes[value.mask], state.shapes[value.data][2:]
    number = state.size(shape, 1, "a mask")

    def moved(name: str, by: int) -> str:
        taken = range(by, by + number) if last else range(-by, number - by)
        found = state.take(name, 1, [place if 0 <= place < number else -1 for place in taken])
        state.integral.add(found)
        return found

    count, by = value.mask, 1  # of the marks from each place on; or up to it
    state.integral.add(count)
    while by < number:
        count, by = state.sum((count, moved(count, by)), (1.0, 1.0)), 2 * by
    there = state.step(count, 1.0)
    state.integral.add(there)
    hot = state.reshape(state.sum((there, moved(there, 1)), (1.0, -1.0), known=(0.0, 1.0)), (shape[0], 1, number))
    end = "last" if last else "first"
    state.note(f"the {end} place is taken that the mask marks in each row; a row without a mark is given zeros")
    return state.choose(hot, state.reshape(value.data, (*shape, prod(static(rest)))))
