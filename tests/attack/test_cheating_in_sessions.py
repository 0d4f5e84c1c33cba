"""What a cheater does beside one message: other sessions' frames and keys, other weights, words for one peer alone."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest

from mpc import field as fp
from mpc.encoding import decode_field, digest
from mpc.errors import IntegrityError, MpcError, PlanError
from mpc.gates.base import Layout
from mpc.plan.plan import Plan
from mpc.prg import Seed, expand_field
from mpc.shares import Masked, Share
from mpc.wires import Lifetime
from parties.agreed.ahead import refuse_later_known
from tests.support import programs
from tests.support.cheating import CheatedWorld, Deviation, added, fields_of_the_check, once, opened, rounds
from tests.support.plans import with_parts
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


def test_a_check_that_fails_tells_its_cheater_a_key() -> None:
    """So nothing may run under that key again: of a failed total the cheater knows everything but alpha."""
    told: dict[int, dict[int, bytes]] = {}

    class Listening(CheatedWorld):
        def sent(self, number: int, sender: int, recipient: int, payload: bytes) -> bytes:
            told.setdefault(number, {})[sender] = payload
            return super().sent(number, sender, recipient, payload)

    chosen = small("relu")
    place = next(each for each in opened(chosen.plan) if each.name == "y")
    made = Listening(chosen.plan, chosen.weights, PARTIES, seed(5))
    made.cheater, made.deviation = 1, Deviation(opens=(place, once))
    refused(made, chosen.inputs)
    first = rounds(chosen.plan, BATCH)
    held, seeds = told[first][0][:32], [told[first + 1][who] for who in range(PARTIES)]
    coin = Seed(digest("mpc/v2/check-coin", held, *seeds)).derive(place.gate, 2, "y")
    total = reduce(fp.add, [decode_field(told[first + 3][who][:8], (1,)) for who in range(PARTIES)])
    inverse = pow(int(expand_field(coin, (1,))[0]), -1, fp.P)
    assert (-int(total[0]) * inverse) % fp.P == int(reduce(add, made.keys).alpha)


def test_security_active_nothing_is_dealt_ahead_for_programs() -> None:
    """Keys that a cheater knows lie in a stock.  Were all parties put back behind the failed check, a client's list
    would keep it from entering a run again; but in runs of a program others may enter, and it for the first time."""
    gates = [
        gate.model_copy(update={"lifetime": Lifetime.RUN}) if {*gate.writes} & {"x", "y"} else gate
        for gate in programs.learning().gates
    ]
    made = with_parts(programs.learning(), gates=gates)
    program = programs.PROGRAM.model_copy(update={"rows": None, "seed": None})
    plan = Plan(**{name: getattr(made, name) for name in Plan.model_fields if name != "program"}, program=program)
    entered = [{gate.out for gate in plan.at(run).entered} for run in (1, programs.STEPS + 2)]
    assert entered == [{"x", "y"}, {"asked"}]
    refuse_later_known(plan)
    with pytest.raises(PlanError, match="nothing can be dealt ahead for checked runs of a program"):
        refuse_later_known(plan.with_security("active"))
