"""The bounds that interval arithmetic proves for a network's values, from its ONNX file and `mpc.range.x`.

The compiler proves the same of the integers it will really use, which the rounding of weights moves a little. What it
proves decides how many bits a value gets. Only the operators that make.py writes, with their settings, are known here.
"""

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper, numpy_helper


def proved_bounds(model: onnx.ModelProto) -> dict[str, float]:
    """The largest |output| of each layer with weights that interval arithmetic, pixel by pixel, allows."""
    constants = {one.name: numpy_helper.to_array(one).astype(float) for one in model.graph.initializer}
    [given] = [entry.value for entry in model.metadata_props if entry.key == "mpc.range.x"]
    shape = [1, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])]
    lo, hi = (np.full(shape, float(end)) for end in given.split(":"))
    bounds = {}
    for node in model.graph.node:
        settings = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        parameters = [constants[name] for name in node.input[1:]]
        match node.op_type:
            case "Conv" | "Gemm" | "BatchNormalization":
                weight, bias = _affine(parameters)
                plus, minus = np.maximum(weight, 0), np.minimum(weight, 0)
                lo, hi = (
                    _times(a, plus, settings) + _times(b, minus, settings) + bias.reshape(-1, *[1] * (lo.ndim - 2))
                    for a, b in ((lo, hi), (hi, lo))
                )
                bounds[node.name] = float(max(hi.max(), -lo.min()))
            case "MaxPool":
                lo, hi = (_windows(x, settings).max(axis=(4, 5)) for x in (lo, hi))
            case "Relu":
                lo, hi = np.maximum(lo, 0), np.maximum(hi, 0)
            case "Flatten":
                lo, hi = lo.reshape(1, -1), hi.reshape(1, -1)
    return bounds


def _affine(parameters: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias; those of a batch-norm (gain, shift, mean, variance) merged."""
    if len(parameters) == 2:
        return parameters[0], parameters[1]
    gain, shift, mean, variance = parameters
    weight = gain / np.sqrt(variance + 1e-5)
    return weight, shift - mean * weight


def _times(x: np.ndarray, weight: np.ndarray, settings: dict) -> np.ndarray:
    if weight.ndim == 1:  # a batch-norm's
        return x * weight[:, None, None]
    if weight.ndim == 2:
        return x @ weight.T
    return np.moveaxis(np.tensordot(_windows(x, settings), weight, axes=([1, 4, 5], [1, 2, 3])), 3, 1)


def _windows(x: np.ndarray, settings: dict) -> np.ndarray:
    """[1, channels, height, width, kernel, kernel], zeros around."""
    top, left, bottom, right = settings.get("pads", [0] * 4)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    down, across = settings["strides"]
    return sliding_window_view(padded, settings["kernel_shape"], axis=(2, 3))[:, :, ::down, ::across]
