"""Whoever collects has the gathered object under its own name, and wants the rows of it, which are its clients'."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mpc.errors import InputError, SessionError
from parties.agreed.bindings import Binding
from parties.agreed.objects import Manifest, contents_digest
from parties.client.collections import calls as collecting
from parties.client.session import Session
from parties.party.vault import admission
from parties.pb import data_pb2
from tests.attack.test_collections import exact_rows
from tests.support.collections import enter_all, finish, opened, raw
from tests.support.objects import RawPut
from tests.support.parties import COORDINATOR, InProcess


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("gathered"), 2) as running:
        yield running


def put_again(cluster: InProcess, owner: str, whole: Manifest, blocks: list[int]) -> Manifest:
    """The next version of what is collected, as a dataset of its owner's, with blocks of that version in it."""
    put = RawPut(
        cluster,
        owner,
        name=whole.name,
        version=2,
        previous=whole.id.hex(),
        columns=whole.columns,
        rows=len(blocks),
        lengths=(1,) * len(blocks) if len(blocks) > 1 else (),
        expires=whole.expires,
        visible=(),
        description="",
        created=int(time.time()),
    )
    kept = [data_pb2.KeptBlock(block=block, of=of) for block, of in enumerate(blocks)]
    for index in put.parties:
        put.call(index, "Begin", data_pb2.BeginRequest(put=put.id, schema=put.schema.content, kept=kept))
    held = [list(put.call(index, "Held", data_pb2.HeldRequest(put=put.id))) for index in put.parties]
    commitments = [[each[block].commitment for each in held] for block in range(len(blocks))]
    contents = contents_digest(put.salt, [each.digest for each in held[0]])
    again = Manifest.of(put.schema, {whole.columns[0].name: commitments}, contents)
    receipts = [put.commit(index, again) for index in put.parties]
    for index in put.parties:
        put.complete(index, again, receipts)
    return again


@pytest.mark.parametrize("blocks", [[0, 1, 2], [1]])
def test_security_42_the_next_version_keeps_no_row_of_a_collection(
    cluster: InProcess, blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be whoever collects' own, who asks for itself alone without anybody's word: each row, exactly."""
    made = opened(cluster, f"kept-{len(blocks)}", at_most=3)
    rows = enter_all(cluster, made, 3)
    whole = collecting.gathered(cluster.client(), made.said)
    with pytest.raises(SessionError, match="is the name of a collection"):
        ask(cluster, put_again(cluster, COORDINATOR, whole, blocks))
    with monkeypatch.context() as patch:  # and if it were not
        patch.setattr(admission, "require_free", lambda database, name: None)
        with pytest.raises(InputError, match="would keep rows of a collection"):
            ask(cluster, put_again(cluster, COORDINATOR, whole, blocks))
    assert made.sum().rows == len(rows)


def test_nor_does_a_version_of_a_client_s_row_keep_it(cluster: InProcess) -> None:
    """What is collected has one version."""
    made = opened(cluster, "kept-of-one", at_most=3)
    put = raw(cluster, made, "client-0").begin().enter()
    finish(put)
    with pytest.raises(InputError, match="would keep rows of a collection"):
        put_again(cluster, "client-0", put.manifest(), [0])
    assert made.standing.entered == 1


def ask(cluster: InProcess, whole: Manifest) -> None:
    """The rows of a dataset of one's own, as they are."""
    plan = exact_rows()
    [given] = plan.plan.inputs
    bindings = (Binding(given.wire, whole.id, ("x",), 0, whole.rows),)
    with Session(cluster.client(), plan, bindings=bindings, quiet=True) as session:
        session.run(None, {})
