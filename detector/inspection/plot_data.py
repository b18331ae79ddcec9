"""What is in a data set, and what augmentation makes of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from detector.plots.figure import INK, MUTED, PALETTE, color_of, new_figure, save, style
from detector.plots.grid import Mark, Panel, draw_panels
from detector.words import counted

if TYPE_CHECKING:
    from detector.inspection.doctor import Examination

CLASSES = 16  # classes with a bar: the most frequent ones
LEGEND = 16  # classes in the legend of a sheet


def plot_data(found: Examination, out: str | Path) -> None:
    """Draw class balance, density, sizes, shapes and centres of the boxes, and what anchors reach."""
    figure = new_figure(12.6, 6.8)
    for i, draw in enumerate((draw_classes, draw_density, draw_sides, draw_ratios, draw_centres, draw_anchors)):
        draw(figure.add_subplot(2, 3, i + 1), found)
    figure.tight_layout()
    save(figure, out)


def draw_classes(axes: Axes, found: Examination) -> None:
    """Boxes of each class in each split, on a logarithmic axis."""
    names = found.class_names
    counts = np.array([s.class_counts(names) for s in found.splits]).reshape(len(found.splits), -1)
    shown = np.argsort(-counts[0], kind="stable")[:CLASSES]
    which = f" ({CLASSES} most frequent of {len(names)})" if len(names) > CLASSES else ""
    style(axes, f"Boxes of each class{which}", "boxes", "")
    height = 0.8 / len(found.splits)
    for i, split in enumerate(found.splits):
        at = np.arange(len(shown)) + i * height
        axes.barh(at, counts[i, shown], height=0.92 * height, color=color_of(i), label=split.name)
    axes.set_yticks(np.arange(len(shown)) + 0.4 - height / 2, [names[k][:18] for k in shown])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.legend(fontsize=8, frameon=False)


def draw_density(axes: Axes, found: Examination) -> None:
    """How many images have how many boxes."""
    style(axes, "Boxes per image", "boxes", "share of the images")
    most = max(int(s.box_counts.max(initial=0)) for s in found.splits)
    step = max(1, -(-(most + 1) // 40))
    edges = np.arange(0, most + 1 + step, step) - 0.5
    for i, split in enumerate(found.splits):
        share = np.histogram(split.box_counts, edges)[0] / max(len(split.box_counts), 1)
        axes.stairs(share, edges, color=color_of(i), linewidth=1.5, fill=False, label=split.name)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)


def draw_sides(axes: Axes, found: Examination) -> None:
    """Sizes of the training boxes in the network's input, with the sizes of the anchors."""
    style(axes, "Sizes of the training boxes", "square root of the area in the network's input, pixels", "boxes")
    if found.anchors is None:
        return
    fits = found.anchors.fits.items()
    marks = {name: [size for of_map in fit.sizes for size in of_map] for name, fit in fits}
    side = found.anchors.objects.side
    every = [side.min(), side.max(), *itertools.chain(*marks.values())]
    histogram_with_anchors(axes, side, (min(every) / 1.1, max(every) * 1.1), marks)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, 0.9))


def draw_ratios(axes: Axes, found: Examination) -> None:
    """Shapes of the training boxes, with the aspect ratios of the anchors."""
    style(axes, "Shapes of the training boxes", "height / width", "boxes")
    if found.anchors is None:
        return
    ratio = found.anchors.objects.ratio
    marks = {name: fit.aspect_ratios for name, fit in found.anchors.fits.items()}
    histogram_with_anchors(axes, ratio, (min(ratio.min(), 0.25) / 1.05, max(ratio.max(), 4.0) * 1.05), marks)
    axes.xaxis.set_minor_locator(NullLocator())


def histogram_with_anchors(
    axes: Axes, values: np.ndarray, limits: tuple[float, float], marks: Mapping[str, Sequence[float]]
) -> None:
    """A histogram on a logarithmic axis, with marks for the configured and for the proposed anchors."""
    axes.hist(values, np.geomspace(*limits, 40).tolist(), color=PALETTE[0], alpha=0.75)
    top = axes.get_ylim()[1]
    for (name, at), color, height in zip(marks.items(), PALETTE[1:], (1.0, 0.93), strict=False):
        heights = [height * top] * len(at)
        axes.plot(at, heights, color=color, marker="v", markersize=7, linestyle="none", label=f"{name} anchors")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def draw_centres(axes: Axes, found: Examination) -> None:
    """Where in the image the centres of the training boxes are."""
    style(axes, "Centres of the training boxes", "x / width", "y / height")
    train = found.splits[0]
    if not len(train.boxes):
        return
    centre = (train.boxes[:, :2] + train.boxes[:, 2:]) / 2 / train.read.sizes[train.image][:, ::-1]
    table = np.histogram2d(centre[:, 1], centre[:, 0], 24, [[0, 1], [0, 1]])[0]
    axes.imshow(table, extent=(0, 1, 1, 0), cmap="Blues", vmin=0, aspect="auto")
    axes.grid(visible=False)


def draw_anchors(axes: Axes, found: Examination) -> None:
    """The share of training boxes with an anchor of an IoU or more."""
    style(axes, "What anchors reach", "IoU", "share of the training boxes")
    if found.anchors is None:
        return
    thresholds = np.linspace(0.3, 1, 141)
    for (name, fit), color in zip(found.anchors.fits.items(), PALETTE[1:], strict=False):
        axes.plot(thresholds, [fit.recall(t) for t in thresholds], color=color, linewidth=1.7, label=name)
    matched = found.model.rpn.fg_iou_thresh
    axes.axvline(matched, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(matched, 1.02, " positive from here", fontsize=7.5, color=MUTED)
    axes.set(xlim=(0.3, 1), ylim=(0, 1.1))
    axes.legend(fontsize=8, frameon=False, loc="lower left")


def draw_augmentation(
    rows: Sequence[tuple[str, Sequence[tuple[torch.Tensor, dict[str, torch.Tensor]]]]],
    class_names: Sequence[str],
    out: str | Path,
) -> None:
    """Draw images before augmentation (first column) and after.

    Args:
        rows: name of the image, and (image ``[3, H, W]``, target with ``boxes`` xyxy and ``labels`` from 1) as it is
            and as it was augmented; equally many in each row.
        class_names: ``class_names[label - 1]`` names a label.
        out: the picture.
    """
    panels, seen = [], set()
    for name, versions in rows:
        for number, (image, target) in enumerate(versions):
            labels = target["labels"].tolist()
            seen.update(labels)
            boxes = zip(target["boxes"].tolist(), labels, strict=True)
            marks = [Mark(box, color_of(label - 1)) for box, label in boxes]
            title = f"{'augmented' if number else name}, {counted(len(labels), 'box', 'boxes')}"
            panels.append(Panel(image, (image.shape[-2], image.shape[-1]), title, marks))
    legend = [
        (Line2D([], [], color=color_of(label - 1), linewidth=3), class_names[label - 1])
        for label in sorted(seen)[:LEGEND]
    ]
    if len(seen) > LEGEND:
        legend.append((Line2D([], [], linestyle="none"), f"and {len(seen) - LEGEND} more classes"))
    draw_panels(panels, len(rows[0][1]), legend or [(Line2D([], [], color=INK, linewidth=3), "no box")], out)
