"""Detections on disk that a user names: the folder of a run or of an evaluation, or a results file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import yaml

from detector.config.commands import command
from detector.config.defaults import parse_partial
from detector.config.schema import Config
from detector.data.splits import is_own, is_undrawn, validation_split
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.metrics import COCO_LIMIT
from detector.exceptions import ConfigError, DataError
from detector.files import file_digest, read_json_or_empty
from detector.words import counted

METRICS_FILE, PREDICTIONS = "metrics.json", "predictions.json"
ANNOTATIONS = "annotations.json"  # in the folder of a run whose validation images are no files of a data set
ELSEWHERE = "Say where the data are with annotations=FILE.json images=FOLDER."


class StoredDetections(NamedTuple):
    """Detections, and what is known about where they come from."""

    name: str
    folder: Path  # the folder, or the results file without its suffix: tells detections of one name apart
    predictions: Path
    annotations: Path | None = None  # None: not known
    images: Path | None = None  # folder, None: not known
    first_images: int = 0  # the run was evaluated on the first so many images of the file; 0: on all
    limit: int = COCO_LIMIT  # detections counted for each image and class
    trained: Config | None = None  # the configuration of a run's folder
    drop_categories: tuple[str, ...] = ()  # classes that were not scored


def find_stored(paths: Sequence[str], locate: bool = True) -> list[StoredDetections]:
    """The detections that ``paths`` lead to, each with a name of its own.

    Args:
        paths: folders of runs or evaluations, or results files.
        locate: look for the annotations that each run was evaluated on.

    Raises:
        DataError: a path leads to no detections, or the validation data of a run are not where they were.
    """
    found = [find_one(path) for path in paths]
    if locate:
        found = [located(one, path) for one, path in zip(found, paths, strict=True)]
    return [one._replace(name=name) for one, name in zip(found, short_names(found), strict=True)]


def find_one(path: str) -> StoredDetections:
    """The detections that ``path`` leads to; its name is that of the folder or the file.

    Raises:
        DataError: there are none.
    """
    given = Path(path).expanduser()
    if not given.exists():
        raise DataError(f"{path}: there is no such folder or file; relative paths start at {Path.cwd()}")
    if given.suffix == ".ckpt":
        raise DataError(
            f"{path}: a checkpoint has no detections yet: run {command('evaluate')} checkpoint={path} "
            "first, and compare the folder that it writes"
        )
    folder = given if given.is_dir() else given.parent
    predictions = given / PREDICTIONS if given.is_dir() else given
    if given.is_file() and given.name != PREDICTIONS:
        return StoredDetections(given.stem, given.resolve().with_suffix(""), given)
    meta = part(read_json_or_empty(folder / METRICS_FILE), "meta")
    inputs, data = part(meta, "inputs"), part(meta, "data")
    if not predictions.is_file() and isinstance(inputs.get("predictions"), str):
        predictions = Path(inputs["predictions"])  # an evaluation of a results file
    if not predictions.is_file():
        raise DataError(
            f"{path}: there are no detections in this folder, neither {PREDICTIONS} nor a {METRICS_FILE} that "
            f"names a results file; give the folder of a run that has ended, one that {command('evaluate')} "
            "has written, or a results file"
        )
    where = [inputs.get(key) or data.get(key) for key in ("annotations", "images")]
    annotations, images = (Path(w) if isinstance(w, str) else None for w in where)
    run = trained(folder)
    # An evaluation says what it did; a run was evaluated as it was trained.
    limit, dropped = meta.get("max_detections"), meta.get("drop_categories")
    if run is not None:
        limit = run.model.head.detections_per_image if limit is None else limit
        dropped = run.data.drop_categories if dropped is None else dropped
    return StoredDetections(
        folder.resolve().name,
        folder.resolve(),
        predictions,
        annotations,
        images,
        0,
        max(limit, COCO_LIMIT) if isinstance(limit, int) else COCO_LIMIT,
        run,
        tuple(str(name) for name in dropped or ()),
    )


def part(content: dict[str, Any], key: str) -> dict[str, Any]:
    """The object that stands under ``key``, an empty one if there is none."""
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def trained(folder: Path) -> Config | None:
    """The configuration in the folder of a training run, None if it is none or one of another version."""
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return parse_partial(content) if isinstance(content, dict) else None
    except (OSError, ValueError, yaml.YAMLError, ConfigError):
        return None


def located(found: StoredDetections, path: str) -> StoredDetections:
    """``found`` with the validation data of a training run, where nothing else says what it was evaluated on.

    Raises:
        DataError: the data are no longer there.
    """
    if found.annotations is not None or found.trained is None:
        return found
    first = found.trained.trainer.limit_eval_images
    if is_own(found.trained.data):
        return found._replace(annotations=found.folder / ANNOTATIONS, first_images=first)
    split = validation_split(found.trained.data, path, ELSEWHERE)
    return found._replace(annotations=split.annotations, images=split.images, first_images=first)


def image_note(found: StoredDetections, path: str, truth: GroundTruth) -> str:
    """A sentence if a few images of ``truth`` are others than those with the same ids that the detections are of.

    An image is another one if its name without folders and ending differs, or its width or height.

    Args:
        found: the detections.
        path: what led to them.
        truth: annotations that they are to be scored with.

    Raises:
        DataError: most images are others.
    """
    if found.annotations is None and found.trained is not None and is_undrawn(found.trained.data):
        return ""  # nothing is drawn for a remark
    try:
        known = located(found, path).annotations
        if known is None or file_digest(known) == file_digest(truth.path):
            return ""
        own = GroundTruth(known, drop_invalid=True)
    except (DataError, OSError):  # what they are of cannot be known
        return ""
    shared, at, there = np.intersect1d(own.image_ids, truth.image_ids, return_indices=True)
    stems = [np.array([PurePath(name).stem for name in names], dtype=str)
             for names in (own.file_names[at], truth.file_names[there])]  # fmt: skip
    sizes = own.sizes[at], truth.sizes[there]
    other = (stems[0] != stems[1]) & (stems[0] != "") & (stems[1] != "")
    other |= ((sizes[0] != sizes[1]) & (sizes[0] > 0) & (sizes[1] > 0)).any(axis=1)
    if not other.any():
        return ""
    row = int(other.argmax())
    entries = [f"{names[row]} ({w} x {h})" for names, (h, w) in (
        (own.file_names[at], sizes[0][row]), (truth.file_names[there], sizes[1][row]))]  # fmt: skip
    said = (
        f"{found.predictions} is of the images of {known}: {counted(int(other.sum()), 'image')} of {truth.path} with "
        f"ids of that file are others, such as {shared[row]}: {entries[0]} there, {entries[1]} here"
    )
    if other.mean() > 0.5:
        raise DataError(f"{said}. Run the detector on these images: {command('evaluate')} checkpoint=RUN "
                        f"annotations={truth.path} images=FOLDER")  # fmt: skip
    return f"{said}."


def short_names(found: Sequence[StoredDetections]) -> list[str]:
    """A name for each: its own, with as many folders before it as tell it from the others.

    One that is given more than once is numbered: ``run``, ``run (2)``.
    """
    folders = {one.folder.parts for one in found}

    def short(own: tuple[str, ...]) -> str:
        for depth in range(1, len(own)):
            if sum(other[-depth:] == own[-depth:] for other in folders) == 1:
                return "/".join(own[-depth:])
        return str(Path(*own))

    names = [short(one.folder.parts) for one in found]
    return [
        name if names.index(name) == i else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)
    ]
