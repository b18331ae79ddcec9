"""Every figure is drawn here: training curves and sheets of images with their boxes.

Figures are Matplotlib ``Figure`` objects on the Agg canvas: no pyplot, no display, no global style, so that drawing
inside somebody's notebook or training process changes nothing there.
"""

from __future__ import annotations

import colorsys
import csv
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from detector.errors import DataError
from detector.evaluation.files import replacing

DPI = 160
INK, MUTED, GRID = "#222222", "#6b6b6b", "#e4e4e4"
# Distinct in hue and lightness, also for colour-blind readers (after Okabe and Ito, and Tol's bright scheme).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#AA3377", "#F0E442", "#117733", "#882255")

LOSSES = {"loss": "total", "loss_classifier": "box class", "loss_box_reg": "box position",
          "loss_objectness": "objectness", "loss_rpn_box_reg": "proposal position"}
SCORES = ("AP", "AP50", "AP75")
SMOOTHING = 0.05
"""Width of the moving average of a loss, as a share of the curve."""


# --------------------------------------------------------------------------------------------- curves
def plot_curves(metrics_csv: str | Path, out: str | Path) -> None:
    """Draw losses, AP and learning rate over optimiser steps from the file of Lightning's ``CSVLogger``.

    Args:
        metrics_csv: columns ``step``, ``train/loss``, ``train/loss_*``, ``train/lr``, ``val/AP``, ``val/AP50``,
            ``val/AP75``; any may be missing, and a row may hold any of them.
        out: the picture; its ending chooses the format (png, pdf, svg).

    Raises:
        DataError: there is no such CSV file.
    """
    curves = read_curves(metrics_csv)
    figure = new_figure(12.6, 3.7)
    losses, scores, rate = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1.25, 1.25, 0.9]})
    draw_losses(losses, curves)
    draw_scores(scores, curves)
    draw_rate(rate, curves)
    figure.subplots_adjust(left=0.05, right=0.985, top=0.89, bottom=0.15, wspace=0.2)
    save(figure, out)


def read_curves(metrics_csv: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """``{column: (steps, values)}`` of a metrics file, rows without a finite value left out."""
    points: dict[str, list[tuple[float, float]]] = {}
    try:
        with open(metrics_csv, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file)):
                step = as_number(row.get("step"))
                for column, text in row.items():
                    value = as_number(text)
                    if isinstance(column, str) and column != "step" and math.isfinite(value):
                        points.setdefault(column, []).append((step if math.isfinite(step) else number, value))
    except OSError as error:
        raise DataError(f"{metrics_csv}: the logged metrics cannot be read: {error.strerror}") from None
    by_step = {column: np.array(sorted(p, key=lambda point: point[0])) for column, p in points.items()}
    return {column: (table[:, 0], table[:, 1]) for column, table in by_step.items()}


def as_number(text: Any) -> float:
    """``text`` as a float, NaN if it is not one."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def smoothed(values: np.ndarray) -> np.ndarray:
    """Centred moving average over :data:`SMOOTHING` of the curve; the window shrinks towards both ends."""
    half = int(len(values) * SMOOTHING / 2 + 0.5)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    reach = np.minimum(half, np.minimum(index, len(values) - 1 - index))
    return (total[index + reach + 1] - total[index - reach]) / (2 * reach + 1)


def draw_losses(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """The total loss and its components, raw values faint behind the moving average."""
    style(axes, "Training loss")
    logged = [name.removeprefix("train/") for name in curves if name.startswith("train/loss")]
    names = [name for name in LOSSES if name in logged] + sorted(set(logged) - set(LOSSES))
    top = 0.0
    for i, name in enumerate(names):
        steps, values = curves[f"train/{name}"]
        color, width = (INK, 1.8) if name == "loss" else (color_of(i - ("loss" in names)), 1.3)
        average = smoothed(values)
        axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.22, zorder=2)
        axes.plot(steps, average, color=color, linewidth=width, label=LOSSES.get(name, name), zorder=3,
                  marker="o" if len(values) == 1 else None, markersize=4)
        top = max(top, 1.08 * average.max())
    finish(axes, top)


def draw_scores(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """AP, AP50 and AP75 on the validation set, the best of each marked with its value."""
    style(axes, "Validation")
    top = 0.0
    for color, name in zip((INK, *PALETTE), SCORES, strict=False):
        if f"val/{name}" not in curves:
            continue
        steps, values = curves[f"val/{name}"]
        best = int(np.argmax(values))
        axes.plot(steps, values, color=color, linewidth=1.8 if name == "AP" else 1.3, marker="o", markersize=3,
                  clip_on=False, label=f"{name} (best {values[best]:.3f})")
        axes.plot(steps[best], values[best], color=color, marker="o", markersize=7, markerfacecolor="none",
                  clip_on=False)
        top = max(top, 1.12 * values.max())
    finish(axes, min(max(top, 0.05), 1.02) if top else 0.0)


def draw_rate(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """The learning rate; ``train/lr``, or what Lightning's ``LearningRateMonitor`` calls ``lr-...``."""
    column = "train/lr" if "train/lr" in curves else next((c for c in curves if c.startswith("lr")), None)
    steps, values = curves[column] if column else (np.empty(0), np.empty(0))
    peak = values.max(initial=0.0)
    exponent = min(0, math.floor(math.log10(peak))) if peak > 0 else 0
    style(axes, "Learning rate" + (rf"  ($\times 10^{{{exponent}}}$)" if exponent else ""))
    if column:
        axes.plot(steps, values / 10.0**exponent, color=PALETTE[0], linewidth=1.5,
                  marker="o" if len(values) == 1 else None)
    finish(axes, 1.08 * peak / 10.0**exponent, legend=False)


def style(axes: Axes, title: str) -> None:
    """Title on the left, no box, light grid, small ticks."""
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=8)
    axes.set_xlabel("optimiser steps", fontsize=9, color=MUTED)
    axes.tick_params(labelsize=8.5, colors=MUTED, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color="#bbbbbb")


def finish(axes: Axes, top: float, legend: bool = True) -> None:
    """Legend and y limits; a sentence instead of a curve where nothing was logged."""
    if not axes.lines:
        axes.set(xticks=[], yticks=[], xlabel="")
        axes.spines["bottom"].set_visible(False)
        axes.text(0.5, 0.5, "not logged in this run", transform=axes.transAxes, ha="center", color=MUTED, fontsize=9)
        return
    last = max(np.max(line.get_xdata()) for line in axes.lines)
    axes.set_xlim(0, 1.02 * last if last > 0 else 1)
    axes.set_ylim(0, top if top > 0 else 1)
    if legend:
        axes.legend(loc="best", fontsize=8.5, frameon=True, framealpha=0.85, edgecolor="none", labelcolor=INK)


# ----------------------------------------------------------------------------------- prediction sheet
CELL = 3.1  # width of an image on the sheet, inches
CAPTION = 0.26  # height of the line above an image, inches
GAP = 0.12  # between images, inches
LABEL_SIZE = 6.0  # points
TRUE_DASHES = (0, (4, 4))  # of true boxes, in line widths: drawn, left out
LEGEND_CLASSES = 24  # classes named in the legend, most frequent first


def draw_prediction_sheet(images: Sequence[torch.Tensor], targets: Sequence[Mapping[str, torch.Tensor]],
                          predictions: Sequence[Mapping[str, torch.Tensor]], class_names: Sequence[str],
                          out: str | Path, score_thresh: float = 0.5, columns: int = 4) -> None:
    """Draw a grid of images with true boxes (dashed, white on black) and predicted boxes (in the colour of the class).

    Line widths and letters are in points and every image is scaled to the same width, so that a 64-pixel
    image reads as well as a photograph.

    Args:
        images: each ``[3, H, W]``, float 0..1, of any size.
        targets: ``boxes`` ``[N, 4]`` xyxy pixels and, if there, ``image_id`` for the caption.
        predictions: ``boxes`` ``[M, 4]``, ``labels`` ``[M]`` in 1..K and ``scores`` ``[M]``.
        class_names: ``class_names[label - 1]`` names a label.
        out: the picture; its ending chooses the format (png, pdf, svg).
        score_thresh: predictions below this score are not drawn.
        columns: images a row.

    Raises:
        ValueError: no images, or not as many targets and predictions as images.
    """
    if not images or not len(images) == len(targets) == len(predictions):
        raise ValueError(f"need as many images as targets and predictions and at least one, got {len(images)}, "
                         f"{len(targets)} and {len(predictions)}")
    columns = min(columns, len(images))
    rows = [range(start, min(start + columns, len(images))) for start in range(0, len(images), columns)]
    # A row is as high as its tallest image, but no image is drawn higher than 1.5 times the cell's width.
    heights = [CELL * min(1.5, max(images[i].shape[-2] / images[i].shape[-1] for i in row)) for row in rows]
    kept = [above(prediction, score_thresh) for prediction in predictions]
    shown = Counter(label for boxes in kept for label in boxes["labels"].tolist())
    entries = legend_entries(shown, class_names, score_thresh)
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
            axes = figure.add_axes((left / width, bottom / height, CELL / width, row_height / height))
            draw_image(axes, images[i], targets[i], kept[i], class_names)
        bottom -= GAP
    handles, names = zip(*entries, strict=True)
    legend = figure.legend(handles, [" "] * len(handles), loc="lower center", ncols=legend_columns, fontsize=8,
                           frameon=False, labelcolor=INK, handlelength=1.6, columnspacing=1.4, borderaxespad=0.3)
    # Set afterwards: a legend leaves names out that begin with an underscore, and typesets dollar signs as formulas.
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
    save(figure, out)


def above(prediction: Mapping[str, torch.Tensor], score_thresh: float) -> dict[str, torch.Tensor]:
    """Boxes, labels and scores from ``score_thresh`` on, highest score first, on the CPU."""
    order = torch.argsort(prediction["scores"], descending=True, stable=True)
    order = order[prediction["scores"][order] >= score_thresh]
    return {key: prediction[key][order].detach().cpu() for key in ("boxes", "labels", "scores")}


def draw_image(axes: Axes, image: torch.Tensor, target: Mapping[str, torch.Tensor],
               prediction: Mapping[str, torch.Tensor], class_names: Sequence[str]) -> None:
    """One image with its boxes and a caption."""
    pixels = image.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    height, width = pixels.shape[:2]
    # Pixel (i, j) covers [j, j+1] x [i, i+1], the convention of the box coordinates.
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="bicubic" if width < CELL * DPI else "antialiased")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], anchor="N")
    for spine in axes.spines.values():
        spine.set(color="#cccccc", linewidth=0.6)

    for box, label in zip(prediction["boxes"].tolist(), prediction["labels"].tolist(), strict=True):
        axes.add_patch(outline(box, edgecolor=color_of(label - 1), linewidth=1.9))
    # On top and thinner, with wide gaps: where a prediction hits the true box exactly, both can be seen.
    for box in target["boxes"].tolist():
        patch = outline(box, edgecolor="white", linewidth=0.8, linestyle=TRUE_DASHES)
        patch.set_path_effects([Stroke(linewidth=1.4, foreground="black", alpha=0.8), Normal()])
        axes.add_patch(patch)
    place_labels(axes, prediction, class_names)

    name = f"image {int(target['image_id'])}: " if "image_id" in target else ""
    axes.set_title(f"{name}{len(target['boxes'])} true, {len(prediction['boxes'])} predicted", loc="left", fontsize=7.5,
                   color=MUTED, pad=3)


def outline(box: Sequence[float], **style_of_line: Any) -> Rectangle:
    """The unfilled rectangle of an xyxy box."""
    return Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1], fill=False, **style_of_line)


def place_labels(axes: Axes, prediction: Mapping[str, torch.Tensor], class_names: Sequence[str]) -> None:
    """Write class and score at each box, at the corner where it covers least of the labels already there.

    Higher scores come first. A label never leaves the image.
    """
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    axes.apply_aspect()  # the image's shape decides where the axes are: transData is right only after this
    frame = axes.get_window_extent(renderer)
    taken: list[tuple[float, float, float, float]] = []
    for box, label, score in zip(prediction["boxes"].tolist(), prediction["labels"].tolist(),
                                 prediction["scores"].tolist(), strict=True):
        color = color_of(label - 1)
        text = axes.text(0, 0, f"{class_names[label - 1]} {score:.2f}", fontsize=LABEL_SIZE, color=contrast(color),
                         va="bottom", ha="left", zorder=5, parse_math=False,
                         bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8, "alpha": 0.88})
        extent = text.get_window_extent(renderer)
        pad = 0.8 * DPI / 72
        w, h = extent.width + 2 * pad, extent.height + 2 * pad
        (left, bottom), (right, top) = axes.transData.transform([(box[0], box[3]), (box[2], box[1])])
        # Above and below the top edge, then below and above the bottom edge; moved into the image.
        corners = itertools.product((top, top - h, bottom - h, bottom), (left, right - w))
        places = [(min(max(x, frame.x0), max(frame.x1 - w, frame.x0)),
                   min(max(y, frame.y0), max(frame.y1 - h, frame.y0))) for y, x in corners]
        covered = [sum(overlap((x, y, x + w, y + h), other) for other in taken) for x, y in places]
        x, y = places[covered.index(min(covered))]
        taken.append((x, y, x + w, y + h))
        position = axes.transData.inverted().transform((x + pad, y + pad))
        text.set_position((position[0], position[1]))


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Area that two rectangles (x0, y0, x1, y1) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def legend_entries(shown: Counter[int], class_names: Sequence[str], score_thresh: float) -> list[tuple[Line2D, str]]:
    """Samples and texts: the true box, the threshold, then the classes on the sheet by frequency."""
    nothing = Line2D([], [], linestyle="none")
    entries = [(Line2D([], [], color=INK, linewidth=1.2, linestyle=(0, (3, 2))), "true box")]
    if not shown:
        return [*entries, (nothing, f"no prediction has a score of {score_thresh:g} or more")]
    entries.append((Line2D([], [], color="#a0a0a0", linewidth=3),
                    f"predicted box, score ≥ {score_thresh:g}, colour by class:"))
    for label, _ in shown.most_common(LEGEND_CLASSES):
        entries.append((Line2D([], [], color=color_of(label - 1), linewidth=3), class_names[label - 1]))
    if len(shown) > LEGEND_CLASSES:
        entries.append((nothing, f"and {len(shown) - LEGEND_CLASSES} more classes"))
    return entries


# --------------------------------------------------------------------------------------------- common
def new_figure(width: float, height: float) -> Figure:
    """A white figure on the Agg canvas; sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, out: str | Path) -> None:
    """Write the figure under a temporary name and rename it."""
    with replacing(out) as temporary:
        figure.savefig(temporary, dpi=DPI, format=Path(out).suffix.lstrip(".") or "png")


def color_of(index: int) -> str:
    """The colour of class ``index`` (from 0): the palette, then hues a golden angle apart."""
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
