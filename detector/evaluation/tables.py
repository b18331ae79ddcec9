"""Evaluation results as terminal tables."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from detector.terminal import titled

if TYPE_CHECKING:
    from detector.evaluation.analysis import Analysis
    from detector.evaluation.coco import ClassResult

METRIC_MEANING = {  # name: IoU thresholds, object area, detections counted for each image and class
    "AP": ("0.50:0.95", "all", 100),
    "AP50": ("0.50", "all", 100),
    "AP75": ("0.75", "all", 100),
    "APs": ("0.50:0.95", "small", 100),
    "APm": ("0.50:0.95", "medium", 100),
    "APl": ("0.50:0.95", "large", 100),
    "AR1": ("0.50:0.95", "all", 1),
    "AR10": ("0.50:0.95", "all", 10),
    "AR100": ("0.50:0.95", "all", 100),
    "ARs": ("0.50:0.95", "small", 100),
    "ARm": ("0.50:0.95", "medium", 100),
    "ARl": ("0.50:0.95", "large", 100),
}
AREA_MEANING = {"small": "small (< 32² px)", "medium": "medium (32² to 96² px)", "large": "large (> 96² px)"}
WIDTH = 100
"""Columns of a table rendered as text; tables use what they need of it."""


def number(value: float | None) -> str:
    """Three digits, as pycocotools prints them; ``n/a`` where there is no ground truth."""
    return "n/a" if value is None else f"{value:.3f}"


def metric_table(
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    max_detections: int = 100,
) -> Table:
    """The twelve COCO numbers, with their 95 % intervals where known, and what each of them measures."""
    table = titled("COCO box metrics")
    table.add_column("metric")
    table.add_column("value", justify="right", style="bold")
    if intervals:
        table.add_column("95 % interval")
    table.add_column("IoU")
    table.add_column("object area")
    table.add_column("max detections", justify="right")
    for name, (iou, area, limit) in METRIC_MEANING.items():
        bounds = [" to ".join(map(number, intervals[name])) if name in intervals else ""] if intervals else []
        # A rule between average precision and average recall.
        table.add_row(
            name,
            number(metrics[name]),
            *bounds,
            iou,
            AREA_MEANING.get(area, area),
            str(max_detections if limit == 100 else limit),
            end_section=name == "APl",
        )
    return table


def error_table(analysis: Analysis) -> Table:
    """The kinds of error with what they cost, most costly first."""
    table = titled("Errors at IoU 0.5 (TIDE): what correcting them would add to AP50")
    table.add_column("error")
    table.add_column("AP50", justify="right", style="bold")
    table.add_column("count", justify="right")
    counts = dict(zip(analysis.errors.cost, analysis.errors.counts.sum(axis=0).tolist(), strict=True))
    for name, cost in sorted(analysis.errors.cost.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{cost:+.3f}", f"{counts[name]:,}")
    return table


def operating_table(analysis: Analysis) -> Table:
    """The best score threshold of each class, with what it gives, best F1 first."""
    table = titled("Score thresholds of the best F1 at IoU 0.5")
    table.add_column("class", overflow="fold")
    for column in ("threshold", "F1", "precision", "recall"):
        table.add_column(column, justify="right")
    rows = zip(analysis.matches.class_names, analysis.points, strict=True)
    for name, point in sorted(rows, key=lambda row: -(row[1].f1 or 0)):
        table.add_row(Text(name), *map(number, (point.threshold, point.f1, point.precision, point.recall)))
    return table


def class_table(per_class: Sequence[ClassResult]) -> Table:
    """One row a class, best AP first, classes without ground truth last."""
    table = titled("Classes")
    table.add_column("class", overflow="fold")
    for column in ("AP", "AP50", "AR100", "boxes", "images", "detections"):
        table.add_column(column, justify="right")
    for result in sorted(per_class, key=lambda r: (r.AP is None, -(r.AP or 0.0), r.category_id)):
        table.add_row(
            Text(result.name),
            number(result.AP),
            number(result.AP50),
            number(result.AR100),
            f"{result.boxes:,}",
            f"{result.images:,}",
            f"{result.detections:,}",
        )
    return table


def note_lines(notes: Sequence[str]) -> Text:
    """The notes as a list, one a paragraph."""
    return Text("\n".join(f"- {note}" for note in notes))


def as_text(renderable: RenderableType) -> str:
    """``renderable`` as plain text: no colours, no trailing spaces."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()).strip("\n")
