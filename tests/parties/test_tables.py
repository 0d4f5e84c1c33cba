"""Tables in every form that owners have become the same columns of integers; what does not fit is refused unnamed."""

from __future__ import annotations

import datetime
import decimal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import InputError, UsageError
from mpc.stored import BLOCK_ROWS
from parties.client.tables.integers import Faults, encoder
from parties.client.tables.stated import FROM_DATA, Stated
from parties.client.tables.table import Table, open_source, read_table
from tests.support.effort import examples
from tests.support.people_tables import FORMS, SEXES, STATED

SCALE = 1 << 28


def whole(table: Table) -> dict[str, np.ndarray]:
    """All blocks in one; each but the last has 65,536 rows, and columns are in order."""
    blocks = list(table.blocks())
    assert all(list(block) == [column.name for column in table.columns] for block in blocks)
    sizes = {tuple(len(values) for values in block.values()) for block in blocks[:-1]}
    assert sizes <= {(BLOCK_ROWS,) * len(table.columns)}
    found = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    assert all(values.dtype == np.int64 and len(values) == table.rows for values in found.values())
    return found


def read(given_table: Any, **stated: Any) -> dict[str, list[Any]]:
    return {name: values.tolist() for name, values in whole(read_table(given_table, Stated.of(**stated))).items()}


def expected(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Integers of a table of people, computed one by one with fractions."""
    found: dict[str, list[int]] = {}
    encode = {
        "age": lambda age: age,
        "bmi": lambda bmi: round(Fraction(bmi) * SCALE),
        "sex": SEXES.index,
        "smoker": int,
    }
    for name, one in encode.items():
        values = [row[name] for row in rows]
        found[name] = [0 if value is None else one(value) for value in values]
        if None in values:
            found[f"{name}.missing"] = [int(value is None) for value in values]
    return found


PEOPLE = st.lists(
    st.fixed_dictionaries(
        {
            "age": st.none() | st.integers(0, 120),
            "bmi": st.none() | st.floats(-10.5, 60, allow_nan=False).map(lambda bmi: round(bmi, 4)),
            "sex": st.none() | st.sampled_from(SEXES),
            "smoker": st.none() | st.booleans(),
        }
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("form", FORMS)
@examples(4)
@given(PEOPLE)
def test_every_form_of_a_table_has_the_same_integers(
    tmp_path_factory: pytest.TempPathFactory, form: str, rows: list[dict[str, Any]]
) -> None:
    table = read_table(FORMS[form](rows, tmp_path_factory.mktemp("form")), STATED)
    types = {column.name: (column.type, column.scale) for column in table.columns if column.type != "missing"}
    assert types == {"age": ("integer", 1), "bmi": ("number", SCALE), "sex": ("category", 1), "smoker": ("boolean", 1)}
    assert {name: values.tolist() for name, values in whole(table).items()} == expected(rows)
    assert all(
        column.missing_of == column.name.removesuffix(".missing") for column in table.columns[1:] if column.missing_of
    )


@examples(20)
@given(st.floats(-1e12, 1e12), st.floats(0, 1e12), st.data())
def test_numbers_are_rounded_at_a_scale_that_the_range_alone_decides(low: float, width: float, data: Any) -> None:
    high = low + width
    values = data.draw(st.lists(st.floats(low, high), min_size=1, max_size=5))
    table = read_table({"x": np.array(values)}, Stated.of(ranges={"x": (low, high)}))
    [column] = table.columns
    size = max(abs(Fraction(low)), abs(Fraction(high)))
    assert (column.low, column.high) == (Fraction(low), Fraction(high))
    assert column.scale == 1 << 28 or size * column.scale <= 1 << 44 < 2 * size * column.scale
    for integer, value in zip(whole(table)["x"].tolist(), values, strict=True):
        assert abs(integer - Fraction(value) * column.scale) <= Fraction(1, 2) + abs(integer) * Fraction(1, 1 << 52)
        assert column.ends[0] <= integer <= column.ends[1]


def test_a_float32_is_inside_the_range_that_it_was_made_from() -> None:
    found = read({"x": np.array([0.1, -0.1], np.float32)}, ranges={"x": (-0.1, 0.1)})["x"]
    assert found == [round(0.1 * SCALE), -round(0.1 * SCALE)]


@pytest.mark.parametrize(
    ("low", "high", "number"), [(-3, 5, 0), (2, 5, 2), (-7, -4, -4), (0, 0, 0)], ids=["around", "above", "below", "one"]
)
def test_the_number_nearest_to_zero_stands_where_one_is_missing(low: int, high: int, number: int) -> None:
    stated = {"ranges": {"x": (low, high)}}
    assert read({"x": [high, None]}, **stated) == {"x": [high, number], "x.missing": [0, 1]}
    assert read({"x": [float(high), float("nan")]}, **stated) == {
        "x": [high * SCALE, number * SCALE],
        "x.missing": [0, 1],
    }


IMAGES = np.arange(24).reshape(3, 2, 4).astype(np.uint8)


@pytest.mark.parametrize(
    "table",
    [
        {"image": IMAGES},
        {"image": list(IMAGES)},
        {"image": IMAGES.tolist()},
        pandas.DataFrame({"image": list(IMAGES)}),
        polars.DataFrame({"image": IMAGES}),
        pyarrow.table({"image": IMAGES.tolist()}),
        pyarrow.table({"image": IMAGES.reshape(3, 8).tolist()}),
    ],
    ids=["numpy", "list of numpy", "lists", "pandas", "polars", "arrow", "arrow, flat"],
)
def test_a_column_of_arrays(tmp_path: Path, table: Any) -> None:
    stated: dict[str, Any] = {"ranges": {"image": (0, 255)}, "shapes": {"image": (2, 4)}}
    assert read(table, **stated) == {"image": IMAGES.tolist()}
    if isinstance(table, pyarrow.Table):
        pyarrow.parquet.write_table(table, tmp_path / "images.parquet")
        assert read(tmp_path / "images.parquet", **stated) == {"image": IMAGES.tolist()}
    [column] = read_table(table, Stated.of(**stated)).columns
    assert (column.type, column.shape, column.scale) == ("array", (2, 4), 1)


@pytest.mark.parametrize(
    "form", [lambda rows: {"x": rows}, lambda rows: pyarrow.table({"x": rows})], ids=["lists", "arrow"]
)
def test_arrays_may_miss_a_number_or_a_whole_row(form: Callable[[Any], Any]) -> None:
    found = read(form([[1.5, 2.0], None, [0.25, None]]), ranges={"x": (0, 2)})
    assert found == {"x": [[3 << 27, 2 << 28], [0, 0], [1 << 26, 0]], "x.missing": [0, 1, 1]}


def test_arrays_of_numpy_are_tables_by_rows_fields_or_as_one_column(tmp_path: Path) -> None:
    plain = np.array([[1, 2], [3, 4]])
    assert read(plain, ranges=(0, 9), columns=["a", "b"]) == {"a": [1, 3], "b": [2, 4]}
    assert read(plain, ranges=(0, 9)) == {"x0": [1, 3], "x1": [2, 4]}
    assert read(IMAGES, ranges=(0, 255)) == {"x0": IMAGES.tolist()}
    np.save(tmp_path / "a.npy", plain)
    np.savez(tmp_path / "a.npz", b=plain[0], a=np.array(["f", "m"]))
    assert read(tmp_path / "a.npy", ranges=(0, 9))["x1"] == [2, 4]
    found = read(str(tmp_path / "a.npz"), ranges=(0, 9), categories={"a": ["m", "f"]})
    assert found == {"b": [1, 2], "a": [1, 0]}


def test_categories_are_texts_or_whole_numbers_in_the_order_that_was_said() -> None:
    assert read({"c": ["b", " a ", None]}, categories={"c": ["a", "b"]}) == {"c": [1, 0, 0], "c.missing": [0, 0, 1]}
    assert read({"c": [3, 1]}, categories={"c": [1, 2, 3]}) == {"c": [2, 0]}
    assert read(pandas.DataFrame({"c": [3.0, None]}), categories={"c": ["1", "3"]}) == {
        "c": [1, 0],
        "c.missing": [0, 1],
    }
    assert read({"c": ["none", "n/a", "x"]}, categories={"c": ["none", "x"]})["c.missing"] == [0, 1, 0]
    [column] = read_table({"c": [3]}, Stated.of(categories={"c": [1, 2, 3]})).columns
    assert (column.categories, column.low, column.high) == (("1", "2", "3"), 0, 2)


def test_categories_come_from_the_data_only_if_the_owner_says_so_and_is_told() -> None:
    dictionary = pyarrow.table({"c": pyarrow.array(["b", "a", "b"]).dictionary_encode()})
    for table in (dictionary, {"c": ["b", "a", "b"]}, pandas.DataFrame({"c": pandas.Categorical(["b", "a", "b"])})):
        with pytest.raises(InputError, match="not said which texts"):
            read_table(table, Stated.of())
        found = read_table(table, Stated.of(categories={"c": FROM_DATA}))
        assert found.columns[0].categories == ("a", "b") and whole(found)["c"].tolist() == [1, 0, 1]
        assert found.published == ("which categories occur in column 'c'",)


def test_columns_that_may_miss_values_can_be_said_beforehand() -> None:
    assert read({"x": [1], "y": [2]}, ranges=(0, 9), missing=["y"]) == {"x": [1], "y": [2], "y.missing": [0]}
    with pytest.raises(InputError, match="misses values in x, which you have not said"):
        read({"x": [1, None]}, ranges=(0, 9), missing=[])
    assert read_table({"x": [None, 1]}, Stated.of(ranges=(0, 9))).published == ("that column 'x' misses values",)


def test_a_person_may_have_so_many_rows_as_was_said_and_is_not_put() -> None:
    table = {"person": ["ann", "bob", "ann", "ann"], "x": [1, 2, 3, 4]}
    assert read(table, ranges=(0, 9), person="person", rows_per_person=3) == {"x": [1, 2, 3, 4]}
    with pytest.raises(InputError, match="1 person has more than rows_per_person=2 rows") as caught:
        read(table, ranges=(0, 9), person="person", rows_per_person=2)
    assert "ann" not in str(caught.value) and "=3" not in str(caught.value)  # how many rows she has is not told
    numbers = read_table(
        {**table, "person": [1, 2, 1, 1]},
        Stated.of(ranges=(0, 9), person="person", columns=["person"], rows_per_person=3),
    )
    assert [column.name for column in numbers.columns] == ["person"]
    with pytest.raises(InputError, match="1 rows do not say whose"):
        read({"person": ["ann", None], "x": [1, 2]}, ranges=(0, 9), person="person")


SECRET = 777.125
REFUSED: list[tuple[Any, dict[str, Any], tuple[str, ...]]] = [
    ({"x": [1.0, SECRET, SECRET]}, {"ranges": {"x": (0, 1)}}, ("'x' has 2 values outside its range 0:1",)),
    ({"x": [float("inf")]}, {"ranges": {"x": (0, 1)}}, ("'x' has 1 value outside",)),
    ({"x": [SECRET]}, {"ranges": (0, 999), "types": {"x": "integer"}}, ("'x' has 1 value that is not whole",)),
    ({"c": ["a", "Ann Miller"]}, {"categories": {"c": ["a"]}}, ("'c' has 1 value in none of its categories",)),
    (
        {"c": ["Ann Miller", "b"], "d": [SECRET, 0.0]},
        {"ranges": {"c": (0, 1), "d": (0, 1)}},
        ("'c' has 2 values that are no numbers", "'d' has 1 value outside"),
    ),
    ({"x": [1 << 70]}, {"ranges": (0, 1)}, ("more than 64 bits",)),
    ({"x": [SECRET], "y": ["Ann Miller"]}, {"ranges": {"x": (0, 1)}}, ("which texts there are in column 'y'",)),
    ({"x": [SECRET], "y": [SECRET]}, {}, ("which range the numbers of columns 'x', 'y' lie in", "'x': (0, 120)")),
    ({"x": [datetime.date(1977, 7, 7)]}, {}, ("dates or times", "1900-01-01")),
    ({"x": np.array(["1977-07-07"], "M8[D]")}, {}, ("dates or times",)),
    (pandas.DataFrame({"x": pandas.to_datetime(["1977-07-07"])}), {}, ("dates or times",)),
    (polars.DataFrame({"x": [datetime.datetime(1977, 7, 7)]}), {}, ("dates or times",)),
    ({"x": [[1, 2], [SECRET]]}, {"ranges": (0, 999)}, ("one shape and type in each row",)),
    (pyarrow.table({"x": [[1.0, 2.0], [SECRET]]}), {"ranges": (0, 999)}, ("one shape and type in each row",)),
    ({"x": [complex(SECRET)]}, {}, ("neither numbers nor texts",)),
    ({"x": [SECRET, True]}, {}, ("neither numbers nor texts",)),
    ({"x": []}, {"ranges": (0, 1)}, ("no rows",)),
    ({"x": [1], "y": [1, 2]}, {}, ("different numbers of rows",)),
    ({"x": [1]}, {"ranges": {"age": (0, 1)}}, ("no column 'age'", "it has x")),
    ({"x": [1]}, {"ranges": {"x": (1, 0)}}, ("low is above high",)),
    ({"x": [1]}, {"ranges": {"x": (0, 1.5)}}, ("end that is none", "'number'")),
    ({"x": [1]}, {"ranges": {"x": (0, 1 << 60)}}, ("column 'x' is refused", "2^59")),
    ({"x": ["a"]}, {"ranges": {"x": (0, 1)}, "categories": {"x": ["a"]}}, ("a range and categories",)),
    ({"x": ["a"]}, {"categories": {"x": ["a", "a"]}}, ("two equal categories",)),
    ({"x": ["a"]}, {"categories": {"x": ["a\x1b[2J"]}}, ("a category of column 'x' is refused",)),
    ({"x\u202e": [1]}, {"ranges": (0, 1)}, ("column", "refused")),
    ({"x": [1], "\uff58": [1]}, {"ranges": (0, 1)}, ("looks like",)),
    (pandas.DataFrame([[1, 2]]), {"ranges": (0, 9)}, ("names are no texts", "t.columns")),
    (pandas.Series([1]), {}, ("Series",)),
    (object(), {}, ("of type object", ".parquet")),
    ([1, 2], {}, ("a dict for each row",)),
    ("people.xlsx", {}, ("people.xlsx", ".parquet")),
    ("nowhere.csv", {}, ("does not exist",)),
    ({"x": [1]}, {"ranges": "a:b"}, ("a pair of numbers",)),
    ({"x": [1]}, {"categories": {"x": "abc"}}, ("no list",)),
    ({"x": [1]}, {"types": {"x": "date"}}, ("types are",)),
    ({"x": [1]}, {"rows_per_person": 0}, ("whole number above 0",)),
    ({"x": [1], "x.missing": [0]}, {"ranges": (0, 1), "missing": ["x"]}, ("two columns named 'x.missing'",)),
]  # fmt: skip


@pytest.mark.parametrize(("table", "stated", "words"), REFUSED, ids=[words[0][:40] for _, _, words in REFUSED])
def test_what_does_not_fit_is_refused_with_a_remedy_and_without_a_value(
    table: Any, stated: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises((InputError, UsageError)) as caught:
        read_table(table, Stated.of(**stated))
    told = str(caught.value)
    assert all(word in told for word in words), told
    assert not any(secret in told for secret in ("777", "Ann", "1977", "\x1b", "\u202e"))


def test_what_holds_values_on_their_way_shows_none() -> None:
    table = {"x": np.array([SECRET])}
    stated = Stated.of(ranges=(0, 999))
    [piece] = open_source(table, stated).pieces(["x"])
    found = read_table(table, stated)
    encoded = encoder(found.columns[0])(piece["x"], Faults())
    assert encoded.values.tolist() == [round(SECRET * SCALE)]
    told = " ".join(map(repr, (piece, encoded, found)))  # asked for whole numbers: an address may have any few digits
    assert str(SECRET) not in told and str(round(SECRET * SCALE)) not in told


def test_other_numbers_of_python_are_numbers() -> None:
    table = {"x": [decimal.Decimal("1.5"), Fraction(1, 4), np.float32(2), 1]}
    assert read(table, ranges=(0, 2)) == {"x": [3 << 27, 1 << 26, 2 << 28, 1 << 28]}
    arrow = pyarrow.table({"x": pyarrow.array([decimal.Decimal("1.5"), None])})
    assert read(arrow, ranges=(0, 2)) == {"x": [3 << 27, 0], "x.missing": [0, 1]}
    large = np.array([(1 << 58) + 1, -(1 << 58) - 1])
    assert read({"x": large}, ranges=(-(1 << 59) + 1, (1 << 59) - 1)) == {"x": large.tolist()}


def test_large_whole_numbers_in_text_keep_every_digit(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"x,y\n{(1 << 58) + 1},1\n,2.0\n")
    found = read(
        tmp_path / "x.csv", ranges={"x": (0, 1 << 58 | 1), "y": (0, 9)}, types={"x": "integer", "y": "integer"}
    )
    assert found == {"x": [(1 << 58) + 1, 0], "x.missing": [0, 1], "y": [1, 2]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n3\n", ("line 3: 1 cells where others have 2",)),
        ("1,2\n3,4\n", ("no line of names", "columns=")),
        ("a,b\n", ("no row",)),
        ("a,a\n1,2\n", ("two columns named 'a'",)),
        ("5,red\n", ("line 1: column 1 (the first is column 0) is no number, and others are",)),
    ],
)
def test_text_that_is_no_table(tmp_path: Path, content: str, words: tuple[str, ...]) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "x.csv", Stated.of(ranges=(0, 9)))
    assert all(word in str(caught.value) for word in words)
    (tmp_path / "y.csv").write_text("1,2\n3,4\n")
    assert read(tmp_path / "y.csv", ranges=(0, 9), columns=["a", "b"], types={"a": "integer", "b": "integer"})["b"] == [
        2,
        4,
    ]


@pytest.mark.parametrize("name", ["x.parquet", "x.npy", "x.npz", "x.csv"])
def test_files_that_are_not_what_their_names_say(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04K\x01.\xff" * 3)
    with pytest.raises(InputError, match=name):
        read_table(tmp_path / name, Stated.of(ranges=(0, 1)))


def test_a_file_that_changes_after_it_was_checked_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("x\n1\n2\n")
    table = read_table(path, Stated.of(ranges=(0, 9)))
    for other in ("x\n1\n", "x\n1\nNA\n", "x\n1\n777\n"):
        path.write_text(other)
        with pytest.raises(InputError, match="changed while|outside its range") as caught:
            list(table.blocks())
        assert "777" not in str(caught.value)


BLOCKED = """
import sys
for name in ("narwhals", "pyarrow", "pandas", "polars"):
    sys.modules[name] = None
from parties.client.tables.integers import Faults, encoder
from parties.client.tables.stated import Stated
from parties.client.tables.table import read_table
import numpy as np
stated = Stated.of(ranges=(0, 9))
for table in ({"x": [1, None]}, np.ones((2, 2)), [{"x": 1}], sys.argv[1]):
    found = read_table(table, stated)
    assert sum(len(block[found.columns[0].name]) for block in found.blocks()) == found.rows
for table in (object(), sys.argv[1].replace("csv", "parquet")):
    try:
        read_table(table, stated)
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_arrays_and_text_need_no_further_package_and_others_say_which(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("x\n1\n")
    (tmp_path / "x.parquet").write_text("")
    command = [sys.executable, "-c", BLOCKED, str(tmp_path / "x.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in done] == ["UsageError", "UsageError"]
    assert "needs narwhals" in done[0] and "needs pyarrow" in done[1] and all("mpc[data]" in line for line in done)


PEAK = """
import resource, sys
import narwhals, pyarrow.compute, pyarrow.parquet
from parties.client.tables.integers import Faults, encoder
from parties.client.tables.stated import Stated
from parties.client.tables.table import read_table
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
table = read_table(sys.argv[1], Stated.of(ranges=(0, 100)))
rows = sum(len(block["c0"]) for block in table.blocks())
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def grown(path: Path) -> tuple[int, int]:
    """(rows, MiB by which a process grows that reads the file)."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    rows, mib = map(int, done.stdout.split())
    return rows, mib


def large(folder: Path, rows: int) -> tuple[Path, Path]:
    values = np.round(np.random.default_rng(1).uniform(0, 100, (rows, 10)), 3)
    frame = polars.DataFrame({f"c{column}": values[:, column] for column in range(10)})
    frame.write_csv(folder / "t.csv")
    pyarrow.parquet.write_table(frame.to_arrow(), folder / "t.parquet")
    return folder / "t.csv", folder / "t.parquet"


def test_blocks_of_a_file_have_65536_rows(tmp_path: Path) -> None:
    rows = BLOCK_ROWS + 5
    values = np.arange(rows) % 100
    polars.DataFrame({"x": values}).write_csv(tmp_path / "x.csv")
    polars.DataFrame({"x": values}).write_parquet(tmp_path / "x.parquet", row_group_size=7000)
    for path in (tmp_path / "x.csv", tmp_path / "x.parquet"):
        seen: list[int] = []
        table = read_table(path, Stated.of(ranges={"x": (0, 99)}, types={"x": "integer"}), progress=seen.append)
        assert (whole(table)["x"] == values).all() and seen == sorted(seen) and seen[-1] == rows
        assert [len(block["x"]) for block in table.blocks()] == [BLOCK_ROWS, 5]


def test_images_are_turned_into_integers_a_few_at_a_time() -> None:
    images = np.random.default_rng(4).integers(0, 256, (6000, 28, 28), dtype=np.uint8)
    for table in ({"image": images, "label": np.arange(6000)}, polars.DataFrame({"image": images})):
        stated = Stated.of(ranges={"image": (0, 255), "label": (0, 5999)} if isinstance(table, dict) else (0, 255))
        pieces = list(open_source(table, stated).pieces(["image"]))
        assert len(pieces) > 1 and max(piece["image"].values.size for piece in pieces) <= 1 << 22
        [block] = read_table(table, stated).blocks()
        assert (block["image"] == images).all() and len(block["image"]) == 6000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_rows_of_ten_columns_are_read_in_bounded_memory(tmp_path: Path) -> None:
    for path in large(tmp_path, 1_000_000):
        rows, mib = grown(path)
        assert rows == 1_000_000 and mib < 200, path.name
