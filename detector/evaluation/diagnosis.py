"""Everything that is found out about one run, in one place: what tables, files and the report show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from detector.evaluation.confusion import confusion_matrix
from detector.evaluation.errors import KINDS, MISSED, Errors, find_errors
from detector.evaluation.intervals import Interval, Measured, Numbers, measure
from detector.evaluation.matches import FALSE, TRUE, Matches
from detector.evaluation.metrics import IOU_THRESHOLDS, Accumulated, plain
from detector.evaluation.slices import SIDES, BySide, recall_by_side
from detector.evaluation.thresholds import Calibration, OperatingPoint, calibration, kept, operating_points


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What a run gets right and wrong; each part is computed when it is first asked for.

    Attributes:
        matches: of detections and objects.
        accumulated: precision and recall.
        measured: the numbers and their replicates.
        resamples: behind the intervals; 0 for none.
    """

    matches: Matches
    accumulated: Accumulated
    measured: Measured
    resamples: int

    @cached_property
    def numbers(self) -> Numbers:
        """The COCO numbers, AP by IoU threshold, and those of each class; NaN bounds without resamples."""
        return self.measured.intervals()

    @property
    def metrics(self) -> dict[str, Interval]:
        """The twelve COCO numbers."""
        return self.numbers.metrics

    @cached_property
    def points(self) -> list[OperatingPoint]:
        """The best score threshold of each class."""
        return operating_points(self.matches)

    @cached_property
    def kept(self) -> np.ndarray:
        """bool ``[N]``: detections from the best threshold of their class on."""
        return kept(self.matches, self.points)

    @cached_property
    def true(self) -> np.ndarray:
        """bool ``[N]``: true positives at an IoU of 0.5 that are kept."""
        return self.kept & (self.matches.outcome[0, 0] == TRUE)

    @cached_property
    def false(self) -> np.ndarray:
        """bool ``[N]``: false positives at an IoU of 0.5 that are kept."""
        return self.kept & (self.matches.outcome[0, 0] == FALSE)

    @cached_property
    def found(self) -> np.ndarray:
        """bool ``[G]``: objects that a kept true positive matches."""
        found = np.zeros(len(self.matches.object_id), dtype=bool)
        found[self.matches.partner[0, self.true]] = True
        return found

    @cached_property
    def errors(self) -> Errors:
        """The breakdown into kinds."""
        return find_errors(self.matches)

    @cached_property
    def confusion(self) -> np.ndarray:
        """int64 ``[K + 1, K + 1]`` at the best thresholds, background last."""
        return confusion_matrix(self.matches, self.kept)

    @cached_property
    def calibration(self) -> Calibration:
        """Of the scores."""
        return calibration(self.matches)

    @cached_property
    def by_side(self) -> BySide:
        """Recall by size of the object."""
        return recall_by_side(self.matches)

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
                for i, (count, recall) in enumerate(zip(*self.by_side, strict=True))
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
        m, errors, count = self.matches, self.errors, len(self.matches.image_ids)
        tally = lambda images: np.bincount(images, minlength=count)
        columns = {
            "boxes": tally(m.object_image[m.counted[0]]),
            "found": tally(m.image[self.true]),
            "false": tally(m.image[self.false]),
        }
        columns["not_found"] = columns["boxes"] - columns["found"]
        columns |= {kind: tally(m.image[self.kept & (errors.kind == i)]) for i, kind in enumerate(KINDS) if i != MISSED}
        columns[KINDS[MISSED]] = tally(m.object_image[errors.missed])
        lists = {"image_id": m.image_ids.tolist(), "file_name": file_names}
        lists |= {name: values.tolist() for name, values in columns.items()}
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def diagnose(matches: Matches, weights: np.ndarray, progress: Callable[[float], object] | None = None) -> Diagnosis:
    """Measure a run; what else is asked for is found in its matches.

    Args:
        matches: of the run.
        weights: resamples of the images, as :func:`detector.evaluation.intervals.resample` returns them; none of
            them: no intervals.
        progress: told the share of the resampling that is done.
    """
    found = matches.accumulated()
    return Diagnosis(matches, found, measure(matches, weights, found, progress), len(weights))
