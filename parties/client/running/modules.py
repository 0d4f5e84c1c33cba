"""PyTorch modules as models: torch itself exports them, which whoever has a module has imported already."""

from __future__ import annotations

import importlib
import inspect
import io
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from mpc.errors import ModelError, UsageError
from mpc.text import shown

OPSET = 17
_ROWS = "rows"


def is_module(model: object) -> bool:
    """Say whether this is a `torch.nn.Module`; nothing is imported to know."""
    torch = sys.modules.get("torch")
    kind = getattr(getattr(torch, "nn", None), "Module", None)
    return isinstance(kind, type) and isinstance(model, kind)


def as_source(model: Any, sample: Any = None) -> Any:
    """Return a model as the compiler takes it: a module's ONNX file, anything else as it is.

    Args:
        sample: rows of the module's input, or of each by its name in `forward`: of their shapes alone, but for the
            number of rows, which stays open.

    Raises:
        UsageError: a module without a sample, a sample without a module, or one that is not its input.
        ModelError: torch cannot export it.
    """
    if not is_module(model):
        if sample is not None:
            raise UsageError("a sample is of a PyTorch module's input", remedy="leave sample out")
        return model
    if sample is None:
        raise UsageError(
            "a PyTorch module does not say the shape of its input", remedy="sample=x, some rows of it: zeros will do"
        )
    names, arguments = _arguments(model, sample)
    modes = [(each, each.training) for each in model.modules()]  # some may be frozen within one that trains
    try:
        model.train(False)  # as it is used: no dropout, and normalisation by the statistics that it has
        return _exported(model, names, arguments)
    finally:
        for each, training in modes:
            each.training = training


def idle(model: Any) -> tuple[str, ...]:
    """Note which dropouts of a module do nothing in the steps that train it, though they do in torch's."""
    if not is_module(model):
        return ()
    nn = sys.modules["torch"].nn
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    found = []
    for name, each in model.named_modules():
        part = each.p if isinstance(each, kinds) else getattr(each, "dropout", 0.0)  # as recurrent layers have it
        if isinstance(part, float) and part > 0:
            found.append(f"{shown(name)!r} ({type(each).__name__})")
    told = "do nothing: a step is that of the module in eval()"
    return (f"dropouts of {', '.join(found)} {told}",) if found else ()


def _arguments(module: Any, sample: Any) -> tuple[list[str], tuple[Any, ...]]:
    """Return names of inputs, as `forward` has them, and a tensor for each."""
    names = [name for name, each in inspect.signature(module.forward).parameters.items() if each.kind in _BY_PLACE]
    given = sample if isinstance(sample, Mapping) else dict(zip(names[:1], [sample], strict=False))
    mine = names[: len(given)]
    if not given or {*given} != {*mine}:
        raise UsageError(
            "the sample is not of the module's first inputs",
            cause=f"forward takes {', '.join(map(shown, names)) or 'none by name'}",
            remedy="give an array, or arrays by these names: sample={'x': x}",
        )
    return mine, tuple(_tensor(module, name, given[name]) for name in mine)


_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _tensor(module: Any, name: str, value: Any) -> Any:
    """Return a sample as a tensor of the module's own real type, where the module is."""
    torch = sys.modules["torch"]
    try:
        found = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"the sample of {shown(name)!r} is no array of numbers", remedy="sample=x") from None
    if not found.ndim:
        raise UsageError(f"the sample of {shown(name)!r} has no rows", remedy="sample=x, with one row an example")
    own = next((each for each in module.parameters() if each.is_floating_point()), None)
    if own is None or not found.is_floating_point():
        return found if own is None else found.to(own.device)
    return found.to(device=own.device, dtype=own.dtype)


def _exported(module: Any, names: list[str], arguments: tuple[Any, ...]) -> bytes:
    """Return the ONNX file that torch makes of a module, by the exporter that traces: it needs no further package."""
    torch, onnx = sys.modules["torch"], importlib.import_module("torch.onnx")
    try:
        with torch.no_grad():
            outputs = _outputs(module(*arguments), torch.Tensor)
        settings: dict[str, Any] = {
            "input_names": names,
            "output_names": outputs,
            "dynamic_axes": {name: {0: _ROWS} for name in (*names, *outputs)},
            "opset_version": OPSET,
            "do_constant_folding": False,  # which would lose what a normalisation trains
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            return _traced(onnx, module, arguments, settings)
    except UsageError:
        raise
    except Exception as error:  # torch has many, and modules raise what they like
        raise ModelError(
            f"torch does not export this module ({type(error).__name__})",
            cause=shown(str(error).split("\n", 1)[0][:300]) or None,
            remedy="export it yourself, and give the file: torch.onnx.export(module, sample, 'model.onnx')",
        ) from error


def _traced(onnx: Any, module: Any, arguments: tuple[Any, ...], settings: dict[str, Any]) -> bytes:
    known = inspect.signature(onnx.export).parameters
    written = io.BytesIO()
    tracing = {"dynamo": False} if "dynamo" in known else {}
    onnx.export(module, arguments, written, **tracing, **{k: v for k, v in settings.items() if k in known})
    return written.getvalue()


def _outputs(result: Any, tensor: type) -> list[str]:
    """Name what a module returns: output, or output.0 and so on."""
    if isinstance(result, tensor):
        return ["output"]
    if isinstance(result, tuple | list) and result and all(isinstance(each, tensor) for each in result):
        return [f"output.{place}" for place in range(len(result))]
    raise UsageError(
        f"the module returns {type(result).__name__}, and a model has tensors as outputs",
        remedy="wrap it in a module that returns one tensor, or a tuple of them",
    )
