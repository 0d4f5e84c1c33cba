"""`mpc up --detach` without --parties: the folder's cluster says how many there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from parties.cli import local
from parties.cli.display import Display
from parties.local.layout import LocalLayout


@pytest.mark.parametrize(("words", "parties"), [(["--detach"], 2), (["--detach", "--parties", "4"], 4)])
def test_as_many_parties_as_there_were(
    words: list[str], parties: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, started = tmp_path / "cluster", list[LocalLayout]()
    LocalLayout.create(folder, 2)
    monkeypatch.setattr(local, "start", lambda layout, **options: started.append(layout))
    done = CliRunner().invoke(local.up, [*words, "--dir", str(folder)], obj=Display())
    assert done.exit_code == 0, done.output
    assert [len(layout.members) for layout in started] == [1 + parties]
