"""One plan has one encoding: bytes that are not it are refused, with a PlanError and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mpc.errors import PlanError
from mpc.gates import GATES
from mpc.plan.ends import PlanInput, PlanOutput
from mpc.plan.parse import parse_plan
from mpc.wires import Wire
from tests.support import crypto
from tests.support.effort import examples
from tests.support.vectors import FOLDER, every_gate

PLAN = every_gate()
GOLDEN = PLAN.canonical


def dump(content: Any, **changes: Any) -> bytes:
    settings = {"sort_keys": True, "separators": (",", ":")} | changes
    return json.dumps(content, **settings).encode()


def content() -> dict[str, Any]:
    return json.loads(GOLDEN)


def refused(data: bytes) -> PlanError:
    with pytest.raises(PlanError) as caught:
        parse_plan(data)
    assert len(str(caught.value)) < 600  # it goes into logs
    return caught.value


# ------------------------------------------------------------------ golden


def test_the_golden_plan_has_every_kind_of_gate() -> None:
    assert {gate.kind for gate in PLAN.gates} == set(GATES)


def test_the_encoding_is_pinned() -> None:
    """Parties of one version agree on these bytes; a difference is a new version of the plan."""
    assert (FOLDER / "plan.json").read_bytes() == GOLDEN
    assert PLAN.digest.hex() == (FOLDER / "plan.sha256").read_text().strip()


def test_the_golden_bytes_are_read_back() -> None:
    plan = parse_plan((FOLDER / "plan.json").read_bytes())
    assert plan == PLAN and plan.canonical == GOLDEN and plan.digest == PLAN.digest
    assert [type(gate) for gate in plan.gates] == [GATES[gate.kind] for gate in plan.gates]


def test_the_digest_is_of_the_canonical_bytes() -> None:
    import hashlib

    assert PLAN.digest == hashlib.sha256(crypto.canonical("mpc/v1/plan", GOLDEN)).digest()
    assert GOLDEN == dump(content()) and GOLDEN.isascii()


# ------------------------------------------------------------------ other encodings of the same


def reordered(c: dict) -> bytes:
    return dump(dict(reversed(c.items())), sort_keys=False)


OTHER_ENCODINGS: dict[str, Callable[[dict], bytes]] = {
    "a space at the end": lambda c: GOLDEN + b" ",
    "a newline at the end": lambda c: GOLDEN + b"\n",
    "a space at the start": lambda c: b" " + GOLDEN,
    "spaces after separators": lambda c: dump(c, separators=(", ", ": ")),
    "indentation": lambda c: dump(c, indent=1),
    "another order of keys": reordered,
    "another order within a gate": lambda c: GOLDEN.replace(
        b'{"kind":"input","lifetime":"session"', b'{"lifetime":"session","kind":"input"', 1
    ),
    "a key twice, equal": lambda c: GOLDEN.replace(b'"version":2', b'"version":2,"version":2', 1),
    "a key twice, different": lambda c: GOLDEN.replace(b'"version":2', b'"version":3,"version":2', 1),
    "a gate's key twice": lambda c: GOLDEN.replace(b'"shift":24', b'"shift":2,"shift":24', 1),
    "text not escaped": lambda c: dump(c, ensure_ascii=False),
    "a needless escape": lambda c: GOLDEN.replace(b'"model', b'"\\u006dodel', 1),
    "an upper-case escape": lambda c: GOLDEN.replace(b"\\u00e9", b"\\u00E9", 1),
    "a float": lambda c: GOLDEN.replace(b'"shift":24', b'"shift":24.0', 1),
    "an exponent": lambda c: GOLDEN.replace(b'"shift":24', b'"shift":24e0', 1),
    "a string for a number": lambda c: GOLDEN.replace(b'"shift":24', b'"shift":"24"', 1),
    "true for one": lambda c: GOLDEN.replace(b'"axis":1', b'"axis":true', 1),
    "a float for one": lambda c: GOLDEN.replace(b'"axis":1', b'"axis":1.0', 1),
    "minus zero": lambda c: GOLDEN.replace(b'"sines":[0,', b'"sines":[-0,', 1),
    "false for zero": lambda c: GOLDEN.replace(b'"sines":[0,', b'"sines":[false,', 1),
    "a scale as a number": lambda c: GOLDEN.replace(b'"scale":"65536"', b'"scale":65536', 1),
    "a scale not in lowest terms": lambda c: GOLDEN.replace(b'"-3/2"', b'"-6/4"', 1),
    "a scale as a decimal": lambda c: GOLDEN.replace(b'"-3/2"', b'"-1.5"', 1),
    "a scale with a sign": lambda c: GOLDEN.replace(b'"scale":"65536"', b'"scale":"+65536"', 1),
    "a scale with a zero in front": lambda c: GOLDEN.replace(b'"scale":"65536"', b'"scale":"065536"', 1),
    "a scale with an underscore": lambda c: GOLDEN.replace(b'"scale":"65536"', b'"scale":"65_536"', 1),
    "a scale with a space": lambda c: GOLDEN.replace(b'"scale":"65536"', b'"scale":" 65536"', 1),
    "a default left out": lambda c: GOLDEN.replace(b'"last":false,', b"", 1),
    "a null left out": lambda c: GOLDEN.replace(b'"clamp":null,', b"", 1),
    "utf-16": lambda c: GOLDEN.decode().encode("utf-16"),
    "utf-32": lambda c: GOLDEN.decode().encode("utf-32-le"),
    "a byte order mark": lambda c: b"\xef\xbb\xbf" + GOLDEN,
}


@pytest.mark.parametrize("name", OTHER_ENCODINGS)
def test_another_encoding_of_the_same_plan_is_refused(name: str) -> None:
    data = OTHER_ENCODINGS[name](content())
    assert data != GOLDEN
    refused(data)


# ------------------------------------------------------------------ what is no plan at all

NO_PLANS = {
    "nothing": b"",
    "not json": b"plan",
    "cut off": GOLDEN[:-1],
    "two plans": GOLDEN + GOLDEN,
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "an empty object": b"{}",
    "gates not a list": b'{"gates":{}}',
    "gates null": b'{"gates":null}',
    "only gates": b'{"gates":[]}',
    "deep lists": b"[" * 200_000,
    "deep lists, closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"gates":' * 100_000,
    "deep in a gate": b'{"gates":[' + b'{"kind":' * 50_000,
    "not utf-8": b'{"gates":["\xff\xfe\xfd"]}',
    "a lone surrogate": b'{"gates":[],"version":"\\ud800"}',
    "nan": b'{"gates":[],"version":NaN}',
    "a huge integer": b'{"gates":[],"version":' + b"9" * 5000 + b"}",
    "a huge exponent": b'{"gates":[],"version":1e999999999}',
}


@pytest.mark.parametrize("name", NO_PLANS)
def test_what_is_no_plan_is_refused(name: str) -> None:
    refused(NO_PLANS[name])


VALUES: list[Any] = [
    None, True, False, 0, -1, 2, 60, 1.5, 1e300, float("nan"), float("inf"), -float("inf"), 10**30, -(10**30),
    10**4000, "", "x", "input", "batch", "1/0", "0", "-1", "1/3", "nan", "inf", "9" * 81, "\ud800", "\u0000", "A" * 201,
    [], {}, [[]], [{}], ["batch", "batch"], [1 << 32], [(1 << 32) + 1], [0], [-1], {"kind": "input"}, [None], "1e400",
    "1e99999999999",
]  # fmt: skip


def places(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value of a JSON document."""
    yield path
    if isinstance(node, dict | list):
        for key in node if isinstance(node, dict) else range(len(node)):
            yield from places(node[key], (*path, key))


PLACES = [path for path in places(content()) if path]


def put(document: Any, path: tuple, value: Any) -> Any:
    """The document, changed; `content()` makes a new one each time."""
    node = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return document


def accepted_or_refused(data: bytes) -> bool:
    """Either a PlanError, or a plan with exactly these bytes; any other exception fails the test."""
    try:
        plan = parse_plan(data)
    except PlanError:
        return False
    assert plan.canonical == data
    return True


@pytest.mark.parametrize("part", range(4))
def test_no_value_anywhere_raises_anything_else(part: int) -> None:
    """Every place of the golden plan in turn, a few of the odd values each."""
    for number, path in list(enumerate(PLACES))[part::4]:
        for value in VALUES[number % 8 :: 8]:
            accepted_or_refused(dump(put(content(), path, value)))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_no_value_anywhere_raises_anything_else_in_full(part: int) -> None:
    for path in PLACES[part::8]:
        for value in VALUES:
            accepted_or_refused(dump(put(content(), path, value)))


@examples(150)
@given(st.data())
def test_swapped_and_dropped_parts(data: st.DataObject) -> None:
    """Parts of the plan put in each other's place, left out or doubled."""
    document = content()
    for _ in range(data.draw(st.integers(1, 3))):
        target, source = data.draw(st.sampled_from(PLACES)), data.draw(st.sampled_from(PLACES))
        try:
            found: Any = content()
            for key in source:
                found = found[key]
            if data.draw(st.booleans()):
                document = put(document, target, found)
            else:
                node = document
                for key in target[:-1]:
                    node = node[key]
                node.pop(target[-1])
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier change took the place away
    accepted_or_refused(dump(document))


@examples(150)
@given(st.lists(st.tuples(st.integers(0, len(GOLDEN) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes(changes: list) -> None:
    data = bytearray(GOLDEN)
    for position, value in changes:
        data[position] = value
    if bytes(data) != GOLDEN and accepted_or_refused(bytes(data)):
        assert parse_plan(bytes(data)).digest != PLAN.digest


@examples(60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    )
)
def test_any_json(value: Any) -> None:
    refused(dump(value))
    refused(dump({"gates": [value]}))


# ------------------------------------------------------------------ single refusals, with what they say


def test_an_unknown_key_is_refused() -> None:
    for path in (
        (),
        ("inputs", 0),
        ("outputs", 0),
        ("wires", 0),
        ("gates", 0),
        ("gates", 11, "clamp"),
        ("gates", 15, "windows"),
    ):
        assert "extra" in refused(dump(put(content(), (*path, "extra"), 1))).what


def test_a_missing_key_is_refused() -> None:
    for path in PLACES:
        if not isinstance(path[-1], str):
            continue
        document = content()
        node: Any = document
        for key in path[:-1]:
            node = node[key]
        node.pop(path[-1])
        if path[0] == "gates" and path[-1] in GATES[node.get("kind", "relu")].later:  # then it is a plan without
            accepted_or_refused(dump(document))
        else:
            refused(dump(document))


@pytest.mark.parametrize("kind", ["softmax", "Input", "", "input ", None, 3, ["input"], "x" * 10_000])
def test_an_unknown_kind_of_gate_is_refused(kind: Any) -> None:
    error = refused(dump(put(content(), ("gates", 0, "kind"), kind)))
    assert "does not know" in error.what and "same version" in (error.remedy or "")


@pytest.mark.parametrize("gate", [None, 1, "input", [], ["kind", "input"]])
def test_a_gate_that_is_no_object_is_refused(gate: Any) -> None:
    assert "not an object" in refused(dump(put(content(), ("gates", 0), gate))).what


@pytest.mark.parametrize(
    ("key", "value"), [("version", 1), ("version", 3), ("version", 0), ("field", "2^31-1"), ("field", "")]
)
def test_another_version_or_field_is_refused(key: str, value: Any) -> None:
    assert key in refused(dump(put(content(), (key,), value))).what


@pytest.mark.parametrize("value", ["passive", "", "Active", None, True, ["active"]])
def test_a_plan_says_security_in_one_way_or_not_at_all(value: Any) -> None:
    """A passive plan does not name it: so it has the bytes that it had before there was another."""
    refused(dump(content() | {"security": value}))
    assert "security" not in content() and PLAN.with_security("passive").digest == PLAN.digest


def test_another_security_is_another_plan() -> None:
    active = PLAN.with_security("active")
    assert parse_plan(active.canonical) == active and active.is_checked and not PLAN.is_checked
    assert active.digest != PLAN.digest and active.with_security("passive") == PLAN
    assert json.loads(active.canonical) == content() | {"security": "active"}
    assert active.bind(3).is_checked and active.with_stored_weights().is_checked


def test_what_is_well_formed_but_wrong_is_refused_by_verify() -> None:
    assert "one name" in refused(dump(put(content(), ("gates", 1, "name"), content()["gates"][0]["name"]))).what


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("wires", 0, "bits"), 0),
        (("wires", 0, "bits"), 60),
        (("wires", 0, "name"), ""),
        (("wires", 0, "name"), "n" * 201),
        (("wires", 0, "masking"), "none"),
        (("wires", 0, "shape", 0), 0),
        (("wires", 0, "shape", 0), -4),
        (("wires", 0, "shape", 0), "any"),
        (("wires", 0, "shape", 0), (1 << 32) + 1),
        (("gates", 5, "shift"), -1),
        (("gates", 5, "shift"), 59),
        (("gates", 0, "lifetime"), "ever"),
        (("gates", 7, "factors", 0), 1 << 58),
        (("gates", 7, "factors", 0), -(1 << 58)),
        (("gates", 11, "window"), 57),
        (("gates", 11, "window"), 7),
        (("gates", 11, "dealt_bits"), 31),
        (("gates", 11, "dealt_bits"), 3),
        (("gates", 11, "cosines", 0), 1 << 31),
        (("gates", 11, "clamp", "shift"), 58),
        (("gates", 11, "clamp", "high"), 1 << 58),
        (("gates", 15, "windows", "kernel", 0), 0),
        (("gates", 15, "windows", "strides", 0), 0),
        (("gates", 15, "windows", "dilations", 0), (1 << 16) + 1),
        (("gates", 15, "windows", "pads", 0, 1), -1),
        (("gates", 15, "windows", "groups"), 0),
        (("gates", 17, "axis"), -1),
        (("gates", 17, "indices", 1), -2),
        (("gates", 17, "indices"), []),
        (("gates", 18, "factors", 1), 1 << 58),
        (("gates", 18, "factors"), []),
        (("gates", 19, "constant"), 1 << 58),
        (("gates", 20, "levels", 0), -(1 << 58)),
        (("gates", 20, "levels"), []),
        (("gates", 20, "levels"), [0] * 65),
        (("gates", 20, "shift"), 58),
        (("gates", 6, "axes"), []),
        (("inputs", 0, "dtype"), "complex64"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(path: tuple, value: Any) -> None:
    named = path[-1] if isinstance(path[-1], str) else path[-2]
    assert str(named) in refused(dump(put(content(), path, value))).what


# ------------------------------------------------------------------ plans in memory


@pytest.mark.parametrize("batch", [1, 2, 1 << 20])
def test_binding_makes_every_dimension_a_number(batch: int) -> None:
    bound = PLAN.bind(batch)
    assert bound.wire["flat"].shape == (batch, 4) and bound.wire["w"].shape == (4, 3)
    assert bound.outputs[0].shape == (batch, 1)
    assert all(isinstance(d, int) for part in (bound.wires, bound.outputs) for each in part for d in each.shape)
    assert bound.gates == PLAN.gates and bound.inputs == PLAN.inputs
    assert PLAN.wire["flat"].shape == ("batch", 4)


@pytest.mark.parametrize("batch", [0, -1, (1 << 20) + 1])
def test_a_batch_has_its_limits(batch: int) -> None:
    with pytest.raises(PlanError, match="batch"):
        PLAN.bind(batch)


def test_an_unbound_wire_has_no_sizes() -> None:
    with pytest.raises(ValueError, match="not bound"):
        _ = PLAN.wire["flat"].sizes


def test_plans_cannot_be_changed() -> None:
    for frozen, name in ((PLAN, "version"), (PLAN.wires[0], "bits"), (PLAN.gates[0], "name"), (PLAN.inputs[0], "low")):
        with pytest.raises(ValidationError):
            setattr(frozen, name, getattr(frozen, name))


def test_who_enters_and_who_receives() -> None:
    assert PLAN.owners == {"owner"} and PLAN.recipients == {"recipient"}
    assert [gate.out for gate in PLAN.weights] == ["w", "b", "k", "r"]
    assert [gate.out for gate in PLAN.public_weights] == ["r"]
    assert [gate.name for gate in PLAN.online] == [gate.name for gate in PLAN.gates if gate not in PLAN.weights]


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(1 << 60), Fraction(1, 3), Fraction(-5, 7), Fraction(0)])
def test_fractions_round_trip_exactly(scale: Fraction) -> None:
    given = PlanInput(name="x", wire="x", dtype="float32", low=(scale,), high=(scale,))
    assert PlanInput.model_validate_json(given.model_dump_json()).low == (scale,)


@pytest.mark.parametrize("labels", [None, ("a", "b"), (1, 2), (1, "1"), ()])
def test_labels_keep_their_types(labels: tuple | None) -> None:
    out = PlanOutput(name="y", wire="y", shape=(1,), dtype="string", labels=labels)
    again = PlanOutput.model_validate_json(out.model_dump_json()).labels
    assert again == labels and [type(v) for v in again or ()] == [type(v) for v in labels or ()]


def test_wires_know_only_their_fields() -> None:
    with pytest.raises(ValidationError):
        Wire(name="x", shape=(1,), scale=Fraction(1), bits=3, secret=True)
