"""What a RoI operator does with one box on one map, taken apart by the functions that define it in ``roi_ops``.

There are two conventions for coordinates. The operators count pixels by their centres: pixel j is at j. Pictures count
by edges: pixel j covers [j, j + 1], its centre is at j + 0.5. Everything here is in the second convention, in cells of
the map; only :class:`~roi_ops.reference.axis.Samples` are in that of the operators.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

import roi_ops
from roi_ops.geometry import Geometry
from roi_ops.reference import axis, rois

TITLES = {
    "pool": "RoIPool",
    "align": "RoIAlign",
    "align_aligned": "RoIAlign, aligned",
    "align_max": "RoIAlign, max",
    "prroi": "PrRoIPool",
}
KINDS = tuple(TITLES)

Box = tuple[float, float, float, float]
Operator = Callable[[Tensor, Tensor, tuple[int, int], float], Tensor]


@dataclass(frozen=True)
class Side:
    """One axis of the operator.

    Attributes:
        bins: start and end of each bin, cells of the map; those of RoIPool are whole cells and may overlap.
        samples: sample positions and their neighbours, Tensor[1, P, S]; None where there are no samples.
        weight: the pooling matrix A, Tensor[P, L]; None where the operator is a maximum.
    """

    bins: list[tuple[float, float]]
    samples: axis.Samples | None
    weight: Tensor | None

    def positions(self, p: int) -> list[float]:
        """Positions of the samples of bin ``p``, cells of the map; infinite for a void sample."""
        s = self.samples
        if s is None:
            return []
        between = torch.where(s.low == s.high, 0, s.frac)
        position = torch.where(s.valid, s.low + between + 0.5, float("inf"))
        return position[0, p][s.exists[0, p]].tolist()


@dataclass(frozen=True)
class Anatomy:
    """One operator at work.

    Attributes:
        kind: one of :data:`KINDS`.
        box: the box as it is given, on the map: x1, y1, x2, y2.
        y, x: what it does along each axis.
        pooled: Tensor[P_h, P_w], the result of the public function.
    """

    kind: str
    box: Box
    y: Side
    x: Side
    pooled: Tensor


@dataclass(frozen=True)
class Example:
    """A map, a box on it and a number of bins: what the operators are shown with.

    Attributes:
        feature: Tensor[H, W], the map.
        box: x1, y1, x2, y2 in pixels of the image; finite, and not inverted.
        bins: output height and width.
        scale: map size over image size.
        sampling_ratio: samples per bin and axis; <= 0: adaptive.
    """

    feature: Tensor
    box: Box
    bins: tuple[int, int]
    scale: float
    sampling_ratio: int

    def moved(self, cells: float) -> Example:
        """The same with the box moved right by ``cells`` of the map."""
        x1, y1, x2, y2 = self.box
        return replace(self, box=(x1 + cells / self.scale, y1, x2 + cells / self.scale, y2))

    def dissect(self, kind: str) -> Anatomy:
        """Take the operator ``kind``, one of :data:`KINDS`, apart."""
        feature = self.feature[None, None].double()
        row = torch.tensor([[0.0, *self.box]], dtype=torch.float64)
        geometry = Geometry([self.scale], kind, *self.bins, self.sampling_ratio, 0, 0, 224.0, 4.0)
        (group,) = rois.groups([feature.shape], row, geometry)
        y, x = (
            _side(kind, *ends, count, length, self.sampling_ratio)
            for ends, count, length in zip((group.y, group.x), self.bins, self.feature.shape, strict=True)
        )
        pooled = operator(kind, self.sampling_ratio)(feature, row, self.bins, self.scale)[0, 0]
        x1, y1, x2, y2 = (self.scale * v for v in self.box)
        return Anatomy(kind, (x1, y1, x2, y2), y, x, pooled)


def operator(kind: str, sampling_ratio: int) -> Operator:
    """The public function of ``kind`` as ``f(input, boxes, output_size, spatial_scale)``."""
    if kind == "pool":
        return roi_ops.roi_pool
    if kind == "prroi":
        return roi_ops.prroi_pool
    mode = "max" if kind.endswith("max") else "avg"
    return partial(roi_ops.roi_align, sampling_ratio=sampling_ratio, aligned="aligned" in kind, mode=mode)


def _side(kind: str, start: Tensor, end: Tensor, bins: int, length: int, sampling_ratio: int) -> Side:
    """One axis; ``end`` is the end of the box for ``pool``, else its extent, as in the groups of the reference."""
    if kind == "pool":
        low, high = axis.pool_ranges(start, end, bins, length)
        return Side(list(zip(low[0].tolist(), high[0].tolist(), strict=True)), None, None)
    size = end / bins
    edges = [float(start + p * size) + 0.5 for p in range(bins + 1)]
    bounds = list(itertools.pairwise(edges))
    if kind == "prroi":
        return Side(bounds, None, axis.prroi_weights(start, end, bins, length).weight[0])
    samples = axis.samples(start, end, bins, length, sampling_ratio)
    weight = None if kind.endswith("max") else axis.align_weights(start, end, bins, length, sampling_ratio).weight[0]
    return Side(bounds, samples, weight)
