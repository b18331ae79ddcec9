"""Boxes around segmentations: polygons and run-length encodings as COCO files have them."""

from __future__ import annotations

import itertools
from typing import Any

from detector.data.runs import measure_mask
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
    if encoding.get("size") != list(size):
        return None
    measured = measure_mask({**encoding, "size": list(size)})
    return measured and measured[0]
