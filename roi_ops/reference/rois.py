"""What all reference operators share: RoIs in groups of one level, cut into parts; the shapes of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from roi_ops.geometry import Geometry
from roi_ops.levels import assign_levels
from roi_ops.maps import memory_format

# Elements of the feature crops held at a time: 64 MB of float32.
CROP_BUDGET = 1 << 24


class Group(NamedTuple):
    """RoIs of one level that are worked on together.

    Attributes:
        level: index of the feature map.
        rois: Tensor[k] int64, rows of ``boxes``.
        images: Tensor[k] int64.
        y, x: start and extent on the map, Tensor[k] each; for ``pool`` start and end.
    """

    level: int
    rois: Tensor
    images: Tensor
    y: tuple[Tensor, Tensor]
    x: tuple[Tensor, Tensor]

    def select(self, part: Tensor) -> Group:
        """The RoIs at the given positions of the group."""
        y, x = ((first[part], second[part]) for first, second in (self.y, self.x))
        return Group(self.level, self.rois[part], self.images[part], y, x)


def groups(shapes: Sequence[Sequence[int]], boxes: Tensor, geometry: Geometry) -> Iterator[Group]:
    """RoIs by level, without those that pool to zero: a non-finite coordinate, no level, an unknown image.

    Args:
        shapes: (N, C, H_l, W_l) of each feature map.
        boxes: Tensor[K, 5].
        geometry: of the call.

    Raises:
        ValueError: on the CPU, an image index that does not exist. (On CUDA, to find out would cost a sync.)
    """
    count, channels = shapes[0][:2]
    check_image_indices(boxes, count)
    if count == 0 or channels == 0:
        return
    images = boxes[:, 0].detach().nan_to_num(-1).to(torch.int64)
    usable = torch.isfinite(boxes).all(1) & (images >= 0) & (images < count)
    levels = torch.zeros_like(images)
    if len(shapes) > 1:
        levels = assign_levels(
            boxes[:, 1:].detach(), geometry.k_min, geometry.k_max, geometry.canonical_scale, geometry.canonical_level
        )
    for level, (_, _, height, width) in enumerate(shapes):
        rois = torch.where(usable & (levels == level))[0]
        if len(rois) and height and width:
            corners = boxes[rois, 1:] * geometry.scales[level]
            if geometry.aligned:
                corners = corners - 0.5
            x1, y1, x2, y2 = corners.unbind(1)
            if geometry.kind == "pool":
                y, x = (y1, y2), (x1, x2)
            else:
                y, x = ((low, _extent(high - low, geometry)) for low, high in ((y1, y2), (x1, x2)))
            group = Group(level, rois, images[rois], y, x)
            # Finite boxes may overflow on the map: they pool to zero as boxes that are not finite do.
            overflow = [*y, *x, y2 - y1, x2 - x1]
            finite = torch.stack(overflow).detach().isfinite().all(0)
            yield group if finite.all() else group.select(torch.where(finite)[0])


def smallest_extent(geometry: Geometry) -> float:
    """Box sizes on the map are at least this many pixels; minus infinity where they are taken as they are."""
    if geometry.aligned:
        return float("-inf")
    return 0.0 if geometry.kind == "prroi" else 1.0


def _extent(size: Tensor, geometry: Geometry) -> Tensor:
    if geometry.aligned:
        return size
    # Not ``clamp``: its derivative at the limit is 1 before PyTorch 2.14, and ``box_gradient`` says 0.
    least = smallest_extent(geometry)
    return torch.where(size > least, size, least)


def check_image_indices(boxes: Tensor, images: int) -> None:
    """Raise ValueError for an image index of a CPU tensor that is not one of 0 .. images - 1."""
    if boxes.device.type != "cpu" or not len(boxes):
        return
    index = boxes[:, 0].detach().trunc()
    bad = ~((index >= 0) & (index < images))
    if bad.any():
        row = int(bad.nonzero()[0])
        there = f"outside 0..{images - 1}" if images else "of a batch without images"
        raise ValueError(f"image index {boxes[row, 0].item():g} of box {row} is {there}")


def box_gradient(
    y: tuple[Tensor, Tensor], x: tuple[Tensor, Tensor], boxes: Tensor, group: Group, geometry: Geometry
) -> Tensor:
    """From gradients with respect to (start, extent) of each axis on the map to those of the box.

    Args:
        y, x: Tensor[k] each.
        boxes: Tensor[k, 5], those of ``group``.

    Returns:
        Tensor[k, 5].
    """
    (y_start, y_extent), (x_start, x_extent) = y, x
    scale = geometry.scales[group.level]
    corners = boxes[:, 1:].detach() * scale
    # A size that was clamped does not follow the box.
    free = (corners[:, 2:] - corners[:, :2] > smallest_extent(geometry)).to(boxes.dtype)
    x_extent, y_extent = x_extent * free[:, 0], y_extent * free[:, 1]
    zero = torch.zeros_like(x_start)
    return torch.stack([zero, x_start - x_extent, y_start - y_extent, x_extent, y_extent], 1) * scale


def parts(heights: Tensor, widths: Tensor, per_pixel: int) -> Iterator[tuple[Tensor, int, int]]:
    """RoIs of similar window size together, so that little is cropped for nothing and memory is bounded.

    Args:
        heights, widths: Tensor[k] int64, size of each RoI's window in pixels.
        per_pixel: elements held for a pixel of a window.

    Yields:
        positions Tensor[n] int64, and the height and width that hold all their windows.
    """
    order = torch.argsort(heights * widths, stable=True)
    h_sorted, w_sorted = heights[order].tolist(), widths[order].tolist()
    begin = 0
    while begin < len(order):
        end, h, w = begin, 0, 0
        while end < len(order):
            new_h, new_w = max(h, h_sorted[end]), max(w, w_sorted[end])
            if end > begin and (end - begin + 1) * new_h * new_w * per_pixel > CROP_BUDGET:
                break
            if end >= begin + 16 and new_h * new_w > 2 * h_sorted[end] * w_sorted[end]:
                break  # the common window would be mostly padding
            end, h, w = end + 1, new_h, new_w
        yield order[begin:end], h, w
        begin = end


def crop(feature: Tensor, images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """One window of ``feature`` [N, C, H, W] for each RoI, Tensor[k, height, width, C]."""
    rows = top[:, None] + torch.arange(height, device=top.device)
    columns = left[:, None] + torch.arange(width, device=left.device)
    return feature.permute(0, 2, 3, 1)[images[:, None, None], rows[:, :, None], columns[:, None, :]]


def assemble(
    pieces: list[tuple[Tensor, Tensor]],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    channels_last: bool,
    fill: int = 0,
) -> Tensor:
    """Put pieces (rois, values [k, ph, pw, C]) into the result [K, C, ph, pw]; other rows hold ``fill``."""
    k, c, ph, pw = shape
    out = torch.full((k, ph, pw, c), fill, dtype=dtype, device=device)
    if pieces:
        rois, values = (torch.cat(column) for column in zip(*pieces, strict=True))
        out = out.index_copy(0, rois, values.to(dtype))
    return out.permute(0, 3, 1, 2).contiguous(memory_format=memory_format(channels_last))


def gradient_sums(shapes: Sequence[Sequence[int]], boxes: Tensor) -> list[Tensor]:
    """Zeros [N, H, W, C] for each feature map, to add gradients to, in the dtype and on the device of ``boxes``."""
    return [boxes.new_zeros(n, h, w, c) for n, c, h, w in shapes]


def as_gradients(sums: list[Tensor], dtype: torch.dtype, channels_last: Sequence[bool]) -> list[Tensor]:
    """Gradients [N, H, W, C] as [N, C, H, W] of ``dtype``, in the memory format of each map's gradient."""
    return [
        s.permute(0, 3, 1, 2).to(dtype).contiguous(memory_format=memory_format(last))
        for s, last in zip(sums, channels_last, strict=True)
    ]
