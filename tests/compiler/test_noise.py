"""Sums over rows with noise, from a model to the answer: as onnxruntime's but for the noise, and proved."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.from_graph import compile_graph
from mpc.compiler.graph.attributes import Noise, RowsSum, Step
from mpc.compiler.graph.graph import Graph, GraphInput, GraphOutput, Node, Origin
from mpc.compiler.graph.noising import Noising
from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.roles import Roles
from mpc.errors import ModelError, PlanError, UsageError
from mpc.gates.draw import Draw
from mpc.gates.step import Step as StepGate
from mpc.interpret.world import WorldRun
from mpc.plan.cost import plan_cost
from mpc.privacy.facts import StoredFacts
from mpc.privacy.guarantee import guarantee
from parties.client.cluster import read_output
from parties.client.running.feeds import to_integers
from tests.support.graphs import node, save_model
from tests.support.models import plaintext
from tests.support.worlds import Trial, make_world

ROWS = np.array([0], dtype=np.int64)
Nodes = list[onnx.NodeProto]
REDUCED = {"axes": ROWS}


def summed(
    folder: Path, nodes: Nodes, outputs: tuple[str, ...] = ("y",), columns: int = 4, **constants: object
) -> Path:
    """A model whose ReduceSums read the axis 0 from a constant."""
    named = REDUCED | {name: np.asarray(value) for name, value in constants.items()}
    return save_model(folder, nodes, named, ("batch", columns), outputs)


def total(x: str = "x", y: str = "y", keep: int = 0, name: str = "") -> onnx.NodeProto:
    return node("ReduceSum", [x, "axes"], [y], name or f"sum of {x}", keepdims=keep)


def answer(compiled: Compiled, x: np.ndarray, parties: int = 2, number: int = 1) -> tuple[list[np.ndarray], WorldRun]:
    """A run's outputs as a recipient reads them."""
    integers = to_integers(compiled.plan, {"x": x}, ["x"])
    run = make_world(compiled.plan, compiled.weights, parties, number).run(integers, len(x))
    return [read_output(out, compiled.plan.bind(len(x)), run.outputs[out.wire]) for out in compiled.plan.outputs], run


def deviations(compiled: Compiled, out: str) -> float:
    """The noise's standard deviation in the model's units."""
    wire = next(each.wire for each in compiled.plan.outputs if each.name == out)
    [vector] = [v for v in compiled.guarantee.vectors if compiled.plan.wire[v.wire].shape is not None][:1]
    return float(vector.variance) ** 0.5 / float(compiled.plan.wire[wire].scale)


def check(path: Path, x: np.ndarray, noise: dict[str, object], within: float = 8.0, **more: object) -> Compiled:
    """The answer is onnxruntime's, but for rounding and a few deviations of its noise."""
    compiled = compile_model(path, (0.0, 100.0), noise=noise, **more)
    found, _ = answer(compiled, x)
    for ours, theirs, out in zip(found, plaintext(path, {"x": x}), compiled.plan.outputs, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < within * deviations(compiled, out.name) + 1e-3 * np.abs(theirs).max()
    assert compiled.guarantee == guarantee(compiled.plan, facts(compiled))
    return compiled


def facts(compiled: Compiled) -> dict[str, StoredFacts]:
    return {given.wire: StoredFacts(1, 1, "data") for given in compiled.plan.inputs}


DATA = np.random.default_rng(3).uniform(0, 100, (300, 4)).astype(np.float32)


@pytest.mark.parametrize("keep", [0, 1])
def test_a_sum_over_rows_is_noised(tmp_path: Path, keep: int) -> None:
    compiled = check(summed(tmp_path, [total(keep=keep)]), DATA, {"y": 1.0})
    [vector] = compiled.guarantee.vectors
    assert (vector.elements, vector.sensitivity, vector.loss.epsilon) == (4, 4 * 4095, 1)
    assert plan_cost(compiled.plan, 300).rounds == 3
    [spread] = {deviations(compiled, "y")}
    assert 400 * 2**0.5 < spread < 410 * 2**0.5 * 1.02  # of four columns that reach 100: D / epsilon is 400


def test_noise_has_the_spread_that_it_should(tmp_path: Path) -> None:
    compiled = compile_model(summed(tmp_path, [total()]), (0.0, 100.0), noise={"y": 5})
    x = np.full((50, 4), 30.0, dtype=np.float32)
    off = np.array([answer(compiled, x, number=n)[0][0] - 1500 for n in range(1, 26)])
    assert 0.6 < off.std() / deviations(compiled, "y") < 1.5 and abs(off.mean()) < 5 * off.std() / 10


def test_a_count_needs_no_bound_and_costs_one(tmp_path: Path) -> None:
    """How many rows are above 60: a comparison, and its bits' sum."""
    nodes = [
        node("Greater", ["x", "level"], ["above"]),
        node("Cast", ["above"], ["bits"], to=TensorProto.FLOAT),
        total("bits"),
    ]
    compiled = check(summed(tmp_path, nodes, columns=1, level=np.float32(60)), DATA[:, :1], {"y": Fraction(1, 2)})
    [vector] = compiled.guarantee.vectors
    assert vector.sensitivity == 1 and "bound" not in {gate.kind for gate in compiled.plan.gates}
    cost = plan_cost(compiled.plan, 8000)
    assert cost.rounds == 3 and cost.sent < 8000 * 3  # no bit is opened, only their sum


def test_a_sum_where_is_bounded_behind_the_product(tmp_path: Path) -> None:
    """np.where(x0 > 60, x1, 0).sum()"""
    nodes = [
        node("Split", ["x"], ["a", "b"], axis=1),
        node("Greater", ["a", "level"], ["above"]),
        node("Where", ["above", "b", "zero"], ["chosen"]),
        total("chosen"),
    ]
    path = summed(tmp_path, nodes, columns=2, level=np.float32(60), zero=np.float32(0))
    compiled = check(path, DATA[:, :2], {"y": 1.0})
    assert compiled.guarantee.vectors[0].sensitivity == 4095


def test_what_follows_is_computed_on_the_noised_sum(tmp_path: Path) -> None:
    """A ratio of two sums: they share the epsilon, and the division comes after."""
    nodes = [
        node("Split", ["x"], ["a", "b"], axis=1),
        total("a", "sa"),
        total("b", "sb"),
        node("Mul", ["sa", "tenth"], ["small"]),
        node("Add", ["small", "sb"], ["y"]),
    ]
    path = summed(tmp_path, nodes, columns=2, tenth=np.float32(0.125))
    compiled = compile_model(path, (0.0, 100.0), noise={"y": 1.0})
    assert [v.loss.epsilon for v in compiled.guarantee.vectors] == [Fraction(1, 2)] * 2
    assert compiled.guarantee.of([compiled.plan.inputs[0].wire]).epsilon == 1
    (found,), _ = answer(compiled, DATA[:, :2])
    (exact,) = plaintext(path, {"x": DATA[:, :2]})
    assert np.abs(found - exact).max() < 12 * 2**0.5 * 205


@pytest.mark.parametrize("width", [4, 16, 20])
def test_width_trades_rounding_for_cost(tmp_path: Path, width: int) -> None:
    path = summed(tmp_path, [total()], columns=1)
    compiled = compile_model(path, (-50.0, 50.0), noise=Noising({"y": Fraction(5)}, width=width))
    [vector] = compiled.guarantee.vectors
    assert vector.sensitivity == (1 << width) - 1
    spread = deviations(compiled, "y")
    assert 2**0.5 * 20 * 0.9 < spread < 2**0.5 * 20 * 1.3  # one person's 100 at epsilon 5, whatever the unit
    x = np.linspace(-50, 50, 400, dtype=np.float32)[:, None] + 0
    (found,), _ = answer(compiled, x)
    assert np.abs(found - x.sum()).max() < 8 * spread + 400 * 100 / (1 << width)


def test_the_range_is_filled_and_kept_at_its_ends(tmp_path: Path) -> None:
    """Rows at both ends of the declared range come out as they are: nothing wraps around."""
    compiled = compile_model(summed(tmp_path, [total()], columns=1), (-3.0, 7.0), noise={"y": 5})
    for end in (-3.0, 7.0):
        (found,), _ = answer(compiled, np.full((1000, 1), end, dtype=np.float32))
        assert np.abs(found - 1000 * end).max() < 40
    [bound] = [gate for gate in compiled.plan.gates if gate.kind == "bound"]
    assert bound.width == 12


def test_more_people_a_row_need_more_noise(tmp_path: Path) -> None:
    path = summed(tmp_path, [total()], columns=1)
    stored = {"x": StoredFacts(rows=1000, rows_per_person=3, origin="visits")}
    compiled = compile_model(path, (0.0, 1.0), noise=Noising({"y": Fraction(1)}, stored=stored))
    assert compiled.guarantee.vectors[0].sensitivity == 3 * 4095
    with pytest.raises(PlanError, match="not those of epsilon"):
        guarantee(compiled.plan, facts(compiled))  # for one row a person the noise is another


def test_parties_equal_the_reference(tmp_path: Path) -> None:
    compiled = compile_model(summed(tmp_path, [total()]), (0.0, 100.0), noise={"y": 0.5})
    for parties in (2, 3):
        Trial(compiled.plan, compiled.weights, parties).run(to_integers(compiled.plan, {"x": DATA}, ["x"]), len(DATA))


def test_the_expected_error_leaves_noise_out(tmp_path: Path) -> None:
    compiled = compile_model(summed(tmp_path, [total()]), (0.0, 100.0), noise={"y": 0.5})
    assert 0 < compiled.errors["y"] < 50 < deviations(compiled, "y")


def test_columns_of_a_dataset_are_protected_whatever_else_is_entered(tmp_path: Path) -> None:
    """Stored integers at scales of their own; what the asker enters beside them is no one's data."""
    nodes = [node("Mul", ["x", "one"], ["xs"]), total("xs")]
    path = summed(tmp_path, nodes, columns=2, one=np.float32(1))
    lying = StoredInput((Fraction(1), Fraction(16)), (0.0, 0.0), (100.0, 50.0))
    compiled = compile_model(path, stored={"x": lying}, noise={"y": 1.0})
    [given] = compiled.plan.inputs
    assert compiled.guarantee.vectors[0].sources == {given.wire}
    assert compiled.guarantee == guarantee(compiled.plan, facts(compiled))
    kinds = [gate.kind for gate in compiled.plan.gates]
    assert kinds.index("bound") < kinds.index("rows") < kinds.index("open")


def binned(folder: Path, edges: list[float]) -> Path:
    """How many rows are between neighbouring edges, by comparisons with all of them."""
    count = len(edges) - 1
    nodes = [
        node("GreaterOrEqual", ["x", "edges"], ["above"]),
        node("Cast", ["above"], ["bits"], to=TensorProto.FLOAT),
        node("Gather", ["bits", "low"], ["from"], "lower", axis=1),
        node("Gather", ["bits", "high"], ["to"], "upper", axis=1),
        node("Sub", ["from", "to"], ["bins"]),
        total("bins"),
    ]
    places = {"low": np.arange(count), "high": np.arange(1, count + 1)}
    return summed(folder, nodes, columns=1, edges=np.array(edges, dtype=np.float32), **places)


@pytest.mark.parametrize("bins", [2, 7, 20])
def test_public_thresholds_are_levels_of_one_comparison(tmp_path: Path, bins: int) -> None:
    """A histogram costs 2 however many bins it has, if its edges are public; a person leaves one and enters another."""
    path = binned(tmp_path, np.linspace(-1, 101, bins + 1).tolist())
    public = check(path, DATA[:, :1], {"y": 5}, roles=Roles(public_weights=True))
    assert [vector.sensitivity for vector in public.guarantee.vectors] == [2]
    assert [gate.kind for gate in public.plan.gates].count("step") == 1
    secret = check(path, DATA[:, :1], {"y": 5})
    assert [vector.sensitivity for vector in secret.guarantee.vectors] == [2 * bins]
    levels = {level for gate in secret.plan.gates if isinstance(gate, StepGate) for level in gate.levels}
    assert len(levels) == 1  # secret edges are no levels


def test_values_on_a_public_threshold_reach_it(tmp_path: Path) -> None:
    """Held to 16 bits, a value at a level is never below it."""
    path = binned(tmp_path, [-1.0, 12.3, 45.6, 78.9, 101.0])
    compiled = compile_model(path, (0.0, 100.0), Roles(public_weights=True), noise={"y": 5})
    x = np.repeat(np.array([[12.3], [45.6], [78.9]], dtype=np.float32), 100, axis=0)
    (found,), _ = answer(compiled, x)
    assert np.abs(found - [0, 100, 100, 100]).max() < 12 * deviations(compiled, "y")


def test_too_many_thresholds_stay_apart(tmp_path: Path) -> None:
    path = binned(tmp_path, np.linspace(-1, 101, 71).tolist())
    compiled = compile_model(path, (0.0, 100.0), Roles(public_weights=True), noise={"y": 5})
    assert compiled.guarantee.vectors[0].sensitivity == 140


def test_noise_drowns_what_rounding_does(tmp_path: Path) -> None:
    """Nobody is told of an error that is far below the noise; and a rehearsal has no more rows than the plan."""
    path = summed(tmp_path, [total()], columns=1)
    noising = Noising({"y": Fraction(1)}, most=3)
    compiled = compile_model(path, (0.0, 100.0), noise=noising)
    assert compiled.messages == [] and 4 * compiled.errors["y"] < compiled.deviations["y"]
    assert compiled.deviations["y"] == pytest.approx(deviations(compiled, "y"))


# ------------------------------------------------------------------ what is refused


def test_sums_over_rows_are_for_who_asks_for_noise(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="batch"):
        compile_model(summed(tmp_path, [total()]), (0.0, 100.0))


def test_every_sum_has_an_epsilon(tmp_path: Path) -> None:
    path = summed(tmp_path, [total(), node("Neg", ["x"], ["n"]), total("n", "z")], ("y", "z"))
    with pytest.raises(ModelError, match="without noise"):
        compile_model(path, (0.0, 100.0), noise={"y": 1.0})
    both = compile_model(path, (0.0, 100.0), noise={"y": 1.0, "z": 0.5})
    assert both.guarantee.of([both.plan.inputs[0].wire]).epsilon == Fraction(3, 2)


def test_rows_may_not_be_told_beside_their_sum(tmp_path: Path) -> None:
    path = summed(tmp_path, [total(), node("Neg", ["x"], ["n"])], ("y", "n"))
    with pytest.raises(PlanError, match="tells single rows"):
        compile_model(path, (0.0, 100.0), noise={"y": 1.0})


@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceMean", "ReduceSumSquare", "ReduceProd"])
def test_only_sums_go_over_rows(tmp_path: Path, operator: str) -> None:
    made = node(operator, ["x"], ["y"], axes=[0]) if operator != "ReduceSum" else total()
    path = save_model(tmp_path, [made, node("Relu", ["y"], ["z"])], {}, ("batch", 4), ("z",), opset=13)
    with pytest.raises(ModelError):
        compile_model(path, (0.0, 100.0), noise={"z": 1.0})


def test_two_outputs_of_one_sum(tmp_path: Path) -> None:
    path = summed(tmp_path, [total("x", "s"), node("Neg", ["s"], ["y"]), node("Abs", ["s"], ["z"])], ("y", "z"))
    with pytest.raises(ModelError, match="two noised outputs"):
        compile_model(path, (0.0, 100.0), noise={"y": 1.0, "z": 1.0})


def test_an_output_without_a_sum(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no sum over rows"):
        compile_model(save_model(tmp_path, [node("Relu", ["x"], ["y"])]), (0.0, 1.0), noise={"y": 1.0})
    with pytest.raises(ModelError, match="no output 'q'"):
        compile_model(summed(tmp_path, [total()]), (0.0, 1.0), noise={"q": 1.0})


@pytest.mark.parametrize("epsilon", [0, -1.0, 5.1, "nought"])
def test_epsilons_that_are_none(tmp_path: Path, epsilon: object) -> None:
    with pytest.raises(UsageError, match="epsilon"):
        compile_model(summed(tmp_path, [total()]), (0.0, 1.0), noise={"y": epsilon})


@pytest.mark.parametrize("settings", [{"width": 1}, {"width": 21}, {"most": 0}, {"most": 1 << 21}])
def test_settings_that_are_none(settings: dict) -> None:
    with pytest.raises(UsageError, match="width"):
        Noising({"y": Fraction(1)}, **settings)


def test_stored_inputs_are_the_models(tmp_path: Path) -> None:
    noising = Noising({"y": Fraction(1)}, stored={"q": StoredFacts(1, 1, "a")})
    with pytest.raises(ModelError, match="no input 'q'"):
        compile_model(summed(tmp_path, [total()]), (0.0, 1.0), noise=noising)


def test_rows_beyond_what_the_plan_is_made_for(tmp_path: Path) -> None:
    noising = Noising({"y": Fraction(1)}, most=100)
    plan = compile_model(summed(tmp_path, [total()]), (0.0, 100.0), noise=noising).plan
    assert plan.bind(100).most_rows == 100
    with pytest.raises(PlanError, match="1 to 100"):
        plan.bind(101)


# ------------------------------------------------------------------ rows of a norm


def test_rows_that_are_longer_than_they_may_be_count_as_zeros(tmp_path: Path) -> None:
    """The noise follows from the norm: two rows of 9 columns are at most 2 apart, where their ranges allow 6."""
    model = summed(tmp_path, [node("Mul", ["x", "half"], ["h"]), total("h")], columns=9, half=0.5)
    noising = Noising({"y": Fraction(5)}, most=301, mechanisms=("gaussian",), norms={"h": 1.0})
    compiled = compile_model(model, (-2.0, 2.0), noise=noising)
    [vector] = compiled.guarantee.vectors
    scale = float(compiled.plan.wire[vector.wire].scale)
    assert float(vector.euclidean) / scale == pytest.approx(2, rel=0.05)
    x = np.zeros((300, 9))
    x[:100, 0], x[100:200, 1:3], x[200:, 8] = 1.9, 1.3, 2.0  # norms of 0.95, 0.92 and 1, once they are halved
    x[:50, 4] = 1.0  # and of 1.07
    [found], _ = answer(compiled, x)
    wanted = 0.5 * x[50:].sum(axis=0)
    assert np.abs(found - wanted).max() < 6 * float(vector.variance) ** 0.5 / scale + 1
    assert abs(float(found[0]) - 0.5 * 100 * 1.9) > 20


def test_a_norm_is_of_a_value_with_columns(tmp_path: Path) -> None:
    noising = Noising({"y": Fraction(1)}, norms={"q": 1.0})
    with pytest.raises(ModelError, match="no value 'q' whose rows"):
        compile_model(summed(tmp_path, [total()]), (0.0, 1.0), noise=noising)


# ------------------------------------------------------------------ graphs by hand


def by_hand(levels: tuple[float, ...]) -> Graph:
    """How many rows reach each level."""
    origin = Origin("count", "count")
    nodes = [
        Node("step", ("x",), "bits", ("batch", 1, len(levels)), origin, Step(levels=levels)),
        Node("rows_sum", ("bits",), "sum", (1, len(levels)), origin, RowsSum(most=1000)),
        Node("noise", ("sum",), "y", (1, len(levels)), origin, Noise(epsilon=Fraction(1, 4))),
    ]
    given = GraphInput("x", ("batch", 1), "float32", (0.0, 100.0))
    return Graph([given], nodes, [GraphOutput("y", "y", (1, len(levels)), "float32")])


def test_a_graph_may_have_noise_of_its_own() -> None:
    found = compile_graph(by_hand((10.0, 20.0, 30.0)), noising=Noising({}))
    [vector] = found.guarantee.vectors
    assert (vector.elements, vector.sensitivity, vector.loss.epsilon) == (3, 3, Fraction(1, 4))
    x = np.arange(100, dtype=np.int64)[:, None] << 28
    scale = int(found.plan.wire[found.plan.inputs[0].wire].scale)
    run = make_world(found.plan, found.weights, 2).run({found.plan.inputs[0].wire: x * scale >> 28}, 100)
    assert np.abs(run.outputs[found.plan.outputs[0].wire] - [[90, 80, 70]]).max() < 12 * 12 * 2**0.5


def test_a_sum_by_hand_without_noise_is_refused() -> None:
    graph = by_hand((10.0,))
    graph.nodes = graph.nodes[:2]
    graph.outputs = [GraphOutput("y", "sum", (1, 1), "float32")]
    with pytest.raises(PlanError, match="without the noise"):
        compile_graph(graph)


# ------------------------------------------------------------------ what it costs


@pytest.mark.parametrize(("width", "dealt"), [(12, 9.0e6), (16, 10.5e6)])
def test_the_cost_of_a_noised_sum_over_a_hundred_thousand_rows(tmp_path: Path, width: int, dealt: float) -> None:
    """Counted in a run: 3 rounds, 0.46 MB sent to each peer, 10.5 MB dealt."""
    noising = Noising({"y": Fraction(1, 10)}, width=width)
    compiled = compile_model(summed(tmp_path, [total()]), (0.0, 100.0), noise=noising)
    cost = plan_cost(compiled.plan, 100_000)
    assert cost.rounds == 3 and cost.sent <= 460_000 and cost.dealt <= dealt
    x = np.random.default_rng(1).uniform(0, 100, (100_000, 4)).astype(np.float32)
    (found,), run = answer(compiled, x)
    assert (len(run.sent), sum(run.sent), run.dealt) == (cost.rounds, cost.sent, cost.dealt)
    assert np.abs(found - x.sum(axis=0)).max() < 8 * deviations(compiled, "y") + 3000
    assert {gate.kind for gate in compiled.plan.gates if isinstance(gate, Draw)} == {"draw"}


def test_an_epsilon_says_for_which_output_it_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an epsilon is for an output; fix: name it"):
        compile_model(summed(tmp_path, [total()]), (0.0, 100.0), noise=0.5)  # type: ignore[arg-type]


# ------------------------------------------------------------------ which noise

BOTH = ("laplace", "gaussian")


@pytest.mark.parametrize(("columns", "kind"), [(4, "laplace"), (96, "gaussian")])
def test_each_sum_has_the_noise_of_less_variance(tmp_path: Path, columns: int, kind: str) -> None:
    """Laplace noise grows with the number of elements, Gaussian noise with its root."""
    x = np.random.default_rng(columns).uniform(0, 100, (300, columns)).astype(np.float32)
    path = summed(tmp_path, [total()], columns=columns)
    spreads = {}
    for kinds in (("laplace",), ("gaussian",), BOTH):
        compiled = check(path, x, Noising({"y": Fraction(1)}, mechanisms=kinds, most=300))
        [vector] = compiled.guarantee.vectors
        spreads[kinds] = deviations(compiled, "y")
        assert vector.mechanism == (kind if kinds == BOTH else kinds[0])
        if vector.mechanism == "gaussian":
            assert vector.loss.delta <= Fraction(1, 10**8) and vector.variance <= 2 * 1024**2
    assert spreads[BOTH] == min(spreads.values()) < max(spreads.values()) / 1.2


def test_gaussian_noise_has_the_spread_that_it_should(tmp_path: Path) -> None:
    compiled = compile_model(
        summed(tmp_path, [total()], columns=64), (0.0, 100.0), noise=Noising({"y": Fraction(5)}, mechanisms=BOTH)
    )
    x = np.full((50, 64), 30.0, dtype=np.float32)
    off = np.array([answer(compiled, x, number=n, parties=2 + n % 2)[0][0] - 1500 for n in range(1, 7)])
    assert 0.8 < off.std() / deviations(compiled, "y") < 1.25
    assert abs(off.mean()) < 5 * off.std() / off.size**0.5


def test_a_small_sum_is_not_rounded_before_gaussian_noise(tmp_path: Path) -> None:
    """Bits of comparisons: sigma is a few units, and the count stays on whole numbers."""
    nodes = [
        node("Greater", ["x", "level"], ["above"]),
        node("Cast", ["above"], ["bits"], to=TensorProto.FLOAT),
        total("bits"),
    ]
    path = summed(tmp_path, nodes, level=np.float32(60))
    compiled = check(path, DATA, Noising({"y": Fraction(1)}, mechanisms=("gaussian",)))
    kinds = {gate.kind for gate in compiled.plan.gates}
    assert "gaussian" in kinds and "truncate" not in kinds


def test_sums_share_delta_as_they_share_epsilon(tmp_path: Path) -> None:
    nodes = [
        node("Split", ["x"], ["a", "b"], axis=1),
        total("a", "sa"),
        total("b", "sb"),
        node("Add", ["sa", "sb"], ["y"]),
    ]
    path = summed(tmp_path, nodes, columns=2)
    noising = Noising({"y": Fraction(1)}, mechanisms=("gaussian",), delta=Fraction(1, 10**7))
    compiled = compile_model(path, (0.0, 100.0), noise=noising)
    assert all(Fraction(49, 10**9) < v.loss.delta <= Fraction(5, 10**8) for v in compiled.guarantee.vectors)


def test_what_no_gaussian_hides_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = summed(tmp_path, [total()], columns=2)
    tiny = Noising({"y": Fraction(1, 1000)}, mechanisms=("gaussian",), delta=Fraction(1, 10**12))
    with pytest.raises(ModelError, match="no Gaussian noise of up to 1024 units"):
        compile_model(path, (0.0, 100.0), noise=tiny)


@pytest.mark.parametrize("settings", [{"mechanisms": ()}, {"mechanisms": ("uniform",)}, {"delta": 0}, {"delta": 1}])
def test_noise_that_there_is_not(settings: dict) -> None:
    with pytest.raises(UsageError, match="noise of the kind|a delta of"):
        Noising({"y": Fraction(1)}, **settings)
