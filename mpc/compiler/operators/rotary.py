"""Import rotary embeddings as one operator: pairs of a row's numbers turned by angles of its place."""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.graph import Shape
from mpc.compiler.operators.calling import rows_at
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import product
from mpc.compiler.operators.quantised import MICROSOFT
from mpc.compiler.operators.registry import handles


@handles("RotaryEmbedding")
def rotary_embedding(state: Context, node: ModelNode, settings: Settings) -> None:
    x, cosines, sines, places = (*node.input, "")[:4]
    turned(state, x, (cosines, sines), places, settings, node.output[0])


@handles("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding_of_microsoft(state: Context, node: ModelNode, settings: Settings) -> None:
    """Turn pairs at places that are given, or from one on."""
    x, places, cosines, sines = node.input[:4]
    if state.is_constant(places) and state.constants[places].size == 1:
        first, name = int(state.constants[places].flat[0]), state.fresh()
        shape = state.shapes[state.value(x)]
        number = state.size(shape, 1 if len(shape) == 3 else 2, "places")
        state.constants[name] = first + np.arange(number)[None]
        places = name
    turned(state, x, (cosines, sines), places, settings, node.output[0])


def turned(
    state: Context, x: str, angles: tuple[str, str], places: str, settings: Settings, out: str | None = None
) -> str:
    """Return x, (b, heads, places, width) or (b, places, heads width), turned.

    Args:
        angles: cosines and sines, a row a place: of places that are given, or (b, places, pairs).
    """
    x = state.value(x)
    given = state.shapes[x]
    of = [_rows(state, name, places) for name in angles]
    pairs = state.size(_shape(state, of[0]), -1, "pairs")
    number = int(settings.get("rotary_embedding_dim", 0)) or 2 * pairs
    if len(given) == 3:
        width = state.size(given, 2, "heads")
        heads = int(settings.get("num_heads", 0)) or width // (2 * pairs)
        x = state.transpose(state.reshape(x, (given[0], given[1], heads, width // heads)), (0, 2, 1, 3))
    width = state.size(state.shapes[x], 3, "heads")
    if number != 2 * pairs or number > width:
        raise state.origin.refuse(
            f"{pairs} angles for {number} of {width} numbers of a head",
            attribute="rotary_embedding_dim",
            remedy="give tables of cosines and sines with half as many columns as numbers are turned",
        )
    order = np.arange(number).reshape((pairs, 2) if settings.get("interleaved", 0) else (2, pairs))
    left, right = order.T if settings.get("interleaved", 0) else order
    one, other = state.take(x, 3, left.tolist()), state.take(x, 3, right.tolist())
    cosine, sine = of
    parts = [
        state.sum((product(state, one, cosine), product(state, other, sine)), (1.0, -1.0)),
        state.sum((product(state, other, cosine), product(state, one, sine)), (1.0, 1.0)),
    ]
    if number < width:
        parts.append(state.take(x, 3, range(number, width)))
    found = state.concat(parts, 3)
    if settings.get("interleaved", 0):
        found = state.take(found, 3, [*np.argsort([*left, *right]).tolist(), *range(number, width)])
    if len(given) == 3:
        found = state.transpose(found, (0, 2, 1, 3))
    return state.reshape(found, given, out)


def _rows(state: Context, table: str, places: str) -> str:
    """Return cosines or sines of each place, (b or 1, 1, places, pairs)."""
    rows = rows_at(state, table, places) if places else table
    shape = _shape(state, rows)
    if len(shape) != 3:
        raise state.origin.refuse(
            f"angles of shape {tuple(shape)}",
            remedy="give a row for each place of each row of the batch, or the places (position_ids)",
        )
    if not state.is_constant(rows):
        return state.reshape(rows, (shape[0], 1, *shape[1:]))
    name = state.fresh()
    state.constants[name] = state.constants[rows][:, None]
    return name


def _shape(state: Context, name: str) -> Shape:
    return state.constants[name].shape if state.is_constant(name) else state.shapes[name]
