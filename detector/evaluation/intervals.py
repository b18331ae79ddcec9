"""Bootstrap over images: how far a number, or the difference of two runs, may be off by the choice of the images.

A resample counts every image as often as it is drawn. Matches do not depend on that, so stored matches are
accumulated again with a weight for each image, which gives what pycocotools would give on a file with the drawn images
repeated (exactly, unless an image has several detections of one class and one score, whose copies it would mix). The
resamples of one seed are the same for every run: differences are paired, image by image.

Percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3), moved by the bias of
the replicates (section 10.2): an image that is drawn twice brings its detections twice with equal scores, which raises
the AP of classes with few objects. What the intervals cover is the mean of the number over sets of as many images.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from detector.evaluation.matches import IGNORED, TRUE, Matches
from detector.evaluation.metrics import (
    AREAS,
    CLASS_METRICS,
    IOU_THRESHOLDS,
    LIMITS,
    METRICS,
    RECALLS,
    Accumulated,
    limits,
)

RESAMPLES = 1000
LEVEL = 0.95
SHARE = (0.0, 1.0)
"""Values that a precision or recall can have."""
CHUNK = 250  # resamples that are accumulated at once: their arrays stay in the processor's cache
THREADS = 2


class Interval(NamedTuple):
    """A number with the bounds of its interval; NaN without ground truth, and bounds without resamples."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 is outside: for a difference, whether it is more than the choice of images explains."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, eq=False)
class Replicates:
    """The numbers of one run under B weightings of its images; NaN where a class has no object to find.

    Differences and means of these arrays are the replicates of differences and means, as long as the weightings are the
    same: over seeds, average; over runs, subtract.

    Attributes:
        ap: float64 ``[T, K, B]``, AP by IoU threshold, all areas.
        of_classes: each of the twelve COCO numbers of each class, float64 ``[K, B]``.
    """

    ap: np.ndarray
    of_classes: dict[str, np.ndarray]

    def metrics(self) -> dict[str, np.ndarray]:
        """The twelve COCO numbers, float64 ``[B]`` each."""
        return {name: _mean_over_classes(values, axis=0) for name, values in self.of_classes.items()}

    def by_iou(self) -> np.ndarray:
        """AP at each IoU threshold, float64 ``[T, B]``."""
        return _mean_over_classes(self.ap, axis=1)

    def by_class(self) -> dict[str, np.ndarray]:
        """The numbers :data:`CLASS_METRICS` of each class, float64 ``[K, B]`` each."""
        return {name: self.of_classes[name] for name in CLASS_METRICS}


def _mean_over_classes(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of the classes that have objects; NaN if none has."""
    known = ~np.isnan(values)
    counts = known.sum(axis=axis)
    return np.where(counts > 0, np.where(known, values, 0).sum(axis=axis) / np.maximum(counts, 1), np.nan)


def resample(images: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each image is drawn in each resample.

    Args:
        images: I, number of images.
        resamples: B.
        seed: the same seed gives the same resamples.

    Returns:
        int32 ``[B, I]``; every row sums to I.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, images), dtype=np.int32)
    for row in weights if images else ():
        row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
    return weights


def replicate(matches: Matches, weights: np.ndarray, progress: Callable[[float], object] | None = None) -> Replicates:
    """The numbers of a run with its images counted ``weights`` times.

    Args:
        matches: of the run.
        weights: ``[B, I]``, whole numbers from 0 on; a row of ones gives the numbers themselves.
        progress: told the share that is done, again and again.
    """
    if weights.shape[1:] != (len(matches.image_ids),):
        raise ValueError(f"weights of {len(matches.image_ids)} images are wanted, got the shape {weights.shape}")
    classes, count = len(matches.category_ids), len(weights)
    unknown = lambda *shape: np.full((*shape, classes, count), np.nan)
    result = Replicates(unknown(len(IOU_THRESHOLDS)), {name: unknown() for name in METRICS})
    parts = [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]
    # Images outermost: what is gathered and added are rows of neighbouring resamples.
    columns = [np.ascontiguousarray(weights[part].T, dtype=np.float32) for part in parts]

    def fill(job: tuple[int, int]) -> None:
        k, p = job
        _replicate_class(matches, k, columns[p], result, parts[p])

    with ThreadPoolExecutor(THREADS) as pool:  # NumPy lets go of the interpreter's lock in all of this
        jobs = [(k, p) for k in range(classes) for p in range(len(parts))]
        for done, _ in enumerate(pool.map(fill, jobs), start=1):
            if progress:
                progress(done / len(jobs))
    return result


def _replicate_class(matches: Matches, k: int, weights: np.ndarray, result: Replicates, part: slice) -> None:
    """Fill in class ``k`` for the resamples ``part``; ``weights`` is float32 ``[I, b]``."""
    rows, objects = matches.detections_of[k], matches.objects_of[k]
    image, rank = matches.image[rows], matches.rank[rows]
    for a, (area, (low, high)) in enumerate(AREAS.items()):
        positives = _sum_rows(weights, matches.object_image[objects][matches.counted[a, objects]])
        if not positives.any():
            continue
        known = np.where(positives > 0, positives, np.nan)
        outcome = matches.outcome[a, :, rows]
        in_range = (matches.area[rows] >= low) & (matches.area[rows] <= high)
        hits = outcome == TRUE
        ap = _average_precision(hits, outcome != IGNORED, in_range, image, weights, known)
        ever = np.flatnonzero(hits.any(axis=0))
        drawn = weights[image[ever]].astype(np.float64)
        recalls = {
            name: (hits[:, ever] & (rank[ever] < limit)).sum(axis=0) @ drawn / len(hits) / known
            for name, limit in zip(LIMITS, limits(matches.limit), strict=True)
        }
        if area == "all":
            result.ap[:, k, part] = ap
        for name, metric in METRICS.items():
            if metric.area == area:
                found = ap[metric.thresholds].mean(axis=0) if metric.kind == "precision" else recalls[metric.limit]
                result.of_classes[name][k, part] = found


def _sum_rows(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The sum of some rows, with repeats, in float64."""
    return np.bincount(rows, minlength=len(weights)) @ weights.astype(np.float64)


def _average_precision(
    hits: np.ndarray,
    counts: np.ndarray,
    in_range: np.ndarray,
    image: np.ndarray,
    weights: np.ndarray,
    positives: np.ndarray,
) -> np.ndarray:
    """Weighted AP of one class and area range at each IoU threshold.

    Precision has its local maxima at true positives, so it is computed there alone. The detections before one of them
    are the same for all thresholds, but for the few that are matched (and so counted or ignored whatever their
    own area): these are added and subtracted afterwards.

    Args:
        hits: bool ``[T, n]``, true positives, by falling score.
        counts: bool ``[T, n]``, detections that are not ignored.
        in_range: bool ``[n]``, detections that count while they match nothing.
        image: int ``[n]``.
        weights: float32 ``[I, b]``.
        positives: float64 ``[b]``, weighted objects; NaN for none.

    Returns:
        float64 ``[T, b]``.
    """
    result = np.where(np.isnan(positives), np.nan, np.zeros((len(hits), 1)))
    special = np.flatnonzero((hits | (counts != in_range)).any(axis=0))
    if not hits.any():
        return result
    before = _cumulated(in_range, special, image, weights)
    drawn = weights[image[special]].astype(np.float64)
    for t in range(len(hits)):
        here = np.flatnonzero(hits[t, special])
        if not len(here):
            continue
        change = counts[t, special].astype(np.int64) - in_range[special]
        corrected = before + np.cumsum(drawn * change[:, None], axis=0) if change.any() else before
        true = np.cumsum(drawn[here], axis=0)
        precision = true / np.maximum(corrected[here], 1)
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        recall = true / positives
        # Of the 101 recalls, those reached: all below the nearest one, and that one if it is not above.
        nearest = np.rint(np.nan_to_num(recall) * (len(RECALLS) - 1)).astype(np.int64)
        reached = nearest + (RECALLS[nearest] <= recall)
        reached[1:] -= reached[:-1].copy()
        result[t] = np.where(np.isnan(positives), np.nan, (precision * reached).sum(axis=0) / len(RECALLS))
    return result


def _cumulated(in_range: np.ndarray, at: np.ndarray, image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weight of the detections that are in range, up to and with each of the detections ``at``: float64 ``[m, b]``."""
    used = np.flatnonzero(in_range)
    ends = np.searchsorted(used, at, side="right")
    starts = np.concatenate([[0], ends[:-1]])
    sums = np.zeros((len(at), weights.shape[1]))
    filled = ends > starts
    if filled.any():
        gathered = weights[image[used[: ends[-1]]]]
        sums[filled] = np.add.reduceat(gathered, starts[filled], axis=0)
    return np.cumsum(sums, axis=0)


# -------------------------------------------------------------------------------------------- intervals
def interval(
    value: float | None, replicates: np.ndarray, level: float = LEVEL, possible: tuple[float, float] = (-np.inf, np.inf)
) -> Interval:
    """``value`` with the percentile interval of its replicates, moved so that their mean is ``value``.

    Args:
        value: the number on all images; None: there is no ground truth.
        replicates: ``[B]``; NaN in resamples without ground truth, which are left out.
        level: share of the replicates inside.
        possible: lowest and highest value that the number can have; the bounds stay within.
    """
    usable = replicates[~np.isnan(replicates)]
    if value is None or np.isnan(value):
        return Interval(np.nan, np.nan, np.nan)
    if not len(usable):
        return Interval(float(value), np.nan, np.nan)
    low, high = value + np.quantile(usable, [(1 - level) / 2, (1 + level) / 2]) - usable.mean()
    return Interval(float(value), *np.clip([low, high], *possible).tolist())


class Numbers(NamedTuple):
    """The numbers of a run, or of the difference of two: values, arrays of replicates, or intervals."""

    metrics: dict[str, Any]  # the twelve COCO numbers
    by_iou: list[Any]  # AP at each of the ten IoU thresholds
    by_class: dict[str, list[Any]]  # CLASS_METRICS: one entry per class


def combined(function: Callable[..., Any], *parts: Numbers) -> Numbers:
    """``function`` of the same number in all ``parts``, for each number."""
    together = lambda *lists: [function(*values) for values in zip(*lists, strict=True)]
    first = parts[0]
    return Numbers(
        {name: function(*(part.metrics[name] for part in parts)) for name in first.metrics},
        together(*(part.by_iou for part in parts)),
        {name: together(*(part.by_class[name] for part in parts)) for name in first.by_class},
    )


class Measured(NamedTuple):
    """A run's numbers, and their replicates under the weightings of :func:`resample`."""

    values: Numbers  # NaN without ground truth
    samples: Numbers

    def intervals(self, level: float = LEVEL) -> Numbers:
        """The numbers with their intervals."""
        return combined(lambda value, samples: interval(value, samples, level, SHARE), *self)

    def minus(self, base: Measured, level: float = LEVEL) -> Numbers:
        """How much more than ``base`` this is, with the intervals of the paired differences."""
        return combined(lambda a, b, sa, sb: interval(a - b, sa - sb, level), self.values, base.values,
                        self.samples, base.samples)  # fmt: skip


def measure(
    matches: Matches,
    weights: np.ndarray,
    found: Accumulated | None = None,
    progress: Callable[[float], object] | None = None,
) -> Measured:
    """The numbers of a run and their replicates.

    Args:
        matches: of the run.
        weights: as :func:`resample` returns them; the same for runs whose difference is wanted.
        found: the accumulated matches, if they are there already.
        progress: told the share that is done, again and again.
    """
    found = matches.accumulated() if found is None else found
    samples = replicate(matches, weights, progress)
    by_class = {name: list(values) for name, values in samples.by_class().items()}
    values = Numbers(found.metrics(), found.by_iou(), found.by_class())
    return Measured(
        combined(lambda value: np.nan if value is None else value, values),
        Numbers(samples.metrics(), list(samples.by_iou()), by_class),
    )
