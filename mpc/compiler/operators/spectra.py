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
    own = state.size(shape, axis, "a transform")
    size = 2 * (own - 1) if inverse and half else own
    if length is not None:
        size = int(length.reshape(-1)[0])
    weight = _inverse_of_half(state, own, size) if inverse and half else _transform(own, size, inverse, half)
    kept, reals = weight.shape[2:]
    moved, back = state.last(x, [axis, len(shape) - 1])
    lead = state.shapes[moved][:-2]
    flat = state.reshape(moved, (*lead, own * parts))
    found = state.affine(flat, np.ascontiguousarray(weight[:, :parts]).reshape(own * parts, kept * reals))
    state.transpose(state.reshape(found, (*lead, kept, reals)), back, node.output[0])


def _transform(own: int, size: int, inverse: bool, half: bool) -> np.ndarray:
    """Return (numbers, real and imaginary part, frequencies, real and imaginary part); those behind `size` are left."""
    kept = size // 2 + 1 if half else size
    sign = 1.0 if inverse else -1.0
    turns = np.exp(sign * 2j * np.pi * np.outer(np.arange(min(own, size)), np.arange(kept)) / size)
    turns = np.concatenate([turns, np.zeros((max(own - size, 0), kept))]) / (size if inverse else 1)
    weight = np.empty((own, 2, kept, 2))
    weight[:, 0, :, 0] = weight[:, 1, :, 1] = turns.real
    weight[:, 0, :, 1], weight[:, 1, :, 0] = turns.imag, -turns.imag
    return weight


def _inverse_of_half(state: Context, own: int, size: int) -> np.ndarray:
    """Return (frequencies, real and imaginary part, numbers, 1): half a spectrum is that of real numbers."""
    if size < 1 or size // 2 + 1 != own:  # of others onnxruntime makes what is no inverse
        raise state.origin.refuse(
            f"the inverse of {own} frequencies to {size} numbers",
            remedy=f"give it the {size // 2 + 1} frequencies of half a spectrum, or a length of {2 * own - 2} or "
            f"{2 * own - 1}",
        )
    ones = np.eye(own)
    return np.stack([np.fft.irfft(part * ones, size, axis=1) for part in (1, 1j)], 1)[..., None]


@handles("STFT")
def stft(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute the transform of parts of a signal, which may overlap, each times a public window."""
    x, [step] = node.input[0], state.integers(node.input[1], "the step")
    window, length = state.optional(node, 2, "the window"), state.optional(node, 3, "the length")
    shape = state.secret(x)
    whole, parts = (state.size(shape, axis, "a signal") for axis in (1, 2))
    size = int(length.reshape(-1)[0]) if length is not None else whole if window is None else window.size
    if step < 1 or not 0 < size <= whole or (window is not None and window.size != size):
        raise state.origin.refuse(
            f"parts of {size} numbers, {step} apart, of a signal of {whole}"
            + (f", and a window of {window.size}" if window is not None else ""),
            remedy="give a window as long as a part, a part no longer than the signal, and a step of 1 or more",
        )
    starts = np.arange(0, whole - size + 1, step)
    taken = state.take(x, 1, (starts[:, None] + np.arange(size)).reshape(-1).tolist())
    rows = state.reshape(taken, (shape[0], len(starts), size * parts))
    weight = _transform(size, size, inverse=False, half=bool(settings.get("onesided", 1)))
    weight = weight * (1.0 if window is None else window.astype(np.float64).reshape(-1, 1, 1, 1))
    kept = weight.shape[2]
    found = state.affine(rows, np.ascontiguousarray(weight[:, :parts]).reshape(size * parts, kept * 2))
    state.reshape(found, (shape[0], len(starts), kept, 2), node.output[0])
