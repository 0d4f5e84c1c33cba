"""What an owner enters is on its way while the next input is masked: two inputs at most, and in the end all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mpc.encoding import decode_field
from mpc.errors import PeerError
from mpc.gates.linear import Combine
from parties.client.running import submitting
from parties.client.running.submitting import Submitter
from parties.wire.transport import FRAME_BYTES
from tests.support.plans import OWNER, Builder, wire

SIZES = {"a": 2, "b": FRAME_BYTES // 4, "c": 3, "d": FRAME_BYTES // 8 + 1, "e": 1}
"""Numbers of 8 bytes: two of them do not fit a message."""
PLAN = Builder()
for name, size in SIZES.items():
    PLAN.enter(name, (size,), 20, session=True, public=True)
PLAN.enter("x", ("batch", 1), 20)
PLAN.gate(Combine(name="y", xs=("x",), factors=(1,), out="y"), wire("y", ("batch", 1), 21))
PLAN.output("y")
VALUES = {name: np.arange(size, dtype=np.int64) for name, size in SIZES.items()}


@dataclass
class Party:
    """Takes what is submitted, and answers when it is waited for."""

    log: list[str]
    fails: str = ""
    taken: dict[str, bytes] = field(default_factory=dict)
    underway: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    most: int = 0

    def begin(self, call: Any, request: Any, seconds: float, together: Any) -> Any:
        parts = [request] if hasattr(request, "data") else list(request)
        name = parts[0].header.wire
        self.taken[name] = b"".join(getattr(part, "data", b"") or getattr(part, "chunk", b"") for part in parts)
        self.underway.add(name)
        self.most = max(self.most, len(self.underway))
        self.log.append(f"sent {name}")
        self.seconds[name] = seconds
        return SimpleNamespace(result=lambda: self.answer(name))

    def answer(self, name: str) -> None:
        self.underway.discard(name)
        self.log.append(f"answered {name}")
        if name == self.fails:
            raise PeerError("it did not take it")


def submitter(parties: list[Party]) -> Submitter:
    config = SimpleNamespace(deadlines=SimpleNamespace(submit=1.0, setup=1.0))
    made = cast(Any, SimpleNamespace(clients=parties, config=config, together=lambda: None))
    return Submitter(made, PLAN.unchecked(), bytes(32), OWNER, cast(Any, None))


def test_two_inputs_are_underway_while_the_next_is_masked_and_every_party_has_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []
    parties = [Party(log), Party(log)]
    encode = submitting.view_field
    monkeypatch.setattr(submitting, "view_field", lambda values: (log.append("masked"), encode(values))[1])
    submitter(parties).enter_weights(VALUES)
    for party in parties:
        assert party.most == 2 and not party.underway
        for name, values in VALUES.items():
            assert np.array_equal(decode_field(party.taken[name], values.shape), values)
    assert log.index("answered a") > log.index("sent b"), "nobody waits for one input before the next is sent"
    assert log[log.index("answered a") - 1] == "masked", "the third is masked while two are on their way"


def test_a_long_input_may_take_as_long_as_its_bytes_at_a_slow_line() -> None:
    party = Party([])
    submitter([party]).enter_weights(VALUES)
    assert party.seconds == {name: 1.0 + (8 * size >> 20) for name, size in SIZES.items() if name != "d"} | {
        "d": 1.0 + 8 * SIZES["d"] / (1 << 20)
    }


@pytest.mark.parametrize("name", SIZES)
def test_an_input_that_a_party_does_not_take_is_told(name: str) -> None:
    parties = [Party([]), Party([], fails=name)]
    with pytest.raises(PeerError, match="did not take it"):
        submitter(parties).enter_weights(VALUES)
