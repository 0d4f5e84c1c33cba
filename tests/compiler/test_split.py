"""A public backbone with secret adapters: which constants the parties are told, and that nothing of the others is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.roles import Roles
from mpc.errors import ModelError, UsageError
from mpc.plan.cost import plan_cost
from parties.client.running.roles import assign, known_weights
from tests.support.graphs import node, save_model
from tests.support.models import encrypted, plaintext

WIDTH, RANK = 8, 2
X = {"x": np.random.default_rng(1).uniform(-2, 2, (5, WIDTH)).astype(np.float32)}
RANGE = {"x": (-2.0, 2.0)}
ROUNDED = 2.0**-12
"""By which a number that is told may be rounded otherwise: scales follow from bounds, as a plan says of any weights."""


def constants(secrets: int = 0) -> dict[str, np.ndarray]:
    """A layer's weights; those of its adapter are drawn apart."""
    open_, hidden = np.random.default_rng(7), np.random.default_rng(100 + secrets)
    return {
        "base.weight": open_.standard_normal((WIDTH, WIDTH)),
        "base.bias": open_.standard_normal(WIDTH),
        "lora_A.weight": hidden.standard_normal((WIDTH, RANK)),
        "lora_B.weight": hidden.standard_normal((RANK, WIDTH)),
        "norm.gain": open_.uniform(0.5, 1.5, WIDTH),
        "gate": hidden.uniform(0.5, 1.5, WIDTH),
        "two": np.array(2.0),
    }


ADAPTED = [
    node("MatMul", ["x", "base.weight"], ["m"], name="/base/MatMul"),
    node("Add", ["m", "base.bias"], ["b"], name="/base/Add"),
    node("MatMul", ["x", "lora_A.weight"], ["la"], name="/lora_A/MatMul"),
    node("MatMul", ["la", "lora_B.weight"], ["lb"], name="/lora_B/MatMul"),
    node("Mul", ["lb", "two"], ["ls"], name="/scaling"),
    node("Add", ["b", "ls"], ["h"], name="/sum"),
    node("Mul", ["h", "norm.gain"], ["g"], name="/norm"),
    node("Relu", ["g"], ["y"]),
]


def model(folder: Path, nodes: list[onnx.NodeProto] = ADAPTED, secrets: int = 0, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    numbers = {name: value.astype(np.float32) for name, value in constants(secrets).items()}
    return save_model(folder, nodes, numbers, ("batch", WIDTH), **settings)


def compiled(path: Path, *patterns: str) -> Compiled:
    return compile_model(path, RANGE, Roles(public_weights=True, secret_weights=patterns))


def told(found: Compiled) -> dict[str, np.ndarray]:
    """The weights that the parties are told, in the model's units."""
    plan = found.plan
    public = [plan.wire[gate.out] for gate in plan.weights if gate.is_public(plan.wire)]
    return {wire.name: found.weights[wire.name] / float(wire.scale) for wire in public}


def secret_nodes(found: Compiled) -> set[str]:
    """The model's nodes whose weights no party is told."""
    plan = found.plan
    return {found.origins[gate.name].node for gate in plan.weights if not gate.is_public(plan.wire)}


def test_the_adapter_alone_is_secret_and_the_answer_is_the_models(tmp_path: Path) -> None:
    path = model(tmp_path)
    split, secret = compiled(path, "lora_*"), compile_model(path, RANGE)
    assert secret_nodes(split) == {"/lora_A/MatMul", "/lora_B/MatMul"} and len(told(split)) >= 2
    assert known_weights(split.plan) == "partly public"
    [expected] = plaintext(path, X)
    for parties in (2, 3):
        [found] = encrypted(split, X, parties)
        assert np.abs(found - expected).max() < 1e-3
    ours, theirs = plan_cost(split.plan, 4), plan_cost(secret.plan, 4)
    assert ours.sent < theirs.sent and ours.rounds <= theirs.rounds and ours.dealt <= theirs.dealt


@pytest.mark.parametrize("patterns", [("lora_*", "gate"), ("/lora_?/*", "gate"), ("*lora_A*", "*lora_B*", "g*")])
def test_nothing_that_is_told_hangs_on_a_secret(tmp_path: Path, patterns: tuple[str, ...]) -> None:
    """Merged, folded, transposed, in a branch: of two models that differ in secrets only the same numbers are told."""
    nodes = [
        *ADAPTED[:-1],
        node("Mul", ["g", "gate"], ["s"], name="/gated"),  # next to a public scaling
        node("Transpose", ["lora_A.weight"], ["ta"], name="folded"),
        node("Gemm", ["x", "ta"], ["q"], name="from_folded", transB=1),
        node("MatMul", ["q", "lora_B.weight"], ["v"], name="/lora_B/again"),
        node("Mul", ["norm.gain", "gate"], ["both"], name="made"),
        node("Mul", ["v", "both"], ["w"], name="by_made"),
        node("If", ["yes"], ["i"], name="branch", **branches()),
        node("Add", ["s", "w"], ["sw"], name="last"),
        node("Add", ["sw", "i"], ["y"], name="end"),
    ]
    found = []
    for secrets in (0, 1):
        numbers = {name: value.astype(np.float32) for name, value in constants(secrets).items()}
        folder = tmp_path / str(secrets)
        folder.mkdir()
        path = save_model(folder, nodes, {**numbers, "yes": np.array(True)}, ("batch", WIDTH))
        found.append(compiled(path, *patterns))
        [expected] = plaintext(path, X)
        assert np.abs(encrypted(found[-1], X)[0] - expected).max() < 1e-2
    first, second = map(told, found)
    assert first.keys() == second.keys() and len(first) >= 2
    assert all(np.allclose(first[name], second[name], rtol=0, atol=ROUNDED) for name in first)  # scales may differ
    secret = [{name: v for name, v in each.weights.items() if name not in first} for each in found]
    assert any((secret[0][name] != secret[1][name]).any() for name in secret[0])


def branches() -> dict[str, onnx.GraphProto]:
    """Both add a product with the adapter, which they read from outside."""
    graphs = {}
    for name in ("then", "else"):
        out = onnx.helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        nodes = [
            node("MatMul", ["x", "lora_A.weight"], [f"{name}_a"], name=f"{name}_a"),
            node("MatMul", [f"{name}_a", "lora_B.weight"], [f"{name}_out"], name=f"{name}_b"),
        ]
        graphs[f"{name}_branch"] = onnx.helper.make_graph(nodes, name, [], [out])
    return graphs


def test_a_model_says_itself_what_stays_secret(tmp_path: Path) -> None:
    path = model(tmp_path, metadata={"mpc.weights.secret": "lora_A*, lora_B*"})
    assert secret_nodes(compiled(path)) == {"/lora_A/MatMul", "/lora_B/MatMul"}
    assert "/norm" in secret_nodes(compiled(path, "norm.*"))  # both are heard
    assert known_weights(compile_model(path, RANGE).plan) == "secret"


def test_what_pytorchs_newer_exporter_notes_of_modules_is_read(tmp_path: Path) -> None:
    """It renames what it transposes; each node has its modules' names."""
    path = model(tmp_path)
    exported = onnx.load(path)
    for each in exported.graph.node:
        scope = "q.lora_A" if "lora_A" in each.name else "q.lora_B" if "lora_B" in each.name else "q.base"
        each.metadata_props.add(
            key="pkg.torch.onnx.name_scopes", value=f"['', 'layers.0', 'layers.0.{scope}', 'linear']"
        )
        each.name = f"node_{each.output[0]}"
    renamed = {"lora_A.weight": "val_7", "lora_B.weight": "val_9"}
    for tensor in exported.graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for each in exported.graph.node:
        each.input[:] = [renamed.get(name, name) for name in each.input]
    onnx.save(exported, path)
    assert secret_nodes(compiled(path, "*.lora_A", "*.lora_B")) == {"node_la", "node_lb"}


@pytest.mark.parametrize("pattern", ["lora_C*", "LORA_A*", "ora_A", "x"])
def test_a_name_that_is_nowhere_is_refused(tmp_path: Path, pattern: str) -> None:
    """It would tell what it was to keep."""
    with pytest.raises(ModelError, match="which is to stay secret") as refused:
        compiled(model(tmp_path), "lora_*", pattern)
    assert "base.weight, base.bias, lora_A.weight" in str(refused.value)


def test_without_a_split_plans_are_as_before(tmp_path: Path) -> None:
    path = model(tmp_path)
    plain, public = compile_model(path, RANGE), compiled(path)
    assert (known_weights(plain.plan), known_weights(public.plan)) == ("secret", "public")
    assert not any(gate.is_public(plain.plan.wire) for gate in plain.plan.weights)
    everything = compiled(path, "*")
    assert everything.plan.digest == plain.plan.digest


def test_secret_names_without_public_weights_say_nothing() -> None:
    assert assign("me", weights="public", secret_weights="b").secret_weights == ("b",)
    with pytest.raises(UsageError, match="all weights are secret"):
        assign("me", secret_weights=["lora"])
    for wrong in ([3], 3, [""], None):
        with pytest.raises(UsageError, match="secret weights are names"):
            assign("me", weights="public", secret_weights=wrong)  # type: ignore[arg-type]


def test_what_follows_a_secret_layer_is_told(tmp_path: Path) -> None:
    """A name that a node has says nothing of layers that read its result."""
    nodes = [
        node("MatMul", ["x", "lora_A.weight"], ["a"], name="/lora_A/MatMul"),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "lora_B.weight"], ["b"], name="/base/first"),
        node("MatMul", ["b", "base.weight"], ["y"], name="/base/second"),
    ]
    assert secret_nodes(compiled(model(tmp_path, nodes), "/lora_A/*")) == {"/lora_A/MatMul"}


# ------------------------------------------------------- ways by which a secret number could reach what is told

APART = {"x": ([0.0, 0.0, 0.0, 0.0], [2e9, 1.0, 1000.0, 1e-3])}
"""A range of columns of very different size, which enter in units of their own."""


def drawn(secrets: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(100 + secrets).uniform(0.25, 0.75, shape).astype(np.float32)


WHOLE = np.random.default_rng(5).integers(-90, 90, (4, 4)).astype(np.int8)
OPEN = np.round(np.random.default_rng(6).standard_normal((4, 4)), 1).astype(np.float32)
Graph = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def added_to_columns(secrets: int) -> Graph:
    """A secret bias, and a secret power of two, ahead of a public layer that takes units of columns in."""
    nodes = [
        node("Add", ["x", "lora_b"], ["a"]),
        node("Mul", ["a", "lora_s"], ["s"]),
        node("MatMul", ["s", "w"], ["y"]),
    ]
    return nodes, {"lora_b": drawn(secrets, 4), "lora_s": np.array(2.0 + 2.0 * secrets, np.float32), "w": OPEN}


def quantised_by(secrets: int) -> Graph:
    """A secret scale divides what a public layer writes, and a sum behind that."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("QuantizeLinear", ["a", "lora_s", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "lora_s", "zero"], ["d"]),
        node("MatMul", ["d", "w"], ["y"]),
    ]
    return nodes, {"w": OPEN, "lora_s": drawn(secrets) / 16, "zero": np.array(0, np.int8)}


def scaled_as_it_comes(secrets: int) -> Graph:
    """A secret scale joins the one that a value is quantised by, which a public product takes in."""
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z"], ["i"]),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["s", "lora_s"], ["u"]),
        node("Mul", ["f", "u"], ["r"]),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    return nodes, {"w": WHOLE, "lora_s": drawn(secrets, 4), "v": OPEN}


def branched(secrets: int) -> Graph:
    """A branch that is known gives a secret out; another constant is read by a node of a name."""
    branch = {
        name: onnx.helper.make_graph([node("Identity", ["lora_w"], [name])], name, [], [floats(name, 4, 4)])
        for name in ("then_branch", "else_branch")
    }
    nodes = [
        node("If", ["yes"], ["w"], **branch),
        node("MatMul", ["x", "w"], ["m"]),
        node("MatMul", ["m", "v"], ["y"]),
    ]
    return nodes, {"yes": np.array(True), "lora_w": drawn(secrets, 4, 4), "v": OPEN}


def scanned(secrets: int) -> Graph:
    """A scan over a secret."""
    body = onnx.helper.make_graph(
        [node("MatMul", ["state", "part"], ["next"])], "body", [floats("state", "batch", 4), floats("part", 4, 4)],
        [floats("next", "batch", 4)],
    )  # fmt: skip
    nodes = [node("Scan", ["x", "lora_w"], ["h"], body=body, num_scan_inputs=1), node("MatMul", ["h", "v"], ["y"])]
    return nodes, {"lora_w": drawn(secrets, 2, 4, 4), "v": OPEN}


def looped(secrets: int) -> Graph:
    """A loop whose body has the secret itself."""
    body = onnx.helper.make_graph(
        [node("MatMul", ["state", "lora_w"], ["next"]), node("Identity", ["go"], ["going"])],
        "body",
        [
            onnx.helper.make_tensor_value_info("step", TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            floats("state", "batch", 4),
        ],
        [onnx.helper.make_tensor_value_info("going", TensorProto.BOOL, []), floats("next", "batch", 4)],
        [onnx.numpy_helper.from_array(drawn(secrets, 4, 4), "lora_w")],
    )
    nodes = [node("Loop", ["two", "yes", "x"], ["h"], body=body), node("MatMul", ["h", "v"], ["y"])]
    return nodes, {"two": np.array(2), "yes": np.array(True), "v": OPEN}


def shaped(secrets: int) -> Graph:
    """A constant whose shape follows from the batch's on its way to a node of a name, and another public reader."""
    nodes = [
        node("Shape", ["x"], ["sizes"]),
        node("Slice", ["sizes", "one", "two"], ["width"]),
        node("Concat", ["width", "four"], ["target"], axis=0),
        node("Reshape", ["w", "target"], ["r"]),
        node("MatMul", ["x", "r"], ["m"], name="/lora_A/MatMul"),
        node("Reshape", ["w", "plain"], ["again"]),
        node("MatMul", ["m", "again"], ["n"]),
        node("MatMul", ["n", "v"], ["y"]),
    ]
    numbers = {"one": np.array([1]), "two": np.array([2]), "four": np.array([4]), "plain": np.array([4, 4])}
    return nodes, {**numbers, "w": drawn(secrets, 16), "v": OPEN}


def counted(secrets: int) -> Graph:
    """Secret whole numbers, repeated for each row of the batch, choose rows of a public table."""
    nodes = [
        node("Shape", ["x"], ["sizes"], end=1),
        node("Concat", ["sizes", "one"], ["target"], axis=0),
        node("Expand", ["lora_places", "target"], ["places"]),
        node("Gather", ["table", "places"], ["rows"]),
        node("Squeeze", ["rows", "one"], ["row"]),
        node("Add", ["x", "row"], ["a"]),
        node("MatMul", ["a", "v"], ["y"]),
    ]
    places = np.array([[1 + secrets]])
    return nodes, {"one": np.array([1]), "lora_places": places, "table": OPEN, "v": OPEN}


WAYS = [added_to_columns, quantised_by, scaled_as_it_comes, branched, scanned, looped, shaped, counted]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_is_told_is_equal_whatever_the_secrets_are(tmp_path: Path, way: Callable[[int], Graph]) -> None:
    """Two models that differ in secrets alone have equal public weights, byte for byte, and some."""
    found = []
    for secrets in (0, 1):
        folder = tmp_path / str(secrets)
        folder.mkdir()
        path = save_model(folder, *way(secrets), opset=18)
        ranges = APART if way is added_to_columns else {"x": (-1.0, 1.0)}
        found.append(compile_model(path, ranges, Roles(public_weights=True, secret_weights=("*lora_*",))))
    first, second = map(told, found)
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert first or way is added_to_columns  # its only layer holds the bias
    assert any(not gate.is_public(found[0].plan.wire) for gate in found[0].plan.weights)


UNHEARD = [
    ("mpc.compiler.onnx.split.Split.keeps", lambda *_: False),
    ("mpc.compiler.onnx.split.Split.tells", lambda *_: True),
]


@pytest.mark.parametrize(
    ("way", "broken"),
    [
        (quantised_by, [("mpc.compiler.graph.quanta._is_told", lambda node: False)]),
        (branched, UNHEARD),
        (looped, UNHEARD),
        (scanned, UNHEARD),
        (shaped, UNHEARD),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_what_would_tell_a_secret_is_refused_whichever_rule_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[int], Graph], broken: list[tuple[str, Any]]
) -> None:
    """The last check looks at what is told, of secrets that are changed."""
    for place, instead in broken:
        monkeypatch.setattr(place, instead)
    with pytest.raises(ModelError, match="numbers that hang on weights which are to stay secret"):
        roles = Roles(public_weights=True, secret_weights=("*lora_*",))
        compile_model(save_model(tmp_path, *way(0), opset=18), {"x": (-1.0, 1.0)}, roles)
