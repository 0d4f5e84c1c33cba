"""Trains the model beside it: `python make.py DIR` (torch 2.13, onnx), a few minutes.

DIR holds MNIST's training images and labels, as for `examples/train.py`. A transformer reads the 28 rows of a digit as
tokens and says which digit it is. Unlike random weights, those that were trained have attention with peaks, and columns
that are far larger than others. It is committed because CI has no PyTorch.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

HERE = Path(__file__).parent
LAYERS, WIDTH, HEADS, HIDDEN, TOKENS = 3, 48, 4, 96, 28
STEPS, BATCH, RATE = 2500, 128, 4e-3


class Layer(nn.Module):
    """Attention and two linear layers, each normalised behind the sum, as in BERT."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.first, self.second = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.normal, self.last = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x):
        query, key, value = (
            part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        shares = (query @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5).softmax(-1)
        self.peak = shares.max(-1).values.mean().item()
        x = self.normal(x + self.out((shares @ value).transpose(1, 2).flatten(2)))
        return self.last(x + self.second(nn.functional.gelu(self.first(x))))


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.places = nn.Linear(TOKENS, WIDTH), nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.5)
        self.layers, self.head = nn.ModuleList(Layer() for _ in range(LAYERS)), nn.Linear(WIDTH, 10)

    def forward(self, x):
        x = self.embed(x) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def read(folder, name):
    data = gzip.decompress((Path(folder) / name).read_bytes())
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])


def trained(folder):
    torch.manual_seed(0)
    x = torch.tensor(read(folder, "train-images-idx3-ubyte.gz").reshape(-1, TOKENS, TOKENS) / np.float32(255))
    labels = torch.tensor(read(folder, "train-labels-idx1-ubyte.gz").astype(np.int64))
    model = Rows()
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)
    for step in range(STEPS):
        rows = torch.randint(len(x), (BATCH,))
        loss = nn.functional.cross_entropy(model(x[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 250 == 0:
            print(step, loss.item(), [round(layer.peak, 2) for layer in model.layers], flush=True)
    return model


def written(model):
    """The ONNX model, operator by operator."""
    nodes, weights = [], []

    def node(operator, *reads, **settings):
        nodes.append(helper.make_node(operator, [*reads], [f"{operator.lower()}_{len(nodes)}"], **settings))
        return nodes[-1].output[0]

    def constant(values):
        weights.append(numpy_helper.from_array(np.asarray(values), f"constant_{len(weights)}"))
        return weights[-1].name

    def linear(x, layer):
        weight, bias = (constant(each.detach().numpy()) for each in (layer.weight.T.contiguous(), layer.bias))
        return node("Add", node("MatMul", x, weight), bias)

    def normal(x, layer):
        gain, shift = (constant(each.detach().numpy()) for each in (layer.weight, layer.bias))
        return node("LayerNormalization", x, gain, shift, epsilon=layer.eps)

    def heads(x):
        parts = node("Reshape", x, constant(np.array([0, TOKENS, HEADS, WIDTH // HEADS])))
        return node("Transpose", parts, perm=[0, 2, 1, 3])

    x = node("Add", linear("x", model.embed), constant(model.places.detach().numpy()))
    for layer in model.layers:
        query, key, value = (heads(linear(x, part)) for part in (layer.query, layer.key, layer.value))
        scores = node("MatMul", query, node("Transpose", key, perm=[0, 1, 3, 2]))
        shares = node("Softmax", node("Mul", scores, constant(np.float32((WIDTH // HEADS) ** -0.5))))
        mixed = node("Transpose", node("MatMul", shares, value), perm=[0, 2, 1, 3])
        mixed = node("Reshape", mixed, constant(np.array([0, TOKENS, WIDTH])))
        x = normal(node("Add", x, linear(mixed, layer.out)), layer.normal)
        x = normal(node("Add", x, linear(node("Gelu", linear(x, layer.first)), layer.second)), layer.last)
    linear(node("ReduceMean", x, constant(np.array([1])), keepdims=0), model.head)
    nodes[-1].output[0] = "y"
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", TOKENS, TOKENS])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "rows", [given], [result], weights)
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(found, {"mpc.range.x": "0:1"})
    return found


if __name__ == "__main__":
    onnx.save(written(trained(sys.argv[1])), HERE / "rows.onnx")
