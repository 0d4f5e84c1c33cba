"""Models whose weights all parties know: linear layers cost nothing, and the answers are those of secret weights."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import field as fp
from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.roles import Roles
from mpc.errors import ModelError
from mpc.interpret import reference
from mpc.plan.cost import gate_cost, plan_cost
from mpc.transcript import DIGEST_BYTES
from mpc.wires import Masking
from parties.client.running.roles import PUBLIC, SECRET, assign, known_weights
from tests.support.case import edgy
from tests.support.effort import examples
from tests.support.graphs import node, save_model
from tests.support.models import encrypted, plaintext
from tests.support.worlds import Trial

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = {
    "L": ROOT / "examples" / "breast_cancer_lr.onnx",
    "A": ROOT / "examples" / "mnist_mlp.onnx",
    "S": ROOT / "benchmarks" / "networks" / "sarda_s.onnx",
    "M": ROOT / "benchmarks" / "networks" / "minionn_m.onnx",
    "C": ROOT / "benchmarks" / "networks" / "lenet_c.onnx",
}
LARGEST_ERROR = 2e-3
ROUNDS = {"L": (4, 3), "A": (9, 6), "S": (9, 6), "M": (15, 11), "C": (15, 11)}
"""With secret and with public weights."""
LINEAR = {"matmul", "convolution", "multiply", "combine", "reshape", "take", "concat", "total", "weigh"}


def both(path: Path, **settings: object) -> tuple[Compiled, Compiled]:
    """The model with secret and with public weights."""
    secret, public = (compile_model(path, roles=Roles(public_weights=known), **settings) for known in (False, True))
    assert secret.weights.keys() == public.weights.keys()
    return secret, public


def rows(name: str, count: int) -> dict[str, np.ndarray]:
    if name == "L":
        sample = np.load(ROOT / "examples" / "breast_cancer_test.npz")
        return {"x": sample["x"][:count].astype(np.float32)}
    images = np.load(ROOT / "examples" / "mnist_sample.npz")["images"][:count] / 255
    return {"x": images.reshape((-1, 784) if name == "A" else (-1, 1, 28, 28)).astype(np.float32)}


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_fields_networks_answer_as_onnxruntime_does(name: str, parties: int) -> None:
    """Bit for bit the reference's, at the declared cost (see `encrypted`)."""
    _, public = both(NETWORKS[name])
    feeds = rows(name, 4)
    for ours, theirs in zip(encrypted(public, feeds, parties), plaintext(NETWORKS[name], feeds), strict=True):
        if ours.dtype.kind == "f":
            assert np.abs(ours - theirs).max() <= LARGEST_ERROR
        else:
            assert (ours == theirs).all()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_linear_layers_open_and_deal_nothing(name: str) -> None:
    secret, public = both(NETWORKS[name])
    bound = public.plan.bind(3)
    linear = [gate for gate in bound.online if gate.kind in LINEAR]
    assert linear
    for gate in linear:
        cost = gate_cost(gate, bound.wire)
        assert (cost.rounds, cost.sent, cost.dealt, cost.held) == (0, 0, 0, 0), gate.name
    before, after = plan_cost(secret.plan), plan_cost(public.plan)
    assert (before.rounds, after.rounds) == ROUNDS[name]
    assert after.sent - DIGEST_BYTES < 0.7 * (before.sent - DIGEST_BYTES) and after.dealt <= before.dealt
    assert all(gate_cost(gate, bound.wire).held == 0 for gate in public.plan.weights)  # nothing masks them


def test_the_plan_says_it() -> None:
    secret, public = both(NETWORKS["A"])
    assert (known_weights(secret.plan), known_weights(public.plan)) == (SECRET, PUBLIC)
    assert secret.plan.digest != public.plan.digest
    assert {public.plan.wire[gate.out].masking for gate in public.plan.weights} == {Masking.PUBLIC}
    assert not secret.plan.public_weights
    for array in public.weights.values():  # which are public, not what they are
        assert not any(
            str(int(value)).encode() in public.plan.canonical for value in array.flat if abs(value) > 1 << 24
        )
    assert assign("me", weights=PUBLIC).public_weights and not assign("me").public_weights


def test_equal_models_of_other_weights_have_one_plan(tmp_path: Path) -> None:
    """What the plan tells of public weights is no more than it tells of secret ones: powers of two."""
    plans = []
    for shift in (0.0, 0.01):
        weight = np.array([[0.3 + shift, -0.7], [0.55, 0.26 - shift]], dtype=np.float32)
        (tmp_path / str(shift)).mkdir()
        path = save_model(tmp_path / str(shift), [node("MatMul", ["x", "w"], ["y"])], {"w": weight}, ("batch", 2))
        plans.append(both(path)[1].plan)
    assert plans[0].digest == plans[1].digest


def test_the_smaller_end_of_a_layer_is_opened() -> None:
    """S: 980 and 100 results of ReLUs stay unopened, 100 and 10 sums of them are opened; A's equal ends as before."""
    plan = both(NETWORKS["S"])[1].plan
    masking = {
        gate.kind + str(n): plan.wire[gate.out].masking for n, gate in enumerate(plan.online) if gate.kind == "relu"
    }
    assert set(masking.values()) == {Masking.UNOPENED}
    assert [plan.bind(1).wire[gate.out].sizes[-1] for gate in plan.online if gate.kind == "open"] == [100, 10]
    plan = both(NETWORKS["A"])[1].plan
    assert [plan.wire[gate.out].masking for gate in plan.online if gate.kind == "relu"] == [
        Masking.DRAWN,
        Masking.UNOPENED,
    ]


def test_secret_weights_are_opened_as_before() -> None:
    for name, path in NETWORKS.items():
        secret, _ = both(path)
        assert not any(gate.kind == "open" for gate in secret.plan.gates), name


# ------------------------------------------------------------------ random small nets


def layer(rng: np.random.Generator, kind: str, number: int, width: int) -> tuple[list, dict[str, np.ndarray], int]:
    """Nodes from h{number} to h{number + 1}, their constants, the new width; matrices with zeros and equal columns."""
    x, y, constants = f"h{number}", f"h{number + 1}", {}
    if kind == "gemm":
        after = int(rng.integers(1, 6))
        weight = rng.normal(size=(width, after)).astype(np.float32) * rng.integers(0, 2, (width, after))
        weight[:, 0] = 0 if rng.integers(0, 2) else weight[:, -1]
        constants = {f"w{number}": weight.astype(np.float32), f"b{number}": rng.normal(size=after).astype(np.float32)}
        return [node("Gemm", [x, *constants], [y], f"l{number}")], constants, after
    if kind == "scale":
        constants = {f"s{number}": rng.normal(size=width).astype(np.float32)}
        return [node("Mul", [x, *constants], [y], f"l{number}")], constants, width
    if kind == "maximum":
        return [node("ReduceMax", [x], [y], f"l{number}", axes=[1], keepdims=1)], {}, 1
    if kind == "square":
        return [node("Mul", [x, x], [y], f"l{number}")], {}, width
    if kind == "skip":
        constants = {f"k{number}": rng.normal(size=(width, width)).astype(np.float32)}
        inner = [node("MatMul", [x, *constants], [f"t{number}"], f"m{number}")]
        return [*inner, node("Add", [f"t{number}", x], [y], f"l{number}")], constants, width
    return [node(kind, [x], [y], f"l{number}")], {}, width


KINDS = ["gemm", "gemm", "gemm", "Relu", "Relu", "scale", "maximum", "square", "skip", "Sigmoid"]


def small_net(folder: Path, kinds: list[str], width: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    nodes, constants, columns = [node("Identity", ["x"], ["h0"])], {}, width
    for number, kind in enumerate(kinds):
        more, given, columns = layer(rng, kind, number, columns)
        nodes += more
        constants |= given
    nodes[-1].output[0] = "y"
    return save_model(folder, nodes, constants, ("batch", width))


def coin(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The same coin for a wire, whether it is opened early or late."""
    key = hashlib.sha256(name.removesuffix(".open").encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(key, "big")).integers(0, fp.P, shape, dtype=np.uint64)


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_any_small_net_is_the_reference_and_the_secret_one(parties: int) -> None:
    """Bit for bit the reference's, at the declared cost; where coins agree the same integers as with secret weights."""

    @examples(25)
    @given(
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5).filter(lambda kinds: kinds.count("square") < 2),
        width=st.integers(1, 6),
        batch=st.sampled_from([1, 2, 9]),
        seed=st.integers(0, 1 << 20),
    )
    def attempt(kinds: list[str], width: int, batch: int, seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = small_net(Path(folder), ["gemm", *kinds, "gemm"], width, seed)
            try:
                secret, public = both(path, ranges={"x": (-2.0, 2.0)})
            except ModelError:  # a function of a constant, say: refused whatever the weights are
                with pytest.raises(ModelError):
                    compile_model(path, ranges={"x": (-2.0, 2.0)})
                return
        [wire] = [given.wire for given in public.plan.inputs]
        limit = int(2 * public.plan.wire[wire].scale)
        inputs = {wire: edgy(np.random.default_rng(seed), (batch, width), limit)}
        checked = Trial(public.plan, public.weights, parties, seed).run(inputs, batch)
        expected, found = (
            reference.evaluate(one.plan.bind(batch), {**one.weights, **inputs}, coin) for one in (secret, public)
        )
        for before, after in zip(secret.plan.outputs, public.plan.outputs, strict=True):
            assert (expected[before.wire] == found[after.wire]).all()
            assert after.wire in checked.values

    attempt()
