"""Nothing secret is said (security.md 23, 25): recognisable inputs, weights and masks; everything that is written."""

from __future__ import annotations

import gc
import io
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest

from mpc import fixedpoint
from mpc.compiler.roles import Roles
from mpc.errors import MpcError
from mpc.interpret.party import PartyRun
from mpc.prg import Seed
from parties.party.session import PartySession
from parties.pb import party_pb2
from parties.pb.party_pb2 import Frame, Payload
from parties.telemetry import Counters
from tests.support.parties import OWNER, RECIPIENT, SEPARATE, InProcess, Script, data

pytestmark = pytest.mark.timeout(60)
CANARY_INPUT = np.float32(-3.14159274)
CANARY_WEIGHT = 1.7320508


def needles(script: Script, seeds: list[bytes], masked: list[bytes]) -> list[str]:
    """How the secrets would look if they were written, in any of the usual ways."""
    x = data(1).copy()
    x[0, 1] = CANARY_INPUT
    scale = script.plan.wire[script.input_wire].scale
    found = ["3.14159", "1.73205", str(int(fixedpoint.encode(x[:, 1:2], scale)[0, 0])).lstrip("-")]
    found += {str(abs(int(v))) for array in script.compiled.weights.values() for v in array.flat if int(v) & 0xFFFF}
    for secret in seeds:
        found += [secret.hex(), secret.hex()[:16], repr(secret)[2:-1], str(list(secret))[1:24]]
    for public in masked:
        found += [public[:8].hex(), str(int.from_bytes(public[:8], "little"))]
    return [needle for needle in found if len(needle) > 5]


def reprs() -> Iterator[str]:
    """How every object of ours describes itself."""
    for thing in gc.get_objects():
        module = str(getattr(type(thing), "__module__", ""))
        if module.split(".")[0] in ("mpc", "parties") and not module.startswith("parties.pb"):
            yield repr(thing)
            yield str(thing)


def canary_script(cluster: InProcess) -> Script:
    return Script(cluster, cluster.compiled(SEPARATE, secret=CANARY_WEIGHT))


def enter(script: Script) -> tuple[list[bytes], list[bytes]]:
    """Run 1's data with the canary in it; (seeds, masked values)."""
    replies = script.everyone(lambda i: script.masks(i, 1, OWNER))
    x = data(1).copy()
    x[0, 1] = CANARY_INPUT
    masked = script.masked(script.integers(x), replies)
    script.everyone(lambda i: [script.submit(i, 1, w, v, OWNER) for w, v in masked.items()])
    return [part.seed for reply in replies for part in reply.seeds], list(masked.values())


def metrics(cluster: InProcess) -> str:
    counters: list[Counters] = [node.counters for node in cluster.nodes]
    return "".join(generate_latest(one.registry).decode() for one in counters)


def test_the_needles_are_found_when_they_are_there() -> None:
    """The control: a log that did write them would be caught."""
    assert np.isclose(float(CANARY_INPUT), -3.14159274) and "3.14159" in f"{float(CANARY_INPUT)}"
    assert "1.73205" in f"{CANARY_WEIGHT}"


def test_an_honest_session_and_everything_that_can_go_wrong(
    tmp_path: Path, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with InProcess(tmp_path, 2, middles=[(0, 1)]) as cluster:
        script = canary_script(cluster).ready()
        seeds, masked = enter(script)
        replies = script.finish()
        seeds += [output.seed for parts in replies for output in parts[0].header.outputs]
        said += list(reprs())
        secrets = needles(script, seeds, masked)

        for break_it in (submit_nonsense, crash_in_a_gate, crash_in_a_handler, nonsense_on_the_stream, out_of_range):
            with monkeypatch.context() as patched:
                other = canary_script(cluster).ready()
                errors = break_it(other, patched)
                cluster.middles[0].tamper = lambda sender, number, frame: [frame]
            assert errors
            for error in errors:
                said += [repr(error), str(error), *traceback.format_exception(error)]
            said += list(reprs())
        said.append(metrics(cluster))
    said.append(written.getvalue())
    assert '"process": "test"' in said[-1] and "unexpected error" in said[-1]
    assert all(
        f'"event": "{event}"' in said[-1] for event in ("run ended", "dealt", "a call failed", "session aborted")
    )
    for needle in secrets:
        assert not any(needle in text for text in said), needle


def collect(call, *arguments) -> list[BaseException]:
    try:
        call(*arguments)
    except Exception as error:
        return [error]
    return []


def submit_nonsense(script: Script, patched: pytest.MonkeyPatch) -> list[BaseException]:
    script.everyone(lambda i: script.masks(i, 1, OWNER))
    return [
        *collect(script.submit, 0, 1, script.input_wire, b"\xff" * 24, OWNER),
        *collect(script.submit, 0, 1, script.input_wire, bytes(7), OWNER),
    ]


def crash_in_a_gate(script: Script, patched: pytest.MonkeyPatch) -> list[BaseException]:
    """A bug whose exception quotes the very values, as numpy's do."""
    party: PartyRun = script.cluster.of(0, script.id).runs.get(1).party

    def crash(given) -> None:
        raise ValueError(f"cannot reshape {CANARY_INPUT!r} and {CANARY_WEIGHT}")

    patched.setattr(party, "steps", crash)
    collect(enter, script)
    collect(script.everyone, lambda i: script.result(i, 1, RECIPIENT))
    return [error for error in script.errors if error is not None]


def crash_in_a_handler(script: Script, patched: pytest.MonkeyPatch) -> list[BaseException]:
    session: PartySession = script.cluster.of(0, script.id)

    def crash(*arguments) -> None:
        raise KeyError(f"{CANARY_INPUT!r} {CANARY_WEIGHT}")

    patched.setattr(session.entries, "masks", crash)
    found = collect(script.masks, 0, 1, OWNER)
    assert found and isinstance(found[0], MpcError) and found[0].code == "internal"
    return found


def nonsense_on_the_stream(script: Script, patched: pytest.MonkeyPatch) -> list[BaseException]:
    def tamper(sender: str, number: int, frame: Frame) -> list[Frame]:
        if not frame.HasField("payload"):
            return [frame]
        payload = frame.payload
        return [Frame(payload=Payload(run=payload.run, step=payload.step, data=b"\xff" * len(payload.data)))]

    script.cluster.middles[0].tamper = tamper
    collect(enter, script)
    collect(script.everyone, lambda i: script.result(i, 1, RECIPIENT))
    return [error for error in script.errors if error is not None]


def out_of_range(script: Script, patched: pytest.MonkeyPatch) -> list[BaseException]:
    """NaN beside the canary: the error says which input, not what else is in it."""
    x = np.array([[CANARY_INPUT, np.nan, 0]], dtype=np.float32)
    wire = script.plan.wire[script.input_wire]
    return collect(fixedpoint.encode, x, wire.scale)


def test_what_a_peer_sees_of_a_failure_is_its_code(tmp_path: Path) -> None:
    """25: of an error with a long story, the frame carries a code and a name."""
    with InProcess(tmp_path, 2, middles=[(0, 1)]) as cluster:
        seen: list[Frame] = []

        def watch(sender: str, number: int, frame: Frame) -> list[Frame]:
            if frame.HasField("abort"):
                seen.append(frame)
            return [frame]

        cluster.middles[0].tamper = watch
        script = cluster.script(Roles()).open()
        story = MpcError("a story with 2.2360680", cause="of secrets", remedy="and more", peer="party-1")  # no needle
        cluster.of(0, script.id).abort(story)
        assert cluster.is_idle()
        [frame] = seen[:1]
        assert frame.abort == party_pb2.Abort(code="internal", about="party-1")


def test_secret_types_say_nothing_of_themselves() -> None:
    assert "07" not in repr(Seed(b"\x07" * 32)) and "\\x07" not in repr(Seed(b"\x07" * 32))
