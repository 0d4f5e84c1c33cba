"""Security line 30 for plans: they are public, so nothing of them may follow from what is entered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import DEFAULT_RANGE
from mpc.compiler.roles import Roles
from mpc.errors import InputError, ModelError
from parties.cli.compiling import compile_blindly, compile_for_data
from parties.cli.display import Display
from parties.cli.run import whose
from parties.config.load import load
from parties.config.models import ClusterConfig
from parties.local.layout import LocalLayout
from parties.trust.authority import issue, make_ca
from tests.compiler.test_calibrate import deep
from tests.support.parties import tiny_model


def records(width: int, largest: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(size=(1, width)) * largest / 3, -largest, largest).astype(np.float32)


def test_security_30_two_records_give_one_plan(tmp_path: Path) -> None:
    """Also records that another compilation, for the user alone, would suit the plan to."""
    path = tiny_model(tmp_path / "tiny.onnx")
    small, large = (np.full((1, 3), value, np.float32) for value in (1e-3, 31.0))
    plans = {compile_blindly(Display(), path, {"x": x}, {}, {}, Roles()).plan.canonical for x in (small, large)}
    assert len(plans) == 1


def test_security_30_bounds_of_a_deep_model_rest_on_samples_that_were_given_for_it(tmp_path: Path) -> None:
    path, record = deep(tmp_path), {"x": records(24, 4.0, 1)}
    with pytest.raises(ModelError, match="too large") as refused:
        compile_blindly(Display(), path, record, {"x": (-4.0, 4.0)}, {}, Roles())
    assert "--calibrate" in str(refused.value.remedy)
    samples = {"x": np.concatenate([records(24, 4.0, seed) for seed in range(2, 40)])}
    plans = {
        compile_blindly(
            Display(), path, {"x": records(24, 4.0, seed)}, {"x": (-4.0, 4.0)}, {}, Roles(), samples
        ).plan.canonical
        for seed in (1, 60)
    }
    assert len(plans) == 1
    # The control: suited to the record itself, as for a user who is alone, plans tell records apart.
    suited = {
        compile_for_data(Display(), path, {"x": records(24, 4.0, seed)}, {"x": (-4.0, 4.0)}, {}, Roles()).plan.canonical
        for seed in range(1, 9)
    }
    assert len(suited) > 1


def test_security_30_data_beyond_the_default_range_are_refused_and_not_described(tmp_path: Path) -> None:
    path, record = tiny_model(tmp_path / "tiny.onnx"), np.array([[1.0, 73.25, 2.0]], np.float32)
    with pytest.raises(InputError, match="no range is declared for input 'x'") as refused:
        compile_blindly(Display(), path, {"x": record}, {}, {}, Roles())
    told = " ".join(refused.value.lines()).replace(str(tmp_path), "")
    assert "--range x=LOW:HIGH" in told and "73" not in told and f"{DEFAULT_RANGE[1]:g}" in told
    compile_blindly(Display(), path, {"x": record}, {"x": (-128.0, 128.0)}, {}, Roles())


def test_only_a_cluster_of_ones_own_is_suited_to_the_data(tmp_path: Path) -> None:
    assert whose(None) == ("coordinator", True)
    layout = LocalLayout.create(tmp_path / "up", 2, clients=["alice"])
    assert whose(layout.cluster_file) == ("coordinator", True)
    assert whose(layout.client_file("alice")) == ("alice", False)  # whoever started it sees her plans
    make_ca(tmp_path / "ca", "companies")
    issue(
        tmp_path / "ca",
        "coordinator",
        layout.cluster_file.parent / load(ClusterConfig, layout.cluster_file).tls.key.parent,
    )
    assert whose(layout.cluster_file) == ("coordinator", False)
