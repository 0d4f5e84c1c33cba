"""Configuration: precedence, typed errors with a fix, and a writer that its reader understands."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mpc.errors import ConfigError
from parties import disk
from parties.addresses import Endpoint
from parties.config.load import dump_toml, load
from parties.config.models import ClusterConfig, PartyConfig, PolicyConfig, ProviderConfig

PARTY = """\
name = "alice"
listen = "0.0.0.0:7001"
data_dir = "data"
threads = 2
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "/keys/alice.pem"
[provider]
name = "dealer"
address = "dealer.example:7000"
[deadlines]
step = 5
[[peers]]
name = "alice"
address = "alice.example:7001"
[[peers]]
name = "bob"
address = "[::1]:7002"
"""


def written(folder: Path, text: str = PARTY, name: str = "config.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path, cls: type[BaseModel] = PartyConfig, **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        load(cls, path, **{"environ": {}, **kwargs})
    assert caught.value.remedy
    return str(caught.value)


def test_a_file_with_defaults_and_paths_beside_it(tmp_path: Path) -> None:
    party = load(PartyConfig, written(tmp_path), environ={})
    assert party.tls.ca == tmp_path / "ca.pem"
    assert party.tls.key == Path("/keys/alice.pem")
    assert party.data_dir == tmp_path / "data"
    assert (party.deadlines.step, party.deadlines.connect, party.limits.max_plan_bytes) == (5, 10, 8 << 20)
    assert party.policy == PolicyConfig(plans=(), coordinators=(), owners=(), recipients=())
    assert [(peer.name, peer.address.host, peer.address.port) for peer in party.peers] == [
        ("alice", "alice.example", 7001),
        ("bob", "::1", 7002),
    ]


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    environ = {"MPC_DEADLINES_STEP": "7", "MPC_LISTEN": "1.2.3.4:9", "MPC_POLICY_OWNERS": "a, b", "MPC_TLS_CA": "x.pem"}
    party = load(PartyConfig, path, {"deadlines.step": 8, "threads": None}, environ)
    assert (party.deadlines.step, party.listen, party.threads) == (8, "1.2.3.4:9", 2)
    assert party.policy.owners == ("a", "b")
    assert party.tls.ca == Path.cwd() / "x.pem"
    assert load(PartyConfig, path, {}, environ).deadlines.step == 7
    assert load(PartyConfig, path, {}, {"MPC_PEERS": "alice=a:1,bob=b:2"}).peers[1].address == "b:2"


def test_models_are_frozen_and_closed(tmp_path: Path) -> None:
    party = load(PartyConfig, written(tmp_path), environ={})
    with pytest.raises(ValidationError):
        party.name = "mallory"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        PolicyConfig(planz=())  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("step = 5", "stp = 5", ["config.toml", "deadlines.stp", "did you mean step?"]),
        ("threads = 2", "thread = 2", ["unknown key thread", "did you mean threads?"]),
        ("threads = 2", "zzz = 2", ["unknown key zzz", "remove it; known:", "log_level"]),
        ('address = "[::1]:7002"', 'adress = "[::1]:7002"', ["peers.1.adress", "did you mean address?"]),
        ("step = 5", "step = 0", ["deadlines.step", "greater than 0", "correct deadlines.step in"]),
        ("step = 5", "step = inf", ["deadlines.step", "finite"]),
        ("step = 5", 'step = "soon"', ["deadlines.step", "'soon'"]),
        ("threads = 2", "threads = 0", ["threads"]),
        ('listen = "0.0.0.0:7001"', "", ["listen is missing", "add listen to"]),
        ('"0.0.0.0:7001"', '"0.0.0.0"', ["listen", "host:port"]),
        ('"0.0.0.0:7001"', '"0.0.0.0:0"', ["listen", "port from 1 to 65535"]),
        ('"0.0.0.0:7001"', "7001", ["listen", "string"]),
        ('name = "bob"', 'name = "alice"', ["peers.name", "'alice' is used twice"]),
        ('"[::1]:7002"', '"alice.example:7001"', ["peers.address", "used twice"]),
        ('name = "alice"\nlisten', 'name = "carol"\nlisten', ["peers must contain this party itself, 'carol'"]),
        ('name = "dealer"', 'name = "bob"', ["provider must not be one of the parties"]),
        ('name = "bob"', 'name = "any"', ["peers.1.name", "reserved"]),
        ('name = "bob"', 'name = "b b"', ["peers.1.name", "letters"]),
        ("[deadlines]\nstep = 5", '[policy]\nplans = ["ab"]', ["policy.plans", "64 hex digits"]),
        ("[deadlines]\nstep = 5", '[policy]\nowners = ["any", "bob"]', ["policy.owners", "reserved"]),
        ("[deadlines]\nstep = 5", '[policy]\nowners = "bob"', ["policy.owners"]),
        ("threads = 2", "threads = = 2", ["is not TOML", "line 4"]),
        ("threads = 2", 'log_level = "loud"', ["log_level"]),
    ],
)
def test_every_mistake_names_file_key_and_fix(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in PARTY
    message = refused(written(tmp_path, PARTY.replace(old, new, 1)))
    for part in expected:
        assert part in message, message


def test_a_misspelt_key_comes_before_the_one_it_leaves_missing(tmp_path: Path) -> None:
    message = refused(written(tmp_path, PARTY.replace("listen =", "listn =")))
    assert message.index("unknown key listn") < message.index("listen is missing")


def test_one_party_is_not_a_roster(tmp_path: Path) -> None:
    assert "peers" in refused(written(tmp_path, PARTY.rpartition("[[peers]]")[0]))


def test_mistakes_in_environment_and_flags_name_their_origin(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert "environment variable MPC_DEADLINES_STEP: deadlines.step" in refused(
        path, environ={"MPC_DEADLINES_STEP": "-1"}
    )
    assert "flag threads" in refused(path, overrides={"threads": "many"})
    assert "did you mean threads?" in refused(path, overrides={"thread": 1})
    assert "did you mean MPC_DEADLINES_STEP?" in refused(path, environ={"MPC_DEADLINE_STEP": "3"})
    assert "MPC_PEERS: peers.0.address" in refused(path, environ={"MPC_PEERS": "alice,bob"})


def test_other_programs_variables_are_let_be(tmp_path: Path) -> None:
    environ = {"MPC_PARENT_PIPE": "3", "MPC_HC_CONFIG": "x", "MPC_PARTIES": "a=b:1"}
    assert load(PartyConfig, written(tmp_path), environ=environ).name == "alice"


def test_a_section_that_is_a_value_is_an_error_even_when_overridden(tmp_path: Path) -> None:
    path = written(tmp_path, PARTY.replace("[deadlines]\nstep = 5\n", "").replace("threads = 2", "deadlines = 3"))
    assert "deadlines" in refused(path, overrides={"deadlines.step": 3})


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.toml")
    assert "cannot be read" in refused(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    assert "is not TOML" in refused(tmp_path / "latin.toml")


def test_provider_and_cluster_rosters(tmp_path: Path) -> None:
    base = {"name": "dealer", "listen": "h:1", "data_dir": "d", "tls": {"ca": "a", "certificate": "b", "key": "c"}}
    ProviderConfig.model_validate({**base, "parties": ["a", "b"]})
    for parties in (["a"], ["a", "a"], ["a", "dealer"]):
        with pytest.raises(ValidationError):
            ProviderConfig.model_validate({**base, "parties": parties})
    cluster = {
        "name": "client",
        "tls": base["tls"],
        "provider": {"name": "dealer", "address": "h:1"},
        "parties": [{"name": "a", "address": "h:2"}, {"name": "b", "address": "h:3"}],
    }
    ClusterConfig.model_validate(cluster)
    for name in ("a", "dealer"):
        with pytest.raises(ValidationError, match="own certificate"):
            ClusterConfig.model_validate({**cluster, "name": name})


@pytest.mark.parametrize("text", ["a:1", "1.2.3.4:65535", "[::1]:80", "my_service.local:5"])
def test_endpoints(text: str) -> None:
    assert Endpoint(text) == text


@pytest.mark.parametrize(
    "text", ["", ":1", "a", "a:", "a:65536", "a:-1", "a:1x", "::1:80", "[zz]:1", "a b:1", "a:\u0661", "a/b:1"]
)
def test_not_endpoints(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Endpoint(text)


def test_dump_and_load_are_inverse(tmp_path: Path) -> None:
    party = load(PartyConfig, written(tmp_path), {"metrics": "127.0.0.1:9100", "policy.plans": "any"}, {})
    assert load(PartyConfig, written(tmp_path, dump_toml(party), "again.toml"), environ={}) == party


class Texts(BaseModel):
    one: str
    many: tuple[str, ...]
    number: float
    flag: bool


@given(
    st.builds(
        Texts,
        one=st.text(st.characters(exclude_categories=["Cs"])),
        many=st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple),
        number=st.floats(allow_nan=False, allow_infinity=False),
        flag=st.booleans(),
    )
)
def test_any_text_survives_the_writer(texts: Texts) -> None:
    assert Texts.model_validate(tomllib.loads(dump_toml(texts))) == texts


def test_atomic_writes_keep_the_old_file_when_they_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    disk.write_atomic(path, b"old")
    before = os.umask(0o077)
    disk.write_atomic(path, b"newer", 0o644)
    os.umask(before)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"newer", 0o644)

    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        disk.write_atomic(path, b"newest")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"newer"
