"""Objects' manifests, receipts and tombstones: one encoding, one signer, no text that reads as something else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mpc.encoding import digest
from mpc.errors import InputError, IntegrityError, MpcError
from mpc.prg import Seed
from mpc.stored import BLOCK_ROWS
from parties.agreed.columns import Column
from parties.agreed.objects import Manifest, Schema, contents_digest
from parties.agreed.receipts import Receipt, Tombstone
from parties.agreed.signed import Signed, dump, key_of
from parties.agreed.terms import roster_digest
from parties.trust import authority
from parties.trust.identity import Identity
from tests.support.effort import examples
from tests.support.objects import AGE, COLUMNS, MADE, manifest, schema
from tests.support.parties import CLUSTER

ID = "ab" * 32
PLAIN = "0ce8976578eedeb355533c72e8aa3a50dd6025af0cb72aa9cf5e93502312201a"
"""Digest of the small schema, as it was before rows could be added."""


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Identity]:
    folder = tmp_path_factory.mktemp("trust")
    authority.make_ca(folder / "ca", "test-ca")

    def make(name: str) -> Identity:
        return Identity.load(authority.issue(folder / "ca", name, folder / name), name)

    return make


def test_there_is_one_encoding_and_every_word_of_it_is_in_the_id() -> None:
    whole = manifest(schema())
    assert Manifest.parse(whole.content) == whole and Manifest.parse(whole.content).id == whole.id
    assert whole.content.isascii() and Schema.parse(whole.schema_content) == schema()
    others = [
        schema(rows=6),
        schema(rows_per_person=2),
        schema(description="Admissions of a Year"),
        schema(visible=("any",)),
        schema(expires=MADE + 1),
        schema(created=MADE + 1),
        schema(cluster="f" * 32),
        schema(parties=("party-1", "party-0")),
        schema(version=2, previous=ID),
        schema(columns=COLUMNS[:4]),
        schema(columns=(AGE.model_copy(update={"high": Fraction(121)}), *COLUMNS[1:])),
    ]
    assert len({whole.id, *(manifest(other).id for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"rows":5', b'"rows":5.0'),
        lambda text: text.replace(b'"rows":5', b'"rows": 5'),
        lambda text: text.replace(b'"rows":5', b'"rows":"5"'),
        lambda text: text.replace(b'"low":"0"', b'"low":"0/1"'),
        lambda text: text.replace(b'"scale":"65536"', b'"scale":65536'),
        lambda text: text + b" ",
        lambda text: text[:-1] + b',"more":1}',
        lambda text: text.replace(b'"expires":null,', b""),
        lambda text: text.replace(b"mpc-object-1", b"mpc-object-2"),
        lambda text: text.replace(b'"name":"hospital/patients"', b'"name":"clinic/patients"'),
        lambda text: text.replace(b'"name":"hospital/patients"', b'"name":"hospital/../x"'),
        lambda text: text.replace(b'"years"', b'"ye\\u202ears"'),
        lambda text: text.replace(b'"years"', b'"ye\\u001b[2Jrs"'),
        lambda text: text.replace(b'"bmi lost"', b'"\\uff41ge"'),
        lambda text: text.replace(b'"north"', b'"south"'),
        lambda text: text.replace(b'"Admissions', b'"\\u200bAdmissions'),
        lambda text: b"[" * 100_000,
        lambda text: b"",
        lambda text: b"{}",
        lambda text: b"\xff" * 40,
        lambda text: text.replace(b"5", b"1e999", 1),
    ],
)
def test_another_encoding_or_hostile_text_is_refused(change: Callable[[bytes], bytes]) -> None:
    whole = manifest(schema())
    assert change(whole.content) != whole.content
    with pytest.raises(InputError) as caught:
        Manifest.parse(change(whole.content))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"low": 3, "high": 2},
        {"scale": Fraction(0)},
        {"scale": Fraction(2)},  # integers are as they are
        {"type": "number", "scale": Fraction(1 << 60)},
        {"shape": (3,)},
        {"type": "array", "shape": (1 << 14, 1 << 14)},
        {"type": "category"},
        {"type": "category", "categories": ("a", "b"), "high": 2},
        {"type": "category", "categories": ("a", "a"), "high": 1},
        {"categories": ("a",)},
        {"type": "missing", "high": 1},
        {"type": "missing", "high": 2, "missing_of": "age"},
        {"type": "text"},
        {"name": ""},
    ],
)
def test_columns_that_mean_nothing_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Column(**{"name": "c", "type": "integer", "low": 0, "high": 1, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"columns": ()},
        {"columns": (AGE, AGE)},
        {"columns": (COLUMNS[4],)},  # marks a column that is not there
        {"columns": (Column(name="big", type="array", low=0, high=1, shape=(4096,)),), "rows": BLOCK_ROWS},
        {"version": 2},
        {"previous": ID},
        {"rows": 0},
        {"parties": ("party-0",)},
        {"parties": ("party-0", "party-0")},
        {"expires": MADE},
        {"visible": ("any", "analyst")},
        {"cluster": "x" * 32},
        {"owner": "any"},
        {"lengths": (2, 2)},
        {"lengths": (5, 0)},
        {"lengths": (5,)},  # as all are: it has one encoding
        {"lengths": (BLOCK_ROWS + 1, 1), "rows": BLOCK_ROWS + 2},
        {"lengths": (BLOCK_ROWS, 1), "rows": BLOCK_ROWS + 1},
    ],
)
def test_schemas_that_mean_nothing_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        schema(**fields)


def test_an_object_without_added_rows_has_the_bytes_that_it_always_had() -> None:
    assert b"lengths" not in schema().content and b"lengths" not in manifest(schema()).content
    assert digest("test", schema().content).hex() == PLAIN
    grown = schema(lengths=(2, 3))
    assert Schema.parse(grown.content) == grown and json.loads(grown.content)["lengths"] == [2, 3]
    assert [grown.block_rows(block) for block in range(grown.block_count)] == [2, 3]
    assert Manifest.parse(manifest(grown).content).schema_content == grown.content
    with pytest.raises(InputError, match="one encoding"):
        Schema.parse(dump({**json.loads(schema().content), "lengths": []}))


def test_a_manifest_commits_to_every_block_once() -> None:
    plain = schema(rows=2 * BLOCK_ROWS + 1, columns=(AGE,))
    assert plain.block_count == 3 and plain.block_shape("age", 2) == (1,)
    whole = manifest(plain)
    for changed in ({}, {"age": whole.commitments["age"][:2]}, {"bmi": whole.commitments["age"]}):
        with pytest.raises(InputError):
            Manifest.parse(dump({**json.loads(whole.content), "commitments": changed}))
    same = [whole.commitments["age"][0]] * 3
    with pytest.raises(InputError, match="under one seed"):
        Manifest.parse(dump({**json.loads(whole.content), "commitments": {"age": same}}))


def test_a_lying_party_is_named() -> None:
    plain, seeds = schema(columns=(AGE,)), {"party-0": Seed(b"0" * 32), "party-1": Seed(b"1" * 32)}
    whole = Manifest.of(plain, {"age": [[seed.commitment() for seed in seeds.values()]]}, bytes(32))
    for party, seed in seeds.items():
        whole.check_seed("age", 0, party, seed)
    with pytest.raises(IntegrityError, match="party-1") as caught:
        whole.check_seed("age", 0, "party-1", seeds["party-0"])
    assert caught.value.peer == "party-1"
    with pytest.raises(InputError, match="no block 1"):
        whole.check_seed("age", 1, "party-1", seeds["party-0"])


def test_each_statement_has_its_own_signer_and_kind(identity: Callable[[str], Identity]) -> None:
    owner, party, stranger = identity("hospital"), identity("party-0"), identity("stranger")
    trust = stranger.trust
    whole = manifest(schema())
    signed = whole.sign(owner)
    assert Manifest.verify(trust, signed, time.time) == whole
    with pytest.raises(IntegrityError, match="hospital"):
        Manifest.verify(trust, whole.sign(stranger), time.time)
    with pytest.raises(IntegrityError, match="does not match"):
        Manifest.verify(trust, Signed(manifest(schema(rows=6)).content, *_rest(signed)), time.time)
    later = time.time() + 1000 * 86400
    with pytest.raises(IntegrityError, match="expired"):
        Manifest.verify(trust, signed, lambda: later)
    receipt = Receipt(cluster=CLUSTER, party="party-0", object=ID, at=MADE)
    assert Receipt.verify(trust, receipt.sign(party), "party-0", time.time) == receipt
    with pytest.raises(IntegrityError):
        Receipt.verify(trust, receipt.sign(party), "party-1", time.time)
    with pytest.raises(IntegrityError):
        Receipt.verify(trust, receipt.sign(owner), "party-0", time.time)
    stone = Tombstone(cluster=CLUSTER, owner="hospital", object=ID, at=MADE)
    assert Tombstone.verify(trust, stone.sign(owner), time.time) == stone
    for kind in ("mpc/v1/object", "mpc/v1/receipt"):  # the right bytes, signed as something else
        with pytest.raises(IntegrityError, match="does not match"):
            Tombstone.verify(trust, Signed.make(owner, kind, stone.sign(owner).content), time.time)
    with pytest.raises(InputError):
        Tombstone.verify(trust, signed, time.time)


def test_an_owner_is_its_key(identity: Callable[[str], Identity]) -> None:
    first, again = identity("hospital"), identity("hospital")
    assert key_of(first.certificate_pem) == key_of(first.certificate_pem) != key_of(again.certificate_pem)


def _rest(signed: Signed) -> tuple[bytes, bytes]:
    return signed.signature, signed.certificate


def test_contents_are_salted() -> None:
    digests = [b"1" * 32, b"2" * 32]
    assert contents_digest(bytes(32), digests) != contents_digest(b"s" * 32, digests)
    assert contents_digest(bytes(32), digests) != contents_digest(bytes(32), digests[::-1])
    with pytest.raises(InputError):
        contents_digest(b"", digests)


@examples(60)
@given(st.data())
def test_whatever_is_sent_is_parsed_or_refused(data: st.DataObject) -> None:
    content = bytearray(manifest(schema()).content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    for cls in (Manifest, Schema):
        try:
            found = cls.parse(bytes(content))
        except MpcError as error:
            assert isinstance(error, InputError) and str(error).isprintable()
        else:
            assert found.content == bytes(content)


def test_rosters_of_two_clusters_differ(tmp_path: Path) -> None:
    names = ("party-0", "party-1")
    found = {roster_digest("provider", names, cluster) for cluster in (None, CLUSTER, "f" * 32)}
    assert len(found) == 3
    assert roster_digest("provider", names, None).hex()[:16] == "71f63898fa0fcbb2"
