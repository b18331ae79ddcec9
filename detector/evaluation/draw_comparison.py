"""Runs against each other: differences with their intervals, and images side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from detector.evaluation.diagnosis import Diagnosis
from detector.evaluation.intervals import Interval
from detector.evaluation.metrics import IOU_THRESHOLDS
from detector.evaluation.paired import Comparison
from detector.plots.figure import INK, MUTED, PALETTE, color_of, new_figure, save, style
from detector.plots.grid import Mark, Panel, draw_panels
from detector.plots.labels import shortened

CLASSES = 20  # classes with a row: those that changed most
FOUND, FALSE, MISSED = PALETTE[2], PALETTE[1], PALETTE[7]
LINE = 0.22  # height of a row, inches


def plot_differences(comparison: Comparison, out: str | Path) -> None:
    """Draw the differences of the COCO numbers, of AP by IoU threshold, and of the AP of each class."""
    found = comparison.differences
    names = comparison.runs[0].matches.class_names
    with_ap = [k for k in comparison.most_changed_classes() if not np.isnan(found[0].by_class["AP"][k].value)]
    shown = with_ap[:CLASSES]
    panels: list[tuple[str, list[str], list[list[Interval]]]] = [
        ("COCO numbers", list(found[0].metrics), [list(d.metrics.values()) for d in found]),
        ("AP by overlap demanded", [f"IoU {t:.2f}" for t in IOU_THRESHOLDS], [d.by_iou for d in found]),
        (
            f"AP: {CLASSES} most changed classes" if len(shown) == CLASSES < len(names) else "AP of each class",
            [shortened(names[k]) for k in shown],
            [[d.by_class["AP"][k] for k in shown] for d in found],
        ),
    ]
    rows = max(12, *(len(labels) for _, labels, _ in panels))
    figure = new_figure(11.5, 1.5 + LINE * rows * max(1, 0.55 * len(found)))
    for i, (title, labels, values) in enumerate(panels):
        axes = figure.add_subplot(1, 3, i + 1)
        draw_intervals(axes, title, labels, values, comparison.names[1:])
    base = shortened(comparison.names[0], 80).replace("$", r"\$")
    figure.suptitle(f"Difference to {base}, with 95 % intervals", x=0.01, ha="left", fontsize=10.5, color=INK)
    figure.tight_layout()
    save(figure, out)


def draw_intervals(
    axes: Axes, title: str, labels: Sequence[str], values: Sequence[Sequence[Interval]], names: Sequence[str]
) -> None:
    """One row a label with a dot and a line for each run; hollow dots where the interval holds 0."""
    style(axes, title, "difference")
    axes.axvline(0, color=MUTED, linewidth=1)
    for j, (run, name) in enumerate(zip(values, names, strict=True)):
        offset = (j - (len(names) - 1) / 2) * 0.7 / len(names)
        for row, (value, low, high) in enumerate(run):
            clear = low > 0 or high < 0
            if not np.isnan(low):
                axes.plot([low, high], [row + offset] * 2, color=color_of(j), linewidth=1.6)
            axes.plot(
                [value],
                [row + offset],
                marker="o",
                markersize=4.5,
                linestyle="none",
                color=color_of(j),
                markerfacecolor=color_of(j) if clear else "white",
            )
        axes.plot([], [], color=color_of(j), marker="o", markersize=4.5, label=shortened(name).replace("$", r"\$"))
    axes.set_yticks(range(len(labels)), labels)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(max(len(labels), 1) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=5)
    if len(names) > 1:
        axes.legend(fontsize=7.5, frameon=False)


def draw_changes(
    comparison: Comparison, chosen: Sequence[tuple[int, int]], pictures: Mapping[int, Panel], out: str | Path
) -> None:
    """Draw images of the baseline beside the same images of a run.

    Args:
        comparison: of the runs.
        chosen: (position of the image, number of the run), one pair of pictures each.
        pictures: by position, without boxes.
        out: the picture.
    """
    panels = []
    for position, number in chosen:
        for which in (0, number):
            run = comparison.runs[which]
            marks, words = marks_of(run, position)
            net = f" (net {comparison.changes[number - 1].net[position]:+d})" if which else ""
            base = pictures[position]
            name = shortened(comparison.names[which])
            panels.append(
                base._replace(
                    marks=marks, title=f"{name}: {words}{net}" if which else f"{shortened(base.title)}, {name}: {words}"
                )
            )
    line = lambda color, **more: Line2D([], [], color=color, linewidth=3, **more)
    legend = [
        (line(FOUND), "found"),
        (line(FALSE), "false detection"),
        (Line2D([], [], color=MISSED, linewidth=1.6, linestyle=(0, (3, 2))), "object not found"),
    ]
    draw_panels(panels, 4 if len(panels) > 2 else 2, legend, out)


def marks_of(run: Diagnosis, position: int) -> tuple[list[Mark], str]:
    """The boxes of one image: detections found, false detections, objects not found; and how many there are."""
    m = run.matches
    right, wrong = (np.flatnonzero(kind & (m.image == position)) for kind in (run.true, run.false))
    missed = np.flatnonzero((m.object_image == position) & ~run.found & m.counted[0])
    marks = [Mark(corners(m.boxes_xywh[row]), FOUND) for row in right]
    marks += [Mark(corners(m.object_boxes[g]), MISSED, is_dashed=True) for g in missed]
    words = lambda row: f"{shortened(m.class_names[m.label[row]], 16)} {m.score[row]:.2f}"
    marks += [Mark(corners(m.boxes_xywh[row]), FALSE, words(row)) for row in wrong]
    return marks, f"{len(right)} found, {len(wrong)} false, {len(missed)} missed"


def corners(xywh: np.ndarray) -> list[float]:
    """x1, y1, x2, y2 of a box."""
    x, y, w, h = xywh.tolist()
    return [x, y, x + w, y + h]
