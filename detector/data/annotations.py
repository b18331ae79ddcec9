"""Reads and checks a COCO annotation file and keeps what training needs in flat arrays.

Arrays instead of one dict an annotation: loader processes are forks of the training process, and reading
a Python object writes its reference count, so that every process would end up with its own copy of all of
them (https://github.com/pytorch/pytorch/issues/13246).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.problems import Problem, describe
from detector.errors import DataError

# A box may leave its image by this many pixels without being a problem: it is clipped silently. Rounded
# coordinates are off by less than a pixel, and boxes counted from 1 instead of 0 by exactly one.
TOLERANCE = 1.0
# A side below this many pixels is no side: it would not survive the resizing to the network's input size.
MIN_SIDE = 0.01
# Coordinates beyond this are nonsense; float32 would not resolve a pixel there.
LARGEST = 1e7


@dataclass(frozen=True)
class Table:
    """The content of an annotation file: M images, A annotations, K categories.

    Annotations ``first[i]:first[i + 1]`` belong to image i. Label k (1..K) is category ``category_ids[k - 1]``;
    category ids are sorted.
    """

    file: Path
    class_names: list[str]  # K
    category_ids: list[int]  # K
    image_ids: np.ndarray  # int64 [M], in the order of the file
    file_names: np.ndarray  # str [M]
    sizes: np.ndarray  # int64 [M, 2]: height, width
    first: np.ndarray  # int64 [M + 1]
    annotation_ids: np.ndarray  # int64 [A]
    boxes: np.ndarray  # float32 [A, 4]: x1, y1, x2, y2 in pixels, inside the image
    labels: np.ndarray  # int64 [A], in 1..K
    area: np.ndarray  # float32 [A]: the annotation's own area, which may be a mask's
    iscrowd: np.ndarray  # int8 [A]

    def select(self, images: np.ndarray) -> Table:
        """The table of the images at the positions ``images`` (int [m]) and their annotations."""
        counts = np.diff(self.first)[images]
        starts = self.first[:-1][images]
        first = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(starts - first[:-1], counts) + np.arange(first[-1])
        columns = {name: getattr(self, name)[images] for name in ("image_ids", "file_names", "sizes")}
        columns |= {name: getattr(self, name)[rows] for name in ANNOTATION_COLUMNS}
        return replace(self, first=first, **columns)


ANNOTATION_COLUMNS = ("annotation_ids", "boxes", "labels", "area", "iscrowd")


def read_table(file: Path, images: Path, on_invalid: str) -> tuple[Table, list[Problem]]:
    """Read ``file``, check it against itself and against the files in the folder ``images``.

    Args:
        file: COCO annotation JSON.
        images: folder that the ``file_name`` entries are relative to.
        on_invalid: "error": raise if anything is wrong. "drop": leave out what is wrong. "clip": the same, but a
            box that is partly outside its image is clipped to it and kept.

    Returns:
        The table, and what was left out or clipped.

    Raises:
        DataError: no such file or folder, not a COCO annotation file, or problems that ``on_invalid`` does not cover.
    """
    content = load_json(file, images)
    names, image_columns, problems = _read_head(content)
    if problems:
        raise DataError(describe(file, problems))
    image_ids, file_names, sizes = image_columns
    rows, structural = _read_rows(content["annotations"], image_columns, names)
    category_ids = sorted(names)
    columns, geometric = _check_boxes(rows, image_columns, clip=on_invalid == "clip")
    missing, missing_problems = _missing_files(images, image_columns)

    problems = missing_problems + [p for _, p in sorted(structural + geometric, key=lambda item: item[0])]
    if problems and on_invalid == "error":
        raise DataError(describe(file, problems))
    if on_invalid == "drop":
        problems = [replace(p, action="dropped") for p in problems]
    elif on_invalid == "clip":
        problems = [replace(p, action="clipped" if p.kind == "leaves_image" else "dropped") for p in problems]

    order = np.argsort(columns["image"], kind="stable")
    counts = np.bincount(columns.pop("image"), minlength=len(image_ids))
    columns = {name: values[order] for name, values in columns.items()}
    columns["labels"] = 1 + np.searchsorted(np.array(category_ids, dtype=np.int64), columns.pop("category"))
    table = Table(
        file=file,
        class_names=[names[c] for c in category_ids],
        category_ids=category_ids,
        image_ids=image_ids,
        file_names=file_names,
        sizes=sizes,
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        **columns,
    )
    return table.select(np.flatnonzero(~missing)) if missing.any() else table, problems


def load_json(file: Path, images: Path | None = None) -> dict[str, Any]:
    """The annotation file as a dict with the lists "images", "annotations" and "categories".

    Raises:
        DataError: ``file`` or the folder ``images`` is not there, or the file is not a COCO annotation file.
    """
    if not file.is_file():
        raise DataError(f"no annotation file {file}.{_json_files_near(file)}")
    if images is not None and not images.is_dir():
        raise DataError(f"no image folder {images}, which the file names in {file} are relative to. "
                        "Set data.train_images and data.val_images (relative to data.root).")
    try:
        # Polygons and masks are most of a COCO file; dropped while parsing they never pile up in memory.
        content = json.loads(file.read_bytes(), object_hook=_without_segmentation)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{file} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}. "
                        "The file may be cut off; export or download it again.") from None
    except (ValueError, RecursionError) as error:  # not text, or absurd nesting
        raise DataError(f"{file} is not valid JSON: {error}") from None
    if isinstance(content, list):
        raise DataError(f"{file} holds a list, as COCO results files do. An annotation file is an object with the "
                        'lists "images", "annotations" and "categories".')
    missing = [k for k in ("images", "annotations", "categories") if not isinstance(content, dict)
               or not isinstance(content.get(k), list)]
    if missing:
        lacking = " and ".join(f"no list {key!r}" for key in missing)
        raise DataError(f"{file} is not a COCO annotation file: it has {lacking}.")
    for key in ("images", "categories"):
        if not content[key]:
            raise DataError(f"{file}: the list {key!r} is empty.")
    return content


def _without_segmentation(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def _json_files_near(file: Path) -> str:
    """Where the user may have meant: the JSON files in the folder and one level below."""
    folder = file.parent
    hint = " Set data.root, data.train_annotations and data.val_annotations."
    if not folder.is_dir():
        return f" There is no folder {folder} either." + hint
    found = sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])
    if not found:
        return hint
    listed = ", ".join(str(f.relative_to(folder)) for f in found[:5]) + (", ..." if len(found) > 5 else "")
    return f" JSON files in {folder}: {listed}." + hint


def _integer(value: Any) -> int | None:
    """``value`` as an int64, None if it is not one. 3.0 is one, "3" and true are not."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _read_head(content: dict[str, Any]) -> tuple[dict[int, str], tuple[np.ndarray, ...], list[Problem]]:
    """Categories (id to name), images (ids, file names, sizes), and what is wrong with them."""
    problems: list[Problem] = []
    names: dict[int, str] = {}
    for position, entry in enumerate(content["categories"]):
        at = f"categories[{position}]"
        entry = entry if isinstance(entry, dict) else {}
        category = _integer(entry.get("id"))
        if category is None or not isinstance(entry.get("name"), str):
            problems.append(Problem("bad_category", f"{at} has no integer 'id' or no 'name': {_cut(entry)}"))
        elif category in names:
            problems.append(Problem("bad_category", f"{at} ({entry['name']}) has the id {category}, which "
                                                    f"{names[category]} has already"))
        else:
            names[category] = entry["name"]

    ids: dict[int, str] = {}
    sizes = []
    for position, entry in enumerate(content["images"]):
        at = f"images[{position}]"
        entry = entry if isinstance(entry, dict) else {}
        image, name = _integer(entry.get("id")), entry.get("file_name")
        height, width = _integer(entry.get("height")), _integer(entry.get("width"))
        if image is None or not isinstance(name, str) or not name:
            problems.append(Problem("bad_image", f"{at} has no integer 'id' or no 'file_name': {_cut(entry)}"))
        elif height is None or width is None or height < 1 or width < 1:
            problems.append(Problem("bad_image", "'height' and 'width' must be whole numbers above 0, but are "
                                    f"{entry.get('height')!r} and {entry.get('width')!r}", name, image))
        elif image in ids:
            problems.append(Problem("bad_image", f"{at} has the id of {ids[image]}", name, image))
        else:
            ids[image] = name
            sizes.append((height, width))
    columns = (np.array(list(ids), dtype=np.int64), np.array(list(ids.values()), dtype=str),
               np.array(sizes, dtype=np.int64).reshape(-1, 2))
    return names, columns, problems


def _read_rows(entries: list[Any], image_columns: tuple[np.ndarray, ...], names: dict[int, str]
               ) -> tuple[dict[str, list], list[tuple[int, Problem]]]:
    """The annotations whose keys make sense, column by column, and the problems of the others by position."""
    position_of = {image: i for i, image in enumerate(image_columns[0].tolist())}
    files = image_columns[1]
    rows: dict[str, list] = {key: [] for key in ("position", "id", "image", "category", "box", "area", "iscrowd")}
    problems = []
    used: set[int] = set()
    for position, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        ids = [_integer(entry.get(key)) for key in ("id", "image_id", "category_id")]
        number, image, category = ids
        name = str(files[position_of[image]]) if image in position_of else ""
        box = entry.get("bbox")
        if number is None or image is None or category is None:
            lacking = [k for k, v in zip(("id", "image_id", "category_id"), ids, strict=True) if v is None]
            what = f"annotations[{position}] has no integer {' and '.join(map(repr, lacking))}: {_cut(entry)}"
            problem = Problem("bad_annotation", what, name, image, number)
        elif image not in position_of:
            problem = Problem("unknown_image", f"there is no image with the id {image}", name, image, number, box)
        elif number in used:
            problem = Problem("duplicate_id", "an annotation before it has the same id", name, image, number, box)
        elif category not in names:
            what = f"there is no category with the id {category}"
            problem = Problem("unknown_category", what, name, image, number, box)
        elif not (isinstance(box, list) and len(box) == 4
                  and all(type(v) in (int, float) and -LARGEST < v < LARGEST for v in box)):
            given = "missing" if box is None else box
            problem = Problem("bad_box", "the box is not four finite numbers", name, image, number, given)
        elif entry.get("iscrowd") not in (None, 0, 1):
            what = f"iscrowd is {entry['iscrowd']!r}, not 0 or 1"
            problem = Problem("bad_iscrowd", what, name, image, number, box)
        else:
            used.add(number)
            area = entry.get("area")
            if not (isinstance(area, int | float) and 0 <= area < LARGEST**2):
                area = box[2] * box[3]
            values = (position, number, position_of[image], category, box, area, int(entry.get("iscrowd") or 0))
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
            continue
        problems.append((position, problem))
    return rows, problems


def _check_boxes(rows: dict[str, list], image_columns: tuple[np.ndarray, ...], clip: bool
                 ) -> tuple[dict[str, np.ndarray], list[tuple[int, Problem]]]:
    """Columns of the usable annotations, clipped to their images, and the problems of the others by position."""
    image_ids, files, sizes = image_columns
    image = np.array(rows["image"], dtype=np.int64)
    box = np.array(rows["box"], dtype=np.float64).reshape(-1, 4)
    limit = np.tile(sizes[image][:, ::-1], 2)  # width, height, width, height
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)
    clipped = np.clip(corners, 0, limit)

    def side(x: np.ndarray) -> np.ndarray:
        return (x[:, 2:] - x[:, :2]).min(axis=1, initial=np.inf)

    empty = side(corners) < MIN_SIDE
    outside = ~empty & (side(clipped) < MIN_SIDE)
    leaves = ~empty & ~outside & (np.abs(corners - clipped).max(axis=1, initial=0) > TOLERANCE)
    problems = []
    for row in np.flatnonzero(empty | outside | leaves):
        i = image[row]
        height, width = sizes[i]
        kind, what = ("empty_box", "the box has no area") if empty[row] else (
            ("outside_image", "the box is outside") if outside[row] else ("leaves_image", "the box leaves"))
        if not empty[row]:
            what += f" its image of {width} x {height} pixels"
        problems.append((rows["position"][row], Problem(kind, what, str(files[i]), int(image_ids[i]), rows["id"][row],
                                                        tuple(rows["box"][row]))))
    keep = ~(empty | outside) if clip else ~(empty | outside | leaves)
    # A clipped box keeps its share of the area.
    share = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1) / np.where(empty, 1, np.prod(box[:, 2:], axis=1))
    columns = {
        "image": image,
        "annotation_ids": np.array(rows["id"], dtype=np.int64),
        "boxes": clipped.astype(np.float32),
        "category": np.array(rows["category"], dtype=np.int64),
        "area": (np.array(rows["area"], dtype=np.float64) * share).astype(np.float32),
        "iscrowd": np.array(rows["iscrowd"], dtype=np.int8),
    }
    return {name: values[keep] for name, values in columns.items()}, problems


def _missing_files(folder: Path, image_columns: tuple[np.ndarray, ...]) -> tuple[np.ndarray, list[Problem]]:
    """Which images have no file (bool [M]), and a problem for each. Lists folders: cheaper than one look a file."""
    image_ids, files, _ = image_columns
    listings: dict[Path, set[str]] = {}
    missing = np.zeros(len(files), dtype=bool)
    problems = []
    for i, name in enumerate(files.tolist()):
        path = folder / name
        if path.parent not in listings:
            listings[path.parent] = {f.name for f in path.parent.iterdir()} if path.parent.is_dir() else set()
        if path.name not in listings[path.parent]:
            missing[i] = True
            problems.append(Problem("missing_file", f"there is no file {path}", name, int(image_ids[i])))
    return missing, problems


def _cut(entry: Any) -> str:
    text = json.dumps(entry)
    return text if len(text) <= 80 else text[:77] + "..."
