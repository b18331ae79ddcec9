"""Boxes around segmentations: polygons and run-length encodings as COCO files have them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from detector.data.runs import checked_runs
from detector.files import is_box, is_finite
from detector.inspection.numbers import as_number


def box_of_mask(segmentation: Any, size: tuple[int, int]) -> list[float] | None:
    """[left, top, width, height] of the box around ``segmentation``; None if it cannot be read as a whole.

    Args:
        segmentation: polygons (lists of x, y, x, y, ... in pixels; one list of them or of points is taken as one
            polygon), or an object with ``size`` and ``counts``, plain or compressed.
        size: (height, width) of its image. An encoding for another size is of another picture.
    """
    found = _box_of_runs(segmentation, size) if isinstance(segmentation, dict) else _box_of_polygons(segmentation)
    return found if is_box(found) and min(found[2:]) > 0 else None


def _box_of_polygons(polygons: Any) -> Any:
    if not isinstance(polygons, list) or not polygons:
        return None
    if not isinstance(polygons[0], list) or all(isinstance(p, list) and len(p) == 2 for p in polygons):
        polygons = [polygons]  # one polygon
    points = []
    for polygon in polygons:
        if not isinstance(polygon, list):
            return None
        pairs = polygon and all(isinstance(p, list) and len(p) == 2 for p in polygon)
        numbers = [as_number(v) for v in (itertools.chain(*polygon) if pairs else polygon)]
        # Of fewer than three points pycocotools makes a box, others a line.
        if len(numbers) < 6 or len(numbers) % 2 or not all(is_finite(v) for v in numbers):
            return None
        points += list(zip(numbers[::2], numbers[1::2], strict=True))
    low, high = ([edge(c) for c in zip(*points, strict=True)] for edge in (min, max))
    return [*low, high[0] - low[0], high[1] - low[1]]


def _box_of_runs(encoding: dict[str, Any], size: tuple[int, int]) -> Any:
    """Of runs of background and object, in turn, down the columns."""
    height, width = size
    counts = checked_runs(encoding.get("counts"), height * width)
    if encoding.get("size") != [height, width] or counts is None:
        return None
    ends = np.cumsum([*counts, *[0] * (len(counts) % 2)]).reshape(-1, 2)
    first, last = ends[ends[:, 1] > ends[:, 0]].T - np.array([[0], [1]])
    if not len(first):
        return None
    left, right = int(first[0] // height), int(last[-1] // height)
    over = first // height < last // height  # goes on in the next column: from its top
    top, bottom = np.where(over, 0, first % height).min(), np.where(over, height - 1, last % height).max()
    return [left, int(top), right - left + 1, int(bottom - top) + 1]
