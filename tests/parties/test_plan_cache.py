"""Compiled models that are found again: equal to what is compiled, of that question alone, and of no use without the
model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.noising import Noising
from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.roles import Roles
from mpc.errors import MpcError
from mpc.prg import Seed
from parties.client.compiling import asked, cached
from parties.client.compiling.asked import ask
from parties.client.compiling.cache import OFF, VARIABLE, PlanCache, usual_cache
from parties.client.compiling.record import read_record, write_record
from tests.support.beside import KINDS, beside, write_weights
from tests.support.parties_commands import mpc_here

WIDE = 1 << 10
"""Weights of WIDE + 1 by WIDE are too many to compile again in passing."""
KEY, OTHER = Seed(bytes(32)), Seed(bytes(31) + b"\1")
CONTENT = os.urandom(10_000_000)
"""Three frames."""


def linear(rows: int, columns: int, first: float = 0.5) -> onnx.ModelProto:
    weights = np.linspace(-1, 1, rows * columns, dtype=np.float32).reshape(rows, columns)
    weights[0, 0] = first
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"], name="product"), helper.make_node("Relu", ["h"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", columns])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tests")
    helper.set_model_props(model, {"mpc.columns.x": json.dumps([f"c{n}" for n in range(rows)]), "said": "by its owner"})
    return model


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    folder = tmp_path / "plans"
    folder.mkdir(mode=0o700)
    return PlanCache(folder, most=1 << 26)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every model counts as a large one; how often one was compiled."""
    compiled: list[int] = []

    def counted(*args: Any, **more: Any) -> Compiled:
        compiled.append(1)
        return compile_model(*args, **more)

    monkeypatch.setattr(cached, "compile_model", counted)
    monkeypatch.setattr(cached, "is_kept", lambda compiled: compiled.guarantee is None)
    return compiled


def compiled_with(cache: PlanCache | None, model: Any, **choices: Any) -> Compiled:
    return cached.compile_cached(model, **choices, opened=lambda: cache, least=0)


def files(cache: PlanCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


def assert_equal(found: Compiled, made: Compiled) -> None:
    assert found.plan == made.plan and found.plan.digest == made.plan.digest
    assert found.weights.keys() == made.weights.keys()
    for name, values in made.weights.items():
        assert found.weights[name].dtype == values.dtype and np.array_equal(found.weights[name], values)
    for name in ("origins", "rough", "undeclared", "notes", "meta", "guarantee", "errors", "messages", "imprecision"):
        assert getattr(found, name) == getattr(made, name), name


def test_a_large_model_is_compiled_once_and_found_as_it_was(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear(WIDE + 1, WIDE)
    made = compiled_with(cache, model)
    assert made.again is None and len(files(cache)) == 1
    monkeypatch.setattr(cached, "compile_model", None)  # whoever calls it fails
    found = compiled_with(cache, model.SerializeToString())
    assert found.again is None
    assert_equal(found, made)


def test_what_is_quick_and_what_took_no_time_is_not_kept(cache: PlanCache) -> None:
    quick = compiled_with(cache, linear(3, 2))
    assert quick.again is not None and not files(cache)
    cached.compile_cached(linear(WIDE + 1, WIDE), opened=lambda: cache, least=1e9)
    assert not files(cache)


def test_what_is_proved_of_noise_is_proved_each_time(cache: PlanCache, large: list[int]) -> None:
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array([0]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    stored = {"x": StoredInput((Fraction(64),), (0.0,), (1.0,))}
    for _ in range(2):
        found = compiled_with(cache, model, stored=stored, noise=Noising({"y": Fraction(1)}))
        assert found.guarantee is not None
    assert len(large) == 2 and not files(cache)


SAMPLES = np.linspace(-1, 1, 12).reshape(4, 3)
QUESTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "ranges": {"ranges": (-1.0, 1.0)},
    "other ranges": {"ranges": (-1.0, 2.0)},
    "ranges by name": {"ranges": {"x": (-1.0, 1.0)}},
    "ranges by column": {"ranges": {"x": (np.full(3, -1.0), np.ones(3))}},
    "roles": {"roles": Roles("ann")},
    "another owner": {"roles": Roles("ann", owners={"x": "bob"})},
    "public weights": {"roles": Roles(public_weights=True)},
    "checked": {"roles": Roles(security="active")},
    "samples": {"samples": SAMPLES},
    "other samples": {"samples": SAMPLES / 2},
    "shapes": {"shapes": {"x": (5, 3)}},
    "stored": {"stored": {"x": StoredInput((Fraction(1, 64),), (-1.0,), (1.0,))}},
    "another scale": {"stored": {"x": StoredInput((Fraction(1, 128),), (-1.0,), (1.0,))}},
}


def test_another_model_and_each_other_question_are_another_file() -> None:
    model = linear(3, 2)
    names = [ask(model, choices) for choices in QUESTIONS.values()] + [ask(linear(3, 2, 0.25), {})]
    found = [(each.name, each.key) for each in names if each is not None]
    assert len(found) == len(QUESTIONS) + 1 == len({name for name, _ in found}) == len({key for _, key in found})
    for choices in QUESTIONS.values():
        again = ask(model, dict(choices))
        assert again is not None and again.name in {name for name, _ in found}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_beside_a_model_are_of_the_question(
    cache: PlanCache, large: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Wherever the model has them, and whatever lies in the working directory."""
    path = tmp_path / "model.onnx"
    path.write_bytes(beside(kind).SerializeToString())
    monkeypatch.chdir(tmp_path)
    for count, value in enumerate((0.5, 0.25), 1):
        write_weights(tmp_path, value)
        found = compiled_with(cache, path, ranges=(-1.0, 1.0))
        assert_equal(found, compile_model(path, (-1.0, 1.0)))
        assert len(large) == len(files(cache)) == count
    assert_equal(compiled_with(cache, path, ranges=(-1.0, 1.0)), found)
    assert len(large) == 2
    assert ask(beside(kind), {}) is None  # who has the model without them cannot say what the file is, or its key


@pytest.mark.parametrize("asked_of", ["nothing", "ranges by column", "public weights", "checked", "samples", "stored"])
def test_what_is_found_answers_the_question(cache: PlanCache, large: list[int], asked_of: str) -> None:
    choices: Mapping[str, Any] = QUESTIONS[asked_of]
    made = compiled_with(cache, linear(3, 2), **choices)
    assert_equal(compiled_with(cache, linear(3, 2), **choices), made)
    assert len(large) == 1
    assert compiled_with(cache, linear(3, 2, 0.25), **choices).weights is not made.weights and len(large) == 2


def test_a_refusal_is_found_out_anew(cache: PlanCache, large: list[int]) -> None:
    for _ in range(2):
        with pytest.raises(MpcError, match="nobody"):
            compiled_with(cache, linear(3, 2), roles=Roles(owners={"nobody": "ann"}))
    assert len(large) == 2 and not files(cache)


def test_a_question_without_a_digest_is_not_looked_up(cache: PlanCache, large: list[int]) -> None:
    for unknown in (object(), np.array([object()]), b"bytes"):
        assert ask(linear(3, 2), {"samples": unknown}) is None
    alike: list[Any] = [1, "1", True, 1.5, Fraction(3, 2), np.float64(1), [1], {"1": 1}, frozenset("1"), None]
    told = [ask(linear(3, 2), {"x": each}) for each in alike]
    assert len({each.name for each in told if each is not None}) == len(alike)


def test_another_compiler_finds_nothing(cache: PlanCache, large: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked.compiler() == asked.compiler() and len(asked.compiler()) == 32
    for version in (b"one", b"another"):
        monkeypatch.setattr(asked, "compiler", lambda version=version: version)
        compiled_with(cache, linear(3, 2))
        compiled_with(cache, linear(3, 2))
    assert len(large) == 2 and len(files(cache)) == 1, "the newest one stays"


def flipped(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


FRAME = (4 << 20) + 16
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "salt": flipped(0),
    "first frame": flipped(40),
    "last byte": lambda data: flipped(len(data) - 1)(data),
    "cut": lambda data: data[:-1],
    "cut behind a frame": lambda data: data[: 32 + FRAME],
    "longer": lambda data: data + bytes(20),
    "frames in another order": lambda data: (
        data[:32] + data[32 + FRAME : 32 + 2 * FRAME] + data[32 : 32 + FRAME] + data[32 + 2 * FRAME :]
    ),
    "empty": lambda data: b"",
    "salt alone": lambda data: data[:32],
    "somebody else's": lambda data: os.urandom(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_as_if_it_were_not_there(cache: PlanCache, damage: str) -> None:
    cache.write("name", KEY, [CONTENT[:7], memoryview(CONTENT)[7:]])
    assert cache.read("name", KEY) == CONTENT
    [path] = files(cache)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert cache.has("name") and cache.read("name", KEY) is None
    cache.write("name", KEY, [CONTENT])
    assert cache.read("name", KEY) == CONTENT and cache.read("name", OTHER) is None and cache.read("other", KEY) is None


def test_a_damaged_file_is_made_again(cache: PlanCache, large: list[int]) -> None:
    made = compiled_with(cache, linear(3, 2))
    [path] = files(cache)
    path.write_bytes(path.read_bytes()[:-1])
    assert_equal(compiled_with(cache, linear(3, 2)), made)
    assert_equal(compiled_with(cache, linear(3, 2)), made)
    assert len(large) == 2


def test_what_is_no_record_is_none() -> None:
    made = compile_model(linear(3, 2))
    whole = b"".join(map(bytes, write_record(made)))
    found = read_record(memoryview(whole))
    assert found is not None and found.plan == made.plan
    for wrong in (b"", whole[:5], whole[:-1], whole + b"\0", whole.replace(b'"wires', b'"wirez'), b"\0" * 8 + whole):
        assert read_record(memoryview(wrong)) is None


def test_files_tell_nothing_to_who_has_not_the_model_and_two_are_never_alike(
    cache: PlanCache, large: list[int]
) -> None:
    model = linear(3, 2)
    made = compiled_with(cache, model)
    [path] = files(cache)
    before = path.read_bytes()
    known = [
        made.plan.canonical[:16],
        b"by its owner",
        b"product",
        *(each.tobytes()[:8] for each in made.weights.values()),
    ]
    assert not any(each in before for each in known)
    question = ask(model, dict.fromkeys(("ranges", "roles", "samples", "shapes", "stored", "states")))
    assert question is not None and path.name.startswith(question.name)
    assert question.name not in question.key.secret.hex() and "secret=" not in repr(question)
    cache.write(question.name, question.key, write_record(made))
    after = path.read_bytes()
    assert len(after) == len(before) and after[:32] != before[:32] and after[32:64] != before[32:64]


def test_only_this_user_reads_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "a" / "plans"))
    cache = usual_cache()
    assert cache is not None
    cache.write("name", KEY, [b"content"])
    [path] = files(cache)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    path.rename(elsewhere := tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    assert cache.read("name", KEY) is None, "no link is followed"
    path.parent.chmod(0o750)
    assert usual_cache() is None
    (tmp_path / "link").symlink_to(tmp_path / "a" / "plans")
    path.parent.chmod(0o700)
    for place in (str(tmp_path / "link"), "relative", OFF, str(elsewhere)):
        monkeypatch.setenv(VARIABLE, place)
        assert usual_cache() is None
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert usual_cache() is not None and (tmp_path / "home" / "mpc" / "plans").is_dir()


def test_the_files_used_least_lately_make_room(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    cache = PlanCache(tmp_path, most=3500)
    for second, name in enumerate("abc"):
        cache.write(name, KEY, [bytes(1000)])
        os.utime(tmp_path / f"{name}.compiled", (second, second))
    assert cache.read("a", KEY) is not None, "used now"
    (abandoned := tmp_path / ".x.compiled.0.tmp").touch()
    (written := tmp_path / ".y.compiled.0.tmp").touch()
    os.utime(abandoned, (0, 0))
    cache.write("d", KEY, [bytes(1000)])
    assert [cache.has(name) for name in "abcd"] == [True, False, True, True]
    assert not abandoned.exists() and written.exists()
    cache.write("e", KEY, [bytes(3000), bytes(1000)])
    assert not cache.has("e") and len(files(cache)) == 4, "one that is too large leaves nothing behind"
    full = PlanCache(tmp_path, most=1 << 62)  # no disk has so much room
    full.write("f", KEY, [b"content"])
    assert not full.has("f")


def test_a_command_finds_what_it_compiled(tmp_path: Path, large: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(linear(3, 2), tmp_path / "model.onnx")
    monkeypatch.setattr(cached.compile_cached, "__kwdefaults__", {"opened": usual_cache, "least": 0})
    words = ("compile", tmp_path / "model.onnx", "--output", tmp_path / "plan.json")
    place = {VARIABLE: str(tmp_path / "plans")}
    made = mpc_here(*words, **place)
    assert made.returncode == 0, made.stderr
    (tmp_path / "plan.json").unlink()
    found = mpc_here(*words, **place)
    assert (found.stdout, found.stderr, found.returncode) == (made.stdout, made.stderr, 0) and len(large) == 1
    assert mpc_here(*words, "--force", **{VARIABLE: OFF}).returncode in (0, 2) and len(large) <= 2
