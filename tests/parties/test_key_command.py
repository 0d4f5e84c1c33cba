"""The wrapping key in an operator's own store: asked by a command, exchanged at removals, and never written down."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import ConfigError, MpcError, SessionError
from parties.client.at_rest import catalogue
from parties.config.models import PartyConfig
from parties.party.ledger.sessions import Ledger
from parties.party.vault.key_command import LEFT, KeyCommand
from parties.party.vault.vault import Vault
from tests.support.effort import patient
from tests.support.objects import AGE, described, put
from tests.support.parties import InProcess

STORE = """
import json, os, sys, time
folder, verb, which = sys.argv[1:4]
with open(os.path.join(folder, "calls"), "a") as calls:
    calls.write(json.dumps(sys.argv[2:]) + "\\n")
place = os.path.join(folder, "mode")
mode = [*(open(place).read().split() if os.path.exists(place) else ()), ""]
if mode[0] in ("fail", verb):
    sys.exit(3)
if mode[0] == "slow":
    time.sleep(60)
path = os.path.join(folder, which + ".key")
if verb == "put":
    given = sys.stdin.read()
    print(given, file=sys.stderr)
    if mode[0] != "forgets":
        open(path, "w").write(given)
elif verb == "get" and os.path.exists(path):
    print("f" * 64 if mode[0] == "lies" else open(path).read())
elif verb == "delete" and os.path.exists(path):
    os.unlink(path)
"""


class Store:
    """A KMS: a folder, and the command that reaches it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "store.py").write_text(STORE)
        self.command = (sys.executable, "-I", "-S", str(folder / "store.py"), str(folder))

    def behave(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    @property
    def keys(self) -> dict[str, str]:
        return {path.stem: path.read_text() for path in self.folder.glob("*.key")}

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class WithCommand(InProcess):
    """A cluster whose first party keeps its wrapping key in a store."""

    store: Store

    def party_config(self, index: int) -> PartyConfig:
        config = super().party_config(index)
        changes: dict[str, Any] = {"data_key_command": self.store.command, "data_key_seconds": patient(20)}
        return config.model_copy(update=changes) if index == 0 else config


@pytest.fixture
def cluster(tmp_path: Path, store: Store) -> Iterator[InProcess]:
    made = WithCommand(tmp_path / "cluster", 2)
    made.store = store
    with made as running:
        yield running


def test_the_key_is_the_stores_and_nowhere_else(cluster: InProcess, store: Store) -> None:
    kept = put(cluster.client("hospital"), described(columns=(AGE,)))
    [(name, key)] = store.keys.items()
    vault = cluster.nodes[0].vault
    assert vault.keys.id == name and len(key) == 64
    value = vault.block(kept.id, "age", 0)
    for path in cluster.party_config(0).data_dir.rglob("*"):
        if path.is_file():
            assert bytes.fromhex(key) not in path.read_bytes() and key.encode() not in path.read_bytes(), path
    cluster.crash(0)
    cluster.revive(0)
    assert np.array_equal(cluster.nodes[0].vault.block(kept.id, "age", 0), value)
    assert all(len(call) == 2 and key not in call for call in store.calls)


def test_a_removal_exchanges_the_key_and_deletes_the_old_one(cluster: InProcess, store: Store) -> None:
    client = cluster.client("hospital")
    gone, stays = put(client, described(columns=(AGE,))), put(client, described("stays", columns=(AGE,)))
    [old] = store.keys
    value = cluster.nodes[0].vault.block(stays.id, "age", 0)
    catalogue.remove(client, gone.id)
    [new] = store.keys
    assert new != old and cluster.nodes[0].vault.keys.id == new
    assert np.array_equal(cluster.nodes[0].vault.block(stays.id, "age", 0), value)
    assert not (cluster.nodes[0].vault.folder / LEFT).exists()


def test_an_old_key_that_cannot_be_deleted_yet_is_said_and_tried_again(cluster: InProcess, store: Store) -> None:
    """What was removed is gone; that the store's old key would open an old copy is not kept from its owner."""
    client = cluster.client("hospital")
    gone = put(client, described(columns=(AGE,)))
    [old] = store.keys
    store.behave("delete")
    with pytest.raises(MpcError) as caught:
        catalogue.remove(client, gone.id)
    assert str(store.folder) not in str(caught.value)
    assert len(store.keys) == 2 and not list(cluster.nodes[0].vault.folder.glob("*.block"))
    with pytest.raises(SessionError, match="no such object"):
        cluster.nodes[0].vault.manifest(gone.id)
    with pytest.raises(MpcError):  # it is not answered before the key is gone
        catalogue.remove(client, gone.id)
    cluster.crash(0)
    cluster.revive(0)  # the store does not delete: that stops no party
    assert old in store.keys
    store.behave("")
    catalogue.remove(client, gone.id)
    assert old not in store.keys and len(store.keys) == 1


def test_a_store_that_fails_at_a_removal_changes_nothing(cluster: InProcess, store: Store) -> None:
    client = cluster.client("hospital")
    kept = put(client, described(columns=(AGE,)))
    for mode in ("put", "forgets"):
        store.behave(mode)
        with pytest.raises(MpcError):
            catalogue.remove(client, kept.id)
        assert cluster.nodes[0].vault.manifest(kept.id) == kept
    store.behave("")
    catalogue.remove(client, kept.id)
    assert len(store.keys) == 1


def opened(cluster: InProcess, **changes: Any) -> Ledger:
    """The first party's vault as its process finds it at its start."""
    config = cluster.party_config(0).model_copy(update=changes)
    ledger = Ledger.open(config.data_dir)
    try:
        Vault(config, cluster.identity("party-0"), ledger)
    except BaseException:
        ledger.close()
        raise
    return ledger


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("fail", "ended with status 3"),
        ("lies", "something else than the key"),
        ("slow", "took longer than 1 seconds"),
    ],
)
def test_a_command_that_fails_stops_the_start(cluster: InProcess, store: Store, mode: str, why: str) -> None:
    cluster.crash(0)
    store.behave(mode)
    started = time.monotonic()
    with pytest.raises(ConfigError, match=why) as caught:
        opened(cluster, data_key_seconds=1.0 if mode == "slow" else patient(20))
    assert time.monotonic() - started < patient(30)
    assert caught.value.local and all(key not in str(caught.value) for key in store.keys.values())
    store.behave("")
    opened(cluster).close()


def test_no_such_program_and_a_lost_key_are_said(cluster: InProcess, store: Store) -> None:
    cluster.crash(0)
    with pytest.raises(ConfigError, match="data_key_command"):
        opened(cluster, data_key_command=("/nowhere/at-all",))
    for path in store.folder.glob("*.key"):
        path.unlink()
    with pytest.raises(ConfigError, match="without it the data are lost"):
        opened(cluster)


def test_no_shell_reads_the_command(cluster: InProcess, store: Store, tmp_path: Path) -> None:
    cluster.crash(0)
    odd = (
        *store.command[:-1],
        f"{store.folder}",
    )
    with pytest.raises(ConfigError):
        opened(cluster, data_key_command=(f"{sys.executable} -c pass; touch {tmp_path / 'made'}",))
    assert not (tmp_path / "made").exists()
    opened(cluster, data_key_command=odd).close()


def test_a_file_is_taken_over_by_the_command(tmp_path: Path, store: Store) -> None:
    with InProcess(tmp_path / "cluster", 2) as cluster:
        kept = put(cluster.client("hospital"), described(columns=(AGE,)))
        file = cluster.nodes[0].vault.folder / "key"
        secret = file.read_bytes()
        cluster.crash(0)
        opened(cluster, data_key_command=store.command).close()
        assert [bytes.fromhex(key) for key in store.keys.values()] == [secret] and not file.exists()
        config = cluster.party_config(0).model_copy(update={"data_key_command": store.command})
        with Ledger.open(config.data_dir) as ledger:
            assert Vault(config, cluster.identity("party-0"), ledger).manifest(kept.id) == kept
        with pytest.raises(ConfigError, match="does not hold the key"):
            opened(cluster)  # and back again only with the file


def test_a_crash_between_the_store_and_the_ledger_leaves_one_key(
    cluster: InProcess, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before, and after, the ledger names the new key."""
    client = cluster.client("hospital")
    vault = cluster.nodes[0].vault
    for place, name in (("before", "one"), ("after", "two")):
        gone = put(client, described(name, columns=(AGE,)))
        with monkeypatch.context() as patch:
            if place == "before":
                patch.setattr(cluster.ledgers[0], "writing", _killed)
            else:
                patch.setattr(type(vault.keys), "settle", _killed)
            with pytest.raises(MpcError):
                catalogue.remove(client, gone.id)
        assert len(store.keys) == 2
        cluster.crash(0)
        cluster.revive(0)
        vault = cluster.nodes[0].vault
        assert [*store.keys] == [vault.keys.id]


def _killed(*_: object, **__: object) -> Any:
    raise RuntimeError("killed")


def test_nothing_of_a_key_is_shown(
    cluster: InProcess, store: Store, written: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    """The store's program tells the key on its standard error, and that is nobody's log."""
    client = cluster.client("hospital")
    gone = put(client, described(columns=(AGE,)))
    old = store.keys
    catalogue.remove(client, gone.id)
    keys = cluster.nodes[0].vault.keys
    told = "".join(capfd.readouterr()) + written.getvalue() + repr(keys)
    assert isinstance(keys, KeyCommand) and "an object was removed" in told
    every = [*old.values(), *store.keys.values()]
    assert len(every) == 2 and not any(key in told for key in every)


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("shred")), reason="needs openssl and shred")
def test_the_store_of_the_documentation_keeps_a_key_and_forgets_it(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    script = textwrap.dedent("  " + text[text.index("#!/bin/sh -eu\n  keys=") :].partition("  ```")[0])
    (tmp_path / "keys").mkdir()
    (tmp_path / "passphrase").write_text("a long one\n")
    script = script.replace("/mnt/mpc-keys", str(tmp_path / "keys"))
    program = tmp_path / "mpc-key"
    program.write_text(script.replace("/etc/mpc/passphrase", str(tmp_path / "passphrase")))
    program.chmod(0o700)
    command = (str(program),), patient(20), tmp_path / "key", tmp_path / LEFT, os.urandom
    first = KeyCommand(*command)
    name = first.start(None)
    [kept] = (tmp_path / "keys").iterdir()
    assert kept.name == name and kept.read_bytes().startswith(b"Salted__") and kept.stat().st_mode & 0o077 == 0
    assert KeyCommand(*command).start(name) == name
    fresh = first.prepare()
    first.adopt(fresh)
    first.settle()
    assert [each.name for each in (tmp_path / "keys").iterdir()] == [fresh.id] != [name]
    with pytest.raises(ConfigError, match="without it the data are lost"):
        KeyCommand(*command).start(name)
