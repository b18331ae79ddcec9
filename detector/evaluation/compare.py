"""What ``scripts/compare.py`` does: find the detections, compare them, write the results."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich.console import Group

from detector.config.commands import command
from detector.config.results_folder import check_overwrite, discard, now, results_folder
from detector.config.schema import CompareConfig, DataConfig
from detector.data.annotations import read_annotations
from detector.data.images import SHOWN, read_drawn
from detector.data.left_out import check_dropped
from detector.evaluation.comparison_tables import comparison_tables, reading_notes
from detector.evaluation.draw_comparison import draw_changes, plot_differences
from detector.evaluation.evaluate import image_folder, resolved
from detector.evaluation.ground_truth import GroundTruth, reading_of
from detector.evaluation.matches import match
from detector.evaluation.paired import Changes, Comparison, compare
from detector.evaluation.result_tables import note_lines, write_csv
from detector.evaluation.stored_detections import StoredDetections, find_stored, image_note
from detector.exceptions import ConfigError, DataError
from detector.files import file_digest, write_json
from detector.outcome import Outcome
from detector.plots.grid import Panel
from detector.terminal import slow_progress
from detector.words import counted

RECORD, METRICS_TABLE, CLASSES, IMAGES = "comparison.json", "metrics.csv", "classes.csv", "images.csv"
PLOT, SHEET = "differences.png", "images.png"


@dataclass(frozen=True, repr=False)
class ComparedRuns(Outcome):
    """What came out, and where it is.

    Attributes:
        comparison: the runs and their differences.
        folder: with ``comparison.json``, tables and pictures.
        file_names: of the images.
        notes: sentences on what to know when reading the numbers.
    """

    comparison: Comparison
    folder: Path
    file_names: list[str]
    notes: list[str]

    pictures: ClassVar[tuple[str, ...]] = (PLOT, SHEET)

    @property
    def names(self) -> list[str]:
        """Of the runs, the baseline first."""
        return self.comparison.names

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for each of COCO's twelve numbers: ``metric``, the value of each run by its name, and for each run but
        the first ``NAME difference``, ``NAME low`` and ``NAME high``, the 95 % interval of its difference."""
        return self.comparison.metric_rows()

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """The same for the AP of each class."""
        return self.comparison.class_rows()

    def headline(self) -> str:
        """The names of the runs."""
        return ", ".join(self.names)

    def __rich__(self) -> Group:
        return Group(*comparison_tables(self.comparison, self.file_names), note_lines(self.notes))


def compare_from_config(config: CompareConfig) -> ComparedRuns:
    """Do what ``config`` asks for: score all runs on the same images, and write tables and pictures.

    Raises:
        ConfigError: fewer than two runs, or the results cannot be written.
        DataError: a run or its data are missing or cannot be used, or the runs cannot be compared.
    """
    if len(config.runs) < 2:
        raise ConfigError(
            f"give two or more runs to compare, the baseline first: {command('compare')} A B, where each is "
            "the folder of a run or of an evaluation, or a results file with annotations=GT.json"
        )
    sources = find_stored(config.runs, locate=not config.annotations)
    annotations, images = common_data(config, sources)
    inputs = {"annotations": resolved(annotations), "runs": [resolved(s.predictions) for s in sources]}
    folder = output_folder(config, sources)
    check_overwrite(folder, inputs, config.overwrite, RECORD, (RECORD, METRICS_TABLE, CLASSES, IMAGES, PLOT, SHEET))

    # A run that was evaluated with data.on_invalid=drop is compared as it was evaluated; a note says what is left out.
    trained_without = {name for s in sources for name in s.drop_categories}
    truth = GroundTruth(annotations, drop_invalid=True, drop_categories={*config.drop_categories, *trained_without})
    check_dropped(config.drop_categories, [truth], "drop_categories")
    limit, scored, notes = config.max_detections or max(s.limit for s in sources), None, []
    first = [s.first_images for s in sources if s.first_images]
    if first:
        scored = read_annotations(annotations, need_pictures=False).image_ids[: min(first)].tolist()
        notes.append(
            f"Compared on the first {counted(len(scored), 'image')} of the file: a run was evaluated on these only."
        )
    for source, path in zip(sources, config.runs, strict=True):
        notes += [note] if config.annotations and (note := image_note(source, path, truth)) else []
    matches = []
    for source in sources:
        matches.append(match(truth, truth.read_detections(source.predictions), scored, limit))
    with slow_progress("resampling the images", config.progress_bar) as tell:
        comparison = compare([s.name for s in sources], matches, config.resamples, progress=tell)
    notes += same_notes(sources) + reading_notes(comparison) + truth.notes

    file_names = truth.names_of(matches[0].image_ids.tolist())
    meta = {"inputs": inputs, "date": now(), "max_detections": limit, "images": len(file_names)}
    write_json(folder / RECORD, {**comparison.to_dict(), "notes": notes, "meta": meta})
    write_csv(folder / METRICS_TABLE, comparison.metric_rows())
    write_csv(folder / CLASSES, comparison.class_rows())
    write_csv(folder / IMAGES, comparison.image_rows(file_names))
    plot_differences(comparison, folder / PLOT)
    chosen = shown_images(comparison.changes, config.sheet_images)
    if chosen:
        trained = next((s.trained.data for s in sources if s.trained), None)
        panels = panels_of(chosen, matches[0].image_ids, truth, images, trained)
        draw_changes(comparison, chosen, panels, folder / SHEET)
    else:
        discard(folder, [SHEET])
    return ComparedRuns(comparison, folder, file_names, notes)


# ---------------------------------------------------------------------------------------------- inputs
def same_notes(sources: Sequence[StoredDetections]) -> list[str]:
    """A sentence for each run whose detections are those of one before it."""
    digests = [file_digest(source.predictions) for source in sources]
    first = [sources[digests.index(digest)].name for digest in digests]
    return [
        f"{source.name} has the very detections of {other}: every difference between them is 0."
        for source, other in zip(sources, first, strict=True) if source.name != other
    ]  # fmt: skip


def common_data(config: CompareConfig, sources: Sequence[StoredDetections]) -> tuple[Path, Path | None]:
    """The annotation file of all runs, and the folder of its images if that is known.

    Raises:
        DataError: the runs do not say, or say different files; the image folder is missing.
    """
    known = (s.images for s in sources if s.images is not None and s.images.is_dir())
    images = image_folder(config.images) or next(known, None)
    if config.annotations:
        return Path(config.annotations).expanduser(), images
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
    return next(iter(files.values())), images


def output_folder(config: CompareConfig, sources: Sequence[StoredDetections]) -> Path:
    """``config.output_dir``, or else a folder called after the runs."""
    names = [s.name for s in sources]
    name = "-".join(names) if len(names) < 4 else f"{names[0]}-{len(names) - 1}-others"
    # A file system takes 255 bytes; names with brackets, blanks or slashes are a nuisance in a shell.
    name = re.sub(r"[^\w.=+]+", "-", name)[:80].strip("-")
    return results_folder(config.output_dir, "compare", name)


def shown_images(changes: Sequence[Changes], count: int) -> list[tuple[int, int]]:
    """(position of the image, number of the changed run) of the images to draw: half better, half worse."""
    chosen = []
    for number, change in enumerate(changes, start=1):
        better, worse = change.most(-(-count // (2 * len(changes))))
        chosen += [(i, number) for i in better + worse]
    return chosen[:count]


def panels_of(
    chosen: Sequence[tuple[int, int]],
    image_ids: np.ndarray,
    truth: GroundTruth,
    folder: Path | None,
    trained: DataConfig | None = None,
) -> dict[int, Panel]:
    """The pictures of the images at the positions ``chosen``, without boxes; grey where they cannot be read.

    They are read as in the training with the keys ``trained``, if there was one.
    """
    panels, reading = {}, reading_of(truth, folder, trained) if folder and chosen else SHOWN
    for position in dict.fromkeys(i for i, _ in chosen):
        image_id = int(image_ids[position])
        (name,), (height, width) = truth.names_of([image_id]), truth.size_of(image_id)
        try:
            pixels = read_drawn(folder / name, (height, width), reading) if folder and name else None
        except DataError:
            pixels = None
        if pixels is not None:
            height, width = pixels.shape[1:]
        elif not height or not width:  # not in the annotation file: room for all objects
            boxes = truth.boxes_xywh[truth.rows([image_id])]
            width, height = (int(edge) + 10 for edge in (boxes[:, :2] + boxes[:, 2:]).max(axis=0, initial=90))
        panels[position] = Panel(pixels, (height, width), name or f"image {image_id}", [])
    return panels
