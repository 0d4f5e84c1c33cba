"""Mobile networks as exporters write them, with their real structure and narrow layers: weights are drawn, He's way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.support.graphs import node, save_model

CHANNELS, SIDE = 3, 16


class Builder:
    """Nodes and constants so far; every method adds a layer and gives the name of what it writes."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, operator: str, *reads: str, **attributes: object) -> str:
        out = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(node(operator, reads, [out], out, **attributes))
        return out

    def constant(self, value: object, kind: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(value, dtype=kind)
        return name

    def conv(self, x: str, before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        """A convolution and its batch-norm, as exporters that do not fold write them."""
        fan = before // groups * kernel**2
        weight = self.rng.normal(size=(after, before // groups, kernel, kernel)) * (2 / fan) ** 0.5
        pads = [kernel // 2] * 4
        name = self.add("Conv", x, self.constant(weight), pads=pads, strides=[stride] * 2, group=groups)
        draw = self.rng.uniform
        statistics = (draw(0.7, 1.2, after), draw(-0.2, 0.3, after), draw(-0.1, 0.1, after), draw(0.6, 1.4, after))
        return self.add("BatchNormalization", name, *map(self.constant, statistics))

    def dense(self, x: str, before: int, after: int) -> str:
        weight = self.rng.normal(size=(before, after)) / before**0.5
        return self.add("Gemm", x, self.constant(weight), self.constant(self.rng.normal(size=after) * 0.1))

    def clip(self, x: str, low: float, high: float) -> str:
        return self.add("Clip", x, self.constant(low), self.constant(high))

    def relu6(self, x: str) -> str:
        return self.clip(x, 0, 6)

    def hard_sigmoid(self, x: str) -> str:
        """clip(x + 3, 0, 6) / 6, node by node."""
        return self.add("Div", self.clip(self.add("Add", x, self.constant(3)), 0, 6), self.constant(6))

    def hard_swish(self, x: str) -> str:
        """x clip(x + 3, 0, 6) / 6, node by node, as opset 11 has it."""
        inner = self.clip(self.add("Add", x, self.constant(3)), 0, 6)
        return self.add("Div", self.add("Mul", x, inner), self.constant(6))

    def swish(self, x: str) -> str:
        return self.add("Mul", x, self.add("Sigmoid", x))

    def squeeze(self, x: str, channels: int, gate: str) -> str:
        """A squeeze-and-excite block, its gate hard or a logistic function."""
        pooled = self.add("GlobalAveragePool", x)
        inner = max(4, channels // 4)
        first = self.conv(pooled, channels, inner)
        first = self.add("Relu", first) if gate == "hard" else self.swish(first)
        second = self.conv(first, inner, channels)
        return self.add("Mul", x, self.hard_sigmoid(second) if gate == "hard" else self.add("Sigmoid", second))

    def head(self, x: str, channels: int) -> None:
        flat = self.add("Flatten", self.add("GlobalAveragePool", x))
        last = self.dense(flat, channels, 5)
        self.nodes.append(node("Identity", [last], ["y"], "end"))

    def save(self, folder: Path) -> Path:
        return save_model(folder, self.nodes, self.constants, ("batch", CHANNELS, SIDE, SIDE), opset=13)


def mobilenet_v2(build: Builder) -> None:
    x, width = build.relu6(build.conv("x", CHANNELS, 8, 3, 2)), 8
    for after, stride, factor in ((8, 1, 1), (12, 2, 4), (12, 1, 4), (16, 2, 4), (16, 1, 4), (16, 1, 4)):
        y = build.relu6(build.conv(x, width, width * factor))
        y = build.relu6(build.conv(y, width * factor, width * factor, 3, stride, width * factor))
        y = build.conv(y, width * factor, after)
        x, width = (build.add("Add", x, y) if stride == 1 and after == width else y), after
    build.head(build.relu6(build.conv(x, width, 24)), 24)


def mobilenet_v3(build: Builder) -> None:
    x, width = build.hard_swish(build.conv("x", CHANNELS, 8, 3, 2)), 8
    blocks = ((8, 1, 2, 1, 0), (12, 2, 4, 0, 0), (12, 1, 4, 0, 0), (16, 2, 4, 1, 1)) + ((16, 1, 4, 1, 1),) * 7
    for after, stride, factor, squeezes, swishes in blocks:
        bend = build.hard_swish if swishes else lambda y: build.add("Relu", y)
        inner = width * factor
        y = bend(build.conv(x, width, inner))
        y = bend(build.conv(y, inner, inner, 5 if squeezes else 3, stride, inner))
        y = build.squeeze(y, inner, "hard") if squeezes else y
        y = build.conv(y, inner, after)
        x, width = (build.add("Add", x, y) if stride == 1 and after == width else y), after
    build.head(build.hard_swish(build.conv(x, width, 24)), 24)


def efficientnet(build: Builder) -> None:
    x, width = build.swish(build.conv("x", CHANNELS, 8, 3, 2)), 8
    for after, stride, factor in ((8, 1, 1), (12, 2, 4), (12, 1, 4), (16, 2, 4), (16, 1, 4)):
        inner = width * factor
        y = build.swish(build.conv(x, width, inner)) if factor > 1 else x
        y = build.swish(build.conv(y, inner, inner, 3, stride, inner))
        y = build.conv(build.squeeze(y, inner, "soft"), inner, after)
        x, width = (build.add("Add", x, y) if stride == 1 and after == width else y), after
    build.head(build.swish(build.conv(x, width, 24)), 24)


def ghostnet(build: Builder) -> None:
    def ghost(x: str, before: int, after: int, *, bends: bool) -> str:
        half = after // 2
        first = build.conv(x, before, half)
        first = build.add("Relu", first) if bends else first
        second = build.conv(first, half, half, 3, 1, half)
        second = build.add("Relu", second) if bends else second
        return build.add("Concat", first, second, axis=1)

    x, width = build.add("Relu", build.conv("x", CHANNELS, 8, 3, 2)), 8
    blocks = ((8, 1, 8, 0), (12, 2, 24, 0), (12, 1, 36, 1), (16, 2, 36, 1), (16, 1, 48, 1))
    for after, stride, inner, squeezes in blocks:
        y = ghost(x, width, inner, bends=True)
        y = build.conv(y, inner, inner, 3, stride, inner) if stride > 1 else y
        y = build.squeeze(y, inner, "hard") if squeezes else y
        y = ghost(y, inner, after, bends=False)
        if stride > 1 or after != width:
            x = build.conv(build.conv(x, width, width, 3, stride, width), width, after)
        x, width = build.add("Add", x, y), after
    build.head(build.add("Relu", build.conv(x, width, 24)), 24)


def shufflenet(build: Builder) -> None:
    x, width = build.add("Relu", build.conv("x", CHANNELS, 8, 3, 2)), 8
    for _ in range(3):
        half, side = width // 2, SIDE // 2
        sizes = build.constant([half, half], np.int64)
        left, right = (f"part_{len(build.nodes)}_{i}" for i in (0, 1))
        build.nodes.append(node("Split", [x, sizes], [left, right], left, axis=1))
        y = build.add("Relu", build.conv(right, half, half))
        y = build.add("Relu", build.conv(build.conv(y, half, half, 3, 1, half), half, half))
        joined = build.add("Concat", left, y, axis=1)
        split = build.add("Reshape", joined, build.constant([-1, 2, half, side, side], np.int64))
        turned = build.add("Transpose", split, perm=[0, 2, 1, 3, 4])
        x = build.add("Reshape", turned, build.constant([-1, width, side, side], np.int64))
    pooled = build.add("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    build.head(build.add("Relu", build.conv(pooled, width, 24)), 24)


NETWORKS = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet": efficientnet,
    "ghostnet": ghostnet,
    "shufflenet": shufflenet,
}


def save(name: str, folder: Path, seed: int = 3) -> Path:
    """One of them as a model file."""
    build = Builder(seed)
    NETWORKS[name](build)
    return build.save(folder)


def images(rows: int, seed: int = 7) -> np.ndarray:
    """Smooth images with values in [-2, 2], as after the usual normalisation."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-2, 2, (rows, CHANNELS, SIDE // 4, SIDE // 4)).repeat(4, axis=2).repeat(4, axis=3)
    return np.clip(coarse + rng.normal(size=coarse.shape) * 0.2, -2, 2).astype(np.float32)
