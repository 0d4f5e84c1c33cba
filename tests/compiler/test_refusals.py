"""What cannot be done is refused by name: the node, the operator, the attribute, the remedy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.compiler.onnx.declared import parse_range
from mpc.compiler.onnx.load import Source
from mpc.errors import ModelError, UsageError
from tests.support.graphs import node, save_model

W = {"w": np.ones((4, 3), np.float32)}


def _refused(path: Source, *words: str, **ranges: tuple[float, float]) -> ModelError:
    with pytest.raises(ModelError) as caught:
        compile_model(path, ranges or None)
    text = " ".join(caught.value.lines())
    for word in words:
        assert word in text, text
    return caught.value


def test_missing_file(tmp_path: Path) -> None:
    _refused(tmp_path / "none.onnx", "no model file", "none.onnx")


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 100, b"{}", b"\x08\x07" * 50, bytes(range(256))])
def test_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    _refused(path, "not a")


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    _refused(path, "is empty", "export the model again")


def test_truncated_and_bit_flipped_files_are_refused_or_compile(tmp_path: Path) -> None:
    data = save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], W).read_bytes()
    path = tmp_path / "damaged.onnx"
    for position in range(0, len(data), 3):
        for damaged in (data[:position], data[:position] + bytes([data[position] ^ 0x41]) + data[position + 1 :]):
            path.write_bytes(damaged)
            try:
                compile_model(path)
            except ModelError:
                continue


def test_unsupported_operator_names_its_node(tmp_path: Path) -> None:
    error = _refused(save_model(tmp_path, [node("Det", ["x"], ["y"], name="weird")]), "'weird'", "Det", "not supported")
    assert (error.node, error.operator) == ("weird", "Det")


def test_operator_of_another_domain(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Gemm", ["x", "w"], ["y"], domain="com.example")], W)
    _refused(path)


def test_attribute_is_named(tmp_path: Path) -> None:
    nodes = [node("Resize", ["x", "", "s"], ["y"], mode="cubic")]
    path = save_model(tmp_path, nodes, {"s": np.array([1, 2], np.float32)}, shape=(4, 4))
    assert _refused(path, "'resize'", "cubic").attribute == "mode"


def test_a_ranking_of_too_many(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("TopK", ["x", "k"], ["y", "i"])], {"k": np.array([3])}, shape=("batch", 400))
    _refused(path, "3 largest of 400", "256")


def test_what_needs_all_rows_at_once(tmp_path: Path) -> None:
    """Rows of an open batch are independent; a model with a fixed batch may do what it likes with them."""
    for nodes in ([node("ReduceMean", ["x"], ["y"], axes=[0])], [node("Softmax", ["x"], ["y"], axis=0)]):
        _refused(save_model(tmp_path, nodes), "batch")
        compile_model(save_model(tmp_path, nodes, shape=(3, 4)))


@pytest.mark.parametrize("function", ["Log", "Reciprocal"])
def test_arguments_outside_the_domain(tmp_path: Path, function: str) -> None:
    _refused(save_model(tmp_path, [node(function, ["x"], ["y"])]), "defined above 0", "--range", x=(-4.0, 4.0))


def test_a_denominator_that_can_be_zero_is_noted(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Reciprocal", ["x"], ["y"], name="inverse")])
    [note] = compile_model(path, {"x": (0.0, 4.0)}).notes
    assert "'inverse'" in note and "can be 0" in note
    assert not compile_model(path, {"x": (0.5, 4.0)}).notes


def test_integers_are_divided_by_constants_alone(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Div", ["x", "x"], ["y"])], element=TensorProto.INT64)
    _refused(path, "integers", "constant")


def test_an_empty_dimension(tmp_path: Path) -> None:
    _refused(save_model(tmp_path, [node("Relu", ["x"], ["y"])], shape=("batch", 0)), "dimension 1 is 0")


def test_only_the_first_dimension_may_be_open(tmp_path: Path) -> None:
    _refused(save_model(tmp_path, [node("Relu", ["x"], ["y"])], shape=("batch", "length")), "dimension 1", "length")


def test_strings_are_no_input(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Identity", ["x"], ["y"])], element=TensorProto.STRING)
    _refused(path, "string", "float32")


def test_old_opsets_are_converted_by_onnx_or_refused(tmp_path: Path) -> None:
    compiled = compile_model(save_model(tmp_path, [node("Relu", ["x"], ["y"])], opset=6))
    assert [gate.kind for gate in compiled.plan.gates] == ["input", "relu"]
    path = save_model(tmp_path, [node("Upsample", ["x"], ["y"], width_scale=2.0, height_scale=2.0)], opset=1)
    _refused(path, "opset 1")


def test_cycle(tmp_path: Path) -> None:
    _refused(save_model(tmp_path, [node("Relu", ["z"], ["y"]), node("Relu", ["y"], ["z"], name="back")]))


def test_output_that_depends_on_nothing(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.ones(3, np.float32))
    path = save_model(tmp_path, [node("Constant", [], ["y"], value=value)])
    _refused(path, "'y'", "does not depend")


def test_identity_reveals_the_input_and_is_allowed_only_with_a_fresh_mask(tmp_path: Path) -> None:
    compiled = compile_model(save_model(tmp_path, [node("Identity", ["x"], ["y"])]))
    assert [gate.kind for gate in compiled.plan.gates] == ["input", "truncate"]


def test_infinite_weight(tmp_path: Path) -> None:
    weights = {"w": np.full((4, 3), np.inf, np.float32)}
    _refused(save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], weights), "infinite")


@pytest.mark.parametrize("operator", ["Add", "Max", "Mul"])
def test_a_constant_that_no_scale_has_room_for(tmp_path: Path, operator: str) -> None:
    huge = {"k": np.float32(3e38) * np.array([1, 0.5, 0.3, 0.1], np.float32)}
    _refused(save_model(tmp_path, [node(operator, ["x", "k"], ["y"])], huge), f"'{operator.lower()}'", "large")


def test_huge_dimension_allocates_nothing(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Relu", ["x"], ["y"])], shape=("batch", 1 << 40))
    _refused(path, "x")


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret.bin", "sub/../../secret.bin", "", "link.bin", "."])
def test_external_data_outside_the_folder_is_not_read(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones((4, 3), np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = save_model(folder, [node("MatMul", ["x", "w"], ["y"])], W)
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    _refused(path, "'w'")


def hub(folder: Path, location: str = "weights.bin") -> tuple[Path, Path]:
    """A model with its weights elsewhere, as a model hub's cache has it: links to files named by their content.

    Returns the model's link and the weights' link.
    """
    for name in ("blobs", "snapshots/main"):
        (folder / name).mkdir(parents=True)
    model = onnx.load(save_model(folder / "blobs", [node("MatMul", ["x", "w"], ["y"])], W))
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "blobs" / "2f1c").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    (folder / "blobs" / "90ab").write_bytes(model.SerializeToString())
    links = folder / "snapshots" / "main" / "model.onnx", folder / "snapshots" / "main" / "weights.bin"
    for link, blob in zip(links, ("90ab", "2f1c"), strict=True):
        link.symlink_to(f"../../blobs/{blob}")
    return links


def test_weights_behind_links_of_a_model_hub_are_read(tmp_path: Path) -> None:
    model, _ = hub(tmp_path)
    [weights] = compile_model(model, {"x": (-1.0, 1.0)}).weights.values()
    assert weights.shape == W["w"].shape and weights.any()


@pytest.mark.parametrize("target", ["/etc/hostname", "../../secret.bin", "../../blobs/sub/deep.bin", "sub/near.bin"])
def test_links_of_weights_that_lead_elsewhere_are_not(tmp_path: Path, target: str) -> None:
    """Only a file right beside the real model; a link in a link, or a model that is no link, changes nothing."""
    model, weights = hub(tmp_path)
    content = weights.read_bytes()
    for name in ("secret.bin", "blobs/sub/deep.bin", "snapshots/main/sub/near.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    weights.unlink()
    weights.symlink_to(target)
    _refused(model, "'w'", "outside", x=(-1.0, 1.0))
    (weights.parent / "second").symlink_to(target)
    weights.unlink()
    weights.symlink_to("second")
    _refused(model, "'w'", "outside", x=(-1.0, 1.0))


def test_a_model_in_any_form_that_onnxruntime_takes_is_the_same(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], W)
    content, ranges = path.read_bytes(), {"x": (-1.0, 1.0)}
    known = compile_model(path, ranges)
    for form in (str(path), content, bytearray(content), memoryview(content), io.BytesIO(content), onnx.load(path)):
        compiled = compile_model(form, ranges)
        assert compiled.plan.digest == known.plan.digest
        assert all(np.array_equal(compiled.weights[name], known.weights[name]) for name in known.weights)
    with path.open("rb") as file:
        assert compile_model(file, ranges).plan.digest == known.plan.digest


@pytest.mark.parametrize(
    "form", [None, 3, [], {}, io.StringIO("x"), np.zeros(3), object()], ids=lambda form: type(form).__name__
)
def test_what_can_be_no_model(form: object) -> None:
    with pytest.raises(UsageError, match="a model cannot be") as caught:
        compile_model(form)  # type: ignore[arg-type]
    assert "onnx.ModelProto" in (caught.value.remedy or "")


@pytest.mark.parametrize("form", [b"", b"{}", b"\xff" * 9, "", "\0", "no.onnx", io.BytesIO(b"x"), onnx.ModelProto()])
def test_models_that_are_none(form: Source) -> None:
    with pytest.raises(ModelError):
        compile_model(form)


def test_weights_elsewhere_need_the_models_path(tmp_path: Path) -> None:
    model, _ = hub(tmp_path)
    for form in (model.read_bytes(), onnx.load(model, load_external_data=False)):
        _refused(form, "'w'", "another file", x=(-1.0, 1.0))


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "a:b", "2:1", "0:inf", "nan:1", "0:1,2", "0:1:2"])
def test_ranges_that_are_none(tmp_path: Path, text: str) -> None:
    path = save_model(tmp_path, [node("Relu", ["x"], ["y"])], metadata={"mpc.range.x": text})
    with pytest.raises(ModelError):
        compile_model(path)


def test_range_for_an_input_that_is_not_there(tmp_path: Path) -> None:
    _refused(save_model(tmp_path, [node("Relu", ["x"], ["y"])]), "'z'", "'x'", z=(0.0, 1.0))


def test_range_with_a_wrong_number_of_columns(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Relu", ["x"], ["y"])])
    with pytest.raises(ModelError, match="columns"):
        compile_model(path, {"x": ((0.0, 0.0), (1.0, 1.0))})


def test_ranges_are_parsed() -> None:
    assert parse_range("-1.5:2") == (-1.5, 2.0)
    assert parse_range("0:1,-2:4") == ((0.0, -2.0), (1.0, 4.0))


def test_a_bound_that_does_not_fit_names_the_node_and_the_remedy(tmp_path: Path) -> None:
    layers = [node("MatMul", [f"h{i}" if i else "x", "w"], [f"h{i + 1}"], name=f"layer{i}") for i in range(0)]
    names = ["x"] + [f"h{i}" for i in range(8)] + ["y"]
    for index, (before, after) in enumerate(zip(names, names[1:], strict=False)):
        layers.append(node("MatMul", [before, "w"], [f"{after}.in"], name=f"layer{index}"))
        layers.append(node("Relu", [f"{after}.in"], [after], name=f"relu{index}"))
    path = save_model(tmp_path, layers, {"w": np.full((4, 4), 500.0, np.float32)})
    _refused(path, "layer", "can reach", "--range")
