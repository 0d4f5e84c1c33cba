"""Discrete Fourier transforms: a product with a matrix of sines and cosines."""

from __future__ import annotations

import numpy as np

from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.registry import handles


@handles("DFT")
def dft(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute the transform along one axis; real and imaginary parts are on the last one."""
    x = node.input[0]
    shape = state.secret(x)
    length, given = state.optional(node, 1, "the length"), state.optional(node, 2, "the axis")
    inverse, half = bool(settings.get("inverse", 0)), bool(settings.get("onesided", 0))
    axis = settings.get("axis", 1 if state.opset < 20 else -2) if given is None else int(given.reshape(-1)[0])
    axis, parts = state.axis(axis, shape), state.size(shape, -1, "real and imaginary parts")
    if inverse and half:
        raise state.origin.refuse(
            "the inverse of half a spectrum", attribute="onesided", remedy="give it the whole spectrum"
        )
    own = state.size(shape, axis, "a transform")
    size = own if length is None else int(length.reshape(-1)[0])
    kept = size // 2 + 1 if half else size
    sign = 1.0 if inverse else -1.0
    turns = np.exp(sign * 2j * np.pi * np.outer(np.arange(min(own, size)), np.arange(kept)) / size)
    turns = np.concatenate([turns, np.zeros((max(own - size, 0), kept))]) / (size if inverse else 1)
    weight = np.empty((own, 2, kept, 2))
    weight[:, 0, :, 0] = weight[:, 1, :, 1] = turns.real
    weight[:, 0, :, 1], weight[:, 1, :, 0] = turns.imag, -turns.imag
    moved, back = state.last(x, [axis, len(shape) - 1])
    lead = state.shapes[moved][:-2]
    flat = state.reshape(moved, (*lead, own * parts))
    found = state.affine(flat, np.ascontiguousarray(weight[:, :parts]).reshape(own * parts, 2 * kept))
    state.transpose(state.reshape(found, (*lead, kept, 2)), back, node.output[0])
