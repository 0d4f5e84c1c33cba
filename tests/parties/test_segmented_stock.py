"""A stock of a run in segments: written as it is dealt, read as it is computed, each segment held to its signature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpc.entry import EntryId
from mpc.errors import IntegrityError, MpcError
from mpc.plan.segments import segments
from parties.client.running import stocks as ordering
from parties.client.running.stocks import Stock
from parties.config.models import Limits
from tests.support.parties import OWNER, SEPARATE, InProcess, Script, data, eventually
from tests.support.stocks import folder, opening

CORRECTED, FILE = 1, "000001.bundle"
"""Of run 1 between two parties."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    limits = Limits(max_sessions=256, max_window_bytes=1)
    with InProcess(tmp_path_factory.mktemp("cluster"), 2, limits=limits) as running:
        yield running


def dealt(cluster: InProcess, security: Any = "passive") -> tuple[Stock, Script]:
    """A stock of two runs whose gates are a segment each, and the session that it is."""
    compiled = cluster.compiled(replace(SEPARATE, security=security))
    script = Script(cluster, replace(compiled, plan=compiled.plan.with_segments(1)))
    stock = ordering.order(cluster.client(), script.plan, [1, 1])
    script.terms, script.id = stock.terms, stock.terms.session_id
    return stock, script


def opened(script: Script) -> Script:
    script.everyone(lambda index: script.cluster.party(index).Open(opening(script.terms)))
    return script.enter_weights()


def compute(script: Script, run: int) -> None:
    script.prepare(run)
    script.enter(run, script.integers(data(1)), OWNER)
    assert len(script.finish(run)) == 2


@pytest.mark.parametrize("security", ["passive", "active"])
def test_a_stock_is_used_segment_by_segment(cluster: InProcess, security: str) -> None:
    """Where runs are checked, window by window too."""
    stock, script = dealt(cluster, security)
    opened(script)
    for run in (1, 2):
        compute(script, run)
    for index in range(2):
        assert not [*folder(cluster, index, stock).glob("*.bundle")], "files are gone before they are used"


def places(script: Script) -> dict[str, int]:
    """Bytes of the corrected party's file that lie in its last segment's corrections, and in what is signed of them."""
    parts = segments(script.plan.bind(1), EntryId(1))
    last = max((part for part in parts if part.dealt), key=lambda part: part.stop)
    return {"corrections": len(b"mpc-bundle-3\n") + last.stop - 1, "signed": -64}


@pytest.mark.parametrize("where", ["corrections", "signed"])
def test_a_segment_that_was_altered_on_the_disk_opens_nothing(cluster: InProcess, where: str) -> None:
    stock, script = dealt(cluster)
    path: Path = folder(cluster, CORRECTED, stock) / FILE
    content = bytearray(path.read_bytes())
    content[places(script)[where]] ^= 1
    path.write_bytes(content)
    with pytest.raises(MpcError):
        compute(opened(script), 1)
    error = script.errors[CORRECTED]
    assert isinstance(error, IntegrityError) and FILE in str(error), error
    assert cluster.has_ended(script.id)
    assert eventually(lambda: "revealed" not in cluster.run_states(0, script.id))


def test_a_file_that_is_cut_short_is_no_bundle(cluster: InProcess) -> None:
    stock, script = dealt(cluster)
    path = folder(cluster, CORRECTED, stock) / FILE
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(MpcError):
        compute(opened(script), 1)
    assert "longer or shorter" in str(script.errors[CORRECTED])
