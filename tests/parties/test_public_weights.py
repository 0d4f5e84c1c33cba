"""Public weights on real processes and in the commands: right answers, the foretold price, and everyone can see it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from mpc.errors import InputError, PlanError, UsageError
from mpc.plan.cost import plan_cost
from mpc.prg import SEED_BYTES
from parties import Cluster
from parties.agreed.ticket import Ticket
from tests.support.graphs import node, save_model
from tests.support.models import plaintext
from tests.support.parties import data, tiny_model
from tests.support.parties_commands import LONG, mpc, mpc_here

ROOT = Path(__file__).resolve().parents[2]
NETWORK_A, NETWORK_S = ROOT / "examples" / "mnist_mlp.onnx", ROOT / "benchmarks" / "networks" / "sarda_s.onnx"
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module", params=[2, 3])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster.local(parties=request.param, clients=["guest"]) as connected:
        yield connected


def images(path: Path, count: int) -> np.ndarray:
    pixels = np.load(ROOT / "examples" / "mnist_sample.npz")["images"][:count] / 255
    return pixels.reshape((-1, 784) if path == NETWORK_A else (-1, 1, 28, 28)).astype(np.float32)


@pytest.mark.parametrize("path", [NETWORK_A, NETWORK_S], ids=["A", "S"])
def test_processes_answer_as_onnxruntime_does_at_the_foretold_price(cluster: Cluster, path: Path) -> None:
    with cluster.session(path, weights="public") as session:
        for batch in (1, 33):
            x = images(path, batch)
            [logits] = session.run(None, {"x": x})
            assert np.abs(logits - plaintext(path, {"x": x})[0]).max() <= 2e-3
            cost, report = plan_cost(session.plan, batch), session.last_run
            assert report is not None
            assert (report.rounds, report.sent_bytes) == (6, cost.sent * (report.parties - 1))
            assert report.dealt_bytes == cost.dealt + SEED_BYTES * report.parties


def test_a_guest_sees_it_in_the_ticket_and_receives(cluster: Cluster) -> None:
    x = images(NETWORK_A, 2)
    with cluster.session(NETWORK_A, weights="public", owners={"x": "guest"}, recipients="guest") as session:
        assert all(
            Ticket.parse(session.ticket).plan.wire[gate.out].masking == "public" for gate in session.plan.weights
        )
        with ThreadPoolExecutor(1) as pool, Cluster.connect(cluster.client_file("guest")) as joined:
            running = pool.submit(session.run, None, {}, 2)
            [logits] = joined.join(session.ticket).run({"x": x})
            assert running.result(LONG) == []
    assert np.abs(logits - plaintext(NETWORK_A, {"x": x})[0]).max() <= 2e-3


WORDS, LENGTH, RANK = 40, 3, 2


def adapted(folder: Path) -> Path:
    """Token ids into a public table and layer, beside which an adapter is."""
    rng = np.random.default_rng(3)
    nodes = [
        node("Gather", ["table", "x"], ["e"]),
        node("MatMul", ["e", "base"], ["b"], name="/base"),
        node("MatMul", ["e", "lora_A"], ["a"], name="/lora_A"),
        node("MatMul", ["a", "lora_B"], ["d"], name="/lora_B"),
        node("Add", ["b", "d"], ["s"]),
        node("Relu", ["s"], ["y"]),
    ]
    sizes = {"table": (WORDS, 6), "base": (6, 5), "lora_A": (6, RANK), "lora_B": (RANK, 5)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in sizes.items()}
    return save_model(folder, nodes, constants, ("batch", LENGTH), element=TensorProto.INT64)


def test_a_guests_token_ids_into_a_public_backbone_with_a_secret_adapter(cluster: Cluster, tmp_path: Path) -> None:
    path, ids = adapted(tmp_path), np.random.default_rng(4).integers(-WORDS, WORDS, (4, LENGTH))
    chosen = {"weights": "public", "secret_weights": ["lora_*"], "owners": {"x": "guest"}, "recipients": "guest"}
    with cluster.session(path, **chosen) as session:
        plan = Ticket.parse(session.ticket).plan
        assert sorted(gate.is_public(plan.wire) for gate in plan.weights) == [False, False, True, True]
        with ThreadPoolExecutor(1) as pool, Cluster.connect(cluster.client_file("guest")) as joined:
            guest = joined.join(session.ticket)
            assert [each.shape for each in guest.get_inputs()] == [["batch", LENGTH]]
            with pytest.raises(InputError, match=f"'x' has {WORDS} in column 0"):
                guest.run({"x": np.full((1, LENGTH), WORDS)})
            running = pool.submit(session.run, None, {}, 4)
            [found] = guest.run({"x": ids})
            assert running.result(LONG) == []
            cost, report = plan_cost(plan, 4), session.last_run
            assert report is not None and (report.rounds, report.sent_bytes) == (
                cost.rounds,
                cost.sent * (report.parties - 1),
            )
    assert np.abs(found - plaintext(path, {"x": ids})[0]).max() <= 1e-3


def test_nothing_is_dealt_ahead(cluster: Cluster) -> None:
    with pytest.raises(PlanError, match="dealt ahead"):
        cluster.deal(NETWORK_A, runs=1, weights="public")


def test_another_word_is_refused(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="'secret' or 'public'"):
        cluster.session(NETWORK_A, weights="open")


def test_the_commands_say_it(cluster: Cluster, tmp_path: Path) -> None:
    """compile, inspect of a model, of a plan and as JSON, run."""
    tiny_model(tmp_path / "tiny.onnx")
    np.save(tmp_path / "x.npy", data(2))
    words = ("tiny.onnx", "--range", "-4:4")

    plans = {}
    for weights in ("secret", "public"):
        done = mpc_here("compile", *words, "--weights", weights, "-o", f"{weights}.plan", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        plans[weights] = done.stdout.strip()
        for source in (words, (f"{weights}.plan",)):
            chosen = ("--weights", weights) if source is words else ()
            report = json.loads(mpc_here("inspect", *source, *chosen, "--json", folder=tmp_path).stdout)
            assert (report["digest"], report["weights"]) == (plans[weights], weights)
        shown = mpc_here("inspect", f"{weights}.plan", folder=tmp_path).stdout
        assert f"arrays, {weights}, entered" in shown
        assert ("all parties and the provider know" in shown) == (weights == "public")
    assert plans["secret"] != plans["public"]
    assert plans["secret"] == mpc_here("compile", *words, "-o", "p", folder=tmp_path).stdout.strip()

    refused = mpc_here("inspect", "public.plan", "--weights", "public", folder=tmp_path)
    assert refused.returncode == 5 and "part of it" in refused.stderr

    assert cluster.layout is not None
    running = ("--cluster", cluster.layout.cluster_file)
    done = mpc_here("run", *words, "--input", "x.npy", *running, "--weights", "public", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    ran = json.loads(done.stdout)
    assert (ran["weights"], ran["plan"], ran["rounds"]) == ("public", plans["public"], 3)


def test_inspect_says_what_stays_secret_and_what_enters(tmp_path: Path) -> None:
    words = (str(adapted(tmp_path)), "--weights", "public", "--secret-weights", "lora_*")
    shown = mpc("inspect", *words, folder=tmp_path).stdout
    assert "4 arrays, partly public, entered" in shown
    numbers = 6 * RANK + RANK * 5
    assert (
        f"({numbers} numbers are secret, of /lora_A, /lora_B, {WORDS * 6 + 30} numbers are public, of 2 nodes)" in shown
    )
    assert f"input 'x' in -{WORDS}:{WORDS - 1}\n" in shown
    assert f"(each number as {WORDS} zeros and ones, 960 B to each party; nothing is compared)" in shown
    report = json.loads(mpc("inspect", *words, "--json", folder=tmp_path).stdout)
    assert report["weight_numbers"] == {"secret": numbers, "public": WORDS * 6 + 30}
    [given] = report["enters"]
    assert (given["shape"], given["places"], given["entered_bytes_per_party"]) == ([1, LENGTH], WORDS, 960)
    refused = mpc("inspect", words[0], "--secret-weights", "lora_*", folder=tmp_path)
    assert refused.returncode == 2 and "all weights are secret" in refused.stderr
    refused = mpc("inspect", *words[:3], "--secret-weights", "lara_*", folder=tmp_path)
    assert refused.returncode == 5 and "which is to stay secret" in refused.stderr


def test_bench_says_it(tmp_path: Path) -> None:
    words = (str(tiny_model(tmp_path / "tiny.onnx")), "--range", "-4:4")
    done = mpc("bench", *words, "--weights", "public", "--repeat", 1, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert (row["weights"], row["rounds"]) == ("public", 3) and row["max_abs_error"] < 1e-3
