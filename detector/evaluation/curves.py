"""What a detector does at each score, size and overlap: thresholds, confusions, calibration, recall by size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask

from detector.evaluation.cocoeval import IOU_THRESHOLDS, Accumulated
from detector.evaluation.errors import by_image
from detector.evaluation.matches import FALSE, IGNORED, TRUE, Matches

SIDES = (0, 16, 32, 64, 96, 128, 256, np.inf)
"""Edges of the size bins: square root of the object's area, in pixels. 32 and 96 are COCO's."""
BINS = 10  # of the reliability diagram
NO_THRESHOLD = 0.5  # score from which detections count where no threshold is best: without any true positive


@dataclass(frozen=True)
class OperatingPoint:
    """The score threshold at which a class has its best F1 at an IoU of 0.5; None without a true positive."""

    threshold: float | None
    f1: float | None
    precision: float | None
    recall: float | None


def operating_points(matches: Matches) -> list[OperatingPoint]:
    """The best threshold of each class: detections from it on count. Of equal F1, the highest threshold."""
    points = []
    for rows, objects in zip(matches.detections_of, matches.objects_of, strict=True):
        positives = int(matches.counted[0, objects].sum())
        outcome, score = matches.outcome[0, 0, rows], matches.score[rows]
        true, false = np.cumsum(outcome == TRUE), np.cumsum(outcome == FALSE)
        if not positives or not len(true) or not true[-1]:
            points.append(OperatingPoint(None, None, None, None))
            continue
        # A threshold cannot part equal scores: only the last of them is a point of the curve.
        last = np.append(score[1:] != score[:-1], True)
        f1 = np.where(last, 2 * true / (true + false + positives), -1.0)
        best = int(f1.argmax())
        points.append(
            OperatingPoint(
                float(score[best]),
                float(f1[best]),
                float(true[best] / (true + false)[best]),
                float(true[best] / positives),
            )
        )
    return points


def kept(matches: Matches, points: list[OperatingPoint]) -> np.ndarray:
    """bool ``[N]``: detections from the best threshold of their class on."""
    thresholds = np.array([NO_THRESHOLD if p.threshold is None else p.threshold for p in points])
    return matches.score >= thresholds[matches.label] if len(points) else np.zeros(len(matches.score), dtype=bool)


def confusion_matrix(matches: Matches, keep: np.ndarray) -> np.ndarray:
    """How often an object of one class (row) is detected as another (column); the last row and column are background.

    At an IoU of 0.5: first the matches of COCO, then the detections and objects that are left in each image are paired
    by falling IoU whatever their classes. What remains is background taken for an object, or an object not seen.
    Detections in crowds are left out.

    Args:
        matches: of a run.
        keep: bool ``[N]``, detections that count.

    Returns:
        int64 ``[K + 1, K + 1]``.
    """
    classes = len(matches.category_ids)
    table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    used = keep & (matches.outcome[0, 0] != IGNORED)
    hit = used & (matches.outcome[0, 0] == TRUE)
    np.add.at(table, (matches.label[hit], matches.label[hit]), 1)
    open_objects = ~matches.crowd
    open_objects[matches.partner[0, hit]] = False
    open_detections = used & ~hit
    for rows, objects in by_image(matches):
        rows, objects = rows[open_detections[rows]], objects[open_objects[objects]]
        if not len(rows) or not len(objects):
            continue
        overlaps = mask.iou(matches.boxes_xywh[rows], matches.object_boxes[objects], np.zeros(len(objects), np.uint8))
        while overlaps.size and overlaps.max() >= IOU_THRESHOLDS[0]:
            d, g = np.unravel_index(overlaps.argmax(), overlaps.shape)
            table[matches.object_label[objects[g]], matches.label[rows[d]]] += 1
            open_detections[rows[d]] = open_objects[objects[g]] = False
            overlaps[d], overlaps[:, g] = 0, 0
    np.add.at(table, (classes, matches.label[open_detections]), 1)
    np.add.at(table, (matches.object_label[open_objects], classes), 1)
    return table


@dataclass(frozen=True, eq=False)
class Calibration:
    """Whether scores are probabilities: the share of true positives (IoU 0.5) among detections of each score.

    The expected calibration error is the mean gap between score and share, bins weighted by their detections (Guo et
    al., On Calibration of Modern Neural Networks, ICML 2017; for detectors, Küppers et al., CVPR Workshops 2020).

    Attributes:
        count: int64 ``[bins]``, detections with scores in bins of equal width over 0..1.
        score: float64 ``[bins]``, their mean score; NaN for none.
        precision: float64 ``[bins]``, their share of true positives; NaN for none.
        error: the expected calibration error; None without detections.
    """

    count: np.ndarray
    score: np.ndarray
    precision: np.ndarray
    error: float | None


def calibration(matches: Matches, bins: int = BINS) -> Calibration:
    """The reliability of the scores of all detections that are not ignored; scores outside 0..1 go to the end bins."""
    used = (matches.outcome[0, 0] != IGNORED) & np.isin(matches.label, np.flatnonzero(has_objects(matches)))
    score, true = matches.score[used], matches.outcome[0, 0, used] == TRUE
    place = np.clip(np.ceil(score * bins) - 1, 0, bins - 1).astype(int)
    count, total = np.bincount(place, minlength=bins), np.bincount(place, score, bins)
    hits = np.bincount(place, true, bins)
    with np.errstate(invalid="ignore"):
        mean, precision = total / count, hits / count
    error = float(np.abs(total - hits).sum() / len(score)) if len(score) else None
    return Calibration(count, mean, precision, error)


def has_objects(matches: Matches) -> np.ndarray:
    """bool ``[K]``: classes that have an object to find."""
    found = np.zeros(len(matches.category_ids), dtype=bool)
    found[matches.object_label[matches.counted[0]]] = True
    return found


def recall_by_side(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """The share of objects found, by size: all detections count, whatever their score.

    Returns:
        Objects in each bin of :data:`SIDES`, int64 ``[S]``, and their recall at each IoU threshold, float64 ``[S, T]``,
        NaN for a bin without objects.
    """
    objects = np.flatnonzero(~matches.crowd)
    place = np.searchsorted(SIDES[1:-1], np.sqrt(matches.object_area[objects]), side="right")
    count = np.bincount(place, minlength=len(SIDES) - 1)
    found = matches.found_by[:, objects] >= 0
    hits = np.stack([np.bincount(place, row, len(SIDES) - 1) for row in found], axis=1)
    return count, np.where(count[:, None] > 0, hits / np.maximum(count, 1)[:, None], np.nan)


def ap_by_iou(found: Accumulated) -> list[float | None]:
    """AP at each IoU threshold."""
    return [found.average_precision(iou=t) for t in IOU_THRESHOLDS]


def precision_curves(found: Accumulated) -> np.ndarray:
    """Precision at the 101 recalls, mean over the classes that have objects: float64 ``[T, 101]``; NaN for none."""
    precision = found.precision[:, :, :, 0, -1]
    known = precision[0, 0] >= 0
    if not known.any():
        return np.full(precision.shape[:2], np.nan)
    return precision[:, :, known].mean(axis=2)
