"""Mistakes of a whole annotation file, each told once for the file instead of once per box.

Width and height exchanged, boxes given as corners or as fractions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from detector.data.annotations import COLUMNS, Annotations
from detector.data.images import ORIENTATION, SIDEWAYS, quiet_open
from detector.data.problems import Problem
from detector.words import counted

# A box may leave its image by this many pixels without being a problem: it is clipped silently. Rounded
# coordinates are off by less than a pixel, and boxes counted from 1 instead of 0 by exactly one.
TOLERANCE = 1.0
FEWEST = 10  # boxes from which those of a file can be told to be corners
LEAVING = 0.25  # share of them that leave their images if the corners are taken for sizes


def leaving(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """bool ``[A]``: which boxes (left, top, width, height) leave their image by more than :data:`TOLERANCE`.

    Args:
        boxes: float64 ``[A, 4]``.
        sizes: int64 ``[A, 2]``, height and width of the image of each.
    """
    beyond = boxes[:, :2] + boxes[:, 2:] - sizes[:, ::-1]
    return np.maximum(-boxes[:, :2], beyond).max(axis=1, initial=-np.inf) > TOLERANCE


def seem_fractions(boxes: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether all ``boxes`` are within 0 and 1 though the images are larger; arguments as of :func:`leaving`."""
    return len(boxes) > 0 and bool((boxes >= 0).all() and (boxes <= 1).all() and (sizes > 2).all())


def seem_corners(boxes: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether many ``boxes`` leave their images, but none as (x1, y1, x2, y2); arguments as of :func:`leaving`."""
    limit = np.tile(sizes[:, ::-1], 2) + TOLERANCE
    corners = (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= -TOLERANCE).all() and (boxes <= limit).all()
    return len(boxes) >= FEWEST and bool(corners) and float(leaving(boxes, sizes).mean()) >= LEAVING


def exchange_sizes(
    read: Annotations, folder: Path, stored: np.ndarray | None = None
) -> tuple[Annotations, list[Problem]]:
    """``read`` with the sizes of the image files where the annotation file has width and height exchanged.

    Only where the boxes fit the image files at least as well: pictures that were turned after they were labelled
    have exchanged sizes too.

    Args:
        read: with image sizes.
        folder: of the images.
        stored: int64 ``[M, 2]``, height and width of the image files that have another size than ``read`` says, 0 for
            the others. None: files are opened, but only if boxes leave their images.

    Returns:
        The corrected annotations, and one or no problem.
    """
    leave = leaving(read.boxes_xywh, read.sizes[read.image])
    if stored is None:
        rows = np.unique(read.image[leave])
        stored = np.zeros_like(read.sizes)
        stored[rows] = wrong_sizes(folder, read, rows)
        if (stored == read.sizes[:, ::-1]).all(axis=1).any():
            stored = wrong_sizes(folder, read, np.arange(len(stored)))
    exchanged = (stored == read.sizes[:, ::-1]).all(axis=1)
    turned = replace(read, sizes=np.where(exchanged[:, None], stored, read.sizes))
    if not exchanged.any() or leaving(read.boxes_xywh, turned.sizes[read.image]).sum() > leave.sum():
        return read, []
    row = int(exchanged.argmax())
    height, width = stored[row].tolist()
    what = (
        f"width and height are exchanged in the entries of {exchanged.sum():,} of {counted(len(exchanged), 'image')}: "
        f"image {read.image_ids[row]} ({read.file_names[row]}) is {width} x {height} pixels (width x height), its "
        f"entry says {height} x {width}"
    )
    return turned, [Problem("exchanged_size", what)]


def wrong_sizes(folder: Path, read: Annotations, rows: np.ndarray) -> np.ndarray:
    """int64 ``[len(rows), 2]``: height and width of the image files of another size than ``read`` says, else 0.

    Files that cannot be read and pictures that EXIF turns to the size of their entry are no other size.
    """
    sizes = np.zeros((len(rows), 2), dtype=np.int64)
    for i, row in enumerate(rows.tolist()):
        try:
            with quiet_open(folder / str(read.file_names[row])) as image:
                size, sideways = (image.height, image.width), image.getexif().get(ORIENTATION) in SIDEWAYS
        except Exception:  # Pillow's decoders raise what they like; the reader of the image tells
            continue
        said = tuple(read.sizes[row].tolist())
        if size != said and not (sideways and size[::-1] == said):
            sizes[i] = size
    return sizes


def straighten_boxes(read: Annotations) -> tuple[Annotations, list[Problem]]:
    """``read`` with boxes as (left, top, width, height) in pixels where all boxes of the file are something else.

    Boxes that are corners (x1, y1, x2, y2) become sizes. Boxes in fractions of the image are left out: whether x and y
    are of the corner or of the centre cannot be known.

    Returns:
        The corrected annotations, and one or no problem.
    """
    box, pixels = read.boxes_xywh, read.sizes[read.image]
    fractions, corners = seem_fractions(box, pixels), seem_corners(box, pixels)
    if not fractions and not corners:
        return read, []
    example = f"such as annotation {read.ids[0]} with [{', '.join(f'{v:.6g}' for v in box[0].tolist())}]"
    if fractions:
        what = (
            f"the boxes of all {counted(len(box), 'annotation')} are within 0 and 1, {example}: they seem to be "
            "fractions of width and height (as in YOLO files), and have to be [x, y, width, height] in pixels"
        )
        return replace(read, **{name: getattr(read, name)[:0] for name in COLUMNS}), [Problem("relative_boxes", what)]
    what = (
        f"{leaving(box, pixels).sum():,} of {len(box):,} boxes leave their images as [x, y, width, height], and none "
        f"as [x1, y1, x2, y2], {example}: they seem to be corners, and have to be [x, y, width, height]"
    )
    sizes = np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1)
    area = np.where(read.area_given, read.area, sizes[:, 2] * sizes[:, 3])
    return replace(read, boxes_xywh=sizes, area=area), [Problem("corner_boxes", what)]
