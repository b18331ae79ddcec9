"""Loss, score and learning-rate curves of a run."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from detector.exceptions import DataError
from detector.plots.figure import INK, PALETTE, color_of, new_figure, nothing, save, style

LOSSES = {
    "loss": "total",
    "loss_classifier": "box class",
    "loss_box_reg": "box position",
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal position",
}
VALIDATION = "val/loss"  # its total on the validation images
SCORES = ("AP", "AP50", "AP75")
STEPS = "optimiser steps"
RISE = 0.05  # of the validation loss, relative to its lowest value, that is worth a remark
SMOOTHING = 0.05
"""Width of the moving average of a loss, as a share of the curve."""


def plot_curves(metrics_csv: str | Path, out: str | Path) -> None:
    """Draw losses, AP and learning rate over optimiser steps from the ``metrics.csv`` of a run.

    Args:
        metrics_csv: columns ``step``, ``train/loss``, ``train/loss_*``, ``train/lr``, ``val/loss``, ``val/AP``,
            ``val/AP50``, ``val/AP75``; any may be missing, and a row may hold any of them.
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
    """``{column: (steps, values)}`` of a metrics file, without the values that are not finite numbers."""
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
    """The total loss and its components, raw values faint behind the moving average, and the total in validation."""
    style(axes, "Loss", STEPS)
    logged = [name.removeprefix("train/") for name in curves if name.startswith("train/loss")]
    names = [name for name in LOSSES if name in logged] + sorted(set(logged) - set(LOSSES))
    top = 0.0
    for i, name in enumerate(names):
        steps, values = curves[f"train/{name}"]
        color, width = (INK, 1.8) if name == "loss" else (color_of(i - ("loss" in names)), 1.3)
        average = smoothed(values)
        axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.22, zorder=2)
        marker = "o" if len(values) == 1 else None
        label = LOSSES.get(name, name)
        axes.plot(steps, average, color=color, linewidth=width, label=label, zorder=3, marker=marker, markersize=4)
        top = max(top, 1.08 * average.max())
    if VALIDATION in curves:
        steps, values = curves[VALIDATION]
        axes.plot(steps, values, color=INK, linewidth=1.3, linestyle="--", label="total, validation", zorder=4,
                  marker="o", markersize=3)  # fmt: skip
        top = max(top, 1.08 * values.max())
    finish(axes, top)


def overfitting(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """A sentence if the validation loss has risen from its lowest value to the end, while the training loss fell.

    Args:
        curves: of :func:`read_curves`. A rise counts from :data:`RISE` on, over two evaluations or more.

    Returns:
        The sentence, "" if there is nothing to say.
    """
    if VALIDATION not in curves or "train/loss" not in curves:
        return ""
    steps, values = curves[VALIDATION]
    lowest = int(np.argmin(values))
    if lowest + 2 >= len(values) or values[-1] < (1 + RISE) * values[lowest]:
        return ""
    train_steps, train = curves["train/loss"][0], smoothed(curves["train/loss"][1])
    then, now = float(np.interp(steps[lowest], train_steps, train)), float(train[-1])
    if now >= then:
        return ""
    return (
        f"the validation loss has risen since step {steps[lowest]:.0f} ({values[lowest]:.3f}, at the end "
        f"{values[-1]:.3f}) while the training loss fell ({then:.3f}, {now:.3f}): the network learns its training "
        "images by heart. More images, augment=strong or fewer steps help; best.ckpt has the weights of the best AP"
    )


def draw_scores(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """AP, AP50 and AP75 on the validation set, the best of each marked with its value."""
    style(axes, "Validation", STEPS)
    top = 0.0
    for color, name in zip((INK, *PALETTE), SCORES, strict=False):
        if f"val/{name}" not in curves:
            continue
        steps, values = curves[f"val/{name}"]
        best = int(np.argmax(values))
        points: dict[str, Any] = {"color": color, "marker": "o", "clip_on": False}
        width, label = 1.8 if name == "AP" else 1.3, f"{name} (best {values[best]:.3f})"
        axes.plot(steps, values, linewidth=width, markersize=3, label=label, **points)
        axes.plot(steps[best], values[best], markersize=7, markerfacecolor="none", **points)
        top = max(top, 1.12 * values.max())
    finish(axes, min(max(top, 0.05), 1.02) if top else 0.0)


def draw_rate(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """The learning rate; ``train/lr``, or what Lightning's ``LearningRateMonitor`` calls ``lr-...``."""
    column = "train/lr" if "train/lr" in curves else next((c for c in curves if c.startswith("lr")), None)
    steps, values = curves[column] if column else (np.empty(0), np.empty(0))
    peak = values.max(initial=0.0)
    exponent = min(0, math.floor(math.log10(peak))) if peak > 0 else 0
    style(axes, "Learning rate" + (rf"  ($\times 10^{{{exponent}}}$)" if exponent else ""), STEPS)
    if column:
        marker = "o" if len(values) == 1 else None
        axes.plot(steps, values / 10.0**exponent, color=PALETTE[0], linewidth=1.5, marker=marker)
    finish(axes, 1.08 * peak / 10.0**exponent, legend=False)


def finish(axes: Axes, top: float, legend: bool = True) -> None:
    """Set legend and limits; write a sentence instead of a curve if nothing was logged."""
    if not axes.lines:
        nothing(axes, "not logged in this run")
        axes.spines["bottom"].set_visible(False)
        return
    last = max(np.max(line.get_xdata()) for line in axes.lines)
    axes.set_xlim(0, 1.02 * last if last > 0 else 1)
    axes.set_ylim(0, top if top > 0 else 1)
    if legend:
        axes.legend(loc="best", fontsize=8.5, frameon=True, framealpha=0.85, edgecolor="none", labelcolor=INK)
