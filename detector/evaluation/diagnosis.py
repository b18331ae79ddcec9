"""Everything that is found out about one run, in one place: what tables, files and the report show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detector.evaluation.confusion import confusion_matrix
from detector.evaluation.errors import KINDS, MISSED, Errors, find_errors
from detector.evaluation.intervals import RESAMPLES, Interval, Numbers, measure, resample
from detector.evaluation.matches import FALSE, TRUE, Matches
from detector.evaluation.metrics import IOU_THRESHOLDS, Accumulated, plain
from detector.evaluation.slices import SIDES, recall_by_side
from detector.evaluation.thresholds import Calibration, OperatingPoint, calibration, kept, operating_points


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What a run gets wrong.

    Attributes:
        matches: of detections and objects.
        accumulated: precision and recall.
        numbers: the COCO numbers, AP by IoU threshold, and those of each class, with intervals (NaN bounds without
            resamples).
        points: the best score threshold of each class.
        kept: bool ``[N]``, detections from the best threshold of their class on.
        errors: the breakdown into kinds.
        confusion: int64 ``[K + 1, K + 1]`` at the best thresholds, background last.
        calibration: of the scores.
        side_counts: objects in each bin of :data:`SIDES`, int64 ``[S]``.
        side_recall: their recall at each IoU threshold, float64 ``[S, T]``.
        resamples: behind the intervals; 0 for none.
    """

    matches: Matches
    accumulated: Accumulated
    numbers: Numbers
    points: list[OperatingPoint]
    kept: np.ndarray
    errors: Errors
    confusion: np.ndarray
    calibration: Calibration
    side_counts: np.ndarray
    side_recall: np.ndarray
    resamples: int

    @property
    def metrics(self) -> dict[str, Interval]:
        """The twelve COCO numbers."""
        return self.numbers.metrics

    def to_dict(self) -> dict[str, Any]:
        """What goes into ``metrics.json`` under ``analysis``: plain values, None where there is no ground truth."""
        classes = self.matches.class_names
        return {
            "resamples": self.resamples,
            "intervals": {name: plain(value[1:]) for name, value in self.metrics.items()},
            "AP_by_iou": {f"{t:.2f}": plain(v.value) for t, v in zip(IOU_THRESHOLDS, self.numbers.by_iou, strict=True)},
            "recall_by_size": [
                {
                    "side": plain(SIDES[i : i + 2]),
                    "boxes": int(count),
                    "recall_50": plain(recall[0]),
                    "recall_75": plain(recall[5]),
                    "recall": plain(recall.mean()),
                }
                for i, (count, recall) in enumerate(zip(self.side_counts, self.side_recall, strict=True))
            ],
            "thresholds": {n: asdict(p) for n, p in zip(classes, self.points, strict=True)},
            "errors": self.errors.to_dict(),
            "calibration": {
                "error": self.calibration.error,
                "count": self.calibration.count.tolist(),
                "score": plain(self.calibration.score),
                "precision": plain(self.calibration.precision),
            },
            "confusion": {"classes": [*classes, "background"], "true_rows_predicted_columns": self.confusion.tolist()},
        }

    def class_rows(self) -> list[dict[str, Any]]:
        """One row per class, by category id: its numbers, threshold and errors."""
        m, numbers = self.matches, self.numbers.by_class
        return [
            {
                "category_id": category,
                "class": name,
                **m.class_counts(k),
                **dict(zip(("AP", "AP_low", "AP_high"), plain(numbers["AP"][k]), strict=True)),
                **{metric: plain(numbers[metric][k].value) for metric in ("AP50", "AP75", "AR100")},
                "threshold": self.points[k].threshold,
                "F1": self.points[k].f1,
                "precision": self.points[k].precision,
                "recall": self.points[k].recall,
                **dict(zip(KINDS, self.errors.counts[k].tolist(), strict=True)),
            }
            for k, (category, name) in enumerate(zip(m.category_ids, m.class_names, strict=True))
        ]

    def image_rows(self, file_names: Sequence[str]) -> list[dict[str, Any]]:
        """One row per image, at the best thresholds: what is found, false and not found, and the errors by kind.

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


def diagnose(
    matches: Matches,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[float], object] | None = None,
) -> Diagnosis:
    """Accumulate, resample, and look for errors.

    Args:
        matches: of the run.
        resamples: of the images, for the intervals; 0: no intervals.
        seed: of the resamples.
        progress: told the share of the resampling that is done.
    """
    found = matches.accumulated()
    points = operating_points(matches)
    is_kept = kept(matches, points)
    return Diagnosis(
        matches,
        found,
        measure(matches, resample(len(matches.image_ids), resamples, seed), found, progress).intervals(),
        points,
        is_kept,
        find_errors(matches),
        confusion_matrix(matches, is_kept),
        calibration(matches),
        *recall_by_side(matches),
        resamples,
    )
