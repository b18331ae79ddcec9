"""The second half of a cleaning: what the image files and the boxes' places in them say.

Its first half is ``mend``. Everything that the reader does not use stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.annotation_table import check_boxes
from detector.data.annotations import Annotations, parse_annotations
from detector.data.areas import odd_areas
from detector.data.problems import Problem
from detector.data.systematic import straighten_boxes
from detector.files import write_json
from detector.inspection.changes import Change, ChangeLog

SAME_BOX = 0.9  # IoU from which two boxes of one class and image are one object drawn twice
BLOCK = 256  # boxes that are held against the others at once
Wrong = Mapping[int, tuple[str, str]]


def repair(
    file: Path, content: Mapping[str, Any], unusable: Wrong, sizes: Mapping[int, tuple[int, int]], log: ChangeLog
) -> dict[str, Any]:
    """The content of an annotation file without its problems.

    - Images of ``unusable`` are left out with their annotations, as are annotations without a box inside their image
      and boxes drawn twice.
    - Boxes that are corners become sizes; boxes that leave their image by more than a pixel are clipped.
    - Areas that cannot be right become width times height.

    Args:
        file: that the content is of.
        content: mended (:func:`~detector.inspection.mend.mend`).
        unusable: ids of images to leave out: the kind of the problem, and why.
        sizes: height and width of images whose entries have another size, by id.
        log: takes the changes.
    """
    images = []
    for entry in content["images"]:
        height, width = sizes.get(entry["id"], (None, None))
        if height is not None:
            why = "its width and height are exchanged"
            log("resized image", why, entry, before=[entry["height"], entry["width"]], after=[height, width])
            entry = {**entry, "height": height, "width": width}
        images.append(entry)
    annotations = as_sizes(file, {**content, "images": images}, log)
    wrong = {i: unusable[entry["id"]] for i, entry in enumerate(images) if entry["id"] in unusable}
    of_them = {
        i: ("image_left_out", f"its image is left out: {unusable[entry['image_id']][1]}")
        for i, entry in enumerate(annotations)
        if entry["image_id"] in unusable
    }
    images = log.without(images, wrong, "dropped image")
    annotations = log.without(annotations, of_them, "dropped annotation")
    before = -1
    while len(log.changes) > before:  # a clipped box may be that of another annotation
        before = len(log.changes)
        annotations = clean_annotations(file, {**content, "images": images, "annotations": annotations}, log)
    return {**content, "images": images, "annotations": annotations}


def as_sizes(file: Path, content: Mapping[str, Any], log: ChangeLog) -> list[Any]:
    """The annotations, with sizes instead of corners if the boxes of the whole file are corners."""
    read, strange = straighten_boxes(parse_annotations(file, content, strict=False))
    annotations = list(content["annotations"])
    if any(p.kind == "corner_boxes" for p in strange):
        for position, box in zip(read.position.tolist(), read.boxes_xywh.tolist(), strict=True):
            log("corners to sizes", "the boxes of the file are corners", annotations[position], after=box)
            annotations[position] = {**annotations[position], "bbox": box}
    return annotations


def clean_annotations(file: Path, content: Mapping[str, Any], log: ChangeLog) -> list[Any]:
    """The annotations of cleaned images and categories that the reader takes."""
    read = parse_annotations(file, content, strict=False)
    geometric = check_boxes(read, clip=False)[1]
    clipped = {p.position: p.what for p in geometric if p.remedy == "clip"}
    dropped = [*repeated_boxes(read), *(p for p in geometric if p.position not in clipped), *read.problems]
    fractions = [p for p in straighten_boxes(read)[1] if p.kind == "relative_boxes"]
    wrong = {position: (p.kind, p.what) for position in read.position.tolist() for p in fractions}
    wrong |= {p.position: (p.kind, p.what) for p in dropped}
    areas = odd_areas(read.boxes_xywh, read.area, read.area_given)
    odd = {row: what for what, rows in areas.items() for row in np.flatnonzero(rows).tolist()}
    rows = {position: row for row, position in enumerate(read.position.tolist())}
    kept = []
    for position, entry in enumerate(content["annotations"]):
        if position in wrong:
            kind, why = wrong[position]
            log("dropped annotation", why, entry, kind=kind)
            continue
        row = rows[position]
        x, y, w, h = read.boxes_xywh[row].tolist()
        area = float(read.area[row])
        if row in odd:
            log("corrected area", f"this is an annotation {odd[row]}", entry, after=w * h)
            area = w * h
            entry = {**entry, "area": area}
        if position in clipped:
            height, width = read.sizes[read.image[row]].tolist()
            x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
            share = (x2 - x1) * (y2 - y1) / (w * h)
            log("clipped box", clipped[position], entry, after=[x1, y1, x2 - x1, y2 - y1])
            entry = {**entry, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": area * share}
        kept.append(entry)
    return kept


def repeated_boxes(read: Annotations) -> list[Problem]:
    """The annotations that repeat one before them: the same image and class, and nearly the same box."""
    problems = []
    order = np.lexsort((read.position, read.label, read.image))
    keys = read.image[order] * max(len(read.category_ids), 1) + read.label[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    for rows in np.split(order, starts[1:]):
        rows = rows[(read.iscrowd[rows] == 0) & ~read.ignore[rows] & (read.boxes_xywh[rows, 2:] > 0).all(axis=1)]
        if len(rows) < 2:
            continue
        low, size = read.boxes_xywh[rows, :2], read.boxes_xywh[rows, 2:]
        area = size.prod(axis=1)
        for start in range(0, len(rows), BLOCK):  # all pairs of thousands of boxes would fill the memory
            part = slice(start, start + BLOCK)
            shared = np.minimum((low + size)[part, None], low + size) - np.maximum(low[part, None], low)
            shared = np.clip(shared, 0, None).prod(axis=2)
            same = np.tril(shared / (area[part, None] + area - shared) >= SAME_BOX, start - 1)
            for later in np.flatnonzero(same.any(axis=1)).tolist():
                what = f"the box is that of annotation {read.ids[rows[same[later].argmax()]]} again"
                problems.append(read.problem(int(rows[start + later]), "repeated_box", what))
    return problems


def write_copy(out: Path, content: Mapping[str, Any], changes: Sequence[Change]) -> Path:
    """Write the cleaned copy, and the log beside it; returns the path of the log."""
    log = out.with_name(f"{out.stem}-changes.json")
    # What the reader does not use stays as it is, numbers that are not finite too.
    write_json(out, content, indent=None, allow_nan=True)
    write_json(log, changes, allow_nan=True)
    return log
