"""What the benchmark networks are, and weights to start from or to measure with.  Needs numpy only: peers' own
environments read it too."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEED = 1


@dataclass(frozen=True)
class Network:
    file: str
    definition: str  # conv(in, out, kernel, stride, padding); MaxPool kernel/stride
    image: tuple[int, ...] = (1, 28, 28)


@dataclass(frozen=True)
class Layer:
    kind: str
    name: str
    sizes: tuple[int, ...]


NETWORKS = {
    "S": Network("sarda_s.onnx", "conv(1,5,5,2,2), ReLU, FC 980-100, ReLU, FC 100-10"),
    "M": Network(
        "minionn_m.onnx",
        "conv(1,16,5,1,0), MaxPool 2/2, ReLU, conv(16,16,5,1,0), MaxPool 2/2, ReLU, FC 256-100, ReLU, FC 100-10",
    ),
    "C": Network(
        "lenet_c.onnx",
        "conv(1,20,5,1,0), MaxPool 2/2, ReLU, conv(20,50,5,1,0), MaxPool 2/2, ReLU, FC 800-500, ReLU, FC 500-10",
    ),
    "alexnet": Network(
        "alexnet_cifar.onnx",
        "conv(3,96,11,4,10), MaxPool 3/2, ReLU, BN, conv(96,256,5,1,1), MaxPool 3/2, ReLU, BN, "
        "conv(256,384,3,1,1), ReLU, conv(384,384,3,1,1), ReLU, conv(384,256,3,1,1), ReLU, "
        "FC 256-256, ReLU, FC 256-256, ReLU, FC 256-10",
        image=(3, 32, 32),
    ),
}
EXISTING = {
    "A": Network("mnist_mlp.onnx", "FC 784-128, ReLU, FC 128-128, ReLU, FC 128-10", image=(784,)),
    "L": Network("breast_cancer_lr.onnx", "FC 30-1, sigmoid", image=(30,)),
}


def parse(definition: str) -> list[Layer]:
    """The layers in order, named conv1, maxpool1 ...; with the Flatten that comes before the first FC."""
    layers: list[Layer] = []
    seen: Counter[str] = Counter()
    channels = 0
    for part in definition.split(", "):
        kind, sizes = part.split("(")[0].split(" ")[0], tuple(int(digits) for digits in re.findall(r"\d+", part))
        seen[kind] += 1
        if kind == "FC" and seen[kind] == 1:
            layers.append(Layer("flatten", "flatten", ()))
        if kind == "conv":
            channels = sizes[1]
        layers.append(Layer(kind, f"{kind.lower()}{seen[kind]}", (channels,) if kind == "BN" else sizes))
    return layers


def weight_shape(layer: Layer) -> tuple[int, ...]:
    """Of a convolution or a full layer: outputs first."""
    inputs, outputs, *kernel = layer.sizes[:3]
    return (outputs, inputs, *kernel * 2)


def initial_weights(layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """Kaiming's scale for weights, zero biases; batch-norms as a trained network might have them."""
    rng = np.random.default_rng(SEED)
    weights: dict[str, np.ndarray] = {}
    for layer in layers:
        if layer.kind in ("conv", "FC"):
            shape = weight_shape(layer)
            deviation = math.sqrt(2 / math.prod(shape[1:]))
            weights[f"{layer.name}.weight"] = rng.standard_normal(shape) * deviation
            weights[f"{layer.name}.bias"] = np.zeros(shape[0])
        elif layer.kind == "BN":
            weights[f"{layer.name}.weight"] = rng.normal(1, 0.1, layer.sizes)
            weights[f"{layer.name}.bias"] = rng.normal(0, 0.1, layer.sizes)
            weights[f"{layer.name}.mean"] = rng.normal(0, 0.1, layer.sizes)
            weights[f"{layer.name}.var"] = rng.uniform(0.5, 1.5, layer.sizes)
    return {name: array.astype(np.float32) for name, array in weights.items()}


def random_weights(layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """As PyTorch's layers begin: uniform, weights and biases within 1 / sqrt(inputs of one output)."""
    rng = np.random.default_rng(SEED)
    weights: dict[str, np.ndarray] = {}
    for layer in layers:
        if layer.kind in ("conv", "FC"):
            shape = weight_shape(layer)
            limit = 1 / math.sqrt(math.prod(shape[1:]))
            weights[f"{layer.name}.weight"] = rng.uniform(-limit, limit, shape).astype(np.float32)
            weights[f"{layer.name}.bias"] = rng.uniform(-limit, limit, shape[0]).astype(np.float32)
    return weights


def random_input(network: Network, batch: int) -> np.ndarray:
    """Rows in [0, 1), the same for everybody who measures."""
    return np.random.default_rng(SEED + 1).random((batch, *network.image), dtype=np.float32)


def products(network: Network) -> int:
    """Multiplications of one row in its convolutions and full layers, counted as the definition has them."""
    found, size = 0, network.image[-1]
    for layer in parse(network.definition):
        if layer.kind == "conv":
            inputs, outputs, kernel, stride, padding = layer.sizes
            size = (size + 2 * padding - kernel) // stride + 1
            found += size**2 * inputs * outputs * kernel**2
        elif layer.kind == "MaxPool":
            size = (size - layer.sizes[0]) // layer.sizes[1] + 1
        elif layer.kind == "FC":
            found += math.prod(layer.sizes)
    return found
