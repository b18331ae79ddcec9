"""The built-in data set: textured shapes on cluttered backgrounds, drawn from a seed and kept as COCO JSON and images.

Boxes are computed from the geometry that is drawn, so they are exact below the pixel: average precision at high IoU
measures localisation, not label noise. They are boxes of whole objects, and include what a later object hides. ``area``
is that of the shape (of a ring without its hole), as in COCO, so a slender shape counts as small sooner than its box.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detector.config.schema import ShapesConfig
from detector.data.paint import paint
from detector.data.scene import CLASS_NAMES, draw_objects
from detector.exceptions import ConfigError, DataError
from detector.files import write_json

VERSION = 3  # of the drawing: a new number means new images for the same configuration
SPLITS = ("train", "val")

log = logging.getLogger(__name__)


def ensure_shapes(root: Path, config: ShapesConfig) -> Path:
    """Draw the data set of ``config`` unless it is there.

    The folder is named after the configuration, so several of them live side by side below ``root``. It is drawn under
    another name and renamed when it is complete: an interrupted run leaves nothing that looks like a data set, and of
    two processes that draw at once one wins and both are right.

    Returns:
        The folder with ``train.json``, ``val.json`` and ``images/``.

    Raises:
        ConfigError: objects larger than the image, or no size between smallest and largest.
        DataError: the folder cannot be written.
    """
    check_config(config)
    folder = folder_of(root, config)
    if folder.is_dir():
        return folder
    log.info("drawing %d images into %s", config.train_images + config.val_images, folder)
    draft = root / f".drawing-{uuid.uuid4().hex}"
    try:
        draft.mkdir(parents=True)
        draw_data_set(draft, config)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # it is if another process was faster
                raise
    except OSError as error:
        raise DataError(f"cannot write the built-in data set to {root}: {error.strerror}.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def folder_of(root: Path, config: ShapesConfig) -> Path:
    """Where the data set of ``config`` is below ``root``, drawn or not."""
    return root / f"shapes-{fingerprint(config)}"


def files(split: str) -> tuple[str, str]:
    """Annotation file and image folder of a split, relative to the folder of the data set."""
    return f"{split}.json", "images"


def check_config(config: ShapesConfig) -> None:
    """Raise :class:`ConfigError` if no object fits the configuration."""
    if config.min_object > config.max_object:
        raise ConfigError(
            f"data.shapes.min_object={config.min_object}: must not be above data.shapes.max_object={config.max_object}"
        )
    # A slender object must be able to turn: its longer side may need twice its shorter one.
    if config.min_object > config.image_size / 2:
        raise ConfigError(
            f"data.shapes.min_object={config.min_object}: must be at most half of "
            f"data.shapes.image_size={config.image_size}"
        )


def fingerprint(config: ShapesConfig) -> str:
    """Ten hexadecimal digits that differ for configurations whose images differ."""
    content = json.dumps({"version": VERSION, **asdict(config)}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def draw_data_set(folder: Path, config: ShapesConfig) -> None:
    """Draw both splits into ``folder``: images, annotations and ``config.json``."""
    for split, count in zip(SPLITS, (config.train_images, config.val_images), strict=True):
        annotations, images = (folder / name for name in files(split))
        images.mkdir(exist_ok=True)
        write_json(annotations, _draw_split(images, split, count, config), indent=None)
    write_json(folder / "config.json", {"version": VERSION, **asdict(config)}, indent=2)


def _draw_split(images: Path, split: str, count: int, config: ShapesConfig) -> dict[str, Any]:
    """Draw ``count`` images; returns the annotation file's content."""
    content: dict[str, Any] = {
        "info": {"description": f"built-in shapes, {split}", "version": str(VERSION)},
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, 1)],
    }
    for number in range(count):
        # Each image has its own generator: image 7 is the same in a data set of ten and of a thousand.
        rng = np.random.default_rng([config.seed, SPLITS.index(split), number])
        objects = draw_objects(rng, config)
        name = f"{split}_{number:06d}.png"
        pixels = paint(rng, objects, config.image_size, config.difficulty)
        Image.fromarray(pixels).save(images / name, compress_level=3)
        content["images"].append(
            {"id": number + 1, "file_name": name, "width": config.image_size, "height": config.image_size}
        )
        for obj in objects:
            x1, y1, x2, y2 = obj.box.tolist()
            content["annotations"].append(
                {
                    # From 1 on: pycocotools takes a match with annotation 0 for none.
                    "id": len(content["annotations"]) + 1,
                    "image_id": number + 1,
                    "category_id": obj.label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": obj.area,
                    "iscrowd": 0,
                }
            )
    return content
