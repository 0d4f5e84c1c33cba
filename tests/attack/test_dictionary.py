"""Does anything that is shown confirm a guess of a secret?  (security.md 30)

The attackers here hold all shares but one party's, or are the provider and its friends.  They compute from a guess what
must then have been dealt, opened and entered, hash it in every way and under every key they can think of, and look
for the result in everything that they were ever shown.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import grpc
import numpy as np
import pytest
from blake3 import blake3
from google.protobuf.message import Message
from prometheus_client import generate_latest

from mpc import field as fp
from mpc.correlations import Bundle, BundleId, CorrectionsDigest
from mpc.encoding import canonical, decode_field, digest, view_field
from mpc.entry import EntryId
from mpc.errors import PlanError
from mpc.gates.base import mask_name
from mpc.interpret import party as party_module
from mpc.interpret import reference
from mpc.interpret.dealer import Dealer, SessionMasks
from mpc.interpret.party import PartyRun
from mpc.interpret.run_wires import RunWires
from mpc.interpret.session_wires import SessionWires
from mpc.plan.plan import Plan
from mpc.plan.segments import in_turn, segments
from mpc.prg import Seed, expand_field
from mpc.shares import Lane
from mpc.transcript import Transcript
from mpc.wires import Masking
from parties import entropy
from parties.agreed.ticket import Ticket
from parties.pb import party_pb2, provider_pb2
from parties.provider.service import ProviderService
from parties.wire.transport import caller
from tests.support.parties import COORDINATOR, MODEL_OWNER, OWNER, RECIPIENT, SEPARATE, InProcess, Script, data

VICTIM = 1  # who is corrected in run 1
ENTERED, CANDIDATES = 11, 20
"""The number of the input that was entered, among so many."""


@pytest.fixture(autouse=True)
def wires_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attackers look at every wire once the run is over, as if they had kept them all."""
    monkeypatch.setattr(RunWires, "over", lambda wires, gate: None)


class Watched(ProviderService):
    """A provider whose every answer is written down, with whom it was for."""

    dealt: list[tuple[str, int, Message | bytes]]

    def deal(self, request: provider_pb2.DealRequest, context: grpc.ServicerContext) -> Iterator:
        for part in super().deal(request, context):
            Watched.dealt.append((caller(context), request.run, part))
            yield part


class Scene:
    """One run of the tiny model, and everything that anybody was shown of it.

    Args:
        segment: bytes of a segment's corrections at most; None leaves the plan whole.

    `said` is what clients were answered, (who, message); `frames` what the victim and the others sent each other.
    """

    def __init__(self, cluster: InProcess, logs: Callable[[], str], segment: int | None = None) -> None:
        Watched.dealt = []
        self.cluster, self.said, self.frames = cluster, [], []
        for middle in cluster.middles:
            middle.tamper = self._watch
        compiled = cluster.compiled(SEPARATE)
        plan = compiled.plan if segment is None else compiled.plan.with_segments(segment)
        self.script = script = Script(cluster, replace(compiled, plan=plan)).open()
        script.enter_weights().prepare(1)
        self.keep(COORDINATOR, (cluster.party(i).Describe(party_pb2.DescribeRequest()) for i in self.indices))
        replies = script.everyone(lambda i: script.masks(i, 1, OWNER))
        self.keep(OWNER, replies)
        self.masked = script.masked(script.integers(candidate(ENTERED)), replies)
        script.everyone(lambda i: [script.submit(i, 1, wire, value, OWNER) for wire, value in self.masked.items()])
        for who in (RECIPIENT, COORDINATOR, MODEL_OWNER, OWNER):
            self.keep(who, chain.from_iterable(script.result(i, 1, who) for i in self.indices))
            status = party_pb2.StatusRequest(session_id=script.id, run=1)
            self.keep(who, (cluster.party(i, who).Status(status) for i in self.indices))
        self.bundle = BundleId.of_run(script.id, 1, 1)
        self.bound: Plan = script.plan.bind(1)
        self.segments = [slice(part.start, part.stop) for part in segments(self.bound, EntryId(1))]
        self.seeds = [self._seed(name, 1) for name in cluster.names]
        self.run = cluster.of(0, script.id).runs.get(1)
        self.public = {
            wire.name: self._public(wire.name) for wire in self.bound.wires if self._public(wire.name) is not None
        }
        self.logged = logs()

    @property
    def indices(self) -> range:
        return range(len(self.cluster.names))

    def keep(self, who: str, messages: Iterable[Message]) -> None:
        self.said += [(who, message) for message in messages]

    def _watch(self, sender: str, number: int, frame: party_pb2.Frame) -> list[party_pb2.Frame]:
        self.frames.append(frame)
        return [frame]

    def _seed(self, name: str, run: int) -> Seed:
        parts = [part for who, number, part in Watched.dealt if (who, number) == (name, run)]
        return next(Seed(part.header.seed) for part in parts if isinstance(part, provider_pb2.DealPart))

    def _public(self, name: str) -> np.ndarray | None:
        unopened = self.bound.wire[name].masking is Masking.UNOPENED
        return None if unopened else self.run.party.masked(name).public

    @property
    def corrections(self) -> bytes:
        """What the victim was sent."""
        name = self.cluster.names[VICTIM]
        return b"".join(
            bytes(part.data) for who, run, part in Watched.dealt if who == name and run == 1 and hasattr(part, "data")
        )

    @property
    def salts(self) -> list[bytes]:
        """What the parties greet each other with, in the order of the roster."""
        heard = {}
        for index in (0, 1):
            links = self.cluster.of(index, self.script.id).links
            heard |= {name: link.peer_salt for name, link in links.items()}
        return [heard[name] for name in self.cluster.names]

    def transcript_key(self) -> bytes:
        """The key that all parties have, from their salts."""
        return digest("mpc/v1/transcript-key", *self.salts)

    # -- what somebody was shown

    def public_messages(self) -> list[bytes]:
        """What goes by the name of public: ticket, logs and metrics of all processes."""
        metrics = [generate_latest(node.counters.registry) for node in self.cluster.nodes]
        ticket = Ticket(self.script.plan, self.script.terms).text
        return [ticket.encode(), self.logged.encode(), self.script.plan.canonical, *self.script.terms.nonces, *metrics]

    def shown_to_all_but_the_victim(self) -> list[bytes]:
        """All clients, all other parties with their disks, and the links."""
        others = [name for index, name in enumerate(self.cluster.names) if index != VICTIM]
        dealt = [part for who, _, part in Watched.dealt if who in others]
        folders = [self.cluster.party_config(i).data_dir for i in self.indices if i != VICTIM]
        files = [path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()]
        messages = (
            [message for _, message in self.said] + self.frames + [part for part in dealt if isinstance(part, Message)]
        )
        return [*self.public_messages(), *files, *self.salts, self.transcript_key(), *map(bytes_of, messages)]

    def shown_to_the_provider_and_its_friends(self) -> list[bytes]:
        """The provider with the coordinator and the model's owner; they receive no output."""
        heard = [message for who, message in self.said if who in (COORDINATOR, MODEL_OWNER)]
        dealt = [part for _, _, part in Watched.dealt if isinstance(part, Message)]
        seeds = [seed.secret for seed in self.seeds]
        return [*self.public_messages(), *seeds, *map(bytes_of, heard + dealt)]


def bytes_of(message: Message) -> bytes:
    return message.SerializeToString()


def candidate(number: int) -> np.ndarray:
    return data(1, seed=100 + number)


def digests_in(shown: Sequence[bytes]) -> set[bytes]:
    """Every 32 bytes that stand anywhere in what was shown, raw or as hexadecimal digits."""
    found = {blob[start : start + 32] for blob in shown for start in range(len(blob) - 31)}
    for blob in shown:
        for digits in re.findall(rb"[0-9a-fA-F]{64,}", blob):
            found |= {bytes.fromhex(digits[i : i + 64].decode()) for i in range(0, len(digits) - 63)}
    return found


def keys_in(shown: Sequence[bytes], bundle: BundleId) -> list[bytes]:
    """Everything of 32 bytes that looks like a value of its own: protobuf's fields, hexadecimal, whole blobs; and
    what the seeds among them give."""
    found = {bytes(32)} | {blob for blob in shown if len(blob) == 32}
    for blob in shown:
        found |= {match[2:] for match in re.findall(rb"(?=(.\x20.{32}))", blob, re.S)}
        found |= {
            bytes.fromhex(match.decode()) for match in re.findall(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", blob)
        }
    return sorted(found | {bundle.digest_key(Seed(each)).secret for each in found})


def hashes(content: bytes, keys: Iterable[bytes], segment: int = 0) -> Iterator[bytes]:
    """The content hashed in every way in use here, without a key and under each; as corrections of that segment."""
    tags = ("mpc/v1/corrections", "mpc/v2/corrections", "mpc/v1/output", "mpc/v1/weights", "mpc/v1/public-weights")
    headed = (canonical("mpc/v3/corrections", segment, len(content)), *(canonical(tag, len(content)) for tag in tags))
    for plain in (content, *(head + content for head in headed)):
        yield hashlib.sha256(plain).digest()
        yield blake3(plain).digest()
    yield from (digest(tag, content) for tag in tags)
    for key in keys:
        keyed = CorrectionsDigest(Seed(key), len(content), segment)
        keyed.update(content)
        yield keyed.value
        yield blake3(content, key=key).digest()
        yield hmac.digest(key, content, "sha256")
        yield hashlib.sha256(key + content).digest()


# ------------------------------------------------- who holds all shares but one party's


class Guessing(Dealer):
    """Deals as the provider did, if this guess is right: a wire's mask is what was opened less what is guessed.

    It is even handed the victim's other uniform values (`draws`), so that it misses nothing but the masks.
    """

    def __init__(self, scene: Scene, values: dict[str, np.ndarray]) -> None:
        known = SessionMasks()
        wires = scene.bound.wire
        self._guessed = {
            name: fp.sub(public, fp.from_signed(values[name])) for name, public in scene.public.items() if name in wires
        }
        known.masks.update(self._guessed)
        super().__init__(wires, [scene.bundle.draws(seed) for seed in scene.seeds], VICTIM, known)

    def uniform(self, name: str) -> np.ndarray:
        wire = name.removeprefix(mask_name(""))
        if wire == name:
            return super().uniform(name)
        self._claim(name, dependent=False)
        return self._guessed[wire]


def corrections_if(scene: Scene, x: np.ndarray) -> bytes | None:
    """What the victim was sent if this was entered; None if it cannot have been."""
    given = {**scene.script.compiled.weights, **scene.script.integers(x)}
    try:
        values = reference.evaluate(scene.bound, given, lambda name, shape: scene.public[name])
    except PlanError:
        return None
    sent = bytearray()
    Guessing(scene, values).run(in_turn(scene.bound.online, scene.bound.wire), sent.extend, ())
    return bytes(sent)


def named(scene: Scene, shown: Sequence[bytes], keys: Sequence[bytes]) -> list[int]:
    """The candidates that something shown confirms."""
    known = digests_in(shown)
    guesses = [(number, corrections_if(scene, candidate(number))) for number in range(CANDIDATES)]
    return [
        number for number, content in guesses if content is not None and any(digests_of(scene, content, known, keys))
    ]


def digests_of(scene: Scene, content: bytes, known: set[bytes], keys: Sequence[bytes]) -> list[bool]:
    """Whether each segment of these corrections, and at last all in a row, has a hash that is known."""
    parts = [(content[part], number) for number, part in enumerate(scene.segments) if content[part]]
    return [not known.isdisjoint(hashes(of, keys, number)) for of, number in (*parts, (content, 0))]


@pytest.fixture(params=[2, 3])
def parties(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(params=[None, 1], ids=["whole", "segments"])
def segment(request: pytest.FixtureRequest) -> int | None:
    return request.param


@pytest.fixture
def logs(written: io.StringIO, capsys: pytest.CaptureFixture) -> Callable[[], str]:
    return lambda: written.getvalue() + "".join(capsys.readouterr())


@pytest.fixture
def cluster(tmp_path: Path, parties: int) -> Iterator[InProcess]:
    with watched(tmp_path, parties) as running:
        yield running


def watched(folder: Path, parties: int, draw: Callable[[int], bytes] | None = None) -> InProcess:
    """A cluster whose provider's answers, and what the victim and the others send each other, are written down."""
    return InProcess(folder, parties, provider=Watched, middles=[(0, 1), (1, 2)][: parties - 1], draw=draw)


def test_security_30_all_shares_but_one_partys_confirm_no_guess(
    cluster: InProcess, logs: Callable, segment: int | None
) -> None:
    scene = Scene(cluster, logs, segment)
    shown = scene.shown_to_all_but_the_victim()
    assert scene.corrections and corrections_if(scene, candidate(ENTERED)) == scene.corrections  # the attack is right
    keys = keys_in(shown, scene.bundle)
    assert {scene.seeds[index].secret for index in scene.indices if index != VICTIM} <= set(keys)
    assert scene.transcript_key() in keys and scene.seeds[VICTIM].secret not in keys
    assert named(scene, shown, keys) == []
    # the control: with the victim's key, which is all that is missing, the input is named, by each segment's digest
    victims = [scene.bundle.digest_key(scene.seeds[VICTIM]).secret]
    assert named(scene, shown, victims) == [ENTERED]
    *each, _ = digests_of(scene, scene.corrections, digests_in(shown), victims)
    assert each == ([True] if segment is None else [True, True])


def test_security_30_the_attack_works_where_everybody_has_the_key(
    cluster: InProcess, logs: Callable, segment: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what an unkeyed digest gives away, to an attacker who is told nothing more."""
    monkeypatch.setattr(BundleId, "digest_key", lambda self, seed: Seed(bytes(32)))
    scene = Scene(cluster, logs, segment)
    shown = scene.shown_to_all_but_the_victim()
    assert named(scene, shown, keys_in(shown, scene.bundle)) == [ENTERED]


# ------------------------------------------------------------- the provider and its friends


class Kept(Transcript):
    """Remembers what it absorbs, so that it can be made again under another key."""

    def __init__(self, *context: object) -> None:
        super().__init__(*context)
        self.context, self.parts = context, []

    def absorb(self, *parts: object) -> None:
        self.parts.append([bytes(part) if isinstance(part, memoryview) else part for part in parts])
        super().absorb(*parts)

    def under(self, key: bytes) -> Iterator[bytes]:
        """Its digest at every moment, had it been made with this key."""
        made = Transcript(key, *self.context[1:])
        yield made.digest
        for parts in self.parts:
            made.absorb(*parts)
            yield made.digest


def transcript_if(scene: Scene, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> tuple[Kept, dict[str, np.ndarray]]:
    """All parties played by the provider, who has all their seeds: (what they open if this was entered, x^)."""
    plan, weights = scene.bound, cluster_weights(scene)
    corrections = scene.corrections
    bundles = [
        Bundle(scene.bundle, seed, plan.online, plan.wire, corrections if index == VICTIM else None)
        for index, seed in enumerate(scene.seeds)
    ]
    given = {}
    for name, values in scene.script.integers(x).items():
        masks = [expand_field(bundle.mask_seed(name), plan.wire[name].sizes) for bundle in bundles]
        total = fp.from_signed(values)
        for mask in masks:
            total = fp.add(total, mask)
        given[name] = total
    with monkeypatch.context() as patch:
        patch.setattr(party_module, "Transcript", Kept)
        runs = [PartyRun(plan, Lane.passive(i), bundle, weights[i]) for i, bundle in enumerate(bundles)]
    for run in runs:
        run.prepare()
    running = [run.steps(given) for run in runs]
    payloads = [bytes(next(steps)) for steps in running]
    while any(payloads):
        following = []
        for index, steps in enumerate(running):
            try:
                following.append(bytes(steps.send([p for i, p in enumerate(payloads) if i != index])))
            except StopIteration:
                following.append(b"")
        payloads = following
    return runs[0].transcript, given | {name: runs[0].output(name) for name in {out.wire for out in plan.outputs}}


def cluster_weights(scene: Scene) -> list[SessionWires]:
    """What the provider and the model's owner know of the weights at every party."""
    return [scene.cluster.of(index, scene.script.id).runs.get(1).party.session for index in scene.indices]


def confirmed(
    scene: Scene, shown: Sequence[bytes], keys: Sequence[bytes], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    known, found = digests_in(shown), []
    for number in range(CANDIDATES):
        transcript, masked = transcript_if(scene, candidate(number), monkeypatch)
        hits = [value for key in (b"", *keys) for value in transcript.under(key)]
        for public in masked.values():
            hits += hashes(bytes(view_field(public)), keys)
        if not known.isdisjoint(hits):
            found.append(number)
    return found


def test_security_30_the_provider_and_its_friends_confirm_no_guess(
    cluster: InProcess, logs: Callable, segment: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows every mask, so any digest of x^, z^ or of openings that it or they see has to have the parties' key."""
    scene = Scene(cluster, logs, segment)
    shown = scene.shown_to_the_provider_and_its_friends()
    transcript, masked = transcript_if(scene, candidate(ENTERED), monkeypatch)
    assert [*transcript.under(scene.transcript_key())][-1] == scene.run.transcript  # the attack is right
    [(wire, value)] = scene.masked.items()
    assert np.array_equal(masked[wire], decode_field(value, scene.bound.wire[wire].sizes))
    keys = keys_in(shown, scene.bundle)
    assert confirmed(scene, shown, keys, monkeypatch) == []
    # the controls: with the parties' key; and with the output's digest, which goes to its recipient alone
    assert confirmed(scene, shown, [scene.transcript_key()], monkeypatch) == [ENTERED]
    theirs = [bytes_of(message) for who, message in scene.said if who == RECIPIENT]
    assert confirmed(scene, theirs, [], monkeypatch) == [ENTERED]


def test_seeds_and_salts_have_what_no_guess_reaches(tmp_path: Path, parties: int, logs: Callable) -> None:
    """Commitments show H(k_i), and the transcript's key is made of salts: 256 bits from the system each."""
    drawn: list[bytes] = []

    def draw(size: int) -> bytes:
        drawn.append(entropy.token(size))
        return drawn[-1]

    with watched(tmp_path, parties, draw) as cluster:
        scene = Scene(cluster, logs)
        secrets = {*scene.salts, *(seed.secret for seed in scene.seeds)}
        assert secrets <= set(drawn) and len(set(scene.salts)) == parties
    assert all(len(value) == 32 for value in secrets)
    assert len(set(drawn)) == len(drawn)
