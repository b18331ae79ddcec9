"""The original annotation file, crowds included, in the form that pycocotools evaluates."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from detector.errors import DataError
from detector.evaluation.detections import is_box
from detector.evaluation.files import as_id, is_finite, problem_list, read_json, shown


class GroundTruth:
    """A COCO annotation file, checked and reduced to what box evaluation reads.

    Segmentations and other extras are dropped, so that a large file takes little memory. Nothing that changes a
    number of pycocotools is: crowds stay, and what it silently ignores is ignored and said in :attr:`notes`.

    Args:
        path: COCO annotation JSON with ``images``, ``annotations`` and ``categories``; ``info``, ``licenses``, and
            an annotation's ``area`` and ``iscrowd`` may be missing.
        drop_invalid: leave annotations out that cannot be read (no box, NaN, no id), with a note; the
            default is an error. For runs with ``data.on_invalid=drop`` or ``clip``.

    Attributes:
        path: the file.
        coco: pycocotools' index of it, with ``id, image_id, category_id, bbox, area, iscrowd`` a box.
        image_ids: ids of all images, sorted.
        category_ids: ids of all categories, sorted.
        class_names: their names, in the same order.
        notes: sentences on what a reader of the numbers must know about this file.

    Raises:
        DataError: the file is missing, not JSON or not COCO annotations, or lists the annotations that cannot be read.
    """

    def __init__(self, path: str | Path, drop_invalid: bool = False) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        content = read_json(path, "COCO annotations")
        images, annotations, categories = (self._list(content, key) for key in ("images", "annotations", "categories"))
        self.image_ids = sorted({self._entry_id("images", i, entry) for i, entry in enumerate(images)})
        names = {self._entry_id("categories", i, entry): entry.get("name") for i, entry in enumerate(categories)}
        self.category_ids = sorted(names)
        self.class_names = [str(names[i]) if names[i] is not None else str(i) for i in self.category_ids]
        self.coco = make_coco(self.image_ids, self.category_ids, self._boxes(annotations, drop_invalid))

    def boxes(self, image_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """The annotations of ``image_ids`` (None: all images), crowds included."""
        wanted = self.image_ids if image_ids is None else image_ids
        return [box for image_id in wanted for box in self.coco.imgToAnns.get(image_id, [])]

    def _list(self, content: Any, key: str) -> list[Any]:
        if not isinstance(content, dict):
            hint = "; it looks like a results file: are the two files swapped?" if isinstance(content, list) else ""
            raise DataError(f"{self.path}: COCO annotations are an object with 'images', 'annotations' and "
                            f"'categories', found {shown(content)}{hint}")
        if not isinstance(content.get(key), list):
            found = f"'{key}' is {shown(content[key])}" if key in content else f"there is no '{key}'"
            raise DataError(f"{self.path}: {found}, but COCO annotations need a list of {key}")
        return content[key]

    def _entry_id(self, key: str, index: int, entry: Any) -> int:
        number = as_id(entry.get("id")) if isinstance(entry, dict) else None
        if number is None:
            raise DataError(f"{self.path}: entry {index} of '{key}' has no whole number as 'id': {shown(entry)}")
        return number

    def _boxes(self, annotations: list[Any], drop_invalid: bool) -> list[dict[str, Any]]:
        """The usable annotations, reduced; what is special about the file goes to the notes."""
        images, categories = frozenset(self.image_ids), frozenset(self.category_ids)
        kept: dict[int, dict[str, Any]] = {}
        problems, no_area, no_crowd, stray, flat = [], 0, 0, [], []
        for index, annotation in enumerate(annotations):
            problem = annotation_problem(annotation)
            number = as_id(annotation.get("id")) if isinstance(annotation, dict) else None
            if not problem and number in kept:
                problem = "the id is used by an earlier annotation too"
            if problem or number is None:
                where = f"annotation {number}" if number is not None else f"entry {index} of 'annotations'"
                problems.append(f"{where}: {problem}")
                continue
            box = annotation["bbox"]
            area, crowd = annotation.get("area"), annotation.get("iscrowd")
            no_area += not is_finite(area)
            no_crowd += crowd is None
            kept[number] = {"id": number, "image_id": int(annotation["image_id"]),
                            "category_id": int(annotation["category_id"]), "bbox": box,
                            "area": area if is_finite(area) else box[2] * box[3], "iscrowd": int(bool(crowd))}
            if kept[number]["image_id"] not in images or kept[number]["category_id"] not in categories:
                stray.append(number)
            elif box[2] <= 0 or box[3] <= 0:
                flat.append(number)
        if problems and not drop_invalid:
            raise problem_list(f"{self.path}: {len(problems)} of {len(annotations)} annotations cannot be evaluated",
                               problems, "Correct or remove them in the file; an annotation needs id, image_id, "
                               "category_id and bbox [x, y, width, height].")
        self._note("Annotations left out because they cannot be read", problems, "; ".join(problems[:3]))
        self._note("Annotations without an area", no_area, "width times height of the box is used")
        self._note("Annotations without iscrowd", no_crowd, "they count as single objects")
        self._note("Annotations of an image or a category that the file does not list", stray,
                   f"not counted, as in pycocotools; ids {some(stray)}")
        self._note("Boxes without a positive width and height", flat,
                   f"nothing can match them, they count as missed; annotation ids {some(flat)}")
        if 0 in kept:
            self.notes.append("An annotation has the id 0, which pycocotools takes for 'no match': what detects it "
                              "counts as a false positive. Number the annotations from 1.")
        for number in stray:
            del kept[number]
        return list(kept.values())

    def _note(self, subject: str, affected: int | list[Any], treatment: str) -> None:
        count = affected if isinstance(affected, int) else len(affected)
        if count:
            self.notes.append(f"{subject}: {count}; {treatment}.")


def annotation_problem(annotation: Any) -> str:
    """Why pycocotools could not read an annotation, ``""`` if it could."""
    if not isinstance(annotation, dict):
        return f"is {shown(annotation)}, not an object"
    missing = [key for key in ("id", "image_id", "category_id", "bbox") if key not in annotation]
    if missing:
        return f"has no {' and no '.join(repr(key) for key in missing)}"
    for key in ("id", "image_id", "category_id"):
        if as_id(annotation[key]) is None:
            return f"{key} is {shown(annotation[key])}, not a whole number"
    # A NaN in a box would match every detection: its IoU is NaN, and no comparison with NaN refuses the match.
    if not is_box(annotation["bbox"]):
        return f"bbox is {shown(annotation['bbox'])}, not four finite numbers"
    if not isinstance(annotation.get("iscrowd"), int | float | None):  # bool is an int
        return f"iscrowd is {shown(annotation['iscrowd'])}, not 0 or 1"
    return ""


def make_coco(image_ids: Sequence[int], category_ids: Sequence[int], annotations: list[dict[str, Any]]) -> COCO:
    """pycocotools' index over annotations or detections, without a file and without its printing."""
    coco = COCO()
    coco.dataset = {"images": [{"id": i} for i in image_ids], "categories": [{"id": i} for i in category_ids],
                    "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def some(ids: Sequence[Any], limit: int = 5) -> str:
    """The first few of ``ids``, and how many more there are."""
    more = f" and {len(ids) - limit} more" if len(ids) > limit else ""
    return ", ".join(str(i) for i in ids[:limit]) + more
