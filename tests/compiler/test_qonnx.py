"""QONNX's operators beside what they are defined to be: onnxruntime has none of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import Compiled, compile_model
from mpc.errors import ModelError
from tests.support.graphs import node
from tests.support.models import encrypted

DOMAIN = "qonnx.custom_op.general"
WIDE = 6.0
X = np.random.default_rng(3).uniform(-WIDE, WIDE, (40, 4)).astype(np.float32)
X[:8] = np.arange(-16, 16).reshape(8, 4) / 4  # halves of a scale of 1/2 among them
ROUNDINGS = {"ROUND": np.rint, "half_even": np.rint, "FLOOR": np.floor, "CEIL": np.ceil}


def save(folder: Path, nodes: list[onnx.NodeProto], domain: str = DOMAIN, **constants: object) -> Path:
    graph = helper.make_graph(
        nodes,
        "qonnx",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


def quant(folder: Path, scale: object, zero: object, bits: int, domain: str = DOMAIN, **attributes: object) -> Path:
    nodes = [node("Quant", ["x", "s", "z", "b"], ["y"], domain=domain, **attributes)]
    return save(folder, nodes, domain, s=scale, z=zero, b=bits)


def right(x: np.ndarray, scale: object, zero: object, ends: tuple[int, int], rounding: str = "ROUND") -> np.ndarray:
    unit, offset = np.asarray(scale, np.float64), np.asarray(zero, np.float64)
    return np.asarray((ROUNDINGS[rounding](np.clip(x / unit + offset, *ends)) - offset) * unit)


def answer(path: Path) -> tuple[np.ndarray, Compiled]:
    compiled = compile_model(path, {"x": (-WIDE, WIDE)})
    return encrypted(compiled, {"x": X})[0], compiled


ENDS = {(8, 1, 0): (-128, 127), (4, 1, 1): (-7, 7), (4, 1, 0): (-8, 7), (4, 0, 0): (0, 15), (2, 0, 1): (0, 2)}


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("bits", "signed", "narrow"), ENDS)
@pytest.mark.parametrize("zero", [0.0, 3.0])
def test_a_value_of_few_bits(zero: float, bits: int, signed: int, narrow: int, rounding: str, tmp_path: Path) -> None:
    """Of a scale that is a power of two, halves too."""
    path = quant(tmp_path, 0.5, zero, bits, signed=signed, narrow=narrow, rounding_mode=rounding)
    assert np.abs(answer(path)[0] - right(X, 0.5, zero, ENDS[bits, signed, narrow], rounding)).max() < 1e-5


@pytest.mark.parametrize("domain", ["finn.custom_op.general", "onnx.brevitas"])
def test_a_scale_for_each_column(domain: str, tmp_path: Path) -> None:
    scales = np.array([[0.3, 0.7, 0.013, 2.0]], np.float32)
    got = answer(quant(tmp_path, scales, np.zeros((1, 4)), 6, domain, signed=1, narrow=0))[0]
    off = np.abs(got - right(X, scales, 0, (-32, 31))) / scales
    assert off.max() < 1.001 and (off > 0.5).mean() < 0.02  # what lies on a step but for float32's rounding


@pytest.mark.parametrize("operator", ["BipolarQuant", "Quant"])
def test_one_bit_with_a_sign(operator: str, tmp_path: Path) -> None:
    if operator == "Quant":
        path = quant(tmp_path, 0.25, 0.0, 1, signed=1, narrow=0)
    else:
        path = save(tmp_path, [node("BipolarQuant", ["x", "s"], ["y"], domain=DOMAIN)], s=0.25)
    assert np.abs(answer(path)[0] - np.where(X >= 0, 0.25, -0.25)).max() < 1e-5


def test_a_network_whose_weights_are_quantised_where_they_are_stored(tmp_path: Path) -> None:
    """Its weights are constants then, and whole numbers behind a ReLU are not rounded again."""
    w = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)
    signed, unsigned = {"signed": 1, "narrow": 1, "domain": DOMAIN}, {"signed": 0, "narrow": 0, "domain": DOMAIN}
    nodes = [
        node("Quant", ["x", "one", "zero", "eight"], ["a"], name="first", **signed),
        node("Quant", ["w", "fine", "zero", "four"], ["v"], name="weights", **signed),
        node("BipolarQuant", ["signs", "fine"], ["g"], domain=DOMAIN),
        node("MatMul", ["a", "v"], ["m"]),
        node("Relu", ["m"], ["r"]),
        node("Quant", ["r", "fine", "zero", "four"], ["h"], name="second", **unsigned),
        node("Mul", ["h", "g"], ["y"]),
    ]
    constants = {"w": w, "one": 1.0, "fine": 0.25, "zero": 0.0, "four": 4, "eight": 8, "signs": np.array([1, -1, 0])}
    got, compiled = answer(save(tmp_path, nodes, **constants))
    inner = np.maximum(right(X, 1, 0, (-127, 127)) @ right(w, 0.25, 0, (-7, 7)), 0)
    assert np.abs(got - right(inner, 0.25, 0, (0, 15)) * [0.25, -0.25, 0.25]).max() < 1e-4
    assert sum(gate.kind == "step" for gate in compiled.plan.gates) <= 1


REFUSED = {
    "rounding": ({"rounding_mode": "HALF_UP"}, {}, "it rounds HALF_UP"),
    "bits": ({}, {"b": 2.5}, "bit width"),
    "many bits": ({}, {"b": 32}, "bit width"),
    "a scale of zero": ({}, {"s": 0.0}, "not positive"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, tmp_path: Path) -> None:
    attributes, constants, problem = REFUSED[name]
    nodes = [node("Quant", ["x", "s", "z", "b"], ["y"], domain=DOMAIN, signed=1, narrow=0, **attributes)]
    with pytest.raises(ModelError, match=problem) as caught:
        compile_model(save(tmp_path, nodes, **{"s": 1.0, "z": 0.0, "b": 4, **constants}), {"x": (-WIDE, WIDE)})
    assert caught.value.remedy
