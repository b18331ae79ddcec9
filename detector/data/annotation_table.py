"""The annotations of a data set as training needs them: checked against their images, in flat arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detector.data.annotations import Annotations
from detector.data.file_names import Found, absent, find_files
from detector.data.problems import CORRECT, InvalidData, Problem
from detector.data.systematic import TOLERANCE, exchange_sizes, straighten_boxes
from detector.exceptions import MissingData
from detector.words import counted

# A box has no area if a side is below this many pixels. torchvision drops detections with a shorter side too.
MIN_SIDE = 0.01


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
    area: np.ndarray  # float32 [A]: the annotation's area (a mask's, maybe), times the share that clipping left
    iscrowd: np.ndarray  # int8 [A]: 1 for what is not trained on: crowd regions, and what is marked "ignore"
    ignore: np.ndarray  # bool [A]: which of them are no crowds but marked "ignore"
    dropped: dict[str, int]  # annotations of each class that was left out by its name

    def select(self, images: np.ndarray) -> Table:
        """The table of the images at the positions ``images`` (int [m]) and their annotations."""
        counts = np.diff(self.first)[images]
        starts = self.first[:-1][images]
        first = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(starts - first[:-1], counts) + np.arange(first[-1])
        columns = {name: getattr(self, name)[images] for name in ("image_ids", "file_names", "sizes")}
        columns |= {name: getattr(self, name)[rows] for name in ANNOTATION_COLUMNS}
        return replace(self, first=first, **columns)


ANNOTATION_COLUMNS = ("annotation_ids", "boxes", "labels", "area", "iscrowd", "ignore")


def read_table(read: Annotations, images: Path | None, on_invalid: str) -> tuple[Table, list[Problem]]:
    """Check annotations against themselves and against the files in the folder ``images``.

    Args:
        read: of an annotation file.
        images: folder that the ``file_name`` entries are relative to; None: there are no files.
        on_invalid: "error": raise if anything is wrong. "drop": leave out what is wrong. "clip": the same, but a
            box that is partly outside its image is clipped to it and kept.

    Returns:
        The table, and what was left out or clipped.

    Raises:
        DataError: no such folder, or problems that ``on_invalid`` does not cover.
    """
    file = read.file
    missing = np.zeros(len(read.image_ids), dtype=bool)
    problems: list[Problem] = []
    exchanged: list[Problem] = []
    if images is not None:
        missing, _, problems = missing_files(images, read)
        read, exchanged = exchange_sizes(read, images)
    read, strange = straighten_boxes(read)
    columns, geometric = check_boxes(read, clip=on_invalid == "clip")

    problems = exchanged + strange + problems + in_order(read.problems + geometric)
    if problems and (on_invalid == "error" or any(p.remedy == CORRECT for p in problems)):
        raise InvalidData(file, problems)
    clipped = ("clip",) if on_invalid == "clip" else ()
    problems = [replace(p, action="clipped" if p.remedy in clipped else "dropped") for p in problems]

    order = np.argsort(columns["image"], kind="stable")
    counts = np.bincount(columns.pop("image"), minlength=len(read.image_ids))
    table = Table(
        file=file,
        class_names=read.class_names,
        category_ids=read.category_ids,
        image_ids=read.image_ids,
        file_names=read.file_names,
        sizes=read.sizes,
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        dropped=read.dropped,
        **{name: values[order] for name, values in columns.items()},
    )
    return table.select(np.flatnonzero(~missing)) if missing.any() else table, problems


def in_order(problems: list[Problem]) -> list[Problem]:
    """Problems of annotations in the order of the file."""
    return sorted(problems, key=lambda problem: problem.position)


def check_boxes(read: Annotations, clip: bool) -> tuple[dict[str, np.ndarray], list[Problem]]:
    """Hold the boxes of ``read`` against their images.

    Args:
        read: with image sizes.
        clip: keep a box that is partly outside its image, clipped to it.

    Returns:
        The columns of :class:`Table` and ``image`` (row) of the usable annotations, and all problems found. A box that
        was kept, clipped, is in both.
    """
    image, box = read.image, read.boxes_xywh
    limit = np.tile(read.sizes[image][:, ::-1], 2)  # width, height, width, height
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)
    clipped = np.clip(corners, 0, limit)

    def side(x: np.ndarray) -> np.ndarray:
        return (x[:, 2:] - x[:, :2]).min(axis=1, initial=np.inf)

    empty = side(corners) < MIN_SIDE
    outside = ~empty & (side(clipped) < MIN_SIDE)
    leaves = ~empty & ~outside & (np.abs(corners - clipped).max(axis=1, initial=0) > TOLERANCE)
    problems = []
    for row in np.flatnonzero(empty | outside | leaves).tolist():
        height, width = read.sizes[image[row]]
        size = f"its image of {width} x {height} pixels"
        if empty[row]:
            problems.append(read.problem(row, "empty_box", "the box has no area"))
        elif outside[row]:
            problems.append(read.problem(row, "outside_image", f"the box is outside {size}"))
        else:
            problems.append(read.problem(row, "leaves_image", f"the box leaves {size}"))
    keep = ~(empty | outside) if clip else ~(empty | outside | leaves)
    # A clipped box keeps its share of the area.
    share = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1) / np.where(empty, 1, np.prod(box[:, 2:], axis=1))
    columns = {
        "image": image,
        "annotation_ids": read.ids,
        "boxes": clipped.astype(np.float32),
        "labels": read.label + 1,
        "area": (read.area * share).astype(np.float32),
        "iscrowd": read.iscrowd | read.ignore,
        "ignore": read.ignore & (read.iscrowd == 0),
    }
    return {name: values[keep] for name, values in columns.items()}, problems


def missing_files(folder: Path, read: Annotations) -> tuple[np.ndarray, dict[int, str], list[Problem]]:
    """Look for the image files.

    Returns:
        Which images have no file (bool [M]); the files that they seem to mean, by image id; a problem for each image
        that means none, and one for all others whose names are written otherwise in the same way.

    Raises:
        MissingData: there is no such folder, or no image of the file is in it and none that could be meant.
    """
    if not folder.is_dir():
        raise MissingData(f"no image folder {folder}, which the file names in {read.file} are relative to.")
    all_names = read.file_names.tolist()
    missing = absent(folder, all_names)
    names, ids = read.file_names[missing].tolist(), read.image_ids[missing].tolist()
    found = find_files(folder, names, read.file_names[~missing].tolist()) if names else Found()
    if names and missing.all() and not found.files and not found.several:
        raise MissingData(
            f"{read.file}: none of its {counted(len(names), 'image')} is in the folder {folder}; the first would be "
            f"{folder / names[0]}. The file names have to start at the folder of the images."
        )
    renamed, problems = {}, []
    sentences = found.sentences(all_names, folder)
    for image, name in zip(ids, names, strict=True):
        if name in found.files:
            renamed[image] = found.files[name]
            if name in sentences:
                problems.append(Problem("misnamed_file", sentences.pop(name)))
            continue
        what = f"there is no file {folder / name}"
        if name in found.several:
            what += f", and what it means cannot be told: {', '.join(sorted(found.several[name])[:5])}"
        problems.append(Problem("missing_file", what, name, image))
    return missing, renamed, problems
