"""A cleaned copy of an annotation file, and a log of what was changed in it.

Everything that the reader does not use stays as it is: segmentations, licences, keys of other tools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.annotation_table import check_boxes
from detector.data.annotations import LISTS, Annotations, parse_annotations
from detector.data.problems import Problem
from detector.data.systematic import straighten_boxes
from detector.files import as_id, read_json, write_json

SAME_BOX = 0.9  # IoU from which two boxes of one class and image are one object drawn twice
Change = dict[str, Any]


def repair(
    file: Path,
    size_of: Callable[[str], tuple[int, int] | None],
    unusable: Mapping[int, str],
    renamed: Mapping[int, str],
) -> tuple[dict[str, Any], list[Change]]:
    """The content of ``file`` without its problems, and what was changed.

    - Ids and boxes that are given as text become numbers, boxes that are corners become sizes. Annotations without an
      id, or with one that is used before, get a new one.
    - Categories without a name are called by their id; images without width and height, or with the two exchanged, get
      those of the file; file names become those of ``renamed``.
    - Boxes that leave their image by more than a pixel are clipped.
    - What cannot be mended is left out: images of ``unusable``, images and categories with an id that is used before,
      annotations without a box inside their image, boxes drawn twice.

    Args:
        file: COCO annotation JSON.
        size_of: (height, width) of the image file of a name; None if it cannot be read.
        unusable: ids of images to leave out, and why.
        renamed: file names by id of the image.

    Raises:
        DataError: the file is not an annotation file.
    """
    content = read_json(file, "COCO annotations")
    changes: list[Change] = []

    def log(what: str, why: str, entry: Any, **more: Any) -> None:
        entry = entry if isinstance(entry, dict) else {"entry": entry}
        keys = ("id", "image_id", "category_id", "file_name", "name", "bbox", "entry")
        shown = {key: entry[key] for key in keys if key in entry}
        changes.append({"what": what, "why": why, "entry": shown, **more})

    for key in LISTS:
        content[key] = [as_numbers(entry, log) for entry in content[key]]
    content["categories"] = [named(entry, log) for entry in content["categories"]]
    ids = [as_id(entry.get("id")) if isinstance(entry, dict) else None for entry in content["images"]]
    leave_out = {i: unusable[image] for i, image in enumerate(ids) if image is not None and image in unusable}
    content["images"] = [
        entry if i in leave_out else with_file(entry, size_of, renamed, log)
        for i, entry in enumerate(content["images"])
    ]
    structure = parse_annotations(file, {**content, "annotations": []}, strict=False).structure
    for key, kind, also in (("categories", "bad_category", {}), ("images", "bad_image", leave_out)):
        wrong = {p.position: p.what for p in structure if p.kind == kind} | also
        content[key] = without(content[key], wrong, f"dropped {kind.removeprefix('bad_')}", log)
    content["annotations"] = renumbered(content["annotations"], log)
    content["annotations"] = clean_annotations(file, content, log)
    return content, changes


Log = Callable[..., None]


def without(entries: list[Any], wrong: Mapping[int, str], what: str, log: Log) -> list[Any]:
    """The entries but those at the positions of ``wrong``, which says why."""
    for position in sorted(wrong):
        log(what, wrong[position], entries[position])
    return [entry for position, entry in enumerate(entries) if position not in wrong]


def as_numbers(entry: Any, log: Log) -> Any:
    """``entry`` with numbers where it has ids or a box as text, such as ``"12"``."""
    if not isinstance(entry, dict):
        return entry
    found: dict[str, Any] = {
        k: int(v)
        for k in ("id", "image_id", "category_id")
        if isinstance(v := entry.get(k), str) and v.strip().removeprefix("-").isdecimal()
    }
    box = entry.get("bbox")
    if isinstance(box, list) and any(isinstance(v, str) for v in box):
        with suppress(ValueError, OverflowError):
            found["bbox"] = [float(v) if isinstance(v, str) else v for v in box]
    if found:
        log("number", "a number is given as text", entry)
    return {**entry, **found}


def named(entry: Any, log: Log) -> Any:
    """A category with a name: its id, if it has none."""
    category = as_id(entry.get("id")) if isinstance(entry, dict) else None
    if category is None or isinstance(entry.get("name"), str):
        return entry
    log("named category", "it has no name", entry)
    return {**entry, "name": str(category)}


def with_file(
    entry: Any, size_of: Callable[[str], tuple[int, int] | None], renamed: Mapping[int, str], log: Log
) -> Any:
    """An image with the name of its file, and with the size of the file if its own is missing or exchanged."""
    image = as_id(entry.get("id")) if isinstance(entry, dict) else None
    if image is None or not isinstance(entry.get("file_name"), str):
        return entry
    if image in renamed:
        why = "there is no such file, but another one that seems to be meant"
        log("renamed image", why, entry, after=renamed[image])
        entry = {**entry, "file_name": renamed[image]}
    given, true = tuple(as_id(entry.get(key)) or 0 for key in ("height", "width")), size_of(entry["file_name"])
    if true and (min(given) < 1 or given == true[::-1] != true):
        why = "its width and height are missing or exchanged"
        log("resized image", why, entry, before=list(given), after=list(true))
        entry = {**entry, "height": true[0], "width": true[1]}
    return entry


def renumbered(entries: list[Any], log: Log) -> list[Any]:
    """``entries`` with a new id where there is none or one that is used before."""
    ids = [as_id(entry.get("id")) if isinstance(entry, dict) else None for entry in entries]
    free = max((i for i in ids if i is not None), default=0) + 1
    used: set[int | None] = {None}
    result = []
    for entry, number in zip(entries, ids, strict=True):
        if isinstance(entry, dict) and number in used:
            log("new id", "it has no id" if number is None else "its id is used before", entry, after=free)
            entry, number = {**entry, "id": free}, free
            free += 1
        used.add(number)
        result.append(entry)
    return result


def clean_annotations(file: Path, content: Mapping[str, Any], log: Log) -> list[Any]:
    """The annotations of cleaned images and categories that the reader takes."""
    given = parse_annotations(file, content, strict=False)
    read, strange = straighten_boxes(given)
    corners = any(p.kind == "corner_boxes" for p in strange)
    geometric = check_boxes(read, clip=False)[1]
    clipped = {p.position: p.what for p in geometric if p.remedy == "clip"}
    dropped = [*repeated_boxes(read), *(p for p in geometric if p.position not in clipped), *given.problems]
    unreadable = set(given.position.tolist()) - set(read.position.tolist())
    wrong = dict.fromkeys(unreadable, strange[0].what if strange else "")
    wrong |= {p.position: p.what for p in dropped}
    rows = {position: row for row, position in enumerate(read.position.tolist())}
    kept = []
    for position, entry in enumerate(content["annotations"]):
        if position in wrong:
            log("dropped annotation", wrong[position], entry)
            continue
        row = rows[position]
        if corners:
            log("corners to sizes", "the boxes of the file are corners", entry)
            entry = {**entry, "bbox": read.boxes_xywh[row].tolist()}
        if position in clipped:
            x, y, w, h = read.boxes_xywh[row].tolist()
            height, width = read.sizes[read.image[row]].tolist()
            x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
            share = (x2 - x1) * (y2 - y1) / (w * h)
            log("clipped box", clipped[position], entry, after=[x1, y1, x2 - x1, y2 - y1])
            entry = {**entry, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(read.area[row] * share)}
        elif "area" in entry and not read.area_given[row]:
            log("corrected area", "the area is no number, or negative", entry)
            entry = {**entry, "area": float(read.area[row])}
        kept.append(entry)
    return kept


def repeated_boxes(read: Annotations) -> list[Problem]:
    """The annotations that repeat one before them: the same image and class, and nearly the same box."""
    problems = []
    order = np.lexsort((read.position, read.label, read.image))
    keys = read.image[order] * max(len(read.category_ids), 1) + read.label[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    for rows in np.split(order, starts[1:]):
        rows = rows[(read.iscrowd[rows] == 0) & (read.boxes_xywh[rows, 2:] > 0).all(axis=1)]
        if len(rows) < 2:
            continue
        low, size = read.boxes_xywh[rows, :2], read.boxes_xywh[rows, 2:]
        shared = np.minimum((low + size)[:, None], low + size) - np.maximum(low[:, None], low)
        shared = np.clip(shared, 0, None).prod(axis=2)
        area = size.prod(axis=1)
        same = np.tril(shared / (area[:, None] + area - shared) >= SAME_BOX, -1)
        for later in np.flatnonzero(same.any(axis=1)).tolist():
            what = f"the box is that of annotation {read.ids[rows[same[later].argmax()]]} again"
            problems.append(read.problem(int(rows[later]), "repeated_box", what))
    return problems


def write_copy(out: Path, content: Mapping[str, Any], changes: list[Change]) -> Path:
    """Write the cleaned copy, and the log beside it; returns the path of the log."""
    log = out.with_name(f"{out.stem}-changes.json")
    # What the reader does not use stays as it is, numbers that are not finite too.
    write_json(out, content, indent=None, allow_nan=True)
    write_json(log, changes, allow_nan=True)
    return log
