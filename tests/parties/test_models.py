"""Models at the parties: put once, used by whoever a grant allows, and never seen."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.compiler.compile import compile_model
from mpc.errors import InputError, ModelError, MpcError, MpcWarning, PolicyError, SessionError, UsageError
from mpc.prg import SEED_BYTES
from parties.agreed.objects import Manifest
from parties.agreed.ticket import Ticket
from parties.client.at_rest import keeping, sending
from parties.client.guest import Guest
from parties.client.model import model_name, refuse_stored
from parties.client.running.opening import prepare
from parties.client.session import Session
from tests.support.graphs import node, save_model
from tests.support.lab import ANALYST, DOCTOR, HOSPITAL, LAB, RANGES, Lab
from tests.support.parties import InProcess, data, tiny_answer, tiny_model

X = data(5)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("cluster")
    with InProcess(folder, 2) as running:
        yield Lab(running, folder)


def near(found: np.ndarray, x: np.ndarray, secret: float = 0.625) -> bool:
    return bool(np.abs(found - tiny_answer(x, secret)).max() < 1e-3)


def test_who_is_granted_uses_a_model_without_its_owner_or_its_file(lab: Lab) -> None:
    lab.put("own")
    found = lab.models(ANALYST).get("lab/own")
    with pytest.raises(PolicyError, match="granted analyst no use of it; fix: ask lab: mpc model grant lab/own"):
        lab.open(found.place())
    lab.models().grant("own", ANALYST)
    assert near(lab.use(found.place(), {"x": X}), X)
    [verdict, _] = found.ask()
    assert verdict.allowed and verdict.mechanism == "exact"


def test_its_owner_uses_it_without_a_word(lab: Lab) -> None:
    assert near(lab.use(lab.models().get("triage").place(), {"x": X}, LAB), X)


def test_a_session_costs_what_one_with_entered_weights_costs_but_for_the_entering(lab: Lab) -> None:
    entered = compile_model(tiny_model(lab.folder / "entered.onnx"), RANGES)
    prices, setups = [], []
    for of, bindings in ((entered, ()), (placed := lab.models().get("triage").place(), placed.bindings)):
        client = LAB if of is placed else "coordinator"
        with Session(lab.cluster.client(client), of, bindings=bindings) as session:
            session.run(None, {"x": X})
            prices.append((session.last_run.rounds, session.last_run.sent_bytes, session.last_run.dealt_bytes))
            setups.append(session.remote.setup_dealt)
    assert prices[0] == prices[1]
    assert setups[1] <= setups[0] == SEED_BYTES * 2  # for entered weights nothing is dealt either, but their seeds


def test_it_is_found_and_described_and_is_no_dataset(lab: Lab) -> None:
    lab.table("listed")
    models, datasets = lab.models(ANALYST), lab.datasets(ANALYST)
    assert "lab/triage" in [each.name for each in models.search("tria")]
    assert "hospital/listed" not in [each.name for each in models.list()]
    assert "lab/triage" not in [each.name for each in datasets.list()] and not datasets.search("triage")
    found = models.get("lab/triage")
    assert found.describe().content()["inputs"] == [
        {"name": "x", "shape": ["batch", 3], "type": "float32", "range": [[-4.0], [4.0]]}
    ]
    for words in ("Triage of admissions", "4 arrays of weights, 14 numbers; owner lab", "batch x 3", "-4:4"):
        assert words in repr(found.describe())
    assert "<table>" in found._repr_html_() and "lab/triage" in repr(models.list())
    assert [each.name for each in found.get_inputs()] == ["x"] and [each.name for each in found.get_outputs()] == ["y"]
    with pytest.raises(UsageError, match="is a model"):
        datasets.get("lab/triage")
    with pytest.raises(UsageError, match="is a dataset"):
        models.get("hospital/listed")
    with pytest.raises(SessionError, match="no model"):
        models.get("lab/unknown")
    with pytest.raises(InputError, match="no dataset"):
        lab.datasets(LAB).remove("triage")


def test_nothing_of_the_weights_is_in_what_is_public(lab: Lab) -> None:
    first, second = lab.put("first", 0.6251), lab.put("second", 0.6257)
    assert first.plan.canonical == second.plan.canonical
    own = {"commitments", "contents", "created", "name"}
    public = [each.manifest.model_dump(exclude=own) for each in (first, second)]
    assert public[0] == public[1]


def test_four_people_none_of_whom_is_the_model_owner_s_client(lab: Lab) -> None:
    lab.models().grant("triage", ANALYST, recipients=DOCTOR, data_owners=HOSPITAL)
    placed = lab.models(ANALYST).get("lab/triage").place({"x": HOSPITAL}, DOCTOR)
    with lab.open(placed) as session:
        connected = {name: lab.cluster.client(name) for name in (HOSPITAL, DOCTOR)}
        answers = joined(session, connected, {HOSPITAL: {"x": X}, DOCTOR: None}, len(X))
    assert near(answers[DOCTOR][0], X)


def joined(session: Session, clients: dict[str, Any], feeds: dict[str, Any], rows: int) -> dict[str, Any]:
    def take_part(name: str) -> Any:
        return Guest(clients[name], Ticket.parse(session.ticket), None).run(feeds[name])

    with ThreadPoolExecutor(len(clients)) as pool:
        running = {name: pool.submit(take_part, name) for name in clients}
        session.run(None, {}, rows)
        return {name: each.result() for name, each in running.items()}


def test_a_stored_model_reads_a_stored_dataset_and_neither_owner_is_there(lab: Lab) -> None:
    values = lab.table("visits")
    dataset = lab.datasets(ANALYST).get("hospital/visits")
    made = lab.put("reader", data={"x": dataset})
    found = lab.models(ANALYST).get("lab/reader")
    placed = found.place(recipients=DOCTOR, data={"x": dataset})
    lab.models().grant("reader", ANALYST, recipients=DOCTOR, entered=False, datasets="hospital/visits")
    with pytest.raises(PolicyError, match="hospital/visits may not be used"):
        lab.open(placed)
    hospital = lab.datasets()
    grant = hospital.grant("visits", ANALYST, recipients=DOCTOR, plans=placed)
    [listed] = grant.question.exact.plans
    assert {each.dataset for each in listed.weights.values()} == {made.manifest.id.hex()}  # pinned, not "any"
    with lab.open(placed) as session:
        answers = joined(session, {DOCTOR: lab.cluster.client(DOCTOR)}, {DOCTOR: None}, len(values))
    assert near(answers[DOCTOR][0], values)
    lab.models().grant("reader", ANALYST)  # and it takes what is entered for a run as well
    assert near(lab.use(found.place(), {"x": X}), X)


@pytest.mark.parametrize(
    ("name", "allowed", "words"),
    [
        ("recipients", {"recipients": DOCTOR}, "does not name the recipient analyst"),
        ("owners", {"data_owners": HOSPITAL}, "names other data owners than analyst"),
        ("entered", {"entered": False}, "input 'x' is entered for the run"),
        ("coordinators", {"coordinators": DOCTOR}, "names other coordinators"),
    ],
)
def test_a_grant_s_own_words_decide(lab: Lab, name: str, allowed: dict[str, Any], words: str) -> None:
    lab.put(name)
    lab.models().grant(name, **{"coordinators": ANALYST, **allowed})
    with pytest.raises(PolicyError, match=words):
        lab.open(lab.models(ANALYST).get(f"lab/{name}").place())


def test_only_the_datasets_that_are_named_are_read(lab: Lab) -> None:
    lab.table("one")
    lab.table("two")
    one, two = (lab.datasets(ANALYST).get(f"hospital/{name}") for name in ("one", "two"))
    lab.put("chosen", data={"x": one})
    lab.models().grant("chosen", ANALYST, datasets=[one.manifest.id.hex()], entered=False)
    found = lab.models(ANALYST).get("lab/chosen")
    placed = {each.name: found.place(data={"x": each}) for each in (one, two)}
    for name, each in placed.items():
        lab.datasets().grant(name, ANALYST, plans=each)
    lab.use(placed["hospital/one"])
    with pytest.raises(PolicyError, match="does not name the dataset hospital/two"):
        lab.open(placed["hospital/two"])


def test_uses_and_rows(lab: Lab) -> None:
    lab.put("counted")
    lab.models().grant("counted", ANALYST, uses=2, rows=4)
    placed = lab.models(ANALYST).get("lab/counted").place()
    assert near(lab.use(placed, {"x": X[:4]}), X[:4])
    before = lab.revealed()
    with pytest.raises(PolicyError, match="runs of 4 rows, and this one has 5"):
        lab.use(placed, {"x": X})
    assert lab.revealed() == before
    lab.use(placed, {"x": X[:1]})
    with pytest.raises(PolicyError, match="is used up"):
        lab.open(placed)


def test_versions_expiry_and_removal(lab: Lab) -> None:
    lab.put("aged")
    lab.models().grant("aged", ANALYST)
    old = lab.models(ANALYST).get("lab/aged").place()
    second = lab.put("aged", 0.25)
    assert second.version == 2 and second.manifest.previous == old.manifest.id.hex()
    new = lab.models(ANALYST).get("lab/aged").place()
    assert near(lab.use(old, {"x": X}), X)
    with pytest.raises(PolicyError, match="granted analyst no use"):
        lab.open(new)
    every = lab.models().grant("aged", ANALYST, versions=True)
    assert near(lab.use(new, {"x": X}), X, 0.25)
    assert [each.version for each in lab.models().list(versions=True) if each.name == "lab/aged"] == [2, 1]
    lab.models().revoke(every)
    with pytest.raises(PolicyError, match="was revoked"):
        lab.open(new)
    assert len(lab.models().remove("aged")) == 2
    for gone in (old, new):
        with pytest.raises(SessionError, match="no such object"):
            lab.open(gone)
    with pytest.raises(SessionError, match="no model"):
        lab.models(ANALYST).get("lab/aged")


def test_a_refreshed_model_is_used_under_the_grants_of_the_old_one(lab: Lab) -> None:
    lab.put("renewed", data={"x": lab.dataset("renewed")})
    source = lab.datasets(ANALYST).get("hospital/renewed")
    lab.models().grant("renewed", ANALYST, datasets=[source.manifest.id.hex()])
    old = lab.models(ANALYST).get("lab/renewed")
    new = lab.models().refresh("renewed")
    assert new.version == 2 and new.plan.digest == old.plan.digest and new.manifest.columns == old.manifest.columns
    assert new.manifest.commitments != old.manifest.commitments
    found = lab.models(ANALYST).get("lab/renewed")
    assert near(lab.use(found.place(), {"x": X}), X)
    with pytest.raises(SessionError, match="no such object"):
        lab.open(old.place())
    fresh = lab.datasets().refresh("renewed")  # a grant that names a version of a dataset holds for its refresh
    placed = found.place(data={"x": fresh})
    lab.datasets().grant("renewed", ANALYST, plans=placed)
    assert len(lab.use(placed)) == source.rows


def test_nobody_else_refreshes_a_model_and_nothing_else_reads_its_weights(lab: Lab) -> None:
    with pytest.raises(UsageError, match="would be lab's"):
        lab.models(ANALYST).refresh("lab/triage")
    with pytest.raises(MpcError, match="keeps nothing under the name of lab|granted analyst no use of it"):
        keeping.refresh(lab.cluster.client(ANALYST), _as_owned_by(lab.model.manifest, ANALYST))
    with pytest.raises(UsageError, match="is a model"):
        lab.datasets(LAB).refresh("triage")


def _as_owned_by(manifest: Manifest, owner: str) -> Manifest:
    """What a client that does not look at whose it is takes it for."""

    class Mine(Manifest):
        @property
        def id(self) -> bytes:
            return manifest.id

    fields = {name: getattr(manifest, name) for name in Manifest.model_fields}
    return Mine.model_construct(**{**fields, "owner": owner})


def test_an_interrupted_put_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    class Cut(Exception):
        pass

    def stop(at: int, of: int) -> None:
        done.append(at)
        if at == 2:
            raise Cut

    with pytest.raises(Cut):
        lab.put("cut", progress=stop)
    sent: list[int] = []
    real = sending.Sending.send
    monkeypatch.setattr(
        sending.Sending, "send", lambda self, place, *rest: sent.append(place) or real(self, place, *rest)
    )
    made = lab.put("cut")
    assert made.version == 1 and len(sent) < 4 and done[:2] == [1, 2]
    assert near(lab.use(lab.models().get("cut").place(), {"x": X}, LAB), X)


def test_who_may_not_see_it_is_warned_of_and_told_nothing(lab: Lab) -> None:
    lab.put("hidden", visible=False)
    with pytest.raises(SessionError, match="no model"):
        lab.models(ANALYST).get("lab/hidden")
    with pytest.warns(MpcWarning, match="analyst may not see lab/hidden"):
        lab.models().grant("hidden", ANALYST)


def test_what_cannot_be_put_or_placed_is_refused(lab: Lab) -> None:
    (lab.folder / "bare").mkdir()
    bare = save_model(lab.folder / "bare", [node("Relu", ["x"], ["y"])], shape=("batch", 3))
    with pytest.raises(InputError, match="weights are not all secret"):
        lab.models().put("bare", bare, RANGES)
    with pytest.raises(ModelError):
        lab.models().put("none", lab.folder / "no such file.onnx")
    with pytest.raises(UsageError, match="would be eve's"):
        lab.models().put("eve/x", bare)
    found = lab.models(ANALYST).get("lab/triage")
    for roles, words in (
        ({"owners": {"z": HOSPITAL}}, "no input 'z'"),
        ({"recipients": {"z": DOCTOR}}, "no output 'z'"),
        ({"recipients": "party-0"}, "is a process of the cluster"),
        ({"data": {"x": 3}}, "is no dataset"),
    ):
        with pytest.raises(UsageError, match=words):
            found.place(**roles)
    lab.table("coarse")
    dataset = lab.datasets(ANALYST).get("hospital/coarse")
    with pytest.raises(InputError, match="ask lab to put it for this dataset"):
        lab.models(ANALYST).get("lab/triage").place(data={"x": dataset[["a", "b"]]})
    with pytest.raises(UsageError, match="no use of a model"):
        lab.models().grant("triage", ANALYST, rows=0)
    with pytest.raises(UsageError, match="a dataset's name is OWNER/NAME|no use of a model"):
        lab.models().grant("triage", ANALYST, datasets=["visits"])


def test_a_name_is_of_models_or_of_datasets_and_nothing_is_dealt_ahead(lab: Lab) -> None:
    with pytest.raises(SessionError, match="lab/triage is a model, and what is put now is a dataset"):
        lab.table("triage", owner=LAB)
    lab.table("rows", owner=LAB)
    with pytest.raises(SessionError, match="lab/rows is a dataset, and what is put now is a model"):
        lab.put("rows")
    with pytest.raises(UsageError, match="has no rows"):
        lab.datasets(LAB).append("triage", {"w1": [1.0]})
    for given in (lab.model, lab.model.place(), "@lab/triage"):
        with pytest.raises(UsageError, match="nothing is dealt ahead"):
            refuse_stored(given)


def test_a_name_a_file_and_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_name("@lab/triage") == model_name("lab/triage") == "lab/triage"
    assert model_name("lab/m.onnx") is None and model_name(Path("lab/triage")) is None and model_name("m.onnx") is None
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "triage").write_bytes(b"")
    assert model_name("lab/triage") is None and model_name("@lab/triage") == "lab/triage"
    parties = lab.cluster.client(ANALYST)
    nothing = {"ranges": None, "samples": None, "shapes": None, "security": None, "secret_weights": ()}
    found = lab.models(ANALYST).get("lab/triage")
    for given in ("@lab/triage", found, found.place()):
        ready = prepare(parties, given, None, None, None, "secret", nothing)
        assert ready.of.plan.digest == found.place().plan.digest and ready.bindings == found.place().bindings
    for model, said, words in (
        (found, {"compiling": {**nothing, "ranges": RANGES}}, "ranges would have to be said before"),
        (found, {"weights": "public"}, "weights would have to be said before"),
        (found.place(), {"owners": {"x": "eve"}}, "owners would have to be said before"),
    ):
        arguments = {"owners": None, "recipients": None, "data": None, "weights": "secret", "compiling": nothing}
        with pytest.raises(UsageError, match=words):
            prepare(parties, model, **{**arguments, **said})
