"""Still figures of RoI operators on a small map of numbers: side by side, one bin close up, the pooling matrices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor

from detector.illustrate.anatomy import KINDS, TITLES, Anatomy, Box, Example
from detector.illustrate.panels import (
    BLUE,
    ORANGE,
    WEIGHTS,
    bin_weights,
    draw_bins,
    draw_cells,
    draw_key,
    draw_neighbours,
    heading,
    neighbours,
    sample_values,
)
from detector.plots.figure import INK, MUTED, add_axes, new_figure, save
from detector.plots.grid import outline

ABOUT = {
    "pool": "box and bins rounded to whole cells; the largest",
    "align": "mean of interpolated samples",
    "align_aligned": "the same, half a cell up and left",
    "align_max": "largest of the samples",
    "prroi": "integral over the bin; no samples",
}


def draw_side_by_side(example: Example, out: Path) -> None:
    """All operators on one map: bins and samples above, what they give below."""
    height, width = example.feature.shape
    columns, column = 3, 2.9  # few columns: a page is narrow, and the numbers are there to be read
    above = (column - 0.25) * height / width
    below = above * 0.5
    row = above + below + 0.75
    rows = -(-(len(KINDS) + 1) // columns)  # the last panel is the legend
    figure = new_figure(columns * column + 0.1, rows * row)
    limits = float(example.feature.min()), float(example.feature.max())

    def add_panel(number: int, bottom: float, tall: float) -> Axes:
        down, right = divmod(number, columns)
        return add_axes(figure, 0.1 + right * column, (rows - 1 - down) * row + bottom, column - 0.25, tall)

    for i, kind in enumerate(KINDS):
        anatomy = example.dissect(kind)
        top = add_panel(i, below + 0.45, above)
        draw_cells(top, example.feature, size=8)
        draw_bins(top, anatomy, chosen=(0, 0))
        if anatomy.x.samples is not None:
            draw_neighbours(top, anatomy)
        heading(top, TITLES[kind], ABOUT[kind])
        bottom = add_panel(i, 0.1, below)
        draw_cells(bottom, anatomy.pooled, form="{:.2f}", size=9, limits=limits)
        bottom.set_anchor("W")
        bottom.add_patch(outline((0.02, 0.02, 0.98, 0.98), edgecolor=ORANGE, linewidth=1.5, zorder=3))
    draw_key(add_panel(len(KINDS), below + 0.45, above))
    save(figure, out)


def draw_one_bin(example: Example, out: Path) -> None:
    """The first bin of RoIPool, RoIAlign and PrRoIPool close up, with the arithmetic written out.

    The samples of the bin must lie on the map.
    """
    feature = example.feature
    arithmetic = {"pool": _pool_lines, "align": _align_lines, "prroi": _prroi_lines}
    found = [example.dissect(kind) for kind in arithmetic]
    left, top, right, bottom = _window(found, feature)
    column = 3.9
    tall = column * (bottom - top) / (right - left)
    figure = new_figure(len(found) * column + 0.1, tall + 1.15)
    for i, anatomy in enumerate(found):
        axes = add_axes(figure, 0.1 + i * column, 0.85, column - 0.3, tall)
        if anatomy.kind == "prroi":
            _draw_weights(axes, bin_weights(anatomy, 0, 0), "{:.3f}", 9)
        else:
            draw_cells(axes, feature, size=11)
        for text in axes.texts:
            text.set_clip_on(True)
        draw_bins(axes, anatomy, chosen=None if anatomy.kind == "prroi" else (0, 0))
        if anatomy.kind == "align":
            draw_neighbours(axes, anatomy)
            background = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
            for row, col, weight in neighbours(anatomy, 0, 0, 0, 0):
                axes.text(col + 0.5, row + 0.82, f"× {weight:.3f}", ha="center", va="center", fontsize=8, color=BLUE,
                          zorder=5, bbox=background)  # fmt: skip
        axes.set(xlim=(left, right), ylim=(bottom, top))
        heading(axes, TITLES[anatomy.kind])
        lines = "\n".join(arithmetic[anatomy.kind](anatomy, feature))
        axes.text(0, -0.04, lines, transform=axes.transAxes, fontsize=8.5, color=INK, va="top", linespacing=1.5)
    save(figure, out)


def _window(found: Sequence[Anatomy], feature: Tensor) -> Box:
    """The cells around the first bins: x1, y1, x2, y2."""
    x = [edge for anatomy in found for edge in anatomy.x.bins[0]]
    y = [edge for anatomy in found for edge in anatomy.y.bins[0]]
    height, width = feature.shape
    return max(int(min(x)) - 1, 0), max(int(min(y)) - 1, 0), min(int(max(x)) + 2, width), min(int(max(y)) + 2, height)


def _pool_lines(anatomy: Anatomy, feature: Tensor) -> list[str]:
    (y1, y2), (x1, x2) = anatomy.y.bins[0], anatomy.x.bins[0]
    cells = feature[int(y1) : int(y2), int(x1) : int(x2)].flatten().tolist()
    listed = ", ".join(f"{v:.0f}" for v in cells[:12]) + (", ..." if len(cells) > 12 else "")
    return [
        f"rows {y1} to {y2 - 1}, columns {x1} to {x2 - 1} of the map, counted from 0",
        f"max({listed}) = {anatomy.pooled[0, 0]:.2f}",
    ]


def _align_lines(anatomy: Anatomy, feature: Tensor) -> list[str]:
    values = sample_values(anatomy, feature, 0, 0)
    terms = " + ".join(f"{w:.3f}·{feature[r, c]:.0f}" for r, c, w in neighbours(anatomy, 0, 0, 0, 0))
    listed = " + ".join(f"{v:.2f}" for v in values.flatten().tolist())
    return [
        f"first sample: {terms}",
        f"= {values[0, 0]:.2f}",
        f"bin: ({listed}) / {values.numel()} = {anatomy.pooled[0, 0]:.2f}",
    ]


def _prroi_lines(anatomy: Anatomy, feature: Tensor) -> list[str]:
    weights = bin_weights(anatomy, 0, 0)
    (y1, y2), (x1, x2) = anatomy.y.bins[0], anatomy.x.bins[0]
    return [
        "weight of each cell: its hat integrated over the bin,",
        f"divided by the area {x2 - x1:.2f} × {y2 - y1:.2f}",
        f"sum of weight × value = {(weights * feature).sum():.2f}  (weights sum to {weights.sum():.3f})",
    ]


def draw_matrices(example: Example, out: Path) -> None:
    """``A_y F A_x^T = out`` with all numbers, for RoIAlign and PrRoIPool."""
    kinds = ("align", "prroi")
    height, width = example.feature.shape
    unit = 0.43  # inches per cell
    row = max(height, width) * unit + 0.6
    figure = new_figure((height + width + 2 * example.bins[1]) * unit + 1.9, row * len(kinds))
    total_w, total_h = figure.get_size_inches()
    for i, kind in enumerate(kinds):
        anatomy = example.dissect(kind)
        a_y, a_x = anatomy.y.weight, anatomy.x.weight
        assert a_y is not None, "both operators are linear"
        assert a_x is not None, "both operators are linear"
        middle, left = total_h - (i + 0.5) * row - 0.12, 0.15
        factors = (("$A_y$", a_y, "·"), ("$F$", example.feature, "·"), ("$A_x^T$", a_x.T, "="),
                   ("out", anatomy.pooled, ""))  # fmt: skip
        for name, values, sign in factors:
            h, w = values.shape[0] * unit, values.shape[1] * unit
            _draw_matrix(add_axes(figure, left, middle - h / 2, w, h), name, values, TITLES[kind])
            left += w + 0.55
            figure.text((left - 0.28) / total_w, middle / total_h, sign, ha="center", va="center", fontsize=18,
                        color=INK)  # fmt: skip
    save(figure, out)


def _draw_matrix(axes: Axes, name: str, values: Tensor, title: str) -> None:
    """One matrix with its name and size; the first one carries the title of the row."""
    if name.startswith("$A"):
        _draw_weights(axes, values, "{:.2f}", 8.5, limits=(0.0, 1.0))
    else:
        draw_cells(axes, values, form="{:.0f}" if name == "$F$" else "{:.2f}", size=10 if name == "$F$" else 9)
    size = " × ".join(str(n) for n in values.shape)
    axes.set_title(f"{name}   {size}", loc="left", fontsize=11, color=MUTED, pad=4)
    if name == "$A_y$":
        axes.annotate(title, (0, 1), xycoords="axes fraction", xytext=(0, 24), textcoords="offset points", fontsize=12,
                      fontweight="bold", color=INK)  # fmt: skip


def _draw_weights(
    axes: Axes, values: Tensor, form: str, size: float, limits: tuple[float, float] | None = None
) -> None:
    """:func:`draw_cells` for weights: cells without weight stay empty."""
    draw_cells(axes, values, WEIGHTS, form, size, limits)
    for text, value in zip(axes.texts, values.flatten().tolist(), strict=False):
        text.set_visible(value != 0)


def number_map(height: int, width: int, seed: int) -> Tensor:
    """A map of whole numbers 0..9 with a soft hill in it, float64 [H, W]: easy to check by hand."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(height, dtype=torch.float64)[:, None] - 0.45 * height
    x = torch.arange(width, dtype=torch.float64) - 0.55 * width
    hill = 7 * torch.exp(-(y**2 + x**2) / (0.3 * min(height, width)) ** 2)
    noise = 2.5 * torch.rand(height, width, generator=generator, dtype=torch.float64)
    return (hill + noise).round().clamp(0, 9)
