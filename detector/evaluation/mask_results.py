"""Boxes of results that give masks or keypoints only, as pycocotools' ``loadRes`` makes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from detector.data import runs
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
        return runs.measure_mask(entry["segmentation"])
    points = entry.get("keypoints")
    if not isinstance(points, list) or len(points) < 3 or len(points) % 3 or not all(map(is_finite, points)):
        return None
    x, y = np.array(points[0::3], dtype=np.float64), np.array(points[1::3], dtype=np.float64)
    width, height = float(np.ptp(x)), float(np.ptp(y))
    return [float(x.min()), float(y.min()), width, height], width * height
