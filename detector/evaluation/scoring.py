"""Detections scored against annotations: COCO's twelve numbers, those of each class, and what to know about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group

from detector.evaluation import pycocotools_evaluator
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.matches import Matches, match
from detector.evaluation.metrics import COCO_LIMIT, ClassResult
from detector.evaluation.notes import box_notes, limit_notes, scope_notes
from detector.evaluation.result_tables import as_text, class_table, metric_table, note_lines
from detector.files import write_json
from detector.outcome import as_html
from detector.words import counted


@dataclass(frozen=True)
class CocoResult:
    """The outcome of one evaluation.

    Attributes:
        metrics: the twelve numbers by name, as Python floats; None where there is no ground truth.
        per_class: one entry per category, by category id.
        notes: sentences on what to know when reading the numbers.
        images: images scored.
        boxes: ground-truth boxes in them, without crowds.
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

    def _repr_html_(self) -> str:
        """For a notebook."""
        return as_html(self)

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
        """Write ``metrics.json``: :meth:`to_dict`, ``more`` and ``meta``, floats at full precision, ``null`` for None.

        The file is written under a temporary name and renamed.
        """
        write_json(Path(path), {**self.to_dict(), **(more or {}), "meta": dict(meta or {})})


def evaluate(
    annotations: str | Path | GroundTruth,
    detections: Detections,
    image_ids: Sequence[int] | None = None,
    *,
    evaluator: str = "builtin",
    max_detections: int = COCO_LIMIT,
) -> CocoResult:
    """Score ``detections`` against the annotation file; the numbers are those of pycocotools to the bit.

    Args:
        annotations: COCO annotation JSON, or what is read from one (when several evaluations share it).
        detections: of each image once; see :meth:`Detections.concat` for distributed evaluation.
        image_ids: score these images only; None: all images of the file, also those without a detection.
        evaluator: ``builtin`` (:mod:`detector.evaluation.matches`), or ``pycocotools``, which takes ten times as long.
        max_detections: detections counted for each image and class; ``AR100`` and all other numbers but ``AR1`` and
            ``AR10`` mean this limit if it is another one than COCO's 100.

    Raises:
        DataError: the annotations cannot be evaluated, or a detection names an image or category that
            they do not have, or is not finite.
    """
    truth = annotations if isinstance(annotations, GroundTruth) else GroundTruth(annotations)
    matches = match(truth, detections, image_ids, max_detections)
    return summarize(matches, truth, detections, evaluator)


def summarize(matches: Matches, truth: GroundTruth, detections: Detections, evaluator: str = "builtin") -> CocoResult:
    """The outcome of an evaluation whose detections are matched; arguments as those of :func:`evaluate`."""
    scored = matches.image_ids.tolist()
    inside = detections.only(scored)
    if evaluator == "pycocotools":
        found = pycocotools_evaluator.accumulate(truth, inside, scored, matches.limit)
    else:
        found = matches.accumulated()
    metrics, per_class = found.metrics(), matches.class_results(found)
    return CocoResult(
        metrics,
        per_class,
        [
            *scope_notes(matches, metrics, per_class, truth),
            *truth.notes,
            *limit_notes(matches),
            *box_notes(inside, truth),
        ],
        images=len(scored),
        boxes=sum(c.boxes for c in per_class),
        detections=len(inside),
        max_detections=matches.limit,
    )
