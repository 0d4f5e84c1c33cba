"""What a process's own disk and configuration are called is told to its operator, and to no caller: the errors that
say it are marked where they are made, and nothing is guessed from how a text looks."""

from __future__ import annotations

import ast
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from mpc import errors
from mpc.compiler.compile import Compiled, compile_model
from mpc.entry import EntryId
from mpc.errors import ConfigError, InputError, IntegrityError, MpcError, PlanError, PolicyError, SessionError
from mpc.plan.parse import parse_plan
from parties.client.running.entered import EnteredRuns
from parties.config.load import load
from parties.config.models import PartyConfig, TlsConfig
from parties.disk import private_folder
from parties.party.ledger import file as ledger
from parties.party.ledger.sessions import Ledger
from parties.pb import party_pb2
from parties.process import lock
from parties.trust import issued, pem
from parties.trust.authority import issue, make_ca
from parties.trust.identity import Identity
from parties.trust.revocation import Revocations
from parties.wire.handlers import discreet
from tests.support.parties import COORDINATOR, MODEL_OWNER, OWNER, SEPARATE, InProcess, Script, data, tiny_model

pytestmark = pytest.mark.timeout(90)
PARTIES = Path(__file__).parents[2] / "parties"
MODULES = sorted(path for path in PARTIES.glob("*.py"))
CLASSES = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, MpcError)}
PLACE = re.compile(r"(^|_)(path|folder|existing|file|dir|root|place|database_file|argv)$")
TLS_FILES = {"ca", "certificate", "key", "crl"}


def names_a_place(node: ast.AST) -> bool:
    """Is a path put into a text here?  Names below the data folder (`_shown`) are no paths of this machine."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_shown":
        return False
    if isinstance(node, ast.Name) and PLACE.search(node.id):
        return True
    if isinstance(node, ast.Attribute):
        of_tls = isinstance(node.value, ast.Name | ast.Attribute) and ast.unparse(node.value).endswith("tls")
        return bool(PLACE.search(node.attr)) or (of_tls and node.attr in TLS_FILES)
    return any(names_a_place(child) for child in ast.iter_child_nodes(node))


def tells_a_place(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    texts = [part for argument in given for part in ast.walk(argument) if isinstance(part, ast.FormattedValue)]
    called = [p for a in given for p in ast.walk(a) if isinstance(p, ast.Call) and ast.unparse(p.func) == "str"]
    return any(names_a_place(part) for part in (*texts, *called))


def quotes_the_system(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that are given the whole text of an OSError, which names the file; its `strerror` does not."""
    for handler in ast.walk(tree):
        if isinstance(handler, ast.ExceptHandler) and handler.name and "OSError" in ast.unparse(handler.type):
            whole = {f"{{{handler.name}}}", f"str({handler.name})"}
            for call in ast.walk(handler):
                if isinstance(call, ast.Call) and any(text in ast.unparse(call) for text in whole):
                    yield call


def is_marked(call: ast.Call) -> bool:
    return any(keyword.arg == "local" and ast.unparse(keyword.value) != "False" for keyword in call.keywords)


def unmarked(source: str) -> Iterator[tuple[int, str]]:
    """(line, code) of each error that names a path and is not marked: made here, or by a function that makes it."""
    tree = ast.parse(source)
    quoting = set(quotes_the_system(tree))
    makers = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.returns is not None:
            if ast.unparse(function.returns) in CLASSES:
                made = [c for c in ast.walk(function) if isinstance(c, ast.Call) and ast.unparse(c.func) in CLASSES]
                makers[function.name] = all(
                    any(k.arg == "local" and ast.unparse(k.value) == "True" for k in call.keywords) for call in made
                )
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and (name := ast.unparse(call.func)) in CLASSES | set(makers):
            if (tells_a_place(call) or call in quoting) and not is_marked(call) and not makers.get(name, False):
                yield call.lineno, ast.unparse(call)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_errors_that_name_a_path_are_marked(path: Path) -> None:
    """Every place in `parties` that formats a path into an error says so, whether it can cross gRPC today or not."""
    assert list(unmarked(path.read_text())) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('raise ConfigError(f"{path} is damaged")', True),
        ('raise ConfigError(f"{path} is damaged", local=True)', False),
        ('raise IntegrityError("gone", cause=f"see {self._folder / NAME}")', True),
        ('raise SessionError("no", remedy="ls " + str(config.data_dir))', True),
        ('raise ConfigError(f"key {tls.key} is not readable")', True),
        ('try:\n    f()\nexcept OSError as e:\n    raise ConfigError(f"no: {e}")', True),
        ('try:\n    f()\nexcept OSError as e:\n    raise ConfigError("no", cause=str(e))', True),
        ('try:\n    f()\nexcept OSError as e:\n    raise ConfigError(f"no: {e.strerror}")', False),
        ('raise ConfigError(f"the file {_shown(path)} is missing")', False),
        ('raise InputError(f"the input wire {wire} was submitted before")', False),
        ('def _bad(what) -> ConfigError:\n    return ConfigError(what)\nraise _bad(f"{folder} is gone")', True),
        ('def _bad(what) -> ConfigError:\n    return ConfigError(what, local=True)\nraise _bad(f"{folder}")', False),
    ],
)
def test_the_search_finds_what_it_should(code: str, found: bool) -> None:
    assert bool(list(unmarked(code))) is found


# --- what the marked ones are


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    folder = tmp_path_factory.mktemp("authority")
    make_ca(folder / "ca", "test-ca")
    return issue(folder / "ca", "alice", folder / "alice")


def damaged_ledger(folder: Path, tls: TlsConfig) -> None:
    Ledger.open(folder).close()
    (folder / ledger.DATABASE).write_bytes(b"no database at all")
    Ledger.open(folder)


def newer_ledger(folder: Path, tls: TlsConfig) -> None:
    Ledger.open(folder).close()
    database = sqlite3.connect(folder / ledger.DATABASE)
    database.execute("PRAGMA user_version = 99")
    database.close()
    Ledger.open(folder)


def restored_ledger(folder: Path, tls: TlsConfig) -> None:
    Ledger.open(folder).close()
    (folder / ledger.EPOCH).write_text("garbage")
    Ledger.open(folder)


def ledger_in_use(folder: Path, tls: TlsConfig) -> None:
    with Ledger.open(folder):
        Ledger.open(folder)


def blocked_folder(folder: Path, tls: TlsConfig) -> None:
    (folder / "file").touch()
    private_folder(folder / "file" / "inner")


def list_of_nothing(folder: Path, tls: TlsConfig) -> None:
    (folder / "crl.pem").write_text("nothing")
    Revocations(folder / "crl.pem", [])


def exchanged_key(folder: Path, tls: TlsConfig) -> None:
    other = issue(tls.key.parents[1] / "ca", "bob", folder / "bob")
    Identity.load(tls.model_copy(update={"key": other.key}))


def damaged_list(folder: Path, tls: TlsConfig) -> None:
    (folder / issued.ISSUED).write_text("no json\n")
    issued.read(folder)


def misspelt_config(folder: Path, tls: TlsConfig) -> None:
    (folder / "config.toml").write_text("naem = 1\n")
    load(PartyConfig, folder / "config.toml", environ={})


def broken_config(folder: Path, tls: TlsConfig) -> None:
    (folder / "config.toml").write_text("= = =")
    load(PartyConfig, folder / "config.toml", environ={})


DRIVEN: list[Callable[[Path, TlsConfig], object]] = [
    damaged_ledger,
    newer_ledger,
    restored_ledger,
    ledger_in_use,
    blocked_folder,
    list_of_nothing,
    exchanged_key,
    damaged_list,
    misspelt_config,
    broken_config,
    lambda folder, tls: load(PartyConfig, folder / "config.toml", environ={}),
    lambda folder, tls: pem.read(folder / "none.pem"),
    lambda folder, tls: pem.read(folder),
    lambda folder, tls: pem.certificates(b"", folder / "empty.pem"),
    lambda folder, tls: Identity.load(tls, "bob"),
    lambda folder, tls: EnteredRuns(folder / "gone" / "list").claim(bytes(32), EntryId(1)),
    lambda folder, tls: make_ca(tls.key.parents[1] / "ca", "again"),
    lambda folder, tls: [lock.take(folder), lock.take(folder)],
]


@pytest.mark.parametrize("fails", DRIVEN, ids=lambda each: each.__name__)
def test_errors_of_disk_and_config_stay_at_home(
    fails: Callable[[Path, TlsConfig], object], tmp_path: Path, tls: TlsConfig
) -> None:
    """Their operator reads the path; what a caller is told has the class, and neither the path nor a guess at it."""
    with pytest.raises(MpcError) as caught:
        fails(tmp_path, tls)
    error = caught.value
    assert str(tmp_path) in str(error) or str(tls.key.parents[1]) in str(error)
    assert error.local and error.again().local
    told = discreet(error)
    assert type(told) is type(error) and "its own disk or configuration" in told.what and not told.local
    assert os.sep not in str(told) and told.remedy


@pytest.mark.parametrize("kind", [ConfigError, IntegrityError, SessionError, PlanError])
def test_how_a_text_looks_decides_nothing(kind: type[MpcError]) -> None:
    """Names in models look like paths, and paths of this machine may not."""
    for text in ("no input '/x'", "the wire /encoder/Relu_output_0 is missing", "the ledger in /srv/mpc is gone"):
        error = kind(text, cause="/a", remedy="~/b")
        assert discreet(error) is error
        assert text not in str(discreet(kind(text, local=True)))


# --- through gRPC


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


def renamed(content: Any, old: str, new: str) -> Any:
    """Replace one text of a JSON value, wherever it is a value."""
    if isinstance(content, dict):
        return {key: renamed(value, old, new) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(value, old, new) for value in content]
    return new if content == old else content


def dump(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def slashed(folder: Path) -> Compiled:
    """The tiny model as exporters name things: values, and here wires too, begin with a slash."""
    model = onnx.load(tiny_model(folder / "tiny.onnx"))
    for node in model.graph.node:
        node.name = f"/encoder/{node.name}"
        for names in (node.input, node.output):
            names[:] = [f"/{name}" for name in names]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = f"/{value.name}"
    compiled = compile_model(model, {"/x": (-4.0, 4.0)}, SEPARATE)
    content = renamed(json.loads(compiled.plan.canonical), compiled.plan.inputs[0].wire, WIRE)
    return replace(compiled, plan=parse_plan(dump(content)))


WIRE = "/encoder/x"


def test_an_input_that_looks_like_a_path_gets_its_true_error(cluster: InProcess, tmp_path: Path) -> None:
    """Of every class that names a value of the model, the party's own words arrive."""
    compiled = slashed(tmp_path)
    script = Script(cluster, compiled).ready()
    assert compiled.plan.inputs[0].name == "/x" and script.input_wire == WIRE
    with pytest.raises(SessionError, match=f"the input wire {WIRE} was submitted before its mask was asked for"):
        script.submit(0, 1, WIRE, bytes(24), OWNER)
    with pytest.raises(PolicyError, match=f"'{MODEL_OWNER}' does not own the input wire {WIRE}"):
        script.submit(0, 1, WIRE, bytes(24), MODEL_OWNER)
    script.enter(1, script.integers(data(1)), OWNER)
    with pytest.raises(InputError, match=f"the input wire {WIRE} was submitted before"):
        script.submit(0, 1, WIRE, bytes(24), OWNER)
    content = json.loads(compiled.plan.canonical)
    content["inputs"][0]["high"] = ["-5"]
    with pytest.raises(PlanError, match="input '/x': the declared range is empty"):
        cluster.party(0, COORDINATOR).Propose(party_pb2.ProposeRequest(plan=dump(content)))
    content = json.loads(compiled.plan.canonical)
    next(each for each in content["wires"] if each["name"] == WIRE)["name"] = "/other"
    with pytest.raises(PlanError, match=f"names the wire '{WIRE}'"):
        cluster.party(0, COORDINATOR).Propose(party_pb2.ProposeRequest(plan=dump(content)))


def test_a_marked_error_of_any_class_is_withheld_through_grpc(
    cluster: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its operator is told of the disk, the caller is not; the class, and so the exit code, is the right one."""
    for kind in (ConfigError, IntegrityError):

        def fails(*_: object, kind: type[MpcError] = kind) -> None:
            raise kind(f"the stock in {tmp_path} is gone", remedy=f"ls {tmp_path}", local=True)

        with monkeypatch.context() as patched:
            patched.setattr(type(cluster.nodes[0]), "propose", fails)
            with pytest.raises(kind, match="party-0: a fault of its own disk or configuration") as caught:
                cluster.party(0, COORDINATOR).Propose(party_pb2.ProposeRequest(plan=cluster.compiled().plan.canonical))
        assert str(tmp_path) not in str(caught.value)
