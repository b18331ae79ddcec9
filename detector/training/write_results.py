"""The files that a finished run leaves in its folder besides logs and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector.config.results_folder import discard
from detector.config.schema import Config
from detector.config.targets import word_of
from detector.data.coco_lists import lists_of
from detector.data.datamodule import DetectionDataModule
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.matches import match
from detector.evaluation.prediction_sheet import draw_prediction_sheet
from detector.evaluation.stored_detections import ANNOTATIONS
from detector.files import write_json
from detector.training.forgetting import (
    FORGETTING,
    Known,
    forgetting_table,
    measure_after,
    sizes_in_words,
    write_forgetting,
)
from detector.training.plot_curves import overfitting, plot_curves, read_curves
from detector.training.result import CURVES, METRICS_TABLE, SHEET, TrainResult
from detector.training.tensorboard_summary import write_summary


def write_results(
    config: Config,
    outcome: TrainResult,
    detections: Detections,
    data: DetectionDataModule,
    known: Known,
    say: Callable[[Any], Any],
) -> None:
    """Write ``metrics.json``, ``predictions.json``, ``curves.png``, ``predictions.png`` and ``forgetting.json``.

    For a data set of the user's own the validation boxes are written too, as ``annotations.json``.

    A picture that cannot be drawn is reported and no error: the training is done.

    Args:
        config: of the run.
        outcome: its numbers and folder.
        detections: of the best weights, on the validation images.
        data: with the images to draw.
        known: classes of the detector that the run began with, and their AP then; no classes if that is not asked for.
        say: prints a line.
    """
    folder = outcome.folder
    outcome.result.save(folder / "metrics.json", facts(config, outcome))
    detections.to_json(folder / "predictions.json")
    if data.val_split.own is not None:  # for evaluations of these detections, which read files
        write_json(folder / ANNOTATIONS, lists_of(data.val_split.read()))
    discard(folder, [CURVES, SHEET])  # of this run before it was resumed
    if config.logger.csv:
        attempt(lambda: plot_curves(folder / METRICS_TABLE, folder / CURVES), "curves.png", say)
        attempt(lambda: say_overfitting(folder / METRICS_TABLE, say), "the remark on the losses", say)
    count = min(config.logger.sheet_images, len(data.val_image_ids))
    if count:
        attempt(lambda: draw_sheet(data, detections, count, folder / SHEET), "predictions.png", say)
    if known.classes:
        attempt(lambda: say_forgetting(config, outcome, known, say), FORGETTING, say)
    if config.logger.tensorboard:
        attempt(lambda: fill_tensorboard(config, outcome, detections, data), "TensorBoard's summary", say)


def attempt(draw: Callable[[], Any], name: str, say: Callable[[str], Any]) -> None:
    """Call ``draw``; if it fails, say that ``name`` is missing and why."""
    try:
        draw()
    except Exception as error:  # whatever a plotting library or a full disk comes up with
        say(f"warning: {name} was not made: {type(error).__name__}: {error}")


def say_overfitting(metrics_csv: Path, say: Callable[[str], Any]) -> None:
    """Say so if the validation loss rises while the training loss falls."""
    if remark := overfitting(read_curves(metrics_csv)):
        say(f"note    {remark}")


def say_forgetting(config: Config, outcome: TrainResult, known: Known, say: Callable[[Any], Any]) -> None:
    """Print the AP of the classes that the run's detector knew before, and write it to ``forgetting.json``."""
    found = measure_after(config, known, outcome.checkpoint)
    write_forgetting(found, outcome.folder)
    say(forgetting_table(found.classes))
    for line in sizes_in_words(config.model, found):
        say(f"note    {line}")


def fill_tensorboard(config: Config, outcome: TrainResult, detections: Detections, data: DetectionDataModule) -> None:
    """Add settings, numbers, precision-recall curves and the sheet to the run's TensorBoard log."""
    truth = GroundTruth.of(data.val_split)
    matches = match(truth, detections, data.val_image_ids)
    folder = outcome.folder
    write_summary(folder / "tensorboard", config, outcome.result, matches, folder / SHEET, outcome.best_step)


def facts(config: Config, outcome: TrainResult) -> dict[str, Any]:
    """What ``metrics.json`` says about the run besides its numbers."""
    return {
        "best_step": outcome.best_step,
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "seed": config.seed,
        "model": config.model.name,
        "backbone": word_of(config.model.backbone),
        "roi": word_of(config.roi.kind),
        "checkpoint": str(outcome.checkpoint),
    }


def draw_sheet(data: DetectionDataModule, detections: Detections, count: int, out: Path) -> None:
    """Draw ``count`` validation images, evenly spread over the set, with their true and predicted boxes."""
    dataset = data.val_dataset
    chosen = np.linspace(0, len(data.val_image_ids) - 1, count).round().astype(int).tolist()
    samples = [(*dataset[i], as_prediction(detections, dataset.image_ids[i], data.category_ids)) for i in chosen]
    draw_prediction_sheet(samples, data.class_names, out)


def as_prediction(detections: Detections, image_id: int, category_ids: list[int]) -> dict[str, torch.Tensor]:
    """The detections of one image as a model returns them: ``boxes`` xyxy [N, 4], ``labels`` [N], ``scores`` [N]."""
    rows = detections.image_id == image_id
    boxes = torch.from_numpy(detections.boxes_xywh[rows]).float()
    return {
        "boxes": torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
        "labels": torch.from_numpy(np.searchsorted(category_ids, detections.category_id[rows]) + 1),
        "scores": torch.from_numpy(detections.score[rows]).float(),
    }
