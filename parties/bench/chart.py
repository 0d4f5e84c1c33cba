"""A chart of what was measured: seconds against the batch, both logarithmic, as PNG or SVG.

matplotlib is imported here, when a chart is asked for, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpc.errors import UsageError

FORMATS = (".png", ".svg")
_REMEDY = "pip install 'mpc[bench]', or leave --plot out: --json has the same numbers"

Row = Mapping[str, Any]
Line = tuple[str, str, Sequence[tuple[float, float]]]
"""A label, a style as matplotlib has it, and points."""
Panel = tuple[str, str, Sequence[Line]]
"""A title, what its horizontal axis says, and lines."""


def check_plot(path: Path) -> None:
    """Refuse what cannot be drawn before anything is measured.

    Raises:
        UsageError: another format, a folder that is not there, or no matplotlib.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path.name}: a chart is a PNG or an SVG", remedy="--plot chart.png or chart.svg")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: its folder does not exist", remedy="make it, or name another")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib, which is not installed", remedy=_REMEDY) from None


def draw_bench(path: Path, found: Sequence[Row]) -> None:
    """Draw a panel for each model: online, online + offline, and the model in the clear."""
    models = list(dict.fromkeys(row["model"] for row in found))
    panels = [
        (Path(model).name, "batch", _bench_lines([row for row in found if row["model"] == model])) for model in models
    ]
    draw(path, panels, f"{found[0]['parties']} parties, {found[0]['machine']['cpu']}")


def _bench_lines(rows: Sequence[Row]) -> list[Line]:
    checked = [row for row in rows if row.get("security") == "active"]
    rows = sorted((row for row in rows if row.get("security") != "active"), key=lambda row: row["batch"])
    both = [(row["batch"], row["online_s"] + row["offline_s"]) for row in rows]
    lines = [("online", "o-", _points(rows, "online_s")), ("online + offline", "s-", both)]
    lines.append(("online, checked", "o:", sorted(_points(checked, "online_s"))))
    lines.append(("onnxruntime, 1 thread", "^--", _points(rows, "plaintext_s")))
    lines.append(("PyTorch, 1 thread", "v--", _points(rows, "pytorch_s")))
    return [line for line in lines if line[2]]


def _points(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    return [(row["batch"], row[key]) for row in rows if row[key] is not None]


def draw(path: Path, panels: Sequence[Panel], footer: str) -> None:
    """Draw panels side by side, with one scale of seconds; no window is opened."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for panel, (title, across, lines) in zip(axes, panels, strict=True):
        panel.set(title=title, xlabel=across, xscale="log", yscale="log")
        for label, style, points in lines:
            panel.plot([x for x, _ in points], [y for _, y in points], style, label=label, markersize=4)
        ticks = sorted({x for _, _, points in lines for x, _ in points})
        panel.set_xticks(ticks, [f"{x:g}" for x in ticks])
        panel.set_xticks([], minor=True)
        panel.grid(True, which="major", alpha=0.3)
        panel.legend(fontsize="small")
    axes[0].set_ylabel("seconds")
    figure.text(0.995, -0.02, footer, ha="right", va="top", fontsize="x-small")
    figure.savefig(path, dpi=150, bbox_inches="tight")
