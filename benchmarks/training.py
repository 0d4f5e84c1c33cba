"""How well training in fixed point learns MNIST: on the integers that parties compute, beside real numbers.

    python benchmarks/training.py FOLDER [--network lr,A,S] [--epochs 1] [--batch 128] [--rate 0.5] [--momentum 0]
                                  [--loss one_vs_all] [--seeds 1] [--measure STEPS] [--parties 2] [--link wan] [--json]

FOLDER has MNIST's four files (train-images-idx3-ubyte.gz, ..).  No process runs: a step's plan is read on integers in
the clear with coins of our own, which parties' results equal bit for bit; the float32 beside it sees the same batches
and begins with the same weights.  Rounds and bytes are the plan's, of one party to each other one, a step.

With --measure nothing is learned: a cluster of processes is started here, and so many steps on made-up rows are timed
behind two others, both phases together; --link puts lan, wan or MS:MBIT between all processes.  LeNet, with maximum
(lenet-max) or average pooling (lenet-mean), is for that alone; its bounds rest on two batches of FOLDER's rows, as it
is too deep for others.
"""

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "networks")]

from mpc.compiler.training.losses import LOSSES  # noqa: E402
from mpc.compiler.training.optimisers import SGD  # noqa: E402
from mpc.compiler.training.train import Training, compile_training  # noqa: E402
from mpc.field import P  # noqa: E402
from mpc.fixedpoint import encode  # noqa: E402
from mpc.interpret import reference  # noqa: E402
from mpc.plan.cost import plan_cost  # noqa: E402
from parties.local.relay import Link  # noqa: E402

Arrays = dict[str, np.ndarray]
NETWORKS = {
    "lr": (784, 10), "A": (784, 128, 128, 10), "S": (980, 100, 10), "lenet-max": (800, 500, 10),
    "lenet-mean": (800, 500, 10),
}  # fmt: skip
"""Sizes of full layers; S has a convolution and a ReLU before them: 5 filters of 5 x 5, stride 2, padding 2."""
IMAGE, FILTERS, KERNEL, STRIDE, PAD = 28, 5, 5, 2, 2
LENET = (20, 50)
"""Filters of its two convolutions, 5 x 5, each before a pooling of 2 x 2."""
SIDE = (IMAGE + 2 * PAD - KERNEL) // STRIDE + 1
CLASSES = 10


def load(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in 0 to 1, one row an image, and classes."""
    images, labels = (
        np.frombuffer(gzip.decompress((folder / f"{part}-{what}-ubyte.gz").read_bytes()), np.uint8, offset=offset)
        for what, offset in (("images-idx3", 16), ("labels-idx1", 8))
    )
    return images.reshape(len(labels), -1).astype(np.float32) / 255, labels


def network(name: str, seed: int) -> onnx.ModelProto:
    """Full layers with ReLU between, behind a convolution or not; weights as PyTorch's layers begin."""
    rng, constants, nodes, h, sizes = np.random.default_rng(seed), [], [], "x", NETWORKS[name]
    width: tuple[int, ...] = (sizes[0],)

    def constant(key: str, shape: tuple[int, ...], inputs: int) -> str:
        values = rng.uniform(-(inputs**-0.5), inputs**-0.5, shape)
        constants.append(numpy_helper.from_array(values.astype(np.float32), key))
        return key

    if name.startswith("lenet"):
        width, channels = (1, IMAGE, IMAGE), 1
        for i, filters in enumerate(LENET):
            seen = 25 * channels
            taken = [constant(f"k{i}", (filters, channels, 5, 5), seen), constant(f"c{i}", (filters,), seen)]
            nodes.append(helper.make_node("Conv", [h, *taken], [f"v{i}"], name=f"conv{i}", kernel_shape=[5, 5]))
            pool = {"kernel_shape": [2, 2], "strides": [2, 2], "name": f"pool{i}"}
            pooling = "MaxPool" if name == "lenet-max" else "AveragePool"
            nodes.append(helper.make_node(pooling, [f"v{i}"], [f"p{i}"], **pool))
            nodes.append(helper.make_node("Relu", [f"p{i}"], [f"q{i}"], name=f"relu of pool{i}"))
            h, channels = f"q{i}", filters
        nodes.append(helper.make_node("Flatten", [h], ["flat"], name="flat"))
        h = "flat"
    if name == "S":
        width = (1, IMAGE, IMAGE)
        filters = [constant("k", (FILTERS, 1, KERNEL, KERNEL), KERNEL**2), constant("c", (FILTERS,), KERNEL**2)]
        layer = {"kernel_shape": [KERNEL] * 2, "strides": [STRIDE] * 2, "pads": [PAD] * 4}
        nodes.append(helper.make_node("Conv", ["x", *filters], ["v"], name="conv", **layer))
        nodes.append(helper.make_node("Relu", ["v"], ["r"], name="relu"))
        nodes.append(helper.make_node("Flatten", ["r"], ["flat"], name="flat"))
        h = "flat"
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        read = [h, constant(f"w{i}", (inputs, outputs), inputs), constant(f"b{i}", (outputs,), inputs)]
        nodes.append(helper.make_node("Gemm", read, [f"z{i}"], name=f"fc{i}"))
        h = f"z{i}"
        if i < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [h], [f"h{i}"], name=f"relu{i}"))
            h = f"h{i}"
    ends = [
        helper.make_tensor_value_info(key, TensorProto.FLOAT, ["rows", *n])
        for key, n in (("x", width), (h, (sizes[-1],)))
    ]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def batches(x: np.ndarray, y: np.ndarray, size: int, seed: int) -> Iterator[Arrays]:
    """One epoch; a short last batch is left out."""
    order = np.random.default_rng(seed).permutation(len(x))
    for start in range(0, len(x) - size + 1, size):
        rows = order[start : start + size]
        yield {"x": x[rows], "target": np.eye(CLASSES, dtype=np.float32)[y[rows]]}


class OnIntegers:
    """The states' integers, as parties would hold them."""

    def __init__(self, training: Training, seed: int) -> None:
        self.training, self.plan = training, training.plan.bind(1)
        self.rng = np.random.default_rng(seed)
        self.states = reference.first_states(self.plan, training.weights)

    def step(self, feeds: Arrays) -> None:
        wires = {given.name: self.plan.wire[given.wire] for given in self.plan.inputs}
        given = {wires[name].name: encode(values, wires[name].scale) for name, values in feeds.items()}
        values = reference.evaluate(self.plan, {**self.training.weights, **self.states, **given}, self._coins)
        self.states = reference.next_states(self.plan, values)

    def _coins(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.integers(0, P, shape, dtype=np.uint64)

    def weights(self) -> Arrays:
        return self.training.parameters(self.states)


def patches(x: np.ndarray) -> np.ndarray:
    """What each filter sees, (rows, kernel elements, places)."""
    images = np.pad(x.reshape(len(x), IMAGE, IMAGE), ((0, 0), (PAD, PAD), (PAD, PAD)))
    seen = np.lib.stride_tricks.sliding_window_view(images, (KERNEL, KERNEL), (1, 2))[:, ::STRIDE, ::STRIDE]
    return np.ascontiguousarray(seen.reshape(len(x), SIDE**2, KERNEL**2).transpose(0, 2, 1))


def hidden(weights: Arrays, x: np.ndarray) -> list[np.ndarray]:
    """What each full layer reads, and the last sums."""
    found = [x]
    if "k" in weights:
        sums = weights["k"].reshape(FILTERS, -1) @ patches(x) + weights["c"].reshape(-1, 1)
        found = [np.maximum(sums, 0).reshape(len(x), -1)]
    layers = sum(name.startswith("w") for name in weights)
    for i in range(layers):
        z = found[-1] @ weights[f"w{i}"] + weights[f"b{i}"]
        found.append(np.maximum(z, 0) if i < layers - 1 else z)
    return found


class OnFloats:
    """float32 and the same updates, written by hand."""

    def __init__(self, training: Training, loss: str) -> None:
        states = training.step.states
        self.w = {s.name: np.asarray(s.values, np.float32) for s in states if not s.velocity}
        self.v = {name: np.zeros_like(values) for name, values in self.w.items()}
        self.momentum = np.float32(1 - 2.0 ** -next((s.finer for s in states if s.velocity), 0))
        self.rate, self.loss = np.float32(training.learning_rate), loss

    def step(self, feeds: Arrays) -> None:
        read = hidden(self.w, feeds["x"])
        g = self._predicted(read[-1]) - feeds["target"]
        g /= np.float32(len(g))
        gradients: Arrays = {}
        for i in reversed(range(len(read) - 1)):
            gradients |= {f"w{i}": read[i].T @ g, f"b{i}": g.sum(axis=0)}
            g = (g @ self.w[f"w{i}"].T) * (read[i] > 0)
        if "k" in self.w:
            back = g.reshape(len(g), FILTERS, -1)
            filters = np.einsum("nfp,nkp->fk", back, patches(feeds["x"]), optimize=True)
            gradients |= {
                "k": filters.reshape(self.w["k"].shape),
                "c": back.sum(axis=(0, 2)).reshape(self.w["c"].shape),
            }
        for name, gradient in gradients.items():
            self.v[name] = self.momentum * self.v[name] + gradient
            self.w[name] = self.w[name] - self.rate * self.v[name]

    def _predicted(self, z: np.ndarray) -> np.ndarray:
        if self.loss == "mse":
            return z
        if self.loss == "one_vs_all":
            return 1 / (1 + np.exp(-np.clip(z, -80, 80)))
        powers = np.exp(z - z.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def weights(self) -> Arrays:
        return self.w


def accuracy(weights: Arrays, x: np.ndarray, y: np.ndarray) -> float:
    return float((hidden(weights, x)[-1].argmax(axis=1) == y).mean())


def compare(given: argparse.Namespace, name: str, seed: int) -> Iterator[dict[str, object]]:
    """A row an epoch."""
    (x, y), test = load(given.folder, "train"), load(given.folder, "t10k")
    optimizer = SGD(given.rate, given.momentum)
    model, shape = network(name, seed), (-1, *([1, IMAGE, IMAGE] if name == "S" else [IMAGE**2]))
    training = compile_training(model, given.loss, optimizer, given.batch, {"x": (0, 1), "target": (0, 1)})
    cost, ways = plan_cost(training.plan), (OnIntegers(training, seed), OnFloats(training, given.loss))
    for epoch in range(given.epochs):
        start = time.perf_counter()
        for feeds in batches(x, y, given.batch, 1000 * seed + epoch):
            ways[0].step({**feeds, "x": feeds["x"].reshape(shape)})
            ways[1].step(feeds)
        found = [accuracy(way.weights(), *test) for way in ways]
        largest = max(float(np.abs(values).max()) for values in ways[0].weights().values())
        yield {
            "network": name, "seed": seed, "epoch": epoch + 1, "integers": found[0], "float32": found[1],
            "rounds": cost.rounds, "sent_bytes": cost.sent, "dealt_bytes": cost.dealt,
            "learning_rate": training.learning_rate, "largest_weight": largest,
            "seconds": round(time.perf_counter() - start, 1),
        }  # fmt: skip


def measure(given: argparse.Namespace, name: str) -> dict[str, object]:
    """Time steps in processes; nothing is trained."""
    from parties import Cluster

    x, y = load(given.folder, "train")
    shape = (-1, *([IMAGE**2] if name in ("lr", "A") else [1, IMAGE, IMAGE]))
    optimizer = SGD(given.rate, given.momentum)
    choices: dict[str, object] = {"loss": given.loss, "optimizer": optimizer, "batch": given.batch}
    if name.startswith("lenet"):
        choices["samples"] = x[: 2 * given.batch].reshape(shape), y[: 2 * given.batch]
    with Cluster.local(given.parties, link=Link.parse(given.link) if given.link else None) as cluster:
        trainer = cluster.trainer(network(name, 1), ranges={"x": (0, 1)}, **choices)
        cost = trainer.cost(len(x), measure=given.measure)
    return {
        "network": name, "parties": given.parties, "batch": given.batch, "link": given.link or "none",
        "load": os.getloadavg()[0], "rounds": cost.step.rounds,
        "sent_bytes": cost.step.sent, "dealt_bytes": cost.step.dealt, "step_s": cost.step_s, "epoch_s": cost.seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="lr,A", type=lambda text: text.split(","))
    parser.add_argument("--loss", default="one_vs_all", choices=sorted(LOSSES))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--measure", type=int, default=0, metavar="STEPS", help="Time steps in processes instead.")
    parser.add_argument("--parties", type=int, default=2)
    parser.add_argument("--link", help="lan, wan or MS:MBIT between all processes, with --measure.")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if any(name.startswith("lenet") for name in given.network) and not given.measure:
        parser.error("LeNet is measured, and no float32 of it is here: add --measure 5")
    for name in given.network:
        if given.measure:
            show(given, measure(given, name))
            continue
        for seed in range(1, given.seeds + 1):
            for row in compare(given, name, seed):
                show(given, row)


def show(given: argparse.Namespace, row: dict[str, object]) -> None:
    print(json.dumps(row) if given.json else "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
