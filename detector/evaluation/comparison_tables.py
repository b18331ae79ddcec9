"""Differences of runs as terminal tables, and how to read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from detector.evaluation.intervals import Interval
from detector.evaluation.paired import Changes, Comparison
from detector.evaluation.result_tables import LAST_PRECISION, error_table, new_table, number
from detector.words import counted

FEW_IMAGES = 20  # below which the bootstrap's intervals are clearly too short
LISTED = 5  # images that the terminal names for each direction


def comparison_tables(comparison: Comparison, file_names: Sequence[str]) -> list[Table]:
    """COCO's numbers, the AP of each class, errors by kind, and for each run the images that changed most."""
    names, runs = comparison.names, comparison.runs
    columns = [names[0], *(column for name in names[1:] for column in (name, "difference"))]
    metrics = new_table("COCO box metrics", "metric", *columns)
    for name, values, differences in comparison.by_metric():
        metrics.add_row(name, *cells(values, differences), end_section=name == LAST_PRECISION)
    classes = new_table("AP of each class", "class", *columns)
    of_classes = list(comparison.by_class())
    for k in comparison.most_changed_classes():
        classes.add_row(Text(runs[0].matches.class_names[k]), *cells(*of_classes[k][1:]))
    errors = error_table(names, [run.errors for run in runs])
    labels = [name or str(i) for name, i in zip(file_names, runs[0].matches.image_ids.tolist(), strict=True)]
    changes = zip(names[1:], comparison.changes, strict=True)
    return [metrics, classes, errors, *(image_table(name, change, labels) for name, change in changes)]


def cells(values: Sequence[Interval], differences: Sequence[Interval]) -> list[str | Text]:
    """The value of the baseline, then value and difference of each other run."""
    others = zip(values[1:], differences, strict=True)
    return [number(values[0].value), *(cell for v, d in others for cell in (number(v.value), difference_words(d)))]


def difference_words(found: Interval) -> Text:
    """A difference, its interval, and a * if 0 is outside."""
    if np.isnan(found.value):
        return Text("n/a")
    words = f"{found.value:+.3f}"
    if not np.isnan(found.low):
        words += f" ({found.low:+.3f} to {found.high:+.3f})" + (" *" if found.excludes_zero else "  ")
    return Text(words, style="bold" if found.excludes_zero else "")


def image_table(run: str, changes: Changes, labels: Sequence[str]) -> Table:
    """The images that changed most, better ones first."""
    same = len(changes.net) - changes.better - changes.worse
    words = f"{counted(changes.better, 'image')} better, {changes.worse:,} worse, {same:,} as before; most changed"
    table = new_table(f"{run}: {words}", "image", "objects won", "lost", "false before", "after", "net")
    for part in changes.most(LISTED):
        for i in part:
            counts = [str(values[i]) for name, values in changes.columns.items() if name != "net"]
            table.add_row(Text(labels[i]), *counts, f"{changes.net[i]:+d}")
        table.add_section()
    return table


def reading_notes(comparison: Comparison) -> list[str]:
    """How to read the differences."""
    notes = [
        "Differences are to the first run, on the same images; images count at the best score threshold of each "
        "class and run, IoU 0.5."
    ]
    resamples = comparison.runs[0].resamples
    if resamples:
        notes.append(
            f"95 % intervals by {resamples:,} resamples of the images, the same for all runs; a * "
            "marks those without 0. They cover the choice of the images, not that of the seed: "
            "another training of the same configuration differs by more."
        )
        images = len(comparison.runs[0].matches.image_ids)
        if images < FEW_IMAGES:
            notes.append(
                f"{counted(images, 'image is', 'images are')} too few to resample: the intervals are too "
                "short, and a * says little."
            )
        classes = sum(not np.isnan(found.value) for found in comparison.differences[0].by_class["AP"])
        if classes >= 10:
            notes.append(f"Of {classes} classes without any difference about {0.05 * classes:.0f} get a * by chance.")
    return notes
