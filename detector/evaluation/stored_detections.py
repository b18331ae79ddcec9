"""Detections on disk that a user names: the folder of a run or of an evaluation, or a results file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from detector.config.commands import command
from detector.config.defaults import parse_partial
from detector.data.splits import validation_split
from detector.evaluation.evaluate import METRICS_FILE, PREDICTIONS
from detector.evaluation.metrics import COCO_LIMIT
from detector.exceptions import ConfigError, DataError
from detector.files import read_json_or_empty


class StoredDetections(NamedTuple):
    """Detections, and what is known about where they come from."""

    name: str
    folder: Path  # the folder, or the results file without its suffix: tells detections of one name apart
    predictions: Path
    annotations: Path | None = None  # None: not known
    images: Path | None = None  # folder, None: not known
    first_images: int = 0  # the run was evaluated on the first so many images of the file; 0: on all
    limit: int = COCO_LIMIT  # detections counted for each image and class
    trained: dict[str, Any] | None = None  # the configuration of a run's folder


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
    limit = meta.get("max_detections")
    return StoredDetections(
        folder.resolve().name,
        folder.resolve(),
        predictions,
        annotations,
        images,
        0,
        max(limit, COCO_LIMIT) if isinstance(limit, int) else COCO_LIMIT,
        trained(folder),
    )


def part(content: dict[str, Any], key: str) -> dict[str, Any]:
    """The object that stands under ``key``, an empty one if there is none."""
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def trained(folder: Path) -> dict[str, Any] | None:
    """The configuration in the folder of a training run, None if it is none."""
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None


def located(found: StoredDetections, path: str) -> StoredDetections:
    """``found`` with the validation data of a training run, where nothing else says what it was evaluated on.

    Raises:
        DataError: the data are no longer there.
    """
    if found.annotations is not None or found.trained is None:
        return found
    try:
        config = parse_partial(found.trained)
    except ConfigError:
        return found  # of another version: the user is asked for the annotations
    split = validation_split(config.data, path)
    return found._replace(
        annotations=split.annotations,
        images=split.images,
        first_images=config.trainer.limit_eval_images,
        limit=max(COCO_LIMIT, config.model.head.detections_per_image),
    )


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
