"""Text is read by one of two readers, and nobody can tell by which."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import InputError
from parties.client.tables import fast_text
from parties.client.tables.files import open_file
from tests.support.effort import examples

CELL = st.sampled_from(["", "1", "-2.5", "1e3", "NA", " 7 ", "f", "é", "a b", "0x1F", "1_000", "nan", "'q'", "#", "\\"])


def cells_of(path: Path, names: list[str]) -> list[list[str]] | str:
    """All cells, column by column; or what is wrong."""
    try:
        source = open_file(path, names, {})
        found: dict[str, list[str]] = {name: [] for name in source.found}
        for piece in source.pieces([*source.found]):
            for name, cells in piece.items():
                found[name] += cells.values.tolist()
        return list(found.values())
    except InputError as error:
        return str(error)


def both(path: Path, names: list[str], patch: pytest.MonkeyPatch) -> tuple[list[list[str]] | str, ...]:
    fast = cells_of(path, names)
    with patch.context() as slow:
        slow.setattr(fast_text, "pyarrow_csv", lambda: None)
        return fast, cells_of(path, names)


@examples(60)
@given(
    rows=st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=8),
    separator=st.sampled_from([",", ";", "\t"]),
    end=st.sampled_from(["\n", "\r\n"]),
    head=st.sampled_from(["", "\ufeff", "\n"]),
    names=st.booleans(),
    blank=st.booleans(),
)
def test_both_readers_read_the_same_cells(
    rows: list[list[str]],
    separator: str,
    end: str,
    head: str,
    names: bool,
    blank: bool,
) -> None:
    lines = [*([["one", "two", "three"]] if names else []), *rows]
    text = (end * (1 + blank)).join(separator.join(line) for line in lines) + end * blank
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "t.csv"
        path.write_bytes((head + text).encode())
        fast, slow = both(path, ["one", "two", "three"], patch)
        assert fast == slow


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n3\n",
        b"a,b\n" + b"1,2\n" * 200_000 + b"3,4,5\n",
        b'a,b\n1,"2,5"\n',
        b"a,b\n1,\xff\n",
        b"a,b\r1,2\r",
        b"a,b\n1,2\x00\n",
        b"a,b\n",
        b"",
        b"a\n1\n\n2\n",
        b"a,b\n" + b"1,2\n" * 300_000 + b"x,\xff\n",
    ],
)
def test_what_one_does_not_take_the_other_does_or_refuses(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    fast, slow = both(tmp_path / "t.csv", ["a", "b"], monkeypatch)
    assert fast == slow


def test_the_fast_reader_is_taken_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 1000)
    pieces = list(fast_text.read_columns(tmp_path / "t.csv", ",", 2, True))
    assert None not in pieces and sum(len(each[0]) for each in pieces if each is not None) == 1000
    (tmp_path / "q.csv").write_text('a,b\n1,"2"\n')
    assert list(fast_text.read_columns(tmp_path / "q.csv", ",", 2, True)) == [None]
