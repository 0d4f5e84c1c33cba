"""The ten-minute paths, word for word: every command and every line of Python."""

from __future__ import annotations

import re
import shlex
from contextlib import chdir
from pathlib import Path

import pytest

from parties.local import launcher
from parties.local.layout import LocalLayout
from tests.support.parties_commands import ROOT, mpc, mpc_here

pytestmark = pytest.mark.timeout(150)
SAID = {
    "analyst": (
        r"hospital/stays.*3,000",
        r"costs epsilon 0\.5 of hospital/stays",
        r"give or take [\d.]+; left: .*2\.5",
        r"\{'f': [\d.]+, 'm'",
        r"x\.quantile\(0\.99\)",
        r"np\.where\(condition, x, 0\)",
        r"exactly, is hospital's alone",
        r"costs epsilon 1\.5, and 1 of its budget is left",
        r"left: 1\b",
        r"epsilon 2 of 3 spent, 1 left",
    ),
    "owner": (
        r"Admissions with diabetes",
        r"noised answers +analyst",
        r"0?\.\d+, give or take [\d.]+ \(one standard deviation\), at epsilon 0\.5; left: ",
        r"epsilon 0\.5 of 2 spent, 1\.5 left",
        r"\bcharge\b.*hospital/diabetes",
        r"was revoked",
    ),
    "operator": (
        r"party-1",
        r"'coordinators': \['",
        r"rounds        4",
        r"changed: askers, coordinators, max_epsilon",
        r"party-0: .*\n(  .*\n)*  askers = \[\"analyst\"\]\n  security = .*\n  max_epsilon = \"2\"",
        r"waits for the word of the operators of party-0 and party-1; .*mpc approve \w{16} --party config\.toml",
        r"(?s)(request   \w{64}\nasked by  analyst.*epsilon 0\.75.*)at        party-0: waits for its operator\n"
        r"\1at        party-1: waits for its operator\n",
        r"approved \w{64} at party-1",
        r"[\d.]+, give or take [\d.]+ \(one standard deviation\), at epsilon 0\.75; left: ",
        r"party-0: denied.*once was enough; party-1: approved, 1 of 1 used",
        r"0\.25 of its budget is left",
        r"party-0 .* decision .*denied",
        r"\breveal\b",
    ),
    "training": (
        r"6 epochs      72 steps",
        r"trains        lab: 72 steps, in 2 sessions",
        r"afterwards    lab is told the weights",
        r"the power is gone \{12: [\d.]+, 24: [\d.]+, 36: [\d.]+, 48: [\d.]+\}",
        r"loss          [\d.]+ in step 72\nkept as       lab/trained, version 2\n",
        r"right: 0\.9\d+, kept as lab/trained",
        r"as told: True",
    ),
}
STARTS = ("up", "down", "doctor", "logs")
"""Commands that run for themselves; the others run within this process, which takes no second for imports."""


@pytest.mark.parametrize("name", sorted(SAID))
def test_a_path_word_for_word(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    names: dict[str, object] = {}
    told = ""
    try:
        for language, block in re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / f"{name}.md").read_text(), re.DOTALL):
            if language == "toml":  # of a configuration, to be read
                continue
            if language == "python":
                with chdir(tmp_path):
                    exec(compile(block, f"{name}.md", "exec"), names)
                told += capsys.readouterr().out
                continue
            for line in block.splitlines():
                words = [waiting(told) if word == "ID" else word for word in shlex.split(line)[1:]]
                done = (mpc if words[0] in STARTS else mpc_here)(*words, folder=tmp_path)
                assert done.returncode == 0, (line, done.stderr)
                told += done.stdout
    finally:
        launcher.stop(LocalLayout.open(tmp_path / ".mpc"), grace=3)
    for said in SAID[name]:
        assert re.search(said, told), (said, told)


def waiting(told: str) -> str:
    """Return the id of the request that was listed first: what a reader puts in the place of ID."""
    return re.findall(r"^(\w{16})  +analyst\b", told, re.MULTILINE)[0]


def test_each_path_is_in_the_site_and_in_the_readme() -> None:
    site, readme = ((ROOT / file).read_text() for file in ("mkdocs.yml", "README.md"))
    for name in SAID:
        assert f"{name}.md" in site and f"docs/{name}.md" in readme
