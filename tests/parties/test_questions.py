"""Questions as arrays: numpy's names on columns that nobody sees, numpy's answers, and refusals that say why."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas
import pytest

from mpc.compiler.compile import compile_model
from mpc.errors import InputError, ModelError, PrivateDataError, UsageError
from mpc.interpret.world import World
from mpc.plan.cost import plan_cost
from mpc.plan.link import Link
from mpc.privacy.facts import Loss
from parties.agreed.grants import Grant, Statement
from parties.agreed.objects import Manifest
from parties.agreed.questions import Question
from parties.client.at_rest import bound
from parties.client.cluster import Cluster, read_output
from parties.client.consent import granting, remaining
from parties.client.dataset import Dataset
from parties.client.datasets import Datasets
from parties.client.questions import asking, model
from parties.client.questions.pointer import Pointer
from parties.client.running.roles import PUBLIC, assign
from parties.client.selection import Selection
from tests.support.asking import word
from tests.support.grants import budget, dp, grant, revocation
from tests.support.graphs import node, save_model
from tests.support.objects import manifest, schema
from tests.support.parties import InProcess
from tests.support.worlds import seed

ROWS = 24
WHOLE: Manifest = manifest(schema(rows=ROWS))
WEIGHTS = np.array([[0.5, -1.0, 2.0], [1.0, 0.25, 0.125]])


def integers() -> dict[str, np.ndarray]:
    """What the object would hold: values all over the ranges, both ends among them."""
    rng = np.random.default_rng(11)
    found = {}
    for column in WHOLE.columns:
        low, high = column.ends
        values = rng.integers(low, high, (ROWS, *column.shape), dtype=np.int64, endpoint=True)
        values[0], values[1] = low, high
        found[column.name] = values
    return found


HELD = integers()


class Plain(dict[Any, Any]):
    """The table, as samples have it."""

    def __getitem__(self, name: Any) -> np.ndarray:
        if isinstance(name, list):
            return np.stack([np.asarray(self[each], float) for each in name], axis=1)
        column = WHOLE.column(name)
        values = HELD[name]
        return values if column.scale == 1 and column.type != "number" else values / float(column.scale)


ROWWISE: dict[str, Callable[[Any], Any]] = {
    "a column": lambda d: d["age"],
    "of reals": lambda d: d["bmi"],
    "a matrix": lambda d: d[["age", "bmi"]],
    "arrays": lambda d: d["scan"],
    "sum": lambda d: d["age"] + d["bmi"],
    "whole sum": lambda d: d["age"] + 1,
    "weak types": lambda d: 2.5 * d["age"] - 1,
    "difference": lambda d: d["bmi"] - d["age"],
    "product": lambda d: d["age"] * d["bmi"],
    "ratio": lambda d: d["age"] / d["bmi"],
    "by a number": lambda d: d["age"] / 7,
    "inverse": lambda d: 1 / d["bmi"],
    "negation": lambda d: -d["bmi"],
    "power": lambda d: (d["bmi"] / 10) ** 3,
    "square": lambda d: d["age"] ** 2,
    "np.square": lambda d: np.square(d["bmi"] - 20),
    "np.sqrt": lambda d: np.sqrt(d["bmi"]),
    "np.exp": lambda d: np.exp(-d["bmi"] / 10),
    "np.log": lambda d: np.log(d["bmi"]),
    "np.log1p": lambda d: np.log1p(d["age"]),
    "np.log10": lambda d: np.log10(d["bmi"]),
    "np.expm1": lambda d: np.expm1(d["bmi"] / 100),
    "np.tanh": lambda d: np.tanh((d["bmi"] - 40) / 10),
    "np.sin": lambda d: np.sin(d["bmi"] / 10),
    "np.abs": lambda d: np.abs(d["age"] - 60),
    "abs": lambda d: abs(d["bmi"] - 30.5),
    "np.sign": lambda d: np.sign(d["age"] - 60),
    "np.maximum": lambda d: np.maximum(d["age"], d["bmi"]),
    "np.minimum": lambda d: np.minimum(d["age"], 65),
    "np.clip": lambda d: np.clip(d["age"], 18, 65),
    "clip method": lambda d: d["bmi"].clip(20.0, 30.0),
    "clip below": lambda d: np.clip(d["bmi"], 20, None),
    "clip above": lambda d: np.clip(d["bmi"], None, 30),
    "greater": lambda d: d["age"] > 60,
    "greater real": lambda d: d["bmi"] >= 25.5,
    "less": lambda d: d["age"] <= d["bmi"],
    "equal": lambda d: d["age"] == 60,
    "not equal": lambda d: d["site"] != 1,
    "and": lambda d: (d["age"] > 60) & (d["bmi"] < 40),
    "or, not": lambda d: ~((d["age"] > 60) | (d["lost bmi"] == 1)),
    "xor": lambda d: (d["age"] > 60) ^ (d["bmi"] > 30),
    "np.logical_and": lambda d: np.logical_and(d["lost bmi"], d["age"] > 30),
    "np.isin": lambda d: np.isin(d["site"], [0, 2]),
    "np.isnan": lambda d: np.isnan(d["age"]),
    "np.isfinite": lambda d: np.isfinite(d["age"] / 3),
    "np.nan_to_num": lambda d: np.nan_to_num(d["age"]),
    "np.where": lambda d: np.where(d["age"] > 60, d["bmi"], 0),
    "np.where, two": lambda d: np.where(d["age"] > 60, d["age"], d["bmi"]),
    "np.where of truths": lambda d: np.where(d["age"] > 60, d["bmi"] > 30, d["bmi"] > 20),
    "condition times": lambda d: (d["age"] > 60) * d["bmi"],
    "astype float": lambda d: d["age"].astype(float) / 3,
    "astype int": lambda d: (d["age"] > 60).astype(int) + (d["bmi"] > 30),
    "astype bool": lambda d: d["age"].astype(bool),
    "@": lambda d: d[["age", "bmi"]] @ WEIGHTS,
    "@ vector": lambda d: d[["age", "bmi"]] @ np.array([0.5, -1.5]),
    "np.stack": lambda d: np.stack([d["age"], d["bmi"], d["age"] * 2], axis=1),
    "np.column_stack": lambda d: np.column_stack([d["age"], d["bmi"]]),
    "np.concatenate": lambda d: np.concatenate([d[["age", "bmi"]], d["scan"][:, :, 0]], axis=1),
    "places": lambda d: d["scan"][:, 0, 1:] - d["bmi"][:, None],
    "columns": lambda d: d[["age", "bmi"]][:, 1],
    "reshape": lambda d: d["scan"].reshape(-1, 6) @ np.arange(6.0),
    "sum of a row": lambda d: d["scan"].sum(axis=(1, 2)),
    "mean of a row": lambda d: np.mean(d[["age", "bmi"]], axis=1),
    "max of a row": lambda d: d[["age", "bmi"]].max(axis=1),
    "min of a row": lambda d: np.min(d["scan"], axis=2),
    "any of a row": lambda d: np.any(d["scan"] > 0.5, axis=(1, 2)),
    "np.ones_like": lambda d: np.ones_like(d["age"]) + d["age"],
    "standardised": lambda d: (d[["age", "bmi"]] - [60.0, 40.0]) / [30.0, 10.0],
    "logistic": lambda d: 1 / (1 + np.exp(-(d["bmi"] - 40) / 10)),
    "//": lambda d: d["age"] // 10,
    "// below zero": lambda d: (5 - d["age"]) // -10,
    "// of reals": lambda d: d["bmi"] // 5,
    "%": lambda d: d["age"] % 10,
    "np.floor": lambda d: np.floor(d["bmi"] / 10 - 3),
    "np.ceil": lambda d: np.ceil(d["age"] / 10),
    "np.trunc": lambda d: np.trunc(d["bmi"] - 30.25),
    "reals to whole": lambda d: (d["bmi"] / 4).astype(int),
    "np.digitize": lambda d: np.digitize(d["bmi"], [18.5, 25.0, 30.0]),
    "np.searchsorted": lambda d: np.searchsorted([18, 40, 65], d["age"]),
    "np.select": lambda d: np.select([d["age"] < 18, d["age"] < 65], [0, 1], default=2.5),
    "np.choose": lambda d: np.choose(d["site"], [10, 20, 30]),
    "np.interp": lambda d: np.interp(d["age"], [0, 50, 100], [0, 1, 0.5]),
    "np.polyval": lambda d: np.polyval([1, -2, 3], d["bmi"] / 10),
    "np.isclose": lambda d: np.isclose(d["bmi"], 30, atol=1),
    "np.hypot": lambda d: np.hypot(d["bmi"], d["age"]),
    "np.heaviside": lambda d: np.heaviside(d["age"] - 60, 0.5),
    "np.argmax": lambda d: np.argmax(d[["age", "bmi"]], axis=1),
    "argmin of an array": lambda d: d["scan"].argmin(axis=2),
    "np.ptp": lambda d: np.ptp(d["scan"], axis=2),
    "np.prod": lambda d: np.prod(d["scan"], axis=2),
    "np.std of a row": lambda d: np.std(d["scan"], axis=(1, 2)),
    "np.linalg.norm": lambda d: np.linalg.norm(d[["age", "bmi"]], axis=1),
    "np.outer": lambda d: np.outer(d["age"], [1, 2]),
    "np.transpose": lambda d: np.transpose(d["scan"], (0, 2, 1)),
    "swapaxes": lambda d: d["scan"].swapaxes(1, 2) * 2,
    "np.flip": lambda d: np.flip(d["scan"], axis=2),
    "np.roll": lambda d: np.roll(d["scan"], 1, axis=2),
    "np.repeat": lambda d: np.repeat(d[["age", "bmi"]], 2, axis=1),
    "np.tile": lambda d: np.tile(d[["age", "bmi"]], (1, 2)),
    "an ellipsis": lambda d: d["scan"][..., 0],
    "reshape of a rest": lambda d: d["scan"].reshape(len(d["scan"]), -1),
    "a product's type": lambda d: np.maximum(d["age"], 18).T * 2,
}  # fmt: skip
"""At least 40 expressions; each runs on numpy's arrays and on columns."""


def columns() -> dict[str, Selection]:
    return {name: Selection(WHOLE, (name,), False) for name in ("age", "bmi", "scan", "site", "bmi lost")}


class Renamed:
    """A dataset whose column of marks has another name, which its sample has too."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def __getitem__(self, name: Any) -> Any:
        return self._whole["bmi lost" if name == "lost bmi" else name]


def written(name: str) -> tuple[onnx.ModelProto, np.ndarray]:
    """An expression as a model whose rows are open, and what numpy makes of it."""
    exact = ROWWISE[name](Renamed(Plain()))
    pointer = ROWWISE[name](Renamed(Dataset(WHOLE)))
    assert isinstance(pointer, Pointer)
    assert (pointer.shape, pointer.dtype) == (exact.shape, exact.dtype)
    return model.write({"answer": pointer.node}, summed=False), exact


@pytest.mark.parametrize("name", [*ROWWISE])
def test_an_expression_is_numpys(name: str) -> None:
    """The model is what onnxruntime runs too."""
    made, exact = written(name)
    feeds = {given.name: Plain()[given.name] for given in made.graph.input}
    [plain] = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, feeds
    )
    assert plain.shape == exact.shape and plain.dtype == exact.dtype
    np.testing.assert_allclose(plain, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * bool(n % 3)) for n, name in enumerate(ROWWISE)]
)
def test_a_plan_of_it_is_too(name: str) -> None:
    """On shares of stored columns, rows open."""
    made, exact = written(name)
    stored = {given.name: bound.described(columns()[given.name]) for given in made.graph.input}
    compiled = compile_model(made, roles=assign("me", weights=PUBLIC), stored=stored)
    entered = {given.wire: HELD[given.name] for given in compiled.plan.inputs}
    run = World(compiled.plan, compiled.weights, 2, seed(1), entered).run({}, ROWS)
    rows = compiled.plan.bind(ROWS)
    [out] = rows.outputs
    found = read_output(out, rows, run.outputs[out.wire])
    assert found.shape == exact.shape and found.dtype == exact.dtype
    assert np.abs(found.astype(float) - exact).max() <= 2e-3 * max(1.0, np.abs(exact.astype(float)).max())


def test_there_are_enough_expressions() -> None:
    assert len(ROWWISE) >= 47


REFUSED: dict[str, tuple[Callable[[Dataset], Any], str]] = {
    "max over rows": (lambda d: d["age"].max(), "is one person's, and no sum over rows"),
    "np.min": (lambda d: np.min(d["age"]), "is one person's, and no sum over rows"),
    "median": (lambda d: d["age"].median(), "exact median"),
    "np.median": (lambda d: np.median(d["age"]), "exact median"),
    "sort": (lambda d: np.sort(d["age"]), "order of rows"),
    "argmax": (lambda d: np.argmax(d["age"]), "one person's"),
    "unique": (lambda d: np.unique(d["age"]), "which values occur"),
    "cumsum": (lambda d: np.cumsum(d["age"]), "mixes rows"),
    "any": (lambda d: np.any(d["age"] > 3), "count the rows"),
    "floor": (lambda d: np.floor(d["bmi"] * 2), "np.clip(x, low, high) before it"),
    "floor of what": (lambda d: np.floor(np.exp(d["bmi"] / 50)), "no declared range"),
    "//": (lambda d: d["age"] // d["bmi"], "one public number"),
    "%": (lambda d: d["age"] % 0, "one public number"),
    "round": (lambda d: np.round(d["bmi"], 1), "np.floor(x + 0.5)"),
    "round()": (lambda d: round(d["bmi"], 1), "np.floor(x + 0.5)"),
    "astype int": (lambda d: (d["bmi"] * 10).astype(int), "rounding"),
    "missing values": (lambda d: np.isnan(d["bmi"]), "ds['bmi lost'] == 1 says where"),
    "np.nanmean": (lambda d: np.nanmean(d["bmi"]), "leaves them out"),
    "rows' order": (lambda d: np.sort(d[["age", "bmi"]], axis=1), "within a row"),
    "flipped rows": (lambda d: np.flip(d["age"]), "rows stay"),
    "transposed rows": (lambda d: d["scan"].T, "rows stay the first axis"),
    "sum where": (lambda d: np.sum(d["scan"], where=d["age"] > 3), "of one number a row and a condition"),
    "keepdims": (lambda d: np.mean(d["age"], keepdims=True), "no axis of rows"),
    "weights": (lambda d: np.average(d["scan"], weights=d["bmi"]), "one number and one weight a row"),
    "histogram's weights": (lambda d: np.histogram(d["age"], [0, 9], weights=d["bmi"]), "group_by"),
    "a name of pandas": (lambda d: d["age"].rolling(3), "it mixes rows"),
    "a name of nobody": (lambda d: d["age"].frobnicate, "docs/data.md"),
    "a column as an attribute": (lambda d: d.age, "its columns are items: ds['age']"),
    "a dataset's method": (lambda d: d.groupby("sex"), "x.group_by(ds['sex']).mean()"),
    "a mask of a dataset": (lambda d: d[d["age"] > 3], "and not its rows"),
    "rows of a dataset": (lambda d: d[:10], "and not its rows"),
    "groups by a name": (lambda d: d["age"].group_by("site"), "a column of categories"),
    "a question among rows": (lambda d: d["age"] - d["age"].mean(), "ask it, and compute with the answer"),
    "questions added": (lambda d: d["age"].mean() + d["bmi"].mean(), "not asked yet"),
    "a question's root": (lambda d: np.sqrt(d["age"].var()), "not asked yet"),
    "a question rounded": (lambda d: np.round(d["age"].mean(), 2), "not asked yet"),
    "a question compared": (lambda d: d["age"].mean() > 3, "not asked yet"),
    "a question's number": (lambda d: float(d["age"].mean()), "not asked yet"),
    "a question printed": (lambda d: f"{d['age'].mean():.2f}", "not asked yet"),
    "pairs of rows": (lambda d: d["age"] - d["age"][:, None], "no row meets another"),
    "x x'": (lambda d: d[["age"]] @ d[["age"]], "right side is a public array"),
    "a value a row": (lambda d: d["age"] + np.arange(ROWS), "no public array has a value a row"),
    "np.where alone": (lambda d: np.where(d["age"] > 3), "private"),
    "stacked rows": (lambda d: np.stack([d["age"], d["bmi"]]), "no sum over rows"),
    "joined rows": (lambda d: np.concatenate([d["age"], d["age"]]), "no sum over rows"),
    "a mask of truths": (lambda d: -(d["age"] > 3), "numpy has no negative of bool"),
    "bits": (lambda d: d["age"] & 1, "bits of whole numbers"),
    "by zero": (lambda d: d["age"] / 0, "divided by zero"),
    "infinite": (lambda d: d["age"] + np.inf, "infinite or NaN"),
    "text": (lambda d: d["age"] + "x", "categories compare with their labels"),
    "no categories": (lambda d: d["age"] == "x", "no column of categories"),
    "count of numbers": (lambda d: d["age"].count(), "fulfil a condition"),
    "falling edges": (lambda d: d["age"].histogram([3, 2]), "rising public edges"),
    "no edges": (lambda d: np.histogram(d["age"]), "edges are public"),
    "quantile of what is computed": (lambda d: (d["age"] * 2).quantile(0.5), "public edges"),
    "groups of numbers": (lambda d: d["age"].group_by(d["bmi"]).sum(), "no categories and no few whole numbers"),
    "np.corrcoef of rows": (lambda d: np.corrcoef(d[["age", "bmi"]], rowvar=True), "rowvar=False"),
    "out=": (lambda d: np.add(d["age"], 1, out=np.zeros(3)), "an option"),
    "noise on rows": (lambda d: d["age"].get(epsilon=1), "sums over rows"),
    "without a cluster": (lambda d: d["age"].mean().get(epsilon=1), "without a cluster"),
    "epsilon": (lambda d: d["age"].mean().explain(epsilon=0), "an epsilon of 0"),
    "epsilon's form": (lambda d: d["age"].mean().explain(epsilon="much"), "an epsilon of 'much'"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*REFUSED])
def test_what_is_refused_says_why(name: str) -> None:
    asked, words = REFUSED[name]
    with pytest.raises(UsageError) as caught:
        asked(Dataset(WHOLE))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda d: (d["age"] > 3) and (d["age"] < 9), "& | ~ stand for and, or, not"),
        (lambda d: 3 < d["age"] < 9, "& | ~ stand for and, or, not"),
        (lambda d: sum(d["age"]), "x.sum()"),
        (lambda d: 30 in d["age"], "np.isin(x, values)"),
        (lambda d: d["age"][d["age"] > 3], "np.where(condition, x, 0)"),
        (lambda d: np.asarray(d["age"]), "sample()"),
        (lambda d: pandas.Series(d["age"]), "sample()"),
    ],
)
def test_values_that_nobody_sees_say_what_is_written_instead(asked: Callable[[Dataset], Any], words: str) -> None:
    with pytest.raises(PrivateDataError) as caught:
        asked(Dataset(WHOLE))
    assert words in str(caught.value)


def test_the_rows_are_an_axis_from_behind_too() -> None:
    """As numpy has it: -1 is the rows' axis of one number a row, and so is (0,)."""
    ds = Dataset(WHOLE)
    for axis in (0, -1, (0,), (-1,), np.int64(-1)):
        assert ds["age"].mean(axis=axis).text == ds["age"].mean().text
        assert ds["age"].std(axis).text == ds["age"].std().text
        with pytest.raises(UsageError, match="over rows"):
            ds["age"].max(axis=axis)
    assert ds[["age", "bmi"]].sum(axis=-2).text == ds[["age", "bmi"]].sum(axis=0).text
    assert ds[["age", "bmi"]].mean(axis=-1).shape == (ROWS,)


def test_columns_are_copied_as_they_are_and_not_pickled() -> None:
    for thing in (Dataset(WHOLE)["age"], Dataset(WHOLE)["age"] + 1):
        assert copy.copy(thing) is thing and copy.deepcopy({"x": thing})["x"] is thing
        with pytest.raises(UsageError, match="cannot be pickled"):
            pickle.dumps(thing)


def test_groups_say_which_sums_they_have() -> None:
    ds = Dataset(WHOLE)
    with pytest.raises(AttributeError, match=r"a grouping has no 'max'.*sum\(\), mean\(\), count\(\)"):
        ds["bmi"].group_by(ds["site"]).max()
    with pytest.raises(UsageError, match="not of the same people"):
        ds.merge(ds)


def test_names_that_programs_look_for_are_just_not_there() -> None:
    """What asks whether there is such a name is answered; numpy and notebooks do."""
    ds = Dataset(WHOLE)
    for thing in (ds, ds["age"], ds["age"] + 1):
        assert not hasattr(thing, "__array_interface__") and not hasattr(thing, "_ipython_display_")
        assert getattr(thing, "iloc", None) is None and not hasattr(thing, "to_frame")


def test_a_range_that_is_too_wide_is_told_in_the_words_of_questions(stays: Dataset) -> None:
    with pytest.raises(ModelError, match="np.clip") as caught:
        np.exp(stays["age"]).mean().get(epsilon=1)
    assert "--range" not in str(caught.value)


def test_decades_are_counted_and_summed(stays: Dataset) -> None:
    decades = stays["age"] // 10
    assert decades.mean().get().value == (AGE // 10).mean()
    found = decades.histogram([0, 3, 6, 10]).get(epsilon=5)
    assert (np.abs(found.value - np.histogram(AGE // 10, [0, 3, 6, 10])[0]) < 8 * found.std).all()
    products = np.dot(stays["age"], stays["bmi"])
    assert np.isclose(products.get().value, AGE @ BMI, rtol=1e-5)
    assert np.isclose((stays["age"] @ stays["bmi"]).get().value, AGE @ BMI, rtol=1e-5)


def test_more_rows_than_a_run_takes() -> None:
    ds = Dataset(manifest(schema(rows=(1 << 20) + 1, columns=WHOLE.columns[:1])))
    with pytest.raises(UsageError, match="1,048,577, where 1,048,576.*share a budget .mpc budget set NAME --with"):
        ds["age"].mean().explain(epsilon=1)


def test_rows_are_not_chosen() -> None:
    ds = Dataset(WHOLE)
    for chosen in (lambda: ds["age"][ds["age"] > 3], lambda: ds["age"][0], lambda: (ds["age"] + 1)[:3]):
        with pytest.raises(PrivateDataError, match="choosing rows"):
            chosen()
    with pytest.raises(InputError, match="it has north, south, west"):
        ds["site"] == "east"  # noqa: B015
    other = Dataset(manifest(schema(rows=ROWS, name="hospital/others")))
    with pytest.raises(UsageError, match="hospital/patients and of hospital/others"):
        ds["age"] + other["age"]


# ------------------------------------------------------------------ asked of parties

TABLE = pandas.DataFrame(
    {"age": [40, 71, 18, 65] * 5, "bmi": [23.5, 30.0, 31.25, 20.0] * 5, "sex": ["f", "m", "f", "m"] * 5}
)
SAID: dict[str, Any] = {
    "ranges": {"age": (0, 120), "bmi": (10, 60)},
    "categories": {"sex": ["f", "m"]},
    "rows_per_person": 1,
}
AGE, BMI = TABLE["age"].to_numpy(), TABLE["bmi"].to_numpy()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running:
        Datasets(running.client("hospital")).put("stays", TABLE, **SAID)
        yield running


@pytest.fixture
def stays(cluster: InProcess) -> Dataset:
    return Datasets(cluster.client("hospital")).get("stays")


QUESTIONS: dict[str, tuple[Callable[[Dataset], Any], Any]] = {
    "where mean": (lambda d: np.where(d["age"] > 60, d["bmi"], 0).mean(), np.where(AGE > 60, BMI, 0).mean()),
    "sum": (lambda d: np.sum(d["bmi"]), BMI.sum()),
    "sums": (lambda d: d[["age", "bmi"]].sum(axis=0), [AGE.sum(), BMI.sum()]),
    "count": (lambda d: (d["age"] > 60).count(), 10),
    "np.count_nonzero": (lambda d: np.count_nonzero(d["sex"] == "f"), 10),
    "share": (lambda d: (d["sex"] == "f").mean(), 0.5),
    "var": (lambda d: d["age"].var(ddof=1), AGE.var(ddof=1)),
    "std": (lambda d: np.std(d["bmi"]), BMI.std()),
    "cov": (lambda d: np.cov(d[["age", "bmi"]], rowvar=False), np.cov([AGE, BMI])),
    "cov of two": (lambda d: np.cov(d["age"], d["bmi"], ddof=0), np.cov([AGE, BMI], ddof=0)),
    "cov of what is computed": (lambda d: (d["bmi"] / 30 - 1).cov(), np.cov(BMI / 30 - 1)),
    "histogram": (lambda d: d["age"].histogram([0, 18, 40, 65, 71]), np.histogram(AGE, [0, 18, 40, 65, 71])[0]),
    "np.histogram": (lambda d: np.histogram(d["bmi"], 5, (10, 60))[0], np.histogram(BMI, 5, (10, 60))[0]),
    "sum by": (lambda d: d["bmi"].group_by(d["sex"]).sum(), [BMI[::2].sum(), BMI[1::2].sum()]),
    "count by": (lambda d: (d["bmi"] > 0).group_by(d["sex"]).count(), [10, 10]),
    "mean by": (lambda d: d["age"].group_by(d["sex"]).mean(), [AGE[::2].mean(), AGE[1::2].mean()]),
}  # fmt: skip


@pytest.mark.parametrize("name", [*QUESTIONS])
def test_answers(stays: Dataset, name: str) -> None:
    """Exactly, to the owner; and with noise, within eight of its standard deviations."""
    asked, exact = QUESTIONS[name]
    question = asked(stays)
    own = question.get()
    np.testing.assert_allclose(own.value, exact, rtol=1e-5)
    assert own.std == 0 and own.epsilon is None and own.left is None
    noised = question.get(epsilon=5)
    assert noised.epsilon == 5 and noised.left is None and np.shape(noised.value) == np.shape(exact)
    known = np.isfinite(noised.value)  # of a mean by category where noise leaves no row, nothing is known
    error = np.abs(np.asarray(noised.value) - exact)
    spread = np.broadcast_to(noised.std, error.shape)
    assert (error <= 8 * spread + 1e-3 * np.abs(exact).max())[known].all()
    assert (spread > 0)[known].all()


@pytest.mark.parametrize(
    "asked",
    [lambda d: np.where(d["age"] > 60, d["bmi"], 0).sum(), lambda d: np.maximum(d["bmi"], d["age"]).mean()],
    ids=["where", "maximum"],
)
def test_a_declared_link_takes_rounds_off_a_question(
    stays: Dataset, asked: Callable[[Dataset], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that is faster for all rows, which one run takes; and the answer is the same."""
    question = asked(stays)
    rounds: dict[str | None, int] = {}
    judged: list[Link | None] = []

    def spied(*given: Any, **more: Any) -> Any:
        judged.append(more["link"])
        return assign(*given, **more)

    monkeypatch.setattr(asking, "assign", spied)
    for link in (None, "wan", "0:100"):  # where a round costs nothing, none is saved
        plan = asking.compiled_with_noise(question, Fraction(1), "hospital", link=link).plan
        rounds[link] = plan_cost(plan, len(AGE)).rounds
    assert rounds["wan"] < rounds[None] and rounds["0:100"] == rounds[None]
    assert judged == [None, Link(40, 100 / len(AGE)), Link(0, 100 / len(AGE))]
    exact = question.get().value
    noised = question.get(epsilon=5, link="wan")
    assert abs(noised.value - exact) <= 8 * noised.std + 1e-3 * abs(exact)
    assert question.get(link="wan").value == pytest.approx(exact, rel=1e-4)
    assert "costs epsilon 1" in question.explain(epsilon=1, link="wan")
    with pytest.raises(UsageError, match="is no link"):
        question.get(epsilon=1, link="far")


def test_rows_are_read_over_a_declared_link(stays: Dataset) -> None:
    np.testing.assert_allclose(np.maximum(stays["bmi"], 30).get(link="wan").value, np.maximum(BMI, 30), rtol=1e-4)


def test_covariances_of_a_few_have_laplace_noise_and_of_many_gaussian(stays: Dataset) -> None:
    """Five sums, or 65: one vector with one epsilon."""
    few = np.cov(stays[["age", "bmi"]])  # columns are the variables: rows are people
    [vector] = asking.compiled_with_noise(few, Fraction(1), "hospital").guarantee.vectors
    assert (vector.elements, vector.mechanism, vector.loss.epsilon) == (5, "laplace", 1)
    assert vector.sensitivity == 5 * 4095
    both = [stays[name] * factor for name in ("age", "bmi") for factor in (0.01, 0.005, 0.002, 0.001, 0.01)]
    many = np.stack(both, axis=1).cov()
    compiled = asking.compiled_with_noise(many, Fraction(1), "hospital")
    [vector] = compiled.guarantee.vectors
    assert (vector.elements, vector.mechanism) == (65, "gaussian")
    assert vector.loss.delta <= Fraction(1, 10**8)
    found = many.get(epsilon=1)
    assert (found.mechanism, found.epsilon) == ("gaussian", 1) and 0 < found.delta <= Fraction(1, 10**8)
    exact = np.cov([np.asarray(x) * f for x in (AGE, BMI) for f in (0.01, 0.005, 0.002, 0.001, 0.01)])
    assert found.value.shape == (10, 10) and (np.abs(found.value - exact) < 8 * found.std).all()
    assert "gaussian noise of standard deviation" in many.explain(epsilon=1)
    asked = many.get(epsilon=1, mechanism="laplace")
    assert asked.mechanism == "laplace" and asked.delta < Fraction(1, 2**30)
    assert few.get(epsilon=1, mechanism="gaussian", delta="1e-7").mechanism == "gaussian"
    for said in ({"mechanism": "uniform"}, {"mechanism": "gaussian", "delta": "none"}):
        with pytest.raises(UsageError, match="no noise of the kind|delta is no number"):
            few.get(epsilon=1, **said)


def test_covariances_that_there_are_not(stays: Dataset) -> None:
    for asked, words in (
        (lambda: np.cov(stays[["age", "bmi"]], rowvar=True), "each two rows"),
        (lambda: stays["age"].cov(ddof=20), "ddof=20"),
        (lambda: Dataset(WHOLE)["scan"].cov(), "is no list"),
        (lambda: np.corrcoef(stays["age"]), "of two values"),
    ):
        with pytest.raises(UsageError, match=words):
            asked()


def test_quantiles(stays: Dataset) -> None:
    question = stays["age"].quantile([0.25, 0.5])
    assert np.allclose(question.get().value, np.quantile(AGE, [0.25, 0.5]))
    found = question.get(epsilon=5)
    assert ((found.value >= 0) & (found.value <= 120)).all() and np.shape(found.std) == (2,)
    coarse = np.percentile(stays["age"], 50)
    assert coarse.get().value == np.median(AGE)


def test_an_owner_reads_its_rows(stays: Dataset) -> None:
    found = (stays["age"] * stays["bmi"]).get()
    assert np.allclose(found.value, AGE * BMI, rtol=1e-6) and found.std == 0


def test_a_histogram_costs_two_however_many_bins(stays: Dataset) -> None:
    """A person leaves one bin and enters another: the bins are levels of one comparison."""
    for question in (stays["age"].histogram(np.arange(0, 121, 10)), (stays["bmi"] > 0).group_by(stays["sex"]).count()):
        [vector] = asking.compiled_with_noise(question, Fraction(1), "hospital").guarantee.vectors
        assert vector.sensitivity == 2


@pytest.mark.parametrize("column", ["age", "bmi"])
def test_a_sum_by_category_costs_twice_its_width(column: str) -> None:
    """A row leaves one category and enters another, however many there are; a count changes two by one.  Bounded to 12
    bits, a value is at most its range and what lies between that and zero."""
    ds = Dataset(WHOLE)
    question = ds[column].group_by(ds["site"]).mean()
    compiled = asking.compiled_with_noise(question, Fraction(1), "analyst")
    counts, sums = sorted(compiled.guarantee.vectors, key=lambda vector: vector.sensitivity)
    of = WHOLE.column(column)
    width, reach = of.high - of.low, max(of.high, -of.low, of.high - of.low)
    assert counts.sensitivity == 2 and counts.elements == sums.elements == 3
    assert 1.9 * 4095 * reach / width < sums.sensitivity < 2.1 * 4095 * reach / width
    assert sums.euclidean < 0.75 * sums.sensitivity  # two elements, each of them once


def test_values_on_an_edge_are_counted_as_numpy_does(stays: Dataset) -> None:
    """Noise apart: each value is on an edge, also the last."""
    question = stays["bmi"].histogram([20.0, 23.5, 30.0, 31.25])
    compiled = asking.compiled_with_noise(question, Fraction(5), "hospital")
    found = np.mean([question.get(epsilon=5).value for _ in range(12)], axis=0)
    assert np.abs(found - [5, 5, 10]).max() < 5 * compiled.deviations["counts over rows"] / 12**0.5


def test_private_values_are_refused_with_the_command_that_would_allow_them(cluster: InProcess) -> None:
    asker = Datasets(cluster.client("analyst")).get("hospital/stays")
    question = np.where(asker["age"] > 60, asker["bmi"], 0).mean()
    for asked, words in (
        (lambda: question.get(), "exactly, is hospital's alone"),
        (lambda: (asker["age"] * asker["bmi"]).get(), "values of age, bmi of hospital/stays"),
        (lambda: question.get(epsilon=0.25), "at epsilon 0.25 was refused"),
    ):
        with pytest.raises(PrivateDataError) as caught:
            asked()
        told = str(caught.value)
        assert words in told and caught.value.exit_code == 4
        assert "mpc grant add hospital/stays --epsilon 0." in told
        assert "--coordinator analyst --recipient analyst" in told


def test_a_question_explains_itself(stays: Dataset) -> None:
    question = stays["age"].var()
    assert "var of age of hospital/stays" in repr(question) and "not asked" in repr(question)
    told = question.explain()
    assert "which are hospital's: 20 rows, at most 1 of one person" in told and "2 sums that share" in told
    told = question.explain(epsilon=0.5)
    spread = asking.deviations(asking.compiled_with_noise(question, Fraction(1, 2), "hospital"))
    assert "costs epsilon 0.5 of hospital/stays" in told and f"{spread['squares']:.3g}" in told


def test_the_same_code_runs_on_a_sample(stays: Dataset) -> None:
    """What numpy makes of mock rows, and a question."""

    def asked(d: Any) -> Any:
        chosen = np.where((d["age"] > 60) & (d["sex"] == d.code("sex", "m")), np.log1p(d["bmi"]), 0.0)
        return np.stack([chosen, d["age"] / 2], axis=1).mean(axis=0)

    assert asked(stays.sample(10)).shape == (2,)
    assert np.shape(asked(stays).get().value) == (2,)


def test_a_model_that_sums_rows_is_answered_with_noise(cluster: InProcess, tmp_path: Path) -> None:
    """cluster.session(epsilon=): of a dataset's rows, by a session of its owner's own."""
    axes = {"axes": np.array([0])}
    path = save_model(tmp_path, [node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)], axes, ("batch", 2))
    with Cluster(cluster.client("hospital").config) as whole:
        data = {"x": whole.dataset("hospital/stays")[["age", "bmi"]]}
        with pytest.raises(ModelError, match="over the rows of a run"):
            whole.session(path, data=data)
        with whole.session(path, data=data, epsilon={"y": 5}) as session:
            [found] = session.run()
        assert np.abs(found - [AGE.sum(), BMI.sum()]).max() < 8 * 2**0.5 * 2 * 121 / 5
        with pytest.raises(UsageError, match="which noise there is"):
            whole.session(path, mechanism="gaussian")


# ------------------------------------------------------------------ granted


def test_an_analyst_is_answered_under_a_grant_while_the_budget_lasts(cluster: InProcess) -> None:
    """The whole way: refused, granted, answered with noise, charged at every party, and refused again."""
    Datasets(cluster.client("hospital")).put("granted", TABLE, **SAID)
    now = int(time.time())
    said: list[Any] = [
        budget(Fraction(3), dataset="hospital/granted"),
        grant(
            parties=cluster.names,
            dataset="hospital/granted",
            question=dp(Fraction(4), Fraction(2)),
            created=now,
            not_before=now - 60,
            expires=now + 3600,
        ),
    ]
    for statement in said:
        for index in range(len(cluster.names)):
            cluster.consent(index, "hospital").Say(word(statement, cluster.identity("hospital")))
    ds = Datasets(cluster.client("analyst")).get("hospital/granted")
    question = (ds["age"] > 60).count()
    found = question.get(epsilon=2)
    spread = np.sqrt(2 * np.exp(-2)) / (1 - np.exp(-2))  # of the discrete Laplace law at epsilon 2, for a count
    assert abs(found.value - 10) < 12 * spread and found.std == pytest.approx(spread, rel=1e-3)
    assert found.left == 1 and found.left.more == 0 and str(found.left) == "epsilon 1, 0 more questions like this one"
    described = ds.describe()
    assert "budget: epsilon 1 of 3 left: 0 more questions at epsilon 2, like those so far" in str(described)
    for asked, words, fix in (
        (lambda: question.get(epsilon=2), "budget", ".get(epsilon=1) is allowed, by what is granted and left; "),
        (lambda: question.get(), "hospital's alone", ".get(epsilon=0.5) on a sum over rows asks for a noised one"),
    ):
        with pytest.raises(PrivateDataError, match=words) as caught:
            asked()
        assert str(caught.value.remedy).startswith(fix)
        assert "which hospital may allow" not in str(caught.value.remedy), "it has"
    assert question.get(epsilon=1).left == 0


def test_gaussian_noise_needs_a_grant_of_it_and_is_charged_with_its_delta(cluster: InProcess) -> None:
    """A part of the grant's delta, as large as the epsilon is of its epsilon; else Laplace noise, or a refusal."""
    Datasets(cluster.client("hospital")).put("long", TABLE, **SAID)
    now = int(time.time())

    def say(statement: Statement) -> None:
        for index in range(len(cluster.names)):
            cluster.consent(index, "hospital").Say(word(statement, cluster.identity("hospital")))

    def granted(question: Question, **changes: Any) -> Grant:
        times = {"created": now, "not_before": now - 60, "expires": now + 3600}
        made = grant(parties=cluster.names, dataset="hospital/long", question=question, **times, **changes)
        say(made)
        return made

    say(budget(Fraction(10), dataset="hospital/long"))
    first = granted(dp(Fraction(10), Fraction(2)))
    ds = Datasets(cluster.client("analyst")).get("hospital/long")
    powers = np.stack([(ds["bmi"] / 60) ** k for k in (1, 2)] * 30, axis=1).mean(axis=0)
    found = powers.get(epsilon=1)
    assert found.mechanism == "laplace" and found.left is not None and found.left.more == 9
    with pytest.raises(PrivateDataError, match="is of laplace noise, and the plan has gaussian"):
        powers.get(epsilon=1, mechanism="gaussian")
    most = Fraction(1, 10**6)
    granted(dp(Fraction(4), Fraction(2), mechanisms=("laplace", "gaussian"), delta=most), uses=2)
    say(revocation(first))  # of two grants that do not cover it, either may be named
    less = powers.get(epsilon=2)
    assert less.mechanism == "gaussian" and most / 4 < less.delta <= most / 2
    assert np.all(less.std < np.sqrt(2) * 60 / 2 / 20)  # of Laplace noise: sixty elements at epsilon 2
    told = granting.budget(cluster.client("analyst"), "hospital/long")
    seconds = [each for each in granting.given(cluster.client("analyst")) if each.grant.uses == 2]
    assert most / 4 < seconds[0].spent_delta <= most / 2 + Fraction(1, 2**30)
    assert less.left is not None and less.left.more == 1  # of the grant's delta, as of its epsilon, there is one more
    assert remaining.more_under(seconds[0], Loss(Fraction(1, 100), most / 4)) == 1  # and one of so much delta
    assert told.spent == 3 and most / 4 < told.spent_delta <= most / 2 + Fraction(1, 2**30)
    with pytest.raises(PrivateDataError, match="delta"):
        powers.get(epsilon=2, mechanism="gaussian", delta=most)
