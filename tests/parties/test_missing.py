"""Missing numbers through real parties: what a client enters beside its input, masked, until the answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mpc.compiler.compile import compile_model
from parties.client.session import Session
from tests.support.graphs import node, save_model
from tests.support.models import plaintext
from tests.support.parties import InProcess


def test_numbers_are_missing_and_filled_in(tmp_path: Path) -> None:
    nan = float("nan")
    settings = {"imputed_value_floats": [1.5, -2.0, 0.25, 7.0], "replaced_value_float": nan}
    path = save_model(tmp_path, [node("Imputer", ["x"], ["y"], domain="ai.onnx.ml", **settings)])
    x = np.array([[1, nan, 3, 4], [nan] * 4, [0.5, 0, -1, nan]], np.float32)
    with InProcess(tmp_path / "cluster", 2) as cluster:
        session = Session(cluster.client(), compile_model(path, {"x": (-8, 8)}))
        [y] = session.run(None, {"x": x})
        [again] = session.run(None, {"x": np.nan_to_num(x)})
        session.close()
    assert np.abs(y - plaintext(path, {"x": x})[0]).max() < 1e-3
    assert np.abs(again - np.nan_to_num(x)).max() < 1e-3
