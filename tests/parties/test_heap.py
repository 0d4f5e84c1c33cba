"""What a daemon keeps of freed memory follows its config and its container's limit; and sessions do not pile up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parties.client.cluster import Cluster
from parties.local.processes import running
from parties.machine import container_memory
from parties.process import heap
from parties.process.heap import keep_memory, kept_bytes

GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture
def groups(tmp_path: Path) -> Callable[[str, dict[str, str]], int | None]:
    """What is found where /proc/self/cgroup says this, and these files are mounted."""

    def find(said: str, files: dict[str, str]) -> int | None:
        (tmp_path / "groups").write_text(said)
        for name, text in files.items():
            path = tmp_path / "mounted" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return container_memory(tmp_path / "groups", tmp_path / "mounted")

    return find


@pytest.mark.parametrize(
    ("said", "files", "limit"),
    [
        ("0::/\n", {"memory.max": f"{GIB}\n"}, GIB),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{2 * GIB}\n"}, 2 * GIB),
        ("0::/a/b\n", {"a/b/memory.max": f"{GIB}\n", "a/memory.max": f"{2 * GIB}\n"}, GIB),
        ("4:memory:/docker/x\n2:cpu:/\n", {"memory/docker/x/memory.limit_in_bytes": f"{GIB}\n"}, GIB),
        ("4:cpu,memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/../outside\n", {"memory.max": f"{GIB}\n"}, GIB),
        ("0::/gone\n", {}, None),
        ("nonsense\n", {}, None),
    ],
)
def test_the_limit_of_a_container(groups: Callable, said: str, files: dict[str, str], limit: int | None) -> None:
    assert groups(said, files) == limit


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert container_memory(tmp_path / "nothing", tmp_path) is None


@pytest.mark.parametrize(
    ("most", "limit", "kept"),
    [(GIB, None, GIB), (GIB, GIB, GIB // 4), (MIB, GIB, MIB), (0, GIB, 0), (1 << 40, None, (1 << 31) - 1)],
)
def test_what_is_kept(monkeypatch: pytest.MonkeyPatch, most: int, limit: int | None, kept: int) -> None:
    monkeypatch.setattr(heap, "container_memory", lambda: limit)
    assert kept_bytes(most) == kept


class Library:
    """A C library that notes what mallopt is told."""

    def __init__(self) -> None:
        self.said: dict[int, int] = {}

    def mallopt(self, option: int, value: int) -> int:
        self.said[option] = value
        return 1


class Newer(Library):
    """One that tells what is free and gives it back."""

    class mallinfo2:
        restype = None

    class malloc_trim:
        argtypes = None


@pytest.mark.parametrize(
    ("library", "kept", "told"),
    [
        (Newer, GIB, {-8: 1, -1: GIB, -3: 32 * MIB, -4: 0}),  # nothing is mapped alone
        (Newer, MIB, {-8: 1, -1: MIB, -3: MIB}),
        (Newer, 0, {-8: 1, -1: 0, -3: 128 << 10}),
        (Library, GIB, {-8: 1, -1: GIB, -3: 32 * MIB}),  # nobody would give back what lies between
    ],
)
def test_what_the_library_is_told(
    monkeypatch: pytest.MonkeyPatch, library: type[Library], kept: int, told: dict[int, int]
) -> None:
    made = library()
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: made)
    keep_memory(kept)
    assert made.said == told


FREED = """
import sys
import numpy as np
from parties.process.heap import Freed, keep_memory

MIB, kept = 1 << 20, int(sys.argv[1]) << 20
resident = lambda: int(open("/proc/self/statm").read().split()[1]) << 12
keep_memory(kept)
freed = Freed(kept)
freed.tick()
if not freed.gives_back:
    sys.exit(3)
large, small, untouched = [], [], np.empty(512 * MIB, np.uint8)  # of which no page is there
for _ in range(6):
    large.append(np.ones(40 * MIB, np.uint8))
    small.append(np.ones(MIB, np.uint8))  # lies above, so that the end of the heap is not free
held = resident()
large.clear()
stayed = held - resident()
freed.tick()
print(stayed // MIB, (held - resident()) // MIB)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(("kept", "at_once", "later"), [(1024, False, False), (64, False, True), (8, True, True)])
def test_freed_memory_stays_up_to_what_may_stay(kept: int, at_once: bool, later: bool) -> None:
    """240 MiB are freed below something that is in use."""
    found = subprocess.run([sys.executable, "-c", FREED, str(kept)], capture_output=True, text=True, check=False)
    if found.returncode == 3:
        pytest.skip("this C library gives nothing back")
    assert found.returncode == 0, found.stderr
    given = [int(word) > 150 for word in found.stdout.split()]
    assert given == [at_once, later], found.stdout


# --------------------------------------------------------------------------------- soak

WIDTH = 640


def wide_model(path: Path) -> Path:
    """x [batch, 640] -> Gemm -> y: a session takes some 50 MB at each party."""
    weight = np.random.default_rng(0).normal(0, 0.02, (WIDTH, WIDTH)).astype(np.float32)
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], "gemm", transB=1)],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def resident(cluster: Cluster) -> list[int]:
    """Bytes in memory of every daemon, the provider first."""
    assert cluster.layout is not None
    pids = [running(member.folder) for member in cluster.layout.members]
    return [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") for pid in pids]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_sessions_that_end_leave_nothing(tmp_path: Path, count: int) -> None:
    """Of many sessions one after another each daemon holds one; Python's collector of cycles may never run."""
    path, x = wide_model(tmp_path / "wide.onnx"), np.zeros((1, WIDTH), np.float32)
    with Cluster.local(parties=2) as cluster:
        after: list[list[int]] = []
        for _ in range(count):
            with cluster.session(path, {"x": (-1.0, 1.0)}) as session:
                session.run(None, {"x": x})
            after.append(resident(cluster))
        assert all(sizes[-1] - sizes[4] < 60 * MIB for sizes in zip(*after, strict=True)), after
