"""Find what a model's own constants hide from a softmax: causal masks, windows, prefixes, paddings of a fixed length.

Exports add minus infinity, the least float32 or a number like -1e4 to scores, or put it in their place.  What stands
there takes part in nothing: no maximum, power or share is computed of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mpc.compiler.graph.attributes import Constant, Sum, Take, Transpose, Weighted
from mpc.compiler.graph.graph import MOVES, Node, static
from mpc.compiler.graph.hidden import ABSORBING, Cut, Hidden
from mpc.compiler.operators.context import BOUNDLESS, LEAST_MASK, Context
from mpc.wires import BATCH

MASKED = -1e4
"""Stand for minus infinity in scores that only a softmax reads."""
LEAST = 10 * MASKED
"""No number of a mask that a secret decides is less; so that order stays, some are less than `MASKED`."""
LEAST_FACTOR = -1e6
"""No score is multiplied with so little; a mask is."""
DEEPEST = 12
_MOST_MOVES = 1 << 20
"""Bound the indices by which all softmaxes of a plan gather and spread what is not hidden: about 6 MB of it."""


def hide(state: Context, out: str, values: np.ndarray, where: np.ndarray | bool = True) -> None:
    """Note where a value stands for less than it holds, since constants are less; `Context.below` has it."""
    below = np.where(where, _cut_off(values), 0.0)
    if below.any() and state.only_scores(out):
        state.below[out] = below


def note_fill(state: Context, out: str, values: np.ndarray, where: np.ndarray | bool = True) -> None:
    """Note the numbers that a mask puts in the place of scores; `Context.fills` has them."""
    values, chosen = np.broadcast_arrays(values, where)
    found = values[chosen]
    if found.size and (found <= LEAST_MASK).all():
        state.fills[out] = {*found.tolist()}


def _cut_off(values: np.ndarray) -> np.ndarray:
    """Return what is lost of constants that become `MASKED` at least; of those that no value reaches all."""
    return np.where(values <= -BOUNDLESS, -np.inf, np.minimum(values - MASKED, 0.0))


def cut_off(
    state: Context, arrays: Sequence[np.ndarray], out: str, zero: bool = True, replaces: bool = False
) -> list[np.ndarray]:
    """Return constants of masks that a secret chooses, or multiplies, brought closer to zero if one is below `MASKED`.

    Their order stays, and so do differences up to `-MASKED`; larger ones become that.

    Args:
        out: the value that holds them.  If softmaxes alone read it, `Context.cut` has it, so that notes say where
            scores may make up for what is lost; else constants stay as they are.
        zero: whether scores may stand beside them that no mask hides.
        replaces: whether they stand in the place of scores, and are not added to them.
    """
    if not any((each < MASKED).any() for each in arrays) or not state.only_scores(out):
        return [*arrays]
    levels = np.unique(np.concatenate([np.zeros(1), *(np.minimum(each, 0.0).reshape(-1) for each in arrays)]))[::-1]
    fallen = np.append(0.0, -np.cumsum(np.minimum(-np.diff(levels), -MASKED)))
    kept = fallen >= LEAST
    closer = np.where(kept, fallen, fallen[kept][-1])
    if not kept.all():
        state.note(
            f"its masks have too many different numbers below {MASKED:.0f}: those from {levels[kept][-1]:.6g} on count "
            "as one, so scores that they hide may lose their order: use fewer different ones, or numbers nearer to zero"
        )
    found = [np.where(each < 0, closer[np.searchsorted(-levels, -np.minimum(each, 0.0))], each) for each in arrays]
    ends = [end for each in found for end in (each.min(), each.max())] + [0.0] * zero
    state.cut[out] = Cut(max(ends) - min(ends) - MASKED, float(levels[-1]), replaces)
    return found


def cut_factor(state: Context, x: str, factor: np.ndarray, out: str) -> np.ndarray:
    """Return a factor of x as `cut_off` does: of a mask of zeros and ones, but not of numbers that are scores."""
    several = np.unique(factor[factor < MASKED]).size > 1
    if (x not in state.integral and (factor > LEAST_FACTOR).all()) or not state.only_scores(out):
        return factor
    if x not in state.integral or (several and not _is_bit(state, x)):
        state.note(
            f"what it multiplies with {factor.min():.3g} counts as a mask of zeros and ones, which hides what it is "
            "one for: shares are others where it is neither"
        )
    return cut_off(state, [factor], out)[0]


def _is_bit(state: Context, x: str) -> bool:
    """Is a value made of what comparisons found, perhaps moved, joined or turned over?"""
    writers, left = {node.writes: node for node in state.nodes}, [state.value(x)]
    while left:
        node = writers.get(left.pop())
        if node is None or node.op not in ("step", "multiply", "sum", *MOVES):
            return False
        if node.op == "sum" and (len(node.reads) > 1 or abs(node.of(Sum).factors[0]) != 1):
            return False
        left += node.reads if node.op != "step" else ()
    return True


def cut_of(state: Context, x: str) -> float | None:
    """Return how far apart scores may be before they make up for what masks lost; None if nothing was cut off.

    Notes say where shares of a row that is hidden whole are others than the model's.
    """
    _note_whole_rows(state, x)
    return min((factor * cut.limit for cut, factor, _ in _cuts(state, x)), default=None)


def _note_whole_rows(state: Context, x: str) -> None:
    """Say so where masks may hide all of a row, and its shares are then others than the model's."""
    cuts, together = [*_cuts(state, x)], _hide_together(state, x)
    added = min((cut.least for cut, _, beside in cuts if beside), default=0.0)
    infinite = any(cut.least == -np.inf for cut, _, _ in cuts)
    if together and not infinite and _one_fill(state, x):
        return  # equal numbers have equal shares, here and in the model
    if together or infinite or added <= ABSORBING:
        why = ""
        if infinite:
            why = ", and where all of it is minus infinity the model has none"
        elif not together:
            why = f", which in float32 loses scores beside {added:.3g}"
        state.note(
            "where masks hide all scores of a row, as those of a query whose keys are all padding or come later, its "
            f"shares are others than the model's{why}: do not use such rows, or put one finite number in place of all "
            "hidden scores"
        )
    elif sum(beside for _, _, beside in cuts) > 1 or len({cut.least for cut, _, _ in cuts}) > 1:
        state.note(
            f"masks that secrets decide are added to each other, or replace each other, and numbers below {MASKED:.0f} "
            "are brought closer to zero: if they hide all scores of a row, its shares may be others than the model's"
        )


def _hide_together(state: Context, x: str) -> bool:
    """Do constants hide some scores of a row, and secrets others?"""
    public = secret = False
    chosen = _chosen(state, x)
    for name, node, _, _ in behind(state, x):
        hidden = [state.below.get(name)]
        if node is not None and isinstance(node.attributes, Constant):
            hidden.append(node.attributes.weight)
        elif node is not None and node.op == "scale":
            hidden.append(node.of(Weighted).bias)
        public = public or (name not in chosen and any(each is not None and _hides_some(each) for each in hidden))
        secret = secret or name in state.cut
    return public and (secret or bool(chosen))


def _chosen(state: Context, x: str) -> set[str]:
    """Return what secrets choose of what scores are made of: its constants are a secret mask's own."""
    found = set[str]()
    for _, node, _, _ in behind(state, x):
        if node is None or node.op != "multiply":
            continue
        if any(read in state.integral or _is_bit(state, read) for read in node.reads):
            found.update(node.reads)
    return found


def _one_fill(state: Context, x: str) -> bool:
    """Do all masks put one finite number in the place of scores, and is nothing added to it afterwards?"""
    numbers, chosen = set[float](), _chosen(state, x)
    for name, node, _, beside in behind(state, x):
        if (fill := state.fills.get(name)) is not None:
            numbers |= {-np.inf} if beside else fill
        elif name in state.cut:
            return False
        elif node is None or name in chosen:
            continue
        elif isinstance(node.attributes, Constant) and (node.attributes.weight <= LEAST_MASK).any():
            return False
        elif node.op == "scale" and (bias := node.of(Weighted).bias) is not None:
            weight, bias = np.broadcast_arrays(node.of(Weighted).weight, bias)
            if (bias[weight != 0] <= LEAST_MASK).any():
                return False
    return len(numbers) == 1 and -np.inf not in numbers


def _hides_some(values: np.ndarray) -> bool:
    """Do constants hide some scores and others not?"""
    return 0 < int(np.count_nonzero(values <= LEAST_MASK)) < values.size


def _cuts(state: Context, x: str) -> Iterator[tuple[Cut, float, bool]]:
    """Yield masks that secrets decide and that scores hold, what they are multiplied with behind it, and whether
    they are added to scores, or scores to them.
    """
    for name, _, factor, beside in behind(state, x):
        if (cut := state.cut.get(name)) is not None:
            yield cut, factor, beside


def behind(state: Context, x: str) -> Iterator[tuple[str, Node | None, float, bool]]:
    """Yield what scores are made of: a value, the node that writes it, what it is multiplied with behind it, and
    whether anything is added to it.
    """
    writers, seen, left = {node.writes: node for node in state.nodes}, set[str](), [(x, 1.0, False)]
    while left:
        name, factor, beside = left.pop()
        if name in seen:
            continue
        seen.add(name)
        node = writers.get(name)
        yield name, node, factor, beside
        if node is None or node.op not in ("scale", "sum", "multiply", *MOVES):
            continue
        if node.op == "scale":
            weighted = node.of(Weighted)
            factor *= abs(float(weighted.weight.flat[0])) if weighted.weight.size == 1 else 1.0
            beside = beside or _adds(weighted)
        fills = name in state.cut or name in state.fills  # it replaces scores
        beside = beside or (node.op == "sum" and len(node.reads) > 1 and not fills)
        left += [(read, factor, beside) for read in node.reads if read not in seen]


def _adds(weighted: Weighted) -> bool:
    """Does a scaling add different numbers to what it leaves?  Where it multiplies with zero, it puts them in place."""
    if weighted.bias is None:
        return False
    weight, bias = np.broadcast_arrays(weighted.weight, weighted.bias)
    return len(np.unique(bias[weight != 0])) > 1


def add_mask(state: Context, x: str, values: np.ndarray) -> str:
    """Add constants to scores that a softmax alone reads, minus infinity among them."""
    name = state.scale(x, 1.0, np.maximum(values, MASKED))
    if (below := _cut_off(values)).any():
        state.below[name] = below
    return name


def hidden_of(state: Context, x: str) -> tuple[str, Hidden] | None:
    """Return what a softmax over the last axis of x does not have to look at, and what to compute it of; else None."""
    shape = state.shapes[x]
    writers = {node.writes: node for node in state.nodes}
    finite = state.cut and any(cut.replaces and np.isfinite(cut.least) for cut, _, _ in _cuts(state, x))
    lost: Below = {} if finite else state.below  # secrets may hide the rest of a row: then all of it has equal shares
    added, held = (added_constants(state, writers, x, DEEPEST, each) for each in (lost, {}))
    if added is None or not state.skips:
        return None
    added = np.broadcast_to(added, static(shape))
    where, below = _hidden(added), _below(added, 0.0 if held is None else held)
    if where.all(axis=-1).any():
        where = added == -np.inf
    lead = min(_alike(where), _alike(below))
    if BATCH in shape[lead:]:
        return None
    places = where[(0,) * lead]
    if places.all():  # all rows have equal shares, as of equal scores
        none = np.zeros_like(places)
        return state.scale(x, 0.0), Hidden(none, lead, none, none.astype(np.float64))
    moves = 3 * places.size + 4 * int((~places).sum())
    if not where.any() or moves > _MOST_MOVES - state.moved:
        none = np.zeros_like(places)
        return (x, Hidden(none, lead, none, below[(0,) * lead])) if below.any() else None
    state.moved += moves
    found = Hidden(places, lead, places & (added == -np.inf)[(0,) * lead], below[(0,) * lead])
    return (_unmasked(state, writers, x, where) if found.certain else x), found


def _below(added: np.ndarray, held: np.ndarray | float) -> np.ndarray:
    """Return by how much constants of a model are less than those that a value holds, up to the rows' greatest."""
    infinite = added == -np.inf
    with np.errstate(invalid="ignore"):
        below = np.where(infinite, -np.inf, np.minimum(added - held, 0.0))
    return np.where(infinite.all(axis=-1, keepdims=True), 0.0, below)


def _hidden(added: np.ndarray) -> np.ndarray:
    """Which places constants hide.  A number that is added to a whole row hides nothing of it; infinities do."""
    where = added <= LEAST_MASK
    whole = where.all(axis=-1, keepdims=True)
    return np.where(whole, added == -np.inf, where)


def _alike(where: np.ndarray) -> int:
    """Along how many of the first axes all parts are alike; a row's own axis is none of them."""
    lead = 0
    while where.ndim > 1 and (where == where[:1]).all():
        where, lead = where[0], lead + 1
    return lead


Below = Mapping[str, np.ndarray]
"""By how much values stand for less than they hold."""


def added_constants(state: Context, writers: dict[str, Node], name: str, depth: int, below: Below) -> np.ndarray | None:
    """Return the constants that a value is a sum of, and minus infinity where it is that; None if there are none."""
    node = writers.get(name)
    if node is None or depth == 0:
        return None
    found = _of_node(state, writers, node, depth, below)
    if (less := below.get(name)) is not None:
        found = less + (0.0 if found is None else found)
    return found


def _of_node(state: Context, writers: dict[str, Node], node: Node, depth: int, below: Below) -> np.ndarray | None:
    if isinstance(node.attributes, Constant):
        return node.attributes.weight
    inner = [added_constants(state, writers, name, depth - 1, below) for name in node.reads]
    taken = node.attributes
    if isinstance(taken, Weighted) and node.op == "scale":
        bias = np.zeros(()) if taken.bias is None else taken.bias
        if inner[0] is None or (taken.weight < 0).any():
            return None if taken.bias is None else bias
        with np.errstate(invalid="ignore"):
            return np.where(taken.weight == 0, 0.0, inner[0] * taken.weight) + bias
    if isinstance(taken, Sum):
        parts = [f * a for f, a in zip(taken.factors, inner, strict=True) if a is not None and f > 0]
        return sum(parts[1:], parts[0]) if parts else None
    if not inner or (first := inner[0]) is None:
        return None
    first = np.broadcast_to(first, static(state.shapes[node.reads[0]]))
    if node.op == "reshape":
        return first.reshape(static(node.shape))
    if node.op == "relu":  # as of a maximum with a number that a mask puts
        return np.where(first >= -LEAST_MASK, first, 0.0)
    if isinstance(taken, Transpose):
        return first.transpose(taken.axes)
    if isinstance(taken, Take) and min(taken.indices) >= 0:
        return first.take(taken.indices, axis=taken.axis)
    return None


def _unmasked(state: Context, writers: dict[str, Node], x: str, where: np.ndarray) -> str:
    """Return a value that equals x where nothing is hidden, before constants hid the rest of it."""
    node, shape = writers.get(x), state.shapes[x]
    if node is None or not node.reads:
        return x
    inner = node.reads[0]
    if node.op == "reshape" and BATCH not in shape[1:] and shape[:1] == state.shapes[inner][:1]:
        before = static(state.shapes[inner])
        return state.reshape(_unmasked(state, writers, inner, where.reshape(before)), shape)
    if node.op != "scale" or not isinstance(node.attributes, Weighted):
        return x
    weight, bias = node.attributes.weight, node.attributes.bias
    if not (np.broadcast_to(weight, where.shape) == 1)[~where].all():
        return x
    whole = inner if state.shapes[inner] == shape else state.expand(inner, shape)
    if bias is not None and np.broadcast_to(bias, where.shape)[~where].any():
        return state.scale(whole, 1.0, np.where(where, 0.0, bias))
    return _unmasked(state, writers, whole, where)
