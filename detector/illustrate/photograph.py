"""The operators on the map of a picture."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor

from detector.illustrate.anatomy import KINDS, TITLES, dissect
from detector.illustrate.panels import heading, outline
from detector.plots.figure import INK, new_figure, save


def draw_photograph(
    image: Tensor,
    feature: Tensor,
    box: tuple[float, float, float, float],
    bins: tuple[int, int],
    sampling_ratio: int,
    out: Path,
    map_name: str,
) -> None:
    """A picture with a box, its map, and the pooled box of every operator.

    Args:
        image: float [3, H, W], 0..1.
        feature: Tensor[h, w], a map of all of it: its scale is that of the sizes.
        box: x1, y1, x2, y2 in pixels of the image.
        bins: output height and width.
        sampling_ratio: samples a bin and axis.
        out: path of the figure.
        map_name: what the map is, for its title.
    """
    scale = feature.shape[1] / image.shape[2]
    column = 2.2
    wide = 2.3 * column
    tall = min(wide * image.shape[1] / image.shape[2], 4.0)
    pooled_high = (column - 0.15) * bins[0] / bins[1]
    figure = new_figure(len(KINDS) * column + 0.3, tall + pooled_high + 0.85)
    total_w, total_h = figure.get_size_inches()

    def place(left: float, bottom: float, width: float, height: float) -> Axes:
        return figure.add_axes((left / total_w, bottom / total_h, width / total_w, height / total_h))

    picture, plane = (place(left, pooled_high + 0.5, wide, tall) for left in (0.15, 0.15 + 2.6 * column))
    picture.imshow(image.permute(1, 2, 0).numpy(), extent=(0, image.shape[2], image.shape[1], 0))
    outline(picture, box, "#ffffff", 2.6)
    outline(picture, box, INK, 1.2)
    heading(picture, f"image, {image.shape[2]} × {image.shape[1]}")
    height, width = feature.shape
    plane.imshow(feature.numpy(), cmap="viridis", extent=(0, width, height, 0))
    outline(plane, [scale * v for v in box], "#ffffff", 2.6)
    outline(plane, [scale * v for v in box], INK, 1.2)
    heading(plane, f"{map_name}, {width} × {height}")
    limits = float(feature.min()), float(feature.max())
    for i, kind in enumerate(KINDS):
        pooled = dissect(kind, feature, box, bins, scale, sampling_ratio).pooled
        axes = place(0.15 + i * column, 0.1, column - 0.15, pooled_high)
        axes.imshow(pooled.numpy(), cmap="viridis", vmin=limits[0], vmax=limits[1])
        heading(axes, TITLES[kind])
        axes.set(xticks=[], yticks=[])
    for axes in (picture, plane):
        axes.set(xticks=[], yticks=[], anchor="NW")
    save(figure, out)


def brightness(image: Tensor, stride: int) -> Tensor:
    """Mean brightness of every ``stride`` x ``stride`` square of ``image`` [3, H, W]: a map anybody can read."""
    grey = image.mean(0)[None, None]
    return torch.nn.functional.avg_pool2d(grey, stride)[0, 0].double()
