"""What ``scripts/predict.py`` does: runs a detector over a source, writes results and pictures."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from detector.config.results_folder import results_folder
from detector.config.schema import PredictConfig
from detector.data.coco import CocoDataset
from detector.evaluation.detect import choose_device, match_categories, progress
from detector.exceptions import ConfigError, DataError, DetectorError
from detector.files import replacing
from detector.inference.detector import Detector, Prediction, load
from detector.inference.results import Results
from detector.inference.sources import Item, Source, VideoSource, open_source
from detector.inference.video import VideoWriter
from detector.words import counted

RESULTS, DATASET, TABLE, DRAWN = "predictions.json", "coco.json", "predictions.csv", "drawn"

log = logging.getLogger(__name__)


@dataclass
class Summary:
    """What was done.

    Attributes:
        folder: where the results are.
        files: names of the files and folders in it.
        images: how many were looked at.
        detections: how many were found.
        unreadable: how many images could not be read.
        images_per_second: of the whole loop, reading and drawing included.
    """

    folder: Path
    files: list[str] = field(default_factory=list)
    images: int = 0
    detections: int = 0
    unreadable: int = 0
    images_per_second: float = 0.0

    def text(self) -> str:
        """For a terminal."""
        lost = f", {self.unreadable} could not be read" if self.unreadable else ""
        return (
            f"{counted(self.detections, 'detection')} in {counted(self.images, 'image')}{lost}, "
            f"{self.images_per_second:.1f} images/s\n"
            f"Results are in {self.folder}: {', '.join(self.files)}"
        )


def predict(config: PredictConfig) -> Summary:
    """Run the detector of ``config.checkpoint`` over ``config.source``.

    Writes ``predictions.json`` (COCO results), ``coco.json`` (the same as a COCO data set with scores, which FiftyOne
    and other viewers open), ``predictions.csv`` and, drawn, ``drawn/`` or ``drawn.mp4``. An image that cannot be read
    is left out with a warning.

    Raises:
        ConfigError: checkpoint or source is not given, or there are results already.
        DetectorError: the checkpoint or the source cannot be used; no image could be read.
    """
    wanted = {
        "checkpoint=RUN (or its .ckpt file)": config.checkpoint,
        "source=IMAGE, FOLDER, 'PATTERN' or VIDEO": config.source,
    }
    missing = [key for key, value in wanted.items() if not value]
    if missing:
        raise ConfigError(f"give {' and '.join(missing)}")
    summary = Summary(output_folder(config))
    detector, source, data = inputs(config)
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
    clear(summary.folder, config.overwrite)
    results = Results(detector.class_names, category_ids)
    with ExitStack() as stack:
        painter = stack.enter_context(Painter(summary.folder, source, config.draw_thresh)) if config.draw else None
        run(detector, source, config, results, painter, summary)
    if not summary.images:
        raise DataError(f"source={config.source}: no image could be read")
    results.write(summary.folder / RESULTS, summary.folder / DATASET, summary.folder / TABLE)
    summary.files = [RESULTS, DATASET, TABLE, *([painter.name] if painter else [])]
    summary.detections = len(results)
    return summary


def inputs(config: PredictConfig) -> tuple[Detector, Source, CocoDataset | None]:
    """The detector, the source, and the data set of ``annotations``.

    Raises:
        DetectorError: one of them cannot be used; if both, the message says so of both.
    """
    device = choose_device(config.accelerator)
    errors: list[DetectorError] = []
    try:
        source, data = open_source(config.source, config.annotations)
    except DetectorError as error:
        errors.append(error)
    try:
        detector = load(config.checkpoint, device)
    except DetectorError as error:
        errors.append(error)
    if len(errors) > 1:
        raise ConfigError("\n".join(str(error) for error in errors))
    if errors:
        raise errors[0]
    return detector, source, data


def run(
    detector: Detector,
    source: Source,
    config: PredictConfig,
    results: Results,
    painter: Painter | None,
    summary: Summary,
) -> None:
    """Every image through the detector, into ``results`` and to ``painter``; counts in ``summary``."""
    start = time.perf_counter()
    with progress(config.progress_bar) as bar:
        task = bar.add_task("detecting", total=len(source) or None, speed="")
        for batch in source.batches(config.batch_size, config.workers):
            items = []
            for item in batch:
                if isinstance(item, DataError):
                    log.warning("left out: %s", item)
                    summary.unreadable += 1
                else:
                    items.append(item)
            outputs = detector.raw([item.image for item in items]) if items else []
            for item, output in zip(items, outputs, strict=True):
                results.add(item, output)
                if painter:
                    painter.draw(item, detector.prediction(output))
            summary.images += len(items)
            summary.images_per_second = summary.images / (time.perf_counter() - start)
            bar.update(task, advance=len(batch), speed=f"{summary.images_per_second:.1f} images/s")


class Painter:
    """Writes the images or the video with their boxes; a context manager."""

    def __init__(self, folder: Path, source: Source, score_thresh: float):
        self.folder, self.source, self.score_thresh = folder, source, score_thresh
        self.name = f"{DRAWN}.mp4" if isinstance(source, VideoSource) else DRAWN
        self._writer: VideoWriter | None = None
        self._replacing: Any = None

    def __enter__(self) -> Painter:
        if isinstance(self.source, VideoSource):
            reader = self.source.reader
            self._replacing = replacing(self.folder / self.name)
            self._writer = VideoWriter(self._replacing.__enter__(), reader.rate, reader.time_base)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            finally:
                self._replacing.__exit__(*error)

    def draw(self, item: Item, prediction: Prediction) -> None:
        """One image with its boxes; JPEG stays JPEG, everything else becomes PNG."""
        image = prediction.above(self.score_thresh).draw(item.image)
        if self._writer is not None:
            assert item.pts is not None, "frames have a time"
            self._writer.write(np.asarray(image), item.pts)
            return
        path = self.folder / DRAWN / item.name
        jpeg = path.suffix.lower() in (".jpg", ".jpeg")
        path = path if jpeg or path.suffix.lower() == ".png" else path.with_name(f"{path.name}.png")
        with replacing(path) as temporary:
            image.save(temporary, format="JPEG" if jpeg else "PNG", **({"quality": 92} if jpeg else {}))


def output_folder(config: PredictConfig) -> Path:
    """``config.output_dir``, or else a folder called after the file or folder that is looked at."""
    path = Path(config.source).expanduser()
    while any(mark in path.name for mark in "*?["):
        path = path.parent
    path = path.absolute()
    name = path.name if path.is_dir() else path.stem
    return results_folder(config.output_dir, "predict", name, config.checkpoint)


def clear(folder: Path, overwrite: bool) -> None:
    """Remove earlier results from ``folder``, if that is allowed.

    Raises:
        ConfigError: there are some and ``overwrite`` is false, or the folder cannot be written to.
    """
    there = [path for name in (RESULTS, DATASET, TABLE, DRAWN, f"{DRAWN}.mp4") if (path := folder / name).exists()]
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
