"""PyTorch modules in sessions and trainings, where torch is installed; it is no dependency, and its tests say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import ModelError, MpcWarning, UsageError
from mpc.plan.program import Program
from parties import SGD, Cluster
from parties.client.running.modules import as_source, is_module
from tests.support.parties import InProcess

BATCH = 8
HERE = "torch is not installed: PyTorch modules were NOT tested (pip install torch)"
ignoring = pytest.mark.filterwarnings(
    "ignore:(weights are declared|the learning rate is|outputs beyond):mpc.errors.MpcWarning"
)


def test_whatever_is_no_module_is_left_as_it_is() -> None:
    for model in ("model.onnx", b"bytes", None, 3):
        assert not is_module(model) and as_source(model) is model
    with pytest.raises(UsageError, match="a sample is of a PyTorch module's input"):
        as_source("model.onnx", np.zeros((1, 6)))


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason=HERE)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running, Cluster(running.client().config) as found:
        yield found


def perceptron(torch: Any) -> Any:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(5, 3))


@ignoring
def test_a_module_is_run_as_it_is_used(torch: Any, cluster: Cluster) -> None:
    """Without dropout, and it trains on afterwards as before."""
    module, x = perceptron(torch), np.random.default_rng(1).random((4, 6)).astype(np.float32)
    with cluster.session(module, ranges=(0, 1), sample=np.zeros((1, 6))) as session:
        assert ([each.name for each in session.get_inputs()], module.training) == (["input"], True)
        [found] = session.run(None, {"input": x})
    module.train(False)
    with torch.no_grad():
        np.testing.assert_allclose(found, module(torch.as_tensor(x)).numpy(), atol=1e-3)


@ignoring
def test_a_module_trains_as_torch_trains_it(torch: Any, cluster: Cluster) -> None:
    module = perceptron(torch).train(False)
    rng = np.random.default_rng(3)
    x, y = rng.random((24, 6)).astype(np.float32), rng.integers(0, 3, 24)
    trainer = cluster.trainer(module, sample=x[:1], optimizer=SGD(0.5, 0.5), batch=BATCH, ranges=(0, 1))
    assert [note for note in trainer.notes if note.startswith("dropouts of '2' (Dropout) do nothing")]
    found = trainer.fit(x, y, epochs=3, seed=5).release()

    begun = {name: values.numpy().copy() for name, values in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.5)
    loss = torch.nn.BCEWithLogitsLoss(reduction="sum")
    order = Program(steps=9, rows=BATCH, seed=f"{5:064x}")
    for step in range(1, 10):
        rows = order.rows_of(step, len(x))
        optimizer.zero_grad()
        targets = torch.as_tensor(np.eye(3, dtype=np.float32)[y[rows]])
        (loss(module(torch.as_tensor(x[rows])), targets) / BATCH).backward()
        optimizer.step()
    assert found.keys() == begun.keys()
    apart = went = 0.0
    for name, values in module.state_dict().items():
        wanted = values.numpy()
        apart += float(np.square(found[name] - wanted).sum())
        went += float(np.square(begun[name] - wanted).sum())
    assert (apart / went) ** 0.5 < 0.05


def test_a_normalisation_keeps_its_statistics_and_says_so(torch: Any, cluster: Cluster) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    trainer = cluster.trainer(module, sample=np.zeros((1, 6)), batch=BATCH, ranges=(0, 1))
    assert {*trainer.training.keeps} == {f"{place}.{kind}" for place in (0, 1, 3) for kind in ("weight", "bias")}
    x = np.random.default_rng(1).random((BATCH, 6)).astype(np.float32)
    with pytest.warns(MpcWarning, match=r"mean and variance of '.*' \(BatchNormalization\) stay"):
        trainer.fit(x, np.zeros(BATCH))


def test_several_inputs_are_those_of_forward(torch: Any) -> None:
    class Two(torch.nn.Module):  # type: ignore[misc]
        def forward(self, left: Any, right: Any) -> Any:
            return left + 2 * right, left - right

    import onnx

    graph = onnx.load_model_from_string(as_source(Two(), {"left": np.zeros((1, 2)), "right": np.zeros((1, 2))})).graph
    assert [each.name for each in graph.input] == ["left", "right"]
    assert [each.name for each in graph.output] == ["output.0", "output.1"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "rows"


def test_what_a_module_needs_is_said(torch: Any, tmp_path: Path) -> None:
    module = perceptron(torch)

    class Odd(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return {"y": x}

    for model, sample, error, problem in (
        (module, None, UsageError, "sample=x"),
        (module, {"z": np.zeros((1, 6))}, UsageError, "forward takes input"),
        (module, "text", UsageError, "no array of numbers"),
        (module, 3.0, UsageError, "has no rows"),
        (module, np.zeros((1, 7)), ModelError, "does not export this module"),
        (Odd(), np.zeros((1, 7)), UsageError, "returns dict"),
    ):
        with pytest.raises(error, match=problem):
            as_source(model, sample)
        assert model.training
