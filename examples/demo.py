"""The demo: a provider and three parties as separate processes, two trained models, real data.

Run it with `scripts/demo`.  It starts a local cluster with mutual TLS, asks it for predictions
that no single party could compute or see, and prints them beside onnxruntime's, with the price.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from mpc.errors import MpcError
from parties import Cluster, Session
from parties.cli.display import Display, seconds, size

HERE = Path(__file__).resolve().parent


def plaintext(model: Path, x: np.ndarray) -> tuple[np.ndarray, float]:
    """onnxruntime's answer with one thread, and the median seconds of a run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    reference = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(20):
        started = time.perf_counter()
        [answer] = reference.run(None, {"x": x})
        times.append(time.perf_counter() - started)
    return answer, statistics.median(times)


def private(session: Session, x: np.ndarray, runs: int) -> tuple[np.ndarray, dict[str, float]]:
    """The cluster's answer, and the medians of `runs` runs after one to warm up."""
    session.run(None, {"x": x})
    reports = []
    for _ in range(runs):
        [answer] = session.run(None, {"x": x})
        reports.append(session.last_run)
    price = {key: statistics.median(getattr(r, key) for r in reports) for key in ("online_s", "offline_s")}
    last = reports[-1]
    return answer, {**price, "rounds": last.rounds, "sent": last.sent_bytes, "dealt": last.dealt_bytes}


def show_price(out: Console, rows: list[tuple[str, dict[str, float], float]]) -> None:
    """One column a batch."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("price of a run")
    for title, _, _ in rows:
        table.add_column(title, justify="right")
    lines: dict[str, Callable[[dict[str, float], float], str]] = {
        "plaintext, onnxruntime, 1 thread": lambda p, t: seconds(t),
        "online": lambda p, t: seconds(p["online_s"]),
        "offline": lambda p, t: seconds(p["offline_s"]),
        "rounds": lambda p, t: f"{p['rounds']:.0f}",
        "sent by the largest party, to all": lambda p, t: size(int(p["sent"])),
        "dealt by the provider": lambda p, t: size(int(p["dealt"])),
        "slowdown, online": lambda p, t: f"{p['online_s'] / t:,.0f} x",
        "slowdown, online + offline": lambda p, t: f"{(p['online_s'] + p['offline_s']) / t:,.0f} x",
    }
    for name, line in lines.items():
        table.add_row(name, *(line(price, plain) for _, price, plain in rows))
    out.print(table)


def digits(cluster: Cluster, out: Console, count: int) -> None:
    """Network A on MNIST test images."""
    model, data = HERE / "mnist_mlp.onnx", np.load(HERE / "mnist_sample.npz")
    x, labels = (data["images"][:count] / 255).astype(np.float32), data["labels"][:count]
    out.rule(f"MNIST: network A (784-128-128-10), {count} test images")
    session = cluster.session(model)
    answer, price = private(session, x, runs=3)
    reference, plain = plaintext(model, x)
    for row in range(5):
        shown, was = answer[row].argmax(), labels[row]
        out.print(f"  image {row}: private says {shown}, plaintext {reference[row].argmax()}, truth {was}")
    ours, theirs = answer.argmax(1), reference.argmax(1)
    out.print(f"  accuracy        private {(ours == labels).mean():.2%}, plaintext {(theirs == labels).mean():.2%}")
    out.print(f"  same answer     {(ours == theirs).mean():.2%}")
    out.print(
        f"  largest error   {np.abs(answer - reference).max():.1e} of logits up to {np.abs(reference).max():.1f}\n"
    )
    single, single_price = private(session, x[:1], runs=7)
    show_price(out, [("batch 1", single_price, plaintext(model, x[:1])[1]), (f"batch {count}", price, plain)])
    session.close()


def tumours(cluster: Cluster, out: Console) -> None:
    """Network L on scikit-learn's breast-cancer data."""
    model, data = HERE / "breast_cancer_lr.onnx", np.load(HERE / "breast_cancer_test.npz")
    x, truth = data["x"], data["y"].reshape(-1)
    out.rule(f"Breast cancer: network L (logistic regression), {len(x)} patients")
    session = cluster.session(model)
    answer, price = private(session, x, runs=3)
    reference, plain = plaintext(model, x)
    for row in range(3):
        ours, theirs = float(answer[row, 0]), float(reference[row, 0])
        out.print(f"  patient {row}: private {ours:.4f}, plaintext {theirs:.4f}")
    ours, theirs = answer.reshape(-1) >= 0.5, reference.reshape(-1) >= 0.5
    out.print(f"  accuracy        private {(ours == truth).mean():.2%}, plaintext {(theirs == truth).mean():.2%}")
    out.print(f"  largest error   {np.abs(answer - reference).max():.1e} of probabilities\n")
    _, single_price = private(session, x[:1], runs=7)
    show_price(out, [("batch 1", single_price, plaintext(model, x[:1])[1]), (f"batch {len(x)}", price, plain)])
    session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--parties", type=int, default=3)
    parser.add_argument("--images", type=int, default=200, help="MNIST test images, at most 1000")
    chosen = parser.parse_args()
    out = Console(highlight=False, soft_wrap=True)
    out.print(f"starting a provider and {chosen.parties} parties, each its own process, mutual TLS between all ...")
    try:
        with Cluster.local(parties=chosen.parties) as cluster:
            digits(cluster, out, chosen.images)
            tumours(cluster, out)
    except MpcError as error:
        Display().error(error)
        raise SystemExit(error.exit_code) from None
    out.print("\nNo party saw an image, a patient, a weight or an answer. Your turn:", style="bold")
    out.print("  . .venv/bin/activate; mpc run MODEL.onnx --input X.npy --parties 3")


if __name__ == "__main__":
    main()
