"""Does a compiled loop branch on a secret, or read memory at a place that depends on one?  Read off LLVM's own code.

What is loaded from a secret array, and all that is computed from it, is secret; so is an array that something secret
was stored in.  A secret may be added, multiplied, shifted, selected by, and stored.  It may not decide a branch, be
part of an address, be divided, or be handed to a function: the time of these depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from numba import njit, types

_NAME = re.compile(r'%(?:"[^"]+"|[\w.$-]+)')
_CALL = re.compile(r"\bcall\b.*?@([\w.$]+|\"[^\"]+\")\(")
_SLOW = re.compile(r"^(?:udiv|sdiv|urem|srem|fdiv|frem)\b")
_JUMP = re.compile(r"(?:j(?!mp)[a-z]+|b\.[a-z]+)\s+(\.L\w+)$")
_MOVE = re.compile(r"v?mov\w*\s+[%\w]+, [%\w]+$")
_POINTERS = re.compile(r"\bptr (%[\w.$-]+|%\"[^\"]+\")")


@dataclass
class Code:
    """One compiled function.

    Args:
        llvm: its lines in LLVM's language, optimised.
        machine: the lines of its assembly, without comments and notes to the assembler.
    """

    llvm: list[str]
    machine: list[str]

    @property
    def branches(self) -> int:
        """Conditional branches in LLVM's language."""
        return sum(line.startswith(("br i1", "switch")) for line in self.llvm)


def compiled(kernel: Callable[..., object], signature: Sequence[types.Type]) -> Code:
    """Compile a kernel for argument types, without a cache, as `mpc.kernels` does."""
    function = njit(nogil=True, error_model="numpy")(kernel.py_func)  # type: ignore[attr-defined]
    function.compile(tuple(signature))
    [key] = function.signatures
    name = re.compile(rf"\d+{kernel.__name__}B\d+v")
    lines, inside = [], False
    for line in function.inspect_llvm(key).splitlines():
        if line.startswith("define "):
            inside = bool(name.search(line)) and "cpython" not in line and "@cfunc" not in line
        if inside:
            lines.append(line.strip())
            inside = line != "}"
    return Code(lines, list(_machine(function.inspect_asm(key), name)))


def _machine(assembly: str, name: re.Pattern[str]) -> Iterator[str]:
    """The lines between the label of the function and the end that the assembler is told."""
    inside = False
    for line in map(str.strip, assembly.splitlines()):
        if line.startswith("_Z") and line.endswith(":"):
            inside = bool(name.search(line)) and "cpython" not in line
        elif line.startswith(".size"):
            inside = False
        elif inside and line and (not line.startswith((".", "#", "//")) or line.endswith(":")):
            yield line


def branches_for_selects(machine: Sequence[str]) -> list[str]:
    """Jumps over nothing but moves: what a back end makes of a select if it bets on the branch."""
    found = []
    for place, line in enumerate(machine):
        jump = _JUMP.match(line)
        if jump is None:
            continue
        skipped = next((n for n in range(1, 5) if machine[place + n : place + n + 1] == [f"{jump.group(1)}:"]), 0)
        if skipped > 1 and all(_MOVE.match(move) for move in machine[place + 1 : place + skipped]):
            found.append("; ".join(machine[place : place + skipped + 1]))
    return found


@dataclass
class _Taint:
    """What is secret so far: values by name, and memory by the argument or allocation that it belongs to."""

    values: set[str] = field(default_factory=set)
    memory: set[str] = field(default_factory=set)
    roots: dict[str, set[str]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.values) + len(self.memory) + sum(map(len, self.roots.values()))

    def any(self, text: str) -> bool:
        return not self.values.isdisjoint(_NAME.findall(text))

    def roots_of(self, text: str) -> set[str]:
        return {root for name in _NAME.findall(text) for root in self.roots.get(name, ())}


def leaks(code: Code, secret: Sequence[str]) -> list[str]:
    """The lines whose time or place depends on an array argument that is named as secret.

    What is called is not followed: a loop that another kernel has to itself is to be looked at by itself.
    """
    taint = _Taint(memory={f"%arg.{name}.4" for name in secret})
    arguments = set(_NAME.findall(code.llvm[0]))
    if not arguments >= taint.memory:
        raise ValueError(f"no array arguments {sorted(taint.memory - arguments)}")
    taint.roots = {name: {name} for name in arguments if name.endswith(".4")}  # where an array's elements are
    before = -1
    while before != taint.size:
        before = taint.size
        for line in code.llvm[1:]:
            _follow(line, taint)
    return [line for line in code.llvm[1:] if any(_slow(line, taint))]


def _follow(line: str, taint: _Taint) -> None:
    if line.startswith("store "):
        value, _, place = line.removeprefix("store ").partition(", ptr ")
        if taint.any(value):
            taint.memory |= taint.roots_of(place.split(",")[0])
        return
    name, equals, operation = line.partition(" = ")
    if not equals or not name.startswith("%"):
        return
    roots = taint.roots.setdefault(name, set())  # of what is no number: a pointer
    if re.match(r"(tail )?call .*@NRT_\w*alloc", operation) or operation.startswith("alloca"):
        roots.add(name)
        return
    read = taint.roots_of(operation)
    if operation.startswith("load ") and not operation.startswith("load ptr"):
        if read & taint.memory:
            taint.values.add(name)
        return
    roots |= read
    if "@llvm.masked." in operation and read & taint.memory or taint.any(operation):
        taint.values.add(name)


def _slow(line: str, taint: _Taint) -> Iterator[bool]:
    operation = line.partition(" = ")[2] if line.startswith("%") else line
    if operation.startswith(("br i1", "switch")) or _SLOW.match(operation):
        yield taint.any(operation)
    elif operation.startswith(("load ", "store ")):
        yield any(name in taint.values for name in _POINTERS.findall(operation))
    called = _CALL.search(operation)
    if called:
        inside = operation[called.end() :]
        if called.group(1).startswith("llvm.masked."):  # places or masks: everything but what is stored
            yield taint.any(inside.split(", ", 1)[1] if "store" in called.group(1) else inside)
        elif called.group(1).startswith("llvm.mem") or not called.group(1).startswith("llvm."):
            yield taint.any(inside)
