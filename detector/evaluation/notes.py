"""What a reader of the numbers must know, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detector.config.commands import command
from detector.data.systematic import seem_corners, seem_fractions
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth, some
from detector.evaluation.matches import Matches
from detector.evaluation.metrics import COCO_LIMIT, ClassResult
from detector.words import counted


def limit_notes(matches: Matches) -> list[str]:
    """What the limit of detections means for these numbers, where a reader would not expect it."""
    notes = []
    if matches.limit != COCO_LIMIT:
        notes.append(
            f"Up to {counted(matches.limit, 'detection is', 'detections are')} counted for each image and "
            f"class; COCO's own numbers (and the name AR100) mean {COCO_LIMIT}."
        )
    over = int(matches.given.sum()) - len(matches.score)
    if over:
        notes.append(
            f"{counted(over, 'detection is', 'detections are')} beyond the {matches.limit} best of the image "
            f"and class, and not counted; {command('evaluate')} counts more with max_detections=N."
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


def scope_notes(
    matches: Matches, metrics: Mapping[str, float | None], per_class: Sequence[ClassResult], truth: GroundTruth
) -> list[str]:
    """Which images, sizes and classes the numbers cover, and which they do not."""
    notes = []
    if len(matches.image_ids) < len(truth.image_ids):
        notes.append(
            f"Scored on {len(matches.image_ids):,} of the {len(truth.image_ids):,} images of {truth.path.name}."
        )
    if not any(c.boxes for c in per_class):
        notes.append("There is no ground-truth box (without crowds) in these images, so nothing can be measured: n/a.")
    else:
        if not len(matches.score):
            notes.append("There are no detections: every number that has ground truth is 0.")
        for size, names in (("small", ("APs", "ARs")), ("medium", ("APm", "ARm")), ("large", ("APl", "ARl"))):
            if metrics[names[0]] is None:
                notes.append(f"No ground-truth object is {size}: {' and '.join(names)} are n/a.")
        absent = [c for c in per_class if not c.boxes]
        if absent:
            ignored = sum(c.detections for c in absent)
            also = f", and with them {counted(ignored, 'detection')}" if ignored else ""
            notes.append(
                f"Classes without ground truth in these images are left out of every mean{also}: "
                f"{some([c.name for c in absent])}."
            )
    return notes
