"""Everything that is found out about one set of detections, in one place: what tables, files and the report show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detector.evaluation import curves
from detector.evaluation.cocoeval import COCO_LIMIT, IOU_THRESHOLDS, Accumulated
from detector.evaluation.detections import Detections
from detector.evaluation.errors import KINDS, MISSED, Errors, find_errors
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.matches import FALSE, TRUE, Matches, match
from detector.evaluation.significance import RESAMPLES, SHARE, Interval, interval, replicate, resample


@dataclass(frozen=True, eq=False)
class Analysis:
    """What a run gets wrong.

    Attributes:
        matches: of detections and objects.
        accumulated: precision and recall.
        metrics: the twelve COCO numbers with their intervals (NaN bounds without resamples).
        by_iou: AP at each of the ten IoU thresholds, with intervals.
        by_class: AP of each class, with intervals.
        points: the best score threshold of each class.
        errors: the breakdown into kinds.
        confusion: int64 ``[K + 1, K + 1]`` at the best thresholds, background last.
        calibration: of the scores.
        side_counts: objects in each bin of :data:`curves.SIDES`, int64 ``[S]``.
        side_recall: their recall at each IoU threshold, float64 ``[S, T]``.
        resamples: behind the intervals; 0 for none.
    """

    matches: Matches
    accumulated: Accumulated
    metrics: dict[str, Interval]
    by_iou: list[Interval]
    by_class: list[Interval]
    points: list[curves.OperatingPoint]
    errors: Errors
    confusion: np.ndarray
    calibration: curves.Calibration
    side_counts: np.ndarray
    side_recall: np.ndarray
    resamples: int

    @property
    def kept(self) -> np.ndarray:
        """bool ``[N]``: detections from the best threshold of their class on."""
        return curves.kept(self.matches, self.points)

    def to_dict(self) -> dict[str, Any]:
        """What goes into ``metrics.json`` under ``analysis``: plain values, None where there is no ground truth."""
        errors, classes = self.errors, self.matches.class_names
        return {
            "resamples": self.resamples,
            "intervals": {name: plain(value[1:]) for name, value in self.metrics.items()},
            "AP_by_iou": {f"{t:.2f}": plain(v.value) for t, v in zip(IOU_THRESHOLDS, self.by_iou, strict=True)},
            "recall_by_size": [
                {
                    "side": [curves.SIDES[i], plain(curves.SIDES[i + 1])],
                    "boxes": int(count),
                    "recall_50": plain(recall[0]),
                    "recall_75": plain(recall[5]),
                    "recall": plain(recall.mean()),
                }
                for i, (count, recall) in enumerate(zip(self.side_counts, self.side_recall, strict=True))
            ],
            "thresholds": {n: asdict(p) for n, p in zip(classes, self.points, strict=True)},
            "errors": {
                "AP50": errors.ap50,
                "cost": errors.cost,
                "count": dict(zip(KINDS, errors.counts.sum(axis=0).tolist(), strict=True)),
            },
            "calibration": {
                "error": self.calibration.error,
                "count": self.calibration.count.tolist(),
                "score": plain(self.calibration.score),
                "precision": plain(self.calibration.precision),
            },
            "confusion": {"classes": [*classes, "background"], "true_rows_predicted_columns": self.confusion.tolist()},
        }

    def class_rows(self) -> list[dict[str, Any]]:
        """One row a class, by category id: its numbers, threshold and errors."""
        m, rows = self.matches, []
        precision, recall = self.accumulated.precision[:, :, :, 0, -1], self.accumulated.recall[:, :, 0, -1]
        for k, (category, name) in enumerate(zip(m.category_ids, m.class_names, strict=True)):
            objects, known = m.objects_of[k], precision[0, 0, k] >= 0
            point, bounds = self.points[k], self.by_class[k]
            counted = m.counted[0, objects]
            rows.append(
                {
                    "category_id": category,
                    "class": name,
                    "boxes": int(counted.sum()),
                    "images": len(np.unique(m.object_image[objects][counted])),
                    "detections": m.detections_of[k].stop - m.detections_of[k].start,
                    "AP": plain(bounds.value),
                    "AP_low": plain(bounds.low),
                    "AP_high": plain(bounds.high),
                    "AP50": float(precision[0, :, k].mean()) if known else None,
                    "AP75": float(precision[5, :, k].mean()) if known else None,
                    "AR100": float(recall[:, k].mean()) if known else None,
                    "threshold": point.threshold,
                    "F1": point.f1,
                    "precision": point.precision,
                    "recall": point.recall,
                    **{kind: int(self.errors.counts[k, i]) for i, kind in enumerate(KINDS)},
                }
            )
        return rows

    def image_rows(self, file_names: Sequence[str]) -> list[dict[str, Any]]:
        """One row an image, at the best thresholds: what is found, false and not found, and the errors by kind.

        Args:
            file_names: one for each image; "" if unknown.
        """
        m, count = self.matches, len(self.matches.image_ids)
        tally = lambda images: np.bincount(images, minlength=count)
        outcome, kept = m.outcome[0, 0], self.kept
        columns = {
            "boxes": tally(m.object_image[m.counted[0]]),
            "found": tally(m.image[kept & (outcome == TRUE)]),
            "false": tally(m.image[kept & (outcome == FALSE)]),
        }
        columns["not_found"] = columns["boxes"] - columns["found"]
        for number, kind in enumerate(KINDS):
            columns[kind] = tally(
                m.object_image[self.errors.missed] if number == MISSED else m.image[kept & (self.errors.kind == number)]
            )
        lists = {name: values.tolist() for name, values in columns.items()}
        return [
            {"image_id": image, "file_name": file_names[i], **{name: values[i] for name, values in lists.items()}}
            for i, image in enumerate(m.image_ids.tolist())
        ]


def plain(value: Any) -> Any:
    """Numbers and arrays of them as JSON holds them: None for NaN and infinity."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return float(value) if math.isfinite(value) else None


def analyse(
    truth: GroundTruth,
    detections: Detections,
    image_ids: Sequence[int] | None = None,
    *,
    max_detections: int = COCO_LIMIT,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[float], object] | None = None,
) -> Analysis:
    """Match, accumulate, resample, and look for errors.

    Args:
        truth: the annotations.
        detections: checked against ``truth`` (:func:`detector.evaluation.coco.check`).
        image_ids: images to be scored; None: all.
        max_detections: detections counted for each image and class.
        resamples: of the images, for the intervals; 0: no intervals.
        seed: of the resamples.
        progress: told the share of the resampling that is done.
    """
    matches = match(truth, detections, image_ids, max_detections)
    found = matches.accumulated()
    # Without resamples every list of replicates is empty.
    samples = replicate(matches, resample(len(matches.image_ids), resamples, seed), progress)
    named, ious, classes = samples.metrics(), samples.by_iou(), samples.by_class()["AP"]
    precision = found.precision[:, :, :, 0, -1]
    class_values = [
        float(precision[:, :, k].mean()) if precision[0, 0, k] >= 0 else None for k in range(len(matches.category_ids))
    ]
    points = curves.operating_points(matches)
    side_counts, side_recall = curves.recall_by_side(matches)
    return Analysis(
        matches,
        found,
        {name: interval(value, named[name], possible=SHARE) for name, value in found.metrics().items()},
        [interval(value, ious[t], possible=SHARE) for t, value in enumerate(curves.ap_by_iou(found))],
        [interval(value, classes[k], possible=SHARE) for k, value in enumerate(class_values)],
        points,
        find_errors(matches),
        curves.confusion_matrix(matches, curves.kept(matches, points)),
        curves.calibration(matches),
        side_counts,
        side_recall,
        resamples,
    )
