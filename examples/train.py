"""Trains the example models and writes them, with samples of their test data, beside this file.

    python examples/train.py --mnist DIR

DIR holds MNIST's four IDX files, gzipped (train-images-idx3-ubyte.gz ...). The seeds are fixed: on one machine a second
run writes the same models; another BLAS may differ in the last bits. Takes about half a minute.

The runtime computes on fixed-point numbers and proves, when it compiles a model, that no value can leave its range. The
proof propagates intervals, so a network with small weights costs less. Hence the weight decay below, and the printed
bounds; and hence the metadata `mpc.range.x`, which says what range the inputs have.
"""

import argparse
import gzip
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
OPSET = 17
IR_VERSION = 8  # what opset 17 needs; every onnxruntime since 1.12 reads it

Layers = list[tuple[np.ndarray, np.ndarray]]  # weight [in, out] and bias [out] of each fully connected layer


# --- MNIST, network A: 784-128-ReLU-128-ReLU-10 (the MLP of SecureML) ---------------------------------------------

SIZES = (784, 128, 128, 10)
EPOCHS = 24
BATCH = 128
RATE = 1.5e-3
DECAY = 0.5  # decoupled, as in AdamW; times the rate, per step. Large, for the sake of the bounds


def load_mnist(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images = _read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    return images.reshape(len(images), -1), labels


def _read_idx(path: Path) -> np.ndarray:
    """IDX: two zero bytes, the type (8: uint8), the number of dimensions, each dimension big-endian, the data."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path.name} is no IDX file of bytes")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def train_mlp(images: np.ndarray, labels: np.ndarray) -> Layers:
    """AdamW on the cross entropy; the rate falls to zero along a half cosine."""
    rng = np.random.default_rng(1)
    x = (images / 255).astype(np.float32)
    layers = [
        ((rng.standard_normal((a, b)) * math.sqrt(2 / a)).astype(np.float32), np.zeros(b, np.float32))
        for a, b in zip(SIZES, SIZES[1:], strict=False)
    ]
    parameters = [array for layer in layers for array in layer]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    steps = EPOCHS * math.ceil(len(x) / BATCH)
    for step, rows in enumerate(_batches(rng, len(x)), start=1):
        rate = RATE * (1 + math.cos(math.pi * step / steps)) / 2
        for i, gradient in enumerate(_gradients(layers, x[rows], labels[rows])):
            first[i] += 0.1 * (gradient - first[i])
            second[i] += 0.001 * (gradient * gradient - second[i])
            update = first[i] / (1 - 0.9**step) / (np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
            if parameters[i].ndim == 2:
                update += DECAY * parameters[i]
            parameters[i] -= np.float32(rate) * update
    return layers


def _batches(rng: np.random.Generator, rows: int) -> Iterator[np.ndarray]:
    for _ in range(EPOCHS):
        order = rng.permutation(rows)
        yield from (order[start : start + BATCH] for start in range(0, rows, BATCH))


def _gradients(layers: Layers, x: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Backpropagation; in the order weight, bias, of the first layer to the last."""
    inputs = [x]
    for weight, bias in layers[:-1]:
        inputs.append(np.maximum(inputs[-1] @ weight + bias, 0))
    logits = inputs[-1] @ layers[-1][0] + layers[-1][1]
    delta = np.exp(logits - logits.max(axis=1, keepdims=True))
    delta /= delta.sum(axis=1, keepdims=True)
    delta[np.arange(len(x)), labels] -= 1
    delta /= len(x)
    gradients: list[np.ndarray] = []
    for (weight, _), entered in zip(reversed(layers), reversed(inputs), strict=True):
        gradients[:0] = [entered.T @ delta, delta.sum(axis=0)]
        delta = (delta @ weight.T) * (entered > 0)
    return gradients


def interval_bounds(layers: Layers, low: float, high: float) -> list[float]:
    """The largest |pre-activation| of each layer that interval arithmetic allows for inputs in [low, high]."""
    lo, hi = np.full(len(layers[0][0]), low), np.full(len(layers[0][0]), high)
    bounds = []
    for weight, bias in layers:
        plus, minus = np.maximum(weight, 0).astype(float), np.minimum(weight, 0).astype(float)
        lo, hi = lo @ plus + hi @ minus + bias, hi @ plus + lo @ minus + bias
        bounds.append(float(max(hi.max(), -lo.min())))
        lo, hi = np.maximum(lo, 0), np.maximum(hi, 0)
    return bounds


# --- breast cancer, network L: 30-1 with a sigmoid ----------------------------------------------------------------


def train_logistic() -> tuple[Layers, np.ndarray, np.ndarray, int]:
    """The model, the test rows and labels (1: benign), and a power of two that bounds every feature."""
    features, labels = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        features, labels, test_size=0.3, random_state=0, stratify=labels
    )
    mean, deviation = x_train.mean(axis=0), x_train.std(axis=0)
    model = LogisticRegression(C=0.1, max_iter=1000).fit((x_train - mean) / deviation, y_train)
    largest = np.abs((features - mean) / deviation).max()
    layers = [(model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32))]
    x_test = ((x_test - mean) / deviation).astype(np.float32)
    return layers, x_test, y_test.astype(np.int64), 2 ** math.ceil(math.log2(largest))


# --- ONNX ---------------------------------------------------------------------------------------------------------


def to_onnx(layers: Layers, name: str, output: str, activation: str | None, value_range: str) -> onnx.ModelProto:
    """Gemm, ReLU, Gemm, ... Gemm, and `activation` if any; weights stored [out, in], as torch exports them."""
    nodes, weights, wire = [], [], "x"
    for number, (weight, bias) in enumerate(layers, start=1):
        last = number == len(layers)
        parameters = [f"fc{number}.weight", f"fc{number}.bias"]
        weights.append(numpy_helper.from_array(np.ascontiguousarray(weight.T), parameters[0]))
        weights.append(numpy_helper.from_array(bias, parameters[1]))
        after = activation if last else "Relu"
        summed = f"fc{number}" if after else output
        nodes.append(helper.make_node("Gemm", [wire, *parameters], [summed], name=f"fc{number}", transB=1))
        wire = summed
        if after:
            wire = output if last else f"{after.lower()}{number}"
            nodes.append(helper.make_node(after, [summed], [wire], name=f"{after.lower()}{number}"))
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", len(layers[0][0])])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", len(layers[-1][1])])],
        weights,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="examples/train.py")
    helper.set_model_props(model, {"mpc.range.x": value_range})
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [result] = session.run(None, {"x": x})
    return result


def report(name: str, accuracy: float, at_least: float, bounds: list[float]) -> None:
    print(f"{name}: test accuracy {accuracy:.2%}")
    for number, bound in enumerate(bounds, start=1):
        print(f"  layer {number}: |pre-activation| <= {bound:.1f} = 2^{math.log2(bound):.2f}")
    if accuracy < at_least:
        raise SystemExit(f"{name} should reach {at_least:.2%}; nothing of it was written")


def make_mnist_mlp(folder: Path) -> None:
    layers = train_mlp(*load_mnist(folder, "train"))
    model = to_onnx(layers, "mnist_mlp", "logits", None, "0:1")
    images, labels = load_mnist(folder, "t10k")
    correct = run(model, (images / 255).astype(np.float32)).argmax(axis=1) == labels
    report("mnist_mlp.onnx", correct.mean(), 0.975, interval_bounds(layers, 0, 1))
    onnx.save(model, HERE / "mnist_mlp.onnx")
    sample = np.sort(np.random.default_rng(2).choice(len(images), 1000, replace=False))
    np.savez_compressed(HERE / "mnist_sample.npz", images=images[sample], labels=labels[sample])
    print(f"  on the {len(sample)} images of mnist_sample.npz: {correct[sample].mean():.2%}")


def make_breast_cancer_lr() -> None:
    layers, x, y, bound = train_logistic()
    model = to_onnx(layers, "breast_cancer_lr", "probability", "Sigmoid", f"-{bound}:{bound}")
    correct = (run(model, x)[:, 0] > 0.5) == y
    report("breast_cancer_lr.onnx", correct.mean(), 0.95, interval_bounds(layers, -bound, bound))
    onnx.save(model, HERE / "breast_cancer_lr.onnx")
    np.savez_compressed(HERE / "breast_cancer_test.npz", x=x, y=y)
    print(f"  test rows: {len(y)}; largest |feature| among them: {np.abs(x).max():.2f}; range -{bound}:{bound}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the example models.")
    parser.add_argument("--mnist", type=Path, required=True, metavar="DIR", help="where MNIST's gzipped IDX files are")
    make_mnist_mlp(parser.parse_args().mnist)
    make_breast_cancer_lr()


if __name__ == "__main__":
    main()
