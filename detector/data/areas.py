"""Areas of annotations that cannot be right. COCO's AP of small, medium and large objects goes by them."""

from __future__ import annotations

import numpy as np

NO_AREA = "without an area (missing, negative or no number)"
# A mask is within its box; where boxes are whole pixels, the area may count the pixels of both edges.
ROUNDED = 1.01


def odd_areas(boxes: np.ndarray, area: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    """Which areas cannot be right: annotations "with the area 0", and the like.

    Args:
        boxes: float64 ``[A, 4]``: left, top, width, height.
        area: float64 ``[A]``.
        given: bool ``[A]``, whether the file has a finite area that is not negative.

    Returns:
        bool ``[A]`` for each fault; those that none has are left out.
    """
    sides = np.maximum(boxes[:, 2:], 0)
    most = np.maximum(sides.prod(axis=1) * ROUNDED, (sides + 1).prod(axis=1))
    there = given & (sides > 0).all(axis=1)
    faults = {
        NO_AREA: ~given,
        "with the area 0": there & (area == 0),
        "with an area larger than the box": there & (area > most),
    }
    return {what: rows for what, rows in faults.items() if rows.any()}
