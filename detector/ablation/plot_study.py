"""The plots of a study: paired dots of each seed, AP by IoU threshold, AP by size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from detector.ablation.cell_record import IOUS
from detector.ablation.study_analysis import Analysis
from detector.evaluation.metrics import IOU_THRESHOLDS
from detector.plots.figure import INK, MUTED, color_of, new_figure, nothing, save, style

SIZES = {"APs": "small", "APm": "medium", "APl": "large"}
COLUMNS = 3  # panels in a row at most
NO_RUNS = "no runs, or no ground truth"


def plot_study(analysis: Analysis, folder: str | Path) -> dict[str, Path]:
    """Draw every plot of a study into ``folder``; return the pictures by name."""
    folder = Path(folder)
    contexts, metrics = analysis.study.contexts, analysis.study.config.metrics
    panels = {
        "dots": [(context, name) for context in contexts for name in metrics],
        "ap_by_iou": [(context, part) for context in contexts for part in ("value", "difference")],
        "ap_by_size": [(context, "") for context in contexts],
    }
    draw = {"dots": draw_dots, "ap_by_iou": draw_by_iou, "ap_by_size": draw_by_size}
    pictures = {}
    for name, shown in panels.items():
        columns = {"dots": min(len(metrics), COLUMNS), "ap_by_iou": 2}.get(name, min(len(shown), COLUMNS))
        rows = -(-len(shown) // columns)
        figure = new_figure(4.7 * columns, 3.5 * rows)
        for number, (context, what) in enumerate(shown, start=1):
            draw[name](figure.add_subplot(rows, columns, number), analysis, context, what)
        figure.tight_layout()
        pictures[name] = folder / f"{name}.png"
        save(figure, pictures[name])
    return pictures


def heading(what: str, context: str) -> str:
    """Title of a panel; a dollar sign in a name does not start a formula."""
    return (f"{what} at {context}" if context else what).replace("$", r"\$")


def draw_dots(axes: Axes, analysis: Analysis, context: str, metric: str) -> None:
    """One dot per run; a line connects the runs of one seed; a bar is the mean of a level."""
    style(axes, heading(metric, context), "a line connects runs of one seed; bar: mean", f"{metric}, points")
    values = [analysis.values(context, level, metric) for level in analysis.levels]
    if not any(values):
        nothing(axes, NO_RUNS)
        return
    for seed in sorted(set().union(*values)):
        points = [(x, found[seed]) for x, found in enumerate(values) if seed in found]
        axes.plot(*zip(*points, strict=True), color=MUTED, linewidth=0.9, alpha=0.55, zorder=2)
    for x, found in enumerate(values):
        if found:
            axes.plot([x] * len(found), list(found.values()), "o", color=color_of(x), markersize=5, zorder=3)
            axes.plot([x - 0.22, x + 0.22], [np.mean(list(found.values()))] * 2, color=INK, linewidth=2, zorder=4)
    axes.set_xticks(range(len(values)), analysis.levels, rotation=20 if len(values) > 4 else 0)
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.grid(axis="x", visible=False)


def draw_by_iou(axes: Axes, analysis: Analysis, context: str, part: str) -> None:
    """AP at each IoU threshold: the mean of each level, or its difference to the baseline with intervals over both."""
    baseline = analysis.study.baseline
    if part == "value":
        title, unit = "AP by IoU threshold", "AP, points"
    else:
        title, unit = f"difference to {baseline}", "AP, points; band: 95 %"
    style(axes, heading(title, context), "IoU threshold", unit)
    for x, level in enumerate(analysis.levels):
        if part == "value":
            found = [list(analysis.values(context, level, name).values()) for name in IOUS]
            if all(found):
                axes.plot(IOU_THRESHOLDS, [np.mean(v) for v in found], color=color_of(x), marker="o", markersize=3,
                          linewidth=1.6, label=level)  # fmt: skip
            continue
        if level == baseline:
            continue
        differences = [analysis.compare(context, level, name).difference for name in IOUS]
        if any(d is None for d in differences):
            continue
        bounds = np.array([d.over_both for d in differences if d is not None])
        axes.plot(IOU_THRESHOLDS, bounds[:, 0], color=color_of(x), marker="o", markersize=3, linewidth=1.6, label=level)
        if not np.isnan(bounds).any():
            axes.fill_between(IOU_THRESHOLDS, bounds[:, 1], bounds[:, 2], color=color_of(x), alpha=0.15, linewidth=0)
    if not axes.lines:
        nothing(axes, NO_RUNS)
        return
    if part == "difference":
        axes.axhline(0, color=INK, linewidth=0.9)
    axes.legend(fontsize=8, frameon=False)


def draw_by_size(axes: Axes, analysis: Analysis, context: str, _: str) -> None:
    """AP of small, medium and large objects: means with the dots of the seeds."""
    style(axes, heading("AP by size of the object", context), y="AP, points")
    levels = analysis.levels
    width = 0.8 / len(levels)
    for x, level in enumerate(levels):
        for i, name in enumerate(SIZES):
            found = list(analysis.values(context, level, name).values())
            if not found:
                continue
            center = i + (x - (len(levels) - 1) / 2) * width
            named = axes.get_legend_handles_labels()[1]
            axes.bar(center, np.mean(found), width=0.92 * width, color=color_of(x), alpha=0.75,
                     label=level if level not in named else None)  # fmt: skip
            axes.plot([center] * len(found), found, "o", color=INK, markersize=2.5)
    if not axes.patches:
        nothing(axes, NO_RUNS)
        return
    axes.set_xlim(-0.5, len(SIZES) - 0.5)
    axes.set_xticks(range(len(SIZES)), [f"{text}\n({name})" for name, text in SIZES.items()])
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=8, frameon=False)
