"""What ``scripts/illustrate.py`` does: checks the box, finds the map, draws the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector import illustrate as operators
from detector.config.defaults import default
from detector.config.results_folder import results_folder
from detector.config.schema import IllustrateConfig, ShapesConfig
from detector.data.images import read_image
from detector.data.paint import paint
from detector.data.scene import draw_objects
from detector.exceptions import ConfigError

FIGURES = {
    "operators": "operators.png",
    "bin": "bin.png",
    "matrices": "matrices.png",
    "motion": "motion.gif",
    "image": "image.png",
}
CELLS = 3.0  # how far the box of the animation moves


def illustrate(config: IllustrateConfig) -> list[Path]:
    """Draw what ``config.figure`` asks for and return the files.

    Raises:
        ConfigError: a box that is not one or leaves the map.
        DetectorError: image or checkpoint cannot be read.
    """
    wanted = list(FIGURES) if config.figure == "all" else [config.figure]
    folder = results_folder(config.output_dir, "illustrate", checkpoint=config.checkpoint)
    files = {name: folder / FIGURES[name] for name in wanted}
    height, width = pair("map_size", config.map_size)
    bins = pair("output_size", config.output_size)
    if set(wanted) - {"image"}:
        box = check_box("box", config.box, (height * config.stride, width * config.stride))
        if "motion" in wanted and box[2] + CELLS * config.stride > width * config.stride:
            raise ConfigError(
                f"box={config.box}: in figure=motion the box moves {CELLS:g} cells to the right, and "
                f"would leave the map, which is {width} cells of {config.stride} pixels wide"
            )
        arguments = (
            operators.number_map(height, width, config.seed),
            box,
            bins,
            1 / config.stride,
            config.sampling_ratio,
        )
        drawings = {
            "operators": operators.draw_side_by_side,
            "bin": operators.draw_one_bin,
            "matrices": operators.draw_matrices,
            "motion": operators.draw_motion,
        }
        for name in wanted:
            if name in drawings:
                drawings[name](*arguments, files[name])
    if "image" in wanted:
        if config.image:
            image = read_image(Path(config.image).expanduser())
            around = [0.25 * image.shape[2], 0.25 * image.shape[1], 0.75 * image.shape[2], 0.75 * image.shape[1]]
        else:
            image, around = built_in_image()
        size = image.shape[-2:]
        box = check_box("image_box", config.image_box or around, (size[0], size[1]))
        if min(size) < config.image_stride:
            raise ConfigError(f"image_stride={config.image_stride}: the image is only {size[1]} x {size[0]} pixels")
        if config.checkpoint:
            feature, name = feature_map(config.checkpoint, image, box)
        else:
            feature, name = operators.brightness(image, config.image_stride), "brightness"
        operators.draw_photograph(
            image, feature, box, (config.image_bins, config.image_bins), config.sampling_ratio, files["image"], name
        )
    return list(files.values())


def pair(key: str, value: list[int]) -> tuple[int, int]:
    """``value`` as (height, width)."""
    if len(value) != 2:
        raise ConfigError(f"{key}={value}: give two numbers, [height, width]")
    return value[0], value[1]


def check_box(key: str, box: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """``box`` if it is x1 < x2, y1 < y2 within an image of ``size`` (height, width)."""
    if len(box) == 4 and 0 <= box[0] < box[2] <= size[1] and 0 <= box[1] < box[3] <= size[0]:
        return box[0], box[1], box[2], box[3]
    raise ConfigError(
        f"{key}={box}: give [x1, y1, x2, y2] with x1 < x2 and y1 < y2 inside the image, which is "
        f"{size[1]} x {size[0]} pixels (width x height)"
    )


def built_in_image(side: int = 192) -> tuple[Tensor, list[float]]:
    """An image of the kind of the built-in data set, float32 [3, side, side], and the box of its object."""
    config = default(ShapesConfig, image_size=side, min_object=60, max_object=110, max_objects=3, difficulty=0.3)
    rng = np.random.default_rng(8)  # a cross on a dark background
    objects = draw_objects(rng, config)
    pixels = paint(rng, objects, side, config.difficulty)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, objects[0].box.tolist()


def feature_map(checkpoint: str, image: Tensor, box: tuple[float, float, float, float]) -> tuple[Tensor, str]:
    """A channel of the finest map that the detector pools from, float64 [h, w], and its name.

    The channel whose values differ most within ``box``; cells that only see padding are cut off.
    """
    from detector.models.checkpoint import load_trained_model
    from detector.models.poolers import feature_maps

    model = load_trained_model(checkpoint).model
    with torch.inference_mode():
        batch, _ = model.transform([image])
        maps = feature_maps(model, batch.tensors)
    finest = maps[model.roi_heads.box_roi_pool.featmap_names[0]][0].double()
    height, width = batch.image_sizes[0]
    scale = finest.shape[2] / batch.tensors.shape[3]
    finest = finest[:, : max(round(height * scale), 1), : max(round(width * scale), 1)]
    x1, y1, x2, y2 = (round(v * finest.shape[2] / image.shape[2]) for v in box)
    inside = finest[:, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
    channel = int(inside.flatten(1).std(1, unbiased=False).argmax())
    return finest[channel], f"channel {channel} of the finest map"
