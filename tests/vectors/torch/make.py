"""Makes the models beside it with PyTorch's two exporters: `python make.py` (torch 2.13, onnxscript).

They are committed because CI has no PyTorch.
"""

from pathlib import Path

import onnx
import torch
from torch import nn

HERE = Path(__file__).parent
torch.manual_seed(7)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.c(h + torch.relu(self.b(h)))


class Viewed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x):
        return torch.softmax(self.b(torch.relu(self.a(x.view(x.size(0), -1)))), 1)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.c(torch.relu(self.a(x)) * torch.sigmoid(self.b(x)))


class Standardised(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 4)
        self.register_buffer("mean", torch.randn(6))
        self.register_buffer("deviation", torch.rand(6) + 0.5)

    def forward(self, x):
        scores = self.a((x - self.mean) / self.deviation)
        return scores, torch.argmax(scores, dim=1)


normed = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
normed(torch.randn(64, 6) * 2 + 1)


def without_origins(path):
    """Drop what the exporter notes about this machine: stack traces with paths."""
    exported = onnx.load(path)
    del exported.metadata_props[:]
    for entry in (*exported.graph.node, *exported.graph.input, *exported.graph.output, *exported.graph.value_info):
        del entry.metadata_props[:]
    onnx.save(exported, path)


MODELS = {
    "mlp": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (4, 6)),
    "normed": (normed, (4, 6)),
    "sigmoid": (nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 1), nn.Sigmoid()), (4, 6)),
    "tanh": (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)), (4, 6)),
    "leaky": (nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 2)), (4, 6)),
    "relu6": (nn.Sequential(nn.Linear(6, 8), nn.ReLU6(), nn.Linear(8, 2)), (4, 6)),
    "flatten": (nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), (4, 1, 3, 4)),
    "double": (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).double(), (4, 6)),
    "residual": (Residual(), (4, 6)),
    "viewed": (Viewed(), (4, 1, 3, 4)),
    "gated": (Gated(), (4, 6)),
    "standardised": (Standardised(), (4, 6)),
}

for name, (model, shape) in MODELS.items():
    model.eval()
    x = torch.randn(*shape, dtype=torch.float64 if name == "double" else torch.float32)
    old, new = HERE / f"{name}_script.onnx", HERE / f"{name}_dynamo.onnx"
    torch.onnx.export(model, (x,), old, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(model, (x,), dynamo=True, input_names=["x"], dynamic_shapes=dynamic, verbose=False)
    program.save(new)
    without_origins(new)
