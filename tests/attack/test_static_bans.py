"""What shipped code may not contain, read from its syntax tree: peers' bytes are never code,
randomness comes from the system, checks are never asserts, and the library knows no network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path for package in ("mpc", "parties") for path in (ROOT / package).rglob("*.py"))
LIBRARY = [path for path in SHIPPED if path.is_relative_to(ROOT / "mpc")]

MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle",
    "random", "numpy.random",
    "mpc.interpret.world", "mpc.interpret.active.world",  # run all parties in one process: for tests and warm-up
}  # fmt: skip
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
ATTRIBUTES = {"np.random", "numpy.random", "yaml.load", "os.system"}
LOADERS = {"np.load", "numpy.load"}
"""Read pickles unless told otherwise in some versions: they have to be told."""
TRUE_KEYWORDS = {"allow_pickle", "shell"}
ALLOWED = {
    "mpc/interpret/active/world.py": {"import of mpc.interpret.world"},
    "mpc/interpret/warmup.py": {"import of mpc.interpret.world", "import of mpc.interpret.active.world"},
    "parties/cli/__init__.py": {"import by a name"},  # of its own commands, from a table in the same file
}
NOT_IN_LIBRARY = {"grpc", "grpc_health", "parties", "socket", "asyncio", "threading", "subprocess", "sqlite3", "time",
                  "datetime", "os", "secrets", "logging", "structlog"}  # fmt: skip
"""No sockets, files or clock, and no entropy of its own: randomness and I/O are arguments."""
LIBRARY_ALLOWED = {
    "mpc/kernel_cache.py": {"import of os", "use of sys.stdout"},  # numba's files, which are code: whose they are
    "mpc/kernels/cores.py": {"import of threading"},  # whose blocks' borders, and results, depend on no secret
    "mpc/local.py": {"import of secrets"},  # a person's own noise, of no protocol: the system's unless it is given
}


def imports(node: ast.AST) -> Iterator[str]:
    """The dotted names that an import statement brings in."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, banned: set[str]) -> str | None:
    """The banned module that this one is, or is a part of."""
    parts = name.split(".")
    return next((m for i in range(1, len(parts) + 1) if (m := ".".join(parts[:i])) in banned), None)


def bans(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what is banned) anywhere in shipped code."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        yield from {(line, f"import of {m}") for name in imports(node) if (m := under(name, MODULES))}
        if isinstance(node, ast.Assert):
            yield line, "assert"
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                yield line, f"call of {node.func.id}"
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "builtins":
                yield line, f"call of builtins.{node.func.attr}"
            off = {k.arg for k in node.keywords if isinstance(k.value, ast.Constant) and k.value.value is False}
            for keyword in node.keywords:
                if keyword.arg in TRUE_KEYWORDS and keyword.arg not in off:
                    yield line, f"keyword {keyword.arg}"
            if ast.unparse(node.func) in LOADERS and "allow_pickle" not in off:
                yield line, f"call of {ast.unparse(node.func)}"
            if isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
                arguments = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if not arguments or under(str(arguments[0]), MODULES):
                    yield line, "import by a name"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ATTRIBUTES:
            yield line, f"use of {ast.unparse(node)}"


def library_bans(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what is banned) in mpc/."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        yield from {(line, f"import of {m}") for name in imports(node) if (m := under(name, NOT_IN_LIBRARY))}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "open"):
            yield line, f"call of {node.func.id}"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
            yield line, f"use of {ast.unparse(node)}"


def parsed(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_code_to_look_at() -> None:
    found = {name_of(path) for path in SHIPPED}
    assert {"mpc/prg.py", "mpc/encoding.py", "mpc/interpret/party.py", "parties/party/ledger/sessions.py"} <= found


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_shipped_code_has_nothing_that_is_banned(path: Path) -> None:
    found = [(line, ban) for line, ban in bans(parsed(path)) if ban not in ALLOWED.get(name_of(path), set())]
    assert not found


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_the_library_knows_no_network_no_file_no_clock(path: Path) -> None:
    found = [
        (line, ban) for line, ban in library_bans(parsed(path)) if ban not in LIBRARY_ALLOWED.get(name_of(path), set())
    ]
    assert not found


@pytest.mark.parametrize(
    ("source", "ban"),
    [
        ("import pickle", "import of pickle"),
        ("import pickle as p", "import of pickle"),
        ("from pickle import loads", "import of pickle"),
        ("def f():\n    import marshal", "import of marshal"),
        ("import random", "import of random"),
        ("from random import randbytes", "import of random"),
        ("import numpy.random", "import of numpy.random"),
        ("from numpy import random", "import of numpy.random"),
        ("from numpy.random import default_rng", "import of numpy.random"),
        ("import numpy as np\nnp.random.bytes(3)", "use of np.random"),
        ("g = np.random", "use of np.random"),
        ("eval('1')", "call of eval"),
        ("exec(data)", "call of exec"),
        ("__import__('os')", "call of __import__"),
        ("builtins.eval(x)", "call of builtins.eval"),
        ("importlib.import_module('pickle')", "import by a name"),
        ("importlib.import_module(name)", "import by a name"),
        ("np.load(f, allow_pickle=True)", "keyword allow_pickle"),
        ("loader(f, allow_pickle=flag)", "keyword allow_pickle"),
        ("np.load(f)", "call of np.load"),
        ("np.load(f, allow_pickle=maybe)", "call of np.load"),
        ("subprocess.run(c, shell=True)", "keyword shell"),
        ("assert x == 1", "assert"),
        ("def f(x):\n    assert x, 'no'", "assert"),
        ("from mpc.interpret.world import World", "import of mpc.interpret.world"),
    ],
)
def test_the_ban_finds_it(source: str, ban: str) -> None:
    assert ban in [what for _, what in bans(ast.parse(source))]


@pytest.mark.parametrize(
    "source",
    [
        "import secrets\nimport os\nos.urandom(32)",
        "from mpc import prg",
        "random_looking = 3\nrandomness = {}",
        "np.load_nothing",
        "loader(f, allow_pickle=False)\nnp.load(f, allow_pickle=False)",
        "evaluate(x)\nplan.eval_later",
        "self.compile(x)",
        "'import pickle'",
        "import importlib\nimportlib.import_module('mpc.gates')",
    ],
)
def test_the_ban_finds_nothing_else(source: str) -> None:
    assert not list(bans(ast.parse(source)))


@pytest.mark.parametrize(
    ("source", "ban"),
    [
        ("import grpc", "import of grpc"),
        ("from grpc import aio", "import of grpc"),
        ("from parties.config.models import load", "import of parties"),
        ("if TYPE_CHECKING:\n    import parties.party.ledger.sessions", "import of parties"),
        ("print(x)", "call of print"),
        ("open('f')", "call of open"),
        ("import os", "import of os"),
        ("import secrets", "import of secrets"),
        ("import time", "import of time"),
        ("sys.stdout.write(x)", "use of sys.stdout"),
    ],
)
def test_the_librarys_ban_finds_it(source: str, ban: str) -> None:
    assert ban in [what for _, what in library_bans(ast.parse(source))]
