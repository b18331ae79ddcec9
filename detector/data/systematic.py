"""Mistakes of a whole annotation file, each told once for the file instead of once per box.

Width and height exchanged, boxes given as corners or as fractions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from detector.data.annotations import COLUMNS, Annotations
from detector.data.orientation import Headers
from detector.data.problems import Problem
from detector.words import counted

# A box may leave its image by this many pixels without being a problem: it is clipped silently. Rounded
# coordinates are off by less than a pixel, and boxes counted from 1 instead of 0 by exactly one.
TOLERANCE = 1.0
FEWEST = 10  # boxes from which those of a file can be told to be corners
LEAVING = 0.25  # share of them that leave their images if the corners are taken for sizes
FAR = 0.05  # by this share of a side a box leaves a picture that it was not drawn on; a careless one leaves by less


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
    read: Annotations, folder: Path, headers: Headers | None = None
) -> tuple[Annotations, list[Problem]]:
    """``read`` with the sizes that its boxes are in, where the annotation file has width and height exchanged.

    Either the entries of all pictures are exchanged, or those of pictures that EXIF turns: their boxes were drawn on
    the picture as viewers show it, and their sizes are those as stored. Entries are corrected only if the boxes fit
    better: pictures that were turned after they were labelled have exchanged sizes too.

    Args:
        read: with image sizes.
        folder: of the images.
        headers: of the image files, as far as they are known. Others are opened only if boxes leave their images.

    Returns:
        The corrected annotations, and a problem for each of the two kinds that there is.
    """
    headers = Headers(folder, read.file_names) if headers is None else headers
    leave = leaving(read.boxes_xywh, read.sizes[read.image])
    headers.open(np.unique(read.image[leave]))
    plain, turned = exchanged(read, headers), drawn_upright(read, headers)
    if plain.any() or turned.any():
        headers.open(np.arange(len(read.sizes)))
        plain, turned = exchanged(read, headers), drawn_upright(read, headers)
    problems = []
    for rows, why in ((plain, "{file}, its entry says {entry}"), (turned, UPRIGHT)):
        sizes = np.where(rows[:, None], read.sizes[:, ::-1], read.sizes)
        if not rows.any() or leaving(read.boxes_xywh, sizes[read.image]).sum() > leave.sum():
            continue
        row = int(rows.argmax())
        height, width = headers.sizes[row].tolist()
        entry = "{1} x {0}".format(*read.sizes[row].tolist())
        what = (
            f"width and height are exchanged in the entries of {rows.sum():,} of {counted(len(rows), 'image')}: "
            f"image {read.image_ids[row]} ({read.file_names[row]}) is "
            + why.format(file=f"{width} x {height} pixels (width x height)", entry=entry)
        )
        read = replace(read, sizes=sizes)
        problems.append(Problem("exchanged_size", what))
    return read, problems


UPRIGHT = (
    "stored as {file}, as its entry says, but EXIF turns it, and boxes that leave it as it is stored fit it as viewers "
    "show it"
)


def exchanged(read: Annotations, headers: Headers) -> np.ndarray:
    """bool ``[M]``: the entries whose width and height are those of the opened file exchanged, whatever EXIF says."""
    other = (headers.sizes == read.sizes[:, ::-1]).all(axis=1) & (read.sizes[:, 0] != read.sizes[:, 1])
    return other & ~headers.sideways


def drawn_upright(read: Annotations, headers: Headers) -> np.ndarray:
    """bool ``[M]``: the entries with the size of a file as stored whose boxes are of the picture as EXIF turns it.

    All entries of pictures that EXIF lays on another side, if the boxes of some leave the picture as stored and fit the
    turned one, and of none the other way round. If both occur, those whose own boxes tell.
    """
    sideways = headers.sideways & (headers.sizes == read.sizes).all(axis=1)
    if not sideways.any():
        return sideways
    of_box = read.sizes[read.image]

    def none_leaves(sizes: np.ndarray) -> np.ndarray:
        return np.bincount(read.image[leaving(read.boxes_xywh, sizes)], minlength=len(sideways)) == 0

    def some_far_out(sizes: np.ndarray) -> np.ndarray:
        beyond = read.boxes_xywh[:, :2] + read.boxes_xywh[:, 2:] > sizes[:, ::-1] * (1 + FAR)
        return np.bincount(read.image[beyond.any(axis=1)], minlength=len(sideways)) > 0

    upright = sideways & some_far_out(of_box) & none_leaves(of_box[:, ::-1])
    as_stored = sideways & some_far_out(of_box[:, ::-1]) & none_leaves(of_box)
    return sideways if upright.any() and not as_stored.any() else upright


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
