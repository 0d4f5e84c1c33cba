"""Runs onnx's own node tests in the in-memory world; writes their table and the page about it.

.venv/bin/python scripts/onnx_nodes.py                    all of them; writes table and page
.venv/bin/python scripts/onnx_nodes.py --only 'test_relu*'  some of them; prints what came of each
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.onnx_nodes.harness import (
    LEAST_MARGIN,
    MARGIN,
    PARTIES,
    STRUCTURE,
    TOLERANCE,
    Outcome,
    node_tests,
    read_table,
    run_test,
    write_table,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "onnx-node-tests.md"
STATUSES = ("passed", "refused", "failed")
LONGEST = 100
"""Seconds for one test; it has failed then."""
MOST_MEMORY = 8 << 30
"""Bytes of address space of one job: a test that needs more fails, and not the machine."""


# ------------------------------------------------------------------------------- running


def run_all(names: list[str], jobs: int) -> Iterator[Outcome]:
    """Outcomes in the order of their names."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_start) as pool:
        yield from pool.map(_outcome, names, chunksize=4)


def _start() -> None:
    node_tests()  # once a job, and not on the first test's time
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, hard))
    signal.signal(signal.SIGALRM, _too_long)


def _too_long(*_: object) -> NoReturn:
    raise TimeoutError(f"it took longer than {LONGEST} seconds")


def _outcome(name: str) -> Outcome:
    signal.alarm(LONGEST)
    try:
        return run_test(node_tests()[name])
    finally:
        signal.alarm(0)


# ------------------------------------------------------------------------------ the page


def page(version: str, outcomes: Iterable[Outcome]) -> str:
    """The human page: totals, operators, reasons."""
    rows = list(outcomes)
    by_operator: dict[str, list[Outcome]] = {}
    for row in sorted(rows, key=lambda row: (row.operator.rpartition(".")[::2], row.name)):
        by_operator.setdefault(row.operator, []).append(row)
    parts = [_preface(version), _totals(rows), _operators(by_operator), _reasons(rows)]
    return "\n".join(part.strip() + "\n" for part in parts)


def _preface(version: str) -> str:
    return f"""
# ONNX's own node tests

What `mpc` makes of the backend tests of onnx {version}, each a model of one operator with inputs and expected outputs.
Written by `scripts/onnx_nodes.py`, as is the table of all tests, `tests/onnx_nodes/table.json`; do not edit. The test
suite repeats a sample of them (all with `MPC_FULL=1`), and runs a dozen between real processes.

- **passed**: compiled, run with {PARTIES} parties in one process, and every output has the expected shape, type and
  values. Floats may be off by {TOLERANCE:g} of the largest expected magnitude, or {TOLERANCE:g} where that is below 1;
  integers, bools and strings must be equal. This is wider than what onnx asks of a backend in the clear (0.1 %,
  element by element): values here have a fixed number of fractional bits.
- **refused**: the compiler or the check of inputs says no, with the reason. Nothing is computed.
- **failed**: anything else: a wrong result, or an error that does not say what is wrong with the model.

Tests named `*_expanded` run an operator's function body, node by node, and count under that operator.

**What was secret.** First all data inputs: all floating-point tensors, and integers and bools where the operator
computes on them, that is: the first input, and inputs of the same type variable as the first input or output in the
operator's schema. Everything else - shapes, axes, indices, pads, and also labels of a loss or an integer exponent -
became a constant of the model, as did {", ".join(sorted(STRUCTURE))}.
If that was refused, fewer were secret and the rest constants too: without the last data input, without the last two,
down to the first alone, or only those of the output's type if they are several; the larger choice first. So "passed"
does not mean that every input of an operator may be secret: the table below says which were. Nothing passes with no
secret input. If every choice was refused, the reason is the last one's.

**Ranges** were declared from each test's own data, {100 * MARGIN:g} % of their spread wider at both ends and at least
{LEAST_MARGIN:g}. The margin does not cross zero, nor -1 or 1 for Acos, Acosh, Asin and Atanh: where it would, it ends
halfway. It ends with the input's integer type. A range of 0:1 is declared for bools. Real data need their own ranges,
and wider ranges cost precision.
"""


def _totals(rows: list[Outcome]) -> str:
    kinds = {
        "operator tests": [row for row in rows if "_expanded" not in row.name],
        "expanded functions": [row for row in rows if "_expanded" in row.name],
        "all": rows,
    }
    lines = [f"| {kind} | {_counts(of)} | {len(of)} |" for kind, of in kinds.items()]
    passing = {row.operator for row in rows if row.status == "passed"}
    known = {row.operator for row in rows}
    return f"""
## Totals

| | passed | refused | failed | tests |
|---|---|---|---|---|
{chr(10).join(lines)}

{len(passing)} of {len(known)} operators pass at least one test.
"""


def _counts(rows: list[Outcome]) -> str:
    count = Counter(row.status for row in rows)
    return " | ".join(str(count[status] or "") for status in STATUSES)


def _operators(by_operator: dict[str, list[Outcome]]) -> str:
    lines = []
    for operator, rows in by_operator.items():
        secret = dict.fromkeys(", ".join(row.secret) for row in rows if row.status == "passed")
        reasons = Counter(general_reason(row) for row in rows if row.status != "passed").most_common()
        why = "; ".join(
            f"{reason} ({count})" if blamed == _short(operator) else f"{blamed}: {reason} ({count})"
            for (blamed, reason), count in reasons
        )
        lines.append(f"| {operator} | {_counts(rows)} | {'; '.join(secret)} | {_cell(why)} |")
    return f"""
## By operator

Secret are the inputs that were secret in tests that passed, by their names there; one set for each `;`.

| operator | passed | refused | failed | secret | reasons |
|---|---|---|---|---|---|
{chr(10).join(lines)}
"""


def _reasons(rows: list[Outcome]) -> str:
    found: dict[str, Counter[str]] = {}
    for row in rows:
        if row.status != "passed":
            blamed, reason = general_reason(row)
            found.setdefault(reason, Counter())[blamed] += 1
    lines = []
    for reason, operators in sorted(found.items(), key=lambda item: (-item[1].total(), item[0])):
        names = ", ".join(f"{name} ({count})" if count > 1 else name for name, count in sorted(operators.items()))
        lines.append(f"| {operators.total()} | {_cell(reason)} | {names} |")
    return f"""
## By reason

With the operator that was refused, which in an expanded function is one inside, and in how many tests.

| tests | reason | operators |
|---|---|---|
{chr(10).join(lines)}
"""


def general_reason(row: Outcome) -> tuple[str, str]:
    """(operator that is to blame, reason without this test's names and numbers), so that like ones fall together."""
    node = re.match(r"node '.*?' \((.*?)\): ", row.reason)
    reason = re.sub(r"'[^']*'", "'..'", row.reason[node.end() if node else 0 :])
    return node[1] if node else _short(row.operator), re.sub(r"(?<![\w.])-?\d[\d.]*(e[+-]?\d+)?", "N", reason)


def _short(operator: str) -> str:
    return operator.rpartition(".")[2]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# ----------------------------------------------------------------------------- the script


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", metavar="PATTERN", help="names of tests, as a shell pattern; writes nothing")
    options = parser.parse_args()
    started = time.perf_counter()
    outcomes = []
    for outcome in run_all([name for name in node_tests() if fnmatchcase(name, options.only or "*")], options.jobs):
        outcomes.append(outcome)
        if options.only or outcome.status == "failed":
            print(f"{outcome.status}  {outcome.name} {list(outcome.secret)} {outcome.reason}\n{outcome.error}".strip())
    if not options.only:
        write_table(outcomes)
        PAGE.write_text(page(*_as_written()))
    count = Counter(outcome.status for outcome in outcomes)
    seconds = time.perf_counter() - started
    print(", ".join(f"{count[status]} {status}" for status in STATUSES), f"in {seconds:.0f} s", file=sys.stderr)
    return 1 if count["failed"] else 0


def _as_written() -> tuple[str, list[Outcome]]:
    version, table = read_table()
    return version, list(table.values())


if __name__ == "__main__":
    sys.exit(main())
