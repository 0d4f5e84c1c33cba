"""What a model writes into parts of a value at public places, and Fourier transforms: nothing is compared or opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from mpc.plan.cost import plan_cost
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees

RNG = np.random.default_rng(15)
BASE = RNG.standard_normal((4, 3)).astype(np.float32)
X = {"x": RNG.uniform(-2, 2, (4, 3)).astype(np.float32)}


def costs_nothing(path: Path, feeds: dict[str, np.ndarray], tolerance: float = 1e-5) -> None:
    """One round, in which outputs are opened."""
    ranges = {"x": (-2.0, 2.0)} if feeds["x"].dtype == np.float32 else None
    compiled = assert_agrees(path, feeds, ranges, tolerance)
    assert plan_cost(compiled.plan, 1).rounds == 1


SCATTERS: dict[str, tuple[str, list[str], Any, dict[str, Any]]] = {
    "rows of data into a constant": ("ScatterND", ["base", "at", "x"], [[3], [1], [0], [2]], {}),
    "rows of a constant into data": ("ScatterND", ["x", "at", "two"], [[3], [-3]], {}),
    "elements": ("ScatterND", ["x", "at", "pair"], [[0, 2], [3, -1]], {}),
    "sums": ("ScatterND", ["base", "at", "x"], [[1], [1], [0], [-1]], {"reduction": "add"}),
    "a column": ("ScatterElements", ["x", "at", "ones"], [[2]] * 4, {"axis": 1}),
    "all of a column": ("ScatterElements", ["x", "at", "base"], [[0, 1, 2], [3, 2, 1], [2, 3, 0], [1, 0, 3]], {}),
    "sums of elements": ("ScatterElements", ["base", "at", "x"], [[0, 0, 2]] * 4, {"axis": -1, "reduction": "add"}),
}
CONSTANTS = {"base": BASE, "two": BASE[:2], "pair": BASE[0, :2].copy(), "ones": np.ones((4, 1), np.float32)}


@pytest.mark.parametrize("case", SCATTERS)
def test_writing_at_public_places(tmp_path: Path, case: str) -> None:
    operator, reads, places, settings = SCATTERS[case]
    constants = {**CONSTANTS, "at": np.array(places)}
    costs_nothing(save_model(tmp_path, [node(operator, reads, ["y"], **settings)], constants, (4, 3), opset=18), X)


@pytest.mark.parametrize("how", ["mul", "min", "max"])
@pytest.mark.parametrize("operator", ["ScatterND", "ScatterElements"])
def test_writing_what_is_put_together(tmp_path: Path, operator: str, how: str) -> None:
    """Two updates meet in one place, and come one after the other."""
    places, reads = (
        ([[1], [3], [1]], ["x", "at", "three"]) if operator == "ScatterND" else ([[1], [1]] * 2, ["x", "at", "ones"])
    )
    constants = {"three": BASE[:3], "ones": -np.ones((4, 1), np.float32), "at": np.array(places)}
    settings = {"axis": 0} if operator == "ScatterElements" else {}
    nodes = [node(operator, reads, ["y"], reduction=how, **settings)]
    kept = {name: value for name, value in constants.items() if name in reads}
    assert_agrees(save_model(tmp_path, nodes, kept, (4, 3), opset=18), X, {"x": (-2.0, 2.0)}, 1e-4)


@pytest.mark.parametrize("fill", [-np.inf, -3.4028234663852886e38])
@pytest.mark.parametrize("operator", ["ScatterND", "ScatterElements"])
def test_the_largest_message_of_each_node_beside_nodes_that_have_none(
    tmp_path: Path, operator: str, fill: float
) -> None:
    """As graph attention is exported: what is there already is less than any number, where a message comes."""
    places = [[2], [0], [2], [2]] if operator == "ScatterND" else [[2] * 3, [0] * 3, [2] * 3, [2, 2, 1]]
    there = np.zeros((4, 3), np.float32)
    there[[0, 2]] = fill
    if operator == "ScatterElements":
        there[1, 2] = fill
    nodes = [
        node(operator, ["there", "at", "x"], ["most"], reduction="max"),
        node("Gather", ["most", "known"], ["y"], name="known", axis=0),
    ]
    constants = {"there": there, "at": np.array(places), "known": np.array([2, 0, 3])}
    compiled = assert_agrees(save_model(tmp_path, nodes, constants, (4, 3), opset=18), X, {"x": (-2.0, 2.0)}, 1e-4)
    nodes[0] = node(operator, ["there", "at", "x"], ["most"], reduction="min")
    mirrored = save_model(tmp_path, nodes, {**constants, "there": -there}, (4, 3), opset=18)
    assert plan_cost(assert_agrees(mirrored, X, {"x": (-2.0, 2.0)}, 1e-4).plan, 1) == plan_cost(compiled.plan, 1)


def test_ids_that_are_shifted_are_still_places(tmp_path: Path) -> None:
    """As a decoder of BART enters what its encoder read, one later; nothing is compared."""
    nodes = [
        node("Slice", ["x", "zero", "last", "one"], ["s"]),
        node("Transpose", ["s"], ["t"], perm=[1, 0]),
        node("ScatterND", ["empty", "at", "t"], ["m"]),
        node("Transpose", ["m"], ["u"], name="back", perm=[1, 0]),
        node("ScatterElements", ["u", "first", "begin"], ["k"], axis=1),
        node("Equal", ["k", "ignored"], ["e"]),
        node("Cast", ["e"], ["b"], to=TensorProto.BOOL),
        node("Where", ["b", "padding", "k"], ["ids"]),
        node("Gather", ["table", "ids"], ["decoded"]),
        node("Gather", ["table", "x"], ["encoded"], name="encoder"),
        node("Add", ["decoded", "encoded"], ["y"]),
    ]
    constants = {
        "ignored": np.array(-100), "padding": np.array(1),
        "zero": np.array([0]), "last": np.array([-1]), "one": np.array([1]), "empty": np.zeros((4, 1), np.int64),
        "at": np.array([[1], [2], [3]]), "first": np.array([[0]]), "begin": np.array([[2]]), "table": BASE,
    }  # fmt: skip
    path = save_model(tmp_path, nodes, constants, (1, 4), element=TensorProto.INT64)
    compiled = assert_agrees(path, {"x": np.array([[3, 0, 1, 2]])}, None, 1e-5)
    assert not any(gate.kind in ("step", "onehot") for gate in compiled.plan.gates)


def test_minus_infinity_in_a_part_of_scores_is_a_mask(tmp_path: Path) -> None:
    """As Longformer hides the ends of its windows, in an array that its parts are written into."""
    hidden = np.array([[True, False], [False, True], [False, False], [True, False]])
    nodes = [
        node("Slice", ["x", "zero", "two", "one"], ["s"]),
        node("Where", ["hidden", "least", "s"], ["w"]),
        node("Shape", ["w"], ["sizes"]),
        node("Expand", ["w", "sizes"], ["v"]),
        node("ScatterElements", ["x", "places", "v"], ["scores"], axis=1),
        node("Softmax", ["scores"], ["y"]),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "hidden": hidden,
        "least": np.float32(-np.inf), "places": np.tile(np.arange(2), (4, 1)),
    }  # fmt: skip
    assert_agrees(save_model(tmp_path, nodes, constants, (4, 3)), X, {"x": (-2.0, 2.0)}, 1e-4)


def test_each_row_of_an_open_batch_is_written_into(tmp_path: Path) -> None:
    """As the older exporter writes y[:, 1] = x[:, 0] with an open batch."""
    nodes = [
        node("Shape", ["x"], ["sizes"]),
        node("Gather", ["sizes", "first"], ["n"], name="n"),
        node("Range", ["first", "n", "one"], ["r"]),
        node("Unsqueeze", ["r", "behind"], ["r1"], name="r1"),
        node("Concat", ["n1", "place"], ["wide"], axis=0, name="wide"),
        node("Unsqueeze", ["n", "front"], ["n1"], name="n1"),
        node("Expand", ["one", "wide"], ["c1"]),
        node("Concat", ["r1", "c1"], ["k"], axis=1),
        node("Gather", ["x", "first"], ["u"], axis=1, name="u"),
        node("ScatterND", ["x", "k", "u"], ["y"]),
    ]
    nodes[4], nodes[5] = nodes[5], nodes[4]
    constants = {
        "first": np.array(0), "one": np.array(1), "behind": np.array([1]), "front": np.array([0]),
        "place": np.array([1]),
    }  # fmt: skip
    costs_nothing(save_model(tmp_path, nodes, constants, ("batch", 3)), X)


def test_what_is_no_move_is_refused(tmp_path: Path) -> None:
    outside = [node("ScatterND", ["x", "at", "two"], ["y"])]
    path = save_model(tmp_path, outside, {**CONSTANTS, "at": np.array([[0], [4]])}, (4, 3), opset=18)
    with pytest.raises(ModelError, match="an index outside"):
        compile_model(path)
    path = save_model(tmp_path, outside, {**CONSTANTS, "at": np.array([[0], [1]])}, ("batch", 3), opset=18)
    with pytest.raises(ModelError, match="rows of the batch"):
        compile_model(path)


@pytest.mark.parametrize(
    ("strides", "pads", "dilations"),
    [([1, 1], [0] * 4, [1, 1]), ([2, 2], [0, 1, 0, 1], [1, 1]), ([1, 1], [1] * 4, [2, 1])],
)
def test_blocks_are_added_up_where_they_overlap(
    tmp_path: Path, strides: list[int], pads: list[int], dilations: list[int]
) -> None:
    counts = [(5 + pads[i] + pads[i + 2] - dilations[i] - 1) // strides[i] + 1 for i in (0, 1)]
    shape = ("batch", 8, counts[0] * counts[1])
    nodes = [node("Col2Im", ["x", "image", "block"], ["y"], strides=strides, pads=pads, dilations=dilations)]
    path = save_model(tmp_path, nodes, {"image": np.array([5, 5]), "block": np.array([2, 2])}, shape, opset=18)
    costs_nothing(path, {"x": RNG.uniform(-2, 2, (3, *shape[1:])).astype(np.float32)})


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    ("settings", "length"), [({}, None), ({"inverse": 1}, None), ({}, 4), ({}, 8), ({"onesided": 1}, None)]
)
def test_fourier_transforms(tmp_path: Path, parts: int, settings: dict[str, int], length: int | None) -> None:
    if parts == 2 and settings.get("onesided"):
        pytest.skip("half a spectrum is of real numbers")
    constants = {"axis": np.array(1)}
    if length is not None:
        constants["length"] = np.array(length)
    nodes = [node("DFT", ["x", "" if length is None else "length", "axis"], ["y"], **settings)]
    path = save_model(tmp_path, nodes, constants, ("batch", 6, 3, parts), opset=20)
    x = {"x": RNG.uniform(-2, 2, (2, 6, 3, parts)).astype(np.float32)}
    compiled = assert_agrees(path, x, {"x": (-2.0, 2.0)}, 1e-4)
    assert plan_cost(compiled.plan, 1).rounds == 2
    nodes = [node("DFT", ["x", *(["length"] if length is not None else [])], ["y"], axis=1, **settings)]
    constants.pop("axis")
    assert_agrees(save_model(tmp_path, nodes, constants, ("batch", 6, 3, parts), opset=17), x, {"x": (-2.0, 2.0)}, 1e-4)


@pytest.mark.parametrize(("length", "opset"), [(None, 17), (10, 20), (11, 20), (10, 17)])
def test_the_inverse_of_half_a_spectrum_is_real(tmp_path: Path, length: int | None, opset: int) -> None:
    """As state space models and Fourier layers multiply by long kernels: rfft, a product, irfft."""
    numbers = {"axis": np.array(1)} if opset == 20 else {}
    reads = ["x", "" if length is None else "length", "axis"][: 3 if opset == 20 else 1 + (length is not None)]
    if length is not None:
        numbers["length"] = np.array(length)
    settings = {"inverse": 1, "onesided": 1} | ({"axis": 1} if opset == 17 else {})
    path = save_model(tmp_path, [node("DFT", reads, ["y"], **settings)], numbers, ("batch", 6, 3, 2), opset=opset)
    x = {"x": RNG.uniform(-2, 2, (2, 6, 3, 2)).astype(np.float32)}
    assert assert_agrees(path, x, {"x": (-2.0, 2.0)}, 1e-4).plan.outputs[0].shape == ("batch", length or 10, 3, 1)


def test_half_a_spectrum_that_is_not_all_there_is_refused(tmp_path: Path) -> None:
    nodes = [node("DFT", ["x", "length", "axis"], ["y"], inverse=1, onesided=1)]
    numbers = {"axis": np.array(1), "length": np.array(12)}
    with pytest.raises(ModelError, match="6 frequencies to 12 numbers.*the 7 frequencies.*10 or 11"):
        compile_model(save_model(tmp_path, nodes, numbers, ("batch", 6, 3, 2), opset=20), {"x": (-2.0, 2.0)})


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("given", ["window", "length", "both"])
def test_spectra_of_parts_of_a_signal(tmp_path: Path, given: str, half: int) -> None:
    """As exporters write the spectrogram that a model of speech begins with."""
    window, length = np.hanning(8).astype(np.float32) if given != "length" else None, given != "window"
    numbers: dict[str, np.ndarray] = {"step": np.array(3)}
    numbers |= {"window": window} if window is not None else {}
    numbers |= {"length": np.array(8)} if length else {}
    reads = ["x", "step", "window" if window is not None else "", *(["length"] if length else [])]
    path = save_model(tmp_path, [node("STFT", reads, ["y"], onesided=half)], numbers, ("batch", 21, 1))
    costs_nothing(path, {"x": RNG.uniform(-2, 2, (2, 21, 1)).astype(np.float32)}, 1e-4)


def test_a_window_that_is_no_part_is_refused(tmp_path: Path) -> None:
    numbers = {"step": np.array(3), "window": np.ones(8, np.float32), "length": np.array(6)}
    nodes = [node("STFT", ["x", "step", "window", "length"], ["y"])]
    with pytest.raises(ModelError, match="parts of 6 numbers.*window of 8.*as long as a part"):
        compile_model(save_model(tmp_path, nodes, numbers, ("batch", 21, 1)), {"x": (-2.0, 2.0)})
