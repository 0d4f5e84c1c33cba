"""Columns of very different size: each enters in its own units, and nothing is lost of the small ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.calibrate import ranges_around, suited_ranges
from mpc.compiler.roles import Roles
from mpc.errors import InputError, PlanError
from mpc.plan.cost import plan_cost
from mpc.plan.parse import parse_plan
from parties.cli.compiling import compile_for_data
from parties.cli.display import Display
from tests.support.graphs import node, save_model
from tests.support.models import encrypted, plaintext
from tests.support.plans import with_parts
from tests.support.tables import around, computed, payments, save

X, CLASS, VALUE = payments()
SEEN, HELD_OUT = slice(0, 400), slice(400, 800)
OPSET = {"": 18, "ai.onnx.ml": 3}
WIDE = ((1.6e9, 0.0, 0.0), (1.8e9, 1.4e5, 0.25))


class Heard(Display):
    """A display whose words are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def estimator(name: str):  # type: ignore[no-untyped-def]
    if name == "forest":
        return RandomForestClassifier(40, max_depth=8, random_state=0), CLASS
    if name == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression()), CLASS
    return make_pipeline(StandardScaler(), LinearRegression()), VALUE


def converted(name: str, folder: Path) -> Path:
    model, y = estimator(name)
    model.fit(X[SEEN].astype(np.float64), y[SEEN])
    options = {id(model): {"zipmap": False}} if name != "linear" else None
    return save(folder, to_onnx(model, X[:1], options=options, target_opset=OPSET))


def compiled_for(how: str, path: Path, feeds: dict[str, np.ndarray]) -> Compiled:
    if how == "no range":
        return compile_for_data(Heard(), path, feeds, {}, {}, Roles())
    if how == "samples":
        return compile_model(path, samples=feeds)
    return compile_model(path, around(feeds) if how == "powers of two" else {"X": WIDE})


@pytest.mark.parametrize("how", ["no range", "powers of two", "declared", "samples"])
@pytest.mark.parametrize("name", ["forest", "logistic", "linear"])
def test_seconds_amounts_and_rates(name: str, how: str, tmp_path: Path) -> None:
    """onnxruntime scales in float32: of its own 2^-24 of a coordinate, 20 standard deviations is generous."""
    path, feeds = converted(name, tmp_path), {"X": X[HELD_OUT]}
    compiled = compiled_for(how, path, feeds)
    for ours, theirs in zip(computed(compiled, feeds), plaintext(path, feeds), strict=True):
        if theirs.dtype.kind in "iu":
            assert (ours == theirs).all()
        else:
            assert np.abs(ours - theirs).max() < 2e-6 * max(1.0, np.abs(theirs).max()) + 1e-4 * (name == "logistic")
    assert not compiled.notes or how == "samples"


def test_parties_compute_it_too(tmp_path: Path) -> None:
    path, feeds = converted("logistic", tmp_path), {"X": X[400:410]}
    compiled = compile_model(path, {"X": WIDE})
    for ours, theirs in zip(encrypted(compiled, feeds, 3), plaintext(path, feeds), strict=True):
        assert np.abs(ours - theirs).max() < 1e-4


def test_units_are_public_and_follow_from_the_range_alone(tmp_path: Path) -> None:
    [given] = compile_model(converted("logistic", tmp_path), {"X": WIDE}).plan.inputs
    assert given.offset == (Fraction(1_700_000_000) // 2**23 * 2**23 + 2**23 * 0, 0, 0) or given.offset[1:] == (0, 0)
    assert abs(given.offset[0] - 1_700_000_000) <= 2**23
    assert all(
        factor.numerator == 1 and factor.denominator & (factor.denominator - 1) == 0 for factor in given.factor[:2]
    )


@pytest.mark.parametrize("name", ["forest", "linear"])
def test_units_cost_nothing(name: str, tmp_path: Path) -> None:
    path = converted(name, tmp_path)
    apart = plan_cost(compile_model(path, {"X": WIDE}).plan, 8)
    assert apart == plan_cost(compile_model(path, {"X": (-32.0, 32.0)}).plan, 8)


# ------------------------------------------------------------------ thresholds


def stump(folder: Path, thresholds: list[float], mode: str, kind: int = TensorProto.FLOAT) -> Path:
    """One tree a threshold, on column 0 of two: 1 where the comparison holds."""
    trees, per = len(thresholds), 3
    ids = [i for _ in range(trees) for i in range(per)]
    made = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=trees,
        nodes_treeids=[t for t in range(trees) for _ in range(per)], nodes_nodeids=ids,
        nodes_featureids=[0] * (trees * per), nodes_modes=[mode, "LEAF", "LEAF"] * trees,
        nodes_values=[v for t in thresholds for v in (t, 0.0, 0.0)], nodes_truenodeids=[1, 0, 0] * trees,
        nodes_falsenodeids=[2, 0, 0] * trees, target_treeids=[t for t in range(trees) for _ in range(2)],
        target_nodeids=[1, 2] * trees, target_ids=[t for t in range(trees) for _ in range(2)],
        target_weights=[1.0, 0.0] * trees,
    )  # fmt: skip
    return save_model(folder, [made], shape=("batch", 2), element=kind)


@pytest.mark.parametrize("mode", ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ"])
@pytest.mark.parametrize(("middle", "half"), [(1.7e9, 2.0**24), (1.7e9, 2.0**20), (0.0, 2.0**17), (-3e4, 2.0**9)])
def test_every_float_is_on_its_side_of_a_threshold(mode: str, middle: float, half: float, tmp_path: Path) -> None:
    """Thresholds and values are neighbours among the floats, as far from each other as the resolution allows."""
    rng = np.random.Generator(np.random.PCG64(1))
    thresholds = (middle + rng.uniform(-half, half, 40)).astype(np.float32)
    step = max(2 * half * 2.0**-33, 0.0)
    near = [thresholds, np.nextafter(thresholds, np.float32(np.inf)), np.nextafter(thresholds, np.float32(-np.inf))]
    values = np.concatenate(near)
    apart = np.abs(values[:, None].astype(np.float64) - thresholds[None].astype(np.float64))
    resolved = (apart == 0) | (apart >= step)
    feeds = {"x": np.stack([values, np.full_like(values, 0.1)], axis=1)}
    path = stump(tmp_path, thresholds.tolist(), mode)
    compiled = compile_model(path, {"x": ((middle - 1.01 * half, 0.0), (middle + 1.01 * half, 0.2))})
    [ours], [theirs] = computed(compiled, feeds), plaintext(path, feeds)
    assert resolved.mean() > 0.95
    assert (ours.round() == theirs)[resolved].all()


# ------------------------------------------------------------------ what stands between an input and its first readers

WEIGHT = np.array([[1e-8, 2e-8], [3e-5, -1e-5], [7.0, 9.0]], dtype=np.float32)
THROUGH = {
    "slices": [
        node("Gather", ["x", "last"], ["a"], axis=1), node("Gather", ["x", "first"], ["b"], axis=1, name="g"),
        node("Concat", ["b", "a"], ["c"], axis=1), node("MatMul", ["c", "w"], ["y"]),
    ],
    "a reshape": [
        node("Reshape", ["x", "apart"], ["a"]), node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        node("Flatten", ["b"], ["c"]), node("MatMul", ["c", "w"], ["y"]),
    ],
    "batch norm": [
        node("Sub", ["x", "mean"], ["a"]), node("Div", ["a", "deviation"], ["b"]), node("Tanh", ["b"], ["y"]),
    ],
    "two readers": [
        node("MatMul", ["x", "w"], ["a"]), node("Sub", ["x", "mean"], ["b"]), node("Div", ["b", "deviation"], ["c"]),
        node("Concat", ["a", "c"], ["y"], axis=1),
    ],
    "products": [
        node("Mul", ["x", "x"], ["a"]), node("Concat", ["x", "a"], ["b"], axis=1), node("MatMul", ["b", "w2"], ["y"]),
    ],
    "a comparison": [node("Greater", ["x", "mean"], ["a"]), node("Cast", ["a"], ["y"], to=TensorProto.FLOAT)],
    "a relu": [node("Sub", ["x", "mean"], ["a"]), node("Relu", ["a"], ["b"]), node("Div", ["b", "deviation"], ["y"])],
    "itself in the result": [node("Relu", ["x"], ["a"]), node("Div", ["a", "deviation"], ["y"])],
    "padding": [node("Pad", ["x", "pads"], ["a"]), node("MatMul", ["a", "w"], ["y"])],
}  # fmt: skip
CONSTANTS = {
    "last": np.array([2]), "first": np.array([0, 1]), "w": WEIGHT, "mean": np.array([1.715e9, 50.0, 0.1], np.float32),
    "deviation": np.array([1e7, 1e4, 0.05], np.float32), "apart": np.array([-1, 3, 1]), "pads": np.array([0, 0, 0, 0]),
    "w2": np.concatenate([WEIGHT, WEIGHT / np.array([[1e9], [1e4], [0.1]], np.float32)]),
}  # fmt: skip


def exactly(name: str, path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """onnxruntime in double precision: in float32 it rounds seconds since 1970 to 128 s wherever it adds to them."""
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del model.graph.value_info[:]
    for tensor in list(model.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float64), tensor.name))
    for each in model.graph.node:
        for attribute in each.attribute:
            if each.op_type == "Cast" and attribute.name == "to":
                attribute.i = TensorProto.DOUBLE
    double = path.with_name("double.onnx")
    onnx.save(model, double)
    return plaintext(double, {name: values.astype(np.float64) for name, values in feeds.items()})


@pytest.mark.parametrize(
    "ranges", [WIDE, ((-(2.0**31), -(2.0**17), -0.25), (2.0**31, 2.0**17, 0.25))], ids=["far", "around zero"]
)
@pytest.mark.parametrize("name", THROUGH)
def test_units_go_with_the_columns(name: str, ranges, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    used = {value for each in THROUGH[name] for value in each.input}
    path = save_model(tmp_path, THROUGH[name], {k: v for k, v in CONSTANTS.items() if k in used}, ("batch", 3))
    feeds = {"x": X[:64]}
    compiled = compile_model(path, {"x": ranges})
    rehearsed = compile_model(path, {"x": ranges}, samples=feeds)  # on these rows, which stand at one end of the ranges
    assert rehearsed.plan.digest == compiled.plan.digest or rehearsed.imprecision < min(1, compiled.imprecision)
    [theirs] = exactly(name, path, feeds)
    if rehearsed.plan.digest != compiled.plan.digest:
        [ours] = computed(compiled, feeds)
        assert np.abs(ours - theirs).max() <= 8 * compiled.errors["y"] + 1e-6 * np.abs(theirs).max()
    [ours] = computed(rehearsed, feeds)
    assert np.abs(ours - theirs).max() <= 8 * rehearsed.errors["y"] + 1e-6 * np.abs(theirs).max()
    for error in (compiled.errors["y"], rehearsed.errors["y"]):
        assert error <= (1e-2 if name == "products" else 1e-3) * max(1.0, np.abs(theirs).max())


def test_several_inputs_of_one_column_each(tmp_path: Path) -> None:
    """As skl2onnx has them of a data frame, whole numbers among them."""
    kinds = {"when": TensorProto.INT64, "amount": TensorProto.FLOAT, "rate": TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(name, kind, ["batch", 1]) for name, kind in kinds.items()]
    nodes = [
        node("Cast", ["when"], ["t"], to=TensorProto.FLOAT),
        node("Concat", ["t", "amount", "rate"], ["x"], axis=1),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "table", inputs, [out], [numpy_helper.from_array(WEIGHT, "w")])
    path = save(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    feeds = {
        "when": X[:64, :1].astype(np.int64) + np.arange(64)[:, None], "amount": X[:64, 1:2], "rate": X[:64, 2:],
    }  # fmt: skip
    compiled = compile_model(path, {"when": (1.6e9, 1.8e9), "amount": (0, 131072), "rate": (0, 0.25)})
    exact = np.concatenate([v.astype(np.float64) for v in feeds.values()], axis=1) @ WEIGHT.astype(np.float64)
    assert np.abs(computed(compiled, feeds)[0] - exact).max() < 1e-5
    assert compiled.errors["y"] < 1e-6


def test_whole_numbers_stay_exact_and_cheap_to_compare(tmp_path: Path) -> None:
    """A one-hot code beside seconds since 1970, in one input of whole numbers."""
    nodes = [
        node("Gather", ["x", "code"], ["c"], axis=1),
        node("Equal", ["c", "codes"], ["is"]),
        node("Cast", ["is"], ["hot"], to=TensorProto.FLOAT),
        node("Cast", ["x"], ["reals"], to=TensorProto.FLOAT),
        node("Concat", ["reals", "hot"], ["all"], axis=1),
        node("MatMul", ["all", "w"], ["y"]),
    ]
    weight = np.array([[1e-7], [0.5], [0.0], [3.0], [5.0], [7.0]], np.float32)
    constants = {"code": np.array([2]), "codes": np.array([[0, 1, 2]]), "w": weight}
    path = save_model(tmp_path, nodes, constants, ("batch", 3), element=TensorProto.INT64)
    rng = np.random.Generator(np.random.PCG64(0))
    x = np.stack([rng.integers(1_700_000_000, 1_710_000_000, 50), rng.integers(18, 99, 50), rng.integers(0, 3, 50)], 1)
    compiled = compile_model(path, {"x": ((1.7e9, 0, 0), (1.71e9, 100, 3))})
    exact = np.concatenate([x, x[:, 2:] == np.arange(3)], axis=1).astype(np.float64) @ weight.astype(np.float64)
    assert np.abs(computed(compiled, {"x": x})[0] - exact).max() < 1e-5
    [step] = [gate for gate in compiled.plan.gates if gate.kind == "step"]
    assert compiled.plan.wire[step.x].scale == 1


@pytest.mark.parametrize("constant", [1.7e9 + 1, 0.1, 0.0])
def test_a_constant_column_beside_others(constant: float, tmp_path: Path) -> None:
    """A number that float32 does not have, too; and a range that is narrower than float32 resolves there."""
    weight = np.array([[1e-9], [0.5], [1e-9]], np.float32)
    path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"w": weight}, ("batch", 3))
    compiled = compile_model(path, {"x": ((constant, 0.0, 1.7e9), (constant, 1e5, 1.7e9 + 1))})
    x = np.array([[constant, 3.5, 1.7e9], [constant, 1e5, 1.7e9 + 1]], np.float32)
    exact = x.astype(np.float64) @ weight.astype(np.float64)
    assert np.allclose(computed(compiled, {"x": x})[0], exact, rtol=2e-7, atol=1e-4)


def test_a_lone_number_far_from_zero(tmp_path: Path) -> None:
    """An input without axes has an offset too."""
    path = save_model(tmp_path, [node("Mul", ["x", "k"], ["y"])], {"k": np.float32([0.3, 0.7])}, ())
    compiled = compile_model(path, {"x": (100.0, 101.0)})
    assert compiled.plan.inputs[0].offset != (0,)
    x = np.array(100.625, np.float32)
    assert np.abs(computed(compiled, {"x": x})[0] - plaintext(path, {"x": x})[0]).max() < 1e-4


# ------------------------------------------------------------------ ranges from data


def test_a_range_for_each_column_is_taken_and_told(tmp_path: Path) -> None:
    heard = Heard()
    compile_for_data(heard, converted("forest", tmp_path), {"X": X[HELD_OUT]}, {}, {}, Roles())
    [note] = heard.said
    assert "each column" in note and "the parties see it in the plan" in note and "-0.25:0.25" in note


def test_ranges_around_tables() -> None:
    x = np.array([[1.7e9, 1.0, -0.1], [1.7e9 + 1000, 3.0, 0.2]])
    low, high = suited_ranges({"x": x})["x"]
    assert low[1:] == (-4.0, -0.25) and high[1:] == (4.0, 0.25)
    assert 1.7e9 - 1024 < low[0] <= 1.7e9 and 1.7e9 + 1000 <= high[0] < 1.7e9 + 2048
    assert suited_ranges({"x": x[:, 1:]}) == {"x": (-4.0, 4.0)} == ranges_around({"x": x[:, 1:]})
    assert suited_ranges({"x": np.full((3, 2), np.nan)}) == {"x": (-(2.0**-10), 2.0**-10)}
    assert ranges_around({"x": np.full((3, 1), 1.7e9)}) == {"x": (-(2.0**31), 2.0**31)}


def test_a_value_outside_its_column_is_refused(tmp_path: Path) -> None:
    compiled = compile_model(converted("logistic", tmp_path), {"X": WIDE})
    with pytest.raises(InputError, match=r"column 2 \(the first is column 0\), outside the plan's range 0:0.25"):
        computed(compiled, {"X": X[:2] + np.array([[0, 0, 1]], np.float32)})


# ------------------------------------------------------------------ plans from outside


@pytest.mark.parametrize(
    "units",
    [
        {"offset": (Fraction(1),) * 2},
        {"factor": (Fraction(1),) * 4},
        {"factor": (Fraction(0),)},
        {"factor": (Fraction(-1),)},
    ],
)
def test_units_that_do_not_fit_are_refused(units: dict, tmp_path: Path) -> None:
    plan = compile_model(converted("logistic", tmp_path), {"X": WIDE}).plan
    bad = with_parts(plan, inputs=[plan.inputs[0].model_copy(update=units)])
    with pytest.raises(PlanError, match="unit"):
        parse_plan(bad.canonical)


def test_columns_from_which_zero_is_taken_keep_their_units(tmp_path: Path) -> None:
    """An Imputer of zeros looks at x - 0 of columns in units of their own."""
    settings = {"imputed_value_floats": [1.5e9, 0.25], "replaced_value_float": 0.0}
    path = save_model(tmp_path, [node("Imputer", ["x"], ["y"], domain="ai.onnx.ml", **settings)], {}, ("batch", 2))
    x = np.array([[0, 0.125], [1.25e9, 0], [-1e9, -0.5]], np.float32)
    compiled = compile_model(path, {"x": ((-(2.0**31), -1.0), (2.0**31, 1.0))})
    [ours], [theirs] = encrypted(compiled, {"x": x}), plaintext(path, {"x": x})
    assert (np.abs(ours - theirs) <= [512, 1e-4]).all()
