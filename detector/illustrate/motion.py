"""A box that moves by a fraction of a cell at a time, and what each operator makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image

from detector.files import replacing
from detector.illustrate.anatomy import TITLES, Anatomy, Example
from detector.illustrate.panels import draw_bins, draw_cells, heading
from detector.plots.figure import add_axes, color_of, new_figure, style

SHOWN = ("pool", "align", "prroi")
CELLS = 3.0  # how far the box moves
FRAMES = 36  # positions of the box on the way there
DPI = 100  # of the animation: a GIF grows with its pixels


def responses(example: Example, shifts: Sequence[float]) -> dict[str, list[Anatomy]]:
    """Each of :data:`SHOWN` at each shift of the box to the right, in cells of the map."""
    return {kind: [example.moved(shift).dissect(kind) for shift in shifts] for kind in SHOWN}


def draw_motion(example: Example, out: Path) -> None:
    """An endless GIF: the box moves right by :data:`CELLS` of the map and back."""
    shifts = np.linspace(0, CELLS, FRAMES).tolist()
    found = responses(example, shifts)
    pictures = [_frame(example, found, shifts, i) for i in range(FRAMES)]
    # One palette for all frames: colours do not flicker, and the file is small.
    palette = pictures[FRAMES // 2].quantize(64)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    way_back = others[-2::-1]
    with replacing(out) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=[*others, *way_back], duration=110, loop=0,
                   optimize=True)  # fmt: skip


def _frame(example: Example, found: dict[str, list[Anatomy]], shifts: Sequence[float], now: int) -> Image.Image:
    height, width = example.feature.shape
    column = 3.0
    tall = (column - 0.2) * height / width
    figure = new_figure(3 * column + 0.1, tall + 2.5)
    figure.set_dpi(DPI)
    for i, (kind, anatomies) in enumerate(found.items()):
        axes = add_axes(figure, 0.1 + i * column, 2.1, column - 0.2, tall)
        draw_cells(axes, example.feature)
        draw_bins(axes, anatomies[now])
        heading(axes, TITLES[kind])
    _curves(add_axes(figure, 0.45, 0.45, 3 * column - 0.6, 1.3), found, shifts, now)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    return Image.fromarray(pixels[..., :3].copy())


def _curves(axes: Axes, found: dict[str, list[Anatomy]], shifts: Sequence[float], now: int) -> None:
    style(axes, "mean of the bins against the shift of the box, cells")
    for i, (kind, anatomies) in enumerate(found.items()):
        values = torch.stack([anatomy.pooled.mean() for anatomy in anatomies]).tolist()
        steps = "steps-mid" if kind == "pool" else "default"
        axes.plot(shifts, values, color=color_of(i), linewidth=1.6, label=TITLES[kind], drawstyle=steps)
        axes.plot(shifts[now], values[now], "o", color=color_of(i), markersize=5)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1)
