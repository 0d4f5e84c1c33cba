"""Questions as somebody writes them who knows pandas and numpy alone: each is answered, or refused with what works."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas
import pytest

from mpc.errors import MpcError
from parties.agreed.columns import Column
from parties.client.dataset import Dataset
from parties.client.datasets import Datasets
from parties.client.questions import asking, model
from parties.client.questions.aggregates import Question
from parties.client.tables.integers import real_scale
from tests.support.objects import manifest, schema
from tests.support.parties import InProcess

ROWS = 240
DRAW = np.random.default_rng(29)
WARDS = ["north", "south", "east"]
TABLE = pandas.DataFrame(
    {
        "age": DRAW.integers(18, 96, ROWS),
        "bmi": np.round(DRAW.normal(27, 4, ROWS).clip(10, 60) * 256) / 256,
        "days": DRAW.poisson(4, ROWS).clip(0, 40),
        "cost": np.round(DRAW.exponential(900, ROWS).clip(0, 10_000)),
        "sbp": DRAW.integers(90, 200, ROWS).astype(float),
        "dbp": DRAW.integers(50, 120, ROWS).astype(float),
        "ward": DRAW.choice(WARDS, ROWS),
        "new": DRAW.random(ROWS) < 0.3,
    }
)


def _column(name: str, low: int, high: int, kind: str) -> Column:
    ends = Fraction(low), Fraction(high)
    scale = real_scale(*ends) if kind == "number" else Fraction(1)
    return Column(name=name, type=kind, low=ends[0], high=ends[1], scale=scale)


COLUMNS = (
    _column("age", 0, 120, "integer"),
    _column("bmi", 10, 60, "number"),
    _column("days", 0, 40, "integer"),
    _column("cost", 0, 10_000, "number"),
    _column("sbp", 80, 220, "number"),
    _column("dbp", 40, 140, "number"),
    Column(name="ward", type="category", low=Fraction(0), high=Fraction(2), categories=tuple(WARDS)),
    _column("new", 0, 1, "boolean"),
)
DATASET = Dataset(manifest(schema(rows=ROWS, columns=COLUMNS)))


class Arrays:
    """The table as samples have it: numpy's arrays, a category as its number."""

    def __getitem__(self, name: Any) -> np.ndarray:
        if isinstance(name, list):
            return np.stack([np.asarray(self[each], float) for each in name], axis=1)
        if name == "ward":
            return np.array([WARDS.index(each) for each in TABLE["ward"]])
        return TABLE[name].to_numpy()


NUMPY: dict[str, Callable[[Any], Any]] = {
    "a mean": lambda d: d["age"].mean(),
    "means of columns": lambda d: d[["age", "bmi"]].mean(axis=0),
    "np.mean, axis 0": lambda d: np.mean(d[["age", "bmi"]], axis=0),
    "a mean of all": lambda d: d[["sbp", "dbp"]].mean(),
    "weights that are public": lambda d: np.average(d[["sbp", "dbp"]], axis=1, weights=[1, 2]).mean(),
    "weights that are a column": lambda d: np.average(d["bmi"], weights=d["days"]),
    "a share": lambda d: (d["age"] > 60).mean(),
    "percents": lambda d: ((d["age"] > 60) * 100).mean(),
    "a sum where": lambda d: np.sum(d["bmi"], where=d["age"] > 60),
    "a mean where": lambda d: np.mean(d["bmi"], where=d["age"] > 60),
    "a share where": lambda d: (d["sbp"] > 140).mean(where=d["new"]),
    "np.where": lambda d: np.where(d["age"] > 60, d["bmi"], 0).mean(),
    "np.where in np.where": lambda d: np.where(d["age"] < 40, 0, np.where(d["age"] < 65, 1, 2)).mean(),
    "np.select": lambda d: np.select([d["age"] < 40, d["age"] < 65], [0, 1], 2).mean(),
    "np.clip": lambda d: np.clip(d["cost"], None, 5000).mean(),
    "log1p": lambda d: np.log1p(d["cost"]).mean(),
    "log10": lambda d: np.log10(d["cost"] + 1).mean(),
    "a root": lambda d: np.sqrt(d["cost"]).mean(),
    "columns compared": lambda d: (d["sbp"] > 1.5 * d["dbp"]).mean(),
    "a difference compared": lambda d: (d["sbp"] - d["dbp"] > 60).sum(),
    "a formula": lambda d: ((d["sbp"] + 2 * d["dbp"]) / 3).mean(),
    "a ratio": lambda d: (d["sbp"] / d["dbp"]).mean(),
    "a safe ratio": lambda d: (d["cost"] / np.maximum(d["days"], 1)).mean(),
    "truths": lambda d: d["new"].mean(),
    "truths and": lambda d: (d["new"] & (d["age"] > 60)).mean(),
    "truths or": lambda d: (d["new"] | (d["age"] > 60)).sum(),
    "truths xor": lambda d: (d["new"] ^ (d["age"] > 60)).sum(),
    "truths not": lambda d: (~d["new"]).sum(),
    "truths times": lambda d: (d["new"] * d["bmi"]).mean(),
    "a count of truths": lambda d: np.count_nonzero(d["new"]),
    "a range": lambda d: ((d["age"] >= 40) & (d["age"] < 65)).mean(),
    "outside a range": lambda d: ((d["age"] < 40) | (d["age"] > 65)).mean(),
    "a number": lambda d: (d["age"] == 40).sum(),
    "other than a number": lambda d: (d["age"] != 40).sum(),
    "np.isin": lambda d: np.isin(d["age"], [40, 50, 51, 90]).sum(),
    "np.isin of reals": lambda d: np.isin(d["sbp"], [120.0, 140.0, 141.0]).sum(),
    "np.isin, not": lambda d: (~np.isin(d["ward"], [0, 2])).sum(),
    "np.isin and": lambda d: (np.isin(d["ward"], [0, 2]) & d["new"]).sum(),
    "a score": lambda d: ((d["sbp"] > 140).astype(int) + (d["dbp"] > 90) * 2 >= 2).mean(),
    "scores": lambda d: (d[["age", "bmi"]] @ np.array([0.1, -0.2])).mean(),
    "a logistic score": lambda d: (1 / (1 + np.exp(-(0.05 * d["age"] - 3)))).mean(),
    "standardised": lambda d: (((d["age"] - 50) / 20) ** 2).mean(),
    "an even age": lambda d: (d["age"] % 2 == 0).mean(),
    "weeks": lambda d: (d["days"] // 7).mean(),
    "a variance": lambda d: np.var(d["bmi"], ddof=1),
    "deviations of columns": lambda d: np.std(d[["age", "bmi"]], axis=0),
    "all of a row": lambda d: np.all(d[["sbp", "dbp"]] > [140, 90], axis=1).mean(),
    "any of a row": lambda d: (d[["sbp", "dbp"]] > [140, 90]).any(axis=1).mean(),
    "the largest of a row": lambda d: d[["age", "bmi"]].max(axis=1).mean(),
    "lengths of rows": lambda d: np.linalg.norm(d[["age", "bmi"]], axis=1).mean(),
    "np.histogram": lambda d: np.histogram(d["age"], bins=10, range=(0, 120))[0],
    "a histogram of classes": lambda d: np.histogram(d["bmi"], bins=[10, 18.5, 25, 30, 60])[0],
    "np.bincount": lambda d: np.bincount(d["days"], minlength=41),
    "np.bincount of a category": lambda d: np.bincount(d["ward"]),
    "np.bincount with weights": lambda d: np.bincount(d["ward"], weights=d["bmi"]),
    "np.bincount of classes": lambda d: np.bincount(np.digitize(d["bmi"], [18.5, 25, 30]), minlength=4),
    "np.quantile": lambda d: np.quantile(d["age"], [0.25, 0.5, 0.75]),
    "np.percentile": lambda d: np.percentile(d["bmi"], 90, axis=0),
    "np.cov": lambda d: np.cov(d[["age", "bmi", "sbp"]], rowvar=False),
    "np.cov, transposed": lambda d: np.cov(d[["age", "bmi"]].T),
    "np.corrcoef": lambda d: np.corrcoef(d["age"], d["bmi"]),
    "np.corrcoef of columns": lambda d: np.corrcoef(d[["age", "bmi", "sbp"]], rowvar=False),
    "np.corrcoef, transposed": lambda d: np.corrcoef(d[["age", "sbp"]].T),
    "X.T @ X": lambda d: d[["age", "bmi", "sbp"]].T @ d[["age", "bmi", "sbp"]],
    "X.T @ Y": lambda d: d[["age", "bmi"]].T @ d[["sbp", "dbp"]],
    "X.T @ y": lambda d: d[["age", "bmi"]].T @ d["cost"],
    "y @ X": lambda d: d["cost"] @ d[["age", "bmi"]],
    "np.dot": lambda d: np.dot(d[["age", "bmi"]].T, d["cost"]),
    "X.T.dot": lambda d: d[["age", "bmi"]].T.dot(d["new"]),
    "x @ y": lambda d: d["age"] @ d["bmi"],
    "with ones": lambda d: np.column_stack([np.ones_like(d["age"]), d["age"]]).T @ d["cost"],
}  # fmt: skip
"""Each runs on numpy's arrays and asks the same of a dataset."""

PANDAS: dict[str, Callable[[Any], Any]] = {
    "value_counts": lambda d: d["ward"].value_counts().reindex(WARDS) if plain(d) else d["ward"].value_counts(),
    "shares": lambda d: (
        d["ward"].value_counts(normalize=True).reindex(WARDS)
        if plain(d)
        else d["ward"].value_counts(normalize=True)
    ),
    "groupby": lambda d: ordered(d, d["bmi"].groupby(d["ward"]).mean()),
    "sums by group": lambda d: ordered(d, d["cost"].groupby(d["ward"]).sum()),
    "sizes": lambda d: ordered(d, d["bmi"].groupby(d["ward"]).size()),
    "deviations by group": lambda d: ordered(d, d["bmi"].groupby(d["ward"]).std(ddof=0)),
    "variances by group": lambda d: ordered(d, d["age"].groupby(d["ward"]).var(ddof=1)),
    "a share by group": lambda d: ordered(d, d["new"].groupby(d["ward"]).mean()),
    "by truths": lambda d: d["bmi"].groupby(d["new"]).mean(),
    "by a condition": lambda d: d["bmi"].groupby(d["age"] > 60).mean(),
    "by decades": lambda d: ages(d, d["cost"].groupby(d["age"] // 20).mean()),
    "by two": lambda d: pairs(d, d["bmi"].groupby([d["ward"], d["new"]]).mean()),
    "isin": lambda d: d["ward"].isin(["north", "east"]).mean(),
    "between": lambda d: d["age"].between(40, 65).mean(),
    "a label": lambda d: (d["ward"] == "north").sum(),
    "other labels": lambda d: (d["ward"] != "north").mean(),
    "abs": lambda d: (d["age"] - 60).abs().mean(),
    "where": lambda d: d["bmi"].where(d["age"] > 60, 0).mean(),
    "mask": lambda d: d["bmi"].mask(d["age"] > 60, 0).mean(),
    "clip": lambda d: d["cost"].clip(lower=100, upper=5000).mean(),
    "corr": lambda d: d["age"].corr(d["bmi"]),
    "corr of columns": lambda d: d[["age", "bmi"]].corr(),
    "quantile": lambda d: d["age"].quantile(0.9),
    "a median": lambda d: d["age"].quantile(),
}  # fmt: skip
"""Each runs on a data frame too, of one dataset whose categories are texts."""


def plain(d: Any) -> bool:
    return isinstance(d, pandas.DataFrame)


def ordered(d: Any, found: Any) -> Any:
    """Pandas orders groups by name, and a dataset as its owner listed them."""
    return found.reindex(WARDS) if plain(d) else found


def ages(d: Any, found: Any) -> Any:
    return found.reindex(range(7)) if plain(d) else found


def pairs(d: Any, found: Any) -> Any:
    return found.reindex([(ward, new) for ward in WARDS for new in (False, True)]) if plain(d) else found


def without_noise(question: Question) -> Any:
    """What its reader makes of the sums, which onnxruntime computes here from all rows."""

    def run(ends: Any, summed: bool) -> dict[str, np.ndarray]:
        made = model.write(ends, summed)
        feeds = {given.name: held(given.name) for given in made.graph.input}
        session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        return dict(zip(ends, session.run(None, feeds), strict=True))

    if question.exact is not None:  # of bins something else follows: a histogram's quantile is near the table's
        node, finish = question.exact
        return finish(run({"values": node}, False)["values"])
    sums = {name: np.asarray(value, float) for name, value in run(question.sums, True).items()}
    value, spread = question.finish(sums, dict.fromkeys(sums, 0.0), ROWS)
    assert np.all((np.asarray(spread) == 0) | ~np.isfinite(value))
    return value


def held(name: str) -> np.ndarray:
    kind = next(each.type for each in COLUMNS if each.name == name)
    return Arrays()[name].astype({"number": np.float64, "boolean": np.bool_}.get(kind, np.int64))


@pytest.mark.parametrize("name", [*NUMPY])
def test_numpys_names_are_answered_as_numpy_does(name: str) -> None:
    asked, expected = NUMPY[name](DATASET), NUMPY[name](Arrays())
    np.testing.assert_allclose(without_noise(asked), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*PANDAS])
def test_names_of_pandas_are_answered_as_pandas_does(name: str) -> None:
    asked, expected = PANDAS[name](DATASET), PANDAS[name](TABLE)
    np.testing.assert_allclose(without_noise(asked), np.asarray(expected, float), rtol=1e-9, atol=1e-9)


def require_proved(question: Question) -> None:
    """Every party would prove what it costs: the epsilon that is asked with, in all its sums together."""
    compiled = asking.compiled_with_noise(question, Fraction(1), "analyst")
    assert compiled.guarantee is not None
    assert sum(vector.loss.epsilon for vector in compiled.guarantee.vectors) == 1


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * bool(n % 4)) for n, name in enumerate([*NUMPY, *PANDAS])]
)
def test_what_it_costs_is_proved(name: str) -> None:
    require_proved((NUMPY | PANDAS)[name](DATASET))


@pytest.mark.parametrize(
    "asked",
    [
        lambda d: np.isin(d["age"], [1, 50, 70]),
        lambda d: np.isin(d["ward"], [0, 2]),
        lambda d: d["age"] == 40,
        lambda d: d["ward"] != "north",
        lambda d: d["age"] > 60,
        lambda d: (d["age"] >= 40) & (d["age"] < 65),
        lambda d: (d["age"] < 40) | (d["age"] > 65),
        lambda d: d["new"],
        lambda d: ~d["new"],
        lambda d: d["new"] ^ (d["age"] > 60),
        lambda d: np.any(d[["sbp", "dbp"]] > [140, 90], axis=1),
    ],
)
def test_a_share_has_the_noise_of_one_row(asked: Callable[[Any], Any]) -> None:
    """A person changes a count by one, however the condition is put together: 1.36 at epsilon 1."""
    compiled = asking.compiled_with_noise(asked(DATASET).mean(), Fraction(1), "analyst")
    [spread] = asking.deviations(compiled).values()
    law = np.sqrt(2 * np.exp(-1)) / (1 - np.exp(-1))  # discrete Laplace's of a count; bounded values are near it
    assert law * 0.999 < spread < law * 1.05


REFUSED: dict[str, tuple[Callable[[Any], Any], str, Callable[[Any], Any]]] = {
    "a mask": (lambda d: d["bmi"][d["age"] > 60].mean(), "x.mean(where=", lambda d: d["bmi"].mean(where=d["age"] > 60)),
    "median": (lambda d: np.median(d["age"]), "x.quantile(0.5)", lambda d: d["age"].quantile(0.5)),
    "unique": (lambda d: np.unique(d["ward"]), "x.value_counts()", lambda d: d["ward"].value_counts()),
    "nunique": (lambda d: d["ward"].nunique(), "x.value_counts()", lambda d: d["ward"].value_counts()),
    "describe": (
        lambda d: d["age"].describe(), "x.quantile([0.25, 0.5, 0.75])", lambda d: d["age"].quantile([0.25, 0.5, 0.75])
    ),
    "round": (lambda d: np.round(d["bmi"]), "np.floor(x + 0.5)", lambda d: np.floor(d["bmi"] + 0.5).mean()),
    "density": (
        lambda d: np.histogram(d["age"], 10, (0, 120), density=True),
        "its answer / (its sum * np.diff(edges))",
        lambda d: np.histogram(d["age"], 10, (0, 120))[0],
    ),
    "a histogram's weights": (
        lambda d: np.histogram(d["age"], [18, 40, 65], weights=d["cost"]),
        "w.group_by(np.digitize(x, edges)).sum()",
        lambda d: d["cost"].group_by(np.digitize(d["age"], [18, 40, 65])).sum(),
    ),
    "histogram2d": (
        lambda d: np.histogram2d(d["age"], d["bmi"]),
        "a.group_by([np.digitize(a, edges), np.digitize(b, edges)]).count()",
        lambda d: d["age"].group_by([np.digitize(d["age"], [40, 65]), np.digitize(d["bmi"], [25, 30])]).count(),
    ),
    "polyfit": (lambda d: np.polyfit(d["age"], d["bmi"], 1), "X.T @ y", lambda d: d[["age"]].T @ d["bmi"]),
    "lstsq": (lambda d: np.linalg.lstsq(d[["age"]], d["bmi"]), "X.T @ X", lambda d: d[["age"]].T @ d[["age"]]),
    "einsum": (
        lambda d: np.einsum("ni,nj->ij", d[["age"]], d[["bmi"]]), "X.T @ Y", lambda d: d[["age"]].T @ d[["bmi"]]
    ),
    "pairs of rows": (
        lambda d: d[["age", "bmi"]] @ d[["age", "bmi"]].T, "X.T @ X", lambda d: d[["age"]].T @ d[["age"]]
    ),
    "X.T of rows": (lambda d: d[["age", "bmi"]].T + 1, "np.cov(X.T)", lambda d: np.cov(d[["age", "bmi"]].T)),
    "rows of X.T": (lambda d: d[["age", "bmi"]].T[0], "X[:, 0]", lambda d: d[["age", "bmi"]][:, 0].mean()),
    "a method of X.T": (lambda d: d[["age", "bmi"]].T.mean(), "np.corrcoef(X.T)", lambda d: d[["age", "bmi"]].T.corr()),
    "left out": (
        lambda d: d["bmi"].where(d["age"] > 60).mean(), "x.mean(where=c)", lambda d: d["bmi"].mean(where=d["age"] > 60)
    ),
    "masked": (
        lambda d: d["bmi"].mask(d["new"]).mean(), "x.mean(where=~c)", lambda d: d["bmi"].mean(where=~d["new"])
    ),
    "agg": (lambda d: d["age"].agg("mean"), "x.mean()", lambda d: d["age"].mean()),
    "gt": (lambda d: d["age"].gt(60), "a > 3", lambda d: (d["age"] > 60).mean()),
    "skew": (lambda d: d["age"].skew(), "((x - m) ** 3).mean()", lambda d: ((d["age"] - 50) ** 3).mean()),
    "the frame's groups": (
        lambda d: d.groupby("ward")["age"].mean(),
        "x.group_by(ds['sex']).mean()",
        lambda d: d["age"].group_by(d["ward"]).mean(),
    ),
    "groups by a name": (
        lambda d: d["age"].groupby("ward"), "x.group_by(ds['sex'])", lambda d: d["age"].groupby(d["ward"]).mean()
    ),
    "many groups": (
        lambda d: d["bmi"].groupby(d["age"]), "x.group_by(age // 10)", lambda d: d["bmi"].groupby(d["age"] // 10).mean()
    ),
    "groups of reals": (
        lambda d: d["bmi"].groupby(d["cost"]), "x.group_by(age > 60)", lambda d: d["bmi"].groupby(d["cost"] > 60).mean()
    ),
    "columns laid below each other": (
        lambda d: np.array([d["age"], d["bmi"]]),
        "np.stack([a, b], axis=1)",
        lambda d: np.stack([d["age"], d["bmi"]], axis=1).mean(axis=0),
    ),
    "weights a row": (
        lambda d: np.average(d["age"], weights=np.ones(ROWS)),
        "np.average(x, weights=w)",
        lambda d: np.average(d["age"], weights=d["days"]),
    ),
    "whole numbers as conditions": (
        lambda d: d["days"] & (d["age"] > 60), "a == 1", lambda d: ((d["days"] == 1) & (d["age"] > 60)).mean()
    ),
    "another quantile": (
        lambda d: np.quantile(d["age"], 0.5, method="lower"), "np.quantile(x, q)", lambda d: np.quantile(d["age"], 0.5)
    ),
    "a deviation where": (
        lambda d: np.mean(d[["age", "bmi"]], axis=0, where=d["age"] > 60),
        "x.mean(where=age > 60)",
        lambda d: d["bmi"].mean(where=d["age"] > 60),
    ),
    "one correlation": (
        lambda d: np.corrcoef(d["age"]), "np.corrcoef(x, y)", lambda d: np.corrcoef(d["age"], d["bmi"])
    ),
}  # fmt: skip
"""What is refused, what its message names, and that as it is written."""


@pytest.mark.parametrize("name", [*REFUSED])
def test_what_is_refused_names_what_works(name: str) -> None:
    asked, words, instead = REFUSED[name]
    with pytest.raises(MpcError) as caught:
        asked(DATASET)
    assert words in str(caught.value)
    assert repr(instead(DATASET)).endswith("not asked yet: .get(epsilon=...), .explain()>")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REFUSED])
def test_what_a_refusal_names_is_proved(name: str) -> None:
    require_proved(REFUSED[name][2](DATASET))


def test_correlations_say_how_far_off_they_are() -> None:
    """The noise of each sum moves a correlation as its derivative says: compared with many noised sums."""
    question = np.corrcoef(DATASET["age"], DATASET["sbp"])
    [made] = [model.write(question.sums, summed=True)]
    feeds = {given.name: held(given.name) for given in made.graph.input}
    [sums] = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    draw, spread = np.random.default_rng(3), 0.8
    noised = [
        question.finish({"moments": sums + draw.normal(0, spread, sums.shape)}, {"moments": spread}, ROWS)
        for _ in range(2000)
    ]
    values, told = (np.array([each[place][0, 1] for each in noised]) for place in (0, 1))
    assert np.median(told) == pytest.approx(values.std(), rel=0.25)
    assert noised[0][0][0, 0] == 1 and noised[0][1][1, 1] == 0


def test_deviations_by_group_say_how_far_off_they_are() -> None:
    question = DATASET["bmi"].group_by(DATASET["new"]).std()
    made = model.write(question.sums, summed=True)
    feeds = {given.name: held(given.name) for given in made.graph.input}
    found = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    sums = dict(zip(question.sums, found, strict=True))
    draw, spreads = np.random.default_rng(4), {"sum": 6.0, "squares": 60.0, "count": 1.5}
    noised = [
        question.finish({k: v + draw.normal(0, spreads[k], np.shape(v)) for k, v in sums.items()}, spreads, ROWS)
        for _ in range(2000)
    ]
    values, told = (np.array([each[place] for each in noised]) for place in (0, 1))
    np.testing.assert_allclose(np.median(told, axis=0), values.std(axis=0), rtol=0.25)


# ------------------------------------------------------------------ asked of parties


def test_truths_are_truths_from_the_table_to_the_answer(tmp_path: Path) -> None:
    """A column of booleans is put, described, sampled, asked about and read back as one."""
    said = {"ranges": {"bmi": (10, 60), "age": (0, 120)}, "rows_per_person": 1}
    with InProcess(tmp_path, 2) as cluster:
        owner = Datasets(cluster.client("hospital"))
        owner.put("stays", TABLE[["age", "bmi", "new"]], **said)
        stays = owner.get("stays")
        assert [each.type for each in stays.manifest.columns] == ["integer", "number", "boolean"]
        assert stays.sample(5)["new"].dtype == np.bool_ and (~stays.sample(5)["new"]).shape == (5,)
        new = TABLE["new"].to_numpy()
        assert (stays["new"].get().value == new).all()
        assert (~stays["new"] & (stays["age"] > 60)).count().get().value == (~new & (TABLE["age"] > 60)).sum()
        by = stays["bmi"].group_by(stays["new"]).mean()
        found = by.get(epsilon=5)
        exact = TABLE.groupby("new")["bmi"].mean()
        assert found.labels == ("False", "True")
        assert (np.abs(found.value - exact) < 8 * found.std + 0.01).all()
        X, y = stays[["age", "new"]], stays["bmi"]
        plain = TABLE[["age", "new"]].to_numpy(float)
        products = (X.T @ y).get(epsilon=5)
        assert (np.abs(products.value - plain.T @ TABLE["bmi"].to_numpy()) < 8 * products.std + 1).all()
        assert np.isin(stays["age"], [20, 30, 40]).sum().get().value == np.isin(TABLE["age"], [20, 30, 40]).sum()
