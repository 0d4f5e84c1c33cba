"""A party that is killed at any write of a put or a removal: what was answered holds, and nothing else counts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest

from mpc.encoding import encode_field
from mpc.errors import SessionError
from mpc.prg import Seed
from parties.agreed.objects import Manifest, contents_digest
from parties.agreed.receipts import Receipt, Tombstone
from parties.agreed.signed import key_of
from parties.client.at_rest.masking import mask
from parties.config.models import PartyConfig
from parties.party.ledger import file
from parties.party.ledger.sessions import Ledger
from parties.party.vault.puts import Puts
from parties.party.vault.vault import Vault
from parties.trust.identity import Identity
from tests.support.objects import AGE, schema, table
from tests.support.parties import CLUSTER, InProcess

SALT = bytes(range(32))


class Killed(BaseException):
    """The process is gone."""


class Kill:
    """Raises at the k-th write to the disk, before it is done, and at all later ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.left, self.dead = at, False
        for name in ("fsync", "replace", "unlink"):
            monkeypatch.setattr(os, name, self.before(getattr(os, name)))
        transaction = file.transaction

        @contextmanager
        def dying(database: Any) -> Iterator[None]:
            with transaction(database):
                yield
                self.tick()

        monkeypatch.setattr(file, "transaction", dying)

    def before(self, call: Any) -> Any:
        def dying(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            return call(*args, **kwargs)

        return dying

    def tick(self) -> None:
        self.left -= 1
        if self.left < 0 or self.dead:
            self.dead = True
            raise Killed


@dataclass
class Life:
    """What one owner does at one party, and what it was answered."""

    config: PartyConfig
    identity: Identity
    other: Identity
    owner: Identity
    given: list[Seed] = field(default_factory=list)
    done: set[str] = field(default_factory=set)

    @property
    def key(self) -> bytes:
        return key_of(self.owner.certificate_pem)

    def begin(self, vault: Vault, name: str, put: bytes, version: int = 1, previous: str | None = None) -> Manifest:
        """A put up to its commit; the manifest."""
        puts = Puts(vault)
        said = schema(
            name=f"hospital/{name}",
            columns=(AGE,),
            created=int(time.time()),
            version=version,
            previous=previous,
        )
        puts.begin(put, said.content, "hospital", self.key)
        [own] = puts.seeds(put, 0, [0], self.key)
        assert own not in self.given
        self.given.append(own)
        foreign = Seed(os.urandom(32))
        self.x = mask(table(said)["age"], [own, foreign])
        puts.receive(put, 0, 0, own.commitment(), [encode_field(self.x)], "hospital", self.key)
        commitments = {"age": [[own.commitment(), foreign.commitment()]]}
        digest = blake3.blake3(encode_field(self.x)).digest()
        whole = Manifest.of(said, commitments, contents_digest(SALT, [digest]))
        self.receipt = puts.commit(put, whole.sign(self.owner), SALT, "hospital", self.key)
        return whole

    def complete(self, vault: Vault, whole: Manifest) -> None:
        foreign = Receipt(cluster=CLUSTER, party="party-1", object=whole.id.hex(), at=1).sign(self.other)
        Puts(vault).complete(whole.id, [self.receipt, foreign], "hospital", self.key)

    def remove(self, vault: Vault, whole: Manifest) -> None:
        stone = Tombstone(cluster=CLUSTER, owner="hospital", object=whole.id.hex(), at=1)
        vault.ending.remove(stone.sign(self.owner), "hospital", self.key)

    def all(self, vault: Vault) -> None:
        """Put an object, then remove it."""
        self.whole = self.begin(vault, "patients", b"p" * 16)
        self.done.add("commit")
        self.complete(vault, self.whole)
        self.done.add("complete")
        self.remove(vault, self.whole)
        self.done.add("remove")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    """Certificates and configs; nothing runs."""
    return InProcess(tmp_path_factory.mktemp("people"), 2)


def open_at(life: Life, folder: Path) -> tuple[Ledger, Vault]:
    config = life.config.model_copy(update={"data_dir": folder})
    ledger = Ledger.open(folder)
    try:
        return ledger, Vault(config, life.identity, ledger)
    except BaseException:
        ledger.close()
        raise


def test_a_party_that_is_killed_at_any_write_keeps_what_it_has_answered(
    people: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities = [people.identity(name) for name in ("party-0", "party-1", "hospital")]
    start = Life(people.party_config(0), *identities)
    ledger, vault = open_at(start, tmp_path / "start")
    kept = start.begin(vault, "kept", b"k" * 16)
    start.complete(vault, kept)
    value, seed = start.x, vault.seed(kept.id, "age", 0)
    ledger.close()
    kills = 0
    for at in range(1000):
        folder, left = tmp_path / f"run-{at}", tmp_path / f"left-{at}"
        shutil.copytree(tmp_path / "start", folder)
        life = Life(people.party_config(0), *identities, given=list(start.given))
        ledger, vault = open_at(life, folder)
        with monkeypatch.context() as patch:
            kill = Kill(patch, at)
            try:
                life.all(vault)
            except Killed:
                kills += 1
        shutil.copytree(folder, left)  # what the disk has, and nothing that closing would still write
        ledger.close()
        shutil.rmtree(folder)
        ledger, vault = open_at(life, left)
        try:
            check(life, vault, kept, value, seed)
        finally:
            ledger.close()
        shutil.rmtree(left)
        if not kill.dead:
            break
    assert kills > 12 and life.done == {"commit", "complete", "remove"}


def check(life: Life, vault: Vault, kept: Manifest, value: np.ndarray, seed: Seed) -> None:
    """What was there before is there; what was answered holds; the put can be made again, under other seeds."""
    assert np.array_equal(vault.block(kept.id, "age", 0), value) and vault.seed(kept.id, "age", 0) == seed
    with vault.ledger.reading() as database:
        listed = {name for (name,) in database.execute("SELECT file FROM data_blocks WHERE file IS NOT NULL")}
    assert {path.stem for path in vault.folder.glob("*.block")} == listed
    assert not (vault.folder / "key.next").exists()
    whole = getattr(life, "whole", None)
    found = None
    if whole is not None:
        try:
            found = vault.manifest(whole.id)
        except SessionError:
            assert "remove" in life.done or "complete" not in life.done or _was_removed(vault, whole)
        else:
            assert "remove" not in life.done and "commit" in life.done
            assert np.array_equal(vault.block(whole.id, "age", 0), life.x)
            assert vault.seed(whole.id, "age", 0) == life.given[-1]
    version, newest = Puts(vault).newest("hospital/patients", life.key)
    again = life.begin(vault, "patients", b"q" * 16, version + 1, newest or None)
    life.complete(vault, again)
    assert vault.find("hospital/patients") == again and again.version == (1 if version == 0 else 2)
    assert np.array_equal(vault.block(again.id, "age", 0), life.x)
    assert found is None or vault.manifest(found.id) == found


def _was_removed(vault: Vault, whole: Manifest) -> bool:
    with vault.ledger.reading() as database:
        query = "SELECT 1 FROM data_tombstones WHERE object = ?"
        return database.execute(query, (whole.id.hex(),)).fetchone() is not None


def test_a_lost_or_foreign_wrapping_key_is_said_at_the_start(people: InProcess, tmp_path: Path) -> None:
    life = Life(people.party_config(0), *[people.identity(name) for name in ("party-0", "party-1", "hospital")])
    ledger, vault = open_at(life, tmp_path / "data")
    path = vault.folder / "key"
    assert path.stat().st_mode & 0o777 == 0o600
    ledger.close()
    secret = path.read_bytes()
    for wrong in (None, bytes(32), secret[:-1]):
        path.unlink(missing_ok=True)
        if wrong is not None:
            path.write_bytes(wrong)
        with pytest.raises(Exception, match="does not hold the key") as caught:
            open_at(life, tmp_path / "data")
        assert "restore that file" in str(caught.value)
    path.write_bytes(secret)
    open_at(life, tmp_path / "data")[0].close()
