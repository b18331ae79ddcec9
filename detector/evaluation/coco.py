"""COCO box metrics by pycocotools, the reference: its numbers are returned as they are, to the last digit."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval
from rich.console import Group

from detector.evaluation.detections import Detections
from detector.evaluation.files import problem_list, replacing
from detector.evaluation.ground_truth import GroundTruth, make_coco, some
from detector.evaluation.tables import as_text, class_table, metric_table, note_lines

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve numbers, in the order of ``COCOeval.stats``."""

NO_GROUND_TRUTH = -1  # what pycocotools returns for a number that has no ground truth to be measured on


@dataclass(frozen=True)
class ClassResult:
    """The numbers of one class. A number is None if the class has no ground truth in the images scored."""

    category_id: int
    name: str
    AP: float | None
    AP50: float | None
    AR100: float | None
    boxes: int  # ground-truth boxes, crowds apart
    images: int  # images with at least one of them
    detections: int


@dataclass(frozen=True)
class CocoResult:
    """The outcome of one evaluation.

    Attributes:
        metrics: the twelve numbers by name, as Python floats; None where there is no ground truth.
        per_class: one entry a category, by category id.
        notes: sentences on what to know when reading the numbers.
        images: images scored.
        boxes: ground-truth boxes in them, crowds apart.
        detections: detections in them.
    """

    metrics: dict[str, float | None]
    per_class: list[ClassResult]
    notes: list[str] = field(default_factory=list)
    images: int = 0
    boxes: int = 0
    detections: int = 0

    def __rich__(self) -> Group:
        counts = f"{self.images:,} images, {self.boxes:,} ground-truth boxes, {self.detections:,} detections"
        notes = [note_lines(self.notes)] if self.notes else []
        return Group(metric_table(self.metrics), class_table(self.per_class), counts, *notes)

    def table(self) -> str:
        """The tables and notes as plain text. ``rich.print(result)`` prints the same with colours."""
        return as_text(self)

    def to_dict(self) -> dict[str, Any]:
        """The twelve numbers at the top level, ``per_class``, ``notes`` and ``counts`` beside them."""
        return {**self.metrics, "per_class": [asdict(result) for result in self.per_class], "notes": self.notes,
                "counts": {"images": self.images, "boxes": self.boxes, "detections": self.detections}}

    def save(self, path: str | Path, meta: Mapping[str, Any] | None = None) -> None:
        """Write ``metrics.json``: :meth:`to_dict` and ``meta``, floats at full precision, ``null`` for None.

        The file is written under a temporary name and renamed.
        """
        with replacing(path) as temporary:
            text = json.dumps({**self.to_dict(), "meta": dict(meta or {})}, indent=2, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")


def evaluate(annotations: str | Path | GroundTruth, detections: Detections,
             image_ids: Sequence[int] | None = None) -> CocoResult:
    """Score ``detections`` against the annotation file as pycocotools does.

    Args:
        annotations: COCO annotation JSON, or what is read from one (when several evaluations share it).
        detections: at most one set an image; see :meth:`Detections.concat` for distributed evaluation.
        image_ids: score these images only; None: all images of the file, also those without a detection.

    Raises:
        DataError: the annotations cannot be evaluated, or a detection names an image or category that
            they do not have, or is not finite.
    """
    truth = annotations if isinstance(annotations, GroundTruth) else GroundTruth(annotations)
    scored = truth.image_ids if image_ids is None else sorted({int(i) for i in image_ids})
    check(detections, truth, scored)
    inside = detections.only(scored)
    evaluation = run_cocoeval(truth, inside, scored)

    metrics = {name: known(value) for name, value in zip(METRIC_NAMES, evaluation.stats.tolist(), strict=True)}
    per_class = class_results(evaluation, truth, inside, scored)
    result = CocoResult(metrics, per_class, [], len(scored), sum(c.boxes for c in per_class), len(inside))
    result.notes.extend(explanations(result, truth))
    return result


def check(detections: Detections, truth: GroundTruth, image_ids: Sequence[int]) -> None:
    """Raise :class:`DataError` for detections that pycocotools would misread or silently leave out."""
    unknown = sorted(set(image_ids) - set(truth.image_ids))
    if unknown:
        raise problem_list(f"{truth.path}: images to be scored are not in this file", [f"image {i}" for i in unknown])
    checks = (
        (~np.isin(detections.image_id, truth.image_ids), "image {image} is not in the annotation file"),
        (~np.isin(detections.category_id, truth.category_ids), "category {category} is not in the annotation file"),
        (~np.isfinite(detections.boxes_xywh).all(axis=1), "the box {box} (x, y, width, height) is not finite"),
        ((detections.boxes_xywh[:, 2:] < 0).any(axis=1), "the box {box} (x, y, width, height) has a negative size"),
        (~np.isfinite(detections.score), "the score {score} is not finite"),
    )
    problems = []
    for wrong, message in checks:
        for row in np.flatnonzero(wrong).tolist():
            problems.append((row, message.format(image=detections.image_id[row], category=detections.category_id[row],
                                                 box=detections.boxes_xywh[row].tolist(), score=detections.score[row])))
    if problems:
        raise problem_list(f"{detections.source or 'detections'}: not usable with the annotations {truth.path}",
                           [f"detection {row} (from 0): {message}" for row, message in sorted(problems)])


def run_cocoeval(truth: GroundTruth, detections: Detections, image_ids: Sequence[int]) -> COCOeval:
    """pycocotools' evaluation, accumulated and summarised, with its default parameters and without its prints.

    The detections are handed over directly: ``COCO.loadRes`` fails on an empty list, adds a polygon to every box, and
    in its array form passes ids through float64, which changes ids above 2**53. Otherwise this is what it does.
    """
    columns = zip(detections.image_id.tolist(), detections.category_id.tolist(), detections.boxes_xywh.tolist(),
                  detections.score.tolist(), strict=True)
    entries = [{"id": number, "image_id": image_id, "category_id": category_id, "bbox": box,
                "area": box[2] * box[3], "score": score, "iscrowd": 0}
               for number, (image_id, category_id, box, score) in enumerate(columns, start=1)]
    results = make_coco(truth.image_ids, truth.category_ids, entries)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth.coco, results, "bbox")
        evaluation.params.imgIds = list(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def class_results(evaluation: COCOeval, truth: GroundTruth, detections: Detections,
                  image_ids: Sequence[int]) -> list[ClassResult]:
    """AP, AP50 and AR100 of each class from the accumulated precision and recall, with its counts."""
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class], all areas, 100 detections
    recall = evaluation.eval["recall"][:, :, 0, -1]  # [IoU, class]
    objects: dict[int, list[int]] = {}  # the image of each ground-truth box, by category
    for box in truth.boxes(image_ids):
        if not box["iscrowd"]:
            objects.setdefault(box["category_id"], []).append(box["image_id"])
    return [
        ClassResult(category_id, name, AP=mean_known(precision[:, :, k]), AP50=mean_known(precision[0, :, k]),
                    AR100=mean_known(recall[:, k]), boxes=len(objects.get(category_id, [])),
                    images=len(set(objects.get(category_id, []))),
                    detections=int((detections.category_id == category_id).sum()))
        for k, (category_id, name) in enumerate(zip(truth.category_ids, truth.class_names, strict=True))
    ]


def mean_known(values: np.ndarray) -> float | None:
    """The mean of the values that have ground truth; None if there are none. pycocotools' own averaging."""
    values = values[values > NO_GROUND_TRUTH]
    return float(np.mean(values)) if values.size else None


def known(value: float) -> float | None:
    """``value``, or None for pycocotools' -1."""
    return None if value == NO_GROUND_TRUTH else value


def explanations(result: CocoResult, truth: GroundTruth) -> list[str]:
    """What a reader of the numbers must know, in sentences."""
    notes = []
    if result.images < len(truth.image_ids):
        notes.append(f"Scored on {result.images:,} of the {len(truth.image_ids):,} images of {truth.path.name}.")
    if not result.boxes:
        notes.append("There is no ground-truth box (crowds apart) in these images, so nothing can be measured: n/a.")
    else:
        if not result.detections:
            notes.append("There are no detections: every number that has ground truth is 0.")
        for size, names in (("small", ("APs", "ARs")), ("medium", ("APm", "ARm")), ("large", ("APl", "ARl"))):
            if result.metrics[names[0]] is None:
                notes.append(f"No ground-truth object is {size}: {' and '.join(names)} are n/a.")
        absent = [c for c in result.per_class if not c.boxes]
        if absent:
            ignored = sum(c.detections for c in absent)
            also = f" and so are their {ignored:,} detections" if ignored else ""
            notes.append(f"Classes without ground truth in these images are left out of every mean{also}: "
                         f"{some([c.name for c in absent])}.")
    return notes + truth.notes
