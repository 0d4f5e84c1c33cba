"""Weights in a file beside the model: read from there wherever the model has them, and from nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mpc.compiler.compile import compile_model
from mpc.compiler.onnx.load import Loaded, in_one, is_whole, load_model
from mpc.errors import ModelError
from parties.bench.plaintext import baselines
from tests.support.beside import FILE, KINDS, SIZE, beside, write_weights

RANGES = {"x": (-1.0, 1.0)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's folder; in the working directory, another one, are other weights of the same name."""
    for name in ("model", "elsewhere"):
        (tmp_path / name).mkdir()
    write_weights(tmp_path / "model", 0.5)
    write_weights(tmp_path / "elsewhere", 0.125)
    write_weights(tmp_path, 0.25)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "model"


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_read_from_beside_the_model_wherever_they_stand(folder: Path, kind: str) -> None:
    path = saved(folder, beside(kind))
    assert is_whole(load_model(path))
    compiled = compile_model(path, RANGES)
    scales = {wire.name: wire.scale for wire in compiled.plan.wires}
    [(name, weights)] = [each for each in compiled.weights.items() if each[1].size == SIZE * SIZE]
    assert np.all(weights.astype(float) / float(scales[name]) == 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_a_path_has_all_its_weights_in_it(folder: Path, kind: str) -> None:
    model = beside(kind)
    for form in (model, model.SerializeToString()):
        with pytest.raises(ModelError, match="'w' is in another file"):
            load_model(form)


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "no.bin"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_beside_the_model_are_not_read(folder: Path, kind: str, location: str) -> None:
    with pytest.raises(ModelError, match="'w'.* (outside|not beside) the model"):
        load_model(saved(folder, beside(kind, location)))


@pytest.mark.parametrize(("key", "value"), [("offset", 37), ("offset", -1), ("length", 37), ("length", 10**30)])
def test_weights_that_their_file_does_not_have_are_not_read(folder: Path, key: str, value: int) -> None:
    model = beside("initialiser")
    model.graph.initializer[0].external_data.add(key=key, value=str(value))
    with pytest.raises(ModelError, match=r"'w' has bytes that 'w\.bin' has not"):
        load_model(saved(folder, model))


def test_every_tensor_of_a_model_is_found(folder: Path) -> None:
    """Whatever nodes may have that nothing here compiles: lists of tensors, of graphs and of sparse tensors."""

    def outside(location: str = "no.bin") -> TensorProto:
        tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        return tensor

    graph = onnx.GraphProto(initializer=[outside()])
    sparse = onnx.SparseTensorProto(values=outside(), dims=[1])
    attributes = [
        {"t": outside()}, {"tensors": [outside()]}, {"g": graph}, {"graphs": [graph]},
        {"sparse_tensor": sparse}, {"sparse_tensors": [sparse]},
        {"sparse_tensor": onnx.SparseTensorProto(indices=outside(), dims=[1])},
        {"g": onnx.GraphProto(sparse_initializer=[sparse])},
    ]  # fmt: skip
    for said in attributes:
        attribute = onnx.AttributeProto(name="a", **said)
        node = onnx.NodeProto(op_type="Any", attribute=[attribute])
        models = [onnx.ModelProto(graph=onnx.GraphProto(node=[node])), onnx.ModelProto()]
        models[1].CopyFrom(beside("function", FILE))
        models[1].functions[0].node[0].CopyFrom(node)
        defaults = onnx.ModelProto()
        defaults.CopyFrom(models[1])
        defaults.functions[0].node[0].Clear()
        defaults.functions[0].attribute_proto.append(attribute)
        trained = onnx.ModelProto()
        trained.CopyFrom(beside("initialiser", FILE))
        trained.training_info.add(algorithm=onnx.GraphProto(node=[node]))
        for model in (*models, defaults, trained):
            assert not is_whole(model)
            with pytest.raises(ModelError, match=r"'no\.bin' is in 'no\.bin', which is not beside the model"):
                load_model(saved(folder, model))
    assert is_whole(helper.make_model(onnx.GraphProto()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_has_all_its_weights_in_it(folder: Path, kind: str) -> None:
    """Whoever makes one by hand, without `load_model`, has onnx look for none in the working directory."""
    with pytest.raises(ModelError, match="'w' is in another file"):
        Loaded(beside(kind))
    assert is_whole(Loaded(load_model(saved(folder, beside(kind)))).model)


@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_is_given_what_lies_beside_the_model_and_reads_no_file(folder: Path, kind: str) -> None:
    path = saved(folder, beside(kind))
    [answer] = [each.answer for each in baselines(path, 1) if each.key == "plaintext_s"]
    assert answer is not None
    [found] = answer({"x": np.ones((1, SIZE), np.float32)})
    [expected] = onnxruntime.InferenceSession(path).run(None, {"x": np.ones((1, SIZE), np.float32)})
    assert np.array_equal(found, expected)
    whole = onnx.load(path)
    assert in_one(saved(folder, whole)) == whole.SerializeToString()


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "no.bin"])
@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_is_given_nothing_from_elsewhere(folder: Path, kind: str, location: str) -> None:
    with pytest.raises(ModelError, match="'w'.* (outside|not beside) the model"):
        baselines(saved(folder, beside(kind, location)), 1)
