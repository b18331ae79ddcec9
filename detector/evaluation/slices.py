"""The numbers of parts of the data: recall by size of the object."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detector.evaluation.matches import Matches

SIDES = (0, 16, 32, 64, 96, 128, 256, np.inf)
"""Edges of the size bins: square root of the object's area, in pixels. 32 and 96 are COCO's."""


class BySide(NamedTuple):
    """Recall by size of the object.

    Attributes:
        objects: int64 ``[S]``, objects in each bin of :data:`SIDES`.
        recall: float64 ``[S, T]``, their recall at each IoU threshold; NaN for a bin without objects.
    """

    objects: np.ndarray
    recall: np.ndarray


def recall_by_side(matches: Matches) -> BySide:
    """The share of objects found, by size: all detections count, whatever their score."""
    objects = np.flatnonzero(~matches.crowd)
    bins = np.searchsorted(SIDES[1:-1], np.sqrt(matches.object_area[objects]), side="right")
    count = np.bincount(bins, minlength=len(SIDES) - 1)
    found = matches.found_by[:, objects] >= 0
    hits = np.stack([np.bincount(bins, row, len(SIDES) - 1) for row in found], axis=1)
    return BySide(count, np.where(count[:, None] > 0, hits / np.maximum(count, 1)[:, None], np.nan))
