"""Datasets as owners and analysts have them: put from any table, found, described, sampled, and never shown."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pandas
import pytest

from mpc import field as fp
from mpc.errors import InputError, MpcWarning, PrivateDataError, SessionError, UsageError
from mpc.prg import expand_field
from parties.agreed.columns import Column
from parties.agreed.objects import MOST_SAMPLED, Manifest, Schema
from parties.client.at_rest.said import as_expiry, as_readers
from parties.client.cluster import Cluster
from parties.client.consent import granting
from parties.client.dataset import Dataset
from parties.client.datasets import Datasets
from tests.support.objects import schema
from tests.support.parties import InProcess

TABLE = pandas.DataFrame(
    {"age": [40, 71, 18], "bmi": [23.5, None, 31.25], "sex": ["f", "m", "f"], "patient": ["ann", "bob", "eve"]}
)
SAID: dict[str, Any] = {
    "ranges": {"age": (0, 120), "bmi": (10, 60)},
    "categories": {"sex": ["f", "m"]},
    "description": "Admissions with diabetes,\nall wards",
    "rows_per_person": 1,
    "person": "patient",
    "units": {"age": "years"},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


@pytest.fixture(scope="module")
def hospital(cluster: InProcess) -> Datasets:
    return Datasets(cluster.client("hospital"))


@pytest.fixture(scope="module")
def analyst(cluster: InProcess) -> Datasets:
    return Datasets(cluster.client("analyst"))


@pytest.fixture(scope="module")
def diabetes(hospital: Datasets) -> Dataset:
    with pytest.warns(MpcWarning, match="learns that column 'bmi' misses values"):
        return hospital.put("diabetes", TABLE, **SAID)


def held(cluster: InProcess, whole: Manifest, column: str) -> list[int]:
    """The integers that all parties together hold of a small column."""
    vaults = [node.vault for node in cluster.nodes]
    value = vaults[0].block(whole.id, column, 0)
    for vault in vaults:
        value = fp.sub(value, expand_field(vault.seed(whole.id, column, 0), value.shape))
    return fp.to_signed(value).tolist()


def test_what_parties_hold_are_the_integers_of_the_table(cluster: InProcess, diabetes: Dataset) -> None:
    assert diabetes.columns == ("age", "bmi", "bmi.missing", "sex")  # and not whose a row is
    found = {name: held(cluster, diabetes.manifest, name) for name in diabetes.columns}
    assert found == {
        "age": [40, 71, 18],
        "bmi": [47 << 27, 10 << 28, 125 << 26],
        "bmi.missing": [0, 1, 0],
        "sex": [0, 1, 0],
    }


def test_an_analyst_finds_and_reads_what_the_owner_says(analyst: Datasets, diabetes: Dataset) -> None:
    [entry] = [each for each in analyst.search("diab") if each.name == diabetes.name]
    assert (entry.name, entry.rows, entry.id) == ("hospital/diabetes", 3, diabetes.manifest.id)
    assert entry in analyst.list() and not analyst.search("cancer")
    assert "hospital/diabetes" in repr(analyst.list()) and "<table>" in analyst.list()._repr_html_()
    found = analyst.get("hospital/diabetes")
    assert found.manifest == diabetes.manifest and len(found) == 3 and list(found) == list(diabetes.columns)
    told = repr(found.describe())
    for words in ("Admissions with diabetes", "3 rows, at most 1 of one person", "0 to 120 years", "f, m", "never"):
        assert words in told
    assert "Admissions" in found._repr_html_() and "mock rows" in told
    content = found.describe().content()
    assert content["columns"][0]["high"] == 120 and content["sample"] == "mock" and content["rows_per_person"] == 1


def test_samples_without_published_rows_are_mock_and_the_same_for_everybody(
    analyst: Datasets, diabetes: Dataset
) -> None:
    mine, theirs = diabetes.sample(20), analyst.get("hospital/diabetes").sample(20)
    assert mine.mock and all((mine[name] == theirs[name]).all() for name in diabetes.columns)
    assert mine["age"].min() >= 0 and set(mine["sex"].tolist()) <= {0, 1} and diabetes.code("sex", "m") == 1


def test_rows_that_the_owner_publishes_are_what_a_sample_shows(hospital: Datasets, analyst: Datasets) -> None:
    published = [{"age": 50, "bmi": 20.0, "sex": "m"}, {"age": 60, "bmi": None, "sex": "f"}]
    with pytest.warns(MpcWarning):
        hospital.put("sampled", TABLE, **SAID, sample=published)
    found = analyst.get("hospital/sampled").sample()
    assert not found.mock and found.records() == published and found["bmi.missing"].tolist() == [0, 1]
    assert analyst.get("hospital/sampled").sample(1).rows == 1
    assert "rows that the owner published" in repr(analyst.get("hospital/sampled").describe())


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (5, "a table of rows that you publish"),
        ([{"age": 500, "bmi": 20.0, "sex": "m"}], "the sample: .*outside its range"),
        ([{"age": 50, "sex": "m"}], "the sample: .*no column 'bmi'"),
        ([{"age": None, "bmi": 20.0, "sex": "m"}], "the sample: .*misses values in age"),
        ([{"age": 50.5, "bmi": 20.0, "sex": "m"}], "the sample: .*1 value that is not whole"),
    ],
)
def test_samples_that_do_not_fit_are_refused_before_anything_is_put(
    hospital: Datasets, sample: Any, words: str
) -> None:
    with pytest.raises((UsageError, InputError), match=words):
        hospital.put("refused", TABLE, **SAID, sample=sample)
    assert "hospital/refused" not in {entry.name for entry in hospital.list()}


REFUSED: list[Callable[[Any], object]] = [
    float, int, bool, complex, list, np.asarray, np.asanyarray, sum, max, sorted, set, pandas.Series, operator.index,
    lambda column: column[0], lambda column: 3 in column, lambda column: f"{column:.2f}", lambda column: [*column],
    lambda column: np.array([column, column]), lambda column: np.float64(column), lambda column: not column,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_columns_refuse_to_become_numbers_and_say_whose_they_are(diabetes: Dataset, number: int) -> None:
    for selection in (diabetes["age"], diabetes[["age", "bmi"]]):
        with pytest.raises(PrivateDataError) as caught:
            REFUSED[number](selection)
        told = str(caught.value)
        assert "hospital/diabetes" in told and "only what hospital has granted" in told and ".sample()" in told
        assert caught.value.exit_code == 4 and caught.value.code == "private_data"


def test_what_is_public_of_a_selection(diabetes: Dataset) -> None:
    one, matrix = diabetes["age"], diabetes[["age", "bmi"]]
    assert len(one) == 3 and one.shape == (3,) and matrix.shape == (3, 2) and diabetes[["age"]].shape == (3, 1)
    assert repr(matrix) == f"{matrix}" == "<age, bmi of hospital/diabetes: 3 rows, private>"
    assert matrix.columns[1].unit == "" and one.columns[0].unit == "years"
    for wrong in ("height", ["age", "height"]):
        with pytest.raises(InputError, match="no column 'height'; fix: it has age, bmi"):
            diabetes[wrong]  # type: ignore[index]


def test_a_dataset_that_is_not_visible_is_its_owners_alone(hospital: Datasets, analyst: Datasets) -> None:
    hospital.put("hidden", {"x": [1]}, ranges=(0, 9), rows_per_person=1, visible=False)
    hospital.put("shared", {"x": [1]}, ranges=(0, 9), rows_per_person=1, visible=["analyst"])
    assert hospital.get("hidden").rows == hospital.get("hospital/hidden").rows == 1
    assert analyst.get("hospital/shared").describe().content()["visible"] == ["analyst"]
    with pytest.raises(SessionError) as hidden:
        analyst.get("hospital/hidden")
    with pytest.raises(SessionError) as unknown:
        analyst.get("hospital/unknown")
    assert str(hidden.value).replace("hidden", "") == str(unknown.value).replace("unknown", "")


def test_who_misspells_a_name_is_told_which_one_there_is(analyst: Datasets, diabetes: Dataset) -> None:
    for wrong in ("diabetes", "hospital/diabetis"):  # the first is analyst/diabetes
        with pytest.raises(SessionError, match=r"no dataset \w+/diabet.s, .*; fix: perhaps hospital/diabetes$"):
            analyst.get(wrong)
    with pytest.raises(SessionError, match="fix: mpc data list"):
        analyst.get("hospital/zzzz")


def test_pandas_does_not_take_names_of_columns_for_rows(diabetes: Dataset) -> None:
    rows = diabetes.sample(4)
    for wrong in (pandas.DataFrame, np.asarray):
        with pytest.raises(UsageError, match="pandas.DataFrame\\(dict\\(sample\\)\\)"):
            wrong(rows)
        with pytest.raises(PrivateDataError, match="a numpy array would need the values of age in hospital/diabetes"):
            wrong(diabetes)
    frame = pandas.DataFrame(dict(rows))
    assert list(frame.columns) == list(diabetes.columns) and frame["age"].tolist() == rows["age"].tolist()


def test_a_removed_dataset_is_gone_with_all_its_versions(hospital: Datasets, analyst: Datasets) -> None:
    for _ in range(2):
        hospital.put("gone", {"x": [1]}, ranges=(0, 9), rows_per_person=1)
    assert [each.version for each in analyst.list(versions=True) if each.name == "hospital/gone"] == [2, 1]
    assert [each.version for each in analyst.list() if each.name == "hospital/gone"] == [2]
    assert [each.version for each in hospital.remove("gone")] == [2, 1]
    assert "hospital/gone" not in {each.name for each in analyst.list(versions=True)}
    with pytest.raises(InputError, match="no dataset hospital/gone of yours"):
        hospital.remove("hospital/gone")


def test_only_ones_own_names_and_what_is_said_are_put(hospital: Datasets, analyst: Datasets, diabetes: Dataset) -> None:
    table: Any = {"x": [1]}
    for refused, words in (
        (lambda: hospital.put("other/x", table, ranges=(0, 9), rows_per_person=1), "you are hospital"),
        (lambda: analyst.remove("hospital/diabetes"), "you are analyst"),
        (lambda: hospital.put("x", table, ranges=(0, 9)), "rows_per_person is not said"),
        (lambda: hospital.put("x", table, rows_per_person=1), "which range"),
        (lambda: hospital.put("x", table, ranges=(0, 9), rows_per_person=1, unit="m"), "no argument 'unit'"),
        (lambda: hospital.put("x y", table, ranges=(0, 9), rows_per_person=1), "its name is OWNER/NAME"),
        (lambda: hospital.put("x", table, ranges=(0, 9), rows_per_person=1, expires="soon"), "no duration"),
        (lambda: hospital.search(5), "for words"),  # type: ignore[arg-type]
        (lambda: hospital.get(""), "name is a text"),
        (lambda: diabetes.sample(0), "1 to 2"),
        (lambda: diabetes[[]], "no columns are named"),
    ):
        with pytest.raises((InputError, UsageError), match=words):
            refused()


def test_progress_tells_what_is_checked_and_what_is_put(hospital: Datasets) -> None:
    told: list[tuple[str, int, int | None]] = []
    values = {"x": np.zeros(70_000, np.int64)}
    hospital.put("long", values, ranges=(0, 9), rows_per_person=1, progress=lambda *each: told.append(each))
    assert told == [("check", 65_536, None), ("check", 70_000, None), ("put", 65_536, 70_000), ("put", 70_000, 70_000)]


def test_a_cluster_has_its_datasets(cluster: InProcess, diabetes: Dataset) -> None:
    with Cluster(cluster.client("analyst").config) as connected:
        assert connected.dataset("hospital/diabetes").rows == 3 and len(connected.datasets.search("diabetes")) >= 1


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None),
        ("never", None),
        ("36h", 36 * 3600),
        ("90d", 90 * 86_400),
        ("8w", 56 * 86_400),
        (" 2y ", 730 * 86_400),
        (datetime.timedelta(days=1), 86_400),
        ("2027-02-01", 1_801_440_000 - NOW),
        (datetime.date(2027, 2, 1), 1_801_440_000 - NOW),
        (datetime.datetime(2027, 2, 1, tzinfo=datetime.UTC), 1_801_440_000 - NOW),
    ],
)
def test_when_it_expires(given: Any, seconds: float | None) -> None:
    assert as_expiry(given, NOW) == (None if seconds is None else int(NOW + seconds))


@pytest.mark.parametrize("given", ["soon", "0d", "3m", "2027-13-01", 5, "9999999y"])
def test_what_is_no_time(given: Any) -> None:
    with pytest.raises(UsageError, match="no duration"):
        as_expiry(given, NOW)
    with pytest.raises(InputError, match="would expire before"):
        as_expiry("2020-01-01", NOW)


def test_who_may_see_it() -> None:
    assert as_readers(True) == ("any",) and as_readers(False) == () and as_readers(["ann", "bob"]) == ("ann", "bob")
    for wrong in ("ann", 5, ["a b"], [5]):
        with pytest.raises(UsageError):
            as_readers(wrong)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"age": (5,)}, "other columns"),
        ({"age": (5, 6), "scan": (1,) * 6}, "equally many whole rows"),
        ({"age": (5,), "scan": (1,) * 5}, "equally many whole rows"),
        ({"age": (121,), "scan": (1,) * 6}, "outside of its column's range"),
        ({"age": (5,) * MOST_SAMPLED, "scan": (1,) * 6}, "more than"),
        ({"age": (), "scan": ()}, "equally many whole rows"),
    ],
)
def test_a_manifest_with_another_sample_is_malformed(sample: dict[str, Any], words: str) -> None:
    columns = (
        Column(name="age", type="integer", low=0, high=120),
        Column(name="scan", type="array", low=0, high=9, shape=(2, 3)),
    )
    good = schema(columns=columns, sample={"age": (5,), "scan": (1,) * 6})
    assert Schema.parse(good.content) == good
    with pytest.raises(ValueError, match=words):
        schema(columns=columns, sample=sample)


@pytest.mark.parametrize("given", [1.5, "2", True, 2.9, 0, -1, "one"])
def test_rows_of_one_person_are_a_whole_number(hospital: Datasets, given: Any) -> None:
    """Nothing is rounded down: noise covers so many rows, and 2.9 were taken for 2."""
    with pytest.raises(UsageError, match="rows_per_person is a whole number above 0"):
        hospital.put("visits", {"x": [1]}, ranges=(0, 9), rows_per_person=given)


def test_a_range_that_no_integer_holds_is_refused_with_what_helps(hospital: Datasets) -> None:
    for high in (1e301, 2.0**70):
        with pytest.raises(InputError, match="narrower range") as caught:
            hospital.put("big", {"x": np.array([1.0, 2.0])}, ranges=(0, high), rows_per_person=1)
        assert "Value error" not in str(caught.value)


def test_a_budget_of_what_was_not_put_is_not_set(cluster: InProcess) -> None:
    with pytest.raises(SessionError, match="nothing of yours lies at the parties"):
        granting.set_budget(cluster.client("hospital"), "hospital/nothing", Fraction(1), Fraction(1, 10**6))
