"""Sheets of images with their true and predicted boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from detector.plots.figure import DPI, INK, MUTED, color_of, contrast, new_figure, save
from detector.plots.labels import least_covered

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
        # Above and below the top edge, then below and above the bottom edge.
        x, y = least_covered((left, right - w), (top, top - h, bottom - h, bottom), (w, h), frame.extents, taken)
        position = axes.transData.inverted().transform((x + pad, y + pad))
        text.set_position((position[0], position[1]))


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
