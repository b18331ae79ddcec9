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

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from detector.evaluation.cocoeval import AREAS, IOU_THRESHOLDS, RECALLS, limits
from detector.evaluation.matches import IGNORED, TRUE, Matches
from detector.exceptions import DataError

RESAMPLES = 1000
LEVEL = 0.95
SHARE = (0.0, 1.0)
"""Values that a precision or recall can have."""
SIZES = tuple(AREAS)[1:]  # small, medium, large
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
        ap_size: float64 ``[3, K, B]``, AP of small, medium and large objects.
        ar: float64 ``[3, K, B]``, AR with the best 1, 10 and all detections of an image and class.
        ar_size: float64 ``[3, K, B]``, AR of small, medium and large objects.
    """

    ap: np.ndarray
    ap_size: np.ndarray
    ar: np.ndarray
    ar_size: np.ndarray

    def metrics(self) -> dict[str, np.ndarray]:
        """The twelve COCO numbers, float64 ``[B]`` each."""
        mean = lambda values: _mean_over_classes(values, axis=-2)
        at = lambda iou: self.ap[int(np.flatnonzero(np.isclose(IOU_THRESHOLDS, iou))[0])]
        found = {"AP": mean(self.ap.mean(axis=0)), "AP50": mean(at(0.5)), "AP75": mean(at(0.75))}
        found |= {f"AP{size[0]}": mean(self.ap_size[i]) for i, size in enumerate(SIZES)}
        found |= {f"AR{limit}": mean(self.ar[i]) for i, limit in enumerate((1, 10, 100))}
        return found | {f"AR{size[0]}": mean(self.ar_size[i]) for i, size in enumerate(SIZES)}

    def by_iou(self) -> np.ndarray:
        """AP at each IoU threshold, float64 ``[T, B]``."""
        return _mean_over_classes(self.ap, axis=1)

    def by_class(self) -> dict[str, np.ndarray]:
        """``AP``, ``AP50``, ``AP75`` and ``AR100`` of each class, float64 ``[K, B]`` each."""
        return {"AP": self.ap.mean(axis=0), "AP50": self.ap[0], "AP75": self.ap[5], "AR100": self.ar[2]}


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
    result = Replicates(*(np.full((n, classes, count), np.nan) for n in (len(IOU_THRESHOLDS), 3, 3, 3)))
    parts = [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]
    # Images outermost: what is gathered and added are rows of neighbouring resamples.
    columns = [np.ascontiguousarray(weights[part].T, dtype=np.float32) for part in parts]
    area = matches.boxes_xywh[:, 2] * matches.boxes_xywh[:, 3]

    def fill(job: tuple[int, int]) -> None:
        k, p = job
        _replicate_class(matches, area, k, columns[p], result, parts[p])

    with ThreadPoolExecutor(THREADS) as pool:  # NumPy lets go of the interpreter's lock in all of this
        jobs = [(k, p) for k in range(classes) for p in range(len(parts))]
        for done, _ in enumerate(pool.map(fill, jobs), start=1):
            if progress:
                progress(done / len(jobs))
    return result


def _replicate_class(
    matches: Matches, area: np.ndarray, k: int, weights: np.ndarray, result: Replicates, part: slice
) -> None:
    """Fill in class ``k`` for the resamples ``part``; ``weights`` is float32 ``[I, b]``."""
    rows, objects = matches.detections_of[k], matches.objects_of[k]
    image, rank = matches.image[rows], matches.rank[rows]
    for a, (low, high) in enumerate(AREAS.values()):
        positives = _sum_rows(weights, matches.object_image[objects][matches.counted[a, objects]])
        if not positives.any():
            continue
        known = np.where(positives > 0, positives, np.nan)
        outcome = matches.outcome[a, :, rows]
        in_range = (area[rows] >= low) & (area[rows] <= high)
        hits = outcome == TRUE
        ap = _average_precision(hits, outcome != IGNORED, in_range, image, weights, known)
        ever = np.flatnonzero(hits.any(axis=0))
        drawn = weights[image[ever]].astype(np.float64)
        recalls = [
            (hits[:, ever] & (rank[ever] < limit)).sum(axis=0) @ drawn / len(hits) / known
            for limit in limits(matches.limit)
        ]
        if a == 0:
            result.ap[:, k, part] = ap
            result.ar[:, k, part] = recalls
        else:
            result.ap_size[a - 1, k, part] = ap.mean(axis=0)
            result.ar_size[a - 1, k, part] = recalls[-1]


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


def intervals(matches: Matches, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL) -> dict[str, Interval]:
    """The twelve COCO numbers of a run with their intervals."""
    found = replicate(matches, resample(len(matches.image_ids), resamples, seed)).metrics()
    values = matches.accumulated().metrics()
    return {name: interval(values[name], found[name], level, SHARE) for name in found}


class Difference(NamedTuple):
    """What a run has more than the baseline."""

    metrics: dict[str, Interval]  # the twelve COCO numbers
    by_iou: list[Interval]  # AP at each of the ten IoU thresholds
    by_class: dict[str, list[Interval]]  # AP, AP50, AP75, AR100: one entry a class


def differences(
    runs: Sequence[Matches], resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> list[Difference]:
    """Paired differences of each run but the first to the first.

    Args:
        runs: two or more, scored on the same images and classes.
        resamples: number of resamples.
        seed: of the resamples.
        level: of the intervals.

    Raises:
        DataError: the runs were not scored on the same images and classes.
    """
    check_paired(runs)
    weights = resample(len(runs[0].image_ids), resamples, seed)
    ones = np.ones((1, weights.shape[1]))
    (base, base_point), *others = [(replicate(run, weights), replicate(run, ones)) for run in runs]
    return [difference(base, other, base_point, point, level) for other, point in others]


def difference(
    base: Replicates, other: Replicates, base_point: Replicates, point: Replicates, level: float = LEVEL
) -> Difference:
    """What ``other`` has more than ``base``, from their replicates under the same weights.

    Args:
        base: of the baseline.
        other: of the run.
        base_point: of the baseline with every image counted once.
        point: of the run with every image counted once.
        level: of the intervals.
    """

    def between(a: np.ndarray, b: np.ndarray, a0: np.ndarray, b0: np.ndarray) -> Interval:
        return interval(float((b0 - a0)[0]), b - a, level)

    four = (base, other, base_point, point)
    named, ious, classes = [r.metrics() for r in four], [r.by_iou() for r in four], [r.by_class() for r in four]
    return Difference(
        {name: between(*(n[name] for n in named)) for name in named[0]},
        [between(*(i[t] for i in ious)) for t in range(len(ious[0]))],
        {
            name: [between(*(c[name][k] for c in classes)) for k in range(len(values))]
            for name, values in classes[0].items()
        },
    )


def check_paired(runs: Sequence[Matches]) -> None:
    """Raise :class:`DataError` unless all runs have the images, classes and objects of the first."""
    first = runs[0]
    for number, run in enumerate(runs[1:], start=2):
        if run.category_ids != first.category_ids:
            raise DataError(
                f"runs 1 and {number} cannot be paired: their categories differ, {first.category_ids} and "
                f"{run.category_ids}"
            )
        if not np.array_equal(run.image_ids, first.image_ids):
            only = np.setxor1d(run.image_ids, first.image_ids)
            raise DataError(
                f"runs 1 and {number} cannot be paired: they were scored on different images, "
                f"{len(first.image_ids)} and {len(run.image_ids)}, of which {len(only)} are not in both"
            )
        if not np.array_equal(run.object_id, first.object_id):
            raise DataError(f"runs 1 and {number} cannot be paired: their annotations differ")
