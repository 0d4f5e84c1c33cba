"""Scales stay short, however many means and sixths a network has, and mobile networks give onnxruntime's answers."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.lowering.scales import MOST_ODD_BITS, even, is_even, log2, odd_bits
from mpc.errors import PlanError
from mpc.plan.cost import plan_cost
from mpc.plan.parse import parse_plan
from mpc.plan.verify import MAX_SCALE_BITS
from tests.support.graphs import node, save_model
from tests.support.mobile import NETWORKS, Builder, images, save
from tests.support.models import assert_agrees, encrypted, plaintext

ROOT = Path(__file__).resolve().parents[2]
RANGE = (-2.0, 2.0)


def _longest(compiled: Compiled) -> int:
    """Bits of the longest odd part of any scale."""
    return max(odd_bits(wire.scale) for wire in compiled.plan.wires)


@pytest.mark.parametrize(
    ("scale", "floor", "odd"),
    [(Fraction(1), 0, 1), (Fraction(9), 3, 4), (Fraction(1, 6), -3, 2), (Fraction(3 << 90, 5), 89, 3)],
)
def test_parts_of_a_scale(scale: Fraction, floor: int, odd: int) -> None:
    assert (log2(scale), even(scale), odd_bits(scale)) == (floor, Fraction(2) ** floor, odd)
    assert is_even(even(scale))
    assert is_even(scale) == (odd == 1)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_mobile_network(name: str, tmp_path: Path) -> None:
    """Calibrated, as deep networks have to be; within what the compiler expects."""
    path, x = save(name, tmp_path), images(6)
    compiled = compile_model(path, {"x": RANGE}, samples={"x": images(32, 1)})
    assert _longest(compiled) <= MOST_ODD_BITS
    [found], [right] = encrypted(compiled, {"x": x}), plaintext(path, {"x": x})
    off = float(np.sqrt(np.square(found - right).mean()))
    assert off <= 4 * compiled.errors["y"]
    assert np.abs(found - right).max() <= 5e-4 * np.abs(right).max()
    assert np.array_equal(found.argmax(axis=1), right.argmax(axis=1))


def test_twenty_hard_swishes_with_squeezes_between(tmp_path: Path) -> None:
    """Each squares the odd part of a scale that nothing shortens; the file once compiled for ever."""
    build, channels, side = Builder(1), 4, 3
    x = "x"
    for _ in range(20):
        x = build.squeeze(build.hard_swish(x), channels, "hard")
    build.head(x, channels)
    path = save_model(tmp_path, build.nodes, build.constants, ("batch", channels, side, side), opset=11)
    data = np.random.default_rng(2).uniform(1, 4, (8, channels, side, side)).astype(np.float32)
    compiled = compile_model(path, {"x": (-8.0, 8.0)}, samples={"x": data})
    assert _longest(compiled) <= 2 * MOST_ODD_BITS
    [found], [right] = encrypted(compiled, {"x": data}), plaintext(path, {"x": data})
    np.testing.assert_allclose(found, right, atol=2e-3)


def test_odd_factors_that_neither_a_weight_nor_a_truncation_takes_in(tmp_path: Path) -> None:
    """Seven fifths, eight elevenths: public, so nothing is multiplied; now and then a truncation evens them."""
    nodes, x = [], "x"
    constants = {"up": np.float32(7 / 5), "down": np.float32(8 / 11), "wide": np.array([-1, 2, 2])}
    constants["flat"] = np.array([-1, 4])
    for i in range(60):
        nodes += [
            node("Mul", [x, "up" if i % 2 else "down"], [f"m{i}"], f"m{i}"),
            node("Reshape", [f"m{i}", "flat" if i % 2 else "wide"], [f"r{i}"], f"r{i}"),
        ]
        x = f"r{i}"
    path = save_model(tmp_path, [*nodes, node("Relu", [x], ["y"])], constants)
    compiled = assert_agrees(path, {"x": np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)}, {"x": RANGE}, 1e-4)
    assert _longest(compiled) <= MOST_ODD_BITS + 6
    assert 1 <= sum(gate.kind == "truncate" for gate in compiled.plan.gates) <= 60 * 3 // MOST_ODD_BITS + 1


def test_a_mean_before_a_weight_costs_nothing_and_leaves_a_power_of_two(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1), node("MatMul", ["m", "w"], ["y"])]
    path = save_model(tmp_path, nodes, {"w": np.array([[0.3, -1.7]], np.float32)}, ("batch", 9))
    compiled = assert_agrees(path, {"x": np.linspace(-2, 2, 27, dtype=np.float32).reshape(3, 9)}, {"x": RANGE}, 1e-5)
    assert is_even(compiled.plan.wire[compiled.plan.outputs[0].wire].scale)
    assert "truncate" not in [gate.kind for gate in compiled.plan.gates]


@pytest.mark.parametrize("digits", [78, 80])
def test_a_plan_with_a_long_scale_is_refused(tmp_path: Path, digits: int) -> None:
    compiled = compile_model(save_model(tmp_path, [node("Relu", ["x"], ["y"])]), {"x": RANGE})
    content = json.loads(compiled.plan.canonical)
    for long in ("7" * digits, "1/" + "7" * digits):
        content["wires"][0]["scale"] = long
        with pytest.raises(PlanError, match=f"scale.*more than {MAX_SCALE_BITS} bits"):
            parse_plan(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("file", "rounds", "sent", "dealt"),
    [
        ("benchmarks/networks/sarda_s.onnx", 9, 18_608, 61_960),
        ("benchmarks/networks/minionn_m.onnx", 15, 134_305, 872_760),
        ("benchmarks/networks/lenet_c.onnx", 15, 199_115, 1_232_520),
        ("examples/mnist_mlp.onnx", 9, 4_496, 16_976),
        ("examples/breast_cancer_lr.onnx", 4, 52, 542),
    ],
)
def test_what_the_networks_of_the_readme_cost(file: str, rounds: int, sent: int, dealt: int) -> None:
    """At batch 1; sent to each peer, dealt to the corrected party."""
    cost = plan_cost(compile_model(ROOT / file).plan, 1)
    assert (cost.rounds, cost.sent, cost.dealt) == (rounds, sent, dealt)


LAYERS = {
    "bert_base": ({"layers": 1, "width": 96, "heads": 4, "hidden": 384, "tokens": 16}, (57, 424_088, 1_737_344)),
    "gpt2_small": (
        {"layers": 1, "width": 96, "heads": 4, "hidden": 384, "tokens": 16, "vocabulary": 64},
        (67, 520_784, 1_783_168),
    ),
    "resnet50": ({"blocks": (1, 1), "channels": (8, 16), "classes": 10, "image": 32}, (32, 174_160, 1_248_848)),
}
"""Sizes at which large networks are made small, and (rounds, bytes sent to each peer, bytes dealt) of one row."""


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_layer_of_each_large_network_costs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks/networks")
    big, (sizes, expected) = importlib.import_module("big"), LAYERS[name]
    path = tmp_path / "layer.onnx"
    onnx.save(big.make(replace(big.BIG[name], **sizes)), path)
    cost = plan_cost(compile_model(path).plan, 1)
    assert (cost.rounds, cost.sent, cost.dealt) == expected


@pytest.mark.parametrize("declared", [0.25, 4.0, 100.0])
def test_a_constant_beside_small_factors(declared: float, tmp_path: Path) -> None:
    """Squares times 2e-5, plus 1, as a local response normalisation has it: the factor is kept, and the 1 fits too."""
    path = save_model(
        tmp_path, [node("LRN", ["x"], ["y"], size=5, alpha=1e-4, beta=0.75, bias=1.0)], shape=("batch", 6, 3, 3)
    )
    x = np.random.default_rng(3).uniform(-declared, declared, (4, 6, 3, 3)).astype(np.float32)
    assert_agrees(path, {"x": x}, {"x": (-declared, declared)}, 1e-4 * declared)
