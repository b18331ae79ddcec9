"""What a finished run leaves for the report: ``record.json``, and ``replicates.npz`` for the bootstrap over images."""

from __future__ import annotations

import csv
import hashlib
import platform
import statistics
import subprocess
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from detector.ablation.cells import RECORD
from detector.config.defaults import parse_partial
from detector.config.results_folder import now
from detector.config.schema import Config
from detector.config.targets import targets_of
from detector.data.splits import validation_split
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.intervals import replicate, resample
from detector.evaluation.matches import Matches, match
from detector.evaluation.metrics import IOU_THRESHOLDS, METRIC_NAMES
from detector.exceptions import DataError
from detector.files import replacing, write_json
from detector.training.result import TrainResult

REPLICATES = "replicates.npz"
IOUS = tuple(f"AP@{threshold:.2f}" for threshold in IOU_THRESHOLDS)
SEED = 0  # of the resamples: one for all runs, so that differences are paired image by image


def write_record(folder: Path, cell: dict[str, Any], outcome: TrainResult, costs: dict[str, float | None]) -> None:
    """Write ``replicates.npz`` and then ``record.json``: the cell is finished when the latter is there.

    Args:
        folder: of the cell.
        cell: content of its ``cell.json``.
        outcome: of the training.
        costs: as :func:`detector.ablation.costs.measure` returns them.
    """
    matches = matches_of(parse_partial(cell["config"]), outcome.run_dir)
    accumulated = matches.accumulated()
    with replacing(folder / REPLICATES) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **replicates(matches))
    write_json(folder / RECORD, {
        **cell,
        "metrics": outcome.result.metrics,
        "by_iou": dict(zip(IOUS, accumulated.by_iou(), strict=True)),
        "per_class": {c.name: {"AP": c.AP, "AP50": c.AP50, "AR100": c.AR100} for c in outcome.result.per_class},
        "images": outcome.result.images,
        "boxes": outcome.result.boxes,
        "best_step": outcome.best_step,
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "images_per_second": training_speed(outcome.run_dir / "metrics.csv"),
        "costs": costs,
        "classes": targets_of(cell["config"]),  # of the user's, which the hash knows by name and arguments only
        "data": fingerprint_of_validation(matches),
        **environment(),
    })  # fmt: skip


def matches_of(config: Config, run: Path) -> Matches:
    """Which detection of a run's best weights matches which object of its validation images."""
    split = validation_split(config.data, str(run))
    truth = GroundTruth.of(split)
    found = truth.read_detections(run / "predictions.json")
    scored = split.dataset().image_ids
    return match(truth, found, scored[: config.trainer.limit_eval_images or None])


def replicates(matches: Matches) -> dict[str, Any]:
    """The twelve numbers, float64 ``[B]`` each, and AP at each IoU threshold as ``by_iou``, ``[T, B]``, in each of the
    B resamples of the images."""
    found = replicate(matches, resample(len(matches.image_ids), seed=SEED))
    return {**found.metrics(), "by_iou": found.by_iou()}


def load_replicates(folder: Path) -> dict[str, np.ndarray]:
    """The :func:`replicates` of a finished run.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with np.load(folder / REPLICATES, allow_pickle=False) as stored:
            return {name: stored[name] for name in (*METRIC_NAMES, "by_iou")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{folder / REPLICATES}: missing or damaged ({error}); remove {folder / RECORD} to repeat the "
                        "run") from None  # fmt: skip


def fingerprint_of_validation(matches: Matches) -> str:
    """Of the images and objects that were scored: runs that differ here cannot be paired."""
    digest = hashlib.sha256()
    for values in (matches.image_ids, np.asarray(matches.category_ids), matches.object_id, matches.object_boxes):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def training_speed(metrics_csv: Path) -> float | None:
    """Images per second while training: the median of the logged rows but the first, which has the warm-up."""
    try:
        with open(metrics_csv, newline="", encoding="utf-8") as file:
            texts = [row.get("train/images_per_s") for row in csv.DictReader(file)]
    except OSError:
        return None
    speeds = [float(text) for text in texts if text][1:]
    return statistics.median(speeds) if speeds else None


def environment() -> dict[str, Any]:
    """Versions, revision, machine and time."""
    try:
        own = metadata.version("multiscale-rcnn")
    except metadata.PackageNotFoundError:  # run from the source tree
        own = ""
    gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "torchvision": torchvision.__version__, "multiscale-rcnn": own},
        "git": git_revision(),
        "device": torch.cuda.get_device_name() if gpu else "CPU",
        "threads": torch.get_num_threads(),
        "date": now(),
    }  # fmt: skip


def git_revision() -> str:
    """Revision of the source tree, with ``+`` if it was changed since; "" outside a repository."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
