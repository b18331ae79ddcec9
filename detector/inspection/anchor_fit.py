"""How well the anchors of a model fit the objects of a data set, and anchors that fit better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from detector.config.schema import AnchorConfig, ModelConfig
from detector.models.backbone import anchor_strides

POINTS = 300  # more different numbers than this are gathered into so many before clustering


@dataclass(frozen=True, eq=False)
class AnchorFit:
    """Anchors and how well they overlap the objects.

    Attributes:
        sizes: side lengths in pixels of the resized image, one list per feature map.
        aspect_ratios: height / width.
        best_iou: float64 ``[N]``, the highest IoU of each object with any anchor at any location.
        matched: an anchor of at least this IoU is positive (``model.rpn.fg_iou_thresh``).
    """

    sizes: list[list[float]]
    aspect_ratios: list[float]
    best_iou: np.ndarray
    matched: float

    def recall(self, threshold: float) -> float:
        """The share of objects that have an anchor of at least this IoU; NaN without objects."""
        return float((self.best_iou >= threshold).mean()) if len(self.best_iou) else float("nan")

    @property
    def mean_iou(self) -> float:
        """Mean of the best IoU; NaN without objects."""
        return float(self.best_iou.mean()) if len(self.best_iou) else float("nan")

    @property
    def override(self) -> str:
        """The command-line arguments that choose these anchors."""
        lists = "],[".join(",".join(f"{s:g}" for s in sizes) for sizes in self.sizes)
        ratios = ",".join(f"{r:g}" for r in self.aspect_ratios)
        return f"model.anchors.sizes=[[{lists}]] model.anchors.aspect_ratios=[{ratios}]"


def resize_factors(sizes: np.ndarray, config: ModelConfig) -> np.ndarray:
    """The factor ``[M]`` by which evaluation resizes each image of ``sizes`` (``[M, 2]``: height, width)."""
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    return np.minimum(config.min_size[-1] / short, config.max_size / long)


def fit_anchors(boxes: np.ndarray, inputs: np.ndarray, config: ModelConfig) -> AnchorFit:
    """How well the anchors of ``config`` fit.

    Args:
        boxes: float ``[N, 4]``, x1, y1, x2, y2 in pixels of the resized images.
        inputs: float ``[N, 2]``, height and width of each box's resized image.
        config: accepted by :func:`~detector.models.faster_rcnn.check_model`.
    """
    sizes, ratios = config.anchors.sizes, config.anchors.aspect_ratios
    iou = best_iou(boxes, inputs, sizes, ratios, anchor_strides(config))
    return AnchorFit(sizes, ratios, iou, config.rpn.fg_iou_thresh)


def best_iou(
    boxes: np.ndarray,
    inputs: np.ndarray,
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
    strides: Sequence[int],
) -> np.ndarray:
    """The highest IoU of each box with any anchor, float64 ``[N]``.

    Anchors are those of torchvision: their centres are multiples of a map's stride inside the image, and half their
    sides are whole pixels. Of all anchors of one shape, the one with the nearest centre in x and y overlaps most.
    """
    best = np.zeros(len(boxes))
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    area = side.prod(axis=1)
    for stride, of_map in zip(strides, sizes, strict=True):
        # Images are padded to multiples of 32 pixels. A map of a larger stride has its number of cells rounded up, and
        # anchors lie a whole number of pixels apart.
        padded = np.ceil(inputs[:, ::-1] / 32) * 32
        cells = np.ceil(padded / stride)
        step = padded // cells
        nearest = np.clip(np.rint(centre / step), 0, cells - 1) * step
        for size in of_map:
            for ratio in ratios:
                half = np.rint(np.array([size / np.sqrt(ratio), size * np.sqrt(ratio)]) / 2)
                low = np.maximum(nearest - half, boxes[:, :2])
                high = np.minimum(nearest + half, boxes[:, 2:])
                shared = np.clip(high - low, 0, None).prod(axis=1)
                best = np.maximum(best, shared / np.maximum(area + (2 * half).prod() - shared, 1e-9))
    return best


def propose_anchors(boxes: np.ndarray, inputs: np.ndarray, config: ModelConfig) -> AnchorFit:
    """Anchors at the centres of clusters of the boxes, as many sizes and aspect ratios as ``config`` has.

    Sizes come from k-means of the square roots of the areas, aspect ratios from k-means of height / width, because the
    configuration combines every size of a map with every ratio. Clustering works on logarithms: a factor of two counts
    the same for small and large objects. Smaller sizes go to the maps of smaller stride.
    """
    side = boxes[:, 2:] - boxes[:, :2]
    per_map = len(config.anchors.sizes[0])
    sizes = k_means(np.log(np.sqrt(side.prod(axis=1))), per_map * len(config.anchors.sizes))
    ratios = k_means(np.log(side[:, 1] / side[:, 0]), len(config.anchors.aspect_ratios))
    rounded = np.exp(sizes).round().clip(min=1).reshape(-1, per_map).tolist()
    anchors = AnchorConfig(sizes=rounded, aspect_ratios=[float(f"{v:.2g}") for v in np.exp(ratios)])
    return fit_anchors(boxes, inputs, replace(config, anchors=anchors))


def k_means(values: np.ndarray, count: int) -> np.ndarray:
    """The centres, ascending, of the ``count`` clusters of ``values`` whose sum of squares is least.

    The result is exact. In one dimension clusters are intervals, and dynamic programming finds the best borders (Wang
    and Song, Ckmeans.1d.dp, The R Journal 3/2, 2011). More than :data:`POINTS` different values are gathered into so
    many first. With fewer different values than clusters, the last centre repeats.
    """
    points, weights = np.unique(values, return_counts=True)
    if len(points) > POINTS:
        bins = ((points - points[0]) / (points[-1] - points[0]) * POINTS).astype(int).clip(max=POINTS - 1)
        sums, totals = np.bincount(bins, points * weights), np.bincount(bins, weights)
        points, weights = sums[totals > 0] / totals[totals > 0], totals[totals > 0]
    n = len(points)
    clusters = min(count, n)
    total, first, second = (np.concatenate([[0], np.cumsum(weights * points**power)]) for power in range(3))
    start, end = np.arange(n)[:, None], np.arange(n) + 1
    mass = np.where(start < end, total[end] - total[start], 1)
    # Sum of squares of the points start..end - 1 about their mean, infinite for an empty cluster.
    cost = second[end] - second[start] - (first[end] - first[start]) ** 2 / mass
    cost = np.where(start < end, cost, np.inf)
    best, froms = cost[0], []
    for _ in range(clusters - 1):
        # The last cluster starts at `start`, and the others end before it.
        whole = np.concatenate([[np.inf], best[:-1]])[:, None] + cost
        froms.append(whole.argmin(axis=0))
        best = whole.min(axis=0)
    borders = [n]
    for choice in reversed(froms):
        borders.append(int(choice[borders[-1] - 1]))
    edges = np.array([0, *reversed(borders)])
    centres = np.diff(first[edges]) / np.diff(total[edges])
    return np.concatenate([centres, np.full(count - clusters, centres[-1])])
