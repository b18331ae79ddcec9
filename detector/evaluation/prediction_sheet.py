"""Sheets of images with their true and predicted boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from detector.plots.figure import INK, MUTED, color_of
from detector.plots.grid import dashed, draw_grid, outline, place_texts, show_pixels

LEGEND_CLASSES = 24  # classes named in the legend, most frequent first


def draw_prediction_sheet(
    images: Sequence[torch.Tensor],
    targets: Sequence[Mapping[str, torch.Tensor]],
    predictions: Sequence[Mapping[str, torch.Tensor]],
    class_names: Sequence[str],
    out: str | Path,
    score_thresh: float = 0.5,
    columns: int = 4,
) -> None:
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
        raise ValueError(
            f"need as many images as targets and predictions and at least one, got {len(images)}, "
            f"{len(targets)} and {len(predictions)}"
        )
    kept = [above(prediction, score_thresh) for prediction in predictions]
    shown = Counter(label for boxes in kept for label in boxes["labels"].tolist())
    draw_grid(
        [image.shape[-2] / image.shape[-1] for image in images],
        min(columns, len(images)),
        lambda axes, i: draw_image(axes, images[i], targets[i], kept[i], class_names),
        legend_entries(shown, class_names, score_thresh),
        out,
    )


def above(prediction: Mapping[str, torch.Tensor], score_thresh: float) -> dict[str, torch.Tensor]:
    """Boxes, labels and scores from ``score_thresh`` on, highest score first, on the CPU."""
    order = torch.argsort(prediction["scores"], descending=True, stable=True)
    order = order[prediction["scores"][order] >= score_thresh]
    return {key: prediction[key][order].detach().cpu() for key in ("boxes", "labels", "scores")}


def draw_image(
    axes: Axes,
    image: torch.Tensor,
    target: Mapping[str, torch.Tensor],
    prediction: Mapping[str, torch.Tensor],
    class_names: Sequence[str],
) -> None:
    """One image with its boxes and a caption."""
    show_pixels(axes, image)
    for box, label in zip(prediction["boxes"].tolist(), prediction["labels"].tolist(), strict=True):
        axes.add_patch(outline(box, edgecolor=color_of(label - 1), linewidth=1.9))
    for box in target["boxes"].tolist():
        axes.add_patch(dashed(box))
    labels = prediction["labels"].tolist()
    texts = [
        f"{class_names[label - 1]} {score:.2f}"
        for label, score in zip(labels, prediction["scores"].tolist(), strict=True)
    ]
    place_texts(axes, prediction["boxes"].tolist(), texts, [color_of(label - 1) for label in labels])

    name = f"image {int(target['image_id'])}: " if "image_id" in target else ""
    axes.set_title(
        f"{name}{len(target['boxes'])} true, {len(prediction['boxes'])} predicted",
        loc="left",
        fontsize=7.5,
        color=MUTED,
        pad=3,
    )


def legend_entries(shown: Counter[int], class_names: Sequence[str], score_thresh: float) -> list[tuple[Line2D, str]]:
    """Samples and texts: the true box, the threshold, then the classes on the sheet by frequency."""
    nothing = Line2D([], [], linestyle="none")
    entries = [(Line2D([], [], color=INK, linewidth=1.2, linestyle=(0, (3, 2))), "true box")]
    if not shown:
        return [*entries, (nothing, f"no prediction has a score of {score_thresh:g} or more")]
    entries.append(
        (Line2D([], [], color="#a0a0a0", linewidth=3), f"predicted box, score ≥ {score_thresh:g}, colour by class:")
    )
    for label, _ in shown.most_common(LEGEND_CLASSES):
        entries.append((Line2D([], [], color=color_of(label - 1), linewidth=3), class_names[label - 1]))
    if len(shown) > LEGEND_CLASSES:
        entries.append((nothing, f"and {len(shown) - LEGEND_CLASSES} more classes"))
    return entries
