"""Reading a model file: nothing outside its own folder is read, and onnx's checker has the first word.

It is asked about what `onnx_repair` makes of models that onnxruntime runs and the checker alone would refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any

import onnx
import onnx.inliner
import onnx.version_converter
from google.protobuf.message import DecodeError, EncodeError, Message
from onnx import TensorProto

from mpc.compiler.onnx.repair import checkable, repair
from mpc.errors import ModelError, UsageError

MAX_MODEL_BYTES = 1 << 31
OLDEST_OPSET = 7
CONVERTED_OPSET = 13


@dataclass(frozen=True)
class Loaded:
    """A model that was read and checked, for whoever compiles it more than once; nobody changes it.

    Raises:
        ModelError: numbers of it are in another file, which onnx would look for in the working directory.
    """

    model: onnx.ModelProto

    def __post_init__(self) -> None:
        _load_external(self.model, None)


Source = str | PurePath | bytes | bytearray | memoryview | IO[bytes] | onnx.ModelProto | Loaded
"""Everything that onnx and onnxruntime take as a model: a file's path, its content, an open file, or onnx's own object;
or one that was loaded before."""


def load_model(source: Source) -> onnx.ModelProto:
    """Read and check a model; one that was loaded before is taken as it is.

    Raises:
        ModelError: missing, not ONNX, external data outside its folder, or refused by onnx's checker.
        UsageError: the source is of no type that can be a model.
    """
    if isinstance(source, Loaded):
        return source.model
    if isinstance(source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        return _checked(copy, None)
    if isinstance(source, (str, PurePath)):
        path = Path(source)
        return _checked(_parsed(_content(path), path), path)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _checked(_parsed(bytes(source), None), None)
    content = _read(source)
    if not isinstance(content, bytes):
        raise UsageError(
            f"a model cannot be {_kind(source, content)}",
            remedy="give an ONNX file's path, its content as bytes, a file opened with 'rb', or an onnx.ModelProto",
        )
    return _checked(_parsed(content, None), None)


def in_one(path: Path) -> bytes:
    """Return a model's file as it is, or with all numbers in it that are stored beside it; nothing else is read.

    Raises:
        ModelError: missing, not ONNX, external data outside its folder, or more than a file can hold.
    """
    content = _content(path)
    model = _parsed(content, path)
    if is_whole(model):
        return content
    try:
        _load_external(model, path)
        return model.SerializeToString()
    except (ValueError, OSError, EncodeError):  # ValueError: beyond 2 GiB, too
        raise ModelError(
            f"{path} and what is stored beside it make no one model", remedy="export it anew, of less than 2 GiB"
        ) from None


def _read(source: Any) -> object:
    """Read an open file; None if it is none, or a closed one."""
    try:
        return source.read()
    except Exception:  # whatever an object of the caller's raises
        return None


def _kind(source: object, content: object) -> str:
    return f"of type {type(source).__name__}" if content is None else f"a file that gives {type(content).__name__}"


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ModelError(
                f"no model file at {path}",
                remedy="check the path; a relative one starts at the working directory",
            )
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise ModelError(f"{path} is larger than 2 GiB", remedy="store its weights as external data")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        raise ModelError(f"{path} cannot be read: {error}", remedy="check the path and its permissions") from None


def _parsed(content: bytes, path: Path | None) -> onnx.ModelProto:
    if not content:
        raise ModelError(f"{_named(path)} is empty", cause="its export was cut short", remedy="export the model again")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise ModelError(f"{_named(path)} is not an ONNX model", remedy=_what_else(content)) from None
    return model


def _checked(model: onnx.ModelProto, path: Path | None) -> onnx.ModelProto:
    """A model as the importer takes it: its weights in it, no functions, a modern opset."""
    if not model.graph.node and not model.graph.output:
        raise ModelError(f"{_named(path)} is not an ONNX model", remedy="export the model to ONNX")
    try:
        _load_external(model, path)
        repair(model)
        onnx.checker.check_model(checkable(model))
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        return _modern(model)
    except ModelError:
        raise
    except (onnx.checker.ValidationError, ValueError, TypeError, OSError) as error:
        reason = str(error).strip().split("\n", 1)[0][:300]
        raise ModelError(f"{_named(path)} is not a valid ONNX model: {reason}", remedy=_repair(reason)) from None


_REPAIRS = {
    "topologically sorted": "give the graph a node or an input of that name; nodes may not read in a circle",
    "is not an output of any node": "take it off the outputs of the model's graph, or name there what a node writes",
    "deprecated": "export it for another opset (in torch opset_version=17), or with the operator's successor",
    "No Op registered": "export it for another opset (in torch opset_version=17), or replace the operator",
    "attribute": "write the attribute as the operator's page of ONNX has it, or export the model anew",
}
"""The remedy, by what onnx's checker says."""


def _repair(reason: str) -> str:
    anew = "export it anew; onnx.checker.check_model(model, full_check=True) shows the fault where the model is made"
    return next((remedy for words, remedy in _REPAIRS.items() if words in reason), anew)


def _named(path: Path | None) -> str:
    return "the model" if path is None else str(path)


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


def _what_else(content: bytes) -> str:
    if content[:1] == b"{":
        return "a plan has no weights: name the ONNX model that it was compiled from"
    return "export the model to ONNX"


def is_whole(model: onnx.ModelProto) -> bool:
    """Tell whether a model has all its numbers in it, and none in another file."""
    return not any(tensor.data_location == TensorProto.EXTERNAL for tensor in _tensors(model))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model: of nodes' attributes, bodies at any depth, functions and sparse tensors too."""
    waiting: list[Message] = [model]
    while waiting:
        message = waiting.pop()
        if isinstance(message, TensorProto):
            yield message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if isinstance(value, Message) else value)


def _load_external(model: onnx.ModelProto, path: Path | None) -> None:
    """Read all that is stored beside the model: onnx itself would look for it in the working directory."""
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        name = tensor.name or location
        if path is None:
            raise ModelError(
                f"weight {name!r} is in another file", remedy="give the path of the model, which says where"
            )
        target = _beside(path, PurePosixPath(location), name)
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        if min(offset, length) < 0 or offset + length > target.stat().st_size:
            raise ModelError(
                f"weight {name!r} has bytes that {location!r} has not",
                remedy="copy the whole file to the model's folder once more, or export the model anew",
            )
        with target.open("rb") as data:
            data.seek(offset)
            tensor.raw_data = data.read(length) if length else data.read()
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _beside(path: Path, location: PurePosixPath, weight: str) -> Path:
    """The file of a weight: a regular one in the model's own folder.

    A model hub's cache has links to files under other names: there the weights are beside the file that the model's
    own link leads to.
    """
    folder = path.parent
    target, real, home = folder / location, (folder / location).resolve(), path.resolve().parent
    outside = location.is_absolute() or ".." in location.parts or not location.parts
    within = real.parent == home if target.is_symlink() else real.is_relative_to(folder.resolve())
    if outside or not within:
        raise ModelError(
            f"weight {weight!r} points outside the model's folder",
            remedy="put the file that has it beside the model; a link may lead to a file beside the real model only",
        )
    if not real.is_file():
        raise ModelError(
            f"weight {weight!r} is in {str(location)!r}, which is not beside the model",
            remedy=(
                "copy the file that has it to the model's folder, or save the model in one file "
                "(onnx.save without save_as_external_data)"
            ),
        )
    return real
