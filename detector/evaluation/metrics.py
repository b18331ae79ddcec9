"""COCO's numbers: their names, what each of them measures, and how they follow from precision and recall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # as in pycocotools.cocoeval.Params, to the bit
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Limits of an object's area in square pixels, both included."""
COCO_LIMIT = 100
"""Detections that COCO counts for each image and class."""
LIMITS = (1, 10, COCO_LIMIT)
NO_GROUND_TRUTH = -1  # pycocotools' value for a number that has no ground truth to be measured on


class Metric(NamedTuple):
    """What one of COCO's numbers measures."""

    kind: str  # "precision": mean over the 101 recalls | "recall": the highest that is reached
    iou: float | None = None  # IoU threshold; None: mean over all ten
    area: str = "all"  # key of AREAS
    limit: int = COCO_LIMIT  # of LIMITS: detections counted for each image and class

    @property
    def iou_text(self) -> str:
        """The IoU thresholds as pycocotools prints them."""
        return "0.50:0.95" if self.iou is None else f"{self.iou:.2f}"

    @property
    def thresholds(self) -> slice:
        """Positions of its thresholds in :data:`IOU_THRESHOLDS`."""
        if self.iou is None:
            return slice(None)
        position = int(np.abs(IOU_THRESHOLDS - self.iou).argmin())
        return slice(position, position + 1)


METRICS = {
    "AP": Metric("precision"),
    "AP50": Metric("precision", iou=0.50),
    "AP75": Metric("precision", iou=0.75),
    "APs": Metric("precision", area="small"),
    "APm": Metric("precision", area="medium"),
    "APl": Metric("precision", area="large"),
    "AR1": Metric("recall", limit=1),
    "AR10": Metric("recall", limit=10),
    "AR100": Metric("recall"),
    "ARs": Metric("recall", area="small"),
    "ARm": Metric("recall", area="medium"),
    "ARl": Metric("recall", area="large"),
}
"""The twelve numbers by name, in the order of ``COCOeval.stats``."""
METRIC_NAMES = tuple(METRICS)
CLASS_METRICS = ("AP", "AP50", "AP75", "AR100")
"""The numbers that are given for each class."""


@dataclass(frozen=True)
class ClassResult:
    """The numbers of one class. A number is None if the class has no ground truth in the images scored."""

    category_id: int
    name: str
    AP: float | None
    AP50: float | None
    AR100: float | None
    boxes: int  # ground-truth boxes without crowds
    images: int  # images with at least one of them
    detections: int


@dataclass(frozen=True)
class Accumulated:
    """Precision and recall of K classes; -1 where a class has no ground truth.

    Attributes:
        precision: float64 ``[T, R, K, A, M]``: IoU threshold, recall, class, area, limit of detections.
        recall: float64 ``[T, K, A, M]``: the highest that is reached.
    """

    precision: np.ndarray
    recall: np.ndarray

    def metrics(self) -> dict[str, float | None]:
        """The twelve numbers of ``COCOeval.summarize``; None where there is no ground truth."""
        return {name: mean_known(self._values(metric)) for name, metric in METRICS.items()}

    def by_iou(self) -> list[float | None]:
        """AP at each IoU threshold."""
        return [mean_known(self._values(Metric("precision", iou=t))) for t in IOU_THRESHOLDS]

    def by_class(self) -> dict[str, list[float | None]]:
        """The numbers :data:`CLASS_METRICS` of each class."""
        values = {name: self._values(METRICS[name]) for name in CLASS_METRICS}
        return {name: [mean_known(found[..., k]) for k in range(found.shape[-1])] for name, found in values.items()}

    def precision_curves(self) -> np.ndarray:
        """Precision at the 101 recalls, mean over the classes with objects: float64 ``[T, 101]``; NaN for none."""
        precision = self._values(METRICS["AP"])
        known = precision[0, 0] > NO_GROUND_TRUTH
        return precision[:, :, known].mean(axis=2) if known.any() else np.full(precision.shape[:2], np.nan)

    def _values(self, metric: Metric) -> np.ndarray:
        """The values that ``metric`` is the mean of; the last dimension is the class."""
        a, m = list(AREAS).index(metric.area), LIMITS.index(metric.limit)
        found = self.precision if metric.kind == "precision" else self.recall
        return found[metric.thresholds, ..., a, m]


def mean_known(values: np.ndarray) -> float | None:
    """The mean of the values that have ground truth; None if there are none. pycocotools' own averaging, to the bit."""
    values = values[values > NO_GROUND_TRUTH]
    return float(np.mean(values)) if values.size else None


def limits(max_detections: int) -> list[int]:
    """The limits of detections per image and class: 1, 10 and ``max_detections``."""
    return [*(min(limit, max_detections) for limit in LIMITS[:-1]), max_detections]


def plain(value: Any) -> Any:
    """Numbers and arrays of them as JSON holds them: None for NaN and infinity."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return float(value) if math.isfinite(value) else None
