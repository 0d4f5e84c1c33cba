"""What a cheater does beside one message: other sessions' frames and keys, other weights, words for one peer alone."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest

from mpc import field as fp
from mpc.errors import IntegrityError, MpcError
from mpc.gates.base import Layout
from mpc.shares import Masked, Share
from tests.support.cheating import CheatedWorld, Deviation, added, fields_of_the_check, once, rounds
from tests.support.small_plans import BATCH, small
from tests.support.worlds import seed

PARTIES = 3


def session(name: str, number: int = 5) -> CheatedWorld:
    chosen = small(name)
    return CheatedWorld(chosen.plan, chosen.weights, PARTIES, seed(number))


def refused(made: CheatedWorld, inputs: dict[str, np.ndarray], error: type[MpcError] = IntegrityError) -> None:
    with pytest.raises(error):
        made.run(inputs, BATCH)
    assert made.honest_passed == 0


def test_security_active_sessions_that_run_side_by_side_share_no_key_and_no_tag() -> None:
    """Keys follow from seeds and the session's id: equal seeds in another session would give others too."""
    one, other = session("relu", 5), session("relu", 6)
    keys = [reduce(add, made.keys) for made in (one, other)]
    assert keys[0].alpha != keys[1].alpha and keys[0].delta != keys[1].delta
    for first, second in zip(one.keys, other.keys, strict=True):
        assert first.alpha != second.alpha and first.delta != second.delta
    master = seed(5).derive("party", 0, 0)
    assert type(keys[0]).expand(master, b"a" * 32).alpha != type(keys[0]).expand(master, b"b" * 32).alpha


@pytest.mark.parametrize("cheater", range(PARTIES))
def test_security_active_a_frame_of_another_session_is_caught(cheater: int) -> None:
    """Of the same plan, inputs, run and exchange, by the same party: each exchange in turn."""
    chosen, other = small("relu"), session("relu", 6)
    frames = other.run(chosen.inputs, BATCH).payloads
    for number in range(len(frames)):
        made = session("relu", 5)
        made.cheater = cheater
        made.deviation = Deviation(
            sends=lambda exchange, _, payload, at=number: frames[at][cheater] if exchange == at else payload  # type: ignore[misc]
        )
        refused(made, chosen.inputs, MpcError)


@pytest.mark.parametrize("cheater", range(PARTIES))
def test_security_active_other_weights_at_one_party_are_caught(cheater: int) -> None:
    """Their owner may have sent it others, or the party holds them for others."""
    chosen = small("matmul")
    for gate in chosen.plan.weights:
        made = session("matmul")
        made.cheater, held = cheater, made.sessions[cheater].masked
        honest = held[gate.out]
        held[gate.out] = Masked(added(honest.public, Layout("", honest.public.shape)), honest.mask)
        refused(made, chosen.inputs)


@pytest.mark.parametrize("part", fields_of_the_check(), ids=str)
def test_security_active_a_part_of_the_check_that_one_peer_alone_is_told_otherwise_is_caught(part: Any) -> None:
    """The peer that is told otherwise passes nothing, and no output is whole without its seed."""
    chosen = small("step")
    first = rounds(chosen.plan, BATCH)
    for cheater, victim in ((0, 1), (0, 2), (2, 0)):
        made = session("step")

        def send(exchange: int, recipient: int, payload: bytes, victim: int = victim) -> bytes:
            if exchange != first + part.exchange or recipient != victim:
                return payload
            return payload[: part.start] + bytes([payload[part.start] ^ 1]) + payload[part.start + 1 :]

        made.cheater, made.deviation = cheater, Deviation(sends=send)
        with pytest.raises(MpcError):
            made.run(chosen.inputs, BATCH)
        assert not made.passed[victim]
        assert made.honest_passed <= (part.exchange == 3)


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("cheater", range(PARTIES))
def test_security_active_whether_a_check_fails_tells_nothing_of_an_input(zeros: bool, cheater: int) -> None:
    """A share of a weight's mask, or of its tag, that is off is multiplied with x^, not with x: it is caught where x is
    zero as well, where a product with x itself would hide it."""
    chosen, name = small("matmul"), "w"
    inputs = {wire: value * (not zeros) for wire, value in chosen.inputs.items()}
    for what in ("mask", "tag", "neither"):
        made = session("matmul")
        made.cheater = cheater
        held, tags = made.sessions[cheater].masked, made.tags[cheater].masks
        if what == "mask":
            held[name] = Masked(held[name].public, _off(held[name].known_mask()))
        elif what == "tag":
            tags[name] = _off(tags[name])
        if what == "neither":
            made.run(inputs, BATCH)
        else:
            refused(made, inputs)


def _off(share: Share) -> Share:
    return Share(once(share.values, Layout("", share.shape)))


def test_security_active_the_key_of_a_session_is_uniform_to_all_but_one() -> None:
    """Whoever knows two of three shares knows nothing of the sum: the third is expanded from a seed of its own."""
    sums = {int(fp.add(*(np.array([key.alpha]) for key in session("step", n).keys[:2]))[0]) for n in range(3)}
    wholes = {int(reduce(add, session("step", n).keys).alpha) for n in range(3)}
    assert len(sums) == len(wholes) == 3 and not sums & wholes
