"""From the configuration of ``scripts/illustrate.py`` to its figures: checks the boxes, chooses the maps, draws."""

from __future__ import annotations

from pathlib import Path

from detector.config.results_folder import results_folder
from detector.config.schema import IllustrateConfig
from detector.data.images import SHOWN, read_image
from detector.exceptions import ConfigError
from detector.illustrate.anatomy import Box, Example
from detector.illustrate.figures import draw_matrices, draw_one_bin, draw_side_by_side, number_map
from detector.illustrate.motion import CELLS, draw_motion
from detector.illustrate.photograph import brightness, built_in_image, draw_photograph, feature_map

ON_NUMBERS = {
    "operators": (draw_side_by_side, "operators.png"),
    "bin": (draw_one_bin, "bin.png"),
    "matrices": (draw_matrices, "matrices.png"),
    "motion": (draw_motion, "motion.gif"),
}
"""The figures on a map of numbers: how each is drawn, and its file."""


def illustrate(config: IllustrateConfig) -> list[Path]:
    """Draw the figures that ``config.figure`` asks for and return the files.

    Raises:
        ConfigError: a box that is not one or leaves the map.
        DetectorError: image or checkpoint cannot be read.
    """
    folder = results_folder(config.output_dir, "illustrate", checkpoint=config.checkpoint)
    files = []
    wanted = [name for name in ON_NUMBERS if config.figure in ("all", name)]
    if wanted:
        example = example_on_numbers(config, "motion" in wanted)
        for name in wanted:
            draw, file = ON_NUMBERS[name]
            draw(example, folder / file)
            files.append(folder / file)
    if config.figure in ("all", "image"):
        files.append(folder / "image.png")
        illustrate_image(config, files[-1])
    return files


def example_on_numbers(config: IllustrateConfig, is_moved: bool) -> Example:
    """The box of the configuration on a map of numbers; ``is_moved``: it has to stay on the map when it moves."""
    height, width = pair("map_size", config.map_size)
    box = check_box("box", config.box, (height * config.stride, width * config.stride))
    if is_moved and box[2] + CELLS * config.stride > width * config.stride:
        raise ConfigError(
            f"box={config.box}: in figure=motion the box moves {CELLS:g} cells to the right, and "
            f"would leave the map, which is {width} cells of {config.stride} pixels wide"
        )
    bins = pair("output_size", config.output_size)
    return Example(number_map(height, width, config.seed), box, bins, 1 / config.stride, config.sampling_ratio)


def illustrate_image(config: IllustrateConfig, out: Path) -> None:
    """The figure of an image: the user's or one that is drawn here, with a detector's map or its brightness."""
    if config.image:
        image = read_image(Path(config.image).expanduser(), reading=SHOWN)
        middle = [0.25 * image.shape[2], 0.25 * image.shape[1], 0.75 * image.shape[2], 0.75 * image.shape[1]]
    else:
        image, middle = built_in_image()
    height, width = image.shape[-2:]
    box = check_box("image_box", config.image_box or middle, (height, width))
    if min(height, width) < config.image_stride:
        raise ConfigError(f"image_stride={config.image_stride}: the image is only {width} x {height} pixels")
    if config.checkpoint:
        feature, name = feature_map(config.checkpoint, image, box, config.trust)
    else:
        feature, name = brightness(image, config.image_stride), "brightness"
    bins = (config.image_bins, config.image_bins)
    draw_photograph(Example(feature, box, bins, feature.shape[1] / width, config.sampling_ratio), image, name, out)


def pair(key: str, value: list[int]) -> tuple[int, int]:
    """``value`` as (height, width)."""
    if len(value) != 2:
        raise ConfigError(f"{key}={value}: give two numbers, [height, width]")
    return value[0], value[1]


def check_box(key: str, box: list[float], size: tuple[int, int]) -> Box:
    """``box`` if it is x1 < x2, y1 < y2 within an image of ``size`` (height, width)."""
    if len(box) == 4 and 0 <= box[0] < box[2] <= size[1] and 0 <= box[1] < box[3] <= size[0]:
        return box[0], box[1], box[2], box[3]
    raise ConfigError(
        f"{key}={box}: give [x1, y1, x2, y2] with x1 < x2 and y1 < y2 inside the image, which is "
        f"{size[1]} x {size[0]} pixels (width x height)"
    )
