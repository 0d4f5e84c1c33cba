"""Where compiled kernels are kept: whose folder, which one, and what happens if there is none."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpc import kernel_cache
from mpc.kernel_cache import Place, choose, compiling
from mpc.kernels import caching
from tests.support.effort import patient

ROOT = Path(__file__).parents[2]
COMPILERS = {"numba.np.arraymath", "numba.np.linalg", "scipy.linalg"}
"""Modules that numba needs to compile, and nobody to run what was compiled."""
NOWHERE = "/proc/nowhere"
"""A place in which not even root can make a folder."""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def permissions(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME", "MPC_KERNEL_CACHE"])
def test_the_usual_place_is_made_for_its_user_alone(tmp_path: Path, variable: str) -> None:
    found = choose({"HOME": str(tmp_path / "home"), variable: str(tmp_path / "mine")})
    below = {"XDG_CACHE_HOME": "mine/mpc", "HOME": "mine/.cache/mpc", "MPC_KERNEL_CACHE": "mine"}[variable]
    assert found == Place(tmp_path / below / f"kernels-{kernel_cache.fingerprint()[:16]}")
    assert found.folder is not None and permissions(found.folder) == 0o700
    assert choose({"HOME": str(tmp_path / "home"), variable: str(tmp_path / "mine")}) == found


@pytest.mark.parametrize("home", [NOWHERE, "", "relative"])
def test_without_a_home_it_is_a_temporary_folder_that_the_next_process_finds(temporary: Path, home: str) -> None:
    """A read-only home, none at all (and no entry of this user in the system's list), one that is no path."""
    environ = {"HOME": home or NOWHERE, "XDG_CACHE_HOME": "relative" if home else ""}
    found = choose(environ)
    assert found.folder is not None and found.folder.parent == temporary / f"mpc-{os.geteuid()}"
    assert "MPC_KERNEL_CACHE names another" in found.note and str(found.folder.parent) in found.note
    assert choose(environ) == found


def test_nowhere_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", NOWHERE)
    found = choose({"HOME": NOWHERE})
    assert found.folder is None and not found.complete and "every process compiles its own" in found.note
    with compiling(found):
        pass


def test_security_37_a_cache_that_others_can_change_is_not_used(temporary: Path, tmp_path: Path) -> None:
    """Neither its own folder, nor one above it that others could put another one in."""
    environ = {"HOME": str(tmp_path / "home")}
    usual = choose(environ).folder
    assert usual is not None
    for folder, mode, refused in (
        (usual, 0o770, True),
        (usual, 0o702, True),
        (usual, 0o755, False),
        (usual, 0o500, False),
        (usual.parent, 0o777, True),
        (usual.parent, 0o1777, False),
        (usual.parent, 0o775, False),  # a group of the user's own, mostly; and nobody else can make a file of this user
    ):
        before = permissions(folder)
        folder.chmod(mode)
        found = choose(environ)
        folder.chmod(before)
        if refused:
            assert found.folder != usual and f"others may write to {folder}" in found.note, oct(mode)
        elif mode != 0o500 or os.geteuid() == 0:
            assert found == Place(usual), oct(mode)


def test_security_37_what_is_judged_is_what_is_used(tmp_path: Path) -> None:
    """A link above the cache is followed once: whoever owns it cannot lead this process elsewhere later."""
    (tmp_path / "judged").mkdir(mode=0o700)
    (tmp_path / "planted").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "judged")
    found = choose({"MPC_KERNEL_CACHE": str(link)})
    link.unlink()
    link.symlink_to(tmp_path / "planted")
    assert found.folder is not None and found.folder.parent == (tmp_path / "judged").resolve()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another group")
def test_security_37_another_group_cannot_exchange_the_cache(temporary: Path, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home")}
    usual = choose(environ).folder
    assert usual is not None
    os.chown(usual.parent, -1, 4321)
    usual.parent.chmod(0o770)
    found = choose(environ)
    assert found.folder != usual and f"others may write to {usual.parent}" in found.note


def test_security_37_a_cache_of_another_user_is_not_used(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"HOME": str(tmp_path / "home"), "MPC_KERNEL_CACHE": str(tmp_path / "given")}
    mine = choose(environ).folder
    assert mine is not None
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        if os.getuid():  # what is root's may be trusted
            found = choose(environ)
            assert found.folder != mine and "belongs to another user" in found.note
    if os.getuid() == 0:
        os.chown(mine, 4321, 4321)
        found = choose(environ)
        assert found.folder is not None and found.folder != mine and f"{mine} belongs to another user" in found.note
        os.chown(mine, 0, 0)
        os.chown(mine.parent, 4321, 4321)
        assert f"{mine.parent} belongs to another user" in choose(environ).note


def test_security_37_a_link_or_a_file_in_its_place_is_not_used(temporary: Path, tmp_path: Path) -> None:
    """Somebody who waits in the folder for temporary files, too."""
    environ = {"HOME": NOWHERE}
    usual = choose(environ).folder
    assert usual is not None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    usual.rmdir()
    usual.symlink_to(elsewhere)
    found = choose(environ)
    assert found.folder is not None and found.folder.parent.parent == temporary and found.folder != usual
    assert f"{usual} is no folder" in found.note and "until somebody deletes it" in found.note
    usual.unlink()
    usual.write_text("")
    assert choose(environ).folder != usual


def test_the_place_follows_from_all_sources_of_all_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is inlined into others too: numba does not notice that one."""
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    for path in (ROOT / "mpc" / "kernels").glob("*.py"):
        (kernels / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(kernel_cache, "KERNELS", kernels)

    def fingerprint() -> str:
        kernel_cache.fingerprint.cache_clear()
        return kernel_cache.fingerprint()

    try:
        first = fingerprint()
        assert first == fingerprint()
        for path in sorted(kernels.iterdir()):
            path.write_text(path.read_text() + "\n")
            changed = fingerprint()
            assert changed != first
            first = changed
        for name, counts in (("NUMBA_CPU_NAME", True), ("NUMBA_NUM_THREADS", False)):
            monkeypatch.setenv(name, "1")
            assert (fingerprint() != first) is counts
            monkeypatch.delenv(name)
        monkeypatch.setattr(kernel_cache, "processor", lambda: "another")
        assert fingerprint() != first
    finally:
        kernel_cache.fingerprint.cache_clear()


# ---------------------------------------------------------------------------- several processes

COMPILES = """
import os, sys, time
from mpc import kernel_cache
place = kernel_cache.place()
found = place.complete
with kernel_cache.compiling(place):
    if not place.complete:
        with open(sys.argv[1], "a") as log:
            log.write("compiles\\n")
        time.sleep(0.3)
"""


def test_of_processes_that_find_nothing_one_compiles_and_the_others_wait(tmp_path: Path) -> None:
    environ = {**os.environ, "MPC_KERNEL_CACHE": str(tmp_path / "cache")}
    log = tmp_path / "log"
    command = [sys.executable, "-c", COMPILES, str(log)]
    processes = [subprocess.Popen(command, cwd=ROOT, env=environ) for _ in range(4)]
    assert [process.wait(patient(60)) for process in processes] == [0] * 4
    assert log.read_text() == "compiles\n"


def test_what_failed_half_way_is_not_complete(tmp_path: Path) -> None:
    found = choose({"MPC_KERNEL_CACHE": str(tmp_path / "cache")})
    with pytest.raises(KeyboardInterrupt), compiling(found):
        raise KeyboardInterrupt
    assert not found.complete
    with compiling(found):
        assert not found.complete
    assert found.complete


def test_what_older_versions_compiled_goes_after_a_time(tmp_path: Path) -> None:
    found = choose({"MPC_KERNEL_CACHE": str(tmp_path)})
    for name, age in (("kernels-old", 100 * 86400), ("kernels-other", 86400), ("else", 100 * 86400)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.nbc").touch()
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    with compiling(found):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["else", "kernels-other", getattr(found.folder, "name", "")]
    )


# ------------------------------------------------------------------------------- numba's files

LOOPS = """
import numpy as np
from mpc.kernels.caching import compiled

@compiled
def double(x):
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = 2 * x[i]
    return out

@compiled
def quadruple(x):
    return double(double(x))
"""
PROCESS = """
import json, sys
import numpy as np
import loops
from mpc import kernel_cache
from mpc.kernels.caching import load
loaded = [load(loop) for loop in (loops.double, loops.quadruple)]
assert [float(loops.quadruple(x).sum()) for x in (np.arange(3.0), np.arange(3))] == [12, 12]
with kernel_cache.compiling(kernel_cache.place()):
    print(json.dumps([loaded, sorted(sys.modules), str(kernel_cache.place().folder)]))
"""


def in_process(tmp_path: Path, **environment: str) -> tuple[list[bool], set[str], Path]:
    """Load and use the two loops, in a process of its own; (what could be loaded, all its modules, the cache)."""
    (tmp_path / "loops.py").write_text(LOOPS)
    path = os.pathsep.join((str(ROOT), str(tmp_path)))
    environ = {**os.environ, "PYTHONPATH": path, "MPC_KERNEL_CACHE": str(tmp_path / "cache"), **environment}
    command = [sys.executable, "-c", PROCESS]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=patient(100), check=False)
    assert done.returncode == 0, done.stderr
    loaded, modules, folder = json.loads(done.stdout)
    return loaded, set(modules), Path(folder)


def test_loading_imports_nothing_that_only_a_compilation_needs(tmp_path: Path) -> None:
    """And numba's own variables do not lead elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    loaded, modules, folder = in_process(tmp_path, NUMBA_CACHE_DIR=str(elsewhere))
    assert loaded == [False, False] and COMPILERS <= modules
    loaded, modules, again = in_process(tmp_path)
    assert loaded == [True, True] and not COMPILERS & modules
    assert again == folder and not list(elsewhere.iterdir())


Hits = tuple[int, int]


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Place], tuple[list[bool], Hits]]:
    """Load the two loops from a cache, as a new process does, and use each with two types; (what could be loaded, how
    many types of each were not compiled)."""
    (tmp_path / "loops.py").write_text(LOOPS)

    def use(found: Place) -> tuple[list[bool], Hits]:
        monkeypatch.setattr(kernel_cache, "place", lambda: found)
        spec = importlib.util.spec_from_file_location("loops", tmp_path / "loops.py")
        assert spec is not None and spec.loader is not None
        fresh = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fresh)
        loops = (fresh.double, fresh.quadruple)
        loaded = [caching.load(loop) for loop in loops] if found.complete else []
        assert [float(loop(x).sum()) for loop in loops for x in (np.arange(3.0), np.arange(3))] == [6, 6, 12, 12]
        double, quadruple = (sum(loop.stats.cache_hits.values()) for loop in loops)
        return loaded, (double, quadruple)

    return use


@pytest.mark.parametrize(
    ("pattern", "content", "loaded", "complete"),
    [
        ("*.double*.nbc", b"", [False, True], False),
        ("*.quadruple*.nbc", None, [True, False], True),  # compiled from the LLVM form of one that was loaded
        ("*.double*.nbi", b"\x80\x05nonsense", [False, True], False),
        ("*.nbi", b"", [False, False], False),
    ],
)
def test_a_damaged_cache_is_compiled_again(
    tmp_path: Path, use: Callable, pattern: str, content: bytes | None, loaded: list[bool], complete: bool
) -> None:
    """Whatever a crash or a full disk left of it; and the next daemon compiles the rest before it serves."""
    found = choose({"MPC_KERNEL_CACHE": str(tmp_path / "cache")})
    assert found.folder is not None
    with compiling(found):
        assert use(found) == ([], (0, 0))
    assert use(found) == ([True, True], (2, 2))
    for path in found.folder.glob(pattern):
        path.write_bytes(content) if content is not None else path.unlink()
    told, hits = use(found)
    assert told == loaded and [count == 2 for count in hits] == loaded and found.complete is complete
    with compiling(found):
        pass
    assert use(found) == ([True, True], (2, 2))


PLANTED = """
import pickle, sys
class Code:
    def __reduce__(self):
        return (open, (sys.argv[1], "w"))
sys.stdout.buffer.write(pickle.dumps(Code()))
"""


def test_security_37_code_that_somebody_else_could_have_planted_is_not_loaded(tmp_path: Path, use: Callable) -> None:
    environ = {"MPC_KERNEL_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path / "home")}
    found = choose(environ)
    assert found.folder is not None
    with compiling(found):
        use(found)
    mark = tmp_path / "executed"
    planted = subprocess.run([sys.executable, "-c", PLANTED, str(mark)], capture_output=True, check=True).stdout
    index = next(found.folder.glob("*.nbi"))
    for mode in (0o777, 0o700):
        index.write_bytes(planted)
        found.folder.chmod(mode)
        chosen = choose(environ)
        use(chosen)
        assert (chosen == found) is (mode == 0o700)
        assert mark.exists() is (mode == 0o700)  # files of our own are code: that is why nobody else's may be
