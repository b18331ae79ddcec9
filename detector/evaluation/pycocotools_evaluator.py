"""Precision and recall by pycocotools itself: the reference of :mod:`detector.evaluation.matches`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.metrics import COCO_LIMIT, Accumulated, limits


def accumulate(
    truth: GroundTruth, detections: Detections, image_ids: Sequence[int], max_detections: int = COCO_LIMIT
) -> Accumulated:
    """Evaluate with pycocotools, with its default parameters and without its prints.

    The detections are handed over without ``COCO.loadRes``, which fails on an empty list, adds a polygon to every box,
    and in its array form passes ids through float64, which changes ids above 2**53.

    Args:
        truth: the annotations.
        detections: checked against ``truth`` (:meth:`GroundTruth.check`).
        image_ids: images to be scored.
        max_detections: detections counted for each image and class, best first.
    """
    annotations = {
        "id": np.arange(1, len(truth.ids) + 1),  # pycocotools takes a match with the id 0 for none
        "image_id": np.array(truth.image_ids, dtype=np.int64)[truth.image],
        "category_id": np.array(truth.category_ids, dtype=np.int64)[truth.label],
        "bbox": truth.boxes_xywh,
        "area": truth.area,
        "iscrowd": truth.iscrowd.astype(int),
    }
    results = {
        "id": np.arange(1, len(detections) + 1),
        "image_id": detections.image_id,
        "category_id": detections.category_id,
        "bbox": detections.boxes_xywh,
        "area": detections.area,
        "iscrowd": np.zeros(len(detections), dtype=int),
        "score": detections.score,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_index(truth, annotations), _index(truth, results), "bbox")
        evaluation.params.imgIds = sorted(image_ids)
        evaluation.params.maxDets = limits(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
    return Accumulated(evaluation.eval["precision"], evaluation.eval["recall"])


def _index(truth: GroundTruth, columns: dict[str, np.ndarray]) -> COCO:
    """pycocotools' index over annotations or detections, without a file."""
    coco = COCO()
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    coco.dataset = {
        "images": [{"id": i} for i in truth.image_ids],
        "categories": [{"id": i} for i in truth.category_ids],
        "annotations": [dict(zip(columns, row, strict=True)) for row in rows],
    }
    coco.createIndex()
    return coco
