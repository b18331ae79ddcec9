"""The one reader of COCO annotation files: what an entry must be, for training, evaluation and the data doctor.

What is read becomes flat arrays instead of one dict an annotation: loader processes are forks of the training
process, and reading a Python object writes its reference count, so that every process would end up with its own copy
of all of them (https://github.com/pytorch/pytorch/issues/13246).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.coco_files import ANNOTATIONS, in_folder, read_coco
from detector.data.left_out import as_flag
from detector.data.problems import Problem, describe
from detector.exceptions import DataError, MissingData
from detector.files import LARGEST, as_id, is_box, shown

LISTS = ("images", "annotations", "categories")

COLUMNS = {
    "position": np.int64,
    "ids": np.int64,
    "image": np.int64,
    "label": np.int64,
    "boxes_xywh": np.float64,
    "area": np.float64,
    "iscrowd": np.int8,
    "ignore": bool,
    "area_given": bool,
    "crowd_given": bool,
}


@dataclass(frozen=True)
class Annotations:
    """The entries of an annotation file that can be read: M images, A annotations, K categories, as the file has them.

    Attributes:
        file: the file.
        category_ids: ids of the K categories, sorted.
        class_names: their names, in the same order. A category without a name is called by its id; the id is added to
            names that several categories have.
        image_ids: int64 ``[M]``, in the order of the file.
        file_names: str ``[M]``; "" where the file gives none.
        sizes: int64 ``[M, 2]``: height, width; 0 where the file gives none.
        position: int64 ``[A]``, in the file's list of annotations, ascending.
        ids: int64 ``[A]``.
        image: int64 ``[A]``, row of the image.
        label: int64 ``[A]``, position of the category in ``category_ids``.
        boxes_xywh: float64 ``[A, 4]``: left, top, width, height in pixels, finite and otherwise as they are.
        area: float64 ``[A]``, in square pixels; width times height where ``area_given`` is False.
        iscrowd: int8 ``[A]``.
        ignore: bool ``[A]``, whether the key ``ignore`` says that the object is not to be learned.
        area_given: bool ``[A]``, whether the file has a finite area that is not negative.
        crowd_given: bool ``[A]``, whether it says ``iscrowd``.
        problems: what is wrong with the other annotations, in the order of the file.
        structure: what is wrong with images and categories that were left out; without ``strict`` only.
        dropped: number of annotations of each category that was left out by its name.
        dropped_ids: ids of these categories.
    """

    file: Path
    category_ids: list[int]
    class_names: list[str]
    image_ids: np.ndarray
    file_names: np.ndarray
    sizes: np.ndarray
    position: np.ndarray
    ids: np.ndarray
    image: np.ndarray
    label: np.ndarray
    boxes_xywh: np.ndarray
    area: np.ndarray
    iscrowd: np.ndarray
    ignore: np.ndarray
    area_given: np.ndarray
    crowd_given: np.ndarray
    problems: list[Problem]
    structure: list[Problem] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_ids: list[int] = field(default_factory=list)

    def problem(self, row: int, kind: str, what: str) -> Problem:
        """A problem of the annotation in ``row``."""
        image = self.image[row]
        box = tuple(int(v) if v.is_integer() else v for v in self.boxes_xywh[row].tolist())
        name, position = str(self.file_names[image]), int(self.position[row])
        return Problem(kind, what, name, int(self.image_ids[image]), int(self.ids[row]), box, position)


def read_annotations(
    file: str | Path, need_pictures: bool = True, strict: bool = True, drop_categories: Collection[str] = ()
) -> Annotations:
    """Read the entries of a COCO annotation file.

    Args:
        file: COCO annotation JSON. Keys beside those of boxes are ignored.
        need_pictures: every image must have its file name, width and height, and there must be an image and a category.
        strict: False: images and categories that cannot be read are left out and are no error.
        drop_categories: names of categories to leave out, with their annotations. Those that the file does not have
            are passed over: :func:`check_dropped`.

    Raises:
        DataError: the file is missing, not JSON, not an annotation file, or an image or a category cannot be read.
    """
    return parse_annotations(Path(file), load_lists(Path(file)), need_pictures, strict, drop_categories)


def parse_annotations(
    file: Path,
    content: Mapping[str, list[Any]],
    need_pictures: bool = True,
    strict: bool = True,
    drop_categories: Collection[str] = (),
) -> Annotations:
    """What :func:`read_annotations` does with the three lists of the file.

    Raises:
        DataError: an image or a category cannot be read.
    """
    problems: list[Problem] = []
    names = _read_categories(content["categories"], problems)
    image_ids, file_names, sizes = _read_images(content["images"], need_pictures, problems)
    if problems and strict:
        raise DataError(describe(file, problems))
    for key in LISTS[::2] if need_pictures and strict else ():
        if not content[key]:
            raise DataError(f"{file}: the list {key!r} is empty.")
    dropped = {i: 0 for i, name in names.items() if name in drop_categories}
    category_ids = sorted(names.keys() - dropped.keys())
    rows, wrong = _read_rows(content["annotations"], image_ids, file_names, category_ids, dropped)
    return Annotations(
        file=file,
        category_ids=category_ids,
        class_names=[names[i] for i in category_ids],
        image_ids=image_ids,
        file_names=file_names,
        sizes=sizes,
        problems=wrong,
        structure=problems,
        dropped={names[i]: count for i, count in dropped.items()},
        dropped_ids=list(dropped),
        **rows,
    )


def load_lists(file: Path, needed: Sequence[str] = LISTS) -> dict[str, list[Any]]:
    """The annotation file as a dict with the lists "images", "annotations" and "categories", without segmentations.

    Args:
        file: COCO annotation JSON.
        needed: the lists that it must have; the others are empty where it lacks them.

    Raises:
        MissingData: there is no such file.
        DataError: it is not JSON, or not an annotation file.
    """
    if not file.is_file():
        raise MissingData(no_such_file(file))
    # Polygons and masks are most of a COCO file; dropped while parsing they never pile up in memory.
    content = read_coco(file, ANNOTATIONS, _without_segmentation)
    if not isinstance(content, dict):
        hint = "; it looks like a results file: are the two files swapped?" if isinstance(content, list) else ""
        raise DataError(
            f"{file}: COCO annotations are an object with 'images', 'annotations' and 'categories', found "
            f"{shown(content)}{hint}"
        )
    lists = {key: content[key] if isinstance(content.get(key), list) else [] for key in LISTS}
    for key in needed:
        if not isinstance(content.get(key), list):
            found = f"'{key}' is {shown(content[key])}" if key in content else f"there is no '{key}'"
            bare = "; it lists images without their objects, which is enough to predict only" if lists["images"] else ""
            raise DataError(
                f"{file}: {found}, but COCO annotations need a list of {key}{bare if key == 'annotations' else ''}"
            )
    return {**content, **lists}


def _without_segmentation(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def no_such_file(file: Path) -> str:
    """The message, with what the user may have meant: the JSON files in the folder and one level below."""
    folder = file if file.is_dir() else file.parent
    missing = "this is a folder, and a file has to be given" if file.is_dir() else "there is no such file"
    text = f"{file}: {missing} (COCO annotations expected); relative paths start at {Path.cwd()}."
    if not folder.is_dir():
        return f"{text} There is no folder {folder} either."
    if file.is_dir() and (kinds := in_folder(file)):
        return f"{text} {kinds}"
    found = sorted(f for level in ("", "*/") for ending in ("", ".gz") for f in folder.glob(f"{level}*.json{ending}"))
    listed = ", ".join(str(f.relative_to(folder)) for f in found[:5]) + (", ..." if len(found) > 5 else "")
    return f"{text} JSON files in {folder}: {listed}." if found else text


def _read_categories(entries: Sequence[Any], problems: list[Problem]) -> dict[int, str]:
    """Name of each category id; what is wrong goes to ``problems``."""
    names: dict[int, str] = {}
    for position, entry in enumerate(entries):
        at = f"categories[{position}]"
        entry = entry if isinstance(entry, dict) else {"entry": entry}
        category, name = as_id(entry.get("id")), entry.get("name")
        if category is None or not isinstance(name, str | None):
            what = f"{at} has no integer 'id', or its 'name' is no text: {shown(entry, 80)}"
        elif category in names:
            what = f"{at} ({name}) has the id {category}, which {names[category]} has already"
        else:
            names[category] = name if name and name.strip() else str(category)
            continue
        problems.append(Problem("bad_category", what, position=position))
    often = Counter(names.values())  # tables and files go by names
    return {category: f"{name} ({category})" if often[name] > 1 else name for category, name in names.items()}


def _read_images(
    entries: Sequence[Any], need_pictures: bool, problems: list[Problem]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids [M], file names [M] and sizes [M, 2] of the images; what is wrong goes to ``problems``."""
    names: dict[int, str] = {}
    sizes = []
    for position, entry in enumerate(entries):
        at = f"images[{position}]"
        entry = entry if isinstance(entry, dict) else {"entry": entry}
        image, given = as_id(entry.get("id")), entry.get("file_name")
        height, width = (as_id(entry.get(key)) or 0 for key in ("height", "width"))
        name = given if isinstance(given, str) else ""
        if image is None or (need_pictures and not name):
            lacking = " or no 'file_name'" if need_pictures else ""
            what = f"{at} has no integer 'id'{lacking}: {shown(entry, 80)}"
            name, image = "", None
        elif need_pictures and (height < 1 or width < 1):
            given_size = f"{entry.get('height')!r} and {entry.get('width')!r}"
            what = f"'height' and 'width' must be whole numbers above 0, but are {given_size}"
        elif image in names:
            what = f"{at} has the id of {names[image] or 'an image before it'}"
        else:
            names[image] = name
            sizes.append((max(height, 0), max(width, 0)))
            continue
        problems.append(Problem("bad_image", what, name, image, position=position))
    return (
        np.array(list(names), dtype=np.int64),
        np.array(list(names.values()), dtype=str),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
    )


def _read_rows(
    entries: Sequence[Any],
    image_ids: np.ndarray,
    file_names: np.ndarray,
    category_ids: list[int],
    dropped: dict[int, int],
) -> tuple[dict[str, np.ndarray], list[Problem]]:
    """The annotations whose keys make sense, column by column, and the problems of the others. Those of the categories
    in ``dropped`` are counted there instead."""
    row_of = {image: i for i, image in enumerate(image_ids.tolist())}
    label_of = {category: i for i, category in enumerate(category_ids)}
    rows, problems = [], []
    used: set[int] = set()
    for position, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {"entry": entry}
        number, image, category = (as_id(entry.get(key)) for key in ("id", "image_id", "category_id"))
        box: Any = entry.get("bbox")
        area: Any = entry.get("area")
        crowd, ignored = entry.get("iscrowd"), as_flag(entry.get("ignore"))
        name = str(file_names[row_of[image]]) if image in row_of else ""
        if category in dropped:
            dropped[category] += 1
            continue
        if number is None or image is None or category is None:
            ids = {"id": number, "image_id": image, "category_id": category}
            lacking = " and ".join(repr(key) for key, value in ids.items() if value is None)
            what = f"annotations[{position}] has no integer {lacking}: {shown(entry, 80)}"
            problems.append(Problem("bad_annotation", what, name, image, number, position=position))
            continue
        if number in used:
            kind, what = "duplicate_id", "an annotation before it has the same id"
        # A NaN in a box would match every detection: its IoU is NaN, and no comparison with NaN refuses the match.
        elif not is_box(box):
            kind, what = "bad_box", "the box is not four finite numbers"
            box = "missing" if box is None else box
        elif crowd not in (None, 0, 1):
            kind, what = "bad_iscrowd", f"iscrowd is {crowd!r}, not 0 or 1"
        elif ignored is None:
            kind, what = "bad_ignore", f"ignore is {shown(entry['ignore'])}, not 0 or 1"
        elif image not in row_of:
            kind, what = "unknown_image", f"there is no image with the id {image}"
        elif category not in label_of:
            kind, what = "unknown_category", f"there is no category with the id {category}"
        else:
            used.add(number)
            given = type(area) in (int, float) and 0 <= area < LARGEST**2
            area = area if given else box[2] * box[3]
            flags = (int(crowd or 0), bool(ignored), given, crowd is not None)
            rows.append((position, number, row_of[image], label_of[category], box, area, *flags))
            continue
        problems.append(Problem(kind, what, name, image, number, box, position))
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    arrays = {key: np.array(c, dtype=dtype) for (key, dtype), c in zip(COLUMNS.items(), columns, strict=True)}
    return {**arrays, "boxes_xywh": arrays["boxes_xywh"].reshape(-1, 4)}, problems
