"""What ``scripts/predict.py`` does: it runs a detector over a source and writes results and pictures."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from detector.config.results_folder import results_folder
from detector.config.schema import PredictConfig
from detector.data.annotations import Annotations
from detector.data.images import Reading
from detector.data.orientation import first_told
from detector.exceptions import ConfigError, DataError, DetectorError
from detector.files import read_json_or_empty
from detector.inference.detector import Detector, load
from detector.inference.prediction_files import DATASET, FILES, SOURCE, PredictionFiles, drawn_images
from detector.inference.sources import FrameSource, ImageSource, InputImage, Source, open_listed, open_source
from detector.models.device import choose_device
from detector.terminal import image_progress
from detector.words import counted

log = logging.getLogger(__name__)


@dataclass
class Summary:
    """What ``predict`` did.

    Attributes:
        folder: where the results are.
        images: number of images that were read.
        detections: number of detections.
        unreadable: number of images that could not be read.
        skipped: what was found in the source, or listed in the annotations, and not read; in words.
        first_only: number of animated or multi-page files of which only the first frame was read.
        images_per_second: of the whole loop, reading and drawing included.
    """

    folder: Path
    images: int = 0
    detections: int = 0
    unreadable: int = 0
    skipped: str = ""
    first_only: int = 0
    images_per_second: float = 0.0

    def __rich__(self) -> str:
        found = f"{counted(self.detections, 'detection')} in {counted(self.images, 'image')}"
        parts = [found, f"{self.images_per_second:.1f} images/s"]
        if self.unreadable:
            parts.insert(1, f"{self.unreadable:,} could not be read")
        if self.skipped:
            parts.append(self.skipped)
        if self.first_only:
            files = counted(self.first_only, "file")
            parts.append(f"only the first frame or page was read of {files}, whose others are read as source=FILE")
        return ", ".join(parts)


def predict(config: PredictConfig) -> Summary:
    """Run the detector of ``config.checkpoint`` over ``config.source``.

    Writes ``predictions.json`` (COCO results), ``coco.json`` (the same as a COCO data set with scores, which FiftyOne
    and other viewers open), ``predictions.csv`` and, if ``config.draw``, ``drawn/`` or ``drawn.mp4``. An image that
    cannot be read is left out with a warning.

    Raises:
        ConfigError: checkpoint or source is not given, or there are results already.
        DetectorError: the checkpoint or the source cannot be used, or no image could be read.
    """
    wanted = {
        "checkpoint=RUN (or its .ckpt file)": config.checkpoint,
        "source=IMAGE, FOLDER, 'PATTERN' or VIDEO": config.source,
    }
    missing = [key for key, value in wanted.items() if not value]
    if missing:
        raise ConfigError(f"give {' and '.join(missing)}")
    summary = Summary(output_folder(config))
    detector, source, listed = open_inputs(config)
    summary.skipped = source.skipped
    if config.score_thresh >= 0:
        detector.module.model.roi_heads.score_thresh = config.score_thresh
    category_ids = detector.category_ids
    if listed is not None:
        category_ids, note = choose_ids(detector.class_names, detector.category_ids, listed)
        if note:
            log.info(note)
    remove_results(summary.folder, config.overwrite)
    files = PredictionFiles(detector.class_names, category_ids, source_of(config))
    with ExitStack() as stack:
        draw = stack.enter_context(drawn_images(summary.folder, source, config.draw_thresh)) if config.draw else None
        for image, output in stack.enter_context(closing(detect(detector, source, config, summary))):
            files.add(image, output)
            if draw:
                draw(image, detector.prediction(output))
    if not summary.images:
        raise DataError(f"source={config.source}: no image could be read")
    files.write(summary.folder)
    summary.detections = len(files)
    return summary


def open_inputs(config: PredictConfig) -> tuple[Detector, Source, Annotations | None]:
    """The detector, the source, and what the file ``annotations`` holds.

    Raises:
        DetectorError: one of them cannot be used; if both cannot, the message names both reasons.
    """
    device = choose_device(config.accelerator)

    def images() -> tuple[Source, Annotations | None]:
        if not config.annotations:
            return open_source(config.source), None
        source, listed, notes = open_listed(config.source, config.annotations)
        for note in notes:
            log.warning("%s. These files are read.", note)
        return source, listed

    openers: tuple[Callable[[], Any], ...] = (images, lambda: load(config.checkpoint, device, config.trust))
    opened: list[Any] = []
    errors: list[DetectorError] = []
    for opener in openers:
        try:
            opened.append(opener())
        except DetectorError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else ConfigError("\n".join(map(str, errors)))
    (source, listed), detector = opened
    if isinstance(source, ImageSource):
        # An annotation file tells how its pictures were annotated.
        exif = first_told(source.evidence.exif, detector.config.data.exif)
        source = replace(source, reading=Reading.of(exif, detector.reading.white))
    elif isinstance(source, FrameSource):
        source.reading = detector.reading
    return detector, source, listed


def choose_ids(names: Sequence[str], ids: Sequence[int], listed: Annotations) -> tuple[list[int], str]:
    """The category id of each class of a detector in results for an annotation file.

    A class that the file has by name takes its id there. Another class keeps its own, or takes a new one where the file
    means another class by it.

    Args:
        names: the detector's class names.
        ids: their category ids in the data that it was trained on.
        listed: the annotation file, with any categories or none.

    Returns:
        The ids, and a sentence if they are not ``ids``, or if the file lacks classes (else "").
    """
    once = {name for name, often in Counter([*set(names), *listed.class_names]).items() if often == 2}
    id_of = {name: i for i, name in zip(listed.category_ids, listed.class_names, strict=True) if name in once}
    fresh = count(max((0, *ids, *listed.category_ids)) + 1)
    chosen = []
    for name, own in zip(names, ids, strict=True):
        number = id_of[name] if name in id_of else own if own not in listed.category_ids else next(fresh)
        chosen.append(number)
    other = [name for name in names if name not in id_of] if listed.category_ids else []
    notes = []
    if chosen != list(ids):
        changes = ", ".join(f"{n} {a} -> {b}" for n, a, b in zip(names, ids, chosen, strict=True) if a != b)
        notes.append(f"Category ids follow the names of the classes in {listed.file}: {changes}.")
    if other:
        notes.append(f"{listed.file} has no class {', '.join(other)}.")
    return chosen, " ".join(notes)


def detect(
    detector: Detector, source: Source, config: PredictConfig, summary: Summary
) -> Generator[tuple[InputImage, dict[str, Tensor]]]:
    """Every image that can be read, with its ``boxes``, ``labels`` and ``scores``; counts go into ``summary``."""
    start = time.perf_counter()
    with image_progress(config.progress_bar) as bar:
        task = bar.add_task("detecting", total=len(source) or None, speed="")
        for batch in source.batches(config.batch_size, config.workers):
            images = [image for image in batch if isinstance(image, InputImage)]
            for error in (error for error in batch if isinstance(error, DataError)):
                log.warning("left out: %s", error)
            yield from zip(images, detector.raw([image.pixels for image in images]), strict=True)
            summary.images += len(images)
            summary.first_only += sum(image.frames > 1 for image in images)
            summary.unreadable += len(batch) - len(images)
            summary.images_per_second = summary.images / (time.perf_counter() - start)
            bar.update(task, advance=len(batch), speed=f"{summary.images_per_second:.1f} images/s")


def output_folder(config: PredictConfig) -> Path:
    """``config.output_dir``, or else a folder named after the file or folder of ``config.source``.

    Results of another source of this name stay: the folder is numbered then.
    """
    path = Path(config.source).expanduser()
    while not path.exists() and any(mark in path.name for mark in "*?["):
        path = path.parent
    path = path.absolute()
    name = path.name if path.is_dir() else path.stem
    folder = results_folder(config.output_dir, "predict", name, config.checkpoint)
    if config.output_dir or made_from(folder) in (None, source_of(config)):
        return folder
    others = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(other for other in others if made_from(other) in (None, source_of(config)))


def source_of(config: PredictConfig) -> str:
    """The source as an absolute path or pattern."""
    return str(Path(config.source).expanduser().absolute())


def made_from(folder: Path) -> str | None:
    """The source of the results in a folder; None if there are none, or they do not say."""
    info = read_json_or_empty(folder / DATASET).get("info")
    return info.get(SOURCE) if isinstance(info, dict) else None


def remove_results(folder: Path, overwrite: bool) -> None:
    """Remove earlier results from ``folder`` if ``overwrite`` allows it, and make the folder.

    Raises:
        ConfigError: there are some and ``overwrite`` is false, or the folder cannot be written to.
    """
    there = [path for name in FILES if (path := folder / name).exists()]
    if there and not overwrite:
        raise ConfigError(
            f"{folder} holds {' and '.join(path.name for path in there)} already; choose another "
            "output_dir=FOLDER, or replace them with overwrite=true"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in there:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise ConfigError(
            f"the results cannot be written to {folder}: {error.strerror}; choose another output_dir=FOLDER"
        ) from None
