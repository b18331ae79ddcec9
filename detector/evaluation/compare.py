"""What ``scripts/compare.py`` does: find the detections, compare them, write the results."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from detector.config.commands import script
from detector.config.results_folder import check_overwrite, discard, now, results_folder
from detector.config.schema import CompareConfig
from detector.data.annotations import read_annotations
from detector.data.images import read_image
from detector.evaluation.coco import check
from detector.evaluation.comparison import Changes, Compared, Comparison, compare
from detector.evaluation.detections import Detections
from detector.evaluation.draw_comparison import draw_changes, plot_differences
from detector.evaluation.errors import KINDS
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.matches import match
from detector.evaluation.run import resolved, write_csv
from detector.evaluation.significance import Interval
from detector.evaluation.sources import Source, find_sources
from detector.evaluation.tables import METRIC_MEANING, note_lines, number
from detector.exceptions import ConfigError, DataError
from detector.files import replacing
from detector.plots.grid import Panel
from detector.terminal import slow_progress, titled
from detector.words import counted

RECORD, METRICS_TABLE, CLASSES, IMAGES = "comparison.json", "metrics.csv", "classes.csv", "images.csv"
PLOT, SHEET = "differences.png", "images.png"
FEW_IMAGES = 20  # below which the bootstrap's intervals are clearly too short
LISTED = 5  # images that the terminal names for each direction


class Outcome(NamedTuple):
    """What came out, and where it is."""

    comparison: Comparison
    folder: Path
    file_names: list[str]  # of the images
    notes: list[str]

    def __rich__(self) -> Group:
        parts: list[Any] = [metric_table(self.comparison), class_table(self.comparison), error_table(self.comparison)]
        parts += [
            image_table(run, changes, self.file_names)
            for run, changes in zip(self.comparison.runs[1:], self.comparison.changes, strict=True)
        ]
        return Group(*parts, note_lines(self.notes))


def compare_from_config(config: CompareConfig) -> Outcome:
    """Do what ``config`` asks for: score all runs on the same images, and write tables and pictures.

    Raises:
        ConfigError: fewer than two runs, or the results cannot be written.
        DataError: a run or its data are missing or cannot be used, or the runs cannot be compared.
    """
    if len(config.runs) < 2:
        raise ConfigError(
            f"give two or more runs to compare, the baseline first: python {script('compare')} A B, where each is "
            "the folder of a run or of an evaluation, or a results file with annotations=GT.json"
        )
    sources = find_sources(config.runs, locate=not config.annotations)
    annotations, images = common_data(config, sources)
    inputs = {"annotations": resolved(annotations), "runs": [resolved(s.predictions) for s in sources]}
    folder = output_folder(config, sources)
    check_overwrite(folder, inputs, config.overwrite, RECORD, (RECORD, METRICS_TABLE, CLASSES, IMAGES, PLOT, SHEET))

    # A run that was evaluated with data.on_invalid=drop is compared as it was evaluated; a note says what is left out.
    truth = GroundTruth(annotations, drop_invalid=True)
    limit, scored, notes = config.max_detections or max(s.limit for s in sources), None, []
    first = [s.first_images for s in sources if s.first_images]
    if first:
        scored = read_annotations(annotations, need_pictures=False).image_ids[: min(first)].tolist()
        notes.append(
            f"Compared on the first {counted(len(scored), 'image')} of the file: a run was evaluated on these only."
        )
    matches = []
    for source in sources:
        found = Detections.from_json(source.predictions, truth.image_ids, truth.category_ids)
        check(found, truth, truth.image_ids)
        matches.append(match(truth, found, scored, limit))
    with slow_progress("resampling the images", config.progress_bar) as tell:
        comparison = compare([s.name for s in sources], matches, config.resamples, progress=tell)
    notes += reading_notes(comparison) + truth.notes

    names = dict(zip(truth.image_ids, truth.file_names.tolist(), strict=True))
    file_names = [names[i] for i in matches[0].image_ids.tolist()]
    meta = {"inputs": inputs, "date": now(), "max_detections": limit, "images": len(file_names)}
    with replacing(folder / RECORD) as temporary:
        content = {**comparison.to_dict(), "notes": notes, "meta": meta}
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    write_csv(folder / METRICS_TABLE, comparison.metric_rows())
    write_csv(folder / CLASSES, comparison.class_rows())
    write_csv(folder / IMAGES, comparison.image_rows(file_names))
    plot_differences(comparison, folder / PLOT)
    chosen = shown_images(comparison.changes, config.sheet_images)
    if chosen:
        draw_changes(comparison, chosen, panels_of(chosen, matches[0].image_ids, truth, images), folder / SHEET)
    else:
        discard(folder, [SHEET])
    return Outcome(comparison, folder, file_names, notes)


# ---------------------------------------------------------------------------------------------- inputs
def common_data(config: CompareConfig, sources: Sequence[Source]) -> tuple[Path, Path | None]:
    """The annotation file of all runs, and the folder of its images if that is known.

    Raises:
        DataError: the runs do not say, or say different files; the image folder is missing.
    """
    images = Path(config.images).expanduser() if config.images else None
    if images is not None and not images.is_dir():
        raise DataError(f"images={config.images}: there is no such folder; leave the key out for boxes on grey")
    if config.annotations:
        known = [s.images for s in sources if s.images is not None and s.images.is_dir()]
        return Path(config.annotations).expanduser(), images or (known[0] if known else None)
    files = {s.name: s.annotations for s in sources if s.annotations is not None}
    missing = [f"{name}: {path}" for name, path in files.items() if not path.is_file()]
    if not files or missing:
        why = (
            "none of the runs says what it was evaluated on"
            if not files
            else ("the annotations of these runs are not where they were: " + ", ".join(missing))
        )
        raise DataError(f"{why}; give annotations=GT.json (and images=FOLDER for pictures)")
    contents = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()}
    if len(contents) > 1:
        listed = "\n".join(f"  {name}: {path}" for name, path in files.items())
        raise DataError(
            "the runs were evaluated on different annotations, so their numbers cannot be compared:\n"
            f"{listed}\nIf all detections are of the images of one file, give it: annotations=GT.json"
        )
    known = [s.images for s in sources if s.images is not None and s.images.is_dir()]
    return next(iter(files.values())), images or (known[0] if known else None)


def output_folder(config: CompareConfig, sources: Sequence[Source]) -> Path:
    """``config.output_dir``, or else a folder called after the runs."""
    names = [s.name for s in sources]
    name = "-".join(names) if len(names) < 4 else f"{names[0]}-{len(names) - 1}-others"
    # A file system takes 255 bytes; names with brackets, blanks or slashes are a nuisance in a shell.
    name = re.sub(r"[^\w.=+]+", "-", name)[:80].strip("-")
    return results_folder(config.output_dir, "compare", name)


def shown_images(changes: Sequence[Changes], count: int) -> list[tuple[int, int]]:
    """(position of the image, number of the changed run) of the images to draw: half better, half worse."""
    chosen = []
    for number_, change in enumerate(changes, start=1):
        better, worse = change.most(-(-count // (2 * len(changes))))
        chosen += [(i, number_) for i in better + worse]
    return chosen[:count]


def panels_of(
    chosen: Sequence[tuple[int, int]], image_ids: np.ndarray, truth: GroundTruth, folder: Path | None
) -> dict[int, Panel]:
    """The pictures of the images at the positions ``chosen``, without boxes; grey where they cannot be read."""
    row = {image: i for i, image in enumerate(truth.image_ids)}
    panels = {}
    for position in dict.fromkeys(i for i, _ in chosen):
        at = row[int(image_ids[position])]
        name, (height, width) = str(truth.file_names[at]), truth.sizes[at].tolist()
        try:
            pixels = read_image(folder / name) if folder and name else None
        except DataError:
            pixels = None
        if pixels is not None:
            height, width = pixels.shape[1:]
        elif not height or not width:  # not in the annotation file: room for all objects
            boxes = truth.boxes_xywh[truth.image == at]
            width, height = (int(edge) + 10 for edge in (boxes[:, :2] + boxes[:, 2:]).max(axis=0, initial=90))
        panels[position] = Panel(pixels, (height, width), name or f"image {image_ids[position]}", [])
    return panels


# ------------------------------------------------------------------------------------------------ tables
def reading_notes(comparison: Comparison) -> list[str]:
    """How to read the differences."""
    notes = [
        "Differences are to the first run, on the same images; images count at the best score threshold of each "
        "class and run, IoU 0.5."
    ]
    if comparison.resamples:
        notes.append(
            f"95 % intervals by {comparison.resamples:,} resamples of the images, the same for all runs; a * "
            "marks those without 0. They cover the choice of the images, not that of the seed: "
            "another training of the same configuration differs by more."
        )
        images = len(comparison.runs[0].matches.image_ids)
        if images < FEW_IMAGES:
            notes.append(
                f"{counted(images, 'image is', 'images are')} too few to resample: the intervals are too "
                "short, and a * says little."
            )
        classes = sum(not np.isnan(d.value) for d in comparison.differences[0].by_class["AP"])
        if classes >= 10:
            notes.append(f"Of {classes} classes without any difference about {0.05 * classes:.0f} get a * by chance.")
    return notes


def difference_words(found: Interval) -> Text:
    """A difference, its interval, and whether that is without 0."""
    if np.isnan(found.value):
        return Text("n/a")
    words = f"{found.value:+.3f}"
    if not np.isnan(found.low):
        words += f" ({found.low:+.3f} to {found.high:+.3f})" + (" *" if found.excludes_zero else "  ")
    return Text(words, style="bold" if found.excludes_zero else "")


def with_columns(title: str, first: str, comparison: Comparison) -> Table:
    """A table with one column for the baseline and two for each other run."""
    table = titled(title)
    table.add_column(first, overflow="fold")
    table.add_column(Text(comparison.runs[0].name), justify="right", overflow="fold")
    for run in comparison.runs[1:]:
        table.add_column(Text(run.name), justify="right", overflow="fold")
        table.add_column("difference", justify="right")
    return table


def known(value: float) -> str:
    """``value`` with three digits, ``n/a`` for NaN."""
    return number(None if np.isnan(value) else value)


def metric_table(comparison: Comparison) -> Table:
    """The twelve COCO numbers of all runs."""
    table = with_columns("COCO box metrics", "metric", comparison)
    base, *others = comparison.runs
    for name in METRIC_MEANING:
        cells: list[Any] = []
        for run, found in zip(others, comparison.differences, strict=True):
            cells += [known(run.metrics[name].value), difference_words(found.metrics[name])]
        table.add_row(name, known(base.metrics[name].value), *cells, end_section=name == "APl")
    return table


def class_table(comparison: Comparison) -> Table:
    """The AP of each class, those first whose AP changed most."""
    table = with_columns("AP of each class", "class", comparison)
    names = comparison.runs[0].matches.class_names
    change = [
        max((abs(d.by_class["AP"][k].value) for d in comparison.differences), default=0.0) for k in range(len(names))
    ]
    for k in sorted(range(len(names)), key=lambda k: -np.nan_to_num(change[k], nan=-1.0)):
        cells: list[Any] = []
        for run, found in zip(comparison.runs[1:], comparison.differences, strict=True):
            cells += [known(run.by_class[k].value), difference_words(found.by_class["AP"][k])]
        table.add_row(Text(names[k]), known(comparison.runs[0].by_class[k].value), *cells)
    return table


def error_table(comparison: Comparison) -> Table:
    """What each kind of error costs each run."""
    table = titled("Errors at IoU 0.5 (TIDE): what correcting them would add to AP50, and how many")
    table.add_column("error")
    for run in comparison.runs:
        table.add_column(Text(run.name), justify="right", overflow="fold")
    for i, kind in enumerate(KINDS):
        table.add_row(
            kind, *(f"{run.errors.cost[kind]:+.3f} {run.errors.counts[:, i].sum():>7,}" for run in comparison.runs)
        )
    return table


def image_table(run: Compared, changes: Changes, file_names: Sequence[str]) -> Table:
    """The images that changed most, better ones first."""
    better, worse = int((changes.net > 0).sum()), int((changes.net < 0).sum())
    same = len(changes.net) - better - worse
    table = titled(f"{run.name}: {counted(better, 'image')} better, {worse:,} worse, {same:,} as before; most changed")
    table.add_column("image", overflow="fold")
    for column in ("objects won", "lost", "false before", "after", "net"):
        table.add_column(column, justify="right")
    for part in changes.most(LISTED):
        for i in part:
            name = Text(file_names[i] or str(run.matches.image_ids[i]))
            table.add_row(
                name,
                *(str(v[i]) for v in (changes.won, changes.lost, changes.false_before, changes.false_after)),
                f"{changes.net[i]:+d}",
            )
        table.add_section()
    return table
