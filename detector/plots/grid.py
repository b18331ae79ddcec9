"""Grids of images with boxes and texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from detector.plots.figure import DPI, INK, MUTED, add_axes, contrast, new_figure, save
from detector.plots.fonts import legible
from detector.plots.labels import least_covered

CELL = 3.1  # width of an image, inches
CAPTION = 0.26  # height of the line above an image, inches
GAP = 0.12  # between images, inches
LABEL_SIZE = 6.0  # points
DASHES = (0, (4, 4))  # of dashed boxes, in line widths: drawn, left out


class Mark(NamedTuple):
    """A box on an image, x1, y1, x2, y2 in pixels, with a text or none."""

    box: Sequence[float]
    color: str
    text: str = ""
    is_dashed: bool = False


class Panel(NamedTuple):
    """An image with its boxes; None for an image that cannot be read, of which only the size is known."""

    image: torch.Tensor | None  # float32 [3, H, W] in 0..1
    size: tuple[int, int]  # height, width
    title: str
    marks: Sequence[Mark]


def draw_panels(panels: Sequence[Panel], columns: int, legend: Sequence[tuple[Line2D, str]], out: str | Path) -> None:
    """Draw ``panels`` row by row, ``columns`` in each."""
    draw_grid(
        [panel.size[0] / panel.size[1] for panel in panels],
        columns,
        lambda axes, i: draw_panel(axes, panels[i]),
        legend,
        out,
    )


def draw_panel(axes: Axes, panel: Panel) -> None:
    """One image with its boxes and title."""
    if panel.image is None:
        show_pixels(axes, torch.full((3, *panel.size), 0.85))
    else:
        show_pixels(axes, panel.image)
    for mark in panel.marks:
        axes.add_patch(
            dashed(mark.box, mark.color) if mark.is_dashed else outline(mark.box, edgecolor=mark.color, linewidth=1.7)
        )
    named = [mark for mark in panel.marks if mark.text]
    place_texts(axes, [m.box for m in named], [m.text for m in named], [m.color for m in named])
    axes.set_title(panel.title, loc="left", fontsize=7.5, color=MUTED, pad=3, parse_math=False)


def draw_grid(
    ratios: Sequence[float],
    columns: int,
    draw: Callable[[Axes, int], None],
    entries: Sequence[tuple[Line2D, str]],
    out: str | Path,
) -> None:
    """Lay out images in rows and draw a legend below.

    Line widths and letters are in points and every image is scaled to the same width, so that a 64-pixel
    image reads as well as a photograph.

    Args:
        ratios: height / width of each image.
        columns: images per row.
        draw: draws image i into axes.
        entries: samples and texts of the legend.
        out: the picture; its ending chooses the format (png, pdf, svg).
    """
    rows = [range(start, min(start + columns, len(ratios))) for start in range(0, len(ratios), columns)]
    # A row is as high as its tallest image, but no image is drawn higher than 1.5 times the cell's width.
    heights = [CELL * min(1.5, max(ratios[i] for i in row)) for row in rows]
    legend_columns = max(1, min(len(entries), int(columns * CELL / 1.55)))
    legend_height = 0.18 * math.ceil(len(entries) / legend_columns) + 0.12

    width = columns * CELL + (columns + 1) * GAP
    height = sum(heights) + len(rows) * (CAPTION + GAP) + legend_height
    figure = new_figure(width, height)
    bottom = height
    for row, row_height in zip(rows, heights, strict=True):
        bottom -= CAPTION + row_height
        for column, i in enumerate(row):
            left = GAP + column * (CELL + GAP)
            draw(add_axes(figure, left, bottom, CELL, row_height), i)
        bottom -= GAP
    handles, names = zip(*entries, strict=True)
    legend = figure.legend(
        handles,
        [" "] * len(handles),
        loc="lower center",
        ncols=legend_columns,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
        handlelength=1.6,
        columnspacing=1.4,
        borderaxespad=0.3,
    )
    # Set afterwards: a legend leaves out names that begin with an underscore, and typesets dollar signs as formulas.
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
    save(figure, out)


def show_pixels(axes: Axes, image: torch.Tensor) -> None:
    """The pixels of an image ``[3, H, W]`` in axes whose units they are."""
    pixels = image.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    height, width = pixels.shape[:2]
    # Pixel (i, j) covers [j, j+1] x [i, i+1], the convention of the box coordinates.
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="bicubic" if width < CELL * DPI else "antialiased")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], anchor="N")
    for spine in axes.spines.values():
        spine.set(color="#cccccc", linewidth=0.6)


def outline(box: Sequence[float], fill: bool = False, **style: Any) -> Rectangle:
    """The rectangle of an xyxy box."""
    return Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1], fill=fill, **style)


def dashed(box: Sequence[float], color: str = "white") -> Rectangle:
    """A thin dashed box on black, with wide gaps: drawn over an equal box, both can be seen."""
    patch = outline(box, edgecolor=color, linewidth=0.8, linestyle=DASHES)
    patch.set_path_effects([Stroke(linewidth=1.4, foreground="black", alpha=0.8), Normal()])
    return patch


def place_texts(axes: Axes, boxes: Sequence[Sequence[float]], texts: Sequence[str], colors: Sequence[str]) -> None:
    """Write a text at each box, at the corner where it covers least of the texts that are already there.

    The first box comes first. A text never leaves the image.
    """
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    axes.apply_aspect()  # moves the axes to fit the shape of the image: transData is right only afterwards
    frame = axes.get_window_extent(renderer)
    taken: list[tuple[float, float, float, float]] = []
    for box, words, color in zip(boxes, texts, colors, strict=True):
        text = axes.text(
            0,
            0,
            words,
            fontsize=LABEL_SIZE,
            color=contrast(color),
            va="bottom",
            ha="left",
            zorder=5,
            parse_math=False,
            bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8, "alpha": 0.88},
        )
        with legible(text):
            extent = text.get_window_extent(renderer)
        pad = 0.8 * DPI / 72
        w, h = extent.width + 2 * pad, extent.height + 2 * pad
        (left, bottom), (right, top) = axes.transData.transform([(box[0], box[3]), (box[2], box[1])])
        # Above and below the top edge, then below and above the bottom edge.
        x, y = least_covered((left, right - w), (top, top - h, bottom - h, bottom), (w, h), frame.extents, taken)
        position = axes.transData.inverted().transform((x + pad, y + pad))
        text.set_position((position[0], position[1]))
