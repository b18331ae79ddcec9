"""What a score is worth: the best threshold of each class, and whether scores are probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.matches import FALSE, IGNORED, TRUE, Matches

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
    position = np.clip(np.ceil(score * bins) - 1, 0, bins - 1).astype(int)
    count, total = np.bincount(position, minlength=bins), np.bincount(position, score, bins)
    hits = np.bincount(position, true, bins)
    with np.errstate(invalid="ignore"):
        mean, precision = total / count, hits / count
    error = float(np.abs(total - hits).sum() / len(score)) if len(score) else None
    return Calibration(count, mean, precision, error)


def has_objects(matches: Matches) -> np.ndarray:
    """bool ``[K]``: classes that have an object to find."""
    found = np.zeros(len(matches.category_ids), dtype=bool)
    found[matches.object_label[matches.counted[0]]] = True
    return found
