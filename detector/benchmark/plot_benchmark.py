"""Time against the size of the work, ours and a peer's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from detector.plots.figure import color_of, new_figure, save, style


def plot_benchmark(curves: Mapping[str, Mapping[str, Sequence[float]]], out: str | Path) -> None:
    """One panel for each entry of ``curves``: milliseconds on a logarithmic axis against ``x``.

    Args:
        curves: by the name of the x axis: ``x`` and one list of times in milliseconds for each line.
        out: path of the picture; its suffix is the format.
    """
    figure = new_figure(4.6 * len(curves), 3.4)
    for i, (name, lines) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), i + 1)
        style(axes, "forward, ms")
        for j, (label, times) in enumerate((k, v) for k, v in lines.items() if k != "x"):
            axes.plot(lines["x"], times, marker="o", markersize=3.5, linewidth=1.6, color=color_of(j), label=label)
        axes.set_yscale("log")
        if max(lines["x"]) > 20 * min(lines["x"]):
            axes.set_xscale("log", base=2)
        axes.set_xlabel(name)
        axes.legend(frameon=False)
    figure.tight_layout()
    save(figure, out)
