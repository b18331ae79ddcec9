"""COCO box metrics as a published evaluator gives them, to the last digit, with the numbers of each class."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group

from detector.data.systematic import seem_corners, seem_fractions
from detector.evaluation.cocoeval import COCO_LIMIT, Accumulated, accumulate, mean_known
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth, some
from detector.evaluation.matches import match
from detector.evaluation.tables import as_text, class_table, metric_table, note_lines
from detector.files import LARGEST, problem_list, replacing
from detector.words import counted

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve numbers, in the order of ``COCOeval.stats``."""


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
        max_detections: detections counted for each image and class.
        intervals: low and high end of the 95 % interval of each number, where it is known.
    """

    metrics: dict[str, float | None]
    per_class: list[ClassResult]
    notes: list[str] = field(default_factory=list)
    images: int = 0
    boxes: int = 0
    detections: int = 0
    max_detections: int = COCO_LIMIT
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __rich__(self) -> Group:
        counts = ", ".join(
            [
                counted(self.images, "image"),
                counted(self.boxes, "ground-truth box", "ground-truth boxes"),
                counted(self.detections, "detection"),
            ]
        )
        notes = [note_lines(self.notes)] if self.notes else []
        metrics = metric_table(self.metrics, self.intervals, self.max_detections)
        return Group(metrics, class_table(self.per_class), counts, *notes)

    def table(self) -> str:
        """The tables and notes as plain text. ``rich.print(result)`` prints the same with colours."""
        return as_text(self)

    def to_dict(self) -> dict[str, Any]:
        """The twelve numbers at the top level, ``per_class``, ``notes`` and ``counts`` beside them."""
        return {
            **self.metrics,
            "per_class": [asdict(result) for result in self.per_class],
            "notes": self.notes,
            "counts": {"images": self.images, "boxes": self.boxes, "detections": self.detections},
        }

    def save(
        self, path: str | Path, meta: Mapping[str, Any] | None = None, more: Mapping[str, Any] | None = None
    ) -> None:
        """Write ``metrics.json``: :meth:`to_dict`, ``meta`` and ``more``, floats at full precision, ``null`` for None.

        The file is written under a temporary name and renamed.
        """
        with replacing(path) as temporary:
            text = json.dumps({**self.to_dict(), **(more or {}), "meta": dict(meta or {})}, indent=2, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")


def evaluate(
    annotations: str | Path | GroundTruth,
    detections: Detections,
    image_ids: Sequence[int] | None = None,
    *,
    evaluator: str = "pycocotools",
    max_detections: int = COCO_LIMIT,
) -> CocoResult:
    """Score ``detections`` against the annotation file as pycocotools does.

    Args:
        annotations: COCO annotation JSON, or what is read from one (when several evaluations share it).
        detections: at most one set an image; see :meth:`Detections.concat` for distributed evaluation.
        image_ids: score these images only; None: all images of the file, also those without a detection.
        evaluator: ``pycocotools``, or ``faster``: the array form of it in :mod:`detector.evaluation.matches`, which
            gives the same numbers to the bit in a tenth of the time.
        max_detections: detections counted for each image and class; ``AR100`` and all other numbers but ``AR1`` and
            ``AR10`` mean this limit if it is another one than COCO's 100.

    Raises:
        DataError: the annotations cannot be evaluated, or a detection names an image or category that
            they do not have, or is not finite.
    """
    truth = annotations if isinstance(annotations, GroundTruth) else GroundTruth(annotations)
    scored = truth.image_ids if image_ids is None else sorted({int(i) for i in image_ids})
    check(detections, truth, scored)
    inside = detections.only(scored)
    if evaluator == "faster":
        found = match(truth, inside, scored, max_detections).accumulated()
    else:
        found = accumulate(truth, inside, scored, max_detections)
    per_class = class_results(found, truth, inside, scored)
    result = CocoResult(
        found.metrics(), per_class, [], len(scored), sum(c.boxes for c in per_class), len(inside), max_detections
    )
    result.notes.extend(explanations(result, truth))
    result.notes.extend(limit_notes(inside, max_detections))
    result.notes.extend(box_notes(inside, truth))
    return result


def check(detections: Detections, truth: GroundTruth, image_ids: Sequence[int]) -> None:
    """Raise :class:`DataError` for detections that pycocotools would misread or silently leave out."""
    unknown = sorted(set(image_ids) - set(truth.image_ids))
    if unknown:
        raise problem_list(f"{truth.path}: images to be scored are not in this file", [f"image {i}" for i in unknown])
    checks = (
        (~np.isin(detections.image_id, truth.image_ids), "image {image} is not in the annotation file"),
        (~np.isin(detections.category_id, truth.category_ids), "category {category} is not in the annotation file"),
        (
            ~(np.abs(detections.boxes_xywh) < LARGEST).all(axis=1),
            "the box {box} (x, y, width, height) is not finite or absurdly large",
        ),
        ((detections.boxes_xywh[:, 2:] < 0).any(axis=1), "the box {box} (x, y, width, height) has a negative size"),
        (~np.isfinite(detections.score), "the score {score} is not finite"),
    )
    problems = []
    for wrong, message in checks:
        for row in np.flatnonzero(wrong).tolist():
            problems.append(
                (
                    row,
                    message.format(
                        image=detections.image_id[row],
                        category=detections.category_id[row],
                        box=detections.boxes_xywh[row].tolist(),
                        score=detections.score[row],
                    ),
                )
            )
    if problems:
        raise problem_list(
            f"{detections.source or 'detections'}: not usable with the annotations {truth.path}",
            [f"detection {row} (from 0): {message}" for row, message in sorted(problems)],
        )


def class_results(
    found: Accumulated, truth: GroundTruth, detections: Detections, image_ids: Sequence[int]
) -> list[ClassResult]:
    """AP, AP50 and AR100 of each class from the accumulated precision and recall, with its counts."""
    precision, recall = found.precision[:, :, :, 0, -1], found.recall[:, :, 0, -1]  # [IoU, recall, class], [IoU, class]
    objects = truth.rows(image_ids) & ~truth.iscrowd
    return [
        ClassResult(
            category_id,
            name,
            AP=mean_known(precision[:, :, k]),
            AP50=mean_known(precision[0, :, k]),
            AR100=mean_known(recall[:, k]),
            boxes=int((objects & (truth.label == k)).sum()),
            images=len(np.unique(truth.image[objects & (truth.label == k)])),
            detections=int((detections.category_id == category_id).sum()),
        )
        for k, (category_id, name) in enumerate(zip(truth.category_ids, truth.class_names, strict=True))
    ]


def limit_notes(detections: Detections, max_detections: int) -> list[str]:
    """What the limit of detections means for these numbers, where a reader would not expect it."""
    notes = []
    if max_detections != COCO_LIMIT:
        notes.append(
            f"Up to {counted(max_detections, 'detection is', 'detections are')} counted for each image and "
            f"class; COCO's own numbers (and the name AR100) mean {COCO_LIMIT}."
        )
    pairs = np.stack([detections.image_id, detections.category_id])
    counts = np.unique(pairs, axis=1, return_counts=True)[1]
    over = int(np.maximum(counts - max_detections, 0).sum())
    if over:
        notes.append(
            f"{counted(over, 'detection is', 'detections are')} beyond the {max_detections} best of the image "
            "and class, and not counted; max_detections=N counts more."
        )
    return notes


def box_notes(detections: Detections, truth: GroundTruth) -> list[str]:
    """Boxes that seem to be something else than (left, top, width, height) in pixels."""
    notes = []
    found = truth.sizes[np.searchsorted(truth.image_ids, detections.image_id)]
    for file, boxes, sizes in (
        (detections.source or "the detections", detections.boxes_xywh, found),
        (truth.path, truth.boxes_xywh, truth.sizes[truth.image]),
    ):
        if seem_fractions(boxes, sizes):
            wrong = "are within 0 and 1: they seem to be fractions of width and height"
        elif seem_corners(boxes, sizes):
            wrong = "leave many images as [x, y, width, height], and none as [x1, y1, x2, y2]: they seem to be corners"
        else:
            continue
        notes.append(f"The boxes of {file} {wrong}. COCO files have [x, y, width, height] in pixels.")
    return notes


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
            also = f", and with them {counted(ignored, 'detection')}" if ignored else ""
            notes.append(
                f"Classes without ground truth in these images are left out of every mean{also}: "
                f"{some([c.name for c in absent])}."
            )
    return notes + truth.notes
