"""What others install: a wheel, built from the source distribution, in an environment without this tree."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.effort import patient
from tests.support.parties_commands import ROOT, environment

SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
IMPORTS = """
import sys
import mpc, parties
from mpc.compiler.compile import compile_model
from parties.client.cluster import Cluster
from parties.pb import party_pb2, party_pb2_grpc, provider_pb2, provider_pb2_grpc
print(*(module.__file__ for module in (mpc, parties, party_pb2, provider_pb2_grpc)), sep="\\n")
"""


def done(*command: str | Path, folder: Path) -> str:
    """What a command prints that succeeds, without this tree on its path."""
    environ = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=patient(60), check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git knows and nothing else, by way of the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    tree = folder / "tree"
    for name in done("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=ROOT).split("\0"):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    done(sys.executable, "-c", SDIST, folder, folder=tree)
    [source] = folder.glob("*.tar.gz")
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder)
    done(sys.executable, "-m", "pip", "wheel", *options, source, folder=folder)
    [built] = folder.glob("*.whl")
    return built


def test_a_wheel_has_all_of_both_packages_and_their_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    generated = {f"parties/pb/{name}_pb2{end}" for name in ("party", "provider") for end in (".py", ".pyi")}
    generated |= {f"parties/pb/{name}_pb2_grpc{end}" for name in ("party", "provider") for end in (".py", ".pyi")}
    assert generated | {"mpc/py.typed", "parties/py.typed", "parties/pb/__init__.py"} <= inside
    modules = {
        path.relative_to(ROOT).as_posix() for package in ("mpc", "parties") for path in (ROOT / package).rglob("*.py")
    }
    assert modules == {name for name in inside if name.endswith(".py")}


def test_an_installed_wheel_works_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """Dependencies are this environment's; the project's own packages are the wheel's."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    venv.create(site, with_pip=False)
    python = site / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    done(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=empty)
    [packages] = site.glob("lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # editable installs stay behind
    files = done(python, "-c", IMPORTS, folder=empty).split()
    assert len(files) == 4
    assert all(Path(file).is_relative_to(packages) for file in files)
    assert "secure multi-party computation" in done(site / "bin" / "mpc", "--help", folder=empty)
    assert done(site / "bin" / "mpc", "--version", folder=empty).startswith("mpc")
    assert not [*empty.iterdir()]
