"""The order and shape in which a model's file has a weight, where layers read it in another."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from mpc.compiler.onnx.protos import array_of, attributes
from mpc.compiler.operators.layers import turned


@dataclass(frozen=True)
class Layout:
    """How a weight lies in the file.

    Args:
        begun: what the file has, in the file's shape; numbers that no place names stay as they are.
        places: for each number that the layer reads, its index in `begun`, flat; of the layer's shape, but for ones.
        factor: by which the layer multiplies it.
        plus: what the layer adds to it: numbers that stay too, one for each place.
    """

    begun: np.ndarray = field(repr=False)
    places: np.ndarray = field(repr=False)
    factor: float = 1.0
    plus: np.ndarray | None = field(default=None, repr=False)

    def reads(self, values: np.ndarray) -> bool:
        """Say whether this is how the layer has the file's numbers."""
        if not self.factor or _sizes(self.places) != _sizes(values):
            return False
        found = self.begun.reshape(-1)[self.places.reshape(-1)] * self.factor
        return np.array_equal(found if self.plus is None else found + self.plus, values.reshape(-1))

    def in_file(self, values: np.ndarray) -> np.ndarray:
        """Return a weight as the file has it, of what the layer reads."""
        found, flat = self.begun.copy(), values.reshape(-1)
        found.reshape(-1)[self.places.reshape(-1)] = (flat if self.plus is None else flat - self.plus) / self.factor
        return found


def layouts_read(graph: onnx.GraphProto, weights: Mapping[str, np.ndarray]) -> dict[str, Layout]:
    """Return how the file has each weight that it stores, but for those that layers read in a form unknown here.

    Args:
        weights: by their names, as layers read them at first.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for each in node.attribute:
            if (node.op_type, each.name) == ("Constant", "value"):
                stored[node.output[0]] = each.t
    begun = {name: array_of(stored[name]).astype(np.float64) for name in weights if name in stored}
    reached = {name: (name, np.arange(each.size).reshape(each.shape)) for name, each in begun.items()}
    found: dict[str, Layout] = {}
    for node in graph.node:
        for place, read in enumerate(node.input):
            name, places = reached.get(read, ("", np.empty(0)))
            if name and place == 0:
                operands = [array_of(stored[each]) for each in node.input[1:] if each in stored]
                moved = _moved(node, places, operands)
                if moved is not None:
                    reached[node.output[0]] = name, moved
                    continue
            if name and name not in found:
                layout = _layout(node, place, begun[name], places)
                if layout is not None and layout.reads(weights[name]):
                    found[name] = layout
    return found


def told_otherwise(graph: onnx.GraphProto, names: Collection[str]) -> tuple[str, ...]:
    """Note those of some weights that the file stores, but in a form that is unknown here, if there are any."""
    which = ", ".join(repr(tensor.name) for tensor in graph.initializer if tensor.name in names)
    told = "told as layers read them, since the file has other numbers, of which these are computed"
    return (f"{which}: {told}",) if which else ()


def _layout(node: onnx.NodeProto, place: int, begun: np.ndarray, places: np.ndarray) -> Layout | None:
    """Return how an operator reads its operand at that place; None if that is unknown here."""
    said = attributes(node)
    match node.op_type:
        case "LSTM" | "GRU" | "RNN" if len(places) != 1 or place not in (1, 2, 3):
            return None
        case "LSTM" | "GRU" | "RNN" if place == 3:  # two biases, whose sum is read: the second stays
            first, second = np.split(places[0], 2)
            return Layout(begun, first, plus=begun.reshape(-1)[second])
        case "LSTM" | "GRU" | "RNN":
            return Layout(begun, places[0].T)
        case "Gemm":
            turn = place == 1 and said.get("transB", 0)
            factor = float(said.get("beta" if place == 2 else "alpha", 1.0))
            return Layout(begun, places.T if turn else places, factor)
        case "ConvTranspose" if place == 1:
            return Layout(begun, turned(places, int(said.get("group", 1))))
        case "MatMul" if place == 0 and places.ndim > 1:
            return Layout(begun, np.swapaxes(places, -1, -2))
    return Layout(begun, places)


def _sizes(values: np.ndarray) -> tuple[int, ...]:
    """Return a shape without its ones."""
    return tuple(size for size in values.shape if size != 1)


def _moved(node: onnx.NodeProto, places: np.ndarray, operands: list[np.ndarray]) -> np.ndarray | None:
    """Return them as the operator hands them on; None if it does something else, or its operands are computed."""
    said = attributes(node)
    if len(operands) != sum(map(bool, node.input[1:])):
        return None
    axes = said.get("axes", operands[0].tolist() if operands else None)
    match node.op_type:
        case "Identity" | "Cast":
            return places
        case "Transpose":
            return places.transpose(said.get("perm"))
        case "Squeeze":
            return places.squeeze(None if axes is None else tuple(axes))
        case "Unsqueeze":
            return np.expand_dims(places, tuple(axes or ()))
        case "Reshape" if operands:
            return places.reshape([size or places.shape[axis] for axis, size in enumerate(operands[0].tolist())])
    return None
