"""What a detector gets wrong: precision and recall, AP by overlap, recall by size, errors, confusions, calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from detector.evaluation.diagnosis import Diagnosis
from detector.evaluation.metrics import IOU_THRESHOLDS, RECALLS
from detector.evaluation.slices import SIDES
from detector.plots.figure import GRID, INK, MUTED, PALETTE, color_of, new_figure, nothing, save, style
from detector.plots.labels import shortened

CURVES = 10  # classes with a curve of their own: those with the most objects
CELLS = 20  # classes in the confusion matrix: the most confused ones
PICTURES = ("errors", "precision_recall", "ap_by_iou", "recall_by_size", "calibration", "confusion")
NUMBERS = 12  # classes up to which its cells have numbers


def plot_diagnosis(diagnosis: Diagnosis, folder: str | Path) -> dict[str, Path]:
    """Draw every plot of a diagnosis into ``folder``; return the pictures by name."""
    folder = Path(folder)
    drawings: list[tuple[Callable[[Axes, Diagnosis], None], float, float]] = [
        (draw_errors, 5.4, 3.3),
        (draw_precision_recall, 6.6, 3.7),
        (draw_ap_by_iou, 4.6, 3.3),
        (draw_recall_by_size, 5.4, 3.3),
        (draw_calibration, 4.3, 3.9),
        (draw_confusion, *confusion_size(diagnosis)),
    ]
    pictures = {}
    for name, (draw, width, height) in zip(PICTURES, drawings, strict=True):
        figure = new_figure(width, height)
        draw(figure.add_subplot(), diagnosis)
        figure.tight_layout()
        pictures[name] = folder / f"{name}.png"
        save(figure, pictures[name])
    return pictures


def draw_errors(axes: Axes, diagnosis: Diagnosis) -> None:
    """The AP50 that correcting each kind of error would win, with the number of errors."""
    style(axes, "What each kind of error costs")
    errors = diagnosis.errors
    if errors.ap50 is None:
        nothing(axes, "no ground truth")
        return
    axes.set_xlabel(f"AP50 won by correcting them (now {errors.ap50:.3f}); how many in brackets")
    kinds, costs = list(errors.cost), list(errors.cost.values())
    bars = axes.barh(range(len(kinds)), costs, color=[color_of(i) for i in range(len(kinds))], height=0.66)
    words = [f"{cost:.3f}  ({errors.total[kind]:,})" for kind, cost in errors.cost.items()]
    axes.bar_label(bars, words, padding=4, fontsize=8, color=INK)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.invert_yaxis()
    axes.set_xlim(0, max(1.35 * max(costs), 0.01))
    axes.grid(axis="y", visible=False)


def draw_precision_recall(axes: Axes, diagnosis: Diagnosis) -> None:
    """Precision over recall: the mean at three IoU thresholds, and the largest classes at 0.5."""
    style(axes, "Precision and recall", "recall", "precision")
    mean = diagnosis.accumulated.precision_curves()
    if np.isnan(mean).any():
        nothing(axes, "no ground truth")
        return
    matches = diagnosis.matches
    precision = diagnosis.accumulated.precision[0, :, :, 0, -1]
    sizes = np.bincount(matches.object_label[matches.counted[0]], minlength=len(matches.class_names))
    shown = [k for k in np.argsort(-sizes, kind="stable")[:CURVES].tolist() if sizes[k]]
    for k in shown if len(matches.class_names) > 1 else ():
        (line,) = axes.plot(RECALLS, precision[:, k], color=color_of(k), linewidth=1.1)
        line.set_label("IoU 0.50, " + shortened(matches.class_names[k]).replace("$", r"\$"))
    for t, dashes in ((0, "-"), (5, (0, (4, 1.5))), (8, (0, (1.2, 1.2)))):
        words = f"IoU {IOU_THRESHOLDS[t]:.2f}, mean of the classes"
        axes.plot(RECALLS, mean[t], color=INK, linewidth=1.9, linestyle=dashes, label=words)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))


def draw_ap_by_iou(axes: Axes, diagnosis: Diagnosis) -> None:
    """AP at each IoU threshold with its interval."""
    style(axes, "AP by overlap demanded", "IoU threshold", "AP")
    values = np.array(diagnosis.numbers.by_iou)
    if np.isnan(values[:, 0]).any():
        nothing(axes, "no ground truth")
        return
    if not np.isnan(values).any():
        axes.fill_between(
            IOU_THRESHOLDS, values[:, 1], values[:, 2], color=PALETTE[0], alpha=0.18, linewidth=0, label="95 % interval"
        )
    axes.plot(IOU_THRESHOLDS, values[:, 0], color=PALETTE[0], marker="o", markersize=3.5, linewidth=1.6, label="AP")
    axes.set_ylim(0, min(1.02, max(0.1, 1.15 * np.nanmax(values))))
    axes.legend(fontsize=8, frameon=False)


def draw_recall_by_size(axes: Axes, diagnosis: Diagnosis) -> None:
    """The share of objects found, by the side of a square of the object's area."""
    x = "square root of the area, pixels; number of objects below"
    style(axes, "Recall by size of the object", x, "share found, at any score")
    counts, recall = diagnosis.by_side
    filled = np.flatnonzero(counts)
    if not len(filled):
        nothing(axes, "no ground truth")
        return
    bins = np.arange(filled[0], filled[-1] + 1)
    heights = (recall[bins, 0], recall[bins, 5], recall[bins].mean(axis=1))
    for i, (height, words) in enumerate(zip(heights, ("IoU 0.50", "IoU 0.75", "mean of 0.50 to 0.95"), strict=True)):
        axes.bar(
            np.arange(len(bins)) + 0.27 * (i - 1),
            np.nan_to_num(height),
            width=0.25,
            label=words,
            color=PALETTE[(0, 5, 2)[i]],
        )
    names = [f"{SIDES[i]:g} to {SIDES[i + 1]:g}" if np.isfinite(SIDES[i + 1]) else f"from {SIDES[i]:g}" for i in bins]
    axes.set_xticks(range(len(bins)), [f"{n}\n{counts[i]:,}" for n, i in zip(names, bins, strict=True)], fontsize=7.5)
    axes.set_ylim(0, 1.18)
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=7.5, frameon=False, ncols=3, loc="upper left", columnspacing=1.2, handlelength=1.2)


def draw_calibration(axes: Axes, diagnosis: Diagnosis) -> None:
    """The reliability diagram: what a score promises, and what it keeps."""
    style(axes, "Are scores probabilities?", "score", "share of true positives (IoU 0.5)")
    found = diagnosis.calibration
    if found.error is None:
        nothing(axes, "no detections")
        return
    bins = len(found.count)
    width = 1 / bins
    centres = (np.arange(bins) + 0.5) * width
    share = found.count / found.count.max()
    axes.bar(centres, 0.2 * share, width=0.96 * width, color=GRID, label="number of detections", zorder=1)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="calibrated")
    known = found.count > 0
    line: dict[str, Any] = {"color": PALETTE[1], "marker": "o", "markersize": 4, "linewidth": 1.5}
    axes.plot(found.score[known], found.precision[known], label="detections", **line)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    words: dict[str, Any] = {"ha": "right", "fontsize": 9, "color": INK, "fontweight": "bold"}
    axes.text(0.97, 0.04, f"ECE {found.error:.3f}", transform=axes.transAxes, **words)
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def confusion_size(diagnosis: Diagnosis) -> tuple[float, float]:
    """Width and height of the confusion matrix in inches."""
    side = 1.9 + 0.32 * (min(len(diagnosis.matches.class_names), CELLS) + 1)
    return max(side + 0.6, 4.2), max(side, 3.6)


def draw_confusion(axes: Axes, diagnosis: Diagnosis) -> None:
    """Rows: what an object is; columns: what it is taken for; in shares of the row."""
    table, names = diagnosis.confusion, diagnosis.matches.class_names
    chosen = most_confused(table)
    part = f" ({len(chosen)} most confused classes)" if len(chosen) < len(names) else ""
    x, y = "detected as (background: not detected)", "is (background: nothing there)"
    style(axes, f"Confusions, IoU 0.5{part}", x, y)
    if not table.sum():
        nothing(axes, "nothing to confuse")
        return
    rows = np.append(chosen, len(names))
    share = table[rows] / np.maximum(table[rows].sum(axis=1, keepdims=True), 1)
    share = share[:, rows]
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    texts = [*(shortened(names[k], 18) for k in chosen), "background"]
    axes.set_xticks(range(len(rows)), texts, rotation=90 if len(rows) > 5 else 0)
    axes.set_yticks(range(len(rows)), texts)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    for (i, j), count in np.ndenumerate(table[np.ix_(rows, rows)] if len(rows) <= NUMBERS + 1 else np.empty((0, 0))):
        if (i, j) != (len(rows) - 1, len(rows) - 1):  # background taken for background
            color = "white" if share[i, j] > 0.55 else INK
            axes.text(j, i, f"{count:,}", ha="center", va="center", fontsize=7.5, color=color)


def most_confused(table: np.ndarray) -> Sequence[int]:
    """The classes with the most entries beside the diagonal, background apart, in the order of their labels."""
    inner = table[:-1, :-1].copy()
    np.fill_diagonal(inner, 0)
    return sorted(np.argsort(-(inner.sum(axis=0) + inner.sum(axis=1)), kind="stable")[:CELLS].tolist())
