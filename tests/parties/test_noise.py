"""A noised sum among daemons: its key is made of every party's salt, and each run draws anew."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from mpc.compiler.from_graph import compile_graph
from mpc.compiler.graph.attributes import Noise, RowsSum
from mpc.compiler.graph.graph import Graph, GraphInput, GraphOutput, Node, Origin
from mpc.compiler.lowering.lower import Lowered
from mpc.correlations import Bundle, BundleId
from mpc.errors import LocalProtocolError, MpcError, PlanError
from mpc.fixedpoint import decode, encode
from mpc.interpret.active.run import CheckedRun
from mpc.interpret.session_wires import SessionWires
from mpc.plan.checking import dealt_tags
from mpc.plan.plan import Plan
from mpc.prg import Seed
from parties.agreed.ahead import refuse_later_known
from parties.agreed.terms import Terms
from parties.client.running.coordinated import CoordinatedSession
from parties.party.evaluating import Evaluations
from tests.support.parties import InProcess
from tests.support.small_plans import small


@pytest.fixture(scope="module", params=[2, 3])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), request.param) as running:
        yield running


@pytest.fixture(scope="module")
def question() -> Lowered:
    """The sum of two columns, at an epsilon of 5, for a hundred rows at most."""
    origin = Origin("sum", "sum")
    nodes = [
        Node("rows_sum", ("x",), "s", (2,), origin, RowsSum(most=100)),
        Node("noise", ("s",), "y", (2,), origin, Noise(epsilon=Fraction(5))),
    ]
    given = GraphInput("x", ("batch", 2), "float32", (0.0, 10.0))
    return compile_graph(Graph([given], nodes, [GraphOutput("y", "y", (2,), "float32")]))


def asked(session: CoordinatedSession, plan: Plan, x: np.ndarray) -> np.ndarray:
    [given], [out] = plan.inputs, plan.outputs
    opened, _ = session.run({given.wire: encode(x, plan.wire[given.wire].scale)}, len(x), time.perf_counter)
    return decode(opened[out.wire], plan.wire[out.wire].scale).reshape(-1)


def test_a_noised_sum_is_answered_and_drawn_anew(cluster: InProcess, question: Lowered) -> None:
    session = CoordinatedSession(cluster.client(), question.plan, question.weights)
    x = np.random.default_rng(1).uniform(0, 10, (80, 2))
    [vector] = question.guarantee.vectors
    spread = float(vector.variance) ** 0.5 / float(question.plan.wire[vector.wire].scale)
    answers = [asked(session, question.plan, x) for _ in range(3)]
    assert all(np.abs(answer - x.sum(axis=0)).max() < 10 * spread for answer in answers)
    assert all((first != second).any() for first, second in zip(answers, answers[1:], strict=False))
    keys = {cluster.of(index, session.id).transcript_key() for index in range(len(cluster.names))}
    assert len(keys) == 1 and all(len(key) == 32 for key in keys)
    session.close()


def test_more_rows_than_the_plan_is_made_for_are_refused(cluster: InProcess, question: Lowered) -> None:
    session = CoordinatedSession(cluster.client(), question.plan, question.weights)
    with pytest.raises(MpcError, match="1 to 100"):
        asked(session, question.plan, np.zeros((101, 2)))
    session.close()


def test_security_40_no_noise_before_every_salt_is_there(cluster: InProcess, question: Lowered) -> None:
    """Of a key that lacks one party's part the others could choose the noise."""
    session = CoordinatedSession(cluster.client(), question.plan, question.weights)
    party = cluster.of(0, session.id)
    [peer, *_] = party.links.values()
    salt, peer.peer_salt = peer.peer_salt, b""
    with pytest.raises(LocalProtocolError, match="before all have greeted"):
        party.transcript_key()
    peer.peer_salt = salt
    session.close()


def test_security_active_what_is_drawn_in_common_follows_from_what_was_signed_when_all_had_greeted(
    question: Lowered,
) -> None:
    """A party that waits with its salt for all others' would choose, of many, the key that it likes best."""
    plan = question.plan.with_security("active")
    terms = Terms(plan.digest, "provider", ("party-0", "party-1"), (bytes(32), bytes(31) + b"1"))
    weights, run = BundleId.of_weights(terms.session_id), BundleId.of_run(terms.session_id, 1, 2)
    seed, bound, found = Seed(bytes(32)), plan.bind(2), []
    for manifest in (b"one", b"one", b"another"):
        made = Evaluations(terms, 0, SessionWires(), None, lambda size: bytes(size))
        made.open(plan, Bundle(weights, seed, (), plan.wire, None), seed, manifest)
        tags = dealt_tags(bound, run.entry)
        bundle = Bundle(run, seed, bound.dealt(run.entry), bound.wire, None, tags)
        evaluation = made.make(bound, bundle, bytes(32), {})
        assert isinstance(evaluation, CheckedRun)
        found.append(evaluation.run.common("noise", "c", (4,), 48).tolist())
    assert found[0] == found[1] != found[2]


def test_nothing_is_dealt_ahead_for_checked_runs_whose_noise_is_drawn_in_common() -> None:
    """What was signed is known by then to whoever has yet to greet."""
    gaussian = small("noise").plan
    refuse_later_known(gaussian.with_security("passive"))
    with pytest.raises(PlanError, match="for checked runs with Gaussian noise"):
        refuse_later_known(gaussian.with_security("active"))
