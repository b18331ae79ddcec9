"""COCO's precision and recall, what is computed from them, and pycocotools, which is the reference for both.

One class is evaluated at a time. The numbers of a class do not depend on the other classes, and so no more than the
annotations and detections of one class exist as Python dicts at any time: memory stays flat for 80 classes on
5,000 images, where one evaluation of all classes keeps 1.6 million dicts of arrays.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth

NO_GROUND_TRUTH = -1  # what pycocotools returns for a number that has no ground truth to be measured on
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # as in pycocotools.cocoeval.Params, to the bit
RECALLS = np.linspace(0.0, 1.0, 101)
# Limits of an object's area in square pixels, both included.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
COCO_LIMIT = 100
"""Detections that COCO counts for each image and class."""


@dataclass(frozen=True)
class Accumulated:
    """Precision and recall of K classes; -1 where a class has no ground truth.

    Attributes:
        precision: float64 ``[T, R, K, A, M]``: IoU threshold, recall, class, area, limit of detections.
        recall: float64 ``[T, K, A, M]``: the highest that is reached.
    """

    precision: np.ndarray
    recall: np.ndarray

    def average_precision(self, area: str = "all", iou: float | None = None) -> float | None:
        """AP over classes, recalls and IoU thresholds (or the one ``iou``), with the highest limit of detections."""
        thresholds = slice(None) if iou is None else np.flatnonzero(np.isclose(IOU_THRESHOLDS, iou))
        return mean_known(self.precision[thresholds, :, :, list(AREAS).index(area), -1])

    def average_recall(self, area: str = "all", limit: int = -1) -> float | None:
        """AR over classes and IoU thresholds; ``limit`` is a position in the limits of detections."""
        return mean_known(self.recall[:, :, list(AREAS).index(area), limit])

    def metrics(self) -> dict[str, float | None]:
        """The twelve numbers of ``COCOeval.summarize``, in its order; None where there is no ground truth."""
        ap, ar = self.average_precision, self.average_recall
        return {
            "AP": ap(),
            "AP50": ap(iou=0.5),
            "AP75": ap(iou=0.75),
            "APs": ap("small"),
            "APm": ap("medium"),
            "APl": ap("large"),
            "AR1": ar(limit=0),
            "AR10": ar(limit=1),
            "AR100": ar(),
            "ARs": ar("small"),
            "ARm": ar("medium"),
            "ARl": ar("large"),
        }


def mean_known(values: np.ndarray) -> float | None:
    """The mean of the values that have ground truth; None if there are none. pycocotools' own averaging, to the bit."""
    values = values[values > NO_GROUND_TRUTH]
    return float(np.mean(values)) if values.size else None


def limits(max_detections: int) -> list[int]:
    """The limits of detections an image and class: 1, 10 and ``max_detections``."""
    return [1, min(10, max_detections), max_detections]


def accumulate(
    truth: GroundTruth, detections: Detections, image_ids: Sequence[int], max_detections: int = COCO_LIMIT
) -> Accumulated:
    """Evaluate class by class with pycocotools.

    Args:
        truth: the annotations.
        detections: checked against ``truth``.
        image_ids: images to be scored, sorted.
        max_detections: detections counted for each image and class, best first.
    """
    counts = limits(max_detections)
    shape = (len(truth.category_ids), len(AREAS), len(counts))
    precision = np.full((len(IOU_THRESHOLDS), len(RECALLS), *shape), float(NO_GROUND_TRUTH))
    recall = np.full((len(IOU_THRESHOLDS), *shape), float(NO_GROUND_TRUTH))
    scored = truth.rows(image_ids)
    ids = np.array(truth.image_ids, dtype=np.int64)
    inside = np.isin(detections.image_id, np.asarray(image_ids, dtype=np.int64))
    for k, category_id in enumerate(truth.category_ids):
        boxes = np.flatnonzero(scored & (truth.label == k))
        if not len(boxes):
            continue  # -1 whatever is detected
        annotations = [
            {"id": number, "image_id": image, "category_id": category_id, "bbox": box, "area": area, "iscrowd": crowd}
            for number, image, box, area, crowd in zip(
                truth.ids[boxes].tolist(),
                ids[truth.image[boxes]].tolist(),
                truth.boxes_xywh[boxes].tolist(),
                truth.area[boxes].tolist(),
                truth.iscrowd[boxes].astype(int).tolist(),
                strict=True,
            )
        ]
        rows = np.flatnonzero(inside & (detections.category_id == category_id))
        results = [
            {
                "id": number,
                "image_id": image,
                "category_id": category_id,
                "bbox": box,
                "area": box[2] * box[3],
                "score": score,
                "iscrowd": 0,
            }
            for number, (image, box, score) in enumerate(
                zip(
                    detections.image_id[rows].tolist(),
                    detections.boxes_xywh[rows].tolist(),
                    detections.score[rows].tolist(),
                    strict=True,
                ),
                start=1,
            )
        ]
        found = _one_class(list(image_ids), category_id, annotations, results, counts)
        precision[:, :, k], recall[:, k] = found["precision"][:, :, 0], found["recall"][:, 0]
    return Accumulated(precision, recall)


def _one_class(
    image_ids: list[int],
    category_id: int,
    annotations: list[dict[str, Any]],
    results: list[dict[str, Any]],
    counts: list[int],
) -> dict[str, np.ndarray]:
    """One class by pycocotools, with its default parameters and without its prints.

    The detections are handed over directly: ``COCO.loadRes`` fails on an empty list, adds a polygon to every box, and
    in its array form passes ids through float64, which changes ids above 2**53. Otherwise this is what it does.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        indices = [_index(image_ids, category_id, entries) for entries in (annotations, results)]
        evaluation = COCOeval(*indices, "bbox")
        evaluation.params.maxDets = counts
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


def _index(image_ids: list[int], category_id: int, entries: list[dict[str, Any]]) -> COCO:
    """pycocotools' index over annotations or detections, without a file."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in image_ids],
        "categories": [{"id": category_id}],
        "annotations": entries,
    }
    coco.createIndex()
    return coco
