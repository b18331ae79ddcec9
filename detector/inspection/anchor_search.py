"""Anchors that fit a data set better than those of the configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from detector.config.schema import ModelConfig
from detector.inspection.anchor_fit import OVERLAP, AnchorFit, Objects, best_iou, fit_anchors, with_anchors
from detector.models.backbone import anchor_strides

SCALINGS = (0.25, 0.5, 1.0, 2.0)  # of the configured sizes: the proposal is at least as good as each of them
LOSS = 0.01
PLACED = 2000  # objects at random places that the search is about
MEASURED = 5000  # objects that candidates are held against
STEP = 2 ** (1 / 6)  # between neighbouring sizes that are tried
RATIO_LIMIT = 100.0  # of the schema: aspect ratios from 1 / 100
POINTS = 300  # more different numbers than this are gathered into so many before clustering


def propose_anchors(objects: Objects, config: ModelConfig) -> AnchorFit:
    """The best anchors that are found, with as many sizes per map and at most as many aspect ratios as ``config`` has.

    Best is the highest sum of two numbers: the share of the objects with an anchor of IoU :data:`OVERLAP`, and the mean
    of the best IoU. Candidates are the configured sizes times :data:`SCALINGS`, and what :func:`climb` makes of each of
    them and of the quantiles of the objects' sizes, with the configured aspect ratios and with those of the objects.
    None is proposed whose share is smaller by :data:`LOSS` or more than that of the best scaling.

    Args:
        objects: at least one.
        config: accepted by :func:`~detector.models.faster_rcnn.check_model`.
    """
    ratios = list(dict.fromkeys(config.anchors.aspect_ratios))
    own = objects_ratios(objects, len(config.anchors.aspect_ratios))
    searches = [Search(objects, config, choice) for choice in (ratios, own)]
    plain = searches[0].scalings()
    models = [with_anchors(config, sizes, ratios) for sizes in plain]
    for search in searches:
        models += [with_anchors(config, search.climb(start), search.ratios) for start in search.starts()]
    measured = objects.sample(MEASURED)
    fits = [fit_anchors(measured, model) for model in models]
    least = max(fit.recall(OVERLAP) for fit in fits[: len(plain)]) - LOSS
    best = max((i for i, fit in enumerate(fits) if fit.recall(OVERLAP) > least), key=lambda i: goodness(fits[i]))
    return fit_anchors(objects, models[best])


def goodness(fit: AnchorFit) -> float:
    """What the proposal is the best in."""
    return fit.recall(OVERLAP) + fit.mean_iou


class Search:
    """Sizes for the maps of ``config`` with given aspect ratios.

    An object that is smaller than the stride of a map may lie between its anchors, whatever their size. The objects are
    therefore tried at random places of their images, where they may be after augmentation and in other images.

    Args:
        objects: at least one.
        config: says how many maps and how many sizes for each.
        ratios: height / width.
    """

    def __init__(self, objects: Objects, config: ModelConfig, ratios: list[float]):
        self.ratios, self.configured = ratios, config.anchors.sizes
        self.per_map = len(self.configured[0])
        # The shorter side of each anchor has to be more than one pixel, as half of it is rounded.
        self.smallest = math.floor(max(max(r, 1 / r) for r in ratios) ** 0.5) + 1.0
        self.side = objects.side
        low, high = (max(float(end), self.smallest) for end in (self.side.min(), self.side.max()))
        steps = math.ceil(math.log(high / low) / math.log(STEP)) + 1
        tried = {self.valid(v) for v in np.geomspace(low, high, steps)}
        self.tried = sorted(tried.union(*(size for start in self.starts() for size in start)))
        placed = place(objects, PLACED)
        # float64 [maps, sizes, objects]: the best IoU with the anchors of one size on one map.
        self.iou = np.array([[best_iou(placed, [[size]], ratios, [stride]) for size in self.tried]
                             for stride in anchor_strides(config)])  # fmt: skip

    def valid(self, size: float) -> float:
        """``size`` in whole pixels, large enough for every aspect ratio."""
        return float(max(round(size), self.smallest))

    def scalings(self) -> list[list[list[float]]]:
        """The configured sizes times each of :data:`SCALINGS`, one list for each map."""
        return [[[self.valid(size * f) for size in of_map] for of_map in self.configured] for f in SCALINGS]

    def starts(self) -> list[list[list[float]]]:
        """The scalings, and the sizes of the objects at regular quantiles."""
        count = self.per_map * len(self.configured)
        quantiles = np.quantile(self.side, (np.arange(count) + 0.5) / count).reshape(-1, self.per_map)
        return [*self.scalings(), [[self.valid(size) for size in of_map] for of_map in quantiles.tolist()]]

    def climb(self, start: Sequence[Sequence[float]]) -> list[list[float]]:
        """``start`` with one size after the other replaced by the best between its neighbours, until none gets better.

        Sizes stay in ascending order from the finest to the coarsest map; one may occur on several maps.
        """
        flat = sorted(size for of_map in start for size in of_map)
        chosen, maps = [self.tried.index(size) for size in flat], np.repeat(np.arange(len(start)), self.per_map)
        before: list[int] = []
        while chosen != before:
            before = list(chosen)
            for slot, index in enumerate(before):
                low = chosen[slot - 1] if slot else 0
                high = chosen[slot + 1] if slot + 1 < len(chosen) else len(self.tried) - 1
                others = [other for other in range(len(chosen)) if other != slot]
                reached = self.iou[maps[others], np.array(chosen)[others]].max(axis=0, initial=0)
                iou = np.maximum(reached, self.iou[maps[slot], low : high + 1])
                gain = (iou >= OVERLAP).mean(axis=1) + iou.mean(axis=1)
                if gain.max() > gain[index - low] + 1e-9:
                    chosen[slot] = low + int(gain.argmax())
        return np.array([self.tried[index] for index in chosen]).reshape(-1, self.per_map).tolist()


def place(objects: Objects, count: int) -> Objects:
    """``count`` objects like ``objects``, each at a random place of its image; always the same."""
    rng = np.random.default_rng(0)
    rows = np.resize(rng.permutation(len(objects)), count)
    inputs, sides = objects.inputs[rows], objects.sides[rows]
    corner = rng.uniform(0, 1, (count, 2)) * np.maximum(inputs[:, ::-1] - sides, 0)
    return Objects(np.concatenate([corner, corner + sides], axis=1), inputs)


def objects_ratios(objects: Objects, count: int) -> list[float]:
    """At most ``count`` aspect ratios of the objects: the centres of clusters of their logarithms."""
    ratios = np.exp(k_means(np.log(objects.ratio), count)).clip(1 / RATIO_LIMIT, RATIO_LIMIT)
    return list(dict.fromkeys(float(f"{ratio:.2g}") for ratio in ratios.tolist()))


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
