"""Names in plans (security.md 34): what reads as what it is, and what is shown instead of the rest."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpc.compiler.compile import compile_model
from mpc.errors import PlanError
from mpc.plan.parse import parse_plan
from mpc.text import check_distinct, check_name, check_process, is_plain, shown
from tests.support.parties import tiny_model
from tests.support.vectors import FOLDER

GOOD = ["x", "/model/layers.0/Gemm:0", " capital-gain", "Amount (USD)", "größe", "入力", "x²", "α·β", "[bold]", "a  b"]
BAD = [
    "x\x1b[2K",
    "x\r",
    "x\ny",
    "x\t",
    "\x00",
    "\x7f",
    "\x9b1m",  # a control of eight bits
    "\u202egnp",  # from right to left
    "\u2066x",
    "a\u200bb",  # no width
    "a\u200db",
    "\ufeffx",
    "a\u00adb",  # a hyphen that hides
    "a\u00a0b",  # a space that is none
    "a\u2028b",
    "\ue000",  # private
    "a\u3164",  # a letter that shows as nothing
    "\u115f",
    "\u2800",
    "a\ufe0f",
    "\U000e0041",
    "\u0301x",  # a mark of nothing
    "e\u0301",  # é, but not as it is usually written
]


@pytest.mark.parametrize("name", GOOD)
def test_usual_names(name: str) -> None:
    check_name(name, "the input")
    assert shown(name) == name


@pytest.mark.parametrize("name", BAD)
def test_security_34_names_that_steer_or_hide(name: str) -> None:
    with pytest.raises(PlanError) as caught:
        check_name(name, "the input")
    assert caught.value.remedy
    if not unicodedata.category(name[0]).startswith("M") and unicodedata.is_normalized("NFC", name):
        assert str(caught.value).isascii()  # the error does not do what the name would have done


def test_no_character_that_is_shown_as_it_is_controls_anything() -> None:
    """Over all of Unicode: what is let through is no control, format, private or unpaired character, and no blank."""
    turning = {"RLE", "LRE", "RLO", "LRO", "PDF", "RLI", "LRI", "PDI"}
    let_through: dict[bool, list[str]] = {True: [], False: []}
    for code in range(sys.maxunicode + 1):
        let_through[is_plain(chr(code))].append(chr(code))
    steering = [c for c in let_through[True] if unicodedata.category(c)[0] not in "LMNPS" and c != " "]
    assert not steering and not [c for c in let_through[True] if unicodedata.bidirectional(c) in turning]
    assert len(let_through[False]) > 900_000
    escaped = shown("".join(let_through[False]))
    assert escaped.isascii() and escaped.isprintable()  # so none of them is left


def test_names_that_look_alike() -> None:
    check_distinct(["x", "X", "y", "x1"], "the input")
    for pair in (["x", "\uff58"], ["x²", "x2"], ["a b", "a  b"], ["a", "a "], ["ﬁ", "fi"]):
        with pytest.raises(PlanError, match="looks like"):
            check_distinct(pair, "the input")


@pytest.mark.parametrize("name", ["", "аlice", "alice ", "ali\x1bce", "-a", "a" * 64, "al\u200bice", "a/b"])
def test_security_34_processes_are_ascii(name: str) -> None:
    """The first of them begins with a Cyrillic letter."""
    with pytest.raises(PlanError, match="cannot be anybody's certificate"):
        check_process(name)
    check_process("alice")


def test_escapes() -> None:
    assert shown("a\x1b[1mb\u202ec\U000e0041\ud800") == "a\\x1b[1mb\\u202ec\\U000e0041\\ud800"
    assert shown("a\nb\x07", "\n") == "a\nb\\x07"


def renamed(content: Any, old: str, new: str) -> Any:
    """The same JSON with one text for another, wherever it is a value."""
    if isinstance(content, dict):
        return {key: renamed(value, old, new) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(value, old, new) for value in content]
    return new if content == old else content


def texts(content: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the texts of a JSON value are."""
    if isinstance(content, str):
        yield where
    elif isinstance(content, dict | list):
        entries = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in entries:
            yield from texts(value, (*where, key))


def test_security_34_no_text_of_a_plan_steers_a_terminal() -> None:
    """Whatever in a plan is a text, of all kinds of gates: with a control character, or half a pair, it is refused."""
    golden = json.loads((FOLDER / "plan.json").read_bytes())
    golden["outputs"][0]["labels"], golden["outputs"][0]["keys"] = ["a", "b"], ["c", "d"]
    assert parse_plan(json.dumps(golden, sort_keys=True, separators=(",", ":")).encode())
    tried = 0
    for *way, last in texts(golden):
        holder: Any = golden
        for key in way:
            holder = holder[key]
        for bad in ("\x1b[2K", "\ud800"):
            kept = holder[last]
            holder[last] += bad
            with pytest.raises(PlanError) as caught:
                parse_plan(json.dumps(golden, sort_keys=True, separators=(",", ":")).encode())
            assert str(caught.value).isprintable()
            holder[last] = kept
            tried += 1
    assert tried > 200


@pytest.mark.parametrize("what", ["input", "output", "wire", "gate", "holder"])
def test_security_34_a_plan_with_such_a_name_is_refused(what: str, tmp_path: Path) -> None:
    """By everyone who reads one: `from_bytes` verifies."""
    plan = compile_model(tiny_model(tmp_path / "tiny.onnx"), {"x": (-4.0, 4.0)}).plan
    content = json.loads(plan.canonical)
    old = {
        "input": content["inputs"][0]["name"],
        "output": content["outputs"][0]["name"],
        "wire": content["inputs"][0]["wire"],
        "gate": content["gates"][0]["name"],
        "holder": next(wire["holders"][0] for wire in content["wires"] if wire["holders"]),
    }[what]
    for bad in ("x\x1b[8m", "x\u202e", "x\u200b"):
        changed = renamed(content, old, bad)
        data = json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
        with pytest.raises(PlanError, match="is refused|cannot be anybody's"):
            parse_plan(data)
