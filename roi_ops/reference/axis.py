"""One-dimensional weights: how a row of the pooling matrix is filled. Pure PyTorch, the reference.

Every linear RoI operator is ``out = A_y F A_x^T`` with one sparse matrix per axis; the operators differ only
in how row p of A follows from the box's start s, extent e and the number of bins P on a map of length L.
``roi_ops/include`` holds the same functions in C++ for the compiled backends.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from roi_ops.geometry import MAX_SAMPLES


class AxisWeights(NamedTuple):
    """``weight`` is A, ``d_start`` dA/ds and ``d_extent`` dA/de; each Tensor[K, P, L]."""

    weight: Tensor
    d_start: Tensor
    d_extent: Tensor


class Samples(NamedTuple):
    """Sample positions of RoIAlign along one axis and their two neighbours; each Tensor[K, P, S].

    Attributes:
        number: the sample's number j within its bin, int64.
        exists: j is one of the bin's g samples.
        valid: it exists and lies in [-1, L]; void otherwise.
        low, high: neighbouring pixels, int64.
        frac: weight of ``high``; ``low`` has 1 - frac.
        slope: derivative of ``frac`` with respect to the position, 0 or 1.
        d_extent: derivative of the position with respect to the extent (that to the start is 1).
        per_bin: Tensor[K] int64, g, the samples of a bin.
    """

    number: Tensor
    exists: Tensor
    valid: Tensor
    low: Tensor
    high: Tensor
    frac: Tensor
    slope: Tensor
    d_extent: Tensor
    per_bin: Tensor

    def neighbours(self, part: Tensor, bin: int) -> tuple[Tensor, Tensor, Tensor]:
        """``low``, ``high`` and ``frac`` of one bin of some RoIs, Tensor[k, S] each."""
        return self.low[part, bin], self.high[part, bin], self.frac[part, bin]


def sample_count(extent: Tensor, bins: int, sampling_ratio: int) -> Tensor:
    """Samples a bin, Tensor[K] int64: ``sampling_ratio``, or ``ceil(extent / bins)`` when that is <= 0."""
    if sampling_ratio > 0:
        return torch.full_like(extent, sampling_ratio, dtype=torch.int64)
    return torch.ceil(extent / bins).clamp(0, MAX_SAMPLES).to(torch.int64)


def samples_at(start: Tensor, extent: Tensor, number: Tensor, bins: int, count: Tensor, length: int) -> Samples:
    """The samples with the given numbers.

    Args:
        start, extent: Tensor[K], of the box on the map, in pixels of the map.
        number: Tensor[K, P or 1, S] int64; bin p is its second index.
        bins: P.
        count: Tensor[K] int64, samples a bin.
        length: L, pixels of the map.
    """
    size = (extent / bins)[:, None, None]
    p = torch.arange(bins, device=start.device)[None, :, None]
    g = count.clamp(min=1).to(start.dtype)[:, None, None]
    # The order of these roundings is torchvision's: samples on the very border of the map count or do not.
    position = (start[:, None, None] + p * size) + (number + 0.5) * size / g
    number = number.expand(position.shape)
    exists = (number >= 0) & (number < count[:, None, None])
    valid = exists & (position >= -1) & (position <= length)
    # Not ``clamp``: its derivative at 0 is 1 before PyTorch 2.14, and ``slope`` says 0.
    inside = torch.where(valid & (position > 0), position, 0)
    low = inside.detach().to(torch.int64).clamp(max=max(length - 1, 0))
    high = (low + 1).clamp(max=max(length - 1, 0))
    between = low < high
    frac = torch.where(between, inside - low, 0)
    slope = (valid & between & (position > 0)).to(start.dtype)
    return Samples(number, exists, valid, low, high, frac, slope, (p + (number + 0.5) / g) / bins, count)


def samples(start: Tensor, extent: Tensor, bins: int, length: int, sampling_ratio: int) -> Samples:
    """All samples of RoIAlign that can lie on the map: those further out are void whatever they are."""
    count = sample_count(extent, bins, sampling_ratio)
    first = torch.zeros_like(count)[:, None].expand(-1, bins)
    most = sampling_ratio
    if sampling_ratio <= 0:
        with torch.no_grad():  # a huge box has millions of samples, but no more than about 2 L on the map
            size = (extent / bins)[:, None]
            step = (size / count[:, None].clamp(min=1)).clamp(min=torch.finfo(start.dtype).tiny)
            origin = start[:, None] + torch.arange(bins, device=start.device) * size
            limit = count[:, None].to(start.dtype)
            first = (torch.floor((-1 - origin) / step - 0.5) - 1).clamp(min=torch.zeros_like(limit), max=limit)
            last = (torch.ceil((length - origin) / step - 0.5) + 2).clamp(min=first, max=limit)
            most = int((last - first).max().item()) if first.numel() else 0
            first = first.to(torch.int64)
    number = first[:, :, None] + torch.arange(most, device=start.device)
    return samples_at(start, extent, number, bins, count, length)


def align_weights(start: Tensor, extent: Tensor, bins: int, length: int, sampling_ratio: int) -> AxisWeights:
    """RoIAlign (He et al., Mask R-CNN, 2017): row p is the mean of the bilinear hats at its samples."""
    s = samples(start, extent, bins, length, sampling_ratio)
    share = s.valid / s.per_bin.clamp(min=1)[:, None, None].to(start.dtype)
    slope = s.slope * share

    def merge(at_low: Tensor, at_high: Tensor) -> Tensor:
        table = start.new_zeros(*s.low.shape[:2], max(length, 1))
        return table.scatter_add(2, s.low, at_low).scatter_add(2, s.high, at_high)[:, :, :length]

    weight = merge((1 - s.frac) * share, s.frac * share)
    d_start = merge(-slope, slope)
    d_extent = merge(-slope * s.d_extent, slope * s.d_extent)
    return AxisWeights(weight, d_start, d_extent)


def prroi_weights(start: Tensor, extent: Tensor, bins: int, length: int) -> AxisWeights:
    """PrRoIPool (Jiang et al., IoU-Net, 2018): row p is the mean of each pixel's hat over the bin."""
    size = (extent / bins)[:, None, None]
    safe = torch.where(size > 0, size, 1)
    p = torch.arange(bins, device=start.device)[None, :, None]
    pixel = torch.arange(length, device=start.device)
    low = start[:, None, None] + p * size - pixel
    high = start[:, None, None] + (p + 1) * size - pixel

    def hat(x: Tensor) -> Tensor:
        return (1 - x.abs()).clamp(min=0)

    def side(left: float, slope: float) -> Tensor:
        """The integral over [left, left + 1], where the hat is linear: a trapezoid, exact."""

        def limited(x: Tensor) -> Tensor:  # an end that two intervals share follows the box in one of them
            return torch.where((x >= left) & (x < left + 1), x, x.detach().clamp(left, left + 1))

        a, b = limited(low), limited(high)
        return (b - a) * ((1 + slope * a) + (1 + slope * b)) / 2

    weight = (side(-1, 1) + side(0, -1)) / safe
    d_start = (hat(high) - hat(low)) / safe
    d_extent = (hat(high) * (p + 1) - hat(low) * p - weight) / (safe * bins)
    keep = size > 0
    return AxisWeights(*(torch.where(keep, t, 0) for t in (weight, d_start, d_extent)))


def pool_ranges(start: Tensor, end: Tensor, bins: int, length: int) -> tuple[Tensor, Tensor]:
    """RoIPool (Girshick, Fast R-CNN, 2015): the pixels ``[first, last)`` of each bin.

    Args:
        start, end: Tensor[K], box coordinates on the map, before rounding.

    Returns:
        Two int64 Tensor[K, P], clipped to 0 .. L; an empty bin has first >= last.
    """
    first, last = _round_half_away(start)[:, None], _round_half_away(end)[:, None]
    size = (last - first + 1).clamp(min=1) / bins
    p = torch.arange(bins, device=start.device)
    low = torch.floor(p * size) + first
    high = torch.ceil((p + 1) * size) + first
    return low.clamp(0, length).to(torch.int64), high.clamp(0, length).to(torch.int64)


def _round_half_away(x: Tensor) -> Tensor:
    """C's ``round``; torch.round rounds half to even."""
    whole = torch.trunc(x)
    return whole + torch.where((x - whole).abs() >= 0.5, torch.sign(x), 0)
