"""Reading a model file: nothing outside its own folder is read, and onnx's checker has the first word."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import onnx
import onnx.inliner
import onnx.version_converter
from google.protobuf.message import DecodeError
from onnx import TensorProto

from mpc.errors import ModelError

MAX_MODEL_BYTES = 1 << 31
OLDEST_OPSET = 7
CONVERTED_OPSET = 13


def load_model(path: Path) -> onnx.ModelProto:
    """Read and check a model file.

    Raises:
        ModelError: missing, not ONNX, external data outside its folder, or refused by onnx's checker.
    """
    if not path.is_file():
        raise ModelError(f"no model file at {path}", remedy="check the path")
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise ModelError(f"{path} is larger than 2 GiB", remedy="store its weights as external data")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        if not model.graph.node and not model.graph.output:
            raise ModelError(f"{path} is not an ONNX model", remedy="export the model to ONNX")
        _load_external(model, path.parent)
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        model = _modern(model)
    except ModelError:
        raise
    except DecodeError:
        raise ModelError(f"{path} is not an ONNX model", remedy=_what_else(path)) from None
    except (onnx.checker.ValidationError, ValueError, TypeError, OSError) as error:
        reason = str(error).strip().split("\n", 1)[0][:300]
        raise ModelError(f"{path} is not a valid ONNX model: {reason}") from None
    return model


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """Models of the oldest opsets, converted by onnx itself."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions or min(versions) >= OLDEST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, CONVERTED_OPSET)
    except Exception as error:  # whatever the converter raises is a refusal
        raise ModelError(
            f"the model has opset {min(versions)}, and onnx cannot convert it: {str(error).splitlines()[0][:200]}",
            remedy=f"export it with opset {OLDEST_OPSET} or newer",
        ) from None


def _what_else(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(1) == b"{":
            return "a plan has no weights: name the ONNX model that it was compiled from"
    return "export the model to ONNX"


def _load_external(model: onnx.ModelProto, folder: Path) -> None:
    """Weights beside the model: regular files in its own folder, nothing else."""
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = PurePosixPath(entries.get("location", ""))
        target = folder / location
        outside = location.is_absolute() or ".." in location.parts or not location.parts
        if outside or target.is_symlink() or not target.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"weight {tensor.name!r} points outside the model's folder")
        if not target.is_file():
            raise ModelError(f"weight {tensor.name!r} is in {str(location)!r}, which is not beside the model")
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        with target.open("rb") as data:
            data.seek(offset)
            tensor.raw_data = data.read(length) if length else data.read()
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
