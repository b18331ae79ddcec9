"""Sheets of images with their true and predicted boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.lines import Line2D
from torch import Tensor

from detector.plots.figure import INK, color_of
from detector.plots.grid import Mark, Panel, draw_panels

LEGEND_CLASSES = 24  # classes named in the legend, most frequent first
Sample = tuple[Tensor, Mapping[str, Tensor], Mapping[str, Tensor]]
"""Image, target and prediction."""


def draw_prediction_sheet(
    samples: Sequence[Sample],
    class_names: Sequence[str],
    out: str | Path,
    score_thresh: float = 0.5,
    columns: int = 4,
) -> None:
    """Draw a grid of images with true boxes (dashed, white on black) and predicted boxes (in the colour of the class).

    Args:
        samples: at least one; the image ``[3, H, W]``, float 0..1, of any size; its target with ``boxes`` ``[N, 4]``
            xyxy pixels and, if there, ``image_id`` for the caption; its prediction with ``boxes`` ``[M, 4]``,
            ``labels`` ``[M]`` in 1..K and ``scores`` ``[M]``.
        class_names: ``class_names[label - 1]`` names a label.
        out: the picture; its ending chooses the format (png, pdf, svg).
        score_thresh: predictions below this score are not drawn.
        columns: images per row.

    Raises:
        ValueError: no images.
    """
    if not samples:
        raise ValueError("a sheet needs at least one image")
    kept = [(image, target, above(prediction, score_thresh)) for image, target, prediction in samples]
    shown = Counter(label for _, _, prediction in kept for label in prediction["labels"].tolist())
    panels = [panel_of(*sample, class_names) for sample in kept]
    draw_panels(panels, min(columns, len(panels)), legend_entries(shown, class_names, score_thresh), out)


def above(prediction: Mapping[str, Tensor], score_thresh: float) -> dict[str, Tensor]:
    """Boxes, labels and scores from ``score_thresh`` on, highest score first, on the CPU."""
    order = torch.argsort(prediction["scores"], descending=True, stable=True)
    order = order[prediction["scores"][order] >= score_thresh]
    return {key: prediction[key][order].detach().cpu() for key in ("boxes", "labels", "scores")}


def panel_of(
    image: Tensor, target: Mapping[str, Tensor], prediction: Mapping[str, Tensor], class_names: Sequence[str]
) -> Panel:
    """An image with its boxes and a caption; the true boxes on top."""
    boxes, labels, scores = (prediction[key].tolist() for key in ("boxes", "labels", "scores"))
    marks = [
        Mark(box, color_of(label - 1), f"{class_names[label - 1]} {score:.2f}")
        for box, label, score in zip(boxes, labels, scores, strict=True)
    ]
    marks += [Mark(box, "white", is_dashed=True) for box in target["boxes"].tolist()]
    name = f"image {int(target['image_id'])}: " if "image_id" in target else ""
    height, width = image.shape[-2:]
    return Panel(image, (height, width), f"{name}{len(target['boxes'])} true, {len(boxes)} predicted", marks)


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
