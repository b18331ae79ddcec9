"""What a finished run leaves for the report: ``record.json``, and ``matches.npz`` for the bootstrap over images."""

from __future__ import annotations

import csv
import hashlib
import platform
import resource
import statistics
import subprocess
import sys
import zipfile
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.ablation.study import METRICS, RECORD, write_json
from detector.config.defaults import parse_partial
from detector.config.results_folder import now
from detector.data.splits import validation_split
from detector.evaluation.metrics import IOU_THRESHOLDS
from detector.exceptions import DataError
from detector.files import replacing

if TYPE_CHECKING:
    from detector.config.schema import Config
    from detector.evaluation.matches import Matches
    from detector.training.result import TrainResult

MATCHES = "matches.npz"
IOUS = tuple(f"AP@{threshold:.2f}" for threshold in IOU_THRESHOLDS)
SEED = 0  # of the resamples: one for all runs, so that differences are paired image by image


def write_record(folder: Path, cell: dict[str, Any], outcome: TrainResult, costs: dict[str, float | None]) -> None:
    """Write ``matches.npz`` and then ``record.json``: the cell is finished when the latter is there.

    Args:
        folder: of the cell.
        cell: content of its ``cell.json``.
        outcome: of the training.
        costs: as :func:`detector.ablation.costs.measure` returns them.
    """
    config = parse_partial(cell["config"])
    matches = matches_of(config, outcome.run_dir)
    accumulated = matches.accumulated()
    store(folder / MATCHES, matches)
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
        "data": fingerprint_of_validation(matches),
        **environment(),
    })  # fmt: skip


def matches_of(config: Config, run: Path) -> Matches:
    """Which detection of a run's best weights matches which object of its validation images."""
    from detector.evaluation.detections import Detections  # PyTorch takes seconds to import
    from detector.evaluation.ground_truth import GroundTruth
    from detector.evaluation.matches import match

    split = validation_split(config.data, str(run))
    truth = GroundTruth(split.annotations, split.drops_invalid)
    found = Detections.from_json(run / "predictions.json", truth.image_ids, truth.category_ids)
    scored = split.dataset().image_ids
    return match(truth, found, scored[: config.trainer.limit_eval_images or None])


def store(path: Path, matches: Matches) -> None:
    """Write matches, and the numbers of :func:`replicates` under the project's resamples of the images."""
    arrays: dict[str, Any] = {f.name: np.asarray(getattr(matches, f.name)) for f in fields(matches)}
    arrays |= {f"replicates_{name}": values for name, values in replicates(matches).items()}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def replicates(matches: Matches) -> dict[str, np.ndarray]:
    """The twelve numbers, and AP at each IoU threshold as ``by_iou``, in each resample: float64 ``[B]``, ``[T, B]``."""
    from detector.evaluation.intervals import replicate, resample

    found = replicate(matches, resample(len(matches.image_ids), seed=SEED))
    return {**found.metrics(), "by_iou": found.by_iou()}


def load_replicates(folder: Path) -> dict[str, np.ndarray]:
    """What :func:`store` wrote of :func:`replicates`.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with np.load(folder / MATCHES, allow_pickle=False) as stored:
            return {name: stored[f"replicates_{name}"] for name in (*METRICS, "by_iou")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{folder / MATCHES}: missing or damaged ({error}); remove {folder / RECORD} to repeat the run"
                        ) from None  # fmt: skip


def load_matches(folder: Path) -> Matches:
    """The matches of a finished run.

    Raises:
        DataError: the file is missing or damaged.
    """
    from detector.evaluation.matches import Matches

    try:
        with np.load(folder / MATCHES, allow_pickle=False) as stored:
            arrays: dict[str, Any] = {f.name: stored[f.name] for f in fields(Matches)}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{folder / MATCHES}: missing or damaged ({error}); remove {folder / RECORD} to repeat the run"
                        ) from None  # fmt: skip
    for name in ("category_ids", "class_names", "limit"):
        arrays[name] = arrays[name].tolist()
    return Matches(**arrays)


def fingerprint_of_validation(matches: Matches) -> str:
    """Of the images and objects that were scored: runs that differ here cannot be paired."""
    digest = hashlib.sha256()
    for values in (matches.image_ids, np.asarray(matches.category_ids), matches.object_id, matches.object_boxes):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def training_speed(metrics_csv: Path) -> float | None:
    """Images a second while training: the median of the logged rows; the first one, with its warm-up, apart."""
    try:
        with open(metrics_csv, newline="", encoding="utf-8") as file:
            texts = [row.get("train/images_per_s") for row in csv.DictReader(file)]
    except OSError:
        return None
    speeds = [float(text) for text in texts if text][1:]
    return statistics.median(speeds) if speeds else None


def peak_memory_mb() -> float:
    """The most memory that this process has had, in megabytes: of the GPU if it used one, else resident."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def environment() -> dict[str, Any]:
    """Versions, revision, machine and time."""
    import torch
    import torchvision

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
