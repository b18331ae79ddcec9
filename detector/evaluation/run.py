"""What ``scripts/evaluate.py`` does: score a results file, or run a checkpoint and score what it finds."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from detector import checkpoint as checkpoints
from detector.config import DataConfig, EvaluateConfig
from detector.data.coco import CocoDataset
from detector.data.shapes import ensure_shapes
from detector.errors import ConfigError, DataError
from detector.evaluation.coco import CocoResult, evaluate
from detector.evaluation.detect import choose_device, match_categories, run_detector
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.plots import draw_prediction_sheet

METRICS, PREDICTIONS, SHEET = "metrics.json", "predictions.json", "predictions.png"


def evaluate_from_config(config: EvaluateConfig) -> tuple[CocoResult, Path]:
    """Do what ``config`` asks for; return the numbers and the folder that holds the results.

    Raises:
        ConfigError: neither a checkpoint nor annotations and predictions are given, or a mixture of both.
        DetectorError: a file is missing or cannot be used.
    """
    check_inputs(config)
    folder = output_folder(config)
    check_overwrite(folder, inputs_of(config), config.overwrite)
    if config.checkpoint:
        return evaluate_checkpoint(config), folder
    return evaluate_files(config.annotations, config.predictions, folder), folder


def evaluate_files(annotations: str | Path, predictions: str | Path, output_dir: str | Path) -> CocoResult:
    """Score a COCO results file against an annotation file and write ``metrics.json``.

    Args:
        annotations: COCO annotation JSON.
        predictions: COCO results JSON.
        output_dir: made if need be; a ``metrics.json`` in it is replaced.

    Raises:
        DataError: a file is missing or cannot be used; lists the entries that are wrong.
    """
    truth = GroundTruth(annotations)
    detections = Detections.from_json(predictions, truth.image_ids, truth.category_ids)
    result = evaluate(truth, detections)
    inputs = {"annotations": resolved(annotations), "predictions": resolved(predictions)}
    result.save(Path(output_dir) / METRICS, {"inputs": inputs, "date": now()})
    return result


def evaluate_checkpoint(config: EvaluateConfig) -> CocoResult:
    """Run the detector of a checkpoint and score what it finds.

    It runs over ``config.annotations`` and ``config.images``, or else over the validation set that the checkpoint was
    trained with, all of it. ``metrics.json``, ``predictions.json`` and ``predictions.png`` in :func:`output_folder` are
    written or replaced.

    Raises:
        DetectorError: the checkpoint or the data set is missing or damaged, or their classes differ.
    """
    folder = output_folder(config)
    module = checkpoints.load(config.checkpoint, choose_device(config.accelerator))
    if config.score_thresh >= 0:
        module.model.roi_heads.score_thresh = config.score_thresh
    data = module.config.data
    if config.annotations:
        annotations, images = Path(config.annotations).expanduser(), Path(config.images).expanduser()
    else:
        annotations, images = validation_files(data, config.checkpoint)
    dataset = CocoDataset(annotations, images, on_invalid=data.on_invalid)
    truth = GroundTruth(annotations, drop_invalid=data.on_invalid != "error")
    category_ids, renumbered = match_categories(module.class_names, module.category_ids, dataset.class_names,
                                                dataset.category_ids, config.checkpoint, str(annotations))

    # Spread over the data set: neighbours in a file are often alike.
    count = min(config.sheet_images, len(dataset))
    chosen = {int(i) for i in np.linspace(0, len(dataset) - 1, count)} if count else set()
    found = run_detector(module, dataset, category_ids, batch_size=config.batch_size, workers=config.workers,
                         sample=chosen, progress_bar=config.progress_bar)
    found.detections.to_json(folder / PREDICTIONS)
    if found.samples:
        shown, targets, outputs = zip(*found.samples, strict=True)
        draw_prediction_sheet(shown, targets, outputs, module.class_names, folder / SHEET)
    result = evaluate(truth, found.detections, dataset.image_ids)
    if renumbered:
        result.notes.append(renumbered)
    result.save(folder / METRICS, {
        "inputs": inputs_of(config), "date": now(),
        "data": {"annotations": resolved(annotations), "images": resolved(images)},
        "score_thresh": module.model.roi_heads.score_thresh, "batch_size": config.batch_size,
        "device": str(next(module.parameters()).device), "images_per_second": round(found.images_per_second, 2),
    })
    return result


def validation_files(data: DataConfig, checkpoint: str) -> tuple[Path, Path]:
    """Annotation file and image folder of the validation set in a checkpoint's configuration.

    The built-in data set is drawn again if it is not there; it is the same by its seed.

    Raises:
        DataError: they are not where they were in training.
    """
    root = Path(data.root).expanduser()
    if data.name == "shapes":
        folder = ensure_shapes(root, data.shapes)
        return folder / "val.json", folder / "images"
    annotations, images = root / data.val_annotations, root / data.val_images
    for path in (annotations, images):
        if not path.exists():
            raise DataError(f"{checkpoint} was trained with the validation set {annotations} and the images in "
                            f"{images}, but there is no {path} (relative paths start at {Path.cwd()}); say where the "
                            "data are with annotations=FILE.json images=FOLDER")
    return annotations, images


# --------------------------------------------------------------------------------- inputs and outputs
def check_inputs(config: EvaluateConfig) -> None:
    """Raise :class:`ConfigError` unless ``config`` names one of the two things that can be evaluated."""
    usage = ("give checkpoint=RUN/checkpoints/best.ckpt (and annotations=GT.json images=FOLDER for another data set "
             "than its own), or annotations=GT.json predictions=DETECTIONS.json")
    given = [key for key in ("checkpoint", "annotations", "predictions", "images") if getattr(config, key)]
    if not given:
        raise ConfigError(f"there is nothing to evaluate: {usage}")
    if set(given) not in ({"checkpoint"}, {"checkpoint", "annotations", "images"}, {"annotations", "predictions"}):
        raise ConfigError(f"cannot tell what to evaluate from the keys {', '.join(given)}: {usage}")


def output_folder(config: EvaluateConfig) -> Path:
    """``config.output_dir``, or else ``NAME-evaluation`` beside the ``NAME.ckpt`` or ``NAME.json`` that is scored."""
    if config.output_dir:
        return Path(config.output_dir).expanduser()
    source = checkpoint_file(config.checkpoint) if config.checkpoint else Path(config.predictions).expanduser()
    return source.parent / f"{source.stem}-evaluation"


def checkpoint_file(checkpoint: str) -> Path:
    """The file that ``checkpoint`` names: itself, or the best checkpoint of a run's folder."""
    path = Path(checkpoint).expanduser()
    return path / "checkpoints" / "best.ckpt" if path.is_dir() else path


def inputs_of(config: EvaluateConfig) -> dict[str, str]:
    """The files that ``config`` names, as absolute paths."""
    given = {key: getattr(config, key) for key in ("checkpoint", "annotations", "predictions", "images")}
    if config.checkpoint:
        given["checkpoint"] = checkpoint_file(config.checkpoint)
    return {key: resolved(value) for key, value in given.items() if value}


def check_overwrite(folder: Path, inputs: Mapping[str, str], overwrite: bool) -> None:
    """Raise :class:`ConfigError` if ``folder`` cannot be written or holds results of something else.

    The same evaluation may be repeated in place; ``overwrite`` allows everything.
    """
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ConfigError(f"the results cannot be written to {folder}: {nearest} is not a folder that you may write "
                          "to; choose another output_dir=FOLDER")
    there = [name for name in (METRICS, PREDICTIONS, SHEET) if (folder / name).exists()]
    if there and not overwrite and recorded_inputs(folder / METRICS) != inputs:
        raise ConfigError(f"{folder} holds {' and '.join(there)} of something else; choose another output_dir=FOLDER, "
                          "or replace them with overwrite=true")


def recorded_inputs(metrics: Path) -> Any:
    """The files that a ``metrics.json`` was made from, None if it does not say."""
    try:
        return json.loads(metrics.read_text(encoding="utf-8"))["meta"]["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def resolved(path: str | Path) -> str:
    """``path`` as an absolute path."""
    return str(Path(path).expanduser().resolve())


def now() -> str:
    """Date and time, with the offset to UTC."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
