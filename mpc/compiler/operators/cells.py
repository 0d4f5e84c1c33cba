"""One step of a recurrent layer: its gates, its activations, and what its node says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mpc.compiler.operators.calling import call
from mpc.compiler.operators.context import Context, Settings
from mpc.compiler.operators.elementwise import clipped

_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_PARAMETERS: dict[str, tuple[float, ...]] = {
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01,),
    "thresholdedrelu": (1.0,),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0,),
}
"""Activations that have an alpha, or an alpha and a beta, and what these are if the model does not say."""
_PLAIN = {name.lower(): name for name in ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", "LeakyRelu", "Elu")} | {
    "thresholdedrelu": "ThresholdedRelu",
    "hardsigmoid": "HardSigmoid",
}
"""Activations that are operators of their own."""
BOUNDED = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}

Activation = Callable[[str], str]


@dataclass(frozen=True)
class Weights:
    """The constants of one direction; gates lie side by side in the order of ONNX.

    Args:
        x: (inputs, gates * hidden); h: (hidden, gates * hidden).
        x_bias, h_bias: (gates * hidden,).
        peepholes: (3, hidden) of input, output and forget gate; None without them.
    """

    x: np.ndarray
    h: np.ndarray
    x_bias: np.ndarray
    h_bias: np.ndarray
    peepholes: np.ndarray | None = None

    @property
    def hidden(self) -> int:
        return int(self.h.shape[0])


@dataclass(frozen=True)
class Layer:
    """One direction of a recurrent layer: its weights, its activations, and what else its node says.

    Args:
        within_one: its state is between -1 and 1, whatever it reads: it begins with zeros, and its activations see to
            that.
    """

    weights: Weights
    activations: tuple[Activation, ...]
    backwards: bool
    clip: float | None
    linear_before_reset: bool
    input_forget: bool
    within_one: bool = False


State = tuple[str | None, ...]
"""The hidden state, and a cell state if there is one; None stands for zeros."""
Step = Callable[[Context, Layer, str, State], tuple[str, ...]]
"""(.., what a step reads of the sequence, with biases, state) -> state"""


def layers_of(state: Context, kind: str, settings: Settings, weights: Sequence[Weights]) -> Iterator[Layer]:
    """Yield each direction of a layer; what does not fit together is refused."""
    direction = settings.get("direction", b"forward").decode()
    wanted = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(direction)
    if wanted is None or len(wanted) != len(weights):
        raise state.origin.refuse(
            f"the direction {direction!r} with weights of {len(weights)}",
            attribute="direction",
            remedy="use forward or reverse with weights of one direction, bidirectional with those of two",
        )
    functions = _functions(state, kind, settings, len(wanted))
    for backwards, own, chosen in zip(wanted, weights, functions, strict=True):
        gates = _GATES[kind] * own.hidden
        if own.h.shape[1] != gates or own.x.shape[1] != gates or own.x_bias.size != gates:
            raise state.origin.refuse(
                f"weights {own.x.shape} and {own.h.shape} of a hidden state of {own.hidden}",
                attribute="hidden_size",
                remedy=f"give weights of {_GATES[kind]} gates with {own.hidden} numbers each",
            )
        clip = settings.get("clip")
        yield Layer(
            weights=own,
            activations=chosen,
            backwards=backwards,
            clip=None if clip is None else float(clip),
            linear_before_reset=bool(settings.get("linear_before_reset", 0)),
            input_forget=bool(settings.get("input_forget", 0)),
        )


def named(settings: Settings, kind: str, directions: int = 1) -> list[str]:
    """Name the activations, in lower case."""
    given = [name.decode() for name in settings.get("activations", [])]
    return [name.lower() for name in given or [*_ACTIVATIONS[kind]] * directions]


def _functions(state: Context, kind: str, settings: Settings, directions: int) -> Iterator[tuple[Activation, ...]]:
    """The activations of each direction, with their parameters, which are listed in their order."""
    usual = _ACTIVATIONS[kind]
    names = named(settings, kind, directions)
    if len(names) != len(usual) * directions:
        raise state.origin.refuse(
            f"{len(names)} activations",
            attribute="activations",
            remedy=f"name {len(usual)} for each direction: {', '.join(usual)} are usual",
        )
    alphas, betas = iter(settings.get("activation_alpha", ())), iter(settings.get("activation_beta", ()))
    found = []
    for name in names:
        if name not in _PLAIN and name not in _PARAMETERS:
            raise state.origin.refuse(
                f"the activation {name!r}",
                attribute="activations",
                remedy=f"use one of {', '.join(sorted({*_PLAIN.values(), 'Affine', 'ScaledTanh'}))}",
            )
        known = _PARAMETERS.get(name, ())
        given = [next(source, usual) for usual, source in zip(known, (alphas, betas), strict=False)]
        found.append(partial(_activated, state, name, tuple(map(float, given))))
    for i in range(directions):
        yield tuple(found[i * len(usual) : (i + 1) * len(usual)])


def _activated(state: Context, name: str, parameters: tuple[float, ...], x: str) -> str:
    if name == "affine":
        return state.sum((x,), parameters[:1], None, parameters[1])
    if name == "scaledtanh":
        return state.sum((state.function("tanh", state.sum((x,), parameters[1:])),), parameters[:1])
    if name in BOUNDED:
        return state.function(name, x, known=BOUNDED[name])
    return call(state, _PLAIN[name], (x,), settings=dict(zip(("alpha", "beta"), parameters, strict=False)))


# ------------------------------------------------------------------- steps


def _part(state: Context, z: str, first: int, last: int, hidden: int) -> str:
    """Gates first .. last of all that lie side by side."""
    return state.take(z, len(state.shapes[z]) - 1, range(first * hidden, last * hidden))


def _added(state: Context, *terms: str | None) -> str:
    present = [term for term in terms if term is not None]
    return present[0] if len(present) == 1 else state.sum(present, [1.0] * len(present))


def _limited(state: Context, layer: Layer, z: str) -> str:
    return z if layer.clip is None else clipped(state, z, -layer.clip, layer.clip)


def _times(state: Context, h: str | None, weight: np.ndarray, bias: np.ndarray | None = None) -> str | None:
    return None if h is None else state.affine(h, weight, bias)


def _lstm(state: Context, layer: Layer, read: str, before: State) -> tuple[str, ...]:
    """C = f c + i g(..), H = o h(C), with gates i, o, f of what is read and H, and of C through peepholes."""
    (f, g, h), own, (hidden, cell) = layer.activations, layer.weights, before
    z, size = _added(state, read, _times(state, hidden, own.h)), own.hidden

    def gate(number: int, seen: str | None) -> str:
        part = _part(state, z, number, number + 1, size)
        peephole = None if own.peepholes is None or seen is None else state.scale(seen, own.peepholes[number])
        return f(_limited(state, layer, _added(state, part, peephole)))

    candidate = g(_limited(state, layer, _part(state, z, 3, 4, size)))
    if own.peepholes is None:
        gates = f(_limited(state, layer, _part(state, z, 0, 3, size)))
        enter, out, forget = (_part(state, gates, i, i + 1, size) for i in range(3))
    else:
        enter, forget = gate(0, cell), gate(2, cell)
    if layer.input_forget:
        forget = state.sum((enter,), (-1.0,), None, 1.0)
    kept = None if cell is None else state.multiply(forget, cell)
    cell = _added(state, kept, state.multiply(enter, candidate))
    if own.peepholes is not None:
        out = gate(1, cell)
    return state.multiply(out, h(cell)), cell


def _gru(state: Context, layer: Layer, read: str, before: State) -> tuple[str, ...]:
    """H = n + z (H - n), with gates z and r, and n of what is read and r H; or of r (H R + b), if that says so."""
    (f, g), own, [hidden] = layer.activations, layer.weights, before
    size = own.hidden
    late = layer.linear_before_reset
    weight = own.h if late else own.h[:, : 2 * size]
    bias = np.concatenate([np.zeros(2 * size), own.h_bias[2 * size :]]) if late else None
    product = _times(state, hidden, weight, bias)
    first = None if product is None else _part(state, product, 0, 2, size)
    gates = f(_limited(state, layer, _added(state, _part(state, read, 0, 2, size), first)))
    update, reset = (_part(state, gates, i, i + 1, size) for i in range(2))
    if late:
        late_bias = own.h_bias[2 * size :]
        second = (
            (state.scale(reset, late_bias) if late_bias.any() else None)
            if product is None
            else state.multiply(reset, _part(state, product, 2, 3, size))
        )
    else:
        second = None if hidden is None else state.affine(state.multiply(reset, hidden), own.h[:, 2 * size :])
    new = g(_limited(state, layer, _added(state, _part(state, read, 2, 3, size), second)))
    if hidden is None:
        return (state.multiply(new, state.sum((update,), (-1.0,), None, 1.0)),)
    apart = state.multiply(update, state.sum((hidden, new), (1.0, -1.0)))
    known = BOUNDED["tanh"] if layer.within_one else None
    return (state.sum((new, apart), (1.0, 1.0), known=known),)


def _rnn(state: Context, layer: Layer, read: str, before: State) -> tuple[str, ...]:
    [f], [hidden] = layer.activations, before
    return (f(_limited(state, layer, _added(state, read, _times(state, hidden, layer.weights.h)))),)


STEPS: dict[str, Step] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
