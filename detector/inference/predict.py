"""What ``scripts/predict.py`` does: it runs a detector over a source and writes results and pictures."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from detector.config.results_folder import results_folder
from detector.config.schema import PredictConfig
from detector.data.coco import CocoDataset
from detector.evaluation.detect import match_categories
from detector.exceptions import ConfigError, DataError, DetectorError
from detector.inference.detector import Detector, load
from detector.inference.prediction_files import FILES, PredictionFiles, drawn_images
from detector.inference.sources import InputImage, Source, open_source
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
        images_per_second: of the whole loop, reading and drawing included.
    """

    folder: Path
    images: int = 0
    detections: int = 0
    unreadable: int = 0
    images_per_second: float = 0.0

    def __rich__(self) -> str:
        lost = f", {self.unreadable} could not be read" if self.unreadable else ""
        found = f"{counted(self.detections, 'detection')} in {counted(self.images, 'image')}"
        return f"{found}{lost}, {self.images_per_second:.1f} images/s"


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
    detector, source, data = open_inputs(config)
    if config.score_thresh >= 0:
        detector.module.model.roi_heads.score_thresh = config.score_thresh
    category_ids = detector.category_ids
    if data is not None:
        category_ids, note = match_categories(
            detector.class_names,
            detector.category_ids,
            data.class_names,
            data.category_ids,
            config.checkpoint,
            config.annotations,
        )
        if note:
            log.info(note)
    remove_results(summary.folder, config.overwrite)
    files = PredictionFiles(detector.class_names, category_ids)
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


def open_inputs(config: PredictConfig) -> tuple[Detector, Source, CocoDataset | None]:
    """The detector, the source, and the data set of ``annotations``.

    Raises:
        DetectorError: one of them cannot be used; if both cannot, the message names both reasons.
    """
    device = choose_device(config.accelerator)
    openers: tuple[Callable[[], Any], ...] = (
        lambda: open_source(config.source, config.annotations),
        lambda: load(config.checkpoint, device, config.trust),
    )
    opened: list[Any] = []
    errors: list[DetectorError] = []
    for opener in openers:
        try:
            opened.append(opener())
        except DetectorError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else ConfigError("\n".join(map(str, errors)))
    (source, data), detector = opened
    return detector, source, data


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
            summary.unreadable += len(batch) - len(images)
            summary.images_per_second = summary.images / (time.perf_counter() - start)
            bar.update(task, advance=len(batch), speed=f"{summary.images_per_second:.1f} images/s")


def output_folder(config: PredictConfig) -> Path:
    """``config.output_dir``, or else a folder named after the file or folder of ``config.source``."""
    path = Path(config.source).expanduser()
    while any(mark in path.name for mark in "*?["):
        path = path.parent
    path = path.absolute()
    name = path.name if path.is_dir() else path.stem
    return results_folder(config.output_dir, "predict", name, config.checkpoint)


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
