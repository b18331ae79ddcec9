"""Which classes are taken for each other."""

from __future__ import annotations

import numpy as np

from detector.evaluation.matches import IGNORED, TRUE, Matches
from detector.evaluation.metrics import IOU_THRESHOLDS


def confusion_matrix(matches: Matches, keep: np.ndarray) -> np.ndarray:
    """How often an object of one class (row) is detected as another (column); the last row and column are background.

    At an IoU of 0.5: first the matches of COCO, then the detections and objects that are left in each image are paired
    by falling IoU whatever their classes. What remains is background taken for an object, or an object not seen.
    Detections in crowds are left out.

    Args:
        matches: of a run.
        keep: bool ``[N]``, detections that count.

    Returns:
        int64 ``[K + 1, K + 1]``.
    """
    classes = len(matches.category_ids)
    table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    used = keep & (matches.outcome[0, 0] != IGNORED)
    hit = used & (matches.outcome[0, 0] == TRUE)
    np.add.at(table, (matches.label[hit], matches.label[hit]), 1)
    open_objects = ~matches.crowd
    open_objects[matches.partner[0, hit]] = False
    open_detections = used & ~hit
    for rows, objects in matches.by_image:
        rows, objects = rows[open_detections[rows]], objects[open_objects[objects]]
        overlaps = matches.overlaps(rows, objects)
        while overlaps.size and overlaps.max() >= IOU_THRESHOLDS[0]:
            d, g = np.unravel_index(overlaps.argmax(), overlaps.shape)
            table[matches.object_label[objects[g]], matches.label[rows[d]]] += 1
            open_detections[rows[d]] = open_objects[objects[g]] = False
            overlaps[d], overlaps[:, g] = 0, 0
    np.add.at(table, (classes, matches.label[open_detections]), 1)
    np.add.at(table, (matches.object_label[open_objects], classes), 1)
    return table
