"""Linear operators, ``out = A_y F A_x^T`` for each RoI and channel: RoIAlign and PrRoIPool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from roi_ops import maps
from roi_ops.geometry import Geometry
from roi_ops.reference import axis, rois
from roi_ops.reference.rois import Group


def linear_forward(features: list[Tensor], boxes: Tensor, channels_last: bool, *geom: Any) -> Tensor:
    """Pooled features, Tensor[K, C, pooled_h, pooled_w] in the features' dtype."""
    geometry = Geometry(*geom)
    shapes = [f.shape for f in features]
    pieces = []
    for group in rois.groups(shapes, boxes, geometry):
        for part, window in _windows(group, shapes[group.level], geometry):
            crop = window.crop(features[group.level], part.images).to(boxes.dtype)
            pieces.append((part.rois, _pool(window, crop)))
    shape = (len(boxes), shapes[0][1], geometry.pooled_h, geometry.pooled_w)
    return rois.assemble(pieces, shape, features[0].dtype, boxes.device, channels_last)


def linear_backward_features(
    grad: Tensor, boxes: Tensor, sizes: list[int], channels_last: list[bool], *geom: Any
) -> list[Tensor]:
    """Gradient of :func:`linear_forward` with respect to each feature map, given that of its result.

    ``sizes`` and ``channels_last`` are what :func:`roi_ops.maps.describe` tells of the maps.
    """
    geometry, shapes = Geometry(*geom), maps.shapes(sizes)
    sums = rois.gradient_sums(shapes, boxes)
    for group in rois.groups(shapes, boxes, geometry):
        for part, window in _windows(group, shapes[group.level], geometry):
            g = grad[part.rois].permute(0, 2, 3, 1).to(boxes.dtype)  # [k, pooled_h, pooled_w, C]
            crop = _spread(window, g)
            h, w = crop.shape[1:3]
            # One RoI after another: the sums always round alike, which those of an atomic scatter do not.
            corners = zip(part.images.tolist(), window.top.tolist(), window.left.tolist(), strict=True)
            for i, (image, top, left) in enumerate(corners):
                sums[group.level][image, top : top + h, left : left + w] += crop[i]
    return rois.as_gradients(sums, grad.dtype, channels_last)


def linear_backward_boxes(grad: Tensor, features: list[Tensor], boxes: Tensor, *geom: Any) -> Tensor:
    """Gradient of :func:`linear_forward` with respect to ``boxes``, Tensor[K, 5]; column 0 is zero."""
    geometry, shapes = Geometry(*geom), [f.shape for f in features]
    result = torch.zeros_like(boxes)
    for group in rois.groups(shapes, boxes, geometry):
        for part, window in _windows(group, shapes[group.level], geometry):
            crop = window.crop(features[group.level], part.images).to(boxes.dtype)
            g = grad[part.rois].permute(0, 2, 3, 1).to(boxes.dtype)
            rows = window.x.weight[:, None] @ crop  # F A_x^T: [k, h, pooled_w, C]
            by_row = g.flatten(2) @ rows.flatten(2).transpose(1, 2)  # [k, pooled_h, h]
            columns = (window.y.weight.transpose(1, 2) @ g.flatten(2)).unflatten(2, g.shape[2:])  # A_y^T G
            columns = columns.transpose(1, 2).flatten(2)  # [k, pooled_w, h * C]
            by_column = columns @ crop.transpose(1, 2).flatten(2).transpose(1, 2)  # [k, pooled_w, w]
            y_start, y_extent, x_start, x_extent = (
                (table * product).sum((1, 2))
                for table, product in (
                    (window.y.d_start, by_row),
                    (window.y.d_extent, by_row),
                    (window.x.d_start, by_column),
                    (window.x.d_extent, by_column),
                )
            )
            gradient = rois.box_gradient((y_start, y_extent), (x_start, x_extent), boxes[part.rois], part, geometry)
            result = result.index_add(0, part.rois, gradient)
    return result


def _pool(window: Window, crop: Tensor) -> Tensor:
    """``A_y F A_x^T`` for windows [k, h, w, C], Tensor[k, pooled_h, pooled_w, C]."""

    def product(y: Tensor, x: Tensor, f: Tensor) -> Tensor:
        rows = x[:, None] @ f  # [k, h, pooled_w, C]
        return (y @ rows.flatten(2)).unflatten(2, rows.shape[2:])

    return _touching(product, window, crop)


def _spread(window: Window, grad: Tensor) -> Tensor:
    """``A_y^T G A_x`` for gradients [k, pooled_h, pooled_w, C], Tensor[k, h, w, C]."""

    def product(y: Tensor, x: Tensor, g: Tensor) -> Tensor:
        rows = y.transpose(1, 2) @ g.flatten(2)
        return x.transpose(1, 2)[:, None] @ rows.unflatten(2, g.shape[2:])

    return _touching(product, window, grad)


def _touching(product: Callable[[Tensor, Tensor, Tensor], Tensor], window: Window, values: Tensor) -> Tensor:
    """``product`` of the window's weights and ``values``, where only what has a weight counts.

    A matrix product multiplies every pixel of the window with every bin's weight, which is mostly zero: an infinite
    or NaN value would reach what it does not touch. Such values are left out and added where they belong.
    """
    finite = values.isfinite()
    if finite.all():
        return product(window.y.weight, window.x.weight, values)
    out = product(window.y.weight, window.x.weight, torch.where(finite, values, 0))
    y, x = ((axis_weights.weight > 0).to(values.dtype) for axis_weights in (window.y, window.x))
    for value in (float("inf"), float("-inf"), float("nan")):
        where = values.isnan() if value != value else values == value
        out = out + torch.where(product(y, x, where.to(values.dtype)) > 0, value, 0.0)
    return out


class Window(NamedTuple):
    """The smallest rectangle of a map that holds every pixel some RoIs touch, and the weights on it."""

    top: Tensor
    left: Tensor
    y: axis.AxisWeights
    x: axis.AxisWeights

    def crop(self, feature: Tensor, images: Tensor) -> Tensor:
        """Tensor[k, h, w, C]."""
        height, width = self.y.weight.shape[2], self.x.weight.shape[2]
        return rois.crop(feature, images, self.top, self.left, height, width)


def _windows(group: Group, shape: Sequence[int], geometry: Geometry) -> Iterator[tuple[Group, Window]]:
    channels, height, width = shape[1:]
    y, top, heights = _axis(*group.y, geometry.pooled_h, height, geometry)
    x, left, widths = _axis(*group.x, geometry.pooled_w, width, geometry)
    for part, h, w in rois.parts(heights, widths, channels):
        t, l = top[part].clamp(max=height - h), left[part].clamp(max=width - w)  # noqa: E741
        yield group.select(part), Window(t, l, _cut(y, part, t, h), _cut(x, part, l, w))


def _axis(start: Tensor, extent: Tensor, bins: int, length: int, geometry: Geometry) -> tuple[Any, Tensor, Tensor]:
    """Weights along one axis, and the first pixel and the number of pixels that each RoI touches."""
    if geometry.kind == "prroi":
        weights = axis.prroi_weights(start, extent, bins, length)
    else:
        weights = axis.align_weights(start, extent, bins, length, geometry.sampling_ratio)
    touched = torch.stack([t.detach() != 0 for t in weights]).any(0).any(1)
    first = touched.to(torch.uint8).argmax(1)
    last = length - 1 - touched.to(torch.uint8).flip(1).argmax(1)
    return weights, first, torch.where(touched.any(1), last - first + 1, 1)


def _cut(weights: axis.AxisWeights, positions: Tensor, origin: Tensor, length: int) -> axis.AxisWeights:
    index = (origin[:, None] + torch.arange(length, device=origin.device))[:, None]
    index = index.expand(-1, weights.weight.shape[1], -1)
    return axis.AxisWeights(*(table[positions].gather(2, index) for table in weights))
