"""The parts of the figures of RoI operators: cells, bins, samples with their neighbours, weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from torch import Tensor

from detector.illustrate.anatomy import Anatomy
from detector.plots.figure import INK, MUTED, color_of
from detector.plots.grid import outline

BLUE, ORANGE = (color_of(i) for i in range(2))
# Pale enough for dark lines and numbers on every value.
PALE: Colormap = LinearSegmentedColormap.from_list("pale", ["#ffffff", "#cfe3f2", "#9fc6e4"])
WEIGHTS: Colormap = LinearSegmentedColormap.from_list("weights", ["#ffffff", "#fbd3b4", "#e88d4a"])
MOST_NUMBERS = 200  # cells up to which their values are written
DASHED = (0, (4, 2.5))
SHADE = 0.22  # opacity of the chosen bin


def heading(axes: Axes, title: str, below: str = "") -> None:
    """A title on the left and a small line under the axes."""
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, pad=5)
    if below:
        axes.text(0, -0.03, below, transform=axes.transAxes, fontsize=7.5, color=MUTED, va="top", parse_math=False)


def draw_cells(
    axes: Axes,
    values: Tensor,
    cmap: Colormap = PALE,
    form: str = "{:.0f}",
    size: float = 7.0,
    limits: tuple[float, float] | None = None,
) -> None:
    """``values`` [H, W] as a grid of cells, cell (i, j) covering [j, j + 1] x [i, i + 1], with numbers if they fit.

    Args:
        axes: their limits become those of the grid.
        values: the map.
        cmap: colours from the lowest to the highest value.
        form: format of a number.
        size: of the numbers, points.
        limits: values of the first and last colour; None: the lowest and highest there are.
    """
    height, width = values.shape
    low, high = limits or (float(values.min()), float(values.max()))
    axes.imshow(values.numpy(), extent=(0, width, height, 0), cmap=cmap, vmin=low, vmax=max(high, low + 1e-9))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    if height * width <= MOST_NUMBERS:
        for (i, j), value in np.ndenumerate(values.numpy()):
            axes.text(j + 0.5, i + 0.5, form.format(value), ha="center", va="center", fontsize=size, color=MUTED)
        axes.set_xticks(np.arange(1, width), minor=True)
        axes.set_yticks(np.arange(1, height), minor=True)
        axes.grid(which="minor", color="#e2e2e2", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set(color="#bbbbbb", linewidth=0.8)


def draw_bins(axes: Axes, anatomy: Anatomy, chosen: tuple[int, int] | None = None) -> None:
    """The box as given (dashed), the bins, the chosen one shaded, and the samples.

    RoIPool's bins overlap by whole cells: each is drawn a little inside its edge, so that all can be seen.
    """
    for p, (y1, y2) in enumerate(anatomy.y.bins):
        for q, (x1, x2) in enumerate(anatomy.x.bins):
            inset = 0.06 * (1 + (p + q) % 2) if anatomy.kind == "pool" else 0.0
            box = (x1 + inset, y1 + inset, x2 - inset, y2 - inset)
            axes.add_patch(outline(box, edgecolor=ORANGE, linewidth=1.3, zorder=3))
            if (p, q) == chosen:
                axes.add_patch(outline(box, fill=True, facecolor=ORANGE, alpha=SHADE, linewidth=0))
            for y in anatomy.y.positions(p):
                xs = [x for x in anatomy.x.positions(q) if np.isfinite(x) and np.isfinite(y)]
                axes.plot(xs, [y] * len(xs), "o", markersize=3.2, color=ORANGE, zorder=4)
    axes.add_patch(outline(anatomy.box, edgecolor=INK, linewidth=1.3, zorder=3, linestyle=DASHED))


def draw_neighbours(axes: Axes, anatomy: Anatomy) -> None:
    """Lines from the first sample of the first bin to the centres of its four neighbours, as thick as they weigh."""
    x, y = anatomy.x.positions(0)[0], anatomy.y.positions(0)[0]
    for row, column, weight in neighbours(anatomy, 0, 0, 0, 0):
        axes.plot([x, column + 0.5], [y, row + 0.5], zorder=3.5, **line_of(weight))
    axes.plot([x], [y], "o", markersize=4.2, color=BLUE, zorder=4)


def line_of(weight: float) -> dict[str, Any]:
    """The style of the line to a neighbour."""
    return {"color": BLUE, "linewidth": 0.6 + 4 * weight, "alpha": 0.75, "solid_capstyle": "round"}


def draw_key(axes: Axes) -> None:
    """The legend: what the lines, dots and shades of the other panels mean."""
    axes.set(xlim=(0, 1), ylim=(5, 0))
    axes.set_axis_off()
    texts = (
        "the box as it is given",
        "the bins that the operator makes of it",
        "the shaded bin gives the framed value",
        "samples of the bins",
        "one sample and its four neighbours,\nlines as thick as they weigh",
    )
    axes.plot([0.02, 0.16], [0.5, 0.5], color=INK, linewidth=1.3, linestyle=DASHED)
    axes.add_patch(outline((0.03, 1.25, 0.15, 1.75), edgecolor=ORANGE, linewidth=1.3))
    axes.add_patch(outline((0.03, 2.25, 0.15, 2.75), fill=True, facecolor=ORANGE, alpha=SHADE, linewidth=0))
    axes.plot([0.06, 0.12], [3.5, 3.5], "o", markersize=3.2, color=ORANGE)
    for x, y, weight in ((0.03, 4.25, 0.05), (0.15, 4.25, 0.15), (0.03, 4.75, 0.2), (0.15, 4.75, 0.6)):
        axes.plot([0.1, x], [4.53, y], **line_of(weight))
    axes.plot([0.1], [4.53], "o", markersize=4.2, color=BLUE)
    for row, text in enumerate(texts):
        axes.text(0.22, row + 0.5, text, fontsize=8, color=INK, va="center")


def neighbours(anatomy: Anatomy, p: int, q: int, iy: int, ix: int) -> list[tuple[int, int, float]]:
    """Row, column and weight of the four pixels that a sample of bin (p, q) is interpolated from."""
    y, x = anatomy.y.samples, anatomy.x.samples
    assert y is not None, "the operator has no samples"
    assert x is not None, "the operator has no samples"
    fy, fx = y.frac[0, p, iy].item(), x.frac[0, q, ix].item()
    return [
        (int(row[0, p, iy]), int(column[0, q, ix]), wy * wx)
        for row, wy in ((y.low, 1 - fy), (y.high, fy))
        for column, wx in ((x.low, 1 - fx), (x.high, fx))
    ]


def sample_values(anatomy: Anatomy, feature: Tensor, p: int, q: int) -> Tensor:
    """Interpolated values of the samples of bin (p, q), Tensor[g_y, g_x]; all of them must lie on the map."""
    shape = len(anatomy.y.positions(p)), len(anatomy.x.positions(q))
    values = [
        sum(weight * feature[row, column].item() for row, column, weight in neighbours(anatomy, p, q, iy, ix))
        for iy in range(shape[0])
        for ix in range(shape[1])
    ]
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def bin_weights(anatomy: Anatomy, p: int, q: int) -> Tensor:
    """Weight of every pixel of the map in bin (p, q) of a linear operator, Tensor[H, W]."""
    y, x = anatomy.y.weight, anatomy.x.weight
    assert y is not None, "a maximum has no weights"
    assert x is not None, "a maximum has no weights"
    return torch.outer(y[p], x[q])
