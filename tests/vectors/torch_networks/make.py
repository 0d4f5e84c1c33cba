"""Makes the models beside it with PyTorch's two exporters: `python make.py` (torch 2.13, onnxscript).

Small networks with what real ones are made of: residuals, odd padding, grouped and transposed convolutions, attention,
several inputs and outputs. They are committed because CI has no PyTorch.
"""

from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from torch import nn

HERE = Path(__file__).parent
torch.manual_seed(0)
torch.backends.mha.set_fastpath_enabled(False)


class Block(nn.Module):
    """A residual block, its shortcut convolved where shapes change."""

    def __init__(self, inward, outward, stride):
        super().__init__()
        self.a = nn.Conv2d(inward, outward, 3, stride, 1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(outward), nn.BatchNorm2d(outward)
        self.b = nn.Conv2d(outward, outward, 3, 1, 1, bias=False)
        shortcut = nn.Sequential(nn.Conv2d(inward, outward, 1, stride, bias=False), nn.BatchNorm2d(outward))
        self.shortcut = shortcut if stride > 1 or inward != outward else nn.Identity()

    def forward(self, x):
        return F.relu(self.norm_b(self.b(F.relu(self.norm_a(self.a(x))))) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.blocks, self.last = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2)), nn.Linear(16, 5)

    def forward(self, x):
        return self.last(torch.flatten(F.adaptive_avg_pool2d(self.blocks(self.first(x)), 1), 1))


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.b(F.relu(self.a(F.adaptive_avg_pool2d(x, 1)))))


def mobile():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.Hardswish(), Squeeze(),
        nn.Conv2d(8, 16, 1), nn.Hardsigmoid(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * 4 * 4, 4),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.c, self.last = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.nearest = nn.Upsample(scale_factor=2)

    def forward(self, x):
        a = F.relu(self.a(x))
        b = F.relu(self.b(F.max_pool2d(a, 2)))
        return self.last(F.relu(self.c(torch.cat([self.up(b), a], 1)))), self.nearest(b)


class Attention(nn.Module):
    """Attention written out, before a GELU layer; norms first."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm_a, self.norm_b = nn.LayerNorm(16), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        rows, length, width = x.shape
        q, k, v = self.qkv(self.norm_a(x)).reshape(rows, length, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) / 8**0.5, -1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(rows, length, width))
        return x + self.down(F.gelu(self.up(self.norm_b(x))))


class Temporal(nn.Module):
    """Dilated convolutions in time."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 4, 3, dilation=2, padding=4), nn.Conv1d(4, 4, 3, stride=2, groups=2)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        y = F.leaky_relu(self.b(F.elu(self.a(x))[:, :, :-4]), 0.1)
        return F.log_softmax(self.last(y.mean(2)), 1)


class Two(nn.Module):
    """Two inputs, four outputs: reals, places, truth values."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(4, 5)

    def forward(self, x, y):
        h, g = torch.tanh(self.a(x)), torch.relu(self.b(y))
        z = torch.cat([h, g, h * g], 1)
        return z.max(1).values, z.argmax(1), torch.maximum(h, g), h > g


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=(2, 1))
        self.group, self.instance = nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True)

    def forward(self, x):
        y = self.group(self.conv(x))
        return self.instance(F.silu(y)), F.avg_pool2d(y, 3, 2, 1)


class Activations(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.slopes = nn.Linear(6, 12), nn.PReLU(12)

    def forward(self, x):
        h = self.layer(x)
        a, b = h.chunk(2, 1)
        smooth = F.softplus(h), F.selu(h), F.mish(h), F.gelu(h, approximate="tanh"), F.celu(h), F.softmax(h, 1)
        bent = self.slopes(h), F.glu(h, 1), torch.clamp(h, -0.5, 0.7), torch.where(a > b, a, b), F.hardtanh(h)
        return *smooth, *bent, F.normalize(h, dim=1)


class Moves(nn.Module):
    def forward(self, x):
        moved = F.pad(x, (1, 2, 0, 1), mode="reflect"), F.pixel_shuffle(torch.cat([x] * 4, 1), 2), x.flip(2)
        more = torch.roll(x, 1, 3), x.repeat(1, 2, 1, 1), torch.einsum("bchw,bchv->bhwv", x, x)
        reduced = x.pow(3).sum((2, 3)), torch.topk(x.flatten(1), 3).values, x.amax((2, 3)), x.std((2, 3))
        return *moved, *more, *reduced, torch.exp(-x.abs()), torch.norm(x, dim=1), torch.sqrt(x * x + 1.0)


class Pools(nn.Module):
    def forward(self, x):
        largest = F.max_pool2d(x, 3, 2, 1, ceil_mode=True), F.max_pool2d(x, (2, 3), (1, 2), (1, 1), dilation=(2, 1))
        means = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), F.adaptive_max_pool2d(x, 1)
        sizes = F.interpolate(x, scale_factor=2, mode="bilinear"), F.interpolate(x, size=(5, 11), mode="nearest")
        return *largest, *means, *sizes, F.lp_pool2d(x.abs() + 0.1, 2, 2)


def encoder(norm_first):
    return nn.TransformerEncoderLayer(64, 4, 128, activation="gelu", batch_first=True, norm_first=norm_first)


def without_origins(path):
    """Drop what the exporter notes about this machine: stack traces with paths."""
    exported = onnx.load(path)
    del exported.metadata_props[:]
    for entry in (*exported.graph.node, *exported.graph.input, *exported.graph.output, *exported.graph.value_info):
        del entry.metadata_props[:]
    onnx.save(exported, path)


MODELS = {
    "activations": (Activations(), [(3, 6)]),
    "attention": (Attention(), [(2, 6, 16)]),
    "mobile": (mobile(), [(2, 3, 16, 16)]),
    "moves": (Moves(), [(2, 1, 4, 6)]),
    "norms": (Norms(), [(2, 2, 6, 6)]),
    "pools": (Pools(), [(2, 2, 7, 8)]),
    "resnet": (ResNet(), [(2, 3, 16, 16)]),
    "temporal": (Temporal(), [(2, 2, 12)]),
    "two": (Two(), [(3, 6), (3, 4)]),
    "unet": (UNet(), [(2, 1, 8, 8)]),
}
FIXED = {"encoder_post": (encoder(False), (1, 16, 64)), "encoder_pre": (encoder(True), (1, 16, 64))}

for name, (model, shapes) in MODELS.items():
    for _ in range(5):  # statistics for batch-norms
        model.train()(*(torch.randn(8, *shape[1:]) for shape in shapes))
    model.eval()
    given = tuple(torch.randn(*shape) for shape in shapes)
    names = [f"x{i}" for i in range(len(given))]
    old, new = HERE / f"{name}_script.onnx", HERE / f"{name}_dynamo.onnx"
    axes = {each: {0: "batch"} for each in names}
    torch.onnx.export(model, given, old, dynamo=False, input_names=names, dynamic_axes=axes)
    dynamic = tuple({0: torch.export.Dim("batch")} for _ in given)
    torch.onnx.export(model, given, dynamo=True, input_names=names, dynamic_shapes=dynamic, verbose=False).save(new)
    without_origins(new)

for name, (model, shape) in FIXED.items():  # the older exporter does not know their attention
    new = HERE / f"{name}_dynamo.onnx"
    torch.onnx.export(model.eval(), (torch.randn(*shape),), dynamo=True, input_names=["x0"], verbose=False).save(new)
    without_origins(new)
