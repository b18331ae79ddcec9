"""A box that moves by a fraction of a cell at a time, and what each operator makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from detector.files import replacing
from detector.illustrate.anatomy import TITLES, Anatomy, dissect
from detector.illustrate.panels import draw_bins, draw_cells, heading
from detector.plots.figure import GRID, INK, MUTED, color_of, new_figure

SHOWN = ("pool", "align", "prroi")
DPI = 100  # of the animation: a GIF grows with its pixels


def responses(
    feature: Tensor,
    box: tuple[float, float, float, float],
    bins: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    shifts: Sequence[float],
) -> dict[str, list[Anatomy]]:
    """Each of :data:`SHOWN` at each shift of the box to the right, in cells of the map."""
    x1, y1, x2, y2 = box
    moved = [(x1 + shift / scale, y1, x2 + shift / scale, y2) for shift in shifts]
    return {kind: [dissect(kind, feature, b, bins, scale, sampling_ratio) for b in moved] for kind in SHOWN}


def draw_motion(
    feature: Tensor,
    box: tuple[float, float, float, float],
    bins: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    out: Path,
    frames: int = 36,
    cells: float = 3.0,
) -> None:
    """An endless GIF: the box moves right by ``cells`` of the map and back.

    Args:
        feature: Tensor[H, W].
        box: where it starts, pixels of the image.
        bins: output height and width.
        scale: map size over image size.
        sampling_ratio: samples a bin and axis.
        out: path of the GIF.
        frames: positions of the box on the way there.
        cells: how far it goes.
    """
    shifts = np.linspace(0, cells, frames).tolist()
    found = responses(feature, box, bins, scale, sampling_ratio, shifts)
    pictures = [_frame(feature, found, shifts, i) for i in range(frames)]
    # One palette for all frames: colours do not flicker, and the file is small.
    palette = pictures[frames // 2].quantize(64)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    with replacing(out) as temporary:
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=[*others, *others[-2::-1]],
            duration=110,
            loop=0,
            optimize=True,
        )


def _frame(feature: Tensor, found: dict[str, list[Anatomy]], shifts: Sequence[float], now: int) -> Image.Image:
    height, width = feature.shape
    column = 3.0
    tall = (column - 0.2) * height / width
    figure = new_figure(3 * column + 0.1, tall + 2.5)
    figure.set_dpi(DPI)
    total_w, total_h = figure.get_size_inches()
    for i, (kind, anatomies) in enumerate(found.items()):
        axes = figure.add_axes(((0.1 + i * column) / total_w, 2.1 / total_h, (column - 0.2) / total_w, tall / total_h))
        draw_cells(axes, feature)
        draw_bins(axes, anatomies[now])
        heading(axes, TITLES[kind])
    axes = figure.add_axes((0.45 / total_w, 0.45 / total_h, (3 * column - 0.6) / total_w, 1.3 / total_h))
    _curves(axes, found, shifts, now)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    return Image.fromarray(pixels[..., :3].copy())


def _curves(axes: Axes, found: dict[str, list[Anatomy]], shifts: Sequence[float], now: int) -> None:
    for i, (kind, anatomies) in enumerate(found.items()):
        values = torch.stack([anatomy.pooled.mean() for anatomy in anatomies]).tolist()
        axes.plot(
            shifts,
            values,
            color=color_of(i),
            linewidth=1.6,
            label=TITLES[kind],
            drawstyle="steps-mid" if kind == "pool" else "default",
        )
        axes.plot(shifts[now], values[now], "o", color=color_of(i), markersize=5)
    axes.set_title("mean of the bins against the shift of the box, cells", loc="left", fontsize=9, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.tick_params(labelsize=8, colors=MUTED, length=0)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color="#bbbbbb")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1)
