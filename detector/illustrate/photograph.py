"""The operators on the map of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector.config.defaults import default
from detector.config.schema import ShapesConfig
from detector.data.paint import paint
from detector.data.scene import draw_objects
from detector.illustrate.anatomy import KINDS, TITLES, Box, Example
from detector.illustrate.panels import heading
from detector.models.checkpoint import load_trained_model
from detector.models.poolers import feature_maps
from detector.plots.figure import INK, add_axes, new_figure, save
from detector.plots.grid import outline


def draw_photograph(example: Example, image: Tensor, map_name: str, out: Path) -> None:
    """A picture with a box, its map, and the pooled box of every operator.

    Args:
        example: on a map that covers the whole image.
        image: float [3, H, W], 0..1.
        map_name: what the map is, for its title.
        out: path of the figure.
    """
    column = 2.2
    wide = 2.3 * column
    tall = min(wide * image.shape[1] / image.shape[2], 4.0)
    pooled_high = (column - 0.15) * example.bins[0] / example.bins[1]
    figure = new_figure(len(KINDS) * column + 0.3, tall + pooled_high + 0.85)
    feature, left = example.feature, 0.15
    for pixels, name, scale in ((image.permute(1, 2, 0), "image", 1.0), (feature, map_name, example.scale)):
        height, width = pixels.shape[:2]
        axes = add_axes(figure, left, pooled_high + 0.5, wide, tall)
        axes.imshow(pixels.numpy(), cmap="viridis", extent=(0, width, height, 0))
        for color, thick in (("#ffffff", 2.6), (INK, 1.2)):
            axes.add_patch(outline([scale * v for v in example.box], edgecolor=color, linewidth=thick))
        heading(axes, f"{name}, {width} × {height}")
        axes.set(xticks=[], yticks=[], anchor="NW")
        left += 2.6 * column
    for i, kind in enumerate(KINDS):
        axes = add_axes(figure, 0.15 + i * column, 0.1, column - 0.15, pooled_high)
        pooled = example.dissect(kind).pooled.numpy()
        axes.imshow(pooled, cmap="viridis", vmin=float(feature.min()), vmax=float(feature.max()))
        heading(axes, TITLES[kind])
        axes.set(xticks=[], yticks=[])
    save(figure, out)


def brightness(image: Tensor, stride: int) -> Tensor:
    """Mean brightness of every ``stride`` x ``stride`` square of ``image`` [3, H, W]: a map anybody can read."""
    grey = image.mean(0)[None, None]
    return torch.nn.functional.avg_pool2d(grey, stride)[0, 0].double()


def built_in_image(side: int = 192) -> tuple[Tensor, list[float]]:
    """An image like those of the built-in data set, float32 [3, side, side], and the box of an object in it."""
    config = default(ShapesConfig, image_size=side, min_object=60, max_object=110, max_objects=3, difficulty=0.3)
    rng = np.random.default_rng(8)  # a cross on a dark background
    objects = draw_objects(rng, config)
    pixels = paint(rng, objects, side, config.difficulty)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, objects[0].box.tolist()


def feature_map(file: str, image: Tensor, box: Box, trust: str = "") -> tuple[Tensor, str]:
    """A channel of the finest map that the detector in a checkpoint pools from, float64 [h, w], and its name.

    It is the channel whose values differ most within ``box``; cells that only see padding are cut off.
    """
    model = load_trained_model(file, trust=trust).model
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
