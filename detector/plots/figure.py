"""What all figures share: canvas, colours, style of axes, saving."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from detector.files import replacing
from detector.plots.fonts import legible

DPI = 160
INK, MUTED, GRID = "#222222", "#6b6b6b", "#e4e4e4"
# Distinct in hue and lightness, also for colour-blind readers (after Okabe and Ito, and Tol's bright scheme).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#AA3377", "#F0E442", "#117733", "#882255")


class LegibleFigure(Figure):
    """A figure that draws names in any script that a font is installed for."""

    def tight_layout(self, **keys: Any) -> None:
        """Make room for all words."""
        with legible(self):
            super().tight_layout(**keys)

    def draw(self, renderer: RendererBase) -> None:
        """Draw everything."""
        with legible(self):
            super().draw(renderer)


def new_figure(width: float, height: float) -> Figure:
    """A white figure on the Agg canvas; sizes in inches."""
    figure = LegibleFigure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, out: str | Path) -> None:
    """Write the figure under a temporary name and rename it."""
    with replacing(out) as temporary:
        figure.savefig(temporary, dpi=DPI, format=Path(out).suffix.lstrip(".") or "png")


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a position in inches from the lower left corner of the figure."""
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def color_of(index: int) -> str:
    """The colour of class or line ``index`` (from 0): the palette, then hues a golden angle apart."""
    if index < len(PALETTE):
        return PALETTE[index]
    turn = index - len(PALETTE)
    r, g, b = colorsys.hls_to_rgb((0.13 + turn * 0.618034) % 1.0, (0.38, 0.55, 0.68)[turn % 3], 0.7)
    return f"#{round(r * 255):02x}{round(g * 255):02x}{round(b * 255):02x}"


def contrast(color: str) -> str:
    """Black or white, whichever is easier to read on ``color`` (WCAG relative luminance)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


def style(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """Title on the left, names of the axes, no box, light grid, small ticks."""
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=8)
    axes.set_xlabel(x, fontsize=9, color=MUTED)
    axes.set_ylabel(y, fontsize=9, color=MUTED)
    axes.tick_params(labelsize=8.5, colors=MUTED, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color="#bbbbbb")


def nothing(axes: Axes, why: str) -> None:
    """A sentence in the middle of axes that have nothing to show."""
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", color=MUTED, fontsize=9, wrap=True)
