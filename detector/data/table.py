"""The annotations of a data set as training needs them: checked against their images, in flat arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detector.data.annotations import Annotations, no_such_file, read_annotations
from detector.data.problems import REMEDIES, Problem, describe
from detector.data.systematic import TOLERANCE, exchange_sizes, find_files, straighten_boxes
from detector.exceptions import DataError
from detector.words import counted

# A side below this many pixels is no side: it would not survive the resizing to the network's input size.
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
    if not file.is_file():
        raise DataError(f"{no_such_file(file)} Set data.root, data.train_annotations and data.val_annotations.")
    read = read_annotations(file)
    if not images.is_dir():
        raise DataError(
            f"no image folder {images}, which the file names in {file} are relative to. "
            "Set data.train_images and data.val_images (relative to data.root)."
        )
    missing, _, problems = missing_files(images, read)
    read, exchanged = exchange_sizes(read, images)
    read, strange = straighten_boxes(read)
    columns, geometric = check_boxes(read, clip=on_invalid == "clip")

    problems = exchanged + strange + problems
    problems += [p for _, p in sorted(read.problems + geometric, key=lambda item: item[0])]
    if problems and (on_invalid == "error" or any(REMEDIES[p.kind] is None for p in problems)):
        raise DataError(describe(file, problems))
    if on_invalid == "drop":
        problems = [replace(p, action="dropped") for p in problems]
    elif on_invalid == "clip":
        problems = [replace(p, action="clipped" if p.kind == "leaves_image" else "dropped") for p in problems]

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
        **{name: values[order] for name, values in columns.items()},
    )
    return table.select(np.flatnonzero(~missing)) if missing.any() else table, problems


def check_boxes(read: Annotations, clip: bool) -> tuple[dict[str, np.ndarray], list[tuple[int, Problem]]]:
    """Hold the boxes of ``read`` against their images.

    Args:
        read: with image sizes.
        clip: keep a box that is partly outside its image, clipped to it.

    Returns:
        The columns of :class:`Table` and ``image`` (row) of the usable annotations, and the problems of the others by
        their place in the file.
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
        i = image[row]
        height, width = read.sizes[i]
        kind, what = (
            ("empty_box", "the box has no area")
            if empty[row]
            else (("outside_image", "the box is outside") if outside[row] else ("leaves_image", "the box leaves"))
        )
        if not empty[row]:
            what += f" its image of {width} x {height} pixels"
        given = tuple(int(v) if v.is_integer() else v for v in box[row].tolist())
        problems.append(
            (
                int(read.position[row]),
                Problem(kind, what, str(read.file_names[i]), int(read.image_ids[i]), int(read.ids[row]), given),
            )
        )
    keep = ~(empty | outside) if clip else ~(empty | outside | leaves)
    # A clipped box keeps its share of the area.
    share = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1) / np.where(empty, 1, np.prod(box[:, 2:], axis=1))
    columns = {
        "image": image,
        "annotation_ids": read.ids,
        "boxes": clipped.astype(np.float32),
        "labels": read.label + 1,
        "area": (read.area * share).astype(np.float32),
        "iscrowd": read.iscrowd,
    }
    return {name: values[keep] for name, values in columns.items()}, problems


def missing_files(folder: Path, read: Annotations) -> tuple[np.ndarray, dict[int, str], list[Problem]]:
    """Look for the image files. Lists folders: cheaper than one look a file.

    Returns:
        Which images have no file (bool [M]); the files that seem to be meant, by image id; a problem for each image.

    Raises:
        DataError: no image of the file is there, and none that could be meant.
    """
    listings: dict[Path, set[str]] = {}
    missing = np.zeros(len(read.file_names), dtype=bool)
    for i, name in enumerate(read.file_names.tolist()):
        path = folder / name
        if path.parent not in listings:
            listings[path.parent] = {f.name for f in path.parent.iterdir()} if path.parent.is_dir() else set()
        missing[i] = path.name not in listings[path.parent]
    names = read.file_names[missing].tolist()
    found = find_files(folder, names) if names else {}
    if names and missing.all() and not found:
        raise DataError(
            f"{read.file}: none of its {counted(len(names), 'image')} is in the folder {folder}; the first would be "
            f"{folder / names[0]}. Set data.train_images and data.val_images (relative to data.root) to the folder "
            "that the file names start at."
        )
    renamed, problems = {}, []
    for image, name in zip(read.image_ids[missing].tolist(), names, strict=True):
        what = f"there is no file {folder / name}"
        if name in found:
            renamed[image] = found[name]
            problems.append(Problem("misnamed_file", f"{what}, but {folder / found[name]}", name, image))
        else:
            problems.append(Problem("missing_file", what, name, image))
    return missing, renamed, problems
