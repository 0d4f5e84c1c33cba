"""How cost grows: with the batch, with the parties, with the range of values.

    python benchmarks/growth.py [--network A,C] [--sweep batch,parties,range] [--largest 4096] [--plot F.png] [--json]

Networks have random weights (networks/make.py).  Beside each measurement is what it can hardly go below: its field
products, one for each multiplication in the definition, at the speed that this machine's core multiplies matrices over
F_p; and with --link, its rounds times half a round trip and its bytes over the rate.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "networks")]

from definitions import products  # noqa: E402
from make import EXISTING, NETWORKS, make_random_weights  # noqa: E402

from mpc import field  # noqa: E402
from parties import Cluster  # noqa: E402
from parties.bench.chart import check_plot, draw  # noqa: E402
from parties.bench.inputs import made_up  # noqa: E402
from parties.bench.machine import describe_machine  # noqa: E402
from parties.bench.measure import measure  # noqa: E402
from parties.local.relay import Link  # noqa: E402

SWEEPS = ("batch", "parties", "range")
BATCHES = tuple(4**power for power in range(7))  # 1 to 4,096
PARTIES = (2, 3, 4, 5)
RANGE_BITS = (8, 12, 16, 20, 24)
FIXED_BATCH = 16  # where the batch is not what grows
KEYS = ("online_s", "offline_s", "online_cpu_s", "rounds", "sent_bytes", "dealt_bytes", "peak_memory_bytes")


def points(given: argparse.Namespace) -> Iterator[tuple[str, str, int, int, int | None]]:
    """Sweep, network, batch, parties and bits of the input's range; None for the model's own range, 0 to 1."""
    middle = min(FIXED_BATCH, given.largest)
    for sweep in given.sweep:
        for name in given.network:
            if sweep == "batch":
                for batch in (batch for batch in BATCHES if batch <= given.largest):
                    yield sweep, name, batch, 2, None
            elif sweep == "parties":
                for parties in PARTIES:
                    yield sweep, name, middle, parties, None
            else:
                for bits in RANGE_BITS:
                    yield sweep, name, middle, 2, bits


def measure_all(given: argparse.Namespace, link: Link | None) -> list[dict[str, Any]]:
    """A row for every point; a cluster for every number of parties."""
    wanted, found, rate = list(points(given)), [], product_rate()
    for parties in sorted({point[3] for point in wanted}):
        with Cluster.local(parties, threads=1, link=link) as cluster:
            for sweep, name, batch, count, bits in wanted:
                if count == parties:
                    print(f"{sweep}: {name}, batch {batch}, {parties} parties, range {bits or 'own'}", file=sys.stderr)
                    row = one_point(cluster, name, batch, bits, given.repeat)
                    head = {"sweep": sweep, "network": name, "batch": batch, "parties": parties, "range_bits": bits}
                    floor = floors(name, batch, row, rate, link) if "online_s" in row else {}
                    found.append({**head, **row, **floor})
    return found


def one_point(cluster: Cluster, name: str, batch: int, bits: int | None, repeat: int) -> dict[str, Any]:
    """What was measured, or why it could not be."""
    ranges = None if bits is None else {"x": (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1))}
    try:
        with cluster.session(make_random_weights(name), ranges=ranges) as session:
            row = measure(cluster, session, (), made_up(session.plan, batch), repeat)
    except Exception as error:  # a range without a proof, or more memory than parties allow
        return {"failed": f"{type(error).__name__}: {error}"[:200]}
    return {key: row[key] for key in KEYS}


def product_rate() -> float:
    """Products over F_p a second, of one thread, in matrices as large as a layer's."""
    left, right = (field.from_signed(np.arange(512 * 512, dtype=np.int64).reshape(512, 512)) for _ in range(2))
    prepared, times = field.Operand(right), []
    prepared.lay_out(len(left), field.Room())
    for _ in range(5):
        started = time.perf_counter()
        field.matmul(left, prepared)
        times.append(time.perf_counter() - started)
    return 512**3 / min(times)


def floors(name: str, batch: int, row: dict[str, Any], rate: float, link: Link | None) -> dict[str, Any]:
    """Seconds that computing, latency and bandwidth each cannot go below, as this protocol has them."""
    count = products({**NETWORKS, **EXISTING}[name]) * batch
    floor = {"products": count, "floor_products_s": count / rate}
    if link is not None:
        floor["floor_latency_s"] = row["rounds"] * link.round_trip / 2e3
        floor["floor_bandwidth_s"] = row["sent_bytes"] * 8e-6 / link.rate
    return floor


def chart(path: Path, found: Sequence[dict[str, Any]], footer: str) -> None:
    """A panel a sweep; online, the sum of both phases, and the floor, of each network."""
    across = {"batch": "batch", "parties": "parties", "range": "range_bits"}
    panels = []
    for sweep in dict.fromkeys(row["sweep"] for row in found):
        rows = [row for row in found if row["sweep"] == sweep and "online_s" in row]
        lines = []
        for name in dict.fromkeys(row["network"] for row in rows):
            own = [row for row in rows if row["network"] == name]
            x = [row[across[sweep]] for row in own]
            both = [row["online_s"] + row["offline_s"] for row in own]
            lines.append((f"{name}, online", "o-", list(zip(x, (row["online_s"] for row in own), strict=True))))
            lines.append((f"{name}, online + offline", "s-", list(zip(x, both, strict=True))))
            floor = (row["floor_products_s"] for row in own)
            lines.append((f"{name}, its products alone", ":", list(zip(x, floor, strict=True))))
        label = {"range": "bits of the input's range"}.get(sweep, sweep)
        panels.append((f"growing {sweep}", label, lines))
    draw(path, panels, footer)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how cost grows.")
    parser.add_argument("--network", default="A,C", type=lambda text: text.split(","), metavar="NAMES")
    parser.add_argument("--sweep", default=",".join(SWEEPS), type=lambda text: text.split(","), metavar="NAMES")
    parser.add_argument("--largest", default=BATCHES[-1], type=int, help="batch (default: %(default)s)")
    parser.add_argument("--repeat", default=5, type=int)
    parser.add_argument("--link", type=Link.parse, help="lan, wan or MS:MBIT between all processes")
    parser.add_argument("--plot", type=Path, metavar="F.png|F.svg")
    parser.add_argument("--json", action="store_true", help="an array of rows; else a line each")
    given = parser.parse_args()
    if unknown := set(given.sweep) - set(SWEEPS):
        parser.error(f"--sweep takes {', '.join(SWEEPS)}, not {', '.join(sorted(unknown))}")
    if given.plot:
        check_plot(given.plot)
    machine = describe_machine(threads=1)
    found = measure_all(given, given.link)
    if given.plot:
        chart(given.plot, found, f"{machine['cpu']}, {machine['cores']} cores for all processes")
    if given.json:
        print(json.dumps([{"version": 1, **row, "machine": machine} for row in found]))
        return
    for row in found:
        head = f"{row['sweep']:8} {row['network']} batch {row['batch']:5} parties {row['parties']}"
        print(f"{head} range {row['range_bits'] or 'own':>3}  {_told(row)}")


def _told(row: dict[str, Any]) -> str:
    if "failed" in row:
        return row["failed"]
    return (
        f"online {row['online_s'] * 1e3:9.1f} ms  offline {row['offline_s'] * 1e3:9.1f} ms  rounds {row['rounds']:3}  "
        f"sent {row['sent_bytes'] / 1e6:8.2f} MB  dealt {row['dealt_bytes'] / 1e6:8.2f} MB  "
        f"products alone {row['floor_products_s'] * 1e3:8.2f} ms"
    )


if __name__ == "__main__":
    main()
