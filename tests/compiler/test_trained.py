"""A transformer that was trained, whose attention has peaks: its answers on real rows are onnxruntime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mpc.compiler.compile import Compiled, compile_model
from tests.support.models import clear, encrypted, plaintext

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests/vectors/trained/rows.onnx"


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_model(MODEL)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Digits of MNIST's test set, which the model has not been trained on."""
    images = np.load(ROOT / "examples/mnist_sample.npz")["images"]
    return images.reshape(-1, 28, 28)[:200] / np.float32(255)


def test_its_attention_has_peaks(rows: np.ndarray) -> None:
    """In each layer some tokens look at one other alone, and others at many."""
    model = onnx.load(MODEL)
    shares = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in shares)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for found in session.run(shares, {"x": rows}):
        peaks = found.max(axis=-1)
        assert peaks.max() > 0.9
        assert peaks.min() < 0.3


def test_its_answers_are_right_and_have_four_digits(compiled: Compiled, rows: np.ndarray) -> None:
    [theirs] = plaintext(MODEL, {"x": rows})
    ours = clear(compiled, rows)
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_parties_answer_the_same(compiled: Compiled, rows: np.ndarray) -> None:
    [theirs] = plaintext(MODEL, {"x": rows[:1]})
    [ours] = encrypted(compiled, {"x": rows[:1]})
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
