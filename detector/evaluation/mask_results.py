"""Boxes of results that give masks or keypoints only, as pycocotools' ``loadRes`` makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask

from detector.data.runs import checked_runs
from detector.files import is_finite


def box_and_area(entry: dict[str, Any]) -> tuple[list[float], float] | None:
    """The box around an entry's mask or keypoints, and the area that pycocotools gives the detection.

    Args:
        entry: of a results file, without a ``bbox``. A mask is a run-length encoding, ``{"size": [height, width],
            "counts": ...}``, compressed or not; keypoints are x, y, score, x, y, score, ... in pixels.

    Returns:
        ``[left, top, width, height]``, and the pixels of the mask or the area of the keypoints' box. None: there is
        neither, or it is damaged.
    """
    if "segmentation" in entry:
        return _of_mask(entry["segmentation"])
    points = entry.get("keypoints")
    if not isinstance(points, list) or len(points) < 3 or len(points) % 3 or not all(map(is_finite, points)):
        return None
    x, y = np.array(points[0::3], dtype=np.float64), np.array(points[1::3], dtype=np.float64)
    width, height = float(np.ptp(x)), float(np.ptp(y))
    return [float(x.min()), float(y.min()), width, height], width * height


def _of_mask(encoded: Any) -> tuple[list[float], float] | None:
    if not isinstance(encoded, dict):
        return None
    size = encoded.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return None
    counts = checked_runs(encoded.get("counts"), size[0] * size[1])
    if counts is None or size[0] * size[1] >= 2**32:  # pycocotools counts pixels in 32 bits
        return None
    # Not from the text: of a damaged one pycocotools reads and writes beyond the end.
    runs = mask.frPyObjects({"size": size, "counts": counts}, *size)
    left, top, width, height = (float(side) for side in mask.toBbox(runs))
    area = float(mask.area(runs))
    whole = 0 <= left <= left + width <= size[1] and 0 <= top <= top + height <= size[0] and area <= width * height
    return ([left, top, width, height], area) if whole else None
