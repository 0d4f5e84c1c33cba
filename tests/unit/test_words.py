"""One word for one thing, and documents that name what is there: text is compared with text, nothing runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

import mpc.errors
import parties
from parties.cli import cli
from parties.config import models
from parties.party import life
from parties.party.ledger import states
from parties.pb import collect_pb2, data_pb2, party_pb2, provider_pb2

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture"
GENERATED = {ROOT / "docs" / "onnx-node-tests.md"}
DOCUMENTS = sorted(
    {ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "THREATS", "CONTRIBUTING")}
    | {*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")}
    - GENERATED
)
FOLDERS = ("mpc", "parties", "tests", "docs", "protos", "scripts", "examples", "benchmarks")
MOST_README_LINES = 120
SCRIPTS = [path for folder in ("benchmarks", "examples", "scripts") for path in (ROOT / folder).rglob("*.py")]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def page(name: str) -> str:
    return (ARCHITECTURE / f"{name}.md").read_text()


@cache
def tree_of(path: Path | str) -> ast.Module:
    """What a module says, by its path below the root; several tests look at all of them."""
    return ast.parse((ROOT / path).read_text())


def rows(text: str) -> list[list[str]]:
    """The cells of a page's tables, without heads."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    heads = {number - 1 for number, row in enumerate(found) if set("".join(row)) <= {"-"}}
    return [row for number, row in enumerate(found) if number not in heads and set("".join(row)) - {"-"}]


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


@cache
def modules() -> tuple[Path, ...]:
    """Every module of ours, as a path below the root; generated code is not ours."""
    every = [path for package in ("mpc", "parties") for path in (ROOT / package).rglob("*.py")]
    return tuple(sorted(path.relative_to(ROOT) for path in every if "pb" not in path.parts))


# ------------------------------------------------------------------------------------ words


def test_the_glossary_has_twenty_eight_nouns_each_once() -> None:
    nouns = [row[0].strip("*") for row in rows(page("glossary").split("\n## ")[0])]
    assert len(nouns) == len(set(nouns)) == 28


def replaced() -> list[tuple[str, str]]:
    """(word that we do not use, the word for it), as the glossary has them."""
    table = rows(section(page("glossary"), "Words that we do not use"))
    return [(word.strip(), row[1]) for row in table for word in row[0].split(",")]


def test_documents_use_the_words_of_the_glossary() -> None:
    """Words that are wrong wherever they stand; "server" and "worker" have other meanings, and are for names only."""
    wrong = {word: right for word, right in replaced() if word in ("decrypt", "ciphertext") or " " in word}
    wrong |= {f"{kind} node": "party" for kind in ("worker", "server", "party")}
    assert {"encrypted inference", "compute node", "trusted third party"} <= wrong.keys()
    found = []
    for document in DOCUMENTS:
        if "benchmarks" not in document.parts:  # these speak of other systems
            text = document.read_text().split("## Words that we do not use")[0].lower()
            found += [(shown(document), word, right) for word, right in wrong.items() if re.search(rf"\b{word}", text)]
    assert not found


def public_names() -> Iterator[str]:
    """What users and operators write: of the SDK, errors, commands, options, settings, and of the wire format."""
    yield from parties.__all__
    yield from (name for name in vars(mpc.errors) if not name.startswith("_"))
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield name
        yield from (option for parameter in command.params for option in parameter.opts)
    for kind in vars(models).values():
        if isinstance(kind, type) and issubclass(kind, models.BaseModel):
            yield from (kind.__name__, *kind.model_fields)
    for file in (collect_pb2.DESCRIPTOR, data_pb2.DESCRIPTOR, party_pb2.DESCRIPTOR, provider_pb2.DESCRIPTOR):
        for message in file.message_types_by_name.values():
            yield from (message.name, *(field.name for field in message.fields))
        for service in file.services_by_name.values():
            yield from (service.name, *(method.name for method in service.methods))


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def test_public_names_use_the_words_of_the_glossary() -> None:
    names = set(public_names())
    assert {"Cluster", "PolicyError", "--owner", "max_sessions", "DealRequest", "session_id"} <= names
    wrong = {word for word, _ in replaced() if " " not in word} | {"node", "encrypted", "encrypt"}
    assert {"server", "worker", "job", "dealer", "triple"} <= wrong
    assert not {name: found for name in names if (found := words_of(name) & wrong)}


def test_commands_speak_of_private_inference() -> None:
    context = click.Context(cli)
    helps = {name: cli.get_command(context, name).get_help(context) for name in cli.list_commands(context)}  # type: ignore[union-attr]
    assert not [name for name, text in helps.items() if re.search(r"\b(en|de)crypt", text.lower())]
    assert "private inference" in helps["run"]


# ------------------------------------------------------------------------------- docstrings

BANNED_FIRST = ("Of", "What", "Who", "Whose", "See")
PLAIN = ("mpc", "parties")
"""Packages whose docstrings begin with none of these, nor with "The same"."""


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, docstring) of each function and class."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text


def test_docstrings_begin_with_a_verb_or_their_subject() -> None:
    done = [path for path in modules() if path.parts[0] in PLAIN]
    found = [(path, line, text) for path in done for line, text in docstrings(path)]
    assert len(found) > 1200
    odd = re.compile(rf"({'|'.join(BANNED_FIRST)})\b|The same\b")
    assert not [f"{path}:{line} {text.splitlines()[0]}" for path, line, text in found if odd.match(text)]


SERVICES = {
    "parties/party/services.py parties/party/peer_service.py": party_pb2,
    "parties/party/vault/service.py": data_pb2,
    "parties/party/collecting/service.py": collect_pb2,
    "parties/provider/service.py": provider_pb2,
}


def test_every_call_that_a_daemon_answers_says_what_it_does() -> None:
    for place, wire in SERVICES.items():
        calls = {name for service in wire.DESCRIPTOR.services_by_name.values() for name in service.methods_by_name}
        nodes = [node for path in place.split() for node in ast.walk(tree_of(path))]
        methods = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name in calls]
        assert {node.name for node in methods} == calls
        assert not [f"{place}:{node.lineno} {node.name}" for node in methods if not ast.get_docstring(node)]


SPOKEN = tuple(
    f"parties/{name}" for name in ("agreed", "bench", "cli", "client", "config", "local", "process", "trust", "wire")
)
"""Packages in which each public function has a docstring that begins with one of these verbs in its base form."""
VERBS = frozenset(
    """
    Accept Add Allocate Allow Answer Append Ask Assign Begin Call Carry Check Choose Close Collect Compile Complete
    Compute Connect Count Cut Decode Describe Dial Digest Draw Encode End Enter Explain Find Follow Forbid Give Hang
    Have Hold Issue Judge Keep Let List Load Look Make Mask Measure Merge Name Note Open Pair Parse Pass Print
    Probe Put Raise Reach Read Refuse Remove Require Resolve Return Run Say Send Serve Set Show Sign Split Start Stop
    Take Tell Train Turn Undo Wait Wake Watch Word Write Yield
    """.split()
)
"""All verbs that docstrings begin with there; a further one is added here, if it is one."""
COMPUTING = frozenset(
    """
    Apply Cast Change Classify Compare Convolve Copy Deal Declare Derive Divide Do Drop Evaluate Expand Fold Gather
    Import Join Lay Leave Map Move Multiply Quantise Recombine Reduce Register Regress Repeat Reshape Reveal Round Scan
    Share Subtract Sum Unroll Use View Walk
    """.split()
)
"""Further ones, of `mpc`."""
AS_A_NOUN = ("of", "is", "are", "was", "were", "which")
"""Behind a word that may be a verb or a noun, these make it a noun: "Name of the owner"."""
NOTHING_NAMED = ("it", "its", "them", "they", "their")
"""Behind a docstring's verb these stand for something that it has not named yet: "Wait for it" after "Wait"."""
NO_BEGINNING = (
    "The",
    "It",
    "Its",
    "There",
    "They",
    "Their",
    "Those",
    "These",
    "This",
    "That",
    "Why",
    "How",
    "When",
    "Which",
    "Where",
)


def public_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Those of a module and of its public classes, without properties."""
    for child in ast.iter_child_nodes(node):
        name = getattr(child, "name", "_")
        if isinstance(child, ast.ClassDef) and not name.startswith("_"):
            yield from public_functions(child)
        if isinstance(child, ast.FunctionDef) and not name.startswith("_"):
            if not any("property" in ast.unparse(decorator) for decorator in child.decorator_list):
                yield child


def fault(text: str, verbs: frozenset[str] = VERBS) -> str | None:
    """What is wrong with the first words of a function's docstring; None if nothing is."""
    first, second = [*(word.rstrip(",;:.") for word in text.split()), ""][:2]
    if first not in verbs:
        return f"{first!r} is no verb of the list"
    if second in AS_A_NOUN:
        return f"{first!r} is a noun before {second!r}"
    return f"{second!r} stands for nothing yet" if second in NOTHING_NAMED else None


def test_first_words_are_told_apart() -> None:
    for text in (
        "Return the sum.",
        "Name the owner of an input.",
        "Wait for the answer.",
        "Close; safe to call twice.",
    ):
        assert fault(text) is None, text
    for text in ("Name of the owner.", "Bytes of a wire.", "The sum.", "Close it.", "Exactly one.", "returns the sum"):
        assert fault(text) is not None, text


def asks(text: str) -> bool:
    """Is the first sentence a question?"""
    return re.match(r"[^.?]*\?", text.splitlines()[0]) is not None


def test_public_functions_say_what_they_do() -> None:
    odd, seen = [], 0
    for path in (path for path in modules() if str(path.parent) in SPOKEN):
        for function in public_functions(tree_of(path)):
            seen += 1
            text = ast.get_docstring(function)
            wrong = "it has no docstring" if text is None else None if asks(text) else fault(text)
            odd += [f"{path}:{function.lineno} {function.name}: {wrong}"] if wrong else []
    assert seen > 280 and not odd


def test_public_functions_of_the_library_say_what_they_do() -> None:
    """A handler, a rule or a reading may leave it to its registry or base: what is said begins with a verb."""
    odd, seen = [], 0
    for path in (path for path in modules() if path.parts[0] == "mpc"):
        for function in public_functions(tree_of(path)):
            text = ast.get_docstring(function)
            if text is not None and not asks(text):
                seen += 1
                wrong = fault(text, VERBS | COMPUTING)
                odd += [f"{path}:{function.lineno} {function.name}: {wrong}"] if wrong else []
    assert seen > 500 and not odd


def test_modules_say_what_they_do() -> None:
    """Their first word is none that asks, and none that needs another sentence before it."""
    asking = re.compile(rf"({'|'.join((*BANNED_FIRST, 'Why', 'How', 'When', 'Which', 'Where', 'The same'))})\b")
    texts = {path: ast.get_docstring(tree_of(path)) or "" for path in modules()}
    assert len(texts) > 350
    assert not [f"{path} {text.splitlines()[0]}" for path, text in texts.items() if asking.match(text)]


def test_docstrings_begin_with_what_they_are_about() -> None:
    """No docstring of these packages begins with an article, a pronoun or a question: of modules and classes too."""
    spoken = [path for path in modules() if str(path.parent) in SPOKEN]
    found = [(path, line, text) for path in spoken for line, text in docstrings(path)]
    found += [(path, 1, ast.get_docstring(tree_of(path)) or "The") for path in spoken]
    assert len(found) > 480
    odd = re.compile(rf"({'|'.join((*NO_BEGINNING, *BANNED_FIRST))})\b")
    assert not [f"{path}:{line} {text.splitlines()[0]}" for path, line, text in found if odd.match(text)]


def test_only_what_answers_yes_or_no_asks() -> None:
    """A docstring that is a question belongs to a function that returns a bool; others say what they do."""
    odd = []
    for path in (path for path in modules() if path.parts[0] in PLAIN):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
                if asks(text) and (node.returns is None or ast.unparse(node.returns) != "bool"):
                    odd.append(f"{path}:{node.lineno} {text.splitlines()[0]}")
    assert not odd


# ------------------------------------------------------------------------------------ paths


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_README_LINES


def test_links_lead_somewhere() -> None:
    broken = []
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
            place, _, fragment = target.partition("#")
            path = (document.parent / place) if place else document
            there = re.match(r"https?:", target) or (path.exists() and (not fragment or fragment in anchors(path)))
            broken += [] if there else [(shown(document), target)]
    assert not broken


def anchors(path: Path) -> set[str]:
    """Fragments of a document's headings, as they are made of them."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def named_paths(text: str) -> Iterator[str]:
    """Files and folders of this project that a text names."""
    for token in re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w/?", text):
        if not token.startswith("parties/pb"):  # generated
            yield token
    yield from (token for token in re.findall(r"`([\w/-]+\.py)`", text))


def is_there(name: str) -> bool:
    """Is that a file or folder of the project, or the end of a module's path?"""
    if "/" in name and name.split("/")[0] in FOLDERS:
        return (ROOT / name).exists()
    return any(f"/{path}".endswith(f"/{name}") for path in map(str, (*modules(), *SCRIPTS)))


def test_paths_and_names_of_modules_in_documents_are_there() -> None:
    lost = []
    for document in DOCUMENTS:
        text = document.read_text()
        dotted = set(re.findall(r"`((?:mpc|parties)(?:\.\w+)+)(?:\(\))?`", text))
        missing = {name for name in named_paths(text) if not is_there(name)}
        missing |= {
            name
            for name in dotted
            if not name.startswith(("mpc.range", "mpc.columns", "mpc.weights", "mpc.quantised")) and not has_name(name)
        }
        lost += [(shown(document), name) for name in sorted(missing)]
    assert not lost


def has_name(dotted: str) -> bool:
    """Is it a module, or a name in one?"""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.is_file():
            return count == len(parts) or all(re.search(rf"\b{name}\b", file.read_text()) for name in parts[count:])
    return False


def test_decisions_are_numbered_indexed_and_whole() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(folder.glob("[0-9]*.md"))
    index = [row[1] for row in rows((folder / "README.md").read_text())]
    assert index == [f"[{path.read_text().splitlines()[0].split(': ', 1)[1]}]({path.name})" for path in pages]
    for number, path in enumerate(pages, 1):
        text = path.read_text()
        assert text.startswith(f"# {number:03}: ") and path.name.startswith(f"{number:03}-")
        assert all(f"**{part}.**" in text for part in ("Context", "Choice", "Refused", "Number")), path.name


def test_stages_of_the_compiler_are_its_modules() -> None:
    for row in rows(page("compiling")):
        for name in re.findall(r"`([\w/.]+)`", row[2]):
            path = ROOT / name if name.startswith("mpc/") else ROOT / "mpc" / "compiler" / name
            assert path.exists() or path.with_suffix(".py").exists(), name


def test_the_layout_names_every_module_where_it_is() -> None:
    """A new module needs its word in the table of ARCHITECTURE.md, in the row of its folder."""
    layout = {}
    for folder, text in rows(section((ROOT / "ARCHITECTURE.md").read_text(), "Layout")):
        layout[folder.strip("*`")] = re.findall(r"`(\w+)`", text)
    expected: dict[str, set[str]] = {}
    for path in modules():
        if path.stem not in ("__init__", "__main__"):
            expected.setdefault(f"{path.parent}/", set()).add(path.stem)
    assert {folder: set(names) for folder, names in layout.items()} == expected
    assert all(len(names) == len(set(names)) for names in layout.values())


# ------------------------------------------------------------------- lives, threads and locks


def arrows(title: str) -> dict[str, set[str]]:
    """state -> the states that follow, in the diagram of that section; "[*]" is the beginning, the end is left out."""
    found: dict[str, set[str]] = {}
    for one, other in re.findall(r"^ *(\S+) --> ([^\s:]+)", section(page("lives"), title), re.MULTILINE):
        found.setdefault(one, set())
        if other != "[*]":
            found[one].add(other)
            found.setdefault(other, set())
    return found


def test_diagrams_of_sessions_and_runs_are_the_codes_own() -> None:
    memory = {state: set(following) for state, following in life.TRANSITIONS.items()}
    assert arrows("A session in a party's memory") == memory | {"[*]": {"opening"}}
    runs = {str(state or "[*]"): {str(each) for each in following} for state, following in states.TRANSITIONS.items()}
    assert arrows("A run in the ledger") == runs
    assert arrows("A session in the ledger").keys() == {"[*]", *map(str, states.SessionState)}


LOCKS = ("Lock", "RLock", "Condition")


def locks(path: Path) -> Iterator[str]:
    """`Class.attribute` of each lock that a module makes, or its name where it is the module's."""

    def made(node: ast.AST) -> bool:
        """Does this make locks?  threading.Lock named in it is enough: some are made by a defaultdict."""
        return any(
            isinstance(each, ast.Attribute)
            and isinstance(each.value, ast.Name)
            and each.value.id == "threading"
            and each.attr in LOCKS
            for each in ast.walk(node)
        )

    def walk(node: ast.AST, inside: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Assign | ast.AnnAssign):
                targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                value = child.value if child.value is not None else child
                if made(value) or (isinstance(child, ast.AnnAssign) and made(child.annotation)):
                    for target in targets:
                        name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
                        yield f"{inside}.{name}" if inside else name
            else:
                yield from walk(child, child.name if isinstance(child, ast.ClassDef) else inside)

    yield from walk(tree_of(path), "")


def test_every_lock_is_on_the_page_of_locks() -> None:
    """Which lock guards what, and in which order they are taken, is written in one place: a new lock belongs there."""
    text = section(page("threads"), "Which locks there are")
    places = {name: path for path in modules() for name in locks(path)}
    assert len(places) > 20
    missing = [
        f"{name} in {path}" for name, path in places.items() if f"`{name}`" not in text or f"`{path}`" not in text
    ]
    assert not missing
    ours = set(re.findall(r"`(_?[A-Z]\w*\.\w+)`", text))
    assert not ours - set(places)


def thread_names() -> Iterator[str]:
    """How the names of threads begin, as modules give them."""
    for path in modules():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Thread", "ThreadPoolExecutor"):
                for keyword in node.keywords:
                    if keyword.arg in ("name", "thread_name_prefix"):
                        value = keyword.value.values[0] if isinstance(keyword.value, ast.JoinedStr) else keyword.value
                        yield ast.literal_eval(value)


def test_every_named_thread_is_on_the_page_of_threads() -> None:
    text = section(page("threads"), "Which threads there are")
    names = set(thread_names())
    assert {"online", "deal", "alarms"} <= names
    assert not [name for name in names if f"`{name}" not in text]
