"""A model in PyTorch, made from its ONNX file: a second opinion on what plaintext inference costs.

Only the operators of the benchmark networks and their like; the rest is not compared.  PyTorch is never a
dependency: it is imported here, if it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from mpc.compiler.onnx.load import load_model
from mpc.errors import ModelError

if TYPE_CHECKING:
    import onnx

Settings = Mapping[str, Any]
Step = tuple[Callable[..., Any], list[str], str]


class TorchModel:
    """A model's graph as a PyTorch module, operator by operator.

    Raises:
        ImportError: PyTorch is not installed.
        ModelError: an operator or a setting that is not known here.
    """

    def __init__(self, path: Path) -> None:
        import torch

        self._torch = torch
        model = load_model(path)
        self._constants = {
            one.name: torch.tensor(np.array(numpy_helper.to_array(one))) for one in model.graph.initializer
        }
        self._outputs = [out.name for out in model.graph.output]
        self._steps = [self._step(node) for node in model.graph.node]

    def with_threads(self, threads: int) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
        """Return the model as a function of its inputs."""
        torch = self._torch

        def answer(feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            with torch.inference_mode():
                values = {**self._constants, **{name: torch.from_numpy(array) for name, array in feeds.items()}}
                for function, reads, writes in self._steps:
                    values[writes] = function(*(values[name] for name in reads))
            return [values[name].numpy() for name in self._outputs]

        return answer

    def _step(self, node: onnx.NodeProto) -> Step:
        maker = _MAKERS.get(node.op_type)
        if maker is None or node.domain not in ("", "ai.onnx") or "" in node.input or len(node.output) != 1:
            known = ", ".join(sorted(_MAKERS))
            raise ModelError(f"PyTorch is compared for graphs of {known} only; there is {node.op_type}")
        settings = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        return maker(self._torch, settings), list(node.input), node.output[0]


def _padding(settings: Settings) -> list[int]:
    """Return pads that are equal on both sides of each axis, as PyTorch has them."""
    pads = list(settings.get("pads", [0, 0, 0, 0]))
    half = len(pads) // 2
    automatic = settings.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    if automatic or pads[:half] != pads[half:] or half != 2:
        raise ModelError("PyTorch is compared for 2 axes with equal padding on both sides only")
    return pads[:half]


def _convolution(torch: Any, settings: Settings) -> Callable[..., Any]:
    padding = _padding(settings)
    stride, dilation = list(settings.get("strides", [1, 1])), list(settings.get("dilations", [1, 1]))
    groups = settings.get("group", 1)

    def apply(x: Any, weight: Any, bias: Any = None) -> Any:
        return torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)

    return apply


def _maximum(torch: Any, settings: Settings) -> Callable[..., Any]:
    padding, kernel = _padding(settings), list(settings["kernel_shape"])
    stride, dilation = list(settings.get("strides", [1, 1])), list(settings.get("dilations", [1, 1]))
    rounding = bool(settings.get("ceil_mode", 0))
    return lambda x: torch.nn.functional.max_pool2d(x, kernel, stride, padding, dilation, rounding)


def _average(torch: Any, settings: Settings) -> Callable[..., Any]:
    padding, kernel = _padding(settings), list(settings["kernel_shape"])
    stride, rounding = list(settings.get("strides", [1, 1])), bool(settings.get("ceil_mode", 0))
    counted = bool(settings.get("count_include_pad", 0))
    return lambda x: torch.nn.functional.avg_pool2d(x, kernel, stride, padding, rounding, counted)


def _gemm(torch: Any, settings: Settings) -> Callable[..., Any]:
    alpha, beta = settings.get("alpha", 1.0), settings.get("beta", 1.0)
    if (alpha, beta, settings.get("transA", 0)) != (1.0, 1.0, 0):
        raise ModelError("PyTorch is compared for Gemm without factors only")
    transposed = bool(settings.get("transB", 0))

    def apply(x: Any, weight: Any, bias: Any = None) -> Any:
        return torch.nn.functional.linear(x, weight if transposed else weight.t(), bias)

    return apply


def _normalisation(torch: Any, settings: Settings) -> Callable[..., Any]:
    epsilon = settings.get("epsilon", 1e-5)

    def apply(x: Any, gain: Any, shift: Any, mean: Any, variance: Any) -> Any:
        return torch.nn.functional.batch_norm(x, mean, variance, gain, shift, False, 0.0, epsilon)

    return apply


def _reshape(torch: Any, settings: Settings) -> Callable[..., Any]:
    def apply(x: Any, shape: Any) -> Any:
        return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())])

    return apply


def _flatten(torch: Any, settings: Settings) -> Callable[..., Any]:
    if settings.get("axis", 1) != 1:
        raise ModelError("PyTorch is compared for Flatten behind the batch only")
    return lambda x: x.flatten(1)


_MAKERS: dict[str, Callable[[Any, Settings], Callable[..., Any]]] = {
    "Add": lambda torch, _: torch.add,
    "AveragePool": _average,
    "BatchNormalization": _normalisation,
    "Conv": _convolution,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "MatMul": lambda torch, _: torch.matmul,
    "MaxPool": _maximum,
    "Relu": lambda torch, _: torch.relu,
    "Reshape": _reshape,
    "Sigmoid": lambda torch, _: torch.sigmoid,
}
