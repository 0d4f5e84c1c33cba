"""Makes the benchmark networks as ONNX files, and prints what they are good for and what bounds they have.

    python benchmarks/networks/make.py --mnist DIR [--only S,M,C,alexnet,L,A] [--out DIR]
    python benchmarks/networks/make.py --random [--only A,S,C,L] [--out DIR]

S, M and C are trained on MNIST and written beside this file; DIR holds the four IDX files, gzipped. alexnet has random
weights and, being 15 MB, goes to made/, which git ignores. --out sends all of them elsewhere. A and L exist already:
examples/train.py makes them, here they are only measured.

--random writes the same networks with random weights to made/, as random_a.onnx and so on: what a network costs does
not depend on what it has learnt, and so nobody needs MNIST to measure. benchmarks/peers/ measures these.

Training takes PyTorch, which the project does not depend on; any recent build without a GPU will do:

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install numpy onnx onnxruntime

Without PyTorch, --random and --only alexnet,L,A still work. Seeds are fixed and training has one thread, so on one
machine a second run writes the same files; another PyTorch or processor may sum in another order, and training
amplifies that.

As in examples/train.py, small weights make the runtime's proofs, and hence its work, cheaper: hence the weight decay.
"""

import argparse
import gzip
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from bounds import proved_bounds
from definitions import EXISTING, NETWORKS, SEED, Layer, Network, initial_weights, parse, random_weights
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
OPSET = 17
IR_VERSION = 8  # what opset 17 needs; every onnxruntime since 1.12 reads it

HELD_OUT = 5000  # the last of the 60,000 training images: epochs and decay were chosen by these, not by the test images
BATCH = 128
RATE = 1.5e-3


@dataclass(frozen=True)
class Recipe:
    """decay is decoupled, as in AdamW; times the rate, per step. at_least: a lower test accuracy is refused."""

    epochs: int
    decay: float
    at_least: float


RECIPES = {"S": Recipe(24, 0.5, 0.975), "M": Recipe(12, 0.5, 0.985), "C": Recipe(12, 1.0, 0.988)}


# --- training -----------------------------------------------------------------------------------------------------


def load_mnist(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [n, 1, 28, 28] in [0, 1], and labels."""
    images = _read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    return (images[:, None] / 255).astype(np.float32), _read_idx(folder / f"{part}-labels-idx1-ubyte.gz")


def _read_idx(path: Path) -> np.ndarray:
    """IDX: two zero bytes, the type (8: uint8), the number of dimensions, each dimension big-endian, the data."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path.name} is no IDX file of bytes")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def train(network: Network, recipe: Recipe, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """AdamW on the cross entropy; the rate falls to zero along a half cosine. Biases do not decay."""
    import torch
    from torch.nn import functional

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    layers = parse(network.definition)
    weights = {name: torch.tensor(array, requires_grad=True) for name, array in initial_weights(layers).items()}

    def logits(x: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            own = [array for name, array in weights.items() if name.startswith(f"{layer.name}.")]
            match layer.kind:
                case "conv":
                    x = functional.conv2d(x, *own, stride=layer.sizes[3], padding=layer.sizes[4])
                case "FC":
                    x = functional.linear(x, *own)
                case "MaxPool":
                    x = functional.max_pool2d(x, *layer.sizes)
                case "ReLU":
                    x = functional.relu(x)
                case "flatten":
                    x = x.flatten(1)
        return x

    groups = [
        {"params": [array for array in weights.values() if array.ndim > 1], "weight_decay": recipe.decay},
        {"params": [array for array in weights.values() if array.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    steps = recipe.epochs * math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    x, y = torch.tensor(images), torch.tensor(labels.astype(np.int64))
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(logits(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return {name: array.detach().numpy() for name, array in weights.items()}


# --- ONNX ---------------------------------------------------------------------------------------------------------


def to_onnx(network: Network, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """One node a layer, each output named after its node; Gemm weights stored [out, in], as torch exports them."""
    layers = parse(network.definition)
    output = "probability" if layers[-1].kind == "sigmoid" else "logits"
    columns = next(layer.sizes[1] for layer in reversed(layers) if layer.kind == "FC")
    nodes, wire = [], "x"
    for layer in layers:
        reads = [wire, *(name for name in weights if name.startswith(f"{layer.name}."))]
        wire = output if layer is layers[-1] else layer.name
        operator, settings = _operator(layer)
        nodes.append(helper.make_node(operator, reads, [wire], name=layer.name, **settings))
    graph = helper.make_graph(
        nodes,
        Path(network.file).stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *network.image])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", columns])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made_by = "benchmarks/networks/make.py"
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name=made_by)
    helper.set_model_props(model, {"mpc.range.x": "0:1"})
    onnx.checker.check_model(model, full_check=True)
    return model


def _operator(layer: Layer) -> tuple[str, dict]:
    match layer.kind:
        case "conv":
            _, _, kernel, stride, padding = layer.sizes
            return "Conv", {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}
        case "MaxPool":
            kernel, stride = layer.sizes
            return "MaxPool", {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}
        case "FC":
            return "Gemm", {"transB": 1}
        case "BN":
            return "BatchNormalization", {}
        case "ReLU":
            return "Relu", {}
        case "sigmoid":
            return "Sigmoid", {}
        case "flatten":
            return "Flatten", {}
    raise SystemExit(f"no layer is called {layer.kind}")


def save(model: onnx.ModelProto, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def accuracy(model: onnx.ModelProto, x: np.ndarray, labels: np.ndarray) -> float:
    return float((run(model, x).argmax(axis=1) == labels).mean())


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [result] = session.run(None, {"x": x})
    return result


# --- the whole ----------------------------------------------------------------------------------------------------


def describe(name: str, network: Network, model: onnx.ModelProto) -> None:
    parameters = sum(math.prod(one.dims) for one in model.graph.initializer)
    print(f"{name}: {network.definition}\n  {network.file}: {parameters:,} parameters")
    for layer, bound in proved_bounds(model).items():
        print(f"  {layer}: |output| <= {bound:.4g} = 2^{math.log2(bound):.2f}", flush=True)


def make_trained(name: str, mnist: Path, out: Path) -> None:
    network, recipe, began = NETWORKS[name], RECIPES[name], time.monotonic()
    x, y = load_mnist(mnist, "train")
    model = to_onnx(network, train(network, recipe, x[:-HELD_OUT], y[:-HELD_OUT]))
    print(f"{name}: trained in {time.monotonic() - began:.0f} s")
    describe(name, network, model)
    print(f"  accuracy: {accuracy(model, x[-HELD_OUT:], y[-HELD_OUT:]):.2%} of the {HELD_OUT:,} held out")
    reached = accuracy(model, *load_mnist(mnist, "t10k"))
    print(f"  accuracy: {reached:.2%} of the test images", flush=True)
    if reached < recipe.at_least:
        raise SystemExit(f"{name} should reach {recipe.at_least:.2%}; nothing of it was written")
    save(model, out / network.file)


def make_random(name: str, out: Path) -> None:
    network = NETWORKS[name]
    model = to_onnx(network, initial_weights(parse(network.definition)))
    describe(name, network, model)
    save(model, out / network.file)


def random_file(name: str, out: Path = HERE / "made") -> Path:
    """Where --random writes a network."""
    return out / f"random_{name.lower()}.onnx"


def make_random_weights(name: str, out: Path = HERE / "made") -> Path:
    """A network with random weights, for measuring."""
    network = {**NETWORKS, **EXISTING}[name]
    path = random_file(name, out)
    save(to_onnx(network, random_weights(parse(network.definition))), path)
    return path


def measure(name: str, network: Network, mnist: Path | None) -> None:
    model = onnx.load(EXAMPLES / network.file)
    describe(name, network, model)
    if name == "A" and mnist:
        x, y = load_mnist(mnist, "t10k")
        print(f"  accuracy: {accuracy(model, x.reshape(len(x), -1), y):.2%} of the test images")
    if name == "L":
        test = np.load(EXAMPLES / "breast_cancer_test.npz")
        right = (run(model, test["x"])[:, 0] > 0.5) == test["y"]
        print(f"  accuracy: {right.mean():.2%} of the {len(right)} test rows")


def main() -> None:
    everything = [*NETWORKS, *EXISTING]
    parser = argparse.ArgumentParser(description="Make the benchmark networks.")
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="where MNIST's gzipped IDX files are")
    parser.add_argument("--only", default=",".join(everything), metavar="NAMES", help="some of %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: this folder; alexnet: made/)")
    parser.add_argument("--random", action="store_true", help="random weights, for measuring; no alexnet")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := set(names) - set(everything):
        parser.error(f"--only takes {', '.join(everything)}, not {', '.join(sorted(unknown))}")
    if given.random:
        for name in names:
            if not any(layer.kind == "BN" for layer in parse({**NETWORKS, **EXISTING}[name].definition)):
                print(make_random_weights(name, given.out or HERE / "made"))
        return
    if given.mnist is None and (trained := [name for name in names if name in RECIPES]):
        parser.error(f"--mnist DIR is needed to train {', '.join(trained)}")
    for name in names:
        if name in EXISTING:
            measure(name, EXISTING[name], given.mnist)
        elif name in RECIPES:
            make_trained(name, given.mnist, given.out or HERE)
        else:
            make_random(name, given.out or HERE / "made")


if __name__ == "__main__":
    main()
