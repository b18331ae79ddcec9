"""Still figures of RoI operators on a small map of numbers: side by side, one bin close up, the pooling matrices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor

from detector.illustrate.anatomy import KINDS, TITLES, Anatomy, dissect
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
    outline,
    sample_values,
)
from detector.plots.figure import INK, MUTED, new_figure, save

Box = tuple[float, float, float, float]
ABOUT = {
    "pool": "box and bins rounded to whole cells; the largest",
    "align": "mean of interpolated samples",
    "align_aligned": "the same, half a cell up and left",
    "align_max": "largest of the samples",
    "prroi": "integral over the bin; no samples",
}


def draw_side_by_side(
    feature: Tensor, box: Box, bins: tuple[int, int], scale: float, sampling_ratio: int, out: Path
) -> None:
    """All operators on one map: bins and samples above, what they give below.

    Args:
        feature: Tensor[H, W].
        box: x1, y1, x2, y2 in pixels of the image.
        bins: output height and width.
        scale: map size over image size.
        sampling_ratio: samples a bin and axis.
        out: path of the picture.
    """
    height, width = feature.shape
    columns = 3  # of panels: a page is narrow, and the numbers are there to be read
    column = 2.9
    above = (column - 0.25) * height / width
    below = above * 0.5
    row = above + below + 0.75
    rows = -(-(len(KINDS) + 1) // columns)  # the last panel is the legend
    figure = new_figure(columns * column + 0.1, rows * row)
    total_w, total_h = figure.get_size_inches()
    limits = float(feature.min()), float(feature.max())

    def place(number: int, bottom: float, tall: float) -> Axes:
        x, y = 0.1 + number % columns * column, total_h - (number // columns + 1) * row + bottom
        return figure.add_axes((x / total_w, y / total_h, (column - 0.25) / total_w, tall / total_h))

    for i, kind in enumerate(KINDS):
        anatomy = dissect(kind, feature, box, bins, scale, sampling_ratio)
        top = place(i, below + 0.45, above)
        draw_cells(top, feature, size=8)
        draw_bins(top, anatomy, chosen=(0, 0))
        if anatomy.x.samples is not None:
            draw_neighbours(top, anatomy, 0, 0, 0, 0)
        heading(top, TITLES[kind], ABOUT[kind])
        bottom = place(i, 0.1, below)
        draw_cells(bottom, anatomy.pooled, form="{:.2f}", size=9, limits=limits)
        bottom.set_anchor("W")
        outline(bottom, (0.02, 0.02, 0.98, 0.98), ORANGE, 1.5)
    draw_key(place(len(KINDS), below + 0.45, above))
    save(figure, out)


def draw_one_bin(
    feature: Tensor, box: Box, bins: tuple[int, int], scale: float, sampling_ratio: int, out: Path
) -> None:
    """The first bin of RoIPool, RoIAlign and PrRoIPool close up, with the arithmetic written out; as
    :func:`draw_side_by_side`. The samples of the bin must lie on the map."""
    kinds = ("pool", "align", "prroi")
    found = [dissect(kind, feature, box, bins, scale, sampling_ratio) for kind in kinds]
    window = _window(found, feature)
    column = 3.9
    tall = column * (window[3] - window[1]) / (window[2] - window[0])
    figure = new_figure(len(kinds) * column + 0.1, tall + 1.15)
    total_w, total_h = figure.get_size_inches()
    for i, anatomy in enumerate(found):
        left = (0.1 + i * column) / total_w
        axes = figure.add_axes((left, 0.85 / total_h, (column - 0.3) / total_w, tall / total_h))
        if anatomy.kind == "prroi":
            _weights(axes, bin_weights(anatomy, 0, 0), "{:.3f}", 9)
        else:
            draw_cells(axes, feature, size=11)
        for text in axes.texts:
            text.set_clip_on(True)
        draw_bins(axes, anatomy, chosen=None if anatomy.kind == "prroi" else (0, 0))
        if anatomy.kind == "align":
            draw_neighbours(axes, anatomy, 0, 0, 0, 0)
            for row, col, weight in neighbours(anatomy, 0, 0, 0, 0):
                axes.text(
                    col + 0.5,
                    row + 0.82,
                    f"× {weight:.3f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=BLUE,
                    zorder=5,
                    bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
                )
        axes.set(xlim=(window[0], window[2]), ylim=(window[3], window[1]))
        heading(axes, TITLES[anatomy.kind])
        lines = {"pool": _pool_lines, "align": _align_lines, "prroi": _prroi_lines}[anatomy.kind](anatomy, feature)
        axes.text(
            0, -0.04, "\n".join(lines), transform=axes.transAxes, fontsize=8.5, color=INK, va="top", linespacing=1.5
        )
    save(figure, out)


def _window(found: Sequence[Anatomy], feature: Tensor) -> tuple[float, float, float, float]:
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


def draw_matrices(
    feature: Tensor, box: Box, bins: tuple[int, int], scale: float, sampling_ratio: int, out: Path
) -> None:
    """``A_y F A_x^T = out`` with all numbers, for RoIAlign and PrRoIPool; as :func:`draw_side_by_side`."""
    kinds = ("align", "prroi")
    height, width = feature.shape
    unit = 0.43  # inches a cell
    across = (height + width + 2 * bins[1]) * unit + 1.9
    figure = new_figure(across, (max(height, width) * unit + 0.6) * len(kinds))
    total_w, total_h = figure.get_size_inches()
    row = total_h / len(kinds)
    for i, kind in enumerate(kinds):
        anatomy = dissect(kind, feature, box, bins, scale, sampling_ratio)
        a_y, a_x = anatomy.y.weight, anatomy.x.weight
        assert a_y is not None, "both operators are linear"
        assert a_x is not None, "both operators are linear"
        middle = total_h - (i + 0.5) * row - 0.12
        left = 0.15
        for name, values, sign in (
            ("$A_y$", a_y, "·"),
            ("$F$", feature, "·"),
            ("$A_x^T$", a_x.T, "="),
            ("out", anatomy.pooled, ""),
        ):
            h, w = values.shape[0] * unit, values.shape[1] * unit
            axes = figure.add_axes((left / total_w, (middle - h / 2) / total_h, w / total_w, h / total_h))
            _matrix(axes, name, values, TITLES[kind] if name == "$A_y$" else "")
            left += w + 0.55
            figure.text(
                (left - 0.28) / total_w, middle / total_h, sign, ha="center", va="center", fontsize=18, color=INK
            )
    save(figure, out)


def _matrix(axes: Axes, name: str, values: Tensor, title: str) -> None:
    if name.startswith("$A"):
        _weights(axes, values, "{:.2f}", 8.5, limits=(0.0, 1.0))
    else:
        draw_cells(axes, values, form="{:.0f}" if name == "$F$" else "{:.2f}", size=10 if name == "$F$" else 9)
    size = " × ".join(str(n) for n in values.shape)
    axes.set_title(f"{name}   {size}", loc="left", fontsize=11, color=MUTED, pad=4)
    if title:
        axes.annotate(
            title,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 24),
            textcoords="offset points",
            fontsize=12,
            fontweight="bold",
            color=INK,
        )


def _weights(axes: Axes, values: Tensor, form: str, size: float, limits: tuple[float, float] | None = None) -> None:
    """:func:`draw_cells` for weights: cells that count for nothing stay empty."""
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
