"""Models of `transformers` and `torchvision`, few and narrow layers with random weights, by PyTorch's two exporters.

Their structure is the real one.  This needs torch, torchvision, transformers and onnxscript, which are no dependencies:
they are imported when a model is made.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

EXPORTERS = ("script", "dynamo")
LENGTH, WORDS, WIDTH, PIXELS = 6, 50, 16, 32
_ENCODER = {
    "vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 2 * WIDTH, "max_position_embeddings": 32,
}  # fmt: skip
_DISTIL = {
    "vocab_size": WORDS, "dim": WIDTH, "n_layers": 1, "n_heads": 2, "hidden_dim": 2 * WIDTH,
    "max_position_embeddings": 32,
}  # fmt: skip
_GPT2 = {"vocab_size": WORDS, "n_embd": WIDTH, "n_layer": 1, "n_head": 2, "n_positions": 32, "use_cache": False}
_OPT = {
    "vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 2 * WIDTH,
    "max_position_embeddings": 32, "word_embed_proj_dim": WIDTH, "use_cache": False,
}  # fmt: skip
_VIT = {
    "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 2 * WIDTH,
    "image_size": PIXELS, "patch_size": 8,
}  # fmt: skip
_LANGUAGE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("Bert", "Model", _ENCODER),
    "bert_classes": ("Bert", "ForSequenceClassification", _ENCODER),
    "distilbert": ("DistilBert", "Model", _DISTIL),
    "roberta": ("Roberta", "Model", _ENCODER),
    "albert": ("Albert", "Model", {**_ENCODER, "embedding_size": 8}),
    "electra": ("Electra", "Model", {**_ENCODER, "embedding_size": 8}),
    "gpt2": ("GPT2", "Model", _GPT2),
    "gpt2_words": ("GPT2", "LMHeadModel", _GPT2),
    "opt": ("OPT", "Model", _OPT),
    "llama": ("Llama", "Model", {**_ENCODER, "num_key_value_heads": 1, "use_cache": False}),
}
_TYPED = ("bert", "bert_classes", "roberta", "albert", "electra")
LANGUAGE = tuple(_LANGUAGE)
"""Names of language models."""
FORMS = {
    "ids": ("input_ids",),
    "mask": ("input_ids", "attention_mask"),
    "types": ("input_ids", "attention_mask", "token_type_ids"),
    "embeds": ("inputs_embeds",),
    "embeds_mask": ("inputs_embeds", "attention_mask"),
}
"""What enters a language model."""


@dataclass(frozen=True)
class Export:
    """One export of one model.

    Args:
        model: its name, of `LANGUAGE` or `VISION`.
        exporter: of `EXPORTERS`.
        form: of `FORMS`, of a language model.
        is_open: is the batch open?
    """

    model: str
    exporter: str
    form: str = ""
    is_open: bool = True

    @property
    def name(self) -> str:
        """Name it as a file would be."""
        parts = (self.model, self.form, "open" if self.is_open else "fixed", self.exporter)
        return "_".join(filter(None, parts))


def exports(models: Iterable[str] = ()) -> list[Export]:
    """List all exports of these models, or of every model."""
    found = []
    for model in tuple(models) or (*_LANGUAGE, *VISION):
        forms = [form for form in FORMS if form != "types" or model in _TYPED] if model in _LANGUAGE else [""]
        found += [Export(model, each, form, opened) for form in forms for opened in (True, False) for each in EXPORTERS]
    return [each for each in found if each.exporter == "dynamo" or not _looks_for_documents(each)]


def _looks_for_documents(export: Export) -> bool:
    """Without a mask some models look for several texts in one row, by an operator that the older exporter lacks."""
    return export.model in ("gpt2", "gpt2_words", "llama") and export.form in ("ids", "embeds")


# --- models


def _transformer(family: str, kind: str, settings: dict[str, Any]) -> Any:
    import transformers

    return getattr(transformers, f"{family}{kind}")(getattr(transformers, f"{family}Config")(**settings))


def _resnet(block: str, layers: list[int]) -> Any:
    """A ResNet of torchvision, an eighth as wide."""
    from torchvision.models import resnet

    class Narrow(resnet.ResNet):  # type: ignore[misc]
        def _make_layer(self, block: Any, planes: int, *given: Any, **settings: Any) -> Any:
            return super()._make_layer(block, planes // 8, *given, **settings)

    model = Narrow(getattr(resnet, block), layers, num_classes=10)
    model.fc = _linear(64 * getattr(resnet, block).expansion, 10)
    return model


def _linear(inward: int, outward: int) -> Any:
    from torch import nn

    return nn.Linear(inward, outward)


def _mobile_v2() -> Any:
    from torchvision.models import MobileNetV2

    return MobileNetV2(num_classes=10, width_mult=0.1)


def _mobile_v3(arch: str) -> Any:
    from torchvision.models import mobilenetv3

    settings, last = mobilenetv3._mobilenet_v3_conf(arch, width_mult=0.25)
    return mobilenetv3.MobileNetV3(settings, last // 8, num_classes=10)


def _efficient() -> Any:
    from torchvision.models import efficientnet

    settings, _ = efficientnet._efficientnet_conf("efficientnet_b0", width_mult=0.25, depth_mult=0.3)
    return efficientnet.EfficientNet(settings, 0.2, num_classes=10, last_channel=32)


def _squeeze() -> Any:
    from torchvision.models import squeezenet1_1

    return squeezenet1_1(num_classes=10)


def _convnext() -> Any:
    from torchvision.models import convnext

    settings = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
    return convnext.ConvNeXt(settings, num_classes=10, layer_scale=0.5)


def _swin() -> Any:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=10)


VISION: dict[str, Callable[[], Any]] = {
    "vit": lambda: _transformer("ViT", "ForImageClassification", _VIT),
    "deit": lambda: _transformer("DeiT", "ForImageClassification", _VIT),
    "resnet18": lambda: _resnet("BasicBlock", [2, 2, 2, 2]),
    "resnet50": lambda: _resnet("Bottleneck", [3, 4, 6, 3]),
    "mobilenet_v2": _mobile_v2,
    "mobilenet_v3_small": lambda: _mobile_v3("mobilenet_v3_small"),
    "mobilenet_v3_large": lambda: _mobile_v3("mobilenet_v3_large"),
    "efficientnet": _efficient,
    "squeezenet": _squeeze,
    "convnext": _convnext,
    "swin": _swin,
}
"""Vision models by name."""


def module(model: str) -> Any:
    """Make a model, in evaluation mode; batch-norms have seen some images."""
    import torch

    torch.manual_seed(0)
    if model in _LANGUAGE:
        return _transformer(*_LANGUAGE[model]).eval()
    made = VISION[model]()
    for _ in range(3 if any("BatchNorm" in type(each).__name__ for each in made.modules()) else 0):
        made.train()(torch.randn(8, 3, PIXELS, PIXELS))
    return made.eval()


# --- exporting


def feeds_of(export: Export, rows: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Draw inputs of an export, in the order of its inputs; half of a mask may be zero."""
    rng = np.random.default_rng(seed)
    if export.model in VISION:
        named = "pixel_values" if export.model in ("vit", "deit") else "x"
        return {named: np.clip(rng.standard_normal((rows, 3, PIXELS, PIXELS)), -3, 3).astype(np.float32)}
    width = 8 if export.model in ("albert", "electra") else WIDTH
    mask = np.arange(LENGTH) < rng.integers(LENGTH // 2, LENGTH + 1, rows)[:, None]
    drawn = {
        "input_ids": rng.integers(2, WORDS, (rows, LENGTH)),
        "attention_mask": mask.astype(np.int64),
        "token_type_ids": rng.integers(0, 2, (rows, LENGTH)),
        "inputs_embeds": np.clip(rng.standard_normal((rows, LENGTH, width)), -3, 3).astype(np.float32),
    }
    return {name: drawn[name] for name in FORMS[export.form]}


def make(export: Export) -> onnx.ModelProto:
    """Export a model as its users do: the module itself, with named inputs."""
    import torch

    made, feeds = module(export.model), feeds_of(export, 2 if export.is_open else 1)
    given = {name: torch.as_tensor(array) for name, array in feeds.items()}
    names, out = [*given], io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if export.exporter == "script":
            axes = {name: {0: "batch"} for name in names} if export.is_open else None
            called, values = _called(made, names), tuple(given.values())
            torch.onnx.export(called, values, out, dynamo=False, input_names=names, dynamic_axes=axes)
            return onnx.load_model_from_string(out.getvalue())
        shapes = {name: {0: torch.export.Dim("batch")} for name in names} if export.is_open else None
        program = torch.onnx.export(
            made, (), kwargs=given, dynamo=True, input_names=names, dynamic_shapes=shapes, verbose=False
        )
        return without_origins(program.model_proto)


def _called(made: Any, names: list[str]) -> Any:
    """Return a module with positional inputs, which the older exporter needs."""
    from torch import nn

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.made = made

        def forward(self, *given: Any) -> Any:
            return self.made(**dict(zip(names, given, strict=True)))

    return Called().eval()


def without_origins(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter notes about this machine: stack traces with paths."""
    del model.metadata_props[:]
    for entry in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del entry.metadata_props[:]
    return model
