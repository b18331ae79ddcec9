"""Evaluation results as tables: on the terminal, and as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from detector.evaluation.errors import KINDS, Errors
from detector.evaluation.metrics import COCO_LIMIT, METRICS, ClassResult
from detector.evaluation.thresholds import OperatingPoint
from detector.files import replacing
from detector.terminal import titled

AREA_MEANING = {"small": "small (< 32² px)", "medium": "medium (32² to 96² px)", "large": "large (> 96² px)"}
LAST_PRECISION = [name for name, metric in METRICS.items() if metric.kind == "precision"][-1]
WIDTH = 100
"""Columns of a table rendered as text; tables use what they need of it."""


def number(value: float | None) -> str:
    """Three digits, as pycocotools prints them; ``n/a`` for None and NaN: where there is no ground truth."""
    return "n/a" if value is None or value != value else f"{value:.3f}"


def new_table(title: str, first: str, *columns: str) -> Table:
    """An empty table: words in the first column, numbers in the others."""
    table = titled(title)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(Text(column), justify="right", overflow="fold")
    return table


def metric_table(
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    max_detections: int = COCO_LIMIT,
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
    for name, metric in METRICS.items():
        bounds = [" to ".join(map(number, intervals[name])) if name in intervals else ""] if intervals else []
        table.add_row(
            name,
            number(metrics[name]),
            *bounds,
            metric.iou_text,
            AREA_MEANING.get(metric.area, metric.area),
            str(max_detections if metric.limit == COCO_LIMIT else metric.limit),
            end_section=name == LAST_PRECISION,
        )
    return table


def class_table(per_class: Sequence[ClassResult]) -> Table:
    """One row per class, best AP first, classes without ground truth last."""
    table = new_table("Classes", "class", "AP", "AP50", "AR100", "boxes", "images", "detections")
    for result in sorted(per_class, key=lambda r: (r.AP is None, -(r.AP or 0.0), r.category_id)):
        shares = map(number, (result.AP, result.AP50, result.AR100))
        counts = (f"{count:,}" for count in (result.boxes, result.images, result.detections))
        table.add_row(Text(result.name), *shares, *counts)
    return table


def error_table(columns: Sequence[str], runs: Sequence[Errors]) -> Table:
    """What each kind of error costs in each run, most costly for the first run first, and how many there are."""
    title = "Errors at IoU 0.5 (TIDE): what correcting them would add to AP50, and how many"
    table = new_table(title, "error", *columns)
    for kind in sorted(KINDS, key=lambda kind: -runs[0].cost[kind]):
        table.add_row(kind, *(f"{errors.cost[kind]:+.3f} {errors.total[kind]:>7,}" for errors in runs))
    return table


def operating_table(class_names: Sequence[str], points: Sequence[OperatingPoint]) -> Table:
    """The best score threshold of each class, with what it gives, best F1 first."""
    title = "Score thresholds of the best F1 at IoU 0.5"
    table = new_table(title, "class", "threshold", "F1", "precision", "recall")
    rows = zip(class_names, points, strict=True)
    for name, point in sorted(rows, key=lambda row: -(row[1].f1 or 0)):
        table.add_row(Text(name), *map(number, (point.threshold, point.f1, point.precision, point.recall)))
    return table


def note_lines(notes: Sequence[str]) -> Text:
    """The notes as a list, one per paragraph."""
    return Text("\n".join(f"- {note}" for note in notes))


def as_text(renderable: RenderableType) -> str:
    """``renderable`` as plain text: no colours, no trailing spaces."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table with one column for each key of the first row; None is an empty cell."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
