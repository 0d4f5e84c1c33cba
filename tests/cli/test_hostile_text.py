"""Nothing that others wrote steers a terminal (security.md 34): models, plans, tickets, errors."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.errors import MpcError
from mpc.text import is_plain
from parties.agreed.terms import Terms
from parties.agreed.ticket import Ticket
from parties.cli.display import Display
from parties.telemetry import configure, logger
from tests.support.parties import tiny_model
from tests.support.parties_commands import mpc_here as mpc

pytestmark = pytest.mark.timeout(90)
HOSTILE = "[bold]x[/bold]\x1b[8m\x1b]0;title\x07\u202eyx\u200b:smile:\r"


def clean(text: str) -> bool:
    """Is all of it what it looks like?  Line breaks are the commands' own."""
    return all(is_plain(character) for line in text.split("\n") for character in line)


def hostile_model(path: Path, given: str = "x") -> Path:
    """A model whose node is called something hostile."""
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    node = helper.make_node("Gemm", [given, "w"], ["y"], HOSTILE)
    graph = helper.make_graph(
        [node],
        HOSTILE,
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def test_security_34_what_a_model_calls_its_nodes(tmp_path: Path) -> None:
    """Shown, as escapes, and without markup."""
    done = mpc("inspect", hostile_model(tmp_path / "model.onnx"), "--range", "-4:4")
    assert done.returncode == 0, done.stderr
    assert clean(done.stdout) and clean(done.stderr)
    assert "[bold]x[/bold]\\x1b[8m" in done.stdout and ":smile:" in done.stdout


def test_security_34_a_model_s_input_is_refused_by_name(tmp_path: Path) -> None:
    done = mpc("inspect", hostile_model(tmp_path / "model.onnx", HOSTILE), "--range", "-4:4")
    assert done.returncode == 5
    assert clean(done.stdout) and clean(done.stderr)
    assert "rename it in the model" in done.stderr


@pytest.mark.parametrize("kind", ["plan", "ticket"])
def test_security_34_a_plan_cannot_hide_who_learns_what(tmp_path: Path, kind: str) -> None:
    """An output's name that takes the line above away, as others are asked to agree to it."""
    compiled = compile_model(tiny_model(tmp_path / "tiny.onnx"), {"x": (-4.0, 4.0)})
    content = json.loads(compiled.plan.canonical)
    content["outputs"][0]["name"] = "y\x1b[1A\x1b[2K"
    data = json.dumps(content, sort_keys=True, separators=(",", ":"))
    if kind == "ticket":
        terms = Terms(compiled.plan.digest, "provider", ("party-0", "party-1"), (bytes(32), bytes([1]) * 32))
        ticket = json.loads(Ticket(compiled.plan, terms).text)
        data = json.dumps({**ticket, "plan": content}, sort_keys=True, separators=(",", ":"))
    path = tmp_path / kind
    path.write_text(data)
    done = mpc("inspect", path)
    assert done.returncode == 5 and "is refused" in done.stderr
    assert clean(done.stdout) and clean(done.stderr)


def test_security_34_everything_printed_goes_through_one_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, too, where colours are ours."""
    for terminal in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", terminal) if terminal else monkeypatch.delenv("FORCE_COLOR", raising=False)
        display = Display()
        display.say(HOSTILE)
        display.result(HOSTILE)
        display.table(["a", ">b"], [(HOSTILE, 1)])
        display.error(MpcError(HOSTILE, cause=HOSTILE, remedy=f"{HOSTILE}\nsecond line"))
        display.json({"name": HOSTILE})
        captured = capsys.readouterr()
        for text in (captured.out, captured.err):
            own = text.replace("\x1b[1;31m", "").replace("\x1b[1m", "").replace("\x1b[0m", "")
            assert clean(own), own
            assert "\\x1b[8m" in own and "[bold]x[/bold]" in own


def test_security_34_the_log_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    hook = sys.excepthook
    try:
        configure("party-0", "info", stream)
        logger().warning("refused", caller=HOSTILE)
    finally:
        sys.excepthook = hook
    assert stream.getvalue().isascii() and json.loads(stream.getvalue())["caller"] == HOSTILE
    assert "\x1b" not in stream.getvalue()
