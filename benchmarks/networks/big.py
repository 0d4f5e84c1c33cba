"""Makes large networks from their published configurations, with random weights: BERT-base, GPT-2 small, ResNet-50.

    python benchmarks/networks/big.py [--only bert_base,gpt2_small,resnet50] [--layers N] [--tokens N] [--out DIR]

What a network costs does not depend on what it has learnt, and none of these is trained here: weights are drawn as the
publications say that training began. Transformers take rows that are embedded already, which the owner of the tokens
looks up itself. The files go to made/, which git ignores. Needs numpy and onnx.
"""

import argparse
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from definitions import SEED
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
OPSET = 20  # the first with Gelu
IR_VERSION = 9
HIDDEN_FROM = -1e4
"""What a causal mask adds to the scores of places that come later."""


@dataclass(frozen=True)
class Transformer:
    """Sizes of a transformer: each layer is attention and two linear layers of `hidden` units.

    Args:
        causal: GPT-2's form: normalised before each part, and no token sees a later one.
        vocabulary: columns of the head that scores the next token; none without.
        span: rows are embedded between minus and plus so much.
    """

    layers: int
    width: int
    heads: int
    hidden: int
    tokens: int
    causal: bool = False
    vocabulary: int = 0
    span: float = 8.0
    deviation: float = 0.02


@dataclass(frozen=True)
class Residual:
    """Sizes of a residual network of bottlenecks: blocks in each stage, by so many channels."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    channels: tuple[int, ...] = (64, 128, 256, 512)
    classes: int = 1000
    image: int = 224
    wider: int = 4


BIG: dict[str, Transformer | Residual] = {
    "bert_base": Transformer(12, 768, 12, 3072, 128),
    "gpt2_small": Transformer(12, 768, 12, 3072, 64, causal=True, vocabulary=50257),
    "resnet50": Residual(),
}


@dataclass
class Writer:
    """Collects nodes, and weights as they are drawn."""

    rng: np.random.Generator
    deviation: float
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, operator: str, *reads: str, **settings: object) -> str:
        """Append a node; return the name of what it writes."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [*reads], [name], name=name, **settings))
        return name

    def constant(self, values: np.ndarray) -> str:
        """Append a constant; return its name."""
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def drawn(self, *shape: int, deviation: float | None = None) -> str:
        """Append normal weights."""
        values = self.rng.standard_normal(shape, dtype=np.float32)
        return self.constant(values * np.float32(self.deviation if deviation is None else deviation))

    def filled(self, value: float, *shape: int) -> str:
        """Append weights that are all one number."""
        return self.constant(np.full(shape, value, dtype=np.float32))

    def shape(self, *sizes: int) -> str:
        """Append a shape; 0 is as it was."""
        return self.constant(np.array(sizes, dtype=np.int64))

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """Append x W + b."""
        return self.node("Add", self.node("MatMul", x, self.drawn(inputs, outputs)), self.filled(0.0, outputs))

    def normalised(self, x: str, width: int) -> str:
        """Append a normalisation of each row."""
        return self.node("LayerNormalization", x, self.filled(1.0, width), self.filled(0.0, width), epsilon=1e-5)


def transformer(of: Transformer) -> onnx.ModelProto:
    """Write a transformer: input "x" (batch, tokens, width), embedded; output "y"."""
    writer = Writer(np.random.default_rng(SEED), of.deviation)
    x = "x"
    for _ in range(of.layers):
        if of.causal:
            x = writer.node("Add", x, _attention(writer, writer.normalised(x, of.width), of))
            x = writer.node("Add", x, _two_layers(writer, writer.normalised(x, of.width), of))
        else:
            x = writer.normalised(writer.node("Add", x, _attention(writer, x, of)), of.width)
            x = writer.normalised(writer.node("Add", x, _two_layers(writer, x, of)), of.width)
    if of.causal:
        x = writer.normalised(x, of.width)
    if of.vocabulary:
        x = writer.node("MatMul", x, writer.drawn(of.width, of.vocabulary))
    elif not of.causal:  # BERT's pooler: of the first token
        first = writer.node("Gather", x, writer.constant(np.array(0, dtype=np.int64)), axis=1)
        x = writer.node("Tanh", writer.linear(first, of.width, of.width))
    out = ["batch", of.tokens, of.vocabulary or of.width] if of.causal else ["batch", of.width]
    return _model(writer, x, ["batch", of.tokens, of.width], out, f"{-of.span:g}:{of.span:g}")


def _attention(writer: Writer, x: str, of: Transformer) -> str:
    each = of.width // of.heads
    query, key, value = (_heads(writer, writer.linear(x, of.width, of.width), of, each) for _ in range(3))
    turned = writer.node("Transpose", key, perm=[0, 1, 3, 2])
    scores = writer.node("MatMul", query, turned)
    scores = writer.node("Mul", scores, writer.constant(np.array(1 / math.sqrt(each), dtype=np.float32)))
    if of.causal:
        later = np.triu(np.full((of.tokens, of.tokens), HIDDEN_FROM, dtype=np.float32), 1)
        scores = writer.node("Add", scores, writer.constant(later))
    mixed = writer.node("MatMul", writer.node("Softmax", scores, axis=-1), value)
    joined = writer.node("Transpose", mixed, perm=[0, 2, 1, 3])
    return writer.linear(writer.node("Reshape", joined, writer.shape(0, of.tokens, of.width)), of.width, of.width)


def _heads(writer: Writer, x: str, of: Transformer, each: int) -> str:
    parts = writer.node("Reshape", x, writer.shape(0, of.tokens, of.heads, each))
    return writer.node("Transpose", parts, perm=[0, 2, 1, 3])


def _two_layers(writer: Writer, x: str, of: Transformer) -> str:
    inner = writer.node("Gelu", writer.linear(x, of.width, of.hidden), approximate="tanh" if of.causal else "none")
    return writer.linear(inner, of.hidden, of.width)


def residual(of: Residual) -> onnx.ModelProto:
    """Write a residual network: input "x" (batch, 3, image, image), output "y" (batch, classes)."""
    writer = Writer(np.random.default_rng(SEED), 0.0)
    x = writer.node("Relu", _convolution(writer, "x", 3, of.channels[0], 7, 2))
    x = writer.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = of.channels[0]
    for stage, (blocks, channels) in enumerate(zip(of.blocks, of.channels, strict=True)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            x = _bottleneck(writer, x, inputs, channels, of.wider, stride)
            inputs = channels * of.wider
    x = writer.node("Flatten", writer.node("GlobalAveragePool", x))
    weight = writer.drawn(of.classes, inputs, deviation=0.01)
    x = writer.node("Gemm", x, weight, writer.filled(0.0, of.classes), transB=1)
    return _model(writer, x, ["batch", 3, of.image, of.image], ["batch", of.classes], "-3:3")


def _bottleneck(writer: Writer, x: str, inputs: int, channels: int, wider: int, stride: int) -> str:
    outputs = channels * wider
    inner = writer.node("Relu", _convolution(writer, x, inputs, channels, 1, 1))
    inner = writer.node("Relu", _convolution(writer, inner, channels, channels, 3, stride))
    # a small gain behind each block, as training's recipes begin: signals keep their size however many blocks there are
    inner = _convolution(writer, inner, channels, outputs, 1, 1, gain=0.25)
    beside = x if inputs == outputs and stride == 1 else _convolution(writer, x, inputs, outputs, 1, stride)
    return writer.node("Relu", writer.node("Add", inner, beside))


def _convolution(writer: Writer, x: str, inputs: int, outputs: int, kernel: int, stride: int, gain: float = 1.0) -> str:
    """A convolution of Kaiming's scale and a batch-norm, with padding that keeps the size."""
    weight = writer.drawn(outputs, inputs, kernel, kernel, deviation=math.sqrt(2 / (outputs * kernel**2)))
    padding = [kernel // 2] * 4
    x = writer.node("Conv", x, weight, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=padding)
    moments = [writer.filled(value, outputs) for value in (gain, 0.0, 0.0, 1.0)]
    return writer.node("BatchNormalization", x, *moments)


def _model(writer: Writer, result: str, given: list[str | int], out: list[str | int], declared: str) -> onnx.ModelProto:
    writer.nodes[-1].output[0] = "y"
    if result != writer.nodes[-1].name:
        raise ValueError(f"{result} is not what the last node writes")
    graph = helper.make_graph(
        writer.nodes,
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        writer.weights,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="benchmarks/networks")
    helper.set_model_props(model, {"mpc.range.x": declared})
    return model


def make(of: Transformer | Residual) -> onnx.ModelProto:
    """Write a network of these sizes."""
    return transformer(of) if isinstance(of, Transformer) else residual(of)


def rows(of: Transformer | Residual, batch: int) -> np.ndarray:
    """Draw inputs, the same for everybody who measures: float32 of the input's shape."""
    rng = np.random.default_rng(SEED + 1)
    if isinstance(of, Residual):
        return rng.standard_normal((batch, 3, of.image, of.image), dtype=np.float32).clip(-3, 3)
    return rng.standard_normal((batch, of.tokens, of.width), dtype=np.float32).clip(-of.span, of.span)


def parameters(model: onnx.ModelProto) -> int:
    """Count the floating-point numbers among the constants."""
    return sum(math.prod(one.dims) for one in model.graph.initializer if one.data_type == TensorProto.FLOAT)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make large networks with random weights.")
    parser.add_argument("--only", default=",".join(BIG), metavar="NAMES", help="some of %(default)s")
    parser.add_argument("--layers", type=int, help="so many layers of a transformer instead of all")
    parser.add_argument("--tokens", type=int, help="so many tokens instead of the usual number")
    parser.add_argument(
        "--out", type=Path, default=HERE / "made", metavar="DIR", help="where to write (default: made/)"
    )
    given = parser.parse_args()
    if unknown := set(names := given.only.split(",")) - BIG.keys():
        parser.error(f"--only takes {', '.join(BIG)}, not {', '.join(sorted(unknown))}")
    other = {key: value for key in ("layers", "tokens") if (value := getattr(given, key)) is not None}
    given.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        of = BIG[name]
        model = make(replace(of, **other) if isinstance(of, Transformer) else of)
        path = given.out / f"{name}.onnx"
        onnx.save(model, path)
        print(f"{path}: {parameters(model):,} parameters")


if __name__ == "__main__":
    main()
