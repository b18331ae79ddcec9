"""Operators that keep a bin's largest value and where it was: RoIPool, and RoIAlign with mode="max"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from roi_ops import maps
from roi_ops.geometry import Geometry
from roi_ops.reference import axis, rois
from roi_ops.reference.rois import Group


def max_forward(features: list[Tensor], boxes: Tensor, channels_last: bool, *geom: Any) -> tuple[Tensor, Tensor]:
    """Largest value of each bin and where it is. Of equal values the first counts; a NaN never wins.

    Returns:
        Tensor[K, C, pooled_h, pooled_w] in the features' dtype, and int32 of the same shape: for ``pool`` the
        pixel ``y * W + x`` of the map, -1 for an empty bin; for the ``align`` kinds the sample ``i_y * g_x +
        i_x`` within the bin, -1 where a void sample, which counts as 0, is the first maximum and where there
        is no sample.
    """
    geometry = Geometry(*geom)
    bins_of = _pool_bins if geometry.kind == "pool" else _align_max_bins
    values, positions = [], []
    for group in rois.groups([f.shape for f in features], boxes, geometry):
        for members, value, position in bins_of(group, features[group.level], geometry):
            values.append((members, value))
            positions.append((members, position))
    shape = (len(boxes), features[0].shape[1], geometry.pooled_h, geometry.pooled_w)
    out = rois.assemble(values, shape, features[0].dtype, boxes.device, channels_last)
    return out, rois.assemble(positions, shape, torch.int32, boxes.device, channels_last, fill=-1)


def max_gather(features: list[Tensor], argmax: Tensor, boxes: Tensor, *geom: Any) -> Tensor:
    """Values of ``features`` where ``argmax`` of :func:`max_forward` points, Tensor[K, C, pooled_h, pooled_w]."""
    geometry = Geometry(*geom)
    pieces = []
    for group in rois.groups([f.shape for f in features], boxes, geometry):
        feature = features[group.level]
        value = boxes.new_zeros(())
        for pixel, weight, _ in _maximum_taps(group, argmax, feature.shape, geometry):
            value = value + _pick(feature, group.images, pixel).to(boxes.dtype) * weight
        pieces.append((group.rois, value.permute(0, 2, 3, 1)))
    return rois.assemble(pieces, tuple(argmax.shape), features[0].dtype, boxes.device, False)


def max_backward_features(
    grad: Tensor, argmax: Tensor, boxes: Tensor, sizes: list[int], channels_last: list[bool], *geom: Any
) -> list[Tensor]:
    """Gradient of :func:`max_forward` with respect to each feature map, given that of its values.

    ``sizes`` and ``channels_last`` are what :func:`roi_ops.maps.describe` tells of the maps.
    """
    geometry, shapes = Geometry(*geom), maps.shapes(sizes)
    sums = rois.gradient_sums(shapes, boxes)
    for group in rois.groups(shapes, boxes, geometry):
        n, h, w, c = sums[group.level].shape
        by_channel = boxes.new_zeros(n, c, h * w)
        g = grad[group.rois].to(boxes.dtype)
        for pixel, weight, _ in _maximum_taps(group, argmax, shapes[group.level], geometry):
            for image in range(n):  # along one dimension scatter_add_ adds in order: bitwise repeatable
                mine = group.images == image
                index, value = (t[mine].transpose(0, 1).flatten(1) for t in (pixel, weight * g))
                by_channel[image].scatter_add_(1, index, value)
        sums[group.level] += by_channel.unflatten(2, (h, w)).permute(0, 2, 3, 1)
    return rois.as_gradients(sums, grad.dtype, channels_last)


def max_backward_boxes(grad: Tensor, argmax: Tensor, features: list[Tensor], boxes: Tensor, *geom: Any) -> Tensor:
    """Gradient of :func:`max_forward` (align kinds) with respect to ``boxes``, Tensor[K, 5]."""
    geometry = Geometry(*geom)
    result = torch.zeros_like(boxes)
    for group in rois.groups([f.shape for f in features], boxes, geometry):
        feature, g = features[group.level], grad[group.rois].to(boxes.dtype)
        totals = [boxes.new_zeros(len(group.rois)) for _ in range(4)]
        for pixel, _, slopes in _maximum_taps(group, argmax, feature.shape, geometry):
            value = _pick(feature, group.images, pixel).to(boxes.dtype) * g
            totals = [total + (value * slope).sum((1, 2, 3)) for total, slope in zip(totals, slopes, strict=True)]
        y_start, y_extent, x_start, x_extent = totals
        gradient = rois.box_gradient((y_start, y_extent), (x_start, x_extent), boxes[group.rois], group, geometry)
        result = result.index_add(0, group.rois, gradient)
    return result


# -------------------------------------------------------------------------------------- the two searches
def _pool_bins(group: Group, feature: Tensor, geometry: Geometry) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """RoIPool by parts: rois, values [k, ph, pw, C], argmax [k, ph, pw, C]."""
    channels, height, width = feature.shape[1:]
    y_low, y_high = axis.pool_ranges(*group.y, geometry.pooled_h, height)
    x_low, x_high = axis.pool_ranges(*group.x, geometry.pooled_w, width)
    rows, columns = ((high - low).amax(1).clamp(min=1) for low, high in ((y_low, y_high), (x_low, x_high)))
    last, lowest = feature.permute(0, 2, 3, 1), torch.finfo(feature.dtype).min
    for part, h, w in rois.parts(rows, columns, channels):
        values, positions = [], []
        for p in range(geometry.pooled_h):
            y = y_low[part, p, None] + torch.arange(h, device=feature.device)
            for q in range(geometry.pooled_w):
                x = x_low[part, q, None] + torch.arange(w, device=feature.device)
                inside = (y < y_high[part, p, None])[:, :, None] & (x < x_high[part, q, None])[:, None, :]
                at_y, at_x = y.clamp(max=height - 1), x.clamp(max=width - 1)
                pixels = last[group.images[part, None, None], at_y[:, :, None], at_x[:, None, :]]
                best, index = _largest(pixels.to(group.x[0].dtype), inside, lowest)
                position = y.gather(1, index // w) * width + x.gather(1, index % w)
                filled = inside.flatten(1).any(1)[:, None]
                values.append(torch.where(filled, best, 0))
                positions.append(torch.where(filled & (best > lowest), position, -1).to(torch.int32))
        yield group.rois[part], *_stack_bins(values, positions, geometry)


def _align_max_bins(group: Group, feature: Tensor, geometry: Geometry) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """RoIAlign with mode="max" by parts: rois, values [k, ph, pw, C], argmax [k, ph, pw, C]."""
    channels, height, width = feature.shape[1:]
    y = axis.samples(*group.y, geometry.pooled_h, height, geometry.sampling_ratio)
    x = axis.samples(*group.x, geometry.pooled_w, width, geometry.sampling_ratio)
    rows, columns = (torch.full_like(group.rois, s.number.shape[2]) for s in (y, x))
    lowest = torch.finfo(feature.dtype).min
    void_y, void_x = _first_void(y), _first_void(x)
    for part, _, _ in rois.parts(rows, columns, 4 * channels):
        values, positions = [], []
        per_row = x.per_bin[part]
        empty = ((y.per_bin[part] <= 0) | (per_row <= 0))[:, None]
        for p in range(geometry.pooled_h):
            for q in range(geometry.pooled_w):
                valid = y.valid[part, p, :, None] & x.valid[part, q, None, :]
                interpolated = _interpolate(feature, group.images[part], y.neighbours(part, p), x.neighbours(part, q))
                best, index = _largest(interpolated, valid, lowest)
                number = (y.number[part, p, :, None] * per_row[:, None, None] + x.number[part, q, None, :]).flatten(1)
                number = number.gather(1, index) if number.shape[1] else index
                number = torch.where(best > lowest, number, -1)
                vy, vx = void_y[part, p], void_x[part, q]
                first_void = torch.where((vy == 0) | (vx == 0), 0, torch.minimum(vy * per_row, vx))[:, None]
                loses = torch.isfinite(first_void) & ((best < 0) | ((best == 0) & (number > first_void)))
                values.append(torch.where(loses | empty, 0, best))
                positions.append(torch.where(loses | empty, -1, number).to(torch.int32))
        yield group.rois[part], *_stack_bins(values, positions, geometry)


Neighbours = tuple[Tensor, Tensor, Tensor]


def _largest(values: Tensor, valid: Tensor, lowest: float) -> tuple[Tensor, Tensor]:
    """Largest valid value of each RoI and channel, and its first place in row-major order.

    Args:
        values: Tensor[k, rows, columns, C].
        valid: Tensor[k, rows, columns] bool; others count as ``lowest``, as does a NaN.

    Returns:
        Tensor[k, C] values and Tensor[k, C] int64 places ``row * columns + column``.
    """
    k, rows, columns, channels = values.shape
    if rows * columns == 0:
        return values.new_full((k, channels), lowest), torch.zeros(k, channels, dtype=torch.int64, device=values.device)
    best, index = torch.where(valid[..., None] & (values > lowest), values, lowest).flatten(1, 2).max(1)
    return best, index


def _stack_bins(values: list[Tensor], positions: list[Tensor], geometry: Geometry) -> tuple[Tensor, Tensor]:
    bins = (geometry.pooled_h, geometry.pooled_w)
    return torch.stack(values, 1).unflatten(1, bins), torch.stack(positions, 1).unflatten(1, bins)


def _interpolate(feature: Tensor, images: Tensor, y: Neighbours, x: Neighbours) -> Tensor:
    """Interpolated values of all samples of a bin, Tensor[k, samples y, samples x, C]."""
    last, images = feature.permute(0, 2, 3, 1), images[:, None, None]
    (y_low, y_high, fy), (x_low, x_high, fx) = y, x
    fy, fx = fy[:, :, None, None], fx[:, None, :, None]
    total = fy.new_zeros(())
    for row, wy in ((y_low, 1 - fy), (y_high, fy)):
        for column, wx in ((x_low, 1 - fx), (x_high, fx)):
            pixels = last[images, row[:, :, None], column[:, None, :]]
            total = total + pixels.to(fy.dtype) * (wy * wx)
    return total


def _first_void(s: axis.Samples) -> Tensor:
    """Number of the first void sample of each bin along one axis, float Tensor[K, P]; infinity if none."""
    # The valid samples of a bin are consecutive, so the first void one is number 0 or follows the last valid.
    some = s.valid.any(2) if s.valid.shape[2] else s.valid.new_zeros(s.valid.shape[:2])
    count = s.per_bin[:, None].to(torch.float64)
    if not s.valid.shape[2]:
        return torch.where(count.expand(some.shape) > 0, 0.0, float("inf"))
    first = torch.where(s.valid, s.number, torch.iinfo(torch.int64).max).amin(2)
    after = torch.where(s.valid, s.number, -1).amax(2) + 1
    void = torch.where(first > 0, 0.0, torch.where(after < count, after.to(torch.float64), float("inf")))
    return torch.where(some, void, torch.where(count > 0, 0.0, float("inf")))


# ------------------------------------------------------------------------- where the maxima were, again
def _maximum_taps(
    group: Group, argmax: Tensor, shape: Sequence[int], geometry: Geometry
) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]]:
    """Pixels (flat index) that each maximum was made of, their weights and the weights' derivatives.

    All of shape [k, C, pooled_h, pooled_w]; derivatives with respect to y start, y extent, x start, x extent.
    """
    position = argmax[group.rois].to(torch.int64)
    there = (position >= 0).to(group.x[0].dtype)
    position = position.clamp(min=0)
    height, width = shape[2:]
    if geometry.kind == "pool":
        yield position, there, (torch.zeros_like(there),) * 4
        return
    count_y, count_x = (
        axis.sample_count(extent, bins, geometry.sampling_ratio)
        for (_, extent), bins in ((group.y, geometry.pooled_h), (group.x, geometry.pooled_w))
    )
    per_row = count_x.clamp(min=1)[:, None, None, None]
    # [k, C, ph, pw] -> samples_at wants [k, bins, samples]
    number_y = (position // per_row).transpose(1, 2).flatten(2)
    number_x = (position % per_row).permute(0, 3, 1, 2).flatten(2)
    c, ph, pw = position.shape[1:]
    y = axis.samples_at(*group.y, number_y, ph, count_y, height)
    x = axis.samples_at(*group.x, number_x, pw, count_x, width)

    def from_y(t: Tensor) -> Tensor:
        return t.unflatten(2, (c, pw)).transpose(1, 2)

    def from_x(t: Tensor) -> Tensor:
        return t.unflatten(2, (c, ph)).permute(0, 2, 3, 1)

    for y_pixel, y_weight, y_slope in ((y.low, 1 - y.frac, -y.slope), (y.high, y.frac, y.slope)):
        for x_pixel, x_weight, x_slope in ((x.low, 1 - x.frac, -x.slope), (x.high, x.frac, x.slope)):
            wy, wx = from_y(y_weight), from_x(x_weight) * there
            sy, sx = from_y(y_slope), from_x(x_slope) * there
            slopes = (sy * wx, sy * from_y(y.d_extent) * wx, wy * sx, wy * sx * from_x(x.d_extent))
            yield from_y(y_pixel) * width + from_x(x_pixel), wy * wx, slopes


def _pick(feature: Tensor, images: Tensor, pixel: Tensor) -> Tensor:
    """``feature[image of RoI k, c, pixel[k, c, ...]]``, Tensor[k, C, ph, pw]."""
    channel = torch.arange(feature.shape[1], device=feature.device)[None, :, None, None]
    y, x = pixel // feature.shape[3], pixel % feature.shape[3]
    return feature[images[:, None, None, None], channel, y, x]
